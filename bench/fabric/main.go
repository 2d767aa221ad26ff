// Command fabric measures the way between two tasks: TCP throughput, round trips on one connection, and new
// connections, between two ENIs of a VPC and between two containers on the bridge of a Docker engine, in turns in one
// run; and what security groups of 500 rules and a VPC of 1,000 ENIs cost, how long those take to come and go, and how
// soon the kernel knows of a change in a group's members.
//
//	go run ./bench/fabric [-n 5] [-d 1s] [-enis 1000]
//
// It runs in network and mount namespaces of its own, starts a Docker engine of its own there, and needs root. Without
// dockerd it compares with a plain Linux bridge, which no rule looks at.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/dataplane/vpc"
)

const inLab = "BERTH_BENCH_FABRIC_LAB"

func main() {
	n := flag.Int("n", 5, "rounds")
	d := flag.Duration("d", time.Second, "length of one measurement")
	enis := flag.Int("enis", 1000, "ENIs of the large VPC")
	pause := flag.Bool("pause", false, "do nothing until killed: what the containers run")
	flag.Parse()
	if *pause {
		end := make(chan os.Signal, 1)
		signal.Notify(end, unix.SIGTERM)
		<-end
		return
	}
	if os.Getenv(inLab) == "" {
		os.Exit(again())
	}
	if err := run(*n, *d, *enis); err != nil {
		fmt.Fprintln(os.Stderr, "fabric:", err)
		os.Exit(1)
	}
}

// again runs the program in namespaces of its own.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inLab+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "fabric:", err)
		return 1
	}
	return 0
}

// A way is a pair of namespaces and the address of the second.
type way struct {
	name, from, to, addr string
}

func run(n int, d time.Duration, enis int) error {
	dir, err := os.MkdirTemp("", "bench-fabric-")
	if err != nil {
		return err
	}
	defer func() {
		for _, b := range []string{"b0", "b1"} {
			_ = unix.Unmount(filepath.Join(dir, b), unix.MNT_DETACH)
		}
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "fabric: clean up:", err)
		}
	}()
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), exec.Command("ip", "link", "set", "lo", "up").Run(),
		unix.Mount("sysfs", "/sys", "sysfs", 0, ""), unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "")); err != nil {
		return err
	}
	ours, err := newEngine(dir)
	if err != nil {
		return err
	}
	defer ours.close()
	bridge, err := overBridge(dir)
	if err != nil {
		return err
	}
	peer := bridge
	if _, err := exec.LookPath("dockerd"); err == nil {
		docker, end, err := overDocker(dir)
		if err != nil {
			return fmt.Errorf("docker: %w", err)
		}
		defer end()
		peer = docker
	}
	plain, ruled, small := ours.way("berth", 0), ours.way("500 rules", 2), ours.way("small VPC", 4)
	r, err := measure([]way{plain, ruled, peer, bridge}, n, d)
	if err != nil {
		return err
	}
	fmt.Printf("medians of %d rounds of %v; ratios are medians of each round's; br_netfilter: %s\n", n, d, netfilter())
	fmt.Printf("%-30s %12s %12s %12s %14s %16s\n", "", plain.name, peer.name, bridge.name, plain.name+"/"+peer.name, "500 rules/none")
	for _, m := range measures {
		fmt.Printf("%-30s %12.2f %12.2f %12.2f %14.3f %16.3f\n", m.name, r.value(m.name, plain), r.value(m.name, peer), r.value(m.name, bridge),
			r.ratio(m.name, plain, peer), r.ratio(m.name, ruled, plain))
	}
	if err := ours.members(41); err != nil {
		return err
	}
	if err := ours.fill(enis); err != nil {
		return err
	}
	if r, err = measure([]way{plain, small, peer}, n, d); err != nil {
		return err
	}
	fmt.Printf("%-30s %12s %12s %14s %16s\n", fmt.Sprintf("with %d ENIs", enis), plain.name, small.name, plain.name+"/"+peer.name, "large/small VPC")
	for _, m := range measures {
		fmt.Printf("%-30s %12.2f %12.2f %14.3f %16.3f\n", m.name, r.value(m.name, plain), r.value(m.name, small), r.ratio(m.name, plain, peer), r.ratio(m.name, plain, small))
	}
	if err := ours.members(41); err != nil {
		return err
	}
	return ours.empty()
}

var measures = []struct {
	name string
	f    func(way, time.Duration) (float64, error)
}{{"throughput, Gbit/s", throughput}, {"round trips per second", roundTrips}, {"new connections per second", connections}}

// results are the values of each round, by measure and way.
type results map[string][]float64

