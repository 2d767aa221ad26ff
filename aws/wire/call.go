package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"sync"
)

// Decode reads the request into a new input.
func (c *Call) Decode() (any, error) {
	in := c.Operation.New()
	v := reflect.ValueOf(in).Elem()
	var err error
	if c.Service.Protocol.json() {
		err = decodeJSON(c.body, c.Operation.Input(), v)
	} else {
		most := maxNodes
		if c.Operation.Unsigned {
			most = maxUnsigned
		}
		c.form = &formNode{}
		if err = parseForm(c.query, c.form, most); err == nil {
			err = parseForm(string(c.body), c.form, most)
		}
		if err == nil {
			err = formCodec{ec2: c.Service.Protocol == EC2Query}.decode(c.form, c.Operation.Input(), v)
		}
	}
	if err != nil {
		return nil, err
	}
	return in, nil
}

// Validate checks what Decode returned against the constraints of the model.
func (c *Call) Validate(in any) error {
	return Validate(c.Operation, in)
}

// Invoke calls the service's handler.
func (c *Call) Invoke(ctx context.Context, in any) (any, error) {
	return c.Operation.Invoke(ctx, in)
}

const ec2DryRun = "DryRun"

// DryRun reports whether an EC2 request only asks if it would be allowed.
func (c *Call) DryRun() bool {
	if c.Protocol != EC2Query || c.form == nil {
		return false
	}
	return c.form.get(ec2DryRun) == "true"
}

// EncodeResponse answers with out, a pointer to the operation's output. Lists
// at the top of an output are always there, as in AWS: clients index them
// without looking. Deeper down nil is absence. An output with a Stream is
// answered until that ends.
func (c *Call) EncodeResponse(w http.ResponseWriter, requestID string, out any) error {
	v := reflect.ValueOf(out)
	if !v.IsValid() || v.IsNil() {
		v = reflect.ValueOf(c.Operation.NewOutput())
	}
	v = v.Elem()
	if c.Operation.Streams {
		return c.encodeStream(w, requestID, v)
	}
	sc := c.Operation.Output()
	op := c.Operation.Name
	buffer := buffers.Get().(*[]byte)
	b := (*buffer)[:0]
	defer func() {
		if cap(b) <= maxBuffer {
			*buffer = b
			buffers.Put(buffer)
		}
	}()
	switch c.Protocol {
	case Query:
		b = append(b, '<')
		b = append(b, op...)
		b = append(b, `Response xmlns="`...)
		b = append(b, c.Service.XMLNamespace...)
		b = append(b, `">`...)
		if !c.Operation.NoOutput {
			b = openTag(b, op+"Result")
			b = xmlCodec{}.encode(b, sc, v, true)
			b = closeTag(b, op+"Result")
		}
		b = openTag(b, "ResponseMetadata")
		b = leaf(b, "RequestId", requestID)
		b = closeTag(b, "ResponseMetadata")
		b = closeTag(b, op+"Response")
	case EC2Query:
		b = append(b, xmlHeader...)
		b = append(b, '<')
		b = append(b, op...)
		b = append(b, `Response xmlns="`...)
		b = append(b, c.Service.XMLNamespace...)
		b = append(b, `/">`...)
		b = leaf(b, "requestId", requestID)
		if c.Operation.NoOutput {
			// Not in the model, but EC2 says so where it has nothing to say.
			b = leaf(b, "return", "true")
		}
		b = xmlCodec{ec2: true}.encode(b, sc, v, true)
		b = closeTag(b, op+"Response")
	default:
		b = appendJSON(b, sc, "", v, true)
		if c.Operation.NoOutput {
			b = b[:0] // Logs answers nothing at all to DeleteLogGroup and its like
		}
	}
	return c.write(w, http.StatusOK, requestID, "", b)
}

// buffers are where responses are built. A large one is not kept: it would stay
// for good what one answer needed once.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const maxBuffer = 1 << 18

const xmlHeader = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

var (
	contentJSON10 = []string{"application/x-amz-json-1.0"}
	contentJSON11 = []string{"application/x-amz-json-1.1"}
	contentEC2    = []string{"text/xml;charset=UTF-8"}
	contentQuery  = []string{"text/xml"}
)

func (c *Call) write(w http.ResponseWriter, status int, requestID, errorCode string, body []byte) error {
	h := w.Header()
	// The names are canonical already, and the values of a protocol always the same.
	content := contentJSON11
	switch c.Protocol {
	case JSON10:
		content = contentJSON10
	case EC2Query:
		content = contentEC2
	case Query:
		content = contentQuery
	}
	h["Content-Type"] = content
	values := [...]string{requestID, strconv.Itoa(len(body))}
	h["X-Amzn-Requestid"] = values[0:1:1]
	h["Content-Length"] = values[1:2:2]
	if errorCode != "" && c.Protocol.json() {
		h.Set("X-Amzn-Errortype", errorCode)
	}
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("write response: %w", err)
	}
	return nil
}

