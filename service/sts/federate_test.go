package sts_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	sdk "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/beevik/etree"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A provider is an OpenID Connect provider with two keys.
type provider struct {
	*httptest.Server
	name   string // without https://
	rsa    *rsa.PrivateKey
	ec     *ecdsa.PrivateKey
	asked  atomic.Int32
	answer atomic.Pointer[http.HandlerFunc] // in place of its own
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{}
	var err error
	if p.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if p.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if h := p.answer.Load(); h != nil {
			(*h)(w, r)
			return
		}
		switch r.URL.Path {
		case "/realm/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": "https://" + p.name, "jwks_uri": p.URL + "/keys"})
		case "/keys":
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
				{Key: p.rsa.Public(), KeyID: "rsa", Algorithm: "RS256", Use: "sig"}, {Key: p.ec.Public(), KeyID: "ec"}}})
		default:
			http.NotFound(w, r)
		}
	}))
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.StartTLS()
	p.name = strings.TrimPrefix(p.URL, "https://") + "/realm"
	t.Cleanup(p.Close)
	return p
}

// sign makes a token with these claims.
func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any) *string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return &token
}

func unsigned(w *world) *sdk.Client {
	c := w.config("", "", "")
	c.Credentials = aws.AnonymousCredentials{}
	return sdk.NewFromConfig(c)
}

