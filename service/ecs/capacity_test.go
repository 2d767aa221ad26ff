package ecs

import (
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/aws/autoscaling"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	groupARN    = "arn:aws:autoscaling:us-east-1:" + account + ":autoScalingGroup:8a1c-22:autoScalingGroupName/web"
	roleARN     = "arn:aws:iam::" + account + ":role/infra"
	profileARN  = "arn:aws:iam::" + account + ":instance-profile/nodes"
	managedBody = `"managedInstancesProvider":{"infrastructureRoleArn":"` + roleARN + `","instanceLaunchTemplate":{"ec2InstanceProfileArn":"` + profileARN + `",
		"networkConfiguration":{"subnets":["subnet-1"],"securityGroups":["sg-1"]},"instanceRequirements":{"vCpuCount":{"min":1,"max":4},"memoryMiB":{"min":1024}}}}`
)

// putGroup makes an Auto Scaling group.
func putGroup(tx *store.Tx, name, id string) {
	state.ScalingGroups.Put(tx, &state.ScalingGroup{ARN: "arn:aws:autoscaling:us-east-1:" + account + ":autoScalingGroup:" + id + ":autoScalingGroupName/" + name, Account: account, Name: name,
		Doc: autoscaling.AutoScalingGroup{NewInstancesProtectedFromScaleIn: new(true), MinSize: new(int32(0)), MaxSize: new(int32(9)), DesiredCapacity: new(int32(0))}})
}

// A provider stands for a group that is there, and protects only the instances
// of one that protects new ones.
func TestProvidersHaveGroups(t *testing.T) {
	b := newBench(t)
	none := read[api.CreateCapacityProviderInput](t, `{"name":"p","autoScalingGroupProvider":{"autoScalingGroupArn":"none"}}`)
	if _, err := b.CreateCapacityProvider(b.ctx, none); err == nil || err.Error() != "ClientException: "+badGroup {
		t.Errorf("a group that is not there: %v", err)
	}
	b.put(func(tx *store.Tx) {
		g, _ := state.ScalingGroups.Get(tx, state.ScalingGroupKey(account, "g"))
		n := g.Clone()
		n.Doc.NewInstancesProtectedFromScaleIn = new(false)
		state.ScalingGroups.Put(tx, n)
	})
	open := read[api.CreateCapacityProviderInput](t, `{"name":"p","autoScalingGroupProvider":{"autoScalingGroupArn":"g","managedScaling":{"status":"ENABLED"},"managedTerminationProtection":"ENABLED"}}`)
	if _, err := b.CreateCapacityProvider(b.ctx, open); err == nil || !strings.Contains(err.Error(), "the Auto Scaling group must have instance protection from scale in enabled.") {
		t.Errorf("a group without protection: %v", err)
	}
	b.provide("p", `"autoScalingGroupProvider":{"autoScalingGroupArn":"other","managedScaling":{"status":"ENABLED"},"managedTerminationProtection":"ENABLED"}`)
	if g, _ := state.ScalingGroups.Get(b.db.Snapshot(), state.ScalingGroupKey(account, "other")); len(g.Doc.Tags) != 1 || *g.Doc.Tags[0].Key != "AmazonECSManaged" {
		t.Errorf("tags %+v", g.Doc.Tags)
	}
}

// profile makes the instance profile of managedBody.
func (b *bench) profile() {
	b.put(func(tx *store.Tx) {
		state.InstanceProfiles.Put(tx, &state.InstanceProfile{Account: account, Path: "/", Name: "nodes", Role: "node"})
		state.Roles.Put(tx, &state.Role{Account: account, Path: "/", Name: "node"})
	})
}

func (b *bench) provide(name, more string) *api.CapacityProvider {
	b.t.Helper()
	return try(b, b.CreateCapacityProvider, read[api.CreateCapacityProviderInput](b.t, `{"name":"`+name+`",`+more+`}`)).CapacityProvider
}

func (b *bench) putProviders(names, strategy string) *api.Cluster {
	b.t.Helper()
	return try(b, b.PutClusterCapacityProviders, read[api.PutClusterCapacityProvidersInput](b.t,
		`{"cluster":"default","capacityProviders":[`+names+`],"defaultCapacityProviderStrategy":[`+strategy+`]}`)).Cluster
}

