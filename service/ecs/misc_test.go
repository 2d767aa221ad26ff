package ecs

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	pages "github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func TestClusters(t *testing.T) {
	b := newBench(t)
	c := try(b, b.CreateCluster, &api.CreateClusterInput{ClusterName: new("prod"), Tags: []api.Tag{{Key: new("k"), Value: new("v")}}}).Cluster
	if *c.ClusterArn != prefix+"cluster/prod" || *c.Status != "ACTIVE" || *c.Settings[0].Value != "disabled" || *c.Tags[0].Key != "k" || *c.RunningTasksCount != 0 {
		t.Errorf("%s", pretty(c))
	}
	if again := try(b, b.CreateCluster, &api.CreateClusterInput{ClusterName: new("prod")}).Cluster; len(again.Tags) != 1 {
		t.Errorf("created again: %s", pretty(again))
	}
	if got := try(b, b.ListClusters, &api.ListClustersInput{}).ClusterArns; !slices.Equal(got, []string{prefix + "cluster/default", prefix + "cluster/prod"}) {
		t.Errorf("%v", got)
	}
	up := try(b, b.UpdateClusterSettings, &api.UpdateClusterSettingsInput{Cluster: new("prod"), Settings: []api.ClusterSetting{{Name: "containerInsights", Value: new("enabled")}}}).Cluster
	if *up.Settings[0].Value != "enabled" {
		t.Errorf("%s", pretty(up))
	}
	cfg := &api.ClusterConfiguration{ExecuteCommandConfiguration: &api.ExecuteCommandConfiguration{Logging: "DEFAULT"}}
	try(b, b.UpdateCluster, &api.UpdateClusterInput{Cluster: new("prod"), Configuration: cfg})
	out := try(b, b.DescribeClusters, &api.DescribeClustersInput{Clusters: []string{"prod", "none", prefix + "cluster/default"}, Include: []api.ClusterField{"CONFIGURATIONS", "SETTINGS", "STATISTICS", "TAGS"}})
	if len(out.Clusters) != 2 || out.Clusters[0].Configuration == nil || len(out.Clusters[0].Statistics) != 12 || *out.Failures[0].Reason != "MISSING" {
		t.Errorf("%s", pretty(out))
	}
	if d := try(b, b.DescribeClusters, &api.DescribeClustersInput{}).Clusters[0]; *d.ClusterName != "default" || len(d.Settings) != 0 || d.Configuration != nil {
		t.Errorf("%s", pretty(d))
	}

	b.register(webDefinition)
	b.run("")
	refuse(b, b.DeleteCluster, &api.DeleteClusterInput{Cluster: new("default")}, "ClusterContainsTasksException: The Cluster cannot be deleted while Tasks are active.")
	if d := try(b, b.DescribeClusters, &api.DescribeClustersInput{}).Clusters[0]; *d.PendingTasksCount != 1 {
		t.Errorf("%s", pretty(d))
	}
	try(b, b.DeleteCluster, &api.DeleteClusterInput{Cluster: new("prod")})
	if d := try(b, b.DescribeClusters, &api.DescribeClustersInput{Clusters: []string{"prod"}}).Clusters[0]; *d.Status != "INACTIVE" {
		t.Errorf("%s", pretty(d))
	}
	for _, c := range []struct {
		in   api.CreateClusterInput
		want string
	}{
		{api.CreateClusterInput{ClusterName: new("a b")}, "Cluster name contains invalid characters."},
		{api.CreateClusterInput{ServiceConnectDefaults: &api.ClusterServiceConnectDefaultsRequest{}}, "serviceConnectDefaults is not supported by this version of Berth."},
		{api.CreateClusterInput{Settings: []api.ClusterSetting{{Name: "containerInsights", Value: new("x")}}}, "Invalid value for containerInsights: x. Valid values: enhanced, enabled, disabled"},
	} {
		refuse(b, b.CreateCluster, &c.in, "InvalidParameterException: "+c.want)
	}
	refuse(b, b.DeleteCluster, &api.DeleteClusterInput{Cluster: new("none")}, "ClusterNotFoundException: Cluster not found.")
	b.must(b.Bootstrap(b.ctx)) // a second start changes nothing
}

