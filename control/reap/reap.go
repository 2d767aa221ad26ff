// Package reap forgets what AWS forgets: stopped tasks and inactive services
// after an hour. It never touches anything that is not already ended.
package reap

import (
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// keep is how long ended things stay visible: at least one hour in AWS (facts: tasks).
const keep = time.Hour

// batch bounds one transaction; the rest follows in the next plan.
const batch = 500

// Controller reaps.
var Controller = control.Controller{
	Name: "reap",
	// Nothing that changes can be due within the hour, so time alone calls it.
	Reads: []store.AnyTable{state.Regions},
	Plan:  Plan,
}

// Plan deletes what ended an hour ago, and wakes for what ends later.
func Plan(in control.Input) (p control.Plan) {
	p.WakeAt(in.Now.Add(keep))
	due := func(end time.Time) bool {
		if end.IsZero() {
			return false
		}
		if len(p.Changes) >= batch {
			p.WakeAt(in.Now)
			return false
		}
		if at := end.Add(keep); at.After(in.Now) {
			p.WakeAt(at)
			return false
		}
		return true
	}
	for t := range state.Tasks.By(in.Read, "status", state.Stopped) {
		if due(t.StoppedAt) {
			control.Delete(&p, state.Tasks, t.ARN, t)
		}
	}
	for s := range state.Services.All(in.Read) {
		if s.Status == "INACTIVE" && due(s.DeletedAt) {
			control.Delete(&p, state.Services, s.ARN, s)
			if e, ok := state.Events.Get(in.Read, s.ARN); ok {
				control.Delete(&p, state.Events, s.ARN, e)
			}
		}
	}
	return p
}
