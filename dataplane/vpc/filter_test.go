package vpc

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// entries are those of a network ACL: "in 100 allow 6 80-80 0.0.0.0/0", in the order given.
func entries(lines ...string) (out []ACLEntry) {
	for _, s := range lines {
		var dir, verdict, cidr string
		e := ACLEntry{}
		if _, err := fmt.Sscanf(s, "%s %s %d %d-%d %s", &dir, &verdict, &e.Protocol, &e.From, &e.To, &cidr); err != nil {
			panic(s)
		}
		e.Egress, e.Allow, e.CIDR = dir == "out", verdict == "allow", netip.MustParsePrefix(cidr)
		out = append(out, e)
	}
	return out
}

func TestNetworkACL(t *testing.T) {
	l := newLab(t)
	l.cfg.VPCs[0].Subnets[1].ACL = "acl-1"
	l.cfg.VPCs[0].ACLs = []NetworkACL{{ID: "acl-1", Entries: entries(
		"in deny 6 81-81 10.0.0.0/24",
		"in allow 6 80-82 10.0.0.0/24",
		"out allow 6 1024-65535 10.0.0.0/24",
	)}}
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a2", "10.0.1.10", "", "sg-open") // behind the ACL
	l.add("eni-3", "vpc-a", "subnet-a2", "10.0.1.11", "", "sg-open")
	l.add("eni-4", "vpc-a", "subnet-a3", "10.0.2.10", "", "sg-open")
	l.set()
	for _, p := range []int{80, 81, 83} {
		l.serve("eni-2", p)
	}
	l.serve("eni-1", 80)
	l.reaches("eni-1", "10.0.1.10:80", "10.0.0.10")
	l.misses("eni-1", "10.0.1.10:81") // the first match
	l.misses("eni-1", "10.0.1.10:83") // no match
	l.misses("eni-4", "10.0.1.10:80")
	l.misses("eni-2", "10.0.0.10:80")               // out to port 80
	l.reaches("eni-3", "10.0.1.10:83", "10.0.1.11") // not inside a subnet
	// Not for the resolver.
	pc, err := l.e.ListenPacketIn("vpc-a", "udp4", "10.0.0.2:53")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	l.datagram("eni-2", "10.0.0.2:53")
	pc.SetReadDeadline(time.Now().Add(patience))
	if _, _, err := pc.ReadFrom(make([]byte, 8)); err != nil {
		t.Errorf("the resolver: %v", err)
	}
	// Stateless: what was allowed in is not allowed out by that, and a connection there is ends with the entry.
	c, _, err := l.dial("eni-1", "10.0.1.10:80", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := echo(c, patience); err != nil {
		t.Fatal(err)
	}
	acl := &l.cfg.VPCs[0].ACLs[0]
	acl.Entries = acl.Entries[:2]
	l.set()
	if err := echo(c, impatience); err == nil {
		t.Error("the answer leaves without an entry")
	}
	l.misses("eni-1", "10.0.1.10:80")
	// ICMP and all protocols; then none at all.
	acl.Entries = entries("in allow 1 8-0 0.0.0.0/0", "in allow -1 0-0 10.0.2.0/24", "out allow -1 0-0 0.0.0.0/0")
	l.set()
	l.reaches("eni-4", "10.0.1.10:83", "")
	l.misses("eni-1", "10.0.1.10:80")
	l.reaches("eni-3", "10.0.1.10:83", "")
	l.cfg.VPCs[0].Subnets[1].ACL, l.cfg.VPCs[0].ACLs = "", nil
	l.set()
	l.reaches("eni-1", "10.0.1.10:81", "")
	if out := l.run("vpc-a", "nft list ruleset"); strings.Contains(out, "acl") {
		t.Errorf("something of the ACL is left:\n%s", out)
	}
}

// dualLab is vpc-a with IPv6, and a subnet of each kind of way out.
func dualLab(t *testing.T) *lab {
	l := newLab(t)
	v := &l.cfg.VPCs[0]
	v.CIDRs = append(v.CIDRs, prefix("2001:db8:0:100::/56"))
	for i := range v.Subnets {
		v.Subnets[i].IPv6 = prefix(fmt.Sprintf("2001:db8:0:10%d::/64", i))
	}
	v.Subnets[1].RouteTable = "rtb-egress"
	v.RouteTables = append(v.RouteTables, RouteTable{ID: "rtb-egress", Routes: []Route{{Destination: prefix("::/0"), Target: EgressOnly}}})
	l.table("rtb-a").Routes = append(l.table("rtb-a").Routes, Route{Destination: prefix("::/0"), Target: InternetGateway})
	six := Rule{Protocol: -1, From: -1, To: -1, CIDRs: prefixes("0.0.0.0/0", "::/0")}
	l.cfg.Groups[0].Ingress, l.cfg.Groups[0].Egress = []Rule{six}, []Rule{six}
	for i, n := range []struct{ id, subnet, v4 string }{{"eni-1", "subnet-a1", "10.0.0.10"}, {"eni-2", "subnet-a1", "10.0.0.11"}, {"eni-3", "subnet-a2", "10.0.1.10"}, {"eni-4", "subnet-a3", "10.0.2.10"}} {
		l.add(n.id, "vpc-a", n.subnet, n.v4, "", "sg-open")
		l.eni(n.id).IPv6 = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("2001:db8:0:10%c::%d", "0012"[i], 10+i))}
	}
	return l
}

