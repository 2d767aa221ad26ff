package vpc

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

func (l *lab) eni(id string) *ENI {
	for i := range l.cfg.ENIs {
		if l.cfg.ENIs[i].ID == id {
			return &l.cfg.ENIs[i]
		}
	}
	l.t.Fatalf("no %s", id)
	return nil
}

func (l *lab) table(id string) *RouteTable {
	for i := range l.cfg.VPCs {
		for j := range l.cfg.VPCs[i].RouteTables {
			if t := &l.cfg.VPCs[i].RouteTables[j]; t.ID == id {
				return t
			}
		}
	}
	l.t.Fatalf("no %s", id)
	return nil
}

func (l *lab) run(id, script string) string {
	l.t.Helper()
	var out []byte
	err := l.in(id, func() (err error) {
		out, err = exec.Command("sh", "-ec", script).CombinedOutput()
		return err
	})
	if err != nil {
		l.t.Fatalf("in %s: %s: %v: %s", id, script, err, out)
	}
	return string(out)
}

func (l *lab) datagram(id, to string) {
	l.t.Helper()
	err := l.in(id, func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
	if err != nil {
		l.t.Error(err)
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// second is a VPC like vpc-a with another range.
func second(id, cidr string) VPC {
	p := prefix(cidr)
	b := p.Addr().As4()
	return VPC{ID: id, CIDRs: []netip.Prefix{p},
		Subnets:     []Subnet{{ID: "subnet-" + id[4:], CIDR: netip.PrefixFrom(netip.AddrFrom4(b), 24), RouteTable: "rtb-" + id[4:]}},
		RouteTables: []RouteTable{{ID: "rtb-" + id[4:]}}}
}

func TestFurtherRangesOfAVPC(t *testing.T) {
	l := newLab(t)
	v := &l.cfg.VPCs[0]
	v.CIDRs = append(v.CIDRs, prefix("172.20.0.0/24"))
	v.Subnets = append(v.Subnets, Subnet{ID: "subnet-far", CIDR: prefix("172.20.0.0/28"), RouteTable: "rtb-private"})
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-far", "172.20.0.4", "", "sg-open")
	// Another VPC with the same ranges and the same addresses.
	o := VPC{ID: "vpc-o", CIDRs: v.CIDRs, Subnets: []Subnet{{ID: "subnet-o1", CIDR: prefix("10.0.0.0/24"), RouteTable: "rtb-o"},
		{ID: "subnet-o2", CIDR: prefix("172.20.0.0/28"), RouteTable: "rtb-o"}}, RouteTables: []RouteTable{{ID: "rtb-o"}}}
	l.cfg.VPCs = append(l.cfg.VPCs, o)
	l.cfg.Groups = append(l.cfg.Groups, open("sg-o", "vpc-o"))
	l.add("eni-o1", "vpc-o", "subnet-o1", "10.0.0.10", "", "sg-o")
	l.add("eni-o2", "vpc-o", "subnet-o2", "172.20.0.4", "", "sg-o")
	l.set()
	for _, id := range []string{"eni-2", "eni-o2"} {
		l.say(id, 80, id)
	}
	l.reaches("eni-1", "172.20.0.4:80", "eni-2")
	l.reaches("eni-o1", "172.20.0.4:80", "eni-o2")
	l.serve("eni-1", 80)
	l.reaches("eni-2", "10.0.0.10:80", "172.20.0.4")
	l.misses("eni-2", "172.20.0.5:80") // nobody's

	// The range goes with what is in it.
	l.cfg.VPCs[0] = vpcA()
	l.remove("eni-2")
	l.set()
	l.misses("eni-1", "172.20.0.4:80")
	l.reaches("eni-o1", "172.20.0.4:80", "eni-o2")
}

// say answers each connection with a text.
func (l *lab) say(id string, port int, text string) {
	l.t.Helper()
	var ln net.Listener
	if err := l.in(id, func() (err error) { ln, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); return err }); err != nil {
		l.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s\n", text)
			c.Close()
		}
	})
	l.t.Cleanup(func() { ln.Close(); wg.Wait() })
}

