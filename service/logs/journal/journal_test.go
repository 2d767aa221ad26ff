package journal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

const id = "abcdef0123456789"

func open(t interface {
	Helper()
	Fatal(...any)
}, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func put(t *testing.T, j *Journal, stream string, events ...Event) {
	t.Helper()
	if err := j.Append(stream, 7, events); err != nil {
		t.Fatal(err)
	}
}

func texts(t *testing.T, j *Journal, q Query) string {
	t.Helper()
	if q.Streams == nil {
		q.Streams = []string{id}
	}
	if q.To == 0 {
		q.To = math.MaxInt64
	}
	a, err := j.Search(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range a.Events {
		out = append(out, e.Message)
	}
	return strings.Join(out, " ")
}

// small makes segments and chunks so small that a few events make several.
func small(t *testing.T) {
	a, b, c, d := segmentSize, chunkSize, segmentSpan, spanSize
	segmentSize, chunkSize, segmentSpan, spanSize = 600, 150, 30, 200
	t.Cleanup(func() { segmentSize, chunkSize, segmentSpan, spanSize = a, b, c, d })
}

func TestSearchMatchesPlainSort(t *testing.T) {
	small(t)
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		place := filepath.Join(dir, fmt.Sprint(n))
		j := open(t, place)
		streams := []string{"aa1", "aa2", "bb1"}
		var all []Event
		count := map[string]int64{}
		before := int64(math.MinInt64)
		for range rapid.IntRange(0, 12).Draw(t, "batches") {
			var batch []Event
			s := rapid.SampledFrom(streams).Draw(t, "stream")
			at := rapid.Int64Range(0, 100).Draw(t, "ingested")
			for range rapid.IntRange(0, 20).Draw(t, "events") {
				batch = append(batch, Event{Time: rapid.Int64Range(0, 60).Draw(t, "time"), Message: rapid.StringMatching(`[ab\\]{0,6}`).Draw(t, "message")})
			}
			if err := j.Append(s, at, batch); err != nil {
				t.Fatal(err)
			}
			for _, e := range batch {
				e.Stream, e.Seq, e.Ingested = s, count[s], at
				count[s]++
				all = append(all, e)
			}
			if rapid.IntRange(0, 3).Draw(t, "reopen") == 0 {
				j = open(t, place)
			}
		}
		if rapid.Bool().Draw(t, "expire") {
			before = rapid.Int64Range(0, 60).Draw(t, "before")
			for _, s := range streams {
				if _, err := j.Expire(s, before); err != nil {
					t.Fatal(err)
				}
			}
		}
		q := Query{
			Range: Range{Streams: rapid.SliceOfNDistinct(rapid.SampledFrom(streams), 0, 3, rapid.ID).Draw(t, "of"),
				From: max(before, rapid.Int64Range(0, 40).Draw(t, "from")), To: rapid.Int64Range(0, 70).Draw(t, "to")},
			Limit: rapid.IntRange(0, 20).Draw(t, "limit"), Size: rapid.SampledFrom([]int{0, 40, 200}).Draw(t, "size"), Tail: rapid.Bool().Draw(t, "tail"),
		}
		if n := rapid.SampledFrom([]int64{0, 1, 100}).Draw(t, "enough"); n > 0 {
			q.Enough = func(read int64) bool { return read >= n }
		}
		match := func([]byte) bool { return true }
		if needle := rapid.SampledFrom([]string{"", "ab", "a", "bb"}).Draw(t, "needle"); needle != "" {
			q.Needle, q.Escaped = []byte(needle), rapid.Bool().Draw(t, "escaped")
			match = func(m []byte) bool {
				return bytes.Contains(m, q.Needle) || q.Escaped && bytes.IndexByte(m, '\\') >= 0
			}
			q.Match = match
		}
		var want []Event
		scanned := int64(0)
		for _, e := range all {
			if e.Time >= q.From && e.Time < q.To && slices.Contains(q.Streams, e.Stream) {
				if scanned++; match([]byte(e.Message)) {
					want = append(want, e)
				}
			}
		}
		slices.SortFunc(want, func(a, b Event) int {
			return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Seq, b.Seq))
		})
		// Page by page it is the same, whatever the bounds of a page.
		var got []Event
		for pages := 0; ; pages++ {
			a, err := j.Search(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			size := 0
			for _, e := range a.Events {
				size += len(e.Message) + Overhead
			}
			if q.Limit > 0 && len(a.Events) > q.Limit || q.Size > 0 && size > q.Size && len(a.Events) > 1 {
				t.Fatalf("%d events of %d bytes, limit %d and %d", len(a.Events), size, q.Limit, q.Size)
			}
			if q.Tail {
				got = append(slices.Clone(a.Events), got...)
			} else {
				got = append(got, a.Events...)
			}
			if a.Next == nil {
				break
			}
			if q.Tail {
				q.Before = a.Next
			} else {
				q.After = a.Next
			}
			if pages > 1000 {
				t.Fatal("pages without end")
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("search %+v:\n got %v\nwant %v", q, got, want)
		}
		var mu sync.Mutex
		seen := 0
		s, err := j.Scan(context.Background(), q.Range, func(r *Raw) error {
			mu.Lock()
			defer mu.Unlock()
			if match(r.Message) {
				seen++
			}
			return nil
		})
		if err != nil || s.Events != scanned || seen != len(want) {
			t.Fatalf("scan: %d of %d events, %d selected of %d, %v", s.Events, scanned, seen, len(want), err)
		}
		for _, s := range streams {
			a, err := j.Info(s)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := open(t, place).Info(s); err != nil || a != b {
				t.Fatalf("info %+v, opened anew %+v %v", a, b, err)
			}
			if before == math.MinInt64 && a.Events != count[s] {
				t.Fatalf("%d events of %d", a.Events, count[s])
			}
		}
	})
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	fs, err := filepath.Glob(filepath.Join(dir, "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// What has expired frees its space, and the stream goes on.
func TestExpire(t *testing.T) {
	small(t)
	dir := t.TempDir()
	j := open(t, dir)
	for i := range int64(200) {
		put(t, j, id, Event{Time: i, Message: fmt.Sprint(i)})
	}
	n := len(files(t, dir))
	if n < 10 {
		t.Fatalf("%d segments", n)
	}
	freed, err := j.Expire(id, 150)
	if err != nil || freed == 0 {
		t.Fatalf("%d %v", freed, err)
	}
	if left := len(files(t, dir)); left > n/3 {
		t.Errorf("%d of %d segments are left", left, n)
	}
	if got := texts(t, j, Query{Range: Range{From: 198}}); got != "198 199" {
		t.Errorf("what has not expired: %s", got)
	}
	if _, err := j.Expire(id, 1000); err != nil {
		t.Fatal(err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	put(t, j, id, Event{Time: 2000, Message: "new"})
	for _, j := range []*Journal{j, open(t, dir)} {
		if got := texts(t, j, Query{}); got != "new" {
			t.Errorf("after all has expired: %s", got)
		}
	}
	if err := j.Remove(id); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) != 0 {
		t.Errorf("a removed stream leaves %v", left)
	}
	if ids, err := j.List(); err != nil || len(ids) != 0 {
		t.Errorf("%v %v", ids, err)
	}
}

// A process that dies while it writes leaves a torn block. The batches before
// it stay, and the stream goes on.
func TestTornEnd(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	put(t, j, id, Event{Time: 1, Message: "kept"})
	path := files(t, dir)[0]
	whole, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, j, id, Event{Time: 2, Message: "torn by a crash, and long"})
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := st.Size() - 1; cut >= whole.Size(); cut-- {
		if err := os.Truncate(path, cut); err != nil {
			t.Fatal(err)
		}
		if got := texts(t, open(t, dir), Query{}); got != "kept" {
			t.Fatalf("cut at %d: %s", cut, got)
		}
	}
	put(t, open(t, dir), id, Event{Time: 3, Message: "next"})
	if got := texts(t, open(t, dir), Query{}); got != "kept next" {
		t.Fatalf("after the torn block: %s", got)
	}
}

// What is left of a torn write may look like a block: a client chose its
// bytes. The next append must not make it one.
func TestTornEndIsCutOff(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	put(t, j, id, Event{Time: 1, Message: "first"})
	path := files(t, dir)[0]
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, j, id, Event{Time: 1, Message: "forged"})
	both, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// first, a torn block as long as the next append, and what reads as a block behind it.
	torn := slices.Concat(first, make([]byte, len(first)), both[len(first):])
	torn[len(first)] = 0xff
	if err := os.WriteFile(path, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir)
	put(t, j, id, Event{Time: 2, Message: "next!"})
	for _, j := range []*Journal{j, open(t, dir)} {
		if got := texts(t, j, Query{}); got != "first next!" {
			t.Error(got)
		}
	}
}

// A segment whose index was not written, or is damaged, is read through; one
// whose blocks are damaged is not answered from as if it were whole.
func TestDamage(t *testing.T) {
	small(t)
	dir := t.TempDir()
	j := open(t, dir)
	for i := range int64(40) {
		put(t, j, id, Event{Time: i, Message: fmt.Sprint(i)})
	}
	want := texts(t, j, Query{})
	seg := files(t, dir)[0]
	if !strings.HasSuffix(seg, ".seg") {
		t.Fatal(seg)
	}
	whole, err := os.ReadFile(seg)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 30, indexTail + 5, indexTail + 40} {
		b := bytes.Clone(whole)
		b[len(b)-n] ^= 1
		if err := os.WriteFile(seg, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := texts(t, open(t, dir), Query{}); got != want {
			t.Errorf("damage at %d: %s", n, got)
		}
	}
	b := bytes.Clone(whole)
	b[header+2] ^= 1
	if err := os.WriteFile(seg, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir).Search(t.Context(), Query{Range: Range{Streams: []string{id}, To: 100}}); err == nil {
		t.Error("a damaged block is not seen")
	}
}

// Reading goes on while the stream is written, sealed, expired and removed.
func TestAtOnce(t *testing.T) {
	small(t)
	j := open(t, t.TempDir())
	done := make(chan error)
	go func() {
		defer close(done)
		for i := range int64(500) {
			if err := j.Append(id, i, []Event{{Time: i, Message: "m"}, {Time: i, Message: "m"}}); err != nil {
				done <- err
				return
			}
			if i%100 == 99 {
				if _, err := j.Expire(id, i-50); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	for {
		a, err := j.Search(t.Context(), Query{Range: Range{Streams: []string{id}, To: math.MaxInt64}})
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(a.Events); i++ {
			if a.Events[i].At().Compare(a.Events[i-1].At()) <= 0 {
				t.Fatal("out of order")
			}
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

func TestScanEnds(t *testing.T) {
	j := open(t, t.TempDir())
	put(t, j, id, Event{Time: 1, Message: "a"}, Event{Time: 2, Message: "b"})
	stop := errors.New("stop")
	if _, err := j.Scan(t.Context(), Range{Streams: []string{id}, To: 10}, func(*Raw) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Scan(ctx, Range{Streams: []string{id}, To: 10}, func(*Raw) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add(make([]byte, header), true)
	f.Add(bytes.Repeat([]byte{255}, 200), true)
	j, err := Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	if err := j.Append(id, 1, []Event{{Time: 1, Message: "a"}, {Time: 3, Message: "b"}}); err != nil {
		f.Fatal(err)
	}
	for _, sealed := range []bool{false, true} {
		s := j.stream(id)
		g := s.segments[0]
		if sealed {
			if err := j.seal(s, id, g); err != nil {
				f.Fatal(err)
			}
			g = s.segments[0]
		}
		b, err := os.ReadFile(j.file(id, g))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, sealed)
	}
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		dir := t.TempDir()
		j := open(t, dir)
		path := j.file(id, &segment{sealed: sealed})
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		q := Query{Range: Range{Streams: []string{id}, From: math.MinInt64, To: math.MaxInt64}, Limit: 100}
		got, err := j.Search(t.Context(), q)
		if err != nil {
			return
		}
		put(t, j, id, Event{Time: 5, Message: "x"})
		after, err := open(t, dir).Search(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(after.Events) < min(len(got.Events)+1, 100) {
			t.Fatalf("%d events, then %d", len(got.Events), len(after.Events))
		}
	})
}
