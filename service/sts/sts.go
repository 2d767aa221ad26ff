// Package sts is the STS API: who a caller is, and temporary credentials.
//
// It owns the rules of how long and for whom credentials are given out. They
// are minted by package auth and stored nowhere.
package sts

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/policy"
	api "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
)

// Config is what the service needs; all fields but Clock are required.
type Config struct {
	DB         *store.DB
	Sessions   *auth.Sessions
	Authorizer *auth.Authorizer
	Clock      func() time.Time // nil: time.Now
}

// Service implements the STS API.
type Service struct {
	api.Unimplemented
	cfg Config
}

var _ api.Handler = (*Service)(nil)

// New makes the service.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Service{cfg: cfg}
}

type authorize = func(ctx context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check

// Authorize says what each operation must be allowed. Everybody may ask who
// they are and get a session of themselves; for AssumeRole the role's trust
// policy decides, in the operation.
func (s *Service) Authorize() map[string]authorize {
	nothing := func(context.Context, store.Reader, *auth.Caller, any) []auth.Check { return nil }
	return map[string]authorize{
		"GetCallerIdentity": nothing,
		"GetSessionToken":   nothing,
		"AssumeRole":        nothing,
	}
}

// GetCallerIdentity says who the caller is.
func (s *Service) GetCallerIdentity(ctx context.Context, _ *api.GetCallerIdentityInput) (*api.GetCallerIdentityOutput, error) {
	c := auth.FromContext(ctx)
	return &api.GetCallerIdentityOutput{UserId: &c.UserID, Account: &c.Account, Arn: &c.ARN}, nil
}

// GetAccessKeyInfo says which account a key id belongs to.
func (s *Service) GetAccessKeyInfo(_ context.Context, in *api.GetAccessKeyInfoInput) (*api.GetAccessKeyInfoOutput, error) {
	account, ok := auth.AccountOf(*in.AccessKeyId)
	if !ok {
		return nil, validation("Invalid value for parameter: AccessKeyId")
	}
	return &api.GetAccessKeyInfoOutput{Account: &account}, nil
}

// Durations of sessions, in seconds.
const (
	defaultAssume  = 3600
	maxChained     = 3600
	defaultSession = 43200
	maxRootSession = 3600
)

// GetSessionToken gives the caller temporary credentials of itself.
func (s *Service) GetSessionToken(ctx context.Context, in *api.GetSessionTokenInput) (*api.GetSessionTokenOutput, error) {
	c := auth.FromContext(ctx)
	if c.Session != nil {
		return nil, wire.NewError(http.StatusForbidden, "AccessDenied", "Cannot call GetSessionToken with session credentials")
	}
	if in.SerialNumber != nil || in.TokenCode != nil {
		return nil, wire.NewError(http.StatusForbidden, "AccessDenied", "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number is valid and associated with this user.")
	}
	seconds := int32(defaultSession)
	if in.DurationSeconds != nil {
		seconds = *in.DurationSeconds
	}
	if c.Kind == auth.RootUser {
		seconds = min(seconds, maxRootSession)
	}
	now := s.cfg.Clock()
	creds, err := s.cfg.Sessions.Mint(auth.Session{Kind: c.Kind, Account: c.Account, Name: c.Name, ARN: c.ARN, PrincipalID: c.UserID},
		now, now.Add(time.Duration(seconds)*time.Second))
	if err != nil {
		return nil, fmt.Errorf("get session token: %w", err)
	}
	return &api.GetSessionTokenOutput{Credentials: view(creds)}, nil
}

// AssumeRole gives credentials of a role to whom the role trusts.
func (s *Service) AssumeRole(ctx context.Context, in *api.AssumeRoleInput) (*api.AssumeRoleOutput, error) {
	c := auth.FromContext(ctx)
	snap := s.cfg.DB.Snapshot()
	denied := wire.NewError(http.StatusForbidden, "AccessDenied", policy.Decision{}.Message(c.ARN, "sts:AssumeRole", *in.RoleArn))
	if c.Kind == auth.RootUser {
		return nil, wire.NewError(http.StatusForbidden, "AccessDenied", "Roles may not be assumed by root accounts.")
	}
	switch {
	case in.SerialNumber != nil || in.TokenCode != nil:
		return nil, wire.NewError(http.StatusForbidden, "AccessDenied", "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number is valid and associated with this user.")
	case len(in.TransitiveTagKeys) > 0:
		return nil, validation("TransitiveTagKeys is not supported by Berth.")
	case len(in.ProvidedContexts) > 0:
		return nil, validation("ProvidedContexts is not supported by Berth.")
	}
	if !strings.HasPrefix(*in.RoleArn, "arn:aws:iam::") {
		return nil, validation("%s is invalid", *in.RoleArn)
	}
	// A role that is not there and one that does not trust look the same.
	role, ok := auth.RoleByARN(snap, *in.RoleArn)
	if !ok {
		return nil, denied
	}
	session := auth.Session{Kind: auth.AssumedRole, Account: role.Account, Name: role.Name, ARN: role.ARN(), PrincipalID: role.ID,
		SessionName: *in.RoleSessionName, SourceIdentity: wire.Value(in.SourceIdentity)}
	if c.Session != nil && c.Session.SourceIdentity != "" {
		if session.SourceIdentity != "" && session.SourceIdentity != c.Session.SourceIdentity {
			return nil, denied // it stays for the whole chain
		}
		session.SourceIdentity = c.Session.SourceIdentity
	}
	keys := map[string][]string{"sts:RoleSessionName": {*in.RoleSessionName}}
	if in.ExternalId != nil {
		keys["sts:ExternalId"] = []string{*in.ExternalId}
	}
	if in.SourceIdentity != nil {
		keys["sts:SourceIdentity"] = []string{*in.SourceIdentity}
	}
	for _, t := range in.Tags {
		if session.Tags == nil {
			session.Tags = map[string]string{}
		}
		session.Tags[*t.Key] = wire.Value(t.Value)
		keys["aws:RequestTag/"+*t.Key] = []string{wire.Value(t.Value)}
		keys["aws:TagKeys"] = append(keys["aws:TagKeys"], *t.Key)
	}
	for _, t := range role.Tags {
		keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
		keys["iam:ResourceTag/"+t.Key] = []string{t.Value}
	}
	actions := []string{"sts:AssumeRole"}
	if len(in.Tags) > 0 {
		actions = append(actions, "sts:TagSession")
	}
	if in.SourceIdentity != nil {
		actions = append(actions, "sts:SetSourceIdentity")
	}
	for _, action := range actions {
		if err := s.cfg.Authorizer.MayAssume(ctx, snap, c, role, action, keys); err != nil {
			return nil, err
		}
	}
	seconds, err := duration(in.DurationSeconds, role.MaxSessionDuration, c)
	if err != nil {
		return nil, err
	}
	packed, err := limit(snap, &session, in)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Clock()
	creds, err := s.cfg.Sessions.Mint(session, now, now.Add(time.Duration(seconds)*time.Second))
	if err != nil {
		return nil, fmt.Errorf("assume role: %w", err)
	}
	out := &api.AssumeRoleOutput{Credentials: view(creds), PackedPolicySize: packed,
		AssumedRoleUser: &api.AssumedRoleUser{AssumedRoleId: new(role.ID + ":" + session.SessionName),
			Arn: new(auth.AssumedRoleARN(role.Account, role.Name, session.SessionName))}}
	if session.SourceIdentity != "" {
		out.SourceIdentity = &session.SourceIdentity
	}
	return out, nil
}

// duration is how long the session may last.
func duration(asked *int32, roleMax int, c *auth.Caller) (int32, error) {
	seconds := int32(defaultAssume)
	if asked != nil {
		seconds = *asked
	}
	switch {
	case int(seconds) > roleMax:
		return 0, validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	case c.Kind == auth.AssumedRole && seconds > maxChained:
		return 0, validation("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	return seconds, nil
}

const (
	maxSessionPolicy = 2048
	maxSessionARNs   = 10
)

// limit puts the session policies of the request into the session.
func limit(r store.Reader, session *auth.Session, in *api.AssumeRoleInput) (*int32, error) {
	if in.Policy == nil && len(in.PolicyArns) == 0 {
		return nil, nil
	}
	size := 0
	if in.Policy != nil {
		if _, err := policy.Parse(*in.Policy, policy.Identity); err != nil {
			return nil, &api.MalformedPolicyDocumentException{Message: err.Error()}
		}
		session.Policies = []string{*in.Policy}
		size = policy.Length(*in.Policy)
	}
	if len(in.PolicyArns) > maxSessionARNs {
		return nil, validation("1 validation error detected: Value at 'policyArns' failed to satisfy constraint: Member must have length less than or equal to %d", maxSessionARNs)
	}
	for _, p := range in.PolicyArns {
		arn := wire.Value(p.Arn)
		if _, ok := auth.ManagedDocument(r, arn); !ok {
			return nil, validation("The policy %s does not exist or is not attachable.", arn)
		}
		session.PolicyARNs = append(session.PolicyARNs, arn)
		size += len(arn)
	}
	if size > maxSessionPolicy {
		return nil, &api.PackedPolicyTooLargeException{Message: fmt.Sprintf("Packed size of policies consumes %d%% of allotted space.", size*100/maxSessionPolicy)}
	}
	return new(int32(max(1, size*100/maxSessionPolicy))), nil
}

// DecodeAuthorizationMessage opens the encoded message of an EC2 error.
func (s *Service) DecodeAuthorizationMessage(_ context.Context, in *api.DecodeAuthorizationMessageInput) (*api.DecodeAuthorizationMessageOutput, error) {
	text, err := s.cfg.Sessions.DecodeMessage(*in.EncodedMessage)
	if err != nil {
		return nil, &api.InvalidAuthorizationMessageException{Message: "Invalid token"}
	}
	return &api.DecodeAuthorizationMessageOutput{DecodedMessage: &text}, nil
}

func view(c auth.Credentials) *api.Credentials {
	return &api.Credentials{AccessKeyId: &c.AccessKeyID, SecretAccessKey: &c.Secret, SessionToken: &c.Token, Expiration: &c.Expires}
}

func validation(format string, args ...any) error {
	return wire.NewError(http.StatusBadRequest, "ValidationError", fmt.Sprintf(format, args...))
}
