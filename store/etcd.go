package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Limits of one transaction on the embedded etcd. An external one has its own.
const (
	maxTxnOps       = 8192
	maxRequestBytes = 10<<20 - 256<<10
)

const (
	loadPage    = 1000        // keys per read when everything is read
	retryPause  = time.Second // before an external etcd is asked again
	leaderTTL   = 10          // seconds until a dead leader has lost the lead
	ownSoon     = 5 * time.Millisecond
	resignLimit = 2 * time.Second  // for giving up the lead properly
	dialTimeout = 10 * time.Second // to an external etcd
)

// etcd is the backend proper. It differs between embedded and external only in where the client
// leads, and in who cleans up.
type etcd struct {
	client *clientv3.Client
	server *server // nil: external
	log    *slog.Logger
	db     *DB

	// life ends when the backend closes or its embedded server has died.
	life   context.Context
	end    context.CancelCauseFunc
	wctx   context.Context // the watch's; RequestProgress finds the stream by it
	wg     sync.WaitGroup
	group  group
	strays map[string]bool // tables found in etcd that this process does not know
}

func openEtcd(ctx context.Context, cfg Config) (*etcd, error) {
	b := &etcd{log: cfg.Log, strays: map[string]bool{}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.life, b.end = context.WithCancelCause(context.Background())
	if len(cfg.Endpoints) == 0 {
		s, err := startServer(ctx, cfg, b.log, b.end)
		if err != nil {
			b.end(err)
			return nil, fmt.Errorf("store: start etcd in %s: %w", cfg.Dir, err)
		}
		b.server, b.client = s, s.client
		return b, nil
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, Username: cfg.Username, Password: cfg.Password,
		DialTimeout: dialTimeout, DialKeepAliveTime: dialTimeout, DialKeepAliveTimeout: dialTimeout,
		MaxCallSendMsgSize: maxRequestBytes + 512<<10,
		Logger:             zapTo(b.log, nil),
	})
	if err != nil {
		b.end(err)
		return nil, fmt.Errorf("store: connect to etcd at %v: %w", cfg.Endpoints, err)
	}
	b.client = c
	return b, nil
}

// start checks that the data is ours to use, fills the mirror and begins to follow.
func (b *etcd) start(ctx context.Context, db *DB) error {
	b.db = db
	if err := b.checkSchema(ctx); err != nil {
		return err
	}
	s, err := b.load(ctx, newState(db.metas))
	if err != nil {
		return fmt.Errorf("store: read all objects: %w", err)
	}
	db.mirror = newMirror(s)
	if damaged := db.Snapshot().Damaged(); len(damaged) > 0 {
		for _, d := range damaged {
			b.log.Error("stored object is damaged", "key", d.Key, "err", d.Err)
		}
		if !db.damaged {
			return fmt.Errorf("%w (%d damaged in all)", damaged[0], len(damaged))
		}
	}
	context.AfterFunc(b.life, func() { db.mirror.fail(context.Cause(b.life)) })
	wctx, cancel := context.WithCancel(b.life)
	b.wctx = clientv3.WithRequireLeader(wctx)
	b.wg.Go(func() {
		defer cancel()
		b.follow(s.rev)
	})
	if b.server != nil {
		b.wg.Go(func() { b.server.keepHouse(b.life, b.client, s.rev) })
	}
	return nil
}

// checkSchema creates the schema version and the note of the data key, or compares them.
func (b *etcd) checkSchema(ctx context.Context) error {
	key := b.db.codec.keys.current().String()
	for {
		got, err := b.client.Get(ctx, keyRoot, clientv3.WithRange(keySealKey+"\x00"))
		if err != nil {
			return fmt.Errorf("store: read schema version: %w", err)
		}
		have := map[string]string{}
		for _, kv := range got.Kvs {
			have[string(kv.Key)] = string(kv.Value)
		}
		v, ok := have[keySchema]
		if !ok {
			_, err := b.client.Txn(ctx).
				If(clientv3.Compare(clientv3.CreateRevision(keySchema), "=", 0)).
				Then(clientv3.OpPut(keySchema, strconv.Itoa(schemaVersion)), clientv3.OpPut(keySealKey, key)).
				Commit()
			if err != nil {
				return fmt.Errorf("store: write schema version: %w", err)
			}
			continue
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return &DamagedError{keySchema, fmt.Errorf("%q is not a version", v)}
		}
		if n > schemaVersion {
			return fmt.Errorf("%w: its schema is %d, this program knows up to %d", ErrNewer, n, schemaVersion)
		}
		if need := have[keySealKey]; need != "" && !b.db.codec.keys.has(need) {
			return fmt.Errorf("store: secrets are sealed with data key %s, but the data key file has others: bring the file of the region's first server here", need)
		}
		return nil
	}
}

