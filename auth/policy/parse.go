package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Kind says where a document is used, which decides what it must and must not contain.
type Kind int

// The kinds of documents.
const (
	Identity Kind = iota // attached to a user, group or role, a boundary, a session
	Resource             // attached to a resource, such as an image repository
	Trust                // who may assume a role
)

// MalformedError says, in AWS's words, why a document is refused.
type MalformedError struct{ Message string }

func (e *MalformedError) Error() string { return e.Message }

func malformed(format string, args ...any) error {
	return &MalformedError{fmt.Sprintf(format, args...)}
}

var errSyntax error = &MalformedError{"Syntax errors in policy."}

// A Document is a parsed, compiled policy. It is immutable.
type Document struct {
	variables  bool // Version 2012-10-17
	statements []statement
}

type statement struct {
	deny         bool
	principals   []principal
	hasPrincipal bool
	notPrincipal bool
	actions      []pattern // lower case
	notAction    bool
	resources    []pattern
	hasResource  bool
	notResource  bool
	conditions   []condition
}

type principal struct {
	kind  string // AWS, Service, Federated, CanonicalUser; "*" is everyone
	value string
}

// maxDocument bounds any document, whatever its kind: the parser's own limit.
const maxDocument = 1 << 17

// Parse reads a document of the given kind.
func Parse(text string, kind Kind) (*Document, error) {
	if len(text) > maxDocument || !utf8.ValidString(text) {
		return nil, errSyntax
	}
	for i := range len(text) {
		// Control characters are no part of a policy; compiled patterns rely on it.
		if c := text[i]; c < ' ' && c != '\t' && c != '\n' && c != '\r' {
			return nil, errSyntax
		}
	}
	top, err := decodeObject([]byte(text))
	if err != nil {
		return nil, malformed("This policy contains invalid Json")
	}
	doc := &Document{}
	var statements []json.RawMessage
	seenStatement := false
	versioned := false
	for _, m := range top {
		switch m.name {
		case "Version":
			v, ok := stringOf(m.value)
			if !ok || v != "2012-10-17" && v != "2008-10-17" {
				return nil, errSyntax
			}
			versioned = true
			doc.variables = v == "2012-10-17"
		case "Id":
			if _, ok := stringOf(m.value); !ok {
				return nil, errSyntax
			}
		case "Statement":
			seenStatement = true
			if isArray(m.value) {
				if json.Unmarshal(m.value, &statements) != nil {
					return nil, errSyntax
				}
			} else {
				statements = []json.RawMessage{m.value}
			}
		default:
			return nil, errSyntax
		}
	}
	if !seenStatement || len(statements) == 0 {
		return nil, errSyntax
	}
	if kind == Identity && (!versioned || !doc.variables) {
		return nil, malformed("Policy document must be version 2012-10-17 or greater.")
	}
	p := parser{kind: kind, variables: doc.variables, sids: map[string]bool{}}
	for _, raw := range statements {
		st, err := p.statement(raw)
		if err != nil {
			return nil, err
		}
		doc.statements = append(doc.statements, st)
	}
	return doc, nil
}

// Length is the number of characters that count against IAM's size limits:
// white space does not.
func Length(text string) int {
	n := 0
	for _, r := range text {
		switch r {
		case ' ', '\t', '\n', '\r':
		default:
			n++
		}
	}
	return n
}

type parser struct {
	kind      Kind
	variables bool
	sids      map[string]bool
}

func (p *parser) statement(raw json.RawMessage) (statement, error) {
	var st statement
	members, err := decodeObject(raw)
	if err != nil {
		return st, errSyntax
	}
	have := map[string]json.RawMessage{}
	for _, m := range members {
		have[m.name] = m.value
	}
	if err := p.fields(have); err != nil {
		return st, err
	}
	effect, _ := stringOf(have["Effect"])
	switch effect {
	case "Allow":
	case "Deny":
		st.deny = true
	default:
		return st, errSyntax
	}
	if err := p.sid(have["Sid"]); err != nil {
		return st, err
	}
	if err := p.principals(&st, have); err != nil {
		return st, err
	}
	if err := p.actions(&st, have); err != nil {
		return st, err
	}
	if err := p.resources(&st, have); err != nil {
		return st, err
	}
	if c, ok := have["Condition"]; ok {
		if st.conditions, err = p.conditions(c); err != nil {
			return st, err
		}
	}
	return st, nil
}

