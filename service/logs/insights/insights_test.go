package insights

import (
	"fmt"
	"math"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var base = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func run(t interface{ Fatalf(string, ...any) }, query string, limit int, messages ...string) (*Run, string) {
	q, bad := Compile(query)
	if bad != nil {
		t.Fatalf("%s: %v", query, bad)
	}
	r := q.Start(Options{Now: base, Limit: limit, Pointer: func(id string, time, seq int64) string { return fmt.Sprint("p", seq) }})
	n := q.Needle()
	for i, m := range messages {
		e := &Event{Time: base.Add(time.Duration(i) * time.Minute).UnixMilli(), Ingested: base.UnixMilli(), Seq: int64(i), ID: "id", Log: "1:g", Stream: "s", Message: []byte(m)}
		before := r.Matched()
		if err := r.Add(e); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if r.Matched() > before && !strings.Contains(m, string(n)) {
			t.Fatalf("%s: %q is selected without its needle %q", query, m, n)
		}
		copy(e.Message, strings.Repeat("!", len(m))) // what is kept must be a copy
	}
	rows, err := r.Rows()
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	var out []string
	for _, row := range rows {
		var cells []string
		for _, c := range row {
			if c.Name != "@ptr" {
				cells = append(cells, c.Value)
			}
		}
		out = append(out, strings.Join(cells, ","))
	}
	return r, strings.Join(out, " | ")
}

func TestCommands(t *testing.T) {
	apache := []string{`GET /a 200 10`, `GET /b 404 20`, `POST /a 500 30`, `GET /a 200 40`}
	jsons := []string{`{"level":"INFO","ms":5,"user":{"name":"ann","ids":[7,8]},"a.b":"dot","ok":true}`, `{"level":"ERROR","ms":12.5,"user":{"name":"bob"}}`, `plain`, `{"level":"ERROR","ms":"100"}`}
	for _, x := range []struct {
		query    string
		messages []string
		want     string
	}{
		{`fields @message`, []string{"a", "b"}, `b | a`}, // newest first
		{`fields @timestamp, @log, @logStream, @ingestionTime`, []string{"a"}, `2026-11-22 12:00:00.000,1:g,s,2026-11-22 12:00:00.000`},
		{`sort @timestamp asc | limit 2`, []string{"a", "b", "c"}, `2026-11-22 12:00:00.000,a | 2026-11-22 12:01:00.000,b`},
		{`fields @message | filter @message like /b/ # a comment` + "\n" + `| limit 1`, []string{"ab", "b", "c"}, `b`},
		{`fields @message | filter @message like "b" and @message not like 'ab'`, []string{"ab", "b", "c"}, `b`},
		{`fields @message | filter not (@message =~ /(?i)B/)`, []string{"ab", "b", "c"}, `c`},
		{`fields level, ms | filter level = "ERROR"`, jsons, `ERROR,100 | ERROR,12.5`},
		{`fields level | filter ms > 10`, jsons, `ERROR | ERROR`},
		{`fields user.name, user.ids.1, a.b, ok | filter ispresent(user.ids.0)`, jsons, `ann,8,dot,1`},
		{`fields @message | filter level in ["INFO", "WARN"] | display level`, jsons, `INFO`},
		{`fields @message | filter level not in ["INFO"] and ispresent(level) | display ms | sort ms desc`, jsons, `100 | 12.5`},
		{`parse @message "* * * *" as verb, path, code, bytes | filter code >= 400 | display verb, path, code`, apache, `POST,/a,500 | GET,/b,404`},
		{`parse @message /(?<verb>\w+) (?<path>\S+)/ | display path | limit 1`, apache, `/a`},
		{`parse /(\d+) (\d+)$/ as code, bytes | display bytes | sort bytes asc | limit 2`, apache, `10 | 20`},
		{`fields @message | parse @message "x *" as y`, []string{"a", "x 1 2"}, `x 1 2,1 2 | a`},
		{`parse @message "* * * *" as v, p, c, b | stats count(*) as n, sum(b), avg(b), min(b), max(b) by v | sort n desc`, apache, `GET,3,70,23.3333,10,40 | POST,1,30,30,30,30`},
		{`parse @message "* * * *" as v, p, c, b | stats count(*) by p | sort count(*) desc | limit 1`, apache, `/a,3`},
		{`parse @message "* * * *" as v, p, c, b | stats pct(b, 50), pct(b, 100), median(b), stddev(b), count_distinct(p), earliest(b), latest(b), sortsFirst(p), sortsLast(p)`, apache, `20,40,20,12.9099,2,10,40,/a,/b`},
		{`stats count(*) by bin(2m)`, []string{"a", "b", "c"}, `2026-11-22 12:02:00.000,1 | 2026-11-22 12:00:00.000,2`},
		{`stats count(*)`, nil, `0`}, {`stats count(*) by @log`, nil, ``}, {`filter 1 = 2 | stats sum(x) as s, count() as c`, []string{"a"}, `0`},
		{`stats count(x)`, []string{`{"x":1}`, `{}`}, `1`},
		{`stats count(*) as n by @message | stats max(n) as most, count(*) as kinds`, []string{"a", "b", "a"}, `2,2`},
		{`stats count(*) as n by @message | filter n > 1`, []string{"a", "b", "a"}, `a,2`},
		{`parse @message "* * * *" as v, p, c, b | display @message, p | dedup p`, apache, `GET /a 200 40,/a | GET /b 404 20,/b`},
		{`parse @message "* * * *" as v, p, c, b | sort b asc | dedup p | display b | limit 1`, apache, `10`},
		{`fields level | dedup level | display level`, []string{"x", "y", `{"level":"I"}`, `{"level":"I"}`}, `I |  | `}, // what is not there is no duplicate
		{`limit 2 | stats count(*)`, apache, `2`}, {`limit 3 | dedup @log | display @log`, apache, `1:g`}, {`limit 3 | sort @timestamp asc | filter @message like /POST/ | display @message`, apache, `POST /a 500 30`},
		{"fields `a-b` as x | display x", []string{`{"a-b":"v"}`}, `v`},
		{`fields ms * 2 + 1 as x, 2 ^ 3 ^ 0, -ms, 7 % 4, 10 / 4, 1 / 0, (1 + 2) * 3`, []string{`{"ms":5}`}, `11,2,-5,3,2.5,9`},
		{`fields abs(-3), ceil(1.2), floor(1.8), greatest(1, 3, 2), least(1, 3), log(1), sqrt(9)`, []string{"a"}, `3,2,1,3,1,0,3`},
		{`fields concat(@message, "-", 1), ltrim(" a"), rtrim("a "), trim(" a "), trim("xax", "x"), strlen("äb"), toupper("a"), tolower("B"), substr("abcd", 1), substr("abcd", 1, 2), replace("aXa", "X", "b"), strcontains("abc", "b")`, []string{"m"}, `m-1,a,a,a,a,2,A,b,bcd,bc,aba,1`},
		{`fields isempty(""), isblank(" "), isempty(x), ispresent(@message), coalesce(x, y, "z"), if(1 < 2, "yes", "no"), if(true and not false, 1, 0)`, []string{"m"}, `1,1,1,1,z,yes,1`},
		{`fields isValidIp("1.2.3.4"), isValidIpv4("::1"), isValidIpv6("::1"), isIpInSubnet("10.1.2.3", "10.1.0.0/16"), isIpv4InSubnet("10.2.2.3", "10.1.0.0/16"), isIpv6InSubnet("fe80::1", "fe80::/10")`, []string{"m"}, `1,0,1,1,0,1`},
		{`fields datefloor(@timestamp, 1d), dateceil(@timestamp, 1w), bin(1mo), bin(1h), fromMillis(0), toMillis(@timestamp), now()`, []string{"m"}, `2026-11-22 00:00:00.000,2026-11-23 00:00:00.000,2026-11-01 00:00:00.000,2026-11-22 12:00:00.000,1970-01-01 00:00:00.000,1795348800000,1795348800`},
		{`fields dateceil(@timestamp, 1mo) as c, datefloor(@timestamp, 1y) as f, bin(@timestamp, 30s) as b`, []string{"m"}, `2026-12-01 00:00:00.000,2026-01-01 00:00:00.000,2026-11-22 12:00:00.000`},
		{`fields @message | filter x != "a"`, []string{`{"x":"a"}`, `{"x":"b"}`}, `{"x":"b"}`},
		{`FIELDS @message | FILTER @message = 'b' OR @message = 'c' | SORT @message ASC`, []string{"a", "c", "b"}, `b | c`},
		{`fields @message | sort n desc`, []string{`{"n":9}`, `{"n":10}`, `none`, `{"n":"x"}`}, `{"n":10} | {"n":9} | {"n":"x"} | none`},
	} {
		if _, got := run(t, x.query, 0, x.messages...); got != x.want {
			t.Errorf("%s\n got %s\nwant %s", x.query, got, x.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	for query, want := range map[string]string{
		``:                                   "0-0 unexpected end of the query",
		`fields @message |`:                  "17-17 unexpected end of the query",
		`find x`:                             "0-1 unexpected symbol found f at line 1 and position 1",
		"fields a\n| fields b c":             "20-21 unexpected symbol found c at line 2 and position 12",
		`pattern @message`:                   "0-1 the command pattern is not supported by Berth",
		`fields @message | unnest a`:         "18-19 the command unnest is not supported by Berth",
		`limit 0`:                            "6-7 limit must be a number from 1 to 10000",
		`limit 10001`:                        "6-7 limit must be a number from 1 to 10000",
		`filter @message like /(/`:           "21-22 invalid regular expression: missing closing ): `(`",
		`filter @message like /a`:            "21-22 a regular expression is not closed",
		`filter x = "a`:                      "11-12 a string is not closed",
		`fields nope(1)`:                     "7-8 there is no function nope",
		`fields abs(1, 2)`:                   "7-8 abs does not take 2 arguments",
		`stats total(x)`:                     "6-7 total is not a function that aggregates",
		`stats pct(x, 101)`:                  "16-17 a percentile is a number from 0 to 100",
		`parse @message "* *" as a`:          "25-25 the pattern has 2 wildcards for 1 names",
		`fields (a`:                          "9-9 unexpected end of the query",
		`fields 5parsecs`:                    "8-9 unexpected symbol found p at line 1 and position 9",
		`filter ` + strings.Repeat("(", 200): "57-58 the query is nested too deeply",
		`filter ` + strings.Repeat("-", 200): "106-107 the query is nested too deeply",
	} {
		_, err := Compile(query)
		if err == nil {
			t.Errorf("%s is taken", query)
		} else if got := fmt.Sprintf("%d-%d %s", err.Start, err.End, err.Message); got != want {
			t.Errorf("%s\n got %s\nwant %s", query, got, want)
		}
	}
}

// Whatever the order and the number of goroutines, the rows are those that
// sorting by hand gives.
func TestRowsAreThoseOfPlainSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SliceOfN(rapid.IntRange(0, 30), 0, 200).Draw(t, "numbers")
		limit := rapid.IntRange(1, 50).Draw(t, "limit")
		q, bad := Compile(fmt.Sprintf(`parse @message "n=*" as n | filter n %% 3 != 1 | sort n asc, @timestamp asc | display n | limit %d`, limit))
		if bad != nil {
			t.Fatal(bad)
		}
		sums, bad := Compile(`parse @message "n=*" as n | stats count(*), sum(n), max(n), pct(n, 90) by n % 4 as k | sort k`)
		if bad != nil {
			t.Fatal(bad)
		}
		r, s := q.Start(Options{}), sums.Start(Options{})
		var wg sync.WaitGroup
		for part := range 4 {
			wg.Go(func() {
				for i := part; i < len(n); i += 4 {
					e := &Event{Time: int64(i), Message: fmt.Appendf(nil, "n=%d", n[i])}
					if r.Add(e) != nil || s.Add(e) != nil {
						panic("too much")
					}
				}
			})
		}
		wg.Wait()
		var want []int
		for _, x := range n {
			if x%3 != 1 {
				want = append(want, x)
			}
		}
		sort.Ints(want)
		want = want[:min(limit, len(want))]
		rows, err := r.Rows()
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, row := range rows {
			var x int
			fmt.Sscan(row[0].Value, &x)
			got = append(got, x)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%v, want %v", got, want)
		}
		groups := map[int][]int{}
		for _, x := range n {
			groups[x%4] = append(groups[x%4], x)
		}
		var lines, stats []string
		for k := range 4 {
			if g := groups[k]; len(g) > 0 {
				sort.Ints(g)
				sum := 0
				for _, x := range g {
					sum += x
				}
				lines = append(lines, fmt.Sprint(k, len(g), sum, g[len(g)-1], g[int(math.Ceil(0.9*float64(len(g))))-1]))
			}
		}
		rows, err = s.Rows()
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			stats = append(stats, fmt.Sprint(row[0].Value+" "+row[1].Value+" "+row[2].Value+" "+row[3].Value+" "+row[4].Value))
		}
		if strings.Join(stats, ";") != strings.Join(lines, ";") {
			t.Fatalf("%v, want %v", stats, lines)
		}
	})
}

