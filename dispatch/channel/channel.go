// Package channel is the server's end of Session Manager's data channel: the
// websocket by which the session-manager-plugin, and so `aws ssm
// start-session` and `aws ecs execute-command`, has a terminal somewhere else
// (facts: Session Manager data channel protocol).
//
// A channel outlives its connections: what was not acknowledged is sent again
// on the next one, and what arrives twice is taken once. It knows nothing of
// where the terminal is, of tokens, or of who may have one.
package channel

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Limits of a channel.
const (
	// window is how many frames may wait for their acknowledgement; a terminal
	// that says more waits.
	window = 256
	// early is how many frames may come before one that is missing.
	early = 10_000
	// chunk is the most of a terminal's output in one frame.
	chunk = 1024
	// maxFrame bounds what a client may send at once.
	maxFrame = 1 << 20
	// again is after how long what was not acknowledged is sent again.
	again = time.Second
)

// Terminal is what a channel is connected to. Its methods are called one at a
// time, in the order in which the client sent.
type Terminal interface {
	// Input takes what was typed.
	Input(p []byte) error
	// Resize tells of the size of the client's window.
	Resize(columns, rows uint16) error
	// Terminate is called once, when the client wants the session to end.
	Terminate()
}

// Kinds of sessions, as the plug-in knows them.
const (
	StandardStream         = "Standard_Stream"
	InteractiveCommands    = "InteractiveCommands"
	NonInteractiveCommands = "NonInteractiveCommands"
)

// Channel is one session's.
type Channel struct {
	session, kind string
	terminal      Terminal
	now           func() time.Time
	begun         time.Time
	ready         chan struct{} // closed after the handshake
	gone          chan struct{} // closed by Close
	once          sync.Once     // of Terminate

	mu      sync.Mutex
	room    *sync.Cond // something was acknowledged, or it is over
	next    int64      // sequence number of the next frame that goes out
	unacked []message
	sent    time.Time // when unacked was sent last
	wake    chan struct{}
	taken   int64             // sequence number of the next frame that is to come in
	ahead   map[int64]message // came before their turn
	shaken  bool
	ended   bool
	final   *message // channel_closed
}

// New makes a channel. kind says how the client treats its own terminal.
func New(session, kind string, t Terminal) *Channel {
	c := &Channel{
		session: session, kind: kind, terminal: t, now: time.Now, begun: time.Now(),
		ready: make(chan struct{}), gone: make(chan struct{}), wake: make(chan struct{}, 1), ahead: map[int64]message{},
	}
	c.room = sync.NewCond(&c.mu)
	actions, err := json.Marshal(map[string]any{
		"AgentVersion": "3.3.0.0",
		"RequestedClientActions": []any{map[string]any{
			"ActionType":       "SessionType",
			"ActionParameters": map[string]any{"SessionType": kind, "Properties": nil},
		}},
	})
	if err != nil {
		panic(err) // of constants
	}
	c.send(payloadHandshakeRequest, actions)
	return c
}

// Gone is closed once the session has ended at this end.
func (c *Channel) Gone() <-chan struct{} { return c.gone }

// Ready is closed once the client is there and knows what session it is.
func (c *Channel) Ready() <-chan struct{} { return c.ready }

// Output sends what the terminal says. It waits while the client does not keep
// up, and fails once the channel is closed.
func (c *Channel) Output(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), chunk)
		if !c.send(payloadOutput, p[:n]) {
			return errClosed
		}
		p = p[n:]
	}
	return nil
}

// Exit tells the code that a command which is no shell ended with.
func (c *Channel) Exit(code int) {
	c.send(payloadExitCode, fmt.Append(nil, code))
}

var errClosed = errors.New("the channel is closed")

// Close ends the session: the client shows the text and goes, after it has
// got all that was said before. It does not wait for that.
func (c *Channel) Close(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	m := c.message(closed, 0, nil)
	body, err := json.Marshal(map[string]any{
		"MessageId": uuid(m.id), "CreatedDate": m.created.Format(time.RFC3339Nano), "DestinationId": c.session, "SessionId": c.session,
		"MessageType": closed, "SchemaVersion": 1, "Output": text,
	})
	if err != nil {
		panic(err) // of strings and a number
	}
	m.data = body
	c.final, c.ended = &m, true
	close(c.gone)
	c.room.Broadcast()
	c.poke()
}

func (c *Channel) message(kind string, payload uint32, data []byte) message {
	m := message{kind: kind, created: c.now(), payload: payload, data: data}
	_, _ = rand.Read(m.id[:]) // never fails
	m.id[6], m.id[8] = m.id[6]&0x0f|0x40, m.id[8]&0x3f|0x80
	return m
}

// send queues a frame of output.
func (c *Channel) send(payload uint32, data []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.unacked) >= window && !c.ended {
		c.room.Wait()
	}
	if c.ended {
		return false
	}
	m := c.message(outputStream, payload, append([]byte(nil), data...))
	m.sequence = c.next
	c.next++
	c.unacked = append(c.unacked, m)
	c.poke()
	return true
}

func (c *Channel) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run serves one connection until it ends, ctx does, or the channel is closed
// and the client knows; only then it answers nil. Connections are served one
// after the other.
func (c *Channel) Run(ctx context.Context, conn *websocket.Conn) error {
	conn.SetReadLimit(maxFrame)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var reading sync.WaitGroup
	failed := make(chan error, 1)
	reading.Go(func() {
		failed <- c.read(ctx, conn)
		cancel()
	})
	err := c.write(ctx, conn)
	cancel()
	reading.Wait()
	if err == nil {
		return nil
	}
	return errors.Join(<-failed, err)
}

