package dispatch

import (
	"context"
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// network is a region with something of everything.
func network(t *testing.T) *store.DB {
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	put(t, db, func(tx *store.Tx) {
		state.Regions.Put(tx, &state.Region{Name: "eu-west-1", Account: "1", ShortID: "abcdef"})
		state.VPCs.Put(tx, &state.VPC{ID: "vpc-1", CIDRs: []netip.Prefix{pfx("10.0.0.0/16"), pfx("10.9.0.0/24")}, IPv6: []state.IPv6Block{{CIDR: pfx("2001:db8::/56")}}, DNSSupport: true, DHCPOptions: "dopt-1"})
		state.VPCs.Put(tx, &state.VPC{ID: "vpc-2", CIDRs: []netip.Prefix{pfx("10.1.0.0/16")}})
		state.DHCPOptionSets.Put(tx, &state.DHCPOptions{ID: "dopt-1", Values: []state.DHCPValue{{Name: "domain-name", Values: []string{"corp.example"}}, {Name: "domain-name-servers", Values: []string{"AmazonProvidedDNS", "10.0.0.53"}}}})
		state.Subnets.Put(tx, &state.Subnet{ID: "subnet-1", VPC: "vpc-1", CIDR: pfx("10.0.0.0/24"), IPv6: []state.IPv6Block{{CIDR: pfx("2001:db8::/64")}}})
		state.Subnets.Put(tx, &state.Subnet{ID: "subnet-2", VPC: "vpc-1", CIDR: pfx("10.0.1.0/24"), RouteTable: "rtb-2", NetworkACL: "acl-2"})
		state.Subnets.Put(tx, &state.Subnet{ID: "subnet-3", VPC: "vpc-1", CIDR: pfx("10.0.2.0/24"), NetworkACL: "acl-3"})
		state.PrefixLists.Put(tx, &state.PrefixList{ID: "pl-1", Versions: []state.PrefixListVersion{{Version: 1}, {Version: 2, Entries: []state.PrefixListEntry{{CIDR: pfx("192.0.2.0/25")}, {CIDR: pfx("192.0.2.128/25")}}}}})
		state.InternetGateways.Put(tx, &state.InternetGateway{ID: "igw-1", VPC: "vpc-1"})
		state.InternetGateways.Put(tx, &state.InternetGateway{ID: "igw-2", VPC: "vpc-2"})
		state.EgressOnlyGateways.Put(tx, &state.EgressOnlyGateway{ID: "eigw-1", VPC: "vpc-1"})
		state.NATGateways.Put(tx, &state.NATGateway{ID: "nat-1", VPC: "vpc-1", State: "available", ENI: "eni-nat"})
		state.NATGateways.Put(tx, &state.NATGateway{ID: "nat-2", VPC: "vpc-1", State: "pending", ENI: "eni-nat2"})
		state.Peerings.Put(tx, &state.Peering{ID: "pcx-1", VPC: "vpc-2", PeerVPC: "vpc-1", Status: "active", RequesterDNS: true})
		state.Peerings.Put(tx, &state.Peering{ID: "pcx-2", VPC: "vpc-1", PeerVPC: "vpc-2", Status: "rejected"})
		state.RouteTables.Put(tx, &state.RouteTable{ID: "rtb-1", VPC: "vpc-1", Main: true, Routes: []state.Route{
			{Destination: pfx("0.0.0.0/0"), Target: "igw-1"}, {Destination: pfx("::/0"), Target: "eigw-1"}, {Destination: pfx("10.1.0.0/16"), Target: "pcx-1"},
			{PrefixList: "pl-1", Target: "nat-1"}, {PrefixList: "pl-none", Target: "nat-1"}}})
		state.RouteTables.Put(tx, &state.RouteTable{ID: "rtb-2", VPC: "vpc-1", Routes: []state.Route{
			{Destination: pfx("0.0.0.0/0"), Target: "nat-2"}, {Destination: pfx("10.1.0.0/16"), Target: "pcx-2"}, {Destination: pfx("192.0.2.0/24"), Target: "eni-1"},
			{Destination: pfx("192.0.3.0/24"), Target: "eni-free"}, {Destination: pfx("192.0.4.0/24"), Target: "igw-2"}, {Destination: pfx("192.0.5.0/24"), Target: "tgw-1"}}})
		state.NetworkACLs.Put(tx, &state.NetworkACL{ID: "acl-1", VPC: "vpc-1", Default: true})
		state.NetworkACLs.Put(tx, &state.NetworkACL{ID: "acl-2", VPC: "vpc-1", Entries: []state.ACLEntry{
			{Number: 200, Allow: true, Protocol: -1, CIDR: pfx("0.0.0.0/0")}, {Number: 100, Protocol: 6, From: 22, To: 22, CIDR: pfx("0.0.0.0/0")}}})
		// Open, though it is not the default one and says more.
		state.NetworkACLs.Put(tx, &state.NetworkACL{ID: "acl-3", VPC: "vpc-1", Entries: append(state.OpenACL(true), state.ACLEntry{Number: 200, Protocol: 6, CIDR: pfx("0.0.0.0/0")})})
		for _, e := range []*state.NetworkInterface{
			{ID: "eni-1", Node: "n1", Attachment: &state.InterfaceAttachment{Instance: "i-1"}, Address: ip("10.0.0.10"), Secondary: []state.SecondaryAddress{{Address: ip("10.0.0.11"), Public: ip("198.18.0.11")}}},
			{ID: "eni-2", Node: "n1", Attachment: &state.InterfaceAttachment{Instance: "i-1", Device: 1}, Address: ip("10.0.0.12"), IPv6: []netip.Addr{ip("2001:db8::12")}},
			{ID: "eni-free", Address: ip("10.0.0.13"), Groups: []string{"sg-1"}},
			{ID: "eni-nat", Node: "n1", Type: "nat_gateway", Owner: "nat-1", Address: ip("10.0.0.14"), Public: ip("198.18.0.14")},
			{ID: "eni-ep", Node: "n1", Type: "vpc_endpoint", Owner: "vpce-1", Address: ip("10.0.0.15")},
		} {
			e.VPC, e.Subnet, e.Zone = "vpc-1", "subnet-1", "eu-west-1a"
			state.NetworkInterfaces.Put(tx, e)
		}
		state.Endpoints.Put(tx, &state.Endpoint{ID: "vpce-1", VPC: "vpc-1", Service: "com.amazonaws.eu-west-1.ecs", Type: "Interface", State: "available", PrivateDNS: true})
		state.FlowLogs.Put(tx, &state.FlowLog{ID: "fl-1", Resource: "eni-1"})
	})
	return db
}

func put(t *testing.T, db *store.DB, f func(*store.Tx)) {
	t.Helper()
	if err := db.Update(context.Background(), func(tx *store.Tx) error { f(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

// same compares as the node gets them.
func same(t *testing.T, got, want any) {
	t.Helper()
	text := func(v any) string {
		b, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if d := cmp.Diff(text(want), text(got)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestVPCShape(t *testing.T) {
	db := network(t)
	snap := db.Snapshot()
	v, _ := state.VPCs.Get(snap, "vpc-1")
	same(t, vpc(snap, v), fabric.VPC{
		ID: "vpc-1", CIDRs: []netip.Prefix{pfx("10.0.0.0/16"), pfx("10.9.0.0/24"), pfx("2001:db8::/56")}, DNSSupport: true,
		Subnets: []fabric.Subnet{
			{ID: "subnet-1", CIDR: pfx("10.0.0.0/24"), IPv6: pfx("2001:db8::/64"), RouteTable: "rtb-1"},
			{ID: "subnet-2", CIDR: pfx("10.0.1.0/24"), RouteTable: "rtb-2", ACL: "acl-2"},
			{ID: "subnet-3", CIDR: pfx("10.0.2.0/24"), RouteTable: "rtb-1"},
		},
		RouteTables: []fabric.RouteTable{
			{ID: "rtb-1", Routes: []fabric.Route{
				{Destination: pfx("0.0.0.0/0"), Kind: fabric.RouteInternetGateway},
				{Destination: pfx("::/0"), Kind: fabric.RouteEgressOnly},
				{Destination: pfx("10.1.0.0/16"), Kind: fabric.RoutePeering, Target: "pcx-1"},
				{Destination: pfx("192.0.2.0/25"), Kind: fabric.RouteInterface, Target: "eni-nat"},
				{Destination: pfx("192.0.2.128/25"), Kind: fabric.RouteInterface, Target: "eni-nat"},
			}},
			{ID: "rtb-2", Routes: []fabric.Route{
				{Destination: pfx("0.0.0.0/0"), Kind: fabric.RouteBlackhole},   // not available yet
				{Destination: pfx("10.1.0.0/16"), Kind: fabric.RouteBlackhole}, // not active
				{Destination: pfx("192.0.2.0/24"), Kind: fabric.RouteInterface, Target: "eni-1"},
				{Destination: pfx("192.0.3.0/24"), Kind: fabric.RouteBlackhole}, // in no kernel
				{Destination: pfx("192.0.4.0/24"), Kind: fabric.RouteBlackhole}, // of another VPC
				{Destination: pfx("192.0.5.0/24"), Kind: fabric.RouteBlackhole},
			}},
		},
		ACLs: []fabric.NetworkACL{{ID: "acl-2", Entries: []fabric.ACLEntry{
			{Protocol: 6, From: 22, To: 22, CIDR: pfx("0.0.0.0/0")}, {Allow: true, Protocol: -1, CIDR: pfx("0.0.0.0/0")}}}},
		Peers: []fabric.Peer{{ID: "pcx-1", VPC: "vpc-2", CIDRs: []netip.Prefix{pfx("10.1.0.0/16")}, DNS: true}},
		Names: map[string][]netip.Addr{"ecs.eu-west-1.amazonaws.com": {ip("10.0.0.15")},
			"vpce-1-1.ecs.eu-west-1.vpce.amazonaws.com": {ip("10.0.0.15")}, "vpce-1-1-eu-west-1a.ecs.eu-west-1.vpce.amazonaws.com": {ip("10.0.0.15")}},
		Domain: "corp.example", Nameservers: []netip.Addr{ip("10.0.0.53")},
	})
	// The other side has not switched its names on.
	o, _ := state.VPCs.Get(snap, "vpc-2")
	if p := vpc(snap, o).Peers; len(p) != 1 || p[0].VPC != "vpc-1" || p[0].DNS || len(p[0].CIDRs) != 3 {
		t.Errorf("%+v", p)
	}
}

func TestInterfaceShape(t *testing.T) {
	db := network(t)
	shape := func(id string) fabric.Interface {
		snap := db.Snapshot()
		e, _ := state.NetworkInterfaces.Get(snap, id)
		return networkInterface(snap, e, "n1")
	}
	same(t, shape("eni-1"), fabric.Interface{ID: "eni-1", VPC: "vpc-1", Subnet: "subnet-1", Address: ip("10.0.0.10"), Here: true, FlowLog: true,
		Secondary: []fabric.Address{{Private: ip("10.0.0.11"), Public: ip("198.18.0.11")}}})
	same(t, shape("eni-2"), fabric.Interface{ID: "eni-2", VPC: "vpc-1", Subnet: "subnet-1", Address: ip("10.0.0.12"), IPv6: []netip.Addr{ip("2001:db8::12")}, Here: true, In: "eni-1", Device: 1})
	same(t, shape("eni-free"), fabric.Interface{ID: "eni-free", VPC: "vpc-1", Subnet: "subnet-1", Address: ip("10.0.0.13"), Groups: []string{"sg-1"}})
	if n, e := shape("eni-nat"), shape("eni-ep"); n.Serves != fabric.ServesNAT || e.Serves != fabric.ServesAPI {
		t.Errorf("%+v %+v", n, e)
	}
	put(t, db, func(tx *store.Tx) {
		state.FlowLogs.Put(tx, &state.FlowLog{ID: "fl-2", Resource: "subnet-1"})
		state.FlowLogs.Delete(tx, "fl-1")
	})
	if a, b := shape("eni-1"), shape("eni-2"); !a.FlowLog || !b.FlowLog {
		t.Error("the subnet's flow log is not theirs")
	}
	// Without the instance's first interface there is no namespace to be in.
	put(t, db, func(tx *store.Tx) { state.NetworkInterfaces.Delete(tx, "eni-1") })
	if n := shape("eni-2"); n.Here {
		t.Errorf("%+v", n)
	}
}

func TestGroupShape(t *testing.T) {
	db := network(t)
	g := &state.SecurityGroup{ID: "sg-1", VPC: "vpc-1", Rules: []state.SecurityGroupRule{
		{Protocol: "tcp", From: 80, To: 80, PrefixList: "pl-1"}, {Protocol: "tcp", From: 81, To: 81, PrefixList: "pl-none"},
		{Protocol: "icmpv6", From: -1, To: -1, CIDR: pfx("::/0")}, {Egress: true, Protocol: "50", Group: "sg-peer"},
	}}
	same(t, group(db.Snapshot(), g), fabric.SecurityGroup{ID: "sg-1", VPC: "vpc-1",
		Ingress: []fabric.Rule{{Protocol: 6, From: 80, To: 80, CIDRs: []netip.Prefix{pfx("192.0.2.0/25"), pfx("192.0.2.128/25")}}, {Protocol: 58, From: -1, To: -1, CIDRs: []netip.Prefix{pfx("::/0")}}},
		Egress:  []fabric.Rule{{Protocol: 50, Groups: []string{"sg-peer"}}}})
}
