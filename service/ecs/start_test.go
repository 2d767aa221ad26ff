package ecs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/address"
	"github.com/berth-run/berth/control/place"
	"github.com/berth-run/berth/control/settle"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// host registers an instance of a type in a zone of vpc-1, and connects its
// agent. It has 2048 units, 3884 MiB, and the attributes of Amazon's agent that
// the definitions below need.
func (b *bench) host(zone, kind string, attributes ...string) string {
	b.t.Helper()
	list := `{"name":"com.amazonaws.ecs.capability.docker-remote-api.1.17"},{"name":"com.amazonaws.ecs.capability.docker-remote-api.1.18"},{"name":"ecs.capability.task-eni"},{"name":"ecs.capability.task-cpu-mem-limit"},{"name":"ecs.vpc-id","value":"vpc-1"}`
	for _, a := range attributes {
		name, value, _ := strings.Cut(a, "=")
		list += fmt.Sprintf(`,{"name":%q,"value":%q}`, name, value)
	}
	id := b.cfg.NewID()
	in := fmt.Sprintf(`{"cluster":"default","attributes":[%s],"instanceIdentityDocument":"{\"instanceId\":\"i-%s\",\"instanceType\":\"%s\",\"availabilityZone\":\"%s\"}","totalResources":[
		{"name":"CPU","type":"INTEGER","integerValue":2048},{"name":"MEMORY","type":"INTEGER","integerValue":3884},
		{"name":"PORTS","type":"STRINGSET","stringSetValue":["22"]},{"name":"PORTS_UDP","type":"STRINGSET","stringSetValue":[]}]}`, list, id[15:], kind, zone)
	arn := *try(b, b.RegisterContainerInstance, read[api.RegisterContainerInstanceInput](b.t, in)).ContainerInstance.ContainerInstanceArn
	b.agent(arn, true)
	return arn
}

func (b *bench) agent(arn string, connected bool) {
	b.put(func(tx *store.Tx) {
		i, _ := state.ContainerInstances.Get(tx, arn)
		n := *i
		n.AgentConnected = connected
		state.ContainerInstances.Put(tx, &n)
	})
}

func (b *bench) boxes(in string) *api.RunTaskOutput {
	b.t.Helper()
	return try(b, b.RunTask, read[api.RunTaskInput](b.t, in))
}

func (b *bench) described(arn string) api.ContainerInstance {
	b.t.Helper()
	return try(b, b.DescribeContainerInstances, &api.DescribeContainerInstancesInput{ContainerInstances: []string{arn}}).ContainerInstances[0]
}

// why is what the failures say, in the order of instances.
func why(fs []api.Failure, instances ...string) string {
	var out []string
	for _, i := range instances {
		reason := "-"
		for _, f := range fs {
			if *f.Arn == i {
				reason = *f.Reason
			}
		}
		out = append(out, reason)
	}
	return strings.Join(out, " | ")
}

const (
	boxDefinition  = `{"family":"box","containerDefinitions":[{"name":"a","image":"x","cpu":512,"memory":1024}]}`
	portDefinition = `{"family":"port","containerDefinitions":[{"name":"a","image":"x","cpu":128,"memory":64,"portMappings":[{"containerPort":80,"hostPort":8080},{"containerPort":53,"hostPort":53,"protocol":"udp"}]}]}`
	eniDefinition  = `{"family":"eni","networkMode":"awsvpc","containerDefinitions":[{"name":"a","image":"x","cpu":128,"memory":64}]}`
)

