package registry

import (
	"strings"
	"testing"

	"github.com/berth-run/berth/registry/image"
)

func TestParsePath(t *testing.T) {
	for path, want := range map[string]route{
		"/v2":                               {kind: base},
		"/v2/":                              {kind: base},
		"/v2/_catalog":                      {kind: catalog},
		"/v2/_layer/abc":                    {link, "", "abc"},
		"/v2/a/tags/list":                   {tags, "a", ""},
		"/v2/a/b/manifests/v1":              {manifest, "a/b", "v1"},
		"/v2/a/manifests/sha256:0":          {manifest, "a", "sha256:0"},
		"/v2/a/blobs/x":                     {blob, "a", "x"},
		"/v2/a/blobs/uploads/":              {uploads, "a", ""},
		"/v2/a/blobs/uploads":               {uploads, "a", ""},
		"/v2/a/blobs/uploads/id":            {upload, "a", "id"},
		"/v2/a/referrers/x":                 {referrer, "a", "x"},
		"/v2/blobs/uploads/manifests/v1":    {manifest, "blobs/uploads", "v1"},
		"/v2/tags/list/tags/list":           {tags, "tags/list", ""},
		"/v2/manifests/manifests/manifests": {manifest, "manifests", "manifests"},
		"/v2/manifests/x":                   {},
		"/v2//manifests/x":                  {},
		"/v2/a/manifests/":                  {},
		"/v2x":                              {},
		"/v1/":                              {},
		"":                                  {},
	} {
		if got := parsePath(path); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
}

func TestParseHost(t *testing.T) {
	for host, want := range map[string]string{
		"123456789012.dkr.ecr.us-east-1.localhost:4566":     "123456789012",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":      "123456789012",
		"123456789012.dkr-ecr.us-east-1.on.aws":             "123456789012",
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com": "123456789012",
		"127.0.0.1:4566": "",
		"12345678901x.dkr.ecr.us-east-1.localhost": "",
		"123456789012.example.com":                 "",
		"":                                         "",
	} {
		if got, _ := parseHost(host); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("/v2/a/b/blobs/uploads/x")
	f.Add("/v2/../../x/manifests/y")
	f.Fuzz(func(t *testing.T, path string) {
		r := parsePath(path)
		switch {
		case r.kind == noRoute && r != (route{}):
			t.Errorf("%q: nothing is named, and yet %+v", path, r)
		case r.kind >= tags && r.name == "":
			t.Errorf("%q: no repository in %+v", path, r)
		case r.kind >= tags && !strings.HasPrefix(path, "/v2/"+r.name+"/"):
			t.Errorf("%q: %q is not in it", path, r.name)
		case r.kind == upload && strings.Contains(r.ref, "/"):
			t.Errorf("%q: the id has a slash: %q", path, r.ref)
		}
		if image.ValidName(r.name) && (strings.Contains(r.name, "..") || strings.ContainsAny(r.name, "@:")) {
			t.Errorf("%q is valid as a name", r.name)
		}
		parseHost(path)
	})
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("0-99")
	f.Add("bytes 0-99/100")
	f.Fuzz(func(t *testing.T, s string) {
		if first, last, ok := parseContentRange(s); ok && (first < 0 || last < first) {
			t.Errorf("%q: %d to %d", s, first, last)
		}
	})
}

func FuzzParseRange(f *testing.F) {
	f.Add("bytes=0-9", int64(100))
	f.Add("bytes=-9", int64(4))
	f.Add("bytes=9223372036854775807-", int64(0))
	f.Fuzz(func(t *testing.T, s string, size int64) {
		if size < 0 {
			return
		}
		if start, n, ok := parseRange(s, size); ok && (start < 0 || n < 0 || n > 0 && start+n > size || start+n < start) {
			t.Errorf("%q of %d: %d bytes at %d", s, size, n, start)
		}
	})
}
