package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// What is on disk, and what happens when it is not as it should be.

func raw(t *testing.T, db *DB) *clientv3.Client { return db.b.(*etcd).client }

func rawPut(t *testing.T, db *DB, key, value string) {
	t.Helper()
	if _, err := raw(t, db).Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func rawGet(t *testing.T, db *DB, key string) string {
	t.Helper()
	got, err := raw(t, db).Get(t.Context(), key)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatal(got, err)
	}
	return string(got.Kvs[0].Value)
}

// reopen closes and opens the same folder.
func reopen(t *testing.T, db *DB, cfg Config) (*DB, error) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := Open(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { next.Close() })
	}
	return next, err
}

func TestSealed(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), NoFsync: true, CheckFrozen: true}
	db := openTest(t, cfg)
	mustUpdate(t, db, func(tx *Tx) {
		things.Put(tx, &thing{ID: "open", Pad: "plain words"})
		secrets.Put(tx, &thing{ID: "a", Pad: "hunter2", Tags: []string{"x"}})
		secrets.Put(tx, &thing{ID: "b", Pad: "hunter2"})
	})
	a, b := rawGet(t, db, "/berth/v1/secret/a"), rawGet(t, db, "/berth/v1/secret/b")
	if strings.Contains(a, "hunter2") || a == b {
		t.Error("the secret is not secret")
	}
	if got := rawGet(t, db, "/berth/v1/thing/open"); !strings.HasPrefix(got, "\x01{") {
		t.Errorf("the open table is stored as %q", got)
	}
	info, err := os.Stat(filepath.Join(cfg.Dir, "data.key"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("data key: %v %v", info.Mode(), err)
	}
	old := db.codec.keys.current()
	if err := db.RotateSealKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := rawGet(t, db, "/berth/v1/secret/a"); c[1:5] == string(old[:]) {
		t.Error("still sealed with the old key")
	}
	db, err = reopen(t, db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := secrets.Get(db.Snapshot(), "a"); !ok || v.Pad != "hunter2" || ids(secrets.By(db.Snapshot(), "tag", "x")) != "a" {
		t.Errorf("read back %v", v)
	}
	// What was sealed for one key is worth nothing under another, nor is a clear value.
	// What was sealed before the rotation still opens.
	rawPut(t, db, "/berth/v1/secret/a", a)
	rawPut(t, db, "/berth/v1/secret/b", a)
	rawPut(t, db, "/berth/v1/secret/c", "\x01"+`{"ID":"c"}`)
	if _, err := reopen(t, db, cfg); err == nil || !strings.Contains(err.Error(), "/berth/v1/secret/b") || !strings.Contains(err.Error(), "2 damaged") {
		t.Errorf("swapped secrets: %v", err)
	}
}

func TestForeignDataKey(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), NoFsync: true}
	db := openTest(t, cfg)
	db.Close()
	path := filepath.Join(cfg.Dir, "data.key")
	for _, c := range []struct {
		what, text string
		mode       fs.FileMode
		want       string
	}{
		{"another key", strings.Repeat("ab", 32), 0o600, "are sealed with data key"},
		{"not a key", "hello", 0o600, "line 1 is not a key"},
		{"empty", "", 0o600, "line 1 is not a key"},
		{"public", strings.Repeat("ab", 32), 0o644, "readable by others"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		db, err := Open(t.Context(), cfg)
		if err == nil {
			db.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestSchema(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), NoFsync: true}
	db := openTest(t, cfg)
	if got := rawGet(t, db, keySchema); got != "1" {
		t.Errorf("schema %q", got)
	}
	rawPut(t, db, keySchema, "2")
	if _, err := reopen(t, db, cfg); !errors.Is(err, ErrNewer) {
		t.Errorf("got %v", err)
	}
}

func TestTwoServersOneFolder(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), NoFsync: true}
	openTest(t, cfg)
	if db, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another process is using it") {
		t.Errorf("got %v %v", db, err)
	}
}

