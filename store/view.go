package store

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// A Reader is something to read tables from: a Snapshot, or a transaction.
type Reader interface {
	lookup(m *tableMeta, key string) *entry
	scan(m *tableMeta, prefix string) iter.Seq[*entry]
	scanIndex(m *tableMeta, index int, value, after string) iter.Seq[*entry]
	count(m *tableMeta) int
	sum(m *tableMeta, sum int, value string) int
}

// An entry is one stored object. It is immutable once it is reachable from a published state.
type entry struct {
	key   string
	rev   int64 // etcd's ModRevision
	obj   any
	index [][]string // values per index, kept so that removal never depends on the object
	sums  []summand  // per sum
	err   error      // the stored bytes could not be read: the entry only holds its revision
	sum   uint64     // of the encoded object, if the database checks that objects stay frozen
}

// A summand is what an object adds, and to what.
type summand struct {
	value string
	n     int
}

// newEntry files an object. The index functions run here, on the caller's goroutine.
func newEntry(m *tableMeta, key string, rev int64, obj any) *entry {
	e := &entry{key: key, rev: rev, obj: obj}
	if len(m.indexes) > 0 {
		e.index = make([][]string, len(m.indexes))
		for i, x := range m.indexes {
			e.index[i] = x.of(obj)
		}
	}
	if len(m.sums) > 0 {
		e.sums = make([]summand, len(m.sums))
		for i, x := range m.sums {
			e.sums[i].value, e.sums[i].n = x.of(obj)
		}
	}
	return e
}

// state is every table at one revision. It is never modified: with returns a changed copy.
type state struct {
	rev    int64
	tables []*rows // by tableMeta.ord
}

// rows is one table: the objects by key, per index the objects by value and key, and per sum the
// totals by value.
type rows struct {
	byKey   *iradix.Tree[*entry]
	byIndex []*iradix.Tree[*entry]
	sums    []*iradix.Tree[int]
	damaged int // entries that hold no object
}

var (
	emptyTree = iradix.New[*entry]()
	noSums    = iradix.New[int]()
)

func newRows(m *tableMeta) *rows {
	r := &rows{byKey: emptyTree, byIndex: make([]*iradix.Tree[*entry], len(m.indexes))}
	for i := range r.byIndex {
		r.byIndex[i] = emptyTree
	}
	for range m.sums {
		r.sums = append(r.sums, noSums)
	}
	return r
}

func newState(metas []*tableMeta) *state {
	s := &state{}
	for _, m := range metas {
		for len(s.tables) <= m.ord {
			s.tables = append(s.tables, nil)
		}
		s.tables[m.ord] = newRows(m)
	}
	return s
}

func (s *state) rows(m *tableMeta) *rows {
	if m.ord >= len(s.tables) || s.tables[m.ord] == nil {
		panic(fmt.Sprintf("store: table %q was not given to this database when it was opened", m.name))
	}
	return s.tables[m.ord]
}

// A change is one key that gets a new entry, or none.
type change struct {
	m   *tableMeta
	key string
	e   *entry // nil: deleted
}

// with returns the state after the changes, which are all of revision rev.
func (s *state) with(rev int64, changes []change) *state {
	next := &state{rev: rev, tables: append([]*rows(nil), s.tables...)}
	type open struct {
		rows    *rows
		byKey   *iradix.Txn[*entry]
		byIndex []*iradix.Txn[*entry]
		sums    []*iradix.Txn[int]
	}
	var opened map[int]*open
	for _, c := range changes {
		o := opened[c.m.ord]
		if o == nil {
			have := s.rows(c.m)
			o = &open{rows: &rows{damaged: have.damaged}, byKey: have.byKey.Txn()}
			for _, t := range have.byIndex {
				o.byIndex = append(o.byIndex, t.Txn())
			}
			for _, t := range have.sums {
				o.sums = append(o.sums, t.Txn())
			}
			if opened == nil {
				opened = make(map[int]*open, 4)
			}
			opened[c.m.ord] = o
		}
		var old *entry
		if c.e != nil {
			old, _ = o.byKey.Insert([]byte(c.key), c.e)
		} else {
			old, _ = o.byKey.Delete([]byte(c.key))
		}
		if old != nil {
			if old.err != nil {
				o.rows.damaged--
			}
			for i, values := range old.index {
				for _, v := range values {
					o.byIndex[i].Delete(indexKey(v, c.key))
				}
			}
			for i, s := range old.sums {
				add(o.sums[i], s.value, -s.n)
			}
		}
		if c.e != nil {
			if c.e.err != nil {
				o.rows.damaged++
			}
			for i, values := range c.e.index {
				for _, v := range values {
					o.byIndex[i].Insert(indexKey(v, c.key), c.e)
				}
			}
			for i, s := range c.e.sums {
				add(o.sums[i], s.value, s.n)
			}
		}
	}
	for ord, o := range opened {
		o.rows.byKey = o.byKey.CommitOnly()
		for _, t := range o.byIndex {
			o.rows.byIndex = append(o.rows.byIndex, t.CommitOnly())
		}
		for _, t := range o.sums {
			o.rows.sums = append(o.rows.sums, t.CommitOnly())
		}
		next.tables[ord] = o.rows
	}
	return next
}

