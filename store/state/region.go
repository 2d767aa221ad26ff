package state

import (
	"net/netip"
	"time"

	"github.com/berth-run/berth/store"
)

// Region is the one row that says which region this store holds.
type Region struct {
	Name       string       // us-east-1
	Account    string       // the account that bootstrap made, 12 digits
	ShortID    string       // prefix of everything the region owns in a kernel, 6 hex digits
	PublicPool netip.Prefix // addresses that the internet gateway hands out
	IPv6Pool   netip.Prefix // /32 of which VPCs get their /56
	Zones      []Zone
	CreatedAt  time.Time
}

// Zone is an availability zone.
type Zone struct {
	Name string // us-east-1a
	ID   string // use1-az1
}

// RegionKey is the key of the only row of Regions.
const RegionKey = "region"

// Regions holds the one Region.
var Regions = store.NewTable("region", func(*Region) string { return RegionKey })

// Tag is one tag of any resource, in the order it was given.
type Tag struct{ Key, Value string }

// Node is a machine that runs tasks. The row is written when the machine joins.
type Node struct {
	Name     string
	Zone     string // "" for a lone machine: it plays every zone
	CPU      int    // CPU units, 1024 a core
	Memory   int    // MiB
	Instance string // ARN of its hidden Fargate container instance
	JoinedAt time.Time
}

// Nodes holds the machines of the region.
var Nodes = store.NewTable("node", func(n *Node) string { return n.Name })
