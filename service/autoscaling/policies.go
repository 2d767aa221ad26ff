package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var adjustmentTypes = []string{"ChangeInCapacity", "ExactCapacity", "PercentChangeInCapacity"}

// PutScalingPolicy makes or replaces a policy.
func (s *Scaling) PutScalingPolicy(ctx context.Context, in *api.PutScalingPolicyInput) (*api.PutScalingPolicyOutput, error) {
	kind := str(in.PolicyType)
	if kind == "" {
		kind = "SimpleScaling"
	}
	d := api.ScalingPolicy{PolicyName: in.PolicyName, PolicyType: &kind, AdjustmentType: in.AdjustmentType, MinAdjustmentStep: in.MinAdjustmentStep, MinAdjustmentMagnitude: in.MinAdjustmentMagnitude,
		ScalingAdjustment: in.ScalingAdjustment, Cooldown: in.Cooldown, StepAdjustments: orEmpty(in.StepAdjustments), MetricAggregationType: in.MetricAggregationType,
		EstimatedInstanceWarmup: in.EstimatedInstanceWarmup, Alarms: []api.Alarm{}, TargetTrackingConfiguration: in.TargetTrackingConfiguration, Enabled: in.Enabled}
	if d.Enabled == nil {
		d.Enabled = new(true)
	}
	if in.AdjustmentType != nil && !slices.Contains(adjustmentTypes, *in.AdjustmentType) {
		return nil, invalid("Invalid value for adjustment type: %s. It must be one of [%s].", *in.AdjustmentType, strings.Join(adjustmentTypes, ", "))
	}
	percent := str(in.AdjustmentType) == "PercentChangeInCapacity"
	switch kind {
	case "SimpleScaling":
		switch {
		case in.AdjustmentType == nil || in.ScalingAdjustment == nil:
			return nil, invalid("ScalingAdjustment and AdjustmentType are required for policy type SimpleScaling")
		case len(in.StepAdjustments) > 0 || in.TargetTrackingConfiguration != nil || in.MetricAggregationType != nil || in.EstimatedInstanceWarmup != nil:
			return nil, invalid("StepAdjustments, TargetTrackingConfiguration, MetricAggregationType and EstimatedInstanceWarmup are not supported by policy type SimpleScaling")
		case *in.AdjustmentType == "ExactCapacity" && *in.ScalingAdjustment < 0:
			return nil, invalid("ScalingAdjustment must not be negative with the adjustment type ExactCapacity")
		}
	case "StepScaling":
		if in.AdjustmentType == nil || len(in.StepAdjustments) == 0 {
			return nil, invalid("StepAdjustments and AdjustmentType are required for policy type StepScaling")
		}
		if in.ScalingAdjustment != nil || in.Cooldown != nil || in.TargetTrackingConfiguration != nil {
			return nil, invalid("ScalingAdjustment, Cooldown and TargetTrackingConfiguration are not supported by policy type StepScaling")
		}
		if err := steps(in.StepAdjustments); err != nil {
			return nil, err
		}
		if d.MetricAggregationType == nil {
			d.MetricAggregationType = new("Average")
		}
		if !slices.Contains([]string{"Minimum", "Maximum", "Average"}, *d.MetricAggregationType) {
			return nil, invalid("Invalid value for metric aggregation type: %s", *d.MetricAggregationType)
		}
	case "TargetTrackingScaling":
		t := in.TargetTrackingConfiguration
		if t == nil || (t.PredefinedMetricSpecification == nil) == (t.CustomizedMetricSpecification == nil) {
			return nil, invalid("TargetTrackingConfiguration with either a predefined or a customized metric is required for policy type TargetTrackingScaling")
		}
		if in.AdjustmentType != nil || in.ScalingAdjustment != nil || len(in.StepAdjustments) > 0 || in.Cooldown != nil {
			return nil, invalid("AdjustmentType, ScalingAdjustment, StepAdjustments and Cooldown are not supported by policy type TargetTrackingScaling")
		}
		n := *t
		if n.DisableScaleIn == nil {
			n.DisableScaleIn = new(false)
		}
		d.TargetTrackingConfiguration = &n
	case "PredictiveScaling":
		return nil, absent("The policy type PredictiveScaling: forecasts are")
	default:
		return nil, invalid("Invalid policy type: %s. It must be one of [SimpleScaling, StepScaling, TargetTrackingScaling, PredictiveScaling].", kind)
	}
	if (in.MinAdjustmentMagnitude != nil || in.MinAdjustmentStep != nil) && !percent {
		return nil, invalid("MinAdjustmentMagnitude is only supported with the adjustment type PercentChangeInCapacity")
	}
	out := &api.PutScalingPolicyOutput{Alarms: []api.Alarm{}}
	return out, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		d := d
		d.AutoScalingGroupName = new(g.Name)
		key := g.ARN + "/" + *in.PolicyName
		d.PolicyARN = new(fmt.Sprintf("arn:aws:autoscaling:%s:%s:scalingPolicy:%s:autoScalingGroupName/%s:policyName/%s", s.Region, g.Account, state.UUID(s.NewID()), g.Name, *in.PolicyName))
		if have, ok := state.ScalingPolicies.Get(tx, key); ok {
			if *have.Doc.PolicyType != kind {
				return invalid("The type of a policy cannot be changed.")
			}
			d.PolicyARN = have.Doc.PolicyARN
		} else {
			count := 0
			for range state.ScalingPolicies.Prefix(tx, g.ARN+"/") {
				count++
			}
			if count >= state.Limit(tx, g.Account, "autoscaling/policies-per-group") {
				return &api.LimitExceededFault{Message: "The limit of scaling policies of the AutoScalingGroup is reached."}
			}
		}
		state.ScalingPolicies.Put(tx, &state.ScalingPolicy{Group: g.ARN, Account: g.Account, Name: *in.PolicyName, Doc: d})
		out.PolicyARN = d.PolicyARN
		return nil
	})
}

