package sdk

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What Terraform's provider does with a resource, as it does it: create, read
// until nothing differs from what was configured, change one attribute, read
// again, delete, read, and take one certain error for the end. A difference
// that AWS would not show is a plan that never becomes empty.

// A resource is one of Terraform's, in the hands of the SDK.
type resource struct {
	read func() (any, error)
	gone string // code of the error that says there is none
}

// same demands that what is read is what is wanted, and byte by byte the same
// when it is read again.
func (r resource) same(t *testing.T, want any) {
	t.Helper()
	first, second := r.text(t), r.text(t)
	if first != second {
		t.Errorf("it reads differently twice:\n%s\n%s", first, second)
	}
	var got, wanted any
	if err := errors.Join(json.Unmarshal([]byte(first), &got), json.Unmarshal([]byte(encode(t, want)), &wanted)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("drift (-want +got):\n%s", diff)
	}
}

func (r resource) text(t *testing.T) string {
	t.Helper()
	v, err := r.read()
	if err != nil {
		t.Fatal(err)
	}
	return encode(t, v)
}

func (r resource) isGone(t *testing.T) {
	t.Helper()
	if v, err := r.read(); codeOf(err) != r.gone {
		t.Errorf("after the end: %v, %v, want %s", v, err, r.gone)
	}
}

// encode writes v as JSON without what is absent: nil and the SDK's metadata.
func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(bare(reflect.ValueOf(v)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func bare(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return bare(v.Elem())
	case reflect.Struct:
		if v.Type().PkgPath() == "time" {
			return v.Interface()
		}
		out := map[string]any{}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() || f.Name == "ResultMetadata" || v.Field(i).IsZero() {
				continue
			}
			out[f.Name] = bare(v.Field(i))
		}
		return out
	case reflect.Slice:
		out := []any{}
		for i := range v.Len() {
			out = append(out, bare(v.Index(i)))
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for _, k := range v.MapKeys() {
			out[k.String()] = bare(v.MapIndex(k))
		}
		return out
	}
	return v.Interface()
}
