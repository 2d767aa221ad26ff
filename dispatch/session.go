package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/berth-run/berth/dispatch/channel"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	// idleTime is how long a session lasts in which nothing is typed or said.
	idleTime = 20 * time.Minute
	// awayTime is how long a client that lost its connection may take to come back.
	awayTime = 2 * time.Minute
	// joinTime is how long the node may take to bring the terminal.
	joinTime = 30 * time.Second
	// farewell is how long a client may take to hear that its session has ended.
	farewell = 5 * time.Second
	// openTime is how long a client may take to show its token.
	openTime = 10 * time.Second
)

// seat is a session that somebody sits at: the client's channel on one side,
// the node's connection on the other. It ends when either of the two ends it,
// and takes both along.
type seat struct {
	s       *Server
	id      string
	kind    string
	channel *channel.Channel
	ctx     context.Context // ends with the seat
	cancel  context.CancelFunc
	joined  chan struct{} // closed when node is set
	active  chan struct{} // something was typed or said
	turn    chan struct{} // held by the connection that is served

	mu      sync.Mutex
	node    *websocket.Conn
	hang    context.CancelFunc // of the connection that is served
	size    fabric.TerminalFrame
	present chan struct{} // the client came or went
	clients int
	failed  bool // it never began
}

// Input implements channel.Terminal.
func (t *seat) Input(p []byte) error {
	t.note()
	return t.tell(websocket.MessageBinary, p)
}

// Resize implements channel.Terminal. Clients say their size all the time.
func (t *seat) Resize(columns, rows uint16) error {
	size := fabric.TerminalFrame{Columns: columns, Rows: rows}
	t.mu.Lock()
	same := t.size == size
	t.size = size
	t.mu.Unlock()
	if same || columns == 0 || rows == 0 {
		return nil
	}
	b, err := json.Marshal(size)
	if err != nil {
		return err
	}
	return t.tell(websocket.MessageText, b)
}

// Terminate implements channel.Terminal.
func (t *seat) Terminate() { t.channel.Close("") }

// tell sends something to the node, once that is there.
func (t *seat) tell(kind websocket.MessageType, b []byte) error {
	select {
	case <-t.joined:
	case <-t.ctx.Done():
		return errGone
	}
	ctx, cancel := context.WithTimeout(t.ctx, writeWait)
	defer cancel()
	return t.node.Write(ctx, kind, b)
}

func (t *seat) note() {
	select {
	case t.active <- struct{}{}:
	default:
	}
}

// client counts who sits here.
func (t *seat) client(add int) {
	t.mu.Lock()
	t.clients += add
	t.mu.Unlock()
	select {
	case t.present <- struct{}{}:
	default:
	}
}

func (t *seat) alone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clients == 0
}

// here counts a node's stream until the function that it returns is called.
func (s *Server) here(node string) func() {
	count := func(add int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.nodes[node] += add; s.nodes[node] == 0 {
			delete(s.nodes, node)
		}
	}
	count(1)
	return func() { count(-1) }
}

// Connected reports whether a node is connected to this server, so that
// terminals on it can be had here.
func (s *Server) Connected(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[node] > 0
}

// sessions adds to a frame the terminals that the node is to bring.
func (s *stream) sessions(snap *store.Snapshot, d *fabric.Desired) {
	seen := map[string]bool{}
	for x := range state.Sessions.By(snap, "node", s.node) {
		if x.Server != s.Name {
			continue
		}
		seen[x.ID] = true
		if !s.told[x.ID] {
			d.Sessions = append(d.Sessions, fabric.Session{ID: x.ID, Instance: x.Instance, Container: x.Container, Command: x.Command})
		}
	}
	s.told = maps.Clone(seen)
}

// refuse ends a connection that is nobody's. Why, it is not told.
func refuse(c *websocket.Conn) { c.Close(websocket.StatusPolicyViolation, "invalid token") }

