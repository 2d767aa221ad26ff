package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Doors are addresses in VPCs that many tasks connect to, each of which finds
// a listener of its own behind it: who a client is, its source address says,
// which the data plane vouches for. A socket in the task's own namespace would
// be simpler, but it would take a port from the task: a listener on one
// address keeps others from the same port on all of them.
type Doors struct {
	mu   sync.Mutex
	open map[doorKey]*door
}

type doorKey struct{ path, address string }

// door is a socket that is shared.
type door struct {
	l       net.Listener
	mu      sync.Mutex
	clients map[netip.Addr]*behind
	served  sync.WaitGroup
}

// pause is how long a door rests that cannot accept, as net/http's servers do.
const pause = 50 * time.Millisecond

// backlog is how many connections wait for a task's listener to accept them.
const backlog = 64

// Listen returns the listener of one client at address in the namespace that
// the link at path points to. A client has one at most.
func (d *Doors) Listen(ctx context.Context, path, address string, client netip.Addr) (net.Listener, error) {
	// Markers point to the namespace: who share it share the door.
	if to, err := os.Readlink(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	} else if filepath.IsAbs(to) {
		path = to
	} else {
		path = filepath.Join(filepath.Dir(path), to)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := doorKey{path, address}
	o := d.open[key]
	if o != nil && !o.stands(path) {
		// The namespace was made anew under the same name.
		o = nil
	}
	if o == nil {
		l, err := Listen(ctx, path, address)
		if err != nil {
			return nil, err
		}
		o = &door{l: l, clients: map[netip.Addr]*behind{}}
		o.served.Go(o.accept)
		if d.open == nil {
			d.open = map[doorKey]*door{}
		}
		d.open[key] = o
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.clients[client] != nil {
		return nil, fmt.Errorf("listen on %s: %s listens already", address, client)
	}
	b := &behind{conns: make(chan net.Conn, backlog), done: make(chan struct{}), address: o.l.Addr()}
	b.leave = func() { d.leave(key, o, client) }
	o.clients[client] = b
	return b, nil
}

// stands reports whether the door is in the namespace that path names now.
func (o *door) stands(path string) bool {
	want, err := os.Stat(path)
	if err != nil {
		return false
	}
	have, err := namespaceOf(o.l)
	return err == nil && os.SameFile(want, have)
}

// leave closes the door behind its last client.
func (d *Doors) leave(key doorKey, o *door, client netip.Addr) {
	d.mu.Lock()
	o.mu.Lock()
	delete(o.clients, client)
	last := len(o.clients) == 0
	o.mu.Unlock()
	if last && d.open[key] == o {
		delete(d.open, key)
	}
	d.mu.Unlock()
	if last {
		o.l.Close()
		o.served.Wait()
	}
}

func (o *door) accept() {
	for {
		c, err := o.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return // closed behind the last client
		}
		if err != nil {
			// For want of descriptors, most likely; the connection stays in the kernel's queue.
			time.Sleep(pause)
			continue
		}
		o.mu.Lock()
		var b *behind
		if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			b = o.clients[a.Addr().Unmap()]
		}
		o.mu.Unlock()
		if b == nil || !b.take(c) {
			c.Close()
		}
	}
}

// behind is the listener of one client.
type behind struct {
	conns   chan net.Conn
	address net.Addr
	leave   func()
	once    sync.Once
	done    chan struct{}
}

func (b *behind) take(c net.Conn) bool {
	select {
	case <-b.done:
		return false
	default:
	}
	select {
	case b.conns <- c:
		return true
	default:
		return false
	}
}

// Accept implements net.Listener.
func (b *behind) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (b *behind) Close() error {
	err := net.ErrClosed
	b.once.Do(func() {
		err = nil
		close(b.done)
		b.leave()
		for {
			select {
			case c := <-b.conns:
				err = errors.Join(err, c.Close())
			default:
				return
			}
		}
	})
	return err
}

// Addr implements net.Listener.
func (b *behind) Addr() net.Addr { return b.address }
