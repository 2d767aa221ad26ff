package dispatch

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// What a node is told of networks, as pure functions of the rows: every row
// is resolved, so that the node looks nothing up.

// networkTables are the tables that decide the shape of a VPC.
var networkTables = []store.AnyTable{
	state.Regions, state.VPCs, state.Subnets, state.RouteTables, state.InternetGateways, state.EgressOnlyGateways, state.NATGateways,
	state.NetworkACLs, state.Peerings, state.Endpoints, state.PrefixLists, state.DHCPOptionSets,
}

// vpc is the shape of a VPC with the effective route table and network ACL of
// each of its subnets.
func vpc(snap *store.Snapshot, v *state.VPC) fabric.VPC {
	out := fabric.VPC{ID: v.ID, CIDRs: slices.Clone(v.CIDRs), DNSSupport: v.DNSSupport}
	for _, b := range v.IPv6 {
		out.CIDRs = append(out.CIDRs, b.CIDR)
	}
	main := ""
	for t := range state.RouteTables.By(snap, "vpc", v.ID) {
		if t.Main {
			main = t.ID
		}
		out.RouteTables = append(out.RouteTables, fabric.RouteTable{ID: t.ID, Routes: routes(snap, v, t)})
	}
	used := map[string]bool{}
	for sn := range state.Subnets.By(snap, "vpc", v.ID) {
		n := fabric.Subnet{ID: sn.ID, CIDR: sn.CIDR, RouteTable: cmp.Or(sn.RouteTable, main), ACL: effectiveACL(snap, v, sn)}
		if len(sn.IPv6) > 0 {
			n.IPv6 = sn.IPv6[0].CIDR
		}
		out.Subnets = append(out.Subnets, n)
		used[n.ACL] = true
	}
	for a := range state.NetworkACLs.By(snap, "vpc", v.ID) {
		if used[a.ID] {
			out.ACLs = append(out.ACLs, acl(a))
		}
	}
	for p := range state.Peerings.By(snap, "vpc", v.ID) {
		if p.Status != "active" {
			continue
		}
		// An option lets the other side resolve names of one's own.
		other, dns := p.PeerVPC, p.AccepterDNS
		if other == v.ID {
			other, dns = p.VPC, p.RequesterDNS
		}
		o, ok := state.VPCs.Get(snap, other)
		if !ok {
			continue
		}
		n := fabric.Peer{ID: p.ID, VPC: other, CIDRs: slices.Clone(o.CIDRs), DNS: dns}
		for _, b := range o.IPv6 {
			n.CIDRs = append(n.CIDRs, b.CIDR)
		}
		out.Peers = append(out.Peers, n)
	}
	out.Names = endpointNames(snap, v)
	out.Domain, out.Nameservers = dhcp(snap, v)
	return out
}

// routes are those of a table beside the local ones, with prefix lists
// expanded and every target resolved to what a packet can be sent to.
func routes(snap *store.Snapshot, v *state.VPC, t *state.RouteTable) []fabric.Route {
	var out []fabric.Route
	for _, r := range t.Routes {
		kind, target := hop(snap, v, r.Target)
		if kind == "" {
			continue
		}
		for _, p := range expand(snap, r.Destination, r.PrefixList) {
			out = append(out, fabric.Route{Destination: p, Kind: kind, Target: target})
		}
	}
	return out
}

// expand is a prefix, or the prefixes of a list.
func expand(snap *store.Snapshot, p netip.Prefix, list string) []netip.Prefix {
	if list == "" {
		if !p.IsValid() {
			return nil
		}
		return []netip.Prefix{p}
	}
	l, ok := state.PrefixLists.Get(snap, list)
	if !ok {
		return nil
	}
	var out []netip.Prefix
	for _, e := range l.Entries() {
		out = append(out, e.CIDR)
	}
	return out
}

// hop is what the target of a route is now: a blackhole where it is gone or
// does not work, "" for the local routes, which the node has by itself.
func hop(snap *store.Snapshot, v *state.VPC, target string) (kind, id string) {
	kind, id = fabric.RouteBlackhole, ""
	prefix, _, _ := strings.Cut(target, "-")
	switch prefix {
	case "local":
		return "", ""
	case "igw":
		if g, ok := state.InternetGateways.Get(snap, target); ok && g.VPC == v.ID {
			kind = fabric.RouteInternetGateway
		}
	case "eigw":
		if g, ok := state.EgressOnlyGateways.Get(snap, target); ok && g.VPC == v.ID {
			kind = fabric.RouteEgressOnly
		}
	case "nat":
		if g, ok := state.NATGateways.Get(snap, target); ok && g.VPC == v.ID && g.State == "available" {
			kind, id = fabric.RouteInterface, g.ENI
		}
	case "eni":
		if e, ok := state.NetworkInterfaces.Get(snap, target); ok && e.VPC == v.ID && e.Node != "" && !e.Leaving() {
			kind, id = fabric.RouteInterface, e.ID
		}
	case "pcx":
		if p, ok := state.Peerings.Get(snap, target); ok && p.Status == "active" && (p.VPC == v.ID || p.PeerVPC == v.ID) {
			kind, id = fabric.RoutePeering, p.ID
		}
	}
	return kind, id
}

