package insights

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a query.
const (
	maxDepth = 100
	maxOps   = 200
)

type parser struct {
	s     string
	i     int
	depth int
}

// Compile reads a query.
func Compile(text string) (*Query, *Error) {
	p := &parser{s: text}
	q := &Query{}
	if err := p.query(q); err != nil {
		return nil, err
	}
	return q, nil
}

func (p *parser) fail(format string, args ...any) *Error {
	start := utf8.RuneCountInString(p.s[:min(p.i, len(p.s))])
	end := start
	if p.i < len(p.s) {
		end++
	}
	return &Error{start, end, fmt.Sprintf(format, args...)}
}

func (p *parser) unexpected() *Error {
	if p.i >= len(p.s) {
		return p.fail("unexpected end of the query")
	}
	line := 1 + strings.Count(p.s[:p.i], "\n")
	r, _ := utf8.DecodeRuneInString(p.s[p.i:])
	return p.fail("unexpected symbol found %c at line %d and position %d", r, line, p.i-strings.LastIndexByte(p.s[:p.i], '\n'))
}

// space passes blanks and comments.
func (p *parser) space() {
	for p.i < len(p.s) {
		switch c := p.s[p.i]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			p.i++
		case c == '#':
			for p.i < len(p.s) && p.s[p.i] != '\n' {
				p.i++
			}
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	p.space()
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *parser) take(s string) bool {
	p.space()
	if strings.HasPrefix(p.s[p.i:], s) {
		p.i += len(s)
		return true
	}
	return false
}

func inWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// word takes the keyword if it is next, in any case.
func (p *parser) word(w string) bool {
	p.space()
	end := p.i + len(w)
	if end > len(p.s) || !strings.EqualFold(p.s[p.i:end], w) {
		return false
	}
	if r, _ := utf8.DecodeRuneInString(p.s[end:]); end < len(p.s) && (inWord(r) || r == '.') {
		return false
	}
	p.i = end
	return true
}

// name reads a field's name: letters, digits, _ @ . and anything in backticks.
func (p *parser) name() (string, *Error) {
	p.space()
	var b strings.Builder
	for p.i < len(p.s) {
		r, n := utf8.DecodeRuneInString(p.s[p.i:])
		switch {
		case r == '`':
			end := strings.IndexByte(p.s[p.i+1:], '`')
			if end < 0 {
				return "", p.fail("a backtick is not closed")
			}
			b.WriteString(p.s[p.i+1 : p.i+1+end])
			p.i += end + 2
			continue
		case inWord(r) || r == '@' || r == '.' && b.Len() > 0 || r == '$':
			b.WriteRune(r)
			p.i += n
			continue
		}
		break
	}
	if b.Len() == 0 {
		return "", p.unexpected()
	}
	return b.String(), nil
}

// unsupported are commands of AWS that are not here.
var unsupported = []string{"pattern", "diff", "anomaly", "unmask", "unnest", "lookup", "join", "subqueries", "filterIndex", "source", "addtotals", "append", "expand"}

func (p *parser) query(q *Query) *Error {
	var shown []string
	displayed := false
	for {
		p.space()
		start := p.i
		switch {
		case p.word("fields"):
			ns, err := p.list(q)
			if err != nil {
				return err
			}
			if !displayed {
				shown = append(shown, ns...)
			}
		case p.word("display"):
			ns, err := p.list(q)
			if err != nil {
				return err
			}
			shown, displayed = ns, true
		case p.word("filter"):
			e, err := p.expr()
			if err != nil {
				return err
			}
			q.ops = append(q.ops, filterOp{e})
		case p.word("stats"):
			o, err := p.stats()
			if err != nil {
				return err
			}
			q.ops = append(q.ops, o)
			shown, displayed = nil, false
			for _, b := range o.by {
				shown = append(shown, b.name)
			}
			for _, a := range o.aggregates {
				shown = append(shown, a.name)
			}
		case p.word("sort"):
			o, err := p.sort()
			if err != nil {
				return err
			}
			q.ops = append(q.ops, o)
		case p.word("limit"), p.word("head"):
			p.space()
			at := p.i
			for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
				p.i++
			}
			n, err := strconv.Atoi(p.s[at:p.i])
			if err != nil || n < 1 || n > MaxRows {
				p.i = at
				return p.fail("limit must be a number from 1 to %d", MaxRows)
			}
			q.ops = append(q.ops, limitOp{n})
		case p.word("dedup"):
			var o dedupOp
			for {
				n, err := p.name()
				if err != nil {
					return err
				}
				if o.fields = append(o.fields, n); !p.take(",") {
					break
				}
			}
			q.ops = append(q.ops, o)
		case p.word("parse"):
			o, err := p.parse()
			if err != nil {
				return err
			}
			q.ops = append(q.ops, o)
			if !displayed && shown != nil {
				shown = append(shown, o.names...)
			}
		default:
			for _, w := range unsupported {
				if p.word(w) {
					p.i = start
					return p.fail("the command %s is not supported by Berth", w)
				}
			}
			return p.unexpected()
		}
		if len(q.ops) > maxOps {
			return p.fail("the query has too many commands")
		}
		if p.peek() == 0 && p.i >= len(p.s) {
			break
		}
		if !p.take("|") {
			return p.unexpected()
		}
	}
	q.columns = unique(shown)
	return nil
}

