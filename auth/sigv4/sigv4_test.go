package sigv4_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/berth-run/berth/auth/sigv4"
	"pgregory.net/rapid"
)

var now = time.Date(2026, 11, 22, 15, 30, 0, 0, time.UTC)

const (
	keyID  = "AKIAQAAAAAAAEXAMPLE2"
	secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// overWire sends r through HTTP's text form, as a server would get it.
func overWire(t testing.TB, r *http.Request) *http.Request {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func newRequest(t testing.TB, method, target string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("User-Agent", "test")
	return r
}

func verify(r *http.Request, body []byte, at time.Time) error {
	s, err := sigv4.Parse(r)
	if err != nil {
		return err
	}
	if s.AccessKeyID != keyID {
		return fmt.Errorf("access key %q", s.AccessKeyID)
	}
	return s.Verify(r, body, secret, at, &sigv4.Keys{})
}

func problem(err error) sigv4.Problem {
	if e, ok := errors.AsType[*sigv4.Error](err); ok {
		return e.Problem
	}
	return 0
}

// What the SDK signs must verify, and what this package signs must equal it.
func TestAgainstSDK(t *testing.T) {
	sdk := v4.NewSigner()
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringMatching(`[ -~äß]{0,12}`)
		q := url.Values{}
		for range rapid.IntRange(0, 4).Draw(rt, "params") {
			q.Add(text.Draw(rt, "name"), text.Draw(rt, "value"))
		}
		path := "/" + (&url.URL{Path: rapid.StringMatching(`([a-z%: äA-Z0-9._~-]{1,5}/){0,3}`).Draw(rt, "path")}).EscapedPath()
		path = strings.ReplaceAll(path, "/./", "/")
		host := rapid.SampledFrom([]string{"localhost:4566", "ecs.us-east-1.amazonaws.com", "[::1]:4566"}).Draw(rt, "host")
		body := rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(rt, "body")
		method := rapid.SampledFrom([]string{"GET", "POST", "PUT"}).Draw(rt, "method")
		token := rapid.SampledFrom([]string{"", "tok+en/=="}).Draw(rt, "token")
		service := rapid.SampledFrom([]string{"ecs", "iam"}).Draw(rt, "service")
		target := "http://" + host + path + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
		creds := aws.Credentials{AccessKeyID: keyID, SecretAccessKey: secret, SessionToken: token}

		build := func() *http.Request {
			r, err := http.NewRequest(method, target, bytes.NewReader(body))
			if err != nil {
				rt.Skip(err)
			}
			r.Header.Set("X-Amz-Target", "Some.Thing")
			r.Header.Set("X-Spaced", "  a   b  c ")
			return r
		}
		theirs := build()
		if err := sdk.SignHTTP(context.Background(), creds, theirs, sigv4.HashHex(body), service, "us-east-1", now); err != nil {
			rt.Fatal(err)
		}
		if err := verify(overWire(t, theirs), body, now); err != nil {
			rt.Fatalf("signed by the SDK: %v\n%s %s\n%v", err, method, target, theirs.Header)
		}
		ours := build()
		sigv4.Signer{AccessKeyID: keyID, Secret: secret, Token: token}.Sign(ours, body, service, "us-east-1", now)
		if err := verify(overWire(t, ours), body, now); err != nil {
			rt.Fatalf("signed here: %v", err)
		}

		uri, _, err := sdk.PresignHTTP(context.Background(), creds, func() *http.Request {
			r := build()
			r.Header = http.Header{}
			return r
		}(), sigv4.HashHex(body), service, "us-east-1", now)
		if err != nil {
			rt.Fatal(err)
		}
		presigned, err := http.NewRequest(method, uri, bytes.NewReader(body))
		if err != nil {
			rt.Fatal(err)
		}
		if err := verify(overWire(t, presigned), body, now.Add(time.Minute)); err != nil {
			rt.Fatalf("presigned by the SDK: %v\n%s", err, uri)
		}
	})
}

func TestSignEqualsSDK(t *testing.T) {
	body := []byte(`{"cluster":"c"}`)
	build := func() *http.Request {
		// Without a length, which the SDK signs and this signer leaves out.
		r, err := http.NewRequest("POST", "http://localhost:4566/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.ListTasks")
		r.Header.Set("Content-Type", "application/x-amz-json-1.1")
		return r
	}
	theirs, ours := build(), build()
	creds := aws.Credentials{AccessKeyID: keyID, SecretAccessKey: secret}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, theirs, sigv4.HashHex(body), "ecs", "us-east-1", now); err != nil {
		t.Fatal(err)
	}
	sigv4.Signer{AccessKeyID: keyID, Secret: secret}.Sign(ours, body, "ecs", "us-east-1", now)
	if got, want := ours.Header.Get("Authorization"), theirs.Header.Get("Authorization"); got != want {
		t.Errorf("Authorization\n got %s\nwant %s", got, want)
	}
}

