package sigv4

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Signer signs with one set of credentials. Token is "" for long-term ones.
type Signer struct{ AccessKeyID, Secret, Token string }

// unsignedHeaders may be changed on the way and are left out of the signature.
var unsignedHeaders = []string{"authorization", "user-agent", "expect", "x-amzn-trace-id", "transfer-encoding", "connection"}

// Sign adds the signature to the headers of r, whose body is body.
func (s Signer) Sign(r *http.Request, body []byte, service, region string, at time.Time) {
	stamp := at.UTC().Format(timeFormat)
	r.Header.Set("X-Amz-Date", stamp)
	if s.Token != "" {
		r.Header.Set("X-Amz-Security-Token", s.Token)
	} else {
		r.Header.Del("X-Amz-Security-Token")
	}
	names := []string{"host"}
	for name := range r.Header {
		if low := strings.ToLower(name); !slices.Contains(unsignedHeaders, low) && low != "host" && low != "content-length" {
			names = append(names, low)
		}
	}
	slices.Sort(names)
	payload := r.Header.Get("X-Amz-Content-Sha256")
	if payload != UnsignedPayload {
		payload = hashHex(body)
	}
	scope := stamp[:8] + "/" + region + "/" + service + "/" + terminator
	r.Header.Set("Authorization", Algorithm+" Credential="+s.AccessKeyID+"/"+scope+
		", SignedHeaders="+strings.Join(names, ";")+
		", Signature="+s.signature(canonicalRequest(r, names, payload), stamp, scope, region, service))
}

// Presign puts a signature good for the given time into the query of r. Only
// the host is signed of the headers.
func (s Signer) Presign(r *http.Request, body []byte, service, region string, at time.Time, valid time.Duration) {
	stamp := at.UTC().Format(timeFormat)
	scope := stamp[:8] + "/" + region + "/" + service + "/" + terminator
	q := r.URL.Query()
	q.Set("X-Amz-Algorithm", Algorithm)
	q.Set("X-Amz-Credential", s.AccessKeyID+"/"+scope)
	q.Set("X-Amz-Date", stamp)
	q.Set("X-Amz-Expires", strconv.Itoa(int(valid/time.Second)))
	q.Set("X-Amz-SignedHeaders", "host")
	if s.Token != "" {
		q.Set("X-Amz-Security-Token", s.Token)
	}
	r.URL.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	names := []string{"host"}
	r.URL.RawQuery += "&X-Amz-Signature=" + s.signature(canonicalRequest(r, names, hashHex(body)), stamp, scope, region, service)
}

// SignFrame signs one message of the telemetry stream opened at u: a block of
// headers, an empty line, and the message.
func (s Signer) SignFrame(u *url.URL, message []byte, service, region string, at time.Time) []byte {
	r := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{}, ContentLength: int64(len(message))}
	s.Sign(r, message, service, region, at)
	var b strings.Builder
	b.WriteString("Host: " + u.Host + "\r\n")
	_ = r.Header.Write(&b) // a Builder takes everything
	b.WriteString("\r\n")
	return append([]byte(b.String()), message...)
}

func (s Signer) signature(canonical []byte, stamp, scope, region, service string) string {
	key := deriveKey(s.Secret, stamp[:8], region, service)
	sum := mac(key[:], string(stringToSign(stamp, scope, canonical)))
	return hex.EncodeToString(sum[:])
}
