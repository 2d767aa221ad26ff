package ecs

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const daemonDefinition = "daemon-task-definition"

func (e *ECS) daemonDefinitionARN(account, family string, revision int) string {
	return e.arn(account, fmt.Sprintf("%s/%s:%d", daemonDefinition, family, revision))
}

// daemonDefinition finds a revision, or the family's newest active one.
func (e *ECS) daemonDefinition(r store.Reader, account, ref string) (*state.DaemonDefinition, error) {
	d, err := e.parseFamily(account, daemonDefinition, ref)
	if err != nil {
		return nil, err
	}
	if d.revision != "" {
		n, ok := d.number()
		if !ok {
			return nil, invalid("Invalid revision number. Number: %s", d.revision)
		}
		if td, ok := state.DaemonDefinitions.Get(r, e.daemonDefinitionARN(account, d.family, n)); ok {
			return td, nil
		}
		return nil, client("Unable to describe daemon task definition.")
	}
	f, _ := state.DaemonFamilies.Get(r, account+"/"+d.family)
	for n := 0; f != nil && n < f.Last; n++ {
		td, ok := state.DaemonDefinitions.Get(r, e.daemonDefinitionARN(account, d.family, f.Last-n))
		if ok && td.Doc.Status == api.DaemonTaskDefinitionStatusActive {
			return td, nil
		}
	}
	return nil, client("Unable to describe daemon task definition.")
}

// RegisterDaemonTaskDefinition makes the next revision of a family of daemon
// task definitions. Its document is a part of a task definition's, so it is
// checked and completed as one.
func (e *ECS) RegisterDaemonTaskDefinition(ctx context.Context, in *api.RegisterDaemonTaskDefinitionInput) (*api.RegisterDaemonTaskDefinitionOutput, error) {
	caller := e.caller(ctx)
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode daemon task definition: %w", err)
	}
	if len(b) > maxDefinition {
		return nil, client("Actual length: '%d'. Max allowed length is '%d' bytes.", len(b), maxDefinition)
	}
	var own api.RegisterTaskDefinitionInput
	if err := json.Unmarshal(b, &own); err != nil {
		return nil, fmt.Errorf("copy daemon task definition: %w", err)
	}
	whole := document(&own)
	if err := validateDefinition(whole); err != nil {
		return nil, err
	}
	for _, role := range []**string{&whole.TaskRoleArn, &whole.ExecutionRoleArn} {
		if err := expandRole(caller.Account, role); err != nil {
			return nil, err
		}
	}
	fillDefaults(whole)
	var doc api.DaemonTaskDefinition
	if b, err = json.Marshal(whole); err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		return nil, fmt.Errorf("take the daemon's part of the task definition: %w", err)
	}
	doc.Status, doc.RegisteredAt, doc.RegisteredBy = api.DaemonTaskDefinitionStatusActive, new(e.now()), opt(caller.ARN)
	family := val(doc.Family)
	out := &api.RegisterDaemonTaskDefinitionOutput{}
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
		if f, ok := state.DaemonFamilies.Get(tx, caller.Account+"/"+family); ok {
			next = *f
		}
		if limit := state.Limit(tx, caller.Account, "ecs/revisions-per-family"); next.Last >= limit {
			return &api.LimitExceededException{Message: fmt.Sprintf("The maximum number of revisions per family has been reached: %d.", limit)}
		}
		next.Last++
		state.DaemonFamilies.Put(tx, &next)
		d := doc // the callback may run again with another revision
		d.Revision = num(next.Last)
		d.DaemonTaskDefinitionArn = new(e.daemonDefinitionARN(caller.Account, family, next.Last))
		state.DaemonDefinitions.Put(tx, &state.DaemonDefinition{
			ARN: *d.DaemonTaskDefinitionArn, Account: caller.Account, Family: family, Revision: next.Last, Doc: d, Tags: tags,
		})
		out.DaemonTaskDefinitionArn = d.DaemonTaskDefinitionArn
		return nil
	})
}

// DescribeDaemonTaskDefinition shows a revision, or the newest active one of a
// family. A deleted revision says so for a while.
func (e *ECS) DescribeDaemonTaskDefinition(ctx context.Context, in *api.DescribeDaemonTaskDefinitionInput) (*api.DescribeDaemonTaskDefinitionOutput, error) {
	td, err := e.daemonDefinition(e.db.Snapshot(), e.caller(ctx).Account, val(in.DaemonTaskDefinition))
	if err != nil {
		return nil, err
	}
	return &api.DescribeDaemonTaskDefinitionOutput{DaemonTaskDefinition: new(td.Doc)}, nil
}

