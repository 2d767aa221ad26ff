package ecs

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const resources = `"totalResources":[{"name":"CPU","type":"INTEGER","integerValue":2048},{"name":"MEMORY","type":"INTEGER","integerValue":3884},
	{"name":"PORTS","type":"STRINGSET","stringSetValue":["22","2376"]},{"name":"PORTS_UDP","type":"STRINGSET","stringSetValue":[]}]`

// join is an agent registering a new instance.
func (b *bench) join(more string) *api.ContainerInstance {
	b.t.Helper()
	return try(b, b.RegisterContainerInstance, read[api.RegisterContainerInstanceInput](b.t, `{"cluster":"default",`+resources+more+`}`)).ContainerInstance
}

func attributesOf(i *api.ContainerInstance) string {
	var out []string
	for _, a := range i.Attributes {
		out = append(out, *a.Name+"="+val(a.Value))
	}
	return strings.Join(out, " ")
}

// occupy puts a running task of a definition onto an instance.
func (b *bench) occupy(instance, id, definition string, service string) string {
	b.t.Helper()
	arn := prefix + "task/default/" + strings.Repeat(id, 32)
	td, ok, err := b.definition(b.db.Snapshot(), account, definition)
	if !ok || err != nil {
		b.t.Fatalf("no definition %s: %v", definition, err)
	}
	b.put(func(tx *store.Tx) {
		c, _ := state.Clusters.Get(tx, prefix+"cluster/default")
		t := state.NewTask(state.TaskSpec{Region: "us-east-1", Account: account, Cluster: c, Definition: td, ID: strings.Repeat(id, 32), NewID: b.uuid,
			Group: "family:" + td.Family, LaunchType: "EC2", Service: service, Now: b.now()})
		t.Instance, t.LastStatus = instance, state.Running
		state.Tasks.Put(tx, t)
	})
	return arn
}