// load reads every object at one revision. Entries that have is up to date with are kept.
func (b *etcd) load(ctx context.Context, have *state) (*state, error) {
	metas := map[string]*tableMeta{}
	for _, m := range b.db.metas {
		metas[m.name] = m
	}
	var (
		changes []change
		rev     int64
		from    = keyObjects
		end     = clientv3.GetPrefixRangeEnd(keyObjects)
	)
	for {
		got, err := b.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(loadPage), clientv3.WithRev(rev))
		if errors.Is(err, rpctypes.ErrCompacted) {
			changes, rev, from = nil, 0, keyObjects
			continue
		}
		if err != nil {
			return nil, err
		}
		if rev == 0 {
			rev = got.Header.Revision
		}
		for _, kv := range got.Kvs {
			m, key, ok := b.object(metas, string(kv.Key))
			if !ok {
				continue
			}
			e := have.lookup(m, key)
			if e == nil || e.rev != kv.ModRevision {
				e = b.read(m, key, kv.ModRevision, kv.Value)
			}
			changes = append(changes, change{m, key, e})
		}
		if !got.More || len(got.Kvs) == 0 {
			return newState(b.db.metas).with(rev, changes), nil
		}
		from = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
	}
}

func (b *etcd) read(m *tableMeta, key string, rev int64, value []byte) *entry {
	e := b.db.codec.load(m, key, rev, value)
	if b.db.frozen && e.err == nil {
		e.freeze()
	}
	return e
}

// object says of which table a key is.
func (b *etcd) object(metas map[string]*tableMeta, k string) (*tableMeta, string, bool) {
	table, key, ok := splitKey(k)
	if !ok {
		return nil, "", false
	}
	m := metas[table]
	if m == nil && !b.strays[table] {
		b.strays[table] = true
		b.log.Warn("etcd holds a table that this version does not know", "table", table)
	}
	return m, key, m != nil
}

// follow keeps the mirror going from rev on until the backend's life ends.
func (b *etcd) follow(rev int64) {
	for b.life.Err() == nil {
		err := b.watch(rev)
		if b.life.Err() != nil {
			return
		}
		// Compacted away under us, or the connection is of no use: read everything anew.
		b.log.Warn("watch was interrupted", "revision", rev, "err", err)
		for {
			s, err := b.load(b.life, b.db.mirror.load())
			if err == nil {
				if s.rev < b.db.mirror.load().rev {
					b.end(ErrRewound)
					return
				}
				b.db.mirror.replace(s, b.db.metas)
				rev = s.rev
				break
			}
			if !pause(b.life) {
				return
			}
			b.log.Warn("cannot read etcd", "err", err)
		}
	}
}

// pause waits before an outside service is tried again; it reports whether there is a point.
func pause(ctx context.Context) bool {
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch applies what happens after rev until the stream breaks for good.
func (b *etcd) watch(rev int64) error {
	metas := map[string]*tableMeta{}
	for _, m := range b.db.metas {
		metas[m.name] = m
	}
	ctx, cancel := context.WithCancel(b.wctx)
	defer cancel()
	for resp := range b.client.Watch(ctx, keyRoot, clientv3.WithPrefix(), clientv3.WithRev(rev+1)) {
		if err := resp.Err(); err != nil {
			return err
		}
		if resp.IsProgressNotify() {
			b.db.mirror.advance(resp.Header.Revision, nil)
			continue
		}
		// A response holds whole revisions. Those that our own commits brought are skipped
		// before they cost a decoding.
		var (
			changes []change
			last    int64
		)
		for _, ev := range resp.Events {
			last = max(last, ev.Kv.ModRevision)
		}
		if b.server != nil && b.group.busy() {
			// Nobody else writes: most likely the one who does is about to tell the mirror.
			limit, stop := context.WithTimeout(ctx, ownSoon)
			_ = b.db.mirror.wait(limit, last)
			stop()
		}
		passed := b.db.mirror.load().rev
		for _, ev := range resp.Events {
			if ev.Kv.ModRevision <= passed {
				continue
			}
			m, key, ok := b.object(metas, string(ev.Kv.Key))
			if !ok {
				continue
			}
			c := change{m: m, key: key}
			if ev.Type == clientv3.EventTypePut {
				c.e = b.read(m, key, ev.Kv.ModRevision, ev.Kv.Value)
				if c.e.err != nil {
					b.log.Error("stored object is damaged", "key", string(ev.Kv.Key), "err", c.e.err)
				}
			}
			changes = append(changes, c)
		}
		if last > passed {
			b.db.mirror.advance(last, changes)
		}
		if b.server != nil {
			b.server.reached(last)
		}
	}
	return errors.New("watch ended")
}

func (b *etcd) commit(ctx context.Context, r *request) (int64, error) {
	if len(r.ops) > maxTxnOps || len(r.compares)+len(r.ranges) > maxTxnOps || r.size() > maxRequestBytes {
		return 0, fmt.Errorf("%w: %d writes, %d reads, %d bytes", ErrTooLarge, len(r.ops), len(r.compares), r.size())
	}
	puts := slices.ContainsFunc(r.ops, func(o op) bool { return o.value != nil })
	if b.server != nil {
		return b.together(ctx, r, puts)
	}
	cctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)()
	cmps, ops := r.txn()
	resp, err := b.client.Txn(cctx).If(cmps...).Then(ops...).Commit()
	if err != nil {
		return 0, b.commitError(err)
	}
	if !resp.Succeeded {
		return resp.Header.Revision, errStale
	}
	b.committed(resp.Header.Revision, puts, r.size(), r)
	return resp.Header.Revision, nil
}

