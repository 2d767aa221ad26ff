package dispatch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/dispatch"
	"github.com/berth-run/berth/dispatch/acs"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account  = "123456789012"
	prefix   = "arn:aws:ecs:eu-west-1:" + account + ":"
	instance = prefix + "container-instance/berth-fargate/1"
	cluster  = prefix + "cluster/default"
	role     = "arn:aws:iam::" + account + ":role/app"
	execRole = "arn:aws:iam::" + account + ":role/exec"
	patience = 30 * time.Second
)

// world is a server of dispatch over a store, with a clock that is set.
type world struct {
	*testing.T
	db     *store.DB
	server *dispatch.Server
	url    string

	mu     sync.Mutex
	time   time.Time
	ids    int
	minted int
	bad    string // role that nobody may assume
	denied error
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, db: store.OpenMemory(), time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	w.server = dispatch.New(dispatch.Config{
		DB: w.db, Log: slog.New(slog.DiscardHandler), Now: w.now, NewID: w.id, Endpoint: "http://127.0.0.1:4566", TaskEndpoint: "http://169.254.170.2:4566",
		NodeRole: "arn:aws:iam::" + account + ":role/berth/node", NodeService: "node.berth",
		Authorize: func(_ *http.Request, action, _ string) error {
			if action != "ecs:Poll" && action != "ecs:StartTelemetrySession" {
				t.Errorf("authorized %s", action)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.denied
		},
		Mint: w.mint,
		PullPassword: func(account, repository string, until time.Time) (string, error) {
			return account + "/" + repository + " until " + until.Format(time.RFC3339), nil
		},
	})
	mux := http.NewServeMux()
	for path, h := range w.server.Routes() {
		mux.Handle(path, h)
	}
	for path, h := range w.server.NodeRoutes() {
		mux.Handle(path, h)
	}
	srv := httptest.NewServer(mux)
	w.url = "ws" + strings.TrimPrefix(srv.URL, "http")
	t.Cleanup(func() {
		w.server.Close()
		srv.Close()
		w.db.Close()
	})
	w.put(func(tx *store.Tx) {
		state.Regions.Put(tx, &state.Region{Name: "eu-west-1", Account: account, ShortID: "abcdef", PublicPool: netip.MustParsePrefix("198.18.0.0/22")})
		state.ContainerInstances.Put(tx, &state.ContainerInstance{ARN: instance, Account: account, Cluster: prefix + "cluster/berth-fargate", Hidden: true, Node: "n1", Status: "ACTIVE"})
		state.VPCs.Put(tx, &state.VPC{ID: "vpc-1", Account: account, CIDRs: []netip.Prefix{netip.MustParsePrefix("172.31.0.0/16")}, DNSSupport: true})
		state.Subnets.Put(tx, &state.Subnet{ID: "subnet-1", VPC: "vpc-1", CIDR: netip.MustParsePrefix("172.31.0.0/20"), Zone: "eu-west-1a"})
		for _, d := range []struct{ name, role, exec string }{{"plain", "", ""}, {"roles", role, execRole}} {
			doc := ecs.TaskDefinition{Family: new(d.name), NetworkMode: "awsvpc", ContainerDefinitions: []ecs.ContainerDefinition{{Name: new("web"), Image: new("web:1")}}}
			if d.role != "" {
				doc.TaskRoleArn, doc.ExecutionRoleArn = new(d.role), new(d.exec)
			}
			state.TaskDefinitions.Put(tx, &state.TaskDefinition{ARN: prefix + "task-definition/" + d.name + ":1", Account: account, Family: d.name, Revision: 1, Status: "ACTIVE", Doc: doc})
		}
	})
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.time
}

func (w *world) id() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids++
	return fmt.Sprintf("%032x", w.ids)
}

func (w *world) mint(_ store.Reader, arn, by, session string, life time.Duration) (fabric.Credentials, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if arn == w.bad {
		return fabric.Credentials{}, errors.New("no trust")
	}
	w.minted++
	return fabric.Credentials{AccessKeyID: fmt.Sprintf("ASIA%d", w.minted), SecretAccessKey: "secret", Token: session + " by " + by, Expiration: w.time.Add(life)}, nil
}

