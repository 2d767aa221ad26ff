package ecs

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Statuses of attachments in the order they pass through them. FAILED is as
// final as DELETED.
var attachmentOrder = []string{"PRECREATED", "CREATED", "ATTACHING", "ATTACHED", "DETACHING", "DETACHED", "DELETED", "FAILED"}

var containerOrder = []string{state.Pending, state.Running, state.Stopped}

// forward moves a status along its order, never back.
func forward(order []string, status *string, to string) {
	if slices.Index(order, to) > slices.Index(order, *status) {
		*status = to
	}
}

const (
	attachmentAttached  = "ATTACHED"
	attachmentDetaching = "DETACHING"
	maxReason           = 1024
	maxRuntimeID        = 255
)

// A report is what an agent says of a task. Reports may come late, twice, or
// out of order: applying one only ever adds to what is known.
type report struct {
	status      string // PENDING, RUNNING, STOPPED, or "" for its parts alone
	reason      string
	containers  []api.ContainerStateChange
	attachments []api.AttachmentStateChange

	pullStartedAt, pullStoppedAt, executionStoppedAt time.Time
}

// apply returns the task after the report. It reports whether the task's
// network interface is no longer needed.
func apply(old *state.Task, r report, now time.Time) (next *state.Task, release bool) {
	t := old.Clone()
	if t.LastStatus == state.Stopped {
		return old, false
	}
	if t.Connectivity == "" {
		t.Connectivity, t.ConnectivityAt = string(api.ConnectivityConnected), now
	}
	once(&t.PullStartedAt, r.pullStartedAt)
	once(&t.PullStoppedAt, r.pullStoppedAt)
	for _, c := range r.containers {
		i := slices.IndexFunc(t.Containers, func(x state.Container) bool { return x.Name == val(c.ContainerName) })
		if i >= 0 {
			applyContainer(&t.Containers[i], c)
		}
	}
	for _, a := range r.attachments {
		id := state.ShortARN(val(a.AttachmentArn))
		for i := range t.Attachments {
			if t.Attachments[i].ID == id {
				forward(attachmentOrder, &t.Attachments[i].Status, val(a.Status))
			}
		}
	}
	// The network is there: what is left to wait for is the agent.
	if n := t.NetworkAttachment(); n != nil && n.Status == attachmentAttached {
		t.Advance(state.Pending)
	}
	switch r.status {
	case state.Pending:
		if t.NetworkAttachment() == nil {
			t.Advance(state.Pending)
		}
	case state.Running:
		if !t.Past(state.Deprovisioning) {
			once(&t.StartedAt, now)
		}
		t.Advance(state.Running)
	case state.Stopped:
		release = stopped(t, r, now)
	}
	if t.Version == old.Version && !reflect.DeepEqual(t, old) {
		t.Version++
	}
	return t, release
}

// once keeps the first time that was reported.
func once(have *time.Time, t time.Time) {
	if have.IsZero() {
		*have = t
	}
}

func applyContainer(c *state.Container, r api.ContainerStateChange) {
	forward(containerOrder, &c.LastStatus, val(r.Status))
	c.RuntimeID = cmp.Or(c.RuntimeID, truncate(val(r.RuntimeId), maxRuntimeID))
	c.ImageDigest = cmp.Or(c.ImageDigest, truncate(val(r.ImageDigest), maxRuntimeID))
	c.Reason = cmp.Or(c.Reason, truncate(val(r.Reason), maxReason))
	if len(r.NetworkBindings) > 0 {
		c.Bindings = r.NetworkBindings
	}
	if c.ExitCode == nil && r.ExitCode != nil && c.LastStatus == state.Stopped {
		c.ExitCode = new(int(*r.ExitCode))
	}
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// stopped applies the end of a task's execution. A task with a network
// interface is not at its end until that is gone.
func stopped(t *state.Task, r report, now time.Time) (release bool) {
	if t.Past(state.Deprovisioning) {
		return false
	}
	for i := range t.Containers {
		t.Containers[i].LastStatus = state.Stopped
	}
	once(&t.ExecutionStoppedAt, r.executionStoppedAt)
	once(&t.ExecutionStoppedAt, now)
	code, reason := whyStopped(t, truncate(r.reason, maxReason))
	t.WantStop(code, reason, now)
	if t.StopCode == "" {
		t.StopCode, t.StoppedReason = code, reason
	}
	if t.ENI == "" {
		t.End(now)
		return false
	}
	t.Advance(state.Deprovisioning)
	if n := t.NetworkAttachment(); n != nil {
		forward(attachmentOrder, &n.Status, attachmentDetaching)
	}
	return true
}

// whyStopped says why a task ended that nobody had asked to.
func whyStopped(t *state.Task, reason string) (code, text string) {
	failure := ""
	ran := !t.StartedAt.IsZero()
	for _, c := range t.Containers {
		if !c.Essential {
			continue
		}
		if c.ExitCode != nil && !neverRan(c.Reason) {
			ran = true
		}
		if failure == "" && neverRan(c.Reason) {
			failure = c.Reason
		}
	}
	if ran {
		return string(api.TaskStopCodeEssentialContainerExited), cmp.Or(reason, "Essential container in task exited")
	}
	return string(api.TaskStopCodeTaskFailedToStart), cmp.Or(reason, failure, "Task failed to start")
}

// HostStopped says of the tasks that ran on a node that they ended with it. It
// is called when nothing of them can be left, before anybody else could say
// that their containers have exited, which would be true and not the reason.
//
// For a task on an EC2 instance AWS says TerminationNotice and "Host EC2
// (instance i-…) stopped." What it says of a Fargate task whose host went is not
// known to us; the code is taken from there and the words are ours.
func (e *ECS) HostStopped(ctx context.Context, node string) error {
	err := e.db.Update(ctx, func(tx *store.Tx) error {
		n, ok := state.Nodes.Get(tx, node)
		if !ok {
			return nil // it has not joined yet
		}
		now := e.now()
		for _, t := range slices.Collect(state.Tasks.By(tx, "instance", n.Instance)) {
			if t.StartedAt.IsZero() || t.LastStatus == state.Stopped {
				continue
			}
			next := t.Clone()
			if next.WantStop(string(api.TaskStopCodeTerminationNotice), "Host stopped.", now) {
				state.Tasks.Put(tx, next)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("tasks of node %s, which was stopped: %w", node, err)
	}
	return nil
}

// neverRan tells from a container's reason that it was never started. An error
// of a running container, such as running out of memory, does not count.
func neverRan(reason string) bool {
	name, _, ok := strings.Cut(reason, ":")
	return ok && (strings.HasPrefix(name, "Cannot") && name != "CannotStopContainerError" || slices.Contains([]string{
		"ResourceInitializationError", "DockerTimeoutError", "HostConfigError", "ContainerNetworkingError",
		"ContainerRuntimeTimeoutError", "ContainerRuntimeError", "TaskStoppedBeforePullBeginError", "DockerClientConfigError",
	}, name))
}
