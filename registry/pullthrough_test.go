package registry_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	gcrregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	gcr "github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// An elsewhere is another registry, which asks for a token as public ones do.
type elsewhere struct {
	*httptest.Server
	host  string
	blobs atomic.Int32 // GETs of blobs
	down  atomic.Bool
	wrong atomic.Bool // gives other bytes than it was asked for
}

const token = "a-token-for-everybody"

func newElsewhere(t *testing.T) *elsewhere {
	e := &elsewhere{}
	inner := gcrregistry.New(gcrregistry.Logger(log.New(io.Discard, "", 0)))
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case e.down.Load():
			http.Error(w, "down", http.StatusBadGateway)
		case r.URL.Path == "/token":
			fmt.Fprintf(w, `{"token":%q}`, token)
		case r.Method != http.MethodGet && r.Method != http.MethodHead: // the test itself fills it
			inner.ServeHTTP(w, r)
		case r.Header.Get("X-Test") == "" && r.Header.Get("Authorization") != "Bearer "+token:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="elsewhere",scope="repository:%s:pull"`, e.URL, "lib/app"))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
				e.blobs.Add(1)
				if e.wrong.Load() {
					io.WriteString(w, "something else")
					return
				}
			}
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(e.Close)
	e.host = strings.TrimPrefix(e.URL, "http://")
	return e
}

// ours is a transport of the test itself.
type ours struct{}

func (ours) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("X-Test", "1")
	return http.DefaultTransport.RoundTrip(r)
}

func (e *elsewhere) ref(t *testing.T, s string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(e.host + "/" + s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (e *elsewhere) push(t *testing.T, s string) v1.Image {
	t.Helper()
	img, err := gcr.Image(40<<10, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(e.ref(t, s), img, remote.WithTransport(ours{})); err != nil {
		t.Fatal(err)
	}
	return img
}

func (w *world) rule(prefix, host, upstreamPrefix string) {
	w.update(func(tx *store.Tx) {
		state.PullThroughRules.Put(tx, &state.PullThroughRule{Account: account, Prefix: prefix, Upstream: host, UpstreamPrefix: upstreamPrefix})
	})
}

// pull pulls a whole image by a client of its own, and answers its digest.
func (c *client) pull(s string) (string, error) {
	ref, err := name.ParseReference(strings.TrimPrefix(c.server.URL, "http://") + "/" + s)
	if err != nil {
		return "", err
	}
	img, err := remote.Image(ref, remote.WithAuth(&basic{c.password}))
	if err != nil {
		return "", err
	}
	layers, err := img.Layers()
	if err != nil {
		return "", err
	}
	if _, err := img.RawConfigFile(); err != nil {
		return "", err
	}
	for _, l := range layers {
		r, err := l.Compressed() // verified by the client
		if err != nil {
			return "", err
		}
		_, err = io.Copy(io.Discard, r)
		if err := r.Close(); err != nil {
			return "", err
		}
		if err != nil {
			return "", err
		}
	}
	d, err := img.Digest()
	return d.String(), err
}

// settled waits until an image is in a repository.
func (w *world) settled(repo, digest string) {
	w.t.Helper()
	watch := w.db.Watch(state.Images)
	defer watch.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for {
		snap, _, err := watch.Next(ctx)
		if err != nil {
			w.t.Fatalf("%s does not come: %v", digest, err)
		}
		if state.Images.Has(snap, state.ImageKey(account+"/"+repo, digest)) {
			return
		}
	}
}

func TestPullThrough(t *testing.T) {
	w, e := newWorld(t), newElsewhere(t)
	img := e.push(t, "lib/app:v1")
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	w.rule("hub", e.host, "ROOT")
	w.rule("cut", e.host, "lib")
	w.update(func(tx *store.Tx) {
		state.RepositoryTemplates.Put(tx, &state.RepositoryTemplate{Account: account, Prefix: "hub", AppliedFor: []string{registry.ForPullThrough}, TagMutability: "IMMUTABLE", Tags: []state.Tag{{Key: "k", Value: "v"}}})
		state.RepositoryTemplates.Put(tx, &state.RepositoryTemplate{Account: account, Prefix: "cut", AppliedFor: []string{registry.ForPush}, TagMutability: "IMMUTABLE"})
	})
	c := w.as(root())

	// Who may pull and not import sees what is here, and nothing is.
	reader := w.as(w.user(account, "reader", `{"Effect":"Allow","Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"],"Resource":"*"}`))
	_, text := reader.want(reader.do("GET", "/v2/hub/lib/app/manifests/v1", nil), 403, "DENIED").error(t)
	if !strings.Contains(text, "ecr:BatchImportUpstreamImage") {
		t.Error(text)
	}
	if e.blobs.Load() != 0 || state.Repositories.Count(w.db.Snapshot()) != 0 {
		t.Error("something was imported for who may not")
	}

	// Many at once fetch each layer once.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, err := c.pull("hub/lib/app:v1")
			if err != nil || got != want.String() {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
	wg.Wait()
	w.settled("hub/lib/app", want.String())
	if n := e.blobs.Load(); n != 4 {
		t.Errorf("%d layers were fetched, the image has 4", n)
	}
	repo, _ := state.Repositories.Get(w.db.Snapshot(), account+"/hub/lib/app")
	if repo == nil || repo.TagMutability != "IMMUTABLE" || len(repo.Tags) != 1 {
		t.Errorf("%+v", repo)
	}
	// A prefix upstream is cut off here; the other template is not for this.
	if got, err := c.pull("cut/app:v1"); err != nil || got != want.String() {
		t.Error(got, err)
	}
	w.settled("cut/app", want.String())
	if repo, _ := state.Repositories.Get(w.db.Snapshot(), account+"/cut/app"); repo == nil || repo.TagMutability != "MUTABLE" {
		t.Errorf("%+v", repo)
	}

	// From now on it is here, also without the other registry, and for readers.
	e.down.Store(true)
	for _, who := range []*client{c, reader} {
		if got, err := who.pull("hub/lib/app:v1"); err != nil || got != want.String() {
			t.Error(got, err)
		}
	}
	w.ahead.Store(int64(25 * time.Hour)) // the password has ended too
	c = w.as(root())
	forever, err := w.reg.Password(auth.WithCaller(t.Context(), root()), time.Now().Add(1000*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	c.password = forever
	if got, err := c.pull("cut/app:v1"); err != nil || got != want.String() {
		t.Error(got, err)
	}
	c.want(c.do("GET", "/v2/cut/app/manifests/v2", nil), 503, "UNAVAILABLE")

	// Back again, a tag that moved there moves here, once it is a day old.
	e.down.Store(false)
	next, err := e.push(t, "lib/app:v1").Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.pull("cut/app:v1"); err != nil || got != next.String() {
		t.Error(got, err)
	}
	w.settled("cut/app", next.String())
	e.push(t, "lib/app:v1")
	if got, err := c.pull("cut/app:v1"); err != nil || got != next.String() {
		t.Errorf("a tag that is fresh was asked for again: %s, %v", got, err)
	}
	c.want(c.do("GET", "/v2/cut/app/manifests/v2", nil), 404, "MANIFEST_UNKNOWN")
	c.want(c.do("GET", "/v2/nowhere/app/manifests/v2", nil), 404, "NAME_UNKNOWN")
}

// An index comes with all its images.
func TestPullThroughIndex(t *testing.T) {
	w, e := newWorld(t), newElsewhere(t)
	index, err := gcr.Index(20<<10, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(e.ref(t, "lib/app:multi"), index, remote.WithTransport(ours{})); err != nil {
		t.Fatal(err)
	}
	want, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	w.rule("ROOT", e.host, "ROOT")
	c := w.as(root())
	c.want(c.do("GET", "/v2/lib/app/manifests/multi", nil), 200, "")
	w.settled("lib/app", want.String())
	i, _ := state.Images.Get(w.db.Snapshot(), state.ImageKey(account+"/lib/app", want.String()))
	if len(i.Manifests) != 3 {
		t.Fatalf("%+v", i)
	}
	e.down.Store(true)
	for _, d := range i.Manifests {
		if got, err := c.pull("lib/app@" + d); err != nil || got != d {
			t.Error(got, err)
		}
	}
}

// Bytes that are not those of the digest are not kept, and not handed on.
func TestPullThroughVerifies(t *testing.T) {
	w, e := newWorld(t), newElsewhere(t)
	img := e.push(t, "lib/app:v1")
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	d, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	w.rule("hub", e.host, "ROOT")
	e.wrong.Store(true)
	c := w.as(root())
	c.want(c.do("GET", "/v2/hub/lib/app/manifests/v1", nil), 200, "")
	c.want(c.do("GET", "/v2/hub/lib/app/blobs/"+d.String(), nil), 400, "DIGEST_INVALID")
	w.reg.Close() // what was begun ends
	if state.Images.Count(w.db.Snapshot()) != 0 || state.RepositoryLayers.Count(w.db.Snapshot()) != 0 {
		t.Error("wrong bytes were kept")
	}
	if n := files(t, w.dir); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

// A push makes the repository if a template says so, for who may create it.
func TestCreateOnPush(t *testing.T) {
	w := newWorld(t)
	push := `{"Effect":"Allow","Action":["ecr:InitiateLayerUpload","ecr:UploadLayerPart","ecr:CompleteLayerUpload","ecr:PutImage","ecr:BatchCheckLayerAvailability"],"Resource":"*"}`
	c := w.as(root())
	pusher := w.as(w.user(account, "pusher", push))
	c.want(c.do("POST", "/v2/team/app/blobs/uploads/", nil), 404, "NAME_UNKNOWN")
	w.update(func(tx *store.Tx) {
		state.RepositoryTemplates.Put(tx, &state.RepositoryTemplate{Account: account, Prefix: "team/", AppliedFor: []string{registry.ForPush}, TagMutability: "IMMUTABLE"})
	})
	_, text := pusher.want(pusher.do("POST", "/v2/team/app/blobs/uploads/", nil), 403, "DENIED").error(t)
	if !strings.Contains(text, "ecr:CreateRepository") {
		t.Error(text)
	}
	c.want(c.do("POST", "/v2/teamapp/blobs/uploads/", nil), 404, "NAME_UNKNOWN")
	d := c.push("team/app", random(10))
	c.want(c.putManifest("team/app", "v1", manifest(d)), 201, "")
	if r, ok := state.Repositories.Get(w.db.Snapshot(), account+"/team/app"); !ok || r.TagMutability != "IMMUTABLE" || r.ARN == "" || r.CreatedAt.IsZero() {
		t.Errorf("%+v", r)
	}
	if r := c.want(c.do("HEAD", "/v2/team/app/manifests/v1", nil), 200, ""); r.Header.Get("Docker-Content-Digest") == "" {
		t.Error(r.Header)
	}
	pusher.want(pusher.do("POST", "/v2/team/app/blobs/uploads/", nil), 202, "") // it is there now
}

// What is in the archive cannot be pulled.
func TestArchived(t *testing.T) {
	w := newWorld(t)
	key := w.repo("app")
	c := w.as(root())
	layer := c.push("app", random(10))
	c.want(c.putManifest("app", "v1", manifest(layer)), 201, "")
	w.update(func(tx *store.Tx) {
		for i := range state.Images.Prefix(tx, key+"@") {
			next := *i
			next.ArchivedAt = time.Now()
			state.Images.Put(tx, &next)
		}
	})
	c.want(c.do("GET", "/v2/app/manifests/v1", nil), 400, "DENIED")
	c.want(c.do("GET", "/v2/app/blobs/"+string(layer), nil), 400, "DENIED")
	c.want(c.putManifest("app", "v1", manifest(layer)), 201, "") // who pushes it wants it
	c.want(c.do("GET", "/v2/app/manifests/v1", nil), 200, "")
	c.want(c.do("GET", "/v2/app/blobs/"+string(layer), nil), 200, "")
}

// basic is a login.
type basic struct{ password string }

func (b *basic) Authorization() (*authn.AuthConfig, error) {
	return &authn.AuthConfig{Username: "AWS", Password: b.password}, nil
}
