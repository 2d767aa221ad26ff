package deploy

import (
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/store/state"
)

// A size is a task set and what this plan makes of it.
type size struct{ old, now *state.TaskSet }

// sets keeps each task set of a service at its share of the desired count. Who
// controls the deployment says when a set grows, shrinks or goes; the minimum
// and the maximum of a rolling deployment mean nothing here.
func (r *rollout) sets() {
	for s := range state.TaskSets.By(r.in.Read, "service", r.svc.ARN) {
		n := *s
		r.sizes = append(r.sizes, &size{s, &n})
	}
	slices.SortFunc(r.sizes, func(a, b *size) int {
		if c := a.old.CreatedAt.Compare(b.old.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.old.ARN, b.old.ARN)
	})
	name := r.name
	stable := len(r.sizes) > 0
	r.sizes = slices.DeleteFunc(r.sizes, func(s *size) bool {
		done := r.keep(s.now, name)
		if done {
			r.removed = append(r.removed, s.old)
		}
		stable = stable && (done || s.now.Stability == "STEADY_STATE")
		return done
	})
	r.name = name
	if !stable || len(r.sizes) == 0 {
		r.svc.SteadyAt = time.Time{}
		return
	}
	r.steady()
}

// keep starts and stops the tasks of one task set. It reports whether the set is
// gone with its last task.
func (r *rollout) keep(s *state.TaskSet, service string) (gone bool) {
	desired := s.Desired(r.svc.DesiredCount)
	mine := func(t *state.Task) bool { return t.Deployment == s.ID }
	r.name = strings.TrimSuffix(service, ")") + ", taskSet " + s.ID + ")"
	s.ImageDigests = r.digests(s.ID, s.TaskDefinition, s.ImageDigests)
	good, sick := split(r.live(mine))
	good, moving := r.leaving(good)
	blocked := 0
	if extra := len(good) - desired; extra > 0 {
		if s.Status == "DRAINING" {
			r.stop(good, "Scaling activity initiated by (deployment "+s.ID+")")
		} else {
			blocked = r.scaleIn(good, extra, s.ID)
		}
		good, _ = split(r.live(mine))
		good, _ = r.leaving(good)
	}
	if missing := desired - len(good); missing > 0 {
		if r.svc.NextStart.After(r.in.Now) {
			r.wakeAt(r.svc.NextStart)
		} else {
			r.start(missing, len(sick), launch{s.ID, s.TaskDefinition, s.Network, s.LaunchType, s.PlatformVersion, s.PlatformFamily, s.CapacityProviderStrategy})
		}
	}
	r.move(moving, r.ready(good)+r.ready(moving)-desired, s.ID)
	if desired == 0 {
		r.stop(sick, "Scaling activity initiated by (deployment "+s.ID+")")
	} else {
		r.retire(good, sick, desired)
	}
	r.name = service
	r.protection(&s.Blocked, s.ID, blocked)

	live, running, rest := 0, 0, false
	for _, t := range r.all() {
		if !mine(t) || t.LastStatus == state.Stopped {
			continue
		}
		rest = true
		if t.DesiredStatus != state.Running {
			continue
		}
		live++
		if r.runs(t) {
			running++
		}
	}
	if s.Status == "DRAINING" && !rest {
		return true
	}
	stability := "STABILIZING"
	if live == desired && running == desired {
		stability = "STEADY_STATE"
	}
	if s.Stability != stability {
		s.Stability, s.StabilityAt = stability, r.in.Now
	}
	return false
}
