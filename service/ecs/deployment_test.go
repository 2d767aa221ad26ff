package ecs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/deploy"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// plan lets the deploy controller do all that it wants to.
func (b *bench) plan() {
	b.t.Helper()
	for range 50 {
		p := deploy.Plan(control.Input{Read: b.db.Snapshot(), All: true, Now: b.time, NewID: b.cfg.NewID}, deploy.Settings{HealthyAfter: 5 * time.Second})
		if len(p.Changes) == 0 {
			return
		}
		if ok, err := control.Apply(b.ctx, b.db, p); !ok || err != nil {
			b.t.Fatalf("apply: %v %v", ok, err)
		}
	}
	b.t.Fatal("plans never end")
}

// play lets a machine do with each task what is wanted of it, for ten seconds
// at a time. A task for which fails holds does not start.
func (b *bench) play(rounds int, fails func(*state.Task) bool) {
	b.t.Helper()
	for range rounds {
		b.plan()
		b.put(func(tx *store.Tx) {
			for old := range state.Tasks.All(tx) {
				n := old.Clone()
				switch {
				case n.LastStatus == state.Stopped:
					continue
				case n.DesiredStatus == state.Stopped:
					n.End(b.time)
				case n.LastStatus == state.Running:
					continue
				case fails != nil && fails(n):
					n.WantStop("TaskFailedToStart", "CannotPullContainerError: no", b.time)
					n.End(b.time)
				default:
					n.Advance(state.Running)
					n.StartedAt = b.time
					for i := range n.Containers {
						n.Containers[i].ImageDigest = "sha256:" + n.Containers[i].Name
					}
				}
				state.Tasks.Put(tx, n)
			}
		})
		b.time = b.time.Add(10 * time.Second)
	}
	b.plan()
}

// Versions before service deployments kept neither them nor revisions: what
// replaces such a deployment says what was there before.
func TestServiceFromBeforeRevisions(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	try(b, b.CreateService, read[api.CreateServiceInput](t, `{"serviceName":"web","taskDefinition":"web","desiredCount":1,"launchType":"FARGATE","networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-1"]}}}`))
	b.play(3, nil)
	b.put(func(tx *store.Tx) {
		for s := range state.Services.All(tx) {
			n := s.Clone()
			n.ServiceDeployment, n.Request = "", ""
			state.Services.Put(tx, n)
		}
		for d := range state.ServiceDeployments.All(tx) {
			state.ServiceDeployments.Delete(tx, d.ARN)
		}
		for v := range state.ServiceRevisions.All(tx) {
			state.ServiceRevisions.Delete(tx, v.ARN)
		}
	})
	if s := b.web(); *s.RunningCount != 1 || s.CurrentServiceDeployment != nil || len(s.CurrentServiceRevisions) != 0 {
		t.Errorf("before: %+v", s)
	}
	try(b, b.UpdateService, &api.UpdateServiceInput{Service: new("web"), ForceNewDeployment: new(true)})
	b.play(4, nil)
	all := b.rollouts()
	if len(all) != 1 || all[0].Status != api.ServiceDeploymentStatusSuccessful || len(all[0].SourceServiceRevisions) != 1 {
		t.Fatalf("after: %+v", all)
	}
	got := try(b, b.DescribeServiceRevisions, &api.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{*all[0].SourceServiceRevisions[0].Arn}})
	if len(got.ServiceRevisions) != 1 {
		t.Fatalf("the source cannot be described: %+v", got.Failures)
	}
	if v := got.ServiceRevisions[0]; *v.TaskDefinition != prefix+"task-definition/web:1" || len(v.ContainerImages) != 2 || *v.ContainerImages[0].ImageDigest != "sha256:web" {
		t.Errorf("source: %+v", v)
	}
}

func (b *bench) web() api.Service {
	b.t.Helper()
	return try(b, b.DescribeServices, &api.DescribeServicesInput{Services: []string{"web"}}).Services[0]
}

// rollouts are the service deployments of the service, newest first.
func (b *bench) rollouts() []api.ServiceDeployment {
	b.t.Helper()
	var arns []string
	for _, d := range try(b, b.ListServiceDeployments, &api.ListServiceDeploymentsInput{Service: new("web")}).ServiceDeployments {
		arns = append(arns, *d.ServiceDeploymentArn)
	}
	return try(b, b.DescribeServiceDeployments, &api.DescribeServiceDeploymentsInput{ServiceDeploymentArns: arns}).ServiceDeployments
}

