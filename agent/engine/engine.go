package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/berth-run/berth/agent/credentials"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/dispatch/acs"
)

// Config is what an Engine needs.
type Config struct {
	Runtime     runtime.Runtime    // required
	Images      Images             // required
	Logs        Logs               // required
	Credentials *credentials.Store // required
	// Enter waits for the network namespace of a task's interface and answers
	// its path. The interface may not work yet. Required.
	Enter func(ctx context.Context, eni string) (netns string, err error)
	// Attach waits for a task's interface and answers the path of its network
	// namespace; for tasks without one it is not called. Required.
	Attach func(ctx context.Context, eni string) (netns string, err error)
	// Serve answers what a task's containers ask through its interface, the
	// metadata endpoint first of all, until it is closed, connections
	// included. Required.
	Serve func(ctx context.Context, task string, eni *acs.ElasticNetworkInterface) (io.Closer, error)
	// Submit tells the control plane of a state change, once. Required.
	Submit func(ctx context.Context, in *ecs.SubmitTaskStateChangeInput) error

	// Host is the instance that tasks share something with; nil is Fargate.
	Host *Host

	Region      string
	DataDir     string        // required: checkpoints and volumes
	CleanupWait time.Duration // how long a stopped task's containers are kept
	Log         *slog.Logger  // required
}

// Images gets images.
type Images interface {
	// Pull answers the image that a container of a task runs, unpacked. Its
	// errors are a *TaskError or a *ContainerError.
	Pull(ctx context.Context, t *Task, c *Container) (runtime.Image, error)
}

// Logs delivers what containers write.
type Logs interface {
	// Open makes a container's log ready before the container exists. With
	// resume the container exists, and nothing is checked any more. Its error
	// is what the task cannot start for, a *TaskError.
	Open(ctx context.Context, t *Task, c *Container, resume bool) (Log, error)
	// Remove removes what the machine has of a task's logs.
	Remove(task string) error
}

// Log is the log of one container.
type Log interface {
	// Copy begins to read the output of the container's process, to the end.
	Copy(out *runtime.Output)
	// Drain waits until everything that was copied is delivered.
	Drain(ctx context.Context) error
	// Close gives the log up. What is not delivered is lost.
	Close()
}

// Engine runs tasks.
type Engine struct {
	cfg   Config
	files checkpoints
	// submitting bounds the tasks whose changes are submitted at once.
	submitting chan struct{}
	changed    chan struct{} // something about a container's health or existence changed

	mu    sync.Mutex
	tasks map[string]*runner // by ARN
	owner map[string]*runner // by runtime id
	run   func(*runner)      // nil until Run, and after it
	wg    sync.WaitGroup
}

// maxSubmitting is how many tasks' changes are submitted at once.
const maxSubmitting = 10

// New makes an engine. Recover and Run make it work.
func New(cfg Config) *Engine {
	return &Engine{
		cfg: cfg, files: checkpoints{filepath.Join(cfg.DataDir, "tasks")},
		submitting: make(chan struct{}, maxSubmitting), changed: make(chan struct{}, 1),
		tasks: map[string]*runner{}, owner: map[string]*runner{},
	}
}

