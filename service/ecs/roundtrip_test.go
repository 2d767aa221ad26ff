package ecs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
	"pgregory.net/rapid"
)

// Whatever a request may say is shown again as it was said: each field of the
// API's own schema, each list in its order. Defaults may be added to it.
//
// A generator makes a document out of a schema: every member that the model
// has is there sooner or later, also one that comes with a new model. What the
// schema does not say of a member is in rules, and what members have to do
// with each other is mended afterwards.

// doc is a JSON document.
type doc = map[string]any

// generator makes documents of one operation.
type generator struct {
	t *rapid.T
	// rules make the value of a member, by structure and member, or by member
	// alone. A nil rule leaves the member out.
	rules map[string]func() any
}

func (g *generator) value(path string, s *wire.Schema) any {
	switch s.Kind {
	case wire.Struct:
		out := doc{}
		for _, m := range s.Members {
			rule, ruled := g.rules[s.Name+"."+m.Name]
			if !ruled {
				rule, ruled = g.rules[m.Name]
			}
			if ruled && rule == nil || !m.Required && rapid.IntRange(0, 2).Draw(g.t, path) == 0 {
				continue
			}
			if ruled {
				out[m.Name] = rule()
			} else {
				out[m.Name] = g.value(path+"."+m.Name, m.Schema)
			}
		}
		return out
	case wire.List:
		out := []any{}
		for range rapid.IntRange(1, 3).Draw(g.t, path) {
			out = append(out, g.value(path+"[]", s.Elem.Schema))
		}
		return out
	case wire.Map:
		out := doc{}
		for i := range rapid.IntRange(0, 2).Draw(g.t, path) {
			out[fmt.Sprintf("k%d", i)] = g.value(path+"{}", s.Elem.Schema)
		}
		return out
	case wire.Boolean:
		return rapid.Bool().Draw(g.t, path)
	case wire.Integer, wire.Long, wire.Float, wire.Double:
		low, high := 0, 100
		if s.HasMin {
			low = int(s.Min)
		}
		if s.HasMax {
			high = int(s.Max)
		}
		return float64(rapid.IntRange(low, high).Draw(g.t, path))
	}
	if len(s.Enum) > 0 {
		return rapid.SampledFrom(s.Enum).Draw(g.t, path)
	}
	return rapid.SampledFrom([]string{"a", "b2", "some-value", "x.y"}).Draw(g.t, path)
}

func (g *generator) number(low, high int) func() any {
	return func() any { return float64(rapid.IntRange(low, high).Draw(g.t, "number")) }
}

func (g *generator) oneOf(values ...string) func() any {
	return func() any { return rapid.SampledFrom(values).Draw(g.t, "value") }
}

func constant(v any) func() any { return func() any { return v } }

