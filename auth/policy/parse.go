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

var (
	errSyntax error = &MalformedError{"Syntax errors in policy."}
	errLegacy error = &MalformedError{"The policy failed legacy parsing"}
	errJSON   error = &MalformedError{"This policy contains invalid Json"}
)

// A Document is a parsed, compiled policy. It is immutable.
type Document struct {
	text       string
	variables  bool // Version 2012-10-17
	statements []statement
	keys       []string // condition keys as they are written, each once
}

// Statements is how many statements the document has.
func (d *Document) Statements() int { return len(d.statements) }

// Keys are the condition keys that the document asks for, in conditions and in
// variables, as they are written there.
func (d *Document) Keys() []string { return slices.Clone(d.keys) }

// A Position is a place in the text of a document. Both count from 1.
type Position struct{ Line, Column int }

type statement struct {
	element
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
		if kind == Trust {
			return nil, errJSON
		}
		return nil, errSyntax
	}
	doc := &Document{text: text}
	var statements []element
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
			statements = elementsOf(m)
		default:
			return nil, errSyntax
		}
	}
	if len(statements) == 0 {
		return nil, errSyntax
	}
	p := parser{kind: kind, doc: doc, sids: map[string]bool{}, keys: map[string]bool{}}
	// AWS looks at the whole document for one kind of mistake, then for the
	// next: which of several it names depends on that order.
	members := make([]map[string]json.RawMessage, len(statements))
	for i, st := range statements {
		if members[i], err = p.fields(st.value); err != nil {
			return nil, err
		}
	}
	if kind == Identity && (!versioned || !doc.variables) {
		return nil, malformed("Policy document must be version 2012-10-17 or greater.")
	}
	for _, have := range members {
		if err := p.elements(have); err != nil {
			return nil, err
		}
	}
	doc.statements = make([]statement, len(statements))
	for _, pass := range []func(*statement, map[string]json.RawMessage) error{p.effect, p.conditions, p.sid, p.principals, p.actionsExist, p.resources, p.actions} {
		for i := range doc.statements {
			doc.statements[i].element = statements[i]
			if err := pass(&doc.statements[i], members[i]); err != nil {
				return nil, err
			}
		}
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
	kind Kind
	doc  *Document
	sids map[string]bool
	keys map[string]bool // of doc.keys, lower case
}

