// Package containerd implements runtime.Runtime on a containerd daemon: the
// one this binary brings along (package node/containerd) or the machine's own,
// version 1.6 or later.
//
// The way from Create to a running process is the region's headline number, so
// it is kept to the four calls that containerd cannot do without (snapshot,
// container, task, start), the first two at the same time; everything that can
// be known without asking (image configs, user ids, the OCI spec) is computed
// here and remembered by digest.
//
// It owns: a containerd namespace, a cgroup below which every container of the
// region lives, and a run directory with the pipes and generated files of its
// containers. It must never touch anything outside of them, and it keeps no
// state of its own: what a new agent must know it reads from containerd, from
// the cgroups and from the run directory.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/berth-run/berth/agent/runtime"
)

const (
	snapshotter = "overlayfs"
	shimRuntime = "io.containerd.runc.v2"
	// groupAnnotation makes containers share one shim.
	groupAnnotation = "io.containerd.runc.v2.group"

	labelGroup = "run.berth/group"
	labelImage = "run.berth/image"
	// labelRoot keeps a snapshot from the garbage collector until it is
	// removed by name.
	labelRoot = "containerd.io/gc.root"
)

// Config of a Runtime.
type Config struct {
	// Address is containerd's socket. Required.
	Address string
	// Namespace within it; one per region. Required.
	Namespace string
	// Dir is the run directory, on a file system that a reboot empties.
	// Required.
	Dir string
	// Cgroup is the region's cgroup, an absolute path below the root of
	// each hierarchy ("/berth/3f9a01"). Required.
	Cgroup string
	// Others are the names of cgroups below Cgroup that belong to somebody else.
	Others []string
	// Exits is where the daemon leaves exits that it missed (package
	// node/containerd). Optional: without it such containers are unknown.
	Exits string
	// OCIRuntime is the program that makes containers: "runc" if empty. See
	// Probe.
	OCIRuntime string
	// InitPath is the program that Spec.Init puts before the command; it is
	// called under the name "berth-init". Without it such a Spec is refused.
	InitPath string
}

// Runtime implements runtime.Runtime.
type Runtime struct {
	cfg    Config
	client *client.Client
	tasks  tasks.TasksClient
	store  containers.Store
	snaps  snapshots.Snapshotter
	cg     cgroups
	nofile uint64

	locks    keyed
	groups   crowds
	images   cache[string, *image]
	users    cache[userKey, specs.User]
	sources  transports
	mediums  cache[string, descriptor]
	pulls    keyed
	outputs  sync.Map // container id -> *runtime.Output, opened by Create, not yet asked for
	process  cache[string, *specs.Process]
	filters  cache[string, string] // by seccomp profile; see withFilter
	creating sync.Map              // container ids whose Create is under way

	// dials counts the connections to the daemon that were made: another one
	// means that it has been away.
	dials atomic.Int64
	// buried are processes that were killed before they were anybody's:
	// their exits are not for the stream.
	buried cache[exitKey, bool]

	// life ends with Close, which waits for what was left to after.
	life  context.Context
	end   context.CancelFunc
	after sync.WaitGroup
}

// New makes a Runtime. It does not wait for the daemon: calls do, for as long
// as their context allows, whenever it is away.
func New(cfg Config) (*Runtime, error) {
	for name, v := range map[string]string{"Address": cfg.Address, "Namespace": cfg.Namespace, "Dir": cfg.Dir, "Cgroup": cfg.Cgroup} {
		if v == "" {
			return nil, fmt.Errorf("containerd runtime: %s is required", name)
		}
	}
	if !filepath.IsAbs(cfg.Cgroup) {
		return nil, fmt.Errorf("containerd runtime: cgroup %q is not absolute", cfg.Cgroup)
	}
	if cfg.OCIRuntime == "" {
		cfg.OCIRuntime = "runc"
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "c"), 0o711); err != nil {
		return nil, err
	}
	// The client library logs every refusal of a registry, which the caller
	// gets as an error anyway.
	if err := log.SetLevel("error"); err != nil {
		return nil, err
	}
	cg, err := newCgroups(cfg.Cgroup)
	if err != nil {
		return nil, err
	}
	r := &Runtime{cfg: cfg, cg: cg, nofile: openFiles()}
	c, err := client.New(cfg.Address,
		client.WithDefaultNamespace(cfg.Namespace),
		client.WithDialOpts([]grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			// The daemon is a local child that comes back within a
			// second of dying: ask often.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 500 * time.Millisecond},
				MinConnectTimeout: 5 * time.Second,
			}),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				var d net.Dialer
				r.dials.Add(1)
				return d.DialContext(ctx, "unix", strings.TrimPrefix(addr, "unix://"))
			}),
			// A call made while the daemon restarts waits for it.
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		}))
	if err != nil {
		return nil, fmt.Errorf("containerd client: %w", err)
	}
	r.client, r.tasks, r.store, r.snaps = c, c.TaskService(), c.ContainerService(), c.SnapshotService(snapshotter)
	r.life, r.end = context.WithCancel(context.Background())
	return r, nil
}

