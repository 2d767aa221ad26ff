// Package agent is the ECS agent: it makes a machine, or the part of one, a
// container instance. It talks to its control plane by Amazon's own protocol
// only and works with any control plane that speaks it.
//
// This package wires the parts and registers the instance. What it must never
// do is wait: containers are supervised from the first moment, whether the
// control plane answers or not, and they run on when the agent ends.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/agent/credentials"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/gateway"
	"github.com/berth-run/berth/agent/images"
	"github.com/berth-run/berth/agent/logs"
	"github.com/berth-run/berth/agent/metadata"
	"github.com/berth-run/berth/agent/netns"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/agent/session"
	"github.com/berth-run/berth/agent/stats"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/dispatch/acs"
)

// Config says what an agent is.
type Config struct {
	Endpoint             string          // required: base URL of the API
	Region               string          // required
	Cluster              string          // required: name or ARN
	ContainerInstanceARN string          // "" registers a new instance
	CredentialsFile      string          // required: JSON, replaced by somebody else before it expires
	DataDir              string          // required: checkpoints, volumes, logs
	NetnsDir             string          // required for awsvpc: namespaces and their ready markers
	Runtime              runtime.Runtime // required
	CPU, Memory          int             // what the instance offers: CPU units, MiB
	Zone                 string          // shown to tasks whose payload names none
	Instance             *Instance       // nil: Fargate's hidden agent
	Registration         *Registration   // what a real instance says of itself beside
	CleanupWait          time.Duration   // how long a stopped task's containers are kept
	Log                  *slog.Logger    // required
}

// interfaceWait is how long a task's network interface may take to appear.
const interfaceWait = 3 * time.Minute

// Run is the agent's life. It returns when ctx is done, or when the control
// plane refuses the instance for good.
func Run(ctx context.Context, cfg Config) error {
	client, err := api.New(cfg.Endpoint, cfg.Region)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	self := api.FromFile(cfg.CredentialsFile)
	creds := &credentials.Store{}
	pulls := images.New(cfg.Runtime, client, self, creds, cfg.Log)
	sampler := stats.New(cfg.Runtime, cfg.Log)
	tmds := &metadata.Server{
		Credentials: creds, Stats: sampler.Read, ContainerInstance: cfg.ContainerInstanceARN, Zone: cfg.Zone, Log: cfg.Log,
		Tags: func(ctx context.Context, arn string) ([]ecs.Tag, error) {
			var out ecs.ListTagsForResourceOutput
			err := client.Call(ctx, self, api.ECS, "ListTagsForResource", &ecs.ListTagsForResourceInput{ResourceArn: new(arn)}, &out)
			return out.Tags, err
		},
		Protection: func(ctx context.Context, t *engine.Task, in *ecs.UpdateTaskProtectionInput) (*ecs.UpdateTaskProtectionOutput, error) {
			return protection(ctx, client, creds, t, in)
		},
	}
	doors := &netns.Doors{}
	door, target := "", ""
	if u, err := url.Parse(cfg.Endpoint); err == nil {
		target = u.Host
	}
	if door, err = gateway.Address(cfg.Endpoint); err != nil {
		cfg.Log.Warn("tasks cannot reach the API by their own address", "err", err)
	}
	var tasks atomic.Pointer[engine.Engine]
	tmds.Tasks = lookup{&tasks}
	serve := func(ctx context.Context, task string, eni *acs.ElasticNetworkInterface) (io.Closer, error) {
		client, err := netip.ParseAddr(eni.PrimaryIPv4())
		if err != nil {
			return nil, fmt.Errorf("address of %s: %w", eni.EC2ID, err)
		}
		vpc := readyMarker(cfg.NetnsDir, eni.EC2ID)
		l, err := doors.Listen(ctx, vpc, metadata.Address, client)
		if err != nil {
			return nil, err
		}
		served := closers{tmds.Serve(task, l)}
		if door == "" {
			return served, nil
		}
		if l, err = doors.Listen(ctx, vpc, door, client); err != nil {
			return nil, errors.Join(err, served.Close())
		}
		return append(served, gateway.Serve(l, target, cfg.Log)), nil
	}
	var host *engine.Host
	if cfg.Instance != nil {
		around, err := surround(ctx, cfg.Instance, door, target, tmds, tasks.Load, cfg)
		if err != nil {
			return fmt.Errorf("network of the instance: %w", err)
		}
		defer around.Close()
		host, serve = around.host, around.serve(cfg.NetnsDir)
	}
	eng := engine.New(engine.Config{
		Runtime: cfg.Runtime, Images: pulls, Credentials: creds,
		Logs: &logs.Manager{API: client, Instance: self, Credentials: creds, Dir: filepath.Join(cfg.DataDir, "logs"), Log: cfg.Log},
		Enter: func(ctx context.Context, eni string) (string, error) {
			path, err := namespace(cfg.NetnsDir, eni)
			if err != nil {
				return "", err
			}
			return path, await(ctx, netns.AwaitNamespace, path)
		},
		Attach: func(ctx context.Context, eni string) (string, error) {
			path, err := namespace(cfg.NetnsDir, eni)
			if err != nil {
				return "", err
			}
			return path, await(ctx, netns.Await, readyMarker(cfg.NetnsDir, eni))
		},
		Serve: serve, Host: host,
		Submit: func(ctx context.Context, in *ecs.SubmitTaskStateChangeInput) error {
			if in.Cluster == nil {
				in.Cluster = new(cfg.Cluster)
			}
			return client.Call(ctx, self, api.ECS, "SubmitTaskStateChange", in, nil)
		},
		Region: cfg.Region, DataDir: cfg.DataDir, CleanupWait: cfg.CleanupWait, Log: cfg.Log,
	})
	tasks.Store(eng)
	if err := eng.Recover(ctx); err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return eng.Run(ctx) })
	g.Go(func() error { return sampler.Run(ctx, func() []stats.Container { return running(eng) }) })
	g.Go(func() error { return pulls.Run(ctx, func() map[string]bool { return inUse(eng) }) })
	g.Go(func() error {
		arn, err := register(ctx, client, self, cfg)
		if err != nil {
			return err
		}
		if arn == "" {
			return nil // ctx is done
		}
		if err := cfg.Registration.keep(arn); err != nil {
			return err
		}
		instance := session.Instance{Cluster: cfg.Cluster, ARN: arn, API: client, Creds: self}
		endpoints := session.NewEndpoints(instance)
		g.Go(func() error {
			return (&session.ACS{
				Instance: instance, Endpoints: endpoints, Tasks: eng, Credentials: creds,
				Timeline: timeline(filepath.Join(cfg.DataDir, "timeline")), Log: cfg.Log,
			}).Run(ctx)
		})
		g.Go(func() error {
			return (&session.TCS{
				Instance: instance, Endpoints: endpoints, Tasks: eng, Changed: eng.Changed(), Metrics: sampler.Take, Log: cfg.Log,
			}).Run(ctx)
		})
		return nil
	})
	return g.Wait()
}

