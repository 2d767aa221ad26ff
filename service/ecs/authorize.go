package ecs

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// An Authorize says what a caller must be allowed for one request.
type Authorize = func(ctx context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check

// request is what the rules below need to know of a request.
type request struct {
	*ECS
	r       store.Reader
	account string
	keys    map[string][]string
}

// everything is the resource of actions that have none.
const everything = "*"

func on[In any](e *ECS, rule func(q request, in *In) []auth.Check) Authorize {
	return func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		account := e.cfg.Account
		if c != nil {
			account = c.Account
		}
		return rule(request{e, r, account, nil}, in.(*In))
	}
}

// key adds a condition key.
func (q request) key(name string, values ...string) request {
	keys := make(map[string][]string, len(q.keys)+1)
	maps.Copy(keys, q.keys)
	keys[name] = values
	q.keys = keys
	return q
}

func (q request) check(action string, resources ...string) []auth.Check {
	if len(resources) == 0 {
		resources = []string{everything}
	}
	out := make([]auth.Check, len(resources))
	for i, res := range resources {
		// Hardly a policy asks for tags: they are looked up when one does.
		out[i] = auth.Check{Action: "ecs:" + action, Resource: res, Keys: q.keys, Tags: q.tagsOf(res)}
	}
	return out
}

func (q request) tagsOf(resource string) func() []state.Tag {
	return func() []state.Tag {
		t, err := q.tagged(q.r, q.account, resource)
		if err != nil {
			return nil // what does not exist has none
		}
		return t.tags
	}
}

// tags adds the keys of the tags in a request.
func (q request) tags(tags []api.Tag) request {
	var names []string
	for _, t := range tags {
		q = q.key("aws:RequestTag/"+val(t.Key), val(t.Value))
		names = append(names, val(t.Key))
	}
	if len(names) > 0 {
		q = q.key("aws:TagKeys", names...)
	}
	return q
}

// create checks an action, and that its caller may tag what it creates.
func (q request) create(action, resource, created string, tags []api.Tag, inherited bool) []auth.Check {
	checks := q.tags(tags).check(action, resource)
	if len(tags) > 0 || inherited {
		// TagResource has few of the keys of what creates.
		q.keys = map[string][]string{"ecs:CreateAction": {action}}
		checks = append(checks, q.tags(tags).check("TagResource", created)...)
	}
	return checks
}

func (q request) clusterOf(ref *string) string {
	arn, err := q.clusterARN(q.account, ref)
	if err != nil {
		return q.literal("cluster/", val(ref))
	}
	return arn
}

// literal is the resource of a reference that names nothing, or nothing of this
// account: who may act on what it would name hears from the handler what is
// wrong with it.
func (q request) literal(prefix, ref string) string {
	if isARN(ref) {
		ref = ref[strings.LastIndexAny(ref, ":/")+1:]
	}
	return q.arn(q.account, prefix+ref)
}

// named is the resource of this kind that a request gives the ARN of.
func (q request) named(kind string, ref *string) string {
	if !isARN(val(ref)) {
		return q.literal(kind+"/", val(ref))
	}
	return *ref
}

// tagTarget is the resource whose tags a request is about, which may be of any kind.
func tagTarget(ref *string) string {
	if _, ok := parseARN(val(ref)); !ok {
		return everything
	}
	return *ref
}

// in adds the key ecs:cluster.
func (q request) in(ref *string) request { return q.key("ecs:cluster", q.clusterOf(ref)) }

func (q request) flag(name string, v bool) request { return q.key(name, strconv.FormatBool(v)) }

// of turns references to tasks, services or instances into ARNs below the
// request's cluster.
func (q request) of(kind string, cluster *string, refs ...string) []string {
	parse := map[string]func(account, cluster, ref string) (string, error){
		"task": q.taskARN, "service": q.serviceARN, "container-instance": q.instanceARN,
	}[kind]
	below := state.ShortARN(q.clusterOf(cluster))
	out := make([]string, len(refs))
	for i, ref := range refs {
		arn, err := parse(q.account, below, ref)
		if err != nil {
			arn = q.literal(kind+"/"+below+"/", ref)
		}
		out[i] = arn
	}
	return out
}

// service adds the keys ecs:cluster and ecs:service.
func (q request) service(cluster, ref *string) request {
	return q.in(cluster).key("ecs:service", q.of("service", cluster, val(ref))...)
}

