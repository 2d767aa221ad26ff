package wire

import (
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of what a caller sends.
const maxDepth = 100

// decodeJSON reads data into v, which is of shape sc. Members that the model
// does not have are skipped, of a repeated member the last wins, null is
// absence; anything that is not JSON or not of the shape is an error. No data
// at all is an empty structure, as AWS takes it.
func decodeJSON(data []byte, sc *Schema, v reflect.Value) error {
	d := jsonDecoder{data: data}
	d.space()
	if d.pos == len(data) && sc.Kind == Struct {
		return nil
	}
	if err := d.value(sc, "", v); err != nil {
		return err
	}
	d.space()
	if d.pos < len(data) {
		return serialization("Unexpected data after the document")
	}
	return nil
}

func serialization(format string, args ...any) *APIError {
	return NewError(http.StatusBadRequest, "SerializationException", fmt.Sprintf(format, args...))
}

type jsonDecoder struct {
	data   []byte
	pos    int
	depth  int
	values int // members and elements so far
}

// maxValues bounds the members and elements of a document, whatever they are
// nested in: each costs many times the memory that it has in the text. AWS's
// longest list is one of 10,000 log events.
const maxValues = 60_000

func (d *jsonDecoder) count() error {
	if d.values++; d.values > maxValues {
		return serialization("The document has too many members and elements")
	}
	return nil
}

func (d *jsonDecoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek is the next byte after white space, 0 at the end.
func (d *jsonDecoder) peek() byte {
	d.space()
	if d.pos < len(d.data) {
		return d.data[d.pos]
	}
	return 0
}

func (d *jsonDecoder) syntax() *APIError {
	if d.pos >= len(d.data) {
		return serialization("Unexpected end of the document")
	}
	return serialization("Unexpected character at offset %d of the document", d.pos)
}

func (d *jsonDecoder) enter() error {
	if d.depth++; d.depth > maxDepth {
		return serialization("The document is nested too deeply")
	}
	d.pos++
	return nil
}

// literal consumes word if it is next.
func (d *jsonDecoder) literal(word string) bool {
	if len(d.data)-d.pos >= len(word) && string(d.data[d.pos:d.pos+len(word)]) == word {
		d.pos += len(word)
		return true
	}
	return false
}

// value reads one value. v is a field or an element and stays zero for null.
func (d *jsonDecoder) value(sc *Schema, format string, v reflect.Value) error {
	c := d.peek()
	if c == 'n' {
		if !d.literal("null") {
			return d.syntax()
		}
		v.SetZero()
		return nil
	}
	switch sc.Kind {
	case Struct:
		if c != '{' {
			return d.mismatch(c, "structure")
		}
		return d.structure(sc, target(v))
	case List:
		if c != '[' {
			return d.mismatch(c, "list")
		}
		return d.list(sc, v)
	case Map:
		if c != '{' {
			return d.mismatch(c, "map")
		}
		return d.mapping(sc, v)
	case Document:
		start := d.pos
		if err := d.skip(); err != nil {
			return err
		}
		v.SetBytes(slices.Clone(d.data[start:d.pos]))
		return nil
	case Boolean:
		switch {
		case d.literal("true"):
			target(v).SetBool(true)
		case d.literal("false"):
			target(v).SetBool(false)
		default:
			return d.mismatch(c, "Boolean")
		}
		return nil
	case String:
		if c != '"' {
			return d.mismatch(c, "String")
		}
		s, err := d.string()
		if err != nil {
			return err
		}
		target(v).SetString(s)
		return nil
	case Blob:
		if c != '"' {
			return d.mismatch(c, "Blob")
		}
		s, err := d.string()
		if err != nil {
			return err
		}
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return serialization("A blob is not valid base64")
		}
		v.SetBytes(data)
		return nil
	case Timestamp:
		return d.timestamp(c, firstOf(format, sc.Format), v)
	}
	return d.numeric(c, sc, v)
}

var numberNames = [...]string{Integer: "Integer", Long: "Long", Float: "Float", Double: "Double"}

func (d *jsonDecoder) numeric(c byte, sc *Schema, v reflect.Value) error {
	name := numberNames[sc.Kind]
	bits := 64
	if sc.Kind == Integer || sc.Kind == Float {
		bits = 32
	}
	if c == '"' && (sc.Kind == Float || sc.Kind == Double) {
		s, err := d.string()
		if err != nil {
			return err
		}
		switch s {
		case "NaN", "Infinity", "-Infinity":
			f, _ := strconv.ParseFloat(s, 64)
			target(v).SetFloat(f)
			return nil
		}
		return serialization("STRING_VALUE can not be converted to a %s", name)
	}
	if c != '-' && (c < '0' || c > '9') {
		return d.mismatch(c, name)
	}
	text, err := d.number()
	if err != nil {
		return err
	}
	if sc.Kind == Float || sc.Kind == Double {
		f, err := strconv.ParseFloat(text, bits)
		if err != nil {
			return serialization("The number %s is out of the range of %s", shorten(text), name)
		}
		target(v).SetFloat(f)
		return nil
	}
	n, err := strconv.ParseInt(text, 10, bits)
	if err != nil && strings.ContainsAny(text, ".eE") {
		// 1.0 and 1e3 are integers too.
		f, ferr := strconv.ParseFloat(text, 64)
		if ferr == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			n = int64(f)
			err = nil
			if bits == 32 && n != int64(int32(n)) {
				err = strconv.ErrRange
			}
		}
	}
	if err != nil {
		return serialization("The number %s is out of the range of %s", shorten(text), name)
	}
	target(v).SetInt(n)
	return nil
}

