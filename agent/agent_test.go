package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/agent/runtime/fake"
	"github.com/berth-run/berth/dispatch/acs"
)

// region is a control plane that does as little as one can.
type region struct {
	*httptest.Server
	t    *testing.T
	told chan string
	acs  chan *websocket.Conn

	cloud    *cloud       // optional
	registry http.Handler // optional
}

func newRegion(t *testing.T) *region {
	r := &region{t: t, told: make(chan string, 64), acs: make(chan *websocket.Conn, 4)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, req *http.Request) {
		_, op, _ := strings.Cut(req.Header.Get("X-Amz-Target"), ".")
		var in map[string]any
		json.NewDecoder(req.Body).Decode(&in)
		switch op {
		case "RegisterContainerInstance":
			fmt.Fprintf(w, `{"containerInstance":{"containerInstanceArn":%q}}`, in["containerInstanceArn"])
		case "DiscoverPollEndpoint":
			fmt.Fprintf(w, `{"endpoint":%q,"telemetryEndpoint":%q}`, r.URL+"/acs", r.URL+"/tcs")
		case "SubmitTaskStateChange":
			s := fmt.Sprint(in["status"])
			if in["attachments"] != nil {
				s = "ATTACHED"
			}
			r.told <- s
			io.WriteString(w, `{"acknowledgment":"ok"}`)
		default:
			if r.cloud != nil {
				if answer, ok := r.cloud.answer(op, in); ok {
					io.WriteString(w, answer)
					return
				}
			}
			r.told <- op
			io.WriteString(w, "{}")
		}
	})
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, req *http.Request) { r.registry.ServeHTTP(w, req) })
	mux.HandleFunc("GET /acs/ws", func(w http.ResponseWriter, req *http.Request) {
		conn, err := websocket.Accept(w, req, nil)
		if err != nil {
			return
		}
		r.acs <- conn
		for {
			if _, _, err := conn.Read(context.Background()); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /tcs/ws", func(w http.ResponseWriter, req *http.Request) {
		conn, err := websocket.Accept(w, req, nil)
		if err != nil {
			return
		}
		for {
			if _, _, err := conn.Read(context.Background()); err != nil {
				return
			}
		}
	})
	r.Server = httptest.NewServer(mux)
	t.Cleanup(r.Close)
	return r
}

func (r *region) expect(want ...string) {
	r.t.Helper()
	for _, w := range want {
		if got := <-r.told; got != w {
			r.t.Fatalf("the region was told %s, not %s", got, w)
		}
	}
}

