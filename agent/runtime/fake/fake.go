// Package fake is a runtime in memory: images appear by being named, processes
// run until the test says so. It keeps the contract of package runtime
// (repeatable calls, at-least-once exits, restarts in place) and nothing else.
package fake

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/berth-run/berth/agent/runtime"
)

// Runtime is an in-memory runtime.Runtime. The zero value is not usable; New
// makes one. The exported fields may be set before use.
type Runtime struct {
	// OnCall, if set, sees every call first ("Create", id) and may fail it.
	OnCall func(op, subject string) error
	// OnStart, if set, is called on its own goroutine once a process has
	// started: the test's script of that process. Its return value is the
	// exit code. The process ends early when ctx is done: Kill with SIGKILL.
	OnStart func(ctx context.Context, p *Process) int
	// OnExec answers Exec; without it every exec exits 0 with no output.
	OnExec func(ctx context.Context, id string, e runtime.Exec) (runtime.ExecResult, error)
	// Now is the clock of all times; time.Now if nil.
	Now func() time.Time

	mu         sync.Mutex
	remote     map[string]runtime.Image // by reference
	images     map[string]runtime.Image // by digest
	groups     map[string]runtime.Group
	containers map[string]*container
	subs       map[chan struct{}]*[]runtime.Event
	calls      []string
	nextPid    int
	wg         sync.WaitGroup
	closed     bool
}

type container struct {
	runtime.Container
	spec  runtime.Spec
	proc  *Process
	done  chan struct{} // closed at exit of the present process
	stop  context.CancelFunc
	files *pipes
}

type pipes struct {
	outR, errR *io.PipeReader
	outW, errW *io.PipeWriter
}

// Process is a running fake process, for OnStart's script.
type Process struct {
	ID             string
	Spec           runtime.Spec
	Pid            int
	Stdout, Stderr io.Writer
	// Signals delivers what Kill sends, SIGKILL excepted.
	Signals <-chan syscall.Signal

	signals chan syscall.Signal
	exit    chan exit
}

type exit struct {
	code int
	oom  bool
}

// New makes an empty runtime.
func New() *Runtime {
	return &Runtime{
		remote: map[string]runtime.Image{}, images: map[string]runtime.Image{},
		groups: map[string]runtime.Group{}, containers: map[string]*container{},
		subs: map[chan struct{}]*[]runtime.Event{}, nextPid: 1000,
	}
}

// AddImage makes a reference resolvable and pullable.
func (r *Runtime) AddImage(reference string, img runtime.Image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if img.ID == "" {
		img.ID = img.Digest
	}
	r.remote[reference] = img
}

// Exit ends a running container's process, whatever its script does.
func (r *Runtime) Exit(id string, code int, oom bool) error {
	r.mu.Lock()
	c := r.containers[id]
	if c == nil || c.proc == nil {
		r.mu.Unlock()
		return fmt.Errorf("container %s: %w", id, runtime.ErrNotRunning)
	}
	proc, done := c.proc, c.done // a restart in place replaces both
	r.mu.Unlock()
	select {
	case proc.exit <- exit{code, oom}:
	default: // an exit is under way
	}
	<-done
	return nil
}

// Calls answers every call so far as "Op subject", in order.
func (r *Runtime) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Spec answers what a container was created with.
func (r *Runtime) Spec(id string) (runtime.Spec, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return runtime.Spec{}, false
	}
	return c.spec, true
}

// Group answers a group's limits.
func (r *Runtime) Group(name string) (runtime.Group, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g, ok := r.groups[name]
	return g, ok
}

