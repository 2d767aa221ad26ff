package sdk

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func tags() []types.Tag {
	return []types.Tag{{Key: new("zone"), Value: new("b")}, {Key: new("app"), Value: new("a")}}
}

func TestTerraformCluster(t *testing.T) {
	t.Parallel()
	c, ctx := w.ecs, t.Context()
	name, arn := new("tf-cluster"), new("arn:aws:ecs:us-east-1:"+w.Account+":cluster/tf-cluster")
	r := resource{func() (any, error) {
		out, err := c.DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: []string{*arn}, Include: []types.ClusterField{
			types.ClusterFieldTags, types.ClusterFieldConfigurations, types.ClusterFieldSettings}})
		if err != nil || len(out.Clusters) == 0 {
			return out, err
		}
		return out.Clusters[0], nil
	}, ""}
	configuration := &types.ClusterConfiguration{ExecuteCommandConfiguration: &types.ExecuteCommandConfiguration{
		KmsKeyId: new("key"), Logging: types.ExecuteCommandLoggingOverride,
		LogConfiguration: &types.ExecuteCommandLogConfiguration{CloudWatchLogGroupName: new("/exec"), CloudWatchEncryptionEnabled: true},
	}}
	done(t)(c.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: name, Tags: tags(), Configuration: configuration,
		Settings: []types.ClusterSetting{{Name: types.ClusterSettingNameContainerInsights, Value: new("enabled")}}}))
	want := types.Cluster{ClusterName: name, ClusterArn: arn, Status: new("ACTIVE"), Tags: tags(), Configuration: configuration,
		Settings:          []types.ClusterSetting{{Name: types.ClusterSettingNameContainerInsights, Value: new("enabled")}},
		CapacityProviders: []string{}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}, Statistics: []types.KeyValuePair{}}
	r.same(t, want)

	// aws_ecs_cluster_capacity_providers
	strategy := []types.CapacityProviderStrategyItem{{CapacityProvider: new("FARGATE_SPOT"), Weight: 4}, {CapacityProvider: new("FARGATE"), Base: 1, Weight: 1}}
	done(t)(c.PutClusterCapacityProviders(ctx, &ecs.PutClusterCapacityProvidersInput{Cluster: name, CapacityProviders: []string{"FARGATE_SPOT", "FARGATE"}, DefaultCapacityProviderStrategy: strategy}))
	want.CapacityProviders, want.DefaultCapacityProviderStrategy = []string{"FARGATE_SPOT", "FARGATE"}, strategy
	r.same(t, want)
	done(t)(c.PutClusterCapacityProviders(ctx, &ecs.PutClusterCapacityProvidersInput{Cluster: name, CapacityProviders: []string{}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}}))
	want.CapacityProviders, want.DefaultCapacityProviderStrategy = []string{}, []types.CapacityProviderStrategyItem{}

	done(t)(c.UpdateCluster(ctx, &ecs.UpdateClusterInput{Cluster: name, Settings: []types.ClusterSetting{{Name: types.ClusterSettingNameContainerInsights, Value: new("disabled")}}}))
	want.Settings[0].Value = new("disabled")
	done(t)(c.TagResource(ctx, &ecs.TagResourceInput{ResourceArn: arn, Tags: []types.Tag{{Key: new("app"), Value: new("c")}}}))
	done(t)(c.UntagResource(ctx, &ecs.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"zone"}}))
	want.Tags = []types.Tag{{Key: new("app"), Value: new("c")}}
	r.same(t, want)

	done(t)(c.DeleteCluster(ctx, &ecs.DeleteClusterInput{Cluster: name}))
	if got := must[*ecs.DescribeClustersOutput](t)(c.DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: []string{*arn}})); len(got.Clusters) > 0 && *got.Clusters[0].Status != "INACTIVE" {
		t.Errorf("a deleted cluster is %s", *got.Clusters[0].Status)
	}
	missing := must[*ecs.DescribeClustersOutput](t)(c.DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: []string{"tf-none"}}))
	if len(missing.Failures) != 1 || *missing.Failures[0].Reason != "MISSING" {
		t.Errorf("a cluster that never was: %+v", missing)
	}

	// With nothing said.
	done(t)(c.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: name}))
	r.same(t, types.Cluster{ClusterName: name, ClusterArn: arn, Status: new("ACTIVE"), Tags: []types.Tag{}, CapacityProviders: []string{},
		DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}, Settings: []types.ClusterSetting{{Name: types.ClusterSettingNameContainerInsights, Value: new("disabled")}}, Statistics: []types.KeyValuePair{}})
}