var statementFields = []string{"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}

func (p *parser) fields(have map[string]json.RawMessage) error {
	for name := range have {
		if !slices.Contains(statementFields, name) {
			return errSyntax
		}
	}
	for _, pair := range [][2]string{{"Principal", "NotPrincipal"}, {"Action", "NotAction"}, {"Resource", "NotResource"}} {
		if have[pair[0]] != nil && have[pair[1]] != nil {
			return errSyntax
		}
	}
	principal := have["Principal"] != nil || have["NotPrincipal"] != nil
	resource := have["Resource"] != nil || have["NotResource"] != nil
	switch p.kind {
	case Identity:
		if principal {
			return malformed("Policy document should not specify a principal.")
		}
	case Resource:
		if !principal {
			return malformed("Missing required field Principal")
		}
	case Trust:
		if resource {
			return malformed("Has prohibited field Resource")
		}
		if !principal {
			return malformed("Missing required field Principal")
		}
		if have["NotPrincipal"] != nil {
			return malformed("AssumeRolepolicy contained an invalid principal: NotPrincipal.")
		}
	}
	return nil
}

func (p *parser) sid(raw json.RawMessage) error {
	if raw == nil {
		return nil
	}
	sid, ok := stringOf(raw)
	if !ok {
		return errSyntax
	}
	if sid == "" {
		return nil
	}
	if p.kind != Resource {
		for i := range len(sid) {
			if !alphanumeric(sid[i]) {
				return malformed("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*")
			}
		}
	}
	if p.sids[sid] {
		return malformed("Statement IDs (SID) in a single policy must be unique.")
	}
	p.sids[sid] = true
	return nil
}

func (p *parser) principals(st *statement, have map[string]json.RawMessage) error {
	raw := have["Principal"]
	if raw == nil {
		if raw = have["NotPrincipal"]; raw == nil {
			return nil
		}
		st.notPrincipal = true
	}
	st.hasPrincipal = true
	if s, ok := stringOf(raw); ok {
		if s != "*" {
			return malformed("Invalid principal in policy: %q", s)
		}
		st.principals = []principal{{"*", "*"}}
		return nil
	}
	members, err := decodeObject(raw)
	if err != nil || len(members) == 0 {
		return errSyntax
	}
	for _, m := range members {
		values, ok := stringsOf(m.value)
		if !ok {
			return errSyntax
		}
		switch m.name {
		case "AWS":
			for _, v := range values {
				if !validAWSPrincipal(v) {
					return malformed(`Invalid principal in policy: "AWS":"%s"`, v)
				}
				if v == "*" {
					st.principals = append(st.principals, principal{"*", "*"})
					continue
				}
				st.principals = append(st.principals, principal{"AWS", v})
			}
		case "Service":
			for _, v := range values {
				if v == "" || strings.ContainsAny(v, "*?:/ ") || !strings.Contains(v, ".") {
					return malformed(`Invalid principal in policy: "SERVICE":"%s"`, v)
				}
				st.principals = append(st.principals, principal{"Service", v})
			}
		case "Federated", "CanonicalUser":
			for _, v := range values {
				st.principals = append(st.principals, principal{m.name, v})
			}
		default:
			return errSyntax
		}
	}
	if len(st.principals) == 0 {
		return malformed("Missing required field Principal cannot be empty!")
	}
	return nil
}

func validAWSPrincipal(v string) bool {
	if v == "*" || isAccount(v) || isUniqueID(v) {
		return true
	}
	part := strings.SplitN(v, ":", 6)
	if len(part) != 6 || part[0] != "arn" || part[3] != "" || !isAccount(part[4]) || strings.ContainsAny(v, "*?") {
		return false
	}
	switch part[2] {
	case "iam":
		return part[5] == "root" || hasName(part[5], "user/") || hasName(part[5], "role/")
	case "sts":
		return hasName(part[5], "assumed-role/") || hasName(part[5], "federated-user/")
	}
	return false
}

func hasName(s, prefix string) bool { return len(s) > len(prefix) && strings.HasPrefix(s, prefix) }

func isAccount(s string) bool {
	if len(s) != 12 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// isUniqueID tells the id of a deleted user or role, which AWS puts in the
// place of its ARN.
func isUniqueID(s string) bool {
	return len(s) == 21 && (strings.HasPrefix(s, "AIDA") || strings.HasPrefix(s, "AROA"))
}

var trustActions = []string{"sts:assumerole", "sts:assumerolewithsaml", "sts:assumerolewithwebidentity", "sts:tagsession", "sts:setsourceidentity", "sts:setcontext"}

func (p *parser) actions(st *statement, have map[string]json.RawMessage) error {
	raw := have["Action"]
	if raw == nil {
		if raw = have["NotAction"]; raw == nil {
			if p.kind == Trust {
				return malformed("Missing required field Action")
			}
			return malformed("Policy statement must contain actions.")
		}
		st.notAction = true
	}
	values, ok := stringsOf(raw)
	if !ok {
		return errSyntax
	}
	if len(values) == 0 {
		return malformed("Policy statement must contain actions.")
	}
	for _, v := range values {
		low := strings.ToLower(v)
		if p.kind == Trust {
			if st.notAction || !slices.Contains(trustActions, low) {
				return malformed("AssumeRole policy may only specify STS AssumeRole actions.")
			}
		}
		vendor, name, found := strings.Cut(low, ":")
		switch {
		case low == "*":
		case !found:
			return malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
		case strings.Contains(name, ":"):
			return malformed("Actions/Condition can contain only one colon.")
		case vendor != "*" && !validVendor(vendor):
			return malformed("Vendor %s is not valid", v[:len(vendor)])
		case name == "" || strings.ContainsAny(name, " \t\r\n"):
			return errSyntax
		}
		st.actions = append(st.actions, compile(low, false))
	}
	return nil
}

func validVendor(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) && s[i] != '-' && s[i] != '.' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (p *parser) resources(st *statement, have map[string]json.RawMessage) error {
	raw := have["Resource"]
	if raw == nil {
		if raw = have["NotResource"]; raw == nil {
			if p.kind == Identity {
				return malformed("Policy statement must contain resources.")
			}
			return nil // the resource the document is attached to
		}
		st.notResource = true
	}
	st.hasResource = true
	values, ok := stringsOf(raw)
	if !ok {
		return errSyntax
	}
	if len(values) == 0 {
		return malformed("Policy statement must contain resources.")
	}
	for _, v := range values {
		if err := checkResource(v); err != nil {
			return err
		}
		st.resources = append(st.resources, compile(v, p.variables))
	}
	return nil
}

func checkResource(v string) error {
	if v == "*" {
		return nil
	}
	part := strings.SplitN(v, ":", 6)
	if len(part) < 2 || part[0] != "arn" && !strings.ContainsAny(part[0], "*?$") {
		return malformed(`Resource %s must be in ARN format or "*".`, v)
	}
	if len(part) > 1 && part[1] != "aws" && part[1] != "aws-cn" && part[1] != "aws-us-gov" && !strings.ContainsAny(part[1], "*?$") {
		for len(part) < 6 {
			part = append(part, "*")
		}
		return malformed(`Partition "%s" is not valid for resource "arn:%s:%s:%s:%s:%s".`, part[1], part[1], part[2], part[3], part[4], part[5])
	}
	if len(part) < 3 {
		return malformed("Resource vendor must be fully qualified and cannot contain regexes.")
	}
	if len(part) < 6 && !strings.HasSuffix(v, "*") {
		return malformed("The policy failed legacy parsing")
	}
	return nil
}

func (p *parser) conditions(raw json.RawMessage) ([]condition, error) {
	operators, err := decodeObject(raw)
	if err != nil {
		return nil, errSyntax
	}
	var out []condition
	for _, o := range operators {
		op, ok := parseOperator(o.name)
		if !ok {
			return nil, errSyntax
		}
		keys, err := decodeObject(o.value)
		if err != nil {
			return nil, errSyntax
		}
		for _, k := range keys {
			if k.name == "" {
				return nil, errSyntax
			}
			values, ok := scalarsOf(k.value)
			if !ok {
				return nil, errSyntax
			}
			c, err := newCondition(op, k.name, values, p.variables)
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// A nameValue is one member of a JSON object, in order.
type nameValue struct {
	name  string
	value json.RawMessage
}

var errJSON = errors.New("not a JSON object")

// decodeObject reads one JSON object. A name that comes twice is refused:
// which of the two counts must not depend on the reader.
func decodeObject(data []byte) ([]nameValue, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errJSON
	}
	var out []nameValue
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errJSON
		}
		if slices.ContainsFunc(out, func(m nameValue) bool { return m.name == name }) {
			return nil, errJSON
		}
		var v json.RawMessage
		if d.Decode(&v) != nil {
			return nil, errJSON
		}
		out = append(out, nameValue{name, v})
	}
	if t, err := d.Token(); err != nil || t != json.Delim('}') {
		return nil, errJSON
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errJSON
	}
	return out, nil
}

func isArray(raw json.RawMessage) bool {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	return len(raw) > 0 && raw[0] == '['
}

func stringOf(raw json.RawMessage) (string, bool) {
	var s *string
	if len(raw) == 0 || json.Unmarshal(raw, &s) != nil || s == nil || hasControl(*s) {
		return "", false
	}
	return *s, true
}

// hasControl finds what an escape such as \u0000 brings past the check of the raw text.
func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' && s[i] != '\n' && s[i] != '\r' {
			return true
		}
	}
	return false
}

