// Package bridge is the container network of an instance: the bridge docker0
// with a namespace for each container of the network mode bridge, published
// ports, and the way by which containers reach the agent.
//
// It works in the network namespace of the instance and owns there the links
// docker0 and ecs-bridge, what is plugged into them, and the nftables table
// berth. It never touches the instance's own interfaces: what may leave and
// enter those, the VPC decides.
//
// What it has made is in files, so that an agent which starts finds the
// networks of the containers that run, with their addresses and ports.
//
//	172.17.0.0/16      docker0, .1 the instance; containers of the mode bridge
//	169.254.172.0/22   ecs-bridge, .1 the instance; one address for each awsvpc task
//	169.254.170.2:80   the agent, from both; port 51679 of the loopback device serves it
//
// Both ranges and the port are those of Amazon's agent (facts: networking).
package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	containersLink = "docker0"
	agentLink      = "ecs-bridge"
	// AgentPort is the port of the loopback device at which the agent listens
	// for what containers ask of 169.254.170.2:80.
	AgentPort = 51679
)

var (
	containers = netip.MustParsePrefix("172.17.0.0/16")
	agents     = netip.MustParsePrefix("169.254.172.0/22")
	agent      = netip.MustParseAddr("169.254.170.2")
	metadata   = netip.MustParseAddr("169.254.169.254")
)

// ErrPort is a published port that cannot be had.
var ErrPort = errors.New("port is not available")

// Options say which instance a Network serves.
type Options struct {
	// NetNS is the instance's network namespace; "" is that of the process.
	NetNS string
	// Dir is where namespaces are mounted and what is known of them is kept.
	// It goes with a reboot. Required.
	Dir string
	// Ports is the first and last port that is chosen where none is asked for;
	// zero takes the kernel's range.
	Ports [2]uint16
	// BlockMetadata keeps awsvpc tasks from the instance's metadata service.
	BlockMetadata bool
	// Forward hands TCP connections that containers make to 169.254.170.2 and
	// one of these ports to another one of the loopback device.
	Forward map[uint16]uint16
	Log     *slog.Logger // required
}

// Port is a port of a container that is to be reached from outside. Host 0
// chooses one. Range is how many ports follow each other; 0 is 1.
type Port struct {
	Protocol        string // tcp, udp
	Container, Host uint16
	Range           uint16
}

// Endpoint is a container's place in the network.
type Endpoint struct {
	ID      string
	Address netip.Addr
	// Ports are as they were asked for, with Host filled in.
	Ports []Port
	NetNS string `json:"-"` // path
}

// Network is the container network of an instance. Its methods may be called
// concurrently.
type Network struct {
	opts   Options
	ns     *os.File
	nl     *netlink.Handle
	nft    *nftables.Conn
	low    uint16
	high   uint16
	docker int // index of docker0
	ecs    int // index of ecs-bridge

	mu        sync.Mutex
	endpoints map[string]*Endpoint
	taken     map[bound]*socket // ports in use, with what keeps others from them
	last      map[string]uint16 // by protocol: the port chosen last
	joined    map[netip.Addr]joined
}

// bound is a port of the instance.
type bound struct {
	protocol string
	port     uint16
}

// Open finds or makes the network, and in it the containers that were
// connected before.
func Open(opts Options) (*Network, error) {
	if opts.NetNS == "" {
		opts.NetNS = "/proc/self/ns/net"
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("container network: %w", err)
	}
	n := &Network{opts: opts, endpoints: map[string]*Endpoint{}, taken: map[bound]*socket{}, last: map[string]uint16{}, joined: map[netip.Addr]joined{}}
	if err := n.open(); err != nil {
		n.Close()
		return nil, fmt.Errorf("container network: %w", err)
	}
	return n, nil
}

func (n *Network) open() (err error) {
	if n.ns, err = os.Open(n.opts.NetNS); err != nil {
		return err
	}
	err = in(n.ns, func() (err error) {
		if n.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		if n.nft, err = nftables.New(nftables.AsLasting()); err != nil {
			return err
		}
		n.low, n.high = n.opts.Ports[0], n.opts.Ports[1]
		if n.low == 0 {
			if n.low, n.high, err = ephemeral(); err != nil {
				return err
			}
		}
		return sysctl("ipv4/ip_forward", "1")
	})
	if err != nil {
		return err
	}
	if n.docker, err = n.makeBridge(containersLink, containers); err != nil {
		return err
	}
	if n.ecs, err = n.makeBridge(agentLink, agents); err != nil {
		return err
	}
	// A way there is needed before the ruleset can turn it, also in an instance
	// without a default route.
	lo, err := n.nl.LinkByName("lo")
	if err == nil {
		err = n.nl.LinkSetUp(lo)
	}
	if err == nil {
		err = n.nl.RouteReplace(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(netip.PrefixFrom(agent, 32)), Scope: netlink.SCOPE_LINK})
	}
	if err != nil {
		return fmt.Errorf("way to the agent: %w", err)
	}
	if err := n.recall(); err != nil {
		return err
	}
	if err := n.recallJoined(); err != nil {
		return err
	}
	return n.load()
}