// Close kills everything and waits for the scripts to end.
func (r *Runtime) Close() {
	r.mu.Lock()
	r.closed = true
	for _, c := range r.containers {
		if c.stop != nil {
			c.stop()
		}
		c.files.close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *Runtime) call(op, subject string) error {
	r.mu.Lock()
	r.calls = append(r.calls, op+" "+subject)
	f := r.OnCall
	r.mu.Unlock()
	if f != nil {
		return f(op, subject)
	}
	return nil
}

func (r *Runtime) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

func (r *Runtime) Resolve(ctx context.Context, src runtime.Source) (runtime.Descriptor, error) {
	if err := r.call("Resolve", src.Reference); err != nil {
		return runtime.Descriptor{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	img, ok := r.remote[src.Reference]
	if !ok {
		return runtime.Descriptor{}, fmt.Errorf("resolve %s: %w", src.Reference, runtime.ErrNotFound)
	}
	return runtime.Descriptor{Digest: img.Digest, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: img.Size}, ctx.Err()
}

func (r *Runtime) Pull(ctx context.Context, src runtime.Source, digest string, progress func(runtime.Progress)) (runtime.Image, error) {
	if err := r.call("Pull", src.Reference); err != nil {
		return runtime.Image{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if img, ok := r.images[digest]; ok {
		return img, ctx.Err()
	}
	for ref, img := range r.remote {
		if img.Digest != digest {
			continue
		}
		img.Names = append(slices.Clone(img.Names), ref)
		img.Pulled = r.now()
		r.images[digest] = img
		if progress != nil {
			progress(runtime.Progress{Offset: img.Size, Total: img.Size})
		}
		return img, ctx.Err()
	}
	return runtime.Image{}, fmt.Errorf("pull %s: %w", digest, runtime.ErrNotFound)
}

func (r *Runtime) Image(ctx context.Context, digest string) (runtime.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	img, ok := r.images[digest]
	if !ok {
		return img, fmt.Errorf("image %s: %w", digest, runtime.ErrNotFound)
	}
	return img, nil
}

func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	if err := r.call("Images", ""); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.images), func(a, b runtime.Image) int {
		return bytes.Compare([]byte(a.Digest), []byte(b.Digest))
	}), nil
}

func (r *Runtime) RemoveImage(ctx context.Context, digest string) error {
	if err := r.call("RemoveImage", digest); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.images, digest)
	return nil
}

func (r *Runtime) CreateGroup(ctx context.Context, g runtime.Group) error {
	if err := r.call("CreateGroup", g.Name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups[g.Name] = g
	return nil
}

func (r *Runtime) DeleteGroup(ctx context.Context, name string) error {
	if err := r.call("DeleteGroup", name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.containers {
		if c.spec.Group == name {
			return fmt.Errorf("group %s holds container %s", name, id)
		}
	}
	delete(r.groups, name)
	return nil
}

func (r *Runtime) Groups(ctx context.Context) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.groups)), nil
}

func (r *Runtime) Create(ctx context.Context, spec runtime.Spec) error {
	if err := r.call("Create", spec.ID); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.containers[spec.ID]; ok {
		return fmt.Errorf("container %s: %w", spec.ID, runtime.ErrExists)
	}
	if _, ok := r.images[spec.Image]; !ok {
		return fmt.Errorf("image %s: %w", spec.Image, runtime.ErrNotFound)
	}
	if _, ok := r.groups[spec.Group]; !ok && spec.Group != "" {
		return fmt.Errorf("group %s: %w", spec.Group, runtime.ErrNotFound)
	}
	r.containers[spec.ID] = &container{
		spec: spec, files: newPipes(),
		Container: runtime.Container{
			ID: spec.ID, Group: spec.Group, Image: spec.Image, Labels: maps.Clone(spec.Labels),
			Status: runtime.StatusCreated, CreatedAt: r.now(),
		},
	}
	return nil
}

func (r *Runtime) Start(ctx context.Context, id string) (int, error) {
	if err := r.call("Start", id); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return 0, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	if c.Status == runtime.StatusRunning {
		return c.Pid, nil
	}
	if c.Status == runtime.StatusExited {
		c.files = newPipes()
	}
	r.nextPid++
	p := &Process{ID: id, Spec: c.spec, Pid: r.nextPid, Stdout: c.files.outW, Stderr: c.files.errW,
		signals: make(chan syscall.Signal, 16), exit: make(chan exit, 1)}
	p.Signals = p.signals
	c.proc, c.done = p, make(chan struct{})
	c.Status, c.Pid, c.StartedAt = runtime.StatusRunning, p.Pid, r.now()
	c.ExitCode, c.ExitedAt, c.OOMKilled = 0, time.Time{}, false
	pctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	r.wg.Add(1)
	go r.run(pctx, c, p)
	return p.Pid, nil
}

