// Package ec2 answers the EC2 API: networks, security groups and what
// describes them. It validates, writes one transaction, and answers; the
// nodes' fabric makes it true. It must never touch a kernel.
package ec2

import (
	"context"
	"encoding/base64"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Config is what the service needs.
type Config struct {
	DB      *store.DB
	Region  string
	Account func(context.Context) string // the caller's account
	Now     func() time.Time
	NewID   func() string // 32 hex digits
}

// EC2 implements the API.
type EC2 struct {
	api.Unimplemented
	Config
}

// Stored lists the request fields that are kept and shown but not acted upon,
// by operation and field, each with what that means.
var Stored = map[string]string{
	"AuthorizeSecurityGroupIngress.IpPermissions.Ipv6Ranges": "kept; no VPC has IPv6 yet",
	"AuthorizeSecurityGroupEgress.IpPermissions.Ipv6Ranges":  "kept; no VPC has IPv6 yet",
}

// New returns the service.
func New(c Config) *EC2 { return &EC2{Config: c} }

var _ api.Handler = (*EC2)(nil)

func bad(code, format string, args ...any) error {
	return wire.NewError(http.StatusBadRequest, code, fmt.Sprintf(format, args...))
}

func (e *EC2) arn(account, kind, id string) *string {
	return new(fmt.Sprintf("arn:aws:ec2:%s:%s:%s/%s", e.Region, account, kind, id))
}

func (e *EC2) id(prefix string) string { return prefix + "-" + e.NewID()[:17] }

// request is what all Describe calls have in common.
type request struct {
	ids     []string
	filters []api.Filter
	max     *int32
	token   *string
}

// kind is how one kind of resource is listed.
type kind[R, V any] struct {
	name    string      // names the page tokens
	rows    iter.Seq[R] // in key order
	id      func(R) string
	missing func(id string) error                 // for an id that is not there
	field   func(R, string) (v []string, ok bool) // values of a filter; ok false: no such filter
	tags    func(R) []state.Tag
	view    func(R) V
}

// list answers a Describe call.
func list[R, V any](q request, k kind[R, V]) ([]V, *string, error) {
	after, err := openToken(k.name, q.token)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range q.filters {
		if wire.Value(f.Name) == "" {
			return nil, nil, bad("InvalidParameterValue", "Filter name is missing.")
		}
		if len(f.Values) == 0 {
			return nil, nil, bad("InvalidParameterValue", "The filter '%s' has no values.", *f.Name)
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
		ok, err := matches(q.filters, r, k)
		if err != nil {
			return nil, nil, err
		}
		if !ok || id <= after && after != "" {
			continue
		}
		if q.max != nil && len(out) == int(*q.max) {
			next = sealToken(k.name, last)
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

func matches[R, V any](fs []api.Filter, r R, k kind[R, V]) (bool, error) {
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

func sealToken(name, after string) *string {
	return new(base64.RawURLEncoding.EncodeToString([]byte(name + "\n" + after)))
}

func openToken(name string, token *string) (string, error) {
	if wire.Value(token) == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*token)
	of, after, ok := strings.Cut(string(b), "\n")
	if err != nil || !ok || of != name {
		return "", bad("InvalidNextToken", "The specified token is not valid.")
	}
	return after, nil
}

func tagsView(ts []state.Tag) []api.Tag {
	var out []api.Tag
	for _, t := range ts {
		out = append(out, api.Tag{Key: new(t.Key), Value: new(t.Value)})
	}
	return out
}

// tagsFor takes the tags of a new resource of a type from a request's specifications.
func tagsFor(kind api.ResourceType, specs []api.TagSpecification) ([]state.Tag, error) {
	var out []state.Tag
	for _, s := range specs {
		if s.ResourceType != kind {
			return nil, bad("InvalidParameterValue", "The resource type '%s' is not valid for this call; it must be '%s'.", s.ResourceType, kind)
		}
		for _, t := range s.Tags {
			if err := checkTag(t); err != nil {
				return nil, err
			}
			out = setTag(out, wire.Value(t.Key), wire.Value(t.Value))
		}
	}
	if len(out) > 50 {
		return nil, bad("TagLimitExceeded", "The maximum number of tags for this resource has been reached.")
	}
	return out, nil
}

func checkTag(t api.Tag) error {
	key := wire.Value(t.Key)
	switch {
	case key == "":
		return bad("MissingParameter", "The request must contain the parameter Tag.Key")
	case len(key) > 127:
		return bad("InvalidParameterValue", "Tag key exceeds the maximum length of 127 characters")
	case len(wire.Value(t.Value)) > 255:
		return bad("InvalidParameterValue", "Tag value exceeds the maximum length of 255 characters")
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		return bad("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
	}
	return nil
}

func setTag(ts []state.Tag, key, value string) []state.Tag {
	ts = slices.Clone(ts)
	for i := range ts {
		if ts[i].Key == key {
			ts[i].Value = value
			return ts
		}
	}
	return append(ts, state.Tag{Key: key, Value: value})
}

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func flag(b bool) []string {
	if b {
		return []string{"true"}
	}
	return []string{"false"}
}

// mine keeps the rows of the caller's account.
func mine[T any](rows iter.Seq[*T], account string, of func(*T) string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for r := range rows {
			if of(r) == account && !yield(r) {
				return
			}
		}
	}
}
