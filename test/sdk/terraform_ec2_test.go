package sdk

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	systems "github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

func TestTerraformPrefixList(t *testing.T) {
	t.Parallel()
	c, ctx := w.ec2, t.Context()
	id := must[*ec2.CreateManagedPrefixListOutput](t)(c.CreateManagedPrefixList(ctx, &ec2.CreateManagedPrefixListInput{PrefixListName: new("tf"), AddressFamily: new("IPv4"), MaxEntries: new(int32(4)),
		Entries: []types.AddPrefixListEntry{{Cidr: new("10.0.0.0/8"), Description: new("ten")}}, TagSpecifications: machineTags(types.ResourceTypePrefixList)})).PrefixList.PrefixListId
	r := resource{func() (any, error) {
		out, err := c.DescribeManagedPrefixLists(ctx, &ec2.DescribeManagedPrefixListsInput{PrefixListIds: []string{*id}})
		if err != nil {
			return nil, err
		}
		return out.PrefixLists[0], nil
	}, "InvalidPrefixListID.NotFound"}
	want := types.ManagedPrefixList{PrefixListId: id, PrefixListName: new("tf"), AddressFamily: new("IPv4"), MaxEntries: new(int32(4)), OwnerId: &w.Account, State: types.PrefixListStateCreateComplete, Version: new(int64(1)),
		PrefixListArn: new("arn:aws:ec2:us-east-1:" + w.Account + ":prefix-list/" + *id), Tags: machineTags("")[0].Tags}
	r.same(t, want)
	done(t)(c.ModifyManagedPrefixList(ctx, &ec2.ModifyManagedPrefixListInput{PrefixListId: id, CurrentVersion: new(int64(1)), AddEntries: []types.AddPrefixListEntry{{Cidr: new("172.16.0.0/12")}}}))
	want.State, want.Version = types.PrefixListStateModifyComplete, new(int64(2))
	r.same(t, want)
	resource{read: func() (any, error) {
		out, err := c.GetManagedPrefixListEntries(ctx, &ec2.GetManagedPrefixListEntriesInput{PrefixListId: id})
		if err != nil {
			return nil, err
		}
		return out.Entries, nil
	}}.same(t, []types.PrefixListEntry{{Cidr: new("10.0.0.0/8"), Description: new("ten")}, {Cidr: new("172.16.0.0/12")}})
	done(t)(c.DeleteManagedPrefixList(ctx, &ec2.DeleteManagedPrefixListInput{PrefixListId: id}))
	r.isGone(t)
}

func TestTerraformFlowLog(t *testing.T) {
	t.Parallel()
	c, ctx := w.ec2, t.Context()
	arn := role(t, "tf-flows", "vpc-flow-logs.amazonaws.com")
	made := must[*ec2.CreateFlowLogsOutput](t)(c.CreateFlowLogs(ctx, &ec2.CreateFlowLogsInput{ResourceType: types.FlowLogsResourceTypeSubnet, ResourceIds: w.subnets[1:2], TrafficType: types.TrafficTypeReject,
		LogDestinationType: types.LogDestinationTypeCloudWatchLogs, LogDestination: new("arn:aws:logs:us-east-1:" + w.Account + ":log-group:/tf/flows"), DeliverLogsPermissionArn: &arn, TagSpecifications: machineTags(types.ResourceTypeVpcFlowLog)}))
	id := made.FlowLogIds[0]
	r := resource{read: func() (any, error) {
		out, err := c.DescribeFlowLogs(ctx, &ec2.DescribeFlowLogsInput{Filter: []types.Filter{{Name: new("flow-log-id"), Values: []string{id}}}})
		if err != nil {
			return nil, err
		}
		for i := range out.FlowLogs {
			if out.FlowLogs[i].CreationTime == nil {
				t.Error("it does not say when")
			}
			// How delivery goes is no attribute.
			f := &out.FlowLogs[i]
			f.CreationTime, f.DeliverLogsStatus, f.DeliverLogsErrorMessage = nil, nil, nil
		}
		return out.FlowLogs, nil
	}}
	r.same(t, []types.FlowLog{{FlowLogId: &id, FlowLogStatus: new("ACTIVE"), ResourceId: &w.subnets[1], TrafficType: types.TrafficTypeReject, LogDestinationType: types.LogDestinationTypeCloudWatchLogs,
		LogDestination: new("arn:aws:logs:us-east-1:" + w.Account + ":log-group:/tf/flows"), LogGroupName: new("/tf/flows"), DeliverLogsPermissionArn: &arn, MaxAggregationInterval: new(int32(600)), Tags: machineTags("")[0].Tags,
		LogFormat: new("${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} ${start} ${end} ${action} ${log-status}")}})
	done(t)(c.DeleteFlowLogs(ctx, &ec2.DeleteFlowLogsInput{FlowLogIds: []string{id}}))
	r.same(t, []types.FlowLog{})
}

