package vpc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// admit makes the machine's iptables let traffic of the uplinks pass where it drops forwarded packets by policy, as
// it does where Docker runs. It does nothing as long as what it sees of the machine's firewalls has not changed.
func (h *host) admit() error {
	seen, err := h.forwarders()
	if err != nil {
		return err
	}
	if seen == h.forwarder {
		return nil
	}
	for _, bin := range iptables() {
		if bin == "iptables-nft" && !strings.Contains(seen, "\nfilter ") {
			continue // it keeps its rules in a table of that name
		}
		if err := admitBy(bin, h.opts.Region); err != nil {
			return err
		}
	}
	h.forwarder = seen
	return nil
}

// forwarders sums up the chains that may drop forwarded packets.
func (h *host) forwarders() (string, error) {
	legacy, err := os.ReadFile("/proc/net/ip_tables_names")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	chains, err := h.nft.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return "", fmt.Errorf("list nftables chains: %w", err)
	}
	seen := []string{"legacy " + string(legacy)}
	for _, c := range chains {
		dropping := c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		if dropping || c.Name == dockerUser {
			seen = append(seen, c.Table.Name+" "+c.Name)
		}
		if dropping && c.Table.Name != "filter" {
			h.log.Warn("another firewall drops forwarded packets; allow those of the uplinks in it",
				"table", c.Table.Name, "chain", c.Name, "links", uplinkPrefix(h.opts.Region)+"*")
		}
	}
	slices.Sort(seen[1:])
	return strings.Join(seen, "\n"), nil
}

const dockerUser = "DOCKER-USER"

// iptables returns the variants of iptables on this machine; each sees only its own rules.
func iptables() []string {
	var out []string
	for _, name := range []string{"iptables-nft", "iptables-legacy"} {
		if _, err := exec.LookPath(name); err == nil {
			out = append(out, name)
		}
	}
	if _, err := exec.LookPath("iptables"); len(out) == 0 && err == nil {
		out = append(out, "iptables")
	}
	return out
}

// forwardRules are the arguments that follow -C, -I or -D and the chain.
func forwardRules(region string) [][]string {
	comment := []string{"-m", "comment", "--comment", hostTable(region), "-j", "ACCEPT"}
	return [][]string{
		append([]string{"-i", uplinkPrefix(region) + "+"}, comment...),
		append([]string{"-o", uplinkPrefix(region) + "+"}, comment...),
	}
}

func admitBy(bin, region string) error {
	chain := dockerUser
	if !inUse(bin) {
		return nil
	}
	if _, err := run(bin, "-S", dockerUser); err != nil {
		policy, err := run(bin, "-S", "FORWARD")
		if err != nil {
			return err
		}
		if !strings.Contains(policy, "-P FORWARD DROP") {
			return nil
		}
		chain = "FORWARD"
	}
	for _, rule := range forwardRules(region) {
		if _, err := run(bin, append([]string{"-C", chain}, rule...)...); err == nil {
			continue
		}
		if _, err := run(bin, append([]string{"-I", chain}, rule...)...); err != nil {
			return err
		}
	}
	return nil
}

// inUse says whether a variant has a filter table. To ask iptables-legacy itself would make one.
func inUse(bin string) bool {
	if bin != "iptables-legacy" {
		return true
	}
	names, err := os.ReadFile("/proc/net/ip_tables_names")
	return err == nil && slices.Contains(strings.Fields(string(names)), "filter")
}

// unadmit removes the rules that admit made.
func unadmit(region string) error {
	var errs []error
	for _, bin := range iptables() {
		if !inUse(bin) {
			continue
		}
		for _, chain := range []string{dockerUser, "FORWARD"} {
			have, err := run(bin, "-S", chain)
			if err != nil || !strings.Contains(have, hostTable(region)) {
				continue
			}
			for _, rule := range forwardRules(region) {
				if _, err := run(bin, append([]string{"-C", chain}, rule...)...); err != nil {
					continue
				}
				if _, err := run(bin, append([]string{"-D", chain}, rule...)...); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}

func run(bin string, args ...string) (string, error) {
	out, err := exec.Command(bin, append([]string{"-w", "5"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", bin, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