// steps checks that the intervals of steps neither overlap nor leave gaps.
func steps(all []api.StepAdjustment) error {
	sorted := slices.Clone(all)
	low := func(a api.StepAdjustment) float64 {
		if a.MetricIntervalLowerBound == nil {
			return -1e300
		}
		return *a.MetricIntervalLowerBound
	}
	slices.SortFunc(sorted, func(a, b api.StepAdjustment) int {
		switch {
		case low(a) < low(b):
			return -1
		case low(a) > low(b):
			return 1
		}
		return 0
	})
	for i, a := range sorted {
		switch {
		case a.MetricIntervalLowerBound == nil && a.MetricIntervalUpperBound == nil && len(sorted) > 1:
			return invalid("At least one interval bound of a step adjustment must be given")
		case a.MetricIntervalLowerBound != nil && a.MetricIntervalUpperBound != nil && *a.MetricIntervalLowerBound >= *a.MetricIntervalUpperBound:
			return invalid("The upper bound of a step adjustment must be greater than its lower bound")
		case i == 0:
		case sorted[i-1].MetricIntervalUpperBound == nil || a.MetricIntervalLowerBound == nil || *sorted[i-1].MetricIntervalUpperBound > *a.MetricIntervalLowerBound:
			return invalid("The intervals of step adjustments must not overlap")
		case *sorted[i-1].MetricIntervalUpperBound < *a.MetricIntervalLowerBound:
			return invalid("The intervals of step adjustments must not have gaps")
		}
	}
	return nil
}

// DescribePolicies lists policies.
func (s *Scaling) DescribePolicies(ctx context.Context, in *api.DescribePoliciesInput) (*api.DescribePoliciesOutput, error) {
	r, me := s.DB.Snapshot(), account(ctx)
	if in.AutoScalingGroupName != nil {
		if _, err := group(r, me, in.AutoScalingGroupName); err != nil {
			return nil, err
		}
	}
	key := func(x *state.ScalingPolicy) string { return x.Name + "/" + *x.Doc.AutoScalingGroupName }
	var rows []*state.ScalingPolicy
	for x := range state.ScalingPolicies.By(r, "account", me) {
		switch {
		case in.AutoScalingGroupName != nil && *x.Doc.AutoScalingGroupName != *in.AutoScalingGroupName,
			len(in.PolicyNames) > 0 && !slices.Contains(in.PolicyNames, x.Name) && !slices.Contains(in.PolicyNames, *x.Doc.PolicyARN),
			len(in.PolicyTypes) > 0 && !slices.Contains(in.PolicyTypes, *x.Doc.PolicyType):
		default:
			rows = append(rows, x)
		}
	}
	slices.SortFunc(rows, func(a, b *state.ScalingPolicy) int { return strings.Compare(key(a), key(b)) })
	q := page.Query{"policies", me, str(in.AutoScalingGroupName), fmt.Sprint(in.PolicyNames, in.PolicyTypes)}
	rows, next, err := pages(s, q, rows, key, in.NextToken, in.MaxRecords, 50, 100)
	if err != nil {
		return nil, err
	}
	out := &api.DescribePoliciesOutput{ScalingPolicies: []api.ScalingPolicy{}, NextToken: next}
	for _, x := range rows {
		out.ScalingPolicies = append(out.ScalingPolicies, x.Doc)
	}
	return out, nil
}

