package deploy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store/state"
)

// maxEvents is how many events a service keeps (facts: services).
const maxEvents = 100

// start makes n tasks of the primary deployment. replaced of them stand in for unhealthy ones.
func (r *rollout) start(n, replaced int) {
	p := r.primary()
	td, ok := state.TaskDefinitions.Get(r.in.Read, p.TaskDefinition)
	cluster, have := state.Clusters.Get(r.in.Read, r.svc.Cluster)
	if !ok || !have {
		return
	}
	var network *ecs.AwsVpcConfiguration
	if p.Network != nil {
		network = p.Network.AwsvpcConfiguration
	}
	// What the deployment has already decides where its next tasks go.
	placed := map[string]int{}
	for _, t := range r.live(func(t *state.Task) bool { return t.Deployment == p.ID }) {
		placed[t.CapacityProvider]++
	}
	var names []string
	for range n {
		provider := state.NextProvider(p.CapacityProviderStrategy, placed)
		placed[provider]++
		t := state.NewTask(state.TaskSpec{
			Region: r.region.Name, Account: r.svc.Account, Cluster: cluster, Definition: td,
			ID: r.in.NewID(), NewID: func() string { return uuid(r.in.NewID()) },
			Group: "service:" + r.svc.Name, StartedBy: p.ID,
			Service: r.svc.ARN, Deployment: p.ID,
			LaunchType: state.LaunchOf(p.LaunchType, p.CapacityProviderStrategy), CapacityProvider: provider, PlatformVersion: p.PlatformVersion, PlatformFamily: p.PlatformFamily,
			Network: network, EnableExecuteCommand: r.svc.EnableExecuteCommand,
			Tags: r.tags(cluster, td), Now: r.in.Now,
		})
		r.changed[t.ARN] = t
		names = append(names, "(task "+t.ID+")")
	}
	m := fmt.Sprintf("(service %s) has started %d tasks: %s.", r.svc.Name, n, strings.Join(names, " "))
	if replaced > 0 {
		m += fmt.Sprintf(" Amazon ECS replaced %d tasks due to an unhealthy status.", min(n, replaced))
	}
	r.event(m)
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
		r.event(fmt.Sprintf("(service %s) has stopped %d running tasks: %s.", r.svc.Name, len(running), strings.Join(running, " ")))
	}
	if pending > 0 {
		r.event(fmt.Sprintf("(service %s) stopped %d pending tasks.", r.svc.Name, pending))
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

// countFailures counts each failed task of the primary deployment once, and
// slows down the starts of a service whose tasks do not stay.
//
// Only a task that never ran counts for the circuit breaker, and a container
// health check that failed; AWS counts neither a crash after RUNNING. Because
// a task here is RUNNING a moment after it was asked for, a crashing container
// would be restarted many times a second where AWS takes most of a minute, so
// a task that ran for less than [brief] slows the starts as well.
func (r *rollout) countFailures() {
	p := r.primary()
	for _, t := range r.tasks {
		// Any task that started says that tasks of this deployment can.
		if t.Deployment == p.ID && !t.StartedAt.IsZero() && t.DesiredStatus == state.Running &&
			t.LastStatus == state.Running && r.in.Now.Sub(t.StartedAt) >= brief && r.svc.Impaired > 0 {
			r.svc.Impaired = 0
			r.svc.NextStart = time.Time{}
		}
		if t.Deployment != p.ID || t.FailureCounted || t.LastStatus != state.Stopped && t.DesiredStatus != state.Stopped {
			continue
		}
		failed, short := false, false
		switch {
		case t.StopCode == "TaskFailedToStart":
			failed = true
		case t.StopCode == "EssentialContainerExited":
			short = t.StartedAt.IsZero() || !t.StoppingAt.IsZero() && t.StoppingAt.Sub(t.StartedAt) < brief ||
				!t.ExecutionStoppedAt.IsZero() && t.ExecutionStoppedAt.Sub(t.StartedAt) < brief
			failed = t.StartedAt.IsZero()
		case t.StoppedReason == "Task failed container health checks":
			failed = true
		}
		if !failed && !short {
			continue
		}
		r.edit(t).FailureCounted = true
		if failed && p.RolloutState == "IN_PROGRESS" {
			p.FailedTasks++
			p.UpdatedAt = r.in.Now
		}
		r.svc.Impaired++
		if d := delay(r.svc.Impaired); d > 0 {
			r.svc.NextStart = r.in.Now.Add(d)
			if r.svc.Impaired == impaired {
				r.event("(service " + r.svc.Name + ") is unable to consistently start tasks successfully. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.")
			}
		}
	}
	// A task that stays resets the breaker's counter (resetOnHealthyTask, on by default).
	if p.FailedTasks > 0 && p.RolloutState == "IN_PROGRESS" {
		for _, t := range r.live(func(t *state.Task) bool { return t.Deployment == p.ID }) {
			if r.healthy(t) {
				p.FailedTasks = 0
				break
			}
		}
	}
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
	c := r.svc.DeploymentConfiguration
	if c == nil || c.DeploymentCircuitBreaker == nil || c.DeploymentCircuitBreaker.Enable == nil || !*c.DeploymentCircuitBreaker.Enable {
		return
	}
	if p.RolloutState != "IN_PROGRESS" || p.FailedTasks < threshold(r.svc.DesiredCount) {
		return
	}
	p.RolloutState = "FAILED"
	p.RolloutStateReason = "ECS deployment circuit breaker: tasks failed to start."
	p.UpdatedAt = r.in.Now
	r.event("(service " + r.svc.Name + ") (deployment " + p.ID + ") deployment failed: tasks failed to start.")
	rollback := c.DeploymentCircuitBreaker.Rollback != nil && *c.DeploymentCircuitBreaker.Rollback
	last := r.svc.LastCompleted
	if !rollback || last == nil || last.ID == p.ID {
		return
	}
	failed := *p
	failed.Status = "ACTIVE"
	back := *last
	back.Status, back.RolloutState = "PRIMARY", "IN_PROGRESS"
	back.RolloutStateReason = "ECS deployment circuit breaker: rolling back to deploymentId " + back.ID + "."
	back.UpdatedAt, back.RollbackOf, back.FailedTasks = r.in.Now, failed.ID, 0
	rest := slices.DeleteFunc(slices.Clone(r.svc.Deployments[1:]), func(d state.Deployment) bool { return d.ID == back.ID })
	r.svc.Deployments = append([]state.Deployment{back, failed}, rest...)
	r.svc.TaskDefinition, r.svc.Network = back.TaskDefinition, back.Network
	r.svc.Impaired, r.svc.NextStart = 0, time.Time{}
	r.event("(service " + r.svc.Name + ") rolling back to deployment " + back.ID + ".")
}

// fixImages keeps the digests that the deployment's first task resolved, so
// that its later tasks run the same image whatever the tag has become
// (versionConsistency, on unless a container turns it off).
func (r *rollout) fixImages() {
	p := r.primary()
	td, ok := state.TaskDefinitions.Get(r.in.Read, p.TaskDefinition)
	if !ok {
		return
	}
	for i := range td.Doc.ContainerDefinitions {
		d := &td.Doc.ContainerDefinitions[i]
		if d.Name == nil || d.VersionConsistency == "disabled" || p.ImageDigests[*d.Name] != "" {
			continue
		}
		for _, t := range r.tasks {
			if t.Deployment != p.ID {
				continue
			}
			for _, c := range t.Containers {
				if c.Name == *d.Name && c.ImageDigest != "" && p.ImageDigests[c.Name] == "" {
					digests := maps.Clone(p.ImageDigests)
					if digests == nil {
						digests = map[string]string{}
					}
					digests[c.Name] = c.ImageDigest
					p.ImageDigests = digests
				}
			}
		}
	}
}

// threshold is BOUNDED_PERCENT with AWS's default of 50 (facts: services).
func threshold(desired int) int { return min(max((desired+1)/2, 3), 200) }

// write adds what differs to the plan.
func (r *rollout) write(p *control.Plan) {
	for arn, n := range r.changed {
		control.Put(p, state.Tasks, arn, r.before[arn], n)
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
