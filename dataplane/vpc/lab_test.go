package vpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Impatience is how long a packet that must not arrive is waited for, patience how long one that must may take. Nothing
// is measured with them.
const (
	impatience = 300 * time.Millisecond
	patience   = 10 * time.Second
)

// A lab is an engine and a machine for it.
type lab struct {
	t    *testing.T
	opts Options
	e    *Engine
	cfg  Config
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, opts: labOptions(t.TempDir()), cfg: labConfig()}
	l.opts.Log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	l.open()
	t.Cleanup(func() {
		l.e.Close()
		if err := CleanUp(context.Background(), l.opts); err != nil {
			t.Errorf("CleanUp: %v", err)
		}
	})
	return l
}

func labOptions(dir string) Options {
	return Options{Region: "7e57", RunDir: dir, PublicPool: netip.MustParsePrefix("198.18.0.0/24"), APIPort: 4701}
}

func labConfig() Config {
	return Config{VPCs: []VPC{vpcA()}, Groups: []SecurityGroup{open("sg-open", "vpc-a"), {ID: "sg-shut", VPC: "vpc-a"}}}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) { w.t.Logf("%s", p); return len(p), nil }

func (l *lab) open() {
	l.t.Helper()
	e, err := Open(l.opts)
	if err != nil {
		l.t.Fatal(err)
	}
	l.e = e
}

func (l *lab) set() bool {
	l.t.Helper()
	changed, err := l.e.Set(context.Background(), l.cfg)
	if err != nil {
		l.t.Fatalf("Set: %v", err)
	}
	return changed
}

func vpcA() VPC {
	return VPC{
		ID: "vpc-a", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
		Subnets: []Subnet{
			{ID: "subnet-a1", CIDR: netip.MustParsePrefix("10.0.0.0/24"), RouteTable: "rtb-a"},
			{ID: "subnet-a2", CIDR: netip.MustParsePrefix("10.0.1.0/24"), RouteTable: "rtb-a"},
			{ID: "subnet-a3", CIDR: netip.MustParsePrefix("10.0.2.0/24"), RouteTable: "rtb-private"},
		},
		RouteTables: []RouteTable{
			{ID: "rtb-a", Routes: []Route{
				{Destination: netip.MustParsePrefix("10.0.0.0/16"), Target: Local},
				{Destination: netip.MustParsePrefix("0.0.0.0/0"), Target: InternetGateway, TargetID: "igw-a"},
			}},
			{ID: "rtb-private", Routes: []Route{{Destination: netip.MustParsePrefix("10.0.0.0/16"), Target: Local}}},
		},
	}
}

var everything = []Rule{{Protocol: -1, From: -1, To: -1, CIDRs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}

func open(id, vpc string) SecurityGroup {
	return SecurityGroup{ID: id, VPC: vpc, Ingress: everything, Egress: everything}
}

// add puts an ENI into the configuration; its MAC follows from its address.
func (l *lab) add(id, vpc, subnet, addr, public string, groups ...string) {
	a := netip.MustParseAddr(addr)
	n := ENI{ID: id, VPC: vpc, Subnet: subnet, Address: a, Groups: groups, SourceDestCheck: true,
		MAC: append(net.HardwareAddr{0x02, 0x01}, a.AsSlice()...)}
	if public != "" {
		n.Public = netip.MustParseAddr(public)
	}
	l.cfg.ENIs = append(l.cfg.ENIs, n)
}

func (l *lab) remove(id string) {
	var rest []ENI
	for _, n := range l.cfg.ENIs {
		if n.ID != id {
			rest = append(rest, n)
		}
	}
	l.cfg.ENIs = rest
}

// in runs f inside the namespace of an ENI or VPC; "" is the machine.
func (l *lab) in(id string, f func() error) error {
	if id == "" {
		return f()
	}
	ns, err := openNetns(l.opts.NetnsPath(id))
	if err != nil {
		return err
	}
	defer ns.Close()
	return on(ns, f)
}

// serve answers TCP connections inside an ENI: every line comes back with the peer's address.
func (l *lab) serve(id string, port int) net.Listener {
	l.t.Helper()
	var ln net.Listener
	err := l.in(id, func() (err error) {
		// Both families where there are two.
		ln, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		l.t.Fatalf("listen in %s: %v", id, err)
	}
	done := make(chan struct{})
	var conns []net.Conn
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
			go func() {
				fmt.Fprintf(c, "%s\n", c.RemoteAddr().(*net.TCPAddr).IP)
				io.Copy(c, c)
			}()
		}
	}()
	l.t.Cleanup(func() {
		ln.Close()
		<-done
		for _, c := range conns {
			c.Close()
		}
	})
	return ln
}

// dial connects from inside an ENI.
func (l *lab) dial(id, addr string, wait time.Duration) (net.Conn, string, error) {
	var c net.Conn
	err := l.in(id, func() error {
		// A resolver or a happy-eyeballs goroutine would leave the namespace: plain addresses only.
		d := net.Dialer{Timeout: wait, FallbackDelay: -1}
		var err error
		c, err = d.Dial("tcp", addr)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	line := make([]byte, 64)
	c.SetDeadline(time.Now().Add(patience))
	n, err := c.Read(line)
	if err != nil {
		c.Close()
		return nil, "", err
	}
	return c, string(line[:max(n-1, 0)]), nil
}

// reaches demands a connection and, unless "", what the server saw as the client's address.
func (l *lab) reaches(from, addr, as string) {
	l.t.Helper()
	c, seen, err := l.dial(from, addr, patience)
	if err != nil {
		l.t.Errorf("%q to %s: %v", from, addr, err)
		return
	}
	c.Close()
	if as != "" && seen != as {
		l.t.Errorf("%q to %s: seen as %s, want %s", from, addr, seen, as)
	}
}

// misses demands that a connection does not come about, and by silence: no reset, no ICMP error.
func (l *lab) misses(from, addr string) {
	l.t.Helper()
	c, _, err := l.dial(from, addr, impatience)
	if err == nil {
		c.Close()
		l.t.Errorf("%q to %s: connected", from, addr)
	} else if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
		l.t.Errorf("%q to %s: %v, want silence", from, addr, err)
	}
}

// echo says whether an established connection still carries bytes.
func echo(c net.Conn, wait time.Duration) error {
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// forgetAll empties the connection tracking of the thread's namespace.
func forgetAll() error {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	return h.ConntrackTableFlush(netlink.ConntrackTable)
}