func TestRunTaskOnInstances(t *testing.T) {
	b := newBench(t)
	b.register(boxDefinition)
	b.register(portDefinition)
	b.register(eniDefinition)
	refuse(b, b.RunTask, &api.RunTaskInput{TaskDefinition: new("box")}, "InvalidParameterException: No Container Instances were found in your cluster.")
	one, two := b.host("us-east-1a", "t3.medium", "stack=prod"), b.host("us-east-1b", "t3.micro")

	// Spread over zones; what a task takes is gone from the instance with the answer.
	was := *b.described(one).Version
	out := b.boxes(`{"taskDefinition":"box","count":2}`)
	if len(out.Tasks) != 2 || len(out.Failures) != 0 || *out.Tasks[0].ContainerInstanceArn == *out.Tasks[1].ContainerInstanceArn {
		t.Fatalf("%s", pretty(out))
	}
	if v := out.Tasks[0]; *v.LastStatus != "PENDING" || v.LaunchType != "EC2" || v.PlatformVersion != nil || v.PlatformFamily != nil || *v.Group != "family:box" {
		t.Errorf("%s", pretty(v))
	}
	if v := b.described(one); *v.RemainingResources[0].IntegerValue != 1536 || *v.RemainingResources[1].IntegerValue != 2860 || *v.PendingTasksCount != 1 || *v.Version != was+1 {
		t.Errorf("%s", pretty(v))
	}
	// Ports of both protocols, once on each instance.
	out = b.boxes(`{"taskDefinition":"port","count":3}`)
	if got := why(out.Failures, one, two); len(out.Tasks) != 2 || got != "RESOURCE:PORTS | RESOURCE:PORTS" {
		t.Errorf("%s: %s", got, pretty(out))
	}
	if v := b.described(two); !slices.Equal(v.RemainingResources[2].StringSetValue, []string{"22", "8080"}) || !slices.Equal(v.RemainingResources[3].StringSetValue, []string{"53"}) {
		t.Errorf("%s", pretty(v.RemainingResources))
	}
	for _, c := range []struct{ in, want string }{
		{`{"taskDefinition":"box","overrides":{"cpu":"4096","containerOverrides":[]}}`, "RESOURCE:CPU | RESOURCE:CPU"},
		{`{"taskDefinition":"box","overrides":{"containerOverrides":[{"name":"a","memory":3000}]}}`, "RESOURCE:MEMORY | RESOURCE:MEMORY"},
		{`{"taskDefinition":"box","placementConstraints":[{"type":"memberOf","expression":"attribute:stack == test"}]}`, "MemberOf placement constraint unsatisfied. | MemberOf placement constraint unsatisfied."},
		{`{"taskDefinition":"box","placementConstraints":[{"type":"distinctInstance"}]}`, "DistinctInstance placement constraint unsatisfied. | DistinctInstance placement constraint unsatisfied."},
		{`{"taskDefinition":"box","group":"x","placementConstraints":[{"type":"distinctInstance"},{"type":"memberOf","expression":"attribute:stack exists and task:group == box"}]}`,
			"MemberOf placement constraint unsatisfied. | MemberOf placement constraint unsatisfied."},
	} {
		if out := b.boxes(c.in); len(out.Tasks) != 0 || why(out.Failures, one, two) != c.want {
			t.Errorf("%s: %s, want %s", c.in, pretty(out), c.want)
		}
	}
	for range 2 {
		out = b.boxes(`{"taskDefinition":"box","placementConstraints":[{"type":"memberOf","expression":"attribute:stack == prod"}]}`)
		if len(out.Tasks) != 1 || *out.Tasks[0].ContainerInstanceArn != one {
			t.Errorf("%s", pretty(out))
		}
	}
	// 128+3*512 units of one are taken, and 128+512 of two.
	if out = b.boxes(`{"taskDefinition":"box","count":5,"placementStrategy":[{"type":"binpack","field":"MEMORY"}]}`); len(out.Tasks) != 2 || why(out.Failures, one, two) != "RESOURCE:CPU | RESOURCE:CPU" {
		t.Errorf("%s", pretty(out))
	}
	// A task that has stopped gives back what it had.
	gone := *out.Tasks[0].TaskArn
	b.put(func(tx *store.Tx) {
		x, _ := state.Tasks.Get(tx, gone)
		n := x.Clone()
		n.WantStop("UserInitiated", "", b.time)
		n.End(b.time)
		state.Tasks.Put(tx, n)
	})
	if out = b.boxes(`{"taskDefinition":"box"}`); len(out.Tasks) != 1 || *out.Tasks[0].ContainerInstanceArn != two {
		t.Errorf("%s", pretty(out))
	}
	b.agent(one, false)
	if out = b.boxes(`{"taskDefinition":"box"}`); why(out.Failures, one, two) != "AGENT | RESOURCE:CPU" {
		t.Errorf("%s", pretty(out))
	}
	// A draining instance is not looked at.
	try(b, b.UpdateContainerInstancesState, &api.UpdateContainerInstancesStateInput{ContainerInstances: []string{one}, Status: "DRAINING"})
	if out = b.boxes(`{"taskDefinition":"box"}`); len(out.Failures) != 1 || *out.Failures[0].Arn != two {
		t.Errorf("%s", pretty(out))
	}
}