func (b *bench) statuses() (out []string) {
	b.t.Helper()
	for _, d := range b.rollouts() {
		out = append(out, string(d.Status))
	}
	return out
}

func (b *bench) wantStatuses(want ...string) {
	b.t.Helper()
	if got := b.statuses(); !slices.Equal(got, want) {
		b.t.Errorf("service deployments %q, want %q", got, want)
	}
}

func TestServiceDeploymentAndRevision(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	created := b.time
	s := b.createService(`,"deploymentConfiguration":{"deploymentCircuitBreaker":{"enable":true,"rollback":true}}`)
	if s.CurrentServiceDeployment == nil || !regexp.MustCompile(`^`+prefix+`service-deployment/default/web/[A-Za-z0-9_-]{21}$`).MatchString(*s.CurrentServiceDeployment) {
		t.Fatalf("current service deployment %s", pretty(s.CurrentServiceDeployment))
	}
	if len(s.CurrentServiceRevisions) != 1 || *s.CurrentServiceRevisions[0].Arn != prefix+"service-revision/default/web/"+strings.TrimPrefix(*s.Deployments[0].Id, "ecs-svc/") {
		t.Fatalf("current revisions %s", pretty(s.CurrentServiceRevisions))
	}
	d := b.rollouts()[0]
	if d.Status != "PENDING" || d.StartedAt != nil || !d.CreatedAt.Equal(created) || len(d.SourceServiceRevisions) != 0 || *d.TargetServiceRevision.RequestedTaskCount != 2 ||
		d.DeploymentCircuitBreaker.Status != "MONITORING" {
		t.Errorf("at first: %s", pretty(d))
	}
	b.plan()
	if d = b.rollouts()[0]; d.Status != "IN_PROGRESS" || d.StartedAt == nil || *d.TargetServiceRevision.PendingTaskCount != 2 || *d.DeploymentCircuitBreaker.Threshold != 3 {
		t.Errorf("in progress: %s", pretty(d))
	}
	b.play(3, nil)
	d = b.rollouts()[0]
	if d.Status != "SUCCESSFUL" || d.FinishedAt == nil || *d.TargetServiceRevision.RunningTaskCount != 2 || d.DeploymentCircuitBreaker.Status != "MONITORING_COMPLETE" || d.StatusReason != nil {
		t.Errorf("in the end: %s", pretty(d))
	}
	rev := try(b, b.DescribeServiceRevisions, &api.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{*d.TargetServiceRevision.Arn}}).ServiceRevisions[0]
	want := read[api.ServiceRevision](t, `{"serviceRevisionArn":"`+*d.TargetServiceRevision.Arn+`","serviceArn":"`+prefix+`service/default/web","clusterArn":"`+prefix+`cluster/default",
		"taskDefinition":"`+prefix+`task-definition/web:1","launchType":"FARGATE","platformVersion":"1.4.0","platformFamily":"Linux","loadBalancers":[],"serviceRegistries":[],
		"networkConfiguration":`+webNetwork+`,"guardDutyEnabled":false,"volumeConfigurations":[],"vpcLatticeConfigurations":[],
		"containerImages":[{"containerName":"web","image":"nginx","imageDigest":"sha256:web"},{"containerName":"side","image":"busybox","imageDigest":"sha256:side"}]}`)
	want.CreatedAt = &created
	if diff := cmp.Diff(want, &rev); diff != "" {
		t.Errorf("revision (-want +got):\n%s", diff)
	}

	// Scaling is no deployment; a new definition is one, with the old revision as its source.
	b.updateService(`{"service":"web","desiredCount":3}`)
	b.play(2, nil)
	b.wantStatuses("SUCCESSFUL")
	b.register(webDefinition)
	b.updateService(`{"service":"web","taskDefinition":"web:2"}`)
	b.wantStatuses("PENDING", "SUCCESSFUL")
	b.plan()
	both := b.web()
	if len(both.CurrentServiceRevisions) != 2 || *both.CurrentServiceRevisions[0].PendingTaskCount != 3 || *both.CurrentServiceRevisions[1].RunningTaskCount != 3 {
		t.Errorf("revisions: %s", pretty(both.CurrentServiceRevisions))
	}
	if n := b.rollouts()[0]; len(n.SourceServiceRevisions) != 1 || *n.SourceServiceRevisions[0].Arn != *rev.ServiceRevisionArn || *n.SourceServiceRevisions[0].RunningTaskCount != 3 {
		t.Errorf("second deployment: %s", pretty(n))
	}
	if old := b.rollouts()[1]; *old.TargetServiceRevision.RunningTaskCount != 2 {
		t.Errorf("what has finished changed: %s", pretty(old.TargetServiceRevision))
	}

	// A newer deployment stops the one that is under way.
	b.time = b.time.Add(time.Second)
	b.updateService(`{"service":"web","forceNewDeployment":true}`)
	b.wantStatuses("PENDING", "STOP_REQUESTED", "SUCCESSFUL")
	b.plan()
	b.wantStatuses("IN_PROGRESS", "STOPPED", "SUCCESSFUL")
	if n := b.rollouts(); n[1].FinishedAt == nil || n[1].StoppedAt == nil || len(n[0].SourceServiceRevisions) != 2 {
		t.Errorf("superseded: %s", pretty(n[:2]))
	}
	b.play(4, nil)
	b.wantStatuses("SUCCESSFUL", "STOPPED", "SUCCESSFUL")
}

