// Package reap forgets what AWS forgets: stopped tasks, inactive services and
// deregistered container instances after an hour, client tokens after a day,
// the history of services after 90 days, and deleted task definitions once
// nothing refers to them. It never touches anything that is not already ended.
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

// again is when a deleted task definition that is still used is looked at again.
const again = time.Minute

// Controller reaps.
var Controller = control.Controller{
	Name: "reap",
	// Tasks, services and instances are due by time alone. A task definition may be free to go at once.
	Reads: []store.AnyTable{state.Regions, state.TaskDefinitions},
	Plan:  Plan,
}

// Plan deletes what ended an hour ago, and wakes for what ends later.
func Plan(in control.Input) (p control.Plan) {
	p.WakeAt(in.Now.Add(keep))
	room := func() bool {
		if len(p.Changes) < batch {
			return true
		}
		p.WakeAt(in.Now)
		return false
	}
	due := func(end time.Time) bool {
		if end.IsZero() || !room() {
			return false
		}
		if at := end.Add(keep); at.After(in.Now) {
			p.WakeAt(at)
			return false
		}
		return true
	}
	gone := false
	for t := range state.Tasks.By(in.Read, "status", state.Stopped) {
		if due(t.StoppedAt) {
			control.Delete(&p, state.Tasks, t.ARN, t)
			gone = true
		}
	}
	for s := range state.Services.All(in.Read) {
		if s.Status == "INACTIVE" && due(s.DeletedAt) {
			control.Delete(&p, state.Services, s.ARN, s)
			if e, ok := state.Events.Get(in.Read, s.ARN); ok {
				control.Delete(&p, state.Events, s.ARN, e)
			}
			gone = true
		}
	}
	for i := range state.ContainerInstances.All(in.Read) {
		if i.Status == "INACTIVE" && due(i.DeregisteredAt) {
			control.Delete(&p, state.ContainerInstances, i.ARN, i)
			if c, ok := state.Claims.Get(in.Read, i.ARN); ok {
				control.Delete(&p, state.Claims, i.ARN, c)
			}
		}
	}
	if gone {
		p.WakeAt(in.Now) // what these referred to may go now
		return p
	}
	var used map[string]bool
	for td := range state.TaskDefinitions.By(in.Read, "deleting", "") {
		if !room() {
			break
		}
		if used == nil {
			used = references(in.Read)
		}
		if used[td.ARN] {
			p.WakeAt(in.Now.Add(again))
			continue
		}
		// Nothing can come to refer to it any more: what is not ACTIVE starts nothing new.
		control.Delete(&p, state.TaskDefinitions, td.ARN, td)
	}
	return p
}

// references are the task definitions that a task which is not STOPPED, or a
// service that is not INACTIVE, may still need.
func references(r store.Reader) map[string]bool {
	used := map[string]bool{}
	for t := range state.Tasks.All(r) {
		if t.LastStatus != state.Stopped {
			used[t.TaskDefinition] = true
		}
	}
	for s := range state.TaskSets.All(r) {
		used[s.TaskDefinition] = true
	}
	for s := range state.Services.All(r) {
		if s.Status == "INACTIVE" {
			continue
		}
		used[s.TaskDefinition] = true
		for _, d := range s.Deployments {
			used[d.TaskDefinition] = true
		}
		if s.LastCompleted != nil {
			used[s.LastCompleted.TaskDefinition] = true
		}
	}
	return used
}
