package state

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"strings"

	"github.com/berth-run/berth/store"
)

// IdentityKey is the region's key that signs the identity documents of
// instances: RSA, PKCS #1.
type IdentityKey struct {
	Secret []byte
	Public []byte
}

// IdentityKeyName is the key of the only row of IdentityKeys.
const IdentityKeyName = "key"

// IdentityKeys holds the one IdentityKey.
var IdentityKeys = store.NewTable("identitykey", func(*IdentityKey) string { return IdentityKeyName }, store.Sealed())

// Signed reports whether a signature, in base64, is the key's of a document.
func (k *IdentityKey) Signed(document, signature string) bool {
	key, err := x509.ParsePKCS1PublicKey(k.Public)
	if err != nil {
		return false
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(signature), ""))
	if err != nil {
		return false
	}
	sum := sha256.Sum256([]byte(document))
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw) == nil
}