func TestListServiceDeployments(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.createService("")
	b.play(3, nil)
	first := b.time
	for range 2 {
		b.time = b.time.Add(time.Minute)
		b.updateService(`{"service":"web","forceNewDeployment":true}`)
		b.plan()
	}
	count := func(in *api.ListServiceDeploymentsInput) int {
		in.Service = new("web")
		return len(try(b, b.ListServiceDeployments, in).ServiceDeployments)
	}
	for name, c := range map[string]struct {
		in   api.ListServiceDeploymentsInput
		want int
	}{
		"all":        {api.ListServiceDeploymentsInput{}, 3},
		"successful": {api.ListServiceDeploymentsInput{Status: []api.ServiceDeploymentStatus{"SUCCESSFUL"}}, 1},
		"two":        {api.ListServiceDeploymentsInput{Status: []api.ServiceDeploymentStatus{"SUCCESSFUL", "STOPPED"}}, 2},
		"after":      {api.ListServiceDeploymentsInput{CreatedAt: &api.CreatedAt{After: &first}}, 2},
		"before":     {api.ListServiceDeploymentsInput{CreatedAt: &api.CreatedAt{Before: &first}}, 1},
		"between":    {api.ListServiceDeploymentsInput{CreatedAt: &api.CreatedAt{After: &first, Before: new(first.Add(90 * time.Second))}}, 1},
	} {
		if got := count(&c.in); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	one := try(b, b.ListServiceDeployments, &api.ListServiceDeploymentsInput{Service: new("web"), MaxResults: new(int32(2))})
	two := try(b, b.ListServiceDeployments, &api.ListServiceDeploymentsInput{Service: new("web"), MaxResults: new(int32(2)), NextToken: one.NextToken})
	all := append(one.ServiceDeployments, two.ServiceDeployments...)
	if len(one.ServiceDeployments) != 2 || len(all) != 3 || two.NextToken != nil || !all[0].CreatedAt.After(*all[1].CreatedAt) || !all[1].CreatedAt.After(*all[2].CreatedAt) {
		t.Errorf("pages: %s", pretty(all))
	}
	refuse(b, b.ListServiceDeployments, &api.ListServiceDeploymentsInput{Service: new("web"), Status: []api.ServiceDeploymentStatus{"STOPPED"}, NextToken: one.NextToken}, "InvalidParameterException: Invalid token.")
	refuse(b, b.ListServiceDeployments, &api.ListServiceDeploymentsInput{Service: new("none")}, "ServiceNotFoundException: Service not found.")
	refuse(b, b.ListServiceDeployments, &api.ListServiceDeploymentsInput{Service: new("web"), CreatedAt: &api.CreatedAt{After: &first, Before: &first}},
		"InvalidParameterException: The createdAt filter is not valid: 'after' must be earlier than 'before'.")

	// Another account sees nothing of it, and a deleted service has no history.
	arn := *all[0].ServiceDeploymentArn
	other := auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.RootUser, Account: "999999999999", ARN: "arn:aws:iam::999999999999:root"})
	if _, err := b.DescribeServiceDeployments(other, &api.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{arn}}); err == nil {
		t.Error("another account describes the deployment")
	}
	if _, err := b.StopServiceDeployment(other, &api.StopServiceDeploymentInput{ServiceDeploymentArn: &arn}); err == nil {
		t.Error("another account stops the deployment")
	}
	try(b, b.DeleteService, &api.DeleteServiceInput{Service: new("web"), Force: new(true)})
	b.play(2, nil)
	b.time = b.time.Add(time.Second)
	missing := func() {
		t.Helper()
		got := try(b, b.DescribeServiceDeployments, &api.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{arn}})
		if len(got.ServiceDeployments) != 0 || len(got.Failures) != 1 || *got.Failures[0].Reason != "MISSING" || *got.Failures[0].Arn != arn {
			t.Errorf("%s", pretty(got))
		}
	}
	missing()
	b.createService("")
	missing()
	b.wantStatuses("PENDING")
}

