package wire

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
)

// Kind is the type of a shape.
type Kind uint8

const (
	Struct Kind = iota + 1
	List
	Map
	String
	Integer
	Long
	Boolean
	Float
	Double
	Timestamp
	Blob
	Document // free JSON
)

var kinds = map[string]Kind{
	"string": String, "character": String, "integer": Integer, "long": Long, "boolean": Boolean,
	"float": Float, "double": Double, "timestamp": Timestamp, "blob": Blob, "document": Document,
}

// Schema describes a shape: enough to put it on any wire, to read it from one
// and to check it.
type Schema struct {
	Name    string // "" for a scalar without constraints
	Kind    Kind
	Members []Member // Struct
	Elem    *Member  // List, and the values of a Map
	Key     *Member  // Map
	Flat    bool     // List, Map: no element around the items in XML and Query

	Min, Max       float64 // of a length, a count or a number, if HasMin, HasMax
	HasMin, HasMax bool
	Pattern        *Pattern
	Enum           []string
	Secret         bool   // never to be shown, not even in an error
	Format         string // Timestamp: iso8601, unixTimestamp, rfc822; "" is the protocol's own

	byName map[string]int // Struct: JSON name → index in Members
	bound  binding
}

// Member is a schema in its place.
type Member struct {
	Name      string // of the model: the JSON name; "" in lists and maps
	Location  string // locationName of the model, "" if none
	QueryName string // queryName of the model, "" if none
	Required  bool
	Flat      bool
	Token     bool // an idempotency token, which a client fills in
	Format    string
	Schema    *Schema
}

// Schemas is a set of shapes in text form. A line is a shape, its fields are
// separated by tabs:
//
//	Name { [!]member=Shape[;attr]…     structure, ! marks required members
//	Name [[;flat] bounds Shape[;attr]  list
//	Name <[;flat] bounds Key Value     map
//	Name kind[;secret] bounds pattern enum…
//
// bounds is min..max with either side empty; a Shape starting with a dot is a
// scalar kind without constraints; attributes are n (locationName),
// q (queryName), t (timestampFormat), flat and token.
//
// Text is kept rather than data structures, because a process uses few of the
// thousands of shapes: what is not used costs no memory and no start-up time.
type Schemas struct {
	Text string

	mu    sync.Mutex
	lines map[string]string
	built map[string]*Schema
}

// Lookup returns the schema of that name, with everything it refers to. It
// returns nil if there is none.
func (s *Schemas) Lookup(name string) *Schema {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines == nil {
		s.lines = make(map[string]string, strings.Count(s.Text, "\n"))
		s.built = map[string]*Schema{}
		for line := range strings.Lines(s.Text) {
			n, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			s.lines[n] = rest
		}
	}
	if _, ok := s.lines[name]; !ok {
		return nil
	}
	return s.build(name)
}

// Names yields the names of all shapes of the set, in order.
func (s *Schemas) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(s.Text) {
			if n, _, ok := strings.Cut(line, "\t"); ok && !yield(n) {
				return
			}
		}
	}
}

// build runs with mu held. The text is generated and tested whole, so what
// does not parse is a bug of the generator: it panics.
func (s *Schemas) build(name string) *Schema {
	if sc := s.built[name]; sc != nil {
		return sc
	}
	if kind, ok := strings.CutPrefix(name, "."); ok {
		k, ok := kinds[kind]
		if !ok {
			panic(fmt.Sprintf("wire: no kind %s", name))
		}
		sc := &Schema{Kind: k}
		s.built[name] = sc
		return sc
	}
	line, ok := s.lines[name]
	if !ok {
		panic(fmt.Sprintf("wire: no shape %s", name))
	}
	sc := &Schema{Name: name}
	s.built[name] = sc // before its members: shapes may be recursive
	fields := strings.Split(line, "\t")
	kind, flags, _ := strings.Cut(fields[0], ";")
	for f := range strings.SplitSeq(flags, ";") {
		switch {
		case f == "flat":
			sc.Flat = true
		case f == "secret":
			sc.Secret = true
		case strings.HasPrefix(f, "t="):
			sc.Format = f[2:]
		}
	}
	fields = fields[1:]
	switch kind {
	case "{":
		sc.Kind = Struct
		sc.Members = make([]Member, len(fields))
		sc.byName = make(map[string]int, len(fields))
		for i, f := range fields {
			n, target, _ := strings.Cut(f, "=")
			n, required := strings.CutPrefix(n, "!")
			sc.Members[i] = s.member(n, target)
			sc.Members[i].Required = required
			sc.byName[n] = i
		}
	case "[":
		sc.Kind = List
		sc.bounds(fields[0])
		sc.Elem = new(s.member("", fields[1]))
	case "<":
		sc.Kind = Map
		sc.bounds(fields[0])
		sc.Key, sc.Elem = new(s.member("", fields[1])), new(s.member("", fields[2]))
	default:
		sc.Kind = kinds[kind]
		if sc.Kind == 0 {
			panic(fmt.Sprintf("wire: shape %s has kind %s", name, kind))
		}
		if len(fields) > 0 {
			sc.bounds(fields[0])
		}
		if len(fields) > 1 && fields[1] != "" {
			sc.Pattern = &Pattern{text: fields[1]}
		}
		if len(fields) > 2 {
			sc.Enum = fields[2:]
		}
	}
	return sc
}

func (s *Schemas) member(name, ref string) Member {
	target, rest, _ := strings.Cut(ref, ";")
	m := Member{Name: name, Schema: s.build(target)}
	for a := range strings.SplitSeq(rest, ";") {
		key, value, _ := strings.Cut(a, "=")
		switch key {
		case "n":
			m.Location = value
		case "q":
			m.QueryName = value
		case "t":
			m.Format = value
		case "flat":
			m.Flat = true
		case "token":
			m.Token = true
		}
	}
	return m
}

func (sc *Schema) bounds(text string) {
	low, high, _ := strings.Cut(text, "..")
	var err error
	if low != "" {
		sc.Min, err = strconv.ParseFloat(low, 64)
		sc.HasMin = err == nil
	}
	if high != "" {
		sc.Max, err = strconv.ParseFloat(high, 64)
		sc.HasMax = err == nil
	}
}
