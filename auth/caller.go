package auth

import (
	"context"
	"net/netip"
	"time"

	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store/state"
)

// Signer signs requests. It is sigv4.Signer, which those import who must not
// depend on the store.
type Signer = sigv4.Signer

// Kind is a kind of principal.
type Kind string

// The kinds of principals.
const (
	RootUser    Kind = "root"
	User        Kind = "user"
	AssumedRole Kind = "role"
	// FederatedUser is a session that a user, or the root user, gave a name of
	// its own.
	FederatedUser Kind = "federated"
)

// A Caller is a verified principal.
type Caller struct {
	Kind    Kind
	Account string
	ARN     string // arn:aws:iam::A:root, arn:aws:iam::A:user/P/N, arn:aws:sts::A:assumed-role/R/S, arn:aws:sts::A:federated-user/S
	UserID  string // A, AIDA…, AROA…:session, A:session
	Name    string // of the user or role, "" for root

	RoleARN     string // for sessions of a role: with the role's path
	SessionName string // for sessions of a role, and federated users

	AccessKeyID string
	Session     *Session // nil with a long-term key
}

// PrincipalARN is the ARN that policies know the caller by: for the session of
// a role, the role's.
func (c *Caller) PrincipalARN() string {
	if c.Kind == AssumedRole {
		return c.RoleARN
	}
	return c.ARN
}

// parent is the ARN of the role or user whose session the caller is, if the
// session has an ARN of its own.
func (c *Caller) parent() string {
	switch c.Kind {
	case AssumedRole:
		return c.RoleARN
	case FederatedUser:
		return c.Session.ARN
	}
	return ""
}

// isRoot reports whether the caller is the root user, or a session of it.
func (c *Caller) isRoot() bool {
	return c.Kind == RootUser || c.Kind == FederatedUser && c.Name == ""
}

// PrincipalID is the unique id of the user or role.
func (c *Caller) PrincipalID() string {
	if c.Session != nil && c.Session.PrincipalID != "" {
		return c.Session.PrincipalID
	}
	return c.UserID
}

// A Request is what is known of the request around the call.
type Request struct {
	ID        string
	Protocol  wire.Protocol // in which errors are answered
	Service   string        // "ecs"
	Operation string
	Region    string
	Host      string // as the client named this server, with the port
	SourceIP  netip.Addr
	Secure    bool // TLS
	UserAgent string
	Referer   string
	Time      time.Time
	// CalledVia are the AWS services through which the caller asks, by their
	// principals (cloudformation.amazonaws.com), the first one first.
	CalledVia []string
}

type contextKey int

const (
	callerKey contextKey = iota
	requestKey
)

// WithCaller returns a context in which c is the caller.
func WithCaller(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, callerKey, c)
}

// FromContext is the caller of the request that ctx belongs to, or nil.
func FromContext(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey).(*Caller)
	return c
}

// WithRequest returns a context that knows of r.
func WithRequest(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey, r)
}

// RequestFrom is the request that ctx belongs to. Outside of one it is empty,
// never nil.
func RequestFrom(ctx context.Context) *Request {
	if r, ok := ctx.Value(requestKey).(*Request); ok {
		return r
	}
	return &Request{}
}

// StreamURL is where the client that asked finds the data channel of a session.
func StreamURL(ctx context.Context, session string) string {
	r := RequestFrom(ctx)
	scheme := "ws"
	if r.Secure {
		scheme = "wss"
	}
	return scheme + "://" + r.Host + state.DataChannelPath + session + "?role=publish_subscribe"
}
