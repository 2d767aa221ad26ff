package wire

import (
	"encoding/xml"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// decode reads the children of the element that d has just opened into v, a
// structure, up to its end. It is the client's half: elements that the model
// does not have are skipped.
func (c xmlCodec) decode(d *xml.Decoder, sc *Schema, v reflect.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("the response is nested too deeply")
	}
	bound := sc.bind(v.Type())
	return children(d, func(e xml.StartElement) error {
		for i := range sc.Members {
			m := &sc.Members[i]
			if c.name(m) == e.Name.Local {
				return c.value(d, m, v.Field(bound.fields[i]), depth+1)
			}
		}
		return d.Skip()
	})
}

func (c xmlCodec) value(d *xml.Decoder, m *Member, v reflect.Value, depth int) error {
	sc := m.Schema
	flat := sc.Flat || m.Flat
	switch sc.Kind {
	case Struct:
		return c.decode(d, sc, target(v), depth)
	case List:
		if flat {
			return c.value(d, sc.Elem, grow(v), depth+1)
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		return children(d, func(xml.StartElement) error {
			return c.value(d, sc.Elem, grow(v), depth+1)
		})
	case Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		entry := func(xml.StartElement) error {
			key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			err := children(d, func(e xml.StartElement) error {
				switch e.Name.Local {
				case firstOf(sc.Key.Location, "key"):
					return c.value(d, sc.Key, key, depth+1)
				case firstOf(sc.Elem.Location, "value"):
					return c.value(d, sc.Elem, elem, depth+1)
				}
				return d.Skip()
			})
			v.SetMapIndex(key, elem)
			return err
		}
		if flat {
			return entry(xml.StartElement{})
		}
		return children(d, entry)
	}
	s, err := chars(d)
	if err != nil {
		return err
	}
	if sc.Kind != String {
		s = strings.TrimSpace(s)
	}
	if err := setText(s, m, v); err != nil {
		return fmt.Errorf("element %s: %w", c.name(m), err)
	}
	return nil
}

// children calls visit at each child element, which visit reads to its end.
func children(d *xml.Decoder, visit func(xml.StartElement) error) error {
	for {
		t, err := d.Token()
		if err != nil {
			return noEOF(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			if err := visit(t); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		}
	}
}

// chars is the text of the element that d has just opened.
func chars(d *xml.Decoder) (string, error) {
	var b strings.Builder
	for {
		t, err := d.Token()
		if err != nil {
			return "", noEOF(err)
		}
		switch t := t.(type) {
		case xml.CharData:
			b.Write(t)
		case xml.StartElement:
			if err := d.Skip(); err != nil {
				return "", err
			}
		case xml.EndElement:
			return b.String(), nil
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
