package policy

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A refStatement is a statement as the reference evaluator sees it: plain
// lists, no compilation, regular expressions for wildcards.
type refStatement struct {
	Effect       string
	Principal    any                            `json:",omitempty"`
	NotPrincipal any                            `json:",omitempty"`
	Action       []string                       `json:",omitempty"`
	NotAction    []string                       `json:",omitempty"`
	Resource     []string                       `json:",omitempty"`
	NotResource  []string                       `json:",omitempty"`
	Condition    map[string]map[string][]string `json:",omitempty"`
}

type refDocument struct {
	Version   string
	Statement []refStatement
}

func refGlob(pattern, s string, fold bool) bool {
	re := regexp.QuoteMeta(pattern)
	re = strings.ReplaceAll(strings.ReplaceAll(re, `\*`, `.*`), `\?`, `.`)
	flags := "(?s)"
	if fold {
		flags = "(?is)"
	}
	return regexp.MustCompile(flags + `\A` + re + `\z`).MatchString(s)
}

func refAny(patterns []string, s string, fold bool) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return refGlob(p, s, fold) })
}

// refExpand replaces ${aws:username}, the only variable that the generator uses.
func refExpand(patterns []string, keys map[string][]string) []string {
	var out []string
	for _, p := range patterns {
		if !strings.Contains(p, "${aws:username}") {
			out = append(out, p)
		} else if v := keys["aws:username"]; len(v) == 1 {
			out = append(out, strings.ReplaceAll(p, "${aws:username}", v[0]))
		}
	}
	return out
}

func refOne(op, want, got string) bool {
	switch op {
	case "StringEquals":
		return want == got
	case "StringEqualsIgnoreCase":
		return strings.EqualFold(want, got)
	case "StringLike":
		return refGlob(want, got, false)
	case "NumericLessThan":
		w, err1 := strconv.ParseFloat(want, 64)
		g, err2 := strconv.ParseFloat(got, 64)
		return err1 == nil && err2 == nil && g < w
	case "Bool":
		return strings.EqualFold(want, got)
	}
	panic(op)
}

var refNegated = map[string]string{"StringNotEquals": "StringEquals", "StringNotLike": "StringLike", "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase"}

func refCondition(op, key string, want []string, keys map[string][]string) bool {
	got := keys[key]
	if op == "Null" {
		return want[0] == "true" == (len(got) == 0)
	}
	quant := ""
	if q, rest, ok := strings.Cut(op, ":"); ok {
		quant, op = q, rest
	}
	op, ifExists := strings.CutSuffix(op, "IfExists")
	base, negated := refNegated[op]
	if !negated {
		base = op
	}
	want = refExpand(want, keys)
	matches := func(v string) bool {
		return slices.ContainsFunc(want, func(w string) bool { return refOne(base, w, v) })
	}
	if len(got) == 0 {
		if ifExists || quant == "ForAllValues" {
			return true
		}
		return negated && quant == ""
	}
	switch quant {
	case "ForAllValues":
		for _, v := range got {
			if matches(v) == negated {
				return false
			}
		}
		return true
	case "ForAnyValue":
		return slices.ContainsFunc(got, func(v string) bool { return matches(v) != negated })
	}
	return slices.ContainsFunc(got, matches) != negated
}

// refMatch says whether a statement is about the request, and how strongly it
// names the principal: 3 itself, 2 its role, 1 its account.
func refMatch(st refStatement, r *Request, principal bool) (bool, int) {
	if st.Action != nil && !refAny(st.Action, r.Action, true) || st.NotAction != nil && refAny(st.NotAction, r.Action, true) {
		return false, 0
	}
	if st.Resource != nil && !refAny(refExpand(st.Resource, r.Keys), r.Resource, false) ||
		st.NotResource != nil && refAny(refExpand(st.NotResource, r.Keys), r.Resource, false) {
		return false, 0
	}
	for op, m := range st.Condition {
		for k, v := range m {
			if !refCondition(op, k, v, r.Keys) {
				return false, 0
			}
		}
	}
	if !principal {
		return true, 3
	}
	strength := func(p any) int {
		if p == "*" {
			return 3
		}
		best := 0
		for _, v := range p.(map[string][]string)["AWS"] {
			switch v {
			case "*", r.Principal.ARN:
				best = 3
			case r.Principal.Role:
				best = max(best, 2)
			case r.Principal.Account, "arn:aws:iam::" + r.Principal.Account + ":root":
				best = max(best, 1)
			}
		}
		return best
	}
	if st.NotPrincipal != nil {
		if strength(st.NotPrincipal) > 0 {
			return false, 0
		}
		return true, 3
	}
	n := strength(st.Principal)
	return n > 0, n
}

