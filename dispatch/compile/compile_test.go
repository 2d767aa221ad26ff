package compile

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/dispatch/acs"
	"github.com/berth-run/berth/store/state"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each folder of testdata has a task definition as the API shows it, the task's
// overrides, and the payload that comes of both.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*/definition.json")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range cases {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			td := &state.TaskDefinition{Account: "000000000000", Family: "web", Revision: 7, ARN: "arn:aws:ecs:us-east-1:000000000000:task-definition/web:7"}
			read(t, file, &td.Doc)
			task := &state.Task{ARN: "arn:aws:ecs:us-east-1:000000000000:task/c/0123456789abcdef0123456789abcdef", ID: "0123456789abcdef0123456789abcdef",
				Account: "000000000000", Cluster: "arn:aws:ecs:us-east-1:000000000000:cluster/c", Family: "web", Group: "service:web", LaunchType: "FARGATE",
				Service: "arn:aws:ecs:us-east-1:000000000000:service/c/web", CPU: "256", Memory: "512", Zone: "us-east-1a",
				Attachments: []state.Attachment{{ID: "11111111-2222-3333-4444-555555555555", Type: "ElasticNetworkInterface"}}}
			if _, err := os.Stat(filepath.Join(dir, "overrides.json")); err == nil {
				task.Overrides = &ecs.TaskOverride{}
				read(t, filepath.Join(dir, "overrides.json"), task.Overrides)
			}
			for i := range td.Doc.ContainerDefinitions {
				task.Containers = append(task.Containers, state.Container{Name: *td.Doc.ContainerDefinitions[i].Name, ARN: "arn:container/" + *td.Doc.ContainerDefinitions[i].Name})
			}
			p, err := Task(Input{Region: "us-east-1", Task: task, Definition: td, Domain: "ec2.internal",
				Interface: &state.NetworkInterface{ID: "eni-1", MAC: "02:00:00:00:00:01", Address: netip.MustParseAddr("172.31.0.10"), PrivateDNSName: "ip-172-31-0-10.ec2.internal"},
				Subnet:    netip.MustParsePrefix("172.31.0.0/20"), Resolver: netip.MustParseAddr("172.31.0.2"),
				ExecutionRole: &acs.IAMRoleCredentials{CredentialsID: "id", RoleArn: "arn:role", AccessKeyID: "ASIA", SecretAccessKey: "s", SessionToken: "t", Expiration: "2026-01-01T00:00:00Z"}})
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(p, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join(dir, "payload.json")
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
				t.Errorf("payload differs (-want +got):\n%s", d)
			}
		})
	}
}

func read(t *testing.T, file string, v any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func TestECRHost(t *testing.T) {
	for image, want := range map[string][2]string{
		"000000000000.dkr.ecr.us-east-1.amazonaws.com/web:1":       {"000000000000", "us-east-1"},
		"000000000000.dkr.ecr.eu-west-2.localhost:4566/a/b@sha256": {"000000000000", "eu-west-2"},
		"nginx":                   {},
		"docker.io/library/nginx": {},
		"00000000000.dkr.ecr.us-east-1.amazonaws.com/web": {},
		"000000000000.dkr.ecr.us-east-1.example.com/web":  {},
		"localhost:5000/x": {},
		"000000000000.dkr.ecr.us-east-1.amazonaws.com.evil/web": {},
	} {
		a, r, ok := ECRHost(image)
		if a != want[0] || r != want[1] || ok != (want[0] != "") {
			t.Errorf("%s: %q %q %v", image, a, r, ok)
		}
	}
}

func FuzzECRHost(f *testing.F) {
	f.Add("000000000000.dkr.ecr.us-east-1.amazonaws.com/web:1")
	f.Fuzz(func(t *testing.T, image string) {
		if a, _, ok := ECRHost(image); ok && len(a) != 12 {
			t.Fatalf("account %q of %q", a, image)
		}
	})
}

// The account's delivery mode is for those who name none, and for awslogs alone.
func TestLogMode(t *testing.T) {
	for _, c := range []struct{ driver, mode, account, want string }{
		{"awslogs", "", "blocking", "blocking"},
		{"awslogs", "non-blocking", "blocking", "non-blocking"},
		{"awslogs", "", "", ""},
		{"json-file", "", "blocking", ""},
	} {
		options := map[string]string{"awslogs-group": "g"}
		if c.mode != "" {
			options["mode"] = c.mode
		}
		td := &state.TaskDefinition{}
		td.Doc.ContainerDefinitions = []ecs.ContainerDefinition{{Name: new("a"), Image: new("x"),
			LogConfiguration: &ecs.LogConfiguration{LogDriver: ecs.LogDriver(c.driver), Options: options}}}
		_, host, err := docker(Input{Task: &state.Task{}, Definition: td, LogMode: c.account}, &td.Doc.ContainerDefinitions[0], &ecs.ContainerOverride{})
		if err != nil {
			t.Fatal(err)
		}
		if got := host.LogConfig.Config["mode"]; got != c.want || options["mode"] != c.mode {
			t.Errorf("%+v: mode %q; the definition has %q", c, got, options["mode"])
		}
	}
}
