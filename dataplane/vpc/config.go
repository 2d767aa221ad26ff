package vpc

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Options says which region the engine serves and where it keeps its namespaces.
type Options struct {
	// Region is the short id of the region, 4 to 8 lower-case hex digits. It is part of every name outside the
	// engine's own namespaces. Required.
	Region string
	// RunDir is the folder below which namespaces are mounted. It must not be shared between regions. Required.
	RunDir string
	// APIPort is where the machine answers the region's API, at its own address in the pool. Optional: without it
	// interface endpoints answer nothing.
	APIPort uint16
	// PublicPool is where public addresses come from. Its base address belongs to the machine. Optional: without it
	// no ENI can have a public address.
	PublicPool netip.Prefix
	// Log is optional.
	Log *slog.Logger
	// OnAttached is called once for each ENI that a Set attached, adopted, or could not attach. It runs on the
	// goroutines of Set, possibly on several at once, and must not call the engine. Optional.
	OnAttached func(eniID string, err error)
}

// Config is the complete desired state of the region on this node.
type Config struct {
	VPCs   []VPC
	ENIs   []ENI
	Groups []SecurityGroup
}

// VPC is an isolated network. Its resolver is the base address of the first CIDR plus two.
type VPC struct {
	ID          string
	CIDRs       []netip.Prefix // IPv4, the primary one first, and IPv6
	Subnets     []Subnet
	RouteTables []RouteTable
	// ACLs are the network ACLs that subnets name.
	ACLs []NetworkACL
	// Peers are the VPCs that routes may point to. A peering works when both VPCs have it.
	Peers []Peer
}

// Peer is the other side of a peering connection.
type Peer struct {
	ID, VPC string
	CIDRs   []netip.Prefix
}

// NetworkACL is a stateless filter between subnets. Its entries are asked in order; what none matches is denied.
type NetworkACL struct {
	ID      string
	Entries []ACLEntry
}

// ACLEntry allows or denies what matches, in one direction.
type ACLEntry struct {
	Egress, Allow bool
	Protocol      int // as in Rule
	From, To      int
	CIDR          netip.Prefix
}

