package policy

import "strings"

// Message is AWS's text for a request that was not allowed.
func (d Decision) Message(arn, action, resource string) string {
	var b strings.Builder
	b.WriteString("User: " + arn + " is not authorized to perform: " + action)
	if resource != "" {
		b.WriteString(" on resource: " + resource)
	}
	b.WriteString(d.Because(action))
	return b.String()
}

// Because is the end of the text: which kind of policy said no.
func (d Decision) Because(action string) string {
	kind := d.Source.String()
	switch {
	case d.Source == None:
		return ""
	case !d.Explicit:
		return " because no " + kind + " allows the " + action + " action"
	case d.Source == IdentityPolicy:
		return " with an explicit deny in an " + kind
	}
	return " with an explicit deny in a " + kind
}

func (s Source) String() string {
	switch s {
	case IdentityPolicy:
		return "identity-based policy"
	case ResourcePolicy:
		return "resource-based policy"
	case BoundaryPolicy:
		return "permissions boundary"
	case SessionPolicy:
		return "session policy"
	case TrustPolicy:
		return "role trust policy"
	}
	return ""
}
