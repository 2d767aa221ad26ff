package ec2

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const account = "123456789012"

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// bench is the API on a region as bootstrap leaves it. Ids count up.
type bench struct {
	*testing.T
	*EC2
	db      *store.DB
	account string
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, db: store.OpenMemory(), account: account}
	t.Cleanup(func() { b.db.Close() })
	var mu sync.Mutex
	n := 0
	id := func() string {
		mu.Lock()
		defer mu.Unlock()
		n++
		return fmt.Sprintf("%017x%015d", n, 0)
	}
	region := &state.Region{Name: "eu-west-1", Account: account, ShortID: "aabbcc", PublicPool: netip.MustParsePrefix("198.18.0.0/22"), Zones: []state.Zone{{Name: "eu-west-1a", ID: "euw1-az1"}, {Name: "eu-west-1b", ID: "euw1-az2"}, {Name: "eu-west-1c", ID: "euw1-az3"}}}
	b.put(func(tx *store.Tx) { state.Regions.Put(tx, region) })
	if err := Bootstrap(t.Context(), b.db, region, account, now, id); err != nil {
		t.Fatal(err)
	}
	if err := Bootstrap(t.Context(), b.db, region, account, now, func() string { t.Error("made again"); return id() }); err != nil {
		t.Fatal(err)
	}
	b.EC2 = New(Config{DB: b.db, Region: "eu-west-1", Account: func(context.Context) string { return b.account }, Now: func() time.Time { return now }, NewID: id})
	return b
}

func (b *bench) put(f func(*store.Tx)) {
	b.Helper()
	if err := b.db.Update(b.Context(), func(tx *store.Tx) error { f(tx); return nil }); err != nil {
		b.Fatal(err)
	}
}

// try calls an operation that must succeed.
func try[I, O any](b *bench, op func(context.Context, *I) (*O, error), body string) *O {
	b.Helper()
	out, err := op(b.Context(), read[I](b, body))
	if err != nil {
		b.Fatalf("%T %s: %v", *new(I), body, err)
	}
	return out
}

// refuse calls an operation that must fail with "Code: message".
func refuse[I, O any](b *bench, op func(context.Context, *I) (*O, error), body, want string) {
	b.Helper()
	_, err := op(b.Context(), read[I](b, body))
	if err == nil {
		b.Errorf("%T %s succeeded, want %s", *new(I), body, want)
	} else if got := wire.Code(err) + ": " + message(err); got != want {
		b.Errorf("%T %s\n got: %s\nwant: %s", *new(I), body, got, want)
	}
}

func message(err error) string {
	if e, ok := err.(*wire.APIError); ok {
		return e.Message
	}
	return err.Error()
}

// read makes an input of JSON; field names count in any case.
func read[I any](b *bench, body string) *I {
	b.Helper()
	in := new(I)
	if err := json.Unmarshal([]byte(body), in); err != nil {
		b.Fatalf("%s: %v", body, err)
	}
	return in
}

func (b *bench) vpc() string {
	return *try(b, b.DescribeVpcs, `{}`).Vpcs[0].VpcId
}

func (b *bench) create(name string) string {
	b.Helper()
	return *try(b, b.CreateSecurityGroup, `{"GroupName":"`+name+`","Description":"d"}`).GroupId
}

func (b *bench) group(id string) api.SecurityGroup {
	b.Helper()
	return try(b, b.DescribeSecurityGroups, `{"GroupIds":["`+id+`"]}`).SecurityGroups[0]
}

