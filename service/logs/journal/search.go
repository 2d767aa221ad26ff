package journal

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Range is a part of some streams: events at From or later and before To.
type Range struct {
	Streams  []string
	From, To int64
	// Needle is text that every wanted event contains; it is looked for before
	// anything is decoded. With Escaped, an event with a backslash may do without.
	Needle  []byte
	Escaped bool
}

// Raw is an event where it lies. Message is good until visit returns.
type Raw struct {
	Stream              string
	Time, Ingested, Seq int64
	Message             []byte
}

// At is the event's position.
func (r *Raw) At() Position { return Position{r.Time, r.Stream, r.Seq} }

// Event is a copy that stays good.
func (r *Raw) Event() Event {
	return Event{Time: r.Time, Ingested: r.Ingested, Stream: r.Stream, Seq: r.Seq, Message: string(r.Message)}
}

// Scanned is how much a scan looked at.
type Scanned struct{ Events, Bytes int64 }

// A piece is a chunk in its place.
type piece struct {
	id string
	g  *segment
	chunk
}

// pieces lists the chunks of the range.
func (j *Journal) pieces(r Range) ([]piece, error) {
	var out []piece
	for _, id := range r.Streams {
		s := j.stream(id)
		s.mu.Lock()
		err := j.load(s, id)
		var segments []segment
		for _, g := range s.segments {
			if g.info.Events > 0 && g.info.Last >= r.From && g.info.First < r.To {
				c := *g
				c.chunks = slices.Clone(g.chunks) // the last one of an open segment grows
				segments = append(segments, c)
			}
		}
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		for i := range segments {
			g := &segments[i]
			if g.chunks == nil {
				if err := j.index(id, g); err != nil {
					return nil, err
				}
			}
			for _, c := range g.chunks {
				if c.last >= r.From && c.first < r.To {
					out = append(out, piece{id, g, c})
				}
			}
		}
	}
	return out, nil
}

func (j *Journal) index(id string, g *segment) error {
	f, err := j.open(id, g)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has expired
	}
	if err == nil {
		g.chunks, _, _, err = readIndex(f)
		f.Close()
	}
	if err != nil {
		return fmt.Errorf("read stream %s: %w", id, err)
	}
	return nil
}

// worker reads pieces, one after the other.
type worker struct {
	j    *Journal
	id   string
	base int64
	f    *os.File
	buf  []byte
}

func (w *worker) close() {
	if w.f != nil {
		w.f.Close()
	}
	w.f = nil
}

// read visits the events of the piece that are in the range.
func (w *worker) read(p piece, r Range, visit func(*Raw) error) (s Scanned, err error) {
	if w.f == nil || w.id != p.id || w.base != p.g.base {
		w.close()
		w.f, err = w.j.open(p.id, p.g)
		if errors.Is(err, fs.ErrNotExist) {
			return s, nil // it has expired, or its stream is gone
		}
		if err != nil {
			return s, fmt.Errorf("read stream %s: %w", p.id, err)
		}
		w.id, w.base = p.id, p.g.base
	}
	w.buf = slices.Grow(w.buf[:0], int(p.size))[:p.size]
	if _, err := w.f.ReadAt(w.buf, p.offset); err != nil && !errors.Is(err, io.EOF) {
		return s, fmt.Errorf("read stream %s: %w", p.id, err)
	}
	for b := w.buf; len(b) > 0; {
		damaged := fmt.Errorf("read stream %s: damaged block in segment %x", p.id, p.g.base)
		if len(b) < header {
			return s, damaged
		}
		h, ok := readBlock(b)
		if !ok || len(b) < header+int(h.size) {
			return s, damaged
		}
		end := header + int(h.size)
		body := b[header:end]
		if crc32.Checksum(b[8:end], table) != h.sum {
			return s, damaged
		}
		b = b[end:]
		if h.last < r.From || h.first >= r.To {
			continue
		}
		s.Bytes += int64(h.size)
		if h.first >= r.From && h.last < r.To {
			s.Events += int64(h.count)
			if r.Needle != nil && !bytes.Contains(body, r.Needle) && (!r.Escaped || bytes.IndexByte(body, '\\') < 0) {
				continue
			}
		} else {
			h.each(body, func(_, t int64, _ []byte) bool {
				if t >= r.From && t < r.To {
					s.Events++
				}
				return true
			})
		}
		if err := h.visit(p.id, body, r, visit); err != nil {
			return s, err
		}
	}
	return s, nil
}

