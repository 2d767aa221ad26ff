package ec2

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noNAT(id string) error {
	if malformed("", "nat", id) != nil {
		return bad("NatGatewayMalformed", "NatGateway ID '%s' is malformed", id)
	}
	return bad("NatGatewayNotFound", "NatGateway %s was not found", id)
}

// natOf finds a NAT gateway of the account.
func natOf(r store.Reader, account, id string) (*state.NATGateway, error) {
	g, ok := state.NATGateways.Get(r, id)
	if !ok || g.Account != account {
		return nil, noNAT(id)
	}
	return g, nil
}

func readAddresses(texts []string, parameter string) (out []netip.Addr, err error) {
	for _, s := range texts {
		a, err := netip.ParseAddr(s)
		if err != nil || !a.Is4() {
			return nil, bad("InvalidParameterValue", "invalid value for parameter %s: %s", parameter, s)
		}
		if slices.Contains(out, a) {
			return nil, bad("InvalidParameterValue", "Duplicate value (%s) for parameter %s", s, parameter)
		}
		out = append(out, a)
	}
	return out, nil
}

// CreateNatGateway makes a NAT gateway with its interface. It is available once
// a node has the interface in its kernel; what AWS finds out late makes it fail late.
func (e *EC2) CreateNatGateway(ctx context.Context, in *api.CreateNatGatewayInput) (*api.CreateNatGatewayOutput, error) {
	public := in.ConnectivityType != "private"
	more := int(wire.Value(in.SecondaryPrivateIpAddressCount))
	switch {
	case in.AvailabilityMode != "" && in.AvailabilityMode != "zonal", len(in.AvailabilityZoneAddresses) > 0, in.VpcId != nil:
		return nil, unsupported("AvailabilityMode regional")
	case wire.Value(in.SubnetId) == "":
		return nil, bad("MissingParameter", "The request must contain the parameter SubnetId")
	case public && wire.Value(in.AllocationId) == "":
		return nil, bad("MissingParameter", "The request must contain the parameter AllocationId")
	case !public && (in.AllocationId != nil || len(in.SecondaryAllocationIds) > 0):
		return nil, bad("InvalidParameterCombination", "AllocationId cannot be specified for a NAT gateway with connectivity type private")
	case public && more > 0:
		return nil, bad("InvalidParameterCombination", "SecondaryPrivateIpAddressCount cannot be specified for a NAT gateway with connectivity type public")
	case more > 0 && len(in.SecondaryPrivateIpAddresses) > 0:
		return nil, bad("InvalidParameterCombination", "The parameter SecondaryPrivateIpAddressCount cannot be used with the parameter SecondaryPrivateIpAddresses")
	case public && len(in.SecondaryPrivateIpAddresses) > 0 && len(in.SecondaryPrivateIpAddresses) != len(in.SecondaryAllocationIds):
		return nil, bad("InvalidParameterCombination", "There must be as many SecondaryPrivateIpAddresses as SecondaryAllocationIds")
	case more < 0:
		return nil, bad("InvalidParameterValue", "Value (%d) for parameter SecondaryPrivateIpAddressCount is invalid", more)
	}
	if public && len(in.SecondaryPrivateIpAddresses) == 0 {
		more = len(in.SecondaryAllocationIds)
	}
	asked := slices.Clone(in.SecondaryPrivateIpAddresses)
	want := state.InterfaceAddresses{MoreIPv4: more, NoDefault: true}
	if in.PrivateIpAddress != nil {
		asked = append([]string{*in.PrivateIpAddress}, asked...)
	}
	var err error
	if want.IPv4, err = readAddresses(asked, "privateIpAddress"); err != nil {
		return nil, err
	}
	tags, err := tagsFor("natgateway", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	account, token := e.Account(ctx), wire.Value(in.ClientToken)
	allocations := slices.Clone(in.SecondaryAllocationIds)
	if public {
		allocations = append([]string{*in.AllocationId}, allocations...)
	}
	g := &state.NATGateway{ID: e.id("nat"), Account: account, Subnet: *in.SubnetId, Public: public, State: "pending", ClientToken: token, Tags: tags, CreatedAt: e.Now()}
	eni := e.id("eni")
	var made *state.NATGateway
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		s, err := subnetOf(tx, account, g.Subnet)
		if err != nil {
			return err
		}
		state.NATGateways.Guard(tx, "")
		n := 0
		for have := range mine(state.NATGateways.All(tx), account, func(g *state.NATGateway) string { return g.Account }) {
			if token != "" && have.ClientToken == token {
				if have.Subnet != g.Subnet || have.Public != g.Public {
					return mismatch()
				}
				made = have
				return nil
			}
			if x, ok := state.Subnets.Get(tx, have.Subnet); ok && x.Zone == s.Zone && have.State != "deleted" && have.State != "failed" {
				n++
			}
		}
		if max := state.Limit(tx, account, "vpc/nat-gateways-per-zone"); n >= max {
			return bad("NatGatewayLimitExceeded", "Performing this operation would exceed the limit of %d NAT gateways", max)
		}
		if max := state.Limit(tx, account, "vpc/addresses-per-nat-gateway"); len(want.IPv4)+want.MoreIPv4 > max {
			return bad("NatGatewayAddressLimitExceeded", "Performing this operation would exceed the limit of %d addresses of a NAT gateway", max)
		}
		next := *g
		next.VPC = s.VPC
		made = &next
		for i, id := range allocations {
			x, err := elasticOf(tx, account, &id, nil)
			switch {
			case err != nil:
				return err
			case slices.Contains(allocations[:i], id):
				return bad("InvalidParameterValue", "Duplicate value (%s) for parameter AllocationId", id)
			case x.Association != "":
				fail(tx, made, "Resource.AlreadyAssociated", fmt.Sprintf("Elastic IP address [%s] is already associated", id))
				return nil
			}
		}
		full := func() error {
			fail(tx, made, "InsufficientFreeAddressesInSubnet", fmt.Sprintf("Subnet has insufficient free addresses to create this NAT gateway: %s", s.ID))
			return nil
		}
		want := want
		if in.PrivateIpAddress == nil && len(want.IPv4) > 0 {
			// Those named are secondary ones: the primary one is any other.
			primary, err := another(tx, s, want.IPv4)
			if errors.Is(err, state.ErrSubnetFull) {
				return full()
			} else if err != nil {
				return refused(err, want.IPv4, s)
			}
			want.IPv4 = append([]netip.Addr{primary}, want.IPv4...)
		}
		n2, leases, err := state.NewInterface(state.FreeAddresses(tx), eni, s, want, g.CreatedAt)
		if errors.Is(err, state.ErrSubnetFull) {
			return full()
		} else if err != nil {
			return refused(err, want.IPv4, s)
		}
		n2.Account, n2.Type, n2.Owner, n2.RequesterManaged, n2.SourceDestCheck = account, "nat_gateway", made.ID, true, false
		n2.Description, n2.AttachmentID = "Interface for NAT Gateway "+made.ID, e.id("ela-attach")
		state.NetworkInterfaces.Put(tx, n2)
		for _, l := range leases {
			state.AddressLeases.Put(tx, l)
		}
		made.ENI = n2.ID
		privates := []netip.Addr{n2.Address}
		for _, x := range n2.Secondary {
			privates = append(privates, x.Address)
		}
		for i, p := range privates {
			a := state.NATAddress{Private: p}
			if public {
				x, _ := state.ElasticIPs.Get(tx, allocations[i])
				x, n2 = attach(tx, x, n2, p, e.id("eipassoc"))
				a.Public, a.Allocation, a.Association = x.Address, x.ID, x.Association
			}
			made.Addresses = append(made.Addresses, a)
		}
		state.NATGateways.Put(tx, made)
		return nil
	})
	if err != nil {
		return nil, err
	}
	// What AWS finds out only later it does not tell here.
	out := natView(made)
	out.FailureCode, out.FailureMessage, out.DeleteTime = nil, nil, nil
	if out.State == "failed" {
		out.State = "pending"
	}
	return &api.CreateNatGatewayOutput{ClientToken: in.ClientToken, NatGateway: &out}, nil
}

