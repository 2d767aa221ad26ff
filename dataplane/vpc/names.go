package vpc

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"regexp"
)

const (
	// uplinkInner is the VPC's end of the veth pair to the machine.
	uplinkInner = "uplink"
	// peerPrefix starts the name of the way to another VPC.
	peerPrefix = "p"
	// vpcTable is the nftables table inside a VPC's namespace.
	vpcTable = "berth"
)

var awsID = regexp.MustCompile(`^[a-z]+-[0-9a-f]{12,}$`)

// linkName is the name of an ENI's outer end: "e" and the last twelve digits of its id, so that a person with tcpdump
// finds it. Links have at most 15 characters.
func linkName(eniID string) string {
	if awsID.MatchString(eniID) {
		return "e" + eniID[len(eniID)-12:]
	}
	return "e" + digest(eniID, 12)
}

// peerName is the name of both ends of the way between two VPCs.
func peerName(id string) string {
	if awsID.MatchString(id) {
		return peerPrefix + id[len(id)-12:]
	}
	return peerPrefix + digest(id, 12)
}

// deviceName is the name of an ENI inside its namespace.
func deviceName(n int) string { return fmt.Sprintf("eth%d", n) }

// uplinkPrefix starts the name of everything that a region puts among the machine's own links.
func uplinkPrefix(region string) string { return "b" + region + "-" }

// uplinkName is the machine's end of a VPC's uplink.
func uplinkName(region, vpcID string) string { return uplinkPrefix(region) + digest(vpcID, 5) }

// hostTable is the nftables table in the machine's namespace, and the comment on rules in tables of others.
func hostTable(region string) string { return "berth-" + region }

// tableNumber gives a route table its Linux number. A hash, not a counter: it needs no memory, so a restarted engine
// finds the tables it made. The high bit keeps it clear of the reserved numbers and of localTable.
func tableNumber(id string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(id))
	return h.Sum32()>>2 | 1<<30
}

func digest(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:n]
}
