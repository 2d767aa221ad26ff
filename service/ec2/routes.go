package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noRouteTable(id string) error {
	if err := malformed("InvalidRouteTableId", "rtb", id); err != nil {
		return err
	}
	return bad("InvalidRouteTableID.NotFound", "The routeTable ID '%s' does not exist", id)
}

// routeTableOf finds a route table of the account.
func routeTableOf(r store.Reader, account, id string) (*state.RouteTable, error) {
	t, ok := state.RouteTables.Get(r, id)
	if !ok || t.Account != account {
		return nil, noRouteTable(id)
	}
	return t, nil
}

// CreateRouteTable makes a table with nothing but the local routes.
func (e *EC2) CreateRouteTable(ctx context.Context, in *api.CreateRouteTableInput) (*api.CreateRouteTableOutput, error) {
	tags, err := tagsFor("route-table", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	account, token := e.Account(ctx), wire.Value(in.ClientToken)
	t := &state.RouteTable{ID: e.id("rtb"), Account: account, VPC: wire.Value(in.VpcId), ClientToken: token, Tags: tags, CreatedAt: e.Now()}
	var out api.RouteTable
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		v, err := vpcOf(tx, account, wire.Value(in.VpcId))
		if err != nil {
			return err
		}
		state.RouteTables.Guard(tx, "")
		n := 0
		for have := range state.RouteTables.By(tx, "vpc", v.ID) {
			if n++; token != "" && have.ClientToken == token {
				out = e.routeTable(tx, have)
				return nil
			}
		}
		if n >= state.Limit(tx, account, "vpc/route-tables-per-vpc") {
			return bad("RouteTableLimitExceeded", "The maximum number of route tables has been reached.")
		}
		state.RouteTables.Put(tx, t)
		out = e.routeTable(tx, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateRouteTableOutput{RouteTable: &out, ClientToken: in.ClientToken}, nil
}

// DeleteRouteTable removes a table that no subnet follows.
func (e *EC2) DeleteRouteTable(ctx context.Context, in *api.DeleteRouteTableInput) (*api.DeleteRouteTableOutput, error) {
	return &api.DeleteRouteTableOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		t, err := routeTableOf(tx, e.Account(ctx), wire.Value(in.RouteTableId))
		if err != nil {
			return err
		}
		state.Subnets.Guard(tx, "")
		state.Endpoints.Guard(tx, "")
		used := t.Main
		for s := range state.Subnets.By(tx, "vpc", t.VPC) {
			used = used || s.RouteTable == t.ID
		}
		for x := range state.Endpoints.By(tx, "vpc", t.VPC) {
			used = used || x.State != "deleted" && slices.Contains(x.RouteTables, t.ID)
		}
		if used {
			return bad("DependencyViolation", "The routeTable '%s' has dependencies and cannot be deleted.", t.ID)
		}
		state.RouteTables.Delete(tx, t.ID)
		return nil
	})
}

