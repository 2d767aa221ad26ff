package ecs

import (
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
	"github.com/google/go-cmp/cmp"
)

func (b *bench) createService(more string) *api.Service {
	b.t.Helper()
	return try(b, b.CreateService, read[api.CreateServiceInput](b.t, serviceInput(more))).Service
}

func serviceInput(more string) string {
	return `{"serviceName":"web","taskDefinition":"web","desiredCount":2,"launchType":"FARGATE","networkConfiguration":` + webNetwork + more + `}`
}

func (b *bench) updateService(body string) *api.Service {
	b.t.Helper()
	return try(b, b.UpdateService, read[api.UpdateServiceInput](b.t, body)).Service
}

// launch makes tasks of the service's primary deployment, as the deploy controller does.
func (b *bench) launch(n int, status string) {
	b.t.Helper()
	b.put(func(tx *store.Tx) {
		s, _ := state.Services.Get(tx, prefix+"service/default/web")
		c, _ := state.Clusters.Get(tx, s.Cluster)
		td, _ := state.TaskDefinitions.Get(tx, s.TaskDefinition)
		for range n {
			t := state.NewTask(state.TaskSpec{Region: "us-east-1", Account: account, Cluster: c, Definition: td, ID: b.cfg.NewID(), NewID: b.uuid,
				Service: s.ARN, Deployment: s.Deployments[0].ID, LaunchType: s.LaunchType, Network: s.Network.AwsvpcConfiguration, Now: b.time})
			t.Advance(status)
			state.Tasks.Put(tx, t)
		}
	})
}

const registry = "arn:aws:servicediscovery:us-east-1:" + account + ":service/srv-1"

func balancer(more string) string {
	return `{"targetGroupArn":"arn:aws:elasticloadbalancing:us-east-1:` + account + `:targetgroup/web/1",` + more + `}`
}

