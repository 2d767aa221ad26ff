// Package gateway lets the containers of a task reach the region's API, as an
// interface endpoint of a VPC does: whatever the task's subnet, routes and
// security groups are. It hands connections through and looks into none: who
// may call what is for the API to say.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"
)

// Address is where the gateway listens for tasks, in their VPC: beside the
// metadata endpoint, on the port of the API.
func Address(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", fmt.Errorf("gateway: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.Scheme]
	}
	if port == "" || port == "80" {
		// The metadata endpoint has that port.
		return "", errors.New("gateway: the API's port is the metadata endpoint's")
	}
	return net.JoinHostPort("169.254.170.2", port), nil
}

// A Gateway is one task's. Close ends it with all its connections.
type Gateway struct {
	listener net.Listener
	target   string
	log      *slog.Logger
	room     chan struct{}
	ctx      context.Context
	cancel   context.CancelFunc
	all      sync.WaitGroup
}

// connections is how many a task may have at once: each takes two of the
// agent's descriptors, which are for all tasks. More wait for their turn.
const connections = 256

// pause is how long a listener rests that cannot accept for want of descriptors.
const pause = 50 * time.Millisecond

// dialTime is how long the API may take to accept.
const dialTime = 10 * time.Second

// Serve hands the connections of l to target, a host and port.
func Serve(l net.Listener, target string, log *slog.Logger) *Gateway {
	g := &Gateway{listener: l, target: target, log: log, room: make(chan struct{}, connections)}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.all.Go(g.accept)
	return g
}

// Close implements io.Closer.
func (g *Gateway) Close() error {
	g.cancel()
	err := g.listener.Close()
	g.all.Wait()
	return err
}

func (g *Gateway) accept() {
	for {
		select {
		case g.room <- struct{}{}:
		case <-g.ctx.Done():
			return
		}
		c, err := g.listener.Accept()
		if err != nil {
			<-g.room
			if errors.Is(err, net.ErrClosed) || g.ctx.Err() != nil {
				return
			}
			g.log.Error("gateway", "err", err)
			select {
			case <-time.After(pause):
			case <-g.ctx.Done():
				return
			}
			continue
		}
		g.all.Go(func() {
			defer func() { <-g.room }()
			g.pass(c)
		})
	}
}

// pass is one connection, in both directions until both have ended.
func (g *Gateway) pass(c net.Conn) {
	defer c.Close()
	ctx, cancel := context.WithTimeout(g.ctx, dialTime)
	up, err := (&net.Dialer{}).DialContext(ctx, "tcp", g.target)
	cancel()
	if err != nil {
		// The client sees a connection that ends; it tries again, as it does when a server restarts.
		return
	}
	defer up.Close()
	stop := context.AfterFunc(g.ctx, func() { c.Close(); up.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { forward(up, c) })
	forward(c, up)
	both.Wait()
}

// forward copies one direction and passes its end on.
func forward(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if w, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = w.CloseWrite()
		return
	}
	to.Close()
	from.Close()
}
