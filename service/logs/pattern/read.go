package pattern

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berth-run/berth/service/logs/document"
)

// reader reads a pattern.
type reader struct {
	p         *Pattern
	s         string
	i         int
	depth     int
	wildcards int
}

func (r *reader) space() {
	for r.i < len(r.s) && strings.IndexByte(" \t\r\n", r.s[r.i]) >= 0 {
		r.i++
	}
}

func (r *reader) take(s string) bool {
	if strings.HasPrefix(r.s[r.i:], s) {
		r.i += len(s)
		return true
	}
	return false
}

func (r *reader) peek() byte {
	if r.i < len(r.s) {
		return r.s[r.i]
	}
	return 0
}

// quote reads up to the closing quote; a backslash takes the next character as it is.
func (r *reader) quote(q byte) (string, error) {
	var b []byte
	for r.i++; r.i < len(r.s); r.i++ {
		switch c := r.s[r.i]; {
		case c == q:
			r.i++
			return string(b), nil
		case c == '\\' && r.i+1 < len(r.s):
			r.i++
			b = append(b, r.s[r.i])
		default:
			b = append(b, c)
		}
	}
	return "", errPattern
}

// Characters that a regular expression may have beside letters and digits.
const regexpSymbols = ":_#=@/;,- ^$?[]{}|\\*+."

// regexp reads %…%.
func (r *reader) regexp() (*regexp.Regexp, error) {
	start := r.i + 1
	for r.i++; r.i < len(r.s) && r.s[r.i] != '%'; r.i++ {
		if r.s[r.i] == '\\' {
			r.i++ // also of a percent sign
		}
	}
	if r.i >= len(r.s) || r.i == start {
		return nil, errPattern
	}
	text := r.s[start:r.i]
	r.i++
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\':
			i++
			// In a pattern %…% a backslash is never the last character.
			e := text[i]
			switch {
			case strings.IndexByte("dDsSwW", e) >= 0:
				b.WriteString(text[i-1 : i+1])
			case e < utf8.RuneSelf && e >= ' ' && !isAlnum(e):
				b.WriteString(regexp.QuoteMeta(string(rune(e))))
			case e == 'x' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]):
				b.WriteString(`\x` + text[i+1:i+3])
				i += 2
			case e == 't':
				b.WriteString(`\t`)
			case e == 'n':
				b.WriteString(`\n`)
			case e == 'r':
				b.WriteString(`\r`)
			default:
				return nil, bad("Invalid filter pattern: \\%c is not supported in a regular expression", rune(e))
			}
		case c == '{' && i+1 < len(text) && text[i+1] == ',':
			b.WriteString("{0") // either bound may be left out
		case c >= utf8.RuneSelf || !isAlnum(c) && strings.IndexByte(regexpSymbols, c) < 0:
			return nil, bad("Invalid filter pattern: the character %q is not supported in a regular expression", rune(c))
		default:
			b.WriteByte(c)
		}
	}
	// [[:alpha:]] is not in AWS's syntax, but is in Go's.
	if _, rest, ok := strings.Cut(b.String(), "[:"); ok && strings.Contains(rest, ":]") {
		return nil, errPattern
	}
	re, err := regexp.Compile("(?s:" + b.String() + ")")
	if err != nil {
		return nil, errPattern
	}
	r.p.regexps++
	return re, nil
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// words reads a pattern of terms. Terms with ? count only if there are no others.
func (r *reader) words() error {
	t := &terms{}
	for r.space(); r.i < len(r.s); r.space() {
		into := &t.all
		switch r.peek() {
		case '?':
			into = &t.any
			r.i++
		case '-':
			into = &t.none
			r.i++
		}
		var x term
		switch c := r.peek(); c {
		case '"':
			s, err := r.quote('"')
			if err != nil {
				return err
			}
			if strings.TrimSpace(s) == "" && into == &t.all {
				continue // "" and " " stand for everything
			}
			x.text = []byte(s)
		case '%':
			re, err := r.regexp()
			if err != nil {
				return err
			}
			x.re = re
		default:
			start := r.i
			for r.i < len(r.s) && strings.IndexByte(" \t\r\n", r.s[r.i]) < 0 {
				r.i++
			}
			s := r.s[start:r.i]
			if s == "" {
				return errPattern
			}
			if strings.ContainsFunc(s, func(c rune) bool {
				return c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.IsMark(c)
			}) {
				return bad("Invalid character(s) in term '%s'", s)
			}
			x.text = []byte(s)
		}
		*into = append(*into, x)
		if c := r.peek(); c != 0 && strings.IndexByte(" \t\r\n", c) < 0 {
			return errPattern
		}
	}
	if len(t.all) > 0 || len(t.none) > 0 {
		t.any = nil
	}
	for _, x := range t.all {
		t.needle = longer(t.needle, x.text)
	}
	if len(t.any) == 1 {
		t.needle = t.any[0].text
	}
	if len(t.all)+len(t.any)+len(t.none) > 0 {
		r.p.terms = t
	}
	return nil
}