// visit visits the events of a block. With a needle it looks for that first,
// and only steps over the events before it.
func (b block) visit(id string, body []byte, r Range, visit func(*Raw) error) error {
	raw := Raw{Stream: id, Ingested: b.ingested}
	exact := r.Needle != nil && !r.Escaped
	next, at := 0, 0
	for i := range int64(b.count) {
		if exact && next <= at {
			k := bytes.Index(body[at:], r.Needle)
			if k < 0 {
				return nil
			}
			next = at + k
		}
		n, w := binary.Uvarint(body[at:])
		if w <= 0 || n > maxMessage {
			return errors.New("journal: damaged block")
		}
		at += w
		d, w := binary.Uvarint(body[at:])
		if w <= 0 || uint64(len(body)-at-w) < n {
			return errors.New("journal: damaged block")
		}
		from := at + w
		at = from + int(n)
		if exact && at <= next {
			continue
		}
		if exact {
			next = 0 // look again behind this event
		}
		if raw.Time = b.first + int64(d); raw.Time < r.From || raw.Time >= r.To {
			continue
		}
		raw.Seq, raw.Message = b.seq+i, body[from:at]
		if err := visit(&raw); err != nil {
			return err
		}
	}
	return nil
}

// Scan visits the events of the range, from several goroutines at once and in
// no order, until one visit fails.
func (j *Journal) Scan(ctx context.Context, r Range, visit func(*Raw) error) (Scanned, error) {
	pieces, err := j.pieces(r)
	if err != nil {
		return Scanned{}, err
	}
	s, _, err := j.run(ctx, pieces, r, func(int, int64) bool { return true }, visit)
	return s, err
}

// run reads pieces in their order, as many at once as there are processors,
// while more agrees. It returns how many of them it began with.
func (j *Journal) run(ctx context.Context, pieces []piece, r Range, more func(i int, read int64) bool, visit func(*Raw) error) (Scanned, int, error) {
	var mu sync.Mutex
	taken := 0
	var events, read atomic.Int64
	take := func() (piece, bool) {
		mu.Lock()
		defer mu.Unlock()
		if taken == len(pieces) || !more(taken, read.Load()) {
			return piece{}, false
		}
		taken++
		return pieces[taken-1], true
	}
	g, ctx := errgroup.WithContext(ctx)
	for range min(runtime.GOMAXPROCS(0), len(pieces)) {
		g.Go(func() error {
			w := worker{j: j}
			defer w.close()
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				p, ok := take()
				if !ok {
					return nil
				}
				s, err := w.read(p, r, visit)
				events.Add(s.Events)
				read.Add(s.Bytes)
				if err != nil {
					return err
				}
			}
		})
	}
	err := g.Wait()
	return Scanned{events.Load(), read.Load()}, taken, err
}

// Query is a search: a range, and how much of it to return.
type Query struct {
	Range
	// After and Before bound the order; nil: no bound.
	After, Before *Position
	// Limit is the most events to return, and Size the most bytes, counting
	// Overhead for each; the first one is always returned. 0: no bound.
	Limit, Size int
	// Tail is whether they are the last or the first of the range.
	Tail bool
	// Match selects events; nil: all.
	Match func(message []byte) bool
	// Enough ends a search before its end, seen by what was read; nil: never. It
	// is asked between pieces, and heard only where the search can go on later.
	Enough func(read int64) bool
}

// Overhead is what an event counts beside its message.
const Overhead = 26