func TestContainerInstances(t *testing.T) {
	b := newBench(t)
	i := b.join(`,"attributes":[{"name":"ecs.os-type","value":"linux"},{"name":"stack","value":"prod"},{"name":"ecs.capability.full-sync"}],
		"versionInfo":{"agentVersion":"1.105.1","dockerVersion":"27"},"tags":[{"key":"k","value":"v"}],"instanceIdentityDocumentSignature":"",
		"instanceIdentityDocument":"{\"instanceId\":\"i-1\",\"instanceType\":\"t3.micro\",\"imageId\":\"ami-1\",\"availabilityZone\":\"us-east-1b\",\"accountId\":\"` + account + `\",\"region\":\"us-east-1\"}"`)
	arn := *i.ContainerInstanceArn
	const want = "ecs.os-type=linux stack=prod ecs.capability.full-sync= ecs.instance-type=t3.micro ecs.ami-id=ami-1 ecs.availability-zone=us-east-1b"
	if got := attributesOf(i); got != want || *i.Ec2InstanceId != "i-1" || *i.Status != "ACTIVE" || *i.AgentConnected || !strings.HasPrefix(arn, prefix+"container-instance/default/") {
		t.Errorf("%s\n%s", got, pretty(i))
	}
	if c := try(b, b.DescribeClusters, &api.DescribeClustersInput{}).Clusters[0]; *c.RegisteredContainerInstancesCount != 1 {
		t.Errorf("the cluster counts %d", *c.RegisteredContainerInstancesCount)
	}

	// What users put on the instance survives another registration; its type cannot change.
	try(b, b.PutAttributes, read[api.PutAttributesInput](t, `{"attributes":[{"name":"rack","value":"7","targetId":"`+arn+`"}]}`))
	again := func(doc string) *api.RegisterContainerInstanceInput {
		return read[api.RegisterContainerInstanceInput](t, `{"cluster":"default","containerInstanceArn":"`+arn+`",`+resources+`,"attributes":[{"name":"ecs.os-type","value":"linux"}],"instanceIdentityDocument":"`+doc+`"}`)
	}
	if got := attributesOf(try(b, b.RegisterContainerInstance, again(`{\"instanceType\":\"t3.micro\"}`)).ContainerInstance); got != "ecs.os-type=linux ecs.instance-type=t3.micro ecs.availability-zone=us-east-1b stack=prod rack=7" {
		t.Error(got)
	}
	refuse(b, b.RegisterContainerInstance, again(`{\"instanceType\":\"t3.large\"}`), "ClientException: Container instance type changes are not supported.")
	refuse(b, b.RegisterContainerInstance, again(`{`), "ClientException: The instance identity document is not valid.")
	refuse(b, b.RegisterContainerInstance, again(`{\"accountId\":\"1\"}`), "ClientException: The instance identity document is of another account or region.")
	refuse(b, b.RegisterContainerInstance, &api.RegisterContainerInstanceInput{Cluster: new("none")}, "ClusterNotFoundException: Cluster not found.")
	refuse(b, b.RegisterContainerInstance, &api.RegisterContainerInstanceInput{ContainerInstanceArn: new(prefix + "container-instance/default/none")}, "InvalidParameterException: "+noInstance)
	other := auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.User, Account: "999999999999", ARN: "arn:aws:iam::999999999999:user/eve"})
	_, err := b.RegisterContainerInstance(other, again(""))
	wantError(t, err, "AccessDeniedException: User: arn:aws:iam::999999999999:user/eve is not authorized to report for container instance "+arn)

	d := try(b, b.DescribeContainerInstances, &api.DescribeContainerInstancesInput{ContainerInstances: []string{state.ShortARN(arn), "none"}, Include: []api.ContainerInstanceField{"CONTAINER_INSTANCE_HEALTH"}})
	if v := d.ContainerInstances[0]; len(v.Tags) != 0 || v.HealthStatus.OverallStatus != "INSUFFICIENT_DATA" || *d.Failures[0].Reason != "MISSING" || *v.RemainingResources[0].IntegerValue != 2048 {
		t.Errorf("%s", pretty(d))
	}
	if d := try(b, b.DescribeContainerInstances, &api.DescribeContainerInstancesInput{ContainerInstances: []string{arn}, Include: []api.ContainerInstanceField{"TAGS"}}); len(d.ContainerInstances[0].Tags) != 1 || d.ContainerInstances[0].HealthStatus != nil {
		t.Errorf("%s", pretty(d))
	}

	refuse(b, b.UpdateContainerAgent, &api.UpdateContainerAgentInput{ContainerInstance: &arn}, "NoUpdateAvailableException: There is no update available for this container agent.")
	refuse(b, b.UpdateContainerAgent, &api.UpdateContainerAgentInput{ContainerInstance: new("none")}, "InvalidParameterException: "+noInstance)
	bare := b.join(`,"clientToken":"t"`)
	if again := b.join(`,"clientToken":"t"`); *again.ContainerInstanceArn != *bare.ContainerInstanceArn {
		t.Error("the same registration made another instance")
	}
	refuse(b, b.UpdateContainerAgent, &api.UpdateContainerAgentInput{ContainerInstance: bare.ContainerInstanceArn},
		"MissingVersionException: Amazon ECS is unable to determine the current version of the Amazon ECS container agent on the container instance.")

	// No agent of either instance is connected.
	b.register(`{"family":"box","containerDefinitions":[{"name":"a","image":"x","memory":64}]}`)
	if out := try(b, b.RunTask, &api.RunTaskInput{TaskDefinition: new("box"), Count: num(2)}); len(out.Tasks) != 0 || len(out.Failures) != 2 || *out.Failures[0].Reason != "AGENT" {
		t.Errorf("%s", pretty(out))
	}
	if out := try(b, b.StartTask, &api.StartTaskInput{TaskDefinition: new("box"), ContainerInstances: []string{arn}}); len(out.Tasks) != 0 || *out.Failures[0].Reason != "AGENT" {
		t.Errorf("%s", pretty(out))
	}
}