func TestRefused(t *testing.T) {
	signer := sigv4.Signer{AccessKeyID: keyID, Secret: secret, Token: "token"}
	body := []byte("Action=GetUser&Version=2010-05-08")
	signed := func() *http.Request {
		r := newRequest(t, "POST", "http://localhost:4566/?a=b", body)
		r.Header.Set("X-Amz-Target", "A.B")
		signer.Sign(r, body, "iam", "us-east-1", now)
		return r
	}
	for _, tc := range []struct {
		name    string
		change  func(*http.Request) []byte
		at      time.Time
		problem sigv4.Problem
		message string
	}{
		{"as signed", func(*http.Request) []byte { return body }, now, 0, ""},
		{"other body", func(*http.Request) []byte { return []byte("Action=DeleteUser") }, now, sigv4.Invalid, "does not match the signature you provided"},
		{"other method", func(r *http.Request) []byte { r.Method = "PUT"; return body }, now, sigv4.Invalid, "does not match"},
		{"other query", func(r *http.Request) []byte { r.URL.RawQuery = "a=c"; return body }, now, sigv4.Invalid, "does not match"},
		{"more query", func(r *http.Request) []byte { r.URL.RawQuery = "a=b&a=b"; return body }, now, sigv4.Invalid, "does not match"},
		{"other path", func(r *http.Request) []byte { r.URL.Path = "/x"; return body }, now, sigv4.Invalid, "does not match"},
		{"other host", func(r *http.Request) []byte { r.Host = "localhost"; return body }, now, sigv4.Invalid, "does not match"},
		{"other header", func(r *http.Request) []byte { r.Header.Set("X-Amz-Target", "A.C"); return body }, now, sigv4.Invalid, "does not match"},
		{"other token", func(r *http.Request) []byte { r.Header.Set("X-Amz-Security-Token", "x"); return body }, now, sigv4.Invalid, "does not match"},
		{"no signature", func(r *http.Request) []byte { r.Header.Del("Authorization"); return body }, now, sigv4.Missing, "Missing Authentication Token"},
		{"basic", func(r *http.Request) []byte { r.Header.Set("Authorization", "Basic eDp5"); return body }, now, sigv4.Missing, "Missing"},
		{"empty fields", func(r *http.Request) []byte { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 x=y"); return body }, now, sigv4.Incomplete,
			"Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. (Hashed with"},
		{"no date", func(r *http.Request) []byte { r.Header.Del("X-Amz-Date"); return body }, now, sigv4.Incomplete, "existence of either a 'X-Amz-Date' or a 'Date' header."},
		{"chunked", func(r *http.Request) []byte {
			r.Header.Set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")
			return body
		}, now, sigv4.Unsupported, "only supported by Amazon S3"},
		{"asymmetric", func(r *http.Request) []byte {
			r.Header.Set("Authorization", "AWS4-ECDSA-P256-SHA256 Credential=x")
			return body
		}, now, sigv4.Unsupported, "Unsupported signature algorithm"},
		{"host unsigned", func(r *http.Request) []byte {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "SignedHeaders=host;", "SignedHeaders=", 1))
			return body
		}, now, sigv4.Invalid, "'Host' or ':authority' must be a 'SignedHeader'"},
		{"edge of the past", func(*http.Request) []byte { return body }, now.Add(5 * time.Minute), 0, ""},
		{"edge of the future", func(*http.Request) []byte { return body }, now.Add(-5 * time.Minute), 0, ""},
		{"expired", func(*http.Request) []byte { return body }, now.Add(5*time.Minute + time.Second), sigv4.Invalid,
			"Signature expired: 20261122T153000Z is now earlier than 20261122T153001Z (20261122T153501Z - 5 min.)"},
		{"early", func(*http.Request) []byte { return body }, now.Add(-5*time.Minute - time.Second), sigv4.Invalid,
			"Signature not yet current: 20261122T153000Z is still later than 20261122T152959Z (20261122T152459Z + 5 min.)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := signed()
			sent := tc.change(r)
			err := verify(r, sent, tc.at)
			if problem(err) != tc.problem || tc.problem == 0 && err != nil {
				t.Fatalf("got %v (%d), want problem %d", err, problem(err), tc.problem)
			}
			if err != nil && !strings.Contains(err.Error(), tc.message) {
				t.Errorf("message %q does not contain %q", err, tc.message)
			}
		})
	}
}