func (d *jsonDecoder) timestamp(c byte, format string, v reflect.Value) error {
	var text string
	var err error
	switch {
	case c == '"':
		text, err = d.string()
	case c == '-' || (c >= '0' && c <= '9'):
		text, err = d.number()
		format = "unixTimestamp"
	default:
		return d.mismatch(c, "Timestamp")
	}
	if err != nil {
		return err
	}
	t, err := parseTime(text, format)
	if err != nil {
		return serialization("%s can not be converted to a Timestamp", shorten(text))
	}
	target(v).Set(reflect.ValueOf(t))
	return nil
}

// mismatch words what AWS says when the JSON type is not that of the model,
// unless what is there is not JSON at all.
func (d *jsonDecoder) mismatch(c byte, want string) error {
	if err := d.skip(); err != nil {
		return err
	}
	got := "NUMBER_VALUE"
	switch c {
	case '{':
		return serialization("Start of structure or map found where not expected.")
	case '[':
		return serialization("Start of list found where not expected.")
	case '"':
		got = "STRING_VALUE"
	case 't':
		got = "TRUE_VALUE"
	case 'f':
		got = "FALSE_VALUE"
	}
	switch want {
	case "list":
		return serialization("Expected list or null")
	case "structure", "map":
		return serialization("Expected structure or map or null")
	}
	article := "a"
	if want == "Integer" {
		article = "an"
	}
	return serialization("%s can not be converted to %s %s", got, article, want)
}

func (d *jsonDecoder) structure(sc *Schema, v reflect.Value) error {
	fields := sc.bind(v.Type()).fields
	return d.object(func(key []byte) error {
		i, ok := sc.byName[string(key)]
		if !ok {
			return d.skip()
		}
		m := &sc.Members[i]
		return d.value(m.Schema, m.Format, v.Field(fields[i]))
	})
}

func (d *jsonDecoder) mapping(sc *Schema, v reflect.Value) error {
	m := reflect.MakeMap(v.Type())
	elem := reflect.New(v.Type().Elem()).Elem()
	err := d.object(func(raw []byte) error {
		key := string(raw)
		if d.peek() == 'n' {
			// A null value is no entry: the model has no sparse maps.
			return d.skip()
		}
		elem.SetZero()
		if err := d.value(sc.Elem.Schema, sc.Elem.Format, elem); err != nil {
			return err
		}
		m.SetMapIndex(reflect.ValueOf(key), elem)
		return nil
	})
	v.Set(m)
	return err
}

func (d *jsonDecoder) list(sc *Schema, v reflect.Value) error {
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	return d.array(func() error {
		if d.peek() == 'n' {
			// A null is no element: the model has no sparse lists.
			return d.skip()
		}
		return d.value(sc.Elem.Schema, sc.Elem.Format, grow(v))
	})
}

// object reads an object and calls member at each value.
// key is only good until member returns.
func (d *jsonDecoder) object(member func(key []byte) error) error {
	if err := d.enter(); err != nil {
		return err
	}
	if d.peek() == '}' {
		d.pos++
		d.depth--
		return nil
	}
	for {
		if d.peek() != '"' {
			return d.syntax()
		}
		key, err := d.raw()
		if err != nil {
			return err
		}
		if d.peek() != ':' {
			return d.syntax()
		}
		d.pos++
		if err := d.count(); err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.pos++
		case '}':
			d.pos++
			d.depth--
			return nil
		default:
			return d.syntax()
		}
	}
}

