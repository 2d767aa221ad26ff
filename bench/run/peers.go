package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berth-run/berth/node"
	"github.com/berth-run/berth/test/lab"
)

const imageName = "bench.invalid/bench:1"

// saveImage writes the image as `docker save` would.
func saveImage(dir string, img v1.Image) (string, error) {
	ref, err := name.NewTag(imageName)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "image.tar")
	return file, tarball.WriteToFile(file, ref, img)
}

// bare is containerd's client as its documentation uses it, for a container
// as isolated as a task's: with the default seccomp profile and limits.
type bare struct {
	client *client.Client
	img    client.Image
	run    string
	cgroup string
	// settings is the file that says which OCI runtime the region has chosen.
	settings string
	ctx      context.Context
}

const bareNamespace = "bench"

func newBare(ctx context.Context, r *lab.Region, dir string, img v1.Image) (*bare, error) {
	c, err := client.New(filepath.Join(r.RunDir(), "containerd", "c.sock"))
	if err != nil {
		return nil, err
	}
	run, err := os.MkdirTemp("/run", "bbr")
	if err != nil {
		return nil, err
	}
	ctx = namespaces.WithNamespace(ctx, bareNamespace)
	b := &bare{client: c, run: run, cgroup: "/" + filepath.Base(run), settings: node.Layout{Data: filepath.Join(r.Dir, "node")}.AgentSettings(), ctx: ctx}
	file, err := saveImage(dir, img)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := c.Import(ctx, f); err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if b.img, err = c.GetImage(ctx, imageName); err != nil {
		return nil, err
	}
	return b, b.img.Unpack(ctx, "overlayfs")
}

func (b *bare) close() {
	_ = b.client.Close()
	_ = os.RemoveAll(b.run)
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, _ := filepath.Glob(top + b.cgroup)
		for _, d := range dirs {
			_ = syscall.Rmdir(d)
		}
	}
}

// oldVersion is what a region's containers say, too: a crun may refuse newer ones.
func oldVersion(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	s.Version = "1.0.2"
	return nil
}

// one creates and starts a container.
func (b *bare) one(_ context.Context, id string) (time.Duration, func() error, error) {
	settings, err := node.LoadAgentSettings(b.settings)
	if err != nil {
		return 0, nil, err
	}
	t0 := time.Now()
	ct, err := b.client.NewContainer(b.ctx, id,
		client.WithImage(b.img), client.WithSnapshotter("overlayfs"), client.WithNewSnapshot(id, b.img),
		client.WithRuntime("io.containerd.runc.v2", &options.Options{BinaryName: settings.OCIRuntime, Root: b.run}),
		client.WithNewSpec(oci.WithImageConfigArgs(b.img, command), oci.WithMemoryLimit(512<<20), oci.WithCPUCFS(25000, 100000),
			seccomp.WithDefaultProfile(), oci.WithCgroup(b.cgroup+"/"+id), oldVersion))
	if err != nil {
		return 0, nil, err
	}
	t, err := ct.NewTask(b.ctx, cio.NewCreator(cio.WithStreams(nil, io.Discard, io.Discard), cio.WithFIFODir(b.run)))
	if err != nil {
		return 0, nil, err
	}
	exited, err := t.Wait(b.ctx)
	if err != nil {
		return 0, nil, err
	}
	if err := t.Start(b.ctx); err != nil {
		return 0, nil, err
	}
	took := time.Since(t0)
	return took, func() error {
		if err := t.Kill(b.ctx, syscall.SIGKILL); err != nil {
			return err
		}
		<-exited
		_, err := t.Delete(b.ctx)
		return errors.Join(err, ct.Delete(b.ctx, client.WithSnapshotCleanup))
	}, nil
}

// docker is a daemon of its own, in a network namespace of its own, so that
// its firewall is the usual one and yet not this machine's.
type docker struct {
	cmd   *exec.Cmd
	ended chan struct{}
	run   string
	data  string
}

func installed() bool {
	_, err := exec.LookPath("dockerd")
	_, err2 := exec.LookPath("docker")
	return err == nil && err2 == nil
}

func newDocker(ctx context.Context, dir string, img v1.Image) (*docker, error) {
	run, err := os.MkdirTemp("/run", "bbd")
	if err != nil {
		return nil, err
	}
	d := &docker{run: run, data: filepath.Join(dir, "docker"), ended: make(chan struct{})}
	d.cmd = exec.Command("dockerd", "--data-root", d.data, "--exec-root", run+"/e", "--pidfile", run+"/pid", "-H", "unix://"+run+"/d.sock",
		"--bip", "10.253.251.1/24")
	logFile, err := os.Create(filepath.Join(run, "log"))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	d.cmd.Stdout, d.cmd.Stderr = logFile, logFile
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = d.cmd.Wait(); close(d.ended) }()
	for deadline := time.Now().Add(30 * time.Second); d.docker(ctx, "version").Run() != nil; {
		select {
		case <-d.ended:
			out, _ := os.ReadFile(filepath.Join(run, "log"))
			return nil, fmt.Errorf("dockerd ended:\n%s", out[max(0, len(out)-2000):])
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			d.close()
			return nil, errors.New("dockerd does not answer")
		}
	}
	file, err := saveImage(dir, img)
	if err == nil {
		err = output(d.docker(ctx, "load", "-i", file))
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *docker) docker(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "docker", append([]string{"-H", "unix://" + d.run + "/d.sock"}, args...)...)
}

func output(c *exec.Cmd) error {
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", c.Args, err, out)
	}
	return nil
}

func (d *docker) close() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.ended
	_ = os.RemoveAll(d.run)
}

// one is `docker run -p` to its first line of output.
func (d *docker) one(ctx context.Context, id string) (time.Duration, func() error, error) {
	t0 := time.Now()
	run := d.docker(ctx, append([]string{"run", "--name", id, "-p", "80", "--memory", "512m", "--cpus", "0.25", imageName}, command...)...)
	out, err := run.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	var stderr bytes.Buffer
	run.Stderr = &stderr
	if err := run.Start(); err != nil {
		return 0, nil, err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		_ = run.Wait()
		return 0, nil, fmt.Errorf("docker run: %w: %s", err, stderr.String())
	}
	took := time.Since(t0)
	return took, func() error {
		err := output(d.docker(ctx, "rm", "-f", id))
		_, _ = io.Copy(io.Discard, out)
		_ = run.Wait() // killed, and says so
		return err
	}, nil
}
