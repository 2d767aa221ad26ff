package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

const (
	memberName = "berth"
	// A lone member elects itself when ElectionTicks have passed without a leader, so short ticks
	// are a short start. Nobody else's clock matters.
	tickMs        = 20
	electionTicks = 2

	// Nobody catches up from our raft log, but a starting member panics if it stands for election
	// while it still replays entries that were already dropped from memory, and with short ticks it
	// stands early. So whatever can have to be replayed is kept: the entries since the last
	// snapshot, and those that etcd lets pile up before they are applied (5000).
	snapshotCount  = 1000
	catchUpEntries = 8000

	// etcd allocates a log segment at start and one ahead. Its own 64 MB make the first start slow.
	walSegment = 8 << 20
	// Commits reach the database file this often; until then the log alone has them.
	backendInterval = 500 * time.Millisecond

	defaultQuota = 2 << 30
	// diskReserve is left free so that etcd itself, which dies when a write fails, can always
	// write its log and the deletions that make room.
	diskReserve = 48 << 20
	maxPending  = 8 << 20

	// History is of use only to our own watch, which is never far behind.
	keepRevisions    = 1000
	compactRevisions = 10000
	compactInterval  = 5 * time.Minute
	// After a full database was compacted it serves again if this part of the quota suffices.
	quotaUsable = 0.95
	reclaimRest = 4

	stopLimit = 2 * time.Second
)

// server is an etcd of one member inside this process. It has no listener: the client calls it
// directly. What etcd does on a failing disk, exiting the process, is turned into an error.
type server struct {
	dir     string
	lock    *os.File
	quota   int64
	reserve uint64
	etcd    *etcdserver.EtcdServer
	client  *clientv3.Client
	kv      pb.KVServer // what client calls, without a copy of everything on the way
	log     *slog.Logger
	died    chan struct{} // closed when etcd has given up
	dying   sync.Once
	reason  string // why; set before died is closed

	revision atomic.Int64 // reached
	alarmed  atomic.Bool  // the quota was exceeded
	pending  atomic.Int64 // bytes put since the database file was last made to take them
	kick     chan struct{}
}

var segmentOnce sync.Once

// startServer returns when the server can commit. die is called if it later fails for good.
func startServer(ctx context.Context, cfg Config, log *slog.Logger, die func(error)) (_ *server, err error) {
	s := &server{dir: cfg.Dir, log: log, quota: cfg.QuotaBytes, reserve: diskReserve, kick: make(chan struct{}, 1), died: make(chan struct{})}
	if s.quota == 0 {
		s.quota = defaultQuota
	}
	if s.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	defer func() {
		select {
		case <-s.died: // see stop
		default:
			if err != nil {
				s.lock.Close()
			}
		}
	}()
	segmentOnce.Do(func() { wal.SegmentSizeBytes = walSegment })

	// etcd wants to know where its peers would find it, if it had any.
	peers := types.MustNewURLs([]string{"http://127.0.0.1:2380"})
	lg := zapTo(log, func(msg string) {
		die(fmt.Errorf("store: etcd in %s gave up: %s", cfg.Dir, msg))
		s.dying.Do(func() { s.reason = msg; close(s.died) })
	})
	ec := config.ServerConfig{
		Name:                       memberName,
		DataDir:                    filepath.Join(cfg.Dir, "etcd"),
		ClientURLs:                 types.URLs([]url.URL{}),
		PeerURLs:                   peers,
		InitialPeerURLsMap:         types.URLsMap{memberName: peers},
		InitialClusterToken:        memberName,
		NewCluster:                 true,
		TickMs:                     tickMs,
		ElectionTicks:              electionTicks,
		InitialElectionTickAdvance: true,
		PreVote:                    true,
		SnapshotCount:              snapshotCount,
		SnapshotCatchUpEntries:     catchUpEntries,
		MaxSnapFiles:               2,
		MaxWALFiles:                2,
		QuotaBackendBytes:          s.quota,
		BackendFreelistType:        bolt.FreelistMapType,
		BackendBatchInterval:       backendInterval,
		MaxTxnOps:                  maxTxnOps,
		MaxRequestBytes:            maxRequestBytes + 256<<10, // we count a little differently
		WarningApplyDuration:       time.Second,
		StrictReconfigCheck:        true,
		Logger:                     lg,
		UnsafeNoFsync:              cfg.NoFsync,
		MaxLearners:                1,
		V2Deprecation:              config.V2DeprDefault,
		ServerFeatureGate:          features.NewDefaultServerFeatureGate(memberName, lg),
		Metrics:                    "basic",
	}
	// A fatal error ends the goroutine it happens on, so it must not be the caller's.
	started := make(chan error, 1)
	go func() {
		err := errors.New("etcd gave up; the log says why")
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("etcd: %v", p)
			}
			started <- err
		}()
		e := os.MkdirAll(ec.DataDir, 0o700)
		if e == nil {
			s.etcd, e = etcdserver.NewServer(ec)
		}
		if e == nil {
			s.etcd.Start()
		}
		err = e
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	select {
	case <-s.died:
		return nil, fmt.Errorf("etcd gave up: %s", s.reason)
	case <-s.etcd.ReadyNotify():
	case <-s.etcd.StopNotify():
		return nil, errors.New("etcd stopped while starting; the log says why")
	case <-ctx.Done():
		s.etcd.HardStop()
		return nil, ctx.Err()
	}
	s.client, s.kv = v3client.New(s.etcd), v3rpc.NewQuotaKVServer(s.etcd)
	return s, nil
}

