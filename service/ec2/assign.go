package ec2

import (
	"context"
	"net/netip"
	"slices"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// perInterface is how many addresses of a family an interface may have: what its
// instance's type allows.
func perInterface(r store.Reader, n *state.NetworkInterface) int {
	if n.Attachment != nil {
		if i, ok := state.Instances.Get(r, n.Attachment.Instance); ok {
			if t, ok := state.InstanceType(i.Type); ok {
				return t.IPv4PerENI
			}
		}
	}
	return 50
}

// AssignPrivateIpAddresses gives an interface further private addresses.
func (e *EC2) AssignPrivateIpAddresses(ctx context.Context, in *api.AssignPrivateIpAddressesInput) (*api.AssignPrivateIpAddressesOutput, error) {
	count := int(wire.Value(in.SecondaryPrivateIpAddressCount))
	switch {
	case len(in.Ipv4Prefixes) > 0 || wire.Value(in.Ipv4PrefixCount) > 0:
		return nil, unsupported("Ipv4Prefix")
	case len(in.PrivateIpAddresses) > 0 && in.SecondaryPrivateIpAddressCount != nil:
		return nil, bad("InvalidParameterCombination", "The parameter 'secondaryPrivateIpAddressCount' may not be used in combination with 'privateIpAddresses'")
	case len(in.PrivateIpAddresses) == 0 && count <= 0:
		return nil, bad("MissingParameter", "Either 'privateIpAddresses' or 'secondaryPrivateIpAddressCount' should be provided.")
	}
	var asked []netip.Addr
	for _, x := range in.PrivateIpAddresses {
		a, err := readAddress(&x, false)
		if err != nil {
			return nil, err
		}
		asked = append(asked, a)
	}
	out := &api.AssignPrivateIpAddressesOutput{NetworkInterfaceId: in.NetworkInterfaceId}
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		out.AssignedPrivateIpAddresses = nil
		n, err := ownInterface(tx, e.Account(ctx), *in.NetworkInterfaceId)
		if err != nil {
			return err
		}
		s, err := subnetOf(tx, n.Account, n.Subnet)
		if err != nil {
			return err
		}
		next := *n
		next.Secondary = slices.Clone(n.Secondary)
		if 1+len(n.Secondary)+max(count, len(asked)) > perInterface(tx, n) {
			return bad("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
		}
		free := state.FreeAddresses(tx)
		got := slices.Clone(asked)
		for _, a := range asked {
			l, taken := state.AddressLeases.Get(tx, state.LeaseKey(s.ID, a))
			switch {
			case taken && l.ENI == n.ID && (a == n.Address || !wire.Value(in.AllowReassignment)):
				return bad("InvalidParameterValue", "Address %s is already assigned to interface '%s'", a, n.ID)
			case taken && l.ENI != n.ID && wire.Value(in.AllowReassignment):
				if err := takeAway(tx, n.Account, l.ENI, a); err != nil {
					return err
				}
			case !taken:
				if err := free.Take(s, a); err != nil {
					return refused(err, asked, s)
				}
			case l.ENI != n.ID:
				return refused(state.ErrAddressTaken, []netip.Addr{a}, s)
			}
		}
		for range count {
			a, err := free.IPv4(s)
			if err != nil {
				return refused(err, nil, s)
			}
			got = append(got, a)
		}
		for _, a := range got {
			if !slices.ContainsFunc(next.Secondary, func(x state.SecondaryAddress) bool { return x.Address == a }) {
				next.Secondary = append(next.Secondary, state.SecondaryAddress{Address: a})
			}
			state.AddressLeases.Put(tx, &state.AddressLease{Scope: s.ID, Address: a, ENI: n.ID})
			out.AssignedPrivateIpAddresses = append(out.AssignedPrivateIpAddresses, api.AssignedPrivateIpAddress{PrivateIpAddress: new(a.String())})
		}
		state.NetworkInterfaces.Put(tx, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// takeAway moves a secondary address away from the interface that has it.
func takeAway(tx *store.Tx, account, eni string, a netip.Addr) error {
	n, err := ownInterface(tx, account, eni)
	if err != nil {
		return bad("InvalidIPAddress.InUse", "Address %s is in use.", a)
	}
	if a == n.Address {
		return bad("InvalidParameterValue", "Address %s is the primary address of interface '%s' and cannot be reassigned", a, eni)
	}
	return release(tx, n, []netip.Addr{a}, nil)
}

// release takes addresses from an interface, with their leases and what Elastic
// IPs were theirs.
func release(tx *store.Tx, n *state.NetworkInterface, four, six []netip.Addr) error {
	next := *n
	next.Secondary = slices.DeleteFunc(slices.Clone(n.Secondary), func(x state.SecondaryAddress) bool { return slices.Contains(four, x.Address) })
	next.IPv6 = slices.DeleteFunc(slices.Clone(n.IPv6), func(x netip.Addr) bool { return slices.Contains(six, x) })
	for _, a := range slices.Concat(four, six) {
		state.AddressLeases.Delete(tx, state.LeaseKey(n.Subnet, a))
	}
	for _, x := range n.Secondary {
		if x.Allocation == "" || !slices.Contains(four, x.Address) {
			continue
		}
		if ip, ok := state.ElasticIPs.Get(tx, x.Allocation); ok {
			free := *ip
			free.ENI, free.Association, free.Private = "", "", netip.Addr{}
			state.ElasticIPs.Put(tx, &free)
		}
	}
	state.NetworkInterfaces.Put(tx, &next)
	return nil
}

// UnassignPrivateIpAddresses takes secondary private addresses away.
func (e *EC2) UnassignPrivateIpAddresses(ctx context.Context, in *api.UnassignPrivateIpAddressesInput) (*api.UnassignPrivateIpAddressesOutput, error) {
	switch {
	case len(in.Ipv4Prefixes) > 0:
		return nil, unsupported("Ipv4Prefix")
	case len(in.PrivateIpAddresses) == 0:
		return nil, bad("MissingParameter", "The request must contain the parameter privateIpAddresses")
	}
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		n, err := ownInterface(tx, e.Account(ctx), *in.NetworkInterfaceId)
		if err != nil {
			return err
		}
		var gone []netip.Addr
		for _, x := range in.PrivateIpAddresses {
			a, err := readAddress(&x, false)
			if err != nil {
				return err
			}
			if a == n.Address {
				return bad("InvalidParameterValue", "The primary private IP address %s of interface '%s' cannot be unassigned", a, n.ID)
			}
			if !slices.ContainsFunc(n.Secondary, func(s state.SecondaryAddress) bool { return s.Address == a }) {
				return bad("InvalidParameterValue", "Some of the specified addresses are not assigned to interface %s", n.ID)
			}
			gone = append(gone, a)
		}
		return release(tx, n, gone, nil)
	})
	return &api.UnassignPrivateIpAddressesOutput{}, err
}

// AssignIpv6Addresses gives an interface IPv6 addresses.
func (e *EC2) AssignIpv6Addresses(ctx context.Context, in *api.AssignIpv6AddressesInput) (*api.AssignIpv6AddressesOutput, error) {
	count := int(wire.Value(in.Ipv6AddressCount))
	switch {
	case len(in.Ipv6Prefixes) > 0 || wire.Value(in.Ipv6PrefixCount) > 0:
		return nil, unsupported("Ipv6Prefix")
	case len(in.Ipv6Addresses) > 0 && in.Ipv6AddressCount != nil:
		return nil, bad("InvalidParameterCombination", "The parameter 'ipv6AddressCount' may not be used in combination with 'ipv6Addresses'")
	case len(in.Ipv6Addresses) == 0 && count <= 0:
		return nil, bad("MissingParameter", "Either 'ipv6Addresses' or 'ipv6AddressCount' should be provided.")
	}
	var asked []netip.Addr
	for _, x := range in.Ipv6Addresses {
		a, err := readAddress(&x, true)
		if err != nil {
			return nil, err
		}
		asked = append(asked, a)
	}
	out := &api.AssignIpv6AddressesOutput{NetworkInterfaceId: in.NetworkInterfaceId}
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		out.AssignedIpv6Addresses = nil
		n, err := ownInterface(tx, e.Account(ctx), *in.NetworkInterfaceId)
		if err != nil {
			return err
		}
		s, err := subnetOf(tx, n.Account, n.Subnet)
		if err != nil {
			return err
		}
		if len(s.IPv6) == 0 {
			return refused(state.ErrNoIPv6, nil, s)
		}
		if len(n.IPv6)+max(count, len(asked)) > perInterface(tx, n) {
			return bad("PrivateIpAddressLimitExceeded", "Number of IPv6 addresses will exceed limit.")
		}
		free := state.FreeAddresses(tx)
		next := *n
		next.IPv6 = slices.Clone(n.IPv6)
		got := slices.Clone(asked)
		for _, a := range asked {
			if err := free.Take(s, a); err != nil {
				return refused(err, []netip.Addr{a}, s)
			}
		}
		for range count {
			a, err := free.IPv6(s)
			if err != nil {
				return refused(err, nil, s)
			}
			got = append(got, a)
		}
		for _, a := range got {
			next.IPv6 = append(next.IPv6, a)
			state.AddressLeases.Put(tx, &state.AddressLease{Scope: s.ID, Address: a, ENI: n.ID})
			out.AssignedIpv6Addresses = append(out.AssignedIpv6Addresses, a.String())
		}
		state.NetworkInterfaces.Put(tx, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// UnassignIpv6Addresses takes IPv6 addresses away.
func (e *EC2) UnassignIpv6Addresses(ctx context.Context, in *api.UnassignIpv6AddressesInput) (*api.UnassignIpv6AddressesOutput, error) {
	switch {
	case len(in.Ipv6Prefixes) > 0:
		return nil, unsupported("Ipv6Prefix")
	case len(in.Ipv6Addresses) == 0:
		return nil, bad("MissingParameter", "The request must contain the parameter ipv6Addresses")
	}
	var gone []netip.Addr
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		gone = nil
		n, err := ownInterface(tx, e.Account(ctx), *in.NetworkInterfaceId)
		if err != nil {
			return err
		}
		for _, x := range in.Ipv6Addresses {
			a, err := readAddress(&x, true)
			if err != nil {
				return err
			}
			if !slices.Contains(n.IPv6, a) {
				return bad("InvalidParameterValue", "Some of the specified addresses are not assigned to interface %s", n.ID)
			}
			gone = append(gone, a)
		}
		return release(tx, n, nil, gone)
	})
	if err != nil {
		return nil, err
	}
	out := &api.UnassignIpv6AddressesOutput{NetworkInterfaceId: in.NetworkInterfaceId}
	for _, a := range gone {
		out.UnassignedIpv6Addresses = append(out.UnassignedIpv6Addresses, a.String())
	}
	return out, nil
}
