package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/test/lab"
)

// Whatever ends a task, it ends STOPPED, and says why in AWS's words.
func TestHowTasksEnd(t *testing.T) {
	t.Parallel()
	w := shared
	optional := func(c ecs.ContainerDefinition) ecs.ContainerDefinition {
		c.Essential = new(false)
		return c
	}
	essential := func(c ecs.ContainerDefinition) ecs.ContainerDefinition {
		c.Essential = new(true)
		return c
	}
	with := func(c ecs.ContainerDefinition, f func(*ecs.ContainerDefinition)) ecs.ContainerDefinition {
		f(&c)
		return c
	}
	type exit struct {
		code   int    // -1: none
		reason string // pattern; "": none
	}
	for _, tt := range []struct {
		name       string
		containers []ecs.ContainerDefinition
		stop       string // StopTask with this reason once it runs; "-" without one
		code       string
		reason     string // pattern
		exits      map[string]exit
		neverRan   bool
	}{
		{
			name:       "an essential container exits",
			containers: []ecs.ContainerDefinition{w.box("app", "print", "hello", "exit", "0")},
			code:       "EssentialContainerExited", reason: "^Essential container in task exited$",
			exits: map[string]exit{"app": {0, ""}},
		}, {
			name:       "an essential container fails, and the others are stopped",
			containers: []ecs.ContainerDefinition{w.box("app", "sleep", "300ms", "exit", "3"), w.box("side", "term")},
			code:       "EssentialContainerExited", reason: "^Essential container in task exited$",
			exits: map[string]exit{"app": {3, ""}, "side": {0, ""}},
		}, {
			name:       "stopped by the user, with a reason",
			containers: []ecs.ContainerDefinition{w.box("app", "term")},
			stop:       "enough for today",
			code:       "UserInitiated", reason: "^enough for today$",
			exits: map[string]exit{"app": {0, ""}},
		}, {
			name:       "stopped by the user, who says no reason",
			containers: []ecs.ContainerDefinition{w.box("app", "term")},
			stop:       "-",
			code:       "UserInitiated", reason: "^Task stopped by user$",
			exits: map[string]exit{"app": {0, ""}},
		}, {
			name: "SIGTERM ends what does not handle it",
			// As process 1 it would not; with an init process it does.
			containers: []ecs.ContainerDefinition{with(w.box("app", "print", "asleep", "sleep", "1h"), func(c *ecs.ContainerDefinition) {
				c.LinuxParameters = &ecs.LinuxParameters{InitProcessEnabled: new(true)}
			})},
			stop: "-",
			code: "UserInitiated", reason: "^Task stopped by user$",
			exits: map[string]exit{"app": {143, ""}},
		}, {
			name: "SIGKILL ends what ignores SIGTERM, after stopTimeout",
			containers: []ecs.ContainerDefinition{with(w.box("app", "stubborn"), func(c *ecs.ContainerDefinition) {
				c.StopTimeout = new(int32(2))
			})},
			stop: "-",
			code: "UserInitiated", reason: "^Task stopped by user$",
			exits: map[string]exit{"app": {137, ""}},
		}, {
			name: "a container takes more memory than it may",
			containers: []ecs.ContainerDefinition{with(w.box("app", "print", "hungry", "alloc", "128", "sleep", "1h"), func(c *ecs.ContainerDefinition) {
				c.Memory = new(int32(32))
			})},
			code: "EssentialContainerExited", reason: "^Essential container in task exited$",
			exits: map[string]exit{"app": {137, "^OutOfMemoryError: Container killed due to memory usage$"}},
		}, {
			name:       "the task's containers together take more memory than it may",
			containers: []ecs.ContainerDefinition{w.box("app", "alloc", "700", "sleep", "1h")},
			code:       "EssentialContainerExited", reason: "^Essential container in task exited$",
			exits: map[string]exit{"app": {137, "^OutOfMemoryError: Container killed due to memory usage$"}},
		}, {
			name: "there is no such image",
			containers: []ecs.ContainerDefinition{with(w.box("app", "exit", "0"), func(c *ecs.ContainerDefinition) {
				c.Image = new(w.RegistryHost() + "/box:none")
			})},
			code: "TaskFailedToStart", reason: "^CannotPullContainerError: pull image manifest has been retried [0-9]+ time\\(s\\): failed to resolve ref .*/box:none: .*not found",
			exits:    map[string]exit{"app": {-1, "^CannotPullContainerError: "}},
			neverRan: true,
		}, {
			name: "there is no such program",
			containers: []ecs.ContainerDefinition{with(w.box("app"), func(c *ecs.ContainerDefinition) {
				c.EntryPoint = []string{"/none"}
			})},
			code: "TaskFailedToStart", reason: "^(Task failed to start|CannotStartContainerError: |CannotCreateContainerError: )",
			exits:    map[string]exit{"app": {-2, "^(CannotStartContainerError|CannotCreateContainerError): .*/none"}},
			neverRan: true,
		}, {
			name: "there is no such log group",
			containers: []ecs.ContainerDefinition{with(w.box("app", "exit", "0"), func(c *ecs.ContainerDefinition) {
				c.LogConfiguration = &ecs.LogConfiguration{LogDriver: ecs.LogDriverAwslogs, Options: map[string]string{
					"awslogs-group": "/none", "awslogs-region": w.Name, "awslogs-stream-prefix": "x"}}
			})},
			code: "TaskFailedToStart", reason: "^ResourceInitializationError: failed to (initialize|validate).* logg.*: .*create.* Cloudwatch log stream: .*ResourceNotFoundException: The specified log group does not exist\\.",
			exits:    map[string]exit{"app": {-1, ""}},
			neverRan: true,
		}, {
			name: "a container that another waits for fails",
			containers: []ecs.ContainerDefinition{
				optional(w.box("init", "exit", "1")),
				with(w.box("app", "term"), func(c *ecs.ContainerDefinition) {
					c.DependsOn = []ecs.ContainerDependency{{ContainerName: new("init"), Condition: ecs.ContainerConditionSuccess}}
				}),
			},
			code: "TaskFailedToStart", reason: "^(Task failed to start|CannotStartContainerError: )",
			exits:    map[string]exit{"init": {1, ""}, "app": {143, "dependency did not exit successfully"}},
			neverRan: true,
		}, {
			name:       "a container that is not essential exits, and the task runs on",
			containers: []ecs.ContainerDefinition{essential(w.box("app", "term")), optional(w.box("side", "exit", "5"))},
			stop:       "-",
			code:       "UserInitiated", reason: "^Task stopped by user$",
			exits: map[string]exit{"app": {0, ""}, "side": {5, ""}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := w.run(t, tt.containers...)
			if tt.stop != "" {
				now := k.wait("RUNNING")
				if now.StartedAt == nil || now.Connectivity != "CONNECTED" || now.HealthStatus == "" {
					t.Errorf("a running task: %s", show(now))
				}
				// The program says that it is ready to be asked.
				k.printed("app", 1)
				if _, ok := tt.exits["side"]; ok {
					k.until("the side container is STOPPED", func(now ecs.Task) bool { return *container(now, "side").LastStatus == "STOPPED" })
					if s := *k.describe().LastStatus; s != "RUNNING" {
						t.Errorf("the task is %s after a container exited that is not essential", s)
					}
				}
				reason := tt.stop
				if reason == "-" {
					reason = ""
				}
				k.stop(reason)
			}
			now := k.wait("STOPPED")
			if string(now.StopCode) != tt.code || now.StoppedReason == nil || !regexp.MustCompile(tt.reason).MatchString(*now.StoppedReason) {
				t.Errorf("stopped with %s: %q, want %s: %q", now.StopCode, value(now.StoppedReason), tt.code, tt.reason)
			}
			for name, want := range tt.exits {
				c := container(now, name)
				if *c.LastStatus != "STOPPED" {
					t.Errorf("container %s is %s", name, *c.LastStatus)
				}
				switch {
				case want.code == -2: // AWS shows none or 127 here, after the runtime
				case want.code == -1 && c.ExitCode != nil, want.code >= 0 && (c.ExitCode == nil || int(*c.ExitCode) != want.code):
					t.Errorf("container %s has exit code %s, want %d", name, show(c.ExitCode), want.code)
				}
				if want.reason == "" && c.Reason != nil || want.reason != "" && !regexp.MustCompile(want.reason).MatchString(value(c.Reason)) {
					t.Errorf("container %s has reason %q, want %q", name, value(c.Reason), want.reason)
				}
			}
			if (now.StartedAt == nil) != tt.neverRan {
				t.Errorf("startedAt is %v", now.StartedAt)
			}
			if *now.DesiredStatus != "STOPPED" || now.StoppingAt == nil || now.StoppedAt == nil || now.StoppedAt.Before(*now.StoppingAt) {
				t.Errorf("a stopped task: %s", show(now))
			}
			if len(now.Attachments) != 1 || *now.Attachments[0].Status != "DELETED" {
				t.Errorf("the attachment of a stopped task: %s", show(now.Attachments))
			}
		})
	}
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Containers start in the order they depend on each other, and what one waits
// for is really so by then.
func TestDependencies(t *testing.T) {
	t.Parallel()
	w := shared
	volume := []ecs.MountPoint{{SourceVolume: new("shared"), ContainerPath: new("/shared")}}
	fill := w.box("fill", "sleep", "300ms", "write", "/shared/filled", "with care", "exit", "0")
	fill.Essential, fill.MountPoints = new(false), volume
	db := w.box("db", "cat", "/shared/filled", "sleep", "700ms", "write", "/shared/ready", "yes", "term")
	db.MountPoints = volume
	db.DependsOn = []ecs.ContainerDependency{{ContainerName: new("fill"), Condition: ecs.ContainerConditionSuccess}}
	db.HealthCheck = &ecs.HealthCheck{Command: []string{"CMD", "/box", "exists", "/shared/ready"}, Interval: new(int32(5)), Retries: new(int32(5)), Timeout: new(int32(5))}
	app := w.box("app", "cat", "/shared/ready", "serve", "80")
	app.MountPoints = volume
	app.DependsOn = []ecs.ContainerDependency{{ContainerName: new("db"), Condition: ecs.ContainerConditionHealthy}}
	k := w.start(t, w.define(t, &ecs.RegisterTaskDefinitionInput{
		ContainerDefinitions: []ecs.ContainerDefinition{app, db, fill}, Volumes: []ecs.Volume{{Name: new("shared")}}}))
	now := k.wait("RUNNING")
	if got := k.printed("db", 1)[0]; got != "with care" {
		t.Errorf("db read %q", got)
	}
	if got := k.printed("app", 1)[0]; got != "yes" {
		t.Errorf("app read %q", got)
	}
	k.until("the task is healthy", func(now ecs.Task) bool { return now.HealthStatus == ecs.HealthStatusHealthy })
	if c := container(now, "fill"); *c.LastStatus != "STOPPED" || c.ExitCode == nil || *c.ExitCode != 0 {
		t.Errorf("fill: %s", show(c))
	}
	// The volume is one: what one writes the other reads.
	k.page("/write", "path", "/shared/later", "data", "more")
	if got := k.page("/cat", "path", "/shared/later"); got != "more" {
		t.Errorf("read %q", got)
	}
}

// What a container is given: limits, file systems, environment.
func TestContainerSettings(t *testing.T) {
	t.Parallel()
	w := shared
	c := w.box("app", "limit", "space", "/scratch", "serve", "80")
	c.Cpu, c.Memory = new(int32(128)), new(int32(256))
	c.Ulimits = []ecs.Ulimit{{Name: ecs.UlimitNameNofile, SoftLimit: new(int32(4096)), HardLimit: new(int32(4096))}}
	c.LinuxParameters = &ecs.LinuxParameters{InitProcessEnabled: new(true), Tmpfs: []ecs.Tmpfs{{ContainerPath: new("/scratch"), Size: new(int32(16))}}}
	c.Environment = []ecs.KeyValuePair{{Name: new("COLOUR"), Value: new("blue")}}
	c.WorkingDirectory, c.ReadonlyRootFilesystem = new("/scratch"), new(true)
	k := w.start(t, w.define(t, &ecs.RegisterTaskDefinitionInput{
		Cpu: new("512"), Memory: new("1024"), ContainerDefinitions: []ecs.ContainerDefinition{c}}))
	k.wait("RUNNING")
	// The kernel's magic number of tmpfs.
	if got, want := k.printed("app", 2), []string{"nofile 4096", fmt.Sprintf("/scratch %d 0x1021994", 16<<20)}; !slices.Equal(got[:2], want) {
		t.Errorf("printed %q, want %q", got, want)
	}
	if _, err := k.try("/write", "path", "/tmp/x", "data", "x"); err == nil || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("writing to a read-only root: %v", err)
	}
	k.page("/write", "path", "here", "data", "x") // the working directory
	k.page("/cat", "path", "/scratch/here")
	var env map[string]string
	if err := json.Unmarshal([]byte(k.page("/env")), &env); err != nil {
		t.Fatal(err)
	}
	if env["COLOUR"] != "blue" || env["PAGE"] != "one" || env["AWS_EXECUTION_ENV"] != "AWS_ECS_FARGATE" || env["AWS_REGION"] != w.Name {
		t.Errorf("environment: %s", show(env))
	}
	if h := k.page("/cat", "path", "/etc/hostname"); !strings.HasPrefix(h, "ip-") {
		t.Errorf("host name %q", h)
	}

	// The kernel holds the task to its size and the container to its own.
	for _, want := range []struct{ what, v1, v2, value string }{
		{"task memory", "memory/berth/%s/%s/memory.limit_in_bytes", "berth/%s/%s/memory.max", fmt.Sprint(1024 << 20)},
		{"task cpu", "cpu/berth/%s/%s/cpu.cfs_quota_us", "berth/%s/%s/cpu.max", "50000"},
		{"container memory", "memory/berth/%s/%s/*/memory.limit_in_bytes", "berth/%s/%s/*/memory.max", fmt.Sprint(256 << 20)},
	} {
		got := cgroupFile(t, want.v1, want.v2, w.ShortID(), k.id())
		if first, _, _ := strings.Cut(got, " "); first != want.value {
			t.Errorf("%s is %q, want %s", want.what, got, want.value)
		}
	}
}

