package wire

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"net/http"
	"reflect"
	"time"
)

// A Stream is the event stream of an output: events in the order they happen,
// each a T with one member set. It runs in the goroutine of the request, until
// it returns or the client is gone; it is run even if the client has gone before
// its first event. An error ends it, and the client is told.
type Stream[T any] iter.Seq2[*T, error]

// eventStream is a Stream of any type.
type eventStream interface {
	each(yield func(event any, err error) bool)
	newEvent() any
	none() bool
}

func (s Stream[T]) each(yield func(any, error) bool) {
	for e, err := range s {
		if !yield(e, err) {
			return
		}
	}
}

func (Stream[T]) newEvent() any { return new(T) }

func (s Stream[T]) none() bool { return s == nil }

// A Message is a frame of application/vnd.amazon.eventstream:
//
//	length (4) | length of headers (4) | CRC-32 of these 8 | headers | payload | CRC-32 of all before
//
// and a header is
//
//	length of name (1) | name | type (1) | value
//
// All numbers are big endian. Headers here are strings, type 7, whose values
// have their length (2) in front; those of other types are read over.
type Message struct {
	Headers []MessageHeader
	Payload []byte
}

// MessageHeader is a name and its value.
type MessageHeader struct{ Name, Value string }

// Header is the value of the header with that name.
func (m *Message) Header(name string) string {
	for _, h := range m.Headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

const (
	preludeSize = 12
	trailerSize = 4
	// The bounds of the format.
	maxMessageHeaders = 128 << 10
	maxMessagePayload = 24 << 20
	stringHeader      = 7
)

// headerSizes are the sizes of the values by type; -1: the length comes first.
var headerSizes = [...]int{0, 0, 1, 2, 4, 8, -1, -1, 8, 16}

// Append appends the message as a frame.
func (m *Message) Append(b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, preludeSize)...)
	for _, h := range m.Headers {
		b = append(b, byte(len(h.Name)))
		b = append(b, h.Name...)
		b = append(b, stringHeader)
		b = binary.BigEndian.AppendUint16(b, uint16(len(h.Value)))
		b = append(b, h.Value...)
	}
	headers := len(b) - start - preludeSize
	b = append(b, m.Payload...)
	p := b[start:]
	binary.BigEndian.PutUint32(p, uint32(len(p)+trailerSize))
	binary.BigEndian.PutUint32(p[4:], uint32(headers))
	binary.BigEndian.PutUint32(p[8:], crc32.ChecksumIEEE(p[:8]))
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(p))
}

