package deploy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/place/fill"
	"github.com/berth-run/berth/control/place/fleet"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// maxEvents is how many events a service keeps (facts: services).
const maxEvents = 100

// launch is what the tasks of a deployment or of a task set have in common.
type launch struct {
	id, definition                              string
	network                                     *ecs.NetworkConfiguration
	launchType, platformVersion, platformFamily string
	strategy                                    []ecs.CapacityProviderStrategyItem
}

// start makes n tasks. replaced of them stand in for unhealthy ones.
func (r *rollout) start(n, replaced int, p launch) {
	td, ok := state.TaskDefinitions.Get(r.in.Read, p.definition)
	cluster, have := state.Clusters.Get(r.in.Read, r.svc.Cluster)
	if !ok || !have {
		return
	}
	var network *ecs.AwsVpcConfiguration
	if p.network != nil {
		network = p.network.AwsvpcConfiguration
	}
	// What the deployment has already decides where its next tasks go.
	placed := map[string]int{}
	for _, t := range r.live(func(t *state.Task) bool { return t.Deployment == p.id }) {
		placed[t.CapacityProvider]++
	}
	var names []string
	lack, noPlace := false, []fill.Refusal(nil)
	for range min(n, burst) {
		provider := state.NextProvider(p.strategy, placed)
		placed[provider]++
		t := r.task(cluster, td, network, p, provider)
		if lack = !r.units.take(r.in.Read, t); lack {
			break
		}
		if t.LaunchType == string(ecs.LaunchTypeEc2) && provider == "" {
			d := fleet.Demand(r.in.Read, t, td, r.svc.PlacementConstraints, r.svc.PlacementStrategy)
			if h := r.places.hold(); !h.Take(r.in.Read, t, d) {
				noPlace = append([]fill.Refusal{}, h.Refusals(t.Cluster, d)...)
				break
			}
		}
		r.changed[t.ARN] = t
		names = append(names, "(task "+t.ID+")")
	}
	r.room(!lack)
	r.started(names, replaced)
	if noPlace != nil {
		r.unplaced(noPlace)
	} else {
		r.svc.SaidNoPlace = state.Said{}
	}
}

// started says which tasks were started, and how many of them stand in for
// unhealthy ones.
func (r *rollout) started(names []string, replaced int) {
	n := len(names)
	if n == 0 {
		return
	}
	m := fmt.Sprintf("has started %d tasks: %s.", n, strings.Join(names, " "))
	if replaced > 0 {
		m += fmt.Sprintf(" Amazon ECS replaced %d tasks due to an unhealthy status.", min(n, replaced))
	}
	r.event(m)
}

// burst is how many tasks a service starts at once: AWS starts as many a minute.
const burst = 500

// task makes one task of the service.
func (r *rollout) task(cluster *state.Cluster, td *state.TaskDefinition, network *ecs.AwsVpcConfiguration, p launch, provider string) *state.Task {
	return state.NewTask(state.TaskSpec{
		Region: r.region.Name, Account: r.svc.Account, Cluster: cluster, Definition: td,
		ID: r.in.NewID(), NewID: func() string { return uuid(r.in.NewID()) },
		Group: "service:" + r.svc.Name, StartedBy: p.id,
		Service: r.svc.ARN, Deployment: p.id,
		LaunchType: state.LaunchOf(p.launchType, p.strategy), CapacityProvider: provider, PlatformVersion: p.platformVersion, PlatformFamily: p.platformFamily,
		Network: network, EnableExecuteCommand: r.svc.EnableExecuteCommand,
		Tags: r.tags(cluster, td), Now: r.in.Now,
	})
}

// units are the CPU units that a plan starts, of each account and capacity provider.
type units map[[2]string]int

// take notes a Fargate task that is to start. It reports whether the quota of
// its account has room for it.
func (u units) take(r store.Reader, t *state.Task) bool {
	if t.LaunchType != "FARGATE" {
		return true
	}
	n, _ := strconv.Atoi(t.CPU) // validated with its definition
	key := [2]string{t.Account, t.CapacityProvider}
	if u[key]+n > state.VCPURoom(r, t.Account, t.CapacityProvider) {
		return false
	}
	u[key] += n
	return true
}

