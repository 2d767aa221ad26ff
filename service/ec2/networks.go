package ec2

import (
	"context"
	"maps"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// subject is a resource that a request of an operation is about: a kind, as ARNs
// call it, and an id, nil for one that is still to be made.
type subject struct {
	kind string
	id   *string
}

// networks are the operations on networks, with what each is authorized on and
// the tags that it brings. Those that only describe are authorized on everything.
var networks = map[string]func(in any) ([]subject, []api.TagSpecification){
	"CreateVpc": func(in any) ([]subject, []api.TagSpecification) {
		return []subject{{"vpc", nil}}, in.(*api.CreateVpcInput).TagSpecifications
	},
	"DeleteVpc":                about("vpc", func(in any) *string { return in.(*api.DeleteVpcInput).VpcId }),
	"ModifyVpcAttribute":       about("vpc", func(in any) *string { return in.(*api.ModifyVpcAttributeInput).VpcId }),
	"ModifyVpcTenancy":         about("vpc", func(in any) *string { return in.(*api.ModifyVpcTenancyInput).VpcId }),
	"AssociateVpcCidrBlock":    about("vpc", func(in any) *string { return in.(*api.AssociateVpcCidrBlockInput).VpcId }),
	"DisassociateVpcCidrBlock": about("vpc", func(any) *string { return nil }),
	"DescribeVpcAttribute":     about("vpc", func(in any) *string { return in.(*api.DescribeVpcAttributeInput).VpcId }),
	"CreateSubnet": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.CreateSubnetInput)
		return []subject{{"subnet", nil}, {"vpc", x.VpcId}}, x.TagSpecifications
	},
	"DeleteSubnet":                about("subnet", func(in any) *string { return in.(*api.DeleteSubnetInput).SubnetId }),
	"ModifySubnetAttribute":       about("subnet", func(in any) *string { return in.(*api.ModifySubnetAttributeInput).SubnetId }),
	"AssociateSubnetCidrBlock":    about("subnet", func(in any) *string { return in.(*api.AssociateSubnetCidrBlockInput).SubnetId }),
	"DisassociateSubnetCidrBlock": about("subnet", func(any) *string { return nil }),
	"CreateSubnetCidrReservation": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.CreateSubnetCidrReservationInput)
		return []subject{{"subnet", x.SubnetId}}, x.TagSpecifications
	},
	"CreateRouteTable": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.CreateRouteTableInput)
		return []subject{{"route-table", nil}, {"vpc", x.VpcId}}, x.TagSpecifications
	},
	"DeleteRouteTable": about("route-table", func(in any) *string { return in.(*api.DeleteRouteTableInput).RouteTableId }),
	"CreateRoute":      about("route-table", func(in any) *string { return in.(*api.CreateRouteInput).RouteTableId }),
	"ReplaceRoute":     about("route-table", func(in any) *string { return in.(*api.ReplaceRouteInput).RouteTableId }),
	"DeleteRoute":      about("route-table", func(in any) *string { return in.(*api.DeleteRouteInput).RouteTableId }),
	"AssociateRouteTable": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.AssociateRouteTableInput)
		return []subject{{"route-table", x.RouteTableId}, {"subnet", x.SubnetId}}, nil
	},
	"DisassociateRouteTable":       about("route-table", func(any) *string { return nil }),
	"ReplaceRouteTableAssociation": about("route-table", func(in any) *string { return in.(*api.ReplaceRouteTableAssociationInput).RouteTableId }),
	"CreateInternetGateway": func(in any) ([]subject, []api.TagSpecification) {
		return []subject{{"internet-gateway", nil}}, in.(*api.CreateInternetGatewayInput).TagSpecifications
	},
	"DeleteInternetGateway": about("internet-gateway", func(in any) *string { return in.(*api.DeleteInternetGatewayInput).InternetGatewayId }),
	"AttachInternetGateway": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.AttachInternetGatewayInput)
		return []subject{{"internet-gateway", x.InternetGatewayId}, {"vpc", x.VpcId}}, nil
	},
	"DetachInternetGateway": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.DetachInternetGatewayInput)
		return []subject{{"internet-gateway", x.InternetGatewayId}, {"vpc", x.VpcId}}, nil
	},
	"CreateEgressOnlyInternetGateway": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.CreateEgressOnlyInternetGatewayInput)
		return []subject{{"egress-only-internet-gateway", nil}, {"vpc", x.VpcId}}, x.TagSpecifications
	},
	"DeleteEgressOnlyInternetGateway": about("egress-only-internet-gateway", func(in any) *string {
		return in.(*api.DeleteEgressOnlyInternetGatewayInput).EgressOnlyInternetGatewayId
	}),
	"CreateNatGateway": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.CreateNatGatewayInput)
		what := []subject{{"natgateway", nil}, {"subnet", x.SubnetId}}
		if x.AllocationId != nil {
			what = append(what, subject{"elastic-ip", x.AllocationId})
		}
		return what, x.TagSpecifications
	},
	"DeleteNatGateway":                 about("natgateway", func(in any) *string { return in.(*api.DeleteNatGatewayInput).NatGatewayId }),
	"AssignPrivateNatGatewayAddress":   about("natgateway", func(in any) *string { return in.(*api.AssignPrivateNatGatewayAddressInput).NatGatewayId }),
	"UnassignPrivateNatGatewayAddress": about("natgateway", func(in any) *string { return in.(*api.UnassignPrivateNatGatewayAddressInput).NatGatewayId }),
	"AssociateNatGatewayAddress": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.AssociateNatGatewayAddressInput)
		what := []subject{{"natgateway", x.NatGatewayId}}
		for _, id := range x.AllocationIds {
			what = append(what, subject{"elastic-ip", &id})
		}
		return what, nil
	},
	"DisassociateNatGatewayAddress": about("natgateway", func(in any) *string { return in.(*api.DisassociateNatGatewayAddressInput).NatGatewayId }),
	"AllocateAddress": func(in any) ([]subject, []api.TagSpecification) {
		return []subject{{"elastic-ip", nil}}, in.(*api.AllocateAddressInput).TagSpecifications
	},
	"AssociateAddress": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.AssociateAddressInput)
		what := []subject{{"elastic-ip", x.AllocationId}}
		if x.InstanceId != nil {
			what = append(what, subject{"instance", x.InstanceId})
		}
		if x.NetworkInterfaceId != nil {
			what = append(what, subject{"network-interface", x.NetworkInterfaceId})
		}
		return what, nil
	},
	"DisassociateAddress":    about("elastic-ip", func(any) *string { return nil }),
	"ReleaseAddress":         about("elastic-ip", func(in any) *string { return in.(*api.ReleaseAddressInput).AllocationId }),
	"ModifyAddressAttribute": about("elastic-ip", func(in any) *string { return in.(*api.ModifyAddressAttributeInput).AllocationId }),
	"ResetAddressAttribute":  about("elastic-ip", func(in any) *string { return in.(*api.ResetAddressAttributeInput).AllocationId }),
	"CreateDhcpOptions": func(in any) ([]subject, []api.TagSpecification) {
		return []subject{{"dhcp-options", nil}}, in.(*api.CreateDhcpOptionsInput).TagSpecifications
	},
	"DeleteDhcpOptions": about("dhcp-options", func(in any) *string { return in.(*api.DeleteDhcpOptionsInput).DhcpOptionsId }),
	"AssociateDhcpOptions": func(in any) ([]subject, []api.TagSpecification) {
		x := in.(*api.AssociateDhcpOptionsInput)
		return []subject{{"dhcp-options", x.DhcpOptionsId}, {"vpc", x.VpcId}}, nil
	},
}

