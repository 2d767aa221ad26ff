package deploy

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// record gives the newest deployment the service deployment that the API gives it.
func (w *world) record() {
	w.update(func(tx *store.Tx) {
		s, _ := state.Services.Get(tx, w.arn)
		next := s.Clone()
		if old, ok := state.ServiceDeployments.Get(tx, s.ServiceDeployment); ok && !old.Finished() {
			n := old.Clone()
			n.Status = state.DeploymentStopRequested
			state.ServiceDeployments.Put(tx, n)
		}
		d := &state.ServiceDeployment{ARN: "service-deployment/" + w.id(), Service: w.arn, Status: state.DeploymentPending, BreakerStatus: "MONITORING",
			Target: state.RevisionCount{Revision: state.RevisionARN(w.arn, s.Deployments[0].ID)}, CreatedAt: w.now}
		for _, o := range s.Deployments[1:] {
			d.Sources = append(d.Sources, state.RevisionCount{Revision: state.RevisionARN(w.arn, o.ID)})
		}
		state.ServiceDeployments.Put(tx, d)
		next.ServiceDeployment = d.ARN
		state.Services.Put(tx, next)
	})
}

func (w *world) newest() *state.ServiceDeployment {
	d, ok := state.ServiceDeployments.Get(w.db.Snapshot(), w.service().ServiceDeployment)
	if !ok {
		w.t.Fatalf("the service has no service deployment")
	}
	return d
}

// ask does what StopServiceDeployment does.
func (w *world) ask(status string) {
	w.update(func(tx *store.Tx) {
		s, _ := state.Services.Get(tx, w.arn)
		d, _ := state.ServiceDeployments.Get(tx, s.ServiceDeployment)
		n := d.Clone()
		n.Status = status
		state.ServiceDeployments.Put(tx, n)
	})
}

var order = map[string]int{
	state.DeploymentPending: 0, state.DeploymentInProgress: 1, state.DeploymentStopRequested: 2, state.DeploymentRollbackRequested: 2,
	state.DeploymentRollbackInProgress: 3, state.DeploymentSuccessful: 4, state.DeploymentStopped: 4, state.DeploymentRollbackSuccessful: 4, state.DeploymentRollbackFailed: 4,
}

// Whatever users and machines do, a service deployment moves only forward, at
// most one has not finished, and in the end the service runs what it should.
func TestServiceDeploymentsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c *ecs.DeploymentConfiguration
		if rapid.Bool().Draw(t, "breaker") {
			c = breakerOn(rapid.Bool().Draw(t, "rollback"))
		}
		desired := rapid.IntRange(1, 3).Draw(t, "desired")
		w := newWorld(t, desired, c)
		w.record()
		w.settle()
		seen := map[string]string{}
		look := func() {
			open := 0
			for d := range state.ServiceDeployments.All(w.db.Snapshot()) {
				if old, ok := seen[d.ARN]; ok && order[d.Status] < order[old] {
					t.Fatalf("a service deployment went from %s to %s", old, d.Status)
				}
				if order[seen[d.ARN]] == 4 && seen[d.ARN] != d.Status {
					t.Fatalf("a service deployment that was %s is %s", seen[d.ARN], d.Status)
				}
				seen[d.ARN] = d.Status
				if !d.Finished() {
					open++
				}
				if d.Finished() == d.FinishedAt.IsZero() {
					t.Fatalf("%s finished at %v", d.Status, d.FinishedAt)
				}
			}
			if open > 1 {
				t.Fatalf("%d service deployments have not finished", open)
			}
		}
		revision := 1
		for range rapid.IntRange(1, 14).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				revision++
				w.deploy(revision)
				w.record()
			case 1:
				if d := w.newest(); d.Status == state.DeploymentPending || d.Status == state.DeploymentInProgress {
					w.ask(state.DeploymentRollbackRequested)
				}
			case 2:
				if d := w.newest(); d.Status == state.DeploymentPending || d.Status == state.DeploymentInProgress {
					w.ask(state.DeploymentStopRequested)
				}
			default:
				if ts := w.tasks(); len(ts) > 0 {
					w.step(rapid.SampledFrom(ts).Draw(t, "task"), rapid.Bool().Draw(t, "fails"))
				}
			}
			w.plan()
			look()
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
		}
		// A last deployment ends well, whatever came before.
		revision++
		w.deploy(revision)
		w.record()
		w.now = w.now.Add(time.Hour)
		w.settle()
		look()
		if d := w.newest(); d.Status != state.DeploymentSuccessful || d.Target.Running != desired {
			t.Fatalf("%+v", d)
		}
		if got := w.running(fmt.Sprint("td:", revision)); got != desired || w.running("") != desired {
			t.Fatalf("%d run the last revision, %d in all, want %d", got, w.running(""), desired)
		}
	})
}

