package service_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/berth-run/berth/auth"
	awsec2 "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/address"
	"github.com/berth-run/berth/control/gateway"
	"github.com/berth-run/berth/service"
	ec2api "github.com/berth-run/berth/service/ec2"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// networks is EC2 behind the door with all that decides on networks, and a
// machine that attaches and removes interfaces as it is told.
func networks(t *testing.T) (*ec2.Client, *testRegion) {
	t.Helper()
	newID := func() string {
		b := make([]byte, 16)
		rand.Read(b)
		return hex.EncodeToString(b)
	}
	zone := &state.Region{Name: region, Account: account, ShortID: "0a0b0c", PublicPool: netip.MustParsePrefix("198.18.0.0/24"),
		Zones: []state.Zone{{Name: region + "a", ID: "euc1-az1"}, {Name: region + "b", ID: "euc1-az2"}}}
	r := startWith(t, func(c *service.Config) {
		x := ec2api.New(ec2api.Config{DB: c.DB, Region: region, Account: func(ctx context.Context) string { return auth.FromContext(ctx).Account }, Now: time.Now, NewID: newID})
		for i := range c.Services {
			if c.Services[i].Name == "ec2" {
				c.Services[i] = service.Registration{Service: awsec2.NewService(x), Authorize: x.Authorize()}
			}
		}
	})
	err := r.db.Update(t.Context(), func(tx *store.Tx) error {
		state.Regions.Put(tx, zone)
		state.Nodes.Put(tx, &state.Node{Name: "machine"})
		ec2api.Furnish(tx, zone, account, time.Now(), newID)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); group.Wait() })
	clock := control.Clock{Now: time.Now, NewID: newID}
	for _, c := range []control.Controller{address.Controller, gateway.Controller} {
		group.Go(func() {
			if err := control.Run(ctx, r.db, c, clock, slog.New(slog.DiscardHandler)); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", c.Name, err)
			}
		})
	}
	group.Go(func() { machine(ctx, t, r.db) })
	return ec2.NewFromConfig(r.asRoot()), r
}

