package sdk

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
)

func TestTerraformLogGroup(t *testing.T) {
	t.Parallel()
	c, ctx := w.logs, t.Context()
	name := new("/tf/group")
	arn := "arn:aws:logs:us-east-1:" + w.Account + ":log-group:/tf/group"
	// There is no error for a group that is not: the list lacks it.
	r := resource{read: func() (any, error) {
		out, err := c.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: name})
		if err != nil {
			return nil, err
		}
		for i := range out.LogGroups {
			if out.LogGroups[i].CreationTime == nil {
				t.Error("it does not say when")
			}
			out.LogGroups[i].CreationTime = nil
		}
		return out.LogGroups, nil
	}}
	tagged := resource{func() (any, error) {
		out, err := c.ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: &arn})
		if err != nil {
			return nil, err
		}
		return out.Tags, nil
	}, "ResourceNotFoundException"}
	r.same(t, []types.LogGroup{})
	tagged.isGone(t)
	done(t)(c.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: name, LogGroupClass: types.LogGroupClassStandard, Tags: map[string]string{"zone": "b", "app": "a"}}))
	done(t)(c.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: name, RetentionInDays: new(int32(14))}))
	want := types.LogGroup{LogGroupName: name, Arn: new(arn + ":*"), LogGroupArn: &arn, LogGroupClass: types.LogGroupClassStandard, RetentionInDays: new(int32(14)),
		MetricFilterCount: new(int32(0)), StoredBytes: new(int64(0)), DeletionProtectionEnabled: new(false)}
	r.same(t, []types.LogGroup{want})
	tagged.same(t, map[string]string{"zone": "b", "app": "a"})

	// aws_cloudwatch_log_stream
	stream := resource{read: func() (any, error) {
		out, err := c.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: name, LogStreamNamePrefix: new("stream")})
		if err != nil {
			return nil, err
		}
		for i := range out.LogStreams {
			out.LogStreams[i].CreationTime, out.LogStreams[i].UploadSequenceToken = nil, nil
		}
		return out.LogStreams, nil
	}, gone: "ResourceNotFoundException"}
	done(t)(c.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: name, LogStreamName: new("stream")}))
	stream.same(t, []types.LogStream{{LogStreamName: new("stream"), Arn: new(arn + ":log-stream:stream"), StoredBytes: new(int64(0))}})
	done(t)(c.DeleteLogStream(ctx, &cloudwatchlogs.DeleteLogStreamInput{LogGroupName: name, LogStreamName: new("stream")}))
	stream.same(t, []types.LogStream{})

	// aws_cloudwatch_log_metric_filter
	filter := resource{read: func() (any, error) {
		out, err := c.DescribeMetricFilters(ctx, &cloudwatchlogs.DescribeMetricFiltersInput{LogGroupName: name, FilterNamePrefix: new("errors")})
		if err != nil {
			return nil, err
		}
		for i := range out.MetricFilters {
			out.MetricFilters[i].CreationTime = nil
		}
		return out.MetricFilters, nil
	}, gone: "ResourceNotFoundException"}
	transformation := types.MetricTransformation{MetricName: new("errors"), MetricNamespace: new("tf"), MetricValue: new("1"), DefaultValue: new(0.5), Unit: types.StandardUnitCount}
	put := func() {
		t.Helper()
		done(t)(c.PutMetricFilter(ctx, &cloudwatchlogs.PutMetricFilterInput{LogGroupName: name, FilterName: new("errors"), FilterPattern: new(`{ $.level = "error" }`),
			MetricTransformations: []types.MetricTransformation{transformation}}))
		filter.same(t, []types.MetricFilter{{FilterName: new("errors"), LogGroupName: name, FilterPattern: new(`{ $.level = "error" }`), MetricTransformations: []types.MetricTransformation{transformation}}})
	}
	put()
	transformation.DefaultValue, transformation.Dimensions = nil, map[string]string{"zone": "$.zone", "app": "$.app"}
	put()
	want.MetricFilterCount = new(int32(1))
	r.same(t, []types.LogGroup{want})
	done(t)(c.DeleteMetricFilter(ctx, &cloudwatchlogs.DeleteMetricFilterInput{LogGroupName: name, FilterName: new("errors")}))
	filter.same(t, []types.MetricFilter{})
	want.MetricFilterCount = new(int32(0))

	done(t)(c.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: name, RetentionInDays: new(int32(30))}))
	done(t)(c.UntagResource(ctx, &cloudwatchlogs.UntagResourceInput{ResourceArn: &arn, TagKeys: []string{"zone"}}))
	want.RetentionInDays = new(int32(30))
	r.same(t, []types.LogGroup{want})
	tagged.same(t, map[string]string{"app": "a"})
	done(t)(c.DeleteRetentionPolicy(ctx, &cloudwatchlogs.DeleteRetentionPolicyInput{LogGroupName: name}))
	want.RetentionInDays = nil
	r.same(t, []types.LogGroup{want})

	done(t)(c.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: name}))
	r.same(t, []types.LogGroup{})
	for _, r := range []resource{tagged, stream, filter} {
		r.isGone(t)
	}

	// With nothing said.
	done(t)(c.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: name}))
	r.same(t, []types.LogGroup{want})
	tagged.same(t, map[string]string{})
}