func TestTerraformKeyPair(t *testing.T) {
	t.Parallel()
	c, ctx := w.ec2, t.Context()
	const public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUZPoEBmQvFtDiiwLSGFtIb9vN/vYWFNKxLO3hGYNnw me@here"
	made := must[*ec2.ImportKeyPairOutput](t)(c.ImportKeyPair(ctx, &ec2.ImportKeyPairInput{KeyName: new("tf"), PublicKeyMaterial: []byte(public), TagSpecifications: machineTags(types.ResourceTypeKeyPair)}))
	r := resource{func() (any, error) {
		out, err := c.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{KeyNames: []string{"tf"}, IncludePublicKey: new(true)})
		if err != nil {
			return nil, err
		}
		if out.KeyPairs[0].CreateTime == nil {
			t.Error("it does not say when")
		}
		out.KeyPairs[0].CreateTime = nil
		return out.KeyPairs[0], nil
	}, "InvalidKeyPair.NotFound"}
	r.same(t, types.KeyPairInfo{KeyName: new("tf"), KeyPairId: made.KeyPairId, KeyFingerprint: made.KeyFingerprint, KeyType: types.KeyTypeEd25519, PublicKey: new(public), Tags: machineTags("")[0].Tags})
	done(t)(c.DeleteKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyName: new("tf")}))
	r.isGone(t)
}

func TestTerraformLaunchTemplate(t *testing.T) {
	t.Parallel()
	c, ctx := w.ec2, t.Context()
	data := &types.RequestLaunchTemplateData{ImageId: &w.machine, InstanceType: types.InstanceTypeT3Micro, UserData: new("IyEvYmluL3No"), EbsOptimized: new(true), SecurityGroupIds: []string{w.group},
		MetadataOptions:     &types.LaunchTemplateInstanceMetadataOptionsRequest{HttpTokens: types.LaunchTemplateHttpTokensStateRequired, HttpPutResponseHopLimit: new(int32(2))},
		BlockDeviceMappings: []types.LaunchTemplateBlockDeviceMappingRequest{{DeviceName: new("/dev/xvda"), Ebs: &types.LaunchTemplateEbsBlockDeviceRequest{VolumeSize: new(int32(40)), VolumeType: types.VolumeTypeGp3}}},
		TagSpecifications:   []types.LaunchTemplateTagSpecificationRequest{{ResourceType: types.ResourceTypeInstance, Tags: machineTags("")[0].Tags}}}
	id := must[*ec2.CreateLaunchTemplateOutput](t)(c.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: new("tf-template"), VersionDescription: new("first"), LaunchTemplateData: data,
		TagSpecifications: machineTags(types.ResourceTypeLaunchTemplate)})).LaunchTemplate.LaunchTemplateId
	by := new("arn:aws:iam::" + w.Account + ":root")
	r := resource{func() (any, error) {
		out, err := c.DescribeLaunchTemplates(ctx, &ec2.DescribeLaunchTemplatesInput{LaunchTemplateIds: []string{*id}})
		if err != nil {
			return nil, err
		}
		out.LaunchTemplates[0].CreateTime = nil
		return out.LaunchTemplates[0], nil
	}, "InvalidLaunchTemplateId.NotFound"}
	r.same(t, types.LaunchTemplate{LaunchTemplateId: id, LaunchTemplateName: new("tf-template"), CreatedBy: by, DefaultVersionNumber: new(int64(1)), LatestVersionNumber: new(int64(1)), Tags: machineTags("")[0].Tags})
	v := resource{func() (any, error) {
		out, err := c.DescribeLaunchTemplateVersions(ctx, &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: id, Versions: []string{"$Latest"}})
		if err != nil {
			return nil, err
		}
		out.LaunchTemplateVersions[0].CreateTime = nil
		return out.LaunchTemplateVersions[0], nil
	}, "InvalidLaunchTemplateId.NotFound"}
	v.same(t, types.LaunchTemplateVersion{LaunchTemplateId: id, LaunchTemplateName: new("tf-template"), VersionNumber: new(int64(1)), VersionDescription: new("first"), CreatedBy: by, DefaultVersion: new(true),
		LaunchTemplateData: &types.ResponseLaunchTemplateData{ImageId: &w.machine, InstanceType: types.InstanceTypeT3Micro, UserData: new("IyEvYmluL3No"), EbsOptimized: new(true), SecurityGroupIds: []string{w.group},
			MetadataOptions:     &types.LaunchTemplateInstanceMetadataOptions{HttpTokens: types.LaunchTemplateHttpTokensStateRequired, HttpPutResponseHopLimit: new(int32(2))},
			BlockDeviceMappings: []types.LaunchTemplateBlockDeviceMapping{{DeviceName: new("/dev/xvda"), Ebs: &types.LaunchTemplateEbsBlockDevice{VolumeSize: new(int32(40)), VolumeType: types.VolumeTypeGp3}}},
			TagSpecifications:   []types.LaunchTemplateTagSpecification{{ResourceType: types.ResourceTypeInstance, Tags: machineTags("")[0].Tags}}}})
	done(t)(c.DeleteLaunchTemplate(ctx, &ec2.DeleteLaunchTemplateInput{LaunchTemplateId: id}))
	r.isGone(t)
	v.isGone(t)
}

