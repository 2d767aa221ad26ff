package state

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/store"
)

// FindTemplate is the version of a launch template that a specification names.
func FindTemplate(r store.Reader, account string, s *ec2.LaunchTemplateSpecification) (*LaunchTemplate, *LaunchTemplateVersion, error) {
	t, err := Template(r, account, s.LaunchTemplateId, s.LaunchTemplateName)
	if err != nil {
		return nil, nil, err
	}
	v, err := t.Version(r, str(s.Version))
	return t, v, err
}

// Template is the launch template of that id or name.
func Template(r store.Reader, account string, id, name *string) (*LaunchTemplate, error) {
	switch {
	case str(id) != "" && str(name) != "":
		return nil, refuse("InvalidParameterCombination", "The parameter LaunchTemplateName cannot be used with the parameter LaunchTemplateId")
	case str(id) != "":
		if !strings.HasPrefix(*id, "lt-") {
			return nil, refuse("InvalidLaunchTemplateId.Malformed", "Invalid id: \"%s\" (expecting \"lt-...\")", *id)
		}
		if t, ok := LaunchTemplates.Get(r, *id); ok && t.Account == account {
			return t, nil
		}
		return nil, refuse("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %s, does not exist.", *id)
	case str(name) != "":
		if n, ok := LaunchTemplateNames.Get(r, account+"/"+*name); ok {
			if t, ok := LaunchTemplates.Get(r, n.Template); ok {
				return t, nil
			}
		}
		return nil, refuse("InvalidLaunchTemplateName.NotFoundException", "The specified launch template, with template name %s, does not exist.", *name)
	}
	return nil, refuse("MissingParameter", "Either the launch template ID or the launch template name must be specified.")
}

// Version is the version that a request names: a number, $Latest, or $Default,
// which is also that of none.
func (t *LaunchTemplate) Version(r store.Reader, s string) (*LaunchTemplateVersion, error) {
	n := t.Default
	switch s {
	case "", "$Default":
	case "$Latest":
		n = t.Latest
	default:
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 {
			return nil, refuse("InvalidLaunchTemplateId.VersionNotFound", "Could not find launch template version %s", s)
		}
	}
	v, ok := LaunchTemplateVersions.Get(r, LaunchTemplateVersionKey(t.ID, n))
	if !ok {
		return nil, refuse("InvalidLaunchTemplateId.VersionNotFound", "Could not find launch template version %s", s)
	}
	return v, nil
}

// MergeTemplate lays a request over the launch template that it names: what it
// says counts, tags by their keys, block devices by their names.
func MergeTemplate(r store.Reader, account string, in *ec2.RunInstancesInput) (*ec2.RunInstancesInput, *LaunchTemplateVersion, error) {
	if in.LaunchTemplate == nil {
		out := *in
		return &out, nil, nil
	}
	_, v, err := FindTemplate(r, account, in.LaunchTemplate)
	if err != nil {
		return nil, nil, err
	}
	out, err := FromTemplate(&v.Data)
	if err != nil {
		return nil, nil, err
	}
	tags, devices := out.TagSpecifications, out.BlockDeviceMappings
	to, from := reflect.ValueOf(out).Elem(), reflect.ValueOf(in).Elem()
	for i := range from.NumField() {
		if !from.Field(i).IsZero() && to.Type().Field(i).Name != "MetadataOptions" {
			to.Field(i).Set(from.Field(i))
		}
	}
	if in.MetadataOptions != nil {
		if out.MetadataOptions == nil {
			out.MetadataOptions = &ec2.InstanceMetadataOptionsRequest{}
		}
		to, from := reflect.ValueOf(out.MetadataOptions).Elem(), reflect.ValueOf(in.MetadataOptions).Elem()
		for i := range from.NumField() {
			if !from.Field(i).IsZero() {
				to.Field(i).Set(from.Field(i))
			}
		}
	}
	// The request's groups replace the template's, by whichever name it calls them.
	if len(in.SecurityGroupIds) > 0 != (len(in.SecurityGroups) > 0) {
		out.SecurityGroupIds, out.SecurityGroups = in.SecurityGroupIds, in.SecurityGroups
	}
	out.TagSpecifications = mergeTags(tags, in.TagSpecifications)
	out.BlockDeviceMappings = slices.Clone(devices)
	for _, m := range in.BlockDeviceMappings {
		if at := slices.IndexFunc(out.BlockDeviceMappings, func(o ec2.BlockDeviceMapping) bool { return str(o.DeviceName) == str(m.DeviceName) }); at >= 0 {
			out.BlockDeviceMappings[at] = m
		} else {
			out.BlockDeviceMappings = append(out.BlockDeviceMappings, m)
		}
	}
	return out, v, nil
}

func mergeTags(base, over []ec2.TagSpecification) []ec2.TagSpecification {
	var out []ec2.TagSpecification
	for _, s := range slices.Concat(base, over) {
		at := slices.IndexFunc(out, func(o ec2.TagSpecification) bool { return o.ResourceType == s.ResourceType })
		if at < 0 {
			out = append(out, ec2.TagSpecification{ResourceType: s.ResourceType, Tags: slices.Clone(s.Tags)})
			continue
		}
		for _, t := range s.Tags {
			if k := slices.IndexFunc(out[at].Tags, func(o ec2.Tag) bool { return str(o.Key) == str(t.Key) }); k >= 0 && len(base) > 0 {
				out[at].Tags[k] = t
			} else {
				out[at].Tags = append(out[at].Tags, t)
			}
		}
	}
	return out
}

// FromTemplate is the request that a template's data stands for. Their members
// have the same names.
func FromTemplate(data *ec2.RequestLaunchTemplateData) (*ec2.RunInstancesInput, error) {
	out := &ec2.RunInstancesInput{}
	b, err := json.Marshal(data)
	if err == nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		return nil, fmt.Errorf("read launch template: %w", err)
	}
	out.RamdiskId, out.ElasticGpuSpecification = data.RamDiskId, data.ElasticGpuSpecifications
	return out, nil
}