// lookup finds containers in an engine that may not be there yet: those of an
// earlier agent ask at once.
type lookup struct {
	engine *atomic.Pointer[engine.Engine]
}

func (l lookup) Lookup(id string) (*engine.Task, *engine.Container) {
	if e := l.engine.Load(); e != nil {
		return e.Lookup(id)
	}
	return nil, nil
}

// closers are closed together.
type closers []io.Closer

func (cs closers) Close() error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// readyMarker is there while an interface works. It points to the namespace of
// the interface's VPC.
func readyMarker(dir, eni string) string { return filepath.Join(dir, eni+".ready") }

// namespace is where the data plane mounts the namespace of an interface.
func namespace(dir, eni string) (string, error) {
	path := filepath.Join(dir, eni)
	if !filepath.IsLocal(eni) || filepath.Base(path) != eni {
		return "", fmt.Errorf("%q is not an interface's id", eni)
	}
	return path, nil
}

// await waits for what the data plane makes of an interface.
func await(ctx context.Context, made func(context.Context, string) error, path string) error {
	timeout := &engine.TaskError{Reason: "Timeout waiting for network interface provisioning to complete."}
	ctx, cancel := context.WithTimeoutCause(ctx, interfaceWait, timeout)
	defer cancel()
	return made(ctx, path)
}

// running lists the containers whose counters are worth reading.
func running(eng *engine.Engine) (out []stats.Container) {
	for _, t := range eng.Tasks() {
		for _, c := range t.Containers {
			if c.Phase == engine.Running {
				out = append(out, stats.Container{ID: c.RuntimeID, Name: c.Def.Name, Arn: c.Def.ContainerArn, Sharing: uint64(len(t.Containers))})
			}
		}
	}
	return out
}

// inUse names the images of all tasks, by digest.
func inUse(eng *engine.Engine) map[string]bool {
	used := map[string]bool{}
	for _, t := range eng.Tasks() {
		for _, c := range t.Containers {
			if c.Digest != "" {
				used[c.Digest] = true
			}
		}
	}
	return used
}

// protection reads or changes a task's protection as the task's own role.
func protection(ctx context.Context, client *api.Client, creds *credentials.Store, t *engine.Task, in *ecs.UpdateTaskProtectionInput) (*ecs.UpdateTaskProtectionOutput, error) {
	c, err := creds.Await(ctx, t.RoleCredentials)
	if err != nil {
		return nil, err
	}
	out := &ecs.UpdateTaskProtectionOutput{}
	if in != nil {
		in.Cluster, in.Tasks = new(t.Def.TaskClusterArn), []string{t.Def.Arn}
		return out, client.Call(ctx, api.Static(c), api.ECS, "UpdateTaskProtection", in, out)
	}
	var got ecs.GetTaskProtectionOutput
	err = client.Call(ctx, api.Static(c), api.ECS, "GetTaskProtection",
		&ecs.GetTaskProtectionInput{Cluster: new(t.Def.TaskClusterArn), Tasks: []string{t.Def.Arn}}, &got)
	out.ProtectedTasks, out.Failures = got.ProtectedTasks, got.Failures
	return out, err
}

