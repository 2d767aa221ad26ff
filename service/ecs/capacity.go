package ecs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/aws/autoscaling"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	noProvider       = "The specified capacity provider does not exist. Specify a valid name or ARN and try again."
	badProvider      = `The specified capacity provider name is invalid. Up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens are allowed. The name cannot be prefixed with "aws", "ecs", or "fargate". Specify a valid name and try again.`
	tooManyProviders = "A cluster can have at most %d capacity providers."

	maxDescribed  = 100
	pageProviders = 10
)

// The services of AWS that roles are handed to.
const (
	tasksService = "ecs-tasks.amazonaws.com"
	ecsService   = "ecs.amazonaws.com"
	ec2Service   = "ec2.amazonaws.com"
)

// capacityGuard makes what associates providers with clusters and what deletes
// them exclude each other.
func capacityGuard(account string) string { return "ecs-capacity/" + account }

// providerName is the name in a reference to a capacity provider: a name or an ARN.
func (e *ECS) providerName(account, ref string) (string, error) {
	if !isARN(ref) {
		return ref, nil
	}
	a, err := e.mine(account, ref, "capacity-provider")
	if err != nil {
		return "", err
	}
	if len(a.path) != 1 {
		return "", invalid("Invalid identifier: %s", ref)
	}
	return a.path[0], nil
}

func (e *ECS) providerARN(account, name string) string {
	return e.arn(account, "capacity-provider/"+name)
}

// provider finds a capacity provider by its name, Fargate's included.
func (e *ECS) provider(r store.Reader, account, name string) (*state.CapacityProvider, bool) {
	arn := e.providerARN(account, name)
	if state.IsFargate(name) {
		return &state.CapacityProvider{ARN: arn, Account: account, Name: name, Status: statusActive}, true
	}
	return state.CapacityProviders.Get(r, arn)
}

func providerType(p *state.CapacityProvider) api.CapacityProviderType {
	switch {
	case p.Name == state.Fargate:
		return api.CapacityProviderTypeFargate
	case p.Name == state.FargateSpot:
		return api.CapacityProviderTypeFargateSpot
	case p.Managed != nil:
		return api.CapacityProviderTypeManagedInstances
	}
	return api.CapacityProviderTypeEc2Autoscaling
}

func providerView(p *state.CapacityProvider, tags bool) api.CapacityProvider {
	v := api.CapacityProvider{
		CapacityProviderArn: &p.ARN, Name: &p.Name, Cluster: opt(p.Cluster), Status: api.CapacityProviderStatus(p.Status),
		AutoScalingGroupProvider: p.Group, ManagedInstancesProvider: p.Managed,
		UpdateStatus: api.CapacityProviderUpdateStatus(p.UpdateStatus), Tags: []api.Tag{}, Type: providerType(p),
	}
	if tags {
		v.Tags = tagView(p.Tags)
	}
	return v
}

// isGroup holds for what may name an Auto Scaling group: a name, or an ARN of
// this account and region.
func (e *ECS) isGroup(account, s string) bool {
	if !isARN(s) {
		return s != "" && len(s) <= 255 && !strings.Contains(s, ":")
	}
	p := strings.SplitN(s, ":", 8)
	return len(p) == 8 && p[2] == "autoscaling" && p[3] == e.cfg.Region && p[4] == account &&
		p[5] == "autoScalingGroup" && p[6] != "" && len(p[7]) > len(groupName) && strings.HasPrefix(p[7], groupName)
}

const groupName = "autoScalingGroupName/"

// sameGroup holds if two references can mean the same Auto Scaling group.
func sameGroup(a, b string) bool {
	short := func(s string) string {
		if i := strings.Index(s, groupName); i >= 0 {
			return s[i+len(groupName):]
		}
		return s
	}
	return a == b || isARN(a) != isARN(b) && short(a) == short(b)
}

