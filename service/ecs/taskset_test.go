package ecs

import (
	"strings"
	"testing"
	"time"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// newExternal is a bench with a service that has no task sets yet.
func newExternal(t *testing.T, desired string) *bench {
	b := newBench(t)
	b.register(webDefinition)
	s := try(b, b.CreateService, read[api.CreateServiceInput](t, `{"serviceName":"web","deploymentController":{"type":"EXTERNAL"},"desiredCount":`+desired+`,
		"propagateTags":"TASK_DEFINITION","enableECSManagedTags":true,"healthCheckGracePeriodSeconds":5}`)).Service
	if s.DeploymentController.Type != "EXTERNAL" || len(s.Deployments) != 0 || s.TaskDefinition != nil || s.LaunchType != "" || s.PlatformVersion != nil ||
		s.CurrentServiceDeployment != nil || s.AvailabilityZoneRebalancing != "DISABLED" || *s.HealthCheckGracePeriodSeconds != 5 || s.TaskSets == nil {
		t.Fatalf("%s", pretty(s))
	}
	return b
}

func setInput(more string) string {
	return `{"cluster":"default","service":"web","taskDefinition":"web","launchType":"FARGATE","networkConfiguration":` + webNetwork + more + `}`
}

func (b *bench) createSet(more string) *api.TaskSet {
	b.t.Helper()
	return try(b, b.CreateTaskSet, read[api.CreateTaskSetInput](b.t, setInput(more))).TaskSet
}

func (b *bench) set(id string) api.TaskSet {
	b.t.Helper()
	out := try(b, b.DescribeTaskSets, &api.DescribeTaskSetsInput{Cluster: new("default"), Service: new("web"), TaskSets: []string{id}, Include: []api.TaskSetField{"TAGS"}})
	if len(out.TaskSets) != 1 {
		b.t.Fatalf("%s: %s", id, pretty(out))
	}
	return out.TaskSets[0]
}

func TestTaskSets(t *testing.T) {
	b := newExternal(t, "3")
	blue := b.createSet(`,"externalId":"blue","scale":{"value":50,"unit":"PERCENT"},"tags":[{"key":"k","value":"v"}]`)
	if *blue.Status != "ACTIVE" || *blue.ComputedDesiredCount != 2 || blue.StabilityStatus != "STABILIZING" || *blue.ExternalId != "blue" ||
		*blue.TaskSetArn != prefix+"task-set/default/web/"+*blue.Id || len(blue.Tags) != 1 || *blue.PlatformVersion != "1.4.0" {
		t.Errorf("%s", pretty(blue))
	}
	b.play(2, nil)
	if s := b.set(*blue.Id); *s.RunningCount != 2 || s.StabilityStatus != "STEADY_STATE" || !s.StabilityStatusAt.After(*s.CreatedAt) {
		t.Errorf("%s", pretty(s))
	}
	arn := try(b, b.ListTasks, &api.ListTasksInput{ServiceName: new("web")}).TaskArns[0]
	task := b.describe(arn)
	if *task.StartedBy != *blue.Id || *task.Group != "service:web" || len(b.task(arn).Tags) != 2 {
		t.Errorf("%s, tags %v", pretty(task), b.task(arn).Tags)
	}
	green := b.createSet("")
	if *green.ComputedDesiredCount != 0 || *green.Scale.Value != 0 {
		t.Errorf("a set without scale: %s", pretty(green))
	}
	b.time = b.time.Add(time.Minute)
	up := try(b, b.UpdateTaskSet, &api.UpdateTaskSetInput{Cluster: new("default"), Service: new("web"), TaskSet: green.TaskSetArn, Scale: &api.Scale{Value: new(100.0), Unit: "PERCENT"}}).TaskSet
	if *up.ComputedDesiredCount != 3 || up.StabilityStatus != "STABILIZING" || !up.UpdatedAt.Equal(b.time) {
		t.Errorf("%s", pretty(up))
	}
	b.play(2, nil)
	primary := try(b, b.UpdateServicePrimaryTaskSet, &api.UpdateServicePrimaryTaskSetInput{Cluster: new("default"), Service: new("web"), PrimaryTaskSet: green.Id}).TaskSet
	if *primary.Status != "PRIMARY" {
		t.Errorf("%s", pretty(primary))
	}
	try(b, b.UpdateServicePrimaryTaskSet, &api.UpdateServicePrimaryTaskSetInput{Cluster: new("default"), Service: new("web"), PrimaryTaskSet: blue.Id})
	if got := *b.set(*green.Id).Status; got != "ACTIVE" {
		t.Errorf("the former primary is %s", got)
	}
	s := b.web()
	if *s.RunningCount != 5 || len(s.TaskSets) != 2 || *s.TaskSets[0].Id != *blue.Id || *s.TaskDefinition != prefix+"task-definition/web:1" || s.LaunchType != "FARGATE" {
		t.Errorf("%s", pretty(s))
	}

	// The service's count moves every set, and the set says so at once.
	b.updateService(`{"service":"web","desiredCount":4}`)
	if got := b.set(*green.Id); *got.ComputedDesiredCount != 4 || got.StabilityStatus != "STABILIZING" {
		t.Errorf("%s", pretty(got))
	}
	if got := b.set(*blue.Id); *got.ComputedDesiredCount != 2 || got.StabilityStatus != "STEADY_STATE" {
		t.Errorf("%s", pretty(got))
	}
	b.play(2, nil)

	del := &api.DeleteTaskSetInput{Cluster: new("default"), Service: new("web"), TaskSet: blue.Id}
	refuse(b, b.DeleteTaskSet, del, "InvalidParameterException: The task set cannot be deleted while it is scaled above 0.")
	del.Force = new(true)
	if gone := try(b, b.DeleteTaskSet, del).TaskSet; *gone.Status != "DRAINING" || *gone.ComputedDesiredCount != 0 {
		t.Errorf("%s", pretty(gone))
	}
	refuse(b, b.UpdateTaskSet, &api.UpdateTaskSetInput{Cluster: new("default"), Service: new("web"), TaskSet: blue.Id, Scale: &api.Scale{Value: new(1.0)}},
		"InvalidParameterException: The task set cannot be updated because it is DRAINING.")
	b.play(3, nil)
	out := try(b, b.DescribeTaskSets, &api.DescribeTaskSetsInput{Cluster: new("default"), Service: new("web"), TaskSets: []string{*blue.Id, *green.Id}})
	if len(out.TaskSets) != 1 || len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" || *out.TaskSets[0].RunningCount != 4 {
		t.Errorf("%s", pretty(out))
	}
	refuse(b, b.DeleteTaskSet, del, "TaskSetNotFoundException: Task set not found.")
	if n := len(try(b, b.DescribeTaskSets, &api.DescribeTaskSetsInput{Cluster: new("default"), Service: new("web")}).TaskSets); n != 1 {
		t.Errorf("%d task sets", n)
	}

	// All goes with the service.
	refuse(b, b.DeleteService, &api.DeleteServiceInput{Service: new("web")}, "InvalidParameterException: The service cannot be stopped while it is scaled above 0.")
	b.updateService(`{"service":"web","desiredCount":0}`)
	refuse(b, b.DeleteService, &api.DeleteServiceInput{Service: new("web")}, "InvalidParameterException: The service cannot be stopped while deployments are active.")
	try(b, b.DeleteService, &api.DeleteServiceInput{Service: new("web"), Force: new(true)})
	b.play(3, nil)
	if s := b.web(); *s.Status != "INACTIVE" || state.TaskSets.Count(b.db.Snapshot()) != 0 {
		t.Errorf("%s, %d task sets", *s.Status, state.TaskSets.Count(b.db.Snapshot()))
	}
}

