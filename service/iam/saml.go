package iam

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A samlEntity is what is read of a provider's metadata.
type samlEntity struct {
	issuer     string
	validUntil time.Time // zero if the document does not say
}

var errMetadata = invalidInput("Could not parse metadata")

// parseSAML reads the metadata of an identity provider: it must have a name
// and a certificate by which its assertions are known.
func parseSAML(document string) (*samlEntity, error) {
	var doc struct {
		XMLName    xml.Name
		ID         string `xml:"entityID,attr"`
		ValidUntil string `xml:"validUntil,attr"`
		IDP        []struct {
			Keys []struct {
				Use          string   `xml:"use,attr"`
				Certificates []string `xml:"KeyInfo>X509Data>X509Certificate"`
			} `xml:"KeyDescriptor"`
		} `xml:"IDPSSODescriptor"`
	}
	if err := xml.Unmarshal([]byte(document), &doc); err != nil {
		return nil, errMetadata
	}
	const namespace = "urn:oasis:names:tc:SAML:2.0:metadata"
	if doc.XMLName.Local != "EntityDescriptor" || doc.XMLName.Space != namespace || doc.ID == "" || len(doc.IDP) == 0 {
		return nil, errMetadata
	}
	e := &samlEntity{issuer: doc.ID}
	signs := false
	for _, idp := range doc.IDP {
		for _, k := range idp.Keys {
			for _, text := range k.Certificates {
				der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
				if err != nil {
					return nil, errMetadata
				}
				if _, err := x509.ParseCertificate(der); err != nil {
					return nil, errMetadata
				}
				signs = signs || k.Use != "encryption"
			}
		}
	}
	if !signs {
		return nil, errMetadata
	}
	if doc.ValidUntil != "" {
		t, err := time.Parse(time.RFC3339, doc.ValidUntil)
		if err != nil {
			return nil, errMetadata
		}
		e.validUntil = t.UTC().Truncate(time.Second)
	}
	return e, nil
}

// maxMetadata is how large a row may become; AWS takes ten times as much.
const maxMetadata = 1_000_000

// samlValidity is how long metadata are good that do not say it themselves.
const samlValidity = 100 * 365 * 24 * time.Hour

// describe puts a document and what it says into p.
func describe(p *state.SAMLProvider, document string, now time.Time) error {
	if len(document) > maxMetadata {
		return invalidInput("Metadata documents of more than %d bytes are not supported by Berth.", maxMetadata)
	}
	e, err := parseSAML(document)
	if err != nil {
		return err
	}
	p.Metadata, p.Issuer, p.ValidUntil = document, e.issuer, e.validUntil
	if p.ValidUntil.IsZero() {
		p.ValidUntil = now.Add(samlValidity)
	}
	return nil
}

// samlID makes an id of a provider or a key of one.
func samlID() string {
	var b [20]byte
	rand.Read(b[:])
	return base32.StdEncoding.EncodeToString(b[:])
}

// samlKey checks a private key for the decryption of assertions.
func samlKey(text string, now time.Time) (state.SAMLKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return state.SAMLKey{}, invalidInput("The private key is not in PEM format.")
	}
	if _, err := privateKey(block.Bytes); err != nil {
		return state.SAMLKey{}, invalidInput("The private key could not be parsed.")
	}
	return state.SAMLKey{ID: samlID(), PEM: text, CreatedAt: now}, nil
}

// maxSAMLKeys is how many private keys a provider may have: the old and the new.
const maxSAMLKeys = 2

func samlProvider(r store.Reader, account, arn string) (*state.SAMLProvider, error) {
	if !strings.HasPrefix(arn, "arn:aws:iam::") || !strings.Contains(arn, ":saml-provider/") {
		return nil, invalidInput("Invalid SAML provider ARN: %s", arn)
	}
	p, ok := state.SAMLProviders.Get(r, arn)
	if !ok || p.Account != account {
		return nil, noSuch("Manifest not found for arn %s", arn)
	}
	return p, nil
}

