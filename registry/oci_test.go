package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	gcr "github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// The cases of the distribution specification, by its four workflows.

func TestPush(t *testing.T) {
	w := newWorld(t)
	w.repo("a/b.c/d")
	c := w.as(root())
	const blobs = "/v2/a/b.c/d/blobs/"
	begin := func() string {
		r := c.want(c.do("POST", blobs+"uploads/", nil), 202, "")
		loc := r.Header.Get("Location")
		if loc == "" || r.Header.Get("Docker-Upload-Uuid") == "" || r.Header.Get("Range") != "0-0" {
			t.Fatalf("begin: %v", r.Header)
		}
		return loc
	}
	has := func(b []byte) {
		t.Helper()
		d := string(content.Sum(b))
		r := c.want(c.do("HEAD", blobs+d, nil), 200, "")
		if r.ContentLength != int64(len(b)) || r.Header.Get("Docker-Content-Digest") != d {
			t.Errorf("HEAD: %v", r.Header)
		}
		if r := c.want(c.do("GET", blobs+d, nil), 200, ""); !bytes.Equal(r.body, b) {
			t.Error("content differs")
		}
	}
	created := func(r response, d content.Digest) {
		t.Helper()
		c.want(r, 201, "")
		if r.Header.Get("Location") != blobs+string(d) || r.Header.Get("Docker-Content-Digest") != string(d) {
			t.Errorf("created: %v", r.Header)
		}
	}

	t.Run("POST then PUT", func(t *testing.T) {
		b := random(1000)
		created(c.do("PUT", begin()+"?digest="+string(content.Sum(b)), bytes.NewReader(b)), content.Sum(b))
		has(b)
	})
	t.Run("single POST", func(t *testing.T) {
		b := random(1000)
		created(c.do("POST", blobs+"uploads/?digest="+string(content.Sum(b)), bytes.NewReader(b)), content.Sum(b))
		has(b)
	})
	t.Run("empty blob", func(t *testing.T) {
		created(c.do("PUT", begin()+"?digest="+string(content.Sum(nil)), nil), content.Sum(nil))
		has([]byte{})
	})
	t.Run("chunks", func(t *testing.T) {
		b := random(3000)
		loc := begin()
		for i := range 3 {
			r := c.want(c.do("PATCH", loc, bytes.NewReader(b[i*1000:(i+1)*1000]), fmt.Sprintf("Content-Range: %d-%d", i*1000, i*1000+999)), 202, "")
			if got, want := r.Header.Get("Range"), fmt.Sprintf("0-%d", i*1000+999); got != want {
				t.Errorf("Range %s, want %s", got, want)
			}
		}
		r := c.want(c.do("GET", loc, nil), 204, "")
		if r.Header.Get("Range") != "0-2999" || r.Header.Get("Location") == "" {
			t.Errorf("status: %v", r.Header)
		}
		created(c.do("PUT", loc+"?digest="+string(content.Sum(b)), nil), content.Sum(b))
		has(b)
		c.want(c.do("PATCH", loc, bytes.NewReader(b)), 404, "BLOB_UPLOAD_UNKNOWN")
	})
	t.Run("last chunk in PUT", func(t *testing.T) {
		b := random(2000)
		loc := begin()
		c.want(c.do("PATCH", loc, bytes.NewReader(b[:1500])), 202, "")
		created(c.do("PUT", loc+"?digest="+string(content.Sum(b)), bytes.NewReader(b[1500:]), "Content-Range: 1500-1999"), content.Sum(b))
		has(b)
	})
	t.Run("chunk out of order", func(t *testing.T) {
		b := random(2000)
		loc := begin()
		c.want(c.do("PATCH", loc, bytes.NewReader(b[:1000]), "Content-Range: 0-999"), 202, "")
		r := c.want(c.do("PATCH", loc, bytes.NewReader(b[1500:]), "Content-Range: 1500-1999"), 416, "BLOB_UPLOAD_INVALID")
		if r.Header.Get("Range") != "0-999" {
			t.Errorf("Range %q", r.Header.Get("Range"))
		}
		c.want(c.do("PATCH", loc, bytes.NewReader(b[1000:]), "Content-Range: 1000-1500"), 400, "BLOB_UPLOAD_INVALID")
		c.want(c.do("PATCH", loc, bytes.NewReader(b[1000:]), "Content-Range: 1000-1999"), 202, "")
		created(c.do("PUT", loc+"?digest="+string(content.Sum(b)), nil), content.Sum(b))
	})
	t.Run("wrong digest", func(t *testing.T) {
		b := random(100)
		loc := begin()
		c.want(c.do("PUT", loc+"?digest="+string(content.Sum(nil)), bytes.NewReader(b)), 400, "DIGEST_INVALID")
		c.want(c.do("GET", loc, nil), 404, "BLOB_UPLOAD_UNKNOWN")
		c.want(c.do("HEAD", blobs+string(content.Sum(b)), nil), 404, "")
		c.want(c.do("PUT", begin()+"?digest=sha256:12", nil), 400, "DIGEST_INVALID")
		c.want(c.do("POST", blobs+"uploads/?digest=sha512:00", nil), 400, "DIGEST_INVALID")
	})
	t.Run("cancel", func(t *testing.T) {
		loc := begin()
		c.want(c.do("DELETE", loc, nil), 204, "")
		c.want(c.do("GET", loc, nil), 404, "BLOB_UPLOAD_UNKNOWN")
	})
	t.Run("an upload belongs to its repository", func(t *testing.T) {
		w.repo("else")
		loc := begin()
		c.want(c.do("GET", strings.Replace(loc, "a/b.c/d", "else", 1), nil), 404, "BLOB_UPLOAD_UNKNOWN")
	})
	t.Run("manifest", func(t *testing.T) {
		config, layer := random(20), random(30)
		m := manifest(content.Sum(config), content.Sum(layer))
		const at = "/v2/a/b.c/d/manifests/"
		r := c.want(c.putManifest("a/b.c/d", "v1", m), 400, "MANIFEST_BLOB_UNKNOWN")
		if _, text := r.error(t); !strings.Contains(text, string(content.Sum(layer))) {
			t.Error(text)
		}
		c.push("a/b.c/d", config)
		c.push("a/b.c/d", layer)
		d := content.Sum(m)
		for _, ref := range []string{"v1", string(d), "v1"} { // again is no error
			r := c.want(c.putManifest("a/b.c/d", ref, m), 201, "")
			if r.Header.Get("Location") != at+string(d) || r.Header.Get("Docker-Content-Digest") != string(d) {
				t.Errorf("created: %v", r.Header)
			}
		}
		c.want(c.putManifest("a/b.c/d", string(content.Sum(nil)), m), 400, "DIGEST_INVALID")
		c.want(c.putManifest("a/b.c/d", "-bad", m), 400, "TAG_INVALID")
		c.want(c.do("PUT", at+"v2", strings.NewReader("{"), "Content-Type: "+image.OCIManifest), 400, "MANIFEST_INVALID")
		c.want(c.do("PUT", at+"v2", bytes.NewReader(m), "Content-Type: "+image.OCIIndex), 400, "MANIFEST_INVALID")
		c.want(c.do("PUT", at+"v2", io.LimitReader(zeros{}, image.MaxManifest+1), "Content-Type: "+image.OCIIndex), 413, "SIZE_INVALID")
	})
	c.want(c.do("POST", "/v2/A/blobs/uploads/", nil), 400, "NAME_INVALID")
	c.want(c.do("POST", "/v2/nothere/blobs/uploads/", nil), 404, "NAME_UNKNOWN")
	c.want(c.do("GET", "/v2/a/b.c/d/what/ever", nil), 404, "")
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestPull(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	c := w.as(root())
	layer := random(1000)
	d := c.push("app", layer)
	m := manifest(d)
	c.want(c.putManifest("app", "v1", m), 201, "")
	for _, ref := range []string{"v1", string(content.Sum(m))} {
		r := c.want(c.do("GET", "/v2/app/manifests/"+ref, nil), 200, "")
		if !bytes.Equal(r.body, m) || r.Header.Get("Content-Type") != image.OCIManifest || r.Header.Get("Docker-Content-Digest") != string(content.Sum(m)) {
			t.Errorf("GET %s: %v", ref, r.Header)
		}
		r = c.want(c.do("HEAD", "/v2/app/manifests/"+ref, nil), 200, "")
		if r.ContentLength != int64(len(m)) || r.Header.Get("Content-Type") != image.OCIManifest {
			t.Errorf("HEAD %s: %v", ref, r.Header)
		}
	}
	unknown := string(content.Sum([]byte("x")))
	c.want(c.do("GET", "/v2/app/manifests/v9", nil), 404, "MANIFEST_UNKNOWN")
	c.want(c.do("GET", "/v2/app/manifests/"+unknown, nil), 404, "MANIFEST_UNKNOWN")
	c.want(c.do("HEAD", "/v2/app/manifests/"+unknown, nil), 404, "")
	c.want(c.do("GET", "/v2/app/manifests/sha256:xyz", nil), 400, "DIGEST_INVALID")
	c.want(c.do("GET", "/v2/app/blobs/"+unknown, nil), 404, "BLOB_UNKNOWN")
	c.want(c.do("GET", "/v2/app/blobs/sha256:xyz", nil), 400, "DIGEST_INVALID")

	url := "/v2/app/blobs/" + string(d)
	for _, x := range []struct {
		header, contentRange string
		status               int
		body                 []byte
	}{
		{"bytes=0-9", "bytes 0-9/1000", 206, layer[:10]},
		{"bytes=990-", "bytes 990-999/1000", 206, layer[990:]},
		{"bytes=-10", "bytes 990-999/1000", 206, layer[990:]},
		{"bytes=500-5000", "bytes 500-999/1000", 206, layer[500:]},
		{"bytes=1000-", "bytes */1000", 416, nil},
		{"bytes=0-1,5-6", "", 200, layer},
		{"lines=1-2", "", 200, layer},
	} {
		r := c.want(c.do("GET", url, nil, "Range: "+x.header), x.status, "")
		if r.Header.Get("Content-Range") != x.contentRange || x.body != nil && !bytes.Equal(r.body, x.body) {
			t.Errorf("%s: %v, %d bytes", x.header, r.Header, len(r.body))
		}
	}
}

func TestDiscovery(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	w.repo("app2") // a neighbour in the order of keys
	c := w.as(root())
	c.image("app2", "other")
	list := func(query string) (names []string, link string) {
		r := c.want(c.do("GET", "/v2/app/tags/list"+query, nil), 200, "")
		var doc struct {
			Name string
			Tags []string
		}
		if err := json.Unmarshal(r.body, &doc); err != nil || doc.Name != "app" || doc.Tags == nil {
			t.Fatalf("%s: %v", r, err)
		}
		return doc.Tags, r.Header.Get("Link")
	}
	if tags, _ := list(""); len(tags) != 0 {
		t.Error(tags)
	}
	var all []string
	m := manifest(c.push("app", random(10)))
	for _, tag := range []string{"c", "a", "b", "Z", "e", "d"} {
		c.want(c.putManifest("app", tag, m), 201, "")
		all = append(all, tag)
	}
	slices.Sort(all)
	if tags, link := list(""); !slices.Equal(tags, all) || link != "" {
		t.Error(tags, link)
	}
	var paged []string
	for query := "?n=4"; query != ""; {
		tags, link := list(query)
		paged = append(paged, tags...)
		if query = ""; link != "" {
			url, _, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
			_, query, _ = strings.Cut(url, "?")
			query = "?" + query
		}
	}
	if !slices.Equal(paged, all) {
		t.Error(paged)
	}
	if tags, _ := list("?n=2&last=a"); !slices.Equal(tags, []string{"b", "c"}) {
		t.Error(tags)
	}
	if tags, link := list("?n=0"); len(tags) != 0 || link != "" {
		t.Error(tags, link)
	}
	c.want(c.do("GET", "/v2/app/tags/list?n=x", nil), 400, "PAGINATION_NUMBER_INVALID")

	// Referrers: the subject need not be there.
	subject := content.Sum(m)
	refer := func(artifactType, note string) content.Digest {
		doc := map[string]any{
			"schemaVersion": 2, "mediaType": image.OCIManifest, "artifactType": artifactType, "annotations": map[string]string{"note": note},
			"config":  map[string]any{"mediaType": "application/vnd.oci.empty.v1+json", "digest": c.push("app", []byte("{}")), "size": 2},
			"layers":  []any{},
			"subject": map[string]any{"mediaType": image.OCIManifest, "digest": subject, "size": len(m)},
		}
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		r := c.want(c.putManifest("app", string(content.Sum(b)), b), 201, "")
		if r.Header.Get("OCI-Subject") != string(subject) {
			t.Errorf("OCI-Subject %q", r.Header.Get("OCI-Subject"))
		}
		return content.Sum(b)
	}
	sbom, sig := refer("test/sbom", "one"), refer("test/sig", "two")
	referrers := func(of content.Digest, query string) (map[string]string, http.Header) {
		r := c.want(c.do("GET", "/v2/app/referrers/"+string(of)+query, nil), 200, "")
		var doc struct {
			SchemaVersion int
			MediaType     string
			Manifests     []struct {
				Digest, ArtifactType string
				Annotations          map[string]string
			}
		}
		if err := json.Unmarshal(r.body, &doc); err != nil || doc.SchemaVersion != 2 || doc.MediaType != image.OCIIndex || doc.Manifests == nil || r.Header.Get("Content-Type") != image.OCIIndex {
			t.Fatalf("%s %v", r, err)
		}
		got := map[string]string{}
		for _, m := range doc.Manifests {
			got[m.Digest] = m.ArtifactType + " " + m.Annotations["note"]
		}
		return got, r.Header
	}
	if got, _ := referrers(subject, ""); len(got) != 2 || got[string(sbom)] != "test/sbom one" || got[string(sig)] != "test/sig two" {
		t.Error(got)
	}
	if got, h := referrers(subject, "?artifactType=test/sig"); len(got) != 1 || h.Get("OCI-Filters-Applied") != "artifactType" {
		t.Error(got, h)
	}
	if got, _ := referrers(content.Sum(nil), ""); len(got) != 0 {
		t.Error(got)
	}
	c.want(c.do("DELETE", "/v2/app/manifests/"+string(sig), nil), 202, "")
	if got, _ := referrers(subject, ""); len(got) != 1 {
		t.Error(got)
	}
}

func TestManagement(t *testing.T) {
	w := newWorld(t)
	key := w.repo("app")
	c := w.as(root())
	m := manifest(c.push("app", random(10)))
	d := content.Sum(m)
	for _, tag := range []string{"a", "b"} {
		c.want(c.putManifest("app", tag, m), 201, "")
	}
	const at = "/v2/app/manifests/"
	c.want(c.do("DELETE", at+"a", nil), 202, "")
	c.want(c.do("GET", at+"a", nil), 404, "MANIFEST_UNKNOWN")
	c.want(c.do("GET", at+string(d), nil), 200, "")
	c.want(c.do("DELETE", at+"b", nil), 202, "")
	c.want(c.do("GET", at+string(d), nil), 404, "MANIFEST_UNKNOWN") // gone with its last tag
	c.want(c.do("DELETE", at+string(d), nil), 404, "MANIFEST_UNKNOWN")

	// By digest with all its tags; not below an index.
	for _, tag := range []string{"a", "b"} {
		c.want(c.putManifest("app", tag, m), 201, "")
	}
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, image.OCIIndex, image.OCIManifest, d, len(m))
	c.want(c.putManifest("app", "multi", index), 201, "")
	r := c.want(c.do("DELETE", at+string(d), nil), 400, "DENIED")
	if _, text := r.error(t); text != "Requested image referenced by manifest list: ["+string(content.Sum(index))+"]" {
		t.Error(text)
	}
	c.want(c.do("DELETE", at+string(content.Sum(index)), nil), 202, "")
	c.want(c.do("DELETE", at+string(d), nil), 202, "")
	if n := slices.Collect(state.ImageTags.Prefix(w.db.Snapshot(), key+":")); len(n) != 0 {
		t.Error(n)
	}
	c.want(c.putManifest("app", "multi", index), 400, "MANIFEST_BLOB_UNKNOWN") // its image is gone
}

