// Package deploy keeps services at their desired count and rolls their
// deployments: which tasks of a service start, which stop, and when a
// deployment is complete, failed or rolled back (facts: services).
//
// It is the only writer of a service's deployments and of what became of them
// once they exist, and of tasks that belong to services until they are placed.
// A task of EC2 is made where the fleet has a place for it, and not made where
// there is none; any other is placed by package place.
package deploy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/place/fleet"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Settings are what AWS fixes and a developer may want otherwise.
type Settings struct {
	// HealthyAfter is how long a task without a health check must have been
	// RUNNING before it counts as healthy. AWS waits 40 s.
	HealthyAfter time.Duration
	// Fleet chooses container instances. nil: from the snapshot of each plan.
	Fleet *fleet.Fleet
}

// Controller makes the deploy controller.
func Controller(s Settings) control.Controller {
	return control.Controller{
		Name:  "deploy",
		Reads: []store.AnyTable{state.Services, state.Tasks, state.ServiceDeployments, state.TaskSets, state.ContainerInstances},
		Plan:  func(in control.Input) control.Plan { return Plan(in, s) },
	}
}

// Plan plans every service that changed, or whose tasks did.
func Plan(in control.Input, set Settings) (p control.Plan) {
	region, ok := state.Regions.Get(in.Read, state.RegionKey)
	if !ok {
		return p
	}
	started, places := units{}, &places{in: in, fleet: set.Fleet}
	defer places.done()
	var list []*state.Service
	for arn := range services(in) {
		if svc, ok := state.Services.Get(in.Read, arn); ok && svc.Status != "INACTIVE" {
			list = append(list, svc)
		}
	}
	// What runs on every instance is placed before what finds its place.
	slices.SortStableFunc(list, func(a, b *state.Service) int {
		return cmp.Compare(rank(a), rank(b))
	})
	for _, svc := range list {
		r := &rollout{in: in, set: set, region: region, units: started, places: places, old: svc, svc: svc.Clone(), name: "(service " + svc.Name + ")"}
		r.plan()
		r.write(&p)
	}
	places.claim(&p)
	if !in.All {
		// A wake asked for by a service that this plan did not look at must not be lost.
		for s := range state.Services.All(in.Read) {
			if !s.Wake.IsZero() {
				p.WakeAt(s.Wake)
			}
		}
	}
	return p
}

func services(in control.Input) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if in.All {
			for s := range state.Services.All(in.Read) {
				if !yield(s.ARN) {
					return
				}
			}
			return
		}
		seen := map[string]bool{}
		for _, k := range in.Changed.Keys(state.Services) {
			seen[k] = true
			if !yield(k) {
				return
			}
		}
		more := func(service string) bool {
			if service == "" || seen[service] {
				return true
			}
			seen[service] = true
			return yield(service)
		}
		clusters := map[string]bool{} // those with more room than before, or other instances
		for _, k := range in.Changed.Keys(state.Tasks) {
			t, ok := state.Tasks.Get(in.Read, k)
			if ok && !more(t.Service) {
				return
			}
			if ok && t.LaunchType == string(ecs.LaunchTypeEc2) && t.LastStatus == state.Stopped {
				clusters[t.Cluster] = true
			}
		}
		for _, k := range in.Changed.Keys(state.ContainerInstances) {
			if i, ok := state.ContainerInstances.Get(in.Read, k); ok && !i.Hidden {
				clusters[i.Cluster] = true
			}
		}
		for c := range clusters {
			for s := range state.Services.By(in.Read, "cluster", c) {
				if onInstances(s) && !more(s.ARN) {
					return
				}
			}
		}
		for _, k := range in.Changed.Keys(state.ServiceDeployments) {
			if d, ok := state.ServiceDeployments.Get(in.Read, k); ok && !more(d.Service) {
				return
			}
		}
		for _, k := range in.Changed.Keys(state.TaskSets) {
			if s, ok := state.TaskSets.Get(in.Read, k); ok && !more(s.Service) {
				return
			}
		}
	}
}

