package fill

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth/store/state/query"
)

// unseen: the instance is not one of those that such a task could go to.
const unseen Reason = "-"

// maxViews is how many views are kept; the one that was not used for longest goes.
const maxViews = 128

// A view keeps the instances that take one kind of task, in the order in which
// a strategy prefers them. It reads what changed when it is asked.
type view struct {
	d        Demand
	group    *group // nil: the view serves all groups
	ports    []Port
	zones    []string
	requires *test
	where    []*test

	chain []element
	keys  int   // how many numbers a key has
	attrs []int // tracked attributes of the chain
	// idle: an instance that a task was added to can only come to stand further
	// back, so that it is enough to look again when it stands first.
	idle  bool
	leads bool // the first element within a part is a random choice

	read  uint64 // how much of the log was read
	used  uint64 // when, by the fleet's clock
	place []place
	parts []*part
}

// An element is one of the things by which instances are compared.
type element struct {
	by  by
	key int // of its number in a key, or in attrs
}

type by uint8

const (
	byAttribute by = iota // tasks of the group on instances with the same value
	byGroup               // tasks of the group on the instance
	byCPU                 // what is left
	byMemory
	byRandom
	byTasks // all tasks on the instance
)

// A place is where a view has an instance.
type place struct {
	seen  uint64 // version of the instance
	part  int32  // -1: it does not take the task
	at    int32  // in the part's heap
	home  int32  // the part that it belongs to,
	shape uint32 // as it was when that was looked for
}

// A key has one number for each element but attributes, of 32 bits, and after
// them what orders equals.
type key [3]uint64

func (k *key) set(i int, n uint32) { k[i/2] |= uint64(n) << (32 - i%2*32) }
func (k *key) get(i int) uint32    { return uint32(k[i/2] >> (32 - i%2*32)) }

// A part has the instances with the same values of the attributes that are
// spread over, as a heap.
type part struct {
	values []int32
	heap   []node
}

// A node has its key with it: what is compared lies together.
type node struct {
	key key
	n   int32 // slot
}

// view finds or makes the view of a demand and reads what has changed.
func (f *Fleet) view(d Demand) *view {
	f.clock++
	if !d.Distinct && !countsGroup(d.Strategy) {
		d.Group = "" // one view serves all groups
	}
	v := f.views[d]
	if v == nil {
		if len(f.views) >= maxViews {
			f.forget()
		}
		v = f.newView(d)
		f.views[d] = v
	}
	v.used = f.clock
	v.catchUp(f)
	return v
}

// forget drops the view that was not used for longest.
func (f *Fleet) forget() {
	var oldest *view
	for _, v := range f.views {
		if oldest == nil || v.used < oldest.used {
			oldest = v
		}
	}
	delete(f.views, oldest.d)
	if oldest.group != nil {
		oldest.group.views--
		f.leave(oldest.group)
	}
	for _, t := range append(oldest.where, oldest.requires) {
		if t != nil {
			if t.users--; t.users == 0 {
				delete(f.tests, t.name)
			}
		}
	}
}

func countsGroup(strategy string) bool {
	return strings.Contains(strategy, "spread:instanceId") || strings.Contains(strategy, "spread:host")
}

func (f *Fleet) newView(d Demand) *view {
	v := &view{d: d, zones: lines(d.Zones)}
	if d.Group != "" {
		v.group = f.group(d.Group)
		v.group.views++
	}
	for p := range strings.FieldsSeq(d.Ports) {
		n, _ := strconv.ParseUint(p, 10, 32) // of PortList
		v.ports = append(v.ports, Port(n))
	}
	if d.Requires != "" {
		v.requires = f.test("requires\x00"+d.Requires, func() *test { return requires(lines(d.Requires)) })
	}
	for _, e := range lines(d.Where) {
		v.where = append(v.where, f.test("where\x00"+e, func() *test { return where(e) }))
	}
	with := func(b by) {
		if !slices.ContainsFunc(v.chain, func(e element) bool { return e.by == b }) {
			v.chain = append(v.chain, element{b, v.keys})
			v.keys++
		}
	}
	for _, s := range lines(d.Strategy) {
		switch s {
		case "spread:instanceId", "spread:host":
			with(byGroup)
		case "binpack:cpu":
			with(byCPU)
		case "binpack:memory":
			with(byMemory)
		case "random":
			v.leads = v.leads || v.keys == 0
			with(byRandom)
		default:
			name := strings.TrimPrefix(s, "spread:attribute:")
			if k := f.track(name); !slices.Contains(v.attrs, k) {
				v.chain = append(v.chain, element{byAttribute, len(v.attrs)})
				v.attrs = append(v.attrs, k)
			}
		}
	}
	v.idle = !slices.ContainsFunc(v.chain, func(e element) bool { return e.by == byCPU || e.by == byMemory || e.by == byRandom }) &&
		!slices.ContainsFunc(v.where, func(t *test) bool { return t.dynamic })
	with(byTasks) // among equals the least loaded (facts: placement)
	v.rebuild(f)
	return v
}

