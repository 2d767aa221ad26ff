package deploy

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// fataler is what *testing.T and *rapid.T have in common.
type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// world is a region in which the test plays the machines.
type world struct {
	t   fataler
	db  *store.DB
	now time.Time
	ids int
	arn string
}

const account = "000000000000"

func newWorld(t fataler, desired int, c *ecs.DeploymentConfiguration) *world {
	w := &world{t: t, db: store.OpenMemory(), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), arn: "arn:aws:ecs:us-east-1:" + account + ":service/c/web"}
	w.update(func(tx *store.Tx) {
		state.Regions.Put(tx, &state.Region{Name: "us-east-1", Account: account})
		state.Clusters.Put(tx, &state.Cluster{ARN: "cluster/c", Name: "c", Account: account})
		s := &state.Service{ARN: w.arn, Account: account, Cluster: "cluster/c", Name: "web", Status: "ACTIVE", DesiredCount: desired, DeploymentConfiguration: c}
		state.Services.Put(tx, s)
	})
	w.deploy(1)
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
	return fmt.Sprintf("%032x", w.ids)
}

// deploy does what UpdateService does: a new deployment of revision n.
func (w *world) deploy(n int) {
	w.update(func(tx *store.Tx) {
		td := &state.TaskDefinition{ARN: fmt.Sprint("td:", n), Account: account, Family: "td", Revision: n, Status: "ACTIVE",
			Doc: ecs.TaskDefinition{ContainerDefinitions: []ecs.ContainerDefinition{{Name: new("web")}}}}
		state.TaskDefinitions.Put(tx, td)
		s, _ := state.Services.Get(tx, w.arn)
		next := s.Clone()
		for i := range next.Deployments {
			next.Deployments[i].Status = "ACTIVE"
		}
		next.TaskDefinition = td.ARN
		d := state.Deployment{ID: "ecs-svc/" + w.id()[13:], Status: "PRIMARY", TaskDefinition: td.ARN, DesiredCount: s.DesiredCount, LaunchType: "FARGATE",
			RolloutState: "IN_PROGRESS", CreatedAt: w.now}
		next.Deployments = append([]state.Deployment{d}, next.Deployments...)
		next.Impaired, next.NextStart = 0, time.Time{}
		state.Services.Put(tx, next)
	})
}

func (w *world) scale(n int) {
	w.update(func(tx *store.Tx) {
		s, _ := state.Services.Get(tx, w.arn)
		next := s.Clone()
		next.DesiredCount = n
		state.Services.Put(tx, next)
	})
}

// plan plans until nothing changes any more, and returns the time asked for.
func (w *world) plan() time.Time {
	w.t.Helper()
	for range 50 {
		p := Plan(control.Input{Read: w.db.Snapshot(), All: true, Now: w.now, NewID: w.id}, Settings{HealthyAfter: 5 * time.Second})
		if len(p.Changes) == 0 {
			return p.Wake
		}
		if ok, err := control.Apply(context.Background(), w.db, p); err != nil || !ok {
			w.t.Fatalf("apply: %v %v", ok, err)
		}
	}
	w.t.Fatalf("plans never end: %+v", w.service())
	return time.Time{}
}

func (w *world) service() *state.Service {
	s, _ := state.Services.Get(w.db.Snapshot(), w.arn)
	return s
}

func (w *world) tasks() (ts []*state.Task) {
	for t := range state.Tasks.By(w.db.Snapshot(), "service", w.arn) {
		ts = append(ts, t)
	}
	slices.SortFunc(ts, func(a, b *state.Task) int { return strings.Compare(a.ARN, b.ARN) })
	return ts
}

func (w *world) change(t *state.Task, f func(*state.Task)) {
	w.update(func(tx *store.Tx) {
		n := t.Clone()
		f(n)
		state.Tasks.Put(tx, n)
	})
}

