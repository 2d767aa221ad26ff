package state

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/store"
)

// Why an address cannot be had.
var (
	ErrSubnetFull     = errors.New("no free address in the subnet")
	ErrPoolEmpty      = errors.New("no free public address")
	ErrAddressOutside = errors.New("the address is not of the subnet")
	ErrAddressTaken   = errors.New("the address is in use")
	ErrNoIPv6         = errors.New("the subnet has no IPv6 range")
)

// Addresses chooses free addresses. What it has once given it does not give
// again, so one of them serves a whole plan, which cannot see its own changes.
// A choice is only good together with its lease: see [AddressLease].
type Addresses struct {
	r     store.Reader
	taken map[string]map[netip.Addr]bool // by scope: leased, or given before
	from  map[string]uint64              // where the next search of a scope begins
}

// FreeAddresses chooses among what r says is free.
func FreeAddresses(r store.Reader) *Addresses {
	return &Addresses{r: r, taken: map[string]map[netip.Addr]bool{}, from: map[string]uint64{}}
}

func (a *Addresses) scope(scope string) map[netip.Addr]bool {
	t := a.taken[scope]
	if t == nil {
		t = map[netip.Addr]bool{}
		for l := range AddressLeases.By(a.r, "scope", scope) {
			t[l.Address] = true
		}
		a.taken[scope] = t
		// The search goes round the range from a point that moves, so that an address just given
		// back is not at once somebody else's: a peer's connection would end at a stranger.
		a.from[scope] = uint64(len(t))
	}
	return t
}

// take notes that an address is given, unless it already is.
func (a *Addresses) take(scope string, x netip.Addr) bool {
	t := a.scope(scope)
	if t[x] {
		return false
	}
	// In a transaction this look is what makes two that choose the same address exclude each other.
	if _, used := AddressLeases.Get(a.r, LeaseKey(scope, x)); used {
		t[x] = true
		return false
	}
	t[x] = true
	return true
}

// Back returns an address that was given and is not wanted after all.
func (a *Addresses) Back(scope string, x netip.Addr) { delete(a.scope(scope), x) }

// IPv4 gives a free IPv4 address of the subnet, none of AWS's five and none
// that is reserved for being asked for by name.
func (a *Addresses) IPv4(s *Subnet) (netip.Addr, error) {
	var kept []netip.Prefix
	for x := range SubnetReservations.By(a.r, "subnet", s.ID) {
		kept = append(kept, x.CIDR)
	}
	x, ok := a.search(s.ID, s.CIDR, 4, kept)
	if !ok {
		return x, ErrSubnetFull
	}
	return x, nil
}

// Public gives a free address of the region's public pool, whose first is the
// machine's own.
func (a *Addresses) Public() (netip.Addr, error) {
	region, ok := Regions.Get(a.r, RegionKey)
	if ok {
		var x netip.Addr
		if x, ok = a.search(PublicScope, region.PublicPool, 2, nil); ok {
			return x, nil
		}
	}
	return netip.Addr{}, ErrPoolEmpty
}

// search looks for a free address but for the first reserved ones, the last,
// and those in kept.
func (a *Addresses) search(scope string, prefix netip.Prefix, reserved int, kept []netip.Prefix) (netip.Addr, bool) {
	if !prefix.Addr().Is4() {
		return netip.Addr{}, false
	}
	usable := 1<<(32-prefix.Bits()) - reserved - 1
	if usable <= 0 {
		return netip.Addr{}, false
	}
	base := prefix.Masked().Addr().As4()
	first := binary.BigEndian.Uint32(base[:]) + uint32(reserved)
	a.scope(scope)
	start := a.from[scope]
	for i := range uint64(usable) {
		var b [4]byte
		n := (start + i) % uint64(usable)
		binary.BigEndian.PutUint32(b[:], first+uint32(n))
		x := netip.AddrFrom4(b)
		if !within(kept, x) && a.take(scope, x) {
			a.from[scope] = n + 1
			return x, true
		}
	}
	return netip.Addr{}, false
}

func within(ps []netip.Prefix, x netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(x) })
}

