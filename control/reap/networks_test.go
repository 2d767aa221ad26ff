package reap

import (
	"slices"
	"testing"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func TestPeeringsThatEndedAreForgotten(t *testing.T) {
	db := store.OpenMemory()
	defer db.Close()
	began := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		for id, status := range map[string]string{"pcx-1": "active", "pcx-2": "deleted", "pcx-3": "failed", "pcx-4": "rejected", "pcx-5": "pending-acceptance"} {
			p := &state.Peering{ID: id, Status: status, CreatedAt: began}
			if status != "active" && status != "pending-acceptance" {
				p.EndedAt = began
			}
			state.Peerings.Put(tx, p)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		after time.Duration
		left  []string
		wake  time.Duration
	}{
		{time.Hour, []string{"pcx-1", "pcx-2", "pcx-3", "pcx-4", "pcx-5"}, 2 * time.Hour},
		{2 * time.Hour, []string{"pcx-1", "pcx-4", "pcx-5"}, 48 * time.Hour},
		{48 * time.Hour, []string{"pcx-1", "pcx-5"}, 9 * 24 * time.Hour},
		{9 * 24 * time.Hour, []string{"pcx-1"}, 0},
	} {
		p := PlanNetworks(control.Input{Read: db.Snapshot(), All: true, Now: began.Add(x.after)})
		if ok, err := control.Apply(t.Context(), db, p); err != nil || !ok {
			t.Fatal(ok, err)
		}
		var left []string
		for p := range state.Peerings.All(db.Snapshot()) {
			left = append(left, p.ID)
		}
		var wake time.Duration
		if !p.Wake.IsZero() {
			wake = p.Wake.Sub(began)
		}
		if !slices.Equal(left, x.left) || wake != x.wake {
			t.Errorf("after %s: %q, looks again after %s", x.after, left, wake)
		}
	}
}
