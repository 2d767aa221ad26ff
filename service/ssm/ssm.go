// Package ssm answers two parts of the Systems Manager API: the Parameter
// Store, with parameters of the account and the public ones that say which AMIs
// Amazon's are, and Session Manager, terminals in instances, which package
// dispatch serves. It validates, writes one transaction, and answers. It must
// never show a SecureString's value to who did not ask for it to be decrypted.
package ssm

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ssm"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Config is what the service needs.
type Config struct {
	DB     *store.DB
	Region string
	Now    func() time.Time
	// Connected tells whether terminals can be had on a node. nil: nowhere.
	Connected func(node string) bool
	// RoleMay tells whether a role, as an AWS service's, may do all of the
	// actions on everything. nil: it may not.
	RoleMay func(ctx context.Context, r store.Reader, roleARN, service string, actions ...string) bool
}

// SSM implements the API.
type SSM struct {
	api.Unimplemented
	Config
}

// New returns the service.
func New(c Config) *SSM { return &SSM{Config: c} }

var _ api.Handler = (*SSM)(nil)

// Stored lists the request fields that are kept and shown but not acted upon,
// by operation and field, each with what that means.
var Stored = map[string]string{
	"PutParameter.KeyId":        "kept and shown; there is no KMS: all values are sealed with the store's key",
	"PutParameter.Policies":     "kept and shown; parameters do not expire, and nobody is notified",
	"DescribeParameters.Shared": "accepted; parameters are not shared between accounts",
}

func invalid(format string, args ...any) error {
	return wire.NewError(http.StatusBadRequest, "ValidationException", fmt.Sprintf(format, args...))
}

func noParameter(name string) error {
	return &api.ParameterNotFound{Message: fmt.Sprintf("Parameter %s not found.", name)}
}

func account(ctx context.Context) string { return auth.FromContext(ctx).Account }

func (s *SSM) arn(account, name string) string {
	return fmt.Sprintf("arn:aws:ssm:%s:%s:parameter/%s", s.Region, account, strings.TrimPrefix(name, "/"))
}

// bare is the name of a parameter that a request gives by name or by ARN.
func (s *SSM) bare(account, given string) string {
	rest, ok := strings.CutPrefix(given, "arn:aws:ssm:"+s.Region+":"+account+":parameter/")
	if !ok {
		if rest, ok = strings.CutPrefix(given, "arn:aws:ssm:"+s.Region+"::parameter/"); !ok {
			return given
		}
	}
	if strings.Contains(rest, "/") {
		return "/" + rest
	}
	return rest
}

// split takes a selector, a version or label, off a name.
func split(name string) (bare, selector string) {
	if i := strings.LastIndexByte(name, ':'); i > 0 && !strings.HasPrefix(name, "arn:") || strings.Count(name, ":") > 5 {
		return name[:i], name[i+1:]
	}
	return name, ""
}

func tagsView(ts []state.Tag) []api.Tag {
	out := []api.Tag{}
	for _, t := range ts {
		out = append(out, api.Tag{Key: new(t.Key), Value: new(t.Value)})
	}
	return out
}

// setTags sets tags over those there are.
func setTags(ts []state.Tag, add []api.Tag) ([]state.Tag, error) {
	ts = slices.Clone(ts)
	for _, t := range add {
		key, value := wire.Value(t.Key), wire.Value(t.Value)
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			return nil, invalid("Tag keys must not start with 'aws:': %s", key)
		}
		if i := slices.IndexFunc(ts, func(have state.Tag) bool { return have.Key == key }); i >= 0 {
			ts[i].Value = value
		} else {
			ts = append(ts, state.Tag{Key: key, Value: value})
		}
	}
	if len(ts) > 50 {
		return nil, &api.TooManyTagsError{Message: "The maximum number of tags for this resource has been reached."}
	}
	return ts, nil
}

// tagged is the parameter that the tagging calls name. Other kinds of resources
// that SSM tags are not here.
func (s *SSM) tagged(r store.Reader, account string, kind api.ResourceTypeForTagging, id *string) (*state.Parameter, error) {
	if kind != "Parameter" {
		return nil, &api.InvalidResourceType{Message: fmt.Sprintf("Resources of type %s are not here; parameters are.", kind)}
	}
	p, ok := state.Parameters.Get(r, state.ParameterKey(account, s.bare(account, wire.Value(id))))
	if !ok {
		return nil, &api.InvalidResourceId{Message: "The resource ID isn't valid. Verify that you entered the correct ID and try again."}
	}
	return p, nil
}

// AddTagsToResource sets tags on a parameter.
func (s *SSM) AddTagsToResource(ctx context.Context, in *api.AddTagsToResourceInput) (*api.AddTagsToResourceOutput, error) {
	return &api.AddTagsToResourceOutput{}, s.DB.Update(ctx, func(tx *store.Tx) error {
		p, err := s.tagged(tx, account(ctx), in.ResourceType, in.ResourceId)
		if err != nil {
			return err
		}
		next := *p
		if next.Tags, err = setTags(p.Tags, in.Tags); err != nil {
			return err
		}
		state.Parameters.Put(tx, &next)
		return nil
	})
}

// RemoveTagsFromResource removes tags of a parameter.
func (s *SSM) RemoveTagsFromResource(ctx context.Context, in *api.RemoveTagsFromResourceInput) (*api.RemoveTagsFromResourceOutput, error) {
	return &api.RemoveTagsFromResourceOutput{}, s.DB.Update(ctx, func(tx *store.Tx) error {
		p, err := s.tagged(tx, account(ctx), in.ResourceType, in.ResourceId)
		if err != nil {
			return err
		}
		next := *p
		next.Tags = slices.DeleteFunc(slices.Clone(p.Tags), func(t state.Tag) bool { return slices.Contains(in.TagKeys, t.Key) })
		state.Parameters.Put(tx, &next)
		return nil
	})
}

// ListTagsForResource lists the tags of a parameter.
func (s *SSM) ListTagsForResource(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	p, err := s.tagged(s.DB.Snapshot(), account(ctx), in.ResourceType, in.ResourceId)
	if err != nil {
		return nil, err
	}
	return &api.ListTagsForResourceOutput{TagList: tagsView(p.Tags)}, nil
}
