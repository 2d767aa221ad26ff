package vpc

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
)

// FlowWindow is what went over the ENIs with a flow log in one span of time.
type FlowWindow struct {
	Start, End time.Time
	Interfaces []string // that were counted, sorted
	Skipped    []string // of which there was more than is kept, sorted
	Flows      []Flow
}

// Flow is one flow over one ENI in one direction. Src and Dst are as the interface sees them, with its primary private
// address on its own side; PktSrc and PktDst are those of the packets.
type Flow struct {
	ENI              string
	Egress           bool
	Protocol         uint8
	Src, Dst         netip.Addr
	PktSrc, PktDst   netip.Addr
	SrcPort, DstPort uint16
	Packets, Bytes   int64
	Start, End       time.Time
	Flags            uint8 // TCP's, as flow logs say them
	Rejected         Rejection
}

// Rejection says what refused a flow; "" is nothing.
type Rejection string

// What may refuse a flow.
const (
	RejectedByGroup Rejection = "SG"
	RejectedByACL   Rejection = "NACL"
)

// maxFlows bounds the records of a window. What is beyond is skipped, and said to be.
const maxFlows = 20000

// flows is what a fabric remembers of the counters between two windows.
type flows struct {
	seen  map[flowKey]counted
	links map[string]ENI // logged interfaces of this window, by link
}

type flowKey struct {
	set string
	key string
}

type counted struct {
	packets, bytes uint64
	last           time.Time
}

// Flows ends the window of flow logs that began with the last call and returns it. The first window of an engine begins
// when it is opened: what an earlier engine had counted and not returned is lost.
func (e *Engine) Flows() (FlowWindow, error) {
	e.set.Lock()
	defer e.set.Unlock()
	if e.closed {
		return FlowWindow{}, errors.New("vpc engine is closed")
	}
	w := FlowWindow{Start: e.window, End: time.Now()}
	e.window = w.End
	var errs []error
	for _, f := range e.copyFabrics() {
		if err := f.closeWindow(&w); err != nil {
			errs = append(errs, fmt.Errorf("flows of %s: %w", f.vpc.ID, err))
		}
	}
	slices.Sort(w.Interfaces)
	slices.Sort(w.Skipped)
	w.Skipped = slices.Compact(w.Skipped)
	slices.SortFunc(w.Flows, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.ENI, b.ENI), a.Start.Compare(b.Start), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst),
			cmp.Compare(a.SrcPort, b.SrcPort), cmp.Compare(a.DstPort, b.DstPort), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Rejected, b.Rejected))
	})
	return w, errors.Join(errs...)
}

// log takes down which interfaces are counted, also those that go before the window ends.
func (f *fabric) log(enis []ENI) {
	for _, n := range enis {
		if n.FlowLog && n.VPC == f.vpc.ID {
			if f.flows.links == nil {
				f.flows.links = map[string]ENI{}
			}
			f.flows.links[linkName(n.ID)] = n
		}
	}
}

// closeWindow adds what the fabric has counted since the last time.
func (f *fabric) closeWindow(w *FlowWindow) error {
	if len(f.flows.links) == 0 {
		return nil
	}
	old := f.flows
	f.flows = flows{seen: map[flowKey]counted{}, links: map[string]ENI{}}
	for link, n := range old.links {
		w.Interfaces = append(w.Interfaces, n.ID)
		if f.enis[n.ID] != nil && f.enis[n.ID].FlowLog {
			f.flows.links[link] = n
		}
	}
	for _, fam := range []family{ipv4, ipv6} {
		rs := f.loaded[fam]
		if rs == nil || !rs.logs() {
			continue
		}
		r := reader{f: f, family: fam, now: time.Now(), window: w, old: old, flags: map[string]tcpSeen{}}
		if err := r.read(); err != nil {
			f.flows.seen = old.seen
			return err
		}
	}
	return nil
}

// reader reads the counters of one family of one VPC.
type reader struct {
	f      *fabric
	family family
	now    time.Time
	window *FlowWindow
	old    flows
	flags  map[string]tcpSeen // by direction and key
}

type tcpSeen struct {
	flags uint8
	first time.Time // when its SYN passed, if it did in this window
}

func (r *reader) read() error {
	for _, in := range []bool{false, true} {
		for _, flag := range tcpFlags {
			elements, err := r.elements(flagSet(flag.name, in))
			if err != nil {
				return err
			}
			for _, el := range elements {
				last, now := r.touched(flagSet(flag.name, in), el)
				if !now {
					continue
				}
				k := direction(in) + string(el.Key)
				s := r.flags[k]
				s.flags |= flag.value
				if flag.value&2 != 0 {
					s.first = last
				}
				r.flags[k] = s
			}
		}
	}
	for _, in := range []bool{false, true} {
		for _, why := range []verdict{accepted, byGroup, byACL} {
			for _, kind := range []string{"tcp", "udp", "other"} {
				if err := r.readFlows(why, in, kind); err != nil {
					return err
				}
			}
		}
	}
	skipped, err := r.elements(skippedSet)
	if err != nil {
		return err
	}
	for _, el := range skipped {
		_, now := r.touched(skippedSet, el)
		if n, ok := r.old.links[cString(el.Key)]; ok && now {
			r.window.Skipped = append(r.window.Skipped, n.ID)
		}
	}
	return nil
}

