// Command up measures how long `berth up` takes until the region answers its
// first call, for a new region and for one that was there before, and how much
// memory the region's processes have when nothing happens.
//
//	go run ./bench/up [-berth bin/berth] [-n 7] [-idle 30s]
//
// It must run as root. The regions have directories of their own and are
// removed at the end.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/test/lab"
)

func main() {
	berth := flag.String("berth", "bin/berth", "the program")
	n := flag.Int("n", 7, "starts of each kind")
	idle := flag.Duration("idle", 30*time.Second, "how long the region is left alone before its memory is read")
	flag.Parse()
	signal.Ignore(syscall.SIGPIPE) // whoever reads the results may go; what was started must not stay
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, *berth, *n, *idle); err != nil {
		log.Fatal(err)
	}
}

func bench(ctx context.Context, berth string, n int, idle time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "berth-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if berth, err = filepath.Abs(berth); err != nil {
		return err
	}
	// Whatever goes wrong, an interrupt included, nothing of a region stays.
	var r *lab.Region
	defer func() {
		if err != nil && r != nil {
			err = errors.Join(err, r.Down(context.WithoutCancel(ctx), true))
		}
	}()
	var fresh, again []time.Duration
	for i := range n {
		o := lab.Options{Binary: berth, Dir: filepath.Join(dir, fmt.Sprint(i))}
		if r, err = lab.Up(ctx, o); err != nil { // also finds a port, and the keys for the call
			return err
		}
		if err := r.Down(ctx, false); err != nil {
			return err
		}
		d, err := start(ctx, r)
		if err != nil {
			return err
		}
		again = append(again, d)
		if err := r.Down(ctx, true); err != nil {
			return err
		}
		// The same without data. Its keys are other ones, so the call is
		// refused; but it is answered.
		if d, err = start(ctx, r); err != nil {
			return err
		}
		fresh = append(fresh, d)
		if i < n-1 {
			if err := r.Down(ctx, true); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(idle):
			err = memory(r)
		}
		if err := errors.Join(err, r.Down(context.WithoutCancel(ctx), true)); err != nil {
			return err
		}
	}
	show := func(what string, took []time.Duration) {
		slices.Sort(took)
		fmt.Printf("berth up, %-12s p50 %4d ms  max %4d ms (%d starts)\n", what, took[len(took)/2].Milliseconds(), took[len(took)-1].Milliseconds(), len(took))
	}
	show("a new region", fresh)
	show("again", again)
	return nil
}

// start is `berth up --detach` to the first answer of the API.
func start(ctx context.Context, r *lab.Region) (time.Duration, error) {
	t0 := time.Now()
	if _, err := r.Berth(ctx, "up", "--detach", "--listen", r.Listen, "--region", r.Name); err != nil {
		return 0, err
	}
	var refused wire.Error
	err := r.Root.Call(ctx, lab.STS, "GetCallerIdentity", &sts.GetCallerIdentityInput{}, nil)
	if errors.As(err, &refused) {
		err = nil
	}
	return time.Since(t0), err
}

// memory prints what the kernel counts of each process, in MiB. Pages of the
// program itself are shared by all of them: RSS counts them in every process,
// PSS once.
func memory(r *lab.Region) error {
	pids, err := r.Processes()
	if err != nil {
		return err
	}
	var rss, pss float64
	for _, role := range []string{"up", "server", "node", "agent", "containerd"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pids[role]))
		if err != nil {
			return err
		}
		kb := map[string]float64{}
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			var (
				name string
				n    float64
			)
			if got, _ := fmt.Sscan(lines.Text(), &name, &n); got == 2 {
				kb[name] = n
			}
		}
		fmt.Printf("%-11s RSS %5.1f MiB  PSS %5.1f MiB  anonymous %5.1f MiB\n", role, kb["Rss:"]/1024, kb["Pss:"]/1024, kb["Anonymous:"]/1024)
		if role != "containerd" {
			rss += kb["Rss:"] / 1024
			pss += kb["Pss:"] / 1024
		}
	}
	fmt.Printf("idle, containerd apart: RSS %.1f MiB  PSS %.1f MiB\n", rss, pss)
	return nil
}
