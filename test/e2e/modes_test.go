package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/test/lab"
)

// A machine is a container instance of a test.
type machine struct {
	w                   *world
	id, public, private string
	subnet              string
}

// machine launches a container instance; ready waits for it.
func (w *world) machine(t *testing.T, kind, subnet, group, config string, public bool) *machine {
	t.Helper()
	flag := "--no-associate-public-ip-address"
	if public {
		flag = "--associate-public-ip-address"
	}
	script := "#!/bin/sh\ncat >> /etc/ecs/ecs.config <<END\n" + config + "\nEND\n"
	return &machine{w: w, subnet: subnet, id: w.launch(t, script, "--iam-instance-profile", "Name=machines", "--instance-type", kind,
		"--subnet-id", subnet, "--security-group-ids", group, flag)}
}

func (m *machine) ready(t *testing.T) {
	t.Helper()
	var in *ecs.DescribeContainerInstancesInput
	err := lab.Until(deadline(t), func(context.Context) (bool, error) {
		list := call[ecs.ListContainerInstancesOutput](t, m.w, lab.ECS, "ListContainerInstances", &ecs.ListContainerInstancesInput{Filter: new("ec2InstanceId == " + m.id)})
		if len(list.ContainerInstanceArns) != 1 {
			return false, nil
		}
		in = &ecs.DescribeContainerInstancesInput{ContainerInstances: list.ContainerInstanceArns}
		out := call[ecs.DescribeContainerInstancesOutput](t, m.w, lab.ECS, "DescribeContainerInstances", in)
		return wire.Value(out.ContainerInstances[0].AgentConnected), nil
	})
	if err != nil {
		t.Fatalf("instance %s does not register: %v\n%s\n%s", m.id, err, m.w.console(t, m.id), m.w.agentLog(m.id))
	}
	i := call[ec2.DescribeInstancesOutput](t, m.w, lab.EC2, "DescribeInstances", &ec2.DescribeInstancesInput{InstanceIds: []string{m.id}}).Reservations[0].Instances[0]
	m.public, m.private = wire.Value(i.PublicIpAddress), wire.Value(i.PrivateIpAddress)
}

// arn is the container instance.
func (m *machine) arn(t *testing.T) string {
	t.Helper()
	return call[ecs.ListContainerInstancesOutput](t, m.w, lab.ECS, "ListContainerInstances", &ecs.ListContainerInstancesInput{Filter: new("ec2InstanceId == " + m.id)}).ContainerInstanceArns[0]
}

// defineFor registers a task definition for instances in a network mode.
func (w *world) defineFor(t *testing.T, mode ecs.NetworkMode, containers ...ecs.ContainerDefinition) string {
	t.Helper()
	out := call[ecs.RegisterTaskDefinitionOutput](t, w, lab.ECS, "RegisterTaskDefinition", w.definition(t, mode, containers...))
	return *out.TaskDefinition.TaskDefinitionArn
}

func (w *world) definition(t *testing.T, mode ecs.NetworkMode, containers ...ecs.ContainerDefinition) *ecs.RegisterTaskDefinitionInput {
	f := family(t)
	for i := range containers {
		c := &containers[i]
		c.Memory, c.StopTimeout = new(int32(64)), new(int32(2))
		c.LogConfiguration = &ecs.LogConfiguration{LogDriver: ecs.LogDriverAwslogs, Options: map[string]string{
			"awslogs-group": "/e2e", "awslogs-region": w.Name, "awslogs-stream-prefix": f}}
	}
	return &ecs.RegisterTaskDefinitionInput{Family: &f, NetworkMode: mode, RequiresCompatibilities: []ecs.Compatibility{ecs.CompatibilityEc2},
		ExecutionRoleArn: &w.exec, TaskRoleArn: &w.role, ContainerDefinitions: containers}
}

// publish adds a port mapping to a container. Host 0 lets the instance choose.
func publish(c ecs.ContainerDefinition, container, host int32) ecs.ContainerDefinition {
	c.PortMappings = append(c.PortMappings, ecs.PortMapping{ContainerPort: &container, HostPort: &host})
	return c
}

// on is how a task is run on the machine and no other.
func (m *machine) on(definition string) *ecs.RunTaskInput {
	return &ecs.RunTaskInput{TaskDefinition: &definition, LaunchType: ecs.LaunchTypeEc2, PlacementConstraints: []ecs.PlacementConstraint{
		{Type: ecs.PlacementConstraintTypeMemberOf, Expression: new("ec2InstanceId == " + m.id)}}}
}

// in is the same in a subnet with groups.
func (m *machine) in(definition, subnet string, groups ...string) *ecs.RunTaskInput {
	in := m.on(definition)
	in.NetworkConfiguration = &ecs.NetworkConfiguration{AwsvpcConfiguration: &ecs.AwsVpcConfiguration{Subnets: []string{subnet}, SecurityGroups: groups}}
	return in
}