// groupProvider lays settings over those there are, which for a new provider
// are AWS's defaults, and checks the outcome.
func groupProvider(have *api.AutoScalingGroupProvider, scaling *api.ManagedScaling, protection api.ManagedTerminationProtection, draining api.ManagedDraining) (*api.AutoScalingGroupProvider, error) {
	n := *have
	s := api.ManagedScaling{
		Status: api.ManagedScalingStatusDisabled, TargetCapacity: new(int32(100)),
		MinimumScalingStepSize: new(int32(1)), MaximumScalingStepSize: new(int32(10_000)), InstanceWarmupPeriod: new(int32(300)),
	}
	if have.ManagedScaling != nil {
		s = *have.ManagedScaling
	}
	if scaling != nil {
		s.Status = cmp.Or(scaling.Status, s.Status)
		s.TargetCapacity = first(scaling.TargetCapacity, s.TargetCapacity)
		s.MinimumScalingStepSize = first(scaling.MinimumScalingStepSize, s.MinimumScalingStepSize)
		s.MaximumScalingStepSize = first(scaling.MaximumScalingStepSize, s.MaximumScalingStepSize)
		s.InstanceWarmupPeriod = first(scaling.InstanceWarmupPeriod, s.InstanceWarmupPeriod)
	}
	n.ManagedScaling = &s
	n.ManagedTerminationProtection = cmp.Or(protection, have.ManagedTerminationProtection, api.ManagedTerminationProtectionDisabled)
	n.ManagedDraining = cmp.Or(draining, have.ManagedDraining, api.ManagedDrainingEnabled)
	switch {
	case *s.MinimumScalingStepSize > *s.MaximumScalingStepSize:
		return nil, client("The specified managed scaling configuration is invalid. The minimum scaling step size cannot be greater than the maximum scaling step size.")
	case n.ManagedTerminationProtection == api.ManagedTerminationProtectionEnabled && s.Status != api.ManagedScalingStatusEnabled:
		return nil, client("The managed termination protection setting for the capacity provider is invalid. To enable managed termination protection for a capacity provider, managed scaling must be enabled.")
	}
	return &n, nil
}

// checkManaged validates the configuration of a provider of managed instances
// and checks that the caller may hand over its roles.
func (e *ECS) checkManaged(ctx context.Context, r store.Reader, caller *auth.Caller, m *api.ManagedInstancesProvider) error {
	bad := func(format string, args ...any) error {
		return client("The specified managed instances provider is invalid. "+format, args...)
	}
	role := m.InfrastructureRoleArn
	if !isARN(val(role)) || expandRole(caller.Account, &role) != nil {
		return bad("The infrastructure role ARN is invalid.")
	}
	if err := e.cfg.PassRole(ctx, r, caller, *role, ecsService); err != nil {
		return err
	}
	t := m.InstanceLaunchTemplate
	profile := val(t.Ec2InstanceProfileArn)
	if !strings.HasPrefix(profile, "arn:aws:iam::"+caller.Account+":instance-profile/") {
		return bad("The EC2 instance profile ARN is invalid.")
	}
	p, ok := state.InstanceProfiles.Get(r, state.IAMKey(caller.Account, state.ShortARN(profile)))
	if !ok || p.ARN() != profile {
		return bad("The EC2 instance profile does not exist.")
	}
	if p.Role != "" {
		role, ok := state.Roles.Get(r, state.IAMKey(caller.Account, p.Role))
		if ok {
			if err := e.cfg.PassRole(ctx, r, caller, role.ARN(), ec2Service); err != nil {
				return err
			}
		}
	}
	n := t.NetworkConfiguration
	if n == nil || len(n.Subnets) == 0 {
		return invalid("subnets can not be empty.")
	}
	if err := checkSubnets(r, caller.Account, n.Subnets, n.SecurityGroups); err != nil {
		return err
	}
	q := t.InstanceRequirements
	if q == nil {
		return nil
	}
	if len(q.AllowedInstanceTypes) > 0 && len(q.ExcludedInstanceTypes) > 0 {
		return bad("allowedInstanceTypes and excludedInstanceTypes cannot be specified together.")
	}
	if v := q.VCpuCount; v != nil && (val(v.Min) < 0 || v.Max != nil && *v.Max < val(v.Min)) {
		return bad("The range of vCpuCount is invalid.")
	}
	if v := q.MemoryMiB; v != nil && (val(v.Min) < 0 || v.Max != nil && *v.Max < val(v.Min)) {
		return bad("The range of memoryMiB is invalid.")
	}
	return nil
}

