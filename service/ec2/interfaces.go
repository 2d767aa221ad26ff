package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noInterface(id string) error {
	if err := malformed("InvalidNetworkInterfaceId", "eni", id); err != nil {
		return err
	}
	return bad("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id)
}

// shownInterface reports whether calls still know of an interface. One that its
// owner has deleted is gone for them, though its address is not free before the
// kernel has nothing of it.
func shownInterface(n *state.NetworkInterface) bool {
	return !n.Deleting || n.Task != "" || n.Owner != ""
}

func interfaceOf(r store.Reader, account, id string) (*state.NetworkInterface, error) {
	n, ok := state.NetworkInterfaces.Get(r, id)
	if !ok || n.Account != account || !shownInterface(n) {
		return nil, noInterface(id)
	}
	return n, nil
}

// ownInterface is an interface that its account may change: not one that a
// service of AWS has made for it.
func ownInterface(r store.Reader, account, id string) (*state.NetworkInterface, error) {
	n, err := interfaceOf(r, account, id)
	if err == nil && n.RequesterManaged {
		return nil, bad("OperationNotPermitted", "You do not have permission to access the specified resource.")
	}
	return n, err
}

// groupsFor checks the security groups of an interface in a VPC; none means the
// VPC's default group. It reads each, so that none can go meanwhile.
func groupsFor(r store.Reader, account, vpc string, ids []string) ([]string, error) {
	if len(ids) == 0 {
		if n, ok := state.GroupNames.Get(r, vpc+"/default"); ok {
			ids = []string{n.Group}
		}
	}
	var out []string
	for _, id := range ids {
		g, err := group(r, account, &id, nil)
		if err != nil {
			return nil, err
		}
		if g.VPC != vpc {
			return nil, bad("InvalidParameter", "You have specified two resources that belong to different networks.")
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	if len(out) > maxGroupsPerInterface {
		return nil, bad("SecurityGroupsPerInterfaceLimitExceeded", "The maximum number of security groups per interface has been reached.")
	}
	// What the groups of one interface hold together is limited too (facts: networking).
	n := 0
	for _, id := range out {
		g, _ := state.SecurityGroups.Get(r, id)
		n = max(n, weight(r, g.Rules, func(x state.SecurityGroupRule) bool { return !x.Egress }), weight(r, g.Rules, func(x state.SecurityGroupRule) bool { return x.Egress }))
	}
	if n*len(out) > maxRulesPerInterface {
		return nil, bad("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
	}
	return out, nil
}

func readAddress(text *string, six bool) (netip.Addr, error) {
	a, err := netip.ParseAddr(wire.Value(text))
	if err != nil || a.Is6() != six || a.Zone() != "" {
		if six {
			return a, bad("InvalidParameterValue", "invalid value for parameter ipv6Address: %s", wire.Value(text))
		}
		return a, bad("InvalidParameterValue", "invalid value for parameter address: %s", wire.Value(text))
	}
	return a, nil
}

// CreateNetworkInterface makes an interface that nothing has in its kernel yet.
func (e *EC2) CreateNetworkInterface(ctx context.Context, in *api.CreateNetworkInterfaceInput) (*api.CreateNetworkInterfaceOutput, error) {
	switch {
	case in.InterfaceType != "" && in.InterfaceType != "interface":
		return nil, unsupported("InterfaceType " + string(in.InterfaceType))
	case len(in.Ipv4Prefixes) > 0 || wire.Value(in.Ipv4PrefixCount) > 0:
		return nil, unsupported("Ipv4Prefix")
	case len(in.Ipv6Prefixes) > 0 || wire.Value(in.Ipv6PrefixCount) > 0:
		return nil, unsupported("Ipv6Prefix")
	case in.Operator != nil:
		return nil, unsupported("Operator")
	case wire.Value(in.EnablePrimaryIpv6):
		return nil, unsupported("EnablePrimaryIpv6")
	case in.PrivateIpAddress != nil && slices.ContainsFunc(in.PrivateIpAddresses, func(p api.PrivateIpAddressSpecification) bool { return wire.Value(p.Primary) }):
		return nil, bad("InvalidParameterCombination", "The parameter 'privateIpAddress' may not be used in combination with a primary address in 'privateIpAddresses'")
	case len(in.PrivateIpAddresses) > 1 && in.SecondaryPrivateIpAddressCount != nil:
		return nil, bad("InvalidParameterCombination", "The parameter 'secondaryPrivateIpAddressCount' may not be used in combination with 'privateIpAddresses'")
	case len(in.Ipv6Addresses) > 0 && wire.Value(in.Ipv6AddressCount) > 0:
		return nil, bad("InvalidParameterCombination", "The parameter 'ipv6AddressCount' may not be used in combination with 'ipv6Addresses'")
	}
	want := state.InterfaceAddresses{MoreIPv4: int(wire.Value(in.SecondaryPrivateIpAddressCount)), MoreIPv6: int(wire.Value(in.Ipv6AddressCount)), NoDefault: in.Ipv6AddressCount != nil}
	if want.MoreIPv4 < 0 || want.MoreIPv6 < 0 || want.MoreIPv4+want.MoreIPv6 > 1000 {
		return nil, bad("InvalidParameterValue", "invalid value for parameter secondaryPrivateIpAddressCount")
	}
	if in.PrivateIpAddress != nil {
		a, err := readAddress(in.PrivateIpAddress, false)
		if err != nil {
			return nil, err
		}
		want.IPv4 = append(want.IPv4, a)
	}
	primaries := 0
	for _, p := range in.PrivateIpAddresses {
		a, err := readAddress(p.PrivateIpAddress, false)
		if err != nil {
			return nil, err
		}
		if wire.Value(p.Primary) {
			if primaries++; primaries > 1 {
				return nil, bad("InvalidParameterValue", "Only one primary private IP address can be specified.")
			}
			want.IPv4 = slices.Insert(want.IPv4, 0, a)
			continue
		}
		want.IPv4 = append(want.IPv4, a)
	}
	// None of those named is the primary one: that is chosen, and they follow it.
	chosen := len(want.IPv4) > 0 && in.PrivateIpAddress == nil && primaries == 0
	for _, x := range in.Ipv6Addresses {
		a, err := readAddress(x.Ipv6Address, true)
		if err != nil {
			return nil, err
		}
		want.IPv6 = append(want.IPv6, a)
	}
	if err := checkDescription(in.Description); err != nil {
		return nil, err
	}
	tracking, err := trackingOf(in.ConnectionTrackingSpecification)
	if err != nil {
		return nil, err
	}
	tags, err := tagsFor("network-interface", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	account, id := e.Account(ctx), e.id("eni")
	var made *state.NetworkInterface
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		n := 0
		s, err := subnetOf(tx, account, *in.SubnetId)
		if err != nil {
			return err
		}
		for have := range state.NetworkInterfaces.All(tx) {
			if have.Account != account {
				continue
			}
			if have.Zone == s.Zone {
				n++
			}
			if token := wire.Value(in.ClientToken); token != "" && have.ClientToken == token {
				if have.Subnet != s.ID || have.Description != wire.Value(in.Description) {
					return bad("IdempotentParameterMismatch", "The specified idempotent token, %s, is already in use with different parameters.", token)
				}
				made = have
				return nil
			}
		}
		if n >= state.Limit(tx, account, "vpc/network-interfaces") {
			return bad("NetworkInterfaceLimitExceeded", "The maximum number of network interfaces has been reached.")
		}
		groups, err := groupsFor(tx, account, s.VPC, in.Groups)
		if err != nil {
			return err
		}
		w := want
		if chosen {
			w.IPv4, w.MoreIPv4 = nil, 0
		}
		free := state.FreeAddresses(tx)
		x, leases, err := state.NewInterface(free, id, s, w, e.Now())
		if err != nil {
			return refused(err, append(slices.Clone(want.IPv4), want.IPv6...), s)
		}
		if chosen {
			for _, a := range want.IPv4 {
				if err := free.Take(s, a); err != nil {
					return refused(err, []netip.Addr{a}, s)
				}
				x.Secondary = append(x.Secondary, state.SecondaryAddress{Address: a})
				leases = append(leases, &state.AddressLease{Scope: s.ID, Address: a, ENI: id})
			}
		}
		x.Account, x.Groups, x.Description, x.Tags, x.Tracking, x.ClientToken = account, groups, wire.Value(in.Description), tags, tracking, wire.Value(in.ClientToken)
		state.NetworkInterfaces.Put(tx, x)
		for _, l := range leases {
			state.AddressLeases.Put(tx, l)
		}
		made = x
		return nil
	})
	if err != nil {
		return nil, err
	}
	v := e.networkInterface(e.DB.Snapshot(), made)
	return &api.CreateNetworkInterfaceOutput{NetworkInterface: &v, ClientToken: in.ClientToken}, nil
}

func checkDescription(d *string) error {
	if len(wire.Value(d)) > 255 {
		return bad("InvalidParameterValue", "Value (%s) for parameter description is invalid. The length must be at most 255.", *d)
	}
	return nil
}

func trackingOf(t *api.ConnectionTrackingSpecificationRequest) (*state.ConnectionTracking, error) {
	if t == nil {
		return nil, nil
	}
	out := &state.ConnectionTracking{TCP: int(wire.Value(t.TcpEstablishedTimeout)), UDPStream: int(wire.Value(t.UdpStreamTimeout)), UDP: int(wire.Value(t.UdpTimeout))}
	for _, x := range []struct {
		name       string
		n, low, hi int
	}{{"TcpEstablishedTimeout", out.TCP, 60, 432000}, {"UdpStreamTimeout", out.UDPStream, 60, 180}, {"UdpTimeout", out.UDP, 30, 60}} {
		if x.n != 0 && (x.n < x.low || x.n > x.hi) {
			return nil, bad("InvalidParameterValue", "Value (%d) for parameter %s is invalid. It must be between %d and %d.", x.n, x.name, x.low, x.hi)
		}
	}
	return out, nil
}

// DeleteNetworkInterface removes an interface that is not attached.
func (e *EC2) DeleteNetworkInterface(ctx context.Context, in *api.DeleteNetworkInterfaceInput) (*api.DeleteNetworkInterfaceOutput, error) {
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		n, err := ownInterface(tx, e.Account(ctx), *in.NetworkInterfaceId)
		if err != nil {
			return err
		}
		if n.Attachment != nil || n.Task != "" || n.Owner != "" {
			return bad("InvalidParameterValue", "Network interface '%s' is currently in use.", n.ID)
		}
		if n.Node == "" {
			// No kernel has it: it is gone when the call returns, and its subnet
			// may go next, as in AWS.
			for _, l := range n.Leases(tx) {
				state.AddressLeases.Delete(tx, state.LeaseKey(l.Scope, l.Address))
			}
			for ip := range state.ElasticIPs.By(tx, "eni", n.ID) {
				free := *ip
				free.Association, free.ENI, free.Private = "", "", netip.Addr{}
				state.ElasticIPs.Put(tx, &free)
			}
			state.NetworkInterfaces.Delete(tx, n.ID)
			return nil
		}
		// What is left of it, its addresses too, is given back by control/address.
		next := *n
		next.Deleting = true
		state.NetworkInterfaces.Put(tx, &next)
		return nil
	})
	return &api.DeleteNetworkInterfaceOutput{}, err
}

// AttachNetworkInterface gives an instance a further interface, also while it runs.
func (e *EC2) AttachNetworkInterface(ctx context.Context, in *api.AttachNetworkInterfaceInput) (*api.AttachNetworkInterfaceOutput, error) {
	switch {
	case wire.Value(in.NetworkCardIndex) != 0:
		return nil, bad("InvalidParameterValue", "Network card index %d is invalid: the instance has one network card.", *in.NetworkCardIndex)
	case in.EnaSrdSpecification != nil && wire.Value(in.EnaSrdSpecification.EnaSrdEnabled):
		return nil, unsupported("EnaSrdSpecification")
	case in.EnaQueueCount != nil:
		return nil, unsupported("EnaQueueCount")
	case *in.DeviceIndex < 0:
		return nil, bad("InvalidParameterValue", "Invalid value '%d' for deviceIndex.", *in.DeviceIndex)
	}
	account, id := e.Account(ctx), e.id("eni-attach")
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		n, err := ownInterface(tx, account, *in.NetworkInterfaceId)
		if err != nil {
			return err
		}
		i, ok := state.Instances.Get(tx, *in.InstanceId)
		if !ok || i.Account != account {
			if err := malformed("InvalidInstanceID", "i", *in.InstanceId); err != nil {
				return err
			}
			return bad("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", *in.InstanceId)
		}
		if i.Want == "terminated" || i.State != "running" && i.State != "stopped" {
			return bad("IncorrectState", "Instance '%s' is not in a state from which it can be attached to: %s", i.ID, i.State)
		}
		if n.Attachment != nil || n.Task != "" {
			return bad("InvalidNetworkInterface.InUse", "Interface: [%s] in use.", n.ID)
		}
		switch {
		case n.Zone != i.Zone:
			return bad("InvalidParameterCombination", "You may not attach a network interface to an instance if they are not in the same availability zone")
		case n.VPC != i.VPC:
			return unsupported("An interface of another VPC than the instance's")
		}
		// Another one that comes to it at the same moment makes this look again.
		state.Instances.Put(tx, i)
		devices := 0
		for have := range state.NetworkInterfaces.By(tx, "instance", i.ID) {
			devices++
			if have.Attachment.Device == int(*in.DeviceIndex) {
				return bad("InvalidParameterValue", "Instance '%s' already has an interface attached at device index '%d'.", i.ID, *in.DeviceIndex)
			}
		}
		t, _ := state.InstanceType(i.Type)
		if devices >= t.MaxENIs {
			return bad("AttachmentLimitExceeded", "Interface count %d exceeds the limit for %s", devices+1, i.Type)
		}
		if 1+len(n.Secondary) > t.IPv4PerENI {
			return bad("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
		}
		next := *n
		next.AttachmentID, next.Node = id, i.Node
		next.Attachment = &state.InterfaceAttachment{Instance: i.ID, Device: int(*in.DeviceIndex), AttachedAt: e.Now()}
		state.NetworkInterfaces.Put(tx, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.AttachNetworkInterfaceOutput{AttachmentId: new(id), NetworkCardIndex: new(int32(0))}, nil
}

func noAttachment(id string) error {
	return bad("InvalidAttachmentID.NotFound", "The interface attachment ID '%s' does not exist", id)
}

// attachmentOf finds an interface by its attachment.
func attachmentOf(r store.Reader, account, id string) (*state.NetworkInterface, error) {
	for n := range state.NetworkInterfaces.All(r) {
		if n.AttachmentID == id && id != "" && n.Account == account && shownInterface(n) {
			// Read by its key, so that the transaction depends on it.
			return interfaceOf(r, account, n.ID)
		}
	}
	return nil, noAttachment(id)
}

// DetachNetworkInterface takes an interface from an instance. It is free once
// the node has said that nothing of it is left there.
func (e *EC2) DetachNetworkInterface(ctx context.Context, in *api.DetachNetworkInterfaceInput) (*api.DetachNetworkInterfaceOutput, error) {
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		n, err := attachmentOf(tx, e.Account(ctx), *in.AttachmentId)
		switch {
		case err != nil:
			return err
		case n.RequesterManaged || n.Attachment == nil:
			return bad("OperationNotPermitted", "You are not allowed to manage '%s' attachments.", attachmentPrefix(n))
		case n.Attachment.Device == 0:
			return bad("OperationNotPermitted", "The network interface at device index 0 and networkCard index 0 cannot be detached.")
		case n.Attachment.Detaching:
			return nil
		}
		next := *n
		a := *n.Attachment
		a.Detaching = true
		next.Attachment = &a
		if n.Node == "" { // no kernel has it
			next = *next.Left()
		}
		state.NetworkInterfaces.Put(tx, &next)
		return nil
	})
	return &api.DetachNetworkInterfaceOutput{}, err
}

func attachmentPrefix(n *state.NetworkInterface) string {
	if i := strings.LastIndexByte(n.AttachmentID, '-'); i > 0 {
		return n.AttachmentID[:i]
	}
	return "ela-attach"
}

// ModifyNetworkInterfaceAttribute changes one attribute.
func (e *EC2) ModifyNetworkInterfaceAttribute(ctx context.Context, in *api.ModifyNetworkInterfaceAttributeInput) (*api.ModifyNetworkInterfaceAttributeOutput, error) {
	given := 0
	for _, is := range []bool{in.Description != nil, in.SourceDestCheck != nil, len(in.Groups) > 0, in.Attachment != nil, in.ConnectionTrackingSpecification != nil,
		in.EnaSrdSpecification != nil, in.EnablePrimaryIpv6 != nil, in.AssociatePublicIpAddress != nil, len(in.AssociatedSubnetIds) > 0} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		return nil, bad("InvalidParameterCombination", "No attributes specified.")
	case given > 1:
		return nil, bad("InvalidParameterCombination", "Fields for multiple attribute types specified")
	case in.EnaSrdSpecification != nil:
		return nil, unsupported("EnaSrdSpecification")
	case in.EnablePrimaryIpv6 != nil:
		return nil, unsupported("EnablePrimaryIpv6")
	case in.AssociatePublicIpAddress != nil:
		return nil, unsupported("AssociatePublicIpAddress")
	case len(in.AssociatedSubnetIds) > 0:
		return nil, unsupported("AssociatedSubnetIds")
	case in.Attachment != nil && (in.Attachment.EnaQueueCount != nil || in.Attachment.DefaultEnaQueueCount != nil):
		return nil, unsupported("EnaQueueCount")
	}
	if in.Description != nil {
		if err := checkDescription(in.Description.Value); err != nil {
			return nil, err
		}
	}
	tracking, err := trackingOf(in.ConnectionTrackingSpecification)
	if err != nil {
		return nil, err
	}
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		n, err := ownInterface(tx, e.Account(ctx), *in.NetworkInterfaceId)
		if err != nil {
			return err
		}
		next := *n
		switch {
		case in.Description != nil:
			next.Description = wire.Value(in.Description.Value)
		case in.SourceDestCheck != nil:
			if in.SourceDestCheck.Value == nil {
				return bad("MissingParameter", "The request must contain the parameter sourceDestCheck.Value")
			}
			next.SourceDestCheck = *in.SourceDestCheck.Value
			instanceFollows(tx, &next)
		case len(in.Groups) > 0:
			if next.Groups, err = groupsFor(tx, n.Account, n.VPC, in.Groups); err != nil {
				return err
			}
		case in.Attachment != nil:
			if n.Attachment == nil || wire.Value(in.Attachment.AttachmentId) != n.AttachmentID {
				return noAttachment(wire.Value(in.Attachment.AttachmentId))
			}
			if in.Attachment.DeleteOnTermination == nil {
				return bad("MissingParameter", "The request must contain the parameter attachment.DeleteOnTermination")
			}
			a := *n.Attachment
			a.DeleteOnTermination = *in.Attachment.DeleteOnTermination
			next.Attachment = &a
		default:
			next.Tracking = tracking
		}
		state.NetworkInterfaces.Put(tx, &next)
		return nil
	})
	return &api.ModifyNetworkInterfaceAttributeOutput{}, err
}