// IPv6 gives a free address of the subnet's IPv6 range. There are enough that
// the next one is not where the last one was: it is a digest of the subnet and
// a number.
func (a *Addresses) IPv6(s *Subnet) (netip.Addr, error) {
	if len(s.IPv6) == 0 {
		return netip.Addr{}, ErrNoIPv6
	}
	base := s.IPv6[0].CIDR.Masked().Addr().As16()
	a.scope(s.ID)
	for range 1 << 16 {
		h := sha256.Sum256(fmt.Appendf(nil, "%s/%d", s.ID, a.from[s.ID]))
		a.from[s.ID]++
		b := base
		copy(b[8:], h[:8])
		if x := netip.AddrFrom16(b); a.Take(s, x) == nil {
			return x, nil
		}
	}
	return netip.Addr{}, ErrSubnetFull
}

// Network6 gives a free /56 of the region's pool, for a VPC.
func (a *Addresses) Network6() (netip.Prefix, error) {
	region, ok := Regions.Get(a.r, RegionKey)
	if !ok {
		return netip.Prefix{}, ErrPoolEmpty
	}
	pool := region.IPv6()
	a.scope(IPv6Scope)
	for range 1 << 16 {
		b := pool.Addr().As16()
		n := a.from[IPv6Scope] & 0xffffff
		a.from[IPv6Scope]++
		b[4], b[5], b[6] = byte(n>>16), byte(n>>8), byte(n)
		if x := netip.AddrFrom16(b); a.take(IPv6Scope, x) {
			return netip.PrefixFrom(x, 56), nil
		}
	}
	return netip.Prefix{}, ErrPoolEmpty
}

// IPv6 is the pool of which VPCs get their ranges: a unique local /32. What a
// region has not chosen yet follows from its short id.
func (r *Region) IPv6() netip.Prefix {
	if r.IPv6Pool.IsValid() {
		return r.IPv6Pool
	}
	id, err := hex.DecodeString(r.ShortID)
	if err != nil || len(id) != 3 {
		h := sha256.Sum256([]byte(r.ShortID + r.Name))
		id = h[:3]
	}
	b := [16]byte{0xfd, id[0], id[1], id[2]}
	return netip.PrefixFrom(netip.AddrFrom16(b), 32)
}

// Take takes an address that was asked for by name.
func (a *Addresses) Take(s *Subnet, x netip.Addr) error {
	switch {
	case !Usable(s, x):
		return ErrAddressOutside
	case !a.take(s.ID, x):
		return ErrAddressTaken
	}
	return nil
}

// Usable reports whether an interface in the subnet may have the address: the
// first four and the last of each range are AWS's own (facts: networking).
func Usable(s *Subnet, x netip.Addr) bool {
	p := s.CIDR
	if x.Is6() {
		if len(s.IPv6) == 0 {
			return false
		}
		p = s.IPv6[0].CIDR
	}
	if !p.Contains(x) {
		return false
	}
	first := p.Masked().Addr()
	for range 4 {
		if x == first {
			return false
		}
		first = first.Next()
	}
	return x != last(p)
}

func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	x, _ := netip.AddrFromSlice(b) // 4 or 16 bytes, as they came
	return x
}

// LeaseKey is the key of an address's lease.
func LeaseKey(scope string, x netip.Addr) string { return scope + "/" + x.String() }

// MAC derives the address of an interface from its id: locally administered,
// and already different in its first three bytes, which Amazon's own CNI
// plug-in names a device by (facts: agent protocol, 2.4).
func MAC(id string) string {
	h := sha256.Sum256([]byte(id))
	h[0] = h[0]&^1 | 2
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", h[0], h[1], h[2], h[3], h[4], h[5])
}

// PrivateName is the private DNS name of an address (facts: networking).
func PrivateName(a netip.Addr, region string) string {
	name := "ip-" + strings.ReplaceAll(a.String(), ".", "-")
	if region == "us-east-1" {
		return name + ".ec2.internal"
	}
	return name + "." + region + ".compute.internal"
}