func (r *region) say(c *websocket.Conn, m acs.Message) {
	b, err := acs.Encode(m)
	if err == nil {
		err = c.Write(r.t.Context(), websocket.MessageText, b)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// taskAddress is the address of the task's interface.
const taskAddress = "10.0.0.5"

// makeInterface makes what the data plane makes: a network namespace, and a
// marker when it is ready.
func makeInterface(t *testing.T, path string) {
	made := make(chan error)
	go func() {
		goruntime.LockOSThread() // the thread ends with the goroutine
		made <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			// This one namespace plays the task's and the VPC's.
			for _, a := range []string{"169.254.170.2/32", taskAddress + "/32"} {
				addr, err := netlink.ParseAddr(a)
				if err != nil {
					return err
				}
				if err := netlink.AddrAdd(lo, addr); err != nil {
					return err
				}
			}
			if err := netlink.LinkSetUp(lo); err != nil {
				return err
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}()
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	if err := os.Symlink(filepath.Base(path), path+".ready"); err != nil {
		t.Fatal(err)
	}
}

// fromTask asks the metadata endpoint from inside the task's namespace.
func fromTask(t *testing.T, netns, path string) string {
	type answer struct {
		body string
		err  error
	}
	got := make(chan answer)
	go func() {
		goruntime.LockOSThread()
		f, err := os.Open(netns)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if err != nil {
			got <- answer{err: err}
			return
		}
		// The socket has to be made on this thread, so no http.Client.
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(taskAddress)}}
		c, err := dialer.Dial("tcp", "169.254.170.2:80")
		if err != nil {
			got <- answer{err: err}
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", path)
		b, err := io.ReadAll(c)
		got <- answer{string(b), err}
	}()
	a := <-got
	if a.err != nil {
		t.Fatal(a.err)
	}
	_, body, _ := strings.Cut(a.body, "\r\n\r\n")
	return body
}

// A task's life from the payload to the clean-up, across a restart of the agent.
func TestAgent(t *testing.T) {
	r := newRegion(t)
	rt := fake.New()
	defer rt.Close()
	rt.AddImage("docker.io/library/app:1", runtime.Image{Digest: "sha256:1"})
	removed := make(chan struct{})
	rt.OnCall = func(op, _ string) error {
		if op == "DeleteGroup" {
			close(removed)
		}
		return nil
	}
	dir := t.TempDir()
	cfg := Config{
		Endpoint: r.URL, Region: "eu-west-1", Cluster: "c", ContainerInstanceARN: "arn:i", CredentialsFile: filepath.Join(dir, "creds.json"),
		DataDir: filepath.Join(dir, "data"), NetnsDir: dir, Runtime: rt, CPU: 2048, Memory: 4096, Zone: "eu-west-1a",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	os.WriteFile(cfg.CredentialsFile, []byte(`{"AccessKeyId":"AK","SecretAccessKey":"S","Token":"T","Expiration":"2099-01-01T00:00:00Z"}`), 0o600)
	start := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- Run(ctx, cfg) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := start()
	conn := <-r.acs
	task := acs.Task{
		Arn: "arn:aws:ecs:eu-west-1:1:task/c/0a", Family: "f", Version: "1", DesiredStatus: "RUNNING", NetworkMode: "awsvpc", CPU: 0.25, Memory: 512,
		ElasticNetworkInterfaces: []acs.ElasticNetworkInterface{{AttachmentArn: "arn:a", EC2ID: "eni-1", IPv4Addresses: []acs.IPv4Address{{Primary: true, PrivateAddress: taskAddress}}}},
		RoleCredentials:          &acs.IAMRoleCredentials{CredentialsID: "role", AccessKeyID: "TASK", Expiration: "2099-01-01T00:00:00Z"},
		Containers:               []acs.Container{{Name: "app", Image: "app:1", Essential: true}},
	}
	r.say(conn, &acs.PayloadMessage{MessageID: "1", ClusterArn: "arn:c", ContainerInstanceArn: "arn:i", Tasks: []acs.Task{task}, SeqNum: 5})
	netns := filepath.Join(dir, "eni-1")
	makeInterface(t, netns)
	r.expect("ATTACHED", "RUNNING")
	if got := fromTask(t, netns, "/v2/credentials/role"); !strings.Contains(got, `"AccessKeyId":"TASK"`) {
		t.Errorf("credentials: %s", got)
	}
	running, _ := rt.List(t.Context(), nil)

	stop()
	stop = start()
	conn = <-r.acs
	if again, _ := rt.List(t.Context(), nil); len(again) != 1 || again[0].Pid != running[0].Pid {
		t.Errorf("%v became %v", running, again)
	}
	// The credentials come anew.
	r.say(conn, &acs.IAMRoleCredentialsMessage{MessageID: "2", TaskArn: task.Arn, RoleType: acs.RoleTypeApplication, RoleCredentials: task.RoleCredentials})
	r.say(conn, &acs.TaskManifestMessage{MessageID: "3", ClusterArn: "arn:c", ContainerInstanceArn: "arn:i", Timeline: 6, Tasks: []acs.TaskIdentifier{{TaskArn: task.Arn, DesiredStatus: "RUNNING"}}})
	r.say(conn, &acs.PayloadMessage{MessageID: "4", SeqNum: 7, Tasks: []acs.Task{{Arn: task.Arn, DesiredStatus: "STOPPED", Containers: []acs.Container{}}}})
	r.expect("STOPPED")
	<-removed
	stop()
	if left, _ := rt.List(t.Context(), nil); len(left) != 0 {
		t.Errorf("containers are left: %v", left)
	}
	if left, _ := os.ReadDir(filepath.Join(cfg.DataDir, "tasks")); len(left) != 0 {
		t.Errorf("checkpoints are left: %v", left)
	}
	if n := timeline(filepath.Join(cfg.DataDir, "timeline")).Load(); n != 6 {
		t.Errorf("the newest manifest is %d", n)
	}
}
