package iam

import (
	"context"
	"reflect"
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
		AttachUserPolicy DetachUserPolicy ListAttachedUserPolicies TagUser UntagUser ListUserTags`
	roleOperations = `GetRole UpdateRole UpdateRoleDescription DeleteRole UpdateAssumeRolePolicy PutRolePermissionsBoundary
		DeleteRolePermissionsBoundary PutRolePolicy GetRolePolicy ListRolePolicies DeleteRolePolicy AttachRolePolicy DetachRolePolicy
		ListAttachedRolePolicies TagRole UntagRole ListRoleTags DeleteServiceLinkedRole ListInstanceProfilesForRole`
	groupOperations = `GetGroup DeleteGroup AddUserToGroup RemoveUserFromGroup PutGroupPolicy GetGroupPolicy ListGroupPolicies
		DeleteGroupPolicy AttachGroupPolicy DetachGroupPolicy ListAttachedGroupPolicies`
	policyOperations = `GetPolicy DeletePolicy CreatePolicyVersion GetPolicyVersion ListPolicyVersions SetDefaultPolicyVersion
		DeletePolicyVersion ListEntitiesForPolicy TagPolicy UntagPolicy ListPolicyTags`
	profileOperations = `GetInstanceProfile DeleteInstanceProfile RemoveRoleFromInstanceProfile TagInstanceProfile
		UntagInstanceProfile ListInstanceProfileTags`
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

	create := func(op, kind, field string) {
		all[op] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
			path := text(in, "Path")
			if path == "" {
				path = "/"
			}
			arn := "arn:aws:iam::" + c.Account + ":" + kind + path + text(in, field)
			keys := requestKeys(in)
			checks := []auth.Check{{Action: "iam:" + op, Resource: arn, Keys: keys}}
			if keys["aws:TagKeys"] != nil {
				checks = append(checks, auth.Check{Action: "iam:Tag" + strings.TrimPrefix(op, "Create"), Resource: arn, Keys: keys})
			}
			return checks
		}
	}
	create("CreateUser", "user", "UserName")
	create("CreateRole", "role", "RoleName")
	create("CreateGroup", "group", "GroupName")
	create("CreatePolicy", "policy", "PolicyName")
	create("CreateInstanceProfile", "instance-profile", "InstanceProfileName")

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
		return []auth.Check{{Action: "iam:CreateServiceLinkedRole", Keys: map[string][]string{"iam:AWSServiceName": {service}},
			Resource: "arn:aws:iam::" + c.Account + ":role" + servicePath + service + "/" + linkedRoles[service].name}}
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

// existing is the check of an operation on something that may be there: then
// its path and tags count.
func existing(r store.Reader, c *auth.Caller, op, kind, name string, in any) auth.Check {
	check := auth.Check{Action: "iam:" + op, Resource: "arn:aws:iam::" + c.Account + ":" + kind + "/" + name, Keys: requestKeys(in)}
	var tags []state.Tag
	switch kind {
	case "user":
		if name == "" { // the caller itself
			name, check.Resource = c.Name, c.ARN
			if c.Kind != auth.User {
				break
			}
		}
		if u, err := user(r, c.Account, name); err == nil {
			check.Resource, tags = u.ARN(), u.Tags
		}
	case "role":
		if x, err := role(r, c.Account, name); err == nil {
			check.Resource, tags = x.ARN(), x.Tags
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

// requestKeys are the condition keys that the request itself gives.
func requestKeys(in any) map[string][]string {
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
	if arn := text(in, "PolicyArn"); arn != "" {
		keys["iam:PolicyARN"] = []string{arn}
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
