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

	paginate(t, "cloudwatchlogs", []listing{
		pages(c, cloudwatchlogs.NewDescribeLogGroupsPaginator, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: new("/paged/")}, 2, "LogGroups.LogGroupName", groups),
		pages(c, cloudwatchlogs.NewDescribeLogStreamsPaginator, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: group}, 2, "LogStreams.LogStreamName", streams),
		pages(c, cloudwatchlogs.NewGetLogEventsPaginator, &cloudwatchlogs.GetLogEventsInput{LogGroupName: group, LogStreamName: stream, StartFromHead: new(true)}, 2, "Events.Message", messages),
		pages(c, cloudwatchlogs.NewFilterLogEventsPaginator, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: group}, 2, "Events.Message", messages),
	})
}