// The metadata endpoint, the credentials and what they allow.
func TestMetadataAndCredentials(t *testing.T) {
	t.Parallel()
	w := shared
	k := w.start(t, w.define(t, &ecs.RegisterTaskDefinitionInput{TaskRoleArn: &w.role,
		ContainerDefinitions: []ecs.ContainerDefinition{w.box("app", "serve", "80")}}))
	now := k.wait("RUNNING")
	var env map[string]string
	if err := json.Unmarshal([]byte(k.page("/env")), &env); err != nil {
		t.Fatal(err)
	}

	type metadata struct {
		Cluster, TaskARN, Family, Revision, DesiredStatus, KnownStatus, AvailabilityZone, LaunchType string
		Limits                                                                                       struct{ CPU, Memory float64 }
		Containers                                                                                   []struct {
			DockerId, Name, Image, ImageID, KnownStatus, ContainerARN string
			Labels                                                    map[string]string
			Networks                                                  []struct {
				NetworkMode, MACAddress, IPv4SubnetCIDRBlock string
				IPv4Addresses                                []string
			}
		}
	}
	for version, uri := range map[string]string{"v3": env["ECS_CONTAINER_METADATA_URI"], "v4": env["ECS_CONTAINER_METADATA_URI_V4"]} {
		if !strings.HasPrefix(uri, "http://169.254.170.2/"+version+"/") {
			t.Errorf("URI of %s is %q", version, uri)
			continue
		}
		var m metadata
		body := k.page("/get", "url", uri+"/task")
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatal(err)
		}
		if m.TaskARN != k.arn || m.Family != k.family || m.Revision != "1" || m.KnownStatus != "RUNNING" || m.DesiredStatus != "RUNNING" ||
			m.AvailabilityZone != *now.AvailabilityZone || m.Limits.CPU != 0.25 || m.Limits.Memory != 512 ||
			version == "v4" && m.LaunchType != "FARGATE" || !strings.HasSuffix(m.Cluster, "default") {
			t.Errorf("%s: %s", version, body)
		}
		if len(m.Containers) != 1 {
			t.Fatalf("%s: %s", version, body)
		}
		c := m.Containers[0]
		if c.Name != "app" || c.Image != w.image || c.ImageID != *now.Containers[0].ImageDigest || c.KnownStatus != "RUNNING" ||
			c.Labels["com.amazonaws.ecs.task-arn"] != k.arn || c.Labels["com.amazonaws.ecs.container-name"] != "app" ||
			version == "v4" && c.ContainerARN != *now.Containers[0].ContainerArn {
			t.Errorf("%s: %s", version, body)
		}
		if len(c.Networks) != 1 || c.Networks[0].NetworkMode != "awsvpc" || !slices.Equal(c.Networks[0].IPv4Addresses, []string{k.private()}) ||
			version == "v4" && c.Networks[0].MACAddress != detail(now, "macAddress") {
			t.Errorf("%s networks: %s", version, body)
		}
		var stats struct {
			CPU    json.RawMessage `json:"cpu_stats"`
			Memory struct {
				Usage uint64 `json:"usage"`
			} `json:"memory_stats"`
			Networks map[string]struct {
				RxBytes uint64 `json:"rx_bytes"`
			} `json:"networks"`
		}
		body = k.page("/get", "url", uri+"/stats")
		if err := json.Unmarshal([]byte(body), &stats); err != nil || stats.Memory.Usage == 0 || len(stats.CPU) == 0 {
			t.Errorf("%s stats: %v: %s", version, err, body)
		}
	}

	relative := env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]
	var c struct{ RoleArn, AccessKeyId, SecretAccessKey, Token, Expiration string }
	if err := json.Unmarshal([]byte(k.page("/get", "url", "http://169.254.170.2"+relative)), &c); err != nil {
		t.Fatal(err)
	}
	if c.RoleArn != w.role || !strings.HasPrefix(c.AccessKeyId, "ASIA") {
		t.Errorf("credentials of %s, key %s", c.RoleArn, c.AccessKeyId)
	}
	role := lab.Identity{Region: w.Region, AccessKeyID: c.AccessKeyId, Secret: c.SecretAccessKey, Token: c.Token}
	session := "arn:aws:sts::" + lab.Account + ":assumed-role/task/" + k.id()
	who, err := lab.Do[sts.GetCallerIdentityOutput](t.Context(), role, lab.STS, "GetCallerIdentity", &sts.GetCallerIdentityInput{})
	if err != nil || *who.Arn != session {
		t.Errorf("the task is %s, want %s (%v)", show(who), session, err)
	}
	if err := role.Call(t.Context(), lab.ECS, "ListClusters", &ecs.ListClustersInput{}, nil); err != nil {
		t.Errorf("what the role allows: %v", err)
	}
	refused(t, role, lab.ECS, "ListTaskDefinitions", &ecs.ListTaskDefinitionsInput{}, "AccessDeniedException",
		"User: "+session+" is not authorized to perform: ecs:ListTaskDefinitions on resource: * because no identity-based policy allows the ecs:ListTaskDefinitions action")

	if _, err := k.try("/get", "url", "http://169.254.170.2/v2/credentials/00000000-0000-0000-0000-000000000000"); err == nil || !strings.Contains(err.Error(), "Credentials not found") {
		t.Errorf("credentials of nobody: %v", err)
	}

	// From inside, the API is where the environment says. Nobody signed this, and so says the answer.
	if _, err := k.try("/get", "url", env["AWS_ENDPOINT_URL"]+"/?Action=GetCallerIdentity&Version=2011-06-15"); err == nil || !strings.Contains(err.Error(), "MissingAuthenticationToken") {
		t.Errorf("the API from inside, at %s: %v", env["AWS_ENDPOINT_URL"], err)
	}
	// What a task is lent ends with it.
	k.stop("")
}

