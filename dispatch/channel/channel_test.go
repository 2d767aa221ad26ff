package channel

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tty says back what it is told.
type tty struct {
	c          *Channel
	mu         sync.Mutex
	columns    uint16
	terminated chan struct{}
	input      bytes.Buffer
}

func (t *tty) Input(p []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.input.Write(p)
	return nil
}

func (t *tty) Resize(columns, _ uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.columns = columns
	return nil
}

func (t *tty) Terminate() { close(t.terminated) }

// lab is a channel behind a websocket.
type lab struct {
	t      *testing.T
	c      *Channel
	tty    *tty
	server *httptest.Server
	served chan error
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, tty: &tty{terminated: make(chan struct{})}, served: make(chan error, 10)}
	l.c = New("user-1", InteractiveCommands, l.tty)
	l.tty.c = l.c
	l.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.CloseNow()
		l.served <- l.c.Run(r.Context(), conn)
	}))
	t.Cleanup(l.server.Close)
	return l
}

// client is the plug-in's end.
type client struct {
	t    *testing.T
	conn *websocket.Conn
	seq  int64
	next int64
	deaf func(m message) bool // frames of which it is as if they were lost
}

func (l *lab) dial() *client {
	l.t.Helper()
	conn, resp, err := websocket.Dial(l.t.Context(), "ws"+strings.TrimPrefix(l.server.URL, "http"), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	if resp.Body != nil {
		resp.Body.Close()
	}
	l.t.Cleanup(func() { conn.CloseNow() })
	return &client{t: l.t, conn: conn, deaf: func(message) bool { return false }}
}

// read answers the next frame of the session in its turn, acknowledged.
func (c *client) read() message {
	c.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		_, b, err := c.conn.Read(ctx)
		cancel()
		if err != nil {
			c.t.Fatal(err)
		}
		m, err := decode(b)
		if err != nil {
			c.t.Fatal(err)
		}
		if m.kind == closed {
			return m
		}
		if m.kind != outputStream || c.deaf(m) {
			continue
		}
		body := fmt.Sprintf(`{"AcknowledgedMessageType":"output_stream_data","AcknowledgedMessageId":%q,"AcknowledgedMessageSequenceNumber":%d,"IsSequentialMessage":true}`, uuid(m.id), m.sequence)
		c.write(message{kind: acknowledge, flags: 3, data: []byte(body)})
		if m.sequence == c.next {
			c.next++
			return m
		}
	}
}

func (c *client) write(m message) {
	c.t.Helper()
	m.created = time.Now()
	if err := c.conn.Write(c.t.Context(), websocket.MessageBinary, m.encode()); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) input(payload uint32, data string) {
	c.t.Helper()
	c.write(message{kind: inputStream, sequence: c.seq, payload: payload, data: []byte(data)})
	c.seq++
}

func (c *client) shake() {
	c.t.Helper()
	m := c.read()
	var asked struct {
		RequestedClientActions []struct {
			ActionType       string
			ActionParameters struct{ SessionType string }
		}
	}
	if err := json.Unmarshal(m.data, &asked); err != nil || m.payload != payloadHandshakeRequest || asked.RequestedClientActions[0].ActionParameters.SessionType != InteractiveCommands {
		c.t.Fatalf("the first frame is %d %s", m.payload, m.data)
	}
	c.input(payloadHandshakeResponse, `{"ClientVersion":"1.2","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":[]}`)
	if m := c.read(); m.payload != payloadHandshakeComplete {
		c.t.Fatalf("after the handshake comes %d %s", m.payload, m.data)
	}
}

func TestSession(t *testing.T) {
	l := newLab(t)
	c := l.dial()
	c.shake()
	<-l.c.Ready()
	c.input(payloadSize, `{"cols":132,"rows":40}`)
	// In any order, and twice.
	c.write(message{kind: inputStream, sequence: c.seq + 1, payload: payloadOutput, data: []byte("world")})
	c.write(message{kind: inputStream, sequence: c.seq, payload: payloadOutput, data: []byte("hello ")})
	c.write(message{kind: inputStream, sequence: c.seq, payload: payloadOutput, data: []byte("hello ")})
	c.seq += 2
	c.input(payloadFlag, "\x00\x00\x00\x02")
	c.input(payloadFlag, "\x00\x00\x00\x02")
	<-l.tty.terminated
	l.tty.mu.Lock()
	if got := l.tty.input.String(); got != "hello world" || l.tty.columns != 132 {
		t.Errorf("the terminal got %q and %d columns", got, l.tty.columns)
	}
	l.tty.mu.Unlock()
	said := strings.Repeat("0123456789", 500)
	if err := l.c.Output([]byte(said)); err != nil {
		t.Fatal(err)
	}
	l.c.Close("bye")
	if err := l.c.Output([]byte("x")); err == nil {
		t.Error("a closed channel took output")
	}
	var got strings.Builder
	for {
		m := c.read()
		if m.kind == closed {
			if !strings.Contains(string(m.data), `"Output":"bye"`) {
				t.Errorf("the last frame is %s", m.data)
			}
			break
		}
		got.Write(m.data)
	}
	if got.String() != said {
		t.Errorf("%d bytes of %d came before the end", got.Len(), len(said))
	}
	if err := <-l.served; err != nil {
		t.Errorf("an ended session answers %v", err)
	}
}

