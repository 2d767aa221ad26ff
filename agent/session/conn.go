// Package session keeps the agent's two connections to its control plane: ACS,
// over which it is told what to run, and TCS, over which it tells how that
// fares. Both reconnect for ever, at the pace that the protocol asks for.
//
// The package translates between messages and calls of the engine. It decides
// nothing about tasks, and a task never waits for a connection.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/dispatch/acs"
)

// Timers of the protocol.
const (
	inactivity       = time.Minute // and up to as long again
	connectionAge    = 30 * time.Minute
	connectionAgeMax = 5 * time.Minute // more
	dialTimeout      = 30 * time.Second
	endpointAge      = 12 * time.Hour
	inactiveRetry    = time.Hour

	// nobodyThere bounds the wait for a server that is not running: a refused
	// connection costs nobody anything.
	nobodyThere = 3 * time.Second

	// maxFrame bounds a message. A payload of one task is at most a few
	// hundred KB; a manifest names every task.
	maxFrame = 8 << 20
)

// errExpired ends a connection that has grown old.
var errExpired = errors.New("the connection has grown old")

// inactiveError says that the control plane no longer knows the instance.
type inactiveError struct{ message string }

func (e *inactiveError) Error() string { return acs.InactiveInstanceException + ": " + e.message }

// Instance says who the agent is.
type Instance struct {
	Cluster string
	ARN     string
	API     *api.Client
	Creds   api.Provider
}

// Endpoints finds where to connect to, and remembers it.
type Endpoints struct {
	instance Instance

	mu  sync.Mutex
	at  time.Time
	out ecs.DiscoverPollEndpointOutput
}

// NewEndpoints makes one.
func NewEndpoints(i Instance) *Endpoints { return &Endpoints{instance: i} }

// get asks the control plane at most every 12 hours. What is older is still
// better than nothing.
func (e *Endpoints) get(ctx context.Context) (ecs.DiscoverPollEndpointOutput, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.at.IsZero() && time.Since(e.at) < endpointAge {
		return e.out, nil
	}
	var out ecs.DiscoverPollEndpointOutput
	err := e.instance.API.Call(ctx, e.instance.Creds, api.ECS, "DiscoverPollEndpoint", &ecs.DiscoverPollEndpointInput{
		Cluster: new(e.instance.Cluster), ContainerInstance: new(e.instance.ARN),
	}, &out)
	if err != nil {
		if !e.at.IsZero() {
			return e.out, nil
		}
		return out, err
	}
	e.out, e.at = out, time.Now()
	return out, nil
}

// websocketURL makes the URL of a connection from an endpoint.
func websocketURL(endpoint string, query url.Values) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("endpoint %q: the scheme is neither http nor https", endpoint)
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + "/ws"
	u.RawQuery = query.Encode()
	return u, nil
}

// dial opens a connection, signed like any request.
func dial(ctx context.Context, i Instance, u *url.URL) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	signer, err := i.Creds(ctx)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	signer.Sign(req, nil, "ecs", i.API.Region(), time.Now())
	// Not signed, and so set afterwards.
	req.Header.Set("User-Agent", api.UserAgent)
	// The client's time limit is one of requests, not of connections.
	client := &http.Client{Transport: i.API.HTTP().Transport}
	conn, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{HTTPClient: client, HTTPHeader: req.Header})
	if err != nil {
		if resp != nil && resp.Body != nil {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // what there is of it
			if name, message, ok := acs.DecodeException(body); ok {
				if name == acs.InactiveInstanceException {
					return nil, &inactiveError{message}
				}
				return nil, wire.NewError(resp.StatusCode, name, message)
			}
		}
		return nil, err
	}
	conn.SetReadLimit(maxFrame)
	return conn, nil
}

// backoff says how long to wait before the next connection.
type backoff struct {
	first, most time.Duration
	next        time.Duration
}

// after answers the wait after a connection that lasted for a while and ended
// with err.
func (b *backoff) after(lasted time.Duration, err error) time.Duration {
	if lasted > inactivity {
		b.next = 0
	}
	if _, ok := errors.AsType[*inactiveError](err); ok {
		return inactiveRetry
	}
	if clean(err) {
		b.next = 0
		return 0
	}
	b.next = min(max(b.first, b.next*3/2), b.most)
	wait := b.next + time.Duration(rand.Float64()*0.2*float64(b.next))
	if errors.Is(err, syscall.ECONNREFUSED) {
		wait = min(wait, nobodyThere)
	}
	return wait
}

// clean reports whether a connection ended in a way that calls for the next
// one at once.
func clean(err error) bool {
	if errors.Is(err, errExpired) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusAbnormalClosure, websocket.StatusInternalError:
		return true
	}
	return false
}

// forever runs connections until ctx is done. connected reports, by way of
// its return, how the connection ended.
func forever(ctx context.Context, b backoff, ended func(err error, wait time.Duration), connect func(ctx context.Context) error) {
	for {
		began := time.Now()
		err := connect(ctx)
		if ctx.Err() != nil {
			return
		}
		lasted := time.Since(began)
		wait := b.after(lasted, err)
		if wait == 0 && lasted < b.first {
			wait = b.first // a server that hangs up at once is not to be hammered
		}
		ended(err, wait)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// jittered is d and a random part of more.
func jittered(d, more time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(more)))
}