func TestWhatARegionBeginsWith(t *testing.T) {
	b := newBench(t)
	v := try(b, b.DescribeVpcs, `{}`).Vpcs
	if len(v) != 1 || !*v[0].IsDefault || *v[0].CidrBlock != "172.31.0.0/16" || v[0].State != "available" || v[0].InstanceTenancy != "default" || *v[0].OwnerId != account {
		t.Fatalf("%+v", v)
	}
	subnets := try(b, b.DescribeSubnets, `{}`).Subnets
	var got []string
	for _, s := range subnets {
		got = append(got, fmt.Sprint(*s.CidrBlock, " ", *s.AvailabilityZone, " ", *s.AvailabilityZoneId, " ", *s.AvailableIpAddressCount, " ", *s.DefaultForAz, " ", *s.MapPublicIpOnLaunch))
	}
	if want := []string{"172.31.0.0/20 eu-west-1a euw1-az1 4091 true true", "172.31.16.0/20 eu-west-1b euw1-az2 4091 true true", "172.31.32.0/20 eu-west-1c euw1-az3 4091 true true"}; !slices.Equal(got, want) {
		t.Errorf("subnets %q", got)
	}
	rt := try(b, b.DescribeRouteTables, `{}`).RouteTables
	igw := try(b, b.DescribeInternetGateways, `{}`).InternetGateways
	if len(rt) != 1 || len(igw) != 1 || !*rt[0].Associations[0].Main || len(rt[0].Routes) != 2 ||
		*rt[0].Routes[0].GatewayId != "local" || *rt[0].Routes[1].GatewayId != *igw[0].InternetGatewayId || rt[0].Routes[1].State != "active" || igw[0].Attachments[0].State != "available" {
		t.Errorf("routes %+v gateways %+v", rt, igw)
	}
	g := try(b, b.DescribeSecurityGroups, `{}`).SecurityGroups
	if len(g) != 1 || *g[0].GroupName != "default" || *g[0].Description != "default VPC security group" ||
		*g[0].IpPermissions[0].UserIdGroupPairs[0].GroupId != *g[0].GroupId || *g[0].IpPermissionsEgress[0].IpRanges[0].CidrIp != "0.0.0.0/0" {
		t.Errorf("groups %+v", g)
	}
	if acls := try(b, b.DescribeNetworkAcls, `{}`).NetworkAcls; len(acls) != 1 || !*acls[0].IsDefault || len(acls[0].Associations) != 3 || len(acls[0].Entries) != 4 {
		t.Errorf("ACLs %+v", acls)
	}
	if d := try(b, b.DescribeDhcpOptions, `{}`).DhcpOptions; len(d) != 1 || *d[0].DhcpConfigurations[0].Values[0].Value != "eu-west-1.compute.internal" {
		t.Errorf("DHCP %+v", d)
	}
	if z := try(b, b.DescribeAvailabilityZones, `{"ZoneIds":["euw1-az2"]}`).AvailabilityZones; len(z) != 1 || *z[0].ZoneName != "eu-west-1b" {
		t.Errorf("zones %+v", z)
	}
	for attribute, want := range map[string]bool{"enableDnsSupport": true, "enableDnsHostnames": true} {
		a := try(b, b.DescribeVpcAttribute, `{"VpcId":"`+b.vpc()+`","Attribute":"`+attribute+`"}`)
		if v := cmpValue(a.EnableDnsSupport, a.EnableDnsHostnames); v != want {
			t.Errorf("%s is %v", attribute, v)
		}
	}
	if a := try(b, b.DescribeAccountAttributes, `{"AttributeNames":["default-vpc"]}`).AccountAttributes; len(a) != 1 || *a[0].AttributeValues[0].AttributeValue != b.vpc() {
		t.Errorf("%+v", a)
	}
	b.account = "999999999999"
	if v := try(b, b.DescribeVpcs, `{}`).Vpcs; len(v) != 0 {
		t.Errorf("another account sees %+v", v)
	}
	if g := try(b, b.DescribeSecurityGroups, `{}`).SecurityGroups; len(g) != 0 {
		t.Errorf("another account sees %+v", g)
	}
}

func cmpValue(vs ...*api.AttributeBooleanValue) bool {
	for _, v := range vs {
		if v != nil {
			return *v.Value
		}
	}
	return false
}

func TestMissingResources(t *testing.T) {
	b := newBench(t)
	refuse(b, b.DescribeVpcs, `{"VpcIds":["vpc-1"]}`, "InvalidVpcID.NotFound: The vpc ID 'vpc-1' does not exist")
	refuse(b, b.DescribeVpcAttribute, `{"VpcId":"vpc-1","Attribute":"enableDnsSupport"}`, "InvalidVpcID.NotFound: The vpc ID 'vpc-1' does not exist")
	refuse(b, b.DescribeSubnets, `{"SubnetIds":["subnet-1"]}`, "InvalidSubnetID.NotFound: The subnet ID 'subnet-1' does not exist")
	refuse(b, b.DescribeRouteTables, `{"RouteTableIds":["rtb-1"]}`, "InvalidRouteTableID.NotFound: The routeTable ID 'rtb-1' does not exist")
	refuse(b, b.DescribeInternetGateways, `{"InternetGatewayIds":["igw-1"]}`, "InvalidInternetGatewayID.NotFound: The internetGateway ID 'igw-1' does not exist")
	refuse(b, b.DescribeNetworkAcls, `{"NetworkAclIds":["acl-1"]}`, "InvalidNetworkAclID.NotFound: The networkAcl ID 'acl-1' does not exist")
	refuse(b, b.DescribeDhcpOptions, `{"DhcpOptionsIds":["dopt-1"]}`, "InvalidDhcpOptionID.NotFound: The dhcpOption ID 'dopt-1' does not exist")
	refuse(b, b.DescribeNetworkInterfaces, `{"NetworkInterfaceIds":["eni-1"]}`, "InvalidNetworkInterfaceID.NotFound: The networkInterface ID 'eni-1' does not exist")
	refuse(b, b.DescribeSecurityGroups, `{"GroupIds":["sg-1"]}`, "InvalidGroup.NotFound: The security group 'sg-1' does not exist")
	refuse(b, b.DescribeSecurityGroups, `{"GroupNames":["x"]}`, "InvalidGroup.NotFound: The security group 'x' does not exist in default VPC")
	refuse(b, b.DescribeSecurityGroupRules, `{"SecurityGroupRuleIds":["sgr-1"]}`, "InvalidSecurityGroupRuleId.NotFound: The security group rule ID 'sgr-1' does not exist")
	refuse(b, b.DescribeAvailabilityZones, `{"ZoneNames":["eu-west-1d"]}`, "InvalidParameterValue: Invalid availability zone: [eu-west-1d]")
	refuse(b, b.DescribeRegions, `{"RegionNames":["mars-1"]}`, "InvalidParameterValue: Invalid region name: [mars-1]")
	refuse(b, b.DescribeAddresses, `{"AllocationIds":["eipalloc-1"]}`, "InvalidAllocationID.NotFound: The allocation ID 'eipalloc-1' does not exist")
	refuse(b, b.CreateTags, `{"Resources":["vpc-1"],"Tags":[{"Key":"a"}]}`, "InvalidVpcID.NotFound: The vpc ID 'vpc-1' does not exist")
	refuse(b, b.CreateTags, `{"Resources":["x"],"Tags":[{"Key":"a"}]}`, "InvalidID: The ID 'x' is not valid")
}

