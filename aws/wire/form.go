package wire

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Query and EC2 Query write a request as a form whose keys are paths:
// Tags.member.1.Key=x, or in EC2 TagSpecification.1.Tag.1.Key=x.

// A formNode is the parameters as the tree that their names spell.
type formNode struct {
	value string
	set   bool // value was given, maybe as ""
	kids  map[string]*formNode
}

const (
	maxParams  = 20000 // AWS's own bodies are far below
	maxFormKey = 1000
	maxNodes   = 3 * maxParams // parts of names: each is a map
	// maxUnsigned is maxNodes where nobody has said who calls. What is asked
	// without credentials has few parameters.
	maxUnsigned = 1000
)

// parameters yields the parameters of a form body or URL query to visit, and
// keeps none.
func parameters(raw string, visit func(name, value string) error) error {
	count := 0
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		if count++; count > maxParams {
			return malformedForm("The request has too many parameters.")
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil || name == "" {
			return malformedForm("The query string is not correctly encoded.")
		}
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return malformedForm("The query string is not valid UTF-8.")
		}
		if len(name) > maxFormKey || strings.Count(name, ".") > maxDepth {
			return malformedForm("A parameter name is too long.")
		}
		if err := visit(name, value); err != nil {
			return err
		}
	}
	return nil
}

// parseForm makes the tree of a form body or URL query, of at most so many
// nodes. Of a repeated name the last wins.
func parseForm(raw string, into *formNode, most int) error {
	nodes := 0
	return parameters(raw, func(name, value string) error {
		n := into
		for part := range strings.SplitSeq(name, ".") {
			if n.kids[part] == nil {
				nodes++
			}
			n = n.make(part)
		}
		if nodes > most {
			return malformedForm("The request has too many parameters.")
		}
		n.value, n.set = value, true
		return nil
	})
}

func malformedForm(message string) *APIError {
	return NewError(http.StatusBadRequest, "MalformedQueryString", message)
}

func (n *formNode) make(part string) *formNode {
	k := n.kids[part]
	if k == nil {
		if n.kids == nil {
			n.kids = map[string]*formNode{}
		}
		k = &formNode{}
		n.kids[part] = k
	}
	return k
}

// get is the value of a plain parameter.
func (n *formNode) get(name string) string {
	if k := n.kids[name]; k != nil {
		return k.value
	}
	return ""
}

// A formCodec knows one dialect.
type formCodec struct {
	ec2 bool
}

// name is the parameter name of a structure's member.
func (c formCodec) name(m *Member) string {
	if c.ec2 {
		if m.QueryName != "" {
			return m.QueryName
		}
		return fieldName(firstOf(m.Location, m.Name))
	}
	return firstOf(m.Location, m.Name)
}

// wrapper is the part between a list or map and its indexes, "" if none.
func (c formCodec) wrapper(m *Member) string {
	sc := m.Schema
	switch {
	case c.ec2 || sc.Flat || m.Flat:
		return ""
	case sc.Kind == Map:
		return "entry"
	}
	return firstOf(sc.Elem.Location, "member")
}

func (c formCodec) decode(n *formNode, sc *Schema, v reflect.Value) error {
	return c.structure(n, sc, v, "")
}

func (c formCodec) structure(n *formNode, sc *Schema, v reflect.Value, path string) error {
	fields := sc.bind(v.Type()).fields
	for i := range sc.Members {
		m := &sc.Members[i]
		name := c.name(m)
		k := n.kids[name]
		if k == nil {
			continue
		}
		if path != "" {
			name = path + "." + name
		}
		if err := c.value(k, m, v.Field(fields[i]), name); err != nil {
			return err
		}
	}
	return nil
}

func (c formCodec) value(n *formNode, m *Member, v reflect.Value, path string) error {
	sc := m.Schema
	switch sc.Kind {
	case Struct:
		return c.structure(n, sc, target(v), path)
	case List:
		if w := n.kids[c.wrapper(m)]; w != nil && c.wrapper(m) != "" {
			n = w
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, len(n.kids)))
		return c.indexed(n, path, func(k *formNode, path string) error {
			return c.value(k, sc.Elem, grow(v), path)
		})
	case Map:
		if w := n.kids[c.wrapper(m)]; w != nil && c.wrapper(m) != "" {
			n = w
		}
		entries := reflect.MakeMap(v.Type())
		v.Set(entries)
		keyName, valueName := firstOf(sc.Key.Location, "key"), firstOf(sc.Elem.Location, "value")
		return c.indexed(n, path, func(k *formNode, path string) error {
			elem := reflect.New(v.Type().Elem()).Elem()
			if n := k.kids[valueName]; n != nil {
				if err := c.value(n, sc.Elem, elem, path+"."+valueName); err != nil {
					return err
				}
			}
			entries.SetMapIndex(reflect.ValueOf(k.get(keyName)), elem)
			return nil
		})
	}
	if !n.set {
		return c.malformed(path, "")
	}
	return c.scalar(n.value, m, v, path)
}

