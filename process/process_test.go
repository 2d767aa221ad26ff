package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain: this test binary is also the children of its tests.
func TestMain(m *testing.M) {
	switch os.Getenv("PROCESS_TEST") {
	case "serve": // until asked to end
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		if err := Notify(); err != nil {
			fmt.Println("notify:", err)
		}
		fmt.Println("serving")
		<-c
		fmt.Println("asked to end")
		return
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("serving", Notify())
		time.Sleep(time.Hour) // select{} alone would be a deadlock to the runtime
	}
	goleak.VerifyTestMain(m)
}

func spec(t *testing.T, kind string, ready func()) Spec {
	dir := t.TempDir()
	return Spec{
		Name: "child", Path: "/proc/self/exe", Env: []string{"PROCESS_TEST=" + kind}, RunDir: filepath.Join(dir, "run"), LogDir: filepath.Join(dir, "log"),
		Grace: 200_000_000, Ready: ready,
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A child that is killed is started again; one that was asked to end is not,
// and one that does not listen is killed.
func TestKeep(t *testing.T) {
	for kind, last := range map[string]string{"serve": "asked to end", "stubborn": "serving <nil>"} {
		t.Run(kind, func(t *testing.T) {
			ready := make(chan struct{})
			s := spec(t, kind, func() { ready <- struct{}{} })
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- Keep(ctx, s, slog.New(slog.DiscardHandler)) }()
			<-ready
			first, ok := Find(s.RunDir, s.Name)
			if !ok || first.RSS == 0 || first.Restarts != 0 {
				t.Fatalf("the child is %+v", first)
			}
			if err := Kill(first.PID, 10_000_000_000); err != nil {
				t.Fatal(err)
			}
			<-ready
			second, ok := Find(s.RunDir, s.Name)
			if !ok || second.PID == first.PID || second.Restarts != 1 {
				t.Errorf("after a kill the child is %+v", second)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if _, ok := Find(s.RunDir, s.Name); ok {
				t.Error("the child still runs")
			}
			if log := read(t, filepath.Join(s.LogDir, "child.log")); !strings.HasSuffix(log, last+"\n") {
				t.Errorf("log %q", log)
			}
		})
	}
}

// A supervisor that was killed leaves its child; the next one replaces it.
func TestReplace(t *testing.T) {
	s := spec(t, "serve", nil)
	c := exec.Command(s.Path)
	c.Env = append(os.Environ(), s.Env...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := writePID(s.RunDir, s.Name, c.Process.Pid, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("serving\n"))); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	if err := Replace(s.RunDir, s.Name, 10_000_000_000); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it was not asked but killed: %v", err)
	}
}

// A pid that another process got since is not ours to end.
func TestReplaceKnowsItsChild(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(pidFile(dir, "child"), fmt.Appendf(nil, "%d 1 0\n", os.Getpid()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Replace(dir, "child", 1); err != nil {
		t.Error(err) // and we are still here
	}
}

// A child whose supervisor died before it was ready may have no pid file: it
// must not stay beside the one that the next supervisor starts.
func TestNotifyOfADeadSupervisorEnds(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	var out bytes.Buffer
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "PROCESS_TEST=serve", ReadyVariable+"=3")
	c.ExtraFiles = []*os.File{w}
	c.Stdout = &out
	err = c.Run() // for ever, if it does not end by itself
	w.Close()
	if err != nil || !strings.HasSuffix(out.String(), "asked to end\n") {
		t.Errorf("%v: %s", err, &out)
	}
}

func TestCutLog(t *testing.T) {
	out, err := openLog(filepath.Join(t.TempDir(), "a", "child.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for i := range 5 {
		if _, err := out.WriteString(strings.Repeat(strconv.Itoa(i), 6)); err != nil {
			t.Fatal(err)
		}
		if err := cutLog(out, 10); err != nil {
			t.Fatal(err)
		}
	}
	if now, old := read(t, out.Name()), read(t, out.Name()+".1"); now != "444444" || old != "222222333333" {
		t.Errorf("log %q, set aside %q", now, old)
	}
	left, err := os.ReadDir(filepath.Dir(out.Name()))
	if err != nil || len(left) != 2 {
		t.Errorf("files %v, %v", left, err)
	}
}
