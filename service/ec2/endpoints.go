package ec2

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// openPolicy is the policy of an endpoint that was made without one.
const openPolicy = `{
  "Statement": [
    {
      "Action": "*",
      "Effect": "Allow",
      "Principal": "*",
      "Resource": "*"
    }
  ]
}`

func noEndpoint(id string) error {
	if err := malformed("InvalidVpcEndpointId", "vpce", id); err != nil {
		return err
	}
	return bad("InvalidVpcEndpointId.NotFound", "The Vpc Endpoint Id '%s' does not exist", id)
}

func noEndpointService(name string) error {
	return bad("InvalidServiceName", "The Vpc Endpoint Service '%s' does not exist", name)
}

func endpointOf(r store.Reader, account, id string) (*state.Endpoint, error) {
	x, ok := state.Endpoints.Get(r, id)
	if !ok || x.Account != account {
		return nil, noEndpoint(id)
	}
	return x, nil
}

func endpointPolicy(p *string) (string, error) {
	if wire.Value(p) == "" {
		return openPolicy, nil
	}
	var any map[string]json.RawMessage
	if json.Unmarshal([]byte(*p), &any) != nil || any["Statement"] == nil {
		return "", bad("InvalidPolicyDocument", "The policy document is not valid JSON with a Statement.")
	}
	return *p, nil
}

// checkPrivateDNS refuses private names where they could not be, or would mean two things.
func checkPrivateDNS(r store.Reader, v *state.VPC, s state.EndpointService, region, but string) error {
	if !v.DNSSupport || !v.DNSHostnames {
		return bad("InvalidParameter", "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to true for %s", v.ID)
	}
	for have := range state.Endpoints.By(r, "vpc", v.ID) {
		if t, _ := state.EndpointServiceOf(region, have.Service); have.ID != but && have.PrivateDNS && have.State != "deleting" && t.Name == s.Name {
			return bad("InvalidParameter", "private-dns-enabled cannot be set because there is already a conflicting DNS domain for %s in the VPC %s", s.PrivateNames(region)[0], v.ID)
		}
	}
	return nil
}

// endpointInterfaces makes the interfaces of an endpoint in further subnets.
func (e *EC2) endpointInterfaces(tx *store.Tx, x *state.Endpoint, subnets []string, named map[string]netip.Addr, ids []string) error {
	zones := map[string]bool{}
	for _, id := range x.Subnets {
		if s, ok := state.Subnets.Get(tx, id); ok {
			zones[s.Zone] = true
		}
	}
	free := state.FreeAddresses(tx)
	for i, id := range subnets {
		s, err := subnetOf(tx, x.Account, id)
		switch {
		case err != nil:
			return err
		case s.VPC != x.VPC:
			return bad("InvalidParameter", "Subnet %s does not belong to VPC %s", s.ID, x.VPC)
		case zones[s.Zone]:
			return bad("DuplicateSubnetsInSameZone", "Found another VPC endpoint subnet in the availability zone of %s", s.ID)
		}
		zones[s.Zone] = true
		want := state.InterfaceAddresses{NoDefault: true}
		if a, ok := named[id]; ok {
			want.IPv4 = []netip.Addr{a}
		}
		n, leases, err := state.NewInterface(free, ids[i], s, want, e.Now())
		if err != nil {
			return refused(err, want.IPv4, s)
		}
		n.Account, n.Groups, n.Owner, n.Type, n.RequesterManaged = x.Account, x.Groups, x.ID, "vpc_endpoint", true
		n.Description = "VPC Endpoint Interface " + x.ID
		n.AttachmentID = "ela-attach-" + strings.TrimPrefix(n.ID, "eni-")
		state.NetworkInterfaces.Put(tx, n)
		for _, l := range leases {
			state.AddressLeases.Put(tx, l)
		}
		x.Subnets = append(x.Subnets, id)
	}
	return nil
}

// subnetAddresses reads the addresses that were asked for by name.
func subnetAddresses(cs []api.SubnetConfiguration) (map[string]netip.Addr, error) {
	out := map[string]netip.Addr{}
	for _, c := range cs {
		if c.Ipv6 != nil {
			return nil, unsupported("SubnetConfigurations.Ipv6")
		}
		if c.Ipv4 == nil {
			continue
		}
		a, err := readAddress(c.Ipv4, false)
		if err != nil {
			return nil, err
		}
		out[wire.Value(c.SubnetId)] = a
	}
	return out, nil
}

