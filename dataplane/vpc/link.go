package vpc

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loIndex is the index of the loopback device in every namespace.
const loIndex = 1

// attach makes e work. Its elements are in the ruleset already. Every step accepts that it was done before; a link that
// is as it should be is left alone, so adopting an ENI cuts nothing.
func (f *fabric) attach(opts Options, api api, e *eni) (err error) {
	ns, inner, err := openHome(opts, e)
	if inner != nil {
		defer inner.Close()
	}
	if ns != nil {
		defer ns.Close()
	}
	if err != nil {
		return err
	}

	name := deviceName(e.Device)
	outer, dev, err := f.pair(e, inner)
	if err == nil && outer == nil {
		if err := removeFile(opts.ReadyPath(e.ID)); err != nil {
			return err
		}
		outer, dev, err = f.makePair(e, ns, inner)
	}
	if err != nil {
		return err
	}

	lo := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: loIndex, Name: "lo"}}
	if err := inner.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := on(ns, func() error { return e.sysctls(name) }); err != nil {
		return err
	}
	if len(e.IPv6) > 0 {
		if err := f.enable6(outer.Attrs().Name); err != nil {
			return err
		}
	}
	if err := e.settleAddresses(inner, dev); err != nil {
		return err
	}
	if err := f.nl.LinkSetUp(outer); err != nil {
		return fmt.Errorf("%s: %w", outer.Attrs().Name, err)
	}
	if err := f.settleOuter(e, outer); err != nil {
		return err
	}
	if err := inner.LinkSetUp(dev); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := e.settleGateways(inner, dev); err != nil {
		return err
	}
	if e.Serves != "" {
		if err := runNft(ns, renderService(e.ENI, api)); err != nil {
			return fmt.Errorf("rules of %q: %w", e.Serves, err)
		}
	}
	return makeMarker(opts.ReadyPath(e.ID), e.VPC)
}

// openHome opens the namespace that e is to be in, and makes it if it is e's own. A device of another ENI has a
// symbolic link to that one's namespace in its place.
func openHome(opts Options, e *eni) (ns *os.File, inner *netlink.Handle, err error) {
	path := opts.NetnsPath(e.ID)
	to, err := os.Readlink(path)
	linked := err == nil
	if linked && to != e.In || !linked && e.In != "" {
		if err := dropNetns(path); err != nil {
			return nil, nil, err
		}
		if e.In != "" {
			if err := os.Symlink(e.In, path); err != nil {
				return nil, nil, err
			}
		}
	}
	openInner := func() (err error) {
		inner, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}
	ns, err = openNetns(path)
	if errors.Is(err, os.ErrNotExist) && e.In == "" {
		ns, err = makeNetns(path, func() error { return errors.Join(e.ownSysctls(), openInner()) })
	} else if err == nil {
		err = on(ns, openInner)
	}
	return ns, inner, err
}

// settleOuter routes the addresses of e to its link, and no others.
func (f *fabric) settleOuter(e *eni, outer netlink.Link) error {
	want := map[netip.Addr]bool{}
	for _, fam := range []family{ipv4, ipv6} {
		for _, a := range e.addresses(fam) {
			want[a] = true
			if err := f.nl.NeighSet(neighbour(outer, a, e.MAC)); err != nil {
				return fmt.Errorf("neighbour %s: %w", a, err)
			}
			if err := f.nl.RouteReplace(eniRoute(outer, a)); err != nil {
				return fmt.Errorf("route to %s: %w", a, err)
			}
		}
	}
	_, err := f.unroute(outer, want)
	return err
}

// unroute removes the routes to addresses of a link that are not wanted, and returns those addresses.
func (f *fabric) unroute(link netlink.Link, want map[netip.Addr]bool) (free []netip.Addr, err error) {
	for _, af := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := dump(func() ([]netlink.Route, error) {
			return f.nl.RouteListFiltered(af, &netlink.Route{Table: localTable, LinkIndex: link.Attrs().Index},
				netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
		})
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			p, _ := prefixOf(r.Dst, af)
			if want[p.Addr()] {
				continue
			}
			free = append(free, p.Addr())
			if err := f.nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return nil, fmt.Errorf("remove route to %s: %w", p, err)
			}
		}
	}
	return free, nil
}

// settleAddresses gives the inner end its addresses and takes away others, but for those that the kernel makes.
func (e *eni) settleAddresses(inner *netlink.Handle, dev netlink.Link) error {
	want := map[netip.Prefix]bool{}
	for _, a := range e.addresses(ipv4) {
		want[netip.PrefixFrom(a, e.prefix)] = true
	}
	for _, a := range e.addresses(ipv6) {
		want[netip.PrefixFrom(a, 128)] = true
	}
	for _, af := range []int{unix.AF_INET, unix.AF_INET6} {
		have, err := dump(func() ([]netlink.Addr, error) { return inner.AddrList(dev, af) })
		if err != nil {
			return err
		}
		for _, a := range have {
			p, _ := prefixOf(a.IPNet, af)
			if want[p] {
				delete(want, p)
			} else if p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast() {
				if err := inner.AddrDel(dev, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
					return fmt.Errorf("remove %s: %w", p, err)
				}
			}
		}
	}
	// The primary address first: the kernel prefers it as the source.
	for _, fam := range []family{ipv4, ipv6} {
		for _, a := range e.addresses(fam) {
			add := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, e.prefix))}
			if fam == ipv6 {
				add = &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, 128)), Flags: unix.IFA_F_NODAD}
			}
			if p, _ := prefixOf(add.IPNet, familyOf(a)); !want[p] {
				continue
			}
			if err := inner.AddrAdd(dev, add); err != nil {
				return fmt.Errorf("add %s: %w", a, err)
			}
		}
	}
	return nil
}

