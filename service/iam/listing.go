package iam

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/berth-run/berth/service/page"
)

// defaultPage is how many items a page has if the caller does not say.
const defaultPage = 100

// cut sorts items by their key and takes the page that in, the input of a
// listing, asks for by its Marker and MaxItems. A marker is good for the
// listing it came from only: its operation, account and filters.
func cut[T any](ctx context.Context, s *Service, in any, items []T, key func(T) string) ([]T, *bool, *string, error) {
	sorted := func(t T) string { return position(key(t)) }
	byKey(items, sorted)
	query, marker, limit := asked(ctx, in)
	if marker != nil {
		after, err := page.Decode(query, *marker, s.clock())
		if err != nil {
			return nil, nil, nil, validation("Invalid Marker.")
		}
		n := 0
		for n < len(items) && sorted(items[n]) <= after {
			n++
		}
		items = items[n:]
	}
	if len(items) <= limit {
		return items, new(false), nil, nil
	}
	items = items[:limit]
	return items, new(true), new(page.Encode(query, sorted(items[limit-1]), s.clock())), nil
}

// asked is what the input of a listing says of the page.
func asked(ctx context.Context, in any) (q page.Query, marker *string, limit int) {
	limit = defaultPage
	v := reflect.New(reflect.TypeOf(in).Elem()).Elem()
	v.Set(reflect.ValueOf(in).Elem())
	if f := v.FieldByName("Marker"); f.IsValid() {
		marker, _ = f.Interface().(*string)
		f.SetZero()
	}
	if f := v.FieldByName("MaxItems"); f.IsValid() {
		if n, ok := f.Interface().(*int32); ok && n != nil {
			limit = int(*n)
		}
		f.SetZero()
	}
	filters, _ := json.Marshal(v.Interface()) // plain fields always encode
	return page.Query{"iam", v.Type().Name(), account(ctx), string(filters)}, marker, limit
}

// longKey is from where a key is shortened: a marker has 320 characters at most.
const longKey = 120

// position is the key as markers hold it. It sorts as the key does, but for
// keys that differ only behind their first hundred bytes.
func position(key string) string {
	if len(key) <= longKey {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return strings.ToValidUTF8(key[:longKey-20], "") + hex.EncodeToString(sum[:10])
}
