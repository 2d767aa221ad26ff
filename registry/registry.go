// Package registry is the region's image registry: the OCI distribution API,
// and under it the operations on images and layers that the ECR API shares.
//
// Bytes are in package content, what repositories hold is in the store by way
// of package image; this package brings the two together, so that content is
// there before a row says so and goes only after no row says so any more.
//
// It owns every request below /v2/, and the passwords for it. It must never
// decide who may do what: on each request it asks package auth, with the action
// and the repository, for what the policies of this moment say.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/registry/upstream"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Config is what a Registry is made of.
type Config struct {
	Dir        string           // required: where content lives
	DB         *store.DB        // required
	Region     string           // required
	Authorizer *auth.Authorizer // required
	Log        *slog.Logger     // required
	Now        func() time.Time // nil: time.Now
	// Grace is how long content that no image uses is kept for the push it may
	// be part of. 0: a day.
	Grace time.Duration
}

// Registry serves and keeps images. Its methods do not authorize: only
// ServeHTTP does.
type Registry struct {
	Config
	content  *content.Store
	sealer   *sealer
	upstream *upstream.Client

	// What goes on while nobody asks: base ends it, work waits for it.
	mu      sync.Mutex // of base's end and work's beginnings
	base    context.Context
	end     context.CancelFunc
	work    sync.WaitGroup
	flights singleflight.Group
}