// DescribeRouteTables lists route tables with their local routes.
func (e *EC2) DescribeRouteTables(ctx context.Context, in *api.DescribeRouteTablesInput) (*api.DescribeRouteTablesOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	routes := func(of func(api.Route) *string) func(*state.RouteTable) []string {
		return func(t *state.RouteTable) []string {
			return each(e.routesOf(snap, t), func(r api.Route) []string { return one(wire.Value(of(r))) })
		}
	}
	associations := func(of func(api.RouteTableAssociation) *string) func(*state.RouteTable) []string {
		return func(t *state.RouteTable) []string {
			return each(associationsOf(snap, t), func(a api.RouteTableAssociation) []string { return one(wire.Value(of(a))) })
		}
	}
	out, next, err := list(request{in.RouteTableIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.RouteTable, api.RouteTable]{
		name: "rtbs", rows: mine(state.RouteTables.All(snap), account, func(t *state.RouteTable) string { return t.Account }),
		id:      func(t *state.RouteTable) string { return t.ID },
		missing: noRouteTable,
		tags:    func(t *state.RouteTable) []state.Tag { return t.Tags },
		filters: filters[*state.RouteTable]{
			"route-table-id": func(t *state.RouteTable) []string { return one(t.ID) },
			"vpc-id":         func(t *state.RouteTable) []string { return one(t.VPC) },
			"owner-id":       func(t *state.RouteTable) []string { return one(t.Account) },
			"association.main": func(t *state.RouteTable) []string {
				return each(associationsOf(snap, t), func(a api.RouteTableAssociation) []string { return flag(*a.Main) })
			},
			"association.route-table-id":             associations(func(a api.RouteTableAssociation) *string { return a.RouteTableId }),
			"association.subnet-id":                  associations(func(a api.RouteTableAssociation) *string { return a.SubnetId }),
			"association.gateway-id":                 associations(func(a api.RouteTableAssociation) *string { return a.GatewayId }),
			"association.route-table-association-id": associations(func(a api.RouteTableAssociation) *string { return a.RouteTableAssociationId }),
			"route.destination-cidr-block":           routes(func(r api.Route) *string { return r.DestinationCidrBlock }),
			"route.destination-ipv6-cidr-block":      routes(func(r api.Route) *string { return r.DestinationIpv6CidrBlock }),
			"route.destination-prefix-list-id":       routes(func(r api.Route) *string { return r.DestinationPrefixListId }),
			"route.egress-only-internet-gateway-id":  routes(func(r api.Route) *string { return r.EgressOnlyInternetGatewayId }),
			"route.gateway-id":                       routes(func(r api.Route) *string { return r.GatewayId }),
			"route.instance-id":                      routes(func(r api.Route) *string { return r.InstanceId }),
			"route.nat-gateway-id":                   routes(func(r api.Route) *string { return r.NatGatewayId }),
			"route.network-interface-id":             routes(func(r api.Route) *string { return r.NetworkInterfaceId }),
			"route.transit-gateway-id":               routes(func(r api.Route) *string { return r.TransitGatewayId }),
			"route.vpc-peering-connection-id":        routes(func(r api.Route) *string { return r.VpcPeeringConnectionId }),
			"route.origin":                           routes(func(r api.Route) *string { return new(string(r.Origin)) }),
			"route.state":                            routes(func(r api.Route) *string { return new(string(r.State)) }),
		},
		view: func(t *state.RouteTable) api.RouteTable { return e.routeTable(snap, t) },
	})
	return &api.DescribeRouteTablesOutput{RouteTables: out, NextToken: next}, err
}

func (e *EC2) routeTable(r store.Reader, t *state.RouteTable) api.RouteTable {
	return api.RouteTable{RouteTableId: new(t.ID), VpcId: new(t.VPC), OwnerId: new(t.Account), Tags: tagsView(t.Tags), PropagatingVgws: []api.PropagatingVgw{},
		Associations: associationsOf(r, t), Routes: e.routesOf(r, t)}
}

var associated = &api.RouteTableAssociationState{State: "associated"}

// associationsOf are what follows a table: the VPC, if it is the main one, and subnets.
func associationsOf(r store.Reader, t *state.RouteTable) []api.RouteTableAssociation {
	out := []api.RouteTableAssociation{}
	if t.Main {
		out = append(out, api.RouteTableAssociation{Main: new(true), RouteTableAssociationId: new(t.MainAssociation), RouteTableId: new(t.ID), AssociationState: associated})
	}
	for s := range state.Subnets.By(r, "vpc", t.VPC) {
		if s.RouteTable == t.ID {
			out = append(out, api.RouteTableAssociation{Main: new(false), RouteTableAssociationId: new(s.Association), RouteTableId: new(t.ID), SubnetId: new(s.ID), AssociationState: associated})
		}
	}
	return out
}

// locals are the destinations of the local routes: all ranges of the VPC.
func locals(v *state.VPC) []netip.Prefix {
	out := slices.Clone(v.CIDRs)
	for _, b := range v.IPv6 {
		out = append(out, b.CIDR)
	}
	return out
}

