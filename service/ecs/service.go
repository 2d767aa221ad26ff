package ecs

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// deploymentConfiguration lays what is given over what there is, which is AWS's
// defaults for a new service.
func deploymentConfiguration(have, given *api.DeploymentConfiguration, scheduling api.SchedulingStrategy) (*api.DeploymentConfiguration, error) {
	n := api.DeploymentConfiguration{
		DeploymentCircuitBreaker: &api.DeploymentCircuitBreaker{Enable: new(false), Rollback: new(false)},
		MaximumPercent:           new(int32(200)), MinimumHealthyPercent: new(int32(100)),
		Strategy: api.DeploymentStrategyRolling, BakeTimeInMinutes: new(int32(0)),
	}
	if scheduling == api.SchedulingStrategyDaemon {
		n.MaximumPercent, n.MinimumHealthyPercent = new(int32(100)), new(int32(0))
	}
	if have != nil {
		n = *have
	}
	if given != nil {
		n.MaximumPercent = first(given.MaximumPercent, n.MaximumPercent)
		n.MinimumHealthyPercent = first(given.MinimumHealthyPercent, n.MinimumHealthyPercent)
		n.DeploymentCircuitBreaker = first(given.DeploymentCircuitBreaker, n.DeploymentCircuitBreaker)
		n.Alarms = first(given.Alarms, n.Alarms)
	}
	switch lower, upper := *n.MinimumHealthyPercent, *n.MaximumPercent; {
	case lower < 0 || lower > 100:
		return nil, invalid("minimumHealthyPercent must be between 0 and 100.")
	case upper < 100:
		return nil, invalid("maximumPercent must be at least 100.")
	case lower == 100 && upper == 100:
		return nil, invalid("Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.")
	}
	return &n, nil
}

// rebalancing decides about AvailabilityZoneRebalancing.
func (p parts) rebalancing(asked api.AvailabilityZoneRebalancing, def string, c *api.DeploymentConfiguration) (string, error) {
	not := ""
	switch zone := "attribute:" + zoneAttribute; {
	case p.scheduling == api.SchedulingStrategyDaemon:
		not = "the DAEMON scheduling strategy"
	case *c.MaximumPercent <= 100:
		not = "maximumPercent <= 100%"
	case len(p.placement) > 0 && (p.placement[0].Type != api.PlacementStrategyTypeSpread || val(p.placement[0].Field) != zone):
		not = "a placement strategy that does not begin with spread on " + zone
	case slices.ContainsFunc(p.constraints, func(c api.PlacementConstraint) bool { return strings.Contains(val(c.Expression), zone) }):
		not = "a placement constraint on " + zone
	}
	switch {
	case not == "":
		return string(cmp.Or(asked, api.AvailabilityZoneRebalancing(def))), nil
	case asked == api.AvailabilityZoneRebalancingEnabled:
		return "", invalid("Availability Zone Rebalancing does not support %s", not)
	}
	return string(api.AvailabilityZoneRebalancingDisabled), nil
}

// checkCreate validates what needs no state.
func checkCreate(in *api.CreateServiceInput) error {
	daemon := in.SchedulingStrategy == api.SchedulingStrategyDaemon
	external := in.DeploymentController != nil && in.DeploymentController.Type == api.DeploymentControllerTypeExternal
	if err := checkToken(val(in.ClientToken), 36); err != nil {
		return err
	}
	switch {
	case !isName(val(in.ServiceName)):
		return invalid("Service name must be 1 to 255 letters, digits, underscores and hyphens.")
	case daemon && in.LaunchType == api.LaunchTypeFargate:
		return invalid("The DAEMON scheduling strategy is not supported with the FARGATE launch type.")
	case daemon && in.DesiredCount != nil:
		return invalid("The daemon scheduling strategy does not support a desired count for services. Remove a value for desired count and try again")
	case !daemon && !external && in.DesiredCount == nil:
		return invalid("The desired count must be specified with the REPLICA scheduling strategy.")
	}
	if name := givenOutsideTaskSets(in); external && name != "" {
		return invalid("%s cannot be specified for a service with an EXTERNAL deployment controller. Specify it for its task sets.", name)
	}
	if val(in.Role) != "" {
		return invalid("You cannot specify an IAM role for services that require a service linked role.")
	}
	return nil
}

