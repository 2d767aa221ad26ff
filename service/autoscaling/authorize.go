package autoscaling

import (
	"context"
	"strconv"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

type permits map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check

// on puts the checks of an operation on a group into the table, with further
// condition keys.
func on[I any](m permits, s *Scaling, op string, name func(*I) *string, keys func(*I) map[string][]string) {
	m[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		k := s.check(r, c, op, str(name(in.(*I))))
		if keys != nil {
			k.Keys = keys(in.(*I))
		}
		return []auth.Check{k}
	}
}

// check is an action on a group.
func (s *Scaling) check(r store.Reader, c *auth.Caller, op, name string) auth.Check {
	if i := strings.Index(name, ":autoScalingGroupName/"); i >= 0 {
		name = name[i+len(":autoScalingGroupName/"):]
	}
	k := auth.Check{Action: "autoscaling:" + op, Resource: "arn:aws:autoscaling:" + s.Region + ":" + c.Account + ":autoScalingGroup:*:autoScalingGroupName/" + name}
	if g, ok := state.ScalingGroups.Get(r, state.ScalingGroupKey(c.Account, name)); ok {
		k.Resource = g.ARN
		k.Tags = func() (out []state.Tag) {
			for _, t := range g.Doc.Tags {
				out = append(out, state.Tag{Key: *t.Key, Value: *t.Value})
			}
			return out
		}
	}
	return k
}

func one(v string) []string {
	if v == "" {
		return nil
	}
	return []string{v}
}

func count(p *int32) []string {
	if p == nil {
		return nil
	}
	return []string{strconv.Itoa(int(*p))}
}

func requested(keys map[string][]string, tags []api.Tag) {
	for _, t := range tags {
		keys["aws:RequestTag/"+str(t.Key)] = []string{str(t.Value)}
		keys["aws:TagKeys"] = append(keys["aws:TagKeys"], str(t.Key))
	}
}

// Authorize says on which resources operations are authorized. Describe calls
// are authorized on every resource, as in AWS; so is what is not named here.
func (s *Scaling) Authorize() map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check {
	m := permits{}
	on(m, s, "AttachInstances", func(x *api.AttachInstancesInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "AttachLoadBalancers", func(x *api.AttachLoadBalancersInput) *string { return x.AutoScalingGroupName }, func(x *api.AttachLoadBalancersInput) map[string][]string {
		return map[string][]string{"autoscaling:LoadBalancerNames": x.LoadBalancerNames}
	})
	on(m, s, "DetachLoadBalancers", func(x *api.DetachLoadBalancersInput) *string { return x.AutoScalingGroupName }, func(x *api.DetachLoadBalancersInput) map[string][]string {
		return map[string][]string{"autoscaling:LoadBalancerNames": x.LoadBalancerNames}
	})
	on(m, s, "AttachLoadBalancerTargetGroups", func(x *api.AttachLoadBalancerTargetGroupsInput) *string { return x.AutoScalingGroupName }, func(x *api.AttachLoadBalancerTargetGroupsInput) map[string][]string {
		return map[string][]string{"autoscaling:TargetGroupARNs": x.TargetGroupARNs}
	})
	on(m, s, "DetachLoadBalancerTargetGroups", func(x *api.DetachLoadBalancerTargetGroupsInput) *string { return x.AutoScalingGroupName }, func(x *api.DetachLoadBalancerTargetGroupsInput) map[string][]string {
		return map[string][]string{"autoscaling:TargetGroupARNs": x.TargetGroupARNs}
	})
	on(m, s, "AttachTrafficSources", func(x *api.AttachTrafficSourcesInput) *string { return x.AutoScalingGroupName }, func(x *api.AttachTrafficSourcesInput) map[string][]string {
		return map[string][]string{"autoscaling:TrafficSourceIdentifiers": sources(x.TrafficSources)}
	})
	on(m, s, "DetachTrafficSources", func(x *api.DetachTrafficSourcesInput) *string { return x.AutoScalingGroupName }, func(x *api.DetachTrafficSourcesInput) map[string][]string {
		return map[string][]string{"autoscaling:TrafficSourceIdentifiers": sources(x.TrafficSources)}
	})
	on(m, s, "BatchDeleteScheduledAction", func(x *api.BatchDeleteScheduledActionInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "BatchPutScheduledUpdateGroupAction", func(x *api.BatchPutScheduledUpdateGroupActionInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "CancelInstanceRefresh", func(x *api.CancelInstanceRefreshInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "CompleteLifecycleAction", func(x *api.CompleteLifecycleActionInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "DeleteAutoScalingGroup", func(x *api.DeleteAutoScalingGroupInput) *string { return x.AutoScalingGroupName }, func(x *api.DeleteAutoScalingGroupInput) map[string][]string {
		return map[string][]string{"autoscaling:ForceDelete": {strconv.FormatBool(x.ForceDelete != nil && *x.ForceDelete)}}
	})
	on(m, s, "DeleteLifecycleHook", func(x *api.DeleteLifecycleHookInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "DeleteNotificationConfiguration", func(x *api.DeleteNotificationConfigurationInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "DeletePolicy", func(x *api.DeletePolicyInput) *string { return ofPolicy(x.AutoScalingGroupName, x.PolicyName) }, nil)
	on(m, s, "DeleteScheduledAction", func(x *api.DeleteScheduledActionInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "DeleteWarmPool", func(x *api.DeleteWarmPoolInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "DetachInstances", func(x *api.DetachInstancesInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "DisableMetricsCollection", func(x *api.DisableMetricsCollectionInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "EnableMetricsCollection", func(x *api.EnableMetricsCollectionInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "EnterStandby", func(x *api.EnterStandbyInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "ExecutePolicy", func(x *api.ExecutePolicyInput) *string { return ofPolicy(x.AutoScalingGroupName, x.PolicyName) }, nil)
	on(m, s, "ExitStandby", func(x *api.ExitStandbyInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "LaunchInstances", func(x *api.LaunchInstancesInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "PutLifecycleHook", func(x *api.PutLifecycleHookInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "PutNotificationConfiguration", func(x *api.PutNotificationConfigurationInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "PutScalingPolicy", func(x *api.PutScalingPolicyInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "PutScheduledUpdateGroupAction", func(x *api.PutScheduledUpdateGroupActionInput) *string { return x.AutoScalingGroupName }, func(x *api.PutScheduledUpdateGroupActionInput) map[string][]string {
		return map[string][]string{"autoscaling:MinSize": count(x.MinSize), "autoscaling:MaxSize": count(x.MaxSize)}
	})
	on(m, s, "PutWarmPool", func(x *api.PutWarmPoolInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "RecordLifecycleActionHeartbeat", func(x *api.RecordLifecycleActionHeartbeatInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "ResumeProcesses", func(x *api.ResumeProcessesInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "RollbackInstanceRefresh", func(x *api.RollbackInstanceRefreshInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "SetDesiredCapacity", func(x *api.SetDesiredCapacityInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "SetInstanceProtection", func(x *api.SetInstanceProtectionInput) *string { return x.AutoScalingGroupName }, nil)
	on(m, s, "SuspendProcesses", func(x *api.SuspendProcessesInput) *string { return x.AutoScalingGroupName }, nil)

	byInstance := func(op string, id func(any) *string) {
		m[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
			name := "*"
			if i, ok := state.ScalingInstances.Get(r, str(id(in))); ok && i.Account == c.Account {
				if g, ok := state.ScalingGroupOf(r, i.Group); ok {
					name = g.Name
				}
			}
			return []auth.Check{s.check(r, c, op, name)}
		}
	}
	byInstance("SetInstanceHealth", func(in any) *string { return in.(*api.SetInstanceHealthInput).InstanceId })
	byInstance("TerminateInstanceInAutoScalingGroup", func(in any) *string { return in.(*api.TerminateInstanceInAutoScalingGroupInput).InstanceId })

	onTags := func(op string, of func(any) []api.Tag) {
		m[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) (out []auth.Check) {
			byGroup := map[string][]api.Tag{}
			var order []string
			for _, t := range of(in) {
				if byGroup[str(t.ResourceId)] == nil {
					order = append(order, str(t.ResourceId))
				}
				byGroup[str(t.ResourceId)] = append(byGroup[str(t.ResourceId)], t)
			}
			for _, name := range order {
				k := s.check(r, c, op, name)
				k.Keys = map[string][]string{}
				requested(k.Keys, byGroup[name])
				out = append(out, k)
			}
			if len(out) == 0 {
				out = append(out, s.check(r, c, op, "*"))
			}
			return out
		}
	}
	onTags("CreateOrUpdateTags", func(in any) []api.Tag { return in.(*api.CreateOrUpdateTagsInput).Tags })
	onTags("DeleteTags", func(in any) []api.Tag { return in.(*api.DeleteTagsInput).Tags })

	m["CreateLaunchConfiguration"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x := in.(*api.CreateLaunchConfigurationInput)
		k := auth.Check{Action: "autoscaling:CreateLaunchConfiguration", Resource: s.configurationResource(c, str(x.LaunchConfigurationName)), Keys: map[string][]string{
			"autoscaling:ImageId": one(str(x.ImageId)), "autoscaling:InstanceType": one(str(x.InstanceType)), "autoscaling:SpotPrice": one(str(x.SpotPrice))}}
		if o := x.MetadataOptions; o != nil {
			k.Keys["autoscaling:MetadataHttpEndpoint"], k.Keys["autoscaling:MetadataHttpTokens"] = one(string(o.HttpEndpoint)), one(string(o.HttpTokens))
			k.Keys["autoscaling:MetadataHttpPutResponseHopLimit"] = count(o.HttpPutResponseHopLimit)
		}
		out := []auth.Check{k}
		if p := str(x.IamInstanceProfile); p != "" {
			spec := &ec2.IamInstanceProfileSpecification{Name: &p}
			if strings.HasPrefix(p, "arn:") {
				spec = &ec2.IamInstanceProfileSpecification{Arn: &p}
			}
			out = append(out, pass(r, c, spec)...)
		}
		return out
	}
	m["DeleteLaunchConfiguration"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		name := str(in.(*api.DeleteLaunchConfigurationInput).LaunchConfigurationName)
		k := auth.Check{Action: "autoscaling:DeleteLaunchConfiguration", Resource: s.configurationResource(c, name)}
		if have, ok := state.LaunchConfigurations.Get(r, c.Account+"/"+name); ok {
			k.Resource = *have.Doc.LaunchConfigurationARN
		}
		return []auth.Check{k}
	}
	m["CreateAutoScalingGroup"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x := in.(*api.CreateAutoScalingGroupInput)
		k := s.check(r, c, "CreateAutoScalingGroup", str(x.AutoScalingGroupName))
		k.Keys = groupKeys(x.MinSize, x.MaxSize, x.VPCZoneIdentifier, x.LaunchConfigurationName, x.LaunchTemplate, x.MixedInstancesPolicy)
		k.Keys["autoscaling:LoadBalancerNames"], k.Keys["autoscaling:TargetGroupARNs"], k.Keys["autoscaling:TrafficSourceIdentifiers"] = x.LoadBalancerNames, x.TargetGroupARNs, sources(x.TrafficSources)
		requested(k.Keys, x.Tags)
		out := append([]auth.Check{k}, s.launching(r, c, x.LaunchTemplate, x.MixedInstancesPolicy)...)
		return append(out, s.linking(c, x.ServiceLinkedRoleARN)...)
	}
	m["UpdateAutoScalingGroup"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x := in.(*api.UpdateAutoScalingGroupInput)
		k := s.check(r, c, "UpdateAutoScalingGroup", str(x.AutoScalingGroupName))
		k.Keys = groupKeys(x.MinSize, x.MaxSize, x.VPCZoneIdentifier, x.LaunchConfigurationName, x.LaunchTemplate, x.MixedInstancesPolicy)
		out := append([]auth.Check{k}, s.launching(r, c, x.LaunchTemplate, x.MixedInstancesPolicy)...)
		return append(out, s.linking(c, x.ServiceLinkedRoleARN)...)
	}
	m["StartInstanceRefresh"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x := in.(*api.StartInstanceRefreshInput)
		out := []auth.Check{s.check(r, c, "StartInstanceRefresh", str(x.AutoScalingGroupName))}
		if d := x.DesiredConfiguration; d != nil {
			out = append(out, s.launching(r, c, d.LaunchTemplate, d.MixedInstancesPolicy)...)
		}
		return out
	}
	return m
}

// ofPolicy is the group of a policy that is named by its ARN.
func ofPolicy(group, policy *string) *string {
	if group != nil {
		return group
	}
	if _, rest, ok := strings.Cut(str(policy), ":autoScalingGroupName/"); ok {
		name, _, _ := strings.Cut(rest, ":")
		return &name
	}
	return new("*")
}

func sources(ts []api.TrafficSourceIdentifier) (out []string) {
	for _, t := range ts {
		out = append(out, str(t.Identifier))
	}
	return out
}

func (s *Scaling) configurationResource(c *auth.Caller, name string) string {
	return "arn:aws:autoscaling:" + s.Region + ":" + c.Account + ":launchConfiguration:*:launchConfigurationName/" + name
}

func groupKeys(low, high *int32, subnets, configuration *string, t *api.LaunchTemplateSpecification, m *api.MixedInstancesPolicy) map[string][]string {
	keys := map[string][]string{"autoscaling:MinSize": count(low), "autoscaling:MaxSize": count(high), "autoscaling:LaunchConfigurationName": one(str(configuration))}
	for id := range strings.SplitSeq(str(subnets), ",") {
		if id = strings.TrimSpace(id); id != "" {
			keys["autoscaling:VPCZoneIdentifiers"] = append(keys["autoscaling:VPCZoneIdentifiers"], id)
		}
	}
	if m != nil && m.LaunchTemplate != nil {
		t = m.LaunchTemplate.LaunchTemplateSpecification
		for _, o := range m.LaunchTemplate.Overrides {
			if o.InstanceType != nil {
				keys["autoscaling:InstanceTypes"] = append(keys["autoscaling:InstanceTypes"], *o.InstanceType)
			}
		}
	}
	if t != nil {
		v := str(t.Version)
		keys["autoscaling:LaunchTemplateVersionSpecified"] = []string{strconv.FormatBool(v != "" && v != "$Latest" && v != "$Default")}
	}
	return keys
}

// launching is what a caller who gives a launch template must be allowed: to
// run instances with it, and to hand over the role of its instance profile.
func (s *Scaling) launching(r store.Reader, c *auth.Caller, t *api.LaunchTemplateSpecification, m *api.MixedInstancesPolicy) (out []auth.Check) {
	all := []*api.LaunchTemplateSpecification{t}
	if m != nil && m.LaunchTemplate != nil {
		all = append(all, m.LaunchTemplate.LaunchTemplateSpecification)
		for _, o := range m.LaunchTemplate.Overrides {
			all = append(all, o.LaunchTemplateSpecification)
		}
	}
	for _, t := range all {
		if t == nil {
			continue
		}
		spec := &ec2.LaunchTemplateSpecification{LaunchTemplateId: t.LaunchTemplateId, Version: t.Version}
		if t.LaunchTemplateId == nil {
			spec.LaunchTemplateName = t.LaunchTemplateName
		}
		k := auth.Check{Action: "ec2:RunInstances", Resource: "arn:aws:ec2:" + s.Region + ":" + c.Account + ":launch-template/*"}
		lt, v, err := state.FindTemplate(r, c.Account, spec)
		if err == nil {
			k.Resource = strings.TrimSuffix(k.Resource, "*") + lt.ID
			out = append(out, pass(r, c, v.Data.IamInstanceProfile)...)
		}
		out = append(out, k)
	}
	return out
}

// pass is the permission to hand over the role of an instance profile.
func pass[P any](r store.Reader, c *auth.Caller, profile *P) []auth.Check {
	var spec *ec2.IamInstanceProfileSpecification
	switch p := any(profile).(type) {
	case *ec2.IamInstanceProfileSpecification:
		spec = p
	case *ec2.LaunchTemplateIamInstanceProfileSpecificationRequest:
		if p != nil {
			spec = &ec2.IamInstanceProfileSpecification{Name: p.Name, Arn: p.Arn}
		}
	}
	p, err := state.FindProfile(r, c.Account, spec)
	if err != nil || p == nil || p.Role == "" {
		return nil // the operation itself says what is wrong
	}
	role, ok := state.Roles.Get(r, state.IAMKey(c.Account, p.Role))
	if !ok {
		return nil
	}
	return []auth.Check{{Action: "iam:PassRole", Resource: role.ARN(), Keys: map[string][]string{"iam:PassedToService": {"ec2.amazonaws.com"}}}}
}

// linking is the permission to hand over a service-linked role that the request names.
func (s *Scaling) linking(c *auth.Caller, arn *string) []auth.Check {
	if arn == nil || !strings.HasPrefix(*arn, "arn:aws:iam::") {
		return nil
	}
	return []auth.Check{{Action: "iam:PassRole", Resource: *arn, Keys: map[string][]string{"iam:PassedToService": {linkedService}}}}
}
