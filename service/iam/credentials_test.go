package iam_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"golang.org/x/crypto/ssh"

	"github.com/berth-run/berth/store/state"
)

// A pair is a certificate with its key.
type pair struct {
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
	pem, text string // of the certificate, of the key
}

// newPair makes a certificate, signed by the issuer or by itself.
func newPair(t *testing.T, name string, issuer *pair) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: issuer == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	parent, signer := tmpl, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	p := pair{key: key}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	p.text = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}))
	return p
}

func TestServerCertificate(t *testing.T) {
	w := newWorld(t)
	ca := newPair(t, "ca", nil)
	leaf, stranger := newPair(t, "leaf", &ca), newPair(t, "stranger", nil)
	upload := func(name, body, key, chain string) (*sdk.UploadServerCertificateOutput, error) {
		in := &sdk.UploadServerCertificateInput{ServerCertificateName: &name, Path: new("/tls/"), CertificateBody: &body, PrivateKey: &key, Tags: []types.Tag{{Key: new("a"), Value: new("b")}}}
		if chain != "" {
			in.CertificateChain = &chain
		}
		return w.UploadServerCertificate(w.ctx, in)
	}
	refused(t, "MalformedCertificate", "Unable to parse certificate")(upload("x", "nonsense", leaf.text, ""))
	refused(t, "MalformedCertificate", "Unable to parse key")(upload("x", leaf.pem, "nonsense", ""))
	refused(t, "KeyPairMismatch", "")(upload("x", leaf.pem, stranger.text, ""))
	refused(t, "MalformedCertificate", "chain")(upload("x", leaf.pem, leaf.text, stranger.pem))
	made, err := upload("web", leaf.pem, leaf.text, ca.pem)
	if err != nil {
		t.Fatal(err)
	}
	m := made.ServerCertificateMetadata
	if *m.Arn != "arn:aws:iam::000000000000:server-certificate/tls/web" || !strings.HasPrefix(*m.ServerCertificateId, "ASCA") || !m.Expiration.Equal(leaf.cert.NotAfter) || len(made.Tags) != 1 {
		t.Errorf("made %+v", m)
	}
	refused(t, "EntityAlreadyExists", "The Server Certificate with name WEB already exists.")(upload("WEB", leaf.pem, leaf.text, ""))
	must(t)(w.UpdateServerCertificate(w.ctx, &sdk.UpdateServerCertificateInput{ServerCertificateName: new("web"), NewServerCertificateName: new("site"), NewPath: new("/")}))
	refused(t, "NoSuchEntity", "The Server Certificate with name web cannot be found.")(w.GetServerCertificate(w.ctx, &sdk.GetServerCertificateInput{ServerCertificateName: new("web")}))
	got, err := w.GetServerCertificate(w.ctx, &sdk.GetServerCertificateInput{ServerCertificateName: new("site")})
	if err != nil {
		t.Fatal(err)
	}
	if c := got.ServerCertificate; *c.CertificateBody != leaf.pem || *c.CertificateChain != ca.pem || *c.ServerCertificateMetadata.Arn != "arn:aws:iam::000000000000:server-certificate/site" {
		t.Errorf("got %+v", c)
	}
	must(t)(w.TagServerCertificate(w.ctx, &sdk.TagServerCertificateInput{ServerCertificateName: new("site"), Tags: []types.Tag{{Key: new("c"), Value: new("d")}}}))
	must(t)(w.UntagServerCertificate(w.ctx, &sdk.UntagServerCertificateInput{ServerCertificateName: new("site"), TagKeys: []string{"A"}}))
	tags, err := w.ListServerCertificateTags(w.ctx, &sdk.ListServerCertificateTagsInput{ServerCertificateName: new("site")})
	if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "c" {
		t.Errorf("tags %+v %v", tags, err)
	}
	list, err := w.ListServerCertificates(w.ctx, &sdk.ListServerCertificatesInput{PathPrefix: new("/tls/")})
	if err != nil || len(list.ServerCertificateMetadataList) != 0 {
		t.Errorf("list %+v %v", list, err)
	}
	w.quota("iam/server-certificates", 1)
	refused(t, "LimitExceeded", "Cannot exceed quota for ServerCertificatesPerAccount: 1")(upload("more", leaf.pem, leaf.text, ""))
	must(t)(w.DeleteServerCertificate(w.ctx, &sdk.DeleteServerCertificateInput{ServerCertificateName: new("site")}))
}

