// Command eni measures what a task waits for its network: from nothing to the first packet answered, and back, for the
// engine of dataplane/vpc and for the reference CNI plug-ins bridge and portmap, in turns in one run.
//
//	go run ./bench/eni [-n 21] [-cni /usr/lib/cni]
//
// The first packet is a UDP datagram from the machine, answered inside: to the ENI's public address here, to the
// bridge address there. It runs in network and mount namespaces of its own and needs root.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/dataplane/vpc"
)

const inLab = "BERTH_BENCH_ENI_LAB"

func main() {
	n := flag.Int("n", 21, "rounds")
	plugins := flag.String("cni", "/usr/lib/cni", "folder of the CNI plug-ins; without them only the engine is measured")
	flag.Parse()
	if os.Getenv(inLab) == "" {
		os.Exit(again())
	}
	if err := run(*n, *plugins); err != nil {
		fmt.Fprintln(os.Stderr, "eni:", err)
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
		fmt.Fprintln(os.Stderr, "eni:", err)
		return 1
	}
	return 0
}

func run(n int, plugins string) error {
	dir, err := os.MkdirTemp("", "bench-eni-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), exec.Command("ip", "link", "set", "lo", "up").Run()); err != nil {
		return err
	}
	ours, err := newEngine(dir)
	if err != nil {
		return err
	}
	defer ours.close()
	withCNI := exists(filepath.Join(plugins, "bridge")) && exists(filepath.Join(plugins, "portmap"))
	theirs := &cni{dir: dir, plugins: plugins}

	var attach, detach, cniAttach, cniDetach []time.Duration
	for i := range n {
		a, d, err := round(ours, i)
		if err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		attach, detach = append(attach, a), append(detach, d)
		if !withCNI {
			continue
		}
		if a, d, err = round(theirs, i); err != nil {
			return fmt.Errorf("cni: %w", err)
		}
		cniAttach, cniDetach = append(cniAttach, a), append(cniDetach, d)
	}
	fmt.Printf("%-44s %9s %9s %9s\n", fmt.Sprintf("%d rounds, milliseconds", n), "median", "p90", "max")
	report("engine: nothing to first packet, with groups", attach)
	report("engine: detach", detach)
	if withCNI {
		report("CNI bridge+portmap: nothing to first packet", cniAttach)
		report("CNI bridge+portmap: DEL", cniDetach)
		fmt.Printf("attach ratio %.3f (target 0.1), detach ratio %.3f\n",
			float64(median(attach))/float64(median(cniAttach)), float64(median(detach))/float64(median(cniDetach)))
	} else {
		fmt.Println("no CNI plug-ins: install containernetworking-plugins for the comparison")
	}
	return ours.burst(50)
}

// A network can make a namespace that answers at an address.
type network interface {
	attach(i int) (netns, addr string, err error)
	detach(i int) error
}

func round(nw network, i int) (attach, detach time.Duration, err error) {
	start := time.Now()
	ns, addr, err := nw.attach(i)
	if err != nil {
		return 0, 0, err
	}
	if err := firstPacket(ns, addr); err != nil {
		return 0, 0, errors.Join(err, nw.detach(i))
	}
	attach = time.Since(start)
	start = time.Now()
	err = nw.detach(i)
	return attach, time.Since(start), err
}

// firstPacket sends a datagram and waits for its echo. It repeats early, as a client would that cannot know when.
func firstPacket(ns, addr string) error {
	var server net.PacketConn
	err := inside(ns, func() (err error) {
		server, err = net.ListenPacket("udp4", "0.0.0.0:7")
		return err
	})
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 16)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo(b[:n], from)
		}
	}()
	defer func() { server.Close(); <-done }()
	c, err := net.Dial("udp4", addr+":7")
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 16)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if _, err := c.Write([]byte("x")); err != nil {
			continue
		}
		c.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		if _, err := c.Read(b); err == nil {
			return nil
		}
	}
	return fmt.Errorf("no answer from %s", addr)
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

type engine struct {
	e    *vpc.Engine
	opts vpc.Options
	cfg  vpc.Config
}

func newEngine(dir string) (*engine, error) {
	all := []vpc.Rule{{Protocol: -1, From: -1, To: -1, CIDRs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}
	g := &engine{
		opts: vpc.Options{Region: "bec0", RunDir: dir, PublicPool: netip.MustParsePrefix("198.18.0.0/16")},
		cfg: vpc.Config{
			VPCs: []vpc.VPC{{ID: "vpc-0", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
				Subnets:     []vpc.Subnet{{ID: "subnet-0", CIDR: netip.MustParsePrefix("10.0.0.0/20"), RouteTable: "rtb-0"}},
				RouteTables: []vpc.RouteTable{{ID: "rtb-0", Routes: []vpc.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Target: vpc.InternetGateway}}}}}},
			Groups: []vpc.SecurityGroup{
				{ID: "sg-0", VPC: "vpc-0", Ingress: []vpc.Rule{{Protocol: -1, From: -1, To: -1, Groups: []string{"sg-0"}}}, Egress: all},
				{ID: "sg-1", VPC: "vpc-0", Ingress: []vpc.Rule{{Protocol: 17, From: 7, To: 7, CIDRs: all[0].CIDRs}}, Egress: all},
			},
		},
	}
	var err error
	if g.e, err = vpc.Open(g.opts); err != nil {
		return nil, err
	}
	start := time.Now()
	_, err = g.e.Set(context.Background(), g.cfg)
	fmt.Printf("engine: first Set with one VPC %.1f ms\n", ms(time.Since(start)))
	return g, err
}

