package sigv4

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Skew is how far a client's clock may be off.
const Skew = 5 * time.Minute

// maxExpires is the longest a presigned request may be good for.
const maxExpires = 7 * 24 * time.Hour

// maxScope bounds the names in a credential scope, which are remembered.
const maxScope = 64

// Problem is a kind of failure. Services name the same problem differently.
type Problem int

// The kinds of failure.
const (
	Missing     Problem = iota + 1 // no signature at all
	Incomplete                     // a signature that cannot be read
	Invalid                        // a signature that does not fit the request, the place or the time
	Unsupported                    // a form of signing that only other services have
)

// An Error says in AWS's words why a signature is not accepted.
type Error struct {
	Problem Problem
	Message string
}

func (e *Error) Error() string { return e.Message }

func incomplete(message string) error { return &Error{Incomplete, message} }
func invalid(message string) error    { return &Error{Invalid, message} }

const mismatch = "The request signature we calculated does not match the signature you provided. " +
	"Check your AWS Secret Access Key and signing method. Consult the service documentation for details."

// A Signature is what a request says of its signature. Nothing of it is
// verified before Verify has returned nil.
type Signature struct {
	AccessKeyID     string
	Token           string
	Region, Service string
	Time            time.Time
	Expires         time.Duration // presigned requests only

	date      string // as in the scope
	headers   []string
	signature []byte
	presigned bool
	payload   string // "" for the hash of the body
}

// Parse reads the signature of a request from its headers or query.
func Parse(r *http.Request) (*Signature, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		return parseHeader(r, h)
	}
	if strings.Contains(r.URL.RawQuery, "X-Amz-") {
		q := r.URL.Query()
		if q.Has("X-Amz-Algorithm") || q.Has("X-Amz-Signature") || q.Has("X-Amz-Credential") {
			return parseQuery(q)
		}
	}
	return nil, &Error{Missing, "Missing Authentication Token"}
}

func parseHeader(r *http.Request, h string) (*Signature, error) {
	algorithm, rest, _ := strings.Cut(h, " ")
	if algorithm != Algorithm {
		if strings.HasPrefix(algorithm, "AWS4-") || algorithm == "AWS" {
			return nil, &Error{Unsupported, "Unsupported signature algorithm: only " + Algorithm + " is supported."}
		}
		return nil, &Error{Missing, "Missing Authentication Token"}
	}
	var credential, signed, signature string
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		switch name {
		case "Credential":
			credential = value
		case "SignedHeaders":
			signed = value
		case "Signature":
			signature = value
		}
	}
	stamp := r.Header.Get("X-Amz-Date")
	var why []string
	for _, f := range []struct{ name, value string }{{"Credential", credential}, {"Signature", signature}, {"SignedHeaders", signed}} {
		if f.value == "" {
			why = append(why, "Authorization header requires '"+f.name+"' parameter.")
		}
	}
	if stamp == "" {
		t, err := http.ParseTime(r.Header.Get("Date"))
		if err != nil {
			why = append(why, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
		} else {
			stamp = t.UTC().Format(timeFormat)
		}
	}
	if why != nil {
		sum := sha256.Sum256([]byte(h))
		return nil, incomplete(strings.Join(why, " ") + " (Hashed with SHA-256 and encoded with Base64) Authorization=" + base64.StdEncoding.EncodeToString(sum[:]))
	}
	s, err := parseParts(credential, signed, signature, stamp)
	if err != nil {
		return nil, err
	}
	s.Token = r.Header.Get("X-Amz-Security-Token")
	if s.Token != "" && !slices.Contains(s.headers, "x-amz-security-token") {
		return nil, invalid("'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization.")
	}
	switch v := r.Header.Get("X-Amz-Content-Sha256"); {
	case v == UnsignedPayload:
		s.payload = v
	case strings.HasPrefix(v, "STREAMING-"):
		return nil, &Error{Unsupported, "The payload signing method " + strconv.Quote(v) + " is only supported by Amazon S3."}
	}
	return s, nil
}

func parseQuery(q map[string][]string) (*Signature, error) {
	get := func(name string) string {
		if v := q[name]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	if a := get("X-Amz-Algorithm"); a != "" && a != Algorithm {
		return nil, &Error{Unsupported, "Unsupported signature algorithm: only " + Algorithm + " is supported."}
	}
	var why []string
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if get(name) == "" {
			why = append(why, "AWS query-string parameters must include '"+name+"'.")
		}
	}
	if why != nil {
		return nil, incomplete(strings.Join(why, " ") + " Re-examine the query-string parameters.")
	}
	s, err := parseParts(get("X-Amz-Credential"), get("X-Amz-SignedHeaders"), get("X-Amz-Signature"), get("X-Amz-Date"))
	if err != nil {
		return nil, err
	}
	s.presigned = true
	s.Token = get("X-Amz-Security-Token")
	// Without X-Amz-Expires the request is good for as long as a signed header is.
	s.Expires = Skew
	if e := get("X-Amz-Expires"); e != "" {
		seconds, err := strconv.ParseInt(e, 10, 32)
		if err != nil || seconds < 0 || time.Duration(seconds)*time.Second > maxExpires {
			return nil, incomplete("X-Amz-Expires must be a number of seconds between 0 and 604800.")
		}
		s.Expires = time.Duration(seconds) * time.Second
	}
	if get("X-Amz-Content-Sha256") == UnsignedPayload {
		s.payload = UnsignedPayload
	}
	return s, nil
}

