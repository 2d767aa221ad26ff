package reap

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, rows func(*store.Tx)) *store.DB {
	t.Helper()
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	if err := db.Update(t.Context(), func(tx *store.Tx) error { rows(tx); return nil }); err != nil {
		t.Fatal(err)
	}
	return db
}

func reap(t *testing.T, db *store.DB, at time.Time) control.Plan {
	t.Helper()
	p := Plan(control.Input{Read: db.Snapshot(), All: true, Now: at})
	if ok, err := control.Apply(context.Background(), db, p); !ok || err != nil {
		t.Fatalf("apply: %v %v", ok, err)
	}
	return p
}

func left(db *store.DB) (keys []string) {
	snap := db.Snapshot()
	for x := range state.Tasks.All(snap) {
		keys = append(keys, x.ARN)
	}
	for x := range state.Services.All(snap) {
		keys = append(keys, x.ARN)
	}
	for x := range state.Events.All(snap) {
		keys = append(keys, "events of "+x.Service)
	}
	for x := range state.TaskDefinitions.All(snap) {
		keys = append(keys, x.ARN)
	}
	for x := range state.ContainerInstances.All(snap) {
		keys = append(keys, x.ARN)
	}
	return keys
}

func check(t *testing.T, db *store.DB, want ...string) {
	t.Helper()
	if got := left(db); !slices.Equal(got, want) {
		t.Errorf("left: %q\nwant: %q", got, want)
	}
}

func TestOnlyWhatEndedAnHourAgoGoes(t *testing.T) {
	db := open(t, func(tx *store.Tx) {
		state.Tasks.Put(tx, &state.Task{ARN: "task/old", LastStatus: state.Stopped, StoppedAt: now.Add(-time.Hour)})
		state.Tasks.Put(tx, &state.Task{ARN: "task/recent", LastStatus: state.Stopped, StoppedAt: now.Add(-20 * time.Minute)})
		state.Tasks.Put(tx, &state.Task{ARN: "task/running", LastStatus: state.Running, StoppedAt: now.Add(-time.Hour)})
		state.Services.Put(tx, &state.Service{ARN: "service/active", Status: "ACTIVE", DeletedAt: now.Add(-time.Hour)})
		state.Services.Put(tx, &state.Service{ARN: "service/old", Status: "INACTIVE", DeletedAt: now.Add(-time.Hour)})
		state.Services.Put(tx, &state.Service{ARN: "service/recent", Status: "INACTIVE", DeletedAt: now.Add(-time.Minute)})
		for _, s := range []string{"service/active", "service/old"} {
			state.Events.Put(tx, &state.ServiceEvents{Service: s})
		}
	})
	reap(t, db, now)
	check(t, db, "task/recent", "task/running", "service/active", "service/recent", "events of service/active")
	if p := reap(t, db, now); !p.Wake.Equal(now.Add(40 * time.Minute)) {
		t.Errorf("wakes at %v", p.Wake)
	}
	reap(t, db, now.Add(40*time.Minute))
	check(t, db, "task/running", "service/active", "service/recent", "events of service/active")
}

func TestManyGoInSteps(t *testing.T) {
	db := open(t, func(tx *store.Tx) {
		for i := range batch + 1 {
			state.Tasks.Put(tx, &state.Task{ARN: fmt.Sprint("task/", i), LastStatus: state.Stopped, StoppedAt: now.Add(-2 * time.Hour)})
		}
	})
	if p := reap(t, db, now); len(p.Changes) != batch || p.Wake.After(now) {
		t.Errorf("%d changes, wakes at %v", len(p.Changes), p.Wake)
	}
	reap(t, db, now)
	check(t, db)
}

func TestDeletedDefinitionsGoWhenNothingRefersToThem(t *testing.T) {
	const deleting = "DELETE_IN_PROGRESS"
	db := open(t, func(tx *store.Tx) {
		for name, status := range map[string]string{
			"active": "ACTIVE", "inactive": "INACTIVE", "free": deleting, "of-a-task": deleting, "of-a-stopped-task": deleting,
			"of-a-service": deleting, "of-a-deployment": deleting, "of-a-rollback": deleting, "of-an-inactive-service": deleting,
		} {
			state.TaskDefinitions.Put(tx, &state.TaskDefinition{ARN: name, Status: status})
		}
		state.Tasks.Put(tx, &state.Task{ARN: "task/1", TaskDefinition: "of-a-task", LastStatus: state.Stopping})
		state.Tasks.Put(tx, &state.Task{ARN: "task/2", TaskDefinition: "of-a-stopped-task", LastStatus: state.Stopped, StoppedAt: now})
		state.Services.Put(tx, &state.Service{ARN: "service/1", Status: "DRAINING", TaskDefinition: "of-a-service",
			Deployments: []state.Deployment{{TaskDefinition: "of-a-deployment"}}, LastCompleted: &state.Deployment{TaskDefinition: "of-a-rollback"}})
		state.Services.Put(tx, &state.Service{ARN: "service/2", Status: "INACTIVE", TaskDefinition: "of-an-inactive-service", DeletedAt: now})
	})
	reap(t, db, now)
	check(t, db, "task/1", "task/2", "service/1", "service/2", "active", "inactive", "of-a-deployment", "of-a-rollback", "of-a-service", "of-a-task")

	// What goes with the hour frees what it referred to at once.
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.Tasks.Put(tx, &state.Task{ARN: "task/1", TaskDefinition: "of-a-task", LastStatus: state.Stopped, StoppedAt: now})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	p := reap(t, db, now.Add(time.Hour))
	if p.Wake.After(now.Add(time.Hour)) {
		t.Errorf("wakes at %v", p.Wake)
	}
	reap(t, db, now.Add(time.Hour))
	check(t, db, "service/1", "active", "inactive", "of-a-deployment", "of-a-rollback", "of-a-service")
}

func TestDeregisteredInstancesGo(t *testing.T) {
	db := open(t, func(tx *store.Tx) {
		state.ContainerInstances.Put(tx, &state.ContainerInstance{ARN: "instance/active", Status: "ACTIVE", DeregisteredAt: now.Add(-2 * time.Hour)})
		state.ContainerInstances.Put(tx, &state.ContainerInstance{ARN: "instance/old", Status: "INACTIVE", DeregisteredAt: now.Add(-time.Hour)})
		state.ContainerInstances.Put(tx, &state.ContainerInstance{ARN: "instance/recent", Status: "INACTIVE", DeregisteredAt: now.Add(-time.Minute)})
	})
	reap(t, db, now)
	check(t, db, "instance/active", "instance/recent")
}
