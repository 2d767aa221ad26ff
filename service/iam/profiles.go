package iam

import (
	"context"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func profile(r store.Reader, account, name string) (*state.InstanceProfile, error) {
	p, ok := state.InstanceProfiles.Get(r, state.IAMKey(account, name))
	if !ok {
		return nil, noSuch("Instance Profile %s cannot be found.", name)
	}
	return p, nil
}

func profileKey(p *state.InstanceProfile) string { return strings.ToLower(p.Name) }

func profilesOf(r store.Reader, x *state.Role) []*state.InstanceProfile {
	var all []*state.InstanceProfile
	for p := range state.InstanceProfiles.By(r, "role", state.IAMKey(x.Account, x.Name)) {
		all = append(all, p)
	}
	return byKey(all, profileKey)
}

func viewProfile(r store.Reader, p *state.InstanceProfile) *api.InstanceProfile {
	v := &api.InstanceProfile{Path: &p.Path, InstanceProfileName: &p.Name, InstanceProfileId: &p.ID, Arn: new(p.ARN()),
		CreateDate: &p.CreatedAt, Roles: []api.Role{}, Tags: viewTags(p.Tags)}
	if p.Role != "" {
		if x, err := role(r, p.Account, p.Role); err == nil {
			v.Roles = append(v.Roles, *viewRole(x, false))
		}
	}
	return v
}

// CreateInstanceProfile makes a profile without a role.
func (s *Service) CreateInstanceProfile(ctx context.Context, in *api.CreateInstanceProfileInput) (*api.CreateInstanceProfileOutput, error) {
	acct := account(ctx)
	p := &state.InstanceProfile{Account: acct, Path: pathOf(in.Path), Name: *in.InstanceProfileName,
		ID: auth.NewID(auth.PrefixInstanceProfile, acct), CreatedAt: s.now()}
	var err error
	if p.Tags, err = newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	var out api.CreateInstanceProfileOutput
	err = s.update(ctx, func(tx *store.Tx) error {
		if _, err := profile(tx, acct, p.Name); err == nil {
			return exists("Instance Profile %s already exists.", p.Name)
		}
		if err := full(tx, acct, "InstanceProfilesPerAccount", "instance-profiles", count(tx, state.InstanceProfiles, acct)); err != nil {
			return err
		}
		state.InstanceProfiles.Put(tx, p)
		out.InstanceProfile = viewProfile(tx, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// GetInstanceProfile shows a profile and its role.
func (s *Service) GetInstanceProfile(ctx context.Context, in *api.GetInstanceProfileInput) (*api.GetInstanceProfileOutput, error) {
	snap := s.db.Snapshot()
	p, err := profile(snap, account(ctx), *in.InstanceProfileName)
	if err != nil {
		return nil, err
	}
	return &api.GetInstanceProfileOutput{InstanceProfile: viewProfile(snap, p)}, nil
}

// ListInstanceProfiles lists the account's profiles by name.
func (s *Service) ListInstanceProfiles(ctx context.Context, in *api.ListInstanceProfilesInput) (*api.ListInstanceProfilesOutput, error) {
	snap := s.db.Snapshot()
	var all []*state.InstanceProfile
	for p := range state.InstanceProfiles.Prefix(snap, account(ctx)+"/") {
		if hasPath(p.Path, in.PathPrefix) {
			all = append(all, p)
		}
	}
	views, more, marker, err := profilePage(ctx, s, in, snap, all)
	return &api.ListInstanceProfilesOutput{InstanceProfiles: views, IsTruncated: more, Marker: marker}, err
}

// ListInstanceProfilesForRole lists the profiles that hand out a role.
func (s *Service) ListInstanceProfilesForRole(ctx context.Context, in *api.ListInstanceProfilesForRoleInput) (*api.ListInstanceProfilesForRoleOutput, error) {
	snap := s.db.Snapshot()
	r, err := role(snap, account(ctx), *in.RoleName)
	if err != nil {
		return nil, err
	}
	views, more, marker, err := profilePage(ctx, s, in, snap, profilesOf(snap, r))
	return &api.ListInstanceProfilesForRoleOutput{InstanceProfiles: views, IsTruncated: more, Marker: marker}, err
}

func profilePage(ctx context.Context, s *Service, in any, r store.Reader, all []*state.InstanceProfile) ([]api.InstanceProfile, *bool, *string, error) {
	all, more, next, err := cut(ctx, s, in, all, profileKey)
	if err != nil {
		return nil, nil, nil, err
	}
	views := []api.InstanceProfile{}
	for _, p := range all {
		v := viewProfile(r, p)
		v.Tags = nil
		views = append(views, *v)
	}
	return views, more, next, nil
}

func (s *Service) setProfile(ctx context.Context, name string, change func(*store.Tx, *state.InstanceProfile) error) error {
	return s.update(ctx, func(tx *store.Tx) error {
		old, err := profile(tx, account(ctx), name)
		if err != nil {
			return err
		}
		next := *old
		if err := change(tx, &next); err != nil {
			return err
		}
		state.InstanceProfiles.Put(tx, &next)
		return nil
	})
}

// AddRoleToInstanceProfile gives the profile its one role.
func (s *Service) AddRoleToInstanceProfile(ctx context.Context, in *api.AddRoleToInstanceProfileInput) (*api.AddRoleToInstanceProfileOutput, error) {
	return &api.AddRoleToInstanceProfileOutput{}, s.setProfile(ctx, *in.InstanceProfileName, func(tx *store.Tx, p *state.InstanceProfile) error {
		r, err := role(tx, p.Account, *in.RoleName)
		if err != nil {
			return err
		}
		if err := modifiable(r); err != nil {
			return err
		}
		if p.Role != "" {
			return quota("InstanceSessionsPerInstanceProfile", 1)
		}
		p.Role = r.Name
		return nil
	})
}

// RemoveRoleFromInstanceProfile takes it away again.
func (s *Service) RemoveRoleFromInstanceProfile(ctx context.Context, in *api.RemoveRoleFromInstanceProfileInput) (*api.RemoveRoleFromInstanceProfileOutput, error) {
	return &api.RemoveRoleFromInstanceProfileOutput{}, s.setProfile(ctx, *in.InstanceProfileName, func(tx *store.Tx, p *state.InstanceProfile) error {
		if p.Role == "" || !strings.EqualFold(p.Role, *in.RoleName) {
			return noSuch("The role with name %s cannot be found.", *in.RoleName)
		}
		p.Role = ""
		return nil
	})
}

// DeleteInstanceProfile deletes a profile without a role.
func (s *Service) DeleteInstanceProfile(ctx context.Context, in *api.DeleteInstanceProfileInput) (*api.DeleteInstanceProfileOutput, error) {
	acct := account(ctx)
	return &api.DeleteInstanceProfileOutput{}, s.update(ctx, func(tx *store.Tx) error {
		p, err := profile(tx, acct, *in.InstanceProfileName)
		if err != nil {
			return err
		}
		if p.Role != "" {
			return conflict("remove roles from instance profile")
		}
		state.InstanceProfiles.Delete(tx, state.IAMKey(acct, p.Name))
		return nil
	})
}