// Recover takes over what an earlier agent left: its tasks from their
// checkpoints, their containers from the runtime. Containers of tasks that no
// checkpoint knows are removed. It has to come before Run.
func (e *Engine) Recover(ctx context.Context) error {
	tasks, broken, err := e.files.load()
	if err != nil {
		return err
	}
	for _, err := range broken {
		e.cfg.Log.Error("a checkpoint is unreadable", "error", err)
	}
	var found []runtime.Container
	err = e.available(ctx, func() (err error) {
		found, err = e.cfg.Runtime.List(ctx, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	byID := make(map[string]runtime.Container, len(found))
	for _, c := range found {
		byID[c.ID] = c
	}
	now := time.Now()
	for _, t := range tasks {
		t.Adopt(byID, now)
		e.cfg.Credentials.Expect(t.Def.Arn, t.RoleCredentials)
		e.cfg.Credentials.Expect(t.Def.Arn, t.ExecutionCredentials)
		e.add(t)
	}
	e.removeUnknown(ctx, found)
	return e.disconnectUnknown()
}

// disconnectUnknown gives back the places of containers that no task has.
func (e *Engine) disconnectUnknown() error {
	if e.cfg.Host == nil {
		return nil
	}
	for _, p := range e.cfg.Host.Bridge.Endpoints() {
		if e.owner[p.ID] != nil {
			continue
		}
		if err := e.cfg.Host.Bridge.Disconnect(p.ID); err != nil {
			return err
		}
	}
	return nil
}

// removeUnknown removes containers and groups that belong to no task.
func (e *Engine) removeUnknown(ctx context.Context, found []runtime.Container) {
	for _, c := range found {
		if e.owner[c.ID] != nil || c.Labels[LabelTask] == "" {
			continue
		}
		e.cfg.Log.Warn("removing a container of no task", "container", c.ID, "task", c.Labels[LabelTask])
		if err := e.cfg.Runtime.Delete(ctx, c.ID); err != nil {
			e.cfg.Log.Error("cannot remove a container", "container", c.ID, "error", err)
		}
	}
	groups, err := e.cfg.Runtime.Groups(ctx)
	if err != nil {
		e.cfg.Log.Error("cannot list groups", "error", err)
		return
	}
	known := map[string]bool{}
	for _, r := range e.tasks {
		known[r.t.ID()] = true
	}
	for _, g := range groups {
		if known[g] {
			continue
		}
		if err := e.cfg.Runtime.DeleteGroup(ctx, g); err != nil {
			e.cfg.Log.Error("cannot remove a group", "group", g, "error", err)
		}
	}
	dirs, err := os.ReadDir(e.volumesDir())
	if err != nil {
		return // there are none
	}
	for _, d := range dirs {
		if known[d.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(e.volumesDir(), d.Name())); err != nil {
			e.cfg.Log.Error("cannot remove volumes", "task", d.Name(), "error", err)
		}
	}
}

// Run works until ctx is done. It leaves containers running.
func (e *Engine) Run(ctx context.Context) error {
	events := e.cfg.Runtime.Events(ctx)
	e.mu.Lock()
	e.run = func(r *runner) { e.wg.Go(func() { r.run(ctx) }) }
	for _, r := range e.tasks {
		e.run(r)
	}
	e.mu.Unlock()
	for ev := range events {
		e.mu.Lock()
		r := e.owner[ev.ID]
		e.mu.Unlock()
		if r != nil {
			r.exited(ctx, ev)
		}
	}
	<-ctx.Done()
	e.mu.Lock()
	e.run = nil
	e.mu.Unlock()
	e.wg.Wait()
	return nil
}

// add registers a task. Callers hold e.mu or are alone.
func (e *Engine) add(t *Task) *runner {
	r := newRunner(e, t)
	e.tasks[t.Def.Arn] = r
	for _, c := range t.Containers {
		e.owner[c.RuntimeID] = r
	}
	if e.run != nil {
		e.run(r)
	}
	return r
}

// forget drops a task that nothing is left of.
func (e *Engine) forget(t *Task) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.tasks, t.Def.Arn)
	for _, c := range t.Containers {
		delete(e.owner, c.RuntimeID)
	}
	e.cfg.Credentials.Forget(t.Def.Arn)
}

// Apply takes a task of a payload in: a new one is begun, a known one is
// stopped if that is what is wanted. An error says that the task cannot be
// handled; it is reported as stopped nevertheless.
func (e *Engine) Apply(def acs.Task) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.tasks[def.Arn]; r != nil {
		// Credentials go first: a task may be waiting for them.
		e.keepCredentials(def)
		if def.DesiredStatus == acs.StatusStopped {
			r.stop()
		}
		return nil
	}
	t, err := NewTask(def, time.Now())
	if err != nil {
		if def.Arn != "" {
			e.add(Unrecognized(def, err, time.Now()))
		}
		return err
	}
	e.keepCredentials(def)
	e.add(t)
	return nil
}

func (e *Engine) keepCredentials(def acs.Task) {
	for _, c := range []*acs.IAMRoleCredentials{def.RoleCredentials, def.ExecutionRoleCredentials} {
		if c != nil && c.CredentialsID != "" {
			e.cfg.Credentials.Put(def.Arn, *c)
		}
	}
}

// Stop asks a task to end. Unknown tasks have ended.
func (e *Engine) Stop(arn string) {
	e.mu.Lock()
	r := e.tasks[arn]
	e.mu.Unlock()
	if r != nil {
		r.stop()
	}
}

// Tasks answers copies of all tasks, oldest first.
func (e *Engine) Tasks() []*Task {
	e.mu.Lock()
	runners := make([]*runner, 0, len(e.tasks))
	for _, r := range e.tasks {
		runners = append(runners, r)
	}
	e.mu.Unlock()
	tasks := make([]*Task, len(runners))
	for i, r := range runners {
		tasks[i] = r.snapshot()
	}
	slices.SortFunc(tasks, func(a, b *Task) int {
		return cmp.Or(a.ReceivedAt.Compare(b.ReceivedAt), cmp.Compare(a.Def.Arn, b.Def.Arn))
	})
	return tasks
}

// Lookup answers a copy of the task that has a container with this runtime
// id, and the container.
func (e *Engine) Lookup(runtimeID string) (*Task, *Container) {
	e.mu.Lock()
	r := e.owner[runtimeID]
	e.mu.Unlock()
	if r == nil {
		return nil, nil
	}
	t := r.snapshot()
	for _, c := range t.Containers {
		if c.RuntimeID == runtimeID {
			return t, c
		}
	}
	return nil, nil
}

// Changed receives when a container's health may have changed.
func (e *Engine) Changed() <-chan struct{} { return e.changed }

func (e *Engine) noteChange() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

func (e *Engine) volumesDir() string { return filepath.Join(e.cfg.DataDir, "volumes") }
func (e *Engine) sharedDir() string  { return filepath.Join(e.cfg.DataDir, "shared-volumes") }

// available repeats f for as long as the runtime does not answer.
func (e *Engine) available(ctx context.Context, f func() error) error {
	wait := 100 * time.Millisecond
	for {
		err := f()
		if !errors.Is(err, runtime.ErrUnavailable) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
		wait = min(2*wait, 5*time.Second)
	}
}
