// Package logs answers the CloudWatch Logs API: groups and streams in the
// store, events in the journal. A handler that deletes a stream removes its
// row first; what the journal still has of it can then be found by nobody, and
// goes with the next [Logs.Collect].
package logs

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Config is what the service needs.
type Config struct {
	DB      *store.DB
	Journal *journal.Journal
	Region  string
	Now     func() time.Time
	NewID   func() string // 32 hex digits
}

// Logs implements the API.
type Logs struct {
	api.Unimplemented
	Config
}

// New returns the service.
func New(c Config) *Logs { return &Logs{Config: c} }

var _ api.Handler = (*Logs)(nil)

// Stored lists the request fields that are kept and shown but not acted upon,
// by operation and field, each with what that means.
var Stored = map[string]string{
	"CreateLogGroup.kmsKeyId":            "kept and shown; events are not encrypted with it",
	"CreateLogGroup.logGroupClass":       "kept and shown; every class can do the same",
	"PutLogEvents.entity":                "accepted; nothing shows it",
	"PutRetentionPolicy.retentionInDays": "expired events are hidden at once; their space comes back with the stream",
}

var (
	groupName  = regexp.MustCompile(`^[\.\-_/#A-Za-z0-9]{1,512}$`)
	streamName = regexp.MustCompile(`^[^:*]{1,512}$`)
)

func invalid(format string, args ...any) error {
	return &api.InvalidParameterException{Message: fmt.Sprintf(format, args...)}
}

func noGroup() error {
	return &api.ResourceNotFoundException{Message: "The specified log group does not exist."}
}

func noStream() error {
	return &api.ResourceNotFoundException{Message: "The specified log stream does not exist."}
}

func account(ctx context.Context) string { return auth.FromContext(ctx).Account }

func (l *Logs) groupARN(account, name string) string {
	return fmt.Sprintf("arn:aws:logs:%s:%s:log-group:%s", l.Region, account, name)
}

// name takes a group's name from a name or an identifier, which may be its ARN.
func name(n, identifier *string) string {
	if id := wire.Value(identifier); id != "" {
		if rest, ok := strings.CutPrefix(id, "arn:"); ok {
			if p := strings.SplitN(rest, ":", 7); len(p) >= 6 {
				return p[5]
			}
		}
		return id
	}
	return wire.Value(n)
}

func (l *Logs) group(r store.Reader, ctx context.Context, name string) (*state.LogGroup, error) {
	if name == "" {
		return nil, invalid("1 validation error detected: Value null at 'logGroupName' failed to satisfy constraint: Member must not be null")
	}
	g, ok := state.LogGroups.Get(r, account(ctx)+"/"+name)
	if !ok {
		return nil, noGroup()
	}
	return g, nil
}

// CreateLogGroup makes a group.
func (l *Logs) CreateLogGroup(ctx context.Context, in *api.CreateLogGroupInput) (*api.CreateLogGroupOutput, error) {
	n := wire.Value(in.LogGroupName)
	if strings.HasPrefix(n, "aws/") {
		return nil, invalid("Log groups starting with AWS/ are reserved for AWS.")
	}
	if !groupName.MatchString(n) {
		return nil, invalid("1 validation error detected: Value '%s' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+", n)
	}
	g := &state.LogGroup{Account: account(ctx), Name: n, ARN: l.groupARN(account(ctx), n), Class: string(in.LogGroupClass),
		KMSKey: wire.Value(in.KmsKeyId), DeletionProtection: wire.Value(in.DeletionProtectionEnabled), CreatedAt: l.Now()}
	if g.Class == "" {
		g.Class = "STANDARD"
	}
	var err error
	if g.Tags, err = merge(nil, in.Tags); err != nil {
		return nil, err
	}
	return &api.CreateLogGroupOutput{}, l.DB.Update(ctx, func(tx *store.Tx) error {
		if state.LogGroups.Has(tx, g.Account+"/"+g.Name) {
			return &api.ResourceAlreadyExistsException{Message: "The specified log group already exists"}
		}
		state.LogGroups.Put(tx, g)
		return nil
	})
}

// batch bounds the streams that one transaction deletes.
const batch = 1000

