package sdk

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// An EC2 page has five items or more. Of what the default VPC has one of, there
// is one page.
func TestEC2Paginators(t *testing.T) {
	t.Parallel()
	c, ctx := w.ec2, t.Context()
	var groups, rules, keys []string
	for i := range 11 {
		g := must[*ec2.CreateSecurityGroupOutput](t)(c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: new(fmt.Sprint("paged-", i)), Description: new("paged")}))
		groups = append(groups, *g.GroupId)
		r := must[*ec2.AuthorizeSecurityGroupIngressOutput](t)(c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &groups[0], IpPermissions: []types.IpPermission{
			{IpProtocol: new("tcp"), FromPort: new(int32(i)), ToPort: new(int32(i)), IpRanges: []types.IpRange{{CidrIp: new("10.0.0.0/8")}}}}}))
		rules = append(rules, *r.SecurityGroupRules[0].SecurityGroupRuleId)
		keys = append(keys, fmt.Sprint("key-", i))
		done(t)(c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: groups[:1], Tags: []types.Tag{{Key: &keys[i], Value: new("v")}}}))
	}
	first := []types.Filter{{Name: new("resource-id"), Values: groups[:1]}}
	vpc := *must[*ec2.DescribeSubnetsOutput](t)(c.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})).Subnets[0].VpcId

	paginate(t, "ec2", []listing{
		pages(c, ec2.NewDescribeSecurityGroupsPaginator, &ec2.DescribeSecurityGroupsInput{}, 5, "SecurityGroups.GroupId", groups),
		pages(c, ec2.NewDescribeSecurityGroupRulesPaginator, &ec2.DescribeSecurityGroupRulesInput{Filters: []types.Filter{{Name: new("group-id"), Values: groups[:1]}}}, 5, "SecurityGroupRules.SecurityGroupRuleId", rules),
		pages(c, ec2.NewDescribeTagsPaginator, &ec2.DescribeTagsInput{Filters: first}, 5, "Tags.Key", keys),
		pages(c, ec2.NewDescribeSubnetsPaginator, &ec2.DescribeSubnetsInput{}, 5, "Subnets.SubnetId", w.subnets).few(1),
		pages(c, ec2.NewDescribeVpcsPaginator, &ec2.DescribeVpcsInput{}, 5, "Vpcs.VpcId", []string{vpc}).few(1),
		pages(c, ec2.NewDescribeRouteTablesPaginator, &ec2.DescribeRouteTablesInput{}, 5, "RouteTables.VpcId", []string{vpc}).few(1),
		pages(c, ec2.NewDescribeNetworkAclsPaginator, &ec2.DescribeNetworkAclsInput{}, 5, "NetworkAcls.VpcId", []string{vpc}).few(1),
		pages(c, ec2.NewDescribeInternetGatewaysPaginator, &ec2.DescribeInternetGatewaysInput{}, 5, "InternetGateways.Attachments.VpcId", []string{vpc}).few(1),
		pages(c, ec2.NewDescribeDhcpOptionsPaginator, &ec2.DescribeDhcpOptionsInput{}, 5, "DhcpOptions.OwnerId", []string{w.Account}).few(1),
		pages(c, ec2.NewDescribeNetworkInterfacesPaginator, &ec2.DescribeNetworkInterfacesInput{}, 5, "NetworkInterfaces.NetworkInterfaceId", nil).few(1),
	})
}
