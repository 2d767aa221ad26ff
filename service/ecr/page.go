package ecr

import (
	"errors"
	"iter"
	"time"

	pages "github.com/berth-run/berth/service/page"
)

// page takes one page out of a sequence that is in the order of its keys. The
// token is bound to the query.
func page[T any](seq iter.Seq[T], key func(T) string, q pages.Query, token *string, maxResults *int32, now time.Time) (items []T, next *string, err error) {
	n := 100
	if maxResults != nil {
		n = int(*maxResults)
	}
	after := ""
	if token != nil {
		if after, err = pages.Decode(q, *token, now); err != nil {
			text := "Invalid token"
			if errors.Is(err, pages.ErrExpired) {
				text = "Expired token"
			}
			return nil, nil, invalid("nextToken", text)
		}
	}
	items = []T{}
	for v := range seq {
		if key(v) <= after {
			continue
		}
		if len(items) == n {
			return items, new(pages.Encode(q, key(items[n-1]), now)), nil
		}
		items = append(items, v)
	}
	return items, nil, nil
}
