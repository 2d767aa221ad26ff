package vpc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// A ruleset is the content of the nftables table of one VPC, as data: render turns it into a script, compare into the
// difference from another.
//
// Egress and ingress are two base chains on the forward hook. An accept ends only the base chain it is given in, so a
// packet between two ENIs needs both verdicts, each on its own. Interfaces find their verdict through a map; ENIs with
// the same set of groups share one profile chain, so a task more of the same service is only a few set elements.
type ruleset struct {
	sets   []*set
	chains []*chain
}

type set struct {
	name     string
	keys     string // nftables type of the key
	data     string // nftables type of the value, "" for a plain set
	elements map[string]element
}

type element struct {
	key   []datum
	value datum
}

// datum is a value with its two notations: in a script and in the kernel's registers.
type datum interface {
	text() string
	bytes() []byte
}

type chain struct {
	name    string
	base    string   // hook declaration of a base chain
	lines   []string // literal rules of a base chain
	clauses []clause // rules of a group chain
	jumps   []string // targets of a profile chain
}

// clause is one rule of a security group in one direction: it accepts what matches.
type clause struct {
	ingress  bool // peers are sources
	protocol int
	from, to int
	prefixes []netip.Prefix // disjoint and sorted; nil: see member
	member   string         // a group whose members are the peers; with neither, everybody is
}

const (
	sourceSet  = "source"
	trustedSet = "unchecked"
	tablesMap  = "tables"
	egressMap  = "egress"
	ingressMap = "ingress"
	publicMap  = "public"
	privateMap = "private"
)

func memberSet(group string) string { return "member-" + group }

func groupChain(group string, ingress bool) string { return group + direction(ingress) }

// profileChain names the chain shared by all ENIs with these groups, which must be sorted.
func profileChain(groups []string, ingress bool) string {
	return "profile-" + digest(strings.Join(groups, " "), 16) + direction(ingress)
}

func direction(ingress bool) string {
	if ingress {
		return "-ingress"
	}
	return "-egress"
}

