package iam

import (
	"context"
	"slices"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func group(r store.Reader, account, name string) (*state.Group, error) {
	g, ok := state.Groups.Get(r, state.IAMKey(account, name))
	if !ok {
		return nil, noSuch("The group with name %s cannot be found.", name)
	}
	return g, nil
}

func groupKey(g *state.Group) string { return strings.ToLower(g.Name) }

func viewGroup(g *state.Group) *api.Group {
	return &api.Group{Path: &g.Path, GroupName: &g.Name, GroupId: &g.ID, Arn: new(g.ARN()), CreateDate: &g.CreatedAt}
}

func members(r store.Reader, g *state.Group) []*state.User {
	var all []*state.User
	for u := range state.Users.By(r, "group", state.IAMKey(g.Account, g.Name)) {
		all = append(all, u)
	}
	return byKey(all, userKey)
}

// CreateGroup makes an empty group.
func (s *Service) CreateGroup(ctx context.Context, in *api.CreateGroupInput) (*api.CreateGroupOutput, error) {
	acct := account(ctx)
	g := &state.Group{Account: acct, Path: pathOf(in.Path), Name: *in.GroupName, ID: auth.NewID(auth.PrefixGroup, acct), CreatedAt: s.now()}
	err := s.update(ctx, func(tx *store.Tx) error {
		if _, err := group(tx, acct, g.Name); err == nil {
			return exists("Group with name %s already exists.", g.Name)
		}
		if err := full(tx, acct, "GroupsPerAccount", "groups", count(tx, state.Groups, acct)); err != nil {
			return err
		}
		state.Groups.Put(tx, g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateGroupOutput{Group: viewGroup(g)}, nil
}

// GetGroup shows a group and its members.
func (s *Service) GetGroup(ctx context.Context, in *api.GetGroupInput) (*api.GetGroupOutput, error) {
	snap := s.db.Snapshot()
	g, err := group(snap, account(ctx), *in.GroupName)
	if err != nil {
		return nil, err
	}
	users, more, marker, err := cut(ctx, s, in, members(snap, g), userKey)
	if err != nil {
		return nil, err
	}
	out := &api.GetGroupOutput{Group: viewGroup(g), IsTruncated: more, Marker: marker, Users: []api.User{}}
	for _, u := range users {
		out.Users = append(out.Users, *viewUser(u, false))
	}
	return out, nil
}

// ListGroups lists the account's groups by name.
func (s *Service) ListGroups(ctx context.Context, in *api.ListGroupsInput) (*api.ListGroupsOutput, error) {
	var all []*state.Group
	for g := range state.Groups.Prefix(s.db.Snapshot(), account(ctx)+"/") {
		if hasPath(g.Path, in.PathPrefix) {
			all = append(all, g)
		}
	}
	all, more, marker, err := cut(ctx, s, in, all, groupKey)
	if err != nil {
		return nil, err
	}
	out := &api.ListGroupsOutput{IsTruncated: more, Marker: marker, Groups: []api.Group{}}
	for _, g := range all {
		out.Groups = append(out.Groups, *viewGroup(g))
	}
	return out, nil
}

// UpdateGroup renames or moves a group. Its members and policies stay.
func (s *Service) UpdateGroup(ctx context.Context, in *api.UpdateGroupInput) (*api.UpdateGroupOutput, error) {
	acct := account(ctx)
	return &api.UpdateGroupOutput{}, s.update(ctx, func(tx *store.Tx) error {
		old, err := group(tx, acct, *in.GroupName)
		if err != nil {
			return err
		}
		next := *old
		if in.NewPath != nil {
			next.Path = *in.NewPath
		}
		if in.NewGroupName != nil {
			next.Name = *in.NewGroupName
		}
		if other, err := group(tx, acct, next.Name); err == nil && other.ID != old.ID {
			return exists("Group with name %s already exists.", next.Name)
		}
		if next.Name != old.Name {
			// Its members hold its name.
			for _, u := range members(tx, old) {
				moved := *u
				moved.Groups = slices.Clone(u.Groups)
				for i, name := range moved.Groups {
					if strings.EqualFold(name, old.Name) {
						moved.Groups[i] = next.Name
					}
				}
				state.Users.Put(tx, &moved)
			}
			state.Groups.Delete(tx, state.IAMKey(acct, old.Name))
		}
		state.Groups.Put(tx, &next)
		return nil
	})
}

// DeleteGroup deletes a group without members and policies.
func (s *Service) DeleteGroup(ctx context.Context, in *api.DeleteGroupInput) (*api.DeleteGroupOutput, error) {
	acct := account(ctx)
	return &api.DeleteGroupOutput{}, s.update(ctx, func(tx *store.Tx) error {
		g, err := group(tx, acct, *in.GroupName)
		if err != nil {
			return err
		}
		switch {
		case len(members(tx, g)) > 0:
			return conflict("remove users from group")
		case len(g.Attached) > 0:
			return conflict("detach all policies")
		case len(g.Inline) > 0:
			return conflict("delete policies")
		}
		state.Groups.Delete(tx, state.IAMKey(acct, g.Name))
		return nil
	})
}

// AddUserToGroup adds a member; adding one twice changes nothing.
func (s *Service) AddUserToGroup(ctx context.Context, in *api.AddUserToGroupInput) (*api.AddUserToGroupOutput, error) {
	return &api.AddUserToGroupOutput{}, s.setUser(ctx, *in.UserName, func(tx *store.Tx, u *state.User) error {
		g, err := group(tx, u.Account, *in.GroupName)
		if err != nil {
			return err
		}
		if slices.Contains(u.Groups, g.Name) {
			return nil
		}
		if err := full(tx, u.Account, "GroupsPerUser", "groups-per-user", len(u.Groups)); err != nil {
			return err
		}
		u.Groups = append(slices.Clone(u.Groups), g.Name)
		return nil
	})
}

// RemoveUserFromGroup removes a member.
func (s *Service) RemoveUserFromGroup(ctx context.Context, in *api.RemoveUserFromGroupInput) (*api.RemoveUserFromGroupOutput, error) {
	return &api.RemoveUserFromGroupOutput{}, s.setUser(ctx, *in.UserName, func(tx *store.Tx, u *state.User) error {
		g, err := group(tx, u.Account, *in.GroupName)
		if err != nil {
			return err
		}
		u.Groups = slices.DeleteFunc(slices.Clone(u.Groups), func(name string) bool { return name == g.Name })
		return nil
	})
}
