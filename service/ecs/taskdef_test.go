package ecs

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/google/go-cmp/cmp"
)

// def is a definition around container definitions and other top-level fields.
func def(top, containers string) string {
	if top != "" {
		top += ","
	}
	return `{"family":"f",` + top + `"containerDefinitions":[` + containers + `]}`
}

const (
	fargate = `"networkMode":"awsvpc","requiresCompatibilities":["FARGATE"],"cpu":"256","memory":"512"`
	digest  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// box is a container with a memory limit and other fields.
func box(more string) string { return boxed("a", more) }

func boxed(name, more string) string {
	if more != "" {
		more = "," + more
	}
	return `{"name":"` + name + `","image":"x","memory":64` + more + `}`
}

func TestRegisterRefuses(t *testing.T) {
	b := newBench(t)
	many := strings.Repeat(boxed("a", "")+",", 10) + boxed("b", "")
	const set = "Invalid setting for container 'a'. "
	for _, c := range []struct{ in, want string }{
		{`{"family":""}`, "Family should not be null or empty."},
		{`{"family":"a b"}`, "Family contains invalid characters."},
		{`{"family":"` + strings.Repeat("x", 256) + `"}`, "Family contains invalid characters."},
		{def("", ""), "Container list cannot be empty."},
		{def("", many), "The number of container definitions exceeds the limit of 10."},
		{def("", `{"image":"x","memory":64}`), "Container.name should not be null or empty."},
		{def("", `{"name":"a.b","image":"x","memory":64}`), "Container.name contains invalid characters."},
		{def("", `{"name":"a","memory":64}`), "Container.image should not be null or empty."},
		{def("", `{"name":"a","image":"x y","memory":64}`), "Container.image contains invalid characters."},
		{def("", `{"name":"a","image":"x@sha256:12","memory":64}`), "Container.image contains invalid characters."},
		{def("", box("")+","+box("")), "Container.name should be unique. Duplicate name: 'a'."},
		{def("", box(`"essential":false`)), "At least one container in the task definition must be essential."},
		{def("", `{"name":"a","image":"x"}`), set + "At least one of 'memory' or 'memoryReservation' must be specified."},
		{def("", `{"name":"a","image":"x","memory":5}`), set + "'memory' must be at least 6 MiB."},
		{def("", box(`"memoryReservation":64`)), set + "'memory' must be greater than 'memoryReservation'."},
		{def(`"memory":"32"`, box("")), set + "'memory' (64) must not exceed the memory of the task (32)."},
		{def(`"cpu":"256"`, box(`"cpu":300`)), "The total cpu of the containers (300) must not exceed the cpu of the task (256)."},
		{def(`"cpu":"abc"`, box("")), "Invalid 'cpu' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."},
		{def(`"memory":"1 TB"`, box("")), "Invalid 'memory' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."},
		{def(`"networkMode":"awsvpc"`, box(`"portMappings":[{"containerPort":80,"hostPort":81}]`)), "When networkMode=awsvpc, the host ports and container ports in port mappings must match."},
		{def(`"networkMode":"host"`, box(`"portMappings":[{"containerPort":80,"hostPort":81}]`)), "When networkMode=host, the host ports and container ports in port mappings must match."},
		{def(`"networkMode":"none"`, box(`"portMappings":[{"containerPort":80}]`)), "Port mappings are not supported when networkMode=none."},
		{def(`"networkMode":"awsvpc"`, box(`"links":["b"]`)), "Links are not supported when networkMode=awsvpc."},
		{def(`"networkMode":"awsvpc"`, box(`"hostname":"h"`)), "Hostname is not supported on container when networkMode=awsvpc."},
		{def(`"networkMode":"awsvpc"`, box(`"extraHosts":[{"hostname":"h","ipAddress":"1.1.1.1"}]`)), "Extra hosts are not supported on container when networkMode=awsvpc"},
		{def(`"networkMode":"awsvpc"`, box(`"dnsServers":["1.1.1.1"]`)), "DNS servers are not supported on container when networkMode=awsvpc"},
		{def("", box(`"portMappings":[{"containerPort":70000}]`)), set + "'containerPort' must be between 1 and 65535."},
		{def("", box(`"portMappings":[{}]`)), set + "A port mapping must have a 'containerPort' or a 'containerPortRange'."},
		{def("", box(`"portMappings":[{"containerPortRange":"9-5"}]`)), set + "Invalid 'containerPortRange': 9-5."},
		{def(`"networkMode":"awsvpc"`, box(`"portMappings":[{"containerPortRange":"5-9"},{"containerPort":7}]`)), set + "Each port may be in one port mapping only."},
		{def("", box(`"portMappings":[{"containerPort":7,"name":"-x"}]`)), set + "Invalid port mapping name: '-x'."},
		{def("", box(`"mountPoints":[{"sourceVolume":"v","containerPath":"/v"}]`)), "Unknown volume 'v'."},
		{def("", box(`"dependsOn":[{"containerName":"z","condition":"START"}]`)), "Container 'a' depends on container 'z', which the task definition does not have."},
		{def("", box(`"dependsOn":[{"containerName":"b","condition":"SUCCESS"}]`)+","+boxed("b", "")), "Container 'a' depends on container 'b' with condition SUCCESS, which an essential container cannot meet."},
		{def("", box(`"dependsOn":[{"containerName":"b","condition":"HEALTHY"}]`)+","+boxed("b", "")), "Container 'a' depends on container 'b' with condition HEALTHY, but it has no health check."},
		{def("", box(`"dependsOn":[{"containerName":"b","condition":"START"}]`)+","+boxed("b", `"links":["a:z"]`)), "The container dependencies of the task definition contain a cycle."},
		{def("", box(`"volumesFrom":[{"sourceContainer":"a"}]`)), "The container dependencies of the task definition contain a cycle."},
		{def("", box(`"healthCheck":{"command":["ls"]}`)), set + "The health check command must start with CMD or CMD-SHELL."},
		{def("", box(`"healthCheck":{"command":["CMD","ls"],"interval":4}`)), set + "The health check 'interval' must be between 5 and 300."},
		{def("", box(`"restartPolicy":{"enabled":true,"restartAttemptPeriod":5}`)), set + "'restartAttemptPeriod' must be between 60 and 1800 seconds."},
		{def("", box(`"ulimits":[{"name":"nofile","softLimit":2,"hardLimit":1}]`)), set + "The soft limit of ulimit 'nofile' must not exceed its hard limit."},
		{def("", box(`"environment":[{"name":"S","value":"1"}],"secrets":[{"name":"S","valueFrom":"p"}]`)),
			"The secret name must be unique and not shared with any new or existing environment variables set on the container, such as 'S'."},
		{def("", box(`"environmentFiles":[{"type":"s3","value":"arn:x/y.txt"}]`)), set + "The name of an environment file must end with '.env'."},
		{def("", box(`"linuxParameters":{"swappiness":101}`)), set + "'swappiness' must be between 0 and 100."},
		{def("", box(`"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g"}}`)), "Log driver awslogs requires options: awslogs-region"},
		{def("", box(`"logConfiguration":{"logDriver":"awsfirelens"}`)), "The log driver awsfirelens needs a container with a firelensConfiguration in the task definition."},
		{def(`"volumes":[{"name":"v","configuredAtLaunch":true},{"name":"w","configuredAtLaunch":true}]`, box("")), "Only one volume of a task definition may be configured at launch."},
		{def(`"volumes":[{"name":"v"},{"name":"v"}]`, box("")), "Volume.name should be unique. Duplicate name: 'v'."},
		{def(`"volumes":[{"name":"v","efsVolumeConfiguration":{"fileSystemId":"fs","rootDirectory":"/x","transitEncryption":"ENABLED","authorizationConfig":{"accessPointId":"ap"}}}]`, box("")),
			"Volume 'v': with an access point, 'rootDirectory' must be omitted or '/'."},
		{def(`"proxyConfiguration":{"type":"APPMESH","containerName":"z"}`, box("")), "The proxy configuration names the container 'z', which the task definition does not have."},
		{def(`"taskRoleArn":"arn:aws:iam::1:user/x"`, box("")), "Role is not valid"},
		{def(`"executionRoleArn":"not a role"`, box("")), "Role is not valid"},
		{def(`"requiresCompatibilities":["EXTERNAL"],"networkMode":"awsvpc"`, box("")), "Tasks using the External launch type do not support networkMode 'awsvpc'."},

		{def(`"requiresCompatibilities":["FARGATE"]`, box("")), "Fargate only supports network mode 'awsvpc'."},
		{def(`"requiresCompatibilities":["FARGATE"],"networkMode":"awsvpc"`, box("")), "Fargate requires that 'cpu' be defined at the task level."},
		{def(`"requiresCompatibilities":["FARGATE"],"networkMode":"awsvpc","cpu":"256"`, box("")), "Fargate requires that 'memory' be defined at the task level."},
		{def(`"requiresCompatibilities":["FARGATE"],"networkMode":"awsvpc","cpu":"256","memory":"4096"`, box("")), "No Fargate configuration exists for given values: 256 CPU, 4096 memory"},
		{def(fargate, `{"name":"a","image":"123456789012.dkr.ecr.us-east-1.amazonaws.com/x"}`), "Fargate requires task definition to have execution role ARN to support ECR images."},
		{def(fargate, box(`"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r","awslogs-stream-prefix":"p"}}`)), "Fargate requires task definition to have execution role ARN to support log driver awslogs."},
		{def(fargate+`,"executionRoleArn":"x"`, box(`"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r"}}`)), "Log driver awslogs requires options: awslogs-stream-prefix"},
		{def(fargate, box(`"logConfiguration":{"logDriver":"syslog"}`)), "Tasks using the Fargate launch type do not support log driver syslog."},
		{def(fargate+`,"pidMode":"host"`, box("")), "Tasks using the Fargate launch type do not support pidMode 'host'. The supported value for pidMode is 'task'."},
		{def(fargate, box(`"privileged":true`)), "Tasks using the Fargate launch type do not support privileged containers."},
		{def(fargate, box(`"linuxParameters":{"capabilities":{"add":["NET_ADMIN"]}}`)), "Tasks using the Fargate launch type do not support adding capabilities other than SYS_PTRACE."},
		{def(fargate, box(`"stopTimeout":121`)), set + "'stopTimeout' must be between 2 and 120 seconds."},
		{def(fargate+`,"volumes":[{"name":"v","host":{"sourcePath":"/x"}}]`, box("")), "host.sourcePath should not be set for volumes in Fargate."},
		{def(fargate+`,"ephemeralStorage":{"sizeInGiB":20}`, box("")), "Ephemeral storage size must be between 21 and 200 GiB."},
		{def(fargate+`,"runtimePlatform":{"operatingSystemFamily":"WINDOWS_SERVER_2022_CORE"}`, box("")), "No Fargate configuration exists for given values: 256 CPU, 512 memory"},
	} {
		refuse(b, b.RegisterTaskDefinition, read[api.RegisterTaskDefinitionInput](t, c.in), "ClientException: "+c.want)
	}
	big := def("", box(`"environment":[{"name":"E","value":"`+strings.Repeat("x", 64<<10)+`"}]`))
	in := read[api.RegisterTaskDefinitionInput](t, big)
	_, err := b.RegisterTaskDefinition(b.ctx, in)
	if err == nil || !strings.HasSuffix(err.Error(), "Max allowed length is '65536' bytes.") {
		t.Errorf("64 KiB: %v", err)
	}
	if out := try(b, b.ListTaskDefinitions, &api.ListTaskDefinitionsInput{}); len(out.TaskDefinitionArns) != 0 {
		t.Errorf("refused requests registered %v", out.TaskDefinitionArns)
	}
}

func TestFargateSizes(t *testing.T) {
	count := 0
	for cpu := 0; cpu <= 33000; cpu += 64 {
		for mem := 0; mem <= 250000; mem += 256 {
			if isFargateSize(cpu, mem) {
				count++
			}
		}
	}
	if want := 3 + 4 + 7 + 13 + 23 + 12 + 12 + 3; count != want {
		t.Errorf("%d sizes, want %d", count, want)
	}
	for in, want := range map[string]int{"256": 256, "1 vCPU": 1024, "1vcpu": 1024, ".5 vCPU": 512, " 0.25 VCPU ": 256, "1e3 vCPU": 0, "-1": 0, "": 0, "vCPU": 0, "1.5": 0, "inf vcpu": 0} {
		if got, _ := parseCPU(in); got != want {
			t.Errorf("parseCPU(%q) = %d", in, got)
		}
	}
	for in, want := range map[string]int{"512": 512, "1GB": 1024, ".5 gb": 512, "30 GB": 30720, "1 MB": 0} {
		if got, _ := parseMemory(in); got != want {
			t.Errorf("parseMemory(%q) = %d", in, got)
		}
	}
}

// Two definitions that between them set every field there is, with what AWS
// fills in already filled in: they must come back as they were sent.
const (
	fullEC2 = `{"family":"full","taskRoleArn":"arn:aws:iam::123456789012:role/p/task","executionRoleArn":"arn:aws:iam::123456789012:role/exec",
"networkMode":"bridge","requiresCompatibilities":["EC2"],"cpu":"1024","memory":"2048","pidMode":"task","ipcMode":"task","enableFaultInjection":true,
"placementConstraints":[{"type":"memberOf","expression":"attribute:x == y"}],
"inferenceAccelerators":[{"deviceName":"d","deviceType":"eia1.medium"}],
"runtimePlatform":{"cpuArchitecture":"X86_64","operatingSystemFamily":"LINUX"},
"tags":[{"key":"k","value":"v"},{"key":"a","value":""}],
"volumes":[
 {"name":"host","host":{"sourcePath":"/h"}},
 {"name":"docker","dockerVolumeConfiguration":{"scope":"shared","autoprovision":true,"driver":"local","driverOpts":{"o":"p"},"labels":{"l":"m"}}},
 {"name":"efs","efsVolumeConfiguration":{"fileSystemId":"fs-1","rootDirectory":"/","transitEncryption":"ENABLED","transitEncryptionPort":2049,"authorizationConfig":{"accessPointId":"ap","iam":"ENABLED"}}},
 {"name":"s3","s3filesVolumeConfiguration":{"fileSystemArn":"arn:aws:s3files:x","rootDirectory":"/r","transitEncryptionPort":1,"accessPointArn":"arn:ap"}},
 {"name":"fsx","fsxWindowsFileServerVolumeConfiguration":{"fileSystemId":"fs","rootDirectory":"r","authorizationConfig":{"credentialsParameter":"c","domain":"d"}}},
 {"name":"ebs","configuredAtLaunch":true}],
"containerDefinitions":[
 {"name":"z","image":"123456789012.dkr.ecr.us-east-1.amazonaws.com/x@sha256:` + digest + `","repositoryCredentials":{"credentialsParameter":"arn:s"},
 "cpu":10,"memory":128,"memoryReservation":64,"links":["b:alias"],
 "portMappings":[{"containerPort":80,"hostPort":8080,"protocol":"tcp","name":"web","appProtocol":"http"},{"containerPortRange":"100-200","protocol":"udp"}],
 "essential":true,"restartPolicy":{"enabled":true,"ignoredExitCodes":[0,3],"restartAttemptPeriod":60},
 "entryPoint":["/e"],"command":["c",""],"environment":[{"name":"Z","value":"1"},{"name":"A","value":""}],
 "environmentFiles":[{"value":"arn:aws:s3:::b/f.env","type":"s3"}],
 "mountPoints":[{"sourceVolume":"host","containerPath":"/m","readOnly":true}],"volumesFrom":[{"sourceContainer":"b","readOnly":false}],
 "linuxParameters":{"capabilities":{"add":["NET_ADMIN"],"drop":["ALL"]},"devices":[{"hostPath":"/dev/x","containerPath":"/dev/y","permissions":["read","mknod"]}],
  "initProcessEnabled":true,"sharedMemorySize":64,"tmpfs":[{"containerPath":"/t","size":1,"mountOptions":["ro"]}],"maxSwap":1,"swappiness":0},
 "secrets":[{"name":"S","valueFrom":"arn:aws:secretsmanager:x:y:secret:z"},{"name":"P","valueFrom":"param"}],
 "dependsOn":[{"containerName":"b","condition":"START"}],"startTimeout":200,"stopTimeout":300,"versionConsistency":"disabled",
 "hostname":"h","user":"1:2","workingDirectory":"/w","disableNetworking":false,"privileged":true,"readonlyRootFilesystem":true,
 "dnsServers":["1.1.1.1"],"dnsSearchDomains":["d"],"extraHosts":[{"hostname":"h","ipAddress":"1.2.3.4"}],"dockerSecurityOptions":["label:x","apparmor:y"],
 "interactive":true,"pseudoTerminal":true,"dockerLabels":{"l":"v"},"ulimits":[{"name":"nofile","softLimit":1,"hardLimit":2}],
 "logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r"},"secretOptions":[{"name":"s","valueFrom":"p"}]},
 "healthCheck":{"command":["CMD","x"],"interval":5,"timeout":2,"retries":1,"startPeriod":0},
 "systemControls":[{"namespace":"net.core.somaxconn","value":"1"}],"resourceRequirements":[{"value":"1","type":"GPU"}],
 "firelensConfiguration":{"type":"fluentbit","options":{"config-file-type":"s3"}},"credentialSpecs":["credentialspec:x"]},
 {"name":"b","image":"busybox","cpu":0,"essential":false,"portMappings":[],"environment":[],"mountPoints":[],"volumesFrom":[],"systemControls":[],"command":[]}]}`
	fullFargate = `{"family":"full2","networkMode":"awsvpc","cpu":"256","memory":"512","ephemeralStorage":{"sizeInGiB":30},"volumes":[],"placementConstraints":[],
"proxyConfiguration":{"type":"APPMESH","containerName":"a","properties":[{"name":"n","value":"v"}]},
"containerDefinitions":[{"name":"a","image":"x","cpu":0,"essential":true,"portMappings":[{"containerPort":80,"hostPort":80,"protocol":"tcp"}],"environment":[],"mountPoints":[],"volumesFrom":[],"systemControls":[]}]}`
)

func TestDefinitionsComeBackAsSent(t *testing.T) {
	b := newBench(t)
	sent := map[string]bool{}
	for _, text := range []string{fullEC2, fullFargate} {
		in := read[api.RegisterTaskDefinitionInput](t, text)
		set(reflect.ValueOf(*in), "", sent)
		ref := b.register(text)
		got := try(b, b.DescribeTaskDefinition, &api.DescribeTaskDefinitionInput{TaskDefinition: ref.TaskDefinitionArn, Include: []api.TaskDefinitionField{"TAGS"}})
		back, err := json.Marshal(got.TaskDefinition)
		b.must(err)
		var fields map[string]json.RawMessage
		b.must(json.Unmarshal(back, &fields))
		for _, own := range []string{"taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt", "registeredBy"} {
			if fields[own] == nil {
				t.Errorf("no %s", own)
			}
			delete(fields, own)
		}
		if in.Tags != nil {
			if fields["tags"], err = json.Marshal(got.Tags); err != nil {
				t.Fatal(err)
			}
		}
		var want, have any
		b.must(json.Unmarshal([]byte(text), &want))
		back, err = json.Marshal(fields)
		b.must(err)
		b.must(json.Unmarshal(back, &have))
		if d := cmp.Diff(want, have); d != "" {
			t.Errorf("came back changed (-sent +got):\n%s", d)
		}
	}
	for _, f := range everyFieldOf(reflect.TypeFor[api.RegisterTaskDefinitionInput](), "") {
		if !sent[f] {
			t.Errorf("the definitions of this test do not set %s", f)
		}
	}
}

// set notes which fields of v are set.
func set(v reflect.Value, path string, into map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			set(v.Elem(), path, into)
		}
	case reflect.Slice:
		for i := range v.Len() {
			set(v.Index(i), path, into)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				p := path + "." + v.Type().Field(i).Name
				into[p] = true
				set(v.Field(i), p, into)
			}
		}
	}
}