// lockDir keeps a second server from the same data.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.New("another process is using it")
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

// room says whether the disk has room for more.
func (s *server) room() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir, &fs); err != nil {
		return nil // etcd will find out
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < s.reserve {
		return fmt.Errorf("%w: the disk of %s has %d MiB free, and the last %d are kept for deletions",
			ErrNoSpace, s.dir, free>>20, s.reserve>>20)
	}
	return nil
}

// put counts what was put. etcd keeps up to half a second of it in memory, which the disk must
// still have room for when it is written: room cannot see it, so it must stay well below the reserve.
func (s *server) put(bytes int) {
	if n := s.pending.Add(int64(bytes)); n >= maxPending {
		s.pending.Add(-n)
		s.etcd.KV().Commit()
	}
}

// full is called when etcd refuses a commit for its quota, freed when something was deleted.
func (s *server) full() {
	s.alarmed.Store(true)
	s.wake()
}

func (s *server) freed() {
	if s.alarmed.Load() {
		s.wake()
	}
}

// reached tells how far history is.
func (s *server) reached(rev int64) { // called by one goroutine
	if rev > s.revision.Load() {
		s.revision.Store(rev)
		if rev%compactRevisions == 0 {
			s.wake()
		}
	}
}

func (s *server) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// keepHouse compacts history, and makes a database that had exceeded its quota usable again once
// it can be.
func (s *server) keepHouse(ctx context.Context, c *clientv3.Client, rev int64) {
	compacted := rev
	s.reached(rev)
	if len(s.etcd.Alarms()) > 0 {
		s.full()
	}
	tick := time.NewTicker(compactInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.kick:
		}
		if s.alarmed.Load() {
			began := time.Now()
			if err := s.reclaim(ctx, c); err != nil && ctx.Err() == nil {
				s.log.Error("cannot make room in etcd's database", "err", err)
			}
			// Each of many deletions asks for this, and commits wait while it runs: let them
			// have most of the time.
			rest := time.NewTimer(reclaimRest * time.Since(began))
			select {
			case <-rest.C:
			case <-ctx.Done():
			}
			rest.Stop()
			continue
		}
		if to := s.revision.Load() - keepRevisions; to > compacted {
			if _, err := c.Compact(ctx, to); err != nil {
				if ctx.Err() == nil {
					s.log.Warn("cannot compact etcd's history", "err", err)
				}
				continue
			}
			compacted = to
		}
	}
}

// reclaim drops all history, returns the free pages to the file system and, if that was enough,
// lets writes in again.
func (s *server) reclaim(ctx context.Context, c *clientv3.Client) error {
	got, err := c.Get(ctx, keySchema)
	if err != nil {
		return err
	}
	if _, err := c.Compact(ctx, got.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact: %w", err)
	}
	if err := s.etcd.Defragment(); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	size := s.etcd.Backend().Size()
	if float64(size) > quotaUsable*float64(s.quota) {
		s.log.Error("etcd's database is full: delete something", "bytes", size, "quota", s.quota)
		return nil
	}
	// What is refused from here on raises a new alarm.
	s.alarmed.Store(false)
	for _, a := range s.etcd.Alarms() {
		if a.Alarm != pb.AlarmType_NOSPACE {
			continue
		}
		_, err := s.etcd.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.MemberID, Alarm: a.Alarm})
		if err != nil {
			s.alarmed.Store(true)
			return fmt.Errorf("disarm: %w", err)
		}
	}
	s.log.Warn("etcd's database was full and has room again", "bytes", size, "quota", s.quota)
	return nil
}

// stop returns when the server is gone and everything is on disk.
func (s *server) stop() error {
	err := s.client.Close()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.etcd.HardStop()
	}()
	select {
	case <-gone:
		return errors.Join(err, s.lock.Close())
	case <-s.died:
	}
	// A goroutine that ended on a fatal error may be waited for in vain. The files on disk are
	// whole, but only the end of the process frees them, so the lock stays.
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-gone:
		return errors.Join(err, s.lock.Close())
	case <-limit.C:
		return errors.Join(err, errors.New("store: etcd cannot be stopped after its failure: the process must end"))
	}
}

// zapTo is a logger for etcd that writes warnings and worse to slog. Where etcd would end the
// process it calls fatal and ends the goroutine.
func zapTo(log *slog.Logger, fatal func(msg string)) *zap.Logger {
	opts := []zap.Option{}
	if fatal != nil {
		opts = append(opts, zap.WithFatalHook(fatalHook(fatal)))
	}
	return zap.New(&zapCore{log: log.With("component", "etcd")}, opts...)
}

type fatalHook func(string)

func (f fatalHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	msg := e.Message
	for _, x := range fields {
		if err, ok := x.Interface.(error); ok && x.Type == zapcore.ErrorType {
			msg += ": " + err.Error()
		}
	}
	f(msg)
	runtime.Goexit()
}

// zapCore is where zap meets slog.
type zapCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// harmless is what etcd says once in a new folder, before its first write has reached the database
// file. It concerns going back to an older etcd, and is repeated successfully 5 seconds later.
var harmless = map[string]bool{
	"Failed to detect schema version":  true,
	"failed to update storage version": true,
}

func (c *zapCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{c.log, append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	ctx := context.Background()
	if harmless[e.Message] || !c.log.Enabled(ctx, level) {
		return nil
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	c.log.LogAttrs(ctx, level, e.Message, attrs...)
	return nil
}

func (c *zapCore) Sync() error { return nil }
