package logs

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/store/state"
)

// Limits of PutLogEvents and of the answers of Get and Filter (facts: logs).
const (
	maxBatch      = 1 << 20 // bytes, with overhead for each event
	overhead      = 26
	maxEvents     = 10_000
	maxEvent      = 1 << 20
	maxSpan       = 24 * time.Hour
	oldest        = 14 * 24 * time.Hour
	newest        = 2 * time.Hour
	maxAnswer     = 1 << 20
	maxAnswerSize = 10_000
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
		m := len(wire.Value(e.Message)) + overhead
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
		expired = now.AddDate(0, 0, -g.RetentionDays).UnixMilli()
	}
	last := now.Add(newest).UnixMilli()
	var events []journal.Event
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
			events = append(events, journal.Event{Time: at, Ingested: now.UnixMilli(), Message: wire.Value(e.Message)})
		}
	}
	if err := l.Journal.Append(s.ID, events); err != nil {
		return nil, err
	}
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
		from = max(from, l.Now().AddDate(0, 0, -g.RetentionDays).UnixMilli())
	}
	return from, to
}

// GetLogEvents pages through one stream, in either direction.
func (l *Logs) GetLogEvents(ctx context.Context, in *api.GetLogEventsInput) (*api.GetLogEventsOutput, error) {
	g, s, err := l.stream(l.DB.Snapshot(), ctx, name(in.LogGroupName, in.LogGroupIdentifier), wire.Value(in.LogStreamName))
	if err != nil {
		return nil, err
	}
	from, to := l.window(g, in.StartTime, in.EndTime)
	q := journal.Query{From: from, To: to, Limit: limitOf(in.Limit, maxAnswerSize), Tail: !wire.Value(in.StartFromHead)}
	var at *journal.Position
	if token := wire.Value(in.NextToken); token != "" {
		direction, p, err := openPosition(token)
		if err != nil {
			return nil, err
		}
		at = &p
		if direction == "f" {
			q.After, q.Tail = at, false
		} else {
			q.Before, q.Tail = at, true
		}
	}
	events, err := l.Journal.Read(s.ID, q)
	if err != nil {
		return nil, err
	}
	events = fit(events, q.Tail)
	out := &api.GetLogEventsOutput{Events: []api.OutputLogEvent{}}
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

// fit keeps what an answer can hold, from the end that the query reads from.
func fit(es []journal.Event, tail bool) []journal.Event {
	size := 0
	if tail {
		for i := len(es) - 1; i >= 0; i-- {
			if size += len(es[i].Message) + overhead; size > maxAnswer && i < len(es)-1 {
				return es[i+1:]
			}
		}
		return es
	}
	for i := range es {
		if size += len(es[i].Message) + overhead; size > maxAnswer && i > 0 {
			return es[:i]
		}
	}
	return es
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
	if _, err := fmt.Sscanf(digits[:20], "%d", &p.Time); err != nil {
		return "", p, bad
	}
	if _, err := fmt.Sscanf(digits[20:], "%d", &p.Seq); err != nil {
		return "", p, bad
	}
	p.Seq--
	return direction, p, nil
}

// FilterLogEvents searches the streams of a group, merged by time.
func (l *Logs) FilterLogEvents(ctx context.Context, in *api.FilterLogEventsInput) (*api.FilterLogEventsOutput, error) {
	snap := l.DB.Snapshot()
	g, err := l.group(snap, ctx, name(in.LogGroupName, in.LogGroupIdentifier))
	if err != nil {
		return nil, err
	}
	if len(in.LogStreamNames) > 0 && in.LogStreamNamePrefix != nil {
		return nil, invalid("Both logStreamNames and logStreamNamePrefix were specified; only one is allowed.")
	}
	match, err := pattern(wire.Value(in.FilterPattern))
	if err != nil {
		return nil, err
	}
	var streams []*state.LogStream
	if len(in.LogStreamNames) > 0 {
		for _, n := range in.LogStreamNames {
			s, ok := state.LogStreams.Get(snap, g.Account+"/"+g.Name+":"+n)
			if !ok {
				return nil, noStream()
			}
			streams = append(streams, s)
		}
	} else {
		for s := range state.LogStreams.Prefix(snap, g.Account+"/"+g.Name+":"+wire.Value(in.LogStreamNamePrefix)) {
			streams = append(streams, s)
		}
	}
	type hit struct {
		journal.Event
		s *state.LogStream
	}
	// The order of the answer: time, then stream, then arrival. A token is the last event given.
	order := func(a, b hit) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.s.ID, b.s.ID), cmp.Compare(a.Seq, b.Seq))
	}
	var after *hit
	if token := wire.Value(in.NextToken); token != "" {
		b, err := base64.RawURLEncoding.DecodeString(token)
		h := hit{s: &state.LogStream{}}
		if err == nil {
			_, err = fmt.Sscanf(string(b), "%d %d %s", &h.Time, &h.Seq, &h.s.ID)
		}
		if err != nil {
			return nil, invalid("The specified nextToken is invalid.")
		}
		after = &h
	}
	from, to := l.window(g, in.StartTime, in.EndTime)
	limit := limitOf(in.Limit, maxAnswerSize)
	var hits []hit
	for _, s := range streams {
		q := journal.Query{From: from, To: to, Limit: limit + 1, Match: match}
		if after != nil {
			// Of this stream, what comes after the token's event in the merged order.
			p := journal.Position{Time: after.Time, Seq: after.Seq}
			switch c := strings.Compare(s.ID, after.s.ID); {
			case c < 0:
				p.Seq = math.MaxInt64
			case c > 0:
				p.Seq = -1
			}
			q.After = &p
		}
		events, err := l.Journal.Read(s.ID, q)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			hits = append(hits, hit{e, s})
		}
	}
	slices.SortFunc(hits, order)
	out := &api.FilterLogEventsOutput{Events: []api.FilteredLogEvent{}, SearchedLogStreams: []api.SearchedLogStream{}}
	size := 0
	for i, h := range hits {
		if size += len(h.Message) + overhead; i > 0 && (i == limit || size > maxAnswer) {
			p := hits[i-1]
			out.NextToken = new(base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %d %s", p.Time, p.Seq, p.s.ID)))
			break
		}
		out.Events = append(out.Events, api.FilteredLogEvent{LogStreamName: new(h.s.Name), Timestamp: new(h.Time), Message: new(h.Message),
			IngestionTime: new(h.Ingested), EventId: new(eventID(h.s.ID, h.Event))})
	}
	return out, nil
}

