package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
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
