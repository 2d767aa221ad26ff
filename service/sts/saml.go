package sts

import (
	"context"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
	"github.com/russellhaering/goxmldsig/etreeutils"

	api "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/store/state"
)

const (
	samlProtocol  = "urn:oasis:names:tc:SAML:2.0:protocol"
	samlAssertion = "urn:oasis:names:tc:SAML:2.0:assertion"
	samlSuccess   = "urn:oasis:names:tc:SAML:2.0:status:Success"
	samlFormat    = "urn:oasis:names:tc:SAML:2.0:nameid-format:"
	samlFormat11  = "urn:oasis:names:tc:SAML:1.1:nameid-format:"
	samlAttribute = "https://aws.amazon.com/SAML/Attributes/"
	// Who an assertion must be for, and where it must be redeemed: clients are
	// set up for AWS and do not know that this is not it.
	samlAudience  = "urn:amazon:webservices"
	samlRecipient = "signin.aws.amazon.com/saml"
)

// redeem is for how long after it was issued an assertion is taken.
const redeem = 5 * time.Minute

var sessionName = regexp.MustCompile(`^[a-zA-Z_0-9+=,.@-]{2,64}$`)

// An assertion is what a SAML provider says of a caller.
type assertion struct {
	issuer, subject, format, recipient string
	session                            time.Time // when the session must end, zero if that is not said
	attributes                         map[string][]string
}

// AssumeRoleWithSAML gives credentials of a role to whom a SAML provider
// vouches for, if the role trusts that provider.
func (s *Service) AssumeRoleWithSAML(ctx context.Context, in *api.AssumeRoleWithSAMLInput) (*api.AssumeRoleWithSAMLOutput, error) {
	if !isRole(*in.RoleArn) {
		return nil, validation("%s is invalid", *in.RoleArn)
	}
	now := s.cfg.Clock()
	provider, ok := state.SAMLProviders.Get(s.cfg.DB.Snapshot(), *in.PrincipalArn)
	if !ok || provider.Account != strings.SplitN(*in.RoleArn, ":", 6)[4] {
		return nil, invalidToken("Specified provider doesn't exist")
	}
	a, err := readResponse(*in.SAMLAssertion, provider, now)
	if err != nil {
		return nil, err
	}
	f := federation{action: "sts:AssumeRoleWithSAML", role: *in.RoleArn, provider: provider.ARN(), duration: in.DurationSeconds,
		policy: in.Policy, policies: in.PolicyArns, until: a.session}
	if err := a.into(&f); err != nil {
		return nil, err
	}
	sum := sha1.Sum([]byte(a.issuer + provider.Account + "/" + provider.Name))
	qualifier := base64.StdEncoding.EncodeToString(sum[:])
	kind := strings.TrimPrefix(strings.TrimPrefix(a.format, samlFormat), samlFormat11)
	if kind != "persistent" && kind != "transient" {
		kind = a.format
	}
	f.keys = map[string][]string{"saml:aud": {a.recipient}, "saml:iss": {a.issuer}, "saml:sub": {a.subject}, "saml:sub_type": {kind},
		"saml:namequalifier": {qualifier}, "saml:doc": {provider.Account + "/" + provider.Name}}
	out, err := s.federate(ctx, &f)
	if err != nil {
		return nil, err
	}
	return &api.AssumeRoleWithSAMLOutput{Credentials: out.Credentials, AssumedRoleUser: out.AssumedRoleUser, PackedPolicySize: out.PackedPolicySize,
		SourceIdentity: out.SourceIdentity, Subject: &a.subject, SubjectType: &kind, Issuer: &a.issuer, Audience: &a.recipient, NameQualifier: &qualifier}, nil
}

