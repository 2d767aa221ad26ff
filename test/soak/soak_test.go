// Package soak kills a region's processes at random while it works, and looks
// for what is lost, repeated or left behind.
package soak

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/test/lab"
)

// patience is how long the region may take to get over a round.
const patience = 60 * time.Second

// victims may be killed at any moment. Their supervisors start them again.
var victims = []string{"server", "node", "agent", "containerd"}

// Any process of a region may be killed with -9 at any moment, any number of
// times: every call that was acknowledged holds, what runs runs on with its
// process and its address, a service has its tasks, and in the end nothing is
// left of what came and went.
//
// BERTH_SOAK_ROUNDS sets the number of rounds, BERTH_SOAK_SEED repeats their
// order.
func TestSoak(t *testing.T) {
	rounds, seed := number(t, "BERTH_SOAK_ROUNDS", 20), uint64(number(t, "BERTH_SOAK_SEED", int(time.Now().UnixNano()&0xffffffff)))
	t.Logf("%d rounds with seed %d", rounds, seed)
	r := begin(t, rounds, seed)
	for n := range rounds {
		r.round(n)
		if t.Failed() {
			t.Fatalf("after round %d of %d, seed %d", n, rounds, seed)
		}
	}
	r.end()
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// steady is a task that runs all the time.
type steady struct {
	arn, private, public string
	inits                map[string]int
}

// machine is the EC2 instance of a soak.
type machine struct{ id, public string }

// run is a soak under way.
type run struct {
	t      *testing.T
	w      *lab.Region
	rand   *mrand.Rand
	subnet string
	group  string
	host   machine       // an EC2 instance for the tasks of the mode bridge
	before lab.Inventory // with no task running

	steady  []steady
	short   map[string]bool // tasks of the rounds: whether they are to run
	kills   map[string]int
	unheard int // calls that were repeated, their answers being lost
}

func begin(t *testing.T, rounds int, seed uint64) *run {
	t.Helper()
	tmp := t.TempDir()
	binary, err := lab.Build(t.Context(), "", tmp, "berth")
	if err != nil {
		t.Fatal(err)
	}
	img, err := lab.Box(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.Up(t.Context(), lab.Options{Binary: binary, Dir: filepath.Join(tmp, "region")})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if t.Failed() {
			t.Log(w.Logs())
		}
		if err := errors.Join(w.Down(ctx, true), w.Gone(ctx)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, w: w, rand: mrand.New(mrand.NewPCG(seed, uint64(rounds))), short: map[string]bool{}, kills: map[string]int{}}
	r.prepare(func(password string) error { return w.Push(t.Context(), "box:1", password, img) })

	// One task comes and goes before anything is counted: images, the VPC's
	// namespace and the like stay.
	r.launch()
	for _, bridged := range []bool{false, true} {
		first := r.start("warm-up", bridged)
		r.settled(first, "RUNNING")
		r.stop(first)
		r.settled(first, "STOPPED")
		delete(r.short, first)
	}
	r.empty()
	if r.before, err = w.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}

	for i := range 4 {
		arn := r.start(fmt.Sprintf("steady-%d", i), i%2 == 1)
		r.settled(arn, "RUNNING")
		delete(r.short, arn)
		r.keep(arn)
	}
	must[ecs.CreateServiceOutput](r, lab.ECS, "CreateService", &ecs.CreateServiceInput{ServiceName: new("steady"), TaskDefinition: new("box"),
		DesiredCount: new(int32(2)), LaunchType: ecs.LaunchTypeFargate, NetworkConfiguration: r.network()})
	r.until("the service is steady", func() (bool, string) { return r.serviceIsSteady() })
	for _, arn := range r.list("service") {
		r.keep(arn)
	}
	return r
}

// launch makes the instance and waits until its agent is there.
func (r *run) launch() {
	r.t.Helper()
	must[iam.CreateRoleOutput](r, lab.IAM, "CreateRole", &iam.CreateRoleInput{RoleName: new("machine"), AssumeRolePolicyDocument: new(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)})
	must[iam.AttachRolePolicyOutput](r, lab.IAM, "AttachRolePolicy", &iam.AttachRolePolicyInput{RoleName: new("machine"),
		PolicyArn: new("arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role")})
	must[iam.CreateInstanceProfileOutput](r, lab.IAM, "CreateInstanceProfile", &iam.CreateInstanceProfileInput{InstanceProfileName: new("machine")})
	must[iam.AddRoleToInstanceProfileOutput](r, lab.IAM, "AddRoleToInstanceProfile", &iam.AddRoleToInstanceProfileInput{InstanceProfileName: new("machine"), RoleName: new("machine")})
	image := must[ec2.DescribeImagesOutput](r, lab.EC2, "DescribeImages", &ec2.DescribeImagesInput{Owners: []string{"amazon"}, Filters: []ec2.Filter{
		{Name: new("name"), Values: []string{"al2023-ami-ecs-hvm*"}}, {Name: new("architecture"), Values: []string{"x86_64"}}}}).Images[0].ImageId
	out := must[ec2.RunInstancesOutput](r, lab.EC2, "RunInstances", &ec2.RunInstancesInput{ImageId: image, InstanceType: "t3.small", MinCount: new(int32(1)), MaxCount: new(int32(1)),
		SubnetId: &r.subnet, SecurityGroupIds: []string{r.group}, IamInstanceProfile: &ec2.IamInstanceProfileSpecification{Name: new("machine")}})
	r.host.id = *out.Instances[0].InstanceId
	r.until("the instance registers", func() (bool, string) { return r.connected(), "its agent is not connected" })
	i := must[ec2.DescribeInstancesOutput](r, lab.EC2, "DescribeInstances", &ec2.DescribeInstancesInput{InstanceIds: []string{r.host.id}}).Reservations[0].Instances[0]
	r.host.public = *i.PublicIpAddress
}

// connected reports whether the agent of the instance is connected.
func (r *run) connected() bool {
	arns := must[ecs.ListContainerInstancesOutput](r, lab.ECS, "ListContainerInstances", &ecs.ListContainerInstancesInput{}).ContainerInstanceArns
	if len(arns) != 1 {
		return false
	}
	i := must[ecs.DescribeContainerInstancesOutput](r, lab.ECS, "DescribeContainerInstances", &ecs.DescribeContainerInstancesInput{ContainerInstances: arns}).ContainerInstances[0]
	return i.AgentConnected != nil && *i.AgentConnected
}

func (r *run) prepare(push func(password string) error) {
	r.t.Helper()
	repo := must[ecr.CreateRepositoryOutput](r, lab.ECR, "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: new("box")})
	password, err := r.w.Root.Exec(r.t.Context(), "ecr", "get-login-password")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := push(password); err != nil {
		r.t.Fatal(err)
	}
	role := must[iam.CreateRoleOutput](r, lab.IAM, "CreateRole", &iam.CreateRoleInput{RoleName: new("exec"), AssumeRolePolicyDocument: new(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)})
	must[iam.AttachRolePolicyOutput](r, lab.IAM, "AttachRolePolicy", &iam.AttachRolePolicyInput{RoleName: new("exec"),
		PolicyArn: new("arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy")})
	must[logs.CreateLogGroupOutput](r, lab.Logs, "CreateLogGroup", &logs.CreateLogGroupInput{LogGroupName: new("/soak")})
	r.subnet = *must[ec2.DescribeSubnetsOutput](r, lab.EC2, "DescribeSubnets", &ec2.DescribeSubnetsInput{}).Subnets[0].SubnetId
	r.group = *must[ec2.CreateSecurityGroupOutput](r, lab.EC2, "CreateSecurityGroup", &ec2.CreateSecurityGroupInput{GroupName: new("web"), Description: new("web")}).GroupId
	must[ec2.AuthorizeSecurityGroupIngressOutput](r, lab.EC2, "AuthorizeSecurityGroupIngress", &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &r.group,
		IpPermissions: []ec2.IpPermission{
			{IpProtocol: new("tcp"), FromPort: new(int32(80)), ToPort: new(int32(80)), IpRanges: []ec2.IpRange{{CidrIp: new("0.0.0.0/0")}}},
			{IpProtocol: new("tcp"), FromPort: new(int32(32768)), ToPort: new(int32(60999)), IpRanges: []ec2.IpRange{{CidrIp: new("0.0.0.0/0")}}}}})
	web := ecs.ContainerDefinition{Name: new("web"), Image: new(*repo.Repository.RepositoryUri + ":1"), Command: []string{"serve", "80"}, StopTimeout: new(int32(2)),
		LogConfiguration: &ecs.LogConfiguration{LogDriver: ecs.LogDriverAwslogs, Options: map[string]string{
			"awslogs-group": "/soak", "awslogs-region": r.w.Name, "awslogs-stream-prefix": "s"}}}
	must[ecs.RegisterTaskDefinitionOutput](r, lab.ECS, "RegisterTaskDefinition", &ecs.RegisterTaskDefinitionInput{
		Family: new("box"), Cpu: new("256"), Memory: new("512"), NetworkMode: ecs.NetworkModeAwsvpc, ExecutionRoleArn: role.Role.Arn,
		RequiresCompatibilities: []ecs.Compatibility{ecs.CompatibilityFargate}, ContainerDefinitions: []ecs.ContainerDefinition{web}})
	web.Memory, web.PortMappings = new(int32(64)), []ecs.PortMapping{{ContainerPort: new(int32(80)), HostPort: new(int32(0))}}
	must[ecs.RegisterTaskDefinitionOutput](r, lab.ECS, "RegisterTaskDefinition", &ecs.RegisterTaskDefinitionInput{
		Family: new("bridged"), NetworkMode: ecs.NetworkModeBridge, ExecutionRoleArn: role.Role.Arn, ContainerDefinitions: []ecs.ContainerDefinition{web}})
}

// must calls an operation until it is acknowledged. While the server is away,
// or going, a call fails: then nobody knows whether it was done, and it is
// made again, as the SDKs do. Who refuses it for a reason fails the test.
func must[Out any](r *run, svc *wire.Service, op string, in any) *Out {
	r.t.Helper()
	var out *Out
	r.until(op, func() (bool, string) {
		var err error
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		out, err = lab.Do[Out](ctx, r.w.Root, svc, op, in)
		if e, answered := errors.AsType[wire.Error](err); answered && e.HTTPStatus() < 500 {
			r.t.Fatalf("%s was refused: %v", op, err)
		}
		if err != nil {
			r.unheard++
		}
		return err == nil, fmt.Sprint(err)
	})
	return out
}

// until waits until ok, and fails with what it said last.
func (r *run) until(what string, ok func() (bool, string)) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	why := ""
	if err := lab.Until(ctx, func(context.Context) (done bool, err error) {
		done, why = ok()
		return done, nil
	}); err != nil {
		r.t.Fatalf("%s: %v: %s", what, err, why)
	}
}

