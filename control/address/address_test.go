package address

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/place"
	"github.com/berth-run/berth/control/place/fleet"
	"github.com/berth-run/berth/control/settle"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

type world struct {
	t   fataler
	db  *store.DB
	ids int
}

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(t fataler, subnets ...string) *world {
	w := &world{t: t, db: store.OpenMemory()}
	w.update(func(tx *store.Tx) {
		state.Regions.Put(tx, &state.Region{Name: "eu-west-1", Account: "000000000000", PublicPool: netip.MustParsePrefix("198.18.0.0/29")})
		state.Nodes.Put(tx, &state.Node{Name: "n", Instance: "ci"})
		state.ContainerInstances.Put(tx, &state.ContainerInstance{ARN: "ci", Node: "n", Hidden: true})
		state.SecurityGroups.Put(tx, &state.SecurityGroup{ID: "sg-default", VPC: "vpc", Name: "default"})
		for i, s := range subnets {
			state.Subnets.Put(tx, &state.Subnet{ID: fmt.Sprint("subnet-", i), VPC: "vpc", CIDR: netip.MustParsePrefix(s), Zone: string("abc"[i%3])})
		}
	})
	return w
}

func (w *world) update(f func(*store.Tx)) {
	w.t.Helper()
	if err := w.db.Update(context.Background(), func(tx *store.Tx) error { f(tx); return nil }); err != nil {
		w.t.Fatalf("update: %v", err)
	}
}

func (w *world) id() string {
	w.ids++
	return fmt.Sprintf("%08x%024d", w.ids, 0)
}

func (w *world) task(public bool, subnets ...string) string {
	t := &state.Task{ARN: "task/" + w.id(), Group: "family:x", LaunchType: "FARGATE", LastStatus: state.Provisioning, DesiredStatus: state.Running,
		Network: &ecs.AwsVpcConfiguration{Subnets: subnets}, Attachments: []state.Attachment{{ID: "a", Type: "ElasticNetworkInterface", Status: "PRECREATED"}}}
	if public {
		t.Network.AssignPublicIp = "ENABLED"
	}
	w.update(func(tx *store.Tx) { state.Tasks.Put(tx, t) })
	return t.ARN
}

func (w *world) plan() {
	w.t.Helper()
	for _, c := range []control.Controller{place.Controller(fleet.New(w.db)), Controller, settle.Controller} {
		for range 2 {
			p := c.Plan(control.Input{Read: w.db.Snapshot(), All: true, Now: now, NewID: w.id})
			if ok, err := control.Apply(context.Background(), w.db, p); err != nil || !ok {
				w.t.Fatalf("apply %s: %v %v", c.Name, ok, err)
			}
		}
	}
}

func (w *world) get(arn string) *state.Task {
	t, ok := state.Tasks.Get(w.db.Snapshot(), arn)
	if !ok {
		w.t.Fatalf("no task %s", arn)
	}
	return t
}

func (w *world) stop(arn string) {
	w.update(func(tx *store.Tx) {
		t, _ := state.Tasks.Get(tx, arn)
		n := t.Clone()
		n.WantStop("UserInitiated", "Task stopped by user", now)
		if n.ENI != "" {
			// The agent has said that all containers are gone.
			n.Advance(state.Deprovisioning)
		}
		state.Tasks.Put(tx, n)
	})
	w.plan()
	w.update(func(tx *store.Tx) {
		for e := range state.NetworkInterfaces.All(tx) {
			if e.Deleting && !e.Removed {
				n := *e
				n.Removed = true
				state.NetworkInterfaces.Put(tx, &n)
			}
		}
	})
	w.plan()
}

// No address is ever two tasks', none that AWS reserves is given, and with the
// last task all come back.
func TestAddressesAreNeverShared(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, "10.0.0.0/28", "10.0.1.0/28")
		live := map[string]bool{}
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			if len(live) > 0 && rapid.IntRange(0, 2).Draw(t, "stop") == 0 {
				for arn := range live {
					w.stop(arn)
					if x := w.get(arn); x.LastStatus != state.Stopped || x.StoppedAt.IsZero() {
						t.Fatalf("stopped task is %s", x.LastStatus)
					}
					delete(live, arn)
					break
				}
			} else {
				live[w.task(rapid.Bool().Draw(t, "public"), "subnet-0", "subnet-1")] = true
			}
			w.plan()
			seen := map[netip.Addr]bool{}
			for e := range state.NetworkInterfaces.All(w.db.Snapshot()) {
				for _, a := range []netip.Addr{e.Address, e.Public} {
					if !a.IsValid() {
						continue
					}
					if seen[a] {
						t.Fatalf("address %s is given twice", a)
					}
					seen[a] = true
				}
				last := e.Address.As4()[3]
				if last < 4 || last > 14 {
					t.Fatalf("reserved address %s was given", e.Address)
				}
			}
			for arn := range live {
				if x := w.get(arn); x.LastStatus == state.Stopped {
					delete(live, arn) // the pool of public addresses has five, a subnet eleven
					if !strings.Contains(x.StoppedReason, "InsufficientAddressCapacity") && !strings.Contains(x.StoppedReason, "InsufficientFreeAddressesInSubnet") {
						t.Fatalf("%s: %s", x.StopCode, x.StoppedReason)
					}
				}
			}
		}
		for arn := range live {
			w.stop(arn)
		}
		if n, m := state.AddressLeases.Count(w.db.Snapshot()), state.NetworkInterfaces.Count(w.db.Snapshot()); n != 0 || m != 0 {
			t.Fatalf("%d addresses and %d interfaces are left", n, m)
		}
	})
}

