package logs

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/logs/document"
	"github.com/berth-run/berth/service/logs/insights"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// What queries may take (AWS: quotas of Logs Insights), and how many of them
// this server works on at once and remembers.
const (
	queryTime    = time.Hour
	queryLife    = 7 * 24 * time.Hour
	queryGroups  = 50
	queryWorkers = 4
	maxQueries   = 10_000
)

// queries are those that this server runs or has run. What has ended is in a
// file of its own: the query in the first line, its rows in the second.
type queries struct {
	mu     sync.Mutex
	byID   map[string]*query
	loaded bool

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}
}

func (q *queries) init() {
	q.byID, q.slots = map[string]*query{}, make(chan struct{}, queryWorkers)
	q.ctx, q.cancel = context.WithCancel(context.Background())
}

func (q *queries) close() {
	q.cancel()
	q.wg.Wait()
}

// query is one execution. Its fields are guarded by queries.mu.
type query struct {
	Account, ID, Text, By   string
	Groups, Identifiers     []string // names, and as they were given
	Status                  api.QueryStatus
	Created, Ended          int64 // milliseconds
	Matched, Scanned, Bytes int64
	rows                    [][]insights.Cell // until they are in the file
	run                     *insights.Run     // while it runs
	cancel                  context.CancelFunc
}

func (q *query) over() bool {
	return q.Status != api.QueryStatusScheduled && q.Status != api.QueryStatusRunning
}

func (l *Logs) queryFile(id string) string { return filepath.Join(l.Queries, id+".json") }

// StartQuery begins a query of Logs Insights.
func (l *Logs) StartQuery(ctx context.Context, in *api.StartQueryInput) (*api.StartQueryOutput, error) {
	snap, caller := l.DB.Snapshot(), auth.FromContext(ctx)
	if in.QueryLanguage != "" && in.QueryLanguage != api.QueryLanguageCwli {
		return nil, invalid("The query language %s is not supported by Berth.", in.QueryLanguage)
	}
	ids := in.LogGroupIdentifiers
	given := 0
	if len(ids) > 0 {
		given++
	}
	if in.LogGroupName != nil {
		given++
		ids = []string{*in.LogGroupName}
	}
	if len(in.LogGroupNames) > 0 {
		given++
		ids = in.LogGroupNames
	}
	if given != 1 {
		return nil, invalid("Exactly one of logGroupName, logGroupNames and logGroupIdentifiers must be specified.")
	}
	if len(ids) > queryGroups {
		return nil, invalid("At most %d log groups can be queried at once.", queryGroups)
	}
	from, to := milliseconds(wire.Value(in.StartTime)), milliseconds(wire.Value(in.EndTime))
	if from > to {
		return nil, invalid("End time should not be less than start time.")
	}
	if wire.Value(in.Limit) > insights.MaxRows {
		return nil, invalid("limit must be at most %d.", insights.MaxRows)
	}
	compiled, bad := insights.Compile(wire.Value(in.QueryString))
	if bad != nil {
		return nil, &api.MalformedQueryException{Message: bad.Message, QueryCompileError: &api.QueryCompileError{Message: new(bad.Message),
			Location: &api.QueryCompileErrorLocation{StartCharOffset: new(int32(bad.Start)), EndCharOffset: new(int32(bad.End))}}}
	}
	q := &query{Account: caller.Account, ID: uuid(l.NewID()), Text: wire.Value(in.QueryString), By: caller.ARN, Identifiers: ids, Status: api.QueryStatusScheduled}
	var parts []part
	for _, id := range ids {
		n, err := l.name(ctx, id)
		if err != nil {
			return nil, err
		}
		g, err := l.group(snap, ctx, n)
		if err != nil {
			return nil, err
		}
		if slices.Contains(q.Groups, g.Name) {
			continue
		}
		q.Groups = append(q.Groups, g.Name)
		p := part{log: g.Account + ":" + g.Name, streams: map[string]string{}}
		p.from, p.to = l.window(g, &from, &to)
		p.to++ // the end belongs to the range, to the second if it is given in seconds
		if wire.Value(in.EndTime) < secondsBelow {
			p.to += 999
		}
		for s := range state.LogStreams.Prefix(snap, g.Account+"/"+g.Name+":") {
			p.streams[s.ID] = s.Name
		}
		parts = append(parts, p)
	}
	now := l.Now()
	q.Created = now.UnixMilli()
	q.run = compiled.Start(insights.Options{Now: now, Limit: int(wire.Value(in.Limit)), Pointer: func(id string, time, seq int64) string {
		return pointer(journal.Position{Time: time, Stream: id, Seq: seq})
	}})
	if err := l.begin(q, state.Limit(snap, q.Account, "logs/concurrent-queries"), compiled.Needle(), parts); err != nil {
		return nil, err
	}
	return &api.StartQueryOutput{QueryId: new(q.ID)}, nil
}