// A container may be started again in place.
func TestRestartPolicy(t *testing.T) {
	t.Parallel()
	w := shared
	volume := []ecs.MountPoint{{SourceVolume: new("shared"), ContainerPath: new("/shared")}}
	web := w.box("web", "serve", "80")
	web.MountPoints = volume
	// The shortest time after which a container may be restarted is a minute.
	side := w.box("side", "append", "/shared/runs", "x", "sleep", "61s", "exit", "7")
	side.Essential, side.MountPoints = new(false), volume
	side.RestartPolicy = &ecs.ContainerRestartPolicy{Enabled: new(true), RestartAttemptPeriod: new(int32(60))}
	quick := w.box("quick", "append", "/shared/quick", "x", "exit", "7")
	quick.Essential, quick.MountPoints, quick.RestartPolicy = new(false), volume, side.RestartPolicy
	k := w.start(t, w.define(t, &ecs.RegisterTaskDefinitionInput{
		ContainerDefinitions: []ecs.ContainerDefinition{web, side, quick}, Volumes: []ecs.Volume{{Name: new("shared")}}}))
	k.wait("RUNNING")
	k.until("the side container was started twice", func(ecs.Task) bool { return k.page("/cat", "path", "/shared/runs") == "xx" })
	if got := k.page("/cat", "path", "/shared/quick"); got != "x" {
		t.Errorf("a container that did not run for the period was started %d times", len(got))
	}
	now := k.describe()
	if *container(now, "side").LastStatus != "RUNNING" || *container(now, "quick").LastStatus != "STOPPED" || *now.LastStatus != "RUNNING" {
		t.Errorf("after a restart: %s", show(now))
	}
}

