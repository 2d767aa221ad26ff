// Package control turns decisions into transactions.
//
// A controller is a pure function: it looks at a snapshot and a time, and says
// what must change. The loop that calls it is written once, here: wait for a
// change (or the time the plan asked for), plan, apply all of it in one
// transaction. The transaction fails if anything the plan replaces has changed
// since the snapshot; then the plan is made anew. So a plan never acts on a
// world that is gone, and two servers that plan at once cannot both win.
//
// Controllers live in the folders below, one decision each. They must never
// read a clock, wait, or talk to anything.
package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/berth-run/berth/store"
)

// Input is what a plan may know.
type Input struct {
	Read store.Reader
	// Changed since the last plan that was applied. Not to be looked at if All is set.
	Changed store.Changes
	// All: plan for everything. So it is at the first plan, and when a Wake has come.
	All bool
	Now time.Time
	// NewID gives the plan random ids: 32 hex digits.
	NewID func() string
}

// Plan says what must change.
type Plan struct {
	Changes []Change
	// Wake asks for another plan at that time if nothing happens before; zero: only changes matter.
	Wake time.Time
}

// Put adds a change: old, as it was in the snapshot (nil: absent), becomes next.
func Put[T any](p *Plan, t *store.Table[T], key string, old, next *T) {
	p.Changes = append(p.Changes, put[T]{t, key, old, next})
}

// Delete adds the removal of old.
func Delete[T any](p *Plan, t *store.Table[T], key string, old *T) {
	p.Changes = append(p.Changes, put[T]{t, key, old, nil})
}

// DeleteRow adds the removal of a row of any table.
func DeleteRow(p *Plan, t store.AnyTable, key string, old any) {
	p.Changes = append(p.Changes, deleteRow{t, key, old})
}

type deleteRow struct {
	t   store.AnyTable
	key string
	old any
}

func (c deleteRow) apply(tx *store.Tx) error {
	if store.Row(tx, c.t, c.key) != c.old {
		return errStale
	}
	store.DeleteRow(tx, c.t, c.key)
	return nil
}

// WakeAt asks for a plan at t, or at an earlier time already asked for.
func (p *Plan) WakeAt(t time.Time) {
	if p.Wake.IsZero() || t.Before(p.Wake) {
		p.Wake = t
	}
}

// Change is one row that is put, deleted, or must be as it was.
type Change interface{ apply(*store.Tx) error }

type put[T any] struct {
	t         *store.Table[T]
	key       string
	old, next *T
}

// Require adds no change: it makes the plan fail if the row is no longer have
// (nil: absent). What a plan rests on and does not replace is named so; what it
// reads by index or range cannot be, and must be guarded by who changes it.
func Require[T any](p *Plan, t *store.Table[T], key string, have *T) {
	p.Changes = append(p.Changes, require[T]{t, key, have})
}

type require[T any] struct {
	t    *store.Table[T]
	key  string
	have *T
}

func (c require[T]) apply(tx *store.Tx) error {
	if have, _ := c.t.Get(tx, c.key); have != c.have {
		return errStale
	}
	return nil
}

// RequireRange adds no change: it makes the plan fail if the rows whose key
// begins with prefix are no longer those that r has. It speaks of what is there
// before the changes that follow it in the plan.
func RequireRange[T any](p *Plan, t *store.Table[T], prefix string, r store.Reader) {
	p.Changes = append(p.Changes, requireRange[T]{t, prefix, r})
}

type requireRange[T any] struct {
	t      *store.Table[T]
	prefix string
	seen   store.Reader
}

func (c requireRange[T]) apply(tx *store.Tx) error {
	c.t.Guard(tx, c.prefix)
	next, stop := iter.Pull(c.t.Prefix(c.seen, c.prefix))
	defer stop()
	for have := range c.t.Prefix(tx, c.prefix) {
		if saw, _ := next(); saw != have {
			return errStale
		}
	}
	if _, more := next(); more {
		return errStale
	}
	return nil
}

// errStale: a row is no longer what the plan saw.
var errStale = errors.New("stale plan")

func (c put[T]) apply(tx *store.Tx) error {
	// Objects are immutable, so the same pointer is the same revision.
	if have, _ := c.t.Get(tx, c.key); have != c.old {
		return errStale
	}
	if c.next == nil {
		c.t.Delete(tx, c.key)
	} else {
		c.t.Put(tx, c.next)
	}
	return nil
}

// Apply does the plan in one transaction. It reports false, and does nothing,
// when the plan is stale.
func Apply(ctx context.Context, db *store.DB, p Plan) (bool, error) {
	if len(p.Changes) == 0 {
		return true, nil
	}
	err := db.Update(ctx, func(tx *store.Tx) error {
		for _, c := range p.Changes {
			if err := c.apply(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errStale) {
		return false, nil
	}
	return err == nil, err
}

// Controller is one decision.
type Controller struct {
	Name string
	// Reads are the tables whose changes make a new plan necessary.
	Reads []store.AnyTable
	Plan  func(Input) Plan
}

// Clock is the time and the randomness of a loop; tests bring their own.
type Clock struct {
	Now   func() time.Time
	NewID func() string
}

// retry is how long a plan that the store had no space for waits.
const retry = 5 * time.Second

// Run plans and applies until ctx ends. An error of the store that is not
// ctx's ends it: the caller decides whether to begin again.
func Run(ctx context.Context, db *store.DB, c Controller, clock Clock, log *slog.Logger) error {
	log = log.With("controller", c.Name)
	w := db.Watch(c.Reads...)
	defer w.Close()
	var wake time.Time
	for {
		wait, cancel := ctx, context.CancelFunc(func() {})
		if !wake.IsZero() {
			wait, cancel = context.WithTimeout(ctx, max(wake.Sub(clock.Now()), time.Millisecond))
		}
		snap, changed, err := w.Next(wait)
		cancel()
		all := changed.All
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			snap, all = db.Snapshot(), true
		case err != nil:
			return fmt.Errorf("watch for %s: %w", c.Name, err)
		}
		for {
			p := c.Plan(Input{Read: snap, Changed: changed, All: all, Now: clock.Now(), NewID: clock.NewID})
			ok, err := Apply(ctx, db, p)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, store.ErrNoSpace), errors.Is(err, store.ErrTooLarge):
				// What is running is not touched. The changes that led here do not come again, so
				// another plan for everything is asked for, once there may be space.
				log.Error("plan not applied", "err", err)
				p.WakeAt(clock.Now().Add(retry))
			case err != nil:
				return fmt.Errorf("apply plan of %s: %w", c.Name, err)
			case !ok:
				// Somebody was faster. What changed then is in the watch too, so planning the
				// same keys on a newer snapshot loses nothing.
				snap = db.Snapshot()
				continue
			}
			if len(p.Changes) > 0 {
				log.Debug("applied", "changes", len(p.Changes))
			}
			wake = p.Wake
			break
		}
	}
}
