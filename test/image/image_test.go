package image

import (
	"archive/tar"
	"io"
	"slices"
	"testing"
)

func TestWebIsReproducible(t *testing.T) {
	a, err := Web(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := Web(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	da, err := a.Digest()
	if err != nil {
		t.Fatal(err)
	}
	db, err := b.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if da != db {
		t.Errorf("the same source gave %s and %s", da, db)
	}
	c, err := a.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.OS != "linux" || !slices.Equal(c.Config.Entrypoint, []string{"/web"}) {
		t.Errorf("config = %+v", c)
	}
}

func TestLayerHasParents(t *testing.T) {
	l, err := Layer(map[string]File{"a/b/c": {Mode: 0o600, Data: []byte("x")}, "tmp/": {Mode: 0o1777}, "a.txt": {Mode: 0o644}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if want := []string{"a.txt", "a/", "a/b/", "a/b/c", "tmp/"}; !slices.Equal(names, want) {
		t.Errorf("entries %v, want %v", names, want)
	}
}