// another is a free address beside those named.
func another(tx *store.Tx, s *state.Subnet, named []netip.Addr) (netip.Addr, error) {
	free := state.FreeAddresses(tx)
	for _, x := range named {
		if err := free.Take(s, x); err != nil {
			return x, err
		}
	}
	return free.IPv4(s)
}

func fail(tx *store.Tx, g *state.NATGateway, code, message string) {
	g.State, g.FailureCode, g.Failure, g.DeletedAt = "failed", code, message, g.CreatedAt
	state.NATGateways.Put(tx, g)
}

// DeleteNatGateway lets a NAT gateway go. Its Elastic IPs stay the account's,
// and routes to it become blackholes.
func (e *EC2) DeleteNatGateway(ctx context.Context, in *api.DeleteNatGatewayInput) (*api.DeleteNatGatewayOutput, error) {
	id := wire.Value(in.NatGatewayId)
	return &api.DeleteNatGatewayOutput{NatGatewayId: new(id)}, e.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := natOf(tx, e.Account(ctx), id)
		if err != nil {
			return err
		}
		n := *g
		switch g.State {
		case "deleted":
			return noNAT(id)
		case "deleting":
			return nil
		case "failed":
			n.State = "deleted"
		default:
			n.State = "deleting"
		}
		n.DeletedAt = e.Now()
		state.NATGateways.Put(tx, &n)
		if x, ok := state.NetworkInterfaces.Get(tx, g.ENI); ok && !x.Deleting {
			eni := *x
			eni.Deleting = true
			state.NetworkInterfaces.Put(tx, &eni)
		}
		return nil
	})
}

