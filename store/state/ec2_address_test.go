package state

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth/store"
)

// Whatever is taken and given back, by whichever of the ways there are: no
// address is ever two interfaces', none that AWS reserves or that a reservation
// keeps is chosen, a full subnet says so exactly when it is full, and what is
// given back is free again.
func TestAddressesAreGivenOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		db := store.OpenMemory()
		defer db.Close()
		update := func(f func(*store.Tx)) {
			if err := db.Update(context.Background(), func(tx *store.Tx) error { f(tx); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		bits := rapid.IntRange(27, 28).Draw(t, "bits")
		s := &Subnet{ID: "subnet-1", VPC: "vpc-1", CIDR: netip.PrefixFrom(netip.MustParseAddr("10.1.2.32"), bits),
			IPv6: []IPv6Block{{CIDR: netip.MustParsePrefix("fd00:1::/64")}}}
		kept := netip.PrefixFrom(netip.MustParseAddr("10.1.2.40"), 30)
		update(func(tx *store.Tx) {
			Regions.Put(tx, &Region{Name: "eu-west-1", PublicPool: netip.MustParsePrefix("198.18.0.0/28")})
			Subnets.Put(tx, s)
			SubnetReservations.Put(tx, &SubnetReservation{ID: "scr-1", Subnet: s.ID, CIDR: kept, Type: "explicit"})
		})
		size := 1 << (32 - bits)
		free, unkept := size-5, size-5-4
		live := map[string]*NetworkInterface{}
		v4, v4Kept, public := 0, 0, 0
		for n := range rapid.IntRange(1, 60).Draw(t, "rounds") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			default:
				id := "eni-" + string(rune('a'+n%26)) + string(rune('a'+n/26))
				want := InterfaceAddresses{MoreIPv4: rapid.IntRange(0, 3).Draw(t, "more"), MoreIPv6: rapid.IntRange(0, 2).Draw(t, "v6"), Public: rapid.Bool().Draw(t, "public")}
				needs := 1 + want.MoreIPv4
				fits := needs <= unkept-(v4-v4Kept)
				if want.Public && public == 13 {
					fits = false
				}
				// As a plan does, on a snapshot; the transaction takes what it chose.
				e, leases, err := NewInterface(FreeAddresses(db.Snapshot()), id, s, want, time.Time{})
				if (err == nil) != fits {
					t.Fatalf("%+v with %d of %d taken (%d kept): %v", want, v4, free, v4Kept, err)
				}
				if err != nil {
					if !errors.Is(err, ErrSubnetFull) && !errors.Is(err, ErrPoolEmpty) {
						t.Fatal(err)
					}
					continue
				}
				update(func(tx *store.Tx) {
					NetworkInterfaces.Put(tx, e)
					for _, l := range leases {
						if AddressLeases.Has(tx, LeaseKey(l.Scope, l.Address)) {
							t.Fatalf("%s is given twice", l.Address)
						}
						AddressLeases.Put(tx, l)
					}
				})
				live[id] = e
				v4 += needs
				if want.Public {
					public++
				}
			case 2: // by name, in a transaction
				x := s.CIDR.Addr()
				for range rapid.IntRange(0, size-1).Draw(t, "nth") {
					x = x.Next()
				}
				id := "eni-n" + x.String()
				update(func(tx *store.Tx) {
					e, leases, err := NewInterface(FreeAddresses(tx), id, s, InterfaceAddresses{IPv4: []netip.Addr{x}}, time.Time{})
					_, leased := AddressLeases.Get(tx, LeaseKey(s.ID, x))
					want := error(nil)
					if !Usable(s, x) {
						want = ErrAddressOutside
					} else if leased {
						want = ErrAddressTaken
					}
					if !errors.Is(err, want) {
						t.Fatalf("%s: %v, want %v", x, err, want)
					}
					if err != nil {
						return
					}
					NetworkInterfaces.Put(tx, e)
					for _, l := range leases {
						AddressLeases.Put(tx, l)
					}
					live[id] = e
					v4++
					if kept.Contains(x) {
						v4Kept++
					}
				})
			case 3:
				for id, e := range live {
					update(func(tx *store.Tx) {
						for _, l := range e.Leases(tx) {
							AddressLeases.Delete(tx, LeaseKey(l.Scope, l.Address))
						}
						NetworkInterfaces.Delete(tx, id)
					})
					delete(live, id)
					v4 -= 1 + len(e.Secondary)
					if kept.Contains(e.Address) {
						v4Kept--
					}
					if e.Public.IsValid() {
						public--
					}
					break
				}
			}
			seen := map[netip.Addr]bool{}
			for _, e := range live {
				all := append([]netip.Addr{e.Address}, e.IPv6...)
				for _, x := range e.Secondary {
					all = append(all, x.Address)
				}
				for _, x := range all {
					if seen[x] || !Usable(s, x) {
						t.Fatalf("%s is twice given, or none to give", x)
					}
					seen[x] = true
				}
				if e.Public.IsValid() && seen[e.Public] {
					t.Fatalf("%s is twice given", e.Public)
				}
				seen[e.Public] = true
			}
		}
		for id, e := range live {
			update(func(tx *store.Tx) {
				for _, l := range e.Leases(tx) {
					AddressLeases.Delete(tx, LeaseKey(l.Scope, l.Address))
				}
				NetworkInterfaces.Delete(tx, id)
			})
		}
		if n := AddressLeases.Count(db.Snapshot()); n != 0 {
			t.Fatalf("%d leases of nothing", n)
		}
	})
}

func TestUsable(t *testing.T) {
	s := &Subnet{CIDR: netip.MustParsePrefix("10.0.0.16/28"), IPv6: []IPv6Block{{CIDR: netip.MustParsePrefix("fd00::/64")}}}
	for x, want := range map[string]bool{
		"10.0.0.15": false, "10.0.0.16": false, "10.0.0.19": false, "10.0.0.20": true, "10.0.0.30": true, "10.0.0.31": false, "10.0.0.32": false,
		"fd00::3": false, "fd00::4": true, "fd00::ffff:ffff:ffff:fffe": true, "fd00::ffff:ffff:ffff:ffff": false, "fd00:0:0:1::4": false,
	} {
		if Usable(s, netip.MustParseAddr(x)) != want {
			t.Errorf("%s usable: %v", x, !want)
		}
	}
}
