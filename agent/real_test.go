package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"go.uber.org/goleak"

	"github.com/berth-run/berth/agent/containerd"
	"github.com/berth-run/berth/dispatch/acs"
	daemon "github.com/berth-run/berth/node/containerd"
	_ "github.com/berth-run/berth/node/shim" // this test binary is the shim too
)

// roleEnv makes the test binary the daemon that the tests run against.
const roleEnv = "BERTH_AGENT_TEST_DAEMON"

func TestMain(m *testing.M) {
	if dirs, ok := os.LookupEnv(roleEnv); ok {
		root, run, _ := strings.Cut(dirs, ":")
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := daemon.Main(ctx, daemon.Dirs{Root: root, Run: run}, daemon.Options{}); err != nil {
			log.Fatal(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// cloud is what a region has besides the control plane: a registry and logs.
type cloud struct {
	mu     sync.Mutex
	events []string
}

func (c *cloud) answer(op string, in map[string]any) (string, bool) {
	switch op {
	case "GetAuthorizationToken":
		return fmt.Sprintf(`{"authorizationData":[{"authorizationToken":%q}]}`, base64.StdEncoding.EncodeToString([]byte("AWS:x"))), true
	case "CreateLogStream":
		return "{}", true
	case "PutLogEvents":
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, e := range in["logEvents"].([]any) {
			c.events = append(c.events, e.(map[string]any)["message"].(string))
		}
		return "{}", true
	}
	return "", false
}

func (c *cloud) lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}

// pushTiny builds the containerd tests' program into an image.
func pushTiny(t *testing.T, dir, host string) {
	program := filepath.Join(dir, "tiny")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "./containerd/testdata/tiny")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "tiny", Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(b))}); err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	w.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.Config(img, v1.Config{Entrypoint: []string{"/tiny"}}); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(host+"/app:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
}

// watched tells of tasks that nothing is left of.
type watched struct {
	*containerd.Runtime
	gone chan string
}

func (w watched) DeleteGroup(ctx context.Context, name string) error {
	err := w.Runtime.DeleteGroup(ctx, name)
	w.gone <- name
	return err
}

// A task on a real runtime: its image comes from the region's registry, its
// last line is delivered before it is reported as stopped, and its containers
// are in the interface's namespace.
func TestRealRuntime(t *testing.T) {
	dir := t.TempDir()
	run, err := os.MkdirTemp("/run", "bat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	r := newRegion(t)
	r.cloud = &cloud{}
	r.registry = registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	pushTiny(t, dir, r.Listener.Addr().String())

	dirs := daemon.Dirs{Root: filepath.Join(dir, "d"), Run: filepath.Join(run, "d")}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleEnv+"="+dirs.Root+":"+dirs.Run)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	cgroup := "/" + filepath.Base(run)
	rt, err := containerd.New(containerd.Config{Address: dirs.Socket(), Namespace: filepath.Base(run), Dir: filepath.Join(run, "a"), Cgroup: cgroup})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		rt.Close()
		for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			left, _ := filepath.Glob(top + cgroup)
			for _, cg := range left {
				if err := os.Remove(cg); err != nil {
					t.Errorf("left: %v", err)
				}
			}
		}
	})
	if err := rt.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}

	gone := make(chan string, 3)
	cfg := Config{
		Endpoint: r.URL, Region: "eu-west-1", Cluster: "c", ContainerInstanceARN: "arn:i", CredentialsFile: filepath.Join(dir, "creds.json"),
		DataDir: filepath.Join(dir, "data"), NetnsDir: dir, Runtime: watched{rt, gone}, CPU: 2048, Memory: 4096, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	os.WriteFile(cfg.CredentialsFile, []byte(`{"AccessKeyId":"AK","SecretAccessKey":"S"}`), 0o600)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Run(ctx, cfg) }()
	conn := <-r.acs

	host, _ := json.Marshal(acs.HostConfig{LogConfig: acs.LogConfig{Type: "awslogs", Config: map[string]string{"awslogs-group": "g", "awslogs-stream-prefix": "p"}}})
	start := func(id string, command ...string) time.Duration {
		makeInterface(t, filepath.Join(dir, "eni-"+id))
		began := time.Now()
		r.say(conn, &acs.PayloadMessage{MessageID: id, ClusterArn: "arn:c", ContainerInstanceArn: "arn:i", Tasks: []acs.Task{{
			Arn: "arn:aws:ecs:eu-west-1:1:task/c/" + id, Family: "f", Version: "1", DesiredStatus: "RUNNING", NetworkMode: "awsvpc", CPU: 0.25, Memory: 64,
			ElasticNetworkInterfaces: []acs.ElasticNetworkInterface{{AttachmentArn: "arn:a", EC2ID: "eni-" + id, IPv4Addresses: []acs.IPv4Address{{Primary: true, PrivateAddress: taskAddress}}}},
			Containers: []acs.Container{{Name: "app", Image: "111122223333.dkr.ecr.eu-west-1.amazonaws.com/app:1", Essential: true, Command: command,
				DockerConfig: &acs.DockerConfig{HostConfig: string(host)}}},
		}}})
		r.expect("ATTACHED", "RUNNING")
		return time.Since(began)
	}
	t.Logf("cold: %v from payload to RUNNING", start("1", "out", "the last line", "exit", "3"))
	r.expect("STOPPED")
	if got := r.cloud.lines(); !slices.Equal(got, []string{"the last line"}) {
		t.Errorf("logs at STOPPED: %q", got)
	}
	t.Logf("warm: %v from payload to RUNNING", start("2", "wait"))
	t.Logf("warm: %v from payload to RUNNING", start("3", "wait"))
	if list, _ := rt.List(t.Context(), nil); len(list) < 2 {
		t.Errorf("containers: %v", list)
	}
	for _, id := range []string{"2", "3"} {
		r.say(conn, &acs.PayloadMessage{MessageID: "s" + id, Tasks: []acs.Task{{Arn: "arn:aws:ecs:eu-west-1:1:task/c/" + id, DesiredStatus: "STOPPED"}}})
		r.expect("STOPPED")
	}
	for range 3 {
		<-gone
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if list, err := rt.List(t.Context(), nil); err != nil || len(list) != 0 {
		t.Errorf("containers are left: %v, %v", list, err)
	}
}
