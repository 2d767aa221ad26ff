package ssm

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func TestSessions(t *testing.T) {
	b := newBench(t)
	const a = "123456789012"
	if err := b.DB.Update(t.Context(), func(tx *store.Tx) error {
		state.Roles.Put(tx, &state.Role{Account: a, Name: "r"})
		state.InstanceProfiles.Put(tx, &state.InstanceProfile{Account: a, Name: "p", Role: "r"})
		for id, s := range map[string]string{"i-1": "running", "i-2": "stopped"} {
			state.Instances.Put(tx, &state.Instance{ID: id, Account: a, Node: "n", Profile: "arn:aws:iam::" + a + ":instance-profile/p", State: s, ReportedState: s})
		}
		state.Instances.Put(tx, &state.Instance{ID: "i-3", Account: "999999999999", Node: "n", State: "running", ReportedState: "running"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	refuse(b, b.StartSession, `{"Target":"i-1"}`, "TargetNotConnected", "i-1 is not connected.")
	b.Connected = func(node string) bool { return node == "n" }
	refuse(b, b.StartSession, `{"Target":"i-1"}`, "TargetNotConnected", "i-1 is not connected.")
	b.RoleMay = func(context.Context, store.Reader, string, string, ...string) bool { return true }
	for _, id := range []string{"i-2", "i-3", "i-4"} {
		refuse(b, b.StartSession, `{"Target":"`+id+`"}`, "TargetNotConnected", id+" is not connected.")
	}
	refuse(b, b.StartSession, `{"Target":"i-1","DocumentName":"AWS-StartPortForwardingSession"}`, "InvalidDocument", "AWS-StartPortForwardingSession is not supported")
	refuse(b, b.StartSession, `{"Target":"i-1","DocumentName":"AWS-StartInteractiveCommand"}`, "InvalidParameters", "required")
	b.ctx = auth.WithRequest(b.ctx, &auth.Request{Host: "h:1"})
	out := try(b, b.StartSession, `{"Target":"i-1","Reason":"why"}`)
	id := *out.SessionId
	row, _ := state.Sessions.Get(b.DB.Snapshot(), id)
	if !row.Knows(*out.TokenValue) || *out.StreamUrl != "ws://h:1/v1/data-channel/"+id+"?role=publish_subscribe" || row.Command != nil || row.Node != "n" {
		t.Errorf("%s, row %+v", *out.StreamUrl, row)
	}
	again := try(b, b.ResumeSession, `{"SessionId":"`+id+`"}`)
	row, _ = state.Sessions.Get(b.DB.Snapshot(), id)
	if row.Knows(*out.TokenValue) || !row.Knows(*again.TokenValue) {
		t.Error("the first token is still good, or the second is not")
	}
	if l := try(b, b.DescribeSessions, `{"State":"Active","Filters":[{"key":"Target","value":"i-1"}]}`).Sessions; len(l) != 1 || *l[0].Reason != "why" || l[0].Status != "Connecting" {
		t.Errorf("active: %+v", l)
	}
	try(b, b.TerminateSession, `{"SessionId":"`+id+`"}`)
	refuse(b, b.ResumeSession, `{"SessionId":"`+id+`"}`, "DoesNotExistException", "does not exist")
	if l := try(b, b.DescribeSessions, `{"State":"History"}`).Sessions; len(l) != 1 || l[0].EndDate == nil || l[0].Status != "Terminated" {
		t.Errorf("history: %+v", l)
	}
	try(b, b.StartSession, `{"Target":"i-1","DocumentName":"AWS-StartInteractiveCommand","Parameters":{"command":["ls | wc"]}}`)
	if !slices.ContainsFunc(slices.Collect(state.Sessions.By(b.DB.Snapshot(), "account", a)), func(s *state.Session) bool { return strings.Join(s.Command, ",") == "/bin/sh,-c,ls | wc" }) {
		t.Error("no session runs the command")
	}
	var seen []string
	for _, i := range try(b, b.DescribeInstanceInformation, `{}`).InstanceInformationList {
		seen = append(seen, *i.InstanceId+" "+string(i.PingStatus))
	}
	if !slices.Equal(seen, []string{"i-1 Online", "i-2 ConnectionLost"}) {
		t.Errorf("instances %q", seen)
	}
	for target, want := range map[string]string{"i-1": "connected", "i-2": "notconnected", "i-3": "notconnected"} {
		if got := try(b, b.GetConnectionStatus, `{"Target":"`+target+`"}`).Status; string(got) != want {
			t.Errorf("%s is %s", target, got)
		}
	}
}
