// Package vacate empties the accounts that are closing, and forgets them: it
// deletes their services, stops their tasks, gives back their interfaces, and
// deletes their rows once nothing of them runs any more. The account's own row
// goes last, so whoever waits for that knows that all is gone.
//
// It never touches an account that is open, and deletes no row by which
// something that still runs could be found.
package vacate

import (
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// batch bounds one transaction; the rest follows in the next plan.
const batch = 500

// Controller vacates accounts.
var Controller = control.Controller{
	Name:  "vacate",
	Reads: []store.AnyTable{state.Accounts, state.Services, state.Tasks, state.NetworkInterfaces, state.ContainerInstances, state.Instances},
	Plan:  Plan,
}

// reason is why the tasks of a closing account stop.
const reason = "The account is closed"

// Plan takes each closing account one step further.
func Plan(in control.Input) (p control.Plan) {
	for a := range state.Accounts.By(in.Read, "closing", "") {
		if len(p.Changes) >= batch {
			p.WakeAt(in.Now)
			break
		}
		if !stop(&p, in, a.ID) {
			forget(&p, in, a)
		}
	}
	return p
}

// stop ends what runs. It reports whether anything does, or might yet.
func stop(p *control.Plan, in control.Input, account string) (running bool) {
	full := func() bool {
		if len(p.Changes) < batch {
			return false
		}
		p.WakeAt(in.Now)
		running = true
		return true
	}
	for s := range state.Services.All(in.Read) {
		if s.Account != account {
			continue
		}
		if full() {
			return running
		}
		// The row and its events go at once: a rollout rests on both, so none can start a task now.
		running = true
		control.Delete(p, state.Services, s.ARN, s)
		if e, ok := state.Events.Get(in.Read, s.ARN); ok {
			control.Delete(p, state.Events, s.ARN, e)
		}
	}
	// A group would replace what ends: it goes at once.
	for g := range state.ScalingGroups.By(in.Read, "account", account) {
		if full() {
			return running
		}
		running = true
		control.Delete(p, state.ScalingGroups, state.ScalingGroupKey(g.Account, g.Name), g)
	}
	for t := range state.Tasks.All(in.Read) {
		if t.Account != account || t.LastStatus == state.Stopped {
			continue
		}
		if full() {
			return running
		}
		running = true
		n := t.Clone()
		changed := n.WantStop("UserInitiated", reason, in.Now)
		if i, ok := state.ContainerInstances.Get(in.Read, t.Instance); ok && !i.Hidden && !i.AgentConnected {
			// The account's own machine, and it cannot be reached: it goes with the account.
			changed = n.End(in.Now) || changed
		}
		if changed {
			control.Put(p, state.Tasks, t.ARN, t, n)
		}
	}
	for i := range state.Instances.By(in.Read, "account", account) {
		if i.State == "terminated" {
			continue
		}
		if full() {
			return running
		}
		running = true
		if i.Want != state.InstanceTerminated {
			n := *i
			n.Want, n.State, n.TransitionReason = state.InstanceTerminated, "shutting-down", reason
			control.Put(p, state.Instances, i.ID, i, &n)
		}
	}
	for e := range state.NetworkInterfaces.All(in.Read) {
		if e.Account != account {
			continue
		}
		if full() {
			return running
		}
		running = true
		// An interface of an instance that has not ended yet still carries what it says.
		if e.Task == "" && !e.Deleting && !attached(in.Read, e) {
			n := *e
			n.Deleting = true
			control.Put(p, state.NetworkInterfaces, e.ID, e, &n)
		}
	}
	return running
}

// attached reports whether an instance that has not ended has the interface.
func attached(r store.Reader, e *state.NetworkInterface) bool {
	if e.Attachment == nil {
		return false
	}
	i, ok := state.Instances.Get(r, e.Attachment.Instance)
	return ok && i.State != "terminated"
}

// forget deletes rows, and when there are none left the account.
func forget(p *control.Plan, in control.Input, a *state.Account) {
	rows := state.Owned(in.Read, a.ID, batch)
	if len(rows) == 0 {
		control.Delete(p, state.Accounts, a.ID, a)
		return
	}
	for _, r := range rows {
		control.DeleteRow(p, r.Table, r.Key, r.Row)
	}
	p.WakeAt(in.Now)
}
