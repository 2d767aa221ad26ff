package ec2

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noAllocation(id string) error {
	return bad("InvalidAllocationID.NotFound", "The allocation ID '%s' does not exist", id)
}

// mayNot refuses what is AWS's own to change.
func mayNot() error {
	return bad("AuthFailure", "You do not have permission to access the specified resource.")
}

// elasticOf finds an Elastic IP of the account by its allocation or its address.
func elasticOf(r store.Reader, account string, allocation, public *string) (*state.ElasticIP, error) {
	switch {
	case wire.Value(allocation) != "" && wire.Value(public) != "":
		return nil, bad("InvalidParameterCombination", "You may specify public IP or allocation id, but not both in the same call")
	case wire.Value(allocation) != "":
		if x, ok := state.ElasticIPs.Get(r, *allocation); ok && x.Account == account {
			return x, nil
		}
		return nil, noAllocation(*allocation)
	case wire.Value(public) != "":
		for x := range state.ElasticIPs.By(r, "address", *public) {
			if x.Account == account {
				x, _ = state.ElasticIPs.Get(r, x.ID) // compared at commit only if it is read
				return x, nil
			}
		}
		return nil, bad("InvalidAddress.NotFound", "Address '%s' not found.", *public)
	}
	return nil, bad("MissingParameter", "Either public IP or allocation id must be specified")
}

// AllocateAddress takes an address of the region's public pool for good.
func (e *EC2) AllocateAddress(ctx context.Context, in *api.AllocateAddressInput) (*api.AllocateAddressOutput, error) {
	switch {
	case in.Domain == "standard":
		return nil, unsupported("Domain standard")
	case in.Address != nil:
		return nil, unsupported("Address")
	case in.CustomerOwnedIpv4Pool != nil:
		return nil, unsupported("CustomerOwnedIpv4Pool")
	case in.IpamPoolId != nil:
		return nil, unsupported("IpamPoolId")
	}
	if p := wire.Value(in.PublicIpv4Pool); p != "" && p != "amazon" {
		return nil, bad("InvalidPublicIpv4PoolID.NotFound", "The PublicIpv4Pool ID '%s' does not exist", p)
	}
	if err := e.borderGroup(in.NetworkBorderGroup); err != nil {
		return nil, err
	}
	tags, err := tagsFor("elastic-ip", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	x := &state.ElasticIP{ID: e.id("eipalloc"), Account: e.Account(ctx), Tags: tags, CreatedAt: e.Now()}
	var made *state.ElasticIP
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		state.ElasticIPs.Guard(tx, "")
		n := 0
		for range state.ElasticIPs.By(tx, "account", x.Account) {
			n++
		}
		if n >= state.Limit(tx, x.Account, "vpc/elastic-ips") {
			return bad("AddressLimitExceeded", "The maximum number of addresses has been reached.")
		}
		a, err := state.FreeAddresses(tx).Public()
		if err != nil {
			return bad("InsufficientAddressCapacity", "Insufficient address capacity.")
		}
		next := *x
		next.Address = a
		made = &next
		state.ElasticIPs.Put(tx, made)
		state.AddressLeases.Put(tx, &state.AddressLease{Scope: state.PublicScope, Address: a, Owner: x.ID})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.AllocateAddressOutput{AllocationId: new(made.ID), PublicIp: new(made.Address.String()), PublicIpv4Pool: new("amazon"), NetworkBorderGroup: new(e.Region), Domain: "vpc"}, nil
}

// ReleaseAddress gives an address back that nothing uses.
func (e *EC2) ReleaseAddress(ctx context.Context, in *api.ReleaseAddressInput) (*api.ReleaseAddressOutput, error) {
	if err := e.borderGroup(in.NetworkBorderGroup); err != nil {
		return nil, err
	}
	return &api.ReleaseAddressOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		x, err := elasticOf(tx, e.Account(ctx), in.AllocationId, in.PublicIp)
		if err != nil {
			return err
		}
		if x.Association != "" {
			return bad("InvalidIPAddress.InUse", "Address %s is in use.", x.Address)
		}
		state.ElasticIPs.Delete(tx, x.ID)
		state.AddressLeases.Delete(tx, state.LeaseKey(state.PublicScope, x.Address))
		return nil
	})
}

// publicOf is the public address that goes with a private one of an interface,
// and the allocation it is of.
func publicOf(n *state.NetworkInterface, private netip.Addr) (*netip.Addr, *string) {
	if n.Address == private {
		return &n.Public, &n.Allocation
	}
	for i := range n.Secondary {
		if s := &n.Secondary[i]; s.Address == private {
			return &s.Public, &s.Allocation
		}
	}
	return nil, nil
}

