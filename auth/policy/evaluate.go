package policy

import "strings"

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
	Role    string // ARN of the role behind a session
	ID      string // unique id of the user or role
	Service string // ecs-tasks.amazonaws.com; then all of the above is ""
	Root    bool
}

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
)

// A Decision is the outcome. If it is not allowed, Source is the kind of policy
// that denied (Explicit) or that had to allow and did not.
type Decision struct {
	Allowed  bool
	Explicit bool
	Source   Source
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
	e := evaluation{Request: r, action: strings.ToLower(r.Action)}
	ofResource := ResourcePolicy
	if r.Trust {
		ofResource = TrustPolicy
	}

	resource := e.verdict(r.Policy, true)
	if resource.deny {
		return Decision{Explicit: true, Source: ofResource}
	}
	if r.Principal.Service != "" {
		// A service has no policies of its own: only the resource can let it in.
		return Decision{Allowed: resource.grants != notGranted, Source: blame(resource.grants != notGranted, ofResource)}
	}
	identity := e.verdicts(r.Identity)
	if identity.deny {
		return Decision{Explicit: true, Source: IdentityPolicy}
	}
	boundary := e.verdict(r.Boundary, false)
	if boundary.deny {
		return Decision{Explicit: true, Source: BoundaryPolicy}
	}
	session := e.verdicts(r.Session)
	if session.deny {
		return Decision{Explicit: true, Source: SessionPolicy}
	}

	cross := r.ResourceAccount != "" && r.ResourceAccount != r.Principal.Account
	granted := resource.grants
	if r.Trust && granted == notGranted {
		return Decision{Source: TrustPolicy}
	}
	if cross && granted == notGranted {
		return Decision{Source: ResourcePolicy}
	}
	if r.Principal.Root {
		return Decision{Allowed: true}
	}
	if !cross && granted == toPrincipal {
		return Decision{Allowed: true}
	}
	if !identity.allow && (cross || granted != toRole) {
		return Decision{Source: IdentityPolicy}
	}
	if r.Boundary != nil && !boundary.allow {
		return Decision{Source: BoundaryPolicy}
	}
	if r.Session != nil && !session.allow {
		return Decision{Source: SessionPolicy}
	}
	return Decision{Allowed: true}
}

func blame(allowed bool, s Source) Source {
	if allowed {
		return None
	}
	return s
}

// grant says to whom a resource's policy grants, from weakest to strongest.
type grant int

const (
	notGranted  grant = iota
	toAccount         // the account is trusted: its own identity policies decide
	toRole            // the role of a session: boundary and session policies still limit
	toPrincipal       // the user or session itself: nothing else is needed
)

type verdict struct {
	deny, allow bool
	grants      grant
}

type evaluation struct {
	*Request
	action string
}

func (e *evaluation) verdicts(docs []*Document) verdict {
	var all verdict
	for _, d := range docs {
		v := e.verdict(d, false)
		if v.deny {
			return v
		}
		all.allow = all.allow || v.allow
	}
	return all
}

// verdict is what one document says. Principals count in resource policies only.
func (e *evaluation) verdict(d *Document, byPrincipal bool) verdict {
	var v verdict
	if d == nil {
		return v
	}
	for i := range d.statements {
		st := &d.statements[i]
		if !st.deny && v.allow && !byPrincipal {
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
		if st.deny {
			return verdict{deny: true}
		}
		v.allow = true
		v.grants = max(v.grants, g)
	}
	return v
}

func (e *evaluation) actionApplies(st *statement) bool {
	for i := range st.actions {
		if st.actions[i].matches(e.Request, e.action) {
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
	for i := range st.conditions {
		if !st.conditions[i].holds(e.Request) {
			return false
		}
	}
	return true
}

// principalApplies is how strongly the statement speaks of the principal.
func (e *evaluation) principalApplies(st *statement) grant {
	best := notGranted
	for _, p := range st.principals {
		best = max(best, e.names(p))
	}
	if !st.notPrincipal {
		return best
	}
	if best == notGranted {
		return toPrincipal
	}
	return notGranted
}

func (e *evaluation) names(p principal) grant {
	who := &e.Principal
	switch {
	case p.kind == "*":
		return toPrincipal
	case who.Service != "":
		if p.kind == "Service" && p.value == who.Service {
			return toPrincipal
		}
		return notGranted
	case p.kind != "AWS":
		return notGranted
	case p.value == who.ARN:
		return toPrincipal
	case p.value == who.ID && who.ID != "":
		if who.Role != "" {
			return toRole
		}
		return toPrincipal
	case p.value == who.Role && who.Role != "":
		return toRole
	case p.value == who.Account, p.value == "arn:aws:iam::"+who.Account+":root":
		return toAccount
	}
	return notGranted
}
