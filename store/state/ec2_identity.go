package state

import "github.com/berth-run/berth/store"

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
