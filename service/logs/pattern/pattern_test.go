package pattern

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Lines and documents of AWS's page on the syntax.
const (
	request = `127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534`
	trail   = `{"eventType":"UpdateTrail","sourceIPAddress":"111.111.111.111","arrayKey":["value","another value"],"objectList":[{"name":"a","id":1},{"name":"b","id":2}],"SomeObject":null,"cluster.name":"c","yes":true,"no":false,"n":-12.5e1}`
	users   = `{"user":{"id":1,"email":"John.Stiles@example.com"},"users":[{"id":2,"email":"John.Doe@example.com"},{"id":3,"email":"Jane.Doe@example.com"}],"actions":["GET","PUT","DELETE"],"coordinates":[[0,1,2],[4,5,6],[7,8,9]]}`
)

func TestMatch(t *testing.T) {
	for _, x := range []struct {
		pattern, message string
		want             bool
	}{
		{``, `anything`, true}, {`" "`, `anything`, true}, {`""`, ``, true},
		{`ERROR`, `[ERROR 400] BAD`, true}, {`ERROR`, `error`, false}, {`Über`, `an Über`, true},
		{`ERROR ARGUMENTS`, `ARGUMENTS with ERROR`, true}, {`ERROR ARGUMENTS`, `ERROR`, false},
		{`?ERROR ?ARGUMENTS`, `ARGUMENTS`, true}, {`?ERROR ?ARGUMENTS`, `REQUEST`, false},
		{`?ERROR ?ARGUMENTS REQUEST`, `[INFO] REQUEST FAILED`, true}, {`?ERROR ?ARGUMENTS REQUEST`, `ERROR`, false}, {`?ERROR -x`, `info`, true},
		{`"INTERNAL SERVER ERROR"`, `[ERROR 500] INTERNAL SERVER ERROR`, true}, {`"a b"`, `a  b`, false}, {`"say \"x\""`, `say "x"`, true},
		{`ERROR -ARGUMENTS`, `ERROR`, true}, {`ERROR -ARGUMENTS`, `ERROR ARGUMENTS`, false}, {`-"a b"`, `xa bx`, false}, {`-"a b"`, `ab`, true},
		{`%AUTHORIZED%`, `UNAUTHORIZED`, true}, {`%^AUTHORIZED%`, `UNAUTHORIZED`, false}, {`%gr[ae]y$%`, `light grey`, true},
		{`%10\.10\.0\.1%`, `10010,051`, false}, {`%10.10.0.1%`, `10010,051`, true}, {`%\d{3}%`, `a12b`, false}, {`%a{,2}b%`, `b`, true}, {`%^a{2,}$%`, `a`, false},
		{`%^starting|^shutting down%`, `shutting down`, true}, {`%^starting|^shutting down%`, `not shutting down`, false},
		{`%\x28%`, `(`, true}, {`%\[.\]%`, `[a]`, true}, {`%\S\w\W\D%`, `ab-c`, true}, {`-%a+%`, `b`, true}, {`?%x% ?y`, `y`, true}, {`%50\%%`, `50%`, true},

		{`[ip=%127\.0\.0\.[1-9]%, user, username, timestamp, request =*.html*, status_code = 4*, bytes]`, request, true},
		{`[ip=%127\.0\.0\.[2-9]%, user, username, timestamp, request =*.html*, status_code = 4*, bytes]`, request, false},
		{`[..., request =*.html*, status_code = 4*, bytes]`, request, true}, {`[..., request =*.php*, status_code = 4*, bytes]`, request, false},
		{`[ip, user, username, timestamp, request =*.html*, status_code = 404 || status_code = 410, bytes]`, request, true},
		{`[ip, ..., status_code >= 400 && status_code < 500, bytes > 1534]`, request, false}, {`[ip, ..., status_code >= 400 && status_code < 500, bytes > 1533]`, request, true},
		{`[ip, ..., (status_code = 1 || status_code = 404) && status_code != 5*, bytes]`, request, true},
		{`[ip, ..., timestamp = "10/Oct/2000:13:25:15 -0700", request, code, bytes]`, request, true},
		{`[w1=ERROR, w2]`, `ERROR 09/25/2014 12:00:02 Failed`, true}, {`[w1=ERROR, w2]`, `INFO ERROR`, false}, {`[w1=ERROR]`, `ERROR more`, false}, {`[w1=ERROR, w2]`, `ERROR`, false},
		{`[w1!=ERROR && w1!=WARNING, w2]`, `INFO x`, true}, {`[w1!=ERROR && w1!=WARNING, w2]`, `WARNING x`, false},
		{`[]`, `one`, true}, {`[a, b]`, `one`, false}, {`[...]`, ``, true}, {`[a > 1, ...]`, `x`, false},
		{`[logLevel, date, time, method, url=%/service/resource/[0-9]+$%, response_time]`, `INFO 09/25/2014 12:00:00 GET /service/resource/67 1200`, true},
		{`[logLevel, date, time, method, url=%/service/resource/[0-9]+$%, response_time]`, `INFO 09/25/2014 12:00:01 POST /service/resource/67/part/111 1310`, false},
		{`[x = 4.0, y]`, `4 z`, true}, {`[x = "4.0", y]`, `4 z`, false},

		{`{ $.eventType = "UpdateTrail" }`, trail, true}, {`{ $.eventType = UpdateTrail }`, trail, true}, {`{$.eventType!="UpdateTrail"}`, trail, false},
		{`{ $.sourceIPAddress != 123.123.* }`, trail, true}, {`{ $.sourceIPAddress = 111.*.111 }`, trail, true}, {`{ $.sourceIPAddress = 111.*.112 }`, trail, false},
		{`{ $.arrayKey[0] = "value" }`, trail, true}, {`{ $.arrayKey[1] = "value" }`, trail, false}, {`{ $.arrayKey[2] != "value" }`, trail, false},
		{`{ $.eventType = %Trail% }`, trail, true}, {`{ $.eventType != %Trail% }`, trail, false}, {`{ $.arrayKey[*] = %val.{2}% }`, trail, true}, {`{ $.arrayKey[*] = "none" }`, trail, false},
		{`{ $.* = %111\.111\.111\.1[0-9]{1,2}% }`, trail, true}, {`{ $.['cluster.name'] = "c" }`, trail, true}, {`{ $['cluster.name'] = "c" }`, trail, true},
		{`{ $.SomeObject IS NULL }`, trail, true}, {`{ $.yes IS TRUE }`, trail, true}, {`{ $.yes IS FALSE }`, trail, false}, {`{ $.no IS FALSE }`, trail, true}, {`{ $.absent IS NULL }`, trail, false},
		{`{ $.SomeOtherObject NOT EXISTS }`, trail, true}, {`{ $.SomeObject NOT EXISTS }`, trail, false}, {`{ $.objectList[*].x NOT EXISTS }`, trail, true},
		{`{ $.objectList[1].id = 2 }`, trail, true}, {`{ $.objectList[*].id > 1 }`, trail, true}, {`{ $.objectList[*].id > 2 }`, trail, false},
		{`{ $.objectList = * }`, trail, false}, {`{ $.eventType = "*" }`, trail, true}, {`{ $.n = "*" }`, trail, true}, {`{ $.absent = "*" }`, trail, false}, {`{ $.absent != "x" }`, trail, false},
		{`{ $.n = -125 }`, trail, true}, {`{ $.n <= -1.25e+2 }`, trail, true}, {`{ $.n < -125 }`, trail, false}, {`{ $.n != 1e-3 }`, trail, true}, {`{ $.eventType > 1 }`, trail, false}, {`{ $.n = -12* }`, trail, true},
		{`{ ($.user.id = 1) && ($.users[0].email = "John.Doe@example.com") }`, users, true},
		{`{ $.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = "nonmatch" && $.actions[2] = "nonmatch" }`, users, true},
		{`{ ($.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = "nonmatch") && $.actions[2] = "nonmatch" }`, users, false},
		{`{ ($.user.id = 2 && $.users[0].email = "nonmatch") || $.actions[2] = "GET" }`, users, false}, {`{ $.coordinates[1][2] = 6 }`, users, true},
		{`{ $.a = "x" }`, `{"a":"x"`, false}, {`{ $.a = "x" }`, `not JSON`, false}, {`{ $.a = "x" }`, `{"a":"\u0078"}`, true}, {`{ $.a = "x" }`, `["a"]`, false},
	} {
		p, err := Compile(x.pattern)
		if err != nil {
			t.Errorf("%s: %v", x.pattern, err)
			continue
		}
		if got := p.Match([]byte(x.message)); got != x.want {
			t.Errorf("%s on %s: %v", x.pattern, x.message, got)
		}
		needle(t, p, x.message)
	}
}

