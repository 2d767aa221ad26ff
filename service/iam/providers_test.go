package iam_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

func TestOIDCProvider(t *testing.T) {
	w := newWorld(t)
	print := strings.Repeat("ab", 20)
	create := func(url string, clients ...string) (*sdk.CreateOpenIDConnectProviderOutput, error) {
		return w.CreateOpenIDConnectProvider(w.ctx, &sdk.CreateOpenIDConnectProviderInput{Url: &url, ClientIDList: clients, ThumbprintList: []string{print},
			Tags: []types.Tag{{Key: new("team"), Value: new("a")}}})
	}
	for _, bad := range []string{"http://idp.example.com", "idp.example.com", "https://", "https://idp.example.com?x=1", "https://u@idp.example.com"} {
		refused(t, "ValidationError", "Invalid Open ID Connect Provider URL")(create(bad))
	}
	made, err := create("https://idp.example.com/realm", "sts.amazonaws.com", "b")
	if err != nil {
		t.Fatal(err)
	}
	arn := made.OpenIDConnectProviderArn
	if *arn != "arn:aws:iam::000000000000:oidc-provider/idp.example.com/realm" || len(made.Tags) != 1 {
		t.Errorf("made %s %v", *arn, made.Tags)
	}
	refused(t, "EntityAlreadyExists", "Provider with url https://idp.example.com/realm already exists.")(create("https://idp.example.com/realm"))
	for range 2 { // the second changes nothing
		must(t)(w.AddClientIDToOpenIDConnectProvider(w.ctx, &sdk.AddClientIDToOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn, ClientID: new("c")}))
		must(t)(w.RemoveClientIDFromOpenIDConnectProvider(w.ctx, &sdk.RemoveClientIDFromOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn, ClientID: new("b")}))
	}
	refused(t, "InvalidInput", "Thumbprint list must contain fewer than 5 entries.")(w.UpdateOpenIDConnectProviderThumbprint(w.ctx,
		&sdk.UpdateOpenIDConnectProviderThumbprintInput{OpenIDConnectProviderArn: arn, ThumbprintList: []string{print, print, print, print, print, print}}))
	must(t)(w.UpdateOpenIDConnectProviderThumbprint(w.ctx, &sdk.UpdateOpenIDConnectProviderThumbprintInput{OpenIDConnectProviderArn: arn, ThumbprintList: []string{strings.Repeat("cd", 20)}}))
	got, err := w.GetOpenIDConnectProvider(w.ctx, &sdk.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn})
	if err != nil {
		t.Fatal(err)
	}
	if *got.Url != "idp.example.com/realm" || !slices.Equal(got.ClientIDList, []string{"sts.amazonaws.com", "c"}) || got.ThumbprintList[0] != strings.Repeat("cd", 20) || *got.Tags[0].Value != "a" {
		t.Errorf("got %+v", got)
	}
	stranger := w.root(other)
	if list, err := stranger.ListOpenIDConnectProviders(w.ctx, nil); err != nil || len(list.OpenIDConnectProviderList) != 0 {
		t.Errorf("another account sees %+v %v", list, err)
	}
	refused(t, "AccessDenied", "")(stranger.GetOpenIDConnectProvider(w.ctx, &sdk.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn}))
	w.quota("iam/client-ids-per-oidc-provider", 2)
	refused(t, "LimitExceeded", "Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: 2")(w.AddClientIDToOpenIDConnectProvider(w.ctx,
		&sdk.AddClientIDToOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn, ClientID: new("d")}))
	must(t)(w.UntagOpenIDConnectProvider(w.ctx, &sdk.UntagOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn, TagKeys: []string{"team"}}))
	for range 2 { // the second changes nothing
		must(t)(w.DeleteOpenIDConnectProvider(w.ctx, &sdk.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn}))
	}
	refused(t, "NoSuchEntity", "OpenIDConnect Provider not found for arn "+*arn)(w.GetOpenIDConnectProvider(w.ctx, &sdk.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn}))
}