func checkEndpointOptions(address api.IpAddressType, d *api.DnsOptionsSpecification) error {
	if address != "" && address != "ipv4" {
		return unsupported("IpAddressType " + string(address))
	}
	if d == nil {
		return nil
	}
	switch {
	case d.DnsRecordIpType != "" && d.DnsRecordIpType != "ipv4" && d.DnsRecordIpType != "service-defined":
		return unsupported("DnsOptions.DnsRecordIpType " + string(d.DnsRecordIpType))
	case wire.Value(d.PrivateDnsOnlyForInboundResolverEndpoint):
		return unsupported("DnsOptions.PrivateDnsOnlyForInboundResolverEndpoint")
	case d.PrivateDnsPreference != nil, len(d.PrivateDnsSpecifiedDomains) > 0:
		return unsupported("DnsOptions.PrivateDnsPreference")
	}
	return nil
}

// CreateVpcEndpoint makes a way from a VPC to a service of the region. It is
// available once its interfaces are in a kernel: see control/endpoint.
func (e *EC2) CreateVpcEndpoint(ctx context.Context, in *api.CreateVpcEndpointInput) (*api.CreateVpcEndpointOutput, error) {
	kind := in.VpcEndpointType
	switch {
	case kind == "":
		kind = "Gateway"
	case kind != "Gateway" && kind != "Interface":
		return nil, unsupported("VpcEndpointType " + string(kind))
	}
	switch {
	case in.ServiceNetworkArn != nil:
		return nil, unsupported("ServiceNetworkArn")
	case in.ResourceConfigurationArn != nil:
		return nil, unsupported("ResourceConfigurationArn")
	case in.ServiceRegion != nil && *in.ServiceRegion != e.Region:
		return nil, unsupported("ServiceRegion " + *in.ServiceRegion)
	case wire.Value(in.ServiceName) == "":
		return nil, bad("MissingParameter", "The request must contain the parameter serviceName")
	}
	s, ok := state.EndpointServiceOf(e.Region, *in.ServiceName)
	if !ok {
		// S3 and DynamoDB, which have gateway endpoints in AWS, are not services of this region.
		return nil, noEndpointService(*in.ServiceName)
	}
	switch {
	case kind == "Gateway":
		return nil, bad("InvalidParameter", "Endpoint type (Gateway) does not match available service types ([Interface]).")
	case len(in.RouteTableIds) > 0:
		return nil, bad("InvalidParameter", "Route table ids cannot be specified for an endpoint of type Interface.")
	}
	if err := checkEndpointOptions(in.IpAddressType, in.DnsOptions); err != nil {
		return nil, err
	}
	policy, err := endpointPolicy(in.PolicyDocument)
	if err != nil {
		return nil, err
	}
	named, err := subnetAddresses(in.SubnetConfigurations)
	if err != nil {
		return nil, err
	}
	subnets := slices.Clone(in.SubnetIds)
	for _, c := range in.SubnetConfigurations {
		if id := wire.Value(c.SubnetId); id != "" && !slices.Contains(subnets, id) {
			subnets = append(subnets, id)
		}
	}
	tags, err := tagsFor("vpc-endpoint", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	account, id := e.Account(ctx), e.id("vpce")
	var ids []string
	for range subnets {
		ids = append(ids, e.id("eni"))
	}
	var made *state.Endpoint
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		v, err := vpcOf(tx, account, *in.VpcId)
		if err != nil {
			return err
		}
		n := 0
		for have := range state.Endpoints.By(tx, "vpc", v.ID) {
			if token := wire.Value(in.ClientToken); token != "" && have.ClientToken == token {
				made = have
				return nil
			}
			n++
		}
		if n >= state.Limit(tx, account, "vpc/interface-endpoints-per-vpc") {
			return bad("VpcEndpointLimitExceeded", "The maximum number of VPC endpoints has been reached.")
		}
		private := v.DNSSupport && v.DNSHostnames
		if in.PrivateDnsEnabled != nil {
			private = *in.PrivateDnsEnabled
		}
		if private {
			state.Endpoints.Guard(tx, "") // another one with the same names
			if err := checkPrivateDNS(tx, v, s, e.Region, ""); err != nil {
				return err
			}
		}
		groups, err := groupsFor(tx, account, v.ID, in.SecurityGroupIds)
		if err != nil {
			return err
		}
		made = &state.Endpoint{ID: id, Account: account, VPC: v.ID, Service: *in.ServiceName, Type: string(kind), State: "pending", Policy: policy, Groups: groups,
			PrivateDNS: private, AddressType: "ipv4", ClientToken: wire.Value(in.ClientToken), Tags: tags, CreatedAt: e.Now()}
		if err := e.endpointInterfaces(tx, made, subnets, named, ids); err != nil {
			return err
		}
		state.Endpoints.Put(tx, made)
		return nil
	})
	if err != nil {
		return nil, err
	}
	view := e.endpointView(e.DB.Snapshot(), made)
	return &api.CreateVpcEndpointOutput{VpcEndpoint: &view, ClientToken: in.ClientToken}, nil
}

