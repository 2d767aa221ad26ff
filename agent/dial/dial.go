// Package dial connects to the region's own server, which may be away for a
// moment: somebody restarts it, or it was killed and its supervisor has not
// brought it back yet. A connection that is refused has carried nothing, so to
// try again is safe whatever was to be said over it. It must not be used for
// anybody else's servers, whose refusal is an answer.
package dial

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	away  = 2 * time.Minute // how long the server may be away
	first = 20 * time.Millisecond
	most  = 500 * time.Millisecond
)

// Context is net.Dialer's DialContext, made patient.
func Context(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		end := time.Now().Add(away)
		for wait := first; ; wait = min(2*wait, most) {
			c, err := d.DialContext(ctx, network, address)
			if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(end) {
				return c, err
			}
			select {
			case <-ctx.Done():
				return nil, errors.Join(ctx.Err(), err)
			case <-time.After(wait):
			}
		}
	}
}
