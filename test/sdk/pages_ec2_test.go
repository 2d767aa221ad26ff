package sdk

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// Most EC2 pages have five items or more; three pages are eleven.
func TestEC2Paginators(t *testing.T) {
	t.Parallel()
	vpcs, networks := networkPages(t)
	paginate(t, "ec2", slices.Concat(networks, groupPages(t, vpcs), machinePages(t), []listing{
		pages(w.ec2, ec2.NewDescribeSubnetsPaginator, &ec2.DescribeSubnetsInput{}, 5, "Subnets.SubnetId", w.subnets).few(1),
	}))
}

// networkPages makes VPCs, and of what can be in a VPC one in each.
func networkPages(t *testing.T) (vpcs []string, _ []listing) {
	t.Helper()
	c, ctx := w.ec2, t.Context()
	var tables, acls, gateways, egress, options, interfaces, addresses, peerings []string
	for i := range 11 {
		v := must[*ec2.CreateVpcOutput](t)(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: new(fmt.Sprintf("10.%d.0.0/16", 100+i))})).Vpc.VpcId
		vpcs = append(vpcs, *v)
		tables = append(tables, *must[*ec2.CreateRouteTableOutput](t)(c.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: v})).RouteTable.RouteTableId)
		acls = append(acls, *must[*ec2.CreateNetworkAclOutput](t)(c.CreateNetworkAcl(ctx, &ec2.CreateNetworkAclInput{VpcId: v})).NetworkAcl.NetworkAclId)
		gateways = append(gateways, *must[*ec2.CreateInternetGatewayOutput](t)(c.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{})).InternetGateway.InternetGatewayId)
		egress = append(egress, *must[*ec2.CreateEgressOnlyInternetGatewayOutput](t)(c.CreateEgressOnlyInternetGateway(ctx, &ec2.CreateEgressOnlyInternetGatewayInput{VpcId: v})).EgressOnlyInternetGateway.EgressOnlyInternetGatewayId)
		options = append(options, *must[*ec2.CreateDhcpOptionsOutput](t)(c.CreateDhcpOptions(ctx, &ec2.CreateDhcpOptionsInput{DhcpConfigurations: []types.NewDhcpConfiguration{
			{Key: new("domain-name"), Values: []string{fmt.Sprintf("paged-%d.internal", i)}}}})).DhcpOptions.DhcpOptionsId)
		interfaces = append(interfaces, *must[*ec2.CreateNetworkInterfaceOutput](t)(c.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &w.subnets[0]})).NetworkInterface.NetworkInterfaceId)
		addresses = append(addresses, *must[*ec2.AllocateAddressOutput](t)(c.AllocateAddress(ctx, &ec2.AllocateAddressInput{})).AllocationId)
		peerings = append(peerings, *must[*ec2.CreateVpcPeeringConnectionOutput](t)(c.CreateVpcPeeringConnection(ctx, &ec2.CreateVpcPeeringConnectionInput{VpcId: &w.vpc, PeerVpcId: v})).VpcPeeringConnection.VpcPeeringConnectionId)
	}
	done(t)(c.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: &vpcs[0], EnableDnsHostnames: &types.AttributeBooleanValue{Value: new(true)}}))
	subnet := must[*ec2.CreateSubnetOutput](t)(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &vpcs[0], CidrBlock: new("10.100.0.0/20")})).Subnet.SubnetId
	var nats []string
	for range 11 {
		nats = append(nats, *must[*ec2.CreateNatGatewayOutput](t)(c.CreateNatGateway(ctx, &ec2.CreateNatGatewayInput{SubnetId: subnet, ConnectivityType: types.ConnectivityTypePrivate})).NatGateway.NatGatewayId)
	}
	var endpoints []string
	for _, name := range []string{"ecs", "ecr.api", "logs", "sts", "ec2"} {
		endpoints = append(endpoints, *must[*ec2.CreateVpcEndpointOutput](t)(c.CreateVpcEndpoint(ctx, &ec2.CreateVpcEndpointInput{VpcId: &vpcs[0], VpcEndpointType: types.VpcEndpointTypeInterface,
			ServiceName: new("com.amazonaws.us-east-1." + name), SubnetIds: []string{*subnet}})).VpcEndpoint.VpcEndpointId)
	}
	made := must[*ec2.CreateFlowLogsOutput](t)(c.CreateFlowLogs(ctx, &ec2.CreateFlowLogsInput{ResourceType: types.FlowLogsResourceTypeVpc, ResourceIds: vpcs, TrafficType: types.TrafficTypeAll,
		LogGroupName: new("/paged/flows"), DeliverLogsPermissionArn: new(role(t, "paged-flows", "vpc-flow-logs.amazonaws.com"))}))
	if len(made.Unsuccessful) > 0 {
		t.Fatal(encode(t, made.Unsuccessful))
	}

	return vpcs, []listing{
		pages(c, ec2.NewDescribeVpcsPaginator, &ec2.DescribeVpcsInput{}, 5, "Vpcs.VpcId", vpcs),
		pages(c, ec2.NewDescribeRouteTablesPaginator, &ec2.DescribeRouteTablesInput{}, 5, "RouteTables.RouteTableId", tables),
		pages(c, ec2.NewDescribeNetworkAclsPaginator, &ec2.DescribeNetworkAclsInput{}, 5, "NetworkAcls.NetworkAclId", acls),
		pages(c, ec2.NewDescribeInternetGatewaysPaginator, &ec2.DescribeInternetGatewaysInput{}, 5, "InternetGateways.InternetGatewayId", gateways),
		pages(c, ec2.NewDescribeEgressOnlyInternetGatewaysPaginator, &ec2.DescribeEgressOnlyInternetGatewaysInput{}, 5, "EgressOnlyInternetGateways.EgressOnlyInternetGatewayId", egress),
		pages(c, ec2.NewDescribeDhcpOptionsPaginator, &ec2.DescribeDhcpOptionsInput{}, 5, "DhcpOptions.DhcpOptionsId", options),
		pages(c, ec2.NewDescribeNetworkInterfacesPaginator, &ec2.DescribeNetworkInterfacesInput{}, 5, "NetworkInterfaces.NetworkInterfaceId", interfaces),
		pages(c, ec2.NewDescribeAddressesAttributePaginator, &ec2.DescribeAddressesAttributeInput{Attribute: types.AddressAttributeNameDomainName}, 5, "Addresses.AllocationId", addresses),
		pages(c, ec2.NewDescribeVpcPeeringConnectionsPaginator, &ec2.DescribeVpcPeeringConnectionsInput{}, 5, "VpcPeeringConnections.VpcPeeringConnectionId", peerings),
		pages(c, ec2.NewDescribeNatGatewaysPaginator, &ec2.DescribeNatGatewaysInput{}, 5, "NatGateways.NatGatewayId", nats),
		pages(c, ec2.NewDescribeVpcEndpointsPaginator, &ec2.DescribeVpcEndpointsInput{}, 2, "VpcEndpoints.VpcEndpointId", endpoints),
		pages(c, ec2.NewDescribeFlowLogsPaginator, &ec2.DescribeFlowLogsInput{}, 5, "FlowLogs.FlowLogId", made.FlowLogIds),
		// No VPC has ClassicLink, and all are listed.
		pages(c, ec2.NewDescribeVpcClassicLinkDnsSupportPaginator, &ec2.DescribeVpcClassicLinkDnsSupportInput{}, 5, "Vpcs.VpcId", vpcs),

		// Nobody can offer a service of his own, to which others would connect.
		pages(c, ec2.NewDescribeVpcEndpointConnectionsPaginator, &ec2.DescribeVpcEndpointConnectionsInput{}, 5, "VpcEndpointConnections.VpcEndpointId", nil).empty(),
		// All IPv6 blocks are Amazon's.
		pages(c, ec2.NewDescribeIpv6PoolsPaginator, &ec2.DescribeIpv6PoolsInput{}, 5, "Ipv6Pools.PoolId", nil).empty(),
		// Those are the lists of S3 and DynamoDB, which are not services of the region.
		pages(c, ec2.NewDescribePrefixListsPaginator, &ec2.DescribePrefixListsInput{}, 5, "PrefixLists.PrefixListId", nil).empty(),
		// AssociateSecurityGroupVpc is refused.
		pages(c, ec2.NewDescribeSecurityGroupVpcAssociationsPaginator, &ec2.DescribeSecurityGroupVpcAssociationsInput{}, 5, "SecurityGroupVpcAssociations.GroupId", nil).empty(),
	}
}