func TestGroupNames(t *testing.T) {
	b := newBench(t)
	b.create("web")
	vpc := b.vpc()
	for body, want := range map[string]string{
		`{"GroupName":"web","Description":"d"}`:               "InvalidGroup.Duplicate: The security group 'web' already exists for VPC '" + vpc + "'",
		`{"GroupName":"default","Description":"d"}`:           "InvalidParameterValue: Cannot use reserved security group name: default",
		`{"GroupName":"sg-x","Description":"d"}`:              "InvalidParameterValue: Value (sg-x) for parameter GroupName is invalid. Group names may not be in the format sg-*",
		`{"GroupName":"wéb","Description":"d"}`:               "InvalidParameterValue: Value (wéb) for parameter GroupName is invalid. Character sets beyond ASCII are not supported.",
		`{"GroupName":"a","Description":"<"}`:                 "InvalidParameterValue: Value (<) for parameter GroupDescription is invalid. Character sets beyond ASCII are not supported.",
		`{"Description":"d"}`:                                 "MissingParameter: The request must contain the parameter GroupName",
		`{"GroupName":"a"}`:                                   "MissingParameter: The request must contain the parameter GroupDescription",
		`{"GroupName":"a","Description":"d","VpcId":"vpc-9"}`: "InvalidVpcID.NotFound: The vpc ID 'vpc-9' does not exist",
		`{"GroupName":"a","Description":"d","TagSpecifications":[{"ResourceType":"vpc","Tags":[]}]}`:                           "InvalidParameterValue: The resource type 'vpc' is not valid for this call; it must be 'security-group'.",
		`{"GroupName":"a","Description":"d","TagSpecifications":[{"ResourceType":"security-group","Tags":[{"Key":"aws:x"}]}]}`: "InvalidParameterValue: Tag keys starting with 'aws:' are reserved for internal use",
	} {
		refuse(b, b.CreateSecurityGroup, body, want)
	}
	b.account = "999999999999"
	refuse(b, b.CreateSecurityGroup, `{"GroupName":"a","Description":"d"}`, "VPCIdNotSpecified: No default VPC for this user")
}

