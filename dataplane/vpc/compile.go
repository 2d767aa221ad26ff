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

// A ruleset is the content of one nftables table of one VPC, as data: render turns it into a script, compare into the
// difference from another. There is one for IPv4, and one for IPv6 where the VPC has it: a VPC without pays nothing.
//
// All verdicts on a forwarded packet fall in one base chain. An accept ends a base chain, and a packet between two ENIs
// needs both verdicts, each on its own; so what a security group allows to leave goes on to the chain "admitted", which
// asks the other side. Interfaces find their verdict through a map; ENIs with the same set of groups share one profile
// chain, so a task more of the same service is only a few set elements. Network ACLs, flow logs, peers and endpoints
// add their lines where there are any, and cost nothing where there are none.
type ruleset struct {
	family family
	sets   []*set
	chains []*chain
}

// family is a version of IP.
type family int

const (
	ipv4 family = 4
	ipv6 family = 6
)

func (f family) of(a netip.Addr) bool { return a.IsValid() && a.Is4() == (f == ipv4) }

// table is the family's name in nftables, and that of its header.
func (f family) table() string {
	if f == ipv6 {
		return "ip6"
	}
	return "ip"
}

func (f family) address() string {
	if f == ipv6 {
		return "ipv6_addr"
	}
	return "ipv4_addr"
}

type set struct {
	name     string
	keys     string // nftables type of the key
	data     string // nftables type of the value, "" for a plain set
	dynamic  bool   // the kernel fills it, packet by packet
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
	lines   []string // literal rules
	clauses []clause // rules of a group chain
	spans   []span   // its further rules, by port
	jumps   []string // targets of a profile chain
}

// clause is one rule of a security group in one direction: it lets pass what matches.
type clause struct {
	family   family
	ingress  bool // peers are sources
	protocol int
	from, to int
	prefixes []netip.Prefix // disjoint and sorted; nil: see member
	member   string         // a group whose members are the peers; with neither, everybody is
}

const (
	sourceMap  = "source"
	trustedMap = "unchecked"
	egressMap  = "egress"
	ingressMap = "ingress"
	publicMap  = "public"
	privateMap = "private"
	inboundSet = "inbound"

	endpointSet   = "endpoints"
	aclEgressMap  = "acl-egress"
	aclIngressMap = "acl-ingress"
)

func memberSet(group string) string { return "member-" + group }

func linkSet(subnet string) string { return "links-" + subnet }

func groupChain(group string, ingress bool) string { return group + direction(ingress) }

func aclChain(acl string, ingress bool) string { return acl + direction(ingress) }

func edgeChain(subnet string, ingress bool) string { return "edge-" + subnet + direction(ingress) }

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

// input is what the rulesets of a VPC follow from.
type input struct {
	vpc     VPC
	enis    []ENI // in the kernel; may hold those of other VPCs
	members []ENI // further ones that only count as members of groups
	groups  map[string]SecurityGroup
	api     api
}

// api is where the region's API is, seen from a VPC, and as whom an endpoint speaks to it.
type api struct {
	address netip.AddrPort
	source  netip.Addr
}

