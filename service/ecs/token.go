package ecs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// checkToken validates a client token of at most limit characters.
func checkToken(token string, limit int) error {
	if len(token) > limit || strings.ContainsFunc(token, func(r rune) bool { return r < 33 || r > 126 }) {
		return invalid("Client token must be at most %d characters, with codes from 33 to 126.", limit)
	}
	return nil
}

// fingerprint is what makes two requests the same: all that they say.
func fingerprint(in any) (string, error) {
	b, err := json.Marshal(in)
	if err != nil {
		return "", fmt.Errorf("encode a request: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// used finds the earlier request with the same token, nil if there is none. Two
// requests at the same time cannot both find none and commit: the row that was
// missed is part of what the transaction has read.
func used(tx *store.Tx, account, operation, token string, now time.Time) *state.ClientToken {
	if token == "" {
		return nil
	}
	t, ok := state.ClientTokens.Get(tx, state.ClientTokenKey(account, operation, token))
	if !ok || !t.At.Add(state.ClientTokenLife).After(now) {
		return nil
	}
	return t
}

// remember keeps what a request with a token has made.
func remember(tx *store.Tx, t *state.ClientToken) {
	if t.Token != "" {
		state.ClientTokens.Put(tx, t)
	}
}
