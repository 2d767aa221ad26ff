// Package lifecycle runs the lifecycle policies of image repositories: it
// removes and archives what they say, soon after it is so. What they say is
// package registry/lifecycle's business.
//
// It reads repositories, images and tags, and writes images, tags, Replicas of
// images that go, and LifecycleRuns. Content is not touched: the registry collects what no image
// uses any more.
package lifecycle

import (
	"strings"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/registry/lifecycle"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	// batch bounds one transaction; the rest follows in the next plan.
	batch = 400
	// often is how far behind the recorded time of a run that changes nothing may be.
	often = time.Hour
	// never is when a policy is looked at again that waits for no moment.
	never = 24 * time.Hour
)

// Controller runs the policies.
var Controller = control.Controller{
	Name:  "lifecycle",
	Reads: []store.AnyTable{state.Repositories, state.Images, state.ImageTags},
	Plan:  Plan,
}

// Plan does what the policies of the repositories that changed, or of all, say now.
func Plan(in control.Input) (p control.Plan) {
	seen := map[string]bool{}
	for repo := range repositories(in) {
		if repo.Lifecycle == "" || seen[repo.Key()] {
			continue
		}
		seen[repo.Key()] = true
		if !evaluate(in, &p, repo) {
			p.WakeAt(in.Now) // the batch is full
			break
		}
	}
	// Whatever was not looked at keeps its moment.
	for run := range state.LifecycleRuns.All(in.Read) {
		if !seen[run.Repository] && !run.Next.IsZero() {
			if repo, ok := state.Repositories.Get(in.Read, run.Repository); ok && repo.Lifecycle != "" {
				p.WakeAt(run.Next)
			}
		}
	}
	return p
}

// repositories are those to look at.
func repositories(in control.Input) func(yield func(*state.Repository) bool) {
	if in.All {
		return state.Repositories.All(in.Read)
	}
	return func(yield func(*state.Repository) bool) {
		for _, t := range []struct {
			keys []string
			sep  string
		}{
			{in.Changed.Keys(state.Repositories), ""},
			{in.Changed.Keys(state.Images), "@"},
			{in.Changed.Keys(state.ImageTags), ":"},
		} {
			for _, key := range t.keys {
				if t.sep != "" {
					key, _, _ = strings.Cut(key, t.sep)
				}
				if repo, ok := state.Repositories.Get(in.Read, key); ok && !yield(repo) {
					return
				}
			}
		}
	}
}

// evaluate adds what a repository's policy wants. It is false if there was no room for all.
func evaluate(in control.Input, p *control.Plan, repo *state.Repository) bool {
	policy, err := lifecycle.Parse(repo.Lifecycle)
	if err != nil {
		return true // of an older program: nothing is done that nobody understands
	}
	key := repo.Key()
	verdicts, next := policy.Evaluate(lifecycle.Images(in.Read, key), in.Now)
	if len(verdicts) > 0 {
		control.Require(p, state.Repositories, key, repo)
		control.RequireRange(p, state.Images, key+"@", in.Read)
		control.RequireRange(p, state.ImageTags, key+":", in.Read)
	}
	for _, v := range verdicts {
		if len(p.Changes) > 3 && len(p.Changes)+len(v.Image.Tags) >= batch {
			return false
		}
		if v.Rule != nil && v.Rule.Transition {
			archived := *v.Image.Image
			archived.ArchivedAt = in.Now
			control.Put(p, state.Images, v.Image.Key(), v.Image.Image, &archived)
			continue
		}
		for _, tag := range v.Image.Tags {
			if row, ok := state.ImageTags.Get(in.Read, state.ImageTagKey(key, tag)); ok {
				control.Delete(p, state.ImageTags, state.ImageTagKey(key, tag), row)
			}
		}
		for r := range state.Replicas.Prefix(in.Read, v.Image.Key()+"/") {
			control.Delete(p, state.Replicas, r.Key(), r)
		}
		control.Delete(p, state.Images, v.Image.Key(), v.Image.Image)
	}
	if next.IsZero() {
		next = in.Now.Add(never)
	}
	p.WakeAt(next)
	run, ok := state.LifecycleRuns.Get(in.Read, key)
	if !ok || len(verdicts) > 0 || run.Policy != repo.Lifecycle || !run.Next.After(in.Now) || next.Before(run.Next) || in.Now.Sub(run.At) >= often {
		control.Put(p, state.LifecycleRuns, key, run, &state.LifecycleRun{Repository: key, Policy: repo.Lifecycle, At: in.Now, Next: next})
	}
	return true
}
