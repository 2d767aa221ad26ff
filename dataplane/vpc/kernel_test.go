package vpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWithinSubnet(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
	l.add("eni-3", "vpc-a", "subnet-a1", "10.0.0.12", "", "sg-shut")
	l.add("eni-4", "vpc-a", "subnet-a2", "10.0.1.10", "", "sg-open")
	l.add("eni-5", "vpc-a", "subnet-a2", "10.0.1.11", "")
	l.set()
	l.serve("eni-1", 80)
	l.serve("eni-3", 80)
	l.serve("eni-5", 80)
	l.reaches("eni-2", "10.0.0.10:80", "10.0.0.11")
	l.reaches("eni-4", "10.0.0.10:80", "10.0.1.10") // another subnet
	l.misses("eni-2", "10.0.0.12:80")               // no ingress
	l.misses("eni-3", "10.0.0.10:80")               // no egress
	l.misses("eni-2", "10.0.1.11:80")               // no group at all
	if l.set() {
		t.Error("second Set changed something")
	}
}

func TestGroupMembership(t *testing.T) {
	l := newLab(t)
	l.cfg.Groups = append(l.cfg.Groups,
		SecurityGroup{ID: "sg-web", VPC: "vpc-a", Egress: everything},
		SecurityGroup{ID: "sg-db", VPC: "vpc-a", Ingress: []Rule{{Protocol: 6, From: 5432, To: 5433, Groups: []string{"sg-web"}}}})
	l.add("eni-db", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-db")
	l.add("eni-web", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-web")
	l.add("eni-other", "vpc-a", "subnet-a1", "10.0.0.12", "", "sg-open")
	l.set()
	l.serve("eni-db", 5433)
	l.serve("eni-db", 5434)
	l.reaches("eni-web", "10.0.0.10:5433", "")
	l.misses("eni-web", "10.0.0.10:5434")
	l.misses("eni-other", "10.0.0.10:5433")

	// Membership is what counts, and it changes while everything runs.
	l.cfg.ENIs[2].Groups = []string{"sg-open", "sg-web"}
	l.cfg.ENIs[1].Groups = []string{"sg-open"}
	l.set()
	l.reaches("eni-other", "10.0.0.10:5433", "")
	l.misses("eni-web", "10.0.0.10:5433")

	// So do rules.
	l.cfg.Groups[3].Ingress = []Rule{{Protocol: 6, From: 5434, To: 5434, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.11/32"), netip.MustParsePrefix("10.0.0.0/30")}}}
	l.set()
	l.reaches("eni-web", "10.0.0.10:5434", "")
	l.misses("eni-other", "10.0.0.10:5433")
}

func TestEgress(t *testing.T) {
	l := newLab(t)
	l.cfg.Groups = append(l.cfg.Groups,
		SecurityGroup{ID: "sg-to-a2", VPC: "vpc-a", Egress: []Rule{{Protocol: 6, From: 80, To: 80, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}}}})
	l.add("eni-from", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-to-a2")
	l.add("eni-yes", "vpc-a", "subnet-a2", "10.0.1.10", "", "sg-open")
	l.add("eni-no", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
	l.set()
	l.serve("eni-yes", 80)
	l.serve("eni-yes", 81)
	l.serve("eni-no", 80)
	l.reaches("eni-from", "10.0.1.10:80", "")
	l.misses("eni-from", "10.0.1.10:81")
	l.misses("eni-from", "10.0.0.11:80")
}

func TestEstablishedSurvivesRuleRemoval(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
	l.set()
	l.serve("eni-1", 80)
	c, _, err := l.dial("eni-2", "10.0.0.10:80", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.cfg.Groups[0].Ingress = nil
	l.set()
	l.misses("eni-2", "10.0.0.10:80")
	if err := echo(c, patience); err != nil {
		t.Errorf("tracked connection: %v", err)
	}
}

func TestSpoofedSource(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
	l.set()
	got, err := l.packetIn("eni-1", "0.0.0.0:9")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	send := func(source, text string) {
		t.Helper()
		err := l.in("eni-2", func() error {
			if out, err := exec.Command("ip", "addr", "replace", source+"/32", "dev", "lo").CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(source)}, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 10), Port: 9})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte(text))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// A link keeps the order, so whatever comes first tells what became of what was sent before.
	next := func() string {
		b := make([]byte, 64)
		got.SetReadDeadline(time.Now().Add(patience))
		n, _, err := got.ReadFrom(b)
		if err != nil {
			return err.Error()
		}
		return string(b[:n])
	}
	send("10.0.0.77", "spoofed")
	send("10.0.0.11", "honest")
	if s := next(); s != "honest" {
		t.Errorf("with the check on the first packet is %q", s)
	}
	// The wrong MAC under the right address.
	if err := l.in("eni-2", func() error {
		return exec.Command("ip", "link", "set", "eth0", "address", "02:de:ad:00:00:01").Run()
	}); err != nil {
		t.Fatal(err)
	}
	send("10.0.0.11", "masked")
	if err := l.in("eni-2", func() error {
		return exec.Command("ip", "link", "set", "eth0", "address", l.cfg.ENIs[1].MAC.String()).Run()
	}); err != nil {
		t.Fatal(err)
	}
	send("10.0.0.11", "unmasked")
	if s := next(); s != "unmasked" {
		t.Errorf("after a packet with another MAC the first is %q", s)
	}
	l.cfg.ENIs[1].SourceDestCheck = false
	l.set()
	send("10.0.0.77", "router")
	if s := next(); s != "router" {
		t.Errorf("with the check off the first packet is %q", s)
	}
}

func (l *lab) packetIn(id, addr string) (c net.PacketConn, err error) {
	err = l.in(id, func() (err error) {
		c, err = net.ListenPacket("udp4", addr)
		return err
	})
	return c, err
}

func TestPublicAddresses(t *testing.T) {
	l := newLab(t)
	l.cfg.VPCs = append(l.cfg.VPCs, VPC{
		ID: "vpc-b", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, // the same
		Subnets:     []Subnet{{ID: "subnet-b1", CIDR: netip.MustParsePrefix("10.0.0.0/24"), RouteTable: "rtb-b"}},
		RouteTables: []RouteTable{{ID: "rtb-b", Routes: []Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Target: InternetGateway}}}},
	})
	l.cfg.Groups = append(l.cfg.Groups, open("sg-open-b", "vpc-b"))
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "198.18.0.11", "sg-open")
	l.add("eni-3", "vpc-a", "subnet-a1", "10.0.0.12", "", "sg-open")
	l.add("eni-4", "vpc-a", "subnet-a1", "10.0.0.13", "198.18.0.13", "sg-shut")
	l.add("eni-5", "vpc-a", "subnet-a3", "10.0.2.10", "198.18.0.14", "sg-open") // its table has no gateway
	l.add("eni-6", "vpc-b", "subnet-b1", "10.0.0.10", "198.18.0.20", "sg-open-b")
	l.set()
	for _, id := range []string{"eni-1", "eni-4", "eni-5", "eni-6"} {
		l.serve(id, 80)
	}
	l.serve("", 80)

	l.reaches("", "198.18.0.10:80", "198.18.0.0")       // this machine
	l.misses("", "198.18.0.13:80")                      // the group holds for it too
	l.misses("", "198.18.0.14:80")                      // no way back
	l.reaches("eni-2", "198.18.0.10:80", "198.18.0.11") // a peer in the VPC
	l.reaches("eni-1", "198.18.0.10:80", "198.18.0.10") // itself
	l.reaches("eni-6", "198.18.0.10:80", "198.18.0.20") // a peer in another VPC
	l.reaches("eni-1", "198.18.0.20:80", "198.18.0.10") // and back
	l.reaches("eni-1", "198.18.0.0:80", "198.18.0.10")  // the machine from inside
	l.misses("eni-3", "198.18.0.10:80")                 // no public address, no way out
	l.misses("eni-3", "198.18.0.0:80")
	l.misses("eni-5", "198.18.0.10:80") // no route to the gateway

	// Equal CIDRs do not mix: 10.0.0.10 is eni-1 for one and eni-6 for the other, and 10.0.0.11 is nobody in vpc-b.
	l.serve("eni-2", 81)
	l.reaches("eni-1", "10.0.0.11:81", "10.0.0.10")
	c, _, err := l.dial("eni-6", "10.0.0.11:81", impatience)
	if err == nil {
		c.Close()
		t.Error("eni-6 reached an address of another VPC")
	}

	// An address that moves is its new owner's at once.
	l.cfg.ENIs[0].Public, l.cfg.ENIs[2].Public = netip.Addr{}, l.cfg.ENIs[0].Public
	l.serve("eni-3", 80)
	l.set()
	l.reaches("", "198.18.0.10:80", "")
	l.reaches("eni-3", "198.18.0.0:80", "198.18.0.10")
	l.misses("eni-1", "198.18.0.0:80")
}

// TestBeyondTheMachine has a neighbour on the machine's own network and a Docker-like firewall.
func TestBeyondTheMachine(t *testing.T) {
	l := newLab(t)
	out, err := exec.Command("sh", "-ec", `
		ip netns add far 2>/dev/null || { mkdir -p /run/netns; ip netns add far; }
		ip link add lan type veth peer name eth0 netns far
		ip addr add 203.0.113.1/24 dev lan
		ip link set lan up
		ip -n far addr add 203.0.113.2/24 dev eth0
		ip -n far link set eth0 up
		ip -n far link set lo up
		iptables-nft -P FORWARD DROP
		iptables-nft -N DOCKER-USER
		iptables-nft -A FORWARD -j DOCKER-USER
	`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("sh", "-ec", `ip link del lan; ip netns del far; iptables-nft -F; iptables-nft -X; iptables-nft -P FORWARD ACCEPT`).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
	l.add("eni-3", "vpc-a", "subnet-a1", "10.0.0.12", "198.18.0.12", "sg-open")
	l.set()
	var ln net.Listener
	ns, err := os.Open("/run/netns/far")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := on(ns, func() (err error) { ln, err = net.Listen("tcp4", "0.0.0.0:80"); return err }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s\n", c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	})
	defer wg.Wait()
	defer ln.Close()
	l.reaches("eni-1", "203.0.113.2:80", "203.0.113.1") // masqueraded
	l.misses("eni-2", "203.0.113.2:80")
	l.serve("eni-3", 80)
	l.reaches("eni-1", "198.18.0.12:80", "198.18.0.10") // not masqueraded between public addresses

	// The firewall is started anew while we run.
	if out, err := exec.Command("sh", "-ec", `iptables-nft -F DOCKER-USER; iptables-nft -F FORWARD; iptables-nft -X DOCKER-USER`).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.misses("eni-1", "203.0.113.2:80")
	l.set()
	l.reaches("eni-1", "203.0.113.2:80", "203.0.113.1")
}

func TestProxyARP(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
	l.set()
	// Send something to each address; the kernel's neighbour table then says who answered.
	ask := []string{"10.0.0.1", "10.0.0.2", "10.0.0.11", "10.0.0.99", "10.0.0.3"}
	err := l.in("eni-1", func() error {
		for _, a := range ask {
			c, err := net.Dial("udp4", a+":9")
			if err != nil {
				return err
			}
			_, err = c.Write([]byte("x"))
			c.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for {
		var out []byte
		err := l.in("eni-1", func() (err error) {
			out, err = exec.Command("ip", "-4", "neigh", "show", "dev", "eth0").CombinedOutput()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		state := map[string]string{}
		for line := range strings.Lines(string(out)) {
			w := strings.Fields(line)
			state[w[0]] = w[len(w)-1]
		}
		if slices.Contains([]string{state["10.0.0.99"], state["10.0.0.3"]}, "INCOMPLETE") && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond) // the kernel asks three times before it gives up
			continue
		}
		for i, a := range ask {
			answered := strings.Contains(string(out), a+" lladdr "+routerMAC.String())
			if answered != (i < 3) {
				t.Errorf("ARP for %s answered: %v\n%s", a, answered, out)
			}
		}
		return
	}
}

func TestResolverIsNotFiltered(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a2", "10.0.1.10", "", "sg-shut")
	l.set()
	for _, a := range []string{"10.0.0.2", "169.254.169.253"} {
		pc, err := l.e.ListenPacketIn("vpc-a", "udp4", a+":53")
		if err != nil {
			t.Fatal(err)
		}
		ln, err := l.e.ListenIn("vpc-a", "tcp4", a+":53")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			b := make([]byte, 16)
			if n, from, err := pc.ReadFrom(b); err == nil {
				pc.WriteTo(b[:n], from)
			}
		})
		wg.Go(func() {
			if c, err := ln.Accept(); err == nil {
				fmt.Fprintf(c, "ok\n")
				c.Close()
			}
		})
		l.reaches("eni-1", a+":53", "ok")
		var c net.Conn
		if err := l.in("eni-1", func() (err error) { c, err = net.Dial("udp4", a+":53"); return err }); err != nil {
			t.Fatal(err)
		}
		if err := echo(c, patience); err != nil {
			t.Errorf("udp %s: %v", a, err)
		}
		c.Close()
		pc.Close()
		ln.Close()
		wg.Wait()
		l.misses("eni-1", a+":54")
	}
}

// TestAdopt restarts the engine under a connection, then with something changed meanwhile.
func TestAdopt(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
	l.add("eni-3", "vpc-a", "subnet-a1", "10.0.0.12", "198.18.0.12", "sg-open")
	l.set()
	l.serve("eni-1", 80)
	inside, _, err := l.dial("eni-2", "10.0.0.10:80", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	outside, _, err := l.dial("", "198.18.0.10:80", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	before := l.index("eni-1")

	l.e.Close()
	l.remove("eni-3")
	l.add("eni-4", "vpc-a", "subnet-a1", "10.0.0.12", "198.18.0.12", "sg-open") // with the address of one that went
	l.open()
	for _, c := range []net.Conn{inside, outside} {
		if err := echo(c, patience); err != nil {
			t.Errorf("after Open: %v", err)
		}
	}
	l.set()
	for _, c := range []net.Conn{inside, outside} {
		if err := echo(c, patience); err != nil {
			t.Errorf("after Set: %v", err)
		}
	}
	if after := l.index("eni-1"); after != before {
		t.Errorf("eni-1's link was made anew: index %d, then %d", before, after)
	}
	if exists(l.opts.NetnsPath("eni-3")) || exists(l.opts.ReadyPath("eni-3")) {
		t.Error("eni-3 is still there")
	}
	l.serve("eni-4", 80)
	l.reaches("eni-2", "10.0.0.12:80", "")
	l.reaches("", "198.18.0.12:80", "")
	if l.set() {
		t.Error("the Set after the adoption changed something")
	}
}

func (l *lab) index(id string) (index int) {
	l.t.Helper()
	if err := l.in(id, func() error {
		i, err := net.InterfaceByName("eth0")
		if err == nil {
			index = i.Index
		}
		return err
	}); err != nil {
		l.t.Fatal(err)
	}
	return index
}

// TestHalfDone leaves what a process killed between two steps leaves, for each step.
func TestHalfDone(t *testing.T) {
	for name, damage := range map[string]string{
		"no marker":           `rm $RUN/eni-1.ready`,
		"no namespace":        `rm $RUN/eni-1.ready; umount $RUN/eni-1`,
		"no mount point":      `umount $RUN/eni-1; rm $RUN/eni-1`,
		"no link":             `nsenter --net=$RUN/vpc-a ip link del $LINK`,
		"link down":           `nsenter --net=$RUN/vpc-a ip link set $LINK down`,
		"no address":          `nsenter --net=$RUN/eni-1 ip addr flush dev eth0`,
		"other address":       `nsenter --net=$RUN/eni-1 ip addr add 10.0.0.99/24 dev eth0; nsenter --net=$RUN/eni-1 ip addr del 10.0.0.10/24 dev eth0`,
		"inner down":          `nsenter --net=$RUN/eni-1 ip link set eth0 down`,
		"retired":             `nsenter --net=$RUN/vpc-a ip link set $LINK group 57005`,
		"no ruleset":          `nsenter --net=$RUN/vpc-a nft delete table ip berth`,
		"no routes":           `nsenter --net=$RUN/vpc-a ip route flush table 100`,
		"no rules":            `nsenter --net=$RUN/vpc-a ip rule del priority 100`,
		"no uplink":           `nsenter --net=$RUN/vpc-a ip link del uplink`,
		"no machine's routes": `ip route flush proto 190`,
		"no machine's table":  `nft delete table ip berth-7e57`,
		"no VPC":              `umount $RUN/vpc-a`,
		"rebooted":            `umount $RUN/*; ip link del $UPLINK || true; nft delete table ip berth-7e57; ip route flush proto 190`,
		"a stranger":          `touch $RUN/eni-9 $RUN/eni-9.ready; nsenter --net=$RUN/vpc-a ip link add e9 type veth peer name e8`,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-open")
			l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
			l.set()
			l.e.Close()
			cmd := exec.Command("sh", "-c", damage)
			cmd.Env = append(os.Environ(), "RUN="+l.opts.NetnsDir(), "LINK="+linkName("eni-1"), "UPLINK="+uplinkName("7e57", "vpc-a"))
			if out, err := cmd.CombinedOutput(); err != nil && name != "rebooted" {
				t.Fatalf("%v: %s", err, out)
			}
			l.open()
			l.set()
			l.serve("eni-1", 80)
			l.reaches("eni-2", "10.0.0.10:80", "10.0.0.11")
			l.reaches("", "198.18.0.10:80", "")
			if !exists(l.opts.ReadyPath("eni-1")) {
				t.Error("no marker")
			}
			if exists(l.opts.NetnsPath("eni-9")) || exists(l.opts.ReadyPath("eni-9")) {
				t.Error("the stranger is still there")
			}
			if l.set() {
				t.Error("the next Set changed something")
			}
		})
	}
}

// TestAddressReuse gives an address to the next ENI in the same Set; flows of the first owner must be strangers to it.
func TestAddressReuse(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
	l.set()
	from, err := l.packetIn("eni-2", "10.0.0.11:5000")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 10), Port: 9}
	hear := func(id, want string, wait time.Duration) {
		t.Helper()
		got, err := l.packetIn(id, "0.0.0.0:9")
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		if _, err := from.WriteTo([]byte("flow"), to); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 16)
		got.SetReadDeadline(time.Now().Add(wait))
		n, _, err := got.ReadFrom(b)
		if string(b[:n]) != want {
			t.Errorf("%s heard %q (%v), want %q", id, b[:n], err, want)
		}
	}
	hear("eni-1", "flow", patience)
	l.remove("eni-1")
	l.add("eni-3", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-shut")
	l.set()
	hear("eni-3", "", impatience)
	l.cfg.ENIs[1].Groups = []string{"sg-open"}
	l.set()
	hear("eni-3", "flow", patience)
}

// TestOneFails: an ENI that cannot be attached does not keep others from it.
func TestOneFails(t *testing.T) {
	l := newLab(t)
	seen := map[string]error{}
	var mu sync.Mutex
	l.e.Close()
	l.opts.OnAttached = func(id string, err error) { mu.Lock(); seen[id] = err; mu.Unlock() }
	l.open()
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-3", "vpc-a", "subnet-a1", "10.0.0.12", "", "sg-missing")
	l.add("eni-4", "vpc-a", "subnet-a1", "10.0.1.12", "", "sg-open")
	l.add("eni-5", "vpc-a", "subnet-a1", "10.0.0.1", "", "sg-open")
	l.add("eni-6", "vpc-a", "subnet-a1", "10.0.0.14", "198.18.0.0", "sg-open")
	l.add("eni-7", "vpc-a", "subnet-a1", "10.0.0.15", "", "sg-open")
	if err := os.Mkdir(l.opts.NetnsPath("eni-7"), 0o755); err != nil { // in the way
		t.Fatal(err)
	}
	if _, err := l.e.Set(context.Background(), l.cfg); err == nil {
		t.Fatal("no error")
	}
	for i := 1; i <= 7; i++ {
		id := fmt.Sprintf("eni-%d", i)
		s := l.e.Status()[id]
		if good := i == 1; s.Ready != good || (s.Err == nil) != good || exists(l.opts.ReadyPath(id)) != good || (seen[id] == nil) != good {
			t.Errorf("%s: %+v, told %v", id, s, seen[id])
		}
	}
	os.Remove(l.opts.NetnsPath("eni-7"))
	for _, id := range []string{"eni-2", "eni-3", "eni-4", "eni-5", "eni-6"} {
		l.remove(id)
	}
	l.set()
	if s := l.e.Status(); len(s) != 2 || !s["eni-7"].Ready {
		t.Errorf("%+v", s)
	}
}

// machine is everything of the kernel that the engine may touch, as text.
func machine(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `ip -o link | sed 's/^[0-9]*: //'; ip -o addr | sed 's/^[0-9]*: //'; ip route show table all; ip rule; ip neigh; nft list ruleset; cat /proc/self/mountinfo | grep nsfs; iptables-nft -S`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// What Go or the kernel sets up lazily on its own.
	return string(bytes.ReplaceAll(out, []byte("# Warning: iptables-legacy tables present, use iptables-legacy to see them\n"), nil))
}

// TestNothingLeft attaches and detaches fifty times, with and without a restart, and looks for traces.
func TestNothingLeft(t *testing.T) {
	clean := machine(t)
	l := newLab(t)
	l.set()
	l.e.Close()
	l.open()
	l.set()
	empty, fds := machine(t), openFiles(t)
	fabric := func() string {
		var out []byte
		err := l.in("vpc-a", func() (err error) {
			out, err = exec.Command("sh", "-c", `ip -o link | sed 's/^[0-9]*: //'; ip route show table all; ip neigh; nft list ruleset`).CombinedOutput()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	vpc := fabric()
	for i := range 50 {
		id := fmt.Sprintf("eni-%d", i)
		l.add(id, "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-open")
		l.set()
		if i%10 == 0 {
			l.serve(id, 80)
			l.reaches("", "198.18.0.10:80", "")
		}
		l.remove(id)
		l.set()
	}
	l.e.fabrics["vpc-a"].sweeps.Wait()
	if now := machine(t); now != empty {
		t.Errorf("the machine was\n%s\nand is\n%s", empty, now)
	}
	if now := fabric(); now != vpc {
		t.Errorf("the VPC was\n%s\nand is\n%s", vpc, now)
	}
	if now := openFiles(t); now > fds+25 { // this test's own listeners; a leak would be fifty at least
		t.Errorf("%d files open, before %d", now, fds)
	}
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-open")
	l.set()
	// A process that holds the namespace must not keep the link alive.
	held, err := openNetns(l.opts.NetnsPath("eni-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	l.e.Close()
	if err := CleanUp(context.Background(), l.opts); err != nil {
		t.Fatal(err)
	}
	if now := machine(t); now != clean {
		t.Errorf("the machine was\n%s\nand is after CleanUp\n%s", clean, now)
	}
	if err := on(held, func() error { _, err := net.InterfaceByName("eth0"); return err }); err == nil {
		t.Error("eth0 outlived CleanUp")
	}
	if _, err := os.Stat(l.opts.NetnsDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", l.opts.NetnsDir(), err)
	}
}

func openFiles(t *testing.T) int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// TestTwoRegions share the machine and even the pool; the end of one is nothing to the other.
func TestTwoRegions(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-open")
	l.set()
	l.serve("eni-1", 80)
	other := *l
	other.opts.Region, other.opts.RunDir = "7e57a", t.TempDir()
	other.cfg.ENIs = nil
	other.open()
	other.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.11", "sg-open")
	other.set()
	other.serve("eni-1", 80)
	l.reaches("", "198.18.0.10:80", "")
	l.reaches("", "198.18.0.11:80", "")
	other.e.Close()
	if err := CleanUp(context.Background(), other.opts); err != nil {
		t.Fatal(err)
	}
	l.reaches("", "198.18.0.10:80", "")
	var fs unix.Statfs_t
	if err := unix.Statfs(l.opts.NetnsPath("eni-1"), &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		t.Errorf("namespace: %v %x", err, fs.Type)
	}
}