func (r *run) network() *ecs.NetworkConfiguration {
	return &ecs.NetworkConfiguration{AwsvpcConfiguration: &ecs.AwsVpcConfiguration{
		Subnets: []string{r.subnet}, SecurityGroups: []string{r.group}, AssignPublicIp: ecs.AssignPublicIpEnabled}}
}

// start starts a task, once, however often it has to ask: on Fargate, or in the
// mode bridge on the instance, as soon as its agent is there.
func (r *run) start(by string, bridged bool) (arn string) {
	r.t.Helper()
	in := &ecs.RunTaskInput{TaskDefinition: new("box"), LaunchType: ecs.LaunchTypeFargate, NetworkConfiguration: r.network(), StartedBy: &by}
	if bridged {
		in.TaskDefinition, in.LaunchType, in.NetworkConfiguration = new("bridged"), ecs.LaunchTypeEc2, nil
	}
	var out *ecs.RunTaskOutput
	r.until("a task is taken", func() (bool, string) {
		var token [16]byte
		rand.Read(token[:])
		in.ClientToken = new(hex.EncodeToString(token[:]))
		out = must[ecs.RunTaskOutput](r, lab.ECS, "RunTask", in)
		if bridged && len(out.Failures) == 1 && text(out.Failures[0].Reason) == "AGENT" {
			return false, "AGENT"
		}
		return true, ""
	})
	if len(out.Tasks) != 1 {
		r.t.Fatalf("RunTask: %d tasks, failures %v", len(out.Tasks), out.Failures)
	}
	arn = *out.Tasks[0].TaskArn
	r.short[arn] = true
	return arn
}

