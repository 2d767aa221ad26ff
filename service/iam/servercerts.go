package iam

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strconv"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func serverCertificate(r store.Reader, account, name string) (*state.ServerCertificate, error) {
	c, ok := state.ServerCertificates.Get(r, state.IAMKey(account, name))
	if !ok {
		return nil, noSuch("The Server Certificate with name %s cannot be found.", name)
	}
	return c, nil
}

func viewServerCertificate(c *state.ServerCertificate) *api.ServerCertificateMetadata {
	return &api.ServerCertificateMetadata{Path: &c.Path, ServerCertificateName: &c.Name, ServerCertificateId: &c.ID,
		Arn: new(c.ARN()), UploadDate: &c.UploadedAt, Expiration: &c.Expires}
}

// certificates reads PEM that holds certificates and nothing else.
func certificates(text string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	rest := []byte(strings.TrimSpace(text))
	for len(rest) > 0 {
		if !strings.HasPrefix(string(rest), "-----BEGIN CERTIFICATE-----") {
			return nil, errors.New("not a certificate")
		}
		block, more := pem.Decode(rest)
		if block == nil {
			return nil, errors.New("not PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		rest = []byte(strings.TrimSpace(string(more)))
	}
	return all, nil
}

// privateKey reads a key in any of the forms that tools write.
func privateKey(der []byte) (crypto.PrivateKey, error) {
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	return x509.ParsePKCS8PrivateKey(der)
}

// belongs reports whether a key is that of a certificate.
func belongs(key crypto.PrivateKey, c *x509.Certificate) bool {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return k.PublicKey.Equal(c.PublicKey)
	case *ecdsa.PrivateKey:
		return k.PublicKey.Equal(c.PublicKey)
	}
	return false
}

func malformedCertificate(text string) error {
	return &api.MalformedCertificateException{Message: text}
}

// checkServerCertificate checks that certificate, key and chain belong together.
func checkServerCertificate(body, key, chain string) (*x509.Certificate, error) {
	own, err := certificates(body)
	if err != nil || len(own) == 0 {
		return nil, malformedCertificate("Unable to parse certificate. Please ensure the certificate is in PEM format.")
	}
	if len(own) > 1 {
		return nil, malformedCertificate("Certificate body holds more than one certificate. Put the others into the certificate chain.")
	}
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		return nil, malformedCertificate("Unable to parse key. Please ensure the key is in PEM format.")
	}
	if strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") || block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, malformedCertificate("The private key must not be encrypted.")
	}
	k, err := privateKey(block.Bytes)
	if err != nil {
		return nil, malformedCertificate("Unable to parse key. Please ensure the key is in PEM format.")
	}
	if !belongs(k, own[0]) {
		return nil, &api.KeyPairMismatchException{Message: "Public key in certificate and private key do not match."}
	}
	if chain == "" {
		return own[0], nil
	}
	issuers, err := certificates(chain)
	if err != nil || len(issuers) == 0 {
		return nil, malformedCertificate("Unable to parse certificate chain. Please ensure the certificate chain is in PEM format.")
	}
	for i, c := range append(own, issuers...)[:len(issuers)] {
		if c.CheckSignatureFrom(issuers[i]) != nil {
			return nil, malformedCertificate("Unable to validate certificate chain. The certificate chain must start with the immediate signing certificate, " +
				"followed by any intermediaries in order. The index within the chain of the invalid certificate is: " + strconv.Itoa(i))
		}
	}
	return own[0], nil
}

