package service_test

import (
	"strings"
	"testing"
	"time"

	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/store/state"
)

const (
	trustTasks = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	allowAll   = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
)

func want(t *testing.T, err error, wantCode, text string) {
	t.Helper()
	if code(err) != wantCode || !strings.Contains(message(err), text) {
		t.Errorf("got %v\nwant %s: %s", err, wantCode, text)
	}
}

func TestGroupPoliciesAndBoundaries(t *testing.T) {
	r := start(t, nil)
	c, ctx := sdkiam.NewFromConfig(r.asRoot()), t.Context()
	bob := sdkiam.NewFromConfig(r.user("bob", ""))
	try := func() error {
		_, err := bob.ListUsers(ctx, &sdkiam.ListUsersInput{})
		return err
	}
	if _, err := c.CreateGroup(ctx, &sdkiam.CreateGroupInput{GroupName: new("admins")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AttachGroupPolicy(ctx, &sdkiam.AttachGroupPolicyInput{GroupName: new("admins"), PolicyArn: new("arn:aws:iam::aws:policy/IAMFullAccess")}); err != nil {
		t.Fatal(err)
	}
	want(t, try(), "AccessDenied", "because no identity-based policy allows the iam:ListUsers action")
	if _, err := c.AddUserToGroup(ctx, &sdkiam.AddUserToGroupInput{GroupName: new("admins"), UserName: new("bob")}); err != nil {
		t.Fatal(err)
	}
	if err := try(); err != nil {
		t.Error(err)
	}
	if _, err := c.PutUserPermissionsBoundary(ctx, &sdkiam.PutUserPermissionsBoundaryInput{UserName: new("bob"), PermissionsBoundary: new("arn:aws:iam::aws:policy/CloudWatchLogsFullAccess")}); err != nil {
		t.Fatal(err)
	}
	want(t, try(), "AccessDenied", "because no permissions boundary allows the iam:ListUsers action")
}

func TestSessionDiesWithItsRole(t *testing.T) {
	r := start(t, nil)
	c, ctx := sdkiam.NewFromConfig(r.asRoot()), t.Context()
	for range 2 { // a role made anew under the old name is another role
		if _, err := c.CreateRole(ctx, &sdkiam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new(trustTasks)}); err != nil {
			t.Fatal(err)
		}
		role, _ := auth.RoleByARN(r.db.Snapshot(), "arn:aws:iam::000000000000:role/r")
		creds, err := r.sessions.ForRole(role, "task", r.now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		session := sdksts.NewFromConfig(r.config(creds.AccessKeyID, creds.Secret, creds.Token))
		if _, err := session.GetCallerIdentity(ctx, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := c.DeleteRole(ctx, &sdkiam.DeleteRoleInput{RoleName: new("r")}); err != nil {
			t.Fatal(err)
		}
		_, err = session.GetCallerIdentity(ctx, nil)
		want(t, err, "InvalidClientTokenId", "")
	}
}

func TestServiceLinkedRoleAndProfiles(t *testing.T) {
	r := start(t, nil)
	c, ctx := sdkiam.NewFromConfig(r.asRoot()), t.Context()
	out, err := c.CreateServiceLinkedRole(ctx, &sdkiam.CreateServiceLinkedRoleInput{AWSServiceName: new("ecs.amazonaws.com")})
	if err != nil {
		t.Fatal(err)
	}
	if *out.Role.Arn != "arn:aws:iam::000000000000:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS" {
		t.Errorf("role %s", *out.Role.Arn)
	}
	_, err = c.CreateServiceLinkedRole(ctx, &sdkiam.CreateServiceLinkedRoleInput{AWSServiceName: new("ecs.amazonaws.com")})
	want(t, err, "InvalidInput", "has been taken in this account")
	_, err = c.DeleteRole(ctx, &sdkiam.DeleteRoleInput{RoleName: new("AWSServiceRoleForECS")})
	want(t, err, "UnmodifiableEntity", "only modifiable by AWS")

	if _, err = c.CreateRole(ctx, &sdkiam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new(trustTasks)}); err != nil {
		t.Fatal(err)
	}
	if _, err = c.CreateInstanceProfile(ctx, &sdkiam.CreateInstanceProfileInput{InstanceProfileName: new("p")}); err != nil {
		t.Fatal(err)
	}
	if _, err = c.AddRoleToInstanceProfile(ctx, &sdkiam.AddRoleToInstanceProfileInput{InstanceProfileName: new("p"), RoleName: new("r")}); err != nil {
		t.Fatal(err)
	}
	_, err = c.DeleteRole(ctx, &sdkiam.DeleteRoleInput{RoleName: new("r")})
	want(t, err, "DeleteConflict", "must remove roles from instance profile first")
	p, err := c.GetInstanceProfile(ctx, &sdkiam.GetInstanceProfileInput{InstanceProfileName: new("p")})
	if err != nil || len(p.InstanceProfile.Roles) != 1 || *p.InstanceProfile.Roles[0].RoleName != "r" {
		t.Errorf("profile %+v %v", p, err)
	}
}

func TestPassRole(t *testing.T) {
	r := start(t, nil)
	r.user("bob", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:PassRole","Resource":"arn:aws:iam::000000000000:role/task*","Condition":{"StringEquals":{"iam:PassedToService":"ecs-tasks.amazonaws.com"}}}]}`)
	snap := r.db.Snapshot()
	bob, _ := state.Users.Get(snap, state.IAMKey(account, "bob"))
	caller := &auth.Caller{Kind: auth.User, Account: account, Name: "bob", ARN: bob.ARN(), UserID: bob.ID}
	a := &auth.Authorizer{Sessions: r.sessions}
	for _, tc := range []struct{ role, service, text string }{
		{"arn:aws:iam::000000000000:role/taskA", "ecs-tasks.amazonaws.com", ""},
		{"arn:aws:iam::000000000000:role/taskA", "ec2.amazonaws.com", "no identity-based policy allows the iam:PassRole action"},
		{"arn:aws:iam::000000000000:role/other", "ecs-tasks.amazonaws.com", "is not authorized to perform: iam:PassRole on resource: arn:aws:iam::000000000000:role/other"},
		{"arn:aws:iam::111111111111:role/taskA", "ecs-tasks.amazonaws.com", "Cross-account pass role is not allowed."},
	} {
		err := a.PassRole(t.Context(), snap, caller, tc.role, tc.service)
		if (err == nil) != (tc.text == "") || err != nil && !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s to %s: %v", tc.role, tc.service, err)
		}
	}
}
