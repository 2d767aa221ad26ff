package ecs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
)

const logger = `{"family":"logger","taskRoleArn":"r","containerDefinitions":[{"name":"a","image":"fluent:1","memory":64}],"tags":[{"key":"k","value":"v"}]}`

// fleet is a capacity provider of managed instances; its ARN.
func (b *bench) fleet(name string) string {
	b.t.Helper()
	b.profile()
	return *b.provide(name, `"cluster":"default",`+managedBody).CapacityProviderArn
}

func (b *bench) registerDaemon(text string) string {
	b.t.Helper()
	return *try(b, b.RegisterDaemonTaskDefinition, read[api.RegisterDaemonTaskDefinitionInput](b.t, text)).DaemonTaskDefinitionArn
}

func TestDaemonTaskDefinitions(t *testing.T) {
	b := newBench(t)
	for n, want := range []string{"logger:1", "logger:2", "agent:1"} {
		text := logger
		if n == 2 {
			text = strings.Replace(logger, "logger", "agent", 1)
		}
		if got := b.registerDaemon(text); got != prefix+"daemon-task-definition/"+want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	d := try(b, b.DescribeDaemonTaskDefinition, &api.DescribeDaemonTaskDefinitionInput{DaemonTaskDefinition: new("logger")}).DaemonTaskDefinition
	if c := d.ContainerDefinitions[0]; *d.Revision != 2 || d.Status != "ACTIVE" || *d.TaskRoleArn != "arn:aws:iam::"+account+":role/r" || *c.Cpu != 0 || !*c.Essential || *d.RegisteredBy == "" {
		t.Errorf("%s", pretty(d))
	}
	names := func(text string) string {
		t.Helper()
		var got []string
		for _, s := range try(b, b.ListDaemonTaskDefinitions, read[api.ListDaemonTaskDefinitionsInput](t, text)).DaemonTaskDefinitions {
			got = append(got, strings.TrimPrefix(*s.Arn, prefix+"daemon-task-definition/")+" "+string(s.Status))
		}
		return strings.Join(got, ", ")
	}
	for in, want := range map[string]string{
		`{}`:                              "agent:1 ACTIVE, logger:1 ACTIVE, logger:2 ACTIVE",
		`{"sort":"DESC"}`:                 "logger:2 ACTIVE, logger:1 ACTIVE, agent:1 ACTIVE",
		`{"family":"logger"}`:             "logger:1 ACTIVE, logger:2 ACTIVE",
		`{"familyPrefix":"a"}`:            "agent:1 ACTIVE",
		`{"revision":"LAST_REGISTERED"}`:  "agent:1 ACTIVE, logger:2 ACTIVE",
		`{"status":"DELETE_IN_PROGRESS"}`: "",
		`{"maxResults":1}`:                "agent:1 ACTIVE",
	} {
		if got := names(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	try(b, b.DeleteDaemonTaskDefinition, &api.DeleteDaemonTaskDefinitionInput{DaemonTaskDefinition: new("logger:2")})
	if got := names(`{"status":"ALL"}`); got != "agent:1 ACTIVE, logger:1 ACTIVE" {
		t.Errorf("nobody uses it, but it is still there: %s", got)
	}
	if got := b.registerDaemon(logger); got != prefix+"daemon-task-definition/logger:3" {
		t.Errorf("the numbering restarted: %s", got)
	}
	for ref, want := range map[string]string{
		"logger":   "ClientException: Revision is missing.",
		"logger:x": "InvalidParameterException: Invalid revision number. Number: x",
		"none:1":   "ClientException: Unable to describe daemon task definition.",
	} {
		refuse(b, b.DeleteDaemonTaskDefinition, &api.DeleteDaemonTaskDefinitionInput{DaemonTaskDefinition: &ref}, want)
	}
	refuse(b, b.RegisterDaemonTaskDefinition, read[api.RegisterDaemonTaskDefinitionInput](t, `{"family":"x","containerDefinitions":[{"name":"a","image":"x"}]}`),
		"ClientException: Invalid setting for container 'a'. At least one of 'memory' or 'memoryReservation' must be specified.")
}

func TestDaemons(t *testing.T) {
	b := newBench(t)
	one, two := b.registerDaemon(logger), b.registerDaemon(logger)
	fleet := b.fleet("mi")
	create := func(more string) *api.CreateDaemonInput {
		return read[api.CreateDaemonInput](t, `{"daemonName":"logs","daemonTaskDefinitionArn":"`+one+`","capacityProviderArns":["`+fleet+`"],"clientToken":"t",
			"tags":[{"key":"k","value":"v"}],"deploymentConfiguration":{"drainPercent":25.5,"bakeTimeInMinutes":3}`+more+`}`)
	}
	made := try(b, b.CreateDaemon, create(""))
	if *made.DaemonArn != prefix+"daemon/default/logs" || made.Status != "ACTIVE" {
		t.Errorf("%s", pretty(made))
	}
	if again := try(b, b.CreateDaemon, create("")); *again.DeploymentArn != *made.DeploymentArn {
		t.Error("the same request made another deployment")
	}
	refuse(b, b.CreateDaemon, create(`,"enableExecuteCommand":true`), "ClientException: A daemon with the name logs already exists in the cluster.")
	b.time = b.time.Add(time.Minute)
	up := try(b, b.UpdateDaemon, read[api.UpdateDaemonInput](t, `{"daemonArn":"`+*made.DaemonArn+`","daemonTaskDefinitionArn":"`+two+`","capacityProviderArns":["`+fleet+`"],"propagateTags":"DAEMON"}`))

	d := try(b, b.DescribeDaemon, &api.DescribeDaemonInput{DaemonArn: made.DaemonArn}).Daemon
	rev := d.CurrentRevisions[0]
	if *d.DeploymentArn != *up.DeploymentArn || *rev.TotalRunningCount != 0 || *rev.CapacityProviders[0].Arn != fleet || *rev.CapacityProviders[0].RunningCount != 0 || !d.UpdatedAt.Equal(b.time) {
		t.Errorf("%s", pretty(d))
	}
	revs := try(b, b.DescribeDaemonRevisions, &api.DescribeDaemonRevisionsInput{DaemonRevisionArns: []string{*rev.Arn, *rev.Arn + "0"}})
	if r := revs.DaemonRevisions[0]; *r.DaemonTaskDefinitionArn != two || *r.ContainerImages[0].Image != "fluent:1" || r.PropagateTags != "DAEMON" || *revs.Failures[0].Reason != "MISSING" {
		t.Errorf("%s", pretty(revs))
	}
	deps := try(b, b.DescribeDaemonDeployments, &api.DescribeDaemonDeploymentsInput{DaemonDeploymentArns: []string{*up.DeploymentArn}}).DaemonDeployments
	if p := deps[0]; p.Status != "SUCCESSFUL" || len(p.SourceDaemonRevisions) != 1 || *p.TargetDaemonRevision.Arn != *rev.Arn || *p.TargetDaemonRevision.TotalRunningInstanceCount != 0 ||
		*p.DeploymentConfiguration.DrainPercent != 25.5 || *p.DeploymentConfiguration.BakeTimeInMinutes != 3 {
		t.Errorf("%s", pretty(deps))
	}
	listed := func(text string) (arns []string) {
		t.Helper()
		for _, p := range try(b, b.ListDaemonDeployments, read[api.ListDaemonDeploymentsInput](t, `{"daemonArn":"`+*made.DaemonArn+`"`+text+`}`)).DaemonDeployments {
			arns = append(arns, *p.DaemonDeploymentArn)
		}
		return arns
	}
	if got := listed(""); !slices.Equal(got, []string{*up.DeploymentArn, *made.DeploymentArn}) {
		t.Errorf("%v", got)
	}
	if got := listed(`,"maxResults":1,"status":["SUCCESSFUL"]`); !slices.Equal(got, []string{*up.DeploymentArn}) {
		t.Errorf("%v", got)
	}
	if got := listed(`,"status":["STOPPED"]`); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := listed(`,"createdAt":{"before":"2026-03-01T12:00:30Z"}`); !slices.Equal(got, []string{*made.DeploymentArn}) {
		t.Errorf("%v", got)
	}
	for _, c := range []struct {
		in api.ListDaemonsInput
		n  int
	}{{api.ListDaemonsInput{}, 1}, {api.ListDaemonsInput{CapacityProviderArns: []string{fleet}}, 1}, {api.ListDaemonsInput{CapacityProviderArns: []string{fleet + "x"}}, 0}} {
		if got := try(b, b.ListDaemons, &c.in).DaemonSummariesList; len(got) != c.n {
			t.Errorf("%+v lists %d", c.in, len(got))
		}
	}
	if l := try(b, b.ListTasks, &api.ListTasksInput{DaemonName: new("logs")}); len(l.TaskArns) != 0 {
		t.Errorf("a daemon without instances has tasks: %v", l.TaskArns)
	}
	refuse(b, b.ListTasks, &api.ListTasksInput{DaemonName: new("none")}, "InvalidParameterException: The referenced daemon was not found.")

	// A daemon holds its capacity provider and its definition.
	refuse(b, b.DeleteCapacityProvider, &api.DeleteCapacityProviderInput{CapacityProvider: &fleet},
		"ClientException: The capacity provider cannot be deleted because it is in use by cluster: default. Remove it from the services, daemons and strategies of the cluster and try again.")
	try(b, b.DeleteDaemonTaskDefinition, &api.DeleteDaemonTaskDefinitionInput{DaemonTaskDefinition: &two})
	if s := try(b, b.DescribeDaemonTaskDefinition, &api.DescribeDaemonTaskDefinitionInput{DaemonTaskDefinition: &two}).DaemonTaskDefinition; s.Status != "DELETE_IN_PROGRESS" || s.DeleteRequestedAt == nil {
		t.Errorf("%s", pretty(s))
	}
	refuse(b, b.CreateDaemon, read[api.CreateDaemonInput](t, `{"daemonName":"x","daemonTaskDefinitionArn":"`+two+`","capacityProviderArns":["`+fleet+`"]}`), "ClientException: DaemonTaskDefinition is inactive")
	if gone := try(b, b.DeleteDaemon, &api.DeleteDaemonInput{DaemonArn: made.DaemonArn}); gone.Status != "DELETE_IN_PROGRESS" {
		t.Errorf("%s", pretty(gone))
	}
	if s := try(b, b.DescribeDaemonTaskDefinition, &api.DescribeDaemonTaskDefinitionInput{DaemonTaskDefinition: &two}).DaemonTaskDefinition; s.Status != "DELETED" {
		t.Errorf("%s", pretty(s))
	}
	// It can be seen for an hour after its end, and the next deletion forgets it.
	b.time = b.time.Add(time.Hour + time.Second)
	try(b, b.DeleteDaemonTaskDefinition, &api.DeleteDaemonTaskDefinitionInput{DaemonTaskDefinition: &one})
	refuse(b, b.DescribeDaemonTaskDefinition, &api.DescribeDaemonTaskDefinitionInput{DaemonTaskDefinition: &two}, "ClientException: Unable to describe daemon task definition.")
	refuse(b, b.DescribeDaemon, &api.DescribeDaemonInput{DaemonArn: made.DaemonArn}, "DaemonNotFoundException: Daemon not found.")
	refuse(b, b.DeleteDaemon, &api.DeleteDaemonInput{DaemonArn: made.DaemonArn}, "DaemonNotFoundException: Daemon not found.")
	if left := try(b, b.DescribeDaemonDeployments, &api.DescribeDaemonDeploymentsInput{DaemonDeploymentArns: []string{*up.DeploymentArn}}); len(left.Failures) != 1 {
		t.Errorf("%s", pretty(left))
	}
	try(b, b.DeleteCapacityProvider, &api.DeleteCapacityProviderInput{CapacityProvider: &fleet})
}

func TestCreateDaemonRefuses(t *testing.T) {
	b := newBench(t)
	arn, fleet := b.registerDaemon(logger), b.fleet("mi")
	for in, want := range map[string]string{
		`{"daemonName":"a b","daemonTaskDefinitionArn":"` + arn + `","capacityProviderArns":["` + fleet + `"]}`:                                                                       "InvalidParameterException: Daemon name must be 1 to 255 letters, digits, underscores and hyphens.",
		`{"daemonName":"a","daemonTaskDefinitionArn":"` + arn + `","capacityProviderArns":[]}`:                                                                                        "InvalidParameterException: Capacity provider ARNs cannot be empty.",
		`{"daemonName":"a","daemonTaskDefinitionArn":"` + arn + `","capacityProviderArns":["` + fleet + `","` + fleet + `"]}`:                                                         "InvalidParameterException: The capacity providers of a daemon cannot contain a duplicate: " + fleet + ".",
		`{"daemonName":"a","daemonTaskDefinitionArn":"` + arn + `","capacityProviderArns":["` + fleet + `x"]}`:                                                                        "ClientException: " + noProvider,
		`{"daemonName":"a","daemonTaskDefinitionArn":"` + arn + `","capacityProviderArns":["` + prefix + `capacity-provider/FARGATE"]}`:                                               "InvalidParameterException: A daemon can only use capacity providers of managed instances: " + prefix + "capacity-provider/FARGATE.",
		`{"daemonName":"a","daemonTaskDefinitionArn":"none","capacityProviderArns":["` + fleet + `"]}`:                                                                                "ClientException: Unable to describe daemon task definition.",
		`{"daemonName":"a","clusterArn":"none","daemonTaskDefinitionArn":"` + arn + `","capacityProviderArns":["` + fleet + `"]}`:                                                     "ClusterNotFoundException: Cluster not found.",
		`{"daemonName":"a","daemonTaskDefinitionArn":"` + arn + `","capacityProviderArns":["` + fleet + `"],"deploymentConfiguration":{"alarms":{"alarmNames":["x"],"enable":true}}}`: "InvalidParameterException: deploymentConfiguration.alarms is not supported by this version of Berth.",
	} {
		refuse(b, b.CreateDaemon, read[api.CreateDaemonInput](t, in), want)
	}
}

func TestExpressGatewayServices(t *testing.T) {
	b := newBench(t)
	create := func(container, more string) *api.CreateExpressGatewayServiceInput {
		return read[api.CreateExpressGatewayServiceInput](t, `{"executionRoleArn":"arn:aws:iam::`+account+`:role/x","infrastructureRoleArn":"`+roleARN+`","primaryContainer":{`+container+`}`+more+`}`)
	}
	const ip, web = "InvalidParameterException: ", `"image":"web:1","containerPort":80`
	refuse(b, b.CreateExpressGatewayService, create(web, ""),
		"UnsupportedFeatureException: Express gateway services are not supported by this version of Berth: they need Elastic Load Balancing and Application Auto Scaling.")
	if want := []string{"infra to ecs.amazonaws.com", "x to ecs-tasks.amazonaws.com"}; !slices.Equal(b.passed, want) {
		t.Errorf("passed %v, want %v", b.passed, want)
	}
	for _, c := range []struct{ container, more, want string }{
		{web, `,"cluster":"none"`, "ClusterNotFoundException: Cluster not found."},
		{web, `,"serviceName":"a b"`, ip + "Service name must be 1 to 255 letters, digits, underscores and hyphens."},
		{`"image":"a b"`, "", ip + "The image of the primary container is invalid."},
		{`"image":"web","containerPort":70000`, "", ip + "containerPort must be between 1 and 65535."},
		{web, `,"healthCheckPath":"ping"`, ip + "healthCheckPath must begin with a slash."},
		{web, `,"cpu":"256","memory":"4096"`, ip + "No Fargate configuration exists for given values: 256 CPU, 4096 memory"},
		{web, `,"scalingTarget":{"minTaskCount":3,"maxTaskCount":2}`, ip + "The task counts of the scaling target are invalid."},
		{web, `,"networkConfiguration":{"subnets":["subnet-9"]}`, ip + "Error retrieving subnet information for [subnet-9]: The subnet ID 'subnet-9' does not exist (ErrorCode: InvalidSubnetID.NotFound)"},
	} {
		refuse(b, b.CreateExpressGatewayService, create(c.container, c.more), c.want)
	}
	arn := prefix + "service/default/web"
	refuse(b, b.DescribeExpressGatewayService, &api.DescribeExpressGatewayServiceInput{ServiceArn: &arn}, "ResourceNotFoundException: The specified express gateway service was not found.")
	refuse(b, b.UpdateExpressGatewayService, &api.UpdateExpressGatewayServiceInput{ServiceArn: &arn}, "ServiceNotFoundException: Service not found.")
	refuse(b, b.DeleteExpressGatewayService, &api.DeleteExpressGatewayServiceInput{ServiceArn: &arn}, "ServiceNotFoundException: Service not found.")
	refuse(b, b.DeleteExpressGatewayService, &api.DeleteExpressGatewayServiceInput{ServiceArn: new("web")}, ip+"Invalid identifier: web")
}

func TestSettingsOfOthers(t *testing.T) {
	b := newBench(t)
	ann, bob := "arn:aws:iam::"+account+":user/ann", "arn:aws:iam::"+account+":user/bob"
	put := &api.PutAccountSettingInput{Name: "containerInsights", Value: new("enabled"), PrincipalArn: &bob}
	refuse(b, b.PutAccountSetting, put, "AccessDeniedException: User: "+ann+" is not authorized to perform: ecs:PutAccountSetting on the settings of "+bob)
	refuse(b, b.DeleteAccountSetting, &api.DeleteAccountSettingInput{Name: "containerInsights", PrincipalArn: &bob}, "AccessDeniedException: User: "+ann+" is not authorized to perform: ecs:DeleteAccountSetting on the settings of "+bob)
	refuse(b, b.ListAccountSettings, &api.ListAccountSettingsInput{PrincipalArn: &bob}, "AccessDeniedException: User: "+ann+" is not authorized to perform: ecs:ListAccountSettings on the settings of "+bob)
	root := auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.RootUser, Account: account, ARN: rootARN(account)})
	as(b, root, b.PutAccountSetting, put)
	own := try(b, b.ListAccountSettings, &api.ListAccountSettingsInput{PrincipalArn: &ann}).Settings
	his := as(b, root, b.ListAccountSettings, &api.ListAccountSettingsInput{PrincipalArn: &bob}).Settings
	if len(own) != 0 || len(his) != 1 || *his[0].Value != "enabled" || *his[0].PrincipalArn != bob {
		t.Errorf("ann has %s, bob has %s", pretty(own), pretty(his))
	}
	foreign := "arn:aws:iam::999999999999:user/eve"
	_, err := b.PutAccountSetting(root, &api.PutAccountSettingInput{Name: "containerInsights", Value: new("enabled"), PrincipalArn: &foreign})
	wantError(t, err, "InvalidParameterException: Invalid principal arn")
	refuse(b, b.DeleteAccountSetting, &api.DeleteAccountSettingInput{Name: "guardDutyActivate"}, "InvalidParameterException: The setting guardDutyActivate is managed by AWS.")
	refuse(b, b.PutAccountSettingDefault, &api.PutAccountSettingDefaultInput{Name: "fargateTaskRetirementWaitPeriod", Value: new("3")},
		"InvalidParameterException: Invalid value for setting fargateTaskRetirementWaitPeriod: 3. Valid values: 0, 7, 14")
}

func TestTagsOfCapacity(t *testing.T) {
	b := newBench(t)
	definition, fleet := b.registerDaemon(logger), b.fleet("mi")
	daemon := *try(b, b.CreateDaemon, &api.CreateDaemonInput{DaemonName: new("d"), DaemonTaskDefinitionArn: &definition, CapacityProviderArns: []string{fleet}}).DaemonArn
	instance := *b.join("").ContainerInstanceArn
	for _, arn := range []string{definition, fleet, daemon, instance} {
		try(b, b.TagResource, &api.TagResourceInput{ResourceArn: &arn, Tags: []api.Tag{{Key: new("k"), Value: new("1")}, {Key: new("team"), Value: new("x")}}})
		try(b, b.UntagResource, &api.UntagResourceInput{ResourceArn: &arn, TagKeys: []string{"k"}})
		if got := try(b, b.ListTagsForResource, &api.ListTagsForResourceInput{ResourceArn: &arn}).Tags; len(got) != 1 || *got[0].Key != "team" {
			t.Errorf("%s has %s", arn, pretty(got))
		}
	}
	for arn, want := range map[string]string{
		prefix + "capacity-provider/FARGATE":          "The specified capacity provider is reserved and cannot be tagged.",
		prefix + "capacity-provider/none":             "The specified capacity provider could not be found.",
		prefix + "daemon/default/none":                "The specified daemon could not be found.",
		prefix + "daemon-task-definition/none:1":      "The specified daemon task definition could not be found.",
		prefix + "container-instance/default/missing": "The specified container instance could not be found.",
	} {
		refuse(b, b.TagResource, &api.TagResourceInput{ResourceArn: &arn, Tags: []api.Tag{{Key: new("k"), Value: new("v")}}}, "InvalidParameterException: "+want)
	}
}

func TestAccelerators(t *testing.T) {
	b := newBench(t)
	const set = "ClientException: Invalid setting for container 'a'. "
	device := `"inferenceAccelerators":[{"deviceName":"d","deviceType":"eia2.medium"}]`
	need := func(kind, value string) string {
		return box(`"resourceRequirements":[{"type":"` + kind + `","value":"` + value + `"}]`)
	}
	for _, c := range []struct{ in, want string }{
		{def("", need("GPU", "0")), set + "The value of a GPU resource requirement must be a positive number of GPUs: '0'."},
		{def("", box(`"resourceRequirements":[{"type":"GPU","value":"1"},{"type":"GPU","value":"1"}]`)), set + "Only one GPU resource requirement may be specified."},
		{def("", need("FPGA", "1")), set + "Invalid type of a resource requirement: 'FPGA'."},
		{def("", need("InferenceAccelerator", "d")), set + "The inference accelerator 'd' is not a device of the task definition."},
		{def(device, need("InferenceAccelerator", "d")+","+strings.Replace(need("InferenceAccelerator", "d"), `"a"`, `"b"`, 1)), strings.Replace(set, "'a'", "'b'", 1) + "The inference accelerator 'd' is already in use by another container."},
		{def(`"inferenceAccelerators":[{"deviceName":"d","deviceType":"x"},{"deviceName":"d","deviceType":"x"}]`, box("")), "ClientException: InferenceAccelerator.deviceName should be unique. Duplicate name: 'd'."},
		{def(`"requiresCompatibilities":["EXTERNAL"],`+device, box("")), "ClientException: Tasks using the External launch type do not support inference accelerators."},
		{def(`"requiresCompatibilities":["MANAGED_INSTANCES"],"networkMode":"host",`+device, box("")), "ClientException: Tasks using the Managed Instances launch type do not support inference accelerators."},
		{def(fargate, need("GPU", "1")), "ClientException: Tasks using the Fargate launch type do not support GPU resource requirements."},
		{def(`"placementConstraints":[{"type":"memberOf","expression":"size > 1"}]`, box("")), `InvalidParameterException: Invalid expression: unknown subject "size".`},
		{def(`"placementConstraints":[{"type":"distinctInstance"}]`, box("")), "ClientException: Invalid type of a placement constraint: 'distinctInstance'."},
	} {
		refuse(b, b.RegisterTaskDefinition, read[api.RegisterTaskDefinitionInput](t, c.in), c.want)
	}
	d := b.register(def(device+`,"placementConstraints":[{"type":"memberOf","expression":"attribute:stack == prod"}]`, need("InferenceAccelerator", "d")))
	if !slices.Equal(d.Compatibilities, []api.Compatibility{"EC2"}) {
		t.Errorf("%v", d.Compatibilities)
	}
	if d := b.register(def(`"requiresCompatibilities":["EXTERNAL"]`, need("GPU", "2"))); !slices.Equal(d.Compatibilities, []api.Compatibility{"EXTERNAL", "EC2"}) {
		t.Errorf("%v", d.Compatibilities)
	}
}
