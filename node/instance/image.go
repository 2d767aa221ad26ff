package instance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/node/instance/root"
)

// root answers the image of the ECS-optimized AMIs, which is made once on each machine.
func (m *Manager) root(ctx context.Context, c Containers) (runtime.Image, error) {
	m.rootMu.Lock()
	defer m.rootMu.Unlock()
	note := filepath.Join(m.cfg.Data, "root.json")
	var have struct {
		Image string `json:"image"`
	}
	if b, err := os.ReadFile(note); err == nil && json.Unmarshal(b, &have) == nil {
		img, err := c.Image(ctx, have.Image)
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
	have.Image = img.Digest
	b, err := json.Marshal(have)
	if err != nil {
		return runtime.Image{}, err
	}
	return img, replace(note, b)
}

// removeGroup removes the cgroup of an instance, with those of its agent and tasks.
func (m *Manager) removeGroup(ctx context.Context, id string) error {
	if err := m.cfg.RemoveCgroup(ctx, filepath.Join(m.cfg.Cgroup, id)); err != nil {
		return fmt.Errorf("cgroup of instance %s: %w", id, err)
	}
	return nil
}