// A rollback that a user asks for ends with the revision that ran before, at
// whatever moment it is asked for.
func TestRollbackAtAnyTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desired := rapid.IntRange(1, 3).Draw(t, "desired")
		w := newWorld(t, desired, nil)
		w.record()
		w.settle()
		good := w.service().Deployments[0].ID
		w.deploy(2)
		w.record()
		for range rapid.IntRange(0, 8).Draw(t, "steps") {
			w.plan()
			w.step(rapid.SampledFrom(w.tasks()).Draw(t, "task"), false)
			w.now = w.now.Add(time.Second)
		}
		if w.newest().Finished() {
			return
		}
		w.ask(state.DeploymentRollbackRequested)
		w.plan()
		w.settle()
		d := w.newest()
		if d.Status != state.DeploymentRollbackSuccessful || d.Rollback == nil || d.Rollback.Revision != state.RevisionARN(w.arn, good) {
			t.Fatalf("%+v", d)
		}
		if w.running("td:1") != desired || w.running("") != desired || w.service().TaskDefinition != "td:1" {
			t.Fatalf("%d of td:1, %d in all", w.running("td:1"), w.running(""))
		}
	})
}

// protect is what UpdateTaskProtection does.
func (w *world) protect(x *state.Task, until time.Time) {
	w.change(x, func(n *state.Task) { n.ProtectedUntil = until })
}

// No plan stops a protected task for a deployment or for a smaller count, the
// bounds hold around it, and it all ends when protection does.
func TestProtectedTasksStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desired := rapid.IntRange(1, 4).Draw(t, "desired")
		minimum := rapid.SampledFrom([]int32{0, 50, 100}).Draw(t, "minimum")
		w := newWorld(t, desired, &ecs.DeploymentConfiguration{MinimumHealthyPercent: &minimum, MaximumPercent: new(int32(200))})
		w.settle()
		most := desired
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				w.deploy(rapid.IntRange(2, 4).Draw(t, "revision"))
			case 1:
				desired = rapid.IntRange(0, 4).Draw(t, "scale")
				most = max(most, desired)
				w.scale(desired)
			case 2:
				if ts := w.tasks(); len(ts) > 0 {
					w.protect(rapid.SampledFrom(ts).Draw(t, "protect"), w.now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "minutes"))*time.Minute))
				}
			default:
				if ts := w.tasks(); len(ts) > 0 {
					w.step(rapid.SampledFrom(ts).Draw(t, "task"), false)
				}
			}
			before := w.tasks()
			w.plan()
			live := 0
			for _, x := range w.tasks() {
				if x.DesiredStatus == state.Running && x.LastStatus != state.Stopped {
					live++
				}
			}
			for _, x := range before {
				now, _ := state.Tasks.Get(w.db.Snapshot(), x.ARN)
				if x.Protected(w.now) && x.DesiredStatus == state.Running && now.DesiredStatus != state.Running {
					t.Fatalf("a protected task was stopped: %s", now.StoppedReason)
				}
			}
			if live > 2*most {
				t.Fatalf("%d tasks are wanted, at most %d", live, 2*most)
			}
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 1200).Draw(t, "seconds")) * time.Second)
		}
		w.now = w.now.Add(101 * time.Minute)
		w.settle()
		if got := w.running(""); got != desired || len(w.service().Deployments) != 1 || w.service().Protection.Message != "" {
			t.Fatalf("%d tasks, want %d; %+v", got, desired, w.service())
		}
	})
}

