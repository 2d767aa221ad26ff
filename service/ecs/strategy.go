package ecs

import (
	"cmp"
	"slices"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const maxStrategy = 20

// checkStrategy validates what of a strategy needs no state.
func checkStrategy(strategy []api.CapacityProviderStrategyItem) error {
	if len(strategy) > maxStrategy {
		return invalid("A capacity provider strategy can have at most %d capacity providers.", maxStrategy)
	}
	bases := 0
	var names []string
	for _, s := range strategy {
		name := val(s.CapacityProvider)
		switch {
		case name == "":
			return invalid("A capacity provider strategy item must have a capacity provider.")
		case slices.Contains(names, name):
			return invalid("A capacity provider strategy cannot contain a duplicate capacity provider: %s.", name)
		}
		names = append(names, name)
		if val(s.Base) > 0 {
			bases++
		}
	}
	if bases > 1 {
		return invalid("Only one capacity provider in a capacity provider strategy can have a base value defined.")
	}
	return nil
}

func inStrategy(strategy []api.CapacityProviderStrategyItem, name string) bool {
	return slices.ContainsFunc(strategy, func(s api.CapacityProviderStrategyItem) bool { return val(s.CapacityProvider) == name })
}

// storedStrategy is a strategy with AWS's defaults filled in.
func storedStrategy(strategy []api.CapacityProviderStrategyItem) []api.CapacityProviderStrategyItem {
	out := slices.Clone(strategy)
	for i := range out {
		out[i].Weight, out[i].Base = new(val(out[i].Weight)), new(val(out[i].Base))
	}
	return out
}

// associate gives a cluster capacity providers and a default strategy.
func (e *ECS) associate(tx *store.Tx, c *state.Cluster, names []string, strategy []api.CapacityProviderStrategyItem) error {
	if limit := state.Limit(tx, c.Account, "ecs/capacity-providers-per-cluster"); len(names) > limit {
		return invalid(tooManyProviders, limit)
	}
	tx.Guard(capacityGuard(c.Account))
	var list []string
	for _, ref := range names {
		name, err := e.providerName(c.Account, ref)
		if err != nil {
			return err
		}
		p, ok := e.provider(tx, c.Account, name)
		switch {
		case !ok:
			return invalid("The specified capacity provider '%s' was not found. Specify a valid capacity provider and try again.", name)
		case p.Cluster != "" && p.Cluster != c.ARN:
			return invalid("The specified capacity provider '%s' belongs to another cluster.", name)
		case slices.Contains(list, name):
			return invalid("The capacity providers of a cluster cannot contain a duplicate: %s.", name)
		}
		list = append(list, name)
	}
	for _, s := range strategy {
		if !slices.Contains(list, val(s.CapacityProvider)) {
			return invalid(notAssociated)
		}
	}
	if err := e.sameKind(tx, c.Account, strategy); err != nil {
		return err
	}
	c.CapacityProviders, c.DefaultCapacityProviderStrategy = list, storedStrategy(strategy)
	// Nothing is attached to a cluster here, so its attachments are as they should be.
	c.AttachmentsStatus = string(api.CapacityProviderUpdateStatusUpdateComplete)
	return nil
}

const emptyProvider = "No Container Instances were found in your capacity provider."

const notAssociated = "The specified capacity provider strategy cannot contain a capacity provider that is not associated with the cluster. Associate the capacity provider with the cluster and try again."

// sameKind refuses strategies over capacity of more than one kind.
func (e *ECS) sameKind(r store.Reader, account string, strategy []api.CapacityProviderStrategyItem) error {
	kinds := map[string]bool{}
	for _, s := range strategy {
		if p, ok := e.provider(r, account, val(s.CapacityProvider)); ok {
			kinds[launchTypeOf(p)] = true
		}
	}
	if len(kinds) > 1 {
		return invalid("The specified capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups, managed instances and Fargate.")
	}
	return nil
}

// launchTypeOf is the launch type of the tasks of a capacity provider.
func launchTypeOf(p *state.CapacityProvider) string {
	switch {
	case state.IsFargate(p.Name):
		return string(api.LaunchTypeFargate)
	case p.Managed != nil:
		return string(api.LaunchTypeManagedInstances)
	}
	return string(api.LaunchTypeEc2)
}

// compute is what tasks are to run on.
type compute struct {
	launch   string                             // the tasks' launch type
	strategy []api.CapacityProviderStrategyItem // nil if the launch type was asked for
}

// compute decides what new tasks run on: the launch type or the strategy of the
// request, the cluster's default strategy, or EC2.
func (e *ECS) compute(r store.Reader, c *state.Cluster, launch api.LaunchType, strategy []api.CapacityProviderStrategyItem) (compute, error) {
	switch {
	case launch != "" && len(strategy) > 0:
		return compute{}, invalid("Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.")
	case launch == api.LaunchTypeManagedInstances:
		return compute{}, invalid("The launch type MANAGED_INSTANCES is only available through a capacity provider strategy.")
	case launch != "" || len(strategy) == 0 && len(c.DefaultCapacityProviderStrategy) == 0:
		return compute{launch: string(cmp.Or(launch, api.LaunchTypeEc2))}, nil
	case len(strategy) == 0:
		strategy = c.DefaultCapacityProviderStrategy
	}
	if err := checkStrategy(strategy); err != nil {
		return compute{}, err
	}
	weights := 0
	for _, s := range strategy {
		if !slices.Contains(c.CapacityProviders, val(s.CapacityProvider)) {
			return compute{}, invalid(notAssociated)
		}
		weights += int(val(s.Weight))
	}
	if weights == 0 {
		return compute{}, invalid("The specified capacity provider strategy must contain at least one capacity provider with a weight greater than 0.")
	}
	if err := e.sameKind(r, c.Account, strategy); err != nil {
		return compute{}, err
	}
	p, ok := e.provider(r, c.Account, val(strategy[0].CapacityProvider))
	if !ok {
		return compute{}, invalid(notAssociated)
	}
	return compute{launchTypeOf(p), storedStrategy(strategy)}, nil
}

// asked is the launch type that was asked for: none if there is a strategy.
func (c compute) asked() string {
	if c.strategy != nil {
		return ""
	}
	return c.launch
}

// forService refuses what this version cannot run a service on.
func (c compute) forService() error {
	switch c.launch {
	case string(api.LaunchTypeFargate), string(api.LaunchTypeEc2):
		return nil
	case string(api.LaunchTypeManagedInstances):
		return invalid(emptyProvider) // no such instance is ever started
	}
	return unsupported("launchType " + c.launch)
}

// spread gives n tasks their capacity providers; "" without a strategy.
func (c compute) spread(n int) []string {
	out, have := make([]string, n), map[string]int{}
	for i := range out {
		out[i] = state.NextProvider(c.strategy, have)
		have[out[i]]++
	}
	return out
}

// available refuses tasks for which there is nothing to run on, now or soon.
func (e *ECS) available(r store.Reader, c compute, cluster *state.Cluster) error {
	active := func(provider string) bool {
		for i := range state.ContainerInstances.By(r, "cluster", cluster.ARN) {
			if !i.Hidden && i.Status == statusActive && (provider == "" || i.CapacityProvider == provider) {
				return true
			}
		}
		return false
	}
	if err := c.forService(); err != nil || c.launch == string(api.LaunchTypeFargate) {
		return err
	}
	for _, s := range c.strategy {
		p, ok := e.provider(r, cluster.Account, val(s.CapacityProvider))
		scales := ok && p.Group != nil && p.Group.ManagedScaling != nil && p.Group.ManagedScaling.Status == api.ManagedScalingStatusEnabled
		if scales || active(val(s.CapacityProvider)) {
			return nil
		}
	}
	switch {
	case c.strategy != nil:
		return invalid(emptyProvider)
	case !active(""):
		return invalid("No Container Instances were found in your cluster.")
	}
	return nil
}

// usesProvider reports whether a service or a task of the cluster has the
// capacity provider.
func (e *ECS) usesProvider(r store.Reader, c *state.Cluster, name string) bool {
	for s := range state.Services.By(r, "cluster", c.ARN) {
		if s.Status == statusInactive {
			continue
		}
		if inStrategy(s.CapacityProviderStrategy, name) || slices.ContainsFunc(s.Deployments, func(d state.Deployment) bool { return inStrategy(d.CapacityProviderStrategy, name) }) {
			return true
		}
		for set := range state.TaskSets.By(r, "service", s.ARN) {
			if inStrategy(set.CapacityProviderStrategy, name) {
				return true
			}
		}
	}
	for t := range state.Tasks.By(r, "cluster", c.ARN) {
		if t.CapacityProvider == name && t.LastStatus != state.Stopped {
			return true
		}
	}
	return false
}
