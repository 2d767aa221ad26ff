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

	Instances []Instance `json:"instances,omitempty"` // of this node

	// Sessions are terminals that somebody waits for. Each is named once on a
	// stream: it lasts as long as the node's connection for it ([SessionPath]).
	Sessions []Session `json:"sessions,omitempty"`

	GoneInstances  []string `json:"goneInstances,omitempty"`
	GoneVPCs       []string `json:"goneVpcs,omitempty"`
	GoneGroups     []string `json:"goneGroups,omitempty"`
	GoneInterfaces []string `json:"goneInterfaces,omitempty"`

	Region *Region `json:"region,omitempty"` // in the first frame, and when it changes
	Agent  *Agent  `json:"agent,omitempty"`  // in the first frame, and when credentials are renewed
}

// SessionPath and a session's id is where the node brings its terminal: a
// websocket of which binary frames are what the terminal says, and what is
// typed, and text frames are [TerminalFrame]s. When it ends, so does what runs.
const SessionPath = "/node/session/"

// Session is a terminal in an instance, or in a container of a task.
type Session struct {
	ID        string   `json:"id"`
	Instance  string   `json:"instance,omitempty"`  // i-…, "" for tasks on Fargate
	Container string   `json:"container,omitempty"` // id in the runtime; "" is the instance itself
	Command   []string `json:"command,omitempty"`   // none: a shell
}

// TerminalFrame is what else there is to say of a terminal: its size to the
// node, or to the server how it ended. That is the last frame.
type TerminalFrame struct {
	Columns uint16 `json:"columns,omitempty"`
	Rows    uint16 `json:"rows,omitempty"`
	Exit    *int   `json:"exit,omitempty"`
	Error   string `json:"error,omitempty"` // it could not begin
}

// Region says what the node needs to know of the region it serves.
type Region struct {
	Name       string       `json:"name"`
	Account    string       `json:"account"`
	ShortID    string       `json:"shortId"`
	PublicPool netip.Prefix `json:"publicPool"`
	Endpoint   string       `json:"endpoint"` // base URL of the API on this machine
	// CA is the certificate of the region's authority, as PEM: the roots that
	// nodes make trust it.
	CA string `json:"ca,omitempty"`
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
	CIDRs       []netip.Prefix `json:"cidrs"` // IPv4 first, the primary one at the head, then IPv6
	DNSSupport  bool           `json:"dnsSupport"`
	Subnets     []Subnet       `json:"subnets"`
	RouteTables []RouteTable   `json:"routeTables"`
	ACLs        []NetworkACL   `json:"acls,omitempty"` // those that are not as AWS makes the default one
	Peers       []Peer         `json:"peers,omitempty"`
	// Names are further names that its resolver answers: those of endpoints.
	Names map[string][]netip.Addr `json:"names,omitempty"`
	// Domain is the domain-name of its DHCP options, "" if they have none:
	// what containers and instances search.
	Domain string `json:"domain,omitempty"`
	// Nameservers are the domain-name-servers of its DHCP options where they
	// are not AmazonProvidedDNS.
	Nameservers []netip.Addr `json:"nameservers,omitempty"`
}

// Peer is a VPC with which there is an active peering connection.
type Peer struct {
	ID    string         `json:"id"` // pcx-…
	VPC   string         `json:"vpc"`
	CIDRs []netip.Prefix `json:"cidrs"`
	DNS   bool           `json:"dns,omitempty"` // names of the peer resolve to private addresses
}

// NetworkACL is a stateless filter at the edge of subnets. What no entry
// matches is denied.
type NetworkACL struct {
	ID      string     `json:"id"`
	Entries []ACLEntry `json:"entries"` // in the order of their numbers
}

// ACLEntry allows or denies a protocol between ports from (or to) a prefix.
type ACLEntry struct {
	Egress   bool         `json:"egress,omitempty"`
	Allow    bool         `json:"allow,omitempty"`
	Protocol int          `json:"protocol"` // IP protocol number, -1 all
	From     int          `json:"from"`     // port or ICMP type, -1 any
	To       int          `json:"to"`       // port or ICMP code, -1 any
	CIDR     netip.Prefix `json:"cidr"`
}

