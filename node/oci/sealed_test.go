package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestShare: children start the copy as long as it is one of the program that
// is there, nobody can change it, and theirs do not get it.
func TestShare(t *testing.T) {
	real, err := exec.LookPath("crun")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(real)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "crun")
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(sealedVariable, "")
	if l := new(Launcher); l.Sealed(program) != program {
		t.Error("a copy that there is not")
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if err := Share(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := new(Launcher)
	path := l.Sealed(program)
	if !strings.HasPrefix(path, "/proc/self/fd/") {
		t.Fatalf("started from %s", path)
	}
	if out, err := exec.Command(path, "--version").CombinedOutput(); err != nil || !strings.Contains(string(out), "crun version") {
		t.Errorf("%v: %s", err, out)
	}
	if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		if _, err := f.Write([]byte{0}); err == nil {
			t.Error("it can be changed")
		}
		f.Close()
	}
	if out, err := exec.Command("ls", "-l", "/proc/self/fd").CombinedOutput(); err != nil || strings.Contains(string(out), "memfd:crun") {
		t.Errorf("a child has it: %v\n%s", err, out)
	}
	if got := l.Sealed(real); got != real {
		t.Errorf("%s is started from the copy of another", real)
	}
	// An upgrade of the machine.
	if err := os.WriteFile(program+".new", b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	if got := l.Sealed(program); got != program {
		t.Errorf("started from an old copy, %s", got)
	}
}