func (r results) value(measure string, w way) float64 { return median(r[measure+w.name]) }

// ratio compares two ways round by round: what else the machine does then hits both.
func (r results) ratio(measure string, a, b way) float64 {
	var out []float64
	for i, v := range r[measure+a.name] {
		out = append(out, v/r[measure+b.name][i])
	}
	return median(out)
}

// measure takes the ways in turns, and in the other direction in every second round.
func measure(ways []way, n int, d time.Duration) (results, error) {
	out := results{}
	for i := range n {
		turn := slices.Clone(ways)
		if i%2 == 1 {
			slices.Reverse(turn)
		}
		for _, m := range measures {
			for _, w := range turn {
				v, err := m.f(w, d)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", w.name, m.name, err)
				}
				out[m.name+w.name] = append(out[m.name+w.name], v)
			}
		}
	}
	return out, nil
}

// engine is ours, with three pairs of ENIs: one in a group that allows all, one in a group of 500 rules of which the last
// allows, and one alone in its VPC.
type engine struct {
	e    *vpc.Engine
	opts vpc.Options
	cfg  vpc.Config
	few  []vpc.ENI
}

func newEngine(dir string) (*engine, error) {
	world := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	all := []vpc.Rule{{Protocol: -1, From: -1, To: -1, CIDRs: world}}
	var many []vpc.Rule
	for i := range 499 {
		many = append(many, vpc.Rule{Protocol: 6, From: 10000 + i, To: 10000 + i, CIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)}})
	}
	many = append(many, vpc.Rule{Protocol: 6, From: 5000, To: 5010, CIDRs: world})
	g := &engine{opts: vpc.Options{Region: "bef0", RunDir: filepath.Join(dir, "run")}, cfg: vpc.Config{
		VPCs: []vpc.VPC{{ID: "vpc-0", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
			Subnets:     []vpc.Subnet{{ID: "subnet-0", CIDR: netip.MustParsePrefix("10.0.0.0/16"), RouteTable: "rtb-0"}},
			RouteTables: []vpc.RouteTable{{ID: "rtb-0"}}},
			{ID: "vpc-1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
				Subnets:     []vpc.Subnet{{ID: "subnet-1", CIDR: netip.MustParsePrefix("10.0.0.0/16"), RouteTable: "rtb-1"}},
				RouteTables: []vpc.RouteTable{{ID: "rtb-1"}}}},
		Groups: []vpc.SecurityGroup{{ID: "sg-1", VPC: "vpc-1", Ingress: all, Egress: all}, {ID: "sg-0", VPC: "vpc-0", Ingress: all, Egress: all}, {ID: "sg-500", VPC: "vpc-0", Ingress: many, Egress: many},
			{ID: "sg-members", VPC: "vpc-0", Ingress: []vpc.Rule{{Protocol: -1, From: -1, To: -1, Groups: []string{"sg-members"}}}, Egress: all}},
	}}
	for i := range 6 {
		n := eni(i)
		if i >= 4 {
			n.VPC, n.Subnet, n.Groups = "vpc-1", "subnet-1", []string{"sg-1"}
		} else if i >= 2 {
			n.Groups = []string{"sg-500"}
		}
		g.cfg.ENIs = append(g.cfg.ENIs, n)
	}
	var err error
	if g.e, err = vpc.Open(g.opts); err != nil {
		return nil, err
	}
	if err := g.set(); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func eni(i int) vpc.ENI {
	return vpc.ENI{ID: fmt.Sprintf("eni-%017x", i), VPC: "vpc-0", Subnet: "subnet-0", Groups: []string{"sg-0"}, SourceDestCheck: true,
		MAC: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}, Address: netip.AddrFrom4([4]byte{10, 0, 1 + byte(i/200), byte(10 + i%200)})}
}

func (g *engine) set() error {
	_, err := g.e.Set(context.Background(), g.cfg)
	return err
}

func (g *engine) way(name string, from int) way {
	a, b := g.cfg.ENIs[from], g.cfg.ENIs[from+1]
	return way{name, g.opts.NetnsPath(a.ID), g.opts.NetnsPath(b.ID), b.Address.String() + ":5001"}
}