func TestWebIdentity(t *testing.T) {
	w := start(t)
	p := newProvider(t)
	w.roots.AddCert(p.Certificate())
	registered := &state.OIDCProvider{Account: account, URL: p.name, ClientIDs: []string{"sts.amazonaws.com", "app"}}
	w.put(func(tx *store.Tx) { state.OIDCProviders.Put(tx, registered) })
	arn := w.role(account, "r", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:ListUsers","Resource":"*","Condition":{"StringEquals":{"`+p.name+`:sub":"repo:x","aws:FederatedProvider":"`+registered.ARN()+`"}}}}`,
		trusts(`{"Federated":"`+registered.ARN()+`"}`, `["sts:AssumeRoleWithWebIdentity"]`, `{"StringLike":{"`+p.name+`:sub":"repo:*"},"StringEquals":{"`+p.name+`:aud":["app","sts.amazonaws.com"]}}`),
		trusts(`{"Federated":"`+registered.ARN()+`"}`, `["sts:TagSession","sts:SetSourceIdentity"]`, `{"StringEquals":{"aws:RequestTag/team":"a"}}`))
	now := w.now.Unix()
	good := map[string]any{"iss": "https://" + p.name, "aud": "sts.amazonaws.com", "sub": "repo:x", "iat": now, "nbf": now, "exp": now + 600, "amr": []string{"mfa"}}
	with := func(changes map[string]any) map[string]any {
		c := maps.Clone(good)
		maps.Copy(c, changes)
		for k, v := range changes {
			if v == nil {
				delete(c, k)
			}
		}
		return c
	}
	client := unsigned(w)
	assume := func(token *string) (*sdk.AssumeRoleWithWebIdentityOutput, error) {
		return client.AssumeRoleWithWebIdentity(t.Context(), &sdk.AssumeRoleWithWebIdentityInput{RoleArn: &arn, RoleSessionName: new("s1"), WebIdentityToken: token})
	}
	for _, token := range []*string{sign(t, jose.RS256, p.rsa, "rsa", good), sign(t, jose.ES256, p.ec, "ec", good), sign(t, jose.ES256, p.ec, "", with(map[string]any{"aud": []string{"y", "x"}, "azp": "app"}))} {
		out, err := assume(token)
		if err != nil {
			t.Fatal(err)
		}
		if *out.SubjectFromWebIdentityToken != "repo:x" || *out.Provider != registered.ARN() || *out.Audience == "x" || *out.AssumedRoleUser.Arn != "arn:aws:sts::000000000000:assumed-role/r/s1" {
			t.Errorf("%+v", out)
		}
		if _, err := sdkiam.NewFromConfig(w.as(out.Credentials)).ListUsers(t.Context(), nil); err != nil {
			t.Errorf("what the provider said holds for the session: %v", err)
		}
	}
	if n := p.asked.Load(); n != 2 {
		t.Errorf("the provider was asked %d times for what it said once", n)
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]any{"principal_tags": map[string]any{"team": []string{"a"}}, "transitive_tag_keys": []string{"team"}}
	for name, tc := range map[string]struct {
		token      *string
		code, text string
	}{
		"no JWT":          {new("abcd"), "InvalidIdentityToken", "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"},
		"symmetric":       {sign(t, jose.HS256, bytes.Repeat([]byte{1}, 32), "", good), "InvalidIdentityToken", "The ID Token provided is not a valid JWT."},
		"other issuer":    {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"iss": "https://x.io"})), "InvalidIdentityToken", "No OpenIDConnect provider found in your account for https://x.io"},
		"other key":       {sign(t, jose.RS256, stranger, "rsa", good), "InvalidIdentityToken", "no key of the provider made this signature"},
		"unknown key":     {sign(t, jose.RS256, p.rsa, "new", good), "InvalidIdentityToken", "no key of the provider made this signature"},
		"other algorithm": {sign(t, jose.RS512, p.rsa, "rsa", good), "InvalidIdentityToken", "no key of the provider made this signature"},
		"audience":        {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"aud": "x"})), "InvalidIdentityToken", "Incorrect token audience"},
		"azp":             {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"azp": "x"})), "InvalidIdentityToken", "Incorrect token audience"},
		"expired":         {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"exp": now})), "ExpiredTokenException", "Token expired: current date/time "},
		"early":           {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"nbf": now + 600})), "InvalidIdentityToken", "Token is not yet valid"},
		"no subject":      {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"sub": nil})), "InvalidIdentityToken", "Missing a required claim: sub"},
		"no expiry":       {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"exp": nil})), "InvalidIdentityToken", "Missing a required claim: exp"},
		"no issuance":     {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"iat": nil})), "InvalidIdentityToken", "Missing a required claim: iat"},
		"untrusted":       {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"sub": "other"})), "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		"other tag": {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"https://aws.amazon.com/tags": map[string]any{"principal_tags": map[string]any{"team": []string{"b"}}}})),
			"AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		"tags":            {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"https://aws.amazon.com/tags": tags})), "", ""},
		"source identity": {sign(t, jose.RS256, p.rsa, "rsa", with(map[string]any{"https://aws.amazon.com/tags": tags, "https://aws.amazon.com/source_identity": "ann"})), "", ""},
	} {
		out, err := assume(tc.token)
		if tc.code == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if name == "source identity" && *out.SourceIdentity != "ann" {
				t.Errorf("%s: %+v", name, out)
			}
			continue
		}
		t.Run(name, func(t *testing.T) { want(t, err, tc.code, tc.text) })
	}
	_, err = client.AssumeRoleWithWebIdentity(t.Context(), &sdk.AssumeRoleWithWebIdentityInput{RoleArn: &arn, RoleSessionName: new("s1"), WebIdentityToken: new("abcd"), ProviderId: new("www.amazon.com")})
	want(t, err, "ValidationError", "ProviderId www.amazon.com is not supported by Berth")
	_, err = client.AssumeRoleWithWebIdentity(t.Context(), &sdk.AssumeRoleWithWebIdentityInput{RoleArn: new("arn:aws:iam::000000000000:role/none"), RoleSessionName: new("s1"), WebIdentityToken: sign(t, jose.RS256, p.rsa, "rsa", good)})
	want(t, err, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
}