// about is an operation on one resource.
func about(kind string, id func(in any) *string) func(any) ([]subject, []api.TagSpecification) {
	return func(in any) ([]subject, []api.TagSpecification) { return []subject{{kind, id(in)}}, nil }
}

// authorizeNetworks are the checks of the operations on networks.
func (e *EC2) authorizeNetworks() map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check {
	m := map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check{}
	for op, of := range networks {
		m[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) (checks []auth.Check) {
			what, specs := of(in)
			asked := requestTags(specs)
			for i, w := range what {
				id := wire.Value(w.id)
				keys := e.keysOf(r, c.Account, id)
				if i == 0 {
					// What is made carries the tags of the request.
					maps.Copy(keys, asked)
				}
				if id == "" || strings.ContainsAny(id, "*?") {
					id = "*"
				}
				checks = append(checks, auth.Check{Action: "ec2:" + op, Resource: *e.arn(c.Account, w.kind, id), Keys: keys})
			}
			if len(specs) > 0 {
				made := maps.Clone(asked)
				made["ec2:CreateAction"] = []string{op}
				kind := what[0].kind
				if op == "CreateSubnetCidrReservation" {
					kind = "subnet-cidr-reservation"
				}
				checks = append(checks, auth.Check{Action: "ec2:CreateTags", Resource: *e.arn(c.Account, kind, "*"), Keys: made})
			}
			return checks
		}
	}
	return m
}

// keysOf are the condition keys that a resource of the account brings.
func (e *EC2) keysOf(r store.Reader, account, id string) map[string][]string {
	keys := map[string][]string{}
	about := func(owner, vpc string, tags []state.Tag) {
		if owner != account {
			return
		}
		if vpc != "" {
			keys["ec2:Vpc"] = []string{*e.arn(account, "vpc", vpc)}
		}
		for _, t := range tags {
			keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
			keys["ec2:ResourceTag/"+t.Key] = []string{t.Value}
		}
	}
	switch prefix, _, _ := strings.Cut(id, "-"); prefix {
	case "vpc":
		if x, ok := state.VPCs.Get(r, id); ok {
			about(x.Account, "", x.Tags)
		}
	case "subnet":
		if x, ok := state.Subnets.Get(r, id); ok {
			about(x.Account, x.VPC, x.Tags)
		}
	case "rtb":
		if x, ok := state.RouteTables.Get(r, id); ok {
			about(x.Account, x.VPC, x.Tags)
		}
	case "igw":
		if x, ok := state.InternetGateways.Get(r, id); ok {
			about(x.Account, "", x.Tags)
		}
	case "eigw":
		if x, ok := state.EgressOnlyGateways.Get(r, id); ok {
			about(x.Account, "", x.Tags)
		}
	case "nat":
		if x, ok := state.NATGateways.Get(r, id); ok {
			about(x.Account, "", x.Tags)
		}
	case "eipalloc":
		if x, ok := state.ElasticIPs.Get(r, id); ok {
			about(x.Account, "", x.Tags)
			keys["ec2:AllocationId"] = []string{id}
		}
	case "dopt":
		if x, ok := state.DHCPOptionSets.Get(r, id); ok {
			about(x.Account, "", x.Tags)
		}
	case "eni":
		if x, ok := state.NetworkInterfaces.Get(r, id); ok {
			about(x.Account, x.VPC, x.Tags)
		}
	case "i":
		if x, ok := state.Instances.Get(r, id); ok {
			about(x.Account, "", x.Tags)
		}
	case "scr":
		if x, ok := state.SubnetReservations.Get(r, id); ok {
			about(x.Account, "", x.Tags)
		}
	}
	return keys
}
