// Package document reads a log message that is JSON.
//
// It keeps numbers as they were written and members in their order, which
// encoding/json does not, and is fast enough to be used on every event of a
// search. It must never take for JSON what is not.
package document

import (
	"bytes"
	"iter"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Kind is the type of a value.
type Kind uint8

const (
	Null Kind = iota
	False
	True
	Number
	String
	Array
	Object
)

// Value is a JSON value.
type Value struct {
	Kind  Kind
	Text  []byte   // of scalars: as written, but for strings, which are unquoted
	Keys  [][]byte // Object: the names of Items
	Items []Value
}

// maxDepth bounds recursion: a message is a client's.
const maxDepth = 128

// Parse reads b, which must be one JSON value and nothing else. The value
// refers to b.
func Parse(b []byte) (Value, bool) { return new(Reader).Parse(b) }

// A Reader parses one message after the other with little new memory.
type Reader struct {
	values, items []Value // items: those of what is not at its end yet
	keys, names   [][]byte
}

// Parse is Parse, but its value is good only until the next one.
func (r *Reader) Parse(b []byte) (Value, bool) {
	r.values, r.items, r.keys, r.names = r.values[:0], r.items[:0], r.keys[:0], r.names[:0]
	p := parser{b: b, r: r}
	p.space()
	v, ok := p.value(0)
	if !ok {
		return Value{}, false
	}
	p.space()
	return v, p.i == len(b)
}

// Begins reports whether b may be an object or array: most messages are
// neither, and need not be read.
func Begins(b []byte) bool {
	for _, c := range b {
		switch c {
		case ' ', '\t', '\n', '\r':
		default:
			return c == '{' || c == '['
		}
	}
	return false
}

// Get is the member of that name; of several the last, as everywhere.
func (v *Value) Get(name string) *Value {
	if v.Kind != Object {
		return nil
	}
	for i := len(v.Keys) - 1; i >= 0; i-- {
		if string(v.Keys[i]) == name {
			return &v.Items[i]
		}
	}
	return nil
}

// At is the element with that index.
func (v *Value) At(i int) *Value {
	if v.Kind != Array || i < 0 || i >= len(v.Items) {
		return nil
	}
	return &v.Items[i]
}

// Scalar reports whether v is neither array nor object.
func (v *Value) Scalar() bool { return v.Kind < Array }

// Append appends v as JSON.
func (v *Value) Append(b []byte) []byte {
	switch v.Kind {
	case String:
		return Quote(b, v.Text)
	case Array:
		b = append(b, '[')
		for i := range v.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = v.Items[i].Append(b)
		}
		return append(b, ']')
	case Object:
		b = append(b, '{')
		for i := range v.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(Quote(b, v.Keys[i]), ':')
			b = v.Items[i].Append(b)
		}
		return append(b, '}')
	}
	return append(b, v.Text...)
}

const hex = "0123456789abcdef"

