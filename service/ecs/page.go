package ecs

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"
)

// tokenLife is how long a page token is good.
const tokenLife = 24 * time.Hour

// A pageToken says where a listing continues. It is bound to the query it came
// from: with other filters it would skip and repeat.
type pageToken struct {
	After string `json:"a"` // key of the last item shown
	Query []byte `json:"q"` // digest of the query
	Until int64  `json:"u"` // seconds
}

// A query is a listing that a page token is bound to: the operation, the
// caller's account, and the filters.
type query []string

func (q query) digest() []byte {
	b, _ := json.Marshal(q) // strings always encode
	sum := sha256.Sum256(b)
	return sum[:12]
}

// page cuts one page out of keys, which it sorts. It returns the page and the
// token of the next one.
func page(keys []string, q query, token *string, maxResults *int32, def, limit int, now time.Time) ([]string, *string, error) {
	n := def
	if maxResults != nil {
		n = int(*maxResults)
		if n < 1 || n > limit {
			return nil, nil, invalid("maxResults must be between 1 and %d.", limit)
		}
	}
	slices.Sort(keys)
	if token != nil {
		t, ok := parseToken(*token)
		if !ok || string(t.Query) != string(q.digest()) {
			return nil, nil, invalid("Invalid token.")
		}
		if now.Unix() >= t.Until {
			return nil, nil, invalid("The token has expired.")
		}
		i, found := slices.BinarySearch(keys, t.After)
		if found {
			i++
		}
		keys = keys[i:]
	}
	if len(keys) <= n {
		return keys, nil, nil
	}
	b, _ := json.Marshal(pageToken{keys[n-1], q.digest(), now.Add(tokenLife).Unix()}) // plain fields always encode
	return keys[:n], new(base64.RawURLEncoding.EncodeToString(b)), nil
}

func parseToken(s string) (pageToken, bool) {
	var t pageToken
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || json.Unmarshal(b, &t) != nil {
		return pageToken{}, false
	}
	return t, true
}
