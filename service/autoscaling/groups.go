package autoscaling

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	linkedService = "autoscaling.amazonaws.com"
	linkedRole    = "AWSServiceRoleForAutoScaling"
	minLifetime   = 86_400
)

func linkedARN(account string) string {
	return "arn:aws:iam::" + account + ":role/aws-service-role/" + linkedService + "/" + linkedRole
}

// CreateAutoScalingGroup makes a group. Its instances follow.
func (s *Scaling) CreateAutoScalingGroup(ctx context.Context, in *api.CreateAutoScalingGroupInput) (*api.CreateAutoScalingGroupOutput, error) {
	me, now := account(ctx), s.Now()
	name := *in.AutoScalingGroupName
	if strings.Contains(name, ":") || strings.IndexFunc(name, func(c rune) bool { return c < ' ' || c > '~' }) >= 0 {
		return nil, invalid("The AutoScalingGroup name %s is invalid: it must be printable ASCII without colons.", name)
	}
	switch {
	case len(in.LoadBalancerNames) > 0:
		return nil, absent("LoadBalancerNames: Classic Load Balancers are")
	case len(in.TargetGroupARNs) > 0:
		return nil, absent("TargetGroupARNs: Elastic Load Balancing is")
	case len(in.TrafficSources) > 0:
		return nil, absent("TrafficSources: Elastic Load Balancing and VPC Lattice are")
	case in.InstanceId != nil && (in.LaunchTemplate != nil || in.LaunchConfigurationName != nil || in.MixedInstancesPolicy != nil):
		return nil, invalid("Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
	}
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		if have, ok := state.ScalingGroups.Get(tx, state.ScalingGroupKey(me, name)); ok {
			text := "AutoScalingGroup by this name already exists - A group with the name " + name + " already exists"
			if have.Deleting {
				text += " in delete pending state"
			}
			return &api.AlreadyExistsFault{Message: text}
		}
		count := 0
		for range state.ScalingGroups.By(tx, "account", me) {
			count++
		}
		if limit := state.Limit(tx, me, "autoscaling/groups"); count >= limit {
			return &api.LimitExceededFault{Message: fmt.Sprintf("Only %d AutoScalingGroups are allowed.", limit)}
		}
		g := &state.ScalingGroup{ARN: fmt.Sprintf("arn:aws:autoscaling:%s:%s:autoScalingGroup:%s:autoScalingGroupName/%s", s.Region, me, state.UUID(s.NewID()), name), Account: me, Name: name}
		g.Doc = api.AutoScalingGroup{AutoScalingGroupName: new(name), AutoScalingGroupARN: new(g.ARN), CreatedTime: new(now), DesiredCapacity: new(int32(0)),
			DefaultCooldown: new(int32(300)), HealthCheckType: new("EC2"), HealthCheckGracePeriod: new(int32(0)), NewInstancesProtectedFromScaleIn: new(false),
			TerminationPolicies: []string{"Default"}, ServiceLinkedRoleARN: new(linkedARN(me)),
			LoadBalancerNames: []string{}, TargetGroupARNs: []string{}, SuspendedProcesses: []api.SuspendedProcess{}, EnabledMetrics: []api.EnabledMetric{}, TrafficSources: []api.TrafficSourceIdentifier{},
			AvailabilityZoneDistribution:     &api.AvailabilityZoneDistribution{CapacityDistributionStrategy: "balanced-best-effort"},
			AvailabilityZoneImpairmentPolicy: &api.AvailabilityZoneImpairmentPolicy{ZonalShiftEnabled: new(false), ImpairedZoneHealthCheckBehavior: "IgnoreUnhealthy"},
			CapacityReservationSpecification: &api.CapacityReservationSpecification{CapacityReservationPreference: "default"}, DeletionProtection: "none"}
		u := api.UpdateAutoScalingGroupInput{LaunchConfigurationName: in.LaunchConfigurationName, LaunchTemplate: in.LaunchTemplate, MixedInstancesPolicy: in.MixedInstancesPolicy,
			MinSize: in.MinSize, MaxSize: in.MaxSize, DefaultCooldown: in.DefaultCooldown, AvailabilityZones: in.AvailabilityZones, AvailabilityZoneIds: in.AvailabilityZoneIds,
			HealthCheckType: in.HealthCheckType, HealthCheckGracePeriod: in.HealthCheckGracePeriod, PlacementGroup: in.PlacementGroup, VPCZoneIdentifier: in.VPCZoneIdentifier,
			TerminationPolicies: in.TerminationPolicies, NewInstancesProtectedFromScaleIn: in.NewInstancesProtectedFromScaleIn, ServiceLinkedRoleARN: in.ServiceLinkedRoleARN,
			MaxInstanceLifetime: in.MaxInstanceLifetime, CapacityRebalance: in.CapacityRebalance, Context: in.Context, DesiredCapacityType: in.DesiredCapacityType,
			DefaultInstanceWarmup: in.DefaultInstanceWarmup, InstanceMaintenancePolicy: in.InstanceMaintenancePolicy, AvailabilityZoneDistribution: in.AvailabilityZoneDistribution,
			AvailabilityZoneImpairmentPolicy: in.AvailabilityZoneImpairmentPolicy, CapacityReservationSpecification: in.CapacityReservationSpecification,
			InstanceLifecyclePolicy: in.InstanceLifecyclePolicy, DeletionProtection: in.DeletionProtection}
		if in.InstanceId != nil {
			c, err := s.likeInstance(tx, me, *in.InstanceId, name)
			if err != nil {
				return err
			}
			state.LaunchConfigurations.Put(tx, c)
			u.LaunchConfigurationName = new(name)
			if i, _ := state.Instances.Get(tx, *in.InstanceId); u.VPCZoneIdentifier == nil {
				u.VPCZoneIdentifier = new(i.Subnet)
			}
		}
		if u.VPCZoneIdentifier == nil && len(u.AvailabilityZones)+len(u.AvailabilityZoneIds) == 0 {
			return invalid("At least one Availability Zone or VPC Subnet is required.")
		}
		if u.LaunchConfigurationName == nil && u.LaunchTemplate == nil && u.MixedInstancesPolicy == nil {
			return invalid("Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
		}
		if err := s.apply(tx, g, &u); err != nil {
			return err
		}
		desired := g.Min()
		if in.DesiredCapacity != nil {
			desired = int(*in.DesiredCapacity)
		}
		if err := bounds(g, desired); err != nil {
			return err
		}
		g.Causes = nil
		g.Want(desired, "a user request created an AutoScalingGroup", now)
		var err error
		if g.Doc.Tags, err = setTags(nil, name, in.Tags); err != nil {
			return err
		}
		for _, h := range in.LifecycleHookSpecificationList {
			if err := putHook(g, &api.PutLifecycleHookInput{LifecycleHookName: h.LifecycleHookName, LifecycleTransition: h.LifecycleTransition, NotificationMetadata: h.NotificationMetadata,
				HeartbeatTimeout: h.HeartbeatTimeout, DefaultResult: h.DefaultResult, NotificationTargetARN: h.NotificationTargetARN, RoleARN: h.RoleARN}); err != nil {
				return err
			}
		}
		if err := s.linked(tx, g); err != nil {
			return err
		}
		state.ScalingGroups.Put(tx, g)
		return nil
	})
	return &api.CreateAutoScalingGroupOutput{}, err
}