func TestDeleteSecurityGroup(t *testing.T) {
	b := newBench(t)
	refuse(b, b.DeleteSecurityGroup, `{}`, "MissingParameter: The request must contain the parameter groupName or groupId")
	refuse(b, b.DeleteSecurityGroup, `{"GroupId":"nonsense"}`, `InvalidGroupId.Malformed: Invalid id: "nonsense" (expecting "sg-...")`)
	refuse(b, b.DeleteSecurityGroup, `{"GroupId":"sg-1"}`, "InvalidGroup.NotFound: The security group 'sg-1' does not exist")
	def := *try(b, b.DescribeSecurityGroups, `{"GroupNames":["default"]}`).SecurityGroups[0].GroupId
	refuse(b, b.DeleteSecurityGroup, `{"GroupName":"default"}`, `CannotDelete: the specified group: "`+def+`" name: "default" cannot be deleted by a user`)

	used, user := b.create("used"), b.create("user")
	rule := `{"GroupId":"` + user + `","IpPermissions":[{"IpProtocol":"tcp","FromPort":80,"ToPort":80,"UserIdGroupPairs":[{"GroupName":"used"}]}]}`
	try(b, b.AuthorizeSecurityGroupIngress, rule)
	refuse(b, b.DeleteSecurityGroup, `{"GroupId":"`+used+`"}`, "DependencyViolation: resource "+used+" has a dependent object")
	try(b, b.RevokeSecurityGroupIngress, rule)
	b.put(func(tx *store.Tx) {
		state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: "eni-1", Account: account, Groups: []string{used}})
	})
	refuse(b, b.DeleteSecurityGroup, `{"GroupId":"`+used+`"}`, "DependencyViolation: resource "+used+" has a dependent object")
	b.put(func(tx *store.Tx) { state.NetworkInterfaces.Delete(tx, "eni-1") })
	if out := try(b, b.DeleteSecurityGroup, `{"GroupName":"used"}`); *out.GroupId != used || !*out.Return {
		t.Errorf("%+v", out)
	}
	refuse(b, b.DescribeSecurityGroups, `{"GroupIds":["`+used+`"]}`, "InvalidGroup.NotFound: The security group '"+used+"' does not exist")
	b.create("used") // its name is free again
}

// An interface comes to carry a group between the look and the delete.
func TestDeleteSecurityGroupSeesAnInterfaceThatComesMeanwhile(t *testing.T) {
	b := newBench(t)
	id := b.create("web")
	looked := false
	b.EC2.Account = func(context.Context) string {
		if !looked {
			looked = true // the transaction has its snapshot by now
			b.put(func(tx *store.Tx) {
				state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: "eni-1", Account: account, Groups: []string{id}})
			})
		}
		return account
	}
	refuse(b, b.DeleteSecurityGroup, `{"GroupId":"`+id+`"}`, "DependencyViolation: resource "+id+" has a dependent object")
}

