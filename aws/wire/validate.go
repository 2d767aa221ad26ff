package wire

import (
	"fmt"
	"math"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Style is how a service words what is wrong with a request. The texts are
// AWS's as seen; where a service was never seen to object to something, it is
// given the words of the framework that most services share.
type Style uint8

const (
	// StyleQuery is IAM's and STS's: ValidationError, all violations in one text.
	StyleQuery Style = iota + 1
	// StyleECS: what is missing at the top is "X can not be blank." with
	// ClientException (seen for family); everything else has the common words
	// under InvalidParameterException, which is unconfirmed.
	StyleECS
	// StyleECR: one violation, InvalidParameterException "Invalid parameter at
	// 'x' failed to satisfy constraint: '...'". Seen for patterns; the words of
	// the other constraints follow the same form and are unconfirmed.
	StyleECR
	// StyleEC2: one violation, MissingParameter or InvalidParameterValue.
	StyleEC2
	// StyleLogs: the common words under InvalidParameterException.
	StyleLogs
	// StyleSSM: the common words under ValidationException.
	StyleSSM
)

// Validate checks an input of o against the constraints of its model and
// returns an error in the words of the service, or nil.
func Validate(o *Operation, in any) error {
	s := o.service
	v := validator{style: s.Style, query: !s.Protocol.json()}
	v.structure(o.Input(), reflect.ValueOf(in).Elem(), nil)
	if len(v.found) == 0 {
		return nil
	}
	return v.err()
}

// A violation is one constraint that one value does not meet.
type violation struct {
	path   []string
	what   constraint
	schema *Schema // nil if something required is missing
	value  string  // as messages show it; "" for secrets
	shown  bool    // value is to be shown
	limit  float64
}

type constraint uint8

const (
	missing constraint = iota
	tooShort
	tooLong
	tooSmall
	tooLarge
	noMatch
	notInEnum
)

type validator struct {
	style Style
	query bool
	found []violation
}

// maxViolations bounds the message; nobody reads more.
const maxViolations = 10

func (v *validator) add(path []string, what constraint, sc *Schema, value reflect.Value, limit float64) {
	if len(v.found) < maxViolations {
		x := violation{path: slices.Clone(path), what: what, schema: sc, limit: limit}
		if sc != nil && !sc.Secret {
			x.value, x.shown = shown(value), true
		}
		v.found = append(v.found, x)
	}
}

func (v *validator) structure(sc *Schema, val reflect.Value, path []string) {
	bound := sc.bind(val.Type())
	for i := range sc.Members {
		m := &sc.Members[i]
		f := val.Field(bound.fields[i])
		if !present(f) {
			if m.Required {
				v.add(append(path, m.Name), missing, nil, f, 0)
			}
			continue
		}
		if sc := m.Schema; sc.Name != "" || sc.Kind == Struct {
			v.value(sc, f, append(path, m.Name))
		}
	}
}

func (v *validator) value(sc *Schema, val reflect.Value, path []string) {
	if val.Kind() == reflect.Pointer {
		val = val.Elem()
	}
	switch sc.Kind {
	case Struct:
		v.structure(sc, val, path)
	case List:
		v.length(sc, val, val.Len(), path)
		if sc.Elem.Schema.Name == "" {
			return
		}
		for i := range val.Len() {
			v.value(sc.Elem.Schema, val.Index(i), append(path, strconv.Itoa(i+1), "member"))
		}
	case Map:
		v.length(sc, val, val.Len(), path)
		for _, key := range sortedKeys(val) {
			v.value(sc.Key.Schema, key, append(path, "key"))
			v.value(sc.Elem.Schema, val.MapIndex(key), append(path, key.String(), "member"))
		}
	case String:
		s := val.String()
		v.length(sc, val, utf8.RuneCountInString(s), path)
		if sc.Pattern != nil && !sc.Pattern.Match(s) {
			v.add(path, noMatch, sc, val, 0)
		}
		if sc.Enum != nil && !slices.Contains(sc.Enum, s) {
			v.add(path, notInEnum, sc, val, 0)
		}
	case Blob:
		v.length(sc, val, val.Len(), path)
	case Integer, Long:
		v.number(sc, val, float64(val.Int()), path)
	case Float, Double:
		v.number(sc, val, val.Float(), path)
	}
}

func (v *validator) length(sc *Schema, val reflect.Value, n int, path []string) {
	if sc.HasMin && float64(n) < sc.Min {
		v.add(path, tooShort, sc, val, sc.Min)
	}
	if sc.HasMax && float64(n) > sc.Max {
		v.add(path, tooLong, sc, val, sc.Max)
	}
}

func (v *validator) number(sc *Schema, val reflect.Value, n float64, path []string) {
	if sc.HasMin && n < sc.Min || math.IsNaN(n) && sc.HasMin {
		v.add(path, tooSmall, sc, val, sc.Min)
	}
	if sc.HasMax && n > sc.Max {
		v.add(path, tooLarge, sc, val, sc.Max)
	}
}

// shown is a value as messages print it.
func shown(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.String:
		return shortenTo(v.String(), 1000)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.String {
			var items []string
			for i := range min(v.Len(), 20) {
				items = append(items, shorten(v.Index(i).String()))
			}
			return "[" + strings.Join(items, ", ") + "]"
		}
		return "[" + strconv.Itoa(v.Len()) + " items]"
	case reflect.Map:
		return "{" + strconv.Itoa(v.Len()) + " entries}"
	case reflect.Int32, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Float32, reflect.Float64:
		return formatFloat(v.Float(), 64)
	}
	return ""
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func (x *violation) required() string {
	switch x.what {
	case missing:
		return "Member must not be null"
	case tooShort:
		return "Member must have length greater than or equal to " + number(x.limit)
	case tooLong:
		return "Member must have length less than or equal to " + number(x.limit)
	case tooSmall:
		return "Member must have value greater than or equal to " + number(x.limit)
	case tooLarge:
		return "Member must have value less than or equal to " + number(x.limit)
	case noMatch:
		return "Member must satisfy regular expression pattern: " + x.schema.Pattern.text
	}
	return "Member must satisfy enum value set: [" + strings.Join(x.schema.Enum, ", ") + "]"
}

// common is a violation in the words of most services.
func (x *violation) common() string {
	names := make([]string, len(x.path))
	for i, p := range x.path {
		names[i] = beanName(p)
	}
	value := "Value"
	switch {
	case x.what == missing:
		value = "Value null"
	case x.shown:
		value = "Value '" + x.value + "'"
	}
	return fmt.Sprintf("%s at '%s' failed to satisfy constraint: %s", value, strings.Join(names, "."), x.required())
}

func (v *validator) commonText() string {
	texts := make([]string, len(v.found))
	for i := range v.found {
		texts[i] = v.found[i].common()
	}
	noun := "error"
	if len(texts) > 1 {
		noun = "errors"
	}
	return fmt.Sprintf("%d validation %s detected: %s", len(texts), noun, strings.Join(texts, "; "))
}

func (v *validator) err() error {
	bad := func(code, message string) error { return NewError(http.StatusBadRequest, code, message) }
	first := &v.found[0]
	switch v.style {
	case StyleECS:
		if first.what == missing && len(first.path) == 1 {
			return bad("ClientException", fieldName(first.path[0])+" can not be blank.")
		}
		return bad("InvalidParameterException", v.commonText())
	case StyleECR:
		text := "must not be null"
		if first.what != missing {
			text = strings.TrimPrefix(first.required(), "Member ")
		}
		if first.what == noMatch {
			// ECR prints the pattern without the model's escaped slashes.
			text = "must satisfy regular expression '" + strings.ReplaceAll(first.schema.Pattern.text, `\/`, "/") + "'"
		}
		return bad("InvalidParameterException", fmt.Sprintf("Invalid parameter at '%s' failed to satisfy constraint: '%s'", strings.Join(first.path, "."), text))
	case StyleEC2:
		return first.ec2()
	case StyleLogs:
		return bad("InvalidParameterException", v.commonText())
	case StyleSSM:
		return bad("ValidationException", v.commonText())
	}
	return bad("ValidationError", v.commonText())
}

// ec2 names parameters as its messages do: the path without list markers.
func (x *violation) ec2() error {
	names := slices.DeleteFunc(slices.Clone(x.path), func(p string) bool { return p == "member" })
	name := strings.Join(names, ".")
	if x.what == missing {
		return NewError(http.StatusBadRequest, "MissingParameter", "The request must contain the parameter "+beanName(name))
	}
	detail := ""
	switch x.what {
	case tooSmall:
		detail = fmt.Sprintf("Expecting a value greater than or equal to %s.", number(x.limit))
	case tooLarge:
		detail = fmt.Sprintf("Expecting a value less than or equal to %s.", number(x.limit))
	case tooShort:
		detail = fmt.Sprintf("Expecting a length greater than or equal to %s.", number(x.limit))
	case tooLong:
		detail = fmt.Sprintf("Expecting a length less than or equal to %s.", number(x.limit))
	case notInEnum:
		detail = "Expecting one of: " + shortenTo(strings.Join(x.schema.Enum, ", "), 1000) + "."
	case noMatch:
		detail = "Expecting a match of " + x.schema.Pattern.text + "."
	}
	return NewError(http.StatusBadRequest, "InvalidParameterValue",
		fmt.Sprintf("Value (%s) for parameter %s is invalid. %s", x.value, beanName(name), detail))
}

func shortenTo(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "..."
	}
	return s
}

// Pattern is a regular expression of the model, compiled at first use. Models
// write Java's dialect and mean the whole string.
type Pattern struct {
	text string
	once sync.Once
	re   *regexp.Regexp // nil if Go cannot say it
}

// String is the pattern as the model writes it.
func (p *Pattern) String() string { return p.text }

// Match reports whether s is what the pattern allows. A pattern that Go's
// engine does not have (look-ahead) allows everything.
func (p *Pattern) Match(s string) bool {
	p.once.Do(func() { p.re, _ = compilePattern(p.text) })
	return p.re == nil || p.re.MatchString(s)
}

var javaEscape = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\\u(10[0-9A-Fa-f]{4}|[0-9A-Fa-f]{4})`)
})

func compilePattern(text string) (*regexp.Regexp, error) {
	// One model pattern ends in \u10000-\u10FFFF: meant are the planes above
	// the first. Go has no surrogates, so that the gap around them is nothing.
	text = javaEscape().ReplaceAllString(text, `\x{$1}`)
	text = strings.ReplaceAll(text, `\x{1000}0-`, `\x{10000}-`)
	return regexp.Compile(`\A(?:` + text + `)\z`)
}
