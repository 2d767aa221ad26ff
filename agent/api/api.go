// Package api calls the AWS APIs of the region for the agent: as the instance
// itself, or as a role of one of its tasks.
//
// It owns signing and where requests go, nothing else: what is called, and
// what is done about errors, is its callers' to say.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/berth-run/berth/agent/dial"
	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/dispatch/acs"
)

// Services that the agent calls. Their operations have no handler.
var (
	ECS  = ecs.NewService(nil)
	ECR  = ecr.NewService(nil)
	Logs = logs.NewService(nil)
)

// UserAgent names the agent to the control plane.
const UserAgent = "Berth ECS Agent - v" + Version

// Version is the version of the agent protocol's features that this agent has.
const Version = "1.105.1"

// Provider answers the credentials to sign with now.
type Provider func(ctx context.Context) (sigv4.Signer, error)

// Client calls APIs.
type Client struct {
	endpoint *url.URL
	region   string
	http     *http.Client
}

// New makes a client of the region whose API is at endpoint.
func New(endpoint, region string) (*Client, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("endpoint %q is not a http or https URL", endpoint)
	}
	return &Client{endpoint: u, region: region, http: &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DialContext:         dial.Context(&net.Dialer{Timeout: 5 * time.Second}),
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     30 * time.Second,
			ReadBufferSize:      2 << 10,
			WriteBufferSize:     2 << 10,
		},
	}}, nil
}

// Region is the region that requests are signed for.
func (c *Client) Region() string { return c.region }

// Endpoint is where the APIs are.
func (c *Client) Endpoint() *url.URL { return c.endpoint }

// HTTP is the client that requests go through.
func (c *Client) HTTP() *http.Client { return c.http }

// Call calls an operation with credentials from p.
func (c *Client) Call(ctx context.Context, p Provider, svc *wire.Service, operation string, in, out any) error {
	signer, err := p(ctx)
	if err != nil {
		return fmt.Errorf("%s %s: credentials: %w", svc.Name, operation, err)
	}
	w := wire.Client{Endpoint: c.endpoint.String(), HTTP: c.http, Sign: func(req *http.Request, body []byte) error {
		req.Header.Set("User-Agent", UserAgent)
		signer.Sign(req, body, svc.SigningName, c.region, time.Now())
		return nil
	}}
	return w.Call(ctx, svc, operation, in, out)
}

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Static provides a task's credentials.
func Static(c acs.IAMRoleCredentials) Provider {
	return func(context.Context) (sigv4.Signer, error) {
		return sigv4.Signer{AccessKeyID: c.AccessKeyID, Secret: c.SecretAccessKey, Token: c.SessionToken}, nil
	}
}

// FromFile provides the credentials of a JSON file {AccessKeyId,
// SecretAccessKey, Token}, which somebody else replaces before they expire. It
// is read again when it has changed.
func FromFile(path string) Provider {
	var (
		mu     sync.Mutex
		at     time.Time
		size   int64
		signer sigv4.Signer
	)
	return func(context.Context) (sigv4.Signer, error) {
		mu.Lock()
		defer mu.Unlock()
		info, err := os.Stat(path)
		if err != nil {
			return sigv4.Signer{}, err
		}
		if info.ModTime().Equal(at) && info.Size() == size {
			return signer, nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return sigv4.Signer{}, err
		}
		var f struct{ AccessKeyID, SecretAccessKey, Token string } // names match without regard to case
		if err := json.Unmarshal(b, &f); err != nil {
			return sigv4.Signer{}, fmt.Errorf("%s: %w", path, err)
		}
		if f.AccessKeyID == "" || f.SecretAccessKey == "" {
			return sigv4.Signer{}, errors.New(path + " has no credentials")
		}
		signer, at, size = sigv4.Signer{AccessKeyID: f.AccessKeyID, Secret: f.SecretAccessKey, Token: f.Token}, info.ModTime(), info.Size()
		return signer, nil
	}
}
