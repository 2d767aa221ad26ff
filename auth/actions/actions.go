// Package actions is AWS's table of actions: on which types of resources each
// acts, and which condition keys it has.
//
// It is there for tests, which hold the services to it, and decides nothing:
// nothing that the program does may depend on it.
package actions

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// The table has a line for each thing: "service P", then "resource T ARN K…"
// for its types and "action N K…" for its actions, each followed by "on T K…"
// for the types that it always acts on and "may T K…" for the others. K are
// condition keys.
//
//go:embed table.txt
var table string

// An Action is an entry of the table.
type Action struct {
	Name string // RunTask
	Keys []string
	On   []Resource
}

// A Resource is a type of resource that an action acts on.
type Resource struct {
	*Type
	Required bool
	Keys     []string // of the action on this type
}

// A Type is a type of resource of a service.
type Type struct {
	Name string
	Keys []string

	arn *regexp.Regexp
}

var load = sync.OnceValue(func() map[string]*Action {
	all := map[string]*Action{}
	service := ""
	types := map[string]*Type{}
	var last *Action
	for line := range strings.Lines(table) {
		word := strings.Fields(line)
		switch word[0] {
		case "service":
			service = word[1]
			clear(types)
		case "resource":
			types[word[1]] = &Type{Name: word[1], Keys: word[3:], arn: pattern(word[2])}
		case "action":
			last = &Action{Name: word[1], Keys: word[2:]}
			all[strings.ToLower(service+":"+word[1])] = last
		case "on", "may":
			last.On = append(last.On, Resource{types[word[1]], word[0] == "on", word[2:]})
		}
	}
	return all
})

var variable = regexp.MustCompile(`\\\$\\\{[^}]*\\\}`)

// pattern turns an ARN with variables into a regular expression.
func pattern(arn string) *regexp.Regexp {
	return regexp.MustCompile(`^` + variable.ReplaceAllString(regexp.QuoteMeta(arn), `.*`) + `$`)
}

// Find is the entry of an action such as ecs:RunTask.
func Find(action string) (*Action, bool) {
	a, ok := load()[strings.ToLower(action)]
	return a, ok
}

// Type is the type of a resource that the action acts on, nil if it is none of
// those, or all resources at once.
func (a *Action) Type(resource string) *Type {
	for _, r := range a.On {
		if r.Type != nil && resource != "*" && r.arn.MatchString(resource) {
			return r.Type
		}
	}
	return nil
}

// NeedsResource reports whether the action always acts on a resource.
func (a *Action) NeedsResource() bool {
	return slices.ContainsFunc(a.On, func(r Resource) bool { return r.Required })
}

// HasKey reports whether the action has a condition key of this name, on any of
// the resources that it acts on.
func (a *Action) HasKey(key string) bool {
	is := func(k string) bool {
		// A part that varies is written ${TagKey}, or <key> by S3.
		if n := strings.IndexAny(k, "$<"); n >= 0 {
			return len(key) > n && strings.EqualFold(key[:n], k[:n])
		}
		return strings.EqualFold(k, key)
	}
	if slices.ContainsFunc(a.Keys, is) {
		return true
	}
	return slices.ContainsFunc(a.On, func(r Resource) bool {
		return slices.ContainsFunc(r.Keys, is) || r.Type != nil && slices.ContainsFunc(r.Type.Keys, is)
	})
}
