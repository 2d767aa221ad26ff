package registry

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Destinations are the registries that an image of a repository is to be
// copied to.
func Destinations(r store.Reader, repo *state.Repository) (out []state.ReplicationDestination) {
	c, ok := state.RegistryConfigs.Get(r, repo.Account)
	if !ok {
		return nil
	}
	seen := map[state.ReplicationDestination]bool{}
	for _, rule := range c.Replication {
		if !selects(rule.Filters, repo.Name) {
			continue
		}
		for _, d := range rule.Destinations {
			if !seen[d] {
				seen[d] = true
				out = append(out, d)
			}
		}
	}
	return out
}

// selects says whether one of the filters, if there are any, takes the name.
func selects(filters []state.RepositoryFilter, name string) bool {
	for _, f := range filters {
		if f.Type == "PREFIX_MATCH" && strings.HasPrefix(name, f.Filter) || f.Type != "PREFIX_MATCH" && image.Match(f.Filter, name) {
			return true
		}
	}
	return len(filters) == 0
}

// replicate copies an image that was just put to where its registry says. The
// content is there already, since all registries of a region share it: what is
// copied are rows, in one transaction for each destination. That one cannot
// have it is recorded, and no fault of the push.
func (g *Registry) replicate(ctx context.Context, repo *state.Repository, img *state.Image, m *image.Manifest, tag string) {
	for _, d := range Destinations(g.DB.Snapshot(), repo) {
		failure := ""
		err := g.replicateTo(ctx, repo, img, m, tag, d)
		if err != nil {
			failure = "InternalFailure"
			if _, ok := errors.AsType[*auth.Denied](err); ok {
				failure = "AccessDenied"
			} else if _, ok := errors.AsType[*image.ImmutableError](err); ok {
				failure = "ImageTagAlreadyExists"
			} else if _, ok := errors.AsType[*image.LimitError](err); ok {
				failure = "LimitExceeded"
			}
			g.Log.LogAttrs(ctx, slog.LevelWarn, "image not replicated", slog.String("image", img.Key()), slog.String("to", d.Account), slog.Any("error", err))
		}
		err = g.DB.Update(ctx, func(tx *store.Tx) error {
			if state.Images.Has(tx, img.Key()) {
				state.Replicas.Put(tx, &state.Replica{Image: img.Key(), Destination: d, Failure: failure})
			}
			return nil
		})
		if err != nil {
			g.Log.LogAttrs(ctx, slog.LevelError, "replication not recorded", slog.String("image", img.Key()), slog.Any("error", err))
		}
	}
}

func (g *Registry) replicateTo(ctx context.Context, repo *state.Repository, img *state.Image, m *image.Manifest, tag string, d state.ReplicationDestination) error {
	// The destination's registry policy lets the account of the source in.
	source := &auth.Caller{Kind: auth.RootUser, Account: repo.Account, ARN: "arn:aws:iam::" + repo.Account + ":root", UserID: repo.Account}
	now := g.Now()
	return g.DB.Update(ctx, func(tx *store.Tx) error {
		check := func(action string) error {
			return g.Authorizer.Check(ctx, tx, source, g.CheckNew(tx, action, d.Account, repo.Name))
		}
		if err := check("ecr:ReplicateImage"); err != nil {
			return err
		}
		to, ok := state.Repositories.Get(tx, state.RepositoryKey(d.Account, repo.Name))
		if !ok {
			if err := check("ecr:CreateRepository"); err != nil {
				return err
			}
			var err error
			if to, err = g.create(tx, d.Account, repo.Name, ForReplication, now); err != nil {
				return err
			}
		}
		for _, l := range img.Layers {
			layer, ok := state.RepositoryLayers.Get(tx, state.ImageKey(repo.Key(), l))
			if !ok {
				return &image.MissingLayersError{Digests: []string{l}} // deleted meanwhile, with its image
			}
			if have, ok := state.RepositoryLayers.Get(tx, state.ImageKey(to.Key(), l)); !ok || !have.Idle.IsZero() {
				next := *layer
				next.Repository, next.PushedAt, next.Idle = to.Key(), now, now
				state.RepositoryLayers.Put(tx, &next)
			}
		}
		if !state.Images.Has(tx, img.Key()) {
			return &image.NotFoundError{Repository: repo.Key(), Digest: img.Digest}
		}
		_, _, err := image.Put(tx, to, m, tag, now)
		return err
	})
}