// linked makes the service-linked role where it is first used.
func (s *Scaling) linked(tx *store.Tx, g *state.ScalingGroup) error {
	arn := *g.Doc.ServiceLinkedRoleARN
	name := state.ShortARN(arn)
	if r, ok := state.Roles.Get(tx, state.IAMKey(g.Account, name)); ok {
		if r.ARN() != arn {
			return &api.ServiceLinkedRoleFailure{Message: "The service-linked role " + arn + " is not a role of Auto Scaling."}
		}
		return nil
	}
	if arn != linkedARN(g.Account) {
		return &api.ServiceLinkedRoleFailure{Message: "The service-linked role " + arn + " does not exist."}
	}
	if r := s.LinkedRole(g.Account, linkedService); r != nil {
		state.Roles.Put(tx, r)
	}
	return nil
}

func bounds(g *state.ScalingGroup, desired int) error {
	switch {
	case g.Min() < 0 || g.Max() < 0:
		return invalid("The minimum and maximum size of an AutoScalingGroup must not be negative.")
	case g.Min() > g.Max():
		return invalid("Max bound, %d, must be greater than or equal to min bound, %d", g.Max(), g.Min())
	case desired < g.Min() || desired > g.Max():
		return invalid("Desired capacity:%d must be between the specified min size:%d and max size:%d", desired, g.Min(), g.Max())
	}
	return nil
}

