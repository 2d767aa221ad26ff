package store

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// A Tx is a transaction: a snapshot, and what the callback writes on top of it. It reads its own
// writes. It is only good inside the callback it was given to, and for one goroutine.
type Tx struct {
	db     *DB
	base   *state
	now    *state // base and the writes but for those of late
	late   []change
	reads  map[ref]int64
	ranges []rangeGuard
	writes map[ref]*write
	names  map[string]bool
	err    error // the first misuse, or damaged object; Update returns it
}

type ref struct {
	m   *tableMeta
	key string
}

type write struct {
	e     *entry // nil: delete
	plain []byte
	force bool // write even what is the same
}

type rangeGuard struct {
	m      *tableMeta
	prefix string
}

func newTx(db *DB, base *state) *Tx { return &Tx{db: db, base: base, now: base} }

// Revision is that of the snapshot the transaction reads.
func (tx *Tx) Revision() int64 { return tx.base.rev }

func (tx *Tx) fail(err error) {
	if tx.err == nil {
		tx.err = err
	}
}

// read notes that the outcome depends on this key.
func (tx *Tx) read(m *tableMeta, key string) {
	r := ref{m, key}
	if _, have := tx.reads[r]; have {
		return
	}
	if tx.reads == nil {
		tx.reads = make(map[ref]int64, 8)
	}
	var rev int64
	if e := tx.base.lookup(m, key); e != nil {
		rev = e.rev
	}
	tx.reads[r] = rev
}

func (tx *Tx) lookup(m *tableMeta, key string) *entry {
	if checkKey(key) != nil {
		return nil // cannot exist, so there is nothing to compare
	}
	tx.read(m, key)
	e, written := tx.written(m, key)
	if !written {
		e = tx.base.lookup(m, key)
	}
	if e != nil && e.err != nil {
		// A decision must not rest on an object that is there and cannot be seen.
		tx.fail(e.err)
	}
	return e
}

// written is what the transaction itself put at a key: nil if it deleted that.
func (tx *Tx) written(m *tableMeta, key string) (e *entry, ok bool) {
	if w := tx.writes[ref{m, key}]; w != nil {
		return w.e, true
	}
	return nil, false
}

// current is the base and all writes. Trees cost much more than the map of writes, and most
// transactions read what they wrote by key, if at all: so they are made when they are asked for.
func (tx *Tx) current() *state {
	if len(tx.late) > 0 {
		tx.now, tx.late = tx.now.with(tx.base.rev, tx.late), nil
	}
	return tx.now
}

func (tx *Tx) scan(m *tableMeta, prefix string) iter.Seq[*entry] {
	return tx.current().scan(m, prefix)
}
func (tx *Tx) scanIndex(m *tableMeta, index int, value, after string) iter.Seq[*entry] {
	return tx.current().scanIndex(m, index, value, after)
}
func (tx *Tx) count(m *tableMeta) int                      { return tx.current().count(m) }
func (tx *Tx) sum(m *tableMeta, sum int, value string) int { return tx.current().sum(m, sum, value) }

func (tx *Tx) put(m *tableMeta, v any) {
	key := m.key(v)
	if err := checkKey(key); err != nil {
		tx.fail(fmt.Errorf("store: put %s %q: %w", m.name, key, err))
		return
	}
	b, err := plain(v)
	if err != nil {
		tx.fail(fmt.Errorf("store: put %s %q: %w", m.name, key, err))
		return
	}
	e := newEntry(m, key, 0, v)
	if tx.db.frozen {
		e.sum = checkRoundTrip(m, key, b)
	}
	tx.write(m, key, &write{e: e, plain: b})
}

// reseal puts what is there, for the sake of its encryption.
func (tx *Tx) reseal(m *tableMeta, e *entry) {
	tx.put(m, e.obj)
	if w := tx.writes[ref{m, e.key}]; w != nil {
		w.force = true
	}
}

func (tx *Tx) delete(m *tableMeta, key string) {
	if checkKey(key) != nil {
		return
	}
	tx.write(m, key, &write{})
}