// CreateCapacityProvider makes a capacity provider of an Auto Scaling group or
// of managed instances.
func (e *ECS) CreateCapacityProvider(ctx context.Context, in *api.CreateCapacityProviderInput) (*api.CreateCapacityProviderOutput, error) {
	caller := e.caller(ctx)
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	name, low := val(in.Name), strings.ToLower(val(in.Name))
	group, managed := in.AutoScalingGroupProvider, in.ManagedInstancesProvider
	switch {
	case !isName(name) || strings.HasPrefix(low, "aws") || strings.HasPrefix(low, "ecs") || strings.HasPrefix(low, "fargate"):
		return nil, client(badProvider)
	case (group == nil) == (managed == nil):
		return nil, client("Specify either an Auto Scaling group provider or a managed instances provider.")
	case group != nil && in.Cluster != nil:
		return nil, client("A cluster can only be specified for a capacity provider of managed instances.")
	case managed != nil && val(in.Cluster) == "":
		return nil, client("A cluster must be specified for a capacity provider of managed instances.")
	case group != nil && !e.isGroup(caller.Account, val(group.AutoScalingGroupArn)):
		return nil, client(badGroup)
	}
	n := &state.CapacityProvider{
		ARN: e.providerARN(caller.Account, name), Account: caller.Account, Name: name, Status: statusActive,
		UpdateStatus: string(api.CapacityProviderUpdateStatusCreateComplete), Tags: tags, CreatedAt: e.now(),
	}
	if group != nil {
		if n.Group, err = groupProvider(&api.AutoScalingGroupProvider{AutoScalingGroupArn: group.AutoScalingGroupArn},
			group.ManagedScaling, group.ManagedTerminationProtection, group.ManagedDraining); err != nil {
			return nil, err
		}
	} else {
		m := api.ManagedInstancesProvider(*managed)
		n.Managed = &m
	}
	out := &api.CreateCapacityProviderOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		if state.CapacityProviders.Has(tx, n.ARN) {
			return client("The specified capacity provider already exists. To change the configuration of an existing capacity provider, update the capacity provider.")
		}
		p := *n
		tx.Guard(capacityGuard(caller.Account))
		if group != nil {
			if err := useGroup(tx, &p); err != nil {
				return err
			}
			for o := range state.CapacityProviders.By(tx, "account", caller.Account) {
				if o.Group != nil && sameGroup(val(o.Group.AutoScalingGroupArn), val(group.AutoScalingGroupArn)) {
					return client("The specified Auto Scaling group ARN is already being used by another capacity provider. Specify a unique Auto Scaling group ARN and try again.")
				}
			}
		} else {
			if err := e.checkManaged(ctx, tx, caller, p.Managed); err != nil {
				return err
			}
			cluster, err := e.activeCluster(tx, caller.Account, in.Cluster)
			if err != nil {
				return err
			}
			c := *cluster
			c.CapacityProviders = append(slices.Clone(c.CapacityProviders), name)
			if limit := state.Limit(tx, caller.Account, "ecs/capacity-providers-per-cluster"); len(c.CapacityProviders) > limit {
				return &api.LimitExceededException{Message: fmt.Sprintf(tooManyProviders, limit)}
			}
			state.Clusters.Put(tx, &c)
			p.Cluster = c.ARN
		}
		state.CapacityProviders.Put(tx, &p)
		out.CapacityProvider = new(providerView(&p, true))
		return nil
	})
}

