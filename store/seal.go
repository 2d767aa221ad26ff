package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

const (
	sealKeySize = 32
	keyIDSize   = 4
	nonceSize   = 12
)

// A keyring holds the region's data keys. The newest seals; all of them open, so that a new key
// can be introduced while old values are still about.
type keyring struct {
	path string // "" in memory

	mu     sync.RWMutex
	newest keyID
	aeads  map[keyID]cipher.AEAD
	lines  [][]byte // keys in the file's order
}

type keyID [keyIDSize]byte

func (k keyID) String() string { return hex.EncodeToString(k[:]) }

func newKeyring() *keyring {
	return &keyring{aeads: map[keyID]cipher.AEAD{}}
}

// add makes key the newest.
func (r *keyring) add(key []byte) (keyID, error) {
	if len(key) != sealKeySize {
		return keyID{}, fmt.Errorf("data key of %d bytes, want %d", len(key), sealKeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return keyID{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return keyID{}, err
	}
	sum := sha256.Sum256(append([]byte("berth data key\x00"), key...))
	id := keyID(sum[:keyIDSize])
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, have := r.aeads[id]; !have {
		r.lines = append(r.lines, bytes.Clone(key))
	}
	r.aeads[id], r.newest = aead, id
	return id, nil
}

// has reports whether the ring has the key that is called id.
func (r *keyring) has(id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for k := range r.aeads {
		if k.String() == id {
			return true
		}
	}
	return false
}

func (r *keyring) current() keyID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.newest
}

// seal encrypts plain for the place name: the key id, a nonce, and the ciphertext. The name is
// authenticated, so that a sealed value is of no use under another key.
func (r *keyring) seal(name string, plain []byte) ([]byte, error) {
	r.mu.RLock()
	id := r.newest
	aead := r.aeads[id]
	r.mu.RUnlock()
	if aead == nil {
		return nil, errors.New("no data key to seal with")
	}
	out := make([]byte, 0, 1+keyIDSize+nonceSize+len(plain)+aead.Overhead())
	out = append(out, formatSealed)
	out = append(out, id[:]...)
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	out = append(out, nonce[:]...)
	return aead.Seal(out, nonce[:], plain, []byte(name)), nil
}

// open is the reverse of seal, without the format byte.
func (r *keyring) open(name string, b []byte) ([]byte, error) {
	if len(b) < keyIDSize+nonceSize {
		return nil, errors.New("sealed value is too short")
	}
	id := keyID(b[:keyIDSize])
	r.mu.RLock()
	aead := r.aeads[id]
	r.mu.RUnlock()
	if aead == nil {
		return nil, fmt.Errorf("sealed with data key %s, which this server does not have", id)
	}
	plain, err := aead.Open(nil, b[keyIDSize:keyIDSize+nonceSize], b[keyIDSize+nonceSize:], []byte(name))
	if err != nil {
		return nil, errors.New("sealed value does not authenticate: it was changed, or moved from another key")
	}
	return plain, nil
}

// loadKeyring reads the file of data keys, one in hexadecimal per line, oldest first; if it does
// not exist it is made with one new key.
func loadKeyring(path string) (*keyring, error) {
	r := newKeyring()
	r.path = path
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := r.extend(); err != nil {
			return nil, err
		}
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read data key: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read data key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("data key file %s is readable by others (mode %04o): make it 0600", path, info.Mode().Perm())
	}
	for i, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		key, err := hex.AppendDecode(nil, bytes.TrimSpace(line))
		if err == nil {
			_, err = r.add(key)
		}
		if err != nil {
			// The line itself must not reach a log.
			return nil, fmt.Errorf("data key file %s: line %d is not a key of %d hexadecimal digits", path, i+1, 2*sealKeySize)
		}
	}
	return r, nil
}

// extend adds a new key and writes the file, which is replaced whole or not at all.
func (r *keyring) extend() error {
	key := make([]byte, sealKeySize)
	rand.Read(key)
	r.mu.RLock()
	all := append(r.lines[:len(r.lines):len(r.lines)], key)
	r.mu.RUnlock()
	if r.path != "" {
		var text []byte
		for _, k := range all {
			text = append(hex.AppendEncode(text, k), '\n')
		}
		if err := writeFile(r.path, text); err != nil {
			return fmt.Errorf("write data key: %w", err)
		}
	}
	_, err := r.add(key)
	return err
}

// writeFile replaces a private file durably.
func writeFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
