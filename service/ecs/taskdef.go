package ecs

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// maxDefinition is the size of a task definition's JSON, in bytes.
const maxDefinition = 64 << 10

// RegisterTaskDefinition makes the next revision of a family.
func (e *ECS) RegisterTaskDefinition(ctx context.Context, in *api.RegisterTaskDefinitionInput) (*api.RegisterTaskDefinitionOutput, error) {
	caller := e.caller(ctx)
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode task definition: %w", err)
	}
	if len(b) > maxDefinition {
		return nil, client("Actual length: '%d'. Max allowed length is '%d' bytes.", len(b), maxDefinition)
	}
	// The document is changed below: the request stays as it came.
	own := clone(reflect.ValueOf(in)).Interface().(*api.RegisterTaskDefinitionInput)
	doc := document(own)
	if err := validateDefinition(doc); err != nil {
		return nil, err
	}
	for _, role := range []**string{&doc.TaskRoleArn, &doc.ExecutionRoleArn} {
		if err := expandRole(caller.Account, role); err != nil {
			return nil, err
		}
	}
	if doc.Compatibilities, err = compatibilities(doc); err != nil {
		return nil, err
	}
	fillDefaults(doc)
	doc.RequiresAttributes = requiredAttributes(doc)
	doc.Status = api.TaskDefinitionStatusActive
	doc.RegisteredAt, doc.RegisteredBy = new(e.now()), opt(caller.ARN)

	family := val(doc.Family)
	out := &api.RegisterTaskDefinitionOutput{Tags: tagView(tags)}
	return out, e.update(ctx, func(tx *store.Tx) error {
		for _, role := range []*string{doc.TaskRoleArn, doc.ExecutionRoleArn} {
			if role == nil {
				continue
			}
			if err := e.cfg.PassRole(ctx, tx, caller, *role, tasksService); err != nil {
				return err
			}
		}
		next := state.Family{Account: caller.Account, Name: family}
		if f, ok := state.Families.Get(tx, caller.Account+"/"+family); ok {
			next = *f
		}
		if limit := state.Limit(tx, caller.Account, "ecs/revisions-per-family"); next.Last >= limit {
			return client("The maximum number of revisions per family has been reached: %d.", limit)
		}
		next.Last++
		state.Families.Put(tx, &next)

		d := *doc // the callback may run again with another revision
		d.Revision = num(next.Last)
		d.TaskDefinitionArn = new(e.definitionARN(caller.Account, family, next.Last))
		state.TaskDefinitions.Put(tx, &state.TaskDefinition{
			ARN: *d.TaskDefinitionArn, Account: caller.Account, Family: family, Revision: next.Last,
			Status: statusActive, Doc: d, Tags: tags,
		})
		out.TaskDefinition = &d
		return nil
	})
}

// clone copies a document of the API with all that it points to.
func clone(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		next := reflect.New(v.Type().Elem())
		next.Elem().Set(clone(v.Elem()))
		return next
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		next := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			next.Index(i).Set(clone(v.Index(i)))
		}
		return next
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		next := reflect.MakeMapWithSize(v.Type(), v.Len())
		for i := v.MapRange(); i.Next(); {
			next.SetMapIndex(i.Key(), clone(i.Value()))
		}
		return next
	case reflect.Struct:
		next := reflect.New(v.Type()).Elem()
		next.Set(v) // times have fields of their own
		for i := range v.NumField() {
			switch f := v.Field(i); f.Kind() {
			case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Struct:
				if v.Type().Field(i).IsExported() && !f.IsZero() {
					next.Field(i).Set(clone(f))
				}
			}
		}
		return next
	}
	return v
}

// document makes the task definition out of a request, field by field.
func document(in *api.RegisterTaskDefinitionInput) *api.TaskDefinition {
	return &api.TaskDefinition{
		Family: in.Family, ContainerDefinitions: in.ContainerDefinitions,
		TaskRoleArn: in.TaskRoleArn, ExecutionRoleArn: in.ExecutionRoleArn,
		NetworkMode: in.NetworkMode, Volumes: in.Volumes,
		PlacementConstraints:    in.PlacementConstraints,
		RequiresCompatibilities: in.RequiresCompatibilities,
		Cpu:                     in.Cpu, Memory: in.Memory,
		PidMode: in.PidMode, IpcMode: in.IpcMode,
		ProxyConfiguration: in.ProxyConfiguration, InferenceAccelerators: in.InferenceAccelerators,
		EphemeralStorage: in.EphemeralStorage, RuntimePlatform: in.RuntimePlatform,
		EnableFaultInjection: in.EnableFaultInjection,
	}
}

