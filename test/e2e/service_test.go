package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/test/lab"
)

// A service is a service that a test has made.
type service struct {
	t    *testing.T
	w    *world
	name string
}

func (w *world) serve(t *testing.T, in *ecs.CreateServiceInput) *service {
	t.Helper()
	in.ServiceName = new(family(t))
	in.LaunchType = ecs.LaunchTypeFargate
	in.NetworkConfiguration = w.network()
	// Services spread over the zones, as those of users do.
	in.NetworkConfiguration.AwsvpcConfiguration.Subnets = w.subnets
	out := call[ecs.CreateServiceOutput](t, w, lab.ECS, "CreateService", in)
	s := &service{t: t, w: w, name: *out.Service.ServiceName}
	if got := out.Service; *got.Status != "ACTIVE" || *got.RunningCount != 0 || len(got.Deployments) != 1 || got.Deployments[0].RolloutState != "IN_PROGRESS" {
		t.Errorf("CreateService answers %s", show(got))
	}
	t.Cleanup(func() {
		if *s.describe().Status == "ACTIVE" {
			s.delete()
		}
	})
	return s
}

func (s *service) delete() {
	s.t.Helper()
	call[ecs.DeleteServiceOutput](s.t, s.w, lab.ECS, "DeleteService", &ecs.DeleteServiceInput{Service: &s.name, Force: new(true)})
	s.until("it is INACTIVE", func(now ecs.Service) bool { return *now.Status == "INACTIVE" })
}

func (s *service) update(in *ecs.UpdateServiceInput) {
	s.t.Helper()
	in.Service = &s.name
	call[ecs.UpdateServiceOutput](s.t, s.w, lab.ECS, "UpdateService", in)
}

func (s *service) describe() ecs.Service {
	s.t.Helper()
	out := call[ecs.DescribeServicesOutput](s.t, s.w, lab.ECS, "DescribeServices", &ecs.DescribeServicesInput{Services: []string{s.name}})
	if len(out.Services) != 1 {
		s.t.Fatalf("DescribeServices: %s", show(out.Failures))
	}
	return out.Services[0]
}

func (s *service) until(what string, ok func(ecs.Service) bool) (now ecs.Service) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), patience)
	defer cancel()
	err := lab.Until(ctx, func(context.Context) (bool, error) {
		now = s.describe()
		return ok(now), nil
	})
	if err != nil {
		s.t.Fatalf("waiting until %s: %v\n%s", what, err, show(now))
	}
	return now
}

// stable is what the waiter services-stable waits for.
func (s *service) stable() ecs.Service {
	s.t.Helper()
	return s.until("it is stable", func(now ecs.Service) bool {
		return len(now.Deployments) == 1 && *now.RunningCount == *now.DesiredCount
	})
}

// steady waits for the end of the deployment too, which comes when the tasks
// have run for a while.
func (s *service) steady() ecs.Service {
	s.t.Helper()
	return s.until("it is steady", func(now ecs.Service) bool {
		return len(now.Deployments) == 1 && *now.RunningCount == *now.DesiredCount && now.Deployments[0].RolloutState == "COMPLETED"
	})
}

func (s *service) tasks() []ecs.Task {
	s.t.Helper()
	list := call[ecs.ListTasksOutput](s.t, s.w, lab.ECS, "ListTasks", &ecs.ListTasksInput{ServiceName: &s.name})
	if len(list.TaskArns) == 0 {
		return nil
	}
	return call[ecs.DescribeTasksOutput](s.t, s.w, lab.ECS, "DescribeTasks", &ecs.DescribeTasksInput{Tasks: list.TaskArns}).Tasks
}

// said demands an event, oldest first after those already seen.
func said(t *testing.T, now ecs.Service, patterns ...string) {
	t.Helper()
	var messages []string
	for _, e := range slices.Backward(now.Events) {
		messages = append(messages, *e.Message)
	}
	rest := messages
	for _, p := range patterns {
		i := slices.IndexFunc(rest, regexp.MustCompile("^"+p+"$").MatchString)
		if i < 0 {
			t.Errorf("no event %q in the rest of:\n%s", p, strings.Join(messages, "\n"))
			return
		}
		rest = rest[i+1:]
	}
}

