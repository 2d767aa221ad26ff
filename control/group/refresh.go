package group

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/store/state"
)

const (
	// stuck is how long a refresh goes on without getting any further.
	stuck = time.Hour

	refreshPending   = "Pending"
	refreshRuns      = "InProgress"
	refreshBakes     = "Baking"
	refreshCancels   = "Cancelling"
	refreshRollsBack = "RollbackInProgress"
)

// begin finds the refresh of the group, and if it is a new one what it is to replace.
func (w *work) begin() {
	w.was = state.ActiveRefresh(w.in.Read, w.g.ARN)
	w.refresh = w.was
	if w.was == nil || w.was.Begun || w.g.Deleting || w.g.Suspended("InstanceRefresh") {
		return
	}
	f := w.change()
	f.Begun, f.Launched, f.Progress, f.Checkpoint, f.ResumeAt, f.Replace = true, w.in.Now, w.in.Now, 0, time.Time{}, nil
	p := f.Doc.Preferences
	back := f.Doc.Status == refreshRollsBack
	var ways []state.ScalingLaunch
	if p.SkipMatching != nil && *p.SkipMatching && !back {
		ways, _ = w.g.Launches(w.in.Read, f.Doc.DesiredConfiguration) // what cannot be launched matches nothing, and the launches say so
	}
	since := w.was.Launched
	for _, r := range w.rows {
		i := r.now
		switch {
		case i.Leaving(), i.State == standby && p.StandbyInstances == "Ignore", i.Protected && p.ScaleInProtectedInstances == "Ignore":
			continue
		case back && i.LaunchedAt.Before(since):
			continue
		case slices.ContainsFunc(ways, func(l state.ScalingLaunch) bool { return l.Matches(i, string(l.In.InstanceType)) }):
			continue
		}
		f.Replace = append(f.Replace, i.ID)
	}
	f.Total = len(f.Replace)
	if !back {
		f.Doc.Status = refreshRuns
	}
	f.Doc.StartTime = firstTime(f.Doc.StartTime, w.in.Now)
}

func firstTime(t *time.Time, now time.Time) *time.Time {
	if t != nil {
		return t
	}
	return new(now)
}

// change begins a change of the refresh.
func (w *work) change() *state.InstanceRefresh {
	if w.refresh == w.was {
		n := *w.was
		w.refresh = &n
	}
	w.touch()
	return w.refresh
}

// configuration is what the refresh launches with, nil for the group's own.
func (w *work) configuration() *autoscaling.DesiredConfiguration {
	if w.refresh == nil || w.refresh.Doc.Status != refreshRuns && w.refresh.Doc.Status != refreshBakes {
		return nil
	}
	return w.refresh.Doc.DesiredConfiguration
}

// replacing reports whether the refresh replaces instances now.
func (w *work) replacing() bool {
	f := w.refresh
	return f != nil && f.Begun && (f.Doc.Status == refreshRuns || f.Doc.Status == refreshRollsBack) && !f.ResumeAt.After(w.in.Now) && !w.g.Suspended("InstanceRefresh")
}

// remaining are the instances that the refresh has yet to replace.
func (w *work) remaining() (out []*row) {
	for _, r := range w.rows {
		if r.now != nil && !r.now.Leaving() && slices.Contains(w.refresh.Replace, r.now.ID) {
			out = append(out, r)
		}
	}
	return out
}

// free are those of the remaining that may be replaced as they are now.
func (w *work) free() (out []*row) {
	p := w.refresh.Doc.Preferences
	for _, r := range w.remaining() {
		if r.now.Protected && p.ScaleInProtectedInstances != "Refresh" || r.now.State == standby && p.StandbyInstances != "Terminate" {
			continue
		}
		out = append(out, r)
	}
	return out
}

// extra is how many instances more than desired there may be because of the refresh.
func (w *work) extra() int {
	if !w.replacing() {
		return 0
	}
	over := value(w.refresh.Doc.Preferences.MaxHealthyPercentage) - 100
	if over <= 0 {
		return 0
	}
	may := min(len(w.free()), w.allowed())
	return max(0, min(max(1, w.g.Desired()*over/100), may))
}

