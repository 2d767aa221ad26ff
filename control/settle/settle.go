// Package settle ends what nobody else will end: tasks that were stopped
// before any machine had them, tasks whose interface failed, tasks whose EC2
// instance is gone, and interfaces whose task is gone. It never stops a task
// that can still run.
package settle

import (
	"fmt"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Controller settles tasks.
var Controller = control.Controller{
	Name:  "settle",
	Reads: []store.AnyTable{state.Tasks, state.NetworkInterfaces, state.Instances},
	Plan:  Plan,
}

// Plan settles every changed task and interface.
func Plan(in control.Input) (p control.Plan) {
	ended := map[string]bool{}
	for i := range machines(in) {
		hostGone(&p, in, i, ended)
	}
	for t := range tasks(in) {
		if ended[t.ARN] {
			continue
		}
		if n := settle(in, t); n != nil {
			control.Put(&p, state.Tasks, t.ARN, t, n)
		}
	}
	for e := range interfaces(in) {
		if e.Task == "" || e.Deleting {
			continue
		}
		t, ok := state.Tasks.Get(in.Read, e.Task)
		if ok && !t.Past(state.Deprovisioning) {
			continue
		}
		n := *e
		n.Deleting = true
		control.Put(&p, state.NetworkInterfaces, e.ID, e, &n)
	}
	return p
}

// machines are the EC2 instances to look at.
func machines(in control.Input) func(yield func(*state.Instance) bool) {
	return func(yield func(*state.Instance) bool) {
		if in.All {
			for i := range state.Instances.All(in.Read) {
				if !yield(i) {
					return
				}
			}
			return
		}
		for _, k := range in.Changed.Keys(state.Instances) {
			if i, ok := state.Instances.Get(in.Read, k); ok && !yield(i) {
				return
			}
		}
	}
}

// hostGone ends the tasks of an EC2 instance that was stopped or terminated, as
// AWS puts it (facts: tasks). One that was terminated is deregistered.
func hostGone(p *control.Plan, in control.Input, i *state.Instance, ended map[string]bool) {
	if i.State != "stopped" && i.State != "terminated" {
		return
	}
	for ci := range state.ContainerInstances.By(in.Read, "ec2", i.ID) {
		for t := range state.Tasks.By(in.Read, "instance", ci.ARN) {
			if t.Past(state.Deprovisioning) || ended[t.ARN] {
				continue
			}
			n := t.Clone()
			n.WantStop("TerminationNotice", "Host EC2 (instance "+i.ID+") "+i.State+".", in.Now)
			for k := range n.Containers {
				n.Containers[k].LastStatus = state.Stopped
			}
			if n.ExecutionStoppedAt.IsZero() {
				n.ExecutionStoppedAt = in.Now
			}
			if n.ENI == "" {
				n.End(in.Now)
			} else {
				n.Advance(state.Deprovisioning) // its interface follows
			}
			ended[t.ARN] = true
			control.Put(p, state.Tasks, t.ARN, t, n)
		}
		if i.State == "terminated" && ci.Status != "INACTIVE" {
			n := *ci
			n.Status, n.AgentConnected, n.DeregisteredAt = "INACTIVE", false, in.Now
			n.Version++
			control.Put(p, state.ContainerInstances, ci.ARN, ci, &n)
		}
	}
}

// settle returns the task's next row, nil when there is nothing to do.
func settle(in control.Input, t *state.Task) *state.Task {
	if t.LastStatus == state.Stopped {
		return nil
	}
	if t.ENI != "" {
		e, ok := state.NetworkInterfaces.Get(in.Read, t.ENI)
		switch {
		case t.LastStatus == state.Deprovisioning && !ok:
			n := t.Clone()
			n.End(in.Now)
			return n
		case ok && e.Failure != "" && t.DesiredStatus == state.Running && !t.Past(state.Running):
			n := t.Clone()
			if a := n.NetworkAttachment(); a != nil {
				a.Status = "FAILED"
			}
			n.WantStop("TaskFailedToStart", fmt.Sprintf("ResourceInitializationError: network interface %s: %s", e.ID, e.Failure), in.Now)
			return n
		}
		return nil
	}
	if t.DesiredStatus == state.Stopped && t.Instance == "" || t.LastStatus == state.Deprovisioning ||
		t.DesiredStatus == state.Stopped && t.Network != nil && t.LastStatus == state.Provisioning {
		// No agent was ever told of it: nothing has run, nothing is left.
		n := t.Clone()
		n.End(in.Now)
		return n
	}
	return nil
}

func tasks(in control.Input) func(yield func(*state.Task) bool) {
	return func(yield func(*state.Task) bool) {
		if in.All {
			for t := range state.Tasks.All(in.Read) {
				if !yield(t) {
					return
				}
			}
			return
		}
		seen := map[string]bool{}
		for _, k := range in.Changed.Keys(state.Tasks) {
			seen[k] = true
			if t, ok := state.Tasks.Get(in.Read, k); ok && !yield(t) {
				return
			}
		}
		for _, k := range in.Changed.Keys(state.NetworkInterfaces) {
			e, ok := state.NetworkInterfaces.Get(in.Read, k)
			if !ok || seen[e.Task] {
				continue
			}
			if t, ok := state.Tasks.Get(in.Read, e.Task); ok && !yield(t) {
				return
			}
		}
	}
}

func interfaces(in control.Input) func(yield func(*state.NetworkInterface) bool) {
	return func(yield func(*state.NetworkInterface) bool) {
		if in.All {
			for e := range state.NetworkInterfaces.All(in.Read) {
				if !yield(e) {
					return
				}
			}
			return
		}
		for _, k := range in.Changed.Keys(state.Tasks) {
			t, ok := state.Tasks.Get(in.Read, k)
			if !ok || t.ENI == "" {
				continue
			}
			if e, ok := state.NetworkInterfaces.Get(in.Read, t.ENI); ok && !yield(e) {
				return
			}
		}
	}
}