// TestInterfaces: one interface to a task, as many as the type has, in the
// subnet of the instance's zone and on its machine, never with a public address.
func TestInterfaces(t *testing.T) {
	b := newBench(t)
	b.register(eniDefinition)
	one, two := b.host("us-east-1a", "t3.medium"), b.host("us-east-1b", "t3.medium")
	other := b.host("us-east-1a", "t3.medium")
	b.put(func(tx *store.Tx) {
		i, _ := state.ContainerInstances.Get(tx, one)
		state.Instances.Put(tx, &state.Instance{ID: i.EC2InstanceID, Account: account, VPC: "vpc-1", Type: "t3.medium", Node: "n1", State: "running"})
		o, _ := state.ContainerInstances.Get(tx, other)
		n := *o
		n.Attributes = slices.Clone(o.Attributes)
		for k := range n.Attributes {
			if *n.Attributes[k].Name == "ecs.vpc-id" {
				n.Attributes[k].Value = new("vpc-2")
			}
		}
		state.ContainerInstances.Put(tx, &n)
	})
	const run = `{"taskDefinition":"eni","count":%d,"networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-1"],"assignPublicIp":"%s"}}}`
	refuse(b, b.RunTask, read[api.RunTaskInput](t, fmt.Sprintf(run, 1, "ENABLED")), "InvalidParameterException: Assign public IP is not supported for this launch type.")
	out := b.boxes(fmt.Sprintf(run, 3, "DISABLED"))
	if got := why(out.Failures, one, two, other); len(out.Tasks) != 2 || got != "RESOURCE:ENI | LOCATION | ATTRIBUTE" {
		t.Fatalf("%s: %s", got, pretty(out))
	}
	if v := out.Tasks[0]; *v.LastStatus != "PROVISIONING" || *v.ContainerInstanceArn != one {
		t.Errorf("%s", pretty(v))
	}
	b.apply(address.Plan)
	for _, v := range out.Tasks {
		x, _ := state.Tasks.Get(b.db.Snapshot(), *v.TaskArn)
		e, ok := state.NetworkInterfaces.Get(b.db.Snapshot(), x.ENI)
		if !ok || e.Node != "n1" || e.Subnet != "subnet-1" || e.Public.IsValid() || e.Type != "interface" || !e.RequesterManaged || !strings.HasPrefix(e.Description, "arn:aws:ecs:us-east-1:"+account+":attachment/") {
			t.Errorf("%+v", e)
		}
	}
	// With trunking there are no branches on a t3; on an m5.large there are ten.
	trunk := b.host("us-east-1a", "m5.large", "ecs.awsvpc-trunk-id=eni-1")
	if out = b.boxes(fmt.Sprintf(run, 10, "DISABLED")); len(out.Tasks) != 10 {
		t.Errorf("%d tasks on the trunk: %s", len(out.Tasks), why(out.Failures, one, trunk))
	}
	if out = b.boxes(fmt.Sprintf(run, 1, "DISABLED")); why(out.Failures, trunk) != "RESOURCE:ENI" {
		t.Errorf("%s", pretty(out))
	}
}

func (b *bench) apply(plan func(control.Input) control.Plan) {
	b.t.Helper()
	ids := func() string { return fmt.Sprintf("%08x%024d", b.ids.Add(1), 0) } // interfaces are named by its beginning
	p := plan(control.Input{Read: b.db.Snapshot(), All: true, Now: b.time, NewID: ids})
	if ok, err := control.Apply(b.ctx, b.db, p); !ok || err != nil {
		b.t.Fatalf("apply: %v %v", ok, err)
	}
}