func TestCapacityProviders(t *testing.T) {
	b := newBench(t)
	p := b.provide("web", `"autoScalingGroupProvider":{"autoScalingGroupArn":"`+groupARN+`","managedScaling":{"status":"ENABLED","targetCapacity":80}},"tags":[{"key":"k","value":"v"}]`)
	want := read[api.AutoScalingGroupProvider](t, `{"autoScalingGroupArn":"`+groupARN+`","managedScaling":{"status":"ENABLED","targetCapacity":80,
		"minimumScalingStepSize":1,"maximumScalingStepSize":10000,"instanceWarmupPeriod":300},"managedTerminationProtection":"DISABLED","managedDraining":"ENABLED"}`)
	if *p.CapacityProviderArn != prefix+"capacity-provider/web" || p.Status != "ACTIVE" || p.UpdateStatus != "CREATE_COMPLETE" || p.Type != "EC2_AUTOSCALING" ||
		!sameDocument(p.AutoScalingGroupProvider, want) || len(p.Tags) != 1 {
		t.Errorf("%s", pretty(p))
	}
	up := try(b, b.UpdateCapacityProvider, read[api.UpdateCapacityProviderInput](t, `{"name":"web","autoScalingGroupProvider":{"managedScaling":{"instanceWarmupPeriod":5},"managedTerminationProtection":"ENABLED"}}`)).CapacityProvider
	if s := up.AutoScalingGroupProvider.ManagedScaling; *s.InstanceWarmupPeriod != 5 || *s.TargetCapacity != 80 || up.AutoScalingGroupProvider.ManagedTerminationProtection != "ENABLED" || up.UpdateStatus != "UPDATE_COMPLETE" {
		t.Errorf("%s", pretty(up))
	}

	names := func(in *api.DescribeCapacityProvidersInput) string {
		t.Helper()
		out := try(b, b.DescribeCapacityProviders, in)
		var got []string
		for _, p := range out.CapacityProviders {
			got = append(got, *p.Name+":"+string(p.Type))
		}
		for _, f := range out.Failures {
			got = append(got, *f.Reason+" "+strings.TrimPrefix(*f.Arn, prefix))
		}
		return strings.Join(got, ", ")
	}
	for _, c := range []struct {
		in   api.DescribeCapacityProvidersInput
		want string
	}{
		{api.DescribeCapacityProvidersInput{}, "FARGATE:FARGATE, FARGATE_SPOT:FARGATE_SPOT, web:EC2_AUTOSCALING"},
		{api.DescribeCapacityProvidersInput{CapacityProviders: []string{"web", prefix + "capacity-provider/FARGATE", "none"}}, "web:EC2_AUTOSCALING, FARGATE:FARGATE, MISSING capacity-provider/none"},
		{api.DescribeCapacityProvidersInput{Cluster: new("default")}, ""},
		{api.DescribeCapacityProvidersInput{MaxResults: new(int32(1))}, "FARGATE:FARGATE"},
	} {
		if got := names(&c.in); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	first := try(b, b.DescribeCapacityProviders, &api.DescribeCapacityProvidersInput{MaxResults: new(int32(2))})
	if got := names(&api.DescribeCapacityProvidersInput{NextToken: first.NextToken}); got != "web:EC2_AUTOSCALING" {
		t.Errorf("the second page has %s", got)
	}
	if d := try(b, b.DescribeCapacityProviders, &api.DescribeCapacityProvidersInput{CapacityProviders: []string{"web"}}); len(d.CapacityProviders[0].Tags) != 0 {
		t.Error("tags are shown to who did not ask")
	}
	if d := try(b, b.DescribeCapacityProviders, &api.DescribeCapacityProvidersInput{CapacityProviders: []string{"web"}, Include: []api.CapacityProviderField{"TAGS"}}); len(d.CapacityProviders[0].Tags) != 1 {
		t.Error("tags are not shown")
	}

	// Another account has its own, and may use the same name and group.
	other := auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.User, Account: "999999999999", ARN: "arn:aws:iam::999999999999:user/eve"})
	if out := as(b, other, b.DescribeCapacityProviders, &api.DescribeCapacityProvidersInput{}); len(out.CapacityProviders) != 2 {
		t.Errorf("another account sees %s", pretty(out))
	}
	if _, err := b.DeleteCapacityProvider(other, &api.DeleteCapacityProviderInput{CapacityProvider: p.CapacityProviderArn}); err == nil {
		t.Error("another account deleted a provider")
	}

	b.putProviders(`"web"`, "")
	refuse(b, b.DeleteCapacityProvider, &api.DeleteCapacityProviderInput{CapacityProvider: new("web")},
		"ClientException: The capacity provider cannot be deleted because it is associated with cluster: default. Remove the capacity provider from the cluster and try again.")
	b.putProviders("", "")
	gone := try(b, b.DeleteCapacityProvider, &api.DeleteCapacityProviderInput{CapacityProvider: new("web")}).CapacityProvider
	if gone.Status != "INACTIVE" || gone.UpdateStatus != "DELETE_COMPLETE" {
		t.Errorf("%s", pretty(gone))
	}
	refuse(b, b.DeleteCapacityProvider, &api.DeleteCapacityProviderInput{CapacityProvider: new("web")}, "ClientException: "+noProvider)
	refuse(b, b.DeleteCapacityProvider, &api.DeleteCapacityProviderInput{CapacityProvider: new("FARGATE")}, "ClientException: The specified capacity provider FARGATE is reserved and cannot be changed.")
}