// compile says what the nftables table of a family must contain.
func compile(in input, fam family) *ruleset {
	v := in.vpc
	rs := &ruleset{family: fam}
	add := func(name, keys, data string) *set {
		s := &set{name: name, keys: keys, data: data, elements: map[string]element{}}
		rs.sets = append(rs.sets, s)
		return s
	}
	source := add(sourceMap, "ifname . ether_addr . "+fam.address(), "mark")
	trusted := add(trustedMap, "ifname", "mark")
	egress := add(egressMap, "ifname", "verdict")
	ingress := add(ingressMap, "ifname", "verdict")
	var public, private, inbound *set
	if fam == ipv4 {
		public = add(publicMap, "ipv4_addr", "ipv4_addr")
		private = add(privateMap, "ipv4_addr", "ipv4_addr")
	} else {
		inbound = add(inboundSet, "ipv6_addr", "")
	}

	members := map[string]*set{}
	for _, id := range slices.Sorted(maps.Keys(in.groups)) {
		g := in.groups[id]
		if g.VPC != v.ID {
			continue
		}
		members[id] = add(memberSet(id), fam.address(), "")
		for _, in := range []bool{true, false} {
			rules := g.Egress
			if in {
				rules = g.Ingress
			}
			c, below := spread(groupChain(id, in), clauses(rules, in, fam))
			rs.chains = append(append(rs.chains, c), below...)
		}
	}
	// A rule may name a group of a peer, or one that is not here; its set exists, if only to be empty.
	foreign := map[string]bool{}
	for _, c := range rs.chains {
		for _, cl := range c.clauses {
			if cl.member != "" && members[cl.member] == nil {
				members[cl.member] = add(memberSet(cl.member), fam.address(), "")
				foreign[cl.member] = true
			}
		}
	}
	peers := map[string]bool{}
	for _, p := range v.Peers {
		peers[p.VPC] = true
	}
	join := func(e ENI) {
		if e.VPC != v.ID && !peers[e.VPC] {
			return
		}
		for _, id := range e.Groups {
			if s := members[id]; s != nil && in.groups[id].VPC == e.VPC {
				for _, a := range e.addresses(fam) {
					s.put(nil, address(a))
				}
			}
		}
	}
	for _, e := range in.members {
		join(e)
	}

	subnets := map[string]Subnet{}
	for _, s := range v.Subnets {
		subnets[s.ID] = s
	}
	f := features{resolver: v.Resolver(), peers: v.Peers, cidrs: v.CIDRs, api: in.api}
	acls := compileACLs(v, fam, rs)
	f.acls = acls != nil
	open := openTables(v)
	var endpoints *set
	profiles := map[string]*chain{}
	for _, e := range in.enis {
		join(e)
		if e.VPC != v.ID {
			continue
		}
		own := e.addresses(fam)
		if len(own) == 0 {
			continue
		}
		subnet := subnets[e.Subnet]
		link, table := iface(linkName(e.ID)), mark(tableNumber(subnet.RouteTable))
		if e.Serves == ServesAPI && fam == ipv4 && in.api.source.IsValid() {
			if endpoints == nil {
				endpoints = add(endpointSet, "ifname", "")
				f.endpoints = true
			}
			endpoints.put(nil, link)
			table = apiTable
		}
		// What a NAT gateway sends back has the address of somebody else.
		if e.SourceDestCheck && e.Serves != ServesNAT {
			for _, a := range own {
				source.put(table, link, mac(e.MAC), address(a))
			}
		} else {
			trusted.put(table, link)
		}
		if fam == ipv4 {
			for _, p := range e.pairs() {
				if p.Public.IsValid() {
					public.put(address(p.Private), address(p.Public))
					private.put(address(p.Public), address(p.Private))
				}
			}
		} else if open[subnet.RouteTable] {
			for _, a := range own {
				inbound.put(nil, address(a))
			}
		}
		acls.add(subnet, link)
		if e.FlowLog {
			f.logged = append(f.logged, link)
		}
		ids := slices.Compact(slices.Sorted(slices.Values(e.Groups)))
		if e.Serves == ServesNAT {
			// No security group is on a NAT gateway.
			egress.put(jump(admittedChain), link)
			ingress.put(pass{}, link)
			continue
		}
		if len(ids) == 0 {
			continue // no element, no verdict: dropped both ways
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
	f.gateway = fam == ipv4 && slices.ContainsFunc(v.RouteTables, func(t RouteTable) bool {
		return slices.ContainsFunc(t.Routes, func(r Route) bool { return r.Target == InternetGateway && r.Destination.Addr().Is4() })
	})
	compileLogs(rs, f.logged)
	slices.SortFunc(rs.sets, func(a, b *set) int { return cmp.Compare(a.name, b.name) })
	rs.chains = append(rs.chains, f.chains(fam)...)
	return rs
}

// openTables are the route tables with an IPv6 route to an internet gateway: what is in their subnets may be called from
// the world. Behind an egress-only gateway, or none, it may not.
func openTables(v VPC) map[string]bool {
	out := map[string]bool{}
	for _, t := range v.RouteTables {
		for _, r := range t.Routes {
			if r.Target == InternetGateway && r.Destination.Addr().Is6() {
				out[t.ID] = true
			}
		}
	}
	return out
}

// edges are the verdict maps of the network ACLs.
type edges struct {
	egress, ingress *set
	links           map[string]*set // by subnet
}

// compileACLs adds the chains of the VPC's network ACLs, nil if no subnet has one.
func compileACLs(v VPC, fam family, rs *ruleset) *edges {
	acls := map[string]NetworkACL{}
	for _, a := range v.ACLs {
		acls[a.ID] = a
	}
	used := map[string]bool{}
	e := &edges{links: map[string]*set{}}
	for _, s := range v.Subnets {
		if _, ok := acls[s.ACL]; !ok {
			continue
		}
		used[s.ACL] = true
		links := &set{name: linkSet(s.ID), keys: "ifname", elements: map[string]element{}}
		e.links[s.ID] = links
		rs.sets = append(rs.sets, links)
		// An ACL is between subnets, not inside one.
		rs.chains = append(rs.chains,
			&chain{name: edgeChain(s.ID, true), lines: []string{"iifname @" + links.name + " return", "goto " + aclChain(s.ACL, true)}},
			&chain{name: edgeChain(s.ID, false), lines: []string{"oifname @" + links.name + " return", "goto " + aclChain(s.ACL, false)}})
	}
	if len(used) == 0 {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(used)) {
		for _, in := range []bool{true, false} {
			c := &chain{name: aclChain(id, in)}
			for _, n := range acls[id].Entries {
				if n.Egress == in || n.CIDR.Addr().Is4() != (fam == ipv4) {
					continue
				}
				cl := clause{family: fam, ingress: in, protocol: n.Protocol, from: n.From, to: n.To}
				if n.CIDR.Bits() > 0 {
					cl.prefixes = []netip.Prefix{n.CIDR.Masked()}
				}
				verdict := "return"
				if !n.Allow {
					verdict = "goto " + deniedChain(in)
				}
				c.lines = append(c.lines, cl.match()+verdict)
			}
			c.lines = append(c.lines, "goto "+deniedChain(in))
			rs.chains = append(rs.chains, c)
		}
	}
	e.egress = &set{name: aclEgressMap, keys: "ifname", data: "verdict", elements: map[string]element{}}
	e.ingress = &set{name: aclIngressMap, keys: "ifname", data: "verdict", elements: map[string]element{}}
	rs.sets = append(rs.sets, e.egress, e.ingress)
	return e
}

// add puts an interface behind the ACL of its subnet.
func (e *edges) add(s Subnet, link iface) {
	if e == nil || e.links[s.ID] == nil {
		return
	}
	e.links[s.ID].put(nil, link)
	e.egress.put(jump(edgeChain(s.ID, false)), link)
	e.ingress.put(jump(edgeChain(s.ID, true)), link)
}

func deniedChain(ingress bool) string { return "denied" + direction(ingress) }

// admittedChain is for what may leave its interface.
const admittedChain = "admitted"

// features is what decides the chains that do not follow from the content of sets.
type features struct {
	resolver  netip.Addr
	cidrs     []netip.Prefix
	peers     []Peer
	api       api
	logged    []iface
	acls      bool
	endpoints bool
	gateway   bool // a route leads to the internet gateway
}

// chains are the base chains and those they share.
func (f features) chains(fam family) []*chain {
	logs := len(f.logged) > 0
	var out []*chain
	when := func(cond bool, lines ...string) []string {
		if cond {
			return lines
		}
		return nil
	}
	ip := fam.table()

	raw := []string{
		// Before connection tracking: a spoofed packet leaves no trace. The table's number comes with the check.
		`meta mark set iifname . ether saddr . ` + ip + ` saddr map @source accept`,
		`iifname { "lo", "uplink" } accept`,
		`meta mark set iifname map @unchecked accept`,
	}
	for _, p := range f.peers {
		from, to := prefixText(p.CIDRs, fam), prefixText(f.cidrs, fam)
		if from != "" && to != "" {
			// Nothing but the two networks uses the way between them.
			raw = append(raw, fmt.Sprintf(`iifname "%s" %s saddr %s %s daddr %s accept`, peerName(p.ID), ip, from, ip, to))
		}
	}
	if fam == ipv6 {
		// Each link has the router's address; interfaces ask for it, and make sure of their own.
		raw = append(raw, `icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 ip6 saddr { ::, fe80::/64 } accept`)
	}
	out = append(out, &chain{name: "from-link", base: "type filter hook prerouting priority raw; policy drop;", lines: raw})
	// The kernel prepares every flow for translation as soon as one chain may ask for it.
	translates := f.gateway || f.endpoints
	if translates {
		out = append(out, &chain{name: "from-gateway", base: "type nat hook prerouting priority dstnat; policy accept;", lines: []string{
			`iifname "uplink" dnat to ip daddr map @public`,
		}})
	}

	router := []string{`ct state established,related accept`, `iifname "lo" accept`}
	if fam == ipv4 {
		// Only what comes from an interface has a mark. No security group filters the resolver, nor the metadata
		// endpoints of tasks and instances.
		resolvers := "{ 169.254.169.253, " + f.resolver.String() + " }"
		router = append(router,
			`meta mark != 0 ip daddr `+resolvers+` udp dport 53 accept`,
			`meta mark != 0 ip daddr `+resolvers+` tcp dport 53 accept`,
			`meta mark != 0 ip daddr { 169.254.169.254, 169.254.170.2 } meta l4proto tcp accept`)
	} else {
		router = append(router, `icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept`)
	}
	out = append(out, &chain{name: "to-router", base: "type filter hook input priority filter; policy drop;", lines: router})

	if f.acls {
		for _, in := range []bool{true, false} {
			out = append(out, &chain{name: deniedChain(in), lines: slices.Concat(when(logs, logLine(byACL, in)), []string{"drop"})})
		}
	}
	var edges, exits []string
	for _, p := range f.peers {
		edges = append(edges, `"`+peerName(p.ID)+`"`)
	}
	exits = edges
	if fam == ipv6 || translates {
		// Without the gateway nothing leaves by it.
		exits = append(slices.Clone(edges), `"uplink"`)
	}
	edges = append(edges, `"uplink"`)
	out = append(out, &chain{name: admittedChain, lines: slices.Concat(
		when(logs, logLine(accepted, false)),
		when(f.acls, `oifname vmap @`+aclIngressMap),
		when(logs || f.acls, `ct state established,related accept`),
		when(len(exits) > 0, `oifname `+anyOf(exits)+` accept`),
		[]string{`oifname vmap @` + ingressMap},
		when(logs, logLine(byGroup, true)),
		[]string{"drop"})})

	var forward []string
	if f.endpoints {
		// How an endpoint speaks to the API is its own affair; there is no route for anything else.
		forward = append(forward, `iifname @`+endpointSet+` oifname "uplink" accept`,
			`iifname "uplink" oifname @`+endpointSet+` ct state established,related accept`)
	}
	known := "accept"
	if logs || f.acls {
		known = "goto " + admittedChain
	}
	forward = slices.Concat(forward,
		when(f.acls, `iifname vmap @`+aclEgressMap),
		[]string{`ct state established,related ` + known, `ct state invalid drop`})
	if fam == ipv6 {
		forward = append(forward, `iifname "uplink" ip6 daddr != @`+inboundSet+` drop`)
	}
	forward = slices.Concat(forward,
		[]string{`iifname ` + anyOf(edges) + ` goto ` + admittedChain, `iifname vmap @` + egressMap},
		when(logs, logLine(byGroup, false)))
	out = append(out, &chain{name: "between-links", base: "type filter hook forward priority filter; policy drop;", lines: forward})

	if logs {
		out = append(out, &chain{name: "received", base: "type filter hook forward priority 10; policy accept;", lines: []string{logLine(accepted, true)}})
	}
	if translates {
		gateway := slices.Concat(
			when(f.endpoints, fmt.Sprintf(`oifname "uplink" meta mark %s snat to %s`, apiTable.text(), f.api.source)),
			[]string{
				`oifname "uplink" snat to ip saddr map @private`,
				// The gateway translates or drops. A flow passes here with its first packet only; without this verdict
				// it never becomes a flow.
				`oifname "uplink" drop`,
			})
		out = append(out, &chain{name: "to-gateway", base: "type nat hook postrouting priority srcnat; policy accept;", lines: gateway})
	}
	return out
}

// anyOf is one or several names as nftables writes them.
func anyOf(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return "{ " + strings.Join(slices.Sorted(slices.Values(names)), ", ") + " }"
}

// prefixText is the prefixes of a family as nftables writes them.
func prefixText(all []netip.Prefix, fam family) string {
	own, _ := disjoint(all, fam)
	texts := make([]string, len(own))
	for i, p := range own {
		texts[i] = p.String()
	}
	switch len(texts) {
	case 0:
		return ""
	case 1:
		return texts[0]
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}

// clauses turns the rules of one direction into clauses with one kind of peer each.
func clauses(rules []Rule, ingress bool, fam family) []clause {
	var out []clause
	for _, r := range rules {
		c := clause{family: fam, ingress: ingress, protocol: r.Protocol, from: r.From, to: r.To}
		if prefixes, everybody := disjoint(r.CIDRs, fam); everybody {
			out = append(out, c)
			continue // whoever is in a group is somebody
		} else if len(prefixes) > 0 {
			c.prefixes = prefixes
			out = append(out, c)
		}
		for _, g := range r.Groups {
			out = append(out, clause{family: fam, ingress: ingress, protocol: r.Protocol, from: r.From, to: r.To, member: g})
		}
	}
	return out
}

// disjoint keeps the prefixes of a family that no other contains, sorted: nftables refuses overlapping intervals.
func disjoint(prefixes []netip.Prefix, fam family) (out []netip.Prefix, everybody bool) {
	var own []netip.Prefix
	for _, p := range prefixes {
		if fam.of(p.Addr()) {
			own = append(own, p.Masked())
		}
	}
	slices.SortFunc(own, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for _, p := range own {
		if len(out) == 0 || !covers(out[len(out)-1], p) {
			out = append(out, p)
		}
	}
	return out, len(out) > 0 && out[0].Bits() == 0
}

// text is the clause as an nftables rule: what may leave is asked for at the other side, what may enter is received.
func (c clause) text() string {
	if c.ingress {
		return c.match() + "accept"
	}
	return c.match() + "goto " + admittedChain
}

// match is the clause without its verdict.
func (c clause) match() string {
	var b strings.Builder
	peer := c.family.table() + " daddr "
	if c.ingress {
		peer = c.family.table() + " saddr "
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
	case protoICMP, protoICMPv6:
		name := "icmp"
		if c.protocol == protoICMPv6 {
			name = "icmpv6"
		}
		switch {
		case c.from < 0 || (c.protocol == protoICMP) != (c.family == ipv4):
			fmt.Fprintf(&b, "meta l4proto %s ", name)
		case c.to < 0:
			fmt.Fprintf(&b, "%s type %d ", name, c.from)
		default:
			fmt.Fprintf(&b, "%s type %d %s code %d ", name, c.from, name, c.to)
		}
	default:
		fmt.Fprintf(&b, "meta l4proto %d ", c.protocol)
	}
	return b.String()
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
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
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
	pass    struct{}
)

func (i iface) text() string   { return `"` + string(i) + `"` }
func (a address) text() string { return netip.Addr(a).String() }
func (m mac) text() string     { return net.HardwareAddr(m).String() }
func (m mark) text() string    { return fmt.Sprintf("0x%08x", uint32(m)) }
func (j jump) text() string    { return "jump " + string(j) }
func (pass) text() string      { return "accept" }

// The kernel keeps each part of a key in whole 32-bit registers.
func (i iface) bytes() []byte   { b := make([]byte, 16); copy(b, i); return b }
func (a address) bytes() []byte { return netip.Addr(a).AsSlice() }
func (m mac) bytes() []byte     { b := make([]byte, 8); copy(b, m); return b }
func (m mark) bytes() []byte    { return binary.NativeEndian.AppendUint32(nil, uint32(m)) }
func (j jump) bytes() []byte    { return nil } // a verdict has its own attribute
func (pass) bytes() []byte      { return nil }