// The life of a service: its tasks come, come back, become more and fewer,
// and go with it.
func TestServiceLife(t *testing.T) {
	t.Parallel()
	w := shared
	s := w.serve(t, &ecs.CreateServiceInput{TaskDefinition: new(w.define(t, boxes(w.box("web", "serve", "80")))), DesiredCount: new(int32(2)),
		Tags: []ecs.Tag{{Key: new("team"), Value: new("blue")}}, PropagateTags: ecs.PropagateTagsService, EnableECSManagedTags: new(true)})

	// The SDK's own waiter.
	client := sdk.New(sdk.Options{Region: w.Name, BaseEndpoint: &w.Endpoint,
		Credentials: credentials.NewStaticCredentialsProvider(w.Root.AccessKeyID, w.Root.Secret, "")})
	waiter := sdk.NewServicesStableWaiter(client, func(o *sdk.ServicesStableWaiterOptions) { o.MinDelay, o.MaxDelay = time.Second/4, time.Second })
	if err := waiter.Wait(deadline(t), &sdk.DescribeServicesInput{Services: []string{s.name}, Cluster: awssdk.String("default")}, patience); err != nil {
		t.Fatal(err)
	}
	now := s.steady()
	id := `\(service ` + s.name + `\)`
	said(t, now, id+` has started 2 tasks: \(task [0-9a-f]{32}\) \(task [0-9a-f]{32}\)\.`,
		id+` \(deployment ecs-svc/[0-9]{19}\) deployment completed\.`, id+` has reached a steady state\.`)
	if got, want := *now.Deployments[0].RolloutStateReason, "ECS deployment "+*now.Deployments[0].Id+" completed."; got != want {
		t.Errorf("rollout state reason %q, want %q", got, want)
	}
	tasks := s.tasks()
	if len(tasks) != 2 || *tasks[0].Group != "service:"+s.name || *tasks[0].StartedBy != *now.Deployments[0].Id || *tasks[0].AvailabilityZone == *tasks[1].AvailabilityZone {
		t.Errorf("tasks: %s", show(tasks))
	}
	tags := map[string]string{}
	for _, tag := range call[ecs.ListTagsForResourceOutput](t, w, lab.ECS, "ListTagsForResource", &ecs.ListTagsForResourceInput{ResourceArn: tasks[0].TaskArn}).Tags {
		tags[*tag.Key] = *tag.Value
	}
	if tags["team"] != "blue" || tags["aws:ecs:serviceName"] != s.name || tags["aws:ecs:clusterName"] != "default" || len(tags) != 3 {
		t.Errorf("tags of a task: %v", tags)
	}

	// A task that is stopped is replaced.
	call[ecs.StopTaskOutput](t, w, lab.ECS, "StopTask", &ecs.StopTaskInput{Task: tasks[0].TaskArn})
	s.until("the task is replaced", func(ecs.Service) bool {
		ts := s.tasks()
		return len(ts) == 2 && !slices.ContainsFunc(ts, func(k ecs.Task) bool { return *k.TaskArn == *tasks[0].TaskArn || *k.LastStatus != "RUNNING" })
	})

	s.update(&ecs.UpdateServiceInput{DesiredCount: new(int32(3))})
	s.until("3 run", func(now ecs.Service) bool { return *now.RunningCount == 3 })
	zones := map[string]bool{}
	for _, k := range s.tasks() {
		zones[*k.AvailabilityZone] = true
	}
	if len(zones) != 3 {
		t.Errorf("3 tasks are in %d zones", len(zones))
	}
	before := s.tasks()
	s.update(&ecs.UpdateServiceInput{DesiredCount: new(int32(1))})
	now = s.until("1 runs", func(now ecs.Service) bool { return *now.RunningCount == 1 && len(s.tasks()) == 1 })
	said(t, now, id+` has stopped 2 running tasks: \(task [0-9a-f]{32}\) \(task [0-9a-f]{32}\)\.`)
	for _, k := range before {
		out := call[ecs.DescribeTasksOutput](t, w, lab.ECS, "DescribeTasks", &ecs.DescribeTasksInput{Tasks: []string{*k.TaskArn}}).Tasks[0]
		if *out.DesiredStatus == "STOPPED" && (out.StopCode != "ServiceSchedulerInitiated" || !strings.HasPrefix(value(out.StoppedReason), "Scaling activity initiated by (deployment ecs-svc/")) {
			t.Errorf("a task that was scaled in: %s: %s", out.StopCode, value(out.StoppedReason))
		}
	}

	refused(t, w.Root, lab.ECS, "DeleteService", &ecs.DeleteServiceInput{Service: &s.name}, "InvalidParameterException", "The service cannot be stopped while it is scaled above 0.")
	s.update(&ecs.UpdateServiceInput{DesiredCount: new(int32(0))})
	s.until("none runs", func(now ecs.Service) bool { return *now.RunningCount == 0 })
	s.delete()
	refused(t, w.Root, lab.ECS, "UpdateService", &ecs.UpdateServiceInput{Service: &s.name}, "ServiceNotActiveException", "Service was not ACTIVE.")
}

