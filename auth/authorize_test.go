package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const acct = "000000000000"

// authorizing is an account with a user and a role, and who decides.
func authorizing(t testing.TB, document string) (*store.DB, *Authorizer) {
	t.Helper()
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		inline := []state.InlinePolicy{{Name: "p", Document: document}}
		state.Users.Put(tx, &state.User{Account: acct, Name: "ann", Path: "/", ID: "AIDAX", Inline: inline, Tags: []state.Tag{{Key: "Team", Value: "a"}}})
		state.Roles.Put(tx, &state.Role{Account: acct, Name: "r", Path: "/p/", ID: "AROAX", Inline: inline, Tags: []state.Tag{{Key: "Team", Value: "of role"}}})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sessions, err := NewSessions(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return db, &Authorizer{Sessions: sessions}
}

var ann = &Caller{Kind: User, Account: acct, Name: "ann", ARN: "arn:aws:iam::000000000000:user/ann", UserID: "AIDAX"}

// The condition keys that every request has, by the kind of caller.
func TestGlobalKeys(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	issued := now.Add(-time.Minute)
	root := &Caller{Account: acct}
	root.Kind = RootUser
	root.asRoot()
	withMFA := (&Session{Kind: User, Account: acct, Name: "ann", ARN: ann.ARN, PrincipalID: "AIDAX", MFA: issued.Unix(), IssuedAt: issued}).caller()
	role := (&Session{Kind: AssumedRole, Account: acct, Name: "r", ARN: "arn:aws:iam::000000000000:role/p/r", PrincipalID: "AROAX", SessionName: "s", IssuedAt: issued,
		Tags: map[string]string{"team": "of session"}, SourceIdentity: "joe", Provider: "arn:aws:iam::000000000000:oidc-provider/x.io", Keys: map[string][]string{"x.io:sub": {"me"}}}).caller()
	guest := (&Session{Kind: FederatedUser, Account: acct, Name: "ann", ARN: ann.ARN, PrincipalID: "AIDAX", SessionName: "guest", IssuedAt: issued, Policies: []string{
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`}}).caller()
	around := Request{SourceIP: netip.MustParseAddr("10.1.2.3"), Secure: true, Region: "eu-central-1", UserAgent: "aws-cli/2", Referer: "https://x.io", Time: now}
	via := around
	via.CalledVia = []string{"cloudformation.amazonaws.com", "ecs.amazonaws.com"}
	const absent = "-"
	for _, tc := range []struct {
		key  string
		c    *Caller
		r    *Request
		want string
	}{
		{"aws:PrincipalArn", ann, nil, ann.ARN},
		{"aws:PrincipalArn", role, nil, "arn:aws:iam::000000000000:role/p/r"},
		{"aws:PrincipalArn", guest, nil, "arn:aws:sts::000000000000:federated-user/guest"},
		{"aws:PrincipalAccount", guest, nil, acct},
		{"aws:PrincipalType", ann, nil, "User"}, {"aws:PrincipalType", role, nil, "AssumedRole"}, {"aws:PrincipalType", guest, nil, "FederatedUser"}, {"aws:PrincipalType", withMFA, nil, "User"},
		{"aws:userid", ann, nil, "AIDAX"}, {"aws:userid", role, nil, "AROAX:s"}, {"aws:userid", guest, nil, "000000000000:guest"},
		{"aws:username", ann, nil, "ann"}, {"aws:username", withMFA, nil, "ann"}, {"aws:username", role, nil, absent}, {"aws:username", guest, nil, absent},
		{"aws:PrincipalTag/team", ann, nil, "a"}, {"aws:PrincipalTag/TEAM", role, nil, "of session"}, {"aws:PrincipalTag/team", guest, nil, absent},
		{"aws:MultiFactorAuthPresent", ann, nil, absent}, {"aws:MultiFactorAuthPresent", role, nil, "false"}, {"aws:MultiFactorAuthPresent", withMFA, nil, "true"},
		{"aws:MultiFactorAuthAge", withMFA, nil, "60"}, {"aws:MultiFactorAuthAge", role, nil, absent},
		{"aws:TokenIssueTime", role, nil, "2026-11-22T11:59:00Z"}, {"aws:TokenIssueTime", ann, nil, absent},
		{"aws:SourceIdentity", role, nil, "joe"}, {"aws:SourceIdentity", guest, nil, absent},
		{"aws:FederatedProvider", role, nil, "arn:aws:iam::000000000000:oidc-provider/x.io"}, {"x.io:sub", role, nil, "me"}, {"x.io:sub", ann, nil, absent},
		{"aws:SourceIp", ann, nil, "10.1.2.3"}, {"aws:SourceIp", ann, &via, absent},
		{"aws:SecureTransport", ann, nil, "true"}, {"aws:RequestedRegion", ann, nil, "eu-central-1"}, {"aws:UserAgent", ann, nil, "aws-cli/2"}, {"aws:Referer", ann, nil, "https://x.io"},
		{"aws:CurrentTime", ann, nil, "2026-11-22T12:00:00Z"}, {"aws:EpochTime", ann, nil, fmt.Sprint(now.Unix())},
		{"aws:ViaAWSService", ann, nil, "false"}, {"aws:ViaAWSService", ann, &via, "true"}, {"aws:CalledVia", ann, nil, absent}, {"aws:CalledVia", ann, &via, "ecs.amazonaws.com"},
		{"aws:CalledViaFirst", ann, &via, "cloudformation.amazonaws.com"}, {"aws:CalledViaLast", ann, &via, "ecs.amazonaws.com"},
		{"aws:PrincipalIsAWSService", ann, nil, "false"}, {"aws:PrincipalServiceName", ann, nil, absent},
		{"aws:ResourceAccount", ann, nil, acct}, {"ecs:cluster", ann, nil, "c"}, {"aws:SourceVpc", ann, nil, absent},
	} {
		condition := map[string]any{"ForAnyValue:StringEquals": map[string]string{tc.key: tc.want}}
		if tc.want == absent {
			condition = map[string]any{"Null": map[string]string{tc.key: "true"}}
		}
		text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": map[string]any{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}})
		if err != nil {
			t.Fatal(err)
		}
		db, a := authorizing(t, string(text))
		if tc.r == nil {
			tc.r = &around
		}
		ctx := WithRequest(t.Context(), tc.r)
		if err := a.Check(ctx, db.Snapshot(), tc.c, Check{Action: "ecs:RunTask", Resource: "arn:aws:ecs:eu-central-1:000000000000:cluster/c", Keys: map[string][]string{"ecs:Cluster": {"c"}}}); err != nil {
			t.Errorf("%s of %s is not %s", tc.key, tc.c.ARN, tc.want)
		}
	}
	if db, _ := authorizing(t, "{}"); !alive(db.Snapshot(), root) {
		t.Error("root ended with its key")
	}
}

func TestServiceMayAssume(t *testing.T) {
	a := &Authorizer{}
	for trust, want := range map[string]bool{
		`{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}`: true,
		`{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}`:       false,
		`{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}`:                           false,
		`{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"aws:SourceAccount":"000000000000","aws:PrincipalServiceName":"ecs-tasks.amazonaws.com"},"ArnLike":{"aws:SourceArn":"arn:aws:ecs:*:000000000000:*"}}}`: true,
		`{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"aws:SourceAccount":"111111111111"}}}`:                                                                                                                 false,
	} {
		role := &state.Role{Account: acct, Name: "r", Path: "/", Trust: `{"Version":"2012-10-17","Statement":` + trust + `}`}
		got := a.ServiceMayAssume(role, "ecs-tasks.amazonaws.com", map[string][]string{"aws:SourceAccount": {acct}, "aws:SourceArn": {"arn:aws:ecs:eu-central-1:000000000000:task/c/1"}})
		if got != want {
			t.Errorf("%s: %v", trust, got)
		}
	}
}

// Buckets have no account in their ARN: the check says whose they are.
func TestOwnersOfNamelessResources(t *testing.T) {
	db, a := authorizing(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:ResourceAccount":"000000000000"}}}}`)
	for owner, want := range map[string]bool{"": true, acct: true, "111111111111": false} {
		d, err := a.Decide(t.Context(), db.Snapshot(), ann, Check{Action: "s3:GetObject", Resource: "arn:aws:s3:::b/k", Account: owner})
		if err != nil || d.Allowed != want {
			t.Errorf("owner %q: %+v %v", owner, d, err)
		}
	}
}