// A layer goes by itself only if nothing needs it.
func TestDeleteLayer(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	c := w.as(root())
	d := c.push("app", random(10))
	blob := "/v2/app/blobs/" + string(d)
	c.want(c.putManifest("app", "v1", manifest(d)), 201, "")
	c.want(c.do("DELETE", blob, nil), 409, "DENIED")
	c.want(c.do("DELETE", "/v2/app/manifests/v1", nil), 202, "")
	reader := w.as(w.user(account, "reader", `{"Effect":"Allow","Action":"ecr:Get*","Resource":"*"}`))
	reader.want(reader.do("DELETE", blob, nil), 403, "DENIED")
	c.want(c.do("DELETE", "/v2/app/blobs/x", nil), 400, "DIGEST_INVALID")
	c.want(c.do("DELETE", blob, nil), 202, "")
	c.want(c.do("GET", blob, nil), 404, "BLOB_UNKNOWN")
	c.want(c.do("DELETE", blob, nil), 404, "BLOB_UNKNOWN")
	c.want(c.putManifest("app", "v1", manifest(d)), 400, "MANIFEST_BLOB_UNKNOWN")
}

func TestImmutableTags(t *testing.T) {
	w := newWorld(t)
	w.repo("app", func(r *state.Repository) { r.TagMutability = "IMMUTABLE" })
	c := w.as(root())
	m1, m2 := manifest(c.push("app", random(10))), manifest(c.push("app", random(10)))
	c.want(c.putManifest("app", "v1", m1), 201, "")
	c.want(c.putManifest("app", "v1", m1), 201, "") // the same is not overwritten
	_, text := c.want(c.putManifest("app", "v1", m2), 400, "TAG_INVALID").error(t)
	if text != "The image tag 'v1' already exists in the 'app' repository and cannot be overwritten because the tag is immutable." {
		t.Error(text)
	}
	for _, x := range []struct {
		mutability, filter, tag string
		status                  int
	}{
		{"IMMUTABLE_WITH_EXCLUSION", "dev-*", "dev-1", 201},
		{"IMMUTABLE_WITH_EXCLUSION", "dev-*", "v1", 400},
		{"MUTABLE_WITH_EXCLUSION", "*-rel*", "v1-rel2", 400},
		{"MUTABLE_WITH_EXCLUSION", "*-rel*", "v1", 201},
	} {
		w.repo("app", func(r *state.Repository) { r.TagMutability = "MUTABLE"; r.Exclusions = nil })
		c.want(c.putManifest("app", x.tag, m1), 201, "")
		w.repo("app", func(r *state.Repository) {
			r.TagMutability, r.Exclusions = x.mutability, []state.ImageTagFilter{{Type: "WILDCARD", Filter: x.filter}}
		})
		c.want(c.putManifest("app", x.tag, m2), x.status, "")
	}
}