func TestCreateCapacityProviderRefuses(t *testing.T) {
	b := newBench(t)
	b.provide("web", `"autoScalingGroupProvider":{"autoScalingGroupArn":"`+groupARN+`"}`)
	group := func(name, more string) string {
		return `{"name":"` + name + `","autoScalingGroupProvider":{` + more + `}}`
	}
	const used = "ClientException: The specified Auto Scaling group ARN is already being used by another capacity provider. Specify a unique Auto Scaling group ARN and try again."
	for _, c := range []struct{ in, want string }{
		{group("aws-x", `"autoScalingGroupArn":"g"`), "ClientException: " + badProvider},
		{group("ECSx", `"autoScalingGroupArn":"g"`), "ClientException: " + badProvider},
		{group("fargate2", `"autoScalingGroupArn":"g"`), "ClientException: " + badProvider},
		{group("a b", `"autoScalingGroupArn":"g"`), "ClientException: " + badProvider},
		{`{"name":"x"}`, "ClientException: Specify either an Auto Scaling group provider or a managed instances provider."},
		{group("x", `"autoScalingGroupArn":"arn:aws:autoscaling:us-east-1:1:group"`), "ClientException: The specified Auto Scaling group ARN is invalid. Specify a valid Auto Scaling group ARN and try again."},
		{group("x", `"autoScalingGroupArn":"`+strings.Replace(groupARN, account, "999999999999", 1)+`"`), "ClientException: The specified Auto Scaling group ARN is invalid. Specify a valid Auto Scaling group ARN and try again."},
		{group("x", `"autoScalingGroupArn":"`+groupARN+`"`), used},
		{group("x", `"autoScalingGroupArn":"web"`), used}, // the same group by its name
		{group("web", `"autoScalingGroupArn":"other"`), "ClientException: The specified capacity provider already exists. To change the configuration of an existing capacity provider, update the capacity provider."},
		{group("x", `"autoScalingGroupArn":"g","managedTerminationProtection":"ENABLED"`), "ClientException: The managed termination protection setting for the capacity provider is invalid. To enable managed termination protection for a capacity provider, managed scaling must be enabled."},
		{group("x", `"autoScalingGroupArn":"g","managedScaling":{"minimumScalingStepSize":5,"maximumScalingStepSize":2}`), "ClientException: The specified managed scaling configuration is invalid. The minimum scaling step size cannot be greater than the maximum scaling step size."},
		{`{"name":"x",` + managedBody + `}`, "ClientException: A cluster must be specified for a capacity provider of managed instances."},
		{`{"name":"x","cluster":"default",` + managedBody + `}`, "ClientException: The specified managed instances provider is invalid. The EC2 instance profile does not exist."},
	} {
		refuse(b, b.CreateCapacityProvider, read[api.CreateCapacityProviderInput](t, c.in), c.want)
	}
	b.profile()
	b.roles[roleARN] = &api.AccessDeniedException{Message: "no"}
	refuse(b, b.CreateCapacityProvider, read[api.CreateCapacityProviderInput](t, `{"name":"x","cluster":"default",`+managedBody+`}`), "AccessDeniedException: no")
}

