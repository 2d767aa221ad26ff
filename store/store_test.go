package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func ids(seq iter.Seq[*thing]) string {
	var all []string
	for t := range seq {
		all = append(all, t.ID)
	}
	return strings.Join(all, " ")
}

func TestReads(t *testing.T) {
	onAll(t, func(t *testing.T, db *DB) {
		before := db.Snapshot()
		mustUpdate(t, db, func(tx *Tx) {
			things.Put(tx, &thing{ID: "a/1", Tags: []string{"x", "y"}})
			things.Put(tx, &thing{ID: "a/2", Tags: []string{"x\x00"}})
			things.Put(tx, &thing{ID: "b/1", Tags: []string{"x"}})
			others.Put(tx, &thing{ID: "a/1"})
			if got := ids(things.By(tx, "tag", "x")); got != "a/1 b/1" {
				t.Errorf("own writes by index: %q", got)
			}
			things.Delete(tx, "a/2")
			things.Put(tx, &thing{ID: "a/2", N: 7, Tags: []string{"x\x00"}})
		})
		s := db.Snapshot()
		for _, c := range []struct{ what, got, want string }{
			{"all", ids(things.All(s)), "a/1 a/2 b/1"},
			{"prefix", ids(things.Prefix(s, "a/")), "a/1 a/2"},
			{"no prefix", ids(things.Prefix(s, "c")), ""},
			{"by x", ids(things.By(s, "tag", "x")), "a/1 b/1"},
			{"after a/1", ids(things.After(s, "tag", "x", "a/1")), "b/1"},
			{"after what is not there", ids(things.After(s, "tag", "x", "a/0")), "a/1 b/1"},
			{"after the last", ids(things.After(s, "tag", "x", "b/1")), ""},
			{"by x0", ids(things.By(s, "tag", "x\x00")), "a/2"},
			{"by y", ids(things.By(s, "tag", "y")), "a/1"},
			{"by nothing", ids(things.By(s, "tag", "")), ""},
			{"before", ids(things.All(before)), ""},
			{"count", fmt.Sprint(things.Count(s), others.Count(s), things.Count(before)), "3 1 0"},
		} {
			if c.got != c.want {
				t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
			}
		}
		if things.Revision(s, "a/1") != s.Revision() || things.Revision(s, "nobody") != 0 {
			t.Error("revisions of objects are wrong")
		}
		mustUpdate(t, db, func(tx *Tx) {
			things.Put(tx, &thing{ID: "a/1", Tags: []string{"z"}})
			things.Delete(tx, "b/1")
			things.Delete(tx, "never was")
		})
		s = db.Snapshot()
		if got := ids(things.By(s, "tag", "x")) + "|" + ids(things.By(s, "tag", "z")); got != "|a/1" {
			t.Errorf("index after changes: %q", got)
		}
		s.CheckFrozen()
	})
}

func TestNothingToWrite(t *testing.T) {
	onAll(t, func(t *testing.T, db *DB) {
		rev := mustUpdate(t, db, func(tx *Tx) { secrets.Put(tx, &thing{ID: "a", N: 1}) })
		for what, fn := range map[string]func(*Tx){
			"nothing":        func(*Tx) {},
			"the same":       func(tx *Tx) { secrets.Put(tx, &thing{ID: "a", N: 1}) },
			"delete nothing": func(tx *Tx) { secrets.Delete(tx, "b") },
			"back and forth": func(tx *Tx) { secrets.Delete(tx, "a"); secrets.Put(tx, &thing{ID: "a", N: 1}) },
		} {
			if got := mustUpdate(t, db, fn); got != rev || db.Snapshot().Revision() != rev {
				t.Errorf("%s made a revision", what)
			}
		}
	})
}

func TestCallbackErrors(t *testing.T) {
	onAll(t, func(t *testing.T, db *DB) {
		boom := errors.New("boom")
		err := db.Update(t.Context(), func(tx *Tx) error {
			things.Put(tx, &thing{ID: "a"})
			return boom
		})
		if !errors.Is(err, boom) {
			t.Errorf("got %v", err)
		}
		for _, id := range []string{"", "a\x00b", strings.Repeat("x", maxKey+1)} {
			err := db.Update(t.Context(), func(tx *Tx) error { things.Put(tx, &thing{ID: id}); return nil })
			if err == nil {
				t.Errorf("key of %d bytes was taken", len(id))
			}
			if _, ok := things.Get(db.Snapshot(), id); ok {
				t.Error("there is an object with an impossible key")
			}
		}
		if things.Count(db.Snapshot()) != 0 {
			t.Error("a failed transaction has written")
		}
	})
}

