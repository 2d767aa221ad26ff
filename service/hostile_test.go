package service_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/throttle"
)

// within fails the test if f makes the process allocate more than so many MiB.
// That is more than what it holds at any moment.
func within(t *testing.T, mib uint64, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > mib {
		t.Errorf("%d MiB were allocated, more than %d", n, mib)
	}
}

// signed sends a request that the root user has signed.
func (r *testRegion) signed(service, contentType, target, body string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if target != "" {
		req.Header.Set("X-Amz-Target", target)
	}
	(&auth.Signer{AccessKeyID: r.root.AccessKeyID, Secret: r.root.Secret}).Sign(req, []byte(body), service, region, time.Now())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(b)
}

const gibibyte = 1 << 30

func TestBodyOfAGibibyte(t *testing.T) {
	r := start(t, nil)
	for name, send := range map[string]func(net.Conn) error{
		"announced": func(c net.Conn) error {
			_, err := fmt.Fprintf(c, jsonHead+"Content-Length: %d\r\n\r\n{", gibibyte)
			return err
		},
		"chunked": func(c net.Conn) error {
			if _, err := io.WriteString(c, jsonHead+"Transfer-Encoding: chunked\r\n\r\n"); err != nil {
				return err
			}
			chunk := append(append([]byte("10000\r\n"), bytes.Repeat([]byte("x"), 1<<16)...), "\r\n"...)
			for range gibibyte >> 16 {
				if _, err := c.Write(chunk); err != nil {
					return nil // it has been refused, as it should be
				}
			}
			return errors.New("a body of 1 GiB was read to its end")
		},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, 32, func() {
				res, body := r.raw(send)
				if res.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(body, `"__type":"RequestEntityTooLarge"`) || !res.Close {
					t.Errorf("%s %s, close %v", res.Status, body, res.Close)
				}
			})
		})
	}
}

// Many clients that each stay within the limit are not more than the server
// takes from all of them.
func TestManyBodies(t *testing.T) {
	const each, all = 1 << 20, 4 << 20
	r := startWith(t, func(c *service.Config) { c.BodyBytes, c.BodyTime = all, 30*time.Second })
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	refused := make(chan string, 16)
	var reading sync.WaitGroup
	within(t, 64, func() {
		for range cap(refused) {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			// All but the last byte: the request stays under way.
			if _, err := fmt.Fprintf(c, jsonHead+"Content-Length: %d\r\n\r\n%s", each, bytes.Repeat([]byte(" "), each-1)); err != nil {
				continue
			}
			reading.Go(func() {
				if res, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
					refused <- res.Status
					res.Body.Close()
				}
			})
		}
		for range cap(refused) - all/each {
			if s := <-refused; s != "503 Service Unavailable" {
				t.Errorf("too many bodies: %s", s)
			}
		}
	})
	for _, c := range conns {
		c.Close()
	}
	reading.Wait()
	// Their space is free again.
	if res, body := r.signed("iam", "application/x-www-form-urlencoded", "", "Action=ListUsers&Version=2010-05-08&X="+strings.Repeat("x", each)); res.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %s %s", res.Status, body)
	}
}

func repeat(n int, f func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(f(i))
	}
	return b.String()
}

