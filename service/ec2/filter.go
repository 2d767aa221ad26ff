package ec2

import (
	"encoding/json"
	"errors"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store/state"
)

// maxFilterValues is how many values all filters of a call may have together.
const maxFilterValues = 200

// request is what all Describe calls have in common.
type request struct {
	ids     []string
	filters []api.Filter
	max     *int32
	token   *string
}

// filters say for one kind of resource which filters there are, and what each
// is compared with: a row passes if one of its values matches one of the filter's.
type filters[R any] map[string]func(R) []string

// kind is how one kind of resource is listed.
type kind[R, V any] struct {
	name    string      // names the page tokens
	rows    iter.Seq[R] // in the order of their ids
	id      func(R) string
	missing func(id string) error // for an id that is not there
	filters filters[R]
	field   func(R, string) (v []string, ok bool) // more filters; ok false: no such filter
	tags    func(R) []state.Tag
	view    func(R) V
}

// list answers a Describe call.
func list[R, V any](q request, k kind[R, V]) ([]V, *string, error) {
	if err := k.check(q.filters); err != nil {
		return nil, nil, err
	}
	bound, err := boundTo(k.name, q)
	if err != nil {
		return nil, nil, err
	}
	after := ""
	if wire.Value(q.token) != "" {
		if after, err = page.Decode(bound, *q.token, time.Now()); errors.Is(err, page.ErrExpired) {
			return nil, nil, bad("InvalidNextToken", "The specified token has expired.")
		} else if err != nil {
			return nil, nil, bad("InvalidNextToken", "The specified token is not valid.")
		}
	}
	out := []V{}
	seen := map[string]bool{}
	last := ""
	var next *string
	for r := range k.rows {
		id := k.id(r)
		if len(q.ids) > 0 {
			if !slices.Contains(q.ids, id) {
				continue
			}
			seen[id] = true
		}
		ok, err := k.matches(q.filters, r)
		if err != nil {
			return nil, nil, err
		}
		if !ok || id <= after && after != "" {
			continue
		}
		if q.max != nil && len(out) == int(*q.max) {
			next = new(page.Encode(bound, last, time.Now()))
			break
		}
		out = append(out, k.view(r))
		last = id
	}
	if next == nil {
		for _, id := range q.ids {
			if !seen[id] {
				return nil, nil, k.missing(id)
			}
		}
	}
	return out, next, nil
}

// boundTo is the query that a token is good for.
func boundTo(name string, q request) (page.Query, error) {
	b, err := json.Marshal([]any{q.ids, q.filters})
	if err != nil {
		return nil, err
	}
	return page.Query{name, string(b)}, nil
}

// check refuses filters that there are not, whether or not there is a row.
func (k kind[R, V]) check(fs []api.Filter) error {
	n := 0
	for _, f := range fs {
		name := wire.Value(f.Name)
		if name == "" {
			return bad("InvalidParameterValue", "Filter name is missing.")
		}
		if len(f.Values) == 0 {
			return bad("InvalidParameterValue", "The filter '%s' has no values.", name)
		}
		if n += len(f.Values); n > maxFilterValues {
			return bad("FilterLimitExceeded", "The maximum number of filter values specified on a single call is %d", maxFilterValues)
		}
		if k.tags != nil && (name == "tag-key" || strings.HasPrefix(name, "tag:")) || k.filters[name] != nil || k.field != nil {
			continue
		}
		return bad("InvalidParameterValue", "The filter '%s' is invalid", name)
	}
	return nil
}

func (k kind[R, V]) matches(fs []api.Filter, r R) (bool, error) {
	for _, f := range fs {
		name := *f.Name
		var have []string
		switch key, isTag := strings.CutPrefix(name, "tag:"); {
		case isTag && k.tags != nil:
			for _, t := range k.tags(r) {
				if t.Key == key {
					have = append(have, t.Value)
				}
			}
		case name == "tag-key" && k.tags != nil:
			for _, t := range k.tags(r) {
				have = append(have, t.Key)
			}
		case k.filters[name] != nil:
			have = k.filters[name](r)
		default:
			var ok bool
			if have, ok = k.field(r, name); !ok {
				return false, bad("InvalidParameterValue", "The filter '%s' is invalid", name)
			}
		}
		if !slices.ContainsFunc(f.Values, func(want string) bool {
			return slices.ContainsFunc(have, func(v string) bool { return glob(want, v) })
		}) {
			return false, nil
		}
	}
	return true, nil
}

// glob matches * and ?, with \ before one that is meant literally.
func glob(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
			continue
		case p+1 < len(pattern) && pattern[p] == '\\' && pattern[p+1] == s[i]:
			p, i = p+2, i+1
			continue
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i] && pattern[p] != '\\'):
			p, i = p+1, i+1
			continue
		case star >= 0:
			mark++
			p, i = star+1, mark
			continue
		}
		return false
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// Values of filters.

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func flag(b bool) []string { return []string{strconv.FormatBool(b)} }

func number(n int) []string { return []string{strconv.Itoa(n)} }

func address(a netip.Addr) []string {
	if !a.IsValid() {
		return nil
	}
	return []string{a.String()}
}

// each collects the values of all of a row's parts.
func each[T any](parts []T, of func(T) []string) (out []string) {
	for _, p := range parts {
		out = append(out, of(p)...)
	}
	return out
}

// instant is a time as filters and AWS write it.
func instant(t time.Time) []string {
	if t.IsZero() {
		return nil
	}
	return []string{t.UTC().Format("2006-01-02T15:04:05.000Z")}
}
