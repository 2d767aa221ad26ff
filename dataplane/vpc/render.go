package vpc

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// render returns the script that replaces the whole table by rs in one transaction: no packet sees an empty table, and
// tracked connections do not notice.
func render(rs *ruleset) string {
	var b strings.Builder
	// Declared first so that the delete always finds something.
	fmt.Fprintf(&b, "table %[1]s {\n}\ndelete table %[1]s\ntable %[1]s {\n", rs.family.name())
	for _, s := range rs.sets {
		b.WriteString(s.declaration("\t"))
	}
	for _, c := range rs.chains {
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if c.base != "" {
			fmt.Fprintf(&b, "\t\t%s\n", c.base)
		}
		for _, r := range c.rules() {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// name is the family's table of a VPC, as nft calls it.
func (f family) name() string { return f.table() + " " + vpcTable }

func (s *set) declaration(indent string) string {
	var b strings.Builder
	kind, types := "set", s.keys
	if s.data != "" {
		kind, types = "map", s.keys+" : "+s.data
	}
	fmt.Fprintf(&b, "%s%s %s {\n%s\ttype %s\n", indent, kind, s.name, indent, types)
	if s.dynamic {
		fmt.Fprintf(&b, "%s\tsize %d\n%s\tflags dynamic,timeout\n%s\ttimeout %ds\n", indent, flowsKept, indent, indent, int(flowIdle.Seconds()))
	}
	if len(s.elements) > 0 {
		fmt.Fprintf(&b, "%s\telements = {\n", indent)
		for _, text := range slices.Sorted(maps.Keys(s.elements)) {
			fmt.Fprintf(&b, "%s\t\t%s,\n", indent, text)
		}
		fmt.Fprintf(&b, "%s\t}\n", indent)
	}
	fmt.Fprintf(&b, "%s}\n", indent)
	return b.String()
}

func (c *chain) rules() []string {
	out := slices.Clone(c.lines)
	for _, cl := range c.clauses {
		out = append(out, cl.text())
	}
	out = append(out, spanRules(c.spans)...)
	for _, j := range c.jumps {
		out = append(out, "jump "+j)
	}
	return out
}

// delta is what leads from one ruleset to another.
type delta struct {
	family               family
	newSets, oldSets     []*set
	newElems, oldElems   []elements
	newChains, oldChains []*chain
	changed              []*chain // same name, other rules
}

type elements struct {
	of   *set
	list []element
}

// compare returns how to get from old to new.
func compare(old, new *ruleset) delta {
	d := delta{family: new.family}
	oldSets, oldChains := map[string]*set{}, map[string]*chain{}
	for _, s := range old.sets {
		oldSets[s.name] = s
	}
	for _, c := range old.chains {
		oldChains[c.name] = c
	}
	for _, s := range new.sets {
		was := oldSets[s.name]
		delete(oldSets, s.name)
		if was == nil {
			d.newSets = append(d.newSets, s)
			continue
		}
		if gone := s.lacks(was); len(gone) > 0 {
			d.oldElems = append(d.oldElems, elements{s, gone})
		}
		if came := was.lacks(s); len(came) > 0 {
			d.newElems = append(d.newElems, elements{s, came})
		}
	}
	for _, c := range new.chains {
		was := oldChains[c.name]
		delete(oldChains, c.name)
		switch {
		case was == nil:
			d.newChains = append(d.newChains, c)
		case !slices.Equal(was.rules(), c.rules()):
			d.changed = append(d.changed, c)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(oldSets)) {
		d.oldSets = append(d.oldSets, oldSets[name])
	}
	for _, name := range slices.Sorted(maps.Keys(oldChains)) {
		d.oldChains = append(d.oldChains, oldChains[name])
	}
	return d
}

// lacks returns the elements of other that s does not have, in order.
func (s *set) lacks(other *set) []element {
	var out []element
	for _, text := range slices.Sorted(maps.Keys(other.elements)) {
		if _, ok := s.elements[text]; !ok {
			out = append(out, other.elements[text])
		}
	}
	return out
}

func (d delta) empty() bool {
	return len(d.newSets)+len(d.oldSets)+len(d.newElems)+len(d.oldElems)+len(d.newChains)+len(d.oldChains)+len(d.changed) == 0
}

// quick says that d consists of elements and profile chains only, which netlink applies without starting nft.
func (d delta) quick() bool {
	profile := func(c *chain) bool { return len(c.jumps) > 0 }
	other := func(c *chain) bool { return !profile(c) }
	return len(d.newSets)+len(d.oldSets)+len(d.changed) == 0 &&
		!slices.ContainsFunc(d.newChains, other) && !slices.ContainsFunc(d.oldChains, other)
}

// script returns d for nft -f. The order lets every line find what it names: new things come before their users and
// old ones go after them.
func (d delta) script() string {
	var b strings.Builder
	table := d.family.name()
	// Elements of a new map may name new chains.
	for _, c := range d.newChains {
		if c.base != "" {
			fmt.Fprintf(&b, "add chain %s %s { %s }\n", table, c.name, c.base)
		} else {
			fmt.Fprintf(&b, "add chain %s %s\n", table, c.name)
		}
	}
	for _, s := range d.newSets {
		fmt.Fprintf(&b, "table %s {\n%s}\n", table, s.declaration("\t"))
	}
	for _, c := range d.changed {
		fmt.Fprintf(&b, "flush chain %s %s\n", table, c.name)
	}
	for _, c := range slices.Concat(d.newChains, d.changed) {
		for _, r := range c.rules() {
			fmt.Fprintf(&b, "add rule %s %s %s\n", table, c.name, r)
		}
	}
	write := func(verb string, es []elements) {
		for _, e := range es {
			texts := make([]string, len(e.list))
			for i, el := range e.list {
				texts[i] = el.text()
			}
			fmt.Fprintf(&b, "%s element %s %s { %s }\n", verb, table, e.of.name, strings.Join(texts, ", "))
		}
	}
	write("delete", d.oldElems)
	write("add", d.newElems)
	for _, c := range d.oldChains {
		fmt.Fprintf(&b, "flush chain %s %s\n", table, c.name)
	}
	for _, s := range d.oldSets {
		fmt.Fprintf(&b, "delete set %s %s\n", table, s.name)
	}
	for _, c := range d.oldChains {
		fmt.Fprintf(&b, "delete chain %s %s\n", table, c.name)
	}
	return b.String()
}
