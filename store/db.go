package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Config says where the data is.
type Config struct {
	// Dir holds the embedded etcd's data and the data key. Required unless Endpoints and
	// SealKeyFile are given.
	Dir string
	// Endpoints of an external etcd. Empty: etcd runs inside this process, and listens nowhere.
	Endpoints []string
	// Tables to serve. Empty: every table that was declared in this process.
	Tables []AnyTable
	// Log gets what etcd has to say, from warnings upwards. nil: nothing is logged.
	Log *slog.Logger
	// TLS, Username and Password are for an external etcd that asks for them.
	TLS                *tls.Config
	Username, Password string
	// SealKeyFile holds the region's data keys; all servers of a region need the same.
	// Empty: data.key in Dir. It is made if it does not exist.
	SealKeyFile string
	// QuotaBytes bounds the embedded etcd's database. 0: 2 GiB.
	QuotaBytes int64
	// AllowDamaged opens even if objects cannot be read. They are absent from reads, and a
	// transaction that gets one fails; Put and Delete repair. Snapshot.Damaged lists them.
	AllowDamaged bool
	// CheckFrozen panics when an object that was put is found modified. For tests: it encodes
	// every object that a transaction reads.
	CheckFrozen bool
	// NoFsync risks all data for speed. For tests that do not kill.
	NoFsync bool
}

// A DB is the region's state: tables of immutable objects that change by transactions.
type DB struct {
	b       backend
	mirror  *mirror
	codec   *codec
	log     *slog.Logger
	frozen  bool
	damaged bool // may be opened with damaged objects
	metas   []*tableMeta

	flights flights
	// turn is held by everyone who commits, and wholly by one who lost too often.
	turn *semaphore.Weighted

	lead   chan struct{} // holds a token while a WhileLeader of this process runs
	closed chan struct{}
	once   sync.Once
}

// A backend keeps the keys and orders the commits. Memory and etcd are the two.
type backend interface {
	// commit does the ops at one revision if all compares hold, and tells the mirror (landed);
	// otherwise it returns errStale and a revision at which they do not.
	commit(ctx context.Context, r *request) (rev int64, err error)
	// catchUp is called when the mirror lags behind rev, to make the backend tell it.
	catchUp(ctx context.Context, rev int64)
	// lead runs fn while this process is the leader; see DB.WhileLeader.
	lead(ctx context.Context, name string, fn func(context.Context) error) error
	// sealedWith notes for the next start which data key is needed.
	sealedWith(ctx context.Context, id keyID) error
	// close returns when nothing of the backend runs any more.
	close() error
}

// The callback must run again: a compare failed, or would most likely have.
var (
	errStale = errors.New("stale")
	errBusy  = errors.New("busy")
)

const turns = 1 << 30

func newDB(cfg Config, keys *keyring) *DB {
	db := &DB{
		codec:   &codec{keys: keys},
		log:     cfg.Log,
		frozen:  cfg.CheckFrozen,
		damaged: cfg.AllowDamaged,
		turn:    semaphore.NewWeighted(turns),
		lead:    make(chan struct{}, 1),
		closed:  make(chan struct{}),
	}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Tables) == 0 {
		db.metas = registered()
	} else {
		db.metas = append(db.metas, guards.m)
		for _, t := range cfg.Tables {
			if t.meta() != guards.m {
				db.metas = append(db.metas, t.meta())
			}
		}
	}
	return db
}

// Open starts or joins etcd and reads everything. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if len(cfg.Endpoints) == 0 && cfg.Dir == "" {
		return nil, errors.New("store: neither Dir nor Endpoints is set")
	}
	path := cfg.SealKeyFile
	if path == "" {
		if cfg.Dir == "" {
			return nil, errors.New("store: neither Dir nor SealKeyFile is set")
		}
		path = filepath.Join(cfg.Dir, "data.key")
	}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	b, err := openEtcd(ctx, cfg)
	if err != nil {
		return nil, err
	}
	// The key file is made only now: the embedded etcd holds the folder's lock.
	keys, err := loadKeyring(path)
	if err != nil {
		b.close()
		return nil, fmt.Errorf("store: %w", err)
	}
	db := newDB(cfg, keys)
	if err := b.start(ctx, db); err != nil {
		b.close()
		return nil, err
	}
	db.b = b
	return db, nil
}

