package deploy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/place"
	"github.com/berth-run/berth/control/place/fill"
	"github.com/berth-run/berth/control/place/fleet"
	"github.com/berth-run/berth/store/state"
)

const daemon = string(ecs.SchedulingStrategyDaemon)

// onInstances reports whether the service's tasks run on container instances.
func onInstances(s *state.Service) bool {
	return state.LaunchOf(s.LaunchType, s.CapacityProviderStrategy) != string(ecs.LaunchTypeFargate)
}

// rank orders services for placement.
func rank(s *state.Service) int {
	if s.SchedulingStrategy == daemon {
		return 0
	}
	return 1
}

// places are the container instances that a plan chooses, for all services.
type places struct {
	in    control.Input
	fleet *fleet.Fleet
	held  *fleet.Hold
}

func (p *places) hold() *fleet.Hold {
	if p.held == nil {
		if p.fleet == nil {
			p.fleet = fleet.Of(p.in.Read)
		}
		p.held = p.fleet.Hold()
	}
	return p.held
}

func (p *places) claim(to *control.Plan) {
	if p.held != nil {
		place.Claim(to, p.held)
	}
}

func (p *places) done() {
	if p.held != nil {
		p.held.Release()
	}
}

const more = " For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."

// unplaced says that no instance takes a task, once for each cause, and looks
// again: what makes room is not always a change that this controller sees.
func (r *rollout) unplaced(rs []fill.Refusal) {
	m := "was unable to place a task because no container instance met all of its requirements. "
	if len(rs) == 0 {
		m += "Reason: No Container Instances were found in your cluster." + more
	} else {
		c := fill.Closest(rs)
		m += "The closest matching (container-instance " + state.ShortARN(c.Instance) + ") " + closest(c.Reason) + more
	}
	r.wakeAt(r.in.Now.Add(crowded))
	said := &r.svc.SaidNoPlace
	if said.Message != m || !said.At.Add(again).After(r.in.Now) {
		*said = state.Said{Message: m, At: r.in.Now}
		r.event(m)
	}
}

// closest is what the closest instance lacks (facts: services, events).
func closest(why fill.Reason) string {
	switch why {
	case fill.CPU:
		return "has insufficient CPU units available."
	case fill.Memory:
		return "has insufficient memory available."
	case fill.Ports:
		return "is already using a port required by your task."
	case fill.Agent:
		return "doesn't have the agent connected."
	case fill.Attribute:
		return "is missing an attribute required by your task."
	}
	return `encountered error "` + string(why) + `".`
}

// draining reports whether the task's instance is to be emptied.
func (r *rollout) draining(t *state.Task) bool {
	i, ok := state.ContainerInstances.Get(r.in.Read, t.Instance)
	return ok && !i.Hidden && i.Status == "DRAINING"
}

// leaving tells the tasks that must leave their instance from those that stay.
func (r *rollout) leaving(ts []*state.Task) (stay, leave []*state.Task) {
	for _, t := range ts {
		if r.draining(t) {
			leave = append(leave, t)
		} else {
			stay = append(stay, t)
		}
	}
	return stay, leave
}

// move stops tasks of draining instances: those that do not run at once, of
// those that count as healthy as many as may go. It returns how many of these.
func (r *rollout) move(ts []*state.Task, spare int, id string) (gone int) {
	var out []*state.Task
	for _, t := range ts {
		switch healthy := r.healthy(t); {
		case t.LastStatus != state.Running:
			out = append(out, t)
		case t.Protected(r.in.Now):
			r.wakeAt(t.ProtectedUntil)
		case !healthy:
			out = append(out, t)
		case gone < spare:
			gone++
			out = append(out, t)
		}
	}
	r.stop(out, "Scaling activity initiated by (deployment "+id+")")
	return gone
}

