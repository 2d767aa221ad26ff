package state

import (
	"time"

	"github.com/berth-run/berth/store"
)

// OIDCProvider is an identity provider whose tokens an account trusts.
type OIDCProvider struct {
	Account     string
	URL         string   // without https://
	ClientIDs   []string // audiences, in the order they were added
	Thumbprints []string // SHA-1 of certificates, 40 hex digits; may be empty
	Tags        []Tag
	CreatedAt   time.Time
}

// ARN is the provider's ARN.
func (p *OIDCProvider) ARN() string { return OIDCProviderARN(p.Account, p.URL) }

// OIDCProviderARN is the ARN, and so the key, of the provider with a URL (without https://).
func OIDCProviderARN(account, url string) string {
	return "arn:aws:iam::" + account + ":oidc-provider/" + url
}

// OIDCProviders is keyed by ARN; index "account".
var OIDCProviders = store.NewTable("oidcprovider", func(p *OIDCProvider) string { return p.ARN() },
	store.Index("account", func(p *OIDCProvider) []string { return []string{p.Account} }))

// SAMLProvider is a SAML identity provider that an account trusts.
type SAMLProvider struct {
	Account, Name string
	ID            string    // what a private key's and the provider's UUID are made of
	Metadata      string    // the entity descriptor as it was sent
	Issuer        string    // its entityID
	ValidUntil    time.Time // until when the metadata are good
	Encryption    string    // AssertionEncryptionMode: Required, Allowed, or "" where it was not said
	PrivateKeys   []SAMLKey // to decrypt assertions, oldest first; at most two
	Tags          []Tag
	CreatedAt     time.Time
}

// SAMLKey is a private key with which assertions are decrypted.
type SAMLKey struct {
	ID, PEM   string
	CreatedAt time.Time
}

// ARN is the provider's ARN.
func (p *SAMLProvider) ARN() string { return iamARN(p.Account, "saml-provider", "/", p.Name) }

// SAMLProviders is keyed by ARN, and sealed: it holds private keys; index "account".
var SAMLProviders = store.NewTable("samlprovider", func(p *SAMLProvider) string { return p.ARN() },
	store.Sealed(),
	store.Index("account", func(p *SAMLProvider) []string { return []string{p.Account} }))
