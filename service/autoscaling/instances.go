package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const maxPerCall = 20 // instances of one call

// DescribeAutoScalingInstances lists instances of all groups.
func (s *Scaling) DescribeAutoScalingInstances(ctx context.Context, in *api.DescribeAutoScalingInstancesInput) (*api.DescribeAutoScalingInstancesOutput, error) {
	r, me := s.DB.Snapshot(), account(ctx)
	var rows []*state.ScalingInstance
	for i := range state.ScalingInstances.By(r, "account", me) {
		if len(in.InstanceIds) == 0 || slices.Contains(in.InstanceIds, i.ID) {
			rows = append(rows, i)
		}
	}
	slices.SortFunc(rows, func(a, b *state.ScalingInstance) int { return strings.Compare(a.ID, b.ID) })
	rows, next, err := pages(s, page.Query{"instances", me, fmt.Sprint(in.InstanceIds)}, rows, func(i *state.ScalingInstance) string { return i.ID }, in.NextToken, in.MaxRecords, 50, 50)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeAutoScalingInstancesOutput{AutoScalingInstances: []api.AutoScalingInstanceDetails{}, NextToken: next}
	zones := zoneIDs(r)
	for _, i := range rows {
		g, ok := state.ScalingGroupOf(r, i.Group)
		if !ok {
			continue
		}
		x := api.AutoScalingInstanceDetails{InstanceId: new(i.ID), InstanceType: new(i.Type), AutoScalingGroupName: new(g.Name), AvailabilityZone: new(i.Zone), AvailabilityZoneId: new(zones[i.Zone]),
			LifecycleState: new(i.State), HealthStatus: new(strings.ToUpper(i.Health)), LaunchTemplate: i.Template, ProtectedFromScaleIn: new(i.Protected)}
		if i.Configuration != "" {
			x.LaunchConfigurationName = new(i.Configuration)
		}
		out.AutoScalingInstances = append(out.AutoScalingInstances, x)
	}
	return out, nil
}

// put stores an instance that has changed. Its group must be stored as well.
func put(tx *store.Tx, i *state.ScalingInstance) { state.ScalingInstances.Put(tx, i) }

// AttachInstances makes running instances a group's.
func (s *Scaling) AttachInstances(ctx context.Context, in *api.AttachInstancesInput) (*api.AttachInstancesOutput, error) {
	if len(in.InstanceIds) == 0 || len(in.InstanceIds) > maxPerCall {
		return nil, invalid("From 1 to %d instances can be attached at once.", maxPerCall)
	}
	now := s.Now()
	return &api.AttachInstancesOutput{}, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		n := g.Desired() + len(in.InstanceIds)
		if n > g.Max() {
			return invalid("AttachInstances request not valid: the number of instances to attach would exceed the max size %d of the group %s. Please update the AutoScalingGroup sizes appropriately.", g.Max(), g.Name)
		}
		for _, id := range in.InstanceIds {
			m, ok := state.Instances.Get(tx, id)
			switch {
			case !ok || m.Account != g.Account:
				return invalid("Invalid Instance ID(s): [%s] specified", id)
			case m.State != "running":
				return invalid("Instance %s is not in correct state. Instance(s) must be in running state.", id)
			case !slices.Contains(g.Doc.AvailabilityZones, m.Zone):
				return invalid("The availability zone of instance %s is not one of the group's: %s", id, strings.Join(g.Doc.AvailabilityZones, ", "))
			}
			if have, ok := state.ScalingInstances.Get(tx, id); ok {
				other, _ := state.ScalingGroupOf(tx, have.Group)
				return invalid("Instance %s is already part of AutoScalingGroup:%s", id, other.Name)
			}
			for _, sub := range g.Subnets {
				if n, ok := state.Subnets.Get(tx, sub); ok && n.VPC != m.VPC {
					return invalid("Instance %s is not in the VPC of the AutoScalingGroup.", id)
				}
			}
			i := &state.ScalingInstance{ID: id, Account: g.Account, Group: g.ARN, Zone: m.Zone, Subnet: m.Subnet, Type: m.Type, Image: m.Image, State: "InService", Health: "Healthy",
				Protected: *g.Doc.NewInstancesProtectedFromScaleIn, LaunchedAt: m.LaunchedAt, InServiceAt: now}
			a := g.NewActivity(s.NewID(), "Attaching an existing EC2 instance: "+id, fmt.Sprintf("At %s an instance was attached in response to a user request, increasing the capacity from %d to %d.", state.ScalingTime(now), g.Desired(), g.Desired()+1), i, now)
			state.ScalingActivities.Put(tx, a.Finish(api.ScalingActivityStatusCodeSuccessful, "", now))
			tagged := *m
			tagged.Tags = append(slices.DeleteFunc(slices.Clone(m.Tags), func(t state.Tag) bool { return t.Key == groupTag }), state.Tag{Key: groupTag, Value: g.Name})
			state.Instances.Put(tx, &tagged)
			put(tx, i)
			g.Doc.DesiredCapacity = new(int32(g.Desired() + 1))
		}
		return nil
	})
}

