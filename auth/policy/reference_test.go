package policy

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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

// refPattern turns a pattern into a regular expression, with the values of the
// request in the place of variables. It fails if a variable has no one value.
func refPattern(d *refDocument, pattern string, keys map[string][]string, wildcards bool) (string, bool) {
	var re strings.Builder
	for pattern != "" {
		if rest, ok := strings.CutPrefix(pattern, "${"); ok && d.Version == "2012-10-17" {
			name, after, _ := strings.Cut(rest, "}")
			pattern = after
			if name == "*" || name == "?" || name == "$" {
				re.WriteString(regexp.QuoteMeta(name))
				continue
			}
			name, fallback, hasDefault := strings.Cut(name, ", ")
			v := keys[strings.ToLower(name)]
			switch {
			case len(v) == 1:
				re.WriteString(regexp.QuoteMeta(v[0]))
			case len(v) == 0 && hasDefault:
				re.WriteString(regexp.QuoteMeta(strings.Trim(fallback, "'")))
			default:
				return "", false
			}
			continue
		}
		switch c := pattern[:1]; {
		case wildcards && c == "*":
			re.WriteString(".*")
		case wildcards && c == "?":
			re.WriteString(".")
		default:
			re.WriteString(regexp.QuoteMeta(c))
		}
		pattern = pattern[1:]
	}
	return re.String(), true
}

func refGlob(d *refDocument, pattern, s string, keys map[string][]string, wildcards bool, flags string) bool {
	re, ok := refPattern(d, pattern, keys, wildcards)
	return ok && regexp.MustCompile("(?s"+flags+`)\A`+re+`\z`).MatchString(s)
}

func refAction(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return refGlob(&refDocument{}, p, s, nil, true, "i") })
}

func refResource(d *refDocument, patterns []string, r *Request) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return refGlob(d, p, r.Resource, r.Keys, true, "") })
}

func refTime(s string) (time.Time, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && len(s) != 4 {
		return time.Unix(n, 0), true
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t, err = time.Parse("2006-01-02", s)
	}
	return t, err == nil
}

// refOne says whether one value of the request fits one of the policy.
func refOne(d *refDocument, op, want, got string, keys map[string][]string) bool {
	switch op {
	case "StringEquals":
		return refGlob(d, want, got, keys, false, "")
	case "StringEqualsIgnoreCase":
		return refGlob(d, want, got, keys, false, "i")
	case "StringLike":
		return refGlob(d, want, got, keys, true, "")
	case "Bool":
		return strings.EqualFold(want, got)
	case "BinaryEquals":
		w, err1 := base64.StdEncoding.DecodeString(want)
		g, err2 := base64.StdEncoding.DecodeString(got)
		return err1 == nil && err2 == nil && string(w) == string(g)
	case "IpAddress":
		if !strings.Contains(want, "/") {
			return net.ParseIP(want).Equal(net.ParseIP(got))
		}
		_, network, err := net.ParseCIDR(want)
		ip := net.ParseIP(got)
		return err == nil && ip != nil && network.Contains(ip)
	case "ArnLike", "ArnEquals":
		if want == "*" {
			return true
		}
		w, g := strings.SplitN(want, ":", 6), strings.SplitN(got, ":", 6)
		if len(w) != len(g) {
			return false
		}
		for i := range w {
			if !refGlob(d, w[i], g[i], keys, true, "") {
				return false
			}
		}
		return true
	}
	if rest, ok := strings.CutPrefix(op, "Numeric"); ok {
		w, err1 := strconv.ParseFloat(want, 64)
		g, err2 := strconv.ParseFloat(got, 64)
		if err1 != nil || err2 != nil {
			return false
		}
		return map[string]bool{"Equals": g == w, "LessThan": g < w, "LessThanEquals": g <= w, "GreaterThan": g > w, "GreaterThanEquals": g >= w}[rest]
	}
	rest, ok := strings.CutPrefix(op, "Date")
	if !ok {
		panic(op)
	}
	w, ok1 := refTime(want)
	g, ok2 := refTime(got)
	if !ok1 || !ok2 {
		return false
	}
	return map[string]bool{"Equals": g.Equal(w), "LessThan": g.Before(w), "LessThanEquals": !g.After(w), "GreaterThan": g.After(w), "GreaterThanEquals": !g.Before(w)}[rest]
}

var refNegated = map[string]string{"StringNotEquals": "StringEquals", "StringNotLike": "StringLike",
	"StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase", "NumericNotEquals": "NumericEquals", "DateNotEquals": "DateEquals",
	"NotIpAddress": "IpAddress", "ArnNotEquals": "ArnEquals", "ArnNotLike": "ArnLike"}

