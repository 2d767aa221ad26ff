package store

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("BERTH_STORE_WRITER"); dir != "" {
		os.Exit(writerChild(dir))
	}
	if dir := os.Getenv("BERTH_STORE_FILLER"); dir != "" {
		os.Exit(fillerChild(dir))
	}
	goleak.VerifyTestMain(m)
}

type thing struct {
	ID   string
	N    int
	Tags []string `json:",omitempty"`
	Pad  string   `json:",omitempty"`
}

func (t *thing) key() string { return t.ID }

var (
	things = NewTable("thing", (*thing).key,
		Index("tag", func(t *thing) []string { return t.Tags }),
		Sum("n", func(t *thing) (string, int) { return strings.Join(t.Tags, ","), t.N }))
	others  = NewTable("other", (*thing).key)
	secrets = NewTable("secret", (*thing).key, Sealed(),
		Index("tag", func(t *thing) []string { return t.Tags }))
)

// testLog shows what is wrong only if the test fails.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, nil))
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.Logf("%s", b)
	return len(b), nil
}

// openTest opens and closes with the test.
func openTest(t testing.TB, cfg Config) *DB {
	t.Helper()
	db, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// backends are the databases that must all behave the same. Each call of open gives one on the
// same data, except in memory.
var backends = []struct {
	name string
	open func(testing.TB) *DB
}{
	{"memory", func(t testing.TB) *DB {
		db := OpenMemory()
		t.Cleanup(func() { db.Close() })
		return db
	}},
	{"embedded", func(t testing.TB) *DB {
		return openTest(t, Config{Dir: t.TempDir(), NoFsync: true, CheckFrozen: true, Log: slog.New(slog.DiscardHandler)})
	}},
	{"external", func(t testing.TB) *DB {
		return openTest(t, Config{Dir: t.TempDir(), Endpoints: []string{startEtcd(t)}, CheckFrozen: true})
	}},
}

// startEtcd runs a complete etcd with a listener and returns its address.
func startEtcd(t testing.TB) string {
	t.Helper()
	_, addr := startEtcdServer(t)
	return addr
}

func startEtcdServer(t testing.TB) (*embed.Etcd, string) {
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.LogLevel = "fatal"
	cfg.UnsafeNoFsync = true
	cfg.TickMs, cfg.ElectionMs = 10, 50
	cfg.MaxTxnOps = maxTxnOps
	client := url.URL{Scheme: "http", Host: freeAddr(t)}
	peer := url.URL{Scheme: "http", Host: freeAddr(t)}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return e, client.Host
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func onAll(t *testing.T, f func(t *testing.T, db *DB)) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { f(t, b.open(t)) })
	}
}

func mustUpdate(t testing.TB, db *DB, fn func(tx *Tx)) int64 {
	t.Helper()
	rev, err := db.UpdateRev(context.Background(), func(tx *Tx) error { fn(tx); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return rev
}
