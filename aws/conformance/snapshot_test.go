package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/ssm"
	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
)

var update = flag.Bool("update", false, "rewrite testdata/newer.txt")

// newer collects what the SDK has and our models do not have yet. It is
// checked against a file, so that a member lost by a codec is not taken for
// one of them.
type newer map[string]bool

func (n newer) add(format string, args ...any) { n[fmt.Sprintf(format, args...)] = true }

var modules = []struct {
	module string
	svc    *wire.Service
	// responses and errors are the least number of snapshots of each kind, so
	// that a moved folder does not pass for success.
	requests, responses int
}{
	{"ecs", ecs.NewService(nil), 77, 100},
	{"ecr", ecr.NewService(nil), 58, 90},
	{"iam", iam.NewService(nil), 170, 0},
	{"sts", sts.NewService(nil), 11, 0},
	{"ssm", ssm.NewService(nil), 150, 150},
	{"ec2", ec2.NewService(nil), 750, 0},
	{"cloudwatchlogs", logs.NewService(nil), 110, 110},
}

// TestSnapshots decodes every recorded request and encodes what came of it
// again, and the same with the recorded responses and errors: nothing that the
// model has may be lost or changed.
func TestSnapshots(t *testing.T) {
	seen := newer{}
	for _, m := range modules {
		t.Run(m.module, func(t *testing.T) {
			dir := moduleDir(t, "github.com/aws/aws-sdk-go-v2/service/"+m.module)
			requests := read(t, dir, "request_snapshot", ".request.snap")
			if len(requests) < m.requests {
				t.Fatalf("%d request snapshots in %s, want %d", len(requests), dir, m.requests)
			}
			for _, s := range requests {
				t.Run(s.name, func(t *testing.T) { checkRequest(t, m.svc, s, seen) })
			}
			responses := slices.Concat(read(t, dir, "response_snapshot", ".response.snap"), read(t, dir, "response_snapshot", ".error.snap"))
			if len(responses) < m.responses {
				t.Fatalf("%d response snapshots in %s, want %d", len(responses), dir, m.responses)
			}
			for _, s := range responses {
				t.Run(s.name, func(t *testing.T) { checkResponse(t, m.svc, s, seen) })
			}
		})
	}
	checkNewer(t, seen)
}

func checkNewer(t *testing.T, seen newer) {
	const file = "testdata/newer.txt"
	got := strings.Join(slices.Sorted(maps.Keys(seen)), "\n") + "\n"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("what the SDK has and the models do not have (-file +now), -update rewrites it:\n%s", d)
	}
}

// moduleDir finds a module's files, fetching them if need be.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	var m struct{ Dir, Error string }
	if json.Unmarshal(out, &m) != nil || m.Dir == "" {
		t.Fatalf("go mod download %s: %v %s", module, err, m.Error)
	}
	return m.Dir
}

type snapshot struct {
	name   string // operation or error
	status int    // responses
	header http.Header
	body   []byte
}

func read(t *testing.T, dir, folder, suffix string) []snapshot {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, folder, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	var out []snapshot
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s := snapshot{name: strings.TrimSuffix(filepath.Base(f), suffix), header: http.Header{}}
		r := bufio.NewReader(bytes.NewReader(data))
		first, _ := r.ReadString('\n')
		s.status, _ = strconv.Atoi(strings.TrimSpace(first))
		for {
			line, err := r.ReadString('\n')
			name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
			if ok {
				s.header.Set(name, value)
			} else if len(s.header) > 0 || err != nil {
				break // the blank line after the headers
			}
		}
		s.body, _ = io.ReadAll(r)
		out = append(out, s)
	}
	return out
}

func checkRequest(t *testing.T, svc *wire.Service, s snapshot, seen newer) {
	call, err := route(svc, s.header, s.body)
	if err != nil {
		switch wire.Code(err) {
		case "UnknownOperationException", "InvalidAction":
			seen.add("%s %s", svc.Name, s.name)
		case "UnsupportedOperation": // one of EC2's that are known by name only
		default:
			t.Fatal(err)
		}
		return
	}
	in, err := call.Decode()
	if err != nil {
		t.Fatal(err)
	}
	again := encode(t, svc, call.Operation, in)
	if svc.Protocol == wire.JSON11 {
		want, got := parse(t, s.body), parse(t, again)
		prune(want, call.Operation.Input(), svc.Name+" "+call.Operation.Input().Name, seen)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-sent +decoded)\n%s", d)
		}
		return
	}
	want, got := form(t, s.body), form(t, again)
	for name := range want {
		if _, ok := got[name]; !ok {
			seen.add("%s %s %s", svc.Name, s.name, name)
			delete(want, name)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-sent +decoded)\n%s", d)
	}
}