func TestDocumentsOfNoUse(t *testing.T) {
	r := start(t, nil)
	const target = "AmazonEC2ContainerServiceV20141113.CreateCluster"
	for _, x := range []struct{ name, service, body, want string }{
		{"100000 keys", "ecs", `{"x":{` + repeat(100_000, func(i int) string { return fmt.Sprintf(`"k%d":1,`, i) }) + `"z":1}}`, "SerializationException"},
		{"100000 keys at the top", "ecs", `{` + repeat(100_000, func(i int) string { return fmt.Sprintf(`"k%d":1,`, i) }) + `"z":1}`, "SerializationException"},
		{"100000 tags", "ecs", `{"tags":[` + repeat(100_000, func(int) string { return `{},` }) + `{}]}`, "SerializationException"},
		{"deep lists", "ecs", `{"x":` + strings.Repeat("[", 1_000_000), "SerializationException"},
		{"deep objects", "ecs", strings.Repeat(`{"a":`, 500_000), "SerializationException"},
		{"invalid UTF-8", "ecs", "{\"clusterName\":\"\xff\xfe\"}", "SerializationException"},
		{"invalid UTF-8 in a key", "ecs", "{\"\xff\":1}", "SerializationException"},
		{"half a surrogate", "ecs", `{"clusterName":"\ud800"}`, "Exception"},
		{"100000 parameters", "iam", "Action=ListUsers&Version=2010-05-08" + repeat(100_000, func(i int) string { return fmt.Sprintf("&k%d=1", i) }), "MalformedQueryString"},
		{"deep parameters", "iam", "Action=ListUsers&Version=2010-05-08&" + strings.Repeat("a.", 100_000) + "=1", "MalformedQueryString"},
		{"wide and deep parameters", "iam", "Action=ListUsers&Version=2010-05-08" + repeat(2000, func(i int) string { return fmt.Sprintf("&%d%s=1", i, strings.Repeat(".a", 90)) }), "MalformedQueryString"},
		{"invalid UTF-8 in a form", "iam", "Action=ListUsers&Version=2010-05-08&PathPrefix=%ff%fe", "MalformedQueryString"},
		{"half an escape", "iam", "Action=ListUsers&Version=2010-05-08&PathPrefix=%f", "MalformedQueryString"},
		{"an index of no use", "iam", "Action=TagUser&Version=2010-05-08&UserName=a&Tags.member.99999999999.Key=a", "MalformedInput"},
	} {
		t.Run(x.name, func(t *testing.T) {
			within(t, 96, func() {
				var res *http.Response
				var body string
				if x.service == "ecs" {
					res, body = r.signed("ecs", "application/x-amz-json-1.1", target, x.body)
				} else {
					res, body = r.signed("iam", "application/x-www-form-urlencoded", "", x.body)
				}
				if res.StatusCode != http.StatusBadRequest || !strings.Contains(body, x.want) {
					t.Errorf("%s %.300s, want %s", res.Status, body, x.want)
				}
			})
		})
	}
}

// Of what comes without credentials nothing is made that is large: the tree of
// a form waits for its caller, or is small where none is asked for.
func TestWideFormsOfNobody(t *testing.T) {
	r := start(t, nil)
	wide := repeat(2000, func(i int) string { return fmt.Sprintf("&%d%s=1", i, strings.Repeat(".a", 90)) })
	few := repeat(1001, func(i int) string { return fmt.Sprintf("&k%d=1", i) })
	for body, want := range map[string]string{
		"Action=ListUsers&Version=2010-05-08" + wide:                "MissingAuthenticationToken",
		"Action=AssumeRoleWithWebIdentity&Version=2011-06-15" + few: "MalformedQueryString",
	} {
		res, err := http.Post(r.url, "application/x-www-form-urlencoded", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !strings.Contains(string(answer), want) {
			t.Errorf("%.50s: %s %.300s, want %s (%v)", body, res.Status, answer, want, err)
		}
	}
}

// A request that two readers could read as different ones is refused, or is
// the last on its connection: what follows is never answered.
func TestSmuggledRequests(t *testing.T) {
	r := start(t, nil)
	const inner = "GET " + service.HealthPath + " HTTP/1.1\r\nHost: h\r\n\r\n"
	for name, text := range map[string]string{
		"two lengths":               jsonHead + "Content-Length: 2\r\nContent-Length: 60\r\n\r\n{}" + inner,
		"length and chunks":         jsonHead + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
		"chunks and length":         jsonHead + "Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n" + inner,
		"two encodings":             jsonHead + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner,
		"an unknown encoding":       jsonHead + "Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\n{}" + inner,
		"a negative length":         jsonHead + "Content-Length: -1\r\n\r\n" + inner,
		"a length that is a list":   jsonHead + "Content-Length: 2, 60\r\n\r\n{}" + inner,
		"two hosts":                 "POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n" + inner,
		"a space before the colon":  jsonHead + "Content-Length : 2\r\n\r\n{}" + inner,
		"a header without a name":   jsonHead + ": x\r\nContent-Length: 2\r\n\r\n{}" + inner,
		"a header with a zero byte": jsonHead + "X: a\x00b\r\nContent-Length: 2\r\n\r\n{}" + inner,
		"a chunk of no size":        jsonHead + "Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n" + inner,
		"a chunk of any size":       jsonHead + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n" + inner,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, text); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(c)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode < 400 {
				t.Errorf("%s", res.Status)
			}
			if second, err := http.ReadResponse(in, nil); err == nil {
				second.Body.Close()
				t.Errorf("%s, and then the request inside was answered: %s", res.Status, second.Status)
			}
		})
	}
}

