package ecs

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	account  = "123456789012"
	prefix   = "arn:aws:ecs:us-east-1:" + account + ":"
	nodeInst = prefix + "container-instance/nodes/0123456789abcdef0123456789abcdef"
)

// bench is an ECS with a network, a node, a clock and ids that tests foresee.
type bench struct {
	*ECS
	t     *testing.T
	time  time.Time
	ids   atomic.Int64
	roles map[string]error // what PassRole answers, by role
	// passed is what PassRole was asked.
	passed []string
	ctx    context.Context // of a user
	node   context.Context // of the node's agent
}

func newBench(t *testing.T) *bench {
	t.Helper()
	db := store.OpenMemory()
	t.Cleanup(func() {
		db.Snapshot().CheckFrozen()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	b := &bench{t: t, time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), roles: map[string]error{}}
	b.ECS = New(Config{
		DB: db, Region: "us-east-1", Account: account,
		Clock: func() time.Time { return b.time },
		NewID: func() string { return fmt.Sprintf("%032x", b.ids.Add(1)) },
		PassRole: func(_ context.Context, _ store.Reader, _ *auth.Caller, role, service string) error {
			b.passed = append(b.passed, role[strings.LastIndexByte(role, '/')+1:]+" to "+service)
			return b.roles[role]
		},
		PollEndpoint: func(context.Context) string { return "http://127.0.0.1:4566" },
	})
	b.ctx = auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.User, Account: account, ARN: "arn:aws:iam::" + account + ":user/ann", Name: "ann"})
	b.node = auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.AssumedRole, Account: account,
		ARN: "arn:aws:sts::" + account + ":assumed-role/node/n1", Name: "node", SessionName: "n1", RoleARN: "arn:aws:iam::" + account + ":role/berth/node"})
	b.must(b.Bootstrap(b.ctx))
	b.put(func(tx *store.Tx) {
		for i, vpc := range []string{"vpc-1", "vpc-1", "vpc-2"} {
			id := fmt.Sprintf("%d", i+1)
			state.Subnets.Put(tx, &state.Subnet{ID: "subnet-" + id, Account: account, VPC: vpc, Zone: "us-east-1a", CIDR: netip.MustParsePrefix("10.0." + id + ".0/24")})
			state.SecurityGroups.Put(tx, &state.SecurityGroup{ID: "sg-" + id, Account: account, VPC: vpc, Name: "g" + id})
		}
		for name, id := range map[string]string{"web": "8a1c-22", "g": "x", "other": "y"} {
			putGroup(tx, name, id)
		}
		state.Regions.Put(tx, &state.Region{Name: "us-east-1", Account: account, Zones: []state.Zone{{Name: "us-east-1a", ID: "use1-az1"}}})
		state.ContainerInstances.Put(tx, &state.ContainerInstance{ARN: nodeInst, Account: account, Cluster: prefix + "cluster/nodes", Hidden: true, Node: "n1", Status: "ACTIVE"})
	})
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// put changes the state as a controller would.
func (b *bench) put(fn func(tx *store.Tx)) {
	b.t.Helper()
	b.must(b.db.Update(b.t.Context(), func(tx *store.Tx) error { fn(tx); return nil }))
}

// try is a call that must succeed.
func try[In, Out any](b *bench, call func(context.Context, *In) (*Out, error), in *In) *Out {
	b.t.Helper()
	return as(b, b.ctx, call, in)
}

func as[In, Out any](b *bench, ctx context.Context, call func(context.Context, *In) (*Out, error), in *In) *Out {
	b.t.Helper()
	out, err := call(ctx, in)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// refuse is a call that must fail with this code and message.
func refuse[In, Out any](b *bench, call func(context.Context, *In) (*Out, error), in *In, want string) {
	b.t.Helper()
	_, err := call(b.ctx, in)
	wantError(b.t, err, want)
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	got := "no error"
	if err != nil {
		got = err.Error()
	}
	code, _, _ := strings.Cut(want, ":")
	if got != want || wire.Code(err) != code {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// read decodes a request from JSON, strictly.
func read[T any](t *testing.T, text string) *T {
	t.Helper()
	v := new(T)
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

const webDefinition = `{"family":"web","networkMode":"awsvpc","requiresCompatibilities":["FARGATE"],"cpu":"256","memory":"512",
	"containerDefinitions":[{"name":"web","image":"nginx","portMappings":[{"containerPort":80}]},
	{"name":"side","image":"busybox","essential":false}]}`

func (b *bench) register(text string) *api.TaskDefinition {
	b.t.Helper()
	return try(b, b.RegisterTaskDefinition, read[api.RegisterTaskDefinitionInput](b.t, text)).TaskDefinition
}

const webNetwork = `{"awsvpcConfiguration":{"subnets":["subnet-1","subnet-2"],"securityGroups":["sg-1"],"assignPublicIp":"ENABLED"}}`

func (b *bench) run(extra string) *api.RunTaskOutput {
	b.t.Helper()
	return try(b, b.RunTask, read[api.RunTaskInput](b.t, `{"taskDefinition":"web","launchType":"FARGATE","networkConfiguration":`+webNetwork+extra+`}`))
}

func (b *bench) task(arn string) *state.Task {
	b.t.Helper()
	t, ok := state.Tasks.Get(b.db.Snapshot(), arn)
	if !ok {
		b.t.Fatalf("no task %s", arn)
	}
	return t
}

// place does what placement and address controllers do.
func (b *bench) place(arn string) {
	b.t.Helper()
	b.put(func(tx *store.Tx) {
		old, _ := state.Tasks.Get(tx, arn)
		t := old.Clone()
		t.Instance, t.Zone, t.ENI = nodeInst, "us-east-1a", "eni-"+t.ID[:8]+t.ID[28:]
		n := t.NetworkAttachment()
		n.Status = "CREATED"
		n.SetDetail("networkInterfaceId", t.ENI)
		n.SetDetail("privateIPv4Address", "10.0.1.4")
		state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: t.ENI, Account: account, VPC: "vpc-1", Subnet: "subnet-1", Node: "n1", Task: arn, Address: netip.MustParseAddr("10.0.1.4")})
		state.Tasks.Put(tx, t)
	})
}

// submit is an agent's report.
func (b *bench) submit(arn, body string) {
	b.t.Helper()
	in := read[api.SubmitTaskStateChangeInput](b.t, body)
	in.Task = &arn
	as(b, b.node, b.SubmitTaskStateChange, in)
}

func (b *bench) attached(arn string) {
	b.t.Helper()
	b.submit(arn, `{"attachments":[{"attachmentArn":"`+prefix+`attachment/`+b.task(arn).NetworkAttachment().ID+`","status":"ATTACHED"}]}`)
}

func (b *bench) describe(arn string) api.Task {
	b.t.Helper()
	out := try(b, b.DescribeTasks, &api.DescribeTasksInput{Tasks: []string{arn}})
	if len(out.Tasks) != 1 {
		b.t.Fatalf("describe %s: %+v", arn, out.Failures)
	}
	return out.Tasks[0]
}

func pretty(v any) string {
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(out)
}
