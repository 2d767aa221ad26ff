package metadata

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/dispatch/fabric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a server whose VPCs are ports of the loopback device, on which each
// 127.0.0.n is an instance's address.
type bench struct {
	t    *testing.T
	s    *Server
	now  time.Time
	at   map[string]string // address by VPC
	fail map[string]bool
}

func newBench(t *testing.T, clients ...Client) *bench {
	b := &bench{t: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), at: map[string]string{}}
	b.s = New(Options{Now: func() time.Time { return b.now }, Log: slog.New(slog.DiscardHandler), Listen: func(vpc, network, address string) (net.Listener, error) {
		if address != Address {
			t.Errorf("listens on %s", address)
		}
		l, err := net.Listen(network, "127.0.0.1:0")
		if err == nil {
			b.at[vpc] = l.Addr().String()
		}
		return l, err
	}})
	if err := b.s.Set(clients); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.s.Close() })
	return b
}

// ask makes a request from an address.
func (b *bench) ask(vpc, from, method, path string, header ...string) (int, string, http.Header) {
	b.t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequest(method, "http://"+b.at[vpc]+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(body), res.Header
}

func client(id, vpc, address string, change ...func(*Client)) Client {
	c := Client{ID: id, VPC: vpc, Addresses: []netip.Addr{netip.MustParseAddr(address)}, Metadata: fabric.InstanceMetadata{Enabled: true, HopLimit: 2, Paths: map[string]string{
		"meta-data/instance-id": id, "meta-data/placement/region": "us-east-1", "meta-data/public-keys/0/openssh-key": "ssh-rsa k", "meta-data/public-keys/": "0=mine",
		"meta-data/iam-like": "x", "dynamic/instance-identity/document": "{}",
	}}}
	for _, f := range change {
		f(&c)
	}
	return c
}

func TestPaths(t *testing.T) {
	b := newBench(t, client("i-1", "vpc-1", "127.0.0.2", func(c *Client) {
		c.UserData = []byte("#!/bin/sh\x00")
		c.Credentials = &fabric.RoleCredentials{Role: "machines", Profile: "arn:p", ProfileID: "AIPA1", Updated: b0, Credentials: fabric.Credentials{AccessKeyID: "ASIA1", SecretAccessKey: "s", Token: "t", Expiration: b0.Add(time.Hour)}}
	}))
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/", 200, "1.0\n2021-07-15\nlatest"},
		{"/latest/", 200, "dynamic/\nmeta-data/\nuser-data"},
		{"/latest/meta-data/", 200, "iam-like\niam/\ninstance-id\nplacement/\npublic-keys/"},
		{"/latest/meta-data/instance-id", 200, "i-1"},
		{"/2021-07-15/meta-data/instance-id", 200, "i-1"},
		{"/1.0/meta-data/instance-id", 200, "i-1"},
		{"/latest/meta-data/instance-id/", 404, ""},
		{"/latest/meta-data/placement/", 200, "region"},
		{"/latest/meta-data/public-keys/", 200, "0=mine"},
		{"/latest/meta-data/public-keys/0/", 200, "openssh-key"},
		{"/latest/meta-data/iam/", 200, "info\nsecurity-credentials/"},
		{"/latest/meta-data/iam/security-credentials/", 200, "machines"},
		{"/latest/user-data", 200, "#!/bin/sh\x00"},
		{"/latest/dynamic/", 200, "instance-identity/"},
		{"/latest/dynamic/instance-identity/document", 200, "{}"},
		{"/latest", 301, ""},
		{"/latest/meta-data", 301, ""},
		{"/latest/meta-data/none", 404, ""},
		{"/never/meta-data/instance-id", 404, ""},
		{"/latest/../etc", 404, ""},
	} {
		code, body, header := b.ask("vpc-1", "127.0.0.2", "GET", c.path)
		if code != c.code || code == 200 && body != c.want {
			t.Errorf("%s: %d %q, want %d %q", c.path, code, body, c.code, c.want)
		}
		if code == 301 && !strings.HasSuffix(header.Get("Location"), c.path+"/") {
			t.Errorf("%s: goes to %s", c.path, header.Get("Location"))
		}
	}
	_, body, _ := b.ask("vpc-1", "127.0.0.2", "GET", "/latest/meta-data/iam/security-credentials/machines")
	var creds map[string]string
	if err := json.Unmarshal([]byte(body), &creds); err != nil || creds["Code"] != "Success" || creds["Type"] != "AWS-HMAC" || creds["AccessKeyId"] != "ASIA1" ||
		creds["Token"] != "t" || creds["LastUpdated"] != "2026-01-02T03:04:05Z" || creds["Expiration"] != "2026-01-02T04:04:05Z" {
		t.Errorf("credentials %s, %v", body, err)
	}
	if code, _, _ := b.ask("vpc-1", "127.0.0.2", "POST", "/latest/meta-data/"); code != 405 {
		t.Errorf("a POST: %d", code)
	}
}