func samlProviders(r store.Reader, account string) []*state.SAMLProvider {
	return byKey(slices.Collect(state.SAMLProviders.By(r, "account", account)), (*state.SAMLProvider).ARN)
}

// CreateSAMLProvider makes an identity provider of metadata.
func (s *Service) CreateSAMLProvider(ctx context.Context, in *api.CreateSAMLProviderInput) (*api.CreateSAMLProviderOutput, error) {
	acct, now := account(ctx), s.now()
	p := &state.SAMLProvider{Account: acct, Name: *in.Name, ID: samlID(), Encryption: string(in.AssertionEncryptionMode), CreatedAt: now}
	if err := describe(p, *in.SAMLMetadataDocument, now); err != nil {
		return nil, err
	}
	if in.AddPrivateKey != nil {
		k, err := samlKey(*in.AddPrivateKey, now)
		if err != nil {
			return nil, err
		}
		p.PrivateKeys = append(p.PrivateKeys, k)
	}
	if err := decryptable(p); err != nil {
		return nil, err
	}
	var err error
	if p.Tags, err = newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	err = s.update(ctx, func(tx *store.Tx) error {
		for _, other := range samlProviders(tx, acct) {
			if strings.EqualFold(other.Name, p.Name) {
				return exists("SAMLProvider with name %s already exists.", p.Name)
			}
		}
		if err := full(tx, acct, "SAMLProvidersPerAccount", "saml-providers", len(samlProviders(tx, acct))); err != nil {
			return err
		}
		state.SAMLProviders.Put(tx, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateSAMLProviderOutput{SAMLProviderArn: new(p.ARN()), Tags: viewTags(p.Tags)}, nil
}

// decryptable checks that there is a key where assertions must be encrypted.
func decryptable(p *state.SAMLProvider) error {
	if p.Encryption == string(api.AssertionEncryptionModeTypeRequired) && len(p.PrivateKeys) == 0 {
		return invalidInput("AssertionEncryptionMode Required needs a private key.")
	}
	return nil
}

// GetSAMLProvider shows a provider, without its private keys.
func (s *Service) GetSAMLProvider(ctx context.Context, in *api.GetSAMLProviderInput) (*api.GetSAMLProviderOutput, error) {
	p, err := samlProvider(s.db.Snapshot(), account(ctx), *in.SAMLProviderArn)
	if err != nil {
		return nil, err
	}
	out := &api.GetSAMLProviderOutput{SAMLProviderUUID: &p.ID, SAMLMetadataDocument: &p.Metadata, CreateDate: &p.CreatedAt,
		ValidUntil: &p.ValidUntil, Tags: viewTags(p.Tags), AssertionEncryptionMode: api.AssertionEncryptionModeType(p.Encryption)}
	for _, k := range p.PrivateKeys {
		out.PrivateKeyList = append(out.PrivateKeyList, api.SAMLPrivateKey{KeyId: &k.ID, Timestamp: &k.CreatedAt})
	}
	return out, nil
}

// ListSAMLProviders lists the account's providers by ARN.
func (s *Service) ListSAMLProviders(ctx context.Context, _ *api.ListSAMLProvidersInput) (*api.ListSAMLProvidersOutput, error) {
	out := &api.ListSAMLProvidersOutput{SAMLProviderList: []api.SAMLProviderListEntry{}}
	for _, p := range samlProviders(s.db.Snapshot(), account(ctx)) {
		out.SAMLProviderList = append(out.SAMLProviderList, api.SAMLProviderListEntry{Arn: new(p.ARN()), ValidUntil: &p.ValidUntil, CreateDate: &p.CreatedAt})
	}
	return out, nil
}

func (s *Service) setSAML(ctx context.Context, arn string, change func(*state.SAMLProvider) error) error {
	return s.update(ctx, func(tx *store.Tx) error {
		old, err := samlProvider(tx, account(ctx), arn)
		if err != nil {
			return err
		}
		next := *old
		if err := change(&next); err != nil {
			return err
		}
		state.SAMLProviders.Put(tx, &next)
		return nil
	})
}

// UpdateSAMLProvider replaces the metadata, and adds and removes keys.
func (s *Service) UpdateSAMLProvider(ctx context.Context, in *api.UpdateSAMLProviderInput) (*api.UpdateSAMLProviderOutput, error) {
	now := s.now()
	var added state.SAMLKey
	if in.AddPrivateKey != nil {
		var err error
		if added, err = samlKey(*in.AddPrivateKey, now); err != nil {
			return nil, err
		}
	}
	err := s.setSAML(ctx, *in.SAMLProviderArn, func(p *state.SAMLProvider) error {
		if in.SAMLMetadataDocument != nil {
			if err := describe(p, *in.SAMLMetadataDocument, now); err != nil {
				return err
			}
		}
		if in.AssertionEncryptionMode != "" {
			p.Encryption = string(in.AssertionEncryptionMode)
		}
		if id := wire.Value(in.RemovePrivateKey); id != "" {
			i := slices.IndexFunc(p.PrivateKeys, func(k state.SAMLKey) bool { return k.ID == id })
			if i < 0 {
				return noSuch("The private key with id %s cannot be found.", id)
			}
			p.PrivateKeys = slices.Delete(slices.Clone(p.PrivateKeys), i, i+1)
		}
		if added.ID != "" {
			if len(p.PrivateKeys) >= maxSAMLKeys {
				return quota("PrivateKeysPerSAMLProvider", maxSAMLKeys)
			}
			p.PrivateKeys = append(slices.Clone(p.PrivateKeys), added)
		}
		return decryptable(p)
	})
	if err != nil {
		return nil, err
	}
	return &api.UpdateSAMLProviderOutput{SAMLProviderArn: in.SAMLProviderArn}, nil
}

// DeleteSAMLProvider deletes a provider.
func (s *Service) DeleteSAMLProvider(ctx context.Context, in *api.DeleteSAMLProviderInput) (*api.DeleteSAMLProviderOutput, error) {
	return &api.DeleteSAMLProviderOutput{}, s.update(ctx, func(tx *store.Tx) error {
		p, err := samlProvider(tx, account(ctx), *in.SAMLProviderArn)
		if err != nil {
			return err
		}
		state.SAMLProviders.Delete(tx, p.ARN())
		return nil
	})
}

// TagSAMLProvider adds tags.
func (s *Service) TagSAMLProvider(ctx context.Context, in *api.TagSAMLProviderInput) (*api.TagSAMLProviderOutput, error) {
	return &api.TagSAMLProviderOutput{}, s.setSAML(ctx, *in.SAMLProviderArn, func(p *state.SAMLProvider) (err error) {
		p.Tags, err = newTags(p.Tags, in.Tags)
		return err
	})
}

// UntagSAMLProvider removes tags.
func (s *Service) UntagSAMLProvider(ctx context.Context, in *api.UntagSAMLProviderInput) (*api.UntagSAMLProviderOutput, error) {
	return &api.UntagSAMLProviderOutput{}, s.setSAML(ctx, *in.SAMLProviderArn, func(p *state.SAMLProvider) error {
		p.Tags = withoutTags(p.Tags, in.TagKeys)
		return nil
	})
}

// ListSAMLProviderTags lists tags by key.
func (s *Service) ListSAMLProviderTags(ctx context.Context, in *api.ListSAMLProviderTagsInput) (*api.ListSAMLProviderTagsOutput, error) {
	p, err := samlProvider(s.db.Snapshot(), account(ctx), *in.SAMLProviderArn)
	if err != nil {
		return nil, err
	}
	tags, more, marker, err := tagPage(ctx, s, in, p.Tags)
	return &api.ListSAMLProviderTagsOutput{Tags: tags, IsTruncated: more, Marker: marker}, err
}