// everywhere keeps one task of a DAEMON service on each instance that its
// constraints allow: it stops what is elsewhere, or of an older deployment, and
// starts what is missing.
func (r *rollout) everywhere() {
	p := r.primary()
	td, ok := state.TaskDefinitions.Get(r.in.Read, p.TaskDefinition)
	cluster, have := state.Clusters.Get(r.in.Read, r.svc.Cluster)
	if !ok || !have {
		return
	}
	var network *ecs.AwsVpcConfiguration
	if p.Network != nil {
		network = p.Network.AwsvpcConfiguration
	}
	of := launch{p.ID, p.TaskDefinition, p.Network, p.LaunchType, p.PlatformVersion, p.PlatformFamily, p.CapacityProviderStrategy}
	demand := func(t *state.Task) fill.Demand {
		return fleet.Demand(r.in.Read, t, td, r.svc.PlacementConstraints, nil)
	}
	h := r.places.hold()
	eligible := map[string]string{} // capacity provider of the task, by instance
	var order []string
	providers := []string{""}
	if len(p.CapacityProviderStrategy) > 0 {
		providers = nil
		for _, s := range p.CapacityProviderStrategy {
			providers = append(providers, wire.Value(s.CapacityProvider))
		}
	}
	for _, provider := range providers {
		// Whether an instance is one of those does not depend on its room.
		d := demand(r.task(cluster, td, network, of, provider))
		d.CPU, d.Memory, d.GPUs, d.ENI, d.Ports = math.MinInt32, math.MinInt32, 0, false, ""
		for _, arn := range h.Instances(cluster.ARN) {
			if why, seen := h.Check(cluster.ARN, d, arn); seen && (why == "" || why == fill.Agent) {
				if _, twice := eligible[arn]; !twice {
					order = append(order, arn)
				}
				eligible[arn] = provider
			}
		}
	}
	r.svc.DesiredCount, p.DesiredCount = len(order), len(order)

	all := r.live(func(*state.Task) bool { return true })
	floor, _ := r.bounds()
	healthy := r.ready(all)
	stop := func(t *state.Task, reason string) {
		if r.healthy(t) {
			healthy--
		}
		r.stop([]*state.Task{t}, reason)
	}
	scaling := "Scaling activity initiated by (deployment " + p.ID + ")"
	has := map[string]*state.Task{} // of this deployment
	for _, t := range all {
		_, wanted := eligible[t.Instance]
		switch {
		case !wanted && r.draining(t) && r.replicas(t.Instance):
			// It stops after those that it is there for.
		case !wanted || t.Deployment == p.ID && has[t.Instance] != nil:
			stop(t, scaling)
		case t.Deployment == p.ID && t.Health == "UNHEALTHY" && t.LastStatus == state.Running:
			stop(t, "Task failed container health checks")
		case t.Deployment == p.ID:
			has[t.Instance] = t
		}
	}
	if p.RolloutState == "FAILED" {
		return
	}
	late := r.svc.NextStart.After(r.in.Now)
	if late {
		r.wakeAt(r.svc.NextStart)
	}
	for _, t := range r.live(func(t *state.Task) bool { return t.Deployment != p.ID }) {
		if has[t.Instance] != nil || late {
			continue
		}
		// What is to take its place starts when it has stopped: there is one at most on an instance.
		if ready := r.healthy(t); !ready || healthy > floor {
			stop(t, scaling)
		}
	}
	if s := r.spare(); s != nil {
		// Nothing of it is started again: it leaves with its last task.
		s.DesiredCount = len(r.live(func(t *state.Task) bool { return t.Deployment == s.ID }))
	}
	occupied := map[string]bool{}
	for _, t := range r.all() {
		if t.LastStatus != state.Stopped {
			occupied[t.Instance] = true
		}
	}
	var names []string
	var refused []fill.Refusal
	for _, arn := range order {
		if late || occupied[arn] {
			continue
		}
		t := r.task(cluster, td, network, of, eligible[arn])
		if why := h.TakeOn(r.in.Read, t, demand(t), arn); why != "" {
			refused = append(refused, fill.Refusal{Instance: arn, Reason: why})
			continue
		}
		r.changed[t.ARN] = t
		names = append(names, "(task "+t.ID+")")
		if len(names) == burst {
			break
		}
	}
	if len(refused) > 0 {
		r.unplaced(refused)
	} else {
		r.svc.SaidNoPlace = state.Said{}
	}
	r.started(names, 0)
}

