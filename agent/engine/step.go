package engine

import (
	"time"

	"github.com/berth-run/berth/dispatch/acs"
)

// Op is something that takes time and is done outside of Step.
type Op string

// What Step can ask for.
const (
	Prepare Op = "prepare" // make the task's cgroup, volumes and log streams
	Enter   Op = "enter"   // wait for the network namespace
	Attach  Op = "attach"  // wait for the network interface, serve the metadata endpoint
	Settle  Op = "settle"  // leave the network namespace, deliver the logs
	Remove  Op = "remove"  // leave nothing of the task

	Pull   Op = "pull"
	Create Op = "create"
	Start  Op = "start" // also again, in place
	Term   Op = "term"  // send the stop signal
	Kill   Op = "kill"  // send SIGKILL
	Probe  Op = "probe" // run the health check
)

// Action is an Op on a container or, without one, on the task.
type Action struct {
	Op        Op
	Container string
}

const (
	defaultStopTimeout   = 30 * time.Second
	defaultRestartPeriod = 60 * time.Second
	killAgain            = 10 * time.Second // a kill that had no effect is repeated after this
)

// exitDependency is the exit code of a container that never ran because what
// it depends on failed: that of one which was asked to end.
const exitDependency = 143

// Step is the life of a task. It looks at what is known, decides what has to
// be decided, and answers what is to be begun now; and, if something is due
// even when nothing happens, when to look again. It reads nothing but its
// receiver and its argument. Whoever calls it begins every action it answers
// and tells [Task.Apply] of every outcome.
func (t *Task) Step(now time.Time) (do []Action, wake time.Time) {
	if t.Desired == Running && t.mustStop() {
		t.Desired = Stopped
	}
	if !t.Prepared && !t.Settled && t.busy == "" && (t.Desired == Running || t.written()) {
		t.busy = Prepare
		do = append(do, Action{Op: Prepare})
	}
	if t.Desired == Running && !t.Network && !t.awaiting {
		t.awaiting = true
		do = append(do, Action{Op: Attach})
	}
	if t.Desired == Running && t.Interface() != nil && !t.Network && !t.Namespace && !t.entering {
		t.entering = true
		do = append(do, Action{Op: Enter})
	}

	// A container that stops can decide about its dependants and about the
	// task, so go round until nothing was decided any more.
	for decided := true; decided; {
		decided = false
		if t.Desired == Running {
			// First, so that nothing is begun in a task that has to stop for it.
			for _, c := range t.Containers {
				decided = t.giveUp(c, now) || decided
			}
			if t.mustStop() {
				t.Desired = Stopped
			}
			if decided {
				continue
			}
		}
		for _, c := range t.Containers {
			var ops []Op
			var due time.Time
			before := c.Phase
			switch {
			case c.Phase == Stopped:
			case t.Desired == Stopped:
				ops, due = t.stop(c, now)
			default:
				ops, due = t.advance(c, now)
			}
			for _, op := range ops {
				do = append(do, Action{Op: op, Container: c.Def.Name})
			}
			wake = earlier(wake, due)
			if c.Phase != before {
				decided = true
			}
		}
	}

	switch {
	case t.Known() < Running:
	case t.Known() == Running:
		if t.RunningAt.IsZero() {
			t.RunningAt = now
		}
	default:
		t.noteRan(now)
		if t.StoppedAt.IsZero() {
			t.StoppedAt = now
		}
		if !t.Settled && t.busy == "" && !t.awaiting && !t.entering {
			t.busy = Settle
			do = append(do, Action{Op: Settle})
		}
	}
	return do, wake
}

// mustStop reports whether the task cannot go on as it is.
func (t *Task) mustStop() bool {
	if t.Reason != "" {
		return true
	}
	all := true
	for _, c := range t.Containers {
		if c.Phase == Stopped && c.Def.Essential {
			return true
		}
		all = all && c.Phase == Stopped
	}
	return all
}

// written reports whether containers of the task may have written something.
// After a restart of the agent even a task that is to stop needs its logs.
func (t *Task) written() bool {
	for _, c := range t.Containers {
		if !c.CreatedAt.IsZero() {
			return true
		}
	}
	return false
}

// noteRan dates a task whose containers were all started, the last of them
// while others had ended already. The control plane must hear that it ran.
func (t *Task) noteRan(now time.Time) {
	if !t.RunningAt.IsZero() || len(t.Containers) == 0 {
		return
	}
	for _, c := range t.Containers {
		if c.StartedAt.IsZero() {
			return
		}
	}
	t.RunningAt = now
}