func TestDamaged(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), NoFsync: true, AllowDamaged: true}
	db := openTest(t, cfg)
	mustUpdate(t, db, func(tx *Tx) { things.Put(tx, &thing{ID: "good"}); things.Put(tx, &thing{ID: "bad"}) })
	w := db.Watch()
	defer w.Close()
	if _, _, err := w.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Damage arrives by the watch, with a table nobody knows.
	rawPut(t, db, "/berth/v1/from-the-future/x", "y")
	rawPut(t, db, "/berth/v1/thing/bad", "\x01{")
	s, c, err := w.Next(t.Context())
	if err != nil || fmt.Sprint(c.Keys(things)) != "[bad]" {
		t.Fatal(c, err)
	}
	check := func(s *Snapshot) {
		t.Helper()
		if d := s.Damaged(); len(d) != 1 || d[0].Key != "/berth/v1/thing/bad" {
			t.Errorf("damaged: %v", d)
		}
		if ids(things.All(s)) != "good" || things.Count(s) != 1 {
			t.Errorf("objects: %s, %d", ids(things.All(s)), things.Count(s))
		}
	}
	check(s)
	if _, err := Open(t.Context(), Config{Dir: cfg.Dir}); err == nil {
		t.Error("opened twice")
	}
	strict := cfg
	strict.AllowDamaged = false
	_, err = reopen(t, db, strict)
	var damaged *DamagedError
	if !errors.As(err, &damaged) || damaged.Key != "/berth/v1/thing/bad" {
		t.Errorf("opened with damage: %v", err)
	}
	db = openTest(t, cfg)
	check(db.Snapshot())
	err = db.Update(t.Context(), func(tx *Tx) error {
		if !things.Has(tx, "bad") {
			things.Put(tx, &thing{ID: "bad"})
		}
		return nil
	})
	if !errors.As(err, &damaged) {
		t.Errorf("a decision rested on a damaged object: %v", err)
	}
	mustUpdate(t, db, func(tx *Tx) { things.Delete(tx, "bad") })
	if _, err := reopen(t, db, strict); err != nil {
		t.Error(err)
	}
}

