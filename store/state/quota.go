package state

import (
	"fmt"
	"maps"
	"slices"

	"github.com/berth-run/berth/store"
)

// Quota is a limit that somebody has set, for an account or for all.
type Quota struct {
	Account string // "" for every account that has no row of its own
	Name    string // ecs/clusters
	Value   int
}

// Quotas is keyed by account/name; what has no row has AWS's default.
var Quotas = store.NewTable("quota", func(q *Quota) string { return QuotaKey(q.Account, q.Name) })

// QuotaKey is the key of an account's quota.
func QuotaKey(account, name string) string { return account + "/" + name }

// quotaDefaults are AWS's values for a new account (facts: quotas), but for
// those of Fargate's vCPU, which AWS raises with use and a machine limits anyway.
var quotaDefaults = map[string]int{
	"ecr/repositories":                    100_000,
	"ecr/images-per-repository":           100_000,
	"ecr/tags-per-image":                  1_000,
	"ecr/layer-mebibytes":                 52_000,
	"ecr/pull-through-rules":              50,
	"ecr/templates":                       100,
	"ecr/pull-time-exclusions":            100,
	"ecs/clusters":                        10_000,
	"ecs/services-per-cluster":            5_000,
	"ecs/container-instances-per-cluster": 5_000,
	"ecs/tasks-per-service":               5_000,
	"ecs/capacity-providers-per-cluster":  20,
	"ecs/revisions-per-family":            1_000_000,
	"ecs/target-groups-per-service":       5,
	"ecs/task-sets-per-service":           5,
	"ecs/fargate-vcpus":                   4_000,
	"ecs/fargate-spot-vcpus":              4_000,

	"ec2/instances":                1_000,
	"ec2/key-pairs":                5_000,
	"ec2/images":                   50_000,
	"ec2/launch-templates":         5_000,
	"ec2/launch-template-versions": 10_000,
	"ssm/parameters":               10_000,
	"ssm/sessions":                 1_000,

	"autoscaling/groups":                500,
	"autoscaling/launch-configurations": 200,
	"autoscaling/policies-per-group":    50,
	"autoscaling/schedules-per-group":   125,
	"autoscaling/hooks-per-group":       50,

	"iam/users":                           5_000,
	"iam/groups":                          300,
	"iam/roles":                           1_000,
	"iam/policies":                        1_500,
	"iam/policy-versions":                 10_000,
	"iam/instance-profiles":               1_000,
	"iam/server-certificates":             20,
	"iam/oidc-providers":                  100,
	"iam/saml-providers":                  100,
	"iam/access-keys-per-user":            2,
	"iam/signing-certificates-per-user":   2,
	"iam/ssh-keys-per-user":               5,
	"iam/mfa-devices-per-user":            8,
	"iam/service-credentials-per-service": 2,
	"iam/groups-per-user":                 10,
	"iam/policies-per-user":               10,
	"iam/policies-per-role":               10,
	"iam/policies-per-group":              10,
	"iam/versions-per-policy":             5,
	"iam/client-ids-per-oidc-provider":    100,
	"iam/thumbprints-per-oidc-provider":   5,
	"iam/policy-size":                     6_144,
	"iam/trust-policy-size":               2_048,
	"iam/user-policy-size":                2_048,
	"iam/group-policy-size":               5_120,
	"iam/role-policy-size":                10_240,
	"vpc/vpcs":                            5,
	"vpc/subnets-per-vpc":                 200,
	"vpc/ipv4-cidrs-per-vpc":              5,
	"vpc/ipv6-cidrs-per-vpc":              5,
	"vpc/route-tables-per-vpc":            200,
	"vpc/routes-per-table":                500,
	"vpc/internet-gateways":               5,
	"vpc/egress-only-gateways":            5,
	"vpc/nat-gateways-per-zone":           5,
	"vpc/elastic-ips":                     5,
	"vpc/addresses-per-nat-gateway":       8,
	"vpc/security-groups":                 2_500,
	"vpc/rules-per-security-group":        60,    // per direction and address family
	"vpc/network-interfaces":              5_000, // per zone
	"vpc/network-acls-per-vpc":            200,
	"vpc/rules-per-network-acl":           20, // per direction and address family
	"vpc/prefix-lists":                    100,
	"vpc/prefix-list-entries":             1_000,
	"vpc/peerings-per-vpc":                50,
	"vpc/pending-peerings":                25,
	"vpc/flow-logs-per-resource":          2,
	"vpc/interface-endpoints-per-vpc":     50,
	"logs/groups":                         1_000_000,
	"logs/metric-filters-per-group":       100,
	"logs/regexp-filters-per-group":       5,
	"logs/live-tail-sessions":             15,
	"logs/concurrent-queries":             30,
	"logs/saved-queries":                  1_000,
	"logs/resource-policies":              10,
}

// QuotaNames are all quotas there are, sorted.
func QuotaNames() []string { return slices.Sorted(maps.Keys(quotaDefaults)) }

// QuotaDefault is the quota that AWS gives a new account; false if there is no such quota.
func QuotaDefault(name string) (int, bool) {
	n, ok := quotaDefaults[name]
	return n, ok
}

// Limit is the quota of an account as it is set now. It panics for a name that
// is not in the table of defaults: that is a mistake in the program.
func Limit(r store.Reader, account, name string) int {
	for _, a := range []string{account, ""} {
		if q, ok := Quotas.Get(r, QuotaKey(a, name)); ok {
			return q.Value
		}
	}
	n, ok := quotaDefaults[name]
	if !ok {
		panic(fmt.Sprintf("state: there is no quota %q", name))
	}
	return n
}