// serveClient is a connection of the session-manager-plugin.
func (s *Server) serveClient(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, state.DataChannelPath)
	c, err := accept(w, r)
	if err != nil {
		s.Log.Debug("upgrade of a session's client", "err", err)
		return
	}
	defer func() { _ = c.CloseNow() }()
	t, err := s.seat(ctx, c, id)
	if err != nil {
		s.Log.Info("client of a session refused", "session", id, "err", err)
		refuse(c)
		return
	}
	// One connection at a time: the newest.
	ctx, hang := context.WithCancel(ctx)
	defer hang()
	t.mu.Lock()
	if t.hang != nil {
		t.hang()
	}
	t.hang = hang
	t.mu.Unlock()
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-t.turn }()
	t.client(1)
	defer t.client(-1)
	if err := t.channel.Run(ctx, c); err != nil {
		s.Log.Debug("client of a session", "session", id, "err", err)
		return
	}
	c.Close(websocket.StatusNormalClosure, "")
}

// seat finds or makes the seat for who has the token of a session.
func (s *Server) seat(ctx context.Context, c *websocket.Conn, id string) (*seat, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	kind, b, err := c.Read(ctx)
	if err != nil {
		return nil, err
	}
	var open struct{ TokenValue string }
	if err := json.Unmarshal(b, &open); kind != websocket.MessageText || err != nil {
		return nil, errors.Join(errors.New("the first frame is not a token"), err)
	}
	var row *state.Session
	fresh := false
	err = s.DB.Update(ctx, func(tx *store.Tx) error {
		row, fresh = nil, false
		x, ok := state.Sessions.Get(tx, id)
		if !ok || !x.Knows(open.TokenValue) || !x.Live() {
			return errors.New("no such session, or not its token")
		}
		row = x
		if x.Status == state.SessionConnecting {
			n := *x
			n.Status, n.Server = state.SessionConnected, s.Name
			state.Sessions.Put(tx, &n)
			row, fresh = &n, true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.seats[id]; t != nil {
		return t, nil
	}
	if s.closed || !fresh && row.Server != s.Name {
		return nil, errors.New("the session is at another server")
	}
	t := &seat{s: s, id: id, joined: make(chan struct{}), active: make(chan struct{}, 1), turn: make(chan struct{}, 1), present: make(chan struct{}, 1)}
	t.kind = channel.StandardStream
	if row.Command != nil {
		t.kind = channel.InteractiveCommands
	}
	t.channel = channel.New(id, t.kind, t)
	t.ctx, t.cancel = context.WithCancel(s.ctx)
	s.seats[id] = t
	s.open.Add(1)
	go func() {
		defer s.open.Done()
		t.live()
	}()
	return t, nil
}

// live is a seat's life.
func (t *seat) live() {
	var watching sync.WaitGroup
	watch, stop := context.WithCancel(t.ctx)
	watching.Go(func() { t.watch(watch) })
	text := t.wait()
	t.channel.Close(text)
	stop()
	watching.Wait()
	s := t.s
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), writeWait)
	defer cancel()
	t.mu.Lock()
	status := state.SessionTerminated
	if t.failed {
		status = state.SessionFailed
	}
	t.mu.Unlock()
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		if x, ok := state.Sessions.Get(tx, t.id); ok && x.Live() {
			state.Sessions.Put(tx, x.End(status, s.Now()))
		}
		return nil
	})
	if err != nil {
		s.Log.Error("end of a session", "session", t.id, "err", err)
	}
	// The client is to hear of it.
	late := time.NewTimer(farewell)
	defer late.Stop()
	for heard := false; !heard && !t.alone(); {
		select {
		case <-t.present:
		case <-late.C:
			heard = true
		case <-s.ctx.Done():
			heard = true
		}
	}
	t.cancel()
	t.mu.Lock()
	if t.hang != nil {
		t.hang()
	}
	t.mu.Unlock()
	s.mu.Lock()
	delete(s.seats, t.id)
	s.mu.Unlock()
}