// allowed is how many more may be replaced before the next checkpoint.
func (w *work) allowed() int {
	f := w.refresh
	cps := f.Doc.Preferences.CheckpointPercentages
	if f.Doc.Status == refreshRollsBack || f.Checkpoint >= len(cps) {
		return f.Total
	}
	return (f.Total*int(cps[f.Checkpoint])+99)/100 - (f.Total - len(w.remaining()))
}

func (w *work) warmup() time.Duration {
	if s := w.refresh.Doc.Preferences.InstanceWarmup; s != nil {
		return time.Duration(*s) * time.Second
	}
	return w.g.Warmup()
}

// refreshed takes the refresh one step further.
func (w *work) refreshed() {
	if w.refresh == nil || !w.refresh.Begun {
		return
	}
	warm := w.warmup()
	desired := w.g.Desired()
	good, late, active := 0, 0, 0
	for _, r := range w.rows {
		i := r.now
		if i == nil || !i.Counts() {
			continue
		}
		active++
		switch own := !i.LaunchedAt.Before(w.refresh.Launched); {
		case !own && i.State == inService && i.Health == healthy, own && i.Ready(warm, w.in.Now):
			good++
		case own:
			late++
			if i.State == inService {
				w.WakeAt(i.InServiceAt.Add(warm))
			}
		}
	}
	late += max(0, desired-active)
	left := len(w.remaining())
	w.progress(left, late)

	f := w.refresh
	switch f.Doc.Status {
	case refreshCancels:
		moving := late > 0 || slices.ContainsFunc(w.rows, func(r *row) bool { return r.now != nil && r.now.Leaving() })
		if !f.WaitTransitions || !moving {
			w.end("Cancelled", "Cancelled by user.")
		}
		return
	case refreshBakes:
		if f.ResumeAt.After(w.in.Now) {
			w.WakeAt(f.ResumeAt)
		} else {
			w.succeed()
		}
		return
	}
	if w.g.Suspended("InstanceRefresh") {
		return
	}
	if left == 0 && late == 0 {
		w.done()
		return
	}
	if w.checkpoint(left, late) {
		return
	}
	if end := f.Progress.Add(stuck + warm); !end.After(w.in.Now) {
		w.fail("Instance refresh has made no progress for an hour.")
		return
	} else {
		w.WakeAt(end)
	}
	if w.g.Suspended("Terminate") {
		return
	}
	may := w.allowed()
	room := good - w.floor()
	free := w.free()
	for may > 0 && len(free) > 0 {
		// Each one that goes changes which zone has the most.
		r := w.next(free)
		if w.serves(r) {
			if room <= 0 {
				break // the others serve, too
			}
			room--
		}
		may--
		w.retire(r, fmt.Sprintf("At %s an instance was taken out of service in response to an instance refresh.", w.at()))
		free = slices.DeleteFunc(free, func(o *row) bool { return o == r })
	}
}

// next is the instance that is replaced next: one that does not serve, or else
// the oldest of the zone with the most.
func (w *work) next(free []*row) *row {
	count := w.count()
	return slices.MinFunc(free, func(a, b *row) int {
		if x, y := w.serves(a), w.serves(b); x != y {
			if y {
				return -1
			}
			return 1
		}
		return cmp.Or(count[b.now.Zone]-count[a.now.Zone], a.now.LaunchedAt.Compare(b.now.LaunchedAt), strings.Compare(a.now.ID, b.now.ID))
	})
}

func (w *work) serves(r *row) bool { return r.now.State == inService && r.now.Health == healthy }

// floor is how many instances serve at least while others are replaced: with a
// maximum of more than 100 percent new ones come first.
func (w *work) floor() int {
	p, desired := w.refresh.Doc.Preferences, w.g.Desired()
	if value(p.MaxHealthyPercentage) > 100 {
		return desired
	}
	return Floor(desired, value(p.MinHealthyPercentage))
}

// Floor is how many of so many instances are to serve while a refresh ends some
// before it launches others: the given percentage, but for one at least.
func Floor(desired, percentage int) int {
	return min((desired*percentage+99)/100, desired-1)
}

