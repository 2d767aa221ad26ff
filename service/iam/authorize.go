package iam

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"strconv"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// The operations by the resource they act on. What is in no list acts on *.
const (
	userOperations = `GetUser UpdateUser DeleteUser PutUserPermissionsBoundary DeleteUserPermissionsBoundary ListGroupsForUser
		CreateAccessKey ListAccessKeys UpdateAccessKey DeleteAccessKey PutUserPolicy GetUserPolicy ListUserPolicies DeleteUserPolicy
		AttachUserPolicy DetachUserPolicy ListAttachedUserPolicies TagUser UntagUser ListUserTags
		CreateLoginProfile GetLoginProfile UpdateLoginProfile DeleteLoginProfile
		EnableMFADevice DeactivateMFADevice ResyncMFADevice ListMFADevices GetMFADevice
		UploadSigningCertificate UpdateSigningCertificate DeleteSigningCertificate ListSigningCertificates
		UploadSSHPublicKey GetSSHPublicKey UpdateSSHPublicKey DeleteSSHPublicKey ListSSHPublicKeys
		CreateServiceSpecificCredential ListServiceSpecificCredentials ResetServiceSpecificCredential
		UpdateServiceSpecificCredential DeleteServiceSpecificCredential`
	roleOperations = `GetRole UpdateRole UpdateRoleDescription DeleteRole UpdateAssumeRolePolicy PutRolePermissionsBoundary
		DeleteRolePermissionsBoundary PutRolePolicy GetRolePolicy ListRolePolicies DeleteRolePolicy AttachRolePolicy DetachRolePolicy
		ListAttachedRolePolicies TagRole UntagRole ListRoleTags ListInstanceProfilesForRole`
	groupOperations = `GetGroup UpdateGroup DeleteGroup AddUserToGroup RemoveUserFromGroup PutGroupPolicy GetGroupPolicy ListGroupPolicies
		DeleteGroupPolicy AttachGroupPolicy DetachGroupPolicy ListAttachedGroupPolicies`
	policyOperations = `GetPolicy DeletePolicy CreatePolicyVersion GetPolicyVersion ListPolicyVersions SetDefaultPolicyVersion
		DeletePolicyVersion ListEntitiesForPolicy TagPolicy UntagPolicy ListPolicyTags`
	profileOperations = `GetInstanceProfile DeleteInstanceProfile RemoveRoleFromInstanceProfile TagInstanceProfile
		UntagInstanceProfile ListInstanceProfileTags`
	oidcOperations = `GetOpenIDConnectProvider DeleteOpenIDConnectProvider AddClientIDToOpenIDConnectProvider
		RemoveClientIDFromOpenIDConnectProvider UpdateOpenIDConnectProviderThumbprint TagOpenIDConnectProvider
		UntagOpenIDConnectProvider ListOpenIDConnectProviderTags`
	samlOperations   = `GetSAMLProvider UpdateSAMLProvider DeleteSAMLProvider TagSAMLProvider UntagSAMLProvider ListSAMLProviderTags`
	deviceOperations = `DeleteVirtualMFADevice TagMFADevice UntagMFADevice ListMFADeviceTags`
	serverOperations = `GetServerCertificate UpdateServerCertificate DeleteServerCertificate TagServerCertificate
		UntagServerCertificate ListServerCertificateTags`
	// The table has no UpdateDelegationRequest, but the API does.
	delegationOperations = `AcceptDelegationRequest AssociateDelegationRequest GetDelegationRequest RejectDelegationRequest
		SendDelegationToken UpdateDelegationRequest`
	// entityOperations are about any user, group, role or policy.
	entityOperations = `GenerateServiceLastAccessedDetails ListPoliciesGrantingServiceAccess`
)