func TestTags(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.createService("")
	task := *b.run(`,"enableECSManagedTags":true`).Tasks[0].TaskArn
	for _, arn := range []string{prefix + "cluster/default", prefix + "task-definition/web:1", prefix + "service/default/web", task, nodeInst} {
		tags := func() string {
			var out []string
			for _, tag := range try(b, b.ListTagsForResource, &api.ListTagsForResourceInput{ResourceArn: &arn}).Tags {
				if !strings.HasPrefix(*tag.Key, "aws:") {
					out = append(out, *tag.Key+"="+*tag.Value)
				}
			}
			return strings.Join(out, " ")
		}
		try(b, b.TagResource, &api.TagResourceInput{ResourceArn: &arn, Tags: []api.Tag{{Key: new("z"), Value: new("1")}, {Key: new("a"), Value: new("2")}}})
		try(b, b.TagResource, &api.TagResourceInput{ResourceArn: &arn, Tags: []api.Tag{{Key: new("z"), Value: new("3")}}})
		if got := tags(); got != "z=3 a=2" {
			t.Errorf("%s: %s", arn, got)
		}
		try(b, b.UntagResource, &api.UntagResourceInput{ResourceArn: &arn, TagKeys: []string{"z", "none"}})
		if got := tags(); got != "a=2" {
			t.Errorf("%s untagged: %s", arn, got)
		}
	}
	refuse(b, b.UntagResource, &api.UntagResourceInput{ResourceArn: &task, TagKeys: []string{"aws:ecs:clusterName"}}, "InvalidParameterException: Tag keys starting with 'aws:' are reserved for system use.")
	var many []api.Tag
	for i := range 51 {
		many = append(many, api.Tag{Key: new(fmt.Sprint(i)), Value: new("")})
	}
	refuse(b, b.TagResource, &api.TagResourceInput{ResourceArn: &task, Tags: many}, "InvalidParameterException: The number of tags exceeds the limit of 50.")
	refuse(b, b.TagResource, &api.TagResourceInput{ResourceArn: &task, Tags: many[:50]}, "InvalidParameterException: The number of tags exceeds the limit of 50.")
	for ref, want := range map[string]string{
		"x":                             "InvalidParameterException: Invalid identifier: x",
		prefix + "cluster/none":         "ClusterNotFoundException: Cluster not found.",
		prefix + "service/default/none": "InvalidParameterException: The specified service could not be found.",
		strings.Replace(task, account, "999999999999", 1): "InvalidParameterException: Invalid identifier: Identifier is for 999999999999. Your accountId is " + account,
	} {
		refuse(b, b.ListTagsForResource, &api.ListTagsForResourceInput{ResourceArn: &ref}, want)
	}
}

func TestTagsReachTasks(t *testing.T) {
	b := newBench(t)
	b.register(strings.Replace(webDefinition, `{"family"`, `{"tags":[{"key":"from","value":"def"},{"key":"k","value":"def"}],"family"`, 1))
	v := b.run(`,"propagateTags":"TASK_DEFINITION","enableECSManagedTags":true,"tags":[{"key":"k","value":"run"}]`).Tasks[0]
	var got []string
	for _, tag := range v.Tags {
		got = append(got, *tag.Key+"="+*tag.Value)
	}
	if !slices.Equal(got, []string{"from=def", "k=run", "aws:ecs:clusterName=default"}) {
		t.Errorf("%v", got)
	}
	if d := b.describe(*v.TaskArn); len(d.Tags) != 0 {
		t.Errorf("tags shown without being asked for: %v", d.Tags)
	}
}

