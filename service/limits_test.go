package service_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth/aws/wire"
)

// bodyTime is far more than a test on this machine takes for a body, unless it
// stops sending.
const bodyTime = 2 * time.Second

// raw sends text on a connection of its own and returns the answer to it.
func (r *testRegion) raw(send func(net.Conn) error) (*http.Response, string) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	if err := send(c); err != nil {
		r.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	// A server that closes on what it has not read resets the connection, after its answer.
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		r.t.Fatal(err)
	}
	return res, string(b)
}

const jsonHead = "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Target: AmazonEC2ContainerServiceV20141113.ListClusters\r\n"

func TestLargeBody(t *testing.T) {
	r := start(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url, bytes.NewReader(make([]byte, wire.MaxBody+1)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.ListClusters")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(b), `"__type":"RequestEntityTooLarge"`) {
		t.Errorf("%s %s", res.Status, b)
	}
}

func TestLargeHeader(t *testing.T) {
	r := start(t, nil)
	res, body := r.raw(func(c net.Conn) error {
		_, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: h\r\nX: %s\r\n\r\n", strings.Repeat("x", 80<<10))
		return err
	})
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s %s", res.Status, body)
	}
}

// A client that announces a body and does not send it is told, in the
// protocol that it speaks, and its connection does not stay.
func TestSlowBody(t *testing.T) {
	r := start(t, nil)
	res, body := r.raw(func(c net.Conn) error {
		_, err := io.WriteString(c, jsonHead+"Content-Length: 10\r\n\r\n{")
		return err
	})
	if res.StatusCode != http.StatusRequestTimeout || !strings.Contains(body, `"__type":"RequestTimeout"`) || !res.Close {
		t.Errorf("%s %s, close %v", res.Status, body, res.Close)
	}
	if log := r.log.String(); strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("a client's fault is logged as the server's: %s", log)
	}
}

func TestBodyThatEnds(t *testing.T) {
	r := start(t, nil)
	res, body := r.raw(func(c net.Conn) error {
		if _, err := io.WriteString(c, jsonHead+"Content-Length: 10\r\n\r\n{"); err != nil {
			return err
		}
		return c.(*net.TCPConn).CloseWrite()
	})
	if res.StatusCode != http.StatusBadRequest || !strings.Contains(body, `"__type":"IncompleteBody"`) {
		t.Errorf("%s %s", res.Status, body)
	}
}

// What cannot be routed is answered in the closest protocol, before anybody
// asks for a signature.
func TestMalformedRequests(t *testing.T) {
	r := start(t, nil)
	for _, x := range []struct {
		name, contentType, target, body string
		status                          int
		want                            string
	}{
		{"unknown operation", "application/x-amz-json-1.1", "AmazonEC2ContainerServiceV20141113.Nope", "{}", 400, `"__type":"UnknownOperationException"`},
		{"unknown service", "application/x-amz-json-1.1", "Nope.ListClusters", "{}", 400, `"__type":"UnknownOperationException"`},
		{"unknown action", "application/x-www-form-urlencoded", "", "Action=Nope&Version=2010-05-08", 400, "<Code>InvalidAction</Code>"},
		{"no action", "application/x-www-form-urlencoded", "", "", 400, "<Code>MissingAction</Code>"},
		{"unsigned", "application/x-amz-json-1.1", "AmazonEC2ContainerServiceV20141113.ListClusters", "{}", 400, `"__type":"MissingAuthenticationTokenException"`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url, strings.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", x.contentType)
		if x.target != "" {
			req.Header.Set("X-Amz-Target", x.target)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != x.status || !strings.Contains(string(b), x.want) {
			t.Errorf("%s: %s %s %v", x.name, res.Status, b, err)
		}
		if id := res.Header.Get("X-Amzn-Requestid"); len(id) != 36 {
			t.Errorf("%s: request id %q", x.name, id)
		}
	}
}