func TestRules(t *testing.T) {
	b := newBench(t)
	id := b.create("web")
	ingress := func(p string) string { return `{"GroupId":"` + id + `","IpPermissions":[` + p + `]}` }
	out := try(b, b.AuthorizeSecurityGroupIngress, ingress(`{"IpProtocol":"TCP","FromPort":80,"ToPort":80,"IpRanges":[{"CidrIp":"10.1.2.3/8","Description":"in"},{"CidrIp":"0.0.0.0/0"}]},
		{"IpProtocol":"-1","FromPort":7,"ToPort":9,"UserIdGroupPairs":[{"GroupId":"`+id+`"}]},{"IpProtocol":"1","FromPort":8,"ToPort":-1,"IpRanges":[{"CidrIp":"0.0.0.0/0"}]},
		{"IpProtocol":"50","Ipv6Ranges":[{"CidrIpv6":"::/0"}]}`))
	var got []string
	for _, r := range out.SecurityGroupRules {
		got = append(got, fmt.Sprint(*r.IpProtocol, " ", *r.FromPort, "-", *r.ToPort, " ", wire.Value(r.CidrIpv4), wire.Value(r.CidrIpv6), " ", *r.IsEgress, " ", wire.Value(r.Description)))
	}
	want := []string{"tcp 80-80 10.0.0.0/8 false in", "tcp 80-80 0.0.0.0/0 false ", "-1 -1--1  false ", "icmp 8--1 0.0.0.0/0 false ", "50 -1--1 ::/0 false "}
	if !slices.Equal(got, want) {
		t.Errorf("rules %q", got)
	}
	g := b.group(id)
	if len(g.IpPermissions) != 4 || len(g.IpPermissions[0].IpRanges) != 2 || g.IpPermissions[1].FromPort != nil || *g.IpPermissions[1].UserIdGroupPairs[0].UserId != account || len(g.IpPermissionsEgress) != 1 {
		t.Errorf("permissions %+v", g.IpPermissions)
	}

	for p, want := range map[string]string{
		`{"IpProtocol":"tcp","FromPort":80,"ToPort":80,"IpRanges":[{"CidrIp":"0.0.0.0/0"}]}`:                      `InvalidPermission.Duplicate: the specified rule "peer: 0.0.0.0/0, TCP, from port: 80, to port: 80, ALLOW" already exists`,
		`{"IpProtocol":"-1","UserIdGroupPairs":[{"GroupId":"` + id + `"}]}`:                                       `InvalidPermission.Duplicate: the specified rule "peer: ` + id + `, ALL, ALLOW" already exists`,
		`{"IpProtocol":"udp","FromPort":1,"ToPort":1,"IpRanges":[{"CidrIp":"1.0.0.0/8"},{"CidrIp":"1.0.0.0/8"}]}`: "InvalidParameterValue: The same permission must not appear multiple times",
		`{"IpProtocol":"tcp","FromPort":80,"ToPort":80,"IpRanges":[{"CidrIp":"10.0.0.0"}]}`:                       "InvalidParameterValue: CIDR block 10.0.0.0 is malformed",
		`{"IpProtocol":"tcp","FromPort":80,"ToPort":80,"IpRanges":[{"CidrIp":"::/0"}]}`:                           "InvalidParameterValue: CIDR block ::/0 is malformed",
		`{"IpProtocol":"tcp","FromPort":80,"ToPort":80,"Ipv6Ranges":[{"CidrIpv6":"1.0.0.0/8"}]}`:                  "InvalidParameterValue: CIDR block 1.0.0.0/8 is malformed",
		`{"IpProtocol":"tcp","IpRanges":[{"CidrIp":"0.0.0.0/0"}]}`:                                                "InvalidParameterValue: Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.",
		`{"IpProtocol":"tcp","FromPort":80,"ToPort":79,"IpRanges":[{"CidrIp":"0.0.0.0/0"}]}`:                      "InvalidParameterValue: Invalid TCP/UDP port range (80:79)",
		`{"IpProtocol":"tcp","FromPort":80,"ToPort":70000,"IpRanges":[{"CidrIp":"0.0.0.0/0"}]}`:                   "InvalidParameterValue: TCP/UDP port (70000) out of range",
		`{"IpProtocol":"tcp","FromPort":-5,"ToPort":80,"IpRanges":[{"CidrIp":"0.0.0.0/0"}]}`:                      "InvalidParameterValue: TCP/UDP port (-5) out of range",
		`{"IpProtocol":"icmp","FromPort":300,"ToPort":-1,"IpRanges":[{"CidrIp":"0.0.0.0/0"}]}`:                    "InvalidParameterValue: ICMP type (300) out of range",
		`{"IpProtocol":"icmp","FromPort":-1,"ToPort":3,"IpRanges":[{"CidrIp":"0.0.0.0/0"}]}`:                      "InvalidParameterValue: ICMP code (3) must be -1 if the type is -1",
		`{"IpProtocol":"sctp","IpRanges":[{"CidrIp":"0.0.0.0/0"}]}`:                                               `InvalidPermission.Malformed: Unsupported IP protocol "sctp"  - supported: [tcp, udp, icmp, icmpv6, -1 or a number]`,
		`{"IpRanges":[{"CidrIp":"0.0.0.0/0"}]}`:                                                                   "MissingParameter: The request must contain the parameter ipProtocol",
		`{"IpProtocol":"-1"}`:                                                                                     "MissingParameter: The request must contain at least one of CidrIp, CidrIpv6, PrefixListId or a source security group for each permission",
		`{"IpProtocol":"-1","UserIdGroupPairs":[{"GroupId":"sg-9"}]}`:                                             "InvalidGroup.NotFound: The security group 'sg-9' does not exist",
		`{"IpProtocol":"-1","UserIdGroupPairs":[{"GroupName":"nobody"}]}`:                                         "InvalidGroup.NotFound: The security group 'nobody' does not exist",
		`{"IpProtocol":"-1","PrefixListIds":[{"PrefixListId":"pl-1"}]}`:                                           "InvalidPrefixListID.NotFound: The prefix list ID 'pl-1' does not exist",
	} {
		refuse(b, b.AuthorizeSecurityGroupIngress, ingress(p), want)
	}
	refuse(b, b.AuthorizeSecurityGroupIngress, `{"GroupId":"`+id+`"}`, "MissingParameter: Either 'ipPermissions' or 'securityGroupRuleIds' should be provided.")
	refuse(b, b.AuthorizeSecurityGroupIngress, `{"GroupId":"`+id+`","CidrIp":"0.0.0.0/0","IpPermissions":[{"IpProtocol":"-1"}]}`, "InvalidParameterCombination: The parameter 'ipPermissions' may not be used in combination with 'ipProtocol'")
	if after := b.group(id); !reflect.DeepEqual(after, g) {
		t.Errorf("a refused rule changed the group: %+v", after)
	}

	// Both ways to name what goes.
	refuse(b, b.RevokeSecurityGroupIngress, ingress(`{"IpProtocol":"tcp","FromPort":81,"ToPort":81,"IpRanges":[{"CidrIp":"0.0.0.0/0"}]}`), "InvalidPermission.NotFound: The specified rule does not exist in this security group.")
	refuse(b, b.RevokeSecurityGroupEgress, `{"GroupId":"`+id+`","SecurityGroupRuleIds":["`+*out.SecurityGroupRules[0].SecurityGroupRuleId+`"]}`,
		"InvalidSecurityGroupRuleId.NotFound: The security group rule ID '"+*out.SecurityGroupRules[0].SecurityGroupRuleId+"' does not exist")
	gone := try(b, b.RevokeSecurityGroupIngress, `{"GroupId":"`+id+`","SecurityGroupRuleIds":["`+*out.SecurityGroupRules[0].SecurityGroupRuleId+`"]}`)
	if len(gone.RevokedSecurityGroupRules) != 1 || *gone.RevokedSecurityGroupRules[0].CidrIpv4 != "10.0.0.0/8" {
		t.Errorf("%+v", gone)
	}
	try(b, b.RevokeSecurityGroupIngress, `{"GroupId":"`+id+`","IpProtocol":"tcp","FromPort":80,"ToPort":80,"CidrIp":"0.0.0.0/0"}`)
	try(b, b.RevokeSecurityGroupEgress, `{"GroupId":"`+id+`","IpPermissions":[{"IpProtocol":"-1","IpRanges":[{"CidrIp":"0.0.0.0/0"}]}]}`)
	if g := b.group(id); len(g.IpPermissions) != 3 || len(g.IpPermissionsEgress) != 0 {
		t.Errorf("left %+v %+v", g.IpPermissions, g.IpPermissionsEgress)
	}
}