func TestAmbiguousHeaders(t *testing.T) {
	r := start(t, nil)
	for name, header := range map[string]string{
		"two targets":           "X-Amz-Target: AmazonEC2ContainerServiceV20141113.DeleteCluster\r\n",
		"two types":             "Content-Type: application/x-www-form-urlencoded\r\n",
		"two signatures":        "Authorization: AWS4-HMAC-SHA256 a\r\nAuthorization: AWS4-HMAC-SHA256 b\r\n",
		"two dates":             "X-Amz-Date: 20260101T000000Z\r\nX-Amz-Date: 20260102T000000Z\r\n",
		"a header not in UTF-8": "X-Name: \xff\xfe\r\n",
	} {
		res, body := r.raw(func(c net.Conn) error {
			_, err := io.WriteString(c, jsonHead+header+"Content-Length: 2\r\n\r\n{}")
			return err
		})
		if res.StatusCode != http.StatusBadRequest || !strings.Contains(body, "InvalidRequest") {
			t.Errorf("%s: %s %s", name, res.Status, body)
		}
	}
}

// A client that sends its header a byte at a time does not keep its connection.
func TestSlowHeader(t *testing.T) {
	r := startWith(t, func(c *service.Config) { c.HeaderTime = 300 * time.Millisecond })
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nX: "); err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
		}
	}()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		res.Body.Close()
		if res.StatusCode < 400 {
			t.Errorf("answered with %s", res.Status)
		}
	} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Error("the connection is still open")
	}
	c.Close()
	<-sent
}

func TestManyHeaders(t *testing.T) {
	r := start(t, nil)
	within(t, 32, func() {
		res, _ := r.raw(func(c net.Conn) error {
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n"); err != nil {
				return err
			}
			_, _ = io.WriteString(c, repeat(100_000, func(i int) string { return fmt.Sprintf("X-%d: y\r\n", i) }))
			return nil
		})
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("100000 headers: %s", res.Status)
		}
	})
}

func TestSignaturesOfNoUse(t *testing.T) {
	r := start(t, nil)
	day := time.Now().UTC().Format("20060102")
	signature := strings.Repeat("a", 64)
	scope := func(key, region string) string { return key + "/" + day + "/" + region + "/ecs/aws4_request" }
	long := strings.Repeat("x", 30_000)
	for name, authorization := range map[string]string{
		"no fields":             "AWS4-HMAC-SHA256 ",
		"only commas":           "AWS4-HMAC-SHA256 " + strings.Repeat(",", 50_000),
		"only slashes":          "AWS4-HMAC-SHA256 Credential=" + strings.Repeat("/", 50_000) + ", SignedHeaders=host, Signature=" + signature,
		"a long key":            "AWS4-HMAC-SHA256 Credential=" + scope(long, region) + ", SignedHeaders=host, Signature=" + signature,
		"a long region":         "AWS4-HMAC-SHA256 Credential=" + scope(r.root.AccessKeyID, long) + ", SignedHeaders=host;x-amz-date;x-amz-target, Signature=" + signature,
		"a long signature":      "AWS4-HMAC-SHA256 Credential=" + scope(r.root.AccessKeyID, region) + ", SignedHeaders=host, Signature=" + strings.Repeat("a", 50_000),
		"not hexadecimal":       "AWS4-HMAC-SHA256 Credential=" + scope(r.root.AccessKeyID, region) + ", SignedHeaders=host, Signature=" + strings.Repeat("z", 64),
		"one header many times": "AWS4-HMAC-SHA256 Credential=" + scope(r.root.AccessKeyID, region) + ", SignedHeaders=host;" + strings.Repeat("x;", 10_000) + "x-amz-date;x-amz-target, Signature=" + signature,
		"headers unsorted":      "AWS4-HMAC-SHA256 Credential=" + scope(r.root.AccessKeyID, region) + ", SignedHeaders=x;host, Signature=" + signature,
		"another algorithm":     "AWS4-ECDSA-P256-SHA256 Credential=" + scope(r.root.AccessKeyID, region) + ", SignedHeaders=host, Signature=" + signature,
		"fields many times":     "AWS4-HMAC-SHA256 " + strings.Repeat("Credential=a/b/c/d/e, ", 2000) + "SignedHeaders=host, Signature=" + signature,
	} {
		t.Run(name, func(t *testing.T) {
			within(t, 16, func() {
				for range 20 {
					res, body := r.raw(func(c net.Conn) error {
						_, err := fmt.Fprintf(c, jsonHead+"X-Amz-Date: %s\r\nX: %s\r\nAuthorization: %s\r\nContent-Length: 2\r\n\r\n{}",
							time.Now().UTC().Format("20060102T150405Z"), strings.Repeat("y", 5000), authorization)
						return err
					})
					if res.StatusCode < 400 || res.StatusCode > 499 || len(body) > 4096 {
						t.Fatalf("%s %.500s", res.Status, body)
					}
				}
			})
		})
	}
}

