package service

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/berth-run/berth/aws/wire"
)

// A foreign service is one of AWS's that the region does not have. Who calls it
// is told so by name, in words that its client understands.
type foreign struct {
	name      string // as in signatures: s3
	operation string // "" where only the path says it
	protocol  string // json, query, rest-json, rest-xml, cbor
}

// protocols are those of the services that people call most beside those here.
// All others are told apart by how the request looks.
var protocols = map[string]string{
	"s3": "rest-xml", "route53": "rest-xml", "cloudfront": "rest-xml", "s3express": "rest-xml",
	"lambda": "rest-json", "apigateway": "rest-json", "execute-api": "rest-json", "eks": "rest-json", "batch": "rest-json",
	"elasticfilesystem": "rest-json", "scheduler": "rest-json", "pipes": "rest-json", "xray": "rest-json",
}

// prefixes are the services behind the names in X-Amz-Target that do not begin
// with the service's own.
var prefixes = map[string]string{
	"TrentService": "kms", "AWSEvents": "events", "AWSStepFunctions": "states", "DynamoDB_20120810": "dynamodb",
	"AnyScaleFrontendService": "application-autoscaling", "Route53AutoNaming_v20170314": "servicediscovery",
	"CertificateManager": "acm", "CodeDeploy_20141006": "codedeploy", "ResourceGroupsTaggingAPI_20170126": "tagging",
	"GraniteServiceVersion20100801": "monitoring", "AmazonSQS": "sqs", "Kinesis_20131202": "kinesis",
}

// foreign is the service that a request is for, nil if the region has it or
// nothing says which.
func (d *Door) foreign(r *http.Request) *foreign {
	target, content := r.Header.Get("X-Amz-Target"), r.Header.Get("Content-Type")
	prefix, operation := "", ""
	if dot := strings.LastIndexByte(target, '.'); dot > 0 {
		prefix, operation = target[:dot], target[dot+1:]
	}
	if d.targets[prefix] {
		return nil
	}
	name := wire.SigningName(r)
	if name == "" {
		if name = prefixes[prefix]; name == "" {
			name = d.byHost(r.Host)
		}
	}
	if name == "" || d.signing[name] {
		return nil
	}
	f := &foreign{name: printable(name), operation: printable(operation), protocol: protocols[name]}
	switch {
	case f.protocol != "":
	case r.Header.Get("Smithy-Protocol") == "rpc-v2-cbor":
		f.protocol = "cbor"
	case target != "":
		f.protocol = "json"
	case strings.HasPrefix(content, "application/x-www-form-urlencoded") || r.URL.Query().Has("Action"):
		f.protocol = "query"
	default:
		f.protocol = "rest-json"
	}
	return f
}

// byHost is the service that a host such as ssm.us-east-1.localhost or
// bucket.s3.localhost names, among those that are known.
func (d *Door) byHost(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	for label := range strings.SplitSeq(host, ".") {
		if protocols[label] != "" {
			return label
		}
		for _, service := range prefixes {
			if label == service {
				return label
			}
		}
	}
	return ""
}

// printable shortens what a client sent to what can stand in a message.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
	return s[:min(len(s), 64)]
}

func (f *foreign) error() *wire.APIError {
	what := "the service " + f.name
	if f.operation != "" {
		what += " (" + f.operation + ")"
	}
	message := "Berth does not have " + what + ". `berth coverage` lists what it has."
	switch f.protocol {
	case "rest-xml":
		return wire.NewError(http.StatusNotImplemented, "NotImplemented", message)
	case "query":
		return wire.NewError(http.StatusBadRequest, "InvalidAction", message)
	case "rest-json":
		return wire.NewError(http.StatusNotFound, "UnknownOperationException", message)
	}
	return wire.NewError(http.StatusBadRequest, "UnknownOperationException", message)
}

// answer writes the error as the service's own clients read it.
func (f *foreign) answer(w http.ResponseWriter, id string) error {
	e := f.error()
	h := w.Header()
	h.Set("X-Amzn-Requestid", id)
	var body []byte
	var err error
	switch f.protocol {
	case "rest-xml", "query":
		h.Set("Content-Type", "text/xml")
		h.Set("X-Amz-Request-Id", id)
		inner := struct {
			XMLName xml.Name `xml:"Error"`
			Type    string   `xml:",omitempty"`
			Code    string
			Message string
			ID      string `xml:"RequestId,omitempty"`
		}{Type: "Sender", Code: e.Code, Message: e.Message}
		if f.name == "s3" || f.name == "s3express" {
			inner.Type, inner.ID = "", id
			body, err = xml.Marshal(inner)
			break
		}
		body, err = xml.Marshal(struct {
			XMLName xml.Name `xml:"ErrorResponse"`
			Error   any
			ID      string `xml:"RequestId"`
		}{Error: inner, ID: id})
	case "cbor":
		h.Set("Content-Type", "application/cbor")
		h.Set("Smithy-Protocol", "rpc-v2-cbor")
		body = cborMap("__type", e.Code, "message", e.Message)
	default:
		h.Set("Content-Type", "application/x-amz-json-1.1")
		if f.protocol == "rest-json" {
			h.Set("Content-Type", "application/json")
		}
		h.Set("X-Amzn-Errortype", e.Code)
		body, err = json.Marshal(struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}{e.Code, e.Message})
	}
	if err != nil {
		return fmt.Errorf("encode error: %w", err)
	}
	w.WriteHeader(e.Status)
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("write response: %w", err)
	}
	return nil
}

// cborMap writes texts of less than 64 KiB, in pairs, as a map of CBOR (RFC 8949).
func cborMap(pairs ...string) []byte {
	b := []byte{0xa0 | byte(len(pairs)/2)}
	for _, s := range pairs {
		b = append(b, 0x79, byte(len(s)>>8), byte(len(s)))
		b = append(b, s...)
	}
	return b
}
