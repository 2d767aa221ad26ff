package iam

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/managed"
	"github.com/berth-run/berth/auth/policy"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A simulated is a policy of a simulation, with the name that results give it.
type simulated struct {
	id   string
	kind api.PolicySourceType
	doc  *policy.Document
}

// inputPolicy is the kind of the policies that a caller sends along. The model
// does not list it, but it is what AWS answers.
const inputPolicy api.PolicySourceType = "IAM Policy"

// A simulation is what the two operations have in common.
type simulation struct {
	identity []simulated
	boundary []simulated
	resource *simulated
	who      policy.Principal
	keys     map[string][]string // lower case

	actions   []string
	resources []string
	owner     string // account of resources whose ARN names none
}

// simulateChecks are what the operations that look into an entity must be allowed.
func simulateChecks(op string) authorize {
	return func(_ context.Context, _ store.Reader, _ *auth.Caller, in any) []auth.Check {
		return []auth.Check{{Action: "iam:" + op, Resource: text(in, "PolicySourceArn")}}
	}
}

// inputs parses policies that a caller sends along.
func inputs(list string, documents []string) ([]simulated, error) {
	var out []simulated
	for i, text := range documents {
		doc, err := policy.Parse(text, policy.Identity)
		if err != nil {
			return nil, invalidInput("Invalid policy in %s.%d: %s", list, i+1, err)
		}
		out = append(out, simulated{fmt.Sprintf("%s.%d", list, i+1), inputPolicy, doc})
	}
	return out, nil
}

// A sourceEntity is the user, group or role whose policies are asked for.
type sourceEntity struct {
	policies []simulated
	boundary string
	who      policy.Principal
	keys     map[string][]string
}

// sourceOf finds the source of a simulation with its policies. Who is a user has
// those of its groups, too.
func sourceOf(r store.Reader, account, arn string) (*sourceEntity, error) {
	part := strings.SplitN(arn, ":", 6)
	kind, name := "", ""
	if len(part) == 6 && part[2] == "iam" && part[4] == account {
		kind, _, _ = strings.Cut(part[5], "/")
		name = part[5][strings.LastIndexByte(part[5], '/')+1:]
	}
	e := &sourceEntity{keys: map[string][]string{}}
	var tags []state.Tag
	switch kind {
	case "user":
		u, err := user(r, account, name)
		if err != nil {
			return nil, err
		}
		if err := e.collect(r, api.PolicySourceTypeUser, u.Name, u.Inline, u.Attached); err != nil {
			return nil, err
		}
		for _, n := range u.Groups {
			g, err := group(r, account, n)
			if err != nil {
				return nil, err
			}
			if err := e.collect(r, api.PolicySourceTypeGroup, g.Name, g.Inline, g.Attached); err != nil {
				return nil, err
			}
		}
		e.boundary, tags = u.Boundary, u.Tags
		e.who = policy.Principal{Account: account, ARN: u.ARN(), ID: u.ID}
		e.keys["aws:username"], e.keys["aws:userid"], e.keys["aws:principaltype"] = []string{u.Name}, []string{u.ID}, []string{"User"}
		arn = u.ARN()
	case "group":
		g, err := group(r, account, name)
		if err != nil {
			return nil, err
		}
		return e, e.collect(r, api.PolicySourceTypeGroup, g.Name, g.Inline, g.Attached)
	case "role":
		x, err := role(r, account, name)
		if err != nil {
			return nil, err
		}
		if err := e.collect(r, api.PolicySourceTypeRole, x.Name, x.Inline, x.Attached); err != nil {
			return nil, err
		}
		e.boundary, tags = x.Boundary, x.Tags
		e.who = policy.Principal{Account: account, Parent: x.ARN(), ID: x.ID}
		e.keys["aws:principaltype"] = []string{"AssumedRole"}
		arn = x.ARN()
	default:
		return nil, invalidInput("Invalid Entity Arn: %s does not clearly define entity type and name.", arn)
	}
	e.keys["aws:principalarn"], e.keys["aws:principalaccount"] = []string{arn}, []string{account}
	for _, t := range tags {
		e.keys["aws:principaltag/"+strings.ToLower(t.Key)] = []string{t.Value}
	}
	return e, nil
}

func (e *sourceEntity) collect(r store.Reader, kind api.PolicySourceType, owner string, inline []state.InlinePolicy, attached []string) error {
	for _, in := range inline {
		doc, err := policy.Parse(in.Document, policy.Identity)
		if err != nil {
			return fmt.Errorf("policy %s of %s: %w", in.Name, owner, err)
		}
		e.policies = append(e.policies, simulated{string(kind) + "_" + owner + "_" + in.Name, kind, doc})
	}
	for _, arn := range attached {
		p, err := attachedPolicy(r, arn)
		if err != nil {
			return err
		}
		e.policies = append(e.policies, *p)
	}
	return nil
}

