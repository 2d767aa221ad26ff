package ec2

import (
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

// DescribeAvailabilityZones lists the region's zones.
func (e *EC2) DescribeAvailabilityZones(_ context.Context, in *api.DescribeAvailabilityZonesInput) (*api.DescribeAvailabilityZonesOutput, error) {
	region, _ := state.Regions.Get(e.DB.Snapshot(), state.RegionKey)
	var zones []state.Zone
	if region != nil {
		zones = region.Zones
	}
	q := request{ids: in.ZoneNames, filters: in.Filters}
	for _, id := range in.ZoneIds {
		i := slices.IndexFunc(zones, func(z state.Zone) bool { return z.ID == id })
		if i < 0 {
			return nil, bad("InvalidParameterValue", "Invalid availability zone-id: [%s]", id)
		}
		q.ids = append(q.ids, zones[i].Name)
	}
	out, _, err := list(q, kind[state.Zone, api.AvailabilityZone]{
		name: "zones", rows: slices.Values(zones),
		id:      func(z state.Zone) string { return z.Name },
		missing: func(id string) error { return bad("InvalidParameterValue", "Invalid availability zone: [%s]", id) },
		field: func(z state.Zone, name string) ([]string, bool) {
			switch name {
			case "zone-name":
				return one(z.Name), true
			case "zone-id":
				return one(z.ID), true
			case "region-name", "group-name", "network-border-group":
				return one(e.Region), true
			case "state":
				return one("available"), true
			case "zone-type":
				return one("availability-zone"), true
			case "opt-in-status":
				return one("opt-in-not-required"), true
			}
			return nil, false
		},
		view: func(z state.Zone) api.AvailabilityZone {
			return api.AvailabilityZone{OptInStatus: "opt-in-not-required", RegionName: new(e.Region), ZoneName: new(z.Name), ZoneId: new(z.ID),
				GroupName: new(e.Region), NetworkBorderGroup: new(e.Region), ZoneType: new("availability-zone"), State: "available"}
		},
	})
	return &api.DescribeAvailabilityZonesOutput{AvailabilityZones: out}, err
}

// DescribeRegions lists the one region there is.
func (e *EC2) DescribeRegions(_ context.Context, in *api.DescribeRegionsInput) (*api.DescribeRegionsOutput, error) {
	out, _, err := list(request{ids: in.RegionNames, filters: in.Filters}, kind[string, api.Region]{
		name: "regions", rows: slices.Values([]string{e.Region}),
		id:      func(r string) string { return r },
		missing: func(id string) error { return bad("InvalidParameterValue", "Invalid region name: [%s]", id) },
		field: func(r, name string) ([]string, bool) {
			switch name {
			case "region-name":
				return one(r), true
			case "endpoint":
				return one("ec2." + r + ".amazonaws.com"), true
			case "opt-in-status":
				return one("opt-in-not-required"), true
			}
			return nil, false
		},
		view: func(r string) api.Region {
			return api.Region{RegionName: new(r), Endpoint: new("ec2." + r + ".amazonaws.com"), OptInStatus: new("opt-in-not-required")}
		},
	})
	return &api.DescribeRegionsOutput{Regions: out}, err
}

// DescribeVpcs lists networks.
func (e *EC2) DescribeVpcs(ctx context.Context, in *api.DescribeVpcsInput) (*api.DescribeVpcsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	out, next, err := list(request{in.VpcIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.VPC, api.Vpc]{
		name: "vpcs", rows: state.VPCs.By(snap, "account", account),
		id:      func(v *state.VPC) string { return v.ID },
		missing: noVPC,
		tags:    func(v *state.VPC) []state.Tag { return v.Tags },
		field: func(v *state.VPC, name string) ([]string, bool) {
			switch name {
			case "vpc-id":
				return one(v.ID), true
			case "cidr", "cidr-block-association.cidr-block":
				return prefixes(v.CIDRs), true
			case "is-default", "isDefault":
				return flag(v.Default), true
			case "state", "cidr-block-association.state":
				return one("available"), true
			case "owner-id":
				return one(v.Account), true
			case "dhcp-options-id":
				return one(v.DHCPOptions), true
			}
			return nil, false
		},
		view: func(v *state.VPC) api.Vpc {
			out := api.Vpc{OwnerId: new(v.Account), InstanceTenancy: "default", IsDefault: new(v.Default), Tags: tagsView(v.Tags),
				VpcId: new(v.ID), State: "available", CidrBlock: new(v.CIDRs[0].String()), DhcpOptionsId: new(v.DHCPOptions)}
			for i, c := range v.CIDRs {
				out.CidrBlockAssociationSet = append(out.CidrBlockAssociationSet, api.VpcCidrBlockAssociation{
					AssociationId: new("vpc-cidr-assoc-" + derived(v.ID, i)), CidrBlock: new(c.String()), CidrBlockState: &api.VpcCidrBlockState{State: "associated"}})
			}
			return out
		},
	})
	return &api.DescribeVpcsOutput{Vpcs: out, NextToken: next}, err
}

// derived makes the digits of an id that follows from another.
func derived(id string, n int) string {
	_, digits, _ := strings.Cut(id, "-")
	if len(digits) < 17 {
		return digits
	}
	return digits[:16] + strconv.FormatInt(int64(n%16), 16)
}

func prefixes(ps []netip.Prefix) (out []string) {
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}

func noVPC(id string) error {
	return bad("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
}

// DescribeVpcAttribute answers one attribute of a VPC.
func (e *EC2) DescribeVpcAttribute(ctx context.Context, in *api.DescribeVpcAttributeInput) (*api.DescribeVpcAttributeOutput, error) {
	v, ok := state.VPCs.Get(e.DB.Snapshot(), wire.Value(in.VpcId))
	if !ok || v.Account != e.Account(ctx) {
		return nil, noVPC(wire.Value(in.VpcId))
	}
	out := &api.DescribeVpcAttributeOutput{VpcId: in.VpcId}
	switch in.Attribute {
	case "enableDnsSupport":
		out.EnableDnsSupport = &api.AttributeBooleanValue{Value: new(v.DNSSupport)}
	case "enableDnsHostnames":
		out.EnableDnsHostnames = &api.AttributeBooleanValue{Value: new(v.DNSHostnames)}
	case "enableNetworkAddressUsageMetrics":
		out.EnableNetworkAddressUsageMetrics = &api.AttributeBooleanValue{Value: new(false)}
	default:
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}

// DescribeSubnets lists subnets.
func (e *EC2) DescribeSubnets(ctx context.Context, in *api.DescribeSubnetsInput) (*api.DescribeSubnetsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	zoneID := zoneIDs(snap)
	out, next, err := list(request{in.SubnetIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.Subnet, api.Subnet]{
		name: "subnets", rows: mine(state.Subnets.All(snap), account, func(s *state.Subnet) string { return s.Account }),
		id: func(s *state.Subnet) string { return s.ID },
		missing: func(id string) error {
			return bad("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
		},
		tags: func(s *state.Subnet) []state.Tag { return s.Tags },
		field: func(s *state.Subnet, name string) ([]string, bool) {
			switch name {
			case "subnet-id":
				return one(s.ID), true
			case "vpc-id":
				return one(s.VPC), true
			case "availability-zone", "availabilityZone":
				return one(s.Zone), true
			case "availability-zone-id", "availabilityZoneId":
				return one(zoneID[s.Zone]), true
			case "cidr-block", "cidr", "cidrBlock":
				return one(s.CIDR.String()), true
			case "default-for-az", "defaultForAz":
				return flag(s.DefaultForZone), true
			case "map-public-ip-on-launch":
				return flag(s.MapPublicIPOnLaunch), true
			case "state":
				return one("available"), true
			case "owner-id":
				return one(s.Account), true
			case "subnet-arn":
				return one(*e.arn(s.Account, "subnet", s.ID)), true
			case "available-ip-address-count":
				return one(strconv.Itoa(free(snap, s))), true
			case "ipv6-native", "enable-dns64", "assign-ipv6-address-on-creation":
				return flag(false), true
			}
			return nil, false
		},
		view: func(s *state.Subnet) api.Subnet {
			return api.Subnet{AvailabilityZoneId: new(zoneID[s.Zone]), MapCustomerOwnedIpOnLaunch: new(false), OwnerId: new(s.Account),
				AssignIpv6AddressOnCreation: new(false), Ipv6CidrBlockAssociationSet: []api.SubnetIpv6CidrBlockAssociation{}, Tags: tagsView(s.Tags),
				SubnetArn: e.arn(s.Account, "subnet", s.ID), EnableDns64: new(false), Ipv6Native: new(false),
				PrivateDnsNameOptionsOnLaunch: &api.PrivateDnsNameOptionsOnLaunch{HostnameType: "ip-name", EnableResourceNameDnsARecord: new(false), EnableResourceNameDnsAAAARecord: new(false)},
				SubnetId:                      new(s.ID), State: "available", VpcId: new(s.VPC), CidrBlock: new(s.CIDR.String()),
				AvailableIpAddressCount: new(int32(free(snap, s))), AvailabilityZone: new(s.Zone),
				DefaultForAz: new(s.DefaultForZone), MapPublicIpOnLaunch: new(s.MapPublicIPOnLaunch)}
		},
	})
	return &api.DescribeSubnetsOutput{Subnets: out, NextToken: next}, err
}

func zoneIDs(r store.Reader) map[string]string {
	ids := map[string]string{}
	if region, ok := state.Regions.Get(r, state.RegionKey); ok {
		for _, z := range region.Zones {
			ids[z.Name] = z.ID
		}
	}
	return ids
}

// free is how many addresses of the subnet are left: all but AWS's five and those taken.
func free(r store.Reader, s *state.Subnet) int {
	n := 1<<(32-s.CIDR.Bits()) - 5
	for range state.AddressLeases.By(r, "scope", s.ID) {
		n--
	}
	return n
}

// DescribeRouteTables lists route tables with their local routes.
func (e *EC2) DescribeRouteTables(ctx context.Context, in *api.DescribeRouteTablesInput) (*api.DescribeRouteTablesOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	out, next, err := list(request{in.RouteTableIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.RouteTable, api.RouteTable]{
		name: "rtbs", rows: mine(state.RouteTables.All(snap), account, func(t *state.RouteTable) string { return t.Account }),
		id: func(t *state.RouteTable) string { return t.ID },
		missing: func(id string) error {
			return bad("InvalidRouteTableID.NotFound", "The routeTable ID '%s' does not exist", id)
		},
		tags: func(t *state.RouteTable) []state.Tag { return t.Tags },
		field: func(t *state.RouteTable, name string) ([]string, bool) {
			v := e.routeTable(snap, t)
			var got []string
			switch name {
			case "route-table-id":
				return one(t.ID), true
			case "vpc-id":
				return one(t.VPC), true
			case "owner-id":
				return one(t.Account), true
			case "association.main":
				return flag(t.Main), true
			case "association.route-table-id":
				return one(t.ID), true
			case "association.subnet-id":
				for _, a := range v.Associations {
					got = append(got, one(wire.Value(a.SubnetId))...)
				}
				return got, true
			case "association.route-table-association-id":
				for _, a := range v.Associations {
					got = append(got, one(wire.Value(a.RouteTableAssociationId))...)
				}
				return got, true
			case "route.destination-cidr-block":
				for _, r := range v.Routes {
					got = append(got, one(wire.Value(r.DestinationCidrBlock))...)
				}
				return got, true
			case "route.gateway-id":
				for _, r := range v.Routes {
					got = append(got, one(wire.Value(r.GatewayId))...)
				}
				return got, true
			case "route.state":
				for _, r := range v.Routes {
					got = append(got, string(r.State))
				}
				return got, true
			case "route.origin":
				for _, r := range v.Routes {
					got = append(got, string(r.Origin))
				}
				return got, true
			}
			return nil, false
		},
		view: func(t *state.RouteTable) api.RouteTable { return e.routeTable(snap, t) },
	})
	return &api.DescribeRouteTablesOutput{RouteTables: out, NextToken: next}, err
}

func (e *EC2) routeTable(r store.Reader, t *state.RouteTable) api.RouteTable {
	out := api.RouteTable{RouteTableId: new(t.ID), VpcId: new(t.VPC), OwnerId: new(t.Account), Tags: tagsView(t.Tags), PropagatingVgws: []api.PropagatingVgw{}}
	associated := &api.RouteTableAssociationState{State: "associated"}
	if t.Main {
		out.Associations = append(out.Associations, api.RouteTableAssociation{Main: new(true), RouteTableAssociationId: new(t.MainAssociation), RouteTableId: new(t.ID), AssociationState: associated})
	}
	for s := range state.Subnets.By(r, "vpc", t.VPC) {
		if s.RouteTable == t.ID {
			out.Associations = append(out.Associations, api.RouteTableAssociation{Main: new(false), RouteTableAssociationId: new(s.Association), RouteTableId: new(t.ID), SubnetId: new(s.ID), AssociationState: associated})
		}
	}
	if v, ok := state.VPCs.Get(r, t.VPC); ok {
		for _, c := range v.CIDRs {
			out.Routes = append(out.Routes, api.Route{DestinationCidrBlock: new(c.String()), GatewayId: new("local"), Origin: "CreateRouteTable", State: "active"})
		}
	}
	for _, x := range t.Routes {
		route := api.Route{DestinationCidrBlock: new(x.Destination.String()), Origin: api.RouteOrigin(x.Origin), State: "blackhole", GatewayId: new(x.Target)}
		if g, ok := state.InternetGateways.Get(r, x.Target); ok && g.VPC == t.VPC {
			route.State = "active"
		}
		out.Routes = append(out.Routes, route)
	}
	return out
}

// DescribeInternetGateways lists internet gateways.
func (e *EC2) DescribeInternetGateways(ctx context.Context, in *api.DescribeInternetGatewaysInput) (*api.DescribeInternetGatewaysOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	out, next, err := list(request{in.InternetGatewayIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.InternetGateway, api.InternetGateway]{
		name: "igws", rows: mine(state.InternetGateways.All(snap), account, func(g *state.InternetGateway) string { return g.Account }),
		id: func(g *state.InternetGateway) string { return g.ID },
		missing: func(id string) error {
			return bad("InvalidInternetGatewayID.NotFound", "The internetGateway ID '%s' does not exist", id)
		},
		tags: func(g *state.InternetGateway) []state.Tag { return g.Tags },
		field: func(g *state.InternetGateway, name string) ([]string, bool) {
			switch name {
			case "internet-gateway-id":
				return one(g.ID), true
			case "attachment.vpc-id":
				return one(g.VPC), true
			case "attachment.state":
				if g.VPC == "" {
					return nil, true
				}
				return one("available"), true
			case "owner-id":
				return one(g.Account), true
			}
			return nil, false
		},
		view: func(g *state.InternetGateway) api.InternetGateway {
			out := api.InternetGateway{InternetGatewayId: new(g.ID), OwnerId: new(g.Account), Tags: tagsView(g.Tags), Attachments: []api.InternetGatewayAttachment{}}
			if g.VPC != "" {
				out.Attachments = append(out.Attachments, api.InternetGatewayAttachment{State: "available", VpcId: new(g.VPC)})
			}
			return out
		},
	})
	return &api.DescribeInternetGatewaysOutput{InternetGateways: out, NextToken: next}, err
}

// DescribeDhcpOptions lists DHCP option sets.
func (e *EC2) DescribeDhcpOptions(ctx context.Context, in *api.DescribeDhcpOptionsInput) (*api.DescribeDhcpOptionsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	out, next, err := list(request{in.DhcpOptionsIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.DHCPOptions, api.DhcpOptions]{
		name: "dopts", rows: mine(state.DHCPOptionSets.All(snap), account, func(d *state.DHCPOptions) string { return d.Account }),
		id: func(d *state.DHCPOptions) string { return d.ID },
		missing: func(id string) error {
			return bad("InvalidDhcpOptionID.NotFound", "The dhcpOption ID '%s' does not exist", id)
		},
		tags: func(d *state.DHCPOptions) []state.Tag { return d.Tags },
		field: func(d *state.DHCPOptions, name string) ([]string, bool) {
			var got []string
			switch name {
			case "dhcp-options-id":
				return one(d.ID), true
			case "owner-id":
				return one(d.Account), true
			case "key":
				for _, v := range d.Values {
					got = append(got, v.Name)
				}
				return got, true
			case "value":
				for _, v := range d.Values {
					got = append(got, v.Values...)
				}
				return got, true
			}
			return nil, false
		},
		view: func(d *state.DHCPOptions) api.DhcpOptions {
			out := api.DhcpOptions{DhcpOptionsId: new(d.ID), OwnerId: new(d.Account), Tags: tagsView(d.Tags)}
			for _, v := range d.Values {
				c := api.DhcpConfiguration{Key: new(v.Name)}
				for _, x := range v.Values {
					c.Values = append(c.Values, api.AttributeValue{Value: new(x)})
				}
				out.DhcpConfigurations = append(out.DhcpConfigurations, c)
			}
			return out
		},
	})
	return &api.DescribeDhcpOptionsOutput{DhcpOptions: out, NextToken: next}, err
}

// PublicName is the public DNS name of an address (facts: networking).
func PublicName(a netip.Addr, region string) string {
	name := "ec2-" + strings.ReplaceAll(a.String(), ".", "-")
	if region == "us-east-1" {
		return name + ".compute-1.amazonaws.com"
	}
	return name + "." + region + ".compute.amazonaws.com"
}

// DescribeAccountAttributes answers what classic tooling asks first.
func (e *EC2) DescribeAccountAttributes(ctx context.Context, in *api.DescribeAccountAttributesInput) (*api.DescribeAccountAttributesOutput, error) {
	vpc := "none"
	for v := range state.VPCs.By(e.DB.Snapshot(), "account", e.Account(ctx)) {
		if v.Default {
			vpc = v.ID
		}
	}
	out := &api.DescribeAccountAttributesOutput{AccountAttributes: []api.AccountAttribute{}}
	for _, a := range []struct{ name, value string }{
		{"supported-platforms", "VPC"}, {"default-vpc", vpc}, {"vpc-max-security-groups-per-interface", strconv.Itoa(maxGroupsPerInterface)},
	} {
		if len(in.AttributeNames) > 0 && !slices.Contains(in.AttributeNames, api.AccountAttributeName(a.name)) {
			continue
		}
		out.AccountAttributes = append(out.AccountAttributes, api.AccountAttribute{AttributeName: new(a.name), AttributeValues: []api.AccountAttributeValue{{AttributeValue: new(a.value)}}})
	}
	return out, nil
}

// DescribeAddresses answers the Elastic IP addresses: there are none yet.
func (e *EC2) DescribeAddresses(_ context.Context, in *api.DescribeAddressesInput) (*api.DescribeAddressesOutput, error) {
	for _, id := range in.AllocationIds {
		return nil, bad("InvalidAllocationID.NotFound", "The allocation ID '%s' does not exist", id)
	}
	for _, ip := range in.PublicIps {
		return nil, bad("InvalidAddress.NotFound", "Address '%s' not found.", ip)
	}
	return &api.DescribeAddressesOutput{Addresses: []api.Address{}}, nil
}