func TestRuleLimit(t *testing.T) {
	b := newBench(t)
	id := b.create("web")
	var ranges []string
	for i := range 60 {
		ranges = append(ranges, fmt.Sprintf(`{"CidrIp":"10.0.%d.0/24"}`, i))
	}
	body := func(cidr string) string {
		return `{"GroupId":"` + id + `","IpPermissions":[{"IpProtocol":"-1","IpRanges":[` + cidr + `]}]}`
	}
	try(b, b.AuthorizeSecurityGroupIngress, body(strings.Join(ranges, ",")))
	refuse(b, b.AuthorizeSecurityGroupIngress, body(`{"CidrIp":"11.0.0.0/24"}`), "RulesPerSecurityGroupLimitExceeded: The maximum number of rules per security group has been reached.")
	// The other direction and the other family have their own count.
	try(b, b.AuthorizeSecurityGroupEgress, body(`{"CidrIp":"11.0.0.0/24"}`))
	try(b, b.AuthorizeSecurityGroupIngress, `{"GroupId":"`+id+`","IpPermissions":[{"IpProtocol":"-1","Ipv6Ranges":[{"CidrIpv6":"::/0"}]}]}`)
}

func TestFiltersAndPages(t *testing.T) {
	b := newBench(t)
	var ids []string
	for _, n := range []string{"app-a", "app-b", "app-c", "web"} {
		ids = append(ids, b.create(n))
	}
	try(b, b.CreateTags, `{"Resources":["`+ids[0]+`","`+ids[3]+`"],"Tags":[{"Key":"team","Value":"red"}]}`)
	try(b, b.AuthorizeSecurityGroupIngress, `{"GroupId":"`+ids[3]+`","IpPermissions":[{"IpProtocol":"tcp","FromPort":443,"ToPort":443,"IpRanges":[{"CidrIp":"0.0.0.0/0"}]}]}`)
	names := func(filters string) string {
		t.Helper()
		var ns []string
		for _, g := range try(b, b.DescribeSecurityGroups, `{"Filters":[`+filters+`]}`).SecurityGroups {
			ns = append(ns, *g.GroupName)
		}
		return strings.Join(ns, " ")
	}
	for filters, want := range map[string]string{
		`{"Name":"group-name","Values":["app-?"]}`:                                                                    "app-a app-b app-c",
		`{"Name":"group-name","Values":["*b","web"]}`:                                                                 "app-b web",
		`{"Name":"group-name","Values":["app-\\*"]}`:                                                                  "",
		`{"Name":"tag:team","Values":["red"]}`:                                                                        "app-a web",
		`{"Name":"tag-key","Values":["team"]},{"Name":"group-name","Values":["w*"]}`:                                  "web",
		`{"Name":"ip-permission.from-port","Values":["443"]}`:                                                         "web",
		`{"Name":"egress.ip-permission.cidr","Values":["0.0.0.0/0"]},{"Name":"group-id","Values":["` + ids[1] + `"]}`: "app-b",
		`{"Name":"vpc-id","Values":["vpc-9"]}`:                                                                        "",
	} {
		if got := names(filters); got != want {
			t.Errorf("%s: %q, want %q", filters, got, want)
		}
	}
	refuse(b, b.DescribeSecurityGroups, `{"Filters":[{"Name":"colour","Values":["red"]}]}`, "InvalidParameterValue: The filter 'colour' is invalid")
	refuse(b, b.DescribeSecurityGroups, `{"Filters":[{"Name":"ip-permission.colour","Values":["red"]}]}`, "InvalidParameterValue: The filter 'ip-permission.colour' is invalid")
	refuse(b, b.DescribeSecurityGroups, `{"Filters":[{"Name":"group-id"}]}`, "InvalidParameterValue: The filter 'group-id' has no values.")
	refuse(b, b.DescribeSecurityGroups, `{"Filters":[{"Values":["x"]}]}`, "InvalidParameterValue: Filter name is missing.")

	for _, size := range []int{1, 2, 3, 5, 9} {
		var got []string
		token, pages := "", 0
		for {
			out := try(b, b.DescribeSecurityGroups, fmt.Sprintf(`{"MaxResults":%d,"NextToken":%q}`, size, token))
			for _, g := range out.SecurityGroups {
				got = append(got, *g.GroupId)
			}
			if pages++; len(out.SecurityGroups) > size || pages > 10 {
				t.Fatalf("page %d has %d", pages, len(out.SecurityGroups))
			}
			if token = wire.Value(out.NextToken); token == "" {
				break
			}
		}
		if len(got) != 5 || !slices.IsSorted(got) || len(slices.Compact(got)) != 5 {
			t.Errorf("by %d: %q", size, got)
		}
	}
	refuse(b, b.DescribeSecurityGroups, `{"NextToken":"nonsense"}`, "InvalidNextToken: The specified token is not valid.")
	other := try(b, b.DescribeSubnets, `{"MaxResults":1}`).NextToken
	refuse(b, b.DescribeSecurityGroups, `{"NextToken":"`+*other+`"}`, "InvalidNextToken: The specified token is not valid.")
}

