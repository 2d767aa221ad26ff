package ec2

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/ec2/flow"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const other = "999999999999"

// vpcRow makes a VPC of an account by its row.
func (b *bench) vpcRow(id, owner, cidr string) {
	b.Helper()
	b.put(func(tx *store.Tx) {
		state.VPCs.Put(tx, &state.VPC{ID: id, Account: owner, CIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)}, DNSSupport: true, DNSHostnames: true})
		g := &state.SecurityGroup{ID: "sg-" + id, Account: owner, VPC: id, Name: "default"}
		state.SecurityGroups.Put(tx, g)
		state.GroupNames.Put(tx, &state.GroupName{VPC: id, Name: "default", Group: g.ID})
	})
}

func TestNetworkACLs(t *testing.T) {
	b := newBench(t)
	vpc := b.vpc()
	def := try(b, b.DescribeNetworkAcls, `{"Filters":[{"Name":"default","Values":["true"]}]}`).NetworkAcls[0]
	acl := *try(b, b.CreateNetworkAcl, `{"VpcId":"`+vpc+`","TagSpecifications":[{"ResourceType":"network-acl","Tags":[{"Key":"a","Value":"b"}]}]}`).NetworkAcl.NetworkAclId
	show := func(id string) (out []string) {
		for _, x := range try(b, b.DescribeNetworkAcls, `{"NetworkAclIds":["`+id+`"]}`).NetworkAcls[0].Entries {
			s := fmt.Sprint(*x.RuleNumber, " ", *x.Egress, " ", *x.Protocol, " ", x.RuleAction, " ", wire.Value(x.CidrBlock), wire.Value(x.Ipv6CidrBlock))
			if x.PortRange != nil {
				s += fmt.Sprint(" ", *x.PortRange.From, "-", *x.PortRange.To)
			}
			if x.IcmpTypeCode != nil {
				s += fmt.Sprint(" ", *x.IcmpTypeCode.Type, "/", *x.IcmpTypeCode.Code)
			}
			out = append(out, s)
		}
		return out
	}
	const denied = "32767 true -1 deny 0.0.0.0/0,32767 false -1 deny 0.0.0.0/0"
	if got := strings.Join(show(acl), ","); got != denied {
		t.Errorf("a new one has %s", got)
	}
	if got := strings.Join(show(*def.NetworkAclId), ","); got != "100 true -1 allow 0.0.0.0/0,32767 true -1 deny 0.0.0.0/0,100 false -1 allow 0.0.0.0/0,32767 false -1 deny 0.0.0.0/0" {
		t.Errorf("the default one has %s", got)
	}
	entry := func(number int, what string) string {
		return fmt.Sprintf(`{"NetworkAclId":%q,"RuleNumber":%d,"Egress":false,"RuleAction":"allow",%s}`, acl, number, what)
	}
	try(b, b.CreateNetworkAclEntry, entry(200, `"Protocol":"tcp","CidrBlock":"10.0.0.1/8","PortRange":{"From":80,"To":90}`))
	try(b, b.CreateNetworkAclEntry, entry(100, `"Protocol":"1","CidrBlock":"0.0.0.0/0","IcmpTypeCode":{"Type":8,"Code":-1}`))
	try(b, b.CreateNetworkAclEntry, entry(300, `"Protocol":"-1","Ipv6CidrBlock":"::/0"`))
	want := []string{"32767 true -1 deny 0.0.0.0/0", "100 false 1 allow 0.0.0.0/0 8/-1", "200 false 6 allow 10.0.0.0/8 80-90", "300 false -1 allow ::/0", "32767 false -1 deny 0.0.0.0/0"}
	if got := show(acl); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for what, want := range map[string]string{
		entry(200, `"Protocol":"-1","CidrBlock":"0.0.0.0/0"`):                            "NetworkAclEntryAlreadyExists: The network acl entry identified by 200 already exists.",
		entry(0, `"Protocol":"-1","CidrBlock":"0.0.0.0/0"`):                              "InvalidParameterValue: Invalid value '0' for ruleNumber. It must be between 1 and 32766.",
		entry(32767, `"Protocol":"-1","CidrBlock":"0.0.0.0/0"`):                          "InvalidParameterValue: Invalid value '32767' for ruleNumber. It must be between 1 and 32766.",
		entry(1, `"Protocol":"tcp","CidrBlock":"0.0.0.0/0"`):                             "MissingParameter: The request must contain the parameter portRange",
		entry(1, `"Protocol":"icmp","CidrBlock":"0.0.0.0/0"`):                            "MissingParameter: The request must contain the parameter icmpTypeCode",
		entry(1, `"Protocol":"sctp","CidrBlock":"0.0.0.0/0"`):                            "InvalidParameterValue: Invalid value 'sctp' for IP protocol. Unknown protocol.",
		entry(1, `"Protocol":"-1"`):                                                      "MissingParameter: The request must contain the parameter cidrBlock",
		entry(1, `"Protocol":"-1","CidrBlock":"::/0"`):                                   "InvalidParameterValue: Value (::/0) for parameter cidrBlock is invalid. This is not a valid CIDR block.",
		entry(1, `"Protocol":"6","CidrBlock":"0.0.0.0/0","PortRange":{"From":9,"To":8}`): "InvalidParameterValue: Invalid TCP/UDP port range (9:8)",
		entry(1, `"Protocol":"-1","CidrBlock":"0.0.0.0/0","Ipv6CidrBlock":"::/0"`):       "InvalidParameterCombination: The parameter 'cidrBlock' may not be used in combination with 'ipv6CidrBlock'",
	} {
		refuse(b, b.CreateNetworkAclEntry, what, want)
	}
	refuse(b, b.ReplaceNetworkAclEntry, entry(201, `"Protocol":"-1","CidrBlock":"0.0.0.0/0"`), "InvalidNetworkAclEntry.NotFound: The specified network acl entry '201' does not exist.")
	try(b, b.ReplaceNetworkAclEntry, entry(200, `"Protocol":"udp","CidrBlock":"0.0.0.0/0","PortRange":{"From":53,"To":53}`))
	try(b, b.DeleteNetworkAclEntry, `{"NetworkAclId":"`+acl+`","RuleNumber":100,"Egress":false}`)
	refuse(b, b.DeleteNetworkAclEntry, `{"NetworkAclId":"`+acl+`","RuleNumber":100,"Egress":false}`, "InvalidNetworkAclEntry.NotFound: The specified network acl entry '100' does not exist.")
	if got := show(acl)[1]; got != "200 false 17 allow 0.0.0.0/0 53-53" {
		t.Errorf("%q", got)
	}

	// A subnet has one ACL, always.
	was := def.Associations[0]
	next := *try(b, b.ReplaceNetworkAclAssociation, `{"AssociationId":"`+*was.NetworkAclAssociationId+`","NetworkAclId":"`+acl+`"}`).NewAssociationId
	for filter, want := range map[string]string{
		`{"Name":"association.subnet-id","Values":["` + *was.SubnetId + `"]}`: acl, `{"Name":"association.association-id","Values":["` + next + `"]}`: acl,
		`{"Name":"entry.port-range.from","Values":["53"]}`: acl, `{"Name":"tag:a","Values":["b"]}`: acl, `{"Name":"entry.rule-number","Values":["100"]}`: *def.NetworkAclId,
	} {
		if got := try(b, b.DescribeNetworkAcls, `{"Filters":[`+filter+`]}`).NetworkAcls; len(got) != 1 || *got[0].NetworkAclId != want {
			t.Errorf("%s finds %+v", filter, got)
		}
	}
	refuse(b, b.ReplaceNetworkAclAssociation, `{"AssociationId":"`+*was.NetworkAclAssociationId+`","NetworkAclId":"`+acl+`"}`, "InvalidAssociationID.NotFound: The association ID '"+*was.NetworkAclAssociationId+"' does not exist")
	refuse(b, b.DeleteNetworkAcl, `{"NetworkAclId":"`+acl+`"}`, "DependencyViolation: The networkAcl '"+acl+"' has dependencies and cannot be deleted.")
	refuse(b, b.DeleteNetworkAcl, `{"NetworkAclId":"`+*def.NetworkAclId+`"}`, "InvalidParameterValue: cannot delete default network ACL "+*def.NetworkAclId)
	try(b, b.ReplaceNetworkAclAssociation, `{"AssociationId":"`+next+`","NetworkAclId":"`+*def.NetworkAclId+`"}`)
	try(b, b.DeleteNetworkAcl, `{"NetworkAclId":"`+acl+`"}`)

	// The default one can lose its entries, and then denies.
	for _, egress := range []string{"true", "false"} {
		try(b, b.DeleteNetworkAclEntry, `{"NetworkAclId":"`+*def.NetworkAclId+`","RuleNumber":100,"Egress":`+egress+`}`)
	}
	if got := strings.Join(show(*def.NetworkAclId), ","); got != denied {
		t.Errorf("%s", got)
	}
	acl = *try(b, b.CreateNetworkAcl, `{"VpcId":"`+vpc+`"}`).NetworkAcl.NetworkAclId
	for i := range 20 {
		try(b, b.CreateNetworkAclEntry, entry(i+1, `"Protocol":"-1","CidrBlock":"0.0.0.0/0"`))
	}
	refuse(b, b.CreateNetworkAclEntry, entry(21, `"Protocol":"-1","CidrBlock":"0.0.0.0/0"`), "NetworkAclEntryLimitExceeded: The maximum number of network ACL entries has been reached.")
}