type authorize = func(ctx context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check

// Authorize says what each operation must be allowed.
func (s *Service) Authorize() map[string]authorize {
	all := map[string]authorize{}
	add := func(operations, kind, field string) {
		for op := range strings.FieldsSeq(operations) {
			all[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
				return []auth.Check{existing(r, c, op, kind, text(in, field), in)}
			}
		}
	}
	add(userOperations, "user", "UserName")
	add(roleOperations, "role", "RoleName")
	add(groupOperations, "group", "GroupName")
	add(policyOperations, "policy", "PolicyArn")
	add(profileOperations, "instance-profile", "InstanceProfileName")
	add(oidcOperations, "oidc-provider", "OpenIDConnectProviderArn")
	add(samlOperations, "saml-provider", "SAMLProviderArn")
	add(deviceOperations, "mfa", "SerialNumber")
	add(serverOperations, "server-certificate", "ServerCertificateName")
	add(entityOperations, "entity", "Arn")

	create := func(op, kind, field, tag string) {
		all[op] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
			path := text(in, "Path")
			if path == "" {
				path = "/"
			}
			arn := "arn:aws:iam::" + c.Account + ":" + kind + path + strings.TrimPrefix(text(in, field), "https://")
			keys := requestKeys(op, in)
			checks := []auth.Check{{Action: "iam:" + op, Resource: arn, Keys: keys}}
			if keys["aws:TagKeys"] != nil {
				tagging := maps.Clone(keys)
				delete(tagging, "iam:PermissionsBoundary")
				checks = append(checks, auth.Check{Action: "iam:Tag" + tag, Resource: arn, Keys: tagging})
			}
			return checks
		}
	}
	create("CreateUser", "user", "UserName", "User")
	create("CreateRole", "role", "RoleName", "Role")
	create("CreateGroup", "group", "GroupName", "")
	create("CreatePolicy", "policy", "PolicyName", "Policy")
	create("CreateInstanceProfile", "instance-profile", "InstanceProfileName", "InstanceProfile")
	create("CreateOpenIDConnectProvider", "oidc-provider", "Url", "OpenIDConnectProvider")
	create("CreateSAMLProvider", "saml-provider", "Name", "SAMLProvider")
	create("CreateVirtualMFADevice", "mfa", "VirtualMFADeviceName", "MFADevice")
	create("UploadServerCertificate", "server-certificate", "ServerCertificateName", "ServerCertificate")

	list := func(op, kind string) {
		all[op] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
			prefix := text(in, "PathPrefix")
			if prefix == "" {
				prefix = "/"
			}
			return []auth.Check{{Action: "iam:" + op, Resource: "arn:aws:iam::" + c.Account + ":" + kind + prefix}}
		}
	}
	list("ListUsers", "user")
	list("ListRoles", "role")
	list("ListGroups", "group")
	list("ListInstanceProfiles", "instance-profile")

	all["CreateServiceLinkedRole"] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
		service := text(in, "AWSServiceName")
		name := linkedRoles[service].name
		if suffix := text(in, "CustomSuffix"); suffix != "" {
			name += "_" + suffix
		}
		return []auth.Check{{Action: "iam:CreateServiceLinkedRole", Keys: map[string][]string{"iam:AWSServiceName": {service}},
			Resource: "arn:aws:iam::" + c.Account + ":role" + servicePath + service + "/" + name}}
	}
	all["DeleteServiceLinkedRole"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		return []auth.Check{linked(existing(r, c, "DeleteServiceLinkedRole", "role", text(in, "RoleName"), in))}
	}
	all["GetServiceLinkedRoleDeletionStatus"] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
		role := servicePath + "*"
		if part := strings.Split(text(in, "DeletionTaskId"), "/"); len(part) == 5 {
			role = servicePath + part[2] + "/" + part[3]
		}
		return []auth.Check{linked(auth.Check{Action: "iam:GetServiceLinkedRoleDeletionStatus",
			Resource: "arn:aws:iam::" + c.Account + ":role" + role, Keys: map[string][]string{}})}
	}
	// The account's password policy may let every user change its own password.
	all["ChangePassword"] = func(_ context.Context, r store.Reader, c *auth.Caller, _ any) []auth.Check {
		return []auth.Check{ownPassword(r, c, auth.Check{Action: "iam:ChangePassword", Resource: c.ARN})}
	}
	all["GetAccountPasswordPolicy"] = func(_ context.Context, r store.Reader, c *auth.Caller, _ any) []auth.Check {
		return []auth.Check{ownPassword(r, c, auth.Check{Action: "iam:GetAccountPasswordPolicy", Resource: "*"})}
	}
	all["GetAccessKeyLastUsed"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		check := auth.Check{Action: "iam:GetAccessKeyLastUsed", Resource: "arn:aws:iam::" + c.Account + ":user/*"}
		if k, ok := state.AccessKeys.Get(r, text(in, "AccessKeyId")); ok && k.Account == c.Account {
			if k.User == "" {
				check.Resource = "arn:aws:iam::" + c.Account + ":root"
			} else {
				check = existing(r, c, "GetAccessKeyLastUsed", "user", k.User, in)
			}
		}
		return []auth.Check{check}
	}
	delegation := func(op, field string) {
		all[op] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
			return []auth.Check{{Action: "iam:" + op, Resource: "arn:aws:iam::" + c.Account + ":delegation-request/" + cmp.Or(text(in, field), "*")}}
		}
	}
	for op := range strings.FieldsSeq(delegationOperations) {
		delegation(op, "DelegationRequestId")
	}
	delegation("CreateDelegationRequest", "")
	all["GetHumanReadableSummary"] = func(_ context.Context, _ store.Reader, _ *auth.Caller, in any) []auth.Check {
		return []auth.Check{{Action: "iam:GetHumanReadableSummary", Resource: text(in, "EntityArn")}}
	}
	all["GenerateOrganizationsAccessReport"] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
		check := auth.Check{Action: "iam:GenerateOrganizationsAccessReport", Keys: map[string][]string{},
			Resource: "arn:aws:iam::" + c.Account + ":access-report/" + text(in, "EntityPath")}
		if id := text(in, "OrganizationsPolicyId"); id != "" {
			check.Keys["iam:OrganizationsPolicyId"] = []string{id}
		}
		return []auth.Check{check}
	}
	for _, op := range []string{"SimulatePrincipalPolicy", "GetContextKeysForPrincipalPolicy"} {
		all[op] = simulateChecks(op)
	}
	all["AddRoleToInstanceProfile"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		pass := existing(r, c, "PassRole", "role", text(in, "RoleName"), in)
		pass.Keys["iam:PassedToService"] = []string{"ec2.amazonaws.com"}
		return []auth.Check{existing(r, c, "AddRoleToInstanceProfile", "instance-profile", text(in, "InstanceProfileName"), in), pass}
	}
	return all
}

