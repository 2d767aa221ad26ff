package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Impatience is how long a packet that must not arrive is waited for, patience
// how long one that must may take. Nothing is measured with them.
const (
	impatience = 300 * time.Millisecond
	patience   = 10 * time.Second
)

// A lab is an instance with a container network, and a peer that the instance
// reaches by an ordinary interface.
type lab struct {
	t        *testing.T
	opts     Options
	n        *Network
	instance *os.File
	peer     *os.File
}

var (
	instanceAddress = netip.MustParsePrefix("10.0.0.5/24")
	peerAddress     = netip.MustParsePrefix("10.0.0.9/24")
)

func newLab(t *testing.T, more func(*Options)) *lab {
	t.Helper()
	dir := t.TempDir()
	l := &lab{t: t}
	for _, ns := range []struct {
		name string
		to   **os.File
	}{{"instance", &l.instance}, {"peer", &l.peer}} {
		path := filepath.Join(dir, ns.name)
		f, err := makeNetns(path)
		if err != nil {
			t.Fatal(err)
		}
		*ns.to = f
		t.Cleanup(func() { f.Close(); _ = dropNetns(path) })
	}
	inside(t, l.instance, func() error {
		la := netlink.NewLinkAttrs()
		la.Name = "eth0"
		veth := netlink.NewVeth(la)
		veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(l.peer.Fd())
		return errors.Join(netlink.LinkAdd(veth), up("lo"), address("eth0", instanceAddress), up("eth0"))
	})
	inside(t, l.peer, func() error {
		return errors.Join(up("lo"), address("eth0", peerAddress), up("eth0"),
			// The peer may try to reach containers directly.
			netlink.RouteAdd(&netlink.Route{Dst: ipNet(containers), Gw: instanceAddress.Addr().AsSlice()}),
			netlink.RouteAdd(&netlink.Route{Dst: ipNet(agents), Gw: instanceAddress.Addr().AsSlice()}))
	})
	l.opts = Options{NetNS: filepath.Join(dir, "instance"), Dir: filepath.Join(dir, "run"), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if more != nil {
		more(&l.opts)
	}
	l.open()
	t.Cleanup(func() {
		for _, e := range l.n.Endpoints() {
			if err := l.n.Disconnect(e.ID); err != nil {
				t.Error(err)
			}
		}
		l.n.Close()
	})
	return l
}

func (l *lab) open() {
	l.t.Helper()
	n, err := Open(l.opts)
	if err != nil {
		l.t.Fatal(err)
	}
	l.n = n
}

func (l *lab) connect(id string, ports ...Port) *Endpoint {
	l.t.Helper()
	e, err := l.n.Connect(id, ports)
	if err != nil {
		l.t.Fatal(err)
	}
	return e
}

func inside(t *testing.T, ns *os.File, f func() error) {
	t.Helper()
	if err := in(ns, f); err != nil {
		t.Fatal(err)
	}
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

func address(name string, p netip.Prefix) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(p)})
}

// serve answers every connection in a namespace with name and the client's
// address.
func serve(t *testing.T, netns, address, name string) {
	t.Helper()
	ns, err := os.Open(netns)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var l net.Listener
	inside(t, ns, func() (err error) { l, err = net.Listen("tcp4", address); return err })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "%s %s", name, host)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// ask connects from a namespace and answers what is said there.
func ask(t *testing.T, netns, address string, wait time.Duration) (string, error) {
	t.Helper()
	type result struct {
		said string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		said, err := func() (string, error) {
			ns, err := os.Open(netns)
			if err != nil {
				return "", err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return "", err
			}
			ctx, cancel := context.WithTimeout(context.Background(), wait)
			defer cancel()
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp4", address)
			if err != nil {
				return "", err
			}
			defer c.Close()
			b, err := io.ReadAll(c)
			return string(b), err
		}()
		done <- result{said, err}
	}()
	r := <-done
	return r.said, r.err
}

