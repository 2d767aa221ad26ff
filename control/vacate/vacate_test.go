package vacate

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/address"
	"github.com/berth-run/berth/control/settle"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const (
	leaving = "123456789012"
	staying = "210987654321"
	own     = "000000000000"
)

// fill gives every string of a row a value that names the account, so that the
// row is found by that wherever it is kept.
func fill(v reflect.Value, account string, depth int) {
	if depth == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), account, depth)
	case reflect.Struct:
		if v.Type().PkgPath() == "time" || v.Type().PkgPath() == "net/netip" {
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), account, depth-1)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), account, depth)
		}
	case reflect.String:
		v.SetString("arn:aws:x:us-east-1:" + account + ":x/y")
	}
}

// shaped are the rows whose keys and states mean something.
func shaped(row any, account string) {
	arn := func(service, rest string) string { return "arn:aws:" + service + ":us-east-1:" + account + ":" + rest }
	repository := state.RepositoryKey(account, "app")
	switch r := row.(type) {
	case *state.Image:
		r.Repository, r.Digest = repository, "sha256:1"
	case *state.ImageTag:
		r.Repository, r.Tag = repository, "1"
	case *state.RepositoryLayer:
		r.Repository, r.Digest = repository, "sha256:2"
	case *state.LifecycleRun:
		r.Repository = repository
	case *state.LifecyclePreview:
		r.Repository = repository
	case *state.Replica:
		r.Image = repository + "/sha256:1"
	case *state.VPC:
		r.ID = "vpc-" + account
	case *state.GroupName:
		r.VPC = "vpc-" + account
	case *state.Subnet:
		r.ID, r.VPC = "subnet-"+account, "vpc-"+account
	case *state.Service:
		r.ARN, r.Status = arn("ecs", "service/c/s"), "ACTIVE"
	case *state.ServiceEvents:
		r.Service = arn("ecs", "service/c/s")
	case *state.ContainerInstance:
		r.ARN, r.AgentConnected = arn("ecs", "container-instance/c/i"), true
	case *state.Task:
		r.ARN, r.Service = arn("ecs", "task/c/t"), arn("ecs", "service/c/s")
		r.Instance, r.ENI = arn("ecs", "container-instance/c/i"), "eni-"+account
		r.LastStatus, r.DesiredStatus = state.Running, state.Running
	case *state.Instance:
		r.ID, r.State, r.Want = "i-"+account, "running", "running"
	case *state.NetworkInterface:
		r.ID, r.Task, r.Node = "eni-"+account, arn("ecs", "task/c/t"), "n1"
		r.Subnet, r.Address = "subnet-"+account, netip.MustParseAddr("172.31.0.4")
	case *state.AddressLease:
		r.Scope, r.Address, r.ENI = "subnet-"+account, netip.MustParseAddr("172.31.0.4"), "eni-"+account
	}
	if f := reflect.ValueOf(row).Elem().FieldByName("Account"); f.IsValid() && f.Kind() == reflect.String {
		f.SetString(account)
	}
}

// regional are the rows of the region as a whole, which name its own account.
var regional = map[string]bool{"region": true, "node": true, "registrykey": true, "account": true}

