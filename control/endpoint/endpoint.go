// Package endpoint owns the life of VPC endpoints after the call that made or
// deleted them: it chooses the machine on which each of their interfaces
// answers, says available once the machine has all of them in its kernel, and
// forgets an endpoint of which nothing is left. It writes an endpoint's State
// and Failure, and the Node and Deleting of its interfaces. It never takes an
// address.
package endpoint

import (
	"slices"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Controller owns endpoints.
var Controller = control.Controller{
	Name:  "endpoint",
	Reads: []store.AnyTable{state.Endpoints, state.NetworkInterfaces, state.Nodes},
	Plan:  Plan,
}

// Plan takes each endpoint one step further.
func Plan(in control.Input) (p control.Plan) {
	for e := range endpoints(in) {
		step(&p, in, e)
	}
	return p
}

// endpoints are those that may have something to do.
func endpoints(in control.Input) func(yield func(*state.Endpoint) bool) {
	return func(yield func(*state.Endpoint) bool) {
		if in.All || len(in.Changed.Keys(state.Nodes)) > 0 {
			for e := range state.Endpoints.All(in.Read) {
				if !yield(e) {
					return
				}
			}
			return
		}
		ids := slices.Clone(in.Changed.Keys(state.Endpoints))
		for _, k := range in.Changed.Keys(state.NetworkInterfaces) {
			if n, ok := state.NetworkInterfaces.Get(in.Read, k); ok {
				if n.Owner != "" {
					ids = append(ids, n.Owner)
				}
				continue
			}
			// An interface that is gone does not say whose it was: those that wait for one look.
			for e := range state.Endpoints.All(in.Read) {
				if e.State == "deleting" {
					ids = append(ids, e.ID)
				}
			}
		}
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			if e, ok := state.Endpoints.Get(in.Read, id); ok && !yield(e) {
				return
			}
		}
	}
}

func step(p *control.Plan, in control.Input, e *state.Endpoint) {
	next := *e
	left, attached, failure := 0, 0, ""
	for n := range state.NetworkInterfaces.By(in.Read, "owner", e.ID) {
		left++
		m := *n
		switch {
		case e.State == "deleting":
			m.Deleting = true
		case n.Deleting:
			left--
		case n.Node == "":
			m.Node = machine(in.Read, n.Zone)
		}
		if n.Attached && !n.Deleting {
			attached++
		}
		if n.Failure != "" {
			failure = n.Failure
		}
		if m.Deleting != n.Deleting || m.Node != n.Node {
			control.Put(p, state.NetworkInterfaces, n.ID, n, &m)
		}
	}
	switch {
	case e.State == "deleting" && left == 0:
		control.Delete(p, state.Endpoints, e.ID, e)
		return
	case e.State == "deleting":
		return
	case attached == left:
		next.State, next.Failure = "available", ""
	case failure != "" && e.State != "available":
		next.State, next.Failure = "failed", failure
	}
	if next.State != e.State || next.Failure != e.Failure {
		control.Put(p, state.Endpoints, e.ID, e, &next)
	}
}

// machine is one that plays a zone, "" if there is none yet.
func machine(r store.Reader, zone string) string {
	for n := range state.Nodes.All(r) {
		if n.Zone == "" || n.Zone == zone {
			return n.Name
		}
	}
	return ""
}
