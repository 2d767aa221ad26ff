package insights

import (
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// expr yields a value for a row.
type expr interface{ eval(*row) Value }

type constant struct{ Value }

type field string

type logic struct {
	and         bool
	left, right expr
}

type negation struct{ of expr }

type comparison struct {
	op          string
	left, right expr
}

type like struct {
	value expr
	text  string
	re    *regexp.Regexp
	not   bool
}

type membership struct {
	value expr
	list  []expr
	not   bool
}

type arithmetic struct {
	op          byte
	left, right expr
}

type call struct {
	fn   func(r *row, args []Value) Value
	args []expr
}

func (c constant) eval(*row) Value { return c.Value }
func (f field) eval(r *row) Value  { return r.get(string(f)) }

func (l *logic) eval(r *row) Value {
	if l.left.eval(r).true() != l.and {
		return boolean(!l.and)
	}
	return boolean(l.right.eval(r).true())
}

func (n negation) eval(r *row) Value { return boolean(!n.of.eval(r).true()) }

func (c *comparison) eval(r *row) Value {
	a, b := c.left.eval(r), c.right.eval(r)
	switch c.op {
	case "=":
		return boolean(equal(a, b))
	case "!=":
		return boolean(!equal(a, b))
	}
	if a.kind == null || b.kind == null {
		return boolean(false)
	}
	x, ok := a.number()
	y, too := b.number()
	n := 0
	switch {
	case ok && too && x < y:
		n = -1
	case ok && too && x > y:
		n = 1
	case ok && too:
	case ok != too:
		return boolean(false)
	default:
		n = strings.Compare(a.String(), b.String())
	}
	return boolean(c.op == "<" && n < 0 || c.op == "<=" && n <= 0 || c.op == ">" && n > 0 || c.op == ">=" && n >= 0)
}

func (l *like) eval(r *row) Value {
	found := false
	if f, ok := l.value.(field); ok && f == "@message" && !r.has("@message") {
		// The message is not copied to be looked through.
		if l.re != nil {
			found = l.re.Match(r.event.Message)
		} else {
			found = strings.Contains(r.message(), l.text)
		}
		return boolean(found != l.not)
	}
	v := l.value.eval(r)
	if v.kind != null {
		if l.re != nil {
			found = l.re.MatchString(v.String())
		} else {
			found = strings.Contains(v.String(), l.text)
		}
	}
	return boolean(found != l.not)
}

func (m *membership) eval(r *row) Value {
	v := m.value.eval(r)
	return boolean(slices.ContainsFunc(m.list, func(e expr) bool { return equal(v, e.eval(r)) }) != m.not)
}

func (a *arithmetic) eval(r *row) Value {
	x, ok := a.left.eval(r).number()
	y, too := a.right.eval(r).number()
	if !ok || !too {
		return Value{}
	}
	var n float64
	switch a.op {
	case '+':
		n = x + y
	case '-':
		n = x - y
	case '*':
		n = x * y
	case '/':
		n = x / y
	case '%':
		n = math.Mod(x, y)
	case '^':
		n = math.Pow(x, y)
	}
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return Value{}
	}
	return num(n)
}

func (c *call) eval(r *row) Value {
	args := make([]Value, len(c.args))
	for i, a := range c.args {
		args[i] = a.eval(r)
	}
	return c.fn(r, args)
}

// A function and how many arguments it takes; most -1: any number.
type function struct {
	least, most int
	fn          func(r *row, a []Value) Value
}

func numeric(f func(float64) float64) function {
	return function{1, 1, func(_ *row, a []Value) Value {
		n, ok := a[0].number()
		if n = f(n); !ok || math.IsNaN(n) || math.IsInf(n, 0) {
			return Value{}
		}
		return num(n)
	}}
}

func textual(f func(string) Value) function {
	return function{1, 1, func(_ *row, a []Value) Value {
		if a[0].kind == null {
			return Value{}
		}
		return f(a[0].String())
	}}
}

func best(sign int) function {
	return function{1, -1, func(_ *row, a []Value) Value {
		var out Value
		for _, v := range a {
			if _, ok := v.number(); ok && (out.kind == null || compare(v, out)*sign > 0) {
				out = v
			}
		}
		return out
	}}
}

func trim(f func(s, cut string) string) function {
	return function{1, 2, func(_ *row, a []Value) Value {
		cut := " \t\r\n"
		if len(a) == 2 {
			cut = a[1].String()
		}
		if a[0].kind == null {
			return Value{}
		}
		return str(f(a[0].String(), cut))
	}}
}

func address(is func(netip.Addr) bool) function {
	return function{1, 1, func(_ *row, a []Value) Value {
		ip, err := netip.ParseAddr(a[0].String())
		return boolean(err == nil && ip.Zone() == "" && is(ip))
	}}
}

func subnet(is func(netip.Addr) bool) function {
	return function{2, 2, func(_ *row, a []Value) Value {
		ip, err := netip.ParseAddr(a[0].String())
		net, bad := netip.ParsePrefix(a[1].String())
		return boolean(err == nil && bad == nil && is(ip) && net.Contains(ip))
	}}
}

func rounded(up bool) function {
	return function{2, 2, func(_ *row, a []Value) Value {
		ms, ok := a[0].number()
		period, is := a[1].number()
		if !ok || !is || period == 0 || math.Abs(ms) > maxTime || math.Abs(period) > maxTime {
			return Value{}
		}
		floor, next := around(ms, period)
		if up && floor < ms {
			return at(next)
		}
		return at(floor)
	}}
}

// maxTime bounds times, which come from events: the year 9999.
const maxTime = 253402300800e3

// Months have no fixed length; a period of months is their number, negative.
const month = -1