// attachedPolicy is a managed policy as a simulation names it.
func attachedPolicy(r store.Reader, arn string) (*simulated, error) {
	text, ok := auth.ManagedDocument(r, arn)
	if !ok {
		return nil, noSuch("Policy %s was not found.", arn)
	}
	doc, err := policy.Parse(text, policy.Identity)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", arn, err)
	}
	p := &simulated{arn[strings.LastIndexByte(arn, '/')+1:], api.PolicySourceTypeUserManaged, doc}
	if _, ok := managed.Find(arn); ok {
		p.kind = api.PolicySourceTypeAwsManaged
	}
	return p, nil
}

// SimulateCustomPolicy says what the policies that are sent along would decide.
func (s *Service) SimulateCustomPolicy(ctx context.Context, in *api.SimulateCustomPolicyInput) (*api.SimulateCustomPolicyOutput, error) {
	sim := &simulation{keys: map[string][]string{}}
	results, err := sim.run(s.db.Snapshot(), account(ctx), in)
	if err != nil {
		return nil, err
	}
	page, more, marker, err := cutResults(ctx, s, in, results)
	return &api.SimulateCustomPolicyOutput{EvaluationResults: page, IsTruncated: more, Marker: marker}, err
}

// SimulatePrincipalPolicy says what the policies of a user, group or role would
// decide, with those that are sent along.
func (s *Service) SimulatePrincipalPolicy(ctx context.Context, in *api.SimulatePrincipalPolicyInput) (*api.SimulatePrincipalPolicyOutput, error) {
	snap, acct := s.db.Snapshot(), account(ctx)
	e, err := sourceOf(snap, acct, *in.PolicySourceArn)
	if err != nil {
		return nil, err
	}
	sim := &simulation{identity: e.policies, who: e.who, keys: e.keys}
	if e.boundary != "" && len(in.PermissionsBoundaryPolicyInputList) == 0 {
		b, err := attachedPolicy(snap, e.boundary)
		if err != nil {
			return nil, err
		}
		sim.boundary = []simulated{*b}
	}
	results, err := sim.run(snap, acct, &api.SimulateCustomPolicyInput{PolicyInputList: in.PolicyInputList,
		PermissionsBoundaryPolicyInputList: in.PermissionsBoundaryPolicyInputList, ActionNames: in.ActionNames, ResourceArns: in.ResourceArns,
		ResourcePolicy: in.ResourcePolicy, ResourceOwner: in.ResourceOwner, CallerArn: in.CallerArn, ContextEntries: in.ContextEntries,
		ResourceHandlingOption: in.ResourceHandlingOption})
	if err != nil {
		return nil, err
	}
	page, more, marker, err := cutResults(ctx, s, in, results)
	return &api.SimulatePrincipalPolicyOutput{EvaluationResults: page, IsTruncated: more, Marker: marker}, err
}

// cutResults takes a page of the results, in their order.
func cutResults(ctx context.Context, s *Service, in any, results []api.EvaluationResult) ([]api.EvaluationResult, *bool, *string, error) {
	type numbered struct {
		n int
		api.EvaluationResult
	}
	items := make([]numbered, len(results))
	for i, r := range results {
		items[i] = numbered{i, r}
	}
	items, more, marker, err := cut(ctx, s, in, items, func(n numbered) string { return fmt.Sprintf("%06d", n.n) })
	out := []api.EvaluationResult{}
	for _, n := range items {
		out = append(out, n.EvaluationResult)
	}
	return out, more, marker, err
}

// maxSimulations bounds the questions of one call.
const maxSimulations = 10_000

// run answers all questions of the input, action by action.
func (sim *simulation) run(r store.Reader, account string, in *api.SimulateCustomPolicyInput) ([]api.EvaluationResult, error) {
	if err := sim.ask(r, account, in); err != nil {
		return nil, err
	}
	if len(sim.actions)*len(sim.resources) > maxSimulations {
		return nil, invalidInput("The simulation of %d actions on %d resources is too large.", len(sim.actions), len(sim.resources))
	}
	var out []api.EvaluationResult
	for _, action := range sim.actions {
		for _, resource := range sim.resources {
			out = append(out, sim.result(action, resource))
		}
	}
	return out, nil
}