// checkDesired validates a desired count.
func checkDesired(r store.Reader, account string, n *int32) error {
	if limit := state.Limit(r, account, "ecs/tasks-per-service"); n != nil && (*n < 0 || int(*n) > limit) {
		return invalid("The desired count must be between 0 and %d.", limit)
	}
	return nil
}

func createParts(in *api.CreateServiceInput) parts {
	return parts{
		loadBalancers: in.LoadBalancers, registries: in.ServiceRegistries, strategy: in.CapacityProviderStrategy, launch: in.LaunchType,
		volumes: in.VolumeConfigurations, lattice: in.VpcLatticeConfigurations, connect: in.ServiceConnectConfiguration,
		controller: in.DeploymentController, scheduling: in.SchedulingStrategy, configuration: in.DeploymentConfiguration,
		constraints: in.PlacementConstraints, placement: in.PlacementStrategy, gracePeriod: in.HealthCheckGracePeriodSeconds,
		fargate: in.LaunchType == api.LaunchTypeFargate,
	}
}

// CreateService makes a service and its first deployment.
func (e *ECS) CreateService(ctx context.Context, in *api.CreateServiceInput) (*api.CreateServiceOutput, error) {
	caller := e.caller(ctx)
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	if err := checkCreate(in); err != nil {
		return nil, err
	}
	p := createParts(in)
	if err := p.check(); err != nil {
		return nil, err
	}
	configuration, err := deploymentConfiguration(nil, in.DeploymentConfiguration, in.SchedulingStrategy)
	if err != nil {
		return nil, err
	}
	balance := string(api.AvailabilityZoneRebalancingDisabled)
	if !p.external() {
		if balance, err = p.rebalancing(in.AvailabilityZoneRebalancing, string(api.AvailabilityZoneRebalancingEnabled), configuration); err != nil {
			return nil, err
		}
	} else if in.AvailabilityZoneRebalancing == api.AvailabilityZoneRebalancingEnabled {
		return nil, invalid("Availability Zone Rebalancing is not supported with the EXTERNAL deployment controller.")
	}
	now := e.now()
	out := &api.CreateServiceOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		cluster, err := e.activeCluster(tx, caller.Account, in.Cluster)
		if err != nil {
			return err
		}
		asked := *in
		asked.Cluster = &cluster.ARN
		request, err := fingerprint(&asked)
		if err != nil {
			return err
		}
		arn := e.arn(caller.Account, "service/"+cluster.Name+"/"+*in.ServiceName)
		have, exists := state.Services.Get(tx, arn)
		if t := used(tx, caller.Account, "CreateService", val(in.ClientToken), now); t != nil {
			if t.Request != request {
				return invalid("Creation of service was not idempotent.")
			}
			if exists && have.Status == statusActive && have.Request == request {
				out.Service = new(serviceView(tx, have, true))
				return nil
			}
		}
		if err := checkDesired(tx, caller.Account, in.DesiredCount); err != nil {
			return err
		}
		var td *state.TaskDefinition
		var on compute
		platform, p := "", p
		if !p.external() {
			if on, err = e.compute(tx, cluster, in.LaunchType, in.CapacityProviderStrategy); err != nil {
				return err
			}
			p.fargate = on.launch == string(api.LaunchTypeFargate)
			if platform, err = resolvePlatform(in.PlatformVersion, on.launch); err != nil {
				return err
			}
			if td, err = e.deployable(tx, caller.Account, in, p, on); err != nil {
				return err
			}
		} else if err := p.refuse(); err != nil {
			return err
		}
		s := &state.Service{
			ARN: arn, Account: caller.Account,
			Cluster: cluster.ARN, Name: *in.ServiceName, Status: statusActive, ClientToken: val(in.ClientToken), Request: request,
			DesiredCount: int(val(in.DesiredCount)), LaunchType: on.asked(), CapacityProviderStrategy: on.strategy,
			SchedulingStrategy:   string(cmp.Or(in.SchedulingStrategy, api.SchedulingStrategyReplica)),
			PlacementConstraints: in.PlacementConstraints, PlacementStrategy: in.PlacementStrategy,
			DeploymentController:    &api.DeploymentController{Type: api.DeploymentControllerTypeEcs},
			DeploymentConfiguration: configuration, Network: storedNetwork(in.NetworkConfiguration),
			LoadBalancers: in.LoadBalancers, ServiceRegistries: in.ServiceRegistries,
			ServiceConnect: in.ServiceConnectConfiguration, HealthCheckGracePeriod: in.HealthCheckGracePeriodSeconds,
			EnableECSManagedTags: val(in.EnableECSManagedTags), EnableExecuteCommand: val(in.EnableExecuteCommand),
			PropagateTags:               string(cmp.Or(in.PropagateTags, api.PropagateTagsNone)),
			AvailabilityZoneRebalancing: balance,
			RoleARN:                     "arn:aws:iam::" + caller.Account + ":role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS",
			CreatedBy:                   caller.PrincipalARN(), Tags: tags, CreatedAt: now,
		}
		if p.external() {
			s.DeploymentController = in.DeploymentController
		} else {
			s.TaskDefinition = td.ARN
			if p.fargate {
				s.PlatformVersion, s.PlatformFamily = cmp.Or(val(in.PlatformVersion), platformLatest), platformLinux
			}
		}
		if exists {
			switch {
			case have.Status == statusDraining:
				return invalid("Unable to Start a service that is still Draining.")
			case have.Status == statusActive && sameService(have, s):
				out.Service = new(serviceView(tx, have, true))
				return nil
			case have.Status == statusActive:
				return invalid("Creation of service was not idempotent.")
			}
			// An INACTIVE service's name is free; its history goes.
			state.Events.Delete(tx, s.ARN)
		}
		if err := roomForService(tx, cluster); err != nil {
			return err
		}
		if td != nil {
			e.deploy(tx, s, td, platform, now)
		}
		state.Services.Put(tx, s)
		remember(tx, &state.ClientToken{Account: caller.Account, Operation: "CreateService", Token: val(in.ClientToken), Request: request, Resources: []string{arn}, At: now})
		out.Service = new(serviceView(tx, s, true))
		return nil
	})
}