func TestManagedInstancesProvider(t *testing.T) {
	b := newBench(t)
	b.profile()
	b.passed = nil
	p := b.provide("mi", `"cluster":"default",`+managedBody)
	if p.Type != "MANAGED_INSTANCES" || *p.Cluster != prefix+"cluster/default" || *p.ManagedInstancesProvider.InstanceLaunchTemplate.InstanceRequirements.VCpuCount.Max != 4 {
		t.Errorf("%s", pretty(p))
	}
	if want := []string{"infra to ecs.amazonaws.com", "node to ec2.amazonaws.com"}; !slices.Equal(b.passed, want) {
		t.Errorf("passed %v, want %v", b.passed, want)
	}
	up := try(b, b.UpdateCapacityProvider, read[api.UpdateCapacityProviderInput](t, `{"name":"mi","cluster":"default","managedInstancesProvider":{"infrastructureRoleArn":"`+roleARN+`",
		"instanceLaunchTemplate":{"monitoring":"DETAILED"},"propagateTags":"CAPACITY_PROVIDER"}}`)).CapacityProvider.ManagedInstancesProvider
	if up.InstanceLaunchTemplate.Monitoring != "DETAILED" || up.InstanceLaunchTemplate.NetworkConfiguration == nil || up.PropagateTags != "CAPACITY_PROVIDER" {
		t.Errorf("%s", pretty(up))
	}
	if c := try(b, b.DescribeClusters, &api.DescribeClustersInput{}).Clusters[0]; !slices.Equal(c.CapacityProviders, []string{"mi"}) {
		t.Errorf("the cluster has %v", c.CapacityProviders)
	}
	refuse(b, b.DeleteCluster, &api.DeleteClusterInput{Cluster: new("default")}, "ClusterContainsCapacityProviderException: The Cluster cannot be deleted while Capacity Providers are active.")
	try(b, b.CreateCluster, &api.CreateClusterInput{ClusterName: new("other")})
	refuse(b, b.PutClusterCapacityProviders, &api.PutClusterCapacityProvidersInput{Cluster: new("other"), CapacityProviders: []string{"mi"}},
		"InvalidParameterException: The specified capacity provider 'mi' belongs to another cluster.")
	b.putProviders(`"mi"`, `{"capacityProvider":"mi","weight":1}`)
	refuse(b, b.DeleteCapacityProvider, &api.DeleteCapacityProviderInput{CapacityProvider: new("mi")},
		"ClientException: The capacity provider cannot be deleted because it is in use by cluster: default. Remove it from the services, daemons and strategies of the cluster and try again.")
	b.putProviders(`"mi"`, "")
	try(b, b.DeleteCapacityProvider, &api.DeleteCapacityProviderInput{CapacityProvider: new("mi")})
	try(b, b.DeleteCluster, &api.DeleteClusterInput{Cluster: new("default")})
}

func TestPutClusterCapacityProviders(t *testing.T) {
	b := newBench(t)
	b.provide("web", `"autoScalingGroupProvider":{"autoScalingGroupArn":"`+groupARN+`"}`)
	c := b.putProviders(`"FARGATE","FARGATE_SPOT","web"`, `{"capacityProvider":"FARGATE","base":1},{"capacityProvider":"FARGATE_SPOT","weight":4}`)
	want := read[[]api.CapacityProviderStrategyItem](t, `[{"capacityProvider":"FARGATE","weight":0,"base":1},{"capacityProvider":"FARGATE_SPOT","weight":4,"base":0}]`)
	if !slices.Equal(c.CapacityProviders, []string{"FARGATE", "FARGATE_SPOT", "web"}) || !sameDocument(c.DefaultCapacityProviderStrategy, *want) ||
		*c.AttachmentsStatus != "UPDATE_COMPLETE" || len(c.Attachments) != 0 {
		t.Errorf("%s", pretty(c))
	}
	many := `"` + strings.Repeat(`FARGATE","`, 20) + `x"`
	for _, x := range []struct{ names, strategy, want string }{
		{`"none"`, "", "The specified capacity provider 'none' was not found. Specify a valid capacity provider and try again."},
		{`"web","web"`, "", "The capacity providers of a cluster cannot contain a duplicate: web."},
		{many, "", "A cluster can have at most 20 capacity providers."},
		{`"FARGATE"`, `{"capacityProvider":"FARGATE_SPOT","weight":1}`, notAssociated},
		{`"FARGATE","web"`, `{"capacityProvider":"FARGATE","weight":1},{"capacityProvider":"web","weight":1}`, "The specified capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups, managed instances and Fargate."},
		{`"FARGATE","FARGATE_SPOT"`, `{"capacityProvider":"FARGATE","base":1},{"capacityProvider":"FARGATE_SPOT","base":1}`, "Only one capacity provider in a capacity provider strategy can have a base value defined."},
		{`"FARGATE"`, `{"capacityProvider":"FARGATE"},{"capacityProvider":"FARGATE"}`, "A capacity provider strategy cannot contain a duplicate capacity provider: FARGATE."},
	} {
		refuse(b, b.PutClusterCapacityProviders, read[api.PutClusterCapacityProvidersInput](t,
			`{"cluster":"default","capacityProviders":[`+x.names+`],"defaultCapacityProviderStrategy":[`+x.strategy+`]}`), "InvalidParameterException: "+x.want)
	}
	refuse(b, b.PutClusterCapacityProviders, &api.PutClusterCapacityProvidersInput{Cluster: new("none")}, "ClusterNotFoundException: Cluster not found.")

	// A quota is what somebody has set it to.
	b.put(func(tx *store.Tx) {
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: "ecs/capacity-providers-per-cluster", Value: 1})
	})
	refuse(b, b.PutClusterCapacityProviders, &api.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{"FARGATE", "web"}},
		"InvalidParameterException: A cluster can have at most 1 capacity providers.")

	// A new cluster may have them from the start.
	n := try(b, b.CreateCluster, read[api.CreateClusterInput](t, `{"clusterName":"n","capacityProviders":["FARGATE"],"defaultCapacityProviderStrategy":[{"capacityProvider":"FARGATE","weight":1}]}`)).Cluster
	if !slices.Equal(n.CapacityProviders, []string{"FARGATE"}) || len(n.DefaultCapacityProviderStrategy) != 1 {
		t.Errorf("%s", pretty(n))
	}
	try(b, b.DeleteCluster, &api.DeleteClusterInput{Cluster: new("n")})
}

