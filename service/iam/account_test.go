package iam_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func TestAccountAlias(t *testing.T) {
	w := newWorld(t)
	stranger := w.root(other)
	must(t)(w.CreateAccountAlias(w.ctx, &sdk.CreateAccountAliasInput{AccountAlias: new("harbour")}))
	refused(t, "EntityAlreadyExists", "The account alias harbour already exists.")(stranger.CreateAccountAlias(w.ctx, &sdk.CreateAccountAliasInput{AccountAlias: new("harbour")}))
	refused(t, "NoSuchEntity", "The account alias harbour cannot be found.")(stranger.DeleteAccountAlias(w.ctx, &sdk.DeleteAccountAliasInput{AccountAlias: new("harbour")}))
	must(t)(w.CreateAccountAlias(w.ctx, &sdk.CreateAccountAliasInput{AccountAlias: new("quay")})) // it replaces the other
	must(t)(stranger.CreateAccountAlias(w.ctx, &sdk.CreateAccountAliasInput{AccountAlias: new("harbour")}))
	list, err := w.ListAccountAliases(w.ctx, nil)
	if err != nil || !slices.Equal(list.AccountAliases, []string{"quay"}) {
		t.Errorf("%+v %v", list, err)
	}
	must(t)(w.DeleteAccountAlias(w.ctx, &sdk.DeleteAccountAliasInput{AccountAlias: new("quay")}))
	if list, err := w.ListAccountAliases(w.ctx, nil); err != nil || len(list.AccountAliases) != 0 {
		t.Errorf("%+v %v", list, err)
	}
}