func TestSigningCertificate(t *testing.T) {
	w := newWorld(t)
	w.user("bob", "")
	w.user("ann", "")
	one, two, three := newPair(t, "1", nil), newPair(t, "2", nil), newPair(t, "3", nil)
	upload := func(user, body string) (*sdk.UploadSigningCertificateOutput, error) {
		return w.UploadSigningCertificate(w.ctx, &sdk.UploadSigningCertificateInput{UserName: &user, CertificateBody: &body})
	}
	refused(t, "MalformedCertificate", "")(upload("bob", "nonsense"))
	made, err := upload("bob", one.pem)
	if err != nil {
		t.Fatal(err)
	}
	id := made.Certificate.CertificateId
	refused(t, "DuplicateCertificate", "")(upload("ann", one.pem))
	must(t)(upload("bob", two.pem))
	refused(t, "LimitExceeded", "Cannot exceed quota for CertificatesPerUser: 2")(upload("bob", three.pem))
	must(t)(w.UpdateSigningCertificate(w.ctx, &sdk.UpdateSigningCertificateInput{UserName: new("bob"), CertificateId: id, Status: types.StatusTypeInactive}))
	refused(t, "NoSuchEntity", "cannot be found.")(w.DeleteSigningCertificate(w.ctx, &sdk.DeleteSigningCertificateInput{UserName: new("ann"), CertificateId: id}))
	list, err := w.ListSigningCertificates(w.ctx, &sdk.ListSigningCertificatesInput{UserName: new("bob")})
	if err != nil || len(list.Certificates) != 2 {
		t.Fatalf("list %+v %v", list, err)
	}
	for _, c := range list.Certificates {
		if off := *c.CertificateId == *id; off != (c.Status == types.StatusTypeInactive) {
			t.Errorf("%s is %s", *c.CertificateId, c.Status)
		}
	}
	refused(t, "DeleteConflict", "must delete signing certificates first.")(w.deleteUserWithoutKeys("bob"))
	must(t)(w.DeleteSigningCertificate(w.ctx, &sdk.DeleteSigningCertificateInput{UserName: new("bob"), CertificateId: id}))
}

func TestSSHPublicKey(t *testing.T) {
	w := newWorld(t)
	w.user("bob", "")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	asPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	upload := func(body string) (*sdk.UploadSSHPublicKeyOutput, error) {
		return w.UploadSSHPublicKey(w.ctx, &sdk.UploadSSHPublicKeyInput{UserName: new("bob"), SSHPublicKeyBody: &body})
	}
	refused(t, "UnrecognizedPublicKeyEncoding", "")(upload("nonsense"))
	refused(t, "InvalidPublicKey", "")(upload("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"))
	p := newPair(t, "x", nil)
	elliptic, err := ssh.NewPublicKey(&p.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "InvalidPublicKey", "RSA")(upload(string(ssh.MarshalAuthorizedKey(elliptic))))
	made, err := upload(line + " bob@laptop")
	if err != nil {
		t.Fatal(err)
	}
	k := made.SSHPublicKey
	if *k.Fingerprint != ssh.FingerprintLegacyMD5(public) || *k.SSHPublicKeyBody != line+" bob@laptop" || !strings.HasPrefix(*k.SSHPublicKeyId, "APKA") || len(*k.SSHPublicKeyId) != 20 {
		t.Errorf("made %+v", k)
	}
	refused(t, "DuplicateSSHPublicKey", "")(upload(asPEM))
	got, err := w.GetSSHPublicKey(w.ctx, &sdk.GetSSHPublicKeyInput{UserName: new("bob"), SSHPublicKeyId: k.SSHPublicKeyId, Encoding: types.EncodingTypePem})
	if err != nil || *got.SSHPublicKey.SSHPublicKeyBody != asPEM {
		t.Errorf("as PEM %+v %v", got, err)
	}
	must(t)(w.UpdateSSHPublicKey(w.ctx, &sdk.UpdateSSHPublicKeyInput{UserName: new("bob"), SSHPublicKeyId: k.SSHPublicKeyId, Status: types.StatusTypeInactive}))
	list, err := w.ListSSHPublicKeys(w.ctx, &sdk.ListSSHPublicKeysInput{UserName: new("bob")})
	if err != nil || len(list.SSHPublicKeys) != 1 || list.SSHPublicKeys[0].Status != types.StatusTypeInactive {
		t.Errorf("list %+v %v", list, err)
	}
	refused(t, "DeleteConflict", "Cannot delete entity, must remove referenced objects first.")(w.deleteUserWithoutKeys("bob"))
	must(t)(w.DeleteSSHPublicKey(w.ctx, &sdk.DeleteSSHPublicKeyInput{UserName: new("bob"), SSHPublicKeyId: k.SSHPublicKeyId}))
	refused(t, "NoSuchEntity", "The Public Key with id")(w.DeleteSSHPublicKey(w.ctx, &sdk.DeleteSSHPublicKeyInput{UserName: new("bob"), SSHPublicKeyId: k.SSHPublicKeyId}))
}

