package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// policyOf is the resource and name of a policy: an account's has a name, a log
// group's has none.
func (l *Logs) policyOf(r store.Reader, ctx context.Context, name, resource *string) (arn, n string, err error) {
	if resource == nil {
		if wire.Value(name) == "" {
			return "", "", invalid("policyName must be specified for a policy of the account.")
		}
		return "", *name, nil
	}
	group, err := l.name(ctx, *resource)
	if err != nil {
		return "", "", err
	}
	g, err := l.group(r, ctx, group)
	if err != nil {
		return "", "", err
	}
	return g.ARN, wire.Value(name), nil
}

// PutResourcePolicy makes or changes a policy of the account or of a log group.
func (l *Logs) PutResourcePolicy(ctx context.Context, in *api.PutResourcePolicyInput) (*api.PutResourcePolicyOutput, error) {
	if !validJSON(wire.Value(in.PolicyDocument)) {
		return nil, invalid("The policy document is not valid JSON.")
	}
	revision, now := l.NewID(), l.Now()
	var p *state.LogPolicy
	err := l.DB.Update(ctx, func(tx *store.Tx) error {
		arn, name, err := l.policyOf(tx, ctx, in.PolicyName, in.ResourceArn)
		if err != nil {
			return err
		}
		p = &state.LogPolicy{Account: account(ctx), Name: name, Resource: arn, Document: wire.Value(in.PolicyDocument), Revision: revision, UpdatedAt: now}
		old, ok := state.LogPolicies.Get(tx, state.LogPolicyKey(p.Account, arn, name))
		if e := wire.Value(in.ExpectedRevisionId); e != "" && (!ok || old.Revision != e) {
			return &api.OperationAbortedException{Message: "The revision of the resource policy is not the expected one."}
		}
		if !ok && arn == "" {
			have := 0
			for range state.LogPolicies.Prefix(tx, state.LogPolicyKey(p.Account, "", "")) {
				have++
			}
			if have >= state.Limit(tx, p.Account, "logs/resource-policies") {
				return limited("Resource limit exceeded.")
			}
		}
		state.LogPolicies.Put(tx, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.PutResourcePolicyOutput{ResourcePolicy: showPolicy(p), RevisionId: new(p.Revision)}, nil
}

func showPolicy(p *state.LogPolicy) *api.ResourcePolicy {
	v := &api.ResourcePolicy{PolicyDocument: new(p.Document), LastUpdatedTime: new(p.UpdatedAt.UnixMilli()), PolicyScope: api.PolicyScopeAccount, RevisionId: new(p.Revision)}
	if p.Name != "" {
		v.PolicyName = new(p.Name)
	}
	if p.Resource != "" {
		v.PolicyScope, v.ResourceArn = api.PolicyScopeResource, new(p.Resource)
	}
	return v
}

// DescribeResourcePolicies lists the policies of the account, or those of a log group.
func (l *Logs) DescribeResourcePolicies(ctx context.Context, in *api.DescribeResourcePoliciesInput) (*api.DescribeResourcePoliciesOutput, error) {
	snap, who := l.DB.Snapshot(), account(ctx)
	prefix := state.LogPolicyKey(who, "", "")
	switch {
	case in.ResourceArn != nil:
		n, err := l.name(ctx, *in.ResourceArn)
		if err != nil {
			return nil, err
		}
		g, err := l.group(snap, ctx, n)
		if err != nil {
			return nil, err
		}
		prefix = state.LogPolicyKey(who, g.ARN, "")
	case in.PolicyScope == api.PolicyScopeResource:
		prefix = who + "/arn:"
	}
	bound := page.Query{"DescribeResourcePolicies", prefix}
	after, err := l.after(bound, in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := limitOf(in.Limit, 50)
	out := &api.DescribeResourcePoliciesOutput{ResourcePolicies: []api.ResourcePolicy{}}
	last := ""
	for p := range state.LogPolicies.Prefix(snap, prefix) {
		key := state.LogPolicyKey(p.Account, p.Resource, p.Name)
		if strings.Compare(key, after) <= 0 {
			continue
		}
		if len(out.ResourcePolicies) == limit {
			out.NextToken = l.next(bound, last)
			break
		}
		last = key
		out.ResourcePolicies = append(out.ResourcePolicies, *showPolicy(p))
	}
	return out, nil
}

// DeleteResourcePolicy removes a policy.
func (l *Logs) DeleteResourcePolicy(ctx context.Context, in *api.DeleteResourcePolicyInput) (*api.DeleteResourcePolicyOutput, error) {
	return &api.DeleteResourcePolicyOutput{}, l.DB.Update(ctx, func(tx *store.Tx) error {
		arn, name, err := l.policyOf(tx, ctx, in.PolicyName, in.ResourceArn)
		if err != nil {
			return err
		}
		key := state.LogPolicyKey(account(ctx), arn, name)
		p, ok := state.LogPolicies.Get(tx, key)
		if !ok {
			return &api.ResourceNotFoundException{Message: "Policy with name [" + name + "] does not exist"}
		}
		if e := wire.Value(in.ExpectedRevisionId); e != "" && p.Revision != e {
			return &api.OperationAbortedException{Message: "The revision of the resource policy is not the expected one."}
		}
		state.LogPolicies.Delete(tx, key)
		return nil
	})
}

// validJSON reports whether text is a JSON object.
func validJSON(text string) bool {
	b := bytes.TrimSpace([]byte(text))
	return len(b) > 0 && b[0] == '{' && json.Valid(b)
}
