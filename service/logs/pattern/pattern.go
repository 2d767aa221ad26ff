// Package pattern is the filter-pattern language of CloudWatch Logs: terms,
// space-delimited fields, conditions on JSON, and regular expressions in each.
//
// A pattern is compiled once and matched against messages. The package is pure:
// it must never know where messages come from or what a match is for.
package pattern

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/berth-run/berth/service/logs/document"
)

// Limits of a pattern (AWS: filter pattern syntax).
const (
	maxRegexps   = 2
	maxWildcards = 3
	maxDepth     = 100
)

// A Pattern selects messages. Its methods may be called at once.
type Pattern struct {
	regexps int

	// Of the three forms one is set; none selects everything.
	terms  *terms
	fields []field
	rest   int // fields: index of the ellipsis, -1 for none
	json   node
	paths  []*selector // of json, in the order they are written
}

// Error says what is wrong with a pattern, in the words of the API.
type Error string

func (e Error) Error() string { return string(e) }

func bad(format string, args ...any) error { return Error(fmt.Sprintf(format, args...)) }

var errPattern = Error("Invalid filter pattern")

// Compile reads a pattern. An empty one selects everything.
func Compile(text string) (*Pattern, error) {
	p := &Pattern{rest: -1}
	r := &reader{p: p, s: strings.TrimSpace(text)}
	var err error
	switch {
	case r.s == "":
	case r.s[0] == '{':
		err = r.object()
	case r.s[0] == '[':
		err = r.list()
	default:
		err = r.words()
	}
	if err != nil {
		return nil, err
	}
	if p.regexps > maxRegexps {
		return nil, bad("Invalid filter pattern: a pattern can have at most %d regular expressions", maxRegexps)
	}
	return p, nil
}

// Regexps is how many regular expressions the pattern has.
func (p *Pattern) Regexps() int { return p.regexps }

// Everything reports whether the pattern selects every message.
func (p *Pattern) Everything() bool { return p.terms == nil && p.fields == nil && p.json == nil }

// Match reports whether the pattern selects the message.
func (p *Pattern) Match(m []byte) bool {
	switch {
	case p.terms != nil:
		return p.terms.match(m)
	case p.fields != nil:
		_, ok := p.split(m)
		return ok
	case p.json != nil:
		if !document.Begins(m) {
			return false
		}
		if n := p.needle(); n != nil && !bytes.Contains(m, n) && bytes.IndexByte(m, '\\') < 0 {
			return false
		}
		r := readers.Get().(*document.Reader)
		defer readers.Put(r)
		v, ok := r.Parse(m)
		return ok && p.json.eval(&v)
	}
	return true
}

var readers = sync.Pool{New: func() any { return new(document.Reader) }}

// Needle is text that every selected message contains, or nil. With escaped
// set, a message with a backslash may have it in a form of its own.
func (p *Pattern) Needle() (text []byte, escaped bool) { return p.needle(), p.json != nil }

func (p *Pattern) needle() []byte {
	switch {
	case p.terms != nil:
		return p.terms.needle
	case p.fields != nil:
		var best []byte
		for i := range p.fields {
			if c := p.fields[i].cond; c != nil {
				if n := c.needle(); len(n) > len(best) {
					best = n
				}
			}
		}
		return best
	case p.json != nil:
		return p.json.needle()
	}
	return nil
}

// Extract is what the pattern's names stand for in a message that it selects:
// $name of fields, the selectors of JSON. It is empty for other patterns.
func (p *Pattern) Extract(m []byte) map[string]string {
	out := map[string]string{}
	switch {
	case p.fields != nil:
		parts, ok := p.split(m)
		if !ok {
			return out
		}
		for i, part := range parts {
			out["$"+p.nameOf(i, len(parts))] = string(part)
		}
	case p.json != nil:
		v, ok := document.Parse(m)
		if !ok {
			return out
		}
		for _, s := range p.paths {
			if text, ok := s.text(&v); ok {
				out[s.source] = text
			}
		}
	}
	return out
}

// Value is what a metric filter's value or dimension, such as $.latency or
// $bytes, stands for in a message that the pattern selects.
func (p *Pattern) Value(m []byte, ref string) (string, bool) {
	if p.json != nil {
		r := &reader{p: &Pattern{}, s: ref}
		s, err := r.selector()
		if err != nil || r.i != len(r.s) {
			return "", false
		}
		v, ok := document.Parse(m)
		if !ok {
			return "", false
		}
		return s.text(&v)
	}
	v, ok := p.Extract(m)[ref]
	return v, ok
}

