package sts

import (
	"encoding/base64"
	"errors"
	"testing"
	"time"

	api "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// What nobody signed is refused, in AWS's words, whatever it is.
func FuzzReadResponse(f *testing.F) {
	f.Add(`<p:Response xmlns:p="urn:oasis:names:tc:SAML:2.0:protocol"><p:Status><p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></p:Status><Assertion xmlns="urn:oasis:names:tc:SAML:2.0:assertion" ID="_a"><Signature xmlns="http://www.w3.org/2000/09/xmldsig#"><SignedInfo><Reference URI="#_a"/></SignedInfo></Signature></Assertion></p:Response>`)
	provider := &state.SAMLProvider{Account: "000000000000", Name: "idp", Issuer: "x", Metadata: "<EntityDescriptor/>"}
	f.Fuzz(func(t *testing.T, text string) {
		_, err := readResponse(base64.StdEncoding.EncodeToString([]byte(text)), provider, time.Unix(0, 0))
		if _, ok := errors.AsType[wire.Error](err); !ok {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// The account knows no provider, so no token is good, whatever it says.
func FuzzWebIdentityToken(f *testing.F) {
	part := base64.RawURLEncoding.EncodeToString
	f.Add(part([]byte(`{"alg":"RS256","kid":"a"}`)) + "." + part([]byte(`{"iss":"https://a","aud":["b"],"amr":"x","exp":1.5,"https://aws.amazon.com/tags":{"principal_tags":{"a":["b"]}}}`)) + ".AAAA")
	db := store.OpenMemory()
	f.Cleanup(func() { db.Close() })
	s := New(Config{DB: db})
	f.Fuzz(func(t *testing.T, token string) {
		_, err := s.AssumeRoleWithWebIdentity(t.Context(), &api.AssumeRoleWithWebIdentityInput{
			RoleArn: new("arn:aws:iam::000000000000:role/r"), RoleSessionName: new("s"), WebIdentityToken: &token})
		if _, ok := errors.AsType[*api.InvalidIdentityTokenException](err); !ok {
			t.Fatalf("%q: %v", token, err)
		}
	})
}