// pass lets time go by, and makes the server look.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	w.time = w.time.Add(d)
	n := w.time.String()
	w.mu.Unlock()
	w.put(func(tx *store.Tx) {
		// Of no instance: nobody is told of it.
		state.Tasks.Put(tx, &state.Task{ARN: "touch", StartedBy: n})
		state.VPCs.Put(tx, &state.VPC{ID: "vpc-1", Account: account, CIDRs: []netip.Prefix{netip.MustParsePrefix("172.31.0.0/16")}, DNSSupport: true, DHCPOptions: n})
	})
}

func (w *world) put(f func(*store.Tx)) {
	w.Helper()
	if err := w.db.Update(context.Background(), func(tx *store.Tx) error { f(tx); return nil }); err != nil {
		w.Fatal(err)
	}
}

// run makes a placed task with its interface and returns its ARN.
func (w *world) run(definition string) string {
	id := w.id()
	t := &state.Task{ARN: prefix + "task/default/" + id, ID: id, Account: account, Cluster: cluster, TaskDefinition: prefix + "task-definition/" + definition + ":1", Family: definition,
		LaunchType: "FARGATE", LastStatus: state.Provisioning, DesiredStatus: state.Running, Instance: instance, Zone: "eu-west-1a", CPU: "256", Memory: "512",
		Network: &ecs.AwsVpcConfiguration{Subnets: []string{"subnet-1"}}, ENI: "eni-" + id[15:], RoleCredentialsID: "app-" + id, ExecutionRoleCredentialsID: "exec-" + id, Health: "UNKNOWN",
		Containers:  []state.Container{{Name: "web", Essential: true, LastStatus: state.Pending, Health: "UNKNOWN", ARN: "c"}, {Name: "side", LastStatus: state.Pending, Health: "UNKNOWN"}},
		Attachments: []state.Attachment{{ID: "a-" + id, Type: "ElasticNetworkInterface", Status: "ATTACHING"}}}
	w.put(func(tx *store.Tx) {
		state.Tasks.Put(tx, t)
		state.NetworkInterfaces.Put(tx, w.eni(t.ENI, t.ARN))
	})
	return t.ARN
}

func (w *world) eni(id, task string) *state.NetworkInterface {
	return &state.NetworkInterface{ID: id, Account: account, VPC: "vpc-1", Subnet: "subnet-1", Address: netip.MustParseAddr("172.31.0.4"), MAC: "02:00:00:00:00:01",
		Groups: []string{"sg-1"}, Node: "n1", Task: task, PrivateDNSName: "ip-172-31-0-4.eu-west-1.compute.internal", SourceDestCheck: true}
}

func (w *world) change(arn string, f func(*state.Task)) {
	w.Helper()
	w.put(func(tx *store.Tx) {
		t, ok := state.Tasks.Get(tx, arn)
		if !ok {
			w.Fatalf("no task %s", arn)
		}
		n := t.Clone()
		f(n)
		state.Tasks.Put(tx, n)
	})
}

// until waits for the store to say so.
func (w *world) until(what string, so func(*store.Snapshot) bool) {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	watch := w.db.Watch()
	defer watch.Close()
	for {
		snap, _, err := watch.Next(ctx)
		if err != nil {
			w.Fatalf("%s: %v", what, err)
		}
		if so(snap) {
			return
		}
	}
}

func (w *world) task(arn, what string, so func(*state.Task) bool) {
	w.Helper()
	w.until(what, func(s *store.Snapshot) bool {
		t, ok := state.Tasks.Get(s, arn)
		return ok && so(t)
	})
}

func (w *world) connected(want bool) {
	w.Helper()
	w.until(fmt.Sprint("agent connected: ", want), func(s *store.Snapshot) bool {
		i, _ := state.ContainerInstances.Get(s, instance)
		return i.AgentConnected == want
	})
}

// peer is the other end of a websocket.
type peer struct {
	*world
	c *websocket.Conn
}

func (w *world) dial(path string) *peer {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, w.url+path, nil)
	if err != nil {
		w.Fatal(err)
	}
	c.SetReadLimit(16 << 20)
	w.Cleanup(func() { c.CloseNow() })
	return &peer{w, c}
}

func (w *world) agent(sendCredentials bool) *peer {
	w.Helper()
	return w.dial(fmt.Sprintf("/ws?clusterArn=berth-fargate&containerInstanceArn=%s&agentVersion=1&seqNum=1&protocolVersion=2&sendCredentials=%v", instance, sendCredentials))
}

