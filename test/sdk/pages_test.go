package sdk

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// A pager is one of the SDK's paginators, which share no type.
type pager[Out, Options any] interface {
	HasMorePages() bool
	NextPage(context.Context, ...func(*Options)) (*Out, error)
}

// A listing is what a paginator has to find.
type listing struct {
	operation string
	want      []string
	pages     int  // at least
	nothing   bool // is all that may be found
	walk      func(t *testing.T) [][]string
}

// pages makes the listing of an operation whose items are told apart by what
// is at path. There are to be three pages or more of size items.
func pages[Client, In, PagerOptions any, P pager[Out, Options], Out, Options any](
	client any, open func(Client, *In, ...func(*PagerOptions)) P, in *In, size int, path string, want []string,
) listing {
	l := listing{operation: strings.TrimSuffix(reflect.TypeFor[In]().Name(), "Input"), want: want, pages: 3}
	l.walk = func(t *testing.T) (all [][]string) {
		t.Helper()
		p := open(client.(Client), in, func(o *PagerOptions) {
			v := reflect.ValueOf(o).Elem()
			v.FieldByName("Limit").SetInt(int64(size))
			v.FieldByName("StopOnDuplicateToken").SetBool(true) // which ends GetLogEvents
		})
		for p.HasMorePages() {
			out, err := p.NextPage(t.Context())
			if err != nil {
				t.Fatalf("page %d: %v", len(all)+1, err)
			}
			keys := collect(reflect.ValueOf(out), strings.Split(path, "."))
			if len(keys) > size {
				t.Errorf("page %d has %d items, want at most %d", len(all)+1, len(keys), size)
			}
			all = append(all, keys)
			if len(all) > 2000 {
				t.Fatal("there is no end of pages")
			}
		}
		return all
	}
	return l
}

// few is for what AWS allows too few of for three pages.
func (l listing) few(pages int) listing { l.pages = pages; return l }

// empty is for what Berth has none of, and says so.
func (l listing) empty() listing { l.pages, l.nothing = 1, true; return l }

// collect finds what is at a path; slices on the way are gone through.
func collect(v reflect.Value, path []string) []string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return collect(v.Elem(), path)
	case reflect.Slice:
		var out []string
		for i := range v.Len() {
			out = append(out, collect(v.Index(i), path)...)
		}
		return out
	case reflect.Struct:
		// "a+b" is a key of two fields.
		var parts []string
		for f := range strings.SplitSeq(path[0], "+") {
			found := collect(v.FieldByName(f), path[1:])
			if !strings.Contains(path[0], "+") {
				return found
			}
			parts = append(parts, found...)
		}
		return []string{strings.Join(parts, " ")}
	}
	return []string{fmt.Sprint(v.Interface())}
}

// paginate walks all listings of a service, each twice: everything that was
// made is found exactly once, and in the same order. Other tests make things
// at the same time, which are passed over.
func paginate(t *testing.T, service string, listings []listing) {
	var names []string
	for _, l := range listings {
		if name := l.operation + "Paginator"; !slices.Contains(names, name) {
			names = append(names, name)
		}
		t.Run(l.operation, func(t *testing.T) {
			var orders [2][]string
			for i := range orders {
				walked := l.walk(t)
				if len(walked) < l.pages {
					t.Errorf("there are %d pages, want %d or more: %q", len(walked), l.pages, walked)
				}
				if found := slices.Concat(walked...); l.nothing && len(found) > 0 {
					t.Errorf("there is something: %q", found)
				}
				times := map[string]int{}
				for _, key := range slices.Concat(walked...) {
					if times[key]++; times[key] > 1 {
						t.Errorf("%s is there twice: %q", key, walked)
					}
					if slices.Contains(l.want, key) {
						orders[i] = append(orders[i], key)
					}
				}
				for _, key := range l.want {
					if times[key] == 0 {
						t.Errorf("%s is missing: %q", key, walked)
					}
				}
			}
			if !slices.Equal(orders[0], orders[1]) {
				t.Errorf("the order changes:\n%q\n%q", orders[0], orders[1])
			}
		})
	}
	t.Run("complete", func(t *testing.T) { complete(t, service, "Paginator", names) })
}

// five are names that begin with a prefix: three pages of two.
func five(prefix string) []string { return names(5, prefix) }

func names(n int, prefix string) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%d", prefix, i))
	}
	return names
}
