package endpoint

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

type world struct {
	*testing.T
	db *store.DB
}

func newWorld(t *testing.T) *world {
	w := &world{t, store.OpenMemory()}
	t.Cleanup(func() { w.db.Close() })
	return w
}

func (w *world) put(f func(tx *store.Tx)) {
	w.Helper()
	if err := w.db.Update(w.Context(), func(tx *store.Tx) error { f(tx); return nil }); err != nil {
		w.Fatal(err)
	}
}

// settle plans until there is nothing to do.
func (w *world) settle() {
	w.Helper()
	for range 10 {
		p := Plan(control.Input{Read: w.db.Snapshot(), All: true, Now: now})
		if len(p.Changes) == 0 {
			return
		}
		if ok, err := control.Apply(w.Context(), w.db, p); err != nil || !ok {
			w.Fatal(ok, err)
		}
	}
	w.Fatal("does not come to rest")
}

func (w *world) state(id string) string {
	e, ok := state.Endpoints.Get(w.db.Snapshot(), id)
	if !ok {
		return "gone"
	}
	return e.State
}

func (w *world) eni(id string, change func(*state.NetworkInterface)) {
	w.Helper()
	w.put(func(tx *store.Tx) {
		n, _ := state.NetworkInterfaces.Get(tx, id)
		m := *n
		change(&m)
		state.NetworkInterfaces.Put(tx, &m)
	})
}

func TestLife(t *testing.T) {
	w := newWorld(t)
	w.put(func(tx *store.Tx) {
		state.Endpoints.Put(tx, &state.Endpoint{ID: "vpce-1", State: "pending"})
		for _, z := range []string{"a", "b"} {
			state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: "eni-" + z, Owner: "vpce-1", Zone: z})
		}
	})
	w.settle()
	if got := w.state("vpce-1"); got != "pending" {
		t.Fatalf("without a machine it is %s", got)
	}
	w.put(func(tx *store.Tx) {
		state.Nodes.Put(tx, &state.Node{Name: "one", Zone: "a"})
		state.Nodes.Put(tx, &state.Node{Name: "two", Zone: "b"})
	})
	w.settle()
	for id, node := range map[string]string{"eni-a": "one", "eni-b": "two"} {
		if n, _ := state.NetworkInterfaces.Get(w.db.Snapshot(), id); n.Node != node {
			t.Errorf("%s is on %q", id, n.Node)
		}
	}
	w.eni("eni-a", func(n *state.NetworkInterface) { n.Attached = true })
	w.settle()
	if got := w.state("vpce-1"); got != "pending" {
		t.Errorf("with one of two interfaces it is %s", got)
	}
	w.eni("eni-b", func(n *state.NetworkInterface) { n.Failure = "no" })
	w.settle()
	if got := w.state("vpce-1"); got != "failed" {
		t.Errorf("with one that failed it is %s", got)
	}
	w.eni("eni-b", func(n *state.NetworkInterface) { n.Failure, n.Attached = "", true })
	w.settle()
	if got := w.state("vpce-1"); got != "available" {
		t.Errorf("with both it is %s", got)
	}
	w.put(func(tx *store.Tx) { state.Endpoints.Put(tx, &state.Endpoint{ID: "vpce-1", State: "deleting"}) })
	w.settle()
	for _, id := range []string{"eni-a", "eni-b"} {
		if n, _ := state.NetworkInterfaces.Get(w.db.Snapshot(), id); !n.Deleting {
			t.Errorf("%s stays", id)
		}
		if got := w.state("vpce-1"); got != "deleting" {
			t.Errorf("with interfaces left it is %s", got)
		}
		w.put(func(tx *store.Tx) { state.NetworkInterfaces.Delete(tx, id) })
		w.settle()
	}
	if got := w.state("vpce-1"); got != "gone" {
		t.Errorf("with nothing left it is %s", got)
	}
}

// Whatever is so: a plan comes to rest, an endpoint is available only if every
// interface of it that stays is attached, and goes only when none is left.
func TestPlanHolds(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t)
		w.put(func(tx *store.Tx) {
			for i := range r.IntN(3) {
				state.Nodes.Put(tx, &state.Node{Name: fmt.Sprint("node", i), Zone: []string{"", "a", "b"}[r.IntN(3)]})
			}
			for i := range 1 + r.IntN(3) {
				id := fmt.Sprint("vpce-", i)
				state.Endpoints.Put(tx, &state.Endpoint{ID: id, State: []string{"pending", "available", "deleting", "failed"}[r.IntN(4)]})
				for j := range r.IntN(4) {
					state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: fmt.Sprint("eni-", i, j), Owner: id, Zone: []string{"a", "b"}[r.IntN(2)],
						Attached: r.IntN(2) == 0, Deleting: r.IntN(4) == 0, Failure: []string{"", "", "no"}[r.IntN(3)]})
				}
			}
		})
		before := w.db.Snapshot()
		w.settle()
		snap := w.db.Snapshot()
		for old := range state.Endpoints.All(before) {
			left, bad := 0, 0
			for n := range state.NetworkInterfaces.By(snap, "owner", old.ID) {
				left++
				if !n.Attached && !n.Deleting {
					bad++
				}
				if old.State == "deleting" && !n.Deleting {
					t.Errorf("seed %d: %s of a deleted endpoint stays", seed, n.ID)
				}
			}
			e, ok := state.Endpoints.Get(snap, old.ID)
			switch {
			case ok == (old.State == "deleting" && left == 0):
				t.Errorf("seed %d: %s, %s, has %d interfaces and is there: %v", seed, old.ID, old.State, left, ok)
			case ok && e.State == "available" && old.State != "available" && bad > 0:
				t.Errorf("seed %d: %s is available with %d interfaces that are not there", seed, old.ID, bad)
			case ok && e.State == "pending" && bad == 0:
				t.Errorf("seed %d: %s is pending for nothing", seed, old.ID)
			}
		}
	}
}
