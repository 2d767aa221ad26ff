package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/agent/bridge"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/dispatch/acs"
)

const (
	// drainLimit is how long the report that a task has stopped waits for its
	// logs to be delivered. Delivery goes on after that.
	drainLimit = 3 * time.Second
	// lastDrain is how long logs that cannot be delivered keep a task's
	// remains from being removed.
	lastDrain = 10 * time.Minute

	submitFirst = 250 * time.Millisecond
	submitMost  = time.Minute
)

// runner carries out what Step asks for, for one task: it is the only one
// that changes the task. Its goroutine runs Step whenever something happened;
// actions and reports are goroutines of their own, which it waits for.
type runner struct {
	e   *Engine
	log *slog.Logger

	mu       sync.Mutex
	t        *Task
	inbox    []Outcome
	wantStop bool

	kick chan struct{} // something is in the inbox, or was noted otherwise

	// Only run and what it waits for touch these.
	netns     string
	endpoint  io.Closer
	logMu     sync.Mutex
	logs      map[string]Log
	probes    sync.WaitGroup
	reporting bool // guarded by mu
	sum       uint64
	gone      bool // nothing is left of the task
}

func newRunner(e *Engine, t *Task) *runner {
	return &runner{
		e: e, t: t, log: e.cfg.Log.With("task", t.ID()),
		kick: make(chan struct{}, 1), logs: map[string]Log{},
	}
}

func (r *runner) snapshot() *Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.t.Clone()
}

func (r *runner) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

func (r *runner) deliver(o Outcome) {
	r.mu.Lock()
	r.inbox = append(r.inbox, o)
	r.mu.Unlock()
	r.wake()
}

func (r *runner) exited(_ context.Context, ev runtime.Event) {
	r.mu.Lock()
	for _, c := range r.t.Containers {
		if c.RuntimeID == ev.ID {
			r.inbox = append(r.inbox, Outcome{Action: Action{Container: c.Def.Name}, At: ev.ExitedAt, Exit: &ev})
		}
	}
	r.mu.Unlock()
	r.wake()
}

func (r *runner) stop() {
	r.mu.Lock()
	r.wantStop = true
	r.mu.Unlock()
	r.wake()
}

// run is the task's life as far as this agent sees it.
func (r *runner) run(ctx context.Context) {
	var wg sync.WaitGroup
	// work is what a stopping task has no use for any more.
	work, cancelWork := context.WithCancel(ctx)
	defer r.leave()
	defer r.probes.Wait()
	defer wg.Wait()
	defer cancelWork()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		r.mu.Lock()
		for _, o := range r.inbox {
			if r.t.Apply(o) && o.Op == Probe {
				r.e.noteChange()
			}
		}
		r.inbox = nil
		if r.wantStop {
			r.t.Desired = Stopped
		}
		do, wake := r.t.Step(now)
		removeAt, remove := r.removal()
		if remove && !now.Before(removeAt) {
			r.t.busy = Remove
			do = append(do, Action{Op: Remove})
		} else if remove {
			wake = earlier(wake, removeAt)
		}
		stopping := r.t.Desired == Stopped
		report, reportAt := r.t.Report(now)
		wake = earlier(wake, reportAt)
		if report != nil && !r.reporting {
			r.reporting = true
			wg.Go(func() { r.report(ctx) })
		}
		r.mu.Unlock()

		if stopping {
			cancelWork()
		}
		for _, a := range do {
			if a.Op == Remove {
				r.gone = r.remove(ctx)
				r.deliver(Outcome{Action: a, At: time.Now()})
				continue
			}
			wg.Go(func() {
				o := r.perform(ctx, work, a)
				o.Action, o.At = a, time.Now()
				if ctx.Err() == nil || o.Err == nil {
					r.deliver(o)
				}
			})
		}
		if r.gone {
			return
		}
		r.save()

		if wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
		case <-timer.C:
		}
	}
}

