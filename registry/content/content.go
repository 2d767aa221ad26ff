// Package content keeps a registry's bytes on the local file system: blobs
// addressed by their digest, and the uploads that become blobs.
//
//	blobs/<algorithm>/xx/<hex>  complete, verified, never written again
//	uploads/<id>/data           what has been received so far
//	uploads/<id>/owner          whose upload it is
//	trash/                      on its way out
//
// A blob appears under its name only after its bytes were hashed while they
// arrived, synced, and found to match: a file with a digest for a name is
// right, also after kill -9 or a power cut. An upload survives a kill with all
// the bytes that reached the kernel.
//
// The package knows digests and bytes. It must never know repositories, images
// or callers; who may remove a blob is asked of its user (see Store.Remove).
package content

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

var (
	// ErrUnknownUpload: there is no such upload, or it belongs to somebody else.
	ErrUnknownUpload = errors.New("unknown upload")
	// ErrOffset: the bytes do not continue the upload where it ends.
	ErrOffset = errors.New("bytes do not continue the upload")
	// ErrDigest: the bytes are not those of the digest.
	ErrDigest = errors.New("digest does not match the content")
	// ErrShortPart: a part that was not the last had less than it must.
	ErrShortPart = errors.New("part too short")
	// ErrTooLarge: the upload grew beyond the limit.
	ErrTooLarge = errors.New("content too large")
)

// Store is the content in one directory. One process at a time may have it open.
type Store struct {
	dir string

	mu      sync.Mutex
	pins    map[Digest]int
	uploads map[string]*Upload
}

// Open opens the content below dir and makes the folders it needs.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, pins: map[Digest]int{}, uploads: map[string]*Upload{}}
	if err := os.RemoveAll(s.trash()); err != nil {
		return nil, fmt.Errorf("open content: %w", err)
	}
	blobs := filepath.Join(dir, "blobs")
	made := []string{blobs, dir}
	for _, d := range []string{blobs, filepath.Join(dir, "uploads"), s.trash()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open content: %w", err)
		}
	}
	// All folders are made and synced now, so that a commit has one directory
	// to sync and not two.
	for _, a := range algorithms {
		for i := range 256 {
			if err := os.MkdirAll(filepath.Join(blobs, a.name, fmt.Sprintf("%02x", i)), 0o700); err != nil {
				return nil, fmt.Errorf("open content: %w", err)
			}
		}
		made = append([]string{filepath.Join(blobs, a.name)}, made...)
	}
	for _, d := range made {
		if err := syncDir(d); err != nil {
			return nil, fmt.Errorf("open content: %w", err)
		}
	}
	return s, nil
}

func (s *Store) trash() string { return filepath.Join(s.dir, "trash") }

func (s *Store) path(d Digest) string {
	hex := d.Hex()
	return filepath.Join(s.dir, "blobs", d.Algorithm(), hex[:2], hex)
}

// Blob opens a blob. The error is fs.ErrNotExist if there is none. What was
// opened stays readable though the blob be removed meanwhile.
func (s *Store) Blob(d Digest) (*os.File, int64, error) {
	f, err := os.Open(s.path(d))
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// Read returns a small blob.
func (s *Store) Read(d Digest) ([]byte, error) { return os.ReadFile(s.path(d)) }

// Put stores a small blob, a manifest say, under a digest that it has, and pins it.
func (s *Store) Put(d Digest, b []byte) (*Pin, error) {
	if !d.Is(b) {
		return nil, ErrDigest
	}
	pin := s.Pin(d)
	if st, err := os.Stat(s.path(d)); err == nil && st.Size() == int64(len(b)) {
		return pin, nil
	}
	err := func() error {
		f, err := os.CreateTemp(s.trash(), "put-")
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err = f.Write(b); err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = s.install(f.Name(), d)
		}
		if err != nil {
			os.Remove(f.Name())
		}
		return err
	}()
	if err != nil {
		pin.Release()
		return nil, fmt.Errorf("put %s: %w", d, err)
	}
	return pin, nil
}

// install gives a synced file its name for good.
func (s *Store) install(file string, d Digest) error {
	to := s.path(d)
	if err := os.Rename(file, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// A Pin keeps a blob from being removed while the row that says who needs it is
// being written.
type Pin struct {
	s    *Store
	d    Digest
	once sync.Once
}

// Pin pins a digest, whether there is such a blob or not yet.
func (s *Store) Pin(d Digest) *Pin {
	s.mu.Lock()
	s.pins[d]++
	s.mu.Unlock()
	return &Pin{s: s, d: d}
}

// Release ends the pin. More than once is once.
func (p *Pin) Release() {
	p.once.Do(func() {
		p.s.mu.Lock()
		defer p.s.mu.Unlock()
		if p.s.pins[p.d]--; p.s.pins[p.d] == 0 {
			delete(p.s.pins, p.d)
		}
	})
}

// Remove removes a blob unless it is pinned or needed. needed is asked while
// nobody can pin: who pins first and then writes down the need, and who writes
// it down before the pin ends, never loses a blob.
func (s *Store) Remove(d Digest, needed func() bool) (bool, error) {
	// Out of the name space under the lock, off the disk without it: freeing a
	// large file takes its time.
	grave := filepath.Join(s.trash(), d.Hex())
	gone, err := func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pins[d] > 0 || needed() {
			return false, nil
		}
		return true, os.Rename(s.path(d), grave)
	}()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && gone {
		err = os.Remove(grave)
	}
	if err != nil {
		return false, fmt.Errorf("remove %s: %w", d, err)
	}
	return gone, nil
}

// Each calls yield with every blob and the time it was stored, until it says false.
func (s *Store) Each(yield func(d Digest, at time.Time) bool) error {
	for _, a := range algorithms {
		for i := range 256 {
			dir, err := os.ReadDir(filepath.Join(s.dir, "blobs", a.name, fmt.Sprintf("%02x", i)))
			if err != nil {
				return fmt.Errorf("list blobs: %w", err)
			}
			for _, e := range dir {
				d, ok := ParseDigest(a.name + ":" + e.Name())
				if !ok {
					continue
				}
				info, err := e.Info()
				if err != nil {
					continue // removed meanwhile
				}
				if !yield(d, info.ModTime()) {
					return nil
				}
			}
		}
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
