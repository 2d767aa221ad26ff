package vpc

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes that are ours, as "ip route show proto 190" shows.
const routeProtocol = 190

// goneGroup is the link group of ENIs that only wait for the kernel to take them apart.
const goneGroup = 0xdead

const mtu = 1500

// The router's MAC is the same on every link: a VPC is one router, and a link that is made anew keeps its neighbour.
var (
	routerMAC  = net.HardwareAddr{0x0a, 0xbe, 0x27, 0, 0, 1}
	machineMAC = net.HardwareAddr{0x0a, 0xbe, 0x27, 0, 0, 2}
)

// A fabric is the live half of a VPC: its namespace and what the engine knows to be in it.
type fabric struct {
	vpc    VPC
	ns     *os.File
	nl     *netlink.Handle
	nft    *nftables.Conn
	uplink int    // index of the inner end
	outer  string // name of the machine's end

	settled bool                // layout is what the kernel has
	layout  layout              //
	loaded  map[family]*ruleset // what the kernel has; nil: unknown
	enis    map[string]*eni     // attached, by id
	flows   flows               // what was counted so far
	parted  map[string]bool     // ways to peers beside which there are no others; nil: unknown

	sweeps sync.WaitGroup
	mu     sync.Mutex
	dirty  bool // links of goneGroup exist that no sweep has seen
	busy   bool // a sweep runs
}

type eni struct {
	ENI
	prefix  int // length of the subnet's prefix
	router  netip.Addr
	subnet6 netip.Prefix
	ready   bool
}