var b0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// An address is an instance only in its own VPC, and a token is good for the
// instance that asked for it and until it ends.
func TestWhoAsks(t *testing.T) {
	required := func(c *Client) { c.Metadata.TokenRequired = true }
	off := func(c *Client) { c.Metadata.Enabled = false }
	b := newBench(t, client("i-1", "vpc-1", "127.0.0.2", required), client("i-2", "vpc-2", "127.0.0.2"), client("i-3", "vpc-1", "127.0.0.3", required), client("i-4", "vpc-1", "127.0.0.4", off))
	const id = "/latest/meta-data/instance-id"
	expect := func(what, vpc, from, method, path string, code int, want string, header ...string) string {
		t.Helper()
		got, body, _ := b.ask(vpc, from, method, path, header...)
		if got != code || want != "" && body != want {
			t.Errorf("%s: %d %q, want %d %q", what, got, body, code, want)
		}
		return body
	}
	expect("without a token where one is required", "vpc-1", "127.0.0.2", "GET", id, 401, "")
	expect("the same address in another VPC", "vpc-2", "127.0.0.2", "GET", id, 200, "i-2")
	expect("a stranger", "vpc-2", "127.0.0.3", "GET", id, 404, "")
	expect("switched off", "vpc-1", "127.0.0.4", "GET", id, 403, "")
	expect("a token of one switched off", "vpc-1", "127.0.0.4", "PUT", tokenPath, 403, "", ttlHeader, "60")
	for ttl, code := range map[string]int{"": 400, "0": 400, "21601": 400, "x": 400, "-1": 400, "21600": 200, "1": 200} {
		expect("ttl "+ttl, "vpc-1", "127.0.0.2", "PUT", tokenPath, code, "", ttlHeader, ttl)
	}
	expect("a token by a proxy", "vpc-1", "127.0.0.2", "PUT", tokenPath, 403, "", ttlHeader, "60", "X-Forwarded-For", "1.2.3.4")
	expect("a token by GET", "vpc-1", "127.0.0.2", "GET", tokenPath, 405, "", ttlHeader, "60")
	token := expect("a token", "vpc-1", "127.0.0.2", "PUT", tokenPath, 200, "", ttlHeader, "60")
	expect("with it", "vpc-1", "127.0.0.2", "GET", id, 200, "i-1", tokenHeader, token)
	expect("another's", "vpc-1", "127.0.0.3", "GET", id, 401, "", tokenHeader, token)
	expect("a wrong one where none is required", "vpc-2", "127.0.0.2", "GET", id, 401, "", tokenHeader, token)
	expect("a changed one", "vpc-1", "127.0.0.2", "GET", id, 401, "", tokenHeader, token[:15]+map[bool]string{true: "B", false: "A"}[token[15] == 'A']+token[16:])
	b.now = b.now.Add(time.Minute)
	expect("an old one", "vpc-1", "127.0.0.2", "GET", id, 401, "", tokenHeader, token)

	// Who is gone is nobody.
	if err := b.s.Set([]Client{client("i-3", "vpc-1", "127.0.0.3")}); err != nil {
		t.Fatal(err)
	}
	expect("one that is gone", "vpc-1", "127.0.0.2", "GET", id, 404, "")
	if _, err := net.Dial("tcp", b.at["vpc-2"]); err == nil {
		t.Error("listens in a VPC without instances")
	}
}

// The answer to a token's request has the hop limit as its time to live, and no other.
func TestHopLimit(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			defer c.Close()
			io.ReadAll(c)
		}
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := limitHops(&boundedConn{Conn: c, free: func() {}}, 3); err != nil {
		t.Fatal(err)
	}
	raw, _ := c.(*net.TCPConn).SyscallConn()
	raw.Control(func(fd uintptr) {
		if ttl, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL); ttl != 3 || err != nil {
			t.Errorf("time to live %d, %v", ttl, err)
		}
	})
}

func FuzzRequest(f *testing.F) {
	s := New(Options{Log: slog.New(slog.DiscardHandler)})
	s.by = map[netip.AddrPort]*tree{netip.MustParseAddrPort("127.0.0.2:1"): newTree(client("i-1", "vpc-1", "127.0.0.2"))}
	for _, p := range []string{"/latest/meta-data/", "/", "//", "/latest//x", "/1.0/user-data/"} {
		f.Add(p, "")
	}
	f.Fuzz(func(t *testing.T, path, token string) {
		w := &answer{header: http.Header{}}
		r := &http.Request{Method: "GET", RemoteAddr: "127.0.0.2:9", Header: http.Header{tokenHeader: {token}}, Host: "h"}
		r.URL = mustURL(path)
		s.answer(1, w, r)
		if token != "" && w.code != 401 {
			t.Errorf("%q with token %q: %d", path, token, w.code)
		}
	})
}

type answer struct {
	header http.Header
	code   int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }
func (a *answer) WriteHeader(code int)        { a.code = code }

func mustURL(path string) *url.URL { return &url.URL{Path: path} }
