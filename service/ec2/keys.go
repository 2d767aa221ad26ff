package ec2

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func noKey(name string) error {
	return bad("InvalidKeyPair.NotFound", "The key pair '%s' does not exist", name)
}

func keyName(name *string) (string, error) {
	n := wire.Value(name)
	switch {
	case n == "":
		return "", bad("MissingParameter", "The request must contain the parameter KeyName")
	case len(n) > 255 || strings.ContainsFunc(n, func(c rune) bool { return c < ' ' || c > '~' }) || strings.TrimSpace(n) != n:
		return "", bad("InvalidParameterValue", "Value (%s) for parameter KeyName is invalid. Up to 255 ASCII characters are allowed, none of them a leading or trailing space.", n)
	}
	return n, nil
}

// CreateKeyPair makes a key pair. The private key is in the answer and nowhere else.
func (e *EC2) CreateKeyPair(ctx context.Context, in *api.CreateKeyPairInput) (*api.CreateKeyPairOutput, error) {
	name, err := keyName(in.KeyName)
	if err != nil {
		return nil, err
	}
	tags, err := tagsFor("key-pair", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	// Most calls with a name that is taken need not make a key first.
	if _, taken := state.KeyPairs.Get(e.DB.Snapshot(), e.Account(ctx)+"/"+name); taken {
		return nil, keyTaken(name)
	}
	made, err := generate(in.KeyType, in.KeyFormat, name)
	if err != nil {
		return nil, err
	}
	k, err := e.putKey(ctx, name, made, tags)
	if err != nil {
		return nil, err
	}
	return &api.CreateKeyPairOutput{KeyName: new(name), KeyPairId: new(k.ID), KeyFingerprint: new(k.Fingerprint), KeyMaterial: new(made.private), Tags: tagsView(tags)}, nil
}

// A keyPair is what one of both ways to a key pair gives.
type keyPair struct{ kind, public, fingerprint, private string }

func (e *EC2) putKey(ctx context.Context, name string, made keyPair, tags []state.Tag) (*state.KeyPair, error) {
	k := &state.KeyPair{ID: e.id("key"), Account: e.Account(ctx), Name: name, Type: made.kind, Fingerprint: made.fingerprint, Public: made.public, Tags: tags, CreatedAt: e.Now()}
	return k, e.DB.Update(ctx, func(tx *store.Tx) error {
		if _, taken := state.KeyPairs.Get(tx, k.Account+"/"+name); taken {
			return keyTaken(name)
		}
		n := 0
		for range state.KeyPairs.By(tx, "account", k.Account) {
			n++
		}
		if n >= state.Limit(tx, k.Account, "ec2/key-pairs") {
			return bad("KeyPairLimitExceeded", "The maximum number of key pairs has been reached.")
		}
		state.KeyPairs.Put(tx, k)
		return nil
	})
}

func keyTaken(name string) error {
	return bad("InvalidKeyPair.Duplicate", "The keypair already exists: '%s'", name)
}

// generate makes a key of the type in the format.
func generate(kind api.KeyType, format api.KeyFormat, name string) (k keyPair, err error) {
	var signer crypto.Signer
	if k.kind = string(kind); kind == "ed25519" {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return k, fmt.Errorf("make key: %w", err)
		}
		signer = key
	} else {
		k.kind = "rsa"
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return k, fmt.Errorf("make key: %w", err)
		}
		signer = key
	}
	public, err := ssh.NewPublicKey(signer.Public())
	if err != nil {
		return k, fmt.Errorf("make key: %w", err)
	}
	k.public = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))) + " " + name
	if k.kind == "ed25519" {
		sum := sha256.Sum256(public.Marshal())
		k.fingerprint = base64.StdEncoding.EncodeToString(sum[:])
	} else {
		der, err := x509.MarshalPKCS8PrivateKey(signer)
		if err != nil {
			return k, fmt.Errorf("make key: %w", err)
		}
		sum := sha1.Sum(der)
		k.fingerprint = colons(sum[:])
	}
	switch key := signer.(type) {
	case *rsa.PrivateKey:
		k.private = strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	case ed25519.PrivateKey:
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			return k, fmt.Errorf("make key: %w", err)
		}
		k.private = string(pem.EncodeToMemory(block))
	}
	if format == "ppk" {
		k.private = putty(signer, public, name)
	}
	return k, nil
}

