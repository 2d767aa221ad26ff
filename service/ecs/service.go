package ecs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const maxDesired = 5000

// absent refuses the parts of a service that have no machinery yet.
type absent struct {
	loadBalancers []api.LoadBalancer
	registries    []api.ServiceRegistry
	volumes       []api.ServiceVolumeConfiguration
	lattice       []api.VpcLatticeConfiguration
	connect       *api.ServiceConnectConfiguration
	controller    *api.DeploymentController
	configuration *api.DeploymentConfiguration
	constraints   []api.PlacementConstraint
	placement     []api.PlacementStrategy
	gracePeriod   *int32
}

func (a absent) check() error {
	switch {
	case len(a.loadBalancers) > 0:
		return unsupported("loadBalancers")
	case len(a.registries) > 0:
		return unsupported("serviceRegistries")
	case len(a.volumes) > 0:
		return unsupported("volumeConfigurations")
	case len(a.lattice) > 0:
		return unsupported("vpcLatticeConfigurations")
	case a.connect != nil && val(a.connect.Enabled):
		return unsupported("serviceConnectConfiguration")
	case a.controller != nil && a.controller.Type != api.DeploymentControllerTypeEcs:
		return unsupported("deploymentController " + string(a.controller.Type))
	case len(a.constraints) > 0:
		return invalid("Placement constraints are not supported with FARGATE launch type.")
	case len(a.placement) > 0:
		return invalid("Placement strategies are not supported with FARGATE launch type.")
	case val(a.gracePeriod) != 0:
		return invalid("Health check grace period is only valid for services configured to use load balancers")
	}
	c := a.configuration
	if c == nil {
		return nil
	}
	switch {
	case c.Strategy != "" && c.Strategy != api.DeploymentStrategyRolling:
		return unsupported("deploymentConfiguration.strategy " + string(c.Strategy))
	case len(c.LifecycleHooks) > 0:
		return unsupported("deploymentConfiguration.lifecycleHooks")
	case c.LinearConfiguration != nil:
		return unsupported("deploymentConfiguration.linearConfiguration")
	case c.CanaryConfiguration != nil:
		return unsupported("deploymentConfiguration.canaryConfiguration")
	case val(c.BakeTimeInMinutes) != 0:
		return unsupported("deploymentConfiguration.bakeTimeInMinutes")
	case c.Alarms != nil && val(c.Alarms.Enable):
		return unsupported("deploymentConfiguration.alarms")
	}
	return nil
}

