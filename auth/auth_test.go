package auth

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
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

// Nobody of another account may do anything with a resource that says nothing
// of them, whatever their own policies say: root neither.
func TestOtherAccountsResources(t *testing.T) {
	db := store.OpenMemory()
	defer db.Close()
	const mine, theirs = "arn:aws:ecr:eu-central-1:000000000000:repository/r", "arn:aws:ecr:eu-central-1:111111111111:repository/r"
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.Users.Put(tx, &state.User{Account: "000000000000", Name: "ann", Path: "/", ID: "AIDA",
			Inline: []state.InlinePolicy{{Name: "all", Document: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`}}})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sessions, err := NewSessions(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	a := &Authorizer{Sessions: sessions}
	ann := &Caller{Kind: User, Account: "000000000000", Name: "ann", ARN: "arn:aws:iam::000000000000:user/ann", UserID: "AIDA"}
	root := &Caller{Account: "000000000000"}
	root.asRoot()
	for _, c := range []*Caller{ann, root} {
		for resource, want := range map[string]bool{
			mine: true, theirs: false, "*": true, "arn:aws:s3:::bucket": true, "arn:aws:iam::aws:policy/ReadOnlyAccess": true,
		} {
			d, err := a.Decide(t.Context(), db.Snapshot(), c, Check{Action: "ecr:BatchGetImage", Resource: resource})
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed != want {
				t.Errorf("%s on %s: %+v", c.ARN, resource, d)
			}
		}
	}
	grant := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"000000000000"},"Action":"ecr:BatchGetImage"}]}`
	for _, c := range []*Caller{ann, root} {
		if err := a.Check(t.Context(), db.Snapshot(), c, Check{Action: "ecr:BatchGetImage", Resource: theirs, Policy: grant}); err != nil {
			t.Errorf("%s is let in by the resource's policy: %v", c.ARN, err)
		}
	}
}
