package fake_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/agent/runtime/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLife(t *testing.T) {
	r := fake.New()
	r.AddImage("repo/app:1", runtime.Image{Digest: "sha256:1"})
	r.OnStart = func(ctx context.Context, p *fake.Process) int {
		fmt.Fprintln(p.Stdout, "up", p.ID)
		select {
		case s := <-p.Signals:
			return 128 + int(s)
		case <-ctx.Done():
			return 137
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	events := r.Events(ctx)
	defer func() {
		cancel()
		r.Close()
		for range events {
		}
	}()
	d, err := r.Resolve(ctx, runtime.Source{Reference: "repo/app:1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(ctx, runtime.Source{Reference: "repo/app:2"}); !errors.Is(err, runtime.ErrNotFound) {
		t.Error(err)
	}
	if err := r.Create(ctx, runtime.Spec{ID: "c", Image: d.Digest}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("create before pull: %v", err)
	}
	if _, err := r.Pull(ctx, runtime.Source{Reference: "repo/app:1"}, d.Digest, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.Create(ctx, runtime.Spec{ID: "c", Image: d.Digest}); err != nil {
		t.Fatal(err)
	}
	if err := r.Create(ctx, runtime.Spec{ID: "c", Image: d.Digest}); !errors.Is(err, runtime.ErrExists) {
		t.Error(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} { // the second time in place
		if _, err := r.Start(ctx, "c"); err != nil {
			t.Fatal(err)
		}
		out, err := r.Output(ctx, "c")
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out.Stdout).ReadString('\n'); line != "up c\n" {
			t.Errorf("%q %v", line, err)
		}
		if err := r.Kill(ctx, "c", sig); err != nil {
			t.Fatal(err)
		}
		if e := <-events; e.ID != "c" || e.ExitCode != 128+int(sig) {
			t.Errorf("%+v", e)
		}
		if _, err := io.ReadAll(out.Stdout); err != nil {
			t.Error(err)
		}
	}
	late := r.Events(ctx)
	if e := <-late; e.ExitCode != 137 {
		t.Errorf("a late stream: %+v", e)
	}
	if err := r.Delete(ctx, "c"); err != nil {
		t.Error(err)
	}
	if list, _ := r.List(ctx, nil); len(list) != 0 {
		t.Error(list)
	}
	cancel()
	for range late {
	}
}
