package autoscaling

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func (s *Scaling) configurationARN(account, name string) string {
	return fmt.Sprintf("arn:aws:autoscaling:%s:%s:launchConfiguration:%s:launchConfigurationName/%s", s.Region, account, state.UUID(s.NewID()), name)
}

// CreateLaunchConfiguration makes a launch configuration.
func (s *Scaling) CreateLaunchConfiguration(ctx context.Context, in *api.CreateLaunchConfigurationInput) (*api.CreateLaunchConfigurationOutput, error) {
	me, name := account(ctx), *in.LaunchConfigurationName
	switch {
	case in.ClassicLinkVPCId != nil || len(in.ClassicLinkVPCSecurityGroups) > 0:
		return nil, absent("ClassicLink is")
	case str(in.KernelId) != "" || str(in.RamdiskId) != "":
		return nil, absent("KernelId and RamdiskId: kernels of one's own are")
	case in.InstanceId == nil && (in.ImageId == nil || in.InstanceType == nil):
		return nil, invalid("Valid requests must contain either the InstanceID parameter or both the ImageId and InstanceType parameters.")
	}
	return &api.CreateLaunchConfigurationOutput{}, s.DB.Update(ctx, func(tx *store.Tx) error {
		if state.LaunchConfigurations.Has(tx, me+"/"+name) {
			return &api.AlreadyExistsFault{Message: "Launch Configuration by this name already exists - A launch configuration already exists with the name " + name}
		}
		count := 0
		for range state.LaunchConfigurations.By(tx, "account", me) {
			count++
		}
		if limit := state.Limit(tx, me, "autoscaling/launch-configurations"); count >= limit {
			return &api.LimitExceededFault{Message: fmt.Sprintf("Only %d LaunchConfigurations are allowed.", limit)}
		}
		c := &state.LaunchConfiguration{Account: me, Name: name, Doc: api.LaunchConfiguration{KeyName: new(""), UserData: new(""), KernelId: new(""), RamdiskId: new("")}}
		if in.InstanceId != nil {
			var err error
			if c, err = s.likeInstance(tx, me, *in.InstanceId, name); err != nil {
				return err
			}
		}
		d := &c.Doc
		d.LaunchConfigurationName, d.LaunchConfigurationARN, d.CreatedTime = new(name), new(s.configurationARN(me, name)), new(s.Now())
		set(&d.ImageId, in.ImageId)
		set(&d.InstanceType, in.InstanceType)
		set(&d.KeyName, in.KeyName)
		set(&d.UserData, in.UserData)
		set(&d.IamInstanceProfile, in.IamInstanceProfile)
		set(&d.SpotPrice, in.SpotPrice)
		set(&d.AssociatePublicIpAddress, in.AssociatePublicIpAddress)
		set(&d.PlacementTenancy, in.PlacementTenancy)
		set(&d.MetadataOptions, in.MetadataOptions)
		if len(in.SecurityGroups) > 0 {
			d.SecurityGroups = in.SecurityGroups
		}
		d.SecurityGroups, d.BlockDeviceMappings, d.ClassicLinkVPCSecurityGroups = orEmpty(d.SecurityGroups), orEmpty(in.BlockDeviceMappings), []string{}
		if d.InstanceMonitoring = in.InstanceMonitoring; d.InstanceMonitoring == nil {
			d.InstanceMonitoring = &api.InstanceMonitoring{Enabled: new(true)}
		}
		if d.EbsOptimized = in.EbsOptimized; d.EbsOptimized == nil {
			d.EbsOptimized = new(false)
		}
		switch image, ok := state.ImageOf(tx, str(d.ImageId)); {
		case !strings.HasPrefix(str(d.ImageId), "ami-"):
			return invalid("Invalid id: \"%s\" (expecting \"ami-...\")", str(d.ImageId))
		case !ok || !image.For(me):
			return invalid("The image id '[%s]' does not exist", str(d.ImageId))
		}
		if _, ok := state.InstanceType(str(d.InstanceType)); !ok {
			return invalid("Invalid instance type: %s", str(d.InstanceType))
		}
		if k := str(d.KeyName); k != "" && !state.KeyPairs.Has(tx, me+"/"+k) {
			return invalid("The key pair '%s' does not exist", k)
		}
		for _, id := range d.SecurityGroups {
			if g, ok := state.SecurityGroups.Get(tx, id); !ok || g.Account != me {
				return invalid("The security group '%s' does not exist", id)
			}
		}
		if u := str(d.UserData); u != "" {
			if _, err := state.UserData(u); err != nil {
				return invalid("%s", words(err))
			}
		}
		if p := str(d.IamInstanceProfile); p != "" {
			name := p[strings.LastIndexByte(p, '/')+1:]
			if x, ok := state.InstanceProfiles.Get(tx, state.IAMKey(me, name)); !ok || strings.HasPrefix(p, "arn:") && x.ARN() != p {
				return invalid("Invalid IamInstanceProfile: %s", p)
			}
		}
		state.LaunchConfigurations.Put(tx, c)
		return nil
	})
}

