package fill

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/berth-run/berth/store/state/query"
)

// model is what the fleet should know, looked through anew for each question.
type model struct {
	instances map[string]Instance
	tasks     map[string]Task
}

func (m *model) on(id string) (ts []Task) {
	for _, k := range slices.Sorted(maps.Keys(m.tasks)) {
		if t := m.tasks[k]; t.Instance == id {
			ts = append(ts, t)
		}
	}
	return ts
}

// why is the rule, written down as plainly as possible.
func (m *model) why(d Demand, i Instance) Reason {
	cpu, memory, gpus, enis := i.CPU, i.Memory, i.GPUs, i.ENIs
	taken := map[Port]bool{}
	for _, p := range i.Ports {
		taken[p] = true
	}
	q := query.Instance{Attributes: i.Attributes, AgentConnected: i.Connected, EC2InstanceID: i.EC2InstanceID}
	mine := false
	for _, t := range m.on(i.ID) {
		cpu, memory, gpus = cpu-t.CPU, memory-t.Memory, gpus-t.GPUs
		if t.ENI {
			enis--
		}
		for _, p := range t.Ports {
			taken[p] = true
		}
		mine = mine || t.Group == d.Group
		q.Groups = append(q.Groups, t.Group)
		if t.Running {
			q.RunningTasks++
		}
	}
	switch {
	case !i.Active || d.Provider != "" && d.Provider != i.Provider:
		return unseen
	case !i.Connected:
		return Agent
	case cpu < d.CPU:
		return CPU
	case memory < d.Memory:
		return Memory
	}
	for p := range strings.FieldsSeq(d.Ports) {
		n := 0
		fmt.Sscan(p, &n)
		if taken[Port(n)] {
			return Ports
		}
	}
	switch {
	case d.ENI && i.ENIs >= 0 && enis < 1:
		return ENI
	case d.GPUs > 0 && gpus < d.GPUs:
		return GPU
	}
	for _, a := range lines(d.Requires) {
		name, want, valued := strings.Cut(a, "=")
		if have, ok := i.Attributes[name]; !ok || valued && have != want {
			return Attribute
		}
	}
	switch {
	case d.VPC != "" && d.VPC != i.VPC:
		return Attribute
	case d.Zones != "" && !slices.Contains(lines(d.Zones), i.Zone):
		return Location
	}
	for _, w := range lines(d.Where) {
		e, err := query.Parse(w)
		if err != nil || !e.Match(&q) {
			return MemberOf
		}
	}
	if d.Distinct && mine {
		return Distinct
	}
	return ""
}

// worth are the numbers by which a strategy orders instances; less is better.
func (m *model) worth(d Demand, i Instance) (w []int) {
	alike := func(same func(Instance) bool) (n int) {
		for _, t := range m.tasks {
			if o, ok := m.instances[t.Instance]; t.Group == d.Group && !t.Leaving && (ok && same(o) || !ok && same(Instance{ID: t.Instance})) {
				n++
			}
		}
		return n
	}
	for _, s := range lines(d.Strategy) {
		switch s {
		case "spread:instanceId", "spread:host":
			w = append(w, alike(func(o Instance) bool { return o.ID == i.ID }))
		case "binpack:cpu", "binpack:memory":
			n := i.CPU
			if s == "binpack:memory" {
				n = i.Memory
			}
			for _, t := range m.on(i.ID) {
				if s == "binpack:memory" {
					n -= t.Memory
				} else {
					n -= t.CPU
				}
			}
			w = append(w, n)
		default:
			a := strings.TrimPrefix(s, "spread:attribute:")
			w = append(w, alike(func(o Instance) bool { return o.Attributes[a] == i.Attributes[a] }))
		}
	}
	return append(w, len(m.on(i.ID)))
}

func (m *model) fits(d Demand) (ids []string) {
	for _, id := range slices.Sorted(maps.Keys(m.instances)) {
		if m.why(d, m.instances[id]) == "" {
			ids = append(ids, id)
		}
	}
	return ids
}

// fresh is a fleet that was told the same in another order.
func (m *model) fresh() *Fleet {
	f := New(7)
	for _, k := range slices.Backward(slices.Sorted(maps.Keys(m.tasks))) {
		f.Add(m.tasks[k])
	}
	for _, k := range slices.Sorted(maps.Keys(m.instances)) {
		f.Set(m.instances[k])
	}
	return f
}

var strategies = []string{"spread:instanceId", "spread:host", "spread:attribute:zone", "spread:attribute:rack", "binpack:cpu", "binpack:memory"}

