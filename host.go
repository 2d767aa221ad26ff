package main

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// hostPrefixes are the destinations that this machine has a route to. Without
// a working netlink there is nothing to avoid.
func hostPrefixes() (ps []netip.Prefix) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		if ones, bits := r.Dst.Mask.Size(); ok && bits == 32 {
			ps = append(ps, netip.PrefixFrom(a, ones))
		}
	}
	return ps
}
