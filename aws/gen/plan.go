package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// A generation is one service with everything decided, ready to be printed.
type generation struct {
	service
	m *model
	// ops are the generated operations in order; named are the rest.
	ops, named []string
	// structs, enums and errors are sorted by name.
	structs, errors []structType
	enums           []enumType
	schemas         []string // names of all reachable shapes, sorted
}

type structType struct {
	name string // Go and schema name
	doc  string
	sh   *shape
}

type enumType struct {
	name   string
	consts []enumConst // empty for an open enum
}

type enumConst struct{ name, value string }

// plan chooses shapes and names.
func plan(s service, m *model) (*generation, error) {
	g := &generation{service: s, m: m}
	all := slices.Sorted(maps.Keys(m.Operations))
	for _, op := range all {
		if s.operations == nil || slices.Contains(s.operations, op) {
			g.ops = append(g.ops, op)
		} else {
			g.named = append(g.named, op)
		}
	}

	// Inputs and outputs are called after their operation whatever the model
	// calls them; a shape that is also used elsewhere keeps its own name too.
	reached := map[string]bool{}
	var visit func(name string) error
	children := func(sh *shape) error {
		for _, r := range sh.refs() {
			if err := visit(r.Shape); err != nil {
				return err
			}
		}
		return nil
	}
	visit = func(name string) error {
		sh := m.Shapes[name]
		if sh == nil {
			return fmt.Errorf("no shape %s", name)
		}
		if reached[name] {
			return nil
		}
		reached[name] = true
		return children(sh)
	}
	io := map[string]structType{}
	for _, op := range g.ops {
		for _, side := range []struct {
			suffix, doc string
			ref         *ref
		}{
			{"Input", "is the request of", m.Operations[op].Input},
			{"Output", "is the response of", m.Operations[op].Output},
		} {
			sh := &shape{Type: "structure"}
			if side.ref != nil {
				if sh = m.Shapes[side.ref.Shape]; sh == nil {
					return nil, fmt.Errorf("no shape %s", side.ref.Shape)
				}
			}
			if err := children(sh); err != nil {
				return nil, err
			}
			name := op + side.suffix
			io[name] = structType{name, fmt.Sprintf("%s %s %s.", name, side.doc, op), sh}
		}
		for _, e := range m.Operations[op].Errors {
			if err := visit(e.Shape); err != nil {
				return nil, err
			}
		}
	}

	goTypes := map[string]string{} // Go name → shape
	claim := func(name, from string) error {
		if old, ok := goTypes[name]; ok {
			return fmt.Errorf("Go name %s is wanted by %s and %s", name, old, from)
		}
		goTypes[name] = from
		return nil
	}
	for _, n := range []string{"Handler", "Unimplemented", "NewService"} {
		if err := claim(n, "the generator"); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(io)) {
		if reached[name] {
			return nil, fmt.Errorf("shape %s has the name of an input or output", name)
		}
		if err := claim(name, name); err != nil {
			return nil, err
		}
		g.structs = append(g.structs, io[name])
	}
	for _, name := range slices.Sorted(maps.Keys(reached)) {
		sh := m.Shapes[name]
		switch {
		case sh.Type == "structure" && sh.Document:
			continue
		case sh.Type == "structure" && sh.Exception:
			g.errors = append(g.errors, structType{goName(name), "", sh})
		case sh.Type == "structure":
			g.structs = append(g.structs, structType{goName(name), "", sh})
		case sh.Type == "string" && len(sh.Enum) > 0:
			g.enums = append(g.enums, enumType{name: goName(name)})
		default:
			continue
		}
		if err := claim(goName(name), name); err != nil {
			return nil, err
		}
	}
	g.nameConstants(goTypes)
	for _, name := range slices.Sorted(maps.Keys(reached)) {
		if builtin(m.Shapes[name]) == "" {
			g.schemas = append(g.schemas, name)
		}
	}
	byName := func(a, b structType) int { return strings.Compare(a.name, b.name) }
	slices.SortFunc(g.structs, byName)
	slices.SortFunc(g.errors, byName)
	slices.SortFunc(g.enums, func(a, b enumType) int { return strings.Compare(a.name, b.name) })
	return g, nil
}

// nameConstants names the values of enums. A name that is taken (by a type, or
// by a value that differs only in punctuation) gets an underscore.
func (g *generation) nameConstants(taken map[string]string) {
	shapes := map[string]*shape{}
	for name, sh := range g.m.Shapes {
		shapes[goName(name)] = sh
	}
	for i, e := range g.enums {
		values := shapes[e.name].Enum
		if len(values) > maxEnum {
			continue
		}
		for _, v := range values {
			name := e.name + camel(v)
			for taken[name] != "" {
				name += "_"
			}
			taken[name] = e.name
			g.enums[i].consts = append(g.enums[i].consts, enumConst{name, v})
		}
	}
}

// camel turns FARGATE_SPOT and t2.micro into FargateSpot and T2Micro.
func camel(value string) string {
	var b strings.Builder
	for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if strings.ToUpper(word) == word {
			word = strings.ToLower(word)
		}
		b.WriteString(goName(word))
	}
	return b.String()
}

func (sh *shape) refs() []ref {
	var out []ref
	for _, m := range sh.Members {
		out = append(out, m.ref)
	}
	for _, r := range []*ref{sh.Member, sh.Key, sh.Value} {
		if r != nil {
			out = append(out, *r)
		}
	}
	return out
}

// builtin is the name that a shape without any constraint has in the schema
// text, or "".
func builtin(sh *shape) string {
	switch {
	case sh.Document:
		return ".document"
	case sh.Type == "structure" || sh.Type == "list" || sh.Type == "map" || len(sh.Enum) > 0:
		return ""
	case sh.Min != "" || sh.Max != "" || sh.Pattern != "" || sh.TimestampFormat != "" || sh.Sensitive:
		return ""
	}
	return "." + sh.Type
}