func TestTaskSetRefuses(t *testing.T) {
	b := newExternal(t, "1")
	set := b.createSet(`,"clientToken":"one"`)
	if again := b.createSet(`,"clientToken":"one"`); *again.Id != *set.Id || state.TaskSets.Count(b.db.Snapshot()) != 1 {
		t.Errorf("the same request made another set: %s", pretty(again))
	}
	const ip = "InvalidParameterException: "
	no := func(f string) string { return ip + f + " is not supported by this version of Berth." }
	for in, want := range map[string]string{
		setInput(`,"clientToken":"one","externalId":"x"`):                                                          ip + "Creation of task set was not idempotent.",
		setInput(`,"scale":{"value":101}`):                                                                         ip + "Scale value must be between 0 and 100.",
		setInput(`,"scale":{"value":-1}`):                                                                          ip + "Scale value must be between 0 and 100.",
		setInput(`,"loadBalancers":[` + balancer(`"containerName":"web","containerPort":80`) + `]`):                no("loadBalancers"),
		setInput(`,"serviceRegistries":[{"registryArn":"` + registry + `"}]`):                                      no("serviceRegistries"),
		setInput(`,"capacityProviderStrategy":[{"capacityProvider":"x"}]`):                                         ip + "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
		strings.Replace(setInput(""), `"taskDefinition":"web"`, `"taskDefinition":"nope"`, 1):                      "ClientException: TaskDefinition not found.",
		strings.Replace(setInput(""), `"service":"web"`, `"service":"nope"`, 1):                                    "ServiceNotFoundException: Service not found.",
		strings.Replace(setInput(""), `"cluster":"default"`, `"cluster":"nope"`, 1):                                "ClusterNotFoundException: Cluster not found.",
		strings.Replace(setInput(""), `"launchType":"FARGATE"`, `"launchType":"FARGATE","platformVersion":"0"`, 1): "PlatformUnknownException: The specified platform version does not exist.",
		strings.Replace(setInput(""), `,"networkConfiguration":`+webNetwork, "", 1):                                ip + "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
		strings.Replace(setInput(""), `"launchType":"FARGATE",`, "", 1):                                            ip + "Assign public IP is not supported for this launch type.",
	} {
		refuse(b, b.CreateTaskSet, read[api.CreateTaskSetInput](t, in), want)
	}
	for range 4 {
		b.createSet("")
	}
	refuse(b, b.CreateTaskSet, read[api.CreateTaskSetInput](t, setInput("")), "LimitExceededException: The service already has the maximum number of task sets.")
	refuse(b, b.DescribeTaskSets, &api.DescribeTaskSetsInput{Cluster: new("default"), Service: new("web"), TaskSets: []string{"x"}}, ip+"Invalid identifier: x")
	refuse(b, b.UpdateServicePrimaryTaskSet, &api.UpdateServicePrimaryTaskSetInput{Cluster: new("default"), Service: new("web"), PrimaryTaskSet: new("ecs-svc/1")}, "TaskSetNotFoundException: Task set not found.")
	for body, want := range map[string]string{
		`{"service":"web","taskDefinition":"web"}`:                              "Unable to update task definition on services with an EXTERNAL deployment controller. Create a new task set instead.",
		`{"service":"web","networkConfiguration":` + webNetwork + `}`:           "Unable to update network parameters on services with an EXTERNAL deployment controller. Create a new task set instead.",
		`{"service":"web","forceNewDeployment":true}`:                           "Cannot force a new deployment on services with an EXTERNAL deployment controller. Create a new task set instead.",
		`{"service":"web","availabilityZoneRebalancing":"ENABLED"}`:             "Availability Zone Rebalancing is not supported with the EXTERNAL deployment controller.",
		`{"service":"web","placementStrategy":[{"type":"binpack"}]}`:            "Invalid field of the placement strategy binpack: ''. It must be cpu or memory.",
		`{"service":"web","deploymentController":{"type":"ECS"}}`:               "changing the deploymentController of a service is not supported by this version of Berth.",
		`{"service":"web","deploymentConfiguration":{"strategy":"BLUE_GREEN"}}`: "The deployment strategy BLUE_GREEN is only supported with the ECS deployment controller.",
	} {
		refuse(b, b.UpdateService, read[api.UpdateServiceInput](t, body), ip+want)
	}
	b.updateService(`{"service":"web","deploymentController":{"type":"EXTERNAL"},"healthCheckGracePeriodSeconds":9,"propagateTags":"NONE","placementStrategy":[{"type":"random"}]}`)
	if s := b.web(); len(s.PlacementStrategy) != 1 || *s.HealthCheckGracePeriodSeconds != 9 || s.PropagateTags != "NONE" {
		t.Errorf("%s", pretty(s))
	}

	rolling := newBench(t)
	rolling.register(webDefinition)
	rolling.createService("")
	refuse(rolling, rolling.CreateTaskSet, read[api.CreateTaskSetInput](t, setInput("")), ip+"Task sets can only be managed for services with an EXTERNAL deployment controller.")
	try(rolling, rolling.DeleteService, &api.DeleteServiceInput{Service: new("web"), Force: new(true)})
	refuse(rolling, rolling.DescribeTaskSets, &api.DescribeTaskSetsInput{Cluster: new("default"), Service: new("web")}, "ServiceNotActiveException: Service was not ACTIVE.")
}

