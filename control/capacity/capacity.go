// Package capacity makes Auto Scaling groups follow the tasks of ECS, for the
// capacity providers that stand for them: it says which container instances are
// a provider's, how many instances its group is to have, protects those that
// have tasks from scaling in, and empties those that are to end.
//
// It writes the capacity provider and the draining of container instances, the
// desired capacity, the protection and the draining hook of groups, and when
// managed scaling last looked low. It never launches or ends an instance
// (package group does) and moves no task (package deploy does).
package capacity

import (
	"cmp"
	"slices"
	"time"

	"github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Controller follows capacity providers.
var Controller = control.Controller{
	Name:  "capacity",
	Reads: []store.AnyTable{state.CapacityProviders, state.Clusters, state.Tasks, state.ContainerInstances, state.ScalingGroups, state.ScalingInstances},
	Plan:  Plan,
}

const (
	// Hook is the lifecycle hook by which instances wait until they are empty.
	Hook        = "ecs-managed-draining-termination-hook"
	hookTimeout = 3600

	// low is how long less than the target must be used before a group is scaled in, and
	// pause how long lies between two steps of it.
	low   = 15 * time.Minute
	pause = time.Minute
)

// Reservation is CapacityProviderReservation: needed instances of those there are, in percent.
func Reservation(needed, have int) float64 {
	switch {
	case have > 0:
		return float64(needed) / float64(have) * 100
	case needed > 0:
		return 200
	}
	return 100
}

// Needed is how many instances a provider needs that has so many, of which some
// have tasks and others are only starting, while tasks that wait would fill so
// many more.
func Needed(have, busy, starting, waiting, minStep, maxStep int) int {
	if more := waiting - starting; more > 0 {
		return have + min(max(more, minStep), maxStep)
	}
	return min(have, busy+min(starting, waiting))
}

// Target is the capacity at which the reservation comes to the target: from
// zero a group begins with two.
func Target(needed, have, target int) int {
	n := (needed*100 + target - 1) / target
	if have == 0 && needed > 0 {
		n = max(n, 2)
	}
	return n
}

// Bins is how many instances of a size take all of the tasks, the largest
// first. Those that none would take are left out.
func Bins(tasks []state.TaskUse, cpu, memory int) int {
	tasks = slices.Clone(tasks)
	slices.SortStableFunc(tasks, func(a, b state.TaskUse) int { return cmp.Or(b.Memory-a.Memory, b.CPU-a.CPU) })
	type bin struct {
		cpu, memory int
		ports       map[int]bool
	}
	var bins []*bin
	for _, t := range tasks {
		if t.CPU > cpu || t.Memory > memory {
			continue
		}
		free := func(b *bin) bool {
			for _, p := range t.TCP {
				if b.ports[p] {
					return false
				}
			}
			for _, p := range t.UDP {
				if b.ports[-p] {
					return false
				}
			}
			return b.cpu >= t.CPU && b.memory >= t.Memory
		}
		at := slices.IndexFunc(bins, free)
		if at < 0 {
			bins = append(bins, &bin{cpu, memory, map[int]bool{}})
			at = len(bins) - 1
		}
		b := bins[at]
		b.cpu, b.memory = b.cpu-t.CPU, b.memory-t.Memory
		for _, p := range t.TCP {
			b.ports[p] = true
		}
		for _, p := range t.UDP {
			b.ports[-p] = true
		}
	}
	return len(bins)
}

// Plan follows every capacity provider of a group.
func Plan(in control.Input) (p control.Plan) {
	hosts := map[string]*state.ContainerInstance{} // by EC2 instance
	for i := range state.ContainerInstances.All(in.Read) {
		if !i.Hidden && i.EC2InstanceID != "" && i.Status != "INACTIVE" {
			hosts[i.EC2InstanceID] = i
		}
	}
	of := map[string]string{} // provider, by EC2 instance
	next := map[string]*state.ContainerInstance{}
	change := func(i *state.ContainerInstance) *state.ContainerInstance {
		if next[i.ARN] == nil {
			n := *i
			n.Version++
			next[i.ARN] = &n
		}
		return next[i.ARN]
	}
	for x := range state.CapacityProviders.All(in.Read) {
		g, ok := x.GroupOf(in.Read)
		if !ok || g.Deleting {
			continue
		}
		w := &work{Plan: &p, in: in, provider: x, old: g, hosts: hosts, change: change}
		for c := range state.Clusters.By(in.Read, "account", x.Account) {
			if c.Status == "ACTIVE" && slices.Contains(c.CapacityProviders, x.Name) {
				w.clusters = append(w.clusters, c)
			}
		}
		for i := range state.ScalingInstances.By(in.Read, "group", g.ARN) {
			w.rows = append(w.rows, i)
			if h := hosts[i.ID]; h != nil && w.serves(h) {
				of[i.ID] = x.Name
			}
		}
		slices.SortFunc(w.rows, func(a, b *state.ScalingInstance) int { return cmp.Compare(a.ID, b.ID) })
		w.plan()
	}
	for id, h := range hosts {
		if h.CapacityProvider != of[id] {
			change(h).CapacityProvider = of[id]
		}
	}
	for i := range state.ContainerInstances.All(in.Read) {
		if n := next[i.ARN]; n != nil {
			control.Put(&p, state.ContainerInstances, i.ARN, i, n)
		}
	}
	return p
}

// work is one provider's part of a plan.
type work struct {
	*control.Plan
	in       control.Input
	provider *state.CapacityProvider
	clusters []*state.Cluster
	old, g   *state.ScalingGroup // g: nil until it changes
	rows     []*state.ScalingInstance
	hosts    map[string]*state.ContainerInstance
	change   func(*state.ContainerInstance) *state.ContainerInstance
}

func (w *work) serves(h *state.ContainerInstance) bool {
	return slices.ContainsFunc(w.clusters, func(c *state.Cluster) bool { return c.ARN == h.Cluster })
}

func (w *work) group() *state.ScalingGroup {
	if w.g == nil {
		w.g = w.old.Clone()
	}
	return w.g
}

func (w *work) plan() {
	w.hook()
	for _, i := range w.rows {
		w.instance(i)
	}
	w.scale()
	if w.g != nil {
		control.Put(w.Plan, state.ScalingGroups, state.ScalingGroupKey(w.old.Account, w.old.Name), w.old, w.g)
	}
}

// hook sees to it that the group has the hook of managed draining, or has it not.
func (w *work) hook() {
	want := len(w.clusters) > 0 && w.provider.Group.ManagedDraining == ecs.ManagedDrainingEnabled
	is := func(h autoscaling.LifecycleHook) bool { return *h.LifecycleHookName == Hook }
	switch have := slices.ContainsFunc(w.old.Hooks, is); {
	case want && !have:
		g := w.group()
		g.Hooks = append(g.Hooks, autoscaling.LifecycleHook{LifecycleHookName: new(Hook), AutoScalingGroupName: new(g.Name), LifecycleTransition: new(state.HookTerminating),
			HeartbeatTimeout: new(int32(hookTimeout)), GlobalTimeout: new(int32(48 * 3600)), DefaultResult: new("CONTINUE")})
	case !want && have:
		g := w.group()
		g.Hooks = slices.DeleteFunc(g.Hooks, is)
	}
}

// tasks counts those on a container instance: that are no daemon's, and that
// are a service's of these.
func (w *work) tasks(h *state.ContainerInstance) (busy, services int) {
	for t := range state.Tasks.By(w.in.Read, "instance", h.ARN) {
		if t.LastStatus == state.Stopped {
			continue
		}
		if s, ok := state.Services.Get(w.in.Read, t.Service); ok {
			if s.SchedulingStrategy == string(ecs.SchedulingStrategyDaemon) {
				continue
			}
			services++
		}
		busy++
	}
	return busy, services
}

// instance protects and drains one instance.
func (w *work) instance(i *state.ScalingInstance) {
	h := w.hosts[i.ID]
	if h != nil && !w.serves(h) {
		h = nil
	}
	n := *i
	n.Actions = slices.Clone(i.Actions)
	changed := false
	if w.provider.Group.ManagedTerminationProtection == ecs.ManagedTerminationProtectionEnabled && h != nil && !i.Leaving() {
		if busy, _ := w.tasks(h); (busy > 0) != i.Protected {
			n.Protected, changed = busy > 0, true
		}
	}
	for k := range n.Actions {
		a := &n.Actions[k]
		if a.Hook != Hook || a.Result != "" {
			continue
		}
		services := 0
		if h != nil {
			if h.Status == "ACTIVE" {
				w.change(h).Status = "DRAINING"
			}
			_, services = w.tasks(h)
		}
		switch beat := a.Deadline.Add(-a.Timeout / 2); {
		case services == 0:
			a.Result, changed = "CONTINUE", true
		case !beat.After(w.in.Now) && a.Deadline.Before(a.Limit):
			a.Deadline, changed = w.in.Now.Add(a.Timeout), true
			w.WakeAt(w.in.Now.Add(a.Timeout / 2))
		case beat.After(w.in.Now):
			w.WakeAt(beat)
		}
	}
	if changed {
		w.group() // whoever changes an instance changes its group
		control.Put(w.Plan, state.ScalingInstances, i.ID, i, &n)
	}
}

// scale sets how many instances the group is to have.
func (w *work) scale() {
	m := w.provider.Group.ManagedScaling
	if m == nil || m.Status != ecs.ManagedScalingStatusEnabled || len(w.clusters) == 0 {
		return
	}
	have, busy, starting := 0, 0, 0
	for _, i := range w.rows {
		if !i.Counts() {
			continue
		}
		have++
		h := w.hosts[i.ID]
		if h == nil || !w.serves(h) {
			starting++
			continue
		}
		if n, _ := w.tasks(h); n > 0 {
			busy++
		}
	}
	// What is wanted and not launched yet will start, too.
	if more := w.old.Desired() - have; more > 0 {
		have, starting = have+more, starting+more
	}
	var waiting []state.TaskUse
	for _, c := range w.clusters {
		for t := range state.Tasks.By(w.in.Read, "cluster", c.ARN) {
			if t.LastStatus == state.Provisioning && t.Instance == "" && t.DesiredStatus == state.Running && t.CapacityProvider == w.provider.Name {
				waiting = append(waiting, t.Uses(w.in.Read))
			}
		}
	}
	cpu, memory := w.size()
	need := Needed(have, busy, starting, Bins(waiting, cpu, memory), int(*m.MinimumScalingStepSize), int(*m.MaximumScalingStepSize))
	target := int(wire.Value(m.TargetCapacity))
	to := min(max(Target(need, have, target), w.old.Min()), w.old.Max())
	p := *w.provider
	switch r := Reservation(need, have); {
	case r >= float64(target) || to >= w.old.Desired():
		p.Low = time.Time{}
		if r > float64(target) && to > w.old.Desired() {
			w.group().Want(to, w.cause("High"), w.in.Now)
		}
	case p.Low.IsZero():
		p.Low = w.in.Now
		w.WakeAt(w.in.Now.Add(low))
	default:
		due := p.Low.Add(low)
		if next := p.ScaledAt.Add(pause); next.After(due) {
			due = next
		}
		if due.After(w.in.Now) {
			w.WakeAt(due)
			break
		}
		// At most half of them go at once.
		to = max(to, w.old.Desired()-max(1, w.old.Desired()/2))
		w.group().Want(to, w.cause("Low"), w.in.Now)
		p.ScaledAt = w.in.Now
		w.WakeAt(w.in.Now.Add(pause))
	}
	if !p.Low.Equal(w.provider.Low) || !p.ScaledAt.Equal(w.provider.ScaledAt) {
		control.Put(w.Plan, state.CapacityProviders, p.ARN, w.provider, &p)
	}
}

func (w *work) cause(alarm string) string {
	return "a monitor alarm TargetTracking-" + w.old.Name + "-Alarm" + alarm + " in state ALARM triggered policy ECSManagedAutoScalingPolicy of capacity provider " + w.provider.Name
}

// size is what an instance of the group has for tasks: as one has registered,
// or as its type says.
func (w *work) size() (cpu, memory int) {
	kind := ""
	for _, i := range w.rows {
		kind = i.Type
		h := w.hosts[i.ID]
		if h == nil {
			continue
		}
		for _, q := range h.Registered {
			switch wire.Value(q.Name) {
			case "CPU":
				cpu = int(wire.Value(q.IntegerValue))
			case "MEMORY":
				memory = int(wire.Value(q.IntegerValue))
			}
		}
		return cpu, memory
	}
	if kind == "" {
		ways, err := w.old.Launches(w.in.Read, nil)
		if err != nil || len(ways) == 0 {
			return 0, 0
		}
		if in, _, err := state.MergeTemplate(w.in.Read, w.old.Account, ways[0].In); err == nil {
			kind = string(in.InstanceType)
		}
	}
	m, _ := state.InstanceType(kind)
	return m.VCPUs * 1024, m.Registered
}
