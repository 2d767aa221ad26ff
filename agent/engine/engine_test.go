package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/berth-run/berth/agent/credentials"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/agent/runtime/fake"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/dispatch/acs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const taskARN = "arn:aws:ecs:eu-west-1:111122223333:task/c/0123456789abcdef0123456789abcdef"

// lab is an engine over a runtime in memory; everything beyond is recorded.
type lab struct {
	t       *testing.T
	dir     string
	rt      *fake.Runtime
	engine  *Engine
	creds   *credentials.Store
	stop    func()
	pullErr error
	attach  func(ctx context.Context) error
	host    *Host // the instance; nil is Fargate

	mu     sync.Mutex
	told   []string // what the control plane was told
	submit error
	served int
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, dir: t.TempDir(), rt: fake.New(), attach: func(context.Context) error { return nil }}
	l.rt.AddImage("i", runtime.Image{Digest: "sha256:1", Config: runtime.ImageConfig{Env: []string{"PATH=/bin"}, Volumes: []string{"/data"}}})
	t.Cleanup(l.rt.Close)
	return l
}

// start starts an agent; stop ends it, and leaves the runtime as it is.
func (l *lab) start() {
	l.creds = &credentials.Store{}
	l.engine = New(Config{
		Runtime: l.rt, Images: l, Logs: l, Credentials: l.creds, Region: "eu-west-1", DataDir: l.dir,
		Enter:  func(ctx context.Context, eni string) (string, error) { return "/netns/" + eni, nil },
		Attach: func(ctx context.Context, eni string) (string, error) { return "/netns/" + eni, l.attach(ctx) },
		Serve: func(context.Context, string, *acs.ElasticNetworkInterface) (io.Closer, error) {
			l.count(1)
			return closer(func() { l.count(-1) }), nil
		},
		Submit:      l.Submit,
		Host:        l.host,
		CleanupWait: time.Minute,
		Log:         slog.New(slog.NewTextHandler(l.t.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	if err := l.engine.Recover(ctx); err != nil {
		l.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); l.engine.Run(ctx) }()
	l.stop = func() { cancel(); <-done }
}

type closer func()

func (c closer) Close() error { c(); return nil }

func (l *lab) count(n int) { l.mu.Lock(); l.served += n; l.mu.Unlock() }

func (l *lab) Pull(ctx context.Context, t *Task, c *Container) (runtime.Image, error) {
	if l.pullErr != nil {
		return runtime.Image{}, l.pullErr
	}
	return l.rt.Pull(ctx, runtime.Source{Reference: c.Def.Image}, "sha256:1", nil)
}

func (l *lab) Open(_ context.Context, _ *Task, _ *Container, _ bool) (Log, error) {
	return &nullLog{}, nil
}
func (l *lab) Remove(string) error { return nil }

type nullLog struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	outs []*runtime.Output
}

func (n *nullLog) Copy(o *runtime.Output) {
	n.mu.Lock()
	n.outs = append(n.outs, o)
	n.mu.Unlock()
	n.wg.Go(func() { io.Copy(io.Discard, o.Stdout) })
	n.wg.Go(func() { io.Copy(io.Discard, o.Stderr) })
}
func (n *nullLog) Drain(context.Context) error { n.wg.Wait(); return nil }
func (n *nullLog) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, o := range n.outs {
		o.Close()
	}
}

func (l *lab) Submit(_ context.Context, in *ecs.SubmitTaskStateChangeInput) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.submit != nil {
		return l.submit
	}
	s := "task " + wire.Value(in.Status)
	for _, a := range in.Attachments {
		s += "attachment " + *a.Status
	}
	if in.Reason != nil {
		s += " (" + *in.Reason + ")"
	}
	for _, c := range in.Containers {
		s += fmt.Sprintf(", %s %s", *c.ContainerName, *c.Status)
		if c.ExitCode != nil {
			s += fmt.Sprintf(" %d", *c.ExitCode)
		}
		if c.Reason != nil {
			s += " (" + *c.Reason + ")"
		}
		for _, b := range c.NetworkBindings {
			if b.HostPort != nil {
				s += fmt.Sprintf(" %s %d:%d", b.Protocol, *b.ContainerPort, *b.HostPort)
			} else {
				s += fmt.Sprintf(" %s %s:%s", b.Protocol, *b.ContainerPortRange, *b.HostPortRange)
			}
		}
	}
	l.told = append(l.told, s)
	return nil
}

func (l *lab) expect(want ...string) {
	l.t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := cmp.Diff(want, l.told); d != "" {
		l.t.Errorf("what the control plane was told (-want +got):\n%s", d)
	}
	l.told = nil
}