func TestTerraformTaskDefinition(t *testing.T) {
	t.Parallel()
	c, ctx := w.ecs, t.Context()
	full := types.ContainerDefinition{
		Name: new("web"), Image: &w.image, Cpu: 64, Memory: new(int32(256)), MemoryReservation: new(int32(128)), Essential: new(true),
		Command: []string{"serve", "80"}, EntryPoint: []string{"/box"}, WorkingDirectory: new("/"), User: new("0"),
		// Neither is sorted: the order is the user's.
		Environment:            []types.KeyValuePair{{Name: new("Z"), Value: new("1")}, {Name: new("A"), Value: new("2")}},
		Secrets:                []types.Secret{{Name: new("S"), ValueFrom: new("arn:aws:ssm:us-east-1:" + w.Account + ":parameter/s")}},
		PortMappings:           []types.PortMapping{{ContainerPort: new(int32(80)), HostPort: new(int32(80)), Protocol: types.TransportProtocolTcp}, {ContainerPort: new(int32(53)), HostPort: new(int32(53)), Protocol: types.TransportProtocolUdp}},
		MountPoints:            []types.MountPoint{{SourceVolume: new("data"), ContainerPath: new("/data"), ReadOnly: new(true)}},
		VolumesFrom:            []types.VolumeFrom{},
		DependsOn:              []types.ContainerDependency{{ContainerName: new("init"), Condition: types.ContainerConditionSuccess}},
		DockerLabels:           map[string]string{"z": "1", "a": "2"},
		HealthCheck:            &types.HealthCheck{Command: []string{"CMD", "/box", "exit", "0"}, Interval: new(int32(10)), Timeout: new(int32(2)), Retries: new(int32(1)), StartPeriod: new(int32(5))},
		LinuxParameters:        &types.LinuxParameters{InitProcessEnabled: new(true), Capabilities: &types.KernelCapabilities{Drop: []string{"ALL"}}},
		LogConfiguration:       &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{"awslogs-group": "/tf", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "x"}, SecretOptions: []types.Secret{}},
		ReadonlyRootFilesystem: new(true), StartTimeout: new(int32(30)), StopTimeout: new(int32(20)), Interactive: new(true), PseudoTerminal: new(true),
		Ulimits:        []types.Ulimit{{Name: types.UlimitNameNofile, SoftLimit: 1024, HardLimit: 4096}},
		SystemControls: []types.SystemControl{{Namespace: new("net.core.somaxconn"), Value: new("1024")}},
		RestartPolicy:  &types.ContainerRestartPolicy{Enabled: new(true), IgnoredExitCodes: []int32{0}, RestartAttemptPeriod: new(int32(60))},
	}
	small := types.ContainerDefinition{Name: new("init"), Image: &w.image, Essential: new(false)}
	in := &ecs.RegisterTaskDefinitionInput{
		Family: new("tf-task"), Cpu: new("512"), Memory: new("1024"), NetworkMode: types.NetworkModeAwsvpc, ExecutionRoleArn: &w.exec, TaskRoleArn: &w.exec,
		RequiresCompatibilities: []types.Compatibility{types.CompatibilityFargate},
		ContainerDefinitions:    []types.ContainerDefinition{full, small},
		Volumes:                 []types.Volume{{Name: new("data")}, {Name: new("cache")}},
		EphemeralStorage:        &types.EphemeralStorage{SizeInGiB: 30},
		RuntimePlatform:         &types.RuntimePlatform{CpuArchitecture: types.CPUArchitectureX8664, OperatingSystemFamily: types.OSFamilyLinux},
		PidMode:                 types.PidModeTask, Tags: tags(),
	}
	made := must[*ecs.RegisterTaskDefinitionOutput](t)(c.RegisterTaskDefinition(ctx, in))
	arn := made.TaskDefinition.TaskDefinitionArn
	var tagged []types.Tag
	r := resource{func() (any, error) {
		out, err := c.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: arn, Include: []types.TaskDefinitionField{types.TaskDefinitionFieldTags}})
		if err != nil {
			return nil, err
		}
		tagged = out.Tags
		// What AWS finds out and Terraform does not compare.
		d := *out.TaskDefinition
		if d.RegisteredAt == nil || d.RegisteredBy == nil || len(d.RequiresAttributes) == 0 {
			t.Errorf("it does not say when, by whom and on what: %+v", d)
		}
		d.RegisteredAt, d.RegisteredBy, d.RequiresAttributes = nil, nil, nil
		return d, nil
	}, "ClientException"}
	// A container of which little was said shows the defaults that the provider
	// takes away before it compares.
	small.PortMappings, small.Environment, small.MountPoints = []types.PortMapping{}, []types.KeyValuePair{}, []types.MountPoint{}
	small.VolumesFrom, small.SystemControls = []types.VolumeFrom{}, []types.SystemControl{}
	want := types.TaskDefinition{
		TaskDefinitionArn: arn, Family: in.Family, Revision: 1, Status: types.TaskDefinitionStatusActive, Cpu: in.Cpu, Memory: in.Memory, NetworkMode: in.NetworkMode,
		ExecutionRoleArn: in.ExecutionRoleArn, TaskRoleArn: in.TaskRoleArn, RequiresCompatibilities: in.RequiresCompatibilities,
		Compatibilities:      []types.Compatibility{types.CompatibilityFargate}, // no other has ephemeral storage
		ContainerDefinitions: []types.ContainerDefinition{full, small},
		Volumes:              []types.Volume{{Name: new("data"), Host: &types.HostVolumeProperties{}}, {Name: new("cache"), Host: &types.HostVolumeProperties{}}},
		EphemeralStorage:     in.EphemeralStorage, RuntimePlatform: in.RuntimePlatform, PidMode: in.PidMode, PlacementConstraints: []types.TaskDefinitionPlacementConstraint{},
	}
	r.same(t, want)
	if encode(t, tagged) != encode(t, tags()) {
		t.Errorf("tags %s", encode(t, tagged))
	}

	done(t)(c.DeregisterTaskDefinition(ctx, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: arn}))
	if d := must[*ecs.DescribeTaskDefinitionOutput](t)(c.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: arn})).TaskDefinition; d.Status != types.TaskDefinitionStatusInactive || d.DeregisteredAt == nil {
		t.Errorf("after the end it is %s", d.Status)
	}
	done(t)(c.DeleteTaskDefinitions(ctx, &ecs.DeleteTaskDefinitionsInput{TaskDefinitions: []string{*arn}}))
	arn = new("tf-never")
	r.isGone(t)

	// With nothing said.
	least := must[*ecs.RegisterTaskDefinitionOutput](t)(c.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("tf-least"),
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("a"), Image: new("busybox"), Memory: new(int32(64)), PortMappings: []types.PortMapping{{ContainerPort: new(int32(80))}}}}}))
	arn = least.TaskDefinition.TaskDefinitionArn
	r.same(t, types.TaskDefinition{
		TaskDefinitionArn: arn, Family: new("tf-least"), Revision: 1, Status: types.TaskDefinitionStatusActive,
		Compatibilities: []types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2}, Volumes: []types.Volume{}, PlacementConstraints: []types.TaskDefinitionPlacementConstraint{},
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("a"), Image: new("busybox"), Memory: new(int32(64)), Essential: new(true),
			PortMappings: []types.PortMapping{{ContainerPort: new(int32(80)), HostPort: new(int32(0)), Protocol: types.TransportProtocolTcp}},
			Environment:  []types.KeyValuePair{}, MountPoints: []types.MountPoint{}, VolumesFrom: []types.VolumeFrom{}, SystemControls: []types.SystemControl{}}},
	})
}

