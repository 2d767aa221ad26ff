package containerd

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
)

// What a daemon made and did not live to commit is gone before the next one
// gives its number out again; what is known stays.
func TestSweepSnapshots(t *testing.T) {
	ctx := context.Background()
	d := Dirs{Root: t.TempDir(), Run: t.TempDir()}
	if err := d.sweepSnapshots(ctx); err != nil {
		t.Fatalf("a new daemon: %v", err)
	}
	dir := filepath.Join(d.snapshotter(), "snapshots")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	store, err := storage.NewMetaStore(filepath.Join(d.snapshotter(), "metadata.db"))
	if err != nil {
		t.Fatal(err)
	}
	var known string
	err = store.WithTransaction(ctx, true, func(ctx context.Context) error {
		s, err := storage.CreateSnapshot(ctx, snapshots.KindActive, "key", "")
		known = s.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{known, "77", "new-123", "rm-9"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "fs", "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.sweepSnapshots(ctx); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != known {
		t.Errorf("left are %v, %v; want only %s", left, err, known)
	}
}
