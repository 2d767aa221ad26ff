package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	awsautoscaling "github.com/berth-run/berth/aws/autoscaling"
	awsec2 "github.com/berth-run/berth/aws/ec2"
	awsecr "github.com/berth-run/berth/aws/ecr"
	awsecs "github.com/berth-run/berth/aws/ecs"
	awsiam "github.com/berth-run/berth/aws/iam"
	awslogs "github.com/berth-run/berth/aws/logs"
	awsssm "github.com/berth-run/berth/aws/ssm"
	awssts "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/autoscaling"
	"github.com/berth-run/berth/service/ec2"
	"github.com/berth-run/berth/service/ecr"
	"github.com/berth-run/berth/service/ecs"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/service/logs"
	"github.com/berth-run/berth/service/ssm"
	"github.com/berth-run/berth/service/sts"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// everybody are the operations that AWS asks no permission for. AssumeRole is
// decided by the role's trust policy; service/sts tests that.
var everybody = []string{"sts:GetCallerIdentity", "sts:GetSessionToken", "sts:AssumeRole"}

func everything(t testing.TB, db *store.DB, sessions *auth.Sessions, authorizer *auth.Authorizer) []service.Registration {
	t.Helper()
	callers := func(ctx context.Context) string { return account }
	ecsAPI := ecs.New(ecs.Config{DB: db, Region: region, Account: account, PassRole: authorizer.PassRole, PollEndpoint: func(context.Context) string { return "" }})
	ec2API := ec2.New(ec2.Config{DB: db, Region: region, Account: callers, Now: time.Now, NewID: func() string { return strings.Repeat("0", 32) }})
	ecrAPI, err := ecr.New(ecr.Config{DB: db, Registry: &registry.Registry{}, Endpoint: func(context.Context, string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	logsAPI := logs.New(logs.Config{DB: db, Region: region, Now: time.Now, NewID: func() string { return "" }})
	scaling := autoscaling.New(autoscaling.Config{DB: db, Region: region, Now: time.Now, NewID: func() string { return strings.Repeat("0", 32) }})
	iamAPI := iam.New(iam.Config{DB: db})
	ssmAPI := ssm.New(ssm.Config{DB: db, Region: region, Now: time.Now})
	stsAPI := sts.New(sts.Config{DB: db, Sessions: sessions, Authorizer: authorizer})
	return []service.Registration{
		{Service: awsautoscaling.NewService(scaling), Authorize: scaling.Authorize()},
		{Service: awsecs.NewService(ecsAPI), Authorize: ecsAPI.Authorize()},
		{Service: awsec2.NewService(ec2API), Authorize: ec2API.Authorize()},
		{Service: awsecr.NewService(ecrAPI), Authorize: ecrAPI.Authorize()},
		{Service: awslogs.NewService(logsAPI), Authorize: logsAPI.Authorize()},
		{Service: awsiam.NewService(iamAPI), Authorize: iamAPI.Authorize()},
		{Service: awsssm.NewService(ssmAPI), Authorize: ssmAPI.Authorize()},
		{Service: awssts.NewService(stsAPI), Authorize: stsAPI.Authorize()},
	}
}

// fill puts something into every member of an input.
func fill(v reflect.Value, depth int) {
	if depth == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth)
	case reflect.Struct:
		for i := range v.NumField() {
			f, name := v.Field(i), v.Type().Field(i).Name
			if !f.CanSet() {
				continue
			}
			fill(f, depth-1)
			if arns, ok := f.Interface().([]string); ok && len(arns) > 0 && strings.HasSuffix(name, "Arns") {
				arns[0] = "arn:aws:some:eu-central-1:" + account + ":thing/x"
			}
			// What the models' patterns would not let through as "x".
			if p, ok := f.Interface().(*string); ok && p != nil {
				switch low := strings.ToLower(name); {
				case low == "path" || low == "pathprefix":
					*p = "/x/"
				case low == "registryid":
					*p = account
				case strings.HasSuffix(low, "arn"):
					*p = "arn:aws:some:eu-central-1:" + account + ":thing/x"
				}
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), depth)
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Int32, reflect.Int64:
		v.SetInt(1)
	}
}

// Every operation of every service is authorized: a caller without policies is
// refused in words that name the action, and a caller with exactly what the
// refusals named is let through.
func TestEveryOperationIsAuthorized(t *testing.T) {
	db := store.OpenMemory()
	defer db.Close()
	sessions, err := auth.NewSessions(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	authorizer := &auth.Authorizer{Sessions: sessions}
	caller := &auth.Caller{Kind: auth.User, Account: account, Name: "nobody", ARN: "arn:aws:iam::" + account + ":user/nobody", UserID: "AIDAX"}
	put := func(document string) {
		t.Helper()
		u := &state.User{Account: account, Path: "/", Name: "nobody", ID: "AIDAX"}
		if document != "" {
			u.Inline = []state.InlinePolicy{{Name: "p", Document: document}}
		}
		if err := db.Update(t.Context(), func(tx *store.Tx) error { state.Users.Put(tx, u); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	free := 0
	for _, reg := range everything(t, db, sessions, authorizer) {
		prefix := reg.Prefix
		if prefix == "" {
			prefix = reg.SigningName
			reg.Prefix = prefix
		}
		for _, name := range slices.Sorted(maps.Keys(reg.Operations)) {
			op := reg.Operations[name]
			if op.Unsigned {
				continue
			}
			if slices.Contains(everybody, prefix+":"+name) {
				free++
				continue
			}
			ctx := auth.WithCaller(auth.WithRequest(t.Context(), &auth.Request{Protocol: reg.Protocol, Service: reg.Name, Operation: name, Region: region}), caller)
			for i, in := range []any{op.New(), filled(op.New())} {
				if i == 0 && wire.Validate(op, in) != nil {
					continue // never gets as far as authorization
				}
				put("")
				checks := reg.Checks(ctx, db.Snapshot(), caller, op, in)
				if len(checks) == 0 {
					t.Errorf("%s:%s is open to everybody", prefix, name)
					continue
				}
				for _, c := range checks {
					if !strings.Contains(c.Action, ":") || c.Resource != "*" && !strings.HasPrefix(c.Resource, "arn:aws:") && c.Resource != "x" {
						t.Errorf("%s:%s checks %q on %q", prefix, name, c.Action, c.Resource)
					}
				}
				err := authorizer.Check(ctx, db.Snapshot(), caller, checks...)
				if _, ok := errors.AsType[*auth.Denied](err); !ok || !strings.Contains(err.Error(), checks[0].Action) {
					t.Errorf("%s:%s without policies: %v", prefix, name, err)
				}
				put(allowing(t, checks))
				if err := authorizer.Check(ctx, db.Snapshot(), caller, checks...); err != nil && !slices.ContainsFunc(checks, func(c auth.Check) bool { return c.Resource == "x" }) {
					t.Errorf("%s:%s with a policy for %+v: %v", prefix, name, checks, err)
				}
			}
		}
	}
	if free != len(everybody) {
		t.Errorf("%d operations are open to everybody, want %d", free, len(everybody))
	}
}

func filled(in any) any {
	fill(reflect.ValueOf(in).Elem(), 4)
	return in
}

// allowing is a policy for exactly these checks. "x", the filling of a member
// that should be an ARN, cannot stand in a policy.
func allowing(t *testing.T, checks []auth.Check) string {
	t.Helper()
	type statement struct{ Effect, Action, Resource string }
	doc := struct {
		Version   string
		Statement []statement
	}{Version: "2012-10-17"}
	for _, c := range checks {
		if c.Resource == "x" {
			c.Resource = "arn:aws:x:::x"
		}
		doc.Statement = append(doc.Statement, statement{"Allow", c.Action, c.Resource})
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
