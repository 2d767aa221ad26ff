// Package node is a machine's part of a region: it keeps containerd, the
// agent, the network fabric and the resolver of this machine as the region
// wants them, and says what became of it.
//
// The server sends what is wanted, complete at first and then as differences
// (package dispatch/fabric). The node keeps the latest in a file: a node that
// is started while no server answers goes on from there, so that what runs
// keeps its addresses, names and supervision. It decides nothing, and it knows
// no AWS shapes and no store.
//
// Any process of it may be killed at any moment. Containers belong to their
// shims and interfaces to the kernel; a new node reads what is there and
// continues.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/dataplane/dns"
	"github.com/berth-run/berth/dataplane/vpc"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/node/containerd"
	"github.com/berth-run/berth/process"
)

// Layout says where a node keeps what. Both directories are absolute.
type Layout struct {
	Data    string // lasting: images, the agent's checkpoints, the last desired state
	Run     string // short and emptied by a reboot: sockets, namespaces, pipes
	Log     string // output of the children
	ShortID string // mark of the region in the kernel
}

// Containerd is where the node's own daemon lives.
func (l Layout) Containerd() containerd.Dirs {
	return containerd.Dirs{Root: filepath.Join(l.Data, "containerd"), Run: filepath.Join(l.Run, "containerd")}
}

// Netns is where the fabric makes namespaces and ready markers.
func (l Layout) Netns() string { return filepath.Join(l.Run, "netns") }

// AgentData is the agent's own folder.
func (l Layout) AgentData() string { return filepath.Join(l.Data, "agent") }

// AgentRun is where the agent's runtime keeps pipes and generated files.
func (l Layout) AgentRun() string { return filepath.Join(l.Run, "agent") }

// AgentSettings is the file that tells the agent who it is.
func (l Layout) AgentSettings() string { return filepath.Join(l.Data, "agent.json") }

// AgentCredentials is the file with the agent's credentials, replaced before
// they expire.
func (l Layout) AgentCredentials() string { return filepath.Join(l.Data, "agent-credentials.json") }

// Cgroup is the region's cgroup.
func (l Layout) Cgroup() string { return "/berth/" + l.ShortID }

// Namespace is the region's namespace in containerd.
func (l Layout) Namespace() string { return "berth-" + l.ShortID }

func (l Layout) desired() string { return filepath.Join(l.Data, "desired.json") }

// AgentSettings is what the node's hidden agent runs as.
type AgentSettings struct {
	Endpoint          string `json:"endpoint"`
	Region            string `json:"region"`
	Cluster           string `json:"cluster"`
	ContainerInstance string `json:"containerInstance"`
	Containerd        string `json:"containerd"` // socket
	OCIRuntime        string `json:"ociRuntime,omitempty"`
	Because           string `json:"because,omitempty"` // why this runtime
	CPU               int    `json:"cpu"`
	Memory            int    `json:"memory"`
	Zone              string `json:"zone,omitempty"`
}

// LoadAgentSettings reads what the node wrote for its agent.
func LoadAgentSettings(path string) (s AgentSettings, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("agent settings: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("agent settings %s: %w", path, err)
	}
	return s, nil
}

// Fabric is what the node uses of the network engine.
type Fabric interface {
	Set(ctx context.Context, cfg vpc.Config) (changed bool, err error)
	Status() map[string]vpc.ENIStatus
	ListenIn(vpcID, network, addr string) (net.Listener, error)
	ListenPacketIn(vpcID, network, addr string) (net.PacketConn, error)
	Flows() (vpc.FlowWindow, error)
	Close() error
}

// Resolver is what the node uses of the DNS server.
type Resolver interface {
	Set(ctx context.Context, cfg dns.Config) error
	Close() error
}

// Config says what a node is.
type Config struct {
	Layout Layout // required

	Name string // required: the node's name in the region, kept for ever
	Zone string // "" plays every zone
	// CPU (1024 a core) and Memory (MiB) are what the node offers; 0 measures
	// the machine.
	CPU, Memory int

	// Server is the unix socket of the server's node stream. Required.
	Server string

	// Binary is this program; ContainerdArgs and AgentArgs make it a role.
	// AgentArgs nil runs no agent.
	Binary                    string
	ContainerdArgs, AgentArgs []string
	// Containerd is the socket of the machine's own daemon; "" runs one.
	Containerd string
	// OCIRuntime is passed on to the agent; "" chooses (ChooseRuntime).
	OCIRuntime string
	because    string // why it was chosen

	Log *slog.Logger // required

	// Instances is how instances are run here; nil runs none.
	Instances *Instances

	// Terminals is how terminals are had here; nil has none.
	Terminals *Terminals

	// OpenFabric and NewResolver are the real ones if nil.
	OpenFabric  func(vpc.Options) (Fabric, error)
	NewResolver func(dns.Options) Resolver
}

// childGrace is how long a child may take to end.
const childGrace = 10 * time.Second