// putty writes a private key as PuTTY does, version 2 of its format, unencrypted.
func putty(key crypto.Signer, public ssh.PublicKey, comment string) string {
	var private bytes.Buffer
	switch key := key.(type) {
	case *rsa.PrivateKey:
		for _, n := range []*big.Int{key.D, key.Primes[0], key.Primes[1], new(big.Int).ModInverse(key.Primes[1], key.Primes[0])} {
			b := n.Bytes()
			if len(b) > 0 && b[0] >= 0x80 {
				b = append([]byte{0}, b...)
			}
			text(&private, b)
		}
	case ed25519.PrivateKey:
		text(&private, bytes.TrimRight(key.Seed(), "\x00")) // a number, little end first
	}
	// The key of the checksum is all that keeps it from being a plain digest.
	secret := sha1.Sum([]byte("putty-private-key-file-mac-key"))
	mac := hmac.New(sha1.New, secret[:])
	var signed bytes.Buffer
	for _, part := range [][]byte{[]byte(public.Type()), []byte("none"), []byte(comment), public.Marshal(), private.Bytes()} {
		text(&signed, part)
	}
	mac.Write(signed.Bytes())
	var out strings.Builder
	fmt.Fprintf(&out, "PuTTY-User-Key-File-2: %s\r\nEncryption: none\r\nComment: %s\r\n", public.Type(), comment)
	for _, part := range []struct {
		name string
		b    []byte
	}{{"Public", public.Marshal()}, {"Private", private.Bytes()}} {
		var lines []string
		for chunk := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(part.b)), 64) {
			lines = append(lines, string(chunk))
		}
		fmt.Fprintf(&out, "%s-Lines: %d\r\n%s\r\n", part.name, len(lines), strings.Join(lines, "\r\n"))
	}
	fmt.Fprintf(&out, "Private-MAC: %x\r\n", mac.Sum(nil))
	return out.String()
}

// text appends a string of the SSH protocol.
func text(w *bytes.Buffer, b []byte) {
	w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
	w.Write(b)
}

func colons(sum []byte) string {
	parts := make([]string, len(sum))
	for i := range sum {
		parts[i] = hex.EncodeToString(sum[i : i+1])
	}
	return strings.Join(parts, ":")
}

// ImportKeyPair keeps a public key that was made elsewhere.
func (e *EC2) ImportKeyPair(ctx context.Context, in *api.ImportKeyPairInput) (*api.ImportKeyPairOutput, error) {
	name, err := keyName(in.KeyName)
	if err != nil {
		return nil, err
	}
	tags, err := tagsFor("key-pair", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	imported, err := parseKey(in.PublicKeyMaterial)
	if err != nil {
		return nil, err
	}
	k, err := e.putKey(ctx, name, imported, tags)
	if err != nil {
		return nil, err
	}
	return &api.ImportKeyPairOutput{KeyName: new(name), KeyPairId: new(k.ID), KeyFingerprint: new(k.Fingerprint), Tags: tagsView(tags)}, nil
}

// parseKey reads a public key: OpenSSH's line, the block of RFC 4716, or DER
// in base64.
func parseKey(material []byte) (keyPair, error) {
	wrong := bad("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
	if len(material) == 0 {
		return keyPair{}, bad("MissingParameter", "The request must contain the parameter PublicKeyMaterial")
	}
	if len(material) > 16<<10 {
		return keyPair{}, wrong
	}
	key, comment, _, _, err := ssh.ParseAuthorizedKey(material)
	if err != nil {
		var b strings.Builder
		for line := range strings.Lines(string(material)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "----") && !strings.Contains(line, ":") {
				b.WriteString(line)
			}
		}
		der, err := base64.StdEncoding.DecodeString(b.String())
		if err != nil {
			return keyPair{}, wrong
		}
		if key, err = ssh.ParsePublicKey(der); err != nil {
			any, err := x509.ParsePKIXPublicKey(der)
			if err != nil {
				return keyPair{}, wrong
			}
			if key, err = ssh.NewPublicKey(any); err != nil {
				return keyPair{}, wrong
			}
		}
	}
	public, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return keyPair{}, wrong
	}
	k := keyPair{public: strings.TrimSpace(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment)}
	switch p := public.CryptoPublicKey().(type) {
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n != 1024 && n != 2048 && n != 4096 {
			return keyPair{}, bad("InvalidKey.Format", "Key length is not supported: %d. The supported lengths are 1024, 2048 and 4096.", n)
		}
		der, err := x509.MarshalPKIXPublicKey(p)
		if err != nil {
			return keyPair{}, wrong
		}
		sum := md5.Sum(der)
		k.kind, k.fingerprint = "rsa", colons(sum[:])
	case ed25519.PublicKey:
		sum := sha256.Sum256(key.Marshal())
		k.kind, k.fingerprint = "ed25519", base64.StdEncoding.EncodeToString(sum[:])
	default:
		return keyPair{}, wrong
	}
	return k, nil
}

