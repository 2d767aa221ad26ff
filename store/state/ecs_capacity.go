package state

import (
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
)

// CapacityProvider is a capacity provider that somebody has created. Those of
// Fargate exist without a row.
type CapacityProvider struct {
	ARN, Account, Name string
	Cluster            string // ARN; of a provider of managed instances only
	Status             string // ACTIVE
	UpdateStatus       string
	Group              *ecs.AutoScalingGroupProvider
	Managed            *ecs.ManagedInstancesProvider
	Tags               []Tag
	CreatedAt          time.Time
	Low                time.Time // since when less than the target capacity is used; zero: it is not
	ScaledAt           time.Time // when its group was last scaled in
}

// GroupOf is the Auto Scaling group of a capacity provider, which it names by
// ARN or by name.
func (p *CapacityProvider) GroupOf(r store.Reader) (*ScalingGroup, bool) {
	if p.Group == nil {
		return nil, false
	}
	return FindScalingGroup(r, p.Account, str(p.Group.AutoScalingGroupArn))
}

// FindScalingGroup finds a group of an account by its name or ARN.
func FindScalingGroup(r store.Reader, account, ref string) (*ScalingGroup, bool) {
	name := ref
	if strings.HasPrefix(ref, "arn:") {
		_, name, _ = strings.Cut(ref, ":autoScalingGroupName/")
	}
	g, ok := ScalingGroups.Get(r, ScalingGroupKey(account, name))
	return g, ok && (name == ref || g.ARN == ref)
}

// CapacityProviders is keyed by ARN.
var CapacityProviders = store.NewTable("capacity-provider", func(p *CapacityProvider) string { return p.ARN },
	store.Index("account", func(p *CapacityProvider) []string { return []string{p.Account} }))

// The capacity providers that AWS has.
const (
	Fargate     = "FARGATE"
	FargateSpot = "FARGATE_SPOT"
)

// IsFargate reports whether a capacity provider is one of Fargate's.
func IsFargate(provider string) bool { return provider == Fargate || provider == FargateSpot }

// LaunchOf is the launch type of the tasks of a service or deployment: the one
// it has, or that of its strategy's capacity providers, which are of one kind.
func LaunchOf(launch string, strategy []ecs.CapacityProviderStrategyItem) string {
	switch {
	case launch != "" || len(strategy) == 0:
		return launch
	case IsFargate(str(strategy[0].CapacityProvider)):
		return Fargate
	}
	return string(ecs.LaunchTypeEc2)
}

// NextProvider chooses the capacity provider of one more task of a strategy,
// where have counts the tasks that each has already: bases are filled first,
// in the order of the strategy; what comes after goes where a provider is
// furthest behind its weight. "" means that no provider has a weight.
func NextProvider(strategy []ecs.CapacityProviderStrategyItem, have map[string]int) string {
	for i := range strategy {
		if s := &strategy[i]; have[str(s.CapacityProvider)] < number(s.Base) {
			return str(s.CapacityProvider)
		}
	}
	best, bestAfter, bestWeight := "", 0, 0
	for i := range strategy {
		s := &strategy[i]
		weight := number(s.Weight)
		if weight == 0 {
			continue
		}
		// after/weight is the load with the task; the least wins, exactly, and
		// the heavier one where they are equal.
		after := have[str(s.CapacityProvider)] - number(s.Base) + 1
		a, b := after*bestWeight, bestAfter*weight
		if best == "" || a < b || a == b && weight > bestWeight {
			best, bestAfter, bestWeight = str(s.CapacityProvider), after, weight
		}
	}
	return best
}

func number(p *int32) int {
	if p == nil {
		return 0
	}
	return int(*p)
}
