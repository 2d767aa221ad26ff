package containerd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/agent/dial"
	"github.com/berth-run/berth/agent/runtime"
)

// An image is kept in containerd under its digest as its name: what was
// pulled under two names is one image, and a name that moved on names nothing
// here. The references it was pulled by are labels.
const (
	labelReference = "run.berth/reference." // + n = reference
	labelChain     = "run.berth/chain"      // chain id of the unpacked layers
	labelConfig    = "run.berth/config"     // digest of the config
	labelSize      = "run.berth/size"
)

// image is what is remembered of an unpacked image.
type image struct {
	public runtime.Image
	chain  string // the snapshot that containers start from
}

// descriptor remembers what a digest's media type and size are, from the
// Resolve that usually comes before a Pull.
type descriptor = ocispec.Descriptor

// Resolve implements runtime.Runtime.
func (r *Runtime) Resolve(ctx context.Context, src runtime.Source) (runtime.Descriptor, error) {
	desc, _, err := r.resolve(ctx, src, src.Reference)
	if err != nil {
		return runtime.Descriptor{}, err
	}
	return runtime.Descriptor{Digest: desc.Digest.String(), MediaType: desc.MediaType, Size: desc.Size}, nil
}

func (r *Runtime) resolve(ctx context.Context, src runtime.Source, ref string) (descriptor, remotes.Resolver, error) {
	resolver, err := r.resolver(src)
	if err != nil {
		return descriptor{}, nil, err
	}
	_, desc, err := resolver.Resolve(ctx, ref)
	if err != nil {
		return descriptor{}, nil, fmt.Errorf("resolve %s: %w", ref, registryError(err))
	}
	r.mediums.put(desc.Digest.String(), desc)
	return desc, resolver, nil
}

// resolver speaks to the registry that src describes.
func (r *Runtime) resolver(src runtime.Source) (remotes.Resolver, error) {
	named, err := reference.ParseNamed(src.Reference)
	if err != nil {
		return nil, fmt.Errorf("image reference %q: %v: %w", src.Reference, err, runtime.ErrInvalid)
	}
	httpClient, err := r.sources.client(src)
	if err != nil {
		return nil, err
	}
	host := src.Host
	if host == "" {
		host, err = docker.DefaultHost(reference.Domain(named))
		if err != nil {
			return nil, err
		}
	}
	scheme := "https"
	if src.PlainHTTP {
		scheme = "http"
	}
	auth := docker.NewDockerAuthorizer(docker.WithAuthClient(httpClient), docker.WithAuthCreds(func(string) (string, string, error) {
		if src.Auth == nil {
			return "", "", nil
		}
		return src.Auth.Username, src.Auth.Password, nil
	}))
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: func(string) ([]docker.RegistryHost, error) {
			return []docker.RegistryHost{{
				Client: httpClient, Authorizer: auth, Host: host, Scheme: scheme, Path: "/v2",
				Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
			}}, nil
		},
	}), nil
}

// registryError sorts a registry's refusals.
func registryError(err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden):
		return wrapped{withBody(err, status), runtime.ErrUnauthorized}
	case errors.As(err, &status) && status.StatusCode == http.StatusNotFound:
		return wrapped{err, runtime.ErrNotFound}
	case errors.As(err, &status):
		return withBody(err, status)
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return wrapped{err, runtime.ErrUnauthorized}
	}
	return native(err)
}

// withBody adds the registry's own words, which say what it missed.
func withBody(err error, status remoteerrors.ErrUnexpectedStatus) error {
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(status.Body, &body) != nil || len(body.Errors) == 0 {
		return err
	}
	var words []string
	for _, e := range body.Errors {
		words = append(words, strings.TrimSpace(e.Code+": "+e.Message))
	}
	return fmt.Errorf("%w: %s", err, strings.Join(words, "; "))
}

// Pull implements runtime.Runtime.
func (r *Runtime) Pull(ctx context.Context, src runtime.Source, dgst string, progress func(runtime.Progress)) (runtime.Image, error) {
	if _, err := digest.Parse(dgst); err != nil {
		return runtime.Image{}, fmt.Errorf("digest %q: %v: %w", dgst, err, runtime.ErrInvalid)
	}
	// Ten tasks of one image pull it once.
	unlock, err := r.pulls.lock(ctx, dgst)
	if err != nil {
		return runtime.Image{}, err
	}
	defer unlock()
	img, err := r.image(ctx, dgst)
	if errors.Is(err, runtime.ErrNotFound) {
		if img, err = r.pull(ctx, src, dgst, progress); err != nil {
			return runtime.Image{}, fmt.Errorf("pull %s: %w", src.Reference, err)
		}
	}
	if err != nil {
		return runtime.Image{}, err
	}
	if !slices.Contains(img.public.Names, src.Reference) {
		if img, err = r.nameImage(ctx, img, src.Reference); err != nil {
			return runtime.Image{}, err
		}
	}
	return img.public, nil
}