// DeleteLogGroup removes a group with its streams and their events. The group
// goes with the last of its streams: one that was interrupted can be repeated.
func (l *Logs) DeleteLogGroup(ctx context.Context, in *api.DeleteLogGroupInput) (*api.DeleteLogGroupOutput, error) {
	for {
		var ids []string
		more := false
		err := l.DB.Update(ctx, func(tx *store.Tx) error {
			ids, more = nil, false
			g, err := l.group(tx, ctx, wire.Value(in.LogGroupName))
			if err != nil {
				return err
			}
			if g.DeletionProtection {
				return invalid("The log group is protected against deletion.")
			}
			// A stream that is made meanwhile would be left without its group.
			state.LogStreams.Guard(tx, g.Account+"/"+g.Name+":")
			var gone []*state.LogStream
			for s := range state.LogStreams.Prefix(tx, g.Account+"/"+g.Name+":") {
				if more = len(gone) == batch; more {
					break
				}
				gone = append(gone, s)
			}
			for _, s := range gone {
				ids = append(ids, s.ID)
				state.LogStreams.Delete(tx, s.Key())
			}
			if !more {
				state.LogGroups.Delete(tx, g.Account+"/"+g.Name)
			}
			return nil
		})
		if err == nil {
			err = l.remove(ids)
		}
		if err != nil || !more {
			return &api.DeleteLogGroupOutput{}, err
		}
	}
}

// Collect removes events that no stream names: a server that died while it
// deleted a stream leaves them, and a batch that came at that moment.
func (l *Logs) Collect() error {
	// Listed before the snapshot is taken: events are written only below a
	// stream's row, so what is listed and has no row has lost it.
	ids, err := l.Journal.List()
	if err != nil {
		return err
	}
	live := map[string]bool{}
	for s := range state.LogStreams.All(l.DB.Snapshot()) {
		live[s.ID] = true
	}
	return l.remove(slices.DeleteFunc(ids, func(id string) bool { return live[id] }))
}

func (l *Logs) remove(ids []string) error {
	var err error
	for _, id := range ids {
		err = errors.Join(err, l.Journal.Remove(id))
	}
	return err
}

// DescribeLogGroups lists groups by name.
func (l *Logs) DescribeLogGroups(ctx context.Context, in *api.DescribeLogGroupsInput) (*api.DescribeLogGroupsOutput, error) {
	snap, who := l.DB.Snapshot(), account(ctx)
	if in.LogGroupNamePrefix != nil && in.LogGroupNamePattern != nil {
		return nil, invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	}
	after, err := openToken("groups", in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := limitOf(in.Limit, 50)
	out := &api.DescribeLogGroupsOutput{LogGroups: []api.LogGroup{}}
	for g := range state.LogGroups.Prefix(snap, who+"/"+wire.Value(in.LogGroupNamePrefix)) {
		switch {
		case g.Name <= after && after != "",
			in.LogGroupClass != "" && g.Class != string(in.LogGroupClass),
			!strings.Contains(g.Name, wire.Value(in.LogGroupNamePattern)),
			len(in.LogGroupIdentifiers) > 0 && !slices.ContainsFunc(in.LogGroupIdentifiers, func(id string) bool { return name(nil, &id) == g.Name }):
			continue
		}
		if len(out.LogGroups) == limit {
			out.NextToken = sealToken("groups", *out.LogGroups[limit-1].LogGroupName)
			break
		}
		v := api.LogGroup{LogGroupName: new(g.Name), CreationTime: new(g.CreatedAt.UnixMilli()), MetricFilterCount: new(int32(0)),
			Arn: new(g.ARN + ":*"), LogGroupArn: new(g.ARN), LogGroupClass: api.LogGroupClass(g.Class), DeletionProtectionEnabled: new(g.DeletionProtection)}
		if g.RetentionDays > 0 {
			v.RetentionInDays = new(int32(g.RetentionDays))
		}
		if g.KMSKey != "" {
			v.KmsKeyId = new(g.KMSKey)
		}
		var stored int64
		for s := range state.LogStreams.Prefix(snap, g.Account+"/"+g.Name+":") {
			info, err := l.Journal.Info(s.ID)
			if err != nil {
				return nil, err
			}
			stored += info.Bytes
		}
		v.StoredBytes = new(stored)
		out.LogGroups = append(out.LogGroups, v)
	}
	return out, nil
}

func limitOf(p *int32, most int) int {
	if p == nil || int(*p) > most {
		return most
	}
	return int(*p)
}

// CreateLogStream makes a stream.
func (l *Logs) CreateLogStream(ctx context.Context, in *api.CreateLogStreamInput) (*api.CreateLogStreamOutput, error) {
	n := wire.Value(in.LogStreamName)
	if !streamName.MatchString(n) || strings.ContainsRune(n, 0) {
		return nil, invalid("1 validation error detected: Value '%s' at 'logStreamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [^:*]*", n)
	}
	id := l.NewID()
	return &api.CreateLogStreamOutput{}, l.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := l.group(tx, ctx, wire.Value(in.LogGroupName))
		if err != nil {
			return err
		}
		s := &state.LogStream{Account: g.Account, Group: g.Name, Name: n, ID: id, CreatedAt: l.Now()}
		if state.LogStreams.Has(tx, s.Key()) {
			return &api.ResourceAlreadyExistsException{Message: "The specified log stream already exists"}
		}
		state.LogStreams.Put(tx, s)
		return nil
	})
}

