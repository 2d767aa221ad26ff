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
	settled6  bool
	routes    map[netip.Prefix]string // what is routed to uplinks, by name; nil: unknown
	forwarder string                  // what was seen of other firewalls when the accept rules were last ensured
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

// renderHost6 is the machine's own table for IPv6.
func renderHost6(opts Options) string {
	name, links := hostTable(opts.Region), uplinkPrefix(opts.Region)+"*"
	return fmt.Sprintf(`table ip6 %[1]s {
}
delete table ip6 %[1]s
table ip6 %[1]s {
	chain to-world {
		type nat hook postrouting priority srcnat; policy accept;
		iifname "%[2]s" oifname != { "lo", "%[2]s" } masquerade
	}
}
`, name, links)
}

// settle6 prepares what VPCs with IPv6 share.
func (h *host) settle6() error {
	if h.settled6 {
		return nil
	}
	// A machine that forwards stops listening to its own routers unless it is told to go on.
	const conf = "/proc/sys/net/ipv6/conf"
	links, err := os.ReadDir(conf)
	if err != nil {
		return fmt.Errorf("this machine has no IPv6: %w", err)
	}
	for _, l := range links {
		if b, err := os.ReadFile(conf + "/" + l.Name() + "/accept_ra"); err == nil && strings.TrimSpace(string(b)) == "1" {
			if err := sysctl("ipv6/conf/"+l.Name()+"/accept_ra", "2"); err != nil {
				return fmt.Errorf("accept_ra of %s: %w", l.Name(), err)
			}
		}
	}
	if err := sysctl("ipv6/conf/all/forwarding", "1"); err != nil {
		return fmt.Errorf("IPv6 forwarding: %w", err)
	}
	if err := runNft(nil, renderHost6(h.opts)); err != nil {
		return err
	}
	h.settled6 = true
	return nil
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
func (h *host) welcome(outer netlink.Link, dual bool) error {
	name := outer.Attrs().Name
	for _, s := range []string{"send_redirects", "rp_filter"} {
		// A packet between two public addresses comes from an uplink and goes to one, often the same.
		if err := sysctl("ipv4/conf/"+name+"/"+s, "0"); err != nil {
			return err
		}
	}
	without := "1"
	if dual {
		without = "0"
		for _, s := range []string{"accept_ra", "accept_dad"} {
			if err := sysctl("ipv6/conf/"+name+"/"+s, "0"); err != nil {
				return err
			}
		}
	}
	if err := sysctl("ipv6/conf/"+name+"/disable_ipv6", without); err != nil {
		return err
	}
	if err := h.nl.LinkSetUp(outer); err != nil {
		return err
	}
	if dual {
		own := netip.PrefixFrom(machineAddress6(h.opts.Region), 128)
		if err := h.nl.AddrReplace(outer, &netlink.Addr{IPNet: ipNet(own), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("add %s: %w", own, err)
		}
		if err := h.nl.NeighSet(neighbour(outer, gatewayVPC6, routerMAC)); err != nil {
			return err
		}
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

// route brings the routes to what VPCs have to want: destination to name of the uplink.
func (h *host) route(want map[netip.Prefix]string) error {
	if err := h.knowRoutes(); err != nil {
		return err
	}
	index := map[string]int{}
	via := func(p netip.Prefix, name string) (*netlink.Route, error) {
		if index[name] == 0 {
			l, err := h.nl.LinkByName(name)
			if err != nil {
				return nil, err
			}
			index[name] = l.Attrs().Index
		}
		gateway := gatewayVPC
		if p.Addr().Is6() {
			gateway = gatewayVPC6
		}
		return &netlink.Route{LinkIndex: index[name], Dst: ipNet(p), Gw: gateway.AsSlice(),
			Flags: int(netlink.FLAG_ONLINK), Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN}, nil
	}
	for p, name := range h.routes {
		if want[p] != "" {
			continue // replaced below if it differs
		}
		r, err := via(p, name)
		var absent netlink.LinkNotFoundError
		if err == nil {
			err = h.nl.RouteDel(r)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.As(err, &absent) {
			return fmt.Errorf("remove route to %s: %w", p, err)
		}
		delete(h.routes, p)
	}
	for p, name := range want {
		if h.routes[p] == name {
			continue
		}
		r, err := via(p, name)
		if err == nil {
			err = h.nl.RouteReplace(r)
		}
		if err != nil {
			return fmt.Errorf("route to %s: %w", p, err)
		}
		h.routes[p] = name
	}
	return nil
}

func (h *host) knowRoutes() error {
	if h.routes != nil {
		return nil
	}
	have, err := hostRoutes(h.nl, h.opts.Region)
	if err != nil {
		return err
	}
	h.routes = have
	return nil
}

// apiSource is the address as which the endpoints of the VPC behind an uplink speak to the machine: the one that is
// routed there already, else one that no region routes anywhere, and that is not in taken.
func (h *host) apiSource(uplink string, taken map[netip.Prefix]string) (netip.Addr, error) {
	if err := h.knowRoutes(); err != nil {
		return netip.Addr{}, err
	}
	for p, name := range h.routes {
		if name == uplink && apiSources.Contains(p.Addr()) {
			return p.Addr(), nil
		}
	}
	all, err := dump(func() ([]netlink.Route, error) { return h.nl.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return netip.Addr{}, err
	}
	used := map[netip.Addr]bool{}
	for _, r := range all {
		if p, ok := prefixOf(r.Dst, unix.AF_INET); ok {
			used[p.Addr()] = true
		}
	}
	for a := apiSources.Addr().Next(); apiSources.Contains(a); a = a.Next() {
		if !used[a] && taken[netip.PrefixFrom(a, 32)] == "" {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address of %s is free", apiSources)
}

// hostRoutes lists what is routed to uplinks of the region.
func hostRoutes(nl *netlink.Handle, region string) (map[netip.Prefix]string, error) {
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
	out := map[netip.Prefix]string{}
	for _, af := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := dump(func() ([]netlink.Route, error) {
			return nl.RouteListFiltered(af, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
		})
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if p, ok := prefixOf(r.Dst, af); ok && names[r.LinkIndex] != "" {
				out[p] = names[r.LinkIndex]
			}
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
	for p, to := range h.routes {
		if to == name {
			delete(h.routes, p)
		}
	}
	return nil
}
