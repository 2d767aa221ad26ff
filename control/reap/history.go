package reap

import (
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// keepDeployments is how long a service's history goes back (facts: services).
const keepDeployments = 90 * 24 * time.Hour

// History forgets what is due by time alone and not missed if it stays a little
// longer. It looks through all of it, and so only once in a while.
var History = control.Controller{
	Name:  "history",
	Reads: []store.AnyTable{state.Regions},
	Plan:  PlanHistory,
}

// PlanHistory deletes service deployments and revisions that are old, or whose
// service is gone, and the client tokens of yesterday.
func PlanHistory(in control.Input) (p control.Plan) {
	p.WakeAt(in.Now.Add(keep))
	room := func() bool {
		if len(p.Changes) < batch {
			return true
		}
		p.WakeAt(in.Now)
		return false
	}
	history(in, &p, room)
	tokens(in, &p, room)
	return p
}

// history forgets service deployments and revisions. A service that took the
// name of a deleted one begins anew: what is older than it was its predecessor's.
func history(in control.Input, p *control.Plan, room func() bool) {
	gone := func(service string, created time.Time) bool {
		s, ok := state.Services.Get(in.Read, service)
		return !ok || created.Before(s.CreatedAt)
	}
	old := func(t time.Time) bool { return !t.Add(keepDeployments).After(in.Now) }
	shown := map[string]bool{}
	for d := range state.ServiceDeployments.All(in.Read) {
		if gone(d.Service, d.CreatedAt) || d.Finished() && old(d.CreatedAt) {
			if !room() {
				return
			}
			control.Delete(p, state.ServiceDeployments, d.ARN, d)
			continue
		}
		shown[d.Target.Revision] = true
		for _, c := range d.Sources {
			shown[c.Revision] = true
		}
		if d.Rollback != nil {
			shown[d.Rollback.Revision] = true
		}
	}
	for v := range state.ServiceRevisions.All(in.Read) {
		if !gone(v.Service, v.CreatedAt) && (shown[v.ARN] || !old(v.CreatedAt) || runs(in, v)) {
			continue
		}
		if !room() {
			return
		}
		control.Delete(p, state.ServiceRevisions, v.ARN, v)
	}
}

// runs reports whether a service runs the revision, or would go back to it.
func runs(in control.Input, v *state.ServiceRevision) bool {
	s, ok := state.Services.Get(in.Read, v.Service)
	if !ok {
		return false
	}
	if s.LastCompleted != nil && state.RevisionARN(s.ARN, s.LastCompleted.ID) == v.ARN {
		return true
	}
	for _, d := range s.Deployments {
		if state.RevisionARN(s.ARN, d.ID) == v.ARN {
			return true
		}
	}
	return false
}

// tokens forgets client tokens: what is asked for with one of them again is new.
func tokens(in control.Input, p *control.Plan, room func() bool) {
	for t := range state.ClientTokens.All(in.Read) {
		if t.At.Add(state.ClientTokenLife).After(in.Now) {
			continue
		}
		if !room() {
			return
		}
		control.Delete(p, state.ClientTokens, state.ClientTokenKey(t.Account, t.Operation, t.Token), t)
	}
}