// deploymentConfiguration lays what is given over what there is, which is AWS's
// defaults for a new service.
func deploymentConfiguration(have, given *api.DeploymentConfiguration) (*api.DeploymentConfiguration, error) {
	n := api.DeploymentConfiguration{
		DeploymentCircuitBreaker: &api.DeploymentCircuitBreaker{Enable: new(false), Rollback: new(false)},
		MaximumPercent:           new(int32(200)), MinimumHealthyPercent: new(int32(100)),
		Strategy: api.DeploymentStrategyRolling, BakeTimeInMinutes: new(int32(0)),
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
func rebalancing(asked api.AvailabilityZoneRebalancing, def string, c *api.DeploymentConfiguration) (string, error) {
	if *c.MaximumPercent > 100 {
		return string(cmp.Or(asked, api.AvailabilityZoneRebalancing(def))), nil
	}
	if asked == api.AvailabilityZoneRebalancingEnabled {
		return "", invalid("Availability Zone Rebalancing does not support maximumPercent <= 100%%")
	}
	return string(api.AvailabilityZoneRebalancingDisabled), nil
}

// checkCreate validates what needs no state.
func checkCreate(in *api.CreateServiceInput) error {
	switch {
	case !isName(val(in.ServiceName)):
		return invalid("Service name must be 1 to 255 letters, digits, underscores and hyphens.")
	case len(val(in.ClientToken)) > 36:
		return invalid("Client token must be at most 36 characters.")
	case in.LaunchType != "" && len(in.CapacityProviderStrategy) > 0:
		return invalid("Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.")
	case in.SchedulingStrategy == api.SchedulingStrategyDaemon && in.LaunchType == api.LaunchTypeFargate:
		return invalid("The DAEMON scheduling strategy is not supported with the FARGATE launch type.")
	case in.SchedulingStrategy == api.SchedulingStrategyDaemon:
		return unsupported("schedulingStrategy DAEMON")
	case in.DesiredCount == nil:
		return invalid("The desired count must be specified with the REPLICA scheduling strategy.")
	case *in.DesiredCount < 0 || *in.DesiredCount > maxDesired:
		return invalid("The desired count must be between 0 and %d.", maxDesired)
	}
	if err := (absent{
		loadBalancers: in.LoadBalancers, registries: in.ServiceRegistries,
		volumes: in.VolumeConfigurations, lattice: in.VpcLatticeConfigurations, connect: in.ServiceConnectConfiguration,
		controller: in.DeploymentController, configuration: in.DeploymentConfiguration,
		constraints: in.PlacementConstraints, placement: in.PlacementStrategy, gracePeriod: in.HealthCheckGracePeriodSeconds,
	}).check(); err != nil {
		return err
	}
	if val(in.Role) != "" {
		return invalid("You cannot specify an IAM role for services that require a service linked role.")
	}
	if val(in.TaskDefinition) == "" {
		return invalid("TaskDefinition can not be blank.")
	}
	return nil
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
	configuration, err := deploymentConfiguration(nil, in.DeploymentConfiguration)
	if err != nil {
		return nil, err
	}
	balance, err := rebalancing(in.AvailabilityZoneRebalancing, string(api.AvailabilityZoneRebalancingEnabled), configuration)
	if err != nil {
		return nil, err
	}
	now := e.now()
	out := &api.CreateServiceOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		cluster, err := e.activeCluster(tx, caller.Account, in.Cluster)
		if err != nil {
			return err
		}
		on, err := e.serviceCompute(tx, cluster, in.LaunchType, in.CapacityProviderStrategy)
		if err != nil {
			return err
		}
		launch := on.launch
		platform, err := resolvePlatform(in.PlatformVersion, launch)
		if err != nil {
			return err
		}
		td, err := e.forService(tx, caller.Account, *in.TaskDefinition, launch, val(in.EnableExecuteCommand))
		if err != nil {
			return err
		}
		if _, err := checkNetwork(tx, caller.Account, &td.Doc, launch, in.NetworkConfiguration); err != nil {
			return err
		}
		s := &state.Service{
			ARN: e.arn(caller.Account, "service/"+cluster.Name+"/"+*in.ServiceName), Account: caller.Account,
			Cluster: cluster.ARN, Name: *in.ServiceName, Status: statusActive, ClientToken: val(in.ClientToken),
			DesiredCount: int(*in.DesiredCount), LaunchType: on.asked(), CapacityProviderStrategy: on.strategy,
			PlatformVersion: cmp.Or(val(in.PlatformVersion), platformLatest), PlatformFamily: platformLinux,
			TaskDefinition: td.ARN, SchedulingStrategy: string(api.SchedulingStrategyReplica),
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
		if have, ok := state.Services.Get(tx, s.ARN); ok {
			switch {
			case have.Status == statusDraining:
				return invalid("Unable to Start a service that is still Draining.")
			case have.Status == statusActive && sameService(have, s):
				v := serviceView(tx, have, true)
				out.Service = &v
				return nil
			case have.Status == statusActive:
				return invalid("Creation of service was not idempotent.")
			}
			// An INACTIVE service's name is free; its history goes.
			state.Events.Delete(tx, s.ARN)
		}
		e.deploy(s, platform, now)
		state.Services.Put(tx, s)
		v := serviceView(tx, s, true)
		out.Service = &v
		return nil
	})
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
		sameDocument(a.CapacityProviderStrategy, b.CapacityProviderStrategy) && sameDocument(a.DeploymentConfiguration, b.DeploymentConfiguration) && sameDocument(a.Network, b.Network) &&
		sameDocument(a.ServiceConnect, b.ServiceConnect) && sameDocument(a.HealthCheckGracePeriod, b.HealthCheckGracePeriod) &&
		slices.Equal(a.Tags, b.Tags)
}

// deploy starts a deployment of what the service asks for. The deploy
// controller finds it and does the rest.
func (e *ECS) deploy(s *state.Service, platform string, now time.Time) {
	id := e.deploymentID()
	for i := range s.Deployments {
		if d := &s.Deployments[i]; d.Status == "PRIMARY" {
			d.Status, d.UpdatedAt = statusActive, now
		}
	}
	s.Deployments = append([]state.Deployment{{
		ID: id, Status: "PRIMARY", TaskDefinition: s.TaskDefinition, DesiredCount: s.DesiredCount,
		LaunchType: s.LaunchType, CapacityProviderStrategy: s.CapacityProviderStrategy,
		PlatformVersion: platform, PlatformFamily: s.PlatformFamily, Network: s.Network,
		CreatedAt: now, UpdatedAt: now,
		RolloutState: string(api.DeploymentRolloutStateInProgress), RolloutStateReason: "ECS deployment " + id + " in progress.",
	}}, s.Deployments...)
}

// UpdateService changes what a service wants. It starts a deployment if that is
// something its running tasks do not have.
func (e *ECS) UpdateService(ctx context.Context, in *api.UpdateServiceInput) (*api.UpdateServiceOutput, error) {
	caller := e.caller(ctx)
	if in.DesiredCount != nil && (*in.DesiredCount < 0 || *in.DesiredCount > maxDesired) {
		return nil, invalid("The desired count must be between 0 and %d.", maxDesired)
	}
	if err := (absent{
		loadBalancers: in.LoadBalancers, registries: in.ServiceRegistries,
		volumes: in.VolumeConfigurations, lattice: in.VpcLatticeConfigurations, connect: in.ServiceConnectConfiguration,
		controller: in.DeploymentController, configuration: in.DeploymentConfiguration,
		constraints: in.PlacementConstraints, placement: in.PlacementStrategy, gracePeriod: in.HealthCheckGracePeriodSeconds,
	}).check(); err != nil {
		return nil, err
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
		s := have.Clone()
		if err := e.change(tx, caller, s, in, now); err != nil {
			return err
		}
		state.Services.Put(tx, s)
		v := serviceView(tx, s, true)
		out.Service = &v
		return nil
	})
}

