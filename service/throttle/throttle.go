// Package throttle says how often an account may call: token buckets per
// account and group of operations, with AWS's sizes (facts: throttling) times a
// factor.
//
// It counts and it answers, and knows nothing of what a call does. What it
// remembers is bounded by the calls of the last minute: a bucket that is full
// again is forgotten.
package throttle

import (
	"fmt"
	"hash/maphash"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/aws/wire"
)

// Default is the factor of a region of which nobody has said another: no
// person or test meets it, a loop that has run away does.
const Default = 100

// ParseFactor reads what a user says: "aws", "off", or a factor.
func ParseFactor(s string) (factor float64, err error) {
	switch s {
	case "":
		return Default, nil
	case "aws":
		return 1, nil
	case "off":
		return 0, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0.01 || f > 1e6 {
		return 0, fmt.Errorf("%q is not aws, off, or a factor from 0.01 to 1000000 of what AWS allows", s)
	}
	return f, nil
}

// A Limiter counts the calls of all accounts.
type Limiter struct {
	factor float64
	clock  func() time.Time
	seed   maphash.Seed
	shards [shards]shard
}

// shards keep calls of different accounts out of each other's way.
const shards = 64

type shard struct {
	sync.Mutex
	buckets map[key]bucket
	swept   time.Time
}

type key struct {
	account string
	rule    *rule
}

// A bucket is a number of tokens at a time.
type bucket struct {
	tokens float64
	at     time.Time
}

// New makes a limiter, nil for a factor of 0: it never refuses. clock nil is time.Now.
func New(factor float64, clock func() time.Time) *Limiter {
	if factor == 0 {
		return nil
	}
	if clock == nil {
		clock = time.Now
	}
	return &Limiter{factor: factor, clock: clock, seed: maphash.MakeSeed()}
}

// sweepEvery is how often a shard forgets its full buckets.
const sweepEvery = time.Minute

// Take takes a token for one call. Without one it says how long it takes until
// there is.
func (l *Limiter) Take(account, service, name string) (wait time.Duration, ok bool) {
	if l == nil {
		return 0, true
	}
	r := find(operation{service, name})
	k := key{account, r}
	s := &l.shards[maphash.Comparable(l.seed, k)%shards]
	now := l.clock()
	s.Lock()
	defer s.Unlock()
	if s.buckets == nil {
		s.buckets, s.swept = map[key]bucket{}, now
	}
	if now.Sub(s.swept) >= sweepEvery {
		for k, b := range s.buckets {
			if l.fill(k.rule, b, now).tokens >= l.burst(k.rule) {
				delete(s.buckets, k)
			}
		}
		s.swept = now
	}
	b, have := s.buckets[k]
	if !have {
		b = bucket{l.burst(r), now}
	}
	b = l.fill(r, b, now)
	if b.tokens < 1 {
		s.buckets[k] = b
		return time.Duration((1 - b.tokens) / (r.rate * l.factor) * float64(time.Second)), false
	}
	b.tokens--
	s.buckets[k] = b
	return 0, true
}

// burst is at least one call: a factor never forbids an operation.
func (l *Limiter) burst(r *rule) float64 { return max(1, r.burst*l.factor) }

func (l *Limiter) fill(r *rule, b bucket, now time.Time) bucket {
	if d := now.Sub(b.at).Seconds(); d > 0 { // a clock that was put back gives nothing
		b.tokens = min(l.burst(r), b.tokens+d*r.rate*l.factor)
	}
	b.at = now
	return b
}

// size is how many buckets are remembered.
func (l *Limiter) size() (n int) {
	for i := range l.shards {
		l.shards[i].Lock()
		n += len(l.shards[i].buckets)
		l.shards[i].Unlock()
	}
	return n
}

// Error is what a service answers to a call too many. Where the status says
// when to come back (429), RetryAfter is what AWS puts into that header.
func Error(s *wire.Description, wait time.Duration) (err *wire.APIError, retryAfter string) {
	switch s.SigningName {
	case "ec2":
		return wire.NewError(http.StatusServiceUnavailable, "RequestLimitExceeded", "Request limit exceeded."), ""
	case "apigateway":
		return wire.NewError(http.StatusTooManyRequests, "TooManyRequestsException", "Too Many Requests"),
			strconv.Itoa(max(1, int(math.Ceil(wait.Seconds()))))
	}
	if s.Protocol == wire.Query {
		return wire.NewError(http.StatusBadRequest, "Throttling", "Rate exceeded"), ""
	}
	return wire.NewError(http.StatusBadRequest, "ThrottlingException", "Rate exceeded"), ""
}

// reads reports whether an operation changes nothing, by its name.
func reads(name string) bool {
	for _, p := range []string{"Describe", "List", "Get", "Lookup", "Search", "Filter", "BatchGet", "BatchCheck", "Simulate", "Validate", "Discover", "Test"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
