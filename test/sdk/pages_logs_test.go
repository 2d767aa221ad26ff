package sdk

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
)

func TestLogsPaginators(t *testing.T) {
	t.Parallel()
	c, ctx := w.logs, t.Context()
	groups, streams := five("/paged/group"), five("stream")
	for i := range groups {
		done(t)(c.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &groups[i]}))
		done(t)(c.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &groups[0], LogStreamName: &streams[i]}))
	}
	group, stream := &groups[0], &streams[0]
	var events []types.InputLogEvent
	var messages []string
	for i := range 5 {
		messages = append(messages, fmt.Sprint("line ", i))
		events = append(events, types.InputLogEvent{Message: &messages[i], Timestamp: new(time.Now().UnixMilli())})
	}
	done(t)(c.PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{LogGroupName: group, LogStreamName: stream, LogEvents: events}))
	filters := five("filter")
	for _, name := range filters {
		done(t)(c.PutMetricFilter(ctx, &cloudwatchlogs.PutMetricFilterInput{LogGroupName: group, FilterName: &name, FilterPattern: new("line"),
			MetricTransformations: []types.MetricTransformation{{MetricName: new("lines"), MetricNamespace: new("paged"), MetricValue: new("1")}}}))
	}
	// A query reads no more groups than a page of them holds.
	query := must[*cloudwatchlogs.StartQueryOutput](t)(c.StartQuery(ctx, &cloudwatchlogs.StartQueryInput{LogGroupNames: groups, QueryString: new("fields @message"),
		StartTime: new(time.Now().Add(-time.Hour).Unix()), EndTime: new(time.Now().Unix())})).QueryId

	paginate(t, "cloudwatchlogs", []listing{
		pages(c, cloudwatchlogs.NewDescribeLogGroupsPaginator, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: new("/paged/")}, 2, "LogGroups.LogGroupName", groups),
		pages(c, cloudwatchlogs.NewDescribeLogStreamsPaginator, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: group}, 2, "LogStreams.LogStreamName", streams),
		pages(c, cloudwatchlogs.NewGetLogEventsPaginator, &cloudwatchlogs.GetLogEventsInput{LogGroupName: group, LogStreamName: stream, StartFromHead: new(true)}, 2, "Events.Message", messages),
		pages(c, cloudwatchlogs.NewFilterLogEventsPaginator, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: group}, 2, "Events.Message", messages),
		pages(c, cloudwatchlogs.NewDescribeMetricFiltersPaginator, &cloudwatchlogs.DescribeMetricFiltersInput{LogGroupName: group}, 2, "MetricFilters.FilterName", filters),
		pages(c, cloudwatchlogs.NewListLogGroupsForQueryPaginator, &cloudwatchlogs.ListLogGroupsForQueryInput{QueryId: query}, 50, "LogGroupIdentifiers", groups).few(1),
		// There is nothing that a subscription could send to.
		pages(c, cloudwatchlogs.NewDescribeSubscriptionFiltersPaginator, &cloudwatchlogs.DescribeSubscriptionFiltersInput{LogGroupName: group}, 2, "SubscriptionFilters.FilterName", nil).few(1),
	})
}
