package wire_test

import (
	"encoding/json"
	"math"
	"reflect"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
)

// services are all generated APIs, without handlers.
func services() []*wire.Service {
	return []*wire.Service{
		ecs.NewService(nil), ecr.NewService(nil), iam.NewService(nil),
		sts.NewService(nil), ec2.NewService(nil), logs.NewService(nil),
	}
}

// A filler makes values of a shape. What a protocol cannot say is not made.
type filler struct {
	t *rapid.T
	// emptyLists: the protocol can tell an empty list from none.
	emptyLists bool
	// emptyStructs: the protocol can tell an empty structure from none.
	emptyStructs bool
}

var (
	texts = rapid.OneOf(
		rapid.String(),
		rapid.SampledFrom([]string{"", " ", "a&b=c+d%", "<x>&\"'</x>", "\r\n\t", "\u2028𝄞\ufffd", `\u0041`, "null"}),
	)
	seconds = rapid.Int64Range(-62135596800, 253402300799)
)

// keepXML drops what XML cannot hold, so that what is written can be read.
func keepXML(s string) string {
	out := make([]rune, 0, len(s))
	for _, r := range s {
		if r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r != 0xfffe && r != 0xffff {
			out = append(out, r)
		}
	}
	return string(out)
}

func (f filler) structure(sc *wire.Schema, v reflect.Value, depth int) {
	full := rapid.IntRange(0, 3).Draw(f.t, "density")
	for i := range sc.Members {
		m := &sc.Members[i]
		field := v.FieldByName(goName(m.Name))
		if rapid.IntRange(0, 3).Draw(f.t, "skip") > full {
			continue
		}
		f.value(m.Schema, field, depth)
	}
}

func goName(s string) string {
	if c := s[0]; 'a' <= c && c <= 'z' {
		return string(c-'a'+'A') + s[1:]
	}
	return s
}

func (f filler) value(sc *wire.Schema, v reflect.Value, depth int) {
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		f.value(sc, p.Elem(), depth)
		if sc.Kind == wire.Struct && !f.emptyStructs && p.Elem().IsZero() {
			return
		}
		v.Set(p)
		return
	}
	if depth <= 0 && (sc.Kind == wire.Struct || sc.Kind == wire.List || sc.Kind == wire.Map) {
		return
	}
	switch sc.Kind {
	case wire.Struct:
		f.structure(sc, v, depth-1)
	case wire.List:
		n := rapid.IntRange(0, 2).Draw(f.t, "n")
		if n == 0 && !f.emptyLists {
			return
		}
		list := reflect.MakeSlice(v.Type(), 0, n)
		for range n {
			e := reflect.New(v.Type().Elem()).Elem()
			f.value(sc.Elem.Schema, e, depth-1)
			if !f.sayable(sc.Elem.Schema, e) {
				continue
			}
			list = reflect.Append(list, e)
		}
		if list.Len() > 0 || f.emptyLists {
			v.Set(list)
		}
	case wire.Map:
		n := rapid.IntRange(0, 2).Draw(f.t, "n")
		if n == 0 && !f.emptyLists {
			return
		}
		m := reflect.MakeMap(v.Type())
		for range n {
			e := reflect.New(v.Type().Elem()).Elem()
			f.value(sc.Elem.Schema, e, depth-1)
			if !f.sayable(sc.Elem.Schema, e) {
				continue
			}
			m.SetMapIndex(reflect.ValueOf(keepXML(texts.Draw(f.t, "key"))), e)
		}
		if m.Len() > 0 || f.emptyLists {
			v.Set(m)
		}
	case wire.String:
		v.SetString(keepXML(texts.Draw(f.t, "s")))
	case wire.Integer:
		v.SetInt(int64(rapid.Int32().Draw(f.t, "i")))
	case wire.Long:
		v.SetInt(rapid.Int64().Draw(f.t, "l"))
	case wire.Boolean:
		v.SetBool(rapid.Bool().Draw(f.t, "b"))
	case wire.Float:
		v.SetFloat(float64(float32(rapid.SampledFrom([]float64{0, 1.5, -3e-9, 1e30, math.Inf(1)}).Draw(f.t, "f"))))
	case wire.Double:
		v.SetFloat(rapid.OneOf(rapid.Float64(), rapid.Just(math.Inf(-1))).Draw(f.t, "d"))
	case wire.Timestamp:
		t := time.Unix(seconds.Draw(f.t, "t"), rapid.Int64Range(0, 999).Draw(f.t, "ms")*1e6).UTC()
		v.Set(reflect.ValueOf(t))
	case wire.Blob:
		v.SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(f.t, "blob"))
		if v.IsNil() {
			v.SetBytes([]byte{})
		}
	case wire.Document:
		v.SetBytes(json.RawMessage(`{"k":[1,"x",null,{"a":true}]}`))
	}
}

// sayable reports whether the protocol can say v where something must be said:
// inside a list or map. A structure or list that holds nothing is left out of
// a form, and null does not count in JSON.
func (f filler) sayable(sc *wire.Schema, v reflect.Value) bool {
	switch sc.Kind {
	case wire.Struct:
		return f.emptyStructs || !v.IsZero()
	case wire.List, wire.Map:
		return !v.IsNil()
	}
	return true
}
