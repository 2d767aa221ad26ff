package ec2

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var templateName = regexp.MustCompile(`^[a-zA-Z0-9().\-/_]{3,128}$`)

// CreateLaunchTemplate makes a template with its first version.
func (e *EC2) CreateLaunchTemplate(ctx context.Context, in *api.CreateLaunchTemplateInput) (*api.CreateLaunchTemplateOutput, error) {
	account, name := e.Account(ctx), wire.Value(in.LaunchTemplateName)
	if !templateName.MatchString(name) {
		return nil, bad("InvalidLaunchTemplateName.MalformedException", "The specified launch template name, '%s', is not valid. It must have 3 to 128 characters: letters, digits, and ().-/_", name)
	}
	if in.LaunchTemplateData == nil {
		return nil, bad("MissingParameter", "The request must contain the parameter LaunchTemplateData")
	}
	tags, err := tagsFor("launch-template", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	if err := checkTemplate(in.LaunchTemplateData); err != nil {
		return nil, err
	}
	t := &state.LaunchTemplate{ID: e.id("lt"), Account: account, Name: name, Default: 1, Latest: 1, CreatedBy: caller(ctx), ClientToken: wire.Value(in.ClientToken), Tags: tags, CreatedAt: e.Now()}
	out := &api.CreateLaunchTemplateOutput{}
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		if n, taken := state.LaunchTemplateNames.Get(tx, account+"/"+name); taken {
			if old, ok := state.LaunchTemplates.Get(tx, n.Template); ok && old.ClientToken != "" && old.ClientToken == t.ClientToken {
				out.LaunchTemplate = templateView(old)
				return nil
			}
			return bad("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
		}
		n := 0
		for range state.LaunchTemplates.By(tx, "account", account) {
			n++
		}
		if n >= state.Limit(tx, account, "ec2/launch-templates") {
			return bad("LaunchTemplateLimitExceeded", "The maximum number of launch templates has been reached.")
		}
		state.LaunchTemplates.Put(tx, t)
		state.LaunchTemplateNames.Put(tx, &state.LaunchTemplateName{Account: account, Name: name, Template: t.ID})
		state.LaunchTemplateVersions.Put(tx, &state.LaunchTemplateVersion{Template: t.ID, Account: account, Number: 1,
			Description: wire.Value(in.VersionDescription), CreatedBy: t.CreatedBy, Data: *in.LaunchTemplateData, CreatedAt: e.Now()})
		out.LaunchTemplate = templateView(t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// caller is the ARN of who calls.
func caller(ctx context.Context) string {
	if c := auth.FromContext(ctx); c != nil {
		return c.ARN
	}
	return ""
}

func templateView(t *state.LaunchTemplate) *api.LaunchTemplate {
	return &api.LaunchTemplate{LaunchTemplateId: new(t.ID), LaunchTemplateName: new(t.Name), CreateTime: new(t.CreatedAt), CreatedBy: new(t.CreatedBy),
		DefaultVersionNumber: new(int64(t.Default)), LatestVersionNumber: new(int64(t.Latest)), Tags: tagsView(t.Tags)}
}

// checkTemplate refuses data that no launch could use. Whether what it names
// is there is not asked before a launch, as in AWS.
func checkTemplate(d *api.RequestLaunchTemplateData) error {
	if _, err := state.UserData(wire.Value(d.UserData)); err != nil {
		return err
	}
	switch {
	case len(d.NetworkInterfaces) > 0 && len(d.SecurityGroupIds)+len(d.SecurityGroups) > 0:
		return bad("InvalidParameterCombination", "Network interfaces and an instance-level security groups may not be specified on the same request")
	case d.InstanceType != "" && d.InstanceRequirements != nil:
		return bad("InvalidParameterCombination", "InstanceType and InstanceRequirements may not be specified on the same request")
	}
	if id := wire.Value(d.ImageId); id != "" && !strings.HasPrefix(id, "ami-") && !strings.HasPrefix(id, "resolve:ssm:") {
		return bad("InvalidAMIID.Malformed", "Invalid id: \"%s\" (expecting \"ami-...\")", id)
	}
	for _, id := range d.SecurityGroupIds {
		if !strings.HasPrefix(id, "sg-") {
			return bad("InvalidGroupId.Malformed", "Invalid id: \"%s\" (expecting \"sg-...\")", id)
		}
	}
	for _, s := range d.TagSpecifications {
		switch s.ResourceType {
		case "instance", "volume", "network-interface", "spot-instances-request", "elastic-gpu":
		default:
			return bad("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", s.ResourceType)
		}
		for _, t := range s.Tags {
			if err := checkTag(t); err != nil {
				return err
			}
		}
	}
	devices := map[int32]bool{}
	for _, n := range d.NetworkInterfaces {
		if n.DeviceIndex == nil {
			continue
		}
		if devices[*n.DeviceIndex] {
			return bad("InvalidParameterValue", "Each network interface requires a unique device index.")
		}
		devices[*n.DeviceIndex] = true
	}
	return nil
}

// CreateLaunchTemplateVersion adds a version: what is given, over the version
// it is made of, if one is named.
func (e *EC2) CreateLaunchTemplateVersion(ctx context.Context, in *api.CreateLaunchTemplateVersionInput) (*api.CreateLaunchTemplateVersionOutput, error) {
	if in.LaunchTemplateData == nil {
		return nil, bad("MissingParameter", "The request must contain the parameter LaunchTemplateData")
	}
	out := &api.CreateLaunchTemplateVersionOutput{}
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		t, err := state.Template(tx, e.Account(ctx), in.LaunchTemplateId, in.LaunchTemplateName)
		if err != nil {
			return err
		}
		data := *in.LaunchTemplateData
		if in.SourceVersion != nil {
			from, err := t.Version(tx, *in.SourceVersion)
			if err != nil {
				return err
			}
			data = from.Data
			to, over := reflect.ValueOf(&data).Elem(), reflect.ValueOf(in.LaunchTemplateData).Elem()
			for i := range over.NumField() {
				if !over.Field(i).IsZero() {
					to.Field(i).Set(over.Field(i))
				}
			}
		}
		if err := checkTemplate(&data); err != nil {
			return err
		}
		n := 0
		for range state.LaunchTemplateVersions.By(tx, "template", t.ID) {
			n++
		}
		if n >= state.Limit(tx, t.Account, "ec2/launch-template-versions") {
			return bad("VersionLimitExceeded", "The maximum number of versions of the launch template has been reached.")
		}
		next := *t
		next.Latest++
		v := &state.LaunchTemplateVersion{Template: t.ID, Account: t.Account, Number: next.Latest, Description: wire.Value(in.VersionDescription), CreatedBy: caller(ctx), Data: data, CreatedAt: e.Now()}
		state.LaunchTemplates.Put(tx, &next)
		state.LaunchTemplateVersions.Put(tx, v)
		view, err := e.versionView(tx, &next, v, wire.Value(in.ResolveAlias))
		out.LaunchTemplateVersion = &view
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// versionView shows a version. With alias, the image is what its parameter says now.
func (e *EC2) versionView(r store.Reader, t *state.LaunchTemplate, v *state.LaunchTemplateVersion, alias bool) (api.LaunchTemplateVersion, error) {
	data := &api.ResponseLaunchTemplateData{}
	b, err := json.Marshal(v.Data)
	if err == nil {
		err = json.Unmarshal(b, data) // members of both have the same names
	}
	if err != nil {
		return api.LaunchTemplateVersion{}, fmt.Errorf("show version %d of %s: %w", v.Number, t.ID, err)
	}
	if alias && data.ImageId != nil {
		id, ok := state.ResolveImage(r, t.Account, e.Region, *data.ImageId)
		if !ok {
			return api.LaunchTemplateVersion{}, bad("InvalidParameterValue", "The SSM parameter of '%s' could not be resolved to an image.", *data.ImageId)
		}
		data.ImageId = new(id)
	}
	return api.LaunchTemplateVersion{LaunchTemplateId: new(t.ID), LaunchTemplateName: new(t.Name), VersionNumber: new(int64(v.Number)), VersionDescription: optional(v.Description),
		CreateTime: new(v.CreatedAt), CreatedBy: new(v.CreatedBy), DefaultVersion: new(v.Number == t.Default), LaunchTemplateData: data}, nil
}

// ModifyLaunchTemplate chooses the default version.
func (e *EC2) ModifyLaunchTemplate(ctx context.Context, in *api.ModifyLaunchTemplateInput) (*api.ModifyLaunchTemplateOutput, error) {
	out := &api.ModifyLaunchTemplateOutput{}
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		t, err := state.Template(tx, e.Account(ctx), in.LaunchTemplateId, in.LaunchTemplateName)
		if err != nil {
			return err
		}
		next := *t
		if in.DefaultVersion != nil {
			v, err := t.Version(tx, *in.DefaultVersion)
			if err != nil {
				return err
			}
			next.Default = v.Number
			state.LaunchTemplates.Put(tx, &next)
		}
		out.LaunchTemplate = templateView(&next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteLaunchTemplate removes a template and its versions.
func (e *EC2) DeleteLaunchTemplate(ctx context.Context, in *api.DeleteLaunchTemplateInput) (*api.DeleteLaunchTemplateOutput, error) {
	out := &api.DeleteLaunchTemplateOutput{}
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		t, err := state.Template(tx, e.Account(ctx), in.LaunchTemplateId, in.LaunchTemplateName)
		if err != nil {
			return err
		}
		for v := range state.LaunchTemplateVersions.By(tx, "template", t.ID) {
			state.LaunchTemplateVersions.Delete(tx, state.LaunchTemplateVersionKey(v.Template, v.Number))
		}
		state.LaunchTemplateNames.Delete(tx, t.Account+"/"+t.Name)
		state.LaunchTemplates.Delete(tx, t.ID)
		out.LaunchTemplate = templateView(t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteLaunchTemplateVersions removes versions, and says of each whether it could.
func (e *EC2) DeleteLaunchTemplateVersions(ctx context.Context, in *api.DeleteLaunchTemplateVersionsInput) (*api.DeleteLaunchTemplateVersionsOutput, error) {
	if len(in.Versions) > 200 {
		return nil, bad("InvalidParameterValue", "Up to 200 versions may be deleted in a call.")
	}
	var out *api.DeleteLaunchTemplateVersionsOutput
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		out = &api.DeleteLaunchTemplateVersionsOutput{SuccessfullyDeletedLaunchTemplateVersions: []api.DeleteLaunchTemplateVersionsResponseSuccessItem{},
			UnsuccessfullyDeletedLaunchTemplateVersions: []api.DeleteLaunchTemplateVersionsResponseErrorItem{}}
		t, err := state.Template(tx, e.Account(ctx), in.LaunchTemplateId, in.LaunchTemplateName)
		if err != nil {
			return err
		}
		for _, s := range in.Versions {
			n, err := strconv.Atoi(s)
			fail := func(code api.LaunchTemplateErrorCode, message string) {
				out.UnsuccessfullyDeletedLaunchTemplateVersions = append(out.UnsuccessfullyDeletedLaunchTemplateVersions, api.DeleteLaunchTemplateVersionsResponseErrorItem{
					LaunchTemplateId: new(t.ID), LaunchTemplateName: new(t.Name), VersionNumber: new(int64(n)), ResponseError: &api.ResponseError{Code: code, Message: new(message)}})
			}
			if err != nil {
				return bad("InvalidLaunchTemplateId.VersionNotFound", "Could not find launch template version %s", s)
			}
			key := state.LaunchTemplateVersionKey(t.ID, n)
			_, ok := state.LaunchTemplateVersions.Get(tx, key)
			switch {
			case !ok:
				fail("launchTemplateVersionDoesNotExist", fmt.Sprintf("Could not find launch template version %d", n))
			case n == t.Default:
				fail("unexpectedError", "The default version of a launch template cannot be deleted.")
			default:
				state.LaunchTemplateVersions.Delete(tx, key)
				out.SuccessfullyDeletedLaunchTemplateVersions = append(out.SuccessfullyDeletedLaunchTemplateVersions, api.DeleteLaunchTemplateVersionsResponseSuccessItem{
					LaunchTemplateId: new(t.ID), LaunchTemplateName: new(t.Name), VersionNumber: new(int64(n))})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DescribeLaunchTemplates lists templates.
func (e *EC2) DescribeLaunchTemplates(ctx context.Context, in *api.DescribeLaunchTemplatesInput) (*api.DescribeLaunchTemplatesOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	q := request{slices.Clone(in.LaunchTemplateIds), in.Filters, in.MaxResults, in.NextToken}
	for _, name := range in.LaunchTemplateNames {
		t, err := state.Template(snap, account, nil, &name)
		if err != nil {
			return nil, err
		}
		q.ids = append(q.ids, t.ID)
	}
	out, next, err := list(q, kind[*state.LaunchTemplate, api.LaunchTemplate]{
		name: "launch-templates", rows: state.LaunchTemplates.By(snap, "account", account),
		id: func(t *state.LaunchTemplate) string { return t.ID },
		missing: func(id string) error {
			return bad("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %s, does not exist.", id)
		},
		tags: func(t *state.LaunchTemplate) []state.Tag { return t.Tags },
		filters: filters[*state.LaunchTemplate]{
			"create-time":          func(t *state.LaunchTemplate) []string { return instant(t.CreatedAt) },
			"launch-template-name": func(t *state.LaunchTemplate) []string { return one(t.Name) },
		},
		view: func(t *state.LaunchTemplate) api.LaunchTemplate { return *templateView(t) },
	})
	return &api.DescribeLaunchTemplatesOutput{LaunchTemplates: out, NextToken: next}, err
}

// DescribeLaunchTemplateVersions lists the versions of a template, newest
// first, or the $Latest or $Default ones of all.
func (e *EC2) DescribeLaunchTemplateVersions(ctx context.Context, in *api.DescribeLaunchTemplateVersionsInput) (*api.DescribeLaunchTemplateVersionsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	type row struct {
		t *state.LaunchTemplate
		v *state.LaunchTemplateVersion
	}
	var rows []row
	if in.LaunchTemplateId == nil && in.LaunchTemplateName == nil {
		if len(in.Versions) == 0 || slices.ContainsFunc(in.Versions, func(v string) bool { return v != "$Latest" && v != "$Default" }) {
			return nil, bad("MissingParameter", "Either the launch template ID or the launch template name must be specified, or versions of $Latest and $Default.")
		}
		for t := range state.LaunchTemplates.By(snap, "account", account) {
			for _, s := range in.Versions {
				v, err := t.Version(snap, s)
				if err != nil {
					return nil, err
				}
				if !slices.ContainsFunc(rows, func(r row) bool { return r.v == v }) {
					rows = append(rows, row{t, v})
				}
			}
		}
	} else {
		t, err := state.Template(snap, account, in.LaunchTemplateId, in.LaunchTemplateName)
		if err != nil {
			return nil, err
		}
		var some []*state.LaunchTemplateVersion
		for _, s := range in.Versions {
			v, err := t.Version(snap, s)
			if err != nil {
				return nil, err
			}
			some = append(some, v)
		}
		low, high := 0, t.Latest
		for _, edge := range []struct {
			s  *string
			to *int
		}{{in.MinVersion, &low}, {in.MaxVersion, &high}} {
			if edge.s != nil {
				if *edge.to, err = strconv.Atoi(*edge.s); err != nil {
					return nil, bad("InvalidParameterValue", "Value (%s) is no version number.", *edge.s)
				}
			}
		}
		for v := range state.LaunchTemplateVersions.By(snap, "template", t.ID) {
			if v.Number >= low && v.Number <= high && (len(some) == 0 || slices.Contains(some, v)) {
				rows = append(rows, row{t, v})
			}
		}
	}
	id := func(r row) string { return fmt.Sprintf("%s/%08d", r.t.ID, 99_999_999-r.v.Number) } // newest first
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(id(a), id(b)) })
	text := func(f func(*api.RequestLaunchTemplateData) *string) func(row) []string {
		return func(r row) []string { return one(wire.Value(f(&r.v.Data))) }
	}
	scope := fmt.Sprint(wire.Value(in.LaunchTemplateId), wire.Value(in.LaunchTemplateName), in.Versions, wire.Value(in.MinVersion), wire.Value(in.MaxVersion))
	var broken error
	out, next, err := list(request{nil, in.Filters, in.MaxResults, in.NextToken}, kind[row, api.LaunchTemplateVersion]{
		name: "launch-template-versions/" + scope, rows: slices.Values(rows), id: id, missing: nil,
		filters: filters[row]{
			"create-time":   func(r row) []string { return instant(r.v.CreatedAt) },
			"ebs-optimized": func(r row) []string { return flag(wire.Value(r.v.Data.EbsOptimized)) },
			"http-endpoint": func(r row) []string {
				return metadataText(r.v, func(o *api.LaunchTemplateInstanceMetadataOptionsRequest) string { return string(o.HttpEndpoint) })
			},
			"http-protocol-ipv4": func(r row) []string { return one("enabled") },
			"http-tokens": func(r row) []string {
				return metadataText(r.v, func(o *api.LaunchTemplateInstanceMetadataOptionsRequest) string { return string(o.HttpTokens) })
			},
			"iam-instance-profile": text(func(d *api.RequestLaunchTemplateData) *string {
				if d.IamInstanceProfile == nil {
					return nil
				}
				return d.IamInstanceProfile.Arn
			}),
			"image-id":           text(func(d *api.RequestLaunchTemplateData) *string { return d.ImageId }),
			"instance-type":      func(r row) []string { return one(string(r.v.Data.InstanceType)) },
			"is-default-version": func(r row) []string { return flag(r.v.Number == r.t.Default) },
			"kernel-id":          text(func(d *api.RequestLaunchTemplateData) *string { return d.KernelId }),
			"license-configuration-arn": func(r row) []string {
				return each(r.v.Data.LicenseSpecifications, func(l api.LaunchTemplateLicenseConfigurationRequest) []string {
					return one(wire.Value(l.LicenseConfigurationArn))
				})
			},
			"network-card-index": func(r row) []string {
				return each(r.v.Data.NetworkInterfaces, func(n api.LaunchTemplateInstanceNetworkInterfaceSpecificationRequest) []string {
					return number(int(wire.Value(n.NetworkCardIndex)))
				})
			},
			"ram-disk-id": text(func(d *api.RequestLaunchTemplateData) *string { return d.RamDiskId }),
		},
		view: func(r row) api.LaunchTemplateVersion {
			v, err := e.versionView(snap, r.t, r.v, wire.Value(in.ResolveAlias))
			if err != nil {
				broken = err
			}
			return v
		},
	})
	if err == nil {
		err = broken
	}
	return &api.DescribeLaunchTemplateVersionsOutput{LaunchTemplateVersions: out, NextToken: next}, err
}

func metadataText(v *state.LaunchTemplateVersion, of func(*api.LaunchTemplateInstanceMetadataOptionsRequest) string) []string {
	if v.Data.MetadataOptions == nil {
		return nil
	}
	return one(of(v.Data.MetadataOptions))
}

// GetLaunchTemplateData is what a template must say to make an instance like this one.
func (e *EC2) GetLaunchTemplateData(ctx context.Context, in *api.GetLaunchTemplateDataInput) (*api.GetLaunchTemplateDataOutput, error) {
	snap := e.DB.Snapshot()
	i, err := instance(snap, e.Account(ctx), wire.Value(in.InstanceId))
	if err != nil {
		return nil, err
	}
	o := i.Options
	o.NetworkInterfaces, o.SecurityGroupIds, o.SecurityGroups, o.SubnetId, o.PrivateIpAddress = nil, nil, nil, nil, nil
	out := &api.ResponseLaunchTemplateData{}
	b, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		return nil, fmt.Errorf("template of %s: %w", i.ID, err)
	}
	out.ImageId, out.InstanceType, out.KeyName = new(i.Image), api.InstanceType(i.Type), optional(i.KeyName)
	out.EbsOptimized, out.Monitoring = new(wire.Value(o.EbsOptimized)), &api.LaunchTemplatesMonitoring{Enabled: new(i.Monitoring)}
	out.DisableApiTermination, out.DisableApiStop, out.InstanceInitiatedShutdownBehavior = new(i.KeepFromTermination), new(i.KeepFromStop), api.ShutdownBehavior(i.OnShutdown)
	if len(i.UserData) > 0 {
		out.UserData = new(base64.StdEncoding.EncodeToString(i.UserData))
	}
	out.IamInstanceProfile = nil
	if i.Profile != "" {
		out.IamInstanceProfile = &api.LaunchTemplateIamInstanceProfileSpecification{Arn: new(i.Profile)}
	}
	m := metadataView(i.Metadata)
	out.MetadataOptions = &api.LaunchTemplateInstanceMetadataOptions{State: "applied", HttpTokens: api.LaunchTemplateHttpTokensState(m.HttpTokens), HttpPutResponseHopLimit: m.HttpPutResponseHopLimit,
		HttpEndpoint: api.LaunchTemplateInstanceMetadataEndpointState(m.HttpEndpoint), HttpProtocolIpv6: api.LaunchTemplateInstanceMetadataProtocolIpv6(m.HttpProtocolIpv6), InstanceMetadataTags: api.LaunchTemplateInstanceMetadataTagsState(m.InstanceMetadataTags)}
	out.Placement = &api.LaunchTemplatePlacement{AvailabilityZone: new(i.Zone), Tenancy: "default", GroupName: new("")}
	if p := o.Placement; p != nil {
		out.Placement.GroupName, out.Placement.PartitionNumber = new(wire.Value(p.GroupName)), p.PartitionNumber
		if p.Tenancy != "" {
			out.Placement.Tenancy = p.Tenancy
		}
	}
	for _, n := range devices(snap, i.ID) {
		spec := api.LaunchTemplateInstanceNetworkInterfaceSpecification{DeviceIndex: new(int32(n.Attachment.Device)), DeleteOnTermination: new(n.Attachment.DeleteOnTermination),
			Description: new(n.Description), Groups: n.Groups, SubnetId: new(n.Subnet), NetworkInterfaceId: nil, NetworkCardIndex: new(int32(0)), InterfaceType: new("interface"), Ipv6Addresses: []api.InstanceIpv6Address{}}
		if n.Attachment.Device == 0 {
			spec.AssociatePublicIpAddress = new(i.PublicIP)
		}
		spec.PrivateIpAddresses = []api.PrivateIpAddressSpecification{{Primary: new(true), PrivateIpAddress: new(n.Address.String())}}
		out.NetworkInterfaces = append(out.NetworkInterfaces, spec)
	}
	if tags := userTags(i.Tags); len(tags) > 0 {
		out.TagSpecifications = append(out.TagSpecifications, api.LaunchTemplateTagSpecification{ResourceType: "instance", Tags: tagsView(tags)})
	}
	return &api.GetLaunchTemplateDataOutput{LaunchTemplateData: out}, nil
}

// userTags are the tags that are not AWS's own.
func userTags(ts []state.Tag) []state.Tag {
	return slices.DeleteFunc(slices.Clone(ts), func(t state.Tag) bool { return strings.HasPrefix(t.Key, "aws:") })
}
