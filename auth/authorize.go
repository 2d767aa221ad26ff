package auth

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/auth/managed"
	"github.com/berth-run/berth/auth/policy"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A Check is one action on one resource that a caller must be allowed.
type Check struct {
	Action   string // ecs:RunTask
	Resource string // an ARN, or *
	// Keys are the condition keys of this action, such as ecs:cluster or
	// aws:RequestTag/team. The global keys are added.
	Keys map[string][]string
	// Tags, if there is such, are those of the resource: the keys aws:ResourceTag/
	// and <service>:ResourceTag/. It is called if a policy asks.
	Tags func() []state.Tag
	// Policy is the document attached to the resource, "" for none.
	Policy string
	// Account owns the resource, where its ARN does not say so, as those of
	// buckets do not. "" is the account of the ARN, or else the caller's.
	Account string
}

// owner is the account that the resource belongs to, "" if it may be any.
func (c *Check) owner() string {
	if c.Account != "" {
		return c.Account
	}
	if owner := accountOfARN(c.Resource); owner != awsAccount {
		return owner
	}
	return ""
}

// An Authorizer decides whether callers may do what they ask.
type Authorizer struct {
	Sessions *Sessions        // seals EC2's encoded messages; required
	Clock    func() time.Time // nil: time.Now

	docs policy.Cache
}

// Denied is the answer to a caller who may not.
type Denied struct {
	*wire.APIError
	Decision policy.Decision
	// Text is AWS's message without what a protocol adds to it.
	Text string
}

// Unwrap makes the AWS error known to those who encode it.
func (d *Denied) Unwrap() error { return d.APIError }

// Check returns nil if c may do all of the checks, a *Denied for the first that
// is not allowed, and another error if a policy cannot be read.
func (a *Authorizer) Check(ctx context.Context, r store.Reader, c *Caller, checks ...Check) error {
	if c == nil {
		return &Denied{APIError: wire.NewError(http.StatusForbidden, "AccessDenied", "Access denied"), Text: "Access denied"}
	}
	p, err := a.principal(r, c)
	if err != nil {
		return err
	}
	for i := range checks {
		d, err := a.decide(ctx, p, c, &checks[i])
		if err != nil {
			return err
		}
		if !d.Allowed {
			return a.denied(ctx, p, c, &checks[i], d)
		}
	}
	return nil
}

// Decide is Check for one action, for those who have a use for the decision.
func (a *Authorizer) Decide(ctx context.Context, r store.Reader, c *Caller, check Check) (policy.Decision, error) {
	p, err := a.principal(r, c)
	if err != nil {
		return policy.Decision{}, err
	}
	return a.decide(ctx, p, c, &check)
}

// PassRole checks that c may hand the role to an AWS service, such as
// ecs-tasks.amazonaws.com.
func (a *Authorizer) PassRole(ctx context.Context, r store.Reader, c *Caller, roleARN, service string) error {
	if c != nil && accountOfARN(roleARN) != c.Account {
		e := denial(RequestFrom(ctx).Protocol, "Cross-account pass role is not allowed.")
		return &Denied{APIError: e, Text: e.Message}
	}
	return a.Check(ctx, r, c, Check{Action: "iam:PassRole", Resource: roleARN,
		Keys: map[string][]string{"iam:PassedToService": {service}}})
}

// awsAccount stands in the ARNs of what is AWS's own and everybody's, such as managed policies.
const awsAccount = "aws"

func accountOfARN(arn string) (account string) {
	for range 4 {
		var ok bool
		if _, arn, ok = strings.Cut(arn, ":"); !ok {
			return ""
		}
	}
	account, _, ok := strings.Cut(arn, ":")
	if !ok {
		return ""
	}
	return account
}

// MayAssume decides by a role's trust policy, and by c's own policies where
// that asks for them, whether c may do action (sts:AssumeRole) on the role.
func (a *Authorizer) MayAssume(ctx context.Context, r store.Reader, c *Caller, role *state.Role, action string, keys map[string][]string) error {
	p, err := a.principal(r, c)
	if err != nil {
		return err
	}
	check := Check{Action: action, Resource: role.ARN(), Keys: keys}
	trust, err := a.docs.Parse(role.Trust, policy.Trust)
	if err != nil {
		return fmt.Errorf("trust policy of %s: %w", check.Resource, err)
	}
	req := a.request(ctx, p, c, &check)
	req.Policy, req.Trust, req.ResourceAccount = trust, true, role.Account
	if d := policy.Evaluate(&req); !d.Allowed {
		// STS says nothing of which policy refused.
		e := denial(RequestFrom(ctx).Protocol, policy.Decision{}.Message(c.ARN, action, check.Resource))
		return &Denied{APIError: e, Decision: d, Text: e.Message}
	}
	return nil
}

