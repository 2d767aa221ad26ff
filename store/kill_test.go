package store

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The writer child commits as fast as it can from several goroutines and prints, after each commit
// is acknowledged, "writer count revision". Each commit changes two objects, one of them sealed,
// which must never be seen apart.
const killWriters = 4

func writerChild(dir string) int {
	ctx := context.Background()
	db, err := Open(ctx, Config{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var out sync.Mutex
	var wg sync.WaitGroup
	for w := range killWriters {
		wg.Go(func() {
			id := strconv.Itoa(w)
			for {
				var n int
				rev, err := db.UpdateRev(ctx, func(tx *Tx) error {
					n = 1
					if old, ok := things.Get(tx, id); ok {
						n = old.N + 1
					}
					things.Put(tx, &thing{ID: id, N: n, Pad: strings.Repeat("x", rand.IntN(3000))})
					secrets.Put(tx, &thing{ID: id, N: n})
					if n%3 == 0 {
						others.Delete(tx, id)
					} else {
						others.Put(tx, &thing{ID: id, N: n})
					}
					return nil
				})
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Printf("%d %d %d\n", w, n, rev)
				out.Unlock()
			}
		})
	}
	wg.Wait()
	return 0
}

// TestKill kills the writer at a random moment, its start included, and checks that what it had
// acknowledged is there and that history goes on where it was. BERTH_KILL_ROUNDS makes it a soak.
func TestKill(t *testing.T) {
	rounds := 12
	if s := os.Getenv("BERTH_KILL_ROUNDS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	var acked [killWriters]int
	var lastRev int64
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "BERTH_STORE_WRITER="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Every third round kills by time, so that the start is hit too; the others after some
		// number of commits.
		limit := rand.IntN(600)
		if round%3 == 2 {
			limit = -1
			timer := time.AfterFunc(time.Duration(rand.IntN(60))*time.Millisecond, func() { cmd.Process.Kill() })
			defer timer.Stop()
		}
		lines := bufio.NewScanner(stdout)
		for n := 0; lines.Scan(); n++ {
			var w, count int
			var rev int64
			if _, err := fmt.Sscan(lines.Text(), &w, &count, &rev); err != nil {
				continue // cut off in the middle
			}
			if count <= acked[w] {
				t.Fatalf("round %d: writer %d counts %d after %d", round, w, count, acked[w])
			}
			acked[w], lastRev = count, max(lastRev, rev)
			if n == limit {
				cmd.Process.Kill()
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() >= 0 {
			t.Fatalf("round %d: the writer ended by itself: %v\n%s", round, err, stderr.String())
		}
		db, err := Open(t.Context(), Config{Dir: dir})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s := db.Snapshot()
		if s.Revision() < lastRev {
			t.Fatalf("round %d: revision %d after %d was acknowledged", round, s.Revision(), lastRev)
		}
		for w := range acked {
			id := strconv.Itoa(w)
			a, ok := things.Get(s, id)
			if !ok {
				if acked[w] > 0 {
					t.Fatalf("round %d: writer %d: acknowledged %d, nothing there", round, w, acked[w])
				}
				continue
			}
			// One commit more may have happened than was heard of.
			if a.N < acked[w] || a.N > acked[w]+1 {
				t.Fatalf("round %d: writer %d: acknowledged %d, found %d", round, w, acked[w], a.N)
			}
			if b, ok := secrets.Get(s, id); !ok || b.N != a.N {
				t.Fatalf("round %d: writer %d: half a transaction: %d and %v", round, w, a.N, b)
			}
			if o, ok := others.Get(s, id); ok != (a.N%3 != 0) || ok && o.N != a.N {
				t.Fatalf("round %d: writer %d: half a transaction: %d and %v", round, w, a.N, o)
			}
			acked[w] = a.N
		}
		lastRev = s.Revision()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d rounds, commits per writer %v, revision %d", rounds, acked, lastRev)
}
