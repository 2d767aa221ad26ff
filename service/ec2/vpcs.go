package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noVPC(id string) error {
	if err := malformed("InvalidVpcID", "vpc", id); err != nil {
		return err
	}
	return bad("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
}

// vpcOf finds a VPC of the account.
func vpcOf(r store.Reader, account, id string) (*state.VPC, error) {
	v, ok := state.VPCs.Get(r, id)
	if !ok || v.Account != account {
		return nil, noVPC(id)
	}
	return v, nil
}

// readPrefix reads a CIDR block. Bits of the host are cut off, as AWS does.
func readPrefix(text, parameter string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return p, bad("InvalidParameterValue", "Value (%s) for parameter %s is invalid. This is not a valid CIDR block.", text, parameter)
	}
	return p.Masked(), nil
}

func readPrefix4(text, parameter string) (netip.Prefix, error) {
	p, err := readPrefix(text, parameter)
	if err == nil && !p.Addr().Is4() {
		return p, bad("InvalidParameterValue", "Value (%s) for parameter %s is invalid. This is not a valid CIDR block.", text, parameter)
	}
	return p, err
}

func readPrefix6(text, parameter string) (netip.Prefix, error) {
	p, err := readPrefix(text, parameter)
	if err == nil && !p.Addr().Is6() {
		return p, bad("InvalidParameterValue", "Value (%s) for parameter %s is invalid. This is not a valid IPv6 CIDR block.", text, parameter)
	}
	return p, err
}

// networkOf reads the IPv4 range of a VPC: /16 to /28 of what can be a host's.
func networkOf(text string) (netip.Prefix, error) {
	p, err := readPrefix4(text, "cidrBlock")
	if err != nil {
		return p, err
	}
	a := p.Addr()
	if p.Bits() < 16 || p.Bits() > 28 || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.As4()[0] == 0 || a.As4()[0] >= 240 {
		return p, bad("InvalidVpc.Range", "The CIDR '%s' is invalid.", text)
	}
	return p, nil
}