// InterfaceAddresses are the addresses that a new interface is to have: those
// given by name, and as many more as are counted. The first of IPv4 is the
// primary one; without any, one is chosen.
type InterfaceAddresses struct {
	IPv4      []netip.Addr
	MoreIPv4  int // beside those named, or beside the primary one
	IPv6      []netip.Addr
	MoreIPv6  int
	Public    bool // a passing public address for the primary one
	NoDefault bool // no IPv6 address although the subnet assigns one to each interface
}

// NewInterface makes an interface of a subnet, with the leases of its addresses.
// All rows must be put in one transaction. The caller sets what else it wants
// before it puts the row. id is eni-…; the error is one of those above.
func NewInterface(a *Addresses, id string, s *Subnet, want InterfaceAddresses, now time.Time) (*NetworkInterface, []*AddressLease, error) {
	region, _ := Regions.Get(a.r, RegionKey)
	e := &NetworkInterface{ID: id, Account: s.Account, VPC: s.VPC, Subnet: s.ID, Zone: s.Zone, MAC: MAC(id),
		SourceDestCheck: true, Type: "interface", CreatedAt: now}
	var leases []*AddressLease
	undo := func(err error) (*NetworkInterface, []*AddressLease, error) {
		for _, l := range leases {
			a.Back(l.Scope, l.Address)
		}
		return nil, nil, err
	}
	lease := func(scope string, x netip.Addr) {
		leases = append(leases, &AddressLease{Scope: scope, Address: x, ENI: id})
	}
	var v4 []netip.Addr
	for _, x := range want.IPv4 {
		if !x.Is4() {
			return undo(ErrAddressOutside)
		}
		if err := a.Take(s, x); err != nil {
			return undo(err)
		}
		v4 = append(v4, x)
		lease(s.ID, x)
	}
	for len(v4) < max(len(want.IPv4), 1)+want.MoreIPv4 {
		x, err := a.IPv4(s)
		if err != nil {
			return undo(err)
		}
		v4 = append(v4, x)
		lease(s.ID, x)
	}
	e.Address = v4[0]
	for _, x := range v4[1:] {
		e.Secondary = append(e.Secondary, SecondaryAddress{Address: x})
	}
	for _, x := range want.IPv6 {
		if !x.Is6() {
			return undo(ErrAddressOutside)
		}
		if err := a.Take(s, x); err != nil {
			return undo(err)
		}
		e.IPv6 = append(e.IPv6, x)
		lease(s.ID, x)
	}
	more := want.MoreIPv6
	if s.AssignIPv6 && len(s.IPv6) > 0 && len(want.IPv6)+more == 0 && !want.NoDefault {
		more = 1
	}
	for range more {
		x, err := a.IPv6(s)
		if err != nil {
			return undo(err)
		}
		e.IPv6 = append(e.IPv6, x)
		lease(s.ID, x)
	}
	if want.Public {
		x, err := a.Public()
		if err != nil {
			return undo(err)
		}
		e.Public = x
		lease(PublicScope, x)
	}
	if region != nil {
		e.PrivateDNSName = PrivateName(e.Address, region.Name)
	}
	return e, leases, nil
}

// Leases are the leases of all addresses of an interface that are its own:
// those of Elastic IPs are not.
func (e *NetworkInterface) Leases(r store.Reader) (ls []*AddressLease) {
	add := func(scope string, x netip.Addr) {
		if l, ok := AddressLeases.Get(r, LeaseKey(scope, x)); ok && x.IsValid() && l.ENI == e.ID {
			ls = append(ls, l)
		}
	}
	add(e.Subnet, e.Address)
	add(PublicScope, e.Public)
	for _, s := range e.Secondary {
		add(e.Subnet, s.Address)
		add(PublicScope, s.Public)
	}
	for _, x := range e.IPv6 {
		add(e.Subnet, x)
	}
	return ls
}

// SubnetReservation keeps a range of a subnet from being handed out unasked.
type SubnetReservation struct {
	ID, Account, Subnet string // scr-…
	CIDR                netip.Prefix
	Type                string // prefix or explicit
	Description         string
	Tags                []Tag
}

// SubnetReservations is keyed by id.
var SubnetReservations = store.NewTable("scr", func(s *SubnetReservation) string { return s.ID },
	store.Index("subnet", func(s *SubnetReservation) []string { return []string{s.Subnet} }))
