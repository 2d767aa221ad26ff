package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/test/lab"
)

// deadline is a context that ends with the test, or when it took too long.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// call calls an operation as the root user and fails the test if it fails.
func call[Out any](t *testing.T, w *world, svc *wire.Service, op string, in any) *Out {
	t.Helper()
	out, err := lab.Do[Out](context.WithoutCancel(t.Context()), w.Root, svc, op, in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refused demands that an operation fails with a code and a message.
func refused(t *testing.T, i lab.Identity, svc *wire.Service, op string, in any, code, message string) {
	t.Helper()
	err := i.Call(t.Context(), svc, op, in, nil)
	e, ok := errors.AsType[wire.Error](err)
	if !ok {
		t.Errorf("%s: %v, want %s", op, err, code)
	} else if got := e.Error(); got != code+": "+message {
		t.Errorf("%s:\n got %s\nwant %s: %s", op, got, code, message)
	}
}

func passwordOf(token string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return "", err
	}
	user, password, _ := strings.Cut(string(b), ":")
	if user != "AWS" {
		return "", fmt.Errorf("the token's user is %q", user)
	}
	return password, nil
}

// box is a container that runs the tests' program with these steps.
func (w *world) box(name string, steps ...string) ecs.ContainerDefinition {
	return ecs.ContainerDefinition{Name: &name, Image: &w.image, Command: steps}
}

// family is a name for the test's task definition.
func family(t *testing.T) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
}

// define registers a task definition of these containers, with the family as
// its log prefix, and answers its ARN.
func (w *world) define(t *testing.T, in *ecs.RegisterTaskDefinitionInput) string {
	t.Helper()
	if in.Family == nil {
		in.Family = new(family(t))
	}
	if in.Cpu == nil {
		in.Cpu, in.Memory = new("256"), new("512")
	}
	in.RequiresCompatibilities = []ecs.Compatibility{ecs.CompatibilityFargate}
	in.NetworkMode = ecs.NetworkModeAwsvpc
	in.ExecutionRoleArn = &w.exec
	for i := range in.ContainerDefinitions {
		c := &in.ContainerDefinitions[i]
		if c.LogConfiguration == nil {
			c.LogConfiguration = &ecs.LogConfiguration{LogDriver: ecs.LogDriverAwslogs, Options: map[string]string{
				"awslogs-group": "/e2e", "awslogs-region": w.Name, "awslogs-stream-prefix": *in.Family}}
		}
	}
	out := call[ecs.RegisterTaskDefinitionOutput](t, w, lab.ECS, "RegisterTaskDefinition", in)
	return *out.TaskDefinition.TaskDefinitionArn
}

// network is how tasks are connected, with the given groups or the open one.
func (w *world) network(groups ...string) *ecs.NetworkConfiguration {
	if len(groups) == 0 {
		groups = []string{w.open}
	}
	return &ecs.NetworkConfiguration{AwsvpcConfiguration: &ecs.AwsVpcConfiguration{
		Subnets: w.subnets[:1], SecurityGroups: groups, AssignPublicIp: ecs.AssignPublicIpEnabled}}
}

// A task is a task that a test has started.
type task struct {
	t      *testing.T
	w      *world
	arn    string
	family string
}

// run defines and starts a task of these containers.
func (w *world) run(t *testing.T, containers ...ecs.ContainerDefinition) *task {
	t.Helper()
	return w.start(t, w.define(t, &ecs.RegisterTaskDefinitionInput{ContainerDefinitions: containers}))
}

// start starts a task of a definition.
func (w *world) start(t *testing.T, definition string, groups ...string) *task {
	t.Helper()
	return w.startWith(t, &ecs.RunTaskInput{TaskDefinition: &definition, NetworkConfiguration: w.network(groups...)})
}

func (w *world) startWith(t *testing.T, in *ecs.RunTaskInput) *task {
	t.Helper()
	in.LaunchType = ecs.LaunchTypeFargate
	out := call[ecs.RunTaskOutput](t, w, lab.ECS, "RunTask", in)
	if len(out.Failures) > 0 || len(out.Tasks) != 1 {
		t.Fatalf("RunTask: %d tasks, failures %s", len(out.Tasks), show(out.Failures))
	}
	k := &task{t: t, w: w, arn: *out.Tasks[0].TaskArn, family: family(t)}
	if s := *out.Tasks[0].LastStatus; s != "PROVISIONING" {
		t.Errorf("RunTask answers a task that is %s, want PROVISIONING", s)
	}
	t.Cleanup(func() {
		if k.describe().LastStatus != nil && *k.describe().LastStatus != "STOPPED" {
			k.stop("")
		}
	})
	return k
}

func (k *task) id() string { return k.arn[strings.LastIndex(k.arn, "/")+1:] }

func (k *task) describe() ecs.Task {
	k.t.Helper()
	out := call[ecs.DescribeTasksOutput](k.t, k.w, lab.ECS, "DescribeTasks", &ecs.DescribeTasksInput{Tasks: []string{k.arn}})
	if len(out.Tasks) != 1 {
		k.t.Fatalf("DescribeTasks of %s: %s", k.arn, show(out.Failures))
	}
	return out.Tasks[0]
}

var order = map[string]int{"PROVISIONING": 0, "PENDING": 1, "ACTIVATING": 2, "RUNNING": 3, "DEACTIVATING": 4, "STOPPING": 5, "DEPROVISIONING": 6, "STOPPED": 7}

