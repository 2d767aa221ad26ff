// Package fleet is the container instances of the region as the placement
// engine (package fill) sees them: it reads rows and keeps up with them.
//
// What it chooses is a proposal. A transaction makes it true by a claim on the
// instance, which fails if a task was placed there meanwhile or the instance is
// no longer what it was. It must never write a row by itself.
package fleet

import (
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/control/place/fill"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Attributes that placement looks at itself.
const (
	Zone         = "ecs.availability-zone"
	instanceType = "ecs.instance-type"
	trunk        = "ecs.awsvpc-trunk-id"
	vpcID        = "ecs.vpc-id"
	osType       = "ecs.os-type"
	architecture = "ecs.cpu-architecture"
)

// ErrMoved: what a choice rests on has changed. The transaction must be tried anew.
var ErrMoved = errors.New("the container instance has changed")

// A Fleet is the container instances of all clusters. Any goroutine may use it.
type Fleet struct {
	db *store.DB // nil: it follows nothing

	mu       sync.Mutex
	watch    *store.Watch
	snap     store.Reader
	clusters map[string]*fill.Fleet
	seen     map[string]row    // by the instance's ARN
	where    map[string]string // cluster of a task, by the task's ARN
	machines map[string]string // container instance of an EC2 instance
	attached map[string]string // EC2 instance of an interface that is not a task's
	held     map[string]int    // tasks that requests hold, which no row may have yet
}

// A row is what a claim on an instance rests on.
type row struct {
	instance *state.ContainerInstance
	claim    *state.Claim
}

var tables = []store.AnyTable{state.ContainerInstances, state.Claims, state.Tasks, state.NetworkInterfaces, state.Instances}

// New makes the fleet of a database. It begins to follow when it is first asked.
func New(db *store.DB) *Fleet { return &Fleet{db: db, held: map[string]int{}} }

// Of makes the fleet of one snapshot.
func Of(r store.Reader) *Fleet {
	f := &Fleet{snap: r, held: map[string]int{}}
	f.all()
	return f
}

// sync reads what has changed.
func (f *Fleet) sync() {
	if f.db == nil {
		return
	}
	if f.watch == nil {
		f.watch = f.db.Watch(tables...)
	}
	snap, changes, ok := f.watch.Poll()
	if !ok {
		return
	}
	f.snap = snap
	if changes.All {
		f.all()
		return
	}
	// Interfaces that users attach to an instance leave less for tasks.
	for _, id := range changes.Keys(state.NetworkInterfaces) {
		was := f.attached[id]
		is := f.interfaceOf(id)
		if was != is {
			f.again(was)
			f.again(is)
		}
	}
	for _, arn := range changes.Keys(state.ContainerInstances) {
		f.instance(arn)
	}
	for _, arn := range changes.Keys(state.Claims) {
		if have, ok := f.seen[arn]; ok {
			have.claim, _ = state.Claims.Get(snap, arn)
			f.seen[arn] = have
		}
	}
	for _, arn := range changes.Keys(state.Tasks) {
		f.task(arn)
	}
	for _, id := range changes.Keys(state.Instances) {
		f.again(id)
	}
}

// all reads everything.
func (f *Fleet) all() {
	f.clusters, f.seen, f.where = map[string]*fill.Fleet{}, map[string]row{}, map[string]string{}
	f.machines, f.attached = map[string]string{}, map[string]string{}
	for i := range state.ContainerInstances.All(f.snap) {
		f.instance(i.ARN)
	}
	for arn := range f.seen {
		for t := range state.Tasks.By(f.snap, "instance", arn) {
			f.task(t.ARN)
		}
	}
	for id := range f.machines {
		for e := range state.NetworkInterfaces.By(f.snap, "instance", id) {
			f.interfaceOf(e.ID)
		}
	}
}

// interfaceOf notes to which EC2 instance an interface is attached.
func (f *Fleet) interfaceOf(id string) (machine string) {
	if e, ok := state.NetworkInterfaces.Get(f.snap, id); ok && e.Attachment != nil {
		machine = e.Attachment.Instance
	}
	if machine == "" {
		delete(f.attached, id)
	} else {
		f.attached[id] = machine
	}
	return machine
}

// again reads the container instance of an EC2 instance again.
func (f *Fleet) again(machine string) {
	if arn, ok := f.machines[machine]; ok {
		f.instance(arn)
	}
}

// cluster is the fleet of one cluster.
func (f *Fleet) cluster(arn string) *fill.Fleet {
	c := f.clusters[arn]
	if c == nil {
		seed := uint64(0)
		for i := range len(arn) {
			seed = seed*131 + uint64(arn[i])
		}
		c = fill.New(seed)
		f.clusters[arn] = c
	}
	return c
}

// instance reads an instance again.
func (f *Fleet) instance(arn string) {
	i, ok := state.ContainerInstances.Get(f.snap, arn)
	if !ok {
		if old, had := f.seen[arn]; had {
			f.cluster(old.instance.Cluster).Remove(arn)
			if f.machines[old.instance.EC2InstanceID] == arn {
				delete(f.machines, old.instance.EC2InstanceID)
			}
			delete(f.seen, arn)
		}
		return
	}
	if i.Hidden {
		return
	}
	claim, _ := state.Claims.Get(f.snap, arn)
	f.seen[arn] = row{i, claim}
	if i.EC2InstanceID != "" && i.Status != "INACTIVE" {
		f.machines[i.EC2InstanceID] = arn
	}
	f.cluster(i.Cluster).Set(Describe(f.snap, i))
}

// Describe is what an instance has, without its tasks.
func Describe(r store.Reader, i *state.ContainerInstance) fill.Instance {
	out := fill.Instance{
		ID: i.ARN, Active: i.Status == "ACTIVE", Connected: i.AgentConnected, ENIs: -1, Zone: i.Zone, Provider: i.CapacityProvider,
		Attributes: map[string]string{}, AgentVersion: i.AgentVersion, EC2InstanceID: i.EC2InstanceID, RegisteredAt: i.RegisteredAt,
	}
	for _, a := range i.Attributes {
		out.Attributes[wire.Value(a.Name)] = wire.Value(a.Value)
	}
	for _, q := range i.Registered {
		port := fill.TCP
		switch wire.Value(q.Name) {
		case "CPU":
			out.CPU = int(wire.Value(q.IntegerValue))
		case "MEMORY":
			out.Memory = int(wire.Value(q.IntegerValue))
		case "GPU":
			out.GPUs = len(q.StringSetValue)
		case "PORTS_UDP":
			port = fill.UDP
			fallthrough
		case "PORTS":
			for _, p := range q.StringSetValue {
				if n, err := strconv.Atoi(p); err == nil {
					out.Ports = append(out.Ports, port(n))
				}
			}
		}
	}
	if out.Zone == "" {
		out.Zone = out.Attributes[Zone]
	}
	out.VPC = out.Attributes[vpcID]
	machine, known := state.Instances.Get(r, i.EC2InstanceID)
	if known && out.VPC == "" {
		out.VPC = machine.VPC
	}
	kind := out.Attributes[instanceType]
	if known && kind == "" {
		kind = machine.Type
	}
	if m, ok := state.InstanceType(kind); ok {
		if _, trunked := out.Attributes[trunk]; trunked && m.Branches > 0 {
			out.ENIs = m.Branches
		} else {
			own := 0
			if i.EC2InstanceID != "" {
				for range state.NetworkInterfaces.By(r, "instance", i.EC2InstanceID) {
					own++
				}
			}
			out.ENIs = max(0, m.MaxENIs-max(1, own))
		}
	}
	return out
}

// task reads a task again.
func (f *Fleet) task(arn string) {
	t, ok := state.Tasks.Get(f.snap, arn)
	if !ok || t.Instance == "" || t.LastStatus == state.Stopped {
		if c, had := f.where[arn]; had && f.held[arn] == 0 {
			f.cluster(c).Drop(arn)
			delete(f.where, arn)
		}
		return
	}
	i, ok := f.seen[t.Instance]
	if !ok {
		return // Fargate, or an instance that is gone
	}
	f.where[arn] = i.instance.Cluster
	f.cluster(i.instance.Cluster).Add(held(f.snap, t))
}

// held is what a task holds of its instance.
func held(r store.Reader, t *state.Task) fill.Task {
	u := t.Uses(r)
	out := fill.Task{
		ID: t.ARN, Instance: t.Instance, Group: t.Group, CPU: u.CPU, Memory: u.Memory, GPUs: u.GPUs, ENI: u.ENI,
		Running: t.LastStatus == state.Running, Leaving: t.DesiredStatus == state.Stopped,
	}
	out.Ports = ports(u)
	return out
}

func ports(u state.TaskUse) (out []fill.Port) {
	for _, p := range u.TCP {
		out = append(out, fill.TCP(p))
	}
	for _, p := range u.UDP {
		out = append(out, fill.UDP(p))
	}
	return out
}

// Demand is what a task that is not placed yet asks for, under the constraints
// of its definition and those given, and in the order of a strategy.
func Demand(r store.Reader, t *state.Task, td *state.TaskDefinition, constraints []ecs.PlacementConstraint, strategy []ecs.PlacementStrategy) fill.Demand {
	u := t.Uses(r)
	d := fill.Demand{CPU: u.CPU, Memory: u.Memory, GPUs: u.GPUs, ENI: u.ENI, Ports: fill.PortList(ports(u)), Group: t.Group, Provider: t.CapacityProvider}
	var needs []string
	for _, a := range td.Doc.RequiresAttributes {
		need := wire.Value(a.Name)
		if v := wire.Value(a.Value); v != "" {
			need += "=" + v
		}
		needs = append(needs, need)
	}
	if p := td.Doc.RuntimePlatform; p != nil {
		switch p.CpuArchitecture {
		case ecs.CPUArchitectureX8664:
			needs = append(needs, architecture+"=x86_64")
		case ecs.CPUArchitectureArm64:
			needs = append(needs, architecture+"=arm64")
		}
		switch {
		case p.OperatingSystemFamily == ecs.OSFamilyLinux:
			needs = append(needs, osType+"=linux")
		case p.OperatingSystemFamily != "":
			needs = append(needs, osType+"=windows")
		}
	}
	d.Requires = fill.Lines(needs)
	var where []string
	for _, c := range td.Doc.PlacementConstraints {
		where = append(where, wire.Value(c.Expression))
	}
	for _, c := range constraints {
		if c.Type == ecs.PlacementConstraintTypeDistinctInstance {
			d.Distinct = true
		} else {
			where = append(where, wire.Value(c.Expression))
		}
	}
	d.Where = fill.Lines(where)
	d.Strategy = strategyOf(strategy)
	if t.Network != nil {
		var zones []string
		for _, id := range t.Network.Subnets {
			if s, ok := state.Subnets.Get(r, id); ok {
				d.VPC = s.VPC
				if !slices.Contains(zones, s.Zone) {
					zones = append(zones, s.Zone)
				}
			}
		}
		d.Zones = fill.Lines(zones)
	}
	return d
}

// strategyOf is a strategy as the engine knows it. Without one tasks are spread
// over zones: so AWS says of services. Of RunTask it says nothing, and its
// console does the same.
func strategyOf(strategy []ecs.PlacementStrategy) string {
	if len(strategy) == 0 {
		return "spread:attribute:" + Zone
	}
	var out []string
	for _, s := range strategy {
		switch field := wire.Value(s.Field); s.Type {
		case ecs.PlacementStrategyTypeSpread:
			out = append(out, "spread:"+field)
		case ecs.PlacementStrategyTypeBinpack:
			out = append(out, "binpack:"+strings.ToLower(field))
		case ecs.PlacementStrategyTypeRandom:
			out = append(out, "random")
		}
	}
	return fill.Lines(out)
}

// A Hold is the choices of one request or plan. Nobody else is offered what it
// has chosen, until it is released.
type Hold struct {
	f     *Fleet
	tasks []string
	rows  map[string]row // what was seen of the instances that it has claimed
	order []string
}

// Hold begins a request or a plan.
func (f *Fleet) Hold() *Hold {
	h := &Hold{f: f}
	h.Reset()
	return h
}

// Reset gives back what was chosen and looks at the newest state.
func (h *Hold) Reset() {
	h.Release()
	h.rows, h.order = map[string]row{}, nil
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	h.f.sync()
}

// Release gives back what was chosen. What has become true meanwhile is known
// from its rows.
func (h *Hold) Release() {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if len(h.tasks) > 0 {
		h.f.sync()
	}
	for _, arn := range h.tasks {
		if h.f.held[arn]--; h.f.held[arn] <= 0 {
			delete(h.f.held, arn)
		}
		h.f.task(arn)
	}
	h.tasks = nil
}

// Take chooses an instance for a task in PROVISIONING and puts it there: its
// instance, its zone and, if it gets an interface, its subnet. It reports
// false, and does nothing, if no instance takes it.
func (h *Hold) Take(r store.Reader, t *state.Task, d fill.Demand) bool {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	arn, ok := h.f.cluster(t.Cluster).Choose(d)
	if ok {
		h.put(r, t, arn)
	}
	return ok
}

// TakeOn is Take for a chosen instance. It says why the instance does not take
// the task, "" if it does; it is not asked whether the instance is active.
func (h *Hold) TakeOn(r store.Reader, t *state.Task, d fill.Demand, arn string) fill.Reason {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	why, _ := h.f.cluster(t.Cluster).Check(d, arn)
	if why == "" {
		h.put(r, t, arn)
	}
	return why
}

func (h *Hold) put(r store.Reader, t *state.Task, arn string) {
	i := h.f.seen[arn]
	if _, ok := h.rows[arn]; !ok {
		h.rows[arn] = i
		h.order = append(h.order, arn)
	}
	t.Instance, t.Zone = arn, i.instance.Zone
	if t.Zone == "" {
		t.Zone, _ = i.instance.Attribute(Zone)
	}
	if a := t.NetworkAttachment(); a != nil && t.Network != nil {
		for _, id := range t.Network.Subnets {
			if s, ok := state.Subnets.Get(r, id); ok && s.Zone == t.Zone {
				a.SetDetail("subnetId", id)
				break
			}
		}
	}
	if t.Network == nil {
		t.LastStatus = state.Pending // it waits for nothing but its agent
	}
	h.tasks = append(h.tasks, t.ARN)
	h.f.held[t.ARN]++
	h.f.where[t.ARN] = i.instance.Cluster
	h.f.cluster(i.instance.Cluster).Add(held(r, t))
}

// Refusals say why the instances of a cluster do not take a task.
func (h *Hold) Refusals(cluster string, d fill.Demand) []fill.Refusal {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.f.cluster(cluster).Refusals(d)
}

// Check is why an instance does not take a task, "" if it does, and whether
// it takes tasks at all.
func (h *Hold) Check(cluster string, d fill.Demand, arn string) (why fill.Reason, active bool) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.f.cluster(cluster).Check(d, arn)
}

