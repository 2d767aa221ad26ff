package state

import (
	"net/netip"
	"time"

	"github.com/berth-run/berth/store"
)

// ElasticIP is an address of the public pool that an account keeps. What it
// is associated with is in the interface's row: see [NetworkInterface].
type ElasticIP struct {
	ID, Account string // eipalloc-…
	Address     netip.Addr
	Association string // eipassoc-…, "" while it is free
	ENI         string // "" while it is free
	Private     netip.Addr
	Reverse     string // domain name that its owner wants for it
	Tags        []Tag
	CreatedAt   time.Time
}

// ElasticIPs is keyed by allocation id.
var ElasticIPs = store.NewTable("eip", func(e *ElasticIP) string { return e.ID },
	store.Index("account", func(e *ElasticIP) []string { return []string{e.Account} }),
	store.Index("eni", func(e *ElasticIP) []string { return some(e.ENI) }),
	store.Index("address", func(e *ElasticIP) []string { return []string{e.Address.String()} }))

// NATGateway translates what private subnets send. It has an interface of its
// own (Owner is its id), with a namespace on a node that forwards and
// masquerades.
type NATGateway struct {
	ID, Account, VPC, Subnet string
	Public                   bool   // connectivity type public, else private
	State                    string // pending, failed, available, deleting, deleted
	FailureCode, Failure     string
	ENI                      string
	Addresses                []NATAddress // the first is the primary one; they stay shown when the interface is gone
	ClientToken              string
	Tags                     []Tag
	CreatedAt, DeletedAt     time.Time
}

// NATAddress is an address of a NAT gateway.
type NATAddress struct {
	Private                 netip.Addr
	Public                  netip.Addr // invalid: none
	Allocation, Association string     // of Public
}

// NATGateways is keyed by id. A deleted one stays about an hour, as AWS shows it.
var NATGateways = store.NewTable("nat", func(n *NATGateway) string { return n.ID },
	store.Index("vpc", func(n *NATGateway) []string { return []string{n.VPC} }),
	store.Index("subnet", func(n *NATGateway) []string { return []string{n.Subnet} }))

// EgressOnlyGateway lets IPv6 out and only replies in.
type EgressOnlyGateway struct {
	ID, Account, VPC string // eigw-…
	ClientToken      string
	Tags             []Tag
	CreatedAt        time.Time
}

// EgressOnlyGateways is keyed by id.
var EgressOnlyGateways = store.NewTable("eigw", func(g *EgressOnlyGateway) string { return g.ID },
	store.Index("vpc", func(g *EgressOnlyGateway) []string { return []string{g.VPC} }))

// Peering joins two VPCs.
type Peering struct {
	ID                   string // pcx-…
	Account, VPC         string // of the requester
	PeerAccount, PeerVPC string // of the accepter
	Status, Message      string // pending-acceptance, active, rejected, deleted, expired, failed
	RequesterDNS         bool   // options: resolve names of the other side to private addresses
	AccepterDNS          bool
	Tags                 []Tag
	PeerTags             []Tag `json:",omitempty"` // that the accepter has given it
	CreatedAt, EndedAt   time.Time
}

// PeeringLife is how long a request for peering may be accepted.
const PeeringLife = 7 * 24 * time.Hour

// Now is the connection's status at a time: a request that nobody has accepted
// in time has expired.
func (p *Peering) Now(t time.Time) string {
	if p.Status == "pending-acceptance" && !t.Before(p.CreatedAt.Add(PeeringLife)) {
		return "expired"
	}
	return p.Status
}

// Peerings is keyed by id.
var Peerings = store.NewTable("pcx", func(p *Peering) string { return p.ID },
	store.Index("vpc", func(p *Peering) []string { return []string{p.VPC, p.PeerVPC} }))

// PrefixList is a managed list of prefixes that rules and routes may name.
type PrefixList struct {
	ID, Account, Name string // pl-…
	Family            string // IPv4 or IPv6
	MaxEntries        int
	Version           int
	Versions          []PrefixListVersion // the last is the current one
	State             string              // create-complete, modify-complete, restore-complete
	ClientToken       string              `json:",omitempty"` // of CreateManagedPrefixList
	Tags              []Tag
	CreatedAt         time.Time
}

// PrefixListVersion is what a list held at a version.
type PrefixListVersion struct {
	Version int
	Entries []PrefixListEntry
}

// PrefixListEntry is one prefix of a list.
type PrefixListEntry struct {
	CIDR        netip.Prefix
	Description string
}

// Entries are the current entries of the list.
func (p *PrefixList) Entries() []PrefixListEntry {
	if len(p.Versions) == 0 {
		return nil
	}
	return p.Versions[len(p.Versions)-1].Entries
}

// PrefixLists is keyed by id.
var PrefixLists = store.NewTable("pl", func(p *PrefixList) string { return p.ID },
	store.Index("account", func(p *PrefixList) []string { return []string{p.Account} }))

// Endpoint is a VPC's own way to a service of the region. One of type
// Interface has an interface in each of its subnets (Owner is the endpoint's
// id), on which the region's API answers; a Gateway one is a route.
type Endpoint struct {
	ID, Account, VPC string // vpce-…
	Service          string // com.amazonaws.us-east-1.ecs
	Type             string // Interface, Gateway
	State            string // pending, available, deleting, deleted
	Policy           string
	Subnets, Groups  []string
	RouteTables      []string
	PrivateDNS       bool
	AddressType      string // ipv4
	ClientToken      string `json:",omitempty"`
	Failure          string // why it failed
	Tags             []Tag
	CreatedAt        time.Time
}

// Endpoints is keyed by id.
var Endpoints = store.NewTable("vpce", func(e *Endpoint) string { return e.ID },
	store.Index("vpc", func(e *Endpoint) []string { return []string{e.VPC} }))

// FlowLog records the flows of a VPC, a subnet or an interface.
type FlowLog struct {
	ID, Account string // fl-…
	Resource    string // vpc-…, subnet-…, eni-…
	Traffic     string // ACCEPT, REJECT, ALL
	LogGroup    string
	Role        string // ARN of the role that may deliver
	Format      string // "" is the default format
	Interval    int    // seconds: 60 or 600
	Deliver     string // SUCCESS or FAILED, as the last delivery went
	DeliverErr  string
	ClientToken string `json:",omitempty"`
	Tags        []Tag
	CreatedAt   time.Time
}

// FlowLogs is keyed by id.
var FlowLogs = store.NewTable("fl", func(f *FlowLog) string { return f.ID },
	store.Index("resource", func(f *FlowLog) []string { return []string{f.Resource} }))
