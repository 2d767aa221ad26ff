package node

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestChooseRuntime: the real crun is tried with a real container, which leaves
// nothing behind, and one that does not work is not chosen.
func TestChooseRuntime(t *testing.T) {
	if _, err := exec.LookPath("crun"); err != nil {
		t.Fatal("crun is not installed: scripts/install.sh test")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/run", "bnr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cgroup := "/" + filepath.Base(dir)
	mounts := func() string {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		var ours []string
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, dir) || strings.Contains(line, "/sys/fs/cgroup") {
				ours = append(ours, line)
			}
		}
		return strings.Join(ours, "")
	}
	before := mounts()
	for range 2 { // the second finds what a first that was killed may have left
		if r := ChooseRuntime(t.Context(), dir, cgroup, self, true); r.Name != "crun" {
			t.Errorf("%+v", r)
		}
		if err := os.MkdirAll(filepath.Join(dir, "trial", "state", "berth-trial"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if after := mounts(); after != before {
		t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
	}
	for _, pattern := range []string{"/sys/fs/cgroup" + cgroup, "/sys/fs/cgroup/*" + cgroup} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}

	for name, c := range map[string]struct{ crun, why string }{
		"without seccomp": {"echo crun version 9; echo +CAP", "built without seccomp"},
		"broken":          {"if [ $1 = --version ]; then echo crun version 9; echo +CAP +SECCOMP; else echo no such thing >&2; exit 1; fi", "no such thing"},
		"silent":          {"if [ $1 = --version ]; then echo crun version 9; echo +CAP +SECCOMP; fi", "says nothing"},
		"absent":          {"", "not installed"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			if c.crun != "" {
				if err := os.WriteFile(filepath.Join(bin, "crun"), []byte("#!/bin/sh\n"+c.crun+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", bin)
			if r := ChooseRuntime(context.Background(), t.TempDir(), cgroup, self, true); r.Name != "runc" || !strings.Contains(r.Why, c.why) {
				t.Errorf("%+v", r)
			}
		})
	}
}