// expandRole turns a short role name into its ARN.
func expandRole(account string, role **string) error {
	s := val(*role)
	switch {
	case s == "":
		*role = nil
		return nil
	case strings.HasPrefix(s, "arn:"):
		p := strings.SplitN(s, ":", 6)
		if len(p) != 6 || p[2] != "iam" || p[3] != "" || !strings.HasPrefix(p[5], "role/") || len(p[5]) == len("role/") {
			return client("Role is not valid")
		}
		return nil
	case strings.Trim(s, roleChars) != "":
		return client("Role is not valid")
	}
	*role = new("arn:aws:iam::" + account + ":role/" + s)
	return nil
}

const roleChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+=,.@_-"

// definitionView is the document with what may have changed since it was registered.
func definitionView(td *state.TaskDefinition) *api.TaskDefinition {
	d := td.Doc
	d.Status = api.TaskDefinitionStatus(td.Status)
	return &d
}

const unknownDefinition = "Unable to describe task definition."

// DescribeTaskDefinition shows a revision, or the newest active one of a family.
func (e *ECS) DescribeTaskDefinition(ctx context.Context, in *api.DescribeTaskDefinitionInput) (*api.DescribeTaskDefinitionOutput, error) {
	td, ok, err := e.definition(e.db.Snapshot(), e.caller(ctx).Account, val(in.TaskDefinition))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, client(unknownDefinition)
	}
	out := &api.DescribeTaskDefinitionOutput{TaskDefinition: definitionView(td), Tags: []api.Tag{}}
	if slices.Contains(in.Include, api.TaskDefinitionFieldTags) {
		out.Tags = tagView(td.Tags)
	}
	return out, nil
}

// DeregisterTaskDefinition makes a revision INACTIVE. What runs from it runs on.
func (e *ECS) DeregisterTaskDefinition(ctx context.Context, in *api.DeregisterTaskDefinitionInput) (*api.DeregisterTaskDefinitionOutput, error) {
	account := e.caller(ctx).Account
	ref, err := e.parseDefinition(account, val(in.TaskDefinition))
	if err != nil {
		return nil, err
	}
	if ref.revision == "" {
		return nil, client("Revision is missing.")
	}
	revision, ok := ref.number()
	if !ok {
		return nil, invalid("Invalid revision number. Number: %s", ref.revision)
	}
	now := e.now()
	out := &api.DeregisterTaskDefinitionOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		td, ok := state.TaskDefinitions.Get(tx, e.definitionARN(account, ref.family, revision))
		if !ok {
			return client(unknownDefinition)
		}
		if td.Status == statusActive {
			n := *td
			n.Status = statusInactive
			n.Doc.Status = api.TaskDefinitionStatusInactive
			n.Doc.DeregisteredAt = &now
			state.TaskDefinitions.Put(tx, &n)
			td = &n
		}
		out.TaskDefinition = definitionView(td)
		return nil
	})
}