// TestRouteThroughAnInstance sends a subnet's traffic through an interface that forwards, and elsewhere by longer prefixes.
func TestRouteThroughAnInstance(t *testing.T) {
	l := newLab(t)
	l.cfg.VPCs[0].Subnets[1].RouteTable = "rtb-through"
	l.cfg.VPCs[0].RouteTables = append(l.cfg.VPCs[0].RouteTables, RouteTable{ID: "rtb-through", Routes: []Route{
		{Destination: prefix("0.0.0.0/0"), Target: Interface, TargetID: "eni-router"},
		{Destination: prefix("198.18.0.20/32"), Target: Blackhole},
		{Destination: prefix("198.18.0.16/28"), Target: InternetGateway},
	}})
	l.add("eni-router", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-open")
	l.eni("eni-router").SourceDestCheck = false
	l.add("eni-1", "vpc-a", "subnet-a2", "10.0.1.10", "198.18.0.11", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a2", "10.0.1.11", "", "sg-open")
	l.add("eni-t", "vpc-a", "subnet-a1", "10.0.0.20", "198.18.0.20", "sg-open")
	l.add("eni-u", "vpc-a", "subnet-a1", "10.0.0.21", "198.18.0.21", "sg-open")
	l.add("eni-w", "vpc-a", "subnet-a1", "10.0.0.22", "198.18.0.40", "sg-open")
	l.set()
	for _, id := range []string{"eni-t", "eni-u", "eni-w"} {
		l.serve(id, 80)
	}
	l.misses("eni-2", "198.18.0.40:80") // the router does not forward yet
	l.run("eni-router", `sysctl -qw net.ipv4.ip_forward=1; nft add table ip n; nft add chain ip n c '{ type nat hook postrouting priority 100; }'; nft add rule ip n c masquerade`)
	l.reaches("eni-2", "198.18.0.40:80", "198.18.0.10") // seen as the router's address
	l.misses("eni-2", "198.18.0.20:80")                 // a longer prefix, a blackhole
	l.misses("eni-2", "198.18.0.21:80")                 // the gateway, but no public address
	l.reaches("eni-1", "198.18.0.21:80", "198.18.0.11") // the gateway
	l.reaches("eni-1", "198.18.0.40:80", "198.18.0.10") // the router
	c, _, err := l.dial("eni-2", "198.18.0.40:80", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A change of one route cuts nothing that uses another.
	l.table("rtb-through").Routes[1].Target = InternetGateway
	l.set()
	l.reaches("eni-1", "198.18.0.20:80", "198.18.0.11")
	if err := echo(c, patience); err != nil {
		t.Errorf("after a change of another route: %v", err)
	}
	// With the check on, a router cannot forward what is not its own.
	l.eni("eni-router").SourceDestCheck = true
	l.set()
	l.misses("eni-2", "198.18.0.40:80")
	l.eni("eni-router").SourceDestCheck = false
	l.set()
	l.reaches("eni-2", "198.18.0.40:80", "198.18.0.10")
	// Without the router the route is a blackhole, and works again when it is back.
	router := *l.eni("eni-router")
	l.remove("eni-router")
	l.set()
	l.misses("eni-2", "198.18.0.40:80")
	l.cfg.ENIs = append(l.cfg.ENIs, router)
	l.set()
	l.run("eni-router", `sysctl -qw net.ipv4.ip_forward=1; nft add table ip n; nft add chain ip n c '{ type nat hook postrouting priority 100; }'; nft add rule ip n c masquerade`)
	l.reaches("eni-2", "198.18.0.40:80", "198.18.0.10")
	if l.set() {
		t.Error("the next Set changed something")
	}
}

func natLab(t *testing.T) *lab {
	l := newLab(t)
	v := &l.cfg.VPCs[0]
	v.Subnets = append(v.Subnets, Subnet{ID: "subnet-a4", CIDR: prefix("10.0.3.0/24"), RouteTable: "rtb-private"})
	l.table("rtb-private").Routes = append(l.table("rtb-private").Routes, Route{Destination: prefix("0.0.0.0/0"), Target: Interface, TargetID: "eni-nat"})
	l.add("eni-nat", "vpc-a", "subnet-a1", "10.0.0.50", "198.18.0.50")
	l.eni("eni-nat").Serves = ServesNAT
	l.eni("eni-nat").SourceDestCheck = true
	l.add("eni-1", "vpc-a", "subnet-a3", "10.0.2.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a4", "10.0.3.10", "", "sg-open")
	l.add("eni-pub", "vpc-a", "subnet-a1", "10.0.0.20", "198.18.0.20", "sg-open")
	return l
}

func TestNATGateway(t *testing.T) {
	l := natLab(t)
	l.add("eni-shut", "vpc-a", "subnet-a3", "10.0.2.11", "", "sg-shut")
	l.set()
	l.serve("", 80)
	l.serve("eni-pub", 80)
	l.serve("eni-nat", 81) // something is there, and must not be reached
	l.serve("eni-1", 80)
	for _, id := range []string{"eni-1", "eni-2"} { // two private subnets
		l.reaches(id, "198.18.0.0:80", "198.18.0.50")
		l.reaches(id, "198.18.0.20:80", "198.18.0.50")
	}
	l.misses("eni-shut", "198.18.0.0:80")           // groups hold for what goes through it
	l.misses("", "198.18.0.50:81")                  // nothing comes in
	l.misses("eni-1", "10.0.0.50:81")               // not from inside either
	l.reaches("eni-1", "10.0.0.20:80", "10.0.2.10") // what is in the VPC does not go there
	pc, err := l.packetIn("", "198.18.0.0:9")       // other protocols too
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	l.datagram("eni-1", "198.18.0.0:9")
	pc.SetReadDeadline(time.Now().Add(patience))
	if _, from, err := pc.ReadFrom(make([]byte, 8)); err != nil || from.(*net.UDPAddr).IP.String() != "198.18.0.50" {
		t.Errorf("a datagram from %v (%v)", from, err)
	}
	if out := l.run("eni-nat", "cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established"); strings.TrimSpace(out) != "350" {
		t.Errorf("established connections are kept for %s", out)
	}
	c, _, err := l.dial("eni-1", "198.18.0.0:80", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A connection that it has forgotten is reset, not left hanging.
	ns, err := openNetns(l.opts.NetnsPath("eni-nat"))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := on(ns, forgetAll); err != nil {
		t.Fatal(err)
	}
	if err := echo(c, patience); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("a forgotten connection: %v, want a reset", err)
	}

	// A private one: no public address, so that its own route out leads nowhere, but its VPC is open to it.
	l.eni("eni-nat").Public = netip.Addr{}
	l.set()
	l.misses("eni-1", "198.18.0.0:80")
	l.eni("eni-nat").Public = netip.MustParseAddr("198.18.0.50")
	l.set()
	l.reaches("eni-1", "198.18.0.0:80", "198.18.0.50")
	// Gone, its routes are blackholes.
	l.remove("eni-nat")
	l.set()
	l.misses("eni-1", "198.18.0.0:80")
	l.reaches("eni-1", "10.0.0.20:80", "10.0.2.10")
}

func TestPeering(t *testing.T) {
	l := newLab(t)
	l.cfg.VPCs = append(l.cfg.VPCs, second("vpc-b", "10.1.0.0/16"), second("vpc-c", "10.2.0.0/16"))
	a, b, c := &l.cfg.VPCs[0], &l.cfg.VPCs[1], &l.cfg.VPCs[2]
	b.Subnets = append(b.Subnets, Subnet{ID: "subnet-b2", CIDR: prefix("10.1.1.0/24"), RouteTable: "rtb-b2"})
	b.RouteTables = append(b.RouteTables, RouteTable{ID: "rtb-b2"})
	peer := func(id string, v, w *VPC) {
		v.Peers = append(v.Peers, Peer{ID: id, VPC: w.ID, CIDRs: w.CIDRs})
		w.Peers = append(w.Peers, Peer{ID: id, VPC: v.ID, CIDRs: v.CIDRs})
	}
	route := func(table, to, id string) {
		l.table(table).Routes = append(l.table(table).Routes, Route{Destination: prefix(to), Target: Peering, TargetID: id})
	}
	peer("pcx-ab", a, b)
	peer("pcx-bc", b, c)
	route("rtb-a", "10.1.0.0/16", "pcx-ab")
	route("rtb-a", "10.2.0.0/16", "pcx-ab") // hoping for the next one
	route("rtb-b", "10.0.0.0/24", "pcx-ab")
	route("rtb-b", "10.2.0.0/16", "pcx-bc")
	route("rtb-c", "10.1.0.0/16", "pcx-bc")
	route("rtb-c", "10.0.0.0/16", "pcx-bc")
	l.cfg.Groups = append(l.cfg.Groups, open("sg-b", "vpc-b"), open("sg-c", "vpc-c"),
		SecurityGroup{ID: "sg-member", VPC: "vpc-a", Egress: everything},
		SecurityGroup{ID: "sg-friends", VPC: "vpc-b", Ingress: []Rule{{Protocol: 6, From: 80, To: 80, Groups: []string{"sg-member"}}}})
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-member")
	l.add("eni-3", "vpc-a", "subnet-a3", "10.0.2.10", "", "sg-open") // no route
	l.add("eni-b", "vpc-b", "subnet-b", "10.1.0.10", "", "sg-b")
	l.add("eni-b2", "vpc-b", "subnet-b2", "10.1.1.10", "", "sg-b") // no route back
	l.add("eni-f", "vpc-b", "subnet-b", "10.1.0.11", "", "sg-friends")
	l.add("eni-c", "vpc-c", "subnet-c", "10.2.0.10", "", "sg-c")
	l.set()
	for _, id := range []string{"eni-1", "eni-b", "eni-b2", "eni-f", "eni-c"} {
		l.serve(id, 80)
	}
	l.reaches("eni-1", "10.1.0.10:80", "10.0.0.10")
	l.reaches("eni-b", "10.0.0.10:80", "10.1.0.10")
	l.reaches("eni-b", "10.2.0.10:80", "10.1.0.10")
	l.misses("eni-3", "10.1.0.10:80")
	l.misses("eni-1", "10.1.1.10:80")
	l.misses("eni-1", "10.2.0.10:80") // not through b
	l.misses("eni-c", "10.0.0.10:80")
	l.misses("eni-1", "10.1.0.11:80") // not a member
	l.reaches("eni-2", "10.1.0.11:80", "10.0.0.11")
	if l.set() {
		t.Error("the next Set changed something")
	}
	kept, _, err := l.dial("eni-1", "10.1.0.10:80", patience)
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
	// The connection goes; the other one stays.
	a, b, c = &l.cfg.VPCs[0], &l.cfg.VPCs[1], &l.cfg.VPCs[2]
	a.Peers, b.Peers = nil, b.Peers[1:]
	l.set()
	l.misses("eni-2", "10.1.0.11:80")
	l.reaches("eni-b", "10.2.0.10:80", "10.1.0.10")
	if out := l.run("vpc-a", "ip -o link"); strings.Contains(out, peerName("pcx-ab")) {
		t.Errorf("a link is left: %s", out)
	}
	// And so it does with one of the VPCs.
	b.Peers = nil
	l.cfg.VPCs = l.cfg.VPCs[:2]
	l.remove("eni-c")
	l.cfg.Groups = append(l.cfg.Groups[:3:3], l.cfg.Groups[4:]...)
	l.set()
	l.misses("eni-b", "10.2.0.10:80")
}

func TestEndpoint(t *testing.T) {
	l := newLab(t)
	// Another VPC with the same range, an endpoint at the same address and another client behind it.
	o := vpcA()
	o.ID, o.Subnets, o.RouteTables = "vpc-o", []Subnet{{ID: "subnet-o", CIDR: prefix("10.0.2.0/24"), RouteTable: "rtb-o"}}, []RouteTable{{ID: "rtb-o"}}
	l.cfg.VPCs = append(l.cfg.VPCs, o)
	l.cfg.Groups = append(l.cfg.Groups, open("sg-o", "vpc-o"),
		SecurityGroup{ID: "sg-vpce", VPC: "vpc-a", Ingress: []Rule{{Protocol: 6, From: 443, To: 443, CIDRs: []netip.Prefix{prefix("10.0.2.10/32")}}}})
	l.add("eni-api", "vpc-a", "subnet-a3", "10.0.2.50", "", "sg-vpce")
	l.add("eni-1", "vpc-a", "subnet-a3", "10.0.2.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a3", "10.0.2.11", "", "sg-open")
	l.add("eni-o-api", "vpc-o", "subnet-o", "10.0.2.50", "", "sg-o")
	l.add("eni-o", "vpc-o", "subnet-o", "10.0.2.10", "", "sg-o")
	l.eni("eni-api").Serves, l.eni("eni-o-api").Serves = ServesAPI, ServesAPI
	l.set()
	l.serve("", 4701)
	l.serve("", 4702)
	l.reaches("eni-1", "10.0.2.50:443", "")
	l.misses("eni-1", "10.0.2.50:80")    // its groups decide
	l.misses("eni-2", "10.0.2.50:443")   //
	l.misses("eni-1", "198.18.0.0:4701") // there is no other way
	l.reaches("eni-o", "10.0.2.50:80", "")
	l.misses("eni-o", "10.0.2.50:4702")
	if l.set() {
		t.Error("the next Set changed something")
	}
	c, _, err := l.dial("eni-1", "10.0.2.50:443", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.e.Close()
	l.open()
	l.set()
	if err := echo(c, patience); err != nil {
		t.Errorf("over a restart: %v", err)
	}
	l.remove("eni-api")
	l.remove("eni-o-api")
	l.set()
	if out := l.run("", "ip route show 169.254.16.0/20 ; ip route show root 169.254.16.0/20"); strings.TrimSpace(out) != "" {
		t.Errorf("routes are left: %s", out)
	}
}

func TestFurtherDevicesAndAddresses(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a2", "10.0.1.10", "", "sg-open")
	l.add("eni-other", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
	l.add("eni-near", "vpc-a", "subnet-a2", "10.0.1.20", "", "sg-open")
	l.eni("eni-2").In, l.eni("eni-2").Device = "eni-1", 1
	l.eni("eni-1").Secondary = []Address{{netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("198.18.0.100")}, {Private: netip.MustParseAddr("10.0.0.101")}}
	l.set()
	l.serve("eni-1", 80) // in the one namespace of both
	if out := l.run("eni-1", "ip -br -4 addr; ip route"); !strings.Contains(out, "eth1") || !strings.Contains(out, "10.0.1.10/24") || strings.Count(out, "default") != 1 {
		t.Errorf("the namespace has\n%s", out)
	}
	l.reaches("eni-near", "10.0.1.10:80", "10.0.1.20")
	// The guest answers by the device that is nearer, under the other one's address; the check of the source is what
	// drops that, as on AWS, until the guest has routes of its own for it.
	l.misses("eni-near", "10.0.0.10:80")
	l.reaches("eni-other", "10.0.0.100:80", "10.0.0.11")
	l.reaches("eni-other", "10.0.0.101:80", "10.0.0.11")
	l.misses("eni-other", "10.0.0.102:80")
	l.serve("", 80)
	l.reaches("", "198.18.0.100:80", "198.18.0.0")
	l.reaches("eni-1", "198.18.0.0:80", "198.18.0.10") // the primary address is what speaks
	if l.set() {
		t.Error("the next Set changed something")
	}
	kept, _, err := l.dial("eni-other", "10.0.0.10:80", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	link := l.index("eni-1")

	// Addresses come and go under connections.
	l.eni("eni-1").Secondary = []Address{{Private: netip.MustParseAddr("10.0.0.102")}}
	l.set()
	l.reaches("eni-other", "10.0.0.102:80", "")
	l.misses("eni-other", "10.0.0.101:80")
	if c, _, err := l.dial("", "198.18.0.100:80", impatience); err == nil {
		c.Close()
		t.Error("a public address outlived its private one")
	}
	// The second device goes to another instance, and another one takes its place.
	l.eni("eni-2").In = "eni-other"
	l.add("eni-3", "vpc-a", "subnet-a2", "10.0.1.11", "", "sg-open")
	l.eni("eni-3").In, l.eni("eni-3").Device = "eni-1", 1
	l.serve("eni-other", 80)
	l.set()
	l.reaches("eni-near", "10.0.1.11:80", "10.0.1.20")
	l.reaches("eni-near", "10.0.1.10:80", "10.0.1.20")
	if out := l.run("eni-other", "ip -br -4 addr"); !strings.Contains(out, "10.0.1.10/24") {
		t.Errorf("the namespace has\n%s", out)
	}
	if err := echo(kept, patience); err != nil || l.index("eni-1") != link {
		t.Errorf("the first device noticed: %v", err)
	}
	// A restart adopts it; detached, nothing of it is left, and the instance is as it was.
	l.e.Close()
	l.open()
	l.set()
	l.reaches("eni-near", "10.0.1.11:80", "10.0.1.20")
	if l.set() {
		t.Error("the Set after the adoption changed something")
	}
	l.remove("eni-3")
	l.set()
	l.misses("eni-near", "10.0.1.11:80")
	l.e.fabrics["vpc-a"].sweeps.Wait()
	if out := l.run("eni-1", "ip -o link"); strings.Contains(out, "eth1") {
		t.Errorf("the namespace has\n%s", out)
	}
	if err := echo(kept, patience); err != nil {
		t.Errorf("the first device noticed: %v", err)
	}
	// A device whose home is not here is not attached, and says so.
	l.eni("eni-2").In = "eni-none"
	if _, err := l.e.Set(t.Context(), l.cfg); err == nil || !strings.Contains(err.Error(), "eni-none") || l.e.Status()["eni-2"].Ready {
		t.Errorf("%v, %+v", err, l.e.Status()["eni-2"])
	}
}

func TestInstanceMetadata(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-shut")
	l.set()
	ln, err := l.e.ListenIn("vpc-a", "tcp4", "169.254.169.254:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s\n", c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
	l.reaches("eni-1", "169.254.169.254:80", "10.0.0.10") // told by its address, whatever its groups say
	l.serve("eni-1", 80)                                  // and it takes no port from it
	inside, err := l.e.ListenInENI("eni-1", "tcp4", "10.0.0.10:81")
	if err != nil {
		t.Fatal(err)
	}
	inside.Close()
}
