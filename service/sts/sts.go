// Package sts is the STS API: who a caller is, and temporary credentials.
//
// It owns the rules of how long and for whom credentials are given out, and
// the verification of what identity providers say of callers. Credentials are
// minted by package auth and stored nowhere. Of the outside world it may reach
// nothing but the identity providers that an account has registered.
package sts

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
)

// Config is what the service needs; the first three fields are required.
type Config struct {
	DB         *store.DB
	Sessions   *auth.Sessions
	Authorizer *auth.Authorizer
	Clock      func() time.Time // nil: time.Now
	// Roots are the authorities that identity providers' certificates may come
	// from. nil: the system's.
	Roots *x509.CertPool
}

// Service implements the STS API.
type Service struct {
	api.Unimplemented
	cfg     Config
	keys    *keyring
	guesses guesses
}

var _ api.Handler = (*Service)(nil)

// New makes the service.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Service{cfg: cfg, keys: newKeyring(cfg.Roots, cfg.Clock)}
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
		"GetFederationToken": func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
			asked := in.(*api.GetFederationTokenInput)
			arn := "arn:aws:sts::" + c.Account + ":federated-user/" + wire.Value(asked.Name)
			return []auth.Check{{Action: "sts:GetFederationToken", Resource: arn, Keys: tagKeys(asked.Tags, nil)}}
		},
		"AssumeRoot": func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
			asked := in.(*api.AssumeRootInput)
			target := wire.Value(asked.TargetPrincipal)
			if len(target) == 12 {
				target = "arn:aws:iam::" + target + ":root"
			}
			keys := map[string][]string{}
			if asked.TaskPolicyArn != nil {
				keys["sts:TaskPolicyArn"] = []string{wire.Value(asked.TaskPolicyArn.Arn)}
			}
			return []auth.Check{{Action: "sts:AssumeRoot", Resource: target, Keys: keys}}
		},
		"GetWebIdentityToken": func(_ context.Context, _ store.Reader, _ *auth.Caller, in any) []auth.Check {
			asked := in.(*api.GetWebIdentityTokenInput)
			keys := tagKeys(asked.Tags, nil)
			keys["sts:IdentityTokenAudience"] = asked.Audience
			if asked.SigningAlgorithm != nil {
				keys["sts:SigningAlgorithm"] = []string{*asked.SigningAlgorithm}
			}
			if asked.DurationSeconds != nil {
				keys["sts:DurationSeconds"] = []string{fmt.Sprint(*asked.DurationSeconds)}
			}
			return []auth.Check{{Action: "sts:GetWebIdentityToken", Resource: "*", Keys: keys}}
		},
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

// DecodeAuthorizationMessage opens the encoded message of an EC2 error.
func (s *Service) DecodeAuthorizationMessage(_ context.Context, in *api.DecodeAuthorizationMessageInput) (*api.DecodeAuthorizationMessageOutput, error) {
	text, err := s.cfg.Sessions.DecodeMessage(*in.EncodedMessage)
	if err != nil {
		return nil, &api.InvalidAuthorizationMessageException{Message: "Invalid token"}
	}
	return &api.DecodeAuthorizationMessageOutput{DecodedMessage: &text}, nil
}

// GetWebIdentityToken refuses: no account here issues tokens of its own.
func (s *Service) GetWebIdentityToken(context.Context, *api.GetWebIdentityTokenInput) (*api.GetWebIdentityTokenOutput, error) {
	return nil, &api.OutboundWebIdentityFederationDisabledException{Message: "Outbound web identity federation is not enabled for this account. Berth does not support it."}
}

// AssumeRoot refuses: there is no organization whose members' root could be assumed.
func (s *Service) AssumeRoot(context.Context, *api.AssumeRootInput) (*api.AssumeRootOutput, error) {
	return nil, wire.NewError(http.StatusForbidden, "AccessDenied", "AssumeRoot needs an account that manages an organization. Berth does not support organizations.")
}

func view(c auth.Credentials) *api.Credentials {
	return &api.Credentials{AccessKeyId: &c.AccessKeyID, SecretAccessKey: &c.Secret, SessionToken: &c.Token, Expiration: &c.Expires}
}

func validation(format string, args ...any) error {
	return wire.NewError(http.StatusBadRequest, "ValidationError", fmt.Sprintf(format, args...))
}

func accessDenied(message string) error {
	return wire.NewError(http.StatusForbidden, "AccessDenied", message)
}