func TestStartTask(t *testing.T) {
	b := newBench(t)
	b.register(`{"family":"box","placementConstraints":[{"type":"memberOf","expression":"attribute:stack == none"}],"containerDefinitions":[{"name":"a","image":"x","cpu":1500,"memory":64}]}`)
	one, two, three, four := b.host("us-east-1a", "t3.medium"), b.host("us-east-1b", "t3.medium"), b.host("us-east-1b", "t3.medium"), *b.join("").ContainerInstanceArn
	b.agent(two, false)
	b.agent(four, true)
	try(b, b.DeregisterContainerInstance, &api.DeregisterContainerInstanceInput{ContainerInstance: &three})
	missing := prefix + "container-instance/default/none"
	in := &api.StartTaskInput{TaskDefinition: new("box"), ContainerInstances: []string{one, state.ShortARN(two), three, missing, four, one}, StartedBy: new("me")}
	out := try(b, b.StartTask, in)
	if len(out.Tasks) != 1 || *out.Tasks[0].ContainerInstanceArn != one || *out.Tasks[0].StartedBy != "me" || *out.Tasks[0].LastStatus != "PENDING" {
		t.Errorf("%s", pretty(out.Tasks))
	}
	if got := why(out.Failures, two, three, missing, four, one); got != "AGENT | INACTIVE | MISSING | ATTRIBUTE | RESOURCE:CPU" {
		t.Error(got)
	}
	if v := b.described(one); *v.RemainingResources[0].IntegerValue != 548 {
		t.Errorf("%s", pretty(v))
	}
	in.ContainerInstances = slices.Repeat([]string{one}, 11)
	refuse(b, b.StartTask, in, "InvalidParameterException: The number of container instances must be between 1 and 10.")
}

// TestNeverTooMany: however many ask at once, and whatever ends meanwhile, no
// instance gives more than it has, and nothing is refused that there is room for.
func TestNeverTooMany(t *testing.T) {
	b := newBench(t)
	b.register(boxDefinition)
	var hosts []string
	for i := range 5 {
		hosts = append(hosts, b.host("us-east-1"+string("abc"[i%3]), "t3.medium"))
	}
	// 3 of 1024 MiB go into 3884.
	var wg sync.WaitGroup
	var mu sync.Mutex
	placed := 0
	for g := range 8 {
		wg.Go(func() {
			ctx := auth.WithCaller(context.Background(), &auth.Caller{Kind: auth.User, Account: account, ARN: "arn:aws:iam::" + account + ":user/ann"})
			in := &api.RunTaskInput{TaskDefinition: new("box"), Count: num(2)}
			if g%2 == 0 {
				in.PlacementStrategy = []api.PlacementStrategy{{Type: "binpack", Field: new("memory")}}
			}
			out, err := b.RunTask(ctx, in)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			placed += len(out.Tasks)
		})
	}
	wg.Wait()
	if placed != 15 {
		t.Errorf("%d tasks are placed, there is room for 15", placed)
	}
	for _, arn := range hosts {
		i, _ := state.ContainerInstances.Get(b.db.Snapshot(), arn)
		if left := *i.Remaining(b.db.Snapshot())[1].IntegerValue; left < 0 {
			t.Errorf("%s has %d MiB left", arn, left)
		}
	}
}

// said are the newest events of a service.
func (b *bench) said(service string) []string {
	ev, _ := state.Events.Get(b.db.Snapshot(), prefix+"service/default/"+service)
	var out []string
	if ev != nil {
		for _, e := range ev.Events {
			out = append(out, e.Message)
		}
	}
	return out
}

// on counts a service's tasks that are not stopped, by their instance.
func (b *bench) on(service string) map[string]int {
	out := map[string]int{}
	for x := range state.Tasks.By(b.db.Snapshot(), "service", prefix+"service/default/"+service) {
		if x.LastStatus != state.Stopped {
			out[x.Instance]++
		}
	}
	return out
}

