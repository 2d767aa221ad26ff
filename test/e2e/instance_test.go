package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	images "github.com/berth-run/berth/test/image"
	"github.com/berth-run/berth/test/lab"
)

// aws runs the CLI as root of the region.
func (w *world) aws(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.Root.Exec(deadline(t), args...)
	if err != nil {
		t.Fatalf("aws %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(out)
}

// profile makes an instance profile with the role that container instances need.
func (w *world) profile(t *testing.T, name string, policies ...string) {
	t.Helper()
	w.aws(t, "iam", "create-role", "--role-name", name, "--assume-role-policy-document",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)
	for _, p := range policies {
		w.aws(t, "iam", "attach-role-policy", "--role-name", name, "--policy-arn", p)
	}
	w.aws(t, "iam", "create-instance-profile", "--instance-profile-name", name)
	w.aws(t, "iam", "add-role-to-instance-profile", "--instance-profile-name", name, "--role-name", name)
}

const containerInstanceRole = "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"

// launch runs an instance of an ECS-optimized image.
func (w *world) launch(t *testing.T, script string, args ...string) string {
	t.Helper()
	image := w.aws(t, "ec2", "describe-images", "--owners", "amazon", "--query", "Images[?starts_with(Name,`al2023-ami-ecs-hvm`)]|[?Architecture==`x86_64`].ImageId", "--output", "text")
	file := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	return w.aws(t, append([]string{"ec2", "run-instances", "--image-id", image, "--instance-type", "t3.small", "--user-data", "file://" + file,
		"--query", "Instances[0].InstanceId", "--output", "text"}, args...)...)
}

// until waits until a query of the CLI gives what is wanted.
func (w *world) until(t *testing.T, want string, args ...string) {
	t.Helper()
	got := ""
	argv := append(args, "--output", "text")
	err := lab.Until(deadline(t), func(ctx context.Context) (bool, error) {
		out, err := w.Root.Exec(ctx, argv...)
		got = strings.Join(strings.Fields(out), " ")
		return regexp.MustCompile("^(?:" + want + ")$").MatchString(got), err
	})
	if err != nil {
		t.Fatalf("aws %s: %q, want %q: %v", strings.Join(args, " "), got, want, err)
	}
}

func (w *world) instanceIs(t *testing.T, id, state string) {
	t.Helper()
	w.until(t, state, "ec2", "describe-instances", "--instance-ids", id, "--query", "Reservations[0].Instances[0].State.Name")
}

func (w *world) console(t *testing.T, id string) string {
	t.Helper()
	return w.aws(t, "ec2", "get-console-output", "--instance-id", id, "--query", "Output", "--output", "text")
}

// consoleHas waits until the console has a text so many times.
func (w *world) consoleHas(t *testing.T, id, text string, times int) string {
	t.Helper()
	got := ""
	err := lab.Until(deadline(t), func(context.Context) (bool, error) {
		got = w.console(t, id)
		return strings.Count(got, text) >= times, nil
	})
	if err != nil {
		t.Fatalf("console of %s: %q, want %d times %q", id, got, times, text)
	}
	return got
}

func (w *world) agentLog(id string) string {
	b, _ := os.ReadFile(filepath.Join(w.Dir, "node/instance/i", id, "log/ecs-agent.log"))
	return string(b)
}

// look is a user-data script that says what an instance sees.
const look = `#!/bin/bash
echo "ECS_CLUSTER=default" >> /etc/ecs/ecs.config
echo 'ECS_INSTANCE_ATTRIBUTES={"rack":"r1"}' >> /etc/ecs/ecs.config
echo "ECS_RESERVED_MEMORY=100" >> /etc/ecs/ecs.config
say() { echo "[$1] $2"; }
say root "$(ls / | tr '\n' ' ')"
say processes "$(ps -e -o comm= | tr '\n' ' ')"
say caps "$(grep CapBnd /proc/self/status | tr -d '\t')"
say devices "$(ls /dev | tr '\n' ' ')"
say mounts "$(awk '{print $5}' /proc/self/mountinfo | sort -u | tr '\n' ' ')"
say run "$(ls /run)"
mount -t tmpfs none /mnt 2>/dev/null && say bad "can mount"
mount -o remount,rw /usr/lib/berth/init 2>/dev/null && say bad "can write its init"
echo x > /var/log/ecs/x 2>/dev/null && say bad "can write the agent's log"
mknod /tmp/disk b 254 0 2>/dev/null && head -c 1 /tmp/disk >/dev/null 2>&1 && say bad "can read a disk"
echo 1 > /proc/sys/kernel/panic 2>/dev/null && say bad "can write sysctls"
[ -s /proc/kcore ] && head -c 1 /proc/kcore 2>/dev/null | grep -q . && say bad "can read memory"
say cgroup "$(cut -d: -f3 /proc/self/cgroup | sort -u | tr '\n' ' ')"
imds=http://169.254.169.254/latest
say v1 "$(curl -s -o /dev/null -w '%{http_code}' $imds/meta-data/)"
token=$(curl -s -X PUT $imds/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 60')
get() { curl -s -H "X-aws-ec2-metadata-token: $token" $imds/$1; }
say id "$(get meta-data/instance-id)"
say role "$(get meta-data/iam/security-credentials/)"
say key "$(get meta-data/iam/security-credentials/machines | jq -r .AccessKeyId | cut -c1-4)"
say script "$(get user-data | head -1)"
say names "$(getent hosts $(hostname) | wc -l)"
say api "$(curl -s -o /dev/null -w '%{http_code}' http://API/_berth/health)"
say socket "$(curl -s -o /dev/null -m 2 -w '%{http_code}' http://127.0.0.1:PORT/_berth/health)"
touch /root/first
say end ""
`

// An instance is a machine of its own: it runs its user data once, sees nothing
// of the machine it is on, answers to stop, start, reboot and to its own
// shutdown, and is a container instance by what its role allows.
func TestInstance(t *testing.T) {
	t.Parallel()
	w := fresh(t)
	w.profile(t, "machines", containerInstanceRole)
	u, err := url.Parse(w.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	script := strings.NewReplacer("API", w.inside(t), "PORT", u.Port()).Replace(look)
	id := w.launch(t, script, "--iam-instance-profile", "Name=machines", "--tag-specifications", "ResourceType=instance,Tags=[{Key=Name,Value=one}]")
	out := w.consoleHas(t, id, "[end]", 1)
	said := func(key string) string {
		m := regexp.MustCompile(`(?m)^\[` + key + `\] ?(.*?)\r?$`).FindStringSubmatch(out)
		if m == nil {
			t.Errorf("nothing is said of %s", key)
			return ""
		}
		return strings.TrimSpace(m[1])
	}
	for key, want := range map[string]string{
		"root":    "bin dev etc home lib lib64 mnt opt proc root run sbin srv sys tmp usr var",
		"caps":    "CapBnd:00000000a80435fb", // docker's and NET_ADMIN
		"devices": "console core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero",
		"run":     "", "cgroup": "/", "v1": "401", "id": id, "role": "machines", "key": "ASIA", "script": "#!/bin/bash", "names": "1", "api": "200", "socket": "000",
	} {
		if got := said(key); got != want && !(key == "devices" && got == strings.Replace(want, "console ", "", 1)) {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	for _, p := range strings.Fields(said("processes")) {
		if !slices.Contains([]string{"init", "bash", "part-001", "ps", "tr"}, p) {
			t.Errorf("sees the process %s", p)
		}
	}
	for _, m := range strings.Fields(said("mounts")) {
		if ok := regexp.MustCompile(`^/($|dev|proc|sys|usr/lib/berth/init$|var/log/ecs$)`).MatchString(m); !ok {
			t.Errorf("sees the mount %s", m)
		}
	}
	if strings.Contains(out, "[bad]") {
		t.Errorf("console: %s", out)
	}

	// It registered itself.
	arn := func() string {
		return w.aws(t, "ecs", "list-container-instances", "--query", "containerInstanceArns", "--output", "text")
	}
	w.until(t, "arn:.*", "ecs", "list-container-instances", "--query", "containerInstanceArns")
	ci := arn()
	connected := []string{"ecs", "describe-container-instances", "--container-instances", ci, "--query", "containerInstances[0].[status,agentConnected,ec2InstanceId]"}
	w.until(t, "ACTIVE True "+id, connected...)
	var row struct {
		Attributes          []struct{ Name, Value string }
		RegisteredResources []struct {
			Name           string
			IntegerValue   int
			StringSetValue []string
		}
	}
	if err := json.Unmarshal([]byte(w.aws(t, "ecs", "describe-container-instances", "--container-instances", ci, "--query", "containerInstances[0]", "--output", "json")), &row); err != nil {
		t.Fatal(err)
	}
	attributes := map[string]string{}
	for _, a := range row.Attributes {
		attributes[a.Name] = a.Value
	}
	if attributes["rack"] != "r1" || attributes["ecs.instance-type"] != "t3.small" || attributes["ecs.availability-zone"] == "" || !strings.HasPrefix(attributes["ecs.ami-id"], "ami-") || !strings.HasPrefix(attributes["ecs.vpc-id"], "vpc-") {
		t.Errorf("attributes %v", attributes)
	}
	for _, r := range row.RegisteredResources {
		switch r.Name {
		case "CPU":
			if r.IntegerValue != 2048 {
				t.Errorf("CPU %d", r.IntegerValue)
			}
		case "MEMORY":
			if r.IntegerValue <= 1500 || r.IntegerValue > 2048-100 {
				t.Errorf("memory %d", r.IntegerValue)
			}
		}
	}

	// Whoever is killed, it runs on.
	was := w.state(t, id)
	processes, err := w.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"node", "server", "containerd"} {
		if err := syscall.Kill(processes[role], syscall.SIGKILL); err != nil {
			t.Fatal(role, err)
		}
	}
	w.instanceIs(t, id, "running")
	w.until(t, "ACTIVE True "+id, connected...)
	if now := w.state(t, id); now != was {
		t.Errorf("state %s, was %s", now, was)
	}

	// Stop keeps the files and the container instance, and takes the public address.
	w.aws(t, "ec2", "stop-instances", "--instance-ids", id)
	w.instanceIs(t, id, "stopped")
	w.until(t, "ACTIVE False "+id, connected...)
	w.until(t, "None", "ec2", "describe-instances", "--instance-ids", id, "--query", "Reservations[0].Instances[0].PublicIpAddress")
	w.aws(t, "ec2", "start-instances", "--instance-ids", id)
	w.instanceIs(t, id, "running")
	w.until(t, "ACTIVE True "+id, connected...)
	if now := arn(); now != ci {
		t.Errorf("container instance %s, was %s", now, ci)
	}
	w.aws(t, "ec2", "reboot-instances", "--instance-ids", id)
	out = w.consoleHas(t, id, "boots", 3)
	if n := strings.Count(out, "[end]"); n != 1 {
		t.Errorf("user data has run %d times", n)
	}
	w.until(t, "ACTIVE True "+id, connected...)

	// The region goes and comes back.
	if err := w.Down(deadline(t), false); err != nil {
		t.Fatal(err)
	}
	if err := w.Up(deadline(t)); err != nil {
		t.Fatal(err)
	}
	w.consoleHas(t, id, "boots", 4)
	w.instanceIs(t, id, "running")
	w.until(t, "ACTIVE True "+id, connected...)

	w.aws(t, "ec2", "terminate-instances", "--instance-ids", id)
	w.instanceIs(t, id, "terminated")
	if left, _ := filepath.Glob(filepath.Join(w.Dir, "node/instance/i/*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	w.until(t, "", "ecs", "list-container-instances", "--query", "containerInstanceArns")
}

// An image of the region's registry is an AMI: what is in it boots, without a
// shell and whatever its init is, an agent runs beside it where its tag says so,
// and one that is gone from the registry ends the instance.
func TestInstanceImage(t *testing.T) {
	t.Parallel()
	w := shared
	w.profile(t, "pictures", containerInstanceRole)
	w.aws(t, "ecs", "create-cluster", "--cluster-name", "pictures")
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	w.aws(t, "ecr", "create-repository", "--repository-name", "machine")
	register := func(tag, tags string) string {
		layer, err := images.Layer(map[string]images.File{
			"etc/ecs/ecs.config": {Mode: 0o644, Data: []byte("ECS_CLUSTER=pictures\n# " + tag + "\n")},
			// All programs are one, as with busybox.
			"sbin/init": {Mode: 0o777, Link: "/box"},
		})
		if err != nil {
			t.Fatal(err)
		}
		img, err := images.Assemble(v1.Config{}, append(slices.Clone(layers), layer)...)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.push(deadline(t), "machine:"+tag, img); err != nil {
			t.Fatal(err)
		}
		args := []string{"ec2", "register-image", "--name", "machine-" + tag, "--image-location", w.Account + ".dkr.ecr." + w.Name + ".amazonaws.com/machine:" + tag, "--query", "ImageId", "--output", "text"}
		if tags != "" {
			args = append(args, "--tag-specifications", "ResourceType=image,Tags=["+tags+"]")
		}
		return w.aws(t, args...)
	}
	run := func(ami string) string {
		id := w.aws(t, "ec2", "run-instances", "--image-id", ami, "--instance-type", "t3.nano", "--iam-instance-profile", "Name=pictures",
			"--user-data", "#!/box print\n", "--query", "Instances[0].InstanceId", "--output", "text")
		w.ends(t, id)
		return id
	}
	plain, agent, lost := register("plain", ""), register("agent", "{Key=berth:ecs-agent,Value=true}"), register("lost", "")
	w.aws(t, "ecr", "batch-delete-image", "--repository-name", "machine", "--image-ids", "imageTag=lost")
	one, two, three := run(plain), run(agent), run(lost)
	for _, id := range []string{one, two} {
		w.instanceIs(t, id, "running")
		w.consoleHas(t, id, "/scripts/part-001", 1) // what the interpreter of the user data is for, it has done
	}
	w.until(t, "Client.InvalidSnapshot.NotFound terminated", "ec2", "describe-instances", "--instance-ids", three, "--query", "Reservations[0].Instances[0].[StateReason.Code,State.Name]")
	list := []string{"ecs", "list-container-instances", "--cluster", "pictures", "--query", "containerInstanceArns"}
	w.until(t, "arn:\\S+", list...)
	w.until(t, two+" True", "ecs", "describe-container-instances", "--cluster", "pictures", "--container-instances", w.aws(t, append(list, "--output", "text")...), "--query", "containerInstances[].[ec2InstanceId,agentConnected]")
}

// ends terminates an instance of the shared region after the test.
func (w *world) ends(t *testing.T, id string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := w.Root.Exec(ctx, "ec2", "terminate-instances", "--instance-ids", id); err != nil {
			t.Error(err)
		}
	})
}

// An instance that shuts itself down is stopped or terminated, as it is set up
// to be; one whose role allows nothing, or that has no way to the API, is no
// container instance.
func TestInstanceByItself(t *testing.T) {
	t.Parallel()
	w := shared
	w.profile(t, "nobody")
	w.profile(t, "lonely", containerInstanceRole)
	w.aws(t, "ecs", "create-cluster", "--cluster-name", "lonely")
	const bye = "#!/bin/sh\nshutdown -h now\n"
	const join = "#!/bin/sh\necho ECS_CLUSTER=lonely >> /etc/ecs/ecs.config\n"
	stops := w.launch(t, bye)
	ends := w.launch(t, bye, "--instance-initiated-shutdown-behavior", "terminate")
	refused := w.launch(t, join, "--iam-instance-profile", "Name=nobody")
	hidden := w.launch(t, join, "--iam-instance-profile", "Name=lonely", "--no-associate-public-ip-address")
	reboots := w.launch(t, "#!/bin/sh\nreboot\n")
	for _, id := range []string{stops, ends, refused, hidden, reboots} {
		w.ends(t, id)
	}
	for id, state := range map[string]string{stops: "stopped", ends: "terminated"} {
		w.instanceIs(t, id, state)
		w.until(t, "Client.InstanceInitiatedShutdown", "ec2", "describe-instances", "--instance-ids", id, "--query", "Reservations[0].Instances[0].StateReason.Code")
	}
	w.consoleHas(t, reboots, "boots", 2)
	w.instanceIs(t, reboots, "running")
	for id, word := range map[string]string{refused: "AccessDenied", hidden: "cannot register"} {
		w.instanceIs(t, id, "running")
		if err := lab.Until(deadline(t), func(context.Context) (bool, error) { return strings.Contains(w.agentLog(id), word), nil }); err != nil {
			t.Errorf("agent of %s: %q, want %q", id, w.agentLog(id), word)
		}
	}
	if got := w.aws(t, "ecs", "list-container-instances", "--cluster", "lonely", "--query", "containerInstanceArns", "--output", "text"); got != "" {
		t.Errorf("container instances %s", got)
	}
}

// inside is the API's host and port as instances have them.
func (w *world) inside(t *testing.T) string {
	t.Helper()
	var desired struct {
		Region struct{ PublicPool, Endpoint string }
	}
	if err := json.Unmarshal([]byte(readOne(t, filepath.Join(w.Dir, "node/desired.json"))), &desired); err != nil {
		t.Fatal(err)
	}
	base, _, _ := strings.Cut(desired.Region.PublicPool, "/")
	u, err := url.Parse(desired.Region.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s:%s", base, u.Port())
}

// state is which boot of an instance runs, as which process.
func (w *world) state(t *testing.T, id string) string {
	t.Helper()
	return readOne(t, filepath.Join(w.Dir, "node/instance/i", id, "state.json"))
}