// rollout plans one service.
type rollout struct {
	in       control.Input
	set      Settings
	region   *state.Region
	units    units // that this plan starts, of all services
	places   *places
	old, svc *state.Service
	name     string // of the service, as its events begin

	tasks   []*state.Task          // all rows of the service
	changed map[string]*state.Task // rows that this plan replaces or makes
	before  map[string]*state.Task // what they replace
	sizes   []*size                // task sets
	removed []*state.TaskSet
	history []*record // service deployments that have not finished
	current *record   // the newest of them, nil if it has finished
	events  []string
	wake    time.Time

	revision, newRevision *state.ServiceRevision // whose images were resolved
}

func (r *rollout) plan() {
	r.changed, r.before = map[string]*state.Task{}, map[string]*state.Task{}
	for t := range state.Tasks.By(r.in.Read, "service", r.svc.ARN) {
		r.tasks = append(r.tasks, t)
	}
	slices.SortFunc(r.tasks, func(a, b *state.Task) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ARN, b.ARN)
	})
	r.open()
	switch {
	case r.svc.Status == "DRAINING":
		r.drain()
	case r.svc.SchedulingStrategy == daemon && len(r.svc.Deployments) > 0:
		r.begin()
		r.countFailures(r.primary().ID, r.primary())
		r.breaker()
		r.fixImages()
		r.everywhere()
		r.complete()
	case r.external():
		r.countFailures("", nil)
		r.sets()
	case len(r.svc.Deployments) > 0:
		r.begin()
		r.countFailures(r.primary().ID, r.primary())
		r.breaker()
		r.fixImages()
		r.roll()
		r.complete()
	}
}

// external: somebody else says which task sets there are, and how large.
func (r *rollout) external() bool {
	c := r.svc.DeploymentController
	return c != nil && c.Type == ecs.DeploymentControllerTypeExternal
}

// live are the tasks of a deployment that are wanted running.
func (r *rollout) live(of func(*state.Task) bool) (ts []*state.Task) {
	for _, t := range r.tasks {
		if n := r.changed[t.ARN]; n != nil {
			t = n
		}
		if t.DesiredStatus == state.Running && t.LastStatus != state.Stopped && of(t) {
			ts = append(ts, t)
		}
	}
	return ts
}

func (r *rollout) primary() *state.Deployment { return &r.svc.Deployments[0] }

// healthy: a task counts for the minimum once its containers' checks pass, or,
// without checks, once it has been RUNNING for a while.
func (r *rollout) healthy(t *state.Task) bool {
	if t.LastStatus != state.Running || t.Health == "UNHEALTHY" {
		return false
	}
	if r.checked(t) {
		return t.Health == "HEALTHY"
	}
	at := t.StartedAt.Add(r.set.HealthyAfter)
	if at.After(r.in.Now) {
		r.wakeAt(at)
		return false
	}
	return true
}

// runs: a task counts for the steady state.
func (r *rollout) runs(t *state.Task) bool {
	return t.LastStatus == state.Running && (t.Health == "HEALTHY" || t.Health != "UNHEALTHY" && !r.checked(t))
}

// checked reports whether an essential container of the task has a health check.
func (r *rollout) checked(t *state.Task) bool {
	td, ok := state.TaskDefinitions.Get(r.in.Read, t.TaskDefinition)
	if !ok {
		return false
	}
	for i := range td.Doc.ContainerDefinitions {
		if c := &td.Doc.ContainerDefinitions[i]; c.HealthCheck != nil && (c.Essential == nil || *c.Essential) {
			return true
		}
	}
	return false
}

// bounds are the least healthy and the most running tasks.
func (r *rollout) bounds() (floor, ceiling int) {
	minimum, maximum := 100.0, 200.0
	if c := r.svc.DeploymentConfiguration; c != nil {
		if c.MinimumHealthyPercent != nil {
			minimum = float64(*c.MinimumHealthyPercent)
		}
		if c.MaximumPercent != nil {
			maximum = float64(*c.MaximumPercent)
		}
	}
	d := float64(r.svc.DesiredCount)
	return int(math.Ceil(d * minimum / 100)), int(math.Floor(d * maximum / 100))
}

