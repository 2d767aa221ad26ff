package registry

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// What a repository is created for by itself; a template says for which of
// them it holds.
const (
	ForPush        = "CREATE_ON_PUSH"
	ForPullThrough = "PULL_THROUGH_CACHE"
	ForReplication = "REPLICATION"
)

// template finds what an account wants its repository of that name to be made
// like, if it wants that.
func template(r store.Reader, account, name, purpose string) (*state.RepositoryTemplate, bool) {
	t, ok := state.ByPrefix(r, state.RepositoryTemplates, account, name)
	if !ok || !slices.Contains(t.AppliedFor, purpose) {
		return nil, false
	}
	return t, true
}

// Create puts a repository into the store, if the account may have one more.
func Create(tx *store.Tx, repo *state.Repository) error {
	// Repositories are counted and not guarded: two that come at once may both be the last.
	most := state.Limit(tx, repo.Account, "ecr/repositories")
	if state.Repositories.Count(tx) >= most {
		n := 0
		for range state.Repositories.Prefix(tx, state.RepositoryKey(repo.Account, "")) {
			n++
		}
		if n >= most {
			return &image.LimitError{What: "repositories", Limit: most}
		}
	}
	state.Repositories.Put(tx, repo)
	return nil
}

// create makes a repository as its account's template says; without one it is
// as one that was created without saying anything.
func (g *Registry) create(tx *store.Tx, account, name, purpose string, now time.Time) (*state.Repository, error) {
	if !image.ValidName(name) {
		return nil, &image.NoRepositoryError{Account: account, Name: name}
	}
	repo := &state.Repository{Account: account, Name: name, ARN: g.RepositoryARN(account, name), TagMutability: "MUTABLE", Encryption: "AES256", CreatedAt: now}
	if t, ok := template(tx, account, name, purpose); ok {
		repo.TagMutability, repo.Exclusions, repo.Tags = t.TagMutability, t.Exclusions, t.Tags
		if t.Encryption != "" {
			repo.Encryption = t.Encryption
		}
		for to, from := range map[*string]*string{&repo.KMSKey: t.KMSKey, &repo.Policy: t.Policy, &repo.Lifecycle: t.Lifecycle} {
			if from != nil {
				*to = *from
			}
		}
	}
	return repo, Create(tx, repo)
}

// createOnPush makes the repository that somebody pushes to, if a template of
// the account says that this may be, and the caller may create it.
func (q *request) createOnPush() (*state.Repository, error) {
	snap := q.g.DB.Snapshot()
	if _, ok := template(snap, q.account, q.name, ForPush); !ok {
		return nil, &image.NoRepositoryError{Account: q.account, Name: q.name}
	}
	if err := q.g.Authorizer.Check(q.ctx, snap, q.caller, q.g.Check(snap, q.caller, "ecr:CreateRepository", q.account, q.name)); err != nil {
		return nil, err
	}
	return q.g.ensure(q.ctx, q.account, q.name, ForPush)
}

// ensure makes a repository unless it is there.
func (g *Registry) ensure(ctx context.Context, account, name, purpose string) (repo *state.Repository, err error) {
	now := g.Now()
	err = g.DB.Update(ctx, func(tx *store.Tx) (err error) {
		have, ok := state.Repositories.Get(tx, state.RepositoryKey(account, name))
		if ok {
			repo = have
			return nil
		}
		repo, err = g.create(tx, account, name, purpose, now)
		return err
	})
	return repo, err
}

// Actions that a registry policy speaks of in its first version. In the second
// it speaks of all.
var registryActions = []string{"ecr:ReplicateImage", "ecr:BatchImportUpstreamImage", "ecr:CreateRepository"}

// registryPolicy is what an account's registry policy says of an action: its
// text, or "".
func registryPolicy(r store.Reader, account, action string) string {
	c, ok := state.RegistryConfigs.Get(r, account)
	if !ok || c.Policy == "" {
		return ""
	}
	if Setting(r, account, PolicyScope) == "V1" && !slices.Contains(registryActions, action) {
		return ""
	}
	return c.Policy
}

// join makes one policy of a repository's and its registry's: what either
// allows is allowed, what either denies is denied.
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	type document struct {
		Version   string
		Statement []json.RawMessage
	}
	read := func(text string) (d document, ok bool) {
		var raw struct {
			Version   string
			Statement json.RawMessage
		}
		if json.Unmarshal([]byte(text), &raw) != nil {
			return d, false
		}
		if json.Unmarshal(raw.Statement, &d.Statement) != nil {
			d.Statement = []json.RawMessage{raw.Statement}
		}
		d.Version = raw.Version
		// The statements of two documents may have the same id.
		for i, s := range d.Statement {
			var members map[string]json.RawMessage
			if json.Unmarshal(s, &members) != nil {
				return d, false
			}
			delete(members, "Sid")
			if d.Statement[i], _ = json.Marshal(members); d.Statement[i] == nil {
				return d, false
			}
		}
		return d, true
	}
	x, ok1 := read(a)
	y, ok2 := read(b)
	if !ok1 || !ok2 {
		return "{}" // cannot be read: it denies whoever depends on it
	}
	x.Version = max(x.Version, y.Version)
	x.Statement = append(x.Statement, y.Statement...)
	if x.Version == "" {
		x.Version = "2008-10-17"
	}
	text, err := json.Marshal(x)
	if err != nil {
		return "{}"
	}
	return string(text)
}

// excluded says whether pulls of a caller leave no time behind.
func excluded(r store.Reader, c *auth.Caller) bool {
	return c != nil && state.PullTimeExclusions.Has(r, c.Account+"/"+c.PrincipalARN())
}
