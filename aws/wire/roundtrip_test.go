package wire_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/berth-run/berth/aws/wire"
)

// loopback serves calls with respond, without a network.
type loopback struct {
	router  *wire.Router
	respond func(call *wire.Call, in any) (any, error)
	decoded any
}

func (l *loopback) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	call, err := l.router.Route(req, body)
	if err == nil {
		l.decoded, err = call.Decode()
	}
	var out any
	if err == nil {
		out, err = l.respond(call, l.decoded)
	}
	if err != nil {
		err = call.EncodeError(w, "req-1", err)
	} else {
		err = call.EncodeResponse(w, "req-1", out)
	}
	if err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// fillTopLists does to an output what EncodeResponse does.
func fillTopLists(v reflect.Value) {
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Slice && f.IsNil() && f.Type().Elem().Kind() != reflect.Uint8 {
			f.Set(reflect.MakeSlice(f.Type(), 0, 0))
		}
	}
}

// Every operation of every service: what a client sends is what the handler
// gets, what the handler answers is what the client gets.
func TestRoundTrip(t *testing.T) {
	for _, svc := range services() {
		t.Run(svc.Name, func(t *testing.T) {
			names := slices.Sorted(maps.Keys(svc.Operations))
			l := &loopback{router: wire.NewRouter(svc)}
			client := wire.Client{Endpoint: "http://berth.test", HTTP: &http.Client{Transport: l}}
			json := svc.Protocol == wire.JSON10 || svc.Protocol == wire.JSON11
			rapid.Check(t, func(t *rapid.T) {
				o := svc.Operations[rapid.SampledFrom(names).Draw(t, "operation")]
				in := o.New()
				f := filler{t: t, emptyLists: svc.Protocol != wire.EC2Query, emptyStructs: json}
				f.structure(o.Input(), reflect.ValueOf(in).Elem(), 6)
				out := o.NewOutput()
				f.emptyLists, f.emptyStructs = true, true
				if o.Streams { // the output: TestStream
					l.respond = func(*wire.Call, any) (any, error) { return out, nil }
					if err := client.Stream(context.Background(), svc, o.Name, in, func(any) bool { return false }); err != nil {
						t.Fatal(err)
					}
					if d := cmp.Diff(in, l.decoded); d != "" {
						t.Fatalf("%s input (-sent +decoded):\n%s", o.Name, d)
					}
					return
				}
				f.structure(o.Output(), reflect.ValueOf(out).Elem(), 6)
				want := reflect.New(reflect.TypeOf(out).Elem())
				want.Elem().Set(reflect.ValueOf(out).Elem())
				fillTopLists(want.Elem())
				if o.NoOutput {
					want = reflect.New(reflect.TypeOf(out).Elem())
				}

				l.respond = func(*wire.Call, any) (any, error) { return out, nil }
				got := o.NewOutput()
				if err := client.Call(context.Background(), svc, o.Name, in, got); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(in, l.decoded); d != "" {
					t.Fatalf("%s input (-sent +decoded):\n%s", o.Name, d)
				}
				if d := cmp.Diff(want.Interface(), got); d != "" {
					t.Fatalf("%s output (-answered +received):\n%s", o.Name, d)
				}
			})
		})
	}
}

// Every modelled error arrives as itself, with its members.
func TestErrorRoundTrip(t *testing.T) {
	for _, svc := range services() {
		if len(svc.Errors) == 0 {
			continue
		}
		t.Run(svc.Name, func(t *testing.T) {
			op := slices.Sorted(maps.Keys(svc.Operations))[0]
			o := svc.Operations[op]
			l := &loopback{router: wire.NewRouter(svc)}
			client := wire.Client{Endpoint: "http://berth.test", HTTP: &http.Client{Transport: l}}
			for _, e := range svc.Errors {
				typ := reflect.TypeOf(e).Elem()
				sc := svc.Schemas.Lookup(typ.Name())
				rapid.Check(t, func(t *rapid.T) {
					want := reflect.New(typ)
					f := filler{t: t, emptyLists: true, emptyStructs: true}
					f.structure(withoutMessage(sc), want.Elem(), 4)
					want.Elem().FieldByName("Message").SetString(keepXML(texts.Draw(t, "message")))
					l.respond = func(*wire.Call, any) (any, error) { return nil, want.Interface().(error) }
					err := client.Call(context.Background(), svc, op, o.New(), nil)
					got := reflect.New(reflect.PointerTo(typ))
					if !asType(err, got) {
						t.Fatalf("got %T %v, want %s", err, err, typ)
					}
					if d := cmp.Diff(want.Interface(), got.Elem().Interface()); d != "" {
						t.Fatal(d)
					}
				})
			}
		})
	}
}

func withoutMessage(sc *wire.Schema) *wire.Schema {
	c := &wire.Schema{Name: sc.Name, Kind: sc.Kind}
	for _, m := range sc.Members {
		if m.Name != "message" && m.Name != "Message" {
			c.Members = append(c.Members, m)
		}
	}
	return c
}

func asType(err error, target reflect.Value) bool {
	for ; err != nil; err = unwrap(err) {
		if reflect.TypeOf(err) == target.Elem().Type() {
			target.Elem().Set(reflect.ValueOf(err))
			return true
		}
	}
	return false
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return nil
}

// All shapes of all services parse, and bind to their Go types.
func TestSchemasBuild(t *testing.T) {
	for _, svc := range services() {
		n := 0
		for name := range svc.Schemas.Names() {
			if svc.Schemas.Lookup(name) == nil {
				t.Errorf("%s: no schema %s", svc.Name, name)
			}
			n++
		}
		if n < 50 {
			t.Errorf("%s has only %d shapes", svc.Name, n)
		}
		for name, o := range svc.Operations {
			if o.Input() == nil || o.Output() == nil {
				t.Errorf("%s %s has no schemas", svc.Name, name)
			}
		}
	}
}

func post(target, content string, body []byte) *http.Request {
	r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
	r.Header.Set("Content-Type", content)
	if target != "" {
		r.Header.Set("X-Amz-Target", target)
	}
	return r
}
