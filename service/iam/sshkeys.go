package iam

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// minRSA is the shortest RSA key that AWS takes.
const minRSA = 2048

// parseSSHKey reads an RSA key in either form, and returns it as SSH's line
// and with the fingerprint by which AWS shows it.
func parseSSHKey(text string) (line, fingerprint string, err error) {
	invalid := func(what string) error { return &api.InvalidPublicKeyException{Message: what} }
	text = strings.TrimSpace(text)
	var key ssh.PublicKey
	if strings.HasPrefix(text, "-----BEGIN ") {
		block, rest := pem.Decode([]byte(text))
		if block == nil || len(bytes.TrimSpace(rest)) > 0 {
			return "", "", invalid("The public key is malformed.")
		}
		var pub any
		if pub, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			pub, err = x509.ParsePKCS1PublicKey(block.Bytes)
		}
		if err != nil {
			return "", "", invalid("The public key is malformed.")
		}
		if key, err = ssh.NewPublicKey(pub); err != nil {
			return "", "", invalid("The public key is malformed.")
		}
	} else {
		var rest []byte
		var comment string
		var options []string
		key, comment, options, rest, err = ssh.ParseAuthorizedKey([]byte(text))
		if err != nil {
			return "", "", &api.UnrecognizedPublicKeyEncodingException{Message: "The public key encoding is not recognized. It must be SSH (ssh-rsa) or PEM."}
		}
		if len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 {
			return "", "", invalid("The public key is malformed.")
		}
		line = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
		if comment != "" {
			line += " " + comment
		}
	}
	public, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return "", "", invalid("The public key must be an RSA key.")
	}
	k, ok := public.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return "", "", invalid("The public key must be an RSA key.")
	}
	if k.N.BitLen() < minRSA {
		return "", "", invalid(fmt.Sprintf("The public key must have %d bits at least.", minRSA))
	}
	if line == "" {
		line = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	}
	sum := md5.Sum(key.Marshal())
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = fmt.Sprintf("%02x", b)
	}
	return line, strings.Join(pairs, ":"), nil
}

// maxSSHKey is how long a key's line may be in an answer.
const maxSSHKey = 16384

func sshKeys(r store.Reader, u *state.User) []*state.SSHPublicKey {
	return byKey(slices.Collect(state.SSHPublicKeys.By(r, "user", u.ID)), func(k *state.SSHPublicKey) string { return k.ID })
}

