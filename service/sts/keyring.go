package sts

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	api "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/store/state"
)

// A keyring has the keys that identity providers sign with. It asks the
// provider itself, over TLS, and remembers for a while what it said.
//
// A provider may have a private address, unlike with AWS: that is where those
// of an own network are. An account can so make the server connect to any
// address, by HTTPS and GET alone: it follows no redirect, believes nobody
// whose certificate is not for the name, and tells why there was no answer, or
// its status, and nothing of what it says.
type keyring struct {
	roots *x509.CertPool
	now   func() time.Time

	mu   sync.Mutex
	sets map[string]*keySet
}

// A keySet is what one provider published.
type keySet struct {
	turn    chan struct{} // who holds it may ask the provider
	keys    jose.JSONWebKeySet
	fetched time.Time
	failed  error // why the newest attempt brought no keys, at that time
	asked   time.Time
}

const (
	keysGood  = time.Hour        // for how long keys are believed
	keysPause = 10 * time.Second // before a provider is asked again for a key it did not have
	failPause = time.Second      // and before one is asked again that failed: anybody can make us ask
	maxSets   = 256
	fetchTime = 5 * time.Second
	maxFetch  = 1 << 20
)

func newKeyring(roots *x509.CertPool, now func() time.Time) *keyring {
	return &keyring{roots: roots, now: now, sets: map[string]*keySet{}}
}

// set is that of the provider, known under all that its keys depend on.
func (k *keyring) set(p *state.OIDCProvider) *keySet {
	name := p.ARN() + " " + strings.Join(p.Thumbprints, " ")
	k.mu.Lock()
	defer k.mu.Unlock()
	set := k.sets[name]
	if set == nil {
		if len(k.sets) >= maxSets {
			clear(k.sets) // whoever waits for one keeps it
		}
		set = &keySet{turn: make(chan struct{}, 1)}
		k.sets[name] = set
	}
	return set
}

// verify checks the token's signature by the provider's keys.
func (k *keyring) verify(ctx context.Context, p *state.OIDCProvider, token *jwt.JSONWebToken, into *claims) error {
	set := k.set(p)
	select {
	case set.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-set.turn }()
	now := k.now()
	age := now.Sub(set.fetched)
	if age < keysGood && signed(token, &set.keys, into) == nil {
		return nil
	}
	if age < keysPause {
		return invalidToken("%s", errSignature)
	}
	if set.failed != nil && now.Sub(set.asked) < failPause {
		return set.failed
	}
	// Whoever waits behind this request gets its answer, also if it goes away.
	keys, err := k.fetch(context.WithoutCancel(ctx), p)
	set.failed, set.asked = err, k.now()
	if err != nil {
		return err
	}
	set.keys, set.fetched = *keys, set.asked
	if err := signed(token, keys, into); err != nil {
		return invalidToken("%s", err)
	}
	return nil
}

// signed reports whether one of the keys made the token.
func signed(token *jwt.JSONWebToken, keys *jose.JSONWebKeySet, into *claims) error {
	header := token.Headers[0]
	for _, key := range keys.Keys {
		if header.KeyID != "" && key.KeyID != "" && header.KeyID != key.KeyID || key.Use == "enc" || key.Algorithm != "" && key.Algorithm != header.Algorithm || !key.IsPublic() {
			continue
		}
		var told claims
		if token.Claims(key.Key, &told) == nil {
			*into = told
			return nil
		}
	}
	return errSignature
}

const noKeys = "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements"

// errPrint is a certificate of nobody we trust, whose thumbprint the account
// does not name either.
var errPrint = errors.New("OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint")

// fetch asks the provider where its keys are, and for them.
func (k *keyring) fetch(ctx context.Context, p *state.OIDCProvider) (*jose.JSONWebKeySet, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := k.get(ctx, p, "https://"+strings.TrimSuffix(p.URL, "/")+"/.well-known/openid-configuration", &discovery); err != nil {
		return nil, err
	}
	if discovery.Issuer != "https://"+p.URL || !strings.HasPrefix(discovery.Keys, "https://") {
		return nil, invalidToken(noKeys)
	}
	var keys jose.JSONWebKeySet
	if err := k.get(ctx, p, discovery.Keys, &keys); err != nil {
		return nil, err
	}
	if len(keys.Keys) == 0 {
		return nil, invalidToken(noKeys)
	}
	return &keys, nil
}

// get fetches a JSON document. Who cannot be reached may be later; who answers
// with something else will not do better.
func (k *keyring) get(ctx context.Context, p *state.OIDCProvider, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return invalidToken(noKeys)
	}
	// The name is that of the request: the state of a connection to a bare
	// address has none.
	host := req.URL.Hostname()
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{
				MinVersion: tls.VersionTLS12,
				// The chain is verified by the authorities, or by the thumbprints.
				InsecureSkipVerify: true,
				VerifyConnection: func(c tls.ConnectionState) error {
					return k.trusted(host, c.PeerCertificates, p.Thumbprints)
				},
			}},
	}
	resp, err := client.Do(req)
	if errors.Is(err, errPrint) {
		return invalidToken("%s", errPrint)
	}
	if err != nil {
		return &api.IDPCommunicationErrorException{Message: "The identity provider could not be reached to verify the identity token: " + err.Error()}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFetch+1))
	switch {
	case err != nil:
		return &api.IDPCommunicationErrorException{Message: fmt.Sprintf("The identity provider could not be reached to verify the identity token: read %s: %s", url, err)}
	case resp.StatusCode >= http.StatusInternalServerError:
		return &api.IDPCommunicationErrorException{Message: fmt.Sprintf("The identity provider could not be reached to verify the identity token: %s answered %s", url, resp.Status)}
	case resp.StatusCode != http.StatusOK || len(body) > maxFetch || json.Unmarshal(body, into) != nil:
		return invalidToken(noKeys)
	}
	return nil
}

// trusted accepts a provider whose certificate comes from an authority that is
// trusted anyway, or from one whose certificate the account names by its
// thumbprint. Either way it must be the provider's name that it certifies.
func (k *keyring) trusted(host string, chain []*x509.Certificate, thumbprints []string) error {
	options := x509.VerifyOptions{DNSName: host, Roots: k.roots, Intermediates: x509.NewCertPool(), CurrentTime: k.now()}
	for _, cert := range chain[1:] {
		options.Intermediates.AddCert(cert)
	}
	leaf := chain[0]
	if _, err := leaf.Verify(options); err == nil {
		return nil
	}
	named := x509.NewCertPool()
	for _, cert := range chain {
		sum := sha1.Sum(cert.Raw)
		if slices.ContainsFunc(thumbprints, func(t string) bool { return strings.EqualFold(t, hex.EncodeToString(sum[:])) }) {
			named.AddCert(cert)
		}
	}
	options.Roots = named
	if _, err := leaf.Verify(options); err != nil {
		return errPrint
	}
	return nil
}
