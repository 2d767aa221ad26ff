package vpc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The way between two peers is a veth pair with one end in the namespace of each. What leaves by it is what a route
// table sends there; what comes in by it finds the local routes and no route table, so that nothing passes through a
// VPC to a third one or to a gateway.

// joint is a peering connection that both VPCs have.
type joint struct{ id, a, b string }

// joints are the peering connections that both sides have.
func joints(vpcs []VPC) []joint {
	has := map[[2]string]bool{}
	for _, v := range vpcs {
		for _, p := range v.Peers {
			has[[2]string{p.ID, v.ID}] = true
		}
	}
	var out []joint
	for _, v := range vpcs {
		for _, p := range v.Peers {
			if v.ID < p.VPC && has[[2]string{p.ID, p.VPC}] {
				out = append(out, joint{p.ID, v.ID, p.VPC})
			}
		}
	}
	return out
}

// join makes the way between two VPCs, or leaves the one that is there.
func join(id string, a, b *fabric, dual bool) error {
	name := peerName(id)
	one, errA := a.nl.LinkByName(name)
	two, errB := b.nl.LinkByName(name)
	if errA != nil || errB != nil || one.Attrs().ParentIndex != two.Attrs().Index || two.Attrs().ParentIndex != one.Attrs().Index {
		for _, old := range []struct {
			f    *fabric
			link netlink.Link
			err  error
		}{{a, one, errA}, {b, two, errB}} {
			if old.err == nil {
				if err := old.f.nl.LinkDel(old.link); err != nil && !errors.Is(err, unix.ENODEV) {
					return err
				}
			}
		}
		la := netlink.NewLinkAttrs()
		la.Name, la.MTU, la.HardwareAddr = name, mtu, routerMAC
		veth := netlink.NewVeth(la)
		veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = name, routerMAC, netlink.NsFd(b.ns.Fd())
		if err := a.nl.LinkAdd(veth); err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
		if one, errA = a.nl.LinkByName(name); errA != nil {
			return errA
		}
		if two, errB = b.nl.LinkByName(name); errB != nil {
			return errB
		}
		a.settled, b.settled = false, false // the routes through the old way went with it
	}
	for _, end := range []struct {
		f    *fabric
		link netlink.Link
	}{{a, one}, {b, two}} {
		err := errors.Join(
			on(end.f.ns, func() error { return sysctl("ipv4/conf/"+name+"/proxy_arp", "0") }),
			end.f.nl.LinkSetUp(end.link),
			end.f.nl.NeighSet(neighbour(end.link, gatewayPeer, routerMAC)))
		if err == nil && dual {
			err = errors.Join(end.f.enable6(name), end.f.nl.NeighSet(neighbour(end.link, gatewayPeer6, routerMAC)))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// part removes the ways to peers that are not in wanted, by the names of their links.
func (f *fabric) part(wanted map[string]bool) error {
	links, err := dump(f.nl.LinkList)
	if err != nil {
		return err
	}
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() != "veth" || !strings.HasPrefix(name, peerPrefix) || wanted[name] {
			continue
		}
		if err := f.nl.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	return nil
}
