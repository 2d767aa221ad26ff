// Package place decides where a task runs: the machine, and for awsvpc the
// subnet and so the availability zone.
//
// It sees tasks that wait in PROVISIONING and writes only their place. It
// never gives an address (package address) and never stops a task.
package place

import (
	"slices"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Controller places Fargate tasks.
var Controller = control.Controller{
	Name:  "place",
	Reads: []store.AnyTable{state.Tasks, state.Nodes},
	Plan:  Plan,
}

// Plan gives every waiting Fargate task a node and a subnet.
//
// Fargate has no instances to fill: a machine takes every task, its cgroup
// holds it to its size, and the least loaded machine is taken first. CPU and
// memory of one machine may so be promised more often than it has them. A
// developer's machine would otherwise run four tasks where AWS runs hundreds.
func Plan(in control.Input) (p control.Plan) {
	var waiting []*state.Task
	for t := range state.Tasks.By(in.Read, "status", state.Provisioning) {
		if t.Instance == "" && t.DesiredStatus == state.Running && t.LaunchType == "FARGATE" {
			waiting = append(waiting, t)
		}
	}
	if len(waiting) == 0 {
		return p
	}
	slices.SortFunc(waiting, func(a, b *state.Task) int { return a.CreatedAt.Compare(b.CreatedAt) })

	var nodes []*state.Node
	for n := range state.Nodes.All(in.Read) {
		if n.Instance != "" {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 {
		return p
	}
	load := map[string]int{} // node → tasks on it
	for _, n := range nodes {
		for t := range state.Tasks.By(in.Read, "instance", n.Instance) {
			if t.LastStatus != state.Stopped {
				load[n.Name]++
			}
		}
	}
	spread := map[string]map[string]int{} // service or group → zone → tasks
	zones := func(t *state.Task) map[string]int {
		key := t.Cluster + "/" + t.Group
		z := spread[key]
		if z == nil {
			z = map[string]int{}
			spread[key] = z
			if t.Service != "" {
				for o := range state.Tasks.By(in.Read, "service", t.Service) {
					if o.DesiredStatus == state.Running && o.Zone != "" {
						z[o.Zone]++
					}
				}
			}
		}
		return z
	}
	for _, t := range waiting {
		n := t.Clone()
		var subnets []string
		if t.Network != nil {
			subnets = t.Network.Subnets
		}
		node, subnet, zone := choose(in.Read, nodes, subnets, load, zones(t))
		if node == nil {
			continue
		}
		n.Instance, n.Zone = node.Instance, zone
		if a := n.NetworkAttachment(); a != nil {
			a.SetDetail("subnetId", subnet)
		}
		n.Version++
		load[node.Name]++
		zones(t)[zone]++
		control.Put(&p, state.Tasks, t.ARN, t, n)
	}
	return p
}

// choose takes the zone with the fewest tasks of the same service, in it the
// least loaded node, and the first of the task's subnets that lies there. Ties
// go to the order in which the caller named the subnets.
func choose(r store.Reader, nodes []*state.Node, subnets []string, load, zones map[string]int) (best *state.Node, subnet, zone string) {
	for _, id := range subnets {
		s, ok := state.Subnets.Get(r, id)
		if !ok {
			continue
		}
		for _, n := range nodes {
			if n.Zone != "" && n.Zone != s.Zone {
				continue
			}
			better := best == nil || zones[s.Zone] < zones[zone] ||
				zones[s.Zone] == zones[zone] && load[n.Name] < load[best.Name]
			if better {
				best, subnet, zone = n, id, s.Zone
			}
		}
	}
	return best, subnet, zone
}
