package sdk

import (
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// text is a document as it was sent; IAM answers it encoded as for a URL.
func text(t *testing.T, document *string) string {
	t.Helper()
	return must[string](t)(url.QueryUnescape(*document))
}

// given demands what IAM gives a resource: an id, a date.
func given(t *testing.T, id *string, prefix string, date any) {
	t.Helper()
	if id == nil || !strings.HasPrefix(*id, prefix) || date == nil {
		t.Errorf("id %v, date %v", id, date)
	}
}

func twoTags() []types.Tag {
	return []types.Tag{{Key: new("app"), Value: new("a")}, {Key: new("zone"), Value: new("b")}}
}

// The white space of a document is its author's.
const spaced = "{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [ { \"Sid\": \"Z\", \"Effect\": \"Allow\", \"Action\": [\"ecs:RunTask\", \"ecs:DescribeTasks\"], \"Resource\": \"*\" } ]\n}"

func TestTerraformRole(t *testing.T) {
	t.Parallel()
	c, ctx := w.iam, t.Context()
	name := new("tf-role")
	arn := new("arn:aws:iam::" + w.Account + ":role/team/tf-role")
	boundary := new("arn:aws:iam::aws:policy/ReadOnlyAccess")
	trust := strings.ReplaceAll(trustTasks, ",", ",\n ")
	r := resource{func() (any, error) {
		out, err := c.GetRole(ctx, &iam.GetRoleInput{RoleName: name})
		if err != nil {
			return nil, err
		}
		role := *out.Role
		given(t, role.RoleId, "AROA", role.CreateDate)
		role.RoleId, role.CreateDate, role.RoleLastUsed = nil, nil, nil
		role.AssumeRolePolicyDocument = new(text(t, role.AssumeRolePolicyDocument))
		return role, nil
	}, "NoSuchEntity"}
	r.isGone(t)
	done(t)(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, Path: new("/team/"), Description: new("for tasks"), MaxSessionDuration: new(int32(7200)),
		AssumeRolePolicyDocument: &trust, PermissionsBoundary: boundary, Tags: twoTags()}))
	want := types.Role{RoleName: name, Path: new("/team/"), Arn: arn, Description: new("for tasks"), MaxSessionDuration: new(int32(7200)), AssumeRolePolicyDocument: &trust, Tags: twoTags(),
		PermissionsBoundary: &types.AttachedPermissionsBoundary{PermissionsBoundaryArn: boundary, PermissionsBoundaryType: types.PermissionsBoundaryAttachmentTypePolicy}}
	r.same(t, want)

	done(t)(c.UpdateRole(ctx, &iam.UpdateRoleInput{RoleName: name, Description: new("for all"), MaxSessionDuration: new(int32(3600))}))
	done(t)(c.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: new(trustTasks)}))
	done(t)(c.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: name}))
	done(t)(c.UntagRole(ctx, &iam.UntagRoleInput{RoleName: name, TagKeys: []string{"zone"}}))
	want.Description, want.MaxSessionDuration, want.AssumeRolePolicyDocument, want.PermissionsBoundary, want.Tags = new("for all"), new(int32(3600)), new(trustTasks), nil, twoTags()[:1]
	r.same(t, want)

	// aws_iam_role_policy
	inline := resource{func() (any, error) {
		out, err := c.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: name, PolicyName: new("inline")})
		if err != nil {
			return nil, err
		}
		return text(t, out.PolicyDocument), nil
	}, "NoSuchEntity"}
	inline.isGone(t)
	done(t)(c.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: new("inline"), PolicyDocument: new(spaced)}))
	inline.same(t, spaced)
	done(t)(c.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: new("inline")}))
	inline.isGone(t)

	// aws_iam_role_policy_attachment
	attached := resource{func() (any, error) {
		out, err := c.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: name})
		if err != nil {
			return nil, err
		}
		return out.AttachedPolicies, nil
	}, "NoSuchEntity"}
	attached.same(t, []types.AttachedPolicy{})
	managed := []types.AttachedPolicy{}
	for _, p := range []string{"AmazonECSTaskExecutionRolePolicy", "AmazonEC2ContainerServiceforEC2Role"} {
		a := types.AttachedPolicy{PolicyName: new(p), PolicyArn: new("arn:aws:iam::aws:policy/service-role/" + p)}
		done(t)(c.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: name, PolicyArn: a.PolicyArn}))
		managed = append(managed, a)
	}
	if got := attached.text(t); got != encode(t, managed) && got != encode(t, []types.AttachedPolicy{managed[1], managed[0]}) || got != attached.text(t) {
		t.Errorf("attached %s", got)
	}
	if _, err := c.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name}); codeOf(err) != "DeleteConflict" {
		t.Errorf("delete with policies: %v", err)
	}
	for _, a := range managed {
		done(t)(c.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: name, PolicyArn: a.PolicyArn}))
		if _, err := c.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: name, PolicyArn: a.PolicyArn}); codeOf(err) != "NoSuchEntity" {
			t.Errorf("detach twice: %v", err)
		}
	}
	done(t)(c.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name}))
	r.isGone(t)
	attached.isGone(t)

	// With nothing said.
	done(t)(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: new(trustTasks)}))
	r.same(t, types.Role{RoleName: name, Path: new("/"), Arn: new("arn:aws:iam::" + w.Account + ":role/tf-role"), MaxSessionDuration: new(int32(3600)), AssumeRolePolicyDocument: new(trustTasks)})
	done(t)(c.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name}))
}