var (
	healthChecks = []string{"EC2", "EBS", "ELB", "VPC_LATTICE"}
	policyTypes  = []string{"AllocationStrategy", "ClosestToNextInstanceHour", "Default", "NewestInstance", "OldestInstance", "OldestLaunchConfiguration", "OldestLaunchTemplate"}
)

// apply lays a request over a group.
func (s *Scaling) apply(tx *store.Tx, g *state.ScalingGroup, in *api.UpdateAutoScalingGroupInput) error {
	d := &g.Doc
	sources := 0
	for _, given := range []bool{in.LaunchConfigurationName != nil, in.LaunchTemplate != nil, in.MixedInstancesPolicy != nil} {
		if given {
			sources++
		}
	}
	if sources > 1 {
		return invalid("Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
	}
	if sources == 1 {
		c := api.DesiredConfiguration{LaunchTemplate: in.LaunchTemplate, MixedInstancesPolicy: in.MixedInstancesPolicy}
		if err := configuration(tx, g.Account, &c); err != nil {
			return err
		}
		d.LaunchTemplate, d.MixedInstancesPolicy, d.LaunchConfigurationName = c.LaunchTemplate, c.MixedInstancesPolicy, in.LaunchConfigurationName
		if in.LaunchConfigurationName != nil {
			if _, ok := state.LaunchConfigurations.Get(tx, g.Account+"/"+*in.LaunchConfigurationName); !ok {
				return invalid("Launch configuration name not found - Launch configuration with name: %s does not exist", *in.LaunchConfigurationName)
			}
		}
	}
	if err := s.places(tx, g, in); err != nil {
		return err
	}
	set(&d.MinSize, in.MinSize)
	set(&d.MaxSize, in.MaxSize)
	set(&d.DefaultCooldown, in.DefaultCooldown)
	set(&d.HealthCheckGracePeriod, in.HealthCheckGracePeriod)
	set(&d.NewInstancesProtectedFromScaleIn, in.NewInstancesProtectedFromScaleIn)
	set(&d.ServiceLinkedRoleARN, in.ServiceLinkedRoleARN)
	set(&d.CapacityRebalance, in.CapacityRebalance)
	set(&d.Context, in.Context)
	set(&d.DesiredCapacityType, in.DesiredCapacityType)
	set(&d.AvailabilityZoneDistribution, in.AvailabilityZoneDistribution)
	set(&d.AvailabilityZoneImpairmentPolicy, in.AvailabilityZoneImpairmentPolicy)
	set(&d.CapacityReservationSpecification, in.CapacityReservationSpecification)
	set(&d.InstanceLifecyclePolicy, in.InstanceLifecyclePolicy)
	d.DeletionProtection = cmp.Or(in.DeletionProtection, d.DeletionProtection)
	if number(d.DefaultCooldown) < 0 || number(d.HealthCheckGracePeriod) < 0 {
		return invalid("The cooldown and the grace period of an AutoScalingGroup must not be negative.")
	}
	if in.HealthCheckType != nil {
		for t := range strings.SplitSeq(*in.HealthCheckType, ",") {
			if !slices.Contains(healthChecks, strings.TrimSpace(t)) {
				return invalid("%s is not a valid health check type: it must be one of %s.", t, strings.Join(healthChecks, ", "))
			}
		}
		d.HealthCheckType = in.HealthCheckType
	}
	if in.PlacementGroup != nil {
		if d.PlacementGroup = in.PlacementGroup; *in.PlacementGroup == "" {
			d.PlacementGroup = nil
		}
	}
	if len(in.TerminationPolicies) > 0 {
		for _, p := range in.TerminationPolicies {
			if strings.HasPrefix(p, "arn:") {
				return absent("The termination policy " + p + ": Lambda functions are")
			}
			if !slices.Contains(policyTypes, p) {
				return invalid("The termination policy %s is not valid. It must be one of %s.", p, strings.Join(policyTypes, ", "))
			}
		}
		d.TerminationPolicies = in.TerminationPolicies
	}
	if l := in.MaxInstanceLifetime; l != nil {
		if *l != 0 && *l < minLifetime {
			return invalid("Valid values for MaxInstanceLifetime are 0, or greater than or equal to %d.", minLifetime)
		}
		if d.MaxInstanceLifetime = l; *l == 0 {
			d.MaxInstanceLifetime = nil
		}
	}
	if w := in.DefaultInstanceWarmup; w != nil {
		if *w < -1 {
			return invalid("DefaultInstanceWarmup must be 0 or more, or -1 to remove it.")
		}
		if d.DefaultInstanceWarmup = w; *w == -1 {
			d.DefaultInstanceWarmup = nil
		}
	}
	if p := in.InstanceMaintenancePolicy; p != nil {
		low, high := number(p.MinHealthyPercentage), number(p.MaxHealthyPercentage)
		switch {
		case low == -1 && high == -1:
			d.InstanceMaintenancePolicy = nil
		case p.MinHealthyPercentage == nil || p.MaxHealthyPercentage == nil || low < 0 || high < 100 || high-low > 100:
			return invalid("The instance maintenance policy needs a minimum of 0 to 100 and a maximum of 100 to 200 healthy percent, which differ by at most 100.")
		default:
			d.InstanceMaintenancePolicy = p
		}
	}
	return nil
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

// configuration checks what a group launches with, and fills in what AWS fills in.
func configuration(r store.Reader, account string, c *api.DesiredConfiguration) error {
	fillIn := func(s *api.LaunchTemplateSpecification) (*api.LaunchTemplateSpecification, error) {
		if s == nil {
			return nil, invalid("Valid requests must contain either launchTemplateId or LaunchTemplateName")
		}
		if s.LaunchTemplateId != nil && s.LaunchTemplateName != nil {
			// As a group's description has both, a request may give both if they agree.
			if t, err := state.Template(r, account, s.LaunchTemplateId, nil); err != nil || t.Name != *s.LaunchTemplateName {
				return nil, invalid("Valid requests must contain either launchTemplateId or LaunchTemplateName")
			}
		}
		spec := &ec2.LaunchTemplateSpecification{LaunchTemplateId: s.LaunchTemplateId, Version: s.Version}
		if s.LaunchTemplateId == nil {
			spec.LaunchTemplateName = s.LaunchTemplateName
		}
		t, v, err := state.FindTemplate(r, account, spec)
		if err != nil {
			return nil, invalid("You must use a valid fully-formed launch template. %s", words(err))
		}
		if str(v.Data.ImageId) == "" && c.MixedInstancesPolicy == nil {
			return nil, invalid("You must use a valid fully-formed launch template. The request must contain the parameter ImageId")
		}
		n := &api.LaunchTemplateSpecification{LaunchTemplateId: new(t.ID), LaunchTemplateName: new(t.Name), Version: s.Version}
		if s.Version == nil {
			n.Version = new("$Default")
		}
		return n, nil
	}
	var err error
	if c.LaunchTemplate != nil {
		c.LaunchTemplate, err = fillIn(c.LaunchTemplate)
		return err
	}
	if c.MixedInstancesPolicy == nil {
		return nil
	}
	m := *c.MixedInstancesPolicy
	if m.LaunchTemplate == nil {
		return invalid("A mixed instances policy must have a launch template.")
	}
	l := *m.LaunchTemplate
	if l.LaunchTemplateSpecification, err = fillIn(l.LaunchTemplateSpecification); err != nil {
		return err
	}
	l.Overrides = orEmpty(slices.Clone(l.Overrides))
	for i := range l.Overrides {
		o := &l.Overrides[i]
		if o.InstanceRequirements != nil {
			return absent("InstanceRequirements: attribute-based selection of instance types is")
		}
		if o.InstanceType != nil {
			if _, ok := state.InstanceType(*o.InstanceType); !ok {
				return invalid("The instance type %s of the overrides is not valid.", *o.InstanceType)
			}
		}
		if o.LaunchTemplateSpecification != nil {
			if o.LaunchTemplateSpecification, err = fillIn(o.LaunchTemplateSpecification); err != nil {
				return err
			}
		}
	}
	m.LaunchTemplate = &l
	d := api.InstancesDistribution{}
	if m.InstancesDistribution != nil {
		d = *m.InstancesDistribution
	}
	if d.OnDemandAllocationStrategy == nil {
		d.OnDemandAllocationStrategy = new("prioritized")
	}
	if d.OnDemandBaseCapacity == nil {
		d.OnDemandBaseCapacity = new(int32(0))
	}
	if d.OnDemandPercentageAboveBaseCapacity == nil {
		d.OnDemandPercentageAboveBaseCapacity = new(int32(100))
	}
	if d.SpotAllocationStrategy == nil {
		d.SpotAllocationStrategy = new("lowest-price")
	}
	if d.SpotInstancePools == nil && *d.SpotAllocationStrategy == "lowest-price" {
		d.SpotInstancePools = new(int32(2))
	}
	m.InstancesDistribution = &d
	c.MixedInstancesPolicy = &m
	return nil
}

// words is the message of an error of AWS's.
func words(err error) string {
	if e, ok := err.(interface{ ErrorCode() string }); ok {
		return strings.TrimPrefix(err.Error(), e.ErrorCode()+": ")
	}
	return err.Error()
}

// places finds the subnets of a group.
func (s *Scaling) places(tx *store.Tx, g *state.ScalingGroup, in *api.UpdateAutoScalingGroupInput) error {
	region, _ := state.Regions.Get(tx, state.RegionKey)
	id, name := map[string]string{}, map[string]string{}
	if region != nil {
		for _, z := range region.Zones {
			id[z.Name], name[z.ID] = z.ID, z.Name
		}
	}
	zones := slices.Clone(in.AvailabilityZones)
	for _, z := range in.AvailabilityZoneIds {
		if name[z] == "" {
			return invalid("Invalid availability zone id: %s", z)
		}
		zones = append(zones, name[z])
	}
	for _, z := range zones {
		if id[z] == "" {
			return invalid("Invalid availability zones: [%s]", z)
		}
	}
	var subnets, have []string
	switch {
	case in.VPCZoneIdentifier != nil && *in.VPCZoneIdentifier != "":
		vpc := ""
		for part := range strings.SplitSeq(*in.VPCZoneIdentifier, ",") {
			n, ok := state.Subnets.Get(tx, strings.TrimSpace(part))
			switch {
			case !ok || n.Account != g.Account:
				return invalid("The subnet ID '%s' does not exist", strings.TrimSpace(part))
			case vpc != "" && n.VPC != vpc:
				return invalid("The subnets of an AutoScalingGroup must be in one VPC.")
			case len(zones) > 0 && !slices.Contains(zones, n.Zone):
				return invalid("The availability zones of the specified subnets and the AutoScalingGroup do not match")
			}
			vpc = n.VPC
			subnets = append(subnets, n.ID)
			if !slices.Contains(have, n.Zone) {
				have = append(have, n.Zone)
			}
		}
		g.Doc.VPCZoneIdentifier = in.VPCZoneIdentifier
	case len(zones) > 0:
		for _, z := range zones {
			found := ""
			for n := range state.Subnets.All(tx) {
				if n.Account == g.Account && n.Zone == z && n.DefaultForZone {
					found = n.ID
				}
			}
			if found == "" {
				return invalid("No default subnet for availability zone: '%s'.", z)
			}
			subnets, have = append(subnets, found), append(have, z)
		}
		g.Doc.VPCZoneIdentifier = new("")
	default:
		return nil
	}
	slices.Sort(have)
	g.Subnets, g.Doc.AvailabilityZones, g.Doc.AvailabilityZoneIds = subnets, have, nil
	for _, z := range have {
		g.Doc.AvailabilityZoneIds = append(g.Doc.AvailabilityZoneIds, id[z])
	}
	return nil
}

// UpdateAutoScalingGroup changes what it is given and leaves the rest.
func (s *Scaling) UpdateAutoScalingGroup(ctx context.Context, in *api.UpdateAutoScalingGroupInput) (*api.UpdateAutoScalingGroupOutput, error) {
	return &api.UpdateAutoScalingGroupOutput{}, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		if f := state.ActiveRefresh(tx, g.ARN); f != nil && f.Doc.DesiredConfiguration != nil && (in.LaunchTemplate != nil || in.MixedInstancesPolicy != nil || in.LaunchConfigurationName != nil) {
			return &api.InstanceRefreshInProgressFault{Message: "An Instance Refresh with a desired configuration is in progress and blocks changes of the launch template."}
		}
		if err := s.apply(tx, g, in); err != nil {
			return err
		}
		desired := min(max(g.Desired(), g.Min()), g.Max())
		if in.DesiredCapacity != nil {
			desired = int(*in.DesiredCapacity)
		}
		if err := bounds(g, desired); err != nil {
			return err
		}
		g.Want(desired, fmt.Sprintf("a user request update of AutoScalingGroup constraints to min: %d, max: %d, desired: %d", g.Min(), g.Max(), desired), s.Now())
		return s.linked(tx, g)
	})
}