func route(svc *wire.Service, header http.Header, body []byte) (*wire.Call, error) {
	req := httptest.NewRequest("POST", "/", bytes.NewReader(body))
	maps.Copy(req.Header, header)
	return wire.NewRouter(svc).Route(req, body)
}

func checkResponse(t *testing.T, svc *wire.Service, s snapshot, seen newer) {
	target := s.header.Get("X-Amz-Target")
	_, operation, _ := strings.Cut(target, ".")
	o := svc.Operations[operation]
	if o == nil && s.status/100 != 2 {
		// An error is the same from every operation.
		operation = slices.Sorted(maps.Keys(svc.Operations))[0]
		target = svc.TargetPrefix + "." + operation
		o = svc.Operations[operation]
	}
	if o == nil {
		seen.add("%s %s", svc.Name, operation)
		return
	}
	call, err := route(svc, http.Header{"X-Amz-Target": {target}, "Content-Type": {"application/x-amz-json-1.1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := o.NewOutput()
	callErr := receive(t, svc, o, s, out)
	w := httptest.NewRecorder()
	var sc *wire.Schema
	if s.status/100 == 2 {
		if callErr != nil {
			t.Fatal(callErr)
		}
		sc = o.Output()
		if err := call.EncodeResponse(w, "id", out); err != nil {
			t.Fatal(err)
		}
	} else {
		e, ok := errors.AsType[wire.Error](callErr)
		if !ok || e.ErrorCode() != s.name {
			t.Fatalf("got error %v, want %s", callErr, s.name)
		}
		if _, ok := e.(*wire.APIError); ok {
			seen.add("%s error %s", svc.Name, s.name)
			return
		}
		sc = svc.Schemas.Lookup(s.name)
		if err := call.EncodeError(w, "id", callErr); err != nil {
			t.Fatal(err)
		}
	}
	if w.Code != s.status {
		t.Errorf("status %d, want %d", w.Code, s.status)
	}
	if got := w.Header().Get("Content-Type"); got != s.header.Get("Content-Type") {
		t.Errorf("content type %q, want %q", got, s.header.Get("Content-Type"))
	}
	if w.Header().Get("X-Amzn-Requestid") != "id" {
		t.Error("no request id")
	}
	if o.NoOutput && s.status == 200 {
		if w.Body.Len() > 0 {
			t.Errorf("got a body: %s", w.Body)
		}
		return
	}
	want, got := parse(t, s.body), parse(t, w.Body.Bytes())
	prune(want, sc, svc.Name+" "+sc.Name, seen)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-recorded +encoded)\n%s", d)
	}
}

// receive lets our client read the recorded response.
func receive(t *testing.T, svc *wire.Service, o *wire.Operation, s snapshot, out any) error {
	client := wire.Client{Endpoint: "http://berth.test", HTTP: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: s.status, Header: s.header, Body: io.NopCloser(bytes.NewReader(s.body))}, nil
	})}}
	return client.Call(t.Context(), svc, o.Name, o.New(), out)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// encode is what our client sends for in.
func encode(t *testing.T, svc *wire.Service, o *wire.Operation, in any) []byte {
	t.Helper()
	var sent []byte
	client := wire.Client{Endpoint: "http://berth.test", HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		sent, _ = io.ReadAll(r.Body)
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
	})}}
	if err := client.Call(t.Context(), svc, o.Name, in, nil); err != nil {
		t.Fatal(err)
	}
	return sent
}

func parse(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return v
}

func form(t *testing.T, data []byte) url.Values {
	t.Helper()
	v, err := url.ParseQuery(string(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// prune takes from v what the schema does not have, and reports it.
func prune(v any, sc *wire.Schema, path string, seen newer) {
	switch sc.Kind {
	case wire.Struct:
		object, _ := v.(map[string]any)
		for name := range object {
			i := slices.IndexFunc(sc.Members, func(m wire.Member) bool { return m.Name == name })
			switch {
			case i >= 0:
				prune(object[name], sc.Members[i].Schema, path+"."+name, seen)
			case name != "__type" && name != "message":
				seen.add("%s.%s", path, name)
				delete(object, name)
			}
		}
	case wire.List:
		list, _ := v.([]any)
		for _, e := range list {
			prune(e, sc.Elem.Schema, path+"[]", seen)
		}
	case wire.Map:
		object, _ := v.(map[string]any)
		for _, e := range object {
			prune(e, sc.Elem.Schema, path+"{}", seen)
		}
	}
}
