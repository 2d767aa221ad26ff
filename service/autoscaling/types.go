package autoscaling

import (
	"context"

	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/store/state"
)

// DescribeAccountLimits answers how many groups and launch configurations there
// are and may be.
func (s *Scaling) DescribeAccountLimits(ctx context.Context, _ *api.DescribeAccountLimitsInput) (*api.DescribeAccountLimitsOutput, error) {
	r, me := s.DB.Snapshot(), account(ctx)
	groups, configurations := 0, 0
	for range state.ScalingGroups.By(r, "account", me) {
		groups++
	}
	for range state.LaunchConfigurations.By(r, "account", me) {
		configurations++
	}
	return &api.DescribeAccountLimitsOutput{MaxNumberOfAutoScalingGroups: new(int32(state.Limit(r, me, "autoscaling/groups"))), NumberOfAutoScalingGroups: new(int32(groups)),
		MaxNumberOfLaunchConfigurations: new(int32(state.Limit(r, me, "autoscaling/launch-configurations"))), NumberOfLaunchConfigurations: new(int32(configurations))}, nil
}

// DescribeAdjustmentTypes lists how policies change a capacity.
func (s *Scaling) DescribeAdjustmentTypes(context.Context, *api.DescribeAdjustmentTypesInput) (*api.DescribeAdjustmentTypesOutput, error) {
	out := &api.DescribeAdjustmentTypesOutput{}
	for _, t := range adjustmentTypes {
		out.AdjustmentTypes = append(out.AdjustmentTypes, api.AdjustmentType{AdjustmentType: new(t)})
	}
	return out, nil
}

// DescribeMetricCollectionTypes lists the metrics of groups.
func (s *Scaling) DescribeMetricCollectionTypes(context.Context, *api.DescribeMetricCollectionTypesInput) (*api.DescribeMetricCollectionTypesOutput, error) {
	out := &api.DescribeMetricCollectionTypesOutput{Granularities: []api.MetricGranularityType{{Granularity: new("1Minute")}}}
	for _, m := range metrics {
		out.Metrics = append(out.Metrics, api.MetricCollectionType{Metric: new(m)})
	}
	return out, nil
}

// DescribeScalingProcessTypes lists what can be suspended.
func (s *Scaling) DescribeScalingProcessTypes(context.Context, *api.DescribeScalingProcessTypesInput) (*api.DescribeScalingProcessTypesOutput, error) {
	out := &api.DescribeScalingProcessTypesOutput{}
	for _, p := range processes {
		out.Processes = append(out.Processes, api.ProcessType{ProcessName: new(p)})
	}
	return out, nil
}

// DescribeTerminationPolicyTypes lists how a group can choose what goes first.
func (s *Scaling) DescribeTerminationPolicyTypes(context.Context, *api.DescribeTerminationPolicyTypesInput) (*api.DescribeTerminationPolicyTypesOutput, error) {
	return &api.DescribeTerminationPolicyTypesOutput{TerminationPolicyTypes: policyTypes}, nil
}

// DescribeAutoScalingNotificationTypes lists of what AWS notifies.
func (s *Scaling) DescribeAutoScalingNotificationTypes(context.Context, *api.DescribeAutoScalingNotificationTypesInput) (*api.DescribeAutoScalingNotificationTypesOutput, error) {
	return &api.DescribeAutoScalingNotificationTypesOutput{AutoScalingNotificationTypes: []string{"autoscaling:EC2_INSTANCE_LAUNCH", "autoscaling:EC2_INSTANCE_LAUNCH_ERROR",
		"autoscaling:EC2_INSTANCE_TERMINATE", "autoscaling:EC2_INSTANCE_TERMINATE_ERROR", "autoscaling:TEST_NOTIFICATION"}}, nil
}

// PutNotificationConfiguration is refused: there are no topics to notify.
func (s *Scaling) PutNotificationConfiguration(context.Context, *api.PutNotificationConfigurationInput) (*api.PutNotificationConfigurationOutput, error) {
	return nil, absent("Notification configurations: SNS topics are")
}

// DescribeNotificationConfigurations answers that there are none.
func (s *Scaling) DescribeNotificationConfigurations(context.Context, *api.DescribeNotificationConfigurationsInput) (*api.DescribeNotificationConfigurationsOutput, error) {
	return &api.DescribeNotificationConfigurationsOutput{NotificationConfigurations: []api.NotificationConfiguration{}}, nil
}

// DeleteNotificationConfiguration finds none.
func (s *Scaling) DeleteNotificationConfiguration(ctx context.Context, in *api.DeleteNotificationConfigurationInput) (*api.DeleteNotificationConfigurationOutput, error) {
	_, err := group(s.DB.Snapshot(), account(ctx), in.AutoScalingGroupName)
	return &api.DeleteNotificationConfigurationOutput{}, err
}

