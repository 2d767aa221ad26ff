package state

import (
	"net/netip"
	"time"

	"github.com/berth-run/berth/store"
)

// VPC is a virtual network.
type VPC struct {
	ID, Account              string
	CIDRs                    []netip.Prefix // IPv4; the first is the primary one
	CIDRAssociations         []string       // vpc-cidr-assoc-…, one for each of CIDRs
	IPv6                     []IPv6Block
	Default                  bool
	Tenancy                  string // default or dedicated
	DNSSupport, DNSHostnames bool
	DHCPOptions              string // "" is no set at all: AWS's name for that is default
	AddressMetrics           bool   // enableNetworkAddressUsageMetrics
	Tags                     []Tag
	CreatedAt                time.Time
}

// IPv6Block is an IPv6 range that is associated with a VPC or subnet.
type IPv6Block struct {
	CIDR        netip.Prefix
	Association string // vpc-cidr-assoc-… or subnet-cidr-assoc-…
}

// VPCs is keyed by id.
var VPCs = store.NewTable("vpc", func(v *VPC) string { return v.ID },
	store.Index("account", func(v *VPC) []string { return []string{v.Account} }))

// Subnet is a range of a VPC in one zone.
type Subnet struct {
	ID, Account, VPC    string
	CIDR                netip.Prefix
	Zone                string
	IPv6                []IPv6Block // one at most
	MapPublicIPOnLaunch bool
	AssignIPv6          bool   // to interfaces, as they are made
	HostnameType        string // ip-name (also "") or resource-name
	RecordA, RecordAAAA bool   // DNS records for resource names
	NetworkACL          string // "" until one is chosen: the VPC's default one
	ACLAssociation      string // aclassoc-…
	DefaultForZone      bool
	RouteTable          string // explicit association, "" follows the VPC's main table
	Association         string // id of that association
	Tags                []Tag
	CreatedAt           time.Time
}

// Subnets is keyed by id.
var Subnets = store.NewTable("subnet", func(s *Subnet) string { return s.ID },
	store.Index("vpc", func(s *Subnet) []string { return []string{s.VPC} }))

// RouteTable routes what leaves the subnets associated with it.
type RouteTable struct {
	ID, Account, VPC string
	Main             bool
	MainAssociation  string
	Routes           []Route // without the local routes, which follow the VPC's CIDRs
	ClientToken      string
	Tags             []Tag
	CreatedAt        time.Time
}

// Route sends a destination to a gateway. Target is an id: igw-…, eigw-…,
// nat-…, eni-…, pcx-…, vpce-…. Whether it is a blackhole is read from the
// target: a route does not know.
type Route struct {
	Destination netip.Prefix // invalid if PrefixList is set
	PrefixList  string
	Target      string
	Origin      string // CreateRoute
}

// RouteTables is keyed by id.
var RouteTables = store.NewTable("rtb", func(r *RouteTable) string { return r.ID },
	store.Index("vpc", func(r *RouteTable) []string { return []string{r.VPC} }))

// InternetGateway gives a VPC's public addresses their way out and in.
type InternetGateway struct {
	ID, Account, VPC string // VPC "" while detached
	Tags             []Tag
	CreatedAt        time.Time
}

// InternetGateways is keyed by id.
var InternetGateways = store.NewTable("igw", func(g *InternetGateway) string { return g.ID },
	store.Index("vpc", func(g *InternetGateway) []string { return some(g.VPC) }))

// SecurityGroup is a set of allow rules and the interfaces that carry it.
type SecurityGroup struct {
	ID, Account, VPC  string
	Name, Description string
	Rules             []SecurityGroupRule
	Tags              []Tag
	CreatedAt         time.Time
}

// SecurityGroupRule is one rule; exactly one of CIDR, Group, PrefixList is set.
type SecurityGroupRule struct {
	ID          string // sgr-…
	Egress      bool
	Protocol    string       // tcp, udp, icmp, icmpv6, a number, or -1
	From, To    int          // ports, or ICMP type and code; -1 for all
	CIDR        netip.Prefix // IPv4 or IPv6
	Group       string       // of this VPC or of a peer
	GroupOwner  string       `json:",omitempty"` // account of Group, "" if it is the rule's own
	PrefixList  string
	Description string
	Tags        []Tag
}