// roomForService enforces the quota of services in a cluster.
func roomForService(tx *store.Tx, cluster *state.Cluster) error {
	tx.Guard("ecs-services/" + cluster.ARN)
	n := 0
	for s := range state.Services.By(tx, "cluster", cluster.ARN) {
		if s.Status != statusInactive {
			n++
		}
	}
	if limit := state.Limit(tx, cluster.Account, "ecs/services-per-cluster"); n >= limit {
		return invalid("The maximum number of services per cluster (%d) has been reached.", limit)
	}
	return nil
}

// deployable validates a new service against what there is, and finds its task definition.
func (e *ECS) deployable(r store.Reader, account string, in *api.CreateServiceInput, p parts, on compute) (*state.TaskDefinition, error) {
	if val(in.TaskDefinition) == "" {
		return nil, invalid("TaskDefinition can not be blank.")
	}
	td, err := e.startable(r, account, *in.TaskDefinition, client)
	if err != nil {
		return nil, err
	}
	if err := p.fit(r, account, &td.Doc); err != nil {
		return nil, err
	}
	if p.scheduling == api.SchedulingStrategyDaemon && (p.fargate || on.strategy != nil && on.launch != string(api.LaunchTypeEc2)) {
		return nil, invalid("The DAEMON scheduling strategy is not supported with the FARGATE launch type.")
	}
	if err := p.refuse(); err != nil {
		return nil, err
	}
	if err := tooMany(td, p.constraints); err != nil {
		return nil, err
	}
	if err := on.forService(); err != nil {
		return nil, err
	}
	if td, err = e.forService(r, account, *in.TaskDefinition, on.launch, val(in.EnableExecuteCommand)); err != nil {
		return nil, err
	}
	_, err = checkNetwork(r, account, &td.Doc, on.launch, in.NetworkConfiguration)
	return td, err
}