func TestContainerInstanceState(t *testing.T) {
	b := newBench(t)
	one, two := *b.join("").ContainerInstanceArn, *b.join("").ContainerInstanceArn
	set := func(status string, refs ...string) *api.UpdateContainerInstancesStateOutput {
		return try(b, b.UpdateContainerInstancesState, &api.UpdateContainerInstancesStateInput{ContainerInstances: refs, Status: api.ContainerInstanceStatus(status)})
	}
	listed := func(status string) int {
		return len(try(b, b.ListContainerInstances, &api.ListContainerInstancesInput{Status: api.ContainerInstanceStatus(status)}).ContainerInstanceArns)
	}
	if out := set("DRAINING", one, "none"); *out.ContainerInstances[0].Status != "DRAINING" || *out.ContainerInstances[0].Version != 2 || *out.Failures[0].Reason != "MISSING" {
		t.Errorf("%s", pretty(out))
	}
	if listed("") != 2 || listed("DRAINING") != 1 || listed("ACTIVE") != 1 {
		t.Error("the listing by status is wrong")
	}
	// An agent that registers again does not end the draining.
	if i := try(b, b.RegisterContainerInstance, &api.RegisterContainerInstanceInput{ContainerInstanceArn: &one}).ContainerInstance; *i.Status != "DRAINING" {
		t.Errorf("%s", *i.Status)
	}
	set("ACTIVE", one)
	refuse(b, b.UpdateContainerInstancesState, &api.UpdateContainerInstancesStateInput{ContainerInstances: []string{one}, Status: "REGISTERING"},
		"InvalidParameterException: Container instance status should be one of [ACTIVE, DRAINING]")
	refuse(b, b.UpdateContainerInstancesState, &api.UpdateContainerInstancesStateInput{ContainerInstances: slices.Repeat([]string{one}, 11), Status: "ACTIVE"},
		"InvalidParameterException: instanceIds can have at most 10 items.")

	refuse(b, b.DeleteCluster, &api.DeleteClusterInput{Cluster: new("default")}, "ClusterContainsContainerInstancesException: The Cluster cannot be deleted while Container Instances are active or draining.")
	try(b, b.DeregisterContainerInstance, &api.DeregisterContainerInstanceInput{ContainerInstance: &two})
	if out := set("ACTIVE", two); *out.Failures[0].Reason != "INACTIVE" || listed("") != 1 {
		t.Errorf("%s", pretty(out))
	}
	refuse(b, b.DeregisterContainerInstance, &api.DeregisterContainerInstanceInput{ContainerInstance: &two}, "InvalidParameterException: "+noInstance)
	refuse(b, b.RegisterContainerInstance, &api.RegisterContainerInstanceInput{ContainerInstanceArn: &two}, "InvalidParameterException: "+noInstance)
	if d := try(b, b.DescribeContainerInstances, &api.DescribeContainerInstancesInput{ContainerInstances: []string{two}}); *d.ContainerInstances[0].Status != "INACTIVE" {
		t.Errorf("%s", pretty(d))
	}

	// The tasks of an instance hold it, and go with it by force alone.
	b.register(`{"family":"box","networkMode":"bridge","containerDefinitions":[{"name":"a","image":"x","cpu":100,"memory":64,"memoryReservation":32,"portMappings":[{"containerPort":80,"hostPort":8080},{"containerPort":53,"hostPort":53,"protocol":"udp"}]}]}`)
	task := b.occupy(one, "a", "box", "")
	i := try(b, b.DescribeContainerInstances, &api.DescribeContainerInstancesInput{ContainerInstances: []string{one}}).ContainerInstances[0]
	if r := i.RemainingResources; *r[0].IntegerValue != 1948 || *r[1].IntegerValue != 3852 || !slices.Equal(r[2].StringSetValue, []string{"22", "2376", "8080"}) || !slices.Equal(r[3].StringSetValue, []string{"53"}) ||
		*i.RegisteredResources[0].IntegerValue != 2048 || *i.RunningTasksCount != 1 {
		t.Errorf("%s", pretty(i))
	}
	refuse(b, b.DeregisterContainerInstance, &api.DeregisterContainerInstanceInput{ContainerInstance: &one}, "InvalidParameterException: Found running tasks on the instance.")
	out := try(b, b.DeregisterContainerInstance, &api.DeregisterContainerInstanceInput{ContainerInstance: &one, Force: new(true)}).ContainerInstance
	if v := b.describe(task); *v.LastStatus != "STOPPED" || *v.StoppedReason != deregistered || v.StopCode != "UserInitiated" || *out.Status != "INACTIVE" || *out.RunningTasksCount != 0 {
		t.Errorf("%s", pretty(v))
	}
	try(b, b.DeleteCluster, &api.DeleteClusterInput{Cluster: new("default")})
}

