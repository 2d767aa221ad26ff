package vpc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// localTable holds what lies inside the VPC. It comes before every route table: nothing overrides the local route.
const localTable = 100

// Priorities of the routing rules in a VPC's namespace.
const (
	localPriority = 100
	tablePriority = 1000
	deadPriority  = 32000
)

var (
	linkLocal   = netip.MustParsePrefix("169.254.0.0/16")
	amazonDNS   = netip.MustParseAddr("169.254.169.253")
	agentLocal  = netip.MustParseAddr("169.254.170.2") // the agent listens here, for all tasks of the VPC
	gatewayHost = netip.MustParseAddr("169.254.1.1")   // the machine, seen from a VPC; on no link, only a next hop
	gatewayVPC  = netip.MustParseAddr("169.254.1.2")   // a VPC, seen from the machine
)

// A layout is what a VPC's namespace must contain apart from ENIs.
type layout struct {
	addresses []netip.Prefix // on the loopback device
	routes    []route
	tables    []uint32 // selected by a mark of the same number
}

type route struct {
	table       uint32
	destination netip.Prefix
	uplink      bool // through the gateway; otherwise a blackhole
}

func layoutOf(v VPC) layout {
	var l layout
	own := func(a netip.Addr) { l.addresses = append(l.addresses, netip.PrefixFrom(a, 32)) }
	own(amazonDNS)
	own(agentLocal)
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
			if r.Target == Local || !r.Destination.Addr().Is4() {
				continue
			}
			l.routes = append(l.routes, route{table: n, destination: r.Destination.Masked(), uplink: r.Target == InternetGateway})
		}
	}
	slices.SortFunc(l.addresses, comparePrefix)
	l.addresses = slices.Compact(l.addresses)
	slices.SortFunc(l.routes, func(a, b route) int {
		return cmp.Or(cmp.Compare(a.table, b.table), comparePrefix(a.destination, b.destination))
	})
	// Of two routes to one destination the first in order stands, whatever it is; AWS does not let them exist.
	l.routes = slices.CompactFunc(l.routes, func(a, b route) bool { return a.table == b.table && a.destination == b.destination })
	slices.Sort(l.tables)
	l.tables = slices.Compact(l.tables)
	return l
}

func (l layout) equal(o layout) bool {
	return slices.Equal(l.addresses, o.addresses) && slices.Equal(l.routes, o.routes) && slices.Equal(l.tables, o.tables)
}

// String is the layout in the notation of ip(8).
func (l layout) String() string {
	var b strings.Builder
	for _, a := range l.addresses {
		fmt.Fprintf(&b, "addr add %s dev lo\n", a)
	}
	for _, r := range l.routes {
		if r.uplink {
			fmt.Fprintf(&b, "route add %s via %s dev %s onlink table %d\n", r.destination, gatewayHost, uplinkInner, r.table)
		} else {
			fmt.Fprintf(&b, "route add blackhole %s table %d\n", r.destination, r.table)
		}
	}
	fmt.Fprintf(&b, "rule add priority %d lookup %d\n", localPriority, localTable)
	for _, t := range l.tables {
		fmt.Fprintf(&b, "rule add priority %d fwmark %#x lookup %d\n", tablePriority, t, t)
	}
	fmt.Fprintf(&b, "rule add priority %d blackhole\n", deadPriority)
	return b.String()
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
