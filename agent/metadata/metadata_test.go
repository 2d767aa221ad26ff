package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/berth-run/berth/agent/credentials"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/agent/stats"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/dispatch/acs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "rewrite golden files")

type oneTask struct{ t *engine.Task }

func (o oneTask) Lookup(id string) (*engine.Task, *engine.Container) {
	for _, c := range o.t.Containers {
		if c.RuntimeID == id {
			return o.t, c
		}
	}
	return nil, nil
}

const arn = "arn:aws:ecs:eu-west-1:111122223333:task/c/0a"

func task(t *testing.T) *engine.Task {
	docker, err := acs.NewDockerConfig("", acs.Config{Labels: map[string]string{"team": "blue"}, Healthcheck: &acs.Healthcheck{Test: []string{"CMD", "x"}}},
		acs.HostConfig{LogConfig: acs.LogConfig{Type: "awslogs", Config: map[string]string{"awslogs-group": "g"}}})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	task, err := engine.NewTask(acs.Task{
		Arn: arn, TaskClusterArn: "arn:aws:ecs:eu-west-1:111122223333:cluster/c", Family: "f", Version: "3", CPU: 0.25, Memory: 512, LaunchType: "FARGATE", ServiceName: "svc",
		RoleCredentials: &acs.IAMRoleCredentials{CredentialsID: "id"},
		ElasticNetworkInterfaces: []acs.ElasticNetworkInterface{{EC2ID: "eni-1", MacAddress: "0e:00:00:00:00:01", SubnetGatewayIPv4Address: "10.0.1.1/24", PrivateDNSName: "ip-10-0-1-5.ec2.internal",
			IPv4Addresses: []acs.IPv4Address{{Primary: true, PrivateAddress: "10.0.1.5"}}, DomainNameServers: []string{"10.0.0.2"}, DomainName: []string{"ec2.internal"}}},
		Containers: []acs.Container{{Name: "web", Image: "i:1", Essential: true, Memory: 128, HealthCheckType: "docker", DockerConfig: docker, ContainerArn: "arn:aws:ecs:eu-west-1:111122223333:container/c/0a/u"},
			{Name: "init", Image: "i:1"}},
	}, at)
	if err != nil {
		t.Fatal(err)
	}
	task.PullStartedAt, task.PullStoppedAt = at, at.Add(time.Second)
	web, init := task.Containers[0], task.Containers[1]
	web.Phase, web.CreatedAt, web.StartedAt, web.Digest = engine.Running, at.Add(2*time.Second), at.Add(3*time.Second), "sha256:1"
	web.Image = &runtime.Image{Digest: "sha256:1"}
	web.Health = engine.Health{Status: "HEALTHY", Since: at.Add(4 * time.Second), Output: "ok"}
	web.Mounts = []runtime.Mount{{Kind: runtime.MountVolume, Source: "/v", Target: "/data"}}
	init.Phase, init.CreatedAt, init.StartedAt, init.FinishedAt, init.ExitCode = engine.Stopped, at.Add(2*time.Second), at.Add(3*time.Second), at.Add(4*time.Second), new(0)
	return task
}