// roll starts and stops tasks within the bounds.
func (r *rollout) roll() {
	p := r.primary()
	desired := r.svc.DesiredCount
	floor, ceiling := r.bounds()
	mine := func(t *state.Task) bool { return t.Deployment == p.ID }
	older := func(t *state.Task) bool { return t.Deployment != p.ID }

	own, old := r.live(mine), r.live(older)
	good, sick := split(own) // of the primary; sick ones are to be replaced
	good, moving := r.leaving(good)
	blocked := map[string]int{}

	// Too many: older deployments go first, below; then the primary's own.
	if r.svc.Rebalancing = r.svc.Rebalancing && len(good) > desired; r.svc.Rebalancing && len(good) == desired+1 && r.ready(good) < len(good) {
		// What was started in another zone is not healthy yet.
	} else if extra := len(good) - desired; extra > 0 {
		blocked[p.ID] = r.scaleIn(good, extra, p.ID)
		good, _ = r.leaving(r.live(func(t *state.Task) bool { return mine(t) && !slices.Contains(sick, t) }))
	}

	if p.RolloutState == "FAILED" {
		floor = max(floor, desired) // nothing takes the place of what stops now
	}
	started := r.refill(floor, ceiling, good, own, old)
	if missing := desired - len(good); missing > 0 && p.RolloutState != "FAILED" {
		room := ceiling - len(own) - len(old) - started
		switch n := min(missing, room); {
		case r.svc.NextStart.After(r.in.Now):
			r.wakeAt(r.svc.NextStart)
		case n > 0:
			r.start(n, len(sick), launch{p.ID, p.TaskDefinition, p.Network, p.LaunchType, p.PlatformVersion, p.PlatformFamily, p.CapacityProviderStrategy})
			started += n
		case len(sick) > 0:
			// No room for a replacement first: one at a time makes room.
			r.stop(sick[:1], "Task failed container health checks")
			sick = sick[1:]
		}
	}

	// What is older, or sick, goes as far as the minimum of healthy tasks allows.
	ready := r.ready(good)
	healthy := ready + r.ready(old) + r.ready(moving)
	healthy -= r.move(moving, healthy-floor, p.ID)
	spare := r.spare()
	coming := floor - healthy // tasks of the spare deployment that may yet become healthy
	var out, ill []*state.Task
	for _, t := range old {
		pending := t.LastStatus != state.Running
		switch {
		case t.Health == "UNHEALTHY" && !pending:
			ill = append(ill, t)
		case pending && spare != nil && t.Deployment == spare.ID && coming > 0:
			coming--
		case !pending && healthy <= floor:
		case t.Protected(r.in.Now):
			blocked[t.Deployment]++
			r.wakeAt(t.ProtectedUntil)
		default:
			out = append(out, t)
			if r.healthy(t) {
				healthy--
			}
			if spare != nil && t.Deployment == spare.ID {
				spare.DesiredCount = max(0, spare.DesiredCount-1)
			}
		}
	}
	r.stop(out, "Scaling activity initiated by (deployment "+p.ID+")")
	r.stop(ill, "Task failed container health checks")
	if spare != nil && ready >= floor {
		spare.DesiredCount = 0 // it is not needed any more
	}
	r.retire(good, sick, desired)
	waits := "" // the newest deployment with a task that may not go
	for _, d := range r.svc.Deployments {
		if waits == "" && blocked[d.ID] > 0 {
			waits = d.ID
		}
	}
	r.protection(&r.svc.Protection, waits, blocked[waits])

	stuck := started == 0 && r.svc.Protection.Message == "" && len(out)+len(ill) == 0 && len(old) > 0 && len(good) < desired &&
		p.RolloutState == "IN_PROGRESS" && ceiling <= len(own)+len(old) && allRunning(own) && allRunning(old) && healthy <= floor
	if stuck && !r.settling(append(own, old...)) && !r.svc.SaidBlocked {
		r.event("was unable to stop or start tasks during a deployment because of the service deployment configuration. Update the minimumHealthyPercent or maximumPercent value and try again.")
		r.svc.SaidBlocked = true
	} else if started > 0 || len(out)+len(ill) > 0 {
		r.svc.SaidBlocked = false
	}
}

// spare is the last completed deployment while a newer one rolls out, or has
// failed: its tasks are what the minimum rests on. Its desired count is how many
// of them were not stopped in favour of newer ones.
func (r *rollout) spare() *state.Deployment {
	if r.svc.LastCompleted == nil {
		return nil
	}
	for i := range r.svc.Deployments[1:] {
		if d := &r.svc.Deployments[i+1]; d.ID == r.svc.LastCompleted.ID {
			return d
		}
	}
	return nil
}

