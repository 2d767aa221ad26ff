package vpc

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// runNft applies a script in the namespace ns, nil for the process's own, as one transaction.
func runNft(ns *os.File, script string) error {
	run := func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(out.String()))
		}
		return nil
	}
	if ns == nil {
		return run()
	}
	// The child is forked from the thread and so starts in the thread's namespace.
	return on(ns, run)
}

// applyQuick applies a delta of elements and profile chains as one netlink transaction. Starting nft takes several
// times as long as everything else that attaching an ENI needs.
func applyQuick(conn *nftables.Conn, d delta) error {
	table := d.family.netlink()
	for _, c := range d.newChains {
		nc := conn.AddChain(&nftables.Chain{Name: c.name, Table: table})
		for _, to := range c.jumps {
			conn.AddRule(&nftables.Rule{Table: table, Chain: nc, Exprs: []expr.Any{
				&expr.Verdict{Kind: expr.VerdictJump, Chain: to},
			}})
		}
	}
	for _, es := range d.oldElems {
		if err := conn.SetDeleteElements(es.of.netlink(table), es.netlink()); err != nil {
			return err
		}
	}
	for _, es := range d.newElems {
		if err := conn.SetAddElements(es.of.netlink(table), es.netlink()); err != nil {
			return err
		}
	}
	for _, c := range d.oldChains {
		conn.DelChain(&nftables.Chain{Name: c.name, Table: table})
	}
	return conn.Flush()
}

// netlink names the table of a family.
func (f family) netlink() *nftables.Table {
	if f == ipv6 {
		return &nftables.Table{Name: vpcTable, Family: nftables.TableFamilyIPv6}
	}
	return &nftables.Table{Name: vpcTable, Family: nftables.TableFamilyIPv4}
}

// netlink names the set; its types are already in the kernel.
func (s *set) netlink(table *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: table, Name: s.name, IsMap: s.data != ""}
}

func (es elements) netlink() []nftables.SetElement {
	out := make([]nftables.SetElement, len(es.list))
	for i, e := range es.list {
		for _, k := range e.key {
			out[i].Key = append(out[i].Key, k.bytes()...)
		}
		switch v := e.value.(type) {
		case nil:
		case pass:
			out[i].VerdictData = &expr.Verdict{Kind: expr.VerdictAccept}
		case jump:
			out[i].VerdictData = &expr.Verdict{Kind: expr.VerdictJump, Chain: string(v)}
		default:
			out[i].Val = v.bytes()
		}
	}
	return out
}