// around is the multiple of the period at or before ms, and the one after that.
// Weeks begin on Monday; months and years are those of the calendar.
func around(ms, period float64) (floor, next float64) {
	if period < 0 {
		n := max(int(-period), 1)
		t := time.UnixMilli(int64(ms)).UTC()
		months := t.Year()*12 + int(t.Month()) - 1
		months -= ((months % n) + n) % n
		first := func(months int) float64 {
			return float64(time.Date(0, time.Month(months+1), 1, 0, 0, 0, 0, time.UTC).UnixMilli())
		}
		return first(months), first(months + n)
	}
	const week = 7 * 86400e3
	offset := 0.0
	if math.Mod(period, week) == 0 {
		offset = 4 * 86400e3 // the epoch was a Thursday
	}
	floor = math.Floor((ms-offset)/period)*period + offset
	return floor, floor + period
}

var functions = map[string]function{
	"abs": numeric(math.Abs), "ceil": numeric(math.Ceil), "floor": numeric(math.Floor), "log": numeric(math.Log), "sqrt": numeric(math.Sqrt),
	"greatest": best(1), "least": best(-1),
	"datefloor": rounded(false), "dateceil": rounded(true),
	"bin": {1, 2, func(r *row, a []Value) Value {
		if len(a) == 1 {
			a = []Value{r.get("@timestamp"), a[0]}
		}
		return rounded(false).fn(r, a)
	}},
	"frommillis": {1, 1, func(_ *row, a []Value) Value {
		n, ok := a[0].number()
		if !ok {
			return Value{}
		}
		return at(n)
	}},
	"tomillis": {1, 1, func(_ *row, a []Value) Value {
		n, ok := a[0].number()
		if !ok {
			return Value{}
		}
		return num(n)
	}},
	"now":       {0, 0, func(r *row, _ []Value) Value { return num(float64(r.run.now.Unix())) }},
	"ispresent": {1, 1, func(_ *row, a []Value) Value { return boolean(a[0].kind != null) }},
	"coalesce": {1, -1, func(_ *row, a []Value) Value {
		for _, v := range a {
			if v.kind != null {
				return v
			}
		}
		return Value{}
	}},
	"if": {3, 3, func(_ *row, a []Value) Value {
		if a[0].true() {
			return a[1]
		}
		return a[2]
	}},
	"isempty": {1, 1, func(_ *row, a []Value) Value { return boolean(a[0].kind == null || a[0].String() == "") }},
	"isblank": {1, 1, func(_ *row, a []Value) Value {
		return boolean(a[0].kind == null || strings.TrimSpace(a[0].String()) == "")
	}},
	"concat": {1, -1, func(_ *row, a []Value) Value {
		var b strings.Builder
		for _, v := range a {
			s := v.String()
			if b.Len()+len(s) > maxText {
				return Value{}
			}
			b.WriteString(s)
		}
		return str(b.String())
	}},
	"ltrim": trim(strings.TrimLeft), "rtrim": trim(strings.TrimRight), "trim": trim(strings.Trim),
	"strlen":  textual(func(s string) Value { return num(float64(len([]rune(s)))) }),
	"toupper": textual(func(s string) Value { return str(strings.ToUpper(s)) }),
	"tolower": textual(func(s string) Value { return str(strings.ToLower(s)) }),
	"substr": {2, 3, func(_ *row, a []Value) Value {
		from, ok := a[1].number()
		s := []rune(a[0].String())
		if !ok || from < 0 || a[0].kind == null {
			return Value{}
		}
		s = s[int(min(from, float64(len(s)))):]
		if len(a) == 3 {
			n, ok := a[2].number()
			if !ok || n < 0 {
				return Value{}
			}
			s = s[:int(min(n, float64(len(s))))]
		}
		return str(string(s))
	}},
	"replace": {3, 3, func(_ *row, a []Value) Value {
		if a[0].kind == null {
			return Value{}
		}
		s, old, with := a[0].String(), a[1].String(), a[2].String()
		if len(s)+strings.Count(s, old)*len(with) > maxText {
			return Value{}
		}
		return str(strings.ReplaceAll(s, old, with))
	}},
	"strcontains": {2, 2, func(_ *row, a []Value) Value {
		return boolean(a[0].kind != null && strings.Contains(a[0].String(), a[1].String()))
	}},
	"isvalidip": address(netip.Addr.IsValid), "isvalidipv4": address(netip.Addr.Is4), "isvalidipv6": address(netip.Addr.Is6),
	"isipinsubnet": subnet(netip.Addr.IsValid), "isipv4insubnet": subnet(netip.Addr.Is4), "isipv6insubnet": subnet(netip.Addr.Is6),
}

// maxText bounds what functions make of text.
const maxText = 1 << 20

// units are those of periods. A number with a unit is a period in milliseconds.
var units = map[string]float64{
	"ms": 1, "msec": 1, "millisecond": 1, "milliseconds": 1,
	"s": 1e3, "sec": 1e3, "second": 1e3, "seconds": 1e3,
	"m": 60e3, "min": 60e3, "minute": 60e3, "minutes": 60e3,
	"h": 3600e3, "hr": 3600e3, "hour": 3600e3, "hours": 3600e3,
	"d": 86400e3, "day": 86400e3, "days": 86400e3,
	"w": 7 * 86400e3, "week": 7 * 86400e3, "weeks": 7 * 86400e3,
	"mo": month, "mon": month, "month": month, "months": month,
	"q": 3 * month, "qtr": 3 * month, "quarter": 3 * month, "quarters": 3 * month,
	"y": 12 * month, "yr": 12 * month, "year": 12 * month, "years": 12 * month,
}