func TestRulesByID(t *testing.T) {
	b := newBench(t)
	web, db := b.create("web"), b.create("db")
	pl := *try(b, b.CreateManagedPrefixList, `{"PrefixListName":"n","AddressFamily":"IPv4","MaxEntries":10}`).PrefixList.PrefixListId
	rules := try(b, b.AuthorizeSecurityGroupIngress, `{"GroupId":"`+web+`","TagSpecifications":[{"ResourceType":"security-group-rule","Tags":[{"Key":"a","Value":"b"}]}],
		"IpPermissions":[{"IpProtocol":"tcp","FromPort":1,"ToPort":2,"PrefixListIds":[{"PrefixListId":"`+pl+`"}],"UserIdGroupPairs":[{"GroupId":"`+db+`"},{"GroupId":"`+web+`"}]}]}`).SecurityGroupRules
	if len(rules) != 3 || *rules[2].PrefixListId != pl || *rules[0].ReferencedGroupInfo.GroupId != db || *rules[0].Tags[0].Key != "a" {
		t.Fatalf("%+v", rules)
	}
	first := *rules[0].SecurityGroupRuleId
	if got := try(b, b.DescribeSecurityGroupRules, `{"Filters":[{"Name":"tag:a","Values":["b"]},{"Name":"group-id","Values":["`+web+`"]}]}`).SecurityGroupRules; len(got) != 3 {
		t.Errorf("%+v", got)
	}
	try(b, b.CreateTags, `{"Resources":["`+first+`"],"Tags":[{"Key":"c","Value":"d"}]}`)
	if got := try(b, b.DescribeTags, `{"Filters":[{"Name":"resource-id","Values":["`+first+`"]}]}`).Tags; len(got) != 2 || got[0].ResourceType != "security-group-rule" {
		t.Errorf("%+v", got)
	}
	modify := func(rule string) string {
		return `{"GroupId":"` + web + `","SecurityGroupRules":[{"SecurityGroupRuleId":"` + first + `","SecurityGroupRule":` + rule + `}]}`
	}
	try(b, b.ModifySecurityGroupRules, modify(`{"IpProtocol":"udp","FromPort":53,"ToPort":53,"CidrIpv6":"2001:db8::/32","Description":"dns"}`))
	got := try(b, b.DescribeSecurityGroupRules, `{"SecurityGroupRuleIds":["`+first+`"]}`).SecurityGroupRules[0]
	if *got.CidrIpv6 != "2001:db8::/32" || *got.IpProtocol != "udp" || *got.Description != "dns" || len(got.Tags) != 2 || got.ReferencedGroupInfo != nil {
		t.Errorf("%+v", got)
	}
	refuse(b, b.ModifySecurityGroupRules, modify(`{"IpProtocol":"tcp","FromPort":1,"ToPort":2,"PrefixListId":"`+pl+`"}`),
		`InvalidPermission.Duplicate: the specified rule "peer: `+pl+`, TCP, from port: 1, to port: 2, ALLOW" already exists`)
	refuse(b, b.ModifySecurityGroupRules, modify(`{"IpProtocol":"-1","CidrIpv4":"0.0.0.0/0","CidrIpv6":"::/0"}`), "InvalidParameterCombination: Only one of cidrIpv4, cidrIpv6, prefixListId, or referencedGroupId can be specified")
	refuse(b, b.ModifySecurityGroupRules, strings.ReplaceAll(modify(`{"IpProtocol":"-1"}`), first, "sgr-9"), "InvalidSecurityGroupRuleId.NotFound: The security group rule ID 'sgr-9' does not exist")

	try(b, b.UpdateSecurityGroupRuleDescriptionsIngress, `{"GroupId":"`+web+`","SecurityGroupRuleDescriptions":[{"SecurityGroupRuleId":"`+first+`","Description":"by id"}]}`)
	try(b, b.UpdateSecurityGroupRuleDescriptionsIngress, `{"GroupId":"`+web+`","IpPermissions":[{"IpProtocol":"tcp","FromPort":1,"ToPort":2,"PrefixListIds":[{"PrefixListId":"`+pl+`","Description":"by what it allows"}]}]}`)
	var said []string
	for _, r := range try(b, b.DescribeSecurityGroupRules, `{"Filters":[{"Name":"group-id","Values":["`+web+`"]}]}`).SecurityGroupRules {
		said = append(said, wire.Value(r.Description))
	}
	slices.Sort(said)
	if want := []string{"", "", "by id", "by what it allows"}; !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
	refuse(b, b.UpdateSecurityGroupRuleDescriptionsEgress, `{"GroupId":"`+web+`","SecurityGroupRuleDescriptions":[{"SecurityGroupRuleId":"`+first+`"}]}`, "InvalidSecurityGroupRuleId.NotFound: The security group rule ID '"+first+"' does not exist")

	// A prefix list counts as much as it may hold.
	big := *try(b, b.CreateManagedPrefixList, `{"PrefixListName":"big","AddressFamily":"IPv4","MaxEntries":55}`).PrefixList.PrefixListId
	refuse(b, b.AuthorizeSecurityGroupIngress, `{"GroupId":"`+web+`","IpPermissions":[{"IpProtocol":"-1","PrefixListIds":[{"PrefixListId":"`+big+`"}]}]}`, "RulesPerSecurityGroupLimitExceeded: The maximum number of rules per security group has been reached.")
	refuse(b, b.ModifyManagedPrefixList, `{"PrefixListId":"`+pl+`","MaxEntries":60}`, "RulesPerSecurityGroupLimitExceeded: The maximum number of rules per security group has been reached.")
}

