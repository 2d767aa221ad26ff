// Package dispatch carries what was decided to where it is done, and what was
// done back: tasks to agents over Amazon's agent protocol (ACS, TCS), networks
// to nodes over Berth's own stream.
//
// It follows the store and never decides. What it sends is computed from a
// snapshot each time, so a connection that was lost costs nothing: the next
// one begins with everything that is so. Nothing is remembered here.
package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Config is what a Server needs.
type Config struct {
	DB    *store.DB
	Log   *slog.Logger
	Now   func() time.Time
	NewID func() string // 32 hex digits
	// Authorize checks the signature of a request and that its caller may do
	// action on resource. The error it returns is the protocol's: code and text.
	Authorize func(r *http.Request, action, resource string) error
	// Mint makes session credentials of a role for a service (ecs-tasks.amazonaws.com, …)
	// that assumes it. It refuses when the role's trust policy does.
	Mint func(r store.Reader, roleARN, service, session string, lifetime time.Duration) (fabric.Credentials, error)
	// PullPassword makes a password for pulling from one repository. Nil makes none.
	PullPassword func(account, repository string, until time.Time) (string, error)
	// CA is the certificate of the region's authority, as PEM.
	CA string
	// Endpoint is the API's base URL as a process on a node's machine reaches it.
	Endpoint string
	// TaskEndpoint is the same from inside a Fargate task, where the agent listens for it.
	TaskEndpoint string
	// NodeRole is the ARN of the role that nodes' agents run as, NodeService the
	// principal that its trust policy names.
	NodeRole, NodeService string
	// Flows gets the windows of flows that a node reports, once each, in order.
	// It must not wait for anything but a disk. Nil drops them.
	Flows func(ctx context.Context, node string, windows []fabric.FlowWindow)
	// Name is this server's among those of the region, the same after a restart.
	Name string
}

// Server answers the agents' and the nodes' connections.
type Server struct {
	Config
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	open   sync.WaitGroup
	agents map[string]int // connections of each container instance
	nodes  map[string]int // streams of each node
	seats  map[string]*seat

	idle, away time.Duration // see seat
}

// New returns a Server. Close ends its connections.
func New(c Config) *Server {
	s := &Server{Config: c, agents: map[string]int{}, nodes: map[string]int{}, seats: map[string]*seat{}, idle: idleTime, away: awayTime}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends every connection and waits for them.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.open.Wait()
}

// AgentPath is where agents connect, below the URL that DiscoverPollEndpoint
// gives them for both of their websockets.
const AgentPath = "/ws"

// Routes are the handlers of agents, which sign their requests, and of the
// clients of terminals, who have a token.
func (s *Server) Routes() map[string]http.Handler {
	acs, tcs := s.session(s.serveACS), s.session(s.serveTCS)
	return map[string]http.Handler{state.DataChannelPath: s.session(s.serveClient), AgentPath: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The two name the instance differently (facts: agent protocol, 1.1).
		if r.URL.Query().Has("containerInstanceArn") {
			acs.ServeHTTP(w, r)
		} else {
			tcs.ServeHTTP(w, r)
		}
	})}
}

// NodeRoutes are the handlers of nodes. Who may open the socket they are
// served on is a node: they must never be served anywhere else.
func (s *Server) NodeRoutes() map[string]http.Handler {
	return map[string]http.Handler{fabric.Path: s.session(s.serveNode), fabric.SessionPath: s.session(s.serveTerminal)}
}

// session counts a connection and ends it with the server.
func (s *Server) session(serve func(context.Context, http.ResponseWriter, *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		closed := s.closed
		if !closed {
			s.open.Add(1) // under the lock: never once Close waits
		}
		s.mu.Unlock()
		if closed {
			http.Error(w, "closing", http.StatusServiceUnavailable)
			return
		}
		defer s.open.Done()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		stop := context.AfterFunc(s.ctx, cancel)
		defer stop()
		serve(ctx, w, r)
	})
}

// maxFrame bounds a frame from an agent or node. Amazon's agent sends 1 MiB at most.
const maxFrame = 4 << 20

func accept(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, err
	}
	c.SetReadLimit(maxFrame)
	return c, nil
}

// finish closes the connection with the status that tells the peer why.
func finish(c *websocket.Conn, err error) {
	if errors.Is(err, context.Canceled) || err == nil {
		c.Close(websocket.StatusNormalClosure, "server is closing")
		return
	}
	c.Close(websocket.StatusInternalError, "server error")
}

// ended reports whether err only says that the peer went away or we close.
func ended(err error) bool {
	// A peer that was killed, as an instance's agent is when the instance ends,
	// takes no leave.
	return err == nil || errors.Is(err, context.Canceled) || errors.Is(err, io.EOF) || websocket.CloseStatus(err) != -1 || errors.Is(err, errGone)
}

var errGone = errors.New("peer is gone")

func writeJSON(ctx context.Context, c *websocket.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	return write(ctx, c, b)
}

// writeWait is how long a peer may take to accept a frame.
const writeWait = 30 * time.Second

func write(ctx context.Context, c *websocket.Conn, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeWait)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, b); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}
