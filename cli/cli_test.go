package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run runs a command line and returns what it printed.
func run(t *testing.T, roles Roles, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(t.Context(), append([]string{"berth"}, args...), strings.NewReader(""), &out, &errs, roles)
	return code, out.String(), errs.String()
}

var here = Environment{Endpoint: "http://127.0.0.1:4566", Region: "eu-west-1", Account: "000000000000", AccessKeyID: "AKIA1", SecretAccessKey: "a'b$c d"}

func environment(context.Context, string) (Environment, error) { return here, nil }

func TestEnvIsForTheShell(t *testing.T) {
	code, out, _ := run(t, Roles{Environment: environment}, "env")
	if code != 0 {
		t.Fatalf("exit status %d", code)
	}
	sh := exec.CommandContext(t.Context(), "sh", "-c", out+`printf '%s|' "$AWS_ENDPOINT_URL" "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" "$AWS_REGION" "$AWS_DEFAULT_REGION"; env | grep -c ^AWS_SECRET`)
	sh.Env = []string{"PATH=" + os.Getenv("PATH")}
	got, err := sh.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	if want := "http://127.0.0.1:4566|AKIA1|a'b$c d|eu-west-1|eu-west-1|1\n"; string(got) != want {
		t.Errorf("the shell has %q, want %q", got, want)
	}
}

func TestUp(t *testing.T) {
	t.Setenv("BERTH_DATA_DIR", "/tmp/elsewhere")
	var got UpOptions
	roles := Roles{Environment: environment, Up: func(_ context.Context, o UpOptions) error {
		got = o
		o.Progress("starting")
		return nil
	}}
	code, out, errs := run(t, roles, "up", "--detach", "--listen", ":4599")
	if code != 0 || out != "" {
		t.Fatalf("exit status %d, stdout %q", code, out)
	}
	if got.DataDir != "/tmp/elsewhere" || got.Listen != ":4599" || got.Region != "" || got.Account != "" || !got.Detach || got.HealthyAfter != DefaultHealthyAfter {
		t.Errorf("options %+v", got)
	}
	for _, want := range []string{"starting\n", "Region eu-west-1 is up at http://127.0.0.1:4566", `eval "$(berth env)"`, "berth down"} {
		if !strings.Contains(errs, want) {
			t.Errorf("%q is not in\n%s", want, errs)
		}
	}
	if strings.Contains(errs, "\x1b") {
		t.Error("colours without a terminal")
	}
	if _, _, errs = run(t, roles, "up", "--detach", "--data-dir", "/tmp/a b"); !strings.Contains(errs, "berth env --data-dir '/tmp/a b'") {
		t.Errorf("the next line does not reach the region:\n%s", errs)
	}
}

func TestErrors(t *testing.T) {
	taken := &net.OpError{Op: "listen", Err: errors.New("address already in use")}
	roles := Roles{
		Up:          func(context.Context, UpOptions) error { return taken },
		Down:        func(context.Context, string, bool, func(string)) error { return ErrNotRunning },
		Environment: func(context.Context, string) (Environment, error) { return Environment{}, ErrNotRunning },
		Status: func(context.Context, string) (Status, error) {
			return Status{}, WithHint(errors.New("odd"), "do this\nand that")
		},
	}
	for _, tt := range []struct {
		args string
		code int
		want []string
	}{
		{"env", 1, []string{"no region is running", "up --detach starts one"}},
		{"down", 0, []string{"No region is running"}},
		{"status", 1, []string{"berth: odd", "  do this\n  and that"}},
		{"up", 1, []string{"address already in use", "--listen 127.0.0.1:4567"}},
		{"up --listen nowhere", 2, []string{"--listen", "--help"}},
		{"up --region Mars", 2, []string{"--region", "us-east-1, us-east-2"}},
		{"up --region xx-nowhere-9", 2, []string{`AWS has no region "xx-nowhere-9"`, "eu-west-1"}},
		{"up --region us-gov-west-1", 2, []string{"another partition"}},
		{"up --throttle fast", 2, []string{"--throttle", "aws, off, or a factor"}},
		{"account create --id 12", 2, []string{"--id", "12 digits"}},
		{"account delete", 2, []string{"give one account id"}},
		{"account delete 1234", 2, []string{"12 digits"}},
		{"quota set ecs/clusters many", 2, []string{"whole number"}},
		{"quota set ecs/clusters", 2, []string{"a quota and its value"}},
		{"up --account 12", 2, []string{"12 digits"}},
		{"up --healthy-after -1s", 2, []string{"--healthy-after"}},
		{"up --wrong", 2, []string{"unknown flag"}},
		{"up there", 2, []string{"unknown command"}},
		{"logs nothing", 2, []string{"invalid argument"}},
		{"coverage s3", 2, []string{"no service"}},
		{"fly", 2, []string{"unknown command"}},
		{"server", 1, []string{"this build has no server"}},
	} {
		code, _, errs := run(t, roles, strings.Fields(tt.args)...)
		if code != tt.code {
			t.Errorf("berth %s: exit status %d, want %d\n%s", tt.args, code, tt.code, errs)
		}
		for _, want := range tt.want {
			if !strings.Contains(errs, want) {
				t.Errorf("berth %s: %q is not in\n%s", tt.args, want, errs)
			}
		}
	}
}

