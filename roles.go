package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/berth-run/berth/agent"
	"github.com/berth-run/berth/agent/containerd"
	"github.com/berth-run/berth/cli"
	"github.com/berth-run/berth/node"
	daemon "github.com/berth-run/berth/node/containerd"
	"github.com/berth-run/berth/process"
	"github.com/berth-run/berth/service"
)

// A role is one of the processes that a region consists of. Each reads what it
// needs from the region's directories, so that it can be started again by
// anyone at any time.

func newLog(role string) *slog.Logger { return newLogTo(os.Stderr, role) }

func newLogTo(w io.Writer, role string) *slog.Logger {
	level := slog.LevelInfo
	if os.Getenv("BERTH_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})).With("role", role)
}

// settling makes a role give back the memory that it does not need.
func settling[O any](name string, role func(context.Context, O) error) func(context.Context, O) error {
	return func(ctx context.Context, o O) error {
		life, end := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			process.Settle(life, newLog(name))
		}()
		defer func() { end(); <-done }()
		return role(ctx, o)
	}
}

// region finds the region of a role.
func region(dataDir string) (layout, settings, error) {
	l, err := newLayout(dataDir)
	if err != nil {
		return l, settings{}, err
	}
	s, ok, err := l.load()
	if err == nil && !ok {
		err = fmt.Errorf("%s holds no region", l.data)
	}
	return l, s, err
}

func serverRole(ctx context.Context, o cli.RoleOptions) error {
	l, s, err := region(o.DataDir)
	if err != nil {
		return err
	}
	lines := service.NewLines(os.Stderr)
	defer lines.Flush()
	return runServer(ctx, serverConfig{layout: l, settings: s, healthyAfter: o.HealthyAfter}, newLogTo(lines, "server"))
}

// runtimeVariable names the OCI runtime that a node is to use instead of the
// one that it would choose.
const runtimeVariable = "BERTH_OCI_RUNTIME"

func nodeRole(ctx context.Context, o cli.RoleOptions) error {
	l, _, err := region(o.DataDir)
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name of this machine: %w", err)
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	return node.Run(ctx, node.Config{
		Name: name, Server: l.socket(), Layout: l.nodeLayout(), Binary: binary, Containerd: o.Containerd, Log: newLog("node"),
		OCIRuntime:     os.Getenv(runtimeVariable),
		ContainerdArgs: roleArgs("containerd", l, "", o.HealthyAfter), AgentArgs: roleArgs("agent", l, o.Containerd, o.HealthyAfter),
		Instances: instances(l.nodeLayout(), binary, append(roleArgs("agent", l, o.Containerd, o.HealthyAfter), "--")),
		Terminals: terminals(l.nodeLayout(), cmp.Or(o.Containerd, l.nodeLayout().Containerd().Socket())),
	})
}

// chooseRuntime is what a node of this machine would choose.
func chooseRuntime(ctx context.Context) (cli.Runtime, error) {
	if name := os.Getenv(runtimeVariable); name != "" {
		return cli.Runtime{Name: name, Why: runtimeVariable + " says so"}, nil
	}
	binary, err := os.Executable()
	if err != nil {
		return cli.Runtime{}, err
	}
	dir, err := os.MkdirTemp("", "berth-trial-")
	if err != nil {
		return cli.Runtime{}, err
	}
	defer os.RemoveAll(dir)
	r := node.ChooseRuntime(ctx, dir, "/"+filepath.Base(dir), binary, true)
	return cli.Runtime{Name: r.Name, Why: r.Why}, nil
}

// nodeLayout is the node's part of the region's directories.
func (l layout) nodeLayout() node.Layout {
	return node.Layout{Data: l.node(), Run: l.run(), Log: l.logs(), ShortID: l.shortID()}
}

// roleArgs are the arguments with which this program becomes a role.
func roleArgs(role string, l layout, containerd string, healthyAfter time.Duration) []string {
	args := []string{role, "--data-dir", l.data, "--healthy-after", healthyAfter.String()}
	if containerd != "" {
		args = append(args, "--containerd", containerd)
	}
	return args
}

func containerdRole(ctx context.Context, o cli.RoleOptions) error {
	l, _, err := region(o.DataDir)
	if err != nil {
		return err
	}
	log := newLog("containerd")
	return daemon.Main(ctx, l.nodeLayout().Containerd(), daemon.Options{Ready: func() {
		if err := process.Notify(); err != nil {
			log.Error("say that containerd is ready", "err", err)
		}
	}})
}

func agentRole(ctx context.Context, o cli.RoleOptions) error {
	l, _, err := region(o.DataDir)
	if err != nil {
		return err
	}
	n := l.nodeLayout()
	if len(o.Args) == 1 {
		return instanceAgent(ctx, n, o.Args[0])
	}
	a, err := node.LoadAgentSettings(n.AgentSettings())
	if err != nil {
		return err
	}
	if err := process.Notify(); err != nil {
		return err
	}
	// The program of the shim is an init, too, and where there is one the smaller of the two.
	initPath := n.Containerd().Shim()
	if a.Containerd != n.Containerd().Socket() {
		if initPath, err = os.Executable(); err != nil {
			return err
		}
	}
	rt, err := containerd.New(containerd.Config{
		Address: a.Containerd, Namespace: n.Namespace(), Dir: n.AgentRun(), Cgroup: n.Cgroup(),
		Others:     []string{node.InstanceGroup},
		OCIRuntime: a.OCIRuntime, InitPath: initPath, Exits: n.Containerd().Exits(),
	})
	if err != nil {
		return err
	}
	defer rt.Close()
	// What an agent that was killed left half made or half removed goes before anything new is made.
	if err := rt.Ready(ctx); err != nil {
		return err
	}
	return agent.Run(ctx, agent.Config{
		Endpoint: a.Endpoint, Region: a.Region, Cluster: a.Cluster, ContainerInstanceARN: a.ContainerInstance,
		CredentialsFile: n.AgentCredentials(), DataDir: n.AgentData(), NetnsDir: n.Netns(),
		Runtime: rt, CPU: a.CPU, Memory: a.Memory, Zone: a.Zone, Log: newLog("agent"),
	})
}