// Who calls a service that the region does not have is told which, in the
// service's own protocol.
func TestForeignServices(t *testing.T) {
	r := start(t, nil)
	for _, x := range []struct {
		name, service, content, target, host, body string
		status                                     int
		want                                       string
	}{
		{"json", "kms", "application/x-amz-json-1.1", "TrentService.Encrypt", "", "{}", 400, `{"__type":"UnknownOperationException","message":"Berth does not have the service kms (Encrypt). `},
		{"json of no name that is known", "frauddetector", "application/x-amz-json-1.1", "AWSHawksNestServiceFacade.GetRules", "", "{}", 400, "the service frauddetector (GetRules)"},
		{"query", "sns", "application/x-www-form-urlencoded", "", "", "Action=Publish&Version=2010-03-31", 400, "<Code>InvalidAction</Code><Message>Berth does not have the service sns."},
		{"s3", "s3", "", "", "", "", 501, "<Error><Code>NotImplemented</Code><Message>Berth does not have the service s3."},
		{"rest-json", "lambda", "application/json", "", "", "{}", 404, "the service lambda."},
		{"unsigned, by target", "", "application/x-amz-json-1.1", "TrentService.Encrypt", "", "{}", 400, "the service kms (Encrypt)"},
		{"unsigned, by host", "", "", "", "bucket.s3.localhost", "", 501, "the service s3."},
		{"a name of no use", strings.Repeat("<x>\u00e9", 1000), "application/x-amz-json-1.1", "X.Y", "", "{}", 400, "UnknownOperationException"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url, strings.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = x.host
		if x.content != "" {
			req.Header.Set("Content-Type", x.content)
		}
		if x.target != "" {
			req.Header.Set("X-Amz-Target", x.target)
		}
		if x.service != "" {
			(&auth.Signer{AccessKeyID: r.root.AccessKeyID, Secret: r.root.Secret}).Sign(req, []byte(x.body), x.service, region, time.Now())
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != x.status || !strings.Contains(string(b), x.want) || len(b) > 1000 || len(res.Header.Get("X-Amzn-Requestid")) != 36 {
			t.Errorf("%s: %s %s %v", x.name, res.Status, b, err)
		}
	}
}

func TestThrottledCalls(t *testing.T) {
	r := startWith(t, func(c *service.Config) { c.Throttle = throttle.New(0.01, nil) })
	for _, x := range []struct {
		service, content, target, body string
		status                         int
		want                           string
	}{
		{"ecs", "application/x-amz-json-1.1", "AmazonEC2ContainerServiceV20141113.CreateCluster", "{}", 400, `{"__type":"ThrottlingException","message":"Rate exceeded"}`},
		{"iam", "application/x-www-form-urlencoded", "", "Action=ListUsers&Version=2010-05-08", 400, "<Code>Throttling</Code><Message>Rate exceeded</Message>"},
		{"ec2", "application/x-www-form-urlencoded", "", "Action=CreateVpc&Version=2016-11-15&CidrBlock=10.0.0.0/16", 503, "<Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message>"},
	} {
		res, body := r.signed(x.service, x.content, x.target, x.body)
		if strings.Contains(body, x.want) {
			t.Errorf("%s: the first call is refused: %s", x.service, body)
		}
		res, body = r.signed(x.service, x.content, x.target, x.body)
		if res.StatusCode != x.status || !strings.Contains(body, x.want) {
			t.Errorf("%s: %s %s", x.service, res.Status, body)
		}
		if x.service == "ecs" && res.Header.Get("X-Amzn-Errortype") != "ThrottlingException" {
			t.Errorf("headers %v", res.Header)
		}
	}
	// Who is not known is not counted: nobody uses up what is another's.
	res, body := r.raw(func(c net.Conn) error {
		_, err := io.WriteString(c, jsonHead+"Content-Length: 2\r\n\r\n{}")
		return err
	})
	if strings.Contains(body, "Throttling") {
		t.Errorf("%s %s", res.Status, body)
	}
}

// What AWS allows is enough for an SDK that tries again as SDKs do.
func TestSDKGetsThroughThrottling(t *testing.T) {
	r := startWith(t, func(c *service.Config) { c.Throttle = throttle.New(1, nil) })
	once := sdkiam.NewFromConfig(r.asRoot())
	for n := 0; ; n++ {
		if _, err := once.ListUsers(t.Context(), &sdkiam.ListUsersInput{}); wire.Code(err) == "" && err != nil && strings.Contains(err.Error(), "Throttling") {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if n > 100_000 {
			t.Fatal("nothing is throttled")
		}
	}
	c := r.asRoot()
	c.RetryMaxAttempts = 0 // the default
	patient := sdkiam.NewFromConfig(c)
	for range 3 {
		if _, err := patient.ListUsers(t.Context(), &sdkiam.ListUsersInput{}); err != nil {
			t.Error(err)
		}
	}
}