// machine says of the interfaces that are its own what a machine would.
func machine(ctx context.Context, t *testing.T, db *store.DB) {
	w := db.Watch(state.NetworkInterfaces)
	defer w.Close()
	for {
		if _, _, err := w.Next(ctx); err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return
		}
		err := db.Update(ctx, func(tx *store.Tx) error {
			for e := range state.NetworkInterfaces.By(tx, "node", "machine") {
				n := *e
				if e.Leaving() {
					n = *e.Left()
				} else {
					n.Attached = true
				}
				state.NetworkInterfaces.Put(tx, &n)
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func refused(t *testing.T, err error, code string) {
	t.Helper()
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != code {
		t.Errorf("%v, want %s", err, code)
	}
}

// reads demands that what is read is the same twice, and has these values: what
// Terraform's provider compares with its configuration.
func reads(t *testing.T, read func() any, want map[string]string) {
	t.Helper()
	text := func() string {
		b, err := json.Marshal(read())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := text()
	if again := text(); first != again {
		t.Errorf("it reads differently twice:\n%s\n%s", first, again)
	}
	var have map[string]any
	if err := json.Unmarshal([]byte(first), &have); err != nil {
		t.Fatal(err)
	}
	for path, v := range want {
		var x any = have
		for part := range strings.SplitSeq(path, ".") {
			switch y := x.(type) {
			case map[string]any:
				x = y[part]
			case []any:
				var i int
				if _, err := fmt.Sscan(part, &i); err != nil || i >= len(y) {
					x = nil
				} else {
					x = y[i]
				}
			}
		}
		if got := fmt.Sprint(x); got != v {
			t.Errorf("%s is %s, want %s", path, got, v)
		}
	}
}

// patience is how long anything may take. Nothing is measured with it.
const patience = time.Minute

// The lives of the resources of a network as Terraform leads them: each is made
// with tags, read until it is there, changed, read again, deleted, and gone by
// the code that Terraform takes for gone.
func TestTerraformNetwork(t *testing.T) {
	c, r := networks(t)
	ctx := t.Context()
	tags := func(kind types.ResourceType) []types.TagSpecification {
		return []types.TagSpecification{{ResourceType: kind, Tags: []types.Tag{{Key: new("Name"), Value: new("tf")}}}}
	}

	// aws_vpc
	vpc := must[*ec2.CreateVpcOutput](t)(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: new("10.0.0.0/16"), AmazonProvidedIpv6CidrBlock: new(true), TagSpecifications: tags("vpc")})).Vpc.VpcId
	vpcs := &ec2.DescribeVpcsInput{VpcIds: []string{*vpc}}
	if err := ec2.NewVpcAvailableWaiter(c, func(o *ec2.VpcAvailableWaiterOptions) { o.MinDelay = time.Millisecond }).Wait(ctx, vpcs, patience); err != nil {
		t.Fatal(err)
	}
	must[*ec2.ModifyVpcAttributeOutput](t)(c.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: vpc, EnableDnsHostnames: &types.AttributeBooleanValue{Value: new(true)}}))
	readVpc := func() any { return must[*ec2.DescribeVpcsOutput](t)(c.DescribeVpcs(ctx, vpcs)).Vpcs[0] }
	reads(t, readVpc, map[string]string{"CidrBlock": "10.0.0.0/16", "State": "available", "InstanceTenancy": "default", "IsDefault": "false", "Tags.0.Value": "tf", "OwnerId": account,
		"Ipv6CidrBlockAssociationSet.0.Ipv6CidrBlockState.State": "associated", "Ipv6CidrBlockAssociationSet.0.Ipv6Pool": "Amazon", "Ipv6CidrBlockAssociationSet.0.NetworkBorderGroup": region})
	six := *must[*ec2.DescribeVpcsOutput](t)(c.DescribeVpcs(ctx, vpcs)).Vpcs[0].Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlock
	for attribute, of := range map[types.VpcAttributeName]func(*ec2.DescribeVpcAttributeOutput) *types.AttributeBooleanValue{
		"enableDnsHostnames": func(o *ec2.DescribeVpcAttributeOutput) *types.AttributeBooleanValue { return o.EnableDnsHostnames },
		"enableDnsSupport":   func(o *ec2.DescribeVpcAttributeOutput) *types.AttributeBooleanValue { return o.EnableDnsSupport },
		"enableNetworkAddressUsageMetrics": func(o *ec2.DescribeVpcAttributeOutput) *types.AttributeBooleanValue {
			return o.EnableNetworkAddressUsageMetrics
		},
	} {
		if v := of(must[*ec2.DescribeVpcAttributeOutput](t)(c.DescribeVpcAttribute(ctx, &ec2.DescribeVpcAttributeInput{VpcId: vpc, Attribute: attribute}))); v == nil || *v.Value == strings.Contains(string(attribute), "Metrics") {
			t.Errorf("%s: %+v", attribute, v)
		}
	}
	// What the provider looks up beside: the main table, the default ACL and group.
	of := []types.Filter{{Name: new("vpc-id"), Values: []string{*vpc}}}
	mains := must[*ec2.DescribeRouteTablesOutput](t)(c.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: append(slices.Clone(of), types.Filter{Name: new("association.main"), Values: []string{"true"}})})).RouteTables
	acls := must[*ec2.DescribeNetworkAclsOutput](t)(c.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{Filters: append(slices.Clone(of), types.Filter{Name: new("default"), Values: []string{"true"}})})).NetworkAcls
	groups := must[*ec2.DescribeSecurityGroupsOutput](t)(c.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: append(slices.Clone(of), types.Filter{Name: new("group-name"), Values: []string{"default"}})})).SecurityGroups
	if len(mains) != 1 || len(acls) != 1 || len(groups) != 1 {
		t.Errorf("%d main tables, %d default ACLs, %d default groups", len(mains), len(acls), len(groups))
	}

	// aws_subnet
	subnet := must[*ec2.CreateSubnetOutput](t)(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: vpc, CidrBlock: new("10.0.1.0/24"), Ipv6CidrBlock: new(strings.Replace(six, "/56", "/64", 1)), AvailabilityZone: new(region + "b"), TagSpecifications: tags("subnet")})).Subnet.SubnetId
	subnets := &ec2.DescribeSubnetsInput{SubnetIds: []string{*subnet}}
	if err := ec2.NewSubnetAvailableWaiter(c, func(o *ec2.SubnetAvailableWaiterOptions) { o.MinDelay = time.Millisecond }).Wait(ctx, subnets, patience); err != nil {
		t.Fatal(err)
	}
	for _, in := range []*ec2.ModifySubnetAttributeInput{
		{MapPublicIpOnLaunch: &types.AttributeBooleanValue{Value: new(true)}}, {AssignIpv6AddressOnCreation: &types.AttributeBooleanValue{Value: new(true)}},
		{EnableDns64: &types.AttributeBooleanValue{Value: new(false)}}, {PrivateDnsHostnameTypeOnLaunch: types.HostnameTypeIpName},
	} {
		in.SubnetId = subnet
		must[*ec2.ModifySubnetAttributeOutput](t)(c.ModifySubnetAttribute(ctx, in))
	}
	reads(t, func() any { return must[*ec2.DescribeSubnetsOutput](t)(c.DescribeSubnets(ctx, subnets)).Subnets[0] }, map[string]string{
		"CidrBlock": "10.0.1.0/24", "AvailabilityZone": region + "b", "AvailabilityZoneId": "euc1-az2", "MapPublicIpOnLaunch": "true", "AssignIpv6AddressOnCreation": "true", "EnableDns64": "false",
		"Ipv6Native": "false", "PrivateDnsNameOptionsOnLaunch.HostnameType": "ip-name", "PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsARecord": "false", "Tags.0.Key": "Name",
		"SubnetArn": "arn:aws:ec2:" + region + ":" + account + ":subnet/" + *subnet, "AvailableIpAddressCount": "251", "Ipv6CidrBlockAssociationSet.0.Ipv6CidrBlockState.State": "associated"})

	// aws_internet_gateway, aws_eip, aws_nat_gateway
	igw := must[*ec2.CreateInternetGatewayOutput](t)(c.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{TagSpecifications: tags("internet-gateway")})).InternetGateway.InternetGatewayId
	igws := &ec2.DescribeInternetGatewaysInput{InternetGatewayIds: []string{*igw}}
	if err := ec2.NewInternetGatewayExistsWaiter(c).Wait(ctx, igws, patience); err != nil {
		t.Fatal(err)
	}
	must[*ec2.AttachInternetGatewayOutput](t)(c.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: igw, VpcId: vpc}))
	reads(t, func() any {
		return must[*ec2.DescribeInternetGatewaysOutput](t)(c.DescribeInternetGateways(ctx, igws)).InternetGateways[0]
	},
		map[string]string{"Attachments.0.State": "available", "Attachments.0.VpcId": *vpc, "Tags.0.Value": "tf"})
	eip := must[*ec2.AllocateAddressOutput](t)(c.AllocateAddress(ctx, &ec2.AllocateAddressInput{Domain: types.DomainTypeVpc, TagSpecifications: tags("elastic-ip")}))
	eips := &ec2.DescribeAddressesInput{AllocationIds: []string{*eip.AllocationId}}
	readEIP := func() any { return must[*ec2.DescribeAddressesOutput](t)(c.DescribeAddresses(ctx, eips)).Addresses[0] }
	reads(t, readEIP, map[string]string{"PublicIp": *eip.PublicIp, "Domain": "vpc", "PublicIpv4Pool": "amazon", "NetworkBorderGroup": region, "AssociationId": "<nil>", "Tags.0.Value": "tf"})
	nat := must[*ec2.CreateNatGatewayOutput](t)(c.CreateNatGateway(ctx, &ec2.CreateNatGatewayInput{SubnetId: subnet, AllocationId: eip.AllocationId, TagSpecifications: tags("natgateway")})).NatGateway.NatGatewayId
	nats := &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{*nat}}
	if err := ec2.NewNatGatewayAvailableWaiter(c, func(o *ec2.NatGatewayAvailableWaiterOptions) {
		o.MinDelay = 5 * time.Millisecond
		o.MaxDelay = 50 * time.Millisecond
	}).Wait(ctx, nats, patience); err != nil {
		t.Fatal(err)
	}
	reads(t, func() any {
		return must[*ec2.DescribeNatGatewaysOutput](t)(c.DescribeNatGateways(ctx, nats)).NatGateways[0]
	}, map[string]string{
		"State": "available", "ConnectivityType": "public", "SubnetId": *subnet, "NatGatewayAddresses.0.AllocationId": *eip.AllocationId, "NatGatewayAddresses.0.IsPrimary": "true", "NatGatewayAddresses.0.PublicIp": *eip.PublicIp, "Tags.0.Value": "tf"})
	reads(t, readEIP, map[string]string{"ServiceManaged": "nat", "PrivateIpAddress": *must[*ec2.DescribeNatGatewaysOutput](t)(c.DescribeNatGateways(ctx, nats)).NatGateways[0].NatGatewayAddresses[0].PrivateIp})

	// aws_egress_only_internet_gateway, aws_route_table, aws_route, aws_route_table_association
	eigw := must[*ec2.CreateEgressOnlyInternetGatewayOutput](t)(c.CreateEgressOnlyInternetGateway(ctx, &ec2.CreateEgressOnlyInternetGatewayInput{VpcId: vpc, TagSpecifications: tags("egress-only-internet-gateway")})).EgressOnlyInternetGateway.EgressOnlyInternetGatewayId
	table := must[*ec2.CreateRouteTableOutput](t)(c.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: vpc, TagSpecifications: tags("route-table")})).RouteTable.RouteTableId
	must[*ec2.CreateRouteOutput](t)(c.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: table, DestinationCidrBlock: new("0.0.0.0/0"), NatGatewayId: nat}))
	must[*ec2.CreateRouteOutput](t)(c.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: table, DestinationIpv6CidrBlock: new("::/0"), EgressOnlyInternetGatewayId: eigw}))
	association := must[*ec2.AssociateRouteTableOutput](t)(c.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: table, SubnetId: subnet})).AssociationId
	tables := &ec2.DescribeRouteTablesInput{RouteTableIds: []string{*table}}
	readTable := func() any {
		return must[*ec2.DescribeRouteTablesOutput](t)(c.DescribeRouteTables(ctx, tables)).RouteTables[0]
	}
	reads(t, readTable, map[string]string{"Routes.0.GatewayId": "local", "Routes.0.Origin": "CreateRouteTable", "Routes.2.DestinationCidrBlock": "0.0.0.0/0", "Routes.2.NatGatewayId": *nat, "Routes.2.State": "active", "Routes.2.Origin": "CreateRoute",
		"Routes.2.GatewayId": "<nil>", "Routes.3.DestinationIpv6CidrBlock": "::/0", "Routes.3.EgressOnlyInternetGatewayId": *eigw, "Associations.0.RouteTableAssociationId": *association, "Associations.0.AssociationState.State": "associated", "Associations.0.Main": "false"})
	must[*ec2.ReplaceRouteOutput](t)(c.ReplaceRoute(ctx, &ec2.ReplaceRouteInput{RouteTableId: table, DestinationCidrBlock: new("0.0.0.0/0"), GatewayId: igw}))
	reads(t, readTable, map[string]string{"Routes.2.GatewayId": *igw, "Routes.2.NatGatewayId": "<nil>"})

	// A dry run says what would be, and does nothing.
	_, err := c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: new("10.9.0.0/16"), DryRun: new(true)})
	refused(t, err, "DryRunOperation")
	_, err = c.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: subnet, DryRun: new(true)})
	refused(t, err, "DryRunOperation")
	if n := len(must[*ec2.DescribeVpcsOutput](t)(c.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{})).Vpcs); n != 2 {
		t.Errorf("%d VPCs", n)
	}
	_, err = ec2.NewFromConfig(r.user("bob", "")).CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: new("10.9.0.0/16"), DryRun: new(true)})
	refused(t, err, "UnauthorizedOperation")

	// All of it goes, in Terraform's order.
	must[*ec2.DisassociateRouteTableOutput](t)(c.DisassociateRouteTable(ctx, &ec2.DisassociateRouteTableInput{AssociationId: association}))
	must[*ec2.DeleteRouteOutput](t)(c.DeleteRoute(ctx, &ec2.DeleteRouteInput{RouteTableId: table, DestinationCidrBlock: new("0.0.0.0/0")}))
	_, err = c.DeleteRoute(ctx, &ec2.DeleteRouteInput{RouteTableId: table, DestinationCidrBlock: new("0.0.0.0/0")})
	refused(t, err, "InvalidRoute.NotFound")
	must[*ec2.DeleteRouteTableOutput](t)(c.DeleteRouteTable(ctx, &ec2.DeleteRouteTableInput{RouteTableId: table}))
	_, err = c.DescribeRouteTables(ctx, tables)
	refused(t, err, "InvalidRouteTableID.NotFound")
	must[*ec2.DeleteEgressOnlyInternetGatewayOutput](t)(c.DeleteEgressOnlyInternetGateway(ctx, &ec2.DeleteEgressOnlyInternetGatewayInput{EgressOnlyInternetGatewayId: eigw}))
	_, err = c.DescribeEgressOnlyInternetGateways(ctx, &ec2.DescribeEgressOnlyInternetGatewaysInput{EgressOnlyInternetGatewayIds: []string{*eigw}})
	refused(t, err, "InvalidGatewayID.NotFound")
	must[*ec2.DeleteNatGatewayOutput](t)(c.DeleteNatGateway(ctx, &ec2.DeleteNatGatewayInput{NatGatewayId: nat}))
	if err := ec2.NewNatGatewayDeletedWaiter(c, func(o *ec2.NatGatewayDeletedWaiterOptions) {
		o.MinDelay = 5 * time.Millisecond
		o.MaxDelay = 50 * time.Millisecond
	}).Wait(ctx, nats, patience); err != nil {
		t.Fatal(err)
	}
	must[*ec2.ReleaseAddressOutput](t)(c.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: eip.AllocationId}))
	_, err = c.DescribeAddresses(ctx, eips)
	refused(t, err, "InvalidAllocationID.NotFound")
	must[*ec2.DetachInternetGatewayOutput](t)(c.DetachInternetGateway(ctx, &ec2.DetachInternetGatewayInput{InternetGatewayId: igw, VpcId: vpc}))
	must[*ec2.DeleteInternetGatewayOutput](t)(c.DeleteInternetGateway(ctx, &ec2.DeleteInternetGatewayInput{InternetGatewayId: igw}))
	_, err = c.DescribeInternetGateways(ctx, igws)
	refused(t, err, "InvalidInternetGatewayID.NotFound")
	must[*ec2.DeleteSubnetOutput](t)(c.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: subnet}))
	_, err = c.DescribeSubnets(ctx, subnets)
	refused(t, err, "InvalidSubnetID.NotFound")
	must[*ec2.DeleteVpcOutput](t)(c.DeleteVpc(ctx, &ec2.DeleteVpcInput{VpcId: vpc}))
	_, err = c.DescribeVpcs(ctx, vpcs)
	refused(t, err, "InvalidVpcID.NotFound")
	if n := state.AddressLeases.Count(r.db.Snapshot()); n != 0 {
		t.Errorf("%d leases of nothing", n)
	}
}

