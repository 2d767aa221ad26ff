package store

import (
	"context"
	"iter"
	"slices"
	"sync"
)

// A Watch follows the database. Next returns the newest snapshot together with the keys that
// changed since the snapshot before: no change is ever missed, several may be told as one, and
// snapshots never go backwards. A slow reader delays nobody; it only finds more keys at once. One
// goroutine at a time may call Next.
type Watch struct {
	m      *mirror
	tables map[int]bool // nil: all
	wake   chan struct{}

	mu      sync.Mutex
	state   *state
	changed map[int]map[string]struct{}
	size    int
	all     bool
	err     error
}

// maxWatchKeys bounds what an abandoned or very slow watch can gather. Beyond it the reader is
// told that everything may have changed.
const maxWatchKeys = 1 << 17

// Changes is what a Watch found between two snapshots.
type Changes struct {
	// All: anything may have changed, deletions included. So it is on the first Next, and
	// hardly ever later.
	All bool

	keys map[int]map[string]struct{}
	snap *Snapshot
}

func (m *mirror) watch(tables []AnyTable) *Watch {
	w := &Watch{m: m, wake: make(chan struct{}, 1), all: true}
	if len(tables) > 0 {
		w.tables = make(map[int]bool, len(tables))
		for _, t := range tables {
			w.tables[t.meta().ord] = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w.state = m.load()
	w.wake <- struct{}{}
	if m.err != nil {
		w.err = m.err
		return w
	}
	m.watches[w] = struct{}{}
	return w
}

// add is called by the mirror for each publication, in order. It never blocks.
func (w *Watch) add(next *state, changes []change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = next
	relevant := false
	for _, c := range changes {
		if w.tables != nil && !w.tables[c.m.ord] {
			continue
		}
		relevant = true
		if w.all {
			break
		}
		keys := w.changed[c.m.ord]
		if keys == nil {
			if w.changed == nil {
				w.changed = map[int]map[string]struct{}{}
			}
			keys = map[string]struct{}{}
			w.changed[c.m.ord] = keys
		}
		if _, have := keys[c.key]; !have {
			keys[c.key] = struct{}{}
			if w.size++; w.size > maxWatchKeys {
				w.all, w.changed, w.size = true, nil, 0
			}
		}
	}
	if relevant {
		w.signal()
	}
}

func (w *Watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.signal()
}

func (w *Watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Next blocks until something changed. The first call returns at once, with changes.All. What has
// changed already is returned even if ctx has ended.
func (w *Watch) Next(ctx context.Context) (*Snapshot, Changes, error) {
	for {
		select {
		case <-w.wake:
		default:
			select {
			case <-w.wake:
			case <-ctx.Done():
				return nil, Changes{}, ctx.Err()
			}
		}
		if snap, c, ok := w.Poll(); ok {
			return snap, c, nil
		}
		w.mu.Lock()
		err := w.err
		if err != nil {
			w.signal() // so that every later call returns it too
		}
		w.mu.Unlock()
		if err != nil {
			return nil, Changes{}, err
		}
	}
}

// Poll is Next for one who does not wait: it reports false if nothing has changed.
func (w *Watch) Poll() (*Snapshot, Changes, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.all && len(w.changed) == 0 {
		return nil, Changes{}, false
	}
	snap := &Snapshot{w.state}
	c := Changes{All: w.all, keys: w.changed, snap: snap}
	w.all, w.changed, w.size = false, nil, 0
	if w.err != nil {
		w.signal()
	}
	return snap, c, true
}

// Close ends the watch. A Next that waits returns ErrClosed.
func (w *Watch) Close() {
	w.m.mu.Lock()
	delete(w.m.watches, w)
	w.m.mu.Unlock()
	w.fail(ErrClosed)
}

// Keys returns the keys of the table that changed, deleted ones included, in order. If All is set
// it returns every key that exists.
func (c Changes) Keys(t AnyTable) []string {
	m := t.meta()
	if c.All {
		var keys []string
		for e := range c.snap.scan(m, "") {
			keys = append(keys, e.key)
		}
		return keys
	}
	return slices.Sorted(mapKeys(c.keys[m.ord]))
}

// Has reports whether anything of one of the tables may have changed.
func (c Changes) Has(tables ...AnyTable) bool {
	if c.All {
		return true
	}
	for _, t := range tables {
		if len(c.keys[t.meta().ord]) > 0 {
			return true
		}
	}
	return false
}

func mapKeys(m map[string]struct{}) iter.Seq[string] {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
