package ec2

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noSubnet(id string) error {
	if err := malformed("InvalidSubnetID", "subnet", id); err != nil {
		return err
	}
	return bad("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
}

// subnetOf finds a subnet of the account.
func subnetOf(r store.Reader, account, id string) (*state.Subnet, error) {
	s, ok := state.Subnets.Get(r, id)
	if !ok || s.Account != account {
		return nil, noSubnet(id)
	}
	return s, nil
}

// zoneOf is the zone that a request names by name or id; the first if by neither.
func zoneOf(r store.Reader, name, id *string) (string, error) {
	region, ok := state.Regions.Get(r, state.RegionKey)
	if !ok || len(region.Zones) == 0 {
		return "", bad("InternalError", "The region is not set up.")
	}
	var names, zoneIDs []string
	for _, z := range region.Zones {
		names, zoneIDs = append(names, z.Name), append(zoneIDs, z.ID)
	}
	switch {
	case wire.Value(name) != "" && wire.Value(id) != "":
		return "", bad("InvalidParameterCombination", "The parameter availabilityZone cannot be used with the parameter availabilityZoneId")
	case wire.Value(id) != "":
		if i := slices.Index(zoneIDs, *id); i >= 0 {
			return names[i], nil
		}
		return "", bad("InvalidParameterValue", "Value (%s) for parameter availabilityZoneId is invalid. Subnets can currently only be created in the following availability zones: %s.", *id, strings.Join(zoneIDs, ", "))
	case wire.Value(name) == "":
		return names[0], nil
	case slices.Contains(names, *name):
		return *name, nil
	}
	return "", bad("InvalidParameterValue", "Value (%s) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: %s.", *name, strings.Join(names, ", "))
}

// CreateSubnet makes a subnet of a VPC.
func (e *EC2) CreateSubnet(ctx context.Context, in *api.CreateSubnetInput) (*api.CreateSubnetOutput, error) {
	switch {
	case wire.Value(in.Ipv6Native):
		return nil, unsupported("Ipv6Native")
	case in.OutpostArn != nil:
		return nil, unsupported("OutpostArn")
	case in.Ipv4IpamPoolId != nil, in.Ipv4NetmaskLength != nil:
		return nil, unsupported("Ipv4IpamPoolId")
	case in.Ipv6IpamPoolId != nil, in.Ipv6NetmaskLength != nil:
		return nil, unsupported("Ipv6IpamPoolId")
	case wire.Value(in.CidrBlock) == "":
		return nil, bad("MissingParameter", "Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided.")
	}
	cidr, err := readPrefix4(*in.CidrBlock, "cidrBlock")
	if err != nil {
		return nil, err
	}
	var six netip.Prefix
	if in.Ipv6CidrBlock != nil {
		if six, err = readPrefix6(*in.Ipv6CidrBlock, "ipv6CidrBlock"); err != nil {
			return nil, err
		}
	}
	tags, err := tagsFor("subnet", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	account := e.Account(ctx)
	s := &state.Subnet{ID: e.id("subnet"), Account: account, CIDR: cidr, ACLAssociation: e.id("aclassoc"), Tags: tags, CreatedAt: e.Now()}
	if six.IsValid() {
		s.IPv6 = []state.IPv6Block{{CIDR: six, Association: e.id("subnet-cidr-assoc")}}
	}
	var out api.Subnet
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		v, err := vpcOf(tx, account, wire.Value(in.VpcId))
		if err != nil {
			return err
		}
		n := *s
		n.VPC = v.ID
		if n.Zone, err = zoneOf(tx, in.AvailabilityZone, in.AvailabilityZoneId); err != nil {
			return err
		}
		if err := e.addSubnet(tx, v, &n); err != nil {
			return err
		}
		out = e.subnetView(tx, &n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.State = "pending"
	return &api.CreateSubnetOutput{Subnet: &out}, nil
}

// addSubnet puts a subnet into its VPC if it fits there.
func (e *EC2) addSubnet(tx *store.Tx, v *state.VPC, s *state.Subnet) error {
	if s.CIDR.Bits() < 16 || s.CIDR.Bits() > 28 || !slices.ContainsFunc(v.CIDRs, func(c netip.Prefix) bool { return c.Bits() <= s.CIDR.Bits() && c.Contains(s.CIDR.Addr()) }) {
		return bad("InvalidSubnet.Range", "The CIDR '%s' is invalid.", s.CIDR)
	}
	state.Subnets.Guard(tx, "")
	n := 0
	for x := range state.Subnets.By(tx, "vpc", v.ID) {
		n++
		if x.CIDR.Overlaps(s.CIDR) {
			return bad("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", s.CIDR)
		}
	}
	if n >= state.Limit(tx, v.Account, "vpc/subnets-per-vpc") {
		return bad("SubnetLimitExceeded", "The maximum number of subnets for this VPC has been reached.")
	}
	for _, b := range s.IPv6 {
		if err := fits6(tx, v, b.CIDR); err != nil {
			return err
		}
	}
	state.Subnets.Put(tx, s)
	return nil
}

// fits6 says why an IPv6 range cannot be a subnet's.
func fits6(tx *store.Tx, v *state.VPC, p netip.Prefix) error {
	if p.Bits() != 64 || !slices.ContainsFunc(v.IPv6, func(b state.IPv6Block) bool { return b.CIDR.Contains(p.Addr()) }) {
		return bad("InvalidSubnet.Range", "The CIDR '%s' is invalid.", p)
	}
	state.Subnets.Guard(tx, "")
	for x := range state.Subnets.By(tx, "vpc", v.ID) {
		if slices.ContainsFunc(x.IPv6, func(b state.IPv6Block) bool { return b.CIDR.Overlaps(p) }) {
			return bad("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", p)
		}
	}
	return nil
}

// CreateDefaultSubnet makes the default subnet of a zone that has none.
func (e *EC2) CreateDefaultSubnet(ctx context.Context, in *api.CreateDefaultSubnetInput) (*api.CreateDefaultSubnetOutput, error) {
	if wire.Value(in.Ipv6Native) {
		return nil, unsupported("Ipv6Native")
	}
	if wire.Value(in.AvailabilityZone) == "" && wire.Value(in.AvailabilityZoneId) == "" {
		return nil, bad("MissingParameter", "The request must contain the parameter availabilityZone or availabilityZoneId")
	}
	account := e.Account(ctx)
	s := &state.Subnet{ID: e.id("subnet"), Account: account, ACLAssociation: e.id("aclassoc"), MapPublicIPOnLaunch: true, DefaultForZone: true, CreatedAt: e.Now()}
	var out api.Subnet
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		v := defaultVPC(tx, account)
		if v == nil {
			return bad("DefaultVpcDoesNotExist", "No default VPC exists for this account in this region.")
		}
		v, err := vpcOf(tx, account, v.ID) // compared at commit only if it is read
		if err != nil {
			return err
		}
		n := *s
		n.VPC = v.ID
		if n.Zone, err = zoneOf(tx, in.AvailabilityZone, in.AvailabilityZoneId); err != nil {
			return err
		}
		var taken []netip.Prefix
		for x := range state.Subnets.By(tx, "vpc", v.ID) {
			if x.DefaultForZone && x.Zone == n.Zone {
				return bad("DefaultSubnetAlreadyExistsInAvailabilityZone", "'%s' is already the default subnet in %s.", x.ID, n.Zone)
			}
			taken = append(taken, x.CIDR)
		}
		for i := range 16 {
			c := netip.MustParsePrefix(fmt.Sprintf("172.31.%d.0/20", i*16))
			if !slices.ContainsFunc(taken, c.Overlaps) {
				n.CIDR = c
				break
			}
		}
		if !n.CIDR.IsValid() {
			return bad("InsufficientCidrBlocks", "There is not enough free space in VPC '%s' for a default subnet.", v.ID)
		}
		if err := e.addSubnet(tx, v, &n); err != nil {
			return err
		}
		out = e.subnetView(tx, &n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateDefaultSubnetOutput{Subnet: &out}, nil
}

// DeleteSubnet removes a subnet in which there is no interface.
func (e *EC2) DeleteSubnet(ctx context.Context, in *api.DeleteSubnetInput) (*api.DeleteSubnetOutput, error) {
	return &api.DeleteSubnetOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		s, err := subnetOf(tx, e.Account(ctx), wire.Value(in.SubnetId))
		if err != nil {
			return err
		}
		inUse := bad("DependencyViolation", "The subnet '%s' has dependencies and cannot be deleted.", s.ID)
		// An interface or an instance that comes meanwhile makes this look again.
		state.NetworkInterfaces.Guard(tx, "")
		state.Instances.Guard(tx, "")
		for range state.NetworkInterfaces.By(tx, "subnet", s.ID) {
			return inUse
		}
		for i := range state.Instances.By(tx, "subnet", s.ID) {
			if i.State != "terminated" {
				return inUse
			}
		}
		for x := range state.SubnetReservations.By(tx, "subnet", s.ID) {
			state.SubnetReservations.Delete(tx, x.ID)
		}
		for l := range state.FlowLogs.By(tx, "resource", s.ID) {
			state.FlowLogs.Delete(tx, l.ID)
		}
		state.Subnets.Delete(tx, s.ID)
		return nil
	})
}

// DescribeSubnets lists subnets.
func (e *EC2) DescribeSubnets(ctx context.Context, in *api.DescribeSubnetsInput) (*api.DescribeSubnetsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	zone := zoneIDs(snap)
	never := func(*state.Subnet) []string { return nil }
	zoneName := func(s *state.Subnet) []string { return one(s.Zone) }
	zoneID := func(s *state.Subnet) []string { return one(zone[s.Zone]) }
	cidr := func(s *state.Subnet) []string { return one(s.CIDR.String()) }
	isDefault := func(s *state.Subnet) []string { return flag(s.DefaultForZone) }
	out, next, err := list(request{in.SubnetIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.Subnet, api.Subnet]{
		name: "subnets", rows: mine(state.Subnets.All(snap), account, func(s *state.Subnet) string { return s.Account }),
		id:      func(s *state.Subnet) string { return s.ID },
		missing: noSubnet,
		tags:    func(s *state.Subnet) []state.Tag { return s.Tags },
		filters: filters[*state.Subnet]{
			"subnet-id":         func(s *state.Subnet) []string { return one(s.ID) },
			"subnet-arn":        func(s *state.Subnet) []string { return one(*e.arn(s.Account, "subnet", s.ID)) },
			"vpc-id":            func(s *state.Subnet) []string { return one(s.VPC) },
			"owner-id":          func(s *state.Subnet) []string { return one(s.Account) },
			"state":             func(*state.Subnet) []string { return one("available") },
			"availability-zone": zoneName, "availabilityZone": zoneName,
			"availability-zone-id": zoneID, "availabilityZoneId": zoneID,
			"cidr-block": cidr, "cidr": cidr, "cidrBlock": cidr,
			"default-for-az": isDefault, "defaultForAz": isDefault,
			"available-ip-address-count":      func(s *state.Subnet) []string { return number(free(snap, s)) },
			"map-public-ip-on-launch":         func(s *state.Subnet) []string { return flag(s.MapPublicIPOnLaunch) },
			"assign-ipv6-address-on-creation": func(s *state.Subnet) []string { return flag(s.AssignIPv6) },
			"ipv6-cidr-block-association.ipv6-cidr-block": func(s *state.Subnet) []string {
				return each(s.IPv6, func(b state.IPv6Block) []string { return one(b.CIDR.String()) })
			},
			"ipv6-cidr-block-association.association-id": func(s *state.Subnet) []string {
				return each(s.IPv6, func(b state.IPv6Block) []string { return one(b.Association) })
			},
			"ipv6-cidr-block-association.state": func(s *state.Subnet) []string {
				return each(s.IPv6, func(state.IPv6Block) []string { return one("associated") })
			},
			"enable-dns64": func(*state.Subnet) []string { return flag(false) },
			"ipv6-native":  func(*state.Subnet) []string { return flag(false) },
			"private-dns-name-options-on-launch.hostname-type":                        func(s *state.Subnet) []string { return one(hostnameType(s)) },
			"private-dns-name-options-on-launch.enable-resource-name-dns-a-record":    func(s *state.Subnet) []string { return flag(s.RecordA) },
			"private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": func(s *state.Subnet) []string { return flag(s.RecordAAAA) },
			"map-customer-owned-ip-on-launch":                                         func(*state.Subnet) []string { return flag(false) },
			"customer-owned-ipv4-pool":                                                never, "enable-lni-at-device-index": never, "outpost-arn": never,
		},
		view: func(s *state.Subnet) api.Subnet { return e.subnetView(snap, s) },
	})
	return &api.DescribeSubnetsOutput{Subnets: out, NextToken: next}, err
}

func (e *EC2) subnetView(r store.Reader, s *state.Subnet) api.Subnet {
	out := api.Subnet{AvailabilityZoneId: new(zoneIDs(r)[s.Zone]), MapCustomerOwnedIpOnLaunch: new(false), OwnerId: new(s.Account),
		AssignIpv6AddressOnCreation: new(s.AssignIPv6), Ipv6CidrBlockAssociationSet: []api.SubnetIpv6CidrBlockAssociation{}, Tags: tagsView(s.Tags),
		SubnetArn: e.arn(s.Account, "subnet", s.ID), EnableDns64: new(false), Ipv6Native: new(false),
		PrivateDnsNameOptionsOnLaunch: &api.PrivateDnsNameOptionsOnLaunch{HostnameType: api.HostnameType(hostnameType(s)), EnableResourceNameDnsARecord: new(s.RecordA), EnableResourceNameDnsAAAARecord: new(s.RecordAAAA)},
		BlockPublicAccessStates:       &api.BlockPublicAccessStates{InternetGatewayBlockMode: "off"},
		SubnetId:                      new(s.ID), State: "available", VpcId: new(s.VPC), CidrBlock: new(s.CIDR.String()),
		AvailableIpAddressCount: new(int32(free(r, s))), AvailabilityZone: new(s.Zone),
		DefaultForAz: new(s.DefaultForZone), MapPublicIpOnLaunch: new(s.MapPublicIPOnLaunch)}
	for _, b := range s.IPv6 {
		out.Ipv6CidrBlockAssociationSet = append(out.Ipv6CidrBlockAssociationSet, subnetIPv6View(b, "associated"))
	}
	return out
}

func subnetIPv6View(b state.IPv6Block, is api.SubnetCidrBlockStateCode) api.SubnetIpv6CidrBlockAssociation {
	return api.SubnetIpv6CidrBlockAssociation{AssociationId: new(b.Association), Ipv6CidrBlock: new(b.CIDR.String()),
		Ipv6AddressAttribute: "private", IpSource: "amazon", Ipv6CidrBlockState: &api.SubnetCidrBlockState{State: is}}
}

func hostnameType(s *state.Subnet) string {
	if s.HostnameType == "" {
		return "ip-name"
	}
	return s.HostnameType
}

func zoneIDs(r store.Reader) map[string]string {
	ids := map[string]string{}
	if region, ok := state.Regions.Get(r, state.RegionKey); ok {
		for _, z := range region.Zones {
			ids[z.Name] = z.ID
		}
	}
	return ids
}

// free is how many IPv4 addresses of the subnet are left: all but AWS's five,
// those taken, and those that are reserved and not taken.
func free(r store.Reader, s *state.Subnet) int {
	n := 1<<(32-s.CIDR.Bits()) - 5
	var kept []netip.Prefix
	for x := range state.SubnetReservations.By(r, "subnet", s.ID) {
		if x.CIDR.Addr().Is4() {
			kept = append(kept, x.CIDR)
			for a := x.CIDR.Addr(); x.CIDR.Contains(a); a = a.Next() {
				if state.Usable(s, a) {
					n--
				}
			}
		}
	}
	for l := range state.AddressLeases.By(r, "scope", s.ID) {
		if l.Address.Is4() && !slices.ContainsFunc(kept, func(p netip.Prefix) bool { return p.Contains(l.Address) }) {
			n--
		}
	}
	return n
}

// ModifySubnetAttribute changes one attribute of a subnet.
func (e *EC2) ModifySubnetAttribute(ctx context.Context, in *api.ModifySubnetAttributeInput) (*api.ModifySubnetAttributeOutput, error) {
	switch {
	case in.MapCustomerOwnedIpOnLaunch != nil && wire.Value(in.MapCustomerOwnedIpOnLaunch.Value), in.CustomerOwnedIpv4Pool != nil:
		return nil, unsupported("MapCustomerOwnedIpOnLaunch")
	case in.EnableLniAtDeviceIndex != nil:
		return nil, unsupported("EnableLniAtDeviceIndex")
	case in.EnableDns64 != nil && wire.Value(in.EnableDns64.Value):
		return nil, unsupported("EnableDns64")
	}
	if err := onlyOne(in.AssignIpv6AddressOnCreation != nil, in.MapPublicIpOnLaunch != nil, in.MapCustomerOwnedIpOnLaunch != nil, in.EnableDns64 != nil,
		in.PrivateDnsHostnameTypeOnLaunch != "", in.EnableResourceNameDnsARecordOnLaunch != nil, in.EnableResourceNameDnsAAAARecordOnLaunch != nil, in.DisableLniAtDeviceIndex != nil); err != nil {
		return nil, err
	}
	return &api.ModifySubnetAttributeOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		s, err := subnetOf(tx, e.Account(ctx), wire.Value(in.SubnetId))
		if err != nil {
			return err
		}
		n := *s
		set(&n.AssignIPv6, in.AssignIpv6AddressOnCreation)
		set(&n.MapPublicIPOnLaunch, in.MapPublicIpOnLaunch)
		set(&n.RecordA, in.EnableResourceNameDnsARecordOnLaunch)
		set(&n.RecordAAAA, in.EnableResourceNameDnsAAAARecordOnLaunch)
		if in.PrivateDnsHostnameTypeOnLaunch != "" {
			n.HostnameType = string(in.PrivateDnsHostnameTypeOnLaunch)
		}
		if n.AssignIPv6 && len(n.IPv6) == 0 {
			return bad("InvalidParameterValue", "Invalid value 'true' for assignIpv6AddressOnCreation. Subnet '%s' has no associated IPv6 CIDR block", s.ID)
		}
		state.Subnets.Put(tx, &n)
		return nil
	})
}

