package ec2

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var (
	everywhere  = netip.MustParsePrefix("0.0.0.0/0")
	everywhere6 = netip.MustParsePrefix("::/0")
)

// Bootstrap gives an account what every AWS account begins with (facts:
// networking): a default VPC of 172.31.0.0/16 with a /20 default subnet in each
// zone, an internet gateway, a main route table, and the default group, ACL
// and DHCP option set. An account that has a VPC is left alone.
func Bootstrap(ctx context.Context, db *store.DB, region *state.Region, account string, now time.Time, newID func() string) error {
	return db.Update(ctx, func(tx *store.Tx) error {
		for range state.VPCs.By(tx, "account", account) {
			return nil
		}
		Furnish(tx, region, account, now, newID)
		return nil
	})
}

// Furnish is Bootstrap as a part of the transaction that makes the account.
func Furnish(tx *store.Tx, region *state.Region, account string, now time.Time, newID func() string) {
	id := func(prefix string) string { return prefix + "-" + newID()[:17] }
	furnishDefault(tx, region, account, defaultOptions(tx, region.Name, account, id("dopt")), now, id)
}

// furnishDefault makes a default VPC.
func furnishDefault(tx *store.Tx, region *state.Region, account, dhcp string, now time.Time, id func(prefix string) string) *state.VPC {
	v := &state.VPC{ID: id("vpc"), Account: account, CIDRs: []netip.Prefix{defaultNetwork}, CIDRAssociations: []string{id("vpc-cidr-assoc")}, Default: true,
		DNSSupport: true, DNSHostnames: true, DHCPOptions: dhcp, CreatedAt: now}
	state.VPCs.Put(tx, v)
	igw := &state.InternetGateway{ID: id("igw"), Account: account, VPC: v.ID, CreatedAt: now}
	state.InternetGateways.Put(tx, igw)
	furnish(tx, v, id, state.Route{Destination: everywhere, Target: igw.ID, Origin: "CreateRoute"})
	for i, z := range region.Zones {
		state.Subnets.Put(tx, &state.Subnet{ID: id("subnet"), Account: account, VPC: v.ID, Zone: z.Name, ACLAssociation: id("aclassoc"),
			CIDR: netip.MustParsePrefix(fmt.Sprintf("172.31.%d.0/20", i*16)), MapPublicIPOnLaunch: true, DefaultForZone: true, CreatedAt: now})
	}
	return v
}

var defaultNetwork = netip.MustParsePrefix("172.31.0.0/16")

// furnish makes what every VPC comes with: its main route table, and the
// default ACL and group.
func furnish(tx *store.Tx, v *state.VPC, id func(prefix string) string, routes ...state.Route) {
	state.RouteTables.Put(tx, &state.RouteTable{ID: id("rtb"), Account: v.Account, VPC: v.ID, Main: true, MainAssociation: id("rtbassoc"), Routes: routes, CreatedAt: v.CreatedAt})
	state.NetworkACLs.Put(tx, &state.NetworkACL{ID: id("acl"), Account: v.Account, VPC: v.ID, Default: true, CreatedAt: v.CreatedAt})
	g := &state.SecurityGroup{ID: id("sg"), Account: v.Account, VPC: v.ID, Name: "default", Description: "default VPC security group", CreatedAt: v.CreatedAt}
	g.Rules = []state.SecurityGroupRule{
		{ID: id("sgr"), Protocol: "-1", From: -1, To: -1, Group: g.ID},
		{ID: id("sgr"), Egress: true, Protocol: "-1", From: -1, To: -1, CIDR: everywhere},
	}
	if len(v.IPv6) > 0 {
		g.Rules = append(g.Rules, state.SecurityGroupRule{ID: id("sgr"), Egress: true, Protocol: "-1", From: -1, To: -1, CIDR: everywhere6})
	}
	state.SecurityGroups.Put(tx, g)
	state.GroupNames.Put(tx, &state.GroupName{VPC: v.ID, Name: g.Name, Group: g.ID})
}

// defaultOptions is the account's default DHCP option set. It is made, with the
// id that is given, if there is none.
func defaultOptions(tx *store.Tx, region, account, id string) string {
	domain := region + ".compute.internal"
	if region == "us-east-1" {
		domain = "ec2.internal"
	}
	values := []state.DHCPValue{
		{Name: "domain-name", Values: []string{domain}},
		{Name: "domain-name-servers", Values: []string{"AmazonProvidedDNS"}},
	}
	for d := range state.DHCPOptionSets.All(tx) {
		// A set from before sets were marked is known by what it says.
		if d.Account == account && (d.Default || slices.EqualFunc(d.Values, values, func(a, b state.DHCPValue) bool {
			return a.Name == b.Name && slices.Equal(a.Values, b.Values)
		})) {
			state.DHCPOptionSets.Get(tx, d.ID) // so that it cannot go meanwhile
			return d.ID
		}
	}
	state.DHCPOptionSets.Put(tx, &state.DHCPOptions{ID: id, Account: account, Default: true, Values: values})
	return id
}