const groupTag = "aws:autoscaling:groupName"

// several does something with instances of a group, for which the capacity may
// be decremented, and answers the activities.
func (s *Scaling) several(ctx context.Context, name *string, ids []string, decrement *bool, f func(tx *store.Tx, g *state.ScalingGroup, i *state.ScalingInstance) (description, did string, err error)) (out []api.Activity, err error) {
	if len(ids) == 0 || len(ids) > maxPerCall {
		return nil, invalid("From 1 to %d instances can be named at once.", maxPerCall)
	}
	now := s.Now()
	err = s.change(ctx, name, func(tx *store.Tx, g *state.ScalingGroup) error {
		out = []api.Activity{}
		for _, id := range ids {
			i, err := member(tx, g, id)
			if err != nil {
				return err
			}
			description, did, err := f(tx, g, i)
			if err != nil {
				return err
			}
			cause := fmt.Sprintf("At %s instance %s %s in response to a user request", state.ScalingTime(now), id, did)
			if decrement != nil && *decrement {
				n := g.Desired() - 1
				if n < g.Min() {
					return invalid("The desired capacity of the AutoScalingGroup %s cannot be decremented below its min size %d.", g.Name, g.Min())
				}
				cause += fmt.Sprintf(", shrinking the capacity from %d to %d", g.Desired(), n)
				g.Doc.DesiredCapacity = new(int32(n))
			}
			a := g.NewActivity(s.NewID(), description+id, cause+".", i, now)
			done := a.Finish(api.ScalingActivityStatusCodeSuccessful, "", now)
			state.ScalingActivities.Put(tx, done)
			// The answer is of the moment when it began, as in AWS.
			a.Doc.Progress = new(int32(50))
			out = append(out, a.Doc)
		}
		return nil
	})
	return out, err
}

// DetachInstances takes instances out of a group; they run on.
func (s *Scaling) DetachInstances(ctx context.Context, in *api.DetachInstancesInput) (*api.DetachInstancesOutput, error) {
	out, err := s.several(ctx, in.AutoScalingGroupName, in.InstanceIds, in.ShouldDecrementDesiredCapacity, func(tx *store.Tx, g *state.ScalingGroup, i *state.ScalingInstance) (string, string, error) {
		if i.State != "InService" && i.State != "Standby" {
			return "", "", invalid("The instance %s is not in InService or Standby.", i.ID)
		}
		state.ScalingInstances.Delete(tx, i.ID)
		if m, ok := state.Instances.Get(tx, i.ID); ok {
			n := *m
			n.Tags = slices.DeleteFunc(slices.Clone(m.Tags), func(t state.Tag) bool { return t.Key == groupTag })
			state.Instances.Put(tx, &n)
		}
		return "Detaching EC2 instance: ", "was detached", nil
	})
	return &api.DetachInstancesOutput{Activities: out}, err
}

// EnterStandby takes instances out of service.
func (s *Scaling) EnterStandby(ctx context.Context, in *api.EnterStandbyInput) (*api.EnterStandbyOutput, error) {
	out, err := s.several(ctx, in.AutoScalingGroupName, in.InstanceIds, in.ShouldDecrementDesiredCapacity, func(tx *store.Tx, g *state.ScalingGroup, i *state.ScalingInstance) (string, string, error) {
		if i.State != "InService" {
			return "", "", invalid("The instance %s is not in InService.", i.ID)
		}
		i.State = "Standby"
		put(tx, i)
		return "Moving EC2 instance to Standby: ", "was moved to standby", nil
	})
	return &api.EnterStandbyOutput{Activities: out}, err
}