func TestCreateServiceRefuses(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.register(strings.Replace(webDefinition, `{"containerPort":80}`, `{"containerPort":80,"name":"http"}`, 1))
	try(b, b.DeregisterTaskDefinition, &api.DeregisterTaskDefinitionInput{TaskDefinition: new("web:1")})
	const ip = "InvalidParameterException: "
	no := func(f string) string { return ip + f + " is not supported by this version of Berth." }
	with := func(more string) string { return serviceInput("," + more) }
	base := func(fields string) string { return `{"serviceName":"web","taskDefinition":"web",` + fields + `}` }
	for _, c := range []struct{ in, want string }{
		{`{"serviceName":"a b"}`, ip + "Service name must be 1 to 255 letters, digits, underscores and hyphens."},
		{base(`"launchType":"FARGATE"`), ip + "The desired count must be specified with the REPLICA scheduling strategy."},
		{base(`"launchType":"FARGATE","desiredCount":5001`), ip + "The desired count must be between 0 and 5000."},
		{base(`"launchType":"FARGATE","schedulingStrategy":"DAEMON"`), ip + "The DAEMON scheduling strategy is not supported with the FARGATE launch type."},
		{base(`"schedulingStrategy":"DAEMON"`), ip + "Network Configuration must be provided when networkMode 'awsvpc' is specified."},
		{base(`"desiredCount":1`), ip + "Network Configuration must be provided when networkMode 'awsvpc' is specified."},
		{with(`"launchType":"EC2"`), ip + "Assign public IP is not supported for this launch type."},
		{base(`"desiredCount":1,"launchType":"EXTERNAL"`), no("launchType EXTERNAL")},
		{base(`"desiredCount":1,"launchType":"FARGATE"`), ip + "Network Configuration must be provided when networkMode 'awsvpc' is specified."},
		{base(`"desiredCount":1,"launchType":"FARGATE","capacityProviderStrategy":[{"capacityProvider":"x"}]`),
			ip + "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again."},
		{base(`"desiredCount":1,"capacityProviderStrategy":[{"capacityProvider":"x"}]`), ip + notAssociated},
		{base(`"launchType":"MANAGED_INSTANCES","desiredCount":1`), ip + "The launch type MANAGED_INSTANCES is only available through a capacity provider strategy."},
		{base(`"schedulingStrategy":"DAEMON","desiredCount":1`),
			ip + "The daemon scheduling strategy does not support a desired count for services. Remove a value for desired count and try again"},
		{base(`"schedulingStrategy":"DAEMON","deploymentController":{"type":"EXTERNAL"}`), ip + "taskDefinition cannot be specified for a service with an EXTERNAL deployment controller. Specify it for its task sets."},
		{`{"serviceName":"web","schedulingStrategy":"DAEMON","deploymentController":{"type":"EXTERNAL"}}`, ip + "The DAEMON scheduling strategy is not supported with the EXTERNAL deployment controller."},
		{with(`"loadBalancers":[` + balancer(`"containerName":"web","containerPort":80`) + `]`), no("loadBalancers")},
		{with(`"loadBalancers":[` + strings.Repeat(balancer(`"containerName":"web","containerPort":80`)+",", 5) + balancer(`"containerName":"web","containerPort":80`) + `]`), ip + "loadBalancers can have at most 5 items."},
		{with(`"loadBalancers":[{"containerName":"web","containerPort":80}]`), ip + "You must specify either a loadBalancerName or a targetGroupArn."},
		{with(`"loadBalancers":[` + balancer(`"loadBalancerName":"x"`) + `]`), ip + "loadBalancerName and targetGroupArn cannot both be specified. You must specify either a loadBalancerName or a targetGroupArn."},
		{with(`"loadBalancers":[` + balancer(`"containerPort":80`) + `]`), ip + "Container name can not be blank."},
		{with(`"loadBalancers":[` + balancer(`"containerName":"web"`) + `]`), ip + "Container port must be between 1 and 65535."},
		{with(`"loadBalancers":[` + balancer(`"containerName":"no","containerPort":80`) + `]`), ip + "The container no does not exist in the task definition."},
		{with(`"loadBalancers":[` + balancer(`"containerName":"web","containerPort":81`) + `]`), ip + "The container web did not have a container port 81 defined."},
		{with(`"loadBalancers":[` + balancer(`"containerName":"web","containerPort":80`) + `],"healthCheckGracePeriodSeconds":-1`), ip + "healthCheckGracePeriodSeconds must be between 0 and 2147483647."},
		{with(`"loadBalancers":[` + balancer(`"containerName":"web","containerPort":80`) + `],"deploymentConfiguration":{"strategy":"BLUE_GREEN"}`),
			ip + "advancedConfiguration is required for load balancers of services with the BLUE_GREEN deployment strategy."},
		{with(`"serviceRegistries":[{"registryArn":"` + registry + `"}]`), no("serviceRegistries")},
		{with(`"serviceRegistries":[{"registryArn":"` + registry + `"},{"registryArn":"` + registry + `"}]`), ip + "serviceRegistries can have at most 1 items."},
		{with(`"serviceRegistries":[{"registryArn":"x"}]`), ip + "Invalid service registry ARN: x"},
		{with(`"serviceRegistries":[{"registryArn":"` + registry + `","containerName":"web"}]`), ip + "When specifying containerName or containerPort of a service registry, specify both."},
		{with(`"serviceRegistries":[{"registryArn":"` + registry + `","containerName":"web","containerPort":81}]`), ip + "The container web did not have a container port 81 defined."},
		{with(`"volumeConfigurations":[{"name":"x"}]`), ip + "The volume x is not configured at launch in the task definition."},
		{with(`"volumeConfigurations":[{"name":"x"},{"name":"y"}]`), ip + "volumeConfigurations can have at most 1 items."},
		{with(`"vpcLatticeConfigurations":[{"roleArn":"x","portName":"http"}]`), no("vpcLatticeConfigurations")},
		{with(`"vpcLatticeConfigurations":[{"roleArn":"x","portName":"no"}]`), ip + "The port name no is not defined in the task definition."},
		{with(`"serviceConnectConfiguration":{"enabled":true}`), no("serviceConnectConfiguration")},
		{with(`"serviceConnectConfiguration":{"enabled":true,"services":[{"portName":"no"}]}`), ip + "The port name no is not defined in the task definition."},
		{with(`"serviceConnectConfiguration":{"enabled":true,"namespace":"arn:aws:ecs:x"}`), ip + "Invalid namespace ARN: arn:aws:ecs:x"},
		{with(`"deploymentController":{"type":"EXTERNAL"}`), ip + "taskDefinition cannot be specified for a service with an EXTERNAL deployment controller. Specify it for its task sets."},
		{with(`"deploymentController":{"type":"CODE_DEPLOY"}`), ip + "The CODE_DEPLOY deployment controller requires a load balancer."},
		{with(`"deploymentConfiguration":{"strategy":"BLUE_GREEN"}`), no("deploymentConfiguration.strategy BLUE_GREEN")},
		{with(`"deploymentConfiguration":{"alarms":{"alarmNames":["a"],"enable":true,"rollback":false}}`), no("deploymentConfiguration.alarms")},
		{with(`"deploymentConfiguration":{"lifecycleHooks":[{}]}`), ip + "A lifecycle hook must have at least one lifecycle stage."},
		{with(`"deploymentConfiguration":{"lifecycleHooks":[{"targetType":"PAUSE","lifecycleStages":["TEST_TRAFFIC_SHIFT"]}]}`), ip + "A PAUSE lifecycle hook is not supported at the TEST_TRAFFIC_SHIFT and PRODUCTION_TRAFFIC_SHIFT stages."},
		{with(`"deploymentConfiguration":{"lifecycleHooks":[{"targetType":"PAUSE","lifecycleStages":["POST_SCALE_UP"]}]}`), no("deploymentConfiguration.lifecycleHooks")},
		{with(`"deploymentConfiguration":{"strategy":"LINEAR","linearConfiguration":{"stepPercent":2.9}}`), ip + "stepPercent must be between 3.0 and 100.0."},
		{with(`"deploymentConfiguration":{"strategy":"LINEAR","linearConfiguration":{"stepPercent":20}}`), no("deploymentConfiguration.strategy LINEAR")},
		{with(`"deploymentConfiguration":{"canaryConfiguration":{"canaryPercent":5}}`), ip + "canaryConfiguration is only supported with the CANARY deployment strategy."},
		{with(`"deploymentConfiguration":{"strategy":"CANARY","canaryConfiguration":{"canaryPercent":0}}`), ip + "canaryPercent must be between 0.1 and 100.0."},
		{with(`"deploymentConfiguration":{"bakeTimeInMinutes":1441}`), ip + "bakeTimeInMinutes must be between 0 and 1440."},
		{with(`"deploymentConfiguration":{"bakeTimeInMinutes":5}`), no("deploymentConfiguration.bakeTimeInMinutes")},
		{with(`"deploymentConfiguration":{"maximumPercent":100}`), ip + "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments."},
		{with(`"deploymentConfiguration":{"minimumHealthyPercent":101}`), ip + "minimumHealthyPercent must be between 0 and 100."},
		{with(`"deploymentConfiguration":{"maximumPercent":100,"minimumHealthyPercent":50},"availabilityZoneRebalancing":"ENABLED"`), ip + "Availability Zone Rebalancing does not support maximumPercent <= 100%"},
		{with(`"placementStrategy":[{"type":"random"}]`), ip + "Placement strategies are not supported with FARGATE launch type."},
		{with(`"placementConstraints":[{"type":"distinctInstance"}]`), ip + "Placement constraints are not supported with FARGATE launch type."},
		{base(`"desiredCount":1,"placementStrategy":[{"type":"spread","field":"zone"}]`), ip + "Invalid field of the placement strategy spread: 'zone'. It must be instanceId, host or attribute:<name>."},
		{base(`"desiredCount":1,"placementStrategy":[{"type":"binpack","field":"disk"}]`), ip + "Invalid field of the placement strategy binpack: 'disk'. It must be cpu or memory."},
		{base(`"desiredCount":1,"placementStrategy":[{"type":"random","field":"x"}]`), ip + "The placement strategy random has no field."},
		{base(`"desiredCount":1,"placementStrategy":[` + strings.Repeat(`{"type":"random"},`, 5) + `{"type":"random"}]`), ip + "placementStrategy can have at most 5 items."},
		{base(`"desiredCount":1,"placementConstraints":[{"type":"memberOf","expression":"x"}]`), ip + `Invalid expression: unknown subject "x".`},
		{base(`"desiredCount":1,"placementConstraints":[{"type":"distinctInstance","expression":"x"}]`), ip + "The placement constraint distinctInstance has no expression."},
		{base(`"desiredCount":1,"placementConstraints":[` + strings.Repeat(`{"type":"distinctInstance"},`, 10) + `{"type":"distinctInstance"}]`), ip + "placementConstraints can have at most 10 items."},
		{base(`"schedulingStrategy":"DAEMON","placementStrategy":[{"type":"random"}]`), ip + "Placement strategies are not supported with the DAEMON scheduling strategy."},
		{base(`"schedulingStrategy":"DAEMON","availabilityZoneRebalancing":"ENABLED"`), ip + "Availability Zone Rebalancing does not support the DAEMON scheduling strategy"},
		{base(`"desiredCount":1,"availabilityZoneRebalancing":"ENABLED","placementStrategy":[{"type":"random"}]`),
			ip + "Availability Zone Rebalancing does not support a placement strategy that does not begin with spread on attribute:ecs.availability-zone"},
		{with(`"healthCheckGracePeriodSeconds":5`), ip + "Health check grace period is only valid for services configured to use load balancers"},
		{with(`"role":"x"`), ip + "You cannot specify an IAM role for services that require a service linked role."},
		{with(`"platformVersion":"0.1"`), "PlatformUnknownException: The specified platform version does not exist."},
		{with(`"cluster":"none"`), "ClusterNotFoundException: Cluster not found."},
		{with(`"enableExecuteCommand":true`), ip + "The service couldn't be created because a valid taskRoleArn is not being used. Specify a valid task role in your task definition and try again."},
		{strings.Replace(serviceInput(""), `"taskDefinition":"web"`, `"taskDefinition":"web:1"`, 1), "ClientException: TaskDefinition is inactive"},
		{strings.Replace(serviceInput(""), `"taskDefinition":"web"`, `"taskDefinition":"nope"`, 1), "ClientException: TaskDefinition not found."},
	} {
		refuse(b, b.CreateService, read[api.CreateServiceInput](t, c.in), c.want)
	}
	if n := state.Services.Count(b.db.Snapshot()); n != 0 {
		t.Errorf("refused requests left %d services", n)
	}
}

