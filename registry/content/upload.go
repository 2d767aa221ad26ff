package content

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	bufferSize = 256 << 10
	buffers    = 4
	// flushEvery is how much is written before the disk is told to begin, so
	// that the sync at the end finds little left to do.
	flushEvery = 8 << 20
)

var bufferPool = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Upload is content on its way in. It lives in its folder; what is kept in
// memory is the running hash, and that is found again by reading what is there.
type Upload struct {
	ID    string
	Owner string
	s     *Store
	dir   string
	busy  chan struct{} // holds one element while somebody uses the fields below
	hash  hash.Hash     // sha256 of the first size bytes of data; nil: not known
	size  int64
	used  time.Time
	gone  bool // committed or cancelled

	most atomic.Int64 // how large it may become; 0: there is no limit

	// Only for uploads that are made of parts with a least size, and only in
	// memory: a restart forgives a short part.
	short, tooShort bool
}

// beyond says whether a size is more than the upload may have.
func (u *Upload) beyond(size int64) bool {
	most := u.most.Load()
	return most > 0 && size > most
}

// Begin starts an upload for an owner, which is any short text. It may grow up
// to most bytes; 0: there is no limit.
func (s *Store) Begin(owner string, most int64) (*Upload, error) {
	id := newID()
	u := &Upload{ID: id, Owner: owner, s: s, dir: filepath.Join(s.dir, "uploads", id), busy: make(chan struct{}, 1), hash: sha256.New(), used: time.Now()}
	u.most.Store(most)
	// Made aside and moved into place: nobody sees half an upload.
	dir := filepath.Join(s.trash(), id)
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "owner"), []byte(owner), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "data"), nil, 0o600)
	}
	if err == nil {
		s.mu.Lock()
		s.uploads[id] = u
		s.mu.Unlock()
		if err = os.Rename(dir, u.dir); err != nil {
			s.mu.Lock()
			delete(s.uploads, id)
			s.mu.Unlock()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin upload: %w", err), os.RemoveAll(dir))
	}
	return u, nil
}

