package gateway

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPassesBothWays(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Host+" "+string(b))
	}))
	defer api.Close()
	l := listen(t)
	g := Serve(l, api.Listener.Addr().String(), slog.New(slog.DiscardHandler))
	defer g.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	big := strings.Repeat("x", 1<<20)
	res, err := client.Post("http://"+l.Addr().String(), "text/plain", strings.NewReader(big))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	// The host must arrive as it was signed.
	if want := l.Addr().String() + " " + big; err != nil || string(b) != want {
		t.Fatalf("%d bytes, want %d: %v", len(b), len(want), err)
	}
}

func TestHalfClose(t *testing.T) {
	up := listen(t)
	defer up.Close()
	done := make(chan error, 1)
	go func() {
		c, err := up.Accept()
		if err == nil {
			_, err = io.Copy(c, c) // answers after the client has ended its half
			c.Close()
		}
		done <- err
	}()
	l := listen(t)
	g := Serve(l, up.Addr().String(), slog.New(slog.DiscardHandler))
	defer g.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "hello")
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Fatalf("%q %v", b, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsConnections(t *testing.T) {
	up := listen(t)
	defer up.Close()
	l := listen(t)
	g := Serve(l, up.Addr().String(), slog.New(slog.DiscardHandler))
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := up.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection is still open")
	}
}

func TestAddress(t *testing.T) {
	for endpoint, want := range map[string]string{"http://127.0.0.1:4566": "169.254.170.2:4566", "https://x": "169.254.170.2:443", "http://x": "", "http://x:80": ""} {
		if got, err := Address(endpoint); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q %v", endpoint, got, err)
		}
	}
}