func (l *lab) id(name string) string { return runtimeID("0123456789abcdef0123456789abcdef", name) }

func (l *lab) apply(change func(*acs.Task), containers ...acs.Container) {
	l.t.Helper()
	def := acs.Task{
		Arn: taskARN, TaskClusterArn: "arn:cluster", Family: "f", Version: "1", DesiredStatus: "RUNNING", CPU: 0.25, Memory: 512, NetworkMode: "awsvpc",
		RoleCredentials: &acs.IAMRoleCredentials{CredentialsID: "role-id", AccessKeyID: "k"},
		ElasticNetworkInterfaces: []acs.ElasticNetworkInterface{{AttachmentArn: "arn:attachment", EC2ID: "eni-1", PrivateDNSName: "ip-10-0-0-5.ec2.internal",
			IPv4Addresses: []acs.IPv4Address{{Primary: true, PrivateAddress: "10.0.0.5"}}, DomainNameServers: []string{"10.0.0.2"}}},
		Containers: containers,
	}
	if change != nil {
		change(&def)
	}
	if err := l.engine.Apply(def); err != nil {
		l.t.Fatal(err)
	}
}

func app(name string) acs.Container { return acs.Container{Name: name, Image: "i", Essential: true} }

func TestRunAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.start()
		l.apply(nil, app("app"))
		l.expect("task attachment ATTACHED", "task RUNNING, app RUNNING")
		l.engine.Stop(taskARN)
		l.expect("task STOPPED, app STOPPED 143")
		if l.served != 0 {
			t.Error("the metadata endpoint is still in the task's namespace")
		}
		if _, err := os.Stat(filepath.Join(l.dir, "tasks", "0123456789abcdef0123456789abcdef.json")); err != nil {
			t.Error("the checkpoint went before the clean-up")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, dir := range []string{"tasks", "volumes"} {
			if left, _ := os.ReadDir(filepath.Join(l.dir, dir)); len(left) > 0 {
				t.Errorf("%s: %v is left", dir, left)
			}
		}
		if cs, _ := l.rt.List(t.Context(), nil); len(cs) > 0 {
			t.Errorf("containers are left: %v", cs)
		}
		if g, _ := l.rt.Groups(t.Context()); len(g) > 0 {
			t.Errorf("groups are left: %v", g)
		}
		if _, _, ok := l.creds.Get("role-id"); ok {
			t.Error("credentials are left")
		}
		l.stop()
	})
}

func TestStopTimeoutKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.rt.OnStart = func(ctx context.Context, p *fake.Process) int { <-ctx.Done(); return 137 }
		l.start()
		c := app("app")
		c.StopTimeout = 7
		l.apply(nil, c)
		l.expect("task attachment ATTACHED", "task RUNNING, app RUNNING")
		l.engine.Stop(taskARN)
		time.Sleep(7*time.Second - time.Millisecond)
		l.expect()
		time.Sleep(time.Millisecond)
		l.expect("task STOPPED, app STOPPED 137")
		l.stop()
	})
}

func TestEssentialExitStopsOthersInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.start()
		web, proxy := app("web"), app("proxy")
		proxy.Essential = false
		web.DependsOn = []acs.ContainerDependency{{ContainerName: "proxy", Condition: "START"}}
		extra := app("extra")
		l.apply(nil, web, proxy, extra)
		l.expect("task attachment ATTACHED", "task RUNNING, web RUNNING, proxy RUNNING, extra RUNNING")
		l.rt.Exit(l.id("extra"), 3, false)
		l.expect("task STOPPED, web STOPPED 143, proxy STOPPED 143, extra STOPPED 3")
		var kills []string
		for _, c := range l.rt.Calls() {
			if strings.HasPrefix(c, "Kill ") {
				kills = append(kills, c)
			}
		}
		want := []string{"Kill " + l.id("web") + " 15", "Kill " + l.id("proxy") + " 15"}
		if !slices.Equal(kills, want) {
			t.Errorf("kills: %v, want %v", kills, want)
		}
		l.stop()
	})
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(l *lab)
		task func(*acs.Task)
		want []string
	}{
		{name: "pull", set: func(l *lab) {
			l.pullErr = &ContainerError{Name: "CannotPullContainerError", Err: errors.New("pull image manifest has been retried 1 time(s): failed to resolve ref i: not found")}
		}, want: []string{"task attachment ATTACHED", "task STOPPED, app STOPPED (CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref i: not found)"}},
		{name: "registry auth", set: func(l *lab) {
			l.pullErr = &TaskError{Reason: "ResourceInitializationError: unable to pull secrets or registry auth: no"}
		}, want: []string{"task attachment ATTACHED", "task STOPPED (ResourceInitializationError: unable to pull secrets or registry auth: no), app STOPPED"}},
		{name: "start", set: func(l *lab) {
			l.rt.OnCall = func(op, _ string) error {
				if op == "Start" {
					return fmt.Errorf("no such file: %w", runtime.ErrInvalid)
				}
				return nil
			}
		}, want: []string{"task attachment ATTACHED", "task STOPPED, app STOPPED (CannotStartContainerError: no such file)"}},
		{name: "command", set: func(l *lab) {
			l.rt.OnCall = func(op, _ string) error {
				if op == "Create" {
					return fmt.Errorf("create container x: failed to create shim task: OCI runtime create failed: exec: \"x\": executable file not found in $PATH: unknown%w", hidden{runtime.ErrProcess})
				}
				return nil
			}
		}, want: []string{"task attachment ATTACHED", "task STOPPED, app STOPPED (CannotStartContainerError: ResourceInitializationError: failed to create new container runtime task: failed to create shim task: OCI runtime create failed: exec: \"x\": executable file not found in $PATH: unknown)"}},
		{name: "create", set: func(l *lab) {
			l.rt.OnCall = func(op, _ string) error {
				if op == "Create" {
					return errors.New("disk full")
				}
				return nil
			}
		}, want: []string{"task attachment ATTACHED", "task STOPPED, app STOPPED (CannotCreateContainerError: disk full)"}},
		{name: "interface", set: func(l *lab) {
			l.attach = func(context.Context) error {
				return &TaskError{Reason: "Timeout waiting for network interface provisioning to complete."}
			}
		}, want: []string{"task STOPPED (Timeout waiting for network interface provisioning to complete.), app STOPPED"}},
		{name: "secrets", task: func(d *acs.Task) { d.Containers[0].Secrets = []acs.Secret{{Name: "S"}} },
			want: []string{"task attachment ATTACHED", "task STOPPED (ResourceInitializationError: container app: secrets is not supported by this agent), app STOPPED"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				if c.set != nil {
					c.set(l)
				}
				l.start()
				l.apply(c.task, app("app"))
				synctest.Wait()
				// Whether ATTACHED is told first depends on what is quicker; it may be left out.
				l.mu.Lock()
				if len(l.told) > 0 && l.told[0] != "task attachment ATTACHED" && c.want[0] == "task attachment ATTACHED" {
					c.want = c.want[1:]
				}
				l.mu.Unlock()
				l.expect(c.want...)
				l.stop()
			})
		})
	}
}

func TestStopWhileInterfaceIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.attach = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		l.start()
		l.apply(nil, app("app"))
		l.expect()
		l.engine.Stop(taskARN)
		l.expect("task STOPPED, app STOPPED")
		l.stop()
	})
}

func TestUnrecognizedTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.start()
		err := l.engine.Apply(acs.Task{Arn: taskARN, DesiredStatus: "RUNNING", Containers: []acs.Container{{Name: "a", DockerConfig: &acs.DockerConfig{Config: "{"}}}})
		if err == nil {
			t.Error("the task was taken")
		}
		l.expect("task STOPPED (UnrecogniedTaskError: Error loading task - container a: decode config: unexpected end of JSON input)")
		l.stop()
	})
}

func TestDependencySuccessFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.rt.OnStart = func(ctx context.Context, p *fake.Process) int {
			if p.ID == l.id("init") {
				return 2
			}
			<-ctx.Done()
			return 137
		}
		l.start()
		init, web := app("init"), app("web")
		init.Essential = false
		web.DependsOn = []acs.ContainerDependency{{ContainerName: "init", Condition: "SUCCESS"}}
		l.apply(nil, init, web)
		l.expect("task attachment ATTACHED",
			"task STOPPED, init STOPPED 2, web STOPPED 143 (CannotStartContainerError: dependency graph: failed to resolve container ordering dependency [init(i) (STOPPED->RUNNING) - Exit: 2] for target [web(i) (CREATED->RUNNING)] as dependency did not exit successfully.)")
		l.stop()
	})
}

func TestRestartInPlaceIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.start()
		c := app("app")
		c.RestartPolicy = &acs.RestartPolicy{Enabled: true, RestartAttemptPeriod: 60, IgnoredExitCodes: []int64{9}}
		l.apply(nil, c)
		l.expect("task attachment ATTACHED", "task RUNNING, app RUNNING")
		time.Sleep(time.Minute)
		l.rt.Exit(l.id("app"), 1, false)
		l.expect()
		if _, c := l.engine.Lookup(l.id("app")); c.RestartCount != 1 || c.Phase != Running {
			t.Errorf("restarts %d, phase %v", c.RestartCount, c.Phase)
		}
		time.Sleep(time.Second)
		l.rt.Exit(l.id("app"), 1, false) // too soon
		l.expect("task STOPPED, app STOPPED 1")
		l.stop()
	})
}

func TestOutOfMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.start()
		l.apply(nil, app("app"))
		synctest.Wait()
		l.rt.Exit(l.id("app"), 137, true)
		l.expect("task attachment ATTACHED", "task RUNNING, app RUNNING",
			"task STOPPED, app STOPPED 137 (OutOfMemoryError: Container killed due to memory usage)")
		l.stop()
	})
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		var code atomic.Int64
		code.Store(1)
		l.rt.OnExec = func(_ context.Context, _ string, e runtime.Exec) (runtime.ExecResult, error) {
			if !slices.Equal(e.Args, []string{"/bin/sh", "-c", "check"}) {
				t.Errorf("probe ran %q", e.Args)
			}
			return runtime.ExecResult{ExitCode: int(code.Load()), Output: []byte("no")}, nil
		}
		l.start()
		c := app("app")
		c.HealthCheckType = "docker"
		c.DockerConfig, _ = acs.NewDockerConfig("", acs.Config{Healthcheck: &acs.Healthcheck{Test: []string{"CMD-SHELL", "check"}, Interval: 10 * time.Second, Retries: 2, StartPeriod: 15 * time.Second}}, acs.HostConfig{})
		l.apply(nil, c)
		for _, want := range []string{"UNKNOWN", "UNKNOWN", "UNKNOWN", "UNHEALTHY"} { // started; in the start period; one; two
			synctest.Wait()
			if _, c := l.engine.Lookup(l.id("app")); c.Health.Status != want {
				t.Errorf("health is %s after %v, want %s", c.Health.Status, time.Since(c.StartedAt), want)
			}
			time.Sleep(10 * time.Second)
		}
		code.Store(0)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if _, c := l.engine.Lookup(l.id("app")); c.Health.Status != "HEALTHY" {
			t.Errorf("health is %s after a success", c.Health.Status)
		}
		l.expect("task attachment ATTACHED", "task RUNNING, app RUNNING") // nothing of it over the API
		l.stop()
	})
}

// The control plane is away: the task runs and stops all the same, and what is
// told afterwards is what has become of it.
func TestControlPlaneAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.submit = errors.New("connection refused")
		l.start()
		l.apply(nil, app("app"))
		time.Sleep(time.Hour)
		l.rt.Exit(l.id("app"), 0, false)
		time.Sleep(time.Hour)
		l.mu.Lock()
		l.submit = nil
		l.mu.Unlock()
		time.Sleep(2 * time.Minute)
		l.expect("task attachment ATTACHED", "task RUNNING, app RUNNING", "task STOPPED, app STOPPED 0")
		l.stop()
	})
}

func TestAgentRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.start()
		web, side := app("web"), app("side")
		side.Essential = false
		l.apply(nil, web, side)
		l.expect("task attachment ATTACHED", "task RUNNING, web RUNNING, side RUNNING")
		_, before := l.engine.Lookup(l.id("web"))
		l.stop()
		if l.served != 0 {
			t.Error("an agent that ended still serves")
		}

		l.rt.Exit(l.id("side"), 5, false) // nobody is there to see it
		l.start()
		time.Sleep(2 * time.Second)
		l.expect("task RUNNING, side STOPPED 5")
		_, after := l.engine.Lookup(l.id("web"))
		if after.Pid != before.Pid || after.Phase != Running || l.served != 1 {
			t.Errorf("pid %d became %d, %v, served %d", before.Pid, after.Pid, after.Phase, l.served)
		}
		if c, _, ok := l.creds.Get("role-id"); !ok || c.AccessKeyID != "" {
			t.Error("credentials are neither expected nor absent")
		}
		l.stop()

		l.rt.Exit(l.id("web"), 0, false)
		l.start()
		l.expect("task STOPPED, web STOPPED 0")
		l.stop()
	})
}

func TestRestartOfTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.start()
		l.apply(nil, app("app"))
		l.expect("task attachment ATTACHED", "task RUNNING, app RUNNING")
		l.stop()
		l.rt.Delete(t.Context(), l.id("app"))
		l.start()
		l.expect("task STOPPED, app STOPPED (ContainerVanishedError: No container matching saved ID found)")
		l.stop()
	})
}

func TestUnknownContainersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.rt.Pull(t.Context(), runtime.Source{}, "sha256:1", nil)
		l.rt.CreateGroup(t.Context(), runtime.Group{Name: "gone"})
		l.rt.Create(t.Context(), runtime.Spec{ID: "gone", Group: "gone", Image: "sha256:1", Labels: map[string]string{LabelTask: "arn:x/gone"}})
		l.rt.Create(t.Context(), runtime.Spec{ID: "other", Image: "sha256:1"})
		os.MkdirAll(filepath.Join(l.dir, "volumes", "gone", "v-data"), 0o755)
		l.start()
		cs, _ := l.rt.List(t.Context(), nil)
		gs, _ := l.rt.Groups(t.Context())
		if len(cs) != 1 || cs[0].ID != "other" || len(gs) != 0 {
			t.Errorf("left: %v %v", cs, gs)
		}
		if _, err := os.Stat(filepath.Join(l.dir, "volumes", "gone")); err == nil {
			t.Error("volumes of no task are left")
		}
		l.stop()
	})
}

func TestSpec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.start()
		web, side := app("web"), app("side")
		web.Memory, web.Environment, web.Command = 256, map[string]string{"B": "2", "A": "1"}, []string{"serve"}
		web.MountPoints = []acs.MountPoint{{SourceVolume: "scratch", ContainerPath: "/scratch", ReadOnly: true}}
		web.DockerConfig, _ = acs.NewDockerConfig("1.41", acs.Config{User: "7"}, acs.HostConfig{
			Tmpfs: map[string]string{"/run": "rw,size=64m,noexec"}, Ulimits: []acs.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}, Init: new(true),
			ExtraHosts: []string{"six:fd00::1"}})
		side.VolumesFrom = []acs.VolumeFrom{{SourceContainer: "web"}}
		l.apply(func(d *acs.Task) { d.Volumes = []acs.Volume{{Name: "scratch", Type: "host", Host: &acs.HostVolume{}}} }, web, side)
		synctest.Wait()
		got, _ := l.rt.Spec(l.id("web"))
		id := l.id("web")
		dir := filepath.Join(l.dir, "volumes", "0123456789abcdef0123456789abcdef")
		anonymous := runtime.Mount{Kind: runtime.MountVolume, Source: filepath.Join(dir, id+".0"), Target: "/data"}
		scratch := runtime.Mount{Kind: runtime.MountVolume, Source: filepath.Join(dir, "v-scratch"), Target: "/scratch", ReadOnly: true}
		want := runtime.Spec{
			ID: id, Group: "0123456789abcdef0123456789abcdef", Image: "sha256:1", Command: []string{"serve"}, User: "7", NetNS: "/netns/eni-1",
			Labels: map[string]string{LabelTask: taskARN, LabelContainer: "web", LabelFamily: "f", LabelVersion: "1", LabelCluster: "arn:cluster"},
			Env: []string{"A=1", "B=2", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/role-id", "AWS_DEFAULT_REGION=eu-west-1", "AWS_REGION=eu-west-1",
				"ECS_AGENT_URI=http://169.254.170.2/api/" + id, "ECS_CONTAINER_METADATA_URI=http://169.254.170.2/v3/" + id, "ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/" + id},
			Hostname: "ip-10-0-0-5.ec2.internal", ResolvConf: []byte("nameserver 10.0.0.2\n"),
			Hosts:  []byte("127.0.0.1 localhost\n10.0.0.5 ip-10-0-0-5.ec2.internal ip-10-0-0-5\nfd00::1 six\n"),
			Mounts: []runtime.Mount{scratch, {Kind: runtime.MountTmpfs, Target: "/run", Size: 64 << 20, Options: []string{"rw", "noexec"}}, anonymous},
			Init:   true, Ulimits: []runtime.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}, Memory: 256 << 20, CPUShares: 2,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("spec (-want +got):\n%s", d)
		}
		if got, _ := l.rt.Spec(l.id("side")); len(got.Mounts) != 2 || !cmp.Equal(got.Mounts[0], scratch) || !cmp.Equal(got.Mounts[1], anonymous) {
			t.Errorf("mounts that were taken over: %v", got.Mounts)
		}
		if g, _ := l.rt.Group("0123456789abcdef0123456789abcdef"); g.CPUQuota != 25000 || g.Memory != 512<<20 {
			t.Errorf("group: %+v", g)
		}
		l.stop()
	})
}

// hidden is an error without a text.
type hidden struct{ error }

func (h hidden) Error() string { return "" }
func (h hidden) Unwrap() error { return h.error }
