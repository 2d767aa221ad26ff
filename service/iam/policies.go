package iam

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/managed"
	"github.com/berth-run/berth/auth/policy"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// customerPolicy finds a policy of this account.
func customerPolicy(r store.Reader, account, arn string) (*state.ManagedPolicy, error) {
	for p := range state.ManagedPolicies.By(r, "arn", arn) {
		if p.Account == account {
			return p, nil
		}
	}
	return nil, noSuch("Policy %s was not found.", arn)
}

// attachable checks that the ARN is that of a policy which users may attach.
func attachable(r store.Reader, account, arn string) error {
	if p, ok := managed.Find(arn); ok {
		if !p.Attachable() {
			return &api.PolicyNotAttachableException{Message: "Cannot attach a Service Role Policy to a Customer Role."}
		}
		return nil
	}
	if _, err := customerPolicy(r, account, arn); err == nil {
		return nil
	}
	return noSuch("Policy %s does not exist or is not attachable.", arn)
}

// entities are all that a policy is attached to, or whose boundary it is.
type entities struct {
	users  []*state.User
	roles  []*state.Role
	groups []*state.Group
}

func (e *entities) count() int { return len(e.users) + len(e.roles) + len(e.groups) }

// using finds those of one account: the policies of AWS are everybody's.
func using(r store.Reader, account, value string) *entities {
	e := &entities{}
	for u := range state.Users.By(r, "policy", value) {
		if u.Account == account {
			e.users = append(e.users, u)
		}
	}
	for x := range state.Roles.By(r, "policy", value) {
		if x.Account == account {
			e.roles = append(e.roles, x)
		}
	}
	for g := range state.Groups.By(r, "policy", value) {
		if g.Account == account {
			e.groups = append(e.groups, g)
		}
	}
	return e
}

func viewPolicy(r store.Reader, p *state.ManagedPolicy, full bool) *api.Policy {
	arn, account := p.ARN(), p.Account
	v := &api.Policy{PolicyName: &p.Name, PolicyId: &p.ID, Arn: &arn, Path: &p.Path, DefaultVersionId: &p.Default,
		AttachmentCount:               new(int32(using(r, account, arn).count())),
		PermissionsBoundaryUsageCount: new(int32(using(r, account, state.BoundaryIndex+arn).count())),
		IsAttachable:                  new(true), CreateDate: &p.CreatedAt, UpdateDate: &p.UpdatedAt}
	if full {
		v.Description, v.Tags = optional(p.Description), viewTags(p.Tags)
	}
	return v
}

// viewManaged shows a policy of AWS. Its id is made of its name: it must be the
// same in every answer, and AWS's own is of no use here.
func viewManaged(r store.Reader, account string, p *managed.Policy) *api.Policy {
	arn := p.ARN()
	return &api.Policy{PolicyName: &p.Name, PolicyId: new(managedID(p.Name)), Arn: &arn, Path: &p.Path, DefaultVersionId: &p.Version,
		AttachmentCount:               new(int32(using(r, account, arn).count())),
		PermissionsBoundaryUsageCount: new(int32(using(r, account, state.BoundaryIndex+arn).count())),
		IsAttachable:                  new(true), CreateDate: &p.CreatedAt, UpdateDate: &p.UpdatedAt}
}

func managedID(name string) string {
	var sum uint64 = 14695981039346656037
	b := []byte(auth.PrefixPolicy)
	for len(b) < 21 {
		for i := range len(name) {
			sum = (sum ^ uint64(name[i])) * 1099511628211
		}
		b = append(b, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[sum>>59])
	}
	return string(b)
}

func viewVersion(p *state.ManagedPolicy, v *state.PolicyVersion, document bool) *api.PolicyVersion {
	out := &api.PolicyVersion{VersionId: &v.ID, IsDefaultVersion: new(v.ID == p.Default), CreateDate: &v.CreatedAt}
	if document {
		out.Document = encoded(v.Document)
	}
	return out
}

func (s *Service) managedDocument(ctx context.Context, document string) error {
	if _, err := parse(document, policy.Identity); err != nil {
		return err
	}
	if n := limit(s.db.Snapshot(), account(ctx), "policy-size"); policy.Length(document) > n {
		return quota("PolicySize", n)
	}
	return nil
}

// nameKey sorts policies by name. Of one name there can be one of the account
// and one of AWS.
func nameKey(name, arn string) string {
	if strings.HasPrefix(arn, managed.Prefix) {
		return strings.ToLower(name) + " 1"
	}
	return strings.ToLower(name) + " 0"
}

