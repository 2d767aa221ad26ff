package auth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A Verifier finds out who signed a request.
type Verifier struct {
	Sessions *Sessions        // required
	Region   string           // required: requests must be scoped to it
	Clock    func() time.Time // nil: time.Now
	// Used, if there is one, is told of every caller that was verified. It must
	// return at once.
	Used func(c *Caller, service, region string, at time.Time)

	keys sigv4.Keys
}

func (v *Verifier) now() time.Time {
	if v.Clock == nil {
		return time.Now()
	}
	return v.Clock()
}

// globalRegion is the region that clients of services without regions sign for.
const globalRegion = "us-east-1"

var globalServices = []string{"iam", "sts"}

// Failure is why a caller could not be verified. How it is said depends on the
// protocol: see In.
type Failure struct {
	Kind    FailureKind
	Message string
}

// FailureKind is a kind of Failure.
type FailureKind int

// The kinds of failure, each with a code per protocol.
const (
	MissingToken FailureKind = iota + 1
	IncompleteSignature
	BadSignature
	BadTime
	UnknownKey
	ExpiredToken
	NotSupported
)

func (f *Failure) Error() string { return f.Message }

const (
	unknownKey   = "The security token included in the request is invalid."
	expiredToken = "The security token included in the request is expired"
)

// In is the failure as the protocol says it.
func (f *Failure) In(p wire.Protocol) *wire.APIError {
	code, status := "", http.StatusBadRequest
	switch p {
	case wire.JSON10, wire.JSON11:
		code = map[FailureKind]string{
			MissingToken: "MissingAuthenticationTokenException", IncompleteSignature: "IncompleteSignatureException",
			BadSignature: "InvalidSignatureException", BadTime: "InvalidSignatureException", NotSupported: "InvalidSignatureException",
			UnknownKey: "UnrecognizedClientException", ExpiredToken: "ExpiredTokenException",
		}[f.Kind]
	case wire.EC2Query:
		switch f.Kind {
		case MissingToken:
			return wire.NewError(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
		case BadTime, ExpiredToken:
			return wire.NewError(status, "RequestExpired", "Request has expired.")
		case IncompleteSignature:
			return wire.NewError(status, "IncompleteSignature", f.Message)
		case NotSupported:
			return wire.NewError(http.StatusUnauthorized, "AuthFailure", f.Message)
		}
		return wire.NewError(http.StatusUnauthorized, "AuthFailure", "AWS was not able to validate the provided access credentials")
	default:
		status = http.StatusForbidden
		switch f.Kind {
		case MissingToken:
			return wire.NewError(status, "MissingAuthenticationToken", "Request is missing Authentication Token")
		case IncompleteSignature:
			code, status = "IncompleteSignature", http.StatusBadRequest
		case BadSignature, BadTime, NotSupported:
			code = "SignatureDoesNotMatch"
		case UnknownKey:
			code = "InvalidClientTokenId"
		case ExpiredToken:
			code = "ExpiredToken"
		}
	}
	return wire.NewError(status, code, f.Message)
}

// Verify returns the caller that signed r, whose body is body, for one of the
// given services. Every error is a *Failure.
func (v *Verifier) Verify(r store.Reader, req *http.Request, body []byte, services ...string) (*Caller, error) {
	sig, err := sigv4.Parse(req)
	if err != nil {
		return nil, failure(err)
	}
	now := v.now()
	c, secret, err := v.principal(r, sig, now)
	if err != nil {
		return nil, err
	}
	if err := sig.Verify(req, body, secret, now, &v.keys); err != nil {
		return nil, failure(err)
	}
	// The scope is judged after the signature: it is signed too.
	if sig.Region != v.Region && !(sig.Region == globalRegion && slices.Contains(globalServices, sig.Service)) {
		return nil, &Failure{BadSignature, fmt.Sprintf("Credential should be scoped to a valid region, not '%s'.", sig.Region)}
	}
	if !slices.Contains(services, sig.Service) && len(services) > 0 {
		return nil, &Failure{BadSignature, fmt.Sprintf("Credential should be scoped to correct service: '%s'.", services[0])}
	}
	if c.Session != nil && !now.Before(c.Session.ExpiresAt) {
		return nil, &Failure{ExpiredToken, expiredToken}
	}
	if c.Session != nil && outlived(r, c.Session) {
		return nil, &Failure{UnknownKey, unknownKey}
	}
	if v.Used != nil {
		v.Used(c, sig.Service, sig.Region, now)
	}
	return c, nil
}

// VerifyFrame verifies one message of the telemetry stream that upgrade opened,
// and returns the message without its headers.
func (v *Verifier) VerifyFrame(r store.Reader, frame []byte, upgrade *http.Request) (*Caller, []byte, error) {
	req, message, err := sigv4.ParseFrame(frame, upgrade)
	if err != nil {
		return nil, nil, &Failure{IncompleteSignature, err.Error()}
	}
	c, err := v.Verify(r, req, message, "ecs")
	return c, message, err
}

func failure(err error) error {
	e, ok := errors.AsType[*sigv4.Error](err)
	if !ok {
		return &Failure{BadSignature, err.Error()}
	}
	kind := BadSignature
	switch e.Problem {
	case sigv4.Missing:
		kind = MissingToken
	case sigv4.Incomplete:
		kind = IncompleteSignature
	case sigv4.Unsupported:
		kind = NotSupported
	case sigv4.Invalid:
		if strings.HasPrefix(e.Message, "Signature expired") || strings.HasPrefix(e.Message, "Signature not yet current") {
			kind = BadTime
		}
	}
	return &Failure{kind, e.Message}
}

// Open reports whether requests of an account are answered at all: it exists
// and is not closing.
func Open(r store.Reader, account string) bool {
	a, ok := state.Accounts.Get(r, account)
	return ok && !a.Closing()
}

// outlived reports whether a session is of an account that was made anew since,
// under its old id. Users and roles have ids of their own for that.
func outlived(r store.Reader, s *Session) bool {
	a, ok := state.Accounts.Get(r, s.Account)
	return ok && s.Kind == RootUser && s.IssuedAt.Before(a.CreatedAt.Truncate(time.Second))
}

// principal is who the signature claims to be, and the secret that proves it.
func (v *Verifier) principal(r store.Reader, sig *sigv4.Signature, now time.Time) (*Caller, string, error) {
	unknown := &Failure{UnknownKey, unknownKey}
	if sig.Token != "" {
		s, err := v.Sessions.Open(sig.Token)
		if err != nil || s.AccessKeyID != sig.AccessKeyID {
			return nil, "", unknown
		}
		c := s.caller()
		if !Open(r, c.Account) || !alive(r, c) {
			return nil, "", unknown
		}
		return c, s.Secret, nil
	}
	k, ok := state.AccessKeys.Get(r, sig.AccessKeyID)
	if !ok || !k.Active || !Open(r, k.Account) {
		return nil, "", unknown
	}
	c := &Caller{Account: k.Account, AccessKeyID: k.ID}
	if k.User == "" {
		c.asRoot()
		return c, k.Secret, nil
	}
	u, ok := state.Users.Get(r, state.IAMKey(k.Account, k.User))
	if !ok {
		return nil, "", unknown
	}
	c.Kind, c.ARN, c.UserID, c.Name = User, u.ARN(), u.ID, u.Name
	return c, k.Secret, nil
}

func (c *Caller) asRoot() {
	c.Kind, c.ARN, c.UserID = RootUser, "arn:aws:iam::"+c.Account+":root", c.Account
}

// caller is the holder of the session's token.
func (s *Session) caller() *Caller {
	c := &Caller{Kind: s.Kind, Account: s.Account, AccessKeyID: s.AccessKeyID, Session: s, Name: s.Name}
	switch s.Kind {
	case RootUser:
		c.asRoot()
	case User:
		c.ARN, c.UserID = s.ARN, s.PrincipalID
	case AssumedRole:
		c.RoleARN, c.SessionName = s.ARN, s.SessionName
		c.ARN = AssumedRoleARN(s.Account, s.Name, s.SessionName)
		c.UserID = s.PrincipalID + ":" + s.SessionName
	case FederatedUser:
		c.SessionName = s.SessionName
		c.ARN = "arn:aws:sts::" + s.Account + ":federated-user/" + s.SessionName
		c.UserID = s.Account + ":" + s.SessionName
	}
	return c
}

// AssumedRoleARN is the ARN of a session of a role. It has no path.
func AssumedRoleARN(account, role, session string) string {
	return "arn:aws:sts::" + account + ":assumed-role/" + role + "/" + session
}

// alive reports whether the user or role that a session is of still exists.
func alive(r store.Reader, c *Caller) bool {
	switch c.Kind {
	case RootUser:
		return true
	case User, FederatedUser:
		if c.isRoot() {
			return true
		}
		u, ok := state.Users.Get(r, state.IAMKey(c.Account, c.Name))
		return ok && u.ID == c.Session.PrincipalID
	case AssumedRole:
		role, ok := state.Roles.Get(r, state.IAMKey(c.Account, c.Name))
		return ok && role.ID == c.Session.PrincipalID
	}
	return false
}
