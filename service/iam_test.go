package service_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/store/state"
)

const (
	trustTasks   = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	allowAll     = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	executionARN = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
)

func want(t *testing.T, err error, wantCode, text string) {
	t.Helper()
	if code(err) != wantCode || !strings.Contains(message(err), text) {
		t.Errorf("got %v\nwant %s: %s", err, wantCode, text)
	}
}

func TestRoleLife(t *testing.T) {
	r := start(t, nil)
	c, ctx := sdkiam.NewFromConfig(r.asRoot()), t.Context()
	name := new("ecsTaskExecutionRole")
	_, err := c.GetRole(ctx, &sdkiam.GetRoleInput{RoleName: name})
	want(t, err, "NoSuchEntity", "The role with name ecsTaskExecutionRole cannot be found.")
	_, err = c.CreateRole(ctx, &sdkiam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/ghost"},"Action":"sts:AssumeRole"}]}`)})
	want(t, err, "MalformedPolicyDocument", `Invalid principal in policy: "AWS":"arn:aws:iam::000000000000:user/ghost"`)
	made, err := c.CreateRole(ctx, &sdkiam.CreateRoleInput{RoleName: name, Path: new("/svc/"), AssumeRolePolicyDocument: new(trustTasks), Tags: []types.Tag{{Key: new("team"), Value: new("a")}}})
	if err != nil {
		t.Fatal(err)
	}
	if *made.Role.Arn != "arn:aws:iam::000000000000:role/svc/ecsTaskExecutionRole" || *made.Role.MaxSessionDuration != 3600 {
		t.Errorf("role %s %d", *made.Role.Arn, *made.Role.MaxSessionDuration)
	}
	_, err = c.CreateRole(ctx, &sdkiam.CreateRoleInput{RoleName: new("ECSTASKEXECUTIONROLE"), AssumeRolePolicyDocument: new(trustTasks)})
	want(t, err, "EntityAlreadyExists", "already exists.")
	_, err = c.AttachRolePolicy(ctx, &sdkiam.AttachRolePolicyInput{RoleName: name, PolicyArn: new("arn:aws:iam::aws:policy/Nope")})
	want(t, err, "NoSuchEntity", "Policy arn:aws:iam::aws:policy/Nope does not exist or is not attachable.")
	for range 2 { // the second changes nothing
		if _, err = c.AttachRolePolicy(ctx, &sdkiam.AttachRolePolicyInput{RoleName: name, PolicyArn: new(executionARN)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.PutRolePolicy(ctx, &sdkiam.PutRolePolicyInput{RoleName: name, PolicyName: new("in"), PolicyDocument: new("{")})
	want(t, err, "MalformedPolicyDocument", "")
	_, err = c.PutRolePolicy(ctx, &sdkiam.PutRolePolicyInput{RoleName: name, PolicyName: new("in"), PolicyDocument: new(strings.Replace(allowAll, `"*"`, `"s3:`+strings.Repeat("x", 10240)+`"`, 1))})
	want(t, err, "LimitExceeded", "Maximum policy size of 10240 bytes exceeded for role ecsTaskExecutionRole")
	if _, err = c.PutRolePolicy(ctx, &sdkiam.PutRolePolicyInput{RoleName: name, PolicyName: new("in"), PolicyDocument: new(allowAll)}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetRolePolicy(ctx, &sdkiam.GetRolePolicyInput{RoleName: name, PolicyName: new("in")})
	if err != nil {
		t.Fatal(err)
	}
	if doc, _ := url.PathUnescape(*got.PolicyDocument); doc != allowAll {
		t.Errorf("document %s", doc)
	}
	attached, err := c.ListAttachedRolePolicies(ctx, &sdkiam.ListAttachedRolePoliciesInput{RoleName: name})
	if err != nil || len(attached.AttachedPolicies) != 1 || *attached.AttachedPolicies[0].PolicyName != "AmazonECSTaskExecutionRolePolicy" {
		t.Errorf("attached %v %v", attached, err)
	}
	_, err = c.DeleteRole(ctx, &sdkiam.DeleteRoleInput{RoleName: name})
	want(t, err, "DeleteConflict", "Cannot delete entity, must detach all policies first.")
	if _, err = c.DetachRolePolicy(ctx, &sdkiam.DetachRolePolicyInput{RoleName: name, PolicyArn: new(executionARN)}); err != nil {
		t.Fatal(err)
	}
	_, err = c.DeleteRole(ctx, &sdkiam.DeleteRoleInput{RoleName: name})
	want(t, err, "DeleteConflict", "Cannot delete entity, must delete policies first.")
	if _, err = c.DeleteRolePolicy(ctx, &sdkiam.DeleteRolePolicyInput{RoleName: name, PolicyName: new("in")}); err != nil {
		t.Fatal(err)
	}
	if _, err = c.DeleteRole(ctx, &sdkiam.DeleteRoleInput{RoleName: name}); err != nil {
		t.Fatal(err)
	}
}

func TestManagedPolicyVersions(t *testing.T) {
	r := start(t, nil)
	c, ctx := sdkiam.NewFromConfig(r.asRoot()), t.Context()
	r.user("bob", "")
	p, err := c.CreatePolicy(ctx, &sdkiam.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(allowAll)})
	if err != nil {
		t.Fatal(err)
	}
	arn := p.Policy.Arn
	for range 4 {
		if _, err := c.CreatePolicyVersion(ctx, &sdkiam.CreatePolicyVersionInput{PolicyArn: arn, PolicyDocument: new(allowAll), SetAsDefault: true}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.CreatePolicyVersion(ctx, &sdkiam.CreatePolicyVersionInput{PolicyArn: arn, PolicyDocument: new(allowAll)})
	want(t, err, "LimitExceeded", "A managed policy can have up to 5 versions.")
	versions, err := c.ListPolicyVersions(ctx, &sdkiam.ListPolicyVersionsInput{PolicyArn: arn})
	if err != nil || len(versions.Versions) != 5 || *versions.Versions[0].VersionId != "v5" || !versions.Versions[0].IsDefaultVersion {
		t.Errorf("versions %+v %v", versions, err)
	}
	_, err = c.DeletePolicyVersion(ctx, &sdkiam.DeletePolicyVersionInput{PolicyArn: arn, VersionId: new("v5")})
	want(t, err, "DeleteConflict", "Cannot delete the default version of a policy.")
	if _, err = c.AttachUserPolicy(ctx, &sdkiam.AttachUserPolicyInput{UserName: new("bob"), PolicyArn: arn}); err != nil {
		t.Fatal(err)
	}
	_, err = c.DeletePolicy(ctx, &sdkiam.DeletePolicyInput{PolicyArn: arn})
	want(t, err, "DeleteConflict", "Cannot delete a policy attached to entities.")
	who, err := c.ListEntitiesForPolicy(ctx, &sdkiam.ListEntitiesForPolicyInput{PolicyArn: arn})
	if err != nil || len(who.PolicyUsers) != 1 || *who.PolicyUsers[0].UserName != "bob" {
		t.Errorf("entities %+v %v", who, err)
	}
}

func TestListsAreSortedAndPaged(t *testing.T) {
	r := start(t, nil)
	c := sdkiam.NewFromConfig(r.asRoot())
	var names []string
	for _, n := range []string{"delta", "Alpha", "charlie", "bravo", "echo"} {
		r.user(n, "")
	}
	pages := sdkiam.NewListUsersPaginator(c, &sdkiam.ListUsersInput{MaxItems: new(int32(2))})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page.Users {
			names = append(names, *u.UserName)
		}
	}
	if !slices.Equal(names, []string{"Alpha", "bravo", "charlie", "delta", "echo"}) {
		t.Errorf("names %v", names)
	}
	_, err := c.ListUsers(t.Context(), &sdkiam.ListUsersInput{Marker: new("nonsense")})
	want(t, err, "ValidationError", "")
}

func TestAccessKeys(t *testing.T) {
	r := start(t, nil)
	c, ctx := sdkiam.NewFromConfig(r.asRoot()), t.Context()
	bob := r.user("bob", allowAll)
	if _, err := c.CreateAccessKey(ctx, &sdkiam.CreateAccessKeyInput{UserName: new("bob")}); err != nil {
		t.Fatal(err)
	}
	_, err := c.CreateAccessKey(ctx, &sdkiam.CreateAccessKeyInput{UserName: new("bob")})
	want(t, err, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")
	creds, err := bob.Credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	info, err := sdksts.NewFromConfig(bob).GetAccessKeyInfo(ctx, &sdksts.GetAccessKeyInfoInput{AccessKeyId: &creds.AccessKeyID})
	if err != nil || *info.Account != account {
		t.Errorf("account of the key: %v %v", info, err)
	}
	if _, err = c.UpdateAccessKey(ctx, &sdkiam.UpdateAccessKeyInput{UserName: new("bob"), AccessKeyId: &creds.AccessKeyID, Status: types.StatusTypeInactive}); err != nil {
		t.Fatal(err)
	}
	_, err = sdksts.NewFromConfig(bob).GetCallerIdentity(ctx, nil)
	want(t, err, "InvalidClientTokenId", "The security token included in the request is invalid.")
	_, err = c.DeleteUser(ctx, &sdkiam.DeleteUserInput{UserName: new("bob")})
	want(t, err, "DeleteConflict", "must delete access keys first")
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