// removal is when the task's remains are to be removed, once that can be said.
func (r *runner) removal() (time.Time, bool) {
	if !r.t.Settled || r.t.Sent.Status != acs.StatusStopped || r.t.busy != "" {
		return time.Time{}, false
	}
	return r.t.StoppedAt.Add(r.e.cfg.CleanupWait), true
}

// leave lets go of everything that dies with the agent, and of nothing else.
func (r *runner) leave() {
	if r.endpoint != nil {
		r.endpoint.Close()
	}
	for _, l := range r.logs {
		l.Close()
	}
	r.mu.Lock()
	for _, o := range r.inbox { // what ended while the agent did
		r.t.Apply(o)
	}
	r.inbox = nil
	r.mu.Unlock()
	if !r.gone {
		r.save()
	}
}

// lastGrace is how long the end of the agent waits for a call that would
// leave something half done.
const lastGrace = 10 * time.Second

// whole calls f, and again for as long as the runtime does not answer. The end
// of ctx ends the repetition, but not a call that is under way.
func (r *runner) whole(ctx context.Context, f func(ctx context.Context) error) error {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		t := time.NewTimer(lastGrace)
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-last.Done():
		}
	})
	defer stop()
	return r.e.available(ctx, func() error { return f(last) })
}

func (r *runner) save() {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum, err := r.e.files.save(r.t, r.sum)
	if err != nil {
		r.log.Error("cannot write a checkpoint", "error", err)
	}
	r.sum = sum
}