// EncodeError answers with err. An error that is not of AWS becomes the
// service's own internal failure, without its text: that belongs in the log.
func (c *Call) EncodeError(w http.ResponseWriter, requestID string, err error) error {
	e, ok := errors.AsType[Error](err)
	if !ok {
		e = c.internal(requestID)
	}
	code, status := e.ErrorCode(), e.HTTPStatus()
	if status < 400 || status > 599 {
		status = http.StatusInternalServerError
	}
	var b []byte
	switch c.Protocol {
	case Query:
		kind := "Sender"
		if status >= 500 {
			kind = "Receiver"
		}
		b = append(b, `<ErrorResponse`...)
		if c.Service != nil {
			b = append(b, ` xmlns="`...)
			b = append(b, c.Service.XMLNamespace...)
			b = append(b, '"')
		}
		b = append(b, '>')
		b = openTag(b, "Error")
		b = leaf(b, "Type", kind)
		b = leaf(b, "Code", code)
		b = c.errorMembers(b, e)
		b = closeTag(b, "Error")
		b = leaf(b, "RequestId", requestID)
		b = closeTag(b, "ErrorResponse")
	case EC2Query:
		b = append(b, xmlHeader...)
		b = append(b, `<Response><Errors><Error>`...)
		b = leaf(b, "Code", code)
		b = leaf(b, "Message", errorMessage(e))
		b = append(b, `</Error></Errors>`...)
		b = leaf(b, "RequestID", requestID)
		b = closeTag(b, "Response")
	default:
		b = append(b, `{"__type":`...)
		b = appendJSONString(b, code)
		b = c.errorMembers(b, e)
		b = append(b, '}')
	}
	return c.write(w, status, requestID, code, b)
}

// errorMembers appends what an error holds: the members of the model for a
// modelled one, the message for others.
func (c *Call) errorMembers(b []byte, e Error) []byte {
	v := reflect.ValueOf(e)
	message := errorMessage(e)
	if c.Service != nil && v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if sc := c.Service.errorSchema(v.Type()); sc != nil {
			if !c.Protocol.json() {
				return c.queryErrorMembers(b, sc, v.Elem())
			}
			members := appendJSON(nil, sc, "", v.Elem(), false)
			if members = members[1 : len(members)-1]; len(members) > 0 {
				b = append(b, ',')
				b = append(b, members...)
			}
			if sc.hasMessage() {
				return b
			}
			return appendJSONMessage(b, message) // the model forgot it
		}
	}
	if !c.Protocol.json() {
		return leaf(b, "Message", message)
	}
	return appendJSONMessage(b, message)
}

func appendJSONMessage(b []byte, message string) []byte {
	if message == "" {
		return b
	}
	b = append(b, `,"message":`...)
	return appendJSONString(b, message)
}

func (sc *Schema) hasMessage() bool {
	_, small := sc.byName["message"]
	_, capital := sc.byName["Message"]
	return small || capital
}

// queryErrorMembers writes <Message> with a capital: the models spell it
// small, the envelope does not.
func (c *Call) queryErrorMembers(b []byte, sc *Schema, v reflect.Value) []byte {
	bound := sc.bind(v.Type())
	x := xmlCodec{ec2: c.Protocol == EC2Query}
	b = leaf(b, "Message", v.FieldByName("Message").String())
	for i := range sc.Members {
		m := &sc.Members[i]
		if f := v.Field(bound.fields[i]); m.Name != "message" && m.Name != "Message" && present(f) {
			b = x.element(b, x.name(m), m, f)
		}
	}
	return b
}

// errorMessage is the text of an error without its code.
func errorMessage(e Error) string {
	if a, ok := e.(*APIError); ok {
		return a.Message
	}
	if v := reflect.ValueOf(e); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if f := v.Elem().FieldByName("Message"); f.IsValid() && f.Kind() == reflect.String {
			return f.String()
		}
	}
	return e.Error()
}

// internal is the failure that each API documents as its own.
func (c *Call) internal(requestID string) *APIError {
	code := "InternalFailure"
	if c.Service != nil {
		switch c.Service.Style {
		case StyleECS, StyleECR:
			code = "ServerException"
		case StyleLogs:
			code = "ServiceUnavailableException"
		case StyleSSM:
			code = "InternalServerError"
		case StyleEC2:
			code = "InternalError"
		case StyleQuery:
			code = "ServiceFailure"
		}
	}
	return NewError(http.StatusInternalServerError, code,
		"The request processing has failed because of an internal error. (request "+requestID+")")
}