// Close lets go of the network. What is connected stays so; ports that were
// chosen are no longer kept from others of the instance until the next Open.
func (n *Network) Close() {
	if n.nl != nil {
		n.nl.Close()
	}
	if n.nft != nil {
		_ = n.nft.CloseLasting()
	}
	if n.ns != nil {
		n.ns.Close()
	}
	for _, s := range n.taken {
		s.close()
	}
}

// makeBridge finds or makes a bridge whose first address is the instance's.
func (n *Network) makeBridge(name string, prefix netip.Prefix) (int, error) {
	link, err := n.nl.LinkByName(name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		la := netlink.NewLinkAttrs()
		la.Name = name
		// The bridge keeps its MAC: with none given it takes that of its
		// lowest port, and neighbours lose it when that port goes.
		la.HardwareAddr = hardware(prefix.Masked().Addr().Next())
		if err := n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: la}); err != nil && !errors.Is(err, unix.EEXIST) {
			return 0, fmt.Errorf("make %s: %w", name, err)
		}
		link, err = n.nl.LinkByName(name)
	}
	if err != nil {
		return 0, err
	}
	own := netip.PrefixFrom(prefix.Masked().Addr().Next(), prefix.Bits())
	if err := n.nl.AddrReplace(link, &netlink.Addr{IPNet: ipNet(own)}); err != nil {
		return 0, fmt.Errorf("%s: address %s: %w", name, own, err)
	}
	if err := n.nl.LinkSetUp(link); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	// What comes from the bridge to 169.254.170.2 is turned to the loopback
	// device; the ruleset lets nothing else there.
	err = in(n.ns, func() error {
		return errors.Join(sysctl("ipv4/conf/"+name+"/route_localnet", "1"), sysctl("ipv6/conf/"+name+"/disable_ipv6", "1"))
	})
	return link.Attrs().Index, err
}