// metadata is a SAML identity provider's description of itself.
func metadata(certificate, attributes string) string {
	lines := strings.Split(strings.TrimSpace(certificate), "\n")
	body := strings.Join(lines[1:len(lines)-1], "\n")
	return `<?xml version="1.0"?><md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="https://idp.example.com/saml" ` + attributes +
		`><md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><md:KeyDescriptor use="signing">` +
		`<ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data><ds:X509Certificate>` + body + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo>` +
		`</md:KeyDescriptor><md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="https://idp.example.com/sso"/>` +
		`</md:IDPSSODescriptor><!-- ` + strings.Repeat("x", 1000) + ` --></md:EntityDescriptor>`
}

func TestSAMLProvider(t *testing.T) {
	w := newWorld(t)
	p := newPair(t, "idp", nil)
	create := func(document string) (*sdk.CreateSAMLProviderOutput, error) {
		return w.CreateSAMLProvider(w.ctx, &sdk.CreateSAMLProviderInput{Name: new("corp"), SAMLMetadataDocument: &document})
	}
	good := metadata(p.pem, `validUntil="2099-01-01T00:00:00Z"`)
	for name, bad := range map[string]string{
		"not XML":         strings.Repeat("x", 1000),
		"no provider":     strings.ReplaceAll(good, "IDPSSODescriptor", "SPSSODescriptor"),
		"no name":         strings.Replace(good, "entityID", "id", 1),
		"bad certificate": metadata("a\n"+base64.StdEncoding.EncodeToString([]byte("not a certificate"))+"\nb", ""),
		"bad date":        metadata(p.pem, `validUntil="tomorrow"`),
	} {
		t.Run(name, func(t *testing.T) { refused(t, "InvalidInput", "Could not parse metadata")(create(bad)) })
	}
	made, err := create(good)
	if err != nil {
		t.Fatal(err)
	}
	arn := made.SAMLProviderArn
	if *arn != "arn:aws:iam::000000000000:saml-provider/corp" {
		t.Errorf("arn %s", *arn)
	}
	refused(t, "EntityAlreadyExists", "")(create(good))
	got, err := w.GetSAMLProvider(w.ctx, &sdk.GetSAMLProviderInput{SAMLProviderArn: arn})
	if err != nil || *got.SAMLMetadataDocument != good || !got.ValidUntil.Equal(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)) || got.AssertionEncryptionMode != "" {
		t.Errorf("got %+v %v", got, err)
	}
	refused(t, "InvalidInput", "needs a private key")(w.UpdateSAMLProvider(w.ctx, &sdk.UpdateSAMLProviderInput{SAMLProviderArn: arn, AssertionEncryptionMode: "Required"}))
	must(t)(w.UpdateSAMLProvider(w.ctx, &sdk.UpdateSAMLProviderInput{SAMLProviderArn: arn, AssertionEncryptionMode: "Required", AddPrivateKey: &p.text}))
	must(t)(w.UpdateSAMLProvider(w.ctx, &sdk.UpdateSAMLProviderInput{SAMLProviderArn: arn, AddPrivateKey: &p.text, SAMLMetadataDocument: new(metadata(p.pem, ""))}))
	refused(t, "LimitExceeded", "")(w.UpdateSAMLProvider(w.ctx, &sdk.UpdateSAMLProviderInput{SAMLProviderArn: arn, AddPrivateKey: &p.text}))
	got, err = w.GetSAMLProvider(w.ctx, &sdk.GetSAMLProviderInput{SAMLProviderArn: arn})
	if err != nil || len(got.PrivateKeyList) != 2 || got.ValidUntil.Before(time.Now().AddDate(99, 0, 0)) {
		t.Fatalf("got %+v %v", got, err)
	}
	must(t)(w.UpdateSAMLProvider(w.ctx, &sdk.UpdateSAMLProviderInput{SAMLProviderArn: arn, RemovePrivateKey: got.PrivateKeyList[0].KeyId}))
	must(t)(w.TagSAMLProvider(w.ctx, &sdk.TagSAMLProviderInput{SAMLProviderArn: arn, Tags: []types.Tag{{Key: new("a"), Value: new("b")}}}))
	if tags, err := w.ListSAMLProviderTags(w.ctx, &sdk.ListSAMLProviderTagsInput{SAMLProviderArn: arn}); err != nil || len(tags.Tags) != 1 {
		t.Errorf("tags %+v %v", tags, err)
	}
	if list, err := w.ListSAMLProviders(w.ctx, nil); err != nil || len(list.SAMLProviderList) != 1 || *list.SAMLProviderList[0].Arn != *arn {
		t.Errorf("list %+v %v", list, err)
	}
	must(t)(w.DeleteSAMLProvider(w.ctx, &sdk.DeleteSAMLProviderInput{SAMLProviderArn: arn}))
	refused(t, "NoSuchEntity", "Manifest not found for arn "+*arn)(w.GetSAMLProvider(w.ctx, &sdk.GetSAMLProviderInput{SAMLProviderArn: arn}))
}