func (l *lab) reach(netns, address, want string) {
	l.t.Helper()
	if got, err := ask(l.t, netns, address, patience); err != nil || !strings.HasPrefix(got, want) {
		l.t.Errorf("%s from %s: %q, %v; want %q", address, filepath.Base(netns), got, err, want)
	}
}

func (l *lab) refuse(netns, address string) {
	l.t.Helper()
	if got, err := ask(l.t, netns, address, impatience); err == nil {
		l.t.Errorf("%s from %s answered %q", address, filepath.Base(netns), got)
	}
}

func (l *lab) netns(f *os.File) string { return f.Name() }

func TestPublishedPorts(t *testing.T) {
	l := newLab(t, nil)
	a := l.connect("a", Port{Protocol: "tcp", Container: 80, Host: 8080}, Port{Protocol: "tcp", Container: 80})
	b := l.connect("b", Port{Protocol: "tcp", Container: 80})
	if want := netip.MustParseAddr("172.17.0.2"); a.Address != want {
		t.Errorf("address of the first container is %s, want %s", a.Address, want)
	}
	if a.Ports[1].Host != 32768 || b.Ports[0].Host != 32769 {
		t.Errorf("chosen ports are %d and %d, want 32768 and 32769", a.Ports[1].Host, b.Ports[0].Host)
	}
	serve(t, a.NetNS, ":80", "a")
	serve(t, a.NetNS, ":81", "a81")
	serve(t, b.NetNS, ":80", "b")
	peer, instance := l.netns(l.peer), l.netns(l.instance)
	for _, port := range []string{"8080", "32768"} {
		// The container sees who asks.
		l.reach(peer, "10.0.0.5:"+port, "a 10.0.0.9")
		l.reach(instance, "127.0.0.1:"+port, "a")
		l.reach(instance, "10.0.0.5:"+port, "a")
		l.reach(b.NetNS, "10.0.0.5:"+port, "a")
		l.reach(a.NetNS, "10.0.0.5:"+port, "a") // itself, by the instance's address
	}
	l.reach(peer, "10.0.0.5:32769", "b")
	l.reach(b.NetNS, "172.17.0.2:81", "a81") // containers of one bridge reach each other
	l.reach(instance, "172.17.0.2:81", "a81")
	l.refuse(peer, "10.0.0.5:81")
	l.refuse(peer, "172.17.0.2:80") // nobody else reaches what is not published
	l.refuse(peer, "172.17.0.2:81")

	serve(t, peer, ":7", "peer")
	l.reach(a.NetNS, "10.0.0.9:7", "peer 10.0.0.5") // behind the instance's address

	if err := l.n.Disconnect("a"); err != nil {
		t.Fatal(err)
	}
	l.refuse(peer, "10.0.0.5:8080")
	l.reach(peer, "10.0.0.5:32769", "b")
	if c := l.connect("c", Port{Protocol: "tcp", Container: 80}); c.Ports[0].Host != 32770 || c.Address != a.Address {
		t.Errorf("the next container has port %d and address %s, want 32770 and %s", c.Ports[0].Host, c.Address, a.Address)
	}
}