func (e *EC2) routesOf(r store.Reader, t *state.RouteTable) []api.Route {
	out := []api.Route{}
	if v, ok := state.VPCs.Get(r, t.VPC); ok {
		for _, p := range locals(v) {
			x := api.Route{GatewayId: new("local"), Origin: "CreateRouteTable", State: "active"}
			destination(&x, state.Route{Destination: p})
			out = append(out, x)
		}
	}
	for _, route := range t.Routes {
		x := api.Route{Origin: api.RouteOrigin(route.Origin), State: "blackhole"}
		destination(&x, route)
		if target(r, t, route.Target, &x) {
			x.State = "active"
		}
		out = append(out, x)
	}
	return out
}

func destination(x *api.Route, r state.Route) {
	switch {
	case r.PrefixList != "":
		x.DestinationPrefixListId = new(r.PrefixList)
	case r.Destination.Addr().Is4():
		x.DestinationCidrBlock = new(r.Destination.String())
	default:
		x.DestinationIpv6CidrBlock = new(r.Destination.String())
	}
}

// target shows a route's target, and reports whether anything is at the other
// end: what is gone, or detached, is a blackhole.
func target(r store.Reader, t *state.RouteTable, id string, x *api.Route) (active bool) {
	prefix, _, _ := strings.Cut(id, "-")
	switch prefix {
	case "igw":
		x.GatewayId = new(id)
		g, ok := state.InternetGateways.Get(r, id)
		return ok && g.VPC == t.VPC
	case "vpce":
		x.GatewayId = new(id)
		p, ok := state.Endpoints.Get(r, id)
		return ok && p.VPC == t.VPC && p.State == "available"
	case "eigw":
		x.EgressOnlyInternetGatewayId = new(id)
		g, ok := state.EgressOnlyGateways.Get(r, id)
		return ok && g.VPC == t.VPC
	case "nat":
		x.NatGatewayId = new(id)
		n, ok := state.NATGateways.Get(r, id)
		return ok && n.VPC == t.VPC && n.State == "available"
	case "pcx":
		x.VpcPeeringConnectionId = new(id)
		p, ok := state.Peerings.Get(r, id)
		return ok && (p.VPC == t.VPC || p.PeerVPC == t.VPC) && p.Status == "active"
	case "eni":
		x.NetworkInterfaceId = new(id)
		n, ok := state.NetworkInterfaces.Get(r, id)
		if !ok || n.VPC != t.VPC || n.Deleting {
			return false
		}
		if n.Attachment == nil {
			return n.Attached // a task's is in a kernel too; one that is attached to nothing is not
		}
		x.InstanceId, x.InstanceOwnerId = new(n.Attachment.Instance), new(n.Account)
		i, ok := state.Instances.Get(r, n.Attachment.Instance)
		return ok && i.State == "running"
	}
	x.GatewayId = new(id)
	return false
}

// findAssociation finds what an association id is about: a subnet, or a VPC by
// its main table (then subnet is nil).
func findAssociation(tx *store.Tx, account, id string) (*state.Subnet, *state.RouteTable, error) {
	for s := range mine(state.Subnets.All(tx), account, func(s *state.Subnet) string { return s.Account }) {
		if s.Association == id && id != "" {
			s, err := subnetOf(tx, account, s.ID) // compared at commit only if it is read
			if err != nil {
				return nil, nil, err
			}
			t, err := routeTableOf(tx, account, s.RouteTable)
			return s, t, err
		}
	}
	for t := range mine(state.RouteTables.All(tx), account, func(t *state.RouteTable) string { return t.Account }) {
		if t.Main && t.MainAssociation == id {
			t, err := routeTableOf(tx, account, t.ID)
			return nil, t, err
		}
	}
	return nil, nil, bad("InvalidAssociationID.NotFound", "The association ID '%s' does not exist", id)
}

