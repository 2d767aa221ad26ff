package ecs

import (
	"testing"

	api "github.com/berth-run/berth/aws/ecs"
)

func TestServiceByStrategy(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.provide("web", `"autoScalingGroupProvider":{"autoScalingGroupArn":"`+groupARN+`"}`)
	b.putProviders(`"FARGATE","FARGATE_SPOT","web"`, `{"capacityProvider":"FARGATE","base":1,"weight":1}`)
	create := func(name, more string) *api.CreateServiceInput {
		return read[api.CreateServiceInput](t, `{"serviceName":"`+name+`","taskDefinition":"web","desiredCount":1,"networkConfiguration":`+webNetwork+more+`}`)
	}
	strategy := func(text string) []api.CapacityProviderStrategyItem {
		return *read[[]api.CapacityProviderStrategyItem](t, text)
	}

	s := try(b, b.CreateService, create("default-strategy", "")).Service
	want := strategy(`[{"capacityProvider":"FARGATE","weight":1,"base":1}]`)
	if s.LaunchType != "" || !sameDocument(s.CapacityProviderStrategy, want) || !sameDocument(s.Deployments[0].CapacityProviderStrategy, want) || s.Deployments[0].LaunchType != "" {
		t.Errorf("%s", pretty(s))
	}
	if again := try(b, b.CreateService, create("default-strategy", "")).Service; len(again.Deployments) != 1 {
		t.Errorf("created again: %s", pretty(again))
	}
	if s := try(b, b.CreateService, create("fargate", `,"launchType":"FARGATE"`)).Service; s.LaunchType != "FARGATE" || len(s.CapacityProviderStrategy) != 0 {
		t.Errorf("%s", pretty(s))
	}
	if c := try(b, b.DescribeClusters, &api.DescribeClustersInput{Include: []api.ClusterField{"STATISTICS"}}).Clusters[0]; *c.Statistics[6].Name != "activeFargateServiceCount" || *c.Statistics[6].Value != "2" {
		t.Errorf("%s", pretty(c.Statistics))
	}

	// Another strategy is another deployment; the same one is not.
	update := func(text string) *api.Service {
		t.Helper()
		return try(b, b.UpdateService, read[api.UpdateServiceInput](t, `{"service":"default-strategy","capacityProviderStrategy":`+text+`}`)).Service
	}
	if s := update(`[{"capacityProvider":"FARGATE","base":1,"weight":1}]`); len(s.Deployments) != 1 {
		t.Errorf("the same strategy: %s", pretty(s.Deployments))
	}
	s = update(`[{"capacityProvider":"FARGATE_SPOT","weight":3},{"capacityProvider":"FARGATE","weight":1}]`)
	want = strategy(`[{"capacityProvider":"FARGATE_SPOT","weight":3,"base":0},{"capacityProvider":"FARGATE","weight":1,"base":0}]`)
	if len(s.Deployments) != 2 || !sameDocument(s.CapacityProviderStrategy, want) || !sameDocument(s.Deployments[0].CapacityProviderStrategy, want) {
		t.Errorf("%s", pretty(s))
	}

	const ip = "InvalidParameterException: "
	refuse(b, b.UpdateService, read[api.UpdateServiceInput](t, `{"service":"default-strategy","placementConstraints":[{"type":"distinctInstance"}]}`), ip+"Placement constraints are not supported with FARGATE launch type.")
	refuse(b, b.UpdateService, read[api.UpdateServiceInput](t, `{"service":"default-strategy","placementStrategy":[{"type":"random"}]}`), ip+"Placement strategies are not supported with FARGATE launch type.")
	refuse(b, b.CreateService, create("x", `,"capacityProviderStrategy":[{"capacityProvider":"FARGATE"}]`), ip+"The specified capacity provider strategy must contain at least one capacity provider with a weight greater than 0.")
	refuse(b, b.CreateService, create("x", `,"capacityProviderStrategy":[{"capacityProvider":"web","weight":1}]`), ip+"Assign public IP is not supported for this launch type.")
	refuse(b, b.CreateService, create("x", `,"launchType":"EC2"`), ip+"Assign public IP is not supported for this launch type.")
	refuse(b, b.PutClusterCapacityProviders, &api.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{"FARGATE"}},
		"ResourceInUseException: The specified capacity provider is in use and cannot be removed.")
	b.putProviders(`"FARGATE","FARGATE_SPOT"`, "")
}