func (g *engine) eni(i int) vpc.ENI {
	return vpc.ENI{ID: fmt.Sprintf("eni-%017x", i), VPC: "vpc-0", Subnet: "subnet-0", Groups: []string{"sg-0", "sg-1"}, SourceDestCheck: true,
		MAC:     net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)},
		Address: netip.AddrFrom4([4]byte{10, 0, 1 + byte(i>>8), byte(i)}), Public: netip.AddrFrom4([4]byte{198, 18, 1 + byte(i>>8), byte(i)})}
}

func (g *engine) attach(i int) (string, string, error) {
	n := g.eni(i)
	g.cfg.ENIs = append(g.cfg.ENIs, n)
	_, err := g.e.Set(context.Background(), g.cfg)
	return g.opts.NetnsPath(n.ID), n.Public.String(), err
}

func (g *engine) detach(i int) error {
	id := g.eni(i).ID
	g.cfg.ENIs = slices.DeleteFunc(slices.Clone(g.cfg.ENIs), func(n vpc.ENI) bool { return n.ID == id })
	_, err := g.e.Set(context.Background(), g.cfg)
	return err
}

// burst attaches and detaches many at once.
func (g *engine) burst(n int) error {
	for i := range n {
		g.cfg.ENIs = append(g.cfg.ENIs, g.eni(1000+i))
	}
	start := time.Now()
	if _, err := g.e.Set(context.Background(), g.cfg); err != nil {
		return err
	}
	came := time.Since(start)
	g.cfg.ENIs = nil
	start = time.Now()
	_, err := g.e.Set(context.Background(), g.cfg)
	fmt.Printf("engine: %d ENIs in one Set: attach %.1f ms (%.2f each), detach %.1f ms (%.2f each)\n",
		n, ms(came), ms(came)/float64(n), ms(time.Since(start)), ms(time.Since(start))/float64(n))
	return err
}

func (g *engine) close() {
	if err := errors.Join(g.e.Close(), vpc.CleanUp(context.Background(), g.opts)); err != nil {
		fmt.Fprintln(os.Stderr, "eni: clean up:", err)
	}
}

// cni calls the plug-ins as libcni does.
type cni struct{ dir, plugins string }

func (c *cni) path(i int) string { return filepath.Join(c.dir, fmt.Sprintf("cni-%d", i)) }

func (c *cni) call(plugin, command string, i int, conf string) (string, error) {
	cmd := exec.Command(filepath.Join(c.plugins, plugin))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, fmt.Sprintf("CNI_CONTAINERID=bench-%d", i), "CNI_NETNS="+c.path(i), "CNI_IFNAME=eth0", "CNI_PATH="+c.plugins)
	cmd.Stdin = strings.NewReader(conf)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", plugin, command, err, out.String())
	}
	return out.String(), nil
}

func (c *cni) bridge() string {
	return fmt.Sprintf(`{"cniVersion":"0.4.0","name":"bench","type":"bridge","bridge":"bench0","isGateway":true,"ipMasq":true,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.251.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}`, filepath.Join(c.dir, "ipam"))
}

func (c *cni) portmap(i int, prev string) string {
	return fmt.Sprintf(`{"cniVersion":"0.4.0","name":"bench","type":"portmap","capabilities":{"portMappings":true},
		"runtimeConfig":{"portMappings":[{"hostPort":%d,"containerPort":7,"protocol":"udp"}]}%s}`, 31000+i, prev)
}

func (c *cni) attach(i int) (string, string, error) {
	if err := os.WriteFile(c.path(i), nil, 0o444); err != nil {
		return "", "", err
	}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		made <- errors.Join(unix.Unshare(unix.CLONE_NEWNET), unix.Mount("/proc/thread-self/ns/net", c.path(i), "", unix.MS_BIND, ""))
	}()
	if err := <-made; err != nil {
		return "", "", err
	}
	result, err := c.call("bridge", "ADD", i, c.bridge())
	if err != nil {
		return "", "", err
	}
	if _, err := c.call("portmap", "ADD", i, c.portmap(i, `,"prevResult":`+result)); err != nil {
		return "", "", err
	}
	_, rest, _ := strings.Cut(result, `"address": "`)
	addr, _, ok := strings.Cut(rest, "/")
	if !ok {
		return "", "", fmt.Errorf("no address in %s", result)
	}
	return c.path(i), addr, nil
}

func (c *cni) detach(i int) error {
	_, err := c.call("portmap", "DEL", i, c.portmap(i, ""))
	_, err2 := c.call("bridge", "DEL", i, c.bridge())
	return errors.Join(err, err2, unix.Unmount(c.path(i), unix.MNT_DETACH), os.Remove(c.path(i)))
}

func report(name string, d []time.Duration) {
	s := slices.Sorted(slices.Values(d))
	fmt.Printf("%-44s %9.2f %9.2f %9.2f\n", name, ms(median(d)), ms(s[len(s)*9/10]), ms(s[len(s)-1]))
}

func median(d []time.Duration) time.Duration { return slices.Sorted(slices.Values(d))[len(d)/2] }

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func exists(path string) bool { _, err := os.Stat(path); return err == nil }