// CreateVpc makes a VPC with its main route table, default ACL and default group.
func (e *EC2) CreateVpc(ctx context.Context, in *api.CreateVpcInput) (*api.CreateVpcOutput, error) {
	account := e.Account(ctx)
	switch {
	case in.Ipv4IpamPoolId != nil, in.Ipv4NetmaskLength != nil:
		return nil, unsupported("Ipv4IpamPoolId")
	case in.Ipv6IpamPoolId != nil, in.Ipv6NetmaskLength != nil:
		return nil, unsupported("Ipv6IpamPoolId")
	case in.Ipv6Pool != nil, in.Ipv6CidrBlock != nil:
		return nil, unsupported("Ipv6Pool")
	case in.VpcEncryptionControl != nil:
		return nil, unsupported("VpcEncryptionControl")
	case wire.Value(in.CidrBlock) == "":
		return nil, bad("MissingParameter", "Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided.")
	case in.InstanceTenancy == "host":
		return nil, bad("UnsupportedTenancy", "The tenancy value %s is not supported.", in.InstanceTenancy)
	}
	if err := e.borderGroup(in.Ipv6CidrBlockNetworkBorderGroup); err != nil {
		return nil, err
	}
	cidr, err := networkOf(*in.CidrBlock)
	if err != nil {
		return nil, err
	}
	tags, err := tagsFor("vpc", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	v := &state.VPC{ID: e.id("vpc"), Account: account, CIDRs: []netip.Prefix{cidr}, CIDRAssociations: []string{e.id("vpc-cidr-assoc")},
		Tenancy: string(in.InstanceTenancy), DNSSupport: true, Tags: tags, CreatedAt: e.Now()}
	dhcp, six := e.id("dopt"), e.id("vpc-cidr-assoc")
	var made *state.VPC
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		if err := e.roomForVPC(tx, account); err != nil {
			return err
		}
		n := *v
		n.DHCPOptions = defaultOptions(tx, e.Region, account, dhcp)
		if wire.Value(in.AmazonProvidedIpv6CidrBlock) {
			if err := giveIPv6(tx, &n, six); err != nil {
				return err
			}
		}
		state.VPCs.Put(tx, &n)
		furnish(tx, &n, e.id)
		made = &n
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := e.vpcView(made)
	out.State = "pending"
	return &api.CreateVpcOutput{Vpc: &out}, nil
}

func (e *EC2) roomForVPC(tx *store.Tx, account string) error {
	state.VPCs.Guard(tx, "")
	n := 0
	for range state.VPCs.By(tx, "account", account) {
		n++
	}
	if n >= state.Limit(tx, account, "vpc/vpcs") {
		return bad("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
	}
	return nil
}

// borderGroup refuses any network border group but the region itself.
func (e *EC2) borderGroup(g *string) error {
	if x := wire.Value(g); x != "" && x != e.Region {
		return bad("InvalidParameterValue", "Value (%s) for parameter networkBorderGroup is invalid.", x)
	}
	return nil
}

// giveIPv6 associates an IPv6 range with a VPC.
func giveIPv6(tx *store.Tx, v *state.VPC, association string) error {
	p, err := state.FreeAddresses(tx).Network6()
	if err != nil {
		return bad("InsufficientCapacity", "There are no free IPv6 ranges in this region.")
	}
	v.IPv6 = append(slices.Clone(v.IPv6), state.IPv6Block{CIDR: p, Association: association})
	state.AddressLeases.Put(tx, &state.AddressLease{Scope: state.IPv6Scope, Address: p.Addr(), Owner: v.ID})
	return nil
}

// DeleteVpc removes a VPC in which nothing is left but what it came with.
func (e *EC2) DeleteVpc(ctx context.Context, in *api.DeleteVpcInput) (*api.DeleteVpcOutput, error) {
	return &api.DeleteVpcOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		v, err := vpcOf(tx, e.Account(ctx), wire.Value(in.VpcId))
		if err != nil {
			return err
		}
		inUse := bad("DependencyViolation", "The vpc '%s' has dependencies and cannot be deleted.", v.ID)
		// What comes into the VPC meanwhile makes this look again.
		state.Subnets.Guard(tx, "")
		state.NetworkInterfaces.Guard(tx, "")
		state.InternetGateways.Guard(tx, "")
		state.EgressOnlyGateways.Guard(tx, "")
		state.RouteTables.Guard(tx, "")
		state.SecurityGroups.Guard(tx, "")
		state.NetworkACLs.Guard(tx, "")
		state.Peerings.Guard(tx, "")
		state.Endpoints.Guard(tx, "")
		for range state.Subnets.By(tx, "vpc", v.ID) {
			return inUse
		}
		for range state.NetworkInterfaces.By(tx, "vpc", v.ID) {
			return inUse
		}
		for range state.InternetGateways.By(tx, "vpc", v.ID) {
			return inUse
		}
		for range state.EgressOnlyGateways.By(tx, "vpc", v.ID) {
			return inUse
		}
		for p := range state.Peerings.By(tx, "vpc", v.ID) {
			if p.Status == "active" || p.Status == "pending-acceptance" {
				return inUse
			}
		}
		for x := range state.Endpoints.By(tx, "vpc", v.ID) {
			if x.State != "deleted" {
				return inUse
			}
		}
		for t := range state.RouteTables.By(tx, "vpc", v.ID) {
			if !t.Main {
				return inUse
			}
			state.RouteTables.Delete(tx, t.ID)
		}
		for a := range state.NetworkACLs.By(tx, "vpc", v.ID) {
			if !a.Default {
				return inUse
			}
			state.NetworkACLs.Delete(tx, a.ID)
		}
		for g := range state.SecurityGroups.By(tx, "vpc", v.ID) {
			if g.Name != "default" {
				return inUse
			}
			state.SecurityGroups.Delete(tx, g.ID)
			state.GroupNames.Delete(tx, v.ID+"/"+g.Name)
		}
		for l := range state.FlowLogs.By(tx, "resource", v.ID) {
			state.FlowLogs.Delete(tx, l.ID)
		}
		for _, b := range v.IPv6 {
			state.AddressLeases.Delete(tx, state.LeaseKey(state.IPv6Scope, b.CIDR.Addr()))
		}
		state.VPCs.Delete(tx, v.ID)
		return nil
	})
}

