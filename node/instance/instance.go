// Package instance runs the EC2 instances of a machine: a container each, with
// a root file system of its own that lasts until the instance is terminated,
// namespaces of its own, the network namespace of its first interface, and the
// limits of its type. Beside one whose image is for ECS it keeps an agent.
//
// What an instance should be comes from the server (package dispatch/fabric);
// what it is, the runtime knows, and a small file per instance says which boot
// that was. So whoever is killed, node, daemon, agent, server, the instance runs
// on, and the next node continues.
//
// The package must never decide that an instance is to run, stop or go, and it
// must never follow a path that an instance has made as if it were the machine's.
package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/fabric"
)

// Containers is what the package uses of a runtime of containers.
type Containers interface {
	Ready(ctx context.Context) error
	Load(ctx context.Context, file, layer string, size int64) (runtime.Image, error)
	Image(ctx context.Context, digest string) (runtime.Image, error)
	Resolve(ctx context.Context, src runtime.Source) (runtime.Descriptor, error)
	Pull(ctx context.Context, src runtime.Source, digest string, progress func(runtime.Progress)) (runtime.Image, error)
	Images(ctx context.Context) ([]runtime.Image, error)
	RemoveImage(ctx context.Context, digest string) error
	CreateGroup(ctx context.Context, g runtime.Group) error
	DeleteGroup(ctx context.Context, name string) error
	Create(ctx context.Context, s runtime.Spec) error
	Start(ctx context.Context, id string) (pid int, err error)
	Kill(ctx context.Context, id string, sig syscall.Signal) error
	Delete(ctx context.Context, id string) error
	List(ctx context.Context, labels map[string]string) ([]runtime.Container, error)
	Output(ctx context.Context, id string) (*runtime.Output, error)
	Events(ctx context.Context) <-chan runtime.Event
	Destroy(ctx context.Context) error
	Close() error
}

// Place says where a runtime has its containers.
type Place struct {
	Namespace string // in containerd
	Dir       string // its files
	Cgroup    string // below the root of each hierarchy
}

// Config says what the machine is.
type Config struct {
	Data  string // lasting: a folder per instance
	Run   string // not lasting: this program under the guest's name, pid files
	Netns string // namespaces of interfaces, and their ready markers
	// Namespace and Cgroup are the region's own, below which the instances'
	// are.
	Namespace, Cgroup string
	Guest             string // this program, as instances get to see it
	// Binary and AgentArgs start an agent; the folder of its settings follows.
	Binary    string
	AgentArgs []string
	// Containerd and OCIRuntime are passed on to agents.
	Containerd, OCIRuntime string

	// Cgroups are the directories of a cgroup that exist, RemoveCgroup removes
	// them with what is below.
	Cgroups      func(path string) ([]string, error)
	RemoveCgroup func(ctx context.Context, path string) error
	// Unmount takes away what is mounted below a folder.
	Unmount func(dir string) error
	// Open connects to the runtime of one place.
	Open func(Place) (Containers, error)
	// Report is told what has become of an instance.
	Report func(fabric.InstanceStatus)
	Logger *slog.Logger
}

// Manager keeps the instances of this machine.
type Manager struct {
	cfg Config
	log *slog.Logger

	mu        sync.Mutex
	region    fabric.Region
	instances map[string]*instance
	set       bool // what is wanted is known
	wake      chan struct{}
	closed    bool

	rootMu sync.Mutex // one root is made at a time
	// getting is read-locked while an image is got that no container has yet.
	getting sync.RWMutex
}

// New makes a Manager. It does nothing before Run.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg, log: cfg.Logger, instances: map[string]*instance{}, wake: make(chan struct{}, 1)}
}

// dir is where the files of one instance are.
func (m *Manager) dir(id string) string { return filepath.Join(m.cfg.Data, "i", id) }

// Set says which instances there should be; all others of this machine go.
func (m *Manager) Set(region fabric.Region, want map[string]fabric.Instance) {
	m.mu.Lock()
	m.region, m.set = region, true
	for id, w := range want {
		if !validID(id) {
			continue
		}
		i := m.instances[id]
		if i == nil {
			i = newInstance(m, id)
			m.instances[id] = i
		}
		i.want(&w)
	}
	for id, i := range m.instances {
		if _, wanted := want[id]; !wanted {
			i.want(nil)
		}
	}
	m.mu.Unlock()
	m.poke()
}

// Poke says that an interface may have become ready.
func (m *Manager) Poke() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range m.instances {
		i.poke()
	}
}

