package ecs

import (
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// roomForCluster refuses an active cluster too many.
func roomForCluster(tx *store.Tx, account string) error {
	// Two that are created at the same time must not both be the last.
	tx.Guard("ecs-clusters/" + account)
	n, limit := 0, state.Limit(tx, account, "ecs/clusters")
	for c := range state.Clusters.By(tx, "account", account) {
		if c.Status == statusActive {
			n++
		}
	}
	if n >= limit {
		return client("The maximum number of clusters has been reached: %d.", limit)
	}
	return nil
}

// roomForInstance refuses a container instance too many in a cluster.
func roomForInstance(tx *store.Tx, c *state.Cluster) error {
	tx.Guard("ecs-instances/" + c.ARN)
	n, limit := 0, state.Limit(tx, c.Account, "ecs/container-instances-per-cluster")
	for i := range state.ContainerInstances.By(tx, "cluster", c.ARN) {
		if !i.Hidden && i.Status != statusInactive {
			n++
		}
	}
	if n >= limit {
		return client("The maximum number of container instances per cluster has been reached: %d.", limit)
	}
	return nil
}