// An account's image by its name on AWS is the same image.
func TestImageByItsNameOnAWS(t *testing.T) {
	t.Parallel()
	w := shared
	c := w.box("app", "print", "here", "exit", "0")
	c.Image = new(lab.Account + ".dkr.ecr." + w.Name + ".amazonaws.com/box:1")
	k := w.run(t, c)
	now := k.wait("STOPPED")
	if d, err := image.Digest(); err != nil || value(now.Containers[0].ImageDigest) != d.String() || show(now.Containers[0].ExitCode) != "0" {
		t.Errorf("ran %s", show(now.Containers[0]))
	}
}

// The same request with the same token is one task, another with it is refused.
func TestClientToken(t *testing.T) {
	t.Parallel()
	w := shared
	definition := w.define(t, &ecs.RegisterTaskDefinitionInput{ContainerDefinitions: []ecs.ContainerDefinition{w.box("app", "term")}})
	in := &ecs.RunTaskInput{TaskDefinition: &definition, NetworkConfiguration: w.network(), ClientToken: new("token-1"),
		Tags: []ecs.Tag{{Key: new("team"), Value: new("blue")}}}
	k := w.startWith(t, in)
	again := call[ecs.RunTaskOutput](t, w, lab.ECS, "RunTask", in)
	if len(again.Tasks) != 1 || *again.Tasks[0].TaskArn != k.arn {
		t.Errorf("the second call: %s, want task %s", show(again), k.arn)
	}
	other := *in
	other.StartedBy = new("somebody")
	err := w.Root.Call(t.Context(), lab.ECS, "RunTask", &other, nil)
	if c := codeOf(err); c != "ConflictException" {
		t.Errorf("another request with the token: %v", err)
	}
	tags := call[ecs.ListTagsForResourceOutput](t, w, lab.ECS, "ListTagsForResource", &ecs.ListTagsForResourceInput{ResourceArn: &k.arn})
	if len(tags.Tags) != 1 || *tags.Tags[0].Key != "team" || *tags.Tags[0].Value != "blue" {
		t.Errorf("tags: %s", show(tags.Tags))
	}
}

// cgroupFile reads a file of the task's cgroup, whichever version this machine has.
func cgroupFile(t *testing.T, v1, v2, short, id string) string {
	t.Helper()
	pattern := "/sys/fs/cgroup/" + fmt.Sprintf(v1, short, id)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		pattern = "/sys/fs/cgroup/" + fmt.Sprintf(v2, short, id)
	}
	return readOne(t, pattern)
}
