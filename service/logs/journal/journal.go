// Package journal keeps log events in files, one a stream, append only.
//
// A batch is one write, so that a process that dies leaves whole batches and
// at most one torn record at the end, which the next append cuts off. Events
// come back ordered by time, then by arrival. It must never hold more of a
// stream in memory than a reader asks for, and knows nothing of groups, names
// or accounts: a stream is an id.
package journal

import (
	"bufio"
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
	"strings"
	"sync"
)

// Event is one log event. Times are milliseconds since the epoch.
type Event struct {
	Time, Ingested int64
	Seq            int64 // position in the stream, from 0
	Message        string
}

// Info is what is known of a stream without reading it.
type Info struct {
	Events, Bytes         int64 // Bytes counts messages only
	First, Last, Ingested int64 // times of the oldest and newest event, and of the last arrival
}

// Journal is a folder of streams. Its methods may be called at once.
type Journal struct {
	dir string

	mu      sync.Mutex
	streams map[string]*stream
}

type stream struct {
	mu     sync.Mutex
	loaded bool
	clean  bool  // nothing is behind size
	size   int64 // of the file, without a torn end
	info   Info
}

// Open uses dir, making it if need be.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return &Journal{dir: dir, streams: map[string]*stream{}}, nil
}

// A record is: length of the message (4), checksum of what follows (4), time
// (8), ingestion time (8), message. Little endian.
const header = 24

// maxMessage bounds a record, so that a broken length is seen as such.
const maxMessage = 1 << 20

func (j *Journal) path(id string) string { return filepath.Join(j.dir, id[:2], id+".log") }

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

// load reads the stream's file once, for its Info and its true end.
func (j *Journal) load(s *stream, id string) error {
	if s.loaded {
		return nil
	}
	s.size, s.info = 0, Info{}
	err := j.read(id, math.MaxInt64, func(e Event, size int64) bool {
		s.note(e)
		s.size += size
		return true
	})
	if err != nil {
		return err
	}
	s.loaded = true
	return nil
}

func (s *stream) note(e Event) {
	if s.info.Events == 0 || e.Time < s.info.First {
		s.info.First = e.Time
	}
	if s.info.Events == 0 || e.Time > s.info.Last {
		s.info.Last = e.Time
	}
	s.info.Ingested = max(s.info.Ingested, e.Ingested)
	s.info.Events++
	s.info.Bytes += int64(len(e.Message))
}

// Append adds events to the stream with this id (hex digits), in their order.
// Seq is set by the journal.
func (j *Journal) Append(id string, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	s := j.stream(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := j.load(s, id); err != nil {
		return err
	}
	n := 0
	for _, e := range events {
		if len(e.Message) > maxMessage {
			return fmt.Errorf("append to stream %s: message of %d bytes", id, len(e.Message))
		}
		n += header + len(e.Message)
	}
	b := make([]byte, 0, n)
	for _, e := range events {
		at := len(b)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Message)))
		b = append(b, 0, 0, 0, 0)
		b = binary.LittleEndian.AppendUint64(b, uint64(e.Time))
		b = binary.LittleEndian.AppendUint64(b, uint64(e.Ingested))
		b = append(b, e.Message...)
		binary.LittleEndian.PutUint32(b[at+4:], crc32.ChecksumIEEE(b[at+8:]))
	}
	path := j.path(id)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("append to stream %s: %w", id, err)
		}
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	}
	if err != nil {
		return fmt.Errorf("append to stream %s: %w", id, err)
	}
	defer f.Close()
	// What is left of a torn end must not lie behind the new records: it is of a
	// client's making, and might read as one.
	if !s.clean {
		if err := f.Truncate(s.size); err != nil {
			return fmt.Errorf("cut off the torn end of stream %s: %w", id, err)
		}
		s.clean = true
	}
	if _, err := f.WriteAt(b, s.size); err != nil {
		s.clean = false // cut off by the next append
		return fmt.Errorf("append to stream %s: %w", id, err)
	}
	s.size += int64(len(b))
	for _, e := range events {
		s.note(e)
	}
	return nil
}