// add changes a total. What is 0 has no entry.
func add(t *iradix.Txn[int], value string, n int) {
	if n == 0 {
		return
	}
	k := []byte(value)
	have, _ := t.Get(k)
	if n += have; n == 0 {
		t.Delete(k)
	} else {
		t.Insert(k, n)
	}
}

// indexPrefix ends a value so that no value is a prefix of another: zero bytes inside it are
// escaped, and the end is marked by a pair that escaping never yields.
func indexPrefix(value string) []byte {
	if strings.IndexByte(value, 0) >= 0 {
		value = strings.ReplaceAll(value, "\x00", "\x00\xff")
	}
	return append(append(make([]byte, 0, len(value)+66), value...), 0, 1)
}

func indexKey(value, key string) []byte { return append(indexPrefix(value), key...) }

func (s *state) lookup(m *tableMeta, key string) *entry {
	e, _ := s.rows(m).byKey.Get([]byte(key))
	return e
}

func (s *state) scan(m *tableMeta, prefix string) iter.Seq[*entry] {
	return walk(s.rows(m).byKey, []byte(prefix))
}

// scanIndex yields what is filed under value, and comes after the key after if that is not "".
func (s *state) scanIndex(m *tableMeta, index int, value, after string) iter.Seq[*entry] {
	t, prefix := s.rows(m).byIndex[index], indexPrefix(value)
	if after == "" {
		return walk(t, prefix)
	}
	return func(yield func(*entry) bool) {
		it := t.Root().Iterator()
		it.SeekLowerBound(append(slices.Clip(prefix), after...))
		for {
			k, e, ok := it.Next()
			if !ok || !bytes.HasPrefix(k, prefix) {
				return
			}
			if e.err == nil && e.key != after && !yield(e) {
				return
			}
		}
	}
}

func (s *state) count(m *tableMeta) int {
	r := s.rows(m)
	return r.byKey.Len() - r.damaged
}

func (s *state) sum(m *tableMeta, sum int, value string) int {
	n, _ := s.rows(m).sums[sum].Get([]byte(value))
	return n
}

// walk yields the entries below prefix that hold an object.
func walk(t *iradix.Tree[*entry], prefix []byte) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		it := t.Root().Iterator()
		it.SeekPrefix(prefix)
		for {
			_, e, ok := it.Next()
			if !ok || e.err == nil && !yield(e) {
				return
			}
		}
	}
}

func walkAll(t *iradix.Tree[*entry], prefix []byte) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		it := t.Root().Iterator()
		it.SeekPrefix(prefix)
		for {
			_, e, ok := it.Next()
			if !ok || !yield(e) {
				return
			}
		}
	}
}

// A Snapshot is all tables at one revision. It never changes and may be kept and shared freely.
type Snapshot struct{ s *state }

// Revision is the snapshot's place in history.
func (s *Snapshot) Revision() int64 { return s.s.rev }

// Damaged lists the stored objects that could not be read.
func (s *Snapshot) Damaged() []*DamagedError {
	var all []*DamagedError
	for _, r := range s.s.tables {
		if r == nil || r.damaged == 0 {
			continue
		}
		for e := range walkAll(r.byKey, nil) {
			var d *DamagedError
			if errors.As(e.err, &d) {
				all = append(all, d)
			}
		}
	}
	return all
}

func (s *Snapshot) lookup(m *tableMeta, key string) *entry { return s.s.lookup(m, key) }
func (s *Snapshot) scan(m *tableMeta, prefix string) iter.Seq[*entry] {
	return s.s.scan(m, prefix)
}
func (s *Snapshot) scanIndex(m *tableMeta, index int, value, after string) iter.Seq[*entry] {
	return s.s.scanIndex(m, index, value, after)
}
func (s *Snapshot) count(m *tableMeta) int                      { return s.s.count(m) }
func (s *Snapshot) sum(m *tableMeta, sum int, value string) int { return s.s.sum(m, sum, value) }
