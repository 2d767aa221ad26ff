package wire

import (
	"reflect"
	"regexp"
)

// Violations lists what is wrong with in, without a limit on the words.
func Violations(o *Operation, in any) []string {
	v := validator{}
	v.structure(o.Input(), reflect.ValueOf(in).Elem(), nil)
	var out []string
	for i := range v.found {
		out = append(out, v.found[i].common())
	}
	return out
}

// Compile compiles a pattern of the model.
func (p *Pattern) Compile() (*regexp.Regexp, error) { return compilePattern(p.text) }

// Text is the pattern as the model has it.
func (p *Pattern) Text() string { return p.text }