func (v *view) rebuild(f *Fleet) {
	v.parts, v.place = nil, nil
	v.grow(f)
	for n, s := range f.slots {
		v.update(f, int32(n), s)
	}
	v.read = f.base + uint64(len(f.log))
}

func (v *view) grow(f *Fleet) {
	for len(v.place) < len(f.slots) {
		v.place = append(v.place, place{part: -1})
	}
}

func (v *view) catchUp(f *Fleet) {
	end := f.base + uint64(len(f.log))
	if v.read == end {
		return
	}
	if v.read < f.base {
		v.rebuild(f)
		return
	}
	v.grow(f)
	for _, n := range f.log[v.read-f.base:] {
		if n < 0 {
			if v.idle {
				continue
			}
			n = ^n
		}
		if s := f.slots[n]; v.place[n].seen != s.version {
			v.update(f, n, s)
		}
	}
	v.read = end
}

// update puts an instance where it belongs now.
func (v *view) update(f *Fleet, n int32, s *slot) {
	p := &v.place[n]
	p.seen = s.version
	if v.check(f, n, s) != "" {
		if p.part >= 0 {
			v.remove(f, n)
		}
		return
	}
	if p.shape != s.shape {
		p.home, p.shape = v.part(s), s.shape
	}
	part := p.home
	if p.part >= 0 && p.part != part {
		v.remove(f, n)
	}
	key := v.key(f, s)
	heap := &v.parts[part].heap
	if p.part < 0 {
		p.part, p.at = part, int32(len(*heap))
		*heap = append(*heap, node{key, n})
	} else if at := &(*heap)[p.at]; at.key == key {
		return
	} else {
		at.key = key
	}
	if !v.up(f, *heap, int(p.at)) {
		v.down(f, *heap, int(p.at))
	}
}

// part is the part to which an instance belongs.
func (v *view) part(s *slot) int32 {
next:
	for n, p := range v.parts {
		for i, k := range v.attrs {
			if p.values[i] != s.values[k] {
				continue next
			}
		}
		return int32(n)
	}
	p := &part{values: make([]int32, len(v.attrs))}
	for i, k := range v.attrs {
		p.values[i] = s.values[k]
	}
	v.parts = append(v.parts, p)
	return int32(len(v.parts) - 1)
}

func (v *view) key(f *Fleet, s *slot) (k key) {
	for _, e := range v.chain {
		switch e.by {
		case byGroup:
			if t := s.of(v.group); t != nil {
				k.set(e.key, uint32(t.live))
			}
		case byCPU:
			k.set(e.key, uint32(s.cpu))
		case byMemory:
			k.set(e.key, uint32(s.memory))
		case byRandom:
			if !v.leads {
				k.set(e.key, uint32(f.random()))
			}
		case byTasks:
			k.set(e.key, uint32(s.tasks))
		}
	}
	k.set(v.keys, s.rank)
	return k
}

// check is why an instance does not take such a task.
func (v *view) check(f *Fleet, n int32, s *slot) Reason {
	d := &v.d
	switch {
	case !s.known || !s.active || d.Provider != "" && d.Provider != s.Provider:
		return unseen
	case !s.attached:
		return Agent
	case int(s.cpu) < d.CPU:
		return CPU
	case int(s.memory) < d.Memory:
		return Memory
	}
	for _, p := range v.ports {
		if s.taken(p) {
			return Ports
		}
	}
	switch {
	case d.ENI && s.enis < 1:
		return ENI
	case d.GPUs > 0 && int(s.gpus) < d.GPUs:
		return GPU
	case v.requires != nil && !v.requires.holds(n, s):
		return Attribute
	case d.VPC != "" && s.VPC != "" && d.VPC != s.VPC:
		return Attribute
	case len(v.zones) > 0 && !slices.Contains(v.zones, s.Zone):
		return Location
	}
	for _, t := range v.where {
		if !t.holds(n, s) {
			return MemberOf
		}
	}
	if d.Distinct && s.of(v.group) != nil {
		return Distinct
	}
	return ""
}

// lack is how much too little of a resource an instance has.
func (v *view) lack(s *slot, why Reason) int {
	switch why {
	case CPU:
		return v.d.CPU - int(s.cpu)
	case Memory:
		return v.d.Memory - int(s.memory)
	}
	return 0
}

// choose takes the best of the parts' first ones.
func (v *view) choose(f *Fleet, g *group) (string, bool) {
	var best *part
	var first int32
	equals := 0
	for _, p := range v.parts {
		for len(p.heap) > 0 && v.place[p.heap[0].n].seen != f.slots[p.heap[0].n].version {
			v.update(f, p.heap[0].n, f.slots[p.heap[0].n])
		}
		if len(p.heap) == 0 {
			continue
		}
		n := p.heap[0].n
		if best == nil {
			best, first, equals = p, n, len(p.heap)
			continue
		}
		c := v.compare(g, p, best)
		if c == 0 && v.leads {
			// Each instance of the parts that are equal is as likely.
			if equals += len(p.heap); f.random()%uint64(equals) < uint64(len(p.heap)) {
				best, first = p, n
			}
		} else if c < 0 || c == 0 && f.slots[n].id < f.slots[first].id {
			best, first, equals = p, n, len(p.heap)
		}
	}
	switch {
	case best == nil:
		return "", false
	case v.leads:
		first = best.heap[f.random()%uint64(len(best.heap))].n
	}
	return f.slots[first].ID, true
}

