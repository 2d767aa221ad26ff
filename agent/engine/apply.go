package engine

import (
	"context"
	"errors"
	"time"

	"github.com/berth-run/berth/agent/bridge"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/acs"
)

// Outcome is what came of an Action, or that a process ended.
type Outcome struct {
	Action
	At  time.Time
	Err error

	Image  runtime.Image     // Pull
	Env    map[string]string // Create
	Mounts []runtime.Mount   // Create
	Place  *bridge.Endpoint  // Create
	Pid    int               // Start
	Probe  *runtime.ExecResult
	Exit   *runtime.Event // without an Op
}

// TaskError is an outcome that ends the task as a whole; its text is the
// reason that the control plane is told.
type TaskError struct{ Reason string }

func (e *TaskError) Error() string { return e.Reason }

// ContainerError is an outcome that ends a container; its text is the reason
// that the control plane is told.
type ContainerError struct {
	Name string // CannotPullContainerError, …
	Err  error
}

func (e *ContainerError) Error() string { return e.Name + ": " + e.Err.Error() }
func (e *ContainerError) Unwrap() error { return e.Err }

// Apply takes an outcome in. Like Step it reads nothing but its arguments. It
// reports whether anything changed that a checkpoint should have.
func (t *Task) Apply(o Outcome) bool {
	if te, ok := errors.AsType[*TaskError](o.Err); ok && t.Reason == "" && t.Desired == Running {
		t.Reason = te.Reason
	}
	if o.Container == "" {
		return t.applyTask(o)
	}
	c := t.Container(o.Container)
	if c == nil {
		return false
	}
	if o.Exit != nil {
		return t.applyExit(c, o.Exit)
	}
	switch o.Op {
	case Term, Kill:
		return false // only the exit counts; Step repeats a kill
	case Probe:
		before := c.Health.Status
		switch {
		case o.Err == nil:
			c.probed(o.Probe.ExitCode == 0, o.Probe.ExitCode, string(o.Probe.Output), o.At)
		case errors.Is(o.Err, context.DeadlineExceeded):
			c.probed(false, -1, "Health check exceeded timeout ("+c.Config.Healthcheck.Timeout.String()+")", o.At)
		case errors.Is(o.Err, runtime.ErrNotRunning), errors.Is(o.Err, runtime.ErrUnavailable), errors.Is(o.Err, context.Canceled):
			// Nothing was learnt of the container. The next probe is an interval away.
			c.probing, c.Health.LastAt = false, o.At
		default:
			c.probed(false, -1, o.Err.Error(), o.At)
		}
		return c.Health.Status != before
	}
	c.busy = ""
	if c.Phase == Stopped {
		return false
	}
	if o.Err != nil {
		t.fail(c, o)
		return true
	}
	switch o.Op {
	case Pull:
		c.Phase, c.Image, c.Digest = Pulled, &o.Image, o.Image.Digest
		t.PullStoppedAt = o.At
	case Create:
		c.Phase, c.CreatedAt, c.Env, c.Mounts = Created, o.At, o.Env, o.Mounts
		if o.Place != nil {
			c.Address, c.Ports = o.Place.Address.String(), o.Place.Ports
		}
	case Start:
		if c.down {
			c.down = false
			c.RestartCount++
			c.ExitCode = nil
			c.Health = Health{Status: acs.HealthUnknown, Since: o.At}
		}
		c.Phase, c.StartedAt, c.Pid = Running, o.At, o.Pid
		if c.Health.Since.IsZero() {
			c.Health.Since = o.At
		}
		if e := c.early; e != nil {
			c.early = nil
			t.applyExit(c, e)
		}
	}
	return true
}

func (t *Task) applyTask(o Outcome) bool {
	switch o.Op {
	case Enter:
		t.entering = false
		t.Namespace = o.Err == nil
	case Attach:
		t.awaiting = false
		t.Network = o.Err == nil
	case Prepare:
		t.busy = ""
		t.Prepared = o.Err == nil || t.Desired == Stopped
	case Settle:
		t.busy = ""
		t.Settled = true
		t.Network, t.Namespace = false, false
	case Remove:
		t.busy = ""
		return false
	}
	return true
}

// fail ends a container whose pull, creation or start failed. The first error
// is the one that is told.
func (t *Task) fail(c *Container, o Outcome) {
	if c.down { // it could not be started again; its last exit stands
		c.down = false
	}
	c.Phase, c.FinishedAt = Stopped, o.At
	if ce, ok := errors.AsType[*ContainerError](o.Err); ok && c.Reason == "" && !(t.Desired == Stopped && errors.Is(o.Err, context.Canceled)) {
		c.Reason = ce.Error()
	}
	t.essentialStopped(c, o.At)
}

// applyExit notes that a container's process ended. The same exit may be told
// more than once, and late.
func (t *Task) applyExit(c *Container, e *runtime.Event) bool {
	if !c.FinishedAt.IsZero() && !e.ExitedAt.After(c.FinishedAt) {
		return false // that of before the last restart, told again
	}
	if c.busy == Start {
		c.early = e // the process was quicker than the word that it runs
		return false
	}
	if c.Phase != Running || c.down || e.Pid != 0 && c.Pid != 0 && e.Pid != c.Pid {
		return false
	}
	c.ExitCode, c.FinishedAt, c.Pid = new(e.ExitCode), e.ExitedAt, 0
	if t.restarts(c, e.ExitCode, e.ExitedAt) {
		c.down = true
		return true
	}
	c.Phase = Stopped
	if e.OOMKilled && e.ExitCode != 0 && c.Reason == "" {
		c.Reason = "OutOfMemoryError: Container killed due to memory usage"
	}
	t.essentialStopped(c, e.ExitedAt)
	return true
}
