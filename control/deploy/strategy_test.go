package deploy

import (
	"maps"
	"testing"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Tasks go where the strategy of their deployment wants them, also those that
// come later and those that replace others.
func TestStrategyPlacesTasks(t *testing.T) {
	w := newWorld(t, 6, nil)
	w.update(func(tx *store.Tx) {
		s, _ := state.Services.Get(tx, w.arn)
		n := s.Clone()
		n.Deployments[0].LaunchType = ""
		n.Deployments[0].CapacityProviderStrategy = []ecs.CapacityProviderStrategyItem{
			{CapacityProvider: new("FARGATE"), Base: new(int32(2)), Weight: new(int32(1))},
			{CapacityProvider: new("FARGATE_SPOT"), Base: new(int32(0)), Weight: new(int32(3))},
		}
		state.Services.Put(tx, n)
	})
	on := func() map[string]int {
		got := map[string]int{}
		for task := range state.Tasks.All(w.db.Snapshot()) {
			if task.DesiredStatus == state.Running && task.LastStatus != state.Stopped {
				got[task.CapacityProvider]++
				if task.LaunchType != "FARGATE" {
					t.Errorf("a task has launch type %q", task.LaunchType)
				}
			}
		}
		return got
	}
	w.plan()
	if got, want := on(), (map[string]int{"FARGATE": 3, "FARGATE_SPOT": 3}); !maps.Equal(got, want) {
		t.Errorf("six tasks are on %v, want %v", got, want)
	}
	w.scale(10)
	w.plan()
	if got, want := on(), (map[string]int{"FARGATE": 4, "FARGATE_SPOT": 6}); !maps.Equal(got, want) {
		t.Errorf("ten tasks are on %v, want %v", got, want)
	}
	// The base is filled again before anything else.
	w.update(func(tx *store.Tx) {
		for task := range state.Tasks.All(tx) {
			if task.CapacityProvider == "FARGATE" {
				n := task.Clone()
				n.WantStop("UserInitiated", "x", w.now)
				n.End(w.now)
				state.Tasks.Put(tx, n)
			}
		}
	})
	w.plan()
	if got := on(); got["FARGATE"] < 2 || got["FARGATE"]+got["FARGATE_SPOT"] != 10 {
		t.Errorf("after the loss of one provider's tasks they are on %v", got)
	}
}