func refCondition(d *refDocument, op, key string, want []string, keys map[string][]string) bool {
	got := keys[key]
	if op == "Null" {
		return slices.Contains(want, strconv.FormatBool(len(got) == 0))
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
	matches := func(v string) bool {
		return slices.ContainsFunc(want, func(w string) bool { return refOne(d, base, w, v, keys) })
	}
	if len(got) == 0 {
		if ifExists || quant == "ForAllValues" {
			return true
		}
		return negated && quant == ""
	}
	switch quant {
	case "ForAllValues":
		if len(got) == 1 && got[0] == "" {
			return true
		}
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

// How strongly a statement names the principal.
const (
	refNot = iota
	refAccount
	refParent
	refItself
)

func refStrength(p any, r *Request) int {
	who := &r.Principal
	stranger := who.Service != "" || who.Federated != ""
	if p == "*" {
		if stranger && r.Trust {
			return refNot
		}
		return refItself
	}
	best := refNot
	for kind, values := range p.(map[string][]string) {
		for _, v := range values {
			switch {
			case kind == "AWS" && v == "*":
				best = max(best, refStrength("*", r))
			case kind == "Service" && v == who.Service, kind == "Federated" && v == who.Federated:
				best = refItself
			case kind != "AWS" || stranger:
			case v == who.Account, v == "arn:aws:iam::"+who.Account+":root":
				best = max(best, refAccount)
			case v == who.ARN:
				best = refItself
			case v == who.Parent, v == who.ID:
				best = max(best, refParent)
				if who.Parent == "" {
					best = refItself
				}
			}
		}
	}
	return best
}

// refMatch says whether a statement is about the request, and how strongly it
// names the principal.
func refMatch(d *refDocument, st refStatement, r *Request, principal bool) (bool, int) {
	if st.Action != nil && !refAction(st.Action, r.Action) || st.NotAction != nil && refAction(st.NotAction, r.Action) {
		return false, 0
	}
	if st.Resource != nil && !refResource(d, st.Resource, r) || st.NotResource != nil && refResource(d, st.NotResource, r) {
		return false, 0
	}
	for op, m := range st.Condition {
		for k, v := range m {
			if !refCondition(d, op, k, v, r.Keys) {
				return false, 0
			}
		}
	}
	if !principal {
		return true, refItself
	}
	if st.NotPrincipal != nil {
		if refStrength(st.NotPrincipal, r) > refNot {
			return false, 0
		}
		return true, refItself
	}
	n := refStrength(st.Principal, r)
	return n > refNot, n
}

// refEvaluate follows AWS's flow chart, one question after the other.
func refEvaluate(r *Request, identity []refDocument, resource, boundary *refDocument, session []refDocument) bool {
	stranger := r.Principal.Service != "" || r.Principal.Federated != ""
	says := func(docs []refDocument, effect string, principal bool) int {
		best := refNot
		for i := range docs {
			for _, st := range docs[i].Statement {
				if ok, n := refMatch(&docs[i], st, r, principal); ok && st.Effect == effect {
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
	byResource := says(one(resource), "Allow", true)
	if says(one(resource), "Deny", true) > refNot {
		return false
	}
	if stranger {
		return byResource > refNot
	}
	for _, docs := range [][]refDocument{identity, one(boundary), session} {
		if says(docs, "Deny", false) > refNot {
			return false
		}
	}
	cross := r.ResourceAccount != "" && r.ResourceAccount != r.Principal.Account
	if (cross || r.Trust) && byResource == refNot {
		return false
	}
	if byResource == refItself && !cross {
		return true
	}
	identityNeeded := !r.Principal.Root && (cross || byResource != refParent)
	if identityNeeded && says(identity, "Allow", false) == refNot {
		return false
	}
	if boundary != nil && says(one(boundary), "Allow", false) == refNot {
		return false
	}
	return session == nil || says(session, "Allow", false) > refNot
}

// refKeys are condition keys with values that suit their operators, and some that do not.
var refKeys = map[string][]string{
	"k1":           {"a", "A", "bcd", "b*", "x", "${y}", "c", ""},
	"k2":           {"a", "anon/x", "b$", "true", "5"},
	"aws:username": {"a", "bob", "*", "arn"},
	"number":       {"1", "5", "10.5", "-3", "1e2", "five"},
	"date":         {"2026-11-22T00:00:00Z", "2026-11-22T01:00:00+01:00", "1763769600", "2027-01-01", "never"},
	"bool":         {"true", "false", "TRUE", "maybe"},
	"bytes":        {"aGk=", "aG8=", "!"},
	"ip":           {"10.1.2.3", "192.168.0.1", "2001:db8::1", "nowhere"},
	"arn":          {"arn:aws:ecs:eu-central-1:000000000001:cluster/c", "arn:aws:ecs:eu-central-1:000000000001:service/c/s:x", "arn", "a"},
}

type refOperators struct {
	names, keys, values []string
}

var refFamilies = []refOperators{
	{[]string{"StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase"},
		[]string{"k1", "k2", "aws:username"}, []string{"a", "A", "b*", "?", "${aws:username}", "${aws:username, 'anon'}/*", "b${$}", "b${*}", "${K2}", "${?}", ""}},
	{[]string{"NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals"},
		[]string{"number", "k1"}, []string{"1", "5.0", "10.5", "-3"}},
	{[]string{"DateEquals", "DateNotEquals", "DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals"},
		[]string{"date", "k1"}, []string{"2026-11-22T00:00:00Z", "1763769600", "2027-01-01"}},
	{[]string{"Bool"}, []string{"bool", "k2"}, []string{"true", "false"}},
	{[]string{"BinaryEquals"}, []string{"bytes", "k1"}, []string{"aGk=", "aG8="}},
	{[]string{"IpAddress", "NotIpAddress"}, []string{"ip", "k1"}, []string{"10.0.0.0/8", "192.168.0.1", "2001:db8::/32", "0.0.0.0/0"}},
	{[]string{"ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"}, []string{"arn", "k1"},
		[]string{"*", "arn:aws:ecs:*:*:cluster/*", "arn:aws:ecs:eu-central-1:000000000001:*", "${aws:username}:aws:ecs:*:*:service/?/s:*"}},
	{[]string{"Null"}, []string{"k1", "number", "arn"}, []string{"true", "false"}},
}

var (
	refUser = "arn:aws:iam::000000000001:user/u"
	refIDP  = "arn:aws:iam::000000000001:oidc-provider/idp.example.com"
)

// refPrincipals are all kinds of callers.
var refPrincipals = []Principal{
	{Account: "000000000001", ARN: refUser, ID: "AIDAAAAAAAAAAAAAAAAAA"},
	{Account: "000000000001", ARN: "arn:aws:sts::000000000001:assumed-role/r/s", Parent: "arn:aws:iam::000000000001:role/r", ID: "AROAAAAAAAAAAAAAAAAAA"},
	{Account: "000000000001", ARN: "arn:aws:sts::000000000001:federated-user/f", Parent: refUser, ID: "AIDAAAAAAAAAAAAAAAAAA"},
	{Account: "000000000001", ARN: "arn:aws:iam::000000000001:root", ID: "000000000001", Root: true},
	{Account: "000000000001", ARN: "arn:aws:sts::000000000001:federated-user/f", Parent: "arn:aws:iam::000000000001:root", ID: "000000000001", Root: true},
	{Service: "ecs-tasks.amazonaws.com"},
	{Federated: refIDP},
}

func genStatement(kind Kind) *rapid.Generator[refStatement] {
	some := func(t *rapid.T, name string, of ...string) []string {
		return rapid.SliceOfN(rapid.SampledFrom(of), 1, 2).Draw(t, name)
	}
	return rapid.Custom(func(t *rapid.T) refStatement {
		st := refStatement{Effect: rapid.SampledFrom([]string{"Allow", "Allow", "Allow", "Deny"}).Draw(t, "effect")}
		actions := some(t, "actions", "*", "ecs:*", "ecs:RunTask", "ECS:run*", "ecs:?topTask", "iam:GetUser", "ecs:*Task", "*:*Task")
		if rapid.IntRange(0, 4).Draw(t, "notaction") == 0 {
			st.NotAction = actions
		} else {
			st.Action = actions
		}
		resources := some(t, "resources", "*", "arn:aws:ecs:*:*:task/*", "arn:aws:ecs:us-east-1:1:task/c/a", "arn:aws:ecs:*:1:cluster/?",
			"arn:aws:ecs:us-east-1:1:task/${aws:username}/*", "arn:aws:ecs:us-east-1:1:task/${aws:username, 'c'}/a")
		switch rapid.IntRange(0, 4).Draw(t, "notresource") {
		case 0:
			st.NotResource = resources
		case 1:
			if kind == Identity {
				st.Resource = resources
			}
		default:
			st.Resource = resources
		}
		if kind == Resource {
			p := any("*")
			if rapid.IntRange(0, 3).Draw(t, "named") > 0 {
				p = map[string][]string{rapid.SampledFrom([]string{"AWS", "AWS", "AWS", "Service", "Federated"}).Draw(t, "kind"): nil}
				for k := range p.(map[string][]string) {
					p.(map[string][]string)[k] = some(t, "principals", map[string][]string{
						"AWS": {"000000000001", "arn:aws:iam::000000000001:root", "arn:aws:iam::000000000001:role/r", "arn:aws:sts::000000000001:assumed-role/r/s",
							"arn:aws:sts::000000000001:federated-user/f", refUser, "000000000002", "AIDAAAAAAAAAAAAAAAAAA", "AROAAAAAAAAAAAAAAAAAA", "*"},
						"Service":   {"ecs-tasks.amazonaws.com", "ec2.amazonaws.com"},
						"Federated": {refIDP, "accounts.google.com"},
					}[k]...)
				}
			}
			if st.Effect == "Deny" && rapid.Bool().Draw(t, "not") {
				st.NotPrincipal = p
			} else {
				st.Principal = p
			}
		}
		for range rapid.IntRange(0, 2).Draw(t, "conditions") {
			family := rapid.SampledFrom(refFamilies).Draw(t, "family")
			op := rapid.SampledFrom(family.names).Draw(t, "op")
			if op != "Null" {
				op = rapid.SampledFrom([]string{"", "", "ForAllValues:", "ForAnyValue:"}).Draw(t, "quantifier") + op +
					rapid.SampledFrom([]string{"", "", "IfExists"}).Draw(t, "suffix")
			}
			if st.Condition == nil {
				st.Condition = map[string]map[string][]string{}
			}
			st.Condition[op] = map[string][]string{rapid.SampledFrom(family.keys).Draw(t, "key"): some(t, "values", family.values...)}
		}
		return st
	})
}

func genDocument(t *rapid.T, name string, kind Kind) refDocument {
	version := "2012-10-17"
	if kind == Resource {
		version = rapid.SampledFrom([]string{"2012-10-17", "2008-10-17"}).Draw(t, "version")
	}
	return refDocument{version, rapid.SliceOfN(genStatement(kind), 1, 3).Draw(t, name)}
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
	outcomes := map[Decision]int{}
	rapid.Check(t, func(t *rapid.T) {
		r := &Request{
			Principal:       rapid.SampledFrom(refPrincipals).Draw(t, "principal"),
			Action:          rapid.SampledFrom([]string{"ecs:RunTask", "ecs:StopTask", "iam:GetUser"}).Draw(t, "action"),
			Resource:        rapid.SampledFrom([]string{"*", "arn:aws:ecs:us-east-1:1:task/c/a", "arn:aws:ecs:us-east-1:1:cluster/c", "arn:aws:ecs:us-east-1:1:task/a/x"}).Draw(t, "resource"),
			ResourceAccount: rapid.SampledFrom([]string{"", "000000000001", "000000000002"}).Draw(t, "owner"),
			Trust:           rapid.IntRange(0, 4).Draw(t, "trust") == 0,
			Keys:            map[string][]string{},
		}
		for k, of := range refKeys {
			if v := rapid.SliceOfN(rapid.SampledFrom(of), 0, 2).Draw(t, k); len(v) > 0 {
				r.Keys[k] = v
			}
		}
		var identity, session []refDocument
		var resource, boundary *refDocument
		for range rapid.IntRange(0, 2).Draw(t, "identities") {
			identity = append(identity, genDocument(t, "identity", Identity))
		}
		if rapid.Bool().Draw(t, "hasResource") {
			resource = new(genDocument(t, "resourcePolicy", Resource))
		}
		if rapid.IntRange(0, 3).Draw(t, "hasBoundary") == 0 {
			boundary = new(genDocument(t, "boundary", Identity))
		}
		switch rapid.IntRange(0, 4).Draw(t, "hasSession") {
		case 0:
			session = []refDocument{genDocument(t, "session", Identity)}
		case 1: // of a federated user without policies
			session, r.Session = []refDocument{}, []*Document{}
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
		if got.Allowed == (got.Source != None) || got.Allowed && got.Explicit {
			t.Fatalf("a decision must blame a source exactly if it denies: %+v", got)
		}
		x := Explain(r)
		if x.Decision != got {
			t.Fatalf("explained as %+v, decided %+v", x.Decision, got)
		}
		if deny := slices.ContainsFunc(x.Matched, func(m Match) bool { return m.Deny }); deny != got.Explicit {
			t.Fatalf("%+v with the statements %+v", got, x.Matched)
		}
		for _, k := range x.Missing {
			if len(r.Keys[strings.ToLower(k)]) > 0 {
				t.Fatalf("%s is not missing", k)
			}
		}
		outcomes[got]++
	})
	if outcomes[Decision{Allowed: true}] == 0 || len(outcomes) < 6 {
		t.Errorf("the generator is one-sided: %v", outcomes)
	}
}

func TestGlobAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*?é:/")), 0, 10, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.SampledFrom([]rune("abé:/")), 0, 12, -1).Draw(t, "s")
		p := compile(pattern, false)
		re := strings.ReplaceAll(strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`), `\?`, `.`)
		if got, want := p.matches(&Request{}, s), regexp.MustCompile(`(?s)\A`+re+`\z`).MatchString(s); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, s, got, want)
		}
	})
}