// contains reports what of want is missing or different in got.
func contains(path string, want, got any) error {
	switch w := want.(type) {
	case doc:
		g, ok := got.(doc)
		if !ok {
			return fmt.Errorf("%s is %v, want %v", path, got, want)
		}
		for k, v := range w {
			if err := contains(path+"."+k, v, g[k]); err != nil {
				return err
			}
		}
		return nil
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Errorf("%s is %v, want %v", path, got, want)
		}
		for i := range w {
			if err := contains(fmt.Sprintf("%s[%d]", path, i), w[i], g[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("%s is %v, want %v", path, got, want)
	}
	return nil
}

// send makes a request of a document, checks it against the model, and makes
// the call, which must succeed.
func send[In, Out any](g *generator, b *bench, name string, call func(context.Context, *In) (*Out, error), in doc) *Out {
	text, err := json.Marshal(in)
	if err != nil {
		g.t.Fatal(err)
	}
	req := new(In)
	if err := json.Unmarshal(text, req); err != nil {
		g.t.Fatalf("%v in %s", err, text)
	}
	if err := wire.Validate(api.NewService(b.ECS).Operations[name], req); err != nil {
		g.t.Fatalf("the generator is wrong: %v in %s", err, text)
	}
	out, err := call(b.ctx, req)
	if err != nil {
		g.t.Fatalf("%s: %v\n%s", name, err, text)
	}
	after, err := json.Marshal(req)
	if before, _ := json.Marshal(mustRead[In](g.t, text)); err != nil || !bytes.Equal(before, after) {
		g.t.Fatalf("%s changed its request from %s to %s", name, before, after)
	}
	return out
}

func mustRead[T any](t *rapid.T, text []byte) *T {
	v := new(T)
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
	return v
}

// same checks that a document shows what was asked for.
func (g *generator) same(what string, want doc, got any) {
	g.t.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		g.t.Fatal(err)
	}
	var shown any
	if err := json.Unmarshal(text, &shown); err != nil {
		g.t.Fatal(err)
	}
	if err := contains(what, want, shown); err != nil {
		g.t.Fatalf("%v\nasked for %v", err, want)
	}
}

func without(d doc, keys ...string) doc {
	out := doc{}
	for k, v := range d {
		if !slices.Contains(keys, k) {
			out[k] = v
		}
	}
	return out
}

// docs are the documents in a list, which may be absent.
func docs(v any) (out []doc) {
	l, _ := v.([]any)
	for _, x := range l {
		out = append(out, x.(doc))
	}
	return out
}

// distinct gives the members of a list different names.
func distinct(v any, key, format string) {
	for i, d := range docs(v) {
		d[key] = fmt.Sprintf(format, i)
	}
}

func (g *generator) common() map[string]func() any {
	return map[string]func() any{
		"taskRoleArn":      constant("arn:aws:iam::" + account + ":role/path/task"),
		"executionRoleArn": constant("arn:aws:iam::" + account + ":role/execution"),
		"cpu":              g.oneOf("1024", "2048"), "memory": g.oneOf("2048", "4096"), // of a task
		"ContainerDefinition.cpu": g.number(0, 100), "ContainerDefinition.memory": g.number(200, 400),
		"DaemonContainerDefinition.cpu": g.number(0, 100), "DaemonContainerDefinition.memory": g.number(200, 400),
		"memoryReservation":    g.number(6, 100),
		"image":                g.oneOf("nginx", "docker.io/library/x:1", "x@sha256:"+digest),
		"restartAttemptPeriod": g.number(60, 1800), "startTimeout": g.number(2, 120), "stopTimeout": g.number(2, 120),
		"HealthCheck.command":  constant([]any{"CMD-SHELL", "exit 0"}),
		"HealthCheck.interval": g.number(5, 300), "HealthCheck.timeout": g.number(2, 60), "HealthCheck.retries": g.number(1, 10), "HealthCheck.startPeriod": g.number(0, 300),
		"EnvironmentFile.value": constant("arn:aws:s3:::b/x.env"),
		"Ulimit.softLimit":      g.number(1, 10), "Ulimit.hardLimit": g.number(10, 20),
		"swappiness": g.number(0, 100), "Tmpfs.size": g.number(1, 64),
		"logDriver":           g.oneOf("json-file", "syslog", "awslogs"),
		"HostEntry.ipAddress": constant("10.0.0.1"),
	}
}

// mendContainers makes the containers of a document fit each other.
func (g *generator) mendContainers(d doc, mode string) {
	volumes := docs(d["volumes"])
	distinct(d["volumes"], "name", "vol-%d")
	firelens := false
	for i, c := range docs(d["containerDefinitions"]) {
		c["name"] = fmt.Sprintf("c%d", i)
		c["image"], c["memory"] = g.rules["image"](), g.number(200, 400)()
		if i == 0 {
			c["essential"] = true
		}
		earlier := func(key string) {
			for _, x := range docs(c[key]) {
				x["sourceContainer"] = "c0"
			}
			if i == 0 {
				delete(c, key)
			}
		}
		earlier("volumesFrom")
		if i == 0 {
			delete(c, "dependsOn")
		}
		for _, x := range docs(c["dependsOn"]) {
			x["containerName"], x["condition"] = "c0", "START"
		}
		if len(volumes) == 0 {
			delete(c, "mountPoints")
		}
		for _, x := range docs(c["mountPoints"]) {
			x["sourceVolume"], x["containerPath"] = volumes[0]["name"], "/data"
		}
		distinct(c["environment"], "name", "ENV_%d")
		distinct(c["secrets"], "name", "SECRET_%d")
		if l, ok := c["logConfiguration"].(doc); ok && l["logDriver"] == "awslogs" {
			l["options"] = doc{"awslogs-group": "g", "awslogs-region": "us-east-1"}
		}
		if _, has := c["firelensConfiguration"]; has && firelens {
			delete(c, "firelensConfiguration")
		} else if has {
			firelens = true
		}
		if l, ok := c["credentialSpecs"].([]any); ok {
			c["credentialSpecs"] = l[:1]
		}
		if l := docs(c["resourceRequirements"]); len(l) > 0 {
			c["resourceRequirements"] = []any{doc{"type": "GPU", "value": "1"}}
		}
		if _, has := c["links"]; has {
			c["links"] = []any{"c0:first"}
		}
		if i == 0 || mode != "bridge" {
			delete(c, "links")
		}
		if mode != "bridge" {
			for _, k := range []string{"hostname", "extraHosts", "dnsServers", "dnsSearchDomains"} {
				delete(c, k)
			}
		}
		if mode == "none" {
			delete(c, "portMappings")
		}
		distinct(c["portMappings"], "name", "port-%d")
		for n, p := range docs(c["portMappings"]) {
			port := float64(1000 + 100*i + n)
			p["containerPort"] = port
			if mode != "bridge" && p["hostPort"] != nil {
				p["hostPort"] = port
			}
			if mode != "host" && p["containerPortRange"] != nil {
				p["containerPortRange"] = fmt.Sprintf("%d-%d", 5000+10*n, 5005+10*n)
				delete(p, "containerPort")
				delete(p, "hostPort")
			} else {
				delete(p, "containerPortRange")
			}
		}
	}
}

func TestTaskDefinitionsComeBack(t *testing.T) {
	b := newBench(t)
	schema := api.NewService(b.ECS).Operations["RegisterTaskDefinition"].Input()
	rapid.Check(t, func(t *rapid.T) {
		g := &generator{t: t}
		g.rules = g.common()
		g.rules["family"] = g.oneOf("web", "db")
		g.rules["ephemeralStorage"] = nil // Fargate's alone; see below
		g.rules["requiresCompatibilities"] = constant([]any{"EC2"})
		g.rules["placementConstraints"] = constant([]any{doc{"type": "memberOf", "expression": "attribute:stack == prod"}, doc{"type": "memberOf", "expression": "attribute:x exists"}})
		g.rules["operatingSystemFamily"] = constant("LINUX")
		in := g.value("in", schema).(doc)
		mode := g.oneOf("bridge", "host", "awsvpc", "none")().(string)
		in["networkMode"] = mode
		g.mendContainers(in, mode)
		if p, ok := in["proxyConfiguration"].(doc); ok {
			p["containerName"] = "c0"
			if mode != "awsvpc" {
				delete(in, "proxyConfiguration")
			}
		}
		distinct(in["inferenceAccelerators"], "deviceName", "device_%d")
		distinct(in["tags"], "key", "key%d")
		launched := false
		for _, v := range docs(in["volumes"]) {
			g.mendVolume(v, &launched)
		}
		made := send(g, b, "RegisterTaskDefinition", b.RegisterTaskDefinition, in)
		out, err := b.DescribeTaskDefinition(b.ctx, &api.DescribeTaskDefinitionInput{TaskDefinition: made.TaskDefinition.TaskDefinitionArn, Include: []api.TaskDefinitionField{"TAGS"}})
		if err != nil {
			t.Fatal(err)
		}
		g.same("taskDefinition", without(in, "tags"), out.TaskDefinition)
		if in["tags"] != nil {
			g.same("out", doc{"tags": in["tags"]}, out)
		}
		one, _ := json.Marshal(made.TaskDefinition)
		two, _ := json.Marshal(out.TaskDefinition)
		if !bytes.Equal(one, two) {
			t.Fatalf("registered as %s, described as %s", one, two)
		}
	})
	d := b.register(def(fargate+`,"ephemeralStorage":{"sizeInGiB":30}`, `{"name":"a","image":"x"}`))
	if *d.EphemeralStorage.SizeInGiB != 30 {
		t.Errorf("%s", pretty(d))
	}
}

// mendVolume leaves a volume one kind.
func (g *generator) mendVolume(v doc, launched *bool) {
	kinds := []string{"dockerVolumeConfiguration", "efsVolumeConfiguration", "s3filesVolumeConfiguration", "fsxWindowsFileServerVolumeConfiguration", "host", "configuredAtLaunch"}
	keep := rapid.SampledFrom(kinds).Draw(g.t, "kind")
	if keep == "configuredAtLaunch" && *launched {
		keep = "host"
	}
	for _, k := range kinds {
		if k != keep {
			delete(v, k)
		}
	}
	*launched = *launched || v["configuredAtLaunch"] == true
	if c, ok := v["dockerVolumeConfiguration"].(doc); ok && c["autoprovision"] == true {
		c["scope"] = "shared"
	}
	if c, ok := v["efsVolumeConfiguration"].(doc); ok && c["authorizationConfig"] != nil {
		c["transitEncryption"] = "ENABLED"
		delete(c, "rootDirectory")
	}
}

func TestDaemonTaskDefinitionsComeBack(t *testing.T) {
	b := newBench(t)
	schema := api.NewService(b.ECS).Operations["RegisterDaemonTaskDefinition"].Input()
	rapid.Check(t, func(t *rapid.T) {
		g := &generator{t: t}
		g.rules = g.common()
		g.rules["family"] = g.oneOf("logger")
		in := g.value("in", schema).(doc)
		g.mendContainers(in, "host")
		distinct(in["tags"], "key", "key%d")
		arn := send(g, b, "RegisterDaemonTaskDefinition", b.RegisterDaemonTaskDefinition, in).DaemonTaskDefinitionArn
		out, err := b.DescribeDaemonTaskDefinition(b.ctx, &api.DescribeDaemonTaskDefinitionInput{DaemonTaskDefinition: arn})
		if err != nil {
			t.Fatal(err)
		}
		g.same("daemonTaskDefinition", without(in, "tags"), out.DaemonTaskDefinition)
		g.sameTags(b, *arn, in)
	})
}

// sameTags checks the tags of a resource, in their order.
func (g *generator) sameTags(b *bench, arn string, in doc) {
	g.t.Helper()
	out, err := b.ListTagsForResource(b.ctx, &api.ListTagsForResourceInput{ResourceArn: &arn})
	if err != nil {
		g.t.Fatal(err)
	}
	if in["tags"] != nil {
		g.same(arn, doc{"tags": in["tags"]}, out)
	}
}

func TestCapacityProvidersComeBack(t *testing.T) {
	b := newBench(t)
	b.profile()
	svc := api.NewService(b.ECS)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		g := &generator{t: t}
		g.rules = g.common()
		name := fmt.Sprintf("provider-%d", n)
		g.rules["autoScalingGroupArn"] = constant(strings.TrimSuffix(groupARN, "web") + name)
		g.rules["infrastructureRoleArn"] = constant(roleARN)
		g.rules["ec2InstanceProfileArn"] = constant(profileARN)
		g.rules["minimumScalingStepSize"], g.rules["maximumScalingStepSize"] = g.number(1, 10), g.number(10, 20)
		g.rules["InstanceRequirementsRequest.excludedInstanceTypes"] = nil // excludes allowedInstanceTypes
		if rapid.Bool().Draw(t, "exclude") {
			delete(g.rules, "InstanceRequirementsRequest.excludedInstanceTypes")
			g.rules["InstanceRequirementsRequest.allowedInstanceTypes"] = nil
		}
		g.rules["subnets"], g.rules["securityGroups"] = constant([]any{"subnet-2", "subnet-1"}), constant([]any{"sg-2", "sg-1"})
		g.rules["min"], g.rules["max"] = g.number(1, 10), g.number(10, 20)
		g.rules["cluster"] = nil
		in := g.value("in", svc.Operations["CreateCapacityProvider"].Input()).(doc)
		in["name"] = name
		distinct(in["tags"], "key", "key%d")
		managed, _ := in["managedInstancesProvider"].(doc)
		if group, has := in["autoScalingGroupProvider"].(doc); has {
			delete(in, "managedInstancesProvider")
			b.put(func(tx *store.Tx) { putGroup(tx, name, "8a1c-22") })
			if s, ok := group["managedScaling"].(doc); group["managedTerminationProtection"] == "ENABLED" {
				if !ok {
					s = doc{}
				}
				s["status"] = "ENABLED"
				group["managedScaling"] = s
			}
		} else {
			if managed == nil {
				return
			}
			in["cluster"] = "default"
			managed["instanceLaunchTemplate"].(doc)["networkConfiguration"] = doc{"subnets": []any{"subnet-2", "subnet-1"}, "securityGroups": []any{"sg-1"}}
		}
		arn := *send(g, b, "CreateCapacityProvider", b.CreateCapacityProvider, in).CapacityProvider.CapacityProviderArn
		out, err := b.DescribeCapacityProviders(b.ctx, &api.DescribeCapacityProvidersInput{CapacityProviders: []string{name}, Include: []api.CapacityProviderField{"TAGS"}})
		if err != nil {
			t.Fatal(err)
		}
		if in["cluster"] != nil {
			in["cluster"] = prefix + "cluster/default"
		}
		g.same("capacityProvider", in, out.CapacityProviders[0])
		if _, err := b.DeleteCapacityProvider(b.ctx, &api.DeleteCapacityProviderInput{CapacityProvider: &arn}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestClustersComeBack(t *testing.T) {
	b := newBench(t)
	schema := api.NewService(b.ECS).Operations["CreateCluster"].Input()
	b.put(func(tx *store.Tx) {
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: "ecs/clusters", Value: 1 << 20})
	})
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		g := &generator{t: t}
		g.rules = map[string]func() any{
			"serviceConnectDefaults": nil, // refused
			"capacityProviders":      constant([]any{"FARGATE_SPOT", "FARGATE"}),
			"ClusterSetting.name":    constant("containerInsights"), "ClusterSetting.value": g.oneOf("enabled", "disabled", "enhanced"),
			"settings": func() any { return []any{doc{"name": "containerInsights", "value": g.oneOf("enabled", "enhanced")()}} },
		}
		g.rules["defaultCapacityProviderStrategy"] = func() any {
			return []any{doc{"capacityProvider": "FARGATE_SPOT", "weight": g.number(0, 1000)()}, doc{"capacityProvider": "FARGATE", "base": g.number(0, 100000)()}}
		}
		in := g.value("in", schema).(doc)
		in["clusterName"] = fmt.Sprintf("cluster-%d", n)
		if in["defaultCapacityProviderStrategy"] != nil {
			in["capacityProviders"] = []any{"FARGATE_SPOT", "FARGATE"}
		}
		distinct(in["tags"], "key", "key%d")
		send(g, b, "CreateCluster", b.CreateCluster, in)
		out, err := b.DescribeClusters(b.ctx, &api.DescribeClustersInput{Clusters: []string{in["clusterName"].(string)}, Include: withAttachments})
		if err != nil {
			t.Fatal(err)
		}
		g.same("cluster", in, out.Clusters[0])
	})
}

