package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	awslogs "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/service/ec2"
	"github.com/berth-run/berth/service/logs"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// What a node counts comes to the log group as lines, with what the flow log's
// role may do and not more.
func TestFlowLogsAreDelivered(t *testing.T) {
	const account, region = "123456789012", "eu-west-1"
	db := store.OpenMemory()
	defer db.Close()
	now := time.Now().UTC().Truncate(time.Minute)
	events, err := journal.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := auth.NewSessions(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	newID := func() string {
		n++
		return strings.Repeat("0", 30) + string(rune('a'+n/16%16)) + string("0123456789abcdef"[n%16])
	}
	logsAPI := logs.New(logs.Config{DB: db, Journal: events, Region: region, Now: time.Now, NewID: newID})
	defer logsAPI.Close()
	ec2API := ec2.New(ec2.Config{DB: db, Region: region, Now: time.Now, NewID: newID})
	f := &flowWriter{db, ec2API, logsAPI, &auth.Authorizer{Sessions: sessions}, region, slog.New(slog.DiscardHandler)}

	role := func(may, trusted string) {
		t.Helper()
		r := &state.Role{Account: account, Path: "/", Name: "flow", ID: "AROAX",
			Trust:  `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"` + trusted + `"},"Action":"sts:AssumeRole"}]}`,
			Inline: []state.InlinePolicy{{Name: "p", Document: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":` + may + `,"Resource":"*"}]}`}}}
		if err := db.Update(t.Context(), func(tx *store.Tx) error { state.Roles.Put(tx, r); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.Regions.Put(tx, &state.Region{Name: region, Account: account})
		state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: "eni-1", Account: account, VPC: "vpc-1", Subnet: "subnet-1", Address: netip.MustParseAddr("10.0.0.4")})
		state.FlowLogs.Put(tx, &state.FlowLog{ID: "fl-1", Account: account, Resource: "vpc-1", Traffic: "ALL", LogGroup: "flows", Role: "arn:aws:iam::" + account + ":role/flow"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	window := fabric.FlowWindow{Start: now, End: now.Add(time.Minute), Interfaces: []string{"eni-1"}, Records: []fabric.Flow{{Interface: "eni-1", Src: netip.MustParseAddr("10.0.0.9"), Dst: netip.MustParseAddr("10.0.0.4"),
		SrcPort: 5, DstPort: 80, Protocol: 6, Packets: 3, Bytes: 180, Start: now, End: now.Add(time.Second), Action: fabric.FlowAccept}}}
	status := func() string {
		l, _ := state.FlowLogs.Get(db.Snapshot(), "fl-1")
		return l.Deliver + " " + l.DeliverErr
	}
	lines := func() (out []string) {
		ctx := auth.WithCaller(context.Background(), &auth.Caller{Kind: auth.RootUser, Account: account})
		got, err := logsAPI.GetLogEvents(ctx, &awslogs.GetLogEventsInput{LogGroupName: new("flows"), LogStreamName: new("eni-1-all"), StartFromHead: new(true)})
		if err != nil {
			return []string{err.Error()}
		}
		for _, e := range got.Events {
			out = append(out, *e.Message)
		}
		return out
	}

	role(`"logs:*"`, "ecs-tasks.amazonaws.com")
	f.write(t.Context(), "one", []fabric.FlowWindow{window})
	if got := status(); got != "FAILED Access error" {
		t.Errorf("with a role that trusts somebody else: %s", got)
	}
	role(`["logs:CreateLogGroup","logs:CreateLogStream"]`, ec2.FlowLogsService)
	f.write(t.Context(), "one", []fabric.FlowWindow{window})
	if got := status(); got != "FAILED Access error" {
		t.Errorf("with a role that may not put events: %s", got)
	}
	role(`["logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents"]`, ec2.FlowLogsService)
	f.write(t.Context(), "one", []fabric.FlowWindow{window, {Start: now.Add(time.Minute), End: now.Add(2 * time.Minute), Interfaces: []string{"eni-1"}}})
	if got := status(); got != "SUCCESS " {
		t.Errorf("with a role that may: %s", got)
	}
	got := lines()
	if len(got) != 2 || !strings.HasPrefix(got[0], "2 "+account+" eni-1 10.0.0.9 10.0.0.4 5 80 6 3 180 ") || !strings.HasSuffix(got[0], " ACCEPT OK") || !strings.HasSuffix(got[1], " - NODATA") {
		t.Errorf("%q", got)
	}
}