// DeleteAutoScalingGroup deletes a group, with its instances if it is forced to.
func (s *Scaling) DeleteAutoScalingGroup(ctx context.Context, in *api.DeleteAutoScalingGroupInput) (*api.DeleteAutoScalingGroupOutput, error) {
	return &api.DeleteAutoScalingGroupOutput{}, s.DB.Update(ctx, func(tx *store.Tx) error {
		have, err := group(tx, account(ctx), in.AutoScalingGroupName)
		if err != nil {
			return err
		}
		force := in.ForceDelete != nil && *in.ForceDelete
		switch p := have.Doc.DeletionProtection; {
		case p == "prevent-all-deletion":
			return &api.ResourceInUseFault{Message: "The AutoScalingGroup " + have.Name + " is protected from deletion."}
		case p == "prevent-force-deletion" && force:
			return &api.ResourceInUseFault{Message: "The AutoScalingGroup " + have.Name + " is protected from being deleted with its instances."}
		}
		instances := members(tx, have)
		if !force && !have.Deleting {
			for _, i := range instances {
				if i.Leaving() || strings.HasPrefix(i.State, "Pending") {
					return &api.ScalingActivityInProgressFault{Message: "You cannot delete an AutoScalingGroup while there are scaling activities in progress for that group."}
				}
			}
			if len(instances) > 0 {
				return &api.ResourceInUseFault{Message: "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group."}
			}
		}
		if len(instances) > 0 {
			g := have.Clone()
			g.Deleting, g.Doc.Status = true, new("Delete in progress")
			state.ScalingGroups.Put(tx, g)
			return nil
		}
		for f := range state.InstanceRefreshes.By(tx, "group", have.ARN) {
			state.InstanceRefreshes.Delete(tx, f.ID)
		}
		for x := range state.ScalingPolicies.Prefix(tx, have.ARN+"/") {
			state.ScalingPolicies.Delete(tx, x.Group+"/"+x.Name)
		}
		for x := range state.ScheduledScalings.Prefix(tx, have.ARN+"/") {
			state.ScheduledScalings.Delete(tx, x.Group+"/"+x.Name)
		}
		state.ScalingGroups.Delete(tx, state.ScalingGroupKey(have.Account, have.Name))
		return nil
	})
}