// A plan that waits for protected tasks wakes when the first protection ends,
// without anything else happening.
func TestProtectionWakes(t *testing.T) {
	w := newWorld(t, 2, nil)
	w.settle()
	w.now = w.now.Add(time.Minute)
	ts := w.tasks()
	w.protect(ts[0], w.now.Add(20*time.Minute))
	w.protect(ts[1], w.now.Add(10*time.Minute))
	w.scale(0)
	if wake := w.plan(); !wake.Equal(w.now.Add(10 * time.Minute)) {
		t.Fatalf("wakes at %v, now %v", wake, w.now)
	}
}

// Unhealthy tasks are replaced although they are protected.
func TestProtectionIsNotFromHealthChecks(t *testing.T) {
	w := newWorld(t, 1, nil)
	w.settle()
	sick := w.tasks()[0]
	w.protect(sick, w.now.Add(time.Hour))
	w.change(w.tasks()[0], func(n *state.Task) { n.Health = "UNHEALTHY" })
	w.settle()
	if x, _ := state.Tasks.Get(w.db.Snapshot(), sick.ARN); x.StoppedReason != "Task failed container health checks" {
		t.Fatalf("%+v", x)
	}
}

// external turns the service into one with task sets.
func (w *world) external() {
	w.update(func(tx *store.Tx) {
		s, _ := state.Services.Get(tx, w.arn)
		n := s.Clone()
		n.DeploymentController = &ecs.DeploymentController{Type: ecs.DeploymentControllerTypeExternal}
		n.Deployments = nil
		state.Services.Put(tx, n)
	})
}

func (w *world) setScale(id string, scale float64, status string) {
	w.update(func(tx *store.Tx) {
		n := &state.TaskSet{ARN: "task-set/" + id, ID: id, CreatedAt: w.now}
		if have, ok := state.TaskSets.Get(tx, n.ARN); ok {
			*n = *have
		}
		n.Service, n.TaskDefinition, n.Scale, n.Status, n.Stability = w.arn, "td:1", scale, status, "STABILIZING"
		state.TaskSets.Put(tx, n)
	})
}

// Each set gets to its share, never beyond it, and a drained one goes.
func TestTaskSetsKeepTheirShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, 0, nil)
		w.external()
		ids := []string{"ecs-svc/1", "ecs-svc/2", "ecs-svc/3"}
		scales := map[string]float64{}
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				w.scale(rapid.IntRange(0, 5).Draw(t, "desired"))
			case 1:
				id := rapid.SampledFrom(ids).Draw(t, "set")
				if s, ok := state.TaskSets.Get(w.db.Snapshot(), "task-set/"+id); ok && s.Status == "DRAINING" {
					continue
				}
				scales[id] = float64(rapid.IntRange(0, 1000).Draw(t, "scale")) / 10
				w.setScale(id, scales[id], "ACTIVE")
			case 2:
				id := rapid.SampledFrom(ids).Draw(t, "set")
				if _, ok := scales[id]; ok {
					w.setScale(id, scales[id], "DRAINING")
					delete(scales, id)
				}
			default:
				if ts := w.tasks(); len(ts) > 0 {
					w.step(rapid.SampledFrom(ts).Draw(t, "task"), rapid.Bool().Draw(t, "fails"))
				}
			}
			w.plan()
			for s := range state.TaskSets.All(w.db.Snapshot()) {
				live := 0
				for _, x := range w.tasks() {
					if x.Deployment == s.ID && x.DesiredStatus == state.Running && x.LastStatus != state.Stopped {
						live++
					}
				}
				if live > s.Desired(w.service().DesiredCount) {
					t.Fatalf("%d tasks of %s, its share is %d", live, s.ID, s.Desired(w.service().DesiredCount))
				}
			}
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second)
		}
		w.now = w.now.Add(time.Hour) // past any throttle
		for range 6 {
			w.plan()
			for _, x := range w.tasks() {
				w.step(x, false)
			}
			w.now = w.now.Add(time.Minute)
		}
		w.plan()
		n := 0
		for s := range state.TaskSets.All(w.db.Snapshot()) {
			n++
			running := 0
			for _, x := range w.tasks() {
				if x.Deployment == s.ID && x.LastStatus == state.Running {
					running++
				}
			}
			if s.Stability != "STEADY_STATE" || running != s.Desired(w.service().DesiredCount) {
				t.Fatalf("%s: %d tasks of %d, %s", s.ID, running, s.Desired(w.service().DesiredCount), s.Stability)
			}
		}
		if n != len(scales) {
			t.Fatalf("%d task sets, want %d", n, len(scales))
		}
	})
}