// likeInstance is a launch configuration that makes instances like one there is.
func (s *Scaling) likeInstance(r store.Reader, account, id, name string) (*state.LaunchConfiguration, error) {
	i, ok := state.Instances.Get(r, id)
	if !ok || i.Account != account {
		return nil, invalid("The instance ID '%s' does not exist", id)
	}
	d := api.LaunchConfiguration{LaunchConfigurationName: new(name), LaunchConfigurationARN: new(s.configurationARN(account, name)), CreatedTime: new(s.Now()), ImageId: new(i.Image), InstanceType: new(i.Type),
		KeyName: new(i.KeyName), UserData: new(base64.StdEncoding.EncodeToString(i.UserData)), KernelId: new(""), RamdiskId: new(""), InstanceMonitoring: &api.InstanceMonitoring{Enabled: new(i.Monitoring)},
		EbsOptimized: new(false), BlockDeviceMappings: []api.BlockDeviceMapping{}, ClassicLinkVPCSecurityGroups: []string{}, SecurityGroups: []string{}}
	if i.Profile != "" {
		d.IamInstanceProfile = new(i.Profile)
	}
	for e := range state.NetworkInterfaces.By(r, "instance", id) {
		if e.Attachment.Device == 0 {
			d.SecurityGroups = orEmpty(slices.Clone(e.Groups))
		}
	}
	return &state.LaunchConfiguration{Account: account, Name: name, Doc: d}, nil
}

// DescribeLaunchConfigurations lists launch configurations.
func (s *Scaling) DescribeLaunchConfigurations(ctx context.Context, in *api.DescribeLaunchConfigurationsInput) (*api.DescribeLaunchConfigurationsOutput, error) {
	r, me := s.DB.Snapshot(), account(ctx)
	var rows []*state.LaunchConfiguration
	for c := range state.LaunchConfigurations.By(r, "account", me) {
		if len(in.LaunchConfigurationNames) == 0 || slices.Contains(in.LaunchConfigurationNames, c.Name) {
			rows = append(rows, c)
		}
	}
	slices.SortFunc(rows, func(a, b *state.LaunchConfiguration) int { return strings.Compare(a.Name, b.Name) })
	rows, next, err := pages(s, page.Query{"configurations", me, fmt.Sprint(in.LaunchConfigurationNames)}, rows, func(c *state.LaunchConfiguration) string { return c.Name }, in.NextToken, in.MaxRecords, 50, 100)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeLaunchConfigurationsOutput{LaunchConfigurations: []api.LaunchConfiguration{}, NextToken: next}
	for _, c := range rows {
		out.LaunchConfigurations = append(out.LaunchConfigurations, c.Doc)
	}
	return out, nil
}

// DeleteLaunchConfiguration deletes one that no group uses.
func (s *Scaling) DeleteLaunchConfiguration(ctx context.Context, in *api.DeleteLaunchConfigurationInput) (*api.DeleteLaunchConfigurationOutput, error) {
	me, name := account(ctx), *in.LaunchConfigurationName
	return &api.DeleteLaunchConfigurationOutput{}, s.DB.Update(ctx, func(tx *store.Tx) error {
		if !state.LaunchConfigurations.Has(tx, me+"/"+name) {
			return invalid("Launch configuration name not found - Launch configuration %s not found", name)
		}
		state.ScalingGroups.Guard(tx, me+"/") // a group that comes to use it makes this look again
		for g := range state.ScalingGroups.By(tx, "account", me) {
			if str(g.Doc.LaunchConfigurationName) == name {
				return &api.ResourceInUseFault{Message: "Cannot delete launch configuration " + name + " because it is attached to AutoScalingGroup " + g.Name}
			}
		}
		state.LaunchConfigurations.Delete(tx, me+"/"+name)
		return nil
	})
}