func view(r store.Reader, g *state.ScalingGroup, instances bool) api.AutoScalingGroup {
	v := g.Doc
	v.Tags = orEmpty(v.Tags)
	v.Instances = []api.Instance{}
	if !instances {
		return v
	}
	zones := zoneIDs(r)
	for _, i := range members(r, g) {
		x := api.Instance{InstanceId: new(i.ID), InstanceType: new(i.Type), AvailabilityZone: new(i.Zone), LifecycleState: api.LifecycleState(i.State), HealthStatus: new(i.Health),
			LaunchTemplate: i.Template, ProtectedFromScaleIn: new(i.Protected)}
		if id := zones[i.Zone]; id != "" {
			x.AvailabilityZoneId = new(id)
		}
		if i.Configuration != "" {
			x.LaunchConfigurationName = new(i.Configuration)
		}
		v.Instances = append(v.Instances, x)
	}
	return v
}

func zoneIDs(r store.Reader) map[string]string {
	out := map[string]string{}
	if region, ok := state.Regions.Get(r, state.RegionKey); ok {
		for _, z := range region.Zones {
			out[z.Name] = z.ID
		}
	}
	return out
}

// DescribeAutoScalingGroups lists groups.
func (s *Scaling) DescribeAutoScalingGroups(ctx context.Context, in *api.DescribeAutoScalingGroupsInput) (*api.DescribeAutoScalingGroupsOutput, error) {
	r, me := s.DB.Snapshot(), account(ctx)
	match, err := tagFilters(in.Filters)
	if err != nil {
		return nil, err
	}
	var rows []*state.ScalingGroup
	for g := range state.ScalingGroups.By(r, "account", me) {
		if len(in.AutoScalingGroupNames) > 0 && !slices.Contains(in.AutoScalingGroupNames, g.Name) && !slices.Contains(in.AutoScalingGroupNames, g.ARN) || !match(g) {
			continue
		}
		rows = append(rows, g)
	}
	slices.SortFunc(rows, func(a, b *state.ScalingGroup) int { return strings.Compare(a.Name, b.Name) })
	q := page.Query{"groups", me, fmt.Sprint(in.AutoScalingGroupNames), filterText(in.Filters)}
	rows, next, err := pages(s, q, rows, func(g *state.ScalingGroup) string { return g.Name }, in.NextToken, in.MaxRecords, 50, 100)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeAutoScalingGroupsOutput{AutoScalingGroups: []api.AutoScalingGroup{}, NextToken: next}
	for _, g := range rows {
		out.AutoScalingGroups = append(out.AutoScalingGroups, view(r, g, in.IncludeInstances == nil || *in.IncludeInstances))
	}
	return out, nil
}