const badGroup = "The specified Auto Scaling group ARN is invalid. Specify a valid Auto Scaling group ARN and try again."

// managedTag is on groups that are capacity providers.
const managedTag = "AmazonECSManaged"

// useGroup looks at the Auto Scaling group of a provider and marks it as ECS's.
func useGroup(tx *store.Tx, p *state.CapacityProvider) error {
	g, ok := p.GroupOf(tx)
	switch {
	case !ok || g.Deleting:
		return client(badGroup)
	case p.Group.ManagedTerminationProtection == api.ManagedTerminationProtectionEnabled && !val(g.Doc.NewInstancesProtectedFromScaleIn):
		return client("The managed termination protection setting for the capacity provider is invalid. To enable managed termination protection for a capacity provider, the Auto Scaling group must have instance protection from scale in enabled.")
	}
	is := func(t autoscaling.TagDescription) bool { return val(t.Key) == managedTag }
	if p.Group.ManagedScaling.Status == api.ManagedScalingStatusEnabled && !slices.ContainsFunc(g.Doc.Tags, is) {
		n := g.Clone()
		n.Doc.Tags = append(slices.Clone(g.Doc.Tags), autoscaling.TagDescription{ResourceId: new(g.Name), ResourceType: new("auto-scaling-group"), Key: new(managedTag), Value: new(""), PropagateAtLaunch: new(true)})
		slices.SortFunc(n.Doc.Tags, func(a, b autoscaling.TagDescription) int { return strings.Compare(val(a.Key), val(b.Key)) })
		state.ScalingGroups.Put(tx, n)
	}
	return nil
}

// UpdateCapacityProvider changes what it is given and leaves the rest.
func (e *ECS) UpdateCapacityProvider(ctx context.Context, in *api.UpdateCapacityProviderInput) (*api.UpdateCapacityProviderOutput, error) {
	caller := e.caller(ctx)
	name, err := e.providerName(caller.Account, val(in.Name))
	if err != nil {
		return nil, err
	}
	if (in.AutoScalingGroupProvider == nil) == (in.ManagedInstancesProvider == nil) {
		return nil, client("Specify either an Auto Scaling group provider or a managed instances provider.")
	}
	out := &api.UpdateCapacityProviderOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		have, err := e.own(tx, caller.Account, name, in.Cluster)
		if err != nil {
			return err
		}
		p := *have
		p.UpdateStatus = string(api.CapacityProviderUpdateStatusUpdateComplete)
		switch u, m := in.AutoScalingGroupProvider, in.ManagedInstancesProvider; {
		case (u != nil) != (have.Group != nil):
			return client("The type of a capacity provider cannot be changed.")
		case u != nil:
			if p.Group, err = groupProvider(have.Group, u.ManagedScaling, u.ManagedTerminationProtection, u.ManagedDraining); err != nil {
				return err
			}
			if err := useGroup(tx, &p); err != nil {
				return err
			}
		default:
			p.Managed = updateManaged(have.Managed, m)
			if err := e.checkManaged(ctx, tx, caller, p.Managed); err != nil {
				return err
			}
		}
		state.CapacityProviders.Put(tx, &p)
		out.CapacityProvider = new(providerView(&p, true))
		return nil
	})
}

