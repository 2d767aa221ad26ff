package auth

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/berth-run/berth/auth/policy"
)

// What sts:DecodeAuthorizationMessage tells of a refusal. AWS puts every list
// into an object with the one member items.
type (
	list[T any] struct {
		Items []T `json:"items"`
	}
	messageValue struct {
		Value string `json:"value"`
	}
	messageKey struct {
		Key    string             `json:"key"`
		Values list[messageValue] `json:"values"`
	}
	messageStatement struct {
		ID              string             `json:"statementId"`
		Effect          string             `json:"effect"`
		Principals      list[messageValue] `json:"principals"`
		PrincipalGroups list[messageValue] `json:"principalGroups"`
		Actions         list[messageValue] `json:"actions"`
		Resources       list[messageValue] `json:"resources"`
		Conditions      list[messageKey]   `json:"conditions"`
	}
	messagePrincipal struct {
		ID   string `json:"id"`
		Name string `json:"name,omitempty"`
		ARN  string `json:"arn"`
	}
	messageContext struct {
		Principal  messagePrincipal `json:"principal"`
		Action     string           `json:"action"`
		Resource   string           `json:"resource"`
		Conditions list[messageKey] `json:"conditions"`
	}
	message struct {
		Allowed      bool                   `json:"allowed"`
		ExplicitDeny bool                   `json:"explicitDeny"`
		Matched      list[messageStatement] `json:"matchedStatements"`
		Failures     list[messageValue]     `json:"failures"`
		Context      messageContext         `json:"context"`
	}
)

func values(of []string) list[messageValue] {
	out := list[messageValue]{[]messageValue{}}
	for _, v := range of {
		out.Items = append(out.Items, messageValue{v})
	}
	return out
}

// explain is the message of a refusal.
func explain(r *Request, c *Caller, check *Check, req *policy.Request) []byte {
	x := policy.Explain(req)
	m := message{Allowed: x.Allowed, ExplicitDeny: x.Explicit, Matched: list[messageStatement]{[]messageStatement{}}, Failures: values(nil)}
	for _, match := range x.Matched {
		if match.Deny != x.Explicit {
			continue // the statements that made the decision
		}
		doc := document(req, match)
		st := doc.Statement(match.Index)
		effect := "ALLOW"
		if st.Deny {
			effect = "DENY"
		}
		out := messageStatement{ID: st.Sid, Effect: effect, Principals: values([]string{c.PrincipalID()}), PrincipalGroups: values(nil),
			Actions: values(st.Actions), Resources: values(st.Resources), Conditions: list[messageKey]{[]messageKey{}}}
		for _, k := range st.Conditions {
			out.Conditions.Items = append(out.Conditions.Items, messageKey{k.Key, values(k.Values)})
		}
		m.Matched.Items = append(m.Matched.Items, out)
	}
	m.Context = messageContext{Principal: messagePrincipal{ID: c.UserID, ARN: c.ARN}, Action: check.Action, Resource: check.Resource,
		Conditions: list[messageKey]{conditions(r, c, check)}}
	if c.Kind == User {
		m.Context.Principal.Name = c.Name
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil // strings always marshal
	}
	return text
}

// document is the one that a match is in.
func document(req *policy.Request, m policy.Match) *policy.Document {
	switch m.Source {
	case policy.IdentityPolicy:
		return req.Identity[m.Document]
	case policy.BoundaryPolicy:
		return req.Boundary
	case policy.SessionPolicy:
		return req.Session[m.Document]
	}
	return req.Policy
}

// conditions are the condition keys of the request, and what AWS says of the
// resource in the same form.
func conditions(r *Request, c *Caller, check *Check) []messageKey {
	keys := maps.Clone(check.Keys)
	if keys == nil {
		keys = map[string][]string{}
	}
	service, _, _ := strings.Cut(check.Action, ":")
	if check.Tags != nil {
		for _, t := range check.Tags() {
			keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
			keys[service+":ResourceTag/"+t.Key] = []string{t.Value}
		}
	}
	account, resource := c.Account, "*"
	if part := strings.SplitN(check.Resource, ":", 6); len(part) == 6 {
		account, resource = part[4], part[5]
	}
	kind, id, found := strings.Cut(resource, "/")
	if !found {
		kind, id = "", resource
	}
	for k, v := range map[string]string{"aws:Region": r.Region, "aws:Service": service, "aws:Account": account, "aws:Resource": resource,
		"aws:Type": kind, "aws:ID": id, "aws:ARN": check.Resource} {
		if v != "" {
			keys[k] = []string{v}
		}
	}
	out := []messageKey{}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		out = append(out, messageKey{k, values(keys[k])})
	}
	return out
}