func (p *peer) frame() []byte {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := p.c.Read(ctx)
	if err != nil {
		p.Fatalf("read: %v", err)
	}
	return b
}

func (p *peer) send(b []byte) {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.c.Write(ctx, websocket.MessageText, b); err != nil {
		p.Fatal(err)
	}
}

func (p *peer) say(m acs.Message) {
	p.Helper()
	b, err := acs.Encode(m)
	if err != nil {
		p.Fatal(err)
	}
	p.send(b)
}

// hear is the next message, which must be an M.
func hear[M any](p *peer) *M {
	p.Helper()
	b := p.frame()
	m, err := acs.Decode(b)
	if err != nil {
		p.Fatalf("%s: %v", b, err)
	}
	x, ok := any(m).(*M)
	if !ok {
		p.Fatalf("heard %s, want %T", b, x)
	}
	return x
}

// payload is the next message, which must be a payload of one task.
func payload(p *peer, arn, desired string) (acs.Task, int64) {
	p.Helper()
	m := hear[acs.PayloadMessage](p)
	if err := m.Validate(); err != nil || len(m.Tasks) != 1 || m.Tasks[0].Arn != arn || m.Tasks[0].DesiredStatus != desired || m.ContainerInstanceArn != instance || m.SeqNum <= 0 {
		p.Fatalf("payload %+v (%v), want %s of %s", m, err, desired, arn)
	}
	p.say(&acs.AckRequest{MessageID: m.MessageID})
	return m.Tasks[0], m.SeqNum
}

// quiet makes sure that nothing was sent before the next heartbeat.
func (p *peer) quiet() {
	p.Helper()
	p.pass(31 * time.Second)
	m := hear[acs.HeartbeatMessage](p)
	if m.MessageID == "" || !m.Healthy {
		p.Fatalf("heartbeat %+v", m)
	}
	p.say(&acs.HeartbeatAckRequest{MessageID: m.MessageID})
}

func TestRefusedUpgrades(t *testing.T) {
	w := newWorld(t)
	w.put(func(tx *store.Tx) {
		state.ContainerInstances.Put(tx, &state.ContainerInstance{ARN: instance + "0", Status: "INACTIVE"})
	})
	ask := func(arn string, status int, name, message string) {
		t.Helper()
		res, err := http.Get("http" + strings.TrimPrefix(w.url, "ws") + "/ws?containerInstanceArn=" + arn)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		n, m, ok := acs.DecodeException(b)
		if res.StatusCode != status || !ok || n != name || m != message {
			t.Errorf("%d %s, want %d %s", res.StatusCode, b, status, name)
		}
	}
	// What Amazon's agent takes as "deregistered".
	ask(instance+"0", 400, acs.InactiveInstanceException, "The container instance is not active: "+instance+"0")
	ask(instance+"9", 400, acs.InactiveInstanceException, "The container instance is not active: "+instance+"9")
	w.denied = wire.NewError(400, "AccessDeniedException", "no")
	ask(instance, 400, acs.AccessDeniedException, "no")
	w.denied = errors.New("disk full")
	ask(instance, 500, acs.ServerException, "internal error")
	http.DefaultClient.CloseIdleConnections()
}