var vpcFilters = filters[*state.VPC]{
	"vpc-id":                                func(v *state.VPC) []string { return one(v.ID) },
	"cidr":                                  func(v *state.VPC) []string { return prefixes(v.CIDRs[:1]) },
	"cidr-block-association.cidr-block":     func(v *state.VPC) []string { return prefixes(v.CIDRs) },
	"cidr-block-association.association-id": cidrAssociations,
	"cidr-block-association.state":          func(*state.VPC) []string { return one("associated") },
	"ipv6-cidr-block-association.ipv6-pool": func(v *state.VPC) []string {
		return each(v.IPv6, func(state.IPv6Block) []string { return one("Amazon") })
	},
	"ipv6-cidr-block-association.state": func(v *state.VPC) []string {
		return each(v.IPv6, func(state.IPv6Block) []string { return one("associated") })
	},
	"ipv6-cidr-block-association.association-id": func(v *state.VPC) []string {
		return each(v.IPv6, func(b state.IPv6Block) []string { return one(b.Association) })
	},
	"ipv6-cidr-block-association.ipv6-cidr-block": func(v *state.VPC) []string {
		return each(v.IPv6, func(b state.IPv6Block) []string { return one(b.CIDR.String()) })
	},
	"dhcp-options-id": func(v *state.VPC) []string { return one(optionsOf(v)) },
	"is-default":      func(v *state.VPC) []string { return flag(v.Default) },
	"isDefault":       func(v *state.VPC) []string { return flag(v.Default) },
	"owner-id":        func(v *state.VPC) []string { return one(v.Account) },
	"state":           func(*state.VPC) []string { return one("available") },
}

// DescribeVpcs lists networks.
func (e *EC2) DescribeVpcs(ctx context.Context, in *api.DescribeVpcsInput) (*api.DescribeVpcsOutput, error) {
	out, next, err := list(request{in.VpcIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.VPC, api.Vpc]{
		name: "vpcs", rows: state.VPCs.By(e.DB.Snapshot(), "account", e.Account(ctx)),
		id:      func(v *state.VPC) string { return v.ID },
		missing: noVPC,
		tags:    func(v *state.VPC) []state.Tag { return v.Tags },
		filters: vpcFilters,
		view:    e.vpcView,
	})
	return &api.DescribeVpcsOutput{Vpcs: out, NextToken: next}, err
}

func (e *EC2) vpcView(v *state.VPC) api.Vpc {
	out := api.Vpc{OwnerId: new(v.Account), InstanceTenancy: "default", IsDefault: new(v.Default), Tags: tagsView(v.Tags), VpcId: new(v.ID), State: "available",
		CidrBlock: new(v.CIDRs[0].String()), DhcpOptionsId: new(optionsOf(v)), BlockPublicAccessStates: &api.BlockPublicAccessStates{InternetGatewayBlockMode: "off"}}
	if v.Tenancy != "" {
		out.InstanceTenancy = api.Tenancy(v.Tenancy)
	}
	ids := cidrAssociations(v)
	for i, c := range v.CIDRs {
		out.CidrBlockAssociationSet = append(out.CidrBlockAssociationSet, cidrView(c, ids[i], "associated"))
	}
	for _, b := range v.IPv6 {
		out.Ipv6CidrBlockAssociationSet = append(out.Ipv6CidrBlockAssociationSet, e.vpcIPv6View(b, "associated"))
	}
	return out
}

func cidrView(c netip.Prefix, association string, is api.VpcCidrBlockStateCode) api.VpcCidrBlockAssociation {
	return api.VpcCidrBlockAssociation{AssociationId: new(association), CidrBlock: new(c.String()), CidrBlockState: &api.VpcCidrBlockState{State: is}}
}

func (e *EC2) vpcIPv6View(b state.IPv6Block, is api.VpcCidrBlockStateCode) api.VpcIpv6CidrBlockAssociation {
	return api.VpcIpv6CidrBlockAssociation{AssociationId: new(b.Association), Ipv6CidrBlock: new(b.CIDR.String()), Ipv6Pool: new("Amazon"), NetworkBorderGroup: new(e.Region),
		Ipv6AddressAttribute: "private", IpSource: "amazon", Ipv6CidrBlockState: &api.VpcCidrBlockState{State: is}}
}

// cidrAssociations are the ids of the associations of a VPC's IPv4 ranges.
// Those of a VPC from before it could have more than one follow from its id.
func cidrAssociations(v *state.VPC) []string {
	ids := slices.Clone(v.CIDRAssociations)
	for i := len(ids); i < len(v.CIDRs); i++ {
		_, digits, _ := strings.Cut(v.ID, "-")
		ids = append(ids, "vpc-cidr-assoc-"+digits)
	}
	return ids
}

