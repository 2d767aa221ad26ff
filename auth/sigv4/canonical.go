package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Names and values of the protocol.
const (
	Algorithm       = "AWS4-HMAC-SHA256"
	UnsignedPayload = "UNSIGNED-PAYLOAD"
	timeFormat      = "20060102T150405Z"
	dateFormat      = "20060102"
	terminator      = "aws4_request"
	emptyHash       = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

const hexUpper = "0123456789ABCDEF"

// escape appends s as AWS wants it: everything but unreserved characters as %XX.
func escape(b []byte, s string, keepSlash bool) []byte {
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' ||
			c == '-' || c == '_' || c == '.' || c == '~' || keepSlash && c == '/' {
			b = append(b, c)
			continue
		}
		b = append(b, '%', hexUpper[c>>4], hexUpper[c&15])
	}
	return b
}

// unescape undoes %XX and +; a broken escape stands for itself.
func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b = append(b, ' ')
		case s[i] == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0:
			b = append(b, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// canonicalPath is the path as it was sent, escaped once more: every service
// but S3 signs it so.
func canonicalPath(b []byte, escaped string) []byte {
	if escaped == "" || escaped == "/" {
		return append(b, '/')
	}
	return escape(b, escaped, true)
}

// canonicalQuery is the query with names and values escaped and sorted. The
// signature itself is no part of it.
func canonicalQuery(b []byte, raw string) []byte {
	if raw == "" {
		return b
	}
	type pair struct{ name, value string }
	var pairs []pair
	for raw != "" {
		var p string
		p, raw, _ = strings.Cut(raw, "&")
		if p == "" {
			continue
		}
		name, value, _ := strings.Cut(p, "=")
		name = unescape(name)
		if name == "X-Amz-Signature" {
			continue
		}
		pairs = append(pairs, pair{string(escape(nil, name, false)), string(escape(nil, unescape(value), false))})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	for i, p := range pairs {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, p.name...)
		b = append(b, '=')
		b = append(b, p.value...)
	}
	return b
}

// headerValues are the values of a header by lower-case name. Those that
// net/http keeps elsewhere are taken from there.
func headerValues(r *http.Request, name string) []string {
	switch name {
	case "host":
		if r.Host != "" {
			return []string{r.Host}
		}
		if r.URL != nil {
			return []string{r.URL.Host}
		}
	case "content-length":
		if v := r.Header["Content-Length"]; v != nil {
			return v
		}
		if r.ContentLength >= 0 {
			return []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		return nil
	case "transfer-encoding":
		if r.TransferEncoding != nil {
			return r.TransferEncoding
		}
	}
	return r.Header[http.CanonicalHeaderKey(name)]
}

// canonicalHeader appends "name:value\n" with inner white space made single.
func canonicalHeader(b []byte, name string, values []string) []byte {
	b = append(b, name...)
	b = append(b, ':')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		space := false
		v = strings.Trim(v, " \t")
		for j := range len(v) {
			if v[j] == ' ' {
				if space {
					continue
				}
				space = true
			} else {
				space = false
			}
			b = append(b, v[j])
		}
	}
	return append(b, '\n')
}

// canonicalRequest is the text whose hash is signed. names are lower case and sorted.
func canonicalRequest(r *http.Request, names []string, payload string) []byte {
	b := make([]byte, 0, 512)
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = canonicalPath(b, r.URL.EscapedPath())
	b = append(b, '\n')
	b = canonicalQuery(b, r.URL.RawQuery)
	b = append(b, '\n')
	for _, n := range names {
		b = canonicalHeader(b, n, headerValues(r, n))
	}
	b = append(b, '\n')
	for i, n := range names {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, n...)
	}
	b = append(b, '\n')
	return append(b, payload...)
}

// stringToSign is what the key signs.
func stringToSign(at, scope string, canonical []byte) []byte {
	sum := sha256.Sum256(canonical)
	b := make([]byte, 0, 160)
	b = append(b, Algorithm+"\n"...)
	b = append(b, at...)
	b = append(b, '\n')
	b = append(b, scope...)
	b = append(b, '\n')
	return hex.AppendEncode(b, sum[:])
}

// hashHex is the hash of a payload as it is signed.
func hashHex(body []byte) string {
	if len(body) == 0 {
		return emptyHash
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