func TestShareOfATaskSet(t *testing.T) {
	for _, c := range []struct {
		scale   float64
		n, want int
	}{{0, 10, 0}, {100, 10, 10}, {50, 3, 2}, {0.1, 3, 1}, {3.3, 1000, 33}, {33.3, 1000, 333}, {33.34, 1000, 334}, {100, 0, 0}} {
		s := state.TaskSet{Scale: c.scale, Status: "ACTIVE"}
		if got := s.Desired(c.n); got != c.want {
			t.Errorf("%v %% of %d: %d, want %d", c.scale, c.n, got, c.want)
		}
	}
}

// A change of a service deployment or a task set alone makes a plan.
func TestPlansWhatChanged(t *testing.T) {
	w := newWorld(t, 1, nil)
	w.record()
	w.settle()
	w.deploy(2)
	w.record()
	w.plan()
	watch := w.db.Watch(state.Services, state.Tasks, state.ServiceDeployments, state.TaskSets)
	defer watch.Close()
	if _, _, err := watch.Next(t.Context()); err != nil { // all there is
		t.Fatal(err)
	}
	w.ask(state.DeploymentRollbackRequested)
	snap, changed, err := watch.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := Plan(control.Input{Read: snap, Changed: changed, Now: w.now, NewID: w.id}, Settings{})
	if len(p.Changes) == 0 {
		t.Error("nobody looked at the request to stop")
	}
}

// While a new revision does not get anywhere, tasks of the old one that end are
// replaced by their like, and the service keeps what its minimum asks for.
func TestOldRevisionHoldsTheMinimum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desired := rapid.IntRange(1, 3).Draw(t, "desired")
		var c *ecs.DeploymentConfiguration
		if rapid.Bool().Draw(t, "breaker") {
			c = breakerOn(false)
		}
		w := newWorld(t, desired, c)
		w.record()
		w.settle()
		w.deploy(2)
		w.record()
		if rapid.Bool().Draw(t, "abort") {
			w.ask(state.DeploymentStopRequested)
		}
		for range rapid.IntRange(1, 10).Draw(t, "rounds") {
			w.plan()
			for _, x := range w.tasks() {
				w.step(x, x.TaskDefinition == "td:2")
			}
			w.now = w.now.Add(time.Minute)
			w.plan()
			if ts := w.tasks(); rapid.Bool().Draw(t, "dies") {
				x := rapid.SampledFrom(ts).Draw(t, "task")
				w.step(x, true)
			}
		}
		for range 6 {
			w.plan()
			for _, x := range w.tasks() {
				w.step(x, x.TaskDefinition == "td:2")
			}
			w.now = w.now.Add(30 * time.Minute)
		}
		if got := w.running("td:1"); got != desired {
			t.Fatalf("%d tasks of the old revision run, want %d: %+v", got, desired, w.service().Deployments)
		}
		// The next revision still replaces all of it.
		w.deploy(3)
		w.record()
		w.now = w.now.Add(time.Hour)
		w.settle()
		if w.running("td:3") != desired || w.running("") != desired {
			t.Fatalf("%d of td:3, %d in all", w.running("td:3"), w.running(""))
		}
	})
}

// An old revision that does not start any more is not tried without end.
func TestRefillsSlowDown(t *testing.T) {
	w := newWorld(t, 1, breakerOn(false))
	w.record()
	w.settle()
	w.deploy(2)
	w.record()
	w.ask(state.DeploymentStopRequested)
	w.now = w.now.Add(time.Minute)
	for range 600 {
		w.plan()
		for _, x := range w.tasks() {
			w.step(x, true)
		}
		w.now = w.now.Add(time.Second)
	}
	if n := len(w.tasks()); n < 8 || n > 20 {
		t.Fatalf("%d tasks in ten minutes", n)
	}
}