// furnish puts a row of each table there is into an account.
func furnish(t *testing.T, db *store.DB, account string) {
	t.Helper()
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.Accounts.Put(tx, &state.Account{ID: account, CreatedAt: now})
		for _, table := range store.Tables() {
			switch {
			case regional[table.Name()]:
			case table.Name() == "guard":
				tx.Guard("ecs-token/" + account + "/x")
			default:
				row := store.NewRow(table)
				fill(reflect.ValueOf(row).Elem(), account, 6)
				shaped(row, account)
				store.PutRow(tx, table, row)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// naming are the rows in which an account's id occurs, by table and key.
func naming(t *testing.T, r store.Reader, account string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, table := range store.Tables() {
		for key, row := range store.Rows(r, table) {
			b, err := json.Marshal(row)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(key+string(b), account) {
				found[table.Name()+" "+key] = string(b)
			}
		}
	}
	return found
}

// Every table must say whose its rows are. One that does not is one whose rows
// would stay when their account goes: give them a field Account, or name the
// table in store/state/account.go.
func TestEveryTableKnowsItsOwners(t *testing.T) {
	db := store.OpenMemory()
	defer db.Close()
	for _, table := range store.Tables() {
		if _, ok := state.Owner(db.Snapshot(), table, "x", store.NewRow(table)); !ok {
			t.Errorf("table %s: nobody knows whose its rows are", table.Name())
		}
	}
}

// world does what nodes and agents do: tasks that are to stop do, and what is
// asked to go is gone.
func world(t *testing.T, db *store.DB) (busy bool) {
	t.Helper()
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		busy = false
		for k := range state.Tasks.All(tx) {
			if k.DesiredStatus == state.Stopped && !k.Past(state.Deprovisioning) {
				n := k.Clone()
				n.Advance(state.Deprovisioning)
				state.Tasks.Put(tx, n)
				busy = true
			}
		}
		for i := range state.Instances.All(tx) {
			if i.Want == state.InstanceTerminated && i.State != "terminated" {
				n := *i
				n.State = "terminated"
				state.Instances.Put(tx, &n)
				busy = true
			}
		}
		for e := range state.NetworkInterfaces.All(tx) {
			if e.Deleting && !e.Removed {
				n := *e
				n.Removed = true
				state.NetworkInterfaces.Put(tx, &n)
				busy = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return busy
}

// step is one plan of each controller that has a part in it.
func step(t *testing.T, db *store.DB) (changes int) {
	t.Helper()
	for _, plan := range []func(control.Input) control.Plan{Plan, settle.Plan, address.Plan} {
		p := plan(control.Input{Read: db.Snapshot(), All: true, Now: now, NewID: func() string { return strings.Repeat("0", 32) }})
		if ok, err := control.Apply(t.Context(), db, p); !ok || err != nil {
			t.Fatalf("apply: %v %v", ok, err)
		}
		changes += len(p.Changes)
	}
	return changes
}

func closeAccount(t *testing.T, db *store.DB, account string) {
	t.Helper()
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		a, _ := state.Accounts.Get(tx, account)
		n := *a
		n.ClosingAt = now
		state.Accounts.Put(tx, &n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) *store.DB {
	t.Helper()
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.Regions.Put(tx, &state.Region{Name: "us-east-1", Account: own, PublicPool: netip.MustParsePrefix("198.18.0.0/22")})
		state.Accounts.Put(tx, &state.Account{ID: own, CreatedAt: now})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestNothingNamesAnAccountThatIsGone(t *testing.T) {
	db := open(t)
	furnish(t, db, leaving)
	furnish(t, db, staying)
	if n := len(naming(t, db.Snapshot(), leaving)); n < len(store.Tables())-len(regional) {
		t.Fatalf("only %d rows name the account: the test looks at too little", n)
	}
	before := naming(t, db.Snapshot(), staying)

	for range 3 {
		if n := step(t, db); n > 0 {
			t.Fatalf("%d changes while both accounts are open", n)
		}
	}
	closeAccount(t, db, leaving)
	for range 20 {
		running := 0
		for k := range state.Tasks.All(db.Snapshot()) {
			if k.Account == leaving && k.LastStatus != state.Stopped {
				running++
			}
		}
		if running > 0 && len(naming(t, db.Snapshot(), leaving)) < len(store.Tables())-len(regional)-3 {
			t.Fatal("rows are forgotten while a task runs")
		}
		if n := step(t, db); n == 0 && !world(t, db) {
			break
		}
	}
	for key, row := range naming(t, db.Snapshot(), leaving) {
		t.Errorf("%s is left: %s", key, row)
	}
	after := naming(t, db.Snapshot(), staying)
	for key, row := range before {
		if after[key] != row {
			t.Errorf("%s of the other account: %q became %q", key, row, after[key])
		}
	}
}

// What is too much for one transaction goes in several.
func TestManyRowsGoInSteps(t *testing.T) {
	db := open(t)
	furnish(t, db, leaving)
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		for i := range 3 * batch {
			state.Families.Put(tx, &state.Family{Account: leaving, Name: fmt.Sprint(i)})
			state.ImageTags.Put(tx, &state.ImageTag{Repository: leaving + "/app", Tag: fmt.Sprint(i)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	closeAccount(t, db, leaving)
	for range 50 {
		p := Plan(control.Input{Read: db.Snapshot(), All: true, Now: now})
		if len(p.Changes) > batch+3 {
			t.Fatalf("a plan of %d changes", len(p.Changes))
		}
		if step(t, db) == 0 && !world(t, db) {
			break
		}
	}
	if left := naming(t, db.Snapshot(), leaving); len(left) > 0 {
		t.Errorf("%d rows are left", len(left))
	}
}

// A machine of the account's own that cannot be reached holds nothing up.
func TestUnreachableMachine(t *testing.T) {
	db := open(t)
	furnish(t, db, leaving)
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		for i := range state.ContainerInstances.All(tx) {
			n := *i
			n.AgentConnected = false
			state.ContainerInstances.Put(tx, &n)
		}
		for k := range state.Tasks.All(tx) {
			n := k.Clone()
			n.ENI, n.Network, n.Attachments = "", nil, nil
			state.Tasks.Put(tx, n)
		}
		for e := range state.NetworkInterfaces.All(tx) {
			state.NetworkInterfaces.Delete(tx, e.ID)
		}
		for i := range state.Instances.All(tx) {
			state.Instances.Delete(tx, i.ID) // one of ours would be waited for
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	closeAccount(t, db, leaving)
	for range 10 {
		step(t, db) // and no agent that does anything
	}
	if left := naming(t, db.Snapshot(), leaving); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