func demands(t *rapid.T) Demand {
	d := Demand{
		CPU: rapid.IntRange(0, 4).Draw(t, "cpu") * 256, Memory: rapid.IntRange(1, 4).Draw(t, "memory") * 256,
		ENI: rapid.Bool().Draw(t, "eni"), Distinct: rapid.IntRange(0, 4).Draw(t, "distinct") == 0,
		Group:    rapid.SampledFrom([]string{"a", "b"}).Draw(t, "group"),
		Strategy: Lines(rapid.SliceOfN(rapid.SampledFrom(strategies), 0, 5).Draw(t, "strategy")),
	}
	if rapid.IntRange(0, 5).Draw(t, "gpu") == 0 {
		d.GPUs = 1
	}
	if rapid.Bool().Draw(t, "ports") {
		d.Ports = PortList([]Port{TCP(80 + rapid.IntRange(0, 1).Draw(t, "port")), UDP(53)}[:rapid.IntRange(1, 2).Draw(t, "n")])
	}
	d.Requires = rapid.SampledFrom([]string{"", "zone", "rack=r1"}).Draw(t, "requires")
	d.VPC = rapid.SampledFrom([]string{"", "", "v1"}).Draw(t, "vpc")
	d.Zones = rapid.SampledFrom([]string{"", "", "za", Lines([]string{"za", "zb"})}).Draw(t, "zones")
	d.Provider = rapid.SampledFrom([]string{"", "", "", "cp"}).Draw(t, "provider")
	d.Where = rapid.SampledFrom([]string{"", "", "attribute:rack == r1", "runningTasksCount < 2", "not(task:group == b)",
		Lines([]string{"attribute:zone in [za, zb]", "not(task:group == a) or runningTasksCount == 1"})}).Draw(t, "where")
	return d
}

func instance(t *rapid.T, id string) Instance {
	i := Instance{
		ID: id, Active: rapid.IntRange(0, 5).Draw(t, "active") > 0, Connected: rapid.IntRange(0, 5).Draw(t, "connected") > 0,
		CPU: rapid.IntRange(1, 4).Draw(t, "icpu") * 512, Memory: rapid.IntRange(1, 4).Draw(t, "imemory") * 512,
		GPUs: rapid.IntRange(0, 1).Draw(t, "igpu"), ENIs: rapid.IntRange(-1, 2).Draw(t, "ienis"),
		Zone: rapid.SampledFrom([]string{"za", "zb", "zc"}).Draw(t, "zone"), VPC: rapid.SampledFrom([]string{"v1", "v2"}).Draw(t, "ivpc"),
		Provider:   rapid.SampledFrom([]string{"", "cp"}).Draw(t, "iprovider"),
		Attributes: map[string]string{},
	}
	i.Attributes["zone"] = i.Zone
	if r := rapid.SampledFrom([]string{"", "r1", "r2"}).Draw(t, "rack"); r != "" {
		i.Attributes["rack"] = r
	}
	if rapid.IntRange(0, 3).Draw(t, "iports") == 0 {
		i.Ports = []Port{TCP(80)}
	}
	return i
}

// TestChoose plays changes and questions at random, and holds every answer
// against the model: what is chosen fits and nothing that fits is better, what
// is refused is refused for the first reason there is, nothing is ever
// over-committed, and a fleet that is told the same at once answers the same.
func TestChoose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{map[string]Instance{}, map[string]Task{}}
		f := New(1)
		id := func() string { return fmt.Sprint("i", rapid.IntRange(0, 5).Draw(t, "instance")) }
		for n := range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1:
				i := instance(t, id())
				if len(m.on(i.ID)) == 0 || rapid.Bool().Draw(t, "resize") { // or it could come to have less than its tasks
					m.instances[i.ID] = i
					f.Set(i)
				}
			case 2:
				i := id()
				delete(m.instances, i)
				f.Remove(i)
			case 3:
				if len(m.tasks) > 0 {
					k := rapid.SampledFrom(slices.Sorted(maps.Keys(m.tasks))).Draw(t, "task")
					delete(m.tasks, k)
					f.Drop(k)
				}
			case 4:
				if len(m.tasks) > 0 {
					k := rapid.SampledFrom(slices.Sorted(maps.Keys(m.tasks))).Draw(t, "task")
					x := m.tasks[k]
					x.Running, x.Leaving = rapid.Bool().Draw(t, "running"), rapid.Bool().Draw(t, "leaving")
					m.tasks[k] = x
					f.Add(x)
				}
			default:
				d := demands(t)
				got, ok := f.Choose(d)
				fits := m.fits(d)
				if ok != (len(fits) > 0) {
					t.Fatalf("%+v: chose %q, %v fit", d, got, fits)
				}
				for i := range m.instances {
					why, seen := f.Check(d, i)
					want := m.why(d, m.instances[i])
					if why != want && !(want == unseen && !seen) {
						t.Fatalf("%+v: %s refused for %q, want %q", d, i, why, want)
					}
				}
				if !ok {
					for _, r := range f.Refusals(d) {
						if want := m.why(d, m.instances[r.Instance]); r.Reason != want {
							t.Fatalf("%s refused for %q, want %q", r.Instance, r.Reason, want)
						}
					}
					continue
				}
				if !slices.Contains(fits, got) {
					t.Fatalf("%+v: chose %s of %v", d, got, fits)
				}
				worth := m.worth(d, m.instances[got])
				for _, o := range fits {
					if w := m.worth(d, m.instances[o]); slices.Compare(w, worth) < 0 {
						t.Fatalf("%+v: chose %s with %v, %s has %v", d, got, worth, o, w)
					}
				}
				if again, _ := m.fresh().Choose(d); again != got {
					t.Fatalf("%+v: chose %s step by step and %s at once", d, got, again)
				}
				x := Task{ID: fmt.Sprint("t", n), Instance: got, Group: d.Group, CPU: d.CPU, Memory: d.Memory, GPUs: d.GPUs, ENI: d.ENI}
				for p := range strings.FieldsSeq(d.Ports) {
					var q Port
					fmt.Sscan(p, &q)
					x.Ports = append(x.Ports, q)
				}
				m.tasks[x.ID] = x
				f.Add(x)
			}
		}
	})
}