const (
	registerFirst = 250 * time.Millisecond
	registerMost  = 10 * time.Second
)

// register makes the instance known and answers its ARN, or "" when ctx is
// done. What the control plane calls invalid will not get better; everything
// else is tried again.
func register(ctx context.Context, client *api.Client, self api.Provider, cfg Config) (string, error) {
	in := registration(cfg)
	wait := registerFirst
	for {
		var out ecs.RegisterContainerInstanceOutput
		err := client.Call(ctx, self, api.ECS, "RegisterContainerInstance", in, &out)
		switch code := wire.Code(err); {
		case err == nil:
			arn := ""
			if out.ContainerInstance != nil {
				arn = wire.Value(out.ContainerInstance.ContainerInstanceArn)
			}
			if arn == "" {
				return "", errors.New("the control plane registered an instance without an ARN")
			}
			cfg.Log.Info("registered", "instance", arn)
			return arn, nil
		case ctx.Err() != nil:
			return "", nil
		case code == "InvalidParameterException" || code == "ClientException":
			return "", fmt.Errorf("register: %w", err)
		}
		cfg.Log.Warn("cannot register", "error", err, "retry", wait)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return "", nil
		case <-timer.C:
		}
		wait = min(wait*2, registerMost)
	}
}

// capabilities are what the agent can do, by the names that the scheduler knows.
var capabilities = []string{
	"ecs.capability.ecr-endpoint",
	"ecs.capability.container-ordering",
	"ecs.capability.full-sync",
	"ecs.capability.container-restart-policy",
	"ecs.capability.task-cpu-mem-limit",
	"ecs.capability.increased-task-cpu-limit",
	"ecs.capability.execution-role-awslogs",
	"ecs.capability.execution-role-ecr-pull",
	"ecs.capability.container-health-check",
	"ecs.capability.task-eni",
	"com.amazonaws.ecs.capability.privileged-container",
	"com.amazonaws.ecs.capability.task-iam-role",
	"com.amazonaws.ecs.capability.ecr-auth",
	"com.amazonaws.ecs.capability.logging-driver.awslogs",
	"com.amazonaws.ecs.capability.logging-driver.json-file",
	"com.amazonaws.ecs.capability.logging-driver.none",
}

// beside are what an agent beside an instance can do besides.
var beside = []string{
	"ecs.capability.network.container-port-range",
	"ecs.capability.pid-ipc-namespace-sharing",
	"ecs.capability.docker-plugin.local",
	"com.amazonaws.ecs.capability.task-iam-role-network-host",
}

// dockerVersions are the versions of Docker's API whose features the agent has.
const oldestDocker, newestDocker = 17, 32

func registration(cfg Config) *ecs.RegisterContainerInstanceInput {
	in := &ecs.RegisterContainerInstanceInput{
		Cluster: new(cfg.Cluster),
		TotalResources: []ecs.Resource{
			{Name: new("CPU"), Type: new("INTEGER"), IntegerValue: new(int32(cfg.CPU))},
			{Name: new("MEMORY"), Type: new("INTEGER"), IntegerValue: new(int32(cfg.Memory))},
			{Name: new("PORTS"), Type: new("STRINGSET"), StringSetValue: []string{}},
			{Name: new("PORTS_UDP"), Type: new("STRINGSET"), StringSetValue: []string{}},
		},
		VersionInfo: &ecs.VersionInfo{AgentVersion: new(api.Version), AgentHash: new("berth"), DockerVersion: new("containerd")},
	}
	if cfg.ContainerInstanceARN != "" {
		in.ContainerInstanceArn = new(cfg.ContainerInstanceARN)
	}
	names := capabilities
	if cfg.Instance != nil {
		names = slices.Concat(capabilities, beside)
	}
	for _, name := range names {
		in.Attributes = append(in.Attributes, ecs.Attribute{Name: new(name)})
	}
	for v := oldestDocker; v <= newestDocker; v++ {
		in.Attributes = append(in.Attributes, ecs.Attribute{Name: new(fmt.Sprintf("com.amazonaws.ecs.capability.docker-remote-api.1.%d", v))})
	}
	in.Attributes = append(in.Attributes,
		ecs.Attribute{Name: new("ecs.os-type"), Value: new("linux")},
		ecs.Attribute{Name: new("ecs.os-family"), Value: new("LINUX")},
		ecs.Attribute{Name: new("ecs.cpu-architecture"), Value: new(architecture)})
	cfg.Registration.complete(in)
	return in
}

// timeline is the file that keeps the number of the newest manifest.
type timeline string

// Load implements session.Timeline. Without a file nothing was seen yet.
func (t timeline) Load() int64 {
	b, err := os.ReadFile(string(t))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// Store implements session.Timeline.
func (t timeline) Store(n int64) error {
	tmp := string(t) + ".new"
	if err := os.WriteFile(tmp, strconv.AppendInt(nil, n, 10), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, string(t))
}