// run is the life of one fake process.
func (r *Runtime) run(ctx context.Context, c *container, p *Process) {
	defer r.wg.Done()
	defer c.stop()
	script := make(chan int, 1)
	if r.OnStart != nil {
		r.wg.Add(1)
		go func() {
			defer r.wg.Done()
			script <- r.OnStart(ctx, p)
		}()
	}
	var e exit
	select {
	case e = <-p.exit:
		c.stop()
	case <-ctx.Done():
		e = exit{code: 137}
	case code := <-script:
		e = exit{code: code}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.files.outW.Close()
	c.files.errW.Close()
	c.Status, c.Pid, c.proc = runtime.StatusExited, 0, nil
	c.ExitCode, c.ExitedAt, c.OOMKilled = e.code, r.now(), e.oom
	ev := runtime.Event{ID: c.ID, Pid: p.Pid, ExitCode: e.code, ExitedAt: c.ExitedAt, OOMKilled: e.oom}
	for wake, queue := range r.subs {
		*queue = append(*queue, ev)
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	close(c.done)
}

// Kill: SIGKILL ends the process; any other signal goes to the script, or,
// where there is none, ends the process with 128+n.
func (r *Runtime) Kill(ctx context.Context, id string, sig syscall.Signal) error {
	if err := r.call("Kill", fmt.Sprintf("%s %d", id, sig)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	switch {
	case c.proc == nil:
	case sig == syscall.SIGKILL:
		c.stop()
	case r.OnStart == nil:
		select {
		case c.proc.exit <- exit{code: 128 + int(sig)}:
		default:
		}
	default:
		select {
		case c.proc.signals <- sig:
		default:
		}
	}
	return nil
}

func (r *Runtime) Delete(ctx context.Context, id string) error {
	if err := r.call("Delete", id); err != nil {
		return err
	}
	r.mu.Lock()
	c := r.containers[id]
	if c == nil {
		r.mu.Unlock()
		return nil
	}
	done := c.done
	if c.proc != nil {
		c.stop()
	}
	r.mu.Unlock()
	if done != nil {
		<-done
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.files.close()
	delete(r.containers, id)
	return nil
}

func (r *Runtime) List(ctx context.Context, labels map[string]string) ([]runtime.Container, error) {
	if err := r.call("List", ""); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []runtime.Container
next:
	for _, c := range r.containers {
		for k, v := range labels {
			if c.Labels[k] != v {
				continue next
			}
		}
		out = append(out, c.Container)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out, nil
}

func (r *Runtime) Output(ctx context.Context, id string) (*runtime.Output, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	return &runtime.Output{Stdout: c.files.outR, Stderr: c.files.errR}, nil
}

func (r *Runtime) Events(ctx context.Context) <-chan runtime.Event {
	out := make(chan runtime.Event)
	wake := make(chan struct{}, 1)
	queue := new([]runtime.Event)
	r.mu.Lock()
	for _, c := range r.containers {
		if c.Status == runtime.StatusExited {
			*queue = append(*queue, runtime.Event{ID: c.ID, ExitCode: c.ExitCode, ExitedAt: c.ExitedAt, OOMKilled: c.OOMKilled})
		}
	}
	wake <- struct{}{}
	r.subs[wake] = queue
	r.mu.Unlock()
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		defer close(out)
		defer func() {
			r.mu.Lock()
			delete(r.subs, wake)
			r.mu.Unlock()
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-wake:
			}
			r.mu.Lock()
			todo := *queue
			*queue = nil
			r.mu.Unlock()
			for _, e := range todo {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

func (r *Runtime) Exec(ctx context.Context, id string, e runtime.Exec) (runtime.ExecResult, error) {
	if err := r.call("Exec", id); err != nil {
		return runtime.ExecResult{}, err
	}
	r.mu.Lock()
	c := r.containers[id]
	running := c != nil && c.proc != nil
	f := r.OnExec
	r.mu.Unlock()
	switch {
	case c == nil:
		return runtime.ExecResult{}, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	case !running:
		return runtime.ExecResult{}, fmt.Errorf("container %s: %w", id, runtime.ErrNotRunning)
	case f == nil:
		return runtime.ExecResult{}, nil
	}
	return f(ctx, id, e)
}

func (r *Runtime) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return runtime.Stats{}, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	if c.proc == nil {
		return runtime.Stats{}, fmt.Errorf("container %s: %w", id, runtime.ErrNotRunning)
	}
	return runtime.Stats{Time: r.now(), Memory: runtime.MemoryStats{Limit: uint64(c.spec.Memory)}}, nil
}

func newPipes() *pipes {
	p := new(pipes)
	p.outR, p.outW = io.Pipe()
	p.errR, p.errW = io.Pipe()
	return p
}

func (p *pipes) close() {
	p.outR.Close()
	p.errR.Close()
	p.outW.Close()
	p.errW.Close()
}

var _ runtime.Runtime = (*Runtime)(nil)
