package iam

import (
	"context"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// keysOf are the access keys of a user, or of the root user if name is "".
func keysOf(r store.Reader, account, name string) []*state.AccessKey {
	var keys []*state.AccessKey
	for k := range state.AccessKeys.By(r, "user", state.IAMKey(account, name)) {
		keys = append(keys, k)
	}
	return byKey(keys, func(k *state.AccessKey) string { return k.ID })
}

// owner is the name of the user whose keys are meant.
func owner(ctx context.Context, r store.Reader, name *string) (string, error) {
	n, err := selfOr(ctx, name)
	if err != nil || n == "" {
		return n, err
	}
	u, err := user(r, account(ctx), n)
	if err != nil {
		return "", err
	}
	return u.Name, nil
}

func status(active bool) api.StatusType {
	if active {
		return api.StatusTypeActive
	}
	return api.StatusTypeInactive
}

// switched is a status that a caller may set.
func switched(to api.StatusType) (active bool, err error) {
	if to != api.StatusTypeActive && to != api.StatusTypeInactive {
		return false, validation("The status %s cannot be set.", to)
	}
	return to == api.StatusTypeActive, nil
}

// CreateAccessKey makes a key and shows its secret, once.
func (s *Service) CreateAccessKey(ctx context.Context, in *api.CreateAccessKeyInput) (*api.CreateAccessKeyOutput, error) {
	acct := account(ctx)
	k := &state.AccessKey{ID: auth.NewKeyID(auth.PrefixAccessKey, acct), Account: acct, Secret: auth.NewSecret(), Active: true, CreatedAt: s.now()}
	err := s.update(ctx, func(tx *store.Tx) (err error) {
		if k.User, err = owner(ctx, tx, in.UserName); err != nil {
			return err
		}
		if err := full(tx, acct, "AccessKeysPerUser", "access-keys-per-user", len(keysOf(tx, acct, k.User))); err != nil {
			return err
		}
		state.AccessKeys.Put(tx, k)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateAccessKeyOutput{AccessKey: &api.AccessKey{UserName: optional(k.User), AccessKeyId: &k.ID,
		Status: status(k.Active), SecretAccessKey: &k.Secret, CreateDate: &k.CreatedAt}}, nil
}

// ListAccessKeys lists keys without their secrets.
func (s *Service) ListAccessKeys(ctx context.Context, in *api.ListAccessKeysInput) (*api.ListAccessKeysOutput, error) {
	snap := s.db.Snapshot()
	name, err := owner(ctx, snap, in.UserName)
	if err != nil {
		return nil, err
	}
	keys, more, marker, err := cut(ctx, s, in, keysOf(snap, account(ctx), name), func(k *state.AccessKey) string { return k.ID })
	if err != nil {
		return nil, err
	}
	out := &api.ListAccessKeysOutput{IsTruncated: more, Marker: marker, AccessKeyMetadata: []api.AccessKeyMetadata{}}
	for _, k := range keys {
		out.AccessKeyMetadata = append(out.AccessKeyMetadata, api.AccessKeyMetadata{UserName: optional(k.User),
			AccessKeyId: &k.ID, Status: status(k.Active), CreateDate: &k.CreatedAt})
	}
	return out, nil
}

// key is one key of the user meant; another user's key is not found.
func key(ctx context.Context, r store.Reader, name *string, id string) (*state.AccessKey, error) {
	n, err := owner(ctx, r, name)
	if err != nil {
		return nil, err
	}
	k, ok := state.AccessKeys.Get(r, id)
	if !ok || k.Account != account(ctx) || k.User != n {
		return nil, noSuch("The Access Key with id %s cannot be found.", id)
	}
	return k, nil
}

// UpdateAccessKey switches a key on or off.
func (s *Service) UpdateAccessKey(ctx context.Context, in *api.UpdateAccessKeyInput) (*api.UpdateAccessKeyOutput, error) {
	active, err := switched(in.Status)
	if err != nil {
		return nil, err
	}
	return &api.UpdateAccessKeyOutput{}, s.update(ctx, func(tx *store.Tx) error {
		old, err := key(ctx, tx, in.UserName, *in.AccessKeyId)
		if err != nil {
			return err
		}
		next := *old
		next.Active = active
		state.AccessKeys.Put(tx, &next)
		return nil
	})
}

// DeleteAccessKey deletes a key. It works no longer at the next call.
func (s *Service) DeleteAccessKey(ctx context.Context, in *api.DeleteAccessKeyInput) (*api.DeleteAccessKeyOutput, error) {
	return &api.DeleteAccessKeyOutput{}, s.update(ctx, func(tx *store.Tx) error {
		k, err := key(ctx, tx, in.UserName, *in.AccessKeyId)
		if err != nil {
			return err
		}
		forget(tx, k.ID)
		state.AccessKeys.Delete(tx, k.ID)
		return nil
	})
}