// instanceFollows writes the check of device 0 into its instance, whose it is too.
func instanceFollows(tx *store.Tx, n *state.NetworkInterface) {
	if n.Attachment == nil || n.Attachment.Device != 0 {
		return
	}
	if i, ok := state.Instances.Get(tx, n.Attachment.Instance); ok {
		next := *i
		next.SourceDestCheck = n.SourceDestCheck
		state.Instances.Put(tx, &next)
	}
}

// ResetNetworkInterfaceAttribute turns the source/destination check on again.
func (e *EC2) ResetNetworkInterfaceAttribute(ctx context.Context, in *api.ResetNetworkInterfaceAttributeInput) (*api.ResetNetworkInterfaceAttributeOutput, error) {
	if in.SourceDestCheck == nil {
		return nil, bad("MissingParameter", "The request must contain the parameter sourceDestCheck")
	}
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		n, err := ownInterface(tx, e.Account(ctx), *in.NetworkInterfaceId)
		if err != nil {
			return err
		}
		next := *n
		next.SourceDestCheck = true
		instanceFollows(tx, &next)
		state.NetworkInterfaces.Put(tx, &next)
		return nil
	})
	return &api.ResetNetworkInterfaceAttributeOutput{}, err
}

// DescribeNetworkInterfaceAttribute answers one attribute.
func (e *EC2) DescribeNetworkInterfaceAttribute(ctx context.Context, in *api.DescribeNetworkInterfaceAttributeInput) (*api.DescribeNetworkInterfaceAttributeOutput, error) {
	snap := e.DB.Snapshot()
	n, err := interfaceOf(snap, e.Account(ctx), *in.NetworkInterfaceId)
	if err != nil {
		return nil, err
	}
	v := e.networkInterface(snap, n)
	out := &api.DescribeNetworkInterfaceAttributeOutput{NetworkInterfaceId: new(n.ID)}
	switch in.Attribute {
	case "description":
		out.Description = &api.AttributeValue{Value: new(n.Description)}
	case "groupSet":
		out.Groups = v.Groups
	case "sourceDestCheck":
		out.SourceDestCheck = &api.AttributeBooleanValue{Value: new(n.SourceDestCheck)}
	case "attachment":
		out.Attachment = v.Attachment
	case "associatePublicIpAddress":
		out.AssociatePublicIpAddress = new(n.Public.IsValid() && n.Allocation == "")
	case "":
		return nil, bad("InvalidParameterCombination", "No attributes specified.")
	default:
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}

// DescribeNetworkInterfaces lists interfaces.
func (e *EC2) DescribeNetworkInterfaces(ctx context.Context, in *api.DescribeNetworkInterfacesInput) (*api.DescribeNetworkInterfacesOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	type row = *state.NetworkInterface
	zones := zoneIDs(snap)
	names := func(n row) []string {
		return each(n.Groups, func(id string) []string {
			if g, ok := state.SecurityGroups.Get(snap, id); ok {
				return one(g.Name)
			}
			return nil
		})
	}
	shown := func(yield func(row) bool) {
		for n := range state.NetworkInterfaces.All(snap) {
			if n.Account == account && shownInterface(n) && !yield(n) {
				return
			}
		}
	}
	// association is what the view says of public addresses.
	association := func(primary bool, get func(*api.NetworkInterfaceAssociation) *string) func(row) []string {
		return func(n row) (out []string) {
			v := e.networkInterface(snap, n)
			if primary {
				if v.Association == nil {
					return nil
				}
				return one(wire.Value(get(v.Association)))
			}
			for _, p := range v.PrivateIpAddresses {
				if p.Association != nil {
					out = append(out, one(wire.Value(get(p.Association)))...)
				}
			}
			return out
		}
	}
	attachment := func(get func(*api.NetworkInterfaceAttachment) []string) func(row) []string {
		return func(n row) []string {
			if a := e.attachment(snap, n); a != nil {
				return get(a)
			}
			return nil
		}
	}
	fs := filters[row]{
		"network-interface-id": func(n row) []string { return one(n.ID) },
		"subnet-id":            func(n row) []string { return one(n.Subnet) },
		"vpc-id":               func(n row) []string { return one(n.VPC) },
		"availability-zone":    func(n row) []string { return one(n.Zone) },
		"availability-zone-id": func(n row) []string { return one(zones[n.Zone]) },
		"group-id":             func(n row) []string { return n.Groups },
		"group-name":           names,
		"private-ip-address":   func(n row) []string { return address(n.Address) },
		"addresses.private-ip-address": func(n row) []string {
			return append(address(n.Address), each(n.Secondary, func(s state.SecondaryAddress) []string { return address(s.Address) })...)
		},
		"addresses.primary": func(n row) []string {
			if len(n.Secondary) > 0 {
				return []string{"true", "false"}
			}
			return flag(true)
		},
		"ipv6-addresses.ipv6-address": func(n row) []string { return each(n.IPv6, address) },
		"mac-address":                 func(n row) []string { return one(n.MAC) },
		"description":                 func(n row) []string { return []string{n.Description} },
		"status":                      func(n row) []string { return one(interfaceStatus(n)) },
		"interface-type":              func(n row) []string { return one(n.Type) },
		"owner-id":                    func(n row) []string { return one(n.Account) },
		"private-dns-name":            func(n row) []string { return one(n.PrivateDNSName) },
		"requester-managed":           func(n row) []string { return flag(n.RequesterManaged) },
		"requester-id":                func(n row) []string { return one(requester(n)) },
		"source-dest-check":           func(n row) []string { return flag(n.SourceDestCheck) },
		"operator.managed":            func(row) []string { return flag(false) },
		"operator.principal":          func(row) []string { return nil },

		"attachment.attachment-id":         attachment(func(a *api.NetworkInterfaceAttachment) []string { return one(wire.Value(a.AttachmentId)) }),
		"attachment.status":                attachment(func(a *api.NetworkInterfaceAttachment) []string { return one(string(a.Status)) }),
		"attachment.instance-id":           attachment(func(a *api.NetworkInterfaceAttachment) []string { return one(wire.Value(a.InstanceId)) }),
		"attachment.instance-owner-id":     attachment(func(a *api.NetworkInterfaceAttachment) []string { return one(wire.Value(a.InstanceOwnerId)) }),
		"attachment.delete-on-termination": attachment(func(a *api.NetworkInterfaceAttachment) []string { return flag(wire.Value(a.DeleteOnTermination)) }),
		"attachment.device-index": attachment(func(a *api.NetworkInterfaceAttachment) []string {
			return one(strconv.Itoa(int(wire.Value(a.DeviceIndex))))
		}),
		"attachment.network-card-index": attachment(func(*api.NetworkInterfaceAttachment) []string { return one("0") }),
		"attachment.attach-time":        attachment(func(a *api.NetworkInterfaceAttachment) []string { return instant(wire.Value(a.AttachTime)) }),
	}
	for name, get := range map[string]func(*api.NetworkInterfaceAssociation) *string{
		"association.public-ip":       func(a *api.NetworkInterfaceAssociation) *string { return a.PublicIp },
		"association.public-dns-name": func(a *api.NetworkInterfaceAssociation) *string { return a.PublicDnsName },
		"association.ip-owner-id":     func(a *api.NetworkInterfaceAssociation) *string { return a.IpOwnerId },
		"association.allocation-id":   func(a *api.NetworkInterfaceAssociation) *string { return a.AllocationId },
		"association.association-id":  func(a *api.NetworkInterfaceAssociation) *string { return a.AssociationId },
		"association.carrier-ip":      func(a *api.NetworkInterfaceAssociation) *string { return a.CarrierIp },
	} {
		fs[name], fs["addresses."+name] = association(true, get), association(false, get)
	}
	out, next, err := list(request{in.NetworkInterfaceIds, in.Filters, in.MaxResults, in.NextToken}, kind[row, api.NetworkInterface]{
		name: "enis", rows: shown, id: func(n row) string { return n.ID }, missing: noInterface,
		tags:    func(n row) []state.Tag { return n.Tags },
		filters: fs,
		view:    func(n row) api.NetworkInterface { return e.networkInterface(snap, n) },
	})
	return &api.DescribeNetworkInterfacesOutput{NetworkInterfaces: out, NextToken: next}, err
}

// An interface is in use from the moment it belongs to a task, an instance, a
// gateway or an endpoint; its attachment says "attached" only once the node has
// it in its kernel.
func interfaceStatus(n *state.NetworkInterface) string {
	switch {
	case n.Task == "" && n.Owner == "" && n.Attachment == nil:
		return "available"
	case n.Leaving():
		return "detaching"
	}
	return "in-use"
}

func attachmentStatus(r store.Reader, n *state.NetworkInterface) api.AttachmentStatus {
	switch {
	case n.Removed:
		return "detached"
	case n.Leaving():
		return "detaching"
	case n.Attached:
		return "attached"
	}
	if n.Attachment != nil {
		// An instance that does not run has its interfaces, and no kernel does.
		if i, ok := state.Instances.Get(r, n.Attachment.Instance); ok && (i.State == "stopped" || i.State == "stopping") {
			return "attached"
		}
	}
	return "attaching"
}

// requester is who made an interface for the account, "" if it did itself.
func requester(n *state.NetworkInterface) string {
	switch {
	case !n.RequesterManaged:
		return ""
	case n.Task != "":
		return n.Account
	}
	return "amazon-aws"
}

func (e *EC2) attachment(r store.Reader, n *state.NetworkInterface) *api.NetworkInterfaceAttachment {
	switch {
	case n.Attachment != nil:
		return &api.NetworkInterfaceAttachment{AttachmentId: new(n.AttachmentID), DeleteOnTermination: new(n.Attachment.DeleteOnTermination), DeviceIndex: new(int32(n.Attachment.Device)),
			NetworkCardIndex: new(int32(0)), InstanceId: new(n.Attachment.Instance), InstanceOwnerId: new(n.Account), Status: attachmentStatus(r, n), AttachTime: new(n.Attachment.AttachedAt)}
	case n.Task != "" || n.Owner != "":
		return &api.NetworkInterfaceAttachment{AttachmentId: new(n.AttachmentID), DeleteOnTermination: new(false), DeviceIndex: new(int32(1)),
			NetworkCardIndex: new(int32(0)), InstanceOwnerId: new("amazon-aws"), Status: attachmentStatus(r, n), AttachTime: new(n.CreatedAt)}
	}
	return nil
}

func (e *EC2) networkInterface(r store.Reader, n *state.NetworkInterface) api.NetworkInterface {
	out := api.NetworkInterface{
		AvailabilityZone: new(n.Zone), AvailabilityZoneId: new(zoneIDs(r)[n.Zone]), Description: new(n.Description),
		InterfaceType: api.NetworkInterfaceType(n.Type), Ipv6Addresses: []api.NetworkInterfaceIpv6Address{},
		MacAddress: new(n.MAC), NetworkInterfaceId: new(n.ID), OwnerId: new(n.Account),
		PrivateDnsName: new(n.PrivateDNSName), PrivateIpAddress: new(n.Address.String()),
		RequesterManaged: new(n.RequesterManaged), RequesterId: optional(requester(n)), SourceDestCheck: new(n.SourceDestCheck),
		Status: api.NetworkInterfaceStatus(interfaceStatus(n)), SubnetId: new(n.Subnet), VpcId: new(n.VPC), TagSet: tagsView(n.Tags),
		Groups: []api.GroupIdentifier{}, Attachment: e.attachment(r, n), Operator: &api.OperatorResponse{Managed: new(false)},
	}
	for _, id := range n.Groups {
		g := api.GroupIdentifier{GroupId: new(id)}
		if sg, ok := state.SecurityGroups.Get(r, id); ok {
			g.GroupName = new(sg.Name)
		}
		out.Groups = append(out.Groups, g)
	}
	if t := n.Tracking; t != nil {
		out.ConnectionTrackingConfiguration = &api.ConnectionTrackingConfiguration{TcpEstablishedTimeout: seconds(t.TCP), UdpStreamTimeout: seconds(t.UDPStream), UdpTimeout: seconds(t.UDP)}
	}
	for _, a := range n.IPv6 {
		out.Ipv6Addresses = append(out.Ipv6Addresses, api.NetworkInterfaceIpv6Address{Ipv6Address: new(a.String()), IsPrimaryIpv6: new(false)})
	}
	if len(n.IPv6) > 0 {
		out.Ipv6Address = new(n.IPv6[0].String())
	}
	names := false
	if v, ok := state.VPCs.Get(r, n.VPC); ok {
		names = v.DNSHostnames && v.DNSSupport
	}
	association := func(public netip.Addr, allocation string) *api.NetworkInterfaceAssociation {
		if !public.IsValid() {
			return nil
		}
		a := &api.NetworkInterfaceAssociation{IpOwnerId: new("amazon"), PublicIp: new(public.String()), PublicDnsName: new("")}
		if names {
			a.PublicDnsName = new(PublicName(public, e.Region))
		}
		if ip, ok := state.ElasticIPs.Get(r, allocation); ok {
			a.IpOwnerId, a.AllocationId, a.AssociationId = new(ip.Account), new(ip.ID), new(ip.Association)
		}
		return a
	}
	out.Association = association(n.Public, n.Allocation)
	out.PrivateIpAddresses = []api.NetworkInterfacePrivateIpAddress{{Primary: new(true), PrivateDnsName: new(n.PrivateDNSName), PrivateIpAddress: new(n.Address.String()), Association: out.Association}}
	for _, s := range n.Secondary {
		out.PrivateIpAddresses = append(out.PrivateIpAddresses, api.NetworkInterfacePrivateIpAddress{Primary: new(false), PrivateDnsName: new(state.PrivateName(s.Address, e.Region)),
			PrivateIpAddress: new(s.Address.String()), Association: association(s.Public, s.Allocation)})
	}
	return out
}

// seconds is nil for the default.
func seconds(n int) *int32 {
	if n == 0 {
		return nil
	}
	return new(int32(n))
}