// ExitStandby puts instances back in service.
func (s *Scaling) ExitStandby(ctx context.Context, in *api.ExitStandbyInput) (*api.ExitStandbyOutput, error) {
	now := s.Now()
	var out []api.Activity
	if len(in.InstanceIds) == 0 || len(in.InstanceIds) > maxPerCall {
		return nil, invalid("From 1 to %d instances can be named at once.", maxPerCall)
	}
	err := s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		out = []api.Activity{}
		if n := g.Desired() + len(in.InstanceIds); n > g.Max() {
			return invalid("The desired capacity %d would exceed the max size %d of the AutoScalingGroup %s.", n, g.Max(), g.Name)
		}
		for _, id := range in.InstanceIds {
			i, err := member(tx, g, id)
			if err != nil {
				return err
			}
			if i.State != "Standby" {
				return invalid("The instance %s is not in Standby.", id)
			}
			i.State, i.InServiceAt = "InService", now
			put(tx, i)
			a := g.NewActivity(s.NewID(), "Moving EC2 instance out of Standby: "+id, fmt.Sprintf("At %s instance %s was moved out of standby in response to a user request, increasing the capacity from %d to %d.", state.ScalingTime(now), id, g.Desired(), g.Desired()+1), i, now)
			g.Doc.DesiredCapacity = new(int32(g.Desired() + 1))
			state.ScalingActivities.Put(tx, a.Finish(api.ScalingActivityStatusCodeSuccessful, "", now))
			a.Doc.StatusCode, a.Doc.Progress = api.ScalingActivityStatusCodePreInService, new(int32(30))
			out = append(out, a.Doc)
		}
		return nil
	})
	return &api.ExitStandbyOutput{Activities: out}, err
}

// ofInstance changes an instance of whichever group, and the group with it.
func (s *Scaling) ofInstance(ctx context.Context, id string, f func(tx *store.Tx, g *state.ScalingGroup, i *state.ScalingInstance) error) error {
	return s.DB.Update(ctx, func(tx *store.Tx) error {
		i, ok := state.ScalingInstances.Get(tx, id)
		if !ok || i.Account != account(ctx) {
			return invalid("Instance Id not found - No managed instance found for instance ID: %s", id)
		}
		have, ok := state.ScalingGroupOf(tx, i.Group)
		if !ok {
			return invalid("Instance Id not found - No managed instance found for instance ID: %s", id)
		}
		have, _ = state.ScalingGroups.Get(tx, state.ScalingGroupKey(have.Account, have.Name)) // so that the transaction depends on it
		g, n := have.Clone(), *i
		n.Actions = slices.Clone(i.Actions)
		if err := f(tx, g, &n); err != nil {
			return err
		}
		state.ScalingGroups.Put(tx, g)
		put(tx, &n)
		return nil
	})
}

// SetInstanceHealth says how healthy an instance is.
func (s *Scaling) SetInstanceHealth(ctx context.Context, in *api.SetInstanceHealthInput) (*api.SetInstanceHealthOutput, error) {
	if *in.HealthStatus != "Healthy" && *in.HealthStatus != "Unhealthy" {
		return nil, invalid("Valid instance health states are: [Healthy, Unhealthy].")
	}
	return &api.SetInstanceHealthOutput{}, s.ofInstance(ctx, *in.InstanceId, func(_ *store.Tx, g *state.ScalingGroup, i *state.ScalingInstance) error {
		respect := in.ShouldRespectGracePeriod == nil || *in.ShouldRespectGracePeriod
		grace := state.Grace(g)
		if respect && *in.HealthStatus == "Unhealthy" && i.InServiceAt.Add(grace).After(s.Now()) {
			return nil // within the grace period nothing is said of health
		}
		i.Health, i.Sick = *in.HealthStatus, ""
		if i.Health == "Unhealthy" {
			i.Sick = "a user health-check"
		}
		return nil
	})
}

// SetInstanceProtection protects instances from scaling in, or no longer.
func (s *Scaling) SetInstanceProtection(ctx context.Context, in *api.SetInstanceProtectionInput) (*api.SetInstanceProtectionOutput, error) {
	return &api.SetInstanceProtectionOutput{}, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		for _, id := range in.InstanceIds {
			i, err := member(tx, g, id)
			if err != nil {
				return err
			}
			if i.Leaving() {
				return invalid("The instance %s is not in InService or EnteringStandby or Standby.", id)
			}
			i.Protected = *in.ProtectedFromScaleIn
			put(tx, i)
		}
		return nil
	})
}