func TestTaskIsSentAndStopped(t *testing.T) {
	w := newWorld(t)
	p := w.agent(true)
	if m := hear[acs.TaskManifestMessage](p); m.Validate() != nil || m.Tasks == nil || len(m.Tasks) != 0 || m.Timeline <= 0 {
		t.Fatalf("manifest %+v", m)
	}
	w.connected(true)
	arn := w.run("roles")
	got, first := payload(p, arn, "RUNNING")
	e := got.ElasticNetworkInterfaces
	if len(e) != 1 || e[0].SubnetGatewayIPv4Address != "172.31.0.1/20" || e[0].IPv4Addresses[0].PrivateAddress != "172.31.0.4" || e[0].DomainNameServers[0] != "172.31.0.2" || e[0].DomainName[0] != "eu-west-1.compute.internal" {
		t.Errorf("interface %+v", e)
	}
	if r := got.RoleCredentials; r == nil || r.RoleArn != role || !strings.HasPrefix(r.CredentialsID, "app-") || r.Expiration != "2026-11-22T18:00:00Z" || !strings.HasSuffix(r.SessionToken, " by ecs-tasks.amazonaws.com") {
		t.Errorf("role %+v", r)
	}
	if r := got.ExecutionRoleCredentials; r == nil || r.RoleArn != execRole || !strings.HasPrefix(r.CredentialsID, "exec-") {
		t.Errorf("execution role %+v", r)
	}
	if got.CPU != 0.25 || got.Memory != 512 || len(got.Containers) != 1 || got.Zone != "eu-west-1a" {
		t.Errorf("task %+v", got)
	}
	// What the agent reports of it is no reason to send it again.
	w.change(arn, func(t *state.Task) { t.Advance(state.Running) })
	p.quiet()

	w.change(arn, func(x *state.Task) { x.WantStop("UserInitiated", "enough", w.now()) })
	_, second := payload(p, arn, "STOPPED")
	if second <= first {
		t.Errorf("sequence %d after %d", second, first)
	}
	w.task(arn, "stopping", func(t *state.Task) bool { return t.LastStatus == state.Stopping })
	p.quiet()
}

func TestTaskWithoutItsInterfaceWaits(t *testing.T) {
	w := newWorld(t)
	p := w.agent(false)
	hear[acs.TaskManifestMessage](p)
	arn := w.run("plain")
	payload(p, arn, "RUNNING")
	late := prefix + "task/default/late"
	w.put(func(tx *store.Tx) {
		x, _ := state.Tasks.Get(tx, arn)
		n := x.Clone()
		n.ARN, n.ENI = late, ""
		state.Tasks.Put(tx, n)
	})
	p.quiet()
	w.put(func(tx *store.Tx) { state.NetworkInterfaces.Put(tx, w.eni("eni-late", late)) })
	w.change(late, func(t *state.Task) { t.ENI = "eni-late" })
	payload(p, late, "RUNNING")
}

func TestManifestAndStopVerification(t *testing.T) {
	w := newWorld(t)
	keep, stopped, over := w.run("plain"), w.run("plain"), w.run("plain")
	w.change(stopped, func(x *state.Task) { x.WantStop("UserInitiated", "", w.now()) })
	w.change(over, func(x *state.Task) { x.Advance(state.Deprovisioning) })
	p := w.agent(false)
	var seq int64
	for range 2 { // in the order of their keys
		m := hear[acs.PayloadMessage](p)
		seq = max(seq, m.SeqNum)
	}
	m := hear[acs.TaskManifestMessage](p)
	want := []acs.TaskIdentifier{{TaskArn: keep, TaskClusterArn: cluster, DesiredStatus: "RUNNING"}, {TaskArn: stopped, TaskClusterArn: cluster, DesiredStatus: "STOPPED"}}
	if fmt.Sprint(m.Tasks) != fmt.Sprint(want) || m.Timeline < seq {
		t.Fatalf("manifest %+v after payload %d", m, seq)
	}
	unknown := prefix + "task/default/unknown"
	ask := &acs.TaskStopVerificationMessage{MessageID: m.MessageID}
	for _, arn := range []string{keep, stopped, over, unknown} {
		ask.StopCandidates = append(ask.StopCandidates, acs.TaskIdentifier{TaskArn: arn, DesiredStatus: "RUNNING"})
	}
	p.say(ask)
	ack := hear[acs.TaskStopVerificationAck](p)
	var got []string
	for _, x := range ack.StopTasks {
		got = append(got, x.TaskArn+" "+x.DesiredStatus)
	}
	if ack.MessageID != m.MessageID || strings.Join(got, ",") != strings.Join([]string{stopped + " STOPPED", over + " STOPPED", unknown + " STOPPED"}, ",") {
		t.Errorf("confirmed %q", got)
	}
	// Nothing to stop is nothing to say.
	p.say(&acs.TaskStopVerificationMessage{MessageID: m.MessageID, StopCandidates: []acs.TaskIdentifier{{TaskArn: keep}}})
	p.quiet()
}