func TestCreateService(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	s := b.createService(`,"tags":[{"key":"k","value":"v"}],"propagateTags":"SERVICE","enableECSManagedTags":true,
		"deploymentConfiguration":{"deploymentCircuitBreaker":{"enable":true,"rollback":true},"minimumHealthyPercent":50}`)
	want := read[api.DeploymentConfiguration](t, `{"deploymentCircuitBreaker":{"enable":true,"rollback":true},"maximumPercent":200,"minimumHealthyPercent":50,"strategy":"ROLLING","bakeTimeInMinutes":0}`)
	if d := cmp.Diff(want, s.DeploymentConfiguration); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	d := s.Deployments[0]
	if len(s.Deployments) != 1 || *d.Status != "PRIMARY" || d.RolloutState != "IN_PROGRESS" || *d.DesiredCount != 2 || len(*d.Id) != len("ecs-svc/")+19 ||
		*d.RolloutStateReason != "ECS deployment "+*d.Id+" in progress." || *d.PlatformVersion != "1.4.0" {
		t.Errorf("deployment: %s", pretty(s.Deployments))
	}
	if *s.Status != "ACTIVE" || *s.PlatformVersion != "LATEST" || s.SchedulingStrategy != "REPLICA" || s.PropagateTags != "SERVICE" || s.AvailabilityZoneRebalancing != "ENABLED" ||
		*s.CreatedBy != "arn:aws:iam::"+account+":user/ann" || s.Events == nil || s.LoadBalancers == nil || *s.TaskDefinition != prefix+"task-definition/web:1" {
		t.Errorf("service: %s", pretty(s))
	}
	if again := b.createService(`,"tags":[{"key":"k","value":"v"}],"propagateTags":"SERVICE","enableECSManagedTags":true,
		"deploymentConfiguration":{"deploymentCircuitBreaker":{"enable":true,"rollback":true},"minimumHealthyPercent":50}`); *again.Deployments[0].Id != *d.Id {
		t.Error("the same request started another deployment")
	}
	refuse(b, b.CreateService, read[api.CreateServiceInput](t, serviceInput("")), "InvalidParameterException: Creation of service was not idempotent.")

	b.launch(2, state.Running)
	b.launch(1, state.Pending)
	got := try(b, b.DescribeServices, &api.DescribeServicesInput{Services: []string{"web", "none"}})
	if s := got.Services[0]; *s.RunningCount != 2 || *s.PendingCount != 1 || *s.Deployments[0].RunningCount != 2 || *s.Deployments[0].PendingCount != 1 || len(s.Tags) != 0 {
		t.Errorf("%s", pretty(s))
	}
	if f := got.Failures[0]; *f.Reason != "MISSING" || *f.Arn != prefix+"service/default/none" {
		t.Errorf("%s", pretty(f))
	}
	if got := try(b, b.ListTasks, &api.ListTasksInput{ServiceName: new("web")}).TaskArns; len(got) != 3 {
		t.Errorf("tasks of the service: %v", got)
	}
	refuse(b, b.ListTasks, &api.ListTasksInput{ServiceName: new("none")}, "ServiceNotFoundException: Service not found.")
}

