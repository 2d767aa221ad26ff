package iam_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const simulator = "123456789012"

// simulated is an account with a user, its group, and a role with a boundary.
func simulated(t *testing.T) (context.Context, *iam.Service) {
	t.Helper()
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.Users.Put(tx, &state.User{Account: simulator, Path: "/", Name: "ann", ID: "AIDAAAAAAAAAAAAAAAAAA", Groups: []string{"devs"}, Tags: []state.Tag{{Key: "team", Value: "a"}},
			Inline:   []state.InlinePolicy{{Name: "in", Document: `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"dynamodb:*","Resource":"*","Condition":{"DateGreaterThan":{"aws:CurrentTime":"2018-08-16T12:00:00Z"}}}}`}},
			Attached: []string{"arn:aws:iam::aws:policy/IAMFullAccess", "arn:aws:iam::" + simulator + ":policy/mine"}})
		state.Groups.Put(tx, &state.Group{Account: simulator, Path: "/", Name: "devs",
			Inline: []state.InlinePolicy{{Name: "home", Document: `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::home/${aws:username}/*"}}`}}})
		state.ManagedPolicies.Put(tx, &state.ManagedPolicy{Account: simulator, Path: "/", Name: "mine", Default: "v1",
			Versions: []state.PolicyVersion{{ID: "v1", Document: `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"iam:Delete*","Resource":"*"}}`}}})
		state.Roles.Put(tx, &state.Role{Account: simulator, Path: "/", Name: "r", ID: "AROAAAAAAAAAAAAAAAAAA", Boundary: "arn:aws:iam::aws:policy/CloudWatchLogsFullAccess", Attached: []string{"arn:aws:iam::aws:policy/AdministratorAccess"}})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ctx := auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.RootUser, Account: simulator, ARN: "arn:aws:iam::" + simulator + ":root", UserID: simulator})
	return ctx, iam.New(iam.Config{DB: db})
}

// outcomes are the decisions with what made them.
func outcomes(results []api.EvaluationResult) (out []string) {
	for _, r := range results {
		text := *r.EvalActionName + " on " + *r.EvalResourceName + " " + string(r.EvalDecision)
		for _, st := range r.MatchedStatements {
			text += " by " + *st.SourcePolicyId + "(" + string(st.SourcePolicyType) + ")"
		}
		if b := r.PermissionsBoundaryDecisionDetail; b != nil && !*b.AllowedByPermissionsBoundary {
			text += " not by the boundary"
		}
		for _, k := range r.MissingContextValues {
			text += " without " + k
		}
		for _, sub := range r.ResourceSpecificResults {
			for _, k := range sub.MissingContextValues {
				text += " there without " + k
			}
		}
		out = append(out, text)
	}
	return out
}