func (c *Config) complete() error {
	for name, v := range map[string]string{
		"Layout.Data": c.Layout.Data, "Layout.Run": c.Layout.Run, "Layout.Log": c.Layout.Log, "Layout.ShortID": c.Layout.ShortID,
		"Name": c.Name, "Server": c.Server, "Binary": c.Binary,
	} {
		if v == "" {
			return fmt.Errorf("node: %s is required", name)
		}
	}
	if c.Log == nil {
		return errors.New("node: Log is required")
	}
	cpu, memory, err := capacity()
	if err != nil {
		return fmt.Errorf("capacity of this machine: %w", err)
	}
	if c.CPU == 0 {
		c.CPU = cpu
	}
	if c.Memory == 0 {
		c.Memory = memory
	}
	if c.OpenFabric == nil {
		c.OpenFabric = func(o vpc.Options) (Fabric, error) { return vpc.Open(o) }
	}
	if c.NewResolver == nil {
		c.NewResolver = func(o dns.Options) Resolver { return dns.New(o) }
	}
	return nil
}

// Run is the node's life. It returns when ctx is done, or when the machine
// cannot be a node at all. What runs on the machine runs on.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	for _, dir := range []string{cfg.Layout.Data, cfg.Layout.Run, cfg.Layout.AgentData()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("node: %w", err)
		}
	}
	if err := prepareHost(ctx, cfg.Log); err != nil {
		return err
	}
	if cfg.OCIRuntime == "" && cfg.AgentArgs != nil {
		chosen := ChooseRuntime(ctx, cfg.Layout.Run, cfg.Layout.Cgroup()+"/trial", cfg.Binary, cfg.Containerd == "")
		cfg.OCIRuntime, cfg.because = chosen.Name, chosen.Why
		cfg.Log.Info("OCI runtime", "name", chosen.Name, "because", chosen.Why)
	}
	n := &node{cfg: cfg, log: cfg.Log, want: newWanted(), changed: make(chan struct{}, 1), reports: newReports(), flows: newFlows(), agent: make(chan struct{}, 1), sessions: newSessions()}
	if cfg.Instances != nil {
		if err := n.openInstances(); err != nil {
			return err
		}
	}
	switch err := n.recall(); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		// The server sends all of it again.
		n.log.Warn("last desired state is not readable", "err", err)
	default:
		n.poke()
	}
	g, ctx := errgroup.WithContext(ctx)
	if cfg.Containerd == "" {
		g.Go(func() error { return process.Keep(ctx, n.child("containerd", cfg.ContainerdArgs), cfg.Log) })
	}
	if cfg.AgentArgs != nil {
		g.Go(func() error { return n.keepAgent(ctx) })
	}
	if n.instances != nil {
		g.Go(func() error { return n.instances.Run(ctx) })
	}
	g.Go(func() error { return n.apply(ctx) })
	g.Go(func() error { return n.countFlows(ctx) })
	g.Go(func() error { return n.connect(ctx) })
	g.Go(func() error { n.serveSessions(ctx); return nil })
	if err := process.Notify(); err != nil {
		cfg.Log.Warn("readiness", "err", err)
	}
	return g.Wait()
}

func (n *node) child(name string, args []string) process.Spec {
	return process.Spec{
		Name: name, Path: n.cfg.Binary, Args: args, RunDir: n.cfg.Layout.Run, LogDir: n.cfg.Layout.Log, Grace: childGrace,
	}
}

// keepAgent runs the agent from the moment it is known who that is, and
// another one when that changes.
func (n *node) keepAgent(ctx context.Context) error {
	var (
		running  AgentSettings
		end      = func() {}
		finished = make(chan error, 1)
	)
	defer func() { end() }()
	for {
		settings, err := LoadAgentSettings(n.cfg.Layout.AgentSettings())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			n.log.Warn("agent settings", "err", err)
		}
		if err == nil && settings != running {
			end()
			running = settings
			life, cancel := context.WithCancel(ctx)
			done := make(chan struct{})
			go func() {
				defer close(done)
				if err := process.Keep(life, n.child("agent", n.cfg.AgentArgs), n.log); err != nil {
					select {
					case finished <- err:
					default:
					}
				}
			}()
			end = func() { cancel(); <-done }
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-finished:
			return err
		case <-n.agent:
		}
	}
}

// adopt writes down what the server said of the agent.
func (n *node) adopt(region *fabric.Region, a *fabric.Agent) error {
	socket := n.cfg.Containerd
	if socket == "" {
		socket = n.cfg.Layout.Containerd().Socket()
	}
	creds, err := json.Marshal(a.Credentials)
	if err != nil {
		return err
	}
	if err := replaceFile(n.cfg.Layout.AgentCredentials(), creds, 0o600); err != nil {
		return fmt.Errorf("agent credentials: %w", err)
	}
	settings, err := json.Marshal(AgentSettings{
		Endpoint: region.Endpoint, Region: region.Name, Cluster: a.Cluster, ContainerInstance: a.ContainerInstance,
		Containerd: socket, OCIRuntime: n.cfg.OCIRuntime, Because: n.cfg.because, CPU: n.cfg.CPU, Memory: n.cfg.Memory, Zone: n.cfg.Zone,
	})
	if err != nil {
		return err
	}
	if err := replaceFile(n.cfg.Layout.AgentSettings(), settings, 0o600); err != nil {
		return fmt.Errorf("agent settings: %w", err)
	}
	select {
	case n.agent <- struct{}{}:
	default:
	}
	return nil
}

// replaceFile writes a file so that a reader sees the old or the new one.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
