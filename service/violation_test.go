package service_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/store"
)

// Requests that are right but for exactly one constraint of the model: each is
// refused in the words of its service, about that constraint and no other, and
// nothing is written. BERTH_VIOLATIONS says how many are made per operation.
func TestOneViolationIsRefused(t *testing.T) {
	rounds := 25
	if s := os.Getenv("BERTH_VIOLATIONS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		rounds = n
	}
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	sessions, err := auth.NewSessions(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	root, err := iam.Bootstrap(t.Context(), db, account, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	authorizer := &auth.Authorizer{Sessions: sessions}
	services := everything(t, db, sessions, authorizer)
	door, err := service.New(service.Config{DB: db, Region: region, Authorizer: authorizer,
		Verifier: &auth.Verifier{Sessions: sessions, Region: region}, Services: services})
	if err != nil {
		t.Fatal(err)
	}
	signer := sigv4.Signer{AccessKeyID: root.AccessKeyID, Secret: root.Secret}
	seed := uint64(time.Now().UnixNano())
	for _, reg := range services {
		t.Run(reg.Name, func(t *testing.T) {
			t.Parallel()
			client := &wire.Client{Endpoint: "http://door", HTTP: &http.Client{Transport: through{door}},
				Sign: func(r *http.Request, body []byte) error {
					signer.Sign(r, body, reg.SigningName, region, time.Now())
					return nil
				}}
			tried, free := 0, 0
			for _, name := range slices.Sorted(maps.Keys(reg.Operations)) {
				op := reg.Operations[name]
				g := &generator{rand: rand.New(rand.NewPCG(seed, uint64(len(name)))), form: reg.Protocol == wire.Query || reg.Protocol == wire.EC2Query}
				before := db.Snapshot().Revision()
				made := 0
				for i := 0; i < rounds && (made > 0 || i < 60); i++ {
					in := op.New()
					g.structure(op.Input(), reflect.ValueOf(in).Elem(), 0)
					if err := wire.Validate(op, in); err != nil {
						t.Fatalf("seed %d: a good %s is refused: %v", seed, name, err)
					}
					x, ok := g.violate(op, in)
					if !ok {
						continue // this one has nothing to violate
					}
					made++
					var err error
					if op.Streams {
						err = client.Stream(t.Context(), reg.Service, name, in, func(any) bool { return false })
					} else {
						err = client.Call(t.Context(), reg.Service, name, in, nil)
					}
					if why := x.judge(reg.Style, err); why != "" {
						t.Fatalf("seed %d: %s with %s %s: %s\ngot %v", seed, name, strings.Join(x.path, "."), x.text, why, err)
					}
				}
				if now := db.Snapshot().Revision(); now != before {
					t.Errorf("seed %d: refused calls of %s wrote to the store", seed, name)
				}
				tried += made
				if made == 0 {
					free++
				}
			}
			t.Logf("%d violations of %d operations; %d have no constraint", tried, len(reg.Operations)-free, free)
			if tried == 0 {
				t.Error("no operation has a constraint")
			}
		})
	}
}

// through hands requests to a handler without a network.
type through struct{ h http.Handler }

func (t through) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r.RemoteAddr = "127.0.0.1:1"
	t.h.ServeHTTP(w, r)
	return w.Result(), nil
}

// A violation is the one thing that is wrong with a request.
type violation struct {
	path []string
	text string // what messages say of the constraint
	gone bool   // something required is missing
	do   func()
}

// judge says what is wrong with a service's answer to the violation, or "".
func (x *violation) judge(style wire.Style, err error) string {
	if err == nil {
		return "was accepted"
	}
	wantCode, wantText := "InvalidParameterException", x.text
	bean := make([]string, len(x.path))
	for i, p := range x.path {
		bean[i] = strings.ToLower(p[:min(1, len(p))]) + p[min(1, len(p)):]
	}
	count := "1 validation error detected: "
	switch style {
	case wire.StyleECS:
		if x.gone && len(x.path) == 1 {
			wantCode, wantText, count = "ClientException", strings.ToUpper(x.path[0][:1])+x.path[0][1:]+" can not be blank.", ""
		}
	case wire.StyleECR:
		count = "Invalid parameter at '" + strings.Join(x.path, ".") + "' failed to satisfy constraint: "
		if wantText = strings.TrimPrefix(strings.TrimPrefix(x.text, "Member "), "must satisfy "); strings.HasPrefix(wantText, "regular expression") {
			wantText = "must satisfy regular expression"
		}
	case wire.StyleEC2:
		wantCode, wantText, count = "InvalidParameterValue", "", "Value ("
		if x.gone {
			wantCode, wantText, count = "MissingParameter", "", "The request must contain the parameter "
		}
	case wire.StyleQuery:
		wantCode = "ValidationError"
	case wire.StyleSSM:
		wantCode = "ValidationException"
	}
	if style != wire.StyleECR && style != wire.StyleEC2 && count != "" {
		wantText = "'" + strings.Join(bean, ".") + "' failed to satisfy constraint: " + wantText
	}
	if e, ok := errors.AsType[wire.Error](err); !ok || e.ErrorCode() != wantCode {
		return "wants " + wantCode
	}
	if m := err.Error(); !strings.Contains(m, count) || !strings.Contains(m, wantText) {
		return fmt.Sprintf("wants %q and %q", count, wantText)
	}
	return ""
}

// A generator fills inputs with what their schemas allow.
type generator struct {
	rand *rand.Rand
	form bool // a form cannot say "an empty list"
}

const deepest = 5

func (g *generator) structure(sc *wire.Schema, v reflect.Value, depth int) {
	any := false
	for round := 0; round < 2 && !any; round++ {
		for i := range sc.Members {
			m := &sc.Members[i]
			f := field(v, m.Name)
			wanted := m.Required || depth < deepest && g.rand.IntN(3) == 0 || round == 1 && depth < deepest+3
			if wanted && g.value(m.Schema, f, depth+1) {
				any = true
				if round == 1 && !m.Required {
					return // one is enough for a structure to be seen in a form
				}
			}
		}
		if !g.form || depth == 0 {
			return
		}
	}
}

// field is the field of a member; its name differs in the case of its first letter.
func field(v reflect.Value, member string) reflect.Value {
	if f := v.FieldByName(strings.ToUpper(member[:1]) + member[1:]); f.IsValid() {
		return f
	}
	return v.FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, member) })
}