// refill replaces tasks of the spare deployment that ended, as far as the minimum
// needs them: what takes the place of a task is of its own revision (facts: services).
func (r *rollout) refill(floor, ceiling int, good, own, old []*state.Task) int {
	d := r.spare()
	if d == nil {
		return 0
	}
	have, coming := 0, 0
	for _, t := range old {
		if t.Deployment == d.ID && t.Health != "UNHEALTHY" {
			have++
			if !r.healthy(t) {
				coming++
			}
		}
	}
	n := min(d.DesiredCount-have, floor-r.ready(good)-r.ready(old)-coming, ceiling-len(own)-len(old))
	if n <= 0 {
		return 0
	}
	failures, last := 0, time.Time{}
	for _, t := range r.tasks {
		if t.Deployment == d.ID && t.DesiredStatus == state.Stopped && short(t) {
			failures++
			if t.StoppingAt.After(last) {
				last = t.StoppingAt
			}
		}
	}
	if at := last.Add(delay(failures)); at.After(r.in.Now) {
		r.wakeAt(at)
		return 0
	}
	r.start(n, 0, launch{d.ID, d.TaskDefinition, d.Network, d.LaunchType, d.PlatformVersion, d.PlatformFamily, d.CapacityProviderStrategy})
	return n
}

// ready is how many of the tasks are healthy.
func (r *rollout) ready(ts []*state.Task) (n int) {
	for _, t := range ts {
		if r.healthy(t) {
			n++
		}
	}
	return n
}

// settling: some task will yet count as healthy, by time or by its first check.
func (r *rollout) settling(ts []*state.Task) bool {
	for _, t := range ts {
		if t.Health != "UNHEALTHY" && !r.healthy(t) {
			return true
		}
	}
	return false
}

func allRunning(ts []*state.Task) bool {
	for _, t := range ts {
		if t.LastStatus != state.Running {
			return false
		}
	}
	return true
}

// split tells the tasks that are to be replaced, because they are unhealthy, from the others.
func split(ts []*state.Task) (good, sick []*state.Task) {
	for _, t := range ts {
		if t.Health == "UNHEALTHY" && t.LastStatus == state.Running {
			sick = append(sick, t)
		} else {
			good = append(good, t)
		}
	}
	return good, sick
}

// retire stops the unhealthy tasks whose replacements are ready.
func (r *rollout) retire(good, sick []*state.Task, desired int) {
	if len(sick) == 0 || len(good) < desired {
		return
	}
	r.stop(sick[:min(len(sick), max(0, r.ready(good)+len(sick)-desired))], "Task failed container health checks")
}

// scaleIn stops n of the tasks of a deployment: those not running first, then
// from the fullest zone, newest first. It returns how many it could not stop
// because they are protected.
func (r *rollout) scaleIn(ts []*state.Task, n int, id string) (blocked int) {
	zones := map[string]int{}
	var free []*state.Task
	var soonest time.Time
	for _, t := range ts {
		zones[t.Zone]++
		if !t.Protected(r.in.Now) {
			free = append(free, t)
		} else if soonest.IsZero() || t.ProtectedUntil.Before(soonest) {
			soonest = t.ProtectedUntil
		}
	}
	if n > len(free) {
		blocked, n = n-len(free), len(free)
		r.wakeAt(soonest)
	}
	ts = free
	var out []*state.Task
	for range n {
		best := 0
		for i, t := range ts[1:] {
			b := ts[best]
			switch tr, br := t.LastStatus == state.Running, b.LastStatus == state.Running; {
			case tr != br:
				if !tr {
					best = i + 1
				}
			case zones[t.Zone] != zones[b.Zone]:
				if zones[t.Zone] > zones[b.Zone] {
					best = i + 1
				}
			default:
				best = i + 1
			}
		}
		out = append(out, ts[best])
		zones[ts[best].Zone]--
		ts = slices.Delete(ts, best, best+1)
	}
	r.stop(out, "Scaling activity initiated by (deployment "+id+")")
	return blocked
}

// protection says, once for each cause, that n protected tasks keep the service
// from its steady state.
func (r *rollout) protection(said *state.Said, id string, n int) {
	if n == 0 {
		*said = state.Said{}
		return
	}
	m := fmt.Sprintf("%s was unable to reach steady state because (taskSet %s) was unable to scale in due to (reason %d tasks under protection)", r.name, id, n)
	if said.Message != m || !said.At.Add(again).After(r.in.Now) {
		*said = state.Said{Message: m, At: r.in.Now}
		r.events = append(r.events, m)
	}
	r.wakeAt(said.At.Add(again))
}

