package iam

import (
	"context"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func user(r store.Reader, account, name string) (*state.User, error) {
	u, ok := state.Users.Get(r, state.IAMKey(account, name))
	if !ok {
		return nil, noSuch("The user with name %s cannot be found.", name)
	}
	return u, nil
}

func userKey(u *state.User) string { return strings.ToLower(u.Name) }

func viewUser(u *state.User, full bool) *api.User {
	v := &api.User{Path: &u.Path, UserName: &u.Name, UserId: &u.ID, Arn: new(u.ARN()), CreateDate: &u.CreatedAt}
	if full {
		v.PermissionsBoundary, v.Tags = viewBoundary(u.Boundary), viewTags(u.Tags)
	}
	return v
}

// selfOr is the named user, or the caller's own name if none is named.
func selfOr(ctx context.Context, name *string) (string, error) {
	if name != nil {
		return *name, nil
	}
	c := auth.FromContext(ctx)
	if c == nil || c.Kind == auth.AssumedRole {
		return "", validation("Must specify userName when calling with non-User credentials")
	}
	return c.Name, nil // "" for the root user
}

// CreateUser makes a user without any permission.
func (s *Service) CreateUser(ctx context.Context, in *api.CreateUserInput) (*api.CreateUserOutput, error) {
	acct := account(ctx)
	u := &state.User{Account: acct, Path: pathOf(in.Path), Name: *in.UserName, ID: auth.NewID(auth.PrefixUser, acct), CreatedAt: s.now()}
	var err error
	if u.Tags, err = newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	err = s.update(ctx, func(tx *store.Tx) error {
		if _, err := user(tx, acct, u.Name); err == nil {
			return exists("User with name %s already exists.", u.Name)
		}
		if err := full(tx, acct, "UsersPerAccount", "users", count(tx, state.Users, acct)); err != nil {
			return err
		}
		if u.Boundary, err = boundary(tx, account(ctx), in.PermissionsBoundary); err != nil {
			return err
		}
		state.Users.Put(tx, u)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateUserOutput{User: viewUser(u, true)}, nil
}

// GetUser shows a user, or the caller.
func (s *Service) GetUser(ctx context.Context, in *api.GetUserInput) (*api.GetUserOutput, error) {
	snap := s.db.Snapshot()
	name, err := selfOr(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	acct := account(ctx)
	if name == "" {
		v := &api.User{UserId: &acct, Arn: new("arn:aws:iam::" + acct + ":root")}
		if a, ok := state.Accounts.Get(snap, acct); ok {
			v.CreateDate = &a.CreatedAt
			v.UserName = optional(a.Alias)
		}
		return &api.GetUserOutput{User: v}, nil
	}
	u, err := user(snap, acct, name)
	if err != nil {
		return nil, err
	}
	return &api.GetUserOutput{User: viewUser(u, true)}, nil
}

// ListUsers lists the account's users by name.
func (s *Service) ListUsers(ctx context.Context, in *api.ListUsersInput) (*api.ListUsersOutput, error) {
	var all []*state.User
	for u := range state.Users.Prefix(s.db.Snapshot(), account(ctx)+"/") {
		if hasPath(u.Path, in.PathPrefix) {
			all = append(all, u)
		}
	}
	all, more, marker, err := cut(ctx, s, in, all, userKey)
	if err != nil {
		return nil, err
	}
	out := &api.ListUsersOutput{IsTruncated: more, Marker: marker, Users: []api.User{}}
	for _, u := range all {
		out.Users = append(out.Users, *viewUser(u, false))
	}
	return out, nil
}

// UpdateUser renames or moves a user.
func (s *Service) UpdateUser(ctx context.Context, in *api.UpdateUserInput) (*api.UpdateUserOutput, error) {
	acct := account(ctx)
	return &api.UpdateUserOutput{}, s.update(ctx, func(tx *store.Tx) error {
		old, err := user(tx, acct, *in.UserName)
		if err != nil {
			return err
		}
		next := *old
		if in.NewPath != nil {
			next.Path = *in.NewPath
		}
		if in.NewUserName == nil || *in.NewUserName == old.Name {
			state.Users.Put(tx, &next)
			return nil
		}
		next.Name = *in.NewUserName
		if other, err := user(tx, acct, next.Name); err == nil && other.ID != old.ID {
			return exists("User with name %s already exists.", next.Name)
		}
		// Keys hold the user's name and move with it.
		for k := range state.AccessKeys.By(tx, "user", state.IAMKey(acct, old.Name)) {
			moved := *k
			moved.User = next.Name
			state.AccessKeys.Put(tx, &moved)
		}
		state.Users.Delete(tx, state.IAMKey(acct, old.Name))
		state.Users.Put(tx, &next)
		return nil
	})
}

// DeleteUser deletes a user that nothing hangs on.
func (s *Service) DeleteUser(ctx context.Context, in *api.DeleteUserInput) (*api.DeleteUserOutput, error) {
	acct := account(ctx)
	return &api.DeleteUserOutput{}, s.update(ctx, func(tx *store.Tx) error {
		u, err := user(tx, acct, *in.UserName)
		if err != nil {
			return err
		}
		switch {
		case state.LoginProfiles.Has(tx, u.ID):
			return conflict("delete login profile")
		case len(keysOf(tx, acct, u.Name)) > 0:
			return conflict("delete access keys")
		case len(signingCertificates(tx, u)) > 0:
			return conflict("delete signing certificates")
		case len(devicesOf(tx, u)) > 0:
			return conflict("delete MFA device")
		case len(u.Attached) > 0:
			return conflict("detach all policies")
		case len(u.Inline) > 0:
			return conflict("delete policies")
		case len(u.Groups) > 0:
			return conflict("remove users from group")
		case len(sshKeys(tx, u))+len(serviceCredentials(tx, u)) > 0:
			return conflict("remove referenced objects")
		}
		forget(tx, u.ID)
		state.Users.Delete(tx, state.IAMKey(acct, u.Name))
		return nil
	})
}

// PutUserPermissionsBoundary sets the most that a user's policies can allow.
func (s *Service) PutUserPermissionsBoundary(ctx context.Context, in *api.PutUserPermissionsBoundaryInput) (*api.PutUserPermissionsBoundaryOutput, error) {
	return &api.PutUserPermissionsBoundaryOutput{}, s.setUser(ctx, *in.UserName, func(tx *store.Tx, u *state.User) (err error) {
		u.Boundary, err = boundary(tx, account(ctx), in.PermissionsBoundary)
		return err
	})
}

// DeleteUserPermissionsBoundary removes that limit.
func (s *Service) DeleteUserPermissionsBoundary(ctx context.Context, in *api.DeleteUserPermissionsBoundaryInput) (*api.DeleteUserPermissionsBoundaryOutput, error) {
	return &api.DeleteUserPermissionsBoundaryOutput{}, s.setUser(ctx, *in.UserName, func(_ *store.Tx, u *state.User) error {
		if u.Boundary == "" {
			return noSuch("User %s does not have a permissions boundary.", u.Name)
		}
		u.Boundary = ""
		return nil
	})
}

// setUser changes a copy of the user.
func (s *Service) setUser(ctx context.Context, name string, change func(*store.Tx, *state.User) error) error {
	return s.update(ctx, func(tx *store.Tx) error {
		old, err := user(tx, account(ctx), name)
		if err != nil {
			return err
		}
		next := *old
		if err := change(tx, &next); err != nil {
			return err
		}
		state.Users.Put(tx, &next)
		return nil
	})
}

// ListGroupsForUser lists the groups that a user is in.
func (s *Service) ListGroupsForUser(ctx context.Context, in *api.ListGroupsForUserInput) (*api.ListGroupsForUserOutput, error) {
	snap, acct := s.db.Snapshot(), account(ctx)
	u, err := user(snap, acct, *in.UserName)
	if err != nil {
		return nil, err
	}
	var all []*state.Group
	for _, name := range u.Groups {
		if g, err := group(snap, acct, name); err == nil {
			all = append(all, g)
		}
	}
	all, more, marker, err := cut(ctx, s, in, all, groupKey)
	if err != nil {
		return nil, err
	}
	out := &api.ListGroupsForUserOutput{IsTruncated: more, Marker: marker, Groups: []api.Group{}}
	for _, g := range all {
		out.Groups = append(out.Groups, *viewGroup(g))
	}
	return out, nil
}

// boundary checks that a permissions boundary is a policy.
func boundary(r store.Reader, account string, arn *string) (string, error) {
	b := wire.Value(arn)
	if b == "" {
		return "", nil
	}
	if _, err := anyPolicy(r, account, b); err != nil {
		return "", noSuch("Scope ARN: %s does not exist or is not attachable.", b)
	}
	return b, nil
}

func viewBoundary(arn string) *api.AttachedPermissionsBoundary {
	if arn == "" {
		return nil
	}
	return &api.AttachedPermissionsBoundary{
		PermissionsBoundaryType: api.PermissionsBoundaryAttachmentTypePermissionsBoundaryPolicy, PermissionsBoundaryArn: &arn}
}