// A layer is part of a repository, whatever others have.
func TestMount(t *testing.T) {
	w := newWorld(t)
	from, to := w.repo("from"), w.repo("to")
	c := w.as(root())
	d := c.push("from", random(100))
	c.want(c.do("HEAD", "/v2/to/blobs/"+string(d), nil), 404, "")
	mount := "/v2/to/blobs/uploads/?from=from&mount=" + string(d)
	c.want(c.do("POST", mount, nil), 202, "") // the account has not said that it may
	w.update(func(tx *store.Tx) {
		state.RegistrySettings.Put(tx, &state.RegistrySetting{Account: account, Name: "BLOB_MOUNTING", Value: "ENABLED"})
	})
	push := `{"Effect":"Allow","Action":["ecr:InitiateLayerUpload","ecr:BatchCheckLayerAvailability"],"Resource":"*"}`
	u := w.as(w.user(account, "pusher", push))
	u.want(u.do("POST", mount, nil), 202, "") // may not read the source: it looks as if it were not there
	r := c.want(c.do("POST", mount, nil), 201, "")
	if r.Header.Get("Location") != "/v2/to/blobs/"+string(d) {
		t.Error(r.Header)
	}
	u.want(u.do("HEAD", "/v2/to/blobs/"+string(d), nil), 200, "")
	c.want(c.do("POST", "/v2/to/blobs/uploads/?from=nothere&mount="+string(content.Sum(nil)), nil), 202, "")
	c.want(c.do("POST", "/v2/to/blobs/uploads/?mount="+string(content.Sum(nil)), nil), 202, "")
	// Without a source: from wherever the account has it, if the caller may read that.
	w.repo("third")
	d = c.push("from", random(100))
	u.want(u.do("POST", "/v2/third/blobs/uploads/?mount="+string(d), nil), 202, "")
	c.want(c.do("POST", "/v2/third/blobs/uploads/?mount="+string(d), nil), 201, "")
	if from == to {
		t.Fatal()
	}
}