func TestSubnetExhausted(t *testing.T) {
	w := newWorld(t, "10.0.0.0/28")
	var arns []string
	for range 12 {
		arns = append(arns, w.task(false, "subnet-0"))
	}
	w.plan()
	failed := 0
	for _, arn := range arns {
		x := w.get(arn)
		if x.LastStatus != state.Stopped {
			continue
		}
		failed++
		if x.StopCode != "TaskFailedToStart" || !strings.Contains(x.StoppedReason, "InsufficientFreeAddressesInSubnet") {
			t.Fatalf("%s %q", x.StopCode, x.StoppedReason)
		}
	}
	if failed != 1 {
		t.Fatalf("%d of 12 tasks failed; a /28 has 11 addresses", failed)
	}
}

func TestDetails(t *testing.T) {
	w := newWorld(t, "10.0.0.0/24")
	x := w.get(w.task(true, "subnet-0"))
	w.plan()
	x = w.get(x.ARN)
	e, ok := state.NetworkInterfaces.Get(w.db.Snapshot(), x.ENI)
	if !ok || e.Groups[0] != "sg-default" || e.Node != "n" || x.Zone != "a" {
		t.Fatalf("interface %+v of task in zone %s", e, x.Zone)
	}
	a := x.NetworkAttachment()
	for name, want := range map[string]string{"subnetId": "subnet-0", "networkInterfaceId": e.ID, "macAddress": e.MAC,
		"privateIPv4Address": e.Address.String(), "privateDnsName": "ip-" + strings.ReplaceAll(e.Address.String(), ".", "-") + ".eu-west-1.compute.internal"} {
		if got := a.Detail(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// Tasks of one group go round the zones.
func TestSpread(t *testing.T) {
	w := newWorld(t, "10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24")
	zones := map[string]int{}
	var arns []string
	for range 9 {
		arns = append(arns, w.task(false, "subnet-0", "subnet-1", "subnet-2"))
	}
	w.plan()
	for _, arn := range arns {
		zones[w.get(arn).Zone]++
	}
	if zones["a"] != 3 || zones["b"] != 3 || zones["c"] != 3 {
		t.Fatalf("zones %v", zones)
	}
}

// A task that is stopped before any machine had it ends at once.
func TestStoppedBeforePlaced(t *testing.T) {
	w := newWorld(t, "10.0.0.0/24")
	arn := w.task(false, "subnet-0")
	w.stop(arn)
	if x := w.get(arn); x.LastStatus != state.Stopped || x.StopCode != "UserInitiated" {
		t.Fatalf("%s %s", x.LastStatus, x.StopCode)
	}
}

// A group that was deleted after the task was asked for: AWS finds out when it makes the interface.
func TestGroupIsGone(t *testing.T) {
	w := newWorld(t, "10.0.0.0/24")
	defer w.db.Close()
	arn := w.task(false, "subnet-0")
	w.update(func(tx *store.Tx) {
		n := w.get(arn).Clone()
		n.Network = &ecs.AwsVpcConfiguration{Subnets: []string{"subnet-0"}, SecurityGroups: []string{"sg-gone"}}
		state.Tasks.Put(tx, n)
	})
	w.plan()
	got := w.get(arn)
	if got.LastStatus != state.Stopped || got.StopCode != "TaskFailedToStart" || !strings.HasSuffix(got.StoppedReason, "InvalidGroup.NotFound") {
		t.Errorf("%s: %s %s", got.LastStatus, got.StopCode, got.StoppedReason)
	}
	for e := range state.NetworkInterfaces.All(w.db.Snapshot()) {
		t.Errorf("interface %s", e.ID)
	}
	for l := range state.AddressLeases.All(w.db.Snapshot()) {
		t.Errorf("lease %s", l.Address)
	}
}

// A group that is deleted while its interface is being planned makes the plan stale.
func TestGroupGoesMeanwhile(t *testing.T) {
	w := newWorld(t, "10.0.0.0/24")
	defer w.db.Close()
	arn := w.task(false, "subnet-0")
	w.update(func(tx *store.Tx) {
		n := w.get(arn).Clone()
		n.Instance = "ci"
		n.NetworkAttachment().SetDetail("subnetId", "subnet-0")
		n.Tags = []state.Tag{{Key: "team", Value: "x"}, {Key: "aws:ecs:clusterName", Value: "default"}}
		state.Tasks.Put(tx, n)
	})
	p := Plan(control.Input{Read: w.db.Snapshot(), All: true, Now: now, NewID: w.id})
	g, _ := state.SecurityGroups.Get(w.db.Snapshot(), "sg-default")
	w.update(func(tx *store.Tx) { state.SecurityGroups.Delete(tx, "sg-default") })
	if ok, err := control.Apply(context.Background(), w.db, p); ok || err != nil {
		t.Fatalf("applied: %v %v", ok, err)
	}
	w.update(func(tx *store.Tx) { state.SecurityGroups.Put(tx, g) })
	w.plan()
	e, ok := state.NetworkInterfaces.Get(w.db.Snapshot(), w.get(arn).ENI)
	if !ok || len(e.Tags) != 1 || e.Tags[0].Key != "aws:ecs:clusterName" {
		t.Errorf("interface %+v", e)
	}
}
