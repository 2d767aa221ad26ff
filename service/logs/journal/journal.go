// Package journal keeps log events in files: a folder for each stream, in it
// segments, in them blocks.
//
// A block is what one Append wrote, in one write, so that a process that dies
// leaves whole blocks and at most one torn one at the end, which the next
// append cuts off. A segment that is large or spans much time is sealed: an
// index follows its blocks, and nothing changes it any more until it is removed
// as a whole, when all its events have expired.
//
// Events come back ordered by time, then stream, then arrival. The package must
// never hold more of a stream in memory than a reader asks for, and knows
// nothing of groups, names or accounts: a stream is an id.
package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Event is one log event. Times are milliseconds since the epoch.
type Event struct {
	Time, Ingested int64
	Stream         string // id of the stream
	Seq            int64  // position in the stream, from 0
	Message        string
}

// At is the event's position.
func (e Event) At() Position { return Position{e.Time, e.Stream, e.Seq} }

// Position is a place in the order of events.
type Position struct {
	Time   int64
	Stream string
	Seq    int64
}

// Compare orders positions.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Time, q.Time), cmp.Compare(p.Stream, q.Stream), cmp.Compare(p.Seq, q.Seq))
}

// Info is what is known of a stream without reading it.
type Info struct {
	Events, Bytes         int64 // Bytes counts messages only
	First, Last, Ingested int64 // times of the oldest and newest event, and of the last arrival
}

func (i *Info) add(o Info) {
	if o.Events == 0 {
		return
	}
	if i.Events == 0 {
		*i = o
		return
	}
	i.First, i.Last, i.Ingested = min(i.First, o.First), max(i.Last, o.Last), max(i.Ingested, o.Ingested)
	i.Events += o.Events
	i.Bytes += o.Bytes
}

// Journal is a folder of streams. Its methods may be called at once.
type Journal struct {
	dir string

	mu      sync.Mutex
	streams map[string]*stream
}

type stream struct {
	mu       sync.Mutex
	loaded   bool
	clean    bool // nothing is behind the end of the open segment
	next     int64
	segments []*segment // by base; only the last may be open
}

// A segment is a file.
type segment struct {
	base   int64 // Seq of its first event; names the file
	sealed bool
	size   int64 // of its blocks
	info   Info
	// chunks is the index: of a sealed segment it stays in the file and is nil
	// here, unless what is in the file is damaged.
	chunks []chunk
}

// A chunk is a run of blocks that is read at once.
type chunk struct{ offset, size, first, last int64 }

// Sizes. They are variables for the tests of this package alone.
var (
	segmentSize = int64(64 << 20)
	chunkSize   = int64(1 << 20)
	// A segment that spans more time than this is sealed if it has some size, so
	// that a quiet stream's events can expire without making a file of each.
	segmentSpan = int64(24 * 3600 * 1000)
	spanSize    = int64(256 << 10)
)

// Open uses dir, making it if need be.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return &Journal{dir: dir, streams: map[string]*stream{}}, nil
}

// A block, little endian:
//
//	size of what follows the header (4) | checksum of all that follows (4) | number of events (4) | 0 (4)
//	first time (8) | last time (8) | ingestion time (8) | Seq of the first event (8)
//	for each event: length of message (uvarint) | time - first time (uvarint) | message
const header = 48

// maxMessage and maxBlock bound what is written, and what is believed when read.
const (
	maxMessage = 1 << 20
	maxBlock   = 64 << 20
)

var table = crc32.MakeTable(crc32.Castagnoli)

type block struct {
	size                       uint32
	sum                        uint32
	count                      uint32
	first, last, ingested, seq int64
}

func readBlock(h []byte) (b block, ok bool) {
	le := binary.LittleEndian
	b = block{le.Uint32(h), le.Uint32(h[4:]), le.Uint32(h[8:]), int64(le.Uint64(h[16:])), int64(le.Uint64(h[24:])), int64(le.Uint64(h[32:])), int64(le.Uint64(h[40:]))}
	return b, b.size <= maxBlock && b.count <= b.size && b.count > 0
}

func (j *Journal) folder(id string) string { return filepath.Join(j.dir, id[:2], id) }