func serve(t *testing.T, tasks *engine.Task, creds *credentials.Store) string {
	at := time.Date(2026, 1, 2, 3, 5, 0, 0, time.UTC)
	s := &Server{
		Tasks: oneTask{tasks}, Credentials: creds, ContainerInstance: "arn:instance", Zone: "eu-west-1a", Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Stats: func(context.Context, stats.Container) (now, before runtime.Stats, err error) {
			before = runtime.Stats{Time: at, CPU: runtime.CPUStats{Total: 1000, System: 100_000, OnlineCPUs: 2}, Network: map[string]runtime.NetworkStats{"eth0": {RxBytes: 100}}}
			now = runtime.Stats{Time: at.Add(10 * time.Second), CPU: runtime.CPUStats{Total: 2000, User: 1500, Kernel: 500, System: 200_000, OnlineCPUs: 2, Periods: 3},
				Memory:  runtime.MemoryStats{Usage: 4096, Max: 8192, Limit: 128 << 20, Stats: map[string]uint64{"inactive_file": 1024}},
				BlockIO: []runtime.BlockIO{{Major: 254, ReadBytes: 10, WriteBytes: 20, ReadOps: 1, WriteOps: 2}},
				Network: map[string]runtime.NetworkStats{"eth0": {RxBytes: 1100, RxPackets: 9, TxBytes: 50}}, Pids: runtime.PidsStats{Current: 4}}
			return now, before, nil
		},
		Tags: func(_ context.Context, arn string) ([]ecs.Tag, error) {
			if arn == "arn:instance" {
				return nil, &ecs.AccessDeniedException{Message: "no"}
			}
			return []ecs.Tag{{Key: new("k"), Value: new("v")}}, nil
		},
		Protection: func(_ context.Context, _ *engine.Task, in *ecs.UpdateTaskProtectionInput) (*ecs.UpdateTaskProtectionOutput, error) {
			if in == nil {
				return &ecs.UpdateTaskProtectionOutput{Failures: []ecs.Failure{{Arn: new(arn), Reason: new("TASK_NOT_VALID")}}}, nil
			}
			if *in.ExpiresInMinutes == 0 {
				return nil, &ecs.InvalidParameterException{Message: "bad"}
			}
			return &ecs.UpdateTaskProtectionOutput{ProtectedTasks: []ecs.ProtectedTask{{TaskArn: new(arn), ProtectionEnabled: in.ProtectionEnabled}}}, nil
		},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := s.Serve(arn, l)
	t.Cleanup(func() { c.Close(); http.DefaultClient.CloseIdleConnections() })
	return "http://" + l.Addr().String()
}

func get(t *testing.T, url string) (int, []byte) {
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

func TestGolden(t *testing.T) {
	tk := task(t)
	id := tk.Containers[0].RuntimeID
	base := serve(t, tk, &credentials.Store{})
	for name, path := range map[string]string{
		"v4-container": "/v4/" + id, "v4-task": "/v4/" + id + "/task", "v4-tags": "/v4/" + id + "/taskWithTags",
		"v4-stats": "/v4/" + id + "/stats", "v4-task-stats": "/v4/" + id + "/task/stats",
		"v3-container": "/v3/" + id, "v3-task": "/v3/" + id + "/task", "v3-stats": "/v3/" + id + "/stats",
	} {
		t.Run(name, func(t *testing.T) {
			status, b := get(t, base+path)
			if status != 200 {
				t.Fatalf("%d %s", status, b)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, b, "", "  "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	creds := &credentials.Store{}
	creds.Put(arn, acs.IAMRoleCredentials{CredentialsID: "id", RoleArn: "arn:role", AccessKeyID: "AK", SecretAccessKey: "s", SessionToken: "t", Expiration: "2999-01-01T00:00:00Z"})
	creds.Put(arn, acs.IAMRoleCredentials{CredentialsID: "old", AccessKeyID: "AK", Expiration: "2001-01-01T00:00:00Z"})
	creds.Put("another task", acs.IAMRoleCredentials{CredentialsID: "other", AccessKeyID: "AK", Expiration: "2999-01-01T00:00:00Z"})
	creds.Expect(arn, "late")
	base := serve(t, task(t), creds)
	for path, want := range map[string]string{
		"/v2/credentials/id":    `200 {"RoleArn":"arn:role","AccessKeyId":"AK","SecretAccessKey":"s","Token":"t","Expiration":"2999-01-01T00:00:00Z"}`,
		"/v1/credentials?id=id": `200 {"RoleArn":"arn:role","AccessKeyId":"AK","SecretAccessKey":"s","Token":"t","Expiration":"2999-01-01T00:00:00Z"}`,
		"/v2/credentials/":      `400 {"code":"NoIdInRequest","message":"CredentialsV2Request: No Credential ID in the request","HTTPErrorCode":400}`,
		"/v2/credentials/x":     `400 {"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}`,
		"/v2/credentials/other": `400 {"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}`,
		"/v1/credentials?id=x":  `400 {"code":"InvalidIdInRequest","message":"CredentialsV1Request: Credentials not found","HTTPErrorCode":400}`,
		"/v2/credentials/late":  `503 {"code":"CredentialsUninitialized","message":"CredentialsV2Request: Credentials uninitialized for ID","HTTPErrorCode":503}`,
		"/v2/credentials/old":   `503 {"code":"CredentialsUninitialized","message":"CredentialsV2Request: Credentials uninitialized for ID","HTTPErrorCode":503}`,
		"/v4/nobody":            `404 "V4 container metadata handler: unable to get container ID from request: unable to get docker ID from v3 endpoint ID: nobody"`,
		"/v3/nobody/task":       `404 "V3 task metadata handler: unable to get task ARN from request: unable to get task Arn from v3 endpoint ID: nobody"`,
		"/other":                "404 404 page not found",
	} {
		status, b := get(t, base+path)
		if got := fmt.Sprintf("%d %s", status, strings.TrimSpace(string(b))); got != want {
			t.Errorf("%s: %s\nwant %s", path, got, want)
		}
	}
}

// A task is answered about itself only, whatever ids its containers know.
func TestOtherTask(t *testing.T) {
	other := task(t)
	other.Def.Arn = "arn:aws:ecs:eu-west-1:111122223333:task/c/0b"
	base := serve(t, other, &credentials.Store{})
	if status, b := get(t, base+"/v4/"+other.Containers[0].RuntimeID+"/task"); status != 404 {
		t.Errorf("%d %s", status, b)
	}
}

func TestRateLimit(t *testing.T) {
	base := serve(t, task(t), &credentials.Store{})
	refused := 0
	for range requestBurst * 3 {
		status, b := get(t, base+"/v2/credentials/x")
		if status == http.StatusTooManyRequests {
			refused++
			if string(b) != "You have reached maximum request limit.\n" {
				t.Errorf("%s", b)
			}
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

func TestProtection(t *testing.T) {
	tk := task(t)
	id := tk.Containers[0].RuntimeID
	base := serve(t, tk, &credentials.Store{})
	for _, c := range []struct{ method, body, want string }{
		{"GET", "", `{"failure":{"Arn":"` + arn + `","Reason":"TASK_NOT_VALID"}}`},
		{"PUT", `{"ProtectionEnabled":true,"ExpiresInMinutes":60}`, `{"protection":{"ProtectionEnabled":true,"TaskArn":"` + arn + `"}}`},
		{"PUT", `{"ProtectionEnabled":true,"ExpiresInMinutes":0}`, `{"error":{"Arn":"` + arn + `","Code":"InvalidParameterException","Message":"InvalidParameterException: bad"}}`},
		{"PUT", `{}`, `{"error":{"Arn":"` + arn + `","Code":"InvalidParameterException","Message":"Invalid request: does not contain 'ProtectionEnabled' field"}}`},
		{"PUT", `{"x":1}`, `{"error":{"Arn":"` + arn + `","Code":"InvalidParameterException","Message":"UpdateTaskProtection: failed to decode request"}}`},
		{"DELETE", "", "Method Not Allowed\n"},
	} {
		req, _ := http.NewRequest(c.method, base+"/api/"+id+"/task-protection/v1/state", strings.NewReader(c.body))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != c.want {
			t.Errorf("%s %s: %s\nwant %s", c.method, c.body, b, c.want)
		}
	}
	tk.RoleCredentials = ""
	if _, b := get(t, base+"/api/"+id+"/task-protection/v1/state"); string(b) != `{"error":{"Arn":"`+arn+`","Code":"AccessDeniedException","Message":"Invalid Request: no task IAM role credentials available for task"}}` {
		t.Errorf("without a role: %s", b)
	}
	if _, ok := status(errors.New("x")); ok || wire.Code(errors.New("x")) != "" {
		t.Error("any error has a status")
	}
}