// New opens the registry. Who does must close it.
func New(ctx context.Context, c Config) (*Registry, error) {
	if c.Dir == "" || c.DB == nil || c.Region == "" || c.Authorizer == nil || c.Log == nil {
		return nil, errors.New("registry: incomplete configuration")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Grace == 0 {
		c.Grace = 24 * time.Hour
	}
	s, err := content.Open(c.Dir)
	if err != nil {
		return nil, err
	}
	keys, err := openSealer(ctx, c.DB)
	if err != nil {
		return nil, err
	}
	g := &Registry{Config: c, content: s, sealer: keys, upstream: upstream.New()}
	g.base, g.end = context.WithCancel(context.Background())
	return g, nil
}

// RepositoryARN names a repository of this region.
func (g *Registry) RepositoryARN(account, name string) string {
	return "arn:aws:ecr:" + g.Region + ":" + account + ":repository/" + name
}

// repository returns a repository or a NoRepositoryError.
func repository(r store.Reader, key string) (*state.Repository, error) {
	repo, ok := state.Repositories.Get(r, key)
	if !ok {
		account, name := state.RepositoryOf(key)
		return nil, &image.NoRepositoryError{Account: account, Name: name}
	}
	return repo, nil
}

// PutImage stores a manifest. want, unless "", is the digest it must have.
// existed says that image and tag were there already.
func (g *Registry) PutImage(ctx context.Context, key, mediaType string, manifest []byte, tag, want string) (img *state.Image, existed bool, err error) {
	m, err := image.Parse(mediaType, manifest)
	if err != nil {
		return nil, false, &ManifestError{err}
	}
	if want != "" && want != string(m.Digest) {
		d, ok := content.ParseDigest(want)
		if !ok || !d.Is(manifest) {
			return nil, false, &DigestError{want, string(m.Digest)}
		}
		m.Digest = d // by another algorithm
	}
	if tag != "" && !image.ValidTag(tag) {
		return nil, false, &TagError{tag}
	}
	now := g.Now()
	put := func(tx *store.Tx) error {
		repo, err := repository(tx, key)
		if err != nil {
			return err
		}
		img, existed, err = image.Put(tx, repo, m, tag, now)
		return err
	}
	// A rehearsal first: for what the rows refuse, or have, the disk is left alone.
	err = g.DB.Update(ctx, func(tx *store.Tx) error {
		if err := put(tx); err != nil {
			return err
		}
		return errRehearsal
	})
	if !errors.Is(err, errRehearsal) || existed {
		return img, existed, notRehearsal(err)
	}
	pin, err := g.content.Put(m.Digest, manifest)
	if err != nil {
		return nil, false, err
	}
	defer pin.Release()
	var repo *state.Repository
	err = g.DB.Update(ctx, func(tx *store.Tx) error {
		if err := put(tx); err != nil {
			return err
		}
		repo, err = repository(tx, key)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	g.replicate(ctx, repo, img, m, tag)
	return img, existed, nil
}

var errRehearsal = errors.New("rehearsal")

func notRehearsal(err error) error {
	if errors.Is(err, errRehearsal) {
		return nil
	}
	return err
}

// ManifestError: the manifest cannot be read or is of no known kind.
type ManifestError struct{ Err error }

func (e *ManifestError) Error() string { return e.Err.Error() }
func (e *ManifestError) Unwrap() error { return e.Err }

// DigestError: the manifest does not have the digest it was sent with.
type DigestError struct{ Want, Have string }

func (e *DigestError) Error() string {
	return fmt.Sprintf("The provided image digest '%s' does not match the digest '%s' calculated from the image manifest", e.Want, e.Have)
}

// TagError: an image cannot have this tag.
type TagError struct{ Tag string }

func (e *TagError) Error() string { return fmt.Sprintf("invalid image tag '%s'", e.Tag) }

// Manifest returns the bytes of an image's manifest.
func (g *Registry) Manifest(img *state.Image) ([]byte, error) {
	b, err := g.content.Read(content.Digest(img.Digest))
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", img.Key(), err)
	}
	return b, nil
}

// Pulled records that an image was pulled, at most once a day. Should that
// fail, the pull is none the worse for it.
func (g *Registry) Pulled(ctx context.Context, img *state.Image) {
	now := g.Now()
	if now.Sub(img.PulledAt) < pulledEvery || excluded(g.DB.Snapshot(), auth.FromContext(ctx)) {
		return
	}
	err := g.DB.Update(ctx, func(tx *store.Tx) error {
		have, ok := state.Images.Get(tx, img.Key())
		if !ok || now.Sub(have.PulledAt) < pulledEvery {
			return nil
		}
		next := *have
		next.PulledAt = now
		state.Images.Put(tx, &next)
		return nil
	})
	if err != nil {
		g.Log.LogAttrs(ctx, slog.LevelWarn, "pull time not recorded", slog.String("image", img.Key()), slog.Any("error", err))
	}
}

const pulledEvery = 24 * time.Hour

// DeleteImage removes an image by its digest, or a tag by its name; with both,
// the tag if it names that image. The image goes with its last tag. tags are
// those that went.
func (g *Registry) DeleteImage(ctx context.Context, key, digest, tag string) (img *state.Image, tags []string, err error) {
	err = g.DB.Update(ctx, func(tx *store.Tx) error {
		if _, err := repository(tx, key); err != nil {
			return err
		}
		if img, err = image.Find(tx, key, digest, tag); err != nil {
			return err
		}
		if tag != "" {
			tags = []string{tag}
			return image.Untag(tx, img, tag)
		}
		tags = image.Tags(tx, img)
		return image.Delete(tx, img)
	})
	return img, tags, err
}

// DeleteLayer takes a layer that no image uses out of a repository.
func (g *Registry) DeleteLayer(ctx context.Context, key string, d content.Digest) error {
	return g.DB.Update(ctx, func(tx *store.Tx) error {
		layer := state.ImageKey(key, string(d))
		if !state.RepositoryLayers.Has(tx, layer) {
			return blobUnknown
		}
		// An image that comes in between makes this run again and be seen.
		state.Images.Guard(tx, key+"@")
		if used(tx, layer) {
			return blobInUse
		}
		state.RepositoryLayers.Delete(tx, layer)
		return nil
	})
}

// BeginUpload starts a layer.
func (g *Registry) BeginUpload(key string) (*content.Upload, error) {
	return g.content.Begin(key, g.largest(key))
}

// largest is how many bytes a layer of the repository may have.
func (g *Registry) largest(key string) int64 {
	account, _ := state.RepositoryOf(key)
	return int64(state.Limit(g.DB.Snapshot(), account, "ecr/layer-mebibytes")) << 20
}

// Upload finds a layer's upload. It must have begun in the same repository.
func (g *Registry) Upload(key, id string) (*content.Upload, error) {
	return g.content.Upload(id, key, g.largest(key))
}

// CompleteUpload makes an upload a layer of the repository. r, unless nil,
// gives its last bytes, which belong at offset at, or -1 for the end. existed
// says that the repository had the layer.
func (g *Registry) CompleteUpload(ctx context.Context, key string, u *content.Upload, d content.Digest, r io.Reader, at int64) (size int64, existed bool, err error) {
	size, pin, err := u.Commit(ctx, d, r, at)
	if err != nil {
		return size, false, err
	}
	defer pin.Release()
	now := g.Now()
	err = g.DB.Update(ctx, func(tx *store.Tx) error {
		if _, err := repository(tx, key); err != nil {
			return err
		}
		existed = image.AddLayer(tx, key, d, size, "", now)
		return nil
	})
	return size, existed, err
}

// Mount makes a layer of one repository part of another. ok is false if the
// first does not have it.
func (g *Registry) Mount(ctx context.Context, from, to string, d content.Digest) (ok bool, err error) {
	defer g.content.Pin(d).Release()
	now := g.Now()
	err = g.DB.Update(ctx, func(tx *store.Tx) error {
		if _, err := repository(tx, to); err != nil {
			return err
		}
		l, have := state.RepositoryLayers.Get(tx, state.ImageKey(from, string(d)))
		if ok = have; ok {
			image.AddLayer(tx, to, d, l.Size, l.MediaType, now)
		}
		return nil
	})
	return ok && err == nil, err
}

// Settings of an account's registry.
const (
	BlobMounting = "BLOB_MOUNTING"
	PolicyScope  = "REGISTRY_POLICY_SCOPE"
	ScanVersion  = "BASIC_SCAN_TYPE_VERSION"
	Enabled      = "ENABLED"
	Disabled     = "DISABLED"
)

// Settings are the values that each setting can have; the first is what it is
// until it is set.
var Settings = map[string][]string{
	BlobMounting: {Disabled, Enabled},
	PolicyScope:  {"V2", "V1"},
	ScanVersion:  {"AWS_NATIVE", "CLAIR"},
}

// Setting is what a setting of an account is.
func Setting(r store.Reader, account, name string) string {
	if s, ok := state.RegistrySettings.Get(r, account+"/"+name); ok {
		return s.Value
	}
	return Settings[name][0]
}

// mounting says whether an account lets layers be mounted across its repositories.
func mounting(r store.Reader, account string) bool {
	return Setting(r, account, BlobMounting) == Enabled
}

// Collect removes what nothing needs: uploads that were left, layers that no
// image has used for a while, and content that no repository has. It is safe
// while pushes and pulls run, and does its work in steps that may end anywhere.
func (g *Registry) Collect(ctx context.Context) error {
	before := g.Now().Add(-g.Grace)
	if _, err := g.content.Expire(before); err != nil {
		return err
	}
	for l := range state.RepositoryLayers.All(g.DB.Snapshot()) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := g.collectLayer(ctx, l, before); err != nil {
			return fmt.Errorf("collect layer %s: %w", l.Digest, err)
		}
	}
	var idle []content.Digest
	snap := g.DB.Snapshot()
	if err := g.content.Each(func(d content.Digest, at time.Time) bool {
		if at.Before(before) && !needed(snap, d) {
			idle = append(idle, d)
		}
		return ctx.Err() == nil
	}); err != nil {
		return err
	}
	for _, d := range idle {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := g.content.Remove(d, func() bool { return needed(g.DB.Snapshot(), d) }); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// collectLayer moves one layer along: in use, idle since now, gone.
func (g *Registry) collectLayer(ctx context.Context, l *state.RepositoryLayer, before time.Time) error {
	key := state.ImageKey(l.Repository, l.Digest)
	if !l.Idle.IsZero() && l.Idle.After(before) || l.Idle.IsZero() && used(g.DB.Snapshot(), key) {
		return nil
	}
	now := g.Now()
	return g.DB.Update(ctx, func(tx *store.Tx) error {
		l, ok := state.RepositoryLayers.Get(tx, key)
		if !ok {
			return nil
		}
		// An image that comes in between makes this run again and be seen.
		state.Images.Guard(tx, l.Repository+"@")
		switch inUse := used(tx, key); {
		case inUse && !l.Idle.IsZero():
			next := *l
			next.Idle = time.Time{}
			state.RepositoryLayers.Put(tx, &next)
		case !inUse && l.Idle.IsZero():
			next := *l
			next.Idle = now
			state.RepositoryLayers.Put(tx, &next)
		case !inUse && l.Idle.Before(before):
			state.RepositoryLayers.Delete(tx, key)
		}
		return nil
	})
}

// InArchive says that a layer is part of images in the archive and of no other.
func InArchive(r store.Reader, repository string, d content.Digest) (err error) {
	for i := range state.Images.By(r, "layer", state.ImageKey(repository, string(d))) {
		if !i.Archived() {
			return nil
		}
		err = &image.ArchivedError{Digest: i.Digest}
	}
	return err
}

func used(r store.Reader, layer string) bool {
	for range state.Images.By(r, "layer", layer) {
		return true
	}
	return false
}

// needed says whether any repository has the content, as a layer or a manifest.
func needed(r store.Reader, d content.Digest) bool {
	for range state.RepositoryLayers.By(r, "digest", string(d)) {
		return true
	}
	for range state.Images.By(r, "digest", string(d)) {
		return true
	}
	return false
}

// link is what a download link says: this content, until then.
const (
	linkPath = "/v2/_layer/"
	linkFor  = time.Hour
)

// LayerURL makes a link from which a layer can be fetched without further
// credentials for an hour. base is scheme and host.
func (g *Registry) LayerURL(base string, d content.Digest) string {
	token := g.sealer.seal(sealedLink, fmt.Appendf(nil, "%s %d", d, g.Now().Add(linkFor).Unix()))
	return strings.TrimSuffix(base, "/") + linkPath + token
}

// openLink is the other end of LayerURL.
func (g *Registry) openLink(token string) (content.Digest, error) {
	b, err := g.sealer.open(sealedLink, token)
	if err != nil {
		return "", err
	}
	name, until, _ := strings.Cut(string(b), " ")
	d, ok := content.ParseDigest(name)
	t, err := strconv.ParseInt(until, 10, 64)
	if !ok || err != nil {
		return "", errInvalid
	}
	if g.Now().Unix() > t {
		return "", errExpired
	}
	return d, nil
}

var _ http.Handler = (*Registry)(nil)
