package engine

import (
	"time"

	"github.com/berth-run/berth/agent/runtime"
)

// Adopt brings a task from a checkpoint together with what the runtime has of
// it now, by container id. What was under way when the checkpoint was written
// may have been finished, or not; what the checkpoint does not know yet is
// taken from the runtime; what the runtime has lost has stopped.
func (t *Task) Adopt(found map[string]runtime.Container, now time.Time) {
	// The sockets and readers of the last agent are gone.
	t.Network, t.Namespace, t.Prepared = false, false, false
	t.busy, t.awaiting, t.entering = "", false, false
	for _, c := range t.Containers {
		c.busy, c.down, c.probing, c.early = "", false, false, nil
		if c.Phase == Stopped {
			continue
		}
		f, ok := found[c.RuntimeID]
		switch {
		case ok && f.Status == runtime.StatusRunning:
			c.Phase, c.Pid, c.Digest = Running, f.Pid, f.Image
			if c.StartedAt.IsZero() || f.StartedAt.After(c.StartedAt) {
				c.StartedAt = f.StartedAt
			}
			if c.CreatedAt.IsZero() {
				c.CreatedAt = f.CreatedAt
			}
		case ok && f.Status == runtime.StatusExited:
			if c.Phase < Running {
				c.Phase, c.StartedAt, c.Digest = Running, f.StartedAt, f.Image
			}
			if c.CreatedAt.IsZero() {
				c.CreatedAt = f.CreatedAt
			}
			t.applyExit(c, &runtime.Event{ID: f.ID, ExitCode: f.ExitCode, ExitedAt: f.ExitedAt, OOMKilled: f.OOMKilled})
			if c.Phase == Running && !c.down {
				// The exit is the one before a restart that never happened.
				c.down = true
			}
		case c.Phase < Created:
			// Nothing that matters has been done yet. What Create left half
			// done, it will find.
		case ok && f.Status == runtime.StatusCreated && c.Phase == Created:
		default:
			c.Phase, c.FinishedAt = Stopped, now
			c.Reason = "ContainerVanishedError: No container matching saved ID found"
			t.essentialStopped(c, now)
		}
	}
}
