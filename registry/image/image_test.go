package image_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var d0 = string(content.Sum([]byte("0")))

func TestParse(t *testing.T) {
	config := `"config":{"mediaType":"c","digest":"` + d0 + `","size":1}`
	for _, x := range []struct{ name, mediaType, doc, err string }{
		{"image", image.OCIManifest, `{"schemaVersion":2,` + config + `,"layers":[]}`, ""},
		{"type inside", "", `{"schemaVersion":2,"mediaType":"` + image.DockerManifest + `",` + config + `}`, ""},
		{"no type", "", `{"schemaVersion":2,` + config + `}`, "mediatype not provided"},
		{"two types", image.OCIManifest, `{"schemaVersion":2,"mediaType":"` + image.DockerManifest + `",` + config + `}`, "but was sent as"},
		{"both kinds", image.OCIManifest, `{"schemaVersion":2,` + config + `,"manifests":[]}`, "members of an index"},
		{"both kinds, other way", image.OCIIndex, `{"schemaVersion":2,"manifests":[],"layers":[]}`, "members of an image"},
		{"no config", image.OCIManifest, `{"schemaVersion":2,"layers":[]}`, "no config"},
		{"bad digest", image.OCIIndex, `{"schemaVersion":2,"manifests":[{"digest":"sha256:../x","size":1}]}`, "not a sha256 or sha512 digest"},
		{"negative size", image.OCIIndex, `{"schemaVersion":2,"manifests":[{"digest":"` + d0 + `","size":-1}]}`, "negative"},
		{"bad subject", image.OCIIndex, `{"schemaVersion":2,"subject":{}}`, "not a sha256 or sha512 digest"},
		{"schema 1", "application/vnd.docker.distribution.manifest.v1+json", `{"schemaVersion":1}`, "schema version 1"},
		{"unknown", "text/plain", `{"schemaVersion":2}`, "not supported"},
		{"not JSON", image.OCIIndex, `{`, "not valid JSON"},
		{"trailing", image.OCIIndex, `{"schemaVersion":2}x`, "not valid JSON"},
		{"not UTF-8", image.OCIIndex, "{\"schemaVersion\":2,\"x\":\"\xff\"}", "not UTF-8"},
		{"large", image.OCIIndex, strings.Repeat(" ", image.MaxManifest+1), "larger than"},
	} {
		_, err := image.Parse(x.mediaType, []byte(x.doc))
		if (err == nil) != (x.err == "") || err != nil && !strings.Contains(err.Error(), x.err) {
			t.Errorf("%s: %v, want %q", x.name, err, x.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(image.OCIManifest, []byte(`{"schemaVersion":2,"config":{"digest":"`+d0+`"},"layers":[]}`))
	f.Add("", []byte(`{"schemaVersion":2,"mediaType":"`+image.OCIIndex+`","manifests":[{"digest":"`+d0+`"}],"subject":{"digest":"`+d0+`"}}`))
	f.Fuzz(func(t *testing.T, mediaType string, b []byte) {
		m, err := image.Parse(mediaType, b)
		if err != nil {
			return
		}
		if m.Index() == (len(m.Layers) > 0) && len(m.Layers) > 0 || m.Digest != content.Sum(b) {
			t.Errorf("%+v", m)
		}
		for _, d := range append(append([]image.Descriptor{}, m.Layers...), m.Manifests...) {
			if _, ok := content.ParseDigest(d.Digest); !ok {
				t.Errorf("digest %q", d.Digest)
			}
		}
	})
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"ab": true, "a/b": true, "a-b.c_d/e--f/g__h": true, "0/1": true,
		"a": false, "A": false, "a/": false, "/a": false, "a//b": false, "a..b": false, "a_": false, "": false, "a___b": false,
		strings.Repeat("a", 256): true, strings.Repeat("a", 257): false,
	} {
		if image.ValidName(name) != ok {
			t.Errorf("ValidName(%q) is %v", name, !ok)
		}
	}
}

func TestMutable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A filter against a reference: the star eats any prefix, one by one.
		var naive func(p, s string) bool
		naive = func(p, s string) bool {
			switch {
			case p == "":
				return s == ""
			case p[0] == '*':
				return naive(p[1:], s) || s != "" && naive(p, s[1:])
			}
			return s != "" && p[0] == s[0] && naive(p[1:], s[1:])
		}
		filter := rapid.StringMatching(`[ab*]{1,6}`).Draw(t, "filter")
		tag := rapid.StringMatching(`[ab]{1,8}`).Draw(t, "tag")
		repo := &state.Repository{TagMutability: "IMMUTABLE_WITH_EXCLUSION", Exclusions: []state.ImageTagFilter{{Filter: filter}}}
		if got, want := image.Mutable(repo, tag), naive(filter, tag); got != want {
			t.Fatalf("%q matches %q: %v, want %v", filter, tag, got, want)
		}
	})
}