// txn is the transaction in the words of etcd's client.
func (r *request) txn() ([]clientv3.Cmp, []clientv3.Op) {
	ops := make([]clientv3.Op, len(r.ops))
	for i, o := range r.ops {
		if o.value == nil {
			ops[i] = clientv3.OpDelete(o.key)
		} else {
			ops[i] = clientv3.OpPut(o.key, string(o.value))
		}
	}
	cmps := make([]clientv3.Cmp, 0, len(r.compares)+len(r.ranges))
	for _, c := range r.compares {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(c.key), "=", c.rev))
	}
	for _, g := range r.ranges {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(g.prefix), "<", g.rev+1).WithPrefix())
	}
	return cmps, ops
}

// committed tells the mirror and the embedded server of what happened at a revision.
func (b *etcd) committed(rev int64, puts bool, bytes int, all ...*request) {
	if len(all) == 0 {
		return
	}
	switch {
	case b.server == nil:
	case puts:
		b.server.put(bytes)
	default:
		b.server.freed()
	}
	b.db.landed(rev, all...)
}

// commitError sorts out which errors mean that nothing happened.
func (b *etcd) commitError(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		if b.server != nil {
			b.server.full()
		}
		return ErrNoSpace
	case errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrRequestTooLarge):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, rpctypes.ErrTooManyRequests), errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("store: commit: %w", err)
	case status.Code(err) == codes.ResourceExhausted: // gRPC's own limit on messages
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	if b.life.Err() != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, context.Cause(b.life))
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// catchUp makes an external etcd tell how far it is, in case that the revision in question was
// made by keys that are not ours.
func (b *etcd) catchUp(ctx context.Context, rev int64) {
	if b.server == nil {
		// An error only means that the stream is being renewed, which will tell as much.
		_ = b.client.RequestProgress(b.wctx)
	}
}

func (b *etcd) lead(ctx context.Context, name string, fn func(context.Context) error) error {
	if b.server != nil {
		return leadAlone(ctx, b.life, fn)
	}
	for {
		done, err := b.leadOnce(ctx, name, fn)
		switch {
		case done:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case b.life.Err() != nil:
			return context.Cause(b.life)
		}
		b.log.Warn("lead was lost", "err", err)
		if !pause(ctx) {
			return ctx.Err()
		}
	}
}

// leadOnce campaigns and leads. done means that fn returned while it still had the lead.
func (b *etcd) leadOnce(ctx context.Context, name string, fn func(context.Context) error) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)()
	s, err := concurrency.NewSession(b.client, concurrency.WithTTL(leaderTTL), concurrency.WithContext(ctx))
	if err != nil {
		return false, err
	}
	// Closing revokes the lease, and with it the candidacy. ctx may have ended by then, so it is
	// done with the session's lease and a context of its own.
	defer func() {
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignLimit)
		defer cancel()
		s.Orphan()
		if _, err := b.client.Revoke(rctx, s.Lease()); err != nil {
			b.log.Warn("could not give up the lead: it ends with its lease", "err", err)
		}
	}()
	if err := concurrency.NewElection(s, keyLeader+name).Campaign(ctx, ""); err != nil {
		return false, err
	}
	fctx, stop := context.WithCancel(ctx)
	defer stop()
	lost := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-s.Done():
			close(lost)
			stop()
		case <-fctx.Done():
		}
	}()
	err = fn(fctx)
	stop()
	<-watched
	select {
	case <-lost:
		return false, err
	default:
		return b.life.Err() == nil, err
	}
}

func (b *etcd) sealedWith(ctx context.Context, id keyID) error {
	_, err := b.client.Put(ctx, keySealKey, id.String())
	return err
}

func (b *etcd) close() error {
	b.end(ErrClosed)
	b.wg.Wait()
	if b.server != nil {
		return b.server.stop()
	}
	return b.client.Close()
}
