package store

import (
	"context"
	"sync"
	"sync/atomic"
)

// The mirror is the state in memory: it advances through history, one or more whole revisions at
// a time and never backwards. Two sources feed it. A commit of our own is known in full before
// etcd's watch tells of it, so commit offers it at once; and the watch delivers everything, so it
// fills the gaps that others, or commits whose outcome we did not learn, leave. Whichever comes
// second finds its revision already passed and does nothing.
type mirror struct {
	cur atomic.Pointer[state]

	mu      sync.Mutex
	pending map[int64][]change // own commits that wait for the revision before them
	waiters []waiter
	watches map[*Watch]struct{}
	err     error // why the mirror has stopped for good
	failed  chan struct{}
}

type waiter struct {
	rev  int64
	done chan struct{}
}

func newMirror(s *state) *mirror {
	m := &mirror{pending: map[int64][]change{}, watches: map[*Watch]struct{}{}, failed: make(chan struct{})}
	m.cur.Store(s)
	return m
}

func (m *mirror) load() *state { return m.cur.Load() }

// commit offers the changes of one revision. They are applied as soon as every revision before it
// is.
func (m *mirror) commit(rev int64, changes []change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rev <= m.load().rev {
		return
	}
	m.pending[rev] = changes
	m.drain()
}

// drain applies what is pending without a gap.
func (m *mirror) drain() {
	for len(m.pending) > 0 {
		rev := m.load().rev + 1
		changes, ok := m.pending[rev]
		if !ok {
			return
		}
		delete(m.pending, rev)
		m.publish(m.load().with(rev, changes), changes)
	}
}

// advance applies changes that bring the mirror from where it is to rev, everything between
// included.
func (m *mirror) advance(rev int64, changes []change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rev <= m.load().rev {
		return
	}
	m.publish(m.load().with(rev, changes), changes)
	for r := range m.pending {
		if r <= rev {
			delete(m.pending, r)
		}
	}
	m.drain()
}

// publish makes next visible, then tells watches, then waiters. The caller holds mu.
func (m *mirror) publish(next *state, changes []change) {
	m.cur.Store(next)
	for w := range m.watches {
		w.add(next, changes)
	}
	keep := m.waiters[:0]
	for _, w := range m.waiters {
		if w.rev <= next.rev {
			close(w.done)
		} else {
			keep = append(keep, w)
		}
	}
	clear(m.waiters[len(keep):])
	m.waiters = keep
}

// wait returns when the mirror has reached rev.
func (m *mirror) wait(ctx context.Context, rev int64) error {
	if m.load().rev >= rev {
		return nil
	}
	m.mu.Lock()
	if m.load().rev >= rev {
		m.mu.Unlock()
		return nil
	}
	if err := m.err; err != nil {
		m.mu.Unlock()
		return err
	}
	w := waiter{rev, make(chan struct{})}
	m.waiters = append(m.waiters, w)
	m.mu.Unlock()
	select {
	case <-w.done:
		if m.load().rev >= rev {
			return nil
		}
		return m.failure()
	case <-ctx.Done():
		m.mu.Lock()
		for i := range m.waiters {
			if m.waiters[i].done == w.done {
				m.waiters = append(m.waiters[:i], m.waiters[i+1:]...)
				break
			}
		}
		m.mu.Unlock()
		return ctx.Err()
	}
}

// fail stops the mirror: it stays readable, but nobody waits for it any longer.
func (m *mirror) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return
	}
	m.err = err
	close(m.failed)
	for _, w := range m.waiters {
		close(w.done)
	}
	m.waiters = nil
	for w := range m.watches {
		w.fail(err)
	}
}

func (m *mirror) failure() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// replace jumps to a state that was read in full, and tells watches what differs.
func (m *mirror) replace(next *state, metas []*tableMeta) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cur := m.load()
	if next.rev <= cur.rev {
		return
	}
	m.publish(next, diff(cur, next, metas))
	for r := range m.pending {
		if r <= next.rev {
			delete(m.pending, r)
		}
	}
	m.drain()
}

// diff lists the changes that lead from one state to the other.
func diff(from, to *state, metas []*tableMeta) []change {
	var changes []change
	for _, t := range metas {
		for e := range walkAll(to.rows(t).byKey, nil) {
			if old := from.lookup(t, e.key); old == nil || old.rev != e.rev {
				changes = append(changes, change{t, e.key, e})
			}
		}
		for e := range walkAll(from.rows(t).byKey, nil) {
			if to.lookup(t, e.key) == nil {
				changes = append(changes, change{t, e.key, nil})
			}
		}
	}
	return changes
}
