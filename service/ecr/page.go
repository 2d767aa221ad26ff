package ecr

import (
	"encoding/base64"
	"iter"

	"github.com/berth-run/berth/aws/ecr"
)

// page takes one page out of a sequence that is in the order of its keys. The
// token is the last key that was given: pages neither repeat nor skip what was
// there all the time, whatever comes and goes between them.
func page[T any](seq iter.Seq[T], key func(T) string, token *string, maxResults *int32) (items []T, next *string, err error) {
	n := 100
	if maxResults != nil {
		n = int(*maxResults)
	}
	last := ""
	if token != nil {
		b, err := base64.RawURLEncoding.DecodeString(*token)
		if err != nil || len(b) == 0 {
			return nil, nil, &ecr.InvalidParameterException{Message: "Invalid parameter at 'nextToken' failed to satisfy constraint: 'Invalid token'"}
		}
		last = string(b)
	}
	items = []T{}
	for v := range seq {
		if key(v) <= last {
			continue
		}
		if len(items) == n {
			return items, new(base64.RawURLEncoding.EncodeToString([]byte(key(items[n-1])))), nil
		}
		items = append(items, v)
	}
	return items, nil, nil
}