// What a provider answers badly, and whose certificate nobody vouches for.
func TestProvidersThatFail(t *testing.T) {
	w := start(t)
	p := newProvider(t)
	arn := w.role(account, "r", "", trusts(`{"Federated":"`+state.OIDCProviderARN(account, p.name)+`"}`, `"sts:AssumeRoleWithWebIdentity"`, ""))
	now := w.now.Unix()
	token := sign(t, jose.RS256, p.rsa, "rsa", map[string]any{"iss": "https://" + p.name, "aud": "app", "sub": "x", "iat": now, "exp": now + 600})
	client := unsigned(w)
	assume := func() error {
		_, err := client.AssumeRoleWithWebIdentity(t.Context(), &sdk.AssumeRoleWithWebIdentityInput{RoleArn: &arn, RoleSessionName: new("s1"), WebIdentityToken: token})
		return err
	}
	register := func(prints ...string) {
		w.put(func(tx *store.Tx) {
			state.OIDCProviders.Put(tx, &state.OIDCProvider{Account: account, URL: p.name, ClientIDs: []string{"app"}, Thumbprints: prints})
		})
	}
	register(strings.Repeat("0", 40))
	want(t, assume(), "InvalidIdentityToken", "OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint")
	sum := sha1.Sum(p.Certificate().Raw)
	register(hex.EncodeToString(sum[:]))
	const noKeys = "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements"
	for _, tc := range []struct {
		answer     http.HandlerFunc
		code, text string
	}{
		{func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, "InvalidIdentityToken", noKeys},
		{func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys", http.StatusFound) }, "InvalidIdentityToken", noKeys},
		{func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"issuer":"https://x.io"}`) }, "InvalidIdentityToken", noKeys},
		{func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"issuer":"https://`+p.name+`","jwks_uri":"http://x.io"}`)
		}, "InvalidIdentityToken", noKeys},
		{func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte(" "), 2<<20)) }, "InvalidIdentityToken", noKeys},
		{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "IDPCommunicationError", "could not be reached"},
		{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "IDPCommunicationError", "could not be reached"},
	} {
		w.now = w.now.Add(time.Second)
		p.answer.Store(&tc.answer)
		want(t, assume(), tc.code, tc.text)
	}
	// Anybody can ask; the provider is not asked by each of them.
	p.asked.Store(0)
	missing := http.HandlerFunc(http.NotFound)
	p.answer.Store(&missing)
	w.now = w.now.Add(time.Second)
	for range 5 {
		want(t, assume(), "InvalidIdentityToken", noKeys)
	}
	if n := p.asked.Load(); n != 1 {
		t.Errorf("the provider was asked %d times in one moment", n)
	}
	w.now = w.now.Add(time.Second)
	p.answer.Store(nil)
	if err := assume(); err != nil {
		t.Errorf("with the right thumbprint: %v", err)
	}
}

// A SAML provider signs with a certificate of its own.
type samlProvider struct {
	key  *rsa.PrivateKey
	cert []byte
}

func newSAMLProvider(t testing.TB, w *world) *samlProvider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "idp"}, NotBefore: w.now.Add(-24 * time.Hour), NotAfter: w.now.Add(24 * time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &samlProvider{key, cert}
}

func (p *samlProvider) metadata() string {
	return `<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="https://idp.example.com"><IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><KeyDescriptor use="signing"><KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data><X509Certificate>` +
		base64.StdEncoding.EncodeToString(p.cert) + `</X509Certificate></X509Data></KeyInfo></KeyDescriptor></IDPSSODescriptor></EntityDescriptor>`
}

// response signs an assertion, or the response around it, as it is written in text.
func (p *samlProvider) response(t testing.TB, text string, whole bool) *string {
	t.Helper()
	signing, err := dsig.NewSigningContext(crypto.Signer(p.key), [][]byte{p.cert})
	if err != nil {
		t.Fatal(err)
	}
	signing.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	doc := etree.NewDocument()
	if err := doc.ReadFromString(text); err != nil {
		t.Fatal(err)
	}
	if whole {
		signed, err := signing.SignEnveloped(doc.Root())
		if err != nil {
			t.Fatal(err)
		}
		doc.SetRoot(signed)
	} else {
		el := doc.Root().FindElement("Assertion")
		doc.Root().RemoveChild(el)
		signed, err := signing.SignEnveloped(el)
		if err != nil {
			t.Fatal(err)
		}
		doc.Root().AddChild(signed)
	}
	out, err := doc.WriteToBytes()
	if err != nil {
		t.Fatal(err)
	}
	return new(base64.StdEncoding.EncodeToString(out))
}