// refEvaluate follows AWS's flow chart, one question after the other.
func refEvaluate(r *Request, identity []refDocument, resource, boundary *refDocument, session []refDocument) bool {
	denied, allowed := false, func(docs []refDocument, principal bool) int {
		best := 0
		for _, d := range docs {
			for _, st := range d.Statement {
				if ok, n := refMatch(st, r, principal); ok && st.Effect == "Allow" {
					best = max(best, n)
				}
			}
		}
		return best
	}
	one := func(d *refDocument) []refDocument {
		if d == nil {
			return nil
		}
		return []refDocument{*d}
	}
	for i, docs := range [][]refDocument{identity, one(resource), one(boundary), session} {
		for _, d := range docs {
			for _, st := range d.Statement {
				if ok, _ := refMatch(st, r, i == 1); ok && st.Effect == "Deny" {
					denied = true
				}
			}
		}
	}
	if denied {
		return false
	}
	byResource := allowed(one(resource), true)
	if byResource == 3 {
		return true
	}
	if allowed(identity, false) == 0 && byResource != 2 {
		return false
	}
	if boundary != nil && allowed(one(boundary), false) == 0 {
		return false
	}
	return session == nil || allowed(session, false) > 0
}

func genDocument(t *rapid.T, name string, resourcePolicy bool) refDocument {
	some := func(name string, of ...string) []string {
		return rapid.SliceOfN(rapid.SampledFrom(of), 1, 2).Draw(t, name)
	}
	statement := rapid.Custom(func(t *rapid.T) refStatement {
		st := refStatement{Effect: rapid.SampledFrom([]string{"Allow", "Allow", "Deny"}).Draw(t, "effect")}
		actions := some("actions", "*", "ecs:*", "ecs:RunTask", "ECS:run*", "ecs:?topTask", "iam:GetUser", "ecs:*Task")
		if rapid.IntRange(0, 4).Draw(t, "notaction") == 0 {
			st.NotAction = actions
		} else {
			st.Action = actions
		}
		resources := some("resources", "*", "arn:aws:ecs:*:*:task/*", "arn:aws:ecs:us-east-1:1:task/c/a", "arn:aws:ecs:*:1:cluster/?", "arn:aws:ecs:us-east-1:1:task/${aws:username}/*")
		if rapid.IntRange(0, 4).Draw(t, "notresource") == 0 {
			st.NotResource = resources
		} else {
			st.Resource = resources
		}
		if resourcePolicy {
			p := any("*")
			if rapid.Bool().Draw(t, "named") {
				p = map[string][]string{"AWS": some("principals", "000000000001", "arn:aws:iam::000000000001:root",
					"arn:aws:iam::000000000001:role/r", "arn:aws:sts::000000000001:assumed-role/r/s", "arn:aws:iam::000000000001:user/u", "*")}
			}
			if st.Effect == "Deny" && rapid.Bool().Draw(t, "not") {
				st.NotPrincipal = p
			} else {
				st.Principal = p
			}
		}
		if rapid.Bool().Draw(t, "conditional") {
			op := rapid.SampledFrom([]string{"StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIgnoreCase",
				"StringNotEqualsIgnoreCase", "NumericLessThan", "Bool", "Null"}).Draw(t, "op")
			values := some("values", "a", "A", "b*", "${aws:username}", "?")
			switch op {
			case "NumericLessThan":
				values = some("numbers", "1", "10.5", "-3")
			case "Bool", "Null":
				values = []string{rapid.SampledFrom([]string{"true", "false"}).Draw(t, "bool")}
			}
			if op != "Null" {
				op = rapid.SampledFrom([]string{"", "", "ForAllValues:", "ForAnyValue:"}).Draw(t, "quantifier") + op +
					rapid.SampledFrom([]string{"", "", "IfExists"}).Draw(t, "suffix")
			}
			key := rapid.SampledFrom([]string{"k1", "k2", "aws:username"}).Draw(t, "key")
			st.Condition = map[string]map[string][]string{op: {key: values}}
		}
		return st
	})
	return refDocument{"2012-10-17", rapid.SliceOfN(statement, 1, 3).Draw(t, name)}
}