// step lets a machine do the next thing with a task: run it, or stop it.
func (w *world) step(t *state.Task, fail bool) {
	w.change(t, func(n *state.Task) {
		switch {
		case n.LastStatus == state.Stopped:
		case n.DesiredStatus == state.Stopped:
			n.Advance(state.Stopped)
			n.StoppedAt = w.now
		case fail && n.LastStatus != state.Running:
			n.WantStop("TaskFailedToStart", "CannotPullContainerError: no", w.now)
			n.Advance(state.Stopped)
		case fail:
			n.WantStop("EssentialContainerExited", "Essential container in task exited", w.now)
			n.Advance(state.Stopped)
		case n.LastStatus != state.Running:
			n.Advance(state.Running)
			n.StartedAt = w.now
		}
	})
}

// settle steps everything, healthily, until the service is steady.
func (w *world) settle() {
	w.t.Helper()
	for range 200 {
		w.plan()
		for _, t := range w.tasks() {
			w.step(t, false)
		}
		w.now = w.now.Add(time.Second)
		if s := w.service(); s.Status == "INACTIVE" || !s.SteadyAt.IsZero() && len(s.Deployments) == 1 {
			w.plan()
			return
		}
	}
	w.t.Fatalf("never steady: %+v\ntasks %d\nevents %v", w.service(), len(w.tasks()), w.messages())
}

func (w *world) messages() (out []string) {
	if e, ok := state.Events.Get(w.db.Snapshot(), w.arn); ok {
		for _, x := range e.Events {
			out = append(out, x.Message)
		}
	}
	return out
}

func (w *world) running(td string) (n int) {
	for _, t := range w.tasks() {
		if t.LastStatus == state.Running && t.DesiredStatus == state.Running && (td == "" || t.TaskDefinition == td) {
			n++
		}
	}
	return n
}

func TestFirstDeployment(t *testing.T) {
	w := newWorld(t, 2, nil)
	w.settle()
	s := w.service()
	if s.Deployments[0].RolloutState != "COMPLETED" || w.running("td:1") != 2 {
		t.Fatalf("%+v, %d running", s.Deployments[0], w.running(""))
	}
	got := w.messages()
	id := s.Deployments[0].ID
	want := []string{
		"(service web) has reached a steady state.",
		"(service web) (deployment " + id + ") deployment completed.",
	}
	if len(got) != 3 || !slices.Equal(got[:2], want) || !strings.HasPrefix(got[2], "(service web) has started 2 tasks: (task ") {
		t.Fatalf("events %q", got)
	}
	w.now = w.now.Add(10 * time.Second)
	if again := w.plan(); again.Sub(w.now) < 5*time.Hour {
		t.Fatalf("a steady service wakes at %v, now %v", again, w.now)
	}
}

func TestSteadyStateIsRepeated(t *testing.T) {
	w := newWorld(t, 1, nil)
	w.settle()
	n := len(w.messages())
	w.now = w.now.Add(5 * time.Hour)
	w.plan()
	if len(w.messages()) != n {
		t.Fatalf("repeated too early: %q", w.messages())
	}
	w.now = w.now.Add(2 * time.Hour)
	w.plan()
	if got := w.messages(); len(got) != n+1 || got[0] != "(service web) has reached a steady state." {
		t.Fatalf("not repeated: %q", got)
	}
}