// write sends what is to go out, and again what nobody acknowledged.
func (c *Channel) write(ctx context.Context, conn *websocket.Conn) error {
	var done int64 = -1 // the last one that this connection has carried
	timer := time.NewTimer(again)
	defer timer.Stop()
	repeat := false
	for {
		c.mu.Lock()
		var out []message
		for _, m := range c.unacked {
			if repeat || m.sequence > done {
				out = append(out, m)
			}
		}
		last := len(c.unacked) == 0 && c.final != nil
		final := c.final
		c.mu.Unlock()
		repeat = false
		for _, m := range out {
			if err := conn.Write(ctx, websocket.MessageBinary, m.encode()); err != nil {
				return fmt.Errorf("send: %w", err)
			}
			done = max(done, m.sequence)
		}
		if last {
			return conn.Write(ctx, websocket.MessageBinary, final.encode())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.wake:
		case <-timer.C:
			repeat = true
			timer.Reset(again)
		}
	}
}

// read takes in what the client sends.
func (c *Channel) read(ctx context.Context, conn *websocket.Conn) error {
	for {
		kind, b, err := conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if kind != websocket.MessageBinary {
			continue
		}
		m, err := decode(b)
		if err != nil {
			return err
		}
		switch m.kind {
		case acknowledge:
			if err := c.acknowledged(m); err != nil {
				return err
			}
		case inputStream:
			ack, err := c.input(m)
			if err != nil {
				return err
			}
			if ack != nil {
				if err := conn.Write(ctx, websocket.MessageBinary, ack.encode()); err != nil {
					return fmt.Errorf("acknowledge: %w", err)
				}
			}
		}
	}
}

// acknowledged forgets what the client has got.
func (c *Channel) acknowledged(m message) error {
	var ack struct {
		AcknowledgedMessageSequenceNumber int64
	}
	if err := json.Unmarshal(m.data, &ack); err != nil {
		return fmt.Errorf("acknowledgement: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, u := range c.unacked {
		if u.sequence == ack.AcknowledgedMessageSequenceNumber {
			c.unacked = append(c.unacked[:i], c.unacked[i+1:]...)
			c.room.Broadcast()
			if len(c.unacked) == 0 {
				c.poke() // what ends the session may wait for this
			}
			break
		}
	}
	return nil
}

// input takes a frame in its turn, with those that waited for it, and answers
// its acknowledgement: also of one that was here before, for the first
// acknowledgement may be lost.
func (c *Channel) input(m message) (*message, error) {
	c.mu.Lock()
	switch {
	case m.sequence < c.taken:
	case m.sequence > c.taken:
		if m.sequence-c.taken > early {
			c.mu.Unlock()
			return nil, nil // it will come again
		}
		m.data = append([]byte(nil), m.data...)
		c.ahead[m.sequence] = m
	default:
		for at, ok := m, true; ok; at, ok = c.ahead[c.taken] {
			delete(c.ahead, c.taken)
			c.taken++
			c.mu.Unlock()
			err := c.handle(at)
			c.mu.Lock()
			if err != nil {
				c.mu.Unlock()
				return nil, err
			}
		}
	}
	c.mu.Unlock()
	body, err := json.Marshal(map[string]any{
		"AcknowledgedMessageType": m.kind, "AcknowledgedMessageId": uuid(m.id),
		"AcknowledgedMessageSequenceNumber": m.sequence, "IsSequentialMessage": true,
	})
	if err != nil {
		return nil, err
	}
	ack := c.message(acknowledge, 0, body)
	ack.flags = 3
	return &ack, nil
}

func (c *Channel) handle(m message) error {
	switch m.payload {
	case payloadHandshakeResponse:
		return c.shake(m.data)
	case payloadOutput: // the name is of the other direction
		if err := c.terminal.Input(m.data); err != nil {
			c.Close("")
		}
	case payloadSize:
		var size struct {
			Cols uint16 `json:"cols"`
			Rows uint16 `json:"rows"`
		}
		if err := json.Unmarshal(m.data, &size); err != nil {
			return fmt.Errorf("size: %w", err)
		}
		if err := c.terminal.Resize(size.Cols, size.Rows); err != nil {
			c.Close("")
		}
	case payloadFlag:
		if len(m.data) == 4 && m.data[3] == flagTerminate && m.data[0]|m.data[1]|m.data[2] == 0 {
			c.once.Do(c.terminal.Terminate)
		}
	}
	return nil
}

// shake ends the handshake: the client has said whether it can do what it is
// asked for.
func (c *Channel) shake(data []byte) error {
	var answer struct {
		ProcessedClientActions []struct {
			ActionType   string
			ActionStatus int
			Error        string
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return fmt.Errorf("answer to the handshake: %w", err)
	}
	c.mu.Lock()
	again := c.shaken
	c.shaken = true
	c.mu.Unlock()
	if again {
		return nil
	}
	for _, a := range answer.ProcessedClientActions {
		if a.ActionStatus != 1 {
			c.Close("The client does not support " + a.ActionType + ": " + a.Error)
			return nil
		}
	}
	body, err := json.Marshal(map[string]any{"HandshakeTimeToComplete": c.now().Sub(c.begun).Nanoseconds(), "CustomerMessage": ""})
	if err != nil {
		return err
	}
	c.send(payloadHandshakeComplete, body)
	close(c.ready)
	return nil
}