func (r *reader) elements(set string) ([]nftables.SetElement, error) {
	out, err := r.f.nft.GetSetElements(&nftables.Set{Table: r.family.netlink(), Name: set})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", set, err)
	}
	return out, nil
}

// last is when an element was last touched: that is when it began to expire.
func (r *reader) last(el nftables.SetElement) time.Time {
	return r.now.Add(el.Expires - flowIdle)
}

// touched says when an element was last touched, and whether that was in this window. The kernel's clock is coarse, so
// what was known before counts only if it is clearly later now.
func (r *reader) touched(set string, el nftables.SetElement) (last time.Time, now bool) {
	const coarse = 50 * time.Millisecond
	k := flowKey{r.family.table() + set, string(el.Key)}
	last = r.last(el)
	was, known := r.old.seen[k]
	r.f.flows.seen[k] = counted{last: last}
	return last, !known || last.Sub(was.last) > coarse
}

func (r *reader) readFlows(why verdict, in bool, kind string) error {
	set := flowSet(why, in, kind)
	elements, err := r.elements(set)
	if err != nil {
		return err
	}
	for _, el := range elements {
		if el.Counter == nil {
			continue
		}
		k := flowKey{r.family.table() + set, string(el.Key)}
		now := counted{el.Counter.Packets, el.Counter.Bytes, r.last(el)}
		was, known := r.old.seen[k]
		// An element that had to expire since, or that has counted less, is another one.
		if known && (now.packets < was.packets || now.last.Sub(was.last) > flowIdle) {
			was, known = counted{}, false
		}
		r.f.flows.seen[k] = now
		if now.packets == was.packets {
			continue
		}
		n, ok := r.old.links[cString(el.Key[:16])]
		if !ok {
			continue
		}
		if len(r.window.Flows) >= maxFlows {
			r.window.Skipped = append(r.window.Skipped, n.ID)
			continue
		}
		flow, ok := parseFlow(el.Key, kind, r.family)
		if !ok {
			return fmt.Errorf("%s has a key of %d bytes", set, len(el.Key))
		}
		flow.ENI, flow.Egress = n.ID, !in
		flow.Packets, flow.Bytes = int64(now.packets-was.packets), int64(now.bytes-was.bytes)
		flow.Rejected = map[verdict]Rejection{byGroup: RejectedByGroup, byACL: RejectedByACL}[why]
		flow.End = clamp(now.last, r.window.Start, r.window.End)
		flow.Start = r.window.Start
		if kind == "tcp" {
			s := r.flags[direction(in)+string(el.Key)]
			flow.Flags = s.flags
			if !known && !s.first.IsZero() {
				flow.Start = clamp(s.first, r.window.Start, flow.End)
			}
		}
		if flow.Packets == 1 {
			flow.Start = flow.End
		}
		flow.Src, flow.Dst = flow.PktSrc, flow.PktDst
		own := n.addresses(r.family)
		// On its own side an interface has its primary address, whatever it passes on for others.
		if r.family == ipv4 {
			if in && flow.Dst != n.Address {
				flow.Dst = n.Address
			} else if !in && flow.Src != n.Address {
				flow.Src = n.Address
			}
		} else if in && !slices.Contains(own, flow.Dst) {
			flow.Dst = own[0]
		} else if !in && !slices.Contains(own, flow.Src) {
			flow.Src = own[0]
		}
		r.window.Flows = append(r.window.Flows, flow)
	}
	return nil
}

// parseFlow reads the key of an element: the interface, then addresses and ports or protocol, each in whole registers.
func parseFlow(key []byte, kind string, fam family) (f Flow, ok bool) {
	size := 4
	if fam == ipv6 {
		size = 16
	}
	rest := len(key) - 16 - 2*size
	if kind == "other" && rest != 4 || kind != "other" && rest != 8 {
		return f, false
	}
	f.PktSrc, _ = netip.AddrFromSlice(key[16 : 16+size])
	f.PktDst, _ = netip.AddrFromSlice(key[16+size : 16+2*size])
	key = key[16+2*size:]
	switch kind {
	case "tcp":
		f.Protocol = protoTCP
	case "udp":
		f.Protocol = protoUDP
	default:
		f.Protocol = key[0]
		return f, true
	}
	f.SrcPort, f.DstPort = binary.BigEndian.Uint16(key), binary.BigEndian.Uint16(key[4:])
	return f, true
}

func clamp(t, from, to time.Time) time.Time {
	if t.Before(from) {
		return from
	} else if t.After(to) {
		return to
	}
	return t
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return strings.TrimSpace(string(s))
}
