package store

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
)

// Some work is the same for rows of every kind, those of tables yet to come
// included. It sees them here, without their types.

// untyped is a Table of whichever type.
type untyped struct{ m *tableMeta }

func (u untyped) Name() string     { return u.m.name }
func (u untyped) meta() *tableMeta { return u.m }

// Tables are all tables of this process, by name.
func Tables() []AnyTable {
	var all []AnyTable
	for _, m := range registered() {
		all = append(all, untyped{m})
	}
	slices.SortFunc(all, func(a, b AnyTable) int { return cmp.Compare(a.Name(), b.Name()) })
	return all
}

// Rows yields the keys and objects of a table, in key order. The objects are
// pointers to the table's type. What Table.All says of transactions holds here.
func Rows(r Reader, t AnyTable) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for e := range r.scan(t.meta(), "") {
			if !yield(e.key, e.obj) {
				return
			}
		}
	}
}

// Row is the object with this key, nil if there is none. In a transaction it is
// compared at commit.
func Row(r Reader, t AnyTable, key string) any {
	e := r.lookup(t.meta(), key)
	if e == nil || e.err != nil {
		return nil
	}
	return e.obj
}

// NewRow is an empty object of a table: a pointer to the table's type.
func NewRow(t AnyTable) any {
	v, err := t.meta().decode([]byte("{}"))
	if err != nil {
		panic(fmt.Sprintf("store: table %q holds what is no object: %v", t.Name(), err))
	}
	return v
}

// PutRow creates or replaces an object, which is a pointer to the table's type.
// It must not be changed afterwards.
func PutRow(tx *Tx, t AnyTable, v any) { tx.put(t.meta(), v) }

// DeleteRow removes the object with this key, if it exists.
func DeleteRow(tx *Tx, t AnyTable, key string) { tx.delete(t.meta(), key) }

type conditionKey struct{}

// WithCondition returns a context under which no transaction commits unless
// check allows it: check runs before each callback, in the same transaction, so
// that what it gets is compared at commit.
func WithCondition(ctx context.Context, check func(*Tx) error) context.Context {
	return context.WithValue(ctx, conditionKey{}, check)
}

// conditioned is fn under the condition of ctx.
func conditioned(ctx context.Context, fn func(*Tx) error) func(*Tx) error {
	check, ok := ctx.Value(conditionKey{}).(func(*Tx) error)
	if !ok {
		return fn
	}
	return func(tx *Tx) error {
		if err := check(tx); err != nil {
			return err
		}
		return fn(tx)
	}
}
