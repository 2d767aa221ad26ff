package iam

import (
	"context"

	api "github.com/berth-run/berth/aws/iam"
)

// AttachUserPolicy attaches a managed policy to a user.
func (s *Service) AttachUserPolicy(ctx context.Context, in *api.AttachUserPolicyInput) (*api.AttachUserPolicyOutput, error) {
	return &api.AttachUserPolicyOutput{}, s.attach(ctx, ofUser(in.UserName), in.PolicyArn)
}

// DetachUserPolicy detaches it again.
func (s *Service) DetachUserPolicy(ctx context.Context, in *api.DetachUserPolicyInput) (*api.DetachUserPolicyOutput, error) {
	return &api.DetachUserPolicyOutput{}, s.detach(ctx, ofUser(in.UserName), in.PolicyArn)
}

// ListAttachedUserPolicies lists the managed policies attached to a user.
func (s *Service) ListAttachedUserPolicies(ctx context.Context, in *api.ListAttachedUserPoliciesInput) (*api.ListAttachedUserPoliciesOutput, error) {
	all, more, marker, err := s.listAttached(ctx, ofUser(in.UserName), in, in.PathPrefix)
	return &api.ListAttachedUserPoliciesOutput{AttachedPolicies: all, IsTruncated: more, Marker: marker}, err
}

// AttachRolePolicy attaches a managed policy to a role.
func (s *Service) AttachRolePolicy(ctx context.Context, in *api.AttachRolePolicyInput) (*api.AttachRolePolicyOutput, error) {
	return &api.AttachRolePolicyOutput{}, s.attach(ctx, ofRole(in.RoleName), in.PolicyArn)
}

// DetachRolePolicy detaches it again.
func (s *Service) DetachRolePolicy(ctx context.Context, in *api.DetachRolePolicyInput) (*api.DetachRolePolicyOutput, error) {
	return &api.DetachRolePolicyOutput{}, s.detach(ctx, ofRole(in.RoleName), in.PolicyArn)
}

// ListAttachedRolePolicies lists the managed policies attached to a role.
func (s *Service) ListAttachedRolePolicies(ctx context.Context, in *api.ListAttachedRolePoliciesInput) (*api.ListAttachedRolePoliciesOutput, error) {
	all, more, marker, err := s.listAttached(ctx, ofRole(in.RoleName), in, in.PathPrefix)
	return &api.ListAttachedRolePoliciesOutput{AttachedPolicies: all, IsTruncated: more, Marker: marker}, err
}

// AttachGroupPolicy attaches a managed policy to a group.
func (s *Service) AttachGroupPolicy(ctx context.Context, in *api.AttachGroupPolicyInput) (*api.AttachGroupPolicyOutput, error) {
	return &api.AttachGroupPolicyOutput{}, s.attach(ctx, ofGroup(in.GroupName), in.PolicyArn)
}

// DetachGroupPolicy detaches it again.
func (s *Service) DetachGroupPolicy(ctx context.Context, in *api.DetachGroupPolicyInput) (*api.DetachGroupPolicyOutput, error) {
	return &api.DetachGroupPolicyOutput{}, s.detach(ctx, ofGroup(in.GroupName), in.PolicyArn)
}

// ListAttachedGroupPolicies lists the managed policies attached to a group.
func (s *Service) ListAttachedGroupPolicies(ctx context.Context, in *api.ListAttachedGroupPoliciesInput) (*api.ListAttachedGroupPoliciesOutput, error) {
	all, more, marker, err := s.listAttached(ctx, ofGroup(in.GroupName), in, in.PathPrefix)
	return &api.ListAttachedGroupPoliciesOutput{AttachedPolicies: all, IsTruncated: more, Marker: marker}, err
}