func TestTerraformService(t *testing.T) {
	t.Parallel()
	c, ctx := w.ecs, t.Context()
	one, two := define(t, "tf-service", "term"), define(t, "tf-service", "term")
	cluster := must[*ecs.CreateClusterOutput](t)(c.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("tf-services")})).Cluster.ClusterArn
	name := new("tf-service")
	r := resource{func() (any, error) {
		out, err := c.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: cluster, Services: []string{*name}, Include: []types.ServiceField{types.ServiceFieldTags}})
		if err != nil || len(out.Services) != 1 {
			return out, err
		}
		s := out.Services[0]
		if s.CreatedAt == nil || s.CreatedBy == nil || s.RoleArn == nil || len(s.Deployments) != 1 {
			t.Errorf("it lacks what happened: %s", encode(t, s))
		}
		// What happens to it is no attribute.
		s.CreatedAt, s.CreatedBy, s.RoleArn, s.Deployments, s.Events = nil, nil, nil, nil, nil
		s.CurrentServiceDeployment, s.CurrentServiceRevisions = nil, nil
		return s, nil
	}, "ClusterNotFoundException"}
	net := &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: w.subnets[:2], SecurityGroups: []string{w.group}, AssignPublicIp: types.AssignPublicIpDisabled}}
	in := &ecs.CreateServiceInput{
		Cluster: cluster, ServiceName: name, TaskDefinition: &one, DesiredCount: new(int32(0)), PlatformVersion: new("1.4.0"), NetworkConfiguration: net,
		CapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: new("FARGATE"), Weight: 1, Base: 1}},
		DeploymentConfiguration: &types.DeploymentConfiguration{MaximumPercent: new(int32(150)), MinimumHealthyPercent: new(int32(50)),
			DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}},
		DeploymentController: &types.DeploymentController{Type: types.DeploymentControllerTypeEcs}, SchedulingStrategy: types.SchedulingStrategyReplica,
		EnableECSManagedTags: true, PropagateTags: types.PropagateTagsService, Tags: tags(), AvailabilityZoneRebalancing: types.AvailabilityZoneRebalancingDisabled,
	}
	done(t)(c.PutClusterCapacityProviders(ctx, &ecs.PutClusterCapacityProvidersInput{Cluster: cluster, CapacityProviders: []string{"FARGATE"}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}}))
	made := must[*ecs.CreateServiceOutput](t)(c.CreateService(ctx, in)).Service
	arn := "arn:aws:ecs:us-east-1:" + w.Account + ":service/tf-services/tf-service"
	if *made.ServiceArn != arn {
		t.Errorf("ARN %s", *made.ServiceArn)
	}
	configuration := *in.DeploymentConfiguration
	want := types.Service{
		ServiceArn: &arn, ServiceName: name, ClusterArn: cluster, Status: new("ACTIVE"), TaskDefinition: &one, PlatformVersion: new("1.4.0"), PlatformFamily: new("Linux"), ResourceManagementType: types.ResourceManagementTypeCustomer,
		NetworkConfiguration: net, CapacityProviderStrategy: in.CapacityProviderStrategy, DeploymentConfiguration: &configuration, DeploymentController: in.DeploymentController,
		SchedulingStrategy: in.SchedulingStrategy, EnableECSManagedTags: true, PropagateTags: in.PropagateTags, Tags: tags(), AvailabilityZoneRebalancing: in.AvailabilityZoneRebalancing,
		LoadBalancers: []types.LoadBalancer{}, ServiceRegistries: []types.ServiceRegistry{}, PlacementConstraints: []types.PlacementConstraint{}, PlacementStrategy: []types.PlacementStrategy{},
	}
	configuration.Strategy, configuration.BakeTimeInMinutes = types.DeploymentStrategyRolling, new(int32(0))
	r.same(t, want)

	done(t)(c.UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: cluster, Service: name, TaskDefinition: &two,
		DeploymentConfiguration: &types.DeploymentConfiguration{MaximumPercent: new(int32(200)), MinimumHealthyPercent: new(int32(50)), DeploymentCircuitBreaker: in.DeploymentConfiguration.DeploymentCircuitBreaker}}))
	want.TaskDefinition, configuration.MaximumPercent = &two, new(int32(200))
	succeeds(t, ecs.NewServicesStableWaiter(c), &ecs.DescribeServicesInput{Cluster: cluster, Services: []string{*name}})
	r.same(t, want)

	done(t)(c.DeleteService(ctx, &ecs.DeleteServiceInput{Cluster: cluster, Service: name}))
	succeeds(t, ecs.NewServicesInactiveWaiter(c), &ecs.DescribeServicesInput{Cluster: cluster, Services: []string{*name}})
	have := cluster
	cluster = new("tf-nowhere")
	r.isGone(t)
	cluster = have

	// With nothing said.
	name = new("tf-least")
	done(t)(c.CreateService(ctx, &ecs.CreateServiceInput{Cluster: cluster, ServiceName: name, TaskDefinition: &one, DesiredCount: new(int32(0)), LaunchType: types.LaunchTypeFargate,
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: w.subnets[:1]}}}))
	arn = "arn:aws:ecs:us-east-1:" + w.Account + ":service/tf-services/tf-least"
	r.same(t, types.Service{
		ServiceArn: &arn, ServiceName: name, ClusterArn: cluster, Status: new("ACTIVE"), TaskDefinition: &one, PlatformVersion: new("LATEST"), PlatformFamily: new("Linux"), ResourceManagementType: types.ResourceManagementTypeCustomer, LaunchType: types.LaunchTypeFargate,
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: w.subnets[:1], SecurityGroups: []string{}, AssignPublicIp: types.AssignPublicIpDisabled}},
		DeploymentConfiguration: &types.DeploymentConfiguration{MaximumPercent: new(int32(200)), MinimumHealthyPercent: new(int32(100)), Strategy: types.DeploymentStrategyRolling, BakeTimeInMinutes: new(int32(0)),
			DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{}},
		DeploymentController: &types.DeploymentController{Type: types.DeploymentControllerTypeEcs}, SchedulingStrategy: types.SchedulingStrategyReplica, PropagateTags: types.PropagateTagsNone,
		AvailabilityZoneRebalancing: types.AvailabilityZoneRebalancingEnabled,
		LoadBalancers:               []types.LoadBalancer{}, ServiceRegistries: []types.ServiceRegistry{}, PlacementConstraints: []types.PlacementConstraint{}, PlacementStrategy: []types.PlacementStrategy{}, Tags: []types.Tag{},
	})
}
