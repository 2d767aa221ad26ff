package sts_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdkec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	sdk "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"

	"github.com/berth-run/berth/auth"
	awsec2 "github.com/berth-run/berth/aws/ec2"
	awsiam "github.com/berth-run/berth/aws/iam"
	awssts "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/sts"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
	"github.com/berth-run/berth/test/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account  = "000000000000"
	other    = "111111111111"
	region   = "eu-central-1"
	allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
)

// A world is a door with STS behind it, and an IAM that lists users.
type world struct {
	t        testing.TB
	db       *store.DB
	sessions *auth.Sessions
	server   *httptest.Server
	roots    *x509.CertPool
	now      time.Time // of STS; the door has the time at which clients sign
}

type lister struct{ awsiam.Unimplemented }

func (lister) ListUsers(context.Context, *awsiam.ListUsersInput) (*awsiam.ListUsersOutput, error) {
	return &awsiam.ListUsersOutput{IsTruncated: new(false)}, nil
}

func start(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, db: store.OpenMemory(), roots: x509.NewCertPool(), now: time.Now().Truncate(time.Second)}
	t.Cleanup(func() { w.db.Close() })
	var err error
	if w.sessions, err = auth.NewSessions(bytes.Repeat([]byte{7}, 32)); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return w.now }
	authorizer := &auth.Authorizer{Sessions: w.sessions}
	api := sts.New(sts.Config{DB: w.db, Sessions: w.sessions, Authorizer: authorizer, Clock: clock, Roots: w.roots})
	door, err := service.New(service.Config{DB: w.db, Region: region, Authorizer: authorizer,
		Verifier: &auth.Verifier{Sessions: w.sessions, Region: region},
		Services: []service.Registration{
			{Service: awssts.NewService(api), Authorize: api.Authorize()},
			{Service: awsiam.NewService(lister{})},
			{Service: awsec2.NewService(awsec2.Unimplemented{}), Authorize: map[string]service.Authorize{
				"StopInstances": func(context.Context, store.Reader, *auth.Caller, any) []auth.Check {
					return []auth.Check{{Action: "ec2:StopInstances", Resource: "arn:aws:ec2:" + region + ":" + account + ":instance/i-1", Keys: map[string][]string{"ec2:Tenancy": {"default"}}}}
				},
			}},
		}})
	if err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewServer(door)
	t.Cleanup(func() {
		w.server.Client().CloseIdleConnections()
		w.server.Close()
	})
	return w
}

// put writes rows of any tables.
func (w *world) put(fn func(tx *store.Tx)) {
	w.t.Helper()
	if err := w.db.Update(w.t.Context(), func(tx *store.Tx) error { fn(tx); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) config(key, secret, token string) aws.Config {
	return aws.Config{Region: region, BaseEndpoint: &w.server.URL, RetryMaxAttempts: 1, HTTPClient: lab.Plain{Client: w.server.Client()},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: token}, nil
		})}
}