// forService finds a task definition that a service may run.
func (e *ECS) forService(r store.Reader, account, ref, launch string, exec bool) (*state.TaskDefinition, error) {
	td, err := e.startable(r, account, ref, client)
	if err != nil {
		return nil, err
	}
	if err := supports(td, launch); err != nil {
		return nil, err
	}
	if err := runnable(td); err != nil {
		return nil, err
	}
	if exec && td.Doc.TaskRoleArn == nil {
		return nil, invalid("The service couldn't be created because a valid taskRoleArn is not being used. Specify a valid task role in your task definition and try again.")
	}
	return td, nil
}

// sameService holds if creating b would change nothing about a.
func sameService(a, b *state.Service) bool {
	return a.ClientToken == b.ClientToken && a.DesiredCount == b.DesiredCount && a.LaunchType == b.LaunchType &&
		a.PlatformVersion == b.PlatformVersion && a.TaskDefinition == b.TaskDefinition &&
		a.SchedulingStrategy == b.SchedulingStrategy && a.EnableECSManagedTags == b.EnableECSManagedTags &&
		a.EnableExecuteCommand == b.EnableExecuteCommand && a.PropagateTags == b.PropagateTags &&
		a.AvailabilityZoneRebalancing == b.AvailabilityZoneRebalancing &&
		sameDocument(a.CapacityProviderStrategy, b.CapacityProviderStrategy) &&
		sameDocument(a.DeploymentConfiguration, b.DeploymentConfiguration) && sameDocument(a.Network, b.Network) &&
		sameDocument(list(a.PlacementConstraints), list(b.PlacementConstraints)) && sameDocument(list(a.PlacementStrategy), list(b.PlacementStrategy)) &&
		sameDocument(a.ServiceConnect, b.ServiceConnect) && sameDocument(a.HealthCheckGracePeriod, b.HealthCheckGracePeriod) &&
		slices.Equal(a.Tags, b.Tags)
}

// UpdateService changes what a service wants. It starts a deployment if that is
// something its running tasks do not have.
func (e *ECS) UpdateService(ctx context.Context, in *api.UpdateServiceInput) (*api.UpdateServiceOutput, error) {
	caller := e.caller(ctx)
	p := parts{
		loadBalancers: in.LoadBalancers, registries: in.ServiceRegistries, strategy: in.CapacityProviderStrategy,
		volumes: in.VolumeConfigurations, lattice: in.VpcLatticeConfigurations, connect: in.ServiceConnectConfiguration,
		configuration: in.DeploymentConfiguration,
		constraints:   in.PlacementConstraints, placement: in.PlacementStrategy, gracePeriod: in.HealthCheckGracePeriodSeconds,
	}
	now := e.now()
	out := &api.UpdateServiceOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		_, have, err := e.service(tx, caller.Account, in.Cluster, in.Service)
		if err != nil {
			return err
		}
		if have.Status != statusActive {
			return &api.ServiceNotActiveException{Message: "Service was not ACTIVE."}
		}
		p := p
		p.scheduling = api.SchedulingStrategy(have.SchedulingStrategy)
		p.controller, p.fargate = have.DeploymentController, !isExternal(have) && state.LaunchOf(have.LaunchType, have.CapacityProviderStrategy) == string(api.LaunchTypeFargate)
		if err := p.check(); err != nil {
			return err
		}
		if err := frozen(have.DeploymentController, in); err != nil {
			return err
		}
		if in.DesiredCount != nil && p.scheduling == api.SchedulingStrategyDaemon {
			return invalid("The daemon scheduling strategy does not support a desired count for services. Remove a value for desired count and try again")
		}
		if err := checkDesired(tx, caller.Account, in.DesiredCount); err != nil {
			return err
		}
		s := have.Clone()
		if isExternal(s) {
			err = resize(tx, s, in, p, now)
		} else {
			err = e.change(tx, caller, s, in, p, now)
		}
		if err != nil {
			return err
		}
		state.Services.Put(tx, s)
		out.Service = new(serviceView(tx, s, true))
		return nil
	})
}

