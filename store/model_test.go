package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// The model is the plainest store there is: a map. Transactions generated at random run
// concurrently; each records what it got and what it put. In the order of their revisions they
// must be explained by the map: every Get saw what the map held just before the transaction.

type modelStep struct {
	put, del bool // neither: get
	key      string
	tag      string
}

type modelRecord struct {
	rev   int64
	reads map[string]int // N, or -1 if absent
	puts  map[string]*thing
	dels  map[string]bool
}

func TestModel(t *testing.T) {
	for _, b := range backends[:2] {
		t.Run(b.name, func(t *testing.T) {
			db := b.open(t)
			model := map[string]*thing{}
			rapid.Check(t, func(rt *rapid.T) { checkModel(rt, db, model) })
		})
	}
}

func checkModel(t *rapid.T, db *DB, model map[string]*thing) {
	keys := []string{"a", "a/1", "a/2", "ab", "b", "c"}
	tags := []string{"", "x", "x\x00", "xy"}
	step := rapid.Custom(func(t *rapid.T) modelStep {
		kind := rapid.IntRange(0, 4).Draw(t, "kind")
		return modelStep{
			put: kind >= 3, del: kind == 2,
			key: rapid.SampledFrom(keys).Draw(t, "key"),
			tag: rapid.SampledFrom(tags).Draw(t, "tag"),
		}
	})
	plans := rapid.SliceOfN(rapid.SliceOfN(rapid.SliceOfN(step, 1, 6), 1, 5), 1, 4).Draw(t, "transactions of each writer")

	w := db.Watch(things)
	defer w.Close()
	start, _, err := w.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}

	var (
		mu      sync.Mutex
		records []modelRecord
		wg      sync.WaitGroup
	)
	for i, plan := range plans {
		wg.Go(func() {
			for j, steps := range plan {
				var rec modelRecord
				rev, err := db.UpdateRev(context.Background(), func(tx *Tx) error {
					rec = modelRecord{reads: map[string]int{}, puts: map[string]*thing{}, dels: map[string]bool{}}
					for k, s := range steps {
						switch {
						case s.put:
							v := &thing{ID: s.key, N: 1000*i + 10*j + k, Tags: []string{s.tag}}
							things.Put(tx, v)
							rec.puts[s.key] = v
							delete(rec.dels, s.key)
						case s.del:
							things.Delete(tx, s.key)
							delete(rec.puts, s.key)
							rec.dels[s.key] = true
						default:
							n := -1
							if v, ok := things.Get(tx, s.key); ok {
								n = v.N
							}
							if p := rec.puts[s.key]; p != nil && p.N != n || rec.dels[s.key] && n != -1 {
								return fmt.Errorf("did not read its own write of %s", s.key)
							}
							if rec.puts[s.key] == nil && !rec.dels[s.key] {
								rec.reads[s.key] = n
							}
						}
					}
					return nil
				})
				rec.rev = rev
				mu.Lock()
				records = append(records, rec)
				if err != nil {
					t.Errorf("update: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	// A watch that follows all the while rebuilds the table from the keys it is told.
	follow, stop := context.WithCancel(context.Background())
	replay := map[string]*thing{}
	for v := range things.All(start) {
		replay[v.ID] = v
	}
	wg.Add(1)
	writers := make(chan struct{})
	go func() { wg.Wait(); close(writers) }()
	var watched sync.WaitGroup
	watched.Go(func() {
		last := start.Revision()
		apply := func(s *Snapshot, c Changes) {
			if s.Revision() < last {
				t.Errorf("the watch went from %d back to %d", last, s.Revision())
			}
			last = s.Revision()
			for _, k := range c.Keys(things) {
				if v, ok := things.Get(s, k); ok {
					replay[k] = v
				} else {
					delete(replay, k)
				}
			}
			sums := map[string]int{}
			for v := range things.All(s) {
				sums[strings.Join(v.Tags, ",")] += v.N
			}
			for _, tag := range tags {
				if n := things.Sum(s, "n", tag); n != sums[tag] {
					t.Errorf("at %d the sum of %q is %d, want %d", last, tag, n, sums[tag])
				}
			}
			if !maps.Equal(replay, contents(s)) {
				t.Errorf("at %d the watch makes %v of %v", last, replay, contents(s))
			}
		}
		for {
			s, c, err := w.Next(follow)
			if err != nil {
				return
			}
			apply(s, c)
		}
	})
	wg.Done()
	<-writers
	stop()
	watched.Wait()
	end := db.Snapshot()
	if s, c, err := w.Next(expired); err == nil {
		for _, k := range c.Keys(things) {
			if v, ok := things.Get(s, k); ok {
				replay[k] = v
			} else {
				delete(replay, k)
			}
		}
	}
	if !maps.Equal(replay, contents(end)) {
		t.Fatalf("at the end the watch makes %v of %v", replay, contents(end))
	}

	// Those of one revision have an order that explains what each read. Those that wrote nothing
	// come last: they report the state that they read.
	slices.SortStableFunc(records, func(a, b modelRecord) int { return int(a.rev - b.rev) })
	for len(records) > 0 {
		n := 1
		for n < len(records) && records[n].rev == records[0].rev {
			n++
		}
		same := records[:n]
		if same[0].rev > start.Revision() && !slices.ContainsFunc(same, func(r modelRecord) bool { return r.changes(model) }) {
			t.Fatalf("nothing changed at revision %d", same[0].rev)
		}
		next := explain(model, same, true)
		if next == nil {
			t.Fatalf("no order explains the transactions of revision %d: %+v on %v", same[0].rev, same, model)
		}
		clear(model)
		maps.Copy(model, next)
		records = records[n:]
	}
	have := contents(end)
	for k := range have {
		if model[k] == nil || model[k].N != have[k].N || model[k].Tags[0] != have[k].Tags[0] {
			t.Fatalf("%s is %v, the model says %v", k, have[k], model[k])
		}
	}
	if len(have) != len(model) {
		t.Fatalf("%d objects, the model has %d", len(have), len(model))
	}
	for _, tag := range tags {
		var want []string
		for _, k := range slices.Sorted(maps.Keys(model)) {
			if model[k].Tags[0] == tag {
				want = append(want, k)
			}
		}
		var got []string
		for v := range things.By(end, "tag", tag) {
			got = append(got, v.ID)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("index %q has %v, the model %v", tag, got, want)
		}
	}
	end.CheckFrozen()
}

// explain finds an order of transactions in which each reads what it did, and returns what they
// make of the model; nil if there is none. Once one has changed nothing, none may.
func explain(model map[string]*thing, all []modelRecord, changing bool) map[string]*thing {
	if len(all) == 0 {
		return model
	}
	for i, r := range all {
		changes := r.changes(model)
		if !r.explained(model) || changes && !changing {
			continue
		}
		next := maps.Clone(model)
		maps.Copy(next, r.puts)
		for k := range r.dels {
			delete(next, k)
		}
		if end := explain(next, slices.Concat(all[:i], all[i+1:]), changes); end != nil {
			return end
		}
	}
	return nil
}

// explained reports whether the transaction read what the model has.
func (r modelRecord) explained(model map[string]*thing) bool {
	for k, n := range r.reads {
		have := -1
		if v := model[k]; v != nil {
			have = v.N
		}
		if have != n {
			return false
		}
	}
	return true
}

// changes reports whether the transaction would change the model.
func (r modelRecord) changes(model map[string]*thing) bool {
	for k, v := range r.puts {
		if have := model[k]; have == nil || have.N != v.N || have.Tags[0] != v.Tags[0] {
			return true
		}
	}
	for k := range r.dels {
		if model[k] != nil {
			return true
		}
	}
	return false
}

func contents(s *Snapshot) map[string]*thing {
	all := map[string]*thing{}
	for v := range things.All(s) {
		all[v.ID] = v
	}
	return all
}

// expired lets Next return what is there and nothing else.
var expired = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