// needle holds that a match has what Needle promises.
func needle(t interface{ Errorf(string, ...any) }, p *Pattern, message string) {
	n, escaped := p.Needle()
	if p.Match([]byte(message)) && !bytes.Contains([]byte(message), n) && !(escaped && strings.Contains(message, `\`)) {
		t.Errorf("%q is selected without its needle %q", message, n)
	}
}

func TestRefused(t *testing.T) {
	for pattern, want := range map[string]string{
		`"open`: "Invalid filter pattern", `foo:bar`: "Invalid character(s) in term 'foo:bar'", `a"b`: `Invalid character(s) in term 'a"b'`, `"a"b`: "Invalid filter pattern",
		`?`: "Invalid filter pattern", `-`: "Invalid filter pattern", `%open`: "Invalid filter pattern", `%%`: "Invalid filter pattern", `%a(b)%`: `Invalid filter pattern: the character '(' is not supported in a regular expression`,
		`%é%`: `Invalid filter pattern: the character 'Ã' is not supported in a regular expression`, `%something!%`: `Invalid filter pattern: the character '!' is not supported in a regular expression`,
		`%[[:alpha:]]%`: "Invalid filter pattern", `%\pL%`: `Invalid filter pattern: \p is not supported in a regular expression`, `%a**%`: "Invalid filter pattern", `%a{2000}%`: "Invalid filter pattern", `%\`: "Invalid filter pattern",
		`%a% %b% %c%`: "Invalid filter pattern: a pattern can have at most 2 regular expressions",
		`[a`:          "Invalid filter pattern", `[a,]x`: "Invalid filter pattern", `[..., ...]`: "Invalid filter pattern", `[a = ]`: "Invalid filter pattern", `[a > x]`: "Invalid filter pattern", `[a = 1 || b = 2]`: "Invalid filter pattern", `[(a = 1]`: "Invalid filter pattern",
		`{`: "Invalid filter pattern", `{}`: "Invalid filter pattern", `{ $.a }`: "Invalid filter pattern", `{ $ = 1 }`: "Invalid filter pattern", `{ a = 1 }`: "Invalid filter pattern", `{ $.a = }`: "Invalid filter pattern", `{ $.a > "1" }`: "Invalid filter pattern",
		`{ $.a IS NOT NULL }`: "Invalid filter pattern", `{ $.a EXISTS }`: "Invalid filter pattern", `{ $.a = 1 } x`: "Invalid filter pattern", `{ ($.a = 1 }`: "Invalid filter pattern", `{ $.a = 1 && }`: "Invalid filter pattern", `{ $.*.* = 1 }`: "Invalid filter pattern",
		`{ $.* = 1 || $.a[*] = 1 || $.b[*] = 1 || $.c[*] = 1 }`: "Invalid filter pattern", `{ $.a[x] = 1 }`: "Invalid filter pattern", `{ $.a[1 = 1 }`: "Invalid filter pattern", `{ $.a = %x }`: "Invalid filter pattern", `{ $.a[99999999999999999999] = 1 }`: "Invalid filter pattern",
		`{` + strings.Repeat(`(`, 1000): "Invalid filter pattern", `[` + strings.Repeat(`(`, 1000): "Invalid filter pattern",
	} {
		if _, err := Compile(pattern); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", pattern, err, want)
		}
	}
}

func TestExtract(t *testing.T) {
	for _, x := range []struct {
		pattern, message, want string
	}{
		{`ERROR`, `ERROR`, `map[]`},
		{`[ip, id, user, timestamp, request, status_code, size]`, request, `map[$id:Prod $ip:127.0.0.1 $request:GET /index.html HTTP/1.0 $size:1534 $status_code:404 $timestamp:10/Oct/2000:13:25:15 -0700 $user:frank]`},
		{`[..., size]`, request, `map[$1:127.0.0.1 $2:Prod $3:frank $4:10/Oct/2000:13:25:15 -0700 $5:GET /index.html HTTP/1.0 $6:404 $size:1534]`},
		{`[ip, ...]`, `a b`, `map[$2:b $ip:a]`},
		{`{ $.user.id = 1 && $.users[*].email = "J*" }`, users, `map[$.user.id:1 $.users[*].email:John.Doe@example.com]`},
	} {
		p, err := Compile(x.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(p.Extract([]byte(x.message))); got != x.want {
			t.Errorf("%s: %s, want %s", x.pattern, got, x.want)
		}
	}
	p, _ := Compile(`{ $.user.id = 1 }`)
	if v, ok := p.Value([]byte(users), `$.coordinates[1][0]`); !ok || v != "4" {
		t.Errorf("%q %v", v, ok)
	}
	if _, ok := p.Value([]byte(users), `$.coordinates`); ok {
		t.Error("an array has a value")
	}
	for ref, want := range map[string]bool{`$.x.y`: true, `$x`: false, `x`: false, `$.x y`: false} {
		if p.Named(ref) != want {
			t.Errorf("%s: %v", ref, !want)
		}
	}
	p, _ = Compile(`[a, ..., b]`)
	for ref, want := range map[string]bool{`$a`: true, `$b`: true, `$2`: true, `$c`: false, `$0`: false} {
		if p.Named(ref) != want {
			t.Errorf("%s: %v", ref, !want)
		}
	}
}

// The property tests write a pattern and say what it means in one go, in the
// plainest way there is: encoding/json, path.Match, splitting by hand.

type rule struct {
	text string
	want func(any) bool
}

func drawRule(t *rapid.T, depth int) rule {
	if depth > 0 && rapid.Bool().Draw(t, "compound") {
		l, r := drawRule(t, depth-1), drawRule(t, depth-1)
		if rapid.Bool().Draw(t, "and") {
			return rule{"(" + l.text + ") && (" + r.text + ")", func(v any) bool { return l.want(v) && r.want(v) }}
		}
		return rule{"(" + l.text + " || " + r.text + ")", func(v any) bool { return l.want(v) || r.want(v) }}
	}
	keys := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "0", "1"}), 1, 3).Draw(t, "path")
	sel := "$"
	for _, k := range keys {
		if k == "0" || k == "1" {
			sel += "[" + k + "]"
		} else {
			sel += "." + k
		}
	}
	get := func(v any) (any, bool) {
		for _, k := range keys {
			switch x := v.(type) {
			case map[string]any:
				var ok bool
				if v, ok = x[k]; !ok || k == "0" || k == "1" {
					return nil, false
				}
			case []any:
				i, err := strconv.Atoi(k)
				if err != nil || i >= len(x) {
					return nil, false
				}
				v = x[i]
			default:
				return nil, false
			}
		}
		return v, true
	}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return rule{sel + " NOT EXISTS", func(v any) bool { _, ok := get(v); return !ok }}
	case 1:
		return rule{sel + " IS TRUE", func(v any) bool { x, _ := get(v); return x == true }}
	case 2:
		n, op := rapid.IntRange(-2, 2).Draw(t, "number"), rapid.SampledFrom([]string{"<", "<=", ">", ">=", "="}).Draw(t, "op")
		return rule{fmt.Sprintf("%s %s %d", sel, op, n), func(v any) bool {
			x, _ := get(v)
			if s, ok := x.(string); ok && op == "=" {
				return s == strconv.Itoa(n)
			}
			f, ok := x.(float64)
			return ok && map[string]bool{"<": f < float64(n), "<=": f <= float64(n), ">": f > float64(n), ">=": f >= float64(n), "=": f == float64(n)}[op]
		}}
	}
	glob := rapid.StringMatching(`[xy*]{0,4}`).Draw(t, "glob")
	equal := rapid.Bool().Draw(t, "equal")
	return rule{sel + map[bool]string{true: "=", false: "!="}[equal] + strconv.Quote(glob), func(v any) bool {
		x, _ := get(v)
		var s string
		switch x := x.(type) {
		case string:
			s = x
		case float64, bool:
			s = fmt.Sprint(x)
		default:
			return false
		}
		ok, _ := path.Match(glob, s)
		return ok == equal
	}}
}

func drawValue(t *rapid.T, depth int) any {
	switch n := rapid.IntRange(0, 7).Draw(t, "type"); {
	case n < 2 && depth > 0:
		m := map[string]any{}
		for _, k := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), 0, 2).Draw(t, "keys") {
			m[k] = drawValue(t, depth-1)
		}
		return m
	case n < 4 && depth > 0:
		l := []any{}
		for range rapid.IntRange(0, 2).Draw(t, "length") {
			l = append(l, drawValue(t, depth-1))
		}
		return l
	case n == 4:
		return float64(rapid.IntRange(-2, 2).Draw(t, "n"))
	case n == 5:
		return rapid.Bool().Draw(t, "bool")
	case n == 6:
		return nil
	}
	return rapid.StringMatching(`[xy1]{0,4}`).Draw(t, "string")
}

func TestJSONMeansWhatItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRule(t, 3)
		p, err := Compile("{ " + r.text + " }")
		if err != nil {
			t.Fatalf("%s: %v", r.text, err)
		}
		v := map[string]any{"a": drawValue(t, 2), "b": drawValue(t, 2)}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := p.Match(b), r.want(v); got != want {
			t.Fatalf("%s on %s: %v, want %v", r.text, b, got, want)
		}
		needle(t, p, string(b))
	})
}

func TestFieldsMeanWhatTheySay(t *testing.T) {
	word := rapid.StringMatching(`[ab1]{1,3}`)
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(word, 0, 5).Draw(t, "words")
		n := rapid.IntRange(1, 4).Draw(t, "fields")
		rest := rapid.IntRange(-1, n).Draw(t, "rest")
		var items, want []string // want: the glob of each field
		for i := range n {
			if i == rest {
				items = append(items, "...")
			}
			name := "f" + strconv.Itoa(i)
			g := rapid.SampledFrom([]string{"", "a", "*b", "a*", "b*1"}).Draw(t, "glob")
			if want = append(want, g); g == "" {
				items = append(items, name)
			} else {
				items = append(items, name+" = "+g)
			}
		}
		if rest == n {
			items = append(items, "...")
		}
		p, err := Compile("[" + strings.Join(items, ", ") + "]")
		if err != nil {
			t.Fatal(err)
		}
		ok := len(words) >= n && (rest >= 0 || len(words) == n || want[n-1] == "")
		expect := map[string]string{}
		for i, w := range words {
			f := i
			if rest >= 0 && i >= rest {
				f = n - (len(words) - i)
			}
			name := strconv.Itoa(i + 1)
			if f < n && (rest < 0 || i < rest || f >= rest) {
				if ok && want[f] != "" {
					m, _ := path.Match(want[f], w)
					ok = ok && m
				}
				name = "f" + strconv.Itoa(f)
			}
			expect["$"+name] = w
		}
		line := strings.Join(words, " ")
		if got := p.Match([]byte(line)); got != ok {
			t.Fatalf("%v on %q: %v, want %v", items, line, got, ok)
		}
		if got := p.Extract([]byte(line)); ok && !maps.Equal(got, expect) {
			t.Fatalf("%v on %q: %v, want %v", items, line, got, expect)
		}
		needle(t, p, line)
	})
}

func TestTermsMeanWhatTheySay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var items []string
		all, any, none := true, false, true
		only, some := true, false
		m := rapid.StringMatching(`[ab ]{0,8}`).Draw(t, "message")
		for range rapid.IntRange(1, 4).Draw(t, "terms") {
			w := rapid.StringMatching(`[ab]{1,3}`).Draw(t, "term")
			has := strings.Contains(m, w)
			kind := rapid.SampledFrom([]string{"", "?", "-"}).Draw(t, "kind")
			switch kind {
			case "":
				all, only = all && has, false
			case "?":
				any, some = any || has, true
			case "-":
				none, only = none && !has, false
			}
			if rapid.Bool().Draw(t, "quoted") {
				w = `"` + w + `"`
			}
			items = append(items, kind+w)
		}
		text := strings.Join(items, " ")
		p, err := Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := p.Match([]byte(m)), all && none && (!only || !some || any); got != want {
			t.Fatalf("%s on %q: %v, want %v", text, m, got, want)
		}
		needle(t, p, m)
	})
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`?a -"b c" d`, `[a, ..., b > 1 && b != 2*]`, `{ ($.a[0].b = "x*" || $.* IS NULL) && $['c'] = %\d{,3}% }`, `%\x4%`, `{$.a=1`} {
		f.Add(s, request)
		f.Add(s, users)
	}
	f.Fuzz(func(t *testing.T, text, message string) {
		p, err := Compile(text)
		if err != nil {
			return
		}
		needle(t, p, message)
		p.Extract([]byte(message))
		p.Value([]byte(message), text)
	})
}

func BenchmarkMatch(b *testing.B) {
	for name, x := range map[string][2]string{"term": {"ERROR", request}, "any": {"?ERROR ?WARN", request}, "fields": {"[..., code = 5*, bytes]", request}, "json": {`{ $.eventType = "UpdateTrail" && $.n < 0 }`, trail}, "json-miss": {`{ $.eventType = "Delete" }`, trail}, "regexp": {`%5[0-9]{2} \d+$%`, request}} {
		b.Run(name, func(b *testing.B) {
			p, err := Compile(x[0])
			if err != nil {
				b.Fatal(err)
			}
			m := []byte(x[1])
			b.SetBytes(int64(len(m)))
			for b.Loop() {
				p.Match(m)
			}
		})
	}
}
