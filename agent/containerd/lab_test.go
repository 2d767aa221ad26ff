package containerd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"archive/tar"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berth-run/berth/agent/containerd"
	"github.com/berth-run/berth/agent/runtime"
	daemon "github.com/berth-run/berth/node/containerd"
	_ "github.com/berth-run/berth/node/shim" // this test binary is the shim too
)

// The tests run against a real daemon: this test binary, re-executed.
const roleEnv = "BERTH_TEST_DAEMON"

var lab *theLab

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
	// All of it with either of the OCI runtimes.
	for _, r := range []string{"runc", "crun"} {
		ociRuntime = r
		fmt.Println("with " + r)
		if code := inLab(m); code != 0 {
			os.Exit(code)
		}
	}
}

// ociRuntime makes the containers of the tests.
var ociRuntime string

func inLab(m *testing.M) int {
	l, err := openLab()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	lab = l
	code := m.Run()
	if err := l.close(); err != nil {
		fmt.Fprintln(os.Stderr, "left behind:", err)
		return 1
	}
	return code
}

// theLab is a daemon, a registry with the tests' image in it, and a runtime.
type theLab struct {
	id   string
	dir  string // lasting
	run  string // short
	dirs daemon.Dirs
	cg   string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}

	registry *httptest.Server
	auth     string // "user:password" that the registry wants, if any
	ref      string
	digest   string
	r        *containerd.Runtime
}

func openLab() (_ *theLab, err error) {
	dir, err := os.MkdirTemp("", "berth-runtime-test-")
	if err != nil {
		return nil, err
	}
	run, err := os.MkdirTemp("/run", "brt")
	if err != nil {
		return nil, err
	}
	l := &theLab{id: filepath.Base(run), dir: dir, run: run, cg: "/" + filepath.Base(run)}
	l.dirs = daemon.Dirs{Root: filepath.Join(dir, "containerd"), Run: filepath.Join(run, "d")}
	if err := l.startDaemon(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.killDaemon()
		}
	}()
	if err := l.push(); err != nil {
		return nil, err
	}
	if l.r, err = l.runtime(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.r.Ready(ctx); err != nil {
		return nil, err
	}
	if _, err := l.r.Pull(ctx, l.source(), l.digest, nil); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *theLab) runtime() (*containerd.Runtime, error) {
	return containerd.New(containerd.Config{
		Address: l.dirs.Socket(), Namespace: "berth-" + l.id, Dir: filepath.Join(l.run, "a"), Cgroup: l.cg,
		Exits:      l.dirs.Exits(),
		OCIRuntime: ociRuntime, InitPath: filepath.Join(l.dir, "init"),
	})
}

func (l *theLab) source() runtime.Source {
	return runtime.Source{Reference: l.ref, Address: l.registry.Listener.Addr().String(), PlainHTTP: true}
}

func (l *theLab) startDaemon() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleEnv+"="+l.dirs.Root+":"+l.dirs.Run)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	l.mu.Lock()
	l.cmd, l.done = cmd, done
	l.mu.Unlock()
	return nil
}

func (l *theLab) killDaemon() {
	_ = l.cmd.Process.Kill()
	<-l.done
}

// push builds the tests' image from the tiny program and puts it into a
// registry of our own.
func (l *theLab) push() error {
	for _, name := range []string{"tiny", "init"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(l.dir, name), "./testdata/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	program, err := os.ReadFile(filepath.Join(l.dir, "tiny"))
	if err != nil {
		return err
	}
	layer := func(files ...*tar.Header) (v1.Layer, error) {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range files {
			body := []byte(h.PAXRecords["BERTH.body"])
			h.PAXRecords = nil
			if h.Name == "tiny" {
				body = program
			}
			h.Size = int64(len(body))
			if h.Typeflag == tar.TypeDir {
				h.Size = 0
			}
			if err := w.WriteHeader(h); err != nil {
				return nil, err
			}
			if _, err := w.Write(body); err != nil && h.Size > 0 {
				return nil, err
			}
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	}
	text := func(name, body string) *tar.Header {
		return &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"BERTH.body": body}}
	}
	dir := func(name string) *tar.Header { return &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir} }
	first, err := layer(dir("etc"), dir("tmp"), text("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n"),
		text("etc/group", "root:x:0:\nweb:x:1001:\nstaff:x:50:web\ndisk:x:6:root\n"), dir("data"), text("data/from-image", "image"))
	if err != nil {
		return err
	}
	second, err := layer(&tar.Header{Name: "tiny", Mode: 0o755, Typeflag: tar.TypeReg})
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, first, second)
	if err != nil {
		return err
	}
	if img, err = mutate.Config(img, v1.Config{
		Entrypoint: []string{"/tiny"}, Cmd: []string{"out", "default"}, Env: []string{"FROM=image", "BOTH=image"},
		WorkingDir: "/tmp", StopSignal: "SIGUSR1", Labels: map[string]string{"l": "v"}, Volumes: map[string]struct{}{"/data": {}},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/tiny", "exit", "0"}, Interval: time.Second},
	}); err != nil {
		return err
	}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	l.registry = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		l.mu.Lock()
		auth := l.auth
		l.mu.Unlock()
		if user, pass, _ := req.BasicAuth(); auth != "" && user+":"+pass != auth {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"Not Authorized"}]}`)
			return
		}
		inner.ServeHTTP(w, req)
	}))
	// The name says a host that does not exist; the source says where it is.
	l.ref = "registry.invalid/team/tiny:1"
	tag, err := name.NewTag(l.registry.Listener.Addr().String()+"/team/tiny:1", name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(tag, img); err != nil {
		return err
	}
	d, err := img.Digest()
	l.digest = d.String()
	return err
}

// close ends everything and tells what is left of it.
func (l *theLab) close() error {
	var errs []error
	if l.r != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		list, err := l.r.List(ctx, nil)
		errs = append(errs, err)
		for _, c := range list {
			errs = append(errs, fmt.Errorf("container %s (%s)", c.ID, c.Status), l.r.Delete(ctx, c.ID))
		}
		errs = append(errs, l.r.Close())
	}
	_ = l.cmd.Process.Signal(syscall.SIGTERM)
	<-l.done
	l.registry.Close()
	mounts, err := os.ReadFile("/proc/self/mounts")
	errs = append(errs, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.run) || strings.Contains(line, l.dir) {
			errs = append(errs, errors.New("mount "+line))
			_ = syscall.Unmount(strings.Fields(line)[1], syscall.MNT_DETACH)
		}
	}
	for _, cg := range cgroupDirs(l.cg) {
		if entries, err := os.ReadDir(cg); err == nil {
			for _, e := range entries {
				if e.IsDir() {
					errs = append(errs, fmt.Errorf("cgroup %s/%s", cg, e.Name()))
				}
			}
		}
		if err := os.Remove(cg); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, p := range shims(l.run) {
		errs = append(errs, fmt.Errorf("shim %d", p))
	}
	errs = append(errs, os.RemoveAll(l.dir), os.RemoveAll(l.run))
	return errors.Join(errs...)
}

// cgroupDirs are the directories of a cgroup in all hierarchies.
func cgroupDirs(path string) []string {
	var out []string
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		found, _ := filepath.Glob(top + path)
		out = append(out, found...)
	}
	return out
}

// shims are the shim processes whose socket or binary is under run.
func shims(run string) []int {
	var out []int
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range lines {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(b, []byte(run)) || !bytes.Contains(b, []byte("-namespace")) {
			continue
		}
		var pid int
		fmt.Sscanf(f, "/proc/%d/", &pid)
		out = append(out, pid)
	}
	return out
}