// again is when an event is repeated whose cause is still there.
const again = 6 * time.Hour

// complete notices the end of a rollout and the steady state.
func (r *rollout) complete() {
	p := r.primary()
	running, live, rest, wanted := 0, 0, map[string]bool{}, map[string]int{}
	for _, t := range r.all() {
		if t.LastStatus != state.Stopped {
			rest[t.Deployment] = true
		}
		if t.DesiredStatus != state.Running || t.LastStatus == state.Stopped {
			continue
		}
		live++
		wanted[t.Deployment]++
		if t.Deployment == p.ID && r.runs(t) {
			running++
		}
	}
	spare := r.spare()
	for i := range r.svc.Deployments[1:] {
		if d := &r.svc.Deployments[i+1]; d != spare {
			d.DesiredCount = wanted[d.ID]
		}
	}
	// A deployment leaves the list with its last task.
	r.svc.Deployments = slices.DeleteFunc(r.svc.Deployments, func(d state.Deployment) bool {
		return d.ID != p.ID && !rest[d.ID] && d.DesiredCount == 0
	})
	p = r.primary()
	p.DesiredCount = r.svc.DesiredCount
	steady := running == r.svc.DesiredCount && live == running && len(r.svc.Deployments) == 1 && p.RolloutState != "FAILED"
	if !steady {
		r.svc.SteadyAt = time.Time{}
		return
	}
	if p.RolloutState == "IN_PROGRESS" {
		p.RolloutState = "COMPLETED"
		p.RolloutStateReason = "ECS deployment " + p.ID + " completed."
		p.UpdatedAt = r.in.Now
		r.event("(deployment " + p.ID + ") deployment completed.")
		r.completed()
	}
	if r.svc.LastCompleted == nil || r.svc.LastCompleted.ID != p.ID {
		c := *p
		r.svc.LastCompleted = &c
	}
	r.steady()
	r.rebalance()
}

// steady says so, and again every few hours while it lasts.
func (r *rollout) steady() {
	if r.svc.SteadyAt.IsZero() || !r.svc.SteadyAt.Add(again).After(r.in.Now) {
		r.event("has reached a steady state.")
		r.svc.SteadyAt = r.in.Now
	}
	r.wakeAt(r.svc.SteadyAt.Add(again))
}

// drain stops every task of a deleted service. It is INACTIVE when all are
// STOPPING or have stopped, as in AWS: nothing waits for the last container.
func (r *rollout) drain() {
	for _, d := range r.history {
		d.finish(state.DeploymentStopped, "Service deployment stopped because the service was deleted.", r.in.Now)
	}
	id := ""
	if len(r.svc.Deployments) > 0 {
		id = r.primary().ID
	}
	r.stop(r.live(func(*state.Task) bool { return true }), "Scaling activity initiated by (deployment "+id+")")
	for _, t := range r.all() {
		if !t.Past(state.Stopping) {
			return
		}
	}
	for s := range state.TaskSets.By(r.in.Read, "service", r.svc.ARN) {
		r.removed = append(r.removed, s)
	}
	r.svc.Status = "INACTIVE"
	r.svc.Deployments, r.svc.ServiceDeployment = nil, "" // as AWS shows a service that is gone
	r.svc.DeletedAt = r.in.Now
	r.svc.Wake = time.Time{}
}

// all is every task as this plan leaves it.
func (r *rollout) all() []*state.Task {
	ts := make([]*state.Task, 0, len(r.tasks))
	for _, t := range r.tasks {
		if n := r.changed[t.ARN]; n != nil {
			t = n
		}
		ts = append(ts, t)
	}
	for arn, n := range r.changed {
		if r.before[arn] == nil {
			ts = append(ts, n)
		}
	}
	return ts
}

func (r *rollout) wakeAt(t time.Time) {
	if r.wake.IsZero() || t.Before(r.wake) {
		r.wake = t
	}
}

// event appends what happened to the service.
func (r *rollout) event(what string) { r.events = append(r.events, r.name+" "+what) }