// attach associates an Elastic IP with a private address of an interface. What
// is there goes: a passing address for good, another Elastic IP to its owner.
func attach(tx *store.Tx, x *state.ElasticIP, n *state.NetworkInterface, private netip.Addr, association string) (*state.ElasticIP, *state.NetworkInterface) {
	ip, eni := *x, *n
	eni.Secondary = slices.Clone(n.Secondary)
	public, allocation := publicOf(&eni, private)
	if old, ok := state.ElasticIPs.Get(tx, *allocation); ok {
		free := *old
		free.Association, free.ENI, free.Private = "", "", netip.Addr{}
		state.ElasticIPs.Put(tx, &free)
	} else if public.IsValid() {
		state.AddressLeases.Delete(tx, state.LeaseKey(state.PublicScope, *public))
	}
	*public, *allocation = ip.Address, ip.ID
	ip.Association, ip.ENI, ip.Private = association, eni.ID, private
	state.ElasticIPs.Put(tx, &ip)
	state.NetworkInterfaces.Put(tx, &eni)
	return &ip, &eni
}

// detach takes an Elastic IP from the interface it is associated with.
func detach(tx *store.Tx, x *state.ElasticIP) {
	ip := *x
	ip.Association, ip.ENI, ip.Private = "", "", netip.Addr{}
	state.ElasticIPs.Put(tx, &ip)
	n, ok := state.NetworkInterfaces.Get(tx, x.ENI)
	if !ok {
		return
	}
	eni := *n
	eni.Secondary = slices.Clone(n.Secondary)
	if public, allocation := publicOf(&eni, x.Private); public != nil && *allocation == x.ID {
		*public, *allocation = netip.Addr{}, ""
		state.NetworkInterfaces.Put(tx, &eni)
	}
}

// AssociateAddress gives an interface or an instance a public address that
// stays the account's.
func (e *EC2) AssociateAddress(ctx context.Context, in *api.AssociateAddressInput) (*api.AssociateAddressOutput, error) {
	switch {
	case wire.Value(in.InstanceId) == "" && wire.Value(in.NetworkInterfaceId) == "":
		return nil, bad("MissingParameter", "Either instance ID or network interface id must be specified")
	case wire.Value(in.InstanceId) != "" && wire.Value(in.NetworkInterfaceId) != "":
		return nil, bad("InvalidParameterCombination", "You may specify instance ID or network interface id, but not both in the same call")
	}
	account, id := e.Account(ctx), e.id("eipassoc")
	keep := in.AllowReassociation != nil && !*in.AllowReassociation
	var association string
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		x, err := elasticOf(tx, account, in.AllocationId, in.PublicIp)
		if err != nil {
			return err
		}
		n, err := e.associable(tx, account, in)
		if err != nil {
			return err
		}
		private := n.Address
		if in.PrivateIpAddress != nil {
			if private, err = netip.ParseAddr(*in.PrivateIpAddress); err != nil {
				return bad("InvalidParameterValue", "invalid value for parameter privateIpAddress: %s", *in.PrivateIpAddress)
			}
		}
		public, allocation := publicOf(n, private)
		switch {
		case public == nil:
			return bad("InvalidParameterValue", "The private IP address %s is not assigned to network interface %s", private, n.ID)
		case gatewayOfVPC(tx, n.VPC) == nil:
			return bad("Gateway.NotAttached", "Network %s is not attached to any internet gateway", n.VPC)
		case x.ENI == n.ID && x.Private == private:
			association = x.Association
			return nil
		case x.ENI != "" && keep:
			return bad("Resource.AlreadyAssociated", "resource %s is already associated with associate-id %s", x.ID, x.Association)
		case *allocation != "" && keep:
			return bad("Resource.AlreadyAssociated", "resource %s is already associated with address %s", n.ID, *public)
		}
		g := gatewayOfVPC(tx, n.VPC)
		state.InternetGateways.Get(tx, g.ID) // it cannot be detached meanwhile
		if x.ENI != "" {
			if eni, ok := state.NetworkInterfaces.Get(tx, x.ENI); ok && eni.RequesterManaged {
				return mayNot()
			}
			detach(tx, x)
			x, _ = state.ElasticIPs.Get(tx, x.ID)
			n, _ = state.NetworkInterfaces.Get(tx, n.ID)
		}
		attach(tx, x, n, private, id)
		association = id
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.AssociateAddressOutput{AssociationId: &association}, nil
}

