package policy

import (
	"slices"
	"strings"
)

// A Request is what is asked, by whom, and every policy that has a say in it.
type Request struct {
	Principal Principal
	Action    string // ecs:RunTask
	Resource  string // an ARN, or *

	// Keys are the condition keys of this request, by lower-case name. Global is
	// asked for keys that are not there; it may be nil.
	Keys   map[string][]string
	Global func(name string) ([]string, bool)

	Identity []*Document // of the user and its groups, or of the role
	Boundary *Document   // nil: none
	Session  []*Document // session policies; nil: none
	Policy   *Document   // of the resource, nil: none

	// ResourceAccount is the account that owns the resource, "" for the principal's own.
	ResourceAccount string
	// Trust says that Policy must allow by itself, as a role's trust policy must.
	Trust bool
}

// A Principal is who asks.
type Principal struct {
	Account string
	ARN     string // of the user, of the session, or of the account's root
	Parent  string // ARN of the role or user that a session of its own name is of
	ID      string // unique id of the user or role
	Root    bool   // the root user, or a session of it

	// Those who are in no account; then all of the above is empty.
	Service   string // ecs-tasks.amazonaws.com
	Federated string // ARN or name of the provider that vouches for the caller
}

// outside says that the principal has no policies of its own: only the
// resource can let it in.
func (p *Principal) outside() bool { return p.Service != "" || p.Federated != "" }

// Source is a kind of policy.
type Source int

// The sources, in the order in which they are blamed.
const (
	None Source = iota
	IdentityPolicy
	ResourcePolicy
	BoundaryPolicy
	SessionPolicy
	TrustPolicy
	sources
)

// A Decision is the outcome. If it is not allowed, Source is the kind of policy
// that denied (Explicit) or that had to allow and did not.
type Decision struct {
	Allowed  bool
	Explicit bool
	Source   Source
}

// An Outcome is what the policies of one source say.
type Outcome int

// The outcomes.
const (
	Absent Outcome = iota // there are none
	Silent
	Allows
	Denies
)

// A Match is a statement that applies to a request.
type Match struct {
	Source   Source
	Document int // in the list of its source
	Index    int // of the statement in the document
	Deny     bool
}

// An Explanation is a decision with what led to it.
type Explanation struct {
	Decision
	By      map[Source]Outcome
	Matched []Match
	// Missing are the condition keys, as they are written, that statements for
	// this action asked for and that the request does not have.
	Missing []string
}

// key looks up a condition key by lower-case name.
func (r *Request) key(name string) ([]string, bool) {
	if v, ok := r.Keys[name]; ok {
		return v, true
	}
	if r.Global != nil {
		return r.Global(name)
	}
	return nil, false
}

// Evaluate decides a request in AWS's order: a deny anywhere wins; then the
// resource's policy may allow alone; then identity policies, boundary and
// session policies must all allow.
func Evaluate(r *Request) Decision {
	e := evaluation{Request: r}
	return e.decide()
}

// Explain is Evaluate with the reasons. It looks at every statement, where
// Evaluate stops as soon as it knows.
func Explain(r *Request) Explanation {
	x := Explanation{By: map[Source]Outcome{}}
	traced := *r
	traced.Global = func(name string) ([]string, bool) {
		if r.Global != nil {
			if v, ok := r.Global(name); ok {
				return v, ok
			}
		}
		if !slices.Contains(x.Missing, name) {
			x.Missing = append(x.Missing, name)
		}
		return nil, false
	}
	e := evaluation{Request: &traced, trace: &x}
	x.Decision = e.decide()
	x.Missing = written(x.Missing, r)
	return x
}

// written spells keys as the documents do, in the order of the alphabet.
func written(keys []string, r *Request) []string {
	spelled := map[string]string{}
	docs := slices.Concat([]*Document{r.Policy, r.Boundary}, r.Identity, r.Session)
	for _, d := range docs {
		if d != nil {
			for _, k := range d.keys {
				spelled[strings.ToLower(k)] = k
			}
		}
	}
	for i, k := range keys {
		if as, ok := spelled[k]; ok {
			keys[i] = as
		}
	}
	slices.Sort(keys)
	return keys
}

type evaluation struct {
	*Request
	trace *Explanation // nil: nobody asks why
}

func (e *evaluation) decide() Decision {
	ofResource := ResourcePolicy
	if e.Trust {
		ofResource = TrustPolicy
	}
	var all [sources]verdict
	all[ofResource] = e.one(e.Policy, ofResource)
	if !e.Principal.outside() {
		all[IdentityPolicy] = e.many(e.Identity, IdentityPolicy)
		all[BoundaryPolicy] = e.one(e.Boundary, BoundaryPolicy)
		all[SessionPolicy] = e.many(e.Session, SessionPolicy)
	}
	if e.trace != nil {
		e.outcomes(&all)
	}
	for _, s := range [...]Source{ofResource, IdentityPolicy, BoundaryPolicy, SessionPolicy} {
		if all[s].deny {
			return Decision{Explicit: true, Source: s}
		}
	}
	granted := all[ofResource].grants
	if e.Principal.outside() {
		if granted == notGranted {
			return Decision{Source: ofResource}
		}
		return Decision{Allowed: true}
	}
	cross := e.ResourceAccount != "" && e.ResourceAccount != e.Principal.Account
	if (e.Trust || cross) && granted == notGranted {
		return Decision{Source: ofResource}
	}
	if !cross && granted == toPrincipal {
		return Decision{Allowed: true}
	}
	if !all[IdentityPolicy].allow && !e.Principal.Root && (cross || granted != toParent) {
		return Decision{Source: IdentityPolicy}
	}
	if e.Boundary != nil && !all[BoundaryPolicy].allow {
		return Decision{Source: BoundaryPolicy}
	}
	if e.Session != nil && !all[SessionPolicy].allow {
		return Decision{Source: SessionPolicy}
	}
	return Decision{Allowed: true}
}