// effectiveACL is the id of the subnet's network ACL, "" if it lets all pass.
func effectiveACL(snap *store.Snapshot, v *state.VPC, sn *state.Subnet) string {
	var a *state.NetworkACL
	if sn.NetworkACL != "" {
		a, _ = state.NetworkACLs.Get(snap, sn.NetworkACL)
	} else {
		for n := range state.NetworkACLs.By(snap, "vpc", v.ID) {
			if n.Default {
				a = n
			}
		}
	}
	if a == nil || open(a, false, false) && open(a, true, false) && (len(v.IPv6) == 0 || open(a, false, true) && open(a, true, true)) {
		return ""
	}
	return a.ID
}

// open says whether the first entry of a direction and family lets all pass.
func open(a *state.NetworkACL, egress, six bool) bool {
	for _, e := range numbered(a) {
		if e.Egress == egress && e.CIDR.Addr().Is6() == six {
			return e.Allow && e.Protocol == -1 && e.CIDR.Bits() == 0
		}
	}
	return false
}

func numbered(a *state.NetworkACL) []state.ACLEntry {
	return slices.SortedStableFunc(slices.Values(a.Numbered()), func(x, y state.ACLEntry) int { return cmp.Compare(x.Number, y.Number) })
}

func acl(a *state.NetworkACL) fabric.NetworkACL {
	out := fabric.NetworkACL{ID: a.ID}
	for _, e := range numbered(a) {
		out.Entries = append(out.Entries, fabric.ACLEntry{Egress: e.Egress, Allow: e.Allow, Protocol: e.Protocol, From: e.From, To: e.To, CIDR: e.CIDR})
	}
	return out
}

// endpointNames are the names of the VPC's interface endpoints, and those of
// the services whose private names they have.
func endpointNames(snap *store.Snapshot, v *state.VPC) map[string][]netip.Addr {
	region, ok := state.Regions.Get(snap, state.RegionKey)
	if !ok {
		return nil
	}
	if out := state.EndpointNames(snap, region.Name, v.ID); len(out) > 0 {
		return out
	}
	return nil
}

// dhcp is what the DHCP options of the VPC say of its resolver.
func dhcp(snap *store.Snapshot, v *state.VPC) (domain string, nameservers []netip.Addr) {
	set, ok := state.DHCPOptionSets.Get(snap, v.DHCPOptions)
	if !ok {
		return "", nil
	}
	for _, o := range set.Values {
		switch o.Name {
		case "domain-name":
			domain = strings.Join(o.Values, " ")
		case "domain-name-servers":
			for _, s := range o.Values {
				if a, err := netip.ParseAddr(s); err == nil {
					nameservers = append(nameservers, a)
				}
			}
		}
	}
	return domain, nameservers
}

func group(snap *store.Snapshot, g *state.SecurityGroup) fabric.SecurityGroup {
	out := fabric.SecurityGroup{ID: g.ID, VPC: g.VPC}
	for _, r := range g.Rules {
		n := fabric.Rule{Protocol: protocol(r.Protocol), From: r.From, To: r.To}
		if r.Group != "" {
			n.Groups = []string{r.Group}
		} else if n.CIDRs = expand(snap, r.CIDR, r.PrefixList); len(n.CIDRs) == 0 {
			continue
		}
		if r.Egress {
			out.Egress = append(out.Egress, n)
		} else {
			out.Ingress = append(out.Ingress, n)
		}
	}
	return out
}

func protocol(name string) int {
	switch name {
	case "tcp":
		return 6
	case "udp":
		return 17
	case "icmp":
		return 1
	case "icmpv6":
		return 58
	}
	if n, err := strconv.Atoi(name); err == nil {
		return n
	}
	return -1
}

// networkInterface is the shape of an interface as a node is told of it.
func networkInterface(snap *store.Snapshot, e *state.NetworkInterface, node string) fabric.Interface {
	out := fabric.Interface{ID: e.ID, VPC: e.VPC, Subnet: e.Subnet, MAC: e.MAC, Address: e.Address, Public: e.Public, IPv6: e.IPv6, Groups: e.Groups,
		SourceDestCheck: e.SourceDestCheck, Hostname: e.PrivateDNSName, Here: e.Node == node, FlowLog: flowLogged(snap, e)}
	for _, s := range e.Secondary {
		out.Secondary = append(out.Secondary, fabric.Address{Private: s.Address, Public: s.Public})
	}
	switch e.Type {
	case "nat_gateway":
		out.Serves = fabric.ServesNAT
	case "vpc_endpoint":
		out.Serves = fabric.ServesAPI
	}
	if a := e.Attachment; a != nil && a.Device > 0 {
		out.Device, out.Here = a.Device, false
		for home := range state.NetworkInterfaces.By(snap, "instance", a.Instance) {
			if home.Attachment.Device == 0 && home.Node == node {
				out.In, out.Here = home.ID, e.Node == node
			}
		}
	}
	return out
}

func flowLogged(snap *store.Snapshot, e *state.NetworkInterface) bool {
	for _, id := range []string{e.ID, e.Subnet, e.VPC} {
		for range state.FlowLogs.By(snap, "resource", id) {
			return true
		}
	}
	return false
}