// TestQuota fills etcd's database. Everything is still readable, deletions go through, and when
// they have made room, writes do again, without a restart.
func TestQuota(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), NoFsync: true, QuotaBytes: 16 << 20}
	db := openTest(t, cfg)
	fill(t, db)
	n := things.Count(db.Snapshot())
	db, err := reopen(t, db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if things.Count(db.Snapshot()) != n {
		t.Errorf("%d objects of %d", things.Count(db.Snapshot()), n)
	}
	err = db.Update(t.Context(), func(tx *Tx) error { putBig(tx, n); return nil })
	if err == nil {
		t.Log("room again after the restart")
	} else if !errors.Is(err, ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	for v := range things.All(db.Snapshot()) {
		mustUpdate(t, db, func(tx *Tx) { things.Delete(tx, v.ID) })
	}
	// The room is made in the background; every refusal asks for it again.
	for {
		err := db.Update(t.Context(), func(tx *Tx) error { putBig(tx, 0); return nil })
		if err == nil {
			break
		}
		if !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
	}
}

// fill puts until there is no room.
func fill(t *testing.T, db *DB) {
	t.Helper()
	for i := 0; ; i++ {
		err := db.Update(t.Context(), func(tx *Tx) error { putBig(tx, i); return nil })
		if errors.Is(err, ErrNoSpace) {
			if got := things.Count(db.Snapshot()); got != i {
				t.Fatalf("%d objects after %d puts", got, i)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func putBig(tx *Tx, i int) {
	things.Put(tx, &thing{ID: fmt.Sprintf("%04d", i), Pad: strings.Repeat(fmt.Sprint(i), 200<<10/len(fmt.Sprint(i)))})
}

// TestDiskFull runs on a small file system.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("berth-store-test", dir, "tmpfs", 0, "size=160m"); err != nil {
		t.Fatalf("mount tmpfs (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	cfg := Config{Dir: dir}
	db := openTest(t, cfg)
	fill(t, db)
	n := things.Count(db.Snapshot())
	mustUpdate(t, db, func(tx *Tx) { things.Delete(tx, "0000") })
	db, err := reopen(t, db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := things.Count(db.Snapshot()); got != n-1 {
		t.Errorf("%d objects, want %d", got, n-1)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	// Without the reserve, as when somebody else uses it up, etcd itself runs into the wall. That
	// ends the database, not the process, and all that was acknowledged is there when there is
	// room again.
	hog := filepath.Join(dir, "hog")
	var free unix.Statfs_t
	if err := unix.Statfs(dir, &free); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hog, make([]byte, max(0, int64(free.Bavail)*free.Bsize-12<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BERTH_STORE_FILLER="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var acked int
	if _, err := fmt.Sscanf(string(out), "acked %d", &acked); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=400m"); err != nil {
		t.Fatal(err)
	}
	db, err = Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i := range acked {
		if !things.Has(db.Snapshot(), fmt.Sprintf("%04d", fillerFirst+i)) {
			t.Errorf("object %d of %d is lost", i, acked)
		}
	}
}

const fillerFirst = 5000

// fillerChild fills the disk to the last byte and checks how the database takes it.
func fillerChild(dir string) int {
	ctx := context.Background()
	complain := func(args ...any) int { fmt.Println(args...); return 1 }
	db, err := Open(ctx, Config{Dir: dir})
	if err != nil {
		return complain(err)
	}
	db.b.(*etcd).server.reserve = 0
	put := func(i int) error {
		return db.Update(ctx, func(tx *Tx) error { putBig(tx, i); return nil })
	}
	acked := 0
	for err == nil {
		if err = put(fillerFirst + acked); err == nil {
			acked++
		}
	}
	if acked == 0 || !errors.Is(err, ErrUnknown) {
		return complain("the write that failed:", err)
	}
	if err := db.Wait(ctx); err == nil || !strings.Contains(err.Error(), "gave up") {
		return complain("the database does not know that it has failed:", err)
	}
	if err := put(0); err == nil {
		return complain("a failed database takes writes")
	}
	if !things.Has(db.Snapshot(), "0001") {
		return complain("a failed database cannot be read")
	}
	_ = db.Close() // may say that etcd cannot be stopped
	fmt.Println("acked", acked, err)
	return 0
}

// TestResync: an external etcd drops history that a server still needs, and comes back from an
// outage. Watches see the difference and nothing else.
func TestResync(t *testing.T) {
	addr := startEtcd(t)
	db := openTest(t, Config{Dir: t.TempDir(), Endpoints: []string{addr}})
	key := filepath.Join(filepath.Dir(db.codec.keys.path), "data.key")
	twin := openTest(t, Config{SealKeyFile: key, Endpoints: []string{addr}})
	mustUpdate(t, db, func(tx *Tx) {
		for i := range 10 {
			things.Put(tx, &thing{ID: fmt.Sprint(i)})
			secrets.Put(tx, &thing{ID: fmt.Sprint(i)})
		}
	})
	// The other server learns by its watch what this one did.
	if s, err := twin.SnapshotAt(t.Context(), db.Snapshot().Revision()); err != nil || secrets.Count(s) != 10 {
		t.Fatal(err)
	}
	// A revision of somebody else's keys is reached too.
	put, err := raw(t, db).Put(t.Context(), "/foreign", "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := twin.SnapshotAt(t.Context(), put.Header.Revision); err != nil {
		t.Fatal(err)
	}
	w := twin.Watch()
	defer w.Close()
	if _, _, err := w.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Read anew what the watch would have told, as after a compaction.
	b := twin.b.(*etcd)
	kept, _ := things.Get(twin.Snapshot(), "5")
	old := twin.mirror.load()
	mustUpdate(t, db, func(tx *Tx) {
		things.Delete(tx, "3")
		things.Put(tx, &thing{ID: "4", N: 1})
		things.Put(tx, &thing{ID: "new"})
	})
	s, err := b.load(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, c := range diff(old, s, twin.metas) {
		keys = append(keys, c.m.name+" "+c.key)
	}
	if got := strings.Join(keys, ","); got != "thing 4,thing new,thing 3" {
		t.Errorf("difference: %s", got)
	}
	if again, _ := things.Get(&Snapshot{s}, "5"); again != kept {
		t.Error("an object that did not change was read anew")
	}
	twin.mirror.replace(s, twin.metas)
	if _, c, err := w.Next(t.Context()); err != nil || c.All || fmt.Sprint(c.Keys(things)) != "[3 4 new]" {
		t.Errorf("the watch says %v %v", c.Keys(things), err)
	}
	// A watch that must begin in compacted history reports so, and follow survives it.
	if _, err := raw(t, db).Compact(t.Context(), s.rev); err != nil {
		t.Fatal(err)
	}
	if err := b.watch(1); err == nil {
		t.Error("watched what is gone")
	}
}

// TestLeadIsLost: the leader's lease ends under it, and it leads again.
func TestLeadIsLost(t *testing.T) {
	db := openTest(t, Config{Dir: t.TempDir(), Endpoints: []string{startEtcd(t)}})
	terms := 0
	err := db.WhileLeader(t.Context(), func(ctx context.Context) error {
		if terms++; terms == 2 {
			return nil
		}
		got, err := raw(t, db).Get(ctx, keyLeader, clientv3.WithPrefix())
		if err != nil || len(got.Kvs) != 1 {
			t.Fatal(got, err)
		}
		if _, err := raw(t, db).Revoke(ctx, clientv3.LeaseID(got.Kvs[0].Lease)); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if err != nil || terms != 2 {
		t.Errorf("%d terms, %v", terms, err)
	}
}

func TestOpenTimesOut(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if db, err := Open(ctx, Config{Dir: t.TempDir(), Endpoints: []string{freeAddr(t)}}); err == nil {
		db.Close()
		t.Error("opened nothing")
	}
	if db, err := Open(ctx, Config{Dir: t.TempDir()}); err == nil {
		db.Close()
		t.Error("opened after the context ended")
	}
}