func (tx *Tx) write(m *tableMeta, key string, w *write) {
	tx.read(m, key)
	if tx.writes == nil {
		tx.writes = make(map[ref]*write, 8)
	}
	tx.writes[ref{m, key}] = w
	tx.late = append(tx.late, change{m, key, w.e})
}

func (tx *Tx) guardPrefix(m *tableMeta, prefix string) {
	tx.base.rows(m)
	tx.ranges = append(tx.ranges, rangeGuard{m, prefix})
}

// Guard makes transactions that use the same name exclude each other: of two that overlap, one
// runs its callback again. With it, what a transaction reads by All, Prefix or By stays true until
// it commits, provided that all who change that range use the name too. It costs one write.
func (tx *Tx) Guard(name string) {
	if tx.names[name] {
		return
	}
	if tx.names == nil {
		tx.names = map[string]bool{}
	}
	tx.names[name] = true
	next := &guard{Name: name}
	if g, ok := guards.Get(tx, name); ok {
		next.N = g.N
	}
	next.N++
	guards.Put(tx, next)
}

// guard is what Tx.Guard writes: a name, and how often it was used.
type guard struct {
	Name string
	N    int64
}

var guards = NewTable("guard", func(g *guard) string { return g.Name })

// A request is a transaction as etcd sees it.
type request struct {
	compares []compare
	ranges   []rangeCompare
	ops      []op
	changes  []change // what the ops do to the mirror, in the same order
}

type compare struct {
	key string
	rev int64 // ModRevision; 0: must not exist
}

// rangeCompare: no key below prefix may have a ModRevision above rev.
type rangeCompare struct {
	prefix string
	rev    int64
}

type op struct {
	key   string
	value []byte // nil: delete
}

// request renders the transaction. It has no ops if nothing would change.
func (tx *Tx) request() (*request, error) {
	if tx.db.frozen {
		tx.checkFrozen()
	}
	r := &request{}
	for w, x := range tx.writes {
		old := tx.base.lookup(w.m, w.key)
		switch {
		case x.e == nil && old == nil:
			continue
		case x.e == nil:
			r.ops = append(r.ops, op{key: etcdKey(w.m, w.key)})
		default:
			if old != nil && old.err == nil && !x.force {
				if have, err := plain(old.obj); err == nil && bytes.Equal(have, x.plain) {
					continue
				}
			}
			value, err := tx.db.codec.store(w.m, w.key, x.plain)
			if err != nil {
				return nil, fmt.Errorf("store: put %s %q: %w", w.m.name, w.key, err)
			}
			r.ops = append(r.ops, op{etcdKey(w.m, w.key), value})
		}
		r.changes = append(r.changes, change{w.m, w.key, x.e})
	}
	if len(r.ops) == 0 {
		return r, nil
	}
	for k, rev := range tx.reads {
		r.compares = append(r.compares, compare{etcdKey(k.m, k.key), rev})
	}
	slices.SortFunc(r.compares, func(a, b compare) int { return strings.Compare(a.key, b.key) })
	for _, g := range tx.ranges {
		r.ranges = append(r.ranges, rangeCompare{etcdKey(g.m, g.prefix), tx.base.rev})
	}
	return r, nil
}

// run calls the callback and says what it wants.
func (tx *Tx) run(fn func(*Tx) error) (*request, error) {
	if err := fn(tx); err != nil {
		if tx.err != nil && !errors.Is(err, tx.err) {
			return nil, errors.Join(tx.err, err)
		}
		return nil, err
	}
	if tx.err != nil {
		return nil, tx.err
	}
	return tx.request()
}

// size estimates what the request takes in etcd's log.
func (r *request) size() int {
	n := 0
	for _, c := range r.compares {
		n += len(c.key) + 24
	}
	for _, g := range r.ranges {
		n += 2*len(g.prefix) + 24
	}
	for _, o := range r.ops {
		n += len(o.key) + len(o.value) + 24
	}
	return n
}