// change applies an update to a service.
func (e *ECS) change(tx *store.Tx, caller *auth.Caller, s *state.Service, in *api.UpdateServiceInput, now time.Time) (err error) {
	if s.DeploymentConfiguration, err = deploymentConfiguration(s.DeploymentConfiguration, in.DeploymentConfiguration); err != nil {
		return err
	}
	asked := in.AvailabilityZoneRebalancing
	if asked == "" && s.AvailabilityZoneRebalancing == string(api.AvailabilityZoneRebalancingEnabled) {
		asked = api.AvailabilityZoneRebalancingEnabled // it stays, and so forbids a maximum of 100
	}
	if s.AvailabilityZoneRebalancing, err = rebalancing(asked, string(api.AvailabilityZoneRebalancingDisabled), s.DeploymentConfiguration); err != nil {
		return err
	}
	old := *s
	if in.EnableExecuteCommand != nil {
		s.EnableExecuteCommand = *in.EnableExecuteCommand
	}
	if in.EnableECSManagedTags != nil {
		s.EnableECSManagedTags = *in.EnableECSManagedTags
	}
	if in.PropagateTags != "" {
		s.PropagateTags = string(in.PropagateTags)
	}
	if in.ServiceConnectConfiguration != nil {
		s.ServiceConnect = in.ServiceConnectConfiguration
	}
	if in.PlatformVersion != nil {
		s.PlatformVersion = cmp.Or(*in.PlatformVersion, platformLatest)
	}
	if in.NetworkConfiguration != nil {
		s.Network = storedNetwork(in.NetworkConfiguration)
	}
	if in.HealthCheckGracePeriodSeconds != nil {
		s.HealthCheckGracePeriod = in.HealthCheckGracePeriodSeconds
	}
	if in.DesiredCount != nil {
		s.DesiredCount = int(*in.DesiredCount)
	}
	if len(in.CapacityProviderStrategy) > 0 {
		cluster, err := e.activeCluster(tx, caller.Account, &s.Cluster)
		if err != nil {
			return err
		}
		on, err := e.serviceCompute(tx, cluster, "", in.CapacityProviderStrategy)
		if err != nil {
			return err
		}
		s.LaunchType, s.CapacityProviderStrategy = on.asked(), on.strategy
	}
	launch := state.LaunchOf(s.LaunchType, s.CapacityProviderStrategy)
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
		e.deploy(s, platform, now)
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
		case s.Status == statusActive && !val(in.Force) && len(s.Deployments) > 1:
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
	type counts struct{ running, pending int }
	var all counts
	by := map[string]counts{}
	for t := range state.Tasks.By(r, "service", s.ARN) {
		c := by[t.Deployment]
		switch {
		case t.LastStatus == state.Running:
			c.running++
			all.running++
		case isPending(t) && t.DesiredStatus == state.Running:
			c.pending++
			all.pending++
		}
		by[t.Deployment] = c
	}
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
	for i := range s.Deployments {
		d := &s.Deployments[i]
		c := by[d.ID]
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
