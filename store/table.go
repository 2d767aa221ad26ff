package store

import (
	"encoding/json"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A Table is a typed view of one kind of object. It is a description only: it holds no rows, so
// one package-level Table serves any number of databases.
type Table[T any] struct{ m *tableMeta }

// AnyTable is a Table of any type. Only Table implements it.
type AnyTable interface {
	Name() string
	meta() *tableMeta
}

// An Option of a table: an index, a sum, or Sealed.
type Option interface{ apply(*tableMeta) }

// tableMeta is a Table with its type erased.
type tableMeta struct {
	name    string
	ord     int // position in every state.tables; the order of NewTable calls in this process
	sealed  bool
	indexes []indexMeta
	sums    []sumMeta
	key     func(any) string
	decode  func([]byte) (any, error)
}

type indexMeta struct {
	name string
	of   func(any) []string
}

type sumMeta struct {
	name string
	of   func(any) (string, int)
}

// registry numbers the tables of the process. The numbers are never stored.
var registry struct {
	sync.Mutex
	tables []*tableMeta
}

var tableName = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,62}$`)

// NewTable declares a table. It is meant for package-level variables: a name that is malformed or
// taken is a mistake of the programmer and panics. The key of an object must never change.
func NewTable[T any](name string, key func(*T) string, opts ...Option) *Table[T] {
	if !tableName.MatchString(name) {
		panic(fmt.Sprintf("store: table name %q must match %s", name, tableName))
	}
	m := &tableMeta{
		name: name,
		key:  func(v any) string { return key(v.(*T)) },
		decode: func(b []byte) (any, error) {
			v := new(T)
			if err := json.Unmarshal(b, v); err != nil {
				return nil, err
			}
			return v, nil
		},
	}
	for _, o := range opts {
		o.apply(m)
	}
	registry.Lock()
	defer registry.Unlock()
	for _, have := range registry.tables {
		if have.name == name {
			panic(fmt.Sprintf("store: table %q declared twice", name))
		}
	}
	m.ord = len(registry.tables)
	registry.tables = append(registry.tables, m)
	return &Table[T]{m}
}

func registered() []*tableMeta {
	registry.Lock()
	defer registry.Unlock()
	return slices.Clone(registry.tables)
}

type optionFunc func(*tableMeta)

func (f optionFunc) apply(m *tableMeta) { f(m) }

// Index adds a secondary index: of returns the values under which an object is found by Table.By.
// It must depend on the object alone. Indexes live in memory only and may be changed freely.
func Index[T any](name string, of func(*T) []string) Option {
	return optionFunc(func(m *tableMeta) {
		m.indexes = append(m.indexes, indexMeta{name, func(v any) []string { return of(v.(*T)) }})
	})
}

// Sum adds a total that is kept up with every change: of returns how much an object adds, and to
// which total. It must depend on the object alone. Like indexes, sums live in memory only.
func Sum[T any](name string, of func(*T) (value string, n int)) Option {
	return optionFunc(func(m *tableMeta) {
		m.sums = append(m.sums, sumMeta{name, func(v any) (string, int) { return of(v.(*T)) }})
	})
}

// Sealed encrypts the values of a table at rest with the region's data key.
func Sealed() Option { return optionFunc(func(m *tableMeta) { m.sealed = true }) }

func (t *Table[T]) meta() *tableMeta { return t.m }

// Name is the table's name, part of every key in etcd.
func (t *Table[T]) Name() string { return t.m.name }

// Get returns the object with this key. In a transaction the key is compared at commit: if anyone
// changed, created or deleted it meanwhile, the callback runs again.
func (t *Table[T]) Get(r Reader, key string) (*T, bool) {
	e := r.lookup(t.m, key)
	if e == nil || e.err != nil {
		return nil, false
	}
	return e.obj.(*T), true
}

// Has reports whether the key exists. Like Get, it is compared at commit.
func (t *Table[T]) Has(r Reader, key string) bool {
	_, ok := t.Get(r, key)
	return ok
}

// Revision is the revision at which the object was last put; 0 if there is none, or if it was put
// by this same transaction only. Like Get, it is compared at commit.
func (t *Table[T]) Revision(r Reader, key string) int64 {
	if e := r.lookup(t.m, key); e != nil {
		return e.rev
	}
	return 0
}

// All returns every object in key order. In a transaction it is not compared at commit: see Guard.
func (t *Table[T]) All(r Reader) iter.Seq[*T] { return t.Prefix(r, "") }

// Prefix returns the objects whose key begins with p, in key order. In a transaction it is not
// compared at commit: see Guard.
func (t *Table[T]) Prefix(r Reader, p string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		r.scan(t.m, p)(func(e *entry) bool { return yield(e.obj.(*T)) })
	}
}

// By returns the objects that the index files under value, in key order. In a transaction it is
// not compared at commit: see Guard. An index that the table does not have panics.
func (t *Table[T]) By(r Reader, index, value string) iter.Seq[*T] {
	return t.After(r, index, value, "")
}

// After is By for what comes after a key, whether or not an object has that key: a listing that
// goes on costs what it yields, not what it skips.
func (t *Table[T]) After(r Reader, index, value, key string) iter.Seq[*T] {
	i := slices.IndexFunc(t.m.indexes, func(x indexMeta) bool { return x.name == index })
	if i < 0 {
		panic(fmt.Sprintf("store: table %q has no index %q", t.m.name, index))
	}
	return func(yield func(*T) bool) {
		r.scanIndex(t.m, i, value, key)(func(e *entry) bool { return yield(e.obj.(*T)) })
	}
}

// Count is the number of objects.
func (t *Table[T]) Count(r Reader) int { return r.count(t.m) }

// Sum is what the table's objects add up to under value, without a look at them. In a transaction
// it is not compared at commit: see Tx.Guard. A sum that the table does not have panics.
func (t *Table[T]) Sum(r Reader, sum, value string) int {
	i := slices.IndexFunc(t.m.sums, func(x sumMeta) bool { return x.name == sum })
	if i < 0 {
		panic(fmt.Sprintf("store: table %q has no sum %q", t.m.name, sum))
	}
	return r.sum(t.m, i, value)
}

// Put creates or replaces the object. The object, and all it points to, must not be changed
// afterwards. A Put that changes nothing writes nothing.
func (t *Table[T]) Put(tx *Tx, v *T) { tx.put(t.m, v) }

// Delete removes the object, if it exists.
func (t *Table[T]) Delete(tx *Tx, key string) { tx.delete(t.m, key) }

// Guard makes the commit fail, and so the callback run again, if any object whose key begins with
// prefix was put after the transaction's snapshot by somebody else. Deletions go unnoticed: it
// serves "no such object exists yet" and "at most n", not "still n". It costs etcd a scan of the
// prefix. Where deletions matter, or the range is an index, use Tx.Guard.
func (t *Table[T]) Guard(tx *Tx, prefix string) { tx.guardPrefix(t.m, prefix) }

// checkKey says what is wrong with a key, if anything.
func checkKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("empty key")
	case len(key) > maxKey:
		return fmt.Errorf("key of %d bytes is longer than %d", len(key), maxKey)
	case strings.IndexByte(key, 0) >= 0:
		return fmt.Errorf("key contains a zero byte")
	}
	return nil
}

const maxKey = 2048
