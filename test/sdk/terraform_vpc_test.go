package sdk

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// machineTags are tags that are not sorted, as a request sends them.
func machineTags(kind types.ResourceType) []types.TagSpecification {
	return []types.TagSpecification{{ResourceType: kind, Tags: []types.Tag{{Key: new("zone"), Value: new("b")}, {Key: new("app"), Value: new("a")}}}}
}

func TestTerraformVPC(t *testing.T) {
	t.Parallel()
	c, ctx := w.ec2, t.Context()
	made := must[*ec2.CreateVpcOutput](t)(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: new("10.60.0.0/16"), TagSpecifications: machineTags(types.ResourceTypeVpc)})).Vpc
	id := *made.VpcId
	r := resource{func() (any, error) {
		out, err := c.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{id}})
		if err != nil {
			return nil, err
		}
		return out.Vpcs[0], nil
	}, "InvalidVpcID.NotFound"}
	tags := machineTags(types.ResourceTypeVpc)[0].Tags
	open := &types.BlockPublicAccessStates{InternetGatewayBlockMode: types.BlockPublicAccessModeOff}
	r.same(t, types.Vpc{VpcId: &id, CidrBlock: new("10.60.0.0/16"), DhcpOptionsId: made.DhcpOptionsId, InstanceTenancy: types.TenancyDefault, IsDefault: new(false), OwnerId: &w.Account, State: types.VpcStateAvailable, Tags: tags,
		BlockPublicAccessStates: open,
		CidrBlockAssociationSet: []types.VpcCidrBlockAssociation{{AssociationId: made.CidrBlockAssociationSet[0].AssociationId, CidrBlock: new("10.60.0.0/16"), CidrBlockState: &types.VpcCidrBlockState{State: types.VpcCidrBlockStateCodeAssociated}}}})
	attribute := func(name types.VpcAttributeName) resource {
		return resource{read: func() (any, error) {
			out, err := c.DescribeVpcAttribute(ctx, &ec2.DescribeVpcAttributeInput{VpcId: &id, Attribute: name})
			if err != nil {
				return nil, err
			}
			for _, v := range []*types.AttributeBooleanValue{out.EnableDnsSupport, out.EnableDnsHostnames, out.EnableNetworkAddressUsageMetrics} {
				if v != nil {
					return v.Value, nil
				}
			}
			return nil, fmt.Errorf("no %s", name)
		}}
	}
	attribute(types.VpcAttributeNameEnableDnsSupport).same(t, true)
	attribute(types.VpcAttributeNameEnableDnsHostnames).same(t, false)
	attribute(types.VpcAttributeNameEnableNetworkAddressUsageMetrics).same(t, false)
	done(t)(c.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: &id, EnableDnsHostnames: &types.AttributeBooleanValue{Value: new(true)}}))
	attribute(types.VpcAttributeNameEnableDnsHostnames).same(t, true)

	// aws_subnet
	subnet := must[*ec2.CreateSubnetOutput](t)(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &id, CidrBlock: new("10.60.1.0/24"), AvailabilityZone: new("us-east-1b"), TagSpecifications: machineTags(types.ResourceTypeSubnet)})).Subnet
	s := resource{func() (any, error) {
		out, err := c.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: []string{*subnet.SubnetId}})
		if err != nil {
			return nil, err
		}
		return out.Subnets[0], nil
	}, "InvalidSubnetID.NotFound"}
	want := types.Subnet{SubnetId: subnet.SubnetId, SubnetArn: new("arn:aws:ec2:us-east-1:" + w.Account + ":subnet/" + *subnet.SubnetId), VpcId: &id, OwnerId: &w.Account, CidrBlock: new("10.60.1.0/24"),
		AvailabilityZone: new("us-east-1b"), AvailabilityZoneId: subnet.AvailabilityZoneId, AvailableIpAddressCount: new(int32(251)), State: types.SubnetStateAvailable, Tags: tags,
		AssignIpv6AddressOnCreation: new(false), DefaultForAz: new(false), EnableDns64: new(false), Ipv6Native: new(false), MapCustomerOwnedIpOnLaunch: new(false), MapPublicIpOnLaunch: new(false),
		BlockPublicAccessStates: open, Ipv6CidrBlockAssociationSet: []types.SubnetIpv6CidrBlockAssociation{},
		PrivateDnsNameOptionsOnLaunch: &types.PrivateDnsNameOptionsOnLaunch{HostnameType: types.HostnameTypeIpName, EnableResourceNameDnsARecord: new(false), EnableResourceNameDnsAAAARecord: new(false)}}
	s.same(t, want)
	done(t)(c.ModifySubnetAttribute(ctx, &ec2.ModifySubnetAttributeInput{SubnetId: subnet.SubnetId, MapPublicIpOnLaunch: &types.AttributeBooleanValue{Value: new(true)}}))
	want.MapPublicIpOnLaunch = new(true)
	s.same(t, want)

	// aws_network_acl
	acl := must[*ec2.CreateNetworkAclOutput](t)(c.CreateNetworkAcl(ctx, &ec2.CreateNetworkAclInput{VpcId: &id, TagSpecifications: machineTags(types.ResourceTypeNetworkAcl)})).NetworkAcl
	a := resource{func() (any, error) {
		out, err := c.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{NetworkAclIds: []string{*acl.NetworkAclId}})
		if err != nil {
			return nil, err
		}
		return out.NetworkAcls[0], nil
	}, "InvalidNetworkAclID.NotFound"}
	done(t)(c.CreateNetworkAclEntry(ctx, &ec2.CreateNetworkAclEntryInput{NetworkAclId: acl.NetworkAclId, RuleNumber: new(int32(200)), Protocol: new("6"), RuleAction: types.RuleActionAllow, Egress: new(false),
		CidrBlock: new("10.0.0.0/8"), PortRange: &types.PortRange{From: new(int32(80)), To: new(int32(81))}}))
	deny := func(egress bool) types.NetworkAclEntry {
		return types.NetworkAclEntry{RuleNumber: new(int32(32767)), Protocol: new("-1"), RuleAction: types.RuleActionDeny, Egress: &egress, CidrBlock: new("0.0.0.0/0")}
	}
	a.same(t, types.NetworkAcl{NetworkAclId: acl.NetworkAclId, VpcId: &id, OwnerId: &w.Account, IsDefault: new(false), Tags: tags, Associations: []types.NetworkAclAssociation{},
		Entries: []types.NetworkAclEntry{deny(true), {RuleNumber: new(int32(200)), Protocol: new("6"), RuleAction: types.RuleActionAllow, Egress: new(false),
			CidrBlock: new("10.0.0.0/8"), PortRange: &types.PortRange{From: new(int32(80)), To: new(int32(81))}}, deny(false)}})
	done(t)(c.DeleteNetworkAcl(ctx, &ec2.DeleteNetworkAclInput{NetworkAclId: acl.NetworkAclId}))
	a.isGone(t)

	// aws_network_interface
	eni := must[*ec2.CreateNetworkInterfaceOutput](t)(c.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: subnet.SubnetId, PrivateIpAddress: new("10.60.1.10"), Description: new("tf"),
		TagSpecifications: machineTags(types.ResourceTypeNetworkInterface)})).NetworkInterface
	n := resource{func() (any, error) {
		out, err := c.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{*eni.NetworkInterfaceId}})
		if err != nil {
			return nil, err
		}
		return out.NetworkInterfaces[0], nil
	}, "InvalidNetworkInterfaceID.NotFound"}
	name := new("ip-10-60-1-10.ec2.internal")
	n.same(t, types.NetworkInterface{NetworkInterfaceId: eni.NetworkInterfaceId, SubnetId: subnet.SubnetId, VpcId: &id, OwnerId: &w.Account, AvailabilityZone: new("us-east-1b"), AvailabilityZoneId: subnet.AvailabilityZoneId,
		Description: new("tf"), InterfaceType: types.NetworkInterfaceTypeInterface, MacAddress: eni.MacAddress, PrivateDnsName: name, PrivateIpAddress: new("10.60.1.10"), RequesterManaged: new(false), SourceDestCheck: new(true),
		Status: types.NetworkInterfaceStatusAvailable, TagSet: tags, Groups: eni.Groups, Ipv6Addresses: []types.NetworkInterfaceIpv6Address{}, Operator: &types.OperatorResponse{Managed: new(false)},
		PrivateIpAddresses: []types.NetworkInterfacePrivateIpAddress{{Primary: new(true), PrivateDnsName: name, PrivateIpAddress: new("10.60.1.10")}}})
	if len(eni.Groups) != 1 || *eni.Groups[0].GroupName != "default" {
		t.Errorf("it has the groups %s", encode(t, eni.Groups))
	}
	done(t)(c.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: eni.NetworkInterfaceId}))
	n.isGone(t)

	done(t)(c.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: subnet.SubnetId}))
	s.isGone(t)
	done(t)(c.DeleteVpc(ctx, &ec2.DeleteVpcInput{VpcId: &id}))
	r.isGone(t)
}

