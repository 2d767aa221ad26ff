package ec2

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// DescribeInstanceAttribute answers one attribute of an instance.
func (e *EC2) DescribeInstanceAttribute(ctx context.Context, in *api.DescribeInstanceAttributeInput) (*api.DescribeInstanceAttributeOutput, error) {
	snap := e.DB.Snapshot()
	i, err := instance(snap, e.Account(ctx), wire.Value(in.InstanceId))
	if err != nil {
		return nil, err
	}
	v := e.instanceView(snap, i)
	out := &api.DescribeInstanceAttributeOutput{InstanceId: new(i.ID)}
	yes := func(b bool) *api.AttributeBooleanValue { return &api.AttributeBooleanValue{Value: new(b)} }
	text := func(s string) *api.AttributeValue { return &api.AttributeValue{Value: optional(s)} }
	switch in.Attribute {
	case "instanceType":
		out.InstanceType = text(i.Type)
	case "kernel":
		out.KernelId = text("")
	case "ramdisk":
		out.RamdiskId = text("")
	case "userData":
		out.UserData = text(base64.StdEncoding.EncodeToString(i.UserData))
	case "disableApiTermination":
		out.DisableApiTermination = yes(i.KeepFromTermination)
	case "disableApiStop":
		out.DisableApiStop = yes(i.KeepFromStop)
	case "instanceInitiatedShutdownBehavior":
		out.InstanceInitiatedShutdownBehavior = text(i.OnShutdown)
	case "rootDeviceName":
		out.RootDeviceName = text(wire.Value(v.RootDeviceName))
	case "blockDeviceMapping":
		out.BlockDeviceMappings = v.BlockDeviceMappings
	case "productCodes":
		out.ProductCodes = []api.ProductCode{}
	case "sourceDestCheck":
		out.SourceDestCheck = yes(wire.Value(v.SourceDestCheck))
	case "groupSet":
		out.Groups = v.SecurityGroups
	case "ebsOptimized":
		out.EbsOptimized = yes(wire.Value(v.EbsOptimized))
	case "sriovNetSupport":
		out.SriovNetSupport = text("simple")
	case "enaSupport":
		out.EnaSupport = yes(true)
	case "enclaveOptions":
		out.EnclaveOptions = v.EnclaveOptions
	default:
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}

// ModifyInstanceAttribute changes one attribute of an instance, in either of
// the two ways in which the API lets it be named.
func (e *EC2) ModifyInstanceAttribute(ctx context.Context, in *api.ModifyInstanceAttributeInput) (*api.ModifyInstanceAttributeOutput, error) {
	x := *in
	if x.Attribute != "" {
		text, truth := &api.AttributeValue{Value: x.Value}, &api.AttributeBooleanValue{Value: new(strings.EqualFold(wire.Value(x.Value), "true"))}
		switch x.Attribute {
		case "instanceType":
			x.InstanceType = text
		case "kernel":
			x.Kernel = text
		case "ramdisk":
			x.Ramdisk = text
		case "userData":
			data, err := state.UserData(wire.Value(x.Value))
			if err != nil {
				return nil, err
			}
			x.UserData = &api.BlobAttributeValue{Value: data}
		case "disableApiTermination":
			x.DisableApiTermination = truth
		case "disableApiStop":
			x.DisableApiStop = truth
		case "instanceInitiatedShutdownBehavior":
			x.InstanceInitiatedShutdownBehavior = text
		case "sourceDestCheck":
			x.SourceDestCheck = truth
		case "ebsOptimized":
			x.EbsOptimized = truth
		case "sriovNetSupport":
			x.SriovNetSupport = text
		case "enaSupport":
			x.EnaSupport = truth
		case "blockDeviceMapping", "groupSet":
		default:
			return nil, bad("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. It cannot be modified.", x.Attribute)
		}
	}
	set := 0
	for _, given := range []bool{x.InstanceType != nil, x.Kernel != nil, x.Ramdisk != nil, x.UserData != nil, x.DisableApiTermination != nil, x.DisableApiStop != nil,
		x.InstanceInitiatedShutdownBehavior != nil, x.SourceDestCheck != nil, x.EbsOptimized != nil, x.SriovNetSupport != nil, x.EnaSupport != nil, len(x.Groups) > 0, len(x.BlockDeviceMappings) > 0} {
		if given {
			set++
		}
	}
	switch {
	case set == 0:
		return nil, bad("InvalidParameterCombination", "No attributes specified.")
	case set > 1:
		return nil, bad("InvalidParameterCombination", "Fields for multiple attribute types specified. Please specify only one attribute.")
	case x.Kernel != nil || x.Ramdisk != nil:
		return nil, bad("UnsupportedOperation", "Kernels and RAM disks of one's own are not supported here.")
	case x.SriovNetSupport != nil && wire.Value(x.SriovNetSupport.Value) != "simple", x.EnaSupport != nil && !wire.Value(x.EnaSupport.Value):
		return nil, bad("UnsupportedOperation", "Enhanced networking cannot be taken from an instance.")
	}
	return &api.ModifyInstanceAttributeOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		i, err := instance(tx, e.Account(ctx), wire.Value(in.InstanceId))
		if err != nil {
			return err
		}
		if i.State == "terminated" || i.State == "shutting-down" {
			return bad("IncorrectInstanceState", "The instance '%s' is not in a state in which it can be modified.", i.ID)
		}
		stopped := func() error {
			if i.State != "stopped" {
				return bad("IncorrectInstanceState", "The instance '%s' is not in the 'stopped' state.", i.ID)
			}
			return nil
		}
		next := *i
		switch {
		case x.InstanceType != nil:
			if err := e.retype(tx, &next, wire.Value(x.InstanceType.Value)); err != nil {
				return err
			}
			if err := stopped(); err != nil {
				return err
			}
		case x.UserData != nil:
			if err := stopped(); err != nil {
				return err
			}
			if len(x.UserData.Value) > 16<<10 {
				return bad("InvalidParameterValue", "User data is limited to 16384 bytes")
			}
			next.UserData = x.UserData.Value
		case x.DisableApiTermination != nil:
			next.KeepFromTermination = wire.Value(x.DisableApiTermination.Value)
		case x.DisableApiStop != nil:
			next.KeepFromStop = wire.Value(x.DisableApiStop.Value)
		case x.InstanceInitiatedShutdownBehavior != nil:
			if next.OnShutdown = wire.Value(x.InstanceInitiatedShutdownBehavior.Value); next.OnShutdown != "stop" && next.OnShutdown != "terminate" {
				return bad("InvalidParameterValue", "Value (%s) for parameter instanceInitiatedShutdownBehavior is invalid.", next.OnShutdown)
			}
		case x.EbsOptimized != nil:
			next.Options.EbsOptimized = x.EbsOptimized.Value
		case x.SourceDestCheck != nil:
			n, err := onlyDevice(tx, i)
			if err != nil {
				return err
			}
			next.SourceDestCheck, n.SourceDestCheck = wire.Value(x.SourceDestCheck.Value), wire.Value(x.SourceDestCheck.Value)
			state.NetworkInterfaces.Put(tx, n)
		case len(x.Groups) > 0:
			n, err := onlyDevice(tx, i)
			if err != nil {
				return err
			}
			n.Groups = nil
			for _, id := range x.Groups {
				g, ok := state.SecurityGroups.Get(tx, id)
				switch {
				case !ok || g.Account != i.Account:
					return noGroup(id)
				case g.VPC != n.VPC:
					return bad("InvalidGroup.NotFound", "The security group '%s' does not exist in VPC '%s'", id, n.VPC)
				case !slices.Contains(n.Groups, id):
					n.Groups = append(n.Groups, id)
				}
			}
			if len(n.Groups) > maxGroupsPerInterface {
				return bad("SecurityGroupsPerInterfaceLimitExceeded", "The maximum number of security groups per interface has been reached.")
			}
			state.NetworkInterfaces.Put(tx, n)
		case len(x.BlockDeviceMappings) > 0:
			root := rootDevice(tx, i)
			for _, m := range x.BlockDeviceMappings {
				if wire.Value(m.DeviceName) != root {
					return bad("InvalidInstanceAttributeValue", "No device is currently mapped at %s", wire.Value(m.DeviceName))
				}
				if m.Ebs != nil && m.Ebs.DeleteOnTermination != nil {
					next.Options.BlockDeviceMappings = removeRoot(i.Options.BlockDeviceMappings, root, *m.Ebs.DeleteOnTermination)
				}
			}
		}
		state.Instances.Put(tx, &next)
		return nil
	})
}