// resize applies an update to a service whose task sets have the rest.
func resize(tx *store.Tx, s *state.Service, in *api.UpdateServiceInput, p parts, now time.Time) error {
	if err := p.refuse(); err != nil {
		return err
	}
	if in.AvailabilityZoneRebalancing == api.AvailabilityZoneRebalancingEnabled {
		return invalid("Availability Zone Rebalancing is not supported with the EXTERNAL deployment controller.")
	}
	c, err := deploymentConfiguration(s.DeploymentConfiguration, in.DeploymentConfiguration, p.scheduling)
	if err != nil {
		return err
	}
	s.DeploymentConfiguration = c
	settings(s, in)
	placement(s, in)
	if in.DesiredCount == nil || int(*in.DesiredCount) == s.DesiredCount {
		return nil
	}
	n := int(*in.DesiredCount)
	tx.Guard("ecs-task-sets/" + s.ARN)
	for t := range state.TaskSets.By(tx, "service", s.ARN) {
		if t.Desired(n) != t.Desired(s.DesiredCount) {
			next := *t
			unsettle(&next, now)
			state.TaskSets.Put(tx, &next)
		}
	}
	s.DesiredCount = n
	return nil
}

// settings applies what concerns tasks that are yet to start, and no deployment.
func settings(s *state.Service, in *api.UpdateServiceInput) {
	if in.EnableExecuteCommand != nil {
		s.EnableExecuteCommand = *in.EnableExecuteCommand
	}
	if in.EnableECSManagedTags != nil {
		s.EnableECSManagedTags = *in.EnableECSManagedTags
	}
	if in.PropagateTags != "" {
		s.PropagateTags = string(in.PropagateTags)
	}
	if in.HealthCheckGracePeriodSeconds != nil {
		s.HealthCheckGracePeriod = in.HealthCheckGracePeriodSeconds
	}
}

// placement applies constraints and strategies to what is yet to be placed; an
// empty list removes them.
func placement(s *state.Service, in *api.UpdateServiceInput) {
	if in.PlacementConstraints != nil {
		s.PlacementConstraints = in.PlacementConstraints
	}
	if in.PlacementStrategy != nil {
		s.PlacementStrategy = in.PlacementStrategy
	}
}