// crowded is how long a service waits for vCPUs before it tries again: nothing
// tells it that another service's tasks have stopped.
const crowded = 15 * time.Second

// room says that the account's quota of vCPUs lets no more tasks start.
func (r *rollout) room(ok bool) {
	said := &r.svc.SaidNoRoom
	if ok {
		*said = state.Said{}
		return
	}
	if said.Message == "" || !said.At.Add(again).After(r.in.Now) {
		*said = state.Said{Message: state.NoVCPU, At: r.in.Now}
		r.event("was unable to place a task. Reason: " + state.NoVCPU + ".")
	}
	if !r.svc.NextStart.After(r.in.Now) {
		r.svc.NextStart = r.in.Now.Add(crowded)
	}
	r.wakeAt(r.svc.NextStart)
}

// tags are those the service propagates, and ECS's own if asked for.
func (r *rollout) tags(c *state.Cluster, td *state.TaskDefinition) []state.Tag {
	var tags []state.Tag
	switch r.svc.PropagateTags {
	case "SERVICE":
		tags = append(tags, r.svc.Tags...)
	case "TASK_DEFINITION":
		tags = append(tags, td.Tags...)
	}
	if r.svc.EnableECSManagedTags {
		tags = append(tags, state.Tag{Key: "aws:ecs:serviceName", Value: r.svc.Name}, state.Tag{Key: "aws:ecs:clusterName", Value: c.Name})
	}
	return tags
}

// stop wants the tasks stopped.
func (r *rollout) stop(ts []*state.Task, reason string) {
	var running []string
	pending := 0
	for _, t := range ts {
		n := r.edit(t)
		if !n.WantStop("ServiceSchedulerInitiated", reason, r.in.Now) {
			continue
		}
		if t.LastStatus == state.Running {
			running = append(running, "(task "+t.ID+")")
		} else {
			pending++
		}
	}
	if len(running) > 0 {
		r.event(fmt.Sprintf("has stopped %d running tasks: %s.", len(running), strings.Join(running, " ")))
	}
	if pending > 0 {
		r.event(fmt.Sprintf("stopped %d pending tasks.", pending))
	}
}

// edit is the row of t that this plan may change.
func (r *rollout) edit(t *state.Task) *state.Task {
	if n := r.changed[t.ARN]; n != nil {
		return n
	}
	n := t.Clone()
	r.changed[t.ARN], r.before[t.ARN] = n, t
	return n
}

// countFailures counts each failed task of a deployment (of any, if id is "")
// once, and slows down the starts of a service whose tasks do not stay. It is p,
// if there is one, whose circuit breaker counts.
//
// Only a task that never ran counts for the circuit breaker, and a container
// health check that failed; AWS counts neither a crash after RUNNING. Because
// a task here is RUNNING a moment after it was asked for, a crashing container
// would be restarted many times a second where AWS takes most of a minute, so
// a task that ran for less than [brief] slows the starts as well.
func (r *rollout) countFailures(id string, p *state.Deployment) {
	of := func(t *state.Task) bool { return id == "" || t.Deployment == id }
	for _, t := range r.tasks {
		// Any task that started says that tasks of this deployment can.
		if of(t) && !t.StartedAt.IsZero() && t.DesiredStatus == state.Running &&
			t.LastStatus == state.Running && r.in.Now.Sub(t.StartedAt) >= brief && r.svc.Impaired > 0 {
			r.svc.Impaired = 0
			r.svc.NextStart = time.Time{}
		}
		if !of(t) || t.FailureCounted || t.LastStatus != state.Stopped && t.DesiredStatus != state.Stopped {
			continue
		}
		failed := t.StopCode == "TaskFailedToStart" || t.StopCode == "EssentialContainerExited" && t.StartedAt.IsZero() ||
			t.StoppedReason == "Task failed container health checks"
		if !failed && !short(t) {
			continue
		}
		r.edit(t).FailureCounted = true
		if failed && p != nil && p.RolloutState == "IN_PROGRESS" {
			p.FailedTasks++
			p.UpdatedAt = r.in.Now
		}
		r.svc.Impaired++
		if d := delay(r.svc.Impaired); d > 0 {
			r.svc.NextStart = r.in.Now.Add(d)
			if r.svc.Impaired == impaired {
				r.event("is unable to consistently start tasks successfully. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.")
			}
		}
	}
	// A task that stays resets the breaker's counter (resetOnHealthyTask, on by default).
	if p != nil && p.FailedTasks > 0 && p.RolloutState == "IN_PROGRESS" {
		for _, t := range r.live(func(t *state.Task) bool { return t.Deployment == p.ID }) {
			if r.healthy(t) {
				p.FailedTasks = 0
				break
			}
		}
	}
}

