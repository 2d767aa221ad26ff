// Package fill chooses container instances for tasks: which of them fit, and
// which of those a placement strategy prefers (facts: placement).
//
// It holds what instances have and what tasks take of it, is told of each
// change, and answers from what it has kept ready: nothing is looked through
// again that has not changed. It is pure, knows no table and no clock, and must
// never let tasks take more of an instance than there is.
package fill

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/store/state/query"
)

// A Reason is why an instance does not take a task, in AWS's words.
type Reason string

// The reasons, in the order in which they are looked for. What AWS says where
// several hold is not documented; its description of the process is resources,
// then attributes and constraints.
const (
	Agent     Reason = "AGENT"
	CPU       Reason = "RESOURCE:CPU"
	Memory    Reason = "RESOURCE:MEMORY"
	Ports     Reason = "RESOURCE:PORTS"
	ENI       Reason = "RESOURCE:ENI"
	GPU       Reason = "RESOURCE:GPU"
	Attribute Reason = "ATTRIBUTE"
	Location  Reason = "LOCATION"
	MemberOf  Reason = "MemberOf placement constraint unsatisfied."
	Distinct  Reason = "DistinctInstance placement constraint unsatisfied."
)

// Order tells how late a reason is found: of two instances the one with the
// later reason was the closer one.
func (r Reason) Order() int { return slices.Index(reasons, r) }

var reasons = []Reason{Agent, CPU, Memory, Ports, ENI, GPU, Attribute, Location, MemberOf, Distinct}

// A Port is a port of an instance and its protocol.
type Port uint32

const udp Port = 1 << 16

// TCP is a TCP port.
func TCP(n int) Port { return Port(n) }

// UDP is a UDP port.
func UDP(n int) Port { return udp | Port(n) }

// An Instance is a container instance without its tasks.
type Instance struct {
	ID        string
	Active    bool // takes tasks: neither draining nor registering
	Connected bool // its agent is
	CPU       int  // units
	Memory    int  // MiB
	GPUs      int
	ENIs      int // tasks with an interface of their own that it has room for; -1: as many as there are
	Ports     []Port
	Zone, VPC string
	Provider  string // capacity provider, "" for none

	// What expressions can ask of it.
	Attributes    map[string]string
	AgentVersion  string
	EC2InstanceID string
	RegisteredAt  time.Time
}

// A Task holds a part of an instance until it has stopped.
type Task struct {
	ID, Instance, Group string
	CPU, Memory, GPUs   int
	ENI                 bool
	Ports               []Port
	Running             bool // its last status is RUNNING
	Leaving             bool // it is to stop: it holds what it has, and spreading does not count it
}

// A Demand is what a task asks for. Those of equal tasks are equal.
type Demand struct {
	CPU, Memory, GPUs int
	ENI               bool
	Ports             string // of PortList
	Requires          string // of Lines: attributes, each name or name=value
	Zones             string // of Lines: where its subnets are; "" anywhere
	VPC               string // of its subnets
	Provider          string // capacity provider, "" for any instance
	Where             string // of Lines: expressions of memberOf constraints
	Distinct          bool   // no two tasks of the group on one instance
	Strategy          string // of Lines: spread:<field>, binpack:cpu, binpack:memory or random
	Group             string // by which spreading counts
}

// PortList writes ports as a Demand has them.
func PortList(ports []Port) string {
	ports = slices.Clone(ports)
	slices.Sort(ports)
	var b []byte
	for _, p := range slices.Compact(ports) {
		b = append(strconv.AppendUint(b, uint64(p), 10), ' ')
	}
	return string(b)
}

// Lines writes a list as a Demand has it.
func Lines(items []string) string { return strings.Join(items, "\x00") }

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\x00")
}