func (r *run) stop(arn string) {
	r.t.Helper()
	must[ecs.StopTaskOutput](r, lab.ECS, "StopTask", &ecs.StopTaskInput{Task: &arn})
	r.short[arn] = false
}

// describe answers a task, which must be there: it was acknowledged.
func (r *run) describe(arn string) ecs.Task {
	r.t.Helper()
	out := must[ecs.DescribeTasksOutput](r, lab.ECS, "DescribeTasks", &ecs.DescribeTasksInput{Tasks: []string{arn}})
	if len(out.Tasks) != 1 {
		r.t.Fatalf("task %s was acknowledged and is lost: %v", arn, *out.Failures[0].Reason)
	}
	return out.Tasks[0]
}

// settled waits until a task is in its final state.
func (r *run) settled(arn, status string) {
	r.t.Helper()
	r.until("task "+arn+" is "+status, func() (bool, string) {
		now := r.describe(arn)
		if *now.LastStatus == "STOPPED" && status != "STOPPED" {
			r.t.Fatalf("task %s stopped: %s: %s (%s)", arn, now.StopCode, text(now.StoppedReason), text(now.Containers[0].Reason))
		}
		return *now.LastStatus == status, *now.LastStatus + ", wanted " + *now.DesiredStatus
	})
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// keep remembers a task that is to stay as it is.
func (r *run) keep(arn string) {
	r.t.Helper()
	now := r.describe(arn)
	k := steady{arn: arn}
	for _, a := range now.Attachments {
		for _, d := range a.Details {
			switch *d.Name {
			case "privateIPv4Address":
				k.private = *d.Value
			case "networkInterfaceId":
				out := must[ec2.DescribeNetworkInterfacesOutput](r, lab.EC2, "DescribeNetworkInterfaces", &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{*d.Value}})
				k.public = *out.NetworkInterfaces[0].Association.PublicIp + ":80"
			}
		}
	}
	if b := now.Containers[0].NetworkBindings; len(b) > 0 {
		k.public = fmt.Sprintf("%s:%d", r.host.public, *b[0].HostPort)
	}
	var err error
	if k.inits, err = r.w.Inits(id(arn)); err != nil || len(k.inits) != 1 {
		r.t.Fatalf("processes of %s: %v, %v", arn, k.inits, err)
	}
	r.until("the page of "+arn, func() (bool, string) {
		err := page(k.public)
		return err == nil, fmt.Sprint(err)
	})
	r.steady = append(r.steady, k)
}

