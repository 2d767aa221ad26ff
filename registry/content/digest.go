package content

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Digest names content: "sha256:" and 64 lower-case hexadecimal digits. A
// Digest that did not come from ParseDigest or Sum may be anything.
type Digest string

// ParseDigest checks a digest. Only sha256 names content here.
func ParseDigest(s string) (Digest, bool) {
	h, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(h) != 2*sha256.Size {
		return "", false
	}
	for i := range len(h) {
		if c := h[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
	}
	return Digest(s), true
}

// Sum is the digest of b.
func Sum(b []byte) Digest {
	h := sha256.Sum256(b)
	return digestOf(h[:])
}

func digestOf(sum []byte) Digest { return Digest("sha256:" + hex.EncodeToString(sum)) }

// Hex is the part behind the colon.
func (d Digest) Hex() string { return string(d[len("sha256:"):]) }