// updateManaged lays an update over a configuration. What it does not name stays.
func updateManaged(have *api.ManagedInstancesProvider, u *api.UpdateManagedInstancesProviderConfiguration) *api.ManagedInstancesProvider {
	n := *have
	n.InfrastructureRoleArn = first(u.InfrastructureRoleArn, n.InfrastructureRoleArn)
	n.PropagateTags = cmp.Or(u.PropagateTags, n.PropagateTags)
	n.InfrastructureOptimization = first(u.InfrastructureOptimization, n.InfrastructureOptimization)
	n.AutoRepairConfiguration = first(u.AutoRepairConfiguration, n.AutoRepairConfiguration)
	if l := u.InstanceLaunchTemplate; l != nil {
		t := *n.InstanceLaunchTemplate
		t.Ec2InstanceProfileArn = first(l.Ec2InstanceProfileArn, t.Ec2InstanceProfileArn)
		t.NetworkConfiguration = first(l.NetworkConfiguration, t.NetworkConfiguration)
		t.StorageConfiguration = first(l.StorageConfiguration, t.StorageConfiguration)
		t.InstanceMetadataTagsPropagation = first(l.InstanceMetadataTagsPropagation, t.InstanceMetadataTagsPropagation)
		t.LocalStorageConfiguration = first(l.LocalStorageConfiguration, t.LocalStorageConfiguration)
		t.Monitoring = cmp.Or(l.Monitoring, t.Monitoring)
		t.InstanceRequirements = first(l.InstanceRequirements, t.InstanceRequirements)
		t.CapacityReservations = first(l.CapacityReservations, t.CapacityReservations)
		n.InstanceLaunchTemplate = &t
	}
	return &n
}

// own finds a capacity provider that can be changed. A cluster, where one is
// given, must be the provider's.
func (e *ECS) own(r store.Reader, account, name string, cluster *string) (*state.CapacityProvider, error) {
	if state.IsFargate(name) {
		return nil, client("The specified capacity provider %s is reserved and cannot be changed.", name)
	}
	p, ok := state.CapacityProviders.Get(r, e.providerARN(account, name))
	if !ok {
		return nil, client(noProvider)
	}
	if cluster != nil {
		c, err := e.cluster(r, account, cluster)
		if err != nil {
			return nil, err
		}
		if p.Cluster != "" && p.Cluster != c.ARN {
			return nil, client(noProvider)
		}
	}
	return p, nil
}

// DeleteCapacityProvider forgets a capacity provider that nothing uses.
func (e *ECS) DeleteCapacityProvider(ctx context.Context, in *api.DeleteCapacityProviderInput) (*api.DeleteCapacityProviderOutput, error) {
	account := e.caller(ctx).Account
	name, err := e.providerName(account, val(in.CapacityProvider))
	if err != nil {
		return nil, err
	}
	out := &api.DeleteCapacityProviderOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		p, err := e.own(tx, account, name, in.Cluster)
		if err != nil {
			return err
		}
		tx.Guard(capacityGuard(account))
		for c := range state.Clusters.By(tx, "account", account) {
			if c.Status != statusActive || !slices.Contains(c.CapacityProviders, name) {
				continue
			}
			if p.Cluster == "" {
				return client("The capacity provider cannot be deleted because it is associated with cluster: %s. Remove the capacity provider from the cluster and try again.", c.Name)
			}
			// The cluster is that of managed instances: they leave it together,
			// unless something runs there.
			if e.usesProvider(tx, c, name) || inStrategy(c.DefaultCapacityProviderStrategy, name) || usedByDaemon(tx, c, p.ARN) {
				return client("The capacity provider cannot be deleted because it is in use by cluster: %s. Remove it from the services, daemons and strategies of the cluster and try again.", c.Name)
			}
			n := *c
			n.CapacityProviders = slices.DeleteFunc(slices.Clone(c.CapacityProviders), func(s string) bool { return s == name })
			state.Clusters.Put(tx, &n)
		}
		state.CapacityProviders.Delete(tx, p.ARN)
		gone := *p
		gone.Status = string(api.CapacityProviderStatusInactive)
		gone.UpdateStatus = string(api.CapacityProviderUpdateStatusDeleteComplete)
		out.CapacityProvider = new(providerView(&gone, true))
		return nil
	})
}

func usedByDaemon(r store.Reader, c *state.Cluster, arn string) bool {
	for d := range state.Daemons.By(r, "cluster", c.ARN) {
		if slices.Contains(d.CapacityProviders, arn) {
			return true
		}
	}
	return false
}

