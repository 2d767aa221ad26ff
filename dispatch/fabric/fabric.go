// Package fabric is the language between a server and a node: what the node
// must make true, and what the node says of it. It holds shapes only, so that
// the node does not import the server's packages.
//
// The stream is a websocket of JSON text frames. The node opens it, says
// [Hello], and gets a [Desired] with Full set: the complete state. After that
// each Desired is a difference: objects to put, keys to drop. A node that lost
// the stream opens it again and gets the complete state again; what it has and
// the state does not name, it removes. The node answers with [Report]s.
package fabric

import (
	"net/netip"
	"time"
)

// Path is where the server answers the stream.
const Path = "/node/stream"

// Hello is the node's first frame.
type Hello struct {
	Name   string `json:"name"`
	Zone   string `json:"zone,omitempty"` // "" plays every zone
	CPU    int    `json:"cpu"`            // CPU units, 1024 a core
	Memory int    `json:"memory"`         // MiB
}

// Desired is a frame from the server.
type Desired struct {
	Revision int64 `json:"revision"`
	Full     bool  `json:"full,omitempty"`

	VPCs       []VPC           `json:"vpcs,omitempty"`
	Groups     []SecurityGroup `json:"groups,omitempty"`
	Interfaces []Interface     `json:"interfaces,omitempty"`

	GoneVPCs       []string `json:"goneVpcs,omitempty"`
	GoneGroups     []string `json:"goneGroups,omitempty"`
	GoneInterfaces []string `json:"goneInterfaces,omitempty"`

	Region *Region `json:"region,omitempty"` // in the first frame, and when it changes
	Agent  *Agent  `json:"agent,omitempty"`  // in the first frame, and when credentials are renewed
}

// Region says what the node needs to know of the region it serves.
type Region struct {
	Name       string       `json:"name"`
	Account    string       `json:"account"`
	ShortID    string       `json:"shortId"`
	PublicPool netip.Prefix `json:"publicPool"`
	Endpoint   string       `json:"endpoint"` // base URL of the API on this machine
}

// Agent is what the node's hidden agent runs with.
type Agent struct {
	Cluster           string      `json:"cluster"`
	ContainerInstance string      `json:"containerInstance"` // ARN
	Credentials       Credentials `json:"credentials"`
}

// Credentials are session credentials of the node's role.
type Credentials struct {
	AccessKeyID     string    `json:"AccessKeyId"`
	SecretAccessKey string    `json:"SecretAccessKey"`
	Token           string    `json:"Token"`
	Expiration      time.Time `json:"Expiration"`
}

// VPC is a virtual network with its subnets and routes.
type VPC struct {
	ID          string         `json:"id"`
	CIDRs       []netip.Prefix `json:"cidrs"`
	DNSSupport  bool           `json:"dnsSupport"`
	Subnets     []Subnet       `json:"subnets"`
	RouteTables []RouteTable   `json:"routeTables"`
}

// Subnet is a range of a VPC.
type Subnet struct {
	ID         string       `json:"id"`
	CIDR       netip.Prefix `json:"cidr"`
	RouteTable string       `json:"routeTable"` // the effective one: its own, or the VPC's main table
}

// RouteTable lists routes beside the local ones.
type RouteTable struct {
	ID     string  `json:"id"`
	Routes []Route `json:"routes"`
}

// Route kinds.
const (
	RouteInternetGateway = "internet-gateway"
	RouteBlackhole       = "blackhole"
)

// Route sends a destination somewhere.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Kind        string       `json:"kind"`
}

// SecurityGroup is a group's rules.
type SecurityGroup struct {
	ID      string `json:"id"`
	VPC     string `json:"vpc"`
	Ingress []Rule `json:"ingress"`
	Egress  []Rule `json:"egress"`
}

// Rule allows a protocol between ports from (or to) prefixes and members of groups.
type Rule struct {
	Protocol int            `json:"protocol"` // IP protocol number, -1 all
	From     int            `json:"from"`     // port or ICMP type, -1 any
	To       int            `json:"to"`       // port or ICMP code, -1 any
	CIDRs    []netip.Prefix `json:"cidrs,omitempty"`
	Groups   []string       `json:"groups,omitempty"`
}

// Interface is an ENI. Here says whether it is this node's to attach; the
// others are sent because groups refer to their addresses and names.
type Interface struct {
	ID              string     `json:"id"`
	VPC             string     `json:"vpc"`
	Subnet          string     `json:"subnet"`
	MAC             string     `json:"mac"`
	Address         netip.Addr `json:"address"`
	Public          netip.Addr `json:"public,omitzero"`
	Groups          []string   `json:"groups"`
	SourceDestCheck bool       `json:"sourceDestCheck"`
	Hostname        string     `json:"hostname"` // private DNS name
	Here            bool       `json:"here"`
}

// Report is a frame from the node: what became of its interfaces since the
// last report. After a new stream the first report names every interface the
// node has.
type Report struct {
	Interfaces []InterfaceStatus `json:"interfaces"`
}

// InterfaceStatus says what is so of one interface.
type InterfaceStatus struct {
	ID       string `json:"id"`
	Attached bool   `json:"attached"`          // in the kernel, groups enforced
	Removed  bool   `json:"removed,omitempty"` // nothing of it is left in the kernel
	Error    string `json:"error,omitempty"`
}