// value sets v to something good. It returns false, and leaves v alone, if it knows nothing good.
func (g *generator) value(sc *wire.Schema, v reflect.Value, depth int) bool {
	if v.Kind() == reflect.Pointer {
		e := reflect.New(v.Type().Elem())
		if !g.value(sc, e.Elem(), depth) {
			return false
		}
		v.Set(e)
		return true
	}
	switch sc.Kind {
	case wire.Struct:
		g.structure(sc, v, depth)
	case wire.List:
		n := g.count(sc, depth)
		l := reflect.MakeSlice(v.Type(), n, n)
		for i := range n {
			if !g.value(sc.Elem.Schema, l.Index(i), depth+1) {
				return false
			}
		}
		v.Set(l)
	case wire.Map:
		n := g.count(sc, depth)
		m := reflect.MakeMap(v.Type())
		for tries := 0; m.Len() < n && tries < 100; tries++ {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			if !g.value(sc.Key.Schema, k, depth+1) || !g.value(sc.Elem.Schema, e, depth+1) {
				return false
			}
			m.SetMapIndex(k, e)
		}
		if m.Len() < n {
			return false
		}
		v.Set(m)
	case wire.String:
		s, ok := g.text(sc)
		if !ok {
			return false
		}
		v.SetString(s)
	case wire.Integer, wire.Long:
		lo, hi := bounds(sc, 0, 1000)
		v.SetInt(int64(lo) + g.rand.Int64N(int64(hi-lo)+1))
	case wire.Float, wire.Double:
		lo, hi := bounds(sc, 0, 1000)
		v.SetFloat(lo + math.Floor(g.rand.Float64()*(hi-lo)))
	case wire.Boolean:
		v.SetBool(g.rand.IntN(2) == 0)
	case wire.Timestamp:
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000+g.rand.Int64N(1e6), 0).UTC()))
	case wire.Blob:
		n := g.count(sc, depth)
		v.SetBytes([]byte(strings.Repeat("b", n)))
	default:
		return false
	}
	return true
}

func bounds(sc *wire.Schema, lo, hi float64) (float64, float64) {
	if sc.HasMin {
		lo, hi = sc.Min, sc.Min+1000
	}
	if sc.HasMax {
		hi = min(sc.Max, max(hi, lo))
		if !sc.HasMin {
			lo = min(lo, hi)
		}
	}
	return lo, hi
}

// count is how many items a list, map or blob is given.
func (g *generator) count(sc *wire.Schema, depth int) int {
	lo, hi := 0, 3
	if g.form {
		lo = 1
	}
	if depth > deepest {
		hi = lo
	}
	if sc.HasMin {
		lo = max(lo, int(sc.Min))
		hi = max(hi, lo)
	}
	if sc.HasMax {
		hi = min(hi, int(sc.Max))
	}
	return lo + g.rand.IntN(max(hi-lo, 0)+1)
}