// linked adds the service of a service-linked role to a check.
func linked(check auth.Check) auth.Check {
	_, path, _ := strings.Cut(check.Resource, ":role"+servicePath)
	if service, _, ok := strings.Cut(path, "/"); ok {
		check.Keys["iam:AWSServiceName"] = []string{service}
	}
	return check
}

// ownPassword lets a user do what the account's password policy lets all users
// do. Whatever denies it still denies it.
func ownPassword(r store.Reader, c *auth.Caller, check auth.Check) auth.Check {
	if p := passwordPolicy(r, c.Account); p == nil || !p.UsersMayChange || c.Kind != auth.User {
		return check
	}
	arn, _ := json.Marshal(c.ARN) // a path may hold quotes
	check.Policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":` + string(arn) + `},"Action":"` + check.Action + `","Resource":"*"}]}`
	return check
}

// existing is the check of an operation on something that may be there: then
// its path and tags count.
func existing(r store.Reader, c *auth.Caller, op, kind, name string, in any) auth.Check {
	check := auth.Check{Action: "iam:" + op, Resource: "arn:aws:iam::" + c.Account + ":" + kind + "/" + name, Keys: requestKeys(op, in)}
	var tags []state.Tag
	switch kind {
	case "oidc-provider", "saml-provider", "mfa", "entity":
		if strings.HasPrefix(name, "arn:") {
			check.Resource = name
		}
		switch kind {
		case "oidc-provider":
			if p, err := oidcProvider(r, c.Account, name); err == nil {
				tags = p.Tags
			}
		case "saml-provider":
			if p, err := samlProvider(r, c.Account, name); err == nil {
				tags = p.Tags
			}
		case "mfa":
			if d, err := device(r, c.Account, name); err == nil {
				tags = d.Tags
			}
		}
	case "server-certificate":
		if x, err := serverCertificate(r, c.Account, name); err == nil {
			check.Resource, tags = x.ARN(), x.Tags
		}
	case "user":
		if name == "" { // the caller itself
			name, check.Resource = c.Name, c.ARN
			if c.Kind != auth.User {
				break
			}
		}
		if u, err := user(r, c.Account, name); err == nil {
			check.Resource, tags = u.ARN(), u.Tags
			limited(check, op, u.Boundary)
		}
	case "role":
		if x, err := role(r, c.Account, name); err == nil {
			check.Resource, tags = x.ARN(), x.Tags
			limited(check, op, x.Boundary)
		}
	case "group":
		if g, err := group(r, c.Account, name); err == nil {
			check.Resource = g.ARN()
		}
	case "instance-profile":
		if p, err := profile(r, c.Account, name); err == nil {
			check.Resource, tags = p.ARN(), p.Tags
		}
	case "policy":
		check.Resource = name
		if p, err := customerPolicy(r, c.Account, name); err == nil {
			tags = p.Tags
		}
	}
	for _, t := range tags {
		check.Keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
		check.Keys["iam:ResourceTag/"+t.Key] = []string{t.Value}
	}
	return check
}

