package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
)

// A Client calls operations over HTTP. It does not retry.
type Client struct {
	Endpoint string       // required: "http://localhost:4566"
	HTTP     *http.Client // optional: http.DefaultClient
	// Sign adds a signature to a request; nil sends it unsigned.
	Sign func(req *http.Request, body []byte) error
}

// maxResponse bounds what a client reads into memory.
const maxResponse = 64 << 20

// Call calls an operation. in and out are pointers to its input and output;
// out may be nil. An error that the service answered is a wire.Error: the
// generated type where the API models it, else an APIError.
func (c *Client) Call(ctx context.Context, svc *Service, operation string, in, out any) error {
	o := svc.Operations[operation]
	if o == nil {
		return fmt.Errorf("%s has no operation %s", svc.Title, operation)
	}
	if o.Streams {
		return fmt.Errorf("%s %s answers with a stream", svc.Title, operation)
	}
	if err := c.call(ctx, svc, o, in, out); err != nil {
		return fmt.Errorf("%s %s: %w", svc.Name, operation, err)
	}
	return nil
}

func (c *Client) call(ctx context.Context, svc *Service, o *Operation, in, out any) error {
	resp, err := c.send(ctx, svc, o, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := readResponse(resp)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return decodeError(svc, resp, data)
	}
	if out == nil {
		return nil
	}
	if err := decodeResponse(svc, o, data, out); err != nil {
		return fmt.Errorf("decode response: %w", err)
	}
	return nil
}

func readResponse(resp *http.Response) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	if len(data) > maxResponse {
		return nil, fmt.Errorf("the response is larger than %d bytes", maxResponse)
	}
	return data, nil
}

func (c *Client) send(ctx context.Context, svc *Service, o *Operation, in any) (*http.Response, error) {
	body, err := encodeRequest(svc, o, in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.Endpoint, "/")+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	setRequestHeader(req.Header, svc, o)
	if c.Sign != nil && !o.Unsigned {
		if err := c.Sign(req, body); err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	return client.Do(req)
}

func setRequestHeader(h http.Header, svc *Service, o *Operation) {
	switch svc.Protocol {
	case JSON10:
		h.Set("Content-Type", "application/x-amz-json-1.0")
	case JSON11:
		h.Set("Content-Type", "application/x-amz-json-1.1")
	default:
		h.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		return
	}
	h.Set("X-Amz-Target", svc.TargetPrefix+"."+o.Name)
}

func encodeRequest(svc *Service, o *Operation, in any) ([]byte, error) {
	v := reflect.ValueOf(in)
	if !v.IsValid() || v.Type() != reflect.TypeOf(o.In) || v.IsNil() {
		return nil, fmt.Errorf("the input is a %T, not a %T", in, o.In)
	}
	v = v.Elem()
	switch svc.Protocol {
	case JSON10, JSON11:
		return appendJSON(nil, o.Input(), "", v, false), nil
	}
	b := appendParam(nil, "Action", o.Name)
	b = appendParam(b, "Version", svc.APIVersion)
	return formCodec{ec2: svc.Protocol == EC2Query}.encode(b, o.Input(), v, ""), nil
}

func decodeResponse(svc *Service, o *Operation, data []byte, out any) error {
	v := reflect.ValueOf(out)
	if v.Type() != reflect.TypeOf(o.Out) || v.IsNil() {
		return fmt.Errorf("the output is a %T, not a %T", out, o.Out)
	}
	v = v.Elem()
	if svc.Protocol.json() {
		return decodeJSON(data, o.Output(), v)
	}
	if o.NoOutput {
		return nil
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	if _, err := root(d); err != nil {
		return err
	}
	codec := xmlCodec{ec2: svc.Protocol == EC2Query}
	if codec.ec2 {
		return codec.decode(d, o.Output(), v, 0)
	}
	return children(d, func(e xml.StartElement) error {
		if e.Name.Local == o.Name+"Result" {
			return codec.decode(d, o.Output(), v, 0)
		}
		return d.Skip()
	})
}

// root reads up to the document's element.
func root(d *xml.Decoder) (xml.StartElement, error) {
	for {
		t, err := d.Token()
		if err != nil {
			return xml.StartElement{}, noEOF(err)
		}
		if e, ok := t.(xml.StartElement); ok {
			return e, nil
		}
	}
}

// decodeError makes an error of an answer that is not a success. It never
// fails: what cannot be read becomes an error with the status as its code.
func decodeError(svc *Service, resp *http.Response, data []byte) error {
	var code, message string
	if svc.Protocol.json() {
		var body struct {
			Type    string `json:"__type"`
			Code    string `json:"code"`
			Message string `json:"message"` // matches Message, too
		}
		if json.Unmarshal(data, &body) == nil {
			code, message = firstOf(body.Type, body.Code), body.Message
		}
		code = firstOf(code, resp.Header.Get("X-Amzn-Errortype"))
		// Some services say com.amazonaws.x#Code, some Code:http://...
		if i := strings.LastIndexByte(code, '#'); i >= 0 {
			code = code[i+1:]
		}
		code, _, _ = strings.Cut(code, ":")
	} else {
		var body struct {
			Error  struct{ Code, Message string }
			Errors struct {
				Error []struct{ Code, Message string }
			}
		}
		if xml.Unmarshal(data, &body) == nil {
			code, message = body.Error.Code, body.Error.Message
			if len(body.Errors.Error) > 0 {
				code, message = body.Errors.Error[0].Code, body.Errors.Error[0].Message
			}
		}
	}
	if code == "" {
		return NewError(resp.StatusCode, "UnknownError", fmt.Sprintf("the answer has HTTP status %d and no error in it", resp.StatusCode))
	}
	if e := svc.newError(code); e != nil {
		v := reflect.ValueOf(e).Elem()
		sc := svc.errorSchema(reflect.TypeOf(e))
		if svc.Protocol.json() {
			// Only the members beside the message are lost if this fails.
			_ = decodeJSON(data, sc, v)
		} else {
			_ = decodeXMLError(data, sc, v)
		}
		v.FieldByName("Message").SetString(message)
		return e
	}
	return NewError(resp.StatusCode, code, message)
}

func decodeXMLError(data []byte, sc *Schema, v reflect.Value) error {
	d := xml.NewDecoder(bytes.NewReader(data))
	if _, err := root(d); err != nil {
		return err
	}
	return children(d, func(e xml.StartElement) error {
		if e.Name.Local == "Error" {
			return xmlCodec{}.decode(d, sc, v, 0)
		}
		return d.Skip()
	})
}
