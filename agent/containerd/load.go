package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	specsgo "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/agent/runtime"
)

// Load makes an image of one layer that comes from no registry: the
// uncompressed tar in the file, which has the given digest. It answers the
// image, whose digest follows from the layer alone.
func (r *Runtime) Load(ctx context.Context, file, layer string, size int64) (runtime.Image, error) {
	img, err := r.loadLayer(ctx, file, layer, size)
	if err != nil {
		return runtime.Image{}, fmt.Errorf("load %s: %w", layer, err)
	}
	return img.public, nil
}

func (r *Runtime) loadLayer(ctx context.Context, file, layer string, size int64) (*image, error) {
	diff, err := digest.Parse(layer)
	if err != nil {
		return nil, err
	}
	platform := ocispec.Platform{Architecture: goruntime.GOARCH, OS: "linux"}
	configBlob, err := json.Marshal(ocispec.Image{Platform: platform, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}}})
	if err != nil {
		return nil, err
	}
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(configBlob), Size: int64(len(configBlob))}
	layerDesc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diff, Size: size}
	manifestBlob, err := json.Marshal(ocispec.Manifest{Versioned: specsgo.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layerDesc}})
	if err != nil {
		return nil, err
	}
	manifest := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifestBlob), Size: int64(len(manifestBlob)), Platform: &platform}
	dgst := manifest.Digest.String()

	unlock, err := r.pulls.lock(ctx, dgst)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if img, err := r.image(ctx, dgst); err == nil || !errors.Is(err, runtime.ErrNotFound) {
		return img, err
	}
	ctx, done, err := r.client.WithLease(ctx)
	if err != nil {
		return nil, native(err)
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }()

	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	store := r.client.ContentStore()
	for _, b := range []struct {
		desc   ocispec.Descriptor
		from   io.Reader
		labels map[string]string
	}{
		// Once it is unpacked nobody needs the layer: nothing refers to it.
		{layerDesc, f, nil},
		{config, bytes.NewReader(configBlob), nil},
		{manifest, bytes.NewReader(manifestBlob), map[string]string{"containerd.io/gc.ref.content.config": config.Digest.String()}},
	} {
		if err := content.WriteBlob(ctx, store, b.desc.Digest.String(), b.from, b.desc, content.WithLabels(b.labels)); err != nil && !errors.Is(native(err), runtime.ErrExists) {
			return nil, fmt.Errorf("write %s: %w", b.desc.Digest, native(err))
		}
	}
	record := images.Image{Name: dgst, Target: manifest, CreatedAt: time.Now(), Labels: map[string]string{
		labelChain: identity.ChainID([]digest.Digest{diff}).String(), labelConfig: config.Digest.String(), labelSize: fmt.Sprint(size),
	}}
	if err := client.NewImageWithPlatform(r.client, record, platforms.Default()).Unpack(ctx, snapshotter); err != nil {
		return nil, fmt.Errorf("unpack: %w", native(err))
	}
	// Named last: an image that has a name is whole.
	if _, err := r.client.ImageService().Create(ctx, record); err != nil && !errors.Is(native(err), runtime.ErrExists) {
		return nil, native(err)
	}
	return r.image(ctx, dgst)
}

// Destroy removes everything that the runtime has: containers, images, and its
// namespace in containerd.
func (r *Runtime) Destroy(ctx context.Context) error {
	// A namespace that is not there has nothing in it.
	if _, err := r.client.NamespaceService().Labels(ctx, r.cfg.Namespace); errors.Is(native(err), runtime.ErrNotFound) {
		return os.RemoveAll(r.cfg.Dir)
	}
	list, err := r.List(ctx, nil)
	if err != nil {
		return err
	}
	for _, c := range list {
		if err := r.Delete(ctx, c.ID); err != nil {
			return err
		}
	}
	if err := r.sweep(ctx); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	store := r.client.ImageService()
	pulled, err := store.List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", native(err))
	}
	for _, i := range pulled {
		if err := native(store.Delete(ctx, i.Name, images.SynchronousDelete())); err != nil && !errors.Is(err, runtime.ErrNotFound) {
			return fmt.Errorf("remove image %s: %w", i.Name, err)
		}
	}
	err = native(r.client.NamespaceService().Delete(ctx, r.cfg.Namespace))
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("remove containerd namespace %s: %w", r.cfg.Namespace, err)
	}
	return os.RemoveAll(r.cfg.Dir)
}