// SetDesiredCapacity sets how many instances a group is to have.
func (s *Scaling) SetDesiredCapacity(ctx context.Context, in *api.SetDesiredCapacityInput) (*api.SetDesiredCapacityOutput, error) {
	return &api.SetDesiredCapacityOutput{}, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		n := number(in.DesiredCapacity)
		switch {
		case n > g.Max():
			return invalid("New SetDesiredCapacity value %d is above max value %d for the AutoScalingGroup.", n, g.Max())
		case n < g.Min():
			return invalid("New SetDesiredCapacity value %d is below min value %d for the AutoScalingGroup.", n, g.Min())
		}
		if err := s.cooldown(g, in.HonorCooldown); err != nil {
			return err
		}
		g.Want(n, "a user request explicitly set group desired capacity", s.Now())
		return nil
	})
}

// cooldown refuses what honors the cooldown while it lasts, and begins one otherwise.
func (s *Scaling) cooldown(g *state.ScalingGroup, honor *bool) error {
	if honor == nil || !*honor {
		return nil
	}
	if g.Cooldown.After(s.Now()) {
		return &api.ScalingActivityInProgressFault{Message: "Scaling activity in progress: the AutoScalingGroup " + g.Name + " is in cooldown until " + state.ScalingTime(g.Cooldown) + "."}
	}
	g.Cooldown = s.Now().Add(time.Duration(number(g.Doc.DefaultCooldown)) * time.Second)
	return nil
}

