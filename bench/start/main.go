// Command start measures how long a container takes from the request to its
// first line of output: through agent/containerd, as the agent does it;
// through a bare containerd client on the same daemon with the same OCI
// runtime; and through docker, if dockerd is installed.
//
//	go run ./bench/start [-n 30] [-parallel 20] [-runtime runc] [-docker]
//
// It must run as root. Everything it starts has directories of its own and is
// removed at the end. One line per contender, then the ratios.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
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
	_ "github.com/berth-run/berth/node/shim"
)

const roleEnv = "BERTH_BENCH_DAEMON"

func main() {
	if dirs, ok := os.LookupEnv(roleEnv); ok {
		root, run, _ := strings.Cut(dirs, ":")
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := daemon.Main(ctx, daemon.Dirs{Root: root, Run: run}, daemon.Options{}); err != nil {
			log.Fatal(err)
		}
		return
	}
	n := flag.Int("n", 30, "containers one after the other")
	parallel := flag.Int("parallel", 20, "containers at once")
	ociRuntime := flag.String("runtime", "runc", "OCI runtime of all but docker")
	docker := flag.Bool("docker", true, "compare with docker, if dockerd is installed")
	flag.Parse()
	if err := bench(*n, *parallel, *ociRuntime, *docker); err != nil {
		log.Fatal(err)
	}
}

// contender starts one container and returns when its first line has arrived.
// What it returns cleans up and is not measured.
type contender struct {
	name  string
	start func(ctx context.Context, id string) (remove func() error, err error)
}

func bench(n, parallel int, ociRuntime string, withDocker bool) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "berth-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	run, err := os.MkdirTemp("/run", "bbs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(run)
	self, err := os.Executable()
	if err != nil {
		return err
	}

	dirs := daemon.Dirs{Root: filepath.Join(dir, "containerd"), Run: filepath.Join(run, "d")}
	child := exec.Command(self)
	child.Env = append(os.Environ(), roleEnv+"="+dirs.Root+":"+dirs.Run)
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		return err
	}
	defer func() {
		_ = child.Process.Signal(syscall.SIGTERM)
		_ = child.Wait()
	}()

	img, err := buildImage(dir)
	if err != nil {
		return err
	}
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer reg.Close()
	address := reg.Listener.Addr().String()
	tag, err := name.NewTag(address+"/bench:1", name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(tag, img); err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}

	cgroup := "/" + filepath.Base(run)
	defer removeCgroups(cgroup)
	r, err := containerd.New(containerd.Config{
		Address: dirs.Socket(), Namespace: "bench", Dir: filepath.Join(run, "a"), Cgroup: cgroup, OCIRuntime: ociRuntime,
	})
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.Ready(ctx); err != nil {
		return err
	}
	if _, err := r.Pull(ctx, runtime.Source{Reference: "bench.invalid/bench:1", Address: address, PlainHTTP: true}, digest.String(), nil); err != nil {
		return err
	}
	contenders := []contender{ours(r, digest.String())}
	for _, plain := range []bool{false, true} {
		bare, err := bareClient(ctx, dirs.Socket(), filepath.Join(run, "bare"), ociRuntime, digest.String(), cgroup, plain)
		if err != nil {
			return err
		}
		contenders = append(contenders, bare)
	}
	if _, err := exec.LookPath("dockerd"); withDocker && err == nil {
		d, end, err := dockerd(ctx, filepath.Join(dir, "docker"), filepath.Join(run, "docker"), img)
		if err != nil {
			return err
		}
		defer end()
		contenders = append(contenders, d)
	}

	// Turn by turn, so that what else the machine does meets all alike. The
	// first round warms up.
	took := make([][]time.Duration, len(contenders))
	for i := range n + 1 {
		for c := range contenders {
			t0 := time.Now()
			remove, err := contenders[c].start(ctx, fmt.Sprintf("s%d-%d", i, c))
			d := time.Since(t0)
			if err != nil {
				return fmt.Errorf("%s: %w", contenders[c].name, err)
			}
			if err := remove(); err != nil {
				return fmt.Errorf("%s: %w", contenders[c].name, err)
			}
			if i > 0 {
				took[c] = append(took[c], d)
			}
		}
	}
	rate := make([]float64, len(contenders))
	for c := range contenders {
		removes := make([]func() error, parallel)
		errs := make([]error, parallel)
		t0 := time.Now()
		var wg sync.WaitGroup
		for i := range parallel {
			wg.Go(func() { removes[i], errs[i] = contenders[c].start(ctx, fmt.Sprintf("p%d-%d", i, c)) })
		}
		wg.Wait()
		rate[c] = float64(parallel) / time.Since(t0).Seconds()
		for i := range parallel {
			if errs[i] == nil {
				errs[i] = removes[i]()
			}
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("%s, %d at once: %w", contenders[c].name, parallel, err)
		}
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	for c := range contenders {
		slices.Sort(took[c])
		fmt.Printf("%-30s first output p50 %6.1f ms  p90 %6.1f ms   %d at once: %5.1f containers/s\n",
			contenders[c].name, ms(pct(took[c], 50)), ms(pct(took[c], 90)), parallel, rate[c])
	}
	for c := 1; c < len(contenders); c++ {
		fmt.Printf("berth / %-30s p50 %.2f   at once %.2f\n", contenders[c].name, ms(pct(took[0], 50))/ms(pct(took[c], 50)), rate[0]/rate[c])
	}
	return nil
}