// Named reports whether ref, a metric filter's value or dimension, is something
// that the pattern can have.
func (p *Pattern) Named(ref string) bool {
	switch {
	case p.json != nil:
		r := &reader{p: &Pattern{}, s: ref}
		_, err := r.selector()
		return err == nil && r.i == len(r.s)
	case p.fields != nil:
		for _, f := range p.fields {
			if f.name != "" && "$"+f.name == ref {
				return true
			}
		}
		n, err := strconv.Atoi(strings.TrimPrefix(ref, "$"))
		return err == nil && n > 0 && p.rest >= 0
	}
	return false
}

// Terms.

type term struct {
	text []byte
	re   *regexp.Regexp
}

func (t term) in(m []byte) bool {
	if t.re != nil {
		return t.re.Match(m)
	}
	return bytes.Contains(m, t.text)
}

type terms struct {
	all, any, none []term
	needle         []byte
}

func (t *terms) match(m []byte) bool {
	for _, x := range t.all {
		if !x.in(m) {
			return false
		}
	}
	for _, x := range t.none {
		if x.in(m) {
			return false
		}
	}
	if len(t.any) == 0 {
		return true
	}
	for _, x := range t.any {
		if x.in(m) {
			return true
		}
	}
	return false
}

// Fields.

type field struct {
	name string
	cond *condition // nil: any value
}

// condition is a tree of tests of one text.
type condition struct {
	op          string // "&&", "||", or a comparison
	left, right *condition
	value       literal
}

func (c *condition) match(text []byte) bool {
	switch c.op {
	case "&&":
		return c.left.match(text) && c.right.match(text)
	case "||":
		return c.left.match(text) || c.right.match(text)
	}
	return c.value.compare(c.op, text, false)
}

func (c *condition) needle() []byte {
	switch c.op {
	case "&&":
		return longer(c.left.needle(), c.right.needle())
	case "=":
		return c.value.needle()
	}
	return nil
}

func longer(a, b []byte) []byte {
	if len(b) > len(a) {
		return b
	}
	return a
}

// split cuts a message into fields and reports whether the pattern selects it.
// Brackets and quotes at both ends of a field hold it together, and are left out.
func (p *Pattern) split(m []byte) ([][]byte, bool) {
	var parts [][]byte
	for {
		m = bytes.TrimLeft(m, " ")
		if len(m) == 0 {
			break
		}
		var part []byte
		part, m = cut(m)
		parts = append(parts, part)
	}
	named := len(p.fields)
	switch {
	case p.rest >= 0:
		if len(parts) < named {
			return nil, false
		}
	case len(parts) < named, len(parts) > named && p.fields[named-1].cond != nil:
		// Only a last field without a condition stands for whatever else there is.
		return nil, false
	}
	for i := range parts {
		if f := p.fieldAt(i, len(parts)); f != nil && f.cond != nil && !f.cond.match(parts[i]) {
			return nil, false
		}
	}
	return parts, true
}

func cut(m []byte) (part, rest []byte) {
	end := byte(0)
	switch m[0] {
	case '[':
		end = ']'
	case '"':
		end = '"'
	}
	if end != 0 {
		for i := 1; i < len(m); i++ {
			if m[i] == end && (i+1 == len(m) || m[i+1] == ' ') {
				return m[1:i], m[i+1:]
			}
		}
	}
	if i := bytes.IndexByte(m, ' '); i >= 0 {
		return m[:i], m[i:]
	}
	return m, nil
}

// fieldAt is the field that part i of n belongs to, or nil.
func (p *Pattern) fieldAt(i, n int) *field {
	switch {
	case p.rest < 0 && i < len(p.fields), p.rest >= 0 && i < p.rest:
		return &p.fields[i]
	case p.rest >= 0 && i >= n-(len(p.fields)-p.rest):
		return &p.fields[len(p.fields)-(n-i)]
	}
	return nil
}

func (p *Pattern) nameOf(i, n int) string {
	if f := p.fieldAt(i, n); f != nil && f.name != "" {
		return f.name
	}
	return strconv.Itoa(i + 1)
}

// JSON.

type node interface {
	eval(*document.Value) bool
	needle() []byte
}

type and struct{ left, right node }
type or struct{ left, right node }

func (n and) eval(v *document.Value) bool { return n.left.eval(v) && n.right.eval(v) }
func (n or) eval(v *document.Value) bool  { return n.left.eval(v) || n.right.eval(v) }
func (n and) needle() []byte              { return longer(n.left.needle(), n.right.needle()) }
func (n or) needle() []byte               { return nil }

