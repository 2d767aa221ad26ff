package sdk

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func TestECSPaginators(t *testing.T) {
	t.Parallel()
	c, ctx := w.ecs, t.Context()
	clusters := five("paged")
	families := five("paged-family")
	var clusterARNs, serviceARNs, definitionARNs, instanceARNs []string
	for i := range clusters {
		made := must[*ecs.CreateClusterOutput](t)(c.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: &clusters[i]}))
		clusterARNs = append(clusterARNs, *made.Cluster.ClusterArn)
		definitionARNs = append(definitionARNs, define(t, families[i], "term"))
	}
	cluster := &clusters[0]
	var attributes []string
	for _, name := range five("paged-service") {
		made := must[*ecs.CreateServiceOutput](t)(c.CreateService(ctx, &ecs.CreateServiceInput{Cluster: cluster, ServiceName: &name, TaskDefinition: &families[0],
			DesiredCount: new(int32(0)), LaunchType: types.LaunchTypeFargate, NetworkConfiguration: network()}))
		serviceARNs = append(serviceARNs, *made.Service.ServiceArn)
		i := must[*ecs.RegisterContainerInstanceOutput](t)(c.RegisterContainerInstance(ctx, &ecs.RegisterContainerInstanceInput{Cluster: cluster, TotalResources: []types.Resource{
			{Name: new("CPU"), Type: new("INTEGER"), IntegerValue: 2048}, {Name: new("MEMORY"), Type: new("INTEGER"), IntegerValue: 3884},
			{Name: new("PORTS"), Type: new("STRINGSET"), StringSetValue: []string{"22"}}, {Name: new("PORTS_UDP"), Type: new("STRINGSET"), StringSetValue: []string{}},
		}}))
		arn := *i.ContainerInstance.ContainerInstanceArn
		instanceARNs = append(instanceARNs, arn)
		done(t)(c.PutAttributes(ctx, &ecs.PutAttributesInput{Cluster: cluster, Attributes: []types.Attribute{{Name: new("rack"), Value: &name, TargetId: &arn}}}))
		attributes = append(attributes, "rack "+name)
	}
	tasks := run(t, families[0], 5)
	paginate(t, "ecs", []listing{
		pages(c, ecs.NewListClustersPaginator, &ecs.ListClustersInput{}, 2, "ClusterArns", clusterARNs),
		pages(c, ecs.NewListServicesPaginator, &ecs.ListServicesInput{Cluster: cluster}, 2, "ServiceArns", serviceARNs),
		pages(c, ecs.NewListTasksPaginator, &ecs.ListTasksInput{Family: &families[0]}, 2, "TaskArns", tasks),
		pages(c, ecs.NewListTaskDefinitionsPaginator, &ecs.ListTaskDefinitionsInput{}, 2, "TaskDefinitionArns", definitionARNs),
		pages(c, ecs.NewListTaskDefinitionFamiliesPaginator, &ecs.ListTaskDefinitionFamiliesInput{FamilyPrefix: new("paged-")}, 2, "Families", families),
		pages(c, ecs.NewListContainerInstancesPaginator, &ecs.ListContainerInstancesInput{Cluster: cluster}, 2, "ContainerInstanceArns", instanceARNs),
		pages(c, ecs.NewListAttributesPaginator, &ecs.ListAttributesInput{Cluster: cluster, TargetType: types.TargetTypeContainerInstance, AttributeName: new("rack")}, 2, "Attributes.Name+Value", attributes),
		pages(c, ecs.NewListAccountSettingsPaginator, &ecs.ListAccountSettingsInput{EffectiveSettings: true}, 2, "Settings.Name", []string{"containerInsights", "awsvpcTrunking"}),
	})

	p := ecs.NewListServicesByNamespacePaginator(c, &ecs.ListServicesByNamespaceInput{Namespace: new("town")})
	if _, err := p.NextPage(ctx); codeOf(err) != "NamespaceNotFoundException" {
		t.Errorf("ListServicesByNamespace: %v", err)
	}
}

// define registers a task definition of one container that runs these steps.
func define(t *testing.T, family string, steps ...string) string {
	t.Helper()
	out := must[*ecs.RegisterTaskDefinitionOutput](t)(w.ecs.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{
		Family: &family, Cpu: new("256"), Memory: new("512"), NetworkMode: types.NetworkModeAwsvpc, ExecutionRoleArn: &w.exec,
		RequiresCompatibilities: []types.Compatibility{types.CompatibilityFargate},
		ContainerDefinitions:    []types.ContainerDefinition{{Name: new("box"), Image: &w.image, Command: steps}},
	}))
	return *out.TaskDefinition.TaskDefinitionArn
}

// run starts tasks and answers their ARNs. Whoever leaves them running leaves
// them to the end of the region.
func run(t *testing.T, family string, count int32) (arns []string) {
	t.Helper()
	out := must[*ecs.RunTaskOutput](t)(w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &family, Count: &count, LaunchType: types.LaunchTypeFargate, NetworkConfiguration: network()}))
	if len(out.Failures) > 0 {
		t.Fatalf("RunTask: %s: %s", *out.Failures[0].Arn, *out.Failures[0].Reason)
	}
	for _, task := range out.Tasks {
		arns = append(arns, *task.TaskArn)
	}
	return arns
}

func network() *types.NetworkConfiguration {
	return &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: w.subnets[:1], SecurityGroups: []string{w.group}, AssignPublicIp: types.AssignPublicIpEnabled}}
}