func TestTags(t *testing.T) {
	b := newBench(t)
	vpc, g := b.vpc(), b.create("web")
	try(b, b.CreateTags, `{"Resources":["`+vpc+`","`+g+`"],"Tags":[{"Key":"a","Value":"1"},{"Key":"b","Value":"2"}]}`)
	try(b, b.CreateTags, `{"Resources":["`+vpc+`"],"Tags":[{"Key":"a","Value":"3"}]}`)
	list := func() string {
		var s []string
		for _, x := range try(b, b.DescribeTags, `{}`).Tags {
			s = append(s, string(x.ResourceType)+":"+*x.Key+"="+*x.Value)
		}
		slices.Sort(s)
		return strings.Join(s, " ")
	}
	if got, want := list(), "security-group:a=1 security-group:b=2 vpc:a=3 vpc:b=2"; got != want {
		t.Errorf("%s", got)
	}
	try(b, b.DeleteTags, `{"Resources":["`+vpc+`"],"Tags":[{"Key":"a","Value":"not this"},{"Key":"b"}]}`)
	try(b, b.DeleteTags, `{"Resources":["`+g+`"]}`)
	if got, want := list(), "vpc:a=3"; got != want {
		t.Errorf("%s", got)
	}
	// One of several that is not there: nothing is changed.
	refuse(b, b.CreateTags, `{"Resources":["`+vpc+`","sg-9"],"Tags":[{"Key":"z","Value":"1"}]}`, "InvalidGroup.NotFound: The security group 'sg-9' does not exist")
	if got, want := list(), "vpc:a=3"; got != want {
		t.Errorf("%s", got)
	}
	refuse(b, b.CreateTags, `{"Resources":["`+vpc+`"],"Tags":[{"Key":"","Value":"1"}]}`, "MissingParameter: The request must contain the parameter Tag.Key")
}

