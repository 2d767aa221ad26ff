package wire

import (
	"encoding/base64"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// appendJSON appends v, which is of shape sc, as AWS JSON. A structure leaves
// out what is absent; if lists is set, its own absent lists are written as
// empty ones (see Call.EncodeResponse).
func appendJSON(b []byte, sc *Schema, format string, v reflect.Value, lists bool) []byte {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch sc.Kind {
	case Struct:
		bound := sc.bind(v.Type())
		b = append(b, '{')
		first := true
		for i := range sc.Members {
			m := &sc.Members[i]
			f := v.Field(bound.fields[i])
			if !present(f) && (!lists || m.Schema.Kind != List) {
				continue
			}
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(b, bound.keys[i]...)
			b = appendJSON(b, m.Schema, m.Format, f, false)
		}
		return append(b, '}')
	case List:
		b = append(b, '[')
		if all, ok := reflect.TypeAssert[[]string](v); ok {
			for i, s := range all {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendJSONString(b, s)
			}
			return append(b, ']')
		}
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, sc.Elem.Schema, sc.Elem.Format, v.Index(i), false)
		}
		return append(b, ']')
	case Map:
		b = append(b, '{')
		for i, key := range sortedKeys(v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSONString(b, key.String())
			b = append(b, ':')
			b = appendJSON(b, sc.Elem.Schema, sc.Elem.Format, v.MapIndex(key), false)
		}
		return append(b, '}')
	case String:
		return appendJSONString(b, v.String())
	case Integer, Long:
		return strconv.AppendInt(b, v.Int(), 10)
	case Boolean:
		return strconv.AppendBool(b, v.Bool())
	case Float:
		return appendJSONFloat(b, v.Float(), 32)
	case Double:
		return appendJSONFloat(b, v.Float(), 64)
	case Timestamp:
		return appendJSONTime(b, timeOf(v), firstOf(format, sc.Format))
	case Blob:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"')
	case Document:
		if v.Len() == 0 {
			return append(b, "null"...)
		}
		return append(b, v.Bytes()...)
	}
	return append(b, "null"...)
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// sortedKeys makes the output of maps the same every time.
func sortedKeys(v reflect.Value) []reflect.Value {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	return keys
}

func appendJSONFloat(b []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		b = append(b, '"')
		b = append(b, formatFloat(f, bits)...)
		return append(b, '"')
	}
	return append(b, formatFloat(f, bits)...)
}

// formatFloat writes a number the way every protocol does.
func formatFloat(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	form := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		form = 'e'
	}
	return strconv.FormatFloat(f, form, -1, bits)
}

// appendJSONTime writes a time as seconds with up to three decimals, which is
// the precision that AWS answers with.
func appendJSONTime(b []byte, t time.Time, format string) []byte {
	switch format {
	case "iso8601", "rfc822":
		b = append(b, '"')
		b = append(b, formatTime(t, format)...)
		return append(b, '"')
	}
	return appendEpoch(b, t)
}

func appendEpoch(b []byte, t time.Time) []byte {
	ms := t.UnixMilli()
	if ms < 0 {
		b, ms = append(b, '-'), -ms
	}
	b = strconv.AppendInt(b, ms/1000, 10)
	if ms %= 1000; ms != 0 {
		b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return b
}

const hexDigits = "0123456789abcdef"

// plain is how many of s's first bytes need no escape and are ASCII: nearly
// always all of them, so that eight are looked at in one step.
func plain(s string) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(s); i += 8 {
		x := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		quote, back := x^(ones*'"'), x^(ones*'\\')
		// The high bit of each byte that is below a space, a quote, a backslash or not ASCII. A
		// borrow can only mark a byte after one that is marked already.
		if (x|(x-ones*' ')|(quote-ones)|(back-ones))&highs != 0 {
			break
		}
	}
	for i < len(s) && s[i] >= ' ' && s[i] < utf8.RuneSelf && s[i] != '"' && s[i] != '\\' {
		i++
	}
	return i
}

// appendJSONString quotes s. What is not UTF-8 becomes U+FFFD.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := plain(s); i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			b = append(b, s[start:i]...)
			b = append(b, "\ufffd"...)
			i++
			start = i
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