// interfere runs fn while another transaction commits between its callback's first run and its
// commit, and reports how often the callback ran.
func interfere(t *testing.T, db *DB, first func(tx *Tx), other func(tx *Tx)) int {
	t.Helper()
	runs := 0
	err := db.Update(t.Context(), func(tx *Tx) error {
		first(tx)
		if runs++; runs == 1 {
			mustUpdate(t, db, other)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

func TestConflicts(t *testing.T) {
	put := func(id string, n int) func(*Tx) {
		return func(tx *Tx) { things.Put(tx, &thing{ID: id, N: n}) }
	}
	var n int
	write := func(tx *Tx) { n++; others.Put(tx, &thing{ID: "result", N: n}) }
	for _, c := range []struct {
		name         string
		first, other func(*Tx)
		runs         int
	}{
		{"read changed", func(tx *Tx) { things.Get(tx, "a"); write(tx) }, put("a", 2), 2},
		{"read deleted", func(tx *Tx) { things.Get(tx, "a"); write(tx) }, func(tx *Tx) { things.Delete(tx, "a") }, 2},
		{"absent created", func(tx *Tx) { things.Get(tx, "new"); write(tx) }, put("new", 1), 2},
		{"blind write", put("a", 5), put("a", 6), 2},
		{"unrelated", func(tx *Tx) { things.Get(tx, "a"); write(tx) }, put("b", 1), 1},
		{"range is not compared", func(tx *Tx) { ids(things.All(tx)); write(tx) }, put("new", 1), 1},
		{"reader only", func(tx *Tx) { things.Get(tx, "a") }, put("a", 2), 1},
		{"range guarded, created", func(tx *Tx) { things.Guard(tx, "p/"); write(tx) }, put("p/1", 1), 2},
		{"range guarded, other", func(tx *Tx) { things.Guard(tx, "p/"); write(tx) }, put("q/1", 1), 1},
		{"same guard", func(tx *Tx) { tx.Guard("g"); write(tx) }, func(tx *Tx) { tx.Guard("g"); put("p/1", 1)(tx) }, 2},
		{"other guard", func(tx *Tx) { tx.Guard("g"); write(tx) }, func(tx *Tx) { tx.Guard("h"); put("p/1", 1)(tx) }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			onAll(t, func(t *testing.T, db *DB) {
				mustUpdate(t, db, put("a", 1))
				if runs := interfere(t, db, c.first, c.other); runs != c.runs {
					t.Errorf("the callback ran %d times, want %d", runs, c.runs)
				}
			})
		})
	}
}

func TestUpdateFrom(t *testing.T) {
	onAll(t, func(t *testing.T, db *DB) {
		mustUpdate(t, db, func(tx *Tx) { things.Put(tx, &thing{ID: "a", N: 1}) })
		old := db.Snapshot()
		mustUpdate(t, db, func(tx *Tx) { things.Put(tx, &thing{ID: "b", N: 1}) })
		if _, err := db.UpdateFrom(t.Context(), old, func(tx *Tx) error {
			if things.Has(tx, "c") || things.Count(tx) != 1 {
				t.Error("the transaction does not see the old snapshot")
			}
			things.Put(tx, &thing{ID: "a", N: 2})
			return nil
		}); err != nil {
			t.Error(err)
		}
		_, err := db.UpdateFrom(t.Context(), old, func(tx *Tx) error {
			things.Put(tx, &thing{ID: "a", N: 3})
			return nil
		})
		if !errors.Is(err, ErrConflict) {
			t.Errorf("got %v", err)
		}
	})
}

func TestContention(t *testing.T) {
	onAll(t, func(t *testing.T, db *DB) {
		const writers, each = 16, 15
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for range each {
					err := db.Update(context.Background(), func(tx *Tx) error {
						next := &thing{ID: "n"}
						if old, ok := things.Get(tx, "n"); ok {
							next.N = old.N
						}
						next.N++
						things.Put(tx, next)
						others.Put(tx, &thing{ID: fmt.Sprint(w), N: next.N})
						return nil
					})
					if err != nil {
						t.Error(err)
					}
					o, _ := others.Get(db.Snapshot(), fmt.Sprint(w))
					if n, _ := things.Get(db.Snapshot(), "n"); o == nil || n.N < o.N {
						t.Error("own write is not visible")
					}
				}
			})
		}
		wg.Wait()
		if n, _ := things.Get(db.Snapshot(), "n"); n.N != writers*each {
			t.Errorf("counted %d of %d", n.N, writers*each)
		}
	})
}

