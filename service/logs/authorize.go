package logs

import (
	"context"

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
	group := func(op string, of func(in any) *string) {
		m[op] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
			return []auth.Check{{Action: "logs:" + op, Resource: l.groupARN(c.Account, name(nil, of(in))) + ":*"}}
		}
	}
	stream := func(op string, of func(in any) (group, stream *string)) {
		m[op] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
			g, s := of(in)
			return []auth.Check{{Action: "logs:" + op, Resource: l.groupARN(c.Account, name(nil, g)) + ":log-stream:" + wire.Value(s)}}
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
	group("PutRetentionPolicy", func(in any) *string { return in.(*api.PutRetentionPolicyInput).LogGroupName })
	group("DeleteRetentionPolicy", func(in any) *string { return in.(*api.DeleteRetentionPolicyInput).LogGroupName })
	group("CreateLogStream", func(in any) *string { return in.(*api.CreateLogStreamInput).LogGroupName })
	group("TagResource", func(in any) *string { return in.(*api.TagResourceInput).ResourceArn })
	group("UntagResource", func(in any) *string { return in.(*api.UntagResourceInput).ResourceArn })
	group("ListTagsForResource", func(in any) *string { return in.(*api.ListTagsForResourceInput).ResourceArn })
	group("DescribeLogStreams", func(in any) *string {
		x := in.(*api.DescribeLogStreamsInput)
		return either(x.LogGroupName, x.LogGroupIdentifier)
	})
	group("FilterLogEvents", func(in any) *string {
		x := in.(*api.FilterLogEventsInput)
		return either(x.LogGroupName, x.LogGroupIdentifier)
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