// settleGateways makes the routes inside. A further device gets those to its own subnet only: what else leaves by it is
// the guest's choice.
func (e *eni) settleGateways(inner *netlink.Handle, dev netlink.Link) error {
	var routes []*netlink.Route
	if e.In == "" {
		routes = append(routes, &netlink.Route{LinkIndex: dev.Attrs().Index, Gw: e.router.AsSlice()})
	}
	if len(e.IPv6) > 0 {
		to := &netlink.Route{LinkIndex: dev.Attrs().Index, Gw: router6.AsSlice(), Dst: ipNet(netip.PrefixFrom(netip.IPv6Unspecified(), 0))}
		if e.In != "" {
			to.Dst = ipNet(e.subnet6.Masked())
		}
		routes = append(routes, to)
	}
	for _, r := range routes {
		if err := inner.RouteReplace(r); err != nil {
			return fmt.Errorf("route to %s: %w", r.Gw, err)
		}
	}
	return nil
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

// ownSysctls prepares a namespace that is e's own: no IPv6 on what comes later, while ::1 keeps working.
func (e *eni) ownSysctls() error {
	if err := sysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil {
		return err
	}
	return serviceSysctls(e.Serves)
}

// sysctls prepares e's device.
func (e *eni) sysctls(dev string) error {
	if len(e.IPv6) == 0 {
		return nil
	}
	for _, s := range [][2]string{{"accept_ra", "0"}, {"accept_dad", "0"}, {"disable_ipv6", "0"}} {
		if err := sysctl("ipv6/conf/"+dev+"/"+s[0], s[1]); err != nil {
			return fmt.Errorf("%s of %s: %w", s[0], dev, err)
		}
	}
	return nil
}

func eniRoute(outer netlink.Link, a netip.Addr) *netlink.Route {
	r := &netlink.Route{Table: localTable, LinkIndex: outer.Attrs().Index, Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Protocol: routeProtocol}
	if a.Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

// pair finds both ends of an ENI that was made before. An outer end that does not belong to this namespace, or has
// another MAC, is deleted and counts as absent.
func (f *fabric) pair(e *eni, inner *netlink.Handle) (outer, dev netlink.Link, err error) {
	outer, err = f.nl.LinkByName(linkName(e.ID))
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	dev, err = inner.LinkByName(deviceName(e.Device))
	o := outer.Attrs()
	if err == nil && o.Group != goneGroup && dev.Attrs().ParentIndex == o.Index && o.ParentIndex == dev.Attrs().Index &&
		bytes.Equal(dev.Attrs().HardwareAddr, e.MAC) {
		return outer, dev, nil
	}
	if err := f.nl.LinkDel(outer); err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, nil, fmt.Errorf("delete %s: %w", o.Name, err)
	}
	return nil, nil, nil
}

func (f *fabric) makePair(e *eni, ns *os.File, inner *netlink.Handle) (outer, dev netlink.Link, err error) {
	name := deviceName(e.Device)
	// A device that was there before may still wait to be swept.
	if old, err := inner.LinkByName(name); err == nil && old.Type() == "veth" {
		if err := inner.LinkDel(old); err != nil && !errors.Is(err, unix.ENODEV) {
			return nil, nil, fmt.Errorf("delete the former %s: %w", name, err)
		}
	}
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU, la.HardwareAddr = linkName(e.ID), mtu, routerMAC
	veth := netlink.NewVeth(la)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = name, e.MAC, netlink.NsFd(ns.Fd())
	if err := f.nl.LinkAdd(veth); err != nil {
		return nil, nil, fmt.Errorf("make %s: %w", la.Name, err)
	}
	dev, err = inner.LinkByName(name)
	return veth, dev, err
}

// detach cuts an ENI off at once and leaves the slow part, taking the link apart, to a sweep. Its elements are out of
// the ruleset already; without its route the address is free for the next.
func (f *fabric) detach(opts Options, e *eni) error {
	outer, err := f.nl.LinkByName(linkName(e.ID))
	if err == nil {
		for _, fam := range []family{ipv4, ipv6} {
			for _, a := range e.addresses(fam) {
				if err := f.nl.RouteDel(eniRoute(outer, a)); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("remove route to %s: %w", a, err)
				}
			}
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
// addresses than the wanted ones. It returns the addresses that became free. Ways to peers are nobody's address.
func (f *fabric) retireStrangers(wanted map[string]map[netip.Addr]bool) (map[netip.Addr]bool, error) {
	links, err := dump(f.nl.LinkList)
	if err != nil {
		return nil, err
	}
	addresses := map[netip.Addr]bool{}
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() != "veth" || name == uplinkInner || strings.HasPrefix(name, peerPrefix) {
			continue
		}
		own, stays := wanted[name]
		free, err := f.unroute(l, own)
		if err != nil {
			return nil, err
		}
		for _, a := range free {
			addresses[a] = true
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