func TestPortsAreTaken(t *testing.T) {
	l := newLab(t, func(o *Options) { o.Ports = [2]uint16{40000, 40009} })
	l.connect("a", Port{Protocol: "tcp", Container: 80, Host: 8080}, Port{Protocol: "udp", Container: 80, Host: 8080})
	if _, err := l.n.Connect("b", []Port{{Protocol: "tcp", Container: 1, Host: 9000}, {Protocol: "tcp", Container: 80, Host: 8080}}); !errors.Is(err, ErrPort) {
		t.Errorf("a port was published twice: %v", err)
	}
	l.connect("b", Port{Protocol: "tcp", Container: 1, Host: 9000}) // nothing of the refused one is left
	// A process of the instance has it.
	serve(t, l.netns(l.instance), ":9001", "instance")
	if _, err := l.n.Connect("c", []Port{{Protocol: "tcp", Container: 1, Host: 9001}}); !errors.Is(err, ErrPort) {
		t.Errorf("a port of the instance was published: %v", err)
	}
	// And cannot get what a container has.
	inside(t, l.instance, func() error {
		if s, err := net.Listen("tcp4", ":8080"); err == nil {
			s.Close()
			return errors.New("the instance could listen on a published port")
		}
		return nil
	})
	serve(t, l.netns(l.instance), ":40003", "instance")
	r := l.connect("range", Port{Protocol: "tcp", Container: 5000, Range: 5})
	if r.Ports[0].Host != 40004 {
		t.Errorf("five ports in a row begin at %d, want 40004 behind the one in use", r.Ports[0].Host)
	}
	serve(t, r.NetNS, ":5004", "last")
	l.reach(l.netns(l.peer), "10.0.0.5:40008", "last")
	if _, err := l.n.Connect("many", []Port{{Protocol: "tcp", Container: 5000, Range: 5}}); !errors.Is(err, ErrPort) {
		t.Errorf("more ports than there are: %v", err)
	}
	for i, want := range []uint16{40009, 40000, 40001, 40002} {
		if e := l.connect(fmt.Sprint("d", i), Port{Protocol: "tcp", Container: 1}); e.Ports[0].Host != want {
			t.Errorf("port %d is %d, want %d", i, e.Ports[0].Host, want)
		}
	}
	if _, err := l.n.Connect("e", []Port{{Protocol: "tcp", Container: 1}}); !errors.Is(err, ErrPort) {
		t.Errorf("no port is left, and one was given: %v", err)
	}
}

// An agent that starts finds what another one made: connections go on, ports
// are kept, and nothing is given twice.
func TestAgentComesBack(t *testing.T) {
	l := newLab(t, nil)
	a := l.connect("a", Port{Protocol: "tcp", Container: 80})
	serve(t, a.NetNS, ":80", "a")
	half, err := makeNetns(filepath.Join(l.opts.Dir, "half")) // what a killed agent leaves
	if err != nil {
		t.Fatal(err)
	}
	half.Close()
	lost := l.connect("lost")
	l.n.Close()
	if err := dropNetns(lost.NetNS); err != nil {
		t.Fatal(err)
	}
	l.open()
	l.reach(l.netns(l.peer), fmt.Sprintf("10.0.0.5:%d", a.Ports[0].Host), "a")
	got := l.n.Endpoints()
	if len(got) != 1 || got[0].ID != "a" || got[0].Address != a.Address || got[0].Ports[0] != a.Ports[0] {
		t.Errorf("after a restart the endpoints are %+v, want %+v", got, a)
	}
	if again := l.connect("a"); again.NetNS != a.NetNS || again.Address != a.Address {
		t.Errorf("connected again: %+v", again)
	}
	b := l.connect("b", Port{Protocol: "tcp", Container: 80})
	if b.Address == a.Address || b.Ports[0].Host == a.Ports[0].Host {
		t.Errorf("given twice: %+v and %+v", a, b)
	}
	if _, err := os.Stat(filepath.Join(l.opts.Dir, "half")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed agent was making is still there: %v", err)
	}
	links := 0
	inside(t, l.instance, func() error {
		all, err := netlink.LinkList()
		for _, link := range all {
			if strings.HasPrefix(link.Attrs().Name, "veth") {
				links++
			}
		}
		return err
	})
	if links != 2 {
		t.Errorf("%d links for two containers", links)
	}
}

