package wire_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
)

// tail answers StartLiveTail with what it is given.
type tail struct {
	logs.Unimplemented
	stream func(ctx context.Context) iter.Seq2[*logs.StartLiveTailResponseStream, error]
}

func (t tail) StartLiveTail(ctx context.Context, in *logs.StartLiveTailInput) (*logs.StartLiveTailOutput, error) {
	if t.stream == nil {
		return nil, &logs.LimitExceededException{Message: "too many"}
	}
	return &logs.StartLiveTailOutput{ResponseStream: wire.Stream[logs.StartLiveTailResponseStream](t.stream(ctx))}, nil
}

func serve(t *testing.T, h logs.Handler) *wire.Client {
	t.Helper()
	router := wire.NewRouter(logs.NewService(h))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		call, err := router.Route(r, body)
		var in, out any
		if err == nil {
			if in, err = call.Decode(); err == nil {
				out, err = call.Invoke(r.Context(), in)
			}
		}
		if err != nil {
			_ = call.EncodeError(w, "id", err)
			return
		}
		_ = call.EncodeResponse(w, "id", out)
	}))
	t.Cleanup(s.Close)
	return &wire.Client{Endpoint: s.URL, HTTP: s.Client()}
}

func session(text string) *logs.StartLiveTailResponseStream {
	return &logs.StartLiveTailResponseStream{SessionUpdate: &logs.LiveTailSessionUpdate{
		SessionMetadata: &logs.LiveTailSessionMetadata{Sampled: new(false)},
		SessionResults:  []logs.LiveTailSessionLogEvent{{Message: new(text), Timestamp: new(int64(5))}},
	}}
}

func TestStream(t *testing.T) {
	svc := logs.NewService(nil)
	in := &logs.StartLiveTailInput{LogGroupIdentifiers: []string{"g"}}
	events := []*logs.StartLiveTailResponseStream{{SessionStart: &logs.LiveTailSessionStart{SessionId: new("s")}}, session("a"), session("b\n\"")}
	all := func(end error, last ...*logs.StartLiveTailResponseStream) func(context.Context) iter.Seq2[*logs.StartLiveTailResponseStream, error] {
		return func(context.Context) iter.Seq2[*logs.StartLiveTailResponseStream, error] {
			return func(yield func(*logs.StartLiveTailResponseStream, error) bool) {
				for _, e := range append(events[:len(events):len(events)], last...) {
					if !yield(e, nil) {
						return
					}
				}
				if end != nil {
					yield(nil, end)
				}
			}
		}
	}
	for _, tt := range []struct {
		name string
		h    tail
		want string
		got  int
	}{
		{"whole", tail{stream: all(nil)}, "", 3},
		{"exception", tail{stream: all(nil, &logs.StartLiveTailResponseStream{SessionTimeoutException: &logs.SessionTimeoutException{Message: "over"}}, session("never"))}, "logs StartLiveTail: SessionTimeoutException: over", 3},
		{"error", tail{stream: all(&logs.InvalidParameterException{Message: "no"})}, "logs StartLiveTail: InvalidParameterException: no", 3},
		{"internal", tail{stream: all(errors.New("secret"))}, "logs StartLiveTail: ServiceUnavailableException: The request processing has failed because of an internal error. (request id)", 3},
		{"refused", tail{}, "logs StartLiveTail: LimitExceededException: too many", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []*logs.StartLiveTailResponseStream
			err := serve(t, tt.h).Stream(t.Context(), svc, "StartLiveTail", in, func(e any) bool {
				got = append(got, e.(*logs.StartLiveTailResponseStream))
				return true
			})
			if (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if d := cmp.Diff(events[:tt.got], got, cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
		})
	}
}

// A client that goes ends the stream.
func TestStreamEndsWithItsClient(t *testing.T) {
	ended := make(chan struct{})
	c := serve(t, tail{stream: func(ctx context.Context) iter.Seq2[*logs.StartLiveTailResponseStream, error] {
		return func(yield func(*logs.StartLiveTailResponseStream, error) bool) {
			defer close(ended)
			if yield(session("a"), nil) {
				<-ctx.Done()
			}
		}
	}})
	err := c.Stream(t.Context(), logs.NewService(nil), "StartLiveTail", &logs.StartLiveTailInput{LogGroupIdentifiers: []string{"g"}}, func(any) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	<-ended
}

// The empty message and one with a header and payload, as the format's
// specification gives them.
func TestMessageVectors(t *testing.T) {
	for frame, want := range map[string]*wire.Message{
		"000000100000000005c248eb7d98c8ff": {Payload: []byte{}},
		"0000003d0000002007fd83960c636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e7b27666f6f273a27626172277d8d9c08b1": {
			Headers: []wire.MessageHeader{{"content-type", "application/json"}}, Payload: []byte(`{'foo':'bar'}`)},
	} {
		b, err := hex.DecodeString(frame)
		if err != nil {
			t.Fatal(err)
		}
		if got := want.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("wrote %x, want %s", got, frame)
		}
		got, err := wire.ReadMessage(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		for i := range b {
			torn := bytes.Clone(b)
			torn[i] ^= 0x10
			if _, err := wire.ReadMessage(bytes.NewReader(torn)); err == nil {
				t.Errorf("a change at %d is not seen", i)
			}
			if _, err := wire.ReadMessage(bytes.NewReader(b[:i])); err == nil || i > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut at %d: %v", i, err)
			}
		}
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add((&wire.Message{Headers: []wire.MessageHeader{{":message-type", "event"}}, Payload: []byte("{}")}).Append(nil))
	f.Add([]byte(strings.Repeat("\x00", 16)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.ReadMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := wire.ReadMessage(bytes.NewReader(m.Append(nil)))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, again); d != "" {
			t.Fatal(d)
		}
	})
}

// deaf is a client that has gone.
type deaf struct{ http.ResponseWriter }

func (deaf) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A stream whose client goes before the first event is run and ends, too.
func TestStreamOfNobodyEnds(t *testing.T) {
	svc := logs.NewService(nil)
	call := &wire.Call{Service: svc, Operation: svc.Operations["StartLiveTail"], Protocol: svc.Protocol}
	ended := false
	out := &logs.StartLiveTailOutput{ResponseStream: func(yield func(*logs.StartLiveTailResponseStream, error) bool) {
		defer func() { ended = true }()
		if yield(session("a"), nil) {
			t.Error("an event is taken")
		}
	}}
	if err := call.EncodeResponse(deaf{httptest.NewRecorder()}, "id", out); !errors.Is(err, io.ErrClosedPipe) || !ended {
		t.Errorf("%v, ended %v", err, ended)
	}
}
