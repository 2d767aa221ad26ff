package ecs

import (
	"errors"
	"slices"
	"time"

	pages "github.com/berth-run/berth/service/page"
)

// A query is a listing that a page token is bound to: the operation, the
// caller's account, and the filters.
type query = pages.Query

// pageStart reads what a call says of the page it wants: how many items, and
// the key after which it begins, "" for the first page.
func pageStart(q query, token *string, maxResults *int32, def, limit int, now time.Time) (n int, after string, err error) {
	n = def
	if maxResults != nil {
		n = int(*maxResults)
		if n < 1 || n > limit {
			return 0, "", invalid("maxResults must be between 1 and %d.", limit)
		}
	}
	if token == nil {
		return n, "", nil
	}
	after, err = pages.Decode(q, *token, now)
	if errors.Is(err, pages.ErrExpired) {
		return 0, "", invalid("The token has expired.")
	}
	if err != nil {
		return 0, "", invalid("Invalid token.")
	}
	return n, after, nil
}

// page cuts one page out of keys, which it sorts. It returns the page and the
// token of the next one.
func page(keys []string, q query, token *string, maxResults *int32, def, limit int, now time.Time) ([]string, *string, error) {
	n, after, err := pageStart(q, token, maxResults, def, limit, now)
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(keys)
	i, found := slices.BinarySearch(keys, after)
	if found {
		i++
	}
	keys = keys[i:]
	if len(keys) <= n {
		return keys, nil, nil
	}
	return keys[:n], new(pages.Encode(q, keys[n-1], now)), nil
}