func pct(sorted []time.Duration, p int) time.Duration { return sorted[(len(sorted)-1)*p/100] }

// ours is the way of the agent: group, container, start, output.
func ours(r *containerd.Runtime, digest string) contender {
	return contender{"berth", func(ctx context.Context, id string) (func() error, error) {
		if err := r.CreateGroup(ctx, runtime.Group{Name: id, Memory: 512 << 20, CPUQuota: 25000}); err != nil {
			return nil, err
		}
		if err := r.Create(ctx, runtime.Spec{ID: id, Group: id, Image: digest}); err != nil {
			return nil, err
		}
		out, err := r.Output(ctx, id)
		if err != nil {
			return nil, err
		}
		if _, err := r.Start(ctx, id); err != nil {
			return nil, err
		}
		if _, err := bufio.NewReader(out.Stdout).ReadString('\n'); err != nil {
			return nil, err
		}
		return func() error {
			return errors.Join(out.Close(), r.Delete(ctx, id), r.DeleteGroup(ctx, id))
		}, nil
	}}
}

// bareClient is containerd's client as its documentation uses it, for the same
// container: the default seccomp profile and a cgroup with limits. Plain leaves
// the profile out, which is what runc spends most of its time on.
func bareClient(ctx context.Context, socket, run, ociRuntime, digest, cgroup string, plain bool) (contender, error) {
	c, err := client.New(socket)
	if err != nil {
		return contender{}, err
	}
	ctx = namespaces.WithNamespace(ctx, "bench")
	img, err := c.GetImage(ctx, digest)
	if err != nil {
		return contender{}, err
	}
	called, specOpts := "containerd client", []oci.SpecOpts{oci.WithImageConfig(img), oci.WithMemoryLimit(512 << 20), oci.WithCPUCFS(25000, 100000)}
	if plain {
		called += ", no seccomp"
	} else {
		specOpts = append(specOpts, seccomp.WithDefaultProfile())
	}
	return contender{called, func(_ context.Context, id string) (func() error, error) {
		ct, err := c.NewContainer(ctx, id,
			client.WithImage(img), client.WithSnapshotter("overlayfs"), client.WithNewSnapshot(id, img),
			client.WithRuntime("io.containerd.runc.v2", &options.Options{BinaryName: ociRuntime, Root: run}),
			client.WithNewSpec(append(slices.Clip(specOpts), oci.WithCgroup(cgroup+"/"+id))...))
		if err != nil {
			return nil, err
		}
		pr, pw := io.Pipe()
		t, err := ct.NewTask(ctx, cio.NewCreator(cio.WithStreams(nil, pw, io.Discard), cio.WithFIFODir(run)))
		if err != nil {
			return nil, err
		}
		exited, err := t.Wait(ctx)
		if err != nil {
			return nil, err
		}
		if err := t.Start(ctx); err != nil {
			return nil, err
		}
		if _, err := bufio.NewReader(pr).ReadString('\n'); err != nil {
			return nil, err
		}
		return func() error {
			go io.Copy(io.Discard, pr)
			<-exited
			_, err := t.Delete(ctx)
			return errors.Join(err, ct.Delete(ctx, client.WithSnapshotCleanup), pw.Close())
		}, nil
	}}, nil
}