// Upload finds an upload, also one that an earlier process began. It may grow
// up to most bytes from now on.
func (s *Store) Upload(id, owner string, most int64) (*Upload, error) {
	if !validID(id) {
		return nil, ErrUnknownUpload
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.uploads[id]; u != nil {
		if u.Owner != owner {
			return nil, ErrUnknownUpload
		}
		u.most.Store(most)
		return u, nil
	}
	dir := filepath.Join(s.dir, "uploads", id)
	b, err := os.ReadFile(filepath.Join(dir, "owner"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrUnknownUpload
	}
	if err != nil {
		return nil, fmt.Errorf("upload %s: %w", id, err)
	}
	if string(b) != owner {
		return nil, ErrUnknownUpload
	}
	u := &Upload{ID: id, Owner: owner, s: s, dir: dir, busy: make(chan struct{}, 1), used: time.Now()}
	u.most.Store(most)
	s.uploads[id] = u
	return u, nil
}

// acquire makes the caller the upload's only user. A second request for the
// same upload waits for the first one, whose client may just have gone away.
func (u *Upload) acquire(ctx context.Context) error {
	select {
	case u.busy <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if u.gone {
		<-u.busy
		return ErrUnknownUpload
	}
	u.used = time.Now()
	return nil
}

func (u *Upload) release() {
	u.used = time.Now()
	<-u.busy
}

// open opens the data at its end, and finds the hash again where it is not known.
func (u *Upload) open() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(u.dir, "data"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrUnknownUpload
	}
	if err != nil {
		return nil, err
	}
	if u.hash == nil {
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err != nil {
			f.Close()
			return nil, err
		}
		u.hash, u.size = h, n
		return f, nil
	}
	if _, err := f.Seek(u.size, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Size says how many bytes have arrived.
func (u *Upload) Size(ctx context.Context) (int64, error) {
	if err := u.acquire(ctx); err != nil {
		return 0, err
	}
	defer u.release()
	if u.hash != nil {
		return u.size, nil
	}
	f, err := u.open()
	if err != nil {
		return 0, err
	}
	return u.size, f.Close()
}

// Append adds what r gives. at is where the bytes belong, -1 for the end. It
// returns the size that the upload has now, also with an error: what arrived
// before it is kept, and can be continued from there.
func (u *Upload) Append(ctx context.Context, r io.Reader, at int64) (int64, error) {
	if err := u.acquire(ctx); err != nil {
		return 0, err
	}
	defer u.release()
	return u.append(r, at)
}

// AppendPart is Append for a part that must have at least least bytes unless it
// is the last. Whether it was the last shows at the end: Commit says ErrShortPart.
func (u *Upload) AppendPart(ctx context.Context, r io.Reader, at, least int64) (int64, error) {
	if err := u.acquire(ctx); err != nil {
		return 0, err
	}
	defer u.release()
	before := at
	size, err := u.append(r, at)
	if err == nil {
		u.tooShort = u.tooShort || u.short
		u.short = size-before < least
	}
	return size, err
}

func (u *Upload) append(r io.Reader, at int64) (_ int64, err error) {
	f, err := u.open()
	if err != nil {
		return u.size, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if at >= 0 && at != u.size {
		return u.size, ErrOffset
	}

	// One goroutine receives and writes, another hashes: on two cores the
	// upload costs what the slower of them costs, not the sum.
	type chunk struct {
		buf *[bufferSize]byte
		n   int
	}
	var (
		full  chan chunk
		free  chan *[bufferSize]byte
		done  chan struct{}
		made  int
		begun = u.size
	)
	next := func() *[bufferSize]byte {
		if made < buffers {
			select {
			case b := <-free: // nil channel: never
				return b
			default:
				made++
				return bufferPool.Get().(*[bufferSize]byte)
			}
		}
		return <-free
	}
	buf := next()
	var spare []*[bufferSize]byte
	for {
		n, rerr := readFull(r, buf[:])
		if u.beyond(u.size + int64(n)) {
			n, rerr = 0, ErrTooLarge
		}
		n, werr := f.Write(buf[:n])
		u.size += int64(n)
		err = werr
		if err == nil && rerr != io.EOF {
			err = rerr
		}
		last := err != nil || rerr != nil
		if full == nil && last {
			u.hash.Write(buf[:n]) // fits one buffer: no second goroutine
			spare = append(spare, buf)
			break
		}
		if full == nil {
			full, free, done = make(chan chunk, buffers), make(chan *[bufferSize]byte, buffers), make(chan struct{})
			go func() {
				defer close(done)
				for c := range full {
					u.hash.Write(c.buf[:c.n])
					free <- c.buf
				}
			}()
		}
		full <- chunk{buf, n}
		if u.size-begun >= flushEvery {
			// A hint only: what it says is done again, and checked, by the sync.
			unix.SyncFileRange(int(f.Fd()), begun, u.size-begun, unix.SYNC_FILE_RANGE_WRITE)
			begun = u.size
		}
		if last {
			break
		}
		buf = next()
	}
	if full != nil {
		close(full)
		<-done
		for range made {
			spare = append(spare, <-free)
		}
	}
	for _, b := range spare {
		bufferPool.Put(b)
	}
	return u.size, err
}

// readFull fills b as far as r goes. The error is r's own, io.EOF at the end.
func readFull(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// Commit makes the upload a blob, pinned, if its bytes have the digest. r, if
// not nil, gives its last bytes. After ErrDigest the upload is gone.
func (u *Upload) Commit(ctx context.Context, d Digest, r io.Reader, at int64) (size int64, _ *Pin, err error) {
	if err := u.acquire(ctx); err != nil {
		return 0, nil, err
	}
	defer u.release()
	if r != nil {
		if n, err := u.append(r, at); err != nil {
			return n, nil, err
		}
	}
	f, err := u.open()
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	if u.tooShort {
		return u.size, nil, errors.Join(ErrShortPart, u.discard())
	}
	sum := u.hash.Sum(nil)
	if d.Algorithm() != "sha256" {
		h := d.hash()
		if _, err := io.Copy(h, io.NewSectionReader(f, 0, u.size)); err != nil {
			return u.size, nil, fmt.Errorf("commit upload %s: %w", u.ID, err)
		}
		sum = h.Sum(nil)
	}
	if digestOf(d.Algorithm(), sum) != d {
		return u.size, nil, errors.Join(ErrDigest, u.discard())
	}
	pin := u.s.Pin(d)
	if st, err := os.Stat(u.s.path(d)); err == nil && st.Size() == u.size {
		u.discard() // the content is here already, and safe
		return u.size, pin, nil
	}
	if err = f.Sync(); err == nil {
		err = u.s.install(f.Name(), d)
	}
	if err != nil {
		pin.Release()
		return u.size, nil, fmt.Errorf("commit upload %s: %w", u.ID, err)
	}
	// The blob is safe: should its folder stay behind, Expire sweeps it.
	u.discard()
	return u.size, pin, nil
}

// Cancel forgets the upload and its bytes.
func (u *Upload) Cancel(ctx context.Context) error {
	if err := u.acquire(ctx); err != nil {
		return err
	}
	defer u.release()
	return u.discard()
}

func (u *Upload) discard() error {
	u.gone = true
	u.s.mu.Lock()
	delete(u.s.uploads, u.ID)
	u.s.mu.Unlock()
	if err := os.RemoveAll(u.dir); err != nil {
		return fmt.Errorf("remove upload %s: %w", u.ID, err)
	}
	return nil
}

// Expire removes the uploads that nobody has touched since before.
func (s *Store) Expire(before time.Time) (removed int, err error) {
	root := filepath.Join(s.dir, "uploads")
	entries, err := os.ReadDir(root)
	if err != nil {
		return 0, fmt.Errorf("expire uploads: %w", err)
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		st, err := os.Stat(filepath.Join(dir, "data"))
		if errors.Is(err, fs.ErrNotExist) {
			st, err = os.Stat(dir)
		}
		if err != nil || st.ModTime().After(before) {
			continue
		}
		s.mu.Lock()
		u := s.uploads[e.Name()]
		s.mu.Unlock()
		if u != nil {
			select {
			case u.busy <- struct{}{}:
			default:
				continue // in use
			}
			if u.gone || u.used.After(before) {
				<-u.busy
				continue
			}
			err = u.discard()
			<-u.busy
		} else {
			err = os.RemoveAll(dir)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("expire uploads: %w", err))
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}

// newID makes an upload id, a random UUID.
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func validID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
