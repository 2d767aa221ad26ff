package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const joinedPrefix = "ecs"

// joined is an awsvpc task that reaches the agent.
type joined struct{ link, task string }

// Joined answers the task that has an address of ecs-bridge.
func (n *Network) Joined(a netip.Addr) (task string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	j, ok := n.joined[a]
	return j.task, ok
}

// Connected answers the container that has an address of docker0.
func (n *Network) Connected(a netip.Addr) (id string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, e := range n.endpoints {
		if e.Address == a {
			return id, true
		}
	}
	return "", false
}

// Join gives the namespace of an awsvpc task its way to the agent: a device
// ecs-eth0 beside the task's own interface. It goes with the namespace. Joining
// again changes nothing.
func (n *Network) Join(netns, task string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	ns, err := os.Open(netns)
	if err != nil {
		return fmt.Errorf("join %s: %w", netns, err)
	}
	defer ns.Close()
	name := joinedName(netns)
	destinations := []netip.Prefix{netip.PrefixFrom(agent, 32)}
	if !n.opts.BlockMetadata {
		destinations = append(destinations, netip.PrefixFrom(metadata, 32))
	}
	if err := n.recallJoined(); err != nil { // tasks have gone since
		return fmt.Errorf("join %s: %w", netns, err)
	}
	for _, other := range n.joined {
		if other.link == name {
			return nil
		}
	}
	address, err := lowest(agents, n.joined)
	if err != nil {
		return fmt.Errorf("join %s: %w", netns, err)
	}
	if err := n.wire(ns, name, "ecs-eth0", n.ecs, netip.PrefixFrom(address, agents.Bits()), agents.Masked().Addr().Next(), destinations...); err != nil {
		if link, gone := n.nl.LinkByName(name); gone == nil {
			err = errors.Join(err, n.nl.LinkDel(link))
		}
		return fmt.Errorf("join %s: %w", netns, err)
	}
	link, err := n.nl.LinkByName(name)
	if err == nil {
		// The kernel keeps it for who comes after this process.
		err = n.nl.LinkSetAlias(link, address.String()+" "+task)
	}
	if err != nil {
		return fmt.Errorf("join %s: %w", netns, err)
	}
	n.joined[address] = joined{name, task}
	return nil
}

// recallJoined reads from the kernel which addresses awsvpc tasks have.
func (n *Network) recallJoined() error {
	links, err := dump(n.nl.LinkList)
	if err != nil {
		return err
	}
	clear(n.joined)
	for _, l := range links {
		a := l.Attrs()
		if a.MasterIndex != n.ecs || !strings.HasPrefix(a.Name, joinedPrefix) {
			continue
		}
		text, task, _ := strings.Cut(a.Alias, " ")
		address, err := netip.ParseAddr(text)
		if err != nil {
			// It was being made.
			if err := n.nl.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				return err
			}
			continue
		}
		n.joined[address] = joined{a.Name, task}
	}
	return nil
}

func joinedName(netns string) string { return joinedPrefix + digest(filepath.Base(netns)) }

func dump[T any](list func() ([]T, error)) ([]T, error) {
	for {
		out, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
}
