package service

import (
	"io"
	"sync"
	"time"
)

// Lines is where a busy server's log goes: what is written together within a
// moment is one write of the file below, so that a request need not pay for
// one. The lines of the last moment are lost with a process that is killed;
// what happened then is in the store, not in the log. A write never fails.
type Lines struct {
	to io.Writer

	mu      sync.Mutex // held while writing: lines keep their order
	waiting []byte
	timer   *time.Timer
	armed   bool
}

const (
	linesDelay = 10 * time.Millisecond
	linesMost  = 64 << 10
)

// NewLines makes a log of lines. Flush it at the end.
func NewLines(to io.Writer) *Lines {
	l := &Lines{to: to, waiting: make([]byte, 0, 4<<10)}
	l.timer = time.AfterFunc(time.Hour, l.Flush)
	l.timer.Stop()
	return l
}

// Write implements io.Writer.
func (l *Lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, line...)
	switch {
	case len(l.waiting) >= linesMost:
		l.flush()
	case !l.armed:
		l.armed = true
		l.timer.Reset(linesDelay)
	}
	return len(line), nil
}

// Flush writes what waits.
func (l *Lines) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
}

func (l *Lines) flush() {
	l.timer.Stop()
	l.armed = false
	if len(l.waiting) > 0 {
		_, _ = l.to.Write(l.waiting) // where would one say so
		l.waiting = l.waiting[:0]
	}
}