// test compares what a selector points to. An absent value passes no test.
type test struct {
	sel   *selector
	op    string
	value literal
}

func (t test) eval(v *document.Value) bool {
	found := false
	t.sel.each(v, func(v *document.Value) bool {
		switch v.Kind {
		case document.String:
			found = t.value.compare(t.op, v.Text, true)
		case document.Number:
			found = t.value.compare(t.op, v.Text, false)
		case document.True, document.False:
			found = (t.op == "=" || t.op == "!=") && t.value.compare(t.op, v.Text, true)
		}
		return !found
	})
	return found
}

func (t test) needle() []byte {
	if t.op != "=" {
		return nil
	}
	return t.value.needle()
}

// is tests for NULL, TRUE and FALSE, and for not being there at all.
type is struct {
	sel    *selector
	kind   document.Kind
	absent bool
}

func (t is) eval(v *document.Value) bool {
	found := false
	t.sel.each(v, func(v *document.Value) bool {
		found = t.absent || v.Kind == t.kind
		return !found
	})
	return found != t.absent
}

func (is) needle() []byte { return nil }

type step struct {
	name  string
	index int
	kind  stepKind
}

type stepKind uint8

const (
	member stepKind = iota
	element
	wildMember
	wildElement
)

type selector struct {
	source string
	steps  []step
}

// each visits what the selector points to until visit returns false.
func (s *selector) each(v *document.Value, visit func(*document.Value) bool) {
	walk(s.steps, v, visit)
}

func walk(steps []step, v *document.Value, visit func(*document.Value) bool) bool {
	for i, st := range steps {
		switch st.kind {
		case member:
			v = v.Get(st.name)
		case element:
			v = v.At(st.index)
		default:
			if (st.kind == wildMember) != (v.Kind == document.Object) || v.Scalar() {
				return true
			}
			for j := range v.Items {
				if !walk(steps[i+1:], &v.Items[j], visit) {
					return false
				}
			}
			return true
		}
		if v == nil {
			return true
		}
	}
	return visit(v)
}

// text is the first scalar that the selector points to.
func (s *selector) text(v *document.Value) (text string, ok bool) {
	s.each(v, func(v *document.Value) bool {
		if v.Scalar() && v.Kind != document.Null {
			text, ok = string(v.Text), true
		}
		return !ok
	})
	return text, ok
}

// literal is what something is compared with.
type literal struct {
	text   string
	parts  [][]byte // the text between its wildcards; one if it has none
	quoted bool
	re     *regexp.Regexp
	num    float64
	isNum  bool
}

func (l *literal) needle() []byte {
	// Numbers have many spellings, and what a regular expression wants is not looked for.
	if l.re != nil || l.isNum {
		return nil
	}
	var best []byte
	for _, p := range l.parts {
		best = longer(best, p)
	}
	if bytes.ContainsFunc(best, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' || r == utf8.RuneError }) {
		return nil
	}
	return best
}

func (l *literal) compare(op string, text []byte, isText bool) bool {
	if l.re != nil {
		return l.re.Match(text) == (op == "=")
	}
	switch op {
	case "=":
		return l.equal(text, isText)
	case "!=":
		return !l.equal(text, isText)
	}
	if isText {
		return false
	}
	n, ok := number(string(text))
	if !ok {
		return false
	}
	switch op {
	case "<":
		return n < l.num
	case "<=":
		return n <= l.num
	case ">":
		return n > l.num
	}
	return n >= l.num
}

func (l *literal) equal(text []byte, isText bool) bool {
	if l.wild(text) {
		return true
	}
	if !l.isNum || isText {
		return false
	}
	n, ok := number(string(text))
	return ok && n == l.num
}

func (l *literal) wild(text []byte) bool {
	if len(l.parts) == 1 {
		return string(text) == l.text
	}
	first, last := l.parts[0], l.parts[len(l.parts)-1]
	if !bytes.HasPrefix(text, first) {
		return false
	}
	text = text[len(first):]
	for _, p := range l.parts[1 : len(l.parts)-1] {
		i := bytes.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return bytes.HasSuffix(text, last)
}

// number reads what AWS takes for one: digits, with a fraction and an exponent.
func number(s string) (float64, bool) {
	if strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && !strings.ContainsRune("+-.eE", r) }) {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

func newLiteral(text string, quoted bool) literal {
	l := literal{text: text, quoted: quoted}
	for p := range strings.SplitSeq(text, "*") {
		l.parts = append(l.parts, []byte(p))
	}
	if !quoted {
		l.num, l.isNum = number(text)
	}
	return l
}
