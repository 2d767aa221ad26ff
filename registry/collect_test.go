package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/store/state"
)

// files counts what is below a folder.
func files(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCollect(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	w.repo("app2")
	c := w.as(root())
	shared := random(100)
	d := c.push("app", shared)
	c.push("app2", shared)
	c.want(c.putManifest("app", "v1", manifest(d, c.push("app", random(10)))), 201, "")
	c.want(c.putManifest("app2", "v1", manifest(d)), 201, "")
	left := c.do("POST", "/v2/app/blobs/uploads/", nil).Header.Get("Location")
	c.push("app", random(10)) // of an image that never comes

	blobs := filepath.Join(w.dir, "blobs")
	collect := func(later time.Duration, want int) {
		t.Helper()
		w.ahead.Add(int64(later))
		if err := w.reg.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := files(t, blobs); n != want {
			t.Fatalf("%d blobs are left, want %d", n, want)
		}
	}
	forever, err := w.reg.Password(auth.WithCaller(t.Context(), root()), time.Now().Add(1000*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	c.password = forever
	c.want(c.do("GET", left, nil), 204, "")
	collect(0, 5)
	collect(11*time.Hour, 5)
	collect(14*time.Hour, 4) // what was never used, and the upload
	c.want(c.do("GET", left, nil), 404, "BLOB_UPLOAD_UNKNOWN")
	c.want(c.do("DELETE", "/v2/app/manifests/v1", nil), 202, "")
	collect(0, 3) // its manifest is old; its layers are idle from now on
	collect(25*time.Hour, 2)
	c.want(c.do("GET", "/v2/app2/blobs/"+string(d), nil), 200, "")
	c.want(c.do("HEAD", "/v2/app/blobs/"+string(d), nil), 404, "")
	c.want(c.do("DELETE", "/v2/app2/manifests/v1", nil), 202, "")
	collect(0, 1)
	collect(25*time.Hour, 0)
	if n := state.RepositoryLayers.Count(w.db.Snapshot()); n != 0 {
		t.Errorf("%d layers are left", n)
	}
	if n := files(t, w.dir); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

// Collection at its most eager, with no grace at all, while the same few images
// are pushed and deleted by several: a push may find its layers gone, and says
// so, but an image that was accepted can be pulled.
func TestCollectWhilePushing(t *testing.T) {
	w := newWorld(t)
	w.reg.Grace = time.Nanosecond
	w.repo("app")
	w.repo("app2")
	layers := [][]byte{random(10), random(20), random(30)}
	stop := make(chan struct{})
	var collector, pushers sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := w.reg.Collect(context.Background()); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
				return
			}
		}
	})
	for i := range 4 {
		pushers.Go(func() {
			repo := []string{"app", "app2"}[i%2]
			key := state.RepositoryKey(account, repo)
			for n := range 40 {
				b := layers[(n+i)%3]
				d := content.Sum(b)
				u, err := w.reg.BeginUpload(key)
				if err != nil {
					t.Error(err)
					return
				}
				_, _, err = w.reg.CompleteUpload(context.Background(), key, u, d, bytes.NewReader(b), 0)
				if errors.Is(err, content.ErrUnknownUpload) {
					continue // collected
				}
				if err != nil {
					t.Error(err)
					return
				}
				img, _, err := w.reg.PutImage(context.Background(), key, "", manifest(d), "", "")
				if err != nil {
					if !strings.Contains(err.Error(), "do not exist in the repository") {
						t.Error(err)
					}
					continue
				}
				if _, err := os.Stat(filepath.Join(w.dir, "blobs/sha256", d.Hex()[:2], d.Hex())); err != nil {
					// Only right if somebody deleted the image meanwhile.
					if _, ok := state.Images.Get(w.db.Snapshot(), img.Key()); ok {
						t.Error(err)
					}
				}
				if n%2 == 0 {
					w.reg.DeleteImage(context.Background(), key, img.Digest, "") // or another was faster
				}
			}
		})
	}
	pushers.Wait()
	close(stop)
	collector.Wait()
	// In the end everything that is left is whole.
	c := w.as(root())
	for i := range state.Images.All(w.db.Snapshot()) {
		_, repo := state.RepositoryOf(i.Repository)
		c.want(c.do("GET", "/v2/"+repo+"/manifests/"+i.Digest, nil), 200, "")
		for _, l := range i.Layers {
			c.want(c.do("GET", "/v2/"+repo+"/blobs/"+l, nil), 200, "")
		}
	}
}

