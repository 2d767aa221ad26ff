package metadata

import (
	"net"
	"sync"
)

// maxConnections is how many connections a task has open at once. The agent's
// descriptors are for all tasks: none is to take them from the others. Who
// comes later waits for its turn.
const maxConnections = 64

// bounded is a listener with a limited number of open connections.
type bounded struct {
	net.Listener
	room   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func bound(l net.Listener, most int) *bounded {
	return &bounded{Listener: l, room: make(chan struct{}, most), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.room <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.room
		return nil, err
	}
	return &conn{Conn: c, room: b.room}, nil
}

// Close implements net.Listener.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

// conn gives its place back when it is closed.
type conn struct {
	net.Conn
	room chan struct{}
	once sync.Once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer c.once.Do(func() { <-c.room })
	return c.Conn.Close()
}