func TestDescribeHistoryRefuses(t *testing.T) {
	b := newBench(t)
	refuse(b, b.DescribeServiceDeployments, &api.DescribeServiceDeploymentsInput{}, "InvalidParameterException: serviceDeploymentArns cannot be empty.")
	refuse(b, b.DescribeServiceRevisions, &api.DescribeServiceRevisionsInput{ServiceRevisionArns: slices.Repeat([]string{"x"}, 21)}, "InvalidParameterException: serviceRevisionArns cannot exceed 20 elements")
	refuse(b, b.DescribeServiceRevisions, &api.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{"x"}}, "InvalidParameterException: Invalid identifier: x")
	refuse(b, b.DescribeServiceRevisions, &api.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{prefix + "service-deployment/c/s/1"}},
		"InvalidParameterException: Invalid identifier: Identifier is for service-deployment. Expected: service-revision")
	gone := prefix + "service-deployment/default/web/x"
	refuse(b, b.StopServiceDeployment, &api.StopServiceDeploymentInput{ServiceDeploymentArn: &gone}, "ServiceDeploymentNotFoundException: Service deployment not found.")
	refuse(b, b.ContinueServiceDeployment, &api.ContinueServiceDeploymentInput{ServiceDeploymentArn: &gone, HookId: new("h")}, "ServiceDeploymentNotFoundException: Service deployment not found.")
	b.register(webDefinition)
	arn := b.createService("").CurrentServiceDeployment
	refuse(b, b.ContinueServiceDeployment, &api.ContinueServiceDeploymentInput{ServiceDeploymentArn: arn, HookId: new("h")},
		"InvalidParameterException: The service deployment has no lifecycle hook h that awaits an action.")
}

func TestStopServiceDeploymentRollsBack(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	first := b.createService("")
	stop := &api.StopServiceDeploymentInput{ServiceDeploymentArn: first.CurrentServiceDeployment, StopType: api.StopServiceDeploymentStopTypeRollback}
	refuse(b, b.StopServiceDeployment, stop, "ConflictException: The service deployment cannot be rolled back because there is no service revision to roll back to.")
	b.play(3, nil)
	refuse(b, b.StopServiceDeployment, stop, "ConflictException: The service deployment cannot be stopped because it is in the SUCCESSFUL state.")

	b.time = b.time.Add(time.Minute)
	b.register(webDefinition)
	up := b.updateService(`{"service":"web","taskDefinition":"web"}`)
	b.plan()
	stop.ServiceDeploymentArn = up.CurrentServiceDeployment
	out := try(b, b.StopServiceDeployment, stop)
	if *out.ServiceDeploymentArn != *up.CurrentServiceDeployment || b.statuses()[0] != "ROLLBACK_REQUESTED" {
		t.Errorf("%s, %v", pretty(out), b.statuses())
	}
	try(b, b.StopServiceDeployment, stop) // it goes on with that
	b.plan()
	d := b.rollouts()[0]
	if d.Status != "ROLLBACK_IN_PROGRESS" || d.Rollback == nil || *d.Rollback.ServiceRevisionArn != *d.SourceServiceRevisions[0].Arn || d.Rollback.StartedAt == nil || d.StoppedAt == nil {
		t.Errorf("%s", pretty(d))
	}
	b.play(4, nil)
	if d = b.rollouts()[0]; d.Status != "ROLLBACK_SUCCESSFUL" || d.FinishedAt == nil || *d.TargetServiceRevision.RunningTaskCount != 0 || *d.SourceServiceRevisions[0].RunningTaskCount != 2 {
		t.Errorf("%s", pretty(d))
	}
	if s := b.web(); *s.TaskDefinition != *first.TaskDefinition || *s.Deployments[0].Id != *first.Deployments[0].Id || len(s.Deployments) != 1 || *s.RunningCount != 2 {
		t.Errorf("%s", pretty(s))
	}
}

