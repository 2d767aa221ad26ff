package vpc

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// localTable holds what lies inside the VPC. It comes before every route table: nothing overrides the local route.
// apiTable is that of interface endpoints: it leads to the region's API and nowhere else.
const (
	localTable = 100
	apiTable   = mark(101)
)

// Priorities of the routing rules in a VPC's namespace.
const (
	localPriority = 100
	tablePriority = 1000
	deadPriority  = 32000
)

var (
	linkLocal    = netip.MustParsePrefix("169.254.0.0/16")
	amazonDNS    = netip.MustParseAddr("169.254.169.253")
	agentLocal   = netip.MustParseAddr("169.254.170.2")   // the agent listens here, for all tasks of the VPC
	metadata     = netip.MustParseAddr("169.254.169.254") // and the metadata service here, for all instances
	gatewayHost  = netip.MustParseAddr("169.254.1.1")     // the machine, seen from a VPC; on no link, only a next hop
	gatewayVPC   = netip.MustParseAddr("169.254.1.2")     // a VPC, seen from the machine
	gatewayPeer  = netip.MustParseAddr("169.254.1.3")     // a VPC, seen from its peer
	gatewayHost6 = netip.MustParseAddr("fe80::a9fe:101")
	gatewayVPC6  = netip.MustParseAddr("fe80::a9fe:102")
	gatewayPeer6 = netip.MustParseAddr("fe80::a9fe:103")
	// router6 is the router's address on every link: what the kernel makes of routerMAC.
	router6 = linkLocalOf(routerMAC)
	// apiSources are the addresses as which endpoints of VPCs speak to the machine, one for each VPC.
	apiSources = netip.MustParsePrefix("169.254.16.0/20")
)

// linkLocalOf is the address that the kernel gives a link with this MAC.
func linkLocalOf(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
}

// machineAddress6 is the machine's own IPv6 address on the uplinks.
func machineAddress6(region string) netip.Addr {
	sum := sha256.Sum256([]byte(region))
	return netip.AddrFrom16([16]byte{0xfd, sum[0], sum[1], sum[2], sum[3], sum[4], 15: 1})
}

// A layout is what a VPC's namespace must contain apart from ENIs.
type layout struct {
	addresses []netip.Prefix // on the loopback device
	routes    []route
	tables    []uint32 // selected by a mark of the same number
	dual      bool     // there is IPv6
}

type route struct {
	table       uint32
	destination netip.Prefix
	link        string     // "" is a blackhole
	gateway     netip.Addr // on link
}

// layoutOf says what VPC v contains. enis are those in the kernel, joined the ids of the peers to which there is a way.
func layoutOf(v VPC, enis map[string]ENI, joined map[string]bool) layout {
	l := layout{dual: v.dual()}
	own := func(a netip.Addr) { l.addresses = append(l.addresses, netip.PrefixFrom(a, 32)) }
	own(amazonDNS)
	own(agentLocal)
	own(metadata)
	own(v.Resolver())
	for _, s := range v.Subnets {
		own(s.Router())
	}
	// What is in the VPC and no ENI's: silently gone, and, as there is no route, not answered by proxy ARP.
	l.routes = append(l.routes, route{table: localTable, destination: linkLocal})
	for _, p := range v.CIDRs {
		l.routes = append(l.routes, route{table: localTable, destination: p.Masked()})
	}
	for _, t := range v.RouteTables {
		n := tableNumber(t.ID)
		l.tables = append(l.tables, n)
		for _, r := range t.Routes {
			if r.Target == Local {
				continue
			}
			to := route{table: n, destination: r.Destination.Masked()}
			to.link, to.gateway = nextHop(v, r, enis, joined)
			l.routes = append(l.routes, to)
		}
	}
	slices.SortFunc(l.addresses, comparePrefix)
	l.addresses = slices.Compact(l.addresses)
	slices.SortStableFunc(l.routes, func(a, b route) int {
		return cmp.Or(cmp.Compare(a.table, b.table), comparePrefix(a.destination, b.destination))
	})
	// Of two routes to one destination the first in order stands, whatever it is; AWS does not let them exist.
	l.routes = slices.CompactFunc(l.routes, func(a, b route) bool { return a.table == b.table && a.destination == b.destination })
	slices.Sort(l.tables)
	l.tables = slices.Compact(l.tables)
	return l
}

// nextHop is where a route leads; no link is a blackhole.
func nextHop(v VPC, r Route, enis map[string]ENI, joined map[string]bool) (string, netip.Addr) {
	v6 := r.Destination.Addr().Is6()
	either := func(a4, a6 netip.Addr) netip.Addr {
		if v6 {
			return a6
		}
		return a4
	}
	switch r.Target {
	case InternetGateway:
		return uplinkInner, either(gatewayHost, gatewayHost6)
	case EgressOnly:
		if v6 {
			return uplinkInner, gatewayHost6
		}
	case Peering:
		if joined[r.TargetID] {
			return peerName(r.TargetID), either(gatewayPeer, gatewayPeer6)
		}
	case Interface:
		e, ok := enis[r.TargetID]
		switch {
		case !ok || e.VPC != v.ID:
		case !v6:
			return linkName(e.ID), e.Address
		case len(e.IPv6) > 0:
			return linkName(e.ID), e.IPv6[0]
		}
	}
	return "", netip.Addr{}
}

// withAPI adds the way of the VPC's endpoints to the region's API.
func (l layout) withAPI(machine netip.Addr) layout {
	l.tables = append([]uint32{uint32(apiTable)}, l.tables...)
	l.routes = slices.Concat(l.routes, []route{{table: uint32(apiTable), destination: netip.PrefixFrom(machine, 32), link: uplinkInner, gateway: gatewayHost}})
	return l
}

func (l layout) equal(o layout) bool {
	return slices.Equal(l.addresses, o.addresses) && slices.Equal(l.routes, o.routes) && slices.Equal(l.tables, o.tables) && l.dual == o.dual
}

// String is the layout in the notation of ip(8).
func (l layout) String() string {
	var b strings.Builder
	for _, a := range l.addresses {
		fmt.Fprintf(&b, "addr add %s dev lo\n", a)
	}
	for _, r := range l.routes {
		if r.link != "" {
			fmt.Fprintf(&b, "route add %s via %s dev %s onlink table %d\n", r.destination, r.gateway, r.link, r.table)
		} else {
			fmt.Fprintf(&b, "route add blackhole %s table %d\n", r.destination, r.table)
		}
	}
	for _, flag := range map[bool][]string{false: {""}, true: {"", "-6 "}}[l.dual] {
		fmt.Fprintf(&b, "%srule add priority %d lookup %d\n", flag, localPriority, localTable)
		for _, t := range l.tables {
			fmt.Fprintf(&b, "%srule add priority %d fwmark %#x lookup %d\n", flag, tablePriority, t, t)
		}
		fmt.Fprintf(&b, "%srule add priority %d blackhole\n", flag, deadPriority)
	}
	return b.String()
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
