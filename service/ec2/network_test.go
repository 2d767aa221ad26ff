package ec2

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/berth-run/berth/control"
	addresses "github.com/berth-run/berth/control/address"
	"github.com/berth-run/berth/control/gateway"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"

	api "github.com/berth-run/berth/aws/ec2"
)

// settle lets the controllers of addresses and gateways do what they have to,
// and a machine attach and remove what it is told to.
func (b *bench) settle() {
	b.Helper()
	for range 3 {
		for _, c := range []control.Controller{gateway.Controller, addresses.Controller} {
			p := c.Plan(control.Input{Read: b.db.Snapshot(), All: true, Now: now, NewID: b.NewID})
			if ok, err := control.Apply(b.Context(), b.db, p); err != nil || !ok {
				b.Fatalf("apply %s: %v %v", c.Name, ok, err)
			}
		}
		b.put(func(tx *store.Tx) {
			for n := range state.NetworkInterfaces.All(tx) {
				x := *n
				switch {
				case n.Node == "":
					continue
				case n.Leaving():
					x = *n.Left()
				default:
					x.Attached = true
				}
				state.NetworkInterfaces.Put(tx, &x)
			}
		})
	}
}

func (b *bench) node() {
	b.put(func(tx *store.Tx) { state.Nodes.Put(tx, &state.Node{Name: "machine"}) })
}

// network makes a VPC with a subnet in it.
func (b *bench) network(cidr, subnet string) (vpc, sub string) {
	b.Helper()
	vpc = *try(b, b.CreateVpc, `{"CidrBlock":"`+cidr+`"}`).Vpc.VpcId
	return vpc, *try(b, b.CreateSubnet, `{"VpcId":"`+vpc+`","CidrBlock":"`+subnet+`"}`).Subnet.SubnetId
}

func (b *bench) interfaceRow(subnet string) *state.NetworkInterface {
	b.Helper()
	var made *state.NetworkInterface
	b.put(func(tx *store.Tx) {
		s, _ := state.Subnets.Get(tx, subnet)
		e, leases, err := state.NewInterface(state.FreeAddresses(tx), b.id("eni"), s, state.InterfaceAddresses{}, now)
		if err != nil {
			b.Fatal(err)
		}
		state.NetworkInterfaces.Put(tx, e)
		for _, l := range leases {
			state.AddressLeases.Put(tx, l)
		}
		made = e
	})
	return made
}

func (b *bench) limit(name string, n int) {
	b.put(func(tx *store.Tx) { state.Quotas.Put(tx, &state.Quota{Account: b.account, Name: name, Value: n}) })
}

func TestCreateVpc(t *testing.T) {
	b := newBench(t)
	v := try(b, b.CreateVpc, `{"CidrBlock":"10.1.2.3/16","AmazonProvidedIpv6CidrBlock":true,"InstanceTenancy":"dedicated","TagSpecifications":[{"ResourceType":"vpc","Tags":[{"Key":"Name","Value":"x"}]}]}`).Vpc
	if v.State != "pending" || *v.CidrBlock != "10.1.0.0/16" || v.InstanceTenancy != "dedicated" || *v.IsDefault || *v.Tags[0].Value != "x" || len(v.CidrBlockAssociationSet) != 1 {
		t.Errorf("%+v", v)
	}
	if six := v.Ipv6CidrBlockAssociationSet; len(six) != 1 || *six[0].Ipv6CidrBlock != "fdaa:bbcc::/56" || six[0].Ipv6CidrBlockState.State != "associated" {
		t.Errorf("%+v", six)
	}
	second := try(b, b.CreateVpc, `{"CidrBlock":"10.1.0.0/16","AmazonProvidedIpv6CidrBlock":true}`).Vpc
	if *second.Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlock != "fdaa:bbcc:0:100::/56" {
		t.Errorf("%+v", second.Ipv6CidrBlockAssociationSet)
	}
	in := `{"Filters":[{"Name":"vpc-id","Values":["` + *v.VpcId + `"]}]}`
	// What every VPC comes with.
	rt := try(b, b.DescribeRouteTables, in).RouteTables
	if len(rt) != 1 || !*rt[0].Associations[0].Main || len(rt[0].Routes) != 2 || *rt[0].Routes[1].DestinationIpv6CidrBlock != "fdaa:bbcc::/56" || rt[0].Routes[1].State != "active" {
		t.Errorf("%+v", rt)
	}
	g := try(b, b.DescribeSecurityGroups, in).SecurityGroups
	if len(g) != 1 || *g[0].GroupName != "default" || len(g[0].IpPermissionsEgress) == 0 || *g[0].IpPermissionsEgress[0].Ipv6Ranges[0].CidrIpv6 != "::/0" {
		t.Errorf("%+v", g)
	}
	if acl := try(b, b.DescribeNetworkAcls, in).NetworkAcls; len(acl) != 1 || !*acl[0].IsDefault {
		t.Errorf("%+v", acl)
	}
	def := try(b, b.DescribeVpcs, `{"Filters":[{"Name":"is-default","Values":["true"]}]}`).Vpcs[0]
	if got := try(b, b.DescribeVpcs, `{"VpcIds":["`+*v.VpcId+`"]}`).Vpcs[0]; got.State != "available" || *got.DhcpOptionsId != *def.DhcpOptionsId {
		t.Errorf("%+v", got)
	}
	for name, want := range map[string]bool{"enableDnsSupport": true, "enableDnsHostnames": false} {
		a := try(b, b.DescribeVpcAttribute, `{"VpcId":"`+*v.VpcId+`","Attribute":"`+name+`"}`)
		if cmpValue(a.EnableDnsSupport, a.EnableDnsHostnames) != want {
			t.Errorf("%s is %v", name, !want)
		}
	}
	for in, want := range map[string]string{
		`{}`:                           "MissingParameter: Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided.",
		`{"CidrBlock":"10.0.0.0"}`:     "InvalidParameterValue: Value (10.0.0.0) for parameter cidrBlock is invalid. This is not a valid CIDR block.",
		`{"CidrBlock":"fd00::/56"}`:    "InvalidParameterValue: Value (fd00::/56) for parameter cidrBlock is invalid. This is not a valid CIDR block.",
		`{"CidrBlock":"10.0.0.0/15"}`:  "InvalidVpc.Range: The CIDR '10.0.0.0/15' is invalid.",
		`{"CidrBlock":"10.0.0.0/29"}`:  "InvalidVpc.Range: The CIDR '10.0.0.0/29' is invalid.",
		`{"CidrBlock":"127.0.0.0/16"}`: "InvalidVpc.Range: The CIDR '127.0.0.0/16' is invalid.",
		`{"CidrBlock":"10.0.0.0/16","InstanceTenancy":"host"}`:       "UnsupportedTenancy: The tenancy value host is not supported.",
		`{"CidrBlock":"10.0.0.0/16","Ipv4IpamPoolId":"ipam-pool-1"}`: "UnsupportedOperation: Ipv4IpamPoolId is not supported.",
	} {
		refuse(b, b.CreateVpc, in, want)
	}
	b.limit("vpc/vpcs", 3)
	refuse(b, b.CreateVpc, `{"CidrBlock":"10.0.0.0/16"}`, "VpcLimitExceeded: The maximum number of VPCs has been reached.")
}