// UploadServerCertificate keeps a certificate and its key for listeners.
func (s *Service) UploadServerCertificate(ctx context.Context, in *api.UploadServerCertificateInput) (*api.UploadServerCertificateOutput, error) {
	leaf, err := checkServerCertificate(*in.CertificateBody, *in.PrivateKey, wire.Value(in.CertificateChain))
	if err != nil {
		return nil, err
	}
	acct := account(ctx)
	c := &state.ServerCertificate{Account: acct, Path: pathOf(in.Path), Name: *in.ServerCertificateName, ID: auth.NewID(auth.PrefixServerCertificate, acct),
		Body: *in.CertificateBody, Chain: wire.Value(in.CertificateChain), Key: *in.PrivateKey, UploadedAt: s.now(), Expires: leaf.NotAfter.UTC()}
	if c.Tags, err = newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	err = s.update(ctx, func(tx *store.Tx) error {
		if _, err := serverCertificate(tx, acct, c.Name); err == nil {
			return exists("The Server Certificate with name %s already exists.", c.Name)
		}
		if err := full(tx, acct, "ServerCertificatesPerAccount", "server-certificates", count(tx, state.ServerCertificates, acct)); err != nil {
			return err
		}
		state.ServerCertificates.Put(tx, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.UploadServerCertificateOutput{ServerCertificateMetadata: viewServerCertificate(c), Tags: viewTags(c.Tags)}, nil
}

// GetServerCertificate shows a certificate, never its key.
func (s *Service) GetServerCertificate(ctx context.Context, in *api.GetServerCertificateInput) (*api.GetServerCertificateOutput, error) {
	c, err := serverCertificate(s.db.Snapshot(), account(ctx), *in.ServerCertificateName)
	if err != nil {
		return nil, err
	}
	return &api.GetServerCertificateOutput{ServerCertificate: &api.ServerCertificate{ServerCertificateMetadata: viewServerCertificate(c),
		CertificateBody: &c.Body, CertificateChain: optional(c.Chain), Tags: viewTags(c.Tags)}}, nil
}

// ListServerCertificates lists the account's certificates by name.
func (s *Service) ListServerCertificates(ctx context.Context, in *api.ListServerCertificatesInput) (*api.ListServerCertificatesOutput, error) {
	var all []*state.ServerCertificate
	for c := range state.ServerCertificates.Prefix(s.db.Snapshot(), account(ctx)+"/") {
		if hasPath(c.Path, in.PathPrefix) {
			all = append(all, c)
		}
	}
	all, more, marker, err := cut(ctx, s, in, all, func(c *state.ServerCertificate) string { return strings.ToLower(c.Name) })
	if err != nil {
		return nil, err
	}
	out := &api.ListServerCertificatesOutput{IsTruncated: more, Marker: marker, ServerCertificateMetadataList: []api.ServerCertificateMetadata{}}
	for _, c := range all {
		out.ServerCertificateMetadataList = append(out.ServerCertificateMetadataList, *viewServerCertificate(c))
	}
	return out, nil
}

// setServerCertificate changes a copy of a certificate, which may move by that.
func (s *Service) setServerCertificate(ctx context.Context, name string, change func(*store.Tx, *state.ServerCertificate) error) error {
	return s.update(ctx, func(tx *store.Tx) error {
		old, err := serverCertificate(tx, account(ctx), name)
		if err != nil {
			return err
		}
		next := *old
		if err := change(tx, &next); err != nil {
			return err
		}
		state.ServerCertificates.Delete(tx, state.IAMKey(old.Account, old.Name))
		state.ServerCertificates.Put(tx, &next)
		return nil
	})
}

// UpdateServerCertificate renames or moves a certificate.
func (s *Service) UpdateServerCertificate(ctx context.Context, in *api.UpdateServerCertificateInput) (*api.UpdateServerCertificateOutput, error) {
	return &api.UpdateServerCertificateOutput{}, s.setServerCertificate(ctx, *in.ServerCertificateName, func(tx *store.Tx, c *state.ServerCertificate) error {
		if in.NewPath != nil {
			c.Path = *in.NewPath
		}
		if in.NewServerCertificateName == nil {
			return nil
		}
		if other, err := serverCertificate(tx, c.Account, *in.NewServerCertificateName); err == nil && other.ID != c.ID {
			return exists("The Server Certificate with name %s already exists.", *in.NewServerCertificateName)
		}
		c.Name = *in.NewServerCertificateName
		return nil
	})
}

// DeleteServerCertificate deletes a certificate.
func (s *Service) DeleteServerCertificate(ctx context.Context, in *api.DeleteServerCertificateInput) (*api.DeleteServerCertificateOutput, error) {
	return &api.DeleteServerCertificateOutput{}, s.update(ctx, func(tx *store.Tx) error {
		c, err := serverCertificate(tx, account(ctx), *in.ServerCertificateName)
		if err != nil {
			return err
		}
		state.ServerCertificates.Delete(tx, state.IAMKey(c.Account, c.Name))
		return nil
	})
}

// TagServerCertificate adds tags.
func (s *Service) TagServerCertificate(ctx context.Context, in *api.TagServerCertificateInput) (*api.TagServerCertificateOutput, error) {
	return &api.TagServerCertificateOutput{}, s.setServerCertificate(ctx, *in.ServerCertificateName, func(_ *store.Tx, c *state.ServerCertificate) (err error) {
		c.Tags, err = newTags(c.Tags, in.Tags)
		return err
	})
}

// UntagServerCertificate removes tags.
func (s *Service) UntagServerCertificate(ctx context.Context, in *api.UntagServerCertificateInput) (*api.UntagServerCertificateOutput, error) {
	return &api.UntagServerCertificateOutput{}, s.setServerCertificate(ctx, *in.ServerCertificateName, func(_ *store.Tx, c *state.ServerCertificate) error {
		c.Tags = withoutTags(c.Tags, in.TagKeys)
		return nil
	})
}

// ListServerCertificateTags lists tags by key.
func (s *Service) ListServerCertificateTags(ctx context.Context, in *api.ListServerCertificateTagsInput) (*api.ListServerCertificateTagsOutput, error) {
	c, err := serverCertificate(s.db.Snapshot(), account(ctx), *in.ServerCertificateName)
	if err != nil {
		return nil, err
	}
	tags, more, marker, err := tagPage(ctx, s, in, c.Tags)
	return &api.ListServerCertificateTagsOutput{Tags: tags, IsTruncated: more, Marker: marker}, err
}
