package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image makes an OCI image that holds a program and nothing else. env are
// variables of the image, "K=V"; images that differ in them have another digest.
func Image(program string, env ...string) (v1.Image, error) {
	file, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, d := range []string{"etc/", "tmp/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o1777}); err != nil {
			return nil, err
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "box", Mode: 0o755, Size: int64(len(file))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(file); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, l)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, configured(img, env))
}

func configured(img v1.Image, env []string) *v1.ConfigFile {
	f, err := img.ConfigFile()
	if err != nil { // it was made above
		f = &v1.ConfigFile{}
	}
	f = f.DeepCopy()
	f.OS, f.Architecture = "linux", runtime.GOARCH
	f.Config = v1.Config{Entrypoint: []string{"/box"}, Env: append([]string{"PATH=/"}, env...)}
	return f
}

// RegistryHost is where docker would log in to push to the account's registry.
func (r *Region) RegistryHost() string {
	_, port, _ := strings.Cut(r.Listen, ":")
	return fmt.Sprintf("%s.dkr.ecr.%s.localhost:%s", Account, r.Name, port)
}

// Push pushes img to a repository of the region's registry, with the password
// of `aws ecr get-login-password`.
func (r *Region) Push(ctx context.Context, ref, password string, img v1.Image) error {
	to, opts, err := r.remote(ctx, ref, password)
	if err != nil {
		return err
	}
	return remote.Write(to, img, opts...)
}

// Pull pulls an image, all of it, and answers its digest.
func (r *Region) Pull(ctx context.Context, ref, password string) (string, error) {
	from, opts, err := r.remote(ctx, ref, password)
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

func (r *Region) remote(ctx context.Context, ref, password string) (name.Reference, []remote.Option, error) {
	n, err := name.ParseReference(r.RegistryHost()+"/"+ref, name.Insecure)
	return n, []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(HTTP.Transport),
		remote.WithAuth(&authn.Basic{Username: "AWS", Password: password}),
	}, err
}
