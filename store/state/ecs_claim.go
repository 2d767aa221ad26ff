package state

import "github.com/berth-run/berth/store"

// Claim counts how often tasks were placed on a container instance. Whoever
// places one replaces the row that it has seen: two that choose the same
// instance at the same time cannot both win, and so never take more of it than
// there is.
type Claim struct {
	Instance string // ARN
	N        int64
}

// Claims is keyed by the container instance's ARN.
var Claims = store.NewTable("claim", func(c *Claim) string { return c.Instance })

// Claimed is the version of a container instance as clients see it: a task that
// is placed on it is a change of it, too.
func (c *ContainerInstance) Claimed(r store.Reader) int64 {
	if n, ok := Claims.Get(r, c.ARN); ok {
		return c.Version + n.N
	}
	return c.Version
}
