// Package image builds small container images out of this repository's own
// programs, with nothing but the Go toolchain: no daemon, no network, no base
// image. The tests and the demo run what it builds.
//
// The same source gives the same image, byte for byte.
package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// WebPackage is the web server whose page says which task answers.
const WebPackage = "github.com/berth-run/berth/test/image/web"

// Web is an image that runs the web server on port 80.
func Web(ctx context.Context) (v1.Image, error) {
	return Build(ctx, WebPackage, v1.Config{ExposedPorts: map[string]struct{}{"80/tcp": {}}})
}

// Build compiles a main package of this module into an image that runs it. The
// entry point is the program unless config has one.
func Build(ctx context.Context, pkg string, config v1.Config) (v1.Image, error) {
	name := path.Base(pkg)
	program, err := compile(ctx, pkg)
	if err != nil {
		return nil, err
	}
	if config.Entrypoint == nil {
		config.Entrypoint = []string{"/" + name}
	}
	layer, err := Layer(map[string]File{
		name:         {Mode: 0o755, Data: program},
		"tmp/":       {Mode: 0o1777},
		"etc/passwd": {Mode: 0o644, Data: []byte("root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n")},
		"etc/group":  {Mode: 0o644, Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
	})
	if err != nil {
		return nil, err
	}
	return Assemble(config, layer)
}

// Assemble makes an OCI image of layers.
func Assemble(config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(img, layers...)
	if err != nil {
		return nil, fmt.Errorf("assemble image: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("assemble image: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return nil, fmt.Errorf("assemble image: %w", err)
	}
	return img, nil
}

// A File is one entry of a layer; a name that ends in a slash is a folder.
type File struct {
	Mode int64
	Data []byte
	Link string // where it leads to, if it is a symbolic link
}

// Layer makes a layer of files, in the order of their names.
func Layer(files map[string]File) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range order(files) {
		f, ok := files[name]
		if !ok {
			f.Mode = 0o755 // a folder that only holds others
		}
		h := &tar.Header{Name: name, Mode: f.Mode, Size: int64(len(f.Data)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
		if name[len(name)-1] == '/' {
			h.Typeflag = tar.TypeDir
		}
		if f.Link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", name, err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return layer, nil
}

// order sorts names and adds the folders that they are in.
func order(files map[string]File) []string {
	names := map[string]bool{}
	for name := range files {
		names[name] = true
		for dir := path.Dir(path.Clean(name)); dir != "."; dir = path.Dir(dir) {
			names[dir+"/"] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// compile builds a static program.
func compile(ctx context.Context, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "berth-image-")
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	return b, nil
}
