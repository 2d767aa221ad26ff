package logs

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/logs/document"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/service/logs/pattern"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Limits of PutLogEvents and of the answers of Get and Filter (facts: logs).
const (
	maxBatch  = 1 << 20 // bytes, with journal.Overhead for each event
	maxEvents = 10_000
	maxEvent  = 1 << 20
	maxSpan   = 24 * time.Hour
	oldest    = 14 * 24 * time.Hour
	newest    = 2 * time.Hour
	maxAnswer = 1 << 20
	maxPage   = 10_000
	// searchTime is how long one FilterLogEvents searches before it answers with
	// what it has and a token: clients do not wait for ever.
	searchTime = 20 * time.Second
)

// PutLogEvents appends a batch to a stream. The sequence token is ignored, as
// AWS has done since 2023.
func (l *Logs) PutLogEvents(ctx context.Context, in *api.PutLogEventsInput) (*api.PutLogEventsOutput, error) {
	g, s, err := l.stream(l.DB.Snapshot(), ctx, wire.Value(in.LogGroupName), wire.Value(in.LogStreamName))
	if err != nil {
		return nil, err
	}
	now := l.Now()
	n := len(in.LogEvents)
	if n == 0 || n > maxEvents {
		return nil, invalid("1 validation error detected: Value at 'logEvents' failed to satisfy constraint: Member must have length less than or equal to %d", maxEvents)
	}
	size := 0
	for i, e := range in.LogEvents {
		m := len(wire.Value(e.Message)) + journal.Overhead
		if m > maxEvent {
			return nil, invalid("Log event too large: %d bytes exceeds limit of %d", m, maxEvent)
		}
		size += m
		if i > 0 && wire.Value(e.Timestamp) < wire.Value(in.LogEvents[i-1].Timestamp) {
			return nil, invalid("Log events in a single PutLogEvents request must be in chronological order.")
		}
	}
	if size > maxBatch {
		return nil, invalid("Upload too large: %d bytes exceeds limit of %d", size, maxBatch)
	}
	if span := wire.Value(in.LogEvents[n-1].Timestamp) - wire.Value(in.LogEvents[0].Timestamp); span > maxSpan.Milliseconds() {
		return nil, invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}
	out := &api.PutLogEventsOutput{}
	rejected := &api.RejectedLogEventsInfo{}
	first := now.Add(-oldest).UnixMilli()
	expired := int64(math.MinInt64)
	if g.RetentionDays > 0 {
		expired = l.expired(g)
	}
	last := now.Add(newest).UnixMilli()
	events := make([]journal.Event, 0, n)
	for i, e := range in.LogEvents {
		at := wire.Value(e.Timestamp)
		switch {
		case at < expired:
			rejected.ExpiredLogEventEndIndex = new(int32(i + 1))
		case at < first:
			rejected.TooOldLogEventEndIndex = new(int32(i + 1))
		case at > last:
			if rejected.TooNewLogEventStartIndex == nil {
				rejected.TooNewLogEventStartIndex = new(int32(i))
			}
		default:
			events = append(events, journal.Event{Time: at, Message: wire.Value(e.Message)})
		}
	}
	if err := l.Journal.Append(s.ID, now.UnixMilli(), events); err != nil {
		return nil, err
	}
	l.tails.publish(s, now.UnixMilli(), events)
	if *rejected != (api.RejectedLogEventsInfo{}) {
		out.RejectedLogEventsInfo = rejected
	}
	info, err := l.Journal.Info(s.ID)
	if err != nil {
		return nil, err
	}
	out.NextSequenceToken = new(sequence(info))
	return out, nil
}

// window is the part of time that a query asks for, without what has expired.
func (l *Logs) window(g *state.LogGroup, start, end *int64) (from, to int64) {
	from, to = 0, math.MaxInt64
	if start != nil {
		from = *start
	}
	if end != nil {
		to = *end
	}
	if g.RetentionDays > 0 {
		from = max(from, l.expired(g))
	}
	return from, to
}

