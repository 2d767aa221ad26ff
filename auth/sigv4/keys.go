package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"strings"
	"sync"
)

// deriveKey makes the key of one day, region and service.
func deriveKey(secret, date, region, service string) [sha256.Size]byte {
	k := mac([]byte("AWS4"+secret), date)
	k = mac(k[:], region)
	k = mac(k[:], service)
	return mac(k[:], terminator)
}

func mac(key []byte, text string) (out [sha256.Size]byte) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	h.Sum(out[:0])
	return out
}

// Keys remembers derived keys: they hold for a day, and deriving one costs four
// times what using it costs. The zero value is ready and safe for concurrent use.
type Keys struct {
	mu       sync.RWMutex
	now, old map[derived][sha256.Size]byte
}

type derived struct{ secret, date, region, service string }

// perGeneration bounds the memory: at most twice as many keys are kept.
const perGeneration = 4096

func (k *Keys) get(secret, date, region, service string) [sha256.Size]byte {
	if k == nil {
		return deriveKey(secret, date, region, service)
	}
	id := derived{secret, date, region, service}
	k.mu.RLock()
	key, ok := k.now[id]
	k.mu.RUnlock()
	if ok {
		return key
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if key, ok = k.old[id]; !ok {
		key = deriveKey(secret, date, region, service)
	}
	if k.now == nil || len(k.now) >= perGeneration {
		k.old, k.now = k.now, make(map[derived][sha256.Size]byte)
	}
	// Copies: the parts of a header would keep all of it.
	k.now[derived{secret, strings.Clone(date), strings.Clone(region), strings.Clone(service)}] = key
	return key
}
