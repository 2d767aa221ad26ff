package ecs

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestRunTaskRefuses(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.register(`{"family":"bridge","containerDefinitions":[{"name":"a","image":"x","memory":64}]}`)
	b.register(`{"family":"ec2only","networkMode":"awsvpc","containerDefinitions":[{"name":"a","image":"x","memory":64}]}`)
	b.register(`{"family":"old","networkMode":"awsvpc","cpu":"256","memory":"512","containerDefinitions":[{"name":"a","image":"x"}]}`)
	try(b, b.DeregisterTaskDefinition, &api.DeregisterTaskDefinitionInput{TaskDefinition: new("old:1")})
	b.register(`{"family":"secret","networkMode":"awsvpc","cpu":"256","memory":"512","executionRoleArn":"x","containerDefinitions":[{"name":"a","image":"x","secrets":[{"name":"S","valueFrom":"p"}]}]}`)
	try(b, b.CreateCluster, &api.CreateClusterInput{ClusterName: new("gone")})
	try(b, b.DeleteCluster, &api.DeleteClusterInput{Cluster: new("gone")})

	const n1 = `"networkConfiguration":` + webNetwork
	for _, c := range []struct{ in, want string }{
		{`{"taskDefinition":"web","count":11}`, "InvalidParameterException: count must be between 1 and 10."},
		{`{"taskDefinition":"web","count":0}`, "InvalidParameterException: count must be between 1 and 10."},
		{`{"taskDefinition":"web","launchType":"FARGATE","capacityProviderStrategy":[{"capacityProvider":"FARGATE"}]}`,
			"InvalidParameterException: Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again."},
		{`{"taskDefinition":"web","capacityProviderStrategy":[{"capacityProvider":"FARGATE"}]}`,
			"InvalidParameterException: " + notAssociated},
		{`{"taskDefinition":"web","group":"service:x"}`, "InvalidParameterException: Invalid namespace for group."},
		{`{"taskDefinition":"web","startedBy":"a b"}`, "InvalidParameterException: StartedBy contains invalid characters."},
		{`{"taskDefinition":"web","clientToken":"a b"}`, "InvalidParameterException: Client token must be at most 64 characters, with codes from 33 to 126."},
		{`{"taskDefinition":"web","cluster":"none"}`, "ClusterNotFoundException: Cluster not found."},
		{`{"taskDefinition":"web","cluster":"gone"}`, "InvalidParameterException: The specified cluster is inactive. Specify an active cluster and try again."},
		{`{"taskDefinition":"nope","launchType":"FARGATE"}`, "ClientException: TaskDefinition not found."},
		{`{"taskDefinition":"web:9","launchType":"FARGATE"}`, "ClientException: TaskDefinition not found."},
		{`{"taskDefinition":"old:1","launchType":"FARGATE"}`, "InvalidParameterException: TaskDefinition is inactive"},
		{`{"taskDefinition":"web","launchType":"FARGATE"}`, "InvalidParameterException: Network Configuration must be provided when networkMode 'awsvpc' is specified."},
		{`{"taskDefinition":"bridge",` + n1 + `}`, "InvalidParameterException: Network Configuration is not valid for the given networkMode of this task definition."},
		{`{"taskDefinition":"web","launchType":"FARGATE","networkConfiguration":{"awsvpcConfiguration":{"subnets":[]}}}`, "InvalidParameterException: subnets can not be empty."},
		{`{"taskDefinition":"web","launchType":"FARGATE","networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-9"]}}}`,
			"InvalidParameterException: Error retrieving subnet information for [subnet-9]: The subnet ID 'subnet-9' does not exist (ErrorCode: InvalidSubnetID.NotFound)"},
		{`{"taskDefinition":"web","launchType":"FARGATE","networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-1"],"securityGroups":["sg-9"]}}}`,
			"InvalidParameterException: Error retrieving security group information for [sg-9]: The security group 'sg-9' does not exist (ErrorCode: InvalidGroup.NotFound)"},
		{`{"taskDefinition":"web","launchType":"FARGATE","networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-1","subnet-3"]}}}`,
			"InvalidParameterException: All subnets must belong to the same VPC."},
		{`{"taskDefinition":"web","launchType":"FARGATE","networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-1"],"securityGroups":["sg-3"]}}}`,
			"InvalidParameterException: The security groups and the subnets must belong to the same VPC."},
		{`{"taskDefinition":"web",` + n1 + `}`, "InvalidParameterException: Assign public IP is not supported for this launch type."},
		{`{"taskDefinition":"bridge"}`, "InvalidParameterException: No Container Instances were found in your cluster."},
		{`{"taskDefinition":"web","networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-1"]}}}`, "InvalidParameterException: No Container Instances were found in your cluster."},
		{`{"taskDefinition":"ec2only","launchType":"FARGATE",` + n1 + `}`, "InvalidParameterException: Task definition does not support launch_type FARGATE."},
		{`{"taskDefinition":"bridge","launchType":"FARGATE"}`, "InvalidParameterException: Task definition does not support launch_type FARGATE."},
		{`{"taskDefinition":"web","launchType":"FARGATE","platformVersion":"9.9.9",` + n1 + `}`, "PlatformUnknownException: The specified platform version does not exist."},
		{`{"taskDefinition":"web","platformVersion":"LATEST",` + n1 + `}`, "InvalidParameterException: The platform version must be null when specifying an EC2 launch type."},
		{`{"taskDefinition":"web","launchType":"FARGATE",` + n1 + `,"overrides":{"containerOverrides":[{"name":"nope"}]}}`,
			"InvalidParameterException: Override for container named nope is not a container in the TaskDefinition"},
		{`{"taskDefinition":"web","launchType":"FARGATE",` + n1 + `,"overrides":{"containerOverrides":[{"name":"web","command":["` + strings.Repeat("x", 8200) + `"]}]}}`,
			"InvalidParameterException: Container Overrides length must be at most 8192"},
		{`{"taskDefinition":"web","launchType":"FARGATE",` + n1 + `,"overrides":{"cpu":"1024"}}`,
			"InvalidParameterException: No Fargate configuration exists for given values: 1024 CPU, 512 memory"},
		{`{"taskDefinition":"web","launchType":"FARGATE",` + n1 + `,"enableExecuteCommand":true}`,
			"InvalidParameterException: The task couldn't be started because a valid taskRoleArn is not being used. Specify a valid task role in your task definition and try again."},
		{`{"taskDefinition":"secret","launchType":"FARGATE",` + n1 + `}`,
			"InvalidParameterException: The task definition field containerDefinitions[].secrets is not supported by this version of Berth."},
		{`{"taskDefinition":"web","launchType":"FARGATE",` + n1 + `,"propagateTags":"SERVICE"}`,
			"InvalidParameterException: Tags cannot be propagated from a service to a task that no service starts."},
		{`{"taskDefinition":"web","launchType":"FARGATE",` + n1 + `,"placementConstraints":[{"type":"distinctInstance"}]}`,
			"InvalidParameterException: Placement constraints are not supported with FARGATE launch type."},
		{`{"taskDefinition":"web","launchType":"FARGATE",` + n1 + `,"tags":[{"key":"aws:x"}]}`,
			"InvalidParameterException: Tag keys starting with 'aws:' are reserved for system use."},
	} {
		refuse(b, b.RunTask, read[api.RunTaskInput](t, c.in), c.want)
	}
	if n := state.Tasks.Count(b.db.Snapshot()); n != 0 {
		t.Errorf("refused requests left %d tasks", n)
	}
}

