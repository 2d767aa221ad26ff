// Package page makes the tokens with which listings continue.
//
// A token is opaque, bound to the query it came from (with other filters it
// would skip and repeat), and expires. It holds the key of the last item that
// was shown, so that a listing neither skips nor repeats what was there all the
// time, whatever comes and goes between its pages. The package must never know
// what is listed, and holds no state: a token is good at any server, and after
// a restart.
package page

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
)

// Life is how long a token is good.
const Life = 24 * time.Hour

// What Decode says of a token. Each service has its own words for both.
var (
	ErrInvalid = errors.New("invalid token")
	ErrExpired = errors.New("expired token")
)

// A Query is what a token is bound to: the operation, the caller's account, and
// the filters, but not the size of the page.
type Query []string

func (q Query) digest() []byte {
	b, _ := json.Marshal(q) // strings always encode
	sum := sha256.Sum256(b)
	return sum[:12]
}

type token struct {
	After string `json:"a"` // key of the last item shown
	Query []byte `json:"q"` // digest of the query
	Until int64  `json:"u"` // seconds
}

// Encode makes the token of the page that follows the item with the key after.
func Encode(q Query, after string, now time.Time) string {
	b, _ := json.Marshal(token{after, q.digest(), now.Add(Life).Unix()}) // plain fields always encode
	return base64.RawURLEncoding.EncodeToString(b)
}

// Decode returns the key after which the page begins, or ErrInvalid or ErrExpired.
func Decode(q Query, s string, now time.Time) (after string, err error) {
	var t token
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || json.Unmarshal(b, &t) != nil || string(t.Query) != string(q.digest()) {
		return "", ErrInvalid
	}
	if now.Unix() >= t.Until {
		return "", ErrExpired
	}
	return t.After, nil
}
