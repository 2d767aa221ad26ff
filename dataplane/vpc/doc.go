// Package vpc owns every network namespace, link, route, rule and nftables
// object that one region has on one node.
//
// The caller hands over the complete desired state with [Engine.Set]; the
// engine compares it with what is there and changes the difference. It knows
// neither AWS shapes nor the store, and it never touches an object that does
// not carry its mark: the RunDir, the link prefix "b<region>-", the nftables
// table "berth-<region>" and, inside the namespaces it made, everything.
//
// # The fabric
//
// A VPC is a network namespace that routes. An ENI is a veth pair: "eth0" in a
// namespace of its own (which a task's containers join), the other end in the
// VPC's namespace. There is no broadcast domain. Every ENI is a routed /32, and
// the VPC answers ARP for the addresses that are in use and for no others.
// Router addresses (base+1 of each subnet), the resolver (base+2 of the VPC),
// 169.254.169.253, the agent's 169.254.170.2 and the metadata service's
// 169.254.169.254 live on the loopback device of the VPC's namespace: who
// listens there tells its clients by their addresses, which the ruleset checks.
//
// An ENI may be a further device (eth1, …) in the namespace of another one: a
// symbolic link stands where its own namespace would be mounted. It gets its
// addresses and the route to its subnet; as on AWS, which device answers what
// is the guest's affair, and an answer by the wrong one is dropped as spoofed.
//
// A NAT gateway and an interface endpoint are ENIs whose namespace itself
// translates, with its own connection tracking (see serve.go). Two peers are
// joined by a veth pair between their namespaces (see peer.go); what comes in by
// it finds the local routes only, so nothing passes through a VPC.
//
// Routing in the VPC's namespace:
//
//	100    from all               lookup 100     one /32 per ENI, blackholes for the rest of the VPC and for 169.254/16
//	1000   from all fwmark T      lookup T       one Linux table per route table; T is a hash of its id
//	32000  from all               blackhole
//
// The mark comes from the nftables map that checks a packet's source by its
// interface, MAC and address, so the number of rules does not grow with the
// number of ENIs. A route through an ENI whose link is not there is a blackhole
// until it is.
//
// IPv6 has the same tables, rules and a ruleset of its own, in VPCs that have
// it. Interfaces have /128s; the router is the link-local address of its MAC on
// every link, so there is neither router advertisement nor proxying. The
// machine reaches a VPC's range through its uplink and masquerades it towards
// the world. Only what is in a subnet with a route to an internet gateway may
// be called from there: an egress-only gateway is the same way out.
//
// # Filters
//
// Security groups are stateful and hold between any two ENIs: a packet of a new
// flow needs the verdict of both sides. Every flow is tracked, also those that
// AWS would not track (0.0.0.0/0 both ways): taking a rule away ends no flow
// that is there, taking the ENI or its address away ends all. Network ACLs are
// asked for each packet that leaves or enters a subnet, tracked or not. Neither
// is asked about the resolver and the metadata endpoints, which are the router's.
// What an instance forwards without translating it is, on its second way
// through the VPC, the same flow to connection tracking as on its first.
//
// Flow logs are counted in nftables sets with counters (see logs.go, flows.go):
// no packet is copied to a process. What the routing drops is not counted, nor
// is what a killed engine had not yet returned.
//
// # Order of things
//
// Security groups are in the kernel before the link they guard is up: nftables
// elements name interfaces, so they can be, and are, loaded before the link is
// even made. The marker <RunDir>/netns/<eni>.ready is created last and removed
// first; whoever waits for an ENI waits for that file.
//
// Every step can be repeated. An engine that was killed between any two steps
// leaves something that the next Open and Set complete or remove, without
// cutting the traffic of ENIs that were already there: the first Set replaces
// the ruleset of a VPC in one nftables transaction and does not touch links
// that are as they should be. Connection tracking belongs to the namespace and
// survives the process.
//
// # The machine's own namespace
//
// Each VPC has an uplink to the machine. Public addresses are routed to it; the
// engine turns IPv4 forwarding on (and leaves it on: other software may rely
// on it by the time the region goes) and masquerades the pool towards the rest
// of the world. The base address of the pool is the machine's own on the
// uplinks, so tasks see the machine as that address; no ENI may have it.
// Where another firewall drops forwarded packets by policy, as Docker makes
// iptables do, an accept in a table of our own would not help, because each
// base chain has its veto. There the engine puts two accept rules, marked with
// the comment "berth-<region>", into DOCKER-USER (else FORWARD).
package vpc