// What is estimated is near enough.
func TestEstimates(t *testing.T) {
	q, bad := Compile(`parse @message "*" as n | stats pct(n, 50), pct(n, 99), count_distinct(n)`)
	if bad != nil {
		t.Fatal(bad)
	}
	r := q.Start(Options{})
	const n = 300_000
	for i := range n {
		if err := r.Add(&Event{Message: fmt.Append(nil, i+1)}); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := r.Rows()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{n / 2, n * 0.99, n} {
		var got float64
		fmt.Sscan(rows[0][i].Value, &got)
		if math.Abs(got-want) > 0.02*want {
			t.Errorf("%s is %v, want about %v", rows[0][i].Name, got, want)
		}
	}
}

// What a run holds is bounded.
func TestTooMuch(t *testing.T) {
	q, _ := Compile(`stats count(*) by @message`)
	r := q.Start(Options{})
	var err error
	for i := 0; err == nil && i < maxGroups+10; i++ {
		err = r.Add(&Event{Message: fmt.Append(nil, i)})
	}
	if err != ErrTooMuch {
		t.Errorf("groups without end: %v", err)
	}
	q, _ = Compile(`fields @message`)
	r = q.Start(Options{Pointer: func(string, int64, int64) string { return "" }})
	big := make([]byte, 1<<20)
	for i := range 100 {
		if err := r.Add(&Event{Time: int64(i), Message: big}); err != nil {
			t.Fatal(err)
		}
	}
	if r.held > maxHeld {
		t.Errorf("%d bytes are held", r.held)
	}
	if rows, err := r.Rows(); err != nil || len(rows) == 0 {
		t.Errorf("%d rows %v", len(rows), err)
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`fields a, b*2 as c | filter a like /x/ or not (b in [1, "2"]) | sort c desc | limit 5`, "stats count(*), pct(x, 9) as p by bin(5m), `k` | display p # end",
		`parse @message "a*b*" as x, y | dedup x | fields datefloor(@timestamp, 3mo), substr(x, 1, 2), -(-1)`, `parse /(?<a>.)(.)/ | filter a =~ /\//`,
	} {
		f.Add(s, `{"a":{"b":[1,"2"]},"x":5}`)
		f.Add(s, `aXbY`)
	}
	f.Fuzz(func(t *testing.T, query, message string) {
		if len(query) > 2000 {
			return
		}
		if _, err := Compile(query); err != nil {
			if err.Start < 0 || err.End < err.Start || err.Message == "" {
				t.Fatalf("%+v", err)
			}
			return
		}
		run(t, query, 10, message, "b", message)
	})
}
