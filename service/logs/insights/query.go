// Package insights is the query language of CloudWatch Logs Insights.
//
// A query is compiled once. A Run of it takes events, from several goroutines
// and in any order, and has the rows at the end. What a run holds is bounded,
// whatever the events are. The package is pure: it must never read events
// itself, nor know whose they are.
package insights

import (
	"regexp"
)

// MaxRows is the most rows that a query returns.
const MaxRows = 10_000

// Error says where and why a query cannot be compiled. Start and End count
// characters from 0.
type Error struct {
	Start, End int
	Message    string
}

func (e *Error) Error() string { return e.Message }

// Query is a compiled query.
type Query struct {
	ops []op
	// columns are what is shown of a row; nil: what AWS shows by default.
	columns []string
}

// op is a command. Those that look at a single row are done as events come,
// the others when all have.
type op interface{}

type (
	filterOp struct{ cond expr }
	letOp    struct {
		name  string
		value expr
	}
	parseOp struct {
		from  expr
		re    *regexp.Regexp
		names []string
	}
	sortOp  struct{ keys []sortKey }
	limitOp struct{ n int }
	dedupOp struct{ fields []string }
	statsOp struct {
		aggregates []aggregate
		by         []named
	}
)

type sortKey struct {
	value expr
	desc  bool
}

type named struct {
	name  string
	value expr
}

type aggregate struct {
	name string
	fn   string
	arg  expr // nil for count(*)
	p    float64
}

// Needle is text that the message of every event contains that the query
// selects, or nil.
func (q *Query) Needle() []byte {
	var best []byte
	for _, o := range q.ops {
		switch o := o.(type) {
		case filterOp:
			if n := needle(o.cond); len(n) > len(best) {
				best = n
			}
		case letOp:
			if o.name == "@message" {
				return best
			}
		case parseOp:
		default:
			return best
		}
	}
	return best
}

func needle(e expr) []byte {
	switch e := e.(type) {
	case *logic:
		if e.and {
			a, b := needle(e.left), needle(e.right)
			if len(a) < len(b) {
				return b
			}
			return a
		}
	case *like:
		if f, ok := e.value.(field); ok && string(f) == "@message" && !e.not {
			if e.re == nil {
				return []byte(e.text)
			}
			if prefix, _ := e.re.LiteralPrefix(); prefix != "" {
				return []byte(prefix)
			}
		}
	}
	return nil
}