// DescribeCapacityProviders shows capacity providers by name or ARN; without
// any, all there are, Fargate's included.
func (e *ECS) DescribeCapacityProviders(ctx context.Context, in *api.DescribeCapacityProvidersInput) (*api.DescribeCapacityProvidersOutput, error) {
	account := e.caller(ctx).Account
	if len(in.CapacityProviders) > maxDescribed {
		return nil, invalid("Capacity providers cannot exceed %d elements", maxDescribed)
	}
	r := e.db.Snapshot()
	scope, cluster := "", (*state.Cluster)(nil)
	if in.Cluster != nil {
		c, err := e.cluster(r, account, in.Cluster)
		if err != nil {
			return nil, err
		}
		cluster, scope = c, c.ARN
	}
	visible := func(p *state.CapacityProvider) bool {
		return cluster == nil || p.Cluster == cluster.ARN || slices.Contains(cluster.CapacityProviders, p.Name)
	}
	out := &api.DescribeCapacityProvidersOutput{CapacityProviders: []api.CapacityProvider{}, Failures: []api.Failure{}}
	var names []string
	if len(in.CapacityProviders) > 0 {
		for _, ref := range in.CapacityProviders {
			name, err := e.providerName(account, ref)
			if err != nil {
				return nil, err
			}
			if p, ok := e.provider(r, account, name); ok && visible(p) {
				names = append(names, name)
			} else {
				out.Failures = append(out.Failures, api.Failure{Arn: new(e.providerARN(account, name)), Reason: new("MISSING")})
			}
		}
	} else {
		for _, name := range []string{state.Fargate, state.FargateSpot} {
			if p, _ := e.provider(r, account, name); visible(p) {
				names = append(names, name)
			}
		}
		for p := range state.CapacityProviders.By(r, "account", account) {
			if visible(p) {
				names = append(names, p.Name)
			}
		}
		var err error
		q := query{"DescribeCapacityProviders", account, scope}
		if names, out.NextToken, err = page(names, q, in.NextToken, in.MaxResults, pageProviders, pageProviders, e.now()); err != nil {
			return nil, err
		}
	}
	tags := slices.Contains(in.Include, api.CapacityProviderFieldTags)
	for _, name := range names {
		if p, ok := e.provider(r, account, name); ok {
			out.CapacityProviders = append(out.CapacityProviders, providerView(p, tags))
		}
	}
	return out, nil
}

// PutClusterCapacityProviders replaces the capacity providers of a cluster and
// its default strategy.
func (e *ECS) PutClusterCapacityProviders(ctx context.Context, in *api.PutClusterCapacityProvidersInput) (*api.PutClusterCapacityProvidersOutput, error) {
	account := e.caller(ctx).Account
	if err := checkStrategy(in.DefaultCapacityProviderStrategy); err != nil {
		return nil, err
	}
	out := &api.PutClusterCapacityProvidersOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		have, err := e.activeCluster(tx, account, in.Cluster)
		if err != nil {
			return err
		}
		c := *have
		if err := e.associate(tx, &c, in.CapacityProviders, in.DefaultCapacityProviderStrategy); err != nil {
			return err
		}
		// What is started with a provider while this transaction looks makes it look again.
		state.Tasks.Guard(tx, e.arn(account, "task/"+c.Name+"/"))
		state.Services.Guard(tx, e.arn(account, "service/"+c.Name+"/"))
		for _, name := range have.CapacityProviders {
			if !slices.Contains(c.CapacityProviders, name) && (e.usesProvider(tx, have, name) || usedByDaemon(tx, have, e.providerARN(account, name))) {
				return &api.ResourceInUseException{Message: "The specified capacity provider is in use and cannot be removed."}
			}
		}
		state.Clusters.Put(tx, &c)
		out.Cluster = clusterView(tx, &c, withAttachments)
		return nil
	})
}