// In any order but the right one a delete is refused, and then it is not.
func TestDeletesInTheRightOrder(t *testing.T) {
	b := newBench(t)
	b.node()
	vpc, subnet := b.network("10.0.0.0/16", "10.0.1.0/24")
	igw := *try(b, b.CreateInternetGateway, `{}`).InternetGateway.InternetGatewayId
	try(b, b.AttachInternetGateway, `{"InternetGatewayId":"`+igw+`","VpcId":"`+vpc+`"}`)
	eigw := *try(b, b.CreateEgressOnlyInternetGateway, `{"VpcId":"`+vpc+`"}`).EgressOnlyInternetGateway.EgressOnlyInternetGatewayId
	table := *try(b, b.CreateRouteTable, `{"VpcId":"`+vpc+`"}`).RouteTable.RouteTableId
	association := *try(b, b.AssociateRouteTable, `{"RouteTableId":"`+table+`","SubnetId":"`+subnet+`"}`).AssociationId
	eip := *try(b, b.AllocateAddress, `{"Domain":"vpc"}`).AllocationId
	nat := *try(b, b.CreateNatGateway, `{"SubnetId":"`+subnet+`","AllocationId":"`+eip+`"}`).NatGateway.NatGatewayId
	group := *try(b, b.CreateSecurityGroup, `{"GroupName":"g","Description":"d","VpcId":"`+vpc+`"}`).GroupId
	dhcp := *try(b, b.CreateDhcpOptions, `{"DhcpConfigurations":[{"Key":"domain-name","Values":["x.test"]}]}`).DhcpOptions.DhcpOptionsId
	try(b, b.AssociateDhcpOptions, `{"DhcpOptionsId":"`+dhcp+`","VpcId":"`+vpc+`"}`)
	b.settle()

	public := *try(b, b.DescribeAddresses, `{}`).Addresses[0].PublicIp
	deleteVpc := func() {
		t.Helper()
		refuse(b, b.DeleteVpc, `{"VpcId":"`+vpc+`"}`, "DependencyViolation: The vpc '"+vpc+"' has dependencies and cannot be deleted.")
	}
	deleteVpc()
	refuse(b, b.DeleteSubnet, `{"SubnetId":"`+subnet+`"}`, "DependencyViolation: The subnet '"+subnet+"' has dependencies and cannot be deleted.")
	refuse(b, b.DeleteRouteTable, `{"RouteTableId":"`+table+`"}`, "DependencyViolation: The routeTable '"+table+"' has dependencies and cannot be deleted.")
	refuse(b, b.DeleteInternetGateway, `{"InternetGatewayId":"`+igw+`"}`, "DependencyViolation: The internetGateway '"+igw+"' has dependencies and cannot be deleted.")
	refuse(b, b.DetachInternetGateway, `{"InternetGatewayId":"`+igw+`","VpcId":"`+vpc+`"}`,
		"DependencyViolation: Network "+vpc+" has some mapped public address(es). Please unmap those public address(es) before detaching the gateway.")
	refuse(b, b.ReleaseAddress, `{"AllocationId":"`+eip+`"}`, "InvalidIPAddress.InUse: Address "+public+" is in use.")
	refuse(b, b.DeleteDhcpOptions, `{"DhcpOptionsId":"`+dhcp+`"}`, "DependencyViolation: The dhcpOptions '"+dhcp+"' has dependencies and cannot be deleted.")

	try(b, b.DeleteNatGateway, `{"NatGatewayId":"`+nat+`"}`)
	// Its interface is still in the kernel.
	refuse(b, b.DeleteSubnet, `{"SubnetId":"`+subnet+`"}`, "DependencyViolation: The subnet '"+subnet+"' has dependencies and cannot be deleted.")
	b.settle()
	try(b, b.ReleaseAddress, `{"AllocationId":"`+eip+`"}`)
	try(b, b.DetachInternetGateway, `{"InternetGatewayId":"`+igw+`","VpcId":"`+vpc+`"}`)
	refuse(b, b.DetachInternetGateway, `{"InternetGatewayId":"`+igw+`","VpcId":"`+vpc+`"}`, "Gateway.NotAttached: resource "+igw+" is not attached to network "+vpc)
	try(b, b.DeleteInternetGateway, `{"InternetGatewayId":"`+igw+`"}`)
	deleteVpc()
	try(b, b.DisassociateRouteTable, `{"AssociationId":"`+association+`"}`)
	try(b, b.DeleteRouteTable, `{"RouteTableId":"`+table+`"}`)
	deleteVpc()
	try(b, b.DeleteSubnet, `{"SubnetId":"`+subnet+`"}`)
	deleteVpc()
	try(b, b.DeleteSecurityGroup, `{"GroupId":"`+group+`"}`)
	deleteVpc()
	try(b, b.DeleteEgressOnlyInternetGateway, `{"EgressOnlyInternetGatewayId":"`+eigw+`"}`)
	try(b, b.DeleteVpc, `{"VpcId":"`+vpc+`"}`)
	try(b, b.DeleteDhcpOptions, `{"DhcpOptionsId":"`+dhcp+`"}`)
	refuse(b, b.DeleteVpc, `{"VpcId":"`+vpc+`"}`, "InvalidVpcID.NotFound: The vpc ID '"+vpc+"' does not exist")
	snap := b.db.Snapshot()
	if n, m, l := state.SecurityGroups.Count(snap), state.RouteTables.Count(snap), state.AddressLeases.Count(snap); n != 1 || m != 1 || l != 0 {
		t.Errorf("left are %d groups, %d tables, %d leases", n, m, l)
	}
	// The default VPC goes as well, and comes back.
	def := b.vpc()
	for _, s := range try(b, b.DescribeSubnets, `{}`).Subnets {
		try(b, b.DeleteSubnet, `{"SubnetId":"`+*s.SubnetId+`"}`)
	}
	refuse(b, b.CreateDefaultVpc, `{}`, "DefaultVpcAlreadyExists: A Default VPC already exists for this account in this region.")
	try(b, b.CreateDefaultSubnet, `{"AvailabilityZone":"eu-west-1b"}`)
	made := try(b, b.DescribeSubnets, `{}`).Subnets[0]
	if !*made.DefaultForAz || !*made.MapPublicIpOnLaunch || *made.CidrBlock != "172.31.0.0/20" {
		t.Errorf("%+v", made)
	}
	refuse(b, b.CreateDefaultSubnet, `{"AvailabilityZone":"eu-west-1b"}`, "DefaultSubnetAlreadyExistsInAvailabilityZone: '"+*made.SubnetId+"' is already the default subnet in eu-west-1b.")
	try(b, b.DeleteSubnet, `{"SubnetId":"`+*made.SubnetId+`"}`)
	g := *try(b, b.DescribeInternetGateways, `{}`).InternetGateways[0].InternetGatewayId
	try(b, b.DetachInternetGateway, `{"InternetGatewayId":"`+g+`","VpcId":"`+def+`"}`)
	try(b, b.DeleteVpc, `{"VpcId":"`+def+`"}`)
	if v := try(b, b.CreateDefaultVpc, `{}`).Vpc; !*v.IsDefault || len(try(b, b.DescribeSubnets, `{}`).Subnets) != 3 || state.DHCPOptionSets.Count(b.db.Snapshot()) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestVpcCidrs(t *testing.T) {
	b := newBench(t)
	vpc, subnet := b.network("10.0.0.0/16", "10.0.1.0/24")
	in := func(rest string) string { return `{"VpcId":"` + vpc + `",` + rest + `}` }
	table := *try(b, b.CreateRouteTable, `{"VpcId":"`+vpc+`"}`).RouteTable.RouteTableId
	eni := b.interfaceRow(subnet)
	try(b, b.CreateRoute, `{"RouteTableId":"`+table+`","DestinationCidrBlock":"10.9.0.0/24","NetworkInterfaceId":"`+eni.ID+`"}`)
	for cidr, want := range map[string]string{
		"10.0.128.0/20":  "InvalidVpc.Range: The CIDR '10.0.128.0/20' overlaps with the CIDR '10.0.0.0/16' of the VPC.",
		"192.168.0.0/16": "InvalidVpc.Range: The CIDR '192.168.0.0/16' is restricted. Use a CIDR from the same private address range as the current VPC CIDR, or use a publicly-routable CIDR.",
		"10.9.0.0/16":    "InvalidVpc.Range: The CIDR '10.9.0.0/16' conflicts with the route to '10.9.0.0/24' in route table " + table + ".",
	} {
		refuse(b, b.AssociateVpcCidrBlock, in(`"CidrBlock":"`+cidr+`"`), want)
	}
	second := try(b, b.AssociateVpcCidrBlock, in(`"CidrBlock":"10.1.0.0/16"`)).CidrBlockAssociation
	six := try(b, b.AssociateVpcCidrBlock, in(`"AmazonProvidedIpv6CidrBlock":true`)).Ipv6CidrBlockAssociation
	v := try(b, b.DescribeVpcs, `{"Filters":[{"Name":"cidr-block-association.association-id","Values":["`+*second.AssociationId+`"]},{"Name":"ipv6-cidr-block-association.ipv6-cidr-block","Values":["fdaa:*"]}]}`).Vpcs
	if len(v) != 1 || len(v[0].CidrBlockAssociationSet) != 2 || *v[0].CidrBlockAssociationSet[1].CidrBlock != "10.1.0.0/16" || *v[0].Ipv6CidrBlockAssociationSet[0].AssociationId != *six.AssociationId {
		t.Fatalf("%+v", v)
	}
	g := try(b, b.DescribeSecurityGroups, `{"Filters":[{"Name":"vpc-id","Values":["`+vpc+`"]},{"Name":"egress.ip-permission.ipv6-cidr","Values":["::/0"]}]}`).SecurityGroups
	if len(g) != 1 {
		t.Errorf("the default group lets nothing out to IPv6")
	}
	other := *try(b, b.CreateSubnet, `{"VpcId":"`+vpc+`","CidrBlock":"10.1.1.0/24","Ipv6CidrBlock":"fdaa:bbcc:0:1::/64"}`).Subnet.SubnetId
	refuse(b, b.CreateSubnet, `{"VpcId":"`+vpc+`","CidrBlock":"10.1.2.0/24","Ipv6CidrBlock":"fdaa:bbcc:0:1::/64"}`, "InvalidSubnet.Conflict: The CIDR 'fdaa:bbcc:0:1::/64' conflicts with another subnet")
	refuse(b, b.CreateSubnet, `{"VpcId":"`+vpc+`","CidrBlock":"10.1.2.0/24","Ipv6CidrBlock":"fdaa:bbcc:0:100::/64"}`, "InvalidSubnet.Range: The CIDR 'fdaa:bbcc:0:100::/64' is invalid.")
	for _, a := range []string{*second.AssociationId, *six.AssociationId} {
		refuse(b, b.DisassociateVpcCidrBlock, `{"AssociationId":"`+a+`"}`, "DependencyViolation: The vpc CIDR block with association ID "+a+" has dependencies and cannot be disassociated.")
	}
	first := *v[0].CidrBlockAssociationSet[0].AssociationId
	refuse(b, b.DisassociateVpcCidrBlock, `{"AssociationId":"`+first+`"}`, "OperationNotPermitted: The vpc CIDR block with association ID "+first+" may not be disassociated. It is the primary IPv4 CIDR block of the VPC")
	refuse(b, b.DisassociateVpcCidrBlock, `{"AssociationId":"vpc-cidr-assoc-9"}`, "InvalidVpcCidrBlockAssociationID.NotFound: The vpc CIDR block association ID 'vpc-cidr-assoc-9' does not exist")
	try(b, b.DeleteSubnet, `{"SubnetId":"`+other+`"}`)
	for _, a := range []string{*second.AssociationId, *six.AssociationId} {
		try(b, b.DisassociateVpcCidrBlock, `{"AssociationId":"`+a+`"}`)
	}
	if v := try(b, b.DescribeVpcs, `{"VpcIds":["`+vpc+`"]}`).Vpcs[0]; len(v.CidrBlockAssociationSet) != 1 || len(v.Ipv6CidrBlockAssociationSet) != 0 {
		t.Errorf("%+v", v)
	}
	b.limit("vpc/ipv4-cidrs-per-vpc", 1)
	refuse(b, b.AssociateVpcCidrBlock, in(`"CidrBlock":"10.2.0.0/16"`), "CidrLimitExceeded: This network '"+vpc+"' has met its maximum number of allowed CIDRs: 1")
}

func TestVpcAttributes(t *testing.T) {
	b := newBench(t)
	vpc, _ := b.network("10.0.0.0/16", "10.0.1.0/24")
	try(b, b.ModifyVpcAttribute, `{"VpcId":"`+vpc+`","EnableDnsHostnames":{"Value":true}}`)
	if !*try(b, b.DescribeVpcAttribute, `{"VpcId":"`+vpc+`","Attribute":"enableDnsHostnames"}`).EnableDnsHostnames.Value {
		t.Error("not enabled")
	}
	refuse(b, b.ModifyVpcAttribute, `{"VpcId":"`+vpc+`","EnableDnsSupport":{"Value":false}}`, "InvalidParameterCombination: DNS hostnames can only be enabled while DNS support is enabled")
	refuse(b, b.ModifyVpcAttribute, `{"VpcId":"`+vpc+`","EnableDnsSupport":{"Value":false},"EnableDnsHostnames":{"Value":false}}`,
		"InvalidParameterCombination: Fields for multiple attribute types specified; only one attribute may be modified at a time")
	refuse(b, b.ModifyVpcAttribute, `{"VpcId":"vpc-9","EnableDnsSupport":{"Value":false}}`, "InvalidVpcID.NotFound: The vpc ID 'vpc-9' does not exist")
	try(b, b.ModifyVpcTenancy, `{"VpcId":"`+vpc+`","InstanceTenancy":"default"}`)
	if c := try(b, b.DescribeVpcClassicLink, `{"VpcIds":["`+vpc+`"]}`).Vpcs; len(c) != 1 || *c[0].ClassicLinkEnabled {
		t.Errorf("%+v", c)
	}
	refuse(b, b.ModifyVpcBlockPublicAccessOptions, `{"InternetGatewayBlockMode":"block-bidirectional"}`, "UnsupportedOperation: InternetGatewayBlockMode block-bidirectional is not supported.")
	if o := try(b, b.DescribeVpcBlockPublicAccessOptions, `{}`).VpcBlockPublicAccessOptions; o.InternetGatewayBlockMode != "off" {
		t.Errorf("%+v", o)
	}
}

func TestSubnets(t *testing.T) {
	b := newBench(t)
	vpc, subnet := b.network("10.0.0.0/16", "10.0.1.0/24")
	in := func(rest string) string { return `{"VpcId":"` + vpc + `",` + rest + `}` }
	for body, want := range map[string]string{
		in(`"CidrBlock":"10.1.0.0/24"`):                                 "InvalidSubnet.Range: The CIDR '10.1.0.0/24' is invalid.",
		in(`"CidrBlock":"10.0.0.0/29"`):                                 "InvalidSubnet.Range: The CIDR '10.0.0.0/29' is invalid.",
		in(`"CidrBlock":"10.0.0.0/15"`):                                 "InvalidSubnet.Range: The CIDR '10.0.0.0/15' is invalid.",
		in(`"CidrBlock":"10.0.1.128/25"`):                               "InvalidSubnet.Conflict: The CIDR '10.0.1.128/25' conflicts with another subnet",
		in(`"CidrBlock":"x"`):                                           "InvalidParameterValue: Value (x) for parameter cidrBlock is invalid. This is not a valid CIDR block.",
		in(`"CidrBlock":"10.0.2.0/24","AvailabilityZone":"eu-west-1z"`): "InvalidParameterValue: Value (eu-west-1z) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: eu-west-1a, eu-west-1b, eu-west-1c.",
		in(`"CidrBlock":"10.0.2.0/24","Ipv6Native":true`):               "UnsupportedOperation: Ipv6Native is not supported.",
		`{"VpcId":"vpc-9","CidrBlock":"10.0.2.0/24"}`:                   "InvalidVpcID.NotFound: The vpc ID 'vpc-9' does not exist",
		`{"VpcId":"nonsense","CidrBlock":"10.0.2.0/24"}`:                `InvalidVpcID.Malformed: Invalid id: "nonsense" (expecting "vpc-...")`,
	} {
		refuse(b, b.CreateSubnet, body, want)
	}
	s := try(b, b.CreateSubnet, in(`"CidrBlock":"10.0.2.0/28","AvailabilityZoneId":"euw1-az3","TagSpecifications":[{"ResourceType":"subnet","Tags":[{"Key":"tier","Value":"web"}]}]`)).Subnet
	if *s.AvailabilityZone != "eu-west-1c" || *s.AvailableIpAddressCount != 11 || s.State != "pending" || *s.MapPublicIpOnLaunch || *s.DefaultForAz {
		t.Errorf("%+v", s)
	}
	for _, filter := range []string{
		`{"Name":"tag:tier","Values":["w?b"]}`, `{"Name":"tag-key","Values":["ti*"]}`, `{"Name":"cidr-block","Values":["10.0.2.0/28"]}`,
		`{"Name":"availability-zone-id","Values":["euw1-az3"]},{"Name":"default-for-az","Values":["false"]}`, `{"Name":"available-ip-address-count","Values":["11"]}`,
		`{"Name":"vpc-id","Values":["` + vpc + `"]},{"Name":"state","Values":["available"]},{"Name":"availability-zone","Values":["eu-west-1c"]}`,
	} {
		if got := try(b, b.DescribeSubnets, `{"Filters":[`+filter+`]}`).Subnets; len(got) != 1 || *got[0].SubnetId != *s.SubnetId {
			t.Errorf("%s finds %+v", filter, got)
		}
	}
	set := func(rest string) string { return `{"SubnetId":"` + *s.SubnetId + `",` + rest + `}` }
	try(b, b.ModifySubnetAttribute, set(`"MapPublicIpOnLaunch":{"Value":true}`))
	try(b, b.ModifySubnetAttribute, set(`"EnableResourceNameDnsARecordOnLaunch":{"Value":true}`))
	try(b, b.ModifySubnetAttribute, set(`"PrivateDnsHostnameTypeOnLaunch":"resource-name"`))
	refuse(b, b.ModifySubnetAttribute, set(`"AssignIpv6AddressOnCreation":{"Value":true}`), "InvalidParameterValue: Invalid value 'true' for assignIpv6AddressOnCreation. Subnet '"+*s.SubnetId+"' has no associated IPv6 CIDR block")
	refuse(b, b.ModifySubnetAttribute, set(`"EnableDns64":{"Value":true}`), "UnsupportedOperation: EnableDns64 is not supported.")
	try(b, b.AssociateVpcCidrBlock, in(`"AmazonProvidedIpv6CidrBlock":true`))
	six := try(b, b.AssociateSubnetCidrBlock, set(`"Ipv6CidrBlock":"fdaa:bbcc:0:7::/64"`)).Ipv6CidrBlockAssociation
	refuse(b, b.AssociateSubnetCidrBlock, set(`"Ipv6CidrBlock":"fdaa:bbcc:0:8::/64"`), "CidrLimitExceeded: This subnet '"+*s.SubnetId+"' has met its maximum number of allowed CIDRs: 1")
	try(b, b.ModifySubnetAttribute, set(`"AssignIpv6AddressOnCreation":{"Value":true}`))
	got := try(b, b.DescribeSubnets, `{"SubnetIds":["`+*s.SubnetId+`"]}`).Subnets[0]
	if !*got.MapPublicIpOnLaunch || !*got.AssignIpv6AddressOnCreation || got.PrivateDnsNameOptionsOnLaunch.HostnameType != "resource-name" || !*got.PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsARecord ||
		*got.Ipv6CidrBlockAssociationSet[0].AssociationId != *six.AssociationId {
		t.Errorf("%+v", got)
	}
	eni := b.interfaceRow(*s.SubnetId)
	if len(eni.IPv6) != 1 || !netip.MustParsePrefix("fdaa:bbcc:0:7::/64").Contains(eni.IPv6[0]) {
		t.Errorf("%+v", eni.IPv6)
	}
	if got := try(b, b.DescribeSubnets, `{"SubnetIds":["`+*s.SubnetId+`"]}`).Subnets[0]; *got.AvailableIpAddressCount != 10 {
		t.Errorf("%d are free", *got.AvailableIpAddressCount)
	}
	refuse(b, b.DisassociateSubnetCidrBlock, `{"AssociationId":"`+*six.AssociationId+`"}`, "DependencyViolation: The IPv6 CIDR block 'fdaa:bbcc:0:7::/64' of subnet '"+*s.SubnetId+"' has dependencies and cannot be disassociated.")
	b.put(func(tx *store.Tx) {
		x := *eni
		x.Deleting = true
		state.NetworkInterfaces.Put(tx, &x)
	})
	b.settle()
	try(b, b.DisassociateSubnetCidrBlock, `{"AssociationId":"`+*six.AssociationId+`"}`)
	refuse(b, b.DisassociateSubnetCidrBlock, `{"AssociationId":"`+*six.AssociationId+`"}`, "InvalidSubnetCidrBlockAssociationID.NotFound: The subnet CIDR block with association ID '"+*six.AssociationId+"' does not exist")

	// A reserved range is not handed out.
	r := try(b, b.CreateSubnetCidrReservation, set(`"Cidr":"10.0.2.8/29","ReservationType":"explicit","Description":"mine"`)).SubnetCidrReservation
	refuse(b, b.CreateSubnetCidrReservation, set(`"Cidr":"10.0.2.8/30","ReservationType":"prefix"`), "InvalidParameterValue: The CIDR '10.0.2.8/30' overlaps with the existing reservation '"+*r.SubnetCidrReservationId+"'.")
	refuse(b, b.CreateSubnetCidrReservation, set(`"Cidr":"10.0.3.0/28","ReservationType":"prefix"`), "InvalidParameterValue: The CIDR '10.0.3.0/28' is not within the subnet '"+*s.SubnetId+"'.")
	if got := try(b, b.GetSubnetCidrReservations, `{"SubnetId":"`+*s.SubnetId+`"}`).SubnetIpv4CidrReservations; len(got) != 1 || *got[0].Description != "mine" {
		t.Errorf("%+v", got)
	}
	if got := try(b, b.DescribeSubnets, `{"SubnetIds":["`+*s.SubnetId+`"]}`).Subnets[0]; *got.AvailableIpAddressCount != 4 {
		t.Errorf("%d are free beside the reservation", *got.AvailableIpAddressCount)
	}
	for range 4 {
		if a := b.interfaceRow(*s.SubnetId).Address; netip.MustParsePrefix("10.0.2.8/29").Contains(a) {
			t.Errorf("%s is reserved", a)
		}
	}
	try(b, b.DeleteSubnetCidrReservation, `{"SubnetCidrReservationId":"`+*r.SubnetCidrReservationId+`"}`)
	refuse(b, b.DeleteSubnetCidrReservation, `{"SubnetCidrReservationId":"scr-1"}`, "InvalidSubnetCidrReservationID.NotFound: The subnet CIDR reservation ID 'scr-1' does not exist")
	b.limit("vpc/subnets-per-vpc", 2)
	refuse(b, b.CreateSubnet, in(`"CidrBlock":"10.0.9.0/24"`), "SubnetLimitExceeded: The maximum number of subnets for this VPC has been reached.")
	_ = subnet
}

// routes shows a table's routes: destination, target, state.
func routes(t api.RouteTable) string {
	var out []string
	for _, r := range t.Routes {
		var parts []string
		for _, p := range []*string{r.DestinationCidrBlock, r.DestinationIpv6CidrBlock, r.DestinationPrefixListId, r.GatewayId, r.NatGatewayId, r.NetworkInterfaceId, r.InstanceId, r.VpcPeeringConnectionId, r.EgressOnlyInternetGatewayId} {
			if p != nil {
				parts = append(parts, *p)
			}
		}
		out = append(out, strings.Join(parts, " ")+" "+string(r.State))
	}
	return strings.Join(out, "\n")
}

func TestRoutes(t *testing.T) {
	b := newBench(t)
	b.node()
	vpc, subnet := b.network("10.0.0.0/16", "10.0.1.0/24")
	other, _ := b.network("10.1.0.0/16", "10.1.1.0/24")
	try(b, b.AssociateVpcCidrBlock, `{"VpcId":"`+vpc+`","AmazonProvidedIpv6CidrBlock":true}`)
	igw := *try(b, b.CreateInternetGateway, `{}`).InternetGateway.InternetGatewayId
	table := *try(b, b.CreateRouteTable, `{"VpcId":"`+vpc+`"}`).RouteTable.RouteTableId
	in := func(rest string) string { return `{"RouteTableId":"` + table + `",` + rest + `}` }
	show := func() string {
		t.Helper()
		return routes(try(b, b.DescribeRouteTables, `{"RouteTableIds":["`+table+`"]}`).RouteTables[0])
	}
	refuse(b, b.CreateRoute, in(`"DestinationCidrBlock":"0.0.0.0/0","GatewayId":"`+igw+`"`), "InvalidParameterValue: route table "+table+" and network gateway "+igw+" belong to different networks")
	try(b, b.AttachInternetGateway, `{"InternetGatewayId":"`+igw+`","VpcId":"`+vpc+`"}`)
	refuse(b, b.AttachInternetGateway, `{"InternetGatewayId":"`+igw+`","VpcId":"`+other+`"}`, "Resource.AlreadyAssociated: resource "+igw+" is already attached to network "+vpc)
	spare := *try(b, b.CreateInternetGateway, `{}`).InternetGateway.InternetGatewayId
	refuse(b, b.AttachInternetGateway, `{"InternetGatewayId":"`+spare+`","VpcId":"`+vpc+`"}`, "InvalidParameterValue: Network "+vpc+" already has an internet gateway attached")
	eip := *try(b, b.AllocateAddress, `{}`).AllocationId
	nat := *try(b, b.CreateNatGateway, `{"SubnetId":"`+subnet+`","AllocationId":"`+eip+`"}`).NatGateway.NatGatewayId
	eigw := *try(b, b.CreateEgressOnlyInternetGateway, `{"VpcId":"`+vpc+`"}`).EgressOnlyInternetGateway.EgressOnlyInternetGatewayId
	eni := b.interfaceRow(subnet)
	b.put(func(tx *store.Tx) {
		state.Instances.Put(tx, &state.Instance{ID: "i-1", Account: account, VPC: vpc, Subnet: subnet, State: "running"})
		n := *eni
		n.Attachment = &state.InterfaceAttachment{Instance: "i-1"}
		state.NetworkInterfaces.Put(tx, &n)
		state.Peerings.Put(tx, &state.Peering{ID: "pcx-1", Account: account, VPC: vpc, PeerAccount: account, PeerVPC: other, Status: "active"})
		state.PrefixLists.Put(tx, &state.PrefixList{ID: "pl-1", Account: account, Family: "IPv4", MaxEntries: 5})
	})
	for body, want := range map[string]string{
		in(`"DestinationCidrBlock":"0.0.0.0/0"`): "InvalidParameterCombination: The request must contain exactly one of " + targets,
		in(`"GatewayId":"` + igw + `"`):          "MissingParameter: The request must contain the parameter destinationCidrBlock or destinationIpv6CidrBlock or destinationPrefixListId",
		in(`"DestinationCidrBlock":"0.0.0.0/0","DestinationIpv6CidrBlock":"::/0","GatewayId":"` + igw + `"`): "InvalidParameterCombination: The parameter destinationIpv6CidrBlock cannot be used with the parameter destinationCidrBlock",
		in(`"DestinationCidrBlock":"x","GatewayId":"` + igw + `"`):                                           "InvalidParameterValue: Value (x) for parameter destinationCidrBlock is invalid. This is not a valid CIDR block.",
		in(`"DestinationCidrBlock":"0.0.0.0/0","GatewayId":"igw-9"`):                                         "InvalidGatewayID.NotFound: The gateway ID 'igw-9' does not exist",
		in(`"DestinationCidrBlock":"0.0.0.0/0","NatGatewayId":"nat-9"`):                                      "InvalidNatGatewayID.NotFound: The natGateway ID 'nat-9' does not exist",
		in(`"DestinationCidrBlock":"0.0.0.0/0","NetworkInterfaceId":"eni-9"`):                                "InvalidNetworkInterfaceID.NotFound: The networkInterface ID 'eni-9' does not exist",
		in(`"DestinationCidrBlock":"0.0.0.0/0","InstanceId":"i-9"`):                                          "InvalidInstanceID.NotFound: The instance ID 'i-9' does not exist",
		in(`"DestinationCidrBlock":"0.0.0.0/0","VpcPeeringConnectionId":"pcx-9"`):                            "InvalidVpcPeeringConnectionID.NotFound: The vpcPeeringConnection ID 'pcx-9' does not exist",
		in(`"DestinationCidrBlock":"0.0.0.0/0","EgressOnlyInternetGatewayId":"eigw-9"`):                      "InvalidGatewayID.NotFound: The eigw ID 'eigw-9' does not exist",
		in(`"DestinationCidrBlock":"0.0.0.0/0","EgressOnlyInternetGatewayId":"` + eigw + `"`):                "InvalidParameterValue: An egress-only internet gateway can only be the target of a route with an IPv6 destination",
		in(`"DestinationCidrBlock":"0.0.0.0/0","TransitGatewayId":"tgw-1"`):                                  "UnsupportedOperation: TransitGatewayId is not supported.",
		in(`"DestinationPrefixListId":"pl-9","GatewayId":"` + igw + `"`):                                     "InvalidPrefixListID.NotFound: The prefix list ID 'pl-9' does not exist",
		in(`"DestinationCidrBlock":"10.0.0.0/16","GatewayId":"` + igw + `"`):                                 "RouteAlreadyExists: The route identified by 10.0.0.0/16 already exists.",
		in(`"DestinationCidrBlock":"10.0.7.0/24","GatewayId":"` + igw + `"`):                                 "InvalidParameterValue: The destination CIDR block 10.0.7.0/24 is equal to or more specific than one of this VPC's CIDR blocks. This route can target only an interface or an instance.",
		`{"RouteTableId":"rtb-9","DestinationCidrBlock":"0.0.0.0/0","GatewayId":"` + igw + `"}`:              "InvalidRouteTableID.NotFound: The routeTable ID 'rtb-9' does not exist",
		`{"RouteTableId":"x","DestinationCidrBlock":"0.0.0.0/0","GatewayId":"` + igw + `"}`:                  `InvalidRouteTableId.Malformed: Invalid id: "x" (expecting "rtb-...")`,
	} {
		refuse(b, b.CreateRoute, body, want)
	}
	for _, body := range []string{
		`"DestinationCidrBlock":"0.0.0.0/0","GatewayId":"` + igw + `"`,
		`"DestinationCidrBlock":"192.168.0.1/24","NatGatewayId":"` + nat + `"`,
		`"DestinationCidrBlock":"192.168.1.0/24","InstanceId":"i-1"`,
		`"DestinationCidrBlock":"10.1.0.0/16","VpcPeeringConnectionId":"pcx-1"`,
		`"DestinationIpv6CidrBlock":"::/0","EgressOnlyInternetGatewayId":"` + eigw + `"`,
		`"DestinationPrefixListId":"pl-1","GatewayId":"` + igw + `"`,
	} {
		try(b, b.CreateRoute, in(body))
	}
	refuse(b, b.CreateRoute, in(`"DestinationCidrBlock":"0.0.0.0/0","GatewayId":"`+igw+`"`), "RouteAlreadyExists: The route identified by 0.0.0.0/0 already exists.")
	want := func(igwIs, natIs, eniIs, pcxIs, eigwIs string) string {
		return strings.Join([]string{"10.0.0.0/16 local active", "fdaa:bbcc::/56 local active", "0.0.0.0/0 " + igw + " " + igwIs, "192.168.0.0/24 " + nat + " " + natIs,
			"192.168.1.0/24 " + eni.ID + " i-1 " + eniIs, "10.1.0.0/16 pcx-1 " + pcxIs, "::/0 " + eigw + " " + eigwIs, "pl-1 " + igw + " " + igwIs}, "\n")
	}
	// A NAT gateway that is not available yet leads nowhere.
	if got, want := show(), want("active", "blackhole", "active", "active", "active"); got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	b.settle()
	if got, want := show(), want("active", "active", "active", "active", "active"); got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	for _, filter := range []string{`"route.destination-cidr-block","Values":["192.168.0.0/24"]`, `"route.nat-gateway-id","Values":["` + nat + `"]`, `"route.instance-id","Values":["i-1"]`,
		`"route.vpc-peering-connection-id","Values":["pcx-1"]`, `"route.egress-only-internet-gateway-id","Values":["eigw*"]`, `"route.destination-prefix-list-id","Values":["pl-1"]`, `"route.destination-ipv6-cidr-block","Values":["::/0"]`} {
		if got := try(b, b.DescribeRouteTables, `{"Filters":[{"Name":`+filter+`}]}`).RouteTables; len(got) != 1 || *got[0].RouteTableId != table {
			t.Errorf("%s finds %d", filter, len(got))
		}
	}
	// What is at the other end goes: the route stays, and leads nowhere.
	try(b, b.DeleteNatGateway, `{"NatGatewayId":"`+nat+`"}`)
	try(b, b.DeleteEgressOnlyInternetGateway, `{"EgressOnlyInternetGatewayId":"`+eigw+`"}`)
	b.settle()
	try(b, b.DetachInternetGateway, `{"InternetGatewayId":"`+igw+`","VpcId":"`+vpc+`"}`)
	b.put(func(tx *store.Tx) {
		i, _ := state.Instances.Get(tx, "i-1")
		n := *i
		n.State = "stopped"
		state.Instances.Put(tx, &n)
		p, _ := state.Peerings.Get(tx, "pcx-1")
		m := *p
		m.Status = "deleted"
		state.Peerings.Put(tx, &m)
	})
	if got, want := show(), want("blackhole", "blackhole", "blackhole", "blackhole", "blackhole"); got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	refuse(b, b.ReplaceRoute, in(`"DestinationCidrBlock":"8.8.8.8/32","NetworkInterfaceId":"`+eni.ID+`"`), "InvalidParameterValue: There is no route defined for '8.8.8.8/32' in the route table. Use CreateRoute instead.")
	try(b, b.ReplaceRoute, in(`"DestinationCidrBlock":"0.0.0.0/0","NetworkInterfaceId":"`+eni.ID+`"`))
	try(b, b.ReplaceRoute, in(`"DestinationCidrBlock":"10.0.0.0/16","LocalTarget":true`))
	refuse(b, b.ReplaceRoute, in(`"DestinationCidrBlock":"10.0.0.0/16","NetworkInterfaceId":"`+eni.ID+`"`), "UnsupportedOperation: another target for the local route is not supported.")
	refuse(b, b.DeleteRoute, in(`"DestinationCidrBlock":"10.0.0.0/16"`), "InvalidParameterValue: cannot remove local route 10.0.0.0/16 in route table "+table)
	refuse(b, b.DeleteRoute, in(`"DestinationCidrBlock":"8.8.8.8/32"`), "InvalidRoute.NotFound: no route with destination-cidr-block 8.8.8.8/32 in route table "+table)
	refuse(b, b.DeleteRoute, in(`"DestinationIpv6CidrBlock":"2000::/3"`), "InvalidRoute.NotFound: no route with destination-ipv6-cidr-block 2000::/3 in route table "+table)
	for _, d := range []string{`"DestinationCidrBlock":"0.0.0.0/0"`, `"DestinationIpv6CidrBlock":"::/0"`, `"DestinationPrefixListId":"pl-1"`} {
		try(b, b.DeleteRoute, in(d))
	}
	if n := strings.Count(show(), "\n"); n != 4 {
		t.Errorf("\n%s", show())
	}
	b.limit("vpc/routes-per-table", 5)
	refuse(b, b.CreateRoute, in(`"DestinationCidrBlock":"8.8.8.8/32","NetworkInterfaceId":"`+eni.ID+`"`), "RouteLimitExceeded: The maximum number of routes has been reached.")
}

func TestRouteTableAssociations(t *testing.T) {
	b := newBench(t)
	vpc, subnet := b.network("10.0.0.0/16", "10.0.1.0/24")
	_, foreign := b.network("10.1.0.0/16", "10.1.1.0/24")
	one := *try(b, b.CreateRouteTable, `{"VpcId":"`+vpc+`"}`).RouteTable.RouteTableId
	two := *try(b, b.CreateRouteTable, `{"VpcId":"`+vpc+`"}`).RouteTable.RouteTableId
	main := try(b, b.DescribeRouteTables, `{"Filters":[{"Name":"vpc-id","Values":["`+vpc+`"]},{"Name":"association.main","Values":["true"]}]}`).RouteTables[0]
	first := *try(b, b.AssociateRouteTable, `{"RouteTableId":"`+one+`","SubnetId":"`+subnet+`"}`).AssociationId
	if again := *try(b, b.AssociateRouteTable, `{"RouteTableId":"`+one+`","SubnetId":"`+subnet+`"}`).AssociationId; again != first {
		t.Errorf("%s, then %s", first, again)
	}
	refuse(b, b.AssociateRouteTable, `{"RouteTableId":"`+two+`","SubnetId":"`+subnet+`"}`, "Resource.AlreadyAssociated: the specified association for route table "+two+" conflicts with an existing association")
	refuse(b, b.AssociateRouteTable, `{"RouteTableId":"`+two+`","SubnetId":"`+foreign+`"}`, "InvalidParameterValue: Route table "+two+" and subnet "+foreign+" belong to different networks")
	second := *try(b, b.ReplaceRouteTableAssociation, `{"RouteTableId":"`+two+`","AssociationId":"`+first+`"}`).NewAssociationId
	refuse(b, b.DisassociateRouteTable, `{"AssociationId":"`+first+`"}`, "InvalidAssociationID.NotFound: The association ID '"+first+"' does not exist")
	if got := try(b, b.DescribeRouteTables, `{"Filters":[{"Name":"association.subnet-id","Values":["`+subnet+`"]}]}`).RouteTables; len(got) != 1 || *got[0].RouteTableId != two || *got[0].Associations[0].RouteTableAssociationId != second {
		t.Errorf("%+v", got)
	}
	refuse(b, b.DisassociateRouteTable, `{"AssociationId":"`+*main.Associations[0].RouteTableAssociationId+`"}`, "InvalidParameterValue: cannot disassociate the main route table association "+*main.Associations[0].RouteTableAssociationId)
	// Another table becomes the main one.
	third := *try(b, b.ReplaceRouteTableAssociation, `{"RouteTableId":"`+one+`","AssociationId":"`+*main.Associations[0].RouteTableAssociationId+`"}`).NewAssociationId
	if got := try(b, b.DescribeRouteTables, `{"Filters":[{"Name":"association.route-table-association-id","Values":["`+third+`"]}]}`).RouteTables; len(got) != 1 || *got[0].RouteTableId != one || !*got[0].Associations[0].Main {
		t.Errorf("%+v", got)
	}
	refuse(b, b.DeleteRouteTable, `{"RouteTableId":"`+one+`"}`, "DependencyViolation: The routeTable '"+one+"' has dependencies and cannot be deleted.")
	try(b, b.DeleteRouteTable, `{"RouteTableId":"`+*main.RouteTableId+`"}`)
	try(b, b.DisassociateRouteTable, `{"AssociationId":"`+second+`"}`)
	try(b, b.DeleteRouteTable, `{"RouteTableId":"`+two+`"}`)
	// The same request again makes nothing again.
	x := try(b, b.CreateRouteTable, `{"VpcId":"`+vpc+`","ClientToken":"t"}`).RouteTable
	if y := try(b, b.CreateRouteTable, `{"VpcId":"`+vpc+`","ClientToken":"t"}`).RouteTable; *x.RouteTableId != *y.RouteTableId {
		t.Errorf("%s and %s", *x.RouteTableId, *y.RouteTableId)
	}
	b.limit("vpc/route-tables-per-vpc", 2)
	refuse(b, b.CreateRouteTable, `{"VpcId":"`+vpc+`"}`, "RouteTableLimitExceeded: The maximum number of route tables has been reached.")
	b.limit("vpc/internet-gateways", 1)
	refuse(b, b.CreateInternetGateway, `{}`, "InternetGatewayLimitExceeded: The maximum number of internet gateways has been reached.")
}

func TestElasticIPs(t *testing.T) {
	b := newBench(t)
	b.node()
	vpc, subnet := b.network("10.0.0.0/16", "10.0.1.0/24")
	one, two := try(b, b.AllocateAddress, `{}`), try(b, b.AllocateAddress, `{"Domain":"vpc","TagSpecifications":[{"ResourceType":"elastic-ip","Tags":[{"Key":"n","Value":"2"}]}]}`)
	if *one.PublicIp == *two.PublicIp || *one.PublicIpv4Pool != "amazon" || *one.NetworkBorderGroup != "eu-west-1" || one.Domain != "vpc" {
		t.Errorf("%+v %+v", one, two)
	}
	x, y := b.interfaceRow(subnet), b.interfaceRow(subnet)
	b.put(func(tx *store.Tx) {
		// y has a passing address and a further private one.
		n := *y
		n.Public = netip.MustParseAddr("198.18.3.77")
		n.Secondary = []state.SecondaryAddress{{Address: netip.MustParseAddr("10.0.1.200")}}
		n.Attachment = &state.InterfaceAttachment{Instance: "i-1"}
		state.NetworkInterfaces.Put(tx, &n)
		state.AddressLeases.Put(tx, &state.AddressLease{Scope: state.PublicScope, Address: n.Public, ENI: n.ID})
		state.Instances.Put(tx, &state.Instance{ID: "i-1", Account: account, VPC: vpc, Subnet: subnet, State: "running"})
	})
	on := func(eip *api.AllocateAddressOutput, rest string) string {
		return `{"AllocationId":"` + *eip.AllocationId + `",` + rest + `}`
	}
	refuse(b, b.AssociateAddress, on(one, `"NetworkInterfaceId":"`+x.ID+`"`), "Gateway.NotAttached: Network "+vpc+" is not attached to any internet gateway")
	igw := *try(b, b.CreateInternetGateway, `{}`).InternetGateway.InternetGatewayId
	try(b, b.AttachInternetGateway, `{"InternetGatewayId":"`+igw+`","VpcId":"`+vpc+`"}`)
	for body, want := range map[string]string{
		on(one, `"DryRun":false`):                                                  "MissingParameter: Either instance ID or network interface id must be specified",
		on(one, `"NetworkInterfaceId":"eni-9"`):                                    "InvalidNetworkInterfaceID.NotFound: The networkInterface ID 'eni-9' does not exist",
		on(one, `"InstanceId":"i-9"`):                                              "InvalidInstanceID.NotFound: The instance ID 'i-9' does not exist",
		on(one, `"NetworkInterfaceId":"`+x.ID+`","PrivateIpAddress":"10.0.1.250"`): "InvalidParameterValue: The private IP address 10.0.1.250 is not assigned to network interface " + x.ID,
		`{"AllocationId":"eipalloc-9","NetworkInterfaceId":"` + x.ID + `"}`:        "InvalidAllocationID.NotFound: The allocation ID 'eipalloc-9' does not exist",
		`{"PublicIp":"1.2.3.4","NetworkInterfaceId":"` + x.ID + `"}`:               "InvalidAddress.NotFound: Address '1.2.3.4' not found.",
	} {
		refuse(b, b.AssociateAddress, body, want)
	}
	first := *try(b, b.AssociateAddress, on(one, `"NetworkInterfaceId":"`+x.ID+`"`)).AssociationId
	if again := *try(b, b.AssociateAddress, on(one, `"NetworkInterfaceId":"`+x.ID+`"`)).AssociationId; again != first {
		t.Errorf("%s, then %s", first, again)
	}
	refuse(b, b.AssociateAddress, on(one, `"InstanceId":"i-1","AllowReassociation":false`), "Resource.AlreadyAssociated: resource "+*one.AllocationId+" is already associated with associate-id "+first)
	refuse(b, b.ReleaseAddress, `{"AllocationId":"`+*one.AllocationId+`"}`, "InvalidIPAddress.InUse: Address "+*one.PublicIp+" is in use.")
	if a := try(b, b.DescribeAddresses, `{"Filters":[{"Name":"association-id","Values":["`+first+`"]}]}`).Addresses; len(a) != 1 || *a[0].NetworkInterfaceId != x.ID || *a[0].PrivateIpAddress != x.Address.String() || *a[0].NetworkInterfaceOwnerId != account {
		t.Errorf("%+v", a)
	}
	// It moves to the instance, whose passing address goes for good.
	second := *try(b, b.AssociateAddress, on(one, `"InstanceId":"i-1"`)).AssociationId
	snap := b.db.Snapshot()
	nx, _ := state.NetworkInterfaces.Get(snap, x.ID)
	ny, _ := state.NetworkInterfaces.Get(snap, y.ID)
	if nx.Public.IsValid() || nx.Allocation != "" || ny.Public.String() != *one.PublicIp || ny.Allocation != *one.AllocationId || state.AddressLeases.Has(snap, state.LeaseKey(state.PublicScope, netip.MustParseAddr("198.18.3.77"))) {
		t.Errorf("%+v\n%+v", nx, ny)
	}
	// A second address on the further private one; then the first takes its place.
	try(b, b.AssociateAddress, on(two, `"NetworkInterfaceId":"`+y.ID+`","PrivateIpAddress":"10.0.1.200"`))
	if a := try(b, b.DescribeAddresses, `{"Filters":[{"Name":"instance-id","Values":["i-1"]},{"Name":"tag:n","Values":["2"]}]}`).Addresses; len(a) != 1 || *a[0].PrivateIpAddress != "10.0.1.200" || *a[0].InstanceId != "i-1" {
		t.Errorf("%+v", a)
	}
	refuse(b, b.AssociateAddress, on(one, `"NetworkInterfaceId":"`+y.ID+`","PrivateIpAddress":"10.0.1.200","AllowReassociation":false`), "Resource.AlreadyAssociated: resource "+*one.AllocationId+" is already associated with associate-id "+second)
	try(b, b.AssociateAddress, on(one, `"NetworkInterfaceId":"`+y.ID+`","PrivateIpAddress":"10.0.1.200"`))
	ny, _ = state.NetworkInterfaces.Get(b.db.Snapshot(), y.ID)
	if ny.Public.IsValid() || ny.Secondary[0].Public.String() != *one.PublicIp {
		t.Errorf("%+v", ny)
	}
	free := try(b, b.DescribeAddresses, `{"PublicIps":["`+*two.PublicIp+`"]}`).Addresses
	if len(free) != 1 || free[0].AssociationId != nil || free[0].NetworkInterfaceId != nil {
		t.Errorf("%+v", free)
	}
	try(b, b.DisassociateAddress, `{"PublicIp":"`+*one.PublicIp+`"}`)
	refuse(b, b.DisassociateAddress, `{"AssociationId":"`+second+`"}`, "InvalidAssociationID.NotFound: The association ID '"+second+"' does not exist")
	// An interface that goes lets its Elastic IP go.
	try(b, b.AssociateAddress, on(one, `"NetworkInterfaceId":"`+x.ID+`"`))
	b.put(func(tx *store.Tx) {
		n, _ := state.NetworkInterfaces.Get(tx, x.ID)
		m := *n
		m.Deleting = true
		state.NetworkInterfaces.Put(tx, &m)
	})
	b.settle()
	if a := try(b, b.DescribeAddresses, `{"AllocationIds":["`+*one.AllocationId+`"]}`).Addresses[0]; a.AssociationId != nil {
		t.Errorf("%+v", a)
	}
	if a := try(b, b.ModifyAddressAttribute, on(one, `"DomainName":"x.test"`)).Address; *a.PtrRecord != "x.test" {
		t.Errorf("%+v", a)
	}
	if a := try(b, b.DescribeAddressesAttribute, `{"AllocationIds":["`+*one.AllocationId+`"]}`).Addresses; len(a) != 1 || *a[0].PtrRecord != "x.test" {
		t.Errorf("%+v", a)
	}
	try(b, b.ResetAddressAttribute, on(one, `"Attribute":"domain-name"`))
	b.limit("vpc/elastic-ips", 2)
	refuse(b, b.AllocateAddress, `{}`, "AddressLimitExceeded: The maximum number of addresses has been reached.")
	b.account = "999999999999"
	refuse(b, b.ReleaseAddress, `{"AllocationId":"`+*one.AllocationId+`"}`, "InvalidAllocationID.NotFound: The allocation ID '"+*one.AllocationId+"' does not exist")
	b.account = account
	try(b, b.ReleaseAddress, `{"AllocationId":"`+*one.AllocationId+`"}`)
	try(b, b.ReleaseAddress, `{"PublicIp":"`+*two.PublicIp+`"}`)
	refuse(b, b.ReleaseAddress, `{"AllocationId":"`+*one.AllocationId+`"}`, "InvalidAllocationID.NotFound: The allocation ID '"+*one.AllocationId+"' does not exist")
	for l := range state.AddressLeases.By(b.db.Snapshot(), "scope", state.PublicScope) {
		t.Errorf("%s is leased to nobody", l.Address)
	}
}

func TestNATGateways(t *testing.T) {
	b := newBench(t)
	vpc, subnet := b.network("10.0.0.0/16", "10.0.1.0/24")
	eip := func() string { return *try(b, b.AllocateAddress, `{}`).AllocationId }
	one := eip()
	in := func(rest string) string { return `{"SubnetId":"` + subnet + `",` + rest + `}` }
	show := func(id string) api.NatGateway {
		t.Helper()
		return try(b, b.DescribeNatGateways, `{"NatGatewayIds":["`+id+`"]}`).NatGateways[0]
	}
	for body, want := range map[string]string{
		in(`"ConnectivityType":"public"`):                                "MissingParameter: The request must contain the parameter AllocationId",
		in(`"AllocationId":"eipalloc-9"`):                                "InvalidAllocationID.NotFound: The allocation ID 'eipalloc-9' does not exist",
		in(`"AllocationId":"` + one + `","ConnectivityType":"private"`):  "InvalidParameterCombination: AllocationId cannot be specified for a NAT gateway with connectivity type private",
		in(`"AllocationId":"` + one + `","PrivateIpAddress":"10.0.1.2"`): "InvalidParameterValue: Address 10.0.1.2 is in subnet's reserved address range",
		in(`"AllocationId":"` + one + `","PrivateIpAddress":"10.0.2.9"`): "InvalidParameterValue: Address does not fall within the subnet's address range",
		in(`"AllocationId":"` + one + `","AvailabilityMode":"regional"`): "UnsupportedOperation: AvailabilityMode regional is not supported.",
		`{"SubnetId":"subnet-9","AllocationId":"` + one + `"}`:           "InvalidSubnetID.NotFound: The subnet ID 'subnet-9' does not exist",
	} {
		refuse(b, b.CreateNatGateway, body, want)
	}
	// Without an internet gateway it fails, late as in AWS; the address stays its owner's.
	failed := *try(b, b.CreateNatGateway, in(`"AllocationId":"`+one+`"`)).NatGateway.NatGatewayId
	b.settle()
	if g := show(failed); g.State != "failed" || *g.FailureCode != "Gateway.NotAttached" || *g.FailureMessage != "Network "+vpc+" has no Internet gateway attached" {
		t.Errorf("%+v", g)
	}
	igw := *try(b, b.CreateInternetGateway, `{}`).InternetGateway.InternetGatewayId
	try(b, b.AttachInternetGateway, `{"InternetGatewayId":"`+igw+`","VpcId":"`+vpc+`"}`)
	made := try(b, b.CreateNatGateway, in(`"AllocationId":"`+one+`","PrivateIpAddress":"10.0.1.77","ClientToken":"t","TagSpecifications":[{"ResourceType":"natgateway","Tags":[{"Key":"Name","Value":"n"}]}]`)).NatGateway
	id := *made.NatGatewayId
	if again := *try(b, b.CreateNatGateway, in(`"AllocationId":"`+one+`","PrivateIpAddress":"10.0.1.77","ClientToken":"t"`)).NatGateway.NatGatewayId; again != id {
		t.Errorf("%s, then %s", id, again)
	}
	if a := made.NatGatewayAddresses[0]; made.State != "pending" || *a.AllocationId != one || *a.PrivateIp != "10.0.1.77" || !*a.IsPrimary || a.NetworkInterfaceId == nil {
		t.Errorf("%+v", made)
	}
	// While no machine has it, it is not said to be there.
	b.settle()
	if g := show(id); g.State != "pending" {
		t.Errorf("%+v", g)
	}
	b.node()
	b.settle()
	if g := show(id); g.State != "available" || *g.Tags[0].Value != "n" || *g.VpcId != vpc || g.ConnectivityType != "public" {
		t.Errorf("%+v", g)
	}
	eni := try(b, b.DescribeNetworkInterfaces, `{"Filters":[{"Name":"interface-type","Values":["nat_gateway"]}]}`).NetworkInterfaces
	if len(eni) != 1 || *eni[0].Description != "Interface for NAT Gateway "+id || *eni[0].SourceDestCheck || !*eni[0].RequesterManaged || *eni[0].Association.PublicIp != *show(id).NatGatewayAddresses[0].PublicIp {
		t.Errorf("%+v", eni)
	}
	association := *show(id).NatGatewayAddresses[0].AssociationId
	refuse(b, b.DisassociateAddress, `{"AssociationId":"`+association+`"}`, "AuthFailure: You do not have permission to access the specified resource.")
	// An address that is taken makes another one fail.
	late := *try(b, b.CreateNatGateway, in(`"AllocationId":"`+one+`"`)).NatGateway.NatGatewayId
	if g := show(late); g.State != "failed" || *g.FailureCode != "Resource.AlreadyAssociated" || *g.FailureMessage != "Elastic IP address ["+one+"] is already associated" {
		t.Errorf("%+v", g)
	}
	// Further addresses of both types.
	two := eip()
	more := try(b, b.AssociateNatGatewayAddress, `{"NatGatewayId":"`+id+`","AllocationIds":["`+two+`"]}`).NatGatewayAddresses
	if len(more) != 2 || *more[1].IsPrimary || *more[1].AllocationId != two {
		t.Errorf("%+v", more)
	}
	refuse(b, b.DisassociateNatGatewayAddress, `{"NatGatewayId":"`+id+`","AssociationIds":["`+association+`"]}`, "InvalidParameterValue: The primary Elastic IP address of NatGateway "+id+" cannot be disassociated")
	try(b, b.DisassociateNatGatewayAddress, `{"NatGatewayId":"`+id+`","AssociationIds":["`+*more[1].AssociationId+`"]}`)
	try(b, b.ReleaseAddress, `{"AllocationId":"`+two+`"}`)
	refuse(b, b.AssignPrivateNatGatewayAddress, `{"NatGatewayId":"`+id+`","PrivateIpAddressCount":1}`, "UnsupportedOperation: This operation is not supported for NatGateway "+id+" of its connectivity type")

	private := *try(b, b.CreateNatGateway, in(`"ConnectivityType":"private","SecondaryPrivateIpAddresses":["10.0.1.90"]`)).NatGateway.NatGatewayId
	refuse(b, b.AssignPrivateNatGatewayAddress, `{"NatGatewayId":"`+private+`","PrivateIpAddressCount":1}`, "IncorrectState: NatGateway "+private+" is in state pending; it must be available")
	b.settle()
	try(b, b.AssignPrivateNatGatewayAddress, `{"NatGatewayId":"`+private+`","PrivateIpAddresses":["10.0.1.91"]}`)
	refuse(b, b.AssignPrivateNatGatewayAddress, `{"NatGatewayId":"`+private+`","PrivateIpAddresses":["10.0.1.77"]}`, "InvalidIPAddress.InUse: Address 10.0.1.77 is in use.")
	try(b, b.UnassignPrivateNatGatewayAddress, `{"NatGatewayId":"`+private+`","PrivateIpAddresses":["10.0.1.90"]}`)
	if a := show(private).NatGatewayAddresses; len(a) != 2 || *a[1].PrivateIp != "10.0.1.91" || a[0].PublicIp != nil {
		t.Errorf("%+v", a)
	}
	if got := try(b, b.DescribeNatGateways, `{"Filter":[{"Name":"state","Values":["available"]},{"Name":"vpc-id","Values":["`+vpc+`"]},{"Name":"subnet-id","Values":["`+subnet+`"]}]}`).NatGateways; len(got) != 2 {
		t.Errorf("%d are available", len(got))
	}
	b.limit("vpc/nat-gateways-per-zone", 2)
	refuse(b, b.CreateNatGateway, in(`"ConnectivityType":"private"`), "NatGatewayLimitExceeded: Performing this operation would exceed the limit of 2 NAT gateways")
	for _, g := range []string{id, private} {
		try(b, b.DeleteNatGateway, `{"NatGatewayId":"`+g+`"}`)
		if got := show(g); got.State != "deleting" {
			t.Errorf("%+v", got)
		}
	}
	b.settle()
	for _, g := range []string{id, private} {
		if got := show(g); got.State != "deleted" || got.DeleteTime == nil || len(got.NatGatewayAddresses) == 0 {
			t.Errorf("%+v", got)
		}
		refuse(b, b.DeleteNatGateway, `{"NatGatewayId":"`+g+`"}`, "NatGatewayNotFound: NatGateway "+g+" was not found")
	}
	try(b, b.ReleaseAddress, `{"AllocationId":"`+one+`"}`)
	for l := range state.AddressLeases.All(b.db.Snapshot()) {
		t.Errorf("%s is leased to nobody", l.Address)
	}
	// A subnet without room.
	_, small := b.network("10.2.0.0/16", "10.2.0.0/28")
	for range 11 {
		b.interfaceRow(small)
	}
	full := *try(b, b.CreateNatGateway, `{"SubnetId":"`+small+`","ConnectivityType":"private"}`).NatGateway.NatGatewayId
	if g := show(full); g.State != "failed" || *g.FailureCode != "InsufficientFreeAddressesInSubnet" {
		t.Errorf("%+v", g)
	}
}

func TestDhcpOptions(t *testing.T) {
	b := newBench(t)
	vpc, _ := b.network("10.0.0.0/16", "10.0.1.0/24")
	d := try(b, b.CreateDhcpOptions, `{"DhcpConfigurations":[{"Key":"domain-name-servers","Values":["10.0.0.9","AmazonProvidedDNS"]},{"Key":"netbios-node-type","Values":["2"]}],"TagSpecifications":[{"ResourceType":"dhcp-options","Tags":[{"Key":"a","Value":"b"}]}]}`).DhcpOptions
	try(b, b.AssociateDhcpOptions, `{"DhcpOptionsId":"`+*d.DhcpOptionsId+`","VpcId":"`+vpc+`"}`)
	show := func() string { return *try(b, b.DescribeVpcs, `{"VpcIds":["`+vpc+`"]}`).Vpcs[0].DhcpOptionsId }
	if show() != *d.DhcpOptionsId {
		t.Error(show())
	}
	if got := try(b, b.DescribeDhcpOptions, `{"Filters":[{"Name":"value","Values":["10.0.0.9"]},{"Name":"key","Values":["netbios*"]},{"Name":"tag:a","Values":["b"]}]}`).DhcpOptions; len(got) != 1 || len(got[0].DhcpConfigurations) != 2 {
		t.Errorf("%+v", got)
	}
	try(b, b.AssociateDhcpOptions, `{"DhcpOptionsId":"default","VpcId":"`+vpc+`"}`)
	if show() != "default" {
		t.Error(show())
	}
	try(b, b.DeleteDhcpOptions, `{"DhcpOptionsId":"`+*d.DhcpOptionsId+`"}`)
	refuse(b, b.AssociateDhcpOptions, `{"DhcpOptionsId":"`+*d.DhcpOptionsId+`","VpcId":"`+vpc+`"}`, "InvalidDhcpOptionID.NotFound: The dhcpOption ID '"+*d.DhcpOptionsId+"' does not exist")
	for body, want := range map[string]string{
		`{"DhcpConfigurations":[{"Key":"x","Values":["y"]}]}`:                   "InvalidParameterValue: Value (x) for parameter name is invalid. Unknown DHCP option",
		`{"DhcpConfigurations":[{"Key":"netbios-node-type","Values":["3"]}]}`:   "InvalidParameterValue: Value (3) for parameter value is invalid. Invalid DHCP option value",
		`{"DhcpConfigurations":[{"Key":"domain-name-servers","Values":["a"]}]}`: "InvalidParameterValue: Value (a) for parameter value is invalid. Invalid DHCP option value",
		`{"DhcpConfigurations":[{"Key":"domain-name","Values":["a","b"]}]}`:     "InvalidParameterValue: The DHCP option 'domain-name' takes from 1 to 1 values",
		`{"DhcpConfigurations":[]}`:                                             "MissingParameter: The request must contain the parameter dhcpConfiguration",
	} {
		refuse(b, b.CreateDhcpOptions, body, want)
	}
}

// Whatever overlaps in time: a subnet never goes while an interface comes.
func TestDeleteSubnetSeesAnInterfaceThatComesMeanwhile(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		_, subnet := b.network("10.0.0.0/16", fmt.Sprintf("10.0.%d.0/24", i))
		b.limit("vpc/vpcs", 100)
		s, _ := state.Subnets.Get(b.db.Snapshot(), subnet)
		made := make(chan error, 1)
		go func() {
			made <- b.db.Update(b.Context(), func(tx *store.Tx) error {
				if _, err := subnetOf(tx, account, subnet); err != nil {
					return err
				}
				e, leases, err := state.NewInterface(state.FreeAddresses(tx), "eni-"+subnet, s, state.InterfaceAddresses{}, now)
				if err != nil {
					return err
				}
				state.NetworkInterfaces.Put(tx, e)
				for _, l := range leases {
					state.AddressLeases.Put(tx, l)
				}
				return nil
			})
		}()
		_, deleted := b.DeleteSubnet(b.Context(), &api.DeleteSubnetInput{SubnetId: &subnet})
		if created := <-made; (created == nil) == (deleted == nil) {
			t.Fatalf("created: %v, deleted: %v", created, deleted)
		}
	}
}
