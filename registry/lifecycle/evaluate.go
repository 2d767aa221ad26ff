package lifecycle

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Image is an image as far as a policy looks at it.
type Image struct {
	*state.Image
	Tags []string
	// Held: something that is there needs it, an index or, if it has no tag, its
	// subject. It goes after that and not before, and does not count.
	Held bool
	// Orphan: it has no tag and its subject is not there.
	Orphan bool
}

// Images are the images of a repository.
func Images(r store.Reader, repository string) []Image {
	var out []Image
	for i := range state.Images.Prefix(r, repository+"@") {
		m := Image{Image: i, Tags: image.Tags(r, i)}
		for range state.Images.By(r, "manifest", i.Key()) {
			m.Held = true
			break
		}
		if i.Subject != "" && len(m.Tags) == 0 {
			subject := state.Images.Has(r, state.ImageKey(repository, i.Subject))
			m.Held, m.Orphan = m.Held || subject, !subject && !m.Held
		}
		out = append(out, m)
	}
	return out
}

// Verdict says that a rule takes an image; nil: it goes after its subject.
type Verdict struct {
	Image Image
	Rule  *Rule
}

// orphanFor is how long an artifact outlives its subject, or waits for it.
const orphanFor = 24 * time.Hour

// forever, in days, is what time can still add up.
const forever = 1_000_000

// Evaluate says what a policy does at a time, oldest image first. next is when
// it would do something more to the same images; zero: never.
//
// An image whose tags a rule asks for belongs to that rule: none with a higher
// number touches it. A rule counts images all the same if they belong to
// another.
func (p *Policy) Evaluate(images []Image, now time.Time) (verdicts []Verdict, next time.Time) {
	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b Image) int {
		return cmp.Or(a.PushedAt.Compare(b.PushedAt), strings.Compare(a.Digest, b.Digest))
	})
	due := func(at time.Time) bool {
		if !at.After(now) {
			return true
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
		return false
	}
	owner := make([]*Rule, len(images))
	taken := make([]bool, len(images))
	for i := range p.Rules {
		r := &p.Rules[i]
		var selected []int
		for n, m := range images {
			if !m.Held && !m.Orphan && m.Archived() == r.Archive && r.matches(m.Tags) {
				selected = append(selected, n)
			}
		}
		for at, n := range selected {
			if owner[n] != nil {
				continue
			}
			owner[n] = r
			if r.CountType == Count {
				taken[n] = len(selected)-at > r.Number
			} else {
				taken[n] = due(r.since(images[n]).AddDate(0, 0, min(r.Number, forever)))
			}
		}
	}
	for n, m := range images {
		switch {
		case taken[n]:
			verdicts = append(verdicts, Verdict{m, owner[n]})
		case m.Orphan && due(m.PushedAt.Add(orphanFor)):
			verdicts = append(verdicts, Verdict{m, nil})
		}
	}
	return verdicts, next
}

func (r *Rule) matches(tags []string) bool {
	switch r.TagStatus {
	case "any":
		return true
	case "untagged":
		return len(tags) == 0
	}
	for _, prefix := range r.Prefixes {
		if !slices.ContainsFunc(tags, func(t string) bool { return strings.HasPrefix(t, prefix) }) {
			return false
		}
	}
	for _, pattern := range r.Patterns {
		if !slices.ContainsFunc(tags, func(t string) bool { return image.Match(pattern, t) }) {
			return false
		}
	}
	return true
}

// since is when a rule of time begins to count.
func (r *Rule) since(m Image) time.Time {
	switch r.CountType {
	case SincePulled:
		// What was never pulled counts from its push, what came back from then.
		at := m.PushedAt
		for _, t := range []time.Time{m.PulledAt, m.ActivatedAt} {
			if t.After(at) {
				at = t
			}
		}
		return at
	case SinceMoved:
		return m.ArchivedAt
	}
	return m.PushedAt
}
