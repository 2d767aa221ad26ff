// Package boot is the state machine of EC2 instances: it gives one a machine,
// and moves its state on as the machine reports. What is wanted of an instance
// (Want, Boots) the API writes; only where the instance itself has ended does
// this package follow with what is wanted.
//
// It reads instances, nodes, interfaces and container instances, and writes
// instances, their interfaces' node, passing public addresses and end, and the
// end of the container instances and tasks that were on them. It must never
// call an instance running that its node has not reported so.
package boot

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Controller moves instances on.
var Controller = control.Controller{
	Name:  "boot",
	Reads: []store.AnyTable{state.Instances, state.Nodes, state.NetworkInterfaces},
	Plan:  Plan,
}

// keep is how long a terminated instance is shown.
const keep = time.Hour

// States of an instance.
const (
	pending      = "pending"
	running      = "running"
	stopping     = "stopping"
	stopped      = "stopped"
	shuttingDown = "shutting-down"
	terminated   = "terminated"
)

// What nodes report of an instance (package dispatch/fabric).
const (
	reportedRunning = "running"
	reportedStopped = "stopped"
	reportedGone    = "gone"
	endedInside     = "inside"
	endedRootless   = "rootless" // or crash
)

// Plan moves every changed instance on.
func Plan(in control.Input) (p control.Plan) {
	pl := &plan{Plan: &p, in: in, free: state.FreeAddresses(in.Read)}
	for _, i := range instances(in) {
		pl.instance(i)
	}
	// A terminated one is waited for whatever has changed.
	for i := range state.Instances.All(in.Read) {
		if i.State == terminated && !i.EndedAt.IsZero() && i.EndedAt.Add(keep).After(in.Now) {
			p.WakeAt(i.EndedAt.Add(keep))
		}
	}
	return p
}

