package auth

import (
	"errors"
	"testing"
	"time"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// The vectors of RFC 6238, appendix B, cut to six digits.
func TestTOTP(t *testing.T) {
	seed := []byte("12345678901234567890")
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		if got := TOTP(seed, TOTPAt(time.Unix(at, 0))); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
	}
}

func TestSyncTOTP(t *testing.T) {
	seed, now := []byte("12345678901234567890"), time.Unix(1_800_000_000, 0)
	at := TOTPAt(now)
	for _, ahead := range []int64{-10, -1, 0, 1, 10} {
		step, drift, ok := SyncTOTP(seed, TOTP(seed, at+ahead-1), TOTP(seed, at+ahead), now)
		if !ok || step != at+ahead || drift != ahead {
			t.Errorf("%d ahead: step %d drift %d %v", ahead, step-at, drift, ok)
		}
	}
	for name, codes := range map[string][2]string{
		"the same twice": {TOTP(seed, at), TOTP(seed, at)},
		"not in a row":   {TOTP(seed, at), TOTP(seed, at+2)},
		"backwards":      {TOTP(seed, at+1), TOTP(seed, at)},
		"too old":        {TOTP(seed, at-100), TOTP(seed, at-99)},
	} {
		if _, _, ok := SyncTOTP(seed, codes[0], codes[1], now); ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestUseMFA(t *testing.T) {
	db := store.OpenMemory()
	defer db.Close()
	seed, now := []byte("12345678901234567890"), time.Unix(1_800_000_000, 0)
	d := &state.MFADevice{Account: "000000000000", Path: "/", Name: "phone", Seed: seed, UserID: "AIDAX"}
	if err := db.Update(t.Context(), func(tx *store.Tx) error { state.MFADevices.Put(tx, d); return nil }); err != nil {
		t.Fatal(err)
	}
	use := func(c *Caller, code string) error {
		return db.Update(t.Context(), func(tx *store.Tx) error { return UseMFA(tx, c, d.ARN(), code, now) })
	}
	owner, other := &Caller{Kind: User, UserID: "AIDAX"}, &Caller{Kind: User, UserID: "AIDAY"}
	code := TOTP(seed, TOTPAt(now))
	if err := use(other, code); !errors.Is(err, ErrMFA) {
		t.Errorf("somebody else's device: %v", err)
	}
	if err := use(owner, TOTP(seed, TOTPAt(now)-5)); !errors.Is(err, ErrMFA) {
		t.Errorf("an old code: %v", err)
	}
	if err := use(owner, code); err != nil {
		t.Errorf("the right code: %v", err)
	}
	if err := use(owner, code); !errors.Is(err, ErrMFA) {
		t.Errorf("the same code again: %v", err)
	}
	if err := use(owner, TOTP(seed, TOTPAt(now)+1)); err != nil {
		t.Errorf("the next code: %v", err)
	}
}
