package bridge

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

const table = "berth"

// publishedMap sends a port of the instance to a container's.
const publishedMap = "published"

// load replaces the ruleset as a whole. Connections keep their translation:
// connection tracking has it.
func (n *Network) load() error {
	script := n.render()
	return in(n.ns, func() error {
		// The child is forked from the thread and so starts in its namespace.
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(out.String()))
		}
		return nil
	})
}

// render is the ruleset as a script.
func (n *Network) render() string {
	var published []string
	for _, id := range slices.Sorted(maps.Keys(n.endpoints)) {
		e := n.endpoints[id]
		for _, p := range e.Ports {
			for i := range max(1, p.Range) {
				published = append(published, fmt.Sprintf("%s . %d : %s . %d", p.Protocol, p.Host+i, e.Address, p.Container+i))
			}
		}
	}
	elements := ""
	if len(published) > 0 {
		elements = "\n\t\telements = { " + strings.Join(published, ", ") + " }"
	}
	var from, local strings.Builder
	door := func(port, to uint16) {
		fmt.Fprintf(&from, "\t\tiifname { %q, %q } ip daddr %s tcp dport %d dnat to 127.0.0.1:%d\n", containersLink, agentLink, agent, port, to)
		fmt.Fprintf(&local, "\t\tip daddr %s tcp dport %d dnat to 127.0.0.1:%d\n", agent, port, to)
	}
	door(80, AgentPort)
	for _, port := range slices.Sorted(maps.Keys(n.opts.Forward)) {
		door(port, n.opts.Forward[port])
	}
	return fmt.Sprintf(`table ip %[1]s {
}
delete table ip %[1]s
table ip %[1]s {
	map published {
		type inet_proto . inet_service : ipv4_addr . inet_service%[2]s
	}
	chain from-outside {
		type nat hook prerouting priority dstnat; policy accept;
%[3]s		fib daddr type local dnat ip to meta l4proto . th dport map @published
	}
	chain from-instance {
		type nat hook output priority -100; policy accept;
%[4]s		fib daddr type local dnat ip to meta l4proto . th dport map @published
	}
	chain to-outside {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %[5]s oifname != { %[6]q, "lo" } masquerade
		ip saddr 127.0.0.0/8 oifname %[6]q masquerade
		ip saddr %[5]s oifname %[6]q ct status dnat masquerade
		ip saddr %[7]s oifname != { %[8]q, "lo" } ip daddr 169.254.169.254 masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		iifname %[8]q ip daddr 169.254.169.254 accept
		iifname %[8]q drop
		oifname %[8]q drop
		iifname %[6]q accept
		oifname %[6]q ct status dnat accept
		oifname %[6]q drop
	}
	chain input {
		type filter hook input priority filter; policy accept;
		ct state established,related accept
		iifname { %[6]q, %[8]q } ip daddr 127.0.0.0/8 ct status dnat accept
		iifname { %[6]q, %[8]q } ip daddr 127.0.0.0/8 drop
		iifname %[8]q drop
	}
}
`, table, elements, from.String(), local.String(), containers, containersLink, agents, agentLink)
}

// change brings the published ports from those of one endpoint to those of
// another.
func (n *Network) change(old, next *Endpoint) error {
	set := &nftables.Set{Table: &nftables.Table{Name: table, Family: nftables.TableFamilyIPv4}, Name: publishedMap, IsMap: true}
	if e := old.elements(); len(e) > 0 {
		if err := n.nft.SetDeleteElements(set, e); err != nil {
			return err
		}
	}
	if e := next.elements(); len(e) > 0 {
		if err := n.nft.SetAddElements(set, e); err != nil {
			return err
		}
	}
	if err := n.nft.Flush(); err != nil {
		return fmt.Errorf("published ports: %w", err)
	}
	return nil
}

// elements are the endpoint's ports as the kernel keeps them: each part of a
// key or value in whole registers.
func (e *Endpoint) elements() (out []nftables.SetElement) {
	if e == nil {
		return nil
	}
	for _, p := range e.Ports {
		protocol := byte(unix.IPPROTO_TCP)
		if p.Protocol == "udp" {
			protocol = unix.IPPROTO_UDP
		}
		for i := range max(1, p.Range) {
			key := []byte{protocol, 0, 0, 0}
			key = append(binary.BigEndian.AppendUint16(key, p.Host+i), 0, 0)
			val := e.Address.AsSlice()
			val = append(binary.BigEndian.AppendUint16(val, p.Container+i), 0, 0)
			out = append(out, nftables.SetElement{Key: key, Val: val})
		}
	}
	return out
}