func prefixes(ps []netip.Prefix) (out []string) {
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}

// DescribeVpcAttribute answers one attribute of a VPC.
func (e *EC2) DescribeVpcAttribute(ctx context.Context, in *api.DescribeVpcAttributeInput) (*api.DescribeVpcAttributeOutput, error) {
	v, err := vpcOf(e.DB.Snapshot(), e.Account(ctx), wire.Value(in.VpcId))
	if err != nil {
		return nil, err
	}
	out := &api.DescribeVpcAttributeOutput{VpcId: in.VpcId}
	switch in.Attribute {
	case "enableDnsSupport":
		out.EnableDnsSupport = &api.AttributeBooleanValue{Value: new(v.DNSSupport)}
	case "enableDnsHostnames":
		out.EnableDnsHostnames = &api.AttributeBooleanValue{Value: new(v.DNSHostnames)}
	case "enableNetworkAddressUsageMetrics":
		out.EnableNetworkAddressUsageMetrics = &api.AttributeBooleanValue{Value: new(v.AddressMetrics)}
	default:
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}

// ModifyVpcAttribute changes one attribute of a VPC.
func (e *EC2) ModifyVpcAttribute(ctx context.Context, in *api.ModifyVpcAttributeInput) (*api.ModifyVpcAttributeOutput, error) {
	if err := onlyOne(in.EnableDnsHostnames != nil, in.EnableDnsSupport != nil, in.EnableNetworkAddressUsageMetrics != nil); err != nil {
		return nil, err
	}
	return &api.ModifyVpcAttributeOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		v, err := vpcOf(tx, e.Account(ctx), wire.Value(in.VpcId))
		if err != nil {
			return err
		}
		n := *v
		set(&n.DNSSupport, in.EnableDnsSupport)
		set(&n.DNSHostnames, in.EnableDnsHostnames)
		set(&n.AddressMetrics, in.EnableNetworkAddressUsageMetrics)
		if n.DNSHostnames && !n.DNSSupport {
			return bad("InvalidParameterCombination", "DNS hostnames can only be enabled while DNS support is enabled")
		}
		state.VPCs.Put(tx, &n)
		return nil
	})
}

// onlyOne demands that one attribute is changed at a time.
func onlyOne(given ...bool) error {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	switch n {
	case 0:
		return bad("MissingParameter", "The request must contain exactly one attribute to modify")
	case 1:
		return nil
	}
	return bad("InvalidParameterCombination", "Fields for multiple attribute types specified; only one attribute may be modified at a time")
}

func set(field *bool, to *api.AttributeBooleanValue) {
	if to != nil {
		*field = wire.Value(to.Value)
	}
}

// ModifyVpcTenancy takes dedicated tenancy back: default is all it may become.
func (e *EC2) ModifyVpcTenancy(ctx context.Context, in *api.ModifyVpcTenancyInput) (*api.ModifyVpcTenancyOutput, error) {
	return &api.ModifyVpcTenancyOutput{ReturnValue: new(true)}, e.DB.Update(ctx, func(tx *store.Tx) error {
		v, err := vpcOf(tx, e.Account(ctx), wire.Value(in.VpcId))
		if err != nil {
			return err
		}
		n := *v
		n.Tenancy = string(in.InstanceTenancy)
		state.VPCs.Put(tx, &n)
		return nil
	})
}

