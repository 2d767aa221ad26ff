package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots/storage"
)

// snapshotter is where the daemon keeps root file systems.
func (d Dirs) snapshotter() string {
	return filepath.Join(d.Root, "io.containerd.snapshotter.v1.overlayfs")
}

// sweepSnapshots removes the folders of snapshots that the daemon does not know
// of. A daemon makes a folder before it commits what it is for; one that is
// killed in between gives its number out again, and the next with that number
// finds the folder in its way. Nothing may run on the folders while this does:
// it is for before the daemon's start.
func (d Dirs) sweepSnapshots(ctx context.Context) (err error) {
	meta := filepath.Join(d.snapshotter(), "metadata.db")
	if _, err := os.Stat(meta); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever made
	}
	store, err := storage.NewMetaStore(meta)
	if err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var known map[string]string
	err = store.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		known, err = storage.IDMap(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	entries, err := os.ReadDir(filepath.Join(d.snapshotter(), "snapshots"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	for _, e := range entries {
		if _, ok := known[e.Name()]; ok {
			continue
		}
		if err := os.RemoveAll(filepath.Join(d.snapshotter(), "snapshots", e.Name())); err != nil {
			return fmt.Errorf("snapshots: %w", err)
		}
	}
	return nil
}
