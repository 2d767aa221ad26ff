package deploy

import (
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A service starts as many tasks as the account's vCPUs are enough for, says so
// once, and goes on when there is room again.
func TestVCPUQuota(t *testing.T) {
	w := newWorld(t, 6, nil)
	w.update(func(tx *store.Tx) {
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: "ecs/fargate-vcpus", Value: 1})
		td, _ := state.TaskDefinitions.Get(tx, "td:1")
		n := *td
		n.Doc.Cpu = new("256")
		state.TaskDefinitions.Put(tx, &n)
	})
	said := func() (n int) {
		for _, m := range w.messages() {
			if strings.HasSuffix(m, "(service web) was unable to place a task. Reason: You've reached the limit on the number of vCPUs you can run concurrently.") {
				n++
			}
		}
		return n
	}
	wake := w.plan()
	if n := len(w.tasks()); n != 4 {
		t.Fatalf("%d tasks, want 4", n)
	}
	if !wake.After(w.now) || said() != 1 {
		t.Errorf("looks again at %v, said %d times: %v", wake, said(), w.messages())
	}
	for range 3 {
		w.now = w.now.Add(time.Minute)
		w.plan()
	}
	if n := len(w.tasks()); n != 4 || said() != 1 {
		t.Errorf("%d tasks, said %d times", n, said())
	}
	w.update(func(tx *store.Tx) {
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: "ecs/fargate-vcpus", Value: 2})
	})
	w.now = w.now.Add(time.Minute)
	w.plan()
	if n := len(w.tasks()); n != 6 {
		t.Errorf("%d tasks with room for 8, want 6", n)
	}
	if w.service().SaidNoRoom.Message != "" {
		t.Error("the cause is gone, and yet remembered")
	}
}