// AttachLoadBalancers is refused: there are no Classic Load Balancers.
func (s *Scaling) AttachLoadBalancers(context.Context, *api.AttachLoadBalancersInput) (*api.AttachLoadBalancersOutput, error) {
	return nil, absent("LoadBalancerNames: Classic Load Balancers are")
}

// DetachLoadBalancers finds none.
func (s *Scaling) DetachLoadBalancers(context.Context, *api.DetachLoadBalancersInput) (*api.DetachLoadBalancersOutput, error) {
	return nil, invalid("Trying to remove Load Balancers that are not part of the group")
}

// DescribeLoadBalancers answers that there are none.
func (s *Scaling) DescribeLoadBalancers(ctx context.Context, in *api.DescribeLoadBalancersInput) (*api.DescribeLoadBalancersOutput, error) {
	_, err := group(s.DB.Snapshot(), account(ctx), in.AutoScalingGroupName)
	return &api.DescribeLoadBalancersOutput{LoadBalancers: []api.LoadBalancerState{}}, err
}

// AttachLoadBalancerTargetGroups is refused while there are no target groups.
func (s *Scaling) AttachLoadBalancerTargetGroups(context.Context, *api.AttachLoadBalancerTargetGroupsInput) (*api.AttachLoadBalancerTargetGroupsOutput, error) {
	return nil, absent("TargetGroupARNs: Elastic Load Balancing is")
}

// DetachLoadBalancerTargetGroups finds none.
func (s *Scaling) DetachLoadBalancerTargetGroups(context.Context, *api.DetachLoadBalancerTargetGroupsInput) (*api.DetachLoadBalancerTargetGroupsOutput, error) {
	return nil, invalid("Trying to remove Target Groups that are not part of the group")
}

// DescribeLoadBalancerTargetGroups answers that there are none.
func (s *Scaling) DescribeLoadBalancerTargetGroups(ctx context.Context, in *api.DescribeLoadBalancerTargetGroupsInput) (*api.DescribeLoadBalancerTargetGroupsOutput, error) {
	_, err := group(s.DB.Snapshot(), account(ctx), in.AutoScalingGroupName)
	return &api.DescribeLoadBalancerTargetGroupsOutput{LoadBalancerTargetGroups: []api.LoadBalancerTargetGroupState{}}, err
}

// AttachTrafficSources is refused while there is nothing that traffic comes from.
func (s *Scaling) AttachTrafficSources(context.Context, *api.AttachTrafficSourcesInput) (*api.AttachTrafficSourcesOutput, error) {
	return nil, absent("TrafficSources: Elastic Load Balancing and VPC Lattice are")
}

// DetachTrafficSources finds none.
func (s *Scaling) DetachTrafficSources(context.Context, *api.DetachTrafficSourcesInput) (*api.DetachTrafficSourcesOutput, error) {
	return nil, invalid("Trying to remove traffic sources that are not part of the group")
}

// DescribeTrafficSources answers that there are none.
func (s *Scaling) DescribeTrafficSources(ctx context.Context, in *api.DescribeTrafficSourcesInput) (*api.DescribeTrafficSourcesOutput, error) {
	_, err := group(s.DB.Snapshot(), account(ctx), in.AutoScalingGroupName)
	return &api.DescribeTrafficSourcesOutput{TrafficSources: []api.TrafficSourceState{}}, err
}

// PutWarmPool is refused: instances boot in moments here, none is kept warm.
func (s *Scaling) PutWarmPool(context.Context, *api.PutWarmPoolInput) (*api.PutWarmPoolOutput, error) {
	return nil, absent("Warm pools are")
}

// DescribeWarmPool answers that the group has none.
func (s *Scaling) DescribeWarmPool(ctx context.Context, in *api.DescribeWarmPoolInput) (*api.DescribeWarmPoolOutput, error) {
	_, err := group(s.DB.Snapshot(), account(ctx), in.AutoScalingGroupName)
	return &api.DescribeWarmPoolOutput{Instances: []api.Instance{}}, err
}

// DeleteWarmPool finds none.
func (s *Scaling) DeleteWarmPool(ctx context.Context, in *api.DeleteWarmPoolInput) (*api.DeleteWarmPoolOutput, error) {
	if _, err := group(s.DB.Snapshot(), account(ctx), in.AutoScalingGroupName); err != nil {
		return nil, err
	}
	return nil, invalid("Warm pool not found for Auto Scaling group %s", *in.AutoScalingGroupName)
}