// Whatever becomes the primary task set, there is one.
func TestOnePrimaryTaskSet(t *testing.T) {
	b := newExternal(t, "1")
	for range 3 {
		id := b.createSet("").Id
		try(b, b.UpdateServicePrimaryTaskSet, &api.UpdateServicePrimaryTaskSetInput{Cluster: new("default"), Service: new("web"), PrimaryTaskSet: id})
	}
	primaries := 0
	for s := range state.TaskSets.All(b.db.Snapshot()) {
		if s.Status == "PRIMARY" {
			primaries++
		}
	}
	if primaries != 1 {
		t.Errorf("%d primary task sets", primaries)
	}
}

func TestTaskSetTags(t *testing.T) {
	b := newExternal(t, "1")
	arn := b.createSet("").TaskSetArn
	try(b, b.TagResource, &api.TagResourceInput{ResourceArn: arn, Tags: []api.Tag{{Key: new("k"), Value: new("v")}}})
	if tags := try(b, b.ListTagsForResource, &api.ListTagsForResourceInput{ResourceArn: arn}).Tags; len(tags) != 1 || *tags[0].Value != "v" {
		t.Errorf("%s", pretty(tags))
	}
}

// Protected tasks of a set outlast its scaling in, not its deletion.
func TestTaskSetProtection(t *testing.T) {
	b := newExternal(t, "2")
	set := b.createSet(`,"scale":{"value":100}`)
	b.play(2, nil)
	b.put(func(tx *store.Tx) {
		for old := range state.Tasks.All(tx) {
			n := old.Clone()
			n.ProtectedUntil = b.time.Add(time.Hour)
			state.Tasks.Put(tx, n)
		}
	})
	try(b, b.UpdateTaskSet, &api.UpdateTaskSetInput{Cluster: new("default"), Service: new("web"), TaskSet: set.Id, Scale: &api.Scale{Value: new(50.0)}})
	b.play(2, nil)
	if s := b.set(*set.Id); *s.RunningCount != 2 || s.StabilityStatus != "STABILIZING" {
		t.Errorf("%s", pretty(s))
	}
	want := "(service web) was unable to reach steady state because (taskSet " + *set.Id + ") was unable to scale in due to (reason 1 tasks under protection)"
	if got := *b.web().Events[0].Message; got != want {
		t.Errorf("%q", got)
	}
	try(b, b.DeleteTaskSet, &api.DeleteTaskSetInput{Cluster: new("default"), Service: new("web"), TaskSet: set.Id, Force: new(true)})
	b.play(3, nil)
	if n := state.TaskSets.Count(b.db.Snapshot()); n != 0 {
		t.Errorf("%d task sets left", n)
	}
}