func compileRef(t *rapid.T, d refDocument, kind Kind) *Document {
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := Parse(string(text), kind)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return doc
}

func TestEvaluateAgainstReference(t *testing.T) {
	allowed, denied := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		r := &Request{
			Action:   rapid.SampledFrom([]string{"ecs:RunTask", "ecs:StopTask", "iam:GetUser"}).Draw(t, "action"),
			Resource: rapid.SampledFrom([]string{"*", "arn:aws:ecs:us-east-1:1:task/c/a", "arn:aws:ecs:us-east-1:1:cluster/c", "arn:aws:ecs:us-east-1:1:task/a/x"}).Draw(t, "resource"),
			Keys:     map[string][]string{},
		}
		r.Principal = Principal{Account: "000000000001", ARN: "arn:aws:iam::000000000001:user/u"}
		if rapid.Bool().Draw(t, "role") {
			r.Principal.ARN, r.Principal.Role = "arn:aws:sts::000000000001:assumed-role/r/s", "arn:aws:iam::000000000001:role/r"
		}
		for _, k := range []string{"k1", "k2", "aws:username"} {
			if v := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "A", "bcd", "5", "true", "c"}), 0, 2).Draw(t, k); len(v) > 0 {
				r.Keys[k] = v
			}
		}
		var identity, session []refDocument
		var resource, boundary *refDocument
		for range rapid.IntRange(0, 2).Draw(t, "identities") {
			identity = append(identity, genDocument(t, "identity", false))
		}
		if rapid.Bool().Draw(t, "hasResource") {
			resource = new(genDocument(t, "resourcePolicy", true))
		}
		if rapid.IntRange(0, 3).Draw(t, "hasBoundary") == 0 {
			boundary = new(genDocument(t, "boundary", false))
		}
		if rapid.IntRange(0, 3).Draw(t, "hasSession") == 0 {
			session = []refDocument{genDocument(t, "session", false)}
		}
		for _, d := range identity {
			r.Identity = append(r.Identity, compileRef(t, d, Identity))
		}
		if resource != nil {
			r.Policy = compileRef(t, *resource, Resource)
		}
		if boundary != nil {
			r.Boundary = compileRef(t, *boundary, Identity)
		}
		for _, d := range session {
			r.Session = append(r.Session, compileRef(t, d, Identity))
		}
		got, want := Evaluate(r), refEvaluate(r, identity, resource, boundary, session)
		if got.Allowed != want {
			t.Fatalf("got %+v, the reference says %v", got, want)
		}
		if got.Allowed == (got.Source != None) {
			t.Fatalf("a decision must blame a source exactly if it denies: %+v", got)
		}
		if want {
			allowed++
		} else {
			denied++
		}
	})
	if allowed == 0 || denied == 0 {
		t.Errorf("the generator is one-sided: %d allowed, %d denied", allowed, denied)
	}
}

func TestGlobAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*?é:/")), 0, 10, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.SampledFrom([]rune("abé:/")), 0, 12, -1).Draw(t, "s")
		p := compile(pattern, false)
		if got, want := p.matches(&Request{}, s), refGlob(pattern, s, false); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, s, got, want)
		}
	})
}
