package ec2

import (
	"context"
	"iter"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// resource is a kind of resource that has tags: what its ids look like, what
// its type is called in requests and in ARNs, and how one is found.
type resource struct {
	prefix  string // of its ids
	kind    api.ResourceType
	missing func(id string) error
	find    func(tx *store.Tx, account, id string) (tagged, bool)
	look    func(r store.Reader, id string) (account string, tags []state.Tag, ok bool)
	all     func(r store.Reader, account string) iter.Seq2[string, []state.Tag]
}

// tagged is a resource whose tags can be read and replaced.
type tagged struct {
	tags []state.Tag
	set  func([]state.Tag)
}

// resources are all kinds of resources that have tags, in the order of their prefixes.
var resources = []resource{
	of("acl", "network-acl", state.NetworkACLs, noACL, func(v *state.NetworkACL) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("ami", "image", state.MachineImages, func(id string) error {
		return bad("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", id)
	}, func(v *state.MachineImage) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("dopt", "dhcp-options", state.DHCPOptionSets, noOptions, func(v *state.DHCPOptions) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("eigw", "egress-only-internet-gateway", state.EgressOnlyGateways, noEgressOnly, func(v *state.EgressOnlyGateway) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("eipalloc", "elastic-ip", state.ElasticIPs, noAllocation, func(v *state.ElasticIP) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("eni", "network-interface", state.NetworkInterfaces, noInterface, func(v *state.NetworkInterface) (string, string, *[]state.Tag) {
		return v.ID, v.Account, &v.Tags
	}),
	of("fl", "vpc-flow-log", state.FlowLogs, noFlowLog, func(v *state.FlowLog) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("i", "instance", state.Instances, func(id string) error {
		return bad("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
	}, func(v *state.Instance) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("igw", "internet-gateway", state.InternetGateways, noInternetGateway, func(v *state.InternetGateway) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("key", "key-pair", state.KeyPairs, func(id string) error {
		return bad("InvalidKeyPair.NotFound", "The key pair ID '%s' does not exist", id)
	}, func(v *state.KeyPair) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("lt", "launch-template", state.LaunchTemplates, func(id string) error {
		return bad("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %s, does not exist.", id)
	}, func(v *state.LaunchTemplate) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("nat", "natgateway", state.NATGateways, noNAT, func(v *state.NATGateway) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	{prefix: "pcx", kind: "vpc-peering-connection", missing: noPeering, find: findPeering, look: lookPeering, all: allPeerings},
	of("pl", "prefix-list", state.PrefixLists, noPrefixList, func(v *state.PrefixList) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("rtb", "route-table", state.RouteTables, noRouteTable, func(v *state.RouteTable) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("scr", "subnet-cidr-reservation", state.SubnetReservations, noReservation, func(v *state.SubnetReservation) (string, string, *[]state.Tag) {
		return v.ID, v.Account, &v.Tags
	}),
	of("sg", "security-group", state.SecurityGroups, noGroup, func(v *state.SecurityGroup) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	{prefix: "sgr", kind: "security-group-rule", missing: noRule, find: findRule, look: lookRule, all: allRules},
	of("sir", "spot-instances-request", state.SpotRequests, noSpot, func(v *state.SpotRequest) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("subnet", "subnet", state.Subnets, noSubnet, func(v *state.Subnet) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("vol", "volume", state.Instances, noVolume, func(v *state.Instance) (string, string, *[]state.Tag) { return v.Volume, v.Account, &v.VolumeTags }),
	of("vpc", "vpc", state.VPCs, noVPC, func(v *state.VPC) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
	of("vpce", "vpc-endpoint", state.Endpoints, noEndpoint, func(v *state.Endpoint) (string, string, *[]state.Tag) { return v.ID, v.Account, &v.Tags }),
}

// of is the resource whose rows are those of a table.
func of[T any](prefix string, kind api.ResourceType, t *store.Table[T], missing func(string) error, about func(*T) (id, account string, tags *[]state.Tag)) resource {
	return resource{prefix: prefix, kind: kind, missing: missing,
		find: func(tx *store.Tx, account, id string) (tagged, bool) {
			v, ok := t.Get(tx, id)
			if !ok {
				// The key of a few tables is not the id.
				for x := range t.All(tx) {
					if have, owner, _ := about(x); have == id && owner == account {
						v, ok = x, true
					}
				}
			}
			if !ok {
				return tagged{}, false
			}
			_, owner, tags := about(v)
			if owner != account {
				return tagged{}, false
			}
			return tagged{*tags, func(ts []state.Tag) {
				n := *v
				_, _, p := about(&n)
				*p = ts
				t.Put(tx, &n)
			}}, true
		},
		look: func(r store.Reader, id string) (string, []state.Tag, bool) {
			v, ok := t.Get(r, id)
			if !ok {
				return "", nil, false
			}
			_, owner, tags := about(v)
			return owner, *tags, true
		},
		all: func(r store.Reader, account string) iter.Seq2[string, []state.Tag] {
			return func(yield func(string, []state.Tag) bool) {
				for v := range t.All(r) {
					if id, owner, tags := about(v); owner == account && !yield(id, *tags) {
						return
					}
				}
			}
		}}
}

func findRule(tx *store.Tx, account, id string) (tagged, bool) {
	for g := range state.SecurityGroups.By(tx, "account", account) {
		i := slices.IndexFunc(g.Rules, func(r state.SecurityGroupRule) bool { return r.ID == id })
		if i < 0 {
			continue
		}
		state.SecurityGroups.Get(tx, g.ID) // what is found by an index is compared at commit only if it is read
		return tagged{g.Rules[i].Tags, func(ts []state.Tag) {
			now, ok := state.SecurityGroups.Get(tx, g.ID) // may carry what this call has set before
			if !ok {
				return
			}
			n := *now
			n.Rules = slices.Clone(now.Rules)
			n.Rules[i].Tags = ts
			state.SecurityGroups.Put(tx, &n)
		}}, true
	}
	return tagged{}, false
}

func lookRule(r store.Reader, id string) (string, []state.Tag, bool) {
	for g := range state.SecurityGroups.All(r) {
		for _, x := range g.Rules {
			if x.ID == id {
				return g.Account, x.Tags, true
			}
		}
	}
	return "", nil, false
}

func allRules(r store.Reader, account string) iter.Seq2[string, []state.Tag] {
	return func(yield func(string, []state.Tag) bool) {
		for g := range state.SecurityGroups.By(r, "account", account) {
			for _, rule := range g.Rules {
				if !yield(rule.ID, rule.Tags) {
					return
				}
			}
		}
	}
}

// Each side of a peering connection has tags of its own for it.

func findPeering(tx *store.Tx, account, id string) (tagged, bool) {
	p, err := peeringOf(tx, account, id)
	if err != nil {
		return tagged{}, false
	}
	return tagged{peeringTags(p, account), func(ts []state.Tag) {
		n := *p
		if n.Account == account {
			n.Tags = ts
		} else {
			n.PeerTags = ts
		}
		state.Peerings.Put(tx, &n)
	}}, true
}

func lookPeering(r store.Reader, id string) (string, []state.Tag, bool) {
	p, ok := state.Peerings.Get(r, id)
	if !ok {
		return "", nil, false
	}
	return p.Account, p.Tags, true
}

func allPeerings(r store.Reader, account string) iter.Seq2[string, []state.Tag] {
	return func(yield func(string, []state.Tag) bool) {
		for p := range state.Peerings.All(r) {
			if sees(account, p) && !yield(p.ID, peeringTags(p, account)) {
				return
			}
		}
	}
}

// resourceOf is the kind of the resource with an id; ok false: no such kind.
func resourceOf(id string) (resource, bool) {
	prefix, _, dash := strings.Cut(id, "-")
	i := slices.IndexFunc(resources, func(r resource) bool { return r.prefix == prefix })
	if !dash || i < 0 {
		return resource{}, false
	}
	return resources[i], true
}

// kindOf is the type of the resource with an id, as its ARN has it, or *.
func kindOf(id string) string {
	if r, ok := resourceOf(id); ok {
		return string(r.kind)
	}
	return "*"
}

// taggable finds the resource with an id. Reading it makes the transaction depend on it.
func taggable(tx *store.Tx, account, id string) (tagged, error) {
	r, ok := resourceOf(id)
	if !ok {
		return tagged{}, bad("InvalidID", "The ID '%s' is not valid", id)
	}
	t, ok := r.find(tx, account, id)
	if !ok {
		return tagged{}, r.missing(id)
	}
	return t, nil
}

// CreateTags sets tags on resources.
func (e *EC2) CreateTags(ctx context.Context, in *api.CreateTagsInput) (*api.CreateTagsOutput, error) {
	for _, t := range in.Tags {
		if err := checkTag(t); err != nil {
			return nil, err
		}
	}
	return &api.CreateTagsOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		for _, id := range in.Resources {
			r, err := taggable(tx, e.Account(ctx), id)
			if err != nil {
				return err
			}
			ts := r.tags
			for _, t := range in.Tags {
				ts = setTag(ts, wire.Value(t.Key), wire.Value(t.Value))
			}
			if len(ts) > 50 {
				return bad("TagLimitExceeded", "The maximum number of tags for this resource has been reached.")
			}
			r.set(ts)
		}
		return nil
	})
}

// DeleteTags removes tags: by key, by key and value, or all of them.
func (e *EC2) DeleteTags(ctx context.Context, in *api.DeleteTagsInput) (*api.DeleteTagsOutput, error) {
	return &api.DeleteTagsOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		for _, id := range in.Resources {
			r, err := taggable(tx, e.Account(ctx), id)
			if err != nil {
				return err
			}
			ts := slices.DeleteFunc(slices.Clone(r.tags), func(have state.Tag) bool {
				if len(in.Tags) == 0 {
					return !strings.HasPrefix(have.Key, "aws:")
				}
				return slices.ContainsFunc(in.Tags, func(t api.Tag) bool {
					return wire.Value(t.Key) == have.Key && (t.Value == nil || *t.Value == have.Value)
				})
			})
			r.set(ts)
		}
		return nil
	})
}

// DescribeTags lists tags of all resources.
func (e *EC2) DescribeTags(ctx context.Context, in *api.DescribeTagsInput) (*api.DescribeTagsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	type row struct {
		id   string
		kind api.ResourceType
		t    state.Tag
	}
	var rows []row
	for _, r := range resources {
		for id, tags := range r.all(snap, account) {
			for _, t := range tags {
				rows = append(rows, row{id, r.kind, t})
			}
		}
	}
	id := func(r row) string { return r.id + "\x01" + r.t.Key }
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(id(a), id(b)) })
	out, next, err := list(request{filters: in.Filters, max: in.MaxResults, token: in.NextToken}, kind[row, api.TagDescription]{
		name: "tags", rows: slices.Values(rows), id: id,
		missing: func(id string) error { return bad("InvalidID", "The ID '%s' is not valid", id) },
		// The filter tag:<key> is one of the pair itself.
		tags: func(r row) []state.Tag { return []state.Tag{r.t} },
		filters: filters[row]{
			"key":           func(r row) []string { return one(r.t.Key) },
			"value":         func(r row) []string { return []string{r.t.Value} },
			"resource-id":   func(r row) []string { return one(r.id) },
			"resource-type": func(r row) []string { return one(string(r.kind)) },
		},
		view: func(r row) api.TagDescription {
			return api.TagDescription{Key: new(r.t.Key), Value: new(r.t.Value), ResourceId: new(r.id), ResourceType: r.kind}
		},
	})
	return &api.DescribeTagsOutput{Tags: out, NextToken: next}, err
}
