package ec2

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// lastEntry is the number that calls show for the entry *, which denies.
const lastEntry = 32767

func noACL(id string) error {
	if err := malformed("InvalidNetworkAclId", "acl", id); err != nil {
		return err
	}
	return bad("InvalidNetworkAclID.NotFound", "The networkAcl ID '%s' does not exist", id)
}

func aclOf(r store.Reader, account, id string) (*state.NetworkACL, error) {
	a, ok := state.NetworkACLs.Get(r, id)
	if !ok || a.Account != account {
		return nil, noACL(id)
	}
	return a, nil
}

// aclAssociation is the id of a subnet's association with its ACL.
func aclAssociation(s *state.Subnet) string {
	if s.ACLAssociation != "" {
		return s.ACLAssociation
	}
	return "aclassoc-" + derived(s.ID, 0)
}

// hasACL reports whether a subnet is filtered by an ACL of its VPC.
func hasACL(s *state.Subnet, a *state.NetworkACL) bool {
	return s.NetworkACL == a.ID || s.NetworkACL == "" && a.Default
}

// CreateNetworkAcl makes an ACL that denies everything.
func (e *EC2) CreateNetworkAcl(ctx context.Context, in *api.CreateNetworkAclInput) (*api.CreateNetworkAclOutput, error) {
	tags, err := tagsFor("network-acl", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	account, id := e.Account(ctx), e.id("acl")
	var made *state.NetworkACL
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		v, err := vpcOf(tx, account, *in.VpcId)
		if err != nil {
			return err
		}
		n := 0
		for a := range state.NetworkACLs.By(tx, "vpc", v.ID) {
			if token := wire.Value(in.ClientToken); token != "" && a.ClientToken == token {
				made = a
				return nil
			}
			n++
		}
		if n >= state.Limit(tx, account, "vpc/network-acls-per-vpc") {
			return bad("NetworkAclLimitExceeded", "The maximum number of network ACLs has been reached.")
		}
		made = &state.NetworkACL{ID: id, Account: account, VPC: v.ID, Entries: []state.ACLEntry{}, Tags: tags, ClientToken: wire.Value(in.ClientToken)}
		state.NetworkACLs.Put(tx, made)
		return nil
	})
	if err != nil {
		return nil, err
	}
	v := aclView(e.DB.Snapshot(), made)
	return &api.CreateNetworkAclOutput{NetworkAcl: &v, ClientToken: in.ClientToken}, nil
}

// DeleteNetworkAcl removes an ACL that no subnet has.
func (e *EC2) DeleteNetworkAcl(ctx context.Context, in *api.DeleteNetworkAclInput) (*api.DeleteNetworkAclOutput, error) {
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		a, err := aclOf(tx, e.Account(ctx), *in.NetworkAclId)
		if err != nil {
			return err
		}
		if a.Default {
			return bad("InvalidParameterValue", "cannot delete default network ACL %s", a.ID)
		}
		state.Subnets.Guard(tx, "") // one that comes to have it makes this look again
		for s := range state.Subnets.By(tx, "vpc", a.VPC) {
			if hasACL(s, a) {
				return bad("DependencyViolation", "The networkAcl '%s' has dependencies and cannot be deleted.", a.ID)
			}
		}
		state.NetworkACLs.Delete(tx, a.ID)
		return nil
	})
	return &api.DeleteNetworkAclOutput{}, err
}

// ReplaceNetworkAclAssociation gives a subnet another ACL.
func (e *EC2) ReplaceNetworkAclAssociation(ctx context.Context, in *api.ReplaceNetworkAclAssociationInput) (*api.ReplaceNetworkAclAssociationOutput, error) {
	account, id := e.Account(ctx), e.id("aclassoc")
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		a, err := aclOf(tx, account, *in.NetworkAclId)
		if err != nil {
			return err
		}
		for s := range state.Subnets.All(tx) {
			if s.Account != account || aclAssociation(s) != *in.AssociationId {
				continue
			}
			if s.VPC != a.VPC {
				return bad("InvalidParameterValue", "Network ACL %s and subnet %s belong to different networks", a.ID, s.ID)
			}
			s, err = subnetOf(tx, account, s.ID)
			if err != nil {
				return err
			}
			n := *s
			n.NetworkACL, n.ACLAssociation = a.ID, id
			state.Subnets.Put(tx, &n)
			return nil
		}
		return bad("InvalidAssociationID.NotFound", "The association ID '%s' does not exist", *in.AssociationId)
	})
	if err != nil {
		return nil, err
	}
	return &api.ReplaceNetworkAclAssociationOutput{NewAssociationId: new(id)}, nil
}