func unique(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// list reads expressions with names, and leaves a command for each that computes.
func (p *parser) list(q *Query) ([]string, *Error) {
	var names []string
	for {
		n, err := p.named()
		if err != nil {
			return nil, err
		}
		if f, ok := n.value.(field); !ok || string(f) != n.name {
			q.ops = append(q.ops, letOp{n.name, n.value})
		}
		if names = append(names, n.name); !p.take(",") {
			return names, nil
		}
	}
}

// named reads an expression with an optional "as name"; without, it is called
// as it is written.
func (p *parser) named() (named, *Error) {
	p.space()
	start := p.i
	e, err := p.expr()
	if err != nil {
		return named{}, err
	}
	n := named{strings.TrimSpace(p.s[start:p.i]), e}
	if f, ok := e.(field); ok {
		n.name = string(f)
	}
	if p.word("as") {
		if n.name, err = p.name(); err != nil {
			return named{}, err
		}
	}
	return n, nil
}

var aggregates = map[string]bool{"count": true, "count_distinct": true, "sum": true, "avg": true, "min": true, "max": true, "pct": true, "median": true,
	"stddev": true, "earliest": true, "latest": true, "sortsfirst": true, "sortslast": true}

func (p *parser) stats() (statsOp, *Error) {
	var o statsOp
	for {
		a, err := p.aggregate()
		if err != nil {
			return o, err
		}
		if o.aggregates = append(o.aggregates, a); !p.take(",") {
			break
		}
	}
	if !p.word("by") {
		return o, nil
	}
	for {
		n, err := p.named()
		if err != nil {
			return o, err
		}
		if o.by = append(o.by, n); !p.take(",") {
			return o, nil
		}
	}
}

func (p *parser) aggregate() (aggregate, *Error) {
	p.space()
	start := p.i
	n, err := p.name()
	if err != nil {
		return aggregate{}, err
	}
	a := aggregate{fn: strings.ToLower(n)}
	if !aggregates[a.fn] {
		p.i = start
		return a, p.fail("%s is not a function that aggregates", n)
	}
	if !p.take("(") {
		return a, p.unexpected()
	}
	switch {
	case a.fn == "count" && (p.take("*") || p.peek() == ')'):
	default:
		if a.arg, err = p.expr(); err != nil {
			return a, err
		}
	}
	if a.fn == "median" {
		a.fn, a.p = "pct", 50
	} else if a.fn == "pct" {
		if !p.take(",") {
			return a, p.unexpected()
		}
		e, err := p.expr()
		if err != nil {
			return a, err
		}
		c, ok := e.(constant)
		if a.p, _ = c.number(); !ok || a.p < 0 || a.p > 100 {
			return a, p.fail("a percentile is a number from 0 to 100")
		}
	}
	if !p.take(")") {
		return a, p.unexpected()
	}
	a.name = strings.TrimSpace(p.s[start:p.i])
	if p.word("as") {
		if a.name, err = p.name(); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (p *parser) sort() (sortOp, *Error) {
	var o sortOp
	for {
		p.space()
		start := p.i
		e, err := p.expr()
		if err != nil {
			// What stats made may be sorted by as it is written there.
			p.i = start
			a, bad := p.aggregate()
			if bad != nil {
				return o, err
			}
			e = field(a.name)
		}
		k := sortKey{value: e}
		if p.word("desc") {
			k.desc = true
		} else {
			p.word("asc")
		}
		if o.keys = append(o.keys, k); !p.take(",") {
			return o, nil
		}
	}
}

func (p *parser) parse() (parseOp, *Error) {
	o := parseOp{from: field("@message")}
	if c := p.peek(); c != '"' && c != '\'' && c != '/' {
		e, err := p.primary()
		if err != nil {
			return o, err
		}
		o.from = e
	}
	switch c := p.peek(); c {
	case '/':
		re, err := p.regexp()
		if err != nil {
			return o, err
		}
		o.re = re
		for _, n := range re.SubexpNames() {
			if n != "" {
				o.names = append(o.names, n)
			}
		}
		if len(o.names) > 0 {
			return o, nil
		}
		if o.names, err = p.as(); err != nil {
			return o, err
		}
		if re.NumSubexp() != len(o.names) {
			return o, p.fail("the expression has %d groups for %d names", re.NumSubexp(), len(o.names))
		}
		return o, nil
	case '"', '\'':
		glob, err := p.quoted()
		if err != nil {
			return o, err
		}
		if o.names, err = p.as(); err != nil {
			return o, err
		}
		parts := strings.Split(glob, "*")
		if len(parts)-1 != len(o.names) {
			return o, p.fail("the pattern has %d wildcards for %d names", len(parts)-1, len(o.names))
		}
		var b strings.Builder
		b.WriteString("(?s)")
		for i, part := range parts {
			switch {
			case i == 0:
			case i == len(parts)-1 && part == "":
				b.WriteString("(.*)")
			default:
				b.WriteString("(.*?)")
			}
			b.WriteString(regexp.QuoteMeta(part))
		}
		re, bad := regexp.Compile(b.String())
		if bad != nil {
			return o, p.fail("the pattern is too large")
		}
		o.re = re
		return o, nil
	}
	return o, p.unexpected()
}

func (p *parser) as() ([]string, *Error) {
	if !p.word("as") {
		return nil, p.unexpected()
	}
	var names []string
	for {
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		if names = append(names, n); !p.take(",") {
			return names, nil
		}
	}
}

// regexp reads /…/.
func (p *parser) regexp() (*regexp.Regexp, *Error) {
	start := p.i
	var b strings.Builder
	for p.i++; ; p.i++ {
		if p.i >= len(p.s) {
			p.i = start
			return nil, p.fail("a regular expression is not closed")
		}
		c := p.s[p.i]
		if c == '/' {
			p.i++
			break
		}
		if c == '\\' && p.i+1 < len(p.s) {
			if p.i++; p.s[p.i] != '/' {
				b.WriteByte('\\')
			}
			c = p.s[p.i]
		}
		b.WriteByte(c)
	}
	re, err := regexp.Compile(b.String())
	if err != nil {
		p.i = start
		return nil, p.fail("invalid regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return re, nil
}

// quoted reads a string in either kind of quotes.
func (p *parser) quoted() (string, *Error) {
	start, q := p.i, p.s[p.i]
	var b strings.Builder
	for p.i++; p.i < len(p.s); p.i++ {
		c := p.s[p.i]
		if c == q {
			p.i++
			return b.String(), nil
		}
		if c == '\\' && p.i+1 < len(p.s) {
			p.i++
			switch e := p.s[p.i]; e {
			case 'n':
				c = '\n'
			case 't':
				c = '\t'
			case 'r':
				c = '\r'
			case '\\', '"', '\'':
				c = e
			default:
				b.WriteByte('\\')
				c = e
			}
		}
		b.WriteByte(c)
	}
	p.i = start
	return "", p.fail("a string is not closed")
}

// Expressions, from what binds least.

func (p *parser) expr() (expr, *Error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail("the query is nested too deeply")
	}
	defer func() { p.depth-- }()
	left, err := p.and()
	for err == nil && (p.word("or") || p.take("||")) {
		var right expr
		right, err = p.and()
		left = &logic{false, left, right}
	}
	return left, err
}

func (p *parser) and() (expr, *Error) {
	left, err := p.not()
	for err == nil && (p.word("and") || p.take("&&")) {
		var right expr
		right, err = p.not()
		left = &logic{true, left, right}
	}
	return left, err
}

func (p *parser) not() (expr, *Error) {
	n := 0
	for {
		p.space()
		if p.word("not") || p.i+1 < len(p.s) && p.s[p.i] == '!' && p.s[p.i+1] != '=' && p.take("!") {
			n++
			continue
		}
		break
	}
	e, err := p.comparison()
	if err == nil && n%2 == 1 {
		e = negation{e}
	}
	return e, err
}

func (p *parser) comparison() (expr, *Error) {
	left, err := p.sum()
	if err != nil {
		return nil, err
	}
	if p.take("=~") {
		return p.like(left, false)
	}
	for _, op := range []string{"==", "!=", ">=", "<=", "=", ">", "<"} {
		if p.take(op) {
			right, err := p.sum()
			if op == "==" {
				op = "="
			}
			return &comparison{op, left, right}, err
		}
	}
	start := p.i
	not := p.word("not")
	switch {
	case p.word("like"):
		return p.like(left, not)
	case p.word("in"):
		return p.in(left, not)
	}
	p.i = start
	return left, nil
}

func (p *parser) like(value expr, not bool) (expr, *Error) {
	switch p.peek() {
	case '/':
		re, err := p.regexp()
		return &like{value: value, re: re, not: not}, err
	case '"', '\'':
		s, err := p.quoted()
		return &like{value: value, text: s, not: not}, err
	}
	return nil, p.unexpected()
}

func (p *parser) in(value expr, not bool) (expr, *Error) {
	if !p.take("[") {
		return nil, p.unexpected()
	}
	m := &membership{value: value, not: not}
	for !p.take("]") {
		if len(m.list) > 0 && !p.take(",") {
			return nil, p.unexpected()
		}
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		m.list = append(m.list, e)
	}
	return m, nil
}

func (p *parser) sum() (expr, *Error) {
	left, err := p.product()
	for err == nil {
		op := p.peek()
		if op != '+' && op != '-' {
			break
		}
		p.i++
		var right expr
		right, err = p.product()
		left = &arithmetic{op, left, right}
	}
	return left, err
}

func (p *parser) product() (expr, *Error) {
	left, err := p.power()
	for err == nil {
		op := p.peek()
		if op != '*' && op != '/' && op != '%' {
			break
		}
		p.i++
		var right expr
		right, err = p.power()
		left = &arithmetic{op, left, right}
	}
	return left, err
}

func (p *parser) power() (expr, *Error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail("the query is nested too deeply")
	}
	defer func() { p.depth-- }()
	if p.peek() == '-' {
		p.i++
		e, err := p.power()
		if c, ok := e.(constant); ok && c.kind == number {
			return constant{num(-c.n)}, err
		}
		return &arithmetic{'-', constant{num(0)}, e}, err
	}
	left, err := p.primary()
	if err == nil && p.take("^") {
		right, err := p.power()
		return &arithmetic{'^', left, right}, err
	}
	return left, err
}

func (p *parser) primary() (expr, *Error) {
	switch c := p.peek(); {
	case c == '(':
		p.i++
		e, err := p.expr()
		if err == nil && !p.take(")") {
			err = p.unexpected()
		}
		return e, err
	case c == '"' || c == '\'':
		s, err := p.quoted()
		return constant{str(s)}, err
	case c >= '0' && c <= '9':
		return p.number()
	}
	start := p.i
	n, err := p.name()
	if err != nil {
		return nil, err
	}
	if p.i < len(p.s) && p.s[p.i] == '(' {
		return p.call(n, start)
	}
	if p.s[start] != '`' {
		switch strings.ToLower(n) {
		case "true", "false":
			return constant{boolean(strings.EqualFold(n, "true"))}, nil
		case "and", "or", "not", "like", "in", "as", "by", "desc", "asc":
			p.i = start
			return nil, p.unexpected()
		}
	}
	return field(n), nil
}

// number reads 12, 1.5, 1e3, or a period such as 5m.
func (p *parser) number() (expr, *Error) {
	start := p.i
	digits := func() {
		for p.i < len(p.s) && (p.s[p.i] >= '0' && p.s[p.i] <= '9' || p.s[p.i] == '.') {
			p.i++
		}
	}
	digits()
	if at := p.i; at < len(p.s) && (p.s[at] == 'e' || p.s[at] == 'E') {
		p.i++
		if p.i < len(p.s) && (p.s[p.i] == '-' || p.s[p.i] == '+') {
			p.i++
		}
		from := p.i
		if digits(); p.i == from {
			p.i = at
		}
	}
	n, err := strconv.ParseFloat(p.s[start:p.i], 64)
	if err != nil || math.IsInf(n, 0) {
		p.i = start
		return nil, p.fail("%q is not a number", p.s[start:min(start+20, len(p.s))])
	}
	at := p.i
	for p.i < len(p.s) && (p.s[p.i] >= 'a' && p.s[p.i] <= 'z' || p.s[p.i] >= 'A' && p.s[p.i] <= 'Z') {
		p.i++
	}
	if p.i == at {
		return constant{num(n)}, nil
	}
	unit, ok := units[strings.ToLower(p.s[at:p.i])]
	if !ok || n <= 0 || unit < 0 && n != math.Trunc(n) {
		p.i = at
		return nil, p.unexpected()
	}
	return constant{num(n * unit)}, nil
}

func (p *parser) call(name string, start int) (expr, *Error) {
	f, ok := functions[strings.ToLower(name)]
	if !ok {
		p.i = start
		return nil, p.fail("there is no function %s", name)
	}
	p.i++
	var args []expr
	for !p.take(")") {
		if len(args) > 0 && !p.take(",") {
			return nil, p.unexpected()
		}
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		args = append(args, e)
	}
	if len(args) < f.least || f.most >= 0 && len(args) > f.most {
		p.i = start
		return nil, p.fail("%s does not take %d arguments", name, len(args))
	}
	return &call{f.fn, args}, nil
}