func TestEveryCommandIsDescribed(t *testing.T) {
	a := &app{self: "berth", out: newConsole(io.Discard), err: newConsole(io.Discard)}
	for _, c := range a.root().Commands() {
		if c.Short == "" {
			t.Errorf("berth %s has no description", c.Name())
		}
	}
	_, out, _ := run(t, Roles{}, "--help")
	for _, hidden := range []string{"server", "agent", "containerd"} {
		if strings.Contains(out, "\n  "+hidden+" ") {
			t.Errorf("the help shows %s", hidden)
		}
	}
}

func TestInterruptIsNoError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	code := Run(ctx, []string{"berth", "up"}, nil, io.Discard, io.Discard, Roles{Up: func(ctx context.Context, _ UpOptions) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}})
	if code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func TestProcesses(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: newConsole(&out)}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	a.processes([]Process{{Name: "server", PID: 42, RSS: 50 << 20, Started: now.Add(-90 * time.Second)}, {Name: "agent", Restarts: 3}}, now)
	want := `PROCESS  PID  MEMORY    UP FOR  RESTARTS
server   42   50.0 MiB  90 s    0
agent    -    -         -       3
              50.0 MiB          
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func writeLog(t *testing.T, dir, role, text string) {
	t.Helper()
	path := LogFile(dir, role)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestLogsAreInOrder(t *testing.T) {
	dir := t.TempDir()
	writeLog(t, dir, "server", "time=2026-01-01T00:00:01.000Z msg=a\n  more of a\ntime=2026-01-01T00:00:03.000Z msg=c\n")
	writeLog(t, dir, "node", "time=2026-01-01T00:00:02.000000Z msg=b\nnot finished")
	_, out, errs := run(t, Roles{}, "logs", "--data-dir", dir)
	want := "server    │ time=2026-01-01T00:00:01.000Z msg=a\nserver    │   more of a\nnode      │ time=2026-01-01T00:00:02.000000Z msg=b\nserver    │ time=2026-01-01T00:00:03.000Z msg=c\n"
	if out != want {
		t.Errorf("got\n%s%s\nwant\n%s", out, errs, want)
	}
	if _, out, _ = run(t, Roles{}, "logs", "--data-dir", dir, "-n", "1", "node"); out != "time=2026-01-01T00:00:02.000000Z msg=b\n" {
		t.Errorf("of one process: %q", out)
	}
	code, _, errs := run(t, Roles{}, "logs", "--data-dir", t.TempDir())
	if code != 1 || !strings.Contains(errs, "no region has logged") {
		t.Errorf("without logs: exit status %d, %s", code, errs)
	}
}

// lines hands over what is written to it, line by line.
type lines struct {
	ch   chan string
	part string
}

func (l *lines) Write(b []byte) (int, error) {
	l.part += string(b)
	for {
		line, rest, ok := strings.Cut(l.part, "\n")
		if !ok {
			return len(b), nil
		}
		l.part = rest
		l.ch <- line
	}
}

func TestLogsFollow(t *testing.T) {
	dir := t.TempDir()
	writeLog(t, dir, "server", "one\n")
	ctx, cancel := context.WithCancel(t.Context())
	out := &lines{ch: make(chan string, 16)}
	done := make(chan int)
	go func() {
		done <- Run(ctx, []string{"berth", "logs", "-f", "server", "--data-dir", dir}, nil, out, io.Discard, Roles{})
	}()
	expect := func(want string) {
		t.Helper()
		if got := <-out.ch; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	expect("one")
	writeLog(t, dir, "server", "two\nthr")
	expect("two")
	writeLog(t, dir, "server", "ee\n")
	expect("three")
	// The log is full and another takes its name.
	if err := os.Rename(LogFile(dir, "server"), LogFile(dir, "server")+".1"); err != nil {
		t.Fatal(err)
	}
	writeLog(t, dir, "server", "four\n")
	expect("four")
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func TestDoctorReadsVersions(t *testing.T) {
	for _, tt := range []struct {
		text  string
		known bool
		older bool
	}{
		{"nftables v1.0.6 (Lester Gooch #5)", true, false},
		{"nftables v0.9.8 (E.D.S.)", true, true},
		{"6.1.0-18-amd64", true, false},
		{"no number", false, false},
		{"99999999999999999999.1", true, false},
	} {
		v, known := leadingVersion(tt.text)
		if known != tt.known || known && older(v, minNft) != tt.older {
			t.Errorf("%q: %v %v", tt.text, v, known)
		}
	}
}

func TestDropsForward(t *testing.T) {
	docker := "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n"
	if !dropsForward(docker) {
		t.Error("Docker's policy was not seen")
	}
	if dropsForward(strings.Replace(docker, "drop", "accept", 1)) || dropsForward(strings.Replace(docker, "forward", "input", 1)) {
		t.Error("something else was taken for it")
	}
}

func TestDoctorAnswersForThisMachine(t *testing.T) {
	chosen := func(context.Context) (Runtime, error) { return Runtime{"crun", "it has tried"}, nil }
	_, out, errs := run(t, Roles{Environment: environment, Runtime: chosen}, "doctor", "--data-dir", t.TempDir())
	if os.Geteuid() == 0 && !strings.Contains(out, "containers are made by crun (it has tried)") {
		t.Errorf("the runtime is not mentioned:\n%s", out)
	}
	if n := strings.Count(out, "ok    ") + strings.Count(out, "warn  ") + strings.Count(out, "fail  "); n != 13 {
		t.Errorf("%d findings, want 13:\n%s%s", n, out, errs)
	}
	if !strings.Contains(out, "a region is running at http://127.0.0.1:4566") {
		t.Errorf("the running region is not mentioned:\n%s", out)
	}
}

func TestStatusSaysWhatMakesContainers(t *testing.T) {
	roles := Roles{
		Environment: func(context.Context, string) (Environment, error) { return Environment{}, ErrNotRunning },
		Status: func(context.Context, string) (Status, error) {
			return Status{Runtime: Runtime{"runc", "crun is not installed"}}, nil
		},
	}
	if _, out, _ := run(t, roles, "status"); !strings.Contains(out, "Containers are made by runc (crun is not installed).\n") {
		t.Errorf("%s", out)
	}
}

func TestCoverage(t *testing.T) {
	code, out, errs := run(t, Roles{}, "coverage")
	if code != 0 || !strings.Contains(out, "ecs") {
		t.Errorf("exit status %d\n%s%s", code, out, errs)
	}
	if _, out, _ = run(t, Roles{}, "coverage", "ecs"); !strings.Contains(out, "✓ RunTask\n") {
		t.Errorf("coverage of ecs:\n%s", out)
	}
	if _, out, _ = run(t, Roles{}, "coverage", "iam"); !strings.Contains(out, "- CreateDelegationRequest\n") {
		t.Errorf("coverage of iam:\n%s", out)
	}
	if _, out, _ = run(t, Roles{}, "coverage", "--json"); !strings.HasPrefix(out, "[") {
		t.Errorf("JSON:\n%s", out)
	}
}

func TestOldCLI(t *testing.T) {
	for version, old := range map[string]bool{"2.9.19": true, "2.12.7": true, "2.13.0": false, "2.31.1": false, "1.22.34": true, "1.29.0": false, "1.45.11": false, "x": false} {
		if tooOldCLI(version) != old {
			t.Errorf("%s: too old is not %v", version, old)
		}
	}
	for path, content := range map[string]string{
		"debian/lib/python3/dist-packages": "1.22.34", "pip/lib/python3.11/site-packages": "1.45.11",
	} {
		prefix := filepath.Join(t.TempDir(), filepath.Dir(filepath.Dir(filepath.Dir(path))))
		dir := filepath.Join(prefix, strings.TrimPrefix(path, filepath.Dir(filepath.Dir(filepath.Dir(path)))), "awscli")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "__init__.py"), []byte("x\n__version__ = '"+content+"'\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
		if v := installedVersion(filepath.Join(prefix, "bin", "aws")); v != content {
			t.Errorf("%s: version %q, want %s", path, v, content)
		}
	}
	if v := installedVersion("/nowhere/bin/aws"); v != "" {
		t.Errorf("version %q of nothing", v)
	}
	bin := t.TempDir()
	if err := os.WriteFile(bin+"/aws", []byte("#!/bin/sh\necho \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	sh := exec.CommandContext(t.Context(), "sh", "-c", endpointFunction+`; aws a 'b c'; AWS_ENDPOINT_URL=http://x; aws d`)
	sh.Env = []string{"PATH=" + bin}
	got, err := sh.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	if want := "a b c\n--endpoint-url http://x d\n"; string(got) != want {
		t.Errorf("the function ran %q, want %q", got, want)
	}
}

