package session

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/dispatch/acs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a control plane that follows a script: what it says, and what it
// must hear, in order.
type server struct {
	*httptest.Server
	t        *testing.T
	conns    chan *peer
	discover int
}

type peer struct {
	t     *testing.T
	query map[string]string
	conn  *websocket.Conn
	done  chan struct{}
	up    *http.Request
}

func newServer(t *testing.T) *server {
	s := &server{t: t, conns: make(chan *peer)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		s.discover++
		b, _ := json.Marshal(map[string]string{"endpoint": s.URL + "/acs", "telemetryEndpoint": s.URL + "/tcs/"})
		w.Write(b)
	})
	serve := func(w http.ResponseWriter, r *http.Request) {
		sig, err := sigv4.Parse(r)
		if err == nil {
			err = sig.Verify(r, nil, "secret", time.Now(), new(sigv4.Keys))
		}
		if err != nil {
			t.Errorf("the upgrade's signature: %v", err)
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		p := &peer{t: t, conn: conn, query: map[string]string{}, done: make(chan struct{}), up: r}
		for k, v := range r.URL.Query() {
			p.query[k] = v[0]
		}
		select {
		case s.conns <- p:
			<-p.done
		case <-r.Context().Done():
		}
	}
	mux.HandleFunc("GET /acs/ws", serve)
	mux.HandleFunc("GET /tcs/ws", serve)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *server) instance() Instance {
	c, err := api.New(s.URL, "eu-west-1")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return Instance{Cluster: "c", ARN: "arn:i", API: c, Creds: func(context.Context) (sigv4.Signer, error) {
		return sigv4.Signer{AccessKeyID: "k", Secret: "secret", Token: "token"}, nil
	}}
}

