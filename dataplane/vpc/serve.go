package vpc

import (
	"fmt"
	"strings"
)

// A NAT gateway or an interface endpoint is an ENI like others to its VPC: routes, network ACLs, flow logs and, for an
// endpoint, security groups are those of any. What it does to packets it does in its own namespace, with a table of its
// own there, so that the connections it keeps have nothing to do with those of the VPC.

// natPorts are the ports that a NAT gateway gives out to one destination: 55,000.
const natPorts = "10536-65535"

// natIdle is after how many seconds a NAT gateway forgets a silent connection. What comes later is answered by a reset.
const natIdle = "350"

// serviceSysctls prepares the namespace of an ENI that serves something.
func serviceSysctls(serves string) error {
	if serves == "" {
		return nil
	}
	settings := [][2]string{{"ipv4/ip_forward", "1"}, {"ipv4/conf/all/send_redirects", "0"}, {"ipv4/conf/default/send_redirects", "0"}}
	if serves == ServesNAT {
		settings = append(settings,
			[2]string{"netfilter/nf_conntrack_tcp_timeout_established", natIdle},
			[2]string{"netfilter/nf_conntrack_tcp_loose", "0"})
	}
	for _, s := range settings {
		if err := sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// renderService returns the script that replaces the table in the namespace of an ENI that serves something.
func renderService(e ENI, api api) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table ip %[1]s {\n}\ndelete table ip %[1]s\ntable ip %[1]s {\n", vpcTable)
	chain := func(name, base string, rules ...string) {
		fmt.Fprintf(&b, "\tchain %s {\n\t\t%s\n", name, base)
		for _, r := range rules {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	chain("own", "type filter hook input priority filter; policy drop;",
		`ct state established,related accept`, `iifname "lo" accept`)
	switch e.Serves {
	case ServesNAT:
		chain("through", "type filter hook forward priority filter; policy drop;",
			`ct state established,related,new accept`,
			// A connection that was silent for too long.
			`meta l4proto tcp tcp flags & rst != rst reject with tcp reset`)
		chain("out", "type nat hook postrouting priority srcnat; policy accept;",
			fmt.Sprintf("meta l4proto { tcp, udp } snat to %s:%s", e.Address, natPorts),
			fmt.Sprintf("snat to %s", e.Address))
	case ServesAPI:
		if api.address.IsValid() {
			chain("in", "type nat hook prerouting priority dstnat; policy accept;",
				fmt.Sprintf("ip daddr %s tcp dport { 80, 443 } dnat to %s", e.Address, api.address))
			chain("through", "type filter hook forward priority filter; policy drop;",
				`ct state established,related accept`, `ct status dnat accept`)
			chain("out", "type nat hook postrouting priority srcnat; policy accept;",
				fmt.Sprintf("ip daddr %s snat to %s", api.address.Addr(), e.Address))
		}
	}
	b.WriteString("}\n")
	return b.String()
}