// openFiles is the limit on open files of a container that sets none: Fargate's
// own (facts: task definitions), as far as this machine lets a process have it.
func openFiles() uint64 {
	const most = 65535
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return min(l.Max, most)
}

// Close ends the connection. Containers run on.
func (r *Runtime) Close() error {
	r.outputs.Range(func(k, v any) bool {
		v.(*runtime.Output).Close()
		return true
	})
	r.sources.close()
	r.end()
	r.after.Wait()
	return r.client.Close()
}

// Ready waits until the daemon answers, makes the region's namespace, and
// removes what an agent left that was killed in the middle of a Create or
// Delete. It is called once, before anything else.
func (r *Runtime) Ready(ctx context.Context) error {
	if _, err := r.client.Version(ctx); err != nil {
		return fmt.Errorf("containerd at %s: %w", r.cfg.Address, native(err))
	}
	err := r.client.NamespaceService().Create(ctx, r.cfg.Namespace, nil)
	if err = native(err); err != nil && !errors.Is(err, runtime.ErrExists) {
		return fmt.Errorf("containerd namespace %s: %w", r.cfg.Namespace, err)
	}
	if err := r.sweep(ctx); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// dir is where the files of a container are.
func (r *Runtime) dir(id string) string { return filepath.Join(r.cfg.Dir, "c", id) }

// native turns containerd's errors into the runtime's, keeping the text.
func native(err error) error {
	if err == nil {
		return nil
	}
	// Some of the client's calls translate already; to do it again would lose
	// the kind.
	if _, ok := status.FromError(err); ok {
		err = errgrpc.ToNative(err)
	}
	switch {
	case errdefs.IsNotFound(err):
		return wrapped{err, runtime.ErrNotFound}
	case errdefs.IsAlreadyExists(err):
		return wrapped{err, runtime.ErrExists}
	case errdefs.IsUnavailable(err):
		return wrapped{err, runtime.ErrUnavailable}
	}
	return err
}

// wrapped is an error with the text of one and the identity of both.
type wrapped struct{ text, is error }

func (w wrapped) Error() string   { return w.text.Error() }
func (w wrapped) Unwrap() []error { return []error{w.text, w.is} }

// keyed is a mutex per key.
type keyed struct {
	mu sync.Mutex
	m  map[string]*keyedLock
}

type keyedLock struct {
	sem  chan struct{}
	refs int
}

// lock takes the key's mutex; the caller calls what it answers. It gives up
// when ctx is done.
func (k *keyed) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.m == nil {
		k.m = map[string]*keyedLock{}
	}
	l := k.m[key]
	if l == nil {
		l = &keyedLock{sem: make(chan struct{}, 1)}
		k.m[key] = l
	}
	l.refs++
	k.mu.Unlock()
	release := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.refs--; l.refs == 0 {
			delete(k.m, key)
		}
	}
	select {
	case l.sem <- struct{}{}:
		return func() { <-l.sem; release() }, nil
	case <-ctx.Done():
		release()
		return nil, ctx.Err()
	}
}

// crowds lets the containers of a group be made at the same time, and whoever
// ends their shims do so when none is. A container without a group has a shim
// of its own, and its own lock is enough.
type crowds struct {
	mu sync.Mutex
	m  map[string]*crowd
}

type crowd struct {
	sem  *semaphore.Weighted
	refs int
}

// everybody is more than there are containers in a group.
const everybody = 1 << 30

func (c *crowds) among(ctx context.Context, group string) (free func(), err error) {
	return c.take(ctx, group, 1)
}

func (c *crowds) alone(ctx context.Context, group string) (free func(), err error) {
	return c.take(ctx, group, everybody)
}

func (c *crowds) take(ctx context.Context, group string, n int64) (free func(), err error) {
	if group == "" {
		return func() {}, nil
	}
	c.mu.Lock()
	if c.m == nil {
		c.m = map[string]*crowd{}
	}
	g := c.m[group]
	if g == nil {
		g = &crowd{sem: semaphore.NewWeighted(everybody)}
		c.m[group] = g
	}
	g.refs++
	c.mu.Unlock()
	release := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if g.refs--; g.refs == 0 {
			delete(c.m, group)
		}
	}
	if err := g.sem.Acquire(ctx, n); err != nil {
		release()
		return nil, err
	}
	return func() { g.sem.Release(n); release() }, nil
}

// cache is a small map that is emptied when it has grown; what is in it can
// always be computed again.
type cache[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]V
}

const cacheSize = 512

func (c *cache[K, V]) get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.m[k]
	return v, ok
}

func (c *cache[K, V]) put(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= cacheSize {
		c.m = map[K]V{}
	}
	c.m[k] = v
}

func (c *cache[K, V]) drop(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, k)
}

var _ runtime.Runtime = (*Runtime)(nil)