func TestServiceOnInstances(t *testing.T) {
	b := newBench(t)
	b.register(boxDefinition)
	s := try(b, b.CreateService, read[api.CreateServiceInput](t, `{"serviceName":"web","taskDefinition":"box","desiredCount":4,
		"placementStrategy":[{"type":"spread","field":"instanceId"}],"placementConstraints":[{"type":"memberOf","expression":"not(attribute:stack == test)"}]}`)).Service
	if s.LaunchType != "EC2" || s.PlatformVersion != nil || len(s.PlacementStrategy) != 1 || len(s.PlacementConstraints) != 1 {
		t.Errorf("%s", pretty(s))
	}
	const more = " For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."
	const unable = "(service web) was unable to place a task because no container instance met all of its requirements. "
	expect := func(want string) {
		t.Helper()
		b.plan()
		if got := b.said("web"); len(got) == 0 || got[0] != want {
			t.Errorf("said  %q\nwant %q", got, want)
		}
	}
	expect(unable + "Reason: No Container Instances were found in your cluster." + more)
	b.plan()
	if n := len(b.said("web")); n != 1 || len(b.on("web")) != 0 {
		t.Errorf("%d events, tasks %v", n, b.on("web"))
	}
	b.time = b.time.Add(6 * time.Hour)
	b.plan()
	if n := len(b.said("web")); n != 2 {
		t.Errorf("%d events after six hours", n)
	}
	test := b.host("us-east-1a", "t3.medium", "stack=test")
	expect(unable + "The closest matching (container-instance " + state.ShortARN(test) + `) encountered error "MemberOf placement constraint unsatisfied.".` + more)
	one := b.host("us-east-1a", "t3.medium")
	b.plan()
	if got := b.on("web"); got[one] != 3 {
		t.Errorf("%v", got)
	}
	// The instance that fails a constraint is closer than the one without memory: nothing new to say.
	if got := b.said("web"); !strings.HasPrefix(got[0], "(service web) has started 3 tasks: ") {
		t.Errorf("%q", got)
	}
	try(b, b.DeregisterContainerInstance, &api.DeregisterContainerInstanceInput{ContainerInstance: &test})
	expect(unable + "The closest matching (container-instance " + state.ShortARN(one) + ") has insufficient memory available." + more)
	two := b.host("us-east-1b", "t3.medium")
	b.play(3, nil)
	if got := b.on("web"); got[one] != 3 || got[two] != 1 {
		t.Errorf("%v", got)
	}
	if got := b.said("web")[0]; got != "(service web) has reached a steady state." {
		t.Error(got)
	}

	// Draining: the tasks are replaced before they stop, those of RunTask stay.
	alone := *b.boxes(`{"taskDefinition":"box","placementConstraints":[{"type":"memberOf","expression":"attribute:ecs.availability-zone == us-east-1b"}]}`).Tasks[0].TaskArn
	try(b, b.UpdateContainerInstancesState, &api.UpdateContainerInstancesStateInput{ContainerInstances: []string{two}, Status: "DRAINING"})
	b.play(2, nil)
	if got := b.on("web"); got[two] != 1 {
		t.Errorf("the task of a draining instance stopped before another ran: %v", got)
	}
	three := b.host("us-east-1c", "t3.medium")
	b.play(4, nil)
	if got := b.on("web"); got[two] != 0 || got[one]+got[three] != 4 {
		t.Errorf("%v", got)
	}
	if x, _ := state.Tasks.Get(b.db.Snapshot(), alone); x.DesiredStatus != state.Running {
		t.Errorf("the task of RunTask was stopped: %+v", x)
	}

	// The instance ends, and its tasks with it.
	i, _ := state.ContainerInstances.Get(b.db.Snapshot(), three)
	victim := ""
	for x := range state.Tasks.By(b.db.Snapshot(), "instance", three) {
		victim = x.ARN
	}
	b.put(func(tx *store.Tx) {
		state.Instances.Put(tx, &state.Instance{ID: i.EC2InstanceID, Account: account, State: "terminated"})
	})
	b.apply(settle.Plan)
	v := try(b, b.DescribeTasks, &api.DescribeTasksInput{Tasks: []string{victim}}).Tasks[0]
	if *v.LastStatus != "STOPPED" || v.StopCode != "TerminationNotice" || *v.StoppedReason != "Host EC2 (instance "+i.EC2InstanceID+") terminated." {
		t.Errorf("%s", pretty(v))
	}
	if got := *b.described(three).Status; got != "INACTIVE" {
		t.Error(got)
	}
	four := b.host("us-east-1c", "t3.medium")
	b.play(3, nil)
	if got := b.on("web"); got[four] == 0 || got[one]+got[four] != 4 {
		t.Errorf("%v", got)
	}
}