func TestLifeOfATask(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	out := b.run(`,"tags":[{"key":"team","value":"x"}],"enableECSManagedTags":true,"startedBy":"me/1",
		"overrides":{"containerOverrides":[{"name":"side","command":["echo"]}],"cpu":".5 vCPU","memory":"1GB"}`)
	arn := *out.Tasks[0].TaskArn
	first := out.Tasks[0]
	if first.Version == nil || *first.Version != 1 || *first.LastStatus != "PROVISIONING" || *first.DesiredStatus != "RUNNING" ||
		*first.Cpu != "512" || *first.Memory != "1024" || *first.Group != "family:web" || *first.PlatformVersion != "1.4.0" || len(first.Tags) != 2 {
		t.Errorf("new task: %s", pretty(first))
	}
	wantOverrides := read[api.TaskOverride](t, `{"containerOverrides":[{"name":"web"},{"name":"side","command":["echo"]}],"cpu":"512","memory":"1024","inferenceAcceleratorOverrides":[]}`)
	if d := cmp.Diff(wantOverrides, first.Overrides); d != "" {
		t.Errorf("overrides (-want +got):\n%s", d)
	}
	if *first.Attachments[0].Status != "PRECREATED" || *first.Attachments[0].Details[0].Value != "subnet-1" {
		t.Errorf("new attachment: %s", pretty(first.Attachments))
	}

	b.place(arn)
	b.submit(arn, `{"status":"PENDING","containers":[{"containerName":"web","imageDigest":"sha256:aa"}]}`)
	if got := *b.describe(arn).LastStatus; got != "PROVISIONING" {
		t.Errorf("PENDING before the network is there: %s", got)
	}
	b.attached(arn)
	v := b.describe(arn)
	if *v.LastStatus != "PENDING" || *v.Attachments[0].Status != "ATTACHED" || v.Connectivity != "CONNECTED" {
		t.Errorf("attached: %s", pretty(v))
	}
	if *v.Containers[0].NetworkInterfaces[0].PrivateIpv4Address != "10.0.1.4" || *v.Containers[0].ImageDigest != "sha256:aa" {
		t.Errorf("containers: %s", pretty(v.Containers))
	}
	b.time = b.time.Add(time.Second)
	b.submit(arn, `{"status":"RUNNING","containers":[{"containerName":"web","status":"RUNNING","runtimeId":"r1"},{"containerName":"side","status":"RUNNING"}]}`)
	v = b.describe(arn)
	if *v.LastStatus != "RUNNING" || !v.StartedAt.Equal(b.time) || *v.Containers[0].LastStatus != "RUNNING" || *v.Containers[0].RuntimeId != "r1" {
		t.Errorf("running: %s", pretty(v))
	}
	running := *v.Version
	b.submit(arn, `{"status":"RUNNING"}`)
	if got := *b.describe(arn).Version; got != running {
		t.Errorf("a repeated report changed the version from %d to %d", running, got)
	}

	b.time = b.time.Add(time.Second)
	stopping := b.time
	stop := try(b, b.StopTask, &api.StopTaskInput{Task: new(state.ShortARN(arn)), Reason: new("enough")}).Task
	if *stop.DesiredStatus != "STOPPED" || *stop.LastStatus != "RUNNING" || stop.StopCode != "UserInitiated" || *stop.StoppedReason != "enough" {
		t.Errorf("stop: %s", pretty(stop))
	}
	try(b, b.StopTask, &api.StopTaskInput{Task: &arn, Reason: new("again")})
	b.time = b.time.Add(time.Second)
	b.submit(arn, `{"status":"STOPPED","containers":[{"containerName":"web","status":"STOPPED","exitCode":137},{"containerName":"side","status":"STOPPED","exitCode":0}]}`)
	v = b.describe(arn)
	if *v.LastStatus != "DEPROVISIONING" || *v.StoppedReason != "enough" || *v.Containers[0].ExitCode != 137 || *v.Containers[1].ExitCode != 0 ||
		!v.StoppingAt.Equal(stopping) || !v.ExecutionStoppedAt.Equal(b.time) || *v.Attachments[0].Status != "DETACHING" || v.StoppedAt != nil {
		t.Errorf("stopped by the agent: %s", pretty(v))
	}
	eni, _ := state.NetworkInterfaces.Get(b.db.Snapshot(), b.task(arn).ENI)
	if !eni.Deleting {
		t.Error("the network interface is not being deleted")
	}
	if got := try(b, b.ListTasks, &api.ListTasksInput{}).TaskArns; len(got) != 0 {
		t.Errorf("a stopping task is listed as running: %v", got)
	}
	if got := try(b, b.ListTasks, &api.ListTasksInput{DesiredStatus: "STOPPED"}).TaskArns; !slices.Equal(got, []string{arn}) {
		t.Errorf("stopped tasks: %v", got)
	}
}