func TestAccountSummary(t *testing.T) {
	w := newWorld(t)
	w.user("bob", "")
	must(t)(w.root(other).CreateGroup(w.ctx, &sdk.CreateGroupInput{GroupName: new("theirs")}))
	p, err := w.CreatePolicy(w.ctx, &sdk.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(allowAll)})
	if err != nil {
		t.Fatal(err)
	}
	must(t)(w.CreatePolicyVersion(w.ctx, &sdk.CreatePolicyVersionInput{PolicyArn: p.Policy.Arn, PolicyDocument: new(allowAll)}))
	must(t)(w.CreateVirtualMFADevice(w.ctx, &sdk.CreateVirtualMFADeviceInput{VirtualMFADeviceName: new("phone")}))
	must(t)(w.SetSecurityTokenServicePreferences(w.ctx, &sdk.SetSecurityTokenServicePreferencesInput{GlobalEndpointTokenVersion: "v2Token"}))
	w.quota("iam/users", 7)
	got, err := w.GetAccountSummary(w.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int32{"Users": 1, "UsersQuota": 7, "Groups": 0, "GroupsQuota": 300, "Roles": 1, "RolesQuota": 1000, "Policies": 1, "PoliciesQuota": 1500,
		"PolicyVersionsInUse": 2, "PolicyVersionsInUseQuota": 10000, "MFADevices": 1, "MFADevicesInUse": 0, "AccountAccessKeysPresent": 1, "AccountMFAEnabled": 0,
		"GlobalEndpointTokenVersion": 2, "AccessKeysPerUserQuota": 2, "PolicySizeQuota": 6144, "AssumeRolePolicySizeQuota": 2048, "Providers": 0, "ServerCertificates": 0} {
		if n, ok := got.SummaryMap[name]; !ok || n != want {
			t.Errorf("%s = %d %v, want %d", name, n, ok, want)
		}
	}
	// All the model knows of.
	for _, name := range types.SummaryKeyType("").Values() {
		if _, ok := got.SummaryMap[string(name)]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestAuthorizationDetails(t *testing.T) {
	w := newWorld(t)
	w.user("bob", allowAll)
	must(t)(w.CreateGroup(w.ctx, &sdk.CreateGroupInput{GroupName: new("crew")}))
	must(t)(w.AddUserToGroup(w.ctx, &sdk.AddUserToGroupInput{GroupName: new("crew"), UserName: new("bob")}))
	must(t)(w.AttachGroupPolicy(w.ctx, &sdk.AttachGroupPolicyInput{GroupName: new("crew"), PolicyArn: new("arn:aws:iam::aws:policy/AmazonECS_FullAccess")}))
	must(t)(w.CreateRole(w.ctx, &sdk.CreateRoleInput{RoleName: new("task"), AssumeRolePolicyDocument: new(trust)}))
	must(t)(w.CreatePolicy(w.ctx, &sdk.CreatePolicyInput{PolicyName: new("mine"), PolicyDocument: new(allowAll)}))
	var users, groups, roles, policies []string
	calls := 0
	pages := sdk.NewGetAccountAuthorizationDetailsPaginator(w, &sdk.GetAccountAuthorizationDetailsInput{MaxItems: new(int32(1))})
	for pages.HasMorePages() {
		calls++
		page, err := pages.NextPage(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page.UserDetailList {
			users = append(users, fmt.Sprint(*u.UserName, len(u.UserPolicyList), u.GroupList))
		}
		for _, g := range page.GroupDetailList {
			groups = append(groups, *g.GroupName+*g.AttachedManagedPolicies[0].PolicyName)
		}
		for _, r := range page.RoleDetailList {
			roles = append(roles, *r.RoleName)
		}
		for _, p := range page.Policies {
			policies = append(policies, fmt.Sprint(*p.PolicyName, *p.AttachmentCount, len(p.PolicyVersionList)))
		}
	}
	got := fmt.Sprint(calls, users, groups, roles, policies)
	if want := "6 [bob1 [crew]] [crewAmazonECS_FullAccess] [node task] [mine0 1 AmazonECS_FullAccess1 1]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	out, err := w.GetAccountAuthorizationDetails(w.ctx, &sdk.GetAccountAuthorizationDetailsInput{Filter: []types.EntityType{"Role"}})
	if err != nil || len(out.RoleDetailList) != 2 || len(out.UserDetailList)+len(out.GroupDetailList)+len(out.Policies) != 0 {
		t.Errorf("filtered %+v %v", out, err)
	}
}

// What an account has counts against its own quotas and nobody else's, and a
// policy is attached in the account that has attached it.
func TestAccountsAreApart(t *testing.T) {
	w := newWorld(t)
	stranger := w.root(other)
	w.quota("iam/groups", 1)
	must(t)(stranger.CreateGroup(w.ctx, &sdk.CreateGroupInput{GroupName: new("a")}))
	must(t)(stranger.CreateGroup(w.ctx, &sdk.CreateGroupInput{GroupName: new("b")}))
	must(t)(w.CreateGroup(w.ctx, &sdk.CreateGroupInput{GroupName: new("a")}))
	refused(t, "LimitExceeded", "Cannot exceed quota for GroupsPerAccount: 1")(w.CreateGroup(w.ctx, &sdk.CreateGroupInput{GroupName: new("b")}))
	theirs, err := stranger.CreatePolicy(w.ctx, &sdk.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(allowAll)})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "NoSuchEntity", "does not exist or is not attachable.")(w.AttachGroupPolicy(w.ctx, &sdk.AttachGroupPolicyInput{GroupName: new("a"), PolicyArn: theirs.Policy.Arn}))
	refused(t, "NoSuchEntity", "")(w.CreateUser(w.ctx, &sdk.CreateUserInput{UserName: new("u"), PermissionsBoundary: theirs.Policy.Arn}))
	ecs := new("arn:aws:iam::aws:policy/AmazonECS_FullAccess")
	must(t)(stranger.AttachGroupPolicy(w.ctx, &sdk.AttachGroupPolicyInput{GroupName: new("a"), PolicyArn: ecs}))
	p, err := w.GetPolicy(w.ctx, &sdk.GetPolicyInput{PolicyArn: ecs})
	if err != nil || *p.Policy.AttachmentCount != 0 {
		t.Errorf("%+v %v", p, err)
	}
	refused(t, "PolicyNotAttachable", "Cannot attach a Service Role Policy to a Customer Role.")(w.AttachGroupPolicy(w.ctx,
		&sdk.AttachGroupPolicyInput{GroupName: new("a"), PolicyArn: new("arn:aws:iam::aws:policy/aws-service-role/AmazonECSServiceRolePolicy")}))
}

func TestRenamedGroup(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", "")
	for _, name := range []string{"crew", "other"} {
		must(t)(w.CreateGroup(w.ctx, &sdk.CreateGroupInput{GroupName: &name}))
		must(t)(w.AddUserToGroup(w.ctx, &sdk.AddUserToGroupInput{GroupName: &name, UserName: new("bob")}))
	}
	must(t)(w.AttachGroupPolicy(w.ctx, &sdk.AttachGroupPolicyInput{GroupName: new("crew"), PolicyArn: new("arn:aws:iam::aws:policy/IAMReadOnlyAccess")}))
	refused(t, "EntityAlreadyExists", "Group with name other already exists.")(w.UpdateGroup(w.ctx, &sdk.UpdateGroupInput{GroupName: new("crew"), NewGroupName: new("other")}))
	must(t)(w.UpdateGroup(w.ctx, &sdk.UpdateGroupInput{GroupName: new("crew"), NewGroupName: new("sailors"), NewPath: new("/ship/")}))
	refused(t, "NoSuchEntity", "The group with name crew cannot be found.")(w.GetGroup(w.ctx, &sdk.GetGroupInput{GroupName: new("crew")}))
	g, err := w.GetGroup(w.ctx, &sdk.GetGroupInput{GroupName: new("sailors")})
	if err != nil || *g.Group.Arn != "arn:aws:iam::000000000000:group/ship/sailors" || len(g.Users) != 1 || *g.Users[0].UserName != "bob" {
		t.Errorf("%+v %v", g, err)
	}
	must(t)(bob.ListUsers(w.ctx, nil)) // by the policy of the group
	must(t)(w.UpdateGroup(w.ctx, &sdk.UpdateGroupInput{GroupName: new("sailors"), NewGroupName: new("Sailors")}))
	must(t)(bob.ListUsers(w.ctx, nil))
}

func TestMarkers(t *testing.T) {
	w := newWorld(t)
	long := ""
	for range 12 {
		long += "0123456789"
	}
	for i := range 4 {
		must(t)(w.CreateUser(w.ctx, &sdk.CreateUserInput{UserName: new(fmt.Sprintf("u%d", i)), Path: new("/a/")}))
		must(t)(w.CreatePolicy(w.ctx, &sdk.CreatePolicyInput{PolicyName: new(fmt.Sprintf("%s%d", long, i)), Path: new("/" + long + long + long + "/"), PolicyDocument: new(allowAll)}))
	}
	first, err := w.ListUsers(w.ctx, &sdk.ListUsersInput{MaxItems: new(int32(1)), PathPrefix: new("/a/")})
	if err != nil || !first.IsTruncated {
		t.Fatalf("%+v %v", first, err)
	}
	refused(t, "ValidationError", "Invalid Marker.")(w.ListUsers(w.ctx, &sdk.ListUsersInput{Marker: first.Marker, PathPrefix: new("/")}))
	refused(t, "ValidationError", "Invalid Marker.")(w.ListRoles(w.ctx, &sdk.ListRolesInput{Marker: first.Marker, PathPrefix: new("/a/")}))
	refused(t, "ValidationError", "Invalid Marker.")(w.root(other).ListUsers(w.ctx, &sdk.ListUsersInput{Marker: first.Marker, PathPrefix: new("/a/")}))
	w.pass(25 * time.Hour)
	refused(t, "ValidationError", "Invalid Marker.")(w.ListUsers(w.ctx, &sdk.ListUsersInput{Marker: first.Marker, PathPrefix: new("/a/")}))
	// Names as long as they may be.
	var names []string
	pages := sdk.NewListPoliciesPaginator(w, &sdk.ListPoliciesInput{Scope: types.PolicyScopeTypeLocal, MaxItems: new(int32(1))})
	for pages.HasMorePages() {
		page, err := pages.NextPage(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page.Policies {
			names = append(names, (*p.PolicyName)[len(long):])
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"0", "1", "2", "3"}) {
		t.Errorf("names %v", names)
	}
}

func TestServiceLinkedRole(t *testing.T) {
	w := newWorld(t)
	made, err := w.CreateServiceLinkedRole(w.ctx, &sdk.CreateServiceLinkedRoleInput{AWSServiceName: new("ecs.amazonaws.com")})
	if err != nil {
		t.Fatal(err)
	}
	attached, err := w.ListAttachedRolePolicies(w.ctx, &sdk.ListAttachedRolePoliciesInput{RoleName: made.Role.RoleName})
	if err != nil || len(attached.AttachedPolicies) != 1 || *attached.AttachedPolicies[0].PolicyArn != "arn:aws:iam::aws:policy/aws-service-role/AmazonECSServiceRolePolicy" {
		t.Errorf("attached %+v %v", attached, err)
	}
	refused(t, "InvalidInput", "Custom suffix is not allowed")(w.CreateServiceLinkedRole(w.ctx, &sdk.CreateServiceLinkedRoleInput{AWSServiceName: new("ecs.amazonaws.com"), CustomSuffix: new("x")}))
	scaling, err := w.CreateServiceLinkedRole(w.ctx, &sdk.CreateServiceLinkedRoleInput{AWSServiceName: new("autoscaling.amazonaws.com"), CustomSuffix: new("x")})
	if err != nil || *scaling.Role.RoleName != "AWSServiceRoleForAutoScaling_x" {
		t.Errorf("%+v %v", scaling, err)
	}
	const arn = "arn:aws:ecs:eu-central-1:000000000000:cluster/c"
	cluster := func(status string) {
		w.put(func(tx *store.Tx) {
			state.Clusters.Put(tx, &state.Cluster{ARN: arn, Account: acct, Name: "c", Status: status})
		})
	}
	cluster("ACTIVE")
	remove := func() *sdk.GetServiceLinkedRoleDeletionStatusOutput {
		t.Helper()
		task, err := w.DeleteServiceLinkedRole(w.ctx, &sdk.DeleteServiceLinkedRoleInput{RoleName: made.Role.RoleName})
		if err != nil {
			t.Fatal(err)
		}
		refused(t, "NoSuchEntity", "")(w.root(other).GetServiceLinkedRoleDeletionStatus(w.ctx, &sdk.GetServiceLinkedRoleDeletionStatusInput{DeletionTaskId: task.DeletionTaskId}))
		out, err := w.GetServiceLinkedRoleDeletionStatus(w.ctx, &sdk.GetServiceLinkedRoleDeletionStatusInput{DeletionTaskId: task.DeletionTaskId})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := remove(); out.Status != types.DeletionTaskStatusTypeFailed || *out.Reason.RoleUsageList[0].Region != region || out.Reason.RoleUsageList[0].Resources[0] != arn {
		t.Errorf("in use: %+v", out)
	}
	must(t)(w.GetRole(w.ctx, &sdk.GetRoleInput{RoleName: made.Role.RoleName}))
	cluster("INACTIVE")
	if out := remove(); out.Status != types.DeletionTaskStatusTypeSucceeded {
		t.Errorf("unused: %+v", out)
	}
	refused(t, "NoSuchEntity", "")(w.GetRole(w.ctx, &sdk.GetRoleInput{RoleName: made.Role.RoleName}))
	refused(t, "NoSuchEntity", "")(w.GetServiceLinkedRoleDeletionStatus(w.ctx, &sdk.GetServiceLinkedRoleDeletionStatusInput{
		DeletionTaskId: new("task/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS/00000000-0000-4000-8000-000000000000")}))
}

// Condition keys that IAM's own operations have.
func TestConditionKeys(t *testing.T) {
	w := newWorld(t)
	allow := func(action, condition string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"` + action + `","Resource":"*","Condition":` + condition + `}]}`
	}
	const boundary = "arn:aws:iam::aws:policy/PowerUserAccess"
	must(t)(w.CreateRole(w.ctx, &sdk.CreateRoleInput{RoleName: new("free"), AssumeRolePolicyDocument: new(trust)}))
	must(t)(w.CreateRole(w.ctx, &sdk.CreateRoleInput{RoleName: new("bound"), AssumeRolePolicyDocument: new(trust), PermissionsBoundary: new(boundary)}))
	delegate := w.user("delegate", allow("iam:*", `{"StringEquals":{"iam:PermissionsBoundary":"`+boundary+`"}}`))
	refused(t, "AccessDenied", "iam:AttachRolePolicy")(delegate.AttachRolePolicy(w.ctx, &sdk.AttachRolePolicyInput{RoleName: new("free"), PolicyArn: new(boundary)}))
	must(t)(delegate.AttachRolePolicy(w.ctx, &sdk.AttachRolePolicyInput{RoleName: new("bound"), PolicyArn: new(boundary)}))
	must(t)(delegate.CreateRole(w.ctx, &sdk.CreateRoleInput{RoleName: new("made"), AssumeRolePolicyDocument: new(trust), PermissionsBoundary: new(boundary)}))
	refused(t, "AccessDenied", "iam:CreateRole")(delegate.CreateRole(w.ctx, &sdk.CreateRoleInput{RoleName: new("more"), AssumeRolePolicyDocument: new(trust)}))

	attacher := w.user("attacher", allow("iam:AttachRolePolicy", `{"ArnEquals":{"iam:PolicyARN":"arn:aws:iam::aws:policy/AmazonECS*"}}`))
	refused(t, "AccessDenied", "")(attacher.AttachRolePolicy(w.ctx, &sdk.AttachRolePolicyInput{RoleName: new("free"), PolicyArn: new(boundary)}))
	must(t)(attacher.AttachRolePolicy(w.ctx, &sdk.AttachRolePolicyInput{RoleName: new("free"), PolicyArn: new("arn:aws:iam::aws:policy/AmazonECS_FullAccess")}))

	linker := w.user("linker", allow("iam:CreateServiceLinkedRole", `{"StringEquals":{"iam:AWSServiceName":"ecs.amazonaws.com"}}`))
	refused(t, "AccessDenied", "")(linker.CreateServiceLinkedRole(w.ctx, &sdk.CreateServiceLinkedRoleInput{AWSServiceName: new("spot.amazonaws.com")}))
	must(t)(linker.CreateServiceLinkedRole(w.ctx, &sdk.CreateServiceLinkedRoleInput{AWSServiceName: new("ecs.amazonaws.com")}))

	tagger := w.user("tagger", allow("iam:*OpenIDConnectProvider", `{"StringEquals":{"aws:RequestTag/team":"a"}}`))
	provider := func(team string) *sdk.CreateOpenIDConnectProviderInput {
		return &sdk.CreateOpenIDConnectProviderInput{Url: new("https://idp.example.com"), Tags: []types.Tag{{Key: new("team"), Value: &team}}}
	}
	refused(t, "AccessDenied", "iam:CreateOpenIDConnectProvider on resource: arn:aws:iam::000000000000:oidc-provider/idp.example.com")(tagger.CreateOpenIDConnectProvider(w.ctx, provider("b")))
	must(t)(tagger.CreateOpenIDConnectProvider(w.ctx, provider("a")))
	reader := w.user("reader", allow("iam:GetOpenIDConnectProvider", `{"StringEquals":{"aws:ResourceTag/team":"a"}}`))
	must(t)(reader.GetOpenIDConnectProvider(w.ctx, &sdk.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: new("arn:aws:iam::000000000000:oidc-provider/idp.example.com")}))
}

func TestOrganizations(t *testing.T) {
	w := newWorld(t)
	refused(t, "OrganizationNotFoundException", "not a member of an organization")(w.ListOrganizationsFeatures(w.ctx, nil))
	refused(t, "FeatureDisabled", "")(w.GetOutboundWebIdentityFederationInfo(w.ctx, nil))
	refused(t, "UnsupportedOperation", "EnableOutboundWebIdentityFederation")(w.EnableOutboundWebIdentityFederation(w.ctx, nil))
	if list, err := w.ListDelegationRequests(w.ctx, nil); err != nil || len(list.DelegationRequests) != 0 {
		t.Errorf("%+v %v", list, err)
	}
	refused(t, "NoSuchEntity", "")(w.GetDelegationRequest(w.ctx, &sdk.GetDelegationRequestInput{DelegationRequestId: new("0123456789abcdef")}))
}