// MayFederate decides by a role's trust policy alone whether a caller for whom
// a provider vouches may do action (sts:AssumeRoleWithWebIdentity) on the role.
func (a *Authorizer) MayFederate(ctx context.Context, role *state.Role, provider, action string, keys map[string][]string) (bool, error) {
	trust, err := a.docs.Parse(role.Trust, policy.Trust)
	if err != nil {
		return false, fmt.Errorf("trust policy of %s: %w", role.ARN(), err)
	}
	around := RequestFrom(ctx)
	return policy.Evaluate(&policy.Request{
		Principal: policy.Principal{Federated: provider},
		Action:    action, Resource: role.ARN(), ResourceAccount: role.Account,
		Keys: lowerKeys(keys), Policy: trust, Trust: true,
		Global: func(name string) ([]string, bool) {
			switch name {
			case "aws:federatedprovider":
				return []string{provider}, true
			case "aws:principaltype":
				return []string{"Anonymous"}, true
			case "aws:resourceaccount":
				return []string{role.Account}, true
			}
			return a.around(around, name)
		},
	}).Allowed, nil
}

// ServiceMayAssume reports whether the role's trust policy lets an AWS service
// such as ecs-tasks.amazonaws.com take the role. Keys may hold aws:SourceArn
// and aws:SourceAccount.
func (a *Authorizer) ServiceMayAssume(role *state.Role, service string, keys map[string][]string) bool {
	trust, err := a.docs.Parse(role.Trust, policy.Trust)
	if err != nil {
		return false // what cannot be read allows nothing
	}
	now := a.now()
	return policy.Evaluate(&policy.Request{
		Principal: policy.Principal{Service: service},
		Action:    "sts:AssumeRole", Resource: role.ARN(),
		Keys: lowerKeys(keys), Policy: trust, Trust: true,
		Global: func(name string) ([]string, bool) {
			switch name {
			case "aws:currenttime":
				return []string{now.UTC().Format(time.RFC3339)}, true
			case "aws:epochtime":
				return []string{strconv.FormatInt(now.Unix(), 10)}, true
			case "aws:principalisawsservice", "aws:securetransport":
				return []string{"true"}, true
			case "aws:viaawsservice":
				return []string{"false"}, true
			case "aws:principalservicename", "aws:principalservicenameslist":
				return []string{service}, true
			case "aws:resourceaccount":
				return []string{role.Account}, true
			}
			return nil, false
		},
	}).Allowed
}

func (a *Authorizer) now() time.Time {
	if a.Clock == nil {
		return time.Now()
	}
	return a.Clock()
}

// principal is a caller with all policies that speak of it.
type principal struct {
	identity []*policy.Document
	boundary *policy.Document
	session  []*policy.Document
	tags     []state.Tag
}

// nothing allows nothing. It stands for a boundary that is gone.
var nothing = &policy.Document{}

func (a *Authorizer) principal(r store.Reader, c *Caller) (*principal, error) {
	p := &principal{}
	var boundary string
	switch c.Kind {
	case User, FederatedUser:
		if c.isRoot() {
			break
		}
		u, ok := state.Users.Get(r, state.IAMKey(c.Account, c.Name))
		if !ok || c.Session != nil && u.ID != c.Session.PrincipalID {
			break
		}
		if err := a.collect(r, p, u.Inline, u.Attached); err != nil {
			return nil, err
		}
		for _, name := range u.Groups {
			if g, ok := state.Groups.Get(r, state.IAMKey(c.Account, name)); ok {
				if err := a.collect(r, p, g.Inline, g.Attached); err != nil {
					return nil, err
				}
			}
		}
		boundary = u.Boundary
		if c.Kind == User { // a federated user has the session's tags alone
			p.tags = u.Tags
		}
	case AssumedRole:
		role, ok := state.Roles.Get(r, state.IAMKey(c.Account, c.Name))
		if !ok || c.Session == nil || role.ID != c.Session.PrincipalID {
			break
		}
		if err := a.collect(r, p, role.Inline, role.Attached); err != nil {
			return nil, err
		}
		boundary, p.tags = role.Boundary, role.Tags
	}
	if boundary != "" {
		p.boundary = nothing
		if text, ok := ManagedDocument(r, boundary); ok {
			doc, err := a.docs.Parse(text, policy.Identity)
			if err != nil {
				return nil, fmt.Errorf("policy %s: %w", boundary, err)
			}
			p.boundary = doc
		}
	}
	// A federated user may what its policies allow, and nothing without.
	if c.Session == nil || c.Kind != FederatedUser && len(c.Session.Policies)+len(c.Session.PolicyARNs) == 0 {
		return p, nil
	}
	p.session = []*policy.Document{}
	for _, text := range c.Session.Policies {
		doc, err := a.docs.Parse(text, policy.Identity)
		if err != nil {
			return nil, fmt.Errorf("session policy: %w", err)
		}
		p.session = append(p.session, doc)
	}
	for _, arn := range c.Session.PolicyARNs {
		if text, ok := ManagedDocument(r, arn); ok {
			doc, err := a.docs.Parse(text, policy.Identity)
			if err != nil {
				return nil, fmt.Errorf("policy %s: %w", arn, err)
			}
			p.session = append(p.session, doc)
		}
	}
	return p, nil
}