var operators = []string{"!=", ">=", "<=", "=", ">", "<"}

func (r *reader) operator() (string, bool) {
	for _, op := range operators {
		if r.take(op) {
			return op, true
		}
	}
	return "", false
}

// value reads what an operator compares with. Unquoted text ends where the
// grammar around it goes on.
func (r *reader) value(op, stop string) (literal, error) {
	r.space()
	switch r.peek() {
	case '"':
		s, err := r.quote('"')
		l := newLiteral(s, true)
		if err == nil && op != "=" && op != "!=" {
			err = errPattern
		}
		return l, err
	case '%':
		re, err := r.regexp()
		if err == nil && op != "=" && op != "!=" {
			err = errPattern
		}
		return literal{re: re}, err
	}
	start := r.i
	for r.i < len(r.s) && strings.IndexByte(stop, r.s[r.i]) < 0 {
		r.i++
	}
	s := r.s[start:r.i]
	if s == "" {
		return literal{}, errPattern
	}
	l := newLiteral(s, false)
	if op != "=" && op != "!=" && !l.isNum {
		return l, errPattern
	}
	return l, nil
}

// list reads [name condition, …].
func (r *reader) list() error {
	r.i++
	p := r.p
	p.fields = []field{}
	for {
		r.space()
		if r.take("...") {
			if p.rest >= 0 {
				return errPattern
			}
			p.rest = len(p.fields)
		} else {
			f, err := r.field()
			if err != nil {
				return err
			}
			p.fields = append(p.fields, f)
		}
		r.space()
		if r.take(",") {
			continue
		}
		if !r.take("]") {
			return errPattern
		}
		r.space()
		if r.i != len(r.s) {
			return errPattern
		}
		return nil
	}
}

func (r *reader) name() string {
	start := r.i
	for c := r.peek(); isAlnum(c) || c == '_' || c == '-'; c = r.peek() {
		r.i++
	}
	return r.s[start:r.i]
}

// field reads name, or a condition in which the name is repeated: a > 1 && a < 3.
func (r *reader) field() (field, error) {
	at := r.i
	for r.take("(") {
		r.space()
	}
	f := field{name: r.name()}
	r.space()
	switch {
	case f.name != "":
	case r.peek() == ',' || r.peek() == ']':
		return f, nil // a field that needs no name
	case r.take("*"):
		return f, nil
	default:
		return f, errPattern
	}
	if c := r.peek(); (c == ',' || c == ']') && r.s[at] != '(' {
		return f, nil
	}
	r.i = at
	var err error
	f.cond, err = r.either(f.name)
	return f, err
}

func (r *reader) either(name string) (*condition, error) {
	left, err := r.both(name)
	for err == nil {
		r.space()
		if !r.take("||") {
			break
		}
		var right *condition
		right, err = r.both(name)
		left = &condition{op: "||", left: left, right: right}
	}
	return left, err
}

func (r *reader) both(name string) (*condition, error) {
	left, err := r.single(name)
	for err == nil {
		r.space()
		if !r.take("&&") {
			break
		}
		var right *condition
		right, err = r.single(name)
		left = &condition{op: "&&", left: left, right: right}
	}
	return left, err
}

