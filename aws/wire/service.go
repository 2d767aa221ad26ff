package wire

import (
	"context"
	"reflect"
	"strings"
	"sync"
)

// Protocol is how an API puts its shapes on the wire.
type Protocol uint8

const (
	JSON10   Protocol = iota + 1 // AWS JSON 1.0
	JSON11                       // AWS JSON 1.1
	Query                        // AWS Query: form in, XML out
	EC2Query                     // EC2's dialect of it
)

func (p Protocol) json() bool { return p == JSON10 || p == JSON11 }

func (p Protocol) String() string {
	switch p {
	case JSON10:
		return "json-1.0"
	case JSON11:
		return "json-1.1"
	case Query:
		return "query"
	case EC2Query:
		return "ec2"
	}
	return "unknown"
}

// Description is what is fixed about an API. Generated code has one each, and
// nothing in it is computed before it is used.
type Description struct {
	Name         string // package name: "ecs"
	Title        string // "Amazon ECS"
	SigningName  string // name in the credential scope
	Protocol     Protocol
	TargetPrefix string // JSON: X-Amz-Target before the dot
	APIVersion   string // Query: the Version parameter
	XMLNamespace string
	Style        Style
	Schemas      *Schemas
	Errors       []Error // typed nils, one per modelled error
	Known        string  // names of operations that are not generated, one per line
}

// Operation is one call of an API.
type Operation struct {
	Name     string
	In, Out  any  // typed nil pointers to the input and output struct
	NoOutput bool // the model has no output, not even an empty one
	Unsigned bool // callers need no credentials
	Streams  bool // the output has a Stream
	// Invoke calls the bound handler; in is what New returned.
	Invoke func(ctx context.Context, in any) (any, error)

	service *Service
	input   lazySchema
	output  lazySchema
}

// New makes an empty input.
func (o *Operation) New() any { return reflect.New(reflect.TypeOf(o.In).Elem()).Interface() }

// NewOutput makes an empty output.
func (o *Operation) NewOutput() any { return reflect.New(reflect.TypeOf(o.Out).Elem()).Interface() }

// Service is the service that the operation belongs to.
func (o *Operation) Service() *Service { return o.service }

// Input is the schema of the operation's input.
func (o *Operation) Input() *Schema { return o.input.get(o.service.Schemas, o.Name+"Input") }

// Output is the schema of the operation's output.
func (o *Operation) Output() *Schema { return o.output.get(o.service.Schemas, o.Name+"Output") }

type lazySchema struct {
	once   sync.Once
	schema *Schema
}

func (l *lazySchema) get(s *Schemas, name string) *Schema {
	l.once.Do(func() { l.schema = s.Lookup(name) })
	return l.schema
}

// Service is an API with a handler bound to it.
type Service struct {
	*Description
	Operations map[string]*Operation

	errorsOnce sync.Once
	byCode     map[string]reflect.Type
	errorTypes map[reflect.Type]struct{}
}

// NewService binds operations to a description. Generated code calls it.
func NewService(d *Description, operations []Operation) *Service {
	s := &Service{Description: d, Operations: make(map[string]*Operation, len(operations))}
	for i := range operations {
		o := &operations[i]
		o.service = s
		s.Operations[o.Name] = o
	}
	return s
}

// knows reports whether the API has an operation of this name that is not
// generated.
func (s *Service) knows(operation string) bool {
	return operation != "" && !strings.ContainsRune(operation, '\n') &&
		strings.Contains(s.Known, "\n"+operation+"\n")
}

// errorSchema is the schema of a modelled error of this API, by its Go type.
func (s *Service) errorSchema(t reflect.Type) *Schema {
	s.indexErrors()
	if _, ok := s.errorTypes[t]; !ok {
		return nil
	}
	return s.Schemas.Lookup(t.Elem().Name())
}

// newError makes the modelled error with this code, or returns nil.
func (s *Service) newError(code string) Error {
	s.indexErrors()
	t := s.byCode[code]
	if t == nil {
		return nil
	}
	return reflect.New(t.Elem()).Interface().(Error)
}

func (s *Service) indexErrors() {
	s.errorsOnce.Do(func() {
		s.byCode = make(map[string]reflect.Type, len(s.Errors))
		s.errorTypes = make(map[reflect.Type]struct{}, len(s.Errors))
		for _, e := range s.Errors {
			t := reflect.TypeOf(e)
			s.errorTypes[t] = struct{}{}
			if s.byCode[e.ErrorCode()] == nil {
				s.byCode[e.ErrorCode()] = t
			}
		}
	})
}
