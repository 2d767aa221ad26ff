package vpc

import (
	"fmt"
	"strings"
	"time"
)

// Flow logs are counted by the kernel alone, in sets that the ruleset fills packet by packet: the key is the interface
// and the five-tuple, the element's counter has packets and bytes, and its timeout says when it was last touched. The
// engine reads the sets once in a while and takes the difference from before. An interface without a flow log costs one
// look-up if another one of its VPC has one, and nothing else.

const (
	// flowsKept bounds each set. What does not fit marks its interface as skipped.
	flowsKept = 1 << 16
	// flowIdle is how long an element stays that nothing touches. It is longer than the time between two readings.
	flowIdle = 4 * time.Minute
)

// verdict is what became of a logged packet.
type verdict string

const (
	accepted verdict = "accept"
	byGroup  verdict = "sg"
	byACL    verdict = "nacl"
)

const (
	loggedSet  = "logged"
	skippedSet = "skipped"
)

// flowSets are the three sets of a verdict and direction.
func flowSet(why verdict, ingress bool, kind string) string {
	return "flows-" + string(why) + direction(ingress) + "-" + kind
}

func flagSet(flag string, ingress bool) string { return "flags-" + flag + direction(ingress) }

// tcpFlags are those that flow logs know, as AWS counts them.
var tcpFlags = []struct {
	name  string
	match string
	value uint8
}{
	{"syn", "tcp flags & (syn | ack) == syn", 2},
	{"synack", "tcp flags & (syn | ack) == (syn | ack)", 18},
	{"fin", "tcp flags & fin == fin", 1},
	{"rst", "tcp flags & rst == rst", 4},
}

func countChain(why verdict, ingress bool) string { return "count-" + string(why) + direction(ingress) }

// logLine sends the packets of logged interfaces to be counted.
func logLine(why verdict, ingress bool) string {
	return side(ingress) + " @" + loggedSet + " jump " + countChain(why, ingress)
}

func side(ingress bool) string {
	if ingress {
		return "oifname"
	}
	return "iifname"
}

// compileLogs adds what counts the flows of the logged interfaces.
func compileLogs(rs *ruleset, links []iface) {
	if len(links) == 0 {
		return
	}
	add := func(name, keys string, dynamic bool) *set {
		s := &set{name: name, keys: keys, dynamic: dynamic, elements: map[string]element{}}
		rs.sets = append(rs.sets, s)
		return s
	}
	logged := add(loggedSet, "ifname", false)
	for _, l := range links {
		logged.put(nil, l)
	}
	add(skippedSet, "ifname", true)
	ip, ends := rs.family.table(), "ifname . "+rs.family.address()+" . "+rs.family.address()
	for _, in := range []bool{false, true} {
		for _, f := range tcpFlags {
			add(flagSet(f.name, in), ends+" . inet_service . inet_service", true)
		}
		for _, why := range []verdict{accepted, byGroup, byACL} {
			c := &chain{name: countChain(why, in)}
			key := fmt.Sprintf("%s . %s saddr . %s daddr", side(in), ip, ip)
			flags := "flags" + direction(in)
			for _, kind := range []string{"tcp", "udp"} {
				add(flowSet(why, in, kind), ends+" . inet_service . inet_service", true)
				if kind == "tcp" {
					c.lines = append(c.lines, "tcp flags & (fin | syn | rst) != 0 jump "+flags)
				}
				c.lines = append(c.lines, fmt.Sprintf("meta l4proto %[1]s update @%[2]s { %[3]s . %[1]s sport . %[1]s dport counter } return", kind, flowSet(why, in, kind), key))
			}
			add(flowSet(why, in, "other"), ends+" . inet_proto", true)
			c.lines = append(c.lines,
				fmt.Sprintf("meta l4proto != { tcp, udp } update @%s { %s . meta l4proto counter } return", flowSet(why, in, "other"), key),
				// Reached by what found its set full.
				fmt.Sprintf("update @%s { %s }", skippedSet, side(in)))
			rs.chains = append(rs.chains, c)
		}
		flags := &chain{name: "flags" + direction(in)}
		for _, f := range tcpFlags {
			flags.lines = append(flags.lines, fmt.Sprintf("%s update @%s { %s . %s saddr . %s daddr . tcp sport . tcp dport }", f.match, flagSet(f.name, in), side(in), ip, ip))
		}
		rs.chains = append(rs.chains, flags)
	}
}

// logs says whether flows are counted in a ruleset.
func (rs *ruleset) logs() bool {
	for _, s := range rs.sets {
		if strings.HasPrefix(s.name, loggedSet) {
			return true
		}
	}
	return false
}
