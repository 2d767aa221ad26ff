// Package images gets the images of tasks: it says which registry an image's
// name means, with which credentials, and which of the images that are here
// have not been needed for long enough to go.
//
// It transfers nothing itself; that is the runtime's.
package images

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/agent/credentials"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/wire"
)

const (
	cleanEvery = 30 * time.Minute
	cleanMost  = 5         // images at once
	cleanAge   = time.Hour // since the image was needed last

	tries       = 5
	tokenMargin = 5 * time.Minute
	tokenMost   = time.Hour
)

// Store gets images. New makes one.
type Store struct {
	rt       runtime.Runtime
	api      *api.Client
	instance api.Provider
	creds    *credentials.Store
	log      *slog.Logger
	ecrHost  *regexp.Regexp

	// getting is read-locked while an image is got: one that is found to be
	// here must not be cleaned away before it is known to be needed.
	getting sync.RWMutex

	mu     sync.Mutex
	tokens map[tokenKey]token
	used   map[string]time.Time // by digest
}

type tokenKey struct{ principal, registry string }

type token struct {
	auth    runtime.Auth
	expires time.Time
}

// New makes a store. instance are the credentials of the instance, used where
// a task has no execution role.
func New(rt runtime.Runtime, c *api.Client, instance api.Provider, creds *credentials.Store, log *slog.Logger) *Store {
	return &Store{
		rt: rt, api: c, instance: instance, creds: creds, log: log,
		ecrHost: regexp.MustCompile(`^([0-9]{12})\.dkr\.ecr\.` + regexp.QuoteMeta(c.Region()) + `\.(amazonaws\.com|localhost)(:[0-9]+)?$`),
		tokens:  map[tokenKey]token{}, used: map[string]time.Time{},
	}
}

// Normalize spells an image's name out: with its registry and, unless it has a
// tag or digest, with the tag latest.
func Normalize(name string) (reference, host string) {
	host, rest, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = "docker.io", name
		if !strings.Contains(rest, "/") {
			rest = "library/" + rest
		}
	}
	if !strings.ContainsRune(rest, '@') && !strings.ContainsRune(rest[strings.LastIndexByte(rest, '/')+1:], ':') {
		rest += ":latest"
	}
	return host + "/" + rest, host
}

// Pull implements engine.Images.
func (s *Store) Pull(ctx context.Context, t *engine.Task, c *engine.Container) (runtime.Image, error) {
	src, err := s.source(ctx, t, c)
	if err != nil {
		if ctx.Err() != nil {
			return runtime.Image{}, &engine.ContainerError{Name: "CannotPullContainerError", Err: ctx.Err()}
		}
		return runtime.Image{}, &engine.TaskError{Reason: "ResourceInitializationError: unable to pull secrets or registry auth: " + err.Error()}
	}
	s.getting.RLock()
	defer s.getting.RUnlock()
	img, err := s.pull(ctx, src)
	if err != nil {
		return runtime.Image{}, &engine.ContainerError{Name: "CannotPullContainerError", Err: err}
	}
	s.mu.Lock()
	s.used[img.Digest] = time.Now()
	s.mu.Unlock()
	return img, nil
}

func (s *Store) pull(ctx context.Context, src runtime.Source) (runtime.Image, error) {
	var desc runtime.Descriptor
	n, err := retry(ctx, func() (err error) {
		desc, err = s.rt.Resolve(ctx, src)
		if err != nil && !final(err) && ctx.Err() == nil {
			if img, ok := s.cached(ctx, src.Reference); ok {
				s.log.Warn("the registry does not answer; an image that is here is used", "image", src.Reference, "error", err)
				desc.Digest = img.Digest
				return nil
			}
		}
		return err
	})
	if err != nil {
		return runtime.Image{}, fmt.Errorf("pull image manifest has been retried %d time(s): failed to resolve ref %s: %w", n, src.Reference, err)
	}
	var img runtime.Image
	n, err = retry(ctx, func() (err error) {
		img, err = s.rt.Pull(ctx, src, desc.Digest, nil)
		return err
	})
	if err != nil {
		return runtime.Image{}, fmt.Errorf("ref pull has been retried %d time(s): failed to pull %s: %w", n, src.Reference, err)
	}
	return img, nil
}

// cached finds an image that was pulled under this name.
func (s *Store) cached(ctx context.Context, reference string) (img runtime.Image, ok bool) {
	all, err := s.rt.Images(ctx)
	if err != nil {
		return img, false
	}
	for _, i := range all {
		if slices.Contains(i.Names, reference) && (!ok || i.Pulled.After(img.Pulled)) {
			img, ok = i, true
		}
	}
	return img, ok
}

// final reports whether another try cannot end differently.
func final(err error) bool {
	return errors.Is(err, runtime.ErrNotFound) || errors.Is(err, runtime.ErrUnauthorized) || errors.Is(err, runtime.ErrInvalid)
}

// retry calls f until it succeeds, at most five times, and answers how often.
func retry(ctx context.Context, f func() error) (n int, err error) {
	wait := time.Second
	for n = 1; ; n++ {
		err = f()
		if err == nil || final(err) || n == tries || ctx.Err() != nil {
			return n, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return n, ctx.Err()
		case <-timer.C:
		}
		wait *= 2
	}
}