// Info is zero for a stream without events.
func (j *Journal) Info(id string) (Info, error) {
	s := j.stream(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	err := j.load(s, id)
	return s.info, err
}

// read calls each with the records in file order, until it returns false or
// limit bytes are read. A torn or damaged record ends the stream.
func (j *Journal) read(id string, limit int64, each func(e Event, size int64) bool) error {
	f, err := os.Open(j.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read stream %s: %w", id, err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 256<<10)
	var h [header]byte
	var body []byte
	for seq, at := int64(0), int64(0); at < limit; seq++ {
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return ended(id, err)
		}
		n := binary.LittleEndian.Uint32(h[:])
		if n > maxMessage {
			return nil
		}
		if cap(body) < int(n) {
			body = make([]byte, n, max(int(n), 4096))
		}
		body = body[:n]
		if _, err := io.ReadFull(r, body); err != nil {
			return ended(id, err)
		}
		sum := crc32.Update(crc32.ChecksumIEEE(h[8:]), crc32.IEEETable, body)
		if sum != binary.LittleEndian.Uint32(h[4:]) {
			return nil
		}
		e := Event{
			Time: int64(binary.LittleEndian.Uint64(h[8:])), Ingested: int64(binary.LittleEndian.Uint64(h[16:])),
			Seq: seq, Message: string(body),
		}
		if !each(e, int64(header+n)) {
			return nil
		}
		at += int64(header + n)
	}
	return nil
}

func ended(id string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("read stream %s: %w", id, err)
}

// Query is a part of a stream: events at From or later and before To.
type Query struct {
	From, To int64
	// After and Before bound the order (time, then arrival); nil: no bound.
	After, Before *Position
	// Limit is the most events to return, Tail whether they are the last or the first of the part.
	Limit int
	Tail  bool
	// Match selects events; nil: all.
	Match func(message string) bool
}

// Position is a place in a stream's order.
type Position struct{ Time, Seq int64 }

// Compare orders positions.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Time, q.Time), cmp.Compare(p.Seq, q.Seq))
}

// At is the event's position.
func (e Event) At() Position { return Position{e.Time, e.Seq} }

// Read returns the events of the part, ordered by time, then by arrival.
func (j *Journal) Read(id string, q Query) ([]Event, error) {
	s := j.stream(id)
	s.mu.Lock()
	err := j.load(s, id)
	size, info := s.size, s.info
	s.mu.Unlock()
	if err != nil || info.Events == 0 || info.Last < q.From || info.First >= q.To {
		return nil, err
	}
	var out []Event
	order := func(a, b Event) int { return a.At().Compare(b.At()) }
	trim := func() {
		slices.SortFunc(out, order)
		if over := len(out) - q.Limit; over > 0 {
			if q.Tail {
				out = append(out[:0], out[over:]...)
			} else {
				out = out[:q.Limit]
			}
		}
	}
	err = j.read(id, size, func(e Event, _ int64) bool {
		at := e.At()
		if e.Time < q.From || e.Time >= q.To ||
			q.After != nil && at.Compare(*q.After) <= 0 || q.Before != nil && at.Compare(*q.Before) >= 0 ||
			q.Match != nil && !q.Match(e.Message) {
			return true
		}
		out = append(out, e)
		if q.Limit > 0 && len(out) >= 4*q.Limit+1024 {
			trim() // what is beyond the limit now stays beyond it
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	if q.Limit > 0 {
		trim()
	} else {
		slices.SortFunc(out, order)
	}
	return out, nil
}

// List names every stream that has a file.
func (j *Journal) List() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(j.dir, "??", "*.log"))
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	ids := make([]string, len(paths))
	for i, p := range paths {
		ids[i] = strings.TrimSuffix(filepath.Base(p), ".log")
	}
	return ids, nil
}

// Remove forgets a stream and deletes its file.
func (j *Journal) Remove(id string) error {
	s := j.stream(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	err := os.Remove(j.path(id))
	s.loaded, s.clean, s.size, s.info = false, false, 0, Info{}
	j.mu.Lock()
	delete(j.streams, id)
	j.mu.Unlock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stream %s: %w", id, err)
	}
	return nil
}
