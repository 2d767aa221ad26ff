// Package group decides what Auto Scaling groups do: it launches and ends
// instances, takes each through its states and hooks, replaces those that are
// not healthy, balances zones, carries out scheduled actions, and refreshes.
//
// It reads groups, their instances, refreshes and schedules, and EC2's
// instances; it writes those rows, the rows of instances that it launches, and
// that an instance is to be terminated. It never says that an instance runs:
// package boot does. Whoever else changes an instance of a group changes the
// group's row too, so that a plan on an older one is stale.
package group

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
	"github.com/berth-run/berth/store/state/cron"
)

// Controller runs the groups.
var Controller = control.Controller{
	Name:  "group",
	Reads: []store.AnyTable{state.ScalingGroups, state.ScalingInstances, state.Instances, state.InstanceRefreshes, state.ScheduledScalings},
	Plan:  Plan,
}

const (
	inService   = "InService"
	pending     = "Pending"
	pendingWait = "Pending:Wait"
	terminating = "Terminating"
	termWait    = "Terminating:Wait"
	termProceed = "Terminating:Proceed"
	standby     = "Standby"

	healthy   = "Healthy"
	unhealthy = "Unhealthy"

	// batch bounds how many instances one plan launches.
	batch = 20
	// keepActivities is how long activities are kept, and mostActivities how many of a group.
	keepActivities = 6 * 7 * 24 * time.Hour
	mostActivities = 500
)

// Plan takes every group one step further.
func Plan(in control.Input) (p control.Plan) {
	all := &plan{Plan: &p, in: in, addresses: state.FreeAddresses(in.Read), besides: map[string]int{}}
	for g := range state.ScalingGroups.All(in.Read) {
		all.group(g)
	}
	if in.All {
		// What deleted groups did is shown for a while.
		for a := range state.ScalingActivities.All(in.Read) {
			p.WakeAt(in.Now.Add(24 * time.Hour))
			if _, ok := state.ScalingGroupOf(in.Read, a.Group); !ok && !a.Doc.StartTime.Add(keepActivities).After(in.Now) {
				control.Delete(&p, state.ScalingActivities, state.ScalingActivityKey(a.Group, a.Seq), a)
			}
		}
	}
	return p
}

type plan struct {
	*control.Plan
	in        control.Input
	addresses *state.Addresses
	besides   map[string]int // instances launched in this plan, by account
	launched  int
}

// work is one group's part of a plan.
type work struct {
	*plan
	old, g  *state.ScalingGroup
	rows    []*row                 // by id
	refresh *state.InstanceRefresh // as it is to be, nil: none is under way
	was     *state.InstanceRefresh
	fresh   map[int64]*state.ScalingActivity // begun in this plan
	dirty   bool
}

// row is an instance of the group.
type row struct {
	old, now *state.ScalingInstance // nil: it is new, it is no more
	machine  *state.Instance        // nil: EC2 has forgotten it
	ended    bool                   // machine is to be terminated
}

func (w *work) touch() { w.dirty = true }

// set begins a change of a row.
func (w *work) set(r *row) *state.ScalingInstance {
	w.touch()
	if r.now == r.old {
		n := *r.old
		n.Actions = slices.Clone(n.Actions)
		r.now = &n
	}
	return r.now
}

func (p *plan) group(g *state.ScalingGroup) {
	w := &work{plan: p, old: g, g: g.Clone(), fresh: map[int64]*state.ScalingActivity{}}
	for i := range state.ScalingInstances.By(p.in.Read, "group", g.ARN) {
		m, _ := state.Instances.Get(p.in.Read, i.ID)
		w.rows = append(w.rows, &row{old: i, now: i, machine: m})
	}
	slices.SortFunc(w.rows, func(a, b *row) int { return strings.Compare(a.old.ID, b.old.ID) })
	w.schedules()
	w.begin()
	for _, r := range w.rows {
		w.step(r)
	}
	switch {
	case g.Deleting:
		w.remove()
	default:
		w.replace()
		w.refreshed()
		w.scale()
	}
	w.write()
}

// active are the instances that count as the group's capacity.
func (w *work) active() (out []*row) {
	for _, r := range w.rows {
		if r.now != nil && r.now.Counts() {
			out = append(out, r)
		}
	}
	return out
}

