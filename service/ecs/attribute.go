package ecs

import (
	"context"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Limits of attributes (facts: attributes).
const (
	maxAttributes = 10 // of one request, and of what users put on one resource
	maxAttribute  = 128
)

// isReserved holds for the attributes that are Amazon's and the agent's.
func isReserved(name string) bool {
	return strings.HasPrefix(name, "ecs.") || strings.HasPrefix(name, "com.amazonaws.ecs.")
}

// checkAttribute validates an attribute's name and value.
func checkAttribute(a *api.Attribute) error {
	within := func(s, more string) bool {
		return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./\\-"+more) == ""
	}
	name := val(a.Name)
	switch {
	case name == "" || len(name) > maxAttribute || !within(name, ""):
		return invalid("Invalid attribute name: '%s'. It must have 1 to %d letters, numbers, hyphens, underscores, periods and slashes.", name, maxAttribute)
	case a.Value == nil || isReserved(name):
		return nil
	}
	value := *a.Value
	if len(value) > maxAttribute || !within(value, "@: ") || strings.TrimSpace(value) != value {
		return invalid("Invalid value of attribute '%s'. It must have at most %d letters, numbers, hyphens, underscores, periods, at signs, slashes, colons and spaces, and not begin or end with a space.", name, maxAttribute)
	}
	return nil
}

// targets finds the instances that attributes are for, each once, in order.
func (e *ECS) targets(r store.Reader, account string, cluster *state.Cluster, attributes []api.Attribute) (found []*state.ContainerInstance, of []int, err error) {
	for _, a := range attributes {
		ref := val(a.TargetId)
		if ref == "" {
			return nil, nil, invalid("TargetId can not be empty.")
		}
		if isARN(ref) && a.TargetType == "" {
			a.TargetType = api.TargetTypeContainerInstance
		}
		if a.TargetType == "" {
			return nil, nil, invalid("TargetType must be specified when the short form of a target id is used.")
		}
		i, _, err := e.instance(r, account, cluster, ref)
		if err != nil {
			return nil, nil, err
		}
		if i == nil || i.Status == statusInactive {
			return nil, nil, &api.TargetNotFoundException{Message: "Could not find " + ref}
		}
		n := slices.IndexFunc(found, func(o *state.ContainerInstance) bool { return o.ARN == i.ARN })
		if n < 0 {
			n, found = len(found), append(found, i)
		}
		of = append(of, n)
	}
	return found, of, nil
}

func checkAttributes(attributes []api.Attribute) error {
	switch n := len(attributes); {
	case n == 0:
		return invalid("Attributes cannot be empty.")
	case n > maxAttributes:
		return invalid("Attributes cannot exceed %d elements", maxAttributes)
	}
	for i := range attributes {
		if err := checkAttribute(&attributes[i]); err != nil {
			return err
		}
		if isReserved(val(attributes[i].Name)) {
			return invalid("The attribute '%s' is reserved.", *attributes[i].Name)
		}
	}
	return nil
}

// PutAttributes puts attributes on container instances, or changes them.
func (e *ECS) PutAttributes(ctx context.Context, in *api.PutAttributesInput) (*api.PutAttributesOutput, error) {
	if err := checkAttributes(in.Attributes); err != nil {
		return nil, err
	}
	account := e.caller(ctx).Account
	out := &api.PutAttributesOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		out.Attributes = []api.Attribute{}
		cluster, err := e.activeCluster(tx, account, in.Cluster)
		if err != nil {
			return err
		}
		instances, of, err := e.targets(tx, account, cluster, in.Attributes)
		if err != nil {
			return err
		}
		next := make([]state.ContainerInstance, len(instances))
		for n, i := range instances {
			next[n] = *i
			next[n].Attributes = slices.Clone(i.Attributes)
		}
		for n, a := range in.Attributes {
			i := &next[of[n]]
			// The name and the value are the instance's; what they were put on is not.
			kept := api.Attribute{Name: a.Name, Value: a.Value}
			if at := slices.IndexFunc(i.Attributes, func(o api.Attribute) bool { return val(o.Name) == val(a.Name) }); at >= 0 {
				i.Attributes[at] = kept
			} else {
				i.Attributes = append(i.Attributes, kept)
			}
			out.Attributes = append(out.Attributes, api.Attribute{Name: a.Name, Value: a.Value, TargetType: a.TargetType, TargetId: &i.ARN})
		}
		for n := range next {
			i := &next[n]
			own := 0
			for _, a := range i.Attributes {
				if !isReserved(val(a.Name)) {
					own++
				}
			}
			if own > maxAttributes {
				return &api.AttributeLimitExceededException{Message: "The number of attributes on the resource exceeds the limit of 10."}
			}
			if !sameDocument(i, instances[n]) {
				i.Version++
				state.ContainerInstances.Put(tx, i)
			}
		}
		return nil
	})
}

