package ecs

import (
	"cmp"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// parts are what a service or a task set is made of besides its tasks. They are
// validated as AWS does, by check and fit, before refuse names what cannot be
// made true yet: who asks for something that is wrong learns that first.
type parts struct {
	loadBalancers []api.LoadBalancer
	registries    []api.ServiceRegistry
	strategy      []api.CapacityProviderStrategyItem
	launch        api.LaunchType
	volumes       []api.ServiceVolumeConfiguration
	lattice       []api.VpcLatticeConfiguration
	connect       *api.ServiceConnectConfiguration
	controller    *api.DeploymentController
	scheduling    api.SchedulingStrategy
	configuration *api.DeploymentConfiguration
	constraints   []api.PlacementConstraint
	placement     []api.PlacementStrategy
	gracePeriod   *int32
	fargate       bool // it runs on Fargate, which has nothing to choose from
}

func (p parts) external() bool {
	return p.controller != nil && p.controller.Type == api.DeploymentControllerTypeExternal
}

// check validates what needs no state.
func (p parts) check() error {
	if p.launch != "" && len(p.strategy) > 0 {
		return invalid("Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.")
	}
	if p.launch == api.LaunchTypeManagedInstances {
		return invalid("The launch type MANAGED_INSTANCES is only available through a capacity provider strategy.")
	}
	if c := p.controller; c != nil && p.scheduling == api.SchedulingStrategyDaemon && c.Type != api.DeploymentControllerTypeEcs {
		return invalid("The DAEMON scheduling strategy is not supported with the %s deployment controller.", c.Type)
	}
	if p.scheduling == api.SchedulingStrategyDaemon && len(p.placement) > 0 {
		return invalid("Placement strategies are not supported with the DAEMON scheduling strategy.")
	}
	if err := checkPlacement(p.constraints, p.placement); err != nil {
		return err
	}
	for i := range p.loadBalancers {
		if err := p.checkLoadBalancer(&p.loadBalancers[i]); err != nil {
			return err
		}
	}
	if len(p.registries) > 1 {
		return invalid("serviceRegistries can have at most 1 items.")
	}
	for i := range p.registries {
		if err := checkRegistry(&p.registries[i]); err != nil {
			return err
		}
	}
	if len(p.volumes) > 1 {
		return invalid("volumeConfigurations can have at most 1 items.")
	}
	if err := checkConnect(p.connect); err != nil {
		return err
	}
	if err := p.checkConfiguration(); err != nil {
		return err
	}
	switch {
	case val(p.gracePeriod) < 0:
		return invalid("healthCheckGracePeriodSeconds must be between 0 and 2147483647.")
	case val(p.gracePeriod) != 0 && len(p.loadBalancers) == 0 && !p.external():
		return invalid("Health check grace period is only valid for services configured to use load balancers")
	case p.controller != nil && p.controller.Type == api.DeploymentControllerTypeCodeDeploy && len(p.loadBalancers) == 0:
		return invalid("The CODE_DEPLOY deployment controller requires a load balancer.")
	}
	return nil
}

func (p parts) checkLoadBalancer(l *api.LoadBalancer) error {
	group, classic := val(l.TargetGroupArn), val(l.LoadBalancerName)
	switch {
	case group != "" && classic != "":
		return invalid("loadBalancerName and targetGroupArn cannot both be specified. You must specify either a loadBalancerName or a targetGroupArn.")
	case group == "" && classic == "":
		return invalid("You must specify either a loadBalancerName or a targetGroupArn.")
	case group != "" && !strings.Contains(group, ":targetgroup/"):
		return invalid("Unable to describe target group %s: it is not the ARN of a target group.", group)
	case val(l.ContainerName) == "":
		return invalid("Container name can not be blank.")
	case val(l.ContainerPort) < 1 || val(l.ContainerPort) > 65535:
		return invalid("Container port must be between 1 and 65535.")
	}
	rolling := p.configuration == nil || p.configuration.Strategy == "" || p.configuration.Strategy == api.DeploymentStrategyRolling
	switch a := l.AdvancedConfiguration; {
	case a == nil && !rolling:
		return invalid("advancedConfiguration is required for load balancers of services with the %s deployment strategy.", p.configuration.Strategy)
	case a == nil:
		return nil
	case val(a.AlternateTargetGroupArn) == "" || val(a.ProductionListenerRule) == "" || val(a.RoleArn) == "":
		return invalid("advancedConfiguration must have alternateTargetGroupArn, productionListenerRule and roleArn.")
	case *a.AlternateTargetGroupArn == group:
		return invalid("alternateTargetGroupArn must be another target group than targetGroupArn.")
	}
	return nil
}

func checkRegistry(r *api.ServiceRegistry) error {
	port := func(n *int32) bool { return n == nil || *n >= 1 && *n <= 65535 }
	switch {
	case val(r.RegistryArn) == "":
		return invalid("Service registry ARN can not be blank.")
	case !strings.Contains(*r.RegistryArn, ":servicediscovery:") || !strings.Contains(*r.RegistryArn, ":service/"):
		return invalid("Invalid service registry ARN: %s", *r.RegistryArn)
	case !port(r.Port) || !port(r.ContainerPort):
		return invalid("The ports of a service registry must be between 1 and 65535.")
	case (val(r.ContainerName) == "") != (r.ContainerPort == nil):
		return invalid("When specifying containerName or containerPort of a service registry, specify both.")
	case r.Port != nil && r.ContainerPort != nil:
		return invalid("Specify either port or containerName and containerPort for a service registry, not both.")
	}
	return nil
}

func checkConnect(c *api.ServiceConnectConfiguration) error {
	if c == nil {
		return nil
	}
	if !val(c.Enabled) {
		if len(c.Services) > 0 {
			return invalid("Service Connect services can only be specified when Service Connect is enabled.")
		}
		return nil
	}
	if c.Namespace != nil {
		if err := checkNamespace(*c.Namespace); err != nil {
			return err
		}
	}
	names := map[string]bool{}
	for _, s := range c.Services {
		name := cmp.Or(val(s.DiscoveryName), val(s.PortName))
		switch {
		case val(s.PortName) == "":
			return invalid("Service Connect portName can not be blank.")
		case names[name]:
			return invalid("Service Connect discoveryName %s is used more than once.", name)
		case len(s.ClientAliases) > 1:
			return invalid("clientAliases can have at most 1 items.")
		}
		names[name] = true
		for _, a := range s.ClientAliases {
			if val(a.Port) < 1 || val(a.Port) > 65535 {
				return invalid("The port of a Service Connect client alias must be between 1 and 65535.")
			}
		}
	}
	return nil
}

func (p parts) checkConfiguration() error {
	c := p.configuration
	if c == nil {
		return nil
	}
	between := func(n *int32, low, high int32) bool { return n == nil || *n >= low && *n <= high }
	strategy := cmp.Or(c.Strategy, api.DeploymentStrategyRolling)
	const day = 24 * 60
	switch {
	case strategy != api.DeploymentStrategyRolling && p.controller != nil && p.controller.Type != api.DeploymentControllerTypeEcs:
		return invalid("The deployment strategy %s is only supported with the ECS deployment controller.", strategy)
	case !between(c.BakeTimeInMinutes, 0, day):
		return invalid("bakeTimeInMinutes must be between 0 and %d.", day)
	case c.LinearConfiguration != nil && strategy != api.DeploymentStrategyLinear:
		return invalid("linearConfiguration is only supported with the LINEAR deployment strategy.")
	case c.CanaryConfiguration != nil && strategy != api.DeploymentStrategyCanary:
		return invalid("canaryConfiguration is only supported with the CANARY deployment strategy.")
	}
	if l := c.LinearConfiguration; l != nil {
		switch {
		case l.StepPercent != nil && !(*l.StepPercent >= 3 && *l.StepPercent <= 100):
			return invalid("stepPercent must be between 3.0 and 100.0.")
		case !between(l.StepBakeTimeInMinutes, 0, day):
			return invalid("stepBakeTimeInMinutes must be between 0 and %d.", day)
		}
	}
	if l := c.CanaryConfiguration; l != nil {
		switch {
		case l.CanaryPercent != nil && !(*l.CanaryPercent >= 0.1 && *l.CanaryPercent <= 100):
			return invalid("canaryPercent must be between 0.1 and 100.0.")
		case !between(l.CanaryBakeTimeInMinutes, 0, day):
			return invalid("canaryBakeTimeInMinutes must be between 0 and %d.", day)
		}
	}
	for _, h := range c.LifecycleHooks {
		pause := h.TargetType == api.DeploymentLifecycleHookTargetTypePause
		switch {
		case len(h.LifecycleStages) == 0:
			return invalid("A lifecycle hook must have at least one lifecycle stage.")
		case !pause && (val(h.HookTargetArn) == "" || val(h.RoleArn) == ""):
			return invalid("A lifecycle hook must have hookTargetArn and roleArn.")
		case pause && (slices.Contains(h.LifecycleStages, api.DeploymentLifecycleHookStageTestTrafficShift) ||
			slices.Contains(h.LifecycleStages, api.DeploymentLifecycleHookStageProductionTrafficShift)):
			return invalid("A PAUSE lifecycle hook is not supported at the TEST_TRAFFIC_SHIFT and PRODUCTION_TRAFFIC_SHIFT stages.")
		}
	}
	if a := c.Alarms; a != nil && val(a.Enable) && len(a.AlarmNames) == 0 {
		return invalid("At least one alarm name is required when deployment alarms are enabled.")
	}
	return nil
}

// fit validates the parts against the task definition and the account's quotas.
func (p parts) fit(r store.Reader, account string, d *api.TaskDefinition) error {
	if limit := state.Limit(r, account, "ecs/target-groups-per-service"); len(p.loadBalancers) > limit {
		return invalid("loadBalancers can have at most %d items.", limit)
	}
	port := func(container string, n int32) error {
		c := findContainer(d, container)
		if c == nil {
			return invalid("The container %s does not exist in the task definition.", container)
		}
		if !slices.ContainsFunc(c.PortMappings, func(m api.PortMapping) bool { return val(m.ContainerPort) == n }) {
			return invalid("The container %s did not have a container port %d defined.", container, n)
		}
		return nil
	}
	for _, l := range p.loadBalancers {
		if err := port(*l.ContainerName, *l.ContainerPort); err != nil {
			return err
		}
	}
	for _, s := range p.registries {
		if s.ContainerPort == nil {
			if s.Port == nil && d.NetworkMode != api.NetworkModeAwsvpc {
				return invalid("When specifying a service registry for a task definition with network mode '%s', containerName and containerPort are required.", d.NetworkMode)
			}
			continue
		}
		if err := port(*s.ContainerName, *s.ContainerPort); err != nil {
			return err
		}
	}
	named := func(name string) bool {
		return slices.ContainsFunc(d.ContainerDefinitions, func(c api.ContainerDefinition) bool {
			return slices.ContainsFunc(c.PortMappings, func(m api.PortMapping) bool { return val(m.Name) == name })
		})
	}
	if p.connect != nil {
		for _, s := range p.connect.Services {
			if !named(*s.PortName) {
				return invalid("The port name %s is not defined in the task definition.", *s.PortName)
			}
		}
	}
	for _, l := range p.lattice {
		if !named(val(l.PortName)) {
			return invalid("The port name %s is not defined in the task definition.", val(l.PortName))
		}
	}
	for _, v := range p.volumes {
		if !slices.ContainsFunc(d.Volumes, func(o api.Volume) bool { return val(o.Name) == val(v.Name) && val(o.ConfiguredAtLaunch) }) {
			return invalid("The volume %s is not configured at launch in the task definition.", val(v.Name))
		}
	}
	return nil
}

// refuse names the part that has no machinery yet.
func (p parts) refuse() error {
	switch {
	case len(p.loadBalancers) > 0:
		return unsupported("loadBalancers")
	case len(p.registries) > 0:
		return unsupported("serviceRegistries")
	case len(p.volumes) > 0:
		return unsupported("volumeConfigurations")
	case len(p.lattice) > 0:
		return unsupported("vpcLatticeConfigurations")
	case p.connect != nil && val(p.connect.Enabled):
		return unsupported("serviceConnectConfiguration")
	case p.controller != nil && p.controller.Type == api.DeploymentControllerTypeCodeDeploy:
		return unsupported("deploymentController CODE_DEPLOY")
	}
	if err := forFargate(p.fargate, p.constraints, p.placement); err != nil {
		return err
	}
	c := p.configuration
	if c == nil {
		return nil
	}
	switch {
	case c.Strategy != "" && c.Strategy != api.DeploymentStrategyRolling:
		return unsupported("deploymentConfiguration.strategy " + string(c.Strategy))
	case len(c.LifecycleHooks) > 0:
		return unsupported("deploymentConfiguration.lifecycleHooks")
	case val(c.BakeTimeInMinutes) != 0:
		return unsupported("deploymentConfiguration.bakeTimeInMinutes")
	case c.Alarms != nil && val(c.Alarms.Enable):
		return unsupported("deploymentConfiguration.alarms")
	}
	return nil
}

// givenOutsideTaskSets names a field of a CreateService that task sets have
// instead if the controller is EXTERNAL, "" if there is none.
func givenOutsideTaskSets(in *api.CreateServiceInput) string {
	for _, f := range []struct {
		name string
		is   bool
	}{
		{"taskDefinition", val(in.TaskDefinition) != ""}, {"launchType", in.LaunchType != ""},
		{"capacityProviderStrategy", len(in.CapacityProviderStrategy) > 0}, {"platformVersion", val(in.PlatformVersion) != ""},
		{"networkConfiguration", in.NetworkConfiguration != nil}, {"loadBalancers", len(in.LoadBalancers) > 0},
		{"serviceRegistries", len(in.ServiceRegistries) > 0}, {"serviceConnectConfiguration", in.ServiceConnectConfiguration != nil},
		{"volumeConfigurations", len(in.VolumeConfigurations) > 0}, {"vpcLatticeConfigurations", len(in.VpcLatticeConfigurations) > 0},
		{"role", val(in.Role) != ""},
	} {
		if f.is {
			return f.name
		}
	}
	return ""
}

// frozen refuses the fields of an UpdateService that the service's deployment
// controller does not let it change.
func frozen(controller *api.DeploymentController, in *api.UpdateServiceInput) error {
	kind := api.DeploymentControllerTypeEcs
	if controller != nil {
		kind = controller.Type
	}
	if c := in.DeploymentController; c != nil && c.Type != kind {
		if c.Type == api.DeploymentControllerTypeCodeDeploy {
			return unsupported("deploymentController CODE_DEPLOY")
		}
		return unsupported("changing the deploymentController of a service")
	}
	if kind != api.DeploymentControllerTypeExternal {
		return nil
	}
	for _, f := range []struct {
		what string
		is   bool
	}{
		{"task definition", in.TaskDefinition != nil}, {"network parameters", in.NetworkConfiguration != nil},
		{"platform version", in.PlatformVersion != nil}, {"capacity provider strategy", len(in.CapacityProviderStrategy) > 0},
		{"load balancers", len(in.LoadBalancers) > 0}, {"service registries", len(in.ServiceRegistries) > 0},
		{"Service Connect configuration", in.ServiceConnectConfiguration != nil}, {"volume configurations", len(in.VolumeConfigurations) > 0},
		{"VPC Lattice configurations", len(in.VpcLatticeConfigurations) > 0},
	} {
		if f.is {
			return invalid("Unable to update %s on services with an EXTERNAL deployment controller. Create a new task set instead.", f.what)
		}
	}
	if val(in.ForceNewDeployment) {
		return invalid("Cannot force a new deployment on services with an EXTERNAL deployment controller. Create a new task set instead.")
	}
	return nil
}
