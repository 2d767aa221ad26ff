package journal

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

const id = "abcdef0123456789"

func open(t interface {
	Fatal(...any)
}, dir string) *Journal {
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestReadMatchesPlainSort(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		j := open(t, filepath.Join(dir, fmt.Sprint(n)))
		var all []Event
		for range rapid.IntRange(0, 5).Draw(t, "batches") {
			var batch []Event
			for range rapid.IntRange(0, 50).Draw(t, "events") {
				batch = append(batch, Event{Time: rapid.Int64Range(0, 40).Draw(t, "time"), Ingested: 7, Message: rapid.String().Draw(t, "message")})
			}
			if err := j.Append(id, batch); err != nil {
				t.Fatal(err)
			}
			for _, e := range batch {
				e.Seq = int64(len(all))
				all = append(all, e)
			}
			if rapid.Bool().Draw(t, "reopen") {
				j = open(t, filepath.Join(dir, fmt.Sprint(n)))
			}
		}
		q := Query{From: rapid.Int64Range(0, 40).Draw(t, "from"), To: rapid.Int64Range(0, 50).Draw(t, "to"), Limit: rapid.IntRange(0, 20).Draw(t, "limit"), Tail: rapid.Bool().Draw(t, "tail")}
		var want []Event
		for _, e := range all {
			if e.Time >= q.From && e.Time < q.To {
				want = append(want, e)
			}
		}
		slices.SortFunc(want, func(a, b Event) int { return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Seq, b.Seq)) })
		if q.Limit > 0 && len(want) > q.Limit {
			if q.Tail {
				want = want[len(want)-q.Limit:]
			} else {
				want = want[:q.Limit]
			}
		}
		got, err := j.Read(id, q)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("read %+v:\n got %v\nwant %v", q, got, want)
		}
	})
}

// A process that dies while it writes leaves a torn record. The batches before
// it stay, and the stream goes on.
func TestTornEnd(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	if err := j.Append(id, []Event{{Time: 1, Message: "kept"}}); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(id, []Event{{Time: 2, Message: "torn by a crash, and long"}}); err != nil {
		t.Fatal(err)
	}
	path := j.path(id)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := st.Size() - 1; cut >= 28; cut-- {
		if err := os.Truncate(path, cut); err != nil {
			t.Fatal(err)
		}
		got, err := open(t, dir).Read(id, Query{To: math.MaxInt64})
		if err != nil || len(got) != 1 || got[0].Message != "kept" {
			t.Fatalf("cut at %d: %v, %v", cut, got, err)
		}
	}
	j = open(t, dir)
	if err := j.Append(id, []Event{{Time: 3, Message: "next"}}); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, dir).Read(id, Query{To: math.MaxInt64})
	if err != nil || len(got) != 2 || got[1].Message != "next" {
		t.Fatalf("after the torn record: %v, %v", got, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, header))
	f.Add([]byte{255, 255, 255, 255, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		j := open(t, t.TempDir())
		if err := os.MkdirAll(filepath.Dir(j.path(id)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(j.path(id), b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := j.Read(id, Query{To: math.MaxInt64})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Append(id, []Event{{Time: 5, Message: "x"}}); err != nil {
			t.Fatal(err)
		}
		after, err := open(t, filepath.Dir(filepath.Dir(j.path(id)))).Read(id, Query{From: math.MinInt64, To: math.MaxInt64})
		if err != nil {
			t.Fatal(err)
		}
		if len(after) < 1 || len(after) < len(got) {
			t.Fatalf("%d events, then %d", len(got), len(after))
		}
	})
}

// What is left of a torn write may look like a record: a client chose its
// bytes. The next append must not make it one.
func TestTornEndIsCutOff(t *testing.T) {
	dir := t.TempDir()
	open := func() *Journal {
		t.Helper()
		j, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	const id = "abcdef"
	forged := "forged record"
	j := open()
	for _, m := range []string{"first", forged} {
		if err := j.Append(id, []Event{{Time: 1, Message: m}}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(j.path(id))
	if err != nil {
		t.Fatal(err)
	}
	n := header + len("first")
	first, second := b[:n], b[n:]
	// first, a torn record as long as the next append, and what reads as a record behind it.
	torn := slices.Concat(first, make([]byte, header+len("next!")), second)
	torn[n] = 0xff
	if err := os.WriteFile(j.path(id), torn, 0o600); err != nil {
		t.Fatal(err)
	}
	j = open()
	if err := j.Append(id, []Event{{Time: 2, Message: "next!"}}); err != nil {
		t.Fatal(err)
	}
	for _, j := range []*Journal{j, open()} {
		es, err := j.Read(id, Query{To: 10})
		if err != nil || len(es) != 2 || es[0].Message != "first" || es[1].Message != "next!" {
			t.Errorf("%+v %v", es, err)
		}
	}
}
