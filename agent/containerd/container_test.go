package containerd_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth/agent/containerd"
	"github.com/berth-run/berth/agent/runtime"
)

var counter atomic.Int64

// box is a container of a test, and the events of it.
type box struct {
	t      *testing.T
	r      *containerd.Runtime
	id     string
	out    *runtime.Output
	stdout *bufio.Reader
	events <-chan runtime.Event
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// create makes a container with everything of spec that is set.
func create(t *testing.T, spec runtime.Spec) *box {
	t.Helper()
	b, err := tryCreate(t, spec)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tryCreate(t *testing.T, spec runtime.Spec) (*box, error) {
	t.Helper()
	if spec.ID == "" {
		spec.ID = fmt.Sprintf("c%d", counter.Add(1))
	}
	spec.Image = lab.digest
	b := &box{t: t, r: lab.r, id: spec.ID}
	ctx, cancel := context.WithCancel(context.Background())
	b.events = b.r.Events(ctx)
	t.Cleanup(func() {
		cancel()
		for range b.events {
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.r.Delete(ctx, b.id); err != nil {
			t.Error(err)
		}
		if b.out != nil {
			b.out.Close()
		}
	})
	if err := b.r.Create(testContext(t), spec); err != nil {
		return b, err
	}
	out, err := b.r.Output(t.Context(), b.id)
	if err != nil {
		t.Fatal(err)
	}
	b.attach(out)
	return b, nil
}

func (b *box) attach(out *runtime.Output) {
	if b.out != nil {
		b.out.Close()
	}
	b.out, b.stdout = out, bufio.NewReader(out.Stdout)
}

func (b *box) start() int {
	b.t.Helper()
	pid, err := b.r.Start(testContext(b.t), b.id)
	if err != nil {
		b.t.Fatal(err)
	}
	return pid
}

func (b *box) exit() runtime.Event {
	b.t.Helper()
	for {
		select {
		case e, ok := <-b.events:
			if !ok {
				b.t.Fatal("events ended")
			}
			if e.ID == b.id {
				return e
			}
		case <-testContext(b.t).Done():
			b.t.Fatal("no exit of " + b.id)
		}
	}
}

func (b *box) rest() string {
	b.t.Helper()
	return read(b.t, b.stdout)
}

func read(t *testing.T, r io.Reader) string {
	t.Helper()
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func (b *box) line() string {
	b.t.Helper()
	line, err := b.stdout.ReadString('\n')
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func (b *box) listed() runtime.Container {
	b.t.Helper()
	list, err := b.r.List(testContext(b.t), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range list {
		if c.ID == b.id {
			return c
		}
	}
	b.t.Fatalf("container %s is not listed", b.id)
	panic("unreachable")
}

func group(t *testing.T, g runtime.Group) string {
	t.Helper()
	g.Name = fmt.Sprintf("g%d", counter.Add(1))
	if err := lab.r.CreateGroup(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.r.DeleteGroup(context.Background(), g.Name); err != nil {
			t.Error(err)
		}
	})
	return g.Name
}

func TestLife(t *testing.T) {
	b := create(t, runtime.Spec{Command: []string{"out", "hello", "err", "sorry", "exit", "7"}, Labels: map[string]string{"task": "t1"}})
	if c := b.listed(); c.Status != runtime.StatusCreated || c.Labels["task"] != "t1" || len(c.Labels) != 1 || c.Image != lab.digest || !c.StartedAt.IsZero() {
		t.Errorf("created: %+v", c)
	}
	pid := b.start()
	e := b.exit()
	if e.ExitCode != 7 || e.Pid != pid || e.OOMKilled || e.ExitedAt.IsZero() {
		t.Errorf("exit event %+v, pid %d", e, pid)
	}
	if got := b.rest(); got != "hello\n" {
		t.Errorf("stdout %q", got)
	}
	if got := read(t, b.out.Stderr); got != "sorry\n" {
		t.Errorf("stderr %q", got)
	}
	c := b.listed()
	if c.Status != runtime.StatusExited || c.ExitCode != 7 || c.Pid != 0 || c.StartedAt.IsZero() || c.CreatedAt.IsZero() {
		t.Errorf("exited: %+v", c)
	}
	if err := b.r.Kill(t.Context(), b.id, syscall.SIGTERM); err != nil {
		t.Errorf("kill of an exited container: %v", err)
	}
	for range 2 {
		if err := b.r.Delete(testContext(t), b.id); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if err := b.r.Kill(t.Context(), b.id, syscall.SIGTERM); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("kill of nothing: %v", err)
	}
}

func TestDefaultsOfTheImage(t *testing.T) {
	b := create(t, runtime.Spec{})
	b.start()
	if got := b.rest(); got != "default\n" {
		t.Errorf("stdout %q", got)
	}
	img, err := lab.r.Image(t.Context(), lab.digest)
	if err != nil {
		t.Fatal(err)
	}
	if img.Config.StopSignal != "SIGUSR1" || img.Config.Healthcheck == nil || img.Config.Healthcheck.Interval != time.Second ||
		!slices.Equal(img.Config.Volumes, []string{"/data"}) || img.Names[0] != lab.ref || img.ID == "" || img.Size == 0 {
		t.Errorf("image: %+v", img)
	}
}

func TestKill(t *testing.T) {
	for _, c := range []struct {
		command string
		signals []syscall.Signal
		code    int
	}{
		{"wait", []syscall.Signal{syscall.SIGTERM}, 15},
		{"wait", []syscall.Signal{syscall.SIGUSR1}, 10},
		{"stubborn", []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}, 137},
	} {
		b := create(t, runtime.Spec{Command: []string{c.command}})
		b.start()
		b.line()
		for _, s := range c.signals {
			if err := b.r.Kill(t.Context(), b.id, s); err != nil {
				t.Fatal(err)
			}
		}
		if e := b.exit(); e.ExitCode != c.code {
			t.Errorf("%s after %v: exit code %d, want %d", c.command, c.signals, e.ExitCode, c.code)
		}
	}
}

type about struct {
	Args           []string
	Env            []string
	Wd, Host       string
	Pid, UID, GID  int
	Groups         []int
	Nofile, Shm    int64
	CapEff, CapBnd string
	Seccomp, Nnp   string
}

func (b *box) about() about {
	b.t.Helper()
	b.start()
	var a about
	if err := json.Unmarshal([]byte(b.rest()), &a); err != nil {
		b.t.Fatal(err)
	}
	return a
}

func TestWhatAProcessSees(t *testing.T) {
	a := create(t, runtime.Spec{
		Command: []string{"about"}, Env: []string{"BOTH=mine", "OWN=1"}, Hostname: "ip-10-0-0-7",
		Ulimits: []runtime.Ulimit{{Name: "nofile", Soft: 1000, Hard: 2000}}, ShmSize: 1 << 20,
	}).about()
	for _, want := range []string{"FROM=image", "BOTH=mine", "OWN=1", "HOSTNAME=ip-10-0-0-7", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"} {
		if !slices.Contains(a.Env, want) {
			t.Errorf("environment lacks %s: %q", want, a.Env)
		}
	}
	if a.Wd != "/tmp" || a.Host != "ip-10-0-0-7" || a.Pid != 1 || a.UID != 0 || a.Nofile != 2000 || a.Shm != 1<<20 {
		t.Errorf("%+v", a)
	}
	if a.CapEff != "00000000a80425fb" || a.CapBnd != "00000000a80425fb" {
		t.Errorf("capabilities %s %s are not docker's", a.CapEff, a.CapBnd)
	}
	if a.Seccomp != "2" || a.Nnp != "0" {
		t.Errorf("seccomp %s, no new privileges %s", a.Seccomp, a.Nnp)
	}
	if !slices.Equal(a.Groups, []int{6}) {
		t.Errorf("root's groups: %v", a.Groups)
	}

	a = create(t, runtime.Spec{
		Command: []string{"about"}, User: "web", WorkingDir: "/srv/app", CapDrop: []string{"ALL"}, CapAdd: []string{"NET_ADMIN"},
		NoNewPrivileges: true, Unconfined: true,
	}).about()
	if a.UID != 1000 || a.GID != 1001 || !slices.Contains(a.Groups, 50) || a.Wd != "/srv/app" || a.CapEff != "0000000000000000" || a.CapBnd != "0000000000001000" || a.Seccomp != "0" || a.Nnp != "1" {
		t.Errorf("%+v", a)
	}

	a = create(t, runtime.Spec{Command: []string{"about"}, User: "4711:50", Privileged: true}).about()
	if a.UID != 4711 || a.GID != 50 || a.Seccomp != "0" {
		t.Errorf("%+v", a)
	}
}

func TestErrorsOfASpec(t *testing.T) {
	for name, c := range map[string]struct {
		spec runtime.Spec
		is   error
		says string
	}{
		"unknown command": {runtime.Spec{Entrypoint: []string{"/nope"}}, runtime.ErrProcess, `exec: "/nope": stat /nope: no such file or directory`},
		"not executable":  {runtime.Spec{Entrypoint: []string{"/data/from-image"}}, runtime.ErrProcess, "permission denied"},
		"unknown user":    {runtime.Spec{User: "ghost"}, runtime.ErrInvalid, "unable to find user ghost: no matching entries in passwd file"},
		"capability":      {runtime.Spec{CapAdd: []string{"FLY"}}, runtime.ErrInvalid, "FLY"},
		"bind source":     {runtime.Spec{Mounts: []runtime.Mount{{Kind: runtime.MountBind, Source: "/no/such", Target: "/x"}}}, runtime.ErrProcess, "/no/such"},
		"image":           {runtime.Spec{Image: "x"}, nil, ""},
		"id":              {runtime.Spec{ID: "../x"}, runtime.ErrInvalid, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "image" {
				err := lab.r.Create(t.Context(), runtime.Spec{ID: "noimage", Image: "sha256:" + strings.Repeat("0", 64)})
				if !errors.Is(err, runtime.ErrNotFound) {
					t.Error(err)
				}
				return
			}
			if name == "id" {
				if err := lab.r.Create(t.Context(), c.spec); !errors.Is(err, c.is) {
					t.Error(err)
				}
				return
			}
			b, err := tryCreate(t, c.spec)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
			list, err := lab.r.List(t.Context(), nil)
			if err != nil || slices.ContainsFunc(list, func(c runtime.Container) bool { return c.ID == b.id }) {
				t.Errorf("left behind: %v %v", list, err)
			}
		})
	}
	b := create(t, runtime.Spec{Command: []string{"wait"}})
	b.start()
	b.line()
	if err := lab.r.Create(t.Context(), runtime.Spec{ID: b.id, Image: lab.digest}); !errors.Is(err, runtime.ErrExists) {
		t.Error(err)
	}
	if err := b.r.Kill(t.Context(), b.id, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.ExitCode != 15 {
		t.Errorf("the second create disturbed the first container: %+v", e)
	}
}

func TestMounts(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	volume := filepath.Join(lab.dir, "volume")
	b := create(t, runtime.Spec{
		ReadonlyRootfs: true, Hosts: []byte("10.0.0.7 me\n"), ResolvConf: []byte("nameserver 10.0.0.2\n"), Hostname: "me",
		Mounts: []runtime.Mount{
			{Kind: runtime.MountTmpfs, Target: "/scratch", Size: 1 << 20},
			{Kind: runtime.MountBind, Source: host, Target: "/host", ReadOnly: true},
			{Kind: runtime.MountVolume, Source: volume, Target: "/data"},
		},
		Command: []string{"cat", "/host/f", "out", "", "try", "/host/x", "try", "/x", "try", "/scratch/x", "try", "/data/x",
			"cat", "/data/from-image", "out", "", "cat", "/etc/hosts", "cat", "/etc/resolv.conf", "cat", "/etc/hostname", "try", "/proc/sys/kernel/hostname"},
	})
	b.start()
	want := "host\nread-only file system\nread-only file system\nwritten\nwritten\nimage\n10.0.0.7 me\nnameserver 10.0.0.2\nme\nread-only file system\n"
	if got := b.rest(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got, err := os.ReadFile(filepath.Join(volume, "x")); err != nil || string(got) != "x" {
		t.Errorf("volume: %q %v", got, err)
	}
}

func TestInitReapsAndForwards(t *testing.T) {
	b := create(t, runtime.Spec{Init: true, Command: []string{"orphan", "sleep", "100", "zombies", "wait"}})
	b.start()
	if got := b.line(); got != "zombies 0" {
		t.Errorf("with init: %q", got)
	}
	b.line()
	if err := b.r.Kill(t.Context(), b.id, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.ExitCode != 15 {
		t.Errorf("%+v", e)
	}
}

func TestStartInPlace(t *testing.T) {
	b := create(t, runtime.Spec{Command: []string{"append", "/count", "x", "cat", "/count", "out", "", "exit", "3"}})
	for i := 1; i <= 3; i++ {
		b.start()
		if e := b.exit(); e.ExitCode != 3 {
			t.Fatalf("run %d: %+v", i, e)
		}
		if i > 1 {
			out, err := b.r.Output(t.Context(), b.id)
			if err != nil {
				t.Fatal(err)
			}
			b.attach(out)
		}
		if got, want := b.rest(), strings.Repeat("x", i)+"\n"; got != want {
			t.Errorf("run %d: %q, want %q", i, got, want)
		}
	}
}

func TestStartOfARunningContainer(t *testing.T) {
	b := create(t, runtime.Spec{Command: []string{"wait"}})
	if first, again := b.start(), b.start(); first != again {
		t.Errorf("pids %d and %d", first, again)
	}
	if _, err := b.r.Start(testContext(t), "nobody"); !errors.Is(err, runtime.ErrNotFound) {
		t.Error(err)
	}
}

func TestGroupLimits(t *testing.T) {
	g := group(t, runtime.Group{Memory: 64 << 20, CPUQuota: 20_000, Pids: 100})
	memory := ""
	for _, d := range cgroupDirs(lab.cg + "/" + g) {
		for _, f := range []string{"memory.max", "memory.limit_in_bytes"} {
			if b, err := os.ReadFile(filepath.Join(d, f)); err == nil {
				memory = strings.TrimSpace(string(b))
			}
		}
	}
	if memory != "67108864" {
		t.Errorf("memory limit %q", memory)
	}
	ok := create(t, runtime.Spec{Group: g, Command: []string{"alloc", "16", "spin", "400", "sleep", "60000"}})
	ok.start()
	ok.line()
	hog := create(t, runtime.Spec{Group: g, Command: []string{"alloc", "200"}, OOMScoreAdj: 500})
	hog.start()
	if e := hog.exit(); !e.OOMKilled || e.ExitCode != 137 {
		t.Errorf("hog: %+v", e)
	}
	if c := hog.listed(); !c.OOMKilled {
		t.Errorf("hog listed as %+v", c)
	}
	if c := ok.listed(); c.Status != runtime.StatusRunning || c.OOMKilled || c.Group != g {
		t.Errorf("its neighbour: %+v", c)
	}
	// A 5th of a CPU: 400 ms of spinning take 2 s, throttled on the way. The
	// counters say so without a clock.
	throttled := uint64(0)
	for _, d := range cgroupDirs(lab.cg + "/" + g) {
		b, _ := os.ReadFile(filepath.Join(d, "cpu.stat"))
		for line := range strings.Lines(string(b)) {
			fmt.Sscanf(line, "nr_throttled %d", &throttled)
		}
	}
	if throttled == 0 {
		t.Error("the group was never throttled")
	}
	if err := lab.r.DeleteGroup(t.Context(), g); err == nil {
		t.Error("a group with containers was deleted")
	}
	// Limits of an existing group change.
	if err := lab.r.CreateGroup(t.Context(), runtime.Group{Name: g, Memory: 96 << 20}); err != nil {
		t.Error(err)
	}
}

func TestContainerMemoryLimit(t *testing.T) {
	b := create(t, runtime.Spec{Memory: 32 << 20, Command: []string{"alloc", "100"}})
	b.start()
	if e := b.exit(); !e.OOMKilled || e.ExitCode != 137 {
		t.Errorf("%+v", e)
	}
}

func TestOneShimPerGroup(t *testing.T) {
	before := len(shims(lab.run))
	g := group(t, runtime.Group{})
	a := create(t, runtime.Spec{Group: g, Command: []string{"wait"}})
	b := create(t, runtime.Spec{Group: g, Command: []string{"wait"}})
	a.start()
	b.start()
	if n := len(shims(lab.run)) - before; n != 1 {
		t.Errorf("%d shims for two containers of a group", n)
	}
}

func TestExec(t *testing.T) {
	b := create(t, runtime.Spec{Command: []string{"wait"}, Env: []string{"A=1"}})
	b.start()
	b.line()
	ctx := testContext(t)
	res, err := b.r.Exec(ctx, b.id, runtime.Exec{Args: []string{"/tiny", "out", "one", "err", "two", "exit", "3"}})
	if err != nil || res.ExitCode != 3 || (string(res.Output) != "one\ntwo\n" && string(res.Output) != "two\none\n") || res.Truncated {
		t.Errorf("%+v %q %v", res, res.Output, err)
	}
	res, err = b.r.Exec(ctx, b.id, runtime.Exec{Args: []string{"/tiny", "about"}, Env: []string{"B=2"}, User: "web", WorkingDir: "/"})
	var a about
	if err != nil || json.Unmarshal(res.Output, &a) != nil || a.UID != 1000 || a.Wd != "/" || !slices.Contains(a.Env, "A=1") || !slices.Contains(a.Env, "B=2") || a.CapEff != "0000000000000000" {
		t.Errorf("%s %v", res.Output, err)
	}
	res, err = b.r.Exec(ctx, b.id, runtime.Exec{Args: []string{"/tiny", "flood", "300000", "exit", "4"}, Limit: 100})
	if err != nil || res.ExitCode != 4 || len(res.Output) != 100 || !res.Truncated {
		t.Errorf("%d %d bytes %v", res.ExitCode, len(res.Output), err)
	}
	if _, err = b.r.Exec(ctx, b.id, runtime.Exec{Args: []string{"/nope"}}); !errors.Is(err, runtime.ErrProcess) {
		t.Errorf("%v", err)
	}
	short, cancel := context.WithCancel(ctx)
	time.AfterFunc(200*time.Millisecond, cancel)
	if res, err = b.r.Exec(short, b.id, runtime.Exec{Args: []string{"/tiny", "out", "before", "stubborn"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("%q %v", res.Output, err)
	}
	// Of all that was exec'd nothing is left: the first process and this one.
	if res, err = b.r.Exec(ctx, b.id, runtime.Exec{Args: []string{"/tiny", "pids"}}); err != nil || string(res.Output) != "2\n" {
		t.Errorf("processes: %q %v", res.Output, err)
	}
	if err := b.r.Kill(ctx, b.id, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.exit()
	if _, err = b.r.Exec(ctx, b.id, runtime.Exec{Args: []string{"/tiny"}}); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("exec in an exited container: %v", err)
	}
	if _, err = b.r.Exec(ctx, "nobody", runtime.Exec{Args: []string{"/tiny"}}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("exec in none: %v", err)
	}
}

func TestStats(t *testing.T) {
	g := group(t, runtime.Group{Memory: 128 << 20})
	b := create(t, runtime.Spec{Group: g, Command: []string{"alloc", "20", "spin", "100", "out", "ready", "wait"}, PidsLimit: 50})
	b.start()
	b.line()
	b.line()
	s, err := b.r.Stats(testContext(t), b.id)
	if err != nil {
		t.Fatal(err)
	}
	if s.CPU.Total < uint64(50*time.Millisecond) || s.CPU.System == 0 || s.CPU.OnlineCPUs == 0 {
		t.Errorf("cpu %+v", s.CPU)
	}
	if s.Memory.Usage < 20<<20 || s.Memory.Usage > 128<<20 || s.Memory.Stats["pgfault"] == 0 {
		t.Errorf("memory %+v", s.Memory)
	}
	if s.Pids.Current == 0 || s.Pids.Limit != 50 {
		t.Errorf("pids %+v", s.Pids)
	}
	if err := b.r.Kill(t.Context(), b.id, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.exit()
	if _, err := b.r.Stats(testContext(t), b.id); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("%v", err)
	}
}

// TestDaemonKilled: containers live on, output is not lost, an exit in the
// meantime is told by the stream that was open all along.
func TestDaemonKilled(t *testing.T) {
	stays := create(t, runtime.Spec{Command: []string{"lines", "200", "wait"}, Labels: map[string]string{"k": "stays"}})
	goes := create(t, runtime.Spec{Command: []string{"wait"}})
	pid := stays.start()
	goesPid := goes.start()
	goes.line()
	lab.killDaemon()
	if err := syscall.Kill(goesPid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := lab.startDaemon(); err != nil {
		t.Fatal(err)
	}
	if e := goes.exit(); e.ExitCode != 15 {
		t.Errorf("%+v", e)
	}
	c := stays.listed()
	if c.Status != runtime.StatusRunning || c.Pid != pid || c.Labels["k"] != "stays" || c.StartedAt.IsZero() {
		t.Errorf("pid was %d: %+v", pid, c)
	}
	// A second agent adopts it and reads where the first one stopped.
	r2, err := lab.runtime()
	if err != nil {
		t.Fatal(err)
	}
	defer r2.Close()
	line := make([]byte, len("line 0\nline 1\nline 2\n"))
	if _, err := io.ReadFull(stays.out.Stdout, line); err != nil {
		t.Fatal(err)
	}
	stays.out.Close()
	out, err := r2.Output(t.Context(), stays.id)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	rest := bufio.NewReader(out.Stdout)
	got := string(line)
	for !strings.HasSuffix(got, "waiting\n") {
		l, err := rest.ReadString('\n')
		got += l
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
	}
	var want bytes.Buffer
	for i := range 200 {
		fmt.Fprintln(&want, "line", i)
	}
	if got != want.String()+"waiting\n" {
		t.Errorf("output with a hole: %q", got)
	}
	if err := r2.Kill(testContext(t), stays.id, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if e := stays.exit(); e.Pid != pid {
		t.Errorf("%+v", e)
	}
}

// TestShimKilled: without its shim a container is dead, and its exit is told.
func TestShimKilled(t *testing.T) {
	g := group(t, runtime.Group{})
	before := shims(lab.run)
	b := create(t, runtime.Spec{Group: g, Command: []string{"wait"}})
	b.start()
	for _, pid := range shims(lab.run) {
		if !slices.Contains(before, pid) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if e := b.exit(); e.ExitCode != 137 {
		t.Errorf("%+v", e)
	}
}

// TestEventsOfThePast: a stream that is opened late tells what has exited.
func TestEventsOfThePast(t *testing.T) {
	b := create(t, runtime.Spec{Command: []string{"exit", "5"}})
	b.start()
	b.exit()
	ctx, cancel := context.WithCancel(t.Context())
	late := lab.r.Events(ctx)
	for e := range late {
		if e.ID == b.id {
			if e.ExitCode != 5 {
				t.Errorf("%+v", e)
			}
			break
		}
	}
	cancel()
	for range late {
	}
}

// TestManyAtOnce: no call holds up another container's.
func TestManyAtOnce(t *testing.T) {
	const n = 12
	g := group(t, runtime.Group{})
	done := make(chan error, n)
	boxes := make([]string, n)
	ctx := testContext(t)
	for i := range n {
		boxes[i] = fmt.Sprintf("many%d", i)
		go func() {
			done <- func() error {
				id := boxes[i]
				if err := lab.r.Create(ctx, runtime.Spec{ID: id, Group: g, Image: lab.digest, Command: []string{"out", id}}); err != nil {
					return err
				}
				out, err := lab.r.Output(ctx, id)
				if err != nil {
					return err
				}
				defer out.Close()
				if _, err := lab.r.Start(ctx, id); err != nil {
					return err
				}
				b, err := io.ReadAll(out.Stdout)
				if err == nil && string(b) != id+"\n" {
					err = fmt.Errorf("%s said %q", id, b)
				}
				return err
			}()
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for _, id := range boxes {
		if err := lab.r.Delete(ctx, id); err != nil {
			t.Error(err)
		}
	}
}

// TestExecLeavesNoOrphans: a process whose caller has gone ends with those it
// has started, though they hold its output, and the caller is not held up.
func TestTerminal(t *testing.T) {
	b := create(t, runtime.Spec{Command: []string{"wait"}, Env: []string{"A=1"}})
	b.start()
	b.line()
	ctx := testContext(t)
	term, err := b.r.Terminal(ctx, b.id, runtime.Exec{Args: []string{"/tiny", "echo"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := term.Resize(ctx, 132, 43); err != nil {
		t.Error(err)
	}
	if _, err := term.Write([]byte("hello\nexit\n")); err != nil {
		t.Error(err)
	}
	said, err := io.ReadAll(term)
	// The terminal itself repeats what is typed.
	if want := "hello\r\nexit\r\n"; err != nil || !strings.Contains(string(said), want) || !strings.Contains(string(said), "43x132 hello\r\n") {
		t.Errorf("the terminal says %q, %v", said, err)
	}
	if code, err := term.Code(); err != nil || code != 7 {
		t.Errorf("it ended with %d, %v", code, err)
	}
	if err := term.Close(); err != nil {
		t.Error(err)
	}
	// One that is closed ends what it runs.
	if term, err = b.r.Terminal(ctx, b.id, runtime.Exec{Args: []string{"/tiny", "hold", "60000", "stubborn"}}); err != nil {
		t.Fatal(err)
	}
	if err := term.Close(); err != nil {
		t.Error(err)
	}
	<-term.Ended()
	if _, err := b.r.Terminal(ctx, b.id, runtime.Exec{Args: []string{"/nope"}}); !errors.Is(err, runtime.ErrProcess) {
		t.Errorf("%v", err)
	}
	b.alone()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) { // removed behind the caller
		left, err := filepath.Glob(filepath.Join(lab.run, "a", "c", b.id, "[tx]*"))
		if err == nil && len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("left: %v %v", left, err)
		}
	}
}

func TestExecLeavesNoOrphans(t *testing.T) {
	b := create(t, runtime.Spec{Command: []string{"wait"}})
	b.start()
	b.line()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := b.r.Exec(ctx, b.id, runtime.Exec{Args: []string{"/tiny", "hold", "60000", "write", "/tmp/spawned", "x", "stubborn"}})
		result <- err
	}()
	root := fmt.Sprintf("/proc/%d/root", b.listed().Pid)
	for { // the exec'd process says that it is there
		if _, err := os.Stat(root + "/tmp/spawned"); err == nil {
			break
		}
		select {
		case err := <-result:
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	b.alone()
}

// TestExecMayEndAtAnyMoment: the same at whatever point of its way the caller
// goes.
func TestExecMayEndAtAnyMoment(t *testing.T) {
	b := create(t, runtime.Spec{Command: []string{"wait"}})
	b.start()
	b.line()
	all := testContext(t)
	for n := range 24 {
		ctx, cancel := context.WithTimeout(all, time.Duration(n)*8*time.Millisecond)
		res, err := b.r.Exec(ctx, b.id, runtime.Exec{Args: []string{"/tiny", "hold", "60000", "stubborn"}})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v %v", res, err)
		}
	}
	b.alone()
}

// alone fails if the container has more processes than its first.
func (b *box) alone() {
	b.t.Helper()
	for _, d := range cgroupDirs(lab.cg + "/" + b.id) {
		procs, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		if err == nil && len(strings.Fields(string(procs))) > 1 {
			b.t.Errorf("processes in %s: %q", d, procs)
		}
	}
}

// TestContainerKeepsItsRuntime: an agent that makes containers with another OCI
// runtime goes on with those that are there.
func TestContainerKeepsItsRuntime(t *testing.T) {
	b := create(t, runtime.Spec{Command: []string{"wait"}})
	b.start()
	b.line()
	mine := ociRuntime
	ociRuntime = map[string]string{"runc": "crun", "crun": "runc"}[mine]
	next, err := lab.runtime()
	ociRuntime = mine
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	ctx := testContext(t)
	if res, err := next.Exec(ctx, b.id, runtime.Exec{Args: []string{"/tiny", "exit", "3"}}); err != nil || res.ExitCode != 3 {
		t.Errorf("%+v %v", res, err)
	}
	for range 2 { // as it is, and started again
		if err := next.Kill(ctx, b.id, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := b.exit(); e.ExitCode != 137 {
			t.Errorf("%+v", e)
		}
		if _, err := next.Start(ctx, b.id); err != nil {
			t.Fatal(err)
		}
	}
	if err := next.Delete(ctx, b.id); err != nil {
		t.Error(err)
	}
}