// groupPages makes security groups in one of two VPCs, and rules of all kinds.
func groupPages(t *testing.T, vpcs []string) []listing {
	t.Helper()
	c, ctx := w.ec2, t.Context()
	var lists, groups, rules, keys, cidrs []string
	var entries []types.AddPrefixListEntry
	for i := range 5 {
		cidrs = append(cidrs, fmt.Sprintf("192.168.%d.0/24", 50*i))
		entries = append(entries, types.AddPrefixListEntry{Cidr: &cidrs[i]})
	}
	for _, name := range five("paged") {
		lists = append(lists, *must[*ec2.CreateManagedPrefixListOutput](t)(c.CreateManagedPrefixList(ctx, &ec2.CreateManagedPrefixListInput{PrefixListName: &name, AddressFamily: new("IPv4"), MaxEntries: new(int32(5)), Entries: entries})).PrefixList.PrefixListId)
	}
	peering := must[*ec2.CreateVpcPeeringConnectionOutput](t)(c.CreateVpcPeeringConnection(ctx, &ec2.CreateVpcPeeringConnectionInput{VpcId: &vpcs[0], PeerVpcId: &vpcs[1]})).VpcPeeringConnection.VpcPeeringConnectionId
	done(t)(c.AcceptVpcPeeringConnection(ctx, &ec2.AcceptVpcPeeringConnectionInput{VpcPeeringConnectionId: peering}))
	other := must[*ec2.CreateSecurityGroupOutput](t)(c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{VpcId: &vpcs[1], GroupName: new("other"), Description: new("other")})).GroupId
	for i, name := range names(11, "paged") {
		g := must[*ec2.CreateSecurityGroupOutput](t)(c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{VpcId: &vpcs[0], GroupName: &name, Description: new("paged")}))
		groups = append(groups, *g.GroupId)
		port := new(int32(i))
		r := must[*ec2.AuthorizeSecurityGroupIngressOutput](t)(c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &groups[0], IpPermissions: []types.IpPermission{
			{IpProtocol: new("tcp"), FromPort: port, ToPort: port, IpRanges: []types.IpRange{{CidrIp: new("10.0.0.0/8")}}}}}))
		rules = append(rules, *r.SecurityGroupRules[0].SecurityGroupRuleId)
		done(t)(c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: g.GroupId, IpPermissions: []types.IpPermission{
			{IpProtocol: new("udp"), FromPort: port, ToPort: port, PrefixListIds: []types.PrefixListId{{PrefixListId: &lists[0]}}},
			{IpProtocol: new("udp"), FromPort: port, ToPort: port, UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: other}}}}}))
		keys = append(keys, fmt.Sprint("key-", i))
		done(t)(c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: groups[:1], Tags: []types.Tag{{Key: &keys[i], Value: new("v")}}}))
	}
	// A rule is stale once the VPCs of both groups are not joined any more.
	done(t)(c.DeleteVpcPeeringConnection(ctx, &ec2.DeleteVpcPeeringConnectionInput{VpcPeeringConnectionId: peering}))
	only := func(name string) []types.Filter { return []types.Filter{{Name: &name, Values: groups[:1]}} }
	return []listing{
		pages(c, ec2.NewDescribeSecurityGroupsPaginator, &ec2.DescribeSecurityGroupsInput{}, 5, "SecurityGroups.GroupId", groups),
		pages(c, ec2.NewGetSecurityGroupsForVpcPaginator, &ec2.GetSecurityGroupsForVpcInput{VpcId: &vpcs[0]}, 5, "SecurityGroupForVpcs.GroupId", groups),
		pages(c, ec2.NewDescribeStaleSecurityGroupsPaginator, &ec2.DescribeStaleSecurityGroupsInput{VpcId: &vpcs[0]}, 5, "StaleSecurityGroupSet.GroupId", groups),
		pages(c, ec2.NewDescribeSecurityGroupRulesPaginator, &ec2.DescribeSecurityGroupRulesInput{Filters: only("group-id")}, 5, "SecurityGroupRules.SecurityGroupRuleId", rules),
		pages(c, ec2.NewDescribeTagsPaginator, &ec2.DescribeTagsInput{Filters: only("resource-id")}, 5, "Tags.Key", keys),
		pages(c, ec2.NewDescribeManagedPrefixListsPaginator, &ec2.DescribeManagedPrefixListsInput{}, 2, "PrefixLists.PrefixListId", lists),
		pages(c, ec2.NewGetManagedPrefixListEntriesPaginator, &ec2.GetManagedPrefixListEntriesInput{PrefixListId: &lists[0]}, 2, "Entries.Cidr", cidrs),
		pages(c, ec2.NewGetManagedPrefixListAssociationsPaginator, &ec2.GetManagedPrefixListAssociationsInput{PrefixListId: &lists[0]}, 5, "PrefixListAssociations.ResourceId", groups),
	}
}