func (r *Runtime) pull(ctx context.Context, src runtime.Source, dgst string, progress func(runtime.Progress)) (*image, error) {
	named, err := reference.ParseNamed(src.Reference)
	if err != nil {
		return nil, fmt.Errorf("image reference %q: %v: %w", src.Reference, err, runtime.ErrInvalid)
	}
	byDigest := reference.TrimNamed(named).String() + "@" + dgst
	desc, known := r.mediums.get(dgst)
	var resolver remotes.Resolver
	if known {
		resolver, err = r.resolver(src)
	} else {
		desc, resolver, err = r.resolve(ctx, src, byDigest)
	}
	if err != nil {
		return nil, err
	}
	ctx, done, err := r.client.WithLease(ctx)
	if err != nil {
		return nil, native(err)
	}
	// The lease goes even when the caller has gone.
	defer func() { _ = done(context.WithoutCancel(ctx)) }()

	tell := newTeller(progress)
	defer tell.stop()
	pulled, err := r.client.Pull(ctx, byDigest,
		client.WithResolver(&fixed{Resolver: resolver, ref: byDigest, desc: desc, tell: tell}),
		client.WithPlatformMatcher(platforms.Default()),
		client.WithPullUnpack, client.WithPullSnapshotter(snapshotter),
		// Layers are of use once, while they are unpacked: keep the
		// snapshots, not the blobs as well.
		client.WithChildLabelMap(images.ChildGCLabelsFilterLayers),
	)
	if err != nil {
		return nil, registryError(err)
	}
	manifest, err := images.Manifest(ctx, r.client.ContentStore(), pulled.Target(), platforms.Default())
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", native(err))
	}
	diffs, err := pulled.RootFS(ctx)
	if err != nil {
		return nil, fmt.Errorf("image config: %w", native(err))
	}
	size := manifest.Config.Size
	for _, l := range manifest.Layers {
		size += l.Size
	}
	// Rename: Pull has named the image by reference and digest, which keeps
	// its content while the lasting name is made.
	record := images.Image{
		Name: dgst, Target: pulled.Target(), CreatedAt: time.Now(),
		Labels: map[string]string{
			labelReference + "0": src.Reference,
			labelChain:           identity.ChainID(diffs).String(),
			labelConfig:          manifest.Config.Digest.String(),
			labelSize:            fmt.Sprint(size),
		},
	}
	store := r.client.ImageService()
	if _, err := store.Create(ctx, record); err != nil {
		if !errors.Is(native(err), runtime.ErrExists) {
			return nil, native(err)
		}
		if _, err := store.Update(ctx, record); err != nil {
			return nil, native(err)
		}
	}
	if err := store.Delete(ctx, pulled.Name()); err != nil && !errors.Is(native(err), runtime.ErrNotFound) {
		return nil, native(err)
	}
	r.images.drop(dgst)
	return r.image(ctx, dgst)
}

// nameImage adds a reference to an image's names.
func (r *Runtime) nameImage(ctx context.Context, img *image, ref string) (*image, error) {
	record, err := r.client.ImageService().Get(ctx, img.public.Digest)
	if err != nil {
		return nil, native(err)
	}
	next := 0
	for k := range record.Labels {
		var n int
		if _, err := fmt.Sscanf(k, labelReference+"%d", &n); err == nil && n >= next {
			next = n + 1
		}
	}
	key := labelReference + fmt.Sprint(next)
	record.Labels = map[string]string{key: ref}
	if _, err := r.client.ImageService().Update(ctx, record, "labels."+key); err != nil {
		return nil, native(err)
	}
	named := *img
	named.public.Names = append(slices.Clone(img.public.Names), ref)
	r.images.put(img.public.Digest, &named)
	return &named, nil
}

// Image implements runtime.Runtime.
func (r *Runtime) Image(ctx context.Context, dgst string) (runtime.Image, error) {
	img, err := r.image(ctx, dgst)
	if err != nil {
		return runtime.Image{}, err
	}
	return img.public, nil
}

// image answers a complete image, from memory if it was asked for before.
func (r *Runtime) image(ctx context.Context, dgst string) (*image, error) {
	if img, ok := r.images.get(dgst); ok {
		return img, nil
	}
	record, err := r.client.ImageService().Get(ctx, dgst)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", dgst, native(err))
	}
	img, err := r.load(ctx, record)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", dgst, err)
	}
	r.images.put(dgst, img)
	return img, nil
}

func (r *Runtime) load(ctx context.Context, record images.Image) (*image, error) {
	chain, config := record.Labels[labelChain], record.Labels[labelConfig]
	if chain == "" || config == "" {
		return nil, fmt.Errorf("not pulled by this region: %w", runtime.ErrNotFound)
	}
	if _, err := r.snaps.Stat(ctx, chain); err != nil {
		return nil, native(err)
	}
	blob, err := content.ReadBlob(ctx, r.client.ContentStore(), ocispec.Descriptor{Digest: digest.Digest(config)})
	if err != nil {
		return nil, native(err)
	}
	public, err := parseConfig(blob)
	if err != nil {
		return nil, err
	}
	public.Digest, public.ID, public.Pulled = record.Name, config, record.CreatedAt
	fmt.Sscan(record.Labels[labelSize], &public.Size)
	for _, k := range slices.Sorted(maps.Keys(record.Labels)) {
		if strings.HasPrefix(k, labelReference) {
			public.Names = append(public.Names, record.Labels[k])
		}
	}
	return &image{public: public, chain: chain}, nil
}

