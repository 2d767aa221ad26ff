package iam

import (
	"context"
	"strings"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/policy"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func role(r store.Reader, account, name string) (*state.Role, error) {
	x, ok := state.Roles.Get(r, state.IAMKey(account, name))
	if !ok {
		return nil, noSuch("The role with name %s cannot be found.", name)
	}
	return x, nil
}

func roleKey(r *state.Role) string { return strings.ToLower(r.Name) }

func viewRole(r *state.Role, full bool) *api.Role {
	v := &api.Role{Path: &r.Path, RoleName: &r.Name, RoleId: &r.ID, Arn: new(r.ARN()), CreateDate: &r.CreatedAt,
		AssumeRolePolicyDocument: encoded(r.Trust), Description: optional(r.Description), MaxSessionDuration: new(int32(r.MaxSessionDuration))}
	if full {
		v.PermissionsBoundary, v.Tags = viewBoundary(r.Boundary), viewTags(r.Tags)
	}
	return v
}

// trust checks a document that says who may assume a role. Users and roles of
// this account that it names must exist.
func trust(r store.Reader, account, document string) error {
	doc, err := parse(document, policy.Trust)
	if err != nil {
		return err
	}
	if n := limit(r, account, "trust-policy-size"); policy.Length(document) > n {
		return quota("ACLSizePerRole", n)
	}
	for _, p := range doc.AWSPrincipals() {
		if !principalExists(r, account, p) {
			return &api.MalformedPolicyDocumentException{Message: `Invalid principal in policy: "AWS":"` + p + `"`}
		}
	}
	return nil
}

func principalExists(r store.Reader, account, arn string) bool {
	part := strings.SplitN(arn, ":", 6)
	if len(part) != 6 || part[4] != account {
		return true // an account, or somebody else's to know
	}
	kind, name, _ := strings.Cut(part[5], "/")
	if kind == "assumed-role" {
		name, _, _ = strings.Cut(name, "/")
		_, ok := state.Roles.Get(r, state.IAMKey(account, name))
		return ok
	}
	name = name[strings.LastIndexByte(name, '/')+1:]
	switch kind {
	case "user":
		u, ok := state.Users.Get(r, state.IAMKey(account, name))
		return ok && u.ARN() == arn
	case "role":
		x, ok := state.Roles.Get(r, state.IAMKey(account, name))
		return ok && x.ARN() == arn
	}
	return true
}

// servicePath is the path of roles that only AWS changes.
const servicePath = "/aws-service-role/"

func modifiable(r *state.Role) error {
	if strings.HasPrefix(r.Path, servicePath) {
		return &api.UnmodifiableEntityException{Message: "Cannot perform the operation on the protected role '" + r.Name +
			"' - this role is only modifiable by AWS"}
	}
	return nil
}