// SecurityGroups is keyed by id.
var SecurityGroups = store.NewTable("sg", func(g *SecurityGroup) string { return g.ID },
	store.Index("vpc", func(g *SecurityGroup) []string { return []string{g.VPC} }),
	store.Index("account", func(g *SecurityGroup) []string { return []string{g.Account} }),
	store.Index("references", func(g *SecurityGroup) []string {
		var ids []string
		for _, r := range g.Rules {
			if r.Group != "" && r.Group != g.ID {
				ids = append(ids, r.Group)
			}
		}
		return ids
	}))

// NetworkInterface is an ENI. A row exists from the moment its address is taken
// until the node has said that nothing of it is left in the kernel.
type NetworkInterface struct {
	ID, Account, VPC, Subnet, Zone string
	Address                        netip.Addr // the primary private IPv4 address
	Public                         netip.Addr // invalid: none
	Allocation                     string     // eipalloc-… of Public, "" if it is a passing one
	Secondary                      []SecondaryAddress
	IPv6                           []netip.Addr
	MAC                            string
	Groups                         []string
	Description                    string
	SourceDestCheck                bool
	RequesterManaged               bool
	Type                           string               // interface, trunk, branch, nat_gateway, vpc_endpoint
	Node                           string               // "" until it is placed on a machine
	Task                           string               // ARN of the task it belongs to
	Owner                          string               // id of the NAT gateway or endpoint it belongs to
	AttachmentID                   string               // eni-attach-…
	Attachment                     *InterfaceAttachment // to an instance
	PrivateDNSName                 string
	Tracking                       *ConnectionTracking `json:",omitempty"`
	ClientToken                    string              `json:",omitempty"` // of CreateNetworkInterface
	Tags                           []Tag
	CreatedAt                      time.Time

	Attached bool   // the node has it in the kernel, groups enforced
	Failure  string // why the node could not attach it
	Deleting bool   // the node must remove it
	Removed  bool   // the node has nothing of it left: address and row go
}

// SecondaryAddress is a further private IPv4 address of an interface.
type SecondaryAddress struct {
	Address    netip.Addr
	Public     netip.Addr // invalid: none
	Allocation string     // eipalloc-… of Public
}

// InterfaceAttachment joins an interface to an instance: in the kernel it is a
// device in the instance's network namespace, that of its device 0.
type InterfaceAttachment struct {
	Instance            string // i-…
	Device              int    // 0 is eth0
	DeleteOnTermination bool
	AttachedAt          time.Time
	// Detaching: the node must take the interface out of its kernel. Once it
	// says that nothing is left, the interface is free, with its addresses.
	Detaching bool `json:",omitempty"`
}

// ConnectionTracking are the idle times of an interface, in seconds; 0 is the default one.
type ConnectionTracking struct {
	TCP, UDPStream, UDP int
}

// Leaving reports whether the node must have nothing of the interface any more.
func (e *NetworkInterface) Leaving() bool {
	return e.Deleting || e.Attachment != nil && e.Attachment.Detaching
}

// Left is the row after the node said that nothing of the interface is left: one
// that is to be deleted goes, one that is detached is free.
func (e *NetworkInterface) Left() *NetworkInterface {
	n := *e
	n.Attached = false
	// Only what was asked to go may be gone for good.
	n.Removed = e.Deleting
	if !e.Deleting && e.Leaving() {
		n.Attachment, n.AttachmentID, n.Node = nil, "", ""
	}
	return &n
}