// Answer is what a search found.
type Answer struct {
	Events []Event // in order
	// Next is where to go on (as After, or with Tail as Before); nil if this was all.
	Next    *Position
	Scanned Scanned
}

// Search returns the events of the query, in order.
func (j *Journal) Search(ctx context.Context, q Query) (Answer, error) {
	r := q.Range
	if q.After != nil {
		r.From = max(r.From, q.After.Time)
	}
	if q.Before != nil && q.Before.Time < math.MaxInt64 {
		r.To = min(r.To, q.Before.Time+1)
	}
	pieces, err := j.pieces(r)
	if err != nil {
		return Answer{}, err
	}
	slices.SortFunc(pieces, func(a, b piece) int {
		if q.Tail {
			return cmp.Compare(b.last, a.last)
		}
		return cmp.Compare(a.first, b.first)
	})
	c := &collector{q: &q}
	spent := false
	s, taken, err := j.run(ctx, pieces, r, func(i int, read int64) bool {
		if c.beyond(pieces[i].chunk) {
			return false
		}
		// Only where the order of time lets a reader go on may an answer end.
		spent = q.Enough != nil && !q.Tail && pieces[i].first > r.From+1 && q.Enough(read)
		return !spent
	}, c.add)
	if err != nil {
		return Answer{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trim()
	a := Answer{Events: c.events, Scanned: s}
	if spent && taken < len(pieces) {
		// What is at this time or later may not be all yet.
		end := Position{pieces[taken].first - 1, "\xff", math.MaxInt64}
		n, _ := slices.BinarySearchFunc(a.Events, end, func(e Event, p Position) int { return e.At().Compare(p) })
		if n < len(a.Events) || !c.full {
			a.Events, a.Next = a.Events[:n], &end
			return a, nil
		}
	}
	if c.full && len(a.Events) > 0 {
		a.Next = new(a.Events[len(a.Events)-1].At())
	}
	if q.Tail {
		slices.Reverse(a.Events)
	}
	return a, nil
}

// collector keeps the best events so far, never many more than are wanted.
type collector struct {
	q *Query

	mu     sync.Mutex
	events []Event
	size   int
	full   bool     // some were left out:
	bound  Position // those beyond this
}

func (c *collector) compare(a, b Position) int {
	if c.q.Tail {
		a, b = b, a
	}
	return a.Compare(b)
}

// beyond reports whether nothing in the chunk can be among the best.
func (c *collector) beyond(k chunk) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.full && (c.q.Limit > 0 && len(c.events) > c.q.Limit || c.q.Size > 0 && c.size > c.q.Size) {
		c.trim()
	}
	return c.full && (c.q.Tail && k.last < c.bound.Time || !c.q.Tail && k.first > c.bound.Time)
}

func (c *collector) add(r *Raw) error {
	at := r.At()
	if c.q.After != nil && at.Compare(*c.q.After) <= 0 || c.q.Before != nil && at.Compare(*c.q.Before) >= 0 ||
		c.q.Match != nil && !c.q.Match(r.Message) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full && c.compare(at, c.bound) > 0 {
		return nil
	}
	c.events = append(c.events, r.Event())
	c.size += len(r.Message) + Overhead
	if c.q.Limit > 0 && len(c.events) >= 2*c.q.Limit+256 || c.q.Size > 0 && c.size >= 4*c.q.Size {
		c.trim()
	}
	return nil
}

// trim sorts and leaves out what is too much.
func (c *collector) trim() {
	slices.SortFunc(c.events, func(a, b Event) int { return c.compare(a.At(), b.At()) })
	keep, size := 0, 0
	for ; keep < len(c.events); keep++ {
		n := size + len(c.events[keep].Message) + Overhead
		if keep > 0 && (c.q.Limit > 0 && keep >= c.q.Limit || c.q.Size > 0 && n > c.q.Size) {
			break
		}
		size = n
	}
	if keep == len(c.events) {
		return
	}
	clear(c.events[keep:])
	c.events, c.size = c.events[:keep], size
	c.full, c.bound = true, c.events[keep-1].At()
}