// A Fleet is the instances of one cluster with their tasks. One goroutine at a
// time may use it.
type Fleet struct {
	slots []*slot
	index map[string]int32 // by the instance's id
	free  []int32
	tasks map[string]Task

	groups map[string]*group
	attrs  []*attr // those that some strategy spreads over
	tests  map[string]*test

	// What changed, by slot: views read it from where they stopped. A slot that
	// a task was added to, and that so has less, is complemented.
	log  []int32
	base uint64 // how many entries are gone from its beginning

	views map[Demand]*view
	clock uint64 // of the views' use
	rand  uint64
}

// A slot is an instance and what its tasks take. What is looked at most comes
// first: with thousands of instances it is memory that takes the time.
type slot struct {
	version          uint64 // rises with every change
	shape            uint32 // rises with changes of what is not tasks
	rank             uint32
	cpu, memory      int32 // left
	enis, gpus       int32 // left
	tasks            int32
	known            bool // there is an instance: a task may come to be known first
	active, attached bool
	ports            []use
	groups           []tally

	id      uint64 // breaks the ties of rank
	running int
	values  []int32 // of the tracked attributes
	ask     query.Instance
	asked   uint64 // version of ask
	Instance
}

// A use says how often a port is taken: by the instance itself, or by a task.
type use struct {
	port Port
	n    int32
}

// A tally is the tasks of a group on one instance.
type tally struct {
	*group
	all, live int32
}

// A group is a task group: how many of its live tasks are where.
type group struct {
	name   string
	all    int       // tasks
	views  int       // that are about it
	counts [][]int32 // by tracked attribute and value
}

// unlimited is more interfaces than an instance will have.
const unlimited = 1 << 30

// take takes a port n times, or gives it back if n is negative.
func (s *slot) take(p Port, n int32) {
	i := slices.IndexFunc(s.ports, func(u use) bool { return u.port == p })
	if i < 0 {
		s.ports = append(s.ports, use{p, n})
	} else if s.ports[i].n += n; s.ports[i].n == 0 {
		s.ports = slices.Delete(s.ports, i, i+1)
	}
}

func (s *slot) taken(p Port) bool {
	for i := range s.ports {
		if s.ports[i].port == p {
			return true
		}
	}
	return false
}

// of is the instance's tasks of a group.
func (s *slot) of(g *group) *tally {
	for i := range s.groups {
		if s.groups[i].group == g {
			return &s.groups[i]
		}
	}
	return nil
}

// has makes an instance what it is from now on: what tasks take of it stays.
func (s *slot) has(i Instance, known bool) {
	enis := func(i Instance) int32 {
		if i.ENIs < 0 {
			return unlimited
		}
		return int32(i.ENIs)
	}
	s.cpu += int32(i.CPU - s.CPU)
	s.memory += int32(i.Memory - s.Memory)
	s.gpus += int32(i.GPUs - s.GPUs)
	s.enis += enis(i) - enis(s.Instance)
	for _, p := range s.Ports {
		s.take(p, -1)
	}
	for _, p := range i.Ports {
		s.take(p, 1)
	}
	s.Instance, s.known, s.active, s.attached = i, known, i.Active, i.Connected
	s.shape++
}

// An attr is an attribute that tasks are spread over.
type attr struct {
	name string
	ids  map[string]int32
}

func (a *attr) id(value string) int32 {
	n, ok := a.ids[value]
	if !ok {
		n = int32(len(a.ids))
		a.ids[value] = n
	}
	return n
}

// New makes an empty fleet. Random choices follow from the seed.
func New(seed uint64) *Fleet {
	return &Fleet{
		index: map[string]int32{}, tasks: map[string]Task{}, groups: map[string]*group{},
		tests: map[string]*test{}, views: map[Demand]*view{}, rand: seed,
	}
}