func TestDaemonService(t *testing.T) {
	b := newBench(t)
	b.register(boxDefinition)
	b.register(strings.Replace(boxDefinition, `"cpu":512`, `"cpu":256`, 1))
	one := b.host("us-east-1a", "t3.medium", "stack=prod")
	s := try(b, b.CreateService, read[api.CreateServiceInput](t, `{"serviceName":"web","taskDefinition":"box:1","desiredCount":9}`)).Service
	b.plan()
	s = try(b, b.CreateService, read[api.CreateServiceInput](t, `{"serviceName":"agent","taskDefinition":"box:1","schedulingStrategy":"DAEMON","placementConstraints":[{"type":"memberOf","expression":"attribute:stack == prod"}]}`)).Service
	if s.SchedulingStrategy != "DAEMON" || *s.DeploymentConfiguration.MaximumPercent != 100 || *s.DeploymentConfiguration.MinimumHealthyPercent != 0 || *s.DesiredCount != 0 || s.AvailabilityZoneRebalancing != "DISABLED" {
		t.Errorf("%s", pretty(s))
	}
	show := func() api.Service {
		t.Helper()
		return try(b, b.DescribeServices, &api.DescribeServicesInput{Services: []string{"agent"}}).Services[0]
	}
	b.plan()
	if v := show(); *v.DesiredCount != 1 || *v.PendingCount != 0 || !strings.Contains(b.said("agent")[0], "has insufficient memory available.") {
		t.Errorf("%q %d %s", b.said("agent"), *v.DesiredCount, pretty(v.Deployments))
	}
	// On a new instance it comes before what waits for room.
	two := b.host("us-east-1b", "t3.medium", "stack=prod")
	b.host("us-east-1b", "t3.medium", "stack=test")
	b.play(2, nil)
	if got := b.on("agent"); len(got) != 1 || got[two] != 1 || b.on("web")[two] != 2 {
		t.Errorf("agent %v, web %v", got, b.on("web"))
	}
	try(b, b.UpdateService, read[api.UpdateServiceInput](t, `{"service":"web","desiredCount":0}`))
	b.play(3, nil)
	if v := show(); *v.DesiredCount != 2 || *v.RunningCount != 2 || len(v.Deployments) != 1 || v.Deployments[0].RolloutState != "COMPLETED" {
		t.Errorf("%s", pretty(v))
	}
	// A new revision takes the place of the old one, never beside it.
	try(b, b.UpdateService, read[api.UpdateServiceInput](t, `{"service":"agent","taskDefinition":"box:2"}`))
	for range 4 {
		b.play(1, nil)
		if got := b.on("agent"); got[one] > 1 || got[two] > 1 {
			t.Errorf("%v", got)
		}
	}
	if v := show(); *v.RunningCount != 2 || len(v.Deployments) != 1 || !strings.HasSuffix(*v.Deployments[0].TaskDefinition, "box:2") {
		t.Errorf("%s", pretty(v))
	}
	// Constraints are asked again for what runs.
	try(b, b.PutAttributes, read[api.PutAttributesInput](t, `{"attributes":[{"name":"stack","value":"test","targetId":"`+one+`"}]}`))
	b.play(2, nil)
	if got := b.on("agent"); got[one] != 0 || *show().DesiredCount != 1 {
		t.Errorf("%v", got)
	}
	refuse(b, b.UpdateService, read[api.UpdateServiceInput](t, `{"service":"agent","desiredCount":3}`),
		"InvalidParameterException: The daemon scheduling strategy does not support a desired count for services. Remove a value for desired count and try again")
}