func TestContainerInstancesComeBack(t *testing.T) {
	b := newBench(t)
	schema := api.NewService(b.ECS).Operations["RegisterContainerInstance"].Input()
	rapid.Check(t, func(t *rapid.T) {
		g := &generator{t: t}
		g.rules = map[string]func() any{
			"cluster": nil, "containerInstanceArn": nil, "instanceIdentityDocument": nil, "instanceIdentityDocumentSignature": nil,
			"Attribute.targetType": nil, "Attribute.targetId": nil, "platformDevices": nil,
			"clientToken": nil, // one registration a token
		}
		in := g.value("in", schema).(doc)
		distinct(in["attributes"], "name", "attribute.%d")
		distinct(in["totalResources"], "name", "resource%d")
		distinct(in["tags"], "key", "key%d")
		arn := *send(g, b, "RegisterContainerInstance", b.RegisterContainerInstance, in).ContainerInstance.ContainerInstanceArn
		out, err := b.DescribeContainerInstances(b.ctx, &api.DescribeContainerInstancesInput{ContainerInstances: []string{arn}, Include: []api.ContainerInstanceField{"TAGS"}})
		if err != nil {
			t.Fatal(err)
		}
		want := without(in, "totalResources", "attributes", "clientToken")
		if in["totalResources"] != nil {
			want["registeredResources"], want["remainingResources"] = in["totalResources"], in["totalResources"]
		}
		if in["attributes"] != nil { // the zone is added to them
			want["attributes"] = append(slices.Clone(in["attributes"].([]any)), doc{"name": zoneAttribute, "value": "us-east-1a"})
		}
		g.same("containerInstance", want, out.ContainerInstances[0])
		if _, err := b.DeregisterContainerInstance(b.ctx, &api.DeregisterContainerInstanceInput{ContainerInstance: &arn}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDaemonsComeBack(t *testing.T) {
	b := newBench(t)
	definition, fleet := b.registerDaemon(logger), b.fleet("mi")
	schema := api.NewService(b.ECS).Operations["CreateDaemon"].Input()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		g := &generator{t: t}
		g.rules = map[string]func() any{
			"clusterArn": constant(prefix + "cluster/default"), "daemonTaskDefinitionArn": constant(definition), "capacityProviderArns": constant([]any{fleet}),
			"DaemonAlarmConfiguration.enable": constant(false), "bakeTimeInMinutes": g.number(0, 1440),
		}
		in := g.value("in", schema).(doc)
		in["daemonName"] = fmt.Sprintf("daemon-%d", n)
		distinct(in["tags"], "key", "key%d")
		made := send(g, b, "CreateDaemon", b.CreateDaemon, in)
		d, err := b.DescribeDaemon(b.ctx, &api.DescribeDaemonInput{DaemonArn: made.DaemonArn})
		if err != nil {
			t.Fatal(err)
		}
		rev, err := b.DescribeDaemonRevisions(b.ctx, &api.DescribeDaemonRevisionsInput{DaemonRevisionArns: []string{*d.Daemon.CurrentRevisions[0].Arn}})
		if err != nil {
			t.Fatal(err)
		}
		g.same("revision", without(in, "tags", "daemonName", "capacityProviderArns", "deploymentConfiguration", "clientToken"), rev.DaemonRevisions[0])
		dep, err := b.DescribeDaemonDeployments(b.ctx, &api.DescribeDaemonDeploymentsInput{DaemonDeploymentArns: []string{*made.DeploymentArn}})
		if err != nil {
			t.Fatal(err)
		}
		if in["deploymentConfiguration"] != nil {
			g.same("deployment", doc{"deploymentConfiguration": in["deploymentConfiguration"]}, dep.DaemonDeployments[0])
		}
		g.sameTags(b, *made.DaemonArn, in)
	})
}

func TestOverridesComeBack(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.putProviders(`"FARGATE","FARGATE_SPOT"`, "")
	schema := api.NewService(b.ECS).Operations["RunTask"].Input()
	rapid.Check(t, func(t *rapid.T) {
		g := &generator{t: t}
		g.rules = g.common()
		for _, k := range []string{"cluster", "clientToken", "launchType", "volumeConfigurations", "placementConstraints", "placementStrategy", "referenceId", "platformVersion", "networkConfiguration",
			"inferenceAcceleratorOverrides", "environmentFiles", "resourceRequirements", "propagateTags", "enableECSManagedTags", "enableExecuteCommand", "group", "startedBy", "count"} {
			g.rules[k] = nil
		}
		g.rules["cpu"], g.rules["memory"] = constant("512"), constant("1024")
		g.rules["ContainerOverride.cpu"], g.rules["ContainerOverride.memory"] = g.number(0, 100), g.number(200, 400)
		g.rules["EphemeralStorage.sizeInGiB"] = g.number(21, 200)
		g.rules["capacityProviderStrategy"] = constant([]any{doc{"capacityProvider": "FARGATE_SPOT", "weight": 1.0}})
		in := g.value("in", schema).(doc)
		in["taskDefinition"] = "web"
		in["networkConfiguration"] = doc{"awsvpcConfiguration": doc{"subnets": []any{"subnet-1"}}}
		if in["capacityProviderStrategy"] == nil {
			in["launchType"] = "FARGATE"
		}
		over, _ := in["overrides"].(doc)
		if over != nil {
			// Both sizes or none, and an entry for each container, in the definition's order.
			if over["cpu"] == nil || over["memory"] == nil {
				delete(over, "cpu")
				delete(over, "memory")
			}
			list := docs(over["containerOverrides"])
			for i, c := range list {
				c["name"] = []string{"web", "side", ""}[i]
			}
			if len(list) > 2 {
				over["containerOverrides"] = []any{list[0], list[1]}
			}
		}
		distinct(in["tags"], "key", "key%d")
		made := send(g, b, "RunTask", b.RunTask, in)
		out, err := b.DescribeTasks(b.ctx, &api.DescribeTasksInput{Tasks: []string{*made.Tasks[0].TaskArn}, Include: []api.TaskField{"TAGS"}})
		if err != nil {
			t.Fatal(err)
		}
		want := doc{}
		if over != nil {
			want["overrides"] = over
			if list := docs(over["containerOverrides"]); len(list) == 1 {
				want["overrides"] = without(over, "containerOverrides")
			}
		}
		if in["tags"] != nil {
			want["tags"] = in["tags"]
		}
		if in["capacityProviderStrategy"] != nil {
			want["capacityProviderName"] = "FARGATE_SPOT"
		}
		g.same("task", want, out.Tasks[0])
	})
}