func TestTooLarge(t *testing.T) {
	onAll(t, func(t *testing.T, db *DB) {
		err := db.Update(t.Context(), func(tx *Tx) error {
			for i := range maxTxnOps + 1 {
				things.Put(tx, &thing{ID: fmt.Sprint(i)})
			}
			return nil
		})
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("too many: %v", err)
		}
		err = db.Update(t.Context(), func(tx *Tx) error {
			things.Put(tx, &thing{ID: "big", Pad: strings.Repeat("x", maxRequestBytes)})
			return nil
		})
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("too big: %v", err)
		}
		if things.Count(db.Snapshot()) != 0 {
			t.Error("something was written")
		}
		mustUpdate(t, db, func(tx *Tx) {
			for i := range maxTxnOps / 4 {
				things.Put(tx, &thing{ID: fmt.Sprint(i), Tags: []string{"t"}})
			}
		})
		if n := things.Count(db.Snapshot()); n != maxTxnOps/4 {
			t.Errorf("%d objects", n)
		}
	})
}

func TestWatch(t *testing.T) {
	onAll(t, func(t *testing.T, db *DB) {
		mustUpdate(t, db, func(tx *Tx) { things.Put(tx, &thing{ID: "a"}) })
		w := db.Watch()
		defer w.Close()
		only := db.Watch(others)
		defer only.Close()
		s, c, err := w.Next(t.Context())
		if err != nil || !c.All || !slices.Equal(c.Keys(things), []string{"a"}) || s.Revision() != db.Snapshot().Revision() {
			t.Fatalf("first: %+v %v", c, err)
		}
		if _, c, err := only.Next(t.Context()); err != nil || !c.All {
			t.Fatalf("first of one table: %+v %v", c, err)
		}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := w.Next(done); !errors.Is(err, context.Canceled) {
			t.Fatalf("nothing changed, but: %v", err)
		}
		// Two commits, told as one.
		mustUpdate(t, db, func(tx *Tx) { things.Put(tx, &thing{ID: "b"}); things.Delete(tx, "a") })
		mustUpdate(t, db, func(tx *Tx) { others.Put(tx, &thing{ID: "o"}) })
		s, c, err = w.Next(t.Context())
		if err != nil || c.All || !slices.Equal(c.Keys(things), []string{"a", "b"}) || !slices.Equal(c.Keys(others), []string{"o"}) {
			t.Fatalf("coalesced: %v %v %v", c.Keys(things), c.Keys(others), err)
		}
		if things.Count(s) != 1 || c.Has(secrets) || !c.Has(secrets, others) {
			t.Error("the changes do not fit the snapshot")
		}
		if _, c, err := only.Next(t.Context()); err != nil || c.Has(things) || !c.Has(others) {
			t.Fatalf("one table: %+v %v", c, err)
		}
		ended := make(chan error)
		go func() { _, _, err := w.Next(context.Background()); ended <- err }()
		w.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("Next after Close: %v", err)
		}
		// Closing the database ends watches and updates.
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if _, _, err := only.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Next after the database closed: %v", err)
		}
		if err := db.Update(t.Context(), func(tx *Tx) error { things.Put(tx, &thing{ID: "z"}); return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("Update after the database closed: %v", err)
		}
		if err := db.Wait(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Wait after the database closed: %v", err)
		}
		if things.Count(s) != 1 {
			t.Error("a snapshot ended with the database")
		}
	})
}

func TestLeader(t *testing.T) {
	onAll(t, func(t *testing.T, db *DB) {
		boom := errors.New("boom")
		if err := db.WhileLeader(t.Context(), func(context.Context) error { return boom }); err != boom {
			t.Errorf("got %v", err)
		}
		// Two want to lead: never both at once, and the second leads when the first is done.
		var leading, led atomic.Int32
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				err := db.WhileLeader(t.Context(), func(ctx context.Context) error {
					if leading.Add(1) != 1 {
						t.Error("two leaders")
					}
					mustUpdate(t, db, func(tx *Tx) { things.Put(tx, &thing{ID: "led", N: int(led.Add(1))}) })
					leading.Add(-1)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if led.Load() != 2 {
			t.Errorf("%d led", led.Load())
		}
		// The context ends with the caller's, and with the database.
		ctx, cancel := context.WithCancel(t.Context())
		err := db.WhileLeader(ctx, func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		begun := make(chan struct{})
		ended := make(chan error)
		go func() {
			ended <- db.WhileLeader(context.Background(), func(ctx context.Context) error {
				close(begun)
				<-ctx.Done()
				return ctx.Err()
			})
		}()
		<-begun
		db.Close()
		if err := <-ended; err == nil {
			t.Error("leads without a database")
		}
	})
}

func TestFrozen(t *testing.T) {
	db := OpenMemory()
	defer db.Close()
	v := &thing{ID: "a", Tags: []string{"x"}}
	mustUpdate(t, db, func(tx *Tx) { things.Put(tx, v) })
	v.Tags[0] = "y"
	for what, f := range map[string]func(){
		"a read":     func() { mustUpdate(t, db, func(tx *Tx) { things.Get(tx, "a"); others.Put(tx, &thing{ID: "b"}) }) },
		"a snapshot": func() { db.Snapshot().CheckFrozen() },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s did not find the object that was modified", what)
				}
			}()
			f()
		}()
	}
}
