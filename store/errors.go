package store

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed: the database, or the watch, was closed.
	ErrClosed = errors.New("store: closed")
	// ErrConflict: UpdateFrom found that what it had read has changed since. Update never returns
	// it: it tries again until its context ends.
	ErrConflict = errors.New("store: conflict")
	// ErrTooLarge: the transaction has more operations or bytes than etcd takes at once.
	ErrTooLarge = errors.New("store: transaction too large")
	// ErrNoSpace: etcd's quota, or the disk under it, is used up. Nothing was written. Reads and
	// deletions go on.
	ErrNoSpace = errors.New("store: no space left")
	// ErrUnknown: the connection or the context ended while a commit was under way. It may have
	// happened or not; a later snapshot tells.
	ErrUnknown = errors.New("store: outcome of the commit is unknown")
	// ErrNewer: the data was written by a newer version, which this one must not touch.
	ErrNewer = errors.New("store: the data was written by a newer version of berth")
	// ErrRewound: etcd has less history than it had, as after a restore of an old backup under a
	// running server. The process must start again.
	ErrRewound = errors.New("store: etcd's history went backwards")
)

// A DamagedError tells of a stored object that cannot be read.
type DamagedError struct {
	Key string // in etcd
	Err error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("store: object %s is damaged: %v", e.Key, e.Err)
}
func (e *DamagedError) Unwrap() error { return e.Err }