// parseConfig reads an image's config, with docker's extensions to it.
func parseConfig(blob []byte) (runtime.Image, error) {
	var c struct {
		Config struct {
			ocispec.ImageConfig
			Healthcheck *struct {
				Test                           []string
				Interval, Timeout, StartPeriod time.Duration
				Retries                        int
			}
		} `json:"config"`
	}
	if err := json.Unmarshal(blob, &c); err != nil {
		return runtime.Image{}, fmt.Errorf("image config: %w", err)
	}
	in := c.Config
	out := runtime.ImageConfig{
		User: in.User, Env: in.Env, Entrypoint: in.Entrypoint, Cmd: in.Cmd, WorkingDir: in.WorkingDir,
		Volumes: slices.Sorted(maps.Keys(in.Volumes)), ExposedPorts: slices.Sorted(maps.Keys(in.ExposedPorts)),
		StopSignal: in.StopSignal, Labels: in.Labels,
	}
	if h := in.Healthcheck; h != nil {
		out.Healthcheck = &runtime.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
	}
	return runtime.Image{Config: out}, nil
}

// Images implements runtime.Runtime.
func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	records, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", native(err))
	}
	var out []runtime.Image
	for _, record := range records {
		img, ok := r.images.get(record.Name)
		if !ok {
			if img, err = r.load(ctx, record); err != nil {
				if errors.Is(err, runtime.ErrNotFound) {
					continue // a pull under way, or one that never ended
				}
				return nil, fmt.Errorf("image %s: %w", record.Name, err)
			}
		}
		out = append(out, img.public)
	}
	return out, nil
}

// RemoveImage implements runtime.Runtime.
func (r *Runtime) RemoveImage(ctx context.Context, dgst string) error {
	r.images.drop(dgst)
	if err := native(r.client.ImageService().Delete(ctx, dgst, images.SynchronousDelete())); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("remove image %s: %w", dgst, err)
	}
	return nil
}

// fixed answers one reference without asking the registry again, and counts
// what is fetched.
type fixed struct {
	remotes.Resolver
	ref  string
	desc descriptor
	tell *teller
}

func (f *fixed) Resolve(ctx context.Context, ref string) (string, ocispec.Descriptor, error) {
	return f.ref, f.desc, nil
}

func (f *fixed) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	inner, err := f.Resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return remotes.FetcherFunc(func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		body, err := inner.Fetch(ctx, desc)
		if err != nil {
			return nil, err
		}
		f.tell.total.Add(desc.Size)
		return &counted{body, f.tell}, nil
	}), nil
}

type counted struct {
	io.ReadCloser
	tell *teller
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.tell.offset.Add(int64(n))
	c.tell.poke()
	return n, err
}

// Seek: the content store resumes a blob that it has half of.
func (c *counted) Seek(offset int64, whence int) (int64, error) {
	s, ok := c.ReadCloser.(io.Seeker)
	if !ok {
		return 0, errors.New("not seekable")
	}
	return s.Seek(offset, whence)
}

// teller calls progress from one goroutine, as often as that can take it.
type teller struct {
	offset, total atomic.Int64
	wake          chan struct{}
	quit, done    chan struct{}
}

func newTeller(progress func(runtime.Progress)) *teller {
	t := &teller{wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(t.done)
		for {
			select {
			case <-t.wake:
			case <-t.quit:
				return
			}
			if progress != nil {
				progress(runtime.Progress{Offset: t.offset.Load(), Total: t.total.Load()})
			}
		}
	}()
	return t
}

func (t *teller) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *teller) stop() {
	close(t.quit)
	<-t.done
}

// transports keeps one connection pool per way to a registry.
type transports struct {
	mu sync.Mutex
	m  map[string]*http.Client
}

func (t *transports) client(src runtime.Source) (*http.Client, error) {
	key := src.Address + "\x00" + string(src.RootCAs)
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.m[key]; c != nil {
		return c, nil
	}
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	tr := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
	}
	if src.Address != "" {
		tr.Proxy = nil
		tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dial.Context(dialer)(ctx, network, src.Address)
		}
	}
	if len(src.RootCAs) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(src.RootCAs) {
			return nil, fmt.Errorf("root CAs of %s: no certificate: %w", src.Reference, runtime.ErrInvalid)
		}
		tr.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	c := &http.Client{Transport: tr}
	if t.m == nil {
		t.m = map[string]*http.Client{}
	}
	t.m[key] = c
	return c, nil
}

func (t *transports) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.m {
		c.CloseIdleConnections()
	}
}