func TestReconnect(t *testing.T) {
	w := newWorld(t)
	p := w.agent(true)
	hear[acs.TaskManifestMessage](p)
	arn := w.run("roles")
	m := hear[acs.PayloadMessage](p) // never acknowledged
	p.c.CloseNow()
	w.connected(false)

	// The same agent process: it is given again what it may not have had, and no credentials that it has.
	p = w.agent(false)
	again, seq := payload(p, arn, "RUNNING")
	if again.RoleCredentials == nil || seq < m.SeqNum {
		t.Errorf("again %d after %d: %+v", seq, m.SeqNum, again)
	}
	hear[acs.TaskManifestMessage](p)
	w.connected(true)
	p.quiet()
	w.change(arn, func(t *state.Task) { t.Advance(state.Running) })
	if err := p.c.Close(websocket.StatusNormalClosure, acs.ConnectionExpired); err != nil {
		t.Fatal(err)
	}
	w.connected(false)

	// A new agent process that knows the task from its checkpoint has no credentials for it.
	p = w.agent(true)
	payload(p, arn, "RUNNING")
	for _, want := range []string{acs.RoleTypeApplication, acs.RoleTypeExecution} {
		if m := hear[acs.IAMRoleCredentialsMessage](p); m.Validate() != nil || m.RoleType != want || m.TaskArn != arn {
			t.Errorf("%+v, want %s", m, want)
		}
	}
	hear[acs.TaskManifestMessage](p)
	p.quiet()
}

// An agent comes back before its old connection is known to be dead.
func TestAgentIsConnectedWhileAnyConnectionIs(t *testing.T) {
	w := newWorld(t)
	old := w.agent(true)
	hear[acs.TaskManifestMessage](old)
	p := w.agent(false)
	hear[acs.TaskManifestMessage](p)
	w.connected(true)
	if err := old.c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
	// The server answers the new one still, and has not said that the agent is gone.
	p.quiet()
	w.connected(true)
	if i, _ := state.ContainerInstances.Get(w.db.Snapshot(), instance); !i.AgentConnected {
		t.Error("the agent is said to be gone")
	}
	p.c.CloseNow()
	w.connected(false)
}

func TestCredentialsAreRenewed(t *testing.T) {
	w := newWorld(t)
	p := w.agent(true)
	hear[acs.TaskManifestMessage](p)
	arn := w.run("roles")
	before, _ := payload(p, arn, "RUNNING")
	w.change(arn, func(t *state.Task) { t.Advance(state.Running) })
	w.pass(3 * time.Hour) // half of their life
	hear[acs.HeartbeatMessage](p)
	for _, want := range []struct {
		kind string
		had  *acs.IAMRoleCredentials
	}{{acs.RoleTypeApplication, before.RoleCredentials}, {acs.RoleTypeExecution, before.ExecutionRoleCredentials}} {
		m := hear[acs.IAMRoleCredentialsMessage](p)
		if m.Validate() != nil || m.RoleType != want.kind || m.RoleCredentials.CredentialsID != want.had.CredentialsID ||
			m.RoleCredentials.AccessKeyID == want.had.AccessKeyID || m.RoleCredentials.Expiration != "2026-11-22T21:00:00Z" {
			t.Errorf("%+v", m.RoleCredentials)
		}
	}
	p.quiet() // once
	w.change(arn, func(x *state.Task) { x.Advance(state.Deprovisioning) })
	w.pass(4 * time.Hour)
	hear[acs.HeartbeatMessage](p)
	p.quiet() // a task that is over needs none
}

func TestRoleThatCannotBeAssumed(t *testing.T) {
	w := newWorld(t)
	w.bad = execRole
	p := w.agent(true)
	hear[acs.TaskManifestMessage](p)
	arn := w.run("roles")
	payload(p, arn, "STOPPED") // never asked to run
	w.task(arn, "told why", func(x *state.Task) bool {
		return x.StopCode == "TaskFailedToStart" && x.StoppedReason == "ECS was unable to assume the role '"+execRole+"' that was provided for this task. Please verify that the role being passed has the proper trust relationship and permissions and that your IAM user has permissions to pass this role."
	})
}

func TestStopWithoutADefinition(t *testing.T) {
	w := newWorld(t)
	p := w.agent(true)
	hear[acs.TaskManifestMessage](p)
	arn := w.run("plain")
	payload(p, arn, "RUNNING")
	w.put(func(tx *store.Tx) { state.TaskDefinitions.Delete(tx, prefix+"task-definition/plain:1") })
	w.change(arn, func(x *state.Task) { x.WantStop("UserInitiated", "", w.now()) })
	payload(p, arn, "STOPPED")
}