// machinePages makes instances, some of them Spot, and what they are made of.
func machinePages(t *testing.T) []listing {
	t.Helper()
	c, ctx := w.ec2, t.Context()
	name := "paged-machine"
	var images, templates, versions, instances, spots, volumes []string
	for _, name := range five(name) {
		images = append(images, *must[*ec2.RegisterImageOutput](t)(c.RegisterImage(ctx, &ec2.RegisterImageInput{Name: &name, ImageLocation: &w.image})).ImageId)
		templates = append(templates, *must[*ec2.CreateLaunchTemplateOutput](t)(c.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: &name,
			LaunchTemplateData: &types.RequestLaunchTemplateData{ImageId: &w.machine}})).LaunchTemplate.LaunchTemplateId)
		v := must[*ec2.CreateLaunchTemplateVersionOutput](t)(c.CreateLaunchTemplateVersion(ctx, &ec2.CreateLaunchTemplateVersionInput{LaunchTemplateId: &templates[0], SourceVersion: new("1"),
			LaunchTemplateData: &types.RequestLaunchTemplateData{InstanceType: types.InstanceTypeT3Nano}}))
		versions = append(versions, fmt.Sprint(*v.LaunchTemplateVersion.VersionNumber))
	}
	profile := instanceProfile(t, name)
	// Nothing needs to have booted: what is pending is listed, too.
	ordinary := must[*ec2.RunInstancesOutput](t)(c.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: &w.machine, InstanceType: types.InstanceTypeT3Nano, MinCount: new(int32(6)), MaxCount: new(int32(6)),
		IamInstanceProfile: &types.IamInstanceProfileSpecification{Arn: &profile}, SubnetId: &w.subnets[0], CreditSpecification: &types.CreditSpecificationRequest{CpuCredits: new("unlimited")}}))
	for _, i := range ordinary.Instances {
		instances = append(instances, *i.InstanceId)
	}
	asked := must[*ec2.RequestSpotInstancesOutput](t)(c.RequestSpotInstances(ctx, &ec2.RequestSpotInstancesInput{InstanceCount: new(int32(5)), LaunchSpecification: &types.RequestSpotLaunchSpecification{
		ImageId: &w.machine, InstanceType: types.InstanceTypeT3Nano, SubnetId: &w.subnets[0], IamInstanceProfile: &types.IamInstanceProfileSpecification{Arn: &profile}}}))
	for _, r := range asked.SpotInstanceRequests {
		spots = append(spots, *r.SpotInstanceRequestId)
		instances = append(instances, *r.InstanceId)
	}
	// A terminated instance has no volume any more, and so is not waited for here.
	t.Cleanup(func() { terminate(t, instances) })
	var associations []string
	for _, r := range must[*ec2.DescribeInstancesOutput](t)(c.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: instances})).Reservations {
		for _, i := range r.Instances {
			volumes = append(volumes, *i.BlockDeviceMappings[0].Ebs.VolumeId)
		}
	}
	for _, a := range must[*ec2.DescribeIamInstanceProfileAssociationsOutput](t)(c.DescribeIamInstanceProfileAssociations(ctx, &ec2.DescribeIamInstanceProfileAssociationsInput{
		Filters: []types.Filter{{Name: new("instance-id"), Values: instances}}})).IamInstanceProfileAssociations {
		associations = append(associations, *a.AssociationId)
	}
	if len(volumes) != 11 || len(associations) != 11 {
		t.Fatalf("the instances %q have the volumes %q and the profile associations %q", instances, volumes, associations)
	}
	kinds := []string{"t3.nano", "t3.micro", "m5.large", "c5.xlarge", "t4g.small"}
	return []listing{
		pages(c, ec2.NewDescribeImagesPaginator, &ec2.DescribeImagesInput{Owners: []string{"self"}}, 2, "Images.ImageId", images),
		pages(c, ec2.NewDescribeLaunchTemplatesPaginator, &ec2.DescribeLaunchTemplatesInput{}, 2, "LaunchTemplates.LaunchTemplateId", templates),
		pages(c, ec2.NewDescribeLaunchTemplateVersionsPaginator, &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: &templates[0]}, 2, "LaunchTemplateVersions.VersionNumber", versions),
		pages(c, ec2.NewDescribeInstancesPaginator, &ec2.DescribeInstancesInput{}, 5, "Reservations.Instances.InstanceId", instances),
		pages(c, ec2.NewDescribeInstanceStatusPaginator, &ec2.DescribeInstanceStatusInput{IncludeAllInstances: new(true)}, 5, "InstanceStatuses.InstanceId", instances),
		pages(c, ec2.NewDescribeInstanceCreditSpecificationsPaginator, &ec2.DescribeInstanceCreditSpecificationsInput{}, 5, "InstanceCreditSpecifications.InstanceId", instances),
		pages(c, ec2.NewDescribeIamInstanceProfileAssociationsPaginator, &ec2.DescribeIamInstanceProfileAssociationsInput{}, 5, "IamInstanceProfileAssociations.AssociationId", associations),
		pages(c, ec2.NewDescribeSpotInstanceRequestsPaginator, &ec2.DescribeSpotInstanceRequestsInput{}, 2, "SpotInstanceRequests.SpotInstanceRequestId", spots),
		pages(c, ec2.NewDescribeVolumesPaginator, &ec2.DescribeVolumesInput{}, 5, "Volumes.VolumeId", volumes),
		pages(c, ec2.NewDescribeInstanceTypesPaginator, &ec2.DescribeInstanceTypesInput{}, 5, "InstanceTypes.InstanceType", kinds),
		pages(c, ec2.NewDescribeInstanceTypeOfferingsPaginator, &ec2.DescribeInstanceTypeOfferingsInput{}, 5, "InstanceTypeOfferings.InstanceType", kinds),
		// One machine has no layers of network nodes.
		pages(c, ec2.NewDescribeInstanceTopologyPaginator, &ec2.DescribeInstanceTopologyInput{}, 5, "Instances.InstanceId", nil).empty(),
	}
}

// terminate ends instances and waits for their end. It is called after the
// test's context has ended, too.
func terminate(t *testing.T, instances []string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	done(t)(w.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: instances}))
	if err := wait(ctx, ec2.NewInstanceTerminatedWaiter(w.ec2), &ec2.DescribeInstancesInput{InstanceIds: instances}, ignore); err != nil {
		t.Error(err)
	}
}

// role makes a role that a service may assume.
func role(t *testing.T, name, service string) string {
	t.Helper()
	return *must[*iam.CreateRoleOutput](t)(w.iam.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name,
		AssumeRolePolicyDocument: new(strings.Replace(trustTasks, "ecs-tasks.amazonaws.com", service, 1))})).Role.Arn
}

// instanceProfile makes an instance profile with a role of the same name.
func instanceProfile(t *testing.T, name string) string {
	t.Helper()
	role(t, name, "ec2.amazonaws.com")
	p := must[*iam.CreateInstanceProfileOutput](t)(w.iam.CreateInstanceProfile(t.Context(), &iam.CreateInstanceProfileInput{InstanceProfileName: &name})).InstanceProfile.Arn
	done(t)(w.iam.AddRoleToInstanceProfile(t.Context(), &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &name, RoleName: &name}))
	return *p
}
