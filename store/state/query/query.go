// Package query is the cluster query language: the expressions by which
// placement constraints and ListContainerInstances choose container instances
// (facts: placement).
//
// It owns the grammar and what an expression means for one instance. It is
// pure, knows no table and must never decide what is done with an instance
// that matches.
package query

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An Instance is what expressions can ask of a container instance.
type Instance struct {
	Attributes     map[string]string // a value may be empty
	AgentConnected bool
	AgentVersion   string
	EC2InstanceID  string
	RegisteredAt   time.Time
	RunningTasks   int
	Groups         []string // of the tasks on the instance
}

// An Expr is a parsed expression.
type Expr struct{ root node }

// Match reports whether the instance is one of those the expression means.
func (e *Expr) Match(i *Instance) bool { return e.root.match(i) }

// Dynamic reports whether the expression asks of the instance's tasks, and so
// may hold at one time and not at another.
func (e *Expr) Dynamic() bool { return e.root.dynamic() }

type node interface {
	match(*Instance) bool
	dynamic() bool
}

type not struct{ of node }

func (n not) match(i *Instance) bool { return !n.of.match(i) }
func (n not) dynamic() bool          { return n.of.dynamic() }

type and struct{ a, b node }

func (n and) match(i *Instance) bool { return n.a.match(i) && n.b.match(i) }
func (n and) dynamic() bool          { return n.a.dynamic() || n.b.dynamic() }

type or struct{ a, b node }

func (n or) match(i *Instance) bool { return n.a.match(i) || n.b.match(i) }
func (n or) dynamic() bool          { return n.a.dynamic() || n.b.dynamic() }

// An operator compares a subject with arguments. What is the opposite of
// another operator is parsed as its negation, so that it holds for an instance
// that lacks the subject.
type operator uint8

const (
	equals operator = iota + 1
	greater
	greaterEqual
	less
	lessEqual
	exists
	in
	matches
)

// ordered are the operators that need values with an order.
func (o operator) ordered() bool { return o >= greater && o <= lessEqual }

// holds reports whether the operator holds for the outcome of a comparison.
func (o operator) holds(c int) bool {
	switch o {
	case equals:
		return c == 0
	case greater:
		return c > 0
	case greaterEqual:
		return c >= 0
	case less:
		return c < 0
	case lessEqual:
		return c <= 0
	}
	return false
}

// A test is subject operator argument.
type test struct {
	subject subject
	op      operator
	args    []string
	pattern *regexp.Regexp // matches
	at      time.Time      // registeredAt
	count   int            // runningTasksCount
}

// A subject is what an expression can ask about.
type subject struct {
	kind kind
	name string // of an attribute
}

type kind uint8

const (
	attribute kind = iota + 1
	agentConnected
	agentVersion
	ec2InstanceID
	registeredAt
	runningTasks
	taskGroup
)

var kinds = map[string]kind{
	"agentConnected": agentConnected, "agentVersion": agentVersion, "ec2InstanceId": ec2InstanceID,
	"registeredAt": registeredAt, "runningTasksCount": runningTasks, "task:group": taskGroup,
}

// takes reports whether the operator can be used on the subject.
func (k kind) takes(o operator) bool {
	switch k {
	case attribute:
		return true
	case agentConnected, ec2InstanceID:
		return o == equals || o == in || o == matches
	case taskGroup:
		return o == equals || o == in || o == matches || o == exists
	}
	return o == equals || o.ordered()
}

func (t *test) dynamic() bool { return t.subject.kind == runningTasks || t.subject.kind == taskGroup }

func (t *test) match(i *Instance) bool {
	switch t.subject.kind {
	case attribute:
		v, ok := i.Attributes[t.subject.name]
		return ok && t.text(v, compareText)
	case agentConnected:
		return t.text(strconv.FormatBool(i.AgentConnected), compareText)
	case ec2InstanceID:
		return i.EC2InstanceID != "" && t.text(i.EC2InstanceID, compareText)
	case agentVersion:
		return i.AgentVersion != "" && t.text(i.AgentVersion, compareVersions)
	case registeredAt:
		return t.op.holds(i.RegisteredAt.Compare(t.at))
	case runningTasks:
		return t.op.holds(cmp.Compare(i.RunningTasks, t.count))
	case taskGroup:
		return slices.ContainsFunc(i.Groups, func(g string) bool { return t.text(g, compareText) })
	}
	return false
}

// text holds if the operator holds for a value that is there.
func (t *test) text(v string, compare func(a, b string) int) bool {
	switch t.op {
	case exists:
		return true
	case equals:
		return v == t.args[0] || compare(v, t.args[0]) == 0
	case in:
		return slices.Contains(t.args, v)
	case matches:
		return t.pattern.MatchString(v)
	}
	return t.op.holds(compare(v, t.args[0]))
}

// compareText compares numbers as numbers and everything else letter by letter.
func compareText(a, b string) int {
	if !numeric(a) || !numeric(b) {
		return strings.Compare(a, b)
	}
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	if errX == nil && errY == nil {
		return cmp.Compare(x, y)
	}
	return strings.Compare(a, b)
}

// numeric reports whether s may be a number: most texts are not, and that is
// quickly seen.
func numeric(s string) bool {
	return s != "" && (s[0] <= '9' && s[0] >= '0' || s[0] == '-' || s[0] == '+')
}

// compareVersions compares 1.9.0 and 1.10.0 part by part.
func compareVersions(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for n := range max(len(x), len(y)) {
		p, q := "0", "0"
		if n < len(x) {
			p = x[n]
		}
		if n < len(y) {
			q = y[n]
		}
		if c := compareText(p, q); c != 0 {
			return c
		}
	}
	return 0
}
