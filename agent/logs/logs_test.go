package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/agent/credentials"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/dispatch/acs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReadLines(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  []string
	}{
		{"", 8, nil},
		{"a\nb\n", 8, []string{"a", "b"}},
		{"a\r\n\nb", 8, []string{"a", "", "b"}},
		{"12345678\n", 8, []string{"12345678", ""}},
		{"123456789\nx\n", 8, []string{"12345678", "9", "x"}},
		{strings.Repeat("x", 5000) + "\ny\n", 4096, []string{strings.Repeat("x", 4096), strings.Repeat("x", 904), "y"}},
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(c.in), "by byte": iotest.OneByteReader(strings.NewReader(c.in))} {
			var got []string
			readLines(r, c.limit, func(b []byte) { got = append(got, string(b)) })
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%s of %.20q: %s", name, c.in, d)
			}
		}
	}
}

// Whatever the sizes of reads, and wherever lines are cut, no byte is lost.
func FuzzReadLines(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), 4)
	f.Fuzz(func(t *testing.T, in []byte, limit int) {
		if limit < 1 || limit > 1<<16 || bytes.ContainsRune(in, '\r') {
			return
		}
		var got []byte
		readLines(iotest.HalfReader(bytes.NewReader(in)), limit, func(b []byte) {
			if len(b) > limit {
				t.Fatalf("a line has %d bytes", len(b))
			}
			got = append(got, b...)
		})
		if want := bytes.ReplaceAll(in, []byte("\n"), nil); !bytes.Equal(got, want) {
			t.Fatalf("%q became %q", in, got)
		}
	})
}