// wait returns when the session is to end, and what its client is told.
func (t *seat) wait() string {
	idle, away, join := time.NewTimer(t.s.idle), time.NewTimer(t.s.away), time.NewTimer(joinTime)
	defer idle.Stop()
	defer away.Stop()
	defer join.Stop()
	joined := t.joined
	for {
		select {
		case <-t.channel.Gone():
			return ""
		case <-t.ctx.Done():
			return "The server of this region ends."
		case <-t.active:
			idle.Reset(t.s.idle)
		case <-t.present:
			if t.alone() {
				away.Reset(t.s.away)
			} else {
				away.Stop()
			}
		case <-joined:
			joined = nil
			join.Stop()
		case <-join.C:
			t.fail()
			return "The target is not connected."
		case <-idle.C:
			return "Your session timed out due to inactivity."
		case <-away.C:
			return "" // nobody hears it
		}
	}
}

func (t *seat) fail() {
	t.mu.Lock()
	t.failed = true
	t.mu.Unlock()
}

// watch ends the session when its row says so.
func (t *seat) watch(ctx context.Context) {
	w := t.s.DB.Watch(state.Sessions)
	defer w.Close()
	for {
		snap, _, err := w.Next(ctx)
		if err != nil {
			return
		}
		if x, ok := state.Sessions.Get(snap, t.id); !ok || !x.Live() {
			t.channel.Close("")
			return
		}
	}
}

// serveTerminal is the node's end of a session.
func (s *Server) serveTerminal(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, fabric.SessionPath)
	s.mu.Lock()
	t := s.seats[id]
	s.mu.Unlock()
	if t == nil {
		http.Error(w, "there is no such session", http.StatusGone)
		return
	}
	c, err := accept(w, r)
	if err != nil {
		s.Log.Warn("upgrade of a terminal", "err", err)
		return
	}
	defer func() { _ = c.CloseNow() }()
	t.mu.Lock()
	second := t.node != nil
	if !second {
		t.node = c
		close(t.joined)
	}
	t.mu.Unlock()
	if second {
		c.Close(websocket.StatusPolicyViolation, "the session has a terminal")
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := context.AfterFunc(t.ctx, cancel)
	defer over()
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-t.channel.Gone():
			cancel()
		case <-ctx.Done():
		}
	})
	err = t.listen(ctx, c)
	cancel()
	waiting.Wait()
	if err != nil && !ended(err) {
		s.Log.Warn("terminal", "session", id, "err", err)
	}
	t.channel.Close("The target is not connected any more.") // unless it has ended as it should
}

// listen passes on what the terminal says, until it has ended.
func (t *seat) listen(ctx context.Context, c *websocket.Conn) error {
	select {
	case <-t.channel.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		kind, b, err := c.Read(ctx)
		if err != nil {
			return err
		}
		t.note()
		if kind == websocket.MessageBinary {
			if err := t.channel.Output(b); err != nil {
				return nil // it has ended
			}
			continue
		}
		var f fabric.TerminalFrame
		if err := json.Unmarshal(b, &f); err != nil {
			return fmt.Errorf("frame of a terminal: %w", err)
		}
		if f.Error != "" {
			t.fail()
		}
		t.channel.Close(f.Error)
		return nil
	}
}

// SessionsLost says of the sessions that a server had that they have ended with
// it. It is called before anything is served.
func SessionsLost(ctx context.Context, db *store.DB, server string, now time.Time) error {
	err := db.Update(ctx, func(tx *store.Tx) error {
		var lost []*state.Session
		for x := range state.Sessions.All(tx) {
			if x.Status == state.SessionConnected && x.Server == server {
				lost = append(lost, x)
			}
		}
		for _, x := range lost {
			state.Sessions.Put(tx, x.End(state.SessionTerminated, now))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sessions of a server that is gone: %w", err)
	}
	return nil
}