// dockerd starts a daemon of its own and loads the image.
func dockerd(ctx context.Context, data, run string, img v1.Image) (contender, func(), error) {
	if err := os.MkdirAll(run, 0o711); err != nil {
		return contender{}, nil, err
	}
	host := "unix://" + run + "/d.sock"
	cmd := exec.Command("dockerd", "--data-root", data, "--exec-root", run+"/e", "--pidfile", run+"/pid", "-H", host,
		"--bip", "10.253.251.1/24", "--iptables=false", "--ip-masq=false")
	logFile, err := os.Create(filepath.Join(run, "log"))
	if err != nil {
		return contender{}, nil, err
	}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		return contender{}, nil, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	end := func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		logFile.Close()
	}
	docker := func(args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "docker", append([]string{"-H", host}, args...)...)
	}
	for deadline := time.Now().Add(30 * time.Second); docker("version").Run() != nil; {
		select {
		case <-ended:
			out, _ := os.ReadFile(filepath.Join(run, "log"))
			return contender{}, nil, fmt.Errorf("dockerd ended:\n%s", out[max(0, len(out)-2000):])
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			end()
			return contender{}, nil, errors.New("dockerd does not answer")
		}
	}
	ref, err := name.NewTag("bench:1")
	if err != nil {
		return contender{}, nil, err
	}
	file := filepath.Join(run, "image.tar")
	if err := tarball.WriteToFile(file, ref, img); err != nil {
		return contender{}, nil, err
	}
	if out, err := docker("load", "-i", file).CombinedOutput(); err != nil {
		end()
		return contender{}, nil, fmt.Errorf("docker load: %w\n%s", err, out)
	}
	return contender{"docker run", func(ctx context.Context, id string) (func() error, error) {
		run := docker("run", "--name", id, "bench:1")
		out, err := run.StdoutPipe()
		if err != nil {
			return nil, err
		}
		var stderr bytes.Buffer
		run.Stderr = &stderr
		if err := run.Start(); err != nil {
			return nil, err
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			_ = run.Wait()
			return nil, fmt.Errorf("docker run: %w: %s", err, stderr.String())
		}
		return func() error {
			_, _ = io.Copy(io.Discard, out)
			return errors.Join(run.Wait(), docker("rm", "-f", id).Run())
		}, nil
	}}, end, nil
}

// buildImage makes an image of a program that says one line.
func buildImage(dir string) (v1.Image, error) {
	src := filepath.Join(dir, "hello.go")
	body := "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"hello\\n\") }\n"
	if err := os.WriteFile(src, []byte(body), 0o600); err != nil {
		return nil, err
	}
	bin := filepath.Join(dir, "hello")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, src)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w\n%s", err, out)
	}
	program, err := os.ReadFile(bin)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	return mutate.Config(img, v1.Config{Entrypoint: []string{"/hello"}})
}

func removeCgroups(path string) {
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, _ := filepath.Glob(top + path)
		for _, d := range dirs {
			subs, _ := filepath.Glob(d + "/*")
			for _, s := range subs {
				_ = syscall.Rmdir(s)
			}
			_ = syscall.Rmdir(d)
		}
	}
}
