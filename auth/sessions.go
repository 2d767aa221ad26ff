package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Session is what a session token says: who its holder is, how they are
// limited, and until when. Nothing of it is stored anywhere else.
type Session struct {
	Kind        Kind   `json:"k"`
	Account     string `json:"a"`
	Name        string `json:"n,omitempty"`  // of the user or role
	ARN         string `json:"r"`            // of the user, or of the role
	PrincipalID string `json:"i"`            // unique id: a role made anew under its old name is another
	SessionName string `json:"sn,omitempty"` // roles and federated users

	Policies       []string          `json:"p,omitempty"`  // session policies, documents
	PolicyARNs     []string          `json:"pa,omitempty"` // session policies, managed
	Tags           map[string]string `json:"t,omitempty"`
	Transitive     []string          `json:"tt,omitempty"` // keys of the tags that roles assumed from here inherit
	SourceIdentity string            `json:"si,omitempty"`
	MFA            int64             `json:"m,omitempty"`  // when a device's code was shown, 0: never
	Provider       string            `json:"fp,omitempty"` // that vouched for the caller: an ARN, or a name that AWS knows
	// Keys are condition keys that hold for as long as the session does, by
	// lower-case name: what the provider said of the caller.
	Keys map[string][]string `json:"c,omitempty"`

	IssuedAt  time.Time `json:"-"`
	ExpiresAt time.Time `json:"-"`

	// Keys of the session, filled in by Mint.
	AccessKeyID string `json:"ki"`
	Secret      string `json:"ks"`
	Issued      int64  `json:"f"`
	Expires     int64  `json:"u"`
}

// Credentials are a key pair with the token that makes it valid.
type Credentials struct {
	AccessKeyID, Secret, Token string
	Expires                    time.Time
}

// Sessions mints and opens session tokens. Tokens are sealed with the region's
// session key: whoever holds one can neither read nor change it.
type Sessions struct {
	aeads  map[[4]byte]cipher.AEAD
	newest [4]byte
}

// ErrToken is a token that was not minted here, or was tampered with.
var ErrToken = errors.New("session token is not valid")

// tokenVersion is the first byte of every token.
const tokenVersion = 1

// What is sealed, so that one kind of sealed text is never taken for another.
const (
	sealedSession = "berth session"
	sealedMessage = "berth message"
)

// NewSessions uses the given 32-byte keys. The last one seals, all of them open.
func NewSessions(keys ...[]byte) (*Sessions, error) {
	if len(keys) == 0 {
		return nil, errors.New("no session key")
	}
	s := &Sessions{aeads: map[[4]byte]cipher.AEAD{}}
	for _, k := range keys {
		if len(k) != 32 {
			return nil, fmt.Errorf("session key of %d bytes, want 32", len(k))
		}
		block, err := aes.NewCipher(k)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(append([]byte("berth session key\x00"), k...))
		s.newest = [4]byte(sum[:4])
		s.aeads[s.newest] = aead
	}
	return s, nil
}

// OpenSessions reads the region's session keys, one in base64 per line, and
// makes the file with a new key if there is none.
func OpenSessions(path string) (*Sessions, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = createKeyFile(path); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read session keys: %w", err)
	}
	var keys [][]byte
	for _, line := range strings.Fields(string(text)) {
		k, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("session keys in %s: %w", path, err)
		}
		keys = append(keys, k)
	}
	s, err := NewSessions(keys...)
	if err != nil {
		return nil, fmt.Errorf("session keys in %s: %w", path, err)
	}
	return s, nil
}

// createKeyFile never leaves half a file behind, and never replaces one that
// another process made meanwhile.
func createKeyFile(path string) ([]byte, error) {
	var k [32]byte
	rand.Read(k[:])
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create session key: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".session-key-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("create session key: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(base64.StdEncoding.EncodeToString(k[:]) + "\n")
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		if err = os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create session key: %w", err)
	}
	return os.ReadFile(path)
}

// Mint makes credentials for s, valid from now until the given time.
func (s *Sessions) Mint(of Session, now, until time.Time) (Credentials, error) {
	// AWS answers whole seconds; what the token says must be what the client was told.
	until = until.UTC().Truncate(time.Second)
	of.AccessKeyID, of.Secret = NewKeyID(PrefixTemporaryKey, of.Account), NewSecret()
	of.Issued, of.Expires = now.Unix(), until.Unix()
	text, err := json.Marshal(&of)
	if err != nil {
		return Credentials{}, fmt.Errorf("mint session token: %w", err)
	}
	return Credentials{AccessKeyID: of.AccessKeyID, Secret: of.Secret, Token: s.seal(sealedSession, text), Expires: until}, nil
}

// Open reads a token. Whether it has expired is for the caller to compare.
func (s *Sessions) Open(token string) (*Session, error) {
	text, err := s.open(sealedSession, token)
	if err != nil {
		return nil, err
	}
	var of Session
	if err := json.Unmarshal(text, &of); err != nil {
		return nil, ErrToken
	}
	of.IssuedAt, of.ExpiresAt = time.Unix(of.Issued, 0).UTC(), time.Unix(of.Expires, 0).UTC()
	return &of, nil
}

func (s *Sessions) seal(what string, text []byte) string {
	aead := s.aeads[s.newest]
	b := make([]byte, 5+aead.NonceSize(), 5+aead.NonceSize()+len(text)+aead.Overhead())
	b[0] = tokenVersion
	copy(b[1:5], s.newest[:])
	rand.Read(b[5:])
	return base64.StdEncoding.EncodeToString(aead.Seal(b, b[5:], text, append(b[:5:5], what...)))
}

func (s *Sessions) open(what, token string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < 5 || b[0] != tokenVersion {
		return nil, ErrToken
	}
	aead := s.aeads[[4]byte(b[1:5])]
	if aead == nil || len(b) < 5+aead.NonceSize() {
		return nil, ErrToken
	}
	text, err := aead.Open(nil, b[5:5+aead.NonceSize()], b[5+aead.NonceSize():], append(b[:5:5], what...))
	if err != nil {
		return nil, ErrToken
	}
	return text, nil
}

// DecodeMessage opens what EC2's errors call the encoded authorization failure message.
func (s *Sessions) DecodeMessage(blob string) (string, error) {
	text, err := s.open(sealedMessage, blob)
	return string(text), err
}
