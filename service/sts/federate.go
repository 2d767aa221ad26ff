package sts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store/state"
)

// algorithms are those that AWS accepts of a provider.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}

// claims are what a token says of its holder.
type claims struct {
	jwt.Claims
	Azp            string `json:"azp"`
	Amr            texts  `json:"amr"`
	SourceIdentity string `json:"https://aws.amazon.com/source_identity"`
	Tags           struct {
		Principal  map[string]texts `json:"principal_tags"`
		Transitive []string         `json:"transitive_tag_keys"`
	} `json:"https://aws.amazon.com/tags"`
}

// texts is one string or a list of them.
type texts []string

func (s *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*s = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(s))
}

func invalidToken(format string, args ...any) error {
	return &api.InvalidIdentityTokenException{Message: fmt.Sprintf(format, args...)}
}

// maxSkew is by how much a provider's clock may be ahead.
const maxSkew = 5 * time.Minute

// AssumeRoleWithWebIdentity gives credentials of a role to whom an OpenID
// Connect provider vouches for, if the role trusts that provider.
func (s *Service) AssumeRoleWithWebIdentity(ctx context.Context, in *api.AssumeRoleWithWebIdentityInput) (*api.AssumeRoleWithWebIdentityOutput, error) {
	if in.ProviderId != nil {
		return nil, validation("ProviderId %s is not supported by Berth: only tokens of OpenID Connect providers are.", *in.ProviderId)
	}
	if !isRole(*in.RoleArn) {
		return nil, validation("%s is invalid", *in.RoleArn)
	}
	snap := s.cfg.DB.Snapshot()
	const notJWT = "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
	token, err := jwt.ParseSigned(*in.WebIdentityToken, algorithms)
	if err != nil {
		return nil, invalidToken(notJWT)
	}
	var told claims
	if err := token.UnsafeClaimsWithoutVerification(&told); err != nil {
		return nil, invalidToken(notJWT)
	}
	issuer, https := strings.CutPrefix(told.Issuer, "https://")
	account := strings.SplitN(*in.RoleArn, ":", 6)[4]
	provider, ok := state.OIDCProviders.Get(snap, state.OIDCProviderARN(account, issuer))
	if !ok || !https {
		return nil, invalidToken("No OpenIDConnect provider found in your account for %s", told.Issuer)
	}
	if err := s.keys.verify(ctx, provider, token, &told); err != nil {
		return nil, err
	}
	audience := told.Audience
	if told.Azp != "" { // whom the token was made for, if that is not who is to read it
		audience = jwt.Audience{told.Azp}
	}
	now := s.cfg.Clock()
	switch {
	case told.Expiry == nil:
		return nil, invalidToken("Missing a required claim: exp")
	case told.IssuedAt == nil:
		return nil, invalidToken("Missing a required claim: iat")
	case told.Subject == "":
		return nil, invalidToken("Missing a required claim: sub")
	case len(audience) == 0:
		return nil, invalidToken("Missing a required claim: aud")
	case !now.Before(told.Expiry.Time()):
		return nil, &api.ExpiredTokenException{Message: fmt.Sprintf("Token expired: current date/time %d must be before the expiration date/time%d", now.Unix(), told.Expiry.Time().Unix())}
	case told.NotBefore != nil && now.Add(maxSkew).Before(told.NotBefore.Time()), now.Add(maxSkew).Before(told.IssuedAt.Time()):
		return nil, invalidToken("Token is not yet valid")
	case !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(provider.ClientIDs, a) }):
		return nil, invalidToken("Incorrect token audience")
	}
	keys := map[string][]string{strings.ToLower(issuer) + ":sub": {told.Subject}, strings.ToLower(issuer) + ":aud": audience}
	if len(told.Amr) > 0 {
		keys[strings.ToLower(issuer)+":amr"] = told.Amr
	}
	f := federation{action: "sts:AssumeRoleWithWebIdentity", role: *in.RoleArn, name: *in.RoleSessionName, provider: provider.ARN(), keys: keys,
		sourceIdentity: told.SourceIdentity, transitive: told.Tags.Transitive,
		duration: in.DurationSeconds, policy: in.Policy, policies: in.PolicyArns}
	for k, v := range told.Tags.Principal {
		if len(v) != 1 {
			return nil, invalidToken("The value of the tag %s must be one string", k)
		}
		f.tags = append(f.tags, api.Tag{Key: &k, Value: &v[0]})
	}
	out, err := s.federate(ctx, &f)
	if err != nil {
		return nil, err
	}
	return &api.AssumeRoleWithWebIdentityOutput{Credentials: out.Credentials, AssumedRoleUser: out.AssumedRoleUser, PackedPolicySize: out.PackedPolicySize,
		SourceIdentity: out.SourceIdentity, SubjectFromWebIdentityToken: &told.Subject, Audience: new(audience[0]), Provider: new(provider.ARN())}, nil
}

// A federation is what a provider's word is good for, once it is verified.
type federation struct {
	action, role, name, provider string
	keys                         map[string][]string // what the provider says, as condition keys in lower case
	tags                         []api.Tag
	transitive                   []string
	sourceIdentity               string
	duration                     *int32
	policy                       *string
	policies                     []api.PolicyDescriptorType
	until                        time.Time // the session must not outlive it; zero: no limit
}

// federate gives credentials of a role that trusts the provider.
func (s *Service) federate(ctx context.Context, f *federation) (*api.AssumeRoleOutput, error) {
	snap := s.cfg.DB.Snapshot()
	denied := accessDenied("Not authorized to perform " + f.action)
	role, ok := auth.RoleByARN(snap, f.role)
	if !ok {
		return nil, denied
	}
	slices.SortFunc(f.tags, func(a, b api.Tag) int { return strings.Compare(wire.Value(a.Key), wire.Value(b.Key)) })
	session := ofRole(role, f.name)
	session.SourceIdentity, session.Provider, session.Keys = f.sourceIdentity, f.provider, f.keys
	if err := tag(&session, nil, f.tags, f.transitive); err != nil {
		return nil, err
	}
	keys := keysOf(role, &session, f.tags)
	for k, v := range f.keys {
		keys[k] = v
	}
	for _, action := range actions(f.action, len(f.tags) > 0, f.sourceIdentity != "") {
		allowed, err := s.cfg.Authorizer.MayFederate(ctx, role, f.provider, action, keys)
		if err != nil {
			return nil, err
		}
		if !allowed {
			return nil, denied
		}
	}
	lasting, err := ofSession(f.duration, role)
	if err != nil {
		return nil, err
	}
	packed, err := limit(snap, &session, f.policy, f.policies)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Clock()
	until := now.Add(lasting)
	if !f.until.IsZero() && f.until.Before(until) {
		until = f.until
	}
	creds, err := s.cfg.Sessions.Mint(session, now, until)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.action, err)
	}
	return &api.AssumeRoleOutput{Credentials: view(creds), PackedPolicySize: packed, AssumedRoleUser: assumed(role, &session),
		SourceIdentity: optional(session.SourceIdentity)}, nil
}

var errSignature = errors.New("no key of the provider made this signature")
