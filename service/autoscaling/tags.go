package autoscaling

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	maxTags  = 50
	tagsType = "auto-scaling-group"
)

// setTags lays tags over those of a group.
func setTags(have []api.TagDescription, name string, add []api.Tag) ([]api.TagDescription, error) {
	out := slices.Clone(have)
	for _, t := range add {
		if strings.HasPrefix(strings.ToLower(str(t.Key)), "aws:") {
			return nil, invalid("Tag keys starting with 'aws:' are reserved for internal use")
		}
		n := api.TagDescription{ResourceId: new(name), ResourceType: new(tagsType), Key: t.Key, Value: new(str(t.Value)), PropagateAtLaunch: new(t.PropagateAtLaunch != nil && *t.PropagateAtLaunch)}
		if i := slices.IndexFunc(out, func(h api.TagDescription) bool { return *h.Key == *t.Key }); i >= 0 {
			out[i] = n
		} else {
			out = append(out, n)
		}
	}
	if len(out) > maxTags {
		return nil, &api.LimitExceededFault{Message: "The number of tags of an AutoScalingGroup must be 50 at most."}
	}
	slices.SortFunc(out, func(a, b api.TagDescription) int { return strings.Compare(*a.Key, *b.Key) })
	return out, nil
}

// tagged changes the groups that tags name.
func (s *Scaling) tagged(ctx context.Context, tags []api.Tag, f func(g *state.ScalingGroup, t api.Tag) error) error {
	return s.DB.Update(ctx, func(tx *store.Tx) error {
		groups := map[string]*state.ScalingGroup{}
		for _, t := range tags {
			if str(t.ResourceType) != tagsType && t.ResourceType != nil {
				return invalid("The resource type %s is not valid: it must be %s.", *t.ResourceType, tagsType)
			}
			g := groups[str(t.ResourceId)]
			if g == nil {
				have, err := group(tx, account(ctx), t.ResourceId)
				if err != nil {
					return err
				}
				g = have.Clone()
				groups[g.Name] = g
			}
			if err := f(g, t); err != nil {
				return err
			}
		}
		for _, g := range groups {
			state.ScalingGroups.Put(tx, g)
		}
		return nil
	})
}

// CreateOrUpdateTags sets tags of groups.
func (s *Scaling) CreateOrUpdateTags(ctx context.Context, in *api.CreateOrUpdateTagsInput) (*api.CreateOrUpdateTagsOutput, error) {
	return &api.CreateOrUpdateTagsOutput{}, s.tagged(ctx, in.Tags, func(g *state.ScalingGroup, t api.Tag) (err error) {
		g.Doc.Tags, err = setTags(g.Doc.Tags, g.Name, []api.Tag{t})
		return err
	})
}

// DeleteTags takes tags of groups away.
func (s *Scaling) DeleteTags(ctx context.Context, in *api.DeleteTagsInput) (*api.DeleteTagsOutput, error) {
	return &api.DeleteTagsOutput{}, s.tagged(ctx, in.Tags, func(g *state.ScalingGroup, t api.Tag) error {
		g.Doc.Tags = slices.DeleteFunc(slices.Clone(g.Doc.Tags), func(h api.TagDescription) bool {
			return *h.Key == *t.Key && (t.Value == nil || *t.Value == *h.Value)
		})
		return nil
	})
}

func filterText(fs []api.Filter) string {
	b, _ := json.Marshal(fs) // texts always encode
	return string(b)
}

// tagFilters are the filters of DescribeAutoScalingGroups: all must hold.
func tagFilters(fs []api.Filter) (func(*state.ScalingGroup) bool, error) {
	for _, f := range fs {
		if n := str(f.Name); n != "tag-key" && n != "tag-value" && !strings.HasPrefix(n, "tag:") {
			return nil, invalid("Filter type %s is not correct. Allowed Filter types are: tag-key tag-value tag:<key>", n)
		}
	}
	return func(g *state.ScalingGroup) bool {
		for _, f := range fs {
			if !slices.ContainsFunc(g.Doc.Tags, func(t api.TagDescription) bool {
				switch n := str(f.Name); {
				case n == "tag-key":
					return slices.Contains(f.Values, *t.Key)
				case n == "tag-value":
					return slices.Contains(f.Values, *t.Value)
				default:
					return *t.Key == n[len("tag:"):] && slices.Contains(f.Values, *t.Value)
				}
			}) {
				return false
			}
		}
		return true
	}, nil
}

// DescribeTags lists the tags of groups.
func (s *Scaling) DescribeTags(ctx context.Context, in *api.DescribeTagsInput) (*api.DescribeTagsOutput, error) {
	r, me := s.DB.Snapshot(), account(ctx)
	for _, f := range in.Filters {
		if !slices.Contains([]string{"auto-scaling-group", "key", "value", "propagate-at-launch"}, str(f.Name)) {
			return nil, invalid("Filter type %s is not correct. Allowed Filter types are: auto-scaling-group key propagate-at-launch value", str(f.Name))
		}
	}
	var rows []api.TagDescription
	for g := range state.ScalingGroups.By(r, "account", me) {
		for _, t := range g.Doc.Tags {
			if !slices.ContainsFunc(in.Filters, func(f api.Filter) bool {
				is := map[string]string{"auto-scaling-group": g.Name, "key": *t.Key, "value": *t.Value, "propagate-at-launch": strconv.FormatBool(*t.PropagateAtLaunch)}[*f.Name]
				return !slices.Contains(f.Values, is)
			}) {
				rows = append(rows, t)
			}
		}
	}
	key := func(t api.TagDescription) string { return *t.ResourceId + "\x00" + *t.Key }
	slices.SortFunc(rows, func(a, b api.TagDescription) int { return strings.Compare(key(a), key(b)) })
	rows, next, err := pages(s, page.Query{"tags", me, filterText(in.Filters)}, rows, key, in.NextToken, in.MaxRecords, 50, 100)
	if err != nil {
		return nil, err
	}
	return &api.DescribeTagsOutput{Tags: orEmpty(rows), NextToken: next}, nil
}