// DescribeNatGateways lists NAT gateways, those deleted within the hour too.
func (e *EC2) DescribeNatGateways(ctx context.Context, in *api.DescribeNatGatewaysInput) (*api.DescribeNatGatewaysOutput, error) {
	out, next, err := list(request{in.NatGatewayIds, in.Filter, in.MaxResults, in.NextToken}, kind[*state.NATGateway, api.NatGateway]{
		name: "nats", rows: mine(state.NATGateways.All(e.DB.Snapshot()), e.Account(ctx), func(g *state.NATGateway) string { return g.Account }),
		id:      func(g *state.NATGateway) string { return g.ID },
		missing: noNAT,
		tags:    func(g *state.NATGateway) []state.Tag { return g.Tags },
		filters: filters[*state.NATGateway]{
			"nat-gateway-id": func(g *state.NATGateway) []string { return one(g.ID) },
			"state":          func(g *state.NATGateway) []string { return one(g.State) },
			"subnet-id":      func(g *state.NATGateway) []string { return one(g.Subnet) },
			"vpc-id":         func(g *state.NATGateway) []string { return one(g.VPC) },
		},
		view: natView,
	})
	return &api.DescribeNatGatewaysOutput{NatGateways: out, NextToken: next}, err
}

func natView(g *state.NATGateway) api.NatGateway {
	out := api.NatGateway{NatGatewayId: new(g.ID), SubnetId: new(g.Subnet), VpcId: new(g.VPC), State: api.NatGatewayState(g.State), CreateTime: new(g.CreatedAt),
		ConnectivityType: "private", AvailabilityMode: "zonal", Tags: tagsView(g.Tags), NatGatewayAddresses: natAddresses(g)}
	if g.Public {
		out.ConnectivityType = "public"
	}
	if g.FailureCode != "" {
		out.FailureCode, out.FailureMessage = new(g.FailureCode), new(g.Failure)
	}
	if !g.DeletedAt.IsZero() {
		out.DeleteTime = new(g.DeletedAt)
	}
	return out
}

func natAddresses(g *state.NATGateway) []api.NatGatewayAddress {
	out := []api.NatGatewayAddress{}
	for i, a := range g.Addresses {
		x := api.NatGatewayAddress{NetworkInterfaceId: new(g.ENI), PrivateIp: new(a.Private.String()), IsPrimary: new(i == 0), Status: "succeeded"}
		if a.Public.IsValid() {
			x.PublicIp, x.AllocationId, x.AssociationId = new(a.Public.String()), new(a.Allocation), new(a.Association)
		}
		out = append(out, x)
	}
	return out
}

