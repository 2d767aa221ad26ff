package vpc

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// linearRules is up to how many rules of one protocol a group's chain asks one after the other. More are found by the
// port: a new connection costs the same whether its group has twenty rules or five hundred.
var linearRules = 16

// span sends the ports of a range to the chain that knows their peers.
type span struct {
	protocol, from, to int
	chain              string
}

// spread makes the chain of a group's rules in one direction, and, where there are many, those of its ports.
func spread(name string, all []clause) (*chain, []*chain) {
	c := &chain{name: name}
	var below []*chain
	for _, c2 := range all {
		if c2.protocol != protoTCP && c2.protocol != protoUDP {
			c.clauses = append(c.clauses, c2)
		}
	}
	for _, protocol := range []int{protoTCP, protoUDP} {
		var own []clause
		for _, c2 := range all {
			if c2.protocol == protocol {
				own = append(own, c2)
			}
		}
		if len(own) <= linearRules {
			c.clauses = append(c.clauses, own...)
			continue
		}
		for _, s := range spans(own) {
			peers := merged(s.clauses)
			texts := make([]string, len(peers))
			for i, p := range peers {
				texts[i] = p.text()
			}
			to := name + "-" + digest(strings.Join(texts, "\n"), 16)
			if !slices.ContainsFunc(below, func(b *chain) bool { return b.name == to }) {
				below = append(below, &chain{name: to, clauses: peers})
			}
			if n := len(c.spans); n > 0 && c.spans[n-1].protocol == protocol && c.spans[n-1].chain == to && c.spans[n-1].to == s.from-1 {
				c.spans[n-1].to = s.to
				continue
			}
			c.spans = append(c.spans, span{protocol, s.from, s.to, to})
		}
	}
	return c, below
}

type portClauses struct {
	from, to int
	clauses  []clause
}

// spans cuts the ports where a clause begins or ends, and says of each piece which clauses cover it.
func spans(all []clause) []portClauses {
	type edge struct {
		at, clause int
		begins     bool
	}
	var edges []edge
	for i, c := range all {
		from, to := c.ports()
		edges = append(edges, edge{from, i, true}, edge{to + 1, i, false})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	var out []portClauses
	active := map[int]bool{}
	for i, e := range edges {
		if e.begins {
			active[e.clause] = true
		} else {
			delete(active, e.clause)
		}
		if i+1 == len(edges) || edges[i+1].at == e.at || len(active) == 0 {
			continue
		}
		s := portClauses{from: e.at, to: edges[i+1].at - 1}
		for _, n := range slices.Sorted(maps.Keys(active)) {
			s.clauses = append(s.clauses, all[n])
		}
		out = append(out, s)
	}
	return out
}

// merged are the peers of clauses without their protocol: one clause for all prefixes, and one for each group.
func merged(all []clause) []clause {
	var prefixes []netip.Prefix
	var out []clause
	seen := map[string]bool{}
	for _, c := range all {
		c.protocol = -1
		switch {
		case c.member != "":
			if !seen[c.member] {
				seen[c.member] = true
				out = append(out, c)
			}
		case c.prefixes == nil:
			return []clause{c}
		default:
			prefixes = append(prefixes, c.prefixes...)
		}
	}
	if own, _ := disjoint(prefixes, all[0].family); len(own) > 0 {
		c := all[0]
		c.protocol, c.member, c.prefixes = -1, "", own
		out = append([]clause{c}, out...)
	}
	slices.SortStableFunc(out, func(a, b clause) int { return strings.Compare(a.member, b.member) })
	return out
}

// spanRules are the look-ups of a chain's ports.
func spanRules(spans []span) []string {
	var out []string
	for _, p := range []struct {
		number int
		name   string
	}{{protoTCP, "tcp"}, {protoUDP, "udp"}} {
		var elements []string
		for _, s := range spans {
			switch {
			case s.protocol != p.number:
			case s.from == s.to:
				elements = append(elements, fmt.Sprintf("%d : jump %s", s.from, s.chain))
			default:
				elements = append(elements, fmt.Sprintf("%d-%d : jump %s", s.from, s.to, s.chain))
			}
		}
		if len(elements) > 0 {
			out = append(out, fmt.Sprintf("%s dport vmap { %s }", p.name, strings.Join(elements, ", ")))
		}
	}
	return out
}