func TestStopServiceDeploymentAborts(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.createService("")
	b.play(3, nil)
	b.time = b.time.Add(time.Minute)
	up := b.updateService(`{"service":"web","forceNewDeployment":true}`)
	old := *up.Deployments[1].Id
	try(b, b.StopServiceDeployment, &api.StopServiceDeploymentInput{ServiceDeploymentArn: up.CurrentServiceDeployment, StopType: api.StopServiceDeploymentStopTypeAbort})
	b.play(4, nil)
	b.wantStatuses("STOPPED", "SUCCESSFUL")
	s := b.web()
	if s.Deployments[0].RolloutState != "FAILED" || *s.Deployments[0].RunningCount != 0 || *s.Deployments[1].Id != old || *s.Deployments[1].RunningCount != 2 {
		t.Errorf("%s", pretty(s.Deployments))
	}
}

func TestCircuitBreakerInServiceDeployment(t *testing.T) {
	for _, rollback := range []bool{true, false} {
		t.Run(fmt.Sprint("rollback ", rollback), func(t *testing.T) {
			b := newBench(t)
			b.register(webDefinition)
			b.createService(fmt.Sprintf(`,"deploymentConfiguration":{"deploymentCircuitBreaker":{"enable":true,"rollback":%v}}`, rollback))
			b.play(3, nil)
			bad := b.register(webDefinition)
			b.time = b.time.Add(time.Minute)
			b.updateService(`{"service":"web","taskDefinition":"web:2"}`)
			b.play(12, func(t *state.Task) bool { return t.TaskDefinition == *bad.TaskDefinitionArn })
			d := b.rollouts()[0]
			if d.DeploymentCircuitBreaker.Status != "TRIGGERED" || *d.DeploymentCircuitBreaker.FailureCount != 3 {
				t.Errorf("breaker: %s", pretty(d.DeploymentCircuitBreaker))
			}
			status, reason := "STOPPED", "Service deployment stopped because the circuit breaker threshold was exceeded."
			if rollback {
				status, reason = "ROLLBACK_SUCCESSFUL", "Service deployment rolled back because the circuit breaker threshold was exceeded."
				if d.Rollback == nil || *d.Rollback.Reason != reason || *d.Rollback.ServiceRevisionArn != *d.SourceServiceRevisions[0].Arn {
					t.Errorf("rollback: %s", pretty(d.Rollback))
				}
			}
			if string(d.Status) != status || *d.StatusReason != reason {
				t.Errorf("%s: %s", d.Status, *d.StatusReason)
			}
			if s := b.web(); *s.RunningCount != 2 {
				t.Errorf("%d tasks run", *s.RunningCount)
			}
		})
	}
}

func TestListServicesByNamespace(t *testing.T) {
	b := newBench(t)
	in := func(ns string) *api.ListServicesByNamespaceInput {
		return &api.ListServicesByNamespaceInput{Namespace: &ns}
	}
	refuse(b, b.ListServicesByNamespace, in("prod"), "NamespaceNotFoundException: The specified namespace was not found.")
	refuse(b, b.ListServicesByNamespace, in("arn:aws:servicediscovery:us-east-1:1:namespace/ns-1"), "NamespaceNotFoundException: The specified namespace was not found.")
	refuse(b, b.ListServicesByNamespace, in("arn:aws:ecs:us-east-1:1:cluster/c"), "InvalidParameterException: Invalid namespace ARN: arn:aws:ecs:us-east-1:1:cluster/c")
	refuse(b, b.ListServicesByNamespace, in(""), "InvalidParameterException: Namespace must be 1 to 1024 characters.")
}

func (b *bench) protect(in string) *api.UpdateTaskProtectionOutput {
	b.t.Helper()
	return try(b, b.UpdateTaskProtection, read[api.UpdateTaskProtectionInput](b.t, in))
}

