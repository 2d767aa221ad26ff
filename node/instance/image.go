package instance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/node/instance/root"
)

// errRootless: the image of a root is not in the registry any more, and will
// not be there again by itself.
var errRootless = errors.New("no root")

// pull gets the image of a root from the region's registry, which is where the
// API is. Its reference has its digest, so that what is here already is not
// asked for.
func pull(ctx context.Context, c Containers, image, password string, region fabric.Region) (runtime.Image, error) {
	_, digest, ok := strings.Cut(image, "@")
	api, err := url.Parse(region.Endpoint)
	if !ok || err != nil {
		return runtime.Image{}, fmt.Errorf("root %s in the registry at %s: %w", image, region.Endpoint, errors.Join(err, runtime.ErrInvalid))
	}
	src := runtime.Source{Reference: image, Address: api.Host, PlainHTTP: api.Scheme == "http"}
	if api.Port() == "" {
		src.Address += map[string]string{"http": ":80", "https": ":443"}[api.Scheme]
	}
	if password != "" {
		src.Auth = &runtime.Auth{Username: "AWS", Password: password}
	}
	img, err := c.Pull(ctx, src, digest, nil)
	if errors.Is(err, runtime.ErrNotFound) {
		// Something else may not have been found than what the registry has.
		if _, gone := c.Resolve(ctx, src); errors.Is(gone, runtime.ErrNotFound) {
			return img, fmt.Errorf("%w: %w", errRootless, gone)
		}
	}
	return img, err
}

// clean removes the images of roots that no instance has any more, but for the
// one that is made here.
func (m *Manager) clean(ctx context.Context, c Containers) error {
	if !m.getting.TryLock() {
		return nil // whoever goes next does it
	}
	defer m.getting.Unlock()
	images, err := c.Images(ctx)
	if err != nil {
		return fmt.Errorf("images of instances: %w", err)
	}
	list, err := c.List(ctx, nil)
	if err != nil {
		return fmt.Errorf("images of instances: %w", err)
	}
	needed := map[string]bool{m.made(): true}
	for _, r := range list {
		needed[r.Image] = true
	}
	for _, i := range images {
		if needed[i.Digest] {
			continue
		}
		if err := c.RemoveImage(ctx, i.Digest); err != nil {
			return err
		}
	}
	return nil
}

// note is the file that says which image was made for the ECS-optimized AMIs.
func (m *Manager) note() string { return filepath.Join(m.cfg.Data, "root.json") }

type note struct {
	Image string `json:"image"`
}

// made is the digest of that image, "" if there is none.
func (m *Manager) made() string {
	var have note
	if b, err := os.ReadFile(m.note()); err != nil || json.Unmarshal(b, &have) != nil {
		return ""
	}
	return have.Image
}

// root answers the image of the ECS-optimized AMIs, which is made once on each machine.
func (m *Manager) root(ctx context.Context, c Containers) (runtime.Image, error) {
	m.rootMu.Lock()
	defer m.rootMu.Unlock()
	if made := m.made(); made != "" {
		img, err := c.Image(ctx, made)
		if err == nil || !errors.Is(err, runtime.ErrNotFound) {
			return img, err
		}
	}
	f, err := os.CreateTemp(m.cfg.Data, "root-*.tar")
	if err != nil {
		return runtime.Image{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	made, err := root.Write(f, root.System{})
	if err != nil {
		return runtime.Image{}, fmt.Errorf("root of the ECS-optimized image: %w", err)
	}
	m.log.Info("root of the ECS-optimized image made", "layer", made.Digest, "bytes", made.Size, "without", made.Missing)
	img, err := c.Load(ctx, f.Name(), made.Digest, made.Size)
	if err != nil {
		return runtime.Image{}, fmt.Errorf("root of the ECS-optimized image: %w", err)
	}
	b, err := json.Marshal(note{img.Digest})
	if err != nil {
		return runtime.Image{}, err
	}
	return img, replace(m.note(), b)
}

// removeGroup removes the cgroup of an instance, with those of its agent and tasks.
func (m *Manager) removeGroup(ctx context.Context, id string) error {
	if err := m.cfg.RemoveCgroup(ctx, filepath.Join(m.cfg.Cgroup, id)); err != nil {
		return fmt.Errorf("cgroup of instance %s: %w", id, err)
	}
	return nil
}
