package containerd_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth/agent/runtime"
)

// TestDaemonKilledDuringCreate: whenever the daemon is killed, what is being
// created comes to run, once, and nothing else is left of it.
func TestDaemonKilledDuringCreate(t *testing.T) {
	rounds := 12
	if s := os.Getenv("BERTH_TEST_KILLS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rounds)*30*time.Second)
	defer cancel()
	events, stop := context.WithCancel(t.Context())
	exits := make(chan struct{})
	var mu sync.Mutex
	var seen []runtime.Event
	go func() {
		defer close(exits)
		for e := range lab.r.Events(events) {
			mu.Lock()
			seen = append(seen, e)
			mu.Unlock()
		}
	}()
	for round := range rounds {
		g := group(t, runtime.Group{})
		shared := round%2 == 0
		var ids []string
		var wg sync.WaitGroup
		for i := range 3 {
			id := fmt.Sprintf("killed%d-%d", round, i)
			ids = append(ids, id)
			in := g
			if !shared {
				in = ""
			}
			wg.Go(func() {
				if err := lab.r.Create(ctx, runtime.Spec{ID: id, Group: in, Image: lab.digest, Command: []string{"wait"}}); err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
				if _, err := lab.r.Start(ctx, id); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		// The moment is the test's input.
		time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond)
		lab.killDaemon()
		if err := lab.startDaemon(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		list, err := lab.r.List(ctx, nil)
		for errors.Is(err, runtime.ErrUnavailable) && ctx.Err() == nil { // all was done before the kill
			list, err = lab.r.List(ctx, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		pids := map[string]int{}
		for _, c := range list {
			pids[c.ID] = c.Pid
			if c.Status != runtime.StatusRunning || c.StartedAt.IsZero() {
				t.Errorf("round %d: %+v", round, c)
			}
		}
		if len(list) != len(ids) {
			t.Errorf("round %d: %d containers, want %d", round, len(list), len(ids))
		}
		// Each has its process and no other.
		for _, id := range ids {
			at := lab.cg + "/" + id
			if shared {
				at = lab.cg + "/" + g + "/" + id
			}
			for _, d := range cgroupDirs(at) {
				b, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
				if got := strings.Fields(string(b)); err != nil || len(got) != 1 || got[0] != strconv.Itoa(pids[id]) {
					t.Errorf("round %d: processes of %s in %s: %q, want %d (%v)", round, id, d, got, pids[id], err)
				}
			}
		}
		want := len(ids)
		if shared {
			want = 1
		}
		if n := len(shims(lab.run)); n != want {
			t.Errorf("round %d: %d shims, want %d", round, n, want)
		}
		mu.Lock()
		for _, e := range seen {
			t.Errorf("round %d: an exit of what runs: %+v", round, e)
		}
		mu.Unlock()
		for _, id := range ids {
			if err := lab.r.Delete(ctx, id); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		mu.Lock()
		seen = nil
		mu.Unlock()
		for _, pattern := range []string{
			filepath.Join(lab.dirs.State(), "io.containerd.runtime.v2.task", "*", "*"),
			filepath.Join(lab.run, "a", "oci", "*", "*"), filepath.Join(lab.run, "a", "c", "*"),
		} {
			if left, _ := filepath.Glob(pattern); len(left) > 0 {
				t.Errorf("round %d: left behind: %v", round, left)
			}
		}
		if t.Failed() {
			break
		}
	}
	stop()
	<-exits
}

// TestBundleOfAnEarlierDaemon: a bundle that no task is in is no obstacle.
func TestBundleOfAnEarlierDaemon(t *testing.T) {
	id := "bundle-in-the-way"
	bundle := filepath.Join(lab.dirs.State(), "io.containerd.runtime.v2.task", "berth-"+lab.id, id)
	// With what an OCI runtime makes in it that has lost its mount.
	if err := os.MkdirAll(filepath.Join(bundle, "rootfs", "proc"), 0o711); err != nil {
		t.Fatal(err)
	}
	b := create(t, runtime.Spec{ID: id, Command: []string{"wait"}})
	b.start()
	if c := b.listed(); c.Status != runtime.StatusRunning {
		t.Errorf("%+v", c)
	}
}

// TestBundleHalfRemoved: a bundle that an earlier daemon was killed in the
// middle of removing does not keep later ones from being removed.
func TestBundleHalfRemoved(t *testing.T) {
	id := "bundle-half-removed"
	bundle := filepath.Join(lab.dirs.State(), "io.containerd.runtime.v2.task", "berth-"+lab.id, id)
	hidden := filepath.Join(filepath.Dir(bundle), "."+id)
	b := create(t, runtime.Spec{ID: id, Command: []string{"wait"}})
	b.start()
	if err := os.MkdirAll(filepath.Join(hidden, "left"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := lab.r.Delete(testContext(t), id); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{bundle, hidden} {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind: %v", dir, err)
		}
	}
}

// TestCleanUpComesLate: the daemon cleans up after a shim that it has lost when
// the container has been made anew.
func TestCleanUpComesLate(t *testing.T) {
	b := create(t, runtime.Spec{Command: []string{"wait"}})
	b.start()
	b.line()
	before := b.listed()
	bundle := filepath.Join(lab.dirs.State(), "io.containerd.runtime.v2.task", "berth-"+lab.id, b.id)
	late := func() ([]byte, error) {
		cmd := exec.Command(lab.dirs.Shim(), "-namespace", "berth-"+lab.id, "-address", lab.dirs.Socket(), "-id", b.id, "-bundle", bundle, "delete")
		cmd.Dir = bundle
		return cmd.CombinedOutput()
	}
	if out, err := late(); err == nil {
		t.Errorf("cleaned up after a container that runs: %q", out)
	}
	if after := b.listed(); after.Status != runtime.StatusRunning || after.Pid != before.Pid {
		t.Errorf("%+v, want it to run as %d", after, before.Pid)
	}
	// One whose shim has just been started is as little to be touched.
	note := filepath.Join(bundle, "bootstrap.json")
	if err := os.Rename(note, note+".away"); err != nil {
		t.Fatal(err)
	}
	if out, err := late(); err == nil {
		t.Errorf("cleaned up after a container that is being made: %q", out)
	}
	if err := os.Rename(note+".away", note); err != nil {
		t.Fatal(err)
	}
	if after := b.listed(); after.Status != runtime.StatusRunning || after.Pid != before.Pid {
		t.Errorf("%+v, want it to run as %d", after, before.Pid)
	}
}

// TestCreateEndsWithItsContext: a daemon that does not come back is not waited
// for beyond it.
func TestCreateEndsWithItsContext(t *testing.T) {
	lab.killDaemon()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- lab.r.Create(ctx, runtime.Spec{ID: "never", Image: lab.digest}) }()
	cancel()
	err := <-result
	if err == nil {
		t.Error("created without a daemon")
	}
	if err := lab.startDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := lab.r.Kill(testContext(t), "never", syscall.SIGKILL); !errors.Is(err, runtime.ErrNotFound) {
		t.Error(err)
	}
	if err := lab.r.Delete(testContext(t), "never"); err != nil {
		t.Error(err)
	}
}
