package ec2

import (
	"context"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// tagged is a resource whose tags can be read and replaced.
type tagged struct {
	kind api.ResourceType
	tags []state.Tag
	set  func([]state.Tag)
}

// taggable finds the resource with an id. Reading it makes the transaction depend on it.
func taggable(tx *store.Tx, account, id string) (tagged, error) {
	prefix, _, _ := strings.Cut(id, "-")
	missing := bad("InvalidID", "The ID '%s' is not valid", id)
	switch prefix {
	case "vpc":
		return tag(tx, state.VPCs, id, account, "vpc", noVPC(id), func(v *state.VPC) (string, *[]state.Tag) { return v.Account, &v.Tags })
	case "subnet":
		return tag(tx, state.Subnets, id, account, "subnet", bad("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id), func(v *state.Subnet) (string, *[]state.Tag) { return v.Account, &v.Tags })
	case "rtb":
		return tag(tx, state.RouteTables, id, account, "route-table", bad("InvalidRouteTableID.NotFound", "The routeTable ID '%s' does not exist", id), func(v *state.RouteTable) (string, *[]state.Tag) { return v.Account, &v.Tags })
	case "igw":
		return tag(tx, state.InternetGateways, id, account, "internet-gateway", bad("InvalidInternetGatewayID.NotFound", "The internetGateway ID '%s' does not exist", id), func(v *state.InternetGateway) (string, *[]state.Tag) { return v.Account, &v.Tags })
	case "sg":
		return tag(tx, state.SecurityGroups, id, account, "security-group", noGroup(id), func(v *state.SecurityGroup) (string, *[]state.Tag) { return v.Account, &v.Tags })
	case "eni":
		return tag(tx, state.NetworkInterfaces, id, account, "network-interface", bad("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id), func(v *state.NetworkInterface) (string, *[]state.Tag) { return v.Account, &v.Tags })
	case "acl":
		return tag(tx, state.NetworkACLs, id, account, "network-acl", bad("InvalidNetworkAclID.NotFound", "The networkAcl ID '%s' does not exist", id), func(v *state.NetworkACL) (string, *[]state.Tag) { return v.Account, &v.Tags })
	case "dopt":
		return tag(tx, state.DHCPOptionSets, id, account, "dhcp-options", bad("InvalidDhcpOptionID.NotFound", "The dhcpOption ID '%s' does not exist", id), func(v *state.DHCPOptions) (string, *[]state.Tag) { return v.Account, &v.Tags })
	}
	return tagged{}, missing
}

func tag[T any](tx *store.Tx, t *store.Table[T], id, account string, kind api.ResourceType, missing error, of func(*T) (string, *[]state.Tag)) (tagged, error) {
	v, ok := t.Get(tx, id)
	if !ok {
		return tagged{}, missing
	}
	owner, tags := of(v)
	if owner != account {
		return tagged{}, missing
	}
	return tagged{kind, *tags, func(ts []state.Tag) {
		n := *v
		_, p := of(&n)
		*p = ts
		t.Put(tx, &n)
	}}, nil
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
	add := func(owner, id string, k api.ResourceType, ts []state.Tag) {
		for _, t := range ts {
			if owner == account {
				rows = append(rows, row{id, k, t})
			}
		}
	}
	for v := range state.VPCs.All(snap) {
		add(v.Account, v.ID, "vpc", v.Tags)
	}
	for v := range state.Subnets.All(snap) {
		add(v.Account, v.ID, "subnet", v.Tags)
	}
	for v := range state.RouteTables.All(snap) {
		add(v.Account, v.ID, "route-table", v.Tags)
	}
	for v := range state.InternetGateways.All(snap) {
		add(v.Account, v.ID, "internet-gateway", v.Tags)
	}
	for v := range state.SecurityGroups.All(snap) {
		add(v.Account, v.ID, "security-group", v.Tags)
		for _, r := range v.Rules {
			add(v.Account, r.ID, "security-group-rule", r.Tags)
		}
	}
	for v := range state.NetworkInterfaces.All(snap) {
		add(v.Account, v.ID, "network-interface", v.Tags)
	}
	for v := range state.NetworkACLs.All(snap) {
		add(v.Account, v.ID, "network-acl", v.Tags)
	}
	for v := range state.DHCPOptionSets.All(snap) {
		add(v.Account, v.ID, "dhcp-options", v.Tags)
	}
	id := func(r row) string { return r.id + "\x01" + r.t.Key }
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(id(a), id(b)) })
	out, next, err := list(request{filters: in.Filters, max: in.MaxResults, token: in.NextToken}, kind[row, api.TagDescription]{
		name: "tags", rows: slices.Values(rows), id: id,
		missing: func(id string) error { return bad("InvalidID", "The ID '%s' is not valid", id) },
		field: func(r row, name string) ([]string, bool) {
			switch name {
			case "key":
				return one(r.t.Key), true
			case "value":
				return []string{r.t.Value}, true
			case "resource-id":
				return one(r.id), true
			case "resource-type":
				return one(string(r.kind)), true
			}
			return nil, false
		},
		view: func(r row) api.TagDescription {
			return api.TagDescription{Key: new(r.t.Key), Value: new(r.t.Value), ResourceId: new(r.id), ResourceType: r.kind}
		},
	})
	return &api.DescribeTagsOutput{Tags: out, NextToken: next}, err
}