// into takes what AWS's own attributes ask for.
func (a *assertion) into(f *federation) error {
	one := func(name string) string {
		if v := a.attributes[samlAttribute+name]; len(v) == 1 {
			return v[0]
		}
		return ""
	}
	trusted := slices.ContainsFunc(a.attributes[samlAttribute+"Role"], func(pair string) bool {
		x, y, _ := strings.Cut(pair, ",")
		x, y = strings.TrimSpace(x), strings.TrimSpace(y)
		return x == f.role && y == f.provider || y == f.role && x == f.provider
	})
	if !trusted {
		return accessDenied("Not authorized to perform " + f.action)
	}
	if f.name = one("RoleSessionName"); f.name == "" {
		return invalidToken("RoleSessionName is required in AuthnResponse")
	}
	if !sessionName.MatchString(f.name) {
		return invalidToken("RoleSessionName in AuthnResponse must match [a-zA-Z_0-9+=,.@-]{2,64}")
	}
	f.sourceIdentity = one("SourceIdentity")
	if f.sourceIdentity != "" && (!sessionName.MatchString(f.sourceIdentity) || strings.HasPrefix(f.sourceIdentity, "aws:")) {
		return invalidToken("Source Identity must match [a-zA-Z_0-9+=,.@-]{2,64} and not begin with \"aws:\"")
	}
	if text := one("SessionDuration"); text != "" && f.duration == nil {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 900 || n > 43200 {
			return invalidToken("SessionDuration in AuthnResponse must be between 900 and 43200")
		}
		f.duration = new(int32(n))
	}
	for name, v := range a.attributes {
		key, ok := strings.CutPrefix(name, samlAttribute+"PrincipalTag:")
		if !ok {
			continue
		}
		if len(v) != 1 {
			return invalidToken("The value of the tag %s must be one string", key)
		}
		f.tags = append(f.tags, api.Tag{Key: &key, Value: &v[0]})
	}
	f.transitive = a.attributes[samlAttribute+"TransitiveTagKeys"]
	return nil
}

var errResponse = errors.New("Your request included an invalid SAML response")

// readResponse verifies a response as a browser would bring it, and returns the
// assertion that is signed, and nothing of what is not.
func readResponse(encoded string, provider *state.SAMLProvider, now time.Time) (*assertion, error) {
	text, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(encoded), ""))
	if err != nil {
		return nil, invalidToken("Invalid base64 SAMLResponse")
	}
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(text); err != nil || doc.Root() == nil || !is(doc.Root(), samlProtocol, "Response") {
		return nil, invalidToken("%s", errResponse)
	}
	certificates, err := signers(provider)
	if err != nil {
		return nil, err
	}
	signed, err := verified(doc.Root(), certificates, now)
	if err != nil {
		return nil, err
	}
	return readAssertion(signed, provider, now)
}

// signers are the certificates by which the provider's metadata say that its
// assertions are known.
func signers(provider *state.SAMLProvider) ([]*x509.Certificate, error) {
	var doc struct {
		Keys []struct {
			Use          string   `xml:"use,attr"`
			Certificates []string `xml:"KeyInfo>X509Data>X509Certificate"`
		} `xml:"IDPSSODescriptor>KeyDescriptor"`
	}
	if err := xml.Unmarshal([]byte(provider.Metadata), &doc); err != nil {
		return nil, fmt.Errorf("metadata of %s: %w", provider.ARN(), err)
	}
	var out []*x509.Certificate
	for _, k := range doc.Keys {
		if k.Use == "encryption" {
			continue
		}
		for _, text := range k.Certificates {
			der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
			if err != nil {
				return nil, fmt.Errorf("metadata of %s: %w", provider.ARN(), err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, fmt.Errorf("metadata of %s: %w", provider.ARN(), err)
			}
			out = append(out, cert)
		}
	}
	return out, nil
}

// verified returns the one assertion of a response, as it was signed: by itself
// or with the whole response.
func verified(response *etree.Element, certificates []*x509.Certificate, now time.Time) (*etree.Element, error) {
	invalid := invalidToken("Response signature invalid")
	check := func(el *etree.Element) (*etree.Element, error) {
		v := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: certificates})
		v.Clock = dsig.NewFakeClockAt(now)
		return v.Validate(el)
	}
	if status := child(child(response, samlProtocol, "Status"), samlProtocol, "StatusCode"); status == nil || status.SelectAttrValue("Value", "") != samlSuccess {
		return nil, invalidToken("%s", errResponse)
	}
	whole, err := check(response)
	switch {
	case err == nil:
		response = whole
	case !errors.Is(err, dsig.ErrMissingSignature):
		return nil, invalid
	}
	found := children(response, samlAssertion, "Assertion")
	if len(children(response, samlAssertion, "EncryptedAssertion")) > 0 {
		return nil, invalidToken("Encrypted assertions are not supported by Berth.")
	}
	if len(found) != 1 {
		return nil, invalidToken("%s", errResponse)
	}
	if whole != nil {
		return found[0], nil
	}
	around, err := etreeutils.NewDefaultNSContext().SubContext(response)
	if err != nil {
		return nil, invalid
	}
	alone, err := etreeutils.NSDetatch(around, found[0])
	if err != nil {
		return nil, invalid
	}
	if alone, err = check(alone); err != nil {
		return nil, invalid
	}
	return alone, nil
}