func stringsOf(raw json.RawMessage) ([]string, bool) {
	if !isArray(raw) {
		s, ok := stringOf(raw)
		return []string{s}, ok
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil, false
	}
	out := make([]string, 0, len(list))
	for _, r := range list {
		s, ok := stringOf(r)
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

// scalarsOf reads condition values: strings, numbers and booleans, one or many.
func scalarsOf(raw json.RawMessage) ([]string, bool) {
	list := []json.RawMessage{raw}
	if isArray(raw) {
		list = nil
		if json.Unmarshal(raw, &list) != nil {
			return nil, false
		}
	}
	out := make([]string, 0, len(list))
	for _, r := range list {
		if s, ok := stringOf(r); ok {
			out = append(out, s)
			continue
		}
		t := string(bytes.TrimSpace(r))
		if t == "" || t == "null" || t[0] == '{' || t[0] == '[' || t[0] == '"' {
			return nil, false
		}
		out = append(out, t)
	}
	return out, true
}

// AWSPrincipals are the accounts and ARNs that the document names as principals.
func (d *Document) AWSPrincipals() []string {
	var out []string
	for _, st := range d.statements {
		for _, p := range st.principals {
			if p.kind == "AWS" {
				out = append(out, p.value)
			}
		}
	}
	return out
}