// OpenMemory returns a database that forgets. It behaves as one on etcd does, conflicts and
// watches included, and checks that objects are not modified once put.
func OpenMemory() *DB {
	keys := newKeyring()
	if err := keys.extend(); err != nil {
		panic(err) // a key of our own making is well-formed
	}
	db := newDB(Config{CheckFrozen: true}, keys)
	db.mirror = newMirror(newState(db.metas))
	db.b = newMemory(db)
	return db
}

// Close ends every watch and waits for everything that Open started. Snapshots stay good.
func (db *DB) Close() error {
	var err error
	db.once.Do(func() {
		db.mirror.fail(ErrClosed)
		err = db.b.close()
		close(db.closed)
	})
	<-db.closed
	return err
}

// Snapshot is the newest state. It includes every transaction whose Update has returned here.
func (db *DB) Snapshot() *Snapshot { return &Snapshot{db.mirror.load()} }

// SnapshotAt is the newest state once it includes rev, which may come from another server.
func (db *DB) SnapshotAt(ctx context.Context, rev int64) (*Snapshot, error) {
	if db.mirror.load().rev < rev {
		db.b.catchUp(ctx, rev)
	}
	if err := db.mirror.wait(ctx, rev); err != nil {
		return nil, err
	}
	return db.Snapshot(), nil
}

// Watch follows the given tables; without any, all.
func (db *DB) Watch(tables ...AnyTable) *Watch { return db.mirror.watch(tables) }

// Update runs fn on the newest state and commits what it wrote as one transaction. If meanwhile
// anything changed that fn got or wrote by key, fn runs again on a newer state: it must have no
// effect but through tx, and set all its results anew each time. If fn returns an error nothing is
// written. When Update returns nil the change is durable and in db.Snapshot().
//
// What fn reads by All, Prefix, By or Count is of one consistent snapshot but is not compared at
// commit; see Tx.Guard and Table.Guard.
func (db *DB) Update(ctx context.Context, fn func(tx *Tx) error) error {
	_, err := db.UpdateRev(ctx, fn)
	return err
}

// giveWay is how much a transaction may lose before it makes all others wait for it. An attempt
// that etcd turned down counts for lostCommit, one that ended before it got there for 1.
const (
	giveWay    = 64
	lostCommit = 8
)