// DeleteTaskDefinitions marks INACTIVE revisions for deletion. They go when
// nothing refers to them any more.
func (e *ECS) DeleteTaskDefinitions(ctx context.Context, in *api.DeleteTaskDefinitionsInput) (*api.DeleteTaskDefinitionsOutput, error) {
	account := e.caller(ctx).Account
	switch {
	case len(in.TaskDefinitions) == 0:
		return nil, invalid("size of TaskDefinition references list must be greater than 0")
	case len(in.TaskDefinitions) > 10:
		return nil, invalid("Size of TaskDefinition references list cannot exceed 10")
	}
	now := e.now()
	out := &api.DeleteTaskDefinitionsOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		out.TaskDefinitions, out.Failures = []api.TaskDefinition{}, []api.Failure{}
		fail := func(ref, reason string) {
			out.Failures = append(out.Failures, api.Failure{Arn: &ref, Reason: &reason})
		}
		for _, s := range in.TaskDefinitions {
			ref, err := e.parseDefinition(account, s)
			if err != nil {
				return err
			}
			if ref.revision == "" {
				return client("Revision is missing.")
			}
			revision, ok := ref.number()
			if !ok {
				return invalid("Invalid revision number. Number: %s", ref.revision)
			}
			arn := e.definitionARN(account, ref.family, revision)
			td, ok := state.TaskDefinitions.Get(tx, arn)
			switch {
			case !ok:
				fail(arn, "The specified task definition does not exist. Specify a valid account, family, revision and try again.")
				continue
			case td.Status == statusActive:
				fail(arn, "The specified task definition is still in ACTIVE status. Please deregister the target and try again.")
				continue
			case td.Status == statusInactive:
				n := *td
				n.Status = statusDeleting
				n.Doc.Status = api.TaskDefinitionStatusDeleteInProgress
				n.Doc.DeleteRequestedAt = &now
				state.TaskDefinitions.Put(tx, &n)
				td = &n
			}
			out.TaskDefinitions = append(out.TaskDefinitions, *definitionView(td))
		}
		return nil
	})
}

// ListTaskDefinitions lists revisions by family and number.
func (e *ECS) ListTaskDefinitions(ctx context.Context, in *api.ListTaskDefinitionsInput) (*api.ListTaskDefinitionsOutput, error) {
	account := e.caller(ctx).Account
	status := string(in.Status)
	if status == "" {
		status = statusActive
	}
	r := e.db.Snapshot()
	found := state.TaskDefinitions.By(r, "account", account)
	if f := val(in.FamilyPrefix); f != "" {
		found = state.TaskDefinitions.By(r, "family", account+"/"+f)
	}
	// The keys sort as the answer does. DESC is newest first within a family,
	// and families backwards too.
	const maxRevision = 9_999_999_999
	arns := map[string]string{}
	var keys []string
	for td := range found {
		if td.Status != status {
			continue
		}
		key := fmt.Sprintf("%s\x00%010d", td.Family, td.Revision)
		if in.Sort == api.SortOrderDesc {
			key = fmt.Sprintf("%s\x00%010d", invert(td.Family), maxRevision-td.Revision)
		}
		arns[key] = td.ARN
		keys = append(keys, key)
	}
	q := query{"ListTaskDefinitions", account, val(in.FamilyPrefix), status, string(in.Sort)}
	keys, next, err := page(keys, q, in.NextToken, in.MaxResults, 100, 100, e.now())
	if err != nil {
		return nil, err
	}
	out := &api.ListTaskDefinitionsOutput{TaskDefinitionArns: []string{}, NextToken: next}
	for _, k := range keys {
		out.TaskDefinitionArns = append(out.TaskDefinitionArns, arns[k])
	}
	return out, nil
}

// invert makes a string that sorts the other way round. Names are ASCII.
func invert(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = 127 - b[i]
	}
	return string(b) + "\x7f"
}

// ListTaskDefinitionFamilies lists the families that have revisions of a status.
func (e *ECS) ListTaskDefinitionFamilies(ctx context.Context, in *api.ListTaskDefinitionFamiliesInput) (*api.ListTaskDefinitionFamiliesOutput, error) {
	account := e.caller(ctx).Account
	prefix := val(in.FamilyPrefix)
	active := map[string]bool{}
	for td := range state.TaskDefinitions.By(e.db.Snapshot(), "account", account) {
		if strings.HasPrefix(td.Family, prefix) && td.Status != statusDeleting {
			active[td.Family] = active[td.Family] || td.Status == statusActive
		}
	}
	var families []string
	for f, isActive := range active {
		if in.Status == "" || in.Status == api.TaskDefinitionFamilyStatusAll || isActive == (in.Status == api.TaskDefinitionFamilyStatusActive) {
			families = append(families, f)
		}
	}
	q := query{"ListTaskDefinitionFamilies", account, prefix, string(in.Status)}
	families, next, err := page(families, q, in.NextToken, in.MaxResults, 100, 100, e.now())
	return &api.ListTaskDefinitionFamiliesOutput{Families: list(families), NextToken: next}, err
}