func (j *Journal) file(id string, g *segment) string {
	ext := ".log"
	if g.sealed {
		ext = ".seg"
	}
	return filepath.Join(j.folder(id), fmt.Sprintf("%016x", g.base)+ext)
}

// open opens a segment for reading. It may have been sealed since it was looked at.
func (j *Journal) open(id string, g *segment) (*os.File, error) {
	f, err := os.Open(j.file(id, g))
	if errors.Is(err, fs.ErrNotExist) && !g.sealed {
		f, err = os.Open(j.file(id, &segment{base: g.base, sealed: true}))
	}
	return f, err
}

func (j *Journal) stream(id string) *stream {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.streams[id]
	if s == nil {
		s = &stream{}
		j.streams[id] = s
	}
	return s
}

// load looks at the stream's files once. Of sealed segments it reads the last
// bytes; an open one, or one whose index is damaged, it reads through.
func (j *Journal) load(s *stream, id string) error {
	if s.loaded {
		return nil
	}
	names, err := os.ReadDir(j.folder(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open stream %s: %w", id, err)
	}
	s.segments, s.next = nil, 0
	for _, n := range names {
		name, ext, _ := strings.Cut(n.Name(), ".")
		base, err := strconv.ParseInt(name, 16, 64)
		if err != nil || ext != "log" && ext != "seg" {
			continue // not of our making
		}
		g := &segment{base: base, sealed: ext == "seg"}
		if err := j.loadSegment(id, g); err != nil {
			return fmt.Errorf("open stream %s: %w", id, err)
		}
		s.segments = append(s.segments, g)
	}
	slices.SortFunc(s.segments, func(a, b *segment) int { return cmp.Compare(a.base, b.base) })
	for _, g := range s.segments {
		s.next = max(s.next, g.base+g.info.Events)
	}
	s.loaded, s.clean = true, false
	return nil
}

func (j *Journal) loadSegment(id string, g *segment) error {
	f, err := os.Open(j.file(id, g))
	if err != nil {
		return err
	}
	defer f.Close()
	if g.sealed {
		ok, err := g.readTail(f)
		if ok || err != nil {
			return err
		}
	}
	return g.scan(f)
}

// scan reads the blocks of f up to its end or to one that is torn.
func (g *segment) scan(f *os.File) error {
	var h [header]byte
	var body []byte
	g.size, g.info, g.chunks = 0, Info{}, nil
	r := io.NewSectionReader(f, 0, math.MaxInt64)
	for {
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return ended(err)
		}
		b, ok := readBlock(h[:])
		if !ok {
			return nil
		}
		body = slices.Grow(body[:0], int(b.size))[:b.size]
		if _, err := io.ReadFull(r, body); err != nil {
			return ended(err)
		}
		if crc32.Update(crc32.Checksum(h[8:], table), table, body) != b.sum {
			return nil
		}
		bytes := int64(0)
		if !b.each(body, func(_, _ int64, m []byte) bool { bytes += int64(len(m)); return true }) {
			return nil
		}
		g.note(b, bytes)
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// note adds a block at the end.
func (g *segment) note(b block, bytes int64) {
	size := int64(header) + int64(b.size)
	if n := len(g.chunks); n > 0 && g.chunks[n-1].size+size <= chunkSize {
		c := &g.chunks[n-1]
		c.size += size
		c.first, c.last = min(c.first, b.first), max(c.last, b.last)
	} else {
		g.chunks = append(g.chunks, chunk{g.size, size, b.first, b.last})
	}
	g.size += size
	g.info.add(Info{Events: int64(b.count), Bytes: bytes, First: b.first, Last: b.last, Ingested: b.ingested})
}

// each visits the events of a block's body; false means that it is damaged.
func (b block) each(body []byte, visit func(seq, time int64, m []byte) bool) bool {
	for i := range int64(b.count) {
		n, w := binary.Uvarint(body)
		if w <= 0 || n > maxMessage {
			return false
		}
		body = body[w:]
		d, w := binary.Uvarint(body)
		if w <= 0 || uint64(len(body)-w) < n {
			return false
		}
		m := body[w : w+int(n)]
		if !visit(b.seq+i, b.first+int64(d), m) {
			return true
		}
		body = body[w+int(n):]
	}
	return len(body) == 0
}

// The index of a sealed segment follows its blocks:
//
//	0xffffffff (4) | 0 (4) | chunks (32 each) | Info (40) | size of the blocks (8) | number of chunks (4) | checksum of all before (4)
const (
	indexHead = 8
	indexTail = 40 + 8 + 4 + 4
)

func (g *segment) appendIndex(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, math.MaxUint32)
	for _, c := range g.chunks {
		for _, n := range []int64{c.offset, c.size, c.first, c.last} {
			b = le.AppendUint64(b, uint64(n))
		}
	}
	for _, n := range []int64{g.info.Events, g.info.Bytes, g.info.First, g.info.Last, g.info.Ingested, g.size} {
		b = le.AppendUint64(b, uint64(n))
	}
	b = le.AppendUint32(b, uint32(len(g.chunks)))
	return le.AppendUint32(b, crc32.Checksum(b, table))
}

// readTail reads what is known of a sealed segment; false means that its index
// is damaged. That it can be trusted at all follows from the file's name: what
// a client wrote is never renamed before an index stands behind it.
func (g *segment) readTail(f *os.File) (bool, error) {
	_, info, size, err := readIndex(f)
	if errors.Is(err, errIndex) {
		return false, nil
	}
	g.info, g.size = info, size
	return err == nil, err
}

var errIndex = errors.New("damaged index")

func readIndex(f *os.File) ([]chunk, Info, int64, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, Info{}, 0, err
	}
	end := make([]byte, indexTail)
	if _, err := f.ReadAt(end, st.Size()-indexTail); err != nil {
		if st.Size() < indexTail {
			return nil, Info{}, 0, errIndex
		}
		return nil, Info{}, 0, err
	}
	le := binary.LittleEndian
	n := int64(le.Uint32(end[48:]))
	whole := indexHead + 32*n + indexTail
	if st.Size() < whole {
		return nil, Info{}, 0, errIndex
	}
	b := make([]byte, whole)
	if _, err := f.ReadAt(b, st.Size()-whole); err != nil {
		return nil, Info{}, 0, err
	}
	if le.Uint64(b) != math.MaxUint32 || crc32.Checksum(b[:whole-4], table) != le.Uint32(b[whole-4:]) {
		return nil, Info{}, 0, errIndex
	}
	at := func(i int64) int64 { return int64(le.Uint64(b[indexHead+8*i:])) }
	chunks := make([]chunk, n)
	for i := range chunks {
		k := 4 * int64(i)
		c := chunk{at(k), at(k + 1), at(k + 2), at(k + 3)}
		if c.offset < 0 || c.size < header || c.size > header+maxBlock || c.offset > st.Size()-whole-c.size {
			return nil, Info{}, 0, errIndex
		}
		chunks[i] = c
	}
	k := 4 * n
	return chunks, Info{at(k), at(k + 1), at(k + 2), at(k + 3), at(k + 4)}, at(k + 5), nil
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// Append adds events to the stream with this id (hex digits), in their order,
// as of the time ingested. What it returns without error survives the process.
func (j *Journal) Append(id string, ingested int64, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	b := block{count: uint32(len(events)), first: events[0].Time, last: events[0].Time, ingested: ingested}
	for _, e := range events {
		b.first, b.last = min(b.first, e.Time), max(b.last, e.Time)
	}
	out := append((*buffer)[:0], make([]byte, header)...)
	bytes := int64(0)
	for _, e := range events {
		if len(e.Message) > maxMessage {
			return fmt.Errorf("append to stream %s: message of %d bytes", id, len(e.Message))
		}
		out = binary.AppendUvarint(out, uint64(len(e.Message)))
		out = binary.AppendUvarint(out, uint64(e.Time-b.first))
		out = append(out, e.Message...)
		bytes += int64(len(e.Message))
	}
	*buffer = out
	if len(out) > maxBlock {
		return fmt.Errorf("append to stream %s: batch of %d bytes", id, len(out))
	}
	b.size = uint32(len(out) - header)

	s := j.stream(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := j.load(s, id); err != nil {
		return err
	}
	b.seq = s.next
	le := binary.LittleEndian
	le.PutUint32(out, b.size)
	le.PutUint32(out[8:], b.count)
	for i, n := range []int64{b.first, b.last, b.ingested, b.seq} {
		le.PutUint64(out[16+8*i:], uint64(n))
	}
	le.PutUint32(out[4:], crc32.Checksum(out[8:], table))
	if err := j.write(s, id, b, out, bytes); err != nil {
		return fmt.Errorf("append to stream %s: %w", id, err)
	}
	return nil
}

func (j *Journal) write(s *stream, id string, b block, out []byte, bytes int64) error {
	var g *segment
	if n := len(s.segments); n > 0 && !s.segments[n-1].sealed {
		g = s.segments[n-1]
		span := max(g.info.Last, b.last) - min(g.info.First, b.first)
		if full := g.size+int64(len(out)) > segmentSize || span > segmentSpan && g.size >= spanSize; full && g.info.Events > 0 {
			if err := j.seal(s, id, g); err != nil {
				return err
			}
			g = nil
		}
	}
	if g == nil {
		g = &segment{base: s.next}
	}
	path := j.file(id, g)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	// What is left of a torn end must not lie behind the new block: it is of a
	// client's making, and might read as one.
	if !s.clean {
		if err := f.Truncate(g.size); err != nil {
			return fmt.Errorf("cut off the torn end: %w", err)
		}
		s.clean = true
	}
	if _, err := f.WriteAt(out, g.size); err != nil {
		s.clean = false // cut off by the next append
		return err
	}
	if g.info.Events == 0 && (len(s.segments) == 0 || s.segments[len(s.segments)-1] != g) {
		s.segments = append(s.segments, g)
	}
	g.note(b, bytes)
	s.next += int64(b.count)
	return nil
}

// seal writes the index behind a segment's blocks and gives it its last name.
func (j *Journal) seal(s *stream, id string, g *segment) error {
	f, err := os.OpenFile(j.file(id, g), os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s.clean = false
	_, err = f.WriteAt(g.appendIndex(nil), g.size)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	after := *g
	after.sealed, after.chunks = true, nil
	if err := os.Rename(j.file(id, g), j.file(id, &after)); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	s.segments[len(s.segments)-1] = &after
	s.clean = true
	return nil
}

// Info is zero for a stream without events.
func (j *Journal) Info(id string) (Info, error) {
	s := j.stream(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := j.load(s, id); err != nil {
		return Info{}, err
	}
	var info Info
	for _, g := range s.segments {
		info.add(g.info)
	}
	return info, nil
}

// Expire removes the segments of which all events are older than before, and
// returns how many bytes that freed.
func (j *Journal) Expire(id string, before int64) (freed int64, err error) {
	s := j.stream(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := j.load(s, id); err != nil {
		return 0, err
	}
	s.segments = slices.DeleteFunc(s.segments, func(g *segment) bool {
		if err != nil || g.info.Last >= before {
			return false
		}
		if err = os.Remove(j.file(id, g)); err == nil || errors.Is(err, fs.ErrNotExist) {
			freed, err = freed+g.size, nil
			return true
		}
		return false
	})
	if err != nil {
		return freed, fmt.Errorf("expire events of stream %s: %w", id, err)
	}
	return freed, nil
}

// List names every stream that has a folder.
func (j *Journal) List() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(j.dir, "??", "*"))
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	var ids []string
	for _, p := range paths {
		if id := filepath.Base(p); len(id) > 2 && id[:2] == filepath.Base(filepath.Dir(p)) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Remove forgets a stream and deletes its files.
func (j *Journal) Remove(id string) error {
	s := j.stream(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	err := os.RemoveAll(j.folder(id))
	s.loaded, s.clean, s.segments, s.next = false, false, nil, 0
	j.mu.Lock()
	delete(j.streams, id)
	j.mu.Unlock()
	if err != nil {
		return fmt.Errorf("remove stream %s: %w", id, err)
	}
	return nil
}
