// Command fabric measures the way between two tasks: TCP throughput, round trips on one connection, and new
// connections, between two ENIs of a VPC with security groups and between two namespaces on a plain Linux bridge
// without any rule, in turns in one run.
//
//	go run ./bench/fabric [-n 5] [-d 1s]
//
// It runs in network and mount namespaces of its own and needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/dataplane/vpc"
)

const inLab = "BERTH_BENCH_FABRIC_LAB"

func main() {
	n := flag.Int("n", 5, "rounds")
	d := flag.Duration("d", time.Second, "length of one measurement")
	flag.Parse()
	if os.Getenv(inLab) == "" {
		os.Exit(again())
	}
	if err := run(*n, *d); err != nil {
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

func run(n int, d time.Duration) error {
	dir, err := os.MkdirTemp("", "bench-fabric-")
	if err != nil {
		return err
	}
	defer func() {
		for _, b := range []string{"b0", "b1"} {
			unix.Unmount(filepath.Join(dir, b), unix.MNT_DETACH)
		}
		os.RemoveAll(dir)
	}()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	ours, end, err := throughEngine(dir)
	if err != nil {
		return err
	}
	defer end()
	theirs, err := overBridge(dir)
	if err != nil {
		return err
	}
	ways := []way{ours, theirs}
	results := map[string][]float64{}
	measures := []struct {
		name string
		f    func(way, time.Duration) (float64, error)
	}{{"throughput, Gbit/s", throughput}, {"round trips per second", roundTrips}, {"new connections per second", connections}}
	for range n {
		for _, m := range measures {
			for _, w := range ways {
				v, err := m.f(w, d)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, m.name, err)
				}
				results[m.name+w.name] = append(results[m.name+w.name], v)
			}
		}
	}
	fmt.Printf("%-28s %12s %12s %8s   (median of %d)\n", "", ways[0].name, ways[1].name, "ratio", n)
	for _, m := range measures {
		a, b := median(results[m.name+ours.name]), median(results[m.name+theirs.name])
		fmt.Printf("%-28s %12.2f %12.2f %8.2f\n", m.name, a, b, a/b)
	}
	return nil
}

func throughEngine(dir string) (way, func(), error) {
	all := []vpc.Rule{{Protocol: -1, From: -1, To: -1, CIDRs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}
	opts := vpc.Options{Region: "bef0", RunDir: filepath.Join(dir, "run")}
	e, err := vpc.Open(opts)
	if err != nil {
		return way{}, nil, err
	}
	end := func() {
		if err := errors.Join(e.Close(), vpc.CleanUp(context.Background(), opts)); err != nil {
			fmt.Fprintln(os.Stderr, "fabric: clean up:", err)
		}
	}
	cfg := vpc.Config{
		VPCs: []vpc.VPC{{ID: "vpc-0", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
			Subnets:     []vpc.Subnet{{ID: "subnet-0", CIDR: netip.MustParsePrefix("10.0.0.0/24"), RouteTable: "rtb-0"}},
			RouteTables: []vpc.RouteTable{{ID: "rtb-0"}}}},
		Groups: []vpc.SecurityGroup{{ID: "sg-0", VPC: "vpc-0", Egress: all, Ingress: []vpc.Rule{{Protocol: 6, From: 1, To: 65535, Groups: []string{"sg-0"}}}}},
	}
	for i := range 2 {
		cfg.ENIs = append(cfg.ENIs, vpc.ENI{ID: fmt.Sprintf("eni-%d", i), VPC: "vpc-0", Subnet: "subnet-0", Groups: []string{"sg-0"}, SourceDestCheck: true,
			MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + i)})})
	}
	if _, err := e.Set(context.Background(), cfg); err != nil {
		end()
		return way{}, nil, err
	}
	return way{"berth", opts.NetnsPath("eni-0"), opts.NetnsPath("eni-1"), "10.0.0.11:5001"}, end, nil
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