// spread runs tasks and counts them by what they are said to run on.
func (b *bench) spread(more string) map[string]int {
	b.t.Helper()
	out := try(b, b.RunTask, read[api.RunTaskInput](b.t, `{"taskDefinition":"web","networkConfiguration":`+webNetwork+more+`}`))
	got := map[string]int{}
	for _, t := range out.Tasks {
		got[val(t.CapacityProviderName)+"/"+string(t.LaunchType)]++
	}
	return got
}

func TestRunTaskByStrategy(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.provide("web", `"autoScalingGroupProvider":{"autoScalingGroupArn":"`+groupARN+`"}`)
	b.putProviders(`"FARGATE","FARGATE_SPOT","web"`, `{"capacityProvider":"FARGATE","weight":1},{"capacityProvider":"FARGATE_SPOT","weight":4}`)
	for _, c := range []struct {
		more string
		want map[string]int
	}{
		{`,"count":10`, map[string]int{"FARGATE/FARGATE": 2, "FARGATE_SPOT/FARGATE": 8}}, // the cluster's default
		{`,"count":10,"capacityProviderStrategy":[{"capacityProvider":"FARGATE","base":2,"weight":1},{"capacityProvider":"FARGATE_SPOT","weight":3}]`,
			map[string]int{"FARGATE/FARGATE": 4, "FARGATE_SPOT/FARGATE": 6}},
		{`,"count":3,"capacityProviderStrategy":[{"capacityProvider":"FARGATE_SPOT","weight":1}]`, map[string]int{"FARGATE_SPOT/FARGATE": 3}},
		{`,"count":2,"launchType":"FARGATE"`, map[string]int{"/FARGATE": 2}},
	} {
		if got := b.spread(c.more); !sameDocument(got, c.want) {
			t.Errorf("%s: %v, want %v", c.more, got, c.want)
		}
	}
	for strategy, want := range map[string]string{
		`{"capacityProvider":"FARGATE"}`:                                                  "The specified capacity provider strategy must contain at least one capacity provider with a weight greater than 0.",
		`{"capacityProvider":"none","weight":1}`:                                          notAssociated,
		`{"capacityProvider":"FARGATE","weight":1},{"capacityProvider":"web","weight":1}`: "The specified capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups, managed instances and Fargate.",
	} {
		refuse(b, b.RunTask, read[api.RunTaskInput](t, `{"taskDefinition":"web","networkConfiguration":`+webNetwork+`,"capacityProviderStrategy":[`+strategy+`]}`), "InvalidParameterException: "+want)
	}
	// A group has no instances, and that is said instead of waiting for them for ever.
	refuse(b, b.RunTask, read[api.RunTaskInput](t, `{"taskDefinition":"web","networkConfiguration":`+strings.Replace(webNetwork, "ENABLED", "DISABLED", 1)+`,"capacityProviderStrategy":[{"capacityProvider":"web","weight":1}]}`),
		"InvalidParameterException: No Container Instances were found in your capacity provider.")

	refuse(b, b.PutClusterCapacityProviders, &api.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{"FARGATE"}},
		"ResourceInUseException: The specified capacity provider is in use and cannot be removed.")
	b.putProviders(`"FARGATE","FARGATE_SPOT"`, "") // web has no tasks
}