// AssociateSubnetCidrBlock gives a subnet its IPv6 range.
func (e *EC2) AssociateSubnetCidrBlock(ctx context.Context, in *api.AssociateSubnetCidrBlockInput) (*api.AssociateSubnetCidrBlockOutput, error) {
	switch {
	case in.Ipv6IpamPoolId != nil, in.Ipv6NetmaskLength != nil:
		return nil, unsupported("Ipv6IpamPoolId")
	case in.Ipv6CidrBlock == nil:
		return nil, bad("MissingParameter", "The request must contain the parameter ipv6CidrBlock")
	}
	p, err := readPrefix6(*in.Ipv6CidrBlock, "ipv6CidrBlock")
	if err != nil {
		return nil, err
	}
	b := state.IPv6Block{CIDR: p, Association: e.id("subnet-cidr-assoc")}
	account := e.Account(ctx)
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		s, err := subnetOf(tx, account, wire.Value(in.SubnetId))
		if err != nil {
			return err
		}
		v, err := vpcOf(tx, account, s.VPC)
		if err != nil {
			return err
		}
		if len(s.IPv6) > 0 {
			return bad("CidrLimitExceeded", "This subnet '%s' has met its maximum number of allowed CIDRs: 1", s.ID)
		}
		if err := fits6(tx, v, p); err != nil {
			return err
		}
		n := *s
		n.IPv6 = []state.IPv6Block{b}
		state.Subnets.Put(tx, &n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.AssociateSubnetCidrBlockOutput{SubnetId: in.SubnetId, Ipv6CidrBlockAssociation: new(subnetIPv6View(b, "associating"))}, nil
}

// DisassociateSubnetCidrBlock takes the IPv6 range of a subnet in which no interface uses it.
func (e *EC2) DisassociateSubnetCidrBlock(ctx context.Context, in *api.DisassociateSubnetCidrBlockInput) (*api.DisassociateSubnetCidrBlockOutput, error) {
	id := wire.Value(in.AssociationId)
	var out *api.DisassociateSubnetCidrBlockOutput
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		for x := range mine(state.Subnets.All(tx), e.Account(ctx), func(s *state.Subnet) string { return s.Account }) {
			if len(x.IPv6) == 0 || x.IPv6[0].Association != id {
				continue
			}
			s, err := subnetOf(tx, x.Account, x.ID) // compared at commit only if it is read
			if err != nil {
				return err
			}
			state.NetworkInterfaces.Guard(tx, "")
			for l := range state.AddressLeases.By(tx, "scope", s.ID) {
				if l.Address.Is6() {
					return bad("DependencyViolation", "The IPv6 CIDR block '%s' of subnet '%s' has dependencies and cannot be disassociated.", s.IPv6[0].CIDR, s.ID)
				}
			}
			out = &api.DisassociateSubnetCidrBlockOutput{SubnetId: new(s.ID), Ipv6CidrBlockAssociation: new(subnetIPv6View(s.IPv6[0], "disassociating"))}
			n := *s
			n.IPv6, n.AssignIPv6 = nil, false
			state.Subnets.Put(tx, &n)
			return nil
		}
		return bad("InvalidSubnetCidrBlockAssociationID.NotFound", "The subnet CIDR block with association ID '%s' does not exist", id)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// CreateSubnetCidrReservation keeps a range of a subnet from being handed out unasked.
func (e *EC2) CreateSubnetCidrReservation(ctx context.Context, in *api.CreateSubnetCidrReservationInput) (*api.CreateSubnetCidrReservationOutput, error) {
	p, err := readPrefix(wire.Value(in.Cidr), "cidr")
	if err != nil {
		return nil, err
	}
	tags, err := tagsFor("subnet-cidr-reservation", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	account := e.Account(ctx)
	x := &state.SubnetReservation{ID: e.id("scr"), Account: account, Subnet: wire.Value(in.SubnetId), CIDR: p, Type: string(in.ReservationType), Description: wire.Value(in.Description), Tags: tags}
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		s, err := subnetOf(tx, account, wire.Value(in.SubnetId))
		if err != nil {
			return err
		}
		inside := p.Addr().Is4() && s.CIDR.Bits() <= p.Bits() && s.CIDR.Contains(p.Addr()) ||
			slices.ContainsFunc(s.IPv6, func(b state.IPv6Block) bool { return b.CIDR.Bits() <= p.Bits() && b.CIDR.Contains(p.Addr()) })
		if !inside {
			return bad("InvalidParameterValue", "The CIDR '%s' is not within the subnet '%s'.", p, s.ID)
		}
		state.SubnetReservations.Guard(tx, "")
		for have := range state.SubnetReservations.By(tx, "subnet", s.ID) {
			if have.CIDR.Overlaps(p) {
				return bad("InvalidParameterValue", "The CIDR '%s' overlaps with the existing reservation '%s'.", p, have.ID)
			}
		}
		state.SubnetReservations.Put(tx, x)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateSubnetCidrReservationOutput{SubnetCidrReservation: new(reservationView(x))}, nil
}

func reservationView(x *state.SubnetReservation) api.SubnetCidrReservation {
	out := api.SubnetCidrReservation{SubnetCidrReservationId: new(x.ID), SubnetId: new(x.Subnet), Cidr: new(x.CIDR.String()), ReservationType: api.SubnetCidrReservationType(x.Type), OwnerId: new(x.Account), Tags: tagsView(x.Tags)}
	if x.Description != "" {
		out.Description = new(x.Description)
	}
	return out
}

func noReservation(id string) error {
	return bad("InvalidSubnetCidrReservationID.NotFound", "The subnet CIDR reservation ID '%s' does not exist", id)
}

// DeleteSubnetCidrReservation lets the range be handed out again.
func (e *EC2) DeleteSubnetCidrReservation(ctx context.Context, in *api.DeleteSubnetCidrReservationInput) (*api.DeleteSubnetCidrReservationOutput, error) {
	var out *api.DeleteSubnetCidrReservationOutput
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		x, ok := state.SubnetReservations.Get(tx, wire.Value(in.SubnetCidrReservationId))
		if !ok || x.Account != e.Account(ctx) {
			return noReservation(wire.Value(in.SubnetCidrReservationId))
		}
		out = &api.DeleteSubnetCidrReservationOutput{DeletedSubnetCidrReservation: new(reservationView(x))}
		state.SubnetReservations.Delete(tx, x.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// GetSubnetCidrReservations lists the reservations of a subnet.
func (e *EC2) GetSubnetCidrReservations(ctx context.Context, in *api.GetSubnetCidrReservationsInput) (*api.GetSubnetCidrReservationsOutput, error) {
	snap := e.DB.Snapshot()
	s, err := subnetOf(snap, e.Account(ctx), wire.Value(in.SubnetId))
	if err != nil {
		return nil, err
	}
	all, next, err := list(request{filters: in.Filters, max: in.MaxResults, token: in.NextToken}, kind[*state.SubnetReservation, api.SubnetCidrReservation]{
		name: "reservations of " + s.ID, rows: state.SubnetReservations.By(snap, "subnet", s.ID),
		id:      func(x *state.SubnetReservation) string { return x.ID },
		missing: noReservation,
		tags:    func(x *state.SubnetReservation) []state.Tag { return x.Tags },
		filters: filters[*state.SubnetReservation]{"reservationType": func(x *state.SubnetReservation) []string { return one(x.Type) }, "subnet-id": func(x *state.SubnetReservation) []string { return one(x.Subnet) }},
		view:    reservationView,
	})
	if err != nil {
		return nil, err
	}
	out := &api.GetSubnetCidrReservationsOutput{NextToken: next}
	for _, x := range all {
		if strings.Contains(*x.Cidr, ":") {
			out.SubnetIpv6CidrReservations = append(out.SubnetIpv6CidrReservations, x)
		} else {
			out.SubnetIpv4CidrReservations = append(out.SubnetIpv4CidrReservations, x)
		}
	}
	return out, nil
}