// The bounds hold whatever the machines do, and it ends where it should.
func TestRollingStaysWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desired := rapid.IntRange(0, 3).Draw(t, "desired")
		minimum := rapid.SampledFrom([]int32{0, 50, 75, 100}).Draw(t, "minimum")
		maximum := rapid.SampledFrom([]int32{100, 125, 150, 200}).Draw(t, "maximum")
		if minimum == 100 && maximum == 100 {
			maximum = 200 // that cannot move, and says so: see TestBlocked
		}
		w := newWorld(t, desired, &ecs.DeploymentConfiguration{MinimumHealthyPercent: &minimum, MaximumPercent: &maximum})
		w.settle()
		w.deploy(2)
		floor := int(math.Ceil(float64(desired) * float64(minimum) / 100))
		ceiling := int(math.Floor(float64(desired) * float64(maximum) / 100))
		// With few tasks the bounds can leave no room at all.
		if ceiling <= desired && floor >= desired {
			return
		}
		for range rapid.IntRange(0, 12).Draw(t, "steps") {
			w.plan()
			live, healthy := 0, 0
			for _, x := range w.tasks() {
				if x.DesiredStatus == state.Running && x.LastStatus != state.Stopped {
					live++
					if x.LastStatus == state.Running {
						healthy++
					}
				}
			}
			if live > max(ceiling, desired) {
				t.Fatalf("%d tasks, at most %d", live, ceiling)
			}
			if healthy < min(floor, desired) {
				t.Fatalf("%d healthy tasks, at least %d", healthy, floor)
			}
			ts := w.tasks()
			if len(ts) > 0 {
				w.step(rapid.SampledFrom(ts).Draw(t, "task"), false)
			}
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 6).Draw(t, "seconds")) * time.Second)
		}
		w.settle()
		if got := w.running("td:2"); got != desired || w.running("") != desired {
			t.Fatalf("%d of %d run the new revision, %d in all", got, desired, w.running(""))
		}
	})
}

// A dead task is replaced, scaling goes both ways, and nothing is started twice.
func TestKeepsCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desired := rapid.IntRange(1, 3).Draw(t, "desired")
		w := newWorld(t, desired, nil)
		w.settle()
		for range rapid.IntRange(1, 2).Draw(t, "rounds") {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				ts := w.tasks()
				w.now = w.now.Add(20 * time.Second)
				w.step(rapid.SampledFrom(ts).Draw(t, "task"), true)
			case 1:
				desired = rapid.IntRange(0, 3).Draw(t, "scale")
				w.scale(desired)
			case 2:
				w.deploy(rapid.IntRange(2, 3).Draw(t, "revision"))
			}
			w.now = w.now.Add(30 * time.Minute) // past any throttle
			w.settle()
			if w.running("") != desired {
				t.Fatalf("%d running, wanted %d", w.running(""), desired)
			}
			if len(w.tasks()) == 0 && desired > 0 {
				t.Fatalf("no tasks")
			}
		}
	})
}

func breakerOn(rollback bool) *ecs.DeploymentConfiguration {
	return &ecs.DeploymentConfiguration{DeploymentCircuitBreaker: &ecs.DeploymentCircuitBreaker{Enable: new(true), Rollback: &rollback}}
}

func TestCircuitBreakerRollsBack(t *testing.T) {
	w := newWorld(t, 2, breakerOn(true))
	w.settle()
	good := w.service().Deployments[0].ID
	w.deploy(2)
	bad := w.service().Deployments[0].ID
	for range 100 {
		w.plan()
		if w.service().Deployments[0].ID == good {
			break
		}
		for _, x := range w.tasks() {
			w.step(x, x.TaskDefinition == "td:2")
		}
		w.now = w.now.Add(time.Minute)
		if w.running("td:1") != 2 {
			t.Fatalf("the old revision lost tasks to a bad deployment: %d", w.running("td:1"))
		}
	}
	s := w.service()
	if d := s.Deployments[0]; d.ID != good || d.RollbackOf != bad {
		t.Fatalf("primary %+v", d)
	}
	w.settle()
	if w.running("td:1") != 2 || w.service().TaskDefinition != "td:1" {
		t.Fatalf("after the rollback: %+v", w.service())
	}
	all := strings.Join(w.messages(), "\n")
	for _, want := range []string{
		"(service web) (deployment " + bad + ") deployment failed: tasks failed to start.",
		"(service web) rolling back to deployment " + good + ".",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no event %q in\n%s", want, all)
		}
	}
}

func TestCircuitBreakerWithoutRollbackStops(t *testing.T) {
	w := newWorld(t, 1, breakerOn(false))
	for range 50 {
		w.plan()
		for _, x := range w.tasks() {
			w.step(x, true)
		}
		w.now = w.now.Add(time.Minute)
	}
	d := w.service().Deployments[0]
	if d.RolloutState != "FAILED" || d.FailedTasks != 3 || d.RolloutStateReason != "ECS deployment circuit breaker: tasks failed to start." {
		t.Fatalf("%+v", d)
	}
	if n := len(w.tasks()); n != 3 {
		t.Fatalf("%d tasks were started, the threshold is 3", n)
	}
}