func TestCapacityKeys(t *testing.T) {
	b := newBench(t)
	caller := auth.FromContext(b.ctx)
	rules := b.Authorize()
	provider := func(n string) string { return prefix + "capacity-provider/" + n }
	for _, c := range []struct {
		op, resource string
		in           any
		keys         map[string][]string
	}{
		{"RunTask", prefix + "task-definition/web:*", read[api.RunTaskInput](t, `{"taskDefinition":"web","capacityProviderStrategy":[{"capacityProvider":"FARGATE"},{"capacityProvider":"web"}]}`),
			map[string][]string{"ecs:capacity-provider": {provider("FARGATE"), provider("web")}}},
		{"CreateService", prefix + "service/default/s", read[api.CreateServiceInput](t, `{"serviceName":"s","capacityProviderStrategy":[{"capacityProvider":"web"}]}`),
			map[string][]string{"ecs:capacity-provider": {provider("web")}}},
		{"CreateCapacityProvider", provider("web"), &api.CreateCapacityProviderInput{Name: new("web"), Cluster: new("c"), Tags: []api.Tag{{Key: new("k"), Value: new("v")}}},
			map[string][]string{"aws:RequestTag/k": {"v"}, "aws:TagKeys": {"k"}}},
		{"PutClusterCapacityProviders", prefix + "cluster/c", &api.PutClusterCapacityProvidersInput{Cluster: new("c"), CapacityProviders: []string{"web"}},
			map[string][]string{"ecs:capacity-provider": {provider("web")}}},
		{"PutAttributes", prefix + "container-instance/c/i", read[api.PutAttributesInput](t, `{"cluster":"c","attributes":[{"name":"a","targetId":"i"},{"name":"b","targetId":"i"}]}`),
			map[string][]string{"ecs:cluster": {prefix + "cluster/c"}}},
		{"ExecuteCommand", prefix + "task/c/" + strings.Repeat("a", 32), &api.ExecuteCommandInput{Cluster: new("c"), Task: new(strings.Repeat("a", 32)), Container: new("web")},
			map[string][]string{"ecs:cluster": {prefix + "cluster/c"}, "ecs:container-name": {"web"}}},
		{"CreateDaemon", prefix + "daemon/c/d", &api.CreateDaemonInput{ClusterArn: new("c"), DaemonName: new("d"), DaemonTaskDefinitionArn: new("x:1"), CapacityProviderArns: []string{provider("mi")}, EnableExecuteCommand: new(true)},
			map[string][]string{"ecs:cluster": {prefix + "cluster/c"}, "ecs:capacity-provider": {provider("mi")}, "ecs:enable-execute-command": {"true"}, "ecs:daemon-task-definition": {prefix + "daemon-task-definition/x:1"}}},
	} {
		checks := rules[c.op](b.ctx, b.db.Snapshot(), caller, c.in)
		if checks[0].Action != "ecs:"+c.op || checks[0].Resource != c.resource {
			t.Errorf("%s: %s on %s, want %s", c.op, checks[0].Action, checks[0].Resource, c.resource)
		}
		for k, want := range c.keys {
			if !slices.Equal(checks[0].Keys[k], want) {
				t.Errorf("%s: %s is %v, want %v", c.op, k, checks[0].Keys[k], want)
			}
		}
	}
}

func FuzzAutoScalingGroup(f *testing.F) {
	e := &ECS{cfg: Config{Region: "us-east-1"}}
	for _, s := range []string{groupARN, "web", "", "arn:aws:autoscaling:::", groupARN[:len(groupARN)-3], "a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !e.isGroup(account, s) {
			return
		}
		if !sameGroup(s, s) || isARN(s) && !sameGroup(s, s[strings.Index(s, groupName)+len(groupName):]) {
			t.Errorf("%q is not the group that it names", s)
		}
		if isARN(s) && !strings.Contains(s, account) {
			t.Errorf("%q is taken for a group of account %s", s, account)
		}
	})
}