func (p *peer) say(m acs.Message) {
	p.t.Helper()
	b, err := acs.Encode(m)
	if err == nil {
		err = p.conn.Write(p.t.Context(), websocket.MessageText, b)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) hear(want ...acs.Message) {
	p.t.Helper()
	for _, w := range want {
		_, b, err := p.conn.Read(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		m, err := acs.Decode(b)
		if d := cmp.Diff(w, m); err != nil || d != "" {
			p.t.Fatalf("heard %s, %v\n%s", b, err, d)
		}
	}
}

func (p *peer) hangUp(code websocket.StatusCode) {
	p.conn.Close(code, "")
	close(p.done)
}

// tasks records what the engine is asked for.
type tasks struct {
	mu      sync.Mutex
	asked   []string
	running []*engine.Task
	refuse  string
}

func (t *tasks) note(s string) { t.mu.Lock(); t.asked = append(t.asked, s); t.mu.Unlock() }
func (t *tasks) Apply(d acs.Task) error {
	t.note(d.DesiredStatus + " " + d.Arn)
	if d.Arn == t.refuse {
		return errors.New("refused")
	}
	return nil
}
func (t *tasks) Stop(arn string)       { t.note("stop " + arn) }
func (t *tasks) Tasks() []*engine.Task { return t.running }
func (t *tasks) Put(task string, c acs.IAMRoleCredentials) {
	t.note("credentials " + c.CredentialsID + " of " + task)
}

func (t *tasks) expect(tt *testing.T, want ...string) {
	tt.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := cmp.Diff(want, t.asked); d != "" {
		tt.Errorf("the engine was asked (-want +got):\n%s", d)
	}
	t.asked = nil
}

type memory struct{ n int64 }

func (m *memory) Load() int64         { return m.n }
func (m *memory) Store(n int64) error { m.n = n; return nil }

func TestACS(t *testing.T) {
	s := newServer(t)
	in := s.instance()
	eng := &tasks{}
	line := &memory{n: -1}
	ctx, cancel := context.WithCancel(t.Context())
	a := &ACS{Instance: in, Endpoints: NewEndpoints(in), Tasks: eng, Credentials: eng, Timeline: line, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()

	p := <-s.conns
	want := map[string]string{"clusterArn": "c", "containerInstanceArn": "arn:i", "agentHash": "berth", "agentVersion": api.Version,
		"seqNum": "1", "protocolVersion": "2", "dockerVersion": "containerd", "sendCredentials": "true"}
	if d := cmp.Diff(want, p.query); d != "" {
		t.Error(d)
	}
	ack := func(id string) acs.Message {
		return &acs.AckRequest{Cluster: "c", ContainerInstance: "arn:i", MessageID: id}
	}

	p.say(&acs.HeartbeatMessage{MessageID: "h", Healthy: true})
	p.hear(&acs.HeartbeatAckRequest{MessageID: "h"})

	// Credentials are acknowledged each, stops come before starts.
	creds := &acs.IAMRoleCredentials{CredentialsID: "id", Expiration: "2030-01-01T00:00:00Z"}
	p.say(&acs.PayloadMessage{MessageID: "p", ClusterArn: "c", ContainerInstanceArn: "arn:i", SeqNum: 10, Tasks: []acs.Task{
		{Arn: "t1", DesiredStatus: "RUNNING", RoleCredentials: creds}, {Arn: "t0", DesiredStatus: "STOPPED"}}})
	p.hear(&acs.IAMRoleCredentialsAckRequest{MessageID: "p", CredentialsID: "id", Expiration: "2030-01-01T00:00:00Z"}, ack("p"))
	eng.expect(t, "STOPPED t0", "RUNNING t1")

	// A task that cannot be handled: no ack of the payload. Dropped: a message
	// without an id, one that is not known.
	eng.refuse = "bad"
	p.say(&acs.PayloadMessage{MessageID: "p2", SeqNum: 11, Tasks: []acs.Task{{Arn: "bad", DesiredStatus: "RUNNING"}}})
	p.say(&acs.PayloadMessage{Tasks: []acs.Task{{Arn: "t9", DesiredStatus: "RUNNING"}}})
	p.conn.Write(ctx, websocket.MessageText, []byte(`{"type":"Unheard","message":{}}`))
	p.say(&acs.IAMRoleCredentialsMessage{MessageID: "r", TaskArn: "t1", RoleType: acs.RoleTypeApplication, RoleCredentials: creds})
	p.hear(&acs.IAMRoleCredentialsAckRequest{MessageID: "r", CredentialsID: "id", Expiration: "2030-01-01T00:00:00Z"})
	eng.expect(t, "RUNNING bad", "credentials id of t1")

	// Manifests: an old one gets no answer, a new one an ack and a question.
	eng.running = []*engine.Task{{Def: acs.Task{Arn: "t1"}, Desired: engine.Running}, {Def: acs.Task{Arn: "t2", TaskClusterArn: "c"}, Desired: engine.Running}, {Def: acs.Task{Arn: "t3"}, Desired: engine.Stopped}}
	manifest := func(id string, timeline int64) acs.Message {
		return &acs.TaskManifestMessage{MessageID: id, ClusterArn: "c", ContainerInstanceArn: "arn:i", Timeline: timeline, Tasks: []acs.TaskIdentifier{{TaskArn: "t1", DesiredStatus: "RUNNING"}, {TaskArn: "t2", DesiredStatus: "STOPPED"}}}
	}
	p.say(manifest("m0", 11))
	p.say(manifest("m1", 12))
	p.hear(ack("m1"), &acs.TaskStopVerificationMessage{MessageID: "m1", StopCandidates: []acs.TaskIdentifier{{TaskArn: "t2", TaskClusterArn: "c", DesiredStatus: "STOPPED"}}})
	if line.n != 12 {
		t.Errorf("the manifest's number kept is %d", line.n)
	}
	confirm := &acs.TaskStopVerificationAck{MessageID: "m1", StopTasks: []acs.TaskIdentifier{{TaskArn: "t2"}, {TaskArn: "t1"}}}
	p.say(confirm)
	p.say(confirm) // counts once
	p.say(&acs.StageUpdateMessage{MessageID: "u"})
	p.hear(&acs.NackRequest{Cluster: "c", ContainerInstance: "arn:i", MessageID: "u", Reason: "Updates are disabled"})
	eng.expect(t, "stop t2")

	// A clean close: again at once, and without asking for credentials again.
	p.hangUp(websocket.StatusNormalClosure)
	p = <-s.conns
	if p.query["sendCredentials"] != "false" || s.discover != 1 {
		t.Errorf("again: %v, discovered %d times", p.query, s.discover)
	}
	p.say(manifest("m2", 12)) // not new on this connection either
	p.say(&acs.HeartbeatMessage{MessageID: "h2"})
	p.hear(&acs.HeartbeatAckRequest{MessageID: "h2"})

	cancel()
	<-done
	close(p.done)
}

func TestTCS(t *testing.T) {
	s := newServer(t)
	in := s.instance()
	eng := &tasks{}
	for range 11 {
		eng.running = append(eng.running, &engine.Task{Def: acs.Task{Arn: "t", Family: "f", Version: "1"}, Containers: []*engine.Container{{
			RuntimeID: "r", Phase: engine.Running, Def: acs.Container{Name: "web", HealthCheckType: "docker"},
			Config: acs.Config{Healthcheck: &acs.Healthcheck{Test: []string{"CMD", "x"}}}, Health: engine.Health{Status: "HEALTHY", Since: time.Unix(5, 0)},
		}}})
	}
	changed := make(chan struct{}, 1)
	c := &TCS{Instance: in, Endpoints: NewEndpoints(in), Tasks: eng, Changed: changed, Metrics: func(string) *acs.ContainerMetric { return &acs.ContainerMetric{ContainerName: "web"} },
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	p := <-s.conns
	hear := func() acs.Message {
		_, b, err := p.conn.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r, frame, err := sigv4.ParseFrame(b, p.up)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := sigv4.Parse(r)
		if err == nil {
			err = sig.Verify(r, frame, "secret", time.Now(), new(sigv4.Keys))
		}
		if err != nil {
			t.Errorf("the frame's signature: %v", err)
		}
		m, err := acs.Decode(frame)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	status := hear().(*acs.PublishInstanceStatusRequest)
	if status.Statuses[0].Type != "ContainerRuntime" || status.Statuses[0].Status != "OK" {
		t.Errorf("status %+v", status.Statuses)
	}
	health := func() {
		t.Helper()
		one, two := hear().(*acs.PublishHealthRequest), hear().(*acs.PublishHealthRequest)
		if len(one.Tasks) != 10 || one.Metadata.Fin || len(two.Tasks) != 1 || !two.Metadata.Fin || one.Metadata.MessageID != two.Metadata.MessageID {
			t.Errorf("health: %+v %+v", one, two)
		}
		if h := one.Tasks[0].Containers[0]; h.HealthStatus != "HEALTHY" || h.StatusSince.Unix() != 5 {
			t.Errorf("health: %+v", h)
		}
	}
	health()
	changed <- struct{}{}
	health()
	cancel()
	<-done
	close(p.done)
}

func TestBackoff(t *testing.T) {
	b := backoff{first: 250 * time.Millisecond, most: 2 * time.Minute}
	var last time.Duration
	for range 40 {
		d := b.after(0, errors.New("x"))
		if d < last*8/10 || d > 2*time.Minute*12/10 {
			t.Fatalf("%v after %v", d, last)
		}
		last = d
	}
	if last < 2*time.Minute {
		t.Errorf("the longest wait is %v", last)
	}
	if d := b.after(0, syscall.ECONNREFUSED); d > nobodyThere {
		t.Errorf("%v while nobody is there", d)
	}
	if d := b.after(2*time.Minute, errors.New("x")); d > 300*time.Millisecond {
		t.Errorf("%v after a good connection", d)
	}
	for _, err := range []error{io.EOF, errExpired, websocket.CloseError{Code: websocket.StatusGoingAway}, websocket.CloseError{Code: websocket.StatusInternalError}} {
		if d := b.after(0, err); d != 0 {
			t.Errorf("%v after %v", d, err)
		}
	}
	if d := b.after(0, &inactiveError{}); d != time.Hour {
		t.Errorf("%v after the instance was deregistered", d)
	}
}

func TestRefusedUpgrade(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		w.Write(acs.EncodeException(acs.InactiveInstanceException, "The instance was deregistered."))
	}))
	defer srv.Close()
	s := &server{Server: srv, t: t}
	u, _ := websocketURL(srv.URL, nil)
	_, err := dial(t.Context(), s.instance(), u)
	if inactive, ok := errors.AsType[*inactiveError](err); !ok || !strings.Contains(inactive.Error(), "deregistered") {
		t.Errorf("got %v", err)
	}
}
