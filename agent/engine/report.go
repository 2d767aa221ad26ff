package engine

import (
	"time"
	"unicode/utf8"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/dispatch/acs"
)

// containerDelay is how long a change of a single container waits for the
// next change of its task, to be told with it.
const containerDelay = time.Second

// Limits of the strings of SubmitTaskStateChange.
const (
	maxReason    = 1024
	maxRuntimeID = 255
)

// Report says what the control plane must be told next of the task, nil if it
// knows everything; and, if something is to be told later, when. Calls are
// made one after the other: what is told is the state at the time of the
// call, so that a control plane which was away is not told every step.
//
// The one thing that is never left out is that a task ran: the control plane
// concludes from RUNNING that a task did not fail to start.
func (t *Task) Report(now time.Time) (in *ecs.SubmitTaskStateChangeInput, wake time.Time) {
	eni := t.Interface()
	if (t.Network || !t.RunningAt.IsZero()) && eni != nil && eni.AttachmentArn != "" && !t.Sent.Attached && t.Sent.Status != acs.StatusStopped {
		in = t.change("")
		in.Attachments = []ecs.AttachmentStateChange{{AttachmentArn: new(eni.AttachmentArn), Status: new("ATTACHED")}}
		return in, time.Time{}
	}
	switch {
	case t.Sent.Status == acs.StatusStopped:
		return nil, time.Time{}
	case !t.RunningAt.IsZero() && t.Sent.Status != acs.StatusRunning:
		in = t.change(acs.StatusRunning)
	case t.Settled:
		in = t.change(acs.StatusStopped)
		if t.Reason != "" {
			in.Reason = new(truncate(t.Reason, maxReason))
		}
	default:
		status := acs.StatusPending
		if !t.RunningAt.IsZero() {
			status = acs.StatusRunning
		}
		last := t.lastUnsent()
		if last.IsZero() {
			return nil, time.Time{}
		}
		if due := last.Add(containerDelay); now.Before(due) {
			return nil, due
		}
		in = t.change(status)
	}
	for _, c := range t.Containers {
		told := t.told(c, *in.Status)
		if told == "" || told == t.Sent.Containers[c.Def.Name] {
			continue
		}
		sc := ecs.ContainerStateChange{ContainerName: new(c.Def.Name), Status: new(told)}
		if !c.CreatedAt.IsZero() {
			sc.RuntimeId = new(truncate(c.RuntimeID, maxRuntimeID))
		}
		if c.Digest != "" {
			sc.ImageDigest = new(truncate(c.Digest, maxRuntimeID))
		}
		if told == acs.StatusRunning {
			sc.NetworkBindings = c.bindings()
		}
		if told == acs.StatusStopped {
			if c.ExitCode != nil {
				sc.ExitCode = new(int32(*c.ExitCode))
			}
			if c.Reason != "" {
				sc.Reason = new(truncate(c.Reason, maxReason))
			}
		}
		in.Containers = append(in.Containers, sc)
	}
	return in, time.Time{}
}

func (t *Task) change(status string) *ecs.SubmitTaskStateChangeInput {
	in := &ecs.SubmitTaskStateChangeInput{Task: new(t.Def.Arn)}
	if t.Def.TaskClusterArn != "" {
		in.Cluster = new(t.Def.TaskClusterArn)
	}
	if status == "" {
		return in
	}
	in.Status = new(status)
	for _, f := range []struct {
		at time.Time
		to **time.Time
	}{
		{t.PullStartedAt, &in.PullStartedAt},
		{t.PullStoppedAt, &in.PullStoppedAt},
		{t.ExecutionStoppedAt, &in.ExecutionStoppedAt},
	} {
		if !f.at.IsZero() {
			*f.to = new(f.at)
		}
	}
	return in
}

// told is the status that a container has in a report of its task's status.
// The first report that the task runs says so of all its essential containers,
// even if one has ended since; the next one says that.
func (t *Task) told(c *Container, task string) string {
	first := task == acs.StatusRunning && t.Sent.Status != acs.StatusRunning
	switch {
	case c.Phase == Stopped && first && !c.StartedAt.IsZero() && c.Def.Essential:
		return acs.StatusRunning
	case c.Phase == Stopped:
		return acs.StatusStopped
	case c.Phase == Running:
		return acs.StatusRunning
	}
	return ""
}

// lastUnsent is when the last container change happened that nobody was told of.
func (t *Task) lastUnsent() (last time.Time) {
	status := acs.StatusPending
	if !t.RunningAt.IsZero() {
		status = acs.StatusRunning
	}
	for _, c := range t.Containers {
		if told := t.told(c, status); told == "" || told == t.Sent.Containers[c.Def.Name] {
			continue
		}
		at := c.StartedAt
		if c.Phase == Stopped && c.FinishedAt.After(at) {
			at = c.FinishedAt
		}
		if at.After(last) {
			last = at
		}
	}
	return last
}

// Accept notes that the control plane has taken a report.
func (t *Task) Accept(in *ecs.SubmitTaskStateChangeInput) {
	if len(in.Attachments) > 0 {
		t.Sent.Attached = true
	}
	if in.Status == nil {
		return
	}
	t.Sent.Status = *in.Status
	for _, c := range in.Containers {
		if t.Sent.Containers == nil {
			t.Sent.Containers = map[string]string{}
		}
		t.Sent.Containers[*c.ContainerName] = *c.Status
	}
}

// truncate cuts s to at most n bytes, between characters.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