func TestSimulatePrincipalPolicy(t *testing.T) {
	ctx, s := simulated(t)
	const ann, role = "arn:aws:iam::" + simulator + ":user/ann", "arn:aws:iam::" + simulator + ":role/r"
	for _, tc := range []struct {
		in   api.SimulatePrincipalPolicyInput
		want []string
	}{
		{api.SimulatePrincipalPolicyInput{PolicySourceArn: new(ann), ActionNames: []string{"iam:GetUser", "iam:DeleteUser", "ecs:RunTask", "dynamodb:ListTables"}}, []string{
			"iam:GetUser on * allowed by IAMFullAccess(aws-managed)",
			"iam:DeleteUser on * explicitDeny by mine(user-managed)",
			"ecs:RunTask on * implicitDeny",
			"dynamodb:ListTables on * implicitDeny without aws:CurrentTime",
		}},
		{api.SimulatePrincipalPolicyInput{PolicySourceArn: new(ann), ActionNames: []string{"dynamodb:ListTables"}, ResourceArns: []string{"arn:aws:dynamodb:eu-central-1:123456789012:table/x"}}, []string{
			"dynamodb:ListTables on arn:aws:dynamodb:eu-central-1:123456789012:table/x implicitDeny there without aws:CurrentTime"}},
		{api.SimulatePrincipalPolicyInput{PolicySourceArn: new(ann), ActionNames: []string{"dynamodb:ListTables"},
			ContextEntries: []api.ContextEntry{{ContextKeyName: new("AWS:CurrentTime"), ContextKeyType: "date", ContextKeyValues: []string{"2026-11-22T00:00:00Z"}}}}, []string{
			"dynamodb:ListTables on * allowed by user_ann_in(user)"}},
		{api.SimulatePrincipalPolicyInput{PolicySourceArn: new(ann), ActionNames: []string{"s3:GetObject"}, ResourceArns: []string{"arn:aws:s3:::home/ann/x", "arn:aws:s3:::home/bob/x"}}, []string{
			"s3:GetObject on arn:aws:s3:::home/ann/x allowed by group_devs_home(group)", "s3:GetObject on arn:aws:s3:::home/bob/x implicitDeny"}},
		{api.SimulatePrincipalPolicyInput{PolicySourceArn: new("arn:aws:iam::" + simulator + ":group/devs"), ActionNames: []string{"s3:GetObject"}, ResourceArns: []string{"arn:aws:s3:::home/ann/x"}}, []string{
			"s3:GetObject on arn:aws:s3:::home/ann/x implicitDeny there without aws:username"}},
		{api.SimulatePrincipalPolicyInput{PolicySourceArn: new(role), ActionNames: []string{"logs:PutLogEvents", "ecs:RunTask"}}, []string{
			"logs:PutLogEvents on * allowed by AdministratorAccess(aws-managed) by CloudWatchLogsFullAccess(aws-managed)",
			"ecs:RunTask on * implicitDeny by AdministratorAccess(aws-managed) not by the boundary",
		}},
		{api.SimulatePrincipalPolicyInput{PolicySourceArn: new(role), ActionNames: []string{"ecs:RunTask"}, PermissionsBoundaryPolicyInputList: []string{allowsAll}}, []string{
			"ecs:RunTask on * allowed by AdministratorAccess(aws-managed) by PermissionsBoundaryPolicyInputList.1(IAM Policy)"}},
	} {
		out, err := s.SimulatePrincipalPolicy(ctx, &tc.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := outcomes(out.EvaluationResults); !slices.Equal(got, tc.want) {
			t.Errorf("got  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(tc.want, "\n     "))
		}
	}
}

const allowsAll = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`

func TestSimulateCustomPolicy(t *testing.T) {
	ctx, s := simulated(t)
	deny := `{"Version":"2012-10-17","Statement":[
  {"Sid":"a","Effect":"Allow","Action":"ecr:*","Resource":"*"},
  {"Sid":"b","Effect":"Deny","Action":"ecr:Delete*","Resource":"*"}]}`
	out, err := s.SimulateCustomPolicy(ctx, &api.SimulateCustomPolicyInput{PolicyInputList: []string{allowsAll, deny}, ActionNames: []string{"ecr:DeleteRepository"}})
	if err != nil {
		t.Fatal(err)
	}
	st := out.EvaluationResults[0].MatchedStatements
	if len(st) != 1 || *st[0].SourcePolicyId != "PolicyInputList.2" || *st[0].StartPosition.Line != 2 || *st[0].StartPosition.Column != 63 || *st[0].EndPosition.Line != 3 || *st[0].EndPosition.Column != 68 {
		t.Errorf("%+v %+v %+v", st, st[0].StartPosition, st[0].EndPosition)
	}
	// Another account's repository: both sides have a say, and the details tell which.
	in := &api.SimulateCustomPolicyInput{PolicyInputList: []string{allowsAll}, ActionNames: []string{"ecr:BatchGetImage"}, CallerArn: new("arn:aws:iam::" + simulator + ":user/ann"),
		ResourceArns:   []string{"arn:aws:ecr:eu-central-1:999999999999:repository/r"},
		ResourcePolicy: new(`{"Statement":{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":"ecr:*"}}`)}
	for policy, want := range map[string]api.PolicyEvaluationDecisionType{
		`{"Statement":{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":"ecr:*"}}`:                           "implicitDeny",
		`{"Statement":{"Effect":"Allow","Principal":{"AWS":"` + simulator + `"},"Action":"ecr:*"}}`:                      "allowed",
		`{"Statement":{"Effect":"Deny","Principal":{"AWS":"arn:aws:iam::` + simulator + `:user/ann"},"Action":"ecr:*"}}`: "explicitDeny",
	} {
		in.ResourcePolicy = &policy
		out, err := s.SimulateCustomPolicy(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		r := out.EvaluationResults[0]
		if r.EvalDecision != want || r.EvalDecisionDetails["IAM Policy"] != "allowed" || r.EvalDecisionDetails["Resource Policy"] != want || r.ResourceSpecificResults[0].EvalResourceDecision != want {
			t.Errorf("%s: %+v", policy, r)
		}
	}
	var names []string
	page := &api.SimulateCustomPolicyInput{PolicyInputList: []string{allowsAll}, ActionNames: []string{"c:c", "a:a", "b:b"}, MaxItems: new(int32(2))}
	for {
		out, err := s.SimulateCustomPolicy(ctx, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.EvaluationResults {
			names = append(names, *r.EvalActionName)
		}
		if page.Marker = out.Marker; !*out.IsTruncated {
			break
		}
	}
	if !slices.Equal(names, page.ActionNames) {
		t.Errorf("pages %v", names)
	}
	for text, in := range map[string]api.SimulateCustomPolicyInput{
		"Invalid policy in PolicyInputList.1: Syntax errors in policy.": {PolicyInputList: []string{"{"}, ActionNames: []string{"a:b"}},
		"Invalid Action Name: RunTask":                                  {ActionNames: []string{"RunTask"}},
		"Invalid Resource Arn: x":                                       {ActionNames: []string{"a:b"}, ResourceArns: []string{"x"}},
		"CallerArn is required":                                         {ActionNames: []string{"a:b"}, ResourcePolicy: new(`{"Statement":{"Effect":"Allow","Principal":"*","Action":"*"}}`)},
		"CallerArn must be the ARN of a user":                           {ActionNames: []string{"a:b"}, CallerArn: new("arn:aws:iam::" + simulator + ":role/r")},
		"ResourceHandlingOption is not supported by Berth.":             {ActionNames: []string{"a:b"}, ResourceHandlingOption: new("EC2-VPC-EBS")},
		"Invalid value x of the context key k of type numeric":          {ActionNames: []string{"a:b"}, ContextEntries: []api.ContextEntry{{ContextKeyName: new("k"), ContextKeyType: "numeric", ContextKeyValues: []string{"x"}}}},
		"must have one value":                                           {ActionNames: []string{"a:b"}, ContextEntries: []api.ContextEntry{{ContextKeyName: new("k"), ContextKeyType: "string", ContextKeyValues: []string{"x", "y"}}}},
	} {
		_, err := s.SimulateCustomPolicy(ctx, &in)
		if e, ok := errors.AsType[wire.Error](err); !ok || e.ErrorCode() != "InvalidInput" || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %s", err, text)
		}
	}
}

func TestContextKeys(t *testing.T) {
	ctx, s := simulated(t)
	custom, err := s.GetContextKeysForCustomPolicy(ctx, &api.GetContextKeysForCustomPolicyInput{PolicyInputList: []string{
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:userid}","Condition":{"Bool":{"aws:SecureTransport":"true"}}}}`}})
	if err != nil || !slices.Equal(custom.ContextKeyNames, []string{"aws:SecureTransport", "aws:userid"}) {
		t.Errorf("%v %v", custom, err)
	}
	of, err := s.GetContextKeysForPrincipalPolicy(ctx, &api.GetContextKeysForPrincipalPolicyInput{PolicySourceArn: new("arn:aws:iam::" + simulator + ":user/ann")})
	if err != nil || !slices.Equal(of.ContextKeyNames, []string{"aws:CurrentTime", "aws:username"}) {
		t.Errorf("%v %v", of, err)
	}
	_, err = s.GetContextKeysForPrincipalPolicy(ctx, &api.GetContextKeysForPrincipalPolicyInput{PolicySourceArn: new("arn:aws:iam::" + simulator + ":user/none")})
	if e, ok := errors.AsType[wire.Error](err); !ok || e.ErrorCode() != "NoSuchEntity" {
		t.Errorf("%v", err)
	}
}
