package ec2

import (
	"context"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noPeering(id string) error {
	if err := malformed("InvalidVpcPeeringConnectionId", "pcx", id); err != nil {
		return err
	}
	return bad("InvalidVpcPeeringConnectionID.NotFound", "The vpcPeeringConnection ID '%s' does not exist", id)
}

// peeringOf finds a connection of which the account is one side.
func peeringOf(r store.Reader, account, id string) (*state.Peering, error) {
	p, ok := state.Peerings.Get(r, id)
	if !ok || !sees(account, p) {
		return nil, noPeering(id)
	}
	return p, nil
}

// sees reports whether an account knows of a connection: a request that failed
// never came to the other side.
func sees(account string, p *state.Peering) bool {
	return p.Account == account || p.PeerAccount == account && p.Status != "failed"
}

// overlap reports whether two VPCs cannot be joined: their addresses mean two things.
func overlap(a, b *state.VPC) bool {
	for _, x := range a.CIDRs {
		for _, y := range b.CIDRs {
			if x.Overlaps(y) {
				return true
			}
		}
	}
	return false
}

const peeringFailed = "Failed due to incorrect VPC-ID, Account ID, or overlapping CIDR range"

// CreateVpcPeeringConnection asks another VPC's owner for peering.
func (e *EC2) CreateVpcPeeringConnection(ctx context.Context, in *api.CreateVpcPeeringConnectionInput) (*api.CreateVpcPeeringConnectionOutput, error) {
	if region := wire.Value(in.PeerRegion); region != "" && region != e.Region {
		return nil, unsupported("Peering with a VPC of another region (" + region + ")")
	}
	if wire.Value(in.PeerVpcId) == "" {
		return nil, bad("MissingParameter", "The request must contain the parameter peerVpcId")
	}
	tags, err := tagsFor("vpc-peering-connection", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	account, id := e.Account(ctx), e.id("pcx")
	peer := wire.Value(in.PeerOwnerId)
	if peer == "" {
		peer = account
	}
	var made *state.Peering
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		v, err := vpcOf(tx, account, *in.VpcId)
		if err != nil {
			return err
		}
		p := &state.Peering{ID: id, Account: account, VPC: v.ID, PeerAccount: peer, PeerVPC: *in.PeerVpcId, Status: "pending-acceptance",
			Message: "Pending Acceptance by " + peer, Tags: tags, CreatedAt: e.Now()}
		active, pending := 0, 0
		for have := range state.Peerings.By(tx, "vpc", v.ID) {
			switch have.Now(e.Now()) {
			case "active":
				active++
			case "pending-acceptance":
				pending++
			default:
				continue
			}
			if have.VPC == p.VPC && have.PeerVPC == p.PeerVPC || have.VPC == p.PeerVPC && have.PeerVPC == p.VPC {
				return bad("VpcPeeringConnectionAlreadyExists", "A VPC peering connection between %s and %s already exists: %s", p.VPC, p.PeerVPC, have.ID)
			}
		}
		if active >= state.Limit(tx, account, "vpc/peerings-per-vpc") {
			return bad("VpcPeeringConnectionLimitExceeded", "The maximum number of VPC peering connections has been reached.")
		}
		if pending >= state.Limit(tx, account, "vpc/pending-peerings") {
			return bad("OutstandingVpcPeeringConnectionLimitExceeded", "The maximum number of outstanding VPC peering connection requests has been reached.")
		}
		if w, ok := state.VPCs.Get(tx, p.PeerVPC); !ok || w.Account != peer || w.ID == v.ID || overlap(v, w) {
			p.Status, p.Message, p.EndedAt = "failed", peeringFailed, e.Now()
		}
		state.Peerings.Put(tx, p)
		made = p
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := e.peeringView(e.DB.Snapshot(), made, account)
	return &api.CreateVpcPeeringConnectionOutput{VpcPeeringConnection: &out}, nil
}

// turn moves a connection from one of some statuses to another.
func (e *EC2) turn(ctx context.Context, id, to string, may func(p *state.Peering, account, status string) error, change func(tx *store.Tx, p *state.Peering)) (*state.Peering, error) {
	account := e.Account(ctx)
	var made *state.Peering
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		p, err := peeringOf(tx, account, id)
		if err != nil {
			return err
		}
		status := p.Now(e.Now())
		if err := may(p, account, status); err != nil {
			return err
		}
		n := *p
		n.Status = to
		change(tx, &n)
		state.Peerings.Put(tx, &n)
		made = &n
		return nil
	})
	return made, err
}