// rebalance starts a task in the zone that has too few of the service's, once
// it is in its steady state. When that is healthy there is one too many, and the
// scaling in takes it from the zone that has most.
func (r *rollout) rebalance() {
	p := r.primary()
	_, ceiling := r.bounds()
	if r.svc.AvailabilityZoneRebalancing != string(ecs.AvailabilityZoneRebalancingEnabled) || r.svc.SchedulingStrategy == daemon ||
		p.LaunchType != string(ecs.LaunchTypeEc2) || r.svc.Rebalancing || r.svc.DesiredCount == 0 {
		return
	}
	counts := map[string]int{}
	for i := range state.ContainerInstances.By(r.in.Read, "cluster", r.svc.Cluster) {
		if !i.Hidden && i.Status == "ACTIVE" && i.AgentConnected {
			zone, _ := i.Attribute(fleet.Zone)
			counts[zone] = 0
		}
	}
	if p.Network != nil && p.Network.AwsvpcConfiguration != nil {
		with := map[string]int{}
		for _, id := range p.Network.AwsvpcConfiguration.Subnets {
			if s, ok := state.Subnets.Get(r.in.Read, id); ok {
				if _, ok := counts[s.Zone]; ok {
					with[s.Zone] = 0
				}
			}
		}
		counts = with
	}
	for _, t := range r.live(func(*state.Task) bool { return true }) {
		counts[t.Zone]++
	}
	zones := slices.Sorted(maps.Keys(counts))
	if len(zones) < 2 {
		return
	}
	least, most := zones[0], zones[0]
	var list []string
	for _, z := range zones {
		if counts[z] < counts[least] {
			least = z
		}
		if counts[z] > counts[most] {
			most = z
		}
		list = append(list, fmt.Sprintf("%d tasks in %s", counts[z], z))
	}
	say := func(m string) {
		if said := &r.svc.SaidBalance; said.Message != m || !said.At.Add(again).After(r.in.Now) {
			*said = state.Said{Message: m, At: r.in.Now}
			r.event(m)
		}
	}
	if counts[most]-counts[least] <= 1 {
		if r.svc.SaidBalance.Message != "" {
			say("is AZ balanced with " + strings.Join(list, ", ") + ".")
		}
		return
	}
	if r.svc.DesiredCount+1 > ceiling {
		return
	}
	td, ok := state.TaskDefinitions.Get(r.in.Read, p.TaskDefinition)
	cluster, have := state.Clusters.Get(r.in.Read, r.svc.Cluster)
	if !ok || !have {
		return
	}
	var network *ecs.AwsVpcConfiguration
	if p.Network != nil {
		network = p.Network.AwsvpcConfiguration
	}
	t := r.task(cluster, td, network, launch{p.ID, p.TaskDefinition, p.Network, p.LaunchType, p.PlatformVersion, p.PlatformFamily, nil}, "")
	d := fleet.Demand(r.in.Read, t, td, r.svc.PlacementConstraints, r.svc.PlacementStrategy)
	d.Zones = least
	if !r.places.hold().Take(r.in.Read, t, d) {
		say("is unable to place a task in " + least + " because no container instance met all of its requirements.")
		r.wakeAt(r.in.Now.Add(crowded))
		return
	}
	say("is not AZ balanced with " + strings.Join(list, ", ") + ". AZ Rebalancing in progress.")
	r.changed[t.ARN] = t
	r.svc.Rebalancing = true
	r.svc.SteadyAt = time.Time{}
	r.event("has started 1 tasks in " + least + " to AZ Rebalance: (task " + t.ID + ").")
}

// replicas reports whether tasks of services that are no daemons are on an instance.
func (r *rollout) replicas(instance string) bool {
	for t := range state.Tasks.By(r.in.Read, "instance", instance) {
		if t.LastStatus == state.Stopped || t.Service == "" {
			continue
		}
		if s, ok := state.Services.Get(r.in.Read, t.Service); ok && s.SchedulingStrategy != daemon {
			return true
		}
	}
	return false
}