// aclEntry reads an entry.
func aclEntry(number *int32, protocol *string, action api.RuleAction, egress *bool, cidr, six *string, icmp *api.IcmpTypeCode, ports *api.PortRange) (x state.ACLEntry, err error) {
	x = state.ACLEntry{Number: int(*number), Egress: *egress, Allow: action == "allow", From: -1, To: -1}
	if err := aclNumber(x.Number); err != nil {
		return x, err
	}
	switch p := strings.ToLower(*protocol); p {
	case "all":
		x.Protocol = -1
	case "tcp":
		x.Protocol = 6
	case "udp":
		x.Protocol = 17
	case "icmp":
		x.Protocol = 1
	case "icmpv6", "ipv6-icmp":
		x.Protocol = 58
	default:
		if x.Protocol, err = strconv.Atoi(p); err != nil || x.Protocol < -1 || x.Protocol > 255 {
			return x, bad("InvalidParameterValue", "Invalid value '%s' for IP protocol. Unknown protocol.", *protocol)
		}
	}
	text := cidr
	switch {
	case cidr != nil && six != nil:
		return x, bad("InvalidParameterCombination", "The parameter 'cidrBlock' may not be used in combination with 'ipv6CidrBlock'")
	case six != nil:
		text = six
	case cidr == nil:
		return x, bad("MissingParameter", "The request must contain the parameter cidrBlock")
	}
	if x.CIDR, err = netip.ParsePrefix(*text); err != nil || x.CIDR.Addr().Is6() != (six != nil) {
		return x, bad("InvalidParameterValue", "Value (%s) for parameter cidrBlock is invalid. This is not a valid CIDR block.", *text)
	}
	x.CIDR = x.CIDR.Masked()
	switch x.Protocol {
	case 6, 17:
		if ports == nil || ports.From == nil || ports.To == nil {
			return x, bad("MissingParameter", "The request must contain the parameter portRange")
		}
		x.From, x.To = int(*ports.From), int(*ports.To)
		if x.From < 0 || x.To > 65535 || x.From > x.To {
			return x, bad("InvalidParameterValue", "Invalid TCP/UDP port range (%d:%d)", x.From, x.To)
		}
	case 1, 58:
		if icmp == nil || icmp.Type == nil || icmp.Code == nil {
			return x, bad("MissingParameter", "The request must contain the parameter icmpTypeCode")
		}
		x.From, x.To = int(*icmp.Type), int(*icmp.Code)
		if x.From < -1 || x.From > 255 || x.To < -1 || x.To > 255 {
			return x, bad("InvalidParameterValue", "ICMP type and code (%d:%d) out of range", x.From, x.To)
		}
	}
	return x, nil
}

func aclNumber(n int) error {
	if n < 1 || n >= lastEntry {
		return bad("InvalidParameterValue", "Invalid value '%d' for ruleNumber. It must be between 1 and %d.", n, lastEntry-1)
	}
	return nil
}

func noEntry(number int) error {
	return bad("InvalidNetworkAclEntry.NotFound", "The specified network acl entry '%d' does not exist.", number)
}

func hasIPv6(r store.Reader, vpc string) bool {
	v, ok := state.VPCs.Get(r, vpc)
	return ok && len(v.IPv6) > 0
}

// entriesOf are an ACL's entries. A default one that nobody has changed lets
// through what its VPC has.
func entriesOf(r store.Reader, a *state.NetworkACL) []state.ACLEntry {
	if a.Default && a.Entries == nil {
		return state.OpenACL(hasIPv6(r, a.VPC))
	}
	return a.Entries
}

// changeACL changes the entries of an ACL. at is where the entry is, -1 if it is not there.
func (e *EC2) changeACL(ctx context.Context, id string, number int, egress bool, change func(tx *store.Tx, a *state.NetworkACL, es []state.ACLEntry, at int) ([]state.ACLEntry, error)) error {
	return e.DB.Update(ctx, func(tx *store.Tx) error {
		a, err := aclOf(tx, e.Account(ctx), id)
		if err != nil {
			return err
		}
		es := slices.Clone(entriesOf(tx, a))
		at := slices.IndexFunc(es, func(x state.ACLEntry) bool { return x.Number == number && x.Egress == egress })
		if es, err = change(tx, a, es, at); err != nil {
			return err
		}
		slices.SortFunc(es, func(a, b state.ACLEntry) int {
			if a.Egress != b.Egress {
				if b.Egress {
					return -1
				}
				return 1
			}
			return cmp.Compare(a.Number, b.Number)
		})
		n := *a
		if n.Entries = es; es == nil {
			n.Entries = []state.ACLEntry{}
		}
		state.NetworkACLs.Put(tx, &n)
		return nil
	})
}