func TestAccountSettings(t *testing.T) {
	b := newBench(t)
	value := func(name api.SettingName) string {
		out := try(b, b.ListAccountSettings, &api.ListAccountSettingsInput{Name: name, EffectiveSettings: new(true)}).Settings
		return *out[0].Value + " " + strings.TrimPrefix(*out[0].PrincipalArn, "arn:aws:iam::"+account+":")
	}
	if got := value("containerInsights"); got != "disabled root" {
		t.Error(got)
	}
	try(b, b.PutAccountSettingDefault, &api.PutAccountSettingDefaultInput{Name: "containerInsights", Value: new("enhanced")})
	if got := value("containerInsights"); got != "enhanced root" {
		t.Error(got)
	}
	try(b, b.PutAccountSetting, &api.PutAccountSettingInput{Name: "containerInsights", Value: new("enabled")})
	if got := value("containerInsights"); got != "enabled user/ann" {
		t.Error(got)
	}
	if c := try(b, b.CreateCluster, &api.CreateClusterInput{ClusterName: new("x")}).Cluster; *c.Settings[0].Value != "enabled" {
		t.Errorf("%s", pretty(c.Settings))
	}
	if own := try(b, b.ListAccountSettings, &api.ListAccountSettingsInput{}).Settings; len(own) != 1 {
		t.Errorf("%s", pretty(own))
	}
	try(b, b.DeleteAccountSetting, &api.DeleteAccountSettingInput{Name: "containerInsights"})
	if got := value("containerInsights"); got != "enhanced root" {
		t.Error(got)
	}
	first := try(b, b.ListAccountSettings, &api.ListAccountSettingsInput{EffectiveSettings: new(true)})
	rest := try(b, b.ListAccountSettings, &api.ListAccountSettingsInput{EffectiveSettings: new(true), NextToken: first.NextToken})
	if len(first.Settings)+len(rest.Settings) != len(settingRules) {
		t.Errorf("%d and %d settings", len(first.Settings), len(rest.Settings))
	}
	for name, v := range map[api.SettingName]string{"taskLongArnFormat": "disabled", "guardDutyActivate": "on", "x": "y"} {
		if _, err := b.PutAccountSetting(b.ctx, &api.PutAccountSettingInput{Name: name, Value: &v}); err == nil {
			t.Errorf("%s=%s was taken", name, v)
		}
	}
}

func TestRegisterContainerInstance(t *testing.T) {
	b := newBench(t)
	in := read[api.RegisterContainerInstanceInput](t, `{"cluster":"nodes","containerInstanceArn":"`+nodeInst+`",
		"attributes":[{"name":"ecs.os-type","value":"linux"},{"name":"ecs.capability.full-sync"},{"name":"ecs.cpu-architecture","value":"arm64"}],
		"totalResources":[{"name":"CPU","type":"INTEGER","integerValue":2048}],"versionInfo":{"agentVersion":"1.2.3"}}`)
	out := as(b, b.node, b.RegisterContainerInstance, in).ContainerInstance
	var got []string
	for _, a := range out.Attributes {
		got = append(got, *a.Name+"="+val(a.Value))
	}
	if !slices.Equal(got, []string{"ecs.os-type=linux", "ecs.capability.full-sync=", "ecs.cpu-architecture=arm64", "ecs.availability-zone=us-east-1a"}) || *out.ContainerInstanceArn != nodeInst {
		t.Errorf("%v", got)
	}
	if again := as(b, b.node, b.RegisterContainerInstance, in).ContainerInstance; *again.Version != *out.Version {
		t.Errorf("registering again changed the version from %d to %d", *out.Version, *again.Version)
	}
	refuse(b, b.RegisterContainerInstance, in, "AccessDeniedException: User: arn:aws:iam::"+account+":user/ann is not authorized to report for container instance "+nodeInst)
	if p := as(b, b.node, b.DiscoverPollEndpoint, &api.DiscoverPollEndpointInput{}); *p.Endpoint != "http://127.0.0.1:4566" || p.TelemetryEndpoint == nil {
		t.Errorf("%s", pretty(p))
	}

	// Nobody sees the node's instance.
	try(b, b.CreateCluster, &api.CreateClusterInput{ClusterName: new("nodes")})
	if l := try(b, b.ListContainerInstances, &api.ListContainerInstancesInput{Cluster: new("nodes")}); len(l.ContainerInstanceArns) != 0 {
		t.Errorf("%v", l.ContainerInstanceArns)
	}
	if d := try(b, b.DescribeContainerInstances, &api.DescribeContainerInstancesInput{Cluster: new("nodes"), ContainerInstances: []string{nodeInst}}); len(d.ContainerInstances) != 0 || *d.Failures[0].Reason != "MISSING" {
		t.Errorf("%s", pretty(d))
	}
	// But its architecture is that of its tasks.
	b.register(webDefinition)
	arn := *b.run("").Tasks[0].TaskArn
	b.place(arn)
	if a := b.describe(arn).Attributes[0]; *a.Name != "ecs.cpu-architecture" || *a.Value != "arm64" {
		t.Errorf("%s", pretty(a))
	}
}

func TestConcurrentRegistrationsCount(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int32]bool{}
	for range 8 {
		in := read[api.RegisterTaskDefinitionInput](t, def("", box("")))
		wg.Go(func() {
			e := New(b.cfg)
			out, err := e.RegisterTaskDefinition(b.ctx, in)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			seen[*out.TaskDefinition.Revision] = true
		})
	}
	wg.Wait()
	for i := range int32(8) {
		if !seen[i+1] {
			t.Errorf("revision %d is missing: %v", i+1, seen)
		}
	}
}