// samlText is a response; %NAME% is filled in.
const samlText = `<p:Response xmlns:p="urn:oasis:names:tc:SAML:2.0:protocol" ID="_r" IssueInstant="%NOW%" Version="2.0"><p:Status><p:StatusCode Value="%STATUS%"/></p:Status>` +
	`<Assertion xmlns="urn:oasis:names:tc:SAML:2.0:assertion" ID="_a" IssueInstant="%NOW%" Version="2.0"><Issuer>%ISSUER%</Issuer>` +
	`<Subject><NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">ann</NameID><SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><SubjectConfirmationData NotOnOrAfter="%LATER%" Recipient="%RECIPIENT%"/></SubjectConfirmation></Subject>` +
	`<Conditions NotBefore="%NOW%" NotOnOrAfter="%LATER%"><AudienceRestriction><Audience>urn:amazon:webservices</Audience></AudienceRestriction></Conditions>` +
	`<AuthnStatement AuthnInstant="%NOW%" SessionNotOnOrAfter="%LATER%"/>` +
	`<AttributeStatement><Attribute Name="https://aws.amazon.com/SAML/Attributes/Role"><AttributeValue>x,y</AttributeValue><AttributeValue>%ROLES%</AttributeValue></Attribute>` +
	`<Attribute Name="https://aws.amazon.com/SAML/Attributes/RoleSessionName"><AttributeValue>%NAME%</AttributeValue></Attribute>` +
	`<Attribute Name="https://aws.amazon.com/SAML/Attributes/PrincipalTag:team"><AttributeValue>a</AttributeValue></Attribute></AttributeStatement></Assertion></p:Response>`

