package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/berth-run/berth/dataplane/dns"
	"github.com/berth-run/berth/dataplane/vpc"
	"github.com/berth-run/berth/dispatch/fabric"
)

// TestMain: this test binary, run as a child of a node, is a child that waits.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "child" {
		_ = os.WriteFile(os.Args[2], nil, 0o600)
		c := make(chan struct{})
		time.AfterFunc(time.Minute, func() { close(c) })
		<-c
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "version" { // in the trial of an OCI runtime
		fmt.Println("test")
		return
	}
	goleak.VerifyTestMain(m)
}

// fakeFabric makes an interface by making the file of its namespace.
type fakeFabric struct {
	opts vpc.Options
	mu   sync.Mutex
	set  []vpc.Config
	fail map[string]error
	have map[string]vpc.ENIStatus
}

func (f *fakeFabric) Set(ctx context.Context, cfg vpc.Config) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set = append(f.set, cfg)
	next := map[string]vpc.ENIStatus{}
	var errs []error
	for _, e := range cfg.ENIs {
		if e.Elsewhere {
			continue
		}
		err := f.fail[e.ID]
		next[e.ID] = vpc.ENIStatus{Ready: err == nil, Err: err}
		errs = append(errs, err)
		if err == nil {
			_ = os.MkdirAll(f.opts.NetnsDir(), 0o700)
			_ = os.WriteFile(f.opts.NetnsPath(e.ID), nil, 0o600)
		}
		if _, had := f.have[e.ID]; !had {
			f.opts.OnAttached(e.ID, err)
		}
	}
	for id := range f.have {
		if _, still := next[id]; !still {
			_ = os.Remove(f.opts.NetnsPath(id))
		}
	}
	f.have = next
	return true, errors.Join(errs...)
}

func (f *fakeFabric) Status() map[string]vpc.ENIStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have
}

func (f *fakeFabric) ListenIn(vpcID, network, addr string) (net.Listener, error) {
	return nil, errors.New("not here")
}

func (f *fakeFabric) ListenPacketIn(vpcID, network, addr string) (net.PacketConn, error) {
	return nil, errors.New("not here")
}
func (f *fakeFabric) Flows() (vpc.FlowWindow, error) { return vpc.FlowWindow{}, nil }
func (f *fakeFabric) Close() error                   { return nil }

type fakeResolver struct {
	mu   sync.Mutex
	last dns.Config
}

func (r *fakeResolver) Set(_ context.Context, c dns.Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = c
	return nil
}
func (r *fakeResolver) Close() error { return nil }

// server plays the server's end of the stream.
type server struct {
	t     *testing.T
	conns chan *websocket.Conn
	http  *http.Server
	close func()
}

func newServer(t *testing.T, socket string) *server {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, conns: make(chan *websocket.Conn)}
	end := make(chan struct{})
	var handlers sync.WaitGroup
	s.http = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		handlers.Add(1)
		defer handlers.Done()
		defer c.CloseNow()
		select {
		case s.conns <- c:
			<-end
		case <-end:
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.http.Serve(l) }()
	s.close = sync.OnceFunc(func() { s.http.Close(); <-done; close(end); handlers.Wait() })
	t.Cleanup(s.close)
	return s
}

func (s *server) accept() (*websocket.Conn, fabric.Hello) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	select {
	case c := <-s.conns:
		var h fabric.Hello
		readFrame(s.t, c, &h)
		return c, h
	case <-ctx.Done():
		s.t.Fatal("the node does not connect")
		panic("unreachable")
	}
}

func readFrame(t *testing.T, c *websocket.Conn, v any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, b, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, c *websocket.Conn, d fabric.Desired) {
	t.Helper()
	if err := write(t.Context(), c, d); err != nil {
		t.Fatal(err)
	}
}

// reported reads reports until each of want was said.
func reported(t *testing.T, c *websocket.Conn, want ...fabric.InterfaceStatus) {
	t.Helper()
	for len(want) > 0 {
		var r fabric.Report
		readFrame(t, c, &r)
		for _, s := range r.Interfaces {
			want = slices.DeleteFunc(want, func(w fabric.InterfaceStatus) bool { return w == s })
		}
	}
}

type rig struct {
	cfg  Config
	fab  *fakeFabric
	dns  *fakeResolver
	stop func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	run, err := os.MkdirTemp("/run", "bnt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	data := t.TempDir()
	r := &rig{dns: &fakeResolver{}, fab: &fakeFabric{fail: map[string]error{}, have: map[string]vpc.ENIStatus{}}}
	r.cfg = Config{
		Layout: Layout{Data: data, Run: run, Log: filepath.Join(data, "logs"), ShortID: "aa00aa"},
		Name:   "n1", Server: filepath.Join(run, "server.sock"), Binary: "/proc/self/exe", Containerd: "/nowhere",
		CPU: 2048, Memory: 4096, Log: slog.New(slog.DiscardHandler),
		OpenFabric:  func(o vpc.Options) (Fabric, error) { r.fab.opts = o; return r.fab, nil },
		NewResolver: func(dns.Options) Resolver { return r.dns },
	}
	return r
}

func (r *rig) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, r.cfg) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
}

