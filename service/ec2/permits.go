package ec2

import (
	"context"
	"maps"
	"strconv"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

type permits map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check

// permit puts an operation's checks into the table.
func permit[I any](m permits, op string, f func(r store.Reader, c *auth.Caller, in *I) []auth.Check) {
	m[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check { return f(r, c, in.(*I)) }
}

// authorizeInstances is Authorize for instances, images, keys, templates and
// Spot requests.
func (e *EC2) authorizeInstances(m permits) {
	each := func(op string, c *auth.Caller, ids []string, one func(string) map[string][]string) (out []auth.Check) {
		for _, id := range ids {
			out = append(out, auth.Check{Action: "ec2:" + op, Resource: *e.arn(c.Account, "instance", id), Keys: one(id)})
		}
		if len(out) == 0 {
			out = append(out, auth.Check{Action: "ec2:" + op, Resource: *e.arn(c.Account, "instance", "*")})
		}
		return out
	}
	on := func(op string, r store.Reader, c *auth.Caller, ids ...string) []auth.Check {
		return each(op, c, ids, func(id string) map[string][]string { return e.instanceKeys(r, c.Account, id) })
	}
	permit(m, "StartInstances", func(r store.Reader, c *auth.Caller, in *api.StartInstancesInput) []auth.Check {
		return on("StartInstances", r, c, in.InstanceIds...)
	})
	permit(m, "StopInstances", func(r store.Reader, c *auth.Caller, in *api.StopInstancesInput) []auth.Check {
		return on("StopInstances", r, c, in.InstanceIds...)
	})
	permit(m, "RebootInstances", func(r store.Reader, c *auth.Caller, in *api.RebootInstancesInput) []auth.Check {
		return on("RebootInstances", r, c, in.InstanceIds...)
	})
	permit(m, "TerminateInstances", func(r store.Reader, c *auth.Caller, in *api.TerminateInstancesInput) []auth.Check {
		return on("TerminateInstances", r, c, in.InstanceIds...)
	})
	permit(m, "MonitorInstances", func(r store.Reader, c *auth.Caller, in *api.MonitorInstancesInput) []auth.Check {
		return on("MonitorInstances", r, c, in.InstanceIds...)
	})
	permit(m, "UnmonitorInstances", func(r store.Reader, c *auth.Caller, in *api.UnmonitorInstancesInput) []auth.Check {
		return on("UnmonitorInstances", r, c, in.InstanceIds...)
	})
	permit(m, "DescribeInstanceAttribute", func(r store.Reader, c *auth.Caller, in *api.DescribeInstanceAttributeInput) []auth.Check {
		return on("DescribeInstanceAttribute", r, c, wire.Value(in.InstanceId))
	})
	permit(m, "ModifyInstanceAttribute", func(r store.Reader, c *auth.Caller, in *api.ModifyInstanceAttributeInput) []auth.Check {
		out := on("ModifyInstanceAttribute", r, c, wire.Value(in.InstanceId))
		for _, id := range in.Groups {
			out = append(out, auth.Check{Action: "ec2:ModifyInstanceAttribute", Resource: *e.arn(c.Account, "security-group", id), Keys: e.rowKeys(r, c.Account, id)})
		}
		return out
	})
	permit(m, "ResetInstanceAttribute", func(r store.Reader, c *auth.Caller, in *api.ResetInstanceAttributeInput) []auth.Check {
		return on("ResetInstanceAttribute", r, c, wire.Value(in.InstanceId))
	})
	permit(m, "ModifyInstanceMetadataOptions", func(r store.Reader, c *auth.Caller, in *api.ModifyInstanceMetadataOptionsInput) []auth.Check {
		return on("ModifyInstanceMetadataOptions", r, c, wire.Value(in.InstanceId))
	})
	permit(m, "ModifyPrivateDnsNameOptions", func(r store.Reader, c *auth.Caller, in *api.ModifyPrivateDnsNameOptionsInput) []auth.Check {
		return on("ModifyPrivateDnsNameOptions", r, c, wire.Value(in.InstanceId))
	})
	permit(m, "GetConsoleOutput", func(r store.Reader, c *auth.Caller, in *api.GetConsoleOutputInput) []auth.Check {
		return on("GetConsoleOutput", r, c, wire.Value(in.InstanceId))
	})
	permit(m, "GetPasswordData", func(r store.Reader, c *auth.Caller, in *api.GetPasswordDataInput) []auth.Check {
		return on("GetPasswordData", r, c, wire.Value(in.InstanceId))
	})
	permit(m, "GetLaunchTemplateData", func(r store.Reader, c *auth.Caller, in *api.GetLaunchTemplateDataInput) []auth.Check {
		return on("GetLaunchTemplateData", r, c, wire.Value(in.InstanceId))
	})
	pass := func(r store.Reader, c *auth.Caller, s *api.IamInstanceProfileSpecification) []auth.Check {
		p, err := state.FindProfile(r, c.Account, s)
		if err != nil || p == nil || p.Role == "" {
			return nil // the operation itself says what is wrong
		}
		role, ok := state.Roles.Get(r, state.IAMKey(c.Account, p.Role))
		if !ok {
			return nil
		}
		return []auth.Check{{Action: "iam:PassRole", Resource: role.ARN(), Keys: map[string][]string{"iam:PassedToService": {"ec2.amazonaws.com"}}}}
	}
	permit(m, "AssociateIamInstanceProfile", func(r store.Reader, c *auth.Caller, in *api.AssociateIamInstanceProfileInput) []auth.Check {
		return append(on("AssociateIamInstanceProfile", r, c, wire.Value(in.InstanceId)), pass(r, c, in.IamInstanceProfile)...)
	})
	byAssociation := func(op string, r store.Reader, c *auth.Caller, id *string) []auth.Check {
		if i, err := associationOf(r, c.Account, wire.Value(id)); err == nil {
			return on(op, r, c, i.ID)
		}
		return on(op, r, c)
	}
	permit(m, "ReplaceIamInstanceProfileAssociation", func(r store.Reader, c *auth.Caller, in *api.ReplaceIamInstanceProfileAssociationInput) []auth.Check {
		return append(byAssociation("ReplaceIamInstanceProfileAssociation", r, c, in.AssociationId), pass(r, c, in.IamInstanceProfile)...)
	})
	permit(m, "DisassociateIamInstanceProfile", func(r store.Reader, c *auth.Caller, in *api.DisassociateIamInstanceProfileInput) []auth.Check {
		return byAssociation("DisassociateIamInstanceProfile", r, c, in.AssociationId)
	})
	permit(m, "RunInstances", func(r store.Reader, c *auth.Caller, in *api.RunInstancesInput) []auth.Check {
		return append(e.launchChecks(r, c, "RunInstances", in), pass(r, c, e.mergedProfile(r, c, in))...)
	})
	permit(m, "RequestSpotInstances", func(r store.Reader, c *auth.Caller, in *api.RequestSpotInstancesInput) []auth.Check {
		out := e.creating(c, "RequestSpotInstances", "spot-instances-request", in.TagSpecifications)
		if in.LaunchSpecification == nil {
			return out
		}
		s := in.LaunchSpecification
		run := &api.RunInstancesInput{ImageId: s.ImageId, KeyName: s.KeyName, SecurityGroupIds: s.SecurityGroupIds, SubnetId: s.SubnetId, NetworkInterfaces: s.NetworkInterfaces, InstanceType: s.InstanceType}
		for _, k := range e.launchChecks(r, c, "RequestSpotInstances", run) {
			if kind := strings.Split(k.Resource, ":")[5]; !strings.HasPrefix(kind, "instance/") && !strings.HasPrefix(kind, "volume/") {
				out = append(out, k)
			}
		}
		return append(out, pass(r, c, s.IamInstanceProfile)...)
	})
	permit(m, "CancelSpotInstanceRequests", func(r store.Reader, c *auth.Caller, in *api.CancelSpotInstanceRequestsInput) (out []auth.Check) {
		for _, id := range in.SpotInstanceRequestIds {
			keys := map[string][]string{}
			if s, ok := state.SpotRequests.Get(r, id); ok && s.Account == c.Account {
				resourceTags(keys, s.Tags)
			}
			out = append(out, auth.Check{Action: "ec2:CancelSpotInstanceRequests", Resource: *e.arn(c.Account, "spot-instances-request", id), Keys: keys})
		}
		if len(out) == 0 {
			out = append(out, auth.Check{Action: "ec2:CancelSpotInstanceRequests", Resource: *e.arn(c.Account, "spot-instances-request", "*")})
		}
		return out
	})

	permit(m, "CreateKeyPair", func(_ store.Reader, c *auth.Caller, in *api.CreateKeyPairInput) []auth.Check {
		out := e.creating(c, "CreateKeyPair", "key-pair", in.TagSpecifications)
		out[0].Resource = *e.arn(c.Account, "key-pair", wire.Value(in.KeyName))
		out[0].Keys["ec2:KeyPairType"] = one(string(in.KeyType))
		return out
	})
	permit(m, "ImportKeyPair", func(_ store.Reader, c *auth.Caller, in *api.ImportKeyPairInput) []auth.Check {
		out := e.creating(c, "ImportKeyPair", "key-pair", in.TagSpecifications)
		out[0].Resource = *e.arn(c.Account, "key-pair", wire.Value(in.KeyName))
		return out
	})
	permit(m, "DeleteKeyPair", func(r store.Reader, c *auth.Caller, in *api.DeleteKeyPairInput) []auth.Check {
		k := auth.Check{Action: "ec2:DeleteKeyPair", Resource: *e.arn(c.Account, "key-pair", "*"), Keys: map[string][]string{}}
		if in.KeyName != nil {
			k.Resource = *e.arn(c.Account, "key-pair", *in.KeyName)
		}
		for p := range state.KeyPairs.By(r, "account", c.Account) {
			if p.Name == wire.Value(in.KeyName) || p.ID == wire.Value(in.KeyPairId) {
				k.Resource = *e.arn(c.Account, "key-pair", p.Name)
				k.Keys["ec2:KeyPairName"], k.Keys["ec2:KeyPairType"] = []string{p.Name}, []string{p.Type}
				resourceTags(k.Keys, p.Tags)
			}
		}
		return []auth.Check{k}
	})

	permit(m, "RegisterImage", func(_ store.Reader, c *auth.Caller, in *api.RegisterImageInput) []auth.Check {
		out := e.creating(c, "RegisterImage", "image", in.TagSpecifications)
		for i := range out {
			out[i].Resource, out[i].Account = e.imageARN("*"), c.Account
		}
		return out
	})
	permit(m, "CopyImage", func(_ store.Reader, c *auth.Caller, in *api.CopyImageInput) []auth.Check {
		out := e.creating(c, "CopyImage", "image", in.TagSpecifications)
		for i := range out {
			out[i].Resource, out[i].Account = e.imageARN("*"), c.Account
		}
		return append(out, auth.Check{Action: "ec2:CopyImage", Resource: "arn:aws:ec2:" + e.Region + "::snapshot/*", Account: c.Account})
	})
	permit(m, "CreateImage", func(r store.Reader, c *auth.Caller, in *api.CreateImageInput) []auth.Check {
		return append(on("CreateImage", r, c, wire.Value(in.InstanceId)), auth.Check{Action: "ec2:CreateImage", Resource: e.imageARN("*"), Account: c.Account},
			auth.Check{Action: "ec2:CreateImage", Resource: "arn:aws:ec2:" + e.Region + "::snapshot/*", Account: c.Account})
	})
	onImage := func(op string, r store.Reader, c *auth.Caller, id *string) []auth.Check {
		return []auth.Check{{Action: "ec2:" + op, Resource: e.imageARN(wire.Value(id)), Keys: imageKeys(r, c.Account, wire.Value(id)), Account: c.Account}}
	}
	permit(m, "DeregisterImage", func(r store.Reader, c *auth.Caller, in *api.DeregisterImageInput) []auth.Check {
		return onImage("DeregisterImage", r, c, in.ImageId)
	})
	permit(m, "DescribeImageAttribute", func(r store.Reader, c *auth.Caller, in *api.DescribeImageAttributeInput) []auth.Check {
		return onImage("DescribeImageAttribute", r, c, in.ImageId)
	})
	permit(m, "ModifyImageAttribute", func(r store.Reader, c *auth.Caller, in *api.ModifyImageAttributeInput) []auth.Check {
		return onImage("ModifyImageAttribute", r, c, in.ImageId)
	})
	permit(m, "ResetImageAttribute", func(r store.Reader, c *auth.Caller, in *api.ResetImageAttributeInput) []auth.Check {
		return onImage("ResetImageAttribute", r, c, in.ImageId)
	})

	permit(m, "CreateLaunchTemplate", func(_ store.Reader, c *auth.Caller, in *api.CreateLaunchTemplateInput) []auth.Check {
		return e.creating(c, "CreateLaunchTemplate", "launch-template", in.TagSpecifications)
	})
	onTemplate := func(op string, r store.Reader, c *auth.Caller, id, name *string) []auth.Check {
		k := auth.Check{Action: "ec2:" + op, Resource: *e.arn(c.Account, "launch-template", "*"), Keys: map[string][]string{}}
		if id != nil {
			k.Resource = *e.arn(c.Account, "launch-template", *id)
		}
		if t, err := state.Template(r, c.Account, id, name); err == nil {
			k.Resource = *e.arn(c.Account, "launch-template", t.ID)
			resourceTags(k.Keys, t.Tags)
		}
		return []auth.Check{k}
	}
	permit(m, "CreateLaunchTemplateVersion", func(r store.Reader, c *auth.Caller, in *api.CreateLaunchTemplateVersionInput) []auth.Check {
		return onTemplate("CreateLaunchTemplateVersion", r, c, in.LaunchTemplateId, in.LaunchTemplateName)
	})
	permit(m, "ModifyLaunchTemplate", func(r store.Reader, c *auth.Caller, in *api.ModifyLaunchTemplateInput) []auth.Check {
		return onTemplate("ModifyLaunchTemplate", r, c, in.LaunchTemplateId, in.LaunchTemplateName)
	})
	permit(m, "DeleteLaunchTemplate", func(r store.Reader, c *auth.Caller, in *api.DeleteLaunchTemplateInput) []auth.Check {
		return onTemplate("DeleteLaunchTemplate", r, c, in.LaunchTemplateId, in.LaunchTemplateName)
	})
	permit(m, "DeleteLaunchTemplateVersions", func(r store.Reader, c *auth.Caller, in *api.DeleteLaunchTemplateVersionsInput) []auth.Check {
		return onTemplate("DeleteLaunchTemplateVersions", r, c, in.LaunchTemplateId, in.LaunchTemplateName)
	})
}

func (e *EC2) imageARN(id string) string {
	if id == "" {
		id = "*"
	}
	return "arn:aws:ec2:" + e.Region + "::image/" + id
}

// creating checks that a resource of the kind may be made, and tagged where it is.
func (e *EC2) creating(c *auth.Caller, op, kind string, specs []api.TagSpecification) []auth.Check {
	var mine []api.TagSpecification
	for _, s := range specs {
		if string(s.ResourceType) == kind {
			mine = append(mine, s)
		}
	}
	keys := requestTags(mine)
	out := []auth.Check{{Action: "ec2:" + op, Resource: *e.arn(c.Account, kind, "*"), Keys: keys}}
	if len(mine) > 0 {
		tag := maps.Clone(keys)
		tag["ec2:CreateAction"] = []string{op}
		out = append(out, auth.Check{Action: "ec2:CreateTags", Resource: *e.arn(c.Account, kind, "*"), Keys: tag})
	}
	return out
}

func resourceTags(keys map[string][]string, ts []state.Tag) {
	for _, t := range ts {
		keys["aws:ResourceTag/"+t.Key], keys["ec2:ResourceTag/"+t.Key] = []string{t.Value}, []string{t.Value}
	}
}

// instanceKeys are the condition keys of an instance that is there.
func (e *EC2) instanceKeys(r store.Reader, account, id string) map[string][]string {
	keys := map[string][]string{}
	i, ok := state.Instances.Get(r, id)
	if !ok || i.Account != account {
		return keys
	}
	resourceTags(keys, i.Tags)
	keys["ec2:InstanceID"], keys["ec2:InstanceType"], keys["ec2:AvailabilityZone"] = []string{i.ID}, []string{i.Type}, []string{i.Zone}
	keys["ec2:EbsOptimized"], keys["ec2:InstanceProfile"] = flag(wire.Value(i.Options.EbsOptimized)), one(i.Profile)
	keys["ec2:InstanceMarketType"] = []string{"on-demand"}
	if i.Spot != "" {
		keys["ec2:InstanceMarketType"] = []string{"spot"}
	}
	m := metadataView(i.Metadata)
	keys["ec2:MetadataHttpEndpoint"], keys["ec2:MetadataHttpTokens"] = []string{string(m.HttpEndpoint)}, []string{string(m.HttpTokens)}
	keys["ec2:MetadataHttpPutResponseHopLimit"] = []string{strconv.Itoa(i.Metadata.HopLimit)}
	return keys
}

func imageKeys(r store.Reader, account, id string) map[string][]string {
	keys := map[string][]string{}
	i, ok := state.ImageOf(r, id)
	if !ok || !i.For(account) {
		return keys
	}
	keys["ec2:ImageID"], keys["ec2:ImageType"], keys["ec2:RootDeviceType"], keys["ec2:Public"] = []string{i.ID}, []string{"machine"}, []string{"ebs"}, flag(i.Public)
	keys["ec2:Owner"] = []string{i.Account}
	if i.Account == "" {
		keys["ec2:Owner"] = []string{"amazon"}
	}
	if i.Account == account {
		resourceTags(keys, i.Tags)
	}
	return keys
}

// rowKeys are the condition keys of a group, subnet or interface that is there.
func (e *EC2) rowKeys(r store.Reader, account, id string) map[string][]string {
	keys := map[string][]string{}
	vpc := func(id string) []string { return []string{*e.arn(account, "vpc", id)} }
	if g, ok := state.SecurityGroups.Get(r, id); ok && g.Account == account {
		resourceTags(keys, g.Tags)
		keys["ec2:SecurityGroupID"], keys["ec2:Vpc"] = []string{id}, vpc(g.VPC)
	}
	if s, ok := state.Subnets.Get(r, id); ok && s.Account == account {
		resourceTags(keys, s.Tags)
		keys["ec2:SubnetID"], keys["ec2:Vpc"], keys["ec2:AvailabilityZone"] = []string{id}, vpc(s.VPC), []string{s.Zone}
	}
	if n, ok := state.NetworkInterfaces.Get(r, id); ok && n.Account == account {
		keys["ec2:NetworkInterfaceID"], keys["ec2:Vpc"], keys["ec2:AvailabilityZone"] = []string{id}, vpc(n.VPC), []string{n.Zone}
		keys["ec2:Subnet"] = []string{*e.arn(account, "subnet", n.Subnet)}
	}
	return keys
}

// merged is the request with what its launch template says; the request alone
// where there is no such template, which the operation then says.
func (e *EC2) merged(r store.Reader, c *auth.Caller, in *api.RunInstancesInput) *api.RunInstancesInput {
	if out, _, err := state.MergeTemplate(r, c.Account, in); err == nil {
		return out
	}
	return in
}

func (e *EC2) mergedProfile(r store.Reader, c *auth.Caller, in *api.RunInstancesInput) *api.IamInstanceProfileSpecification {
	return e.merged(r, c, in).IamInstanceProfile
}

// launchChecks are what a launch asks permission for: the instances and what
// is made with them, and what they use.
func (e *EC2) launchChecks(r store.Reader, c *auth.Caller, op string, request *api.RunInstancesInput) []auth.Check {
	in := e.merged(r, c, request)
	around := map[string][]string{}
	if t := request.LaunchTemplate; t != nil {
		around["ec2:IsLaunchTemplateResource"] = []string{"false"}
		if row, err := state.Template(r, c.Account, t.LaunchTemplateId, t.LaunchTemplateName); err == nil {
			around["ec2:LaunchTemplate"] = []string{*e.arn(c.Account, "launch-template", row.ID)}
		}
	}
	var out []auth.Check
	add := func(kind, id string, keys map[string][]string) {
		k := auth.Check{Action: "ec2:" + op, Resource: *e.arn(c.Account, kind, id), Keys: map[string][]string{}}
		if kind == "image" {
			k.Resource, k.Account = e.imageARN(id), c.Account
		}
		maps.Copy(k.Keys, around)
		maps.Copy(k.Keys, keys)
		if request.LaunchTemplate != nil {
			k.Keys["ec2:IsLaunchTemplateResource"] = flag(fromTemplate(request, kind))
		}
		out = append(out, k)
	}
	tagged := func(kind string) map[string][]string {
		var mine []api.TagSpecification
		for _, s := range in.TagSpecifications {
			if string(s.ResourceType) == kind {
				mine = append(mine, s)
			}
		}
		return requestTags(mine)
	}
	keys := tagged("instance")
	keys["ec2:InstanceType"], keys["ec2:EbsOptimized"] = one(string(in.InstanceType)), flag(wire.Value(in.EbsOptimized))
	keys["ec2:InstanceMarketType"] = []string{"on-demand"}
	if o := in.InstanceMarketOptions; o != nil && o.MarketType != "" {
		keys["ec2:InstanceMarketType"] = []string{string(o.MarketType)}
	}
	if o := in.MetadataOptions; o != nil {
		keys["ec2:MetadataHttpTokens"], keys["ec2:MetadataHttpEndpoint"] = one(string(o.HttpTokens)), one(string(o.HttpEndpoint))
		if o.HttpPutResponseHopLimit != nil {
			keys["ec2:MetadataHttpPutResponseHopLimit"] = number(int(*o.HttpPutResponseHopLimit))
		}
	}
	if p, err := state.FindProfile(r, c.Account, in.IamInstanceProfile); err == nil && p != nil {
		keys["ec2:InstanceProfile"] = []string{p.ARN()}
	}
	if pl := in.Placement; pl != nil {
		keys["ec2:AvailabilityZone"] = one(wire.Value(pl.AvailabilityZone))
	}
	add("instance", "*", keys)

	image := wire.Value(in.ImageId)
	if id, ok := state.ResolveImage(r, c.Account, e.Region, image); ok {
		image = id
	}
	add("image", image, imageKeys(r, c.Account, image))

	subnets, groups := map[string]bool{}, map[string]bool{}
	nic := func(n api.InstanceNetworkInterfaceSpecification, subnet string, gs []string) {
		if id := wire.Value(n.NetworkInterfaceId); id != "" {
			add("network-interface", id, e.rowKeys(r, c.Account, id))
			if row, ok := state.NetworkInterfaces.Get(r, id); ok && row.Account == c.Account {
				subnet, gs = row.Subnet, row.Groups
			}
		} else {
			keys := tagged("network-interface")
			if n.AssociatePublicIpAddress != nil {
				keys["ec2:AssociatePublicIpAddress"] = flag(*n.AssociatePublicIpAddress)
			}
			if subnet != "" {
				keys["ec2:Subnet"] = []string{*e.arn(c.Account, "subnet", subnet)}
			}
			add("network-interface", "*", keys)
		}
		vpc := ""
		if s, ok := state.Subnets.Get(r, subnet); ok && s.Account == c.Account {
			vpc = s.VPC
		} else if v := defaultVPC(r, c.Account); subnet == "" && v != nil {
			vpc = v.ID
		}
		if len(gs) == 0 {
			if n, ok := state.GroupNames.Get(r, vpc+"/default"); ok {
				gs = []string{n.Group}
			} else {
				gs = []string{"*"}
			}
		}
		if subnet == "" {
			subnet = "*"
		}
		if !subnets[subnet] {
			add("subnet", subnet, e.rowKeys(r, c.Account, subnet))
		}
		subnets[subnet] = true
		for _, g := range gs {
			if !groups[g] {
				add("security-group", g, e.rowKeys(r, c.Account, g))
			}
			groups[g] = true
		}
	}
	if len(in.NetworkInterfaces) == 0 {
		gs := append([]string{}, in.SecurityGroupIds...)
		for _, name := range in.SecurityGroups {
			if g, err := group(r, c.Account, nil, &name); err == nil {
				gs = append(gs, g.ID)
			}
		}
		nic(api.InstanceNetworkInterfaceSpecification{}, wire.Value(in.SubnetId), gs)
	}
	for _, n := range in.NetworkInterfaces {
		nic(n, wire.Value(n.SubnetId), n.Groups)
	}
	add("volume", "*", tagged("volume"))
	if in.KeyName != nil {
		keys := map[string][]string{}
		if k, ok := state.KeyPairs.Get(r, c.Account+"/"+*in.KeyName); ok {
			keys["ec2:KeyPairName"], keys["ec2:KeyPairType"] = []string{k.Name}, []string{k.Type}
			resourceTags(keys, k.Tags)
		}
		add("key-pair", *in.KeyName, keys)
	}
	if t := request.LaunchTemplate; t != nil {
		id, keys := "*", map[string][]string{}
		if row, err := state.Template(r, c.Account, t.LaunchTemplateId, t.LaunchTemplateName); err == nil {
			id = row.ID
			resourceTags(keys, row.Tags)
		}
		add("launch-template", id, keys)
	}
	if o := in.InstanceMarketOptions; o != nil && o.MarketType == "spot" && op == "RunInstances" {
		add("spot-instances-request", "*", tagged("spot-instances-request"))
		for _, k := range []string{"ec2:IsLaunchTemplateResource", "ec2:LaunchTemplate"} {
			delete(out[len(out)-1].Keys, k)
		}
	}
	for _, s := range in.TagSpecifications {
		switch s.ResourceType {
		case "instance", "volume", "network-interface", "spot-instances-request":
		default:
			continue // the operation itself says that there is no such thing
		}
		keys := tagged(string(s.ResourceType))
		keys["ec2:CreateAction"] = []string{op}
		out = append(out, auth.Check{Action: "ec2:CreateTags", Resource: *e.arn(c.Account, string(s.ResourceType), "*"), Keys: keys})
	}
	return out
}

// fromTemplate reports whether the template, and not the request, names the
// resource of the kind.
func fromTemplate(in *api.RunInstancesInput, kind string) bool {
	switch kind {
	case "image":
		return in.ImageId == nil
	case "instance":
		return in.InstanceType == ""
	case "key-pair":
		return in.KeyName == nil
	case "subnet":
		return in.SubnetId == nil && len(in.NetworkInterfaces) == 0
	case "security-group":
		return len(in.SecurityGroupIds)+len(in.SecurityGroups)+len(in.NetworkInterfaces) == 0
	case "network-interface":
		return len(in.NetworkInterfaces) == 0
	case "volume":
		return len(in.BlockDeviceMappings) == 0
	}
	return false
}
