package iam

import (
	"context"
	"slices"
	"strconv"

	"github.com/berth-run/berth/auth/policy"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A holder is a user, role or group as something that policies hang on: the
// rules are the same for the three.
type holder struct {
	kind     string // user, role, group
	name     string
	quota    string
	inline   []state.InlinePolicy
	attached []string
	maxSize  int // of all inline documents together
	put      func(tx *store.Tx, inline []state.InlinePolicy, attached []string)
}

type findHolder func(r store.Reader, account string) (*holder, error)

func ofUser(name *string) findHolder {
	return func(r store.Reader, account string) (*holder, error) {
		u, err := user(r, account, *name)
		if err != nil {
			return nil, err
		}
		return &holder{"user", u.Name, "PoliciesPerUser", u.Inline, u.Attached, limit(r, account, "user-policy-size"), func(tx *store.Tx, inline []state.InlinePolicy, attached []string) {
			next := *u
			next.Inline, next.Attached = inline, attached
			state.Users.Put(tx, &next)
		}}, nil
	}
}

func ofRole(name *string) findHolder {
	return func(r store.Reader, account string) (*holder, error) {
		x, err := role(r, account, *name)
		if err != nil {
			return nil, err
		}
		h := &holder{"role", x.Name, "PoliciesPerRole", x.Inline, x.Attached, limit(r, account, "role-policy-size"), nil}
		if modifiable(x) == nil {
			h.put = func(tx *store.Tx, inline []state.InlinePolicy, attached []string) {
				next := *x
				next.Inline, next.Attached = inline, attached
				state.Roles.Put(tx, &next)
			}
		}
		return h, nil
	}
}

func ofGroup(name *string) findHolder {
	return func(r store.Reader, account string) (*holder, error) {
		g, err := group(r, account, *name)
		if err != nil {
			return nil, err
		}
		return &holder{"group", g.Name, "PoliciesPerGroup", g.Inline, g.Attached, limit(r, account, "group-policy-size"), func(tx *store.Tx, inline []state.InlinePolicy, attached []string) {
			next := *g
			next.Inline, next.Attached = inline, attached
			state.Groups.Put(tx, &next)
		}}, nil
	}
}

// change finds a holder and lets fn change copies of its policies.
func (s *Service) change(ctx context.Context, find findHolder, fn func(tx *store.Tx, h *holder) error) error {
	return s.update(ctx, func(tx *store.Tx) error {
		h, err := find(tx, account(ctx))
		if err != nil {
			return err
		}
		if h.put == nil {
			return &api.UnmodifiableEntityException{Message: "Cannot perform the operation on the protected role '" + h.name +
				"' - this role is only modifiable by AWS"}
		}
		h.inline, h.attached = slices.Clone(h.inline), slices.Clone(h.attached)
		if err := fn(tx, h); err != nil {
			return err
		}
		h.put(tx, h.inline, h.attached)
		return nil
	})
}

func (h *holder) index(name string) int {
	return slices.IndexFunc(h.inline, func(p state.InlinePolicy) bool { return p.Name == name })
}

func (s *Service) putInline(ctx context.Context, find findHolder, name, document *string) error {
	if _, err := parse(*document, policy.Identity); err != nil {
		return err
	}
	return s.change(ctx, find, func(_ *store.Tx, h *holder) error {
		p := state.InlinePolicy{Name: *name, Document: *document}
		if i := h.index(p.Name); i >= 0 {
			h.inline[i] = p
		} else {
			h.inline = append(h.inline, p)
		}
		size := 0
		for _, p := range h.inline {
			size += policy.Length(p.Document)
		}
		if size > h.maxSize {
			return &api.LimitExceededException{Message: "Maximum policy size of " + strconv.Itoa(h.maxSize) + " bytes exceeded for " + h.kind + " " + h.name}
		}
		return nil
	})
}

func (s *Service) getInline(ctx context.Context, find findHolder, name *string) (holderName, document *string, err error) {
	h, err := find(s.db.Snapshot(), account(ctx))
	if err != nil {
		return nil, nil, err
	}
	i := h.index(*name)
	if i < 0 {
		return nil, nil, noInline(h, *name)
	}
	return &h.name, encoded(h.inline[i].Document), nil
}

func noInline(h *holder, name string) error {
	return noSuch("The %s policy with name %s cannot be found.", h.kind, name)
}

func (s *Service) listInline(ctx context.Context, find findHolder, in any) ([]string, *bool, *string, error) {
	h, err := find(s.db.Snapshot(), account(ctx))
	if err != nil {
		return nil, nil, nil, err
	}
	names := []string{}
	for _, p := range h.inline {
		names = append(names, p.Name)
	}
	return cut(ctx, s, in, names, func(s string) string { return s })
}

func (s *Service) deleteInline(ctx context.Context, find findHolder, name *string) error {
	return s.change(ctx, find, func(_ *store.Tx, h *holder) error {
		i := h.index(*name)
		if i < 0 {
			return noInline(h, *name)
		}
		h.inline = slices.Delete(h.inline, i, i+1)
		return nil
	})
}

func (s *Service) attach(ctx context.Context, find findHolder, arn *string) error {
	return s.change(ctx, find, func(tx *store.Tx, h *holder) error {
		if err := attachable(tx, account(ctx), *arn); err != nil {
			return err
		}
		if slices.Contains(h.attached, *arn) {
			return nil
		}
		if err := full(tx, account(ctx), h.quota, "policies-per-"+h.kind, len(h.attached)); err != nil {
			return err
		}
		h.attached = append(h.attached, *arn)
		return nil
	})
}

func (s *Service) detach(ctx context.Context, find findHolder, arn *string) error {
	return s.change(ctx, find, func(_ *store.Tx, h *holder) error {
		i := slices.Index(h.attached, *arn)
		if i < 0 {
			return noSuch("Policy %s was not found.", *arn)
		}
		h.attached = slices.Delete(h.attached, i, i+1)
		return nil
	})
}

func (s *Service) listAttached(ctx context.Context, find findHolder, in any, prefix *string) ([]api.AttachedPolicy, *bool, *string, error) {
	snap := s.db.Snapshot()
	h, err := find(snap, account(ctx))
	if err != nil {
		return nil, nil, nil, err
	}
	all := []api.AttachedPolicy{}
	for _, arn := range h.attached {
		p, err := anyPolicy(snap, account(ctx), arn)
		if err == nil && hasPath(p.Path, prefix) {
			all = append(all, api.AttachedPolicy{PolicyName: &p.Name, PolicyArn: new(arn)})
		}
	}
	return cut(ctx, s, in, all, func(p api.AttachedPolicy) string { return nameKey(*p.PolicyName, *p.PolicyArn) })
}