func TestAuthorize(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.register(webDefinition)
	r := b.db.Snapshot()
	caller := auth.FromContext(b.ctx)
	rules := b.Authorize()
	for _, c := range []struct {
		op   string
		in   any
		want string
	}{
		{"RunTask", &api.RunTaskInput{TaskDefinition: new("web")}, "ecs:RunTask task-definition/web:2"},
		{"RunTask", &api.RunTaskInput{TaskDefinition: new("nope"), Cluster: new("c")}, "ecs:RunTask task-definition/nope:*"},
		{"RunTask", &api.RunTaskInput{TaskDefinition: new("web:1"), Tags: []api.Tag{{Key: new("k"), Value: new("v")}}}, "ecs:RunTask task-definition/web:1, ecs:TagResource task/default/*"},
		{"StopTask", &api.StopTaskInput{Task: new(strings.Repeat("a", 32))}, "ecs:StopTask task/default/" + strings.Repeat("a", 32)},
		{"StopTask", &api.StopTaskInput{Task: new("arn:aws:ecs:us-east-1:999999999999:task/default/x")}, "ecs:StopTask task/default/x"},
		{"StopTask", &api.StopTaskInput{Task: new("bad")}, "ecs:StopTask task/default/bad"},
		{"CreateService", &api.CreateServiceInput{ServiceName: new("s"), Cluster: new("c")}, "ecs:CreateService service/c/s"},
		{"UpdateService", &api.UpdateServiceInput{Service: new(prefix + "service/c/s"), Cluster: new("c")}, "ecs:UpdateService service/c/s"},
		{"DescribeClusters", &api.DescribeClustersInput{}, "ecs:DescribeClusters cluster/default"},
		{"CreateCluster", &api.CreateClusterInput{ClusterName: new("n"), Tags: []api.Tag{{Key: new("k")}}}, "ecs:CreateCluster cluster/n, ecs:TagResource cluster/n"},
		{"RegisterTaskDefinition", &api.RegisterTaskDefinitionInput{Family: new("web"), Tags: []api.Tag{{Key: new("k")}}}, "ecs:RegisterTaskDefinition task-definition/web:*, ecs:TagResource task-definition/web:3"},
		{"TagResource", &api.TagResourceInput{ResourceArn: new(prefix + "cluster/default")}, "ecs:TagResource cluster/default"},
	} {
		var got []string
		for _, check := range rules[c.op](b.ctx, r, caller, c.in) {
			got = append(got, check.Action+" "+strings.TrimPrefix(check.Resource, prefix))
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %s, want %s", c.op, s, c.want)
		}
	}
	checks := rules["RunTask"](b.ctx, r, caller, &api.RunTaskInput{TaskDefinition: new("web"), Tags: []api.Tag{{Key: new("k"), Value: new("v")}}})
	want := map[string][]string{"aws:RequestTag/k": {"v"}, "aws:TagKeys": {"k"}, "ecs:CreateAction": {"RunTask"}}
	if !reflect.DeepEqual(checks[1].Keys, want) {
		t.Errorf("keys %v", checks[1].Keys)
	}
	if checks[0].Keys["ecs:CreateAction"] != nil {
		t.Error("ecs:CreateAction is a key of TagResource alone")
	}
	// Resource tags are condition keys.
	try(b, b.TagResource, &api.TagResourceInput{ResourceArn: new(prefix + "cluster/default"), Tags: []api.Tag{{Key: new("env"), Value: new("prod")}}})
	got := rules["DeleteCluster"](b.ctx, b.db.Snapshot(), caller, &api.DeleteClusterInput{Cluster: new("default")})[0].Tags()
	if !slices.Equal(got, []state.Tag{{Key: "env", Value: "prod"}}) {
		t.Errorf("tags %v", got)
	}
}

// Every rule belongs to an operation, takes its input, even an empty one, and
// asks for its action.
func TestAuthorizeFitsTheAPI(t *testing.T) {
	b := newBench(t)
	svc := api.NewService(b.ECS)
	for name, rule := range b.Authorize() {
		op := svc.Operations[name]
		if op == nil {
			t.Errorf("no operation %s", name)
			continue
		}
		if checks := rule(b.ctx, b.db.Snapshot(), nil, op.New()); len(checks) == 0 || checks[0].Action != "ecs:"+name || checks[0].Resource == "" {
			t.Errorf("%s asks for %+v", name, checks)
		}
	}
}