func everyFieldOf(t reflect.Type, path string) (out []string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return everyFieldOf(t.Elem(), path)
	case reflect.Struct:
		for i := range t.NumField() {
			p := path + "." + t.Field(i).Name
			out = append(append(out, p), everyFieldOf(t.Field(i).Type, p)...)
		}
	}
	return out
}

func TestDefaultsAreShown(t *testing.T) {
	b := newBench(t)
	d := b.register(def(fargate+`,"volumes":[{"name":"v"}],"taskRoleArn":"t","executionRoleArn":"x"`, box(`"portMappings":[{"containerPort":80}],
		"healthCheck":{"command":["CMD","x"]},"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r","awslogs-stream-prefix":"p"}}`)))
	want := read[api.ContainerDefinition](t, `{"name":"a","image":"x","memory":64,"cpu":0,"essential":true,"environment":[],"mountPoints":[],"volumesFrom":[],"systemControls":[],
		"portMappings":[{"containerPort":80,"hostPort":80,"protocol":"tcp"}],"healthCheck":{"command":["CMD","x"],"interval":30,"timeout":5,"retries":3},
		"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r","awslogs-stream-prefix":"p"},"secretOptions":[]}}`)
	if diff := cmp.Diff(*want, d.ContainerDefinitions[0]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if *d.TaskRoleArn != "arn:aws:iam::123456789012:role/t" || *d.RegisteredBy != "arn:aws:iam::123456789012:user/ann" || d.Volumes[0].Host == nil || d.PlacementConstraints == nil {
		t.Errorf("%s", pretty(d))
	}
	if !slices.Equal(d.Compatibilities, []api.Compatibility{"EC2", "FARGATE", "MANAGED_INSTANCES"}) {
		t.Errorf("compatibilities %v", d.Compatibilities)
	}
	if d := b.register(def("", box(""))); !slices.Equal(d.Compatibilities, []api.Compatibility{"EXTERNAL", "EC2"}) || d.RequiresCompatibilities != nil {
		t.Errorf("bridge: %v, asked %v", d.Compatibilities, d.RequiresCompatibilities)
	}
}

func TestRequiredAttributes(t *testing.T) {
	b := newBench(t)
	names := func(d *api.TaskDefinition) (out []string) {
		for _, a := range d.RequiresAttributes {
			if a.Value != nil {
				t.Errorf("attribute %s has a value", *a.Name)
			}
			out = append(out, *a.Name)
		}
		slices.Sort(out)
		return out
	}
	if got := names(b.register(def("", box("")))); !slices.Equal(got, []string{"com.amazonaws.ecs.capability.docker-remote-api.1.17"}) {
		t.Errorf("plain: %v", got)
	}
	got := names(b.register(fullEC2))
	want := []string{
		"com.amazonaws.ecs.capability.apparmor",
		"com.amazonaws.ecs.capability.docker-remote-api.1.18", "com.amazonaws.ecs.capability.docker-remote-api.1.19",
		"com.amazonaws.ecs.capability.docker-remote-api.1.21", "com.amazonaws.ecs.capability.docker-remote-api.1.25", "com.amazonaws.ecs.capability.docker-remote-api.1.29",
		"com.amazonaws.ecs.capability.ecr-auth", "com.amazonaws.ecs.capability.logging-driver.awslogs",
		"com.amazonaws.ecs.capability.privileged-container", "com.amazonaws.ecs.capability.selinux", "com.amazonaws.ecs.capability.task-iam-role",
		"ecs.capability.container-health-check", "ecs.capability.container-ordering", "ecs.capability.container-restart-policy",
		"ecs.capability.docker-plugin.local", "ecs.capability.efs", "ecs.capability.efsAuth", "ecs.capability.env-files.s3",
		"ecs.capability.execution-role-awslogs", "ecs.capability.execution-role-ecr-pull", "ecs.capability.fault-injection",
		"ecs.capability.firelens.fluentbit", "ecs.capability.firelens.options.config.s3", "ecs.capability.fsxWindowsFileServer", "ecs.capability.gmsa",
		"ecs.capability.network.container-port-range", "ecs.capability.pid-ipc-namespace-sharing",
		"ecs.capability.private-registry-authentication.secretsmanager",
		"ecs.capability.secrets.asm.environment-variables", "ecs.capability.secrets.ssm.bootstrap.log-driver", "ecs.capability.secrets.ssm.environment-variables",
		"ecs.capability.storage.ebs-task-volume-attach", "ecs.capability.storage.s3-files", "ecs.capability.task-cpu-mem-limit",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := names(b.register(fullFargate)); !slices.Contains(got, "ecs.capability.task-eni") || !slices.Contains(got, "ecs.capability.aws-appmesh") {
		t.Errorf("awsvpc: %v", got)
	}
}

func TestRevisions(t *testing.T) {
	b := newBench(t)
	for i := range 3 {
		if d := b.register(webDefinition); *d.Revision != int32(i+1) || *d.TaskDefinitionArn != fmt.Sprintf("%stask-definition/web:%d", prefix, i+1) {
			t.Errorf("revision %d: %s", i+1, *d.TaskDefinitionArn)
		}
	}
	b.register(def("", box("")))
	dereg := func(ref string) *api.TaskDefinition {
		return try(b, b.DeregisterTaskDefinition, &api.DeregisterTaskDefinitionInput{TaskDefinition: &ref}).TaskDefinition
	}
	if d := dereg("web:3"); d.Status != "INACTIVE" || d.DeregisteredAt == nil {
		t.Errorf("%s", pretty(d))
	}
	latest := func() string {
		return *try(b, b.DescribeTaskDefinition, &api.DescribeTaskDefinitionInput{TaskDefinition: new("web")}).TaskDefinition.TaskDefinitionArn
	}
	if got := latest(); got != prefix+"task-definition/web:2" {
		t.Errorf("newest active is %s", got)
	}
	if d := b.register(webDefinition); *d.Revision != 4 {
		t.Errorf("numbering restarted at %d", *d.Revision)
	}
	old := try(b, b.DescribeTaskDefinition, &api.DescribeTaskDefinitionInput{TaskDefinition: new("web:3")}).TaskDefinition
	if old.Status != "INACTIVE" {
		t.Errorf("web:3 is %s", old.Status)
	}
	for ref, want := range map[string]string{
		"web": "ClientException: Revision is missing.", "web:x": "InvalidParameterException: Invalid revision number. Number: x",
		"web:9": "ClientException: Unable to describe task definition.", "a b": "InvalidParameterException: Invalid identifier: a b",
	} {
		refuse(b, b.DeregisterTaskDefinition, &api.DeregisterTaskDefinitionInput{TaskDefinition: &ref}, want)
	}
	refuse(b, b.DescribeTaskDefinition, &api.DescribeTaskDefinitionInput{TaskDefinition: new("nope")}, "ClientException: Unable to describe task definition.")

	ids := func(in *api.ListTaskDefinitionsInput) string {
		var out []string
		for _, a := range try(b, b.ListTaskDefinitions, in).TaskDefinitionArns {
			out = append(out, strings.TrimPrefix(a, prefix+"task-definition/"))
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct {
		in   api.ListTaskDefinitionsInput
		want string
	}{
		{api.ListTaskDefinitionsInput{}, "f:1 web:1 web:2 web:4"},
		{api.ListTaskDefinitionsInput{Sort: "DESC"}, "web:4 web:2 web:1 f:1"},
		{api.ListTaskDefinitionsInput{FamilyPrefix: new("web")}, "web:1 web:2 web:4"},
		{api.ListTaskDefinitionsInput{FamilyPrefix: new("we")}, ""},
		{api.ListTaskDefinitionsInput{Status: "INACTIVE"}, "web:3"},
	} {
		if got := ids(&c.in); got != c.want {
			t.Errorf("%s: %s, want %s", pretty(c.in), got, c.want)
		}
	}
	first := try(b, b.ListTaskDefinitions, &api.ListTaskDefinitionsInput{MaxResults: new(int32(3)), Sort: "DESC"})
	rest := try(b, b.ListTaskDefinitions, &api.ListTaskDefinitionsInput{NextToken: first.NextToken, Sort: "DESC"})
	if len(first.TaskDefinitionArns) != 3 || !slices.Equal(rest.TaskDefinitionArns, []string{prefix + "task-definition/f:1"}) {
		t.Errorf("pages %v, %v", first.TaskDefinitionArns, rest.TaskDefinitionArns)
	}

	dereg("f:1")
	for status, want := range map[api.TaskDefinitionFamilyStatus]string{"": "f web", "ACTIVE": "web", "INACTIVE": "f", "ALL": "f web"} {
		if got := strings.Join(try(b, b.ListTaskDefinitionFamilies, &api.ListTaskDefinitionFamiliesInput{Status: status}).Families, " "); got != want {
			t.Errorf("families %s: %s", status, got)
		}
	}
}

// The newest active revision is found behind any number of inactive ones.
func TestNewestActiveRevision(t *testing.T) {
	b := newBench(t)
	for range 12 {
		b.register(webDefinition)
	}
	for n := 12; n > 0; n-- {
		got := try(b, b.DescribeTaskDefinition, &api.DescribeTaskDefinitionInput{TaskDefinition: new("web")}).TaskDefinition
		if *got.Revision != int32(n) {
			t.Fatalf("revision %d, want %d", *got.Revision, n)
		}
		try(b, b.DeregisterTaskDefinition, &api.DeregisterTaskDefinitionInput{TaskDefinition: got.TaskDefinitionArn})
	}
	refuse(b, b.DescribeTaskDefinition, &api.DescribeTaskDefinitionInput{TaskDefinition: new("web")}, "ClientException: Unable to describe task definition.")
}

func TestDeleteTaskDefinitions(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.register(webDefinition)
	try(b, b.DeregisterTaskDefinition, &api.DeregisterTaskDefinitionInput{TaskDefinition: new("web:1")})
	out := try(b, b.DeleteTaskDefinitions, &api.DeleteTaskDefinitionsInput{TaskDefinitions: []string{"web:1", "web:2", "web:3"}})
	if len(out.TaskDefinitions) != 1 || out.TaskDefinitions[0].Status != "DELETE_IN_PROGRESS" || out.TaskDefinitions[0].DeleteRequestedAt == nil || len(out.Failures) != 2 ||
		*out.Failures[0].Reason != "The specified task definition is still in ACTIVE status. Please deregister the target and try again." {
		t.Errorf("%s", pretty(out))
	}
	refuse(b, b.DeleteTaskDefinitions, &api.DeleteTaskDefinitionsInput{}, "InvalidParameterException: size of TaskDefinition references list must be greater than 0")
	refuse(b, b.DeleteTaskDefinitions, &api.DeleteTaskDefinitionsInput{TaskDefinitions: make([]string, 11)}, "InvalidParameterException: Size of TaskDefinition references list cannot exceed 10")
}

func TestRolesMustBePassed(t *testing.T) {
	b := newBench(t)
	denied := &api.AccessDeniedException{Message: "no"}
	b.roles["arn:aws:iam::123456789012:role/secret"] = denied
	refuse(b, b.RegisterTaskDefinition, read[api.RegisterTaskDefinitionInput](t, def(`"taskRoleArn":"secret"`, box(""))), "AccessDeniedException: no")
	b.register(webDefinition)
	refuse(b, b.RunTask, read[api.RunTaskInput](t, `{"taskDefinition":"web","launchType":"FARGATE","networkConfiguration":`+webNetwork+`,"overrides":{"executionRoleArn":"secret"}}`), "AccessDeniedException: no")
}
