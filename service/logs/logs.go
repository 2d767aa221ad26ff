// Package logs answers the CloudWatch Logs API: groups and streams in the
// store, events in the journal. A handler that deletes a stream removes its
// row first; what the journal still has of it can then be found by nobody, and
// goes with the next [Logs.Collect].
package logs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Config is what the service needs.
type Config struct {
	DB      *store.DB
	Journal *journal.Journal
	Queries string // folder for the results of queries
	Region  string
	Now     func() time.Time
	NewID   func() string // 32 hex digits
}

// Logs implements the API.
type Logs struct {
	api.Unimplemented
	Config
	tails   tails
	queries queries
}

// New returns the service. Close ends what it runs.
func New(c Config) *Logs {
	l := &Logs{Config: c}
	l.tails.init()
	l.queries.init()
	return l
}

// Close ends live tails and queries, and waits for them.
func (l *Logs) Close() {
	l.tails.close()
	l.queries.close()
}

var _ api.Handler = (*Logs)(nil)

// Stored lists the request fields that are kept and shown but not acted upon,
// by operation and field, each with what that means.
var Stored = map[string]string{
	"CreateLogGroup.logGroupClass":              "an INFREQUENT_ACCESS group refuses what it refuses in AWS, and costs the same space as any other",
	"PutLogEvents.entity":                       "accepted; nothing shows it",
	"PutMetricFilter.metricTransformations":     "the filter is kept, shown and tested with; metrics are not published, there is no CloudWatch yet",
	"PutMetricFilter.applyOnTransformedLogs":    "kept and shown; there are no transformers",
	"PutMetricFilter.fieldSelectionCriteria":    "kept and shown; no events come from other accounts",
	"PutMetricFilter.emitSystemFieldDimensions": "kept and shown; metrics are not published",
	"PutResourcePolicy.policyDocument":          "kept and shown; no AWS service delivers logs here, so nobody is let in by it",
	"PutQueryDefinition.queryString":            "kept and shown; whether it can be run is seen when it is",
	"PutQueryDefinition.parameters":             "kept and shown; StartQuery does not fill them in",
	"FilterLogEvents.unmask":                    "accepted; nothing is masked",
	"GetLogEvents.unmask":                       "accepted; nothing is masked",
	"GetLogRecord.unmask":                       "accepted; nothing is masked",
	"DescribeLogGroups.includeLinkedAccounts":   "accepted; no account is linked to another",
	"ListLogGroups.includeLinkedAccounts":       "accepted; no account is linked to another",
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

// name takes the name of one of the caller's groups from an ARN or a name. What
// is another's, or another region's, is nothing here.
func (l *Logs) name(ctx context.Context, id string) (string, error) {
	if !strings.HasPrefix(id, "arn:") {
		return id, nil
	}
	p := strings.SplitN(id, ":", 7)
	if len(p) < 7 || p[2] != "logs" || p[5] != "log-group" {
		return "", invalid("The specified ARN is not the ARN of a log group: %s", id)
	}
	n, _, _ := strings.Cut(p[6], ":")
	if p[3] != l.Region || p[4] != account(ctx) {
		return "", noGroup()
	}
	return n, nil
}

// either is the group that a request names in one of two ways.
func (l *Logs) either(ctx context.Context, name, identifier *string) (string, error) {
	switch {
	case name != nil && identifier != nil:
		return "", invalid("LogGroup name and LogGroup ARN are mutually exclusive parameters.")
	case identifier != nil:
		return l.name(ctx, *identifier)
	case name == nil:
		return "", invalid("1 validation error detected: Value null at 'logGroupName' failed to satisfy constraint: Member must not be null")
	}
	return *name, nil
}

func (l *Logs) group(r store.Reader, ctx context.Context, name string) (*state.LogGroup, error) {
	g, ok := state.LogGroups.Get(r, account(ctx)+"/"+name)
	if !ok {
		return nil, noGroup()
	}
	return g, nil
}

func (l *Logs) find(r store.Reader, ctx context.Context, name, identifier *string) (*state.LogGroup, error) {
	n, err := l.either(ctx, name, identifier)
	if err != nil {
		return nil, err
	}
	return l.group(r, ctx, n)
}

const infrequent = string(api.LogGroupClassInfrequentAccess)

// standard refuses what a group of the class INFREQUENT_ACCESS cannot do.
func standard(g *state.LogGroup, op string) error {
	if g.Class == infrequent {
		return invalid("%s is not supported for log groups of the class %s.", op, infrequent)
	}
	return nil
}

// after opens the token of a listing.
func (l *Logs) after(q page.Query, token *string) (string, error) {
	if wire.Value(token) == "" {
		return "", nil
	}
	after, err := page.Decode(q, *token, l.Now())
	if err != nil {
		return "", invalid("The specified nextToken is invalid.")
	}
	return after, nil
}

func (l *Logs) next(q page.Query, after string) *string {
	return new(page.Encode(q, after, l.Now()))
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
	arn := l.groupARN(account(ctx), n)
	if in.KmsKeyId != nil {
		return nil, noKey(arn)
	}
	if in.LogGroupClass == api.LogGroupClassDelivery {
		return nil, invalid("Log groups of the class DELIVERY are not supported by Berth.")
	}
	g := &state.LogGroup{Account: account(ctx), Name: n, ARN: arn, Class: string(in.LogGroupClass),
		DeletionProtection: wire.Value(in.DeletionProtectionEnabled), CreatedAt: l.Now()}
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
		most, n := state.Limit(tx, g.Account, "logs/groups"), 0
		for range state.LogGroups.Prefix(tx, g.Account+"/") {
			if n++; n >= most {
				return limited("Resource limit exceeded.")
			}
		}
		state.LogGroups.Put(tx, g)
		return nil
	})
}

