package guest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestWish(t *testing.T) {
	for _, c := range []struct {
		line string
		want syscall.Signal
		ok   bool
	}{
		{"poweroff", powerOff, true}, {"poweroff -f", powerOff, true}, {"halt", powerOff, true}, {"reboot", reboot, true}, {"reboot -f", reboot, true},
		{"shutdown -h now", powerOff, true}, {"shutdown now", powerOff, true}, {"shutdown -r now", reboot, true}, {"shutdown -P +0", powerOff, true},
		{"shutdown -h now good bye", powerOff, true}, {"shutdown +5", 0, false}, {"shutdown 23:00", 0, false}, {"shutdown --what", 0, false}, {"reboot now", 0, false},
	} {
		f := strings.Fields(c.line)
		got, err := wish(f[0], f[1:])
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%s: %v, %v", c.line, got, err)
		}
	}
}

// What the node says in an environment is what the first process reads there.
func TestEnvironment(t *testing.T) {
	for _, size := range []int{0, 10, variableSize, 3 * variableSize} {
		b := Boot{Instance: "i-1", Hostname: "h", Parts: []Part{{Name: "x", Script: bytes.Repeat([]byte("é="), size)}, {Note: "no"}}}
		env, err := b.Environment()
		if err != nil {
			t.Fatal(err)
		}
		get := func(name string) string {
			for _, kv := range env {
				if len(kv) > 128<<10 {
					t.Fatal("a variable that the kernel refuses")
				}
				if v, ok := strings.CutPrefix(kv, name+"="); ok {
					return v
				}
			}
			return ""
		}
		got, err := fromEnvironment(get)
		if err != nil || got.Instance != "i-1" || len(got.Parts) != 2 || !bytes.Equal(got.Parts[0].Script, b.Parts[0].Script) || got.Parts[1].Note != "no" {
			t.Errorf("size %d: %v, %v", size, got.Instance, err)
		}
	}
}

// A new root gets what a machine has; an image's own links are not followed.
func TestSettle(t *testing.T) {
	root, outside := t.TempDir(), filepath.Join(t.TempDir(), "hosts")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "etc/hosts")); err != nil {
		t.Fatal(err)
	}
	b := Boot{Hostname: "ip-10-0-0-4.ec2.internal", Address: "10.0.0.4", Nameservers: []string{"169.254.169.253"}, Search: []string{"ec2.internal"}}
	for range 2 {
		if errs := settle(root, b); len(errs) > 0 {
			t.Fatal(errs)
		}
	}
	for name, want := range map[string]string{
		"hosts":       "127.0.0.1 localhost\n::1 localhost\n10.0.0.4 ip-10-0-0-4.ec2.internal ip-10-0-0-4\n",
		"resolv.conf": "nameserver 169.254.169.253\nsearch ec2.internal\n", "hostname": "ip-10-0-0-4.ec2.internal\n",
	} {
		if got, err := os.ReadFile(filepath.Join(root, "etc", name)); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Lstat(outside); err == nil {
		t.Error("wrote outside of the root")
	}
	for _, name := range Programs {
		if to, err := os.Readlink(filepath.Join(root, "usr/local/bin", name)); to != Init || err != nil {
			t.Errorf("%s: %s, %v", name, to, err)
		}
	}
}

// blocked is a node that does not read.
type blocked struct {
	mu  sync.Mutex
	got bytes.Buffer
}

func (b *blocked) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.got.Write(p)
}

// Nobody waits for a node that does not read its console; the last of what was
// said is heard.
func TestConsole(t *testing.T) {
	out := &blocked{}
	out.mu.Lock()
	c := newConsole(out)
	for range 100 {
		c.Write(bytes.Repeat([]byte("x"), 4<<10))
	}
	c.say("end")
	out.mu.Unlock()
	c.drain()
	out.mu.Lock()
	defer out.mu.Unlock()
	got := out.got.String()
	if !strings.HasSuffix(got, "berth: end\r\n") || len(got) > backlog+8<<10 {
		t.Errorf("%d bytes, ends in %q", len(got), got[max(0, len(got)-20):])
	}
}
