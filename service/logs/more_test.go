package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const arnG = "arn:aws:logs:eu-west-1:123456789012:log-group:g"

// show is an output as JSON, for comparison.
func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (b *bench) quota(name string, n int) {
	b.Helper()
	if err := b.DB.Update(b.ctx, func(tx *store.Tx) error {
		state.Quotas.Put(tx, &state.Quota{Name: name, Value: n})
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}

// A group that another account or region has is not the caller's of that name.
func TestIdentifiers(t *testing.T) {
	b := newBench(t)
	b.say("s", "5 mine")
	for _, id := range []string{"g", arnG, arnG + ":*"} {
		if got := try(b, b.FilterLogEvents, `{"LogGroupIdentifier":"`+id+`"}`).Events; len(got) != 1 {
			t.Errorf("%s: %d events", id, len(got))
		}
		if got := try(b, b.GetLogEvents, `{"LogGroupIdentifier":"`+id+`","LogStreamName":"s"}`).Events; len(got) != 1 {
			t.Errorf("%s: %d events", id, len(got))
		}
	}
	other, region := strings.Replace(arnG, "123456789012", "999999999999", 1), strings.Replace(arnG, "eu-west-1", "eu-west-2", 1)
	for _, id := range []string{other, region, other + ":*"} {
		q := `{"LogGroupIdentifier":"` + id + `"`
		refuse(b, b.FilterLogEvents, q+`}`, noGroupText)
		refuse(b, b.GetLogEvents, q+`,"LogStreamName":"s"}`, noGroupText)
		refuse(b, b.DescribeLogStreams, q+`}`, noGroupText)
		refuse(b, b.PutLogGroupDeletionProtection, q+`,"DeletionProtectionEnabled":true}`, noGroupText)
		refuse(b, b.StartLiveTail, `{"LogGroupIdentifiers":["`+id+`"]}`, map[bool]string{true: ip + "The log group identifier cannot end with an asterisk: " + id, false: noGroupText}[strings.HasSuffix(id, "*")])
		refuse(b, b.StartQuery, `{"LogGroupIdentifiers":["`+id+`"],"StartTime":1,"EndTime":2,"QueryString":"limit 1"}`, noGroupText)
		refuse(b, b.TagResource, `{"ResourceArn":"`+id+`","Tags":{"a":"b"}}`, noGroupText)
		refuse(b, b.ListTagsForResource, `{"ResourceArn":"`+id+`"}`, noGroupText)
		if got := try(b, b.DescribeLogGroups, `{"LogGroupIdentifiers":["`+id+`"]}`).LogGroups; len(got) != 0 {
			t.Errorf("%s: %v", id, got)
		}
		// And it is that group's ARN that is authorized.
		checks := b.Authorize()["FilterLogEvents"](b.ctx, b.DB.Snapshot(), auth.FromContext(b.ctx), &api.FilterLogEventsInput{LogGroupIdentifier: new(id)})
		if checks[0].Resource != strings.TrimSuffix(id, ":*")+":*" {
			t.Errorf("%s is authorized on %s", id, checks[0].Resource)
		}
	}
	refuse(b, b.TagResource, `{"ResourceArn":"arn:aws:logs:eu-west-1:123456789012:destination:d","Tags":{"a":"b"}}`, ip+"The specified ARN is not the ARN of a log group: arn:aws:logs:eu-west-1:123456789012:destination:d")
}

func TestEndOfTheRange(t *testing.T) {
	b := newBench(t)
	b.say("s", "10 a", "5 b")
	end := b.time.Add(-5 * time.Second).UnixMilli()
	got, _ := b.filter(fmt.Sprintf(`,"EndTime":%d`, end))
	want(t, "FilterLogEvents, which takes the end in", got, "a b")
	got, _ = b.get(fmt.Sprintf(`,"EndTime":%d`, end))
	want(t, "GetLogEvents, which leaves it out", got, "a")
}

func TestFilterByStructure(t *testing.T) {
	b := newBench(t)
	b.say("s", `50 {"level":"ERROR","n":5}`, `40 {"level":"INFO","n":50}`, `30 GET /a 404 12`, `20 GET /b 200 13`)
	for pattern, n := range map[string]int{`{ $.level = "ERROR" }`: 1, `{ $.n > 4 }`: 2, `[verb, path, code = 4*, bytes]`: 1, `%/[ab] \\d+%`: 2, `-GET`: 2} {
		if got, _ := b.filter(`,"FilterPattern":` + show(strings.ReplaceAll(pattern, `\\`, `\`))); len(got) != n {
			t.Errorf("%s: %q", pattern, got)
		}
	}
}

func TestDeletionProtection(t *testing.T) {
	b := newBench(t)
	try(b, b.PutLogGroupDeletionProtection, `{"LogGroupIdentifier":"`+arnG+`","DeletionProtectionEnabled":true}`)
	refuse(b, b.DeleteLogGroup, `{"LogGroupName":"g"}`, "ValidationException: The log group is protected against deletion. Disable deletion protection and try again.")
	if g := try(b, b.DescribeLogGroups, `{}`).LogGroups[0]; !*g.DeletionProtectionEnabled {
		t.Error("not shown")
	}
	try(b, b.PutLogGroupDeletionProtection, `{"LogGroupIdentifier":"g","DeletionProtectionEnabled":false}`)
	try(b, b.DeleteLogGroup, `{"LogGroupName":"g"}`)
}

func TestInfrequentAccess(t *testing.T) {
	b := newBench(t)
	try(b, b.CreateLogGroup, `{"LogGroupName":"ia","LogGroupClass":"INFREQUENT_ACCESS"}`)
	try(b, b.CreateLogStream, `{"LogGroupName":"ia","LogStreamName":"s"}`)
	const not = " is not supported for log groups of the class INFREQUENT_ACCESS."
	refuse(b, b.GetLogEvents, `{"LogGroupName":"ia","LogStreamName":"s"}`, ip+"GetLogEvents"+not)
	refuse(b, b.FilterLogEvents, `{"LogGroupName":"ia"}`, ip+"FilterLogEvents"+not)
	refuse(b, b.StartLiveTail, `{"LogGroupIdentifiers":["ia"]}`, "InvalidOperationException: Live Tail"+not)
	refuse(b, b.PutMetricFilter, `{"LogGroupName":"ia","FilterName":"f","FilterPattern":"","MetricTransformations":[{"MetricName":"m","MetricNamespace":"n","MetricValue":"1"}]}`, "InvalidOperationException: Metric filters are not supported for log groups of the class INFREQUENT_ACCESS.")
	if got := b.rows(`"LogGroupName":"ia"`, "stats count(*)"); got != "0" {
		t.Errorf("query: %s", got)
	}
}

func TestListLogGroups(t *testing.T) {
	b := newBench(t)
	for _, n := range []string{"app/web", "app/api", "web"} {
		try(b, b.CreateLogGroup, `{"LogGroupName":"`+n+`","Tags":{"name":"`+n+`"}}`)
	}
	for body, want := range map[string]string{
		`{}`: "app/api app/web g web", `{"LogGroupNamePattern":"web"}`: "app/web web", `{"LogGroupNamePattern":"^web"}`: "web", `{"LogGroupNamePattern":"^web|api"}`: "app/api web",
		`{"LogGroupTags":[{"Key":"name","Values":["web"]}]}`: "web", `{"LogGroupTags":[{"Key":"name"}]}`: "app/api app/web web", `{"LogGroupClass":"INFREQUENT_ACCESS"}`: "",
	} {
		var got []string
		token := ""
		for {
			out := try(b, b.ListLogGroups, strings.TrimSuffix(strings.Replace(body, "{", `{"Limit":1,"NextToken":"`+token+`",`, 1), ",}")+map[bool]string{true: "}"}[body == "{}"])
			for _, g := range out.LogGroups {
				got = append(got, *g.LogGroupName)
			}
			if token = wire.Value(out.NextToken); token == "" {
				break
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s", body, s)
		}
	}
	out := try(b, b.ListLogGroups, `{"Limit":1}`)
	refuse(b, b.ListLogGroups, `{"NextToken":"`+*out.NextToken+`","LogGroupNamePattern":"web"}`, ip+"The specified nextToken is invalid.")
}

func TestOldTags(t *testing.T) {
	b := newBench(t)
	try(b, b.TagLogGroup, `{"LogGroupName":"g","Tags":{"a":"1","b":"2"}}`)
	try(b, b.UntagLogGroup, `{"LogGroupName":"g","Tags":["a"]}`)
	if got := try(b, b.ListTagsLogGroup, `{"LogGroupName":"g"}`).Tags; len(got) != 1 || got["b"] != "2" {
		t.Errorf("%v", got)
	}
	refuse(b, b.TagLogGroup, `{"LogGroupName":"x","Tags":{"a":"1"}}`, noGroupText)
}

// What has expired gives its space back.
func TestRetentionFreesSpace(t *testing.T) {
	b := newBench(t)
	b.say("s", "10 old")
	try(b, b.CreateLogStream, `{"LogGroupName":"g","LogStreamName":"t"}`)
	try(b, b.PutRetentionPolicy, `{"LogGroupName":"g","RetentionInDays":1}`)
	b.time = b.time.Add(25 * time.Hour)
	b.say("t", "10 new")
	if n := files(t, b.dir); n != 2 {
		t.Fatalf("%d files", n)
	}
	if err := b.Collect(); err != nil {
		t.Fatal(err)
	}
	if n := files(t, b.dir); n != 1 {
		t.Errorf("%d files left", n)
	}
	got, _ := b.filter("")
	want(t, "what is left", got, "new")
	b.say("s", "5 again")
	got, _ = b.get("")
	want(t, "the stream goes on", got, "again")
}

func TestMetricFilters(t *testing.T) {
	b := newBench(t)
	put := func(name, pattern, transformation string) string {
		return `{"LogGroupName":"g","FilterName":"` + name + `","FilterPattern":` + show(pattern) + `,"MetricTransformations":[` + transformation + `]}`
	}
	const one = `{"MetricName":"m","MetricNamespace":"n","MetricValue":"1","DefaultValue":0,"Unit":"Count"}`
	try(b, b.PutMetricFilter, put("a", "ERROR", one))
	b.time = b.time.Add(time.Hour)
	try(b, b.PutMetricFilter, put("a", "WARN", one))
	try(b, b.PutMetricFilter, put("b", `{ $.ms > 1 }`, `{"MetricName":"ms","MetricNamespace":"n","MetricValue":"$.ms","Dimensions":{"path":"$.path"}}`))
	got := show(try(b, b.DescribeMetricFilters, `{"LogGroupName":"g"}`).MetricFilters)
	wanted := fmt.Sprintf(`[{"filterName":"a","filterPattern":"WARN","metricTransformations":[{"metricName":"m","metricNamespace":"n","metricValue":"1","defaultValue":0,"unit":"Count"}],"creationTime":%d,"logGroupName":"g"},`+
		`{"filterName":"b","filterPattern":"{ $.ms \u003e 1 }","metricTransformations":[{"metricName":"ms","metricNamespace":"n","metricValue":"$.ms","dimensions":{"path":"$.path"}}],"creationTime":%d,"logGroupName":"g"}]`, now.UnixMilli(), b.time.UnixMilli())
	if got != wanted {
		t.Errorf("got  %s\nwant %s", got, wanted)
	}
	for body, n := range map[string]int{`{}`: 2, `{"FilterNamePrefix":"b"}`: 1, `{"MetricName":"m","MetricNamespace":"n"}`: 1, `{"MetricName":"x","MetricNamespace":"n"}`: 0} {
		if got := try(b, b.DescribeMetricFilters, body).MetricFilters; len(got) != n {
			t.Errorf("%s: %d", body, len(got))
		}
	}
	page := try(b, b.DescribeMetricFilters, `{"Limit":1}`)
	if next := try(b, b.DescribeMetricFilters, `{"NextToken":"`+*page.NextToken+`"}`).MetricFilters; len(next) != 1 || *next[0].FilterName != "b" {
		t.Errorf("second page: %s", show(next))
	}
	if n := *try(b, b.DescribeLogGroups, `{}`).LogGroups[0].MetricFilterCount; n != 2 {
		t.Errorf("%d filters are counted", n)
	}
	refuse(b, b.PutMetricFilter, put("c", "a:b", one), ip+"Invalid character(s) in term 'a:b'")
	refuse(b, b.PutMetricFilter, put("c", "a", `{"MetricName":"m","MetricNamespace":"n","MetricValue":"$x"}`), ip+"Invalid metric transformation: the filter pattern has no $x.")
	refuse(b, b.PutMetricFilter, put("c", "a", `{"MetricName":"m","MetricNamespace":"n","MetricValue":"x"}`), ip+"Invalid metric transformation: the metric value x is neither a number nor a field of the filter pattern.")
	refuse(b, b.PutMetricFilter, put("c", "[a, b]", `{"MetricName":"m","MetricNamespace":"n","MetricValue":"$a","DefaultValue":1,"Dimensions":{"b":"$b"}}`), ip+"Invalid metric transformation: dimensions and default value are mutually exclusive properties.")
	refuse(b, b.PutMetricFilter, put("c", "[a, b]", `{"MetricName":"m","MetricNamespace":"n","MetricValue":"$a","Dimensions":{"b":"$c"}}`), ip+"Invalid metric transformation: the filter pattern has no $c.")
	refuse(b, b.DescribeMetricFilters, `{"MetricName":"m"}`, ip+"Both metricName and metricNamespace must be specified.")
	refuse(b, b.DeleteMetricFilter, `{"LogGroupName":"g","FilterName":"x"}`, "ResourceNotFoundException: The specified metric filter does not exist.")
	b.quota("logs/regexp-filters-per-group", 1)
	try(b, b.PutMetricFilter, put("r", "%a%", one))
	refuse(b, b.PutMetricFilter, put("r2", "%a%", one), "LimitExceededException: Resource limit exceeded.")
	b.quota("logs/metric-filters-per-group", 3)
	refuse(b, b.PutMetricFilter, put("c", "a", one), "LimitExceededException: Resource limit exceeded.")
	try(b, b.DeleteMetricFilter, `{"LogGroupName":"g","FilterName":"a"}`)
	try(b, b.DeleteLogGroup, `{"LogGroupName":"g"}`)
	if n := state.MetricFilters.Count(b.DB.Snapshot()); n != 0 {
		t.Errorf("%d filters are left without their group", n)
	}
}

func TestTestMetricFilter(t *testing.T) {
	b := newBench(t)
	got := show(try(b, b.TestMetricFilter, `{"FilterPattern":"[..., code = 4*, size]","LogEventMessages":["x 200 1","y \"a b\" 404 2"]}`))
	if got != `{"matches":[{"eventNumber":1,"eventMessage":"y \"a b\" 404 2","extractedValues":{"$1":"y","$2":"a b","$code":"404","$size":"2"}}]}` {
		t.Error(got)
	}
	refuse(b, b.TestMetricFilter, `{"FilterPattern":"{","LogEventMessages":["x"]}`, ip+"Invalid filter pattern")
}

func TestSubscriptionsAreRefused(t *testing.T) {
	b := newBench(t)
	put := func(arn string) string {
		return `{"LogGroupName":"g","FilterName":"f","FilterPattern":"","DestinationArn":"` + arn + `"}`
	}
	const kinesis = "arn:aws:kinesis:eu-west-1:123456789012:stream/s"
	refuse(b, b.PutSubscriptionFilter, put(kinesis), ip+"Could not deliver test message to specified destination "+kinesis+": Berth does not have the service kinesis as a destination of subscription filters.")
	refuse(b, b.PutSubscriptionFilter, put("arn:aws:sqs:eu-west-1:123456789012:q"), ip+"PutSubscriptionFilter operation cannot work with destinationArn for vendor sqs")
	refuse(b, b.PutSubscriptionFilter, put("x"), ip+"destinationArn is not an ARN: x")
	if got := try(b, b.DescribeSubscriptionFilters, `{"LogGroupName":"g"}`).SubscriptionFilters; got == nil || len(got) != 0 {
		t.Errorf("%v", got)
	}
	refuse(b, b.DeleteSubscriptionFilter, `{"LogGroupName":"g","FilterName":"f"}`, "ResourceNotFoundException: The specified subscription filter does not exist.")
}

// rows runs a query to its end and answers its rows without @ptr.
func (b *bench) rows(groups, query string) string {
	b.Helper()
	out := b.result(*try(b, b.StartQuery, fmt.Sprintf(`{%s,"StartTime":%d,"EndTime":%d,"QueryString":%s}`, groups, b.time.Add(-time.Hour).Unix(), b.time.Unix(), show(query))).QueryId)
	if out.Status != api.QueryStatusComplete {
		b.Fatalf("%s: %s", query, out.Status)
	}
	var rows []string
	for _, r := range out.Results {
		var cells []string
		for _, c := range r {
			if *c.Field != "@ptr" {
				cells = append(cells, *c.Value)
			}
		}
		rows = append(rows, strings.Join(cells, ","))
	}
	return strings.Join(rows, " ")
}

func (b *bench) result(id string) *api.GetQueryResultsOutput {
	b.Helper()
	b.queries.wg.Wait()
	return try(b, b.GetQueryResults, `{"QueryId":"`+id+`"}`)
}

func TestQueries(t *testing.T) {
	b := newBench(t)
	try(b, b.CreateLogGroup, `{"LogGroupName":"h"}`)
	try(b, b.CreateLogStream, `{"LogGroupName":"h","LogStreamName":"s2"}`)
	b.say("s", `50 {"level":"ERROR","ms":5}`, `40 {"level":"INFO","ms":7}`, `0 last`)
	at := b.time.UnixMilli()
	try(b, b.PutLogEvents, fmt.Sprintf(`{"LogGroupName":"h","LogStreamName":"s2","LogEvents":[{"Timestamp":%d,"Message":"{\"level\":\"ERROR\",\"ms\":9}"}]}`, at-30_000))
	const both = `"LogGroupNames":["g","h"]`
	for query, want := range map[string]string{
		`stats count(*) as n, sum(ms) as s by level | sort n desc, s`: "ERROR,2,14 INFO,1,7 1",
		`filter level = "ERROR" | display @logStream, @log, ms`:       "s2,123456789012:h,9 s,123456789012:g,5",
		`fields @message | filter @message like /last/`:               "last",
		`fields ms | filter ispresent(ms) | limit 1`:                  "9",
	} {
		if got := b.rows(both, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	id := *try(b, b.StartQuery, fmt.Sprintf(`{"LogGroupIdentifiers":["%s"],"StartTime":%d,"EndTime":%d,"QueryString":"filter ispresent(ms)","Limit":1}`, arnG, at-3600_000, at)).QueryId
	out := b.result(id)
	if s := out.Statistics; len(out.Results) != 1 || *s.RecordsMatched != 2 || *s.RecordsScanned != 3 || *s.BytesScanned == 0 || *s.LogGroupsScanned != 1 {
		t.Errorf("%s", show(out))
	}
	// A row leads to its event.
	last := out.Results[0][len(out.Results[0])-1]
	record := try(b, b.GetLogRecord, `{"LogRecordPointer":"`+*last.Value+`"}`).LogRecord
	if *last.Field != "@ptr" || record["@message"] != `{"level":"INFO","ms":7}` || record["level"] != "INFO" || record["ms"] != "7" || record["@logStream"] != "s" || record["@timestamp"] != fmt.Sprint(at-40_000) {
		t.Errorf("%v", record)
	}
	refuse(b, b.GetLogRecord, `{"LogRecordPointer":"x"}`, ip+"Invalid log record pointer.")
	if got := show(try(b, b.ListLogGroupsForQuery, `{"QueryId":"`+id+`"}`)); got != `{"logGroupIdentifiers":["`+arnG+`"]}` {
		t.Error(got)
	}
	// Others do not see it.
	other := auth.WithCaller(t.Context(), &auth.Caller{Account: "999999999999"})
	if _, err := b.GetQueryResults(other, &api.GetQueryResultsInput{QueryId: &id}); wire.Code(err) != "ResourceNotFoundException" {
		t.Error(err)
	}
	if _, err := b.GetLogRecord(other, &api.GetLogRecordInput{LogRecordPointer: last.Value}); wire.Code(err) != "ResourceNotFoundException" {
		t.Error(err)
	}
	// Results outlive the server, for a week.
	again := New(b.Config)
	t.Cleanup(again.Close)
	kept := try(b, again.GetQueryResults, `{"QueryId":"`+id+`"}`)
	if show(kept) != show(out) {
		t.Errorf("after a restart: %s", show(kept))
	}
	all := try(b, again.DescribeQueries, `{}`).Queries
	if len(all) != 5 || all[0].Status != api.QueryStatusComplete {
		t.Errorf("%s", show(all))
	}
	if got := try(b, again.DescribeQueries, `{"LogGroupName":"h","MaxResults":3}`); len(got.Queries) != 3 || len(try(b, again.DescribeQueries, `{"LogGroupName":"h","NextToken":"`+*got.NextToken+`"}`).Queries) != 1 {
		t.Errorf("%s", show(got))
	}
	b.time = b.time.Add(8 * 24 * time.Hour)
	if err := again.Collect(); err != nil {
		t.Fatal(err)
	}
	refuse(b, again.GetQueryResults, `{"QueryId":"`+id+`"}`, "ResourceNotFoundException: The specified query does not exist.")
	if left, err := os.ReadDir(b.Queries); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestQueryPages(t *testing.T) {
	b := newBench(t)
	b.say("s", "3 a", "2 b", "1 c")
	id := *try(b, b.StartQuery, fmt.Sprintf(`{"LogGroupName":"g","StartTime":%d,"EndTime":%d,"QueryString":"display @message"}`, b.time.Unix()-60, b.time.Unix())).QueryId
	b.queries.wg.Wait()
	var got []string
	token := ""
	for {
		out := try(b, b.GetQueryResults, `{"QueryId":"`+id+`","MaxItems":2,"NextToken":"`+token+`"}`)
		for _, r := range out.Results {
			got = append(got, *r[0].Value)
		}
		if token = wire.Value(out.NextToken); token == "" {
			break
		}
	}
	want(t, "in pages", got, "c b a")
}

func TestQueryRefusals(t *testing.T) {
	b := newBench(t)
	q := func(more string) string { return `{"StartTime":1,"EndTime":2,"QueryString":"limit 1"` + more + `}` }
	refuse(b, b.StartQuery, q(``), ip+"Exactly one of logGroupName, logGroupNames and logGroupIdentifiers must be specified.")
	refuse(b, b.StartQuery, q(`,"LogGroupName":"g","LogGroupNames":["g"]`), ip+"Exactly one of logGroupName, logGroupNames and logGroupIdentifiers must be specified.")
	refuse(b, b.StartQuery, q(`,"LogGroupName":"x"`), noGroupText)
	refuse(b, b.StartQuery, q(`,"LogGroupName":"g","QueryLanguage":"SQL"`), ip+"The query language SQL is not supported by Berth.")
	refuse(b, b.StartQuery, `{"LogGroupName":"g","StartTime":2,"EndTime":1,"QueryString":"limit 1"}`, ip+"End time should not be less than start time.")
	_, err := b.StartQuery(b.ctx, &api.StartQueryInput{LogGroupName: new("g"), StartTime: new(int64(1)), EndTime: new(int64(2)), QueryString: new("fields @message | nope")})
	e, ok := err.(*api.MalformedQueryException)
	if !ok || *e.QueryCompileError.Location.StartCharOffset != 18 || *e.QueryCompileError.Message != "unexpected symbol found n at line 1 and position 19" {
		t.Errorf("%v %s", err, show(e))
	}
	refuse(b, b.StopQuery, `{"QueryId":"x"}`, "ResourceNotFoundException: The specified query does not exist.")

	// Queries that wait for others count, can be stopped, and end with the server.
	for range queryWorkers {
		b.queries.slots <- struct{}{}
	}
	b.quota("logs/concurrent-queries", 2)
	id := *try(b, b.StartQuery, q(`,"LogGroupName":"g"`)).QueryId
	two := *try(b, b.StartQuery, q(`,"LogGroupName":"g"`)).QueryId
	refuse(b, b.StartQuery, q(`,"LogGroupName":"g"`), "LimitExceededException: Account maximum query concurrency of [2] reached.")
	if s := try(b, b.GetQueryResults, `{"QueryId":"`+id+`"}`).Status; s != api.QueryStatusScheduled {
		t.Errorf("a query that waits is %s", s)
	}
	try(b, b.StopQuery, `{"QueryId":"`+id+`"}`)
	refuse(b, b.StopQuery, `{"QueryId":"`+id+`"}`, ip+"The specified query is not running.")
	b.Close()
	for _, id := range []string{id, two} {
		if s := try(b, b.GetQueryResults, `{"QueryId":"`+id+`"}`).Status; s != api.QueryStatusCancelled {
			t.Errorf("%s is %s", id, s)
		}
	}
}

func TestQueryDefinitions(t *testing.T) {
	b := newBench(t)
	id := *try(b, b.PutQueryDefinition, `{"Name":"errors","QueryString":"limit 1","LogGroupNames":["g"],"Parameters":[{"Name":"p","DefaultValue":"d"}]}`).QueryDefinitionId
	try(b, b.PutQueryDefinition, `{"Name":"other","QueryString":"limit 2"}`)
	if again := *try(b, b.PutQueryDefinition, `{"QueryDefinitionId":"`+id+`","Name":"errors","QueryString":"limit 3","LogGroupNames":["g"],"Parameters":[{"Name":"p","DefaultValue":"d"}]}`).QueryDefinitionId; again != id {
		t.Errorf("%s became %s", id, again)
	}
	got := show(try(b, b.DescribeQueryDefinitions, `{"QueryDefinitionNamePrefix":"err"}`).QueryDefinitions)
	if want := fmt.Sprintf(`[{"queryLanguage":"CWLI","queryDefinitionId":"%s","name":"errors","queryString":"limit 3","lastModified":%d,"logGroupNames":["g"],"parameters":[{"name":"p","defaultValue":"d"}]}]`, id, b.time.UnixMilli()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	page := try(b, b.DescribeQueryDefinitions, `{"MaxResults":1}`)
	if n := len(try(b, b.DescribeQueryDefinitions, `{"NextToken":"`+*page.NextToken+`"}`).QueryDefinitions); n != 1 {
		t.Errorf("%d on the second page", n)
	}
	refuse(b, b.PutQueryDefinition, `{"QueryDefinitionId":"x","Name":"n","QueryString":"q"}`, "ResourceNotFoundException: The specified query definition does not exist.")
	b.quota("logs/saved-queries", 2)
	refuse(b, b.PutQueryDefinition, `{"Name":"n","QueryString":"q"}`, "LimitExceededException: Resource limit exceeded.")
	try(b, b.DeleteQueryDefinition, `{"QueryDefinitionId":"`+id+`"}`)
	refuse(b, b.DeleteQueryDefinition, `{"QueryDefinitionId":"`+id+`"}`, "ResourceNotFoundException: The specified query definition does not exist.")
}

func TestResourcePolicies(t *testing.T) {
	b := newBench(t)
	out := try(b, b.PutResourcePolicy, `{"PolicyName":"p","PolicyDocument":"{\"a\":1}"}`)
	if got, want := show(out.ResourcePolicy), fmt.Sprintf(`{"policyName":"p","policyDocument":"{\"a\":1}","lastUpdatedTime":%d,"policyScope":"ACCOUNT","revisionId":"%s"}`, b.time.UnixMilli(), *out.RevisionId); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	try(b, b.PutResourcePolicy, `{"ResourceArn":"`+arnG+`","PolicyDocument":"{}"}`)
	for body, want := range map[string]string{`{}`: "p", `{"ResourceArn":"` + arnG + `"}`: arnG, `{"PolicyScope":"RESOURCE"}`: arnG} {
		got := try(b, b.DescribeResourcePolicies, body).ResourcePolicies
		if len(got) != 1 || wire.Value(got[0].PolicyName)+wire.Value(got[0].ResourceArn) != want {
			t.Errorf("%s: %s", body, show(got))
		}
	}
	refuse(b, b.PutResourcePolicy, `{"PolicyName":"p","PolicyDocument":"{}","ExpectedRevisionId":"x"}`, "OperationAbortedException: The revision of the resource policy is not the expected one.")
	refuse(b, b.PutResourcePolicy, `{"PolicyName":"p","PolicyDocument":"x"}`, ip+"The policy document is not valid JSON.")
	refuse(b, b.PutResourcePolicy, `{"PolicyDocument":"{}"}`, ip+"policyName must be specified for a policy of the account.")
	b.quota("logs/resource-policies", 1)
	refuse(b, b.PutResourcePolicy, `{"PolicyName":"q","PolicyDocument":"{}"}`, "LimitExceededException: Resource limit exceeded.")
	try(b, b.DeleteResourcePolicy, `{"PolicyName":"p"}`)
	refuse(b, b.DeleteResourcePolicy, `{"PolicyName":"p"}`, "ResourceNotFoundException: Policy with name [p] does not exist")
	try(b, b.DeleteLogGroup, `{"LogGroupName":"g"}`)
	if n := state.LogPolicies.Count(b.DB.Snapshot()); n != 0 {
		t.Errorf("%d policies are left", n)
	}
}

func TestGetLogGroupFields(t *testing.T) {
	b := newBench(t)
	if got := try(b, b.GetLogGroupFields, `{"LogGroupName":"g"}`).LogGroupFields; len(got) != 0 {
		t.Errorf("of nothing: %s", show(got))
	}
	b.say("s", `60 {"a":{"b":1},"c":[2]}`, `50 {"a":{"b":3}}`, `40 plain`, `30 x`)
	var got []string
	for _, f := range try(b, b.GetLogGroupFields, `{"LogGroupIdentifier":"`+arnG+`"}`).LogGroupFields {
		got = append(got, fmt.Sprintf("%s:%d", *f.Name, *f.Percent))
	}
	want(t, "fields", got, "@ingestionTime:100 @log:100 @logStream:100 @message:100 @timestamp:100 a.b:50 c.0:25")
}

// A session holds no more than an update does, and says that there was more.
func TestTailIsBounded(t *testing.T) {
	b := newBench(t)
	b.tails.period = time.Millisecond
	out := try(b, b.StartLiveTail, `{"LogGroupIdentifiers":["`+arnG+`"]}`)
	var lines []string
	for i := range tailEvents + 100 {
		lines = append(lines, fmt.Sprint("5 m", i))
	}
	b.say("s", lines...)
	n, sampled, updates := 0, false, 0
	for e, err := range out.ResponseStream {
		if err != nil {
			t.Fatal(err)
		}
		if u := e.SessionUpdate; u != nil {
			n += len(u.SessionResults)
			sampled = sampled || *u.SessionMetadata.Sampled
			if updates++; updates == 3 {
				break
			}
		}
	}
	if n != tailEvents || !sampled {
		t.Errorf("%d events, sampled %v", n, sampled)
	}
	if len(b.tails.groups) != 0 || len(b.tails.accounts) != 0 {
		t.Error("a session that has ended is still known")
	}
}

// A session ends after its time.
func TestTailEnds(t *testing.T) {
	b := newBench(t)
	b.tails.period, b.tails.life = time.Hour, time.Millisecond
	var last *api.StartLiveTailResponseStream
	for e := range try(b, b.StartLiveTail, `{"LogGroupIdentifiers":["`+arnG+`"]}`).ResponseStream {
		last = e
	}
	if last == nil || last.SessionTimeoutException == nil {
		t.Errorf("%s", show(last))
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	b.tails.life = time.Hour
	out, err := b.StartLiveTail(ctx, &api.StartLiveTailInput{LogGroupIdentifiers: []string{"g"}, LogStreamNames: []string{"s"}})
	if err != nil {
		t.Fatal(err)
	}
	for range out.ResponseStream {
		cancel()
	}
	if len(b.tails.groups) != 0 {
		t.Error("a session whose client is gone is still known")
	}
}

// An account has so many sessions; one that ends makes room.
func TestTailsAreLimited(t *testing.T) {
	b := newBench(t)
	b.quota("logs/live-tail-sessions", 1)
	b.tails.period, b.tails.life = time.Hour, time.Millisecond
	start := `{"LogGroupIdentifiers":["g"]}`
	out := try(b, b.StartLiveTail, start)
	refuse(b, b.StartLiveTail, start, "LimitExceededException: The maximum number of concurrent Live Tail sessions has been reached.")
	for range out.ResponseStream {
	}
	for range try(b, b.StartLiveTail, start).ResponseStream {
		break
	}
}