func parseParts(credential, signed, signature, stamp string) (*Signature, error) {
	part := strings.SplitN(credential, "/", 6) // one more than is right tells as much as thousands
	if len(part) != 5 {
		return nil, incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '" + printable(credential) + "'")
	}
	at, err := time.Parse(timeFormat, stamp)
	if err != nil {
		return nil, incomplete("Date must be in ISO-8601 'basic format'. Got '" + printable(stamp) + "'. See http://en.wikipedia.org/wiki/ISO_8601")
	}
	if part[4] != terminator {
		return nil, invalid("Credential should be scoped with a valid terminator: 'aws4_request', not '" + printable(part[4]) + "'.")
	}
	if part[1] != stamp[:8] {
		return nil, invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" +
			printable(part[1]) + "' != '" + stamp[:8] + "', from '" + stamp + "'.")
	}
	s := &Signature{AccessKeyID: part[0], date: part[1], Region: part[2], Service: part[3], Time: at}
	if s.signature, err = hex.DecodeString(signature); err != nil || len(s.signature) != sha256.Size {
		return nil, invalid(mismatch)
	}
	if len(s.Region) > maxScope || len(s.Service) > maxScope {
		return nil, invalid(mismatch)
	}
	s.headers = strings.Split(signed, ";")
	if !slices.IsSorted(s.headers) {
		return nil, incomplete("SignedHeaders must be sorted.")
	}
	if len(slices.Compact(slices.Clone(s.headers))) < len(s.headers) {
		// Each naming would put the header's value into what is hashed once more.
		return nil, incomplete("SignedHeaders must name each header once.")
	}
	if !slices.Contains(s.headers, "host") {
		return nil, invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	return s, nil
}

// printable shortens what a client sent to what an answer may repeat.
func printable(s string) string {
	if len(s) > 128 {
		s = s[:128]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// Verify checks that secret signed this request, with this body, for this time.
// Region and service are the caller's to judge.
func (s *Signature) Verify(r *http.Request, body []byte, secret string, now time.Time, keys *Keys) error {
	// The operation is part of what is signed: a signature for one must not serve for another.
	if r.Header.Get("X-Amz-Target") != "" && !slices.Contains(s.headers, "x-amz-target") {
		return invalid("There were headers present in the request which were not signed: x-amz-target")
	}
	payload := s.payload
	if payload == "" {
		payload = hashHex(body)
	}
	stamp := s.Time.Format(timeFormat)
	scope := s.date + "/" + s.Region + "/" + s.Service + "/" + terminator
	key := keys.get(secret, s.date, s.Region, s.Service)
	h := hmac.New(sha256.New, key[:])
	h.Write(stringToSign(stamp, scope, canonicalRequest(r, s.headers, payload)))
	if !hmac.Equal(h.Sum(nil), s.signature) {
		return invalid(mismatch)
	}
	return s.checkTime(now)
}

// checkTime comes after the signature, so that a stranger learns nothing of the
// server's clock and a wrong secret is not reported as a wrong clock.
func (s *Signature) checkTime(now time.Time) error {
	now = now.UTC()
	stamp := s.Time.Format(timeFormat)
	if s.Time.After(now.Add(Skew)) {
		return invalid("Signature not yet current: " + stamp + " is still later than " + now.Add(Skew).Format(timeFormat) +
			" (" + now.Format(timeFormat) + " + 5 min.)")
	}
	if s.presigned {
		if end := s.Time.Add(s.Expires); end.Before(now) {
			return invalid("Signature expired: " + stamp + " is now earlier than " + now.Add(-s.Expires).Format(timeFormat) +
				" (" + now.Format(timeFormat) + " - " + strconv.Itoa(int(s.Expires/time.Second)) + " s.)")
		}
		return nil
	}
	if s.Time.Before(now.Add(-Skew)) {
		return invalid("Signature expired: " + stamp + " is now earlier than " + now.Add(-Skew).Format(timeFormat) +
			" (" + now.Format(timeFormat) + " - 5 min.)")
	}
	return nil
}

var errFrame = errors.New("frame is not a header block followed by a message")

// ParseFrame takes a message of the telemetry stream apart: it returns the
// request that its headers sign, to be given to Parse and Verify with the
// message as body. upgrade is the request that opened the stream.
func ParseFrame(frame []byte, upgrade *http.Request) (r *http.Request, message []byte, err error) {
	head, message, ok := bytes.Cut(frame, []byte("\r\n\r\n"))
	if !ok {
		return nil, nil, errFrame
	}
	head = append(slices.Clip(head), "\r\n\r\n"...)
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(head))).ReadMIMEHeader()
	if err != nil {
		return nil, nil, errFrame
	}
	r = &http.Request{Method: http.MethodGet, URL: upgrade.URL, Header: http.Header(h), Host: upgrade.Host, ContentLength: int64(len(message))}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host")
	}
	return r, message, nil
}
