package logs

import (
	"context"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/service/logs/pattern"
	"github.com/berth-run/berth/store/state"
)

// What a live tail sends (AWS: StartLiveTail): an update each second, of at most
// so many events, for at most three hours.
const (
	tailPeriod = time.Second
	tailEvents = 500
	tailSize   = 4 << 20 // of messages in one update: what a slow client can make us hold
	tailLife   = 3 * time.Hour
)

// tails are the live tails of this server. PutLogEvents hands every batch to
// those that listen to its group.
type tails struct {
	mu       sync.RWMutex
	groups   map[string]map[*tail]struct{} // by account/group
	accounts map[string]int
	done     chan struct{} // closed with the server
	once     sync.Once
	period   time.Duration
	life     time.Duration
}

func (t *tails) init() {
	t.groups, t.accounts, t.done = map[string]map[*tail]struct{}{}, map[string]int{}, make(chan struct{})
	t.period, t.life = tailPeriod, tailLife
}

func (t *tails) close() { t.once.Do(func() { close(t.done) }) }

// A tail is one session. It holds what came since the last update.
type tail struct {
	account  string
	groups   map[string]string // account/group → identifier to show
	streams  []string          // exact names, or
	prefixes []string
	pattern  *pattern.Pattern

	mu      sync.Mutex
	events  []api.LiveTailSessionLogEvent
	size    int
	sampled bool
}

// open adds a session, unless the account has most of them.
func (t *tails) open(s *tail, most int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.accounts[s.account] >= most {
		return false
	}
	t.accounts[s.account]++
	for g := range s.groups {
		if t.groups[g] == nil {
			t.groups[g] = map[*tail]struct{}{}
		}
		t.groups[g][s] = struct{}{}
	}
	return true
}

func (t *tails) drop(s *tail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.accounts[s.account]--; t.accounts[s.account] == 0 {
		delete(t.accounts, s.account)
	}
	for g := range s.groups {
		if delete(t.groups[g], s); len(t.groups[g]) == 0 {
			delete(t.groups, g)
		}
	}
}

// publish hands a batch to the sessions that listen to the stream.
func (t *tails) publish(s *state.LogStream, ingested int64, events []journal.Event) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	group := s.Account + "/" + s.Group
	for x := range t.groups[group] {
		if x.wants(s.Name) {
			x.put(x.groups[group], s.Name, ingested, events)
		}
	}
}

func (s *tail) wants(stream string) bool {
	if len(s.streams) == 0 && len(s.prefixes) == 0 {
		return true
	}
	for _, n := range s.streams {
		if n == stream {
			return true
		}
	}
	for _, p := range s.prefixes {
		if strings.HasPrefix(stream, p) {
			return true
		}
	}
	return false
}

func (s *tail) put(group, stream string, ingested int64, events []journal.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		if s.sampled {
			return // there is more than an update holds, whatever the rest is
		}
		if !s.pattern.Match([]byte(e.Message)) {
			continue
		}
		if len(s.events) == tailEvents || s.size+len(e.Message) > tailSize {
			s.sampled = true
			return
		}
		s.size += len(e.Message)
		s.events = append(s.events, api.LiveTailSessionLogEvent{LogStreamName: new(stream), LogGroupIdentifier: new(group),
			Message: new(e.Message), Timestamp: new(e.Time), IngestionTime: new(ingested)})
	}
}

// take is the next update.
func (s *tail) take() *api.LiveTailSessionUpdate {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &api.LiveTailSessionUpdate{SessionMetadata: &api.LiveTailSessionMetadata{Sampled: new(s.sampled)}, SessionResults: s.events}
	if u.SessionResults == nil {
		u.SessionResults = []api.LiveTailSessionLogEvent{}
	}
	s.events, s.size, s.sampled = nil, 0, false
	return u
}

// StartLiveTail sends what is put into some groups, as it comes.
func (l *Logs) StartLiveTail(ctx context.Context, in *api.StartLiveTailInput) (*api.StartLiveTailOutput, error) {
	snap, who := l.DB.Snapshot(), account(ctx)
	p, err := compile(in.LogEventFilterPattern)
	if err != nil {
		return nil, err
	}
	if len(in.LogStreamNames) > 0 && len(in.LogStreamNamePrefixes) > 0 {
		return nil, invalid("logStreamNames and logStreamNamePrefixes are mutually exclusive parameters.")
	}
	if len(in.LogGroupIdentifiers) > 1 && (len(in.LogStreamNames) > 0 || len(in.LogStreamNamePrefixes) > 0) {
		return nil, invalid("Log streams can be specified for a single log group only.")
	}
	s := &tail{account: who, groups: map[string]string{}, streams: in.LogStreamNames, prefixes: in.LogStreamNamePrefixes, pattern: p}
	for _, id := range in.LogGroupIdentifiers {
		if strings.HasSuffix(id, "*") {
			return nil, invalid("The log group identifier cannot end with an asterisk: %s", id)
		}
		n, err := l.name(ctx, id)
		if err != nil {
			return nil, err
		}
		g, err := l.group(snap, ctx, n)
		if err != nil {
			return nil, err
		}
		if g.Class == infrequent {
			return nil, &api.InvalidOperationException{Message: "Live Tail is not supported for log groups of the class " + infrequent + "."}
		}
		key := g.Account + "/" + g.Name
		if _, twice := s.groups[key]; twice {
			return nil, invalid("The log group %s is specified more than once.", g.Name)
		}
		s.groups[key] = g.ARN
	}
	if !l.tails.open(s, state.Limit(snap, who, "logs/live-tail-sessions")) {
		return nil, limited("The maximum number of concurrent Live Tail sessions has been reached.")
	}
	start := &api.LiveTailSessionStart{SessionId: new(uuid(l.NewID())), LogGroupIdentifiers: in.LogGroupIdentifiers,
		LogStreamNames: in.LogStreamNames, LogStreamNamePrefixes: in.LogStreamNamePrefixes, LogEventFilterPattern: in.LogEventFilterPattern}
	if r := auth.RequestFrom(ctx); r.ID != "" {
		start.RequestId = new(r.ID)
	}
	return &api.StartLiveTailOutput{ResponseStream: wire.Stream[api.StartLiveTailResponseStream](l.tails.run(ctx, s, start))}, nil
}

// run is the stream of a session, which ends with it.
func (t *tails) run(ctx context.Context, s *tail, start *api.LiveTailSessionStart) iter.Seq2[*api.StartLiveTailResponseStream, error] {
	return func(yield func(*api.StartLiveTailResponseStream, error) bool) {
		defer t.drop(s)
		if !yield(&api.StartLiveTailResponseStream{SessionStart: start}, nil) {
			return
		}
		tick, life := time.NewTicker(t.period), time.NewTimer(t.life)
		defer tick.Stop()
		defer life.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.done:
				yield(&api.StartLiveTailResponseStream{SessionStreamingException: &api.SessionStreamingException{Message: "The server is going down."}}, nil)
				return
			case <-life.C:
				yield(&api.StartLiveTailResponseStream{SessionTimeoutException: &api.SessionTimeoutException{Message: "The session has lasted for three hours."}}, nil)
				return
			case <-tick.C:
				if !yield(&api.StartLiveTailResponseStream{SessionUpdate: s.take()}, nil) {
					return
				}
			}
		}
	}
}

// uuid writes 32 hex digits as a UUID.
func uuid(h string) string {
	if len(h) != 32 {
		return h
	}
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
