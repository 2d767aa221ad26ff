package registry_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// killed names the folder in which this program, started again, pushes,
// deletes and collects until it is killed.
const killed = "BERTH_TEST_KILLED"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killed); dir != "" {
		if err := pushUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func openAt(ctx context.Context, dir string) (*store.DB, *registry.Registry, error) {
	db, err := store.Open(ctx, store.Config{Dir: filepath.Join(dir, "etcd")})
	if err != nil {
		return nil, nil, err
	}
	sessions, err := auth.NewSessions(make([]byte, 32))
	if err != nil {
		return nil, nil, err
	}
	reg, err := registry.New(ctx, registry.Config{
		Dir: filepath.Join(dir, "registry"), DB: db, Region: region, Grace: time.Nanosecond,
		Authorizer: &auth.Authorizer{Sessions: sessions}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	return db, reg, err
}

// pushUntilKilled says which images it has pushed and will not delete. The
// layers are few, so that pushes, deletions and the collector meet on them.
func pushUntilKilled(dir string) error {
	ctx := context.Background()
	db, reg, err := openAt(ctx, dir)
	if err != nil {
		return err
	}
	key := state.RepositoryKey(account, "app")
	err = db.Update(ctx, func(tx *store.Tx) error {
		state.Repositories.Put(tx, &state.Repository{Account: account, Name: "app", TagMutability: "MUTABLE"})
		return nil
	})
	if err != nil {
		return err
	}
	failed := make(chan error)
	go func() {
		for {
			if err := reg.Collect(ctx); err != nil {
				failed <- err
			}
		}
	}()
	for i := range 4 {
		go func() {
			for n := 0; ; n++ {
				b := bytes.Repeat([]byte{byte((n + i) % 5)}, 200_000)
				u, err := reg.BeginUpload(key)
				if err == nil {
					_, _, err = reg.CompleteUpload(ctx, key, u, content.Sum(b), bytes.NewReader(b), 0)
				}
				if errors.Is(err, content.ErrUnknownUpload) {
					continue // collected: there is no grace here
				}
				if err != nil {
					failed <- err
				}
				doc := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"c","digest":%q,"size":1},"layers":[],"annotations":{"n":"%d.%d"}}`, content.Sum(b), i, n)
				img, _, err := reg.PutImage(ctx, key, "", doc, "", "")
				if err != nil && strings.Contains(err.Error(), "do not exist in the repository") {
					continue
				}
				if err != nil {
					failed <- err
				}
				if n%3 == 0 {
					fmt.Println(img.Digest)
				} else if _, _, err := reg.DeleteImage(ctx, key, img.Digest, ""); err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

// Killed at any moment while it pushes, deletes and collects, the registry has
// lost nothing that it acknowledged, and leaves nothing behind once all is
// deleted.
func TestKilled(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var kept []string
	for range 4 {
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), killed+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, until := bufio.NewScanner(out), 1+mrand.IntN(40)
		for n := 0; n < until && lines.Scan(); n++ {
			kept = append(kept, lines.Text())
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before it died; half a line is no digest
			if _, ok := content.ParseDigest(lines.Text()); ok {
				kept = append(kept, lines.Text())
			}
		}
		if err := cmd.Wait(); !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
			t.Fatalf("it ended by itself: %v: %s", err, errs.Bytes())
		}

		db, reg, err := openAt(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		check(t, db, reg, dir, kept)
		reg.Close()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}

	db, reg, err := openAt(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	defer reg.Close()
	for i := range state.Images.All(db.Snapshot()) {
		if _, _, err := reg.DeleteImage(t.Context(), i.Repository, i.Digest, ""); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // idle, gone, its content
		if err := reg.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := files(t, filepath.Join(dir, "registry")); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

func check(t *testing.T, db *store.DB, reg *registry.Registry, dir string, kept []string) {
	t.Helper()
	snap, key := db.Snapshot(), state.RepositoryKey(account, "app")
	for _, d := range kept {
		if !state.Images.Has(snap, state.ImageKey(key, d)) {
			t.Errorf("image %s was acknowledged and is lost", d)
		}
	}
	whole := map[string]bool{}
	for i := range state.Images.All(snap) {
		if b, err := reg.Manifest(i); err != nil || string(content.Sum(b)) != i.Digest {
			t.Errorf("manifest %s: %v", i.Digest, err)
		}
		for _, l := range i.Layers {
			if whole[l] {
				continue
			}
			whole[l] = true
			d := content.Digest(l)
			b, err := os.ReadFile(filepath.Join(dir, "registry", "blobs", "sha256", d.Hex()[:2], d.Hex()))
			if err != nil || content.Sum(b) != d {
				t.Errorf("layer %s of an image that is there: %v", l, err)
			}
		}
	}
}
