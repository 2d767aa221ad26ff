package logs

import (
	"context"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
)

// Authorize says on which resources operations are authorized: a group's ARN
// with :* behind it, and below that the stream's, as in AWS. What is not named
// here is authorized on every resource.
func (l *Logs) Authorize() map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check {
	m := map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check{}
	groups := func(op string, of func(in any) []string) {
		m[op] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
			var checks []auth.Check
			for _, id := range of(in) {
				checks = append(checks, auth.Check{Action: "logs:" + op, Resource: l.arnOf(c.Account, id) + ":*"})
			}
			if len(checks) == 0 {
				checks = []auth.Check{{Action: "logs:" + op, Resource: l.arnOf(c.Account, "*") + ":*"}}
			}
			return checks
		}
	}
	group := func(op string, of func(in any) *string) {
		groups(op, func(in any) []string { return []string{wire.Value(of(in))} })
	}
	stream := func(op string, of func(in any) (group, stream *string)) {
		m[op] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
			g, s := of(in)
			return []auth.Check{{Action: "logs:" + op, Resource: l.arnOf(c.Account, wire.Value(g)) + ":log-stream:" + wire.Value(s)}}
		}
	}
	either := func(n, id *string) *string {
		if id != nil {
			return id
		}
		return n
	}
	group("CreateLogGroup", func(in any) *string { return in.(*api.CreateLogGroupInput).LogGroupName })
	group("DeleteLogGroup", func(in any) *string { return in.(*api.DeleteLogGroupInput).LogGroupName })
	group("PutLogGroupDeletionProtection", func(in any) *string { return in.(*api.PutLogGroupDeletionProtectionInput).LogGroupIdentifier })
	group("AssociateKmsKey", func(in any) *string {
		x := in.(*api.AssociateKmsKeyInput)
		return either(x.LogGroupName, x.ResourceIdentifier)
	})
	group("PutRetentionPolicy", func(in any) *string { return in.(*api.PutRetentionPolicyInput).LogGroupName })
	group("DeleteRetentionPolicy", func(in any) *string { return in.(*api.DeleteRetentionPolicyInput).LogGroupName })
	group("CreateLogStream", func(in any) *string { return in.(*api.CreateLogStreamInput).LogGroupName })
	group("TagResource", func(in any) *string { return in.(*api.TagResourceInput).ResourceArn })
	group("UntagResource", func(in any) *string { return in.(*api.UntagResourceInput).ResourceArn })
	group("ListTagsForResource", func(in any) *string { return in.(*api.ListTagsForResourceInput).ResourceArn })
	group("TagLogGroup", func(in any) *string { return in.(*api.TagLogGroupInput).LogGroupName })
	group("UntagLogGroup", func(in any) *string { return in.(*api.UntagLogGroupInput).LogGroupName })
	group("ListTagsLogGroup", func(in any) *string { return in.(*api.ListTagsLogGroupInput).LogGroupName })
	group("PutMetricFilter", func(in any) *string { return in.(*api.PutMetricFilterInput).LogGroupName })
	group("DeleteMetricFilter", func(in any) *string { return in.(*api.DeleteMetricFilterInput).LogGroupName })
	groups("DescribeMetricFilters", func(in any) []string { return one(in.(*api.DescribeMetricFiltersInput).LogGroupName) })
	group("PutSubscriptionFilter", func(in any) *string { return in.(*api.PutSubscriptionFilterInput).LogGroupName })
	group("DeleteSubscriptionFilter", func(in any) *string { return in.(*api.DeleteSubscriptionFilterInput).LogGroupName })
	group("DescribeSubscriptionFilters", func(in any) *string { return in.(*api.DescribeSubscriptionFiltersInput).LogGroupName })
	group("DescribeLogStreams", func(in any) *string {
		x := in.(*api.DescribeLogStreamsInput)
		return either(x.LogGroupName, x.LogGroupIdentifier)
	})
	group("FilterLogEvents", func(in any) *string {
		x := in.(*api.FilterLogEventsInput)
		return either(x.LogGroupName, x.LogGroupIdentifier)
	})
	group("GetLogGroupFields", func(in any) *string {
		x := in.(*api.GetLogGroupFieldsInput)
		return either(x.LogGroupName, x.LogGroupIdentifier)
	})
	groups("DescribeLogGroups", func(any) []string { return nil })
	groups("StartLiveTail", func(in any) []string { return in.(*api.StartLiveTailInput).LogGroupIdentifiers })
	groups("StartQuery", func(in any) []string {
		x := in.(*api.StartQueryInput)
		return append(append(one(x.LogGroupName), x.LogGroupNames...), x.LogGroupIdentifiers...)
	})
	stream("DeleteLogStream", func(in any) (*string, *string) {
		x := in.(*api.DeleteLogStreamInput)
		return x.LogGroupName, x.LogStreamName
	})
	stream("PutLogEvents", func(in any) (*string, *string) {
		x := in.(*api.PutLogEventsInput)
		return x.LogGroupName, x.LogStreamName
	})
	stream("GetLogEvents", func(in any) (*string, *string) {
		x := in.(*api.GetLogEventsInput)
		return either(x.LogGroupName, x.LogGroupIdentifier), x.LogStreamName
	})
	return m
}

func one(n *string) []string {
	if n == nil {
		return nil
	}
	return []string{*n}
}

// arnOf is the ARN of a group that is named by it or by its name. An ARN is
// taken as it is: whose group it is, is a part of what is authorized.
func (l *Logs) arnOf(account, id string) string {
	if strings.HasPrefix(id, "arn:") {
		return strings.TrimSuffix(id, ":*")
	}
	return l.groupARN(account, id)
}
