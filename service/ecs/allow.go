package ecs

import (
	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store/state"
)

// providers adds the key ecs:capacity-provider.
func (q request) providers(strategy []api.CapacityProviderStrategyItem) request {
	var names []string
	for _, s := range strategy {
		names = append(names, val(s.CapacityProvider))
	}
	return q.providerNames(names)
}

func (q request) providerNames(refs []string) request {
	var arns []string
	for _, ref := range refs {
		arns = append(arns, q.providerOf(ref))
	}
	if len(arns) == 0 {
		return q
	}
	return q.key("ecs:capacity-provider", arns...)
}

func (q request) providerOf(ref string) string {
	name, err := q.providerName(q.account, ref)
	if err != nil || !isName(name) {
		return q.literal("capacity-provider/", ref)
	}
	return q.providerARN(q.account, name)
}

// instances are the ARNs that attributes are for, each once.
func (q request) instances(cluster *string, attributes []api.Attribute) []string {
	var refs []string
	seen := map[string]bool{}
	for _, a := range attributes {
		if ref := val(a.TargetId); !seen[ref] {
			seen[ref] = true
			refs = append(refs, ref)
		}
	}
	return q.of("container-instance", cluster, refs...)
}

// daemonDefinitionOf resolves a reference, so that a policy for one revision holds.
func (q request) daemonDefinitionOf(ref *string) string {
	if td, err := q.daemonDefinition(q.r, q.account, val(ref)); err == nil {
		return td.ARN
	}
	d, err := q.parseFamily(q.account, daemonDefinition, val(ref))
	if err != nil {
		return q.literal(daemonDefinition+"/", val(ref))
	}
	if d.revision == "" {
		d.revision = "*"
	}
	return q.arn(q.account, daemonDefinition+"/"+d.family+":"+d.revision)
}

func (q request) namedAll(kind string, refs []string) (out []string) {
	for i := range refs {
		out = append(out, q.named(kind, &refs[i]))
	}
	if out == nil {
		out = []string{q.arn(q.account, kind+"/*")}
	}
	return out
}

// authorizeCapacity has the rules of capacity providers, container instances,
// what their agents report, daemons and express gateway services.
func (e *ECS) authorizeCapacity() map[string]Authorize {
	return map[string]Authorize{
		"CreateCapacityProvider": on(e, func(q request, in *api.CreateCapacityProviderInput) []auth.Check {
			arn := q.providerOf(val(in.Name))
			return q.create("CreateCapacityProvider", arn, arn, in.Tags, false)
		}),
		"UpdateCapacityProvider": on(e, func(q request, in *api.UpdateCapacityProviderInput) []auth.Check {
			return q.check("UpdateCapacityProvider", q.providerOf(val(in.Name)))
		}),
		"DeleteCapacityProvider": on(e, func(q request, in *api.DeleteCapacityProviderInput) []auth.Check {
			return q.check("DeleteCapacityProvider", q.providerOf(val(in.CapacityProvider)))
		}),
		"DescribeCapacityProviders": on(e, func(q request, in *api.DescribeCapacityProvidersInput) []auth.Check {
			var arns []string
			for _, ref := range in.CapacityProviders {
				arns = append(arns, q.providerOf(ref))
			}
			if arns == nil {
				arns = []string{q.arn(q.account, "capacity-provider/*")}
			}
			return q.check("DescribeCapacityProviders", arns...)
		}),
		"PutClusterCapacityProviders": on(e, func(q request, in *api.PutClusterCapacityProvidersInput) []auth.Check {
			return q.providerNames(in.CapacityProviders).check("PutClusterCapacityProviders", q.clusterOf(in.Cluster))
		}),

		"DeregisterContainerInstance": on(e, func(q request, in *api.DeregisterContainerInstanceInput) []auth.Check {
			return q.check("DeregisterContainerInstance", q.clusterOf(in.Cluster))
		}),
		"UpdateContainerInstancesState": on(e, func(q request, in *api.UpdateContainerInstancesStateInput) []auth.Check {
			return q.in(in.Cluster).check("UpdateContainerInstancesState", q.of("container-instance", in.Cluster, in.ContainerInstances...)...)
		}),
		"UpdateContainerAgent": on(e, func(q request, in *api.UpdateContainerAgentInput) []auth.Check {
			return q.in(in.Cluster).check("UpdateContainerAgent", q.of("container-instance", in.Cluster, val(in.ContainerInstance))...)
		}),
		"PutAttributes": on(e, func(q request, in *api.PutAttributesInput) []auth.Check {
			return q.in(in.Cluster).check("PutAttributes", q.instances(in.Cluster, in.Attributes)...)
		}),
		"DeleteAttributes": on(e, func(q request, in *api.DeleteAttributesInput) []auth.Check {
			return q.in(in.Cluster).check("DeleteAttributes", q.instances(in.Cluster, in.Attributes)...)
		}),
		"ListAttributes": on(e, func(q request, in *api.ListAttributesInput) []auth.Check {
			return q.check("ListAttributes", q.clusterOf(in.Cluster))
		}),

		"RegisterDaemonTaskDefinition": on(e, func(q request, in *api.RegisterDaemonTaskDefinitionInput) []auth.Check {
			family, next := val(in.Family), 1
			if f, ok := state.DaemonFamilies.Get(q.r, q.account+"/"+family); ok {
				next = f.Last + 1
			}
			return q.create("RegisterDaemonTaskDefinition", q.arn(q.account, daemonDefinition+"/"+family+":*"), q.daemonDefinitionARN(q.account, family, next), in.Tags, false)
		}),
		"DescribeDaemonTaskDefinition": on(e, func(q request, in *api.DescribeDaemonTaskDefinitionInput) []auth.Check {
			return q.check("DescribeDaemonTaskDefinition", q.daemonDefinitionOf(in.DaemonTaskDefinition))
		}),
		"DeleteDaemonTaskDefinition": on(e, func(q request, in *api.DeleteDaemonTaskDefinitionInput) []auth.Check {
			return q.check("DeleteDaemonTaskDefinition", q.daemonDefinitionOf(in.DaemonTaskDefinition))
		}),
		"CreateDaemon": on(e, func(q request, in *api.CreateDaemonInput) []auth.Check {
			arn := q.daemonARN(q.account, state.ShortARN(q.clusterOf(in.ClusterArn)), val(in.DaemonName))
			q = q.in(in.ClusterArn).providerNames(in.CapacityProviderArns).flag("ecs:enable-execute-command", val(in.EnableExecuteCommand)).
				flag("ecs:enable-ecs-managed-tags", val(in.EnableECSManagedTags)).key("ecs:daemon-task-definition", q.daemonDefinitionOf(in.DaemonTaskDefinitionArn))
			return q.create("CreateDaemon", arn, arn, in.Tags, false)
		}),
		"UpdateDaemon": on(e, func(q request, in *api.UpdateDaemonInput) []auth.Check {
			q = q.providerNames(in.CapacityProviderArns).key("ecs:daemon-task-definition", q.daemonDefinitionOf(in.DaemonTaskDefinitionArn))
			if in.EnableExecuteCommand != nil {
				q = q.flag("ecs:enable-execute-command", *in.EnableExecuteCommand)
			}
			return q.check("UpdateDaemon", q.named("daemon", in.DaemonArn))
		}),
		"DeleteDaemon": on(e, func(q request, in *api.DeleteDaemonInput) []auth.Check {
			return q.check("DeleteDaemon", q.named("daemon", in.DaemonArn))
		}),
		"DescribeDaemon": on(e, func(q request, in *api.DescribeDaemonInput) []auth.Check {
			return q.check("DescribeDaemon", q.named("daemon", in.DaemonArn))
		}),
		"ListDaemons": on(e, func(q request, in *api.ListDaemonsInput) []auth.Check {
			return q.in(in.ClusterArn).check("ListDaemons")
		}),
		"DescribeDaemonRevisions": on(e, func(q request, in *api.DescribeDaemonRevisionsInput) []auth.Check {
			return q.check("DescribeDaemonRevisions", q.namedAll("daemon-revision", in.DaemonRevisionArns)...)
		}),
		"DescribeDaemonDeployments": on(e, func(q request, in *api.DescribeDaemonDeploymentsInput) []auth.Check {
			return q.check("DescribeDaemonDeployments", q.namedAll("daemon-deployment", in.DaemonDeploymentArns)...)
		}),
		"ListDaemonDeployments": on(e, func(q request, in *api.ListDaemonDeploymentsInput) []auth.Check {
			return q.check("ListDaemonDeployments", q.named("daemon", in.DaemonArn))
		}),

		"SubmitTaskStateChange": on(e, func(q request, in *api.SubmitTaskStateChangeInput) []auth.Check {
			return q.check("SubmitTaskStateChange", q.clusterOf(in.Cluster))
		}),
		"SubmitContainerStateChange": on(e, func(q request, in *api.SubmitContainerStateChangeInput) []auth.Check {
			return q.check("SubmitContainerStateChange", q.clusterOf(in.Cluster))
		}),
		"SubmitAttachmentStateChanges": on(e, func(q request, in *api.SubmitAttachmentStateChangesInput) []auth.Check {
			return q.check("SubmitAttachmentStateChanges", q.clusterOf(in.Cluster))
		}),

		"CreateExpressGatewayService": on(e, func(q request, in *api.CreateExpressGatewayServiceInput) []auth.Check {
			arn := q.arn(q.account, "service/"+state.ShortARN(q.clusterOf(in.Cluster))+"/*")
			if isName(val(in.ServiceName)) {
				arn = q.of("service", in.Cluster, *in.ServiceName)[0]
			}
			return q.in(in.Cluster).create("CreateExpressGatewayService", arn, arn, in.Tags, false)
		}),
		"UpdateExpressGatewayService": on(e, func(q request, in *api.UpdateExpressGatewayServiceInput) []auth.Check {
			return q.check("UpdateExpressGatewayService", q.named("service", in.ServiceArn))
		}),
		"DescribeExpressGatewayService": on(e, func(q request, in *api.DescribeExpressGatewayServiceInput) []auth.Check {
			return q.check("DescribeExpressGatewayService", q.named("service", in.ServiceArn))
		}),
		"DeleteExpressGatewayService": on(e, func(q request, in *api.DeleteExpressGatewayServiceInput) []auth.Check {
			return q.check("DeleteExpressGatewayService", q.named("service", in.ServiceArn))
		}),
	}
}