func TestStopBeforeAnybodyKnows(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	arn := *b.run("").Tasks[0].TaskArn
	v := try(b, b.StopTask, &api.StopTaskInput{Task: &arn}).Task
	if *v.LastStatus != "STOPPED" || v.StoppedAt == nil || *v.StoppedReason != "Task stopped by user" || *v.Attachments[0].Status != "DELETED" || *v.Containers[0].LastStatus != "STOPPED" {
		t.Errorf("%s", pretty(v))
	}
	refuse(b, b.StopTask, &api.StopTaskInput{Task: new(strings.Repeat("f", 32))}, "InvalidParameterException: The referenced task was not found.")
	refuse(b, b.StopTask, &api.StopTaskInput{Task: new("short")}, "InvalidParameterException: taskId length should be one of [32,36]")
}

func TestWhyATaskStopped(t *testing.T) {
	const run = `{"status":"RUNNING","containers":[{"containerName":"web","status":"RUNNING"}]}`
	for _, c := range []struct {
		name         string
		reports      []string
		code, reason string
	}{
		{"essential exit", []string{run, `{"status":"STOPPED","containers":[{"containerName":"web","status":"STOPPED","exitCode":1}]}`},
			"EssentialContainerExited", "Essential container in task exited"},
		{"quick exit in one report", []string{`{"status":"STOPPED","containers":[{"containerName":"web","status":"STOPPED","exitCode":1}]}`},
			"EssentialContainerExited", "Essential container in task exited"},
		{"out of memory", []string{run, `{"status":"STOPPED","containers":[{"containerName":"web","status":"STOPPED","exitCode":137,"reason":"OutOfMemoryError: Container killed due to memory usage"}]}`},
			"EssentialContainerExited", "Essential container in task exited"},
		{"pull failure", []string{`{"status":"STOPPED","containers":[{"containerName":"web","status":"STOPPED","reason":"CannotPullContainerError: no such image"}]}`},
			"TaskFailedToStart", "CannotPullContainerError: no such image"},
		{"dependency", []string{`{"status":"STOPPED","containers":[{"containerName":"web","status":"STOPPED","exitCode":143,"reason":"CannotStartContainerError: dependency graph: x"}]}`},
			"TaskFailedToStart", "CannotStartContainerError: dependency graph: x"},
		{"agent's own words", []string{`{"status":"STOPPED","reason":"ResourceInitializationError: no network"}`},
			"TaskFailedToStart", "ResourceInitializationError: no network"},
		{"nothing said", []string{`{"status":"STOPPED"}`}, "TaskFailedToStart", "Task failed to start"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.register(webDefinition)
			arn := *b.run("").Tasks[0].TaskArn
			b.place(arn)
			b.attached(arn)
			for _, r := range c.reports {
				b.submit(arn, r)
			}
			v := b.describe(arn)
			if string(v.StopCode) != c.code || *v.StoppedReason != c.reason || *v.DesiredStatus != "STOPPED" {
				t.Errorf("got %s %q", v.StopCode, *v.StoppedReason)
			}
		})
	}
}

