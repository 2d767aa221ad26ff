package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
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

// derived makes the digits of an id that follows from another.
func derived(id string, n int) string {
	_, digits, _ := strings.Cut(id, "-")
	if len(digits) < 17 {
		return digits
	}
	return digits[:16] + strconv.FormatInt(int64(n%16), 16)
}

// DescribeNetworkAcls lists the default ACL of each VPC.
func (e *EC2) DescribeNetworkAcls(ctx context.Context, in *api.DescribeNetworkAclsInput) (*api.DescribeNetworkAclsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	out, next, err := list(request{in.NetworkAclIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.NetworkACL, api.NetworkAcl]{
		name: "acls", rows: mine(state.NetworkACLs.All(snap), account, func(a *state.NetworkACL) string { return a.Account }),
		id: func(a *state.NetworkACL) string { return a.ID },
		missing: func(id string) error {
			return bad("InvalidNetworkAclID.NotFound", "The networkAcl ID '%s' does not exist", id)
		},
		tags: func(a *state.NetworkACL) []state.Tag { return a.Tags },
		field: func(a *state.NetworkACL, name string) ([]string, bool) {
			switch name {
			case "network-acl-id":
				return one(a.ID), true
			case "vpc-id":
				return one(a.VPC), true
			case "default":
				return flag(a.Default), true
			case "owner-id":
				return one(a.Account), true
			case "association.subnet-id":
				var ids []string
				for s := range state.Subnets.By(snap, "vpc", a.VPC) {
					ids = append(ids, s.ID)
				}
				return ids, true
			}
			return nil, false
		},
		view: func(a *state.NetworkACL) api.NetworkAcl {
			out := api.NetworkAcl{IsDefault: new(a.Default), NetworkAclId: new(a.ID), VpcId: new(a.VPC), OwnerId: new(a.Account), Tags: tagsView(a.Tags)}
			for s := range state.Subnets.By(snap, "vpc", a.VPC) {
				out.Associations = append(out.Associations, api.NetworkAclAssociation{NetworkAclAssociationId: new("aclassoc-" + derived(s.ID, 0)), NetworkAclId: new(a.ID), SubnetId: new(s.ID)})
			}
			for _, egress := range []bool{true, false} {
				for _, r := range []struct {
					n      int32
					action api.RuleAction
				}{{100, "allow"}, {32767, "deny"}} {
					out.Entries = append(out.Entries, api.NetworkAclEntry{CidrBlock: new("0.0.0.0/0"), Egress: new(egress), Protocol: new("-1"), RuleAction: r.action, RuleNumber: new(r.n)})
				}
			}
			return out
		},
	})
	return &api.DescribeNetworkAclsOutput{NetworkAcls: out, NextToken: next}, err
}