// short: the task ended by itself before it had run for long, or never ran.
func short(t *state.Task) bool {
	within := func(end time.Time) bool { return !end.IsZero() && end.Sub(t.StartedAt) < brief }
	switch t.StopCode {
	case "TaskFailedToStart":
		return true
	case "EssentialContainerExited":
		return t.StartedAt.IsZero() || within(t.StoppingAt) || within(t.ExecutionStoppedAt)
	}
	return false
}

const (
	brief    = 10 * time.Second
	impaired = 4                // failures in a row after which the service says so
	maxDelay = 27 * time.Minute // facts: services, throttle
)

// delay is how long starts wait after n failures in a row. AWS does not
// publish its steps: the first ones are free so that a typo is found at once.
func delay(n int) time.Duration {
	if n < 3 {
		return 0
	}
	if n > 13 {
		return maxDelay
	}
	return min(maxDelay, time.Second<<(n-3))
}

// breaker fails the deployment whose tasks do not start, and rolls back.
func (r *rollout) breaker() {
	p := r.primary()
	enabled, rollback := breaks(r.svc.DeploymentConfiguration)
	if !enabled || p.RolloutState != "IN_PROGRESS" || p.FailedTasks < threshold(r.svc.DesiredCount) {
		return
	}
	r.event("(deployment " + p.ID + ") deployment failed: tasks failed to start.")
	r.fail("ECS deployment circuit breaker: tasks failed to start.")
	r.tripped(rollback && r.goBack("ECS deployment circuit breaker: rolling back to deploymentId"))
}

// breaks reports whether the circuit breaker is on, and whether it rolls back.
func breaks(c *ecs.DeploymentConfiguration) (enabled, rollback bool) {
	if c == nil || c.DeploymentCircuitBreaker == nil {
		return false, false
	}
	is := func(b *bool) bool { return b != nil && *b }
	return is(c.DeploymentCircuitBreaker.Enable), is(c.DeploymentCircuitBreaker.Rollback)
}

// fail ends the rollout of the primary deployment: it starts nothing any more.
func (r *rollout) fail(reason string) {
	p := r.primary()
	p.RolloutState, p.RolloutStateReason, p.UpdatedAt = "FAILED", reason, r.in.Now
}

// goBack makes the last completed deployment the primary one again, if there is
// one that is not primary already.
func (r *rollout) goBack(why string) bool {
	p, last := r.primary(), r.svc.LastCompleted
	if last == nil || last.ID == p.ID {
		return false
	}
	failed := *p
	failed.Status = "ACTIVE"
	back := *last
	back.Status, back.RolloutState = "PRIMARY", "IN_PROGRESS"
	back.RolloutStateReason = why + " " + back.ID + "."
	back.UpdatedAt, back.RollbackOf, back.FailedTasks = r.in.Now, failed.ID, 0
	rest := slices.DeleteFunc(slices.Clone(r.svc.Deployments[1:]), func(d state.Deployment) bool { return d.ID == back.ID })
	r.svc.Deployments = append([]state.Deployment{back, failed}, rest...)
	r.svc.TaskDefinition, r.svc.Network = back.TaskDefinition, back.Network
	r.svc.LaunchType, r.svc.CapacityProviderStrategy = back.LaunchType, back.CapacityProviderStrategy
	r.svc.Impaired, r.svc.NextStart = 0, time.Time{}
	r.event("rolling back to deployment " + back.ID + ".")
	return true
}