// stream finds a stream of the caller's.
func (l *Logs) stream(r store.Reader, ctx context.Context, group, name string) (*state.LogGroup, *state.LogStream, error) {
	g, err := l.group(r, ctx, group)
	if err != nil {
		return nil, nil, err
	}
	s, ok := state.LogStreams.Get(r, g.Account+"/"+g.Name+":"+name)
	if !ok {
		return nil, nil, noStream()
	}
	return g, s, nil
}

// DeleteLogStream removes a stream with its events.
func (l *Logs) DeleteLogStream(ctx context.Context, in *api.DeleteLogStreamInput) (*api.DeleteLogStreamOutput, error) {
	id := ""
	err := l.DB.Update(ctx, func(tx *store.Tx) error {
		_, s, err := l.stream(tx, ctx, wire.Value(in.LogGroupName), wire.Value(in.LogStreamName))
		if err != nil {
			return err
		}
		id = s.ID
		state.LogStreams.Delete(tx, s.Key())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteLogStreamOutput{}, l.remove([]string{id})
}

// DescribeLogStreams lists streams by name or by their newest event.
func (l *Logs) DescribeLogStreams(ctx context.Context, in *api.DescribeLogStreamsInput) (*api.DescribeLogStreamsOutput, error) {
	snap := l.DB.Snapshot()
	g, err := l.group(snap, ctx, name(in.LogGroupName, in.LogGroupIdentifier))
	if err != nil {
		return nil, err
	}
	byTime := in.OrderBy == "LastEventTime"
	if byTime && wire.Value(in.LogStreamNamePrefix) != "" {
		return nil, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	after, err := openToken("streams", in.NextToken)
	if err != nil {
		return nil, err
	}
	type row struct {
		s    *state.LogStream
		info journal.Info
		key  string
	}
	var rows []row
	for s := range state.LogStreams.Prefix(snap, g.Account+"/"+g.Name+":"+wire.Value(in.LogStreamNamePrefix)) {
		info, err := l.Journal.Info(s.ID)
		if err != nil {
			return nil, err
		}
		x := row{s, info, s.Name}
		if byTime {
			x.key = fmt.Sprintf("%020d/%s", info.Last, s.Name)
		}
		rows = append(rows, x)
	}
	slices.SortFunc(rows, func(a, b row) int {
		if wire.Value(in.Descending) {
			a, b = b, a
		}
		return strings.Compare(a.key, b.key)
	})
	limit := limitOf(in.Limit, 50)
	out := &api.DescribeLogStreamsOutput{LogStreams: []api.LogStream{}}
	last := ""
	for _, x := range rows {
		if after != "" && (!wire.Value(in.Descending) && x.key <= after || wire.Value(in.Descending) && x.key >= after) {
			continue
		}
		if len(out.LogStreams) == limit {
			out.NextToken = sealToken("streams", last)
			break
		}
		last = x.key
		v := api.LogStream{LogStreamName: new(x.s.Name), CreationTime: new(x.s.CreatedAt.UnixMilli()),
			Arn: new(g.ARN + ":log-stream:" + x.s.Name), StoredBytes: new(int64(0)), UploadSequenceToken: new(sequence(x.info))}
		if x.info.Events > 0 {
			v.FirstEventTimestamp, v.LastEventTimestamp, v.LastIngestionTime = new(x.info.First), new(x.info.Last), new(x.info.Ingested)
		}
		out.LogStreams = append(out.LogStreams, v)
	}
	return out, nil
}

// sequence is a token that nobody has to send any more (facts: logs).
func sequence(i journal.Info) string { return fmt.Sprintf("%056d", i.Events) }

// retentions are the days that AWS allows (facts: logs).
var retentions = []int32{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

// PutRetentionPolicy hides events older than so many days. They are left out
// of every answer; their space comes back when the stream goes.
func (l *Logs) PutRetentionPolicy(ctx context.Context, in *api.PutRetentionPolicyInput) (*api.PutRetentionPolicyOutput, error) {
	days := wire.Value(in.RetentionInDays)
	if !slices.Contains(retentions, days) {
		return nil, invalid("1 validation error detected: Value '%d' at 'retentionInDays' failed to satisfy constraint: Member must satisfy enum value set: %v", days, retentions)
	}
	return &api.PutRetentionPolicyOutput{}, l.change(ctx, wire.Value(in.LogGroupName), func(g *state.LogGroup) error {
		g.RetentionDays = int(days)
		return nil
	})
}

// DeleteRetentionPolicy keeps events for ever.
func (l *Logs) DeleteRetentionPolicy(ctx context.Context, in *api.DeleteRetentionPolicyInput) (*api.DeleteRetentionPolicyOutput, error) {
	return &api.DeleteRetentionPolicyOutput{}, l.change(ctx, wire.Value(in.LogGroupName), func(g *state.LogGroup) error {
		g.RetentionDays = 0
		return nil
	})
}

func (l *Logs) change(ctx context.Context, name string, f func(*state.LogGroup) error) error {
	return l.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := l.group(tx, ctx, name)
		if err != nil {
			return err
		}
		n := *g
		if err := f(&n); err != nil {
			return err
		}
		state.LogGroups.Put(tx, &n)
		return nil
	})
}

func merge(have []state.Tag, add map[string]string) ([]state.Tag, error) {
	out := slices.Clone(have)
	for _, k := range slices.Sorted(mapKeys(add)) {
		if strings.HasPrefix(strings.ToLower(k), "aws:") {
			return nil, invalid("aws: prefixed tag key names are not allowed for external use.")
		}
		i := slices.IndexFunc(out, func(t state.Tag) bool { return t.Key == k })
		if i < 0 {
			out = append(out, state.Tag{Key: k, Value: add[k]})
		} else {
			out[i].Value = add[k]
		}
	}
	if len(out) > 50 {
		return nil, &api.TooManyTagsException{Message: "The maximum number of tags has been exceeded."}
	}
	return out, nil
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TagResource sets tags of a group.
func (l *Logs) TagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	return &api.TagResourceOutput{}, l.change(ctx, name(nil, in.ResourceArn), func(g *state.LogGroup) (err error) {
		g.Tags, err = merge(g.Tags, in.Tags)
		return err
	})
}

// UntagResource removes tags of a group.
func (l *Logs) UntagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	return &api.UntagResourceOutput{}, l.change(ctx, name(nil, in.ResourceArn), func(g *state.LogGroup) error {
		g.Tags = slices.DeleteFunc(slices.Clone(g.Tags), func(t state.Tag) bool { return slices.Contains(in.TagKeys, t.Key) })
		return nil
	})
}

// ListTagsForResource answers the tags of a group.
func (l *Logs) ListTagsForResource(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	g, err := l.group(l.DB.Snapshot(), ctx, name(nil, in.ResourceArn))
	if err != nil {
		return nil, err
	}
	out := &api.ListTagsForResourceOutput{Tags: map[string]string{}}
	for _, t := range g.Tags {
		out.Tags[t.Key] = t.Value
	}
	return out, nil
}