// wait waits until the task is in a state, and fails if it is past it. A
// state never goes back.
func (k *task) wait(status string) ecs.Task {
	k.t.Helper()
	return k.until("the task is "+status, func(now ecs.Task) bool {
		if order[*now.LastStatus] > order[status] {
			k.t.Fatalf("the task is past %s: %s", status, show(now))
		}
		return *now.LastStatus == status
	})
}

// until waits until the task is as wanted.
func (k *task) until(what string, ok func(ecs.Task) bool) (now ecs.Task) {
	k.t.Helper()
	last := -1
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.t.Context()), patience)
	defer cancel()
	err := lab.Until(ctx, func(context.Context) (bool, error) {
		now = k.describe()
		if n := order[*now.LastStatus]; n < last {
			return false, fmt.Errorf("the task went back to %s", *now.LastStatus)
		} else {
			last = n
		}
		return ok(now), nil
	})
	if err != nil {
		k.t.Fatalf("waiting until %s: %v\n%s", what, err, show(now))
	}
	return now
}

// stop stops the task and waits for its end.
func (k *task) stop(reason string) ecs.Task {
	k.t.Helper()
	in := &ecs.StopTaskInput{Task: &k.arn}
	if reason != "" {
		in.Reason = &reason
	}
	out := call[ecs.StopTaskOutput](k.t, k.w, lab.ECS, "StopTask", in)
	if *out.Task.DesiredStatus != "STOPPED" {
		k.t.Errorf("StopTask answers a task whose desired status is %s", *out.Task.DesiredStatus)
	}
	return k.wait("STOPPED")
}

// container is one of the task's containers.
func container(now ecs.Task, name string) ecs.Container {
	for _, c := range now.Containers {
		if *c.Name == name {
			return c
		}
	}
	return ecs.Container{}
}

// detail is a detail of the task's network attachment.
func detail(now ecs.Task, name string) string {
	for _, a := range now.Attachments {
		for _, d := range a.Details {
			if *d.Name == name {
				return *d.Value
			}
		}
	}
	return ""
}

// private and public are the task's addresses.
func (k *task) private() string { k.t.Helper(); return detail(k.describe(), "privateIPv4Address") }

func (k *task) public() string {
	k.t.Helper()
	id := detail(k.describe(), "networkInterfaceId")
	out := call[ec2.DescribeNetworkInterfacesOutput](k.t, k.w, lab.EC2, "DescribeNetworkInterfaces", &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}})
	if len(out.NetworkInterfaces) != 1 || out.NetworkInterfaces[0].Association == nil {
		k.t.Fatalf("interface %s of the task has no public address: %s", id, show(out))
	}
	return *out.NetworkInterfaces[0].Association.PublicIp
}

// page opens a page of a task whose container serves on port 80, as soon as it does.
func (k *task) page(path string, args ...string) string {
	k.t.Helper()
	u := "http://" + k.public() + path + query(args)
	var body string
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.t.Context()), patience)
	defer cancel()
	err := lab.Until(ctx, func(ctx context.Context) (bool, error) {
		var code int
		var err error
		code, body, err = get(ctx, u)
		if err != nil {
			return false, nil // not listening yet
		}
		if code != http.StatusOK {
			return false, fmt.Errorf("%d: %s", code, body)
		}
		return true, nil
	})
	if err != nil {
		k.t.Fatalf("GET %s: %v", u, err)
	}
	return body
}

// try asks the task once and answers the reason for which it could not.
func (k *task) try(path string, args ...string) (string, error) {
	k.t.Helper()
	code, body, err := get(k.t.Context(), "http://"+k.public()+path+query(args))
	if err == nil && code != http.StatusOK {
		err = errors.New(strings.TrimSpace(body))
	}
	return body, err
}

func query(args []string) string {
	if len(args) == 0 {
		return ""
	}
	v := url.Values{}
	for i := 0; i+1 < len(args); i += 2 {
		v.Set(args[i], args[i+1])
	}
	return "?" + v.Encode()
}

func get(ctx context.Context, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := lab.HTTP.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// printed waits until a container's log has as many lines, and answers all.
func (k *task) printed(name string, lines int) (out []string) {
	k.t.Helper()
	in := &logs.GetLogEventsInput{LogGroupName: new("/e2e"), LogStreamName: new(k.family + "/" + name + "/" + k.id()), StartFromHead: new(true)}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.t.Context()), patience)
	defer cancel()
	err := lab.Until(ctx, func(ctx context.Context) (bool, error) {
		events, err := lab.Do[logs.GetLogEventsOutput](ctx, k.w.Root, lab.Logs, "GetLogEvents", in)
		if err != nil {
			return false, err
		}
		out = nil
		for _, e := range events.Events {
			out = append(out, *e.Message)
		}
		return len(out) >= lines, nil
	})
	if err != nil {
		k.t.Fatalf("log of %s has %d lines, want %d: %q: %v", name, len(out), lines, out, err)
	}
	return out
}

func show(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func codeOf(err error) string { return wire.Code(err) }

// readOne reads the one file that matches.
func readOne(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: %q, %v", pattern, files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// boxes is a task definition of these containers.
func boxes(containers ...ecs.ContainerDefinition) *ecs.RegisterTaskDefinitionInput {
	return &ecs.RegisterTaskDefinitionInput{ContainerDefinitions: containers}
}