// associable is the interface that a request to associate an address names.
func (e *EC2) associable(tx *store.Tx, account string, in *api.AssociateAddressInput) (*state.NetworkInterface, error) {
	if id := wire.Value(in.InstanceId); id != "" {
		if i, ok := state.Instances.Get(tx, id); ok && i.Account == account && i.State != "running" && i.State != "stopped" && i.State != "terminated" {
			return nil, bad("InvalidInstanceID", "The %s instance '%s' is not in a valid state for this operation.", i.State, id)
		}
		return onlyInterface(tx, account, id)
	}
	id := *in.NetworkInterfaceId
	n, ok := state.NetworkInterfaces.Get(tx, id)
	switch {
	case !ok || n.Account != account || n.Deleting:
		if err := malformed("InvalidNetworkInterfaceId", "eni", id); err != nil {
			return nil, err
		}
		return nil, bad("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id)
	case n.RequesterManaged:
		return nil, mayNot()
	}
	return n, nil
}

// DisassociateAddress takes an Elastic IP from what has it.
func (e *EC2) DisassociateAddress(ctx context.Context, in *api.DisassociateAddressInput) (*api.DisassociateAddressOutput, error) {
	account := e.Account(ctx)
	return &api.DisassociateAddressOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		var x *state.ElasticIP
		if id := wire.Value(in.AssociationId); id != "" {
			var err error
			if x, err = associatedAs(tx, account, id); err != nil {
				return err
			}
		} else {
			var err error
			if x, err = elasticOf(tx, account, nil, in.PublicIp); err != nil {
				return err
			}
			if x.Association == "" {
				return bad("InvalidAssociationID.NotFound", "The address '%s' is not associated", x.Address)
			}
		}
		if n, ok := state.NetworkInterfaces.Get(tx, x.ENI); ok && n.RequesterManaged {
			return mayNot()
		}
		detach(tx, x)
		return nil
	})
}

// associatedAs finds the Elastic IP with an association.
func associatedAs(tx *store.Tx, account, id string) (*state.ElasticIP, error) {
	for x := range state.ElasticIPs.By(tx, "account", account) {
		if x.Association == id {
			x, _ = state.ElasticIPs.Get(tx, x.ID) // compared at commit only if it is read
			return x, nil
		}
	}
	return nil, bad("InvalidAssociationID.NotFound", "The association ID '%s' does not exist", id)
}

// DescribeAddresses lists Elastic IPs.
func (e *EC2) DescribeAddresses(ctx context.Context, in *api.DescribeAddressesInput) (*api.DescribeAddressesOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	q := request{ids: in.AllocationIds, filters: in.Filters}
	for _, ip := range in.PublicIps {
		x, err := elasticOf(snap, account, nil, &ip)
		if err != nil {
			return nil, err
		}
		q.ids = append(slices.Clone(q.ids), x.ID)
	}
	eni := func(x *state.ElasticIP) *state.NetworkInterface {
		n, _ := state.NetworkInterfaces.Get(snap, x.ENI)
		return n
	}
	out, _, err := list(q, kind[*state.ElasticIP, api.Address]{
		name: "eips", rows: state.ElasticIPs.By(snap, "account", account),
		id:      func(x *state.ElasticIP) string { return x.ID },
		missing: noAllocation,
		tags:    func(x *state.ElasticIP) []state.Tag { return x.Tags },
		filters: filters[*state.ElasticIP]{
			"allocation-id":        func(x *state.ElasticIP) []string { return one(x.ID) },
			"association-id":       func(x *state.ElasticIP) []string { return one(x.Association) },
			"domain":               func(*state.ElasticIP) []string { return one("vpc") },
			"network-border-group": func(*state.ElasticIP) []string { return one(e.Region) },
			"network-interface-id": func(x *state.ElasticIP) []string { return one(x.ENI) },
			"network-interface-owner-id": func(x *state.ElasticIP) []string {
				if n := eni(x); n != nil {
					return one(n.Account)
				}
				return nil
			},
			"instance-id": func(x *state.ElasticIP) []string {
				if n := eni(x); n != nil && n.Attachment != nil {
					return one(n.Attachment.Instance)
				}
				return nil
			},
			"private-ip-address": func(x *state.ElasticIP) []string { return address(x.Private) },
			"public-ip":          func(x *state.ElasticIP) []string { return address(x.Address) },
		},
		view: func(x *state.ElasticIP) api.Address {
			out := api.Address{AllocationId: new(x.ID), Domain: "vpc", PublicIp: new(x.Address.String()), PublicIpv4Pool: new("amazon"), NetworkBorderGroup: new(e.Region), Tags: tagsView(x.Tags)}
			if n := eni(x); n != nil {
				out.AssociationId, out.NetworkInterfaceId, out.NetworkInterfaceOwnerId = new(x.Association), new(n.ID), new(n.Account)
				out.PrivateIpAddress = new(x.Private.String())
				if n.Attachment != nil {
					out.InstanceId = new(n.Attachment.Instance)
				}
				if n.Type == "nat_gateway" {
					out.ServiceManaged = "nat"
				}
			}
			return out
		},
	})
	return &api.DescribeAddressesOutput{Addresses: out}, err
}