var processes = []string{"AddToLoadBalancer", "AlarmNotification", "AZRebalance", "HealthCheck", "InstanceRefresh", "Launch", "ReplaceUnhealthy", "ScheduledActions", "Terminate"}

func named(asked []string) ([]string, error) {
	for _, p := range asked {
		if !slices.Contains(processes, p) {
			return nil, invalid("1 validation error detected: the scaling process %s is not one of [%s]", p, strings.Join(processes, ", "))
		}
	}
	if len(asked) == 0 {
		return processes, nil
	}
	return asked, nil
}

// SuspendProcesses keeps a group from doing things.
func (s *Scaling) SuspendProcesses(ctx context.Context, in *api.SuspendProcessesInput) (*api.SuspendProcessesOutput, error) {
	list, err := named(in.ScalingProcesses)
	if err != nil {
		return nil, err
	}
	return &api.SuspendProcessesOutput{}, s.change(ctx, in.AutoScalingGroupName, func(_ *store.Tx, g *state.ScalingGroup) error {
		g.Doc.SuspendedProcesses = slices.Clone(g.Doc.SuspendedProcesses)
		for _, p := range list {
			if !g.Suspended(p) {
				g.Doc.SuspendedProcesses = append(g.Doc.SuspendedProcesses, api.SuspendedProcess{ProcessName: new(p), SuspensionReason: new("User suspended at " + state.ScalingTime(s.Now()))})
			}
		}
		slices.SortFunc(g.Doc.SuspendedProcesses, func(a, b api.SuspendedProcess) int { return strings.Compare(*a.ProcessName, *b.ProcessName) })
		return nil
	})
}