// text is a string that the schema allows.
func (g *generator) text(sc *wire.Schema) (string, bool) {
	if len(sc.Enum) > 0 {
		return sc.Enum[g.rand.IntN(len(sc.Enum))], true
	}
	good := func(s string) bool {
		n := utf8.RuneCountInString(s)
		return (!sc.HasMin || n >= int(sc.Min)) && (!sc.HasMax || n <= int(sc.Max)) && (sc.Pattern == nil || sc.Pattern.Match(s)) && s != ""
	}
	lo := 1
	if sc.HasMin {
		lo = max(lo, int(sc.Min))
	}
	candidates := []string{strings.Repeat("a", lo), strings.Repeat("1", lo), account, "arn:aws:iam::000000000000:role/" + strings.Repeat("x", lo), "https://example.org/" + strings.Repeat("x", lo), strings.Repeat("A", lo)}
	if sc.Pattern != nil {
		if re, err := syntax.Parse(javaLess(sc.Pattern.String()), syntax.Perl); err == nil {
			for range 20 {
				var b strings.Builder
				g.match(&b, re.Simplify(), 1+g.rand.IntN(4))
				if s := b.String(); good(s) {
					return s, true
				}
			}
			for n := 8; n < 5000; n *= 2 { // a minimal length asks for more repetitions
				var b strings.Builder
				g.match(&b, re.Simplify(), n)
				if s := b.String(); good(s) {
					return s, true
				}
			}
		}
	} else if lo < 5000 {
		s := strings.Repeat(string(rune('a'+g.rand.IntN(26))), lo+g.rand.IntN(4))
		if good(s) {
			return s, true
		}
	}
	for _, s := range candidates {
		if good(s) {
			return s, true
		}
	}
	return "", false
}

var javaChar = regexp.MustCompile(`\\u([0-9A-Fa-f]{4})`)

func javaLess(p string) string { return javaChar.ReplaceAllString(p, `\x{$1}`) }

// match writes something that re matches, repeating what may be repeated up to n times.
func (g *generator) match(b *strings.Builder, re *syntax.Regexp, n int) {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			b.WriteRune(r)
		}
	case syntax.OpCharClass:
		// Of the plain characters, if there are any: a form carries no control characters.
		var plain []rune
		for i := 0; i+1 < len(re.Rune); i += 2 {
			for r := max(re.Rune[i], ' '); r <= min(re.Rune[i+1], '~'); r++ {
				plain = append(plain, r)
			}
		}
		switch {
		case len(plain) > 0:
			b.WriteRune(plain[g.rand.IntN(len(plain))])
		case len(re.Rune) > 0:
			b.WriteRune(re.Rune[0])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte("abcxyz019"[g.rand.IntN(9)])
	case syntax.OpCapture:
		g.match(b, re.Sub[0], n)
	case syntax.OpConcat:
		for _, s := range re.Sub {
			g.match(b, s, n)
		}
	case syntax.OpAlternate:
		g.match(b, re.Sub[g.rand.IntN(len(re.Sub))], n)
	case syntax.OpStar, syntax.OpPlus:
		for range n {
			g.match(b, re.Sub[0], n)
		}
	case syntax.OpQuest:
		if g.rand.IntN(2) == 0 || n > 4 {
			g.match(b, re.Sub[0], n)
		}
	case syntax.OpRepeat:
		times := re.Min
		if re.Max != re.Min {
			times = min(re.Min+g.rand.IntN(n), max(re.Max, re.Min))
			if re.Max < 0 {
				times = re.Min + n
			}
		}
		for range times {
			g.match(b, re.Sub[0], n)
		}
	}
}

// violate breaks one constraint of a good input. It returns false if there is none to break.
func (g *generator) violate(op *wire.Operation, in any) (violation, bool) {
	var all []violation
	g.find(op.Input(), reflect.ValueOf(in).Elem(), nil, &all)
	if len(all) == 0 {
		return violation{}, false
	}
	x := all[g.rand.IntN(len(all))]
	x.do()
	return x, true
}