// place runs tasks and waits until they run.
func (w *world) place(t *testing.T, in *ecs.RunTaskInput) (tasks []*task) {
	t.Helper()
	out := call[ecs.RunTaskOutput](t, w, lab.ECS, "RunTask", in)
	if len(out.Failures) > 0 {
		t.Fatalf("RunTask: %s", show(out.Failures))
	}
	for _, now := range out.Tasks {
		k := &task{t: t, w: w, arn: *now.TaskArn, family: family(t)}
		t.Cleanup(func() {
			if *k.describe().LastStatus != "STOPPED" {
				k.stop("")
			}
		})
		tasks = append(tasks, k)
	}
	for _, k := range tasks {
		k.wait("RUNNING")
	}
	return tasks
}

// refuses demands that the machine does not take a task, for one reason.
func (m *machine) refuses(t *testing.T, in *ecs.RunTaskInput, reason string) {
	t.Helper()
	out := call[ecs.RunTaskOutput](t, m.w, lab.ECS, "RunTask", in)
	for _, k := range out.Tasks {
		(&task{t: t, w: m.w, arn: *k.TaskArn}).stop("")
	}
	for _, f := range out.Failures {
		if *f.Arn == m.arn(t) && *f.Reason != reason {
			t.Errorf("%s: %s, want %s", *f.Arn, *f.Reason, reason)
		}
	}
	if len(out.Tasks) != 0 || len(out.Failures) == 0 {
		t.Errorf("RunTask: %d tasks, failures %s, want %s", len(out.Tasks), show(out.Failures), reason)
	}
}

// bound are the ports of the instance that a container has, by its own.
func bound(t *testing.T, now ecs.Task, name string) map[int32]int32 {
	t.Helper()
	out := map[int32]int32{}
	for _, b := range container(now, name).NetworkBindings {
		if b.HostPort != nil {
			out[*b.ContainerPort] = *b.HostPort
		}
	}
	return out
}

// A peer is a container that serves the tests' pages, with the one through
// which it is asked; nil is this machine.
type peer struct {
	at  string // host:port
	via *peer
}

// ask opens a page of the container.
func (p *peer) ask(ctx context.Context, path string, args ...string) (string, error) {
	u := "http://" + p.at + path + query(args)
	if p.via != nil {
		return p.via.ask(ctx, "/get", "url", u)
	}
	code, body, err := get(ctx, u)
	if err == nil && code != http.StatusOK {
		err = errors.New(strings.TrimSpace(body))
	}
	return body, err
}

