package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/registry/upstream"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	// freshFor is how long a tag of another registry is not asked for again.
	freshFor = 24 * time.Hour
	// importAtOnce is how many layers of an image are fetched at a time.
	importAtOnce = 3
	// importDepth is how deep indexes may be nested.
	importDepth = 4
)

// UpstreamError: the registry behind a pull-through cache rule did not give
// what was asked for.
type UpstreamError struct {
	Host string
	Err  error
}

func (e *UpstreamError) Error() string {
	return fmt.Sprintf("Unable to get the image from the upstream registry %s: %v", e.Host, e.Err)
}
func (e *UpstreamError) Unwrap() error { return e.Err }

func (e *UpstreamError) status() int {
	switch {
	case errors.Is(e.Err, upstream.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(e.Err, upstream.ErrDenied):
		return http.StatusForbidden
	}
	return http.StatusServiceUnavailable
}

func (e *UpstreamError) code() string {
	switch {
	case errors.Is(e.Err, upstream.ErrNotFound):
		return "MANIFEST_UNKNOWN"
	case errors.Is(e.Err, upstream.ErrDenied):
		return "DENIED"
	}
	return "UNAVAILABLE"
}

// A source is where the images of a repository come from.
type source struct{ host, repository string }

// sourceOf is the source of a repository, if a pull-through cache rule has its name.
func sourceOf(r store.Reader, account, name string) (source, bool) {
	rule, ok := state.ByPrefix(r, state.PullThroughRules, account, name)
	if !ok {
		return source{}, false
	}
	rest := name
	if rule.Prefix != state.Root {
		rest = strings.TrimPrefix(strings.TrimPrefix(name, strings.TrimSuffix(rule.Prefix, "/")), "/")
	}
	if p := strings.TrimSuffix(rule.UpstreamPrefix, "/"); p != "" && p != state.Root {
		rest = p + "/" + rest
	}
	return source{rule.Upstream, rest}, true
}

// Found is an image, or only its manifest while its layers are on their way.
type Found struct {
	*state.Image
	// Manifest is what another registry gave; nil if the image is in the repository.
	Manifest []byte
}

// Fetch finds an image of a repository, and, if a pull-through cache rule has
// the repository, in the registry behind it. The caller may do
// ecr:BatchGetImage; whether more is asked here.
func (g *Registry) Fetch(ctx context.Context, account, name, digest, tag string) (*Found, error) {
	snap, key := g.DB.Snapshot(), state.RepositoryKey(account, name)
	from, through := sourceOf(snap, account, name)
	if !through {
		if _, err := repository(snap, key); err != nil {
			return nil, err
		}
	}
	img, err := image.Pullable(image.Find(snap, key, digest, tag))
	if !through || err == nil && (digest != "" || g.fresh(snap, key, tag)) {
		return &Found{Image: img}, err
	}
	have := &Found{Image: img}
	if denied := g.mayImport(ctx, snap, account, name); denied != nil {
		if err == nil {
			return have, nil // as old as it may be
		}
		return nil, denied
	}
	reference := digest
	if reference == "" {
		reference = tag
	}
	m, b, uerr := g.manifestOf(ctx, from, reference)
	switch {
	case uerr != nil && err == nil && ctx.Err() == nil:
		g.Log.LogAttrs(ctx, slog.LevelWarn, "image served from the cache alone", slog.String("image", img.Key()), slog.Any("error", uerr))
		return have, nil
	case uerr != nil:
		return nil, uerr
	}
	if _, err := g.ensure(ctx, account, name, ForPullThrough); err != nil {
		return nil, err
	}
	if err == nil && img.Digest == string(m.Digest) {
		return have, g.touch(ctx, key, tag, img)
	}
	g.startImport(key, from, m, b, tag)
	return &Found{Manifest: b, Image: &state.Image{Repository: key, Digest: string(m.Digest), MediaType: m.MediaType, Size: m.Size}}, nil
}

// fresh says whether a tag was compared with its source not long ago.
func (g *Registry) fresh(r store.Reader, key, tag string) bool {
	t, ok := state.ImageTags.Get(r, state.ImageTagKey(key, tag))
	return ok && g.Now().Sub(t.At) < freshFor
}

// touch records that a tag is still what it was.
func (g *Registry) touch(ctx context.Context, key, tag string, img *state.Image) error {
	now := g.Now()
	return g.DB.Update(ctx, func(tx *store.Tx) error {
		if t, ok := state.ImageTags.Get(tx, state.ImageTagKey(key, tag)); ok && t.Digest == img.Digest {
			next := *t
			next.At = now
			state.ImageTags.Put(tx, &next)
		}
		return nil
	})
}

// mayImport says whether the caller may bring images of other registries here.
func (g *Registry) mayImport(ctx context.Context, r store.Reader, account, name string) error {
	c := auth.FromContext(ctx)
	checks := []auth.Check{g.Check(r, c, "ecr:BatchImportUpstreamImage", account, name)}
	if !state.Repositories.Has(r, state.RepositoryKey(account, name)) {
		checks = append(checks, g.Check(r, c, "ecr:CreateRepository", account, name))
	}
	return g.Authorizer.Check(ctx, r, c, checks...)
}

// once does f for all who want it at the same time, under the registry's own
// context: that one of them goes away stops it for none.
func (g *Registry) once(ctx context.Context, key string, f func(ctx context.Context) (any, error)) (any, error) {
	done := g.flights.DoChan(key, func() (any, error) {
		// Whoever waits may go away: Close waits for the work itself.
		if !g.begin() {
			return nil, context.Canceled
		}
		defer g.work.Done()
		return f(g.base)
	})
	select {
	case r := <-done:
		return r.Val, r.Err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (g *Registry) manifestOf(ctx context.Context, from source, reference string) (*image.Manifest, []byte, error) {
	type result struct {
		m *image.Manifest
		b []byte
	}
	v, err := g.once(ctx, "manifest "+from.host+" "+from.repository+" "+reference, func(ctx context.Context) (any, error) {
		m, b, err := g.upstream.Manifest(ctx, from.host, from.repository, reference)
		return result{m, b}, err
	})
	if err != nil {
		return nil, nil, &UpstreamError{from.host, err}
	}
	r := v.(result)
	return r.m, r.b, nil
}

// startImport brings an image here while its manifest is already answered. Who
// comes for its layers waits for them.
func (g *Registry) startImport(key string, from source, m *image.Manifest, b []byte, tag string) {
	if !g.begin() {
		return
	}
	go func() {
		defer g.work.Done()
		_, err := g.once(g.base, "image "+key+" "+string(m.Digest)+" "+tag, func(ctx context.Context) (any, error) {
			return nil, g.importImage(ctx, key, from, m, b, tag, importDepth)
		})
		if err != nil && g.base.Err() == nil {
			g.Log.LogAttrs(g.base, slog.LevelWarn, "image not imported", slog.String("repository", key), slog.String("digest", string(m.Digest)), slog.Any("error", err))
		}
	}()
}

// begin counts a piece of work that Close waits for, unless the registry ends.
func (g *Registry) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.base.Err() != nil {
		return false
	}
	g.work.Add(1)
	return true
}

// importImage brings an image here, with all that it needs.
func (g *Registry) importImage(ctx context.Context, key string, from source, m *image.Manifest, b []byte, tag string, depth int) error {
	if depth == 0 {
		return errors.New("indexes are nested too deep")
	}
	for _, d := range m.Manifests {
		if state.Images.Has(g.DB.Snapshot(), state.ImageKey(key, d.Digest)) {
			continue
		}
		child, text, err := g.manifestOf(ctx, from, d.Digest)
		if err != nil {
			return err
		}
		if err := g.importImage(ctx, key, from, child, text, "", depth-1); err != nil {
			return err
		}
	}
	layers, lctx := errgroup.WithContext(ctx)
	layers.SetLimit(importAtOnce)
	for _, d := range m.Layers {
		layers.Go(func() error { return g.importLayer(lctx, key, from, content.Digest(d.Digest)) })
	}
	if err := layers.Wait(); err != nil {
		return err
	}
	_, _, err := g.PutImage(ctx, key, m.MediaType, b, tag, string(m.Digest))
	return err
}

// importLayer brings a layer here, once for all who want it.
func (g *Registry) importLayer(ctx context.Context, key string, from source, d content.Digest) error {
	_, err := g.once(ctx, "layer "+key+" "+string(d), func(ctx context.Context) (any, error) {
		if state.RepositoryLayers.Has(g.DB.Snapshot(), state.ImageKey(key, string(d))) {
			return nil, nil
		}
		body, err := g.upstream.Blob(ctx, from.host, from.repository, d)
		if err != nil {
			return nil, &UpstreamError{from.host, err}
		}
		defer body.Close()
		u, err := g.BeginUpload(key)
		if err != nil {
			return nil, err
		}
		if _, _, err := g.CompleteUpload(ctx, key, u, d, body, 0); err != nil {
			u.Cancel(context.WithoutCancel(ctx)) // nobody goes on with it
			return nil, fmt.Errorf("layer %s of %s: %w", d, from.host, err)
		}
		return nil, nil
	})
	return err
}

// fetchLayer makes sure that a layer is in a repository that has a source, if
// the source has it.
func (g *Registry) fetchLayer(ctx context.Context, account, name string, d content.Digest) error {
	snap := g.DB.Snapshot()
	from, ok := sourceOf(snap, account, name)
	if !ok || state.RepositoryLayers.Has(snap, state.ImageKey(state.RepositoryKey(account, name), string(d))) {
		return nil
	}
	if err := g.mayImport(ctx, snap, account, name); err != nil {
		return err
	}
	if _, err := repository(snap, state.RepositoryKey(account, name)); err != nil {
		return err // a manifest comes first
	}
	err := g.importLayer(ctx, state.RepositoryKey(account, name), from, d)
	if errors.Is(err, upstream.ErrNotFound) {
		return nil // said of the repository, then
	}
	return err
}

// PingUpstream says whether there is a registry at a host.
func (g *Registry) PingUpstream(ctx context.Context, host string) error {
	return g.upstream.Ping(ctx, host)
}

// Close ends what the registry does by itself, and waits for it.
func (g *Registry) Close() {
	g.mu.Lock()
	g.end()
	g.mu.Unlock()
	g.work.Wait()
	g.upstream.Close()
}