// pager is one of the SDK's paginators.
type pager[Out, Options any] interface {
	HasMorePages() bool
	NextPage(context.Context, ...func(*Options)) (Out, error)
}

func walk[Out, Options any](t *testing.T, p pager[Out, Options], ids func(Out) []string) (all []string) {
	t.Helper()
	pages := 0
	for p.HasMorePages() {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all, pages = append(all, ids(out)...), pages+1
	}
	if pages < 2 {
		t.Errorf("%T has %d pages", p, pages)
	}
	return all
}

// What there is much of comes page by page, nothing twice and nothing missing.
func TestNetworkPages(t *testing.T) {
	c, r := networks(t)
	ctx := t.Context()
	if err := r.db.Update(ctx, func(tx *store.Tx) error {
		for _, name := range []string{"vpc/vpcs", "vpc/internet-gateways", "vpc/egress-only-gateways", "vpc/nat-gateways-per-zone", "vpc/elastic-ips"} {
			state.Quotas.Put(tx, &state.Quota{Account: account, Name: name, Value: 100})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	note := func(kind string, id *string) { want[kind] = append(want[kind], *id) }
	for i := range 7 {
		vpc := must[*ec2.CreateVpcOutput](t)(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: new("10.0.0.0/16")})).Vpc.VpcId
		note("vpc", vpc)
		subnet := must[*ec2.CreateSubnetOutput](t)(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: vpc, CidrBlock: new(fmt.Sprintf("10.0.%d.0/24", i))})).Subnet.SubnetId
		note("subnet", subnet)
		note("table", must[*ec2.CreateRouteTableOutput](t)(c.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: vpc})).RouteTable.RouteTableId)
		note("igw", must[*ec2.CreateInternetGatewayOutput](t)(c.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{})).InternetGateway.InternetGatewayId)
		note("eigw", must[*ec2.CreateEgressOnlyInternetGatewayOutput](t)(c.CreateEgressOnlyInternetGateway(ctx, &ec2.CreateEgressOnlyInternetGatewayInput{VpcId: vpc})).EgressOnlyInternetGateway.EgressOnlyInternetGatewayId)
		note("nat", must[*ec2.CreateNatGatewayOutput](t)(c.CreateNatGateway(ctx, &ec2.CreateNatGatewayInput{SubnetId: subnet, ConnectivityType: types.ConnectivityTypePrivate})).NatGateway.NatGatewayId)
		note("eip", must[*ec2.AllocateAddressOutput](t)(c.AllocateAddress(ctx, &ec2.AllocateAddressInput{})).AllocationId)
		note("dopt", must[*ec2.CreateDhcpOptionsOutput](t)(c.CreateDhcpOptions(ctx, &ec2.CreateDhcpOptionsInput{DhcpConfigurations: []types.NewDhcpConfiguration{{Key: new("domain-name"), Values: []string{"x"}}}})).DhcpOptions.DhcpOptionsId)
	}
	got := map[string][]string{
		"vpc": walk(t, ec2.NewDescribeVpcsPaginator(c, &ec2.DescribeVpcsInput{MaxResults: new(int32(5))}), func(o *ec2.DescribeVpcsOutput) (ids []string) {
			for _, x := range o.Vpcs {
				ids = append(ids, *x.VpcId)
			}
			return ids
		}),
		"subnet": walk(t, ec2.NewDescribeSubnetsPaginator(c, &ec2.DescribeSubnetsInput{MaxResults: new(int32(5))}), func(o *ec2.DescribeSubnetsOutput) (ids []string) {
			for _, x := range o.Subnets {
				ids = append(ids, *x.SubnetId)
			}
			return ids
		}),
		"table": walk(t, ec2.NewDescribeRouteTablesPaginator(c, &ec2.DescribeRouteTablesInput{MaxResults: new(int32(5))}), func(o *ec2.DescribeRouteTablesOutput) (ids []string) {
			for _, x := range o.RouteTables {
				ids = append(ids, *x.RouteTableId)
			}
			return ids
		}),
		"igw": walk(t, ec2.NewDescribeInternetGatewaysPaginator(c, &ec2.DescribeInternetGatewaysInput{MaxResults: new(int32(5))}), func(o *ec2.DescribeInternetGatewaysOutput) (ids []string) {
			for _, x := range o.InternetGateways {
				ids = append(ids, *x.InternetGatewayId)
			}
			return ids
		}),
		"eigw": walk(t, ec2.NewDescribeEgressOnlyInternetGatewaysPaginator(c, &ec2.DescribeEgressOnlyInternetGatewaysInput{MaxResults: new(int32(5))}), func(o *ec2.DescribeEgressOnlyInternetGatewaysOutput) (ids []string) {
			for _, x := range o.EgressOnlyInternetGateways {
				ids = append(ids, *x.EgressOnlyInternetGatewayId)
			}
			return ids
		}),
		"nat": walk(t, ec2.NewDescribeNatGatewaysPaginator(c, &ec2.DescribeNatGatewaysInput{MaxResults: new(int32(5))}), func(o *ec2.DescribeNatGatewaysOutput) (ids []string) {
			for _, x := range o.NatGateways {
				ids = append(ids, *x.NatGatewayId)
			}
			return ids
		}),
		"eip": walk(t, ec2.NewDescribeAddressesAttributePaginator(c, &ec2.DescribeAddressesAttributeInput{MaxResults: new(int32(5))}), func(o *ec2.DescribeAddressesAttributeOutput) (ids []string) {
			for _, x := range o.Addresses {
				ids = append(ids, *x.AllocationId)
			}
			return ids
		}),
		"dopt": walk(t, ec2.NewDescribeDhcpOptionsPaginator(c, &ec2.DescribeDhcpOptionsInput{MaxResults: new(int32(5))}), func(o *ec2.DescribeDhcpOptionsOutput) (ids []string) {
			for _, x := range o.DhcpOptions {
				ids = append(ids, *x.DhcpOptionsId)
			}
			return ids
		}),
	}
	for kind, ids := range got {
		if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
			t.Errorf("%s: %q", kind, ids)
		}
		for _, id := range want[kind] {
			if !slices.Contains(ids, id) {
				t.Errorf("%s is missing of %q", id, ids)
			}
		}
	}
}