// report submits state changes, one after the other, until there is nothing
// to tell. A change that the control plane calls invalid is not repeated;
// everything else is, for as long as it takes.
func (r *runner) report(ctx context.Context) {
	wait := submitFirst
	for {
		r.mu.Lock()
		in, _ := r.t.Report(time.Now())
		if in == nil {
			r.reporting = false
			r.mu.Unlock()
			r.wake() // a later change is dated by run
			return
		}
		r.mu.Unlock()

		err := r.submit(ctx, in)
		if err == nil || wire.Code(err) == "InvalidParameterException" {
			if err != nil {
				r.log.Error("the control plane refused a state change", "error", err)
			}
			r.mu.Lock()
			r.t.Accept(in)
			r.mu.Unlock()
			wait = submitFirst
			r.wake()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		r.log.Warn("cannot submit a state change", "error", err, "retry", wait)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(wait*3/2, submitMost)
	}
}

func (r *runner) submit(ctx context.Context, in *ecs.SubmitTaskStateChangeInput) error {
	select {
	case r.e.submitting <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.e.submitting }()
	return r.e.cfg.Submit(ctx, in)
}

// perform does what Step asked for. work ends when the task is to stop, ctx
// when the agent ends.
func (r *runner) perform(ctx, work context.Context, a Action) Outcome {
	t := r.snapshot()
	if a.Container == "" {
		switch a.Op {
		case Prepare:
			if t.Desired == Stopped {
				// Only to go on reading what is still written.
				work = ctx
			}
			return Outcome{Err: r.prepare(work, t)}
		case Enter:
			return Outcome{Err: r.enter(work, t)}
		case Attach:
			return Outcome{Err: r.attach(work, t)}
		case Settle:
			r.settle(ctx)
		}
		return Outcome{}
	}
	c := t.Container(a.Container)
	switch a.Op {
	case Pull:
		img, err := r.e.cfg.Images.Pull(work, t, c)
		return Outcome{Image: img, Err: err}
	case Create:
		return r.create(ctx, t, c)
	case Start:
		return r.start(ctx, c)
	case Term:
		return Outcome{Err: r.kill(ctx, c, stopSignal(c))}
	case Kill:
		return Outcome{Err: r.kill(ctx, c, syscall.SIGKILL)}
	case Probe:
		return r.probe(work, c)
	}
	return Outcome{}
}

// prepare makes what containers of the task share, and their logs.
func (r *runner) prepare(ctx context.Context, t *Task) error {
	if err := t.unsupported(); err != nil {
		return taskError(ctx, "ResourceInitializationError", err)
	}
	err := r.e.available(ctx, func() error { return r.e.cfg.Runtime.CreateGroup(ctx, t.group()) })
	if err != nil {
		return taskError(ctx, "resource cannot be initialized for task "+t.Def.Arn, err)
	}
	if err := os.MkdirAll(filepath.Join(r.e.volumesDir(), t.ID()), 0o755); err != nil {
		return taskError(ctx, "resource cannot be initialized for task "+t.Def.Arn, err)
	}
	errs := make([]error, len(t.Containers))
	var wg sync.WaitGroup
	for i, c := range t.Containers {
		if r.logOf(c) != nil {
			continue
		}
		wg.Go(func() {
			resume := !c.CreatedAt.IsZero()
			l, err := r.e.cfg.Logs.Open(ctx, t, c, resume)
			if err != nil {
				errs[i] = err
				return
			}
			r.setLog(c, l)
			if resume {
				r.copyLog(ctx, c)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// taskError makes err the reason of the task's end, unless it is only that
// the task is ending already.
func taskError(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if te, ok := errors.AsType[*TaskError](err); ok {
		return te
	}
	return &TaskError{Reason: what + ": " + err.Error()}
}

func (r *runner) logOf(c *Container) Log {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	return r.logs[c.Def.Name]
}

func (r *runner) setLog(c *Container, l Log) {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	r.logs[c.Def.Name] = l
}

// copyLog begins to read what the container's process writes.
func (r *runner) copyLog(ctx context.Context, c *Container) {
	l := r.logOf(c)
	if l == nil {
		return
	}
	out, err := r.e.cfg.Runtime.Output(ctx, c.RuntimeID)
	if err != nil {
		if !errors.Is(err, runtime.ErrNotFound) {
			r.log.Error("cannot read a container's output", "container", c.Def.Name, "error", err)
		}
		return
	}
	l.Copy(out)
}

// enter waits for the namespace that the task's containers are made in.
func (r *runner) enter(ctx context.Context, t *Task) error {
	eni := t.Interface()
	path, err := r.e.cfg.Enter(ctx, eni.EC2ID)
	if err != nil {
		return taskError(ctx, "ResourceInitializationError: cannot attach network interface "+eni.EC2ID, err)
	}
	r.setNetns(path)
	return nil
}

// attach waits for the task's interface and serves the metadata endpoint to it.
func (r *runner) attach(ctx context.Context, t *Task) error {
	eni := t.Interface()
	if eni == nil {
		switch {
		case t.Def.NetworkMode == "none":
		case r.e.cfg.Host == nil:
			return taskError(ctx, "ResourceInitializationError", fmt.Errorf("network mode %q is not supported by this agent", t.Def.NetworkMode))
		case t.Def.NetworkMode == "host":
			r.setNetns(r.e.cfg.Host.NetNS)
		}
		return nil
	}
	netns, err := r.e.cfg.Attach(ctx, eni.EC2ID)
	if err != nil {
		return taskError(ctx, "ResourceInitializationError: cannot attach network interface "+eni.EC2ID, err)
	}
	endpoint, err := r.e.cfg.Serve(ctx, t.Def.Arn, eni)
	if err != nil {
		return taskError(ctx, "ResourceInitializationError: cannot serve the task metadata endpoint", err)
	}
	r.setNetns(netns)
	r.endpoint = endpoint
	return nil
}

func (r *runner) setNetns(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.netns = path
}

// settle leaves the task's network namespace, which is about to go, and gives
// the logs a chance to be delivered before the task is reported as stopped.
func (r *runner) settle(ctx context.Context) {
	if r.endpoint != nil {
		r.endpoint.Close()
		r.endpoint = nil
	}
	// Before the task is told to have stopped: its ports are free then.
	r.disconnect()
	r.drain(ctx, drainLimit)
}

func (r *runner) drain(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := r.snapshot()
	var wg sync.WaitGroup
	for name, l := range r.logs {
		if c := t.Container(name); c == nil || c.StartedAt.IsZero() {
			continue // nobody ever wrote to it, and nobody will end it
		}
		wg.Go(func() {
			if err := l.Drain(ctx); err != nil {
				r.log.Warn("a log is not delivered yet", "container", name, "error", err)
			}
		})
	}
	wg.Wait()
}

func (r *runner) create(ctx context.Context, t *Task, c *Container) Outcome {
	r.mu.Lock()
	netns := r.netns
	r.mu.Unlock()
	h := host{
		region: r.e.cfg.Region, netns: netns, instance: r.e.cfg.Host,
		volumes: filepath.Join(r.e.volumesDir(), t.ID()), shared: r.e.sharedDir(),
	}
	if t.Bridged() {
		// An agent that died here finds the same place again, and one that
		// knows nothing of the container takes it back.
		place, err := r.connect(c)
		if err != nil {
			return Outcome{Err: err}
		}
		h.endpoint, h.netns = place, place.NetNS
	}
	s, err := t.spec(c, h)
	if err != nil {
		return Outcome{Err: &ContainerError{Name: "CannotCreateContainerError", Err: err}}
	}
	err = r.whole(ctx, func(ctx context.Context) error {
		err := r.e.cfg.Runtime.Create(ctx, s)
		if errors.Is(err, runtime.ErrExists) {
			// What an agent began and did not live to note.
			if err := r.e.cfg.Runtime.Delete(ctx, s.ID); err != nil {
				return err
			}
			return r.e.cfg.Runtime.Create(ctx, s)
		}
		return err
	})
	if err != nil {
		name := "CannotCreateContainerError"
		if errors.Is(err, runtime.ErrInvalid) || errors.Is(err, runtime.ErrProcess) {
			// Docker finds such mistakes when a container starts, and so says ECS.
			name = "CannotStartContainerError"
		}
		return Outcome{Err: &ContainerError{Name: name, Err: plain(err)}}
	}
	r.copyLog(ctx, c)
	return Outcome{Mounts: s.Mounts, Env: t.injectedEnv(c, r.e.cfg.Region), Place: h.endpoint}
}

// connect gives a container its place in the instance's network. Docker does so
// when it starts one, and in its words a port that is taken is told.
func (r *runner) connect(c *Container) (*bridge.Endpoint, error) {
	ports, err := c.ports()
	if err != nil {
		return nil, &ContainerError{Name: "CannotCreateContainerError", Err: err}
	}
	place, err := r.e.cfg.Host.Bridge.Connect(c.RuntimeID, ports)
	if err != nil {
		return nil, &ContainerError{Name: "CannotStartContainerError", Err: fmt.Errorf(
			"Error response from daemon: driver failed programming external connectivity on endpoint %s: %w", c.RuntimeID, err)}
	}
	return place, nil
}

// disconnect gives the places of the task's containers back.
func (r *runner) disconnect() {
	if r.e.cfg.Host == nil || !r.t.Bridged() {
		return
	}
	for _, c := range r.t.Containers {
		if err := r.e.cfg.Host.Bridge.Disconnect(c.RuntimeID); err != nil {
			r.log.Error("cannot disconnect a container", "container", c.Def.Name, "error", err)
		}
	}
}

func (r *runner) start(ctx context.Context, c *Container) Outcome {
	var pid int
	err := r.whole(ctx, func(ctx context.Context) (err error) {
		pid, err = r.e.cfg.Runtime.Start(ctx, c.RuntimeID)
		return err
	})
	if err != nil {
		return Outcome{Err: &ContainerError{Name: "CannotStartContainerError", Err: plain(err)}}
	}
	if !c.StartedAt.IsZero() {
		// Started in place: the output is a new one.
		r.copyLog(ctx, c)
	}
	return Outcome{Pid: pid}
}

// plain is err in the words that a user is told: without the class that it
// carries for the engine, and, where a process could not be started, in
// Fargate's.
func plain(err error) error {
	text := err.Error()
	if errors.Is(err, runtime.ErrProcess) {
		if i := strings.Index(text, "OCI runtime"); i >= 0 {
			return errors.New("ResourceInitializationError: failed to create new container runtime task: failed to create shim task: " + text[i:])
		}
	}
	return errors.New(strings.TrimSuffix(text, ": "+runtime.ErrInvalid.Error()))
}

// kill retries, because only an exit ends the wait for one.
func (r *runner) kill(ctx context.Context, c *Container, sig syscall.Signal) error {
	err := r.e.available(ctx, func() error { return r.e.cfg.Runtime.Kill(ctx, c.RuntimeID, sig) })
	if errors.Is(err, runtime.ErrNotFound) {
		// The runtime has lost it, so no exit will ever be told.
		r.exited(ctx, runtime.Event{ID: c.RuntimeID, ExitCode: 137, ExitedAt: time.Now()})
		return nil
	}
	if err != nil {
		r.log.Error("cannot signal a container", "container", c.Def.Name, "signal", sig, "error", err)
	}
	return err
}

// probe runs the health check once. One that exceeds its time has failed then
// and there: to be rid of its process can take longer, as when it leaves others
// behind that hold its output.
func (r *runner) probe(ctx context.Context, c *Container) Outcome {
	h := c.healthcheck()
	args := h.Test[1:]
	if h.Test[0] == "CMD-SHELL" {
		args = append([]string{"/bin/sh", "-c"}, args...)
	}
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	done := make(chan Outcome, 1)
	r.probes.Go(func() {
		defer cancel()
		res, err := r.e.cfg.Runtime.Exec(ctx, c.RuntimeID, runtime.Exec{Args: args})
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		done <- Outcome{Probe: &res, Err: err}
	})
	select {
	case o := <-done:
		return o
	case <-ctx.Done():
		return Outcome{Probe: &runtime.ExecResult{}, Err: ctx.Err()}
	}
}

// stopSignal is what asks a container to end.
func stopSignal(c *Container) syscall.Signal {
	name := c.Config.StopSignal
	if name == "" && c.Image != nil {
		name = c.Image.Config.StopSignal
	}
	return parseSignal(name)
}

// parseSignal reads SIGQUIT, QUIT or 3. What it cannot read is SIGTERM.
func parseSignal(name string) syscall.Signal {
	if sig := unix.SignalNum(name); sig != 0 {
		return sig
	}
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig
	}
	var n int
	if _, err := fmt.Sscanf(name, "%d", &n); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n)
	}
	return syscall.SIGTERM
}

// remove leaves nothing of the task. It reports whether it came to the end; if
// not, because the agent ends, the next agent will.
func (r *runner) remove(ctx context.Context) bool {
	r.drain(ctx, lastDrain)
	if ctx.Err() != nil {
		return false
	}
	for _, c := range r.t.Containers {
		err := r.whole(ctx, func(ctx context.Context) error { return r.e.cfg.Runtime.Delete(ctx, c.RuntimeID) })
		if err != nil && ctx.Err() != nil {
			return false
		}
		if err != nil {
			r.log.Error("cannot remove a container", "container", c.Def.Name, "error", err)
		}
	}
	r.disconnect() // again, should it have failed
	if r.e.cfg.Host != nil {
		if err := r.e.cfg.Host.Root.Release(r.t.ID()); err != nil {
			r.log.Error("cannot release a task's mounts", "error", err)
		}
	}
	err := r.whole(ctx, func(ctx context.Context) error { return r.e.cfg.Runtime.DeleteGroup(ctx, r.t.ID()) })
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		r.log.Error("cannot remove a task's cgroup", "error", err)
	}
	if err := os.RemoveAll(filepath.Join(r.e.volumesDir(), r.t.ID())); err != nil {
		r.log.Error("cannot remove a task's volumes", "error", err)
	}
	if err := r.e.cfg.Logs.Remove(r.t.ID()); err != nil {
		r.log.Error("cannot remove a task's logs", "error", err)
	}
	// Last: while the checkpoint is there, another agent can finish this.
	if err := r.e.files.remove(r.t.ID()); err != nil {
		r.log.Error("cannot remove a checkpoint", "error", err)
	}
	r.e.forget(r.t)
	return true
}