func (g *generator) find(sc *wire.Schema, v reflect.Value, path []string, all *[]violation) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	add := func(text string, do func()) {
		*all = append(*all, violation{path: slices.Clone(path), text: text, do: do})
	}
	length := func(set func(n int) bool) {
		for _, c := range []struct {
			has  bool
			n    int
			text string
		}{
			{sc.HasMin && sc.Min > 0, int(sc.Min) - 1, "greater than or equal to " + strconv.Itoa(int(sc.Min))},
			{sc.HasMax && sc.Max < 10_000, int(sc.Max) + 1, "less than or equal to " + strconv.Itoa(int(sc.Max))},
		} {
			if c.has && set(c.n) {
				add("Member must have length "+c.text, func() {})
				x := &(*all)[len(*all)-1]
				x.do = func() { set(c.n) }
			}
		}
	}
	switch sc.Kind {
	case wire.Struct:
		for i := range sc.Members {
			m := &sc.Members[i]
			f := field(v, m.Name)
			if reflect.Indirect(f).IsValid() && !(f.Kind() != reflect.Pointer && f.IsZero()) {
				here := append(slices.Clone(path), m.Name)
				// What is the only member of a structure takes the structure with it in a form.
				if m.Required && (f.Kind() == reflect.Pointer || f.Kind() == reflect.Slice || f.Kind() == reflect.Map || f.Kind() == reflect.String) && (!g.form || len(path) == 0 || members(v) > 1) {
					*all = append(*all, violation{path: here, text: "Member must not be null", gone: true, do: func() { f.SetZero() }})
				}
				g.find(m.Schema, f, here, all)
			}
		}
	case wire.List:
		// Lengths of lists of plain values only: a copied structure would do, too, but grows fast.
		if n := v.Len(); n > 0 && sc.HasMax && sc.Max < 1000 {
			add("Member must have length less than or equal to "+strconv.Itoa(int(sc.Max)), func() {
				l := reflect.MakeSlice(v.Type(), 0, int(sc.Max)+1)
				for range int(sc.Max) + 1 {
					l = reflect.Append(l, v.Index(0))
				}
				v.Set(l)
			})
		}
		if sc.HasMin && sc.Min > 0 && (!g.form || sc.Min > 1) {
			add("Member must have length greater than or equal to "+strconv.Itoa(int(sc.Min)), func() { v.Set(v.Slice(0, int(sc.Min)-1)) })
		}
		for i := range v.Len() {
			g.find(sc.Elem.Schema, v.Index(i), append(slices.Clone(path), strconv.Itoa(i+1), "member"), all)
		}
	case wire.String:
		old := v.String()
		// What of it breaks only the one constraint.
		length(func(n int) bool {
			s := strings.Repeat("a", n)
			if sc.Pattern != nil && !sc.Pattern.Match(s) {
				s = old
				for utf8.RuneCountInString(s) < n && s != "" {
					s += s[len(s)-1:]
				}
				if len(s) > n && n >= 0 {
					s = s[:n]
				}
			}
			// An enum's zero value is absence, and so is an empty string behind no pointer.
			if sc.Enum != nil || !v.CanSet() || s == "" && v.Kind() == reflect.String && v.Type() != reflect.TypeOf("") || utf8.RuneCountInString(s) != n || sc.Pattern != nil && !sc.Pattern.Match(s) {
				return false
			}
			v.SetString(s)
			return true
		})
		v.SetString(old) // length tries what it offers
		if sc.Pattern != nil && sc.Enum == nil {
			for _, bad := range []string{"~", "!", " ", "\u00e9", "{}"} {
				s := bad
				if n := utf8.RuneCountInString(old); n > len(bad) {
					s = old[:len(old)-1] + bad
				}
				n := utf8.RuneCountInString(s)
				if utf8.ValidString(s) && !sc.Pattern.Match(s) && (!sc.HasMin || n >= int(sc.Min)) && (!sc.HasMax || n <= int(sc.Max)) {
					add("Member must satisfy regular expression pattern: "+sc.Pattern.String(), func() { v.SetString(s) })
					break
				}
			}
		}
		if sc.Enum != nil {
			add("Member must satisfy enum value set: ["+strings.Join(sc.Enum, ", ")+"]", func() { v.SetString("NoSuchValue") })
		}
	case wire.Integer, wire.Long:
		if sc.HasMin && sc.Min > math.MinInt32 {
			add("Member must have value greater than or equal to "+strconv.FormatFloat(sc.Min, 'f', -1, 64), func() { v.SetInt(int64(sc.Min) - 1) })
		}
		if sc.HasMax && sc.Max < math.MaxInt32 {
			add("Member must have value less than or equal to "+strconv.FormatFloat(sc.Max, 'f', -1, 64), func() { v.SetInt(int64(sc.Max) + 1) })
		}
	}
}

// members is how many members of a structure hold something.
func members(v reflect.Value) int {
	n := 0
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			n++
		}
	}
	return n
}