// DescribeNetworkInterfaces lists interfaces.
func (e *EC2) DescribeNetworkInterfaces(ctx context.Context, in *api.DescribeNetworkInterfacesInput) (*api.DescribeNetworkInterfacesOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	names := func(n *state.NetworkInterface) (out []string) {
		for _, g := range n.Groups {
			if sg, ok := state.SecurityGroups.Get(snap, g); ok {
				out = append(out, sg.Name)
			}
		}
		return out
	}
	out, next, err := list(request{in.NetworkInterfaceIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.NetworkInterface, api.NetworkInterface]{
		name: "enis", rows: mine(state.NetworkInterfaces.All(snap), account, func(n *state.NetworkInterface) string { return n.Account }),
		id: func(n *state.NetworkInterface) string { return n.ID },
		missing: func(id string) error {
			return bad("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id)
		},
		tags: func(n *state.NetworkInterface) []state.Tag { return n.Tags },
		field: func(n *state.NetworkInterface, name string) ([]string, bool) {
			switch name {
			case "network-interface-id":
				return one(n.ID), true
			case "subnet-id":
				return one(n.Subnet), true
			case "vpc-id":
				return one(n.VPC), true
			case "availability-zone":
				return one(n.Zone), true
			case "group-id":
				return n.Groups, true
			case "group-name":
				return names(n), true
			case "private-ip-address", "addresses.private-ip-address":
				return one(n.Address.String()), true
			case "addresses.primary":
				return flag(true), true
			case "association.public-ip", "addresses.association.public-ip":
				if !n.Public.IsValid() {
					return nil, true
				}
				return one(n.Public.String()), true
			case "mac-address":
				return one(n.MAC), true
			case "description":
				return one(n.Description), true
			case "status":
				return one(interfaceStatus(n)), true
			case "attachment.status":
				return one(string(attachmentStatus(n))), true
			case "attachment.attachment-id":
				return one(n.AttachmentID), true
			case "interface-type":
				return one(n.Type), true
			case "owner-id":
				return one(n.Account), true
			case "private-dns-name":
				return one(n.PrivateDNSName), true
			case "requester-managed":
				return flag(n.RequesterManaged), true
			case "source-dest-check":
				return flag(n.SourceDestCheck), true
			}
			return nil, false
		},
		view: func(n *state.NetworkInterface) api.NetworkInterface { return e.networkInterface(snap, n) },
	})
	return &api.DescribeNetworkInterfacesOutput{NetworkInterfaces: out, NextToken: next}, err
}

// An interface is in use from the moment it belongs to a task; it says
// "attached" only once the node has it in its kernel.
func interfaceStatus(n *state.NetworkInterface) string {
	switch {
	case n.Task == "":
		return "available"
	case n.Deleting:
		return "detaching"
	}
	return "in-use"
}

func attachmentStatus(n *state.NetworkInterface) api.AttachmentStatus {
	switch {
	case n.Removed:
		return "detached"
	case n.Deleting:
		return "detaching"
	case n.Attached:
		return "attached"
	}
	return "attaching"
}

// PublicName is the public DNS name of an address (facts: networking).
func PublicName(a netip.Addr, region string) string {
	name := "ec2-" + strings.ReplaceAll(a.String(), ".", "-")
	if region == "us-east-1" {
		return name + ".compute-1.amazonaws.com"
	}
	return name + "." + region + ".compute.amazonaws.com"
}

func (e *EC2) networkInterface(r store.Reader, n *state.NetworkInterface) api.NetworkInterface {
	out := api.NetworkInterface{
		AvailabilityZone: new(n.Zone), AvailabilityZoneId: new(zoneIDs(r)[n.Zone]), Description: new(n.Description),
		InterfaceType: api.NetworkInterfaceType(n.Type), Ipv6Addresses: []api.NetworkInterfaceIpv6Address{},
		MacAddress: new(n.MAC), NetworkInterfaceId: new(n.ID), OwnerId: new(n.Account),
		PrivateDnsName: new(n.PrivateDNSName), PrivateIpAddress: new(n.Address.String()),
		RequesterManaged: new(n.RequesterManaged), SourceDestCheck: new(n.SourceDestCheck),
		Status: api.NetworkInterfaceStatus(interfaceStatus(n)), SubnetId: new(n.Subnet), VpcId: new(n.VPC), TagSet: tagsView(n.Tags),
		Groups: []api.GroupIdentifier{},
	}
	for _, id := range n.Groups {
		g := api.GroupIdentifier{GroupId: new(id)}
		if sg, ok := state.SecurityGroups.Get(r, id); ok {
			g.GroupName = new(sg.Name)
		}
		out.Groups = append(out.Groups, g)
	}
	p := api.NetworkInterfacePrivateIpAddress{Primary: new(true), PrivateDnsName: new(n.PrivateDNSName), PrivateIpAddress: new(n.Address.String())}
	if n.Public.IsValid() {
		out.Association = &api.NetworkInterfaceAssociation{IpOwnerId: new("amazon"), PublicDnsName: new(PublicName(n.Public, e.Region)), PublicIp: new(n.Public.String())}
		p.Association = out.Association
	}
	out.PrivateIpAddresses = []api.NetworkInterfacePrivateIpAddress{p}
	if n.Task != "" {
		out.Attachment = &api.NetworkInterfaceAttachment{AttachmentId: new(n.AttachmentID), DeleteOnTermination: new(false), DeviceIndex: new(int32(1)),
			InstanceOwnerId: new("amazon-aws"), Status: attachmentStatus(n), AttachTime: new(n.CreatedAt)}
	}
	return out
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
