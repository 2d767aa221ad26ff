package containerd

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"
)

func pack(t *testing.T, program string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(program)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestInstallShim: whatever was installed before, also in part, what is there
// afterwards is the shim of the binary that has just been started.
func TestInstallShim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shim")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	one, two := pack(t, "one"), pack(t, "two")
	for i, step := range []struct {
		slim []byte
		want string
		cut  func() error
	}{
		{slim: nil, want: string(self)},
		{slim: one, want: "one"},
		{slim: two, want: "two"},
		{slim: nil, want: string(self)},
		{slim: two, want: "two"},
		// A daemon that was killed in between.
		{slim: one, want: "one", cut: func() error { return os.Remove(path + ".sum") }},
		{slim: one, want: "one", cut: func() error { return os.Remove(path) }},
		{slim: one, want: "one", cut: func() error { return os.WriteFile(path+".new", []byte("on"), 0o600) }},
		{slim: two, want: "two", cut: func() error { return os.WriteFile(path+".new", []byte("on"), 0o600) }},
	} {
		if step.cut != nil {
			if err := step.cut(); err != nil {
				t.Fatal(err)
			}
		}
		if err := installShim(path, step.slim); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(have) != step.want {
			t.Fatalf("step %d: a shim of %d bytes, want %d", i, len(have), len(step.want))
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o111 != 0o111 {
			t.Fatalf("step %d: %v, %v", i, info.Mode(), err)
		}
	}
	// What is there already stays the same file.
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := installShim(path, two); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("installed again though it was there")
	}
}
