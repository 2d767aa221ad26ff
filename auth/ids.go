package auth

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
)

// Prefixes of the identifiers that IAM makes.
const (
	PrefixAccessKey                = "AKIA"
	PrefixTemporaryKey             = "ASIA"
	PrefixUser                     = "AIDA"
	PrefixRole                     = "AROA"
	PrefixGroup                    = "AGPA"
	PrefixPolicy                   = "ANPA"
	PrefixInstanceProfile          = "AIPA"
	PrefixServerCertificate        = "ASCA"
	PrefixPublicKey                = "APKA"
	PrefixServiceCredential        = "ACCA"
	accountBits                    = 40
	accountShift                   = 7
	newKeyForm              uint64 = 1 << 47
)

// NewKeyID makes the id of an access key: 20 characters that hold the account,
// as AWS's do, so that the account of a key can be told without asking.
func NewKeyID(prefix, account string) string {
	var b [10]byte
	rand.Read(b[:])
	n, _ := strconv.ParseUint(account, 10, accountBits)
	head := newKeyForm | n<<accountShift | uint64(b[5]&(1<<accountShift-1))
	var h [8]byte
	binary.BigEndian.PutUint64(h[:], head<<16)
	copy(b[:6], h[:6])
	return prefix + base32.StdEncoding.EncodeToString(b[:])
}

// AccountOf is the account that an access key id holds.
func AccountOf(keyID string) (string, bool) {
	if len(keyID) != 20 {
		return "", false
	}
	b, err := base32.StdEncoding.DecodeString(keyID[4:])
	if err != nil {
		return "", false
	}
	head := binary.BigEndian.Uint64(append(b[:6:6], 0, 0)) >> 16
	n := head &^ newKeyForm >> accountShift
	if head&newKeyForm == 0 || n > 999_999_999_999 {
		return "", false
	}
	return fmt.Sprintf("%012d", n), true
}

// NewID makes a unique id of a user, role, group, policy or instance profile:
// 21 characters.
func NewID(prefix, account string) string {
	var b [1]byte
	rand.Read(b[:])
	return NewKeyID(prefix, account) + string("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[b[0]&31])
}

// NewSecret makes a secret access key: 40 characters.
func NewSecret() string {
	var b [30]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}