func TestTaskProtection(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.createService("")
	b.play(3, nil)
	tasks := try(b, b.ListTasks, &api.ListTasksInput{ServiceName: new("web")}).TaskArns
	lone := *b.run("").Tasks[0].TaskArn
	list := func(arns ...string) string {
		return `"cluster":"default","tasks":["` + strings.Join(arns, `","`) + `"]`
	}

	none := prefix + "task/default/" + strings.Repeat("f", 32)
	out := b.protect(`{` + list(tasks[0], lone, none) + `,"protectionEnabled":true}`)
	if p := out.ProtectedTasks; len(p) != 1 || !*p[0].ProtectionEnabled || !p[0].ExpirationDate.Equal(b.time.Add(2*time.Hour)) {
		t.Errorf("%s", pretty(p))
	}
	if f := out.Failures; len(f) != 2 || *f[0].Reason != "TASK_NOT_VALID" || *f[1].Reason != "MISSING" {
		t.Errorf("%s", pretty(f))
	}
	get := func() *api.GetTaskProtectionOutput {
		return try(b, b.GetTaskProtection, &api.GetTaskProtectionInput{Cluster: new("default"), Tasks: tasks})
	}
	if p := get().ProtectedTasks; len(p) != 2 || !*p[0].ProtectionEnabled || *p[1].ProtectionEnabled || p[1].ExpirationDate != nil {
		t.Errorf("%s", pretty(p))
	}

	// Scaling in takes the other task, and waits for the protected one.
	b.updateService(`{"service":"web","desiredCount":0}`)
	b.play(2, nil)
	if b.task(tasks[0]).DesiredStatus != state.Running || b.task(tasks[1]).LastStatus != state.Stopped {
		t.Errorf("protected %s, other %s", b.task(tasks[0]).DesiredStatus, b.task(tasks[1]).LastStatus)
	}
	if f := b.protect(`{` + list(tasks[1]) + `,"protectionEnabled":true}`).Failures; len(f) != 1 || *f[0].Reason != "TASK_NOT_VALID" {
		t.Errorf("a stopped task: %s", pretty(f))
	}
	id := *b.web().Deployments[0].Id
	want := "(service web) was unable to reach steady state because (taskSet " + id + ") was unable to scale in due to (reason 1 tasks under protection)"
	said := 0
	for _, e := range b.web().Events {
		if *e.Message == want {
			said++
		}
	}
	if said != 1 {
		t.Errorf("said %d times: %s", said, pretty(b.web().Events))
	}
	b.time = b.time.Add(3 * time.Hour)
	if p := get().ProtectedTasks[0]; *p.ProtectionEnabled {
		t.Error("the protection did not expire")
	}
	b.play(2, nil)
	if b.task(tasks[0]).LastStatus != state.Stopped {
		t.Error("the task outlived its protection")
	}

	const ip = "InvalidParameterException: "
	for in, want := range map[string]string{
		`{"cluster":"default","tasks":[],"protectionEnabled":true}`:                     ip + "The number of tasks must be between 1 and 10.",
		`{` + list(slices.Repeat([]string{lone}, 11)...) + `,"protectionEnabled":true}`: ip + "The number of tasks must be between 1 and 10.",
		`{` + list(lone) + `,"protectionEnabled":true,"expiresInMinutes":0}`:            ip + "expiresInMinutes must be between 1 and 2880.",
		`{` + list(lone) + `,"protectionEnabled":true,"expiresInMinutes":2881}`:         ip + "expiresInMinutes must be between 1 and 2880.",
		`{"cluster":"none","tasks":["` + lone + `"],"protectionEnabled":true}`:          "ClusterNotFoundException: Cluster not found.",
	} {
		refuse(b, b.UpdateTaskProtection, read[api.UpdateTaskProtectionInput](t, in), want)
	}
}

// A deployment goes on around a protected task, says why it does not end, and
// lets nobody protect more.
func TestProtectionBlocksDeployment(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.createService("")
	b.play(3, nil)
	tasks := try(b, b.ListTasks, &api.ListTasksInput{ServiceName: new("web")}).TaskArns
	b.protect(`{"cluster":"default","tasks":["` + tasks[0] + `"],"protectionEnabled":true,"expiresInMinutes":2880}`)
	b.time = b.time.Add(time.Minute)
	b.updateService(`{"service":"web","forceNewDeployment":true}`)
	b.play(4, nil)
	b.wantStatuses("IN_PROGRESS", "SUCCESSFUL")
	if s := b.web(); *s.RunningCount != 3 || len(s.Deployments) != 2 || b.task(tasks[0]).DesiredStatus != state.Running {
		t.Errorf("%s", pretty(s.Deployments))
	}
	out := b.protect(`{"cluster":"default","tasks":["` + tasks[0] + `"],"protectionEnabled":true,"expiresInMinutes":2880}`)
	if len(out.ProtectedTasks) != 0 || *out.Failures[0].Reason != "DEPLOYMENT_BLOCKED" {
		t.Errorf("%s", pretty(out))
	}
	b.protect(`{"cluster":"default","tasks":["` + tasks[0] + `"],"protectionEnabled":false}`)
	b.play(3, nil)
	b.wantStatuses("SUCCESSFUL", "SUCCESSFUL")
}