func TestInstanceQuota(t *testing.T) {
	b := newBench(t)
	b.put(func(tx *store.Tx) {
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: "ecs/container-instances-per-cluster", Value: 1})
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: "ecs/clusters", Value: 1})
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: "ecs/revisions-per-family", Value: 1})
	})
	b.join("")
	refuse(b, b.RegisterContainerInstance, &api.RegisterContainerInstanceInput{}, "ClientException: The maximum number of container instances per cluster has been reached: 1.")
	refuse(b, b.CreateCluster, &api.CreateClusterInput{ClusterName: new("two")}, "ClientException: The maximum number of clusters has been reached: 1.")
	try(b, b.CreateCluster, &api.CreateClusterInput{ClusterName: new("default")}) // it is there
	b.register(def("", box("")))
	refuse(b, b.RegisterTaskDefinition, read[api.RegisterTaskDefinitionInput](t, def("", box(""))), "ClientException: The maximum number of revisions per family has been reached: 1.")
}

func TestInstanceFilter(t *testing.T) {
	b := newBench(t)
	b.register(`{"family":"box","containerDefinitions":[{"name":"a","image":"x","memory":64}]}`)
	small := *b.join(`,"attributes":[{"name":"ecs.instance-type","value":"t2.small"},{"name":"stack","value":"prod"}],"versionInfo":{"agentVersion":"1.9.0"}`).ContainerInstanceArn
	large := *b.join(`,"attributes":[{"name":"ecs.instance-type","value":"g2.2xlarge"}],"versionInfo":{"agentVersion":"1.10.0"}`).ContainerInstanceArn
	b.occupy(large, "b", "box", "")
	for filter, want := range map[string][]string{
		"":                                    {small, large},
		"attribute:ecs.instance-type =~ g2.*": {large},
		"attribute:stack == prod":             {small},
		"attribute:stack not_exists":          {large},
		"task:group == family:box":            {large},
		"not (task:group == family:box)":      {small},
		"runningTasksCount < 1":               {small},
		"agentVersion > 1.9.5 and attribute:ecs.availability-zone in [us-east-1a]": {large},
		"attribute:ecs.instance-type == t2.small and task:group == family:box":     nil,
	} {
		got := try(b, b.ListContainerInstances, &api.ListContainerInstancesInput{Filter: &filter}).ContainerInstanceArns
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", filter, got, want)
		}
	}
	refuse(b, b.ListContainerInstances, &api.ListContainerInstancesInput{Filter: new("size == big")}, `InvalidParameterException: Invalid expression: unknown subject "size".`)
}

