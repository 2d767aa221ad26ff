package document

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// plain is a value as encoding/json gives it.
func plain(v *Value) any {
	switch v.Kind {
	case Null:
		return nil
	case True:
		return true
	case False:
		return false
	case Number:
		return json.Number(v.Text)
	case String:
		return string(v.Text)
	case Array:
		out := []any{}
		for i := range v.Items {
			out = append(out, plain(&v.Items[i]))
		}
		return out
	}
	out := map[string]any{}
	for i, k := range v.Keys {
		out[string(k)] = plain(&v.Items[i])
	}
	return out
}

func check(t *testing.T, b []byte) {
	t.Helper()
	// A reader that has read before reads the same.
	r := &Reader{}
	r.Parse([]byte(`{"x":[1,{"y":2}],"z":"w"}`))
	v, ok := r.Parse(b)
	if ok != json.Valid(b) {
		t.Fatalf("%q: taken %v, encoding/json %v", b, ok, json.Valid(b))
	}
	if !ok || !utf8.Valid(b) { // encoding/json replaces what is not UTF-8; messages are left as they are
		return
	}
	for _, text := range [][]byte{b, v.Append(nil)} {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if got := plain(&v); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %#v, want %#v", text, got, want)
		}
	}
}

var seeds = []string{
	``, `{}`, `[]`, `null`, ` {"a":1,"b":[true,false,null],"c":{"d":"e\n\u0041\ud83d\ude00\ud800x"}} `, `{"a":1,}`, `[1 2]`, `01`, `-`, `1.`, `1e`, `-0.5E+3`,
	`"\x"`, `"\u12"`, `"a`, "\"\x01\"", `{"a" 1}`, `{1:2}`, `[1,2`, `tru`, `{"a":1}x`, `{"a":1,"a":2}`, `"\ud800\ud800"`, `"\ud800\u0041"`,
}

func TestParseIsJSON(t *testing.T) {
	for _, s := range seeds {
		check(t, []byte(s))
	}
	if _, ok := Parse([]byte(strings.Repeat("[", 1<<20))); ok {
		t.Error("endless depth is taken")
	}
	v, _ := Parse([]byte(`{"a":[{"b":"x"},2]}`))
	if b := v.Get("a").At(0).Get("b"); b == nil || string(b.Text) != "x" {
		t.Errorf("a[0].b is %v", b)
	}
	if v.Get("a").At(2) != nil || v.Get("b") != nil || v.At(0) != nil || v.Get("a").Get("x") != nil {
		t.Error("something where nothing is")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) > maxDepth {
			return
		}
		check(t, b)
	})
}
