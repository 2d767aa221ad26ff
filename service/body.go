package service

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/berth-run/berth/aws/wire"
)

// Limits on what requests may make the server hold at once.
const (
	// maxBody is more than any request of the API needs, but for those that carry
	// a blob: those may have wire.MaxBody.
	maxBody = 4 << 20
	// maxBodies is what all requests under way may have together.
	maxBodies = 256 << 20
	// firstRead is what is set aside before anything has come: who announces a
	// large body and does not send it holds no more.
	firstRead = 32 << 10
)

// blobs are the operations whose requests carry a blob.
var blobs = []string{".UploadLayerPart"}

func limitOf(r *http.Request) int {
	for _, op := range blobs {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), op) {
			return wire.MaxBody
		}
	}
	return maxBody
}

// readBody reads a request's body. The body is good until release is called,
// which is never nil. A client that does not send what it announced is at fault
// itself.
func (d *Door) readBody(r *http.Request) (body []byte, release func(), err error) {
	held := 0
	release = func() { d.bodies.Add(int64(-held)) }
	if r.Body == nil || r.ContentLength == 0 {
		return nil, release, nil
	}
	limit := limitOf(r)
	tooLarge := func() error {
		return wire.NewError(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", fmt.Sprintf("Your request body is larger than %d bytes.", limit))
	}
	if r.ContentLength > int64(limit) {
		return nil, release, tooLarge()
	}
	want := firstRead
	if r.ContentLength > 0 {
		want = min(want, int(r.ContentLength))
	}
	for {
		if d.bodies.Add(int64(want-held)) > d.cfg.BodyBytes {
			held = want // given back by release
			return nil, release, wire.NewError(http.StatusServiceUnavailable, "ServiceUnavailable", "Service is unable to handle request.")
		}
		held = want
		next := make([]byte, len(body), want)
		copy(next, body)
		body = next
		for len(body) < cap(body) {
			n, err := r.Body.Read(body[len(body):cap(body)])
			body = body[:len(body)+n]
			switch {
			case errors.Is(err, io.EOF):
				return body, release, nil
			case errors.Is(err, os.ErrDeadlineExceeded):
				return nil, release, wire.NewError(http.StatusRequestTimeout, "RequestTimeout", "Your socket connection to the server was not read from or written to within the timeout period.")
			case err != nil:
				return nil, release, wire.NewError(http.StatusBadRequest, "IncompleteBody", "The request body ended before the number of bytes that its header announces.")
			}
		}
		if int64(len(body)) == r.ContentLength {
			return body, release, nil
		}
		// One byte more than may come tells that too much does.
		if len(body) > limit {
			return nil, release, tooLarge()
		}
		want = min(2*want, limit+1)
		if r.ContentLength > 0 {
			want = min(want, int(r.ContentLength))
		}
	}
}

// single are headers that mean something here and that two readers of the same
// request must not read differently.
var single = []string{"Authorization", "Content-Type", "Content-Encoding", "X-Amz-Target", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-Sha256", "Date"}

// checkHeaders refuses what is ambiguous or not text. Repeated lengths and
// hosts, and malformed header lines, net/http has refused before.
func checkHeaders(r *http.Request) error {
	for _, name := range single {
		if len(r.Header[name]) > 1 {
			return wire.NewError(http.StatusBadRequest, "InvalidRequest", "The request has the header "+name+" more than once.")
		}
	}
	for name, values := range r.Header {
		for _, v := range values {
			if !utf8.ValidString(v) {
				return wire.NewError(http.StatusBadRequest, "InvalidRequest", "The header "+name+" is not valid UTF-8.")
			}
		}
	}
	return nil
}