// ask reads the question.
func (sim *simulation) ask(r store.Reader, account string, in *api.SimulateCustomPolicyInput) error {
	more, err := inputs("PolicyInputList", in.PolicyInputList)
	if err != nil {
		return err
	}
	sim.identity = append(sim.identity, more...)
	if more, err = inputs("PermissionsBoundaryPolicyInputList", in.PermissionsBoundaryPolicyInputList); err != nil {
		return err
	}
	if len(more) > 1 {
		return invalidInput("Only one permissions boundary policy can be simulated.")
	}
	sim.boundary = append(sim.boundary, more...)
	if in.ResourceHandlingOption != nil {
		return invalidInput("ResourceHandlingOption is not supported by Berth.")
	}
	for _, a := range in.ActionNames {
		if vendor, name, ok := strings.Cut(a, ":"); !ok || vendor == "" || name == "" || strings.ContainsAny(a, "*? ") {
			return invalidInput("Invalid Action Name: %s", a)
		}
	}
	sim.actions, sim.resources = in.ActionNames, in.ResourceArns
	if len(sim.resources) == 0 {
		sim.resources = []string{"*"}
	}
	for _, res := range sim.resources {
		if res != "*" && len(strings.SplitN(res, ":", 6)) != 6 {
			return invalidInput("Invalid Resource Arn: %s", res)
		}
	}
	if sim.owner = wire.Value(in.ResourceOwner); strings.HasPrefix(sim.owner, "arn:") {
		sim.owner = strings.SplitN(sim.owner+":::::", ":", 6)[4]
	}
	if in.CallerArn != nil {
		caller, err := sourceOf(r, account, *in.CallerArn)
		if err != nil {
			return err
		}
		if caller.who.ARN == "" {
			return invalidInput("CallerArn must be the ARN of a user: %s", *in.CallerArn)
		}
		sim.who = caller.who
		for k, v := range caller.keys {
			sim.keys[k] = v
		}
	}
	if sim.who.Account == "" {
		sim.who.Account = account
	}
	if in.ResourcePolicy != nil {
		if sim.who.ARN == "" && sim.who.Parent == "" {
			return invalidInput("CallerArn is required to simulate a resource policy.")
		}
		doc, err := policy.Parse(*in.ResourcePolicy, policy.Resource)
		if err != nil {
			return invalidInput("Invalid policy in ResourcePolicy: %s", err)
		}
		sim.resource = &simulated{"ResourcePolicy", api.PolicySourceTypeResource, doc}
	}
	for _, e := range in.ContextEntries {
		if err := checkEntry(&e); err != nil {
			return err
		}
		sim.keys[strings.ToLower(wire.Value(e.ContextKeyName))] = e.ContextKeyValues
	}
	return nil
}

// checkEntry checks that the values of a context key are of its type.
func checkEntry(e *api.ContextEntry) error {
	kind, list := strings.CutSuffix(string(e.ContextKeyType), "List")
	if !list && len(e.ContextKeyValues) > 1 {
		return invalidInput("The context key %s is of type %s and must have one value.", wire.Value(e.ContextKeyName), kind)
	}
	for _, v := range e.ContextKeyValues {
		var err error
		switch kind {
		case "numeric":
			_, err = strconv.ParseFloat(v, 64)
		case "boolean":
			if !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false") {
				err = strconv.ErrSyntax
			}
		case "ip":
			if _, err = netip.ParseAddr(v); err != nil {
				_, err = netip.ParsePrefix(v)
			}
		case "binary":
			_, err = base64.StdEncoding.DecodeString(v)
		case "date":
			if _, err = time.Parse(time.RFC3339, v); err != nil {
				if _, err = strconv.ParseInt(v, 10, 64); err != nil {
					_, err = time.Parse(time.DateOnly, v)
				}
			}
		}
		if err != nil {
			return invalidInput("Invalid value %s of the context key %s of type %s", v, wire.Value(e.ContextKeyName), e.ContextKeyType)
		}
	}
	return nil
}