// removeRoot says in the mappings whether the root goes with the instance.
func removeRoot(ms []api.BlockDeviceMapping, root string, remove bool) []api.BlockDeviceMapping {
	ms = slices.Clone(ms)
	at := slices.IndexFunc(ms, func(m api.BlockDeviceMapping) bool { return wire.Value(m.DeviceName) == root && m.Ebs != nil })
	if at < 0 {
		ms, at = append(ms, api.BlockDeviceMapping{DeviceName: new(root), Ebs: &api.EbsBlockDevice{}}), len(ms)
	}
	ebs := *ms[at].Ebs
	ebs.DeleteOnTermination = new(remove)
	ms[at].Ebs = &ebs
	return ms
}

// retype gives an instance another type, which must fit its image and its interfaces.
func (e *EC2) retype(r store.Reader, i *state.Instance, name string) error {
	m, ok := state.InstanceType(name)
	if !ok {
		return bad("InvalidInstanceAttributeValue", "Invalid value '%s' for InstanceType.", name)
	}
	if had, _ := state.InstanceType(i.Type); had.Arch != m.Arch {
		return bad("InvalidInstanceAttributeValue", "The architecture '%s' of the specified instance type does not match the architecture '%s' of the instance.", m.Arch, had.Arch)
	}
	nics := devices(r, i.ID)
	if len(nics) > m.MaxENIs {
		return bad("InvalidInstanceAttributeValue", "Interface count %d exceeds the limit for %s", len(nics), name)
	}
	for _, n := range nics {
		if 1+len(n.Secondary) > m.IPv4PerENI || len(n.IPv6) > m.IPv4PerENI {
			return bad("InvalidInstanceAttributeValue", "Number of private addresses of %s exceeds the limit for %s", n.ID, name)
		}
	}
	i.Type = name
	return nil
}