func TestNonsenseFromAnAgentIsDropped(t *testing.T) {
	w := newWorld(t)
	p := w.agent(true)
	hear[acs.TaskManifestMessage](p)
	p.send([]byte("{"))
	p.send([]byte(`{"type":"NoSuchMessage","message":{}}`))
	p.say(&acs.NackRequest{MessageID: "x", Reason: "no"})
	p.quiet()
	payload(p, w.run("plain"), "RUNNING")
}

func TestCloseEndsConnections(t *testing.T) {
	w := newWorld(t)
	p := w.agent(true)
	hear[acs.TaskManifestMessage](p)
	w.connected(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.server.Close()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, _, err := p.c.Read(ctx); err == nil {
		t.Error("something was sent")
	}
	<-done
	// A server that starts again is no agent that went away.
	if i, _ := state.ContainerInstances.Get(w.db.Snapshot(), instance); !i.AgentConnected {
		t.Error("the agent is said to be gone")
	}
	res, err := http.Get("http" + strings.TrimPrefix(w.url, "ws") + "/ws?containerInstanceArn=" + instance)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after Close: %s", res.Status)
	}
}

func (p *peer) publish(m acs.Message) {
	p.Helper()
	b, err := acs.Encode(m)
	if err != nil {
		p.Fatal(err)
	}
	p.send(acs.EncodeSigned(http.Header{"Host": {"h"}, "Authorization": {"AWS4-HMAC-SHA256 x"}}, b))
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	arn, other := w.run("plain"), w.run("plain")
	w.change(arn, func(x *state.Task) { x.Advance(state.Running) })
	w.change(other, func(x *state.Task) { x.Instance = "somebody else's" })
	p := w.dial("/ws?cluster=berth-fargate&containerInstance=" + instance)
	say := func(web, side string) {
		t.Helper()
		m := &acs.PublishHealthRequest{Metadata: &acs.HealthMetadata{ContainerInstance: instance}}
		for _, a := range []string{arn, other} {
			m.Tasks = append(m.Tasks, acs.TaskHealth{TaskArn: a, Containers: []acs.ContainerHealth{{ContainerName: "web", HealthStatus: web}, {ContainerName: "side", HealthStatus: side}}})
		}
		p.publish(m)
		hear[acs.AckPublishHealth](p)
	}
	get := func() *state.Task {
		x, _ := state.Tasks.Get(w.db.Snapshot(), arn)
		return x
	}
	for _, x := range []struct{ web, side, want string }{
		{"UNKNOWN", "UNKNOWN", "UNKNOWN"}, {"HEALTHY", "UNKNOWN", "HEALTHY"}, {"HEALTHY", "UNHEALTHY", "HEALTHY"}, {"UNHEALTHY", "HEALTHY", "UNHEALTHY"}, {"HEALTHY", "HEALTHY", "HEALTHY"},
	} {
		say(x.web, x.side)
		if got := get(); got.Health != x.want || got.Containers[0].Health != x.web || got.Containers[1].Health != x.side {
			t.Errorf("%+v: task %s, containers %+v", x, got.Health, got.Containers)
		}
	}
	version := get().Version
	say("HEALTHY", "HEALTHY")
	say("GREAT", "")
	if got := get(); got.Version != version || got.Containers[0].Health != "HEALTHY" {
		t.Errorf("what is no news changed the task: %+v", got)
	}
	if x, _ := state.Tasks.Get(w.db.Snapshot(), other); x.Health != "UNKNOWN" {
		t.Errorf("an instance spoke of another's task: %s", x.Health)
	}
	p.publish(&acs.PublishMetricsRequest{Metadata: &acs.MetricsMetadata{Fin: true}})
	hear[acs.AckPublishMetric](p)
	p.publish(&acs.PublishInstanceStatusRequest{})
	hear[acs.AckPublishInstanceStatus](p)
}

func (p *peer) desired() fabric.Desired {
	p.Helper()
	var d fabric.Desired
	b := p.frame()
	if err := json.Unmarshal(b, &d); err != nil {
		p.Fatalf("%s: %v", b, err)
	}
	return d
}

func (p *peer) json(v any) {
	p.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		p.Fatal(err)
	}
	p.send(b)
}

