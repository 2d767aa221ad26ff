// Package gateway decides the life of NAT gateways: which machine has a
// gateway's interface, that it is available once the kernel there has it, what
// AWS finds out late and fails it for, and that it is deleted once nothing of
// its interface is left.
//
// It never takes or gives back an address (package address does, when it
// removes the interface), and never makes a gateway.
package gateway

import (
	"fmt"
	"slices"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Controller moves NAT gateways through their states.
var Controller = control.Controller{
	Name:  "gateway",
	Reads: []store.AnyTable{state.NATGateways, state.NetworkInterfaces, state.InternetGateways, state.Nodes},
	Plan:  Plan,
}

// shown is how long a gateway that is no more is still described (facts: networking).
const shown = time.Hour

// Plan takes each NAT gateway one step further.
func Plan(in control.Input) (p control.Plan) {
	load := map[string]int{} // interfaces of gateways on a machine
	for g := range state.NATGateways.All(in.Read) {
		if e, ok := state.NetworkInterfaces.Get(in.Read, g.ENI); ok && e.Node != "" {
			load[e.Node]++
		}
	}
	for g := range state.NATGateways.All(in.Read) {
		e, _ := state.NetworkInterfaces.Get(in.Read, g.ENI)
		switch g.State {
		case "pending":
			begin(&p, in, g, e, load)
		case "available":
			if e == nil || e.Deleting {
				end(&p, in, g, e, "InternalError", "The NAT gateway has lost its network interface")
			}
		case "deleting":
			if e == nil {
				n := *g
				n.State = "deleted"
				control.Put(&p, state.NATGateways, g.ID, g, &n)
			} else if !e.Deleting {
				remove(&p, e)
			}
		case "deleted", "failed":
			if e != nil && !e.Deleting {
				remove(&p, e)
			}
			switch gone := g.DeletedAt.Add(shown); {
			case e != nil: // its row tells whose the interface is
			case gone.After(in.Now):
				p.WakeAt(gone)
			default:
				control.Delete(&p, state.NATGateways, g.ID, g)
			}
		}
	}
	return p
}

// begin brings a pending gateway to a machine, and sees it available there.
func begin(p *control.Plan, in control.Input, g *state.NATGateway, e *state.NetworkInterface, load map[string]int) {
	switch {
	case e == nil || e.Deleting:
		end(p, in, g, e, "InternalError", "The NAT gateway has lost its network interface")
	case g.Public && !attached(in.Read, g.VPC):
		end(p, in, g, e, "Gateway.NotAttached", fmt.Sprintf("Network %s has no Internet gateway attached", g.VPC))
	case e.Failure != "":
		end(p, in, g, e, "InternalError", "Network interface "+e.ID+" could not be set up: "+e.Failure)
	case e.Attached:
		n := *g
		n.State = "available"
		control.Put(p, state.NATGateways, g.ID, g, &n)
		// It is the interface that makes the gateway so.
		control.Require(p, state.NetworkInterfaces, e.ID, e)
	case e.Node == "":
		if node := machine(in.Read, e.Zone, load); node != "" {
			load[node]++
			n := *e
			n.Node = node
			control.Put(p, state.NetworkInterfaces, e.ID, e, &n)
		}
	}
}

// machine is the one of a zone that has the fewest gateways, "" if there is none yet.
func machine(r store.Reader, zone string, load map[string]int) string {
	var names []string
	for n := range state.Nodes.All(r) {
		if n.Zone == "" || n.Zone == zone {
			names = append(names, n.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.MinFunc(names, func(a, b string) int { return load[a] - load[b] })
}

func attached(r store.Reader, vpc string) bool {
	for range state.InternetGateways.By(r, "vpc", vpc) {
		return true
	}
	return false
}

// end fails a gateway and lets its interface go.
func end(p *control.Plan, in control.Input, g *state.NATGateway, e *state.NetworkInterface, code, message string) {
	n := *g
	n.State, n.FailureCode, n.Failure, n.DeletedAt = "failed", code, message, in.Now
	control.Put(p, state.NATGateways, g.ID, g, &n)
	if e != nil && !e.Deleting {
		remove(p, e)
	}
}

func remove(p *control.Plan, e *state.NetworkInterface) {
	n := *e
	n.Deleting = true
	control.Put(p, state.NetworkInterfaces, e.ID, e, &n)
}