// fixImages keeps the digests that the deployment's first task resolved, so
// that its later tasks run the same image whatever the tag has become
// (versionConsistency, on unless a container turns it off).
func (r *rollout) fixImages() {
	p := r.primary()
	digests := r.digests(p.ID, p.TaskDefinition, p.ImageDigests)
	if len(digests) == len(p.ImageDigests) {
		return
	}
	p.ImageDigests = digests
	old, ok := state.ServiceRevisions.Get(r.in.Read, state.RevisionARN(r.svc.ARN, p.ID))
	if !ok {
		return
	}
	n := *old
	n.Images = slices.Clone(old.Images)
	for i := range n.Images {
		if d := p.ImageDigests[*n.Images[i].ContainerName]; d != "" {
			n.Images[i].ImageDigest = &d
		}
	}
	r.revision, r.newRevision = old, &n
}

// digests are those that the tasks of a deployment or task set have resolved:
// what there is, and what is new.
func (r *rollout) digests(id, definition string, have map[string]string) map[string]string {
	td, ok := state.TaskDefinitions.Get(r.in.Read, definition)
	if !ok {
		return have
	}
	all := have
	for i := range td.Doc.ContainerDefinitions {
		d := &td.Doc.ContainerDefinitions[i]
		if d.Name == nil || d.VersionConsistency == "disabled" || have[*d.Name] != "" {
			continue
		}
		for _, t := range r.tasks {
			if t.Deployment != id {
				continue
			}
			for _, c := range t.Containers {
				if c.Name == *d.Name && c.ImageDigest != "" && all[c.Name] == "" {
					all = maps.Clone(all)
					if all == nil {
						all = map[string]string{}
					}
					all[c.Name] = c.ImageDigest
				}
			}
		}
	}
	return all
}

// threshold is BOUNDED_PERCENT with AWS's default of 50 (facts: services).
func threshold(desired int) int { return min(max((desired+1)/2, 3), 200) }

// write adds what differs to the plan.
func (r *rollout) write(p *control.Plan) {
	for arn, n := range r.changed {
		control.Put(p, state.Tasks, arn, r.before[arn], n)
	}
	if r.revision != nil {
		control.Put(p, state.ServiceRevisions, r.revision.ARN, r.revision, r.newRevision)
	}
	r.writeHistory(p)
	for _, s := range r.sizes {
		if !reflect.DeepEqual(s.now, s.old) {
			control.Put(p, state.TaskSets, s.old.ARN, s.old, s.now)
		} else if len(r.changed) > 0 {
			control.Require(p, state.TaskSets, s.old.ARN, s.old)
		}
	}
	for _, s := range r.removed {
		control.Delete(p, state.TaskSets, s.ARN, s)
	}
	r.svc.Wake = r.wake
	if !r.wake.IsZero() {
		p.WakeAt(r.wake)
	}
	if !reflect.DeepEqual(r.svc, r.old) {
		control.Put(p, state.Services, r.svc.ARN, r.old, r.svc)
	} else if len(r.changed) > 0 {
		// A service that was changed or deleted meanwhile may not want these tasks.
		control.Require(p, state.Services, r.svc.ARN, r.old)
	}
	if len(r.events) == 0 {
		return
	}
	old, _ := state.Events.Get(r.in.Read, r.svc.ARN)
	next := &state.ServiceEvents{Service: r.svc.ARN}
	for _, m := range r.events {
		next.Events = slices.Insert(next.Events, 0, state.ServiceEvent{ID: uuid(r.in.NewID()), Message: m, At: r.in.Now})
	}
	if old != nil {
		next.Events = append(next.Events, old.Events...)
	}
	if len(next.Events) > maxEvents {
		next.Events = next.Events[:maxEvents]
	}
	control.Put(p, state.Events, r.svc.ARN, old, next)
}

// uuid writes 32 hex digits as a UUID.
func uuid(h string) string {
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