// compare compares the first instances of two parts by the whole chain.
func (v *view) compare(g *group, p, q *part) int {
	for _, e := range v.chain {
		var a, b uint32
		switch {
		case e.by == byAttribute:
			k := v.attrs[e.key]
			a, b = uint32(g.count(k, p.values[e.key])), uint32(g.count(k, q.values[e.key]))
		case e.by == byRandom && v.leads:
			return 0
		default:
			a, b = p.heap[0].key.get(e.key), q.heap[0].key.get(e.key)
		}
		if c := cmp.Compare(a, b); c != 0 {
			return c
		}
	}
	return 0
}

// less orders the instances of one part.
func less(f *Fleet, a, b *node) bool {
	for i := range a.key {
		if a.key[i] != b.key[i] {
			return a.key[i] < b.key[i]
		}
	}
	if x, y := f.slots[a.n].id, f.slots[b.n].id; x != y {
		return x < y
	}
	return f.slots[a.n].ID < f.slots[b.n].ID
}

func (v *view) swap(h []node, i, j int) {
	h[i], h[j] = h[j], h[i]
	v.place[h[i].n].at, v.place[h[j].n].at = int32(i), int32(j)
}

func (v *view) up(f *Fleet, h []node, i int) (moved bool) {
	for i > 0 {
		parent := (i - 1) / arity
		if !less(f, &h[i], &h[parent]) {
			break
		}
		v.swap(h, i, parent)
		i, moved = parent, true
	}
	return moved
}

// arity is how many children a node of a heap has: their keys are neighbours.
const arity = 4

func (v *view) down(f *Fleet, h []node, i int) {
	for {
		child := arity*i + 1
		if child >= len(h) {
			return
		}
		for other := child + 1; other < min(arity*i+1+arity, len(h)); other++ {
			if less(f, &h[other], &h[child]) {
				child = other
			}
		}
		if !less(f, &h[child], &h[i]) {
			return
		}
		v.swap(h, i, child)
		i = child
	}
}

func (v *view) remove(f *Fleet, n int32) {
	p := &v.place[n]
	h := &v.parts[p.part].heap
	i, last := int(p.at), len(*h)-1
	if i != last {
		v.swap(*h, i, last)
	}
	*h = (*h)[:last]
	if i != last && !v.up(f, *h, i) {
		v.down(f, *h, i)
	}
	p.part = -1
}

// A test is something that holds for an instance or not, and is only asked
// again when what it depends on has changed.
type test struct {
	name    string
	users   int
	dynamic bool // it depends on the instance's tasks
	match   func(*slot) bool
	known   []verdict // by slot
}

// A verdict is what was found for a version of an instance.
type verdict struct {
	version uint64
	holds   bool
}

func (f *Fleet) test(name string, makeTest func() *test) *test {
	t := f.tests[name]
	if t == nil {
		t = makeTest()
		t.name = name
		f.tests[name] = t
	}
	t.users++
	return t
}

func (t *test) holds(n int32, s *slot) bool {
	for int(n) >= len(t.known) {
		t.known = append(t.known, verdict{version: math.MaxUint64})
	}
	version := uint64(s.shape)
	if t.dynamic {
		version = s.version
	}
	k := &t.known[n]
	if k.version != version {
		k.version, k.holds = version, t.match(s)
	}
	return k.holds
}

// requires tests attributes: each must be there, with its value if it has one.
func requires(attributes []string) *test {
	return &test{match: func(s *slot) bool {
		for _, a := range attributes {
			name, want, valued := strings.Cut(a, "=")
			have, ok := s.Attributes[name]
			if !ok || valued && have != want {
				return false
			}
		}
		return true
	}}
}

// where tests an expression. One that cannot be read holds for no instance: who
// takes constraints from users has refused it.
func where(expression string) *test {
	e, err := query.Parse(expression)
	if err != nil {
		return &test{match: func(*slot) bool { return false }}
	}
	dynamic := e.Dynamic()
	return &test{dynamic: dynamic, match: func(s *slot) bool { return e.Match(s.query(dynamic)) }}
}

// query is what an expression can ask of an instance; with its tasks, if it asks of these.
func (s *slot) query(tasks bool) *query.Instance {
	q := &s.ask
	q.Attributes, q.AgentConnected, q.AgentVersion = s.Attributes, s.Connected, s.AgentVersion
	q.EC2InstanceID, q.RegisteredAt = s.EC2InstanceID, s.RegisteredAt
	if tasks && s.asked != s.version {
		s.asked = s.version
		q.RunningTasks = s.running
		q.Groups = q.Groups[:0]
		for i := range s.groups {
			q.Groups = append(q.Groups, s.groups[i].name)
		}
	}
	return q
}