// CreateNetworkAclEntry adds a numbered entry.
func (e *EC2) CreateNetworkAclEntry(ctx context.Context, in *api.CreateNetworkAclEntryInput) (*api.CreateNetworkAclEntryOutput, error) {
	x, err := aclEntry(in.RuleNumber, in.Protocol, in.RuleAction, in.Egress, in.CidrBlock, in.Ipv6CidrBlock, in.IcmpTypeCode, in.PortRange)
	if err != nil {
		return nil, err
	}
	return &api.CreateNetworkAclEntryOutput{}, e.changeACL(ctx, *in.NetworkAclId, x.Number, x.Egress, func(tx *store.Tx, a *state.NetworkACL, es []state.ACLEntry, at int) ([]state.ACLEntry, error) {
		if at >= 0 {
			return nil, bad("NetworkAclEntryAlreadyExists", "The network acl entry identified by %d already exists.", x.Number)
		}
		n := 0
		for _, have := range es {
			if have.Egress == x.Egress && have.CIDR.Addr().Is6() == x.CIDR.Addr().Is6() {
				n++
			}
		}
		if n >= state.Limit(tx, a.Account, "vpc/rules-per-network-acl") {
			return nil, bad("NetworkAclEntryLimitExceeded", "The maximum number of network ACL entries has been reached.")
		}
		return append(es, x), nil
	})
}

// ReplaceNetworkAclEntry changes a numbered entry.
func (e *EC2) ReplaceNetworkAclEntry(ctx context.Context, in *api.ReplaceNetworkAclEntryInput) (*api.ReplaceNetworkAclEntryOutput, error) {
	x, err := aclEntry(in.RuleNumber, in.Protocol, in.RuleAction, in.Egress, in.CidrBlock, in.Ipv6CidrBlock, in.IcmpTypeCode, in.PortRange)
	if err != nil {
		return nil, err
	}
	return &api.ReplaceNetworkAclEntryOutput{}, e.changeACL(ctx, *in.NetworkAclId, x.Number, x.Egress, func(_ *store.Tx, _ *state.NetworkACL, es []state.ACLEntry, at int) ([]state.ACLEntry, error) {
		if at < 0 {
			return nil, noEntry(x.Number)
		}
		es[at] = x
		return es, nil
	})
}

// DeleteNetworkAclEntry removes a numbered entry.
func (e *EC2) DeleteNetworkAclEntry(ctx context.Context, in *api.DeleteNetworkAclEntryInput) (*api.DeleteNetworkAclEntryOutput, error) {
	if err := aclNumber(int(*in.RuleNumber)); err != nil {
		return nil, err
	}
	return &api.DeleteNetworkAclEntryOutput{}, e.changeACL(ctx, *in.NetworkAclId, int(*in.RuleNumber), *in.Egress, func(_ *store.Tx, _ *state.NetworkACL, es []state.ACLEntry, at int) ([]state.ACLEntry, error) {
		if at < 0 {
			return nil, noEntry(int(*in.RuleNumber))
		}
		return slices.Delete(es, at, at+1), nil
	})
}

