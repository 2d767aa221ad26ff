package root

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// unpack makes the layer a folder.
func unpack(t *testing.T, layer []byte) string {
	t.Helper()
	dir := t.TempDir()
	r := tar.NewReader(bytes.NewReader(layer))
	seen := map[string]bool{}
	for {
		h, err := r.Next()
		if err == io.EOF {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if !filepath.IsLocal(name) || seen[name] || filepath.Dir(name) != "." && !seen[filepath.Dir(name)] {
			t.Fatalf("entry %q: twice, outside, or before its folder", name)
		}
		seen[name] = true
		p := filepath.Join(dir, name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.Mkdir(p, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, p)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, h.Linkname), p)
		default:
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(p, b, os.FileMode(h.Mode))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Every program of the root starts there: nothing that it is linked with is missing.
func TestProgramsRun(t *testing.T) {
	var b bytes.Buffer
	res, err := Write(&b, System{})
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if second, err := Write(&again, System{}); err != nil || second.Digest != res.Digest || res.Size != int64(b.Len()) {
		t.Fatalf("the same programs give %v and then %v, %v", res, second, err)
	}
	t.Logf("%d bytes, without %v", res.Size, res.Missing)
	dir := unpack(t, b.Bytes())
	if err := os.WriteFile(filepath.Join(dir, "dev/null"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) (string, error) {
		c := exec.Command(name, args...)
		c.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
		c.Env, c.Dir = []string{"PATH=/usr/bin"}, "/"
		out, err := c.CombinedOutput()
		return string(out), err
	}
	programs, err := os.ReadDir(filepath.Join(dir, "usr/bin"))
	if err != nil || len(programs) < len(Required) {
		t.Fatal(len(programs), err)
	}
	for _, p := range programs {
		if p.Name() == "yes" || p.Name() == "top" || p.Name() == "watch" {
			continue // do not end
		}
		out, err := run("/usr/bin/"+p.Name(), "--version")
		// What the program thinks of the option is its own affair; that it came to think is the test.
		if errors.Is(err, os.ErrNotExist) || strings.Contains(out, "error while loading shared libraries") || strings.Contains(out, "Error loading shared library") {
			t.Errorf("%s: %v: %s", p.Name(), err, out)
		}
	}
	out, err := run("/bin/sh", "-c", `echo one two | awk '{print $2}' | sed s/two/three/; id -un; cat /etc/os-release | grep ^ID=; [ -s /etc/ssl/certs/ca-certificates.crt ] && echo trusted; ls /home /etc/ecs`)
	if err != nil || out != "three\nroot\nID=berth\ntrusted\n/etc/ecs:\n\n/home:\nec2-user\n" {
		t.Errorf("a script says %q, %v", out, err)
	}
}

// Nothing of the machine's own is in the root.
func TestNothingElse(t *testing.T) {
	var b bytes.Buffer
	if _, err := Write(&b, System{}); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_, isOwn := own()[h.Name]
		if strings.HasPrefix(h.Name, "etc/") && h.Typeflag == tar.TypeReg && !isOwn && h.Name != "etc/ssl/certs/ca-certificates.crt" {
			t.Errorf("%s is the machine's", h.Name)
		}
		if h.Typeflag == tar.TypeReg && !strings.HasPrefix(h.Name, "usr/bin/") && !strings.HasPrefix(h.Name, "usr/lib") && !strings.HasPrefix(h.Name, "etc/") && !isOwn {
			t.Errorf("%s is neither a program nor a library", h.Name)
		}
		if h.Mode&0o6000 != 0 {
			t.Errorf("%s has a mode of %o", h.Name, h.Mode)
		}
	}
}

func TestRequired(t *testing.T) {
	_, err := Write(io.Discard, System{Root: t.TempDir()})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "sh") {
		t.Errorf("of an empty machine: %v", err)
	}
}