// onlyDevice is a copy of the interface of an instance that has but one.
func onlyDevice(r store.Reader, i *state.Instance) (*state.NetworkInterface, error) {
	nics := devices(r, i.ID)
	if len(nics) != 1 {
		return nil, bad("InvalidInstanceID", "There are multiple interfaces attached to instance '%s'. Please specify an interface ID for the operation instead.", i.ID)
	}
	n := *nics[0]
	return &n, nil
}

// ResetInstanceAttribute sets sourceDestCheck back; kernel and RAM disk have no
// other value.
func (e *EC2) ResetInstanceAttribute(ctx context.Context, in *api.ResetInstanceAttributeInput) (*api.ResetInstanceAttributeOutput, error) {
	switch in.Attribute {
	case "sourceDestCheck":
		_, err := e.ModifyInstanceAttribute(ctx, &api.ModifyInstanceAttributeInput{InstanceId: in.InstanceId, SourceDestCheck: &api.AttributeBooleanValue{Value: new(true)}})
		return &api.ResetInstanceAttributeOutput{}, err
	case "kernel", "ramdisk":
		_, err := instance(e.DB.Snapshot(), e.Account(ctx), wire.Value(in.InstanceId))
		return &api.ResetInstanceAttributeOutput{}, err
	}
	return nil, bad("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. It cannot be reset.", in.Attribute)
}

