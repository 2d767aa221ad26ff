package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const (
	keepTwo = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":2},"action":{"type":"expire"}}]}`
	oldGo   = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":7},"action":{"type":"expire"}}]}`
	toCold  = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":7},"action":{"type":"transition","targetStorageClass":"archive"}}]}`
)

func open(t *testing.T, rows func(*store.Tx)) *store.DB {
	t.Helper()
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	update(t, db, rows)
	return db
}

func update(t *testing.T, db *store.DB, rows func(*store.Tx)) {
	t.Helper()
	if err := db.Update(t.Context(), func(tx *store.Tx) error { rows(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

// repo makes a repository with images that are 1, 2, 3 … days old.
func repo(tx *store.Tx, name, policy string, images int) {
	state.Repositories.Put(tx, &state.Repository{Account: "1", Name: name, Lifecycle: policy})
	for n := range images {
		d := fmt.Sprintf("d%03d", n+1)
		state.Images.Put(tx, &state.Image{Repository: "1/" + name, Digest: d, PushedAt: now.AddDate(0, 0, -n-1)})
		state.ImageTags.Put(tx, &state.ImageTag{Repository: "1/" + name, Tag: "t" + d, Digest: d})
	}
}

// run plans and applies until nothing is left to do at that time.
func run(t *testing.T, db *store.DB, at time.Time) control.Plan {
	t.Helper()
	for range 100 {
		p := Plan(control.Input{Read: db.Snapshot(), All: true, Now: at})
		if ok, err := control.Apply(context.Background(), db, p); !ok || err != nil {
			t.Fatalf("apply: %v %v", ok, err)
		}
		if p.Wake.IsZero() || p.Wake.After(at) {
			return p
		}
	}
	t.Fatal("no end")
	return control.Plan{}
}

func left(db *store.DB, name string) string {
	var s []string
	snap := db.Snapshot()
	for i := range state.Images.Prefix(snap, "1/"+name+"@") {
		d := i.Digest
		if i.Archived() {
			d += " archived"
		}
		s = append(s, d)
	}
	tags := 0
	for tag := range state.ImageTags.Prefix(snap, "1/"+name+":") {
		if !state.Images.Has(snap, state.ImageKey(tag.Repository, tag.Digest)) {
			s = append(s, "loose tag "+tag.Tag)
		}
		tags++
	}
	return fmt.Sprint(strings.Join(s, ","), " ", tags)
}

func TestPlan(t *testing.T) {
	db := open(t, func(tx *store.Tx) {
		repo(tx, "app", keepTwo, 4)
		repo(tx, "app2", "", 4) // no policy
		repo(tx, "old", oldGo, 8)
		repo(tx, "cold", toCold, 8)
		repo(tx, "broken", "{", 1)
	})
	p := run(t, db, now)
	for name, want := range map[string]string{
		"app": "d001,d002 2", "app2": "d001,d002,d003,d004 4", "old": "d001,d002,d003,d004,d005,d006 6",
		"cold": "d001,d002,d003,d004,d005,d006,d007 archived,d008 archived 8", "broken": "d001 1",
	} {
		if got := left(db, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if want := now.AddDate(0, 0, 1); !p.Wake.Equal(want) {
		t.Errorf("wakes at %v, want %v", p.Wake, want)
	}
	if r, ok := state.LifecycleRuns.Get(db.Snapshot(), "1/app"); !ok || !r.At.Equal(now) {
		t.Error("the run is not recorded")
	}
	// Nothing is left to do, and so nothing is written.
	if p := Plan(control.Input{Read: db.Snapshot(), All: true, Now: now}); len(p.Changes) != 0 {
		t.Errorf("%d changes without a change", len(p.Changes))
	}
	run(t, db, now.AddDate(0, 0, 1))
	if got := left(db, "old"); got != "d001,d002,d003,d004,d005 5" {
		t.Error(got)
	}
}

// What changed is looked at, and the moment of what did not is kept.
func TestChanged(t *testing.T) {
	db := open(t, func(tx *store.Tx) {
		repo(tx, "app", keepTwo, 2)
		repo(tx, "old", oldGo, 2)
	})
	run(t, db, now)
	w := db.Watch(Controller.Reads...)
	defer w.Close()
	if _, _, err := w.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *store.Tx) {
		state.Images.Put(tx, &state.Image{Repository: "1/app", Digest: "new", PushedAt: now})
	})
	snap, changed, err := w.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := Plan(control.Input{Read: snap, Changed: changed, Now: now})
	if ok, err := control.Apply(t.Context(), db, p); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if got := left(db, "app"); got != "d001,new 1" {
		t.Error(got)
	}
	if want := now.AddDate(0, 0, 1); p.Wake.After(want) {
		t.Errorf("wakes at %v, and forgets what is due at %v", p.Wake, now.AddDate(0, 0, 5))
	}
}

// An index that comes while a plan is made keeps its image.
func TestStale(t *testing.T) {
	for name, between := range map[string]func(*store.Tx){
		"index": func(tx *store.Tx) {
			state.Images.Put(tx, &state.Image{Repository: "1/app", Digest: "list", Manifests: []string{"d004"}, PushedAt: now})
		},
		"tag": func(tx *store.Tx) {
			state.ImageTags.Put(tx, &state.ImageTag{Repository: "1/app", Tag: "more", Digest: "d004"})
		},
		"gone":   func(tx *store.Tx) { state.Images.Delete(tx, "1/app@d001") },
		"policy": func(tx *store.Tx) { state.Repositories.Put(tx, &state.Repository{Account: "1", Name: "app"}) },
	} {
		db := open(t, func(tx *store.Tx) { repo(tx, "app", keepTwo, 4) })
		p := Plan(control.Input{Read: db.Snapshot(), All: true, Now: now})
		update(t, db, between)
		if ok, err := control.Apply(t.Context(), db, p); ok || err != nil {
			t.Errorf("%s: a plan of yesterday was applied: %v %v", name, ok, err)
		}
	}
}

// Much is done in several transactions, of which none is too large.
func TestBatches(t *testing.T) {
	db := open(t, func(tx *store.Tx) { repo(tx, "app", keepTwo, 900) })
	p := Plan(control.Input{Read: db.Snapshot(), All: true, Now: now})
	if len(p.Changes) > batch+3 {
		t.Errorf("%d changes at once", len(p.Changes))
	}
	run(t, db, now)
	if got := left(db, "app"); got != "d001,d002 2" {
		t.Error(got)
	}
	if !slices.ContainsFunc(slices.Collect(state.LifecycleRuns.All(db.Snapshot())), func(r *state.LifecycleRun) bool { return r.Repository == "1/app" }) {
		t.Error("the run is not recorded")
	}
}