// policyNamed finds a policy by its name or ARN.
func policyNamed(r store.Reader, account string, name, policy *string) (*state.ScalingPolicy, *state.ScalingGroup, error) {
	for x := range state.ScalingPolicies.By(r, "account", account) {
		if (x.Name == *policy && name != nil && *x.Doc.AutoScalingGroupName == *name) || *x.Doc.PolicyARN == *policy {
			g, err := group(r, account, x.Doc.AutoScalingGroupName)
			return x, g, err
		}
	}
	if name == nil && !strings.HasPrefix(*policy, "arn:") {
		return nil, nil, invalid("AutoScalingGroupName is required if PolicyName is not an ARN.")
	}
	return nil, nil, invalid("No such policy - %s", *policy)
}

// DeletePolicy takes a policy away.
func (s *Scaling) DeletePolicy(ctx context.Context, in *api.DeletePolicyInput) (*api.DeletePolicyOutput, error) {
	return &api.DeletePolicyOutput{}, s.DB.Update(ctx, func(tx *store.Tx) error {
		if in.AutoScalingGroupName != nil {
			if _, err := group(tx, account(ctx), in.AutoScalingGroupName); err != nil {
				return err
			}
		}
		p, _, err := policyNamed(tx, account(ctx), in.AutoScalingGroupName, in.PolicyName)
		if err != nil {
			return err
		}
		state.ScalingPolicies.Delete(tx, p.Group+"/"+p.Name)
		return nil
	})
}

// ExecutePolicy does what a policy says.
func (s *Scaling) ExecutePolicy(ctx context.Context, in *api.ExecutePolicyInput) (*api.ExecutePolicyOutput, error) {
	now := s.Now()
	return &api.ExecutePolicyOutput{}, s.DB.Update(ctx, func(tx *store.Tx) error {
		p, have, err := policyNamed(tx, account(ctx), in.AutoScalingGroupName, in.PolicyName)
		if err != nil {
			return err
		}
		g := have.Clone()
		var by int
		switch d := &p.Doc; *d.PolicyType {
		case "SimpleScaling":
			by = number(d.ScalingAdjustment)
			if in.HonorCooldown != nil && *in.HonorCooldown && g.Cooldown.After(now) {
				return &api.ScalingActivityInProgressFault{Message: "Scaling activity in progress: the AutoScalingGroup " + g.Name + " is in cooldown until " + state.ScalingTime(g.Cooldown) + "."}
			}
			wait := number(g.Doc.DefaultCooldown)
			if d.Cooldown != nil {
				wait = int(*d.Cooldown)
			}
			g.Cooldown = now.Add(time.Duration(wait) * time.Second)
		case "StepScaling":
			if in.MetricValue == nil || in.BreachThreshold == nil {
				return invalid("MetricValue and BreachThreshold are required for policy type StepScaling")
			}
			step, ok := stepFor(d.StepAdjustments, *in.MetricValue-*in.BreachThreshold)
			if !ok {
				return invalid("There is no step adjustment for the metric value specified.")
			}
			by = step
		default:
			return invalid("Policies of type %s cannot be executed.", *d.PolicyType)
		}
		if !*p.Doc.Enabled {
			return invalid("The policy %s is disabled.", p.Name)
		}
		n := Adjust(g.Desired(), str(p.Doc.AdjustmentType), by, max(number(p.Doc.MinAdjustmentMagnitude), number(p.Doc.MinAdjustmentStep)))
		g.Want(min(max(n, g.Min()), g.Max()), "a user request executed policy "+p.Name, now)
		state.ScalingGroups.Put(tx, g)
		return nil
	})
}

// stepFor is the step of a breach: lower bounds belong to what lies above a
// threshold, upper bounds to what lies below.
func stepFor(all []api.StepAdjustment, breach float64) (int, bool) {
	for _, a := range all {
		low, high := a.MetricIntervalLowerBound == nil, a.MetricIntervalUpperBound == nil
		if breach >= 0 {
			low = low || breach >= *a.MetricIntervalLowerBound
			high = high || breach < *a.MetricIntervalUpperBound
		} else {
			low = low || breach > *a.MetricIntervalLowerBound
			high = high || breach <= *a.MetricIntervalUpperBound
		}
		if low && high {
			return number(a.ScalingAdjustment), true
		}
	}
	return 0, false
}

// Adjust is a capacity after an adjustment. Percentages of more than one are
// rounded down, those that come to less than one are one.
func Adjust(have int, kind string, by, least int) int {
	switch kind {
	case "ExactCapacity":
		return by
	case "PercentChangeInCapacity":
		change := have * by / 100 // towards zero
		switch {
		case change == 0 && by > 0:
			change = 1
		case change == 0 && by < 0:
			change = -1
		}
		if change > 0 {
			change = max(change, least)
		} else if change < 0 {
			change = min(change, -least)
		}
		return have + change
	}
	return have + by
}