// change applies an update to a service.
func (e *ECS) change(tx *store.Tx, caller *auth.Caller, s *state.Service, in *api.UpdateServiceInput, p parts, now time.Time) (err error) {
	if td, ok := state.TaskDefinitions.Get(tx, s.TaskDefinition); ok && in.TaskDefinition == nil {
		if err := p.fit(tx, caller.Account, &td.Doc); err != nil {
			return err
		}
	}
	if err := p.refuse(); err != nil {
		return err
	}
	if s.DeploymentConfiguration, err = deploymentConfiguration(s.DeploymentConfiguration, in.DeploymentConfiguration, p.scheduling); err != nil {
		return err
	}
	asked := in.AvailabilityZoneRebalancing
	if asked == "" && s.AvailabilityZoneRebalancing == string(api.AvailabilityZoneRebalancingEnabled) {
		asked = api.AvailabilityZoneRebalancingEnabled // it stays, and so forbids a maximum of 100
	}
	placement(s, in)
	p.constraints, p.placement = s.PlacementConstraints, s.PlacementStrategy
	if s.AvailabilityZoneRebalancing, err = p.rebalancing(asked, string(api.AvailabilityZoneRebalancingDisabled), s.DeploymentConfiguration); err != nil {
		return err
	}
	old := *s
	settings(s, in)
	if in.ServiceConnectConfiguration != nil {
		s.ServiceConnect = in.ServiceConnectConfiguration
	}
	if in.PlatformVersion != nil {
		s.PlatformVersion = cmp.Or(*in.PlatformVersion, platformLatest)
	}
	if in.NetworkConfiguration != nil {
		s.Network = storedNetwork(in.NetworkConfiguration)
	}
	if in.DesiredCount != nil {
		s.DesiredCount = int(*in.DesiredCount)
	}
	if len(in.CapacityProviderStrategy) > 0 {
		cluster, err := e.activeCluster(tx, caller.Account, &s.Cluster)
		if err != nil {
			return err
		}
		on, err := e.compute(tx, cluster, "", in.CapacityProviderStrategy)
		if err != nil {
			return err
		}
		if err := on.forService(); err != nil {
			return err
		}
		s.LaunchType, s.CapacityProviderStrategy = on.asked(), on.strategy
	}
	launch := state.LaunchOf(s.LaunchType, s.CapacityProviderStrategy)
	if err := forFargate(launch == string(api.LaunchTypeFargate), s.PlacementConstraints, s.PlacementStrategy); err != nil {
		return err
	}
	switch fargate := launch == string(api.LaunchTypeFargate); {
	case fargate && s.PlatformVersion == "":
		s.PlatformVersion, s.PlatformFamily = platformLatest, platformLinux
	case !fargate && in.PlatformVersion == nil:
		s.PlatformVersion, s.PlatformFamily = "", ""
	}
	platform, err := resolvePlatform(&s.PlatformVersion, launch)
	if err != nil {
		return err
	}
	ref := cmp.Or(val(in.TaskDefinition), s.TaskDefinition)
	force := val(in.ForceNewDeployment)
	td, ok := state.TaskDefinitions.Get(tx, s.TaskDefinition)
	if in.TaskDefinition != nil || force || !ok {
		// A service may go on with a revision that is inactive by now.
		if td, ok, err = e.definition(tx, caller.Account, ref); err != nil {
			return err
		}
		if !ok {
			return client("TaskDefinition not found.")
		}
		if td.ARN != old.TaskDefinition {
			if td, err = e.forService(tx, caller.Account, ref, launch, s.EnableExecuteCommand); err != nil {
				return err
			}
		}
	}
	if err := tooMany(td, s.PlacementConstraints); err != nil {
		return err
	}
	s.TaskDefinition = td.ARN
	if s.EnableExecuteCommand && !old.EnableExecuteCommand && td.Doc.TaskRoleArn == nil {
		return invalid("The service couldn't be updated because a valid taskRoleArn is not being used. Specify a valid task role in your task definition and try again.")
	}
	if in.NetworkConfiguration != nil || td.ARN != old.TaskDefinition {
		if _, err := checkNetwork(tx, caller.Account, &td.Doc, launch, s.Network); err != nil {
			return err
		}
	}
	if td.ARN != old.TaskDefinition {
		// What kept the old revision's tasks from starting says nothing of the new one's.
		s.Impaired, s.NextStart = 0, time.Time{}
	}
	runs := ""
	if len(s.Deployments) > 0 {
		runs = s.Deployments[0].PlatformVersion
	}
	if force || td.ARN != old.TaskDefinition || !sameDocument(s.Network, old.Network) || platform != runs ||
		!sameDocument(s.CapacityProviderStrategy, old.CapacityProviderStrategy) {
		e.deploy(tx, s, td, platform, now)
	} else if s.DesiredCount != old.DesiredCount && len(s.Deployments) > 0 {
		s.Deployments[0].DesiredCount, s.Deployments[0].UpdatedAt = s.DesiredCount, now
	}
	return nil
}

