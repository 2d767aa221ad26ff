package store

import (
	"context"
	"strings"
	"sync"
)

// memory is a backend without etcd: it knows each key's ModRevision, as etcd does, and numbers the
// commits. The objects themselves are in the mirror.
type memory struct {
	db   *DB
	life context.Context
	end  context.CancelCauseFunc

	mu   sync.Mutex
	rev  int64
	keys map[string]int64
}

func newMemory(db *DB) *memory {
	b := &memory{db: db, keys: map[string]int64{}}
	b.life, b.end = context.WithCancelCause(context.Background())
	return b
}

func (b *memory) commit(ctx context.Context, r *request) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(r.ops) > maxTxnOps || len(r.compares)+len(r.ranges) > maxTxnOps || r.size() > maxRequestBytes {
		return 0, ErrTooLarge
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.life.Err() != nil {
		return 0, ErrClosed
	}
	for _, c := range r.compares {
		if b.keys[c.key] != c.rev {
			return b.rev, errStale
		}
	}
	for _, g := range r.ranges {
		for k, rev := range b.keys {
			if rev > g.rev && strings.HasPrefix(k, g.prefix) {
				return b.rev, errStale
			}
		}
	}
	b.rev++
	for _, o := range r.ops {
		if o.value == nil {
			delete(b.keys, o.key)
		} else {
			b.keys[o.key] = b.rev
		}
	}
	b.db.landed(b.rev, r)
	return b.rev, nil
}

// catchUp has nothing to do: every commit reaches the mirror from the goroutine that made it.
func (b *memory) catchUp(context.Context, int64) {}

func (b *memory) lead(ctx context.Context, _ string, fn func(context.Context) error) error {
	return leadAlone(ctx, b.life, fn)
}

func (b *memory) sealedWith(context.Context, keyID) error { return nil }

func (b *memory) close() error {
	b.end(ErrClosed)
	return nil
}

// leadAlone is leadership where there is nobody else: it lasts as long as the store does.
func leadAlone(ctx, life context.Context, fn func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if life.Err() != nil {
		return context.Cause(life)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(life, func() { cancel(context.Cause(life)) })()
	return fn(ctx)
}
