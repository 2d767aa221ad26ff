package boot

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const id, subnet = "i-1", "subnet-1"

type world struct {
	t   *testing.T
	db  *store.DB
	now time.Time
}

func newWorld(t *testing.T, rows ...func(*store.Tx)) *world {
	w := &world{t: t, db: store.OpenMemory(), now: now}
	t.Cleanup(func() { w.db.Close() })
	w.put(append([]func(*store.Tx){func(tx *store.Tx) {
		state.Regions.Put(tx, &state.Region{Name: "us-east-1", PublicPool: netip.MustParsePrefix("198.18.0.0/22")})
	}}, rows...)...)
	return w
}

func (w *world) put(rows ...func(*store.Tx)) {
	w.t.Helper()
	if err := w.db.Update(w.t.Context(), func(tx *store.Tx) error {
		for _, f := range rows {
			f(tx)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

// settle plans until nothing changes, which must come.
func (w *world) settle() control.Plan {
	w.t.Helper()
	for range 10 {
		p := Plan(control.Input{Read: w.db.Snapshot(), All: true, Now: w.now})
		if len(p.Changes) == 0 {
			return p
		}
		if ok, err := control.Apply(w.t.Context(), w.db, p); !ok || err != nil {
			w.t.Fatalf("apply: %v %v", ok, err)
		}
	}
	w.t.Fatal("plans for ever")
	return control.Plan{}
}

func (w *world) instance() *state.Instance {
	i, _ := state.Instances.Get(w.db.Snapshot(), id)
	return i
}

func (w *world) change(f func(*state.Instance)) {
	w.t.Helper()
	n := *w.instance()
	f(&n)
	w.put(func(tx *store.Tx) { state.Instances.Put(tx, &n) })
	w.settle()
}

func (w *world) eni(id string) *state.NetworkInterface {
	e, _ := state.NetworkInterfaces.Get(w.db.Snapshot(), id)
	return e
}

func node(name, zone string, memory int) func(*store.Tx) {
	return func(tx *store.Tx) { state.Nodes.Put(tx, &state.Node{Name: name, Zone: zone, Memory: memory}) }
}

func launched(f ...func(*state.Instance)) func(*store.Tx) {
	return func(tx *store.Tx) {
		i := &state.Instance{ID: id, Account: "1", Type: "t3.small", Zone: "us-east-1a", Subnet: subnet, Want: running, Boots: 1, State: pending, PublicIP: true, OnShutdown: "stop"}
		for _, f := range f {
			f(i)
		}
		state.Instances.Put(tx, i)
		for n, keep := range []bool{false, true} {
			e := &state.NetworkInterface{ID: fmt.Sprintf("eni-%d", n), Account: "1", Subnet: subnet, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(4 + n)}),
				AttachmentID: "eni-attach-1", Attachment: &state.InterfaceAttachment{Instance: id, Device: n, DeleteOnTermination: !keep}}
			state.NetworkInterfaces.Put(tx, e)
		}
	}
}

func reports(what string, boots int, end string) func(*state.Instance) {
	return func(i *state.Instance) { i.ReportedState, i.ReportedBoots, i.ReportedEnd = what, boots, end }
}

// The life of an instance, step by step.
func TestLife(t *testing.T) {
	w := newWorld(t, node("n1", "", 8192), launched())
	w.settle()
	if i := w.instance(); i.Node != "n1" || i.State != pending || w.eni("eni-0").Node != "n1" || w.eni("eni-1").Node != "n1" {
		t.Fatalf("placed: %+v", i)
	}
	public := w.eni("eni-0").Public
	if !public.IsValid() || w.eni("eni-1").Public.IsValid() {
		t.Fatalf("public addresses %v and %v", public, w.eni("eni-1").Public)
	}
	w.change(reports(reportedStopped, 0, ""))
	if s := w.instance().State; s != pending {
		t.Fatalf("%s before it was booted", s)
	}
	w.change(func(i *state.Instance) { i.Failure = "no image" })
	if i := w.instance(); i.State != pending || i.StateMessage != "Server.InternalError: no image" {
		t.Fatalf("%s because %q", i.State, i.StateMessage)
	}
	w.change(func(i *state.Instance) { i.Failure = "" })
	w.change(reports(reportedRunning, 1, ""))
	if i := w.instance(); i.State != running || i.StateMessage != "" {
		t.Fatalf("%s when it runs, because %q", i.State, i.StateMessage)
	}
	w.change(func(i *state.Instance) { i.Boots = 2 })
	w.change(reports(reportedStopped, 1, ""))
	if s := w.instance().State; s != running {
		t.Fatalf("%s while it is rebooted", s)
	}
	w.change(reports(reportedRunning, 2, ""))
	w.change(reports(reportedStopped, 2, ""))
	if s := w.instance().State; s != pending {
		t.Fatalf("%s when its machine lost it", s)
	}
	w.change(reports(reportedRunning, 2, ""))
	w.change(func(i *state.Instance) { i.Want, i.State = stopped, stopping })
	if s := w.instance().State; s != stopping || !w.eni("eni-0").Public.IsValid() {
		t.Fatalf("%s while it still runs", s)
	}
	w.change(reports(reportedStopped, 2, ""))
	if s := w.instance().State; s != stopped || w.eni("eni-0").Public.IsValid() || w.instance().Node != "n1" {
		t.Fatalf("%s, public address %v", s, w.eni("eni-0").Public)
	}
	if state.AddressLeases.Has(w.db.Snapshot(), state.LeaseKey(state.PublicScope, public)) {
		t.Fatal("the public address is still leased")
	}
	w.change(func(i *state.Instance) { i.Want, i.State, i.Boots = running, pending, 3 })
	if s := w.instance().State; s != pending || !w.eni("eni-0").Public.IsValid() {
		t.Fatalf("started: %s, public address %v", s, w.eni("eni-0").Public)
	}
	w.change(reports(reportedRunning, 3, ""))
	w.change(func(i *state.Instance) { i.Want = terminated })
	if s := w.instance().State; s != shuttingDown || w.eni("eni-0").Deleting {
		t.Fatalf("%s while it still runs", s)
	}
	w.change(reports(reportedGone, 3, ""))
	i := w.instance()
	if i.State != terminated || !i.EndedAt.Equal(now) || !w.eni("eni-0").Deleting {
		t.Fatalf("terminated: %+v", i)
	}
	if e := w.eni("eni-1"); e.Deleting || e.Attachment != nil || e.Node != "" {
		t.Fatalf("an interface that is to stay: %+v", e)
	}
	w.put(func(tx *store.Tx) { state.Consoles.Put(tx, &state.Console{Instance: id, Account: "1"}) })
	if p := w.settle(); !p.Wake.Equal(now.Add(time.Hour)) {
		t.Fatalf("looks again at %v", p.Wake)
	}
	w.now = now.Add(time.Hour)
	w.settle()
	if w.instance() != nil || state.Consoles.Has(w.db.Snapshot(), id) {
		t.Fatal("it is shown for ever")
	}
}

// How an instance ends by itself decides what is wanted of it.
func TestEndsByItself(t *testing.T) {
	for _, c := range []struct{ end, behaviour, state, want, code string }{
		{"inside", "stop", stopped, stopped, "Client.InstanceInitiatedShutdown"},
		{"inside", "terminate", shuttingDown, terminated, "Client.InstanceInitiatedShutdown"},
		{"rootless", "stop", shuttingDown, terminated, "Client.InvalidSnapshot.NotFound"},
		{"crash", "terminate", stopped, stopped, "Server.InternalError"},
		{"", "terminate", pending, running, ""},
	} {
		w := newWorld(t, node("n1", "", 1), launched(func(i *state.Instance) { i.OnShutdown, i.State, i.Node = c.behaviour, running, "n1" }, reports(reportedStopped, 1, c.end)))
		w.settle()
		if i := w.instance(); i.State != c.state || i.Want != c.want || i.StateCode != c.code {
			t.Errorf("%+v: %s, wants %s, because %s", c, i.State, i.Want, i.StateCode)
		}
	}
}

// The Spot request of an instance is closed with it, whoever ends it.
func TestSpotEnds(t *testing.T) {
	for end, want := range map[string]string{"": "active fulfilled", "inside": "closed instance-terminated-by-user", "rootless": "closed system-error"} {
		w := newWorld(t, node("n1", "", 1), func(tx *store.Tx) {
			state.SpotRequests.Put(tx, &state.SpotRequest{ID: "sir-1", Account: "1", Instance: id, Type: "one-time", State: "active", StatusCode: "fulfilled"})
		}, launched(func(i *state.Instance) { i.Spot, i.OnShutdown, i.State, i.Node = "sir-1", "terminate", running, "n1" }, reports(reportedStopped, 1, end)))
		w.settle()
		if s, _ := state.SpotRequests.Get(w.db.Snapshot(), "sir-1"); s.State+" "+s.StatusCode != want {
			t.Errorf("%q: %s %s, want %s", end, s.State, s.StatusCode, want)
		}
	}
}

// An Elastic IP stays where it is.
func TestElasticStays(t *testing.T) {
	elastic := netip.MustParseAddr("198.18.0.9")
	w := newWorld(t, node("n1", "", 1), launched(reports(reportedStopped, 1, ""), func(i *state.Instance) { i.Want, i.Node = stopped, "n1" }), func(tx *store.Tx) {
		e, _ := state.NetworkInterfaces.Get(tx, "eni-0")
		n := *e
		n.Public, n.Allocation = elastic, "eipalloc-1"
		state.NetworkInterfaces.Put(tx, &n)
	})
	w.settle()
	if e := w.eni("eni-0"); e.Public != elastic || w.instance().State != stopped {
		t.Errorf("public address %v of one that is %s", e.Public, w.instance().State)
	}
}

func TestChoosesTheEmptiestOfTheZone(t *testing.T) {
	w := newWorld(t, node("a", "us-east-1a", 4000), node("b", "us-east-1a", 5000), node("c", "us-east-1b", 9000), launched(), func(tx *store.Tx) {
		state.Instances.Put(tx, &state.Instance{ID: "i-2", Type: "t3.small", Node: "b", Want: running, State: running, Boots: 1, ReportedState: reportedRunning, ReportedBoots: 1})
	})
	w.settle()
	if n := w.instance().Node; n != "a" {
		t.Errorf("on %s", n)
	}
	w = newWorld(t, node("c", "us-east-1b", 9000), launched())
	w.settle()
	if i := w.instance(); i.Node != "" || i.State != pending {
		t.Errorf("no machine in its zone: %+v", i)
	}
}

// What ran on an instance ends with it, and its registration with its termination.
func TestHostEnds(t *testing.T) {
	for _, end := range []string{stopped, terminated} {
		w := newWorld(t, node("n1", "", 1), launched(func(i *state.Instance) { i.Want, i.Node, i.State, i.ContainerInstance = end, "n1", running, "ci" }, reports(map[string]string{stopped: reportedStopped, terminated: reportedGone}[end], 1, "")), func(tx *store.Tx) {
			state.ContainerInstances.Put(tx, &state.ContainerInstance{ARN: "ci", Account: "1", Status: "ACTIVE", EC2InstanceID: id})
			state.Tasks.Put(tx, &state.Task{ARN: "t-plain", Instance: "ci", LastStatus: state.Running, DesiredStatus: state.Running})
			state.Tasks.Put(tx, &state.Task{ARN: "t-eni", Instance: "ci", ENI: "eni-9", LastStatus: state.Running, DesiredStatus: state.Running})
			state.Tasks.Put(tx, &state.Task{ARN: "t-other", Instance: "other", LastStatus: state.Running, DesiredStatus: state.Running})
		})
		w.settle()
		for arn, want := range map[string]string{"t-plain": state.Stopped, "t-eni": state.Deprovisioning, "t-other": state.Running} {
			task, _ := state.Tasks.Get(w.db.Snapshot(), arn)
			if task.LastStatus != want || arn != "t-other" && task.StoppedReason != "Host EC2 (instance i-1) "+end+"." {
				t.Errorf("%s: %s is %s because %q", end, arn, task.LastStatus, task.StoppedReason)
			}
		}
		ci, _ := state.ContainerInstances.Get(w.db.Snapshot(), "ci")
		if got, want := ci.Status, map[string]string{stopped: "ACTIVE", terminated: "INACTIVE"}[end]; got != want {
			t.Errorf("%s: the container instance is %s", end, got)
		}
	}
}

// Whatever is wanted and reported: plans come to an end, and what is called
// running was reported so.
func TestNeverClaimsToRun(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	for range 2000 {
		w := newWorld(t, launched(func(i *state.Instance) {
			i.Want, i.State = pick(running, stopped, terminated), pick(pending, running, stopping, stopped, shuttingDown)
			i.Boots, i.Node = 1+r.IntN(3), pick("", "n1")
			i.OnShutdown = pick("stop", "terminate")
		}, reports(pick("", reportedRunning, reportedStopped, reportedGone), r.IntN(4), pick("", "inside", "crash"))))
		if r.IntN(2) == 0 {
			w.put(node("n1", "", 1))
		}
		before := *w.instance()
		w.settle()
		i := w.instance()
		reported := i.ReportedState == reportedRunning && i.ReportedBoots >= i.Boots
		rebooting := before.State == running && i.ReportedBoots < i.Boots
		if i.State == running && !reported && !rebooting || i.State == stopped && before.State != stopped && i.ReportedState == reportedRunning && i.Node != "" || i.State == terminated && i.Node != "" && i.ReportedState != reportedGone {
			t.Fatalf("from %+v to %+v", before, *i)
		}
		w.db.Close()
	}
}
