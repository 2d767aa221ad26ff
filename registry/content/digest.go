package content

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"strings"
)

// Digest names content: an algorithm, a colon, and lower-case hexadecimal
// digits. A Digest that did not come from ParseDigest or Sum may be anything.
type Digest string

// algorithms are those whose digests name content. What is received is hashed
// with the first while it arrives; whoever names it by another pays for reading
// it once more.
var algorithms = []struct {
	name string
	size int
	new  func() hash.Hash
}{
	{"sha256", sha256.Size, sha256.New},
	{"sha512", sha512.Size, sha512.New},
}

// ParseDigest checks a digest.
func ParseDigest(s string) (Digest, bool) {
	name, h, _ := strings.Cut(s, ":")
	for _, a := range algorithms {
		if a.name == name && len(h) == 2*a.size {
			return Digest(s), strings.Trim(h, "0123456789abcdef") == ""
		}
	}
	return "", false
}

// Sum is the digest of b.
func Sum(b []byte) Digest {
	h := sha256.Sum256(b)
	return digestOf("sha256", h[:])
}

// Is says whether b has the digest.
func (d Digest) Is(b []byte) bool {
	h := d.hash()
	h.Write(b)
	return digestOf(d.Algorithm(), h.Sum(nil)) == d
}

func digestOf(algorithm string, sum []byte) Digest {
	return Digest(algorithm + ":" + hex.EncodeToString(sum))
}

// Algorithm is the part before the colon.
func (d Digest) Algorithm() string {
	name, _, _ := strings.Cut(string(d), ":")
	return name
}

// Hex is the part behind the colon.
func (d Digest) Hex() string {
	_, h, _ := strings.Cut(string(d), ":")
	return h
}

// hash makes the hash of the digest's algorithm. It is sha256 for what is no digest.
func (d Digest) hash() hash.Hash {
	for _, a := range algorithms {
		if a.name == d.Algorithm() {
			return a.new()
		}
	}
	return sha256.New()
}