func FuzzTaskSetReference(f *testing.F) {
	const service = prefix + "service/default/web"
	for _, s := range []string{"ecs-svc/1", prefix + "task-set/default/web/ecs-svc/1", "ecs-svc/", "ecs-svc/x", prefix + "task-set/default/other/ecs-svc/1", "", "1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		arn, err := taskSetARN(service, s)
		if err != nil {
			return
		}
		again, err := taskSetARN(service, arn)
		if err != nil || again != arn || !strings.HasPrefix(arn, prefix+"task-set/default/web/ecs-svc/") {
			t.Errorf("%q is %q, which is %q: %v", s, arn, again, err)
		}
	})
}

func FuzzNamespace(f *testing.F) {
	for _, s := range []string{"prod", "", "arn:aws:servicediscovery:r:1:namespace/ns-1", "arn:", "arn:aws:servicediscovery:r:1:namespace/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkNamespace(s) == nil && (s == "" || isARN(s) && !strings.Contains(s, ":namespace/")) {
			t.Errorf("%q is taken for a namespace", s)
		}
	})
}

// A task set takes a strategy as a service does, and keeps the images that its
// first task resolved.
func TestTaskSetByStrategy(t *testing.T) {
	b := newExternal(t, "4")
	b.putProviders(`"FARGATE","FARGATE_SPOT"`, "")
	create := func(strategy string) *api.CreateTaskSetInput {
		return read[api.CreateTaskSetInput](t, `{"cluster":"default","service":"web","taskDefinition":"web","scale":{"value":100},"networkConfiguration":`+webNetwork+
			`,"capacityProviderStrategy":[`+strategy+`]}`)
	}
	refuse(b, b.CreateTaskSet, create(`{"capacityProvider":"none","weight":1}`), "InvalidParameterException: "+notAssociated)
	refuse(b, b.CreateTaskSet, create(`{"capacityProvider":"FARGATE"}`), "InvalidParameterException: The specified capacity provider strategy must contain at least one capacity provider with a weight greater than 0.")
	s := try(b, b.CreateTaskSet, create(`{"capacityProvider":"FARGATE","base":1},{"capacityProvider":"FARGATE_SPOT","weight":1}`)).TaskSet
	if want := *read[[]api.CapacityProviderStrategyItem](t, `[{"capacityProvider":"FARGATE","weight":0,"base":1},{"capacityProvider":"FARGATE_SPOT","weight":1,"base":0}]`); s.LaunchType != "" ||
		!sameDocument(s.CapacityProviderStrategy, want) || *s.PlatformVersion != "1.4.0" {
		t.Errorf("%s", pretty(s))
	}
	b.play(2, nil)
	on := map[string]int{}
	for task := range state.Tasks.By(b.db.Snapshot(), "service", *s.ServiceArn) {
		on[task.CapacityProvider+"/"+task.LaunchType]++
	}
	if on["FARGATE/FARGATE"] != 1 || on["FARGATE_SPOT/FARGATE"] != 3 {
		t.Errorf("the tasks are on %v", on)
	}
	if have, _ := state.TaskSets.Get(b.db.Snapshot(), *s.TaskSetArn); have.ImageDigests["web"] != "sha256:web" {
		t.Errorf("digests %v", have.ImageDigests)
	}
	refuse(b, b.PutClusterCapacityProviders, &api.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{"FARGATE"}},
		"ResourceInUseException: The specified capacity provider is in use and cannot be removed.")
	try(b, b.UpdateServicePrimaryTaskSet, &api.UpdateServicePrimaryTaskSetInput{Cluster: new("default"), Service: new("web"), PrimaryTaskSet: s.Id})
	if v := b.web(); v.LaunchType != "" || len(v.CapacityProviderStrategy) != 2 {
		t.Errorf("%s", pretty(v))
	}
}