// outcomes notes what each source that there is says.
func (e *evaluation) outcomes(all *[sources]verdict) {
	there := [sources]bool{IdentityPolicy: len(e.Identity) > 0, ResourcePolicy: e.Policy != nil && !e.Trust,
		BoundaryPolicy: e.Boundary != nil, SessionPolicy: e.Session != nil, TrustPolicy: e.Policy != nil && e.Trust}
	for s := IdentityPolicy; s < sources; s++ {
		switch {
		case !there[s]:
		case all[s].deny:
			e.trace.By[s] = Denies
		case all[s].allow:
			e.trace.By[s] = Allows
		default:
			e.trace.By[s] = Silent
		}
	}
}

// grant says to whom a resource's policy grants, from weakest to strongest.
type grant int

const (
	notGranted  grant = iota
	toAccount         // the account is trusted: its own identity policies decide
	toParent          // the role or user behind a session: boundary and session policies still limit
	toPrincipal       // the user or session itself: nothing else is needed
)

type verdict struct {
	deny, allow bool
	grants      grant
}

func (v *verdict) add(w verdict) {
	v.deny, v.allow, v.grants = v.deny || w.deny, v.allow || w.allow, max(v.grants, w.grants)
}

func (e *evaluation) many(docs []*Document, s Source) (all verdict) {
	for i, d := range docs {
		if all.add(e.verdict(d, s, i)); all.deny && e.trace == nil {
			break
		}
	}
	return all
}

func (e *evaluation) one(d *Document, s Source) verdict {
	if d == nil {
		return verdict{}
	}
	return e.verdict(d, s, 0)
}

// verdict is what one document says. Principals count in resource policies only.
func (e *evaluation) verdict(d *Document, s Source, at int) verdict {
	var v verdict
	byPrincipal := s == ResourcePolicy || s == TrustPolicy
	for i := range d.statements {
		st := &d.statements[i]
		if !st.deny && v.allow && !byPrincipal && e.trace == nil {
			continue // nothing to learn
		}
		if !e.actionApplies(st) || !e.resourceApplies(st) {
			continue
		}
		g := toPrincipal
		if byPrincipal {
			if g = e.principalApplies(st); g == notGranted {
				continue
			}
		}
		if !e.conditionsHold(st) {
			continue
		}
		if e.trace != nil {
			e.trace.Matched = append(e.trace.Matched, Match{s, at, i, st.deny})
		}
		if !st.deny {
			v.add(verdict{allow: true, grants: g})
			continue
		}
		if v.deny = true; e.trace == nil {
			return v
		}
	}
	return v
}

func (e *evaluation) actionApplies(st *statement) bool {
	for i := range st.actions {
		if st.actions[i].matchesFold(e.Action) {
			return !st.notAction
		}
	}
	return st.notAction
}

func (e *evaluation) resourceApplies(st *statement) bool {
	if !st.hasResource {
		return true
	}
	for i := range st.resources {
		if st.resources[i].matches(e.Request, e.Resource) {
			return !st.notResource
		}
	}
	return st.notResource
}

func (e *evaluation) conditionsHold(st *statement) bool {
	all := true
	for i := range st.conditions {
		if !st.conditions[i].holds(e.Request) {
			if all = false; e.trace == nil {
				break
			}
		}
	}
	return all
}

// principalApplies is how strongly the statement speaks of the principal.
func (e *evaluation) principalApplies(st *statement) grant {
	best := notGranted
	for i := range st.principals {
		best = max(best, e.names(&st.principals[i]))
	}
	if !st.notPrincipal {
		return best
	}
	if best == notGranted {
		return toPrincipal
	}
	return notGranted
}

func (e *evaluation) names(p *principal) grant {
	who := &e.Principal
	switch {
	case who.outside():
		if p.kind == "Service" && p.value == who.Service || p.kind == "Federated" && p.value == who.Federated ||
			p.kind == "*" && !e.Trust { // a role trusts a service or provider by name only
			return toPrincipal
		}
		return notGranted
	case p.kind == "*":
		return toPrincipal
	case p.kind != "AWS":
		return notGranted
	case p.value == who.Account, isRootOf(p.value, who.Account):
		return toAccount
	case p.value == who.ARN:
		return toPrincipal
	case p.value == who.ID && who.ID != "":
		if who.Parent != "" {
			return toParent
		}
		return toPrincipal
	case p.value == who.Parent && who.Parent != "":
		return toParent
	}
	return notGranted
}

// isRootOf reports whether arn is that of the account's root.
func isRootOf(arn, account string) bool {
	const head, tail = "arn:aws:iam::", ":root"
	return len(arn) == len(head)+len(account)+len(tail) && arn[:len(head)] == head && arn[len(head):len(head)+len(account)] == account &&
		arn[len(arn)-len(tail):] == tail
}
