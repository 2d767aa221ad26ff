package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzString holds the fast way through plain strings against the standard
// library's decoder, with what needs care at every place in a word of eight.
func FuzzString(f *testing.F) {
	for _, c := range []string{"\"", "\\", "\x1f", " ", "!", "\x7f", "\u00e9", "\xff", "#", "["} {
		for i := range 17 {
			f.Add(strings.Repeat("a", i) + c + strings.Repeat("z", 16-i))
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := appendJSONString(nil, s)
		var back string
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%q became %s: %v", s, b, err)
		}
		if utf8.ValidString(s) && back != s {
			t.Errorf("%q came back as %q", s, back)
		}
		if !utf8.Valid(b) || bytes.ContainsAny(b, "\n\r\t") {
			t.Errorf("%q became %q", s, b)
		}
	})
}
