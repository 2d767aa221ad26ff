package ec2

import (
	"context"
	"maps"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
)

// networks are the operations on networks, with what each is authorized on and
// the tags that it brings. Those that only describe are authorized on everything.
var networks = map[string]func(in any) ([]check, []api.TagSpecification){
	"CreateVpc": func(in any) ([]check, []api.TagSpecification) {
		return []check{{"vpc", ""}}, in.(*api.CreateVpcInput).TagSpecifications
	},
	"DeleteVpc":                about("vpc", func(in any) *string { return in.(*api.DeleteVpcInput).VpcId }),
	"ModifyVpcAttribute":       about("vpc", func(in any) *string { return in.(*api.ModifyVpcAttributeInput).VpcId }),
	"ModifyVpcTenancy":         about("vpc", func(in any) *string { return in.(*api.ModifyVpcTenancyInput).VpcId }),
	"AssociateVpcCidrBlock":    about("vpc", func(in any) *string { return in.(*api.AssociateVpcCidrBlockInput).VpcId }),
	"DisassociateVpcCidrBlock": about("vpc", func(any) *string { return nil }),
	"DescribeVpcAttribute":     about("vpc", func(in any) *string { return in.(*api.DescribeVpcAttributeInput).VpcId }),
	"CreateSubnet": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.CreateSubnetInput)
		return []check{{"subnet", ""}, {"vpc", wire.Value(x.VpcId)}}, x.TagSpecifications
	},
	"DeleteSubnet":                about("subnet", func(in any) *string { return in.(*api.DeleteSubnetInput).SubnetId }),
	"ModifySubnetAttribute":       about("subnet", func(in any) *string { return in.(*api.ModifySubnetAttributeInput).SubnetId }),
	"AssociateSubnetCidrBlock":    about("subnet", func(in any) *string { return in.(*api.AssociateSubnetCidrBlockInput).SubnetId }),
	"DisassociateSubnetCidrBlock": about("subnet", func(any) *string { return nil }),
	"CreateSubnetCidrReservation": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.CreateSubnetCidrReservationInput)
		return []check{{"subnet", wire.Value(x.SubnetId)}}, x.TagSpecifications
	},
	"CreateRouteTable": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.CreateRouteTableInput)
		return []check{{"route-table", ""}, {"vpc", wire.Value(x.VpcId)}}, x.TagSpecifications
	},
	"DeleteRouteTable": about("route-table", func(in any) *string { return in.(*api.DeleteRouteTableInput).RouteTableId }),
	"CreateRoute":      about("route-table", func(in any) *string { return in.(*api.CreateRouteInput).RouteTableId }),
	"ReplaceRoute":     about("route-table", func(in any) *string { return in.(*api.ReplaceRouteInput).RouteTableId }),
	"DeleteRoute":      about("route-table", func(in any) *string { return in.(*api.DeleteRouteInput).RouteTableId }),
	"AssociateRouteTable": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.AssociateRouteTableInput)
		return []check{{"route-table", wire.Value(x.RouteTableId)}, {"subnet", wire.Value(x.SubnetId)}}, nil
	},
	"DisassociateRouteTable":       about("route-table", func(any) *string { return nil }),
	"ReplaceRouteTableAssociation": about("route-table", func(in any) *string { return in.(*api.ReplaceRouteTableAssociationInput).RouteTableId }),
	"CreateInternetGateway": func(in any) ([]check, []api.TagSpecification) {
		return []check{{"internet-gateway", ""}}, in.(*api.CreateInternetGatewayInput).TagSpecifications
	},
	"DeleteInternetGateway": about("internet-gateway", func(in any) *string { return in.(*api.DeleteInternetGatewayInput).InternetGatewayId }),
	"AttachInternetGateway": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.AttachInternetGatewayInput)
		return []check{{"internet-gateway", wire.Value(x.InternetGatewayId)}, {"vpc", wire.Value(x.VpcId)}}, nil
	},
	"DetachInternetGateway": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.DetachInternetGatewayInput)
		return []check{{"internet-gateway", wire.Value(x.InternetGatewayId)}, {"vpc", wire.Value(x.VpcId)}}, nil
	},
	"CreateEgressOnlyInternetGateway": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.CreateEgressOnlyInternetGatewayInput)
		return []check{{"egress-only-internet-gateway", ""}, {"vpc", wire.Value(x.VpcId)}}, x.TagSpecifications
	},
	"DeleteEgressOnlyInternetGateway": about("egress-only-internet-gateway", func(in any) *string {
		return in.(*api.DeleteEgressOnlyInternetGatewayInput).EgressOnlyInternetGatewayId
	}),
	"CreateNatGateway": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.CreateNatGatewayInput)
		what := []check{{"natgateway", ""}, {"subnet", wire.Value(x.SubnetId)}}
		if x.AllocationId != nil {
			what = append(what, check{"elastic-ip", wire.Value(x.AllocationId)})
		}
		return what, x.TagSpecifications
	},
	"DeleteNatGateway":                 about("natgateway", func(in any) *string { return in.(*api.DeleteNatGatewayInput).NatGatewayId }),
	"AssignPrivateNatGatewayAddress":   about("natgateway", func(in any) *string { return in.(*api.AssignPrivateNatGatewayAddressInput).NatGatewayId }),
	"UnassignPrivateNatGatewayAddress": about("natgateway", func(in any) *string { return in.(*api.UnassignPrivateNatGatewayAddressInput).NatGatewayId }),
	"AssociateNatGatewayAddress": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.AssociateNatGatewayAddressInput)
		what := []check{{"natgateway", wire.Value(x.NatGatewayId)}}
		for _, id := range x.AllocationIds {
			what = append(what, check{"elastic-ip", id})
		}
		return what, nil
	},
	"DisassociateNatGatewayAddress": about("natgateway", func(in any) *string { return in.(*api.DisassociateNatGatewayAddressInput).NatGatewayId }),
	"AllocateAddress": func(in any) ([]check, []api.TagSpecification) {
		return []check{{"elastic-ip", ""}}, in.(*api.AllocateAddressInput).TagSpecifications
	},
	"AssociateAddress": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.AssociateAddressInput)
		what := []check{{"elastic-ip", wire.Value(x.AllocationId)}}
		if x.InstanceId != nil {
			what = append(what, check{"instance", wire.Value(x.InstanceId)})
		}
		if x.NetworkInterfaceId != nil {
			what = append(what, check{"network-interface", wire.Value(x.NetworkInterfaceId)})
		}
		return what, nil
	},
	"DisassociateAddress":    about("elastic-ip", func(any) *string { return nil }),
	"ReleaseAddress":         about("elastic-ip", func(in any) *string { return in.(*api.ReleaseAddressInput).AllocationId }),
	"ModifyAddressAttribute": about("elastic-ip", func(in any) *string { return in.(*api.ModifyAddressAttributeInput).AllocationId }),
	"ResetAddressAttribute":  about("elastic-ip", func(in any) *string { return in.(*api.ResetAddressAttributeInput).AllocationId }),
	"CreateDhcpOptions": func(in any) ([]check, []api.TagSpecification) {
		return []check{{"dhcp-options", ""}}, in.(*api.CreateDhcpOptionsInput).TagSpecifications
	},
	"DeleteDhcpOptions": about("dhcp-options", func(in any) *string { return in.(*api.DeleteDhcpOptionsInput).DhcpOptionsId }),
	"AssociateDhcpOptions": func(in any) ([]check, []api.TagSpecification) {
		x := in.(*api.AssociateDhcpOptionsInput)
		return []check{{"dhcp-options", wire.Value(x.DhcpOptionsId)}, {"vpc", wire.Value(x.VpcId)}}, nil
	},
}

// about is an operation on one resource.
func about(kind string, id func(in any) *string) func(any) ([]check, []api.TagSpecification) {
	return func(in any) ([]check, []api.TagSpecification) { return []check{{kind, wire.Value(id(in))}}, nil }
}

// authorizeNetworks are the checks of the operations on networks.
func (e *EC2) authorizeNetworks() map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check {
	m := map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check{}
	for op, of := range networks {
		m[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) (checks []auth.Check) {
			what, specs := of(in)
			for _, w := range what {
				checks = append(checks, e.permit(r, c.Account, op, w))
			}
			// What is made carries the tags of the request.
			asked := requestTags(specs)
			maps.Copy(checks[0].Keys, asked)
			if len(specs) > 0 {
				asked["ec2:CreateAction"] = []string{op}
				kind := what[0].kind
				if op == "CreateSubnetCidrReservation" {
					kind = "subnet-cidr-reservation"
				}
				checks = append(checks, auth.Check{Action: "ec2:CreateTags", Resource: *e.arn(c.Account, kind, "*"), Keys: asked})
			}
			return checks
		}
	}
	return m
}