func (r *reader) single(name string) (*condition, error) {
	r.space()
	if r.take("(") {
		if r.depth++; r.depth > maxDepth {
			return nil, errPattern
		}
		c, err := r.either(name)
		r.depth--
		if err != nil {
			return nil, err
		}
		r.space()
		if !r.take(")") {
			return nil, errPattern
		}
		return c, nil
	}
	if r.name() != name {
		return nil, errPattern
	}
	r.space()
	op, ok := r.operator()
	if !ok {
		return nil, errPattern
	}
	l, err := r.value(op, " \t\r\n,]()&|\"")
	return &condition{op: op, value: l}, err
}

// object reads { conditions on JSON }.
func (r *reader) object() error {
	r.i++
	n, err := r.disjunction()
	if err != nil {
		return err
	}
	r.space()
	if !r.take("}") {
		return errPattern
	}
	if r.space(); r.i != len(r.s) {
		return errPattern
	}
	if r.wildcards > maxWildcards {
		return errPattern
	}
	r.p.json = n
	return nil
}

func (r *reader) disjunction() (node, error) {
	left, err := r.conjunction()
	for err == nil {
		r.space()
		if !r.take("||") {
			break
		}
		var right node
		right, err = r.conjunction()
		left = or{left, right}
	}
	return left, err
}

func (r *reader) conjunction() (node, error) {
	left, err := r.operand()
	for err == nil {
		r.space()
		if !r.take("&&") {
			break
		}
		var right node
		right, err = r.operand()
		left = and{left, right}
	}
	return left, err
}

func (r *reader) operand() (node, error) {
	r.space()
	if r.take("(") {
		if r.depth++; r.depth > maxDepth {
			return nil, errPattern
		}
		n, err := r.disjunction()
		r.depth--
		if err != nil {
			return nil, err
		}
		r.space()
		if !r.take(")") {
			return nil, errPattern
		}
		return n, nil
	}
	s, err := r.selector()
	if err != nil {
		return nil, err
	}
	r.p.paths = append(r.p.paths, s)
	r.space()
	if op, ok := r.operator(); ok {
		l, err := r.value(op, " \t\r\n(){}&|\"")
		return test{s, op, l}, err
	}
	word := func(w string) bool {
		r.space()
		at := r.i
		if r.take(w) && !isAlnum(r.peek()) {
			return true
		}
		r.i = at
		return false
	}
	switch {
	case word("IS"):
		for w, k := range map[string]document.Kind{"NULL": document.Null, "TRUE": document.True, "FALSE": document.False} {
			if word(w) {
				return is{sel: s, kind: k}, nil
			}
		}
	case word("NOT") && word("EXISTS"):
		return is{sel: s, absent: true}, nil
	}
	return nil, errPattern
}

// selector reads $.name['na.me'][0].*
func (r *reader) selector() (*selector, error) {
	start := r.i
	if !r.take("$") {
		return nil, errPattern
	}
	s := &selector{}
	wild := 0
	for {
		dot := r.take(".")
		switch {
		case dot && r.take("*"):
			s.steps = append(s.steps, step{kind: wildMember})
			wild++
		case r.take("["):
			switch c := r.peek(); {
			case c == '\'' || c == '"':
				name, err := r.quote(c)
				if err != nil {
					return nil, err
				}
				s.steps = append(s.steps, step{name: name})
			case r.take("*"):
				s.steps = append(s.steps, step{kind: wildElement})
				wild++
			default:
				at := r.i
				for c := r.peek(); c >= '0' && c <= '9'; c = r.peek() {
					r.i++
				}
				n, err := strconv.Atoi(r.s[at:r.i])
				if err != nil {
					return nil, errPattern
				}
				s.steps = append(s.steps, step{kind: element, index: n})
			}
			if !r.take("]") {
				return nil, errPattern
			}
		case dot:
			name := r.name()
			if name == "" {
				return nil, errPattern
			}
			s.steps = append(s.steps, step{name: name})
		default:
			if len(s.steps) == 0 || wild > 1 {
				return nil, errPattern
			}
			r.wildcards += wild
			s.source = r.s[start:r.i]
			return s, nil
		}
	}
}