func limited(message string) error { return &api.LimitExceededException{Message: message} }

// noKey is AWS's answer to a key that it cannot use. There is no KMS here yet.
func noKey(arn string) error {
	return invalid("The specified KMS key does not exist or is not allowed to be used with Arn '%s' (Berth has no KMS).", arn)
}

// AssociateKmsKey is refused: there is no KMS.
func (l *Logs) AssociateKmsKey(ctx context.Context, in *api.AssociateKmsKeyInput) (*api.AssociateKmsKeyOutput, error) {
	id := in.LogGroupName
	if id == nil {
		id = in.ResourceIdentifier
	}
	n, err := l.either(ctx, id, nil)
	if err == nil {
		n, err = l.name(ctx, n)
	}
	if err != nil {
		return nil, err
	}
	g, err := l.group(l.DB.Snapshot(), ctx, n)
	if err != nil {
		return nil, err
	}
	return nil, noKey(g.ARN)
}

// PutLogGroupDeletionProtection sets whether the group can be deleted.
func (l *Logs) PutLogGroupDeletionProtection(ctx context.Context, in *api.PutLogGroupDeletionProtectionInput) (*api.PutLogGroupDeletionProtectionOutput, error) {
	n, err := l.name(ctx, wire.Value(in.LogGroupIdentifier))
	if err != nil {
		return nil, err
	}
	return &api.PutLogGroupDeletionProtectionOutput{}, l.change(ctx, n, func(g *state.LogGroup) error {
		g.DeletionProtection = wire.Value(in.DeletionProtectionEnabled)
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
				return &api.ValidationException{Message: "The log group is protected against deletion. Disable deletion protection and try again."}
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
				for f := range state.MetricFilters.Prefix(tx, g.Account+"/"+g.Name+":") {
					state.MetricFilters.Delete(tx, f.Key())
				}
				for p := range state.LogPolicies.Prefix(tx, state.LogPolicyKey(g.Account, g.ARN, "")) {
					state.LogPolicies.Delete(tx, state.LogPolicyKey(p.Account, p.Resource, p.Name))
				}
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

// Collect removes events that no stream names (a server that died while it
// deleted a stream leaves them, and a batch that came at that moment), events
// that have expired, and results of queries that nobody can ask for any more.
func (l *Logs) Collect() error {
	// Listed before the snapshot is taken: events are written only below a
	// stream's row, so what is listed and has no row has lost it.
	ids, err := l.Journal.List()
	if err != nil {
		return err
	}
	snap := l.DB.Snapshot()
	live := map[string]bool{}
	for s := range state.LogStreams.All(snap) {
		live[s.ID] = true
		if g, ok := state.LogGroups.Get(snap, s.Account+"/"+s.Group); ok && g.RetentionDays > 0 {
			if _, e := l.Journal.Expire(s.ID, l.expired(g)); e != nil {
				err = errors.Join(err, e)
			}
		}
	}
	return errors.Join(err, l.remove(slices.DeleteFunc(ids, func(id string) bool { return live[id] })), l.forget())
}

// expired is the time before which the group's events are no more.
func (l *Logs) expired(g *state.LogGroup) int64 {
	return l.Now().AddDate(0, 0, -g.RetentionDays).UnixMilli()
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
	prefix, pattern := wire.Value(in.LogGroupNamePrefix), wire.Value(in.LogGroupNamePattern)
	if prefix != "" && pattern != "" {
		return nil, invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	}
	if len(in.LogGroupIdentifiers) > 0 && (prefix != "" || pattern != "") {
		return nil, invalid("LogGroup identifiers cannot be combined with a name prefix or pattern.")
	}
	named := map[string]bool{}
	for _, id := range in.LogGroupIdentifiers {
		if n, err := l.name(ctx, id); err == nil {
			named[n] = true
		} else if wire.Code(err) != "ResourceNotFoundException" {
			return nil, err
		}
	}
	q := page.Query{"DescribeLogGroups", who, prefix, pattern, string(in.LogGroupClass), strings.Join(in.LogGroupIdentifiers, " ")}
	after, err := l.after(q, in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := limitOf(in.Limit, 50)
	out := &api.DescribeLogGroupsOutput{LogGroups: []api.LogGroup{}}
	for g := range state.LogGroups.Prefix(snap, who+"/"+prefix) {
		switch {
		case after != "" && g.Name <= after,
			in.LogGroupClass != "" && g.Class != string(in.LogGroupClass),
			!strings.Contains(g.Name, pattern),
			len(in.LogGroupIdentifiers) > 0 && !named[g.Name]:
			continue
		}
		if len(out.LogGroups) == limit {
			out.NextToken = l.next(q, *out.LogGroups[limit-1].LogGroupName)
			break
		}
		v := api.LogGroup{LogGroupName: new(g.Name), CreationTime: new(g.CreatedAt.UnixMilli()),
			Arn: new(g.ARN + ":*"), LogGroupArn: new(g.ARN), LogGroupClass: api.LogGroupClass(g.Class), DeletionProtectionEnabled: new(g.DeletionProtection)}
		if g.RetentionDays > 0 {
			v.RetentionInDays = new(int32(g.RetentionDays))
		}
		filters := int32(0)
		for range state.MetricFilters.Prefix(snap, g.Account+"/"+g.Name+":") {
			filters++
		}
		var stored int64
		for s := range state.LogStreams.Prefix(snap, g.Account+"/"+g.Name+":") {
			info, err := l.Journal.Info(s.ID)
			if err != nil {
				return nil, err
			}
			stored += info.Bytes
		}
		v.MetricFilterCount, v.StoredBytes = new(filters), new(stored)
		out.LogGroups = append(out.LogGroups, v)
	}
	return out, nil
}

// ListLogGroups lists groups by parts of their names.
func (l *Logs) ListLogGroups(ctx context.Context, in *api.ListLogGroupsInput) (*api.ListLogGroupsOutput, error) {
	snap, who := l.DB.Snapshot(), account(ctx)
	if len(in.DataSources) > 0 || len(in.FieldIndexNames) > 0 {
		return nil, invalid("dataSources and fieldIndexNames are not supported by Berth: it has neither data sources nor field indexes.")
	}
	pattern := wire.Value(in.LogGroupNamePattern)
	q := page.Query{"ListLogGroups", who, pattern, string(in.LogGroupClass)}
	for _, f := range in.LogGroupTags {
		q = append(q, wire.Value(f.Key), strings.Join(f.Values, " "))
	}
	after, err := l.after(q, in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := 50
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	out := &api.ListLogGroupsOutput{LogGroups: []api.LogGroupSummary{}}
	for g := range state.LogGroups.Prefix(snap, who+"/") {
		if after != "" && g.Name <= after || in.LogGroupClass != "" && g.Class != string(in.LogGroupClass) || !named(g.Name, pattern) || !tagged(g, in.LogGroupTags) {
			continue
		}
		if len(out.LogGroups) == limit {
			out.NextToken = l.next(q, *out.LogGroups[limit-1].LogGroupName)
			break
		}
		out.LogGroups = append(out.LogGroups, api.LogGroupSummary{LogGroupName: new(g.Name), LogGroupArn: new(g.ARN), LogGroupClass: api.LogGroupClass(g.Class)})
	}
	return out, nil
}

// named reports whether one of the pattern's alternatives is in the name, or
// with a ^ in front of it.
func named(name, pattern string) bool {
	for p := range strings.SplitSeq(pattern, "|") {
		if prefix, ok := strings.CutPrefix(p, "^"); ok && strings.HasPrefix(name, prefix) || !ok && strings.Contains(name, p) {
			return true
		}
	}
	return false
}

func tagged(g *state.LogGroup, filters []api.TagFilter) bool {
	for _, f := range filters {
		if !slices.ContainsFunc(g.Tags, func(t state.Tag) bool {
			return t.Key == wire.Value(f.Key) && (len(f.Values) == 0 || slices.Contains(f.Values, t.Value))
		}) {
			return false
		}
	}
	return true
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
	g, err := l.find(snap, ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	prefix, descending := wire.Value(in.LogStreamNamePrefix), wire.Value(in.Descending)
	byTime := in.OrderBy == api.OrderByLastEventTime
	if byTime && prefix != "" {
		return nil, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	q := page.Query{"DescribeLogStreams", g.Account, g.Name, prefix, string(in.OrderBy), fmt.Sprint(descending)}
	after, err := l.after(q, in.NextToken)
	if err != nil {
		return nil, err
	}
	type row struct {
		s   *state.LogStream
		key string
	}
	var rows []row
	for s := range state.LogStreams.Prefix(snap, g.Account+"/"+g.Name+":"+prefix) {
		x := row{s, s.Name}
		if byTime {
			info, err := l.Journal.Info(s.ID)
			if err != nil {
				return nil, err
			}
			x.key = fmt.Sprintf("%020d/%s", info.Last, s.Name)
		}
		rows = append(rows, x)
	}
	slices.SortFunc(rows, func(a, b row) int {
		if descending {
			a, b = b, a
		}
		return strings.Compare(a.key, b.key)
	})
	limit := limitOf(in.Limit, 50)
	out := &api.DescribeLogStreamsOutput{LogStreams: []api.LogStream{}}
	last := ""
	for _, x := range rows {
		if after != "" && (!descending && x.key <= after || descending && x.key >= after) {
			continue
		}
		if len(out.LogStreams) == limit {
			out.NextToken = l.next(q, last)
			break
		}
		last = x.key
		info, err := l.Journal.Info(x.s.ID)
		if err != nil {
			return nil, err
		}
		v := api.LogStream{LogStreamName: new(x.s.Name), CreationTime: new(x.s.CreatedAt.UnixMilli()),
			Arn: new(g.ARN + ":log-stream:" + x.s.Name), StoredBytes: new(int64(0)), UploadSequenceToken: new(sequence(info))}
		if info.Events > 0 {
			v.FirstEventTimestamp, v.LastEventTimestamp, v.LastIngestionTime = new(info.First), new(info.Last), new(info.Ingested)
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
// of every answer at once; [Logs.Collect] gives their space back.
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
	for _, k := range slices.Sorted(maps.Keys(add)) {
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

// TagResource sets tags of a group.
func (l *Logs) TagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	return &api.TagResourceOutput{}, l.tag(ctx, wire.Value(in.ResourceArn), in.Tags)
}

// TagLogGroup is what TagResource replaced.
func (l *Logs) TagLogGroup(ctx context.Context, in *api.TagLogGroupInput) (*api.TagLogGroupOutput, error) {
	return &api.TagLogGroupOutput{}, l.tag(ctx, wire.Value(in.LogGroupName), in.Tags)
}

func (l *Logs) tag(ctx context.Context, id string, tags map[string]string) error {
	n, err := l.name(ctx, id)
	if err != nil {
		return err
	}
	return l.change(ctx, n, func(g *state.LogGroup) (err error) {
		g.Tags, err = merge(g.Tags, tags)
		return err
	})
}

// UntagResource removes tags of a group.
func (l *Logs) UntagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	return &api.UntagResourceOutput{}, l.untag(ctx, wire.Value(in.ResourceArn), in.TagKeys)
}

// UntagLogGroup is what UntagResource replaced.
func (l *Logs) UntagLogGroup(ctx context.Context, in *api.UntagLogGroupInput) (*api.UntagLogGroupOutput, error) {
	return &api.UntagLogGroupOutput{}, l.untag(ctx, wire.Value(in.LogGroupName), in.Tags)
}

func (l *Logs) untag(ctx context.Context, id string, keys []string) error {
	n, err := l.name(ctx, id)
	if err != nil {
		return err
	}
	return l.change(ctx, n, func(g *state.LogGroup) error {
		g.Tags = slices.DeleteFunc(slices.Clone(g.Tags), func(t state.Tag) bool { return slices.Contains(keys, t.Key) })
		return nil
	})
}

// ListTagsForResource answers the tags of a group.
func (l *Logs) ListTagsForResource(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	tags, err := l.tags(ctx, wire.Value(in.ResourceArn))
	if err != nil {
		return nil, err
	}
	return &api.ListTagsForResourceOutput{Tags: tags}, nil
}

// ListTagsLogGroup is what ListTagsForResource replaced.
func (l *Logs) ListTagsLogGroup(ctx context.Context, in *api.ListTagsLogGroupInput) (*api.ListTagsLogGroupOutput, error) {
	tags, err := l.tags(ctx, wire.Value(in.LogGroupName))
	if err != nil {
		return nil, err
	}
	return &api.ListTagsLogGroupOutput{Tags: tags}, nil
}

func (l *Logs) tags(ctx context.Context, id string) (map[string]string, error) {
	n, err := l.name(ctx, id)
	if err != nil {
		return nil, err
	}
	g, err := l.group(l.DB.Snapshot(), ctx, n)
	if err != nil {
		return nil, err
	}
	tags := map[string]string{}
	for _, t := range g.Tags {
		tags[t.Key] = t.Value
	}
	return tags, nil
}
