package wire

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
)

// A binding ties a structure's schema to its Go type, once. A shape has
// exactly one Go type.
type binding struct {
	once   sync.Once
	typ    reflect.Type
	fields []int    // for each member the index of its field
	keys   []string // for each member `"name":`, ready to be written as JSON
}

// bind returns the binding of sc, a structure, to t.
func (sc *Schema) bind(t reflect.Type) *binding {
	b := &sc.bound
	b.once.Do(func() {
		index := make(map[string]int, t.NumField())
		for i := range t.NumField() {
			index[t.Field(i).Name] = i
		}
		b.typ = t
		b.fields = make([]int, len(sc.Members))
		b.keys = make([]string, len(sc.Members))
		for i, m := range sc.Members {
			field, ok := index[fieldName(m.Name)]
			if !ok && strings.EqualFold(m.Name, "message") {
				field, ok = index["Message"]
			}
			if !ok {
				panic(fmt.Sprintf("wire: %s has no field for member %s of %s", t, m.Name, sc.Name))
			}
			b.fields[i] = field
			b.keys[i] = `"` + m.Name + `":`
		}
	})
	if b.typ != t {
		panic(fmt.Sprintf("wire: schema %s is of %s, not of %s", sc.Name, b.typ, t))
	}
	return b
}

// fieldName is the Go name of a member: its own with an upper-case initial.
func fieldName(member string) string {
	if c := member[0]; 'a' <= c && c <= 'z' {
		return string(c-'a'+'A') + member[1:]
	}
	return member
}

// beanName is the name of a member in AWS's messages: with a lower-case initial.
func beanName(member string) string {
	if c := member[0]; 'A' <= c && c <= 'Z' {
		return string(c-'A'+'a') + member[1:]
	}
	return member
}

// present reports whether a field holds something: nil and, for strings
// without pointer (enums, error messages), "" are absence. A Stream is no part
// of the document it is announced in.
func present(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return !v.IsNil()
	case reflect.String:
		return v.Len() > 0
	case reflect.Func:
		return false
	}
	return true
}

// target makes room in v, a field or an element, and returns what is to be
// set. It always makes new room, so that of two values the last wins whole.
func target(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		v.Set(p)
		return p.Elem()
	}
	return v
}

// timeOf reads the time in v without copying where that is possible.
func timeOf(v reflect.Value) time.Time {
	if v.CanAddr() {
		return *v.Addr().Interface().(*time.Time)
	}
	return v.Interface().(time.Time)
}

// grow appends a zero element to the slice v and returns it.
func grow(v reflect.Value) reflect.Value {
	n := v.Len()
	v.Grow(1)
	v.SetLen(n + 1)
	e := v.Index(n)
	e.SetZero()
	return e
}