// taskSets are the ARNs of task sets of a service; "*" is any.
func (q request) taskSets(cluster, service *string, refs ...string) []string {
	owner := q.of("service", cluster, val(service))[0]
	out := make([]string, len(refs))
	for i, ref := range refs {
		arn, err := taskSetARN(owner, ref)
		switch {
		case ref == "*":
			arn = strings.Replace(owner, ":service/", ":task-set/", 1) + "/*"
		case err != nil:
			arn = q.literal(strings.Replace(owner[strings.Index(owner, ":service/")+1:], "service/", "task-set/", 1)+"/", ref)
		}
		out[i] = arn
	}
	return out
}

// parts checks an action on deployments or revisions of services, each with the
// keys of its cluster and service.
func (q request) parts(action, kind string, refs ...string) (out []auth.Check) {
	for _, ref := range refs {
		one := q
		if a, ok := parseARN(ref); ok && len(a.path) == 3 {
			one = q.key("ecs:cluster", q.arn(a.account, "cluster/"+a.path[0])).key("ecs:service", q.arn(a.account, "service/"+a.path[0]+"/"+a.path[1]))
		}
		out = append(out, one.check(action, q.named(kind, &ref))...)
	}
	if out == nil {
		out = q.check(action, q.arn(q.account, kind+"/*"))
	}
	return out
}

// definitionOf resolves a task definition, so that a policy for one revision holds.
func (q request) definitionOf(ref string) string {
	if td, ok, err := q.definition(q.r, q.account, ref); err == nil && ok {
		return td.ARN
	}
	d, err := q.parseDefinition(q.account, ref)
	if err != nil {
		return q.literal("task-definition/", ref)
	}
	if d.revision == "" {
		d.revision = "*"
	}
	return q.arn(q.account, "task-definition/"+d.family+":"+d.revision)
}

