package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strconv"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noOptions(id string) error {
	if err := malformed("InvalidDhcpOptionsId", "dopt", id); err != nil {
		return err
	}
	return bad("InvalidDhcpOptionID.NotFound", "The dhcpOption ID '%s' does not exist", id)
}

// optionsOf is the id of a VPC's DHCP option set: "default" stands for none.
func optionsOf(v *state.VPC) string {
	if v.DHCPOptions == "" {
		return "default"
	}
	return v.DHCPOptions
}

// CreateDhcpOptions keeps a set of DHCP options.
func (e *EC2) CreateDhcpOptions(ctx context.Context, in *api.CreateDhcpOptionsInput) (*api.CreateDhcpOptionsOutput, error) {
	tags, err := tagsFor("dhcp-options", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	d := &state.DHCPOptions{ID: e.id("dopt"), Account: e.Account(ctx), Tags: tags}
	for _, c := range in.DhcpConfigurations {
		v := state.DHCPValue{Name: wire.Value(c.Key), Values: c.Values}
		if err := checkOption(v); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(d.Values, func(x state.DHCPValue) bool { return x.Name == v.Name }) {
			return nil, bad("InvalidParameterValue", "The DHCP option '%s' is specified more than once", v.Name)
		}
		d.Values = append(d.Values, v)
	}
	if len(d.Values) == 0 {
		return nil, bad("MissingParameter", "The request must contain the parameter dhcpConfiguration")
	}
	if err := e.DB.Update(ctx, func(tx *store.Tx) error { state.DHCPOptionSets.Put(tx, d); return nil }); err != nil {
		return nil, err
	}
	return &api.CreateDhcpOptionsOutput{DhcpOptions: new(optionsView(d))}, nil
}

// checkOption refuses options that there are not, and values that are none of theirs.
func checkOption(v state.DHCPValue) error {
	most, good := 1, func(string) bool { return true }
	address := func(s string) bool {
		a, err := netip.ParseAddr(s)
		return err == nil && a.Zone() == ""
	}
	switch v.Name {
	case "domain-name":
		good = func(s string) bool { return s != "" && len(s) <= 255 }
	case "domain-name-servers":
		most, good = 4, func(s string) bool { return s == "AmazonProvidedDNS" || address(s) }
	case "ntp-servers":
		most, good = 8, address
	case "netbios-name-servers":
		most, good = 4, address
	case "netbios-node-type":
		good = func(s string) bool { return slices.Contains([]string{"1", "2", "4", "8"}, s) }
	case "ipv6-address-preferred-lease-time":
		good = func(s string) bool {
			n, err := strconv.Atoi(s)
			return err == nil && n >= 140 && n <= 2147483647
		}
	default:
		return bad("InvalidParameterValue", "Value (%s) for parameter name is invalid. Unknown DHCP option", v.Name)
	}
	if len(v.Values) == 0 || len(v.Values) > most {
		return bad("InvalidParameterValue", "The DHCP option '%s' takes from 1 to %d values", v.Name, most)
	}
	for _, x := range v.Values {
		if !good(x) {
			return bad("InvalidParameterValue", "Value (%s) for parameter value is invalid. Invalid DHCP option value", x)
		}
	}
	return nil
}

// DeleteDhcpOptions removes a set that no VPC has.
func (e *EC2) DeleteDhcpOptions(ctx context.Context, in *api.DeleteDhcpOptionsInput) (*api.DeleteDhcpOptionsOutput, error) {
	return &api.DeleteDhcpOptionsOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		id := wire.Value(in.DhcpOptionsId)
		d, ok := state.DHCPOptionSets.Get(tx, id)
		if !ok || d.Account != e.Account(ctx) {
			return noOptions(id)
		}
		state.VPCs.Guard(tx, "")
		for v := range state.VPCs.By(tx, "account", d.Account) {
			if v.DHCPOptions == id {
				return bad("DependencyViolation", "The dhcpOptions '%s' has dependencies and cannot be deleted.", id)
			}
		}
		state.DHCPOptionSets.Delete(tx, id)
		return nil
	})
}

// AssociateDhcpOptions gives a VPC a set of options, or with "default" none.
func (e *EC2) AssociateDhcpOptions(ctx context.Context, in *api.AssociateDhcpOptionsInput) (*api.AssociateDhcpOptionsOutput, error) {
	account, id := e.Account(ctx), wire.Value(in.DhcpOptionsId)
	return &api.AssociateDhcpOptionsOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		v, err := vpcOf(tx, account, wire.Value(in.VpcId))
		if err != nil {
			return err
		}
		n := *v
		if n.DHCPOptions = id; id == "default" {
			n.DHCPOptions = ""
		} else if d, ok := state.DHCPOptionSets.Get(tx, id); !ok || d.Account != account {
			return noOptions(id)
		}
		state.VPCs.Put(tx, &n)
		return nil
	})
}

// DescribeDhcpOptions lists DHCP option sets.
func (e *EC2) DescribeDhcpOptions(ctx context.Context, in *api.DescribeDhcpOptionsInput) (*api.DescribeDhcpOptionsOutput, error) {
	out, next, err := list(request{in.DhcpOptionsIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.DHCPOptions, api.DhcpOptions]{
		name: "dopts", rows: mine(state.DHCPOptionSets.All(e.DB.Snapshot()), e.Account(ctx), func(d *state.DHCPOptions) string { return d.Account }),
		id:      func(d *state.DHCPOptions) string { return d.ID },
		missing: noOptions,
		tags:    func(d *state.DHCPOptions) []state.Tag { return d.Tags },
		filters: filters[*state.DHCPOptions]{
			"dhcp-options-id": func(d *state.DHCPOptions) []string { return one(d.ID) },
			"owner-id":        func(d *state.DHCPOptions) []string { return one(d.Account) },
			"key": func(d *state.DHCPOptions) []string {
				return each(d.Values, func(v state.DHCPValue) []string { return one(v.Name) })
			},
			"value": func(d *state.DHCPOptions) []string {
				return each(d.Values, func(v state.DHCPValue) []string { return v.Values })
			},
		},
		view: optionsView,
	})
	return &api.DescribeDhcpOptionsOutput{DhcpOptions: out, NextToken: next}, err
}

func optionsView(d *state.DHCPOptions) api.DhcpOptions {
	out := api.DhcpOptions{DhcpOptionsId: new(d.ID), OwnerId: new(d.Account), Tags: tagsView(d.Tags)}
	for _, v := range d.Values {
		c := api.DhcpConfiguration{Key: new(v.Name)}
		for _, x := range v.Values {
			c.Values = append(c.Values, api.AttributeValue{Value: new(x)})
		}
		out.DhcpConfigurations = append(out.DhcpConfigurations, c)
	}
	return out
}
