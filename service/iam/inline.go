package iam

import (
	"context"

	api "github.com/berth-run/berth/aws/iam"
)

// PutUserPolicy adds an inline policy to a user, or replaces it.
func (s *Service) PutUserPolicy(ctx context.Context, in *api.PutUserPolicyInput) (*api.PutUserPolicyOutput, error) {
	return &api.PutUserPolicyOutput{}, s.putInline(ctx, ofUser(in.UserName), in.PolicyName, in.PolicyDocument)
}

// GetUserPolicy shows an inline policy of a user.
func (s *Service) GetUserPolicy(ctx context.Context, in *api.GetUserPolicyInput) (*api.GetUserPolicyOutput, error) {
	name, document, err := s.getInline(ctx, ofUser(in.UserName), in.PolicyName)
	return &api.GetUserPolicyOutput{UserName: name, PolicyName: in.PolicyName, PolicyDocument: document}, err
}

// ListUserPolicies lists the names of a user's inline policies.
func (s *Service) ListUserPolicies(ctx context.Context, in *api.ListUserPoliciesInput) (*api.ListUserPoliciesOutput, error) {
	names, more, marker, err := s.listInline(ctx, ofUser(in.UserName), in)
	return &api.ListUserPoliciesOutput{PolicyNames: names, IsTruncated: more, Marker: marker}, err
}

// DeleteUserPolicy removes an inline policy from a user.
func (s *Service) DeleteUserPolicy(ctx context.Context, in *api.DeleteUserPolicyInput) (*api.DeleteUserPolicyOutput, error) {
	return &api.DeleteUserPolicyOutput{}, s.deleteInline(ctx, ofUser(in.UserName), in.PolicyName)
}

// PutRolePolicy adds an inline policy to a role, or replaces it.
func (s *Service) PutRolePolicy(ctx context.Context, in *api.PutRolePolicyInput) (*api.PutRolePolicyOutput, error) {
	return &api.PutRolePolicyOutput{}, s.putInline(ctx, ofRole(in.RoleName), in.PolicyName, in.PolicyDocument)
}

// GetRolePolicy shows an inline policy of a role.
func (s *Service) GetRolePolicy(ctx context.Context, in *api.GetRolePolicyInput) (*api.GetRolePolicyOutput, error) {
	name, document, err := s.getInline(ctx, ofRole(in.RoleName), in.PolicyName)
	return &api.GetRolePolicyOutput{RoleName: name, PolicyName: in.PolicyName, PolicyDocument: document}, err
}

// ListRolePolicies lists the names of a role's inline policies.
func (s *Service) ListRolePolicies(ctx context.Context, in *api.ListRolePoliciesInput) (*api.ListRolePoliciesOutput, error) {
	names, more, marker, err := s.listInline(ctx, ofRole(in.RoleName), in)
	return &api.ListRolePoliciesOutput{PolicyNames: names, IsTruncated: more, Marker: marker}, err
}

// DeleteRolePolicy removes an inline policy from a role.
func (s *Service) DeleteRolePolicy(ctx context.Context, in *api.DeleteRolePolicyInput) (*api.DeleteRolePolicyOutput, error) {
	return &api.DeleteRolePolicyOutput{}, s.deleteInline(ctx, ofRole(in.RoleName), in.PolicyName)
}

// PutGroupPolicy adds an inline policy to a group, or replaces it.
func (s *Service) PutGroupPolicy(ctx context.Context, in *api.PutGroupPolicyInput) (*api.PutGroupPolicyOutput, error) {
	return &api.PutGroupPolicyOutput{}, s.putInline(ctx, ofGroup(in.GroupName), in.PolicyName, in.PolicyDocument)
}

// GetGroupPolicy shows an inline policy of a group.
func (s *Service) GetGroupPolicy(ctx context.Context, in *api.GetGroupPolicyInput) (*api.GetGroupPolicyOutput, error) {
	name, document, err := s.getInline(ctx, ofGroup(in.GroupName), in.PolicyName)
	return &api.GetGroupPolicyOutput{GroupName: name, PolicyName: in.PolicyName, PolicyDocument: document}, err
}

// ListGroupPolicies lists the names of a group's inline policies.
func (s *Service) ListGroupPolicies(ctx context.Context, in *api.ListGroupPoliciesInput) (*api.ListGroupPoliciesOutput, error) {
	names, more, marker, err := s.listInline(ctx, ofGroup(in.GroupName), in)
	return &api.ListGroupPoliciesOutput{PolicyNames: names, IsTruncated: more, Marker: marker}, err
}

// DeleteGroupPolicy removes an inline policy from a group.
func (s *Service) DeleteGroupPolicy(ctx context.Context, in *api.DeleteGroupPolicyInput) (*api.DeleteGroupPolicyOutput, error) {
	return &api.DeleteGroupPolicyOutput{}, s.deleteInline(ctx, ofGroup(in.GroupName), in.PolicyName)
}