func TestNetworkInterface(t *testing.T) {
	b := newBench(t)
	subnet := try(b, b.DescribeSubnets, `{}`).Subnets[0]
	e := &state.NetworkInterface{ID: "eni-1", Account: account, VPC: b.vpc(), Subnet: *subnet.SubnetId, Zone: "eu-west-1a", Address: netip.MustParseAddr("172.31.0.4"),
		Public: netip.MustParseAddr("198.18.0.3"), MAC: "02:00:00:00:00:01", Groups: []string{b.create("web")}, RequesterManaged: true, Type: "interface", Task: "task/1", AttachmentID: "eni-attach-1",
		PrivateDNSName: "ip-172-31-0-4.eu-west-1.compute.internal", CreatedAt: now}
	show := func(change func(*state.NetworkInterface)) string {
		t.Helper()
		change(e)
		n := *e
		b.put(func(tx *store.Tx) {
			state.NetworkInterfaces.Put(tx, &n)
			state.AddressLeases.Put(tx, &state.AddressLease{Scope: n.Subnet, Address: n.Address, ENI: n.ID})
		})
		v := try(b, b.DescribeNetworkInterfaces, `{"Filters":[{"Name":"association.public-ip","Values":["198.18.0.3"]},{"Name":"group-name","Values":["web"]}]}`).NetworkInterfaces
		if len(v) != 1 {
			t.Fatalf("%+v", v)
		}
		if *v[0].Association.PublicDnsName != "ec2-198-18-0-3.eu-west-1.compute.amazonaws.com" || *v[0].Groups[0].GroupName != "web" || *v[0].PrivateIpAddresses[0].PrivateIpAddress != "172.31.0.4" || !*v[0].RequesterManaged {
			t.Errorf("%+v", v[0])
		}
		return string(v[0].Status) + " " + string(v[0].Attachment.Status)
	}
	// attached is said only when the node has said it.
	for _, x := range []struct {
		change func(*state.NetworkInterface)
		want   string
	}{
		{func(*state.NetworkInterface) {}, "in-use attaching"},
		{func(e *state.NetworkInterface) { e.Attached = true }, "in-use attached"},
		{func(e *state.NetworkInterface) { e.Deleting = true }, "detaching detaching"},
		{func(e *state.NetworkInterface) { e.Removed = true }, "detaching detached"},
	} {
		if got := show(x.change); got != x.want {
			t.Errorf("%q, want %q", got, x.want)
		}
	}
	if n := *try(b, b.DescribeSubnets, `{"SubnetIds":["`+*subnet.SubnetId+`"]}`).Subnets[0].AvailableIpAddressCount; n != 4090 {
		t.Errorf("%d addresses left", n)
	}
}

func TestBlackhole(t *testing.T) {
	b := newBench(t)
	b.put(func(tx *store.Tx) {
		for g := range state.InternetGateways.All(tx) {
			n := *g
			n.VPC = ""
			state.InternetGateways.Put(tx, &n)
		}
	})
	if r := try(b, b.DescribeRouteTables, `{"Filters":[{"Name":"route.state","Values":["blackhole"]}]}`).RouteTables; len(r) != 1 || r[0].Routes[1].State != "blackhole" {
		t.Errorf("%+v", r)
	}
}

func TestGlob(t *testing.T) {
	for _, x := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"a*c", "abbc", true}, {"a*c", "abcd", false}, {"a?c", "ac", false}, {"a?c", "abc", true},
		{`\*`, "*", true}, {`\*`, "a", false}, {`\?x`, "?x", true}, {`a\\b`, `a\b`, true}, {"**a", "bca", true}, {"*a*", "xay", true}, {"A", "a", false},
	} {
		if got := glob(x.pattern, x.s); got != x.want {
			t.Errorf("glob(%q, %q) = %v", x.pattern, x.s, got)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b?", "axxbc")
	f.Add(`\*\`, "*")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 100 || len(s) > 100 {
			return
		}
		_ = glob(pattern, s) // must end, whatever the pattern
		if !strings.ContainsAny(s, `*?\`) && (!glob(s, s) || !glob("*", s) || !glob(s+"*", s) || !glob("*"+s, s)) {
			t.Errorf("%q does not match itself", s)
		}
	})
}

// A token is good for the very query that it came from, and for nothing else.
func FuzzToken(f *testing.F) {
	rows := []string{"a", "b", "c"}
	page := func(q request) ([]string, *string, error) {
		return list(q, kind[string, string]{name: "letters", rows: slices.Values(rows), id: func(s string) string { return s },
			filters: filters[string]{"letter": one}, view: func(s string) string { return s }})
	}
	_, next, err := page(request{max: new(int32(1))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(*next)
	f.Fuzz(func(t *testing.T, token string) {
		if got, _, err := page(request{token: &token}); err == nil && len(got) > 0 && token != "" && !slices.Equal(got, rows[len(rows)-len(got):]) {
			t.Errorf("%q continues with %q", token, got)
		}
		if _, _, err := page(request{token: &token, filters: []api.Filter{{Name: new("letter"), Values: []string{"*"}}}}); err == nil && token == *next {
			t.Error("a token is good for other filters")
		}
	})
}

func TestStoredNamesFields(t *testing.T) {
	ops := api.NewService(New(Config{})).Operations
	for path := range Stored {
		parts := strings.Split(path, ".")
		op := ops[parts[0]]
		if op == nil {
			t.Errorf("%s: no such operation", path)
			continue
		}
		typ := reflect.TypeOf(op.In).Elem()
		for _, p := range parts[1:] {
			for typ.Kind() != reflect.Struct {
				typ = typ.Elem()
			}
			f, ok := typ.FieldByName(p)
			if !ok {
				t.Fatalf("%s: %s has no %s", path, typ, p)
			}
			typ = f.Type
		}
	}
}