// service is CloudWatch Logs as far as the driver sees it.
type service struct {
	mu      sync.Mutex
	calls   []string
	events  []string
	batches []int
	fail    func(op string) (status int, code, message string)
	got     chan struct{}
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if status, code, message := s.fail(op); code != "" {
			s.calls = append(s.calls, op+" "+code)
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"__type":%q,"message":%q}`, code, message)
			return
		}
	}
	var in struct {
		LogStreamName string
		LogEvents     []struct {
			Timestamp int64
			Message   string
		}
	}
	json.Unmarshal(body, &in)
	s.calls = append(s.calls, op+" "+in.LogStreamName)
	size, last := 0, int64(0)
	for _, e := range in.LogEvents {
		if e.Timestamp < last {
			w.WriteHeader(400)
			return
		}
		last = e.Timestamp
		size += len(e.Message) + eventOverhead
		s.events = append(s.events, e.Message)
	}
	if len(in.LogEvents) > maxBatchEvents || size > maxBatchBytes {
		w.WriteHeader(400)
		return
	}
	if op == "PutLogEvents" {
		s.batches = append(s.batches, len(in.LogEvents))
		select {
		case s.got <- struct{}{}:
		default:
		}
	}
	io.WriteString(w, "{}")
}

func newService(t *testing.T) (*service, *Manager) {
	s := &service{got: make(chan struct{}, 1)}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	c, err := api.New(srv.URL, "eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return s, &Manager{API: c, Credentials: &credentials.Store{}, Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Instance: func(context.Context) (sigv4.Signer, error) { return sigv4.Signer{AccessKeyID: "k", Secret: "s"}, nil }}
}

func open(t *testing.T, m *Manager, driver string, options map[string]string) (engine.Log, error) {
	task, err := engine.NewTask(acs.Task{Arn: "arn:aws:ecs:r:1:task/c/0a", Containers: []acs.Container{{Name: "web"}}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	task.Containers[0].HostConfig.LogConfig = acs.LogConfig{Type: driver, Config: options}
	return m.Open(t.Context(), task, task.Containers[0], false)
}

func output(stdout, stderr string) *runtime.Output {
	return &runtime.Output{Stdout: io.NopCloser(strings.NewReader(stdout)), Stderr: io.NopCloser(strings.NewReader(stderr))}
}

func TestAwslogs(t *testing.T) {
	s, m := newService(t)
	l, err := open(t, m, "awslogs", map[string]string{"awslogs-group": "g", "awslogs-stream-prefix": "p", "awslogs-region": "eu-west-1"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var in strings.Builder
	for i := range 25_000 {
		fmt.Fprintf(&in, "line %d\n", i)
	}
	l.Copy(output(in.String(), ""))
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[0] != "CreateLogStream p/web/0a" || s.calls[1] != "PutLogEvents p/web/0a" {
		t.Errorf("calls %v", s.calls[:2])
	}
	if len(s.events) != 25_000 || s.events[0] != "line 0" || s.events[24_999] != "line 24999" {
		t.Errorf("%d events arrived in batches of %v", len(s.events), s.batches)
	}
}

// Lines come without the container's end: somebody may be watching.
func TestAwslogsDoesNotWaitForTheEnd(t *testing.T) {
	s, m := newService(t)
	l, err := open(t, m, "awslogs", map[string]string{"awslogs-group": "g", "awslogs-stream-prefix": "p"})
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	l.Copy(&runtime.Output{Stdout: r, Stderr: io.NopCloser(strings.NewReader(""))})
	io.WriteString(w, "hello\n")
	<-s.got
	w.Close()
	l.Close()
	if !slices.Equal(s.events, []string{"hello"}) {
		t.Errorf("got %v", s.events)
	}
}

func TestAwslogsOutage(t *testing.T) {
	s, m := newService(t)
	l, err := open(t, m, "awslogs", map[string]string{"awslogs-group": "g", "awslogs-stream-prefix": "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	failures := 2
	s.fail = func(string) (int, string, string) {
		if failures--; failures >= 0 {
			return 503, "ServiceUnavailableException", "later"
		}
		return 0, "", ""
	}
	l.Copy(output("a\nb\n", "c\n"))
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(s.events)
	if !slices.Equal(s.events, []string{"a", "b", "c"}) {
		t.Errorf("got %v", s.events)
	}
}

func TestAwslogsStart(t *testing.T) {
	missing := func(op string) (int, string, string) {
		if op == "CreateLogStream" {
			return 400, "ResourceNotFoundException", "The specified log group does not exist."
		}
		return 0, "", ""
	}
	made := 0
	for _, c := range []struct {
		name    string
		options map[string]string
		fail    func(string) (int, string, string)
		want    string
		calls   string
	}{
		{"group is missing", map[string]string{"awslogs-group": "g", "awslogs-stream-prefix": "p"}, missing,
			"ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed to create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist. : exit status 1",
			"CreateLogStream ResourceNotFoundException"},
		{"group is made", map[string]string{"awslogs-group": "g", "awslogs-stream-prefix": "p", "awslogs-create-group": "true"}, func(op string) (int, string, string) {
			if made++; made == 1 {
				return missing(op)
			}
			return 0, "", ""
		}, "", "CreateLogStream ResourceNotFoundException,CreateLogGroup ,CreateLogStream p/web/0a"},
		{"stream is there", map[string]string{"awslogs-group": "g", "awslogs-stream-prefix": "p"}, func(string) (int, string, string) {
			return 400, "ResourceAlreadyExistsException", "The specified log stream already exists"
		}, "", "CreateLogStream ResourceAlreadyExistsException"},
		{"no group", nil, nil, "ResourceInitializationError: failed to validate logger args: must specify a value for log opt 'awslogs-group'", ""},
		{"other region", map[string]string{"awslogs-group": "g", "awslogs-region": "mars-1"}, nil,
			"ResourceInitializationError: failed to validate logger args: log opt 'awslogs-region': this is region eu-west-1, not mars-1", ""},
		{"size", map[string]string{"awslogs-group": "g", "max-buffer-size": "x"}, nil,
			`ResourceInitializationError: failed to validate logger args: log opt 'max-buffer-size': "x" is not a size`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, m := newService(t)
			s.fail = c.fail
			l, err := open(t, m, "awslogs", c.options)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				l.Close()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if calls := strings.Join(s.calls, ","); calls != c.calls {
				t.Errorf("calls %s", calls)
			}
		})
	}
}

func TestMultiline(t *testing.T) {
	for name, o := range map[string]map[string]string{
		"pattern": {"awslogs-multiline-pattern": `^\[`},
		"format":  {"awslogs-datetime-format": `[%Y-%m-%d`},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := newService(t)
			o["awslogs-group"] = "g"
			l, err := open(t, m, "awslogs", o)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			l.Copy(output("[2026-01-02 a\n at b\n at c\n[2026-01-02 d\n", ""))
			if err := l.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if want := []string{"[2026-01-02 a\n at b\n at c", "[2026-01-02 d"}; !slices.Equal(s.events, want) {
				t.Errorf("got %q", s.events)
			}
		})
	}
}

func TestNonBlockingDropsAndBlockingDoesNot(t *testing.T) {
	for mode, all := range map[string]bool{"non-blocking": false, "blocking": true} {
		t.Run(mode, func(t *testing.T) {
			s, m := newService(t)
			l, err := open(t, m, "awslogs", map[string]string{"awslogs-group": "g", "mode": mode, "max-buffer-size": "1k"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if all {
				l.(*stream).limit = 1 << 10
			}
			l.Copy(output(strings.Repeat(strings.Repeat("x", 99)+"\n", 100), ""))
			if err := l.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if (len(s.events) == 100) != all || len(s.events) == 0 {
				t.Errorf("%d of 100 lines arrived", len(s.events))
			}
		})
	}
}

func TestFile(t *testing.T) {
	_, m := newService(t)
	l, err := open(t, m, "json-file", map[string]string{"max-size": "1k", "max-file": "3"})
	if err != nil {
		t.Fatal(err)
	}
	l.Copy(output(strings.Repeat("0123456789\n", 100), ""))
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Close()
	files, _ := filepath.Glob(filepath.Join(m.Dir, "0a", "*.log*"))
	if len(files) != 3 {
		t.Fatalf("files: %v", files)
	}
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if len(b) > 1<<10 {
			t.Errorf("%s has %d bytes", f, len(b))
		}
		for line := range bytes.Lines(b) {
			var r record
			if err := json.Unmarshal(line, &r); err != nil || r.Log != "0123456789\n" || r.Stream != "stdout" {
				t.Errorf("%s: %s (%v)", f, line, err)
			}
		}
	}
	if err := m.Remove("0a"); err != nil {
		t.Error(err)
	}
	if files, _ := os.ReadDir(m.Dir); len(files) > 0 {
		t.Errorf("left: %v", files)
	}
	if _, err := open(t, m, "syslog", nil); err == nil || !strings.Contains(err.Error(), `log driver "syslog" is not supported`) {
		t.Errorf("syslog: %v", err)
	}
}