// result answers one question.
func (sim *simulation) result(action, resource string) api.EvaluationResult {
	owner := ""
	if part := strings.SplitN(resource, ":", 6); len(part) == 6 {
		owner = part[4]
	}
	if owner == "" {
		owner = sim.owner
	}
	req := policy.Request{Principal: sim.who, Action: action, Resource: resource, Keys: sim.keys, ResourceAccount: owner}
	for _, p := range sim.identity {
		req.Identity = append(req.Identity, p.doc)
	}
	if len(sim.boundary) > 0 {
		req.Boundary = sim.boundary[0].doc
	}
	if sim.resource != nil {
		req.Policy = sim.resource.doc
	} else {
		req.ResourceAccount = "" // no policy of the resource is part of the question
	}
	x := policy.Explain(&req)
	out := api.EvaluationResult{EvalActionName: &action, EvalResourceName: &resource, EvalDecision: decision(x.Decision),
		MatchedStatements: sim.matched(&x), MissingContextValues: x.Missing}
	if out.MissingContextValues == nil {
		out.MissingContextValues = []string{}
	}
	if req.Boundary != nil {
		out.PermissionsBoundaryDecisionDetail = &api.PermissionsBoundaryDecisionDetail{AllowedByPermissionsBoundary: new(x.By[policy.BoundaryPolicy] == policy.Allows)}
	}
	if resource == "*" {
		return out
	}
	out.EvalDecisionDetails = map[string]api.PolicyEvaluationDecisionType{}
	if sim.resource != nil && owner != "" && owner != sim.who.Account {
		out.EvalDecisionDetails["IAM Policy"] = outcome(x.By[policy.IdentityPolicy])
		out.EvalDecisionDetails["Resource Policy"] = outcome(x.By[policy.ResourcePolicy])
	}
	out.ResourceSpecificResults = []api.ResourceSpecificResult{{EvalResourceName: &resource, EvalResourceDecision: out.EvalDecision,
		MatchedStatements: out.MatchedStatements, MissingContextValues: out.MissingContextValues, EvalDecisionDetails: out.EvalDecisionDetails,
		PermissionsBoundaryDecisionDetail: out.PermissionsBoundaryDecisionDetail}}
	out.MissingContextValues = []string{}
	return out
}

// matched are the statements that made the decision.
func (sim *simulation) matched(x *policy.Explanation) []api.Statement {
	out := []api.Statement{}
	for _, m := range x.Matched {
		if m.Deny != x.Explicit {
			continue
		}
		from := sim.resource
		switch m.Source {
		case policy.IdentityPolicy:
			from = &sim.identity[m.Document]
		case policy.BoundaryPolicy:
			from = &sim.boundary[m.Document]
		}
		st := from.doc.Statement(m.Index)
		out = append(out, api.Statement{SourcePolicyId: &from.id, SourcePolicyType: from.kind, StartPosition: position32(st.Start), EndPosition: position32(st.End)})
	}
	return out
}

func position32(p policy.Position) *api.Position {
	return &api.Position{Line: new(int32(p.Line)), Column: new(int32(p.Column))}
}

func decision(d policy.Decision) api.PolicyEvaluationDecisionType {
	switch {
	case d.Allowed:
		return api.PolicyEvaluationDecisionTypeAllowed
	case d.Explicit:
		return api.PolicyEvaluationDecisionTypeExplicitDeny
	}
	return api.PolicyEvaluationDecisionTypeImplicitDeny
}

func outcome(o policy.Outcome) api.PolicyEvaluationDecisionType {
	return decision(policy.Decision{Allowed: o == policy.Allows, Explicit: o == policy.Denies})
}

// GetContextKeysForCustomPolicy lists the condition keys that policies ask for.
func (s *Service) GetContextKeysForCustomPolicy(_ context.Context, in *api.GetContextKeysForCustomPolicyInput) (*api.GetContextKeysForCustomPolicyOutput, error) {
	policies, err := inputs("PolicyInputList", in.PolicyInputList)
	return &api.GetContextKeysForCustomPolicyOutput{ContextKeyNames: contextKeys(policies)}, err
}

// GetContextKeysForPrincipalPolicy lists the condition keys that the policies
// of a user, group or role ask for, and those that are sent along.
func (s *Service) GetContextKeysForPrincipalPolicy(ctx context.Context, in *api.GetContextKeysForPrincipalPolicyInput) (*api.GetContextKeysForPrincipalPolicyOutput, error) {
	e, err := sourceOf(s.db.Snapshot(), account(ctx), *in.PolicySourceArn)
	if err != nil {
		return nil, err
	}
	policies, err := inputs("PolicyInputList", in.PolicyInputList)
	return &api.GetContextKeysForPrincipalPolicyOutput{ContextKeyNames: contextKeys(slices.Concat(e.policies, policies))}, err
}

func contextKeys(policies []simulated) []string {
	out := []string{}
	for _, p := range policies {
		for _, k := range p.doc.Keys() {
			if !slices.ContainsFunc(out, func(o string) bool { return strings.EqualFold(o, k) }) {
				out = append(out, k)
			}
		}
	}
	return out
}