// DeleteKeyPair removes a key pair. Instances that were launched with it keep the key.
func (e *EC2) DeleteKeyPair(ctx context.Context, in *api.DeleteKeyPairInput) (*api.DeleteKeyPairOutput, error) {
	name, id, account := wire.Value(in.KeyName), wire.Value(in.KeyPairId), e.Account(ctx)
	if name == "" && id == "" {
		return nil, bad("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
	}
	out := &api.DeleteKeyPairOutput{}
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		*out = api.DeleteKeyPairOutput{Return: new(true)}
		for k := range state.KeyPairs.By(tx, "account", account) {
			if name != "" && k.Name == name || id != "" && k.ID == id {
				out.KeyPairId = new(k.ID)
				state.KeyPairs.Delete(tx, k.Account+"/"+k.Name)
				return nil
			}
		}
		return nil // deleting what is not there is no error, as in AWS
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DescribeKeyPairs lists key pairs.
func (e *EC2) DescribeKeyPairs(ctx context.Context, in *api.DescribeKeyPairsInput) (*api.DescribeKeyPairsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	keys := slices.Collect(state.KeyPairs.By(snap, "account", account))
	q := request{ids: slices.Clone(in.KeyPairIds), filters: in.Filters}
	for _, name := range in.KeyNames {
		i := slices.IndexFunc(keys, func(k *state.KeyPair) bool { return k.Name == name })
		if i < 0 {
			return nil, noKey(name)
		}
		q.ids = append(q.ids, keys[i].ID)
	}
	slices.SortFunc(keys, func(a, b *state.KeyPair) int { return strings.Compare(a.ID, b.ID) })
	out, _, err := list(q, kind[*state.KeyPair, api.KeyPairInfo]{
		name: "key-pairs", rows: slices.Values(keys),
		id:      func(k *state.KeyPair) string { return k.ID },
		missing: func(id string) error { return bad("InvalidKeyPair.NotFound", "The keyPair ID '%s' does not exist", id) },
		tags:    func(k *state.KeyPair) []state.Tag { return k.Tags },
		filters: filters[*state.KeyPair]{
			"key-pair-id": func(k *state.KeyPair) []string { return one(k.ID) },
			"fingerprint": func(k *state.KeyPair) []string { return one(k.Fingerprint) },
			"key-name":    func(k *state.KeyPair) []string { return one(k.Name) },
			"key-type":    func(k *state.KeyPair) []string { return one(k.Type) },
		},
		view: func(k *state.KeyPair) api.KeyPairInfo {
			out := api.KeyPairInfo{KeyPairId: new(k.ID), KeyName: new(k.Name), KeyType: api.KeyType(k.Type), KeyFingerprint: new(k.Fingerprint),
				Tags: tagsView(k.Tags), CreateTime: new(k.CreatedAt)}
			if wire.Value(in.IncludePublicKey) {
				out.PublicKey = new(k.Public)
			}
			return out
		},
	})
	return &api.DescribeKeyPairsOutput{KeyPairs: out}, err
}