func TestAttributes(t *testing.T) {
	b := newBench(t)
	one, two := *b.join("").ContainerInstanceArn, *b.join("").ContainerInstanceArn
	putting := func(format string, args ...any) *api.PutAttributesInput {
		return read[api.PutAttributesInput](t, `{"attributes":[`+fmt.Sprintf(format, args...)+`]}`)
	}
	out := try(b, b.PutAttributes, putting(`{"name":"stack","value":"prod","targetId":%q},{"name":"rack/1","value":"a b","targetId":%q,"targetType":"container-instance"},{"name":"stack","value":"test","targetId":%q}`, one, state.ShortARN(one), two))
	if len(out.Attributes) != 3 || *out.Attributes[1].TargetId != one {
		t.Errorf("%s", pretty(out))
	}
	show := func(in api.ListAttributesInput) string {
		t.Helper()
		in.TargetType = api.TargetTypeContainerInstance
		var got []string
		for {
			page := try(b, b.ListAttributes, &in)
			for _, a := range page.Attributes {
				which := map[string]string{one: "1", two: "2"}[*a.TargetId]
				if *a.Name != zoneAttribute {
					got = append(got, which+":"+*a.Name+"="+*a.Value)
				}
			}
			if in.NextToken = page.NextToken; in.NextToken == nil {
				return strings.Join(got, " ")
			}
		}
	}
	for _, c := range []struct {
		in   api.ListAttributesInput
		want string
	}{
		{api.ListAttributesInput{}, "1:rack/1=a b 1:stack=prod 2:stack=test"},
		{api.ListAttributesInput{MaxResults: new(int32(1))}, "1:rack/1=a b 1:stack=prod 2:stack=test"},
		{api.ListAttributesInput{AttributeName: new("stack")}, "1:stack=prod 2:stack=test"},
		{api.ListAttributesInput{AttributeName: new("stack"), AttributeValue: new("test")}, "2:stack=test"},
	} {
		if got := show(c.in); got != c.want {
			t.Errorf("%+v: %s, want %s", c.in, got, c.want)
		}
	}
	if builtin := try(b, b.ListAttributes, &api.ListAttributesInput{TargetType: "container-instance", AttributeName: new(zoneAttribute)}); len(builtin.Attributes) != 2 {
		t.Errorf("%s", pretty(builtin))
	}

	try(b, b.DeleteAttributes, read[api.DeleteAttributesInput](t, `{"attributes":[{"name":"stack","targetId":"`+one+`"},{"name":"none","targetId":"`+one+`"}]}`))
	try(b, b.DeleteAttributes, read[api.DeleteAttributesInput](t, `{"attributes":[{"name":"stack","value":"other","targetId":"`+two+`"}]}`))
	if got := show(api.ListAttributesInput{}); got != "1:rack/1=a b 2:stack=test" {
		t.Error(got)
	}

	target := fmt.Sprintf(`"targetId":%q`, one)
	many := func(n int) string {
		var s []string
		for i := range n {
			s = append(s, fmt.Sprintf(`{"name":"a%d","value":"v",%s}`, i, target))
		}
		return strings.Join(s, ",")
	}
	const ip = "InvalidParameterException: "
	badName := func(n string) string {
		return ip + "Invalid attribute name: '" + n + "'. It must have 1 to 128 letters, numbers, hyphens, underscores, periods and slashes."
	}
	const badValue = ip + "Invalid value of attribute 'a'. It must have at most 128 letters, numbers, hyphens, underscores, periods, at signs, slashes, colons and spaces, and not begin or end with a space."
	for in, want := range map[string]string{
		``:                              ip + "Attributes cannot be empty.",
		many(11):                        ip + "Attributes cannot exceed 10 elements",
		`{"name":"a b",` + target + `}`: badName("a b"),
		`{"name":"` + strings.Repeat("a", 129) + `",` + target + `}`: badName(strings.Repeat("a", 129)),
		`{"name":"a","value":" v",` + target + `}`:                   badValue,
		`{"name":"a","value":"ü",` + target + `}`:                    badValue,
		`{"name":"ecs.os-type","value":"linux",` + target + `}`:      ip + "The attribute 'ecs.os-type' is reserved.",
		`{"name":"a"}`: ip + "TargetId can not be empty.",
		`{"name":"a","targetId":"` + state.ShortARN(one) + `"}`:            ip + "TargetType must be specified when the short form of a target id is used.",
		`{"name":"a","targetId":"none","targetType":"container-instance"}`: "TargetNotFoundException: Could not find none",
		many(10): "AttributeLimitExceededException: The number of attributes on the resource exceeds the limit of 10.", // with the one that is there
	} {
		refuse(b, b.PutAttributes, putting("%s", in), want)
	}
	if got := show(api.ListAttributesInput{}); got != "1:rack/1=a b 2:stack=test" {
		t.Errorf("a refused request left %s", got)
	}
}