// openFabric finds or makes the namespace of a VPC.
func openFabric(opts Options, v VPC) (*fabric, error) {
	f := &fabric{vpc: v, outer: uplinkName(opts.Region, v.ID), enis: map[string]*eni{}, loaded: map[family]*ruleset{}}
	ns, err := openNetns(opts.NetnsPath(v.ID))
	if errors.Is(err, os.ErrNotExist) {
		ns, err = makeNetns(opts.NetnsPath(v.ID), routerSysctls)
	}
	if err != nil {
		return nil, err
	}
	f.ns = ns
	err = on(ns, func() (err error) {
		if f.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		f.nft, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		f.close()
		return nil, fmt.Errorf("vpc %s: open netlink: %w", v.ID, err)
	}
	return f, nil
}

// routerSysctls makes a fresh namespace a router. Devices inherit what stands in conf/default when they are made, so
// that attaching an ENI writes no file.
func routerSysctls() error {
	for _, s := range [][2]string{
		{"ipv4/conf/default/tag", routerTag},
		{"ipv4/ip_forward", "1"},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"}, // the ruleset checks sources, by interface
		{"ipv4/conf/all/accept_local", "1"},  // so that the kernel does not look up each packet's source as well
		{"ipv4/ip_early_demux", "0"},         // nor a socket for it: what passes here is seldom ours
		{"ipv4/conf/default/proxy_arp", "1"},
		{"ipv4/neigh/default/proxy_delay", "0"}, // the kernel's default waits up to 0.8 s
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
		{"ipv6/conf/all/forwarding", "1"},
		{"ipv6/conf/default/accept_ra", "0"},
		{"ipv6/conf/default/accept_dad", "0"}, // both ends of a link are ours
		{"ipv6/conf/all/disable_ipv6", "1"},
		{"ipv6/conf/default/disable_ipv6", "1"}, // until an interface has an address
	} {
		if err := sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// routerTag is what tells the namespace of a VPC from that of an ENI, which may forward too. The kernel keeps the number
// for whoever wants to keep one.
const routerTag = "190"

// settle brings addresses, routes, rules and the uplink to l.
func (f *fabric) settle(h *host, l layout) error {
	if f.settled && f.layout.equal(l) {
		return nil
	}
	f.settled = false
	lo, err := f.nl.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := f.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := f.connect(h, l.dual); err != nil {
		return fmt.Errorf("uplink: %w", err)
	}
	if err := f.settleAddresses(lo, l); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	whole, err := f.settleRoutes(l)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	if err := f.settleRules(l); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	// A route through an interface that is not there yet is a blackhole until the interface is.
	f.layout, f.settled = l, whole
	return nil
}

// connect makes the veth pair to the machine. Neither end needs an address: each knows the other's MAC for good.
func (f *fabric) connect(h *host, dual bool) error {
	inner, err := f.nl.LinkByName(uplinkInner)
	outer, outerErr := h.nl.LinkByName(f.outer)
	if err != nil || outerErr != nil || inner.Attrs().ParentIndex != outer.Attrs().Index || outer.Attrs().ParentIndex != inner.Attrs().Index {
		if err == nil {
			if err := f.nl.LinkDel(inner); err != nil {
				return err
			}
			outer, outerErr = h.nl.LinkByName(f.outer) // gone with its peer, unless it was another's
		}
		if outerErr == nil {
			if err := h.nl.LinkDel(outer); err != nil {
				return err
			}
		}
		la := netlink.NewLinkAttrs()
		la.Name, la.MTU, la.HardwareAddr = uplinkInner, mtu, routerMAC
		veth := netlink.NewVeth(la)
		veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = f.outer, machineMAC, netlink.NsFd(h.ns.Fd())
		if err := f.nl.LinkAdd(veth); err != nil {
			return fmt.Errorf("make %s: %w", f.outer, err)
		}
		if inner, err = f.nl.LinkByName(uplinkInner); err != nil {
			return err
		}
		if outer, err = h.nl.LinkByName(f.outer); err != nil {
			return err
		}
	}
	f.uplink = inner.Attrs().Index
	err = errors.Join(
		on(f.ns, func() error { return sysctl("ipv4/conf/"+uplinkInner+"/proxy_arp", "0") }),
		f.nl.LinkSetUp(inner),
		f.nl.NeighSet(neighbour(inner, gatewayHost, machineMAC)),
		h.welcome(outer, dual),
	)
	if err == nil && dual {
		err = errors.Join(f.enable6(uplinkInner), f.nl.NeighSet(neighbour(inner, gatewayHost6, machineMAC)))
	}
	return err
}

// enable6 turns IPv6 on for one link.
func (f *fabric) enable6(link string) error {
	return on(f.ns, func() error { return sysctl("ipv6/conf/"+link+"/disable_ipv6", "0") })
}

func neighbour(link netlink.Link, a netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: familyOf(a), State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
}

// familyOf is the kernel's number of the address's family.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func (f *fabric) settleAddresses(lo netlink.Link, l layout) error {
	have, err := dump(func() ([]netlink.Addr, error) { return f.nl.AddrList(lo, unix.AF_INET) })
	if err != nil {
		return err
	}
	want := map[netip.Prefix]bool{}
	for _, p := range l.addresses {
		want[p] = true
	}
	for _, a := range have {
		p, _ := prefixOf(a.IPNet, unix.AF_INET)
		switch {
		case want[p]:
			delete(want, p)
		case !p.Addr().IsLoopback():
			if err := f.nl.AddrDel(lo, &a); err != nil {
				return fmt.Errorf("remove %s: %w", p, err)
			}
		}
	}
	for _, p := range l.addresses {
		if want[p] {
			if err := f.nl.AddrReplace(lo, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
				return fmt.Errorf("add %s: %w", p, err)
			}
		}
	}
	return nil
}

// settleRoutes brings the routes of both families to l. It is not whole if a route leads through a link that is not
// there.
func (f *fabric) settleRoutes(l layout) (whole bool, err error) {
	links, err := dump(f.nl.LinkList)
	if err != nil {
		return false, err
	}
	index, shared := map[string]int{}, map[int]bool{}
	for _, k := range links {
		a := k.Attrs()
		index[a.Name] = a.Index
		shared[a.Index] = a.Name == uplinkInner || strings.HasPrefix(a.Name, peerPrefix)
	}
	type key struct {
		table       uint32
		destination netip.Prefix
	}
	want := map[key]bool{}
	whole = true
	for _, r := range l.routes {
		want[key{r.table, r.destination}] = true
		n := &netlink.Route{Table: int(r.table), Dst: ipNet(r.destination), Protocol: routeProtocol}
		if at := index[r.link]; at != 0 {
			n.LinkIndex, n.Gw, n.Flags = at, r.gateway.AsSlice(), int(netlink.FLAG_ONLINK)
		} else {
			n.Type = unix.RTN_BLACKHOLE
			whole = whole && r.link == ""
		}
		if err := f.nl.RouteReplace(n); err != nil {
			return false, fmt.Errorf("add %s to table %d: %w", r.destination, r.table, err)
		}
	}
	for _, af := range []int{unix.AF_INET, unix.AF_INET6} {
		have, err := dump(func() ([]netlink.Route, error) {
			return f.nl.RouteListFiltered(af, &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_UNSPEC},
				netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return false, err
		}
		for _, r := range have {
			p, ok := prefixOf(r.Dst, af)
			if r.Table == localTable && r.Type == unix.RTN_UNICAST && !shared[r.LinkIndex] {
				continue // an ENI's own
			}
			if !ok || want[key{uint32(r.Table), p}] {
				continue
			}
			if err := f.nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("remove %s from table %d: %w", p, r.Table, err)
			}
		}
	}
	return whole, nil
}

func (f *fabric) settleRules(l layout) error {
	if err := f.settleRulesOf(unix.AF_INET, l); err != nil || !l.dual {
		return err // without routes, the rules that a VPC with IPv6 had mean nothing
	}
	return f.settleRulesOf(unix.AF_INET6, l)
}

func (f *fabric) settleRulesOf(af int, l layout) error {
	have, err := dump(func() ([]netlink.Rule, error) { return f.nl.RuleList(af) })
	if err != nil {
		return err
	}
	type key struct {
		priority int
		mark     uint32
	}
	want := map[key]*netlink.Rule{}
	put := func(priority int, mark uint32, table int) {
		r := netlink.NewRule()
		r.Family, r.Priority, r.Mark, r.Table = af, priority, mark, table
		if table < 0 {
			r.Type = unix.RTN_BLACKHOLE
		}
		want[key{priority, mark}] = r
	}
	put(localPriority, 0, localTable)
	put(deadPriority, 0, -1)
	for _, t := range l.tables {
		put(tablePriority, t, int(t))
	}
	for _, r := range have {
		k := key{r.Priority, r.Mark}
		switch {
		case want[k] != nil:
			delete(want, k)
		case r.Priority == tablePriority:
			if err := f.nl.RuleDel(&r); err != nil {
				return fmt.Errorf("remove %v: %w", r, err)
			}
		}
	}
	for _, r := range want {
		if err := f.nl.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %v: %w", r, err)
		}
	}
	return nil
}

// load brings an nftables table to rs. What is loaded is known only after the first, complete replacement; if a
// difference cannot be applied the table is replaced as a whole, which also heals what others changed in it.
func (f *fabric) load(rs *ruleset) error {
	if old := f.loaded[rs.family]; old != nil {
		d := compare(old, rs)
		if d.empty() {
			return nil
		}
		var err error
		if d.quick() {
			err = applyQuick(f.nft, d)
		} else {
			err = runNft(f.ns, d.script())
		}
		if err == nil {
			f.loaded[rs.family] = rs
			return nil
		}
		delete(f.loaded, rs.family)
	}
	if err := runNft(f.ns, render(rs)); err != nil {
		return err
	}
	f.flows.seen = nil // the counters are new
	f.loaded[rs.family] = rs
	return nil
}

// unload removes the table of a family that the VPC does not have any more. Its routes are gone by then.
func (f *fabric) unload(fam family) error {
	tables, err := f.nft.ListTablesOfFamily(fam.netlink().Family)
	if err != nil {
		return fmt.Errorf("list nftables: %w", err)
	}
	delete(f.loaded, fam)
	for _, t := range tables {
		if t.Name == vpcTable {
			return runNft(f.ns, "delete table "+fam.name()+"\n")
		}
	}
	return nil
}

// forget ends what connection tracking knows of addresses, so that whoever gets one next starts afresh.
func (f *fabric) forget(addresses map[netip.Addr]bool) error {
	for _, fam := range []family{ipv4, ipv6} {
		some := flowsOf{}
		for a := range addresses {
			if fam.of(a) {
				some[a] = true
			}
		}
		for len(some) > 0 {
			af := netlink.InetFamily(unix.AF_INET)
			if fam == ipv6 {
				af = unix.AF_INET6
			}
			_, err := f.nl.ConntrackDeleteFilters(netlink.ConntrackTable, af, some)
			if err == nil {
				break
			}
			if !errors.Is(err, netlink.ErrDumpInterrupted) {
				return err
			}
		}
	}
	return nil
}

type flowsOf map[netip.Addr]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (a flowsOf) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for _, ip := range []net.IP{flow.Forward.SrcIP, flow.Forward.DstIP, flow.Reverse.SrcIP, flow.Reverse.DstIP} {
		if addr, ok := netip.AddrFromSlice(ip); ok && a[addr.Unmap()] {
			return true
		}
	}
	return false
}

