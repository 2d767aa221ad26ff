package reap

import (
	"testing"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func TestSessionsEndAndAreForgotten(t *testing.T) {
	db := open(t, func(tx *store.Tx) {
		for id, s := range map[string]*state.Session{
			"fresh":     {Status: state.SessionConnecting, CreatedAt: now.Add(time.Second - state.SessionWait)},
			"alone":     {Status: state.SessionConnecting, CreatedAt: now.Add(-state.SessionWait), Hash: []byte{1}},
			"long":      {Status: state.SessionConnected, CreatedAt: now.Add(-100 * keepSessions)},
			"yesterday": {Status: state.SessionTerminated, EndedAt: now.Add(time.Hour - keepSessions)},
			"old":       {Status: state.SessionFailed, EndedAt: now.Add(-keepSessions)},
		} {
			s.ID = id
			state.Sessions.Put(tx, s)
		}
	})
	p := PlanSessions(control.Input{Read: db.Snapshot(), All: true, Now: now})
	if ok, err := control.Apply(t.Context(), db, p); !ok || err != nil {
		t.Fatalf("apply: %v %v", ok, err)
	}
	if !p.Wake.Equal(now.Add(time.Second)) {
		t.Errorf("wakes at %v", p.Wake)
	}
	snap := db.Snapshot()
	for id, want := range map[string]string{"fresh": "Connecting", "alone": "Terminated", "long": "Connected", "yesterday": "Terminated", "old": ""} {
		s, ok := state.Sessions.Get(snap, id)
		if ok != (want != "") || ok && s.Status != want {
			t.Errorf("%s: %+v, want %q", id, s, want)
		}
	}
	if s, _ := state.Sessions.Get(snap, "alone"); !s.EndedAt.Equal(now) || s.Hash != nil {
		t.Errorf("ended as %+v", s)
	}
	if p := PlanSessions(control.Input{Read: snap, Now: now}); len(p.Changes) != 0 {
		t.Errorf("again %d changes", len(p.Changes))
	}
}