// TestWaitForCapacity: tasks of a capacity provider wait until one of its
// instances takes them, and stop when they have waited for long.
func TestWaitForCapacity(t *testing.T) {
	b := newBench(t)
	b.register(boxDefinition)
	try(b, b.CreateCapacityProvider, read[api.CreateCapacityProviderInput](t, `{"name":"asg","autoScalingGroupProvider":{"autoScalingGroupArn":"arn:aws:autoscaling:us-east-1:`+account+`:autoScalingGroup:x:autoScalingGroupName/g","managedScaling":{"status":"ENABLED"}}}`))
	b.putProviders(`"asg"`, "")
	foreign := b.host("us-east-1a", "t3.medium")
	out := b.boxes(`{"taskDefinition":"box","count":4,"capacityProviderStrategy":[{"capacityProvider":"asg","weight":1}],"placementConstraints":[{"type":"memberOf","expression":"attribute:stack == prod"}]}`)
	if len(out.Tasks) != 4 || *out.Tasks[0].LastStatus != "PROVISIONING" || *out.Tasks[0].CapacityProviderName != "asg" || out.Tasks[0].LaunchType != "EC2" {
		t.Fatalf("%s", pretty(out))
	}
	plan := func(in control.Input) control.Plan { return place.Plan(in, b.cfg.Fleet) }
	b.apply(plan)
	mine := b.host("us-east-1a", "t3.medium", "stack=prod")
	b.put(func(tx *store.Tx) {
		i, _ := state.ContainerInstances.Get(tx, mine)
		n := *i
		n.CapacityProvider = "asg"
		state.ContainerInstances.Put(tx, &n)
	})
	if v := b.described(mine); *v.CapacityProviderName != "asg" {
		t.Errorf("%s", pretty(v))
	}
	b.apply(plan)
	count := func() (waiting, placed int) {
		for _, v := range out.Tasks {
			x, _ := state.Tasks.Get(b.db.Snapshot(), *v.TaskArn)
			switch x.Instance {
			case "":
				waiting++
			case mine:
				placed++
			case foreign:
				t.Error("a task is on an instance of no provider")
			}
		}
		return waiting, placed
	}
	if w, p := count(); w != 1 || p != 3 {
		t.Errorf("%d wait, %d are placed", w, p)
	}
	b.time = b.time.Add(31 * time.Minute)
	b.apply(plan)
	for _, v := range out.Tasks {
		x, _ := state.Tasks.Get(b.db.Snapshot(), *v.TaskArn)
		if x.Instance == "" && (x.StopCode != "TaskFailedToStart" || x.StoppedReason != "RESOURCE:MEMORY") {
			t.Errorf("%+v", x)
		}
	}
}

// TestRebalance: once a service is steady its tasks come to lie evenly in zones,
// by one that starts before another stops.
func TestRebalance(t *testing.T) {
	b := newBench(t)
	b.register(boxDefinition)
	b.host("us-east-1a", "t3.medium")
	b.host("us-east-1a", "t3.medium")
	try(b, b.CreateService, read[api.CreateServiceInput](t, `{"serviceName":"web","taskDefinition":"box","desiredCount":4}`))
	b.play(3, nil)
	zones := func() map[string]int {
		out := map[string]int{}
		for x := range state.Tasks.By(b.db.Snapshot(), "service", prefix+"service/default/web") {
			if x.LastStatus == state.Running && x.DesiredStatus == state.Running {
				out[x.Zone]++
			}
		}
		return out
	}
	if z := zones(); z["us-east-1a"] != 4 {
		t.Fatalf("%v", z)
	}
	b.host("us-east-1b", "t3.medium")
	for range 12 {
		b.play(1, nil)
		if z := zones(); z["us-east-1a"]+z["us-east-1b"] < 4 {
			t.Errorf("fewer than wanted run: %v", z)
		}
	}
	if z := zones(); z["us-east-1a"] != 2 || z["us-east-1b"] != 2 {
		t.Errorf("%v", z)
	}
	events := strings.Join(b.said("web"), "\n")
	for _, want := range []string{
		"(service web) is not AZ balanced with 4 tasks in us-east-1a, 0 tasks in us-east-1b. AZ Rebalancing in progress.",
		"(service web) has started 1 tasks in us-east-1b to AZ Rebalance: (task ",
		"(service web) is AZ balanced with 2 tasks in us-east-1a, 2 tasks in us-east-1b.",
	} {
		if !strings.Contains(events, want) {
			t.Errorf("never said: %s\n%s", want, events)
		}
	}
	// A zone that can take none is left alone.
	n := len(b.said("web"))
	b.play(3, nil)
	if m := len(b.said("web")); m != n {
		t.Errorf("%q", b.said("web")[:m-n])
	}
}