// instances are those that anything has changed of.
func instances(in control.Input) []*state.Instance {
	if in.All || len(in.Changed.Keys(state.Nodes)) > 0 {
		return slices.Collect(state.Instances.All(in.Read))
	}
	ids := map[string]bool{}
	for _, id := range in.Changed.Keys(state.Instances) {
		ids[id] = true
	}
	for _, id := range in.Changed.Keys(state.NetworkInterfaces) {
		if e, ok := state.NetworkInterfaces.Get(in.Read, id); ok && e.Attachment != nil {
			ids[e.Attachment.Instance] = true
		}
	}
	var out []*state.Instance
	for id := range ids {
		if i, ok := state.Instances.Get(in.Read, id); ok {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b *state.Instance) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

type plan struct {
	*control.Plan
	in   control.Input
	free *state.Addresses
	// load is what is wanted of each node's memory, once it was asked for.
	load map[string]int
}

func (p *plan) instance(old *state.Instance) {
	i := *old
	if i.State == terminated {
		if !i.EndedAt.IsZero() && !p.in.Now.Before(i.EndedAt.Add(keep)) {
			control.Delete(p.Plan, state.Instances, i.ID, old)
			if c, ok := state.Consoles.Get(p.in.Read, i.ID); ok {
				control.Delete(p.Plan, state.Consoles, i.ID, c)
			}
		}
		return
	}
	enis := slices.Collect(state.NetworkInterfaces.By(p.in.Read, "instance", i.ID))
	if i.Want == running && i.Node == "" {
		i.Node = p.choose(&i)
	}
	p.follow(&i)
	switch i.Want {
	case running:
		p.run(&i)
	case stopped:
		if i.State != stopped {
			if i.State != stopping {
				i.State = stopping
			}
			if i.Node == "" || i.ReportedState == reportedStopped || i.ReportedState == reportedGone {
				i.State = stopped
			}
		}
	case terminated:
		i.State = shuttingDown
		if i.Node == "" || i.ReportedState == reportedGone {
			i.State, i.EndedAt = terminated, p.in.Now
			p.WakeAt(p.in.Now.Add(keep))
		}
	}
	for _, e := range enis {
		p.device(&i, e)
	}
	if i.Want == terminated {
		p.closeSpot(&i)
	}
	if i.State != old.State && (i.State == stopped || i.State == terminated) {
		p.hostEnded(&i)
	}
	// A row holds slices, and what has changed here are words and times.
	if i.Node != old.Node || i.State != old.State || i.Want != old.Want || i.StateCode != old.StateCode || i.StateMessage != old.StateMessage ||
		i.TransitionReason != old.TransitionReason || !i.EndedAt.Equal(old.EndedAt) {
		control.Put(p.Plan, state.Instances, i.ID, old, &i)
	}
}

// closeSpot closes the Spot request of an instance that ends, whoever ended it.
func (p *plan) closeSpot(i *state.Instance) {
	s, ok := state.SpotRequests.Get(p.in.Read, i.Spot)
	if !ok || s.State != "active" {
		return
	}
	n := *s
	n.State, n.StatusCode, n.UpdatedAt = "closed", "instance-terminated-by-user", p.in.Now
	if i.StateCode == rootless {
		n.StatusCode = "system-error"
	}
	control.Put(p.Plan, state.SpotRequests, s.ID, s, &n)
}

// rootless is why an instance ended that never began.
const rootless = "Client.InvalidSnapshot.NotFound"

// follow works in that the instance has ended by itself.
func (p *plan) follow(i *state.Instance) {
	if i.Want != running || i.ReportedState != reportedStopped || i.ReportedBoots < i.Boots || i.ReportedEnd == "" {
		return
	}
	switch i.ReportedEnd {
	case endedInside:
		i.StateCode, i.StateMessage = "Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
		i.Want = stopped
		if i.OnShutdown == "terminate" {
			i.Want = terminated
		}
	case endedRootless:
		i.StateCode, i.StateMessage = rootless, "Client.InvalidSnapshot.NotFound: The specified snapshot was not found."
		i.Want = terminated
	default:
		i.StateCode, i.StateMessage = "Server.InternalError", "Server.InternalError: The first process of the instance ended unexpectedly"
		i.Want = stopped
	}
	i.TransitionReason = ""
}

// run is the state of one that is to run.
func (p *plan) run(i *state.Instance) {
	up := i.ReportedState == reportedRunning && i.ReportedBoots >= i.Boots
	switch {
	case up:
		i.State, i.StateCode, i.StateMessage = running, "", ""
		i.TransitionReason = ""
	case i.State == running && i.ReportedBoots < i.Boots:
		// It is being rebooted, which AWS shows as running.
	default:
		i.State = pending
		// Its node tries again; meanwhile it is seen why.
		i.StateCode, i.StateMessage = "", ""
		if i.Failure != "" {
			i.StateCode, i.StateMessage = "Server.InternalError", "Server.InternalError: "+i.Failure
		}
	}
}

// device is an interface of the instance.
func (p *plan) device(i *state.Instance, old *state.NetworkInterface) {
	if old.Deleting {
		return
	}
	e := *old
	switch {
	case i.State == terminated && e.Attachment.DeleteOnTermination:
		e.Deleting = true
	case i.State == terminated:
		e.Attachment, e.AttachmentID, e.Node, e.Attached = nil, "", "", false
		p.unpublish(&e)
	case i.State == stopped:
		p.unpublish(&e)
	case i.Want == running && i.Node != "":
		e.Node = i.Node
		if i.PublicIP && e.Attachment.Device == 0 && !e.Public.IsValid() {
			// Without one the instance runs all the same, and nobody reaches it.
			if x, err := p.free.Public(); err == nil {
				e.Public = x
				l := &state.AddressLease{Scope: state.PublicScope, Address: x, ENI: e.ID}
				control.Put(p.Plan, state.AddressLeases, state.LeaseKey(l.Scope, l.Address), nil, l)
			}
		}
	}
	if e.Deleting != old.Deleting || e.Node != old.Node || e.Public != old.Public || e.Attachment != old.Attachment {
		control.Put(p.Plan, state.NetworkInterfaces, e.ID, old, &e)
	}
}

// unpublish takes a passing public address away.
func (p *plan) unpublish(e *state.NetworkInterface) {
	if !e.Public.IsValid() || e.Allocation != "" {
		return
	}
	if l, ok := state.AddressLeases.Get(p.in.Read, state.LeaseKey(state.PublicScope, e.Public)); ok && l.ENI == e.ID {
		control.Delete(p.Plan, state.AddressLeases, state.LeaseKey(l.Scope, l.Address), l)
	}
	e.Public = netip.Addr{}
}

// choose is the machine of the instance's zone with the most memory that no
// other instance is to have; "" if there is none.
func (p *plan) choose(i *state.Instance) string {
	if p.load == nil {
		p.load = map[string]int{}
		for o := range state.Instances.All(p.in.Read) {
			if o.Node != "" && o.Want == running {
				p.load[o.Node] += memory(o)
			}
		}
	}
	best, most := "", 0
	for n := range state.Nodes.All(p.in.Read) {
		if n.Zone != "" && n.Zone != i.Zone {
			continue
		}
		if free := n.Memory - p.load[n.Name]; best == "" || free > most || free == most && n.Name < best {
			best, most = n.Name, free
		}
	}
	if best != "" {
		p.load[best] += memory(i)
	}
	return best
}

func memory(i *state.Instance) int {
	m, _ := state.InstanceType(i.Type)
	return m.Memory
}

// hostEnded ends what ECS has of the instance: no agent is left to say so.
func (p *plan) hostEnded(i *state.Instance) {
	ci, ok := state.ContainerInstances.Get(p.in.Read, i.ContainerInstance)
	if !ok {
		return
	}
	for t := range state.Tasks.By(p.in.Read, "instance", ci.ARN) {
		if t.LastStatus == state.Stopped {
			continue
		}
		n := t.Clone()
		n.WantStop("TerminationNotice", fmt.Sprintf("Host EC2 (instance %s) %s.", i.ID, i.State), p.in.Now)
		if n.ENI == "" {
			n.End(p.in.Now)
		} else {
			n.Advance(state.Deprovisioning)
		}
		control.Put(p.Plan, state.Tasks, t.ARN, t, n)
	}
	if i.State == terminated && ci.Status != inactive {
		n := *ci
		n.Status, n.DeregisteredAt, n.AgentConnected = inactive, p.in.Now, false
		n.Version++
		control.Put(p.Plan, state.ContainerInstances, ci.ARN, ci, &n)
	}
}

const inactive = "INACTIVE"
