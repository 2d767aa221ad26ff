package control_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock stands still until it is set, or goes on by a step each time it is looked at.
type clock struct {
	mu   sync.Mutex
	t    time.Time
	step time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(c.step)
	return c.t
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

type loop struct {
	*testing.T
	db    *store.DB
	clock *clock
}

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// run runs a controller over clusters until the test ends.
func run(t *testing.T, step time.Duration, plan func(control.Input) control.Plan) *loop {
	l := &loop{t, store.OpenMemory(), &clock{t: start, step: step}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- control.Run(ctx, l.db, control.Controller{Name: "test", Reads: []store.AnyTable{state.Clusters}, Plan: plan},
			control.Clock{Now: l.clock.now, NewID: func() string { return "id" }}, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the loop ended with %v", err)
		}
		l.db.Close()
	})
	return l
}

func (l *loop) put(c *state.Cluster) {
	l.Helper()
	if err := l.db.Update(l.Context(), func(tx *store.Tx) error { state.Clusters.Put(tx, c); return nil }); err != nil {
		l.Fatal(err)
	}
}

// until waits for a cluster to be so.
func (l *loop) until(arn string, so func(*state.Cluster) bool) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), 30*time.Second)
	defer cancel()
	w := l.db.Watch(state.Clusters)
	defer w.Close()
	for {
		snap, _, err := w.Next(ctx)
		if err != nil {
			l.Fatalf("cluster %s: %v", arn, err)
		}
		if c, ok := state.Clusters.Get(snap, arn); ok && so(c) {
			return
		}
	}
}

func status(want string) func(*state.Cluster) bool {
	return func(c *state.Cluster) bool { return c.Status == want }
}

// each plans a change of every cluster that f changes.
func each(f func(in control.Input, c *state.Cluster) *state.Cluster) func(control.Input) control.Plan {
	return func(in control.Input) (p control.Plan) {
		keys := in.Changed.Keys(state.Clusters)
		if in.All {
			keys = nil
			for c := range state.Clusters.All(in.Read) {
				keys = append(keys, c.ARN)
			}
		}
		for _, k := range keys {
			if c, ok := state.Clusters.Get(in.Read, k); ok {
				if n := f(in, c); n != nil {
					control.Put(&p, state.Clusters, k, c, n)
				}
			}
		}
		return p
	}
}

func TestChangesAreActedUpon(t *testing.T) {
	l := run(t, 0, each(func(_ control.Input, c *state.Cluster) *state.Cluster {
		if c.Status != "NEW" {
			return nil
		}
		n := *c
		n.Status = "DONE"
		return &n
	}))
	for _, arn := range []string{"a", "b", "c"} {
		l.put(&state.Cluster{ARN: arn, Status: "NEW"})
		l.until(arn, status("DONE"))
	}
}

// What a plan was made from is gone when it is applied: nothing of it happens,
// and the plan is made anew from what is.
func TestStalePlanIsMadeAgain(t *testing.T) {
	var l *loop
	var once sync.Once
	planned, changed := make(chan struct{}), make(chan struct{})
	l = run(t, 0, each(func(_ control.Input, c *state.Cluster) *state.Cluster {
		if c.Status != "NEW" {
			return nil
		}
		once.Do(func() {
			close(planned)
			<-changed
		})
		n := *c
		n.Status = "DONE"
		return &n
	}))
	l.put(&state.Cluster{ARN: "a", Status: "NEW", Name: "first"})
	<-planned
	l.put(&state.Cluster{ARN: "a", Status: "NEW", Name: "second"})
	close(changed)
	l.until("a", func(c *state.Cluster) bool {
		if c.Status == "DONE" && c.Name != "second" {
			t.Fatalf("a plan of the past was applied: %+v", c)
		}
		return c.Status == "DONE"
	})
}

func TestRequire(t *testing.T) {
	db := store.OpenMemory()
	defer db.Close()
	put := func(c *state.Cluster) {
		if err := db.Update(t.Context(), func(tx *store.Tx) error { state.Clusters.Put(tx, c); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	put(&state.Cluster{ARN: "seen"})
	seen, _ := state.Clusters.Get(db.Snapshot(), "seen")
	var p control.Plan
	control.Require(&p, state.Clusters, "seen", seen)
	control.Require(&p, state.Clusters, "absent", nil)
	control.Put(&p, state.Clusters, "made", nil, &state.Cluster{ARN: "made"})

	put(&state.Cluster{ARN: "seen", Name: "changed"})
	if ok, err := control.Apply(t.Context(), db, p); ok || err != nil {
		t.Fatalf("applied although what it rests on has changed: %v %v", ok, err)
	}
	if state.Clusters.Has(db.Snapshot(), "made") {
		t.Fatal("half of a plan was applied")
	}
	p.Changes = p.Changes[1:]
	if ok, err := control.Apply(t.Context(), db, p); !ok || err != nil {
		t.Fatalf("not applied: %v %v", ok, err)
	}
	put(&state.Cluster{ARN: "absent"})
	control.Delete(&p, state.Clusters, "seen", seen)
	p.Changes = p.Changes[:1]
	if ok, err := control.Apply(t.Context(), db, p); ok || err != nil {
		t.Fatalf("applied although what must not exist does: %v %v", ok, err)
	}
}

// A time that a plan asked for comes without any change, and is for everything.
func TestWake(t *testing.T) {
	var l *loop
	l = run(t, 0, func(in control.Input) (p control.Plan) {
		c, ok := state.Clusters.Get(in.Read, "a")
		switch {
		case !ok || c.Status == "DONE":
		case in.All && !in.Now.Before(start.Add(time.Hour)):
			n := *c
			n.Status = "DONE"
			control.Put(&p, state.Clusters, "a", c, &n)
		default:
			// The clock stands still: without this step no wake would ever be due.
			l.clock.set(start.Add(time.Hour))
			p.WakeAt(start.Add(time.Hour))
		}
		return p
	})
	l.put(&state.Cluster{ARN: "a", Status: "NEW"})
	l.until("a", status("DONE"))
}

// A plan that the store has no room for does not end the loop, and its work is
// not forgotten: it is planned again, though nothing has changed.
func TestPlanWithoutSpaceIsTriedAgain(t *testing.T) {
	plans := 0 // of the loop's goroutine only
	huge := strings.Repeat("x", 16<<20)
	l := run(t, time.Hour, func(in control.Input) (p control.Plan) {
		c, ok := state.Clusters.Get(in.Read, "a")
		if !ok || c.Status == "DONE" {
			return p
		}
		plans++
		n := *c
		n.Status = "DONE"
		if plans == 1 {
			n.Name = huge // more than one transaction takes
		} else if !in.All {
			t.Error("planned again for nothing in particular")
		}
		control.Put(&p, state.Clusters, "a", c, &n)
		return p
	})
	l.put(&state.Cluster{ARN: "a", Status: "NEW"})
	l.until("a", func(c *state.Cluster) bool {
		if c.Name != "" {
			t.Fatal("the store took what it must refuse: this test shows nothing")
		}
		return c.Status == "DONE"
	})
}
