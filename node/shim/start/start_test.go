package start

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// TestWire: it reads and writes what the library does.
func TestWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 300, 1000)
		in := &bootapi.BootstrapParams{
			InstanceID: text.Draw(t, "id"), Namespace: text.Draw(t, "namespace"), ContainerdVersion: text.Draw(t, "version"),
			LogLevel:               bootapi.LogLevel(rapid.Int32().Draw(t, "level")),
			ContainerdTtrpcAddress: text.Draw(t, "ttrpc"), ContainerdGrpcAddress: text.Draw(t, "grpc"),
			SocketDir: proto.String(text.Draw(t, "sockets")),
		}
		b, err := proto.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		p, err := decode(b)
		if err != nil || p.sockets != in.GetSocketDir() {
			t.Fatalf("%q, %v; want %q", p.sockets, err, in.GetSocketDir())
		}
		address := text.Draw(t, "address")
		var out bootapi.BootstrapResult
		if err := proto.Unmarshal(encode(address), &out); err != nil {
			t.Fatal(err)
		}
		if out.Version != 3 || out.Address != address || out.Protocol != "ttrpc" {
			t.Fatalf("%v", &out)
		}
	})
}

// TestClaim: of all that want a group's socket at the same time one gets it,
// also in the place of a shim that was killed.
func TestClaim(t *testing.T) {
	for round := range 100 {
		path := filepath.Join(t.TempDir(), "s")
		if round%2 == 1 {
			fd, err := listen(path)
			if err != nil {
				t.Fatal(err)
			}
			_ = syscall.Close(fd)
		}
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				fd, err := claim(path)
				if err != nil {
					t.Error(err)
				} else if fd >= 0 {
					won.Add(1)
					t.Cleanup(func() { _ = syscall.Close(fd) })
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			t.Fatalf("round %d: %d have the socket", round, n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := proto.Marshal(&bootapi.BootstrapParams{InstanceID: "a", LogLevel: -4, SocketDir: proto.String("/s")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x4a, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decode(b)
		var want bootapi.BootstrapParams
		// It does not know groups, which nobody sends.
		if err == nil && proto.Unmarshal(b, &want) == nil && p.sockets != want.GetSocketDir() {
			t.Errorf("%q, want %q", p.sockets, want.GetSocketDir())
		}
	})
}