// Subnet is a range of a VPC.
type Subnet struct {
	ID         string       `json:"id"`
	CIDR       netip.Prefix `json:"cidr"`
	IPv6       netip.Prefix `json:"ipv6,omitzero"`
	RouteTable string       `json:"routeTable"`    // the effective one: its own, or the VPC's main table
	ACL        string       `json:"acl,omitempty"` // "" allows all
}

// RouteTable lists routes beside the local ones.
type RouteTable struct {
	ID     string  `json:"id"`
	Routes []Route `json:"routes"`
}

// Route kinds.
const (
	RouteInternetGateway = "internet-gateway"
	RouteEgressOnly      = "egress-only-internet-gateway" // IPv6, only replies come in
	RouteInterface       = "interface"                    // Target is an ENI: an instance, or a NAT gateway's own
	RoutePeering         = "peering"                      // Target is a pcx-… of the VPC's Peers
	RouteBlackhole       = "blackhole"
)

// Route sends a destination somewhere.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Kind        string       `json:"kind"`
	Target      string       `json:"target,omitempty"`
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
	ID        string       `json:"id"`
	VPC       string       `json:"vpc"`
	Subnet    string       `json:"subnet"`
	MAC       string       `json:"mac"`
	Address   netip.Addr   `json:"address"`
	Public    netip.Addr   `json:"public,omitzero"`
	Secondary []Address    `json:"secondary,omitempty"`
	IPv6      []netip.Addr `json:"ipv6,omitempty"`
	// In is the interface whose namespace this one is a device of, and Device
	// its number there: eth<Device>. "" is a namespace of its own, eth0.
	In     string `json:"in,omitempty"`
	Device int    `json:"device,omitempty"`
	// Serves is what the namespace itself does with packets: "" nothing,
	// ServesNAT forwards and masquerades, ServesAPI hands connections to the
	// region's API.
	Serves string `json:"serves,omitempty"`
	// FlowLog says that flows of it are to be counted and reported.
	FlowLog         bool     `json:"flowLog,omitempty"`
	Groups          []string `json:"groups"`
	SourceDestCheck bool     `json:"sourceDestCheck"`
	Hostname        string   `json:"hostname"` // private DNS name
	Here            bool     `json:"here"`
}

// What the namespace of an interface does by itself.
const (
	ServesNAT = "nat"
	ServesAPI = "api"
)

// Address is a further private address of an interface.
type Address struct {
	Private netip.Addr `json:"private"`
	Public  netip.Addr `json:"public,omitzero"`
}