// DeleteService lets a service drain: it wants no tasks any more, and is
// INACTIVE when the last one is gone.
func (e *ECS) DeleteService(ctx context.Context, in *api.DeleteServiceInput) (*api.DeleteServiceOutput, error) {
	caller := e.caller(ctx)
	now := e.now()
	out := &api.DeleteServiceOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		_, s, err := e.service(tx, caller.Account, in.Cluster, in.Service)
		if err != nil {
			return err
		}
		switch {
		case s.Status == statusInactive:
			return &api.ServiceNotFoundException{Message: "Service not found."}
		case s.Status == statusActive && !val(in.Force) && s.DesiredCount > 0:
			return invalid("The service cannot be stopped while it is scaled above 0.")
		case s.Status == statusActive && !val(in.Force) && (len(s.Deployments) > 1 || hasTaskSets(tx, s)):
			return invalid("The service cannot be stopped while deployments are active.")
		}
		if s.Status == statusActive {
			s = s.Clone()
			s.Status, s.DesiredCount = statusDraining, 0
			for i := range s.Deployments {
				s.Deployments[i].DesiredCount, s.Deployments[i].UpdatedAt = 0, now
			}
			state.Services.Put(tx, s)
		}
		v := serviceView(tx, s, true)
		out.Service = &v
		return nil
	})
}

// DescribeServices shows services by name or ARN.
func (e *ECS) DescribeServices(ctx context.Context, in *api.DescribeServicesInput) (*api.DescribeServicesOutput, error) {
	account := e.caller(ctx).Account
	switch {
	case len(in.Services) == 0:
		return nil, invalid("Services cannot be empty.")
	case len(in.Services) > 10:
		return nil, invalid("Services cannot exceed 10 elements")
	}
	tags := slices.Contains(in.Include, api.ServiceFieldTags)
	out := &api.DescribeServicesOutput{Services: []api.Service{}, Failures: []api.Failure{}}
	return out, e.view(func(r store.Reader) error {
		cluster, err := e.cluster(r, account, in.Cluster)
		if err != nil {
			return err
		}
		for _, ref := range in.Services {
			arn, err := e.serviceARN(account, cluster.Name, ref)
			if err != nil {
				return err
			}
			if s, ok := state.Services.Get(r, arn); ok && s.Cluster == cluster.ARN {
				out.Services = append(out.Services, serviceView(r, s, tags))
			} else {
				out.Failures = append(out.Failures, api.Failure{Arn: &arn, Reason: new("MISSING")})
			}
		}
		return nil
	})
}

// ListServices lists the active services of a cluster.
func (e *ECS) ListServices(ctx context.Context, in *api.ListServicesInput) (*api.ListServicesOutput, error) {
	account := e.caller(ctx).Account
	r := e.db.Snapshot()
	cluster, err := e.cluster(r, account, in.Cluster)
	if err != nil {
		return nil, err
	}
	var arns []string
	for s := range state.Services.By(r, "cluster", cluster.ARN) {
		if s.Status == statusActive &&
			(in.LaunchType == "" || s.LaunchType == string(in.LaunchType)) &&
			(in.SchedulingStrategy == "" || s.SchedulingStrategy == string(in.SchedulingStrategy)) &&
			in.ResourceManagementType != api.ResourceManagementTypeEcs {
			arns = append(arns, s.ARN)
		}
	}
	q := query{"ListServices", cluster.ARN, string(in.LaunchType), string(in.SchedulingStrategy), string(in.ResourceManagementType)}
	arns, next, err := page(arns, q, in.NextToken, in.MaxResults, 10, 100, e.now())
	return &api.ListServicesOutput{ServiceArns: list(arns), NextToken: next}, err
}