// readAssertion checks that the assertion is the provider's, for AWS, and for now.
func readAssertion(el *etree.Element, provider *state.SAMLProvider, now time.Time) (*assertion, error) {
	a := &assertion{attributes: map[string][]string{}, issuer: text(child(el, samlAssertion, "Issuer"))}
	if a.issuer != provider.Issuer {
		return nil, invalidToken("Issuer not present in specified provider")
	}
	subject := child(el, samlAssertion, "Subject")
	name := child(subject, samlAssertion, "NameID")
	confirmation := child(child(subject, samlAssertion, "SubjectConfirmation"), samlAssertion, "SubjectConfirmationData")
	conditions := child(el, samlAssertion, "Conditions")
	if name == nil || confirmation == nil || conditions == nil {
		return nil, invalidToken("%s", errResponse)
	}
	a.subject, a.format, a.recipient = text(name), name.SelectAttrValue("Format", ""), confirmation.SelectAttrValue("Recipient", "")
	if host, ok := strings.CutPrefix(a.recipient, "https://"); !ok || host != samlRecipient && !strings.HasSuffix(host, "."+samlRecipient) {
		return nil, invalidToken("Response does not contain the required audience.")
	}
	restriction := child(conditions, samlAssertion, "AudienceRestriction")
	if restriction == nil || !slices.ContainsFunc(children(restriction, samlAssertion, "Audience"), func(el *etree.Element) bool {
		return text(el) == samlAudience || text(el) == a.recipient
	}) {
		return nil, invalidToken("Response does not contain the required audience.")
	}
	if err := timely(el, confirmation, conditions, now); err != nil {
		return nil, err
	}
	for _, st := range children(el, samlAssertion, "AuthnStatement") {
		if end := st.SelectAttrValue("SessionNotOnOrAfter", ""); end != "" {
			at, err := time.Parse(time.RFC3339Nano, end)
			if err != nil || !now.Before(at) {
				return nil, invalidToken("%s", errResponse)
			}
			a.session = at
		}
	}
	for _, st := range children(el, samlAssertion, "AttributeStatement") {
		for _, attr := range children(st, samlAssertion, "Attribute") {
			name := attr.SelectAttrValue("Name", "")
			for _, v := range children(attr, samlAssertion, "AttributeValue") {
				a.attributes[name] = append(a.attributes[name], text(v))
			}
		}
	}
	return a, nil
}

// timely checks the times between which an assertion is good.
func timely(el, confirmation, conditions *etree.Element, now time.Time) error {
	late := &api.ExpiredTokenException{Message: "Token must be redeemed within 5 minutes of issuance"}
	issued, err := time.Parse(time.RFC3339Nano, el.SelectAttrValue("IssueInstant", ""))
	if err != nil || now.Add(redeem).Before(issued) {
		return invalidToken("%s", errResponse)
	}
	if now.Sub(issued) > redeem {
		return late
	}
	for _, e := range []*etree.Element{confirmation, conditions} {
		for _, limit := range []string{"NotBefore", "NotOnOrAfter"} {
			value := e.SelectAttrValue(limit, "")
			if value == "" {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, value)
			switch {
			case err != nil, limit == "NotBefore" && now.Add(redeem).Before(at):
				return invalidToken("%s", errResponse)
			case limit == "NotOnOrAfter" && !now.Before(at):
				return late
			}
		}
	}
	return nil
}

func is(el *etree.Element, space, tag string) bool {
	return el.Tag == tag && el.NamespaceURI() == space
}

func children(el *etree.Element, space, tag string) (out []*etree.Element) {
	for _, c := range el.ChildElements() {
		if is(c, space, tag) {
			out = append(out, c)
		}
	}
	return out
}

// child is the only child of that name, nil if there is none, or another.
func child(el *etree.Element, space, tag string) *etree.Element {
	if el == nil {
		return nil
	}
	if all := children(el, space, tag); len(all) == 1 {
		return all[0]
	}
	return nil
}

func text(el *etree.Element) string {
	if el == nil {
		return ""
	}
	return strings.TrimSpace(el.Text())
}
