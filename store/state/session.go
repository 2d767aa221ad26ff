package state

import (
	"crypto/sha256"
	"crypto/subtle"
	"time"

	"github.com/berth-run/berth/store"
)

// Session is a terminal of Session Manager in an instance or in a container of
// a task. The API writes it, and that it is to end; dispatch, which serves it,
// writes that its client is there and that it has ended.
type Session struct {
	ID, Account string
	Owner       string   // ARN of who began it
	Target      string   // as the API shows it: i-…, or ecs:cluster_task_container
	Instance    string   // EC2 instance i-…, "" on Fargate
	Container   string   // id in the runtime, "" is the instance itself
	Node        string   // where that is
	Command     []string // nil: a shell
	Document    string   // "" of a container
	Reason      string
	Hash        []byte // of the token
	Server      string // that has its client
	Status      string
	CreatedAt   time.Time
	EndedAt     time.Time
}

// States of sessions, as Systems Manager names them.
const (
	SessionConnecting = "Connecting" // its client is still to come
	SessionConnected  = "Connected"
	SessionTerminated = "Terminated"
	SessionFailed     = "Failed"
)

// SessionWait is how long the client of a session may take to come.
const SessionWait = 2 * time.Minute

// DataChannelPath and a session's id is where the session-manager-plugin connects.
const DataChannelPath = "/v1/data-channel/"

// LiveSessions counts those of an account.
func LiveSessions(r store.Reader, account string) (n int) {
	for range Sessions.By(r, "live", account) {
		n++
	}
	return n
}

// SessionToken is what is kept of a token.
func SessionToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// Knows reports whether token is the session's.
func (s *Session) Knows(token string) bool {
	return len(s.Hash) > 0 && subtle.ConstantTimeCompare(s.Hash, SessionToken(token)) == 1
}

// Live reports whether the session has not ended.
func (s *Session) Live() bool { return s.Status == SessionConnecting || s.Status == SessionConnected }

// End is the session after its end.
func (s *Session) End(status string, now time.Time) *Session {
	n := *s
	n.Status, n.EndedAt, n.Hash = status, now, nil
	return &n
}

// Sessions is keyed by id.
var Sessions = store.NewTable("session", func(s *Session) string { return s.ID },
	store.Index("account", func(s *Session) []string { return []string{s.Account} }),
	store.Index("node", func(s *Session) []string { // those that are to run there
		if s.Status != SessionConnected {
			return nil
		}
		return []string{s.Node}
	}),
	store.Index("live", func(s *Session) []string { // those that count for the quota
		if !s.Live() {
			return nil
		}
		return []string{s.Account}
	}))