func (a *Authorizer) collect(r store.Reader, p *principal, inline []state.InlinePolicy, attached []string) error {
	for _, in := range inline {
		doc, err := a.docs.Parse(in.Document, policy.Identity)
		if err != nil {
			return fmt.Errorf("policy %s: %w", in.Name, err)
		}
		p.identity = append(p.identity, doc)
	}
	for _, arn := range attached {
		text, ok := ManagedDocument(r, arn)
		if !ok {
			continue
		}
		doc, err := a.docs.Parse(text, policy.Identity)
		if err != nil {
			return fmt.Errorf("policy %s: %w", arn, err)
		}
		p.identity = append(p.identity, doc)
	}
	return nil
}

// ManagedDocument is the default version of a managed policy, a customer's or AWS's.
func ManagedDocument(r store.Reader, arn string) (string, bool) {
	if p, ok := managed.Find(arn); ok {
		return p.Document, true
	}
	for p := range state.ManagedPolicies.By(r, "arn", arn) {
		return p.Document(), true
	}
	return "", false
}

func (a *Authorizer) decide(ctx context.Context, p *principal, c *Caller, check *Check) (policy.Decision, error) {
	if c.isRoot() && check.Policy == "" && p.boundary == nil && p.session == nil {
		// Of the root user no policy speaks but those of resources.
		if owner := check.owner(); owner == "" || owner == c.Account {
			return policy.Decision{Allowed: true}, nil
		}
	}
	req, err := a.question(ctx, p, c, check)
	if err != nil {
		return policy.Decision{}, err
	}
	return policy.Evaluate(&req), nil
}

// question is a check with everything that has a say in it.
func (a *Authorizer) question(ctx context.Context, p *principal, c *Caller, check *Check) (policy.Request, error) {
	req := a.request(ctx, p, c, check)
	// Whose the resource is counts with and without a policy of its own: without
	// one nobody of another account may do anything with it.
	req.ResourceAccount = check.owner()
	if check.Policy != "" {
		doc, err := a.docs.Parse(check.Policy, policy.Resource)
		if err != nil {
			return req, fmt.Errorf("policy of %s: %w", check.Resource, err)
		}
		req.Policy = doc
	}
	return req, nil
}

func (a *Authorizer) request(ctx context.Context, p *principal, c *Caller, check *Check) policy.Request {
	around := RequestFrom(ctx)
	return policy.Request{
		Principal: policy.Principal{Account: c.Account, ARN: c.ARN, Parent: c.parent(), ID: c.PrincipalID(), Root: c.isRoot()},
		Action:    check.Action, Resource: check.Resource,
		Global: func(name string) ([]string, bool) {
			if v, ok := check.key(name); ok {
				return v, true
			}
			return a.global(around, p, c, check, name)
		},
		Identity: p.identity, Boundary: p.boundary, Session: p.session,
	}
}

// key is the value of a condition key of the check's own, by lower-case name.
func (c *Check) key(name string) ([]string, bool) {
	for k, v := range c.Keys {
		if strings.EqualFold(k, name) {
			return v, true
		}
	}
	if c.Tags == nil {
		return nil, false
	}
	prefix, tag, ok := strings.Cut(name, ":resourcetag/")
	if !ok || prefix != "aws" && !strings.HasPrefix(c.Action, prefix+":") {
		return nil, false
	}
	for _, t := range c.Tags() {
		if strings.EqualFold(t.Key, tag) {
			return []string{t.Value}, true
		}
	}
	return nil, false
}

// lowerKeys spells condition keys as package policy looks them up.
func lowerKeys(keys map[string][]string) map[string][]string {
	if len(keys) == 0 {
		return nil
	}
	low := make(map[string][]string, len(keys))
	for k, v := range keys {
		low[strings.ToLower(k)] = v
	}
	return low
}

func one(s string) ([]string, bool) { return []string{s}, s != "" }

// principalTypes are the values of aws:PrincipalType.
var principalTypes = map[Kind]string{RootUser: "Account", User: "User", AssumedRole: "AssumedRole", FederatedUser: "FederatedUser"}

