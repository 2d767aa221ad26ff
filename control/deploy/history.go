package deploy

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store/state"
)

// A record is a service deployment that this plan may change.
type record struct {
	old *state.ServiceDeployment
	*state.ServiceDeployment
}

// open reads the service deployments that have not finished.
func (r *rollout) open() {
	for d := range state.ServiceDeployments.By(r.in.Read, "open", r.svc.ARN) {
		n := &record{d, d.Clone()}
		r.history = append(r.history, n)
		if d.ARN == r.svc.ServiceDeployment {
			r.current = n
		}
	}
	slices.SortFunc(r.history, func(a, b *record) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ARN, b.ARN)
	})
}

// begin ends what a newer deployment has replaced, starts the newest one, and
// does what was asked of it.
func (r *rollout) begin() {
	for _, d := range r.history {
		if d != r.current {
			d.finish(state.DeploymentStopped, "Service deployment stopped because a newer service deployment replaced it.", r.in.Now)
		}
	}
	d := r.current
	if d == nil {
		return
	}
	if d.StartedAt.IsZero() {
		d.StartedAt = r.in.Now
	}
	switch d.Status {
	case state.DeploymentPending:
		d.Status = state.DeploymentInProgress
	case state.DeploymentRollbackRequested:
		r.fail("ECS deployment " + r.primary().ID + " stopped.")
		if r.goBack("ECS deployment stopped: rolling back to deploymentId") {
			r.rollingBack("Service deployment rolled back because a user asked for it.")
		} else {
			d.finish(state.DeploymentStopped, "Service deployment stopped: there is no service revision to roll back to.", r.in.Now)
		}
	case state.DeploymentStopRequested:
		r.fail("ECS deployment " + r.primary().ID + " stopped.")
		d.finish(state.DeploymentStopped, "Service deployment stopped because a user asked for it.", r.in.Now)
	}
}

// rollingBack: the primary deployment is the one that the service goes back to.
func (r *rollout) rollingBack(reason string) {
	d := r.current
	d.Status, d.StatusReason = state.DeploymentRollbackInProgress, reason
	d.Rollback = &state.Rollback{Reason: reason, StartedAt: r.in.Now, Revision: state.RevisionARN(r.svc.ARN, r.primary().ID)}
	if d.StoppedAt.IsZero() {
		d.StoppedAt = r.in.Now
	}
}

// tripped: the circuit breaker has ended the rollout.
func (r *rollout) tripped(rollback bool) {
	const exceeded = "because the circuit breaker threshold was exceeded."
	d := r.current
	if d == nil {
		return
	}
	if d.Status == state.DeploymentRollbackInProgress {
		d.finish(state.DeploymentRollbackFailed, "Service deployment rollback failed "+exceeded, r.in.Now)
		return
	}
	d.BreakerStatus = "TRIGGERED"
	d.Threshold = threshold(r.svc.DesiredCount)
	d.Failures = d.Threshold
	if rollback {
		r.rollingBack("Service deployment rolled back " + exceeded)
		return
	}
	d.finish(state.DeploymentStopped, "Service deployment stopped "+exceeded, r.in.Now)
}

// completed: all tasks of the primary deployment run, and no others.
func (r *rollout) completed() {
	d := r.current
	if d == nil {
		return
	}
	if d.Status == state.DeploymentRollbackInProgress {
		d.finish(state.DeploymentRollbackSuccessful, d.StatusReason, r.in.Now)
		return
	}
	d.finish(state.DeploymentSuccessful, "", r.in.Now)
	if d.BreakerStatus == "MONITORING" {
		d.BreakerStatus = "MONITORING_COMPLETE"
	}
}

func (d *record) finish(status, reason string, now time.Time) {
	if d.Finished() {
		return
	}
	d.Status, d.StatusReason, d.FinishedAt = status, reason, now
	if status == state.DeploymentStopped && d.StoppedAt.IsZero() {
		d.StoppedAt = now
	}
}

// writeHistory adds the service deployments to the plan. What has finished keeps
// the counts of this moment.
func (r *rollout) writeHistory(p *control.Plan) {
	if d := r.current; d != nil && d.BreakerStatus != "TRIGGERED" && d.Rollback == nil {
		d.Threshold = threshold(r.svc.DesiredCount)
		if len(r.svc.Deployments) > 0 {
			d.Failures = r.primary().FailedTasks
		}
	}
	for _, d := range r.history {
		if d.Finished() {
			for i := range d.Sources {
				r.count(&d.Sources[i])
			}
			r.count(&d.Target)
		}
		if reflect.DeepEqual(d.ServiceDeployment, d.old) {
			continue
		}
		d.UpdatedAt = r.in.Now
		control.Put(p, state.ServiceDeployments, d.ARN, d.old, d.ServiceDeployment)
	}
}

// count counts the tasks of a revision as this plan leaves them.
func (r *rollout) count(c *state.RevisionCount) {
	c.Requested, c.Running, c.Pending = 0, 0, 0
	for _, d := range r.svc.Deployments {
		if state.RevisionARN(r.svc.ARN, d.ID) == c.Revision {
			c.Requested = d.DesiredCount
		}
	}
	for _, t := range r.all() {
		if state.RevisionARN(r.svc.ARN, t.Deployment) != c.Revision {
			continue
		}
		switch {
		case t.LastStatus == state.Running:
			c.Running++
		case t.DesiredStatus == state.Running && !t.Past(state.Running):
			c.Pending++
		}
	}
}
