package ec2

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
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
	domain := region.Name + ".compute.internal"
	if region.Name == "us-east-1" {
		domain = "ec2.internal"
	}
	dhcp := &state.DHCPOptions{ID: id("dopt"), Account: account, Values: []state.DHCPValue{
		{Name: "domain-name", Values: []string{domain}},
		{Name: "domain-name-servers", Values: []string{"AmazonProvidedDNS"}},
	}}
	state.DHCPOptionSets.Put(tx, dhcp)
	cidr := netip.MustParsePrefix("172.31.0.0/16")
	v := &state.VPC{ID: id("vpc"), Account: account, CIDRs: []netip.Prefix{cidr}, Default: true,
		DNSSupport: true, DNSHostnames: true, DHCPOptions: dhcp.ID, CreatedAt: now}
	state.VPCs.Put(tx, v)
	igw := &state.InternetGateway{ID: id("igw"), Account: account, VPC: v.ID, CreatedAt: now}
	state.InternetGateways.Put(tx, igw)
	state.RouteTables.Put(tx, &state.RouteTable{ID: id("rtb"), Account: account, VPC: v.ID, Main: true, MainAssociation: id("rtbassoc"),
		Routes: []state.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Target: igw.ID, Origin: "CreateRoute"}}, CreatedAt: now})
	state.NetworkACLs.Put(tx, &state.NetworkACL{ID: id("acl"), Account: account, VPC: v.ID, Default: true})
	g := &state.SecurityGroup{ID: id("sg"), Account: account, VPC: v.ID, Name: "default", Description: "default VPC security group", CreatedAt: now}
	g.Rules = []state.SecurityGroupRule{
		{ID: id("sgr"), Protocol: "-1", From: -1, To: -1, Group: g.ID},
		{ID: id("sgr"), Egress: true, Protocol: "-1", From: -1, To: -1, CIDR: netip.MustParsePrefix("0.0.0.0/0")},
	}
	state.SecurityGroups.Put(tx, g)
	state.GroupNames.Put(tx, &state.GroupName{VPC: v.ID, Name: g.Name, Group: g.ID})
	for i, z := range region.Zones {
		state.Subnets.Put(tx, &state.Subnet{ID: id("subnet"), Account: account, VPC: v.ID, Zone: z.Name,
			CIDR: netip.MustParsePrefix(fmt.Sprintf("172.31.%d.0/20", i*16)), MapPublicIPOnLaunch: true, DefaultForZone: true, CreatedAt: now})
	}
}
