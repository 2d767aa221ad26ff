package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTogether: of transactions that arrive at the same time some share a
// revision, each is there for its own writer at once, and one that fails takes
// no other with it.
func TestTogether(t *testing.T) {
	db := openTest(t, Config{Dir: t.TempDir()})
	mustUpdate(t, db, func(tx *Tx) { things.Put(tx, &thing{ID: "old"}) })
	snap := db.Snapshot()
	mustUpdate(t, db, func(tx *Tx) { things.Put(tx, &thing{ID: "old", N: 1}) })
	const writers, each = 32, 50
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		revs = map[int64]int{}
	)
	for w := range writers {
		all.Go(func() {
			for i := range each {
				id := fmt.Sprintf("%d-%d", w, i)
				rev, err := db.UpdateRev(context.Background(), func(tx *Tx) error {
					things.Put(tx, &thing{ID: id, N: i})
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				if got, ok := things.Get(db.Snapshot(), id); !ok || got.N != i || things.Revision(db.Snapshot(), id) != rev {
					t.Errorf("%s is not there at %d", id, rev)
				}
				// This one rests on what has changed since.
				if _, err := db.UpdateFrom(context.Background(), snap, func(tx *Tx) error {
					old, _ := things.Get(tx, "old")
					things.Put(tx, &thing{ID: "late-" + id, N: old.N})
					return nil
				}); !errors.Is(err, ErrConflict) {
					t.Errorf("a stale transaction: %v", err)
				}
				mu.Lock()
				revs[rev]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if n := len(revs); n == writers*each {
		t.Errorf("%d commits, none of which went together", n)
	}
	if n := things.Count(db.Snapshot()); n != 1+writers*each {
		t.Errorf("%d things", n)
	}
}

// TestGather: a group waits for those who were there a moment ago, and for
// nobody else, not longer than a commit takes, and after a wait in vain not at
// once again.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &group{}
		arrive := func() *member {
			m := &member{r: &request{}, turn: make(chan []*member, 1)}
			g.mu.Lock()
			defer g.mu.Unlock()
			g.waiting = append(g.waiting, m)
			g.arrange()
			return m
		}
		launched := func(m *member, want int) {
			t.Helper()
			synctest.Wait()
			got := 0
			select {
			case all := <-m.turn:
				got = len(all)
			default:
			}
			if got != want {
				t.Fatalf("a group of %d is launched, want %d", got, want)
			}
		}
		launched(arrive(), 1) // alone: at once
		second, _ := arrive(), arrive()
		launched(second, 0) // one at a time
		g.over(1, time.Millisecond)
		launched(second, 0) // the first may come again
		arrive()
		launched(second, 3) // and it did
		g.over(3, time.Millisecond)

		slow := arrive()
		launched(slow, 0)
		time.Sleep(mostPatience)
		launched(slow, 1) // nobody came
		g.over(3, time.Millisecond)
		for range 2 {
			launched(arrive(), 1) // so these do not wait
			g.over(3, time.Millisecond)
		}
		third := arrive()
		launched(third, 0) // until it is tried again
		g.mu.Lock()
		g.waiting = nil // it left
		g.mu.Unlock()
		time.Sleep(mostPatience)
		launched(third, 0)
		g.skip = 0
		again := arrive()
		launched(again, 0) // nothing is thought to be under way
		time.Sleep(mostPatience)
		launched(again, 1)
	})
}