func TestOnlyTheNodeReports(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	arn := *b.run("").Tasks[0].TaskArn
	// Before it is placed there is no agent that could know of it.
	for _, ctx := range []context.Context{b.ctx, b.node} {
		_, err := b.SubmitTaskStateChange(ctx, &api.SubmitTaskStateChangeInput{Task: &arn, Status: new("RUNNING")})
		wantError(t, err, "InvalidParameterException: The referenced task was not found.")
	}
	b.place(arn)
	_, err := b.SubmitTaskStateChange(b.ctx, &api.SubmitTaskStateChangeInput{Task: &arn, Status: new("RUNNING")})
	wantError(t, err, "AccessDeniedException: User: arn:aws:iam::"+account+":user/ann is not authorized to report for container instance "+nodeInst)
	other := *auth.FromContext(b.node)
	other.SessionName = "n2"
	if _, err := b.SubmitTaskStateChange(auth.WithCaller(t.Context(), &other), &api.SubmitTaskStateChangeInput{Task: &arn, Status: new("RUNNING")}); wire.Code(err) != "AccessDeniedException" {
		t.Errorf("another node reported for this one's task: %v", err)
	}
	if got := b.task(arn).LastStatus; got != "PROVISIONING" {
		t.Errorf("the task is %s", got)
	}
	_, err = b.SubmitTaskStateChange(b.node, &api.SubmitTaskStateChangeInput{Task: new(prefix + "task/default/" + strings.Repeat("0", 32)), Status: new("RUNNING")})
	wantError(t, err, "InvalidParameterException: The referenced task was not found.")
}

// The instance of a task may be gone before the task is: then nothing but the
// accounts says whose it is.
func TestOthersDoNotReportForAnOrphan(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	arn := *b.run("").Tasks[0].TaskArn
	b.place(arn)
	attachment := prefix + "attachment/" + b.task(arn).NetworkAttachment().ID
	b.put(func(tx *store.Tx) { state.ContainerInstances.Delete(tx, nodeInst) })
	stranger := auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.RootUser, Account: "999999999999", ARN: "arn:aws:iam::999999999999:root"})
	_, err := b.SubmitTaskStateChange(stranger, &api.SubmitTaskStateChangeInput{Task: &arn, Status: new("STOPPED")})
	wantError(t, err, "InvalidParameterException: The referenced task was not found.")
	_, err = b.SubmitContainerStateChange(stranger, &api.SubmitContainerStateChangeInput{Task: &arn, ContainerName: new("web"), Status: new("RUNNING")})
	wantError(t, err, "InvalidParameterException: The referenced task was not found.")
	_, err = b.SubmitAttachmentStateChanges(stranger, &api.SubmitAttachmentStateChangesInput{Attachments: []api.AttachmentStateChange{{AttachmentArn: &attachment, Status: new("ATTACHED")}}})
	wantError(t, err, "InvalidParameterException: The referenced attachment was not found.")
	if got := b.task(arn).LastStatus; got != "PROVISIONING" {
		t.Errorf("the task is %s", got)
	}
	as(b, b.node, b.SubmitTaskStateChange, &api.SubmitTaskStateChangeInput{Task: &arn, Status: new("RUNNING")})
	if got := b.task(arn).LastStatus; got == "PROVISIONING" {
		t.Errorf("a machine's report changed nothing: the task is %s", got)
	}
}

