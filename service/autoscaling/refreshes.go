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

// StartInstanceRefresh begins to replace the instances of a group.
func (s *Scaling) StartInstanceRefresh(ctx context.Context, in *api.StartInstanceRefreshInput) (*api.StartInstanceRefreshOutput, error) {
	if in.Strategy != "" && in.Strategy != "Rolling" {
		return nil, absent("The strategy " + string(in.Strategy) + " is")
	}
	id := state.UUID(s.NewID())
	return &api.StartInstanceRefreshOutput{InstanceRefreshId: &id}, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		if state.ActiveRefresh(tx, g.ARN) != nil {
			return &api.InstanceRefreshInProgressFault{Message: "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh."}
		}
		p := api.RefreshPreferences{}
		if in.Preferences != nil {
			p = *in.Preferences
		}
		if m := g.Doc.InstanceMaintenancePolicy; m != nil && p.MinHealthyPercentage == nil && p.MaxHealthyPercentage == nil {
			p.MinHealthyPercentage, p.MaxHealthyPercentage = m.MinHealthyPercentage, m.MaxHealthyPercentage
		}
		if p.MinHealthyPercentage == nil {
			p.MinHealthyPercentage = new(int32(90))
		}
		if p.MaxHealthyPercentage == nil {
			p.MaxHealthyPercentage = new(int32(100))
		}
		if *p.MaxHealthyPercentage-*p.MinHealthyPercentage > 100 {
			return invalid("The difference between MinHealthyPercentage and MaxHealthyPercentage cannot be greater than 100.")
		}
		if p.InstanceWarmup == nil {
			p.InstanceWarmup = new(int32(g.Warmup().Seconds()))
		}
		if p.SkipMatching == nil {
			p.SkipMatching = new(false)
		}
		if p.AutoRollback == nil {
			p.AutoRollback = new(false)
		}
		if p.ScaleInProtectedInstances == "" {
			p.ScaleInProtectedInstances = "Wait"
		}
		if p.StandbyInstances == "" {
			p.StandbyInstances = "Wait"
		}
		if len(p.CheckpointPercentages) > 0 && p.CheckpointDelay == nil {
			p.CheckpointDelay = new(int32(3600))
		}
		for i := 1; i < len(p.CheckpointPercentages); i++ {
			if p.CheckpointPercentages[i] <= p.CheckpointPercentages[i-1] {
				return invalid("The checkpoint percentages must be in ascending order.")
			}
		}
		f := &state.InstanceRefresh{ID: id, Account: g.Account, Group: g.ARN, BeforeLC: str(g.Doc.LaunchConfigurationName), Progress: s.Now(), CreatedAt: s.Now(),
			Before: api.DesiredConfiguration{LaunchTemplate: g.Doc.LaunchTemplate, MixedInstancesPolicy: g.Doc.MixedInstancesPolicy}}
		f.Doc = api.InstanceRefresh{InstanceRefreshId: &id, AutoScalingGroupName: new(g.Name), Status: "Pending", Preferences: &p, Strategy: "Rolling"}
		if in.DesiredConfiguration != nil {
			c := *in.DesiredConfiguration
			if c.LaunchTemplate != nil && c.MixedInstancesPolicy != nil {
				return invalid("The desired configuration must have either a launch template or a mixed instances policy.")
			}
			if err := configuration(tx, g.Account, &c); err != nil {
				return err
			}
			f.Doc.DesiredConfiguration = &c
		}
		if *p.AutoRollback {
			if why := irreversible(f); why != "" {
				return invalid("AutoRollback is not possible: %s", why)
			}
		}
		state.InstanceRefreshes.Put(tx, f)
		return nil
	})
}

// irreversible is why a refresh cannot be turned around, "" if it can.
func irreversible(f *state.InstanceRefresh) string {
	floating := func(s *api.LaunchTemplateSpecification) bool {
		return s != nil && (str(s.Version) == "$Latest" || str(s.Version) == "$Default")
	}
	switch m := f.Before.MixedInstancesPolicy; {
	case f.Doc.DesiredConfiguration == nil:
		return "there is no desired configuration."
	case floating(f.Before.LaunchTemplate), m != nil && m.LaunchTemplate != nil && floating(m.LaunchTemplate.LaunchTemplateSpecification):
		return "the group uses $Latest or $Default of its launch template."
	}
	return ""
}