// CreatePolicy makes a managed policy with one version.
func (s *Service) CreatePolicy(ctx context.Context, in *api.CreatePolicyInput) (*api.CreatePolicyOutput, error) {
	if err := s.managedDocument(ctx, *in.PolicyDocument); err != nil {
		return nil, err
	}
	acct, now := account(ctx), s.now()
	p := &state.ManagedPolicy{Account: acct, Path: pathOf(in.Path), Name: *in.PolicyName, ID: auth.NewID(auth.PrefixPolicy, acct),
		Description: wire.Value(in.Description), Default: "v1", LastVersion: 1, CreatedAt: now, UpdatedAt: now,
		Versions: []state.PolicyVersion{{ID: "v1", Document: *in.PolicyDocument, CreatedAt: now}}}
	var err error
	if p.Tags, err = newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	var out api.CreatePolicyOutput
	err = s.update(ctx, func(tx *store.Tx) error {
		if state.ManagedPolicies.Has(tx, state.IAMKey(acct, p.Name)) {
			return exists("A policy called %s already exists. Duplicate names are not allowed.", p.Name)
		}
		if err := full(tx, acct, "PoliciesPerAccount", "policies", count(tx, state.ManagedPolicies, acct)); err != nil {
			return err
		}
		if err := roomForVersion(tx, acct); err != nil {
			return err
		}
		state.ManagedPolicies.Put(tx, p)
		out.Policy = viewPolicy(tx, p, true)
		out.Policy.Description = nil // AWS does not repeat it here
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// GetPolicy shows a managed policy without its document.
func (s *Service) GetPolicy(ctx context.Context, in *api.GetPolicyInput) (*api.GetPolicyOutput, error) {
	snap := s.db.Snapshot()
	if p, ok := managed.Find(*in.PolicyArn); ok {
		return &api.GetPolicyOutput{Policy: viewManaged(snap, account(ctx), p)}, nil
	}
	p, err := customerPolicy(snap, account(ctx), *in.PolicyArn)
	if err != nil {
		return nil, err
	}
	return &api.GetPolicyOutput{Policy: viewPolicy(snap, p, true)}, nil
}

// ListPolicies lists the account's policies and those of AWS by name.
func (s *Service) ListPolicies(ctx context.Context, in *api.ListPoliciesInput) (*api.ListPoliciesOutput, error) {
	snap := s.db.Snapshot()
	var all []*api.Policy
	if in.Scope != api.PolicyScopeTypeAws {
		for p := range state.ManagedPolicies.Prefix(snap, account(ctx)+"/") {
			all = append(all, viewPolicy(snap, p, false))
		}
	}
	if in.Scope != api.PolicyScopeTypeLocal {
		for _, p := range managed.All() {
			all = append(all, viewManaged(snap, account(ctx), p))
		}
	}
	all = slices.DeleteFunc(all, func(p *api.Policy) bool {
		attached, limits := *p.AttachmentCount > 0, *p.PermissionsBoundaryUsageCount > 0
		switch {
		case !hasPath(*p.Path, in.PathPrefix), wire.Value(in.OnlyAttached) && !attached,
			in.PolicyUsageFilter == api.PolicyUsageTypePermissionsBoundary && !limits,
			in.PolicyUsageFilter == api.PolicyUsageTypePermissionsPolicy && !attached:
			return true
		}
		return false
	})
	all, more, marker, err := cut(ctx, s, in, all, func(p *api.Policy) string { return nameKey(*p.PolicyName, *p.Arn) })
	if err != nil {
		return nil, err
	}
	out := &api.ListPoliciesOutput{IsTruncated: more, Marker: marker, Policies: []api.Policy{}}
	for _, p := range all {
		out.Policies = append(out.Policies, *p)
	}
	return out, nil
}

// DeletePolicy deletes a policy that is attached to nothing and has only its default version.
func (s *Service) DeletePolicy(ctx context.Context, in *api.DeletePolicyInput) (*api.DeletePolicyOutput, error) {
	return &api.DeletePolicyOutput{}, s.update(ctx, func(tx *store.Tx) error {
		p, err := ownPolicy(tx, account(ctx), *in.PolicyArn)
		if err != nil {
			return err
		}
		if using(tx, p.Account, p.ARN()).count()+using(tx, p.Account, state.BoundaryIndex+p.ARN()).count() > 0 {
			return &api.DeleteConflictException{Message: "Cannot delete a policy attached to entities."}
		}
		if len(p.Versions) > 1 {
			return &api.DeleteConflictException{Message: "This policy has more than one version. Before you delete a policy, " +
				"you must delete the policy's versions. The default version is deleted with the policy."}
		}
		state.ManagedPolicies.Delete(tx, state.IAMKey(p.Account, p.Name))
		return nil
	})
}

// ownPolicy finds a policy that may be changed: AWS's may not.
func ownPolicy(r store.Reader, account, arn string) (*state.ManagedPolicy, error) {
	if _, ok := managed.Find(arn); ok {
		return nil, invalidInput("Cannot modify AWS managed policy %s.", arn)
	}
	return customerPolicy(r, account, arn)
}

func (s *Service) setPolicy(ctx context.Context, arn string, change func(*store.Tx, *state.ManagedPolicy) error) error {
	return s.update(ctx, func(tx *store.Tx) error {
		old, err := ownPolicy(tx, account(ctx), arn)
		if err != nil {
			return err
		}
		next := *old
		if err := change(tx, &next); err != nil {
			return err
		}
		state.ManagedPolicies.Put(tx, &next)
		return nil
	})
}

func noSuchVersion(arn, id string) error {
	return noSuch("Policy %s version %s does not exist or is not attachable.", arn, id)
}

// roomForVersion refuses a version too many among all policies of an account.
func roomForVersion(tx *store.Tx, account string) error {
	n := 0
	for p := range state.ManagedPolicies.Prefix(tx, account+"/") {
		n += len(p.Versions)
	}
	return full(tx, account, "PolicyVersionsInUse", "policy-versions", n)
}

// CreatePolicyVersion adds a version, and makes it the default if asked.
func (s *Service) CreatePolicyVersion(ctx context.Context, in *api.CreatePolicyVersionInput) (*api.CreatePolicyVersionOutput, error) {
	if err := s.managedDocument(ctx, *in.PolicyDocument); err != nil {
		return nil, err
	}
	now := s.now()
	var out api.CreatePolicyVersionOutput
	err := s.setPolicy(ctx, *in.PolicyArn, func(tx *store.Tx, p *state.ManagedPolicy) error {
		if versions := limit(tx, p.Account, "versions-per-policy"); len(p.Versions) >= versions {
			return &api.LimitExceededException{Message: fmt.Sprintf("A managed policy can have up to %d versions. "+
				"Before you create a new version, you must delete an existing version.", versions)}
		}
		if err := roomForVersion(tx, p.Account); err != nil {
			return err
		}
		p.LastVersion++
		v := state.PolicyVersion{ID: fmt.Sprintf("v%d", p.LastVersion), Document: *in.PolicyDocument, CreatedAt: now}
		p.Versions = append(slices.Clone(p.Versions), v)
		p.UpdatedAt = now
		if wire.Value(in.SetAsDefault) {
			p.Default = v.ID
		}
		out.PolicyVersion = viewVersion(p, &v, false)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// GetPolicyVersion shows a version with its document.
func (s *Service) GetPolicyVersion(ctx context.Context, in *api.GetPolicyVersionInput) (*api.GetPolicyVersionOutput, error) {
	p, err := anyPolicy(s.db.Snapshot(), account(ctx), *in.PolicyArn)
	if err != nil {
		return nil, err
	}
	for i := range p.Versions {
		if p.Versions[i].ID == *in.VersionId {
			return &api.GetPolicyVersionOutput{PolicyVersion: viewVersion(p, &p.Versions[i], true)}, nil
		}
	}
	return nil, noSuchVersion(*in.PolicyArn, *in.VersionId)
}

// anyPolicy is a policy of the account, or one of AWS in the same form.
func anyPolicy(r store.Reader, account, arn string) (*state.ManagedPolicy, error) {
	if p, ok := managed.Find(arn); ok {
		return ofAWS(p), nil
	}
	return customerPolicy(r, account, arn)
}

// ofAWS is a policy of AWS in the form of an account's.
func ofAWS(p *managed.Policy) *state.ManagedPolicy {
	return &state.ManagedPolicy{Path: p.Path, Name: p.Name, Default: p.Version,
		Versions: []state.PolicyVersion{{ID: p.Version, Document: p.Document, CreatedAt: p.UpdatedAt}}}
}

// ListPolicyVersions lists versions, newest first as in AWS.
func (s *Service) ListPolicyVersions(ctx context.Context, in *api.ListPolicyVersionsInput) (*api.ListPolicyVersionsOutput, error) {
	p, err := anyPolicy(s.db.Snapshot(), account(ctx), *in.PolicyArn)
	if err != nil {
		return nil, err
	}
	// A key that grows as versions get older.
	key := func(v state.PolicyVersion) string {
		var n int
		_, _ = fmt.Sscanf(v.ID, "v%d", &n)
		return fmt.Sprintf("%010d", 1<<30-n)
	}
	versions, more, marker, err := cut(ctx, s, in, slices.Clone(p.Versions), key)
	if err != nil {
		return nil, err
	}
	out := &api.ListPolicyVersionsOutput{IsTruncated: more, Marker: marker, Versions: []api.PolicyVersion{}}
	for i := range versions {
		out.Versions = append(out.Versions, *viewVersion(p, &versions[i], false))
	}
	return out, nil
}

// SetDefaultPolicyVersion chooses the version that counts.
func (s *Service) SetDefaultPolicyVersion(ctx context.Context, in *api.SetDefaultPolicyVersionInput) (*api.SetDefaultPolicyVersionOutput, error) {
	now := s.now()
	return &api.SetDefaultPolicyVersionOutput{}, s.setPolicy(ctx, *in.PolicyArn, func(_ *store.Tx, p *state.ManagedPolicy) error {
		if !slices.ContainsFunc(p.Versions, func(v state.PolicyVersion) bool { return v.ID == *in.VersionId }) {
			return noSuchVersion(*in.PolicyArn, *in.VersionId)
		}
		p.Default, p.UpdatedAt = *in.VersionId, now
		return nil
	})
}

// DeletePolicyVersion deletes a version that is not the default.
func (s *Service) DeletePolicyVersion(ctx context.Context, in *api.DeletePolicyVersionInput) (*api.DeletePolicyVersionOutput, error) {
	return &api.DeletePolicyVersionOutput{}, s.setPolicy(ctx, *in.PolicyArn, func(_ *store.Tx, p *state.ManagedPolicy) error {
		i := slices.IndexFunc(p.Versions, func(v state.PolicyVersion) bool { return v.ID == *in.VersionId })
		switch {
		case i < 0:
			return noSuchVersion(*in.PolicyArn, *in.VersionId)
		case p.Versions[i].ID == p.Default:
			return &api.DeleteConflictException{Message: "Cannot delete the default version of a policy."}
		}
		p.Versions = slices.Delete(slices.Clone(p.Versions), i, i+1)
		return nil
	})
}

// ListEntitiesForPolicy lists what a policy is attached to.
func (s *Service) ListEntitiesForPolicy(ctx context.Context, in *api.ListEntitiesForPolicyInput) (*api.ListEntitiesForPolicyOutput, error) {
	snap := s.db.Snapshot()
	if _, err := anyPolicy(snap, account(ctx), *in.PolicyArn); err != nil {
		return nil, err
	}
	type entity struct{ kind, path, name, id string }
	var all []entity
	add := func(e *entities) {
		for _, g := range e.groups {
			all = append(all, entity{"Group", g.Path, g.Name, g.ID})
		}
		for _, u := range e.users {
			all = append(all, entity{"User", u.Path, u.Name, u.ID})
		}
		for _, r := range e.roles {
			all = append(all, entity{"Role", r.Path, r.Name, r.ID})
		}
	}
	if in.PolicyUsageFilter != api.PolicyUsageTypePermissionsBoundary {
		add(using(snap, account(ctx), *in.PolicyArn))
	}
	if in.PolicyUsageFilter != api.PolicyUsageTypePermissionsPolicy {
		add(using(snap, account(ctx), state.BoundaryIndex+*in.PolicyArn))
	}
	all = slices.DeleteFunc(all, func(e entity) bool {
		return !hasPath(e.path, in.PathPrefix) || in.EntityFilter != "" && string(in.EntityFilter) != e.kind
	})
	key := func(e entity) string { return e.kind + "/" + strings.ToLower(e.name) }
	all, more, marker, err := cut(ctx, s, in, slices.Compact(byKey(all, key)), key)
	if err != nil {
		return nil, err
	}
	out := &api.ListEntitiesForPolicyOutput{IsTruncated: more, Marker: marker,
		PolicyGroups: []api.PolicyGroup{}, PolicyUsers: []api.PolicyUser{}, PolicyRoles: []api.PolicyRole{}}
	for i := range all {
		switch e := &all[i]; e.kind {
		case "Group":
			out.PolicyGroups = append(out.PolicyGroups, api.PolicyGroup{GroupName: &e.name, GroupId: &e.id})
		case "User":
			out.PolicyUsers = append(out.PolicyUsers, api.PolicyUser{UserName: &e.name, UserId: &e.id})
		case "Role":
			out.PolicyRoles = append(out.PolicyRoles, api.PolicyRole{RoleName: &e.name, RoleId: &e.id})
		}
	}
	return out, nil
}
