package state

import (
	"time"

	"github.com/berth-run/berth/store"
)

// MetricFilter is a metric filter of a log group.
type MetricFilter struct {
	Account, Group, Name string
	Pattern              string
	Metric               MetricTransformation
	Transformed          *bool // applyOnTransformedLogs, as it was sent
	Selection            string
	SystemFields         []string
	CreatedAt            time.Time
}

// MetricTransformation says which metric a filter counts into.
type MetricTransformation struct {
	Name, Namespace, Value string
	Default                *float64
	Dimensions             map[string]string
	Unit                   string
}

// Key is the filter's key: neither name contains a colon.
func (f *MetricFilter) Key() string { return f.Account + "/" + f.Group + ":" + f.Name }

// MetricFilters is keyed by account/group:filter.
var MetricFilters = store.NewTable("logmetricfilter", (*MetricFilter).Key)

// LogQuery is a saved query of Logs Insights.
type LogQuery struct {
	Account, ID, Name string
	Language, Query   string
	Groups            []string
	Parameters        []LogQueryParameter
	ModifiedAt        time.Time
}

// LogQueryParameter is a parameter of a saved query.
type LogQueryParameter struct{ Name, Default, Description string }

// LogQueries is keyed by account/id.
var LogQueries = store.NewTable("logquery", func(q *LogQuery) string { return q.Account + "/" + q.ID })

// LogPolicy is a resource policy: of the account, or of one log group.
type LogPolicy struct {
	Account, Name string
	Resource      string // ARN of a log group; "" for the account's
	Document      string
	Revision      string
	UpdatedAt     time.Time
}

// LogPolicyKey is the key of a resource policy.
func LogPolicyKey(account, resource, name string) string {
	return account + "/" + resource + "|" + name
}

// LogPolicies is keyed by account/resource|name.
var LogPolicies = store.NewTable("logpolicy", func(p *LogPolicy) string { return LogPolicyKey(p.Account, p.Resource, p.Name) })
