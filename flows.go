package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"

	"github.com/berth-run/berth/auth"
	awslogs "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/service/ec2"
	"github.com/berth-run/berth/service/ec2/flow"
	"github.com/berth-run/berth/service/logs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// flowWriter delivers what nodes have counted to the log groups of flow logs,
// as the roles that these name, and by the API that everybody else uses.
type flowWriter struct {
	db         *store.DB
	ec2        *ec2.EC2
	logs       *logs.Logs
	authorizer *auth.Authorizer
	region     string
	log        *slog.Logger
}

// eventsPerCall is how many events one PutLogEvents takes.
const eventsPerCall = 10_000

// write delivers the windows of one node.
func (f *flowWriter) write(ctx context.Context, node string, windows []fabric.FlowWindow) {
	for _, w := range windows {
		snap := f.db.Snapshot()
		for _, d := range ec2.FlowDeliveries(snap, flowWindow(w)) {
			failure := ""
			if err := f.deliver(ctx, snap, d); err != nil {
				if ctx.Err() != nil {
					return
				}
				failure = "Access error"
				if _, denied := errors.AsType[*auth.Denied](err); !denied && !errors.Is(err, errRole) {
					failure = "Unknown error"
				}
				f.log.Debug("flow log not delivered", "flow log", d.FlowLog, "node", node, "err", err)
			}
			if err := f.ec2.Delivered(ctx, d.FlowLog, failure); err != nil && ctx.Err() == nil {
				f.log.Error("note how a flow log went", "flow log", d.FlowLog, "err", err)
			}
		}
	}
}

var errRole = errors.New("the role cannot be assumed")

// deliver puts events into a stream. Group and stream are made if need be.
func (f *flowWriter) deliver(ctx context.Context, snap *store.Snapshot, d ec2.FlowDelivery) error {
	role, ok := state.Roles.Get(snap, state.IAMKey(accountOf(d.Role), state.ShortARN(d.Role)))
	if !ok || role.ARN() != d.Role || !f.authorizer.ServiceMayAssume(role, ec2.FlowLogsService, nil) {
		return errRole
	}
	c := &auth.Caller{Kind: auth.AssumedRole, Account: role.Account, Name: role.Name, RoleARN: role.ARN(), SessionName: "vpc-flow-logs",
		ARN: auth.AssumedRoleARN(role.Account, role.Name, "vpc-flow-logs"), UserID: role.ID + ":vpc-flow-logs",
		Session: &auth.Session{Kind: auth.AssumedRole, Account: role.Account, Name: role.Name, ARN: role.ARN(), PrincipalID: role.ID, SessionName: "vpc-flow-logs"}}
	ctx = auth.WithCaller(auth.WithRequest(ctx, &auth.Request{Protocol: wire.JSON11, Service: "Logs", Region: f.region}), c)
	for begin := 0; begin < len(d.Lines); begin += eventsPerCall {
		in := &awslogs.PutLogEventsInput{LogGroupName: new(d.Group), LogStreamName: new(d.Stream)}
		for i := begin; i < min(len(d.Lines), begin+eventsPerCall); i++ {
			in.LogEvents = append(in.LogEvents, awslogs.InputLogEvent{Timestamp: new(d.Times[i]), Message: new(d.Lines[i])})
		}
		_, err := as(ctx, f, c, "PutLogEvents", in, f.logs.PutLogEvents)
		if _, missing := errors.AsType[*awslogs.ResourceNotFoundException](err); missing {
			if err := f.prepare(ctx, c, d); err != nil {
				return err
			}
			_, err = as(ctx, f, c, "PutLogEvents", in, f.logs.PutLogEvents)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prepare makes what is missing of a group and its stream.
func (f *flowWriter) prepare(ctx context.Context, c *auth.Caller, d ec2.FlowDelivery) error {
	there := func(err error) bool {
		_, ok := errors.AsType[*awslogs.ResourceAlreadyExistsException](err)
		return err == nil || ok
	}
	if !state.LogGroups.Has(f.db.Snapshot(), d.Account+"/"+d.Group) {
		if _, err := as(ctx, f, c, "CreateLogGroup", &awslogs.CreateLogGroupInput{LogGroupName: new(d.Group)}, f.logs.CreateLogGroup); !there(err) {
			return err
		}
	}
	if _, err := as(ctx, f, c, "CreateLogStream", &awslogs.CreateLogStreamInput{LogGroupName: new(d.Group), LogStreamName: new(d.Stream)}, f.logs.CreateLogStream); !there(err) {
		return err
	}
	return nil
}

// as calls an operation of the logs' API for a caller that is authorized as at the door.
func as[I, O any](ctx context.Context, f *flowWriter, c *auth.Caller, op string, in *I, call func(context.Context, *I) (*O, error)) (*O, error) {
	snap := f.db.Snapshot()
	authorize := f.logs.Authorize()[op]
	if authorize == nil {
		return nil, wire.NewError(http.StatusForbidden, "AccessDenied", "There is no rule for "+op)
	}
	if err := f.authorizer.Check(ctx, snap, c, authorize(ctx, snap, c, in)...); err != nil {
		return nil, err
	}
	return call(ctx, in)
}

// flowWindow is a window as the service knows it.
func flowWindow(w fabric.FlowWindow) ec2.FlowWindow {
	out := ec2.FlowWindow{Record: flow.Flow{Start: w.Start, End: w.End}, Interfaces: slices.Clone(w.Interfaces), Skipped: w.Skipped, Flows: map[string][]flow.Flow{}}
	// An interface of which there was too much was counted too.
	for _, id := range w.Skipped {
		if !slices.Contains(out.Interfaces, id) {
			out.Interfaces = append(out.Interfaces, id)
		}
	}
	for _, r := range w.Records {
		out.Flows[r.Interface] = append(out.Flows[r.Interface], flow.Flow{Egress: r.Egress, Src: r.Src, Dst: r.Dst, SrcPort: r.SrcPort, DstPort: r.DstPort, Protocol: r.Protocol,
			Packets: r.Packets, Bytes: r.Bytes, Start: r.Start, End: r.End, Action: r.Action, RejectReason: r.RejectReason, TCPFlags: r.TCPFlags, PktSrc: r.PktSrc, PktDst: r.PktDst})
	}
	return out
}