// Containers of both bridges reach the agent; others on the wire do not.
func TestAgentAddress(t *testing.T) {
	l := newLab(t, func(o *Options) { o.Forward = map[uint16]uint16{4566: 4001} })
	serve(t, l.netns(l.instance), "127.0.0.1:51679", "agent")
	serve(t, l.netns(l.instance), "127.0.0.1:4001", "gateway")
	serve(t, l.netns(l.instance), "127.0.0.1:6000", "private")
	a := l.connect("a")
	task := filepath.Join(filepath.Dir(l.opts.Dir), "task")
	ns, err := makeNetns(task)
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	defer dropNetns(task)
	other := task + "2"
	if ns, err = makeNetns(other); err != nil {
		t.Fatal(err)
	}
	ns.Close()
	defer dropNetns(other)
	for range 2 { // again changes nothing
		if err := errors.Join(l.n.Join(task, "arn:task"), l.n.Join(other, "arn:other")); err != nil {
			t.Fatal(err)
		}
	}
	for _, from := range []string{a.NetNS, task, other, l.netns(l.instance)} {
		l.reach(from, "169.254.170.2:80", "agent")
		l.reach(from, "169.254.170.2:4566", "gateway")
	}
	for a, want := range map[string]string{"169.254.172.2": "arn:task", "169.254.172.3": "arn:other"} {
		if got, _ := l.n.Joined(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s belongs to %q, want %q", a, got, want)
		}
	}
	if got, _ := l.n.Connected(a.Address); got != "a" {
		t.Errorf("%s belongs to %q, want a", a.Address, got)
	}
	// A task keeps port 80 for itself, and the instance does.
	serve(t, task, ":80", "task")
	serve(t, l.netns(l.instance), ":80", "instance")
	l.refuse(l.netns(l.peer), "10.0.0.5:51679")
	l.refuse(task, "169.254.172.1:80") // the instance itself is not theirs to reach
	l.refuse(other, "169.254.172.2:80")
	l.refuse(l.netns(l.peer), "169.254.172.2:80")
	// The loopback device stays the instance's own.
	for _, from := range []string{a.NetNS, task} {
		src, err := os.Open(from)
		if err != nil {
			t.Fatal(err)
		}
		gateway := map[string]string{a.NetNS: "172.17.0.1", task: "169.254.172.1"}[from]
		inside(t, src, func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			dev := "eth0"
			if from == task {
				dev = "ecs-eth0"
			}
			// A container that may change its routes tries the instance's loopback.
			d, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			_ = netlink.LinkSetDown(lo)
			if err := sysctl("ipv4/conf/"+dev+"/route_localnet", "1"); err != nil {
				return err
			}
			return netlink.RouteReplace(&netlink.Route{LinkIndex: d.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("127.0.0.1/32")), Gw: net.ParseIP(gateway).To4(), Table: unix.RT_TABLE_MAIN})
		})
		src.Close()
		l.refuse(from, "127.0.0.1:6000")
	}
}

// FuzzPublish asks for ports in any combination: none is ever given twice, and
// what is taken back is free again.
func FuzzPublish(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0, 0, 9})
	f.Fuzz(func(t *testing.T, wish []byte) {
		ns, err := os.Open("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		n := &Network{ns: ns, low: 50000, high: 50015, taken: map[bound]*socket{}, last: map[string]uint16{}}
		defer ns.Close()
		var all []*Endpoint
		used := map[bound]bool{}
		for len(wish) >= 3 {
			e := &Endpoint{}
			p := Port{Protocol: "tcp", Container: 80, Range: uint16(wish[1] % 5)}
			if wish[0]%2 == 0 {
				p.Protocol = "udp"
			}
			if wish[2]%3 == 0 {
				p.Host = 50000 + uint16(wish[2]%16)
			}
			wish = wish[3:]
			if err := n.publish(e, []Port{p, p}); err != nil {
				n.release(e)
				continue
			}
			for _, p := range e.Ports {
				for _, b := range p.bound() {
					if used[b] {
						t.Fatalf("%v was given twice", b)
					}
					used[b] = true
				}
			}
			all = append(all, e)
		}
		for _, e := range all {
			n.release(e)
		}
		if len(n.taken) != 0 {
			t.Fatalf("still taken: %v", n.taken)
		}
	})
}
