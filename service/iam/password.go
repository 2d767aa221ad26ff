package iam

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// What a hash costs: Argon2id as OWASP advises for a server.
const (
	hashMemory = 19 * 1024 // KiB
	hashPasses = 2
	hashLength = 32
	saltLength = 16
	hashScheme = "argon2id-19m-2t"
)

// hash is what is kept of a password or of the secret of a credential.
// Hashing is made to be slow: no more than one at a time takes the machine.
func (s *Service) hash(password string) string {
	salt := make([]byte, saltLength)
	rand.Read(salt)
	return hashScheme + "$" + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(s.derive(password, salt))
}

func (s *Service) derive(password string, salt []byte) []byte {
	s.hashing.Lock()
	defer s.hashing.Unlock()
	return argon2.IDKey([]byte(password), salt, hashPasses, hashMemory, 1, hashLength)
}

// matches reports whether a hash is the password's.
func (s *Service) matches(hash, password string) bool {
	part := strings.Split(hash, "$")
	if len(part) != 3 || part[0] != hashScheme {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(part[1])
	if err != nil {
		return false
	}
	want, err := base64.RawStdEncoding.DecodeString(part[2])
	return err == nil && subtle.ConstantTimeCompare(want, s.derive(password, salt)) == 1
}

// symbols are what AWS counts as such.
const symbols = "!@#$%^&*()_+-=[]{}|'"

// weak says what a password policy, nil for AWS's default, has against a password.
func weak(p *state.PasswordPolicy, password string) string {
	has := func(low, high byte) bool {
		return strings.ContainsFunc(password, func(c rune) bool { return c >= rune(low) && c <= rune(high) })
	}
	upper, lower, digit, symbol := has('A', 'Z'), has('a', 'z'), has('0', '9'), strings.ContainsAny(password, symbols)
	if p == nil {
		kinds := 0
		for _, is := range []bool{upper, lower, digit, symbol} {
			if is {
				kinds++
			}
		}
		switch {
		case len([]rune(password)) < defaultMinimum:
			return fmt.Sprintf("Password should have a minimum length of %d", defaultMinimum)
		case kinds < 3:
			return "Password does not conform to the account password policy."
		}
		return ""
	}
	switch {
	case len([]rune(password)) < p.MinimumLength:
		return fmt.Sprintf("Password should have a minimum length of %d", p.MinimumLength)
	case p.Uppercase && !upper:
		return "Password should have at least one uppercase letter"
	case p.Lowercase && !lower:
		return "Password should have at least one lowercase letter"
	case p.Numbers && !digit:
		return "Password should have at least one number"
	case p.Symbols && !symbol:
		return "Password should have at least one symbol"
	}
	return ""
}

// defaultMinimum is the length that passwords have in an account without a policy.
const defaultMinimum = 8

// passwordPolicy is the account's own policy, nil if it has none.
func passwordPolicy(r store.Reader, account string) *state.PasswordPolicy {
	if a, ok := state.IAMAccounts.Get(r, account); ok {
		return a.Password
	}
	return nil
}

func strong(r store.Reader, account, password string) error {
	if what := weak(passwordPolicy(r, account), password); what != "" {
		return &api.PasswordPolicyViolationException{Message: what}
	}
	return nil
}

// setAccount changes a copy of the account's settings.
func (s *Service) setAccount(ctx context.Context, change func(*state.IAMSettings) error) error {
	acct := account(ctx)
	return s.update(ctx, func(tx *store.Tx) error {
		next := state.IAMSettings{Account: acct}
		if old, ok := state.IAMAccounts.Get(tx, acct); ok {
			next = *old
		}
		if err := change(&next); err != nil {
			return err
		}
		state.IAMAccounts.Put(tx, &next)
		return nil
	})
}

// UpdateAccountPasswordPolicy sets the whole policy: what is left out gets its default.
func (s *Service) UpdateAccountPasswordPolicy(ctx context.Context, in *api.UpdateAccountPasswordPolicyInput) (*api.UpdateAccountPasswordPolicyOutput, error) {
	p := &state.PasswordPolicy{MinimumLength: 6, Symbols: wire.Value(in.RequireSymbols), Numbers: wire.Value(in.RequireNumbers),
		Uppercase: wire.Value(in.RequireUppercaseCharacters), Lowercase: wire.Value(in.RequireLowercaseCharacters),
		UsersMayChange: wire.Value(in.AllowUsersToChangePassword), MaxAge: int(wire.Value(in.MaxPasswordAge)),
		ReusePrevention: int(wire.Value(in.PasswordReusePrevention)), HardExpiry: in.HardExpiry}
	if in.MinimumPasswordLength != nil {
		p.MinimumLength = int(*in.MinimumPasswordLength)
	}
	return &api.UpdateAccountPasswordPolicyOutput{}, s.setAccount(ctx, func(a *state.IAMSettings) error {
		a.Password = p
		return nil
	})
}

// GetAccountPasswordPolicy shows the account's own policy.
func (s *Service) GetAccountPasswordPolicy(ctx context.Context, _ *api.GetAccountPasswordPolicyInput) (*api.GetAccountPasswordPolicyOutput, error) {
	p := passwordPolicy(s.db.Snapshot(), account(ctx))
	if p == nil {
		return nil, noSuch("The Password Policy with domain name %s cannot be found.", account(ctx))
	}
	v := &api.PasswordPolicy{MinimumPasswordLength: new(int32(p.MinimumLength)), RequireSymbols: &p.Symbols, RequireNumbers: &p.Numbers,
		RequireUppercaseCharacters: &p.Uppercase, RequireLowercaseCharacters: &p.Lowercase, AllowUsersToChangePassword: &p.UsersMayChange,
		ExpirePasswords: new(p.MaxAge > 0), HardExpiry: p.HardExpiry}
	if p.MaxAge > 0 {
		v.MaxPasswordAge = new(int32(p.MaxAge))
	}
	if p.ReusePrevention > 0 {
		v.PasswordReusePrevention = new(int32(p.ReusePrevention))
	}
	return &api.GetAccountPasswordPolicyOutput{PasswordPolicy: v}, nil
}

// DeleteAccountPasswordPolicy goes back to AWS's default.
func (s *Service) DeleteAccountPasswordPolicy(ctx context.Context, _ *api.DeleteAccountPasswordPolicyInput) (*api.DeleteAccountPasswordPolicyOutput, error) {
	return &api.DeleteAccountPasswordPolicyOutput{}, s.setAccount(ctx, func(a *state.IAMSettings) error {
		if a.Password == nil {
			return noSuch("The account policy with name PasswordPolicy cannot be found.")
		}
		a.Password = nil
		return nil
	})
}

// named is the user that is meant: the one of that name, or the caller.
func named(ctx context.Context, r store.Reader, name *string) (*state.User, error) {
	n, err := selfOr(ctx, name)
	if err != nil {
		return nil, err
	}
	if n == "" {
		return nil, validation("Must specify userName when calling with non-User credentials")
	}
	return user(r, account(ctx), n)
}

func noLogin(u *state.User) error {
	return noSuch("Login Profile for User %s cannot be found.", u.Name)
}

func viewLogin(u *state.User, p *state.LoginProfile) *api.LoginProfile {
	return &api.LoginProfile{UserName: &u.Name, CreateDate: &p.CreatedAt, PasswordResetRequired: &p.ResetRequired}
}

// CreateLoginProfile gives a user a password.
func (s *Service) CreateLoginProfile(ctx context.Context, in *api.CreateLoginProfileInput) (*api.CreateLoginProfileOutput, error) {
	acct, now := account(ctx), s.now()
	if in.Password == nil {
		// AWS takes this for root sessions only, which an account outside of an organization cannot have.
		return nil, validation("1 validation error detected: Value null at 'password' failed to satisfy constraint: Member must not be null")
	}
	if err := strong(s.db.Snapshot(), acct, *in.Password); err != nil {
		return nil, err
	}
	hash := s.hash(*in.Password)
	var out api.CreateLoginProfileOutput
	err := s.update(ctx, func(tx *store.Tx) error {
		u, err := named(ctx, tx, in.UserName)
		if err != nil {
			return err
		}
		if state.LoginProfiles.Has(tx, u.ID) {
			return exists("Login Profile for user %s already exists.", u.Name)
		}
		p := &state.LoginProfile{Account: acct, UserID: u.ID, Hash: hash, ResetRequired: wire.Value(in.PasswordResetRequired), CreatedAt: now, ChangedAt: now}
		state.LoginProfiles.Put(tx, p)
		out.LoginProfile = viewLogin(u, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// GetLoginProfile says that a user has a password.
func (s *Service) GetLoginProfile(ctx context.Context, in *api.GetLoginProfileInput) (*api.GetLoginProfileOutput, error) {
	snap := s.db.Snapshot()
	u, err := named(ctx, snap, in.UserName)
	if err != nil {
		return nil, err
	}
	p, ok := state.LoginProfiles.Get(snap, u.ID)
	if !ok {
		return nil, noLogin(u)
	}
	return &api.GetLoginProfileOutput{LoginProfile: viewLogin(u, p)}, nil
}

// UpdateLoginProfile sets a user's password anew, or that it must be changed.
func (s *Service) UpdateLoginProfile(ctx context.Context, in *api.UpdateLoginProfileInput) (*api.UpdateLoginProfileOutput, error) {
	var hash string
	if in.Password != nil {
		if err := strong(s.db.Snapshot(), account(ctx), *in.Password); err != nil {
			return nil, err
		}
		hash = s.hash(*in.Password)
	}
	now := s.now()
	return &api.UpdateLoginProfileOutput{}, s.update(ctx, func(tx *store.Tx) error {
		u, err := named(ctx, tx, in.UserName)
		if err != nil {
			return err
		}
		old, ok := state.LoginProfiles.Get(tx, u.ID)
		if !ok {
			return noLogin(u)
		}
		next := *old
		if hash != "" {
			replace(&next, hash, now)
		}
		if in.PasswordResetRequired != nil {
			next.ResetRequired = *in.PasswordResetRequired
		}
		state.LoginProfiles.Put(tx, &next)
		return nil
	})
}

// maxRemembered is how many passwords a policy can forbid to use again.
const maxRemembered = 24

// replace puts a new password into p, which remembers those before it.
func replace(p *state.LoginProfile, hash string, now time.Time) {
	p.Previous = append([]string{p.Hash}, p.Previous...)
	p.Previous = p.Previous[:min(len(p.Previous), maxRemembered)]
	p.Hash, p.ChangedAt = hash, now
}

// DeleteLoginProfile takes the password away.
func (s *Service) DeleteLoginProfile(ctx context.Context, in *api.DeleteLoginProfileInput) (*api.DeleteLoginProfileOutput, error) {
	return &api.DeleteLoginProfileOutput{}, s.update(ctx, func(tx *store.Tx) error {
		u, err := named(ctx, tx, in.UserName)
		if err != nil {
			return err
		}
		if !state.LoginProfiles.Has(tx, u.ID) {
			return noLogin(u)
		}
		state.LoginProfiles.Delete(tx, u.ID)
		return nil
	})
}

// ChangePassword lets a user change its own password.
func (s *Service) ChangePassword(ctx context.Context, in *api.ChangePasswordInput) (*api.ChangePasswordOutput, error) {
	c := auth.FromContext(ctx)
	if c == nil || c.Kind != auth.User {
		return nil, &api.InvalidUserTypeException{Message: "Only IAM Users can change their own password"}
	}
	snap := s.db.Snapshot()
	u, err := user(snap, c.Account, c.Name)
	if err != nil {
		return nil, err
	}
	seen, ok := state.LoginProfiles.Get(snap, u.ID)
	if !ok {
		return nil, noLogin(u)
	}
	if !s.matches(seen.Hash, *in.OldPassword) {
		return nil, wire.NewError(http.StatusForbidden, "AccessDenied", "The old password was incorrect.")
	}
	if err := strong(snap, c.Account, *in.NewPassword); err != nil {
		return nil, err
	}
	if p := passwordPolicy(snap, c.Account); p != nil && p.ReusePrevention > 0 {
		before := append([]string{seen.Hash}, seen.Previous...)
		before = before[:min(len(before), p.ReusePrevention)]
		if slices.ContainsFunc(before, func(hash string) bool { return s.matches(hash, *in.NewPassword) }) {
			return nil, &api.PasswordPolicyViolationException{Message: "Policy constraint violation with password reuse prevention during password change"}
		}
	}
	hash, now := s.hash(*in.NewPassword), s.now()
	return &api.ChangePasswordOutput{}, s.update(ctx, func(tx *store.Tx) error {
		old, ok := state.LoginProfiles.Get(tx, u.ID)
		if !ok {
			return noLogin(u)
		}
		if old.Hash != seen.Hash {
			return &api.EntityTemporarilyUnmodifiableException{Message: "Login Profile for User " + u.Name + " was changed meanwhile. Try again."}
		}
		next := *old
		replace(&next, hash, now)
		next.ResetRequired = false
		state.LoginProfiles.Put(tx, &next)
		return nil
	})
}
