package vpc

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loIndex is the index of the loopback device in every namespace.
const loIndex = 1

// attach makes e work. Its elements are in the ruleset already. Every step accepts that it was done before; a link that
// is as it should be is left alone, so adopting an ENI cuts nothing.
func (f *fabric) attach(opts Options, e *eni) (err error) {
	path := opts.NetnsPath(e.ID)
	var inner *netlink.Handle
	openInner := func() (err error) {
		inner, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}
	ns, err := openNetns(path)
	if errors.Is(err, os.ErrNotExist) {
		ns, err = makeNetns(path, func() error { return errors.Join(taskSysctls(), openInner()) })
	} else if err == nil {
		err = on(ns, openInner)
	}
	if inner != nil {
		defer inner.Close()
	}
	if ns != nil {
		defer ns.Close()
	}
	if err != nil {
		return err
	}

	outer, eth0, err := f.pair(e, inner)
	if err == nil && outer == nil {
		if err := removeFile(opts.ReadyPath(e.ID)); err != nil {
			return err
		}
		outer, eth0, err = f.makePair(e, ns, inner)
	}
	if err != nil {
		return err
	}

	lo := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: loIndex, Name: "lo"}}
	if err := inner.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := soleAddress(inner, eth0, netip.PrefixFrom(e.Address, e.prefix)); err != nil {
		return err
	}
	if err := f.nl.LinkSetUp(outer); err != nil {
		return fmt.Errorf("%s: %w", outer.Attrs().Name, err)
	}
	if err := f.nl.NeighSet(neighbour(outer, e.Address, e.MAC)); err != nil {
		return fmt.Errorf("neighbour %s: %w", e.Address, err)
	}
	if err := f.nl.RouteReplace(eniRoute(outer, e.Address)); err != nil {
		return fmt.Errorf("route to %s: %w", e.Address, err)
	}
	if err := inner.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("%s: %w", eniInner, err)
	}
	if err := inner.RouteReplace(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: e.router.AsSlice()}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return makeMarker(opts.ReadyPath(e.ID), e.VPC)
}

// makeMarker makes the marker of an ENI, a link to the namespace of its VPC, or
// leaves the one that is there.
func makeMarker(path, vpc string) error {
	if to, err := os.Readlink(path); err == nil && to == vpc {
		return nil
	}
	if err := removeFile(path); err != nil {
		return err
	}
	return os.Symlink(vpc, path)
}

// taskSysctls prepares the namespace of an ENI: no IPv6 on what comes later, while ::1 keeps working.
func taskSysctls() error { return sysctl("ipv6/conf/default/disable_ipv6", "1") }

func eniRoute(outer netlink.Link, a netip.Addr) *netlink.Route {
	return &netlink.Route{Table: localTable, LinkIndex: outer.Attrs().Index, Dst: ipNet(netip.PrefixFrom(a, 32)),
		Scope: netlink.SCOPE_LINK, Protocol: routeProtocol}
}

// pair finds both ends of an ENI that was made before. An outer end that does not belong to this namespace, or has
// another MAC, is deleted and counts as absent.
func (f *fabric) pair(e *eni, inner *netlink.Handle) (outer, eth0 netlink.Link, err error) {
	outer, err = f.nl.LinkByName(linkName(e.ID))
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	eth0, err = inner.LinkByName(eniInner)
	o := outer.Attrs()
	if err == nil && o.Group != goneGroup && eth0.Attrs().ParentIndex == o.Index && o.ParentIndex == eth0.Attrs().Index &&
		bytes.Equal(eth0.Attrs().HardwareAddr, e.MAC) {
		return outer, eth0, nil
	}
	if err := f.nl.LinkDel(outer); err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, nil, fmt.Errorf("delete %s: %w", o.Name, err)
	}
	return nil, nil, nil
}

func (f *fabric) makePair(e *eni, ns *os.File, inner *netlink.Handle) (outer, eth0 netlink.Link, err error) {
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU, la.HardwareAddr = linkName(e.ID), mtu, routerMAC
	veth := netlink.NewVeth(la)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = eniInner, e.MAC, netlink.NsFd(ns.Fd())
	if err := f.nl.LinkAdd(veth); err != nil {
		return nil, nil, fmt.Errorf("make %s: %w", la.Name, err)
	}
	eth0, err = inner.LinkByName(eniInner)
	return veth, eth0, err
}

// soleAddress gives a link one IPv4 address and takes away others.
func soleAddress(h *netlink.Handle, link netlink.Link, want netip.Prefix) error {
	have, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(link, unix.AF_INET) })
	if err != nil {
		return err
	}
	found := false
	for _, a := range have {
		if p, _ := prefixOf(a.IPNet); p == want {
			found = true
		} else if err := h.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove %s: %w", p, err)
		}
	}
	if found {
		return nil
	}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(want)}); err != nil {
		return fmt.Errorf("add %s: %w", want, err)
	}
	return nil
}

// detach cuts an ENI off at once and leaves the slow part, taking the link apart, to a sweep. Its elements are out of
// the ruleset already; without its route the address is free for the next.
func (f *fabric) detach(opts Options, e *eni) error {
	outer, err := f.nl.LinkByName(linkName(e.ID))
	if err == nil {
		if err := f.nl.RouteDel(eniRoute(outer, e.Address)); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route to %s: %w", e.Address, err)
		}
		if err := f.retire(outer); err != nil {
			return err
		}
	}
	return dropNetns(opts.NetnsPath(e.ID))
}

// retire marks a link for the next sweep.
func (f *fabric) retire(link netlink.Link) error {
	if err := f.nl.LinkSetGroup(link, goneGroup); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("retire %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// retireStrangers retires the links that are not in wanted, as a killed engine leaves them, and removes routes to other
// addresses than the wanted ones. It returns the addresses that became free.
func (f *fabric) retireStrangers(wanted map[string]netip.Addr) (map[netip.Addr]bool, error) {
	links, err := dump(f.nl.LinkList)
	if err != nil {
		return nil, err
	}
	addresses := map[netip.Addr]bool{}
	for _, l := range links {
		a := l.Attrs()
		if l.Type() != "veth" || a.Name == uplinkInner {
			continue
		}
		address, stays := wanted[a.Name]
		routes, err := dump(func() ([]netlink.Route, error) {
			return f.nl.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: localTable, LinkIndex: a.Index},
				netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
		})
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			p, _ := prefixOf(r.Dst)
			if stays && p.Addr() == address {
				continue
			}
			addresses[p.Addr()] = true
			if err := f.nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return nil, err
			}
		}
		if stays {
			continue
		}
		if err := f.retire(l); err != nil {
			return nil, err
		}
	}
	return addresses, nil
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