// UpdateRev is Update that also returns the revision of the commit; if fn wrote nothing, that of
// the state it read.
func (db *DB) UpdateRev(ctx context.Context, fn func(tx *Tx) error) (int64, error) {
	fn = conditioned(ctx, fn)
	for lost := 0; ; {
		rev, err := db.attempt(ctx, nil, fn, lost >= giveWay)
		switch {
		case errors.Is(err, errBusy):
			lost++
		case errors.Is(err, errStale):
			lost += lostCommit
		default:
			return rev, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

// UpdateFrom is Update on the snapshot that a decision was made from. If anything that fn gets or
// writes by key has changed since, nothing is written and it returns ErrConflict.
func (db *DB) UpdateFrom(ctx context.Context, snap *Snapshot, fn func(tx *Tx) error) (int64, error) {
	fn = conditioned(ctx, fn)
	for {
		rev, err := db.attempt(ctx, snap.s, fn, false)
		switch {
		case errors.Is(err, errStale):
			return 0, ErrConflict
		case !errors.Is(err, errBusy):
			return rev, err
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
		// What was in the way may have failed itself; if not, the compares will tell.
	}
}

// attempt is one try of a transaction, on base or, if nil, on the newest state. It returns
// errStale if somebody else was faster, at a time when the mirror knows of that.
func (db *DB) attempt(ctx context.Context, base *state, fn func(*Tx) error, alone bool) (int64, error) {
	weight := int64(1)
	if alone {
		weight = turns
	}
	if err := db.turn.Acquire(ctx, weight); err != nil {
		return 0, err
	}
	defer db.turn.Release(weight)
	if err := db.mirror.failure(); err != nil {
		return 0, err
	}
	if base == nil {
		base = db.mirror.load()
	}
	tx := newTx(db, base)
	req, err := tx.run(fn)
	if err != nil {
		return 0, err
	}
	if len(req.ops) == 0 {
		return base.rev, nil
	}
	// Whoever is about to write what we read would make us fail: wait for it here instead of
	// in etcd.
	if busy := db.flights.start(req); busy != nil {
		select {
		case <-busy:
			return 0, errBusy
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	defer db.flights.end(req)
	rev, err := db.b.commit(ctx, req)
	switch {
	case errors.Is(err, errStale):
		if db.mirror.load().rev < rev {
			db.b.catchUp(ctx, rev)
			if err := db.mirror.wait(ctx, rev); err != nil {
				return 0, err
			}
		}
		return 0, errStale
	case err != nil:
		return 0, err
	}
	if err := db.mirror.wait(ctx, rev); err != nil {
		return rev, fmt.Errorf("%w: it happened at revision %d but is not visible yet: %w", ErrUnknown, rev, err)
	}
	return rev, nil
}

// landed tells the mirror of everything that was committed at one revision.
func (db *DB) landed(rev int64, all ...*request) {
	changes := all[0].changes
	for _, r := range all[1:] {
		changes = append(changes, r.changes...)
	}
	for _, c := range changes {
		if c.e != nil {
			c.e.rev = rev
		}
	}
	db.mirror.commit(rev, changes)
}

// flights are the keys that commits under way are about to write.
type flights struct {
	mu   sync.Mutex
	keys map[string]chan struct{}
}

// start registers the writes of r, unless something r depends on is being written: then it returns
// a channel that is closed when that is over.
func (f *flights) start(r *request) (busy <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range r.compares {
		if ch, ok := f.keys[c.key]; ok {
			return ch
		}
	}
	if f.keys == nil {
		f.keys = map[string]chan struct{}{}
	}
	done := make(chan struct{})
	for _, o := range r.ops {
		f.keys[o.key] = done
	}
	return nil
}

func (f *flights) end(r *request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(r.ops) == 0 {
		return
	}
	close(f.keys[r.ops[0].key])
	for _, o := range r.ops {
		delete(f.keys, o.key)
	}
}

// WhileLeader runs fn while this process leads the region, with a context that ends when it leads
// no longer or ctx ends. When fn returns by itself, WhileLeader gives the lead up and returns fn's
// error. When the lead is lost, it waits for fn to return, then to lead again, and runs fn anew.
// Of several calls in one process, too, only one leads at a time. With the embedded etcd there is
// nobody else: it leads at once.
//
// A leader that was cut off may still be at work when the next one begins; transactions keep the
// two from overwriting each other unseen, but an effect outside the store may happen twice.
func (db *DB) WhileLeader(ctx context.Context, fn func(ctx context.Context) error) error {
	select {
	case db.lead <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-db.lead }()
	return db.b.lead(ctx, "region", fn)
}

// RotateSealKey makes a new data key and seals every sealed object with it. Old keys stay in the
// file, for backups. With an external etcd the other servers need the new file first; see Config.
func (db *DB) RotateSealKey(ctx context.Context) error {
	if err := db.codec.keys.extend(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, m := range db.metas {
		if !m.sealed {
			continue
		}
		for e := range db.mirror.load().scan(m, "") {
			err := db.Update(ctx, func(tx *Tx) error {
				if now := tx.lookup(m, e.key); now != nil {
					tx.reseal(m, now)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("seal %s %q anew: %w", m.name, e.key, err)
			}
		}
	}
	return db.b.sealedWith(ctx, db.codec.keys.current())
}

// Wait returns when the database can serve no longer, and why: ErrClosed after Close. A server
// whose database has failed must start again.
func (db *DB) Wait(ctx context.Context) error {
	select {
	case <-db.mirror.failed:
		return db.mirror.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}
