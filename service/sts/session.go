package sts

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/policy"
	api "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

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
		return nil, accessDenied("Cannot call GetSessionToken with session credentials")
	}
	now := s.cfg.Clock()
	session := auth.Session{Kind: c.Kind, Account: c.Account, Name: c.Name, ARN: c.ARN, PrincipalID: c.UserID}
	with, err := s.mfa(ctx, c, in.SerialNumber, in.TokenCode, now)
	if err != nil {
		return nil, err
	}
	if with {
		session.MFA = now.Unix()
	}
	creds, err := s.cfg.Sessions.Mint(session, now, now.Add(ofUser(c, in.DurationSeconds)))
	if err != nil {
		return nil, fmt.Errorf("get session token: %w", err)
	}
	return &api.GetSessionTokenOutput{Credentials: view(creds)}, nil
}

// ofUser is how long a session of a user lasts.
func ofUser(c *auth.Caller, asked *int32) time.Duration {
	seconds := int32(defaultSession)
	if asked != nil {
		seconds = *asked
	}
	if c.Kind == auth.RootUser {
		seconds = min(seconds, maxRootSession)
	}
	return time.Duration(seconds) * time.Second
}

// mfa takes the code of a device, if there is one. A code counts once, so it is
// written down before anything else is decided, as AWS does.
func (s *Service) mfa(ctx context.Context, c *auth.Caller, serial, code *string, now time.Time) (bool, error) {
	switch {
	case serial == nil && code == nil:
		return false, nil
	case serial == nil || code == nil:
		return false, accessDenied("MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code.")
	}
	if d, ok := state.MFADevices.Get(s.cfg.DB.Snapshot(), *serial); !ok || d.UserID == "" || d.UserID != c.PrincipalID() {
		return false, accessDenied("MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number is valid and associated with this user.")
	}
	denied := accessDenied("MultiFactorAuthentication failed with invalid MFA one time pass code. ")
	if !s.guesses.may(*serial, now) {
		return false, denied
	}
	err := s.cfg.DB.Update(ctx, func(tx *store.Tx) error { return auth.UseMFA(tx, c, *serial, *code, now) })
	if errors.Is(err, auth.ErrMFA) {
		return false, denied
	}
	if err == nil {
		s.guesses.right(*serial)
	}
	return err == nil, err
}

// guesses count how often codes of a device were tried. A code has six digits
// and whoever has the user's key may try as often as calls are allowed: after a
// few of them no code is right any more, for a while. They are not stored, and
// bounded by the devices whose own users try.
type guesses struct {
	mu    sync.Mutex
	tried map[string]guessed
}

type guessed struct {
	times int
	since time.Time
}

const (
	maxGuesses = 10
	guessPause = 5 * time.Minute
)

// may counts a try and reports whether it counts.
func (g *guesses) may(serial string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, ok := g.tried[serial]
	if !ok || now.Sub(n.since) >= guessPause || now.Before(n.since) {
		maps.DeleteFunc(g.tried, func(_ string, n guessed) bool { return now.Sub(n.since) >= guessPause })
		n = guessed{since: now}
	}
	n.times++
	if g.tried == nil {
		g.tried = map[string]guessed{}
	}
	g.tried[serial] = n
	return n.times <= maxGuesses
}

// right forgets the tries: the caller has the device.
func (g *guesses) right(serial string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.tried, serial)
}

// GetFederationToken gives a user credentials for somebody that AWS does not
// know: what the user may, as far as the policies of the request allow it.
func (s *Service) GetFederationToken(ctx context.Context, in *api.GetFederationTokenInput) (*api.GetFederationTokenOutput, error) {
	c := auth.FromContext(ctx)
	if c.Session != nil {
		return nil, accessDenied("Cannot call GetFederationToken with session credentials")
	}
	session := auth.Session{Kind: auth.FederatedUser, Account: c.Account, Name: c.Name, ARN: c.ARN, PrincipalID: c.UserID, SessionName: *in.Name}
	if err := tag(&session, nil, in.Tags, nil); err != nil {
		return nil, err
	}
	packed, err := limit(s.cfg.DB.Snapshot(), &session, in.Policy, in.PolicyArns)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Clock()
	creds, err := s.cfg.Sessions.Mint(session, now, now.Add(ofUser(c, in.DurationSeconds)))
	if err != nil {
		return nil, fmt.Errorf("get federation token: %w", err)
	}
	return &api.GetFederationTokenOutput{Credentials: view(creds), PackedPolicySize: packed,
		FederatedUser: &api.FederatedUser{FederatedUserId: new(c.Account + ":" + *in.Name),
			Arn: new("arn:aws:sts::" + c.Account + ":federated-user/" + *in.Name)}}, nil
}