func wrongTurn(p *state.Peering, from, to string) error {
	return bad("InvalidStateTransition", "Invalid state transition for %s, attempted to transition from %s to %s", p.ID, from, to)
}

// AcceptVpcPeeringConnection joins the two VPCs.
func (e *EC2) AcceptVpcPeeringConnection(ctx context.Context, in *api.AcceptVpcPeeringConnectionInput) (*api.AcceptVpcPeeringConnectionOutput, error) {
	made, err := e.turn(ctx, *in.VpcPeeringConnectionId, "active", func(p *state.Peering, account, status string) error {
		if p.PeerAccount != account {
			return bad("OperationNotPermitted", "User %s cannot accept peering %s", account, p.ID)
		}
		if status != "pending-acceptance" && status != "active" {
			return wrongTurn(p, status, "active")
		}
		return nil
	}, func(tx *store.Tx, p *state.Peering) {
		p.Message = "Active"
		a, ok := state.VPCs.Get(tx, p.VPC)
		b, ok2 := state.VPCs.Get(tx, p.PeerVPC)
		if !ok || !ok2 || overlap(a, b) {
			p.Status, p.Message, p.EndedAt = "failed", peeringFailed, e.Now()
		}
	})
	if err != nil {
		return nil, err
	}
	v := e.peeringView(e.DB.Snapshot(), made, e.Account(ctx))
	return &api.AcceptVpcPeeringConnectionOutput{VpcPeeringConnection: &v}, nil
}

// RejectVpcPeeringConnection refuses a request.
func (e *EC2) RejectVpcPeeringConnection(ctx context.Context, in *api.RejectVpcPeeringConnectionInput) (*api.RejectVpcPeeringConnectionOutput, error) {
	_, err := e.turn(ctx, *in.VpcPeeringConnectionId, "rejected", func(p *state.Peering, account, status string) error {
		if p.PeerAccount != account {
			return bad("OperationNotPermitted", "User %s cannot reject peering %s", account, p.ID)
		}
		if status != "pending-acceptance" {
			return wrongTurn(p, status, "rejected")
		}
		return nil
	}, func(_ *store.Tx, p *state.Peering) {
		p.Message, p.EndedAt = "Rejected by "+p.PeerAccount, e.Now()
	})
	if err != nil {
		return nil, err
	}
	return &api.RejectVpcPeeringConnectionOutput{Return: new(true)}, nil
}