// AssociateVpcCidrBlock gives a VPC a further IPv4 range, or an IPv6 range.
func (e *EC2) AssociateVpcCidrBlock(ctx context.Context, in *api.AssociateVpcCidrBlockInput) (*api.AssociateVpcCidrBlockOutput, error) {
	six := wire.Value(in.AmazonProvidedIpv6CidrBlock)
	switch {
	case in.Ipv4IpamPoolId != nil, in.Ipv4NetmaskLength != nil:
		return nil, unsupported("Ipv4IpamPoolId")
	case in.Ipv6IpamPoolId != nil, in.Ipv6NetmaskLength != nil:
		return nil, unsupported("Ipv6IpamPoolId")
	case in.Ipv6Pool != nil, in.Ipv6CidrBlock != nil:
		return nil, unsupported("Ipv6Pool")
	case !six && in.CidrBlock == nil:
		return nil, bad("MissingParameter", "Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided.")
	case six && in.CidrBlock != nil:
		return nil, bad("InvalidParameterCombination", "The parameter amazonProvidedIpv6CidrBlock cannot be used with the parameter cidrBlock")
	}
	if err := e.borderGroup(in.Ipv6CidrBlockNetworkBorderGroup); err != nil {
		return nil, err
	}
	var cidr netip.Prefix
	if !six {
		var err error
		if cidr, err = networkOf(*in.CidrBlock); err != nil {
			return nil, err
		}
	}
	id, account := e.id("vpc-cidr-assoc"), e.Account(ctx)
	var out *api.AssociateVpcCidrBlockOutput
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		out = &api.AssociateVpcCidrBlockOutput{VpcId: in.VpcId}
		v, err := vpcOf(tx, account, wire.Value(in.VpcId))
		if err != nil {
			return err
		}
		n := *v
		full := func(max int) error {
			return bad("CidrLimitExceeded", "This network '%s' has met its maximum number of allowed CIDRs: %d", v.ID, max)
		}
		if six {
			if max := state.Limit(tx, account, "vpc/ipv6-cidrs-per-vpc"); len(v.IPv6) >= max {
				return full(max)
			}
			if err := giveIPv6(tx, &n, id); err != nil {
				return err
			}
			openIPv6(tx, v, e.id("sgr"))
			out.Ipv6CidrBlockAssociation = new(e.vpcIPv6View(n.IPv6[len(n.IPv6)-1], "associating"))
		} else {
			if max := state.Limit(tx, account, "vpc/ipv4-cidrs-per-vpc"); len(v.CIDRs) >= max {
				return full(max)
			}
			if err := joins(tx, v, cidr); err != nil {
				return err
			}
			n.CIDRAssociations = append(cidrAssociations(v), id)
			n.CIDRs = append(slices.Clone(v.CIDRs), cidr)
			out.CidrBlockAssociation = new(cidrView(cidr, id, "associating"))
		}
		state.VPCs.Put(tx, &n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// private are the ranges of which a VPC may use but one: a further range is of
// the same as the first, or public.
var private = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("198.19.0.0/16")}

// joins says why a further IPv4 range cannot join a VPC.
func joins(r store.Reader, v *state.VPC, c netip.Prefix) error {
	of := func(p netip.Prefix) int {
		return slices.IndexFunc(private, func(x netip.Prefix) bool { return x.Overlaps(p) })
	}
	for _, have := range v.CIDRs {
		if have.Overlaps(c) {
			return bad("InvalidVpc.Range", "The CIDR '%s' overlaps with the CIDR '%s' of the VPC.", c, have)
		}
	}
	if first, further := of(v.CIDRs[0]), of(c); further >= 0 && further != first {
		return bad("InvalidVpc.Range", "The CIDR '%s' is restricted. Use a CIDR from the same private address range as the current VPC CIDR, or use a publicly-routable CIDR.", c)
	}
	for t := range state.RouteTables.By(r, "vpc", v.ID) {
		for _, x := range t.Routes {
			// It would take the place of what the route says.
			if x.Destination.IsValid() && x.Destination.Addr().Is4() && c.Bits() <= x.Destination.Bits() && c.Overlaps(x.Destination) {
				return bad("InvalidVpc.Range", "The CIDR '%s' conflicts with the route to '%s' in route table %s.", c, x.Destination, t.ID)
			}
		}
	}
	return nil
}

// openIPv6 lets the default group out to IPv6 once its VPC has it, if its rules
// are still those that it came with.
func openIPv6(tx *store.Tx, v *state.VPC, rule string) {
	name, ok := state.GroupNames.Get(tx, v.ID+"/default")
	if !ok {
		return
	}
	g, ok := state.SecurityGroups.Get(tx, name.Group)
	if !ok {
		return
	}
	var out []state.SecurityGroupRule
	for _, r := range g.Rules {
		if r.Egress {
			out = append(out, r)
		}
	}
	if len(out) != 1 || out[0].Protocol != "-1" || out[0].CIDR != everywhere {
		return
	}
	n := *g
	n.Rules = append(slices.Clone(g.Rules), state.SecurityGroupRule{ID: rule, Egress: true, Protocol: "-1", From: -1, To: -1, CIDR: everywhere6})
	state.SecurityGroups.Put(tx, &n)
}

// DisassociateVpcCidrBlock takes a range from a VPC in which no subnet has part of it.
func (e *EC2) DisassociateVpcCidrBlock(ctx context.Context, in *api.DisassociateVpcCidrBlockInput) (*api.DisassociateVpcCidrBlockOutput, error) {
	id := wire.Value(in.AssociationId)
	var out *api.DisassociateVpcCidrBlockOutput
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		for v := range state.VPCs.By(tx, "account", e.Account(ctx)) {
			v4 := slices.Index(cidrAssociations(v), id)
			v6 := slices.IndexFunc(v.IPv6, func(b state.IPv6Block) bool { return b.Association == id })
			if v4 < 0 && v6 < 0 {
				continue
			}
			if v4 == 0 {
				return bad("OperationNotPermitted", "The vpc CIDR block with association ID %s may not be disassociated. It is the primary IPv4 CIDR block of the VPC", id)
			}
			if _, err := vpcOf(tx, v.Account, v.ID); err != nil { // compared at commit only if it is read
				return err
			}
			state.Subnets.Guard(tx, "")
			n := *v
			out = &api.DisassociateVpcCidrBlockOutput{VpcId: new(v.ID)}
			var gone netip.Prefix
			if v6 >= 0 {
				gone = v.IPv6[v6].CIDR
				out.Ipv6CidrBlockAssociation = new(e.vpcIPv6View(v.IPv6[v6], "disassociating"))
				n.IPv6 = slices.Delete(slices.Clone(v.IPv6), v6, v6+1)
				state.AddressLeases.Delete(tx, state.LeaseKey(state.IPv6Scope, gone.Addr()))
			} else {
				gone = v.CIDRs[v4]
				out.CidrBlockAssociation = new(cidrView(gone, id, "disassociating"))
				n.CIDRAssociations = slices.Delete(cidrAssociations(v), v4, v4+1)
				n.CIDRs = slices.Delete(slices.Clone(v.CIDRs), v4, v4+1)
			}
			for s := range state.Subnets.By(tx, "vpc", v.ID) {
				if gone.Overlaps(s.CIDR) || slices.ContainsFunc(s.IPv6, func(b state.IPv6Block) bool { return gone.Overlaps(b.CIDR) }) {
					return bad("DependencyViolation", "The vpc CIDR block with association ID %s has dependencies and cannot be disassociated.", id)
				}
			}
			state.VPCs.Put(tx, &n)
			return nil
		}
		return bad("InvalidVpcCidrBlockAssociationID.NotFound", "The vpc CIDR block association ID '%s' does not exist", id)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// CreateDefaultVpc makes what an account begins with, once it has no default VPC any more.
func (e *EC2) CreateDefaultVpc(ctx context.Context, _ *api.CreateDefaultVpcInput) (*api.CreateDefaultVpcOutput, error) {
	account := e.Account(ctx)
	var made *state.VPC
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		if err := e.roomForVPC(tx, account); err != nil {
			return err
		}
		if v := defaultVPC(tx, account); v != nil {
			return bad("DefaultVpcAlreadyExists", "A Default VPC already exists for this account in this region.")
		}
		region, ok := state.Regions.Get(tx, state.RegionKey)
		if !ok {
			return bad("InternalError", "The region is not set up.")
		}
		made = furnishDefault(tx, region, account, defaultOptions(tx, region.Name, account, e.id("dopt")), e.Now(), e.id)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateDefaultVpcOutput{Vpc: new(e.vpcView(made))}, nil
}

func defaultVPC(r store.Reader, account string) *state.VPC {
	for v := range state.VPCs.By(r, "account", account) {
		if v.Default {
			return v
		}
	}
	return nil
}

// DescribeVpcClassicLink answers for tools that ask before they delete a VPC:
// EC2-Classic is gone, so nothing is linked.
func (e *EC2) DescribeVpcClassicLink(ctx context.Context, in *api.DescribeVpcClassicLinkInput) (*api.DescribeVpcClassicLinkOutput, error) {
	out, _, err := list(request{ids: in.VpcIds, filters: in.Filters}, kind[*state.VPC, api.VpcClassicLink]{
		name: "classiclinks", rows: state.VPCs.By(e.DB.Snapshot(), "account", e.Account(ctx)),
		id:      func(v *state.VPC) string { return v.ID },
		missing: noVPC,
		tags:    func(v *state.VPC) []state.Tag { return v.Tags },
		filters: filters[*state.VPC]{"is-classic-link-enabled": func(*state.VPC) []string { return flag(false) }},
		view: func(v *state.VPC) api.VpcClassicLink {
			return api.VpcClassicLink{ClassicLinkEnabled: new(false), Tags: tagsView(v.Tags), VpcId: new(v.ID)}
		},
	})
	return &api.DescribeVpcClassicLinkOutput{Vpcs: out}, err
}

// DescribeVpcClassicLinkDnsSupport answers as DescribeVpcClassicLink does.
func (e *EC2) DescribeVpcClassicLinkDnsSupport(ctx context.Context, in *api.DescribeVpcClassicLinkDnsSupportInput) (*api.DescribeVpcClassicLinkDnsSupportOutput, error) {
	out, next, err := list(request{ids: in.VpcIds, max: in.MaxResults, token: in.NextToken}, kind[*state.VPC, api.ClassicLinkDnsSupport]{
		name: "classiclinkdns", rows: state.VPCs.By(e.DB.Snapshot(), "account", e.Account(ctx)),
		id:      func(v *state.VPC) string { return v.ID },
		missing: noVPC,
		view: func(v *state.VPC) api.ClassicLinkDnsSupport {
			return api.ClassicLinkDnsSupport{ClassicLinkDnsSupported: new(false), VpcId: new(v.ID)}
		},
	})
	return &api.DescribeVpcClassicLinkDnsSupportOutput{Vpcs: out, NextToken: next}, err
}

// DescribeVpcBlockPublicAccessOptions says that nothing is blocked.
func (e *EC2) DescribeVpcBlockPublicAccessOptions(ctx context.Context, _ *api.DescribeVpcBlockPublicAccessOptionsInput) (*api.DescribeVpcBlockPublicAccessOptionsOutput, error) {
	return &api.DescribeVpcBlockPublicAccessOptionsOutput{VpcBlockPublicAccessOptions: e.accessOptions(ctx)}, nil
}

// ModifyVpcBlockPublicAccessOptions takes what is so already: to block, the
// fabric would have to.
func (e *EC2) ModifyVpcBlockPublicAccessOptions(ctx context.Context, in *api.ModifyVpcBlockPublicAccessOptionsInput) (*api.ModifyVpcBlockPublicAccessOptionsOutput, error) {
	if in.InternetGatewayBlockMode != "off" {
		return nil, unsupported("InternetGatewayBlockMode " + string(in.InternetGatewayBlockMode))
	}
	return &api.ModifyVpcBlockPublicAccessOptionsOutput{VpcBlockPublicAccessOptions: e.accessOptions(ctx)}, nil
}

func (e *EC2) accessOptions(ctx context.Context) *api.VpcBlockPublicAccessOptions {
	return &api.VpcBlockPublicAccessOptions{AwsAccountId: new(e.Account(ctx)), AwsRegion: new(e.Region), State: "default-state",
		InternetGatewayBlockMode: "off", ManagedBy: "account", ExclusionsAllowed: "allowed"}
}

// DescribeVpcBlockPublicAccessExclusions lists none: there is nothing to be excluded from.
func (e *EC2) DescribeVpcBlockPublicAccessExclusions(_ context.Context, in *api.DescribeVpcBlockPublicAccessExclusionsInput) (*api.DescribeVpcBlockPublicAccessExclusionsOutput, error) {
	for _, id := range in.ExclusionIds {
		return nil, bad("InvalidVpcBlockPublicAccessExclusionId.NotFound", "The exclusion ID '%s' does not exist", id)
	}
	return &api.DescribeVpcBlockPublicAccessExclusionsOutput{VpcBlockPublicAccessExclusions: []api.VpcBlockPublicAccessExclusion{}}, nil
}

// DescribeIpv6Pools lists the pools of addresses that an account has brought: none.
func (e *EC2) DescribeIpv6Pools(_ context.Context, in *api.DescribeIpv6PoolsInput) (*api.DescribeIpv6PoolsOutput, error) {
	for _, id := range in.PoolIds {
		return nil, bad("InvalidPoolID.NotFound", "The pool ID '%s' does not exist.", id)
	}
	return &api.DescribeIpv6PoolsOutput{Ipv6Pools: []api.Ipv6Pool{}}, nil
}
