package state

import (
	"time"

	"github.com/berth-run/berth/store"
)

// LogGroup is a log group. Its events are in the journal, not here.
type LogGroup struct {
	Account, Name, ARN string // the ARN without the trailing :*
	Class              string
	RetentionDays      int // 0: for ever
	DeletionProtection bool
	Tags               []Tag
	CreatedAt          time.Time
}

// LogGroups is keyed by account/name.
var LogGroups = store.NewTable("loggroup", func(g *LogGroup) string { return g.Account + "/" + g.Name })

// LogStream is a stream of a group.
type LogStream struct {
	Account, Group, Name string
	ID                   string // names the stream's file: a stream that is made anew never finds old events
	CreatedAt            time.Time
}

// Key is the stream's key: neither group nor stream names contain a colon.
func (s *LogStream) Key() string { return s.Account + "/" + s.Group + ":" + s.Name }

// LogStreams is keyed by account/group:stream.
var LogStreams = store.NewTable("logstream", (*LogStream).Key)
