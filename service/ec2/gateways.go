package ec2

import (
	"context"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noInternetGateway(id string) error {
	if err := malformed("InvalidInternetGatewayId", "igw", id); err != nil {
		return err
	}
	return bad("InvalidInternetGatewayID.NotFound", "The internetGateway ID '%s' does not exist", id)
}

// internetGatewayOf finds an internet gateway of the account.
func internetGatewayOf(r store.Reader, account, id string) (*state.InternetGateway, error) {
	g, ok := state.InternetGateways.Get(r, id)
	if !ok || g.Account != account {
		return nil, noInternetGateway(id)
	}
	return g, nil
}

// CreateInternetGateway makes a gateway that is attached to nothing yet.
func (e *EC2) CreateInternetGateway(ctx context.Context, in *api.CreateInternetGatewayInput) (*api.CreateInternetGatewayOutput, error) {
	tags, err := tagsFor("internet-gateway", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	g := &state.InternetGateway{ID: e.id("igw"), Account: e.Account(ctx), Tags: tags, CreatedAt: e.Now()}
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		state.InternetGateways.Guard(tx, "")
		n := 0
		for range mine(state.InternetGateways.All(tx), g.Account, func(g *state.InternetGateway) string { return g.Account }) {
			n++
		}
		if n >= state.Limit(tx, g.Account, "vpc/internet-gateways") {
			return bad("InternetGatewayLimitExceeded", "The maximum number of internet gateways has been reached.")
		}
		state.InternetGateways.Put(tx, g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateInternetGatewayOutput{InternetGateway: new(internetGatewayView(g))}, nil
}

// DeleteInternetGateway removes a gateway that is attached to nothing.
func (e *EC2) DeleteInternetGateway(ctx context.Context, in *api.DeleteInternetGatewayInput) (*api.DeleteInternetGatewayOutput, error) {
	return &api.DeleteInternetGatewayOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := internetGatewayOf(tx, e.Account(ctx), wire.Value(in.InternetGatewayId))
		if err != nil {
			return err
		}
		if g.VPC != "" {
			return bad("DependencyViolation", "The internetGateway '%s' has dependencies and cannot be deleted.", g.ID)
		}
		state.InternetGateways.Delete(tx, g.ID)
		return nil
	})
}

// gatewayOfVPC is the internet gateway that is attached to a VPC, nil if none is.
func gatewayOfVPC(r store.Reader, vpc string) *state.InternetGateway {
	for g := range state.InternetGateways.By(r, "vpc", vpc) {
		return g
	}
	return nil
}

// AttachInternetGateway gives a VPC its way to the internet.
func (e *EC2) AttachInternetGateway(ctx context.Context, in *api.AttachInternetGatewayInput) (*api.AttachInternetGatewayOutput, error) {
	account := e.Account(ctx)
	return &api.AttachInternetGatewayOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := internetGatewayOf(tx, account, wire.Value(in.InternetGatewayId))
		if err != nil {
			return err
		}
		v, err := vpcOf(tx, account, wire.Value(in.VpcId))
		if err != nil {
			return err
		}
		if g.VPC != "" {
			return bad("Resource.AlreadyAssociated", "resource %s is already attached to network %s", g.ID, g.VPC)
		}
		state.InternetGateways.Guard(tx, "")
		if gatewayOfVPC(tx, v.ID) != nil {
			return bad("InvalidParameterValue", "Network %s already has an internet gateway attached", v.ID)
		}
		n := *g
		n.VPC = v.ID
		state.InternetGateways.Put(tx, &n)
		return nil
	})
}

// DetachInternetGateway takes it from a VPC in which nothing has a public address.
func (e *EC2) DetachInternetGateway(ctx context.Context, in *api.DetachInternetGatewayInput) (*api.DetachInternetGatewayOutput, error) {
	account := e.Account(ctx)
	return &api.DetachInternetGatewayOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := internetGatewayOf(tx, account, wire.Value(in.InternetGatewayId))
		if err != nil {
			return err
		}
		v, err := vpcOf(tx, account, wire.Value(in.VpcId))
		if err != nil {
			return err
		}
		if g.VPC != v.ID {
			return bad("Gateway.NotAttached", "resource %s is not attached to network %s", g.ID, v.ID)
		}
		state.NetworkInterfaces.Guard(tx, "")
		for n := range state.NetworkInterfaces.By(tx, "vpc", v.ID) {
			mapped := n.Public.IsValid()
			for _, s := range n.Secondary {
				mapped = mapped || s.Public.IsValid()
			}
			if mapped {
				return bad("DependencyViolation", "Network %s has some mapped public address(es). Please unmap those public address(es) before detaching the gateway.", v.ID)
			}
		}
		n := *g
		n.VPC = ""
		state.InternetGateways.Put(tx, &n)
		return nil
	})
}