// No operation panics on an empty request, and none answers with an error that
// clients would not know.
func TestEmptyRequests(t *testing.T) {
	b := newBench(t)
	for name, op := range api.NewService(b.ECS).Operations {
		if _, err := op.Invoke(b.ctx, op.New()); err != nil && wire.Code(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Stored must name operations that this package answers, and their fields.
func TestStoredNamesFields(t *testing.T) {
	b := newBench(t)
	svc := api.NewService(b.ECS)
	for path := range Stored {
		parts := strings.Split(path, ".")
		op := svc.Operations[parts[0]]
		if op == nil {
			t.Errorf("%s: no such operation", path)
			continue
		}
		typ := reflect.TypeOf(op.In).Elem()
		for _, p := range parts[1:] {
			for typ.Kind() != reflect.Struct {
				typ = typ.Elem()
			}
			f, ok := typ.FieldByName(strings.ToUpper(p[:1]) + p[1:])
			if !ok {
				t.Errorf("%s: %s has no %s", path, typ, p)
				break
			}
			typ = f.Type
		}
	}
}

func FuzzARN(f *testing.F) {
	for _, s := range []string{"arn:aws:ecs:us-east-1:1:task/c/x", "arn:aws:ecs:::a/b", "arn::::", "", "arn:aws:ecs:r:a:task/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, ok := parseARN(s)
		if !ok {
			return
		}
		tail := "ecs:" + a.region + ":" + a.account + ":" + a.kind + "/" + strings.Join(a.path, "/")
		if !strings.HasSuffix(s, tail) || a.kind == "" || slices.Contains(a.path, "") {
			t.Errorf("%q parsed as %+v", s, a)
		}
	})
}

func FuzzReferences(f *testing.F) {
	e := New(Config{DB: store.OpenMemory(), Region: "us-east-1", Account: account,
		PassRole:     func(context.Context, store.Reader, *auth.Caller, string, string) error { return nil },
		PollEndpoint: func(context.Context) string { return "" }})
	for _, s := range []string{"web", "web:1", prefix + "task-definition/web:1", prefix + "task/default/x", "a:b:c", ":1", "web:", strings.Repeat("a", 32), prefix + "service/a/b/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := e.parseDefinition(account, s); err == nil {
			if n, ok := d.number(); !isName(d.family) || ok && n < 1 {
				t.Errorf("definition %q: %+v", s, d)
			}
		}
		// What comes out must be an ARN of this account, and stay what it is.
		for kind, parse := range map[string]func(string, string, string) (string, error){"task": e.taskARN, "service": e.serviceARN, "container-instance": e.instanceARN} {
			arn, err := parse(account, "default", s)
			if err != nil {
				continue
			}
			again, err := parse(account, "other", arn)
			if err != nil || again != arn || !strings.HasPrefix(arn, prefix+kind+"/") {
				t.Errorf("%s %q became %q, then %q, %v", kind, s, arn, again, err)
			}
		}
		if arn, err := e.clusterARN(account, &s); err == nil {
			if again, err := e.clusterARN(account, &arn); err != nil || again != arn {
				t.Errorf("cluster %q became %q, then %q, %v", s, arn, again, err)
			}
		}
		if c, ok := parseCPU(s); ok && c < 1 {
			t.Errorf("cpu %q is %d", s, c)
		}
		if from, to, ok := portRange(s); ok && (from < 1 || to > 65535 || from >= to) {
			t.Errorf("range %q is %d to %d", s, from, to)
		}
	})
}

func FuzzPageToken(f *testing.F) {
	now := time.Unix(1e9, 0)
	keys := []string{"a", "b", "c", "d"}
	q := query{"op"}
	_, good, _ := page(slices.Clone(keys), q, nil, new(int32(2)), 10, 10, now)
	f.Add(*good)
	f.Add("")
	f.Add("e30")
	f.Fuzz(func(t *testing.T, s string) {
		out, _, err := page(slices.Clone(keys), q, &s, nil, 10, 10, now)
		if err == nil && len(out) > len(keys) {
			t.Errorf("%q gave %v", s, out)
		}
		if err == nil && s != *good {
			if _, err := pages.Decode(q, s, now); err != nil {
				t.Errorf("%q was taken", s)
			}
		}
	})
}
