package service

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits on a connection before its first request is read.
const (
	firstByteTime = 10 * time.Second
	headerTime    = 20 * time.Second
	idleTime      = 120 * time.Second
	maxHeader     = 64 << 10
)

// servers are the HTTP servers that a door runs, so that Drain finds them.
type servers struct {
	mu      sync.Mutex
	running map[*http.Server]struct{}
	drained bool
}

// Serve answers the connections of l until Drain is called, when it returns
// nil, or until l fails. With a TLS configuration, a client may speak either
// HTTP or HTTPS: the first byte it sends tells which.
func (d *Door) Serve(l net.Listener, secure *tls.Config) error {
	srv := &http.Server{
		Handler:           d,
		ReadHeaderTimeout: d.cfg.HeaderTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(d.cfg.Log.Handler(), slog.LevelDebug),
	}
	d.servers.mu.Lock()
	if d.servers.drained {
		d.servers.mu.Unlock()
		return l.Close()
	}
	if d.servers.running == nil {
		d.servers.running = map[*http.Server]struct{}{}
	}
	d.servers.running[srv] = struct{}{}
	d.servers.mu.Unlock()

	defer func() {
		d.servers.mu.Lock()
		delete(d.servers.running, srv)
		d.servers.mu.Unlock()
	}()
	if secure != nil {
		l = newSniffer(l, secure)
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Drain stops accepting, lets the requests under way be answered until ctx
// ends, and then closes what is left.
func (d *Door) Drain(ctx context.Context) error {
	d.servers.mu.Lock()
	d.servers.drained = true
	var all []*http.Server
	for s := range d.servers.running {
		all = append(all, s)
	}
	d.servers.mu.Unlock()
	errs := make(chan error, len(all))
	for _, s := range all {
		go func() {
			err := s.Shutdown(ctx)
			if err != nil {
				err = errors.Join(err, s.Close())
			}
			errs <- err
		}()
	}
	var failed error
	for range all {
		failed = errors.Join(failed, <-errs)
	}
	return failed
}

// A sniffer accepts connections of two kinds and makes TLS of those that begin
// with a TLS record. It waits for the first byte of each apart from Accept, so
// that a silent client holds up nobody.
type sniffer struct {
	net.Listener
	secure *tls.Config
	ready  chan net.Conn
	done   chan struct{}
	err    error // why accepting ended; set before done is closed

	mu      sync.Mutex
	waiting map[net.Conn]struct{} // first byte still to come
	closed  bool
	all     sync.WaitGroup
}

// tlsRecord is the first byte of a TLS handshake.
const tlsRecord = 0x16

func newSniffer(l net.Listener, secure *tls.Config) *sniffer {
	s := &sniffer{Listener: l, secure: secure, ready: make(chan net.Conn), done: make(chan struct{}), waiting: map[net.Conn]struct{}{}}
	s.all.Go(s.accept)
	return s
}

func (s *sniffer) accept() {
	defer close(s.done)
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				continue
			}
			s.err = err
			return
		}
		if !s.track(c) {
			c.Close()
			continue
		}
		s.all.Go(func() { s.sniff(c) })
	}
}

func (s *sniffer) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.waiting[c] = struct{}{}
	return true
}

func (s *sniffer) sniff(c net.Conn) {
	p := &peeked{Conn: c, r: bufio.NewReaderSize(c, 4096)}
	_ = c.SetReadDeadline(time.Now().Add(firstByteTime))
	first, err := p.r.Peek(1)
	s.mu.Lock()
	delete(s.waiting, c)
	s.mu.Unlock()
	if err != nil || c.SetReadDeadline(time.Time{}) != nil {
		c.Close()
		return
	}
	var out net.Conn = p
	if first[0] == tlsRecord {
		out = tls.Server(p, s.secure)
	}
	select {
	case s.ready <- out:
	case <-s.done:
		c.Close()
	}
}

// Accept implements net.Listener.
func (s *sniffer) Accept() (net.Conn, error) {
	select {
	case c := <-s.ready:
		return c, nil
	case <-s.done:
		return nil, s.err
	}
}

// Close implements net.Listener. It returns when nothing of the sniffer runs.
func (s *sniffer) Close() error {
	err := s.Listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.waiting {
		c.Close()
	}
	s.mu.Unlock()
	s.all.Wait()
	return err
}

// peeked is a connection whose first bytes were looked at.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// ReadFrom lets the connection below send files without copying them.
func (p *peeked) ReadFrom(r io.Reader) (int64, error) { return io.Copy(p.Conn, r) }
