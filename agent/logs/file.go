package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/runtime"
)

const (
	defaultFileSize = 20 << 20
	maxFileLine     = 16 << 10 // Docker's
)

// file writes Docker's json-file format and rotates.
type file struct {
	copier
	path  string
	size  int64 // of one file
	files int   // how many, the present one included

	mu      sync.Mutex
	f       *os.File
	written int64
	err     error
	report  func(error)
}

func fileLimits(options map[string]string) (size int64, files int, err error) {
	size, files = defaultFileSize, 1
	if s := options["max-size"]; s != "" && s != "-1" {
		if size, err = parseSize(s); err != nil {
			return 0, 0, fmt.Errorf("max-size: %w", err)
		}
	}
	if s := options["max-file"]; s != "" {
		if files, err = strconv.Atoi(s); err != nil || files < 1 {
			return 0, 0, fmt.Errorf("max-file: %q is not a number of files", s)
		}
	}
	return size, files, nil
}

func (m *Manager) openFile(t *engine.Task, c *engine.Container, size int64, files int) (engine.Log, error) {
	dir := filepath.Join(m.Dir, t.ID())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, invalid(err)
	}
	l := &file{path: filepath.Join(dir, c.RuntimeID+".log"), size: size, files: files}
	l.report = func(err error) {
		m.Log.Error("cannot write a log", "task", t.ID(), "container", c.Def.Name, "error", err)
	}
	return l, nil
}

// Copy implements engine.Log.
func (l *file) Copy(out *runtime.Output) {
	l.start(out, maxFileLine, l.write, func(source) {})
}

// record is a line of a json-file.
type record struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

func (l *file) write(src source, line []byte) {
	b, err := json.Marshal(record{Log: string(line) + "\n", Stream: src.String(), Time: time.Now().UTC()})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		err = l.append(append(b, '\n'))
	}
	// A full disk is told once, not per line.
	if err != nil && l.err == nil {
		l.report(err)
	}
	l.err = err
}

func (l *file) append(b []byte) error {
	if l.f != nil && l.written+int64(len(b)) > l.size {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.f == nil {
		f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return err
		}
		l.f, l.written = f, info.Size()
	}
	n, err := l.f.Write(b)
	l.written += int64(n)
	return err
}

// rotate makes room: x.log becomes x.log.1, and so on; the oldest goes. With
// one file only, its older half would have to go; it is kept as x.log.1 until
// the next time, so that there is always something to read.
func (l *file) rotate() error {
	l.f.Close()
	l.f = nil
	for i := max(1, l.files-1); i > 1; i-- {
		// The first times there is nothing yet to rename.
		_ = os.Rename(fmt.Sprintf("%s.%d", l.path, i-1), fmt.Sprintf("%s.%d", l.path, i))
	}
	return os.Rename(l.path, l.path+".1")
}

// Drain implements engine.Log.
func (l *file) Drain(ctx context.Context) error { return l.wait(ctx) }

// Close implements engine.Log.
func (l *file) Close() {
	l.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}