// ResumeProcesses lets a group do things again.
func (s *Scaling) ResumeProcesses(ctx context.Context, in *api.ResumeProcessesInput) (*api.ResumeProcessesOutput, error) {
	list, err := named(in.ScalingProcesses)
	if err != nil {
		return nil, err
	}
	return &api.ResumeProcessesOutput{}, s.change(ctx, in.AutoScalingGroupName, func(_ *store.Tx, g *state.ScalingGroup) error {
		g.Doc.SuspendedProcesses = orEmpty(slices.DeleteFunc(slices.Clone(g.Doc.SuspendedProcesses), func(p api.SuspendedProcess) bool { return slices.Contains(list, *p.ProcessName) }))
		g.RetryAt = time.Time{}
		return nil
	})
}

var metrics = []string{"GroupMinSize", "GroupMaxSize", "GroupDesiredCapacity", "GroupInServiceInstances", "GroupPendingInstances", "GroupStandbyInstances", "GroupTerminatingInstances", "GroupTotalInstances",
	"GroupInServiceCapacity", "GroupPendingCapacity", "GroupStandbyCapacity", "GroupTerminatingCapacity", "GroupTotalCapacity", "WarmPoolDesiredCapacity", "WarmPoolWarmedCapacity", "WarmPoolPendingCapacity",
	"WarmPoolTerminatingCapacity", "WarmPoolTotalCapacity", "GroupAndWarmPoolDesiredCapacity", "GroupAndWarmPoolTotalCapacity"}

// EnableMetricsCollection notes which metrics a group publishes.
func (s *Scaling) EnableMetricsCollection(ctx context.Context, in *api.EnableMetricsCollectionInput) (*api.EnableMetricsCollectionOutput, error) {
	list := in.Metrics
	if len(list) == 0 {
		list = metrics
	}
	for _, m := range list {
		if !slices.Contains(metrics, m) {
			return nil, invalid("Metric %s is not valid.", m)
		}
	}
	if str(in.Granularity) != "1Minute" {
		return nil, invalid("Granularity %s is not valid: it must be 1Minute.", str(in.Granularity))
	}
	return &api.EnableMetricsCollectionOutput{}, s.change(ctx, in.AutoScalingGroupName, func(_ *store.Tx, g *state.ScalingGroup) error {
		g.Doc.EnabledMetrics = slices.Clone(g.Doc.EnabledMetrics)
		for _, m := range list {
			if !slices.ContainsFunc(g.Doc.EnabledMetrics, func(e api.EnabledMetric) bool { return *e.Metric == m }) {
				g.Doc.EnabledMetrics = append(g.Doc.EnabledMetrics, api.EnabledMetric{Metric: new(m), Granularity: in.Granularity})
			}
		}
		return nil
	})
}

// DisableMetricsCollection takes metrics back.
func (s *Scaling) DisableMetricsCollection(ctx context.Context, in *api.DisableMetricsCollectionInput) (*api.DisableMetricsCollectionOutput, error) {
	return &api.DisableMetricsCollectionOutput{}, s.change(ctx, in.AutoScalingGroupName, func(_ *store.Tx, g *state.ScalingGroup) error {
		g.Doc.EnabledMetrics = orEmpty(slices.DeleteFunc(slices.Clone(g.Doc.EnabledMetrics), func(e api.EnabledMetric) bool {
			return len(in.Metrics) == 0 || slices.Contains(in.Metrics, *e.Metric)
		}))
		return nil
	})
}
