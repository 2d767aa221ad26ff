package iam

import (
	"context"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func viewTags(tags []state.Tag) []api.Tag {
	if len(tags) == 0 {
		return nil
	}
	out := make([]api.Tag, len(tags))
	for i := range tags {
		out[i] = api.Tag{Key: &tags[i].Key, Value: &tags[i].Value}
	}
	return out
}

// newTags are the tags have with more added or overwritten, in a new slice.
// Keys of IAM's tags that differ only in case are one key.
func newTags(have []state.Tag, more []api.Tag) ([]state.Tag, error) {
	out := slices.Clone(have)
	seen := map[string]bool{}
	for _, t := range more {
		k := strings.ToLower(wire.Value(t.Key))
		if seen[k] {
			return nil, invalidInput("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		seen[k] = true
		if strings.HasPrefix(k, "aws:") {
			return nil, invalidInput("Tag keys beginning with aws: are reserved for system use.")
		}
		next := state.Tag{Key: wire.Value(t.Key), Value: wire.Value(t.Value)}
		i := slices.IndexFunc(out, func(o state.Tag) bool { return strings.EqualFold(o.Key, next.Key) })
		if i < 0 {
			out = append(out, next)
		} else {
			out[i] = next
		}
	}
	if len(out) > maxTags {
		return nil, &api.LimitExceededException{Message: "The number of tags has reached the maximum limit."}
	}
	return out, nil
}

func withoutTags(have []state.Tag, keys []string) []state.Tag {
	return slices.DeleteFunc(slices.Clone(have), func(t state.Tag) bool {
		return slices.ContainsFunc(keys, func(k string) bool { return strings.EqualFold(k, t.Key) })
	})
}

func tagPage(ctx context.Context, s *Service, in any, tags []state.Tag) ([]api.Tag, *bool, *string, error) {
	key := func(t state.Tag) string { return t.Key }
	tags, more, next, err := cut(ctx, s, in, slices.Clone(tags), key)
	if err != nil {
		return nil, nil, nil, err
	}
	return append([]api.Tag{}, viewTags(tags)...), more, next, nil
}

// TagUser adds tags.
func (s *Service) TagUser(ctx context.Context, in *api.TagUserInput) (*api.TagUserOutput, error) {
	return &api.TagUserOutput{}, s.setUser(ctx, *in.UserName, func(_ *store.Tx, u *state.User) (err error) {
		u.Tags, err = newTags(u.Tags, in.Tags)
		return err
	})
}

// UntagUser removes tags.
func (s *Service) UntagUser(ctx context.Context, in *api.UntagUserInput) (*api.UntagUserOutput, error) {
	return &api.UntagUserOutput{}, s.setUser(ctx, *in.UserName, func(_ *store.Tx, u *state.User) error {
		u.Tags = withoutTags(u.Tags, in.TagKeys)
		return nil
	})
}

// ListUserTags lists tags by key.
func (s *Service) ListUserTags(ctx context.Context, in *api.ListUserTagsInput) (*api.ListUserTagsOutput, error) {
	u, err := user(s.db.Snapshot(), account(ctx), *in.UserName)
	if err != nil {
		return nil, err
	}
	tags, more, marker, err := tagPage(ctx, s, in, u.Tags)
	return &api.ListUserTagsOutput{Tags: tags, IsTruncated: more, Marker: marker}, err
}

// TagRole adds tags.
func (s *Service) TagRole(ctx context.Context, in *api.TagRoleInput) (*api.TagRoleOutput, error) {
	return &api.TagRoleOutput{}, s.setRole(ctx, *in.RoleName, func(_ *store.Tx, r *state.Role) (err error) {
		r.Tags, err = newTags(r.Tags, in.Tags)
		return err
	})
}

// UntagRole removes tags.
func (s *Service) UntagRole(ctx context.Context, in *api.UntagRoleInput) (*api.UntagRoleOutput, error) {
	return &api.UntagRoleOutput{}, s.setRole(ctx, *in.RoleName, func(_ *store.Tx, r *state.Role) error {
		r.Tags = withoutTags(r.Tags, in.TagKeys)
		return nil
	})
}

// ListRoleTags lists tags by key.
func (s *Service) ListRoleTags(ctx context.Context, in *api.ListRoleTagsInput) (*api.ListRoleTagsOutput, error) {
	r, err := role(s.db.Snapshot(), account(ctx), *in.RoleName)
	if err != nil {
		return nil, err
	}
	tags, more, marker, err := tagPage(ctx, s, in, r.Tags)
	return &api.ListRoleTagsOutput{Tags: tags, IsTruncated: more, Marker: marker}, err
}

// TagPolicy adds tags.
func (s *Service) TagPolicy(ctx context.Context, in *api.TagPolicyInput) (*api.TagPolicyOutput, error) {
	return &api.TagPolicyOutput{}, s.setPolicy(ctx, *in.PolicyArn, func(_ *store.Tx, p *state.ManagedPolicy) (err error) {
		p.Tags, err = newTags(p.Tags, in.Tags)
		return err
	})
}

// UntagPolicy removes tags.
func (s *Service) UntagPolicy(ctx context.Context, in *api.UntagPolicyInput) (*api.UntagPolicyOutput, error) {
	return &api.UntagPolicyOutput{}, s.setPolicy(ctx, *in.PolicyArn, func(_ *store.Tx, p *state.ManagedPolicy) error {
		p.Tags = withoutTags(p.Tags, in.TagKeys)
		return nil
	})
}

// ListPolicyTags lists tags by key.
func (s *Service) ListPolicyTags(ctx context.Context, in *api.ListPolicyTagsInput) (*api.ListPolicyTagsOutput, error) {
	p, err := customerPolicy(s.db.Snapshot(), account(ctx), *in.PolicyArn)
	if err != nil {
		return nil, err
	}
	tags, more, marker, err := tagPage(ctx, s, in, p.Tags)
	return &api.ListPolicyTagsOutput{Tags: tags, IsTruncated: more, Marker: marker}, err
}

// TagInstanceProfile adds tags.
func (s *Service) TagInstanceProfile(ctx context.Context, in *api.TagInstanceProfileInput) (*api.TagInstanceProfileOutput, error) {
	return &api.TagInstanceProfileOutput{}, s.setProfile(ctx, *in.InstanceProfileName, func(_ *store.Tx, p *state.InstanceProfile) (err error) {
		p.Tags, err = newTags(p.Tags, in.Tags)
		return err
	})
}

// UntagInstanceProfile removes tags.
func (s *Service) UntagInstanceProfile(ctx context.Context, in *api.UntagInstanceProfileInput) (*api.UntagInstanceProfileOutput, error) {
	return &api.UntagInstanceProfileOutput{}, s.setProfile(ctx, *in.InstanceProfileName, func(_ *store.Tx, p *state.InstanceProfile) error {
		p.Tags = withoutTags(p.Tags, in.TagKeys)
		return nil
	})
}

// ListInstanceProfileTags lists tags by key.
func (s *Service) ListInstanceProfileTags(ctx context.Context, in *api.ListInstanceProfileTagsInput) (*api.ListInstanceProfileTagsOutput, error) {
	p, err := profile(s.db.Snapshot(), account(ctx), *in.InstanceProfileName)
	if err != nil {
		return nil, err
	}
	tags, more, marker, err := tagPage(ctx, s, in, p.Tags)
	return &api.ListInstanceProfileTagsOutput{Tags: tags, IsTruncated: more, Marker: marker}, err
}