// TestNetworkModes: what a network mode does not have is refused where AWS
// refuses it, and what a registration leaves out is filled in by the mode.
func TestNetworkModes(t *testing.T) {
	b := newBench(t)
	b.host("us-east-1a", "t3.medium")
	define := func(mode, container string) *api.RegisterTaskDefinitionInput {
		return read[api.RegisterTaskDefinitionInput](t, `{"family":"x","networkMode":"`+mode+`","containerDefinitions":[{"name":"a","image":"x","memory":64,`+container+`},{"name":"b","image":"x","memory":64}]}`)
	}
	const ce, bad = "ClientException: ", "ClientException: Invalid setting for container 'a'. "
	for _, c := range []struct{ mode, container, want string }{
		{"awsvpc", `"portMappings":[{"containerPort":80,"hostPort":81}]`, ce + "When networkMode=awsvpc, the host ports and container ports in port mappings must match."},
		{"host", `"portMappings":[{"containerPort":80,"hostPort":81}]`, ce + "When networkMode=host, the host ports and container ports in port mappings must match."},
		{"none", `"portMappings":[{"containerPort":80}]`, ce + "Port mappings are not supported when networkMode=none."},
		{"awsvpc", `"links":["b"]`, ce + "Links are not supported when networkMode=awsvpc."},
		{"host", `"links":["b"]`, ce + "Links are not supported when networkMode=host."},
		{"none", `"links":["b"]`, ce + "Links are not supported when networkMode=none."},
		{"host", `"portMappings":[{"containerPortRange":"80-90"}]`, bad + "'containerPortRange' is not supported when networkMode=host."},
		{"bridge", `"portMappings":[{"containerPortRange":"80-90","hostPort":80}]`, bad + "'containerPortRange' excludes 'containerPort' and 'hostPort'."},
		{"bridge", `"portMappings":[{"containerPortRange":"90-80"}]`, bad + "Invalid 'containerPortRange': 90-80."},
		{"bridge", `"portMappings":[{"hostPort":80}]`, bad + "A port mapping must have a 'containerPort' or a 'containerPortRange'."},
		{"awsvpc", `"extraHosts":[{"hostname":"x","ipAddress":"10.0.0.1"}]`, ce + "Extra hosts are not supported on container when networkMode=awsvpc"},
	} {
		refuse(b, b.RegisterTaskDefinition, define(c.mode, c.container), c.want)
	}
	for mode, want := range map[string]int32{"bridge": 0, "host": 80, "awsvpc": 80} {
		d := try(b, b.RegisterTaskDefinition, define(mode, `"portMappings":[{"containerPort":80}]`)).TaskDefinition
		if p := d.ContainerDefinitions[0].PortMappings[0]; *p.HostPort != want || p.Protocol != "tcp" {
			t.Errorf("%s: %s", mode, pretty(p))
		}
	}
	const network = `"networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-1"]}}`
	const ip = "InvalidParameterException: "
	for _, mode := range []string{"bridge", "host", "none", "awsvpc"} {
		try(b, b.RegisterTaskDefinition, define(mode, `"cpu":1`))
		given, want := ","+network, ip+"Network Configuration is not valid for the given networkMode of this task definition."
		if mode == "awsvpc" {
			given, want = "", ip+"Network Configuration must be provided when networkMode 'awsvpc' is specified."
		}
		refuse(b, b.RunTask, read[api.RunTaskInput](t, `{"taskDefinition":"x"`+given+`}`), want)
		refuse(b, b.CreateService, read[api.CreateServiceInput](t, `{"serviceName":"s","desiredCount":1,"taskDefinition":"x"`+given+`}`), want)
		if mode != "awsvpc" {
			refuse(b, b.RunTask, read[api.RunTaskInput](t, `{"taskDefinition":"x","launchType":"FARGATE"}`), ip+"Task definition does not support launch_type FARGATE.")
		}
	}
}