// changeNAT changes the addresses of an available NAT gateway together with
// those of its interface.
func (e *EC2) changeNAT(ctx context.Context, id string, public bool, change func(tx *store.Tx, g *state.NATGateway, n *state.NetworkInterface, s *state.Subnet) error) (*state.NATGateway, error) {
	var made *state.NATGateway
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := natOf(tx, e.Account(ctx), id)
		if err != nil {
			return err
		}
		if g.State != "available" {
			return bad("IncorrectState", "NatGateway %s is in state %s; it must be available", id, g.State)
		}
		if g.Public != public {
			return bad("UnsupportedOperation", "This operation is not supported for NatGateway %s of its connectivity type", id)
		}
		n, ok := state.NetworkInterfaces.Get(tx, g.ENI)
		s, found := state.Subnets.Get(tx, g.Subnet)
		if !ok || !found {
			return bad("IncorrectState", "NatGateway %s has no interface", id)
		}
		next, eni := *g, *n
		next.Addresses, eni.Secondary = slices.Clone(g.Addresses), slices.Clone(n.Secondary)
		if err := change(tx, &next, &eni, s); err != nil {
			return err
		}
		if max := state.Limit(tx, g.Account, "vpc/addresses-per-nat-gateway"); len(next.Addresses) > max && len(next.Addresses) > len(g.Addresses) {
			return bad("NatGatewayAddressLimitExceeded", "Performing this operation would exceed the limit of %d addresses of a NAT gateway", max)
		}
		state.NATGateways.Put(tx, &next)
		state.NetworkInterfaces.Put(tx, &eni)
		made = &next
		return nil
	})
	return made, err
}

// addSecondary gives a NAT gateway's interface further private addresses.
func addSecondary(tx *store.Tx, g *state.NATGateway, n *state.NetworkInterface, s *state.Subnet, asked []netip.Addr, count int) error {
	free := state.FreeAddresses(tx)
	for i := range max(count, len(asked)) {
		var x netip.Addr
		var err error
		if i < len(asked) {
			x, err = asked[i], free.Take(s, asked[i])
		} else {
			x, err = free.IPv4(s)
		}
		if err != nil {
			return refused(err, asked, s)
		}
		n.Secondary = append(n.Secondary, state.SecondaryAddress{Address: x})
		g.Addresses = append(g.Addresses, state.NATAddress{Private: x})
		state.AddressLeases.Put(tx, &state.AddressLease{Scope: s.ID, Address: x, ENI: n.ID})
	}
	return nil
}

// dropSecondary takes an address that is not the primary one.
func dropSecondary(tx *store.Tx, g *state.NATGateway, n *state.NetworkInterface, i int) {
	x := g.Addresses[i].Private
	g.Addresses = slices.Delete(g.Addresses, i, i+1)
	n.Secondary = slices.DeleteFunc(n.Secondary, func(s state.SecondaryAddress) bool { return s.Address == x })
	state.AddressLeases.Delete(tx, state.LeaseKey(n.Subnet, x))
}

// AssignPrivateNatGatewayAddress gives a private NAT gateway further addresses.
func (e *EC2) AssignPrivateNatGatewayAddress(ctx context.Context, in *api.AssignPrivateNatGatewayAddressInput) (*api.AssignPrivateNatGatewayAddressOutput, error) {
	asked, err := readAddresses(in.PrivateIpAddresses, "privateIpAddress")
	if err != nil {
		return nil, err
	}
	count := int(wire.Value(in.PrivateIpAddressCount))
	if (count > 0) == (len(asked) > 0) || count < 0 {
		return nil, bad("InvalidParameterCombination", "The request must contain exactly one of PrivateIpAddresses and PrivateIpAddressCount")
	}
	g, err := e.changeNAT(ctx, wire.Value(in.NatGatewayId), false, func(tx *store.Tx, g *state.NATGateway, n *state.NetworkInterface, s *state.Subnet) error {
		return addSecondary(tx, g, n, s, asked, count)
	})
	if err != nil {
		return nil, err
	}
	return &api.AssignPrivateNatGatewayAddressOutput{NatGatewayId: in.NatGatewayId, NatGatewayAddresses: natAddresses(g)}, nil
}