// CreateRole makes a role without any permission.
func (s *Service) CreateRole(ctx context.Context, in *api.CreateRoleInput) (*api.CreateRoleOutput, error) {
	acct := account(ctx)
	r := &state.Role{Account: acct, Path: pathOf(in.Path), Name: *in.RoleName, ID: auth.NewID(auth.PrefixRole, acct),
		Trust: *in.AssumeRolePolicyDocument, Description: wire.Value(in.Description), MaxSessionDuration: defaultSessionLimit, CreatedAt: s.now()}
	if in.MaxSessionDuration != nil {
		r.MaxSessionDuration = int(*in.MaxSessionDuration)
	}
	if strings.HasPrefix(r.Path, servicePath) {
		return nil, validation("The path %s is reserved for service-linked roles.", servicePath)
	}
	var err error
	if r.Tags, err = newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	err = s.update(ctx, func(tx *store.Tx) error {
		if err := trust(tx, acct, r.Trust); err != nil {
			return err
		}
		if _, err := role(tx, acct, r.Name); err == nil {
			return exists("Role with name %s already exists.", r.Name)
		}
		if err := full(tx, acct, "RolesPerAccount", "roles", count(tx, state.Roles, acct)); err != nil {
			return err
		}
		if r.Boundary, err = boundary(tx, account(ctx), in.PermissionsBoundary); err != nil {
			return err
		}
		state.Roles.Put(tx, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateRoleOutput{Role: viewRole(r, true)}, nil
}

// GetRole shows a role.
func (s *Service) GetRole(ctx context.Context, in *api.GetRoleInput) (*api.GetRoleOutput, error) {
	snap := s.db.Snapshot()
	r, err := role(snap, account(ctx), *in.RoleName)
	if err != nil {
		return nil, err
	}
	v := viewRole(r, true)
	v.RoleLastUsed = roleLastUsed(snap, r)
	return &api.GetRoleOutput{Role: v}, nil
}

// ListRoles lists the account's roles by name.
func (s *Service) ListRoles(ctx context.Context, in *api.ListRolesInput) (*api.ListRolesOutput, error) {
	var all []*state.Role
	for r := range state.Roles.Prefix(s.db.Snapshot(), account(ctx)+"/") {
		if hasPath(r.Path, in.PathPrefix) {
			all = append(all, r)
		}
	}
	all, more, marker, err := cut(ctx, s, in, all, roleKey)
	if err != nil {
		return nil, err
	}
	out := &api.ListRolesOutput{IsTruncated: more, Marker: marker, Roles: []api.Role{}}
	for _, r := range all {
		out.Roles = append(out.Roles, *viewRole(r, false))
	}
	return out, nil
}

// setRole changes a copy of a role.
func (s *Service) setRole(ctx context.Context, name string, change func(*store.Tx, *state.Role) error) error {
	return s.update(ctx, func(tx *store.Tx) error {
		old, err := role(tx, account(ctx), name)
		if err != nil {
			return err
		}
		if err := modifiable(old); err != nil {
			return err
		}
		next := *old
		if err := change(tx, &next); err != nil {
			return err
		}
		state.Roles.Put(tx, &next)
		return nil
	})
}

// UpdateRole changes description and session duration.
func (s *Service) UpdateRole(ctx context.Context, in *api.UpdateRoleInput) (*api.UpdateRoleOutput, error) {
	return &api.UpdateRoleOutput{}, s.setRole(ctx, *in.RoleName, func(_ *store.Tx, r *state.Role) error {
		if in.Description != nil {
			r.Description = *in.Description
		}
		if in.MaxSessionDuration != nil {
			r.MaxSessionDuration = int(*in.MaxSessionDuration)
		}
		return nil
	})
}

// UpdateRoleDescription changes the description.
func (s *Service) UpdateRoleDescription(ctx context.Context, in *api.UpdateRoleDescriptionInput) (*api.UpdateRoleDescriptionOutput, error) {
	var out api.UpdateRoleDescriptionOutput
	err := s.setRole(ctx, *in.RoleName, func(_ *store.Tx, r *state.Role) error {
		r.Description = *in.Description
		out.Role = viewRole(r, false)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// UpdateAssumeRolePolicy replaces who may assume the role.
func (s *Service) UpdateAssumeRolePolicy(ctx context.Context, in *api.UpdateAssumeRolePolicyInput) (*api.UpdateAssumeRolePolicyOutput, error) {
	return &api.UpdateAssumeRolePolicyOutput{}, s.setRole(ctx, *in.RoleName, func(tx *store.Tx, r *state.Role) error {
		r.Trust = *in.PolicyDocument
		return trust(tx, r.Account, r.Trust)
	})
}

// PutRolePermissionsBoundary sets the most that a role's policies can allow.
func (s *Service) PutRolePermissionsBoundary(ctx context.Context, in *api.PutRolePermissionsBoundaryInput) (*api.PutRolePermissionsBoundaryOutput, error) {
	return &api.PutRolePermissionsBoundaryOutput{}, s.setRole(ctx, *in.RoleName, func(tx *store.Tx, r *state.Role) (err error) {
		r.Boundary, err = boundary(tx, account(ctx), in.PermissionsBoundary)
		return err
	})
}

// DeleteRolePermissionsBoundary removes that limit.
func (s *Service) DeleteRolePermissionsBoundary(ctx context.Context, in *api.DeleteRolePermissionsBoundaryInput) (*api.DeleteRolePermissionsBoundaryOutput, error) {
	return &api.DeleteRolePermissionsBoundaryOutput{}, s.setRole(ctx, *in.RoleName, func(_ *store.Tx, r *state.Role) error {
		if r.Boundary == "" {
			return noSuch("Role %s does not have a permissions boundary.", r.Name)
		}
		r.Boundary = ""
		return nil
	})
}

// DeleteRole deletes a role that nothing hangs on. Its sessions end with it.
func (s *Service) DeleteRole(ctx context.Context, in *api.DeleteRoleInput) (*api.DeleteRoleOutput, error) {
	acct := account(ctx)
	return &api.DeleteRoleOutput{}, s.update(ctx, func(tx *store.Tx) error {
		r, err := role(tx, acct, *in.RoleName)
		if err != nil {
			return err
		}
		if err := modifiable(r); err != nil {
			return err
		}
		switch {
		case len(profilesOf(tx, r)) > 0:
			return conflict("remove roles from instance profile")
		case len(r.Attached) > 0:
			return conflict("detach all policies")
		case len(r.Inline) > 0:
			return conflict("delete policies")
		}
		forget(tx, r.ID)
		state.Roles.Delete(tx, state.IAMKey(acct, r.Name))
		return nil
	})
}