func TestPrefixLists(t *testing.T) {
	b := newBench(t)
	for body, want := range map[string]string{
		`{"PrefixListName":"n","AddressFamily":"IPv5","MaxEntries":1}`:                                                         "InvalidParameterValue: Value (IPv5) for parameter addressFamily is invalid. Valid values are IPv4 and IPv6.",
		`{"PrefixListName":"com.amazonaws.x","AddressFamily":"IPv4","MaxEntries":1}`:                                           "InvalidParameterValue: Value (com.amazonaws.x) for parameter prefixListName is invalid. Names have up to 255 characters and cannot start with com.amazonaws.",
		`{"PrefixListName":"n","AddressFamily":"IPv4","MaxEntries":1,"Entries":[{"Cidr":"::/0"}]}`:                             "InvalidParameterValue: The CIDR '::/0' is not a valid IPv4 CIDR block.",
		`{"PrefixListName":"n","AddressFamily":"IPv4","MaxEntries":1,"Entries":[{"Cidr":"10.0.0.0/8"},{"Cidr":"11.0.0.0/8"}]}`: "PrefixListMaxEntriesExceeded: You've reached the maximum number of entries for the prefix list.",
		`{"PrefixListName":"n","AddressFamily":"IPv4","MaxEntries":0}`:                                                         "InvalidParameterValue: Value (0) for parameter maxEntries is invalid.",
	} {
		refuse(b, b.CreateManagedPrefixList, body, want)
	}
	made := try(b, b.CreateManagedPrefixList, `{"PrefixListName":"n","AddressFamily":"IPv4","MaxEntries":3,"Entries":[{"Cidr":"10.0.0.0/8","Description":"ten"}]}`).PrefixList
	id := *made.PrefixListId
	if made.State != "create-complete" || *made.Version != 1 || *made.PrefixListArn != "arn:aws:ec2:eu-west-1:123456789012:prefix-list/"+id {
		t.Errorf("%+v", made)
	}
	entries := func(version string) string {
		var out []string
		for _, x := range try(b, b.GetManagedPrefixListEntries, `{"PrefixListId":"`+id+`"`+version+`}`).Entries {
			out = append(out, *x.Cidr+wire.Value(x.Description))
		}
		return strings.Join(out, " ")
	}
	modify := func(what string) string { return `{"PrefixListId":"` + id + `",` + what + `}` }
	two := try(b, b.ModifyManagedPrefixList, modify(`"CurrentVersion":1,"AddEntries":[{"Cidr":"12.0.0.0/8"},{"Cidr":"11.0.0.0/8"}],"RemoveEntries":[{"Cidr":"10.0.0.0/8"}]`)).PrefixList
	if *two.Version != 2 || two.State != "modify-complete" || entries("") != "11.0.0.0/8 12.0.0.0/8" || entries(`,"TargetVersion":1`) != "10.0.0.0/8ten" {
		t.Errorf("%+v %s", two, entries(""))
	}
	for what, want := range map[string]string{
		`"CurrentVersion":1,"AddEntries":[{"Cidr":"13.0.0.0/8"}]`:                "PrefixListVersionMismatch: The prefix list has the incorrect version number",
		`"AddEntries":[{"Cidr":"13.0.0.0/8"}]`:                                   "MissingParameter: The request must contain the parameter currentVersion",
		`"CurrentVersion":2,"RemoveEntries":[{"Cidr":"13.0.0.0/8"}]`:             "InvalidParameterValue: The CIDR '13.0.0.0/8' is not an entry of the prefix list.",
		`"CurrentVersion":2,"MaxEntries":5,"AddEntries":[{"Cidr":"13.0.0.0/8"}]`: "InvalidParameterCombination: You cannot modify the size of a prefix list and modify the entries of the same prefix list in the same request.",
		`"MaxEntries":1`: "InvalidParameterValue: Value (1) for parameter maxEntries is invalid. The list has 2 entries.",
		`"CurrentVersion":2,"AddEntries":[{"Cidr":"13.0.0.0/8"},{"Cidr":"14.0.0.0/8"}]`: "PrefixListMaxEntriesExceeded: You've reached the maximum number of entries for the prefix list.",
	} {
		refuse(b, b.ModifyManagedPrefixList, modify(what), want)
	}
	if v := try(b, b.RestoreManagedPrefixListVersion, modify(`"CurrentVersion":2,"PreviousVersion":1`)).PrefixList; *v.Version != 3 || v.State != "restore-complete" || entries("") != "10.0.0.0/8ten" {
		t.Errorf("%+v", v)
	}
	g := b.create("web")
	rule := `{"GroupId":"` + g + `","IpPermissions":[{"IpProtocol":"-1","PrefixListIds":[{"PrefixListId":"` + id + `"}]}]}`
	try(b, b.AuthorizeSecurityGroupIngress, rule)
	if a := try(b, b.GetManagedPrefixListAssociations, `{"PrefixListId":"`+id+`"}`).PrefixListAssociations; len(a) != 1 || *a[0].ResourceId != g || *a[0].ResourceOwner != account {
		t.Errorf("%+v", a)
	}
	refuse(b, b.DeleteManagedPrefixList, `{"PrefixListId":"`+id+`"}`, "DependencyViolation: The prefix list '"+id+"' has dependencies and cannot be deleted.")
	try(b, b.RevokeSecurityGroupIngress, rule)
	try(b, b.DeleteManagedPrefixList, `{"PrefixListId":"`+id+`"}`)
	refuse(b, b.GetManagedPrefixListEntries, `{"PrefixListId":"`+id+`"}`, "InvalidPrefixListID.NotFound: The prefix list ID '"+id+"' does not exist")

	// A list that changes often keeps what fits into its row, the current version always.
	p := &state.PrefixList{Versions: []state.PrefixListVersion{{}}}
	for range 300 {
		p = versioned(p, make([]state.PrefixListEntry, 100), "modify-complete")
	}
	if n := len(p.Versions); p.Version != 300 || n < 10 || n > keptEntries/100 || len(p.Entries()) != 100 {
		t.Errorf("version %d, %d kept", p.Version, n)
	}
}