func TestTerraformParameter(t *testing.T) {
	t.Parallel()
	c, ctx := w.ssm, t.Context()
	name, arn := new("/tf/parameter"), new("arn:aws:ssm:us-east-1:"+w.Account+":parameter/tf/parameter")
	r := resource{func() (any, error) {
		out, err := c.GetParameter(ctx, &ssm.GetParameterInput{Name: name, WithDecryption: new(true)})
		if err != nil {
			return nil, err
		}
		if out.Parameter.LastModifiedDate == nil {
			t.Error("it does not say when")
		}
		out.Parameter.LastModifiedDate = nil
		return out.Parameter, nil
	}, "ParameterNotFound"}
	r.isGone(t)
	done(t)(c.PutParameter(ctx, &ssm.PutParameterInput{Name: name, Type: systems.ParameterTypeSecureString, Value: new("hidden"), Description: new("by hand"), AllowedPattern: new("^h"),
		Tags: []systems.Tag{{Key: new("zone"), Value: new("b")}, {Key: new("app"), Value: new("a")}}}))
	want := systems.Parameter{Name: name, ARN: arn, Type: systems.ParameterTypeSecureString, Value: new("hidden"), Version: 1, DataType: new("text")}
	r.same(t, want)
	resource{read: func() (any, error) {
		out, err := c.DescribeParameters(ctx, &ssm.DescribeParametersInput{ParameterFilters: []systems.ParameterStringFilter{{Key: new("Name"), Option: new("Equals"), Values: []string{*name}}}})
		if err != nil {
			return nil, err
		}
		for i := range out.Parameters {
			out.Parameters[i].LastModifiedDate = nil
		}
		return out.Parameters, nil
	}}.same(t, []systems.ParameterMetadata{{Name: name, ARN: arn, Type: systems.ParameterTypeSecureString, KeyId: new("alias/aws/ssm"), Description: new("by hand"), AllowedPattern: new("^h"), Version: 1, DataType: new("text"),
		Tier: systems.ParameterTierStandard, Policies: []systems.ParameterInlinePolicy{}, LastModifiedUser: new("arn:aws:iam::" + w.Account + ":root")}})
	done(t)(c.PutParameter(ctx, &ssm.PutParameterInput{Name: name, Type: systems.ParameterTypeSecureString, Value: new("hoard"), Overwrite: new(true)}))
	want.Value, want.Version = new("hoard"), 2
	r.same(t, want)
	done(t)(c.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: name}))
	r.isGone(t)
}