// Quote appends s as a JSON string.
func Quote(b, s []byte) []byte {
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

type parser struct {
	b []byte
	i int
	r *Reader
}

// close moves what came since an object or array began to its place.
func (p *parser) close(k Kind, items, names int) (Value, bool) {
	r := p.r
	at := len(r.values)
	r.values = append(r.values, r.items[items:]...)
	v := Value{Kind: k, Items: r.values[at:len(r.values):len(r.values)]}
	r.items = r.items[:items]
	if k == Object {
		at = len(r.keys)
		r.keys = append(r.keys, r.names[names:]...)
		v.Keys = r.keys[at:len(r.keys):len(r.keys)]
		r.names = r.names[:names]
	}
	return v, true
}

func (p *parser) space() {
	for p.i < len(p.b) {
		switch p.b[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	if p.i < len(p.b) {
		return p.b[p.i]
	}
	return 0
}

func (p *parser) word(w string, k Kind) (Value, bool) {
	if len(p.b)-p.i < len(w) || string(p.b[p.i:p.i+len(w)]) != w {
		return Value{}, false
	}
	v := Value{Kind: k, Text: p.b[p.i : p.i+len(w)]}
	p.i += len(w)
	return v, true
}

func (p *parser) value(depth int) (Value, bool) {
	if depth > maxDepth {
		return Value{}, false
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		s, ok := p.str()
		return Value{Kind: String, Text: s}, ok
	case c == 't':
		return p.word("true", True)
	case c == 'f':
		return p.word("false", False)
	case c == 'n':
		return p.word("null", Null)
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	return Value{}, false
}

func (p *parser) object(depth int) (Value, bool) {
	items, names := len(p.r.items), len(p.r.names)
	p.i++
	p.space()
	if p.peek() == '}' {
		p.i++
		return Value{Kind: Object}, true
	}
	for {
		if p.peek() != '"' {
			return Value{}, false
		}
		k, ok := p.str()
		if !ok {
			return Value{}, false
		}
		p.space()
		if p.peek() != ':' {
			return Value{}, false
		}
		p.i++
		p.space()
		p.r.names = append(p.r.names, k)
		item, ok := p.value(depth + 1)
		if !ok {
			return Value{}, false
		}
		p.r.items = append(p.r.items, item)
		p.space()
		switch p.peek() {
		case ',':
			p.i++
			p.space()
		case '}':
			p.i++
			return p.close(Object, items, names)
		default:
			return Value{}, false
		}
	}
}

func (p *parser) array(depth int) (Value, bool) {
	items := len(p.r.items)
	p.i++
	p.space()
	if p.peek() == ']' {
		p.i++
		return Value{Kind: Array}, true
	}
	for {
		item, ok := p.value(depth + 1)
		if !ok {
			return Value{}, false
		}
		p.r.items = append(p.r.items, item)
		p.space()
		switch p.peek() {
		case ',':
			p.i++
			p.space()
		case ']':
			p.i++
			return p.close(Array, items, 0)
		default:
			return Value{}, false
		}
	}
}

func (p *parser) digits() bool {
	start := p.i
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.i++
	}
	return p.i > start
}

func (p *parser) number() (Value, bool) {
	start := p.i
	if p.peek() == '-' {
		p.i++
	}
	if p.peek() == '0' {
		p.i++
	} else if !p.digits() {
		return Value{}, false
	}
	if p.peek() == '.' {
		p.i++
		if !p.digits() {
			return Value{}, false
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.i++
		if c := p.peek(); c == '+' || c == '-' {
			p.i++
		}
		if !p.digits() {
			return Value{}, false
		}
	}
	return Value{Kind: Number, Text: p.b[start:p.i]}, true
}

// str reads a string; without escapes it is a part of the message.
func (p *parser) str() ([]byte, bool) {
	p.i++
	start := p.i
	for p.i < len(p.b) {
		switch c := p.b[p.i]; {
		case c == '"':
			p.i++
			return p.b[start : p.i-1], true
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			return nil, false
		}
		p.i++
	}
	return nil, false
}

func (p *parser) escaped(start int) ([]byte, bool) {
	out := append([]byte(nil), p.b[start:p.i]...)
	for p.i < len(p.b) {
		c := p.b[p.i]
		p.i++
		switch {
		case c == '"':
			return out, true
		case c < ' ':
			return nil, false
		case c != '\\':
			out = append(out, c)
			continue
		}
		c = p.peek()
		p.i++
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := p.hex4()
			if !ok {
				return nil, false
			}
			if utf16.IsSurrogate(r) {
				low, at := rune(utf8.RuneError), p.i
				if bytes.HasPrefix(p.b[p.i:], []byte(`\u`)) {
					p.i += 2
					if low, ok = p.hex4(); !ok {
						return nil, false
					}
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					p.i = at // half a pair is a character of its own
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			return nil, false
		}
	}
	return nil, false
}

func (p *parser) hex4() (rune, bool) {
	if p.i+4 > len(p.b) {
		return 0, false
	}
	var r rune
	for _, c := range p.b[p.i : p.i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	p.i += 4
	return r, true
}

// Flat visits the scalars in v with their names: members after a dot, elements
// by their index.
func (v *Value) Flat() iter.Seq2[string, *Value] {
	return func(yield func(string, *Value) bool) { v.flat("", yield) }
}

func (v *Value) flat(name string, yield func(string, *Value) bool) bool {
	if v.Scalar() {
		return yield(name, v)
	}
	if name != "" {
		name += "."
	}
	for i := range v.Items {
		key := ""
		if v.Kind == Object {
			key = string(v.Keys[i])
		} else {
			key = strconv.Itoa(i)
		}
		if !v.Items[i].flat(name+key, yield) {
			return false
		}
	}
	return true
}
