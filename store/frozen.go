package store

import (
	"bytes"
	"fmt"
	"hash/maphash"
)

var frozenSeed = maphash.MakeSeed()

// checkRoundTrip panics if an object read back would not be the object that was put: a type that
// encodes what it cannot decode would change at the next restart. It returns the sum of b.
func checkRoundTrip(m *tableMeta, key string, b []byte) uint64 {
	obj, err := m.decode(b)
	if err != nil {
		panic(fmt.Sprintf("store: %s %q encodes to something that it cannot decode: %v", m.name, key, err))
	}
	if again, err := plain(obj); err != nil || !bytes.Equal(again, b) {
		panic(fmt.Sprintf("store: %s %q does not survive storing:\nput  %s\nread %s\n%v", m.name, key, b, again, err))
	}
	return maphash.Bytes(frozenSeed, b)
}

// freeze notes what the object is.
func (e *entry) freeze() {
	if b, err := plain(e.obj); err == nil {
		e.sum = maphash.Bytes(frozenSeed, b)
	}
}

// checkFrozen panics if an object that the transaction could reach by key was modified after it
// was put.
func (tx *Tx) checkFrozen() {
	for r := range tx.reads {
		tx.base.lookup(r.m, r.key).checkFrozen(r.m)
	}
	for r, w := range tx.writes {
		w.e.checkFrozen(r.m)
	}
}

func (e *entry) checkFrozen(m *tableMeta) {
	if e == nil || e.err != nil || e.sum == 0 {
		return
	}
	b, err := plain(e.obj)
	if err != nil || maphash.Bytes(frozenSeed, b) != e.sum {
		panic(fmt.Sprintf("store: %s %q was modified after it was put; it is now %s", m.name, e.key, b))
	}
}

// CheckFrozen panics if any object of the snapshot was modified after it was put. It works on a
// database opened with Config.CheckFrozen, or in memory.
func (s *Snapshot) CheckFrozen() {
	for _, m := range registered() {
		if m.ord < len(s.s.tables) && s.s.tables[m.ord] != nil {
			for e := range s.s.scan(m, "") {
				e.checkFrozen(m)
			}
		}
	}
}