func TestSAML(t *testing.T) {
	w := start(t)
	p := newSAMLProvider(t, w)
	registered := &state.SAMLProvider{Account: account, Name: "idp", Issuer: "https://idp.example.com", Metadata: p.metadata()}
	w.put(func(tx *store.Tx) { state.SAMLProviders.Put(tx, registered) })
	arn := w.role(account, "r", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:ListUsers","Resource":"*","Condition":{"StringEquals":{"saml:sub":"ann","aws:PrincipalTag/team":"a"}}}}`,
		trusts(`{"Federated":"`+registered.ARN()+`"}`, `["sts:AssumeRoleWithSAML","sts:TagSession"]`, `{"StringEquals":{"SAML:aud":"https://signin.aws.amazon.com/saml","SAML:sub_type":"persistent"}}`))
	fill := func(changes ...string) string {
		fields := append([]string{}, changes...)
		fields = append(fields, "%NOW%", w.now.UTC().Format(time.RFC3339), "%LATER%", w.now.Add(30*time.Minute).UTC().Format(time.RFC3339), "%STATUS%", "urn:oasis:names:tc:SAML:2.0:status:Success",
			"%ISSUER%", "https://idp.example.com", "%RECIPIENT%", "https://signin.aws.amazon.com/saml", "%ROLES%", registered.ARN()+","+arn, "%NAME%", "ann")
		return strings.NewReplacer(fields...).Replace(samlText)
	}
	client := unsigned(w)
	assume := func(response *string) (*sdk.AssumeRoleWithSAMLOutput, error) {
		return client.AssumeRoleWithSAML(t.Context(), &sdk.AssumeRoleWithSAMLInput{RoleArn: &arn, PrincipalArn: new(registered.ARN()), SAMLAssertion: response})
	}
	for _, whole := range []bool{true, false} {
		out, err := assume(p.response(t, fill(), whole))
		if err != nil {
			t.Fatalf("signed as a whole %v: %v", whole, err)
		}
		if *out.Subject != "ann" || *out.SubjectType != "persistent" || *out.Issuer != "https://idp.example.com" || *out.Audience != "https://signin.aws.amazon.com/saml" ||
			*out.AssumedRoleUser.Arn != "arn:aws:sts::000000000000:assumed-role/r/ann" || !out.Credentials.Expiration.Equal(w.now.Add(30*time.Minute)) {
			t.Errorf("%+v", out)
		}
		if _, err := sdkiam.NewFromConfig(w.as(out.Credentials)).ListUsers(context.Background(), nil); err != nil {
			t.Error(err)
		}
	}
	tampered := func(old, new string) *string {
		text, err := base64.StdEncoding.DecodeString(*p.response(t, fill(), false))
		if err != nil || !bytes.Contains(text, []byte(old)) {
			t.Fatalf("%v: %s", err, text)
		}
		s := base64.StdEncoding.EncodeToString(bytes.Replace(text, []byte(old), []byte(new), 1))
		return &s
	}
	stranger := newSAMLProvider(t, w)
	encode := func(s string) *string { s = base64.StdEncoding.EncodeToString([]byte(s)); return &s }
	for name, tc := range map[string]struct {
		response   *string
		code, text string
	}{
		"not base64":       {new("!!!!"), "InvalidIdentityToken", "Invalid base64 SAMLResponse"},
		"not XML":          {encode("hello"), "InvalidIdentityToken", "Your request included an invalid SAML response"},
		"not signed":       {encode(fill()), "InvalidIdentityToken", "Response signature invalid"},
		"signed by others": {stranger.response(t, fill(), true), "InvalidIdentityToken", "Response signature invalid"},
		"changed":          {tampered(">ann<", ">eve<"), "InvalidIdentityToken", "Response signature invalid"},
		"a second assertion": {tampered("<Assertion", `<Assertion xmlns="urn:oasis:names:tc:SAML:2.0:assertion" ID="_b"/><Assertion`),
			"InvalidIdentityToken", "Your request included an invalid SAML response"},
		"failed":       {p.response(t, fill("%STATUS%", "urn:oasis:names:tc:SAML:2.0:status:Responder"), true), "InvalidIdentityToken", "invalid SAML response"},
		"other issuer": {p.response(t, fill("%ISSUER%", "https://x.io"), true), "InvalidIdentityToken", "Issuer not present in specified provider"},
		"recipient":    {p.response(t, fill("%RECIPIENT%", "https://x.io/saml"), true), "InvalidIdentityToken", "Response does not contain the required audience."},
		"old":          {p.response(t, fill("%NOW%", w.now.Add(-6*time.Minute).UTC().Format(time.RFC3339)), true), "ExpiredTokenException", "Token must be redeemed within 5 minutes of issuance"},
		"too late":     {p.response(t, fill("%LATER%", w.now.UTC().Format(time.RFC3339)), true), "ExpiredTokenException", "Token must be redeemed within 5 minutes of issuance"},
		"other role":   {p.response(t, fill("%ROLES%", "a,b"), true), "AccessDenied", "Not authorized to perform sts:AssumeRoleWithSAML"},
		"no name":      {p.response(t, fill("%NAME%", ""), true), "InvalidIdentityToken", "RoleSessionName is required in AuthnResponse"},
		"bad name":     {p.response(t, fill("%NAME%", "a b"), true), "InvalidIdentityToken", "RoleSessionName in AuthnResponse must match [a-zA-Z_0-9+=,.@-]{2,64}"},
	} {
		_, err := assume(tc.response)
		t.Run(name, func(t *testing.T) { want(t, err, tc.code, tc.text) })
	}
	_, err := client.AssumeRoleWithSAML(t.Context(), &sdk.AssumeRoleWithSAMLInput{RoleArn: &arn, PrincipalArn: new("arn:aws:iam::000000000000:saml-provider/none"), SAMLAssertion: p.response(t, fill(), true)})
	want(t, err, "InvalidIdentityToken", "Specified provider doesn't exist")
}