// Instances are the ARNs of a cluster's instances that take tasks, in order.
func (h *Hold) Instances(cluster string) []string {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.f.cluster(cluster).Instances()
}

// Active reports whether a cluster has instances that take tasks, of a capacity
// provider if one is given.
func (h *Hold) Active(cluster, provider string) bool {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.f.cluster(cluster).Active(provider)
}

// Claims are the instances on which the hold has put tasks, as they were seen,
// and their claims before and after.
func (h *Hold) Claims() iter.Seq2[*state.ContainerInstance, [2]*state.Claim] {
	return func(yield func(*state.ContainerInstance, [2]*state.Claim) bool) {
		for _, arn := range h.order {
			seen := h.rows[arn]
			next := &state.Claim{Instance: arn, N: 1}
			if seen.claim != nil {
				next.N = seen.claim.N + 1
			}
			if !yield(seen.instance, [2]*state.Claim{seen.claim, next}) {
				return
			}
		}
	}
}

// Claim makes a transaction place what the hold has chosen. It returns
// ErrMoved if that rests on what the transaction does not see.
func (h *Hold) Claim(tx *store.Tx) error {
	for i, c := range h.Claims() {
		have, _ := state.ContainerInstances.Get(tx, i.ARN)
		claim, _ := state.Claims.Get(tx, i.ARN)
		if have != i || claim != c[0] {
			return ErrMoved
		}
		state.Claims.Put(tx, c[1])
	}
	return nil
}