func attributeView(x *state.ElasticIP) api.AddressAttribute {
	out := api.AddressAttribute{AllocationId: new(x.ID), PublicIp: new(x.Address.String())}
	if x.Reverse != "" {
		out.PtrRecord = new(x.Reverse)
	}
	return out
}

// DescribeAddressesAttribute lists the domain names of Elastic IPs.
func (e *EC2) DescribeAddressesAttribute(ctx context.Context, in *api.DescribeAddressesAttributeInput) (*api.DescribeAddressesAttributeOutput, error) {
	out, next, err := list(request{ids: in.AllocationIds, max: in.MaxResults, token: in.NextToken}, kind[*state.ElasticIP, api.AddressAttribute]{
		name: "eipattributes", rows: state.ElasticIPs.By(e.DB.Snapshot(), "account", e.Account(ctx)),
		id:      func(x *state.ElasticIP) string { return x.ID },
		missing: noAllocation,
		view:    attributeView,
	})
	return &api.DescribeAddressesAttributeOutput{Addresses: out, NextToken: next}, err
}

// ModifyAddressAttribute keeps the domain name that an Elastic IP should have.
func (e *EC2) ModifyAddressAttribute(ctx context.Context, in *api.ModifyAddressAttributeInput) (*api.ModifyAddressAttributeOutput, error) {
	out, err := e.reverse(ctx, in.AllocationId, wire.Value(in.DomainName))
	if err != nil {
		return nil, err
	}
	return &api.ModifyAddressAttributeOutput{Address: out}, nil
}

// ResetAddressAttribute forgets it.
func (e *EC2) ResetAddressAttribute(ctx context.Context, in *api.ResetAddressAttributeInput) (*api.ResetAddressAttributeOutput, error) {
	out, err := e.reverse(ctx, in.AllocationId, "")
	if err != nil {
		return nil, err
	}
	return &api.ResetAddressAttributeOutput{Address: out}, nil
}

func (e *EC2) reverse(ctx context.Context, allocation *string, name string) (*api.AddressAttribute, error) {
	var out api.AddressAttribute
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		x, err := elasticOf(tx, e.Account(ctx), allocation, nil)
		if err != nil {
			return err
		}
		n := *x
		n.Reverse = name
		state.ElasticIPs.Put(tx, &n)
		out = attributeView(&n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// refused says why an address cannot be had, in AWS's words.
func refused(err error, asked []netip.Addr, s *state.Subnet) error {
	which := netip.Addr{}
	for _, a := range asked {
		if !state.Usable(s, a) || errors.Is(err, state.ErrAddressTaken) {
			which = a
			break
		}
	}
	switch {
	case errors.Is(err, state.ErrSubnetFull):
		return bad("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet '%s' to satisfy the requested number of addresses.", s.ID)
	case errors.Is(err, state.ErrPoolEmpty):
		return bad("InsufficientAddressCapacity", "There are not enough free public addresses.")
	case errors.Is(err, state.ErrNoIPv6):
		return bad("InvalidParameterValue", "Subnet '%s' has no associated IPv6 CIDR block", s.ID)
	case errors.Is(err, state.ErrAddressTaken):
		return bad("InvalidIPAddress.InUse", "Address %s is in use.", which)
	case errors.Is(err, state.ErrAddressOutside) && s.CIDR.Contains(which):
		return bad("InvalidParameterValue", "Address %s is in subnet's reserved address range", which)
	case errors.Is(err, state.ErrAddressOutside):
		return bad("InvalidParameterValue", "Address does not fall within the subnet's address range")
	}
	return err
}
