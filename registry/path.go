package registry

import (
	"strconv"
	"strings"
)

type kind uint8

const (
	noRoute kind = iota
	base
	catalog
	link     // ref is the token
	tags     // list of tags
	manifest // ref is a tag or digest
	blob     // ref is a digest
	uploads  // begin one
	upload   // ref is its id
	referrer // ref is a digest
)

// route is what the path of a request names.
type route struct {
	kind      kind
	name, ref string
}

// parsePath reads a path from its end: a repository may have components with
// the names that the API uses, but what follows its name is fixed.
func parsePath(path string) route {
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case !ok:
		return route{}
	case rest == "" || rest == "/":
		return route{kind: base}
	case rest == "/_catalog":
		return route{kind: catalog}
	}
	if token, ok := strings.CutPrefix(path, linkPath); ok {
		return route{kind: link, ref: token}
	}
	rest, ok = strings.CutPrefix(rest, "/")
	if !ok {
		return route{}
	}
	for _, end := range []string{"/blobs/uploads/", "/blobs/uploads"} {
		if name, ok := strings.CutSuffix(rest, end); ok {
			return named(uploads, name, "")
		}
	}
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return named(tags, name, "")
	}
	head, ref, ok := cutLast(rest)
	if !ok || ref == "" {
		return route{}
	}
	if name, ok := strings.CutSuffix(head, "/blobs/uploads"); ok {
		return named(upload, name, ref)
	}
	name, what, _ := cutLast(head)
	switch what {
	case "blobs":
		return named(blob, name, ref)
	case "manifests":
		return named(manifest, name, ref)
	case "referrers":
		return named(referrer, name, ref)
	}
	return route{}
}

func named(k kind, name, ref string) route {
	if name == "" {
		return route{}
	}
	return route{k, name, ref}
}

func cutLast(s string) (head, last string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// parseHost reads the account from <account>.dkr.ecr.<region>.<anything>, and
// from its dual-stack form. Any other host is the caller's own registry.
func parseHost(host string) (account string, ok bool) {
	account, rest, _ := strings.Cut(host, ".")
	if len(account) != 12 || strings.Trim(account, "0123456789") != "" {
		return "", false
	}
	if !strings.HasPrefix(rest, "dkr.ecr.") && !strings.HasPrefix(rest, "dkr-ecr.") && !strings.HasPrefix(rest, "dkr.ecr-fips.") {
		return "", false
	}
	return account, true
}

// parseContentRange reads the range of a chunk: "0-99", as the distribution
// specification has it, or "bytes 0-99/100", as HTTP has it.
func parseContentRange(s string) (first, last int64, ok bool) {
	if b, is := strings.CutPrefix(s, "bytes "); is {
		s, _, _ = strings.Cut(b, "/")
	}
	a, b, ok := strings.Cut(s, "-")
	if !ok {
		return 0, 0, false
	}
	if first, ok = parseOffset(a); !ok {
		return 0, 0, false
	}
	if last, ok = parseOffset(b); !ok || last < first {
		return 0, 0, false
	}
	return first, last, true
}

func parseOffset(s string) (int64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false // ParseInt would take a sign
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// parseRange reads what a download asks for. ok is false if the range is to be
// ignored, which a server may do with what it does not understand; n is 0 if
// there is nothing at that place.
func parseRange(s string, size int64) (start, n int64, ok bool) {
	s, is := strings.CutPrefix(s, "bytes=")
	if !is || strings.Contains(s, ",") {
		return 0, 0, false
	}
	a, b, dash := strings.Cut(s, "-")
	if !dash {
		return 0, 0, false
	}
	if a == "" {
		if n, ok = parseOffset(b); !ok {
			return 0, 0, false
		}
		n = min(n, size)
		return size - n, n, true
	}
	if start, ok = parseOffset(a); !ok {
		return 0, 0, false
	}
	last := size - 1
	if b != "" {
		if last, ok = parseOffset(b); !ok {
			return 0, 0, false
		}
		last = min(last, size-1) // one before its beginning has no bytes
	}
	return start, max(last-start+1, 0), true
}