func TestAttachmentReportWithoutItsTask(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	arn := *b.run("").Tasks[0].TaskArn
	b.place(arn)
	a := prefix + "attachment/" + b.task(arn).NetworkAttachment().ID
	as(b, b.node, b.SubmitAttachmentStateChanges, &api.SubmitAttachmentStateChangesInput{Attachments: []api.AttachmentStateChange{{AttachmentArn: &a, Status: new("ATTACHED")}}})
	if got := b.task(arn).LastStatus; got != "PENDING" {
		t.Errorf("the task is %s", got)
	}
	as(b, b.node, b.SubmitContainerStateChange, &api.SubmitContainerStateChangeInput{Task: &arn, ContainerName: new("web"), Status: new("RUNNING"), RuntimeId: new("r")})
	if c := b.task(arn).Containers[0]; c.LastStatus != "RUNNING" || c.RuntimeID != "r" {
		t.Errorf("container: %+v", c)
	}
}

func TestClientToken(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	arns := func(o *api.RunTaskOutput) (out []string) {
		for _, t := range o.Tasks {
			out = append(out, *t.TaskArn)
		}
		slices.Sort(out)
		return out
	}
	first := arns(b.run(`,"clientToken":"tok","count":3`))
	if again := arns(b.run(`,"clientToken":"tok","count":3`)); !slices.Equal(first, again) {
		t.Errorf("the same request made %v, then %v", first, again)
	}
	_, err := b.RunTask(b.ctx, read[api.RunTaskInput](t, `{"taskDefinition":"web","launchType":"FARGATE","clientToken":"tok","count":2,"networkConfiguration":`+webNetwork+`}`))
	conflict, ok := err.(*api.ConflictException)
	if !ok || !slices.Equal(conflict.ResourceIds, first) {
		t.Errorf("other parameters: %v", err)
	}
	_, err = b.RunTask(b.ctx, read[api.RunTaskInput](t, `{"taskDefinition":"web","launchType":"FARGATE","clientToken":"tok","count":3,"overrides":{"cpu":"512","memory":"1024"},"networkConfiguration":`+webNetwork+`}`))
	if _, ok := err.(*api.ConflictException); !ok {
		t.Errorf("other overrides: %v", err)
	}
	b.time = b.time.Add(25 * time.Hour)
	if late := arns(b.run(`,"clientToken":"tok","count":3`)); slices.Equal(first, late) {
		t.Error("the token was still good after a day")
	}
}

// Two requests with one token that overlap make the tasks once.
func TestClientTokenAtTheSameTime(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	const more = `,"clientToken":"tok","overrides":{"taskRoleArn":"r"}`
	var inner *api.RunTaskOutput
	pass := b.cfg.PassRole
	b.cfg.PassRole = func(ctx context.Context, r store.Reader, c *auth.Caller, role, service string) error {
		b.cfg.PassRole = pass
		inner = b.run(more) // commits while the transaction around it is open
		return nil
	}
	outer := b.run(more)
	if *outer.Tasks[0].TaskArn != *inner.Tasks[0].TaskArn || state.Tasks.Count(b.db.Snapshot()) != 1 {
		t.Errorf("%d tasks", state.Tasks.Count(b.db.Snapshot()))
	}
}

// A cluster that is deleted while a task starts gets no task.
func TestClusterGoneMeanwhile(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	pass := b.cfg.PassRole
	b.cfg.PassRole = func(ctx context.Context, r store.Reader, c *auth.Caller, role, service string) error {
		b.cfg.PassRole = pass
		try(b, b.DeleteCluster, &api.DeleteClusterInput{Cluster: new("default")})
		return nil
	}
	refuse(b, b.RunTask, read[api.RunTaskInput](t, `{"taskDefinition":"web","launchType":"FARGATE","overrides":{"taskRoleArn":"r"},"networkConfiguration":`+webNetwork+`}`),
		"InvalidParameterException: The specified cluster is inactive. Specify an active cluster and try again.")
	if n := state.Tasks.Count(b.db.Snapshot()); n != 0 {
		t.Errorf("%d tasks in a deleted cluster", n)
	}
}