// Whatever is pushed, tagged and removed in whatever order: tags name images
// that are there, and what an image needs is there.
func TestInvariant(t *testing.T) {
	now := time.Unix(0, 0)
	rapid.Check(t, func(t *rapid.T) {
		db := store.OpenMemory()
		defer db.Close()
		repo := &state.Repository{Account: "1", Name: "r", TagMutability: rapid.SampledFrom([]string{"MUTABLE", "IMMUTABLE"}).Draw(t, "mutability")}
		var docs []*image.Manifest
		for i := range 4 {
			layer := string(content.Sum(fmt.Append(nil, "layer", i%3)))
			m, err := image.Parse(image.OCIManifest, fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q,"size":1},"annotations":{"n":"%d"}}`, layer, i))
			if err != nil {
				t.Fatal(err)
			}
			docs = append(docs, m)
		}
		for i := range 2 {
			m, err := image.Parse(image.OCIIndex, fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":%q,"size":1},{"digest":%q,"size":1}]}`, docs[i].Digest, docs[i+1].Digest))
			if err != nil {
				t.Fatal(err)
			}
			docs = append(docs, m)
		}
		tags := []string{"", "a", "b", "c"}
		do := func(f func(tx *store.Tx) error) {
			err := db.Update(t.Context(), f)
			var nf *image.NotFoundError
			var im *image.ImmutableError
			var ml *image.MissingLayersError
			var mi *image.MissingImagesError
			var rf *image.ReferencedError
			if err != nil && !errors.As(err, &nf) && !errors.As(err, &im) && !errors.As(err, &ml) && !errors.As(err, &mi) && !errors.As(err, &rf) {
				t.Fatal(err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"layer": func(t *rapid.T) {
				d := content.Sum(fmt.Append(nil, "layer", rapid.IntRange(0, 2).Draw(t, "layer")))
				do(func(tx *store.Tx) error { image.AddLayer(tx, "1/r", d, 7, "", now); return nil })
			},
			"put": func(t *rapid.T) {
				m, tag := rapid.SampledFrom(docs).Draw(t, "manifest"), rapid.SampledFrom(tags).Draw(t, "tag")
				do(func(tx *store.Tx) error { _, _, err := image.Put(tx, repo, m, tag, now); return err })
			},
			"untag": func(t *rapid.T) {
				tag := rapid.SampledFrom(tags[1:]).Draw(t, "tag")
				do(func(tx *store.Tx) error {
					i, err := image.Find(tx, "1/r", "", tag)
					if err != nil {
						return err
					}
					return image.Untag(tx, i, tag)
				})
			},
			"delete": func(t *rapid.T) {
				m := rapid.SampledFrom(docs).Draw(t, "manifest")
				do(func(tx *store.Tx) error {
					i, err := image.Find(tx, "1/r", string(m.Digest), "")
					if err != nil {
						return err
					}
					return image.Delete(tx, i)
				})
			},
			"": func(t *rapid.T) {
				s := db.Snapshot()
				for tag := range state.ImageTags.All(s) {
					if _, ok := state.Images.Get(s, state.ImageKey("1/r", tag.Digest)); !ok {
						t.Fatalf("tag %s names nothing", tag.Tag)
					}
				}
				for i := range state.Images.All(s) {
					for _, l := range i.Layers {
						if !state.RepositoryLayers.Has(s, state.ImageKey("1/r", l)) {
							t.Fatalf("%s lacks layer %s", i.Digest, l)
						}
					}
					for _, m := range i.Manifests {
						if !state.Images.Has(s, state.ImageKey("1/r", m)) {
							t.Fatalf("%s lacks image %s", i.Digest, m)
						}
					}
					if len(i.Manifests) > 0 && i.ImageSize != 7 {
						t.Fatalf("index of size %d", i.ImageSize)
					}
					if tags := image.Tags(s, i); !slices.IsSorted(tags) {
						t.Fatal(tags)
					}
				}
			},
		})
	})
}