// array reads an array and calls element at each value.
func (d *jsonDecoder) array(element func() error) error {
	if err := d.enter(); err != nil {
		return err
	}
	if d.peek() == ']' {
		d.pos++
		d.depth--
		return nil
	}
	for {
		if err := d.count(); err != nil {
			return err
		}
		if err := element(); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			d.depth--
			return nil
		default:
			return d.syntax()
		}
	}
}

// skip reads over a value, which must be JSON.
func (d *jsonDecoder) skip() error {
	switch c := d.peek(); c {
	case '{':
		return d.object(func([]byte) error { return d.skip() })
	case '[':
		return d.array(d.skip)
	case '"':
		_, err := d.raw()
		return err
	case 't', 'f', 'n':
		if d.literal("true") || d.literal("false") || d.literal("null") {
			return nil
		}
		return d.syntax()
	default:
		_, err := d.number()
		return err
	}
}

// number reads a number by JSON's grammar.
func (d *jsonDecoder) number() (string, error) {
	start := d.pos
	digits := func() bool {
		from := d.pos
		for d.pos < len(d.data) && d.data[d.pos] >= '0' && d.data[d.pos] <= '9' {
			d.pos++
		}
		return d.pos > from
	}
	next := func(set string) bool {
		if d.pos < len(d.data) && strings.IndexByte(set, d.data[d.pos]) >= 0 {
			d.pos++
			return true
		}
		return false
	}
	next("-")
	if next("0") {
		if d.pos < len(d.data) && d.data[d.pos] >= '0' && d.data[d.pos] <= '9' {
			return "", d.syntax()
		}
	} else if !digits() {
		return "", d.syntax()
	}
	if next(".") && !digits() {
		return "", d.syntax()
	}
	if next("eE") {
		next("+-")
		if !digits() {
			return "", d.syntax()
		}
	}
	return string(d.data[start:d.pos]), nil
}

// string reads a string, at whose opening quote the decoder stands.
func (d *jsonDecoder) string() (string, error) {
	b, err := d.raw()
	return string(b), err
}

// raw is string without a copy, where there are no escapes.
func (d *jsonDecoder) raw() ([]byte, error) {
	d.pos++
	start := d.pos
	ascii := true
	for ; d.pos < len(d.data); d.pos++ {
		switch c := d.data[d.pos]; {
		case c == '"':
			s := d.data[start:d.pos]
			if !ascii && !utf8.Valid(s) {
				return nil, serialization("The document is not valid UTF-8")
			}
			d.pos++
			return s, nil
		case c == '\\':
			return d.escaped(start)
		case c < ' ':
			return nil, d.syntax()
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, d.syntax()
}

// escaped is string once an escape was met.
func (d *jsonDecoder) escaped(start int) ([]byte, error) {
	out := slices.Clone(d.data[start:d.pos])
	for d.pos < len(d.data) {
		c := d.data[d.pos]
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return nil, serialization("The document is not valid UTF-8")
			}
			d.pos++
			return out, nil
		case c < ' ':
			return nil, d.syntax()
		case c != '\\':
			out = append(out, c)
			d.pos++
			continue
		}
		d.pos++
		if d.pos == len(d.data) {
			return nil, d.syntax()
		}
		switch c := d.data[d.pos]; c {
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
			r, ok := d.hex4(d.pos + 1)
			if !ok {
				return nil, d.syntax()
			}
			d.pos += 4
			if utf16.IsSurrogate(r) {
				// A lone half becomes U+FFFD, as everywhere in Go.
				low, ok := rune(0), false
				if d.pos+2 < len(d.data) && d.data[d.pos+1] == '\\' && d.data[d.pos+2] == 'u' {
					low, ok = d.hex4(d.pos + 3)
				}
				if r = utf16.DecodeRune(r, low); ok && r != utf8.RuneError {
					d.pos += 6
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			return nil, d.syntax()
		}
		d.pos++
	}
	return nil, d.syntax()
}

func (d *jsonDecoder) hex4(at int) (rune, bool) {
	if at+4 > len(d.data) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(d.data[at:at+4]), 16, 32)
	return rune(n), err == nil
}

// shorten keeps what a caller sent from making a message arbitrarily long.
func shorten(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "..."
	}
	return s
}