// TerminateInstanceInAutoScalingGroup ends an instance, which is replaced unless
// the capacity is decremented.
func (s *Scaling) TerminateInstanceInAutoScalingGroup(ctx context.Context, in *api.TerminateInstanceInAutoScalingGroupInput) (*api.TerminateInstanceInAutoScalingGroupOutput, error) {
	out := &api.TerminateInstanceInAutoScalingGroupOutput{}
	now := s.Now()
	return out, s.ofInstance(ctx, *in.InstanceId, func(tx *store.Tx, g *state.ScalingGroup, i *state.ScalingInstance) error {
		if i.Leaving() {
			a, ok := state.ScalingActivities.Get(tx, state.ScalingActivityKey(i.Group, i.Activity))
			if ok {
				out.Activity = &a.Doc
			}
			return nil
		}
		cause := fmt.Sprintf("At %s instance %s was taken out of service in response to a user request", state.ScalingTime(now), i.ID)
		if *in.ShouldDecrementDesiredCapacity {
			n := g.Desired() - 1
			if n < g.Min() {
				return invalid("Currently, desiredSize equals minSize (%d). Terminating instance without replacement will violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size.", g.Min())
			}
			cause += fmt.Sprintf(", shrinking the capacity from %d to %d", g.Desired(), n)
			g.Doc.DesiredCapacity = new(int32(n))
		}
		if a, ok := state.ScalingActivities.Get(tx, state.ScalingActivityKey(i.Group, i.Activity)); ok {
			state.ScalingActivities.Put(tx, a.Finish(api.ScalingActivityStatusCodeCancelled, "", now)) // its launch
		}
		a := g.NewActivity(s.NewID(), "Terminating EC2 instance: "+i.ID, cause+".", i, now)
		state.ScalingActivities.Put(tx, a)
		i.State, i.Activity, i.Actions = "Terminating", a.Seq, nil
		out.Activity = &a.Doc
		return nil
	})
}

// DescribeScalingActivities lists what groups did, the newest first.
func (s *Scaling) DescribeScalingActivities(ctx context.Context, in *api.DescribeScalingActivitiesInput) (*api.DescribeScalingActivitiesOutput, error) {
	r, me := s.DB.Snapshot(), account(ctx)
	deleted := in.IncludeDeletedGroups != nil && *in.IncludeDeletedGroups
	for _, f := range in.Filters {
		return nil, absent("The filter " + str(f.Name) + " of activities is")
	}
	name := str(in.AutoScalingGroupName)
	if i := strings.Index(name, ":autoScalingGroupName/"); i >= 0 {
		name = name[i+len(":autoScalingGroupName/"):]
	}
	if name != "" && !deleted {
		if _, err := group(r, me, &name); err != nil {
			return nil, err
		}
	}
	live := map[string]bool{}
	for g := range state.ScalingGroups.By(r, "account", me) {
		live[g.ARN] = true
	}
	var rows []*state.ScalingActivity
	for a := range state.ScalingActivities.By(r, "account", me) {
		switch {
		case !deleted && !live[a.Group], name != "" && *a.Doc.AutoScalingGroupName != name,
			len(in.ActivityIds) > 0 && !slices.Contains(in.ActivityIds, *a.Doc.ActivityId):
		default:
			rows = append(rows, a)
		}
	}
	// The key grows as the time goes back, so that pages continue where they ended.
	key := func(a *state.ScalingActivity) string {
		return fmt.Sprintf("%016d/%s/%012d", 1<<52-a.Doc.StartTime.UnixMilli(), a.Group, 1<<39-a.Seq)
	}
	slices.SortFunc(rows, func(a, b *state.ScalingActivity) int { return strings.Compare(key(a), key(b)) })
	rows, next, err := pages(s, page.Query{"activities", me, name, fmt.Sprint(in.ActivityIds, deleted)}, rows, key, in.NextToken, in.MaxRecords, 100, 100)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeScalingActivitiesOutput{Activities: []api.Activity{}, NextToken: next}
	for _, a := range rows {
		d := a.Doc
		if !live[a.Group] {
			d.AutoScalingGroupState = new("Deleted")
		}
		out.Activities = append(out.Activities, d)
	}
	return out, nil
}