func TestServiceSpecificCredential(t *testing.T) {
	w := newWorld(t)
	w.user("bob", "")
	create := func(service string, days *int32) (*sdk.CreateServiceSpecificCredentialOutput, error) {
		return w.CreateServiceSpecificCredential(w.ctx, &sdk.CreateServiceSpecificCredentialInput{UserName: new("bob"), ServiceName: &service, CredentialAgeDays: days})
	}
	refused(t, "NotSupportedService", "No such service ecs.amazonaws.com is supported")(create("ecs.amazonaws.com", nil))
	one, err := create("codecommit.amazonaws.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	two, err := create("codecommit.amazonaws.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := one.ServiceSpecificCredential
	if *c.ServiceUserName != "bob-at-000000000000" || *two.ServiceSpecificCredential.ServiceUserName != "bob+1-at-000000000000" || len(*c.ServicePassword) < 40 || !strings.HasPrefix(*c.ServiceSpecificCredentialId, "ACCA") {
		t.Errorf("made %+v, %s", c, *two.ServiceSpecificCredential.ServiceUserName)
	}
	refused(t, "LimitExceeded", "")(create("codecommit.amazonaws.com", nil))
	refused(t, "InvalidInput", "CredentialAgeDays")(create("cassandra.amazonaws.com", new(int32(1))))
	key, err := create("bedrock.amazonaws.com", new(int32(1)))
	if err != nil || key.ServiceSpecificCredential.ServiceCredentialSecret == nil || key.ServiceSpecificCredential.ExpirationDate == nil || key.ServiceSpecificCredential.ServicePassword != nil {
		t.Errorf("key %+v %v", key, err)
	}
	again, err := w.ResetServiceSpecificCredential(w.ctx, &sdk.ResetServiceSpecificCredentialInput{UserName: new("bob"), ServiceSpecificCredentialId: c.ServiceSpecificCredentialId})
	if err != nil || *again.ServiceSpecificCredential.ServicePassword == *c.ServicePassword {
		t.Errorf("reset %+v %v", again, err)
	}
	for row := range state.ServiceCredentials.All(w.db.Snapshot()) {
		if text, _ := json.Marshal(row); strings.Contains(string(text), *again.ServiceSpecificCredential.ServicePassword) {
			t.Errorf("the secret is kept: %s", text)
		}
	}
	must(t)(w.UpdateServiceSpecificCredential(w.ctx, &sdk.UpdateServiceSpecificCredentialInput{UserName: new("bob"), ServiceSpecificCredentialId: c.ServiceSpecificCredentialId, Status: types.StatusTypeInactive}))
	w.pass(25 * time.Hour)
	list, err := w.ListServiceSpecificCredentials(w.ctx, &sdk.ListServiceSpecificCredentialsInput{AllUsers: new(true)})
	if err != nil || len(list.ServiceSpecificCredentials) != 3 {
		t.Fatalf("list %+v %v", list, err)
	}
	for _, v := range list.ServiceSpecificCredentials {
		want := types.StatusTypeActive
		switch *v.ServiceSpecificCredentialId {
		case *c.ServiceSpecificCredentialId:
			want = types.StatusTypeInactive
		case *key.ServiceSpecificCredential.ServiceSpecificCredentialId:
			want = "Expired"
		}
		if v.Status != want {
			t.Errorf("%s is %s, want %s", *v.ServiceName, v.Status, want)
		}
	}
	refused(t, "DeleteConflict", "must remove referenced objects first.")(w.deleteUserWithoutKeys("bob"))
	for _, v := range list.ServiceSpecificCredentials {
		must(t)(w.DeleteServiceSpecificCredential(w.ctx, &sdk.DeleteServiceSpecificCredentialInput{UserName: new("bob"), ServiceSpecificCredentialId: v.ServiceSpecificCredentialId}))
	}
	must(t)(w.deleteUserWithoutKeys("bob"))
}