func TestClientTokenOfRunTask(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	first := b.run(`,"clientToken":"one","count":2`)
	// A newer revision of the family does not make it another request.
	b.register(webDefinition)
	again := b.run(`,"clientToken":"one","count":2`)
	if *again.Tasks[0].TaskArn != *first.Tasks[0].TaskArn || len(again.Tasks) != 2 || state.Tasks.Count(b.db.Snapshot()) != 2 {
		t.Fatalf("%s", pretty(again))
	}
	in := read[api.RunTaskInput](t, `{"taskDefinition":"web","launchType":"FARGATE","clientToken":"one","count":2,"startedBy":"x","networkConfiguration":`+webNetwork+`}`)
	_, err := b.RunTask(b.ctx, in)
	conflict, ok := err.(*api.ConflictException)
	if !ok || !slices.Equal(conflict.ResourceIds, []string{*first.Tasks[0].TaskArn, *first.Tasks[1].TaskArn}) {
		t.Fatalf("%v", err)
	}
	// What has been forgotten is missing, not made again.
	b.put(func(tx *store.Tx) { state.Tasks.Delete(tx, *first.Tasks[0].TaskArn) })
	if out := b.run(`,"clientToken":"one","count":2`); len(out.Tasks) != 1 || *out.Failures[0].Reason != "MISSING" || *out.Failures[0].Arn != *first.Tasks[0].TaskArn {
		t.Errorf("%s", pretty(out))
	}
	b.time = b.time.Add(state.ClientTokenLife)
	if out := b.run(`,"clientToken":"one","count":2`); *out.Tasks[0].TaskArn == *first.Tasks[0].TaskArn || *out.Tasks[0].TaskDefinitionArn != prefix+"task-definition/web:2" {
		t.Errorf("an expired token: %s", pretty(out))
	}
	refuse(b, b.RunTask, &api.RunTaskInput{TaskDefinition: new("web"), ClientToken: new("a b")},
		"InvalidParameterException: Client token must be at most 64 characters, with codes from 33 to 126.")
}

func TestClientTokenOfCreateService(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	first := b.createService(`,"clientToken":"one"`)
	b.updateService(`{"service":"web","desiredCount":5}`)
	if s := b.createService(`,"clientToken":"one"`); *s.CurrentServiceDeployment != *first.CurrentServiceDeployment || *s.DesiredCount != 5 {
		t.Errorf("the same request again: %s", pretty(s))
	}
	for _, in := range []string{
		serviceInput(`,"clientToken":"one","propagateTags":"SERVICE"`),
		strings.Replace(serviceInput(`,"clientToken":"one"`), `"serviceName":"web"`, `"serviceName":"other"`, 1),
		serviceInput(`,"clientToken":"two"`),
	} {
		refuse(b, b.CreateService, read[api.CreateServiceInput](t, in), "InvalidParameterException: Creation of service was not idempotent.")
	}
	refuse(b, b.CreateService, read[api.CreateServiceInput](t, serviceInput(`,"clientToken":"`+strings.Repeat("x", 37)+`"`)),
		"InvalidParameterException: Client token must be at most 36 characters, with codes from 33 to 126.")
}

func TestTagsOfRunTaskAreCountedTogether(t *testing.T) {
	b := newBench(t)
	tags := func(name string, n int) string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf(`{"key":"%s%d","value":"v"}`, name, i))
		}
		return `"tags":[` + strings.Join(out, ",") + `]`
	}
	b.register(strings.Replace(webDefinition, `"family":"web"`, `"family":"web",`+tags("d", 30), 1))
	if got := b.run(`,"propagateTags":"TASK_DEFINITION","enableECSManagedTags":true,` + tags("r", 20)).Tasks[0].Tags; len(got) != 51 {
		t.Errorf("%d tags", len(got))
	}
	refuse(b, b.RunTask, read[api.RunTaskInput](t, `{"taskDefinition":"web","launchType":"FARGATE","propagateTags":"TASK_DEFINITION",`+tags("r", 21)+`,"networkConfiguration":`+webNetwork+`}`),
		"InvalidParameterException: The number of tags exceeds the limit of 50.")
}