// as is the configuration of a session.
func (w *world) as(c *types.Credentials) aws.Config {
	return w.config(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
}

// user makes a user of the account, "" for its root user, and signs as it.
func (w *world) user(account, name, document string) aws.Config {
	w.t.Helper()
	key := &state.AccessKey{ID: auth.NewKeyID(auth.PrefixAccessKey, account), Account: account, User: name, Secret: auth.NewSecret(), Active: true}
	w.put(func(tx *store.Tx) {
		state.Accounts.Put(tx, &state.Account{ID: account})
		state.AccessKeys.Put(tx, key)
		if name == "" {
			return
		}
		u := &state.User{Account: account, Path: "/", Name: name, ID: auth.NewID(auth.PrefixUser, account), Tags: []state.Tag{{Key: "dept", Value: "x"}}}
		if document != "" {
			u.Inline = []state.InlinePolicy{{Name: "p", Document: document}}
		}
		state.Users.Put(tx, u)
	})
	return w.config(key.ID, key.Secret, "")
}

// role makes a role that trusts as the statements say and may what document allows.
func (w *world) role(account, name, document string, trust ...string) string {
	w.t.Helper()
	r := &state.Role{Account: account, Path: "/p/", Name: name, ID: auth.NewID(auth.PrefixRole, account), MaxSessionDuration: 7200,
		Trust: `{"Version":"2012-10-17","Statement":[` + strings.Join(trust, ",") + `]}`, Tags: []state.Tag{{Key: "team", Value: "of role"}}}
	if document != "" {
		r.Inline = []state.InlinePolicy{{Name: "p", Document: document}}
	}
	w.put(func(tx *store.Tx) {
		state.Accounts.Put(tx, &state.Account{ID: account})
		state.Roles.Put(tx, r)
	})
	return r.ARN()
}

func trusts(principal, actions, condition string) string {
	if condition == "" {
		condition = "{}"
	}
	return `{"Effect":"Allow","Principal":` + principal + `,"Action":` + actions + `,"Condition":` + condition + `}`
}

func want(t testing.TB, err error, code, text string) {
	t.Helper()
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || e.ErrorCode() != code || !strings.Contains(e.ErrorMessage(), text) {
		t.Errorf("got %v\nwant %s: %s", err, code, text)
	}
}

// whoami is the ARN that STS gives back, and the id.
func whoami(t testing.TB, c aws.Config) (string, string) {
	t.Helper()
	out, err := sdk.NewFromConfig(c).GetCallerIdentity(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return *out.Arn, *out.UserId
}

func TestAssumeRole(t *testing.T) {
	w := start(t)
	ctx := t.Context()
	bob := sdk.NewFromConfig(w.user(account, "bob", ""))
	root := sdk.NewFromConfig(w.user(account, "", ""))
	arn := w.role(account, "r", allowAll, trusts(`{"AWS":"arn:aws:iam::000000000000:user/bob"}`, `"sts:AssumeRole"`, `{"StringEquals":{"sts:ExternalId":"42"}}`))
	in := &sdk.AssumeRoleInput{RoleArn: &arn, RoleSessionName: new("s1")}
	const denied = "User: arn:aws:iam::000000000000:user/bob is not authorized to perform: sts:AssumeRole on resource: "
	_, err := bob.AssumeRole(ctx, in)
	want(t, err, "AccessDenied", denied+arn)
	_, err = bob.AssumeRole(ctx, &sdk.AssumeRoleInput{RoleArn: new("arn:aws:iam::000000000000:role/none"), RoleSessionName: new("s1")})
	want(t, err, "AccessDenied", denied+"arn:aws:iam::000000000000:role/none")
	_, err = bob.AssumeRole(ctx, &sdk.AssumeRoleInput{RoleArn: new("arn:aws:iam::000000000000:user/none"), RoleSessionName: new("s1")})
	want(t, err, "ValidationError", "arn:aws:iam::000000000000:user/none is invalid")
	_, err = root.AssumeRole(ctx, in)
	want(t, err, "AccessDenied", "Roles may not be assumed by root accounts.")
	in.ExternalId, in.DurationSeconds = new("42"), new(int32(7201))
	_, err = bob.AssumeRole(ctx, in)
	want(t, err, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	in.DurationSeconds = new(int32(7200))
	in.Policy = new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:*","Resource":"*"}]}`)
	out, err := bob.AssumeRole(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	if *out.AssumedRoleUser.Arn != "arn:aws:sts::000000000000:assumed-role/r/s1" || out.PackedPolicySize == nil || !out.Credentials.Expiration.Equal(w.now.Add(2*time.Hour)) {
		t.Errorf("assumed %+v %v", out.AssumedRoleUser, out)
	}
	session := w.as(out.Credentials)
	if arn, id := whoami(t, session); arn != *out.AssumedRoleUser.Arn || id != *out.AssumedRoleUser.AssumedRoleId {
		t.Errorf("I am %s %s", arn, id)
	}
	_, err = sdkiam.NewFromConfig(session).ListUsers(ctx, nil)
	want(t, err, "AccessDenied", "because no session policy allows the iam:ListUsers action")
	in.Policy, in.PolicyArns = nil, []types.PolicyDescriptorType{{Arn: new("arn:aws:iam::aws:policy/IAMReadOnlyAccess")}}
	if out, err = bob.AssumeRole(ctx, in); err != nil {
		t.Fatal(err)
	}
	if _, err := sdkiam.NewFromConfig(w.as(out.Credentials)).ListUsers(ctx, nil); err != nil {
		t.Errorf("with a managed session policy that allows it: %v", err)
	}
	in.PolicyArns = []types.PolicyDescriptorType{{Arn: new("arn:aws:iam::000000000000:policy/none")}}
	_, err = bob.AssumeRole(ctx, in)
	want(t, err, "ValidationError", "does not exist or is not attachable")
	in.PolicyArns, in.Policy = nil, new("{")
	_, err = bob.AssumeRole(ctx, in)
	want(t, err, "MalformedPolicyDocument", "Syntax errors in policy.")
	in.Policy, w.now = nil, w.now.Add(-2*time.Hour)
	if out, err = bob.AssumeRole(ctx, in); err != nil {
		t.Fatal(err)
	}
	_, err = sdk.NewFromConfig(w.as(out.Credentials)).GetCallerIdentity(ctx, nil)
	want(t, err, "ExpiredToken", "The security token included in the request is expired")
}

// Both sides must agree to a role of another account: its trust policy, and
// the caller's own policies.
func TestAssumeRoleOfAnotherAccount(t *testing.T) {
	w := start(t)
	ctx := t.Context()
	arn := w.role(other, "r", "", trusts(`{"AWS":"arn:aws:iam::000000000000:user/bob"}`, `"sts:AssumeRole"`, ""))
	in := &sdk.AssumeRoleInput{RoleArn: &arn, RoleSessionName: new("s1")}
	bob := w.user(account, "bob", "")
	_, err := sdk.NewFromConfig(bob).AssumeRole(ctx, in)
	want(t, err, "AccessDenied", "is not authorized to perform: sts:AssumeRole on resource: "+arn)
	bob = w.user(account, "bob", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"`+arn+`"}}`)
	if _, err := sdk.NewFromConfig(bob).AssumeRole(ctx, in); err != nil {
		t.Error(err)
	}
	_, err = sdk.NewFromConfig(w.user(account, "eve", allowAll)).AssumeRole(ctx, in)
	want(t, err, "AccessDenied", "user/eve is not authorized")
}

func TestTagsThroughAChain(t *testing.T) {
	w := start(t)
	ctx := t.Context()
	bob := sdk.NewFromConfig(w.user(account, "bob", ""))
	first := w.role(account, "first", allowAll, trusts(`{"AWS":"arn:aws:iam::000000000000:user/bob"}`, `"sts:AssumeRole"`, ""), trusts(`{"AWS":"arn:aws:iam::000000000000:user/bob"}`,
		`["sts:TagSession","sts:SetSourceIdentity"]`, `{"StringEqualsIfExists":{"aws:RequestTag/team":"a","sts:SourceIdentity":"ann"},"ForAllValues:StringEquals":{"sts:TransitiveTagKeys":["team"]}}`))
	second := w.role(account, "second", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:ListUsers","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/team":"a","aws:SourceIdentity":"ann"},"Null":{"aws:PrincipalTag/cost":"true"}}}}`,
		trusts(`{"AWS":"`+first+`"}`, `["sts:AssumeRole","sts:SetSourceIdentity"]`, `{"StringEquals":{"aws:PrincipalTag/cost":"1"}}`))
	in := &sdk.AssumeRoleInput{RoleArn: &first, RoleSessionName: new("s1"), SourceIdentity: new("ann"),
		Tags: []types.Tag{{Key: new("team"), Value: new("a")}, {Key: new("TEAM"), Value: new("b")}}, TransitiveTagKeys: []string{"team"}}
	_, err := bob.AssumeRole(ctx, in)
	want(t, err, "ValidationError", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
	in.Tags = []types.Tag{{Key: new("aws:x"), Value: new("b")}}
	_, err = bob.AssumeRole(ctx, in)
	want(t, err, "ValidationError", "reserved")
	in.Tags = []types.Tag{{Key: new("cost"), Value: new("1")}}
	_, err = bob.AssumeRole(ctx, in)
	want(t, err, "ValidationError", "The specified transitive tag key must be included in the requested tags.")
	in.Tags = append(in.Tags, types.Tag{Key: new("team"), Value: new("b")})
	_, err = bob.AssumeRole(ctx, in)
	want(t, err, "AccessDenied", "sts:TagSession")
	in.Tags[1].Value = new("a")
	out, err := bob.AssumeRole(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	if *out.SourceIdentity != "ann" || out.PackedPolicySize == nil {
		t.Errorf("assumed %+v", out)
	}
	chained := sdk.NewFromConfig(w.as(out.Credentials))
	next := &sdk.AssumeRoleInput{RoleArn: &second, RoleSessionName: new("s2"), DurationSeconds: new(int32(3601))}
	_, err = chained.AssumeRole(ctx, next)
	want(t, err, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	next.DurationSeconds = nil
	next.Tags = []types.Tag{{Key: new("Team"), Value: new("c")}}
	_, err = chained.AssumeRole(ctx, next)
	want(t, err, "ValidationError", "conflicts with a transitive tag key from the calling session")
	next.Tags, next.SourceIdentity = nil, new("eve")
	_, err = chained.AssumeRole(ctx, next)
	want(t, err, "AccessDenied", "")
	next.SourceIdentity = nil
	if out, err = chained.AssumeRole(ctx, next); err != nil {
		t.Fatal(err)
	}
	// The transitive tag and the source identity came along, the other tag did not.
	if _, err := sdkiam.NewFromConfig(w.as(out.Credentials)).ListUsers(ctx, nil); err != nil {
		t.Error(err)
	}
}

func TestPackedPolicies(t *testing.T) {
	w := start(t)
	bob := sdk.NewFromConfig(w.user(account, "bob", ""))
	arn := w.role(account, "r", "", trusts(`{"AWS":"arn:aws:iam::000000000000:user/bob"}`, `["sts:AssumeRole","sts:TagSession"]`, ""))
	in := &sdk.AssumeRoleInput{RoleArn: &arn, RoleSessionName: new("s1")}
	for i := range 10 {
		in.PolicyArns = append(in.PolicyArns, types.PolicyDescriptorType{Arn: new("arn:aws:iam::000000000000:policy/" + strings.Repeat("p", 90) + string(rune('a'+i)))})
		w.put(func(tx *store.Tx) {
			state.ManagedPolicies.Put(tx, &state.ManagedPolicy{Account: account, Path: "/", Name: strings.Repeat("p", 90) + string(rune('a'+i)), Default: "v1", Versions: []state.PolicyVersion{{ID: "v1", Document: allowAll}}})
		})
	}
	in.Policy = new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:` + strings.Repeat("x", 1800) + `","Resource":"*"}]}`)
	_, err := bob.AssumeRole(t.Context(), in)
	want(t, err, "PackedPolicyTooLarge", "Packed policy consumes 152% of allotted space, please use smaller policy.")
	in.PolicyArns = nil
	if out, err := bob.AssumeRole(t.Context(), in); err != nil || *out.PackedPolicySize != 92 {
		t.Errorf("%+v %v", out, err)
	}
	in.Policy = nil
	for i := range 50 {
		in.Tags = append(in.Tags, types.Tag{Key: new(auth.NewID("", account) + fmt.Sprint(i)), Value: new(auth.NewSecret() + auth.NewSecret())})
	}
	_, err = bob.AssumeRole(t.Context(), in)
	want(t, err, "PackedPolicyTooLarge", "Packed size of session tags consumes ")
}

// device gives bob a device and returns the code it shows at the world's time.
func (w *world) device(serial, name string) func() string {
	seed := []byte("0123456789abcdefghij")
	w.put(func(tx *store.Tx) {
		u, _ := state.Users.Get(tx, state.IAMKey(account, name))
		state.MFADevices.Put(tx, &state.MFADevice{Account: account, Path: "/", Name: serial, Seed: seed, UserID: u.ID, EnabledAt: w.now})
	})
	return func() string { return auth.TOTP(seed, auth.TOTPAt(w.now)) }
}

func TestSessionTokenWithMFA(t *testing.T) {
	w := start(t)
	ctx := t.Context()
	cfg := w.user(account, "bob", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:*","Resource":"*","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"},"NumericLessThan":{"aws:MultiFactorAuthAge":"3600"}}}}`)
	bob := sdk.NewFromConfig(cfg)
	code := w.device("phone", "bob")
	serial := new("arn:aws:iam::000000000000:mfa/phone")
	_, err := bob.GetSessionToken(ctx, &sdk.GetSessionTokenInput{TokenCode: new("123456")})
	want(t, err, "AccessDenied", "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code.")
	_, err = bob.GetSessionToken(ctx, &sdk.GetSessionTokenInput{SerialNumber: new("arn:aws:iam::000000000000:mfa/none"), TokenCode: new(code())})
	want(t, err, "AccessDenied", "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number is valid and associated with this user.")
	wrong := "000000"
	if code() == wrong {
		wrong = "000001"
	}
	_, err = bob.GetSessionToken(ctx, &sdk.GetSessionTokenInput{SerialNumber: serial, TokenCode: &wrong})
	want(t, err, "AccessDenied", "MultiFactorAuthentication failed with invalid MFA one time pass code. ")
	with, err := bob.GetSessionToken(ctx, &sdk.GetSessionTokenInput{SerialNumber: serial, TokenCode: new(code())})
	if err != nil {
		t.Fatal(err)
	}
	_, err = bob.GetSessionToken(ctx, &sdk.GetSessionTokenInput{SerialNumber: serial, TokenCode: new(code())})
	want(t, err, "AccessDenied", "invalid MFA one time pass code") // a code is good once
	without, err := bob.GetSessionToken(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if arn, _ := whoami(t, w.as(without.Credentials)); arn != "arn:aws:iam::000000000000:user/bob" {
		t.Errorf("I am %s", arn)
	}
	if _, err := sdkiam.NewFromConfig(w.as(with.Credentials)).ListUsers(ctx, nil); err != nil {
		t.Error(err)
	}
	_, err = sdkiam.NewFromConfig(w.as(without.Credentials)).ListUsers(ctx, nil)
	want(t, err, "InvalidClientTokenId", "")
	_, err = sdkiam.NewFromConfig(cfg).ListUsers(ctx, nil)
	want(t, err, "AccessDenied", "no identity-based policy allows")
	_, err = sdk.NewFromConfig(w.as(with.Credentials)).GetSessionToken(ctx, nil)
	want(t, err, "AccessDenied", "Cannot call GetSessionToken with session credentials")
	now := w.now
	w.now = now.Add(-time.Hour)
	w.device("phone", "bob") // as it was an hour ago, before it showed its code
	old, err := bob.GetSessionToken(ctx, &sdk.GetSessionTokenInput{SerialNumber: serial, TokenCode: new(code())})
	if err != nil {
		t.Fatal(err)
	}
	_, err = sdkiam.NewFromConfig(w.as(old.Credentials)).ListUsers(ctx, nil)
	want(t, err, "AccessDenied", "no identity-based policy allows")
	w.now = now

	arn := w.role(account, "guarded", "", trusts(`{"AWS":"arn:aws:iam::000000000000:user/bob"}`, `"sts:AssumeRole"`, `{"Bool":{"aws:MultiFactorAuthPresent":"true"}}`))
	in := &sdk.AssumeRoleInput{RoleArn: &arn, RoleSessionName: new("s1")}
	_, err = bob.AssumeRole(ctx, in)
	want(t, err, "AccessDenied", "")
	in.SerialNumber, in.TokenCode = serial, new(code())
	if _, err = bob.AssumeRole(ctx, in); err != nil {
		t.Error(err)
	}
	if root, err := sdk.NewFromConfig(w.user(account, "", "")).GetSessionToken(ctx, nil); err != nil || !root.Credentials.Expiration.Equal(w.now.Add(time.Hour)) {
		t.Errorf("root's session: %+v %v", root, err)
	}
}

// A code has six digits: nobody may try them all.
func TestCodesCannotBeGuessed(t *testing.T) {
	w := start(t)
	bob := sdk.NewFromConfig(w.user(account, "bob", ""))
	eve := sdk.NewFromConfig(w.user(account, "eve", ""))
	code := w.device("phone", "bob")
	serial := new("arn:aws:iam::000000000000:mfa/phone")
	try := func(c *sdk.Client, code string) error {
		_, err := c.GetSessionToken(t.Context(), &sdk.GetSessionTokenInput{SerialNumber: serial, TokenCode: &code})
		return err
	}
	wrong := func() string {
		if code() == "000000" {
			return "000001"
		}
		return "000000"
	}
	for range 20 {
		want(t, try(eve, wrong()), "AccessDenied", "unable to validate MFA code") // not hers: counts for nothing
	}
	for range 9 {
		want(t, try(bob, wrong()), "AccessDenied", "invalid MFA one time pass code")
	}
	if err := try(bob, code()); err != nil {
		t.Fatalf("a right code after a few wrong ones: %v", err)
	}
	w.now = w.now.Add(time.Minute)
	for range 10 {
		want(t, try(bob, wrong()), "AccessDenied", "invalid MFA one time pass code")
	}
	want(t, try(bob, code()), "AccessDenied", "invalid MFA one time pass code")
	w.now = w.now.Add(5 * time.Minute)
	if err := try(bob, code()); err != nil {
		t.Errorf("a right code after the pause: %v", err)
	}
}

func TestFederationToken(t *testing.T) {
	w := start(t)
	ctx := t.Context()
	bob := w.user(account, "bob", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:GetFederationToken","Resource":"arn:aws:sts::000000000000:federated-user/guest*"},
		{"Effect":"Allow","Action":["ec2:*","sts:GetAccessKeyInfo"],"Resource":"*"}]}`)
	_, err := sdk.NewFromConfig(bob).GetFederationToken(ctx, &sdk.GetFederationTokenInput{Name: new("other")})
	want(t, err, "AccessDenied", "is not authorized to perform: sts:GetFederationToken on resource: arn:aws:sts::000000000000:federated-user/other")
	get := func(by aws.Config, document *string) aws.Config {
		t.Helper()
		out, err := sdk.NewFromConfig(by).GetFederationToken(ctx, &sdk.GetFederationTokenInput{Name: new("guest"), Policy: document, Tags: []types.Tag{{Key: new("k"), Value: new("v")}}})
		if err != nil {
			t.Fatal(err)
		}
		if *out.FederatedUser.Arn != "arn:aws:sts::000000000000:federated-user/guest" || *out.FederatedUser.FederatedUserId != "000000000000:guest" || out.PackedPolicySize == nil {
			t.Errorf("%+v", out.FederatedUser)
		}
		return w.as(out.Credentials)
	}
	stop := func(c aws.Config) error {
		_, err := sdkec2.NewFromConfig(c).StopInstances(ctx, &sdkec2.StopInstancesInput{InstanceIds: []string{"i-00000000000000001"}})
		return err
	}
	guest := get(bob, new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["ec2:*","ecs:*"],"Resource":"*","Condition":{"StringEquals":{"aws:PrincipalType":"FederatedUser","aws:PrincipalTag/k":"v","aws:userid":"000000000000:guest"},"Null":{"aws:username":"true","aws:PrincipalTag/dept":"true"}}}}`))
	if arn, id := whoami(t, guest); arn != "arn:aws:sts::000000000000:federated-user/guest" || id != "000000000000:guest" {
		t.Errorf("I am %s %s", arn, id)
	}
	// What passes the door is not there, which is another error.
	want(t, stop(guest), "UnsupportedOperation", "")
	want(t, stop(get(bob, nil)), "UnauthorizedOperation", "because no session policy allows the ec2:StopInstances action")
	root := w.user(account, "", "")
	want(t, stop(get(root, nil)), "UnauthorizedOperation", "because no session policy allows the ec2:StopInstances action")
	ofRoot := get(root, new(allowAll))
	want(t, stop(ofRoot), "UnsupportedOperation", "")
	for _, c := range []aws.Config{guest, ofRoot} {
		_, err = sdkiam.NewFromConfig(c).ListUsers(ctx, nil)
		want(t, err, "InvalidClientTokenId", "")
		_, err = sdk.NewFromConfig(c).GetFederationToken(ctx, &sdk.GetFederationTokenInput{Name: new("guest")})
		want(t, err, "AccessDenied", "Cannot call GetFederationToken with session credentials")
		_, err = sdk.NewFromConfig(c).AssumeRole(ctx, &sdk.AssumeRoleInput{RoleArn: new("arn:aws:iam::000000000000:role/none"), RoleSessionName: new("s1")})
		want(t, err, "AccessDenied", "Cannot call AssumeRole")
	}
	// The key that asked may go; with its user the session ends.
	w.put(func(tx *store.Tx) {
		creds, _ := bob.Credentials.Retrieve(ctx)
		state.AccessKeys.Delete(tx, creds.AccessKeyID)
	})
	whoami(t, guest)
	w.put(func(tx *store.Tx) { state.Users.Delete(tx, state.IAMKey(account, "bob")) })
	_, err = sdk.NewFromConfig(guest).GetCallerIdentity(ctx, nil)
	want(t, err, "InvalidClientTokenId", "")
	whoami(t, ofRoot)
}

// The message in EC2's refusal, as AWS writes it.
func TestDecodeAuthorizationMessage(t *testing.T) {
	w := start(t)
	ctx := t.Context()
	admin := sdk.NewFromConfig(w.user(account, "admin", allowAll))
	for name, tc := range map[string]struct{ document, want string }{
		"silent": {"", `{"allowed":false,"explicitDeny":false,"matchedStatements":{"items":[]},"failures":{"items":[]},"context":{"principal":{"id":"ID","name":"silent","arn":"arn:aws:iam::000000000000:user/silent"},`},
		"denied": {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Sid":"no","Effect":"Deny","Action":["ec2:Stop*","ec2:Start*"],"Resource":"*","Condition":{"StringEquals":{"ec2:Tenancy":"default"}}}]}`,
			`{"allowed":false,"explicitDeny":true,"matchedStatements":{"items":[{"statementId":"no","effect":"DENY","principals":{"items":[{"value":"ID"}]},"principalGroups":{"items":[]},"actions":{"items":[{"value":"ec2:Stop*"},{"value":"ec2:Start*"}]},"resources":{"items":[{"value":"*"}]},"conditions":{"items":[{"key":"ec2:Tenancy","values":{"items":[{"value":"default"}]}}]}}]},"failures":{"items":[]},"context":{"principal":{"id":"ID","name":"denied","arn":"arn:aws:iam::000000000000:user/denied"},`},
	} {
		cfg := w.user(account, name, tc.document)
		_, err := sdkec2.NewFromConfig(cfg).StopInstances(ctx, &sdkec2.StopInstancesInput{InstanceIds: []string{"i-00000000000000001"}})
		want(t, err, "UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:aws:iam::000000000000:user/"+name)
		_, blob, ok := strings.Cut(err.Error(), "Encoded authorization failure message: ")
		if !ok {
			t.Fatal(err)
		}
		_, err = sdk.NewFromConfig(cfg).DecodeAuthorizationMessage(ctx, &sdk.DecodeAuthorizationMessageInput{EncodedMessage: &blob})
		if name == "silent" {
			want(t, err, "AccessDenied", "sts:DecodeAuthorizationMessage")
		}
		out, err := admin.DecodeAuthorizationMessage(ctx, &sdk.DecodeAuthorizationMessageInput{EncodedMessage: &blob})
		if err != nil {
			t.Fatal(err)
		}
		_, id := whoami(t, cfg)
		tail := `"action":"ec2:StopInstances","resource":"arn:aws:ec2:eu-central-1:000000000000:instance/i-1","conditions":{"items":[{"key":"aws:ARN","values":{"items":[{"value":"arn:aws:ec2:eu-central-1:000000000000:instance/i-1"}]}},`
		if got := strings.ReplaceAll(*out.DecodedMessage, id, "ID"); !strings.HasPrefix(got, tc.want+tail) || !strings.Contains(got, `{"key":"ec2:Tenancy","values":{"items":[{"value":"default"}]}}`) || !json.Valid([]byte(got)) {
			t.Errorf("got  %s\nwant %s%s", got, tc.want, tail)
		}
	}
	_, err := admin.DecodeAuthorizationMessage(ctx, &sdk.DecodeAuthorizationMessageInput{EncodedMessage: new("AQAA")})
	want(t, err, "InvalidAuthorizationMessageException", "Invalid token")
}

func TestRefusals(t *testing.T) {
	w := start(t)
	ctx := t.Context()
	admin := sdk.NewFromConfig(w.user(account, "admin", allowAll))
	_, err := admin.AssumeRoot(ctx, &sdk.AssumeRootInput{TargetPrincipal: new(account), TaskPolicyArn: &types.PolicyDescriptorType{Arn: new("arn:aws:iam::aws:policy/root-task/IAMAuditRootUserCredentials")}})
	want(t, err, "AccessDenied", "Berth does not support organizations.")
	_, err = admin.GetWebIdentityToken(ctx, &sdk.GetWebIdentityTokenInput{Audience: []string{"x"}, SigningAlgorithm: new("RS256")})
	want(t, err, "OutboundWebIdentityFederationDisabledException", "")
	_, err = admin.GetDelegatedAccessToken(ctx, &sdk.GetDelegatedAccessTokenInput{TradeInToken: new("x")})
	if err == nil || !strings.Contains(err.Error(), "GetDelegatedAccessToken") {
		t.Errorf("GetDelegatedAccessToken: %v", err)
	}
	_, err = admin.AssumeRole(ctx, &sdk.AssumeRoleInput{RoleArn: new("arn:aws:iam::000000000000:role/r"), RoleSessionName: new("s1"), ProvidedContexts: []types.ProvidedContext{{ProviderArn: new("arn:aws:iam::aws:contextProvider/IdentityCenter"), ContextAssertion: new("abcde")}}})
	want(t, err, "ValidationError", "ProvidedContexts is not supported by Berth.")
	creds, err := w.user(other, "x", "").Credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := admin.GetAccessKeyInfo(ctx, &sdk.GetAccessKeyInfoInput{AccessKeyId: &creds.AccessKeyID}); err != nil || *info.Account != other {
		t.Errorf("account of the key: %v %v", info, err)
	}
}

// Callers without credentials may call the two operations that bring a
// provider's word in their place, and nothing else.
func TestUnsignedOperations(t *testing.T) {
	w := start(t)
	var unsigned []string
	for name, op := range awssts.NewService(awssts.Unimplemented{}).Operations {
		if op.Unsigned {
			unsigned = append(unsigned, name)
		}
	}
	slices.Sort(unsigned)
	if !slices.Equal(unsigned, []string{"AssumeRoleWithSAML", "AssumeRoleWithWebIdentity"}) {
		t.Errorf("unsigned operations %v", unsigned)
	}
	resp, err := w.server.Client().PostForm(w.server.URL, map[string][]string{"Action": {"GetCallerIdentity"}, "Version": {"2011-06-15"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("status %d", resp.StatusCode)
	}
}
