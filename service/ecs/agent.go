package ecs

import (
	"context"
	"slices"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// zoneOf is an instance's zone. A lone machine plays all of them; it says the first.
func zoneOf(r store.Reader, i *state.ContainerInstance) string {
	if i.Zone != "" {
		return i.Zone
	}
	if region, ok := state.Regions.Get(r, state.RegionKey); ok && len(region.Zones) > 0 {
		return region.Zones[0].Name
	}
	return ""
}

// mayReport refuses callers that may not speak for a container instance. For a
// node's own instance that is the node's session of the nodes' role and nobody
// else: permissions alone must not let a user invent what a machine does.
func (e *ECS) mayReport(ctx context.Context, r store.Reader, instance string) error {
	return MaySpeakFor(r, e.caller(ctx), instance)
}

// mayReportOn refuses callers that may not speak of a task. Of a task whose
// instance is gone its own account may, and the region's machines.
func (e *ECS) mayReportOn(ctx context.Context, r store.Reader, t *state.Task, missing error) error {
	c := e.caller(ctx)
	switch {
	case t.Instance == "":
		return missing // no agent can have it yet: whoever speaks of it makes it up
	case state.ContainerInstances.Has(r, t.Instance):
		return e.mayReport(ctx, r, t.Instance)
	case c.Account == t.Account, c.Kind == auth.AssumedRole && c.RoleARN == "arn:aws:iam::"+e.cfg.Account+":role/"+nodeRole:
		return nil
	}
	return missing
}

// MaySpeakFor is nil if c may be the agent of a container instance, as far as
// that is not a matter of permissions.
func MaySpeakFor(r store.Reader, c *auth.Caller, instance string) error {
	i, ok := state.ContainerInstances.Get(r, instance)
	if !ok || !i.Hidden && i.Account == c.Account {
		return nil
	}
	if i.Hidden && c.Kind == auth.AssumedRole && c.RoleARN == "arn:aws:iam::"+i.Account+":role/"+nodeRole && c.SessionName == i.Node {
		return nil
	}
	return &api.AccessDeniedException{Message: "User: " + c.ARN + " is not authorized to report for container instance " + instance}
}

// nodeRole is the path and name of the role of Berth's nodes.
const nodeRole = "berth/node"

// DiscoverPollEndpoint tells an agent where its two websockets are.
func (e *ECS) DiscoverPollEndpoint(ctx context.Context, in *api.DiscoverPollEndpointInput) (*api.DiscoverPollEndpointOutput, error) {
	url := e.cfg.PollEndpoint(ctx)
	return &api.DiscoverPollEndpointOutput{Endpoint: &url, TelemetryEndpoint: &url, ServiceConnectEndpoint: &url}, nil
}

// acknowledged is what agents get for a report. They do not look at it.
const acknowledged = "ACK"

// SubmitTaskStateChange takes an agent's report of a task.
func (e *ECS) SubmitTaskStateChange(ctx context.Context, in *api.SubmitTaskStateChangeInput) (*api.SubmitTaskStateChangeOutput, error) {
	r := report{
		status: val(in.Status), reason: val(in.Reason), containers: in.Containers, attachments: in.Attachments,
		pullStartedAt: val(in.PullStartedAt), pullStoppedAt: val(in.PullStoppedAt), executionStoppedAt: val(in.ExecutionStoppedAt),
	}
	switch r.status {
	case "", state.Pending, state.Running, state.Stopped:
	default:
		return nil, invalid("Invalid task status: %s", r.status)
	}
	err := e.report(ctx, val(in.Task), in.Cluster, r)
	return &api.SubmitTaskStateChangeOutput{Acknowledgment: new(acknowledged)}, err
}

// SubmitContainerStateChange takes an agent's report of one container.
func (e *ECS) SubmitContainerStateChange(ctx context.Context, in *api.SubmitContainerStateChangeInput) (*api.SubmitContainerStateChangeOutput, error) {
	r := report{containers: []api.ContainerStateChange{{
		ContainerName: in.ContainerName, RuntimeId: in.RuntimeId, ExitCode: in.ExitCode,
		Reason: in.Reason, NetworkBindings: in.NetworkBindings, Status: in.Status,
	}}}
	err := e.report(ctx, val(in.Task), in.Cluster, r)
	return &api.SubmitContainerStateChangeOutput{Acknowledgment: new(acknowledged)}, err
}

// report applies a report to the task it names.
func (e *ECS) report(ctx context.Context, ref string, clusterRef *string, r report) error {
	account := e.caller(ctx).Account
	now := e.now()
	return e.update(ctx, func(tx *store.Tx) error {
		// The cluster of the request is the agent's, not always the task's: it
		// only helps where the task is named by its id.
		arn := ref
		if !isARN(ref) {
			cluster, err := e.clusterARN(account, clusterRef)
			if err != nil {
				return err
			}
			if arn, err = e.taskARN(account, state.ShortARN(cluster), ref); err != nil {
				return err
			}
		}
		t, ok := state.Tasks.Get(tx, arn)
		if !ok {
			// InvalidParameterException is what makes an agent forget the report.
			return invalid("The referenced task was not found.")
		}
		if err := e.mayReportOn(ctx, tx, t, invalid("The referenced task was not found.")); err != nil {
			return err
		}
		put(tx, t, r, now)
		return nil
	})
}

// put applies a report to a task and stores the outcome. An interface that is
// already gone leaves nothing to wait for.
func put(tx *store.Tx, t *state.Task, r report, now time.Time) {
	next, release := apply(t, r, now)
	if release {
		if eni, ok := state.NetworkInterfaces.Get(tx, next.ENI); ok {
			n := *eni
			n.Deleting = true
			state.NetworkInterfaces.Put(tx, &n)
		} else {
			next.End(now)
		}
	}
	if next != t {
		state.Tasks.Put(tx, next)
	}
}

// SubmitAttachmentStateChanges takes an agent's report of attachments whose
// task it does not name.
func (e *ECS) SubmitAttachmentStateChanges(ctx context.Context, in *api.SubmitAttachmentStateChangesInput) (*api.SubmitAttachmentStateChangesOutput, error) {
	out := &api.SubmitAttachmentStateChangesOutput{Acknowledgment: new(acknowledged)}
	now := e.now()
	return out, e.update(ctx, func(tx *store.Tx) error {
		for _, a := range in.Attachments {
			t, ok := attachmentOwner(tx, state.ShortARN(val(a.AttachmentArn)))
			if !ok {
				return invalid("The referenced attachment was not found.")
			}
			// Read again by key: an index is not compared at commit.
			if t, ok = state.Tasks.Get(tx, t.ARN); !ok {
				return invalid("The referenced attachment was not found.")
			}
			if err := e.mayReportOn(ctx, tx, t, invalid("The referenced attachment was not found.")); err != nil {
				return err
			}
			put(tx, t, report{attachments: []api.AttachmentStateChange{a}}, now)
		}
		return nil
	})
}

// attachmentOwner finds the task of an attachment, among those that are still
// being set up first: there it nearly always is.
func attachmentOwner(r store.Reader, id string) (*state.Task, bool) {
	owns := func(t *state.Task) bool {
		return slices.ContainsFunc(t.Attachments, func(a state.Attachment) bool { return a.ID == id })
	}
	for t := range state.Tasks.By(r, "status", state.Provisioning) {
		if owns(t) {
			return t, true
		}
	}
	for t := range state.Tasks.All(r) {
		if owns(t) {
			return t, true
		}
	}
	return nil, false
}