// DeleteAttributes takes attributes away. Those that are not there are no error.
func (e *ECS) DeleteAttributes(ctx context.Context, in *api.DeleteAttributesInput) (*api.DeleteAttributesOutput, error) {
	if err := checkAttributes(in.Attributes); err != nil {
		return nil, err
	}
	account := e.caller(ctx).Account
	out := &api.DeleteAttributesOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		out.Attributes = []api.Attribute{}
		cluster, err := e.activeCluster(tx, account, in.Cluster)
		if err != nil {
			return err
		}
		instances, of, err := e.targets(tx, account, cluster, in.Attributes)
		if err != nil {
			return err
		}
		for n, i := range instances {
			next := *i
			next.Attributes = slices.DeleteFunc(slices.Clone(i.Attributes), func(o api.Attribute) bool {
				for m, a := range in.Attributes {
					if of[m] == n && val(a.Name) == val(o.Name) && (a.Value == nil || *a.Value == val(o.Value)) {
						return true
					}
				}
				return false
			})
			if len(next.Attributes) != len(i.Attributes) {
				next.Version++
				state.ContainerInstances.Put(tx, &next)
			}
		}
		for n, a := range in.Attributes {
			out.Attributes = append(out.Attributes, api.Attribute{Name: a.Name, Value: a.Value, TargetType: a.TargetType, TargetId: &instances[of[n]].ARN})
		}
		return nil
	})
}

// ListAttributes lists the attributes of a cluster's instances.
func (e *ECS) ListAttributes(ctx context.Context, in *api.ListAttributesInput) (*api.ListAttributesOutput, error) {
	account := e.caller(ctx).Account
	if in.AttributeValue != nil && val(in.AttributeName) == "" {
		return nil, invalid("An attribute name must be specified when an attribute value is.")
	}
	r := e.db.Snapshot()
	cluster, err := e.cluster(r, account, in.Cluster)
	if err != nil {
		return nil, err
	}
	found := map[string]api.Attribute{}
	var keys []string
	for i := range state.ContainerInstances.By(r, "cluster", cluster.ARN) {
		if i.Hidden || i.Status == statusInactive {
			continue
		}
		for _, a := range i.Attributes {
			if in.AttributeName != nil && val(a.Name) != *in.AttributeName || in.AttributeValue != nil && val(a.Value) != *in.AttributeValue {
				continue
			}
			key := i.ARN + "\x00" + val(a.Name)
			if _, twice := found[key]; !twice {
				keys = append(keys, key)
			}
			found[key] = api.Attribute{Name: a.Name, Value: a.Value, TargetId: &i.ARN}
		}
	}
	q := query{"ListAttributes", cluster.ARN, string(in.TargetType), val(in.AttributeName), val(in.AttributeValue)}
	keys, next, err := page(keys, q, in.NextToken, in.MaxResults, 100, 100, e.now())
	if err != nil {
		return nil, err
	}
	out := &api.ListAttributesOutput{Attributes: []api.Attribute{}, NextToken: next}
	for _, k := range keys {
		out.Attributes = append(out.Attributes, found[k])
	}
	return out, nil
}