// giveUp ends a container that can never start, because of what it depends on.
func (t *Task) giveUp(c *Container, now time.Time) bool {
	if c.Phase >= Running || c.busy != "" {
		return false
	}
	v := t.dependencies(c, now)
	if v.never == "" {
		return false
	}
	c.Phase, c.FinishedAt = Stopped, now
	c.ExitCode, c.Reason = new(exitDependency), "CannotStartContainerError: "+v.never
	t.essentialStopped(c, now)
	return true
}

// advance takes a container a step further towards running, or keeps it there.
func (t *Task) advance(c *Container, now time.Time) (ops []Op, wake time.Time) {
	begin := func(op Op) { c.busy, ops = op, append(ops, op) }
	if c.Phase == Running {
		switch {
		case c.busy != "":
		case c.down:
			begin(Start)
		default:
			return t.watch(c, now)
		}
		return ops, wake
	}
	v := t.dependencies(c, now)
	wake = v.wake
	switch {
	case c.busy != "":
	case c.Phase == None:
		if t.PullStartedAt.IsZero() {
			t.PullStartedAt = now
		}
		begin(Pull)
	case c.Phase == Pulled && t.Prepared && (t.Network || t.Namespace) && t.volumesReady(c) && t.linksReady(c):
		// A container is made while its network still is: nothing of it runs yet.
		begin(Create)
	case c.Phase == Created && t.Network && v.ok:
		begin(Start)
	}
	return ops, wake
}

// watch runs a container's health check when it is due.
func (t *Task) watch(c *Container, now time.Time) (ops []Op, wake time.Time) {
	h := c.healthcheck()
	if h == nil || c.probing {
		return nil, time.Time{}
	}
	last := c.Health.LastAt
	if last.Before(c.StartedAt) {
		last = c.StartedAt
	}
	if due := last.Add(h.Interval); now.Before(due) {
		return nil, due
	}
	c.probing = true
	return []Op{Probe}, time.Time{}
}

// stop takes a container a step further towards its end: not before those
// that depend on it have ended, first by asking, then by killing.
func (t *Task) stop(c *Container, now time.Time) (ops []Op, wake time.Time) {
	switch {
	case c.busy != "":
		return nil, time.Time{} // what is under way ends first; pulls are cancelled
	case c.Phase < Running, c.down:
		// Nothing of it runs.
		c.Phase, c.down = Stopped, false
		if c.FinishedAt.IsZero() {
			c.FinishedAt = now
		}
		return nil, time.Time{}
	case t.dependants(c):
		return nil, time.Time{}
	case c.TermAt.IsZero():
		c.TermAt = now
		return []Op{Term}, now.Add(c.stopTimeout())
	}
	due := c.TermAt.Add(c.stopTimeout())
	if !c.KillAt.IsZero() {
		due = c.KillAt.Add(killAgain)
	}
	if now.Before(due) {
		return nil, due
	}
	c.KillAt = now
	return []Op{Kill}, now.Add(killAgain)
}

func (c *Container) stopTimeout() time.Duration {
	if c.Def.StopTimeout > 0 {
		return time.Duration(c.Def.StopTimeout) * time.Second
	}
	return defaultStopTimeout
}

// essentialStopped dates the end of the task's work.
func (t *Task) essentialStopped(c *Container, now time.Time) {
	if c.Def.Essential && t.ExecutionStoppedAt.IsZero() {
		t.ExecutionStoppedAt = now
	}
}

// restarts reports whether a container that exited is started again in place.
func (t *Task) restarts(c *Container, code int, now time.Time) bool {
	p := c.Def.RestartPolicy
	if p == nil || !p.Enabled || t.Desired == Stopped {
		return false
	}
	for _, ignored := range p.IgnoredExitCodes {
		if int(ignored) == code {
			return false
		}
	}
	period := defaultRestartPeriod
	if p.RestartAttemptPeriod > 0 {
		period = time.Duration(p.RestartAttemptPeriod) * time.Second
	}
	return now.Sub(c.StartedAt) >= period
}

// setHealth moves a container's health, dating changes only.
func (c *Container) setHealth(status string, now time.Time) {
	if c.Health.Status != status {
		c.Health.Status, c.Health.Since = status, now
	}
}

// probed takes the outcome of a health check in. Failures while the container
// is still in its start period do not count, unless it had been healthy.
func (c *Container) probed(ok bool, code int, output string, now time.Time) {
	c.probing = false
	h := c.healthcheck()
	if h == nil || c.Phase != Running || c.down {
		return
	}
	c.Health.LastAt, c.Health.ExitCode, c.Health.Output = now, code, output
	switch {
	case ok:
		c.Health.Failures = 0
		c.setHealth(acs.Healthy, now)
	case c.Health.Status == acs.HealthUnknown && now.Sub(c.StartedAt) < h.StartPeriod:
	default:
		if c.Health.Failures++; c.Health.Failures >= h.Retries {
			c.setHealth(acs.Unhealthy, now)
		}
	}
}
