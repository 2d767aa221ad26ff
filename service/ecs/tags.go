package ecs

import (
	"context"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const maxTags = 50

// newTags checks the tags of a request.
func newTags(tags []api.Tag) ([]state.Tag, error) {
	if len(tags) > maxTags {
		return nil, invalid("The number of tags exceeds the limit of %d.", maxTags)
	}
	var out []state.Tag
	for _, t := range tags {
		key := val(t.Key)
		switch {
		case key == "":
			return nil, invalid("Tag key must not be null or empty.")
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, invalid("Tag keys starting with 'aws:' are reserved for system use.")
		case slices.ContainsFunc(out, func(o state.Tag) bool { return o.Key == key }):
			return nil, invalid("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		out = append(out, state.Tag{Key: key, Value: val(t.Value)})
	}
	return out, nil
}

// mergeTags returns base with more laid over it, in order of appearance.
func mergeTags(base, more []state.Tag) []state.Tag {
	out := slices.Clone(base)
	for _, t := range more {
		if i := slices.IndexFunc(out, func(o state.Tag) bool { return o.Key == t.Key }); i >= 0 {
			out[i] = t
		} else {
			out = append(out, t)
		}
	}
	return out
}

func tagView(tags []state.Tag) []api.Tag {
	out := make([]api.Tag, len(tags))
	for i, t := range tags {
		out[i] = api.Tag{Key: new(t.Key), Value: new(t.Value)}
	}
	return out
}

// tagged is a resource that carries tags.
type tagged struct {
	tags []state.Tag
	put  func(tx *store.Tx, tags []state.Tag)
}

// tagged finds what an ARN names.
func (e *ECS) tagged(r store.Reader, account, ref string) (tagged, error) {
	a, ok := parseARN(ref)
	if !ok {
		return tagged{}, invalid("Invalid identifier: %s", ref)
	}
	if _, err := e.mine(account, ref, a.kind); err != nil {
		return tagged{}, err
	}
	missing := func(what string) (tagged, error) {
		return tagged{}, invalid("The specified %s could not be found.", what)
	}
	switch a.kind {
	case "cluster":
		c, ok := state.Clusters.Get(r, ref)
		if !ok || c.Status != statusActive {
			return tagged{}, &api.ClusterNotFoundException{Message: "Cluster not found."}
		}
		return tagged{c.Tags, func(tx *store.Tx, tags []state.Tag) {
			n := *c
			n.Tags = tags
			state.Clusters.Put(tx, &n)
		}}, nil
	case "task-definition":
		td, ok := state.TaskDefinitions.Get(r, ref)
		if !ok {
			return missing("task definition")
		}
		return tagged{td.Tags, func(tx *store.Tx, tags []state.Tag) {
			n := *td
			n.Tags = tags
			state.TaskDefinitions.Put(tx, &n)
		}}, nil
	case "task":
		t, ok := state.Tasks.Get(r, ref)
		if !ok {
			return missing("task")
		}
		return tagged{t.Tags, func(tx *store.Tx, tags []state.Tag) {
			n := t.Clone()
			n.Tags = tags
			state.Tasks.Put(tx, n)
		}}, nil
	case "service":
		s, ok := state.Services.Get(r, ref)
		if !ok || s.Status == statusInactive {
			return missing("service")
		}
		return tagged{s.Tags, func(tx *store.Tx, tags []state.Tag) {
			n := s.Clone()
			n.Tags = tags
			state.Services.Put(tx, n)
		}}, nil
	case "task-set":
		t, ok := state.TaskSets.Get(r, ref)
		if !ok {
			return missing("task set")
		}
		return tagged{t.Tags, func(tx *store.Tx, tags []state.Tag) {
			n := *t
			n.Tags = tags
			state.TaskSets.Put(tx, &n)
		}}, nil
	case "container-instance":
		i, ok := state.ContainerInstances.Get(r, ref)
		if !ok || i.Status == statusInactive {
			return missing("container instance")
		}
		return tagged{i.Tags, func(tx *store.Tx, tags []state.Tag) {
			n := *i
			n.Tags = tags
			state.ContainerInstances.Put(tx, &n)
		}}, nil
	case "capacity-provider":
		if state.IsFargate(state.ShortARN(ref)) {
			return tagged{}, invalid("The specified capacity provider is reserved and cannot be tagged.")
		}
		p, ok := state.CapacityProviders.Get(r, ref)
		if !ok {
			return missing("capacity provider")
		}
		return tagged{p.Tags, func(tx *store.Tx, tags []state.Tag) {
			n := *p
			n.Tags = tags
			state.CapacityProviders.Put(tx, &n)
		}}, nil
	case "daemon":
		d, ok := state.Daemons.Get(r, ref)
		if !ok {
			return missing("daemon")
		}
		return tagged{d.Tags, func(tx *store.Tx, tags []state.Tag) {
			n := *d
			n.Tags = tags
			state.Daemons.Put(tx, &n)
		}}, nil
	case daemonDefinition:
		d, ok := state.DaemonDefinitions.Get(r, ref)
		if !ok {
			return missing("daemon task definition")
		}
		return tagged{d.Tags, func(tx *store.Tx, tags []state.Tag) {
			n := *d
			n.Tags = tags
			state.DaemonDefinitions.Put(tx, &n)
		}}, nil
	}
	return tagged{}, invalid("Invalid identifier: Identifier is for %s, which cannot be tagged.", a.kind)
}

// TagResource adds tags to a resource, or changes their values.
func (e *ECS) TagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	caller := e.caller(ctx)
	return &api.TagResourceOutput{}, e.update(ctx, func(tx *store.Tx) error {
		res, err := e.tagged(tx, caller.Account, val(in.ResourceArn))
		if err != nil {
			return err
		}
		next := mergeTags(res.tags, tags)
		own := 0
		for _, t := range next {
			if !strings.HasPrefix(t.Key, "aws:") {
				own++
			}
		}
		if own > maxTags {
			return invalid("The number of tags exceeds the limit of %d.", maxTags)
		}
		res.put(tx, next)
		return nil
	})
}

// UntagResource removes tags. Those that are not there are no error.
func (e *ECS) UntagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	caller := e.caller(ctx)
	for _, k := range in.TagKeys {
		if strings.HasPrefix(strings.ToLower(k), "aws:") {
			return nil, invalid("Tag keys starting with 'aws:' are reserved for system use.")
		}
	}
	return &api.UntagResourceOutput{}, e.update(ctx, func(tx *store.Tx) error {
		res, err := e.tagged(tx, caller.Account, val(in.ResourceArn))
		if err != nil {
			return err
		}
		res.put(tx, slices.DeleteFunc(slices.Clone(res.tags), func(t state.Tag) bool { return slices.Contains(in.TagKeys, t.Key) }))
		return nil
	})
}

// ListTagsForResource shows the tags of a resource.
func (e *ECS) ListTagsForResource(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	out := &api.ListTagsForResourceOutput{}
	return out, e.view(func(r store.Reader) error {
		res, err := e.tagged(r, e.caller(ctx).Account, val(in.ResourceArn))
		out.Tags = tagView(res.tags)
		return err
	})
}
