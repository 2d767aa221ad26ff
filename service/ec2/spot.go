package ec2

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// RequestSpotInstances launches instances that are called Spot. There is no
// spare capacity to bid for: a request is fulfilled at once, nothing is paid,
// and nothing interrupts it.
func (e *EC2) RequestSpotInstances(ctx context.Context, in *api.RequestSpotInstancesInput) (*api.RequestSpotInstancesOutput, error) {
	switch {
	case in.LaunchSpecification == nil:
		return nil, bad("MissingParameter", "The request must contain the parameter LaunchSpecification")
	case in.ValidFrom != nil && in.ValidFrom.After(e.Now()):
		return nil, bad("UnsupportedOperation", "Requests that begin later are not supported here.")
	case in.ValidUntil != nil && !in.ValidUntil.After(e.Now()):
		return nil, bad("InvalidTime", "The valid until time must be in the future.")
	case in.BlockDurationMinutes != nil:
		return nil, bad("InvalidParameterValue", "Spot Instances with a defined duration are not offered any more.")
	}
	if _, err := strconv.ParseFloat(wire.Value(in.SpotPrice), 64); in.SpotPrice != nil && err != nil {
		return nil, bad("InvalidSpotPrice", "Invalid Spot price: %s", *in.SpotPrice)
	}
	run := &api.RunInstancesInput{}
	b, err := json.Marshal(in.LaunchSpecification)
	if err == nil {
		err = json.Unmarshal(b, run) // members of both have the same names
	}
	if err != nil {
		return nil, fmt.Errorf("read launch specification: %w", err)
	}
	n := int32(1)
	if in.InstanceCount != nil {
		n = *in.InstanceCount
	}
	run.MinCount, run.MaxCount, run.TagSpecifications = new(n), new(n), in.TagSpecifications
	for _, s := range in.TagSpecifications {
		if s.ResourceType != "spot-instances-request" {
			return nil, bad("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", s.ResourceType)
		}
	}
	run.InstanceMarketOptions = &api.InstanceMarketOptionsRequest{MarketType: "spot", SpotOptions: &api.SpotMarketOptions{MaxPrice: in.SpotPrice, SpotInstanceType: in.Type, ValidUntil: in.ValidUntil, InstanceInterruptionBehavior: in.InstanceInterruptionBehavior}}
	var ids []string
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		ids = nil
		made, err := state.Launch{Region: e.Region, Account: e.Account(ctx), In: run, NewID: e.NewID, Now: e.Now()}.Plan(tx)
		if err != nil {
			return err
		}
		made.Put(tx)
		for _, s := range made.Spots {
			ids = append(ids, s.ID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	snap := e.DB.Snapshot()
	out := &api.RequestSpotInstancesOutput{}
	for _, id := range ids {
		if s, ok := state.SpotRequests.Get(snap, id); ok {
			out.SpotInstanceRequests = append(out.SpotInstanceRequests, spotView(snap, s))
		}
	}
	return out, nil
}

var spotMessages = map[string]string{
	"fulfilled":                             "Your Spot request is fulfilled.",
	"instance-terminated-by-user":           "Spot Instance terminated due to user-initiated termination.",
	"request-canceled-and-instance-running": "Your Spot request is canceled, but your instance is still running.",
	"system-error":                          "There was an unexpected system error.",
	"canceled-before-fulfillment":           "Your Spot request is canceled before it was fulfilled.",
}

func spotView(r store.Reader, s *state.SpotRequest) api.SpotInstanceRequest {
	launch := &api.LaunchSpecification{ImageId: s.Launch.ImageId, InstanceType: s.Launch.InstanceType, KeyName: s.Launch.KeyName, SubnetId: s.Launch.SubnetId,
		BlockDeviceMappings: s.Launch.BlockDeviceMappings, NetworkInterfaces: s.Launch.NetworkInterfaces, IamInstanceProfile: s.Launch.IamInstanceProfile,
		EbsOptimized: s.Launch.EbsOptimized, Monitoring: &api.RunInstancesMonitoringEnabled{Enabled: new(false)}, SecurityGroups: groupView(r, s.Launch.SecurityGroupIds)}
	if s.Launch.Monitoring != nil {
		launch.Monitoring = s.Launch.Monitoring
	}
	out := api.SpotInstanceRequest{SpotInstanceRequestId: new(s.ID), InstanceId: optional(s.Instance), Type: api.SpotInstanceType(s.Type), State: api.SpotInstanceState(s.State),
		Status:     &api.SpotInstanceStatus{Code: new(s.StatusCode), Message: optional(spotMessages[s.StatusCode]), UpdateTime: new(s.UpdatedAt)},
		CreateTime: new(s.CreatedAt), ProductDescription: "Linux/UNIX", SpotPrice: optional(s.Price), InstanceInterruptionBehavior: api.InstanceInterruptionBehavior(s.Behavior),
		Tags: tagsView(s.Tags), LaunchSpecification: launch}
	if !s.ValidUntil.IsZero() {
		out.ValidUntil = new(s.ValidUntil)
	}
	if i, ok := state.Instances.Get(r, s.Instance); ok {
		out.LaunchedAvailabilityZone, out.LaunchedAvailabilityZoneId = new(i.Zone), optional(zoneIDs(r)[i.Zone])
	}
	return out
}

func noSpot(id string) error {
	return bad("InvalidSpotInstanceRequestID.NotFound", "The spot instance request ID '%s' does not exist", id)
}

// DescribeSpotInstanceRequests lists requests.
func (e *EC2) DescribeSpotInstanceRequests(ctx context.Context, in *api.DescribeSpotInstanceRequestsInput) (*api.DescribeSpotInstanceRequestsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	view := func(f func(api.SpotInstanceRequest) []string) func(*state.SpotRequest) []string {
		return func(s *state.SpotRequest) []string { return f(spotView(snap, s)) }
	}
	none := func(*state.SpotRequest) []string { return nil }
	out, next, err := list(request{in.SpotInstanceRequestIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.SpotRequest, api.SpotInstanceRequest]{
		name: "spot-requests", rows: state.SpotRequests.By(snap, "account", account), missing: noSpot,
		id:   func(s *state.SpotRequest) string { return s.ID },
		tags: func(s *state.SpotRequest) []state.Tag { return s.Tags },
		filters: filters[*state.SpotRequest]{
			"availability-zone-group": none,
			"create-time":             func(s *state.SpotRequest) []string { return instant(s.CreatedAt) },
			"fault-code":              none,
			"fault-message":           none,
			"instance-id":             func(s *state.SpotRequest) []string { return one(s.Instance) },
			"launch-group":            none,
			"launch.block-device-mapping.delete-on-termination": func(s *state.SpotRequest) []string {
				return each(s.Launch.BlockDeviceMappings, func(m api.BlockDeviceMapping) []string {
					return flag(m.Ebs != nil && wire.Value(m.Ebs.DeleteOnTermination))
				})
			},
			"launch.block-device-mapping.device-name": func(s *state.SpotRequest) []string {
				return each(s.Launch.BlockDeviceMappings, func(m api.BlockDeviceMapping) []string { return one(wire.Value(m.DeviceName)) })
			},
			"launch.group-id":            func(s *state.SpotRequest) []string { return s.Launch.SecurityGroupIds },
			"launch.image-id":            func(s *state.SpotRequest) []string { return one(wire.Value(s.Launch.ImageId)) },
			"launch.instance-type":       func(s *state.SpotRequest) []string { return one(string(s.Launch.InstanceType)) },
			"launch.kernel-id":           none,
			"launch.key-name":            func(s *state.SpotRequest) []string { return one(wire.Value(s.Launch.KeyName)) },
			"launch.ramdisk-id":          none,
			"launched-availability-zone": view(func(v api.SpotInstanceRequest) []string { return one(wire.Value(v.LaunchedAvailabilityZone)) }),
			"product-description":        func(*state.SpotRequest) []string { return one("Linux/UNIX") },
			"spot-instance-request-id":   func(s *state.SpotRequest) []string { return one(s.ID) },
			"spot-price":                 func(s *state.SpotRequest) []string { return one(s.Price) },
			"state":                      func(s *state.SpotRequest) []string { return one(s.State) },
			"status-code":                func(s *state.SpotRequest) []string { return one(s.StatusCode) },
			"status-message":             func(s *state.SpotRequest) []string { return one(spotMessages[s.StatusCode]) },
			"type":                       func(s *state.SpotRequest) []string { return one(s.Type) },
		},
		view: func(s *state.SpotRequest) api.SpotInstanceRequest { return spotView(snap, s) },
	})
	return &api.DescribeSpotInstanceRequestsOutput{SpotInstanceRequests: out, NextToken: next}, err
}

// CancelSpotInstanceRequests cancels requests; their instances run on.
func (e *EC2) CancelSpotInstanceRequests(ctx context.Context, in *api.CancelSpotInstanceRequestsInput) (*api.CancelSpotInstanceRequestsOutput, error) {
	var out *api.CancelSpotInstanceRequestsOutput
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		out = &api.CancelSpotInstanceRequestsOutput{}
		for _, id := range slices.Compact(slices.Clone(in.SpotInstanceRequestIds)) {
			s, ok := state.SpotRequests.Get(tx, id)
			if !ok || s.Account != e.Account(ctx) {
				return noSpot(id)
			}
			next := *s
			if s.State == "active" {
				next.State, next.StatusCode, next.UpdatedAt = "cancelled", "request-canceled-and-instance-running", e.Now()
				state.SpotRequests.Put(tx, &next)
			}
			out.CancelledSpotInstanceRequests = append(out.CancelledSpotInstanceRequests, api.CancelledSpotInstanceRequest{SpotInstanceRequestId: new(id), State: api.CancelSpotInstanceRequestState(next.State)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
