package store

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// BenchmarkUpdate compares Update with the bare etcd transaction under it, on the same etcd in
// turns. The ratio is the price of the mirror, the encoding and the wait for visibility.
func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			db := openTest(b, Config{Dir: b.TempDir()})
			client := db.b.(*etcd).client
			pad := strings.Repeat("x", 1000)
			value := "\x01" + `{"ID":"p00000000","N":1,"Pad":"` + pad + `"}`
			var n atomic.Int64
			bare := func() error {
				k := fmt.Sprintf("/bare/p%08d", n.Add(1))
				_, err := client.Txn(context.Background()).
					If(clientv3.Compare(clientv3.ModRevision(k), "=", 0)).
					Then(clientv3.OpPut(k, value)).Commit()
				return err
			}
			update := func() error {
				id := fmt.Sprintf("p%08d", n.Add(1))
				return db.Update(context.Background(), func(tx *Tx) error {
					things.Put(tx, &thing{ID: id, N: 1, Pad: pad})
					return nil
				})
			}
			const slice = 256
			var took [2]time.Duration
			b.ResetTimer()
			for done := 0; done < b.N; done += slice {
				for i, f := range []func() error{bare, update} {
					start := time.Now()
					parallel(b, writers, min(slice, b.N-done), f)
					took[i] += time.Since(start)
				}
			}
			b.StopTimer()
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[0].Microseconds())/float64(b.N), "bare-us/op")
			b.ReportMetric(float64(took[1].Microseconds())/float64(b.N), "update-us/op")
			b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "ratio")
		})
	}
}

// parallel does f n times on some goroutines.
func parallel(b *testing.B, writers, n int, f func() error) {
	var left atomic.Int64
	left.Store(int64(n))
	done := make(chan error, writers)
	for range writers {
		go func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is the way from nothing, or from what is there, to the first commit.
func BenchmarkOpen(b *testing.B) {
	first := func(b *testing.B, dir string) {
		db, err := Open(context.Background(), Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		mustUpdate(b, db, func(tx *Tx) { things.Put(tx, &thing{ID: "a", N: time.Now().Nanosecond()}) })
		b.StopTimer()
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			dir := b.TempDir()
			b.StartTimer()
			first(b, dir)
		}
	})
	b.Run("again", func(b *testing.B) {
		dir := b.TempDir()
		first(b, dir)
		for b.Loop() {
			first(b, dir)
		}
	})
}

// BenchmarkHotKey is many writers incrementing one counter: every commit makes all others stale.
func BenchmarkHotKey(b *testing.B) {
	db := openTest(b, Config{Dir: b.TempDir()})
	var runs atomic.Int64
	b.ResetTimer()
	parallel(b, 64, b.N, func() error {
		return db.Update(context.Background(), func(tx *Tx) error {
			runs.Add(1)
			next := &thing{ID: "hot"}
			if old, ok := things.Get(tx, "hot"); ok {
				next.N = old.N
			}
			next.N++
			things.Put(tx, next)
			return nil
		})
	})
	b.StopTimer()
	b.ReportMetric(float64(runs.Load())/float64(b.N), "runs/op")
	if got, _ := things.Get(db.Snapshot(), "hot"); got.N != b.N {
		b.Fatalf("counted %d of %d", got.N, b.N)
	}
}

// BenchmarkResident reports the memory of a process that holds an idle database.
func BenchmarkResident(b *testing.B) {
	db := openTest(b, Config{Dir: b.TempDir()})
	mustUpdate(b, db, func(tx *Tx) {
		for i := range 1000 {
			things.Put(tx, &thing{ID: strconv.Itoa(i), Pad: strings.Repeat("x", 500)})
		}
	})
	for b.Loop() {
		db.Snapshot()
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" || f[0] == "RssAnon:" || f[0] == "RssFile:" {
			kb, _ := strconv.Atoi(f[1])
			b.ReportMetric(float64(kb)/1024, "MiB-"+strings.TrimSuffix(f[0], ":"))
		}
	}
}