func TestIPv6(t *testing.T) {
	l := dualLab(t)
	l.cfg.Groups = append(l.cfg.Groups,
		SecurityGroup{ID: "sg-six", VPC: "vpc-a", Ingress: []Rule{{Protocol: 6, From: 80, To: 80, CIDRs: prefixes("2001:db8:0:100::/64")}, {Protocol: 6, From: 81, To: 81, Groups: []string{"sg-member"}},
			{Protocol: 58, From: 128, To: -1, CIDRs: prefixes("::/0")}}, Egress: l.cfg.Groups[0].Egress},
		SecurityGroup{ID: "sg-member", VPC: "vpc-a"})
	l.add("eni-5", "vpc-a", "subnet-a1", "10.0.0.15", "", "sg-six")
	l.eni("eni-5").IPv6 = []netip.Addr{netip.MustParseAddr("2001:db8:0:100::15"), netip.MustParseAddr("2001:db8:0:100::16")}
	l.add("eni-v4", "vpc-a", "subnet-a1", "10.0.0.16", "", "sg-open")
	l.set()
	for _, id := range []string{"eni-1", "eni-3", "eni-4", "eni-5"} {
		l.serve(id, 80)
	}
	l.serve("eni-5", 81)
	l.serve("", 80)
	machine := machineAddress6(l.opts.Region).String()

	l.reaches("eni-2", "[2001:db8:0:100::10]:80", "2001:db8:0:100::11")
	l.reaches("eni-3", "[2001:db8:0:100::10]:80", "2001:db8:0:101::12")
	l.reaches("eni-4", "10.0.0.10:80", "") // and IPv4 goes on beside it
	l.misses("eni-2", "[2001:db8:0:100::99]:80")
	l.reaches("eni-2", "[2001:db8:0:100::16]:80", "2001:db8:0:100::11") // groups
	l.misses("eni-3", "[2001:db8:0:100::15]:80")
	l.misses("eni-2", "[2001:db8:0:100::15]:81")
	l.eni("eni-2").Groups = []string{"sg-open", "sg-member"}
	l.set()
	l.reaches("eni-2", "[2001:db8:0:100::15]:81", "")

	l.reaches("eni-1", "["+machine+"]:80", "2001:db8:0:100::10") // by the internet gateway
	l.reaches("", "[2001:db8:0:100::10]:80", machine)            // and in
	l.reaches("eni-3", "["+machine+"]:80", "2001:db8:0:101::12") // by the egress-only one
	l.misses("", "[2001:db8:0:101::12]:80")                      // not in
	l.misses("eni-4", "["+machine+"]:80")                        // no gateway
	l.misses("", "[2001:db8:0:102::13]:80")
	if err := l.in("eni-v4", func() error { _, err := net.Dial("udp6", "[2001:db8:0:100::10]:80"); return err }); err == nil {
		t.Error("an interface without IPv6 has a route")
	}
	// A source that is not the interface's own.
	l.run("eni-2", "ip -6 addr add 2001:db8:0:100::77/128 dev lo")
	if err := l.in("eni-2", func() error {
		d := net.Dialer{Timeout: impatience, LocalAddr: &net.TCPAddr{IP: net.ParseIP("2001:db8:0:100::77")}}
		c, err := d.Dial("tcp6", "[2001:db8:0:100::10]:80")
		if err == nil {
			c.Close()
		}
		return err
	}); err == nil {
		t.Error("a spoofed source passed")
	}
	if l.set() {
		t.Error("the next Set changed something")
	}

	kept, _, err := l.dial("eni-2", "[2001:db8:0:100::10]:80", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	l.e.Close()
	l.open()
	l.set()
	if err := echo(kept, patience); err != nil {
		t.Errorf("over a restart: %v", err)
	}
	if l.set() {
		t.Error("the Set after the adoption changed something")
	}
	// An address goes: its flows end, and those of others do not.
	l.eni("eni-5").IPv6 = l.eni("eni-5").IPv6[:1]
	l.set()
	l.misses("eni-2", "[2001:db8:0:100::16]:80")
	l.reaches("eni-2", "[2001:db8:0:100::15]:80", "")
	// The VPC without IPv6 again.
	l.cfg.VPCs[0] = vpcA()
	for i := range l.cfg.ENIs {
		l.cfg.ENIs[i].IPv6 = nil
	}
	l.set()
	if out := l.run("vpc-a", "nft list ruleset; ip -6 route show table all proto 190"); strings.Contains(out, "table ip6") || strings.Contains(out, "2001") {
		t.Errorf("something of IPv6 is left:\n%s", out)
	}
	if out := l.run("", "ip -6 route show proto 190"); strings.Contains(out, "2001") {
		t.Errorf("a route is left: %s", out)
	}
	l.reaches("eni-2", "10.0.0.10:80", "")
}

func TestIPv6ACLAndPeering(t *testing.T) {
	l := dualLab(t)
	b := second("vpc-b", "10.1.0.0/16")
	b.CIDRs = append(b.CIDRs, prefix("2001:db8:0:200::/56"))
	b.Subnets[0].IPv6 = prefix("2001:db8:0:200::/64")
	b.RouteTables[0].Routes = []Route{{Destination: prefix("2001:db8:0:100::/56"), Target: Peering, TargetID: "pcx-ab"}}
	b.Peers = []Peer{{ID: "pcx-ab", VPC: "vpc-a", CIDRs: l.cfg.VPCs[0].CIDRs}}
	l.cfg.VPCs = append(l.cfg.VPCs, b)
	l.cfg.VPCs[0].Peers = []Peer{{ID: "pcx-ab", VPC: "vpc-b", CIDRs: b.CIDRs}}
	l.table("rtb-a").Routes = append(l.table("rtb-a").Routes, Route{Destination: prefix("2001:db8:0:200::/56"), Target: Peering, TargetID: "pcx-ab"})
	g := l.cfg.Groups[0]
	g.ID, g.VPC = "sg-b", "vpc-b"
	l.cfg.Groups = append(l.cfg.Groups, g)
	l.add("eni-b", "vpc-b", "subnet-b", "10.1.0.10", "", "sg-b")
	l.eni("eni-b").IPv6 = []netip.Addr{netip.MustParseAddr("2001:db8:0:200::10")}
	l.cfg.VPCs[0].Subnets[2].ACL = "acl-1"
	l.cfg.VPCs[0].ACLs = []NetworkACL{{ID: "acl-1", Entries: entries("in allow 6 80-80 2001:db8:0:100::/64", "out allow -1 0-0 ::/0")}}
	l.set()
	for _, id := range []string{"eni-b", "eni-4"} {
		l.serve(id, 80)
	}
	l.reaches("eni-1", "[2001:db8:0:200::10]:80", "2001:db8:0:100::10")
	l.misses("eni-1", "10.1.0.10:80") // no route for IPv4
	l.reaches("eni-1", "[2001:db8:0:102::13]:80", "")
	l.misses("eni-3", "[2001:db8:0:102::13]:80") // the ACL
	l.misses("eni-1", "10.0.2.10:80")            // has nothing for IPv4
}

// TestFlowLogs compares what is counted with what was sent.
func TestFlowLogs(t *testing.T) {
	l := natLab(t)
	l.cfg.Groups = append(l.cfg.Groups, SecurityGroup{ID: "sg-80", VPC: "vpc-a", Egress: everything, Ingress: []Rule{{Protocol: 6, From: 80, To: 80, CIDRs: prefixes("0.0.0.0/0")}, {Protocol: 17, From: 9, To: 9, CIDRs: prefixes("0.0.0.0/0")}}})
	l.eni("eni-pub").Groups = []string{"sg-80"}
	l.cfg.VPCs[0].Subnets[3].ACL = "acl-1"
	l.cfg.VPCs[0].ACLs = []NetworkACL{{ID: "acl-1", Entries: entries("in allow -1 0-0 0.0.0.0/0", "out deny 6 80-80 10.0.0.0/24", "out allow -1 0-0 0.0.0.0/0")}}
	l.add("eni-quiet", "vpc-a", "subnet-a1", "10.0.0.60", "", "sg-open")
	for _, id := range []string{"eni-1", "eni-2", "eni-pub", "eni-nat", "eni-quiet"} {
		l.eni(id).FlowLog = true
	}
	l.set()
	l.serve("eni-pub", 80)
	l.serve("", 80)
	if _, err := l.e.Flows(); err != nil {
		t.Fatal(err)
	}
	before := time.Now()

	// Seven datagrams of 13 bytes, accepted on both sides, and one that is refused.
	heard, err := l.packetIn("eni-pub", "10.0.0.20:9")
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	var from string
	if err := l.in("eni-1", func() error {
		c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 20), Port: 9})
		if err != nil {
			return err
		}
		defer c.Close()
		from = c.LocalAddr().String()
		for range 7 {
			if _, err := c.Write([]byte("thirteen byte")); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	heard.SetReadDeadline(time.Now().Add(patience))
	for range 7 {
		if _, _, err := heard.ReadFrom(make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
	}
	l.reaches("eni-1", "10.0.0.20:80", "10.0.2.10")
	l.misses("eni-1", "10.0.0.20:81") // the group of the other one
	l.misses("eni-2", "10.0.0.20:80") // the ACL of its subnet
	l.reaches("eni-1", "198.18.0.0:80", "198.18.0.50")
	// Not logged: the resolver.
	pc, err := l.e.ListenPacketIn("vpc-a", "udp4", "10.0.0.2:53")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	l.datagram("eni-1", "10.0.0.2:53")

	w, err := l.e.Flows()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(w.Interfaces, []string{"eni-1", "eni-2", "eni-nat", "eni-pub", "eni-quiet"}) || len(w.Skipped) > 0 {
		t.Errorf("counted %q, skipped %q", w.Interfaces, w.Skipped)
	}
	find := func(eni string, egress bool, proto uint8, src, dst string, port uint16, rejected Rejection) Flow {
		t.Helper()
		for _, f := range w.Flows {
			if f.ENI == eni && f.Egress == egress && f.Protocol == proto && f.Src.String() == src && f.Dst.String() == dst && (f.DstPort == port || f.SrcPort == port) && f.Rejected == rejected {
				if f.Start.Before(before.Add(-time.Second)) && f.Packets == 1 || f.End.Before(f.Start) || f.End.After(w.End) {
					t.Errorf("times of %+v in %v to %v", f, w.Start, w.End)
				}
				return f
			}
		}
		t.Errorf("no flow of %s (egress %v) from %s to %s port %d, %q", eni, egress, src, dst, port, rejected)
		return Flow{}
	}
	for _, f := range []Flow{find("eni-1", true, 17, "10.0.2.10", "10.0.0.20", 9, ""), find("eni-pub", false, 17, "10.0.2.10", "10.0.0.20", 9, "")} {
		if f.Packets != 7 || f.Bytes != 7*(20+8+13) || fmt.Sprintf("%s:%d", f.Src, f.SrcPort) != from || f.DstPort != 9 {
			t.Errorf("seven datagrams from %s are %+v", from, f)
		}
	}
	if f := find("eni-1", true, 6, "10.0.2.10", "10.0.0.20", 80, ""); f.Flags&2 == 0 || f.Flags&16 != 0 || f.Flags&1 == 0 {
		t.Errorf("flags of a client: %+v", f)
	}
	if f := find("eni-pub", true, 6, "10.0.0.20", "10.0.2.10", 80, ""); f.Flags&18 != 18 {
		t.Errorf("flags of a server: %+v", f)
	}
	if f := find("eni-1", true, 6, "10.0.2.10", "10.0.0.20", 81, ""); f.Flags != 2 {
		t.Errorf("a SYN that got no answer: %+v", f)
	}
	find("eni-pub", false, 6, "10.0.2.10", "10.0.0.20", 81, RejectedByGroup)
	find("eni-2", true, 6, "10.0.3.10", "10.0.0.20", 80, RejectedByACL)
	// Through the gateway: what it passes on has its address on its side, and the packet's own beside.
	find("eni-1", true, 6, "10.0.2.10", "198.18.0.0", 80, "")
	if f := find("eni-nat", false, 6, "10.0.2.10", "10.0.0.50", 80, ""); f.PktDst.String() != "198.18.0.0" {
		t.Errorf("%+v", f)
	}
	find("eni-nat", true, 6, "10.0.0.50", "198.18.0.0", 80, "")
	if f := find("eni-nat", true, 6, "10.0.0.50", "10.0.2.10", 80, ""); f.PktSrc.String() != "198.18.0.0" {
		t.Errorf("%+v", f)
	}
	for _, f := range w.Flows {
		if f.ENI == "eni-quiet" || f.DstPort == 53 || f.ENI == "eni-2" && f.Rejected == "" {
			t.Errorf("%+v", f)
		}
	}
	// The next window has what came since, and no more.
	l.datagram("eni-1", "10.0.0.20:9")
	heard.SetReadDeadline(time.Now().Add(patience))
	if _, _, err := heard.ReadFrom(make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	if w, err = l.e.Flows(); err != nil {
		t.Fatal(err)
	}
	udp := 0
	for _, f := range w.Flows {
		if f.Protocol == 17 {
			udp++
			if f.Packets != 1 || f.Bytes != 29 {
				t.Errorf("%+v", f)
			}
		}
	}
	if udp != 2 {
		t.Errorf("%d flows of one datagram over two interfaces: %+v", udp, w.Flows)
	}
	// Off again, nothing of it is left.
	for i := range l.cfg.ENIs {
		l.cfg.ENIs[i].FlowLog = false
	}
	l.set()
	if out := l.run("vpc-a", "nft list ruleset"); strings.Contains(out, "flows-") || strings.Contains(out, "logged") {
		t.Errorf("left:\n%s", out)
	}
	l.reaches("eni-1", "10.0.0.20:80", "")
}