// global is the value of a condition key that every request has, by what is
// known of the caller, the resource and the request.
func (a *Authorizer) global(r *Request, p *principal, c *Caller, check *Check, name string) ([]string, bool) {
	switch name {
	case "aws:principalarn":
		return one(c.PrincipalARN())
	case "aws:principalaccount":
		return one(c.Account)
	case "aws:principaltype":
		return one(principalTypes[c.Kind])
	case "aws:userid":
		return one(c.UserID)
	case "aws:username":
		if c.Kind == User {
			return one(c.Name)
		}
		return nil, false
	case "aws:resourceaccount":
		if owner := check.owner(); owner != "" || accountOfARN(check.Resource) == awsAccount {
			return one(owner)
		}
		return one(c.Account)
	}
	if v, ok := a.around(r, name); ok {
		return v, true
	}
	if c.Session != nil {
		if v, ok := c.Session.key(a.at(r), name); ok {
			return v, true
		}
	}
	tag, ok := strings.CutPrefix(name, "aws:principaltag/")
	if !ok {
		return nil, false
	}
	for _, t := range p.tags {
		if strings.EqualFold(t.Key, tag) {
			return []string{t.Value}, true
		}
	}
	return nil, false
}

// around is the value of a condition key that follows from the request alone.
func (a *Authorizer) around(r *Request, name string) ([]string, bool) {
	switch name {
	case "aws:sourceip":
		// A service that asks for the caller does so from where the caller is not.
		if r.SourceIP.IsValid() && len(r.CalledVia) == 0 {
			return one(r.SourceIP.Unmap().String())
		}
	case "aws:securetransport":
		return one(strconv.FormatBool(r.Secure))
	case "aws:requestedregion":
		return one(r.Region)
	case "aws:useragent":
		return one(r.UserAgent)
	case "aws:referer":
		return one(r.Referer)
	case "aws:currenttime":
		return one(a.at(r).UTC().Format(time.RFC3339))
	case "aws:epochtime":
		return one(strconv.FormatInt(a.at(r).Unix(), 10))
	case "aws:viaawsservice":
		return one(strconv.FormatBool(len(r.CalledVia) > 0))
	case "aws:principalisawsservice":
		return one("false")
	case "aws:calledvia":
		return r.CalledVia, len(r.CalledVia) > 0
	case "aws:calledviafirst":
		if len(r.CalledVia) > 0 {
			return one(r.CalledVia[0])
		}
	case "aws:calledvialast":
		if n := len(r.CalledVia); n > 0 {
			return one(r.CalledVia[n-1])
		}
	}
	return nil, false
}

// key is the value of a condition key that only sessions have.
func (s *Session) key(now time.Time, name string) ([]string, bool) {
	switch name {
	case "aws:tokenissuetime":
		return one(s.IssuedAt.UTC().Format(time.RFC3339))
	case "aws:multifactorauthpresent":
		// Long-term keys do not have this key at all.
		return one(strconv.FormatBool(s.MFA != 0))
	case "aws:multifactorauthage":
		if s.MFA != 0 {
			return one(strconv.FormatInt(now.Unix()-s.MFA, 10))
		}
		return nil, false
	case "aws:sourceidentity":
		return one(s.SourceIdentity)
	case "aws:federatedprovider":
		return one(s.Provider)
	}
	if tag, ok := strings.CutPrefix(name, "aws:principaltag/"); ok {
		for k, v := range s.Tags {
			if strings.EqualFold(k, tag) {
				return []string{v}, true
			}
		}
	}
	v, ok := s.Keys[name]
	return v, ok
}

func (a *Authorizer) at(r *Request) time.Time {
	if r.Time.IsZero() {
		return a.now()
	}
	return r.Time
}

// denial is an access-denied error as the protocol says it.
func denial(p wire.Protocol, text string) *wire.APIError {
	switch p {
	case wire.JSON10, wire.JSON11:
		return wire.NewError(http.StatusBadRequest, "AccessDeniedException", text)
	case wire.EC2Query:
		return wire.NewError(http.StatusForbidden, "UnauthorizedOperation", "You are not authorized to perform this operation. "+text)
	}
	return wire.NewError(http.StatusForbidden, "AccessDenied", text)
}

func (a *Authorizer) denied(ctx context.Context, p *principal, c *Caller, check *Check, d policy.Decision) error {
	r := RequestFrom(ctx)
	resource := check.Resource
	if resource == "*" && r.Protocol == wire.EC2Query {
		resource = ""
	}
	text := d.Message(c.ARN, check.Action, resource)
	e := denial(r.Protocol, text)
	if r.Protocol == wire.EC2Query {
		req, err := a.question(ctx, p, c, check)
		if err != nil {
			return err
		}
		e.Message += ". Encoded authorization failure message: " + a.Sessions.seal(sealedMessage, explain(r, c, check, &req))
	}
	return &Denied{APIError: e, Decision: d, Text: text}
}
