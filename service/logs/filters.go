package logs

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/logs/pattern"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// maxDimensions is how many dimensions a metric filter can have.
const maxDimensions = 3

// PutMetricFilter makes or changes a metric filter.
func (l *Logs) PutMetricFilter(ctx context.Context, in *api.PutMetricFilterInput) (*api.PutMetricFilterOutput, error) {
	p, err := compile(in.FilterPattern)
	if err != nil {
		return nil, err
	}
	if len(in.MetricTransformations) != 1 {
		return nil, invalid("Exactly one metric transformation must be specified.")
	}
	t := in.MetricTransformations[0]
	if err := transformation(p, t); err != nil {
		return nil, err
	}
	f := &state.MetricFilter{Account: account(ctx), Group: wire.Value(in.LogGroupName), Name: wire.Value(in.FilterName), Pattern: wire.Value(in.FilterPattern),
		Metric: state.MetricTransformation{Name: wire.Value(t.MetricName), Namespace: wire.Value(t.MetricNamespace), Value: wire.Value(t.MetricValue),
			Default: t.DefaultValue, Dimensions: maps.Clone(t.Dimensions), Unit: string(t.Unit)},
		Transformed: in.ApplyOnTransformedLogs, Selection: wire.Value(in.FieldSelectionCriteria), SystemFields: slices.Clone(in.EmitSystemFieldDimensions)}
	now := l.Now()
	return &api.PutMetricFilterOutput{}, l.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := l.group(tx, ctx, f.Group)
		if err != nil {
			return err
		}
		if g.Class == infrequent {
			return &api.InvalidOperationException{Message: "Metric filters are not supported for log groups of the class " + infrequent + "."}
		}
		n := *f
		n.CreatedAt = now
		filters, regexps := 1, 0
		if p.Regexps() > 0 {
			regexps++
		}
		for o := range state.MetricFilters.Prefix(tx, g.Account+"/"+g.Name+":") {
			if o.Name == n.Name {
				n.CreatedAt = o.CreatedAt
				continue
			}
			filters++
			if q, err := pattern.Compile(o.Pattern); err == nil && q.Regexps() > 0 {
				regexps++
			}
		}
		if filters > state.Limit(tx, g.Account, "logs/metric-filters-per-group") || p.Regexps() > 0 && regexps > state.Limit(tx, g.Account, "logs/regexp-filters-per-group") {
			return limited("Resource limit exceeded.")
		}
		state.MetricFilters.Put(tx, &n)
		return nil
	})
}

// transformation checks what the pattern has to do with the metric.
func transformation(p *pattern.Pattern, t api.MetricTransformation) error {
	value := wire.Value(t.MetricValue)
	if strings.HasPrefix(value, "$") {
		if !p.Named(value) {
			return invalid("Invalid metric transformation: the filter pattern has no %s.", value)
		}
	} else if _, err := strconv.ParseFloat(value, 64); err != nil {
		return invalid("Invalid metric transformation: the metric value %s is neither a number nor a field of the filter pattern.", value)
	}
	if len(t.Dimensions) > maxDimensions {
		return invalid("Invalid metric transformation: at most %d dimensions can be specified.", maxDimensions)
	}
	if len(t.Dimensions) > 0 && t.DefaultValue != nil {
		return invalid("Invalid metric transformation: dimensions and default value are mutually exclusive properties.")
	}
	for _, name := range slices.Sorted(maps.Keys(t.Dimensions)) {
		if v := t.Dimensions[name]; !p.Named(v) {
			return invalid("Invalid metric transformation: the filter pattern has no %s.", v)
		}
	}
	return nil
}

