package ec2

import (
	"context"
	"slices"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noRule(id string) error {
	if err := malformed("InvalidSecurityGroupRuleId", "sgr", id); err != nil {
		return err
	}
	return bad("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", id)
}

// weight is how much of a quota rules use: one that names a prefix list as much
// as the list may hold, any other one.
func weight(r store.Reader, rules []state.SecurityGroupRule, counts func(state.SecurityGroupRule) bool) (n int) {
	for _, x := range rules {
		if !counts(x) {
			continue
		}
		if p, ok := state.PrefixLists.Get(r, x.PrefixList); ok {
			n += p.MaxEntries
		} else {
			n++
		}
	}
	return n
}

// withinLimit refuses a group with more rules in a direction and family than it may have.
func withinLimit(r store.Reader, g *state.SecurityGroup) error {
	limit := state.Limit(r, g.Account, "vpc/rules-per-security-group")
	for _, egress := range []bool{false, true} {
		for _, six := range []bool{false, true} {
			n := weight(r, g.Rules, func(x state.SecurityGroupRule) bool {
				if x.Egress != egress {
					return false
				}
				if p, ok := state.PrefixLists.Get(r, x.PrefixList); ok {
					return (p.Family == "IPv6") == six
				}
				return x.Group != "" || x.CIDR.Addr().Is6() == six
			})
			if n > limit {
				return bad("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
			}
		}
	}
	return nil
}

// ModifySecurityGroupRules replaces rules and keeps their ids.
func (e *EC2) ModifySecurityGroupRules(ctx context.Context, in *api.ModifySecurityGroupRulesInput) (*api.ModifySecurityGroupRulesOutput, error) {
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := group(tx, e.Account(ctx), in.GroupId, nil)
		if err != nil {
			return err
		}
		next := *g
		next.Rules = slices.Clone(g.Rules)
		for _, u := range in.SecurityGroupRules {
			id := wire.Value(u.SecurityGroupRuleId)
			at := slices.IndexFunc(next.Rules, func(r state.SecurityGroupRule) bool { return r.ID == id })
			if at < 0 {
				return noRule(id)
			}
			q := u.SecurityGroupRule
			if q == nil {
				return bad("MissingParameter", "The request must contain the parameter SecurityGroupRule")
			}
			p := api.IpPermission{IpProtocol: q.IpProtocol, FromPort: q.FromPort, ToPort: q.ToPort}
			sources := 0
			if q.CidrIpv4 != nil {
				sources++
				p.IpRanges = []api.IpRange{{CidrIp: q.CidrIpv4, Description: q.Description}}
			}
			if q.CidrIpv6 != nil {
				sources++
				p.Ipv6Ranges = []api.Ipv6Range{{CidrIpv6: q.CidrIpv6, Description: q.Description}}
			}
			if q.PrefixListId != nil {
				sources++
				p.PrefixListIds = []api.PrefixListId{{PrefixListId: q.PrefixListId, Description: q.Description}}
			}
			if q.ReferencedGroupId != nil {
				sources++
				p.UserIdGroupPairs = []api.UserIdGroupPair{{GroupId: q.ReferencedGroupId, Description: q.Description}}
			}
			if sources > 1 {
				return bad("InvalidParameterCombination", "Only one of cidrIpv4, cidrIpv6, prefixListId, or referencedGroupId can be specified")
			}
			rules, err := e.rules(tx, g, grant{permissions: []api.IpPermission{p}}, next.Rules[at].Egress)
			if err != nil {
				return err
			}
			n := rules[0]
			if slices.ContainsFunc(next.Rules, func(r state.SecurityGroupRule) bool { return r.ID != id && same(r, n) }) {
				return bad("InvalidPermission.Duplicate", "the specified rule \"%s\" already exists", peer(n))
			}
			n.ID, n.Tags = id, next.Rules[at].Tags
			next.Rules[at] = n
		}
		if err := withinLimit(tx, &next); err != nil {
			return err
		}
		state.SecurityGroups.Put(tx, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.ModifySecurityGroupRulesOutput{Return: new(true)}, nil
}

// describeRules gives rules, which are named by id or by what they allow, other descriptions.
func (e *EC2) describeRules(ctx context.Context, id, name *string, ps []api.IpPermission, byID []api.SecurityGroupRuleDescription, egress bool) error {
	if len(ps) > 0 && len(byID) > 0 {
		return bad("InvalidParameterCombination", "The parameter 'ipPermissions' may not be used in combination with 'securityGroupRuleDescriptions'")
	}
	return e.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := group(tx, e.Account(ctx), id, name)
		if err != nil {
			return err
		}
		next := *g
		next.Rules = slices.Clone(g.Rules)
		for _, d := range byID {
			at := slices.IndexFunc(next.Rules, func(r state.SecurityGroupRule) bool {
				return r.ID == wire.Value(d.SecurityGroupRuleId) && r.Egress == egress
			})
			if at < 0 {
				return noRule(wire.Value(d.SecurityGroupRuleId))
			}
			if err := checkRuleDescription(d.Description); err != nil {
				return err
			}
			next.Rules[at].Description = wire.Value(d.Description)
		}
		if len(byID) == 0 {
			rules, err := e.rules(tx, g, grant{permissions: ps, gone: true}, egress)
			if err != nil {
				return err
			}
			for _, r := range rules {
				at := slices.IndexFunc(next.Rules, func(have state.SecurityGroupRule) bool { return same(have, r) })
				if at < 0 {
					return bad("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
				}
				next.Rules[at].Description = r.Description
			}
		}
		state.SecurityGroups.Put(tx, &next)
		return nil
	})
}

// UpdateSecurityGroupRuleDescriptionsIngress changes what rules say of themselves.
func (e *EC2) UpdateSecurityGroupRuleDescriptionsIngress(ctx context.Context, in *api.UpdateSecurityGroupRuleDescriptionsIngressInput) (*api.UpdateSecurityGroupRuleDescriptionsIngressOutput, error) {
	if err := e.describeRules(ctx, in.GroupId, in.GroupName, in.IpPermissions, in.SecurityGroupRuleDescriptions, false); err != nil {
		return nil, err
	}
	return &api.UpdateSecurityGroupRuleDescriptionsIngressOutput{Return: new(true)}, nil
}

// UpdateSecurityGroupRuleDescriptionsEgress changes what rules say of themselves.
func (e *EC2) UpdateSecurityGroupRuleDescriptionsEgress(ctx context.Context, in *api.UpdateSecurityGroupRuleDescriptionsEgressInput) (*api.UpdateSecurityGroupRuleDescriptionsEgressOutput, error) {
	if err := e.describeRules(ctx, in.GroupId, in.GroupName, in.IpPermissions, in.SecurityGroupRuleDescriptions, true); err != nil {
		return nil, err
	}
	return &api.UpdateSecurityGroupRuleDescriptionsEgressOutput{Return: new(true)}, nil
}

// stale reports whether a rule refers to a group that is gone, or that is in a
// VPC with which there is no peering any more.
func stale(r store.Reader, g *state.SecurityGroup, x state.SecurityGroupRule) bool {
	if x.Group == "" || x.Group == g.ID {
		return false
	}
	s, ok := state.SecurityGroups.Get(r, x.Group)
	if !ok {
		return true
	}
	if s.VPC == g.VPC {
		return false
	}
	_, ok = peered(r, g.VPC, s.VPC)
	return !ok
}

// DescribeStaleSecurityGroups lists the groups of a VPC with rules that refer to nothing.
func (e *EC2) DescribeStaleSecurityGroups(ctx context.Context, in *api.DescribeStaleSecurityGroupsInput) (*api.DescribeStaleSecurityGroupsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	if _, err := vpcOf(snap, account, *in.VpcId); err != nil {
		return nil, err
	}
	rows := func(yield func(*state.SecurityGroup) bool) {
		for g := range state.SecurityGroups.By(snap, "vpc", *in.VpcId) {
			if slices.ContainsFunc(g.Rules, func(x state.SecurityGroupRule) bool { return stale(snap, g, x) }) && !yield(g) {
				return
			}
		}
	}
	permissions := func(g *state.SecurityGroup, egress bool) (out []api.StaleIpPermission) {
		for _, x := range g.Rules {
			if x.Egress != egress || !stale(snap, g, x) {
				continue
			}
			p := api.StaleIpPermission{IpProtocol: new(x.Protocol), IpRanges: []string{}, PrefixListIds: []string{}, UserIdGroupPairs: []api.UserIdGroupPair{pairOf(snap, g, x)}}
			if x.Protocol != "-1" {
				p.FromPort, p.ToPort = new(int32(x.From)), new(int32(x.To))
			}
			out = append(out, p)
		}
		return out
	}
	out, next, err := list(request{max: in.MaxResults, token: in.NextToken}, kind[*state.SecurityGroup, api.StaleSecurityGroup]{
		name: "stale groups of " + *in.VpcId, rows: rows, id: func(g *state.SecurityGroup) string { return g.ID },
		view: func(g *state.SecurityGroup) api.StaleSecurityGroup {
			return api.StaleSecurityGroup{GroupId: new(g.ID), GroupName: new(g.Name), Description: new(g.Description), VpcId: new(g.VPC),
				StaleIpPermissions: permissions(g, false), StaleIpPermissionsEgress: permissions(g, true)}
		},
	})
	return &api.DescribeStaleSecurityGroupsOutput{StaleSecurityGroupSet: out, NextToken: next}, err
}

// DescribeSecurityGroupReferences lists the VPCs whose groups, over a peering
// connection, refer to groups of this account.
func (e *EC2) DescribeSecurityGroupReferences(ctx context.Context, in *api.DescribeSecurityGroupReferencesInput) (*api.DescribeSecurityGroupReferencesOutput, error) {
	snap := e.DB.Snapshot()
	out := &api.DescribeSecurityGroupReferencesOutput{SecurityGroupReferenceSet: []api.SecurityGroupReference{}}
	for _, id := range in.GroupId {
		g, err := group(snap, e.Account(ctx), &id, nil)
		if err != nil {
			return nil, err
		}
		seen := map[string]bool{g.VPC: true}
		for x := range state.SecurityGroups.By(snap, "references", g.ID) {
			if seen[x.VPC] {
				continue
			}
			seen[x.VPC] = true
			ref := api.SecurityGroupReference{GroupId: new(g.ID), ReferencingVpcId: new(x.VPC)}
			if p, ok := peered(snap, g.VPC, x.VPC); ok {
				ref.VpcPeeringConnectionId = new(p.ID)
			}
			out.SecurityGroupReferenceSet = append(out.SecurityGroupReferenceSet, ref)
		}
	}
	return out, nil
}

// GetSecurityGroupsForVpc lists the groups that interfaces of a VPC may carry.
func (e *EC2) GetSecurityGroupsForVpc(ctx context.Context, in *api.GetSecurityGroupsForVpcInput) (*api.GetSecurityGroupsForVpcOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	if _, err := vpcOf(snap, account, *in.VpcId); err != nil {
		return nil, err
	}
	type row = *state.SecurityGroup
	rows := func(yield func(row) bool) {
		for g := range state.SecurityGroups.By(snap, "account", account) {
			if g.VPC == *in.VpcId && !yield(g) {
				return
			}
		}
	}
	out, next, err := list(request{nil, in.Filters, in.MaxResults, in.NextToken}, kind[row, api.SecurityGroupForVpc]{
		name: "groups for " + *in.VpcId, rows: rows, id: func(g row) string { return g.ID }, tags: func(g row) []state.Tag { return g.Tags },
		filters: filters[row]{
			"group-id":       func(g row) []string { return one(g.ID) },
			"group-name":     func(g row) []string { return one(g.Name) },
			"description":    func(g row) []string { return one(g.Description) },
			"owner-id":       func(g row) []string { return one(g.Account) },
			"primary-vpc-id": func(g row) []string { return one(g.VPC) },
		},
		view: func(g row) api.SecurityGroupForVpc {
			return api.SecurityGroupForVpc{GroupId: new(g.ID), GroupName: new(g.Name), Description: new(g.Description), OwnerId: new(g.Account), PrimaryVpcId: new(g.VPC), Tags: tagsView(g.Tags)}
		},
	})
	return &api.GetSecurityGroupsForVpcOutput{SecurityGroupForVpcs: out, NextToken: next}, err
}

// AssociateSecurityGroupVpc is refused by name: a group holds in its own VPC alone.
func (e *EC2) AssociateSecurityGroupVpc(ctx context.Context, in *api.AssociateSecurityGroupVpcInput) (*api.AssociateSecurityGroupVpcOutput, error) {
	snap := e.DB.Snapshot()
	g, err := group(snap, e.Account(ctx), in.GroupId, nil)
	if err != nil {
		return nil, err
	}
	if _, err := vpcOf(snap, g.Account, *in.VpcId); err != nil {
		return nil, err
	}
	return nil, unsupported("Associating a security group with a further VPC")
}

// DisassociateSecurityGroupVpc finds no association: there can be none.
func (e *EC2) DisassociateSecurityGroupVpc(ctx context.Context, in *api.DisassociateSecurityGroupVpcInput) (*api.DisassociateSecurityGroupVpcOutput, error) {
	g, err := group(e.DB.Snapshot(), e.Account(ctx), in.GroupId, nil)
	if err != nil {
		return nil, err
	}
	return nil, bad("InvalidSecurityGroupVpcAssociation.NotFound", "The security group '%s' is not associated with VPC '%s'.", g.ID, *in.VpcId)
}

// DescribeSecurityGroupVpcAssociations lists none: there can be none.
func (e *EC2) DescribeSecurityGroupVpcAssociations(_ context.Context, in *api.DescribeSecurityGroupVpcAssociationsInput) (*api.DescribeSecurityGroupVpcAssociationsOutput, error) {
	type row = api.SecurityGroupVpcAssociation
	fs := filters[row]{}
	for _, name := range []string{"group-id", "group-owner-id", "vpc-id", "vpc-owner-id", "state"} {
		fs[name] = func(row) []string { return nil }
	}
	out, next, err := list(request{nil, in.Filters, in.MaxResults, in.NextToken}, kind[row, row]{
		name: "group associations", rows: slices.Values([]row{}), id: func(x row) string { return *x.GroupId }, filters: fs, view: func(x row) row { return x }})
	return &api.DescribeSecurityGroupVpcAssociationsOutput{SecurityGroupVpcAssociations: out, NextToken: next}, err
}