// members measures from the call that changes a group's members to the first packet that the change lets pass, and to
// the first that it does not.
func (g *engine) members(n int) error {
	a, b := g.cfg.ENIs[0], g.cfg.ENIs[1]
	var server net.PacketConn
	if err := inside(g.opts.NetnsPath(b.ID), func() (err error) { server, err = net.ListenPacket("udp4", ":7"); return err }); err != nil {
		return err
	}
	defer server.Close()
	var client net.Conn
	if err := inside(g.opts.NetnsPath(a.ID), func() (err error) { client, err = net.Dial("udp4", b.Address.String()+":7"); return err }); err != nil {
		return err
	}
	defer client.Close()
	g.cfg.ENIs = slices.Clone(g.cfg.ENIs)
	g.cfg.ENIs[1].Groups = []string{"sg-members"}
	g.cfg.ENIs[0].Groups = []string{"sg-0"}
	if err := g.set(); err != nil {
		return err
	}
	passes := func(wait time.Duration) bool {
		if _, err := client.Write([]byte("x")); err != nil {
			return false
		}
		_ = server.SetReadDeadline(time.Now().Add(wait))
		_, _, err := server.ReadFrom(make([]byte, 1))
		return err == nil
	}
	if passes(20 * time.Millisecond) {
		return errors.New("a stranger's packet passed")
	}
	var came []float64
	for range n {
		start := time.Now()
		g.cfg.ENIs[0].Groups = []string{"sg-0", "sg-members"}
		if err := g.set(); err != nil {
			return err
		}
		if !passes(time.Second) {
			return errors.New("a member's packet did not pass when the call had returned")
		}
		came = append(came, time.Since(start).Seconds()*1000)
		g.cfg.ENIs[0].Groups = []string{"sg-0"}
		if err := g.set(); err != nil {
			return err
		}
	}
	slices.Sort(came)
	fmt.Printf("a group's new member, to its first packet, of %d ENIs: p50 %.1f ms, p90 %.1f ms, max %.1f ms\n", len(g.cfg.ENIs), median(came), came[len(came)*9/10], came[len(came)-1])
	g.cfg.ENIs[1].Groups = []string{"sg-0"}
	return g.set()
}

func (g *engine) fill(n int) error {
	g.few = g.cfg.ENIs
	g.cfg.ENIs = slices.Clone(g.few)
	for i := len(g.few); i < n; i++ {
		g.cfg.ENIs = append(g.cfg.ENIs, eni(i))
	}
	start := time.Now()
	err := g.set()
	fmt.Printf("attach of %d ENIs in one call: %.1f s, %.2f ms each\n", n-len(g.few), time.Since(start).Seconds(), time.Since(start).Seconds()*1000/float64(n-len(g.few)))
	return err
}

func (g *engine) empty() error {
	n := len(g.cfg.ENIs) - len(g.few)
	g.cfg.ENIs = g.few
	start := time.Now()
	err := g.set()
	fmt.Printf("detach of %d ENIs in one call: %.1f s, %.2f ms each\n", n, time.Since(start).Seconds(), time.Since(start).Seconds()*1000/float64(n))
	return err
}

func (g *engine) close() {
	if err := errors.Join(g.e.Close(), vpc.CleanUp(context.Background(), g.opts)); err != nil {
		fmt.Fprintln(os.Stderr, "fabric: clean up:", err)
	}
}

// netfilter says whether what crosses a bridge passes iptables.
func netfilter() string {
	b, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err != nil {
		return "not there"
	}
	return string(bytes.TrimSpace(b))
}

// overDocker starts a Docker engine and two containers of nothing but this program.
func overDocker(dir string) (way, func(), error) {
	sock := "unix://" + filepath.Join(dir, "docker.sock")
	log, err := os.Create(filepath.Join(dir, "dockerd.log"))
	if err != nil {
		return way{}, nil, err
	}
	defer log.Close()
	dockerd := exec.Command("dockerd", "--data-root", filepath.Join(dir, "docker"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "docker.pid"), "-H", sock, "--storage-driver", "vfs")
	dockerd.Stdout, dockerd.Stderr = log, log
	dockerd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the signal comes with the end of the thread, and those that enter namespaces end
		err := dockerd.Start()
		started <- err
		if err == nil {
			ended <- dockerd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return way{}, nil, err
	}
	docker := func(stdin io.Reader, args ...string) (string, error) {
		cmd := exec.Command("docker", append([]string{"-H", sock}, args...)...)
		cmd.Stdin = stdin
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("docker %v: %w: %s", args, err, out)
		}
		return strings.TrimSpace(string(out)), nil
	}
	end := func() {
		_, err := docker(nil, "rm", "-f", "bench-0", "bench-1")
		_ = dockerd.Process.Signal(syscall.SIGTERM)
		if err := errors.Join(err, <-ended); err != nil {
			fmt.Fprintln(os.Stderr, "fabric: docker's end:", err)
		}
	}
	fail := func(err error) (way, func(), error) {
		end()
		text, _ := os.ReadFile(log.Name())
		return way{}, nil, fmt.Errorf("%w\n%s", err, text[max(0, len(text)-3000):])
	}
	for wait := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err = docker(nil, "version"); err == nil {
			break
		} else if time.Now().After(wait) {
			return fail(err)
		}
	}
	root, err := image()
	if err != nil {
		return fail(err)
	}
	if _, err := docker(root, "import", "-", "bench"); err != nil {
		return fail(err)
	}
	w := way{name: "docker"}
	for i, to := range []*string{&w.from, &w.to} {
		name := fmt.Sprintf("bench-%d", i)
		if _, err := docker(nil, "run", "-d", "--name", name, "bench", "/bench", "-pause"); err != nil {
			return fail(err)
		}
		about, err := docker(nil, "inspect", "-f", "{{.State.Pid}} {{.NetworkSettings.IPAddress}}", name)
		if err != nil {
			return fail(err)
		}
		pid, address, _ := strings.Cut(about, " ")
		if pid == "0" {
			text, _ := docker(nil, "logs", name)
			return fail(fmt.Errorf("container %s does not run: %s", name, text))
		}
		*to, w.addr = "/proc/"+pid+"/ns/net", address+":5001"
	}
	return w, end, nil
}