func iface(id string) fabric.Interface {
	return fabric.Interface{ID: id, VPC: "vpc-1", Subnet: "subnet-1", MAC: "02:00:00:00:00:01", Address: netip.MustParseAddr("10.0.0.7"), Groups: []string{"sg-1"}, Here: true}
}

func full(ids ...string) fabric.Desired {
	d := fabric.Desired{
		Full:   true,
		Region: &fabric.Region{Name: "us-east-1", ShortID: "aa00aa", PublicPool: netip.MustParsePrefix("100.64.0.0/24"), Endpoint: "http://127.0.0.1:4566"},
		VPCs:   []fabric.VPC{{ID: "vpc-1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, DNSSupport: true}},
		Groups: []fabric.SecurityGroup{{ID: "sg-1", VPC: "vpc-1", Egress: []fabric.Rule{{Protocol: -1}}}},
	}
	for _, id := range ids {
		d.Interfaces = append(d.Interfaces, iface(id))
	}
	return d
}

func TestStream(t *testing.T) {
	r := newRig(t)
	s := newServer(t, r.cfg.Server)
	r.start(t)
	c, hello := s.accept()
	if hello != (fabric.Hello{Name: "n1", CPU: 2048, Memory: 4096}) {
		t.Errorf("hello %+v", hello)
	}
	first := full("eni-1", "eni-2")
	elsewhere := iface("eni-far")
	elsewhere.Here = false
	first.Interfaces = append(first.Interfaces, elsewhere)
	r.fab.fail["eni-2"] = errors.New("no room")
	send(t, c, first)
	reported(t, c, fabric.InterfaceStatus{ID: "eni-1", Attached: true}, fabric.InterfaceStatus{ID: "eni-2", Error: "no room"})
	send(t, c, fabric.Desired{GoneInterfaces: []string{"eni-1", "eni-never-here"}})
	reported(t, c, fabric.InterfaceStatus{ID: "eni-1", Removed: true}, fabric.InterfaceStatus{ID: "eni-never-here", Removed: true})
	r.fab.mu.Lock()
	last := r.fab.set[len(r.fab.set)-1]
	r.fab.mu.Unlock()
	if len(last.ENIs) != 2 || last.ENIs[0].ID != "eni-2" || last.ENIs[1].ID != "eni-far" || last.ENIs[0].Elsewhere || !last.ENIs[1].Elsewhere || len(last.VPCs) != 1 || len(last.Groups) != 1 {
		t.Errorf("fabric got %+v", last)
	}
	// Another connection: the complete state again, without eni-2.
	c.CloseNow()
	c, _ = s.accept()
	send(t, c, full("eni-3"))
	reported(t, c, fabric.InterfaceStatus{ID: "eni-3", Attached: true}, fabric.InterfaceStatus{ID: "eni-2", Removed: true})
	r.stop()
	if len(r.dns.last.VPCs) != 1 || r.dns.last.VPCs[0].Resolver != netip.MustParseAddr("10.0.0.2") || r.dns.last.Localhost != netip.MustParseAddr("100.64.0.0") {
		t.Errorf("resolver got %+v", r.dns.last)
	}
}

// TestWithoutServer: a node that is started again while no server answers goes
// on from what it was told, and says so when one does.
func TestWithoutServer(t *testing.T) {
	r := newRig(t)
	s := newServer(t, r.cfg.Server)
	r.start(t)
	c, _ := s.accept()
	send(t, c, full("eni-1"))
	reported(t, c, fabric.InterfaceStatus{ID: "eni-1", Attached: true})
	r.stop()
	s.close()

	second := newRig(t)
	second.cfg.Layout.Data = r.cfg.Layout.Data
	second.start(t)
	deadline := time.Now().Add(20 * time.Second)
	for {
		if st := second.fab.Status(); st["eni-1"].Ready {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was applied")
		}
		time.Sleep(5 * time.Millisecond)
	}
	c, _ = newServer(t, second.cfg.Server).accept()
	reported(t, c, fabric.InterfaceStatus{ID: "eni-1", Attached: true})
}

func TestAgentIsStartedWithItsSettings(t *testing.T) {
	r := newRig(t)
	mark := filepath.Join(r.cfg.Layout.Run, "started")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.cfg.Binary, r.cfg.AgentArgs, r.cfg.OCIRuntime = self, []string{"child", mark}, "runc"
	s := newServer(t, r.cfg.Server)
	r.start(t)
	c, _ := s.accept()
	d := full()
	d.Agent = &fabric.Agent{Cluster: "fargate", ContainerInstance: "arn:ci", Credentials: fabric.Credentials{AccessKeyID: "AK", SecretAccessKey: "s", Token: "t", Expiration: time.Unix(1e9, 0).UTC()}}
	send(t, c, d)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(mark); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the agent was not started")
		}
	}
	got, err := LoadAgentSettings(r.cfg.Layout.AgentSettings())
	if want := (AgentSettings{Endpoint: "http://127.0.0.1:4566", Region: "us-east-1", Cluster: "fargate", ContainerInstance: "arn:ci", Containerd: "/nowhere", OCIRuntime: "runc", CPU: 2048, Memory: 4096}); err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	b, err := os.ReadFile(r.cfg.Layout.AgentCredentials())
	var creds fabric.Credentials
	if err != nil || json.Unmarshal(b, &creds) != nil || creds != d.Agent.Credentials {
		t.Errorf("%s %v", b, err)
	}
}

