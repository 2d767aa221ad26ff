package ec2

import (
	"context"
	"fmt"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A check is one thing that a call asks permission for.
type check struct {
	kind string // of the resource, as its ARN has it
	id   string // "" is one that the call makes
}

// permit makes the check of an action on a resource that is there, with the
// condition keys that follow from its row.
func (e *EC2) permit(r store.Reader, account, op string, what check) auth.Check {
	id := what.id
	if id == "" {
		id = "*"
	}
	k := auth.Check{Action: "ec2:" + op, Resource: *e.arn(account, what.kind, id), Keys: map[string][]string{"ec2:Region": {e.Region}}}
	if what.id == "" {
		return k
	}
	if res, ok := resourceOf(id); ok && res.look != nil {
		owner, tags, ok := res.look(r, id)
		if !ok {
			return k
		}
		k.Resource = *e.arn(owner, what.kind, id)
		for _, t := range tags {
			k.Keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
			k.Keys["ec2:ResourceTag/"+t.Key] = []string{t.Value}
		}
	}
	set := func(key, value string) { k.Keys["ec2:"+key] = []string{value} }
	vpc := func(owner, id string) string { return *e.arn(owner, "vpc", id) }
	switch what.kind {
	case "network-interface":
		if n, ok := state.NetworkInterfaces.Get(r, id); ok {
			set("NetworkInterfaceID", n.ID)
			set("AvailabilityZone", n.Zone)
			set("Subnet", *e.arn(n.Account, "subnet", n.Subnet))
			set("Vpc", vpc(n.Account, n.VPC))
		}
	case "network-acl":
		if a, ok := state.NetworkACLs.Get(r, id); ok {
			set("NetworkAclID", a.ID)
			set("Vpc", vpc(a.Account, a.VPC))
		}
	case "subnet":
		if s, ok := state.Subnets.Get(r, id); ok {
			set("SubnetID", s.ID)
			if op != "CreateVpcEndpoint" {
				set("AvailabilityZone", s.Zone)
				set("Vpc", vpc(s.Account, s.VPC))
			}
		}
	case "security-group":
		if g, ok := state.SecurityGroups.Get(r, id); ok {
			set("SecurityGroupID", g.ID)
			if op != "CreateVpcEndpoint" {
				set("Vpc", vpc(g.Account, g.VPC))
			}
		}
	case "vpc":
		if v, ok := state.VPCs.Get(r, id); ok {
			set("VpcID", v.ID)
			if op != "CreateVpcEndpoint" {
				set("Tenancy", "default")
			}
		}
	case "vpc-peering-connection":
		if p, ok := state.Peerings.Get(r, id); ok {
			set("VpcPeeringConnectionID", p.ID)
			set("RequesterVpc", vpc(p.Account, p.VPC))
			set("AccepterVpc", vpc(p.PeerAccount, p.PeerVPC))
		}
	case "vpc-endpoint":
		if p, ok := state.Endpoints.Get(r, id); ok && op == "DeleteVpcEndpoints" {
			set("VpceServiceName", p.Service)
		}
	case "instance":
		if i, ok := state.Instances.Get(r, id); ok {
			set("InstanceID", i.ID)
			set("AvailabilityZone", i.Zone)
			set("InstanceType", i.Type)
		}
	}
	return k
}

// making makes the checks of a call that makes a resource: of the action on it
// with the tags of the request, and of tagging it.
func (e *EC2) making(account, op, kind string, specs []api.TagSpecification, keys map[string]string) []auth.Check {
	k := auth.Check{Action: "ec2:" + op, Resource: *e.arn(account, kind, "*"), Keys: requestTags(specs)}
	for name, v := range keys {
		k.Keys["ec2:"+name] = []string{v}
	}
	checks := []auth.Check{k}
	if len(specs) > 0 {
		t := auth.Check{Action: "ec2:CreateTags", Resource: k.Resource, Keys: requestTags(specs)}
		t.Keys["ec2:CreateAction"] = []string{op}
		checks = append(checks, t)
	}
	return checks
}

// these are the resources of a kind with some ids.
func these(kind string, ids ...string) (out []check) {
	for _, id := range ids {
		out = append(out, check{kind, id})
	}
	return out
}

// given is an id that may be absent.
func given(kind string, id *string) []check {
	if wire.Value(id) == "" {
		return nil
	}
	return these(kind, *id)
}

func checksOn[I any](e *EC2, m map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check, op string, of func(r store.Reader, account string, in *I) []check) {
	m[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) (checks []auth.Check) {
		x, ok := in.(*I)
		if !ok {
			panic(fmt.Sprintf("ec2: %s does not take a %T", op, in)) // a mistake in the table below
		}
		for _, k := range of(r, c.Account, x) {
			checks = append(checks, e.permit(r, c.Account, op, k))
		}
		if len(checks) == 0 {
			checks = []auth.Check{{Action: "ec2:" + op, Resource: "*"}}
		}
		return checks
	}
}

func checksOfMaking[I any](e *EC2, m map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check, op, kind string, specs func(*I) []api.TagSpecification, of func(r store.Reader, account string, in *I) ([]check, map[string]string)) {
	m[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x, ok := in.(*I)
		if !ok {
			panic(fmt.Sprintf("ec2: %s does not take a %T", op, in))
		}
		more, keys := of(r, c.Account, x)
		checks := e.making(c.Account, op, kind, specs(x), keys)
		for _, k := range more {
			checks = append(checks, e.permit(r, c.Account, op, k))
		}
		return checks
	}
}

// authorizeInterfaces says on what the calls about interfaces, ACLs, rules,
// peering, endpoints, prefix lists and flow logs are authorized.
func (e *EC2) authorizeInterfaces(m map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check) {
	type none = map[string]string
	const eni, acl, sg, pcx, pl, endpoint, flow = "network-interface", "network-acl", "security-group", "vpc-peering-connection", "prefix-list", "vpc-endpoint", "vpc-flow-log"

	checksOfMaking(e, m, "CreateNetworkInterface", eni, func(in *api.CreateNetworkInterfaceInput) []api.TagSpecification { return in.TagSpecifications },
		func(_ store.Reader, _ string, in *api.CreateNetworkInterfaceInput) ([]check, none) {
			return append(these("subnet", *in.SubnetId), these(sg, in.Groups...)...), nil
		})
	checksOn(e, m, "DeleteNetworkInterface", func(_ store.Reader, _ string, in *api.DeleteNetworkInterfaceInput) []check {
		return these(eni, *in.NetworkInterfaceId)
	})
	checksOn(e, m, "AttachNetworkInterface", func(_ store.Reader, _ string, in *api.AttachNetworkInterfaceInput) []check {
		return append(these(eni, *in.NetworkInterfaceId), these("instance", *in.InstanceId)...)
	})
	checksOn(e, m, "DetachNetworkInterface", func(r store.Reader, account string, in *api.DetachNetworkInterfaceInput) []check {
		n, err := attachmentOf(r, account, *in.AttachmentId)
		if err != nil {
			return these(eni, "")
		}
		out := these(eni, n.ID)
		if n.Attachment != nil {
			out = append(out, these("instance", n.Attachment.Instance)...)
		}
		return out
	})
	checksOn(e, m, "ModifyNetworkInterfaceAttribute", func(_ store.Reader, _ string, in *api.ModifyNetworkInterfaceAttributeInput) []check {
		return append(these(eni, *in.NetworkInterfaceId), these(sg, in.Groups...)...)
	})
	checksOn(e, m, "ResetNetworkInterfaceAttribute", func(_ store.Reader, _ string, in *api.ResetNetworkInterfaceAttributeInput) []check {
		return these(eni, *in.NetworkInterfaceId)
	})
	checksOn(e, m, "AssignPrivateIpAddresses", func(_ store.Reader, _ string, in *api.AssignPrivateIpAddressesInput) []check {
		return these(eni, *in.NetworkInterfaceId)
	})
	checksOn(e, m, "UnassignPrivateIpAddresses", func(_ store.Reader, _ string, in *api.UnassignPrivateIpAddressesInput) []check {
		return these(eni, *in.NetworkInterfaceId)
	})
	checksOn(e, m, "AssignIpv6Addresses", func(_ store.Reader, _ string, in *api.AssignIpv6AddressesInput) []check {
		return these(eni, *in.NetworkInterfaceId)
	})
	checksOn(e, m, "UnassignIpv6Addresses", func(_ store.Reader, _ string, in *api.UnassignIpv6AddressesInput) []check {
		return these(eni, *in.NetworkInterfaceId)
	})

	checksOfMaking(e, m, "CreateNetworkAcl", acl, func(in *api.CreateNetworkAclInput) []api.TagSpecification { return in.TagSpecifications },
		func(_ store.Reader, _ string, in *api.CreateNetworkAclInput) ([]check, none) {
			return these("vpc", *in.VpcId), nil
		})
	checksOn(e, m, "DeleteNetworkAcl", func(_ store.Reader, _ string, in *api.DeleteNetworkAclInput) []check {
		return these(acl, *in.NetworkAclId)
	})
	checksOn(e, m, "CreateNetworkAclEntry", func(_ store.Reader, _ string, in *api.CreateNetworkAclEntryInput) []check {
		return these(acl, *in.NetworkAclId)
	})
	checksOn(e, m, "ReplaceNetworkAclEntry", func(_ store.Reader, _ string, in *api.ReplaceNetworkAclEntryInput) []check {
		return these(acl, *in.NetworkAclId)
	})
	checksOn(e, m, "DeleteNetworkAclEntry", func(_ store.Reader, _ string, in *api.DeleteNetworkAclEntryInput) []check {
		return these(acl, *in.NetworkAclId)
	})
	checksOn(e, m, "ReplaceNetworkAclAssociation", func(r store.Reader, account string, in *api.ReplaceNetworkAclAssociationInput) []check {
		subnet := ""
		for s := range state.Subnets.All(r) {
			if s.Account == account && aclAssociation(s) == *in.AssociationId {
				subnet = s.ID
			}
		}
		return append(these(acl, *in.NetworkAclId), these("subnet", subnet)...)
	})

	checksOn(e, m, "ModifySecurityGroupRules", func(_ store.Reader, _ string, in *api.ModifySecurityGroupRulesInput) []check {
		out := these(sg, *in.GroupId)
		for _, u := range in.SecurityGroupRules {
			out = append(out, these("security-group-rule", wire.Value(u.SecurityGroupRuleId))...)
			if u.SecurityGroupRule != nil {
				out = append(out, given(pl, u.SecurityGroupRule.PrefixListId)...)
			}
		}
		return out
	})
	named := func(r store.Reader, account string, id, name *string) []check {
		if g, err := group(r, account, id, name); err == nil {
			return these(sg, g.ID)
		}
		return these(sg, wire.Value(id))
	}
	checksOn(e, m, "UpdateSecurityGroupRuleDescriptionsIngress", func(r store.Reader, account string, in *api.UpdateSecurityGroupRuleDescriptionsIngressInput) []check {
		return named(r, account, in.GroupId, in.GroupName)
	})
	checksOn(e, m, "UpdateSecurityGroupRuleDescriptionsEgress", func(r store.Reader, account string, in *api.UpdateSecurityGroupRuleDescriptionsEgressInput) []check {
		return named(r, account, in.GroupId, in.GroupName)
	})
	checksOn(e, m, "DescribeSecurityGroupReferences", func(_ store.Reader, _ string, in *api.DescribeSecurityGroupReferencesInput) []check {
		return these(sg, in.GroupId...)
	})
	checksOn(e, m, "GetSecurityGroupsForVpc", func(_ store.Reader, _ string, in *api.GetSecurityGroupsForVpcInput) []check {
		return these("vpc", *in.VpcId)
	})
	checksOn(e, m, "AssociateSecurityGroupVpc", func(_ store.Reader, _ string, in *api.AssociateSecurityGroupVpcInput) []check {
		return append(these(sg, *in.GroupId), these("vpc", *in.VpcId)...)
	})
	checksOn(e, m, "DisassociateSecurityGroupVpc", func(_ store.Reader, _ string, in *api.DisassociateSecurityGroupVpcInput) []check {
		return append(these(sg, *in.GroupId), these("vpc", *in.VpcId)...)
	})

	checksOfMaking(e, m, "CreateVpcPeeringConnection", pcx, func(in *api.CreateVpcPeeringConnectionInput) []api.TagSpecification { return in.TagSpecifications },
		func(_ store.Reader, account string, in *api.CreateVpcPeeringConnectionInput) ([]check, none) {
			peer := wire.Value(in.PeerOwnerId)
			if peer == "" {
				peer = account
			}
			return these("vpc", *in.VpcId), none{"RequesterVpc": *e.arn(account, "vpc", *in.VpcId), "AccepterVpc": *e.arn(peer, "vpc", wire.Value(in.PeerVpcId))}
		})
	checksOn(e, m, "AcceptVpcPeeringConnection", func(r store.Reader, _ string, in *api.AcceptVpcPeeringConnectionInput) []check {
		out := these(pcx, *in.VpcPeeringConnectionId)
		if p, ok := state.Peerings.Get(r, *in.VpcPeeringConnectionId); ok {
			out = append(out, these("vpc", p.PeerVPC)...)
		}
		return out
	})
	checksOn(e, m, "RejectVpcPeeringConnection", func(_ store.Reader, _ string, in *api.RejectVpcPeeringConnectionInput) []check {
		return these(pcx, *in.VpcPeeringConnectionId)
	})
	checksOn(e, m, "DeleteVpcPeeringConnection", func(_ store.Reader, _ string, in *api.DeleteVpcPeeringConnectionInput) []check {
		return these(pcx, *in.VpcPeeringConnectionId)
	})
	checksOn(e, m, "ModifyVpcPeeringConnectionOptions", func(_ store.Reader, _ string, in *api.ModifyVpcPeeringConnectionOptionsInput) []check {
		return these(pcx, *in.VpcPeeringConnectionId)
	})

	checksOfMaking(e, m, "CreateManagedPrefixList", pl, func(in *api.CreateManagedPrefixListInput) []api.TagSpecification { return in.TagSpecifications },
		func(store.Reader, string, *api.CreateManagedPrefixListInput) ([]check, none) { return nil, nil })
	checksOn(e, m, "ModifyManagedPrefixList", func(_ store.Reader, _ string, in *api.ModifyManagedPrefixListInput) []check {
		return these(pl, *in.PrefixListId)
	})
	checksOn(e, m, "RestoreManagedPrefixListVersion", func(_ store.Reader, _ string, in *api.RestoreManagedPrefixListVersionInput) []check {
		return these(pl, *in.PrefixListId)
	})
	checksOn(e, m, "DeleteManagedPrefixList", func(_ store.Reader, _ string, in *api.DeleteManagedPrefixListInput) []check {
		return these(pl, *in.PrefixListId)
	})
	checksOn(e, m, "GetManagedPrefixListAssociations", func(_ store.Reader, _ string, in *api.GetManagedPrefixListAssociationsInput) []check {
		return these(pl, *in.PrefixListId)
	})
	checksOn(e, m, "GetManagedPrefixListEntries", func(_ store.Reader, _ string, in *api.GetManagedPrefixListEntriesInput) []check {
		return these(pl, *in.PrefixListId)
	})

	checksOfMaking(e, m, "CreateVpcEndpoint", endpoint, func(in *api.CreateVpcEndpointInput) []api.TagSpecification { return in.TagSpecifications },
		func(_ store.Reader, _ string, in *api.CreateVpcEndpointInput) ([]check, none) {
			out := these("vpc", *in.VpcId)
			out = append(out, these("subnet", in.SubnetIds...)...)
			out = append(out, these(sg, in.SecurityGroupIds...)...)
			return append(out, these("route-table", in.RouteTableIds...)...), none{"VpceServiceName": wire.Value(in.ServiceName)}
		})
	checksOn(e, m, "ModifyVpcEndpoint", func(_ store.Reader, _ string, in *api.ModifyVpcEndpointInput) []check {
		out := these(endpoint, *in.VpcEndpointId)
		out = append(out, these("subnet", in.AddSubnetIds...)...)
		return append(out, these(sg, in.AddSecurityGroupIds...)...)
	})
	checksOn(e, m, "DeleteVpcEndpoints", func(_ store.Reader, _ string, in *api.DeleteVpcEndpointsInput) []check {
		return these(endpoint, in.VpcEndpointIds...)
	})

	checksOfMaking(e, m, "CreateFlowLogs", flow, func(in *api.CreateFlowLogsInput) []api.TagSpecification { return in.TagSpecifications },
		func(_ store.Reader, _ string, in *api.CreateFlowLogsInput) (out []check, _ none) {
			for _, id := range in.ResourceIds {
				if kind := map[string]string{"VPC": "vpc", "Subnet": "subnet", "NetworkInterface": eni}[string(in.ResourceType)]; kind != "" {
					out = append(out, these(kind, id)...)
				}
			}
			return out, nil
		})
	made := m["CreateFlowLogs"]
	m["CreateFlowLogs"] = func(ctx context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		checks := made(ctx, r, c, in)
		if role := wire.Value(in.(*api.CreateFlowLogsInput).DeliverLogsPermissionArn); role != "" {
			checks = append(checks, auth.Check{Action: "iam:PassRole", Resource: role, Keys: map[string][]string{"iam:PassedToService": {FlowLogsService}}})
		}
		return checks
	}
	checksOn(e, m, "DeleteFlowLogs", func(_ store.Reader, _ string, in *api.DeleteFlowLogsInput) []check {
		return these(flow, in.FlowLogIds...)
	})
}