// ReadMessage reads one frame. At the end of the stream it returns io.EOF.
func ReadMessage(r io.Reader) (*Message, error) {
	prelude := make([]byte, preludeSize)
	if _, err := io.ReadFull(r, prelude); err != nil {
		return nil, err
	}
	total, headers := binary.BigEndian.Uint32(prelude), binary.BigEndian.Uint32(prelude[4:])
	switch {
	case crc32.ChecksumIEEE(prelude[:8]) != binary.BigEndian.Uint32(prelude[8:]):
		return nil, errors.New("event stream: the checksum of a prelude does not match")
	case headers > maxMessageHeaders, total < preludeSize+trailerSize+headers, total-headers-preludeSize-trailerSize > maxMessagePayload:
		return nil, fmt.Errorf("event stream: a message of %d bytes with %d of headers", total, headers)
	}
	frame := make([]byte, total)
	copy(frame, prelude)
	if _, err := io.ReadFull(r, frame[preludeSize:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	end := len(frame) - trailerSize
	if crc32.ChecksumIEEE(frame[:end]) != binary.BigEndian.Uint32(frame[end:]) {
		return nil, errors.New("event stream: the checksum of a message does not match")
	}
	m := &Message{Payload: frame[preludeSize+headers : end]}
	for h := frame[preludeSize : preludeSize+headers]; len(h) > 0; {
		n := int(h[0])
		if len(h) < n+2 {
			return nil, errHeader
		}
		name, kind := string(h[1:1+n]), h[1+n]
		h = h[2+n:]
		if int(kind) >= len(headerSizes) {
			return nil, errHeader
		}
		size := headerSizes[kind]
		if size < 0 {
			if len(h) < 2 {
				return nil, errHeader
			}
			size, h = int(binary.BigEndian.Uint16(h)), h[2:]
		}
		if len(h) < size {
			return nil, errHeader
		}
		if kind == stringHeader {
			m.Headers = append(m.Headers, MessageHeader{name, string(h[:size])})
		}
		h = h[size:]
	}
	return m, nil
}

var errHeader = errors.New("event stream: a header is cut off")

// frameTime is how long a client may take to receive one event.
const frameTime = 30 * time.Second

// encodeStream answers with the events of the output v. The first message is
// what else is in the output; the errors that the stream models are messages
// of their own, others are told by code.
func (c *Call) encodeStream(w http.ResponseWriter, requestID string, v reflect.Value) error {
	sc := c.Operation.Output()
	content := "application/x-amz-json-1.1"
	if c.Protocol == JSON10 {
		content = "application/x-amz-json-1.0"
	}
	h := w.Header()
	h.Set("Content-Type", "application/vnd.amazon.eventstream")
	h.Set("X-Amzn-Requestid", requestID)
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	var b []byte
	send := func(kind, key, name string, payload []byte) error {
		m := Message{Headers: []MessageHeader{{":message-type", kind}, {key, name}, {":content-type", content}}, Payload: payload}
		b = m.Append(b[:0])
		_ = control.SetWriteDeadline(time.Now().Add(frameTime)) // not every ResponseWriter has one
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		if err := control.Flush(); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		return nil
	}
	err := send("event", ":event-type", "initial-response", appendJSON(nil, sc, "", v, false))
	stream, union := streamOf(sc, v)
	if stream.none() {
		return err
	}
	if err != nil {
		stream.each(func(any, error) bool { return false }) // it has something to give back
		return err
	}
	var failed error
	stream.each(func(event any, e error) bool {
		if e != nil {
			code, ok := errors.AsType[Error](e)
			if !ok {
				failed = e
				code = c.internal(requestID)
			}
			m := Message{Headers: []MessageHeader{{":message-type", "error"}, {":error-code", code.ErrorCode()}, {":error-message", errorMessage(code)}}}
			if _, err := w.Write(m.Append(nil)); err != nil {
				failed = errors.Join(failed, err)
			}
			return false
		}
		ev := reflect.ValueOf(event).Elem()
		bound := union.bind(ev.Type())
		for i := range union.Members {
			m := &union.Members[i]
			f := ev.Field(bound.fields[i])
			if !present(f) {
				continue
			}
			kind, key := "event", ":event-type"
			_, last := f.Interface().(Error)
			if last {
				kind, key = "exception", ":exception-type"
			}
			failed = send(kind, key, m.Name, appendJSON(nil, m.Schema, m.Format, f, true))
			return failed == nil && !last
		}
		failed = fmt.Errorf("an event of %s has no member", c.Operation.Name)
		return false
	})
	return failed
}

// streamOf is the stream in the output v, and the schema of its events.
func streamOf(sc *Schema, v reflect.Value) (eventStream, *Schema) {
	bound := sc.bind(v.Type())
	for i := range sc.Members {
		if f := v.Field(bound.fields[i]); f.Kind() == reflect.Func {
			return f.Interface().(eventStream), sc.Members[i].Schema
		}
	}
	return nil, nil
}

// Stream calls an operation whose output has a Stream, and each with its
// events, until that returns false, the stream ends, or the context does. An
// error that the stream ends with is returned.
func (c *Client) Stream(ctx context.Context, svc *Service, operation string, in any, each func(event any) bool) error {
	o := svc.Operations[operation]
	if o == nil || !o.Streams {
		return fmt.Errorf("%s has no operation %s with a stream", svc.Title, operation)
	}
	if err := c.stream(ctx, svc, o, in, each); err != nil {
		return fmt.Errorf("%s %s: %w", svc.Name, operation, err)
	}
	return nil
}

func (c *Client) stream(ctx context.Context, svc *Service, o *Operation, in any, each func(event any) bool) error {
	resp, err := c.send(ctx, svc, o, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		data, err := readResponse(resp)
		if err != nil {
			return err
		}
		return decodeError(svc, resp, data)
	}
	stream, union := streamOf(o.Output(), reflect.ValueOf(o.NewOutput()).Elem())
	r := bufio.NewReader(resp.Body)
	for {
		m, err := ReadMessage(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := m.Header(":event-type")
		switch m.Header(":message-type") {
		case "event":
		case "exception":
			name = m.Header(":exception-type")
		default:
			return NewError(http.StatusBadRequest, m.Header(":error-code"), m.Header(":error-message"))
		}
		i, ok := union.byName[name]
		if !ok {
			continue // initial-response, and what is newer than this client
		}
		event := stream.newEvent()
		v := reflect.ValueOf(event).Elem()
		f := v.Field(union.bind(v.Type()).fields[i])
		if err := decodeJSON(m.Payload, union.Members[i].Schema, target(f)); err != nil {
			return fmt.Errorf("decode event: %w", err)
		}
		if e, ok := f.Interface().(Error); ok {
			return e
		}
		if !each(event) {
			return nil
		}
	}
}