// compile says what the nftables table of VPC v must contain. enis and groups may hold those of other VPCs.
func compile(v VPC, enis []ENI, groups map[string]SecurityGroup) *ruleset {
	rs := &ruleset{}
	add := func(name, keys, data string) *set {
		s := &set{name: name, keys: keys, data: data, elements: map[string]element{}}
		rs.sets = append(rs.sets, s)
		return s
	}
	source := add(sourceSet, "ifname . ether_addr . ipv4_addr", "")
	trusted := add(trustedSet, "ifname", "")
	tables := add(tablesMap, "ifname", "mark")
	egress := add(egressMap, "ifname", "verdict")
	ingress := add(ingressMap, "ifname", "verdict")
	public := add(publicMap, "ipv4_addr", "ipv4_addr")
	private := add(privateMap, "ipv4_addr", "ipv4_addr")

	members := map[string]*set{}
	for _, id := range slices.Sorted(maps.Keys(groups)) {
		g := groups[id]
		if g.VPC != v.ID {
			continue
		}
		members[id] = add(memberSet(id), "ipv4_addr", "")
		rs.chains = append(rs.chains,
			&chain{name: groupChain(id, true), clauses: clauses(g.Ingress, true)},
			&chain{name: groupChain(id, false), clauses: clauses(g.Egress, false)})
	}
	// A rule may name a group that is not here; its set exists and is empty.
	for _, c := range rs.chains {
		for _, cl := range c.clauses {
			if cl.member != "" && members[cl.member] == nil {
				members[cl.member] = add(memberSet(cl.member), "ipv4_addr", "")
			}
		}
	}

	tableOf := map[string]uint32{}
	for _, s := range v.Subnets {
		tableOf[s.ID] = tableNumber(s.RouteTable)
	}
	profiles := map[string]*chain{}
	for _, e := range enis {
		if e.VPC != v.ID {
			continue
		}
		link, addr := iface(linkName(e.ID)), address(e.Address)
		if e.SourceDestCheck {
			source.put(nil, link, mac(e.MAC), addr)
		} else {
			trusted.put(nil, link)
		}
		tables.put(mark(tableOf[e.Subnet]), link)
		if e.Public.IsValid() {
			public.put(addr, address(e.Public))
			private.put(address(e.Public), addr)
		}
		ids := slices.Compact(slices.Sorted(slices.Values(e.Groups)))
		if len(ids) == 0 {
			continue // no element, no verdict: dropped both ways
		}
		for _, id := range ids {
			if members[id] != nil {
				members[id].put(nil, addr)
			}
		}
		for _, in := range []bool{true, false} {
			p := &chain{name: profileChain(ids, in)}
			for _, id := range ids {
				p.jumps = append(p.jumps, groupChain(id, in))
			}
			profiles[p.name] = p
			if in {
				ingress.put(jump(p.name), link)
			} else {
				egress.put(jump(p.name), link)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		rs.chains = append(rs.chains, profiles[name])
	}
	slices.SortFunc(rs.sets, func(a, b *set) int { return cmp.Compare(a.name, b.name) })
	rs.chains = append(rs.chains, baseChains(v)...)
	return rs
}

// baseChains are the same for every content of the sets.
func baseChains(v VPC) []*chain {
	resolvers := "{ 169.254.169.253, " + v.Resolver().String() + " }"
	return []*chain{
		{name: "from-link", base: "type filter hook prerouting priority raw; policy drop;", lines: []string{
			`iifname { "lo", "uplink" } accept`,
			// Before connection tracking: a spoofed packet leaves no trace.
			`iifname . ether saddr . ip saddr @source meta mark set iifname map @tables accept`,
			`iifname @unchecked meta mark set iifname map @tables accept`,
		}},
		{name: "from-gateway", base: "type nat hook prerouting priority dstnat; policy accept;", lines: []string{
			`iifname "uplink" dnat to ip daddr map @public`,
		}},
		{name: "to-router", base: "type filter hook input priority filter; policy drop;", lines: []string{
			`ct state established,related accept`,
			`iifname "lo" accept`,
			// No security group filters the resolver.
			`iifname != "uplink" ip daddr ` + resolvers + ` udp dport 53 accept`,
			`iifname != "uplink" ip daddr ` + resolvers + ` tcp dport 53 accept`,
			// Nor the task metadata endpoint.
			`iifname != "uplink" ip daddr 169.254.170.2 meta l4proto tcp accept`,
		}},
		{name: "leaving-eni", base: "type filter hook forward priority filter; policy drop;", lines: []string{
			`ct state established,related accept`,
			`ct state invalid drop`,
			`iifname "uplink" accept`,
			`iifname vmap @egress`,
		}},
		{name: "entering-eni", base: "type filter hook forward priority 10; policy drop;", lines: []string{
			`ct state established,related accept`,
			`oifname "uplink" accept`,
			`oifname vmap @ingress`,
		}},
		{name: "to-gateway", base: "type nat hook postrouting priority srcnat; policy accept;", lines: []string{
			`oifname "uplink" snat to ip saddr map @private`,
			// The gateway translates or drops. A flow passes here with its first packet only; without this verdict it
			// never becomes a flow.
			`oifname "uplink" drop`,
		}},
	}
}

// clauses turns the rules of one direction into clauses with one kind of peer each.
func clauses(rules []Rule, ingress bool) []clause {
	var out []clause
	for _, r := range rules {
		c := clause{ingress: ingress, protocol: r.Protocol, from: r.From, to: r.To}
		if prefixes, everybody := disjoint(r.CIDRs); everybody {
			out = append(out, c)
			continue // whoever is in a group is somebody
		} else if len(prefixes) > 0 {
			c.prefixes = prefixes
			out = append(out, c)
		}
		for _, g := range r.Groups {
			out = append(out, clause{ingress: ingress, protocol: r.Protocol, from: r.From, to: r.To, member: g})
		}
	}
	return out
}

// disjoint keeps the IPv4 prefixes that no other contains, sorted: nftables refuses overlapping intervals.
func disjoint(prefixes []netip.Prefix) (out []netip.Prefix, everybody bool) {
	var v4 []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().Is4() {
			v4 = append(v4, p.Masked())
		}
	}
	slices.SortFunc(v4, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for _, p := range v4 {
		if len(out) == 0 || !covers(out[len(out)-1], p) {
			out = append(out, p)
		}
	}
	return out, len(out) > 0 && out[0].Bits() == 0
}

// text is the clause as an nftables rule.
func (c clause) text() string {
	var b strings.Builder
	peer := "ip daddr "
	if c.ingress {
		peer = "ip saddr "
	}
	switch {
	case c.member != "":
		b.WriteString(peer + "@" + memberSet(c.member) + " ")
	case len(c.prefixes) == 1:
		b.WriteString(peer + c.prefixes[0].String() + " ")
	case len(c.prefixes) > 1:
		texts := make([]string, len(c.prefixes))
		for i, p := range c.prefixes {
			texts[i] = p.String()
		}
		b.WriteString(peer + "{ " + strings.Join(texts, ", ") + " } ")
	}
	switch c.protocol {
	case -1:
	case protoTCP, protoUDP:
		name := map[int]string{protoTCP: "tcp", protoUDP: "udp"}[c.protocol]
		switch from, to := c.ports(); {
		case from == 0 && to == 65535:
			fmt.Fprintf(&b, "meta l4proto %s ", name)
		case from == to:
			fmt.Fprintf(&b, "%s dport %d ", name, from)
		default:
			fmt.Fprintf(&b, "%s dport %d-%d ", name, from, to)
		}
	case protoICMP:
		switch {
		case c.from < 0:
			b.WriteString("meta l4proto icmp ")
		case c.to < 0:
			fmt.Fprintf(&b, "icmp type %d ", c.from)
		default:
			fmt.Fprintf(&b, "icmp type %d icmp code %d ", c.from, c.to)
		}
	default:
		fmt.Fprintf(&b, "meta l4proto %d ", c.protocol)
	}
	return b.String() + "accept"
}

// ports returns the range with -1 resolved.
func (c clause) ports() (from, to int) {
	from, to = max(c.from, 0), c.to
	if to < 0 {
		to = 65535
	}
	return from, max(from, to)
}

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

func (s *set) put(value datum, key ...datum) {
	e := element{key: key, value: value}
	s.elements[e.text()] = e
}

func (e element) text() string {
	parts := make([]string, len(e.key))
	for i, k := range e.key {
		parts[i] = k.text()
	}
	text := strings.Join(parts, " . ")
	if e.value != nil {
		text += " : " + e.value.text()
	}
	return text
}

type (
	iface   string
	address netip.Addr
	mac     net.HardwareAddr
	mark    uint32
	jump    string
)

func (i iface) text() string   { return `"` + string(i) + `"` }
func (a address) text() string { return netip.Addr(a).String() }
func (m mac) text() string     { return net.HardwareAddr(m).String() }
func (m mark) text() string    { return fmt.Sprintf("0x%08x", uint32(m)) }
func (j jump) text() string    { return "jump " + string(j) }

// The kernel keeps each part of a key in whole 32-bit registers.
func (i iface) bytes() []byte   { b := make([]byte, 16); copy(b, i); return b }
func (a address) bytes() []byte { return netip.Addr(a).AsSlice() }
func (m mac) bytes() []byte     { b := make([]byte, 8); copy(b, m); return b }
func (m mark) bytes() []byte    { return binary.NativeEndian.AppendUint32(nil, uint32(m)) }
func (j jump) bytes() []byte    { return nil } // a verdict has its own attribute
