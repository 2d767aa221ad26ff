package lab

import (
	"bytes"
	"io"
	"net/http"
)

// Plain is an HTTP client for AWS's SDK that sends a copy of each request:
// with its own, the SDK closes the body, and now and then the connection under
// it, when a server answers at once.
type Plain struct{ *http.Client }

// Do implements the SDK's HTTPClient.
func (p Plain) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return p.Client.Do(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	q, err := http.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Header, q.Host = r.Header, r.Host
	return p.Client.Do(q)
}