var statementFields = []string{"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}

// fields takes a statement apart.
func (p *parser) fields(raw json.RawMessage) (map[string]json.RawMessage, error) {
	members, err := decodeObject(raw)
	if err != nil {
		return nil, errSyntax
	}
	have := make(map[string]json.RawMessage, len(members))
	for _, m := range members {
		if !slices.Contains(statementFields, m.name) {
			if p.kind == Trust {
				return nil, malformed("Unknown field %s", m.name)
			}
			return nil, errSyntax
		}
		have[m.name] = m.value
	}
	for _, pair := range [][2]string{{"Principal", "NotPrincipal"}, {"Action", "NotAction"}, {"Resource", "NotResource"}} {
		if have[pair[0]] != nil && have[pair[1]] != nil {
			return nil, errSyntax
		}
	}
	if effect, ok := stringOf(have["Effect"]); !ok || !strings.EqualFold(effect, "Allow") && !strings.EqualFold(effect, "Deny") {
		if p.kind == Trust && have["Effect"] == nil {
			return nil, malformed("Missing required field Effect")
		}
		return nil, errSyntax
	}
	return have, nil
}

// elements looks for what a document of this kind must and must not have.
func (p *parser) elements(have map[string]json.RawMessage) error {
	principal := have["Principal"] != nil || have["NotPrincipal"] != nil
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
		if have["Resource"] != nil || have["NotResource"] != nil {
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

func (p *parser) effect(st *statement, have map[string]json.RawMessage) error {
	switch effect, _ := stringOf(have["Effect"]); effect {
	case "Allow":
	case "Deny":
		st.deny = true
	default: // in another case
		return errLegacy
	}
	return nil
}

func (p *parser) sid(_ *statement, have map[string]json.RawMessage) error {
	raw := have["Sid"]
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
		if p.kind == Trust {
			return malformed(`AssumeRolepolicy contained an invalid principal: "STAR".`)
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
		case "Federated":
			for _, v := range values {
				if !validFederated(v) {
					return malformed(`Invalid principal in policy: "FEDERATED":"%s"`, v)
				}
				st.principals = append(st.principals, principal{"Federated", v})
			}
		case "CanonicalUser":
			// The ids of S3's access lists: there are none here, nor in AWS's other services.
			return malformed(`Invalid principal in policy: "CANONICALUSER":"%s"`, strings.Join(values, ","))
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

// federations are the providers of identities that AWS knows without an ARN.
var federations = []string{"accounts.google.com", "cognito-identity.amazonaws.com", "graph.facebook.com", "www.amazon.com"}

func validFederated(v string) bool {
	part := strings.SplitN(v, ":", 6)
	if len(part) != 6 {
		return slices.Contains(federations, v)
	}
	return part[0] == "arn" && part[2] == "iam" && part[3] == "" && isAccount(part[4]) && !strings.ContainsAny(v, "*?") &&
		(hasName(part[5], "saml-provider/") || hasName(part[5], "oidc-provider/"))
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

func (p *parser) actionsExist(st *statement, have map[string]json.RawMessage) error {
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
	return nil
}

func (p *parser) actions(st *statement, have map[string]json.RawMessage) error {
	raw := have["Action"]
	if raw == nil {
		raw = have["NotAction"]
	}
	values, _ := stringsOf(raw) // actionsExist has seen them
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
		st.resources = append(st.resources, p.keyed(compile(v, p.doc.variables)))
	}
	return nil
}

// keyed notes the variables of a pattern as keys of the document.
func (p *parser) keyed(x pattern) pattern {
	for _, v := range x.parts {
		p.key(v.name)
	}
	return x
}

func (p *parser) key(name string) {
	if low := strings.ToLower(name); name != "" && !p.keys[low] {
		p.keys[low] = true
		p.doc.keys = append(p.doc.keys, name)
	}
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
	if len(part) < 6 && !strings.HasSuffix(v, "*") || part[2] == "" {
		return errLegacy
	}
	if len(part) == 6 && part[2] == "iam" {
		if part[3] != "" && part[3] != "*" {
			return malformed("IAM resource %s cannot contain region information.", v)
		}
		if !strings.ContainsAny(part[5][:min(1, len(part[5]))], "*?$") && part[5] != "root" && !strings.HasPrefix(part[5], delegationPath) && !slices.ContainsFunc(iamPaths, func(p string) bool {
			return strings.HasPrefix(part[5], p)
		}) {
			return malformed(`IAM resource path must either be "*" or start with %s.`, strings.Join(iamPaths, ", "))
		}
	}
	return nil
}

// iamPaths are the kinds of resources that IAM has, as its message lists them.
var iamPaths = []string{"user/", "federated-user/", "role/", "group/", "instance-profile/", "mfa/", "server-certificate/", "policy/",
	"sms-mfa/", "saml-provider/", "oidc-provider/", "report/", "access-report/"}

// delegationPath is a kind that came after the message did.
const delegationPath = "delegation-request/"

func (p *parser) conditions(st *statement, have map[string]json.RawMessage) error {
	raw, ok := have["Condition"]
	if !ok {
		return nil
	}
	operators, err := decodeObject(raw)
	if err != nil {
		return errSyntax
	}
	for _, o := range operators {
		op, ok := parseOperator(o.name)
		if !ok {
			return errSyntax
		}
		keys, err := decodeObject(o.value)
		if err != nil {
			return errSyntax
		}
		for _, k := range keys {
			values, ok := scalarsOf(k.value)
			if k.name == "" || !ok {
				return errSyntax
			}
			c, err := newCondition(op, k.name, values, p.doc.variables)
			if err != nil {
				return err
			}
			p.key(k.name)
			for _, v := range c.values {
				p.keyed(v.text)
			}
			st.conditions = append(st.conditions, c)
		}
	}
	return nil
}

// A nameValue is one member of a JSON object, in order.
type nameValue struct {
	name  string
	value json.RawMessage
	end   int // of the value, in the text that was decoded
}

var errObject = errors.New("not a JSON object")

// decodeObject reads one JSON object. A name that comes twice is refused:
// which of the two counts must not depend on the reader.
func decodeObject(data []byte) ([]nameValue, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errObject
	}
	var out []nameValue
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok || seen[name] {
			return nil, errObject
		}
		seen[name] = true
		var v json.RawMessage
		if d.Decode(&v) != nil {
			return nil, errObject
		}
		out = append(out, nameValue{name, v, int(d.InputOffset())})
	}
	if t, err := d.Token(); err != nil || t != json.Delim('}') {
		return nil, errObject
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errObject
	}
	return out, nil
}

// An element is a statement with its place in the document: from where the
// reader stood when it came to it, as AWS tells it, to behind its last character.
type element struct {
	value      json.RawMessage
	start, end int
}

// elementsOf are the statements of the Statement element, nil if it is broken.
func elementsOf(m nameValue) []element {
	at := m.end - len(m.value)
	if !isArray(m.value) {
		return []element{{m.value, at + 1, m.end}}
	}
	d := json.NewDecoder(bytes.NewReader(m.value))
	if _, err := d.Token(); err != nil {
		return nil
	}
	var out []element
	start := int(d.InputOffset()) // More looks ahead
	for d.More() {
		var v json.RawMessage
		if d.Decode(&v) != nil {
			return nil
		}
		end := int(d.InputOffset())
		out = append(out, element{v, at + start, at + end})
		start = end
	}
	return out
}

// A Statement is a statement as it stands in its document.
type Statement struct {
	Sid        string
	Deny       bool
	Start, End Position
	Actions    []string // those of NotAction, if that is what it has
	Resources  []string
	Conditions []Condition
}

// A Condition is one condition of a Statement.
type Condition struct {
	Operator, Key string
	Values        []string
}

// Statement describes the i-th statement.
func (d *Document) Statement(i int) Statement {
	st := &d.statements[i]
	out := Statement{Deny: st.deny, Start: d.position(st.start), End: d.position(st.end)}
	members, err := decodeObject(st.value)
	if err != nil {
		return out // parsed once already
	}
	for _, m := range members {
		switch m.name {
		case "Sid":
			out.Sid, _ = stringOf(m.value)
		case "Action", "NotAction":
			out.Actions, _ = stringsOf(m.value)
		case "Resource", "NotResource":
			out.Resources, _ = stringsOf(m.value)
		case "Condition":
			operators, _ := decodeObject(m.value)
			for _, o := range operators {
				keys, _ := decodeObject(o.value)
				for _, k := range keys {
					values, _ := scalarsOf(k.value)
					out.Conditions = append(out.Conditions, Condition{o.name, k.name, values})
				}
			}
		}
	}
	return out
}

func (d *Document) position(at int) Position {
	before := d.text[:at]
	line := before[strings.LastIndexByte(before, '\n')+1:]
	return Position{Line: 1 + strings.Count(before, "\n"), Column: 1 + utf8.RuneCountInString(line)}
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