// says opens a page, as soon as it can be opened.
func (p *peer) says(t *testing.T, path string, args ...string) (body string) {
	t.Helper()
	var last error
	err := lab.Until(deadline(t), func(ctx context.Context) (bool, error) {
		body, last = p.ask(ctx, path, args...)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s of %s: %v: %v", path, p.at, last, err)
	}
	return body
}

// connects waits until a connection from the peer to an address can, or
// cannot, be made. The peer itself must answer. Nil is this machine.
func (p *peer) connects(t *testing.T, to string, want bool) {
	t.Helper()
	var last error
	err := lab.Until(deadline(t), func(ctx context.Context) (bool, error) {
		if p == nil {
			var c net.Conn
			if c, last = net.DialTimeout("tcp4", to, lab.Impatience); last == nil {
				c.Close()
			}
			return (last == nil) == want, nil
		}
		_, last = p.ask(ctx, "/dial", "to", to, "wait", "700ms")
		if last != nil && !strings.Contains(last.Error(), "dial tcp4 "+to) {
			return false, nil // it was not asked
		}
		return (last == nil) == want, nil
	})
	if err != nil {
		from := "this machine"
		if p != nil {
			from = p.at
		}
		t.Errorf("from %s to %s (wanted: %v): %v: %v", from, to, want, last, err)
	}
}

func (p *peer) reaches(t *testing.T, to string) { t.Helper(); p.connects(t, to, true) }
func (p *peer) misses(t *testing.T, to string)  { t.Helper(); p.connects(t, to, false) }

func port(n int32) string { return strconv.Itoa(int(n)) }

// belongs demands that a container finds its task at the metadata endpoint, is
// given the credentials of the task's role, and has its output in the log.
func (k *task) belongs(t *testing.T, p *peer, name string) {
	t.Helper()
	var env map[string]string
	if err := json.Unmarshal([]byte(p.says(t, "/env")), &env); err != nil {
		t.Fatal(err)
	}
	var meta struct{ TaskARN string }
	if err := json.Unmarshal([]byte(p.says(t, "/get", "url", env["ECS_CONTAINER_METADATA_URI_V4"]+"/task")), &meta); err != nil || meta.TaskARN != k.arn {
		t.Errorf("metadata of %s: %+v, %v", k.arn, meta, err)
	}
	var c struct{ AccessKeyID, SecretAccessKey, Token, RoleArn string }
	if err := json.Unmarshal([]byte(p.says(t, "/get", "url", "http://169.254.170.2"+env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"])), &c); err != nil || c.RoleArn != k.w.role {
		t.Errorf("credentials of %s: %v, %v", k.arn, c.RoleArn, err)
	}
	id := lab.Identity{Region: k.w.Region, AccessKeyID: c.AccessKeyID, Secret: c.SecretAccessKey, Token: c.Token}
	if err := id.Call(t.Context(), lab.ECS, "ListClusters", &ecs.ListClustersInput{}, nil); err != nil {
		t.Errorf("as the role of %s: %v", k.arn, err)
	}
	if err := id.Call(t.Context(), lab.ECS, "ListTasks", &ecs.ListTasksInput{}, nil); codeOf(err) != "AccessDeniedException" {
		t.Errorf("as the role of %s, which may not: %v", k.arn, err)
	}
	p.says(t, "/print", "line", "I am "+k.id())
	if got := k.printed(name, 1); got[0] != "I am "+k.id() {
		t.Errorf("log of %s: %q", name, got)
	}
}

// modes is the region of TestModes with its instances: one and two in the
// default VPC.
type modes struct {
	*world
	one, two *machine
	hosts    string // group of both
	outsider *peer  // a Fargate task in their VPC
	sent     []sent // what flow logs are to say at the end
}

// sent is a connection that was tried, once.
type sent struct {
	eni, from, to string // interface ("eni-…"), addresses
	port          string
	accepted      bool
}

// What tasks of the network modes bridge, host, none and awsvpc have on
// instances: who reaches whom at which port, before and after a rule changed.
func TestModes(t *testing.T) {
	w := &modes{world: fresh(t)}
	w.profile(t, "machines", containerInstanceRole)
	w.hosts = *call[ec2.CreateSecurityGroupOutput](t, w.world, lab.EC2, "CreateSecurityGroup", &ec2.CreateSecurityGroupInput{GroupName: new("hosts"), Description: new("instances")}).GroupId
	w.allow(t, w.hosts, dynamic)
	w.logFlows(t)
	w.one = w.machine(t, "t3.small", w.subnets[0], w.hosts, "ECS_AWSVPC_BLOCK_IMDS=true", true)
	w.two = w.machine(t, "t3.small", w.subnets[0], w.hosts, "ECS_DYNAMIC_HOST_PORT_RANGE=40000-40009", true)
	outsider := w.detached(t, w.page("outsider"))
	w.one.ready(t)
	w.two.ready(t)
	outsider.wait("RUNNING")
	w.outsider = &peer{at: outsider.public() + ":80"}
	w.outsider.says(t, "/")
	t.Run("bridge", w.bridge)
	t.Run("ports", w.ports)
	t.Run("links", w.links)
	t.Run("host", w.host)
	t.Run("none", w.none)
	t.Run("awsvpc", w.awsvpc)
	t.Run("addresses", w.addresses)
	t.Run("trunk", w.trunk)
	t.Run("flows", w.flows) // before the node is killed, which has what is counted for up to a minute
	t.Run("kills", w.kills)
	t.Run("stops", w.stops)
	w.leave(t, w.one, w.two)
	outsider.stop("")
	if err := w.empty(deadline(t)); err != nil {
		t.Error(err)
	}
}

// leave terminates instances and demands that nothing of them is left.
func (w *world) leave(t *testing.T, machines ...*machine) {
	t.Helper()
	for _, m := range machines {
		w.aws(t, "ec2", "terminate-instances", "--instance-ids", m.id)
	}
	for _, m := range machines {
		w.instanceIs(t, m.id, "terminated")
		for _, dir := range []string{filepath.Join(w.Dir, "node/instance/i", m.id), filepath.Join(w.RunDir(), "i", m.id)} {
			if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", dir, err)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), m.id) {
			t.Errorf("mounts of %s are left (%v)", m.id, err)
		}
	}
}

// dynamic are the ports that instances choose from.
var dynamic = []ec2.IpPermission{{IpProtocol: new("tcp"), FromPort: new(int32(32768)), ToPort: new(int32(60999)), IpRanges: []ec2.IpRange{{CidrIp: new("0.0.0.0/0")}}}}

// bridge: an address on the instance's bridge, and of the instance only the
// ports that are published, for whom its group admits.
func (w *modes) bridge(t *testing.T) {
	// It also listens where nothing is published.
	d := w.defineFor(t, ecs.NetworkModeBridge, publish(w.box("web", "listen", "81", "serve", "80"), 80, 0))
	in := w.one.on(d)
	in.Count = new(int32(2))
	tasks := w.place(t, in)
	var peers []*peer
	var inner []string // addresses on the bridge
	used := map[int32]bool{}
	for _, k := range tasks {
		now := k.describe()
		p := bound(t, now, "web")[80]
		if p < 32768 || p > 60999 || used[p] {
			t.Errorf("host port %d, taken %v", p, used)
		}
		used[p] = true
		if b := container(now, "web").NetworkBindings[0]; *b.BindIP != "0.0.0.0" || b.Protocol != "tcp" {
			t.Errorf("binding %s", show(b))
		}
		self := &peer{at: w.one.public + ":" + port(p)}
		page := self.says(t, "/")
		_, at, _ := strings.Cut(page, " at ")
		at, _, _ = strings.Cut(at, " ")
		if !strings.HasPrefix(at, "172.17.0.") || !strings.HasSuffix(at, ":80") {
			t.Errorf("page %q", page)
		}
		peers, inner = append(peers, self), append(inner, strings.TrimSuffix(at, ":80"))
		k.belongs(t, self, "web")
	}
	first, second := peers[0], peers[1]
	published := strings.TrimPrefix(first.at, w.one.public)

	// For the flow log of the instance's interface, which stays till the end.
	page := w.outsider.says(t, "/")
	_, from, _ := strings.Cut(page, " at ")
	from, _, _ = strings.Cut(from, ":")
	eni := w.aws(t, "ec2", "describe-instances", "--instance-ids", w.one.id, "--query", "Reservations[0].Instances[0].NetworkInterfaces[0].NetworkInterfaceId", "--output", "text")
	w.outsider.misses(t, w.one.private+":79")
	w.outsider.reaches(t, w.one.private+published)
	w.sent = append(w.sent, sent{eni, from, w.one.private, "79", false}, sent{eni, from, w.one.private, published[1:], true})

	// Whoever is in the VPC or outside reaches what is published and nothing else.
	w.allow(t, w.hosts, tcp(81, "0.0.0.0/0"))
	second.reaches(t, inner[0]+":81") // it does listen there
	w.outsider.reaches(t, w.one.private+published)
	for _, to := range []string{w.one.private + ":81", w.one.public + ":81", w.two.private + published} {
		w.outsider.misses(t, to)
	}
	(*peer)(nil).misses(t, w.one.public+":81")
	w.revoke(t, w.hosts, tcp(81, "0.0.0.0/0"))

	// The group of the instance decides from outside, not between its own.
	w.revoke(t, w.hosts, dynamic)
	(*peer)(nil).misses(t, first.at)
	w.outsider.misses(t, w.one.private+published)
	w.allow(t, w.hosts, dynamic)
	(*peer)(nil).reaches(t, first.at)
	w.outsider.reaches(t, w.one.private+published)

	// The metadata service of the instance is there for it, too.
	if _, err := first.ask(t.Context(), "/get", "url", "http://169.254.169.254/latest/meta-data/"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("metadata of the instance: %v", err)
	}

	// Another agent's choice of ports is its own.
	other := w.place(t, w.two.on(d))[0]
	if p := bound(t, other.describe(), "web")[80]; p < 40000 || p > 40009 {
		t.Errorf("host port %d of an instance that chooses from 40000 to 40009", p)
	}
}

// ports: one of the instance has one owner, and a range is one of neighbours.
func (w *modes) ports(t *testing.T) {
	d := w.defineFor(t, ecs.NetworkModeBridge, publish(w.box("web", "serve", "80"), 80, 33080))
	first := w.place(t, w.one.on(d))[0]
	(&peer{at: w.one.public + ":33080"}).says(t, "/")
	w.one.refuses(t, w.one.on(d), "RESOURCE:PORTS")
	first.stop("")
	(*peer)(nil).misses(t, w.one.public+":33080")

	call[ecs.CreateServiceOutput](t, w.world, lab.ECS, "CreateService", &ecs.CreateServiceInput{ServiceName: new("static"), TaskDefinition: &d, DesiredCount: new(int32(3)), LaunchType: ecs.LaunchTypeEc2})
	w.until(t, `2 .*\(service static\) was unable to place a task because no container instance met all of its requirements\. The closest matching \(container-instance [0-9a-f]+\) is already using a port required by your task\. .*`,
		"ecs", "describe-services", "--services", "static", "--query", "services[0].[runningCount,events[?contains(message,`unable`)]|[0].message]")
	for _, m := range []*machine{w.one, w.two} {
		(&peer{at: m.public + ":33080"}).says(t, "/")
	}
	w.aws(t, "ecs", "delete-service", "--service", "static", "--force")
	(*peer)(nil).misses(t, w.one.public+":33080")

	c := w.box("web", "listen", "9000", "listen", "9001", "serve", "9002")
	c.PortMappings = []ecs.PortMapping{{ContainerPortRange: new("9000-9002")}}
	k := w.place(t, w.one.on(w.defineFor(t, ecs.NetworkModeBridge, c)))[0]
	b := container(k.describe(), "web").NetworkBindings
	if len(b) != 1 || wire.Value(b[0].ContainerPortRange) != "9000-9002" {
		t.Fatalf("bindings %s", show(b))
	}
	from, _, _ := strings.Cut(wire.Value(b[0].HostPortRange), "-")
	low, err := strconv.Atoi(from)
	if err != nil || *b[0].HostPortRange != fmt.Sprintf("%d-%d", low, low+2) || low < 32768 {
		t.Fatalf("bindings %s", show(b))
	}
	for i := range 3 {
		if page := (&peer{at: fmt.Sprintf("%s:%d", w.one.public, low+i)}).says(t, "/"); !strings.Contains(page, fmt.Sprintf(":%d for ", 9000+i)) {
			t.Errorf("port %d: %q", low+i, page)
		}
	}
}

// links: a container knows those it links to by name, and no others.
func (w *modes) links(t *testing.T) {
	db := w.box("db", "serve", "80")
	db.Environment = []ecs.KeyValuePair{{Name: new("PAGE"), Value: new("db")}}
	web, stranger := publish(w.box("web", "serve", "81"), 81, 0), publish(w.box("stranger", "serve", "82"), 82, 0)
	web.Links = []string{"db:store"}
	now := w.place(t, w.one.on(w.defineFor(t, ecs.NetworkModeBridge, db, web, stranger)))[0].describe()
	self := &peer{at: w.one.public + ":" + port(bound(t, now, "web")[81])}
	if page := self.says(t, "/get", "url", "http://store/"); !strings.HasPrefix(page, "page db of") {
		t.Errorf("page of the link: %q", page)
	}
	other := &peer{at: w.one.public + ":" + port(bound(t, now, "stranger")[82])}
	other.says(t, "/")
	if got, err := other.ask(t.Context(), "/lookup", "name", "store"); err == nil {
		t.Errorf("who has no link knows store as %s", got)
	}
}

// host: the interfaces of the instance. A port is there once.
func (w *modes) host(t *testing.T) {
	d := w.defineFor(t, ecs.NetworkModeHost, publish(w.box("web", "serve", "33090"), 33090, 33090))
	in := w.one.on(d)
	in.PlacementConstraints, in.Count = nil, new(int32(2))
	tasks := w.place(t, in)
	on := map[string]bool{}
	for _, k := range tasks {
		on[*k.describe().ContainerInstanceArn] = true
	}
	if len(on) != 2 {
		t.Fatalf("two copies are on %v", on)
	}
	w.one.refuses(t, w.one.on(d), "RESOURCE:PORTS")
	for _, m := range []*machine{w.one, w.two} {
		self := &peer{at: m.public + ":33090"}
		if page := self.says(t, "/"); !strings.Contains(page, " of ip-"+strings.ReplaceAll(m.private, ".", "-")) || !strings.Contains(page, " at "+m.private+":33090 ") {
			t.Errorf("page %q", page)
		}
		if dev := self.says(t, "/cat", "path", "/proc/net/dev"); !strings.Contains(dev, "docker0:") || !strings.Contains(dev, "ecs-bridge:") {
			t.Errorf("interfaces: %s", dev)
		}
		k := tasks[0]
		if *k.describe().ContainerInstanceArn != m.arn(t) {
			k = tasks[1]
		}
		k.belongs(t, self, "web")
	}
	// The group is the instance's.
	at := w.one.private + ":33090"
	w.outsider.reaches(t, at)
	w.revoke(t, w.hosts, dynamic)
	w.outsider.misses(t, at)
	w.allow(t, w.hosts, dynamic)
	w.outsider.reaches(t, at)
}

// none: loopback and nothing else; what it prints still arrives.
func (w *modes) none(t *testing.T) {
	d := w.defineFor(t, ecs.NetworkModeNone, w.box("web", "cat", "/proc/net/dev", "dial", "172.17.0.1:22", "listen", "80", "dial", "127.0.0.1:80", "term"))
	k := w.place(t, w.one.on(d))[0]
	out := k.printed("web", 6)
	text := strings.Join(out, "\n")
	if strings.Count(text, ":") < 1 || strings.Contains(text, "eth0") || !strings.Contains(text, "    lo:") {
		t.Errorf("interfaces: %s", text)
	}
	if !strings.Contains(text, "172.17.0.1:22: dial tcp4 172.17.0.1:22: connect: network is unreachable") || !strings.Contains(text, "127.0.0.1:80: reached") {
		t.Errorf("it says %s", text)
	}
	refused(t, w.Root, lab.ECS, "RegisterTaskDefinition", w.definition(t, ecs.NetworkModeNone, publish(w.box("web", "term"), 80, 80)),
		"ClientException", "Port mappings are not supported when networkMode=none.")
}

// interfaceOf is the interface of an awsvpc task.
func (k *task) interfaceOf(t *testing.T) ec2.NetworkInterface {
	t.Helper()
	id := detail(k.describe(), "networkInterfaceId")
	out := call[ec2.DescribeNetworkInterfacesOutput](t, k.w, lab.EC2, "DescribeNetworkInterfaces", &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}})
	return out.NetworkInterfaces[0]
}

// awsvpc: each task has an interface of its own, as many as the type of the
// instance has.
func (w *modes) awsvpc(t *testing.T) {
	d := w.defineFor(t, ecs.NetworkModeAwsvpc, publish(w.box("web", "serve", "80"), 80, 80), w.box("side", "serve", "81"))
	group := w.group(t, "web")
	subnet := w.one.subnet
	a, b := w.place(t, w.one.in(d, subnet, group))[0], w.place(t, w.one.in(d, subnet, w.open))[0]
	w.one.refuses(t, w.one.in(d, subnet, w.open), "RESOURCE:ENI")
	public := w.one.in(d, subnet, w.open)
	public.NetworkConfiguration.AwsvpcConfiguration.AssignPublicIp = ecs.AssignPublicIpEnabled
	refused(t, w.Root, lab.ECS, "RunTask", public, "InvalidParameterException", "Assign public IP is not supported for this launch type.")

	x, y := a.interfaceOf(t), b.interfaceOf(t)
	if *x.PrivateIpAddress == *y.PrivateIpAddress || *x.MacAddress == *y.MacAddress || *x.Groups[0].GroupId != group || *y.Groups[0].GroupId != w.open {
		t.Errorf("interfaces %s and %s", show(x), show(y))
	}
	for _, i := range []ec2.NetworkInterface{x, y} {
		if i.Association != nil || !*i.RequesterManaged || i.Status != "in-use" {
			t.Errorf("interface %s", show(i))
		}
	}
	to, at := a.private()+":80", b.private()+":80"
	w.outsider.misses(t, to)
	w.outsider.reaches(t, at)
	w.allow(t, group, tcp(80, "172.31.0.0/16"))
	w.outsider.reaches(t, to)
	w.outsider.misses(t, a.private()+":81")
	w.outsider.reaches(t, b.private()+":81")
	// From its own instance, from others, and from each other.
	bridged := w.place(t, w.one.on(w.defineFor(t, ecs.NetworkModeBridge, publish(w.box("client", "serve", "80"), 80, 0))))[0]
	local := &peer{at: w.one.public + ":" + port(bound(t, bridged.describe(), "client")[80])}
	local.reaches(t, to)
	other := &peer{at, w.outsider}
	other.reaches(t, to)
	for _, k := range []*task{a, b} {
		self := &peer{k.private() + ":80", w.outsider}
		if page := self.says(t, "/"); !strings.Contains(page, " at "+k.private()+":80 ") {
			t.Errorf("page %q", page)
		}
		if page := self.says(t, "/get", "url", "http://127.0.0.1:81/"); !strings.Contains(page, " at 127.0.0.1:81 ") {
			t.Errorf("page %q of the container beside", page)
		}
		k.belongs(t, self, "web")
		mac := strings.TrimSpace(self.says(t, "/cat", "path", "/sys/class/net/eth0/address"))
		if want := *k.interfaceOf(t).MacAddress; mac != want {
			t.Errorf("MAC %s, want %s", mac, want)
		}
		// Neither the containers beside nor the instance's metadata are theirs.
		self.misses(t, "172.17.0.2:80")
		if _, err := self.ask(t.Context(), "/get", "url", "http://169.254.169.254/latest/meta-data/"); err == nil || strings.Contains(err.Error(), "401") {
			t.Errorf("metadata of an instance that blocks it: %v", err)
		}
	}
	w.revoke(t, group, tcp(80, "172.31.0.0/16"))
	w.outsider.misses(t, to)
	w.outsider.reaches(t, at)

	// An instance that does not block it.
	c := w.place(t, w.two.in(d, subnet, w.open))[0]
	open := &peer{c.private() + ":80", w.outsider}
	open.says(t, "/")
	if _, err := open.ask(t.Context(), "/get", "url", "http://169.254.169.254/latest/meta-data/"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("metadata of an instance that does not block it: %v", err)
	}

	// What a task leaves, the next one has.
	b.stop("")
	w.place(t, w.one.in(d, subnet, w.open))
}

// logFlows makes a flow log of the whole VPC.
func (w *modes) logFlows(t *testing.T) {
	w.aws(t, "iam", "create-role", "--role-name", "flows", "--assume-role-policy-document",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"vpc-flow-logs.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)
	w.aws(t, "iam", "put-role-policy", "--role-name", "flows", "--policy-name", "write", "--policy-document",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:*","Resource":"*"}]}`)
	w.aws(t, "ec2", "create-flow-logs", "--resource-type", "VPC", "--resource-ids", w.vpc, "--traffic-type", "ALL", "--log-group-name", "/flows",
		"--max-aggregation-interval", "60", "--deliver-logs-permission-arn", "arn:aws:iam::"+w.Account+":role/flows")
}

// flows: the log of an interface has the packets that were sent, and no others
// between the two at that port.
func (w *modes) flows(t *testing.T) {
	if len(w.sent) != 2 {
		t.Fatalf("%d connections were tried", len(w.sent))
	}
	for _, s := range w.sent {
		var lines []string
		in := &logs.GetLogEventsInput{LogGroupName: new("/flows"), LogStreamName: new(s.eni + "-all"), StartFromHead: new(true)}
		verdict := "REJECT"
		if s.accepted {
			verdict = "ACCEPT"
		}
		to, back := 0, 0
		err := lab.Until(deadline(t), func(ctx context.Context) (bool, error) {
			events, err := lab.Do[logs.GetLogEventsOutput](ctx, w.Root, lab.Logs, "GetLogEvents", in)
			if codeOf(err) == "ResourceNotFoundException" {
				return false, nil
			} else if err != nil {
				return false, err
			}
			lines, to, back = nil, 0, 0
			for _, e := range events.Events {
				f := strings.Fields(*e.Message)
				if len(f) != 14 || f[0] != "2" || f[1] != w.Account || f[2] != s.eni {
					return false, fmt.Errorf("line %q", *e.Message)
				}
				if f[12] != verdict || f[7] != "6" {
					if !s.accepted && slices.Contains(f[3:5], s.from) && slices.Contains(f[5:7], s.port) {
						return false, fmt.Errorf("line %q", *e.Message)
					}
					continue // as when the rule was away
				}
				switch {
				case f[3] == s.from && f[4] == s.to && f[6] == s.port:
					lines = append(lines, *e.Message)
					n, _ := strconv.Atoi(f[8])
					to += n
				case f[3] == s.to && f[4] == s.from && f[5] == s.port:
					lines = append(lines, *e.Message)
					n, _ := strconv.Atoi(f[8])
					back += n
				}
			}
			return to > 0, nil
		})
		if err != nil {
			t.Errorf("flows of %+v: %v", s, err)
			continue
		}
		// A connection that is refused is one packet; one that is made and
		// closed takes at least two in each direction.
		if !s.accepted && (to != 1 || back != 0) || s.accepted && (to < 2 || back < 2) {
			t.Errorf("%+v: %d packets, %d back: %q", s, to, back, lines)
		}
	}
}

// addresses: of a further range of the VPC, and of a subnet that has none.
func (w *modes) addresses(t *testing.T) {
	zone := w.aws(t, "ec2", "describe-subnets", "--subnet-ids", w.two.subnet, "--query", "Subnets[0].AvailabilityZone", "--output", "text")
	subnet := func(cidr string) string {
		s := call[ec2.CreateSubnetOutput](t, w.world, lab.EC2, "CreateSubnet", &ec2.CreateSubnetInput{VpcId: &w.vpc, CidrBlock: &cidr, AvailabilityZone: &zone})
		return *s.Subnet.SubnetId
	}
	d := w.defineFor(t, ecs.NetworkModeAwsvpc, w.box("web", "serve", "80"))
	call[ec2.AssociateVpcCidrBlockOutput](t, w.world, lab.EC2, "AssociateVpcCidrBlock", &ec2.AssociateVpcCidrBlockInput{VpcId: &w.vpc, CidrBlock: new("100.64.0.0/16")})
	k := w.place(t, w.two.in(d, subnet("100.64.1.0/24"), w.open))[0]
	if !strings.HasPrefix(k.private(), "100.64.1.") {
		t.Errorf("address %s of a subnet in the second range", k.private())
	}
	w.outsider.reaches(t, k.private()+":80")
	if page := w.outsider.says(t, "/get", "url", "http://"+k.private()+"/"); !strings.Contains(page, " at "+k.private()+":80 for 172.31.") {
		t.Errorf("page %q", page)
	}

	small := subnet("172.31.240.0/28")
	free := func() int {
		n, err := strconv.Atoi(w.aws(t, "ec2", "describe-subnets", "--subnet-ids", small, "--query", "Subnets[0].AvailableIpAddressCount", "--output", "text"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var all []string
	for range free() {
		e := call[ec2.CreateNetworkInterfaceOutput](t, w.world, lab.EC2, "CreateNetworkInterface", &ec2.CreateNetworkInterfaceInput{SubnetId: &small})
		all = append(all, *e.NetworkInterface.NetworkInterfaceId)
	}
	count := func() int {
		return len(call[ec2.DescribeNetworkInterfacesOutput](t, w.world, lab.EC2, "DescribeNetworkInterfaces", &ec2.DescribeNetworkInterfacesInput{}).NetworkInterfaces)
	}
	before := count()
	out := call[ecs.RunTaskOutput](t, w.world, lab.ECS, "RunTask", w.two.in(d, small, w.open))
	if len(out.Tasks) != 1 {
		t.Fatalf("RunTask: %s", show(out.Failures))
	}
	failed := (&task{t: t, w: w.world, arn: *out.Tasks[0].TaskArn}).until("the task has failed", func(now ecs.Task) bool { return *now.LastStatus == "STOPPED" })
	want := "Unexpected EC2 error while attempting to Create Network Interface in subnet '" + small + "': InsufficientFreeAddressesInSubnet"
	if *failed.StoppedReason != want || failed.StopCode != "TaskFailedToStart" {
		t.Errorf("stopped: %s: %s", failed.StopCode, *failed.StoppedReason)
	}
	if n := count(); n != before || free() != 0 {
		t.Errorf("%d interfaces, were %d; %d addresses are free", n, before, free())
	}
	call[ec2.DeleteNetworkInterfaceOutput](t, w.world, lab.EC2, "DeleteNetworkInterface", &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: &all[0]})
	last := w.place(t, w.two.in(d, small, w.open))[0]
	w.outsider.reaches(t, last.private()+":80")
	last.stop("")
	if n := free(); n != 1 {
		t.Errorf("%d addresses are free, want 1", n)
	}
	for _, id := range all[1:] {
		call[ec2.DeleteNetworkInterfaceOutput](t, w.world, lab.EC2, "DeleteNetworkInterface", &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: &id})
	}
}

// trunk: with the account's setting an instance that registers has a trunk
// interface, and as many tasks as its type has branches.
func (w *modes) trunk(t *testing.T) {
	w.aws(t, "ecs", "put-account-setting-default", "--name", "awsvpcTrunking", "--value", "enabled")
	m := w.machine(t, "m5.large", w.subnets[0], w.hosts, "", true)
	m.ready(t)
	w.aws(t, "ecs", "put-account-setting-default", "--name", "awsvpcTrunking", "--value", "disabled")
	enis := call[ec2.DescribeNetworkInterfacesOutput](t, w.world, lab.EC2, "DescribeNetworkInterfaces", &ec2.DescribeNetworkInterfacesInput{
		Filters: []ec2.Filter{{Name: new("attachment.instance-id"), Values: []string{m.id}}, {Name: new("interface-type"), Values: []string{"trunk"}}}}).NetworkInterfaces
	if len(enis) != 1 {
		t.Fatalf("trunk interfaces: %s", show(enis))
	}
	w.until(t, *enis[0].NetworkInterfaceId, "ecs", "list-attributes", "--target-type", "container-instance", "--attribute-name", "ecs.awsvpc-trunk-id", "--query", "attributes[].value")
	d := w.defineFor(t, ecs.NetworkModeAwsvpc, w.box("web", "serve", "80"))
	in := m.in(d, m.subnet, w.open)
	in.Count = new(int32(10))
	tasks := w.place(t, in)
	if len(tasks) != 10 {
		t.Fatalf("%d tasks", len(tasks))
	}
	for _, k := range tasks[8:] {
		w.outsider.reaches(t, k.private()+":80")
		if i := k.interfaceOf(t); i.InterfaceType != "branch" {
			t.Errorf("interface %s", show(i))
		}
	}
	in.Count = nil
	m.refuses(t, in, "RESOURCE:ENI")
	for _, k := range tasks {
		k.stop("")
	}
	w.leave(t, m)
}

// kills: whoever beside an instance is killed, its tasks have their processes,
// addresses and ports, and whoever comes after knows them.
func (w *modes) kills(t *testing.T) {
	d := w.defineFor(t, ecs.NetworkModeBridge, publish(w.box("web", "serve", "80"), 80, 0))
	v := w.defineFor(t, ecs.NetworkModeAwsvpc, w.box("web", "serve", "80"))
	k, l := w.place(t, w.one.on(d))[0], w.place(t, w.one.in(v, w.one.subnet, w.open))[0]
	p := bound(t, k.describe(), "web")[80]
	peers := map[*task]*peer{k: {at: w.one.public + ":" + port(p)}, l: {l.private() + ":80", w.outsider}}
	was := map[*task]map[string]int{}
	for k := range peers {
		var err error
		if was[k], err = w.Inits(k.id()); err != nil || len(was[k]) != 1 {
			t.Fatalf("processes %v, %v", was[k], err)
		}
	}
	for _, roles := range [][]string{{"agent-" + w.one.id}, {"containerd"}, {"node"}, {"node", "agent-" + w.one.id, "containerd"}} {
		all, err := w.Processes()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range roles {
			if all[r] == 0 {
				t.Fatalf("no process %s in %v", r, all)
			}
			if err := syscall.Kill(all[r], syscall.SIGKILL); err != nil {
				t.Fatal(r, err)
			}
		}
		for _, self := range peers {
			if _, err := self.ask(t.Context(), "/"); err != nil {
				t.Errorf("after %v: %v", roles, err)
			}
		}
		if err := lab.Until(deadline(t), func(context.Context) (bool, error) {
			now, err := w.Processes()
			return !slices.ContainsFunc(roles, func(r string) bool { return now[r] == 0 || now[r] == all[r] }), err
		}); err != nil {
			t.Fatalf("after %v: %v", roles, err)
		}
		w.one.ready(t)
		// A task that comes now has another port, and is rid of it again.
		late := w.place(t, w.one.on(d))[0]
		q := bound(t, late.describe(), "web")[80]
		if q == p || q < 32768 {
			t.Errorf("after %v: port %d, and another has %d", roles, q, p)
		}
		(&peer{at: w.one.public + ":" + port(q)}).says(t, "/")
		late.stop("")
		(*peer)(nil).misses(t, w.one.public+":"+port(q))
		for k, self := range peers {
			k.metadata(t, self)
			if now, err := w.Inits(k.id()); err != nil || !maps.Equal(now, was[k]) {
				t.Errorf("after %v: processes %v, were %v (%v)", roles, now, was[k], err)
			}
		}
	}
}

// metadata demands that the metadata endpoint answers a container again.
func (k *task) metadata(t *testing.T, p *peer) {
	t.Helper()
	var env map[string]string
	if err := json.Unmarshal([]byte(p.says(t, "/env")), &env); err != nil {
		t.Fatal(err)
	}
	if got := p.says(t, "/get", "url", env["ECS_CONTAINER_METADATA_URI_V4"]+"/task"); !strings.Contains(got, k.arn) {
		t.Errorf("metadata of %s: %s", k.arn, got)
	}
}

// stops: an instance that is stopped takes its tasks along, and has nothing of
// them when it starts.
func (w *modes) stops(t *testing.T) {
	d := w.defineFor(t, ecs.NetworkModeBridge, publish(w.box("web", "serve", "80"), 80, 33100))
	v := w.defineFor(t, ecs.NetworkModeAwsvpc, w.box("web", "serve", "80"))
	k, l := w.place(t, w.two.on(d))[0], w.place(t, w.two.in(v, w.two.subnet, w.open))[0]
	(&peer{at: w.two.public + ":33100"}).says(t, "/")
	w.aws(t, "ec2", "stop-instances", "--instance-ids", w.two.id)
	w.instanceIs(t, w.two.id, "stopped")
	w.outsider.misses(t, w.two.private+":33100")
	w.aws(t, "ec2", "start-instances", "--instance-ids", w.two.id)
	w.instanceIs(t, w.two.id, "running")
	w.two.ready(t)
	for _, k := range []*task{k, l} {
		k.wait("STOPPED")
	}
	w.place(t, w.two.on(d))
	(&peer{at: w.two.public + ":33100"}).says(t, "/")
}
