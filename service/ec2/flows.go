package ec2

import (
	"context"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/ec2/flow"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// FlowLogsService is the AWS service that a role must trust so that flow logs
// are delivered with it.
const FlowLogsService = "vpc-flow-logs.amazonaws.com"

func noFlowLog(id string) error {
	if err := malformed("InvalidFlowLogId", "fl", id); err != nil {
		return err
	}
	return bad("InvalidFlowLogId.NotFound", "These flow log ids in the input list are not found: [TotalCount: 1] %s", id)
}

// watched checks that what a flow log is to record is there.
func watched(r store.Reader, account string, kind api.FlowLogsResourceType, id string) error {
	switch kind {
	case "VPC":
		_, err := vpcOf(r, account, id)
		return err
	case "Subnet":
		_, err := subnetOf(r, account, id)
		return err
	}
	_, err := interfaceOf(r, account, id)
	return err
}

// logGroup is the group that a request names, by itself or by its ARN.
func (e *EC2) logGroup(account string, name, destination *string) (string, error) {
	switch {
	case wire.Value(name) != "" && destination != nil:
		return "", bad("InvalidParameter", "Only one of LogGroupName and LogDestination can be specified.")
	case wire.Value(name) != "":
		return *name, nil
	case wire.Value(destination) == "":
		return "", bad("InvalidParameter", "LogDestination can't be empty if LogGroupName is not provided.")
	}
	group, ok := strings.CutPrefix(*destination, "arn:aws:logs:"+e.Region+":"+account+":log-group:")
	if group = strings.TrimSuffix(group, ":*"); !ok || group == "" {
		return "", bad("InvalidParameter", "LogDestination: %s is not the ARN of a log group of this account and region.", *destination)
	}
	return group, nil
}

// CreateFlowLogs begins to record the flows of VPCs, subnets or interfaces.
func (e *EC2) CreateFlowLogs(ctx context.Context, in *api.CreateFlowLogsInput) (*api.CreateFlowLogsOutput, error) {
	account := e.Account(ctx)
	switch {
	case in.ResourceType != "VPC" && in.ResourceType != "Subnet" && in.ResourceType != "NetworkInterface":
		return nil, unsupported("ResourceType " + string(in.ResourceType))
	case in.LogDestinationType != "" && in.LogDestinationType != "cloud-watch-logs":
		return nil, unsupported("LogDestinationType " + string(in.LogDestinationType))
	case in.DestinationOptions != nil:
		return nil, bad("InvalidParameter", "DestinationOptions can only be specified with the log destination type s3.")
	case in.DeliverCrossAccountRole != nil:
		return nil, unsupported("DeliverCrossAccountRole")
	case in.TrafficType == "":
		return nil, bad("InvalidParameter", "TrafficType is required for resource type %s", in.ResourceType)
	case wire.Value(in.DeliverLogsPermissionArn) == "":
		return nil, bad("InvalidParameter", "DeliverLogsPermissionArn can't be empty if LogDestinationType is cloud-watch-logs")
	case in.MaxAggregationInterval != nil && *in.MaxAggregationInterval != 60 && *in.MaxAggregationInterval != 600:
		return nil, bad("InvalidParameter", "Invalid aggregation interval. Valid values are 60 and 600.")
	}
	group, err := e.logGroup(account, in.LogGroupName, in.LogDestination)
	if err != nil {
		return nil, err
	}
	format := wire.Value(in.LogFormat)
	if format != "" {
		if _, err := flow.Parse(format); err != nil {
			return nil, bad("InvalidParameter", "LogFormat is not valid: %v", err)
		}
	}
	tags, err := tagsFor("vpc-flow-log", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	interval := 600
	if in.MaxAggregationInterval != nil {
		interval = int(*in.MaxAggregationInterval)
	}
	var ids []string
	for range in.ResourceIds {
		ids = append(ids, e.id("fl"))
	}
	var out *api.CreateFlowLogsOutput
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		out = &api.CreateFlowLogsOutput{ClientToken: in.ClientToken, FlowLogIds: []string{}, Unsuccessful: []api.UnsuccessfulItem{}}
		role, ok := state.Roles.Get(tx, state.IAMKey(state.AccountOf(*in.DeliverLogsPermissionArn), state.ShortARN(*in.DeliverLogsPermissionArn)))
		if !ok || role.ARN() != *in.DeliverLogsPermissionArn || role.Account != account || e.Assumable != nil && !e.Assumable(role, FlowLogsService) {
			return bad("InvalidParameter", "Unable to assume given IAM role")
		}
		if token := wire.Value(in.ClientToken); token != "" {
			for f := range state.FlowLogs.All(tx) {
				if f.Account == account && f.ClientToken == token {
					out.FlowLogIds = append(out.FlowLogIds, f.ID)
				}
			}
			if len(out.FlowLogIds) > 0 {
				return nil
			}
		}
		for i, id := range in.ResourceIds {
			f := &state.FlowLog{ID: ids[i], Account: account, Resource: id, Traffic: string(in.TrafficType), LogGroup: group, Role: role.ARN(), Format: format, Interval: interval,
				ClientToken: wire.Value(in.ClientToken), Tags: tags, CreatedAt: e.Now()}
			err := watched(tx, account, in.ResourceType, id)
			if err == nil {
				n := 0
				for have := range state.FlowLogs.By(tx, "resource", id) {
					n++
					if have.Account == account && have.LogGroup == f.LogGroup && have.Traffic == f.Traffic && have.Format == f.Format {
						err = bad("FlowLogAlreadyExists", "Error. There is an existing Flow Log with the same configuration and log destination.")
					}
				}
				if err == nil && n >= state.Limit(tx, account, "vpc/flow-logs-per-resource") {
					err = bad("FlowLogsLimitExceeded", "The maximum number of flow logs for %s has been reached.", id)
				}
			}
			if err != nil {
				out.Unsuccessful = append(out.Unsuccessful, unsuccessful(id, err))
				continue
			}
			state.FlowLogs.Put(tx, f)
			out.FlowLogIds = append(out.FlowLogIds, f.ID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteFlowLogs ends flow logs, each for itself. What they have written stays.
func (e *EC2) DeleteFlowLogs(ctx context.Context, in *api.DeleteFlowLogsInput) (*api.DeleteFlowLogsOutput, error) {
	var out *api.DeleteFlowLogsOutput
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		out = &api.DeleteFlowLogsOutput{Unsuccessful: []api.UnsuccessfulItem{}}
		for _, id := range in.FlowLogIds {
			f, ok := state.FlowLogs.Get(tx, id)
			if !ok || f.Account != e.Account(ctx) {
				out.Unsuccessful = append(out.Unsuccessful, unsuccessful(id, noFlowLog(id)))
				continue
			}
			state.FlowLogs.Delete(tx, id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DescribeFlowLogs lists flow logs. How delivery goes is said once there was one.
func (e *EC2) DescribeFlowLogs(ctx context.Context, in *api.DescribeFlowLogsInput) (*api.DescribeFlowLogsOutput, error) {
	type row = *state.FlowLog
	out, next, err := list(request{in.FlowLogIds, in.Filter, in.MaxResults, in.NextToken}, kind[row, api.FlowLog]{
		name: "flow-logs", rows: mine(state.FlowLogs.All(e.DB.Snapshot()), e.Account(ctx), func(f row) string { return f.Account }),
		id: func(f row) string { return f.ID }, missing: noFlowLog, tags: func(f row) []state.Tag { return f.Tags },
		filters: filters[row]{
			"deliver-log-status":   func(f row) []string { return one(f.Deliver) },
			"log-destination-type": func(row) []string { return one("cloud-watch-logs") },
			"flow-log-id":          func(f row) []string { return one(f.ID) },
			"log-group-name":       func(f row) []string { return one(f.LogGroup) },
			"resource-id":          func(f row) []string { return one(f.Resource) },
			"traffic-type":         func(f row) []string { return one(f.Traffic) },
		},
		view: func(f row) api.FlowLog {
			format := f.Format
			if format == "" {
				format = flow.Default
			}
			return api.FlowLog{CreationTime: new(f.CreatedAt), DeliverLogsErrorMessage: optional(f.DeliverErr), DeliverLogsPermissionArn: new(f.Role), DeliverLogsStatus: optional(f.Deliver),
				FlowLogId: new(f.ID), FlowLogStatus: new("ACTIVE"), LogGroupName: new(f.LogGroup), ResourceId: new(f.Resource), TrafficType: api.TrafficType(f.Traffic),
				LogDestinationType: "cloud-watch-logs", LogDestination: new("arn:aws:logs:" + e.Region + ":" + f.Account + ":log-group:" + f.LogGroup), LogFormat: new(format),
				MaxAggregationInterval: new(int32(f.Interval)), Tags: tagsView(f.Tags)}
		},
	})
	return &api.DescribeFlowLogsOutput{FlowLogs: out, NextToken: next}, err
}

// A FlowWindow is what a node has counted in one span of time.
type FlowWindow struct {
	Record     flow.Flow // Start and End of the window
	Interfaces []string  // that were counted
	Skipped    []string  // of which there was more than could be kept
	Flows      map[string][]flow.Flow
}

// A FlowDelivery is what one flow log gets of a window: events for one stream.
type FlowDelivery struct {
	FlowLog, Account, Role, Group, Stream string
	Times                                 []int64 // milliseconds
	Lines                                 []string
}

// FlowDeliveries are what the flow logs get of a window. Nodes count by the
// minute, so records are of one minute whatever a log's longest interval is.
func FlowDeliveries(r store.Reader, w FlowWindow) (out []FlowDelivery) {
	region, ok := state.Regions.Get(r, state.RegionKey)
	if !ok {
		return nil
	}
	for _, id := range w.Interfaces {
		n, ok := state.NetworkInterfaces.Get(r, id)
		if !ok {
			continue // gone since; so is what says who it was
		}
		about := interfaceFacts(r, region, n)
		flows := slices.Clone(w.Flows[id])
		for i := range flows {
			flows[i].Path = path(r, n, flows[i])
		}
		for _, resource := range []string{n.ID, n.Subnet, n.VPC} {
			for f := range state.FlowLogs.By(r, "resource", resource) {
				if f.Account != n.Account || !w.Record.End.After(f.CreatedAt) {
					continue
				}
				text := f.Format
				if text == "" {
					text = flow.Default
				}
				format, err := flow.Parse(text)
				if err != nil {
					continue // CreateFlowLogs lets none in
				}
				d := FlowDelivery{FlowLog: f.ID, Account: f.Account, Role: f.Role, Group: f.LogGroup, Stream: flow.Stream(n.ID, f.Traffic)}
				for _, rec := range flow.Records(about, flows, f.Traffic, slices.Contains(w.Skipped, id), w.Record.Start, w.Record.End) {
					d.Times = append(d.Times, rec.Start.UnixMilli())
					d.Lines = append(d.Lines, format.Line(rec))
				}
				// SKIPDATA speaks of the whole window and comes last.
				for i := len(d.Times) - 1; i > 0 && d.Times[i] < d.Times[i-1]; i-- {
					d.Times[i] = d.Times[i-1]
				}
				out = append(out, d)
			}
		}
	}
	return out
}

// interfaceFacts is what records say of an interface and of the task it is of.
func interfaceFacts(r store.Reader, region *state.Region, n *state.NetworkInterface) flow.Interface {
	out := flow.Interface{ID: n.ID, Account: n.Account, VPC: n.VPC, Subnet: n.Subnet, ZoneID: zoneIDs(r)[n.Zone], Region: region.Name}
	if n.Attachment != nil {
		out.Instance = n.Attachment.Instance
	}
	t, ok := state.Tasks.Get(r, n.Task)
	if !ok {
		return out
	}
	last := func(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
	out.Cluster, out.ClusterName, out.TaskDefinition, out.Task, out.TaskID = t.Cluster, last(t.Cluster), t.TaskDefinition, t.ARN, t.ID
	out.Service = last(t.Service)
	if i, ok := state.ContainerInstances.Get(r, t.Instance); ok && !i.Hidden {
		out.ContainerInstance, out.ContainerInstanceID = i.ARN, last(i.ARN)
	}
	var running []string
	for _, c := range t.Containers {
		if c.RuntimeID != "" {
			running = append(running, c.RuntimeID)
		}
	}
	if len(running) > 0 {
		out.Container = running[0]
	}
	if len(running) > 1 {
		out.SecondContainer = running[1]
	}
	return out
}

// Paths of what leaves an interface (facts: networking, flow logs).
const (
	pathSameVPC  = 1
	pathPeering  = 4
	pathInternet = 8
)

// path is the way that a flow takes out of an interface, 0 if it is not known.
func path(r store.Reader, n *state.NetworkInterface, f flow.Flow) int {
	if !f.Egress {
		return 0
	}
	v, ok := state.VPCs.Get(r, n.VPC)
	if !ok {
		return 0
	}
	for _, c := range v.CIDRs {
		if c.Contains(f.PktDst) {
			return pathSameVPC
		}
	}
	for _, c := range v.IPv6 {
		if c.CIDR.Contains(f.PktDst) {
			return pathSameVPC
		}
	}
	best, target := -1, ""
	for t := range state.RouteTables.By(r, "vpc", n.VPC) {
		s, ok := state.Subnets.Get(r, n.Subnet)
		if !ok || s.RouteTable != t.ID && (s.RouteTable != "" || !t.Main) {
			continue
		}
		for _, x := range t.Routes {
			if x.Destination.IsValid() && x.Destination.Contains(f.PktDst) && x.Destination.Bits() > best {
				best, target = x.Destination.Bits(), x.Target
			}
			if p, ok := state.PrefixLists.Get(r, x.PrefixList); ok {
				for _, entry := range p.Entries() {
					if entry.CIDR.Contains(f.PktDst) && entry.CIDR.Bits() > best {
						best, target = entry.CIDR.Bits(), x.Target
					}
				}
			}
		}
	}
	switch prefix, _, _ := strings.Cut(target, "-"); prefix {
	case "igw", "eigw":
		return pathInternet
	case "pcx":
		return pathPeering
	case "nat", "eni", "vpce":
		return pathSameVPC
	}
	return 0
}

// Delivered notes how the delivery of a flow log went.
func (e *EC2) Delivered(ctx context.Context, id, failure string) error {
	status := "SUCCESS"
	if failure != "" {
		status = "FAILED"
	}
	if f, ok := state.FlowLogs.Get(e.DB.Snapshot(), id); !ok || f.Deliver == status && f.DeliverErr == failure {
		return nil
	}
	return e.DB.Update(ctx, func(tx *store.Tx) error {
		f, ok := state.FlowLogs.Get(tx, id)
		if !ok {
			return nil
		}
		n := *f
		n.Deliver, n.DeliverErr = status, failure
		state.FlowLogs.Put(tx, &n)
		return nil
	})
}