// A region that runs already is no failure, and is said not to be new.
func TestUpOfWhatRuns(t *testing.T) {
	roles := Roles{Environment: environment, Up: func(context.Context, UpOptions) error { return ErrRunning }}
	code, _, errs := run(t, roles, "up", "--detach", "--throttle", "aws")
	if os.Geteuid() == 0 && (code != 0 || !strings.Contains(errs, "already running at http://127.0.0.1:4566") || strings.Contains(errs, "is up at")) {
		t.Errorf("exit status %d:\n%s", code, errs)
	}
}

func TestAccountCommands(t *testing.T) {
	var asked []string
	answers := map[string]string{
		"POST /_berth/accounts":                   `{"id":"123456789012","accessKeyId":"AKIA1","secretAccessKey":"s/+"}`,
		"GET /_berth/accounts":                    `[{"id":"000000000000","createdAt":"2026-11-22T12:00:00Z","first":true,"holds":{"task":2,"vpc":1}}]`,
		"DELETE /_berth/accounts/123456789012":    "{\"tasks\":2}\n{\"interfaces\":1}\n{\"done\":true}\n",
		"DELETE /_berth/accounts/210987654321":    "{\"tasks\":2}\n", // and the server ends
		"GET /_berth/quotas?account=123456789012": `[{"name":"ecs/clusters","value":5,"default":10000,"set":"account"}]`,
		"PUT /_berth/quotas/ecs/clusters":         `{}`,
		"DELETE /_berth/quotas":                   `{}`,
	}
	roles := Roles{Owner: func(_ context.Context, _, method, path string, in any) (*http.Response, error) {
		asked = append(asked, method+" "+path)
		a, ok := answers[method+" "+path]
		if !ok {
			return &http.Response{StatusCode: 404, Status: "404 Not Found", Body: io.NopCloser(strings.NewReader(`{"message":"there is no such thing"}`))}, nil
		}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(a))}, nil
	}}
	for _, x := range []struct {
		line      string
		code      int
		out, errs string
	}{
		{"account create", 0, "AKIA1 s/+ 123456789012\n", ""},
		{"account list", 0, "000000000000  2026-11-22T12:00:00Z  0         2", ""},
		{"account delete 123456789012", 0, "", "Account 123456789012 is gone"},
		{"account delete 210987654321", 1, "", "the server went away"},
		{"account delete 111111111111", 1, "", "there is no such thing"},
		{"quota list --account 123456789012", 0, "ecs/clusters  5      10000   this account", ""},
		{"quota set ecs/clusters 7", 0, "", ""},
		{"quota set ecs/clusterz 7", 1, "", "there is no such thing"},
		{"quota reset", 0, "", ""},
	} {
		code, out, errs := run(t, roles, strings.Fields(x.line)...)
		if code != x.code || !strings.Contains(out, x.out) || !strings.Contains(errs, x.errs) {
			t.Errorf("%s: exit status %d\n%s%s", x.line, code, out, errs)
		}
	}
	if len(asked) != 9 {
		t.Errorf("asked %q", asked)
	}
}