// step takes an instance through its states.
func (w *work) step(r *row) {
	i := r.now
	gone := r.machine == nil || r.machine.State == "terminated"
	lost := gone || r.machine.Want != state.InstanceRunning || r.machine.State == "stopping" || r.machine.State == "stopped" || r.machine.State == "shutting-down"
	switch {
	case i.State == pending && lost:
		w.finish(r, autoscaling.ScalingActivityStatusCodeFailed, "Instance became unhealthy while waiting for instance to be in InService state. Termination Reason: "+why(r.machine))
		w.g.Failures++
		w.g.RetryAt = w.in.Now.Add(backoff(w.g.Failures))
		w.leave(r, "")
	case i.State == pending && r.machine.State == "running":
		if !w.hooks(r, state.HookLaunching, pendingWait) {
			w.serve(r)
		}
	case i.State == pendingWait:
		switch done, abandon := w.results(r); {
		case lost:
			w.finish(r, autoscaling.ScalingActivityStatusCodeFailed, "The instance ended while a lifecycle action waited. Termination Reason: "+why(r.machine))
			w.leave(r, "")
		case abandon:
			w.finish(r, autoscaling.ScalingActivityStatusCodeCancelled, "Lifecycle hook completed with result ABANDON.")
			w.retire(r, fmt.Sprintf("At %s an instance was taken out of service because a lifecycle action was abandoned.", w.at()))
		case done:
			w.serve(r)
		}
	case i.State == inService && lost && i.Health == healthy && !w.g.Suspended("HealthCheck"):
		n := w.set(r)
		n.Health, n.Sick = unhealthy, "an EC2 health check indicating it has been terminated or stopped"
	case i.State == standby && gone:
		w.leave(r, "")
	}
	if r.now == nil {
		return
	}
	switch r.now.State {
	case terminating:
		if gone || !w.hooks(r, state.HookTerminating, termWait) {
			w.proceed(r)
		}
	case termWait:
		if done, abandon := w.results(r); done || abandon || gone {
			w.proceed(r)
		}
	case termProceed:
		if gone {
			w.leave(r, autoscaling.ScalingActivityStatusCodeSuccessful)
		} else if r.machine.Want != state.InstanceTerminated {
			r.ended = true
			w.touch()
		}
	}
}

func why(m *state.Instance) string {
	if m == nil || m.StateMessage == "" {
		return "the instance has ended"
	}
	return m.StateMessage
}

func (w *work) at() string { return state.ScalingTime(w.in.Now) }

// serve puts an instance in service.
func (w *work) serve(r *row) {
	n := w.set(r)
	n.State, n.InServiceAt, n.Actions = inService, w.in.Now, nil
	w.finish(r, autoscaling.ScalingActivityStatusCodeSuccessful, "")
	w.g.Failures, w.g.RetryAt = 0, time.Time{}
}

// proceed ends the machine of an instance, and waits for it.
func (w *work) proceed(r *row) {
	n := w.set(r)
	n.State, n.Actions = termProceed, nil
	if r.machine == nil || r.machine.State == "terminated" {
		w.leave(r, autoscaling.ScalingActivityStatusCodeSuccessful)
		return
	}
	r.ended = true
}

// leave takes an instance out of the group.
func (w *work) leave(r *row, code autoscaling.ScalingActivityStatusCode) {
	if code != "" {
		w.finish(r, code, "")
	}
	w.touch()
	if r.machine != nil && r.machine.Want != state.InstanceTerminated && r.machine.State != "terminated" {
		r.ended = true
	}
	r.now = nil
}

// finish ends the activity that an instance is in.
func (w *work) finish(r *row, code autoscaling.ScalingActivityStatusCode, message string) {
	if r.now == nil || r.now.Activity == 0 {
		return
	}
	if a := w.fresh[r.now.Activity]; a != nil {
		w.fresh[a.Seq] = a.Finish(code, message, w.in.Now)
	}
	key := state.ScalingActivityKey(w.g.ARN, r.now.Activity)
	if a, ok := state.ScalingActivities.Get(w.in.Read, key); ok {
		control.Put(w.Plan, state.ScalingActivities, key, a, a.Finish(code, message, w.in.Now))
		w.touch()
	}
	w.set(r).Activity = 0
}

// retire begins the end of an instance.
func (w *work) retire(r *row, cause string) {
	w.finish(r, autoscaling.ScalingActivityStatusCodeCancelled, "") // of a launch
	n := w.set(r)
	n.State, n.Actions = terminating, nil
	n.Activity = w.activity("Terminating EC2 instance: "+n.ID, w.because(cause), n)
	// Its hooks begin in this very plan: no step of it is left for another.
	if !w.hooks(r, state.HookTerminating, termWait) {
		w.proceed(r)
	}
}