func TestUpdateService(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.createService("")
	count := func(s *api.Service) int { return len(s.Deployments) }
	for _, body := range []string{
		`{"service":"web","desiredCount":3}`, `{"service":"web","taskDefinition":"web:1"}`, `{"service":"web","platformVersion":"1.4.0"}`,
		`{"service":"web","networkConfiguration":` + webNetwork + `}`, `{"service":"web","propagateTags":"SERVICE"}`,
		`{"service":"web","deploymentConfiguration":{"maximumPercent":150}}`, `{"service":"web","loadBalancers":[]}`,
	} {
		if s := b.updateService(body); count(s) != 1 {
			t.Errorf("%s started a deployment", body)
		}
	}
	s := try(b, b.DescribeServices, &api.DescribeServicesInput{Services: []string{"web"}}).Services[0]
	if *s.DesiredCount != 3 || *s.Deployments[0].DesiredCount != 3 || *s.DeploymentConfiguration.MaximumPercent != 150 || *s.DeploymentConfiguration.MinimumHealthyPercent != 100 || s.PropagateTags != "SERVICE" {
		t.Errorf("%s", pretty(s))
	}
	b.register(webDefinition)
	b.put(func(tx *store.Tx) {
		old, _ := state.Services.Get(tx, prefix+"service/default/web")
		n := old.Clone()
		n.Impaired, n.NextStart = 4, b.time.Add(time.Hour)
		state.Services.Put(tx, n)
	})
	b.time = b.time.Add(time.Minute)
	up := b.updateService(`{"service":"web","taskDefinition":"web"}`)
	if count(up) != 2 || *up.Deployments[0].TaskDefinition != prefix+"task-definition/web:2" || *up.Deployments[0].Status != "PRIMARY" || *up.Deployments[1].Status != "ACTIVE" {
		t.Errorf("new revision: %s", pretty(up.Deployments))
	}
	if st, _ := state.Services.Get(b.db.Snapshot(), *up.ServiceArn); st.Impaired != 0 || !st.NextStart.IsZero() {
		t.Error("a new revision did not reset the start throttle")
	}
	for i, body := range []string{
		`{"service":"web","forceNewDeployment":true}`,
		`{"service":"web","networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-2"]}}}`,
	} {
		if s := b.updateService(body); count(s) != 3+i {
			t.Errorf("%s started no deployment", body)
		}
	}
	// A revision that became inactive goes on, but cannot be chosen anew.
	try(b, b.DeregisterTaskDefinition, &api.DeregisterTaskDefinitionInput{TaskDefinition: new("web:2")})
	b.updateService(`{"service":"web","forceNewDeployment":true}`)
	try(b, b.DeregisterTaskDefinition, &api.DeregisterTaskDefinitionInput{TaskDefinition: new("web:1")})
	const ip = "InvalidParameterException: "
	for body, want := range map[string]string{
		`{"service":"none"}`:                         "ServiceNotFoundException: Service not found.",
		`{"service":"web","desiredCount":-1}`:        ip + "The desired count must be between 0 and 5000.",
		`{"service":"web","taskDefinition":"web:1"}`: "ClientException: TaskDefinition is inactive",
		`{"service":"web","taskDefinition":"nope"}`:  "ClientException: TaskDefinition not found.",
		`{"service":"web","loadBalancers":[` + balancer(`"containerName":"web","containerPort":80`) + `]}`: ip + "loadBalancers is not supported by this version of Berth.",
		`{"service":"web","deploymentController":{"type":"EXTERNAL"}}`:                                     ip + "changing the deploymentController of a service is not supported by this version of Berth.",
		`{"service":"web","deploymentConfiguration":{"maximumPercent":100}}`:                               ip + "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.",
		`{"service":"web","deploymentController":{"type":"CODE_DEPLOY"}}`:                                  ip + "deploymentController CODE_DEPLOY is not supported by this version of Berth.",
		`{"service":"web","networkConfiguration":{"awsvpcConfiguration":{"subnets":[]}}}`:                  ip + "subnets can not be empty.",
	} {
		refuse(b, b.UpdateService, read[api.UpdateServiceInput](t, body), want)
	}
}

