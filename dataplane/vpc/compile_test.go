package vpc

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// example has something of everything.
func example() (VPC, []ENI, map[string]SecurityGroup) {
	l := &lab{}
	l.add("eni-0123456789abcdef0", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-web", "sg-base")
	l.add("eni-0123456789abcdef1", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-base", "sg-web")
	l.add("eni-0123456789abcdef2", "vpc-a", "subnet-a3", "10.0.2.10", "", "sg-db")
	l.add("eni-0123456789abcdef3", "vpc-a", "subnet-a3", "10.0.2.11", "")
	l.add("eni-0123456789abcdef4", "vpc-b", "subnet-b1", "10.0.0.10", "", "sg-b")
	l.cfg.ENIs[2].SourceDestCheck = false
	groups := map[string]SecurityGroup{}
	for _, g := range []SecurityGroup{
		{ID: "sg-base", VPC: "vpc-a", Egress: everything},
		{ID: "sg-web", VPC: "vpc-a", Ingress: []Rule{
			{Protocol: 6, From: 80, To: 80, CIDRs: prefixes("0.0.0.0/0", "::/0")},
			{Protocol: 6, From: 8000, To: 8080, CIDRs: prefixes("10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16")},
			{Protocol: 1, From: 8, To: -1, CIDRs: prefixes("10.0.0.0/16")},
			{Protocol: 1, From: 3, To: 4, CIDRs: prefixes("0.0.0.0/0")},
			{Protocol: 1, From: -1, To: -1, Groups: []string{"sg-web"}},
			{Protocol: 17, From: 0, To: 65535, CIDRs: prefixes("10.0.0.0/16"), Groups: []string{"sg-gone"}},
			{Protocol: 47, From: -1, To: -1, CIDRs: prefixes("10.0.0.0/16")},
			{Protocol: 6, From: 443, To: 443, CIDRs: prefixes("2001:db8::/32")},
		}},
		{ID: "sg-db", VPC: "vpc-a", Ingress: []Rule{{Protocol: 6, From: 5432, To: 5432, Groups: []string{"sg-web", "sg-db"}}},
			Egress: []Rule{{Protocol: -1, From: -1, To: -1, CIDRs: prefixes("10.0.0.0/16")}}},
		{ID: "sg-b", VPC: "vpc-b", Ingress: everything, Egress: everything},
	} {
		groups[g.ID] = g
	}
	return vpcA(), l.cfg.ENIs, groups
}

func TestGolden(t *testing.T) {
	v, enis, groups := example()
	full := compile(input{vpc: v, enis: enis, groups: groups}, ipv4)
	golden(t, "vpc.nft", render(full))
	golden(t, "layout.ip", layoutOf(v, nil, nil).String())
	golden(t, "machine.nft", renderHost(Options{Region: "7e57", PublicPool: netip.MustParsePrefix("198.18.0.0/16")}))

	// One task more of a service is elements and nothing else.
	d := compare(compile(input{vpc: v, enis: enis[1:], groups: groups}, ipv4), full)
	golden(t, "attach.nft", d.script())
	if !d.quick() || len(d.newChains) > 0 {
		t.Errorf("not quick: %+v", d)
	}
	// A rule more changes one chain.
	g := groups["sg-db"]
	g.Ingress = append(slices.Clone(g.Ingress), Rule{Protocol: 6, From: 22, To: 22, Groups: []string{"sg-new"}})
	changed := maps.Clone(groups)
	changed["sg-db"] = g
	delete(changed, "sg-base")
	d = compare(full, compile(input{vpc: v, enis: enis, groups: changed}, ipv4))
	golden(t, "rules.nft", d.script())
	if d.quick() {
		t.Error("a change of rules is not quick")
	}
	if d := compare(full, compile(input{vpc: v, enis: enis, groups: groups}, ipv4)); !d.empty() {
		t.Errorf("a difference from itself: %+v", d)
	}
}

// TestGoldenOfEverything has what costs nothing where it is not: network ACLs, flow logs, peers, endpoints, NAT, IPv6,
// a group of many rules.
func TestGoldenOfEverything(t *testing.T) {
	v, enis, groups := example()
	v.CIDRs = append(v.CIDRs, netip.MustParsePrefix("172.20.0.0/24"), netip.MustParsePrefix("2001:db8:0:100::/56"))
	v.Subnets[0].IPv6, v.Subnets[0].ACL = netip.MustParsePrefix("2001:db8:0:100::/64"), "acl-1"
	v.ACLs = []NetworkACL{{ID: "acl-1", Entries: entries("in deny 6 22-22 0.0.0.0/0", "in allow -1 0-0 0.0.0.0/0", "out allow 6 1024-65535 10.0.0.0/8", "in allow 58 128--1 ::/0", "out allow 6 443-443 ::/0")}}
	v.Peers = []Peer{{ID: "pcx-0123456789abcdef0", VPC: "vpc-b", CIDRs: prefixes("10.1.0.0/16", "2001:db8:0:200::/56")}}
	v.RouteTables[0].Routes = append(v.RouteTables[0].Routes,
		Route{Destination: netip.MustParsePrefix("10.1.0.0/16"), Target: Peering, TargetID: "pcx-0123456789abcdef0"},
		Route{Destination: netip.MustParsePrefix("::/0"), Target: InternetGateway})
	v.RouteTables[1].Routes = append(v.RouteTables[1].Routes,
		Route{Destination: netip.MustParsePrefix("0.0.0.0/0"), Target: Interface, TargetID: "eni-0123456789abcdef5"},
		Route{Destination: netip.MustParsePrefix("::/0"), Target: EgressOnly})
	enis[0].IPv6, enis[0].FlowLog = []netip.Addr{netip.MustParseAddr("2001:db8:0:100::10")}, true
	enis[1].Secondary = []Address{{Private: netip.MustParseAddr("10.0.0.111"), Public: netip.MustParseAddr("198.18.0.111")}}
	l := &lab{}
	l.add("eni-0123456789abcdef5", "vpc-a", "subnet-a1", "10.0.0.50", "198.18.0.50")
	l.add("eni-0123456789abcdef6", "vpc-a", "subnet-a3", "10.0.2.60", "", "sg-db")
	l.cfg.ENIs[0].Serves, l.cfg.ENIs[1].Serves = ServesNAT, ServesAPI
	enis = append(enis, l.cfg.ENIs...)
	many := SecurityGroup{ID: "sg-many", VPC: "vpc-a"}
	for i := range 20 {
		many.Ingress = append(many.Ingress, Rule{Protocol: 6, From: 100 * i, To: 100*i + 110, CIDRs: prefixes(fmt.Sprintf("10.0.%d.0/24", i/5), "2001:db8::/32"), Groups: []string{"sg-b"}})
	}
	groups["sg-many"] = many
	here := map[string]ENI{}
	for _, n := range enis {
		here[n.ID] = n
	}
	a := api{netip.MustParseAddrPort("198.18.0.0:4566"), netip.MustParseAddr("169.254.16.1")}
	in := input{vpc: v, enis: enis, groups: groups, api: a}
	golden(t, "everything.nft", render(compile(in, ipv4)))
	golden(t, "everything6.nft", render(compile(in, ipv6)))
	golden(t, "everything.ip", layoutOf(v, here, map[string]bool{"pcx-0123456789abcdef0": true}).withAPI(a.address.Addr()).String())
	golden(t, "machine6.nft", renderHost6(Options{Region: "7e57"}))
	golden(t, "nat.nft", renderService(l.cfg.ENIs[0], a))
	golden(t, "endpoint.nft", renderService(l.cfg.ENIs[1], a))
	// From nothing of it to all of it and back, in the kernel.
	plainVPC, plainENIs, plainGroups := example()
	plain := compile(input{vpc: plainVPC, enis: plainENIs, groups: plainGroups}, ipv4)
	defer exec.Command("nft", "delete", "table", "ip", vpcTable).Run()
	full := compile(in, ipv4)
	for _, script := range []string{render(plain), compare(plain, full).script(), compare(full, plain).script(), render(full)} {
		if err := runNft(nil, script); err != nil {
			t.Fatalf("%v\n%s", err, script)
		}
	}
}

type packet struct {
	protocol, port, kind, code int
	from, to                   netip.Addr
}

// evaluate walks the compiled ruleset as the kernel would for a new flow, in one direction.
func (rs *ruleset) evaluate(link string, p packet, ingress bool) bool {
	name, peer := egressMap, p.to
	if ingress {
		name, peer = ingressMap, p.from
	}
	target := ""
	for _, e := range rs.set(name).elements {
		if e.key[0] == iface(link) {
			target = string(e.value.(jump))
		}
	}
	if target == "" {
		return false
	}
	for _, j := range rs.chain(target).jumps {
		tried := slices.Clone(rs.chain(j).clauses)
		for _, s := range rs.chain(j).spans {
			if s.protocol == p.protocol && s.from <= p.port && p.port <= s.to {
				tried = append(tried, rs.chain(s.chain).clauses...)
			}
		}
		for _, c := range tried {
			if c.ingress != ingress {
				panic("clause in the wrong chain")
			}
			if rs.matches(c, p, peer) {
				return true
			}
		}
	}
	return false
}

func (rs *ruleset) matches(c clause, p packet, peer netip.Addr) bool {
	if c.member != "" {
		if _, ok := rs.set(memberSet(c.member)).elements[peer.String()]; !ok {
			return false
		}
	} else if c.prefixes != nil && !slices.ContainsFunc(c.prefixes, func(q netip.Prefix) bool { return q.Contains(peer) }) {
		return false
	}
	// What the text says, read back from the text, so that a slip in it is seen.
	text := c.text()
	var a, b int
	switch {
	case strings.Contains(text, "meta l4proto tcp "):
		return p.protocol == 6
	case strings.Contains(text, "meta l4proto udp "):
		return p.protocol == 17
	case strings.Contains(text, "meta l4proto icmp "):
		return p.protocol == 1
	case strings.Contains(text, "meta l4proto "):
		fmt.Sscanf(text[strings.Index(text, "meta l4proto "):], "meta l4proto %d", &a)
		return p.protocol == a
	case strings.Contains(text, "icmp type"):
		n, _ := fmt.Sscanf(text[strings.Index(text, "icmp type"):], "icmp type %d icmp code %d", &a, &b)
		return p.protocol == 1 && p.kind == a && (n < 2 || p.code == b)
	case strings.Contains(text, "dport "):
		n, _ := fmt.Sscanf(text[strings.Index(text, "dport "):], "dport %d-%d", &a, &b)
		if n < 2 {
			b = a
		}
		return p.protocol == map[bool]int{true: 6, false: 17}[strings.Contains(text, "tcp ")] && a <= p.port && p.port <= b
	}
	return true
}

func (rs *ruleset) set(name string) *set {
	return rs.sets[slices.IndexFunc(rs.sets, func(s *set) bool { return s.name == name })]
}

func (rs *ruleset) chain(name string) *chain {
	return rs.chains[slices.IndexFunc(rs.chains, func(c *chain) bool { return c.name == name })]
}

// allowed is the meaning of security groups, said as plainly as possible.
func allowed(n ENI, all []ENI, groups map[string]SecurityGroup, p packet, ingress bool) bool {
	peer := p.to
	if ingress {
		peer = p.from
	}
	for _, id := range n.Groups {
		rules := groups[id].Egress
		if ingress {
			rules = groups[id].Ingress
		}
		for _, r := range rules {
			service := r.Protocol == -1 || r.Protocol == p.protocol
			if service && (r.Protocol == 6 || r.Protocol == 17) {
				service = (r.From == -1 || p.port >= r.From) && (r.To == -1 || p.port <= r.To)
			}
			if service && r.Protocol == 1 {
				service = r.From == -1 || r.From == p.kind && (r.To == -1 || r.To == p.code)
			}
			who := false
			for _, c := range r.CIDRs {
				who = who || c.Contains(peer)
			}
			for _, g := range r.Groups {
				for _, m := range all {
					who = who || m.VPC == n.VPC && m.Address == peer && slices.Contains(m.Groups, g)
				}
			}
			if service && who {
				return true
			}
		}
	}
	return false
}

var addresses = []string{"10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.1.10", "10.0.1.11", "198.18.0.9", "203.0.113.7"}

func drawConfig(t *rapid.T) ([]ENI, map[string]SecurityGroup) {
	ids := []string{"sg-a", "sg-b", "sg-c"}
	rule := rapid.Custom(func(t *rapid.T) Rule {
		r := Rule{Protocol: rapid.SampledFrom([]int{-1, 1, 6, 17, 47}).Draw(t, "protocol"), From: -1, To: -1}
		if r.Protocol == 6 || r.Protocol == 17 {
			r.From = rapid.SampledFrom([]int{-1, 0, 79, 80}).Draw(t, "from")
			r.To = rapid.SampledFrom([]int{80, 81, 65535}).Draw(t, "to")
		} else if r.Protocol == 1 {
			if r.From = rapid.SampledFrom([]int{-1, 0, 8}).Draw(t, "type"); r.From >= 0 {
				r.To = rapid.SampledFrom([]int{-1, 0, 1}).Draw(t, "code")
			}
		}
		r.CIDRs = rapid.SliceOfN(rapid.Map(rapid.SampledFrom([]string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.8/29", "10.0.0.11/32", "10.0.1.0/24", "203.0.113.7/31", "::/0"}), netip.MustParsePrefix), 0, 4).Draw(t, "cidrs")
		r.Groups = rapid.SliceOfNDistinct(rapid.SampledFrom(append(ids, "sg-gone")), 0, 2, rapid.ID).Draw(t, "groups")
		return r
	})
	groups := map[string]SecurityGroup{}
	for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom(ids), 0, 3, rapid.ID).Draw(t, "existing") {
		groups[id] = SecurityGroup{ID: id, VPC: "vpc-a",
			Ingress: rapid.SliceOfN(rule, 0, 3).Draw(t, "ingress"), Egress: rapid.SliceOfN(rule, 0, 3).Draw(t, "egress")}
	}
	l := &lab{}
	for i, a := range addresses[:5] {
		if !rapid.Bool().Draw(t, "exists") {
			continue
		}
		public := ""
		if rapid.Bool().Draw(t, "public") {
			public = fmt.Sprintf("198.18.0.%d", 10+i)
		}
		var own []string
		if len(groups) > 0 {
			own = rapid.SliceOfNDistinct(rapid.SampledFrom(slices.Sorted(maps.Keys(groups))), 0, 3, rapid.ID).Draw(t, "own")
		}
		l.add(fmt.Sprintf("eni-%d", i), "vpc-a", "subnet-a"+a[5:6], a, public, own...)
		n := &l.cfg.ENIs[len(l.cfg.ENIs)-1]
		n.Subnet, n.SourceDestCheck = rapid.SampledFrom([]string{"subnet-a1", "subnet-a3"}).Draw(t, "subnet"), rapid.Bool().Draw(t, "check")
	}
	return l.cfg.ENIs, groups
}

func TestMeaning(t *testing.T) {
	t.Run("rule by rule", meaning)
	defer func(n int) { linearRules = n }(linearRules)
	linearRules = 0
	t.Run("by port", meaning)
}

func meaning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		enis, groups := drawConfig(t)
		rs := compile(input{vpc: vpcA(), enis: enis, groups: groups}, ipv4)
		for range 20 {
			p := packet{
				protocol: rapid.SampledFrom([]int{1, 6, 17, 47, 50}).Draw(t, "protocol"),
				port:     rapid.SampledFrom([]int{0, 78, 79, 80, 81, 82, 65535}).Draw(t, "port"),
				kind:     rapid.SampledFrom([]int{0, 3, 8}).Draw(t, "type"),
				code:     rapid.SampledFrom([]int{0, 1}).Draw(t, "code"),
				from:     netip.MustParseAddr(rapid.SampledFrom(addresses).Draw(t, "from")),
				to:       netip.MustParseAddr(rapid.SampledFrom(addresses).Draw(t, "to")),
			}
			for _, n := range enis {
				for _, in := range []bool{true, false} {
					if got, want := rs.evaluate(linkName(n.ID), p, in), allowed(n, enis, groups, p, in); got != want {
						t.Fatalf("%s, ingress %v, %+v: %v, want %v\n%s", n.ID, in, p, got, want, render(rs))
					}
				}
			}
		}
	})
}

// TestKernelAgrees: from any ruleset to any other, the difference brings the kernel to the same table as a complete
// replacement, by netlink where that is taken and by nft always.
func TestKernelAgrees(t *testing.T) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseLasting()
	defer exec.Command("nft", "delete", "table", "ip", vpcTable).Run()
	rounds := 0
	defer func(n int) { linearRules = n }(linearRules)
	rapid.Check(t, func(t *rapid.T) {
		linearRules = rounds % 2 * 16
		if rounds++; rounds > 25 {
			return // each costs several runs of nft
		}
		enis, groups := drawConfig(t)
		next, nextGroups := drawConfig(t)
		if rapid.Bool().Draw(t, "same groups") {
			nextGroups = groups
			next = slices.DeleteFunc(next, func(n ENI) bool {
				return slices.ContainsFunc(n.Groups, func(g string) bool { _, ok := groups[g]; return !ok })
			})
		}
		old, new := compile(input{vpc: vpcA(), enis: enis, groups: groups}, ipv4), compile(input{vpc: vpcA(), enis: next, groups: nextGroups}, ipv4)
		apply := func(script string) string {
			if err := runNft(nil, script); err != nil {
				t.Fatalf("%v\n%s", err, script)
			}
			return table(t)
		}
		want := apply(render(new))
		apply(render(old))
		d := compare(old, new)
		if got := apply(d.script()); got != want {
			t.Fatalf("by nft:\n%s\n%s", d.script(), cmp.Diff(want, got))
		}
		if d.quick() {
			apply(render(old))
			if err := applyQuick(conn, d); err != nil {
				t.Fatalf("%v\n%s", err, d.script())
			}
			if got := table(t); got != want {
				t.Fatalf("by netlink:\n%s\n%s", d.script(), cmp.Diff(want, got))
			}
		}
	})
}

// table is the kernel's table in a form in which order matters only where it does.
func table(t *rapid.T) string {
	out, err := exec.Command("nft", "-j", "list", "table", "ip", vpcTable).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var doc struct{ Nftables []map[string]map[string]any }
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	var lines []string
	position := map[any]int{}
	for _, object := range doc.Nftables {
		for kind, o := range object {
			if kind == "metainfo" {
				continue
			}
			delete(o, "handle")
			if elems, ok := o["elem"].([]any); ok {
				texts := []string{}
				for _, e := range elems {
					b, _ := json.Marshal(e)
					texts = append(texts, string(b))
				}
				slices.Sort(texts)
				o["elem"] = texts
			}
			order := 0
			if kind == "rule" {
				position[o["chain"]]++
				order = position[o["chain"]]
			}
			b, _ := json.Marshal(o)
			lines = append(lines, fmt.Sprintf("%s %03d %s", kind, order, b))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