// GetLogEvents pages through one stream, in either direction.
func (l *Logs) GetLogEvents(ctx context.Context, in *api.GetLogEventsInput) (*api.GetLogEventsOutput, error) {
	snap := l.DB.Snapshot()
	g, err := l.find(snap, ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	if err := standard(g, "GetLogEvents"); err != nil {
		return nil, err
	}
	s, ok := state.LogStreams.Get(snap, g.Account+"/"+g.Name+":"+wire.Value(in.LogStreamName))
	if !ok {
		return nil, noStream()
	}
	from, to := l.window(g, in.StartTime, in.EndTime)
	q := journal.Query{Range: journal.Range{Streams: []string{s.ID}, From: from, To: to},
		Limit: limitOf(in.Limit, maxPage), Size: maxAnswer, Tail: !wire.Value(in.StartFromHead)}
	var at *journal.Position
	if token := wire.Value(in.NextToken); token != "" {
		direction, p, err := openPosition(token)
		if err != nil {
			return nil, err
		}
		p.Stream = s.ID
		at = &p
		if direction == "f" {
			q.After, q.Tail = at, false
		} else {
			q.Before, q.Tail = at, true
		}
	}
	found, err := l.Journal.Search(ctx, q)
	if err != nil {
		return nil, err
	}
	events := found.Events
	out := &api.GetLogEventsOutput{Events: make([]api.OutputLogEvent, 0, len(events))}
	for _, e := range events {
		out.Events = append(out.Events, api.OutputLogEvent{Timestamp: new(e.Time), Message: new(e.Message), IngestionTime: new(e.Ingested)})
	}
	// At either end the token that was sent comes back: that is how callers know.
	switch {
	case len(events) > 0:
		out.NextBackwardToken, out.NextForwardToken = sealPosition("b", events[0].At()), sealPosition("f", events[len(events)-1].At())
	case at != nil:
		out.NextBackwardToken, out.NextForwardToken = sealPosition("b", *at), sealPosition("f", *at)
	default:
		out.NextBackwardToken, out.NextForwardToken = sealPosition("b", journal.Position{Time: from, Seq: -1}), sealPosition("f", journal.Position{Time: from, Seq: -1})
	}
	return out, nil
}

func sealPosition(direction string, p journal.Position) *string {
	return new(fmt.Sprintf("%s/%020d%020d", direction, p.Time, p.Seq+1))
}

func openPosition(token string) (direction string, p journal.Position, err error) {
	direction, digits, ok := strings.Cut(token, "/")
	bad := invalid("The specified nextToken is invalid.")
	if !ok || direction != "f" && direction != "b" || len(digits) != 40 {
		return "", p, bad
	}
	if p.Time, err = strconv.ParseInt(digits[:20], 10, 64); err != nil {
		return "", p, bad
	}
	if p.Seq, err = strconv.ParseInt(digits[20:], 10, 64); err != nil {
		return "", p, bad
	}
	p.Seq--
	return direction, p, nil
}

// compile compiles a filter pattern.
func compile(text *string) (*pattern.Pattern, error) {
	p, err := pattern.Compile(wire.Value(text))
	if err != nil {
		return nil, invalid("%s", err)
	}
	return p, nil
}

// FilterLogEvents searches the streams of a group, merged by time.
func (l *Logs) FilterLogEvents(ctx context.Context, in *api.FilterLogEventsInput) (*api.FilterLogEventsOutput, error) {
	snap := l.DB.Snapshot()
	g, err := l.find(snap, ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	if err := standard(g, "FilterLogEvents"); err != nil {
		return nil, err
	}
	if len(in.LogStreamNames) > 0 && in.LogStreamNamePrefix != nil {
		return nil, invalid("Both logStreamNames and logStreamNamePrefix were specified; only one is allowed.")
	}
	if in.StartTime != nil && in.EndTime != nil && *in.StartTime > *in.EndTime {
		return nil, invalid("startTime must be less than or equal to endTime.")
	}
	p, err := compile(in.FilterPattern)
	if err != nil {
		return nil, err
	}
	streams, err := streamsOf(snap, g, in.LogStreamNames, in.LogStreamNamePrefix)
	if err != nil {
		return nil, err
	}
	from, to := l.window(g, in.StartTime, in.EndTime)
	if to < math.MaxInt64 {
		to++ // here, other than in GetLogEvents, the end belongs to the range
	}
	q := journal.Query{Range: journal.Range{From: from, To: to}, Limit: limitOf(in.Limit, maxPage), Size: maxAnswer}
	begin := time.Now()
	q.Enough = func(int64) bool { return time.Since(begin) > searchTime }
	names := make(map[string]string, len(streams))
	for _, s := range streams {
		q.Streams = append(q.Streams, s.ID)
		names[s.ID] = s.Name
	}
	if !p.Everything() {
		q.Match = p.Match
		q.Needle, q.Escaped = p.Needle()
	}
	bound := page.Query{"FilterLogEvents", g.Account, g.Name, wire.Value(in.FilterPattern), strings.Join(in.LogStreamNames, ":"), wire.Value(in.LogStreamNamePrefix),
		fmt.Sprint(wire.Value(in.StartTime), wire.Value(in.EndTime))}
	token, err := l.after(bound, in.NextToken)
	if err != nil {
		return nil, err
	}
	if token != "" {
		at := journal.Position{}
		if _, err := fmt.Sscanf(token, "%d %d %q", &at.Time, &at.Seq, &at.Stream); err != nil {
			return nil, invalid("The specified nextToken is invalid.")
		}
		q.After = &at
	}
	found, err := l.Journal.Search(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &api.FilterLogEventsOutput{Events: make([]api.FilteredLogEvent, 0, len(found.Events)), SearchedLogStreams: []api.SearchedLogStream{}}
	for _, e := range found.Events {
		out.Events = append(out.Events, api.FilteredLogEvent{LogStreamName: new(names[e.Stream]), Timestamp: new(e.Time), Message: new(e.Message),
			IngestionTime: new(e.Ingested), EventId: new(eventID(e))})
	}
	if p := found.Next; p != nil {
		out.NextToken = l.next(bound, fmt.Sprintf("%d %d %q", p.Time, p.Seq, p.Stream))
	}
	return out, nil
}

// streamsOf are the streams of the group with these names, or with this prefix.
func streamsOf(r store.Reader, g *state.LogGroup, names []string, prefix *string) ([]*state.LogStream, error) {
	var streams []*state.LogStream
	if len(names) == 0 {
		for s := range state.LogStreams.Prefix(r, g.Account+"/"+g.Name+":"+wire.Value(prefix)) {
			streams = append(streams, s)
		}
		return streams, nil
	}
	for _, n := range names {
		s, ok := state.LogStreams.Get(r, g.Account+"/"+g.Name+":"+n)
		if !ok {
			return nil, noStream()
		}
		streams = append(streams, s)
	}
	return streams, nil
}

// eventID is the same for the same event, always; `aws logs tail` leaves out what it has seen by it.
func eventID(e journal.Event) string {
	h := uint64(14695981039346656037)
	for _, b := range []byte(e.Stream) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return fmt.Sprintf("%020d%020d%016d", e.Time, h, e.Seq)
}

// pointer is the @ptr of an event: where it is, for GetLogRecord.
func pointer(e journal.Position) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%d %d %s", e.Time, e.Seq, e.Stream))
}

// GetLogRecord answers one event by its @ptr, with the fields that it has.
func (l *Logs) GetLogRecord(ctx context.Context, in *api.GetLogRecordInput) (*api.GetLogRecordOutput, error) {
	var at journal.Position
	b, err := base64.StdEncoding.DecodeString(wire.Value(in.LogRecordPointer))
	if err == nil {
		_, err = fmt.Sscanf(string(b), "%d %d %s", &at.Time, &at.Seq, &at.Stream)
	}
	if err != nil {
		return nil, invalid("Invalid log record pointer.")
	}
	gone := &api.ResourceNotFoundException{Message: "The specified log record does not exist."}
	snap := l.DB.Snapshot()
	for s := range state.LogStreams.Prefix(snap, account(ctx)+"/") {
		if s.ID != at.Stream {
			continue
		}
		g, err := l.group(snap, ctx, s.Group)
		if err != nil {
			return nil, gone
		}
		before := at
		before.Seq--
		from, to := l.window(g, &at.Time, new(at.Time+1))
		found, err := l.Journal.Search(ctx, journal.Query{Range: journal.Range{Streams: []string{s.ID}, From: from, To: to}, After: &before, Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(found.Events) == 0 || found.Events[0].Seq != at.Seq {
			return nil, gone
		}
		e := found.Events[0]
		out := &api.GetLogRecordOutput{LogRecord: map[string]string{
			"@timestamp": strconv.FormatInt(e.Time, 10), "@ingestionTime": strconv.FormatInt(e.Ingested, 10), "@message": e.Message,
			"@log": s.Account + ":" + s.Group, "@logStream": s.Name, "@ptr": wire.Value(in.LogRecordPointer),
		}}
		if v, ok := document.Parse([]byte(e.Message)); ok && v.Kind == document.Object {
			for name, f := range v.Flat() {
				if f.Kind != document.Null && len(out.LogRecord) < maxFields {
					out.LogRecord[name] = string(f.Text)
				}
			}
		}
		return out, nil
	}
	return nil, gone
}

// maxFields is the most fields that are found in one event (AWS: 200 of JSON).
const maxFields = 200