func TestUnsignedTarget(t *testing.T) {
	r := newRequest(t, "POST", "http://h/", nil)
	sigv4.Signer{AccessKeyID: keyID, Secret: secret}.Sign(r, nil, "ecs", "us-east-1", now)
	r.Header.Set("X-Amz-Target", "A.DeleteCluster")
	if err := verify(r, nil, now); problem(err) != sigv4.Invalid {
		t.Errorf("a target added after signing: %v", err)
	}
}

func TestUnsignedPayload(t *testing.T) {
	r := newRequest(t, "PUT", "http://h/", []byte("whatever"))
	r.Header.Set("X-Amz-Content-Sha256", sigv4.UnsignedPayload)
	sigv4.Signer{AccessKeyID: keyID, Secret: secret}.Sign(r, nil, "ecr", "us-east-1", now)
	if err := verify(r, []byte("else"), now); err != nil {
		t.Error(err)
	}
}

func TestPresignExpiry(t *testing.T) {
	r := newRequest(t, "GET", "http://h/?Action=GetCallerIdentity", nil)
	sigv4.Signer{AccessKeyID: keyID, Secret: secret, Token: "a b+c"}.Presign(r, nil, "sts", "us-east-1", now, 15*time.Minute)
	got := overWire(t, r)
	if err := verify(got, nil, now.Add(15*time.Minute)); err != nil {
		t.Error(err)
	}
	if err := verify(got, nil, now.Add(15*time.Minute+time.Second)); problem(err) != sigv4.Invalid {
		t.Errorf("after the end: %v", err)
	}
	s, err := sigv4.Parse(got)
	if err != nil || s.Token != "a b+c" {
		t.Errorf("token %q, %v", s.Token, err)
	}
}

func TestFrame(t *testing.T) {
	u, _ := url.Parse("ws://127.0.0.1:4566/ws/tcs?cluster=c&containerInstance=arn%3Aaws&agentVersion=1")
	signer := sigv4.Signer{AccessKeyID: keyID, Secret: secret, Token: "t"}
	message := []byte(`{"type":"PublishMetricsRequest","message":{}}`)
	frame := signer.SignFrame(u, message, "ecs", "us-east-1", now)
	upgrade := &http.Request{Method: "GET", URL: &url.URL{Path: u.Path, RawQuery: u.RawQuery}, Host: u.Host}
	r, got, err := sigv4.ParseFrame(frame, upgrade)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, message) {
		t.Errorf("message %s", got)
	}
	if err := verify(r, got, now); err != nil {
		t.Error(err)
	}
	if err := verify(r, append(got, ' '), now); problem(err) != sigv4.Invalid {
		t.Errorf("changed message: %v", err)
	}
	if _, _, err := sigv4.ParseFrame(message, upgrade); err == nil {
		t.Error("a frame without headers was taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=a/20261122/r/s/aws4_request, SignedHeaders=host, Signature=00", "20261122T153000Z", "")
	f.Add("", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/b/c/d/e&X-Amz-Expires=9")
	f.Fuzz(func(t *testing.T, authorization, date, query string) {
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/", RawQuery: query}, Host: "h",
			Header: http.Header{"Authorization": {authorization}, "X-Amz-Date": {date}}}
		s, err := sigv4.Parse(r)
		if err != nil {
			if problem(err) == 0 {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		if s.Verify(r, nil, "secret", now, nil) == nil {
			t.Fatal("verified a signature made of nothing")
		}
	})
}

func FuzzParseFrame(f *testing.F) {
	f.Add([]byte("Host: h\r\nAuthorization: x\r\n\r\n{}"))
	up := &http.Request{URL: &url.URL{Path: "/"}, Host: "h"}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		_, _, _ = sigv4.ParseFrame(frame, up)
		if !bytes.Equal(before, frame) {
			t.Fatal("the frame was changed")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 512)
	r := newRequest(b, "POST", "http://localhost:4566/", body)
	r.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.DescribeTasks")
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	sigv4.Signer{AccessKeyID: keyID, Secret: secret}.Sign(r, body, "ecs", "us-east-1", now)
	var keys sigv4.Keys
	b.ReportAllocs()
	for b.Loop() {
		s, err := sigv4.Parse(r)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Verify(r, body, secret, now, &keys); err != nil {
			b.Fatal(err)
		}
	}
}