// progress notes how far the refresh has come.
func (w *work) progress(left, late int) {
	f := w.refresh
	update := min(f.Total, left+late)
	percent := 100
	if f.Total > 0 {
		percent = (f.Total - update) * 100 / f.Total
	}
	if f.Doc.Status == refreshRollsBack {
		percent = min(percent, 100)
	}
	if f.Doc.PercentageComplete != nil && int(*f.Doc.PercentageComplete) == percent && value(f.Doc.InstancesToUpdate) == update && f.Doc.InstancesToUpdate != nil {
		return
	}
	f = w.change()
	f.Progress = w.in.Now
	f.Doc.PercentageComplete, f.Doc.InstancesToUpdate = new(int32(percent)), new(int32(update))
	f.Doc.ProgressDetails = &autoscaling.InstanceRefreshProgressDetails{LivePoolProgress: &autoscaling.InstanceRefreshLivePoolProgress{
		PercentageComplete: f.Doc.PercentageComplete, InstancesToUpdate: f.Doc.InstancesToUpdate}}
}

// checkpoint reports whether the refresh pauses now.
func (w *work) checkpoint(left, late int) bool {
	f := w.refresh
	cps := f.Doc.Preferences.CheckpointPercentages
	if f.Doc.Status == refreshRollsBack || f.Checkpoint >= len(cps) {
		return false
	}
	switch reached := f.Total-left-late >= (f.Total*int(cps[f.Checkpoint])+99)/100; {
	case !reached:
		return false
	case f.Checkpoint == len(cps)-1:
		w.done()
		return true
	case f.ResumeAt.IsZero():
		f = w.change()
		delay := 3600
		if d := f.Doc.Preferences.CheckpointDelay; d != nil {
			delay = int(*d)
		}
		f.ResumeAt = w.in.Now.Add(time.Duration(delay) * time.Second)
		f.Doc.StatusReason = new(fmt.Sprintf("Waiting for checkpoint delay of %d seconds at %d%%.", delay, cps[f.Checkpoint]))
	}
	if f.ResumeAt.After(w.in.Now) {
		w.WakeAt(f.ResumeAt)
		return true
	}
	f = w.change()
	f.Checkpoint++
	f.ResumeAt, f.Doc.StatusReason, f.Progress = time.Time{}, nil, w.in.Now
	w.WakeAt(w.in.Now)
	return false
}

// done ends a refresh of which nothing is left to do, after it has baked.
func (w *work) done() {
	bake := value(w.refresh.Doc.Preferences.BakeTime)
	if bake == 0 || w.refresh.Doc.Status == refreshRollsBack {
		w.succeed()
		return
	}
	f := w.change()
	f.Doc.Status, f.ResumeAt = refreshBakes, w.in.Now.Add(time.Duration(bake)*time.Second)
	w.WakeAt(f.ResumeAt)
}

func (w *work) succeed() {
	if w.refresh.Doc.Status == refreshRollsBack {
		w.end("RollbackSuccessful", "")
		return
	}
	if c := w.refresh.Doc.DesiredConfiguration; c != nil {
		// What it has brought is the group's own from now on.
		if c.LaunchTemplate != nil || c.MixedInstancesPolicy != nil {
			w.g.Doc.LaunchTemplate, w.g.Doc.MixedInstancesPolicy, w.g.Doc.LaunchConfigurationName = c.LaunchTemplate, c.MixedInstancesPolicy, nil
		}
	}
	w.end("Successful", "")
}

func (w *work) fail(why string) {
	f := w.change()
	p := f.Doc.Preferences
	switch {
	case f.Doc.Status == refreshRollsBack:
		w.end("RollbackFailed", why)
	case p.AutoRollback != nil && *p.AutoRollback:
		f.RollBack(why, w.in.Now)
		w.WakeAt(w.in.Now)
	default:
		w.end("Failed", why)
	}
}

func (w *work) end(status, why string) {
	f := w.change()
	f.Doc.Status, f.Doc.EndTime, f.Doc.StatusReason = autoscaling.InstanceRefreshStatus(status), new(w.in.Now), nil
	if why != "" {
		f.Doc.StatusReason = new(why)
	}
	f.ResumeAt = time.Time{}
}
