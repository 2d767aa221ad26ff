package registry_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	account = "123456789012"
	other   = "210987654321"
	region  = "us-east-1"
)

// world is a registry behind HTTP with a store in memory.
type world struct {
	t      testing.TB
	db     *store.DB
	dir    string
	reg    *registry.Registry
	server *httptest.Server
	ahead  atomic.Int64 // how far the clock is ahead, ns
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, db: store.OpenMemory(), dir: t.TempDir()}
	w.open()
	if err := w.db.Update(t.Context(), func(tx *store.Tx) error {
		for _, id := range []string{account, other} {
			state.Accounts.Put(tx, &state.Account{ID: id})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// open starts the registry, or starts it again.
func (w *world) open() {
	w.t.Helper()
	sessions, err := auth.NewSessions(make([]byte, 32))
	if err != nil {
		w.t.Fatal(err)
	}
	now := func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	w.reg, err = registry.New(w.t.Context(), registry.Config{
		Dir: w.dir, DB: w.db, Region: region, Now: now,
		Authorizer: &auth.Authorizer{Sessions: sessions, Clock: now},
		Log:        slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.server = httptest.NewServer(w.reg)
	w.t.Cleanup(w.reg.Close)
	w.t.Cleanup(w.server.Close)
}

func (w *world) update(f func(tx *store.Tx)) {
	w.t.Helper()
	if err := w.db.Update(w.t.Context(), func(tx *store.Tx) error { f(tx); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// repo makes a repository, or changes it.
func (w *world) repo(name string, change ...func(*state.Repository)) string {
	w.t.Helper()
	key := state.RepositoryKey(account, name)
	w.update(func(tx *store.Tx) {
		r := &state.Repository{Account: account, Name: name, ARN: w.reg.RepositoryARN(account, name), TagMutability: "MUTABLE", Encryption: "AES256"}
		if old, ok := state.Repositories.Get(tx, key); ok {
			*r = *old
		}
		for _, c := range change {
			c(r)
		}
		state.Repositories.Put(tx, r)
	})
	return key
}

func root() *auth.Caller {
	return &auth.Caller{Kind: auth.RootUser, Account: account, ARN: "arn:aws:iam::" + account + ":root", UserID: account}
}

// user makes a user with a policy of these statements.
func (w *world) user(acct, name string, statements ...string) *auth.Caller {
	w.t.Helper()
	u := &state.User{Account: acct, Path: "/", Name: name, ID: "AIDA" + strings.ToUpper(name)}
	if len(statements) > 0 {
		u.Inline = []state.InlinePolicy{{Name: "p", Document: `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`}}
	}
	w.update(func(tx *store.Tx) { state.Users.Put(tx, u) })
	return &auth.Caller{Kind: auth.User, Account: acct, ARN: u.ARN(), UserID: u.ID, Name: name}
}

func (w *world) password(c *auth.Caller) string {
	w.t.Helper()
	p, err := w.reg.Password(auth.WithCaller(w.t.Context(), c), time.Now().Add(12*time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// client calls as one principal.
type client struct {
	*world
	password string
	host     string
}

func (w *world) as(c *auth.Caller) *client { return &client{world: w, password: w.password(c)} }

type response struct {
	*http.Response
	body []byte
}

func (r response) String() string { return fmt.Sprintf("%d %s", r.StatusCode, r.body) }

// do makes a request. Headers are "Name: value".
func (c *client) do(method, path string, body io.Reader, headers ...string) response {
	c.t.Helper()
	url := path
	if !strings.HasPrefix(path, "http") {
		url = c.server.URL + path
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.password != "" {
		req.SetBasicAuth("AWS", c.password)
	}
	if c.host != "" {
		req.Host = c.host
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
		if name == "Content-Length" {
			fmt.Sscan(value, &req.ContentLength)
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response{res, b}
}

// want fails unless the response has the status and, if not "", the error code.
func (c *client) want(r response, status int, code string) response {
	c.t.Helper()
	if r.StatusCode != status {
		c.t.Fatalf("%s %s: got %s, want %d", r.Request.Method, r.Request.URL.Path, r, status)
	}
	if code != "" {
		if got, _ := r.error(c.t); got != code {
			c.t.Fatalf("%s %s: got %s, want code %s", r.Request.Method, r.Request.URL.Path, r, code)
		}
	}
	return r
}

func (r response) error(t testing.TB) (code, message string) {
	t.Helper()
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(r.body, &e); err != nil || len(e.Errors) != 1 {
		t.Fatalf("not an error: %s", r)
	}
	return e.Errors[0].Code, e.Errors[0].Message
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// push uploads a layer in one POST and one PUT.
func (c *client) push(repo string, b []byte) content.Digest {
	c.t.Helper()
	d := content.Sum(b)
	r := c.want(c.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202, "")
	c.want(c.do("PUT", c.server.URL+r.Header.Get("Location")+"?digest="+string(d), bytes.NewReader(b)), 201, "")
	return d
}

// manifest makes a manifest with these layers; the first is its config.
func manifest(layers ...content.Digest) []byte {
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int    `json:"size"`
	}
	doc := map[string]any{"schemaVersion": 2, "mediaType": image.OCIManifest}
	list := []descriptor{}
	for i, d := range layers {
		if i == 0 {
			doc["config"] = descriptor{"application/vnd.oci.image.config.v1+json", string(d), 1}
		} else {
			list = append(list, descriptor{"application/vnd.oci.image.layer.v1.tar+gzip", string(d), 1})
		}
	}
	doc["layers"] = list
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return b
}

func (c *client) putManifest(repo, ref string, b []byte) response {
	c.t.Helper()
	var kind struct{ MediaType string }
	if err := json.Unmarshal(b, &kind); err != nil {
		c.t.Fatal(err)
	}
	return c.do("PUT", "/v2/"+repo+"/manifests/"+ref, bytes.NewReader(b), "Content-Type: "+kind.MediaType)
}

// image pushes a small image and returns its digest.
func (c *client) image(repo, tag string) content.Digest {
	c.t.Helper()
	m := manifest(c.push(repo, random(50)), c.push(repo, random(100)))
	c.want(c.putManifest(repo, tag, m), 201, "")
	return content.Sum(m)
}

func TestLogin(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	nobody := &client{world: w}
	r := nobody.do("GET", "/v2/", nil)
	if r.StatusCode != 401 || string(r.body) != "Not Authorized\n" {
		t.Fatalf("got %s", r)
	}
	if got, want := r.Header.Get("Www-Authenticate"), `Basic realm="`+w.server.URL+`/",service="ecr.amazonaws.com"`; got != want {
		t.Errorf("challenge %q, want %q", got, want)
	}
	if got := r.Header.Get("Docker-Distribution-Api-Version"); got != "registry/2.0" {
		t.Errorf("version %q", got)
	}
	c := w.as(root())
	c.want(c.do("GET", "/v2/", nil), 200, "")
	c.want(c.do("GET", "/v2/_catalog", nil), 405, "UNSUPPORTED")

	bad := &client{world: w, password: "nonsense"}
	bad.want(bad.do("GET", "/v2/", nil), 400, "DENIED")

	// Who is gone is nobody, also with a password that has not expired.
	u := w.user(account, "gone", `{"Effect":"Allow","Action":"*","Resource":"*"}`)
	gone := w.as(u)
	gone.want(gone.do("GET", "/v2/app/tags/list", nil), 200, "")
	w.update(func(tx *store.Tx) { state.Users.Delete(tx, state.IAMKey(account, "gone")) })
	gone.want(gone.do("GET", "/v2/app/tags/list", nil), 400, "DENIED")

	w.ahead.Store(int64(12*time.Hour + time.Second))
	r = c.want(c.do("GET", "/v2/", nil), 403, "DENIED")
	if _, m := r.error(t); m != "Your authorization token has expired. Reauthenticate and try again." {
		t.Error(m)
	}
}

// A password of the registry is not one for a link, nor the other way round.
func TestSealedThingsDoNotMix(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	c := w.as(root())
	d := c.push("app", random(10))
	url := w.reg.LayerURL(w.server.URL, d)
	nobody := &client{world: w}
	nobody.want(nobody.do("GET", url, nil), 200, "")
	token := url[strings.LastIndexByte(url, '/')+1:]
	link := &client{world: w, password: token}
	link.want(link.do("GET", "/v2/", nil), 400, "DENIED")
	nobody.want(nobody.do("GET", "/v2/_layer/"+c.password, nil), 403, "DENIED")
	w.ahead.Store(int64(time.Hour + time.Second))
	nobody.want(nobody.do("GET", url, nil), 403, "DENIED")
}

func TestDenied(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	admin := w.as(root())
	layer := random(100)
	d := admin.push("app", layer)
	m := manifest(d)
	admin.want(admin.putManifest("app", "v1", m), 201, "")

	arn := "arn:aws:ecr:us-east-1:123456789012:repository/app"
	actions := []string{}
	u := w.user(account, "dev")
	c := w.as(u)
	upload := ""
	begin := func() response {
		r := c.do("POST", "/v2/app/blobs/uploads/", nil)
		upload = r.Header.Get("Location")
		return r
	}
	fresh := random(64)
	// For who may pull the image: there is no action of its own.
	referrers := func() response { return c.do("GET", "/v2/app/referrers/"+string(d), nil) }
	_, got := c.want(referrers(), 403, "DENIED").error(t)
	if !strings.Contains(got, "to perform: ecr:BatchGetImage on") {
		t.Error(got)
	}
	for _, step := range []struct {
		action string
		do     func() response
		status int
	}{
		{"BatchCheckLayerAvailability", func() response { return c.do("GET", "/v2/app/blobs/"+string(d), nil) }, 0}, // GET: see below
		{"InitiateLayerUpload", begin, 202},
		{"UploadLayerPart", func() response { return c.do("PATCH", upload, bytes.NewReader(fresh)) }, 202},
		{"CompleteLayerUpload", func() response { return c.do("PUT", upload+"?digest="+string(content.Sum(fresh)), nil) }, 201},
		{"BatchGetImage", func() response { return c.do("GET", "/v2/app/manifests/v1", nil) }, 200},
		{"PutImage", func() response { return c.putManifest("app", "v2", m) }, 201},
		{"GetDownloadUrlForLayer", func() response { return c.do("GET", "/v2/app/blobs/"+string(d), nil) }, 200},
		{"ListImages", func() response { return c.do("GET", "/v2/app/tags/list", nil) }, 200},
		{"BatchDeleteImage", func() response { return c.do("DELETE", "/v2/app/manifests/v2", nil) }, 202},
	} {
		allow := func() {
			actions = append(actions, `"ecr:`+step.action+`"`)
			w.user(account, "dev", `{"Effect":"Allow","Action":[`+strings.Join(actions, ",")+`],"Resource":"`+arn+`"}`)
		}
		if step.status == 0 {
			// HEAD has no body to tell the action by.
			c.want(c.do("HEAD", "/v2/app/blobs/"+string(d), nil), 403, "")
			allow()
			c.want(c.do("HEAD", "/v2/app/blobs/"+string(d), nil), 200, "")
			continue
		}
		_, got := c.want(step.do(), 403, "DENIED").error(t)
		want := "User: arn:aws:iam::123456789012:user/dev is not authorized to perform: ecr:" + step.action + " on resource: " + arn +
			" because no identity-based policy allows the ecr:" + step.action + " action"
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", step.action, got, want)
		}
		allow()
		c.want(step.do(), step.status, "")
	}
	c.want(referrers(), 200, "")
	// A repository that is not there is not told apart by who may not ask.
	c.want(c.do("GET", "/v2/secret/tags/list", nil), 403, "DENIED")
	r := admin.want(admin.do("GET", "/v2/nothere/tags/list", nil), 404, "NAME_UNKNOWN")
	if _, m := r.error(t); m != "The repository with name 'nothere' does not exist in the registry with id '123456789012'" {
		t.Error(m)
	}
}

func TestRepositoryPolicy(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	w.as(root()).image("app", "v1")
	everything := `{"Effect":"Allow","Action":"*","Resource":"*"}`
	nobody, stranger := w.as(w.user(account, "nobody")), w.as(w.user(other, "stranger", everything))
	powerless := w.as(w.user(other, "powerless"))
	for _, c := range []*client{stranger, powerless} {
		c.host = account + ".dkr.ecr.us-east-1.localhost:4566"
	}
	get := func(c *client) response { return c.do("GET", "/v2/app/manifests/v1", nil) }
	nobody.want(get(nobody), 403, "DENIED")
	_, m := stranger.want(get(stranger), 403, "DENIED").error(t)
	if !strings.HasSuffix(m, "because no resource-based policy allows the ecr:BatchGetImage action") {
		t.Error(m)
	}
	policy := func(effect, principal string) func(*state.Repository) {
		return func(r *state.Repository) {
			r.Policy = `{"Version":"2008-10-17","Statement":[{"Sid":"x","Effect":"` + effect + `","Principal":` + principal + `,"Action":["ecr:BatchGetImage"]}]}`
		}
	}
	w.repo("app", policy("Allow", `"*"`))
	nobody.want(get(nobody), 200, "") // in the account the repository's word is enough
	stranger.want(get(stranger), 200, "")
	powerless.want(get(powerless), 403, "DENIED") // from outside it takes both
	w.repo("app", policy("Deny", `{"AWS":"`+other+`"}`))
	stranger.want(get(stranger), 403, "DENIED")
	// The other's own registry is another one.
	stranger.host = ""
	stranger.want(get(stranger), 404, "NAME_UNKNOWN")
}

// What the region itself fetches it fetches with a password for one repository,
// for pulling, for a while.
func TestPullPassword(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	w.repo("other")
	owner := w.as(root())
	d := owner.push("app", random(64))
	elsewhere := owner.push("other", random(64))
	p, err := w.reg.PullPassword(account, "app", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{world: w, password: p}
	c.want(c.do("GET", "/v2/app/blobs/"+string(d), nil), 200, "")
	c.want(c.do("GET", "/v2/other/blobs/"+string(elsewhere), nil), 403, "DENIED")
	c.want(c.do("POST", "/v2/app/blobs/uploads/", nil), 403, "DENIED")
	w.ahead.Store(int64(2 * time.Hour))
	if r := c.do("GET", "/v2/app/blobs/"+string(d), nil); r.StatusCode == 200 {
		t.Errorf("pulled with a password of yesterday: %s", r)
	}
}
