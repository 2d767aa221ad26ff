package registry

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var (
	// errExpired: a password or link was good once.
	errExpired = errors.New("expired")
	// errInvalid: it was never good.
	errInvalid = errors.New("not valid")
)

// What is sealed, so that a link is never taken for a password.
const (
	sealedPassword = "registry password"
	sealedLink     = "registry link"
)

// A sealer makes texts that only this region can have made, and that nobody
// else can read.
type sealer struct{ aead cipher.AEAD }

// openSealer takes the region's key from the store, where it is encrypted, and
// makes it if there is none. All servers of a region have the same.
func openSealer(ctx context.Context, db *store.DB) (*sealer, error) {
	fresh := make([]byte, 32)
	rand.Read(fresh) // never fails
	var key []byte
	err := db.Update(ctx, func(tx *store.Tx) error {
		if have, ok := state.RegistryKeys.Get(tx, state.RegistryKeyName); ok {
			key = have.Secret
			return nil
		}
		key = fresh
		state.RegistryKeys.Put(tx, &state.RegistryKey{Secret: fresh})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("registry key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("registry key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("registry key: %w", err)
	}
	return &sealer{aead}, nil
}

func (s *sealer) seal(what string, plain []byte) string {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	rand.Read(nonce)
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nonce, nonce, plain, []byte(what)))
}

func (s *sealer) open(what, sealed string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || len(b) < s.aead.NonceSize() {
		return nil, errInvalid
	}
	n := s.aead.NonceSize()
	plain, err := s.aead.Open(nil, b[:n], b[n:], []byte(what))
	if err != nil {
		return nil, errInvalid
	}
	return plain, nil
}

// A password is what the password of a registry login holds: its caller, and
// until when. It is not a session: no request can be signed with it.
type password struct {
	Caller auth.Caller
	Until  int64
}

// Password makes a registry password for the caller in ctx.
func (g *Registry) Password(ctx context.Context, until time.Time) (string, error) {
	c := auth.FromContext(ctx)
	if c == nil {
		return "", errors.New("no caller")
	}
	p := password{*c, until.Unix()}
	if c.Session != nil {
		session := *c.Session
		session.Secret = ""
		p.Caller.Session = &session
	}
	b, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("registry password: %w", err)
	}
	return g.sealer.seal(sealedPassword, b), nil
}

// PullPassword makes a registry password with which nothing can be done but to
// pull from one repository, for what the region itself has to fetch there.
func (g *Registry) PullPassword(account, repository string, until time.Time) (string, error) {
	document, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Effect": "Allow", "Action": []string{"ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer"}, "Resource": g.RepositoryARN(account, repository),
	}}})
	if err != nil {
		return "", fmt.Errorf("registry password: %w", err)
	}
	root := "arn:aws:iam::" + account + ":root"
	b, err := json.Marshal(password{auth.Caller{Kind: auth.RootUser, Account: account, ARN: root, UserID: account, Session: &auth.Session{
		Kind: auth.RootUser, Account: account, ARN: root, PrincipalID: account, Policies: []string{string(document)}, Issued: g.Now().Unix(), Expires: until.Unix(),
	}}, until.Unix()})
	if err != nil {
		return "", fmt.Errorf("registry password: %w", err)
	}
	return g.sealer.seal(sealedPassword, b), nil
}

// caller opens a password. Who does not exist any more is nobody.
func (g *Registry) caller(r store.Reader, sealed string) (*auth.Caller, error) {
	b, err := g.sealer.open(sealedPassword, strings.TrimSpace(sealed))
	if err != nil {
		return nil, err
	}
	var p password
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, errInvalid
	}
	if g.Now().Unix() >= p.Until {
		return nil, errExpired
	}
	c := &p.Caller
	if s := c.Session; s != nil {
		s.IssuedAt, s.ExpiresAt = time.Unix(s.Issued, 0).UTC(), time.Unix(s.Expires, 0).UTC()
	}
	if !auth.Open(r, c.Account) {
		return nil, errInvalid
	}
	switch c.Kind {
	case auth.RootUser:
		return c, nil
	case auth.User:
		if u, ok := state.Users.Get(r, state.IAMKey(c.Account, c.Name)); ok && u.ID == c.PrincipalID() {
			return c, nil
		}
	case auth.AssumedRole:
		if role, ok := state.Roles.Get(r, state.IAMKey(c.Account, c.Name)); ok && role.ID == c.PrincipalID() {
			return c, nil
		}
	}
	return nil, errInvalid
}

// authenticate returns a context that carries the caller.
func (g *Registry) authenticate(r *http.Request, sealed string) (context.Context, *auth.Caller, error) {
	c, err := g.caller(g.DB.Snapshot(), sealed)
	if err != nil {
		return nil, nil, err
	}
	// Conditions of policies look at the request: whatever the front door has
	// said of it holds, but for what it cannot know of this protocol.
	around := *auth.RequestFrom(r.Context())
	around.Protocol, around.Service, around.Region = wire.JSON11, "ecr", g.Region
	around.Host, around.UserAgent, around.Secure, around.Time = r.Host, r.UserAgent(), r.TLS != nil, g.Now()
	if !around.SourceIP.IsValid() {
		if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			around.SourceIP = a.Addr()
		}
	}
	return auth.WithCaller(auth.WithRequest(r.Context(), &around), c), c, nil
}

// Check is the check of an action on a repository that may not exist. The
// front door uses it for the ECR API, so that both say the same.
func (g *Registry) Check(r store.Reader, caller *auth.Caller, action, account, name string) auth.Check {
	c := g.CheckNew(r, action, account, name)
	if repo, ok := state.Repositories.Get(r, state.RepositoryKey(account, name)); ok {
		c.Policy = join(repo.Policy, c.Policy)
		for _, t := range repo.Tags {
			if c.Keys == nil {
				c.Keys = map[string][]string{}
			}
			c.Keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
			c.Keys["ecr:ResourceTag/"+t.Key] = []string{t.Value}
		}
	}
	return c
}

// CheckNew is Check for a repository that is yet to be: only the registry's
// policy can speak of it.
func (g *Registry) CheckNew(r store.Reader, action, account, name string) auth.Check {
	return auth.Check{Action: action, Resource: g.RepositoryARN(account, name), Policy: registryPolicy(r, account, action)}
}