func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Has tells whether there is anything of an instance here.
func (m *Manager) Has(id string) bool {
	m.mu.Lock()
	_, known := m.instances[id]
	m.mu.Unlock()
	if known {
		return true
	}
	_, err := os.Lstat(m.dir(id))
	return err == nil
}

// Status is what is so of every instance, consoles included.
func (m *Manager) Status() []fabric.InstanceStatus {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.instances))
	m.mu.Unlock()
	var out []fabric.InstanceStatus
	for _, i := range all {
		if s, ok := i.status(); ok {
			out = append(out, s)
		}
	}
	return out
}

// validID: ids become path elements.
func validID(id string) bool {
	return strings.HasPrefix(id, "i-") && len(id) <= 40 && strings.Trim(id[2:], "0123456789abcdef") == "" && len(id) > 2
}

// Run is the manager's life. Instances run on after it.
func (m *Manager) Run(ctx context.Context) error {
	if err := m.find(); err != nil {
		return err
	}
	// Most machines have no instance: then nothing is opened.
	for {
		m.mu.Lock()
		needed := len(m.instances) > 0 && m.set
		m.mu.Unlock()
		if needed {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		}
	}
	for _, dir := range []string{m.cfg.Data, m.cfg.Run, filepath.Join(m.cfg.Data, "i")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("instances: %w", err)
		}
	}
	c, err := m.cfg.Open(m.machine())
	if err != nil {
		return fmt.Errorf("instances: %w", err)
	}
	defer c.Close()
	if err := c.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("instances: %w", err)
	}
	list, err := c.List(ctx, nil)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("instances: %w", err)
	}
	found := map[string]runtime.Container{}
	m.mu.Lock()
	for _, r := range list {
		found[r.ID] = r
		if validID(r.ID) && m.instances[r.ID] == nil { // its folder is gone, somehow
			m.instances[r.ID] = newInstance(m, r.ID)
		}
	}
	m.mu.Unlock()

	var lives sync.WaitGroup
	defer lives.Wait()
	running := map[string]bool{}
	var over sync.Map
	events := c.Events(ctx)
	for {
		m.mu.Lock()
		over.Range(func(id, _ any) bool {
			over.Delete(id)
			delete(running, id.(string))
			delete(found, id.(string))
			// Wanted again meanwhile: then it lives again.
			if i := m.instances[id.(string)]; i != nil && i.unwanted() {
				delete(m.instances, id.(string))
			}
			return true
		})
		for id, i := range m.instances {
			if running[id] {
				continue
			}
			running[id] = true
			r, ok := found[id]
			lives.Go(func() {
				i.live(ctx, c, r, ok)
				over.Store(id, true)
				m.poke()
			})
		}
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			if events != nil {
				for range events { // until it is closed
				}
			}
			return nil
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			m.mu.Lock()
			i := m.instances[e.ID]
			m.mu.Unlock()
			if i != nil {
				i.ended(e)
			}
		case <-m.wake:
		}
	}
}

// find remembers the instances that an earlier node had.
func (m *Manager) find() error {
	entries, err := os.ReadDir(filepath.Join(m.cfg.Data, "i"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("instances: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		if validID(e.Name()) && m.instances[e.Name()] == nil {
			m.instances[e.Name()] = newInstance(m, e.Name())
		}
	}
	return nil
}

// passing is the folder of an instance that a reboot of the machine empties:
// its agent has namespaces and mounts of tasks there.
func (m *Manager) passing(id string) string { return filepath.Join(m.cfg.Run, "i", id) }

// machine is where the instances are.
func (m *Manager) machine() Place {
	return Place{Namespace: m.cfg.Namespace, Dir: filepath.Join(m.cfg.Data, "run"), Cgroup: m.cfg.Cgroup}
}

// tasks is where the containers of an instance's tasks are.
func (m *Manager) tasks(id string) Place {
	return Place{Namespace: m.cfg.Namespace + "-" + id, Dir: filepath.Join(m.dir(id), "tasks"), Cgroup: filepath.Join(m.cfg.Cgroup, id, "ecs")}
}

var errEnded = errors.New("the node ends")

// pace is how long what fails waits before it is tried again.
func pace(tries int) time.Duration {
	return min(200*time.Millisecond<<min(tries, 7), 15*time.Second)
}

// readLines calls line for each line of r until it ends.
func readLines(r io.Reader, line func(string)) {
	var rest []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		rest = append(rest, buf[:n]...)
		for {
			text, after, ok := strings.Cut(string(rest), "\n")
			if !ok {
				break
			}
			line(strings.TrimSpace(text))
			rest = []byte(after)
		}
		if len(rest) > 64<<10 {
			rest = nil
		}
		if err != nil {
			return
		}
	}
}
