package insights

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// A Value is what an expression yields. Fields of events are text; where a
// number is wanted, text that is one counts as one.
type Value struct {
	kind kind
	s    string
	n    float64
}

type kind uint8

const (
	null kind = iota
	text
	number
	moment // milliseconds since the epoch
	truth
)

func str(s string) Value  { return Value{kind: text, s: s} }
func num(n float64) Value { return Value{kind: number, n: n} }
func at(ms float64) Value { return Value{kind: moment, n: ms} }

func boolean(b bool) Value {
	if b {
		return Value{kind: truth, n: 1}
	}
	return Value{kind: truth}
}

// number is the value as a number, if it is one.
func (v Value) number() (float64, bool) {
	switch v.kind {
	case number, moment, truth:
		return v.n, true
	case text:
		if v.s == "" || !strings.ContainsAny(v.s[len(v.s)-1:], "0123456789.") || strings.ContainsAny(v.s, "_xXpP") {
			return 0, false
		}
		n, err := strconv.ParseFloat(v.s, 64)
		return n, err == nil
	}
	return 0, false
}

// true reports whether a condition holds.
func (v Value) true() bool {
	switch v.kind {
	case truth, number:
		return v.n != 0
	case text:
		return v.s == "true" || v.s == "1"
	}
	return false
}

// String is the value as it is shown.
func (v Value) String() string {
	switch v.kind {
	case text:
		return v.s
	case number, truth:
		return formatNumber(v.n)
	case moment:
		return time.UnixMilli(int64(v.n)).UTC().Format("2006-01-02 15:04:05.000")
	}
	return ""
}

func formatNumber(n float64) string {
	if n == math.Trunc(n) && math.Abs(n) < 1e15 {
		return strconv.FormatInt(int64(n), 10)
	}
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return ""
	}
	s := strconv.FormatFloat(n, 'f', 4, 64)
	if s = strings.TrimRight(strings.TrimRight(s, "0"), "."); s == "0" || s == "-0" {
		return strconv.FormatFloat(n, 'g', 5, 64)
	}
	return s
}

// compare orders values: text, then numbers, then nothing.
func compare(a, b Value) int {
	x, numA := a.number()
	y, numB := b.number()
	rank := func(v Value, n bool) int {
		switch {
		case v.kind == null:
			return 2
		case n:
			return 1
		}
		return 0
	}
	switch ra, rb := rank(a, numA), rank(b, numB); {
	case ra != rb:
		return ra - rb
	case ra == 2:
		return 0
	case ra == 1:
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	return strings.Compare(a.String(), b.String())
}

// equal compares as numbers where both are numbers.
func equal(a, b Value) bool {
	if a.kind == null || b.kind == null {
		return a.kind == b.kind
	}
	if a.kind != text || b.kind != text {
		x, ok := a.number()
		y, too := b.number()
		if ok && too {
			return x == y
		}
	}
	return a.String() == b.String()
}