// DeleteDaemonTaskDefinition deletes a revision, at once or with the last
// daemon that has it.
func (e *ECS) DeleteDaemonTaskDefinition(ctx context.Context, in *api.DeleteDaemonTaskDefinitionInput) (*api.DeleteDaemonTaskDefinitionOutput, error) {
	account := e.caller(ctx).Account
	ref, err := e.parseFamily(account, daemonDefinition, val(in.DaemonTaskDefinition))
	switch {
	case err != nil:
		return nil, err
	case ref.revision == "":
		return nil, client("Revision is missing.")
	}
	now := e.now()
	out := &api.DeleteDaemonTaskDefinitionOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		td, err := e.daemonDefinition(tx, account, *in.DaemonTaskDefinition)
		if err != nil {
			return err
		}
		out.DaemonTaskDefinitionArn = &td.ARN
		if td.Doc.Status == api.DaemonTaskDefinitionStatusActive {
			n := *td
			n.Doc.Status, n.Doc.DeleteRequestedAt = api.DaemonTaskDefinitionStatusDeleteInProgress, &now
			state.DaemonDefinitions.Put(tx, &n)
		}
		e.sweepDefinitions(tx, account, now)
		return nil
	})
}

// deletedFor is how long a deleted revision can still be described, for those
// who wait for its end.
const deletedFor = time.Hour

// sweepDefinitions marks the revisions that are to be deleted and that no
// daemon has as deleted, and forgets those that have been so for long.
func (e *ECS) sweepDefinitions(tx *store.Tx, account string, now time.Time) {
	state.Daemons.Guard(tx, e.arn(account, "daemon/"))
	used := map[string]bool{}
	for d := range state.Daemons.Prefix(tx, e.arn(account, "daemon/")) {
		if rev, ok := state.DaemonRevisions.Get(tx, d.Revision); ok {
			used[rev.Definition] = true
		}
	}
	var deleted []*state.DaemonDefinition
	var gone []string
	for td := range state.DaemonDefinitions.By(tx, "account", account) {
		switch {
		case td.Doc.Status == api.DaemonTaskDefinitionStatusDeleteInProgress && !used[td.ARN]:
			n := *td
			n.Doc.Status, n.DeletedAt = api.DaemonTaskDefinitionStatusDeleted, now
			deleted = append(deleted, &n)
		case td.Doc.Status == api.DaemonTaskDefinitionStatusDeleted && now.Sub(td.DeletedAt) > deletedFor:
			gone = append(gone, td.ARN)
		}
	}
	for _, td := range deleted {
		state.DaemonDefinitions.Put(tx, td)
	}
	for _, arn := range gone {
		state.DaemonDefinitions.Delete(tx, arn)
	}
}

// ListDaemonTaskDefinitions lists revisions by family and number.
func (e *ECS) ListDaemonTaskDefinitions(ctx context.Context, in *api.ListDaemonTaskDefinitionsInput) (*api.ListDaemonTaskDefinitionsOutput, error) {
	account := e.caller(ctx).Account
	if in.Family != nil && in.FamilyPrefix != nil {
		return nil, invalid("Specify either a family or a family prefix.")
	}
	status := in.Status
	if status == "" {
		status = api.DaemonTaskDefinitionStatusFilterActive
	}
	const maxRevision = 9_999_999_999
	r := e.db.Snapshot()
	found, last := map[string]*state.DaemonDefinition{}, map[string]*state.DaemonDefinition{}
	var all []*state.DaemonDefinition
	for td := range state.DaemonDefinitions.By(r, "account", account) {
		if in.Family != nil && td.Family != *in.Family || !strings.HasPrefix(td.Family, val(in.FamilyPrefix)) ||
			td.Doc.Status == api.DaemonTaskDefinitionStatusDeleted ||
			status != api.DaemonTaskDefinitionStatusFilterAll && string(td.Doc.Status) != string(status) {
			continue
		}
		all = append(all, td)
		if l := last[td.Family]; l == nil || l.Revision < td.Revision {
			last[td.Family] = td
		}
	}
	var keys []string
	for _, td := range all {
		if in.Revision == api.DaemonTaskDefinitionRevisionFilterLastRegistered && last[td.Family] != td {
			continue
		}
		key := fmt.Sprintf("%s\x00%010d", td.Family, td.Revision)
		if in.Sort == api.SortOrderDesc {
			key = fmt.Sprintf("%s\x00%010d", invert(td.Family), maxRevision-td.Revision)
		}
		found[key] = td
		keys = append(keys, key)
	}
	q := query{"ListDaemonTaskDefinitions", account, val(in.Family), val(in.FamilyPrefix), string(in.Revision), string(status), string(in.Sort)}
	keys, next, err := page(keys, q, in.NextToken, in.MaxResults, 100, 100, e.now())
	if err != nil {
		return nil, err
	}
	out := &api.ListDaemonTaskDefinitionsOutput{DaemonTaskDefinitions: []api.DaemonTaskDefinitionSummary{}, NextToken: next}
	for _, k := range keys {
		d := &found[k].Doc
		out.DaemonTaskDefinitions = append(out.DaemonTaskDefinitions, api.DaemonTaskDefinitionSummary{
			Arn: d.DaemonTaskDefinitionArn, RegisteredAt: d.RegisteredAt, RegisteredBy: d.RegisteredBy,
			DeleteRequestedAt: d.DeleteRequestedAt, Status: d.Status,
		})
	}
	return out, nil
}