// eventID is the same for the same event, always; `aws logs tail` leaves out what it has seen by it.
func eventID(stream string, e journal.Event) string {
	h := uint64(14695981039346656037)
	for _, b := range []byte(stream) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return fmt.Sprintf("%020d%020d%016d", e.Time, h, e.Seq)
}

// pattern compiles an unstructured filter pattern: terms that must all occur,
// ?terms of which one must, -terms that must not. Quotes make a phrase a term.
// The structured forms, JSON and space-delimited, are refused by name.
func pattern(p string) (func(string) bool, error) {
	p = strings.TrimSpace(p)
	if p == "" {
		return nil, nil
	}
	if p[0] == '{' || p[0] == '[' || p[0] == '%' {
		return nil, invalid("Invalid filter pattern: JSON, space-delimited and regular expression patterns are not supported by Berth yet.")
	}
	var all, any, none []string
	for p != "" {
		into := &all
		switch p[0] {
		case '?':
			into, p = &any, p[1:]
		case '-':
			into, p = &none, p[1:]
		}
		term := ""
		if strings.HasPrefix(p, `"`) {
			end := 1
			for end < len(p) && p[end] != '"' {
				if p[end] == '\\' && end+1 < len(p) {
					end++
				}
				term += string(p[end])
				end++
			}
			if end >= len(p) {
				return nil, invalid("Invalid filter pattern: a quoted term does not end.")
			}
			p = p[end+1:]
		} else {
			term, p, _ = strings.Cut(p, " ")
			if strings.ContainsAny(term, `"{}[]`) {
				return nil, invalid("Invalid filter pattern: the term %s has to be put in quotes.", term)
			}
		}
		if term != "" {
			*into = append(*into, term)
		}
		p = strings.TrimLeft(p, " ")
	}
	return func(m string) bool {
		has := func(t string) bool { return strings.Contains(m, t) }
		return !slices.ContainsFunc(none, has) && !slices.ContainsFunc(all, func(t string) bool { return !has(t) }) &&
			(len(any) == 0 || slices.ContainsFunc(any, has))
	}, nil
}

func sealToken(name, after string) *string {
	return new(base64.RawURLEncoding.EncodeToString([]byte(name + "\n" + after)))
}

func openToken(name string, token *string) (string, error) {
	if wire.Value(token) == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*token)
	of, after, ok := strings.Cut(string(b), "\n")
	if err != nil || !ok || of != name {
		return "", invalid("The specified nextToken is invalid.")
	}
	return after, nil
}
