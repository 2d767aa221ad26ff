package lab

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/berth-run/berth/test/image"
)

// Box is an image of the program that the tests' containers run, with
// variables "K=V"; images that differ in them have another digest.
func Box(ctx context.Context, env ...string) (v1.Image, error) {
	return image.Build(ctx, "github.com/berth-run/berth/test/programs/box", v1.Config{Env: append([]string{"PATH=/"}, env...)})
}

// RegistryHost is where docker would log in to push to the account's registry.
func (r *Region) RegistryHost() string {
	_, port, _ := strings.Cut(r.Listen, ":")
	return fmt.Sprintf("%s.dkr.ecr.%s.localhost:%s", r.Account, r.Name, port)
}

// Push pushes img to a repository of the region's registry, with the password
// of `aws ecr get-login-password`.
func (r *Region) Push(ctx context.Context, ref, password string, img v1.Image) error {
	to, opts, err := r.Remote(ctx, ref, password)
	if err != nil {
		return err
	}
	return remote.Write(to, img, opts...)
}

// Pull pulls an image, all of it, and answers its digest.
func (r *Region) Pull(ctx context.Context, ref, password string) (string, error) {
	from, opts, err := r.Remote(ctx, ref, password)
	if err != nil {
		return "", err
	}
	img, err := remote.Image(from, opts...)
	if err != nil {
		return "", err
	}
	layers, err := img.Layers()
	if err != nil {
		return "", err
	}
	for _, l := range layers {
		content, err := l.Uncompressed() // which verifies it
		if err != nil {
			return "", err
		}
		_, err = io.Copy(io.Discard, content)
		content.Close()
		if err != nil {
			return "", err
		}
	}
	d, err := img.Digest()
	return d.String(), err
}

// Remote is a reference into the region's registry, and how to get there.
func (r *Region) Remote(ctx context.Context, ref, password string) (name.Reference, []remote.Option, error) {
	n, err := name.ParseReference(r.RegistryHost()+"/"+ref, name.Insecure)
	return n, []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(HTTP.Transport),
		remote.WithAuth(&authn.Basic{Username: "AWS", Password: password}),
	}, err
}
