package auth

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestKeyIDsHoldTheAccount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		account := rapid.StringMatching(`[0-9]{12}`).Draw(t, "account")
		id := NewKeyID(PrefixAccessKey, account)
		if len(id) != 20 || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
			t.Fatalf("key id %q", id)
		}
		if got, ok := AccountOf(id); !ok || got != account {
			t.Fatalf("account of %s: %s, want %s", id, got, account)
		}
		if id := NewID(PrefixRole, account); len(id) != 21 {
			t.Fatalf("unique id %q", id)
		}
	})
	if s := NewSecret(); len(s) != 40 {
		t.Errorf("secret of %d characters", len(s))
	}
	for _, bad := range []string{"", "AKIA", "AKIA1111111111111111", "AKIAAAAAAAAAAAAAAAAA"} {
		if _, ok := AccountOf(bad); ok {
			t.Errorf("%q has an account", bad)
		}
	}
}

func TestSessionsSurviveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "session.key")
	first, err := OpenSessions(path)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 5, time.UTC)
	creds, err := first.Mint(Session{Kind: AssumedRole, Account: "000000000000", Name: "r", ARN: "arn:aws:iam::000000000000:role/r",
		PrincipalID: "AROAX", SessionName: "s", Policies: []string{"{}"}}, now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenSessions(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := second.Open(creds.Token)
	if err != nil {
		t.Fatal(err)
	}
	if s.AccessKeyID != creds.AccessKeyID || s.Secret != creds.Secret || !s.ExpiresAt.Equal(creds.Expires) || s.SessionName != "s" || len(s.Policies) != 1 {
		t.Errorf("opened %+v, minted %+v", s, creds)
	}
	if !strings.HasPrefix(creds.AccessKeyID, PrefixTemporaryKey) || strings.Contains(creds.Token, creds.Secret) {
		t.Errorf("credentials %s", creds.AccessKeyID)
	}
	other, err := NewSessions(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(creds.Token); !errors.Is(err, ErrToken) {
		t.Errorf("with another key: %v", err)
	}
	// What was sealed as one thing cannot be used as another.
	if _, err := second.DecodeMessage(creds.Token); !errors.Is(err, ErrToken) {
		t.Errorf("a token as a message: %v", err)
	}
}

func FuzzOpenToken(f *testing.F) {
	key := make([]byte, 32)
	rand.Read(key)
	s, err := NewSessions(key)
	if err != nil {
		f.Fatal(err)
	}
	creds, err := s.Mint(Session{Kind: RootUser, Account: "000000000000"}, time.Unix(0, 0), time.Unix(60, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("AQ==", 9, byte(1))
	f.Add(creds.Token[:40], 0, byte(2))
	f.Fuzz(func(t *testing.T, text string, at int, flip byte) {
		// The key is this process's own, so nothing that the fuzzer makes up can open.
		if _, err := s.Open(text); err == nil {
			t.Fatalf("a token that was never minted: %q", text)
		}
		b := []byte(creds.Token)
		i := int(uint(at) % uint(len(b)))
		if b[i] ^= flip; flip == 0 || b[i] == '\r' || b[i] == '\n' {
			return
		}
		if _, err := s.Open(string(b)); err == nil {
			t.Fatalf("opened with byte %d changed", i)
		}
	})
}
