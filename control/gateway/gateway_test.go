package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// world is a NAT gateway with its interface, as the store has it.
type world struct {
	*testing.T
	db *store.DB
}

func newWorld(t *testing.T, g state.NATGateway, e *state.NetworkInterface) *world {
	w := &world{t, store.OpenMemory()}
	t.Cleanup(func() { w.db.Close() })
	g.ID, g.VPC, g.Subnet, g.CreatedAt = "nat-1", "vpc-1", "subnet-1", now
	w.put(func(tx *store.Tx) {
		if e != nil {
			e.ID, e.VPC, e.Subnet, e.Zone, e.Type, e.Owner = "eni-1", "vpc-1", "subnet-1", "b", "nat_gateway", g.ID
			g.ENI = e.ID
			state.NetworkInterfaces.Put(tx, e)
		}
		state.NATGateways.Put(tx, &g)
	})
	return w
}

func (w *world) put(f func(*store.Tx)) {
	w.Helper()
	if err := w.db.Update(w.Context(), func(tx *store.Tx) error { f(tx); return nil }); err != nil {
		w.Fatal(err)
	}
}

// plan applies a plan and shows what is so then.
func (w *world) plan(at time.Time) (string, time.Time) {
	w.Helper()
	p := Plan(control.Input{Read: w.db.Snapshot(), All: true, Now: at})
	if ok, err := control.Apply(w.Context(), w.db, p); err != nil || !ok {
		w.Fatalf("apply: %v %v", ok, err)
	}
	snap := w.db.Snapshot()
	text := "gone"
	if g, ok := state.NATGateways.Get(snap, "nat-1"); ok {
		text = g.State
		if g.FailureCode != "" {
			text += " " + g.FailureCode + ": " + g.Failure
		}
	}
	if e, ok := state.NetworkInterfaces.Get(snap, "eni-1"); ok {
		text += fmt.Sprintf(", %q", e.Node)
		if e.Deleting {
			text += " deleting"
		}
	}
	return text, p.Wake
}

func TestStates(t *testing.T) {
	public := state.NATGateway{State: "pending", Public: true}
	private := state.NATGateway{State: "pending"}
	for name, x := range map[string]struct {
		g                state.NATGateway
		e                *state.NetworkInterface
		gateway, machine bool
		want             string
	}{
		"no machine yet":        {private, &state.NetworkInterface{}, false, false, `pending, ""`},
		"to the zone's machine": {private, &state.NetworkInterface{}, false, true, `pending, "here"`},
		"not attached yet":      {private, &state.NetworkInterface{Node: "here"}, false, true, `pending, "here"`},
		"attached":              {private, &state.NetworkInterface{Node: "here", Attached: true}, false, true, `available, "here"`},
		"public":                {public, &state.NetworkInterface{Node: "here", Attached: true}, true, true, `available, "here"`},
		"public, no way out":    {public, &state.NetworkInterface{}, false, true, `failed Gateway.NotAttached: Network vpc-1 has no Internet gateway attached, "" deleting`},
		"the machine could not": {private, &state.NetworkInterface{Node: "here", Failure: "no memory"}, false, true, `failed InternalError: Network interface eni-1 could not be set up: no memory, "here" deleting`},
		"no interface":          {private, nil, false, true, `failed InternalError: The NAT gateway has lost its network interface`},
		"it lost its interface": {state.NATGateway{State: "available"}, &state.NetworkInterface{Node: "here", Deleting: true}, false, true, `failed InternalError: The NAT gateway has lost its network interface, "here" deleting`},
		"it stays available without its internet gateway": {state.NATGateway{State: "available", Public: true}, &state.NetworkInterface{Node: "here", Attached: true}, false, true, `available, "here"`},
		"it goes with its interface":                      {state.NATGateway{State: "deleting"}, &state.NetworkInterface{Node: "here", Deleting: true}, false, true, `deleting, "here" deleting`},
		"it goes, and its interface must":                 {state.NATGateway{State: "deleting"}, &state.NetworkInterface{Node: "here"}, false, true, `deleting, "here" deleting`},
		"it is gone":                                      {state.NATGateway{State: "deleting", DeletedAt: now}, nil, false, true, `deleted`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, x.g, x.e)
			w.put(func(tx *store.Tx) {
				if x.gateway {
					state.InternetGateways.Put(tx, &state.InternetGateway{ID: "igw-1", VPC: "vpc-1"})
				}
				if x.machine {
					state.Nodes.Put(tx, &state.Node{Name: "elsewhere", Zone: "a"})
					state.Nodes.Put(tx, &state.Node{Name: "here", Zone: "b"})
				}
			})
			if got, _ := w.plan(now); got != x.want {
				t.Errorf("%s\nwant %s", got, x.want)
			}
		})
	}
}

// One that is no more is shown for an hour, and then forgotten.
func TestShownForAnHour(t *testing.T) {
	for _, s := range []string{"deleted", "failed"} {
		w := newWorld(t, state.NATGateway{State: s, DeletedAt: now}, nil)
		got, wake := w.plan(now.Add(time.Hour - time.Second))
		if got != s || !wake.Equal(now.Add(time.Hour)) {
			t.Errorf("%s, again at %s", got, wake)
		}
		if got, _ := w.plan(now.Add(time.Hour)); got != "gone" {
			t.Error(got)
		}
	}
}

// Of two machines each gets one.
func TestSpread(t *testing.T) {
	w := newWorld(t, state.NATGateway{State: "pending"}, &state.NetworkInterface{})
	w.put(func(tx *store.Tx) {
		state.Nodes.Put(tx, &state.Node{Name: "one"})
		state.Nodes.Put(tx, &state.Node{Name: "two"})
		state.NATGateways.Put(tx, &state.NATGateway{ID: "nat-2", State: "pending", ENI: "eni-2"})
		state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: "eni-2"})
	})
	w.plan(now)
	nodes := map[string]bool{}
	for e := range state.NetworkInterfaces.All(w.db.Snapshot()) {
		nodes[e.Node] = true
	}
	if !nodes["one"] || !nodes["two"] {
		t.Errorf("%v", nodes)
	}
}

// A plan that saw an interface attached is not applied once it is not.
func TestStale(t *testing.T) {
	w := newWorld(t, state.NATGateway{State: "pending"}, &state.NetworkInterface{Node: "here", Attached: true})
	p := Plan(control.Input{Read: w.db.Snapshot(), All: true, Now: now})
	w.put(func(tx *store.Tx) {
		e, _ := state.NetworkInterfaces.Get(tx, "eni-1")
		n := *e
		n.Attached = false
		state.NetworkInterfaces.Put(tx, &n)
	})
	if ok, err := control.Apply(t.Context(), w.db, p); ok || err != nil {
		t.Errorf("applied: %v %v", ok, err)
	}
}
