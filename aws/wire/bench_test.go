package wire_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
)

// discard is a ResponseWriter that keeps the last write.
type discard struct {
	h    http.Header
	last []byte
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { d.last = p; return len(p), nil }

// tasks is what DescribeTasks answers for a full request of 100 tasks.
func tasks() *ecs.DescribeTasksOutput {
	out := &ecs.DescribeTasksOutput{Failures: []ecs.Failure{}}
	now := time.UnixMilli(1479412345123).UTC()
	for range 100 {
		out.Tasks = append(out.Tasks, ecs.Task{
			TaskArn: new("arn:aws:ecs:eu-west-1:123456789012:task/default/0123456789abcdef0123456789abcdef"), ClusterArn: new("arn:aws:ecs:eu-west-1:123456789012:cluster/default"),
			TaskDefinitionArn: new("arn:aws:ecs:eu-west-1:123456789012:task-definition/web:12"), LastStatus: new("RUNNING"), DesiredStatus: new("RUNNING"),
			LaunchType: ecs.LaunchTypeFargate, Cpu: new("256"), Memory: new("512"), Version: new(int64(4)), CreatedAt: &now, StartedAt: &now, PullStartedAt: &now, PullStoppedAt: &now,
			Group: new("service:web"), StartedBy: new("ecs-svc/1234567890123456789"), HealthStatus: ecs.HealthStatusHealthy, EnableExecuteCommand: new(false), Tags: []ecs.Tag{},
			Attachments: []ecs.Attachment{{Id: new("0a1b2c3d-0000-0000-0000-000000000000"), Type: new("ElasticNetworkInterface"), Status: new("ATTACHED"), Details: []ecs.KeyValuePair{
				{Name: new("subnetId"), Value: new("subnet-0123456789abcdef0")}, {Name: new("networkInterfaceId"), Value: new("eni-0123456789abcdef0")}, {Name: new("privateIPv4Address"), Value: new("10.0.0.12")}}}},
			Containers: []ecs.Container{{Name: new("web"), Image: new("123456789012.dkr.ecr.eu-west-1.localhost/web:1"), LastStatus: new("RUNNING"), RuntimeId: new("0123456789abcdef0123456789abcdef-123456"), NetworkBindings: []ecs.NetworkBinding{},
				NetworkInterfaces: []ecs.NetworkInterface{{AttachmentId: new("0a1b2c3d-0000-0000-0000-000000000000"), PrivateIpv4Address: new("10.0.0.12")}}}},
		})
	}
	return out
}

func BenchmarkDescribeTasks(b *testing.B) {
	svc := ecs.NewService(nil)
	out := tasks()
	call := &wire.Call{Service: svc, Operation: svc.Operations["DescribeTasks"], Protocol: wire.JSON11}
	w := &discard{h: http.Header{}}
	if err := call.EncodeResponse(w, "id", out); err != nil {
		b.Fatal(err)
	}
	body := append([]byte(nil), w.last...)
	b.Run("encode/wire", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if err := call.EncodeResponse(w, "id", out); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode/encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if _, err := json.Marshal(out); err != nil {
				b.Fatal(err)
			}
		}
	})
	client := wire.Client{Endpoint: "http://berth.test", HTTP: &http.Client{Transport: answer{200, body}}}
	got := new(ecs.DescribeTasksOutput)
	if err := client.Call(b.Context(), svc, "DescribeTasks", new(ecs.DescribeTasksInput), got); err != nil {
		b.Fatal(err)
	}
	if d := cmp.Diff(out, got); d != "" {
		b.Fatal(d)
	}
	b.Run("decode/wire", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if err := client.Call(b.Context(), svc, "DescribeTasks", new(ecs.DescribeTasksInput), new(ecs.DescribeTasksOutput)); err != nil {
				b.Fatal(err)
			}
		}
	})
	plain, err := json.Marshal(out)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decode/encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			if err := json.Unmarshal(plain, new(ecs.DescribeTasksOutput)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkColdService is what a process pays for an API that it serves: the
// description, and the schemas of one operation.
func BenchmarkColdService(b *testing.B) {
	text := ecs.NewService(nil).Schemas.Text
	b.ReportAllocs()
	for b.Loop() {
		ecs.NewService(nil)
		if (&wire.Schemas{Text: text}).Lookup("RunTaskInput") == nil {
			b.Fatal("no schema")
		}
	}
}