// What a client did not get, on a connection that ended, it gets on the next.
func TestResume(t *testing.T) {
	l := newLab(t)
	c := l.dial()
	c.shake()
	c.deaf = func(message) bool { return true }
	if err := l.c.Output([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	c.conn.CloseNow()
	if err := <-l.served; err == nil {
		t.Error("a connection that broke ended the session")
	}
	d := l.dial()
	d.seq, d.next = c.seq, c.next
	if m := d.read(); string(m.data) != "lost" {
		t.Errorf("after the reconnection comes %q", m.data)
	}
	// An acknowledgement that was lost on a connection that stands.
	once := true
	d.deaf = func(message) bool { defer func() { once = false }(); return once }
	if err := l.c.Output([]byte("again")); err != nil {
		t.Fatal(err)
	}
	if m := d.read(); string(m.data) != "again" {
		t.Errorf("sent again is %q", m.data)
	}
	l.c.Close("")
	d.read()
	<-l.served
}

// A terminal that says more than the client takes waits.
func TestSlowClient(t *testing.T) {
	l := newLab(t)
	c := l.dial()
	c.shake()
	done := make(chan error, 1)
	go func() { done <- l.c.Output(make([]byte, (window+10)*chunk)) }()
	for range window + 10 {
		select {
		case err := <-done:
			t.Fatalf("all was taken while %d frames were read: %v", c.next, err)
		default:
		}
		if m := c.read(); len(m.data) != chunk {
			t.Fatalf("frame of %d bytes", len(m.data))
		}
		if c.next > 8 {
			break
		}
	}
	l.c.Close("")
	if err := <-done; err == nil {
		t.Error("what was not sent was taken")
	}
	for c.read().kind != closed {
	}
	<-l.served
}

// Frames as the plug-in writes them (facts: data channel protocol).
func TestGolden(t *testing.T) {
	m := message{kind: acknowledge, created: time.UnixMilli(1700000000000), sequence: 7, flags: 3, payload: payloadOutput, data: []byte("hi"),
		id: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}
	want := "00000074" + hex.EncodeToString([]byte("acknowledge                     ")) + "00000001" + "0000018bcfe56800" + "0000000000000007" + "0000000000000003" +
		"08090a0b0c0d0e0f" + "0001020304050607" + "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4" + "00000001" + "00000002" + "6869"
	if got := hex.EncodeToString(m.encode()); got != want {
		t.Errorf("frame\n%s\nwant\n%s", got, want)
	}
	if got := uuid(m.id); got != "00010203-0405-0607-0809-0a0b0c0d0e0f" {
		t.Errorf("id %s", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(message{kind: inputStream, data: []byte("x")}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(m.encode())
		if err != nil && len(m.data) > 0 || again.kind != m.kind && len(m.kind) <= 32 && !strings.ContainsAny(m.kind, "%") || !bytes.Equal(again.data, m.data) || again.sequence != m.sequence {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}

// Whatever a client sends, the channel takes it or ends the connection.
func FuzzInput(f *testing.F) {
	f.Add(int64(0), uint32(payloadHandshakeResponse), []byte(`{"ProcessedClientActions":[{"ActionStatus":3}]}`))
	f.Add(int64(0), uint32(payloadSize), []byte(`{"cols":70000}`))
	f.Fuzz(func(t *testing.T, seq int64, payload uint32, data []byte) {
		term := &tty{terminated: make(chan struct{})}
		c := New("s", StandardStream, term)
		_, _ = c.input(message{kind: inputStream, sequence: seq, payload: payload, data: data})
		_ = c.acknowledged(message{data: data})
		c.Close("")
	})
}