// DescribeMetricFilters lists filters by group and name, or by metric.
func (l *Logs) DescribeMetricFilters(ctx context.Context, in *api.DescribeMetricFiltersInput) (*api.DescribeMetricFiltersOutput, error) {
	snap, who := l.DB.Snapshot(), account(ctx)
	if (in.MetricName == nil) != (in.MetricNamespace == nil) {
		return nil, invalid("Both metricName and metricNamespace must be specified.")
	}
	prefix := who + "/"
	if in.LogGroupName != nil {
		if _, err := l.group(snap, ctx, *in.LogGroupName); err != nil {
			return nil, err
		}
		prefix += *in.LogGroupName + ":" + wire.Value(in.FilterNamePrefix)
	}
	q := page.Query{"DescribeMetricFilters", prefix, wire.Value(in.FilterNamePrefix), wire.Value(in.MetricName), wire.Value(in.MetricNamespace)}
	after, err := l.after(q, in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := limitOf(in.Limit, 50)
	out := &api.DescribeMetricFiltersOutput{MetricFilters: []api.MetricFilter{}}
	last := ""
	for f := range state.MetricFilters.Prefix(snap, prefix) {
		if after != "" && f.Key() <= after || !strings.HasPrefix(f.Name, wire.Value(in.FilterNamePrefix)) ||
			in.MetricName != nil && (f.Metric.Name != *in.MetricName || f.Metric.Namespace != *in.MetricNamespace) {
			continue
		}
		if len(out.MetricFilters) == limit {
			out.NextToken = l.next(q, last)
			break
		}
		last = f.Key()
		t := api.MetricTransformation{MetricName: new(f.Metric.Name), MetricNamespace: new(f.Metric.Namespace), MetricValue: new(f.Metric.Value),
			DefaultValue: f.Metric.Default, Dimensions: f.Metric.Dimensions, Unit: api.StandardUnit(f.Metric.Unit)}
		v := api.MetricFilter{FilterName: new(f.Name), FilterPattern: new(f.Pattern), LogGroupName: new(f.Group), CreationTime: new(f.CreatedAt.UnixMilli()),
			MetricTransformations: []api.MetricTransformation{t}, ApplyOnTransformedLogs: f.Transformed, EmitSystemFieldDimensions: f.SystemFields}
		if f.Selection != "" {
			v.FieldSelectionCriteria = new(f.Selection)
		}
		out.MetricFilters = append(out.MetricFilters, v)
	}
	return out, nil
}

// DeleteMetricFilter removes a filter.
func (l *Logs) DeleteMetricFilter(ctx context.Context, in *api.DeleteMetricFilterInput) (*api.DeleteMetricFilterOutput, error) {
	return &api.DeleteMetricFilterOutput{}, l.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := l.group(tx, ctx, wire.Value(in.LogGroupName))
		if err != nil {
			return err
		}
		key := (&state.MetricFilter{Account: g.Account, Group: g.Name, Name: wire.Value(in.FilterName)}).Key()
		if !state.MetricFilters.Has(tx, key) {
			return &api.ResourceNotFoundException{Message: "The specified metric filter does not exist."}
		}
		state.MetricFilters.Delete(tx, key)
		return nil
	})
}

// TestMetricFilter answers which of some messages a pattern selects. They are
// counted from 0, as in the examples of the API.
func (l *Logs) TestMetricFilter(_ context.Context, in *api.TestMetricFilterInput) (*api.TestMetricFilterOutput, error) {
	p, err := compile(in.FilterPattern)
	if err != nil {
		return nil, err
	}
	out := &api.TestMetricFilterOutput{Matches: []api.MetricFilterMatchRecord{}}
	for i, m := range in.LogEventMessages {
		if p.Match([]byte(m)) {
			out.Matches = append(out.Matches, api.MetricFilterMatchRecord{EventNumber: new(int64(i)), EventMessage: new(m), ExtractedValues: p.Extract([]byte(m))})
		}
	}
	return out, nil
}

// PutSubscriptionFilter is refused: what AWS sends events to is not here.
func (l *Logs) PutSubscriptionFilter(ctx context.Context, in *api.PutSubscriptionFilterInput) (*api.PutSubscriptionFilterOutput, error) {
	if _, err := l.group(l.DB.Snapshot(), ctx, wire.Value(in.LogGroupName)); err != nil {
		return nil, err
	}
	if _, err := compile(in.FilterPattern); err != nil {
		return nil, err
	}
	arn := wire.Value(in.DestinationArn)
	p := strings.SplitN(arn, ":", 6)
	if len(p) < 6 || p[0] != "arn" {
		return nil, invalid("destinationArn is not an ARN: %s", arn)
	}
	switch p[2] {
	case "kinesis", "firehose", "lambda", "logs":
		return nil, invalid("Could not deliver test message to specified destination %s: Berth does not have the service %s as a destination of subscription filters.", arn, p[2])
	}
	return nil, invalid("PutSubscriptionFilter operation cannot work with destinationArn for vendor %s", p[2])
}

// DescribeSubscriptionFilters answers that a group has none.
func (l *Logs) DescribeSubscriptionFilters(ctx context.Context, in *api.DescribeSubscriptionFiltersInput) (*api.DescribeSubscriptionFiltersOutput, error) {
	if _, err := l.group(l.DB.Snapshot(), ctx, wire.Value(in.LogGroupName)); err != nil {
		return nil, err
	}
	return &api.DescribeSubscriptionFiltersOutput{SubscriptionFilters: []api.SubscriptionFilter{}}, nil
}

// DeleteSubscriptionFilter finds none to remove.
func (l *Logs) DeleteSubscriptionFilter(ctx context.Context, in *api.DeleteSubscriptionFilterInput) (*api.DeleteSubscriptionFilterOutput, error) {
	if _, err := l.group(l.DB.Snapshot(), ctx, wire.Value(in.LogGroupName)); err != nil {
		return nil, err
	}
	return nil, &api.ResourceNotFoundException{Message: "The specified subscription filter does not exist."}
}
