// Package iam is the IAM API: users, access keys, groups, roles, instance
// profiles, and the policies attached to them.
//
// It owns the rows of the identities and nothing of what they may do: that is
// decided by package auth from the same rows, at the next call. It must never
// return a secret after the call that made it.
package iam

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/policy"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
)

// Config is what the service needs.
type Config struct {
	DB    *store.DB        // required
	Clock func() time.Time // nil: time.Now
}

// Service implements the IAM API. Operations it does not have are answered by
// the embedded Unimplemented.
type Service struct {
	api.Unimplemented
	db      *store.DB
	clock   func() time.Time
	hashing sync.Mutex // one hash of a password at a time
}

var _ api.Handler = (*Service)(nil)

// New makes the service.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Service{db: cfg.DB, clock: cfg.Clock}
}

// update runs a transaction that no other of IAM's overlaps: names, quotas and
// attachments span several rows, and nobody changes them often.
func (s *Service) update(ctx context.Context, fn func(tx *store.Tx) error) error {
	return s.db.Update(ctx, func(tx *store.Tx) error {
		tx.Guard("iam")
		return fn(tx)
	})
}

// now is the time as IAM keeps it: whole seconds.
func (s *Service) now() time.Time { return s.clock().UTC().Truncate(time.Second) }

// account is that of the caller.
func account(ctx context.Context) string {
	if c := auth.FromContext(ctx); c != nil {
		return c.Account
	}
	return ""
}

// pathOf is the path of a new entity.
func pathOf(p *string) string {
	if p == nil || *p == "" {
		return "/"
	}
	return *p
}

// encoded is a document as IAM returns it: percent-encoded.
func encoded(document string) *string {
	return new(strings.ReplaceAll(url.QueryEscape(document), "+", "%20"))
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// parse checks a document and says in IAM's words what is wrong with it.
func parse(document string, kind policy.Kind) (*policy.Document, error) {
	doc, err := policy.Parse(document, kind)
	if err != nil {
		return nil, &api.MalformedPolicyDocumentException{Message: err.Error()}
	}
	return doc, nil
}

// byKey sorts by a key.
func byKey[T any](items []T, key func(T) string) []T {
	slices.SortFunc(items, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	return items
}

func hasPath(path string, prefix *string) bool {
	return prefix == nil || strings.HasPrefix(path, *prefix)
}