// DeleteVpcPeeringConnection takes the two VPCs apart. Routes that name the
// connection stay and lead nowhere.
func (e *EC2) DeleteVpcPeeringConnection(ctx context.Context, in *api.DeleteVpcPeeringConnectionInput) (*api.DeleteVpcPeeringConnectionOutput, error) {
	account := e.Account(ctx)
	_, err := e.turn(ctx, *in.VpcPeeringConnectionId, "deleted", func(p *state.Peering, account, status string) error {
		if status == "active" || status == "pending-acceptance" && p.Account == account {
			return nil
		}
		return wrongTurn(p, status, "deleted")
	}, func(_ *store.Tx, p *state.Peering) {
		p.Message, p.EndedAt = "Deleted by "+account, e.Now()
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteVpcPeeringConnectionOutput{Return: new(true)}, nil
}

// ModifyVpcPeeringConnectionOptions says whose names resolve to private addresses.
func (e *EC2) ModifyVpcPeeringConnectionOptions(ctx context.Context, in *api.ModifyVpcPeeringConnectionOptionsInput) (*api.ModifyVpcPeeringConnectionOptionsOutput, error) {
	if in.AccepterPeeringConnectionOptions == nil && in.RequesterPeeringConnectionOptions == nil {
		return nil, bad("MissingParameter", "The request must contain accepterPeeringConnectionOptions or requesterPeeringConnectionOptions")
	}
	for _, o := range []*api.PeeringConnectionOptionsRequest{in.AccepterPeeringConnectionOptions, in.RequesterPeeringConnectionOptions} {
		if o != nil && (wire.Value(o.AllowEgressFromLocalClassicLinkToRemoteVpc) || wire.Value(o.AllowEgressFromLocalVpcToRemoteClassicLink)) {
			return nil, unsupported("ClassicLink")
		}
	}
	made, err := e.turn(ctx, *in.VpcPeeringConnectionId, "active", func(p *state.Peering, account, status string) error {
		switch {
		case status != "active":
			return bad("OperationNotPermitted", "Peering %s is not active. Peering options can be added only to active peerings.", p.ID)
		case in.RequesterPeeringConnectionOptions != nil && p.Account != account, in.AccepterPeeringConnectionOptions != nil && p.PeerAccount != account:
			return bad("OperationNotPermitted", "User %s cannot modify these options of peering %s", account, p.ID)
		}
		return nil
	}, func(_ *store.Tx, p *state.Peering) {
		if o := in.RequesterPeeringConnectionOptions; o != nil && o.AllowDnsResolutionFromRemoteVpc != nil {
			p.RequesterDNS = *o.AllowDnsResolutionFromRemoteVpc
		}
		if o := in.AccepterPeeringConnectionOptions; o != nil && o.AllowDnsResolutionFromRemoteVpc != nil {
			p.AccepterDNS = *o.AllowDnsResolutionFromRemoteVpc
		}
	})
	if err != nil {
		return nil, err
	}
	out := &api.ModifyVpcPeeringConnectionOptionsOutput{}
	options := func(dns bool) *api.PeeringConnectionOptions {
		return &api.PeeringConnectionOptions{AllowDnsResolutionFromRemoteVpc: new(dns), AllowEgressFromLocalClassicLinkToRemoteVpc: new(false), AllowEgressFromLocalVpcToRemoteClassicLink: new(false)}
	}
	if in.RequesterPeeringConnectionOptions != nil {
		out.RequesterPeeringConnectionOptions = options(made.RequesterDNS)
	}
	if in.AccepterPeeringConnectionOptions != nil {
		out.AccepterPeeringConnectionOptions = options(made.AccepterDNS)
	}
	return out, nil
}

// peeringTags are the tags that one side has given a connection.
func peeringTags(p *state.Peering, account string) []state.Tag {
	if p.Account == account {
		return p.Tags
	}
	return p.PeerTags
}

func (e *EC2) peeringView(r store.Reader, p *state.Peering, account string) api.VpcPeeringConnection {
	status, message := p.Now(e.Now()), p.Message
	if status != p.Status {
		message = "Expired"
	}
	side := func(owner, vpc string, dns, shown bool) *api.VpcPeeringConnectionVpcInfo {
		out := &api.VpcPeeringConnectionVpcInfo{OwnerId: new(owner), VpcId: new(vpc), Region: new(e.Region)}
		v, ok := state.VPCs.Get(r, vpc)
		if !ok || !shown {
			return out
		}
		out.PeeringOptions = &api.VpcPeeringConnectionOptionsDescription{AllowDnsResolutionFromRemoteVpc: new(dns), AllowEgressFromLocalClassicLinkToRemoteVpc: new(false), AllowEgressFromLocalVpcToRemoteClassicLink: new(false)}
		for i, c := range v.CIDRs {
			if i == 0 {
				out.CidrBlock = new(c.String())
			}
			out.CidrBlockSet = append(out.CidrBlockSet, api.CidrBlock{CidrBlock: new(c.String())})
		}
		for _, c := range v.IPv6 {
			out.Ipv6CidrBlockSet = append(out.Ipv6CidrBlockSet, api.Ipv6CidrBlock{Ipv6CidrBlock: new(c.CIDR.String())})
		}
		return out
	}
	out := api.VpcPeeringConnection{VpcPeeringConnectionId: new(p.ID), Tags: tagsView(peeringTags(p, account)),
		RequesterVpcInfo: side(p.Account, p.VPC, p.RequesterDNS, status == "active" || status == "pending-acceptance"),
		// The other side's addresses are nobody's business before it has accepted.
		AccepterVpcInfo: side(p.PeerAccount, p.PeerVPC, p.AccepterDNS, status == "active"),
		Status:          &api.VpcPeeringConnectionStateReason{Code: api.VpcPeeringConnectionStateReasonCode(status), Message: new(message)}}
	if status == "pending-acceptance" {
		out.ExpirationTime = new(p.CreatedAt.Add(state.PeeringLife))
	}
	return out
}

// DescribeVpcPeeringConnections lists the connections of which the account is a side.
func (e *EC2) DescribeVpcPeeringConnections(ctx context.Context, in *api.DescribeVpcPeeringConnectionsInput) (*api.DescribeVpcPeeringConnectionsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	type row = *state.Peering
	rows := func(yield func(row) bool) {
		for p := range state.Peerings.All(snap) {
			if sees(account, p) && !yield(p) {
				return
			}
		}
	}
	blocks := func(get func(api.VpcPeeringConnection) *api.VpcPeeringConnectionVpcInfo) func(row) []string {
		return func(p row) []string {
			return each(get(e.peeringView(snap, p, account)).CidrBlockSet, func(c api.CidrBlock) []string { return one(*c.CidrBlock) })
		}
	}
	out, next, err := list(request{in.VpcPeeringConnectionIds, in.Filters, in.MaxResults, in.NextToken}, kind[row, api.VpcPeeringConnection]{
		name: "peerings", rows: rows, id: func(p row) string { return p.ID }, missing: noPeering,
		tags: func(p row) []state.Tag { return peeringTags(p, account) },
		filters: filters[row]{
			"vpc-peering-connection-id":     func(p row) []string { return one(p.ID) },
			"requester-vpc-info.vpc-id":     func(p row) []string { return one(p.VPC) },
			"requester-vpc-info.owner-id":   func(p row) []string { return one(p.Account) },
			"requester-vpc-info.cidr-block": blocks(func(v api.VpcPeeringConnection) *api.VpcPeeringConnectionVpcInfo { return v.RequesterVpcInfo }),
			"accepter-vpc-info.vpc-id":      func(p row) []string { return one(p.PeerVPC) },
			"accepter-vpc-info.owner-id":    func(p row) []string { return one(p.PeerAccount) },
			"accepter-vpc-info.cidr-block":  blocks(func(v api.VpcPeeringConnection) *api.VpcPeeringConnectionVpcInfo { return v.AccepterVpcInfo }),
			"status-code":                   func(p row) []string { return one(p.Now(e.Now())) },
			"status-message":                func(p row) []string { return one(*e.peeringView(snap, p, account).Status.Message) },
			"expiration-time": func(p row) []string {
				if p.Now(e.Now()) != "pending-acceptance" {
					return nil
				}
				return instant(p.CreatedAt.Add(state.PeeringLife))
			},
		},
		view: func(p row) api.VpcPeeringConnection { return e.peeringView(snap, p, account) },
	})
	return &api.DescribeVpcPeeringConnectionsOutput{VpcPeeringConnections: out, NextToken: next}, err
}

// peered reports whether there is an active connection between two VPCs, and which.
func peered(r store.Reader, a, b string) (*state.Peering, bool) {
	for p := range state.Peerings.By(r, "vpc", a) {
		if p.Status == "active" && (p.VPC == b || p.PeerVPC == b) {
			return p, true
		}
	}
	return nil, false
}