// UnassignPrivateNatGatewayAddress takes secondary addresses from a private NAT gateway.
func (e *EC2) UnassignPrivateNatGatewayAddress(ctx context.Context, in *api.UnassignPrivateNatGatewayAddressInput) (*api.UnassignPrivateNatGatewayAddressOutput, error) {
	asked, err := readAddresses(in.PrivateIpAddresses, "privateIpAddress")
	if err != nil {
		return nil, err
	}
	g, err := e.changeNAT(ctx, wire.Value(in.NatGatewayId), false, func(tx *store.Tx, g *state.NATGateway, n *state.NetworkInterface, _ *state.Subnet) error {
		for _, x := range asked {
			i := slices.IndexFunc(g.Addresses, func(a state.NATAddress) bool { return a.Private == x })
			switch {
			case i < 0:
				return bad("InvalidParameterValue", "The private IP address %s is not assigned to NatGateway %s", x, g.ID)
			case i == 0:
				return bad("InvalidParameterValue", "The primary private IP address %s of NatGateway %s cannot be unassigned", x, g.ID)
			}
			dropSecondary(tx, g, n, i)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.UnassignPrivateNatGatewayAddressOutput{NatGatewayId: in.NatGatewayId, NatGatewayAddresses: natAddresses(g)}, nil
}

// AssociateNatGatewayAddress gives a public NAT gateway further Elastic IPs,
// each with a private address of its own.
func (e *EC2) AssociateNatGatewayAddress(ctx context.Context, in *api.AssociateNatGatewayAddressInput) (*api.AssociateNatGatewayAddressOutput, error) {
	if in.AvailabilityZone != nil || in.AvailabilityZoneId != nil {
		return nil, unsupported("AvailabilityZone")
	}
	asked, err := readAddresses(in.PrivateIpAddresses, "privateIpAddress")
	if err != nil {
		return nil, err
	}
	if len(asked) > 0 && len(asked) != len(in.AllocationIds) {
		return nil, bad("InvalidParameterCombination", "There must be as many PrivateIpAddresses as AllocationIds")
	}
	account := e.Account(ctx)
	g, err := e.changeNAT(ctx, wire.Value(in.NatGatewayId), true, func(tx *store.Tx, g *state.NATGateway, n *state.NetworkInterface, s *state.Subnet) error {
		first := len(g.Addresses)
		if err := addSecondary(tx, g, n, s, asked, len(in.AllocationIds)); err != nil {
			return err
		}
		for i, id := range in.AllocationIds {
			x, err := elasticOf(tx, account, &id, nil)
			if err != nil {
				return err
			}
			if x.Association != "" {
				return bad("Resource.AlreadyAssociated", "resource %s is already associated with associate-id %s", x.ID, x.Association)
			}
			a := &g.Addresses[first+i]
			ip, eni := attach(tx, x, n, a.Private, e.id("eipassoc"))
			*n = *eni
			a.Public, a.Allocation, a.Association = ip.Address, ip.ID, ip.Association
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.AssociateNatGatewayAddressOutput{NatGatewayId: in.NatGatewayId, NatGatewayAddresses: natAddresses(g)}, nil
}

// DisassociateNatGatewayAddress takes secondary Elastic IPs from a public NAT gateway.
func (e *EC2) DisassociateNatGatewayAddress(ctx context.Context, in *api.DisassociateNatGatewayAddressInput) (*api.DisassociateNatGatewayAddressOutput, error) {
	g, err := e.changeNAT(ctx, wire.Value(in.NatGatewayId), true, func(tx *store.Tx, g *state.NATGateway, n *state.NetworkInterface, _ *state.Subnet) error {
		for _, id := range in.AssociationIds {
			i := slices.IndexFunc(g.Addresses, func(a state.NATAddress) bool { return a.Association == id && id != "" })
			switch {
			case i < 0:
				return bad("InvalidAssociationID.NotFound", "The association ID '%s' does not exist", id)
			case i == 0:
				return bad("InvalidParameterValue", "The primary Elastic IP address of NatGateway %s cannot be disassociated", g.ID)
			}
			if x, ok := state.ElasticIPs.Get(tx, g.Addresses[i].Allocation); ok {
				free := *x
				free.Association, free.ENI, free.Private = "", "", netip.Addr{}
				state.ElasticIPs.Put(tx, &free)
			}
			dropSecondary(tx, g, n, i)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DisassociateNatGatewayAddressOutput{NatGatewayId: in.NatGatewayId, NatGatewayAddresses: natAddresses(g)}, nil
}