// go-containerregistry, as a client that was not written for us.
func TestClient(t *testing.T) {
	w := newWorld(t)
	w.repo("app")
	host := strings.TrimPrefix(w.server.URL, "http://")
	login := remote.WithAuth(&authn.Basic{Username: "AWS", Password: w.password(root())})
	img, err := gcr.Image(300<<10, 4)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.ParseReference(host + "/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img, login); err != nil {
		t.Fatal(err)
	}
	back, err := remote.Image(tag, login)
	if err != nil {
		t.Fatal(err)
	}
	same(t, img, back)

	index, err := gcr.Index(10<<10, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	multi := tag.Context().Tag("multi")
	if err := remote.WriteIndex(multi, index, login); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Index(multi, login)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := must(index.Digest()), must(got.Digest()); a != b {
		t.Errorf("%v != %v", a, b)
	}
	// An artifact about the image.
	desc, err := remote.Head(tag, login)
	if err != nil {
		t.Fatal(err)
	}
	about := mutate.Subject(mutate.MediaType(img, types.OCIManifestSchema1), *desc).(v1.Image)
	if err := remote.Write(tag.Context().Digest(must(about.Digest()).String()), about, login); err != nil {
		t.Fatal(err)
	}
	refs, err := remote.Referrers(tag.Context().Digest(desc.Digest.String()), login)
	if err != nil {
		t.Fatal(err)
	}
	if m := must(refs.IndexManifest()); len(m.Manifests) != 1 {
		t.Errorf("referrers: %+v", m.Manifests)
	}
	if tags, err := remote.List(tag.Context(), login); err != nil || !slices.Equal(tags, []string{"multi", "v1"}) {
		t.Error(tags, err)
	}
	if err := remote.Delete(tag, login); err != nil {
		t.Error(err)
	}
	if _, err := remote.CatalogPage(tag.Context().Registry, "", 10, login); err == nil {
		t.Error("the catalog is not supported, and answered")
	}
	if _, err := remote.Image(multi, remote.WithAuth(authn.Anonymous)); err == nil {
		t.Error("pulled without credentials")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func same(t *testing.T, a, b v1.Image) {
	t.Helper()
	if x, y := must(a.Digest()), must(b.Digest()); x != y {
		t.Fatalf("%v != %v", x, y)
	}
	for _, l := range must(b.Layers()) {
		r, err := l.Compressed() // verified while it is read
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
}