// limited adds the boundary that a user or role has to a check of an operation
// that changes its policies. Those that set a boundary have it from the request.
func limited(check auth.Check, op, boundary string) {
	switch op {
	case "AttachUserPolicy", "DetachUserPolicy", "PutUserPolicy", "DeleteUserPolicy", "DeleteUserPermissionsBoundary",
		"AttachRolePolicy", "DetachRolePolicy", "PutRolePolicy", "DeleteRolePolicy", "DeleteRolePermissionsBoundary":
		if boundary != "" {
			check.Keys["iam:PermissionsBoundary"] = []string{boundary}
		}
	}
}

// requestKeys are the condition keys that the request itself gives.
func requestKeys(op string, in any) map[string][]string {
	keys := map[string][]string{}
	v := reflect.ValueOf(in).Elem()
	if f := v.FieldByName("Tags"); f.IsValid() && f.Len() > 0 {
		for _, t := range f.Interface().([]api.Tag) {
			keys["aws:RequestTag/"+wire.Value(t.Key)] = []string{wire.Value(t.Value)}
			keys["aws:TagKeys"] = append(keys["aws:TagKeys"], wire.Value(t.Key))
		}
	}
	if f := v.FieldByName("TagKeys"); f.IsValid() && f.Len() > 0 {
		keys["aws:TagKeys"] = f.Interface().([]string)
	}
	// Of what is about a policy itself, the policy is the resource and no key.
	if arn := text(in, "PolicyArn"); arn != "" && (strings.HasPrefix(op, "Attach") || strings.HasPrefix(op, "Detach")) {
		keys["iam:PolicyARN"] = []string{arn}
	}
	if name := text(in, "ServiceName"); name != "" && op == "CreateServiceSpecificCredential" {
		keys["iam:ServiceSpecificCredentialServiceName"] = []string{name}
	}
	if f := v.FieldByName("CredentialAgeDays"); f.IsValid() && !f.IsNil() {
		keys["iam:ServiceSpecificCredentialAgeDays"] = []string{strconv.Itoa(int(f.Elem().Int()))}
	}
	if arn := text(in, "PermissionsBoundary"); arn != "" {
		keys["iam:PermissionsBoundary"] = []string{arn}
	}
	return keys
}

// text is the value of a member of an input, "" if it is absent.
func text(in any, member string) string {
	f := reflect.ValueOf(in).Elem().FieldByName(member)
	if !f.IsValid() {
		return ""
	}
	p, _ := f.Interface().(*string)
	return wire.Value(p)
}