// image is the root of a container that has this program, as a tar.
func image() (io.Reader, error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	err = t.WriteHeader(&tar.Header{Name: "bench", Mode: 0o755, Size: int64(len(self))})
	if err == nil {
		_, err = t.Write(self)
	}
	return &b, errors.Join(err, t.Close())
}

// overBridge is what container engines make, with no firewall in the way.
func overBridge(dir string) (way, error) {
	script := `
		ip link add bench0 type bridge
		ip link set bench0 up
		for i in 0 1; do
			touch $DIR/b$i
			unshare --net=$DIR/b$i ip link set lo up
			ip link add bench$i.v type veth peer name eth0 netns $DIR/b$i
			ip link set bench$i.v master bench0 up
			nsenter --net=$DIR/b$i ip addr add 10.1.0.1$i/24 dev eth0
			nsenter --net=$DIR/b$i ip link set eth0 up
		done`
	cmd := exec.Command("sh", "-ec", script)
	cmd.Env = append(os.Environ(), "DIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return way{}, fmt.Errorf("bridge: %w: %s", err, out)
	}
	return way{"bridge", filepath.Join(dir, "b0"), filepath.Join(dir, "b1"), "10.1.0.11:5001"}, nil
}

func inside(path string, f func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

// between runs client with a dialer in one namespace while serve handles connections in the other.
func between(w way, serve func(net.Conn), client func(dial func() (net.Conn, error)) error) error {
	var l net.Listener
	if err := inside(w.to, func() (err error) { l, err = net.Listen("tcp4", w.addr); return err }); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	defer func() { l.Close(); <-done }()
	return inside(w.from, func() error {
		return client(func() (net.Conn, error) { return net.DialTimeout("tcp4", w.addr, 5*time.Second) })
	})
}

func throughput(w way, d time.Duration) (float64, error) {
	received := make(chan float64, 1)
	err := between(w, func(c net.Conn) {
		start, total, b := time.Now(), 0, make([]byte, 1<<18)
		for {
			n, err := c.Read(b)
			total += n
			if err != nil {
				break
			}
		}
		received <- float64(total) * 8 / 1e9 / time.Since(start).Seconds()
	}, func(dial func() (net.Conn, error)) error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.Close()
		b := make([]byte, 1<<17)
		for end := time.Now().Add(d); time.Now().Before(end); {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return <-received, nil
}

func roundTrips(w way, d time.Duration) (rate float64, err error) {
	err = between(w, func(c net.Conn) { io.Copy(c, c) }, func(dial func() (net.Conn, error)) error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.Close()
		b, n, start := make([]byte, 64), 0, time.Now()
		for ; time.Since(start) < d; n++ {
			if _, err := c.Write(b); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
		}
		rate = float64(n) / time.Since(start).Seconds()
		return nil
	})
	return rate, err
}

func connections(w way, d time.Duration) (rate float64, err error) {
	err = between(w, func(c net.Conn) { c.Read(make([]byte, 1)) }, func(dial func() (net.Conn, error)) error {
		n, start := 0, time.Now()
		for ; time.Since(start) < d; n++ {
			c, err := dial()
			if err != nil {
				return err
			}
			c.(*net.TCPConn).SetLinger(0) // leave no TIME_WAIT behind: ports are not what is measured
			c.Close()
		}
		rate = float64(n) / time.Since(start).Seconds()
		return nil
	})
	return rate, err
}

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }
