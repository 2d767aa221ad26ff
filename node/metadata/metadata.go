// Package metadata is the metadata service of instances (IMDS), versions 1 and
// 2, at 169.254.169.254 of every VPC that has instances of this machine.
//
// What it answers comes from the server as paths and texts, so that it answers
// while no server does; only the credentials of an instance's role are put into
// words here. Who asks, the source address says, for which the data plane
// vouches. It must never answer one instance with what is another's.
package metadata

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/dispatch/fabric"
)

// Address is where instances find the service.
const Address = "169.254.169.254:80"

// Client is an instance as the service sees it.
type Client struct {
	ID          string
	VPC         string
	Addresses   []netip.Addr // of all of its interfaces
	Metadata    fabric.InstanceMetadata
	UserData    []byte
	Credentials *fabric.RoleCredentials
}

// Options of a Server.
type Options struct {
	// Listen opens a listener inside the namespace of a VPC.
	Listen func(vpc, network, address string) (net.Listener, error)
	Now    func() time.Time // time.Now if nil
	Log    *slog.Logger
}

// Server serves the VPCs of a machine.
type Server struct {
	opts Options
	key  [32]byte // of tokens: they are this process's

	mu    sync.RWMutex
	by    map[netip.AddrPort]*tree // an address of a VPC, whose number is the port
	vpcs  map[string]*listener
	count uint16
}

type listener struct {
	number uint16
	http   *http.Server
	served sync.WaitGroup
}

// New makes a Server that serves nobody yet.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{opts: o, vpcs: map[string]*listener{}}
	rand.Read(s.key[:])
	return s
}

// Set says who is served. VPCs without clients are not listened in.
func (s *Server) Set(clients []Client) error {
	var errs []error
	wanted := map[string]bool{}
	for _, c := range clients {
		wanted[c.VPC] = true
	}
	s.mu.Lock()
	var gone []*listener
	for id, l := range s.vpcs {
		if !wanted[id] {
			gone = append(gone, l)
			delete(s.vpcs, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		if s.vpcs[id] != nil {
			continue
		}
		raw, err := s.opts.Listen(id, "tcp4", Address)
		if err != nil {
			errs = append(errs, fmt.Errorf("metadata service in %s: %w", id, err))
			continue
		}
		s.vpcs[id] = s.serve(raw)
	}
	s.by = map[netip.AddrPort]*tree{}
	for _, c := range clients {
		l := s.vpcs[c.VPC]
		if l == nil {
			continue
		}
		t := newTree(c)
		for _, a := range c.Addresses {
			s.by[netip.AddrPortFrom(a, l.number)] = t
		}
	}
	s.mu.Unlock()
	for _, l := range gone {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// Close ends the service.
func (s *Server) Close() error { return s.Set(nil) }

func (l *listener) close() error {
	err := l.http.Close()
	l.served.Wait()
	return err
}

// maxConnections bounds those of one VPC.
const maxConnections = 512

type connKey struct{}

func (s *Server) serve(raw net.Listener) *listener {
	s.count++
	l := &listener{number: s.count}
	l.http = &http.Server{
		Handler:     http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(l.number, w, r) }),
		ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog:                     slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
		ConnContext:                  func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		DisableGeneralOptionsHandler: true,
	}
	l.served.Go(func() { _ = l.http.Serve(&bounded{Listener: raw, free: make(chan struct{}, maxConnections)}) }) // ends with Close
	return l
}

// bounded accepts a number of connections at a time.
type bounded struct {
	net.Listener
	free chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case b.free <- struct{}{}:
		return &boundedConn{Conn: c, free: sync.OnceFunc(func() { <-b.free })}, nil
	default:
		c.Close()
		return &boundedConn{Conn: c, free: func() {}}, nil
	}
}

type boundedConn struct {
	net.Conn
	free func()
}

func (c *boundedConn) Close() error {
	c.free()
	return c.Conn.Close()
}

const (
	tokenPath   = "/latest/api/token"
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	maxTTL      = 21600
)

// version matches the names under which the service is offered besides latest.
var version = regexp.MustCompile(`^(1\.0|20\d\d-\d\d-\d\d)$`)

func (s *Server) answer(vpc uint16, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "EC2ws")
	var t *tree
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		s.mu.RLock()
		t = s.by[netip.AddrPortFrom(from.Addr().Unmap(), vpc)]
		s.mu.RUnlock()
	}
	switch {
	case t == nil:
		refuse(w, http.StatusNotFound)
		return
	case !t.options.Enabled:
		refuse(w, http.StatusForbidden)
		return
	}
	if r.URL.Path == tokenPath {
		s.token(t, w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "OPTIONS, GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	if token := r.Header.Get(tokenHeader); token != "" {
		if !s.valid(t.id, token) {
			refuse(w, http.StatusUnauthorized)
			return
		}
	} else if t.options.TokenRequired {
		refuse(w, http.StatusUnauthorized)
		return
	}
	if r.URL.Path == "/" {
		text(w, "1.0\n2021-07-15\nlatest")
		return
	}
	first, rest, deeper := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if first != "latest" && !version.MatchString(first) {
		refuse(w, http.StatusNotFound)
		return
	}
	content, found := t.find(rest)
	if !deeper {
		found = dir
	}
	switch {
	case found == dir && !strings.HasSuffix(r.URL.Path, "/"):
		w.Header().Set("Location", "http://"+r.Host+r.URL.Path+"/")
		refuse(w, http.StatusMovedPermanently)
	case found == nothing:
		refuse(w, http.StatusNotFound)
	case rest == "user-data":
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write([]byte(content))
	default:
		text(w, content)
	}
}

// token makes a session's token.
func (s *Server) token(t *tree, w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method != http.MethodPut:
		w.Header().Set("Allow", "OPTIONS, PUT")
		refuse(w, http.StatusMethodNotAllowed)
		return
	case r.Header.Get("X-Forwarded-For") != "":
		// A proxy that passes on what it does not understand must not hand out tokens.
		refuse(w, http.StatusForbidden)
		return
	}
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	if err != nil || ttl < 1 || ttl > maxTTL {
		refuse(w, http.StatusBadRequest)
		return
	}
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		if err := limitHops(c, t.options.HopLimit); err != nil {
			s.opts.Log.Error("hop limit of a metadata answer", "instance", t.id, "err", err)
			refuse(w, http.StatusInternalServerError)
			return
		}
		// The limit is of this answer alone.
		w.Header().Set("Connection", "close")
	}
	w.Header().Set(ttlHeader, strconv.Itoa(ttl))
	text(w, s.mint(t.id, s.opts.Now().Add(time.Duration(ttl)*time.Second)))
}

// limitHops sets the time to live of what is sent from now on.
func limitHops(c net.Conn, hops int) error {
	if b, ok := c.(*boundedConn); ok {
		c = b.Conn
	}
	t, ok := c.(*net.TCPConn)
	if !ok || hops == 0 {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, hops) }); err != nil {
		return err
	}
	return set
}

// mint makes a token: its end, sealed for one instance.
func (s *Server) mint(instance string, end time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(end.Unix()))
	return base64.URLEncoding.EncodeToString(append(b, s.seal(instance, b)...))
}

func (s *Server) seal(instance string, b []byte) []byte {
	m := hmac.New(sha256.New, s.key[:])
	m.Write(b)
	m.Write([]byte(instance))
	return m.Sum(nil)
}

func (s *Server) valid(instance, token string) bool {
	b, err := base64.URLEncoding.DecodeString(token)
	if err != nil || len(b) != 8+sha256.Size || !hmac.Equal(b[8:], s.seal(instance, b[:8])) {
		return false
	}
	return s.opts.Now().Unix() < int64(binary.BigEndian.Uint64(b))
}

func text(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte(s))
}

// refuse answers an error as a page, as the service does.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	title := fmt.Sprintf("%d - %s", status, http.StatusText(status))
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n <head>\n  <title>%s</title>\n </head>\n <body>\n  <h1>%s</h1>\n </body>\n</html>\n", title, title)
}

// tree is what one instance is answered, below a version.
type tree struct {
	id      string
	options fabric.InstanceMetadata
	files   map[string]string
	dirs    map[string]string // listings, by path without a slash at the end
}

type kind int

const (
	nothing kind = iota
	file
	dir
)

// find looks for what is at a path.
func (t *tree) find(p string) (string, kind) {
	clean := strings.TrimSuffix(p, "/")
	if clean == p {
		if c, ok := t.files[p]; ok {
			return c, file
		}
	}
	if c, ok := t.dirs[clean]; ok {
		return c, dir
	}
	return "", nothing
}

func newTree(c Client) *tree {
	t := &tree{id: c.ID, options: c.Metadata, files: map[string]string{}, dirs: map[string]string{}}
	listed := map[string]string{}
	for p, content := range c.Metadata.Paths {
		// A path that ends in a slash says what the listing is.
		if d, ok := strings.CutSuffix(p, "/"); ok {
			listed[d] = content
			continue
		}
		t.files[p] = content
	}
	if len(c.UserData) > 0 {
		t.files["user-data"] = string(c.UserData)
	}
	if r := c.Credentials; r != nil {
		t.files["meta-data/iam/info"] = indent(info{"Success", stamp(r.Updated), r.Profile, r.ProfileID})
		t.files["meta-data/iam/security-credentials/"+r.Role] = indent(credentials{
			"Success", stamp(r.Updated), "AWS-HMAC", r.AccessKeyID, r.SecretAccessKey, r.Token, stamp(r.Expiration)})
	}
	below := map[string]map[string]bool{"": {}}
	for p := range t.files {
		name := path.Base(p)
		for at := path.Dir(p); ; at = path.Dir(at) {
			d := at
			if d == "." {
				d = ""
			}
			if below[d] == nil {
				below[d] = map[string]bool{}
			}
			below[d][name] = true
			if d == "" {
				break
			}
			name = path.Base(d) + "/"
		}
	}
	for d, names := range below {
		t.dirs[d] = strings.Join(slices.Sorted(maps.Keys(names)), "\n")
	}
	maps.Copy(t.dirs, listed)
	return t
}

type info struct {
	Code               string
	LastUpdated        string
	InstanceProfileArn string
	InstanceProfileId  string
}

type credentials struct {
	Code, LastUpdated, Type, AccessKeyId, SecretAccessKey, Token, Expiration string
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func indent(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return "" // strings always marshal
	}
	return string(b)
}