// indexed visits the items of a list in the order of their numbers. Gaps are
// closed, as AWS does.
func (c formCodec) indexed(n *formNode, path string, visit func(*formNode, string) error) error {
	indexes := make([]int, 0, len(n.kids))
	for k := range n.kids {
		i, err := strconv.ParseUint(k, 10, 31)
		if err != nil || strconv.FormatUint(i, 10) != k {
			return c.malformed(path+"."+k, "")
		}
		indexes = append(indexes, int(i))
	}
	slices.Sort(indexes)
	for _, i := range indexes {
		k := strconv.Itoa(i)
		if err := visit(n.kids[k], path+"."+k); err != nil {
			return err
		}
	}
	return nil
}

func (c formCodec) scalar(text string, m *Member, v reflect.Value, path string) error {
	if err := setText(text, m, v); err != nil {
		return c.malformed(path, text)
	}
	return nil
}

func (c formCodec) malformed(path, value string) error {
	if c.ec2 {
		return NewError(http.StatusBadRequest, "InvalidParameterValue",
			fmt.Sprintf("Invalid value '%s' for %s.", shorten(value), path))
	}
	return NewError(http.StatusBadRequest, "MalformedInput",
		fmt.Sprintf("The parameter %s is malformed.", path))
}

// setText sets v to a scalar written as text, as forms and XML have it.
func setText(text string, m *Member, v reflect.Value) error {
	sc := m.Schema
	switch sc.Kind {
	case String:
		target(v).SetString(text)
	case Boolean:
		switch text {
		case "true", "True", "TRUE", "1":
			target(v).SetBool(true)
		case "false", "False", "FALSE", "0":
			target(v).SetBool(false)
		default:
			return fmt.Errorf("%q is not a boolean", text)
		}
	case Integer, Long:
		bits := 64
		if sc.Kind == Integer {
			bits = 32
		}
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return err
		}
		target(v).SetInt(n)
	case Float, Double:
		bits := 64
		if sc.Kind == Float {
			bits = 32
		}
		f, err := strconv.ParseFloat(text, bits)
		if err != nil {
			return err
		}
		target(v).SetFloat(f)
	case Timestamp:
		t, err := parseTime(text, firstOf(m.Format, sc.Format))
		if err != nil {
			return err
		}
		target(v).Set(reflect.ValueOf(t))
	case Blob:
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return err
		}
		v.SetBytes(data)
	default:
		return fmt.Errorf("shape %s is no scalar", sc.Name)
	}
	return nil
}

// text is the inverse of setText. v is not a pointer.
func text(m *Member, v reflect.Value) string {
	sc := m.Schema
	switch sc.Kind {
	case Boolean:
		return strconv.FormatBool(v.Bool())
	case Integer, Long:
		return strconv.FormatInt(v.Int(), 10)
	case Float:
		return formatFloat(v.Float(), 32)
	case Double:
		return formatFloat(v.Float(), 64)
	case Timestamp:
		return formatTime(timeOf(v), firstOf(m.Format, sc.Format))
	case Blob:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	}
	return v.String()
}

// encode appends the parameters of v, a structure of shape sc.
func (c formCodec) encode(b []byte, sc *Schema, v reflect.Value, path string) []byte {
	bound := sc.bind(v.Type())
	for i := range sc.Members {
		m := &sc.Members[i]
		if f := v.Field(bound.fields[i]); present(f) {
			b = c.encodeValue(b, m, f, path+c.name(m))
		}
	}
	return b
}

func (c formCodec) encodeValue(b []byte, m *Member, v reflect.Value, path string) []byte {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	sc := m.Schema
	if w := ""; sc.Kind == List || sc.Kind == Map {
		if v.Len() == 0 {
			if c.ec2 {
				return b // EC2 has no way to say it
			}
			return appendParam(b, path, "")
		}
		if w = c.wrapper(m); w != "" {
			path += "." + w
		}
	}
	switch sc.Kind {
	case Struct:
		return c.encode(b, sc, v, path+".")
	case List:
		for i := range v.Len() {
			b = c.encodeValue(b, sc.Elem, v.Index(i), path+"."+strconv.Itoa(i+1))
		}
		return b
	case Map:
		for i, key := range sortedKeys(v) {
			p := path + "." + strconv.Itoa(i+1) + "."
			b = appendParam(b, p+firstOf(sc.Key.Location, "key"), key.String())
			b = c.encodeValue(b, sc.Elem, v.MapIndex(key), p+firstOf(sc.Elem.Location, "value"))
		}
		return b
	}
	return appendParam(b, path, text(m, v))
}

func appendParam(b []byte, name, value string) []byte {
	if len(b) > 0 {
		b = append(b, '&')
	}
	b = append(b, url.QueryEscape(name)...)
	b = append(b, '=')
	return append(b, url.QueryEscape(value)...)
}