func TestPeering(t *testing.T) {
	b := newBench(t)
	vpc := b.vpc() // 172.31.0.0/16
	b.vpcRow("vpc-b", other, "10.0.0.0/16")
	b.vpcRow("vpc-c", account, "10.1.0.0/16")
	b.vpcRow("vpc-same", account, "172.31.128.0/20")
	as := func(who string) { b.account = who }
	show := func(id string) string {
		t.Helper()
		v := try(b, b.DescribeVpcPeeringConnections, `{"VpcPeeringConnectionIds":["`+id+`"]}`).VpcPeeringConnections[0]
		return string(v.Status.Code) + ": " + *v.Status.Message
	}
	create := func(body string) string {
		t.Helper()
		return *try(b, b.CreateVpcPeeringConnection, body).VpcPeeringConnection.VpcPeeringConnectionId
	}
	for body, why := range map[string]string{
		`"PeerVpcId":"vpc-same"`: "overlap", `"PeerVpcId":"vpc-9"`: "no such VPC", `"PeerVpcId":"vpc-b"`: "of another account",
	} {
		if got := show(create(`{"VpcId":"` + vpc + `",` + body + `}`)); got != "failed: Failed due to incorrect VPC-ID, Account ID, or overlapping CIDR range" {
			t.Errorf("%s: %s", why, got)
		}
	}
	refuse(b, b.CreateVpcPeeringConnection, `{"VpcId":"`+vpc+`","PeerVpcId":"vpc-c","PeerRegion":"us-east-1"}`, "UnsupportedOperation: Peering with a VPC of another region (us-east-1) is not supported.")
	id := create(`{"VpcId":"` + vpc + `","PeerVpcId":"vpc-b","PeerOwnerId":"` + other + `","TagSpecifications":[{"ResourceType":"vpc-peering-connection","Tags":[{"Key":"side","Value":"a"}]}]}`)
	on := `{"VpcPeeringConnectionId":"` + id + `"}`
	if got := show(id); got != "pending-acceptance: Pending Acceptance by "+other {
		t.Error(got)
	}
	refuse(b, b.CreateVpcPeeringConnection, `{"VpcId":"`+vpc+`","PeerVpcId":"vpc-b","PeerOwnerId":"`+other+`"}`, "VpcPeeringConnectionAlreadyExists: A VPC peering connection between "+vpc+" and vpc-b already exists: "+id)
	refuse(b, b.AcceptVpcPeeringConnection, on, "OperationNotPermitted: User "+account+" cannot accept peering "+id)
	refuse(b, b.ModifyVpcPeeringConnectionOptions, `{"VpcPeeringConnectionId":"`+id+`","RequesterPeeringConnectionOptions":{"AllowDnsResolutionFromRemoteVpc":true}}`,
		"OperationNotPermitted: Peering "+id+" is not active. Peering options can be added only to active peerings.")
	as("777777777777")
	refuse(b, b.AcceptVpcPeeringConnection, on, "InvalidVpcPeeringConnectionID.NotFound: The vpcPeeringConnection ID '"+id+"' does not exist")
	as(other)
	if v := try(b, b.DescribeVpcPeeringConnections, `{}`).VpcPeeringConnections; len(v) != 1 || len(v[0].Tags) != 0 || v[0].AccepterVpcInfo.CidrBlock != nil || v[0].ExpirationTime == nil {
		t.Errorf("%+v", v)
	}
	try(b, b.CreateTags, `{"Resources":["`+id+`"],"Tags":[{"Key":"side","Value":"b"}]}`)
	v := try(b, b.AcceptVpcPeeringConnection, on).VpcPeeringConnection
	if v.Status.Code != "active" || *v.AccepterVpcInfo.CidrBlock != "10.0.0.0/16" || *v.RequesterVpcInfo.OwnerId != account {
		t.Errorf("%+v", v)
	}
	refuse(b, b.ModifyVpcPeeringConnectionOptions, `{"VpcPeeringConnectionId":"`+id+`","RequesterPeeringConnectionOptions":{"AllowDnsResolutionFromRemoteVpc":true}}`,
		"OperationNotPermitted: User "+other+" cannot modify these options of peering "+id)
	try(b, b.ModifyVpcPeeringConnectionOptions, `{"VpcPeeringConnectionId":"`+id+`","AccepterPeeringConnectionOptions":{"AllowDnsResolutionFromRemoteVpc":true}}`)
	as(account)
	x := try(b, b.DescribeVpcPeeringConnections, `{"Filters":[{"Name":"tag:side","Values":["a"]},{"Name":"status-code","Values":["active"]},{"Name":"accepter-vpc-info.cidr-block","Values":["10.0.0.0/16"]}]}`).VpcPeeringConnections
	if len(x) != 1 || !*x[0].AccepterVpcInfo.PeeringOptions.AllowDnsResolutionFromRemoteVpc || *x[0].RequesterVpcInfo.PeeringOptions.AllowDnsResolutionFromRemoteVpc {
		t.Fatalf("%+v", x)
	}

	// Groups of the other side may be named, until there is no other side.
	g := b.create("web")
	rule := `{"GroupId":"` + g + `","IpPermissions":[{"IpProtocol":"-1","UserIdGroupPairs":[{"GroupId":"sg-vpc-b","UserId":"` + other + `"}]}]}`
	if r := try(b, b.AuthorizeSecurityGroupIngress, rule).SecurityGroupRules[0].ReferencedGroupInfo; *r.UserId != other || *r.VpcPeeringConnectionId != id || *r.VpcId != "vpc-b" || *r.PeeringStatus != "active" {
		t.Errorf("%+v", r)
	}
	refuse(b, b.AuthorizeSecurityGroupIngress, strings.ReplaceAll(rule, "sg-vpc-b", "sg-vpc-c"), "InvalidGroup.NotFound: The security group 'sg-vpc-c' does not exist")
	stale := func() int {
		return len(try(b, b.DescribeStaleSecurityGroups, `{"VpcId":"`+vpc+`"}`).StaleSecurityGroupSet)
	}
	if n := stale(); n != 0 {
		t.Errorf("%d stale groups", n)
	}
	as(other)
	if r := try(b, b.DescribeSecurityGroupReferences, `{"GroupId":["sg-vpc-b"]}`).SecurityGroupReferenceSet; len(r) != 1 || *r[0].ReferencingVpcId != vpc || *r[0].VpcPeeringConnectionId != id {
		t.Errorf("%+v", r)
	}
	refuse(b, b.RejectVpcPeeringConnection, on, "InvalidStateTransition: Invalid state transition for "+id+", attempted to transition from active to rejected")
	try(b, b.DeleteVpcPeeringConnection, on)
	as(account)
	if got := show(id); got != "deleted: Deleted by "+other {
		t.Error(got)
	}
	if n := stale(); n != 1 {
		t.Errorf("%d stale groups", n)
	}
	try(b, b.RevokeSecurityGroupIngress, rule)
	if n := stale(); n != 0 {
		t.Errorf("%d stale groups", n)
	}
	refuse(b, b.AuthorizeSecurityGroupIngress, rule, "InvalidGroup.NotFound: The security group 'sg-vpc-b' does not exist")

	id = create(`{"VpcId":"` + vpc + `","PeerVpcId":"vpc-c"}`)
	try(b, b.RejectVpcPeeringConnection, `{"VpcPeeringConnectionId":"`+id+`"}`)
	if got := show(id); got != "rejected: Rejected by "+account {
		t.Error(got)
	}
	// Nobody accepts in time.
	id = create(`{"VpcId":"` + vpc + `","PeerVpcId":"vpc-c"}`)
	b.EC2.Now = func() time.Time { return now.Add(state.PeeringLife) }
	if got := show(id); got != "expired: Expired" {
		t.Error(got)
	}
	refuse(b, b.AcceptVpcPeeringConnection, `{"VpcPeeringConnectionId":"`+id+`"}`, "InvalidStateTransition: Invalid state transition for "+id+", attempted to transition from expired to active")
}