// 32 pulls and 8 pushes of one layer, all at once.
func TestParallel(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	c := w.as(root())
	big := random(4 << 20)
	d := c.push("app", big)
	fresh := random(1 << 20)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			req, err := http.NewRequest("GET", w.server.URL+"/v2/app/blobs/"+string(d), nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.SetBasicAuth("AWS", c.password)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); err != nil || content.Sum(b) != d {
				t.Errorf("pull: %d bytes, %v", len(b), err)
			}
		})
	}
	for range 8 {
		wg.Go(func() {
			req, err := http.NewRequest("POST", w.server.URL+"/v2/app/blobs/uploads/?digest="+string(content.Sum(fresh)), bytes.NewReader(fresh))
			if err != nil {
				t.Error(err)
				return
			}
			req.SetBasicAuth("AWS", c.password)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			if res.StatusCode != 201 {
				t.Errorf("push: %s", res.Status)
			}
		})
	}
	wg.Wait()
	if r := c.want(c.do("GET", "/v2/app/blobs/"+string(content.Sum(fresh)), nil), 200, ""); !bytes.Equal(r.body, fresh) {
		t.Error("content differs")
	}
}

// A tag that many move at once names one of theirs, and every image is there.
func TestMoveTagAtOnce(t *testing.T) {
	w := newWorld(t)
	w.repo("app", func(r *state.Repository) { r.TagMutability = "IMMUTABLE" })
	c := w.as(root())
	var docs [][]byte
	for range 8 {
		docs = append(docs, manifest(c.push("app", random(10))))
	}
	var wg sync.WaitGroup
	won := make(chan string, len(docs))
	for _, m := range docs {
		wg.Go(func() {
			img, _, err := w.reg.PutImage(context.Background(), state.RepositoryKey(account, "app"), "", m, "v1", "")
			if err == nil {
				won <- img.Digest
			} else if !strings.Contains(err.Error(), "immutable") {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(won)
	if len(won) != 1 {
		t.Fatalf("%d writers set an immutable tag", len(won))
	}
	r := c.want(c.do("HEAD", "/v2/app/manifests/v1", nil), 200, "")
	if got := r.Header.Get("Docker-Content-Digest"); got != <-won {
		t.Error(got)
	}
}

// The registry comes back with all that it had, uploads included.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	c := w.as(root())
	b := random(3000)
	loc := c.want(c.do("POST", "/v2/app/blobs/uploads/", nil), 202, "").Header.Get("Location")
	c.want(c.do("PATCH", loc, bytes.NewReader(b[:2000])), 202, "")
	d := c.image("app", "v1")
	w.server.Close()
	w.open()
	// The same password holds: its key is the region's.
	c.want(c.do("GET", "/v2/app/manifests/"+string(d), nil), 200, "")
	r := c.want(c.do("GET", loc, nil), 204, "")
	if r.Header.Get("Range") != "0-1999" {
		t.Error(r.Header)
	}
	c.want(c.do("PUT", loc+"?digest="+string(content.Sum(b)), bytes.NewReader(b[2000:]), "Content-Range: 2000-2999"), 201, "")
}

// A client that goes away in the middle of a chunk goes on from where it was.
func TestBrokenChunk(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	c := w.as(root())
	b := random(2 << 20)
	loc := c.want(c.do("POST", "/v2/app/blobs/uploads/", nil), 202, "").Header.Get("Location")
	pr, pw := io.Pipe()
	req, err := http.NewRequest("PATCH", w.server.URL+loc, pr)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("AWS", c.password)
	// The body is sent once the server reads it: the question below must not overtake the chunk.
	req.Header.Set("Expect", "100-continue")
	transport := &http.Transport{ExpectContinueTimeout: time.Minute}
	defer transport.CloseIdleConnections()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if res, err := (&http.Client{Transport: transport}).Do(req); err == nil {
			res.Body.Close()
			t.Error("a broken request was answered")
		}
	}()
	if _, err := pw.Write(b[:1_500_000]); err != nil {
		t.Fatal(err)
	}
	pw.CloseWithError(errors.New("gone"))
	<-done
	r := c.want(c.do("GET", loc, nil), 204, "") // waits for the broken one to end
	var last int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "0-%d", &last); err != nil {
		t.Fatal(err)
	}
	if last+1 > 1_500_000 {
		t.Fatalf("%d bytes arrived", last+1)
	}
	from := last + 1
	if last == 0 {
		from = 0
	}
	c.want(c.do("PUT", loc+"?digest="+string(content.Sum(b)), bytes.NewReader(b[from:])), 201, "")
}