// sweep deletes the links of goneGroup in the background. Deleting a link waits for readers of the kernel's lists, tens
// of milliseconds each, but all links of a group are waited for at once.
func (f *fabric) sweep(failed func(error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty = true
	if f.busy {
		return
	}
	f.busy = true
	f.sweeps.Go(func() {
		for f.more() {
			if err := f.deleteGroup(goneGroup); err != nil {
				failed(err)
			}
		}
	})
}

func (f *fabric) more() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy, f.dirty = f.dirty, false
	return f.busy
}

// deleteGroup deletes all links of a group. It uses a socket of its own, lest an attach wait for it.
func (f *fabric) deleteGroup(group uint32) error {
	return on(f.ns, func() error {
		req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		if errors.Is(err, unix.ENODEV) {
			return nil // somebody was faster
		}
		return err
	})
}

// dismantle removes every link, so that the VPC is dead even while some process still holds its namespace.
func (f *fabric) dismantle() error {
	f.sweeps.Wait()
	links, err := dump(f.nl.LinkList)
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Type() != "veth" {
			continue
		}
		if err := f.nl.LinkSetGroup(l, goneGroup); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return f.deleteGroup(goneGroup)
}

func (f *fabric) close() {
	f.sweeps.Wait()
	if f.nl != nil {
		f.nl.Close()
	}
	if f.nft != nil {
		_ = f.nft.CloseLasting()
	}
	f.ns.Close()
}

// dump repeats a listing that the kernel says was disturbed by a change: half a list must never decide what is deleted.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for {
		out, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is a destination as the netlink package says it: a default route may have none.
func prefixOf(n *net.IPNet, af int) (netip.Prefix, bool) {
	if n == nil {
		if af == unix.AF_INET6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if bits == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones), ok
}