// recall reads what an earlier agent connected. A namespace that is gone, as
// after a reboot, takes its endpoint along.
func (n *Network) recall() error {
	entries, err := os.ReadDir(n.opts.Dir)
	if err != nil {
		return err
	}
	for _, f := range entries {
		id, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok {
			continue
		}
		e := &Endpoint{}
		b, err := os.ReadFile(filepath.Join(n.opts.Dir, f.Name()))
		if err == nil {
			err = json.Unmarshal(b, e)
		}
		if err == nil {
			err = mounted(n.path(id))
		}
		if err != nil || e.ID != id {
			n.opts.Log.Info("a container's network is gone", "container", id, "because", err)
			if err := n.clear(id); err != nil {
				return err
			}
			continue
		}
		e.NetNS = n.path(id)
		n.endpoints[id] = e
		for _, p := range e.Ports {
			for _, b := range p.bound() {
				s, err := n.reserve(b)
				if err != nil {
					// Somebody of the instance took it while no agent was there;
					// what comes to it still goes to the container.
					n.opts.Log.Warn("a published port is used by the instance too", "container", id, "port", b.port, "err", err)
				}
				n.taken[b] = s
				n.last[b.protocol] = max(n.last[b.protocol], b.port)
			}
		}
	}
	// Namespaces without a record were being made.
	for _, f := range entries {
		if id := f.Name(); !strings.HasSuffix(id, ".json") && n.endpoints[id] == nil {
			if err := n.clear(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Network) path(id string) string { return filepath.Join(n.opts.Dir, id) }

// clear removes what the machine has of a container's network.
func (n *Network) clear(id string) error {
	if link, err := n.nl.LinkByName(linkName(id)); err == nil {
		if err := n.nl.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove %s: %w", linkName(id), err)
		}
	}
	if err := dropNetns(n.path(id)); err != nil {
		return err
	}
	if err := os.Remove(n.path(id) + ".json"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Connect makes a network namespace for a container, with an address and with
// its ports published. Connecting again answers the same endpoint. A port that
// is taken is an ErrPort.
func (n *Network) Connect(id string, ports []Port) (*Endpoint, error) {
	if !filepath.IsLocal(id) || filepath.Base(id) != id || strings.HasSuffix(id, ".json") {
		return nil, fmt.Errorf("%q cannot name a container's network", id)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.endpoints[id]; e != nil {
		return e, nil
	}
	e := &Endpoint{ID: id, NetNS: n.path(id)}
	var err error
	if e.Address, err = n.address(); err != nil {
		return nil, err
	}
	undo := func(err error) error {
		n.release(e)
		return errors.Join(err, n.clear(id))
	}
	if err := n.publish(e, ports); err != nil {
		return nil, undo(err)
	}
	b, err := json.Marshal(e)
	if err == nil {
		err = os.WriteFile(e.NetNS+".json.new", b, 0o600)
	}
	if err == nil {
		err = n.plug(e)
	}
	if err == nil {
		err = os.Rename(e.NetNS+".json.new", e.NetNS+".json")
	}
	if err == nil {
		err = n.change(nil, e)
	}
	if err != nil {
		return nil, undo(fmt.Errorf("connect %s: %w", id, err))
	}
	n.endpoints[id] = e
	return e, nil
}

// Disconnect takes a container's namespace, address and ports back. One that
// is not connected is no error.
func (n *Network) Disconnect(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.endpoints[id]
	if e == nil {
		return nil
	}
	if err := n.change(e, nil); err != nil {
		return fmt.Errorf("disconnect %s: %w", id, err)
	}
	if err := n.clear(id); err != nil {
		return fmt.Errorf("disconnect %s: %w", id, err)
	}
	n.release(e)
	delete(n.endpoints, id)
	return nil
}

// Endpoints are the containers that are connected.
func (n *Network) Endpoints() []Endpoint {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Endpoint
	for _, id := range slices.Sorted(maps.Keys(n.endpoints)) {
		out = append(out, *n.endpoints[id])
	}
	return out
}

// address is the lowest that is free, as Docker gives them.
func (n *Network) address() (netip.Addr, error) {
	used := map[netip.Addr]bool{}
	for _, e := range n.endpoints {
		used[e.Address] = true
	}
	return lowest(containers, used)
}

// lowest finds the first free address of a prefix behind the instance's own.
func lowest[V any](prefix netip.Prefix, used map[netip.Addr]V) (netip.Addr, error) {
	for a := prefix.Masked().Addr().Next().Next(); prefix.Contains(a.Next()); a = a.Next() {
		if _, taken := used[a]; !taken {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address of %s is free", prefix)
}

// plug makes the namespace and its link to the bridge.
func (n *Network) plug(e *Endpoint) error {
	ns, err := makeNetns(e.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	return n.wire(ns, linkName(e.ID), "eth0", n.docker, netip.PrefixFrom(e.Address, containers.Bits()), containers.Masked().Addr().Next(), netip.PrefixFrom(netip.IPv4Unspecified(), 0))
}

// wire joins a namespace to a bridge, gives its end an address and routes
// destinations through the gateway.
func (n *Network) wire(ns *os.File, outer, inner string, bridge int, address netip.Prefix, gateway netip.Addr, destinations ...netip.Prefix) error {
	la := netlink.NewLinkAttrs()
	la.Name, la.MasterIndex = outer, bridge
	veth := netlink.NewVeth(la)
	veth.PeerName, veth.PeerNamespace, veth.PeerHardwareAddr = inner, netlink.NsFd(ns.Fd()), hardware(address.Addr())
	if err := n.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("make %s: %w", outer, err)
	}
	// A container may reach itself by the instance's address.
	if err := n.nl.LinkSetHairpin(veth, true); err != nil {
		return fmt.Errorf("%s: hairpin: %w", outer, err)
	}
	if bridge == n.ecs {
		// Tasks reach the agent there, not each other.
		if err := n.nl.LinkSetIsolated(veth, true); err != nil {
			return fmt.Errorf("%s: isolate: %w", outer, err)
		}
	}
	if err := n.nl.LinkSetUp(veth); err != nil {
		return fmt.Errorf("%s: %w", outer, err)
	}
	var h *netlink.Handle
	if err := in(ns, func() (err error) { h, err = netlink.NewHandle(unix.NETLINK_ROUTE); return err }); err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	eth, err := h.LinkByName(inner)
	if err == nil {
		err = h.AddrReplace(eth, &netlink.Addr{IPNet: ipNet(address)})
	}
	if err == nil {
		err = h.LinkSetUp(eth)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", inner, err)
	}
	for _, d := range destinations {
		if err := h.RouteReplace(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: ipNet(d), Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("route to %s: %w", d, err)
		}
	}
	return nil
}