// NetworkInterfaces is keyed by id.
var NetworkInterfaces = store.NewTable("eni", func(e *NetworkInterface) string { return e.ID },
	store.Index("subnet", func(e *NetworkInterface) []string { return []string{e.Subnet} }),
	store.Index("vpc", func(e *NetworkInterface) []string { return []string{e.VPC} }),
	store.Index("node", func(e *NetworkInterface) []string { return some(e.Node) }),
	store.Index("group", func(e *NetworkInterface) []string { return e.Groups }),
	store.Index("owner", func(e *NetworkInterface) []string { return some(e.Owner) }),
	store.Index("instance", func(e *NetworkInterface) []string {
		if e.Attachment == nil {
			return nil
		}
		return []string{e.Attachment.Instance}
	}),
	store.Index("address", func(e *NetworkInterface) []string { return []string{e.Subnet + "/" + e.Address.String()} }),
	store.Index("public", func(e *NetworkInterface) []string {
		if !e.Public.IsValid() {
			return nil
		}
		return []string{e.Public.String()}
	}))

// AddressLease makes an address unique: the key is the subnet (or "public")
// and the address, so two writers can never hand out the same one.
type AddressLease struct {
	Scope   string // subnet id, or one of those below
	Address netip.Addr
	ENI     string // the interface it goes with, or
	Owner   string `json:",omitempty"` // eipalloc-… or vpc-…: it stays when no interface has it
}

// Scopes of what is no subnet's.
const (
	PublicScope = "public" // the region's public addresses
	IPv6Scope   = "ipv6"   // base addresses of the IPv6 ranges of VPCs, whose Owner is the VPC
)

// AddressLeases is keyed by scope/address.
var AddressLeases = store.NewTable("lease", func(l *AddressLease) string { return LeaseKey(l.Scope, l.Address) },
	store.Index("scope", func(l *AddressLease) []string { return []string{l.Scope} }))

// NetworkACL is a subnet's stateless filter.
type NetworkACL struct {
	ID, Account, VPC string
	Default          bool
	Entries          []ACLEntry // without the last one, *, that denies; in the order of direction and number
	ClientToken      string     `json:",omitempty"` // of CreateNetworkAcl
	Tags             []Tag
	CreatedAt        time.Time
}

// ACLEntry is one numbered rule.
type ACLEntry struct {
	Number   int // 1 to 32766
	Egress   bool
	Allow    bool
	Protocol int // IP protocol number, -1 all
	From, To int // ports, or ICMP type and code; -1 for all
	CIDR     netip.Prefix
}

// NetworkACLs is keyed by id.
var NetworkACLs = store.NewTable("acl", func(a *NetworkACL) string { return a.ID },
	store.Index("vpc", func(a *NetworkACL) []string { return []string{a.VPC} }))

// DHCPOptions is a DHCP option set.
type DHCPOptions struct {
	ID, Account string
	Default     bool // what the account began with: new VPCs have it
	Values      []DHCPValue
	Tags        []Tag
}

// DHCPValue is one option of a set.
type DHCPValue struct {
	Name   string
	Values []string
}

// DHCPOptionSets is keyed by id.
var DHCPOptionSets = store.NewTable("dhcp", func(d *DHCPOptions) string { return d.ID })

// GroupName makes a group's name unique in its VPC.
type GroupName struct{ VPC, Name, Group string }

// GroupNames is keyed by vpc/name.
var GroupNames = store.NewTable("sgname", func(n *GroupName) string { return n.VPC + "/" + n.Name })

// OpenACL are the entries that AWS gives the default ACL of a VPC: all may pass.
func OpenACL(six bool) (es []ACLEntry) {
	for _, egress := range []bool{false, true} {
		es = append(es, ACLEntry{Number: 100, Egress: egress, Allow: true, Protocol: -1, From: -1, To: -1, CIDR: netip.PrefixFrom(netip.IPv4Unspecified(), 0)})
		if six {
			es = append(es, ACLEntry{Number: 101, Egress: egress, Allow: true, Protocol: -1, From: -1, To: -1, CIDR: netip.PrefixFrom(netip.IPv6Unspecified(), 0)})
		}
	}
	return es
}

// Numbered are the ACL's entries. A default ACL that nobody has changed has no
// entries in its row: it is open.
func (a *NetworkACL) Numbered() []ACLEntry {
	if a.Default && a.Entries == nil {
		return OpenACL(true)
	}
	return a.Entries
}