// ModifyInstanceMetadataOptions changes how an instance's metadata is served.
func (e *EC2) ModifyInstanceMetadataOptions(ctx context.Context, in *api.ModifyInstanceMetadataOptionsInput) (*api.ModifyInstanceMetadataOptionsOutput, error) {
	var next state.Instance
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		i, err := instance(tx, e.Account(ctx), wire.Value(in.InstanceId))
		if err != nil {
			return err
		}
		if i.State == "terminated" || i.State == "shutting-down" {
			return bad("IncorrectInstanceState", "The instance '%s' is not in a state in which it can be modified.", i.ID)
		}
		next = *i
		if next.Metadata, err = state.SetMetadata(i.Metadata, api.InstanceMetadataOptionsRequest{HttpTokens: in.HttpTokens, HttpPutResponseHopLimit: in.HttpPutResponseHopLimit,
			HttpEndpoint: in.HttpEndpoint, HttpProtocolIpv6: in.HttpProtocolIpv6, InstanceMetadataTags: in.InstanceMetadataTags}); err != nil {
			return err
		}
		state.Instances.Put(tx, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	view := metadataView(next.Metadata)
	view.State = "pending"
	return &api.ModifyInstanceMetadataOptionsOutput{InstanceId: in.InstanceId, InstanceMetadataOptions: view}, nil
}

// GetInstanceMetadataDefaults answers the account's defaults for new instances.
func (e *EC2) GetInstanceMetadataDefaults(ctx context.Context, _ *api.GetInstanceMetadataDefaultsInput) (*api.GetInstanceMetadataDefaultsOutput, error) {
	out := &api.InstanceMetadataDefaultsResponse{ManagedBy: "account"}
	if d, ok := state.InstanceDefaults.Get(e.DB.Snapshot(), e.Account(ctx)); ok {
		out.HttpTokens, out.HttpEndpoint = api.HttpTokensState(d.Tokens), api.InstanceMetadataEndpointState(d.Endpoint)
		out.InstanceMetadataTags, out.HttpTokensEnforced = api.InstanceMetadataTagsState(d.MetadataTags), api.HttpTokensEnforcedState(d.Enforced)
		if d.HopLimit > 0 {
			out.HttpPutResponseHopLimit = new(int32(d.HopLimit))
		}
	}
	return &api.GetInstanceMetadataDefaultsOutput{AccountLevel: out}, nil
}

// ModifyInstanceMetadataDefaults sets them. "no-preference" and -1 take one back.
func (e *EC2) ModifyInstanceMetadataDefaults(ctx context.Context, in *api.ModifyInstanceMetadataDefaultsInput) (*api.ModifyInstanceMetadataDefaultsOutput, error) {
	if n := wire.Value(in.HttpPutResponseHopLimit); in.HttpPutResponseHopLimit != nil && n != -1 && (n < 1 || n > 64) {
		return nil, bad("InvalidParameterValue", "Value (%d) for parameter HttpPutResponseHopLimit is invalid. It must be from 1 to 64, or -1.", n)
	}
	if in.HttpTokensEnforced == "enabled" {
		return nil, bad("UnsupportedOperation", "The enforcement of tokens is not supported here; set HttpTokens to required.")
	}
	return &api.ModifyInstanceMetadataDefaultsOutput{Return: new(true)}, e.DB.Update(ctx, func(tx *store.Tx) error {
		d := state.InstanceDefault{Account: e.Account(ctx)}
		if old, ok := state.InstanceDefaults.Get(tx, d.Account); ok {
			d = *old
		}
		set := func(to *string, v string) {
			switch v {
			case "":
			case "no-preference":
				*to = ""
			default:
				*to = v
			}
		}
		set(&d.Tokens, string(in.HttpTokens))
		set(&d.Endpoint, string(in.HttpEndpoint))
		set(&d.MetadataTags, string(in.InstanceMetadataTags))
		set(&d.Enforced, string(in.HttpTokensEnforced))
		if in.HttpPutResponseHopLimit != nil {
			d.HopLimit = max(int(*in.HttpPutResponseHopLimit), 0)
		}
		state.InstanceDefaults.Put(tx, &d)
		return nil
	})
}

func associationView(r store.Reader, i *state.Instance, status string) *api.IamInstanceProfileAssociation {
	return &api.IamInstanceProfileAssociation{AssociationId: new(i.ProfileAssociation), InstanceId: new(i.ID), IamInstanceProfile: profileView(r, i),
		State: api.IamInstanceProfileAssociationState(status), Timestamp: new(i.ProfileAt)}
}

// AssociateIamInstanceProfile gives a profile to an instance without one.
func (e *EC2) AssociateIamInstanceProfile(ctx context.Context, in *api.AssociateIamInstanceProfileInput) (*api.AssociateIamInstanceProfileOutput, error) {
	var out *api.IamInstanceProfileAssociation
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		i, err := instance(tx, e.Account(ctx), wire.Value(in.InstanceId))
		if err != nil {
			return err
		}
		p, err := state.FindProfile(tx, i.Account, in.IamInstanceProfile)
		switch {
		case err != nil:
			return err
		case p == nil:
			return bad("MissingParameter", "The request must contain the parameter IamInstanceProfile.Name or IamInstanceProfile.Arn")
		case i.Profile != "":
			return bad("IncorrectState", "There is an existing association for instance %s", i.ID)
		case i.State != "running" && i.State != "stopped" && i.State != "pending":
			return bad("IncorrectInstanceState", "The instance '%s' is not in the 'running' or 'stopped' states.", i.ID)
		}
		next := *i
		next.Profile, next.ProfileAssociation, next.ProfileAt = p.ARN(), e.id("iip-assoc"), e.Now()
		state.Instances.Put(tx, &next)
		out = associationView(tx, &next, "associating")
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.AssociateIamInstanceProfileOutput{IamInstanceProfileAssociation: out}, nil
}

// associationOf is the instance with that association.
func associationOf(r store.Reader, account, id string) (*state.Instance, error) {
	for i := range state.Instances.By(r, "account", account) {
		if i.ProfileAssociation == id && id != "" {
			// Getting it makes a transaction depend on it.
			return instance(r, account, i.ID)
		}
	}
	return nil, bad("InvalidAssociationID.NotFound", "An invalid association-id of '%s' was given", id)
}

// ReplaceIamInstanceProfileAssociation gives an instance another profile.
func (e *EC2) ReplaceIamInstanceProfileAssociation(ctx context.Context, in *api.ReplaceIamInstanceProfileAssociationInput) (*api.ReplaceIamInstanceProfileAssociationOutput, error) {
	var out *api.IamInstanceProfileAssociation
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		i, err := associationOf(tx, e.Account(ctx), wire.Value(in.AssociationId))
		if err != nil {
			return err
		}
		p, err := state.FindProfile(tx, i.Account, in.IamInstanceProfile)
		switch {
		case err != nil:
			return err
		case p == nil:
			return bad("MissingParameter", "The request must contain the parameter IamInstanceProfile.Name or IamInstanceProfile.Arn")
		}
		next := *i
		next.Profile, next.ProfileAssociation, next.ProfileAt = p.ARN(), e.id("iip-assoc"), e.Now()
		state.Instances.Put(tx, &next)
		out = associationView(tx, &next, "associating")
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.ReplaceIamInstanceProfileAssociationOutput{IamInstanceProfileAssociation: out}, nil
}

// DisassociateIamInstanceProfile takes an instance's profile away.
func (e *EC2) DisassociateIamInstanceProfile(ctx context.Context, in *api.DisassociateIamInstanceProfileInput) (*api.DisassociateIamInstanceProfileOutput, error) {
	var out *api.IamInstanceProfileAssociation
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		i, err := associationOf(tx, e.Account(ctx), wire.Value(in.AssociationId))
		if err != nil {
			return err
		}
		out = associationView(tx, i, "disassociating")
		next := *i
		next.Profile, next.ProfileAssociation = "", ""
		state.Instances.Put(tx, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DisassociateIamInstanceProfileOutput{IamInstanceProfileAssociation: out}, nil
}

// DescribeIamInstanceProfileAssociations lists which instances have profiles.
func (e *EC2) DescribeIamInstanceProfileAssociations(ctx context.Context, in *api.DescribeIamInstanceProfileAssociationsInput) (*api.DescribeIamInstanceProfileAssociationsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	rows := slices.SortedFunc(func(yield func(*state.Instance) bool) {
		for i := range state.Instances.By(snap, "account", account) {
			if i.ProfileAssociation != "" && i.State != "terminated" && !yield(i) {
				return
			}
		}
	}, func(a, b *state.Instance) int { return strings.Compare(a.ProfileAssociation, b.ProfileAssociation) })
	out, next, err := list(request{in.AssociationIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.Instance, api.IamInstanceProfileAssociation]{
		name: "profile-associations", rows: slices.Values(rows),
		id: func(i *state.Instance) string { return i.ProfileAssociation },
		missing: func(id string) error {
			return bad("InvalidAssociationID.NotFound", "An invalid association-id of '%s' was given", id)
		},
		filters: filters[*state.Instance]{
			"instance-id": func(i *state.Instance) []string { return one(i.ID) },
			"state":       func(*state.Instance) []string { return one("associated") },
		},
		view: func(i *state.Instance) api.IamInstanceProfileAssociation {
			return *associationView(snap, i, "associated")
		},
	})
	return &api.DescribeIamInstanceProfileAssociationsOutput{IamInstanceProfileAssociations: out, NextToken: next}, err
}

// ModifyPrivateDnsNameOptions keeps how an instance is to be named inside the
// VPC; names by address are the only ones that there are.
func (e *EC2) ModifyPrivateDnsNameOptions(ctx context.Context, in *api.ModifyPrivateDnsNameOptionsInput) (*api.ModifyPrivateDnsNameOptionsOutput, error) {
	if in.PrivateDnsHostnameType == "resource-name" || wire.Value(in.EnableResourceNameDnsARecord) || wire.Value(in.EnableResourceNameDnsAAAARecord) {
		return nil, bad("UnsupportedOperation", "Instances are named by their addresses here, not by their ids.")
	}
	return &api.ModifyPrivateDnsNameOptionsOutput{Return: new(true)}, e.DB.Update(ctx, func(tx *store.Tx) error {
		i, err := instance(tx, e.Account(ctx), wire.Value(in.InstanceId))
		if err != nil {
			return err
		}
		next := *i
		next.Options.PrivateDnsNameOptions = &api.PrivateDnsNameOptionsRequest{HostnameType: "ip-name", EnableResourceNameDnsARecord: new(false), EnableResourceNameDnsAAAARecord: new(false)}
		state.Instances.Put(tx, &next)
		return nil
	})
}