func TestTerraformPolicy(t *testing.T) {
	t.Parallel()
	c, ctx := w.iam, t.Context()
	arn := new("arn:aws:iam::" + w.Account + ":policy/team/tf-policy")
	r := resource{func() (any, error) {
		out, err := c.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: arn})
		if err != nil {
			return nil, err
		}
		p := *out.Policy
		given(t, p.PolicyId, "ANPA", p.CreateDate)
		p.PolicyId, p.CreateDate, p.UpdateDate = nil, nil, nil
		return p, nil
	}, "NoSuchEntity"}
	document := resource{func() (any, error) {
		p, err := c.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: arn})
		if err != nil {
			return nil, err
		}
		v, err := c.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: arn, VersionId: p.Policy.DefaultVersionId})
		if err != nil {
			return nil, err
		}
		return text(t, v.PolicyVersion.Document), nil
	}, "NoSuchEntity"}
	r.isGone(t)
	done(t)(c.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: new("tf-policy"), Path: new("/team/"), Description: new("for tasks"), PolicyDocument: new(spaced), Tags: twoTags()}))
	want := types.Policy{PolicyName: new("tf-policy"), Arn: arn, Path: new("/team/"), Description: new("for tasks"), Tags: twoTags(), DefaultVersionId: new("v1"),
		AttachmentCount: new(int32(0)), PermissionsBoundaryUsageCount: new(int32(0)), IsAttachable: true}
	r.same(t, want)
	document.same(t, spaced)
	done(t)(c.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: arn, PolicyDocument: new(allowNothing), SetAsDefault: true}))
	want.DefaultVersionId = new("v2")
	r.same(t, want)
	document.same(t, allowNothing)
	done(t)(c.DeletePolicyVersion(ctx, &iam.DeletePolicyVersionInput{PolicyArn: arn, VersionId: new("v1")}))
	done(t)(c.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: arn}))
	r.isGone(t)
	document.isGone(t)

	// With nothing said.
	arn = new("arn:aws:iam::" + w.Account + ":policy/tf-least")
	done(t)(c.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: new("tf-least"), PolicyDocument: new(allowNothing)}))
	r.same(t, types.Policy{PolicyName: new("tf-least"), Arn: arn, Path: new("/"), DefaultVersionId: new("v1"), AttachmentCount: new(int32(0)), PermissionsBoundaryUsageCount: new(int32(0)), IsAttachable: true})
	done(t)(c.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: arn}))
}