func TestNodeStream(t *testing.T) {
	w := newWorld(t)
	w.put(func(tx *store.Tx) {
		state.InternetGateways.Put(tx, &state.InternetGateway{ID: "igw-1", VPC: "vpc-1"})
		state.RouteTables.Put(tx, &state.RouteTable{ID: "rtb-1", VPC: "vpc-1", Main: true, Routes: []state.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Target: "igw-1"}, {Destination: netip.MustParsePrefix("10.0.0.0/8"), Target: "igw-gone"}}})
		state.SecurityGroups.Put(tx, &state.SecurityGroup{ID: "sg-1", VPC: "vpc-1", Rules: []state.SecurityGroupRule{
			{Protocol: "tcp", From: 80, To: 80, Group: "sg-1"}, {Egress: true, Protocol: "-1", From: -1, To: -1, CIDR: netip.MustParsePrefix("0.0.0.0/0")}}})
		state.NetworkInterfaces.Put(tx, w.eni("eni-1", "task/1"))
		there := w.eni("eni-2", "task/2")
		there.Node = "n2"
		state.NetworkInterfaces.Put(tx, there)
		going := w.eni("eni-3", "task/3")
		going.Deleting = true
		state.NetworkInterfaces.Put(tx, going)
	})
	p := w.dial(fabric.Path)
	p.json(fabric.Hello{Name: "n1", CPU: 2048, Memory: 4096})
	d := p.desired()
	if !d.Full || d.Region == nil || d.Region.ShortID != "abcdef" || d.Region.Endpoint != "http://127.0.0.1:4566" || d.Revision <= 0 {
		t.Fatalf("%+v", d)
	}
	if d.Agent == nil || d.Agent.Cluster != dispatch.FargateCluster || !strings.HasPrefix(d.Agent.ContainerInstance, prefix+"container-instance/berth-fargate/") || d.Agent.Credentials.Token != "n1 by node.berth" {
		t.Errorf("agent %+v", d.Agent)
	}
	if len(d.VPCs) != 1 || len(d.VPCs[0].Subnets) != 1 || d.VPCs[0].Subnets[0].RouteTable != "rtb-1" ||
		d.VPCs[0].RouteTables[0].Routes[0].Kind != fabric.RouteInternetGateway || d.VPCs[0].RouteTables[0].Routes[1].Kind != fabric.RouteBlackhole {
		t.Errorf("networks %+v", d.VPCs)
	}
	if len(d.Groups) != 1 || d.Groups[0].Ingress[0].Protocol != 6 || d.Groups[0].Ingress[0].Groups[0] != "sg-1" || d.Groups[0].Egress[0].CIDRs[0].String() != "0.0.0.0/0" {
		t.Errorf("groups %+v", d.Groups)
	}
	if len(d.Interfaces) != 2 || !d.Interfaces[0].Here || d.Interfaces[1].Here || fmt.Sprint(d.GoneInterfaces) != "[eni-3]" {
		t.Errorf("interfaces %+v, gone %v", d.Interfaces, d.GoneInterfaces)
	}
	node, _ := state.Nodes.Get(w.db.Snapshot(), "n1")
	ci, ok := state.ContainerInstances.Get(w.db.Snapshot(), node.Instance)
	if !ok || !ci.Hidden || ci.Node != "n1" || ci.Status != "ACTIVE" || node.CPU != 2048 || ci.ARN != d.Agent.ContainerInstance {
		t.Errorf("node %+v instance %+v", node, ci)
	}

	// Differences say what differs and nothing else.
	w.put(func(tx *store.Tx) { state.NetworkInterfaces.Put(tx, w.eni("eni-4", "task/4")) })
	if d := p.desired(); d.Full || len(d.Interfaces) != 1 || d.Interfaces[0].ID != "eni-4" || len(d.VPCs)+len(d.Groups)+len(d.GoneInterfaces) != 0 || d.Agent != nil || d.Region != nil {
		t.Errorf("%+v", d)
	}

	status := func(s fabric.InterfaceStatus) {
		t.Helper()
		p.json(fabric.Report{Interfaces: []fabric.InterfaceStatus{s}})
	}
	eni := func(id, what string, so func(*state.NetworkInterface) bool) {
		t.Helper()
		w.until(what, func(s *store.Snapshot) bool {
			e, ok := state.NetworkInterfaces.Get(s, id)
			return ok && so(e)
		})
	}
	status(fabric.InterfaceStatus{ID: "eni-2", Attached: true}) // not this node's
	status(fabric.InterfaceStatus{ID: "eni-9", Attached: true}) // nobody's
	status(fabric.InterfaceStatus{ID: "eni-4", Error: "no such device"})
	eni("eni-4", "failed", func(e *state.NetworkInterface) bool { return e.Failure == "no such device" && !e.Attached })
	status(fabric.InterfaceStatus{ID: "eni-1", Attached: true})
	eni("eni-1", "attached", func(e *state.NetworkInterface) bool { return e.Attached })
	if e, _ := state.NetworkInterfaces.Get(w.db.Snapshot(), "eni-2"); e.Attached {
		t.Error("a node spoke of another's interface")
	}
	// What nobody asked to go is missing, not gone: its address stays taken.
	status(fabric.InterfaceStatus{ID: "eni-1", Removed: true})
	eni("eni-1", "missing", func(e *state.NetworkInterface) bool { return !e.Attached && !e.Removed })
	w.put(func(tx *store.Tx) {
		e, _ := state.NetworkInterfaces.Get(tx, "eni-1")
		n := *e
		n.Deleting = true
		state.NetworkInterfaces.Put(tx, &n)
	})
	if d := p.desired(); fmt.Sprint(d.GoneInterfaces) != "[eni-1]" || len(d.Interfaces) != 0 {
		t.Errorf("%+v", d)
	}
	status(fabric.InterfaceStatus{ID: "eni-1", Removed: true})
	eni("eni-1", "removed", func(e *state.NetworkInterface) bool { return e.Removed })

	w.put(func(tx *store.Tx) {
		state.SecurityGroups.Delete(tx, "sg-1")
		state.InternetGateways.Delete(tx, "igw-1")
	})
	if d := p.desired(); fmt.Sprint(d.GoneGroups) != "[sg-1]" || len(d.VPCs) != 1 || d.VPCs[0].RouteTables[0].Routes[0].Kind != fabric.RouteBlackhole {
		t.Errorf("%+v", d)
	}
	w.pass(3 * time.Hour)
	if d := p.desired(); d.Agent == nil || !d.Agent.Credentials.Expiration.Equal(w.now().Add(6*time.Hour)) || len(d.VPCs) != 0 {
		t.Errorf("credentials are not renewed: %+v", d)
	}

	// A stream that comes back begins with everything, as the same instance.
	p.c.CloseNow()
	p = w.dial(fabric.Path)
	p.json(fabric.Hello{Name: "n1", CPU: 2048, Memory: 4096})
	if again := p.desired(); !again.Full || again.Agent.ContainerInstance != ci.ARN || len(again.Interfaces) != 2 || fmt.Sprint(again.GoneInterfaces) != "[eni-3]" {
		t.Errorf("%+v", again)
	}
}