// dual says whether the VPC has IPv6.
func (v VPC) dual() bool {
	return slices.ContainsFunc(v.CIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// Resolver returns the address of the VPC's DNS server: base+2 of its first CIDR.
func (v VPC) Resolver() netip.Addr {
	if len(v.CIDRs) == 0 {
		return netip.Addr{}
	}
	return v.CIDRs[0].Masked().Addr().Next().Next()
}

// Subnet is a part of a VPC that shares one route table.
type Subnet struct {
	ID         string
	CIDR       netip.Prefix
	IPv6       netip.Prefix // zero: none
	RouteTable string
	ACL        string // "" allows all
}

// Router returns the address of the subnet's router: base+1.
func (s Subnet) Router() netip.Addr { return s.CIDR.Masked().Addr().Next() }

// RouteTable is a named list of routes. The longest prefix wins.
type RouteTable struct {
	ID     string
	Routes []Route
}

// Route sends a destination to a target.
type Route struct {
	Destination netip.Prefix
	Target      Target
	TargetID    string
}

// Target is the kind of thing a route points to.
type Target string

// The targets that the fabric knows. Anything else is treated as a blackhole.
const (
	Local           Target = "local"
	InternetGateway Target = "internet-gateway"
	EgressOnly      Target = "egress-only-internet-gateway" // IPv6; only replies come back
	Interface       Target = "interface"                    // TargetID is an ENI
	Peering         Target = "peering"                      // TargetID is the id of a Peer
	Blackhole       Target = "blackhole"
)

// ENI is a network interface and the namespace it lives in.
type ENI struct {
	ID, VPC, Subnet string
	MAC             net.HardwareAddr
	Address         netip.Addr
	// Public is the address that the internet gateway translates to Address. Zero: none.
	Public netip.Addr
	// Secondary are further private addresses, each with a public one if it has.
	Secondary []Address
	IPv6      []netip.Addr
	// In is the ENI whose namespace this one is a device of, eth<Device>. "": it is eth0 of a namespace of its own.
	// A further device gets its addresses and the route to its subnet; what else is routed through it is the guest's
	// choice, as on AWS.
	In     string
	Device int
	// Serves is what the namespace itself does: "", ServesNAT, ServesAPI.
	Serves string
	// FlowLog counts the flows of the interface, for Flows.
	FlowLog bool
	// Elsewhere says that the ENI is not of this machine, or of none: it only counts as a member of its groups.
	Elsewhere bool
	// Groups are the security groups whose rules are united for this interface.
	Groups []string
	// SourceDestCheck drops packets that do not carry the ENI's own MAC and address as their source.
	SourceDestCheck bool
	// Hostname is the private DNS name. The kernel has no use for it; the resolver and the agent have.
	Hostname string
}

// What the namespace of an ENI does by itself: a NAT gateway forwards what others send through it and puts its own
// address on it; an interface endpoint hands connections to the region's API.
const (
	ServesNAT = "nat"
	ServesAPI = "api"
)

// Address is a private address and the public one that the internet gateway translates to it.
type Address struct{ Private, Public netip.Addr }

// pairs are all private IPv4 addresses of the ENI, the primary one first.
func (e ENI) pairs() []Address {
	return append([]Address{{e.Address, e.Public}}, e.Secondary...)
}

// addresses are those of a family, the primary one first.
func (e ENI) addresses(fam family) []netip.Addr {
	if fam == ipv6 {
		return e.IPv6
	}
	out := make([]netip.Addr, 0, 1+len(e.Secondary))
	for _, p := range e.pairs() {
		out = append(out, p.Private)
	}
	return out
}

func (e ENI) publics() []netip.Addr {
	var out []netip.Addr
	for _, p := range e.pairs() {
		if p.Public.IsValid() {
			out = append(out, p.Public)
		}
	}
	return out
}

// SecurityGroup is a set of allow rules.
type SecurityGroup struct {
	ID, VPC         string
	Ingress, Egress []Rule
}

// Rule allows one protocol and port range from or to any of its peers.
type Rule struct {
	// Protocol is an IP protocol number, -1 for all.
	Protocol int
	// From and To are ports for TCP and UDP, type and code for ICMP, and ignored otherwise. -1 is any.
	From, To int
	CIDRs    []netip.Prefix
	// Groups names security groups; their members' private addresses match.
	Groups []string
}

// ENIStatus is what the kernel has of an ENI.
type ENIStatus struct {
	// Ready says that the interface works and its security groups are enforced.
	Ready bool
	// Err is why it is not ready.
	Err error
	// Netns is the path of the interface's network namespace.
	Netns string
}

var (
	regionPattern = regexp.MustCompile(`^[0-9a-f]{4,8}$`)
	// idPattern keeps ids harmless in file names and nftables scripts.
	idPattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
)

func (o Options) validate() error {
	switch {
	case !regionPattern.MatchString(o.Region):
		return fmt.Errorf("region %q is not 4 to 8 lower-case hex digits", o.Region)
	case !filepath.IsAbs(o.RunDir):
		return fmt.Errorf("run directory %q is not an absolute path", o.RunDir)
	case o.PublicPool.IsValid() && !o.PublicPool.Addr().Is4():
		return fmt.Errorf("public pool %s is not IPv4", o.PublicPool)
	}
	return nil
}

// NetnsDir is the folder in which the engine mounts namespaces and makes ready markers.
func (o Options) NetnsDir() string { return filepath.Join(o.RunDir, "netns") }

// NetnsPath is where the namespace of an ENI or a VPC is mounted.
func (o Options) NetnsPath(id string) string { return filepath.Join(o.NetnsDir(), id) }

// ReadyPath is the marker that exists exactly while the ENI works and its security groups are enforced. It is a link
// to the namespace of the ENI's VPC, in which 169.254.170.2 is for the agent to listen on.
func (o Options) ReadyPath(eniID string) string { return o.NetnsPath(eniID) + readySuffix }

const readySuffix = ".ready"

// checked is a Config sorted out: what can be made, and why the rest cannot.
type checked struct {
	vpcs   []VPC
	groups map[string]SecurityGroup
	enis   map[string]ENI   // every ENI of this machine, also those that have an entry in bad
	bad    map[string]error // ENIs that must not be attached
	others []ENI            // those that are elsewhere
}

// check validates c. Mistakes about an ENI condemn that ENI only; mistakes about VPCs and groups condemn the call,
// because an engine that dropped half of a network would cut traffic.
func check(c Config, pool netip.Prefix) (checked, error) {
	out := checked{groups: map[string]SecurityGroup{}, enis: map[string]ENI{}, bad: map[string]error{}}
	var errs []error
	vpcs := map[string]VPC{}
	ids := map[string]bool{}
	id := func(kind, id string) bool {
		switch {
		case !idPattern.MatchString(id):
			errs = append(errs, fmt.Errorf("%s id %q is not valid", kind, id))
		case ids[id]:
			errs = append(errs, fmt.Errorf("%s %s is given twice", kind, id))
		default:
			ids[id] = true
			return true
		}
		return false
	}
	for _, v := range c.VPCs {
		if !id("vpc", v.ID) {
			continue
		}
		if err := checkVPC(v, id); err != nil {
			errs = append(errs, err)
		}
		vpcs[v.ID] = v
		out.vpcs = append(out.vpcs, v)
	}
	for _, g := range c.Groups {
		if id("security group", g.ID) {
			out.groups[g.ID] = g
		}
	}
	if err := collisions(c); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return checked{}, errors.Join(errs...)
	}
	slices.SortFunc(out.vpcs, func(a, b VPC) int { return strings.Compare(a.ID, b.ID) })

	type at struct {
		vpc  string
		addr netip.Addr
	}
	type slot struct {
		in     string
		device int
	}
	users, publics, links, slots := map[at]string{}, map[netip.Addr]string{}, map[string]string{}, map[slot]string{}
	for _, e := range c.ENIs {
		if e.Elsewhere {
			out.others = append(out.others, e)
			continue
		}
		if !id("eni", e.ID) {
			// Of two ENIs with one id nobody can say which is meant, so neither is attached.
			out.bad[e.ID] = errors.Join(errs...)
			errs = nil
			continue
		}
		out.enis[e.ID] = e
		err := checkENI(e, vpcs, out.groups, pool)
		other := links[linkName(e.ID)]
		if err == nil && other != "" {
			err = fmt.Errorf("link name %s is taken by %s", linkName(e.ID), other)
		}
		for _, fam := range []family{ipv4, ipv6} {
			for _, a := range e.addresses(fam) {
				if other := users[at{e.VPC, a}]; err == nil && other != "" {
					err = fmt.Errorf("address %s is taken by %s", a, other)
				}
			}
		}
		for _, a := range e.publics() {
			if other := publics[a]; err == nil && other != "" {
				err = fmt.Errorf("public address %s is taken by %s", a, other)
			}
		}
		if other := slots[slot{e.In, e.Device}]; err == nil && e.In != "" && other != "" {
			err = fmt.Errorf("device %d of %s is taken by %s", e.Device, e.In, other)
		}
		if err != nil {
			out.bad[e.ID] = fmt.Errorf("eni %s: %w", e.ID, err)
			continue
		}
		links[linkName(e.ID)], slots[slot{e.In, e.Device}] = e.ID, e.ID
		for _, fam := range []family{ipv4, ipv6} {
			for _, a := range e.addresses(fam) {
				users[at{e.VPC, a}] = e.ID
			}
		}
		for _, a := range e.publics() {
			publics[a] = e.ID
		}
	}
	for id, e := range out.enis {
		if out.bad[id] != nil || e.In == "" {
			continue
		}
		if home, ok := out.enis[e.In]; !ok || home.In != "" || out.bad[e.In] != nil {
			out.bad[id] = fmt.Errorf("eni %s: %s, whose device it is, is not here", id, e.In)
		}
	}
	return out, nil
}

func checkVPC(v VPC, id func(kind, id string) bool) error {
	if len(v.CIDRs) == 0 {
		return fmt.Errorf("vpc %s has no CIDR", v.ID)
	}
	if !v.CIDRs[0].Addr().Is4() {
		return fmt.Errorf("vpc %s: the first CIDR, %s, is not IPv4", v.ID, v.CIDRs[0])
	}
	for _, p := range v.CIDRs {
		if p.Addr().Is4() && p.Bits() > 28 || p.Addr().Is6() && p.Bits() > 64 {
			return fmt.Errorf("vpc %s: CIDR %s is too small", v.ID, p)
		}
	}
	tables := map[string]bool{}
	for _, t := range v.RouteTables {
		if id("route table", t.ID) {
			tables[t.ID] = true
		}
	}
	for _, a := range v.ACLs {
		id("network acl", a.ID)
	}
	peers := map[string]bool{}
	for _, p := range v.Peers {
		if !idPattern.MatchString(p.ID) || peers[p.ID] || p.VPC == v.ID {
			return fmt.Errorf("vpc %s: peering %q is not valid", v.ID, p.ID)
		}
		peers[p.ID] = true
	}
	inside := func(s netip.Prefix) bool {
		return slices.ContainsFunc(v.CIDRs, func(p netip.Prefix) bool { return covers(p, s) })
	}
	for _, s := range v.Subnets {
		id("subnet", s.ID)
		if !s.CIDR.Addr().Is4() || s.CIDR.Bits() > 28 || !inside(s.CIDR) {
			return fmt.Errorf("subnet %s: CIDR %s is not inside vpc %s", s.ID, s.CIDR, v.ID)
		}
		if s.IPv6.IsValid() && (!s.IPv6.Addr().Is6() || !inside(s.IPv6)) {
			return fmt.Errorf("subnet %s: CIDR %s is not inside vpc %s", s.ID, s.IPv6, v.ID)
		}
		if !tables[s.RouteTable] {
			return fmt.Errorf("subnet %s: route table %s is not in vpc %s", s.ID, s.RouteTable, v.ID)
		}
	}
	return nil
}

// collisions reports ids whose shortened or hashed forms meet.
func collisions(c Config) error {
	links := map[string]string{}
	for _, v := range c.VPCs {
		name := uplinkName("0000", v.ID)
		if other := links[name]; other != "" && other != v.ID {
			return fmt.Errorf("vpcs %s and %s would share the link name %s", other, v.ID, name)
		}
		links[name] = v.ID
		tables := map[uint32]string{}
		for _, t := range v.RouteTables {
			n := tableNumber(t.ID)
			if other := tables[n]; other != "" && other != t.ID {
				return fmt.Errorf("route tables %s and %s would share the number %d", other, t.ID, n)
			}
			tables[n] = t.ID
		}
		ways := map[string]string{}
		for _, p := range v.Peers {
			name := peerName(p.ID)
			if other := ways[name]; other != "" {
				return fmt.Errorf("peerings %s and %s would share the link name %s", other, p.ID, name)
			}
			ways[name] = p.ID
		}
	}
	return nil
}

func checkENI(e ENI, vpcs map[string]VPC, groups map[string]SecurityGroup, pool netip.Prefix) error {
	v, ok := vpcs[e.VPC]
	if !ok {
		return fmt.Errorf("vpc %s is not here", e.VPC)
	}
	i := slices.IndexFunc(v.Subnets, func(s Subnet) bool { return s.ID == e.Subnet })
	if i < 0 {
		return fmt.Errorf("subnet %s is not in vpc %s", e.Subnet, e.VPC)
	}
	subnet := v.Subnets[i]
	seen := map[netip.Addr]bool{}
	for _, fam := range []family{ipv4, ipv6} {
		for _, a := range e.addresses(fam) {
			switch {
			case !fam.of(a) || !subnet.CIDR.Contains(a) && !subnet.IPv6.Contains(a):
				return fmt.Errorf("address %s is not in subnet %s", a, e.Subnet)
			case a == subnet.Router() || a == v.Resolver():
				return fmt.Errorf("address %s is reserved", a)
			case seen[a]:
				return fmt.Errorf("address %s is given twice", a)
			}
			seen[a] = true
		}
	}
	for _, a := range e.publics() {
		switch {
		case !pool.IsValid() || !pool.Contains(a):
			return fmt.Errorf("public address %s is not in the pool %s", a, pool)
		case a == pool.Masked().Addr():
			return fmt.Errorf("public address %s belongs to the machine", a)
		}
	}
	switch {
	case len(e.MAC) != 6 || e.MAC[0]&1 != 0:
		return fmt.Errorf("MAC %q is not a unicast ethernet address", e.MAC)
	case e.In == "" && e.Device != 0 || e.In != "" && (e.Device < 1 || e.Device > 99) || e.In == e.ID:
		return fmt.Errorf("it cannot be device %d of %q", e.Device, e.In)
	case e.Serves != "" && e.Serves != ServesNAT && e.Serves != ServesAPI || e.Serves != "" && e.In != "":
		return fmt.Errorf("it cannot serve %q", e.Serves)
	}
	for _, g := range e.Groups {
		switch sg, ok := groups[g]; {
		case !ok:
			return fmt.Errorf("security group %s is not here", g)
		case sg.VPC != e.VPC:
			return fmt.Errorf("security group %s belongs to %s", g, sg.VPC)
		}
	}
	return nil
}

func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