func TestExecuteCommand(t *testing.T) {
	b := newBench(t)
	b.register(strings.Replace(webDefinition, `"family"`, `"taskRoleArn":"r","family"`, 1))
	plain, able := *b.run("").Tasks[0].TaskArn, *b.run(`,"enableExecuteCommand":true`).Tasks[0].TaskArn
	exec := func(task, container string) *api.ExecuteCommandInput {
		return &api.ExecuteCommandInput{Task: &task, Container: opt(container), Command: new("sh"), Interactive: new(true)}
	}
	const ip = "InvalidParameterException: "
	refuse(b, b.ExecuteCommand, exec(able, "web"), ip+"The execute command failed because the task "+state.ShortARN(able)+" isn't running. Specify a running task and try again.")
	for _, arn := range []string{plain, able} {
		b.place(arn)
		b.attached(arn)
		b.submit(arn, `{"status":"RUNNING","containers":[{"containerName":"web","status":"RUNNING"}]}`)
	}
	once := exec(able, "web")
	once.Interactive = new(false)
	const away = "TargetNotConnectedException: The execute command failed due to an internal error. Try again later."
	quoted := exec(able, "web")
	quoted.Command = new("echo 'a")
	other := exec(able, "web")
	other.Cluster = new("none")
	for _, c := range []struct {
		in   *api.ExecuteCommandInput
		want string
	}{
		{once, ip + "Interactive is the only mode supported currently."},
		{other, "ClusterNotFoundException: Cluster not found."},
		{exec(strings.Repeat("f", 32), "web"), ip + "The referenced task was not found."},
		{exec("x", "web"), ip + "taskId length should be one of [32,36]"},
		{exec(plain, "web"), ip + execDisabled},
		{exec(able, ""), ip + "The container name must be specified for a task that has more than one container."},
		{exec(able, "none"), ip + "The specified container none was not found in the task."},
		{exec(able, "side"), ip + "The execute command failed because the container side isn't running. Specify a running container and try again."},
		{exec(able, "web"), away}, // of a container of which the agent has told no id
		{quoted, ip + "The command can not be parsed: a quote is not closed."},
	} {
		refuse(b, b.ExecuteCommand, c.in, c.want)
	}
	agent := func() string {
		t.Helper()
		out := try(b, b.DescribeTasks, &api.DescribeTasksInput{Tasks: []string{able, plain}})
		if a := out.Tasks[1].Containers[0].ManagedAgents; len(a) != 0 {
			t.Errorf("agents of a task without: %v", a)
		}
		a := out.Tasks[0].Containers[0].ManagedAgents
		if len(a) != 1 || a[0].Name != "ExecuteCommandAgent" {
			t.Fatalf("agents %v", a)
		}
		return *a[0].LastStatus
	}
	b.submit(able, `{"containers":[{"containerName":"web","runtimeId":"run-1","status":"RUNNING"}]}`)
	connected, allowed := true, false
	b.cfg.Connected = func(node string) bool { return connected && node != "" }
	b.cfg.RoleMay = func(_ context.Context, _ store.Reader, arn, service string, actions ...string) bool {
		return allowed && strings.HasSuffix(arn, ":role/r") && service == tasksService && len(actions) == 4
	}
	refuse(b, b.ExecuteCommand, exec(able, "web"), away)
	if got := agent(); got != "PENDING" {
		t.Errorf("the agent is %s without permissions", got)
	}
	allowed, connected = true, false
	refuse(b, b.ExecuteCommand, exec(able, "web"), away)
	connected = true
	if got := agent(); got != "RUNNING" {
		t.Errorf("the agent is %s", got)
	}
	in := exec(able, "web")
	in.Command = new(`sh -c "echo 'a b'"`)
	ctx := auth.WithRequest(b.ctx, &auth.Request{Host: "region:1", Secure: true})
	out, err := b.ExecuteCommand(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	id := *out.Session.SessionId
	if !regexp.MustCompile(`^ecs-execute-command-[a-z0-9]{26}$`).MatchString(id) || *out.Session.StreamUrl != "wss://region:1/v1/data-channel/"+id+"?role=publish_subscribe" ||
		*out.ContainerName != "web" || *out.TaskArn != able || !*out.Interactive {
		t.Errorf("answer %+v %+v", out, out.Session)
	}
	row, ok := state.Sessions.Get(b.db.Snapshot(), id)
	if !ok || !row.Knows(*out.Session.TokenValue) || row.Knows("") || row.Container != "run-1" || row.Node == "" || row.Status != "Connecting" ||
		!slices.Equal(row.Command, []string{"sh", "-c", "echo 'a b'"}) || row.Target != "ecs:default_"+state.ShortARN(able)+"_run-1" {
		t.Errorf("row %+v", row)
	}
}

func TestWords(t *testing.T) {
	for in, want := range map[string][]string{
		"sh": {"sh"}, "  ls  -l\t/ ": {"ls", "-l", "/"}, `a "b c" 'd "e'`: {"a", "b c", `d "e`}, `a\ b "c\"d\n" '' 'e\'`: {"a b", `c"d\n`, "", `e\`},
		`a"b"'c'`: {"abc"}, "": nil, `"a`: nil, `a\`: nil, `''`: nil,
	} {
		if got, err := words(in); !slices.Equal(got, want) || (err != nil) != (want == nil) {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add(`sh -c "a 'b' \" c"`)
	f.Fuzz(func(t *testing.T, in string) {
		got, err := words(in)
		if err != nil {
			return
		}
		// Quoted, it is the same words again.
		var b strings.Builder
		for _, w := range got {
			b.WriteString("'" + strings.ReplaceAll(w, "'", `'"'"'`) + "' ")
		}
		if again, err := words(b.String()); err != nil || !slices.Equal(again, got) {
			t.Errorf("%q: %q, and then %q, %v", in, got, again, err)
		}
	})
}