func TestNodeMustSayWhoItIs(t *testing.T) {
	w := newWorld(t)
	for _, hello := range []string{"{", "{}", "[]"} {
		p := w.dial(fabric.Path)
		p.send([]byte(hello))
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if _, b, err := p.c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusInternalError {
			t.Errorf("%s: %q %v", hello, b, err)
		}
		cancel()
	}
	for n := range state.Nodes.All(w.db.Snapshot()) {
		t.Errorf("node %+v", n)
	}
}

// TestFlowsAreHandedOn: the windows of a node go where the server's owner wants them, in order.
func TestFlowsAreHandedOn(t *testing.T) {
	w := newWorld(t)
	got := make(chan string, 4)
	w.server.Flows = func(_ context.Context, node string, windows []fabric.FlowWindow) {
		for _, f := range windows {
			got <- node + " " + f.Interfaces[0]
		}
	}
	p := w.dial(fabric.Path)
	p.json(fabric.Hello{Name: "n1", CPU: 1, Memory: 1})
	p.desired()
	p.json(fabric.Report{Flows: []fabric.FlowWindow{{Interfaces: []string{"eni-1"}}, {Interfaces: []string{"eni-2"}}}})
	for _, want := range []string{"n1 eni-1", "n1 eni-2"} {
		if s := <-got; s != want {
			t.Errorf("%q, want %q", s, want)
		}
	}
}
