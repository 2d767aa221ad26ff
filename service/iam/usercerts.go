package iam

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"slices"

	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func signingCertificates(r store.Reader, u *state.User) []*state.SigningCertificate {
	return byKey(slices.Collect(state.SigningCertificates.By(r, "user", u.ID)), func(c *state.SigningCertificate) string { return c.ID })
}

func viewSigningCertificate(u *state.User, c *state.SigningCertificate) *api.SigningCertificate {
	return &api.SigningCertificate{UserName: &u.Name, CertificateId: &c.ID, CertificateBody: &c.Body, Status: status(c.Active), UploadDate: &c.UploadedAt}
}

// UploadSigningCertificate keeps a certificate of a user.
func (s *Service) UploadSigningCertificate(ctx context.Context, in *api.UploadSigningCertificateInput) (*api.UploadSigningCertificateOutput, error) {
	all, err := certificates(*in.CertificateBody)
	if err != nil || len(all) != 1 {
		return nil, malformedCertificate("Certificate Body is malformed or invalid.")
	}
	acct, now := account(ctx), s.now()
	if now.After(all[0].NotAfter) {
		return nil, &api.InvalidCertificateException{Message: "Certificate is expired."}
	}
	sum := sha256.Sum256(all[0].Raw)
	var id [20]byte
	rand.Read(id[:])
	c := &state.SigningCertificate{ID: base32.StdEncoding.EncodeToString(id[:]), Account: acct, Body: *in.CertificateBody,
		Digest: hex.EncodeToString(sum[:]), Active: true, UploadedAt: now}
	var out api.UploadSigningCertificateOutput
	err = s.update(ctx, func(tx *store.Tx) error {
		u, err := named(ctx, tx, in.UserName)
		if err != nil {
			return err
		}
		for range state.SigningCertificates.By(tx, "digest", acct+"/"+c.Digest) {
			return &api.DuplicateCertificateException{Message: "The certificate is already associated with a user of the account."}
		}
		if err := full(tx, acct, "CertificatesPerUser", "signing-certificates-per-user", len(signingCertificates(tx, u))); err != nil {
			return err
		}
		next := *c
		next.UserID = u.ID
		state.SigningCertificates.Put(tx, &next)
		out.Certificate = viewSigningCertificate(u, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// ListSigningCertificates lists the certificates of a user.
func (s *Service) ListSigningCertificates(ctx context.Context, in *api.ListSigningCertificatesInput) (*api.ListSigningCertificatesOutput, error) {
	snap := s.db.Snapshot()
	u, err := named(ctx, snap, in.UserName)
	if err != nil {
		return nil, err
	}
	all, more, marker, err := cut(ctx, s, in, signingCertificates(snap, u), func(c *state.SigningCertificate) string { return c.ID })
	if err != nil {
		return nil, err
	}
	out := &api.ListSigningCertificatesOutput{IsTruncated: more, Marker: marker, Certificates: []api.SigningCertificate{}}
	for _, c := range all {
		out.Certificates = append(out.Certificates, *viewSigningCertificate(u, c))
	}
	return out, nil
}

// signingCertificate is one of the user meant; another's is not found.
func signingCertificate(ctx context.Context, r store.Reader, name *string, id string) (*state.SigningCertificate, error) {
	u, err := named(ctx, r, name)
	if err != nil {
		return nil, err
	}
	c, ok := state.SigningCertificates.Get(r, id)
	if !ok || c.UserID != u.ID {
		return nil, noSuch("The Certificate with id %s cannot be found.", id)
	}
	return c, nil
}

// UpdateSigningCertificate switches a certificate on or off.
func (s *Service) UpdateSigningCertificate(ctx context.Context, in *api.UpdateSigningCertificateInput) (*api.UpdateSigningCertificateOutput, error) {
	active, err := switched(in.Status)
	if err != nil {
		return nil, err
	}
	return &api.UpdateSigningCertificateOutput{}, s.update(ctx, func(tx *store.Tx) error {
		old, err := signingCertificate(ctx, tx, in.UserName, *in.CertificateId)
		if err != nil {
			return err
		}
		next := *old
		next.Active = active
		state.SigningCertificates.Put(tx, &next)
		return nil
	})
}

// DeleteSigningCertificate deletes a certificate.
func (s *Service) DeleteSigningCertificate(ctx context.Context, in *api.DeleteSigningCertificateInput) (*api.DeleteSigningCertificateOutput, error) {
	return &api.DeleteSigningCertificateOutput{}, s.update(ctx, func(tx *store.Tx) error {
		c, err := signingCertificate(ctx, tx, in.UserName, *in.CertificateId)
		if err != nil {
			return err
		}
		state.SigningCertificates.Delete(tx, c.ID)
		return nil
	})
}
