package policy

import (
	"strings"
	"unicode/utf8"
)

// A pattern is a string in which some characters are wildcards and some parts
// are policy variables. Text holds the wildcards as control characters, which
// no document contains otherwise, so that a literal * (from ${*} or from the
// value of a variable) is not taken for one.
type pattern struct {
	text    string
	literal bool // no wildcards, no variables
	parts   []part
}

type part struct {
	text       string
	key        string // lower case; "" for plain text
	name       string // the key as it is written
	fallback   string
	hasDefault bool
}

const (
	anyRun  = 0x01 // *
	anyChar = 0x02 // ?
)

// compile reads a pattern of Action, Resource, StringLike or an ARN operator.
func compile(s string, variables bool) pattern {
	return newPattern(s, variables, true)
}

// compileExact reads a value in which only variables are special.
func compileExact(s string, variables bool) pattern {
	return newPattern(s, variables, false)
}

func newPattern(s string, variables, wildcards bool) pattern {
	var p pattern
	var b strings.Builder
	literal := true
	flush := func() {
		if b.Len() > 0 {
			p.parts = append(p.parts, part{text: b.String()})
			b.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case wildcards && c == '*':
			literal = false
			b.WriteByte(anyRun)
		case wildcards && c == '?':
			literal = false
			b.WriteByte(anyChar)
		case variables && c == '$' && strings.HasPrefix(s[i:], "${"):
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				b.WriteByte(c)
				continue
			}
			name := s[i+2 : i+end]
			i += end
			if name == "*" || name == "?" || name == "$" {
				b.WriteString(name)
				continue
			}
			flush()
			p.parts = append(p.parts, variable(name))
		default:
			b.WriteByte(c)
		}
	}
	if len(p.parts) == 0 {
		p.text, p.literal = b.String(), literal
		return p
	}
	flush()
	return p
}

// variable reads what stands between ${ and }: a key, and maybe a default in quotes.
func variable(s string) part {
	key, rest, found := strings.Cut(s, ",")
	v := part{name: strings.TrimSpace(key)}
	v.key = strings.ToLower(v.name)
	rest = strings.TrimSpace(rest)
	if found && len(rest) >= 2 && rest[0] == '\'' && rest[len(rest)-1] == '\'' {
		v.fallback, v.hasDefault = rest[1:len(rest)-1], true
	}
	return v
}

// resolve puts the request's values in the place of variables. It fails if one
// has no single value: then the pattern matches nothing.
func (p *pattern) resolve(r *Request) (text string, literal, ok bool) {
	if p.parts == nil {
		return p.text, p.literal, true
	}
	var b strings.Builder
	for _, v := range p.parts {
		if v.key == "" {
			b.WriteString(v.text)
			continue
		}
		values, found := r.key(v.key)
		switch {
		case found && len(values) == 1:
			if hasControl(values[0]) {
				return "", false, false
			}
			b.WriteString(values[0])
		case !found && v.hasDefault:
			b.WriteString(v.fallback)
		default:
			return "", false, false
		}
	}
	text = b.String()
	return text, strings.IndexByte(text, anyRun) < 0 && strings.IndexByte(text, anyChar) < 0, true
}

// matches reports whether s, as a whole, fits the pattern.
func (p *pattern) matches(r *Request, s string) bool {
	text, literal, ok := p.resolve(r)
	if !ok {
		return false
	}
	if literal {
		return text == s
	}
	return glob(text, s, false)
}

// matchesFold is matches for a pattern in lower case without variables, and an
// s in any case: the name of an action.
func (p *pattern) matchesFold(s string) bool { return glob(p.text, s, true) }

// glob matches without recursion: on a mismatch it returns to the last run and
// lets it take one character more, so it is quadratic at worst.
func glob(p, s string, fold bool) bool {
	pi, si := 0, 0
	star, mark := -1, 0
	for si < len(s) {
		switch {
		case pi < len(p) && p[pi] == anyRun:
			star, mark = pi, si
			pi++
			continue
		case pi < len(p) && p[pi] == anyChar:
			_, n := utf8.DecodeRuneInString(s[si:])
			si += n
			pi++
			continue
		case pi < len(p) && (p[pi] == s[si] || fold && p[pi] == lower(s[si])):
			pi++
			si++
			continue
		}
		if star < 0 {
			return false
		}
		_, n := utf8.DecodeRuneInString(s[mark:])
		mark += n
		pi, si = star+1, mark
	}
	for pi < len(p) && p[pi] == anyRun {
		pi++
	}
	return pi == len(p)
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// globARN matches each of the six parts of an ARN on its own: a wildcard does
// not reach over a colon, except in the last part, which may hold colons.
func globARN(p, s string) bool {
	for range 5 {
		pp, prest, ok1 := strings.Cut(p, ":")
		sp, srest, ok2 := strings.Cut(s, ":")
		if !ok1 || !ok2 {
			// A pattern shorter than an ARN, such as "*", stands for all of the rest.
			return (ok1 == ok2 || p == string(rune(anyRun))) && glob(p, s, false)
		}
		if !glob(pp, sp, false) {
			return false
		}
		p, s = prest, srest
	}
	return glob(p, s, false)
}