// ModifyVpcEndpoint changes an endpoint's policy, names, subnets and groups.
func (e *EC2) ModifyVpcEndpoint(ctx context.Context, in *api.ModifyVpcEndpointInput) (*api.ModifyVpcEndpointOutput, error) {
	if len(in.AddRouteTableIds)+len(in.RemoveRouteTableIds) > 0 {
		return nil, bad("InvalidParameter", "Route table ids cannot be specified for an endpoint of type Interface.")
	}
	if err := checkEndpointOptions(in.IpAddressType, in.DnsOptions); err != nil {
		return nil, err
	}
	if wire.Value(in.ResetPolicy) && in.PolicyDocument != nil {
		return nil, bad("InvalidParameterCombination", "The parameter 'resetPolicy' may not be used in combination with 'policyDocument'")
	}
	policy, err := endpointPolicy(in.PolicyDocument)
	if err != nil {
		return nil, err
	}
	named, err := subnetAddresses(in.SubnetConfigurations)
	if err != nil {
		return nil, err
	}
	var ids []string
	for range in.AddSubnetIds {
		ids = append(ids, e.id("eni"))
	}
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		x, err := endpointOf(tx, e.Account(ctx), *in.VpcEndpointId)
		if err != nil {
			return err
		}
		if x.State == "deleting" {
			return bad("IncorrectState", "The Vpc Endpoint '%s' is being deleted", x.ID)
		}
		n := *x
		n.Subnets, n.Groups = slices.Clone(x.Subnets), slices.Clone(x.Groups)
		if in.PolicyDocument != nil || wire.Value(in.ResetPolicy) {
			n.Policy = policy
		}
		if in.PrivateDnsEnabled != nil && *in.PrivateDnsEnabled != x.PrivateDNS {
			if n.PrivateDNS = *in.PrivateDnsEnabled; n.PrivateDNS {
				v, err := vpcOf(tx, x.Account, x.VPC)
				if err != nil {
					return err
				}
				s, _ := state.EndpointServiceOf(e.Region, x.Service)
				state.Endpoints.Guard(tx, "")
				if err := checkPrivateDNS(tx, v, s, e.Region, x.ID); err != nil {
					return err
				}
			}
		}
		if len(in.AddSecurityGroupIds)+len(in.RemoveSecurityGroupIds) > 0 {
			n.Groups = slices.DeleteFunc(n.Groups, func(g string) bool { return slices.Contains(in.RemoveSecurityGroupIds, g) })
			n.Groups = append(n.Groups, in.AddSecurityGroupIds...)
			if len(n.Groups) == 0 {
				return bad("InvalidParameter", "An endpoint of type Interface must have at least one security group.")
			}
			if n.Groups, err = groupsFor(tx, x.Account, x.VPC, n.Groups); err != nil {
				return err
			}
		}
		for _, id := range in.RemoveSubnetIds {
			if !slices.Contains(n.Subnets, id) {
				return bad("InvalidParameter", "Subnet %s is not a subnet of the Vpc Endpoint %s", id, x.ID)
			}
		}
		n.Subnets = slices.DeleteFunc(n.Subnets, func(id string) bool { return slices.Contains(in.RemoveSubnetIds, id) })
		state.NetworkInterfaces.Guard(tx, "")
		var mine []*state.NetworkInterface
		for i := range state.NetworkInterfaces.By(tx, "owner", x.ID) {
			mine = append(mine, i)
		}
		for _, i := range mine {
			m := *i
			m.Groups = n.Groups
			m.Deleting = i.Deleting || slices.Contains(in.RemoveSubnetIds, i.Subnet)
			state.NetworkInterfaces.Put(tx, &m)
		}
		if err := e.endpointInterfaces(tx, &n, in.AddSubnetIds, named, ids); err != nil {
			return err
		}
		state.Endpoints.Put(tx, &n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.ModifyVpcEndpointOutput{Return: new(true)}, nil
}

// DeleteVpcEndpoints removes endpoints, each for itself.
func (e *EC2) DeleteVpcEndpoints(ctx context.Context, in *api.DeleteVpcEndpointsInput) (*api.DeleteVpcEndpointsOutput, error) {
	var out *api.DeleteVpcEndpointsOutput
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		out = &api.DeleteVpcEndpointsOutput{Unsuccessful: []api.UnsuccessfulItem{}}
		for _, id := range in.VpcEndpointIds {
			x, err := endpointOf(tx, e.Account(ctx), id)
			if err != nil {
				out.Unsuccessful = append(out.Unsuccessful, unsuccessful(id, err))
				continue
			}
			n := *x
			n.State = "deleting"
			state.Endpoints.Put(tx, &n)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func unsuccessful(id string, err error) api.UnsuccessfulItem {
	x := api.UnsuccessfulItem{ResourceId: new(id), Error: &api.UnsuccessfulItemError{Code: new(wire.Code(err)), Message: new(err.Error())}}
	if f, ok := err.(*wire.APIError); ok {
		x.Error.Message = new(f.Message)
	}
	return x
}

func (e *EC2) endpointView(r store.Reader, x *state.Endpoint) api.VpcEndpoint {
	out := api.VpcEndpoint{VpcEndpointId: new(x.ID), VpcEndpointType: api.VpcEndpointType(x.Type), VpcId: new(x.VPC), ServiceName: new(x.Service), ServiceRegion: new(e.Region),
		State: api.State(x.State), PolicyDocument: new(x.Policy), SubnetIds: slices.Clone(x.Subnets), RouteTableIds: []string{}, IpAddressType: "ipv4",
		DnsOptions: &api.DnsOptions{DnsRecordIpType: "ipv4"}, PrivateDnsEnabled: new(x.PrivateDNS), RequesterManaged: new(false),
		CreationTimestamp: new(x.CreatedAt), Tags: tagsView(x.Tags), OwnerId: new(x.Account), NetworkInterfaceIds: []string{}, Groups: []api.SecurityGroupIdentifier{}}
	if x.Failure != "" {
		out.LastError = &api.LastError{Code: new("InternalError"), Message: new(x.Failure)}
	}
	var zones []string
	for n := range state.NetworkInterfaces.By(r, "owner", x.ID) {
		if !n.Deleting || x.State == "deleting" {
			out.NetworkInterfaceIds = append(out.NetworkInterfaceIds, n.ID)
			zones = append(zones, n.Zone)
		}
	}
	for _, id := range x.Groups {
		g := api.SecurityGroupIdentifier{GroupId: new(id)}
		if have, ok := state.SecurityGroups.Get(r, id); ok {
			g.GroupName = new(have.Name)
		}
		out.Groups = append(out.Groups, g)
	}
	for _, name := range x.Hosts(e.Region, zones) {
		out.DnsEntries = append(out.DnsEntries, api.DnsEntry{DnsName: new(name), HostedZoneId: new(endpointZone)})
	}
	return out
}

// endpointZone is the hosted zone that the names of endpoints are said to be in.
const endpointZone = "Z7HUB22UULQXV"

// DescribeVpcEndpoints lists endpoints.
func (e *EC2) DescribeVpcEndpoints(ctx context.Context, in *api.DescribeVpcEndpointsInput) (*api.DescribeVpcEndpointsOutput, error) {
	snap := e.DB.Snapshot()
	type row = *state.Endpoint
	out, next, err := list(request{in.VpcEndpointIds, in.Filters, in.MaxResults, in.NextToken}, kind[row, api.VpcEndpoint]{
		name: "endpoints", rows: mine(state.Endpoints.All(snap), e.Account(ctx), func(x row) string { return x.Account }),
		id: func(x row) string { return x.ID }, missing: noEndpoint, tags: func(x row) []state.Tag { return x.Tags },
		filters: filters[row]{
			"vpc-endpoint-id":    func(x row) []string { return one(x.ID) },
			"vpc-endpoint-state": func(x row) []string { return one(x.State) },
			"vpc-endpoint-type":  func(x row) []string { return one(x.Type) },
			"vpc-id":             func(x row) []string { return one(x.VPC) },
			"service-name":       func(x row) []string { return one(x.Service) },
			"service-region":     func(row) []string { return one(e.Region) },
			"ip-address-type":    func(row) []string { return one("ipv4") },
		},
		view: func(x row) api.VpcEndpoint { return e.endpointView(snap, x) },
	})
	return &api.DescribeVpcEndpointsOutput{VpcEndpoints: out, NextToken: next}, err
}

// DescribeVpcEndpointServices lists the services of the region, and nothing
// that it does not answer.
func (e *EC2) DescribeVpcEndpointServices(_ context.Context, in *api.DescribeVpcEndpointServicesInput) (*api.DescribeVpcEndpointServicesOutput, error) {
	snap := e.DB.Snapshot()
	type row = state.EndpointService
	name := func(s row) string { return "com.amazonaws." + e.Region + "." + s.Name }
	var zones, zoneIds []string
	if region, ok := state.Regions.Get(snap, state.RegionKey); ok {
		for _, z := range region.Zones {
			zones, zoneIds = append(zones, z.Name), append(zoneIds, z.ID)
		}
	}
	rows := state.EndpointServices
	if len(in.ServiceRegions) > 0 && !slices.Contains(in.ServiceRegions, e.Region) {
		rows = nil
	}
	out, next, err := list(request{in.ServiceNames, in.Filters, in.MaxResults, in.NextToken}, kind[row, api.ServiceDetail]{
		name: "endpoint-services", rows: slices.Values(rows), id: name, missing: noEndpointService,
		tags: func(row) []state.Tag { return nil },
		filters: filters[row]{
			"service-name":                    func(s row) []string { return one(name(s)) },
			"service-type":                    func(row) []string { return one("Interface") },
			"service-region":                  func(row) []string { return one(e.Region) },
			"owner":                           func(row) []string { return one("amazon") },
			"supported-ip-address-types":      func(row) []string { return one("ipv4") },
			"private-dns-name-verified-state": func(row) []string { return one("verified") },
		},
		view: func(s row) api.ServiceDetail {
			v := api.ServiceDetail{ServiceName: new(name(s)), ServiceId: new("vpce-svc-" + strings.ReplaceAll(s.Name, ".", "-")), ServiceType: []api.ServiceTypeDetail{{ServiceType: "Interface"}}, ServiceRegion: new(e.Region),
				AvailabilityZones: zones, AvailabilityZoneIds: zoneIds, Owner: new("amazon"), BaseEndpointDnsNames: []string{s.Host + "." + e.Region + ".vpce.amazonaws.com"},
				VpcEndpointPolicySupported: new(true), AcceptanceRequired: new(false), ManagesVpcEndpoints: new(false), PrivateDnsNameVerificationState: "verified",
				SupportedIpAddressTypes: []api.ServiceConnectivityType{"ipv4"}, Tags: []api.Tag{}}
			for i, n := range s.PrivateNames(e.Region) {
				if i == 0 {
					v.PrivateDnsName = new(n)
				}
				v.PrivateDnsNames = append(v.PrivateDnsNames, api.PrivateDnsDetails{PrivateDnsName: new(n)})
			}
			return v
		},
	})
	if err != nil {
		return nil, err
	}
	o := &api.DescribeVpcEndpointServicesOutput{ServiceDetails: out, ServiceNames: []string{}, NextToken: next}
	for _, d := range out {
		o.ServiceNames = append(o.ServiceNames, *d.ServiceName)
	}
	return o, nil
}

// DescribeVpcEndpointConnections lists connections to the account's own
// endpoint services: it can have none.
func (e *EC2) DescribeVpcEndpointConnections(_ context.Context, in *api.DescribeVpcEndpointConnectionsInput) (*api.DescribeVpcEndpointConnectionsOutput, error) {
	type row = api.VpcEndpointConnection
	fs := filters[row]{}
	for _, name := range []string{"ip-address-type", "service-id", "vpc-endpoint-owner", "vpc-endpoint-state", "vpc-endpoint-id", "vpc-endpoint-region"} {
		fs[name] = func(row) []string { return nil }
	}
	out, next, err := list(request{nil, in.Filters, in.MaxResults, in.NextToken}, kind[row, row]{
		name: "endpoint-connections", rows: slices.Values([]row{}), id: func(x row) string { return *x.VpcEndpointConnectionId }, filters: fs, view: func(x row) row { return x }})
	return &api.DescribeVpcEndpointConnectionsOutput{VpcEndpointConnections: out, NextToken: next}, err
}