func TestTasksOfOtherClustersAreMissing(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	try(b, b.CreateCluster, &api.CreateClusterInput{ClusterName: new("other")})
	arn := *b.run("").Tasks[0].TaskArn
	out := try(b, b.DescribeTasks, &api.DescribeTasksInput{Cluster: new("other"), Tasks: []string{arn}})
	if len(out.Tasks) != 0 || *out.Failures[0].Reason != "MISSING" {
		t.Errorf("%s", pretty(out))
	}
	refuse(b, b.StopTask, &api.StopTaskInput{Cluster: new("other"), Task: &arn}, "InvalidParameterException: The referenced task was not found.")
}

func TestDescribeMissingTasks(t *testing.T) {
	b := newBench(t)
	id := strings.Repeat("a", 32)
	out := try(b, b.DescribeTasks, &api.DescribeTasksInput{Tasks: []string{id}})
	if len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" || *out.Failures[0].Arn != prefix+"task/default/"+id {
		t.Errorf("%s", pretty(out))
	}
	refuse(b, b.DescribeTasks, &api.DescribeTasksInput{}, "InvalidParameterException: Tasks cannot be empty.")
	refuse(b, b.DescribeTasks, &api.DescribeTasksInput{Tasks: []string{prefix + "service/default/x"}}, "InvalidParameterException: Invalid identifier: Identifier is for service. Expected: task")
}

func TestStartTaskFindsNoInstance(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	out := try(b, b.StartTask, &api.StartTaskInput{TaskDefinition: new("web"), ContainerInstances: []string{strings.Repeat("a", 32)},
		NetworkConfiguration: &api.NetworkConfiguration{AwsvpcConfiguration: &api.AwsVpcConfiguration{Subnets: []string{"subnet-1"}}}})
	if len(out.Tasks) != 0 || len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" {
		t.Errorf("%s", pretty(out))
	}
}

func TestStartedByStandsAlone(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	arn := *b.run(`,"startedBy":"me"`).Tasks[0].TaskArn
	b.run(`,"startedBy":"you"`)
	if got := try(b, b.ListTasks, &api.ListTasksInput{StartedBy: new("me"), DesiredStatus: "RUNNING"}).TaskArns; !slices.Equal(got, []string{arn}) {
		t.Errorf("%v", got)
	}
	for _, in := range []*api.ListTasksInput{
		{StartedBy: new("me"), Family: new("web")}, {StartedBy: new("me"), ServiceName: new("web")},
		{StartedBy: new("me"), LaunchType: "FARGATE"}, {StartedBy: new("me"), ContainerInstance: new("x")},
	} {
		refuse(b, b.ListTasks, in, "InvalidParameterException: When specifying startedBy as a filter, it must be the only filter that you use.")
	}
}

func TestListTasksPages(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	for range 3 {
		b.run(`,"count":5`)
	}
	var all []string
	var token *string
	for pages := 0; ; pages++ {
		out := try(b, b.ListTasks, &api.ListTasksInput{MaxResults: new(int32(4)), NextToken: token})
		all = append(all, out.TaskArns...)
		if token = out.NextToken; token == nil {
			if pages != 3 {
				t.Errorf("%d pages", pages+1)
			}
			break
		}
	}
	if len(all) != 15 || len(slices.Compact(slices.Sorted(slices.Values(all)))) != 15 {
		t.Errorf("%d tasks: %v", len(all), all)
	}
	token = try(b, b.ListTasks, &api.ListTasksInput{MaxResults: new(int32(4))}).NextToken
	refuse(b, b.ListTasks, &api.ListTasksInput{NextToken: token, Family: new("web")}, "InvalidParameterException: Invalid token.")
	refuse(b, b.ListTasks, &api.ListTasksInput{NextToken: new("zzz")}, "InvalidParameterException: Invalid token.")
	refuse(b, b.ListTasks, &api.ListTasksInput{MaxResults: new(int32(101))}, "InvalidParameterException: maxResults must be between 1 and 100.")
	b.time = b.time.Add(24 * time.Hour)
	refuse(b, b.ListTasks, &api.ListTasksInput{NextToken: token}, "InvalidParameterException: The token has expired.")
}

