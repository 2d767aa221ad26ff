package vpc

import (
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is the machine's own namespace: the one the process runs in.
type host struct {
	opts Options
	ns   *os.File
	nl   *netlink.Handle
	nft  *nftables.Conn
	log  *slog.Logger

	settled   bool
	routes    map[netip.Addr]string // public address: name of the uplink it is routed to; nil: unknown
	forwarder string                // what was seen of other firewalls when the accept rules were last ensured
}

func openHost(opts Options) (*host, error) {
	h := &host{opts: opts, log: opts.Log}
	var err error
	if h.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	if h.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err == nil {
		h.nft, err = nftables.New(nftables.AsLasting())
	}
	if err != nil {
		h.close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}

func (h *host) close() {
	if h.nl != nil {
		h.nl.Close()
	}
	if h.nft != nil {
		_ = h.nft.CloseLasting()
	}
	h.ns.Close()
}

// renderHost returns the script for the machine's own table.
func renderHost(opts Options) string {
	name := hostTable(opts.Region)
	script := fmt.Sprintf("table ip %[1]s {\n}\ndelete table ip %[1]s\n", name)
	if !opts.PublicPool.IsValid() {
		return script
	}
	return script + fmt.Sprintf(`table ip %s {
	chain to-world {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %s oifname != { "lo", "%s*" } masquerade
	}
}
`, name, opts.PublicPool.Masked(), uplinkPrefix(opts.Region))
}

// settle prepares what all VPCs share.
func (h *host) settle() error {
	if h.settled {
		return nil
	}
	if err := sysctl("ipv4/ip_forward", "1"); err != nil {
		return fmt.Errorf("ip_forward: %w", err)
	}
	if err := runNft(nil, renderHost(h.opts)); err != nil {
		return err
	}
	if pool := h.opts.PublicPool; pool.IsValid() {
		// An address of the pool that nobody has must not leave by the machine's default route.
		if err := h.nl.RouteReplace(poolRoute(h.opts)); err != nil {
			return fmt.Errorf("route to %s: %w", pool, err)
		}
	}
	h.settled = true
	return nil
}

// poolRoute is told from the routes of other regions with the same pool by its metric.
func poolRoute(opts Options) *netlink.Route {
	return &netlink.Route{Dst: ipNet(opts.PublicPool.Masked()), Type: unix.RTN_UNREACHABLE, Protocol: routeProtocol,
		Priority: poolMetric(opts.Region), Table: unix.RT_TABLE_MAIN}
}

func poolMetric(region string) int {
	f := fnv.New32a()
	f.Write([]byte(region))
	return int(f.Sum32()>>2 | 1<<30)
}

// welcome makes the machine's end of an uplink work.
func (h *host) welcome(outer netlink.Link) error {
	name := outer.Attrs().Name
	for _, s := range []string{"send_redirects", "rp_filter"} {
		// A packet between two public addresses comes from an uplink and goes to one, often the same.
		if err := sysctl("ipv4/conf/"+name+"/"+s, "0"); err != nil {
			return err
		}
	}
	if err := sysctl("ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil {
		return err
	}
	if err := h.nl.LinkSetUp(outer); err != nil {
		return err
	}
	if err := h.nl.NeighSet(neighbour(outer, gatewayVPC, routerMAC)); err != nil {
		return err
	}
	if pool := h.opts.PublicPool; pool.IsValid() {
		own := netip.PrefixFrom(pool.Masked().Addr(), 32)
		if err := h.nl.AddrReplace(outer, &netlink.Addr{IPNet: ipNet(own)}); err != nil {
			return fmt.Errorf("add %s: %w", own, err)
		}
	}
	return nil
}

// route brings the routes to public addresses to want: public address to name of the uplink.
func (h *host) route(want map[netip.Addr]string) error {
	if h.routes == nil {
		have, err := hostRoutes(h.nl, h.opts.Region)
		if err != nil {
			return err
		}
		h.routes = have
	}
	index := map[string]int{}
	via := func(a netip.Addr, name string) (*netlink.Route, error) {
		if index[name] == 0 {
			l, err := h.nl.LinkByName(name)
			if err != nil {
				return nil, err
			}
			index[name] = l.Attrs().Index
		}
		return &netlink.Route{LinkIndex: index[name], Dst: ipNet(netip.PrefixFrom(a, 32)), Gw: gatewayVPC.AsSlice(),
			Flags: int(netlink.FLAG_ONLINK), Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN}, nil
	}
	for a, name := range h.routes {
		if want[a] != "" {
			continue // replaced below if it differs
		}
		r, err := via(a, name)
		var absent netlink.LinkNotFoundError
		if err == nil {
			err = h.nl.RouteDel(r)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.As(err, &absent) {
			return fmt.Errorf("remove route to %s: %w", a, err)
		}
		delete(h.routes, a)
	}
	for a, name := range want {
		if h.routes[a] == name {
			continue
		}
		r, err := via(a, name)
		if err == nil {
			err = h.nl.RouteReplace(r)
		}
		if err != nil {
			return fmt.Errorf("route to %s: %w", a, err)
		}
		h.routes[a] = name
	}
	return nil
}

// hostRoutes lists the public addresses that are routed to uplinks of the region.
func hostRoutes(nl *netlink.Handle, region string) (map[netip.Addr]string, error) {
	links, err := dump(nl.LinkList)
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, uplinkPrefix(region)) {
			names[l.Attrs().Index] = l.Attrs().Name
		}
	}
	routes, err := dump(func() ([]netlink.Route, error) {
		return nl.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]string{}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && p.Bits() == 32 && names[r.LinkIndex] != "" {
			out[p.Addr()] = names[r.LinkIndex]
		}
	}
	return out, nil
}

// dropUplink deletes the machine's end of an uplink, and with it its peer and the routes through it.
func (h *host) dropUplink(name string) error {
	l, err := h.nl.LinkByName(name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return nil
	} else if err != nil {
		return err
	}
	if err := h.nl.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	for a, to := range h.routes {
		if to == name {
			delete(h.routes, a)
		}
	}
	return nil
}