// AssumeRole gives credentials of a role to whom the role trusts.
func (s *Service) AssumeRole(ctx context.Context, in *api.AssumeRoleInput) (*api.AssumeRoleOutput, error) {
	c := auth.FromContext(ctx)
	snap := s.cfg.DB.Snapshot()
	denied := accessDenied(policy.Decision{}.Message(c.ARN, "sts:AssumeRole", *in.RoleArn))
	if c.Kind == auth.RootUser {
		return nil, accessDenied("Roles may not be assumed by root accounts.")
	}
	if len(in.ProvidedContexts) > 0 {
		return nil, validation("ProvidedContexts is not supported by Berth.")
	}
	if !isRole(*in.RoleArn) {
		return nil, validation("%s is invalid", *in.RoleArn)
	}
	now := s.cfg.Clock()
	with, err := s.mfa(ctx, c, in.SerialNumber, in.TokenCode, now)
	if err != nil {
		return nil, err
	}
	// A role that is not there and one that does not trust look the same.
	role, ok := auth.RoleByARN(snap, *in.RoleArn)
	if !ok {
		return nil, denied
	}
	session := ofRole(role, *in.RoleSessionName)
	session.SourceIdentity = wire.Value(in.SourceIdentity)
	if c.Session != nil && c.Session.SourceIdentity != "" {
		if session.SourceIdentity != "" && session.SourceIdentity != c.Session.SourceIdentity {
			return nil, denied // it stays for the whole chain
		}
		session.SourceIdentity = c.Session.SourceIdentity
	}
	if err := tag(&session, c.Session, in.Tags, in.TransitiveTagKeys); err != nil {
		return nil, err
	}
	keys := keysOf(role, &session, in.Tags)
	if in.ExternalId != nil {
		keys["sts:ExternalId"] = []string{*in.ExternalId}
	}
	if with {
		keys["aws:MultiFactorAuthPresent"], keys["aws:MultiFactorAuthAge"] = []string{"true"}, []string{"0"}
	}
	for _, action := range actions("sts:AssumeRole", len(in.Tags) > 0, in.SourceIdentity != nil) {
		if err := s.cfg.Authorizer.MayAssume(ctx, snap, c, role, action, keys); err != nil {
			return nil, err
		}
	}
	lasting, err := ofSession(in.DurationSeconds, role)
	if err == nil && c.Kind == auth.AssumedRole && lasting > maxChained*time.Second {
		err = validation("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	if err != nil {
		return nil, err
	}
	packed, err := limit(snap, &session, in.Policy, in.PolicyArns)
	if err != nil {
		return nil, err
	}
	creds, err := s.cfg.Sessions.Mint(session, now, now.Add(lasting))
	if err != nil {
		return nil, fmt.Errorf("assume role: %w", err)
	}
	return &api.AssumeRoleOutput{Credentials: view(creds), PackedPolicySize: packed, AssumedRoleUser: assumed(role, &session),
		SourceIdentity: optional(session.SourceIdentity)}, nil
}

func isRole(arn string) bool {
	part := strings.SplitN(arn, ":", 6)
	return len(part) == 6 && part[0] == "arn" && part[1] == "aws" && part[2] == "iam" && len(part[4]) == 12 && strings.HasPrefix(part[5], "role/")
}

func ofRole(role *state.Role, name string) auth.Session {
	return auth.Session{Kind: auth.AssumedRole, Account: role.Account, Name: role.Name, ARN: role.ARN(), PrincipalID: role.ID, SessionName: name}
}

func assumed(role *state.Role, session *auth.Session) *api.AssumedRoleUser {
	return &api.AssumedRoleUser{AssumedRoleId: new(role.ID + ":" + session.SessionName),
		Arn: new(auth.AssumedRoleARN(role.Account, role.Name, session.SessionName))}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// actions are what the role's trust policy must allow.
func actions(assume string, tags, sourceIdentity bool) []string {
	all := []string{assume}
	if tags {
		all = append(all, "sts:TagSession")
	}
	if sourceIdentity {
		all = append(all, "sts:SetSourceIdentity")
	}
	return all
}

// keysOf are the condition keys under which a role is assumed.
func keysOf(role *state.Role, session *auth.Session, tags []api.Tag) map[string][]string {
	keys := tagKeys(tags, session.Transitive)
	keys["sts:RoleSessionName"] = []string{session.SessionName}
	if session.SourceIdentity != "" {
		keys["sts:SourceIdentity"] = []string{session.SourceIdentity}
	}
	for _, t := range role.Tags {
		keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
		keys["iam:ResourceTag/"+t.Key] = []string{t.Value}
	}
	return keys
}

// tagKeys are the condition keys that the tags of a request give.
func tagKeys(tags []api.Tag, transitive []string) map[string][]string {
	keys := map[string][]string{}
	for _, t := range tags {
		key := wire.Value(t.Key)
		keys["aws:RequestTag/"+key] = []string{wire.Value(t.Value)}
		keys["aws:TagKeys"] = append(keys["aws:TagKeys"], key)
	}
	if len(transitive) > 0 {
		keys["sts:TransitiveTagKeys"] = transitive
	}
	return keys
}

// tag gives the session its tags: those of the request, and those that it
// inherits from the session that asks.
func tag(session, from *auth.Session, tags []api.Tag, transitive []string) error {
	set := map[string]string{}
	has := func(keys []string, key string) bool {
		return slices.ContainsFunc(keys, func(k string) bool { return strings.EqualFold(k, key) })
	}
	for _, t := range tags {
		key := wire.Value(t.Key)
		if has(slices.Collect(maps.Keys(set)), key) {
			return validation("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			return validation("Tag keys beginning with 'aws:' are reserved for system use.")
		}
		set[key] = wire.Value(t.Value)
	}
	for _, k := range transitive {
		if !has(slices.Collect(maps.Keys(set)), k) {
			return validation("The specified transitive tag key must be included in the requested tags.")
		}
	}
	session.Transitive = slices.Clone(transitive)
	if from != nil {
		for k, v := range from.Tags {
			if !has(from.Transitive, k) {
				continue
			}
			if has(slices.Collect(maps.Keys(set)), k) {
				return validation("One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
			}
			set[k] = v
			session.Transitive = append(session.Transitive, k)
		}
	}
	slices.Sort(session.Transitive)
	if len(set) > 0 {
		session.Tags = set
	}
	return nil
}

// ofSession is how long a session of the role lasts.
func ofSession(asked *int32, role *state.Role) (time.Duration, error) {
	seconds := int32(defaultAssume)
	if asked != nil {
		seconds = *asked
	}
	if int(seconds) > role.MaxSessionDuration {
		return 0, validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	return time.Duration(seconds) * time.Second, nil
}

const (
	maxSessionPolicy = 2048 // characters as they are sent
	maxPacked        = 2048 // bytes as they are packed
	maxSessionARNs   = 10
)

// limit puts the session policies of a request into the session, and says how
// much of the space that AWS gives them they take, with the session's tags.
func limit(r store.Reader, session *auth.Session, document *string, arns []api.PolicyDescriptorType) (*int32, error) {
	plain := 0
	if document != nil {
		if _, err := policy.Parse(*document, policy.Identity); err != nil {
			return nil, &api.MalformedPolicyDocumentException{Message: err.Error()}
		}
		session.Policies = []string{*document}
		plain = policy.Length(*document)
	}
	if len(arns) > maxSessionARNs {
		return nil, validation("1 validation error detected: Value at 'policyArns' failed to satisfy constraint: Member must have length less than or equal to %d", maxSessionARNs)
	}
	for _, p := range arns {
		arn := wire.Value(p.Arn)
		if _, ok := auth.ManagedDocument(r, arn); !ok || !strings.HasPrefix(arn, "arn:aws:iam::aws:") && !strings.HasPrefix(arn, "arn:aws:iam::"+session.Account+":") {
			return nil, validation("The policy %s does not exist or is not attachable.", arn)
		}
		session.PolicyARNs = append(session.PolicyARNs, arn)
		plain += len(arn)
	}
	if plain == 0 && len(session.Tags) == 0 {
		return nil, nil
	}
	percent := max(plain*100/maxSessionPolicy, packed(session)*100/maxPacked, 1)
	switch {
	case percent <= 100:
		return new(int32(percent)), nil
	case plain == 0:
		return nil, &api.PackedPolicyTooLargeException{Message: fmt.Sprintf("Packed size of session tags consumes %d%% of allotted space.", percent)}
	}
	return nil, &api.PackedPolicyTooLargeException{Message: fmt.Sprintf("Packed policy consumes %d%% of allotted space, please use smaller policy.", percent)}
}

// packed is how many bytes the policies and tags of a session are when they are
// compressed. AWS does not say how it does that; only that it does.
func packed(session *auth.Session) int {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err) // the level is right
	}
	for _, p := range session.Policies {
		var text bytes.Buffer
		if json.Compact(&text, []byte(p)) == nil {
			p = text.String()
		}
		_, _ = w.Write([]byte(p)) // memory takes everything
	}
	for _, arn := range session.PolicyARNs {
		_, _ = w.Write([]byte(arn))
	}
	for _, k := range slices.Sorted(maps.Keys(session.Tags)) {
		_, _ = w.Write([]byte(k + session.Tags[k]))
	}
	_ = w.Close()
	return b.Len()
}