// DescribeNetworkAcls lists ACLs.
func (e *EC2) DescribeNetworkAcls(ctx context.Context, in *api.DescribeNetworkAclsInput) (*api.DescribeNetworkAclsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	type row = *state.NetworkACL
	association := func(get func(*state.Subnet, row) string) func(row) []string {
		return func(a row) (out []string) {
			for s := range state.Subnets.By(snap, "vpc", a.VPC) {
				if hasACL(s, a) {
					out = append(out, get(s, a))
				}
			}
			return out
		}
	}
	entry := func(get func(api.NetworkAclEntry) []string) func(row) []string {
		return func(a row) []string { return each(aclView(snap, a).Entries, get) }
	}
	out, next, err := list(request{in.NetworkAclIds, in.Filters, in.MaxResults, in.NextToken}, kind[row, api.NetworkAcl]{
		name: "acls", rows: mine(state.NetworkACLs.All(snap), account, func(a row) string { return a.Account }),
		id: func(a row) string { return a.ID }, missing: noACL, tags: func(a row) []state.Tag { return a.Tags },
		filters: filters[row]{
			"network-acl-id":             func(a row) []string { return one(a.ID) },
			"vpc-id":                     func(a row) []string { return one(a.VPC) },
			"default":                    func(a row) []string { return flag(a.Default) },
			"owner-id":                   func(a row) []string { return one(a.Account) },
			"association.subnet-id":      association(func(s *state.Subnet, _ row) string { return s.ID }),
			"association.association-id": association(func(s *state.Subnet, _ row) string { return aclAssociation(s) }),
			"association.network-acl-id": association(func(_ *state.Subnet, a row) string { return a.ID }),
			"entry.cidr":                 entry(func(x api.NetworkAclEntry) []string { return one(wire.Value(x.CidrBlock)) }),
			"entry.ipv6-cidr":            entry(func(x api.NetworkAclEntry) []string { return one(wire.Value(x.Ipv6CidrBlock)) }),
			"entry.egress":               entry(func(x api.NetworkAclEntry) []string { return flag(*x.Egress) }),
			"entry.protocol":             entry(func(x api.NetworkAclEntry) []string { return one(*x.Protocol) }),
			"entry.rule-action":          entry(func(x api.NetworkAclEntry) []string { return one(string(x.RuleAction)) }),
			"entry.rule-number":          entry(func(x api.NetworkAclEntry) []string { return number(int(*x.RuleNumber)) }),
			"entry.icmp.type": entry(func(x api.NetworkAclEntry) []string {
				if x.IcmpTypeCode == nil {
					return nil
				}
				return number(int(*x.IcmpTypeCode.Type))
			}),
			"entry.icmp.code": entry(func(x api.NetworkAclEntry) []string {
				if x.IcmpTypeCode == nil {
					return nil
				}
				return number(int(*x.IcmpTypeCode.Code))
			}),
			"entry.port-range.from": entry(func(x api.NetworkAclEntry) []string {
				if x.PortRange == nil {
					return nil
				}
				return number(int(*x.PortRange.From))
			}),
			"entry.port-range.to": entry(func(x api.NetworkAclEntry) []string {
				if x.PortRange == nil {
					return nil
				}
				return number(int(*x.PortRange.To))
			}),
		},
		view: func(a row) api.NetworkAcl { return aclView(snap, a) },
	})
	return &api.DescribeNetworkAclsOutput{NetworkAcls: out, NextToken: next}, err
}

func aclView(r store.Reader, a *state.NetworkACL) api.NetworkAcl {
	out := api.NetworkAcl{IsDefault: new(a.Default), NetworkAclId: new(a.ID), VpcId: new(a.VPC), OwnerId: new(a.Account), Tags: tagsView(a.Tags), Associations: []api.NetworkAclAssociation{}}
	for s := range state.Subnets.By(r, "vpc", a.VPC) {
		if hasACL(s, a) {
			out.Associations = append(out.Associations, api.NetworkAclAssociation{NetworkAclAssociationId: new(aclAssociation(s)), NetworkAclId: new(a.ID), SubnetId: new(s.ID)})
		}
	}
	entries, six := entriesOf(r, a), hasIPv6(r, a.VPC)
	for _, egress := range []bool{true, false} {
		for _, x := range entries {
			if x.Egress != egress {
				continue
			}
			v := api.NetworkAclEntry{Egress: new(egress), Protocol: new(strconv.Itoa(x.Protocol)), RuleAction: "deny", RuleNumber: new(int32(x.Number))}
			if x.Allow {
				v.RuleAction = "allow"
			}
			if x.CIDR.Addr().Is6() {
				v.Ipv6CidrBlock = new(x.CIDR.String())
			} else {
				v.CidrBlock = new(x.CIDR.String())
			}
			switch x.Protocol {
			case 6, 17:
				v.PortRange = &api.PortRange{From: new(int32(x.From)), To: new(int32(x.To))}
			case 1, 58:
				v.IcmpTypeCode = &api.IcmpTypeCode{Type: new(int32(x.From)), Code: new(int32(x.To))}
			}
			out.Entries = append(out.Entries, v)
		}
		out.Entries = append(out.Entries, api.NetworkAclEntry{CidrBlock: new("0.0.0.0/0"), Egress: new(egress), Protocol: new("-1"), RuleAction: "deny", RuleNumber: new(int32(lastEntry))})
		if six {
			out.Entries = append(out.Entries, api.NetworkAclEntry{Ipv6CidrBlock: new("::/0"), Egress: new(egress), Protocol: new("-1"), RuleAction: "deny", RuleNumber: new(int32(lastEntry + 1))})
		}
	}
	return out
}
