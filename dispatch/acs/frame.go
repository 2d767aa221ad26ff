// Package acs has the shapes that an ECS agent and its control plane exchange
// over their two websockets: ACS, which carries tasks to the agent, and TCS,
// which carries telemetry from it. The JSON names are Amazon's, so that
// Amazon's own agent can sit at the other end.
//
// It owns shapes and frames and nothing else: no connection, no clock, no
// opinion on what a message should cause. It must never import anything of
// the server or of the agent.
package acs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"reflect"
	"slices"
	"strings"
)

// Message is a shape that travels in a frame of its own.
type Message interface{ isMessage() }

// envelope is a frame as it is on the wire, in both directions of ACS and
// from server to agent of TCS.
type envelope struct {
	Type    string          `json:"type"`
	Message json.RawMessage `json:"message"`
}

// types maps a frame's type, which is the name of the Go struct too, to the struct.
var types = func() map[string]reflect.Type {
	m := map[string]reflect.Type{}
	for _, v := range []Message{
		// ACS, server to agent
		(*HeartbeatMessage)(nil), (*PayloadMessage)(nil), (*IAMRoleCredentialsMessage)(nil),
		(*TaskManifestMessage)(nil), (*TaskStopVerificationAck)(nil),
		(*AttachTaskNetworkInterfacesMessage)(nil), (*AttachInstanceNetworkInterfacesMessage)(nil),
		(*ConfirmAttachmentMessage)(nil), (*StageUpdateMessage)(nil), (*PerformUpdateMessage)(nil),
		(*CloseMessage)(nil), (*ErrorMessage)(nil),
		// ACS, agent to server
		(*AckRequest)(nil), (*NackRequest)(nil), (*HeartbeatAckRequest)(nil),
		(*IAMRoleCredentialsAckRequest)(nil), (*TaskStopVerificationMessage)(nil),
		// TCS, agent to server
		(*PublishMetricsRequest)(nil), (*PublishHealthRequest)(nil), (*PublishInstanceStatusRequest)(nil),
		// TCS, server to agent (and HeartbeatMessage)
		(*AckPublishMetric)(nil), (*AckPublishHealth)(nil), (*AckPublishInstanceStatus)(nil),
		(*StopTelemetrySessionMessage)(nil),
	} {
		t := reflect.TypeOf(v).Elem()
		m[t.Name()] = t
	}
	return m
}()

// UnknownTypeError is the answer of Decode to a frame of a type that this
// package does not know. The protocol says that such a frame is dropped.
type UnknownTypeError struct{ Type string }

func (e *UnknownTypeError) Error() string { return fmt.Sprintf("unknown message type %q", e.Type) }

// TypeOf gives the name under which m travels.
func TypeOf(m Message) string { return reflect.TypeOf(m).Elem().Name() }

// Encode makes the frame {"type":…,"message":…} of m.
func Encode(m Message) ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", TypeOf(m), err)
	}
	return json.Marshal(envelope{Type: TypeOf(m), Message: body})
}

// Decode reads a frame. Fields it does not know are ignored; a type it does
// not know gives an *UnknownTypeError.
func Decode(frame []byte) (Message, error) {
	var e envelope
	if err := json.Unmarshal(frame, &e); err != nil {
		return nil, fmt.Errorf("decode frame: %w", err)
	}
	t, ok := types[e.Type]
	if !ok {
		return nil, &UnknownTypeError{Type: e.Type}
	}
	v := reflect.New(t)
	if len(e.Message) > 0 {
		if err := json.Unmarshal(e.Message, v.Interface()); err != nil {
			return nil, fmt.Errorf("decode %s: %w", e.Type, err)
		}
	}
	return v.Interface().(Message), nil
}

var blankLine = []byte("\r\n\r\n")

// EncodeSigned makes a TCS frame of agent to server: the headers of a signed
// request, an empty line, then the plain frame. Host belongs into header.
func EncodeSigned(header http.Header, frame []byte) []byte {
	var b bytes.Buffer
	names := make([]string, 0, len(header))
	for name := range header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range header[name] {
			b.WriteString(name)
			b.WriteString(": ")
			b.WriteString(v)
			b.WriteString("\r\n")
		}
	}
	b.WriteString("\r\n")
	b.Write(frame)
	return b.Bytes()
}

// SplitSigned takes a TCS frame of agent to server apart: the signed headers
// and the plain frame for Decode. The headers' signature is not checked here.
func SplitSigned(data []byte) (http.Header, []byte, error) {
	i := bytes.Index(data, blankLine)
	if i < 0 {
		return nil, nil, errors.New("signed frame: no empty line after the headers")
	}
	block := data[:i+len(blankLine)]
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(block))).ReadMIMEHeader()
	if err != nil {
		return nil, nil, fmt.Errorf("signed frame: %w", err)
	}
	return http.Header(h), data[i+len(blankLine):], nil
}

// EncodeException makes the other error form that agents accept,
// {"<exception>":"<message>"}: the body of a refused websocket upgrade.
func EncodeException(name, message string) []byte {
	b, _ := json.Marshal(map[string]string{name: message}) // strings always marshal
	return b
}

// DecodeException reads what EncodeException made. It reports false for
// anything else.
func DecodeException(body []byte) (name, message string, ok bool) {
	var m map[string]string
	if json.Unmarshal(body, &m) != nil || len(m) != 1 {
		return "", "", false
	}
	for name, message = range m {
	}
	return name, message, strings.HasSuffix(name, "Exception")
}
