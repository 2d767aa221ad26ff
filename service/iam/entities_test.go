package iam_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/berth-run/berth/auth"
)

const executionARN = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"

func TestRoleLife(t *testing.T) {
	w := newWorld(t)
	c, ctx := w.Client, w.ctx
	name := new("ecsTaskExecutionRole")
	_, err := c.GetRole(ctx, &sdk.GetRoleInput{RoleName: name})
	refused(t, "NoSuchEntity", "The role with name ecsTaskExecutionRole cannot be found.")(nil, err)
	_, err = c.CreateRole(ctx, &sdk.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/ghost"},"Action":"sts:AssumeRole"}]}`)})
	refused(t, "MalformedPolicyDocument", `Invalid principal in policy: "AWS":"arn:aws:iam::000000000000:user/ghost"`)(nil, err)
	made, err := c.CreateRole(ctx, &sdk.CreateRoleInput{RoleName: name, Path: new("/svc/"), AssumeRolePolicyDocument: new(trust), Tags: []types.Tag{{Key: new("team"), Value: new("a")}}})
	if err != nil {
		t.Fatal(err)
	}
	if *made.Role.Arn != "arn:aws:iam::000000000000:role/svc/ecsTaskExecutionRole" || *made.Role.MaxSessionDuration != 3600 {
		t.Errorf("role %s %d", *made.Role.Arn, *made.Role.MaxSessionDuration)
	}
	_, err = c.CreateRole(ctx, &sdk.CreateRoleInput{RoleName: new("ECSTASKEXECUTIONROLE"), AssumeRolePolicyDocument: new(trust)})
	refused(t, "EntityAlreadyExists", "already exists.")(nil, err)
	_, err = c.AttachRolePolicy(ctx, &sdk.AttachRolePolicyInput{RoleName: name, PolicyArn: new("arn:aws:iam::aws:policy/Nope")})
	refused(t, "NoSuchEntity", "Policy arn:aws:iam::aws:policy/Nope does not exist or is not attachable.")(nil, err)
	for range 2 { // the second changes nothing
		if _, err = c.AttachRolePolicy(ctx, &sdk.AttachRolePolicyInput{RoleName: name, PolicyArn: new(executionARN)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.PutRolePolicy(ctx, &sdk.PutRolePolicyInput{RoleName: name, PolicyName: new("in"), PolicyDocument: new("{")})
	refused(t, "MalformedPolicyDocument", "")(nil, err)
	_, err = c.PutRolePolicy(ctx, &sdk.PutRolePolicyInput{RoleName: name, PolicyName: new("in"), PolicyDocument: new(strings.Replace(allowAll, `"*"`, `"s3:`+strings.Repeat("x", 10240)+`"`, 1))})
	refused(t, "LimitExceeded", "Maximum policy size of 10240 bytes exceeded for role ecsTaskExecutionRole")(nil, err)
	if _, err = c.PutRolePolicy(ctx, &sdk.PutRolePolicyInput{RoleName: name, PolicyName: new("in"), PolicyDocument: new(allowAll)}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetRolePolicy(ctx, &sdk.GetRolePolicyInput{RoleName: name, PolicyName: new("in")})
	if err != nil {
		t.Fatal(err)
	}
	if doc, _ := url.PathUnescape(*got.PolicyDocument); doc != allowAll {
		t.Errorf("document %s", doc)
	}
	attached, err := c.ListAttachedRolePolicies(ctx, &sdk.ListAttachedRolePoliciesInput{RoleName: name})
	if err != nil || len(attached.AttachedPolicies) != 1 || *attached.AttachedPolicies[0].PolicyName != "AmazonECSTaskExecutionRolePolicy" {
		t.Errorf("attached %v %v", attached, err)
	}
	_, err = c.DeleteRole(ctx, &sdk.DeleteRoleInput{RoleName: name})
	refused(t, "DeleteConflict", "Cannot delete entity, must detach all policies first.")(nil, err)
	if _, err = c.DetachRolePolicy(ctx, &sdk.DetachRolePolicyInput{RoleName: name, PolicyArn: new(executionARN)}); err != nil {
		t.Fatal(err)
	}
	_, err = c.DeleteRole(ctx, &sdk.DeleteRoleInput{RoleName: name})
	refused(t, "DeleteConflict", "Cannot delete entity, must delete policies first.")(nil, err)
	if _, err = c.DeleteRolePolicy(ctx, &sdk.DeleteRolePolicyInput{RoleName: name, PolicyName: new("in")}); err != nil {
		t.Fatal(err)
	}
	if _, err = c.DeleteRole(ctx, &sdk.DeleteRoleInput{RoleName: name}); err != nil {
		t.Fatal(err)
	}
}

func TestManagedPolicyVersions(t *testing.T) {
	w := newWorld(t)
	c, ctx := w.Client, w.ctx
	w.user("bob", "")
	p, err := c.CreatePolicy(ctx, &sdk.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(allowAll)})
	if err != nil {
		t.Fatal(err)
	}
	arn := p.Policy.Arn
	for range 4 {
		if _, err := c.CreatePolicyVersion(ctx, &sdk.CreatePolicyVersionInput{PolicyArn: arn, PolicyDocument: new(allowAll), SetAsDefault: true}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.CreatePolicyVersion(ctx, &sdk.CreatePolicyVersionInput{PolicyArn: arn, PolicyDocument: new(allowAll)})
	refused(t, "LimitExceeded", "A managed policy can have up to 5 versions.")(nil, err)
	versions, err := c.ListPolicyVersions(ctx, &sdk.ListPolicyVersionsInput{PolicyArn: arn})
	if err != nil || len(versions.Versions) != 5 || *versions.Versions[0].VersionId != "v5" || !versions.Versions[0].IsDefaultVersion {
		t.Errorf("versions %+v %v", versions, err)
	}
	_, err = c.DeletePolicyVersion(ctx, &sdk.DeletePolicyVersionInput{PolicyArn: arn, VersionId: new("v5")})
	refused(t, "DeleteConflict", "Cannot delete the default version of a policy.")(nil, err)
	if _, err = c.AttachUserPolicy(ctx, &sdk.AttachUserPolicyInput{UserName: new("bob"), PolicyArn: arn}); err != nil {
		t.Fatal(err)
	}
	_, err = c.DeletePolicy(ctx, &sdk.DeletePolicyInput{PolicyArn: arn})
	refused(t, "DeleteConflict", "Cannot delete a policy attached to entities.")(nil, err)
	who, err := c.ListEntitiesForPolicy(ctx, &sdk.ListEntitiesForPolicyInput{PolicyArn: arn})
	if err != nil || len(who.PolicyUsers) != 1 || *who.PolicyUsers[0].UserName != "bob" {
		t.Errorf("entities %+v %v", who, err)
	}
}

func TestListsAreSortedAndPaged(t *testing.T) {
	w := newWorld(t)
	c := w.Client
	var names []string
	for _, n := range []string{"delta", "Alpha", "charlie", "bravo", "echo"} {
		w.user(n, "")
	}
	pages := sdk.NewListUsersPaginator(c, &sdk.ListUsersInput{MaxItems: new(int32(2))})
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
	_, err := c.ListUsers(t.Context(), &sdk.ListUsersInput{Marker: new("nonsense")})
	refused(t, "ValidationError", "")(nil, err)
}

func TestAccessKeys(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", allowAll)
	must(t)(w.CreateAccessKey(w.ctx, &sdk.CreateAccessKeyInput{UserName: new("bob")}))
	refused(t, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")(w.CreateAccessKey(w.ctx, &sdk.CreateAccessKeyInput{UserName: new("bob")}))
	creds, err := bob.Options().Credentials.Retrieve(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if of, ok := auth.AccountOf(creds.AccessKeyID); !ok || of != acct {
		t.Errorf("account of the key: %s %v", of, ok)
	}
	must(t)(bob.GetUser(w.ctx, &sdk.GetUserInput{}))
	must(t)(w.UpdateAccessKey(w.ctx, &sdk.UpdateAccessKeyInput{UserName: new("bob"), AccessKeyId: &creds.AccessKeyID, Status: types.StatusTypeInactive}))
	refused(t, "InvalidClientTokenId", "The security token included in the request is invalid.")(bob.GetUser(w.ctx, &sdk.GetUserInput{}))
	refused(t, "DeleteConflict", "must delete access keys first")(w.DeleteUser(w.ctx, &sdk.DeleteUserInput{UserName: new("bob")}))
}
