package ecs

import (
	"testing"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
	"pgregory.net/rapid"
)

// serviceRules are those of what services and their updates have in common.
func (g *generator) serviceRules() {
	g.rules = map[string]func() any{
		"cluster": constant("default"), "taskDefinition": g.oneOf("web", "web:1"),
		"desiredCount": g.number(0, 20), "platformVersion": g.oneOf("LATEST", "1.4.0"), "schedulingStrategy": constant("REPLICA"),
		"networkConfiguration": func() any {
			return doc{"awsvpcConfiguration": doc{"subnets": []any{"subnet-2", "subnet-1"}, "securityGroups": []any{"sg-1"}, "assignPublicIp": g.oneOf("ENABLED", "DISABLED")()}}
		},
		"capacityProviderStrategy": func() any {
			return []any{doc{"capacityProvider": "FARGATE_SPOT", "weight": g.number(1, 9)(), "base": g.number(0, 3)()}, doc{"capacityProvider": "FARGATE", "weight": g.number(0, 9)()}}
		},
		"maximumPercent": g.number(101, 300), "minimumHealthyPercent": g.number(0, 100), "strategy": constant("ROLLING"),
		"bakeTimeInMinutes":    constant(float64(0)),
		"propagateTags":        g.oneOf("SERVICE", "TASK_DEFINITION", "NONE"),
		"enableExecuteCommand": constant(false), // needs a task role
		"deploymentController": constant(doc{"type": "ECS"}),
		"launchType":           nil, "clientToken": nil, "role": nil,
		// There is no machinery for these yet: they are refused.
		"loadBalancers": nil, "serviceRegistries": nil, "serviceConnectConfiguration": nil, "volumeConfigurations": nil, "vpcLatticeConfigurations": nil,
		"placementConstraints": nil, "placementStrategy": nil, "healthCheckGracePeriodSeconds": nil, "alarms": nil, "lifecycleHooks": nil,
		"linearConfiguration": nil, "canaryConfiguration": nil, "serviceRevisionArn": nil,
	}
}

// shownAs is what a service shows of a request.
func shownAs(in doc) doc {
	want := without(in, "cluster", "service", "taskDefinition", "forceNewDeployment")
	if l := docs(in["capacityProviderStrategy"]); len(l) > 0 {
		want["launchType"] = nil
	}
	return want
}

func TestServicesComeBack(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.putProviders(`"FARGATE","FARGATE_SPOT"`, `{"capacityProvider":"FARGATE","weight":1}`)
	operations := api.NewService(b.ECS).Operations
	rapid.Check(t, func(t *rapid.T) {
		b.put(func(tx *store.Tx) { state.Services.Delete(tx, prefix+"service/default/web") })
		g := &generator{t: t}
		g.serviceRules()
		g.rules["serviceName"] = constant("web")
		in := g.value("in", operations["CreateService"].Input()).(doc)
		for _, must := range []string{"taskDefinition", "desiredCount", "networkConfiguration"} {
			in[must] = g.rules[must]()
		}
		distinct(in["tags"], "key", "key%d")
		want := shownAs(in)
		g.same("created", want, send(g, b, "CreateService", b.CreateService, in).Service)
		described := func() api.Service {
			out := try(b, b.DescribeServices, &api.DescribeServicesInput{Services: []string{"web"}, Include: []api.ServiceField{"TAGS"}})
			return out.Services[0]
		}
		g.same("described", want, described())

		// An update changes what it names, and leaves the rest.
		g.rules["service"], g.rules["availabilityZoneRebalancing"] = constant("web"), g.oneOf("ENABLED", "DISABLED")
		update := g.value("update", operations["UpdateService"].Input()).(doc)
		changed := shownAs(update)
		g.same("updated", changed, send(g, b, "UpdateService", b.UpdateService, update).Service)
		for k, v := range want {
			if _, named := changed[k]; !named {
				changed[k] = v
			} else if k == "deploymentConfiguration" {
				rest := without(v.(doc))
				for k, v := range changed[k].(doc) {
					rest[k] = v
				}
				changed[k] = rest
			}
		}
		g.same("described after the update", changed, described())
	})
}

func TestAttributesComeBack(t *testing.T) {
	b := newBench(t)
	instance := *b.join("").ContainerInstanceArn
	schema := api.NewService(b.ECS).Operations["PutAttributes"].Input()
	rapid.Check(t, func(t *rapid.T) {
		g := &generator{t: t}
		g.rules = map[string]func() any{
			"cluster": constant("default"), "targetId": constant(instance), "targetType": constant("container-instance"),
			"Attribute.value": g.oneOf("a", "b2", "some-value"),
		}
		in := g.value("in", schema).(doc)
		distinct(in["attributes"], "name", "attribute-%d")
		for _, a := range docs(in["attributes"]) {
			a["targetId"] = instance
		}
		send(g, b, "PutAttributes", b.PutAttributes, in)
		for _, a := range docs(in["attributes"]) {
			out := try(b, b.ListAttributes, &api.ListAttributesInput{TargetType: "container-instance", AttributeName: new(a["name"].(string))})
			if len(out.Attributes) != 1 {
				t.Fatalf("%s", pretty(out))
			}
			g.same("listed", without(a, "targetType"), out.Attributes[0])
		}
	})
}