// AssociateRouteTable makes a subnet follow a table.
func (e *EC2) AssociateRouteTable(ctx context.Context, in *api.AssociateRouteTableInput) (*api.AssociateRouteTableOutput, error) {
	switch {
	case in.GatewayId != nil:
		return nil, unsupported("GatewayId")
	case in.PublicIpv4Pool != nil:
		return nil, unsupported("PublicIpv4Pool")
	case in.SubnetId == nil:
		return nil, bad("MissingParameter", "The request must contain the parameter subnetId or gatewayId")
	}
	id, account := e.id("rtbassoc"), e.Account(ctx)
	var association string
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		t, err := routeTableOf(tx, account, wire.Value(in.RouteTableId))
		if err != nil {
			return err
		}
		s, err := subnetOf(tx, account, *in.SubnetId)
		if err != nil {
			return err
		}
		switch {
		case s.VPC != t.VPC:
			return bad("InvalidParameterValue", "Route table %s and subnet %s belong to different networks", t.ID, s.ID)
		case s.RouteTable == t.ID:
			association = s.Association
			return nil
		case s.RouteTable != "":
			return bad("Resource.AlreadyAssociated", "the specified association for route table %s conflicts with an existing association", t.ID)
		}
		n := *s
		n.RouteTable, n.Association = t.ID, id
		association = id
		state.Subnets.Put(tx, &n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.AssociateRouteTableOutput{AssociationId: &association, AssociationState: associated}, nil
}

// DisassociateRouteTable makes a subnet follow its VPC's main table again.
func (e *EC2) DisassociateRouteTable(ctx context.Context, in *api.DisassociateRouteTableInput) (*api.DisassociateRouteTableOutput, error) {
	return &api.DisassociateRouteTableOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		s, _, err := findAssociation(tx, e.Account(ctx), wire.Value(in.AssociationId))
		if err != nil {
			return err
		}
		if s == nil {
			return bad("InvalidParameterValue", "cannot disassociate the main route table association %s", wire.Value(in.AssociationId))
		}
		n := *s
		n.RouteTable, n.Association = "", ""
		state.Subnets.Put(tx, &n)
		return nil
	})
}

// ReplaceRouteTableAssociation makes a subnet, or by the main association the
// VPC, follow another table.
func (e *EC2) ReplaceRouteTableAssociation(ctx context.Context, in *api.ReplaceRouteTableAssociationInput) (*api.ReplaceRouteTableAssociationOutput, error) {
	id, account := e.id("rtbassoc"), e.Account(ctx)
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		s, old, err := findAssociation(tx, account, wire.Value(in.AssociationId))
		if err != nil {
			return err
		}
		t, err := routeTableOf(tx, account, wire.Value(in.RouteTableId))
		if err != nil {
			return err
		}
		if t.VPC != old.VPC {
			return bad("InvalidParameterValue", "Route table %s and route table %s belong to different networks", t.ID, old.ID)
		}
		if s != nil {
			n := *s
			n.RouteTable, n.Association = t.ID, id
			state.Subnets.Put(tx, &n)
			return nil
		}
		was := *old
		was.Main, was.MainAssociation = false, ""
		is := *t
		if t.ID == old.ID {
			is = was
		} else {
			state.RouteTables.Put(tx, &was)
		}
		is.Main, is.MainAssociation = true, id
		state.RouteTables.Put(tx, &is)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.ReplaceRouteTableAssociationOutput{NewAssociationId: &id, AssociationState: associated}, nil
}

// routeRequest is what CreateRoute and ReplaceRoute have in common.
type routeRequest struct {
	table, v4, v6, list                          *string
	gateway, nat, eni, instance, pcx, eigw, vpce *string
	others                                       map[string]*string // targets there are not
}