func TestDeleteService(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.createService("")
	web := func() *api.DeleteServiceInput { return &api.DeleteServiceInput{Service: new("web")} }
	refuse(b, b.DeleteService, web(), "InvalidParameterException: The service cannot be stopped while it is scaled above 0.")
	b.updateService(`{"service":"web","desiredCount":0,"forceNewDeployment":true}`)
	refuse(b, b.DeleteService, web(), "InvalidParameterException: The service cannot be stopped while deployments are active.")
	s := try(b, b.DeleteService, &api.DeleteServiceInput{Service: new("web"), Force: new(true)}).Service
	if *s.Status != "DRAINING" || *s.DesiredCount != 0 {
		t.Errorf("%s", pretty(s))
	}
	try(b, b.DeleteService, web())
	if got := try(b, b.ListServices, &api.ListServicesInput{}).ServiceArns; len(got) != 0 {
		t.Errorf("a draining service is listed: %v", got)
	}
	refuse(b, b.UpdateService, &api.UpdateServiceInput{Service: new("web")}, "ServiceNotActiveException: Service was not ACTIVE.")
	refuse(b, b.CreateService, read[api.CreateServiceInput](t, serviceInput("")), "InvalidParameterException: Unable to Start a service that is still Draining.")
	_, err := b.DeleteCluster(b.ctx, &api.DeleteClusterInput{Cluster: new("default")})
	wantError(t, err, "ClusterContainsServicesException: The Cluster cannot be deleted while Services are active.")

	b.put(func(tx *store.Tx) {
		old, _ := state.Services.Get(tx, *s.ServiceArn)
		n := old.Clone()
		n.Status, n.Deployments = statusInactive, nil
		state.Services.Put(tx, n)
		state.Events.Put(tx, &state.ServiceEvents{Service: n.ARN, Events: []state.ServiceEvent{{ID: "e", Message: "old", At: b.time}}})
	})
	got := try(b, b.DescribeServices, &api.DescribeServicesInput{Services: []string{"web"}}).Services
	if len(got) != 1 || *got[0].Status != "INACTIVE" || *got[0].Events[0].Message != "old" {
		t.Errorf("%s", pretty(got))
	}
	refuse(b, b.DeleteService, web(), "ServiceNotFoundException: Service not found.")
	if s := b.createService(""); *s.Status != "ACTIVE" || len(s.Events) != 0 {
		t.Errorf("a free name: %s", pretty(s))
	}
}

func TestListServicesPages(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	for _, n := range strings.Split("abcdefghijkl", "") {
		try(b, b.CreateService, read[api.CreateServiceInput](t, strings.Replace(serviceInput(""), `"serviceName":"web"`, `"serviceName":"`+n+`"`, 1)))
	}
	first := try(b, b.ListServices, &api.ListServicesInput{})
	rest := try(b, b.ListServices, &api.ListServicesInput{NextToken: first.NextToken, MaxResults: new(int32(100))})
	if len(first.ServiceArns) != 10 || len(rest.ServiceArns) != 2 || rest.NextToken != nil || !slices.IsSorted(append(first.ServiceArns, rest.ServiceArns...)) {
		t.Errorf("%v then %v", first.ServiceArns, rest.ServiceArns)
	}
}