// secondsBelow tells times in seconds from those in milliseconds, which AWS takes, too.
const secondsBelow = 100_000_000_000

func milliseconds(t int64) int64 {
	if t < secondsBelow {
		return t * 1000
	}
	return t
}

// part is what a query reads of one group.
type part struct {
	log      string
	streams  map[string]string // id → name
	from, to int64
}

func (l *Logs) begin(q *query, most int, needle []byte, parts []part) error {
	qs := &l.queries
	if err := l.loadQueries(); err != nil {
		return err
	}
	qs.mu.Lock()
	defer qs.mu.Unlock()
	running := 0
	for _, o := range qs.byID {
		if o.Account == q.Account && !o.over() {
			running++
		}
	}
	if running >= most {
		return limited(fmt.Sprintf("Account maximum query concurrency of [%d] reached.", most))
	}
	if qs.ctx.Err() != nil {
		return &api.ServiceUnavailableException{Message: "The server is going down."}
	}
	ctx, cancel := context.WithTimeout(qs.ctx, queryTime)
	q.cancel = cancel
	qs.byID[q.ID] = q
	qs.wg.Go(func() {
		defer cancel()
		err := l.work(ctx, q, needle, parts)
		l.end(ctx, q, err)
	})
	return nil
}

func (l *Logs) work(ctx context.Context, q *query, needle []byte, parts []part) error {
	qs := &l.queries
	select {
	case qs.slots <- struct{}{}:
		defer func() { <-qs.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	qs.mu.Lock()
	if !q.over() {
		q.Status = api.QueryStatusRunning
	}
	qs.mu.Unlock()
	for _, p := range parts {
		r := journal.Range{From: p.from, To: p.to, Needle: needle}
		for id := range p.streams {
			r.Streams = append(r.Streams, id)
		}
		slices.Sort(r.Streams)
		s, err := l.Journal.Scan(ctx, r, func(e *journal.Raw) error {
			return q.run.Add(&insights.Event{Time: e.Time, Ingested: e.Ingested, Seq: e.Seq, ID: e.Stream, Log: p.log, Stream: p.streams[e.Stream], Message: e.Message})
		})
		qs.mu.Lock()
		q.Scanned += s.Events
		q.Bytes += s.Bytes
		qs.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// end keeps what the query found. What failed is shown by its status.
func (l *Logs) end(ctx context.Context, q *query, err error) {
	var rows [][]insights.Cell
	if err == nil {
		rows, err = q.run.Rows()
	}
	qs := &l.queries
	qs.mu.Lock()
	defer qs.mu.Unlock()
	q.Matched, q.Ended = q.run.Matched(), l.Now().UnixMilli()
	q.run = nil
	switch {
	case q.Status == api.QueryStatusCancelled:
		rows = nil
	case err == nil:
		q.Status = api.QueryStatusComplete
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		q.Status = api.QueryStatusTimeout
	case ctx.Err() != nil:
		q.Status = api.QueryStatusCancelled
	default:
		q.Status = api.QueryStatusFailed
	}
	q.rows = rows
	// Results that cannot be written stay in memory: they are lost with the server, not before.
	if l.saveQuery(q) == nil {
		q.rows = nil
	}
}

func (l *Logs) saveQuery(q *query) error {
	meta, err := json.Marshal(q)
	if err != nil {
		return err
	}
	rows, err := json.Marshal(q.rows)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.Queries, 0o700); err != nil {
		return err
	}
	path := l.queryFile(q.ID)
	if err := os.WriteFile(path+".new", slices.Concat(meta, []byte{'\n'}, rows, []byte{'\n'}), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// loadQueries finds what a server before this one has left, once.
func (l *Logs) loadQueries() error {
	qs := &l.queries
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if qs.loaded {
		return nil
	}
	files, err := filepath.Glob(l.queryFile("*"))
	if err != nil {
		return fmt.Errorf("load queries: %w", err)
	}
	for _, path := range files {
		q := &query{}
		if err := readQuery(path, q, nil); err != nil {
			if errors.Is(err, errQueryFile) {
				continue // not whole, and not worth a server that does not start
			}
			return fmt.Errorf("load queries: %w", err)
		}
		qs.byID[q.ID] = q
	}
	qs.loaded = true
	return nil
}

var errQueryFile = errors.New("damaged file of a query")

func readQuery(path string, q *query, rows *[][]insights.Cell) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	line, err := r.ReadBytes('\n')
	if err != nil || json.Unmarshal(line, q) != nil || q.ID == "" {
		return errQueryFile
	}
	if rows == nil {
		return nil
	}
	if err := json.NewDecoder(r).Decode(rows); err != nil {
		return errQueryFile
	}
	return nil
}

// forget removes the results that are too old or too many.
func (l *Logs) forget() error {
	if err := l.loadQueries(); err != nil {
		return err
	}
	qs := &l.queries
	qs.mu.Lock()
	defer qs.mu.Unlock()
	var over []*query
	for _, q := range qs.byID {
		if q.over() {
			over = append(over, q)
		}
	}
	slices.SortFunc(over, func(a, b *query) int { return cmp.Compare(b.Created, a.Created) })
	oldest := l.Now().Add(-queryLife).UnixMilli()
	var err error
	for i, q := range over {
		if i < maxQueries && q.Created >= oldest {
			continue
		}
		if e := os.Remove(l.queryFile(q.ID)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("forget query: %w", e))
			continue
		}
		delete(qs.byID, q.ID)
	}
	return err
}

// query finds a query of the caller's, and copies it.
func (l *Logs) query(ctx context.Context, id *string) (query, error) {
	if err := l.loadQueries(); err != nil {
		return query{}, err
	}
	l.queries.mu.Lock()
	defer l.queries.mu.Unlock()
	q := l.queries.byID[wire.Value(id)]
	if q == nil || q.Account != account(ctx) {
		return query{}, &api.ResourceNotFoundException{Message: "The specified query does not exist."}
	}
	c := *q
	if q.run != nil {
		c.Matched = q.run.Matched()
	}
	return c, nil
}

// GetQueryResults answers how far a query is, and at its end what it found.
func (l *Logs) GetQueryResults(ctx context.Context, in *api.GetQueryResultsInput) (*api.GetQueryResultsOutput, error) {
	q, err := l.query(ctx, in.QueryId)
	if err != nil {
		return nil, err
	}
	bound := page.Query{"GetQueryResults", q.Account, q.ID}
	after, err := l.after(bound, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &api.GetQueryResultsOutput{QueryLanguage: api.QueryLanguageCwli, Status: q.Status, Results: [][]api.ResultField{}, Statistics: &api.QueryStatistics{
		RecordsMatched: new(float64(q.Matched)), RecordsScanned: new(float64(q.Scanned)), BytesScanned: new(float64(q.Bytes)),
		EstimatedRecordsSkipped: new(0.0), EstimatedBytesSkipped: new(0.0), LogGroupsScanned: new(float64(len(q.Groups)))}}
	rows := q.rows
	if rows == nil && q.Status == api.QueryStatusComplete {
		if err := readQuery(l.queryFile(q.ID), &query{}, &rows); err != nil {
			return nil, fmt.Errorf("results of query %s: %w", q.ID, err)
		}
	}
	start, _ := strconv.Atoi(after)
	start = min(start, len(rows))
	rows = rows[start:]
	if most := int(wire.Value(in.MaxItems)); most > 0 && len(rows) > most {
		rows = rows[:most]
		out.NextToken = l.next(bound, strconv.Itoa(start+most))
	}
	for _, r := range rows {
		fields := make([]api.ResultField, 0, len(r))
		for _, c := range r {
			fields = append(fields, api.ResultField{Field: new(c.Name), Value: new(c.Value)})
		}
		out.Results = append(out.Results, fields)
	}
	return out, nil
}

// StopQuery ends a query before its time.
func (l *Logs) StopQuery(ctx context.Context, in *api.StopQueryInput) (*api.StopQueryOutput, error) {
	if _, err := l.query(ctx, in.QueryId); err != nil {
		return nil, err
	}
	l.queries.mu.Lock()
	defer l.queries.mu.Unlock()
	q := l.queries.byID[*in.QueryId]
	if q == nil || q.over() {
		return nil, invalid("The specified query is not running.")
	}
	q.Status = api.QueryStatusCancelled
	q.cancel()
	return &api.StopQueryOutput{Success: new(true)}, nil
}

// DescribeQueries lists queries, the newest first.
func (l *Logs) DescribeQueries(ctx context.Context, in *api.DescribeQueriesInput) (*api.DescribeQueriesOutput, error) {
	if err := l.loadQueries(); err != nil {
		return nil, err
	}
	who := account(ctx)
	if in.LogGroupName != nil {
		if _, err := l.group(l.DB.Snapshot(), ctx, *in.LogGroupName); err != nil {
			return nil, err
		}
	}
	bound := page.Query{"DescribeQueries", who, wire.Value(in.LogGroupName), string(in.Status), string(in.QueryLanguage)}
	after, err := l.after(bound, in.NextToken)
	if err != nil {
		return nil, err
	}
	key := func(q *query) string { return fmt.Sprintf("%020d/%s", math.MaxInt64-q.Created, q.ID) }
	var found []*query
	l.queries.mu.Lock()
	for _, q := range l.queries.byID {
		if q.Account == who && (in.Status == "" || q.Status == in.Status) && (in.LogGroupName == nil || slices.Contains(q.Groups, *in.LogGroupName)) &&
			(in.QueryLanguage == "" || in.QueryLanguage == api.QueryLanguageCwli) && key(q) > after {
			c := *q
			found = append(found, &c)
		}
	}
	l.queries.mu.Unlock()
	slices.SortFunc(found, func(a, b *query) int { return strings.Compare(key(a), key(b)) })
	limit := limitOf(in.MaxResults, 1000)
	out := &api.DescribeQueriesOutput{Queries: []api.QueryInfo{}}
	for i, q := range found {
		if i == limit {
			out.NextToken = l.next(bound, key(found[i-1]))
			break
		}
		v := api.QueryInfo{QueryLanguage: api.QueryLanguageCwli, QueryId: new(q.ID), QueryString: new(q.Text), Status: q.Status, CreateTime: new(q.Created),
			LogGroupName: new(strings.Join(q.Groups, ",")), BytesScanned: new(float64(q.Bytes))}
		if q.By != "" {
			v.UserIdentity = new(q.By)
		}
		if q.over() {
			v.QueryDuration = new(q.Ended - q.Created)
		}
		out.Queries = append(out.Queries, v)
	}
	return out, nil
}

// ListLogGroupsForQuery answers which groups a query reads.
func (l *Logs) ListLogGroupsForQuery(ctx context.Context, in *api.ListLogGroupsForQueryInput) (*api.ListLogGroupsForQueryOutput, error) {
	q, err := l.query(ctx, in.QueryId)
	if err != nil {
		return nil, err
	}
	// A query reads at most as many groups as the smallest page holds.
	if in.NextToken != nil {
		return nil, invalid("The specified nextToken is invalid.")
	}
	return &api.ListLogGroupsForQueryOutput{LogGroupIdentifiers: q.Identifiers}, nil
}

// Bounds of GetLogGroupFields.
const (
	fieldWindow = 8 * time.Minute // to either side of a time
	fieldSince  = 15 * time.Minute
	fieldNames  = 1000
)

// GetLogGroupFields answers which fields the events around a time have.
func (l *Logs) GetLogGroupFields(ctx context.Context, in *api.GetLogGroupFieldsInput) (*api.GetLogGroupFieldsOutput, error) {
	snap := l.DB.Snapshot()
	g, err := l.find(snap, ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	now := l.Now()
	from, to := now.Add(-fieldSince).UnixMilli(), now.UnixMilli()+1
	if in.Time != nil {
		t := milliseconds(*in.Time)
		from, to = t-fieldWindow.Milliseconds(), t+fieldWindow.Milliseconds()
	}
	from, to = l.window(g, &from, &to)
	r := journal.Range{From: from, To: to}
	streams, err := streamsOf(snap, g, nil, nil)
	if err != nil {
		return nil, err
	}
	for _, s := range streams {
		r.Streams = append(r.Streams, s.ID)
	}
	var mu sync.Mutex
	total := 0
	names := map[string]int{}
	_, err = l.Journal.Scan(ctx, r, func(e *journal.Raw) error {
		v, ok := document.Value{}, false
		if document.Begins(e.Message) {
			v, ok = document.Parse(e.Message)
		}
		mu.Lock()
		defer mu.Unlock()
		total++
		n := 0
		for name, f := range v.Flat() {
			if !ok || n == maxFields {
				break
			}
			n++
			if _, known := names[name]; f.Kind != document.Null && (known || len(names) < fieldNames) {
				names[name]++
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &api.GetLogGroupFieldsOutput{LogGroupFields: []api.LogGroupField{}}
	if total == 0 {
		return out, nil
	}
	for _, n := range []string{"@timestamp", "@message", "@logStream", "@log", "@ingestionTime"} {
		names[n] = total
	}
	for n, count := range names {
		out.LogGroupFields = append(out.LogGroupFields, api.LogGroupField{Name: new(n), Percent: new(int32(count * 100 / total))})
	}
	slices.SortFunc(out.LogGroupFields, func(a, b api.LogGroupField) int {
		return cmp.Or(cmp.Compare(*b.Percent, *a.Percent), cmp.Compare(*a.Name, *b.Name))
	})
	return out, nil
}

// PutQueryDefinition saves a query, or changes one that is saved.
func (l *Logs) PutQueryDefinition(ctx context.Context, in *api.PutQueryDefinitionInput) (*api.PutQueryDefinitionOutput, error) {
	q := &state.LogQuery{Account: account(ctx), ID: wire.Value(in.QueryDefinitionId), Name: wire.Value(in.Name), Language: string(in.QueryLanguage),
		Query: wire.Value(in.QueryString), Groups: in.LogGroupNames, ModifiedAt: l.Now()}
	if q.Language == "" {
		q.Language = string(api.QueryLanguageCwli)
	}
	for _, p := range in.Parameters {
		q.Parameters = append(q.Parameters, state.LogQueryParameter{Name: wire.Value(p.Name), Default: wire.Value(p.DefaultValue), Description: wire.Value(p.Description)})
	}
	id := uuid(l.NewID())
	err := l.DB.Update(ctx, func(tx *store.Tx) error {
		n := *q
		if n.ID != "" {
			if !state.LogQueries.Has(tx, n.Account+"/"+n.ID) {
				return &api.ResourceNotFoundException{Message: "The specified query definition does not exist."}
			}
			state.LogQueries.Put(tx, &n)
			return nil
		}
		n.ID = id
		most, have := state.Limit(tx, n.Account, "logs/saved-queries"), 0
		for range state.LogQueries.Prefix(tx, n.Account+"/") {
			if have++; have >= most {
				return limited("Resource limit exceeded.")
			}
		}
		state.LogQueries.Put(tx, &n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if q.ID != "" {
		id = q.ID
	}
	return &api.PutQueryDefinitionOutput{QueryDefinitionId: new(id)}, nil
}

// DescribeQueryDefinitions lists saved queries.
func (l *Logs) DescribeQueryDefinitions(ctx context.Context, in *api.DescribeQueryDefinitionsInput) (*api.DescribeQueryDefinitionsOutput, error) {
	snap, who := l.DB.Snapshot(), account(ctx)
	prefix := wire.Value(in.QueryDefinitionNamePrefix)
	bound := page.Query{"DescribeQueryDefinitions", who, prefix, string(in.QueryLanguage)}
	after, err := l.after(bound, in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := limitOf(in.MaxResults, 1000)
	out := &api.DescribeQueryDefinitionsOutput{QueryDefinitions: []api.QueryDefinition{}}
	last := ""
	for q := range state.LogQueries.Prefix(snap, who+"/") {
		if q.ID <= after || !strings.HasPrefix(q.Name, prefix) || in.QueryLanguage != "" && q.Language != string(in.QueryLanguage) {
			continue
		}
		if len(out.QueryDefinitions) == limit {
			out.NextToken = l.next(bound, last)
			break
		}
		last = q.ID
		v := api.QueryDefinition{QueryLanguage: api.QueryLanguage(q.Language), QueryDefinitionId: new(q.ID), Name: new(q.Name), QueryString: new(q.Query),
			LastModified: new(q.ModifiedAt.UnixMilli()), LogGroupNames: q.Groups}
		for _, p := range q.Parameters {
			w := api.QueryParameter{Name: new(p.Name)}
			if p.Default != "" {
				w.DefaultValue = new(p.Default)
			}
			if p.Description != "" {
				w.Description = new(p.Description)
			}
			v.Parameters = append(v.Parameters, w)
		}
		out.QueryDefinitions = append(out.QueryDefinitions, v)
	}
	return out, nil
}

// DeleteQueryDefinition removes a saved query.
func (l *Logs) DeleteQueryDefinition(ctx context.Context, in *api.DeleteQueryDefinitionInput) (*api.DeleteQueryDefinitionOutput, error) {
	key := account(ctx) + "/" + wire.Value(in.QueryDefinitionId)
	err := l.DB.Update(ctx, func(tx *store.Tx) error {
		if !state.LogQueries.Has(tx, key) {
			return &api.ResourceNotFoundException{Message: "The specified query definition does not exist."}
		}
		state.LogQueries.Delete(tx, key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteQueryDefinitionOutput{Success: new(true)}, nil
}
