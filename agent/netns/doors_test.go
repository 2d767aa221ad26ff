package netns

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Two clients of one address find listeners of their own, a stranger none, and
// the door closes behind the last.
func TestDoors(t *testing.T) {
	defer goleak.VerifyNone(t)
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	path := filepath.Join(t.TempDir(), "vpc")
	if err := os.Symlink("/proc/self/ns/net", path); err != nil {
		t.Fatal(err)
	}
	d := &Doors{}
	ctx := context.Background()
	listeners := map[string]net.Listener{}
	for _, client := range []string{"127.0.0.2", "127.0.0.3"} {
		l, err := d.Listen(ctx, path, address, netip.MustParseAddr(client))
		if err != nil {
			t.Fatal(err)
		}
		listeners[client] = l
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, client)
				c.Close()
			}
		}()
	}
	if _, err := d.Listen(ctx, path, address, netip.MustParseAddr("127.0.0.2")); err == nil {
		t.Fatal("one client listens twice")
	}
	ask := func(from string) (string, error) {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
		c, err := dialer.Dial("tcp", address)
		if err != nil {
			return "", err
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		return string(b), err
	}
	for client := range listeners {
		if got, err := ask(client); got != client || err != nil {
			t.Fatalf("%s finds %q, %v", client, got, err)
		}
	}
	if got, _ := ask("127.0.0.4"); got != "" {
		t.Fatalf("a stranger finds %q", got)
	}
	listeners["127.0.0.2"].Close()
	if got, _ := ask("127.0.0.2"); got != "" {
		t.Fatalf("a client that left finds %q", got)
	}
	if got, err := ask("127.0.0.3"); got != "127.0.0.3" {
		t.Fatalf("the other one finds %q, %v", got, err)
	}
	listeners["127.0.0.3"].Close()
	if _, err := ask("127.0.0.3"); err == nil {
		t.Fatal("the door is open behind the last client")
	}
	if err := listeners["127.0.0.3"].Close(); err == nil {
		t.Fatal("a second Close says nothing")
	}
}