func TestDenialsByProtocol(t *testing.T) {
	db, a := authorizing(t, `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}`)
	for protocol, want := range map[wire.Protocol]string{wire.JSON11: "AccessDeniedException", wire.Query: "AccessDenied", wire.EC2Query: "UnauthorizedOperation"} {
		ctx := WithRequest(t.Context(), &Request{Protocol: protocol})
		err := a.Check(ctx, db.Snapshot(), ann, Check{Action: "ecs:RunTask", Resource: "*"})
		d, ok := err.(*Denied)
		if !ok || d.ErrorCode() != want || !d.Decision.Explicit || !strings.Contains(d.Text, "with an explicit deny in an identity-based policy") {
			t.Errorf("%v: %v", protocol, err)
		}
	}
}

// checking is the decision that every call waits for: a user of a group, with
// inline and managed policies, against a resource with keys.
func checking(b testing.TB) func() {
	db, a := authorizing(b, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecs:RunTask","ecs:StopTask"],"Resource":"arn:aws:ecs:*:*:task-definition/*","Condition":{"ArnEquals":{"ecs:cluster":"arn:aws:ecs:eu-central-1:000000000000:cluster/c"},"StringEquals":{"aws:PrincipalTag/team":"a"}}}]}`)
	if err := db.Update(b.Context(), func(tx *store.Tx) error {
		u, _ := state.Users.Get(tx, state.IAMKey(acct, "ann"))
		n := *u
		n.Groups, n.Attached = []string{"g"}, []string{"arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryReadOnly", "arn:aws:iam::aws:policy/CloudWatchLogsFullAccess"}
		state.Users.Put(tx, &n)
		state.Groups.Put(tx, &state.Group{Account: acct, Name: "g", Path: "/", Attached: []string{"arn:aws:iam::aws:policy/AmazonECS_FullAccess"}})
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	ctx := WithRequest(context.Background(), &Request{Protocol: wire.JSON11, Region: "eu-central-1", Time: time.Now()})
	snap := db.Snapshot()
	check := Check{Action: "ecs:RunTask", Resource: "arn:aws:ecs:eu-central-1:000000000000:task-definition/web:1",
		Keys: map[string][]string{"ecs:cluster": {"arn:aws:ecs:eu-central-1:000000000000:cluster/c"}}}
	return func() {
		if err := a.Check(ctx, snap, ann, check); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	check := checking(b)
	b.ReportAllocs()
	for b.Loop() {
		check()
	}
}

// A call does not read the caller's policies anew: that alone would take
// hundreds of allocations.
func TestChecksDoNotParse(t *testing.T) {
	check := checking(t)
	check()
	if n := testing.AllocsPerRun(100, check); n > 30 {
		t.Errorf("%v allocations", n)
	}
}