func TestEndpoints(t *testing.T) {
	b := newBench(t)
	vpc, subnets := b.vpc(), b.subnets()
	for body, want := range map[string]string{
		`"ServiceName":"com.amazonaws.eu-west-1.s3"`:                                                                                        "InvalidServiceName: The Vpc Endpoint Service 'com.amazonaws.eu-west-1.s3' does not exist",
		`"ServiceName":"com.amazonaws.eu-west-1.ecs"`:                                                                                       "InvalidParameter: Endpoint type (Gateway) does not match available service types ([Interface]).",
		`"ServiceName":"com.amazonaws.eu-west-1.ecs","VpcEndpointType":"GatewayLoadBalancer"`:                                               "UnsupportedOperation: VpcEndpointType GatewayLoadBalancer is not supported.",
		`"ServiceName":"com.amazonaws.eu-west-1.ecs","VpcEndpointType":"Interface","IpAddressType":"dualstack"`:                             "UnsupportedOperation: IpAddressType dualstack is not supported.",
		`"ServiceName":"com.amazonaws.eu-west-1.ecs","VpcEndpointType":"Interface","SubnetIds":["` + subnets[0] + `","` + subnets[0] + `"]`: "DuplicateSubnetsInSameZone: Found another VPC endpoint subnet in the availability zone of " + subnets[0],
		`"ServiceName":"com.amazonaws.eu-west-1.ecs","VpcEndpointType":"Interface","PolicyDocument":"{"`:                                    "InvalidPolicyDocument: The policy document is not valid JSON with a Statement.",
	} {
		refuse(b, b.CreateVpcEndpoint, `{"VpcId":"`+vpc+`",`+body+`}`, want)
	}
	made := try(b, b.CreateVpcEndpoint, `{"VpcId":"`+vpc+`","VpcEndpointType":"Interface","ServiceName":"com.amazonaws.eu-west-1.ecr.api","SubnetIds":["`+subnets[0]+`","`+subnets[1]+`"],"PrivateDnsEnabled":true}`).VpcEndpoint
	id := *made.VpcEndpointId
	show := func() api.VpcEndpoint {
		return try(b, b.DescribeVpcEndpoints, `{"VpcEndpointIds":["`+id+`"]}`).VpcEndpoints[0]
	}
	if v := show(); v.State != "pending" || len(v.NetworkInterfaceIds) != 2 || len(v.SubnetIds) != 2 || *v.Groups[0].GroupName != "default" || !strings.Contains(*v.PolicyDocument, `"Effect": "Allow"`) {
		t.Errorf("%+v", v)
	}
	var names []string
	for _, d := range show().DnsEntries {
		names = append(names, strings.ReplaceAll(*d.DnsName, id, "ID"))
	}
	short := id[len(id)-8:]
	if want := []string{"ID-" + short + ".api.ecr.eu-west-1.vpce.amazonaws.com", "ID-" + short + "-eu-west-1a.api.ecr.eu-west-1.vpce.amazonaws.com",
		"ID-" + short + "-eu-west-1b.api.ecr.eu-west-1.vpce.amazonaws.com", "api.ecr.eu-west-1.amazonaws.com"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	v := b.showENI(made.NetworkInterfaceIds[0])
	if v.InterfaceType != "vpc_endpoint" || !*v.RequesterManaged || *v.Description != "VPC Endpoint Interface "+id || v.Status != "in-use" || v.Attachment.Status != "attaching" || !strings.HasPrefix(*v.Attachment.AttachmentId, "ela-attach-") {
		t.Errorf("%+v", v)
	}
	refuse(b, b.DetachNetworkInterface, `{"AttachmentId":"`+*v.Attachment.AttachmentId+`"}`, "OperationNotPermitted: You are not allowed to manage 'ela-attach' attachments.")
	refuse(b, b.CreateVpcEndpoint, `{"VpcId":"`+vpc+`","VpcEndpointType":"Interface","ServiceName":"com.amazonaws.eu-west-1.ecr.api","PrivateDnsEnabled":true}`,
		"InvalidParameter: private-dns-enabled cannot be set because there is already a conflicting DNS domain for api.ecr.eu-west-1.amazonaws.com in the VPC "+vpc)

	// What resolves is what is available, and each name to its own zone.
	if n := state.EndpointNames(b.db.Snapshot(), "eu-west-1", vpc); len(n) != 0 {
		t.Errorf("%v", n)
	}
	b.put(func(tx *store.Tx) {
		x, _ := state.Endpoints.Get(tx, id)
		n := *x
		n.State = "available"
		state.Endpoints.Put(tx, &n)
	})
	resolved := state.EndpointNames(b.db.Snapshot(), "eu-west-1", vpc)
	if len(resolved) != 4 || len(resolved["api.ecr.eu-west-1.amazonaws.com"]) != 2 || len(resolved[id+"-"+short+"-eu-west-1b.api.ecr.eu-west-1.vpce.amazonaws.com"]) != 1 {
		t.Errorf("%v", resolved)
	}

	g := b.create("web")
	try(b, b.ModifyVpcEndpoint, `{"VpcEndpointId":"`+id+`","AddSubnetIds":["`+subnets[2]+`"],"RemoveSubnetIds":["`+subnets[0]+`"],"AddSecurityGroupIds":["`+g+`"],"PrivateDnsEnabled":false,"PolicyDocument":"{\"Statement\":[]}"}`)
	if v := show(); !slices.Equal(v.SubnetIds, subnets[1:]) || len(v.NetworkInterfaceIds) != 2 || len(v.Groups) != 2 || *v.PrivateDnsEnabled || *v.PolicyDocument != `{"Statement":[]}` {
		t.Errorf("%+v", v)
	}
	for _, n := range show().NetworkInterfaceIds {
		if len(b.showENI(n).Groups) != 2 {
			t.Errorf("%s does not have the endpoint's groups", n)
		}
	}
	out := try(b, b.DeleteVpcEndpoints, `{"VpcEndpointIds":["`+id+`","vpce-9"]}`).Unsuccessful
	if len(out) != 1 || *out[0].Error.Code != "InvalidVpcEndpointId.NotFound" || show().State != "deleting" {
		t.Errorf("%+v", out)
	}
	s := try(b, b.DescribeVpcEndpointServices, `{"ServiceNames":["com.amazonaws.eu-west-1.ecs-agent"]}`)
	if len(s.ServiceDetails) != 1 || *s.ServiceDetails[0].PrivateDnsName != "ecs-a.eu-west-1.amazonaws.com" || len(s.ServiceDetails[0].AvailabilityZones) != 3 {
		t.Errorf("%+v", s)
	}
	if n := len(try(b, b.DescribeVpcEndpointServices, `{"Filters":[{"Name":"service-type","Values":["Gateway"]}]}`).ServiceNames); n != 0 {
		t.Errorf("%d gateway services", n)
	}
}

func TestFlowLogs(t *testing.T) {
	b := newBench(t)
	vpc, subnet := b.vpc(), b.subnets()[0]
	eni := b.eni(`{"SubnetId":"` + subnet + `"}`)
	b.put(func(tx *store.Tx) {
		state.Roles.Put(tx, &state.Role{Account: account, Path: "/", Name: "flow", ID: "AROAX"})
		state.Roles.Put(tx, &state.Role{Account: account, Path: "/", Name: "untrusting", ID: "AROAY"})
	})
	b.EC2.Assumable = func(r *state.Role, service string) bool { return r.Name == "flow" && service == FlowLogsService }
	const role = `"DeliverLogsPermissionArn":"arn:aws:iam::123456789012:role/flow"`
	create := func(kind, id, more string) string {
		return `{"ResourceType":"` + kind + `","ResourceIds":["` + id + `"],"TrafficType":"ALL",` + more + `}`
	}
	for body, want := range map[string]string{
		create("TransitGateway", "tgw-1", `"LogGroupName":"g",`+role):                                                   "UnsupportedOperation: ResourceType TransitGateway is not supported.",
		create("VPC", vpc, `"LogDestinationType":"s3","LogDestination":"arn:aws:s3:::b"`):                               "UnsupportedOperation: LogDestinationType s3 is not supported.",
		create("VPC", vpc, `"LogGroupName":"g"`):                                                                        "InvalidParameter: DeliverLogsPermissionArn can't be empty if LogDestinationType is cloud-watch-logs",
		create("VPC", vpc, role):                                                                                        "InvalidParameter: LogDestination can't be empty if LogGroupName is not provided.",
		create("VPC", vpc, `"LogDestination":"arn:aws:logs:eu-west-1:999999999999:log-group:g",`+role):                  "InvalidParameter: LogDestination: arn:aws:logs:eu-west-1:999999999999:log-group:g is not the ARN of a log group of this account and region.",
		create("VPC", vpc, `"LogGroupName":"g","LogFormat":"${colour}",`+role):                                          `InvalidParameter: LogFormat is not valid: there is no field "colour"`,
		create("VPC", vpc, `"LogGroupName":"g","MaxAggregationInterval":61,`+role):                                      "InvalidParameter: Invalid aggregation interval. Valid values are 60 and 600.",
		create("VPC", vpc, `"LogGroupName":"g","DeliverLogsPermissionArn":"arn:aws:iam::123456789012:role/nobody"`):     "InvalidParameter: Unable to assume given IAM role",
		create("VPC", vpc, `"LogGroupName":"g","DeliverLogsPermissionArn":"arn:aws:iam::123456789012:role/untrusting"`): "InvalidParameter: Unable to assume given IAM role",
	} {
		refuse(b, b.CreateFlowLogs, body, want)
	}
	if out := try(b, b.CreateFlowLogs, create("VPC", "vpc-9", `"LogGroupName":"g",`+role)); len(out.FlowLogIds) != 0 || *out.Unsuccessful[0].Error.Code != "InvalidVpcID.NotFound" {
		t.Errorf("%+v", out)
	}
	all := try(b, b.CreateFlowLogs, create("VPC", vpc, `"LogGroupName":"g",`+role)).FlowLogIds[0]
	if out := try(b, b.CreateFlowLogs, create("VPC", vpc, `"LogGroupName":"g",`+role)); *out.Unsuccessful[0].Error.Code != "FlowLogAlreadyExists" {
		t.Errorf("%+v", out)
	}
	custom := try(b, b.CreateFlowLogs, strings.Replace(create("NetworkInterface", eni, `"LogDestination":"arn:aws:logs:eu-west-1:123456789012:log-group:h:*","LogFormat":"${interface-id} ${az-id} ${traffic-path} ${flow-direction}","MaxAggregationInterval":60,`+role), "ALL", "REJECT", 1)).FlowLogIds[0]
	v := try(b, b.DescribeFlowLogs, `{"Filter":[{"Name":"resource-id","Values":["`+vpc+`"]}]}`).FlowLogs
	if len(v) != 1 || *v[0].LogFormat != flow.Default || *v[0].FlowLogStatus != "ACTIVE" || v[0].DeliverLogsStatus != nil || *v[0].MaxAggregationInterval != 600 || *v[0].LogGroupName != "g" {
		t.Errorf("%+v", v)
	}

	start := now.Add(time.Minute)
	address := netip.MustParseAddr(*b.showENI(eni).PrivateIpAddress)
	w := FlowWindow{Record: flow.Flow{Start: start, End: start.Add(time.Minute)}, Interfaces: []string{eni, "eni-gone"}, Flows: map[string][]flow.Flow{eni: {
		{Egress: true, Src: address, Dst: netip.MustParseAddr("8.8.8.8"), PktSrc: address, PktDst: netip.MustParseAddr("8.8.8.8"), SrcPort: 1, DstPort: 53, Protocol: 17, Packets: 1, Bytes: 60, Start: start, End: start, Action: flow.Accept},
		{Egress: true, Src: address, Dst: netip.MustParseAddr("172.31.9.9"), PktSrc: address, PktDst: netip.MustParseAddr("172.31.9.9"), Protocol: 6, Packets: 2, Bytes: 80, Start: start, End: start, Action: flow.Reject},
	}}}
	got := map[string]FlowDelivery{}
	for _, d := range FlowDeliveries(b.db.Snapshot(), w) {
		got[d.FlowLog] = d
	}
	if d := got[all]; d.Group != "g" || d.Stream != eni+"-all" || len(d.Lines) != 2 || !strings.HasSuffix(d.Lines[0], " 8.8.8.8 1 53 17 1 60 1795348860 1795348860 ACCEPT OK") || d.Times[0] != start.UnixMilli() {
		t.Errorf("%+v", d)
	}
	if d := got[custom]; d.Group != "h" || d.Stream != eni+"-reject" || !slices.Equal(d.Lines, []string{eni + " euw1-az1 1 egress"}) {
		t.Errorf("%+v", d)
	}
	// The way of what leaves is that of the route: here the internet gateway.
	n, _ := state.NetworkInterfaces.Get(b.db.Snapshot(), eni)
	if p := path(b.db.Snapshot(), n, w.Flows[eni][0]); p != pathInternet {
		t.Errorf("path %d", p)
	}
	for _, x := range []struct{ failure, status string }{{"", "SUCCESS"}, {"Access error", "FAILED"}} {
		if err := b.Delivered(t.Context(), all, x.failure); err != nil {
			t.Fatal(err)
		}
		if v := try(b, b.DescribeFlowLogs, `{"FlowLogIds":["`+all+`"]}`).FlowLogs[0]; *v.DeliverLogsStatus != x.status || wire.Value(v.DeliverLogsErrorMessage) != x.failure {
			t.Errorf("%+v", v)
		}
	}
	if out := try(b, b.DeleteFlowLogs, `{"FlowLogIds":["`+all+`","fl-9"]}`).Unsuccessful; len(out) != 1 || *out[0].Error.Code != "InvalidFlowLogId.NotFound" {
		t.Errorf("%+v", out)
	}
	refuse(b, b.DescribeFlowLogs, `{"FlowLogIds":["`+all+`"]}`, "InvalidFlowLogId.NotFound: These flow log ids in the input list are not found: [TotalCount: 1] "+all)
}