func id(arn string) string { return arn[strings.LastIndex(arn, "/")+1:] }

// page opens the front page behind an address.
func page(address string) error {
	resp, err := lab.HTTP.Get("http://" + address + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.HasPrefix(string(b), "page")) {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return err
}

// round starts and stops tasks while processes die, and looks at what became
// of everything.
func (r *run) round(n int) {
	r.t.Helper()
	// What is decided by chance is decided first, so that a seed repeats it.
	var plan []kill
	for range 1 + r.rand.IntN(2) {
		plan = append(plan, kill{r.victims()[r.rand.IntN(len(victims)+1)], time.Duration(r.rand.IntN(250)) * time.Millisecond})
	}
	starts := make([]bool, 1+r.rand.IntN(2)) // whether on the instance
	for i := range starts {
		starts[i] = r.rand.IntN(2) == 0
	}
	var stops []string
	for _, arn := range slices.Sorted(maps.Keys(r.short)) {
		if r.short[arn] && (r.rand.IntN(2) == 0 || len(r.short) > 6) {
			stops = append(stops, arn)
		}
	}

	var killers sync.WaitGroup
	for _, k := range plan {
		killers.Go(func() { k.strike(r) })
	}
	for _, bridged := range starts {
		r.start(fmt.Sprintf("round-%d", n), bridged)
		if len(stops) > 0 {
			r.stop(stops[0])
			stops = stops[1:]
		}
	}
	for _, arn := range stops {
		r.stop(arn)
	}
	killers.Wait()
	for _, k := range plan {
		r.kills[k.role]++
	}

	// Nobody who runs has noticed, whether all processes are back or not.
	for _, k := range r.steady {
		if err := page(k.public); err != nil {
			r.t.Errorf("round %d (%v): %s at %s does not answer: %v", n, plan, k.arn, k.public, err)
		}
	}
	r.back()
	for _, arn := range slices.Sorted(maps.Keys(r.short)) {
		if r.short[arn] {
			r.settled(arn, "RUNNING")
		} else {
			r.settled(arn, "STOPPED")
			delete(r.short, arn)
		}
	}
	r.until("the service is steady", func() (bool, string) { return r.serviceIsSteady() })
	for _, k := range r.steady {
		r.unchanged(n, plan, k)
	}
	// Each acknowledged start is one task, and nothing else runs.
	want := slices.Sorted(maps.Keys(r.short))
	for _, k := range r.steady {
		want = append(want, k.arn)
	}
	slices.Sort(want)
	if got := r.list(""); !slices.Equal(got, want) {
		r.t.Errorf("round %d (%v): %d tasks run, want %d:\n%s\nwant:\n%s", n, plan, len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// victims are all that may be killed: those of the region and the instance's agent.
func (r *run) victims() []string { return append(slices.Clone(victims), "agent-"+r.host.id) }

// kill is one process to be killed, so long after the round began.
type kill struct {
	role  string
	after time.Duration
}

func (k kill) String() string { return fmt.Sprintf("%s after %v", k.role, k.after) }

func (k kill) strike(r *run) {
	time.Sleep(k.after) // the moment is the test's input
	all, err := r.w.Processes()
	if err != nil {
		r.t.Error(err)
		return
	}
	// It may just be dead.
	if pid, ok := all[k.role]; ok {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// back waits until every process is there again and the API answers.
func (r *run) back() {
	r.t.Helper()
	r.until("all processes are back", func() (bool, string) {
		all, err := r.w.Processes()
		for _, v := range r.victims() {
			if all[v] == 0 {
				return false, v + " is missing"
			}
		}
		return err == nil, fmt.Sprint(err)
	})
	must[ecs.ListClustersOutput](r, lab.ECS, "ListClusters", &ecs.ListClustersInput{})
}

// unchanged demands that a task has its process, its address, and an answer.
func (r *run) unchanged(n int, plan []kill, k steady) {
	r.t.Helper()
	now := r.describe(k.arn)
	inits, err := r.w.Inits(id(k.arn))
	if *now.LastStatus != "RUNNING" || err != nil || !maps.Equal(inits, k.inits) {
		r.t.Errorf("round %d (%v): %s is %s (%s) with processes %v (%v), was RUNNING with %v", n, plan, k.arn, *now.LastStatus, text(now.StoppedReason), inits, err, k.inits)
	}
	for _, c := range now.Containers {
		got := ""
		if len(c.NetworkInterfaces) > 0 {
			got = text(c.NetworkInterfaces[0].PrivateIpv4Address)
		}
		if len(c.NetworkBindings) > 0 && fmt.Sprintf("%s:%d", r.host.public, *c.NetworkBindings[0].HostPort) != k.public {
			r.t.Errorf("round %d (%v): %s has port %d, was at %s", n, plan, k.arn, *c.NetworkBindings[0].HostPort, k.public)
		}
		if got != k.private {
			r.t.Errorf("round %d (%v): %s has address %s, had %s", n, plan, k.arn, got, k.private)
		}
	}
	if err := page(k.public); err != nil {
		r.t.Errorf("round %d (%v): %s at %s does not answer: %v", n, plan, k.arn, k.public, err)
	}
}

func (r *run) serviceIsSteady() (bool, string) {
	out := must[ecs.DescribeServicesOutput](r, lab.ECS, "DescribeServices", &ecs.DescribeServicesInput{Services: []string{"steady"}})
	s := out.Services[0]
	return *s.RunningCount == 2 && *s.PendingCount == 0 && len(s.Deployments) == 1, fmt.Sprintf("%d running, %d pending", *s.RunningCount, *s.PendingCount)
}

// list is every task that is to run, or those of the service.
func (r *run) list(what string) []string {
	r.t.Helper()
	in := &ecs.ListTasksInput{}
	if what == "service" {
		in.ServiceName = new("steady")
	}
	arns := must[ecs.ListTasksOutput](r, lab.ECS, "ListTasks", in).TaskArns
	slices.Sort(arns)
	return arns
}

// empty waits until no task runs and no address is in use but the instance's.
func (r *run) empty() {
	r.t.Helper()
	r.until("no task is left", func() (bool, string) {
		arns := r.list("")
		enis := must[ec2.DescribeNetworkInterfacesOutput](r, lab.EC2, "DescribeNetworkInterfaces", &ec2.DescribeNetworkInterfacesInput{}).NetworkInterfaces
		enis = slices.DeleteFunc(enis, func(e ec2.NetworkInterface) bool {
			return e.Attachment != nil && r.host.id != "" && text(e.Attachment.InstanceId) == r.host.id && !*e.RequesterManaged
		})
		return len(arns) == 0 && len(enis) == 0, fmt.Sprintf("tasks %v, %d interfaces", arns, len(enis))
	})
}

// end stops everything and compares with the beginning.
func (r *run) end() {
	r.t.Helper()
	if b, err := os.ReadFile(filepath.Join(r.w.Dir, "logs", "node.log")); err == nil {
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, "OCI runtime") {
				r.t.Log(strings.TrimSpace(line))
				break
			}
		}
	}
	r.t.Logf("killed %v; %d calls were made again", r.kills, r.unheard)
	must[ecs.DeleteServiceOutput](r, lab.ECS, "DeleteService", &ecs.DeleteServiceInput{Service: new("steady"), Force: new(true)})
	for _, k := range r.steady {
		r.stop(k.arn)
	}
	for arn, wanted := range r.short {
		if wanted {
			r.stop(arn)
		}
	}
	for arn := range r.short {
		r.settled(arn, "STOPPED")
	}
	r.empty()
	var more []string
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := lab.Until(ctx, func(ctx context.Context) (bool, error) {
		now, err := r.w.Inventory(ctx)
		more = r.before.Diff(now)
		return len(more) == 0, err
	})
	if err != nil {
		r.t.Errorf("the region has more than before it had tasks: %v\n%s", err, strings.Join(more, "\n"))
	}
	for _, k := range r.steady {
		if c, err := net.DialTimeout("tcp4", k.public, lab.Impatience); err == nil {
			c.Close()
			r.t.Errorf("%s still answers", k.public)
		}
	}
	must[ec2.TerminateInstancesOutput](r, lab.EC2, "TerminateInstances", &ec2.TerminateInstancesInput{InstanceIds: []string{r.host.id}})
	r.until("the instance is gone", func() (bool, string) {
		i := must[ec2.DescribeInstancesOutput](r, lab.EC2, "DescribeInstances", &ec2.DescribeInstancesInput{InstanceIds: []string{r.host.id}}).Reservations[0].Instances[0]
		return i.State.Name == "terminated", string(i.State.Name)
	})
	r.host = machine{}
	r.empty()
}