// random is the next number of splitmix64.
func (f *Fleet) random() uint64 {
	f.rand += 0x9e3779b97f4a7c15
	return mix(f.rand)
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// rank orders instances that are equal otherwise: not by name, so that the same
// one is not always the first.
func rank(id string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return mix(h)
}

// at finds or makes the slot of an instance.
func (f *Fleet) at(id string) (int32, *slot) {
	if n, ok := f.index[id]; ok {
		return n, f.slots[n]
	}
	var n int32
	if len(f.free) > 0 {
		n = f.free[len(f.free)-1]
		f.free = f.free[:len(f.free)-1]
	} else {
		n = int32(len(f.slots))
		f.slots = append(f.slots, &slot{})
	}
	s := f.slots[n]
	r := rank(id)
	*s = slot{Instance: Instance{ID: id}, rank: uint32(r >> 32), id: r, version: s.version, shape: s.shape + 1, values: make([]int32, len(f.attrs))}
	for k, a := range f.attrs {
		s.values[k] = a.id("")
	}
	f.index[id] = n
	return n, s
}

// touched notes that a slot changed: n is its number, or the complement of it.
func (f *Fleet) touched(n int32, s *slot) {
	s.version++
	f.log = append(f.log, n)
	if most := 4*len(f.slots) + 4096; len(f.log) > most {
		gone := len(f.log) / 2
		f.log = append(f.log[:0], f.log[gone:]...)
		f.base += uint64(gone)
	}
}

// drop frees a slot of which nothing is left.
func (f *Fleet) drop(n int32, s *slot) {
	if !s.known && s.tasks == 0 {
		delete(f.index, s.ID)
		f.free = append(f.free, n)
	}
}

// Set adds an instance, or replaces what was known of it. Its tasks stay.
func (f *Fleet) Set(i Instance) {
	n, s := f.at(i.ID)
	s.has(i, true)
	for k, a := range f.attrs {
		f.revalue(s, k, a.id(i.Attributes[a.name]))
	}
	f.touched(n, s)
}

// revalue moves the tasks of an instance to another value of an attribute.
func (f *Fleet) revalue(s *slot, k int, id int32) {
	if s.values[k] == id {
		return
	}
	for _, t := range s.groups {
		t.add(k, s.values[k], -t.live)
		t.add(k, id, t.live)
	}
	s.values[k] = id
}

func (g *group) add(k int, id, n int32) {
	if n == 0 {
		return
	}
	for len(g.counts) <= k {
		g.counts = append(g.counts, nil)
	}
	if int(id) >= len(g.counts[k]) {
		g.counts[k] = append(g.counts[k], make([]int32, int(id)+1-len(g.counts[k]))...)
	}
	g.counts[k][id] += n
}

func (g *group) count(k int, id int32) int32 {
	if g == nil || k >= len(g.counts) || int(id) >= len(g.counts[k]) {
		return 0
	}
	return g.counts[k][id]
}

// Remove forgets an instance. What is known of its tasks stays.
func (f *Fleet) Remove(id string) {
	n, ok := f.index[id]
	if !ok || !f.slots[n].known {
		return
	}
	s := f.slots[n]
	s.has(Instance{ID: id}, false)
	for k, a := range f.attrs {
		f.revalue(s, k, a.id(""))
	}
	f.touched(n, s)
	f.drop(n, s)
}

// Add puts a task on its instance, or replaces what was known of it.
func (f *Fleet) Add(t Task) {
	if old, ok := f.tasks[t.ID]; ok {
		if old.Instance == t.Instance && old.Group == t.Group && old.CPU == t.CPU && old.Memory == t.Memory && old.GPUs == t.GPUs &&
			old.ENI == t.ENI && old.Running == t.Running && old.Leaving == t.Leaving && slices.Equal(old.Ports, t.Ports) {
			return
		}
		f.Drop(t.ID)
	}
	f.tasks[t.ID] = t
	n, s := f.at(t.Instance)
	f.account(s, &t, 1)
	f.touched(^n, s)
}

// Drop takes a task from its instance.
func (f *Fleet) Drop(id string) {
	t, ok := f.tasks[id]
	if !ok {
		return
	}
	delete(f.tasks, id)
	n, s := f.at(t.Instance)
	f.account(s, &t, -1)
	f.touched(n, s)
	f.drop(n, s)
}

// account adds a task n times: once, or minus once.
func (f *Fleet) account(s *slot, t *Task, n int32) {
	s.cpu -= n * int32(t.CPU)
	s.memory -= n * int32(t.Memory)
	s.gpus -= n * int32(t.GPUs)
	if t.ENI {
		s.enis -= n
	}
	for _, p := range t.Ports {
		s.take(p, n)
	}
	s.tasks += n
	if t.Running {
		s.running += int(n)
	}
	g := f.group(t.Group)
	have := s.of(g)
	if have == nil {
		s.groups = append(s.groups, tally{group: g})
		have = &s.groups[len(s.groups)-1]
	}
	g.all += int(n)
	have.all += n
	if !t.Leaving {
		have.live += n
		for k := range f.attrs {
			g.add(k, s.values[k], n)
		}
	}
	if have.all == 0 {
		*have = s.groups[len(s.groups)-1]
		s.groups = s.groups[:len(s.groups)-1]
	}
	f.leave(g)
}

// group finds or makes a group.
func (f *Fleet) group(name string) *group {
	g := f.groups[name]
	if g == nil {
		g = &group{name: name}
		f.groups[name] = g
	}
	return g
}

// leave forgets a group that has no tasks and that no view is about.
func (f *Fleet) leave(g *group) {
	if g.all == 0 && g.views == 0 {
		delete(f.groups, g.name)
	}
}

// track makes the fleet count the tasks of each group by an attribute.
func (f *Fleet) track(name string) int {
	for k, a := range f.attrs {
		if a.name == name {
			return k
		}
	}
	k, a := len(f.attrs), &attr{name: name, ids: map[string]int32{}}
	f.attrs = append(f.attrs, a)
	for _, s := range f.slots {
		id := a.id(s.Attributes[name])
		s.values = append(s.values, id)
		for _, t := range s.groups {
			t.add(k, id, t.live)
		}
	}
	return k
}

// Choose is the instance that a task should go to, false if none takes it.
func (f *Fleet) Choose(d Demand) (id string, ok bool) {
	return f.view(d).choose(f, f.groups[d.Group])
}

// Check is why an instance does not take a task, "" if it does. An instance
// that is not looked at for such a task, as it is not active or of another
// capacity provider, is not seen.
func (f *Fleet) Check(d Demand, id string) (why Reason, seen bool) {
	n, ok := f.index[id]
	if !ok {
		return "", false
	}
	v := f.view(d)
	why = v.check(f, n, f.slots[n])
	return why, why != unseen
}

// Refusals are the instances that do not take a task, and why, in the order of
// their ids.
func (f *Fleet) Refusals(d Demand) (out []Refusal) {
	v := f.view(d)
	for n, s := range f.slots {
		if why := v.check(f, int32(n), s); why != "" && why != unseen {
			out = append(out, Refusal{s.ID, why, v.lack(s, why)})
		}
	}
	slices.SortFunc(out, func(a, b Refusal) int { return strings.Compare(a.Instance, b.Instance) })
	return out
}

// A Refusal is an instance that does not take a task.
type Refusal struct {
	Instance string
	Reason   Reason
	lack     int // how much of a resource it has too little
}

// Closest is the refusal of the instance that was nearest to taking the task:
// the one that lacks what is looked at last, and least of it.
func Closest(rs []Refusal) Refusal {
	best := rs[0]
	for _, r := range rs[1:] {
		if a, b := r.Reason.Order(), best.Reason.Order(); a > b || a == b && r.lack < best.lack {
			best = r
		}
	}
	return best
}

// Active reports whether any instance takes tasks at all, of a capacity provider if one is given.
func (f *Fleet) Active(provider string) bool {
	for _, s := range f.slots {
		if s.known && s.Active && (provider == "" || s.Provider == provider) {
			return true
		}
	}
	return false
}

// Instances are the ids of those that take tasks, in order.
func (f *Fleet) Instances() (ids []string) {
	for _, s := range f.slots {
		if s.known && s.Active {
			ids = append(ids, s.ID)
		}
	}
	slices.Sort(ids)
	return ids
}