// UploadSSHPublicKey keeps a public key of a user.
func (s *Service) UploadSSHPublicKey(ctx context.Context, in *api.UploadSSHPublicKeyInput) (*api.UploadSSHPublicKeyOutput, error) {
	line, fingerprint, err := parseSSHKey(*in.SSHPublicKeyBody)
	if err != nil {
		return nil, err
	}
	if len(line) > maxSSHKey {
		return nil, &api.InvalidPublicKeyException{Message: "The public key is too long."}
	}
	acct := account(ctx)
	k := &state.SSHPublicKey{ID: auth.NewKeyID(auth.PrefixPublicKey, acct), Account: acct, Body: line, Fingerprint: fingerprint, Active: true, UploadedAt: s.now()}
	var out api.UploadSSHPublicKeyOutput
	err = s.update(ctx, func(tx *store.Tx) error {
		u, err := user(tx, acct, *in.UserName)
		if err != nil {
			return err
		}
		have := sshKeys(tx, u)
		if slices.ContainsFunc(have, func(o *state.SSHPublicKey) bool { return o.Fingerprint == fingerprint }) {
			return &api.DuplicateSSHPublicKeyException{Message: "The SSH public key is already associated with the user."}
		}
		if err := full(tx, acct, "SSHPublicKeysPerUser", "ssh-keys-per-user", len(have)); err != nil {
			return err
		}
		next := *k
		next.UserID = u.ID
		state.SSHPublicKeys.Put(tx, &next)
		out.SSHPublicKey = &api.SSHPublicKey{UserName: &u.Name, SSHPublicKeyId: &k.ID, Fingerprint: &k.Fingerprint,
			SSHPublicKeyBody: &k.Body, Status: status(k.Active), UploadDate: &k.UploadedAt}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// sshKey is one key of a user; another's is not found.
func sshKey(r store.Reader, u *state.User, id string) (*state.SSHPublicKey, error) {
	k, ok := state.SSHPublicKeys.Get(r, id)
	if !ok || k.UserID != u.ID {
		return nil, noSuch("The Public Key with id %s cannot be found.", id)
	}
	return k, nil
}

// asPEM is a key's line in the other form.
func asPEM(line string) (string, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return "", fmt.Errorf("read stored SSH key: %w", err)
	}
	public, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return "", fmt.Errorf("stored SSH key is of type %s", key.Type())
	}
	der, err := x509.MarshalPKIXPublicKey(public.CryptoPublicKey())
	if err != nil {
		return "", fmt.Errorf("encode SSH key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// GetSSHPublicKey shows a key in the form that is asked for.
func (s *Service) GetSSHPublicKey(ctx context.Context, in *api.GetSSHPublicKeyInput) (*api.GetSSHPublicKeyOutput, error) {
	snap := s.db.Snapshot()
	u, err := user(snap, account(ctx), *in.UserName)
	if err != nil {
		return nil, err
	}
	k, err := sshKey(snap, u, *in.SSHPublicKeyId)
	if err != nil {
		return nil, err
	}
	body := k.Body
	if in.Encoding == api.EncodingTypePem {
		if body, err = asPEM(body); err != nil {
			return nil, err
		}
	}
	return &api.GetSSHPublicKeyOutput{SSHPublicKey: &api.SSHPublicKey{UserName: &u.Name, SSHPublicKeyId: &k.ID, Fingerprint: &k.Fingerprint,
		SSHPublicKeyBody: &body, Status: status(k.Active), UploadDate: &k.UploadedAt}}, nil
}

// ListSSHPublicKeys lists the keys of a user.
func (s *Service) ListSSHPublicKeys(ctx context.Context, in *api.ListSSHPublicKeysInput) (*api.ListSSHPublicKeysOutput, error) {
	snap := s.db.Snapshot()
	u, err := named(ctx, snap, in.UserName)
	if err != nil {
		return nil, err
	}
	all, more, marker, err := cut(ctx, s, in, sshKeys(snap, u), func(k *state.SSHPublicKey) string { return k.ID })
	if err != nil {
		return nil, err
	}
	out := &api.ListSSHPublicKeysOutput{IsTruncated: more, Marker: marker, SSHPublicKeys: []api.SSHPublicKeyMetadata{}}
	for _, k := range all {
		out.SSHPublicKeys = append(out.SSHPublicKeys, api.SSHPublicKeyMetadata{UserName: &u.Name, SSHPublicKeyId: &k.ID, Status: status(k.Active), UploadDate: &k.UploadedAt})
	}
	return out, nil
}

// UpdateSSHPublicKey switches a key on or off.
func (s *Service) UpdateSSHPublicKey(ctx context.Context, in *api.UpdateSSHPublicKeyInput) (*api.UpdateSSHPublicKeyOutput, error) {
	active, err := switched(in.Status)
	if err != nil {
		return nil, err
	}
	return &api.UpdateSSHPublicKeyOutput{}, s.update(ctx, func(tx *store.Tx) error {
		u, err := user(tx, account(ctx), *in.UserName)
		if err != nil {
			return err
		}
		old, err := sshKey(tx, u, *in.SSHPublicKeyId)
		if err != nil {
			return err
		}
		next := *old
		next.Active = active
		state.SSHPublicKeys.Put(tx, &next)
		return nil
	})
}

// DeleteSSHPublicKey deletes a key.
func (s *Service) DeleteSSHPublicKey(ctx context.Context, in *api.DeleteSSHPublicKeyInput) (*api.DeleteSSHPublicKeyOutput, error) {
	return &api.DeleteSSHPublicKeyOutput{}, s.update(ctx, func(tx *store.Tx) error {
		u, err := user(tx, account(ctx), *in.UserName)
		if err != nil {
			return err
		}
		k, err := sshKey(tx, u, *in.SSHPublicKeyId)
		if err != nil {
			return err
		}
		state.SSHPublicKeys.Delete(tx, k.ID)
		return nil
	})
}