// activity adds one that is under way.
func (w *work) activity(description, cause string, where *state.ScalingInstance) int64 {
	w.touch()
	a := w.g.NewActivity(w.in.NewID(), description, cause, where, w.in.Now)
	w.fresh[a.Seq] = a
	return a.Seq
}

// because is a cause, after what has changed the desired capacity.
func (w *work) because(cause string) string {
	return strings.Join(append(slices.Clone(w.g.Causes), cause), "  ")
}

// hooks begins the hooks of a transition; false if there are none.
func (w *work) hooks(r *row, transition, wait string) bool {
	var actions []state.LifecycleAction
	for _, h := range w.g.Hooks {
		if *h.LifecycleTransition != transition {
			continue
		}
		timeout := time.Duration(*h.HeartbeatTimeout) * time.Second
		limit := min(48*time.Hour, 100*timeout)
		actions = append(actions, state.LifecycleAction{Hook: *h.LifecycleHookName, Token: state.UUID(w.in.NewID()), Timeout: timeout, Default: *h.DefaultResult,
			Deadline: w.in.Now.Add(timeout), Limit: w.in.Now.Add(limit)})
	}
	if len(actions) == 0 {
		return false
	}
	n := w.set(r)
	n.State, n.Actions = wait, actions
	for _, a := range actions {
		w.WakeAt(a.Deadline)
	}
	return true
}

// results looks at the hooks that an instance waits for. One that is abandoned
// decides for all.
func (w *work) results(r *row) (done, abandoned bool) {
	done = true
	for k := range r.now.Actions {
		a := r.now.Actions[k]
		if a.Result == "" {
			end := a.Deadline
			if a.Limit.Before(end) {
				end = a.Limit
			}
			if end.After(w.in.Now) {
				w.WakeAt(end)
				done = false
				continue
			}
			a.Result = a.Default
			w.set(r).Actions[k] = a
		}
		if a.Result == "ABANDON" {
			abandoned = true
		}
	}
	return done, abandoned
}

// replace takes instances out of service that are not healthy, or too old.
func (w *work) replace() {
	lifetime := time.Duration(value(w.g.Doc.MaxInstanceLifetime)) * time.Second
	busy := false
	for _, r := range w.rows {
		busy = busy || r.now != nil && r.now.State != inService && r.now.State != standby
	}
	for _, r := range w.rows {
		i := r.now
		if i == nil || i.State != inService {
			continue
		}
		if i.Health == unhealthy && !w.g.Suspended("ReplaceUnhealthy") && !w.g.Suspended("Terminate") {
			w.retire(r, fmt.Sprintf("At %s an instance was taken out of service in response to %s.", w.at(), i.Sick))
			busy = true
			continue
		}
		if end := i.LaunchedAt.Add(lifetime); lifetime > 0 && !busy && !w.g.Suspended("Terminate") {
			if end.After(w.in.Now) {
				w.WakeAt(end)
				continue
			}
			busy = true
			w.retire(r, fmt.Sprintf("At %s an instance was taken out of service because it has reached the maximum instance lifetime.", w.at()))
		}
	}
}

// remove ends a group that is being deleted, and then its rows.
func (w *work) remove() {
	left := false
	for _, r := range w.rows {
		if r.now == nil {
			continue
		}
		left = true
		if !r.now.Leaving() {
			// A group that is forced to go does not wait for hooks.
			n := w.set(r)
			n.Activity = cmp.Or(n.Activity, w.activity("Terminating EC2 instance: "+n.ID, fmt.Sprintf("At %s a user request force deleted AutoScalingGroup changing the desired capacity from %d to 0.", w.at(), w.g.Desired()), n))
			w.proceed(r)
		} else if r.now.State != termProceed {
			w.proceed(r)
		}
	}
	if left {
		return
	}
	for f := range state.InstanceRefreshes.By(w.in.Read, "group", w.g.ARN) {
		control.Delete(w.Plan, state.InstanceRefreshes, f.ID, f)
	}
	for x := range state.ScalingPolicies.Prefix(w.in.Read, w.g.ARN+"/") {
		control.Delete(w.Plan, state.ScalingPolicies, w.g.ARN+"/"+x.Name, x)
	}
	for x := range state.ScheduledScalings.Prefix(w.in.Read, w.g.ARN+"/") {
		control.Delete(w.Plan, state.ScheduledScalings, w.g.ARN+"/"+x.Name, x)
	}
	w.g = nil
	w.touch()
}