// Instance is an EC2 instance of this node. Its network namespace is that of
// its Interface.
type Instance struct {
	ID        string `json:"id"`
	Interface string `json:"interface"` // device 0
	Hostname  string `json:"hostname"`
	// Address is the primary address of its interface. Nameservers and Search
	// are what its resolver is set to at each boot.
	Address     netip.Addr `json:"address,omitzero"`
	Nameservers []string   `json:"nameservers,omitempty"`
	Search      []string   `json:"search,omitempty"`
	CPU         int        `json:"cpu"`    // CPU units, 1024 a vCPU: the most it gets
	Memory      int        `json:"memory"` // MiB: the most it gets
	// Registered is the memory in MiB that its agent registers.
	Registered int `json:"registered,omitempty"`
	// Root is the OCI image it boots from, with the digest of its manifest;
	// "" is the one the node makes itself.
	Root string `json:"root,omitempty"`
	// RootPassword is good for pulling from Root's repository, and for nothing
	// else. It is there until the first boot.
	RootPassword string `json:"rootPassword,omitempty"`
	// Run says whether it is to run; Boots counts how often it is to have been
	// booted: a node that booted it less often boots it (again).
	Run   bool `json:"run"`
	Boots int  `json:"boots"`
	// UserData is run at the first boot.
	UserData []byte `json:"userData,omitempty"`
	// Agent says that an ECS agent runs beside it, which registers it with
	// these attributes and knows these tags of it.
	Agent      bool              `json:"agent,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	// Metadata is what its metadata service answers.
	Metadata InstanceMetadata `json:"metadata"`
	// Credentials are those of its profile's role, renewed before they end.
	Credentials *RoleCredentials `json:"credentials,omitempty"`
}

// InstanceMetadata is the content of an instance's metadata service. Paths are
// below /latest/, without it: "meta-data/instance-id". One that ends in a slash
// is what the listing of that folder says, where its names do not.
type InstanceMetadata struct {
	Enabled       bool              `json:"enabled"`
	TokenRequired bool              `json:"tokenRequired,omitempty"`
	HopLimit      int               `json:"hopLimit,omitempty"`
	Paths         map[string]string `json:"paths,omitempty"`
}

// RoleCredentials are credentials with the role's name and profile.
type RoleCredentials struct {
	Role      string    `json:"role"`
	Profile   string    `json:"profile"` // ARN
	ProfileID string    `json:"profileId,omitempty"`
	Updated   time.Time `json:"updated,omitzero"` // when they were made
	Credentials
}

// InstanceStatus says what is so of one instance.
type InstanceStatus struct {
	ID    string `json:"id"`
	State string `json:"state"` // running, stopped, gone
	Boots int    `json:"boots"` // the boot that runs, or ran last
	// Ended says why it stopped by itself: EndedInside, EndedCrash or
	// EndedRootless; "" if the server wanted it so.
	Ended string `json:"ended,omitempty"`
	Error string `json:"error,omitempty"`
	// Console is the end of what was written to the console, if that has changed.
	Console   string    `json:"console,omitempty"`
	ConsoleAt time.Time `json:"consoleAt,omitzero"`
}

// States of an instance on its node.
const (
	InstanceRunning = "running"
	InstanceStopped = "stopped"
	InstanceGone    = "gone" // nothing of it is left
)

// Why an instance stopped by itself.
const (
	EndedInside = "inside" // somebody in it shut it down
	EndedCrash  = "crash"  // its first process ended as it never should
	// EndedRootless: it never began, for the image of its root is not there any more.
	EndedRootless = "rootless"
)

// Report is a frame from the node: what became of its interfaces since the
// last report. After a new stream the first report names every interface the
// node has.
type Report struct {
	Interfaces []InterfaceStatus `json:"interfaces"`
	Instances  []InstanceStatus  `json:"instances,omitempty"`
	Flows      []FlowWindow      `json:"flows,omitempty"`
}

// FlowWindow is what went over the interfaces with FlowLog in one span of time.
// A node closes a window each minute, on the minute. An interface that is in
// Interfaces and in no record had no traffic (NODATA).
type FlowWindow struct {
	Start      time.Time `json:"start"`
	End        time.Time `json:"end"`
	Interfaces []string  `json:"interfaces"`        // that were counted; sorted
	Skipped    []string  `json:"skipped,omitempty"` // of which there was more than could be kept (SKIPDATA); sorted
	Records    []Flow    `json:"records,omitempty"`
}

// Flow is one flow over one interface in one direction. Src and Dst are as the
// interface sees them, with its own private address on one side; PktSrc and
// PktDst are the packet's own ends, which differ where a gateway stands between.
type Flow struct {
	Interface    string     `json:"interface"`
	Egress       bool       `json:"egress,omitempty"`
	Src          netip.Addr `json:"src"`
	Dst          netip.Addr `json:"dst"`
	SrcPort      uint16     `json:"srcPort,omitempty"` // 0 for protocols without
	DstPort      uint16     `json:"dstPort,omitempty"`
	Protocol     uint8      `json:"protocol"`
	Packets      int64      `json:"packets"`
	Bytes        int64      `json:"bytes"` // of the IP packets
	Start        time.Time  `json:"start"` // first packet in the window
	End          time.Time  `json:"end"`   // last packet in the window
	Action       string     `json:"action"`
	RejectReason string     `json:"rejectReason,omitempty"` // of FlowReject: RejectBySecurityGroup, RejectByACL
	TCPFlags     uint8      `json:"tcpFlags,omitempty"`     // FIN 1, SYN 2, RST 4, SYN-ACK 18, ORed
	PktSrc       netip.Addr `json:"pktSrc"`
	PktDst       netip.Addr `json:"pktDst"`
}

// Actions of flows, and why one was rejected.
const (
	FlowAccept = "ACCEPT"
	FlowReject = "REJECT"

	RejectBySecurityGroup = "SG"
	RejectByACL           = "NACL"
)

// InterfaceStatus says what is so of one interface.
type InterfaceStatus struct {
	ID       string `json:"id"`
	Attached bool   `json:"attached"`          // in the kernel, groups enforced
	Removed  bool   `json:"removed,omitempty"` // nothing of it is left in the kernel
	Error    string `json:"error,omitempty"`
}