// to reads the destination of a request: a CIDR block or a prefix list.
func (q routeRequest) to() (state.Route, error) {
	given := map[string]*string{"destinationCidrBlock": q.v4, "destinationIpv6CidrBlock": q.v6, "destinationPrefixListId": q.list}
	var names []string
	for _, name := range []string{"destinationCidrBlock", "destinationIpv6CidrBlock", "destinationPrefixListId"} {
		if given[name] != nil {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return state.Route{}, bad("MissingParameter", "The request must contain the parameter destinationCidrBlock or destinationIpv6CidrBlock or destinationPrefixListId")
	}
	if len(names) > 1 {
		return state.Route{}, bad("InvalidParameterCombination", "The parameter %s cannot be used with the parameter %s", names[1], names[0])
	}
	var err error
	route := state.Route{Origin: "CreateRoute"}
	switch {
	case q.v4 != nil:
		route.Destination, err = readPrefix4(*q.v4, names[0])
	case q.v6 != nil:
		route.Destination, err = readPrefix6(*q.v6, names[0])
	default:
		route.PrefixList = *q.list
	}
	return route, err
}

// sameWay reports whether two routes have one destination.
func sameWay(a, b state.Route) bool {
	return a.PrefixList == b.PrefixList && a.Destination == b.Destination
}

func named(r state.Route) string {
	if r.PrefixList != "" {
		return r.PrefixList
	}
	return r.Destination.String()
}

const targets = "gatewayId, natGatewayId, networkInterfaceId, instanceId, vpcPeeringConnectionId, egressOnlyInternetGatewayId, vpcEndpointId, transitGatewayId, localGatewayId, carrierGatewayId, coreNetworkArn or odbNetworkArn"

// via finds the target of a route, which must be of the table's VPC.
func (q routeRequest) via(tx *store.Tx, t *state.RouteTable, to state.Route) (string, error) {
	n, id := 0, ""
	for _, x := range []*string{q.gateway, q.nat, q.eni, q.instance, q.pcx, q.eigw, q.vpce} {
		if x != nil {
			n, id = n+1, *x
		}
	}
	for name, x := range q.others {
		if x != nil {
			return "", unsupported(name)
		}
	}
	if n != 1 {
		return "", bad("InvalidParameterCombination", "The request must contain exactly one of %s", targets)
	}
	elsewhere := func(kind string) error {
		return bad("InvalidParameterValue", "route table %s and %s %s belong to different networks", t.ID, kind, id)
	}
	six := to.PrefixList == "" && to.Destination.Addr().Is6()
	if to.PrefixList != "" {
		l, ok := state.PrefixLists.Get(tx, to.PrefixList)
		if !ok || l.Account != t.Account {
			return "", bad("InvalidPrefixListID.NotFound", "The prefix list ID '%s' does not exist", to.PrefixList)
		}
		six = l.Family == "IPv6"
	}
	if q.vpce != nil || q.gateway != nil && strings.HasPrefix(id, "vpce-") {
		if p, ok := state.Endpoints.Get(tx, id); !ok || p.Account != t.Account {
			return "", bad("InvalidVpcEndpointId.NotFound", "The Vpc Endpoint Id '%s' does not exist", id)
		}
		return "", bad("RouteNotSupported", "Route table contains unsupported route target: %s. VPC Endpoints of this type cannot be used as route targets.", id)
	}
	switch {
	case q.gateway != nil:
		g, ok := state.InternetGateways.Get(tx, id)
		if !ok || g.Account != t.Account {
			return "", bad("InvalidGatewayID.NotFound", "The gateway ID '%s' does not exist", id)
		}
		if g.VPC != t.VPC {
			return "", elsewhere("network gateway")
		}
	case q.nat != nil:
		g, ok := state.NATGateways.Get(tx, id)
		if !ok || g.Account != t.Account || g.State == "deleted" || g.State == "failed" {
			return "", bad("InvalidNatGatewayID.NotFound", "The natGateway ID '%s' does not exist", id)
		}
		if g.VPC != t.VPC {
			return "", elsewhere("nat gateway")
		}
		if six {
			return "", unsupported("a route of IPv6 to a NAT gateway")
		}
	case q.eigw != nil:
		g, ok := state.EgressOnlyGateways.Get(tx, id)
		if !ok || g.Account != t.Account {
			return "", noEgressOnly(id)
		}
		if g.VPC != t.VPC {
			return "", elsewhere("egress-only internet gateway")
		}
		if !six {
			return "", bad("InvalidParameterValue", "An egress-only internet gateway can only be the target of a route with an IPv6 destination")
		}
	case q.pcx != nil:
		p, ok := state.Peerings.Get(tx, id)
		if !ok || p.Account != t.Account && p.PeerAccount != t.Account || p.Status != "active" && p.Status != "pending-acceptance" {
			return "", bad("InvalidVpcPeeringConnectionID.NotFound", "The vpcPeeringConnection ID '%s' does not exist", id)
		}
		if p.VPC != t.VPC && p.PeerVPC != t.VPC {
			return "", elsewhere("vpc peering connection")
		}
	case q.instance != nil:
		eni, err := onlyInterface(tx, t.Account, id)
		if err != nil {
			return "", err
		}
		if eni.VPC != t.VPC {
			return "", elsewhere("instance")
		}
		return eni.ID, nil
	default:
		eni, ok := state.NetworkInterfaces.Get(tx, id)
		if !ok || eni.Account != t.Account || eni.Deleting {
			return "", bad("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id)
		}
		if eni.VPC != t.VPC {
			return "", elsewhere("network interface")
		}
	}
	return id, nil
}

// onlyInterface is the interface of an instance that has one alone.
func onlyInterface(tx *store.Tx, account, instance string) (*state.NetworkInterface, error) {
	i, ok := state.Instances.Get(tx, instance)
	if !ok || i.Account != account || i.State == "terminated" {
		if err := malformed("InvalidInstanceID", "i", instance); err != nil {
			return nil, err
		}
		return nil, bad("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", instance)
	}
	var found *state.NetworkInterface
	for n := range state.NetworkInterfaces.By(tx, "instance", instance) {
		if found != nil {
			return nil, bad("InvalidInstanceID", "There are multiple interfaces attached to instance '%s'. Please specify an interface ID for the operation instead.", instance)
		}
		found, _ = state.NetworkInterfaces.Get(tx, n.ID)
	}
	if found == nil {
		return nil, bad("InvalidInstanceID", "There is no interface attached to instance '%s'.", instance)
	}
	return found, nil
}

// beside demands that a route is none of the VPC's own ranges: what is local stays local.
func beside(v *state.VPC, t *state.RouteTable, to state.Route, q routeRequest) error {
	if to.PrefixList != "" {
		return nil
	}
	for _, p := range locals(v) {
		switch {
		case p == to.Destination:
			return bad("RouteAlreadyExists", "The route identified by %s already exists.", p)
		case p.Bits() <= to.Destination.Bits() && p.Contains(to.Destination.Addr()):
			if q.eni != nil || q.instance != nil || q.nat != nil {
				return unsupported("a route that is more specific than the local one")
			}
			return bad("InvalidParameterValue", "The destination CIDR block %s is equal to or more specific than one of this VPC's CIDR blocks. This route can target only an interface or an instance.", to.Destination)
		}
	}
	return nil
}

// CreateRoute adds a route to a table.
func (e *EC2) CreateRoute(ctx context.Context, in *api.CreateRouteInput) (*api.CreateRouteOutput, error) {
	q := routeRequest{in.RouteTableId, in.DestinationCidrBlock, in.DestinationIpv6CidrBlock, in.DestinationPrefixListId,
		in.GatewayId, in.NatGatewayId, in.NetworkInterfaceId, in.InstanceId, in.VpcPeeringConnectionId, in.EgressOnlyInternetGatewayId, in.VpcEndpointId,
		map[string]*string{"TransitGatewayId": in.TransitGatewayId, "LocalGatewayId": in.LocalGatewayId, "CarrierGatewayId": in.CarrierGatewayId, "CoreNetworkArn": in.CoreNetworkArn, "OdbNetworkArn": in.OdbNetworkArn}}
	to, err := q.to()
	if err != nil {
		return nil, err
	}
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		t, err := routeTableOf(tx, e.Account(ctx), wire.Value(q.table))
		if err != nil {
			return err
		}
		v, err := vpcOf(tx, t.Account, t.VPC)
		if err != nil {
			return err
		}
		if err := beside(v, t, to, q); err != nil {
			return err
		}
		if slices.ContainsFunc(t.Routes, func(r state.Route) bool { return sameWay(r, to) }) {
			return bad("RouteAlreadyExists", "The route identified by %s already exists.", named(to))
		}
		route := to
		if route.Target, err = q.via(tx, t, to); err != nil {
			return err
		}
		if len(t.Routes)+len(locals(v)) >= state.Limit(tx, t.Account, "vpc/routes-per-table") {
			return bad("RouteLimitExceeded", "The maximum number of routes has been reached.")
		}
		n := *t
		n.Routes = append(slices.Clone(t.Routes), route)
		state.RouteTables.Put(tx, &n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateRouteOutput{Return: new(true)}, nil
}

// ReplaceRoute gives a route another target.
func (e *EC2) ReplaceRoute(ctx context.Context, in *api.ReplaceRouteInput) (*api.ReplaceRouteOutput, error) {
	q := routeRequest{in.RouteTableId, in.DestinationCidrBlock, in.DestinationIpv6CidrBlock, in.DestinationPrefixListId,
		in.GatewayId, in.NatGatewayId, in.NetworkInterfaceId, in.InstanceId, in.VpcPeeringConnectionId, in.EgressOnlyInternetGatewayId, in.VpcEndpointId,
		map[string]*string{"TransitGatewayId": in.TransitGatewayId, "LocalGatewayId": in.LocalGatewayId, "CarrierGatewayId": in.CarrierGatewayId, "CoreNetworkArn": in.CoreNetworkArn, "OdbNetworkArn": in.OdbNetworkArn}}
	to, err := q.to()
	if err != nil {
		return nil, err
	}
	local := wire.Value(in.LocalTarget) || wire.Value(in.GatewayId) == "local"
	return &api.ReplaceRouteOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		t, err := routeTableOf(tx, e.Account(ctx), wire.Value(q.table))
		if err != nil {
			return err
		}
		v, err := vpcOf(tx, t.Account, t.VPC)
		if err != nil {
			return err
		}
		if slices.Contains(locals(v), to.Destination) {
			if local {
				return nil // it always is
			}
			return unsupported("another target for the local route")
		}
		i := slices.IndexFunc(t.Routes, func(r state.Route) bool { return sameWay(r, to) })
		if i < 0 {
			return bad("InvalidParameterValue", "There is no route defined for '%s' in the route table. Use CreateRoute instead.", named(to))
		}
		if local {
			return bad("InvalidParameterValue", "The destination '%s' is no local route", named(to))
		}
		if strings.HasPrefix(t.Routes[i].Target, "vpce-") {
			return bad("InvalidParameterValue", "cannot replace VPC endpoint route %s in route table %s", named(to), t.ID)
		}
		id, err := q.via(tx, t, to)
		if err != nil {
			return err
		}
		n := *t
		n.Routes = slices.Clone(t.Routes)
		n.Routes[i].Target = id
		state.RouteTables.Put(tx, &n)
		return nil
	})
}

// DeleteRoute removes a route that is neither local nor an endpoint's.
func (e *EC2) DeleteRoute(ctx context.Context, in *api.DeleteRouteInput) (*api.DeleteRouteOutput, error) {
	to, err := routeRequest{v4: in.DestinationCidrBlock, v6: in.DestinationIpv6CidrBlock, list: in.DestinationPrefixListId}.to()
	if err != nil {
		return nil, err
	}
	return &api.DeleteRouteOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		t, err := routeTableOf(tx, e.Account(ctx), wire.Value(in.RouteTableId))
		if err != nil {
			return err
		}
		v, err := vpcOf(tx, t.Account, t.VPC)
		if err != nil {
			return err
		}
		if slices.Contains(locals(v), to.Destination) {
			return bad("InvalidParameterValue", "cannot remove local route %s in route table %s", named(to), t.ID)
		}
		i := slices.IndexFunc(t.Routes, func(r state.Route) bool { return sameWay(r, to) })
		switch {
		case i < 0 && in.DestinationCidrBlock != nil:
			return bad("InvalidRoute.NotFound", "no route with destination-cidr-block %s in route table %s", named(to), t.ID)
		case i < 0 && in.DestinationIpv6CidrBlock != nil:
			return bad("InvalidRoute.NotFound", "no route with destination-ipv6-cidr-block %s in route table %s", named(to), t.ID)
		case i < 0:
			return bad("InvalidRoute.NotFound", "no route with destination-prefix-list-id %s in route table %s", named(to), t.ID)
		case strings.HasPrefix(t.Routes[i].Target, "vpce-"):
			return bad("InvalidParameterValue", "cannot remove VPC endpoint route %s in route table %s", named(to), t.ID)
		}
		n := *t
		n.Routes = slices.Delete(slices.Clone(t.Routes), i, i+1)
		state.RouteTables.Put(tx, &n)
		return nil
	})
}