// schedules carries out the scheduled actions that are due.
func (w *work) schedules() {
	if w.g.Suspended("ScheduledActions") || w.g.Deleting {
		return
	}
	for s := range state.ScheduledScalings.Prefix(w.in.Read, w.g.ARN+"/") {
		if s.Due.IsZero() {
			continue
		}
		if s.Due.After(w.in.Now) {
			w.WakeAt(s.Due)
			continue
		}
		d := &s.Doc
		low, high, want := w.g.Min(), w.g.Max(), w.g.Desired()
		if d.MinSize != nil {
			low = int(*d.MinSize)
		}
		if d.MaxSize != nil {
			high = int(*d.MaxSize)
		}
		if d.DesiredCapacity != nil {
			want = int(*d.DesiredCapacity)
		}
		if low <= high {
			want = min(max(want, low), high)
			w.g.Doc.MinSize, w.g.Doc.MaxSize = new(int32(low)), new(int32(high))
			w.g.Want(want, fmt.Sprintf("a scheduled action update of AutoScalingGroup constraints to min: %d, max: %d, desired: %d", low, high, want), w.in.Now)
		}
		w.touch()
		n := *s
		n.Due = Due(&n.Doc, w.in.Now)
		if n.Due.IsZero() {
			control.Delete(w.Plan, state.ScheduledScalings, w.g.ARN+"/"+s.Name, s) // it has no future
		} else {
			n.Doc.StartTime, n.Doc.Time = new(n.Due), new(n.Due)
			control.Put(w.Plan, state.ScheduledScalings, w.g.ARN+"/"+s.Name, s, &n)
			w.WakeAt(n.Due)
		}
	}
}

// Due is when a scheduled action that recurs happens next after a time; zero
// if never again.
func Due(d *autoscaling.ScheduledUpdateGroupAction, after time.Time) time.Time {
	if d.Recurrence == nil {
		return time.Time{}
	}
	c, err := cron.Parse(*d.Recurrence)
	zone := time.UTC
	if err == nil && d.TimeZone != nil {
		zone, err = time.LoadLocation(*d.TimeZone)
	}
	if err != nil {
		return time.Time{} // the call has looked at both
	}
	next := c.Next(after, zone)
	if next.IsZero() || d.EndTime != nil && next.After(*d.EndTime) {
		return time.Time{}
	}
	return next.UTC()
}

// write adds the changes of the group.
func (w *work) write() {
	w.forget()
	if !w.dirty {
		return
	}
	key := state.ScalingGroupKey(w.old.Account, w.old.Name)
	if w.g == nil {
		control.Delete(w.Plan, state.ScalingGroups, key, w.old)
	} else {
		control.Put(w.Plan, state.ScalingGroups, key, w.old, w.g)
	}
	for _, seq := range slices.Sorted(maps.Keys(w.fresh)) {
		control.Put(w.Plan, state.ScalingActivities, state.ScalingActivityKey(w.old.ARN, seq), nil, w.fresh[seq])
	}
	if w.refresh != w.was {
		control.Put(w.Plan, state.InstanceRefreshes, w.was.ID, w.was, w.refresh)
	}
	for _, r := range w.rows {
		if r.ended && r.machine != nil {
			control.Put(w.Plan, state.Instances, r.machine.ID, r.machine, r.machine.End(w.in.Now))
			if s, ok := state.SpotRequests.Get(w.in.Read, r.machine.Spot); ok && s.State == "active" {
				n := *s
				n.State, n.StatusCode, n.UpdatedAt = "closed", "instance-terminated-by-user", w.in.Now
				control.Put(w.Plan, state.SpotRequests, s.ID, s, &n)
			}
		}
		switch {
		case r.now == r.old:
		case r.now == nil:
			if r.old != nil {
				control.Delete(w.Plan, state.ScalingInstances, r.old.ID, r.old)
			}
		default:
			control.Put(w.Plan, state.ScalingInstances, r.now.ID, r.old, r.now)
		}
	}
}

// forget drops activities that are old, or too many.
func (w *work) forget() {
	for a := range state.ScalingActivities.Prefix(w.in.Read, w.old.ARN+"/") {
		old := a.Doc.EndTime != nil && (!a.Doc.EndTime.Add(keepActivities).After(w.in.Now) || a.Seq+mostActivities <= w.old.Activities)
		if !old {
			break // they are in order, and later ones wait
		}
		control.Delete(w.Plan, state.ScalingActivities, state.ScalingActivityKey(a.Group, a.Seq), a)
		w.touch()
	}
}

func value(p *int32) int {
	if p == nil {
		return 0
	}
	return int(*p)
}