// While a new revision rolls out there are always as many tasks that answer as
// the minimum says, and never more than the maximum.
func TestRollingUpdate(t *testing.T) {
	t.Parallel()
	w := shared
	page := func(name string) string { return w.define(t, boxes(w.page(name))) }
	s := w.serve(t, &ecs.CreateServiceInput{TaskDefinition: new(page("old")), DesiredCount: new(int32(2)),
		DeploymentConfiguration: &ecs.DeploymentConfiguration{MinimumHealthyPercent: new(int32(100)), MaximumPercent: new(int32(150))}})
	s.steady()

	ctx, cancel := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	rounds, most := 0, 0
	var pages []string
	watch.Go(func() {
		for ctx.Err() == nil {
			answered, lost, alive := w.round(ctx, s.name)
			if ctx.Err() != nil {
				return
			}
			rounds++
			if len(answered) < 2 {
				t.Errorf("only %q answered; of %d that were to run, these did not: %q", answered, alive, lost)
			}
			most = max(most, alive)
			for _, p := range answered {
				if !slices.Contains(pages, p) {
					pages = append(pages, p)
				}
			}
		}
	})
	s.update(&ecs.UpdateServiceInput{TaskDefinition: new(page("new"))})
	s.until("the update is under way", func(now ecs.Service) bool { return len(now.Deployments) == 2 })
	now := s.steady()
	cancel()
	watch.Wait()
	if rounds < 5 {
		t.Errorf("there were only %d rounds", rounds)
	}
	if most > 3 {
		t.Errorf("%d tasks were alive, want at most 3", most)
	}
	if !slices.Contains(pages, "old") || !slices.Contains(pages, "new") {
		t.Errorf("pages: %q", pages)
	}
	if *now.TaskDefinition != *now.Deployments[0].TaskDefinition || !strings.HasSuffix(*now.TaskDefinition, ":2") {
		t.Errorf("after the update: %s", show(now))
	}
}

// round asks every task of a service that has an address, all at once, and
// answers the pages it got, why it got no others, and how many tasks are not to stop.
func (w *world) round(ctx context.Context, service string) (pages, lost []string, alive int) {
	list, err := lab.Do[ecs.ListTasksOutput](ctx, w.Root, lab.ECS, "ListTasks", &ecs.ListTasksInput{ServiceName: &service})
	if err != nil || len(list.TaskArns) == 0 {
		return nil, []string{fmt.Sprint(err)}, 0
	}
	tasks, err := lab.Do[ecs.DescribeTasksOutput](ctx, w.Root, lab.ECS, "DescribeTasks", &ecs.DescribeTasksInput{Tasks: list.TaskArns})
	if err != nil {
		return nil, []string{fmt.Sprint(err)}, 0
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, k := range tasks.Tasks {
		if *k.DesiredStatus == "RUNNING" {
			alive++
		}
		id := detail(k, "networkInterfaceId")
		if id == "" {
			continue
		}
		wg.Go(func() {
			page, err := w.ask(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				lost = append(lost, fmt.Sprintf("%s (%s): %v", *k.TaskArn, *k.LastStatus, err))
			} else {
				pages = append(pages, page)
			}
		})
	}
	wg.Wait()
	return pages, lost, alive
}

// ask opens the page behind an interface's public address, and answers its name.
func (w *world) ask(ctx context.Context, eni string) (page string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := lab.Do[ec2.DescribeNetworkInterfacesOutput](ctx, w.Root, lab.EC2, "DescribeNetworkInterfaces", &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{eni}})
	if err != nil {
		return "", err
	}
	if out.NetworkInterfaces[0].Association == nil {
		return "", fmt.Errorf("interface %s has no public address", eni)
	}
	code, body, err := get(ctx, "http://"+*out.NetworkInterfaces[0].Association.PublicIp+"/")
	if err != nil {
		return "", err
	}
	if code != 200 {
		return "", fmt.Errorf("status %d", code)
	}
	_, err = fmt.Sscanf(body, "page %s ", &page)
	return page, err
}

// A revision that cannot start is given up and the last good one comes back.
// The tasks that ran run on.
func TestCircuitBreaker(t *testing.T) {
	t.Parallel()
	w := shared
	s := w.serve(t, &ecs.CreateServiceInput{TaskDefinition: new(w.define(t, boxes(w.box("web", "serve", "80")))), DesiredCount: new(int32(2)),
		DeploymentConfiguration: &ecs.DeploymentConfiguration{DeploymentCircuitBreaker: &ecs.DeploymentCircuitBreaker{Enable: new(true), Rollback: new(true)}}})
	first := s.steady()
	running := s.tasks()

	bad := w.box("web", "serve", "80")
	bad.Image = new(w.RegistryHost() + "/box:none")
	s.update(&ecs.UpdateServiceInput{TaskDefinition: new(w.define(t, boxes(bad)))})
	now := s.until("it is rolled back", func(now ecs.Service) bool {
		return len(now.Deployments) == 1 && *now.TaskDefinition == *first.TaskDefinition && now.Deployments[0].RolloutState == "COMPLETED"
	})
	id := `\(service ` + s.name + `\)`
	said(t, now, id+` \(deployment ecs-svc/[0-9]{19}\) deployment failed: tasks failed to start\.`, id+` rolling back to deployment ecs-svc/[0-9]{19}\.`,
		id+` has reached a steady state\.`)
	after := s.tasks()
	arns := func(ts []ecs.Task) (out []string) {
		for _, k := range ts {
			out = append(out, *k.TaskArn)
		}
		slices.Sort(out)
		return out
	}
	if !slices.Equal(arns(running), arns(after)) {
		t.Errorf("the tasks that ran were replaced: %q, now %q", arns(running), arns(after))
	}
}
