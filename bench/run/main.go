// Command run measures how long a task takes from RunTask to RUNNING, on a
// region of its own: the whole way through the API, the controllers, the
// network, the agent and the runtime. In the same run, turn by turn, it starts
// the same container with a bare containerd client on the region's own daemon,
// with the same OCI runtime, and with `docker run -p`, if dockerd is
// installed. Then many are asked for at once, and what a running task costs in
// memory is counted.
//
//	go run ./bench/run [-berth bin/berth] [-n 21] [-at-once 50] [-docker=false]
//
// It must run as root. Everything it starts has directories of its own and is
// removed at the end; Docker has a network namespace of its own too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/berth-run/berth/test/lab"
)

func main() {
	berth := flag.String("berth", "bin/berth", "the program")
	n := flag.Int("n", 21, "tasks one after the other")
	atOnce := flag.Int("at-once", 50, "tasks at once")
	docker := flag.Bool("docker", true, "compare with docker, if dockerd is installed")
	bare := flag.Bool("bare", true, "compare with a bare containerd client")
	flag.Parse()
	signal.Ignore(syscall.SIGPIPE) // whoever reads the results may go; what was started must not stay
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, *berth, *n, *atOnce, *bare, *docker); err != nil {
		log.Fatal(err)
	}
}

// A contender starts containers. One call starts one, or as many as it is
// asked for, and answers how long that took. What it returns removes them and
// is not measured.
type contender struct {
	name string
	one  func(ctx context.Context, id string) (took time.Duration, remove func() error, err error)
	many func(ctx context.Context, id string, n int) (took time.Duration, remove func() error, err error)
}

func bench(ctx context.Context, berth string, n, atOnce int, withBare, withDocker bool) (err error) {
	dir, err := os.MkdirTemp("", "berth-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if berth, err = filepath.Abs(berth); err != nil {
		return err
	}
	img, err := lab.Box(ctx)
	if err != nil {
		return err
	}
	r, err := lab.Up(ctx, lab.Options{Binary: berth, Dir: filepath.Join(dir, "region")})
	if r != nil { // even if it did not come up, or was interrupted while it did
		defer func() { err = errors.Join(err, r.Down(context.WithoutCancel(ctx), true)) }()
	}
	if err != nil {
		return err
	}
	ours, err := newRegion(ctx, r, img)
	if err != nil {
		return err
	}
	contenders := []contender{{"berth", ours.one, ours.many}}
	if withBare {
		b, err := newBare(ctx, r, dir, img)
		if err != nil {
			return err
		}
		defer b.close()
		contenders = append(contenders, contender{"containerd client", b.one, parallel(b.one)})
	}
	if withDocker && installed() {
		d, err := newDocker(ctx, dir, img)
		if err != nil {
			return err
		}
		defer d.close()
		contenders = append(contenders, contender{"docker run -p", d.one, parallel(d.one)})
	}

	// Turn by turn, so that what else the machine does meets all alike. The
	// first round pulls the image and warms up.
	took := make([][]time.Duration, len(contenders))
	for i := range n + 1 {
		for c := range contenders {
			d, remove, err := contenders[c].one(ctx, fmt.Sprintf("s%d", i))
			if err == nil {
				err = remove()
			}
			if err != nil {
				return fmt.Errorf("%s: %w", contenders[c].name, err)
			}
			if i > 0 {
				took[c] = append(took[c], d)
			}
		}
	}
	rate := make([]float64, len(contenders))
	var before, after memory
	for c := range contenders {
		if c == 0 {
			if before, err = measure(r); err != nil {
				return err
			}
		}
		d, remove, err := contenders[c].many(ctx, fmt.Sprintf("p%d", c), atOnce)
		if err == nil && c == 0 {
			after, err = measure(r)
		}
		if remove != nil {
			err = errors.Join(err, remove())
		}
		if err != nil {
			return fmt.Errorf("%s, %d at once: %w", contenders[c].name, atOnce, err)
		}
		rate[c] = float64(atOnce) / d.Seconds()
	}

	for c := range contenders {
		slices.Sort(took[c])
		fmt.Printf("%-20s p50 %6.1f ms  p90 %6.1f ms   %d at once: %5.1f/s\n",
			contenders[c].name, ms(pct(took[c], 50)), ms(pct(took[c], 90)), atOnce, rate[c])
	}
	slices.Sort(ours.reported)
	fmt.Printf("%-20s p50 %6.1f ms   (createdAt to startedAt, by the region's own clock)\n", "", ms(pct(ours.reported, 50)))
	for c := 1; c < len(contenders); c++ {
		fmt.Printf("berth / %-17s p50 %.2f   at once %.2f\n", contenders[c].name, ms(pct(took[0], 50))/ms(pct(took[c], 50)), rate[0]/rate[c])
	}
	fmt.Printf("\n%d tasks run: %d shims, each of %.1f MiB (PSS %.1f)\n", atOnce, after.shims, mib(after.shimRSS)/float64(max(after.shims, 1)), mib(after.shimPSS)/float64(max(after.shims, 1)))
	if after.shims != atOnce {
		return fmt.Errorf("%d tasks have %d shims, want one each", atOnce, after.shims)
	}
	total := 0.0
	for _, role := range roles {
		b, a := before.roles[role], after.roles[role]
		per := func(x, y int64) float64 { return mib(y-x) / float64(atOnce) }
		fmt.Printf("%-12s RSS %6.1f → %6.1f MiB, a task %.3f MiB; anonymous %.3f MiB\n", role, mib(b.rss), mib(a.rss), per(b.rss, a.rss), per(b.anon, a.anon))
		if role != "containerd" {
			total += per(b.rss, a.rss)
		}
	}
	fmt.Printf("a running task adds beside its shim: %.3f MiB\n", total)
	fmt.Printf("\nprocessor time of a task until it runs, of %d at once:", atOnce)
	all := after.shimOwn + after.shimChildren
	cpu := func(name string, d time.Duration) {
		fmt.Printf(" %s %.1f ms", name, ms(d)/float64(atOnce))
	}
	for _, role := range roles {
		b, a := before.roles[role], after.roles[role]
		if cpu(role, a.own-b.own); a.children > b.children {
			cpu(role+"'s children", a.children-b.children)
		}
		all += a.own - b.own + a.children - b.children
	}
	cpu("shim", after.shimOwn)
	cpu("OCI runtime", after.shimChildren)
	cpu("= ", all)
	fmt.Println()
	return nil
}

// parallel asks for many by asking for one at the same time.
func parallel(one func(context.Context, string) (time.Duration, func() error, error)) func(context.Context, string, int) (time.Duration, func() error, error) {
	return func(ctx context.Context, id string, n int) (time.Duration, func() error, error) {
		removes, errs := make([]func() error, n), make([]error, n)
		t0 := time.Now()
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { _, removes[i], errs[i] = one(ctx, fmt.Sprintf("%s-%d", id, i)) })
		}
		wg.Wait()
		took := time.Since(t0)
		return took, func() error {
			var errs []error
			for _, remove := range removes {
				if remove != nil {
					errs = append(errs, remove())
				}
			}
			return errors.Join(errs...)
		}, errors.Join(errs...)
	}
}

func pct(sorted []time.Duration, p int) time.Duration { return sorted[(len(sorted)-1)*p/100] }
func ms(d time.Duration) float64                      { return float64(d.Microseconds()) / 1000 }
func mib(bytes int64) float64                         { return float64(bytes) / (1 << 20) }

// command is what all of them run: it says one line and waits for its end.
var command = []string{"print", "hello", "term"}