// However reports and stop requests are ordered, a task never goes back, keeps
// the first reason to stop, and its version counts what changed.
func TestReportsInAnyOrder(t *testing.T) {
	order := map[string]int{"PROVISIONING": 1, "PENDING": 2, "ACTIVATING": 3, "RUNNING": 4, "DEACTIVATING": 5, "STOPPING": 6, "DEPROVISIONING": 7, "STOPPED": 8}
	statuses := []string{"", "PENDING", "RUNNING", "STOPPED"}
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		task := &state.Task{ARN: prefix + "task/default/x", LastStatus: state.Provisioning, DesiredStatus: state.Running, Version: 1,
			Containers:  []state.Container{{Name: "a", LastStatus: state.Pending, Essential: true}, {Name: "b", LastStatus: state.Pending}},
			Attachments: []state.Attachment{{ID: "att", Type: "ElasticNetworkInterface", Status: "CREATED"}}}
		if rapid.Bool().Draw(t, "eni") {
			task.ENI = "eni-1"
		}
		released := 0
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			now = now.Add(time.Second)
			old := task
			kept := old.Clone()
			if rapid.IntRange(0, 4).Draw(t, "kind") == 0 {
				task = task.Clone()
				task.WantStop("UserInitiated", rapid.SampledFrom([]string{"one", "two"}).Draw(t, "reason"), now)
			} else {
				r := report{status: rapid.SampledFrom(statuses).Draw(t, "status"), reason: rapid.SampledFrom([]string{"", "why"}).Draw(t, "why")}
				for _, n := range []string{"a", "b", "unknown"} {
					if s := rapid.SampledFrom(append(statuses, "NONSENSE")).Draw(t, n); s != "" {
						c := api.ContainerStateChange{ContainerName: &n, Status: &s}
						if rapid.Bool().Draw(t, "exit") {
							c.ExitCode = new(rapid.Int32Range(0, 255).Draw(t, "code"))
						}
						r.containers = append(r.containers, c)
					}
				}
				if s := rapid.SampledFrom([]string{"", "ATTACHED", "DETACHED", "NONSENSE"}).Draw(t, "attachment"); s != "" {
					r.attachments = append(r.attachments, api.AttachmentStateChange{AttachmentArn: new(prefix + "attachment/att"), Status: &s})
				}
				var release bool
				if task, release = apply(task, r, now); release {
					released++
				}
			}
			if d := cmp.Diff(kept, old); d != "" {
				t.Fatalf("the old task was modified: %s", d)
			}
			if order[task.LastStatus] < order[old.LastStatus] {
				t.Fatalf("went back from %s to %s", old.LastStatus, task.LastStatus)
			}
			if old.LastStatus == state.Stopped && task.LastStatus == state.Stopped && !cmp.Equal(old, task) && old.DesiredStatus == state.Stopped {
				t.Fatalf("a stopped task changed: %s", cmp.Diff(old, task))
			}
			if old.DesiredStatus == state.Stopped && (task.DesiredStatus != state.Stopped || task.StopCode != old.StopCode || task.StoppedReason != old.StoppedReason || !task.StoppingAt.Equal(old.StoppingAt)) {
				t.Fatalf("the first stop reason %s %q became %s %q", old.StopCode, old.StoppedReason, task.StopCode, task.StoppedReason)
			}
			if !old.StartedAt.IsZero() && !task.StartedAt.Equal(old.StartedAt) {
				t.Fatal("startedAt moved")
			}
			if changed := !cmp.Equal(old, task); changed != (task.Version > old.Version) {
				t.Fatalf("changed %v, version from %d to %d", changed, old.Version, task.Version)
			}
			for i := range task.Containers {
				o, c := old.Containers[i], task.Containers[i]
				if slices.Index(containerOrder, c.LastStatus) < slices.Index(containerOrder, o.LastStatus) || o.ExitCode != nil && *o.ExitCode != *c.ExitCode {
					t.Fatalf("container went from %+v to %+v", o, c)
				}
			}
			if task.Past(state.Deprovisioning) && task.StopCode == "" {
				t.Fatal("stopped without a stop code")
			}
			if task.LastStatus == state.Stopped && task.StoppedAt.IsZero() {
				t.Fatal("stopped at no time")
			}
		}
		if released > 1 {
			t.Fatalf("released the interface %d times", released)
		}
	})
}