func TestTerraformSecurityGroup(t *testing.T) {
	t.Parallel()
	c, ctx := w.ec2, t.Context()
	id := must[*ec2.CreateSecurityGroupOutput](t)(c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{VpcId: &w.vpc, GroupName: new("tf"), Description: new("by hand"), TagSpecifications: machineTags(types.ResourceTypeSecurityGroup)})).GroupId
	r := resource{func() (any, error) {
		out, err := c.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{*id}})
		if err != nil {
			return nil, err
		}
		return out.SecurityGroups[0], nil
	}, "InvalidGroup.NotFound"}
	everything := types.IpPermission{IpProtocol: new("-1"), IpRanges: []types.IpRange{{CidrIp: new("0.0.0.0/0")}}, Ipv6Ranges: []types.Ipv6Range{}, PrefixListIds: []types.PrefixListId{}, UserIdGroupPairs: []types.UserIdGroupPair{}}
	want := types.SecurityGroup{GroupId: id, GroupName: new("tf"), Description: new("by hand"), OwnerId: &w.Account, VpcId: &w.vpc, Tags: machineTags("")[0].Tags,
		SecurityGroupArn: new("arn:aws:ec2:us-east-1:" + w.Account + ":security-group/" + *id), IpPermissions: []types.IpPermission{}, IpPermissionsEgress: []types.IpPermission{everything}}
	r.same(t, want)
	// The provider takes the rule away that AWS gives.
	done(t)(c.RevokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: id, IpPermissions: []types.IpPermission{{IpProtocol: new("-1"), IpRanges: everything.IpRanges}}}))
	want.IpPermissionsEgress = []types.IpPermission{}

	// aws_vpc_security_group_ingress_rule
	rule := must[*ec2.AuthorizeSecurityGroupIngressOutput](t)(c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: id, TagSpecifications: machineTags(types.ResourceTypeSecurityGroupRule),
		IpPermissions: []types.IpPermission{{IpProtocol: new("tcp"), FromPort: new(int32(443)), ToPort: new(int32(443)), IpRanges: []types.IpRange{{CidrIp: new("10.0.0.0/8"), Description: new("inside")}}}}})).SecurityGroupRules[0].SecurityGroupRuleId
	one := resource{func() (any, error) {
		out, err := c.DescribeSecurityGroupRules(ctx, &ec2.DescribeSecurityGroupRulesInput{SecurityGroupRuleIds: []string{*rule}})
		if err != nil {
			return nil, err
		}
		return out.SecurityGroupRules[0], nil
	}, "InvalidSecurityGroupRuleId.NotFound"}
	one.same(t, types.SecurityGroupRule{SecurityGroupRuleId: rule, GroupId: id, GroupOwnerId: &w.Account, IsEgress: new(false), IpProtocol: new("tcp"), FromPort: new(int32(443)), ToPort: new(int32(443)),
		CidrIpv4: new("10.0.0.0/8"), Description: new("inside"), Tags: machineTags("")[0].Tags, SecurityGroupRuleArn: new("arn:aws:ec2:us-east-1:" + w.Account + ":security-group-rule/" + *rule)})
	want.IpPermissions = []types.IpPermission{{IpProtocol: new("tcp"), FromPort: new(int32(443)), ToPort: new(int32(443)), IpRanges: []types.IpRange{{CidrIp: new("10.0.0.0/8"), Description: new("inside")}},
		Ipv6Ranges: []types.Ipv6Range{}, PrefixListIds: []types.PrefixListId{}, UserIdGroupPairs: []types.UserIdGroupPair{}}}
	r.same(t, want)
	done(t)(c.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: id, SecurityGroupRuleIds: []string{*rule}}))
	one.isGone(t)
	done(t)(c.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: id}))
	r.isGone(t)
}
