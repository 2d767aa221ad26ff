package state

import (
	"time"

	"github.com/berth-run/berth/store"
)

// LifecycleRun is when a repository's lifecycle policy was last evaluated.
type LifecycleRun struct {
	Repository string // key
	Policy     string // the text that was
	At         time.Time
	Next       time.Time // when it is to be evaluated again, should nothing change
}

// LifecycleRuns is keyed by account/name.
var LifecycleRuns = store.NewTable("lifecyclerun", func(r *LifecycleRun) string { return r.Repository })

// LifecyclePreview is what somebody asked to see: what a policy would have done
// at a time. What that is follows from the images.
type LifecyclePreview struct {
	Repository string // key
	Policy     string
	At         time.Time
}

// LifecyclePreviews is keyed by account/name.
var LifecyclePreviews = store.NewTable("lifecyclepreview", func(p *LifecyclePreview) string { return p.Repository })