// active changes the refresh of a group that is under way.
func (s *Scaling) active(ctx context.Context, name *string, id **string, f func(n *state.InstanceRefresh) error) error {
	return s.change(ctx, name, func(tx *store.Tx, g *state.ScalingGroup) error {
		have := state.ActiveRefresh(tx, g.ARN)
		if have == nil {
			return &api.ActiveInstanceRefreshNotFoundFault{Message: "No in progress or pending Instance Refresh found for Auto Scaling group " + g.Name}
		}
		have, _ = state.InstanceRefreshes.Get(tx, have.ID)
		n := *have
		if err := f(&n); err != nil {
			return err
		}
		*id = new(n.ID)
		state.InstanceRefreshes.Put(tx, &n)
		return nil
	})
}

// CancelInstanceRefresh leaves the group as the refresh has left it.
func (s *Scaling) CancelInstanceRefresh(ctx context.Context, in *api.CancelInstanceRefreshInput) (*api.CancelInstanceRefreshOutput, error) {
	out := &api.CancelInstanceRefreshOutput{}
	return out, s.active(ctx, in.AutoScalingGroupName, &out.InstanceRefreshId, func(n *state.InstanceRefresh) error {
		if n.Doc.Status == "Cancelling" {
			return nil
		}
		n.WaitTransitions = in.WaitForTransitioningInstances == nil || *in.WaitForTransitioningInstances
		n.Doc.Status, n.Begun = "Cancelling", true
		if n.Launched.IsZero() {
			n.Launched = s.Now()
		}
		return nil
	})
}

// RollbackInstanceRefresh goes back to what the group had.
func (s *Scaling) RollbackInstanceRefresh(ctx context.Context, in *api.RollbackInstanceRefreshInput) (*api.RollbackInstanceRefreshOutput, error) {
	out := &api.RollbackInstanceRefreshOutput{}
	return out, s.active(ctx, in.AutoScalingGroupName, &out.InstanceRefreshId, func(n *state.InstanceRefresh) error {
		if why := irreversible(n); why != "" {
			return &api.IrreversibleInstanceRefreshFault{Message: "The Instance Refresh cannot be rolled back: " + why}
		}
		if n.Doc.Status == "RollbackInProgress" || n.Doc.Status == "Cancelling" {
			return &api.IrreversibleInstanceRefreshFault{Message: fmt.Sprintf("The Instance Refresh cannot be rolled back: it is %s.", n.Doc.Status)}
		}
		n.RollBack("Rollback requested by user.", s.Now())
		return nil
	})
}

// DescribeInstanceRefreshes lists the refreshes of a group, the newest first.
func (s *Scaling) DescribeInstanceRefreshes(ctx context.Context, in *api.DescribeInstanceRefreshesInput) (*api.DescribeInstanceRefreshesOutput, error) {
	r, me := s.DB.Snapshot(), account(ctx)
	g, err := group(r, me, in.AutoScalingGroupName)
	if err != nil {
		return nil, err
	}
	var rows []*state.InstanceRefresh
	for f := range state.InstanceRefreshes.By(r, "group", g.ARN) {
		if len(in.InstanceRefreshIds) == 0 || slices.Contains(in.InstanceRefreshIds, f.ID) {
			rows = append(rows, f)
		}
	}
	for _, id := range in.InstanceRefreshIds {
		if !slices.ContainsFunc(rows, func(f *state.InstanceRefresh) bool { return f.ID == id }) {
			return nil, invalid("Instance refresh ID(s) not found: %s", id)
		}
	}
	key := func(f *state.InstanceRefresh) string {
		return fmt.Sprintf("%016d/%s", 1<<52-f.CreatedAt.UnixMilli(), f.ID)
	}
	slices.SortFunc(rows, func(a, b *state.InstanceRefresh) int { return strings.Compare(key(a), key(b)) })
	rows, next, err := pages(s, page.Query{"refreshes", me, g.ARN, fmt.Sprint(in.InstanceRefreshIds)}, rows, key, in.NextToken, in.MaxRecords, 50, 100)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeInstanceRefreshesOutput{InstanceRefreshes: []api.InstanceRefresh{}, NextToken: next}
	for _, f := range rows {
		out.InstanceRefreshes = append(out.InstanceRefreshes, f.Doc)
	}
	return out, nil
}
