package content_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth/registry/content"
	"go.uber.org/goleak"
)

// TestMain runs this binary as the process that gets killed, too.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CONTENT_VICTIM"); dir != "" {
		if err := victim(dir, os.Getenv("CONTENT_VICTIM_DOES")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// victim says on its standard output what it has acknowledged.
func victim(dir, does string) error {
	s, err := content.Open(dir)
	if err != nil {
		return err
	}
	if does == "receive" {
		u, err := s.Begin("me", 0)
		if err != nil {
			return err
		}
		fmt.Println(u.ID)
		for {
			// One request after the other, each of an odd size.
			n, err := u.Append(context.Background(), io.LimitReader(os.Stdin, 300_001), -1)
			if err != nil {
				return err
			}
			fmt.Println(n)
		}
	}
	for {
		b := random(mrand.IntN(2 << 20))
		u, err := s.Begin("me", 0)
		if err != nil {
			return err
		}
		d := content.Sum(b)
		_, pin, err := u.Commit(context.Background(), d, bytes.NewReader(b), -1)
		if err != nil {
			return err
		}
		pin.Release()
		fmt.Println(d)
	}
}

func start(t *testing.T, dir, does string) (*exec.Cmd, io.WriteCloser, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CONTENT_VICTIM="+dir, "CONTENT_VICTIM_DOES="+does)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, in, bufio.NewScanner(out)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func open(t *testing.T, dir string) *content.Store {
	t.Helper()
	s, err := content.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An upload goes on where a process that was killed has left it, with every
// byte that it had acknowledged.
func TestKilledWhileReceiving(t *testing.T) {
	b := random(5 << 20)
	for round := range 5 {
		dir := t.TempDir()
		cmd, in, out := start(t, dir, "receive")
		if !out.Scan() {
			t.Fatal("no upload")
		}
		id, acked := out.Text(), 0
		upTo := mrand.IntN(4 << 20)
		done := make(chan struct{})
		go func() {
			defer close(done)
			in.Write(b[:upTo]) // broken by the kill
		}()
		for acked+300_001 <= upTo-mrand.IntN(700_000) && out.Scan() {
			fmt.Sscan(out.Text(), &acked)
		}
		cmd.Process.Kill()
		cmd.Wait()
		in.Close()
		<-done

		s := open(t, dir)
		if _, err := s.Upload(id, "you", 0); !errors.Is(err, content.ErrUnknownUpload) {
			t.Fatalf("somebody else's upload: %v", err)
		}
		u, err := s.Upload(id, "me", 0)
		if err != nil {
			t.Fatal(err)
		}
		n, err := u.Size(t.Context())
		if err != nil || n < int64(acked) {
			t.Fatalf("round %d: %d bytes are left of %d that were acknowledged: %v", round, n, acked, err)
		}
		size, pin, err := u.Commit(t.Context(), content.Sum(b), bytes.NewReader(b[n:]), n)
		if err != nil || size != int64(len(b)) {
			t.Fatalf("round %d: %d bytes, %v", round, size, err)
		}
		pin.Release()
		verify(t, s, dir, content.Sum(b))
	}
}

// A file with a digest for a name is right, and what was committed is there,
// whenever the process dies.
func TestKilledWhileCommitting(t *testing.T) {
	for range 5 {
		dir := t.TempDir()
		cmd, in, out := start(t, dir, "commit")
		var acked []content.Digest
		for n := 1 + mrand.IntN(10); len(acked) < n && out.Scan(); {
			d, ok := content.ParseDigest(out.Text())
			if !ok {
				t.Fatal(out.Text())
			}
			acked = append(acked, d)
		}
		cmd.Process.Kill()
		for out.Scan() {
			if d, ok := content.ParseDigest(out.Text()); ok {
				acked = append(acked, d)
			}
		}
		cmd.Wait()
		in.Close()
		s := open(t, dir)
		verify(t, s, dir, acked...)
		if _, err := s.Expire(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "uploads")); err != nil || len(left) > 0 {
			t.Errorf("uploads are left: %v %v", left, err)
		}
	}
}

// verify reads every blob, and wants some of them.
func verify(t *testing.T, s *content.Store, dir string, want ...content.Digest) {
	t.Helper()
	have := map[content.Digest]bool{}
	err := s.Each(func(d content.Digest, _ time.Time) bool {
		b, err := s.Read(d)
		if err != nil {
			t.Error(err)
		}
		if content.Sum(b) != d {
			t.Errorf("%s has other content", d)
		}
		have[d] = true
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range want {
		if !have[d] {
			t.Errorf("%s is lost", d)
		}
	}
}

// failing gives some bytes and then an error.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

// What a broken request has brought is kept; sizes around the buffers' are the
// ones that go wrong.
func TestBrokenAppend(t *testing.T) {
	s := open(t, t.TempDir())
	broken := errors.New("broken")
	for _, n := range []int{0, 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 1 << 20, 3<<20 + 7} {
		b := random(n + 1000)
		u, err := s.Begin("", 0)
		if err != nil {
			t.Fatal(err)
		}
		size, err := u.Append(t.Context(), &failing{bytes.NewReader(b[:n]), broken}, 0)
		if !errors.Is(err, broken) || size != int64(n) {
			t.Fatalf("%d: %d, %v", n, size, err)
		}
		if _, err := u.Append(t.Context(), bytes.NewReader(b[n:]), size+1); !errors.Is(err, content.ErrOffset) {
			t.Fatalf("a gap: %v", err)
		}
		_, pin, err := u.Commit(t.Context(), content.Sum(b), bytes.NewReader(b[n:]), size)
		if err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		pin.Release()
		if got, err := s.Read(content.Sum(b)); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%d: content differs: %v", n, err)
		}
	}
}

// The same content twice at once is one blob, and two winners.
func TestSameContentAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	b := random(1 << 20)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			u, err := s.Begin("", 0)
			if err != nil {
				t.Error(err)
				return
			}
			_, pin, err := u.Commit(context.Background(), content.Sum(b), bytes.NewReader(b), 0)
			if err != nil {
				t.Error(err)
				return
			}
			pin.Release()
		})
	}
	wg.Wait()
	verify(t, s, dir, content.Sum(b))
}

func TestRemove(t *testing.T) {
	s := open(t, t.TempDir())
	d := content.Sum([]byte("x"))
	pin, err := s.Put(d, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	remove := func(needed bool) bool {
		t.Helper()
		gone, err := s.Remove(d, func() bool { return needed })
		if err != nil {
			t.Fatal(err)
		}
		return gone
	}
	if remove(false) {
		t.Error("a pinned blob went")
	}
	pin.Release()
	pin.Release()
	if remove(true) {
		t.Error("a needed blob went")
	}
	f, _, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !remove(false) || remove(false) {
		t.Error("it goes once")
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != "x" {
		t.Errorf("what was open is %q, %v", b, err)
	}
	if _, _, err := s.Blob(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Blob: %v", err)
	}
}

func TestExpire(t *testing.T) {
	s := open(t, t.TempDir())
	u, err := s.Begin("", 0)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Expire(time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err := s.Expire(time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Error(n, err)
	}
	if _, err := u.Append(t.Context(), strings.NewReader("x"), -1); !errors.Is(err, content.ErrUnknownUpload) {
		t.Error(err)
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(string(content.Sum(nil)))
	f.Add("sha256:../../../../../../etc/passwd0000000000000000000000000000000000000000")
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := content.ParseDigest(s)
		if ok && (string(d) != s || len(d.Hex()) != 64 || strings.ContainsAny(s, "/.\x00")) {
			t.Errorf("%q is taken for a digest", s)
		}
	})
}