// DescribeInternetGateways lists internet gateways.
func (e *EC2) DescribeInternetGateways(ctx context.Context, in *api.DescribeInternetGatewaysInput) (*api.DescribeInternetGatewaysOutput, error) {
	out, next, err := list(request{in.InternetGatewayIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.InternetGateway, api.InternetGateway]{
		name: "igws", rows: mine(state.InternetGateways.All(e.DB.Snapshot()), e.Account(ctx), func(g *state.InternetGateway) string { return g.Account }),
		id:      func(g *state.InternetGateway) string { return g.ID },
		missing: noInternetGateway,
		tags:    func(g *state.InternetGateway) []state.Tag { return g.Tags },
		filters: filters[*state.InternetGateway]{
			"internet-gateway-id": func(g *state.InternetGateway) []string { return one(g.ID) },
			"attachment.vpc-id":   func(g *state.InternetGateway) []string { return one(g.VPC) },
			"attachment.state": func(g *state.InternetGateway) []string {
				if g.VPC == "" {
					return nil
				}
				return one("available")
			},
			"owner-id": func(g *state.InternetGateway) []string { return one(g.Account) },
		},
		view: internetGatewayView,
	})
	return &api.DescribeInternetGatewaysOutput{InternetGateways: out, NextToken: next}, err
}

func internetGatewayView(g *state.InternetGateway) api.InternetGateway {
	out := api.InternetGateway{InternetGatewayId: new(g.ID), OwnerId: new(g.Account), Tags: tagsView(g.Tags), Attachments: []api.InternetGatewayAttachment{}}
	if g.VPC != "" {
		out.Attachments = append(out.Attachments, api.InternetGatewayAttachment{State: "available", VpcId: new(g.VPC)})
	}
	return out
}

func noEgressOnly(id string) error {
	return bad("InvalidGatewayID.NotFound", "The eigw ID '%s' does not exist", id)
}

// CreateEgressOnlyInternetGateway gives a VPC's IPv6 addresses a way out, and
// nobody a way in.
func (e *EC2) CreateEgressOnlyInternetGateway(ctx context.Context, in *api.CreateEgressOnlyInternetGatewayInput) (*api.CreateEgressOnlyInternetGatewayOutput, error) {
	tags, err := tagsFor("egress-only-internet-gateway", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	account, token := e.Account(ctx), wire.Value(in.ClientToken)
	g := &state.EgressOnlyGateway{ID: e.id("eigw"), Account: account, VPC: wire.Value(in.VpcId), ClientToken: token, Tags: tags, CreatedAt: e.Now()}
	var made *state.EgressOnlyGateway
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		if _, err := vpcOf(tx, account, g.VPC); err != nil {
			return err
		}
		state.EgressOnlyGateways.Guard(tx, "")
		n := 0
		for have := range mine(state.EgressOnlyGateways.All(tx), account, func(g *state.EgressOnlyGateway) string { return g.Account }) {
			if n++; token != "" && have.ClientToken == token {
				if have.VPC != g.VPC {
					return mismatch()
				}
				made = have
				return nil
			}
		}
		if n >= state.Limit(tx, account, "vpc/egress-only-gateways") {
			return bad("EgressOnlyInternetGatewayLimitExceeded", "The maximum number of egress-only internet gateways has been reached.")
		}
		made = g
		state.EgressOnlyGateways.Put(tx, g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateEgressOnlyInternetGatewayOutput{ClientToken: in.ClientToken, EgressOnlyInternetGateway: new(egressOnlyView(made))}, nil
}

// mismatch refuses a client token that came before with another request.
func mismatch() error {
	return bad("IdempotentParameterMismatch", "The request uses the same client token as a previous, but non-identical request.")
}

// DeleteEgressOnlyInternetGateway removes a gateway; routes to it become blackholes.
func (e *EC2) DeleteEgressOnlyInternetGateway(ctx context.Context, in *api.DeleteEgressOnlyInternetGatewayInput) (*api.DeleteEgressOnlyInternetGatewayOutput, error) {
	return &api.DeleteEgressOnlyInternetGatewayOutput{ReturnCode: new(true)}, e.DB.Update(ctx, func(tx *store.Tx) error {
		id := wire.Value(in.EgressOnlyInternetGatewayId)
		g, ok := state.EgressOnlyGateways.Get(tx, id)
		if !ok || g.Account != e.Account(ctx) {
			return noEgressOnly(id)
		}
		state.EgressOnlyGateways.Delete(tx, id)
		return nil
	})
}

// DescribeEgressOnlyInternetGateways lists egress-only gateways.
func (e *EC2) DescribeEgressOnlyInternetGateways(ctx context.Context, in *api.DescribeEgressOnlyInternetGatewaysInput) (*api.DescribeEgressOnlyInternetGatewaysOutput, error) {
	out, next, err := list(request{in.EgressOnlyInternetGatewayIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.EgressOnlyGateway, api.EgressOnlyInternetGateway]{
		name: "eigws", rows: mine(state.EgressOnlyGateways.All(e.DB.Snapshot()), e.Account(ctx), func(g *state.EgressOnlyGateway) string { return g.Account }),
		id:      func(g *state.EgressOnlyGateway) string { return g.ID },
		missing: noEgressOnly,
		tags:    func(g *state.EgressOnlyGateway) []state.Tag { return g.Tags },
		filters: filters[*state.EgressOnlyGateway]{},
		view:    egressOnlyView,
	})
	return &api.DescribeEgressOnlyInternetGatewaysOutput{EgressOnlyInternetGateways: out, NextToken: next}, err
}

func egressOnlyView(g *state.EgressOnlyGateway) api.EgressOnlyInternetGateway {
	return api.EgressOnlyInternetGateway{EgressOnlyInternetGatewayId: new(g.ID), Tags: tagsView(g.Tags),
		Attachments: []api.InternetGatewayAttachment{{State: "attached", VpcId: new(g.VPC)}}}
}