func TestTakeFull(t *testing.T) {
	w := newWanted()
	w.take(full("eni-1", "eni-2"))
	w.take(full("eni-2"))
	if !reflect.DeepEqual(w.Gone, map[string]bool{"eni-1": true}) {
		t.Errorf("gone %v", w.Gone)
	}
	w.take(fabric.Desired{Interfaces: []fabric.Interface{iface("eni-1")}})
	if len(w.Gone) != 0 {
		t.Errorf("gone %v", w.Gone)
	}
}

// TestCleanUp: what carries the region's mark ends, what does not lives.
func TestCleanUp(t *testing.T) {
	run, err := os.MkdirTemp("/run", "bnt")
	if err != nil {
		t.Fatal(err)
	}
	l := Layout{Data: t.TempDir(), Run: run, Log: t.TempDir(), ShortID: "ab12cd"}
	t.Cleanup(func() { os.RemoveAll(run) })
	mounts, err := mountPoints(func(fstype, _ string) bool { return fstype == "cgroup" || fstype == "cgroup2" })
	if err != nil {
		t.Fatal(err)
	}
	sleeper := func(name string, args ...string) (*exec.Cmd, chan struct{}) {
		c := exec.Command("/bin/sleep", "600")
		c.Args = append([]string{name}, args...)
		if len(args) > 0 {
			// sleep would refuse the arguments; a shell does not look at them.
			c.Path, c.Args = "/bin/sh", append([]string{name, "-c", "sleep 600; :", "x"}, args...)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _ = c.Wait(); close(done) }()
		t.Cleanup(func() { _ = c.Process.Kill(); <-done })
		return c, done
	}
	inside, insideDone := sleeper("sleep", "600")
	_, shimDone := sleeper("/x/containerd-shim-runc-v2", "-address", l.Containerd().Socket(), "-id", "x")
	_, foreignDone := sleeper("/x/containerd-shim-runc-v2", "-address", "/run/somebody/else.sock", "-id", "x")
	put := 0
	for _, m := range mounts {
		dir := filepath.Join(m, l.Cgroup(), "task", "container")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			continue // a read-only hierarchy
		}
		if os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(itoa(inside.Process.Pid)), 0o644) == nil {
			put++
		}
	}
	if put == 0 {
		t.Fatal("no hierarchy takes a process")
	}
	target := filepath.Join(run, "containerd", "m")
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", target, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 2 {
		if err := CleanUp(ctx, Remains{ShortID: l.ShortID, RunDir: l.Run, DataDir: l.Data, Cgroup: l.Cgroup()}); err != nil {
			t.Fatal(err)
		}
	}
	<-insideDone
	<-shimDone
	select {
	case <-foreignDone:
		t.Error("somebody else's shim was killed")
	default:
	}
	if _, err := os.Stat(run); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, m := range mounts {
		if _, err := os.Stat(filepath.Join(m, l.Cgroup())); !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
	b, _ := os.ReadFile("/proc/self/mounts")
	if strings.Contains(string(b), run) {
		t.Error("a mount is left")
	}
	if _, err := os.Stat(l.Data); err != nil {
		t.Error(err)
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func FuzzFrame(f *testing.F) {
	b, _ := json.Marshal(full("eni-1"))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var d fabric.Desired
		if json.Unmarshal(b, &d) != nil {
			return
		}
		w := newWanted()
		w.take(d)
		_ = vpcConfig(w)
		_ = dnsConfig(&fabric.Region{}, w)
	})
}
