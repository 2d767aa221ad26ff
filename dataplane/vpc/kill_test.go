package vpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

const churnIn = "BERTH_VPC_TEST_CHURN"

// churn is the life of a node process that never comes to rest: it attaches, changes and detaches until it is killed.
func churn(dir string) {
	l := &lab{opts: labOptions(dir), cfg: labConfig()}
	e, err := Open(l.opts)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	keepers(l)
	steady := l.cfg
	for {
		l.cfg = steady
		l.cfg.ENIs = slices.Clone(steady.ENIs)
		for i := range rand.IntN(4) {
			public := ""
			if rand.IntN(2) == 0 {
				public = fmt.Sprintf("198.18.0.%d", 30+i)
			}
			l.add(fmt.Sprintf("eni-churn-%d-%d", i, rand.IntN(1000)), "vpc-a", "subnet-a2", fmt.Sprintf("10.0.1.%d", 30+i), public, "sg-open")
		}
		l.cfg.VPCs = slices.Clone(steady.VPCs)
		a := &l.cfg.VPCs[0]
		if rand.IntN(3) == 0 {
			// Another VPC, with IPv6, a NAT gateway and an endpoint, joined to the first.
			v := second("vpc-churn", "10.1.0.0/16")
			v.CIDRs = append(v.CIDRs, prefix("2001:db8:0:200::/56"))
			v.Subnets[0].IPv6 = prefix("2001:db8:0:200::/64")
			v.Peers = []Peer{{ID: "pcx-churn", VPC: "vpc-a", CIDRs: a.CIDRs}}
			v.RouteTables[0].Routes = []Route{{Destination: prefix("0.0.0.0/0"), Target: Interface, TargetID: "eni-churn-nat"}, {Destination: prefix("::/0"), Target: InternetGateway}}
			a.Peers = []Peer{{ID: "pcx-churn", VPC: v.ID, CIDRs: v.CIDRs}}
			l.cfg.VPCs = append(l.cfg.VPCs, v)
			l.add("eni-churn-nat", v.ID, "subnet-churn", "10.1.0.10", "198.18.0.40")
			l.add("eni-churn-api", v.ID, "subnet-churn", "10.1.0.11", "")
			l.cfg.ENIs[len(l.cfg.ENIs)-2].Serves, l.cfg.ENIs[len(l.cfg.ENIs)-1].Serves = ServesNAT, ServesAPI
			l.add("eni-churn-six", v.ID, "subnet-churn", "10.1.0.12", "")
			l.cfg.ENIs[len(l.cfg.ENIs)-1].IPv6 = []netip.Addr{netip.MustParseAddr("2001:db8:0:200::12")}
		}
		if rand.IntN(2) == 0 {
			// A second device, and secondary addresses, of what others talk to.
			l.add("eni-churn-device", "vpc-a", "subnet-a2", "10.0.1.99", "", "sg-open")
			l.cfg.ENIs[len(l.cfg.ENIs)-1].In, l.cfg.ENIs[len(l.cfg.ENIs)-1].Device = "eni-1", 1
			l.cfg.ENIs[0].Secondary = []Address{{Private: netip.MustParseAddr("10.0.0.99")}}
		}
		if rand.IntN(2) == 0 {
			l.cfg.ENIs[1].FlowLog = true
			a.Subnets = slices.Clone(a.Subnets)
			a.Subnets[1].ACL, a.ACLs = "acl-churn", []NetworkACL{{ID: "acl-churn"}}
		}
		if rand.IntN(3) == 0 {
			l.cfg.Groups = append(slices.Clone(steady.Groups), open(fmt.Sprintf("sg-churn-%d", rand.IntN(3)), "vpc-a"))
		}
		if _, err := e.Set(context.Background(), l.cfg); err != nil {
			fmt.Println(err)
		}
	}
}

func keepers(l *lab) {
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "198.18.0.10", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
}

// TestKilled kills a busy engine at random and lets the next one carry on, under connections that must not notice.
func TestKilled(t *testing.T) {
	l := newLab(t)
	keepers(l)
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
	link := l.index("eni-1")
	for round := range 12 {
		l.e.Close()
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), churnIn+"="+l.opts.RunDir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := make([]byte, 4096)
		n, _ := out.Read(said)
		if s := string(said[:n]); s != "open\n" {
			t.Fatalf("churn says %q", s)
		}
		// Not a wait for anything: the moment of death is what is drawn.
		time.Sleep(rand.N(120 * time.Millisecond))
		cmd.Process.Kill()
		n, _ = out.Read(said)
		if n > 0 {
			t.Errorf("round %d: churn says %s", round, said[:n])
		}
		cmd.Wait()

		l.open()
		l.set()
		for _, c := range []net.Conn{inside, outside} {
			if err := echo(c, patience); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		l.reaches("", "198.18.0.10:80", "")
		if now := l.index("eni-1"); now != link {
			t.Fatalf("round %d: eni-1 has link %d, had %d", round, now, link)
		}
	}
	l.e.fabrics["vpc-a"].sweeps.Wait()
	entries, err := os.ReadDir(l.opts.NetnsDir())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range entries {
		names = append(names, d.Name())
	}
	if want := []string{"eni-1", "eni-1.ready", "eni-2", "eni-2.ready", "vpc-a"}; !slices.Equal(names, want) {
		t.Errorf("namespaces and markers %q, want %q", names, want)
	}
	if out := l.run("eni-1", "ip -o link; ip -o addr"); strings.Contains(out, "eth1") || strings.Contains(out, "10.0.0.99") {
		t.Errorf("in eni-1: %s", out)
	}
	if out := l.run("vpc-a", "nft list ruleset; ip route show table all"); strings.Contains(out, "churn") || strings.Contains(out, "logged") || strings.Contains(out, "10.0.1.99") {
		t.Errorf("in vpc-a: %s", out)
	}
	err = l.in("vpc-a", func() error {
		links, err := net.Interfaces()
		for _, i := range links {
			if !slices.Contains([]string{"lo", "uplink", linkName("eni-1"), linkName("eni-2")}, i.Name) && (strings.HasPrefix(i.Name, "e") || strings.HasPrefix(i.Name, peerPrefix)) {
				t.Errorf("link %s is left", i.Name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if routes, err := hostRoutes(l.e.host.nl, l.opts.Region); err != nil || len(routes) != 1 {
		t.Errorf("public routes %v (%v)", routes, err)
	}
}
