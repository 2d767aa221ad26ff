// Package upstream reads from other registries what a pull-through cache keeps:
// manifests and blobs, by the OCI distribution API, with the tokens that public
// registries ask for.
//
// It verifies the manifests that it gives; blobs are verified by whoever keeps
// them. It must never know repositories of this region, or write anything.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/registry/image"
)

var (
	// ErrNotFound: the other registry does not have it.
	ErrNotFound = errors.New("the upstream registry does not have the image")
	// ErrDenied: it does not give it to everybody.
	ErrDenied = errors.New("the upstream registry denies access")
	// ErrUnavailable: it does not answer, or not as a registry does.
	ErrUnavailable = errors.New("the upstream registry is not available")
)

// Client reads from registries. A host is <name>[:<port>], reached with TLS
// unless it is this machine itself, or http://<name>[:<port>].
type Client struct {
	client *http.Client
	hosts  docker.RegistryHosts
	plain  docker.RegistryHosts
}

// How long another registry may take to answer, and to close what is idle.
const (
	answerTime = 30 * time.Second
	idleTime   = time.Minute
)

// New makes a client.
func New() *Client {
	// The library tells of each answer; here the caller does. The level exists.
	_ = log.SetLevel("error")
	c := &Client{client: &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: answerTime, TLSHandshakeTimeout: answerTime, IdleConnTimeout: idleTime,
	}}}
	auth := docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthClient(c.client)))
	c.hosts = docker.ConfigureDefaultRegistries(docker.WithClient(c.client), auth, docker.WithPlainHTTP(docker.MatchLocalhost))
	c.plain = docker.ConfigureDefaultRegistries(docker.WithClient(c.client), auth, docker.WithPlainHTTP(docker.MatchAllHosts))
	return c
}

// Close ends the connections that nobody uses.
func (c *Client) Close() { c.client.CloseIdleConnections() }

func (c *Client) resolver(host string) (remotes.Resolver, string) {
	hosts := c.hosts
	if name, ok := strings.CutPrefix(host, "http://"); ok {
		host, hosts = name, c.plain
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: hosts}), strings.TrimPrefix(host, "https://")
}

// Manifest reads a manifest by its tag or digest.
func (c *Client) Manifest(ctx context.Context, host, repository, reference string) (*image.Manifest, []byte, error) {
	r, name := c.resolver(host)
	ref := name + "/" + repository + ":" + reference
	if _, ok := content.ParseDigest(reference); ok {
		ref = name + "/" + repository + "@" + reference
	}
	_, desc, err := r.Resolve(ctx, ref)
	if err != nil {
		return nil, nil, told(ref, err)
	}
	f, err := r.Fetcher(ctx, ref)
	if err != nil {
		return nil, nil, told(ref, err)
	}
	body, err := f.Fetch(ctx, desc)
	if err != nil {
		return nil, nil, told(ref, err)
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, image.MaxManifest+1))
	if err != nil {
		return nil, nil, told(ref, err)
	}
	m, err := image.Parse(desc.MediaType, b)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: manifest of %s: %w", ErrUnavailable, ref, err)
	}
	d, ok := content.ParseDigest(desc.Digest.String())
	if !ok || !d.Is(b) {
		return nil, nil, fmt.Errorf("%w: manifest of %s does not have the digest %s", ErrUnavailable, ref, desc.Digest)
	}
	m.Digest = d
	return m, b, nil
}

// Blob reads a blob, whatever it is worth.
func (c *Client) Blob(ctx context.Context, host, repository string, d content.Digest) (io.ReadCloser, error) {
	r, name := c.resolver(host)
	ref := name + "/" + repository + "@" + string(d)
	f, err := r.Fetcher(ctx, ref)
	if err != nil {
		return nil, told(ref, err)
	}
	by, ok := f.(remotes.FetcherByDigest)
	if !ok {
		return nil, fmt.Errorf("%s cannot be fetched by its digest", ref)
	}
	body, _, err := by.FetchByDigest(ctx, digest.Digest(d))
	if err != nil {
		return nil, told(ref, err)
	}
	return body, nil
}

// Ping says whether there is a registry.
func (c *Client) Ping(ctx context.Context, host string) error {
	_, name := c.resolver(host)
	hosts := c.hosts
	if strings.HasPrefix(host, "http://") {
		hosts = c.plain
	}
	list, err := hosts(name)
	if err != nil || len(list) == 0 {
		return fmt.Errorf("%w: %q is no host", ErrUnavailable, host)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, list[0].Scheme+"://"+list[0].Host+"/v2/", nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	res, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer res.Body.Close()
	// A registry that asks for a token gives it to everybody, or not: pulls show.
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("%w: %s answers %s", ErrUnavailable, name, res.Status)
	}
	return nil
}

// told sorts the errors of the client.
func told(ref string, err error) error {
	kind := ErrUnavailable
	switch {
	case errdefs.IsNotFound(err):
		kind = ErrNotFound
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err), errors.Is(err, docker.ErrInvalidAuthorization):
		kind = ErrDenied
	default:
		if s, ok := errors.AsType[remoteserrors.ErrUnexpectedStatus](err); ok && (s.StatusCode == http.StatusUnauthorized || s.StatusCode == http.StatusForbidden) {
			kind = ErrDenied
		}
	}
	return fmt.Errorf("%w: %s: %w", kind, ref, err)
}