// serviceView is a service as the API shows it. Its counts are those of its
// tasks at this moment.
func serviceView(r store.Reader, s *state.Service, tags bool) api.Service {
	all, by := tally(r, s.ARN)
	v := api.Service{
		ServiceArn: &s.ARN, ServiceName: &s.Name, ClusterArn: &s.Cluster, Status: &s.Status,
		LoadBalancers: list(s.LoadBalancers), ServiceRegistries: list(s.ServiceRegistries),
		DesiredCount: num(s.DesiredCount), RunningCount: num(all.running), PendingCount: num(all.pending),
		LaunchType: api.LaunchType(s.LaunchType), CapacityProviderStrategy: s.CapacityProviderStrategy,
		PlatformVersion: opt(s.PlatformVersion), PlatformFamily: opt(s.PlatformFamily),
		TaskDefinition: opt(s.TaskDefinition), DeploymentConfiguration: s.DeploymentConfiguration,
		Deployments: []api.Deployment{}, RoleArn: opt(s.RoleARN), Events: []api.ServiceEvent{}, CreatedAt: at(s.CreatedAt),
		PlacementConstraints: list(s.PlacementConstraints), PlacementStrategy: list(s.PlacementStrategy),
		NetworkConfiguration:          s.Network,
		HealthCheckGracePeriodSeconds: s.HealthCheckGracePeriod,
		SchedulingStrategy:            api.SchedulingStrategy(s.SchedulingStrategy), DeploymentController: s.DeploymentController,
		Tags: []api.Tag{}, CreatedBy: opt(s.CreatedBy),
		EnableECSManagedTags: &s.EnableECSManagedTags, EnableExecuteCommand: &s.EnableExecuteCommand,
		PropagateTags:               api.PropagateTags(s.PropagateTags),
		AvailabilityZoneRebalancing: api.AvailabilityZoneRebalancing(s.AvailabilityZoneRebalancing),
		ResourceManagementType:      api.ResourceManagementTypeCustomer,
	}
	if tags {
		v.Tags = tagView(s.Tags)
	}
	v.CurrentServiceDeployment = opt(s.ServiceDeployment)
	if isExternal(s) {
		v.TaskSets = taskSetViews(r, s, tags)
	}
	for i := range s.Deployments {
		d := &s.Deployments[i]
		c := by[d.ID]
		if rev, ok := state.ServiceRevisions.Get(r, state.RevisionARN(s.ARN, d.ID)); ok {
			v.CurrentServiceRevisions = append(v.CurrentServiceRevisions, api.ServiceCurrentRevisionSummary{
				Arn: &rev.ARN, RequestedTaskCount: num(d.DesiredCount), RunningTaskCount: num(c.running), PendingTaskCount: num(c.pending)})
		}
		v.Deployments = append(v.Deployments, api.Deployment{
			Id: &d.ID, Status: &d.Status, TaskDefinition: &d.TaskDefinition,
			DesiredCount: num(d.DesiredCount), RunningCount: num(c.running), PendingCount: num(c.pending), FailedTasks: num(d.FailedTasks),
			CreatedAt: at(d.CreatedAt), UpdatedAt: at(d.UpdatedAt),
			LaunchType: api.LaunchType(d.LaunchType), CapacityProviderStrategy: d.CapacityProviderStrategy,
			PlatformVersion: opt(d.PlatformVersion), PlatformFamily: opt(d.PlatformFamily), NetworkConfiguration: d.Network,
			RolloutState: api.DeploymentRolloutState(d.RolloutState), RolloutStateReason: opt(d.RolloutStateReason),
			ServiceConnectConfiguration: s.ServiceConnect,
		})
	}
	if ev, ok := state.Events.Get(r, s.ARN); ok {
		for i := range ev.Events {
			v.Events = append(v.Events, api.ServiceEvent{Id: &ev.Events[i].ID, CreatedAt: at(ev.Events[i].At), Message: &ev.Events[i].Message})
		}
	}
	return v
}
