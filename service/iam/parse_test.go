package iam

import (
	"reflect"
	"strings"
	"testing"

	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Stored must name operations that this package answers, and their fields.
func TestStoredNamesFields(t *testing.T) {
	db := store.OpenMemory()
	defer db.Close()
	service := api.NewService(New(Config{DB: db}))
	for path := range Stored {
		operation, field, _ := strings.Cut(path, ".")
		op := service.Operations[operation]
		if op == nil {
			t.Errorf("%s: no such operation", path)
			continue
		}
		if _, ok := reflect.TypeOf(op.New()).Elem().FieldByName(field); !ok {
			t.Errorf("%s: no such field", path)
		}
	}
}

func TestHash(t *testing.T) {
	s := New(Config{})
	h := s.hash("secret")
	if !s.matches(h, "secret") || s.matches(h, "Secret") || s.matches(h, "") || s.hash("secret") == h || strings.Contains(h, "secret") {
		t.Errorf("hash %s", h)
	}
	for _, bad := range []string{"", "$", "a$b$c", hashScheme + "$!$!", hashScheme + "$AAAA$"} {
		if s.matches(bad, "secret") {
			t.Errorf("%q matches", bad)
		}
	}
}

func TestGrants(t *testing.T) {
	st := func(s string) string { return `{"Version":"2012-10-17","Statement":` + s + `}` }
	for document, want := range map[string]bool{
		st(`{"Effect":"Allow","Action":"*","Resource":"*"}`):                                         true,
		st(`[{"Effect":"Allow","Action":["s3:Get*","ecs:RunTask"],"Resource":"*"}]`):                 true,
		st(`[{"Effect":"Allow","Action":"ecs-compute:Run","Resource":"*"}]`):                         false,
		st(`[{"Effect":"Deny","Action":"ecs:*","Resource":"*"}]`):                                    false,
		st(`[{"Effect":"Allow","NotAction":["iam:*"],"Resource":"*"}]`):                              true,
		st(`[{"Effect":"Allow","NotAction":["iam:*","ecs:*"],"Resource":"*"}]`):                      false,
		st(`[{"Effect":"Deny","Action":"*","Resource":"*"},{"Effect":"Allow","Action":"ECS:Run*"}]`): true,
		`nonsense`: false,
	} {
		if grants(document, "ecs") != want {
			t.Errorf("%s: %v", document, !want)
		}
	}
}

func TestWeak(t *testing.T) {
	for password, want := range map[string]string{"Abcdefg1": "", "abcdefg1!": "", "abcdefgh1": "Password does not conform to the account password policy.", "Ab1!": "Password should have a minimum length of 8"} {
		if got := weak(nil, password); got != want {
			t.Errorf("%s: %q", password, got)
		}
	}
	if got := weak(&state.PasswordPolicy{MinimumLength: 6}, "ßßßßßß"); got != "" {
		t.Errorf("six characters of two bytes: %s", got)
	}
}

func FuzzSAML(f *testing.F) {
	f.Add(`<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="x"><IDPSSODescriptor/></EntityDescriptor>`)
	f.Add("<a")
	f.Fuzz(func(t *testing.T, s string) {
		if e, err := parseSAML(s); (e == nil) == (err == nil) || e != nil && e.issuer == "" {
			t.Errorf("%+v %v", e, err)
		}
	})
}

func FuzzSSHKey(f *testing.F) {
	f.Add("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ== a")
	f.Add("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")
	f.Fuzz(func(t *testing.T, s string) {
		line, fingerprint, err := parseSSHKey(s)
		if err != nil {
			return
		}
		if again, same, err := parseSSHKey(line); err != nil || again != line || same != fingerprint {
			t.Errorf("%q becomes %q: %v", line, again, err)
		}
		if _, err := asPEM(line); err != nil {
			t.Error(err)
		}
	})
}

func FuzzCertificate(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "")
	f.Fuzz(func(t *testing.T, body, key, chain string) {
		if c, err := checkServerCertificate(body, key, chain); (c == nil) == (err == nil) {
			t.Errorf("%v %v", c, err)
		}
	})
}

func FuzzGrants(f *testing.F) {
	f.Add(`{"Statement":{"Effect":"Allow","Action":"*"}}`)
	f.Add(`{"Statement":[{"Effect":"Allow","NotAction":["ecs:*"]}]}`)
	f.Fuzz(func(_ *testing.T, s string) { grants(s, "ecs") })
}

// A position sorts as its key does, fits into a marker, and tells keys apart.
func FuzzPosition(f *testing.F) {
	f.Add("a", "b")
	f.Add(strings.Repeat("é", 200), strings.Repeat("é", 201))
	f.Fuzz(func(t *testing.T, a, b string) {
		pa, pb := position(a), position(b)
		if len(pa) > longKey+20 || (pa == pb) != (a == b) && len(a) > longKey && len(b) > longKey {
			t.Errorf("%q %q: %q %q", a, b, pa, pb)
		}
	})
}
