package logs

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// idle is a stream that nobody sends.
func idle(t *testing.T) *stream {
	s := &stream{limit: 1 << 20, sending: true, changed: make(chan struct{}), wake: make(chan struct{}, 1), report: func(string, ...any) {}}
	s.ctx, s.cancel = context.WithCancel(t.Context())
	return s
}

func texts(events []event) (out []string) {
	for _, e := range events {
		out = append(out, e.text)
	}
	return out
}

// Lines whose time has come while their event waits for room in a blocking
// log are that one event, not two.
func TestPendingIsQueuedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idle(t)
		s.blocking, s.limit, s.starts = true, 1, regexp.MustCompile(`^\[`)
		s.mu.Lock()
		s.enqueue(time.Now(), []byte("first"))
		s.pending[stdout] = pending{at: time.Now(), last: time.Now(), text: []byte("[second")}
		s.mu.Unlock()
		go s.line(stdout, []byte("[third"))
		synctest.Wait() // the line's goroutine waits for room
		later := time.Now().Add(time.Hour)
		s.mu.Lock()
		s.release(later)
		got := texts(s.queue)
		s.queue, s.bytes = nil, 0
		s.broadcast()
		s.mu.Unlock()
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.release(later)
		got = append(got, texts(s.queue)...)
		if want := []string{"first", "[second", "[third"}; !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
}

// What is not text grows when it is made text. It must not make the service
// refuse the batch that it is in.
func TestEventsFitWhateverIsWritten(t *testing.T) {
	for name, line := range map[string]string{
		"binary": strings.Repeat("a\xff", maxEventBytes/2),
		"text":   strings.Repeat("\u00e9", maxEventBytes/2-1) + "xx\u00e9",
		"cut":    strings.Repeat("\u20ac", maxEventBytes/3+1)[:maxEventBytes],
	} {
		s := idle(t)
		s.line(stdout, []byte(line))
		if got, want := strings.Join(texts(s.queue), ""), strings.ToValidUTF8(line, "\uFFFD"); got != want {
			t.Errorf("%s: %d bytes became %d", name, len(want), len(got))
		}
		for _, e := range s.queue {
			if len(e.text) > maxEventBytes || !utf8.ValidString(e.text) {
				t.Errorf("%s: an event of %d bytes", name, len(e.text))
			}
		}
	}
}

// A container that goes on losing lines does not fill the agent's own log.
func TestLossesAreToldNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idle(t)
		s.limit = 100
		var told []any
		s.report = func(msg string, args ...any) { told = append(told, args[1]) }
		lose := func(n int) {
			for range n {
				s.line(stdout, []byte(strings.Repeat("x", 50)))
			}
			s.mu.Lock()
			s.tell(false)
			s.mu.Unlock()
		}
		lose(11) // one fits
		lose(10)
		lose(10)
		time.Sleep(tellEvery)
		lose(1)
		lose(3)
		s.mu.Lock()
		s.tell(true)
		s.mu.Unlock()
		if want := []any{10, 21, 3}; !slices.Equal(told, want) {
			t.Errorf("told %v", told)
		}
	})
}

func TestExpiredCredentialsLoseNothing(t *testing.T) {
	s, m := newService(t)
	l, err := open(t, m, "awslogs", map[string]string{"awslogs-group": "g", "awslogs-stream-prefix": "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	expired := true
	s.fail = func(string) (int, string, string) {
		if expired {
			expired = false
			return 400, "ExpiredTokenException", "The security token included in the request is expired"
		}
		return 0, "", ""
	}
	l.Copy(output("a\n", ""))
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.events, []string{"a"}) {
		t.Errorf("got %v", s.events)
	}
}

// No format of a user's makes an expression that does not compile, and no
// size one that is not positive.
func FuzzOptions(f *testing.F) {
	f.Add("[%Y-%m-%d %H:%M:%S%L]", "25m")
	f.Add("%", "k")
	f.Add("%%(", "-1")
	f.Fuzz(func(t *testing.T, format, size string) {
		if _, err := regexp.Compile(datetimePattern(format)); err != nil && utf8.ValidString(format) {
			t.Errorf("%q: %v", format, err)
		}
		if n, err := parseSize(size); err == nil && n <= 0 {
			t.Errorf("%q is %d", size, n)
		}
	})
}