func TestQuotasOfServices(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.put(func(tx *store.Tx) {
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: "ecs/services-per-cluster", Value: 1})
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: "ecs/tasks-per-service", Value: 2})
	})
	b.createService("")
	refuse(b, b.CreateService, read[api.CreateServiceInput](t, strings.Replace(serviceInput(""), `"serviceName":"web"`, `"serviceName":"other"`, 1)),
		"InvalidParameterException: The maximum number of services per cluster (1) has been reached.")
	refuse(b, b.UpdateService, read[api.UpdateServiceInput](t, `{"service":"web","desiredCount":3}`), "InvalidParameterException: The desired count must be between 0 and 2.")
}

// A service is INACTIVE when its tasks are stopping: it does not wait for the last container.
func TestServiceIsInactiveWhenItsTasksStop(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.createService("")
	b.play(3, nil)
	try(b, b.DeleteService, &api.DeleteServiceInput{Service: new("web"), Force: new(true)})
	b.plan()
	if s := b.web(); *s.Status != "DRAINING" {
		t.Fatalf("%s while tasks run", *s.Status)
	}
	b.put(func(tx *store.Tx) {
		for old := range state.Tasks.All(tx) {
			n := old.Clone()
			n.Advance(state.Stopping)
			state.Tasks.Put(tx, n)
		}
	})
	b.plan()
	if s := b.web(); *s.Status != "INACTIVE" || len(s.Deployments) != 0 || s.CurrentServiceDeployment != nil {
		t.Errorf("%s", pretty(s))
	}
	// The name is free although the old tasks are not gone yet, and they do not count.
	b.createService("")
	b.plan()
	if s := b.web(); *s.PendingCount != 2 || *s.RunningCount != 0 {
		t.Errorf("%s", pretty(s))
	}
}

func TestAuthorizeDeployments(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	r, caller, rules := b.db.Snapshot(), auth.FromContext(b.ctx), b.Authorize()
	inWeb := map[string][]string{"ecs:cluster": {prefix + "cluster/c"}, "ecs:service": {prefix + "service/c/web"}}
	created := map[string][]string{"ecs:cluster": inWeb["ecs:cluster"], "ecs:service": inWeb["ecs:service"], "ecs:task-definition": {prefix + "task-definition/web:1"},
		"aws:RequestTag/k": {"v"}, "aws:TagKeys": {"k"}}
	for _, c := range []struct {
		op       string
		in       any
		resource string
		keys     map[string][]string
	}{
		{"StopServiceDeployment", &api.StopServiceDeploymentInput{ServiceDeploymentArn: new(prefix + "service-deployment/c/web/x")}, "service-deployment/c/web/x", inWeb},
		{"DescribeServiceDeployments", &api.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{prefix + "service-deployment/c/web/x"}}, "service-deployment/c/web/x", inWeb},
		{"DescribeServiceRevisions", &api.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{prefix + "service-revision/c/web/1"}}, "service-revision/c/web/1", inWeb},
		{"ListServiceDeployments", &api.ListServiceDeploymentsInput{Cluster: new("c"), Service: new("web")}, "service/c/web", map[string][]string{"ecs:cluster": inWeb["ecs:cluster"]}},
		{"CreateTaskSet", &api.CreateTaskSetInput{Cluster: new("c"), Service: new("web"), TaskDefinition: new("web"), Tags: []api.Tag{{Key: new("k"), Value: new("v")}}}, "task-set/c/web/*", created},
		{"DescribeTaskSets", &api.DescribeTaskSetsInput{Cluster: new("c"), Service: new("web")}, "task-set/c/web/*", inWeb},
		{"UpdateTaskSet", &api.UpdateTaskSetInput{Cluster: new("c"), Service: new("web"), TaskSet: new("ecs-svc/1")}, "task-set/c/web/ecs-svc/1", inWeb},
		{"DeleteTaskSet", &api.DeleteTaskSetInput{Cluster: new("c"), Service: new("web"), TaskSet: new("bad")}, "task-set/c/web/bad", inWeb},
		{"UpdateServicePrimaryTaskSet", &api.UpdateServicePrimaryTaskSetInput{Cluster: new("c"), Service: new("web")}, "service/c/web", map[string][]string{"ecs:cluster": inWeb["ecs:cluster"]}},
	} {
		got := rules[c.op](b.ctx, r, caller, c.in)[0]
		if strings.TrimPrefix(got.Resource, prefix) != c.resource {
			t.Errorf("%s: resource %s, want %s", c.op, got.Resource, c.resource)
		}
		if d := cmp.Diff(c.keys, got.Keys); d != "" {
			t.Errorf("%s: keys (-want +got):\n%s", c.op, d)
		}
	}
}