func TestTaskWithoutInterfaceStopsAtOnce(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	arn := *b.run("").Tasks[0].TaskArn
	b.place(arn)
	b.put(func(tx *store.Tx) { state.NetworkInterfaces.Delete(tx, b.task(arn).ENI) })
	b.submit(arn, `{"status":"STOPPED"}`)
	if v := b.describe(arn); *v.LastStatus != "STOPPED" || v.StoppedAt == nil {
		t.Errorf("%s", pretty(v))
	}
}

// What a definition may say and nothing here can do is refused when it is to
// run, by the field's name.
func TestDefinitionsThatCannotRunYet(t *testing.T) {
	b := newBench(t)
	top := fargate + `,"executionRoleArn":"x"`
	for i, c := range []struct{ def, field string }{
		{def(top+`,"proxyConfiguration":{"type":"APPMESH","containerName":"a"}`, box("")), "proxyConfiguration"},
		{def(top+`,"enableFaultInjection":true`, box("")), "enableFaultInjection"},
		{def(top+`,"volumes":[{"name":"v","efsVolumeConfiguration":{"fileSystemId":"fs"}}]`, box("")), "volumes[].efsVolumeConfiguration"},
		{def(top+`,"volumes":[{"name":"v","configuredAtLaunch":true}]`, box("")), "volumes[].configuredAtLaunch"},
		{def(top+`,"volumes":[{"name":"v","s3filesVolumeConfiguration":{"fileSystemArn":"fs"}}]`, box("")), "volumes[].s3filesVolumeConfiguration"},
		{def(top, box(`"repositoryCredentials":{"credentialsParameter":"x"}`)), "containerDefinitions[].repositoryCredentials"},
		{def(top, box(`"environmentFiles":[{"type":"s3","value":"x.env"}]`)), "containerDefinitions[].environmentFiles"},
		{def(top, box(`"firelensConfiguration":{"type":"fluentbit"}`)), "containerDefinitions[].firelensConfiguration"},
		{def(top, box(`"credentialSpecs":["x"]`)), "containerDefinitions[].credentialSpecs"},
		{def(top, box(`"logConfiguration":{"logDriver":"splunk"}`)), "containerDefinitions[].logConfiguration.logDriver splunk"},
		{def(strings.NewReplacer(`"256"`, `"1024"`, `"512"`, `"2048"`).Replace(top)+`,"runtimePlatform":{"operatingSystemFamily":"WINDOWS_SERVER_2022_CORE"}`, box("")), "runtimePlatform.operatingSystemFamily WINDOWS_SERVER_2022_CORE"},
	} {
		if d := b.register(c.def); *d.Revision != int32(i+1) {
			t.Fatalf("revision %d", *d.Revision)
		}
		want := "InvalidParameterException: The task definition field " + c.field + " is not supported by this version of Berth."
		refuse(b, b.RunTask, read[api.RunTaskInput](t, `{"taskDefinition":"f","launchType":"FARGATE","networkConfiguration":`+webNetwork+`}`), want)
		refuse(b, b.CreateService, read[api.CreateServiceInput](t, strings.Replace(serviceInput(""), `"taskDefinition":"web"`, `"taskDefinition":"f"`, 1)), want)
	}
}

// What ran on a node that was stopped ended with it, and neither by itself nor
// for a second reason. What had not begun begins when the node is back.
func TestHostStopped(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	var arns []string
	for range 4 {
		arns = append(arns, *b.run("").Tasks[0].TaskArn)
	}
	running, user, waiting, elsewhere := arns[0], arns[1], arns[2], arns[3]
	for _, arn := range arns {
		b.place(arn)
		b.attached(arn)
		if arn != waiting {
			b.submit(arn, `{"status":"RUNNING"}`)
		}
	}
	try(b, b.StopTask, &api.StopTaskInput{Task: &user, Reason: new("enough")})
	b.put(func(tx *store.Tx) {
		state.Nodes.Put(tx, &state.Node{Name: "n1", Instance: nodeInst})
		away := b.task(elsewhere).Clone()
		away.Instance = nodeInst + "2"
		state.Tasks.Put(tx, away)
	})
	for range 2 { // whoever did it may die before it is noted
		b.must(b.HostStopped(b.ctx, "n1"))
	}
	b.must(b.HostStopped(b.ctx, "nobody"))
	b.submit(running, `{"status":"STOPPED","reason":"lost"}`)
	for arn, want := range map[string]string{running: "STOPPED TerminationNotice Host stopped.", user: "STOPPED UserInitiated enough", waiting: "RUNNING  ", elsewhere: "RUNNING  "} {
		now := b.task(arn)
		if got := now.DesiredStatus + " " + now.StopCode + " " + now.StoppedReason; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