// Authorize has the rules of the operations that are about a resource. The
// others are authorized as ecs:<Operation> on everything.
func (e *ECS) Authorize() map[string]Authorize {
	rules := map[string]Authorize{
		"CreateCluster": on(e, func(q request, in *api.CreateClusterInput) []auth.Check {
			arn := q.clusterOf(in.ClusterName)
			return q.providerNames(in.CapacityProviders).create("CreateCluster", arn, arn, in.Tags, false)
		}),
		"DeleteCluster": on(e, func(q request, in *api.DeleteClusterInput) []auth.Check {
			return q.check("DeleteCluster", q.clusterOf(in.Cluster))
		}),
		"UpdateCluster": on(e, func(q request, in *api.UpdateClusterInput) []auth.Check {
			return q.check("UpdateCluster", q.clusterOf(in.Cluster))
		}),
		"UpdateClusterSettings": on(e, func(q request, in *api.UpdateClusterSettingsInput) []auth.Check {
			return q.check("UpdateClusterSettings", q.clusterOf(in.Cluster))
		}),
		"DescribeClusters": on(e, func(q request, in *api.DescribeClustersInput) []auth.Check {
			refs := in.Clusters
			if len(refs) == 0 {
				refs = []string{DefaultCluster}
			}
			var arns []string
			for i := range refs {
				arns = append(arns, q.clusterOf(&refs[i]))
			}
			return q.check("DescribeClusters", arns...)
		}),

		"RegisterTaskDefinition": on(e, func(q request, in *api.RegisterTaskDefinitionInput) []auth.Check {
			family, next := val(in.Family), 1
			if f, ok := state.Families.Get(q.r, q.account+"/"+family); ok {
				next = f.Last + 1
			}
			return q.create("RegisterTaskDefinition", q.arn(q.account, "task-definition/"+family+":*"), q.definitionARN(q.account, family, next), in.Tags, false)
		}),
		"DeleteTaskDefinitions": on(e, func(q request, in *api.DeleteTaskDefinitionsInput) []auth.Check {
			var arns []string
			for _, ref := range in.TaskDefinitions {
				arns = append(arns, q.definitionOf(ref))
			}
			return q.check("DeleteTaskDefinitions", arns...)
		}),

		"RunTask": on(e, func(q request, in *api.RunTaskInput) []auth.Check {
			q = q.in(in.Cluster).providers(in.CapacityProviderStrategy).flag("ecs:enable-execute-command", val(in.EnableExecuteCommand))
			created := q.arn(q.account, "task/"+state.ShortARN(q.clusterOf(in.Cluster))+"/*")
			return q.create("RunTask", q.definitionOf(val(in.TaskDefinition)), created, in.Tags, in.PropagateTags == api.PropagateTagsTaskDefinition)
		}),
		"StartTask": on(e, func(q request, in *api.StartTaskInput) []auth.Check {
			q = q.in(in.Cluster).key("ecs:container-instances", q.of("container-instance", in.Cluster, in.ContainerInstances...)...)
			created := q.arn(q.account, "task/"+state.ShortARN(q.clusterOf(in.Cluster))+"/*")
			return q.create("StartTask", q.definitionOf(val(in.TaskDefinition)), created, in.Tags, in.PropagateTags == api.PropagateTagsTaskDefinition)
		}),
		"StopTask": on(e, func(q request, in *api.StopTaskInput) []auth.Check {
			return q.in(in.Cluster).check("StopTask", q.of("task", in.Cluster, val(in.Task))...)
		}),
		"DescribeTasks": on(e, func(q request, in *api.DescribeTasksInput) []auth.Check {
			return q.in(in.Cluster).check("DescribeTasks", q.of("task", in.Cluster, in.Tasks...)...)
		}),
		"ListTasks": on(e, func(q request, in *api.ListTasksInput) []auth.Check {
			instance := q.arn(q.account, "container-instance/"+state.ShortARN(q.clusterOf(in.Cluster))+"/*")
			if in.ContainerInstance != nil {
				instance = q.of("container-instance", in.Cluster, *in.ContainerInstance)[0]
			}
			return q.in(in.Cluster).check("ListTasks", instance)
		}),
		"GetTaskProtection": on(e, func(q request, in *api.GetTaskProtectionInput) []auth.Check {
			return q.in(in.Cluster).check("GetTaskProtection", q.of("task", in.Cluster, in.Tasks...)...)
		}),
		"UpdateTaskProtection": on(e, func(q request, in *api.UpdateTaskProtectionInput) []auth.Check {
			return q.in(in.Cluster).check("UpdateTaskProtection", q.of("task", in.Cluster, in.Tasks...)...)
		}),
		"ExecuteCommand": on(e, func(q request, in *api.ExecuteCommandInput) []auth.Check {
			q = q.in(in.Cluster).key("ecs:container-name", val(in.Container))
			return q.check("ExecuteCommand", append(q.of("task", in.Cluster, val(in.Task)), q.clusterOf(in.Cluster))...)
		}),

		"CreateService": on(e, func(q request, in *api.CreateServiceInput) []auth.Check {
			arn := q.of("service", in.Cluster, val(in.ServiceName))[0]
			q = q.in(in.Cluster).providers(in.CapacityProviderStrategy).flag("ecs:enable-execute-command", val(in.EnableExecuteCommand)).
				flag("ecs:enable-ecs-managed-tags", val(in.EnableECSManagedTags)).
				flag("ecs:enable-service-connect", in.ServiceConnectConfiguration != nil && val(in.ServiceConnectConfiguration.Enabled))
			if in.TaskDefinition != nil {
				q = q.key("ecs:task-definition", q.definitionOf(*in.TaskDefinition))
			}
			return q.create("CreateService", arn, arn, in.Tags, false)
		}),
		"UpdateService": on(e, func(q request, in *api.UpdateServiceInput) []auth.Check {
			q = q.in(in.Cluster).providers(in.CapacityProviderStrategy)
			if in.TaskDefinition != nil {
				q = q.key("ecs:task-definition", q.definitionOf(*in.TaskDefinition))
			}
			if in.EnableExecuteCommand != nil {
				q = q.flag("ecs:enable-execute-command", *in.EnableExecuteCommand)
			}
			return q.check("UpdateService", q.of("service", in.Cluster, val(in.Service))...)
		}),
		"DeleteService": on(e, func(q request, in *api.DeleteServiceInput) []auth.Check {
			return q.in(in.Cluster).check("DeleteService", q.of("service", in.Cluster, val(in.Service))...)
		}),
		"DescribeServices": on(e, func(q request, in *api.DescribeServicesInput) []auth.Check {
			return q.in(in.Cluster).check("DescribeServices", q.of("service", in.Cluster, in.Services...)...)
		}),
		"ListServices": on(e, func(q request, in *api.ListServicesInput) []auth.Check {
			return q.in(in.Cluster).check("ListServices")
		}),

		"ListServicesByNamespace": on(e, func(q request, in *api.ListServicesByNamespaceInput) []auth.Check {
			return q.check("ListServicesByNamespace")
		}),
		"ListServiceDeployments": on(e, func(q request, in *api.ListServiceDeploymentsInput) []auth.Check {
			return q.in(in.Cluster).check("ListServiceDeployments", q.of("service", in.Cluster, val(in.Service))...)
		}),
		"DescribeServiceDeployments": on(e, func(q request, in *api.DescribeServiceDeploymentsInput) []auth.Check {
			return q.parts("DescribeServiceDeployments", "service-deployment", in.ServiceDeploymentArns...)
		}),
		"DescribeServiceRevisions": on(e, func(q request, in *api.DescribeServiceRevisionsInput) []auth.Check {
			return q.parts("DescribeServiceRevisions", "service-revision", in.ServiceRevisionArns...)
		}),
		"StopServiceDeployment": on(e, func(q request, in *api.StopServiceDeploymentInput) []auth.Check {
			return q.parts("StopServiceDeployment", "service-deployment", val(in.ServiceDeploymentArn))
		}),
		"ContinueServiceDeployment": on(e, func(q request, in *api.ContinueServiceDeploymentInput) []auth.Check {
			return q.parts("ContinueServiceDeployment", "service-deployment", val(in.ServiceDeploymentArn))
		}),

		"CreateTaskSet": on(e, func(q request, in *api.CreateTaskSetInput) []auth.Check {
			q = q.service(in.Cluster, in.Service).key("ecs:task-definition", q.definitionOf(val(in.TaskDefinition)))
			sets := q.taskSets(in.Cluster, in.Service, "*")[0]
			return q.create("CreateTaskSet", sets, sets, in.Tags, false)
		}),
		"DescribeTaskSets": on(e, func(q request, in *api.DescribeTaskSetsInput) []auth.Check {
			refs := in.TaskSets
			if len(refs) == 0 {
				refs = []string{"*"}
			}
			return q.service(in.Cluster, in.Service).check("DescribeTaskSets", q.taskSets(in.Cluster, in.Service, refs...)...)
		}),
		"UpdateTaskSet": on(e, func(q request, in *api.UpdateTaskSetInput) []auth.Check {
			return q.service(in.Cluster, in.Service).check("UpdateTaskSet", q.taskSets(in.Cluster, in.Service, val(in.TaskSet))...)
		}),
		"DeleteTaskSet": on(e, func(q request, in *api.DeleteTaskSetInput) []auth.Check {
			return q.service(in.Cluster, in.Service).check("DeleteTaskSet", q.taskSets(in.Cluster, in.Service, val(in.TaskSet))...)
		}),
		"UpdateServicePrimaryTaskSet": on(e, func(q request, in *api.UpdateServicePrimaryTaskSetInput) []auth.Check {
			return q.in(in.Cluster).check("UpdateServicePrimaryTaskSet", q.of("service", in.Cluster, val(in.Service))...)
		}),

		"RegisterContainerInstance": on(e, func(q request, in *api.RegisterContainerInstanceInput) []auth.Check {
			cluster := q.clusterOf(in.Cluster)
			created := q.arn(q.account, fmt.Sprintf("container-instance/%s/*", state.ShortARN(cluster)))
			return q.create("RegisterContainerInstance", cluster, created, in.Tags, false)
		}),
		"DescribeContainerInstances": on(e, func(q request, in *api.DescribeContainerInstancesInput) []auth.Check {
			return q.in(in.Cluster).check("DescribeContainerInstances", q.of("container-instance", in.Cluster, in.ContainerInstances...)...)
		}),
		"ListContainerInstances": on(e, func(q request, in *api.ListContainerInstancesInput) []auth.Check {
			return q.check("ListContainerInstances", q.clusterOf(in.Cluster))
		}),

		"TagResource": on(e, func(q request, in *api.TagResourceInput) []auth.Check {
			return q.tags(in.Tags).check("TagResource", tagTarget(in.ResourceArn))
		}),
		"UntagResource": on(e, func(q request, in *api.UntagResourceInput) []auth.Check {
			return q.key("aws:TagKeys", in.TagKeys...).check("UntagResource", tagTarget(in.ResourceArn))
		}),
		"ListTagsForResource": on(e, func(q request, in *api.ListTagsForResourceInput) []auth.Check {
			return q.check("ListTagsForResource", tagTarget(in.ResourceArn))
		}),
		"PutAccountSetting": on(e, func(q request, in *api.PutAccountSettingInput) []auth.Check {
			return q.key("ecs:account-setting", string(in.Name)).check("PutAccountSetting")
		}),
		"PutAccountSettingDefault": on(e, func(q request, in *api.PutAccountSettingDefaultInput) []auth.Check {
			return q.key("ecs:account-setting", string(in.Name)).check("PutAccountSettingDefault")
		}),
		"DeleteAccountSetting": on(e, func(q request, in *api.DeleteAccountSettingInput) []auth.Check {
			return q.key("ecs:account-setting", string(in.Name)).check("DeleteAccountSetting")
		}),
	}
	maps.Copy(rules, e.authorizeCapacity())
	return rules
}
