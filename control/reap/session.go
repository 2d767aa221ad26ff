package reap

import (
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// keepSessions is how long Systems Manager's history goes back.
const keepSessions = 30 * 24 * time.Hour

// Sessions ends terminals for which nobody came, and forgets those of long ago.
var Sessions = control.Controller{
	Name:  "sessions",
	Reads: []store.AnyTable{state.Sessions},
	Plan:  PlanSessions,
}

// PlanSessions ends what waited too long and deletes what ended long ago.
func PlanSessions(in control.Input) (p control.Plan) {
	for s := range state.Sessions.All(in.Read) {
		var due time.Time
		switch {
		case s.Status == state.SessionConnecting:
			due = s.CreatedAt.Add(state.SessionWait)
		case s.Live():
			continue
		default:
			due = s.EndedAt.Add(keepSessions)
		}
		switch {
		case due.After(in.Now) || len(p.Changes) >= batch:
			p.WakeAt(due)
		case s.Live():
			control.Put(&p, state.Sessions, s.ID, s, s.End(state.SessionTerminated, in.Now))
		default:
			control.Delete(&p, state.Sessions, s.ID, s)
		}
	}
	return p
}
