package auth

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// totpStep is how long one code of a device is shown (RFC 6238).
const totpStep = 30 * time.Second

// Windows, in steps: how far a device's clock may be off when it signs in, and
// when it is made known or set right.
const (
	totpWindow     = 1
	totpSyncWindow = 20
)

// ErrMFA is a code that is not the device's, or a device that is not the caller's.
var ErrMFA = errors.New("MFA code is not valid")

// TOTP is the code that a device with the seed shows at a step of time.
func TOTP(seed []byte, step int64) string {
	mac := hmac.New(sha1.New, seed)
	_ = binary.Write(mac, binary.BigEndian, step) // a hash takes everything
	sum := mac.Sum(nil)
	n := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&15:]) & (1<<31 - 1)
	return fmt.Sprintf("%06d", n%1_000_000)
}

// TOTPAt is the step that a time is in.
func TOTPAt(t time.Time) int64 { return t.Unix() / int64(totpStep/time.Second) }

// SyncTOTP finds two codes that follow each other on a device near now, and
// returns the step of the second, and by how much the device is ahead.
func SyncTOTP(seed []byte, first, second string, now time.Time) (step, drift int64, ok bool) {
	at := TOTPAt(now)
	for step := at - totpSyncWindow; step < at+totpSyncWindow; step++ {
		if same(TOTP(seed, step), first) && same(TOTP(seed, step+1), second) {
			return step + 1, step + 1 - at, true
		}
	}
	return 0, 0, false
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// UseMFA takes a code of a device of the caller's, once: what was accepted, and
// every code before it, is not accepted again. It fails with ErrMFA. AWS says
// the same of all that can be wrong.
func UseMFA(tx *store.Tx, c *Caller, serial, code string, now time.Time) error {
	d, ok := state.MFADevices.Get(tx, serial)
	if !ok || c.Kind != User || d.UserID == "" || d.UserID != c.UserID {
		return ErrMFA
	}
	at := TOTPAt(now) + d.Drift
	for step := at - totpWindow; step <= at+totpWindow; step++ {
		if step > d.LastStep && same(TOTP(d.Seed, step), code) {
			next := *d
			next.LastStep, next.Drift = step, step-TOTPAt(now)
			state.MFADevices.Put(tx, &next)
			return nil
		}
	}
	return ErrMFA
}