// source says where an image comes from and who may fetch it there.
func (s *Store) source(ctx context.Context, t *engine.Task, c *engine.Container) (runtime.Source, error) {
	ref, host := Normalize(c.Def.Image)
	src := runtime.Source{Reference: ref}
	m := s.ecrHost.FindStringSubmatch(host)
	if m != nil {
		// The region's own registry, by either of its names, is where the API is.
		e := s.api.Endpoint()
		src.Address, src.PlainHTTP = e.Host, e.Scheme == "http"
		if e.Port() == "" {
			src.Address += map[string]string{"http": ":80", "https": ":443"}[e.Scheme]
		}
	}
	ra := c.Def.RegistryAuthentication
	switch {
	case ra == nil && m == nil:
		return src, nil
	case ra != nil && ra.Type != "ecr":
		return src, fmt.Errorf("execution resource retrieval failed: registry authentication of type %q is not supported by this agent", ra.Type)
	}
	registry, useExecution := "", t.ExecutionCredentials != ""
	if m != nil {
		registry = m[1]
	}
	if ra != nil && ra.ECRAuthData != nil {
		registry = ra.ECRAuthData.RegistryID
		useExecution = ra.ECRAuthData.UseExecutionRole
	}
	auth, err := s.ecrAuth(ctx, t, registry, useExecution)
	if err != nil {
		return src, err
	}
	src.Auth = &auth
	return src, nil
}

// ecrAuth answers a registry token for a task. Tokens are kept per role: the
// credentials of each task differ, what they may do does not.
func (s *Store) ecrAuth(ctx context.Context, t *engine.Task, registry string, useExecution bool) (runtime.Auth, error) {
	provider, principal := s.instance, ""
	if useExecution {
		c, err := s.creds.Await(ctx, t.ExecutionCredentials)
		if err != nil {
			return runtime.Auth{}, err
		}
		provider, principal = api.Static(c), c.RoleArn
	}
	key := tokenKey{principal, registry}
	s.mu.Lock()
	tok, ok := s.tokens[key]
	s.mu.Unlock()
	if ok && time.Now().Before(tok.expires) {
		return tok.auth, nil
	}
	var out ecr.GetAuthorizationTokenOutput
	n, err := retryCall(ctx, func() error {
		out = ecr.GetAuthorizationTokenOutput{}
		return s.api.Call(ctx, provider, api.ECR, "GetAuthorizationToken", &ecr.GetAuthorizationTokenInput{}, &out)
	})
	if err != nil {
		var text string
		if e, ok := errors.AsType[wire.Error](err); ok {
			text = e.Error()
		} else {
			text = err.Error()
		}
		return runtime.Auth{}, fmt.Errorf("execution resource retrieval failed: unable to retrieve ecr registry auth: service call has been retried %d time(s): %s", n, text)
	}
	if len(out.AuthorizationData) == 0 {
		return runtime.Auth{}, errors.New("execution resource retrieval failed: unable to retrieve ecr registry auth: no authorization data")
	}
	d := out.AuthorizationData[0]
	plain, err := base64.StdEncoding.DecodeString(wire.Value(d.AuthorizationToken))
	if err != nil {
		return runtime.Auth{}, fmt.Errorf("execution resource retrieval failed: unable to retrieve ecr registry auth: %w", err)
	}
	user, password, _ := strings.Cut(string(plain), ":")
	tok = token{auth: runtime.Auth{Username: user, Password: password}, expires: time.Now().Add(tokenMost)}
	if d.ExpiresAt != nil && d.ExpiresAt.Add(-tokenMargin).Before(tok.expires) {
		tok.expires = d.ExpiresAt.Add(-tokenMargin)
	}
	s.mu.Lock()
	s.tokens[key] = tok
	s.mu.Unlock()
	return tok.auth, nil
}

// retryCall calls f until it succeeds or a client error says that it never will.
func retryCall(ctx context.Context, f func() error) (n int, err error) {
	wait := 200 * time.Millisecond
	for n = 1; ; n++ {
		err = f()
		if e, ok := errors.AsType[wire.Error](err); err == nil || n == tries || ctx.Err() != nil || ok && e.HTTPStatus() < 500 {
			return n, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return n, ctx.Err()
		case <-timer.C:
		}
		wait *= 2
	}
}

// Run removes images that have not been needed for long. inUse answers the
// digests that tasks refer to.
func (s *Store) Run(ctx context.Context, inUse func() map[string]bool) error {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := s.clean(ctx, now, inUse); err != nil && ctx.Err() == nil {
				s.log.Error("cannot clean up images", "error", err)
			}
		}
	}
}

// clean removes some of the images that may go. Pulls do not wait for it to
// get its turn: while there is one, nothing is removed.
func (s *Store) clean(ctx context.Context, now time.Time, inUse func() map[string]bool) error {
	if !s.getting.TryLock() {
		return nil
	}
	defer s.getting.Unlock()
	needed := inUse()
	all, err := s.rt.Images(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	last := func(i runtime.Image) time.Time {
		if at, ok := s.used[i.Digest]; ok {
			return at
		}
		return i.Pulled
	}
	candidates := slices.DeleteFunc(all, func(i runtime.Image) bool {
		return needed[i.Digest] || now.Sub(last(i)) < cleanAge
	})
	slices.SortFunc(candidates, func(a, b runtime.Image) int { return last(a).Compare(last(b)) })
	s.mu.Unlock()
	for _, i := range candidates[:min(cleanMost, len(candidates))] {
		if err := s.rt.RemoveImage(ctx, i.Digest); err != nil {
			return err
		}
		s.log.Info("removed an image that was not needed", "names", i.Names, "digest", i.Digest)
		s.mu.Lock()
		delete(s.used, i.Digest)
		s.mu.Unlock()
	}
	return nil
}