// TestSpread: over instances that have room, the counts of a group differ by
// one at most, whatever else is there.
func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := New(1)
		field := rapid.SampledFrom([]string{"spread:instanceId", "spread:attribute:zone"}).Draw(t, "field")
		n := rapid.IntRange(1, 9).Draw(t, "instances")
		where := map[string]string{}
		for i := range n {
			id, zone := fmt.Sprint("i", i), fmt.Sprint("z", i%3)
			f.Set(Instance{ID: id, Active: true, Connected: true, CPU: 1 << 20, Memory: 1 << 20, ENIs: -1, Attributes: map[string]string{"zone": zone}})
			where[id] = id
			if field == "spread:attribute:zone" {
				where[id] = zone
			}
		}
		for i := range rapid.IntRange(0, 20).Draw(t, "others") {
			f.Add(Task{ID: fmt.Sprint("o", i), Instance: fmt.Sprint("i", i*i%n), Group: "other", CPU: 10})
		}
		count := map[string]int{}
		for _, v := range where {
			count[v] = 0
		}
		for i := range rapid.IntRange(1, 40).Draw(t, "tasks") {
			id, ok := f.Choose(Demand{CPU: 1, Memory: 1, Group: "g", Strategy: field})
			if !ok {
				t.Fatal("nothing fits")
			}
			f.Add(Task{ID: fmt.Sprint("t", i), Instance: id, Group: "g", CPU: 1, Memory: 1})
			count[where[id]]++
			all := slices.Sorted(maps.Values(count))
			if all[len(all)-1]-all[0] > 1 {
				t.Fatalf("after %d tasks: %v", i+1, count)
			}
		}
	})
}

// TestRandom: the choice follows from the seed, and leaves out none that fits.
func TestRandom(t *testing.T) {
	run := func(seed uint64) (ids []string) {
		f := New(seed)
		for i := range 8 {
			f.Set(Instance{ID: fmt.Sprint("i", i), Active: true, Connected: true, CPU: 1 << 20, Memory: 1 << 20, Attributes: map[string]string{"z": fmt.Sprint(i % 3)}})
		}
		for range 400 {
			id, _ := f.Choose(Demand{CPU: 1, Strategy: "random"})
			ids = append(ids, id)
		}
		return ids
	}
	a := run(1)
	if !slices.Equal(a, run(1)) {
		t.Error("one seed, two outcomes")
	}
	if slices.Equal(a, run(2)) {
		t.Error("two seeds, one outcome")
	}
	count := map[string]int{}
	for _, id := range a {
		count[id]++
	}
	for id, n := range count {
		if len(count) != 8 || n < 25 || n > 80 {
			t.Errorf("%s was chosen %d times of 400, of %d instances", id, n, len(count))
		}
	}
}

// TestForget: a view that was dropped comes back with the same answer.
func TestForget(t *testing.T) {
	f := New(1)
	for i := range 3 {
		f.Set(Instance{ID: fmt.Sprint("i", i), Active: true, Connected: true, CPU: 1000 * (i + 1), Memory: 1000, Attributes: map[string]string{}})
	}
	for round := range 2 {
		for n := range 3 * maxViews {
			d := Demand{CPU: 1 + n, Memory: 1, Strategy: "binpack:cpu", Where: fmt.Sprintf("runningTasksCount < %d", n+1), Requires: ""}
			if id, _ := f.Choose(d); id != "i0" {
				t.Fatalf("round %d, demand %d: chose %q", round, n, id)
			}
		}
	}
	if len(f.views) > maxViews || len(f.tests) > maxViews {
		t.Errorf("%d views and %d tests are kept", len(f.views), len(f.tests))
	}
}

func TestClosest(t *testing.T) {
	f := New(1)
	f.Set(Instance{ID: "far", Active: true, CPU: 1, Memory: 1})
	f.Set(Instance{ID: "near", Active: true, Connected: true, CPU: 900, Memory: 1})
	f.Set(Instance{ID: "less", Active: true, Connected: true, CPU: 100, Memory: 1})
	f.Set(Instance{ID: "gone", CPU: 100, Memory: 1})
	rs := f.Refusals(Demand{CPU: 1000, Memory: 1})
	if len(rs) != 3 || rs[0].Reason != Agent {
		t.Fatalf("%+v", rs)
	}
	if c := Closest(rs); c.Instance != "near" || c.Reason != CPU {
		t.Errorf("closest: %+v", c)
	}
}