// Without the breaker a service whose tasks fail never gives up, but slows down.
func TestThrottle(t *testing.T) {
	w := newWorld(t, 1, nil)
	for range 24 * 6 {
		w.plan()
		for _, x := range w.tasks() {
			w.step(x, true)
		}
		w.now = w.now.Add(10 * time.Minute)
	}
	n := len(w.tasks())
	if n < 30 || n > 80 {
		t.Fatalf("%d starts in a day", n)
	}
	if !slices.Contains(w.messages(), "(service web) is unable to consistently start tasks successfully. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.") {
		t.Fatalf("the service does not say so: %q", w.messages())
	}
}

func TestBlocked(t *testing.T) {
	w := newWorld(t, 2, &ecs.DeploymentConfiguration{MinimumHealthyPercent: new(int32(100)), MaximumPercent: new(int32(100))})
	w.settle()
	w.now = w.now.Add(time.Minute)
	w.deploy(2)
	w.plan()
	w.plan()
	want := "(service web) was unable to stop or start tasks during a deployment because of the service deployment configuration. Update the minimumHealthyPercent or maximumPercent value and try again."
	n := 0
	for _, m := range w.messages() {
		if m == want {
			n++
		}
	}
	if n != 1 || w.running("td:1") != 2 {
		t.Fatalf("said %d times; %d old tasks run", n, w.running("td:1"))
	}
}

func TestDrain(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.settle()
	w.update(func(tx *store.Tx) {
		s, _ := state.Services.Get(tx, w.arn)
		next := s.Clone()
		next.Status, next.DesiredCount = "DRAINING", 0
		state.Services.Put(tx, next)
	})
	w.plan()
	if s := w.service(); s.Status != "DRAINING" {
		t.Fatalf("status %s while tasks run", s.Status)
	}
	w.settle()
	if s := w.service(); s.Status != "INACTIVE" || s.DeletedAt.IsZero() {
		t.Fatalf("%+v", s)
	}
}

// An unhealthy task is replaced before it is stopped.
func TestUnhealthyIsReplacedFirst(t *testing.T) {
	w := newWorld(t, 1, nil)
	w.settle()
	sick := w.tasks()[0]
	w.now = w.now.Add(time.Minute)
	w.change(sick, func(n *state.Task) { n.Health = "UNHEALTHY" })
	w.plan()
	ts := w.tasks()
	if len(ts) != 2 {
		t.Fatalf("%d tasks, want the sick one and its replacement", len(ts))
	}
	if x, _ := state.Tasks.Get(w.db.Snapshot(), sick.ARN); x.DesiredStatus != state.Running {
		t.Fatal("the sick task was stopped before its replacement ran")
	}
	w.settle()
	x, _ := state.Tasks.Get(w.db.Snapshot(), sick.ARN)
	if x.StoppedReason != "Task failed container health checks" || w.running("") != 1 {
		t.Fatalf("%+v", x)
	}
}

// The tag is resolved once for a deployment, by its first task.
func TestImagesStayTheSameWithinADeployment(t *testing.T) {
	w := newWorld(t, 1, nil)
	digest := func(d string) {
		for _, x := range w.tasks() {
			if x.LastStatus == state.Running {
				w.change(x, func(n *state.Task) { n.Containers[0].ImageDigest = d })
			}
		}
	}
	w.settle()
	digest("sha256:one")
	w.plan()
	digest("sha256:two")
	w.plan()
	if got := w.service().Deployments[0].ImageDigests["web"]; got != "sha256:one" {
		t.Fatalf("digest %q", got)
	}
	w.deploy(1)
	if got := w.service().Deployments[0].ImageDigests["web"]; got != "" {
		t.Fatalf("a new deployment begins with digest %q", got)
	}
}
