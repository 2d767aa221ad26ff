// Package place decides where a task runs that waits for a place: the machine,
// and for awsvpc the subnet and so the availability zone.
//
// It sees tasks that wait in PROVISIONING: those of Fargate, and those of a
// capacity provider until one of its instances takes them. Of any other task of
// EC2 it is decided where it runs when it is made, by RunTask or package deploy.
// It writes a task's place, and stops one that has waited for too long. It never
// gives an address (package address).
package place

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/place/fill"
	"github.com/berth-run/berth/control/place/fleet"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Controller places tasks that wait.
func Controller(f *fleet.Fleet) control.Controller {
	return control.Controller{
		Name:  "place",
		Reads: []store.AnyTable{state.Tasks, state.Nodes, state.ContainerInstances},
		Plan:  func(in control.Input) control.Plan { return Plan(in, f) },
	}
}

// Plan gives every waiting task a place.
func Plan(in control.Input, f *fleet.Fleet) (p control.Plan) {
	fargate(&p, in)
	providers(&p, in, f)
	return p
}

// patience is how long a task waits for its capacity provider. AWS says 10 to 30 minutes.
const patience = 30 * time.Minute

// batch bounds one plan: the rest is placed by the next.
const batch = 500

// providers places the tasks of capacity providers of Auto Scaling groups.
func providers(p *control.Plan, in control.Input, f *fleet.Fleet) {
	var waiting []*state.Task
	for t := range state.Tasks.By(in.Read, "status", state.Provisioning) {
		if t.Instance == "" && t.DesiredStatus == state.Running && t.LaunchType == string(ecs.LaunchTypeEc2) && t.CapacityProvider != "" {
			waiting = append(waiting, t)
		}
	}
	if len(waiting) == 0 {
		return
	}
	slices.SortFunc(waiting, func(a, b *state.Task) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ARN, b.ARN))
	})
	h := f.Hold()
	defer h.Release()
	for _, t := range waiting {
		if len(p.Changes) >= batch {
			p.WakeAt(in.Now)
			break
		}
		td, ok := state.TaskDefinitions.Get(in.Read, t.TaskDefinition)
		if !ok {
			continue
		}
		constraints, strategy := t.PlacementConstraints, t.PlacementStrategy
		if s, ok := state.Services.Get(in.Read, t.Service); ok {
			constraints, strategy = s.PlacementConstraints, s.PlacementStrategy
		}
		n := t.Clone()
		d := fleet.Demand(in.Read, n, td, constraints, strategy)
		if !h.Take(in.Read, n, d) {
			end := t.CreatedAt.Add(patience)
			if end.After(in.Now) {
				p.WakeAt(end)
				continue
			}
			n.WantStop("TaskFailedToStart", gaveUp(h, t, d), in.Now)
		} else {
			n.Version++
		}
		control.Put(p, state.Tasks, t.ARN, t, n)
	}
	Claim(p, h)
}

// gaveUp is why a capacity provider's task was not placed, in the words of a
// stopped task.
func gaveUp(h *fleet.Hold, t *state.Task, d fill.Demand) string {
	if rs := h.Refusals(t.Cluster, d); len(rs) > 0 {
		return strings.TrimSuffix(string(fill.Closest(rs).Reason), ".")
	}
	if h.Active(t.Cluster, "") {
		return "EMPTY CAPACITY PROVIDER"
	}
	return "NO ACTIVE INSTANCES"
}

// Claim adds to a plan what makes the choices of a hold true.
func Claim(p *control.Plan, h *fleet.Hold) {
	for i, c := range h.Claims() {
		control.Require(p, state.ContainerInstances, i.ARN, i)
		control.Put(p, state.Claims, i.ARN, c[0], c[1])
	}
}

// fargate gives every waiting Fargate task a node and a subnet.
//
// Fargate has no instances to fill: a machine takes every task, its cgroup
// holds it to its size, and the least loaded machine is taken first. CPU and
// memory of one machine may so be promised more often than it has them. A
// developer's machine would otherwise run four tasks where AWS runs hundreds.
func fargate(p *control.Plan, in control.Input) {
	var waiting []*state.Task
	for t := range state.Tasks.By(in.Read, "status", state.Provisioning) {
		if t.Instance == "" && t.DesiredStatus == state.Running && t.LaunchType == "FARGATE" {
			waiting = append(waiting, t)
		}
	}
	if len(waiting) == 0 {
		return
	}
	slices.SortFunc(waiting, func(a, b *state.Task) int { return a.CreatedAt.Compare(b.CreatedAt) })

	var nodes []*state.Node
	for n := range state.Nodes.All(in.Read) {
		if n.Instance != "" {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 {
		return
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
		control.Put(p, state.Tasks, t.ARN, t, n)
	}
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
