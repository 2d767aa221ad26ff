package store

import (
	"errors"
	"testing"
)

// FuzzLoad feeds stored bytes to the decoder: it must return an entry or a DamagedError that names
// the key, and what it accepts must store to something that it accepts again.
func FuzzLoad(f *testing.F) {
	keys := newKeyring()
	if _, err := keys.add(make([]byte, sealKeySize)); err != nil {
		f.Fatal(err)
	}
	c := &codec{keys: keys}
	sealed, err := keys.seal("/berth/v1/secret/a", []byte(`{"ID":"a"}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a", []byte("\x01"+`{"ID":"a","N":1,"Tags":["x",""]}`))
	f.Add("a", sealed)
	f.Add("b", sealed)
	f.Add("", []byte{})
	f.Add("a", []byte{1})
	f.Add("a", []byte{2, 0, 0})
	f.Add("a", []byte{3, '{', '}'})
	f.Add("a", []byte("\x01null"))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		for _, m := range []*tableMeta{things.m, secrets.m} {
			e := c.load(m, key, 1, value)
			if e.err != nil {
				var d *DamagedError
				if !errors.As(e.err, &d) || d.Key != etcdKey(m, key) {
					t.Fatalf("error without the key: %v", e.err)
				}
				continue
			}
			b, err := plain(e.obj)
			if err != nil {
				t.Fatal(err)
			}
			again, err := c.store(m, key, b)
			if err != nil {
				t.Fatal(err)
			}
			if e := c.load(m, key, 1, again); e.err != nil {
				t.Fatal(e.err)
			}
		}
	})
}

// FuzzIndexKey: an index finds an object under exactly the values it was filed under.
func FuzzIndexKey(f *testing.F) {
	f.Add("a", "a\x00", "k")
	f.Add("a\x00", "a\x00\xff", "k")
	f.Add("", "\x00\x01", "\x00")
	f.Fuzz(func(t *testing.T, filed, asked, key string) {
		s := newState([]*tableMeta{things.m})
		s = s.with(1, []change{{things.m, key, newEntry(things.m, key, 1, &thing{ID: key, Tags: []string{filed}})}})
		n := 0
		for range s.scanIndex(things.m, 0, asked, "") {
			n++
		}
		if (n == 1) != (filed == asked) {
			t.Fatalf("filed under %q, asked for %q: %d", filed, asked, n)
		}
	})
}

func FuzzSplitKey(f *testing.F) {
	f.Add("/berth/v1/thing/a/b")
	f.Add("/berth/schema")
	f.Add("")
	f.Fuzz(func(t *testing.T, k string) {
		if table, key, ok := splitKey(k); ok && keyObjects+table+"/"+key != k {
			t.Fatalf("%q splits into %q and %q", k, table, key)
		}
	})
}