func TestTerraformInstanceProfile(t *testing.T) {
	t.Parallel()
	c, ctx := w.iam, t.Context()
	name := new("tf-profile")
	done(t)(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: new(trustTasks)}))
	r := resource{func() (any, error) {
		out, err := c.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: name})
		if err != nil {
			return nil, err
		}
		p := *out.InstanceProfile
		given(t, p.InstanceProfileId, "AIPA", p.CreateDate)
		p.InstanceProfileId, p.CreateDate = nil, nil
		roles := []types.Role{}
		for _, role := range p.Roles {
			roles = append(roles, types.Role{RoleName: role.RoleName, Arn: role.Arn})
		}
		p.Roles = roles
		return p, nil
	}, "NoSuchEntity"}
	r.isGone(t)
	done(t)(c.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: name, Path: new("/team/"), Tags: twoTags()}))
	want := types.InstanceProfile{InstanceProfileName: name, Path: new("/team/"), Arn: new("arn:aws:iam::" + w.Account + ":instance-profile/team/tf-profile"), Roles: []types.Role{}, Tags: twoTags()}
	r.same(t, want)
	done(t)(c.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: name}))
	want.Roles = []types.Role{{RoleName: name, Arn: new("arn:aws:iam::" + w.Account + ":role/tf-profile")}}
	r.same(t, want)
	done(t)(c.TagInstanceProfile(ctx, &iam.TagInstanceProfileInput{InstanceProfileName: name, Tags: []types.Tag{{Key: new("app"), Value: new("z")}}}))
	want.Tags[0].Value = new("z")
	r.same(t, want)
	done(t)(c.RemoveRoleFromInstanceProfile(ctx, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: name, RoleName: name}))
	done(t)(c.DeleteInstanceProfile(ctx, &iam.DeleteInstanceProfileInput{InstanceProfileName: name}))
	r.isGone(t)

	// With nothing said.
	done(t)(c.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: name}))
	r.same(t, types.InstanceProfile{InstanceProfileName: name, Path: new("/"), Arn: new("arn:aws:iam::" + w.Account + ":instance-profile/tf-profile"), Roles: []types.Role{}})
}

func TestTerraformOpenIDConnectProvider(t *testing.T) {
	t.Parallel()
	c, ctx := w.iam, t.Context()
	arn := new("arn:aws:iam::" + w.Account + ":oidc-provider/tf.example.com/path")
	r := resource{func() (any, error) {
		out, err := c.GetOpenIDConnectProvider(ctx, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn})
		if err == nil {
			given(t, out.Url, "", out.CreateDate)
			out.CreateDate = nil
		}
		return out, err
	}, "NoSuchEntity"}
	r.isGone(t)
	prints := []string{strings.Repeat("b", 40), strings.Repeat("a", 40)}
	made := must[*iam.CreateOpenIDConnectProviderOutput](t)(c.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: new("https://tf.example.com/path"),
		ClientIDList: []string{"sts.amazonaws.com", "another"}, ThumbprintList: prints, Tags: twoTags()}))
	if *made.OpenIDConnectProviderArn != *arn {
		t.Errorf("ARN %s", *made.OpenIDConnectProviderArn)
	}
	want := iam.GetOpenIDConnectProviderOutput{Url: new("tf.example.com/path"), ClientIDList: []string{"sts.amazonaws.com", "another"}, ThumbprintList: prints, Tags: twoTags()}
	r.same(t, want)
	done(t)(c.UpdateOpenIDConnectProviderThumbprint(ctx, &iam.UpdateOpenIDConnectProviderThumbprintInput{OpenIDConnectProviderArn: arn, ThumbprintList: prints[:1]}))
	done(t)(c.RemoveClientIDFromOpenIDConnectProvider(ctx, &iam.RemoveClientIDFromOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn, ClientID: new("another")}))
	want.ThumbprintList, want.ClientIDList = prints[:1], want.ClientIDList[:1]
	r.same(t, want)
	done(t)(c.DeleteOpenIDConnectProvider(ctx, &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn}))
	r.isGone(t)
}
