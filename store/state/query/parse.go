package query

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	maxLength = 2000
	// maxDepth bounds the recursion of the parser and of Match.
	maxDepth = 100
)

// Parse reads an expression. Its error says what is wrong in words for the caller.
func Parse(s string) (*Expr, error) {
	if len(s) > maxLength {
		return nil, fmt.Errorf("an expression has at most %d characters", maxLength)
	}
	p := &parser{text: s}
	n, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.at < len(p.text) {
		return nil, fmt.Errorf("unexpected %q", p.rest())
	}
	return &Expr{n}, nil
}

type parser struct {
	text string
	at   int
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

// rest is what is left, short enough for a message.
func (p *parser) rest() string {
	r := p.text[p.at:]
	if len(r) > 40 {
		r = strings.ToValidUTF8(r[:40], "") + "…"
	}
	return r
}

// symbol takes s if it is next.
func (p *parser) symbol(s string) bool {
	p.space()
	if !strings.HasPrefix(p.text[p.at:], s) {
		return false
	}
	p.at += len(s)
	return true
}

// word takes s if it is next and does not go on as a longer word.
func (p *parser) word(s string) bool {
	was := p.at
	if p.symbol(s) && (p.at == len(p.text) || !isWord(p.text[p.at])) {
		return true
	}
	p.at = was
	return false
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(`_.:/\-@`, c) >= 0
}

func (p *parser) or(depth int) (node, error) {
	n, err := p.and(depth)
	for err == nil && (p.symbol("||") || p.word("or")) {
		var b node
		if b, err = p.and(depth); err == nil {
			n = or{n, b}
		}
	}
	return n, err
}

func (p *parser) and(depth int) (node, error) {
	n, err := p.unary(depth)
	for err == nil && (p.symbol("&&") || p.word("and")) {
		var b node
		if b, err = p.unary(depth); err == nil {
			n = and{n, b}
		}
	}
	return n, err
}

func (p *parser) unary(depth int) (node, error) {
	if depth++; depth > maxDepth {
		return nil, errors.New("the expression is nested too deeply")
	}
	switch {
	case p.symbol("!") || p.word("not"):
		n, err := p.unary(depth)
		if err != nil {
			return nil, err
		}
		return not{n}, nil
	case p.symbol("("):
		n, err := p.or(depth)
		if err != nil {
			return nil, err
		}
		if !p.symbol(")") {
			return nil, errors.New("a closing parenthesis is missing")
		}
		return n, nil
	}
	return p.test()
}

// operators in an order in which no symbol hides a longer one.
var operators = []struct {
	symbol, word string
	op           operator
	negated      bool
}{
	{"==", "equals", equals, false},
	{"!=", "not_equals", equals, true},
	{">=", "greater_than_equal", greaterEqual, false},
	{"<=", "less_than_equal", lessEqual, false},
	{">", "greater_than", greater, false},
	{"<", "less_than", less, false},
	{"=~", "matches", matches, false},
	{"!~", "not_matches", matches, true},
	{"!exists", "not_exists", exists, true},
	{"", "exists", exists, false},
	{"!in", "not_in", in, true},
	{"", "in", in, false},
}

func (p *parser) test() (node, error) {
	p.space()
	from := p.at
	for p.at < len(p.text) && isWord(p.text[p.at]) {
		p.at++
	}
	s, err := subjectOf(p.text[from:p.at])
	if err != nil {
		return nil, err
	}
	t := &test{subject: s}
	negated, found := false, false
	for _, o := range operators {
		// What is spelled with letters must end where a word ends.
		letters := strings.HasSuffix(o.symbol, "in") || strings.HasSuffix(o.symbol, "exists")
		if o.symbol != "" && (letters && p.word(o.symbol) || !letters && p.symbol(o.symbol)) || p.word(o.word) {
			t.op, negated, found = o.op, o.negated, true
			break
		}
	}
	switch {
	case !found:
		return nil, fmt.Errorf("an operator is missing at %q", p.rest())
	case !s.kind.takes(t.op):
		return nil, fmt.Errorf("the operator cannot be used on %s", p.text[from:p.at])
	}
	if err := p.arguments(t); err != nil {
		return nil, err
	}
	if negated {
		return not{t}, nil
	}
	return t, nil
}

func subjectOf(s string) (subject, error) {
	if name, ok := strings.CutPrefix(s, "attribute:"); ok && name != "" {
		return subject{attribute, name}, nil
	}
	if k, ok := kinds[s]; ok {
		return subject{kind: k}, nil
	}
	if s == "" {
		return subject{}, errors.New("a subject is missing")
	}
	return subject{}, fmt.Errorf("unknown subject %q", s)
}

// arguments reads what follows the operator.
func (p *parser) arguments(t *test) (err error) {
	switch t.op {
	case exists:
		return nil
	case in:
		t.args, err = p.list()
		return err
	}
	arg, err := p.argument()
	if err != nil {
		return err
	}
	t.args = []string{arg}
	switch {
	case t.op == matches:
		// (?s) and the anchors: the pattern means the whole value.
		if t.pattern, err = regexp.Compile(`(?s)\A(?:` + arg + `)\z`); err != nil {
			return fmt.Errorf("invalid pattern %q", arg)
		}
	case t.subject.kind == runningTasks:
		if t.count, err = strconv.Atoi(arg); err != nil {
			return fmt.Errorf("%q is not a number", arg)
		}
	case t.subject.kind == registeredAt:
		if t.at, err = date(arg); err != nil {
			return err
		}
	case t.subject.kind == agentConnected && arg != "true" && arg != "false":
		return fmt.Errorf("%q is neither true nor false", arg)
	}
	return nil
}

// date reads the forms that the documentation of AWS shows. Without a zone it is UTC.
func date(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date", s)
}

// argument reads one argument: in quotes, or up to white space, a conjunction
// or the parenthesis that closes what is around it.
func (p *parser) argument() (string, error) {
	p.space()
	if p.at < len(p.text) && p.text[p.at] == '\'' {
		return p.quoted()
	}
	from, open := p.at, 0
scan:
	for ; p.at < len(p.text); p.at++ {
		rest := p.text[p.at:]
		switch c := rest[0]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			break scan
		case open == 0 && (strings.HasPrefix(rest, "&&") || strings.HasPrefix(rest, "||")):
			break scan
		case c == '\\' && len(rest) == 1:
			return "", errors.New("a backslash escapes nothing")
		case c == '\\':
			p.at++
		case c == '(':
			open++
		case c == ')':
			if open == 0 {
				break scan
			}
			open--
		}
	}
	if p.at == from {
		return "", errors.New("an argument is missing")
	}
	return p.text[from:p.at], nil
}

func (p *parser) quoted() (string, error) {
	end := strings.IndexByte(p.text[p.at+1:], '\'')
	if end < 0 {
		return "", errors.New("a closing quote is missing")
	}
	s := p.text[p.at+1 : p.at+1+end]
	p.at += end + 2
	return s, nil
}

// list reads [a, 'b c', d].
func (p *parser) list() (items []string, err error) {
	if !p.symbol("[") {
		return nil, errors.New("the operator needs a list in brackets")
	}
	for {
		p.space()
		var item string
		if p.at < len(p.text) && p.text[p.at] == '\'' {
			if item, err = p.quoted(); err != nil {
				return nil, err
			}
		} else {
			end := strings.IndexAny(p.text[p.at:], ",]")
			if end < 0 {
				return nil, errors.New("a closing bracket is missing")
			}
			if item = strings.TrimSpace(p.text[p.at : p.at+end]); item == "" {
				return nil, errors.New("a list has an empty item")
			}
			p.at += end
		}
		items = append(items, item)
		switch {
		case p.symbol("]"):
			return items, nil
		case !p.symbol(","):
			return nil, errors.New("a closing bracket is missing")
		}
	}
}
