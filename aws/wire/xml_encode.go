package wire

import (
	"reflect"
	"unicode/utf8"
)

// An xmlCodec knows the names of elements in one dialect's responses.
type xmlCodec struct {
	ec2 bool
}

func (c xmlCodec) name(m *Member) string { return firstOf(m.Location, m.Name) }

// item is the element around an item of a list.
func (c xmlCodec) item(elem *Member) string {
	if c.ec2 {
		return firstOf(elem.Location, "item")
	}
	return firstOf(elem.Location, "member")
}

// encode appends the elements of v's members. lists is as in appendJSON.
func (c xmlCodec) encode(b []byte, sc *Schema, v reflect.Value, lists bool) []byte {
	bound := sc.bind(v.Type())
	for i := range sc.Members {
		m := &sc.Members[i]
		f := v.Field(bound.fields[i])
		if !present(f) && (!lists || m.Schema.Kind != List) {
			continue
		}
		b = c.element(b, c.name(m), m, f)
	}
	return b
}

func (c xmlCodec) element(b []byte, name string, m *Member, v reflect.Value) []byte {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	sc := m.Schema
	flat := sc.Flat || m.Flat
	switch sc.Kind {
	case Struct:
		b = openTag(b, name)
		b = c.encode(b, sc, v, false)
		return closeTag(b, name)
	case List:
		item := c.item(sc.Elem)
		if flat {
			item = name
		} else if v.Len() == 0 {
			return append(append(append(b, '<'), name...), "/>"...)
		} else {
			b = openTag(b, name)
		}
		for i := range v.Len() {
			b = c.element(b, item, sc.Elem, v.Index(i))
		}
		if !flat {
			b = closeTag(b, name)
		}
		return b
	case Map:
		entry := "entry"
		if flat {
			entry = name
		} else {
			b = openTag(b, name)
		}
		for _, key := range sortedKeys(v) {
			b = openTag(b, entry)
			b = c.element(b, firstOf(sc.Key.Location, "key"), sc.Key, key)
			b = c.element(b, firstOf(sc.Elem.Location, "value"), sc.Elem, v.MapIndex(key))
			b = closeTag(b, entry)
		}
		if !flat {
			b = closeTag(b, name)
		}
		return b
	}
	return leaf(b, name, text(m, v))
}

// leaf appends an element that holds text.
func leaf(b []byte, name, text string) []byte {
	b = openTag(b, name)
	b = appendXMLText(b, text)
	return closeTag(b, name)
}

func openTag(b []byte, name string) []byte {
	b = append(b, '<')
	b = append(b, name...)
	return append(b, '>')
}

func closeTag(b []byte, name string) []byte {
	b = append(b, '<', '/')
	b = append(b, name...)
	return append(b, '>')
}

// appendXMLText escapes s. What XML cannot hold becomes U+FFFD.
func appendXMLText(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		esc := ""
		switch {
		case r == '&':
			esc = "&amp;"
		case r == '<':
			esc = "&lt;"
		case r == '>':
			esc = "&gt;"
		case r == '\r':
			esc = "&#xD;" // a parser would make it a newline
		case r < ' ' && r != '\n' && r != '\t', r == utf8.RuneError && size == 1, r == 0xfffe, r == 0xffff:
			esc = "\ufffd"
		}
		if esc != "" {
			b = append(b, s[start:i]...)
			b = append(b, esc...)
			start = i + size
		}
		i += size
	}
	return append(b, s[start:]...)
}
