package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// bench is the API with one group g and one stream s.
type bench struct {
	*testing.T
	*Logs
	ctx  context.Context
	dir  string
	time time.Time
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, dir: t.TempDir(), time: now}
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	j, err := journal.Open(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	b.ctx = auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.RootUser, Account: "123456789012"})
	n := 0
	b.Logs = New(Config{DB: db, Journal: j, Queries: filepath.Join(b.dir, "queries"), Region: "eu-west-1", Now: func() time.Time { return b.time }, NewID: func() string { n++; return fmt.Sprintf("%032x", n) }})
	t.Cleanup(b.Close)
	try(b, b.CreateLogGroup, `{"LogGroupName":"g"}`)
	try(b, b.CreateLogStream, `{"LogGroupName":"g","LogStreamName":"s"}`)
	return b
}

func try[I, O any](b *bench, op func(context.Context, *I) (*O, error), body string) *O {
	b.Helper()
	in := new(I)
	if err := json.Unmarshal([]byte(body), in); err != nil {
		b.Fatalf("%s: %v", body, err)
	}
	out, err := op(b.ctx, in)
	if err != nil {
		b.Fatalf("%T %s: %v", in, body, err)
	}
	return out
}

func refuse[I, O any](b *bench, op func(context.Context, *I) (*O, error), body, want string) {
	b.Helper()
	in := new(I)
	if err := json.Unmarshal([]byte(body), in); err != nil {
		b.Fatalf("%s: %v", body, err)
	}
	if _, err := op(b.ctx, in); err == nil || err.Error() != want {
		b.Errorf("%T %s\n got: %v\nwant: %s", in, body, err, want)
	}
}

const (
	noGroupText  = "ResourceNotFoundException: The specified log group does not exist."
	noStreamText = "ResourceNotFoundException: The specified log stream does not exist."
	ip           = "InvalidParameterException: "
)

// say puts messages at seconds before now: "30 hello".
func (b *bench) say(stream string, lines ...string) *api.PutLogEventsOutput {
	b.Helper()
	var es []string
	for _, l := range lines {
		var ago int
		at, text, _ := strings.Cut(l, " ")
		if _, err := fmt.Sscan(at, &ago); err != nil {
			b.Fatal(err)
		}
		es = append(es, fmt.Sprintf(`{"Timestamp":%d,"Message":%q}`, b.time.Add(-time.Duration(ago)*time.Second).UnixMilli(), text))
	}
	return try(b, b.PutLogEvents, `{"LogGroupName":"g","LogStreamName":"`+stream+`","LogEvents":[`+strings.Join(es, ",")+`]}`)
}

func (b *bench) get(more string) (texts []string, out *api.GetLogEventsOutput) {
	b.Helper()
	out = try(b, b.GetLogEvents, `{"LogGroupName":"g","LogStreamName":"s"`+more+`}`)
	for _, e := range out.Events {
		texts = append(texts, *e.Message)
	}
	return texts, out
}

func (b *bench) filter(more string) (texts []string, out *api.FilterLogEventsOutput) {
	b.Helper()
	out = try(b, b.FilterLogEvents, `{"LogGroupName":"g"`+more+`}`)
	for _, e := range out.Events {
		texts = append(texts, *e.Message)
	}
	return texts, out
}

func want(t *testing.T, what string, got []string, text string) {
	t.Helper()
	if strings.Join(got, " ") != text {
		t.Errorf("%s: %q, want %q", what, got, text)
	}
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	refuse(b, b.CreateLogGroup, `{"LogGroupName":"g"}`, "ResourceAlreadyExistsException: The specified log group already exists")
	refuse(b, b.CreateLogGroup, `{"LogGroupName":"aws/x"}`, ip+"Log groups starting with AWS/ are reserved for AWS.")
	refuse(b, b.CreateLogGroup, `{"LogGroupName":"a b"}`, ip+`1 validation error detected: Value 'a b' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+`)
	refuse(b, b.CreateLogStream, `{"LogGroupName":"g","LogStreamName":"s"}`, "ResourceAlreadyExistsException: The specified log stream already exists")
	refuse(b, b.CreateLogStream, `{"LogGroupName":"x","LogStreamName":"s"}`, noGroupText)
	refuse(b, b.CreateLogStream, `{"LogGroupName":"g","LogStreamName":"a:b"}`, ip+`1 validation error detected: Value 'a:b' at 'logStreamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [^:*]*`)
	refuse(b, b.DeleteLogGroup, `{"LogGroupName":"x"}`, noGroupText)
	refuse(b, b.DeleteLogStream, `{"LogGroupName":"x","LogStreamName":"s"}`, noGroupText)
	refuse(b, b.DeleteLogStream, `{"LogGroupName":"g","LogStreamName":"x"}`, noStreamText)
	refuse(b, b.DescribeLogStreams, `{"LogGroupName":"x"}`, noGroupText)
	refuse(b, b.DescribeLogStreams, `{"LogGroupName":"g","LogStreamNamePrefix":"s","OrderBy":"LastEventTime"}`, ip+"Cannot order by LastEventTime with a logStreamNamePrefix.")
	refuse(b, b.DescribeLogGroups, `{"LogGroupNamePrefix":"a","LogGroupNamePattern":"b"}`, ip+"LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	refuse(b, b.DescribeLogGroups, `{"NextToken":"x"}`, ip+"The specified nextToken is invalid.")
	refuse(b, b.GetLogEvents, `{"LogGroupName":"x","LogStreamName":"s"}`, noGroupText)
	refuse(b, b.GetLogEvents, `{"LogGroupName":"g","LogStreamName":"x"}`, noStreamText)
	refuse(b, b.GetLogEvents, `{"LogGroupName":"g","LogStreamName":"s","NextToken":"f/1"}`, ip+"The specified nextToken is invalid.")
	refuse(b, b.FilterLogEvents, `{"LogGroupName":"x"}`, noGroupText)
	refuse(b, b.FilterLogEvents, `{"LogGroupName":"g","LogStreamNames":["x"]}`, noStreamText)
	refuse(b, b.FilterLogEvents, `{"LogGroupName":"g","LogStreamNames":["s"],"LogStreamNamePrefix":"s"}`, ip+"Both logStreamNames and logStreamNamePrefix were specified; only one is allowed.")
	refuse(b, b.FilterLogEvents, `{"LogGroupName":"g","FilterPattern":"{ $.a = "}`, ip+"Invalid filter pattern")
	refuse(b, b.FilterLogEvents, `{"LogGroupName":"g","FilterPattern":"a:b"}`, ip+"Invalid character(s) in term 'a:b'")
	refuse(b, b.FilterLogEvents, `{"LogGroupName":"g","StartTime":2,"EndTime":1}`, ip+"startTime must be less than or equal to endTime.")
	refuse(b, b.FilterLogEvents, `{"LogGroupName":"g","LogGroupIdentifier":"g"}`, ip+"LogGroup name and LogGroup ARN are mutually exclusive parameters.")
	const key = ip + "The specified KMS key does not exist or is not allowed to be used with Arn 'arn:aws:logs:eu-west-1:123456789012:log-group:%s' (Berth has no KMS)."
	refuse(b, b.CreateLogGroup, `{"LogGroupName":"k","KmsKeyId":"arn:aws:kms:eu-west-1:123456789012:key/x"}`, fmt.Sprintf(key, "k"))
	refuse(b, b.AssociateKmsKey, `{"LogGroupName":"g","KmsKeyId":"k"}`, fmt.Sprintf(key, "g"))
	refuse(b, b.AssociateKmsKey, `{"ResourceIdentifier":"arn:aws:logs:eu-west-1:123456789012:log-group:x","KmsKeyId":"k"}`, noGroupText)
	refuse(b, b.CreateLogGroup, `{"LogGroupName":"d","LogGroupClass":"DELIVERY"}`, ip+"Log groups of the class DELIVERY are not supported by Berth.")
	refuse(b, b.FilterLogEvents, `{"LogGroupName":"g","NextToken":"!"}`, ip+"The specified nextToken is invalid.")
	refuse(b, b.PutLogEvents, `{"LogGroupName":"g","LogStreamName":"x","LogEvents":[{"Timestamp":1,"Message":"a"}]}`, noStreamText)
	refuse(b, b.PutLogEvents, `{"LogGroupName":"g","LogStreamName":"s","LogEvents":[{"Timestamp":2,"Message":"a"},{"Timestamp":1,"Message":"b"}]}`, ip+"Log events in a single PutLogEvents request must be in chronological order.")
	refuse(b, b.PutLogEvents, `{"LogGroupName":"g","LogStreamName":"s","LogEvents":[{"Timestamp":1,"Message":"a"},{"Timestamp":86400002,"Message":"b"}]}`, ip+"The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	refuse(b, b.PutLogEvents, `{"LogGroupName":"g","LogStreamName":"s","LogEvents":[{"Timestamp":1,"Message":"`+strings.Repeat("x", 1<<20)+`"}]}`, ip+"Log event too large: 1048602 bytes exceeds limit of 1048576")
	half := strings.Repeat("x", 600<<10)
	refuse(b, b.PutLogEvents, `{"LogGroupName":"g","LogStreamName":"s","LogEvents":[{"Timestamp":1,"Message":"`+half+`"},{"Timestamp":1,"Message":"`+half+`"}]}`, ip+"Upload too large: 1228852 bytes exceeds limit of 1048576")
	refuse(b, b.PutRetentionPolicy, `{"LogGroupName":"g","RetentionInDays":2}`, ip+"1 validation error detected: Value '2' at 'retentionInDays' failed to satisfy constraint: Member must satisfy enum value set: "+fmt.Sprint(retentions))
	refuse(b, b.PutRetentionPolicy, `{"LogGroupName":"x","RetentionInDays":1}`, noGroupText)
	refuse(b, b.TagResource, `{"ResourceArn":"arn:aws:logs:eu-west-1:123456789012:log-group:x","Tags":{"a":"b"}}`, noGroupText)
	if _, err := b.DescribeLogGroups(auth.WithCaller(t.Context(), &auth.Caller{Account: "999999999999"}), &api.DescribeLogGroupsInput{}); err != nil {
		t.Error(err)
	}
	if _, err := b.GetLogEvents(auth.WithCaller(t.Context(), &auth.Caller{Account: "999999999999"}), &api.GetLogEventsInput{LogGroupName: new("g"), LogStreamName: new("s")}); err == nil || err.Error() != noGroupText {
		t.Errorf("another account: %v", err)
	}
}

func TestRejectedEvents(t *testing.T) {
	b := newBench(t)
	day := 24 * 3600
	out := b.say("s", "-3600 kept", "-7500 too-new", "-7600 too-new")
	if r := out.RejectedLogEventsInfo; r == nil || *r.TooNewLogEventStartIndex != 1 || r.TooOldLogEventEndIndex != nil {
		t.Errorf("%+v", r)
	}
	out = b.say("s", fmt.Sprint(14*day+10, " too-old"), fmt.Sprint(14*day-10, " kept"))
	if r := out.RejectedLogEventsInfo; r == nil || *r.TooOldLogEventEndIndex != 1 || r.ExpiredLogEventEndIndex != nil {
		t.Errorf("%+v", r)
	}
	try(b, b.PutRetentionPolicy, `{"LogGroupName":"g","RetentionInDays":3}`)
	out = b.say("s", fmt.Sprint(3*day+10, " expired"), fmt.Sprint(3*day-10, " kept"))
	if r := out.RejectedLogEventsInfo; r == nil || *r.ExpiredLogEventEndIndex != 1 {
		t.Errorf("%+v", r)
	}
	// What has expired by now is not shown, and is again without the policy.
	got, _ := b.get(`,"StartFromHead":true`)
	want(t, "with retention", got, "kept kept")
	try(b, b.DeleteRetentionPolicy, `{"LogGroupName":"g"}`)
	got, _ = b.get(`,"StartFromHead":true`)
	want(t, "without", got, "kept kept kept")
}

func TestPagesInBothDirections(t *testing.T) {
	b := newBench(t)
	// Two batches that overlap in time: order is time, then arrival.
	b.say("s", "50 1", "40 3", "30 5")
	b.say("s", "45 2", "40 4", "20 6")
	got, out := b.get(`,"Limit":4`)
	want(t, "the end", got, "3 4 5 6")
	got, back := b.get(`,"Limit":4,"NextToken":"` + *out.NextBackwardToken + `"`)
	want(t, "before it", got, "1 2")
	got, start := b.get(`,"Limit":4,"NextToken":"` + *back.NextBackwardToken + `"`)
	if want(t, "before the beginning", got, ""); *start.NextBackwardToken != *back.NextBackwardToken {
		t.Error("at the beginning another token comes back")
	}
	got, end := b.get(`,"NextToken":"` + *out.NextForwardToken + `"`)
	if want(t, "after the end", got, ""); *end.NextForwardToken != *out.NextForwardToken {
		t.Error("at the end another token comes back")
	}
	b.say("s", "10 7")
	got, _ = b.get(`,"NextToken":"` + *end.NextForwardToken + `"`)
	want(t, "what came since", got, "7")
	got, head := b.get(`,"Limit":2,"StartFromHead":true`)
	want(t, "the head", got, "1 2")
	got, _ = b.get(`,"Limit":2,"NextToken":"` + *head.NextForwardToken + `"`)
	want(t, "after the head", got, "3 4")
	got, _ = b.get(fmt.Sprintf(`,"StartTime":%d,"EndTime":%d`, b.time.Add(-45*time.Second).UnixMilli(), b.time.Add(-30*time.Second).UnixMilli()))
	want(t, "a window", got, "2 3 4")
}

func TestEmptyStreamCanBeFollowed(t *testing.T) {
	b := newBench(t)
	got, out := b.get("")
	want(t, "nothing", got, "")
	got, again := b.get(`,"NextToken":"` + *out.NextForwardToken + `"`)
	if want(t, "still nothing", got, ""); *again.NextForwardToken != *out.NextForwardToken {
		t.Error("another token for the same end")
	}
	b.say("s", "5 a", "5 b")
	got, _ = b.get(`,"NextToken":"` + *again.NextForwardToken + `"`)
	want(t, "what came", got, "a b")
}

func TestAnswersAreBounded(t *testing.T) {
	b := newBench(t)
	big := strings.Repeat("x", 400<<10)
	for _, n := range []string{"1", "2", "3"} {
		b.say("s", "10 "+n+big)
	}
	var got []string
	token, pages := "", 0
	for {
		more := `,"StartFromHead":true`
		if token != "" {
			more = `,"NextToken":"` + token + `"`
		}
		texts, out := b.get(more)
		if len(texts) == 0 {
			break
		}
		for _, s := range texts {
			got = append(got, s[:1])
		}
		token = *out.NextForwardToken
		pages++
	}
	if want(t, "in pages", got, "1 2 3"); pages != 2 {
		t.Errorf("%d pages", pages)
	}
}

func TestFilterMergesStreams(t *testing.T) {
	b := newBench(t)
	try(b, b.CreateLogStream, `{"LogGroupName":"g","LogStreamName":"t/1"}`)
	try(b, b.CreateLogStream, `{"LogGroupName":"g","LogStreamName":"t/2"}`)
	b.say("s", "50 1", "30 4", "10 7")
	b.say("t/1", "40 2", "30 5")
	b.say("t/2", "40 3", "30 6", "5 8")
	all := "1 2 3 4 5 6 7 8"
	got, out := b.filter("")
	want(t, "all", got, all)
	ids := map[string]bool{}
	for _, e := range out.Events {
		ids[*e.EventId] = true
	}
	if len(ids) != 8 {
		t.Errorf("%d event ids", len(ids))
	}
	for limit := 1; limit < 9; limit++ {
		var got []string
		token := ""
		for {
			texts, out := b.filter(fmt.Sprintf(`,"Limit":%d,"NextToken":%q`, limit, token))
			if len(texts) > limit {
				t.Fatalf("%d of %d", len(texts), limit)
			}
			for _, e := range out.Events {
				if !ids[*e.EventId] {
					t.Errorf("event %s has another id now", *e.Message)
				}
			}
			got = append(got, texts...)
			if token = wire.Value(out.NextToken); token == "" {
				break
			}
		}
		want(t, fmt.Sprint("by ", limit), got, all)
	}
	got, _ = b.filter(`,"LogStreamNamePrefix":"t/"`)
	want(t, "of a prefix", got, "2 3 5 6 8")
	got, _ = b.filter(`,"LogStreamNames":["t/2","s"]`)
	want(t, "of two", got, "1 3 4 6 7 8")
	got, _ = b.filter(`,"FilterPattern":"?2 ?7"`)
	want(t, "of a pattern", got, "2 7")
}

func FuzzPosition(f *testing.F) {
	f.Add("f/" + strings.Repeat("0", 40))
	f.Fuzz(func(t *testing.T, token string) {
		direction, p, err := openPosition(token)
		if err == nil && p.Time >= 0 && p.Seq >= -1 {
			if d, q, err := openPosition(*sealPosition(direction, p)); err != nil || d != direction || q != p {
				t.Errorf("%q: %v %v", token, q, err)
			}
		}
	})
}

func TestDescribe(t *testing.T) {
	b := newBench(t)
	for _, g := range []string{"app/A", "app/b", "web"} {
		try(b, b.CreateLogGroup, `{"LogGroupName":"`+g+`","Tags":{"k":"v"}}`)
	}
	groups := func(body string) string {
		t.Helper()
		var ns []string
		token := ""
		for {
			out := try(b, b.DescribeLogGroups, strings.TrimSuffix(body, "}")+`"Limit":2,"NextToken":"`+token+`"}`)
			for _, g := range out.LogGroups {
				ns = append(ns, *g.LogGroupName)
			}
			if token = wire.Value(out.NextToken); token == "" {
				return strings.Join(ns, " ")
			}
		}
	}
	for body, want := range map[string]string{
		`{}`: "app/A app/b g web", `{"LogGroupNamePrefix":"app/",}`: "app/A app/b", `{"LogGroupNamePattern":"A",}`: "app/A", `{"LogGroupNamePattern":"eb",}`: "web",
	} {
		if got := groups(body); got != want {
			t.Errorf("%s: %q", body, got)
		}
	}
	b.say("s", "10 hello", "5 you")
	g := try(b, b.DescribeLogGroups, `{"LogGroupNamePrefix":"g"}`).LogGroups[0]
	if *g.StoredBytes != 8 || *g.Arn != "arn:aws:logs:eu-west-1:123456789012:log-group:g:*" || *g.LogGroupArn+":*" != *g.Arn || g.RetentionInDays != nil || g.LogGroupClass != "STANDARD" {
		t.Errorf("%+v", g)
	}
	for _, s := range []string{"a", "z"} {
		try(b, b.CreateLogStream, `{"LogGroupName":"g","LogStreamName":"`+s+`"}`)
	}
	b.say("a", "1 last")
	streams := func(body string) string {
		t.Helper()
		var ns []string
		token := ""
		for {
			out := try(b, b.DescribeLogStreams, `{"LogGroupIdentifier":"arn:aws:logs:eu-west-1:123456789012:log-group:g:*","Limit":1,"NextToken":"`+token+`"`+body+`}`)
			for _, s := range out.LogStreams {
				ns = append(ns, *s.LogStreamName)
			}
			if token = wire.Value(out.NextToken); token == "" {
				return strings.Join(ns, " ")
			}
		}
	}
	for body, want := range map[string]string{
		``: "a s z", `,"Descending":true`: "z s a", `,"OrderBy":"LastEventTime","Descending":true`: "a s z", `,"OrderBy":"LastEventTime"`: "z s a", `,"LogStreamNamePrefix":"s"`: "s",
	} {
		if got := streams(body); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	s := try(b, b.DescribeLogStreams, `{"LogGroupName":"g","LogStreamNamePrefix":"s"}`).LogStreams[0]
	if *s.FirstEventTimestamp != now.Add(-10*time.Second).UnixMilli() || *s.LastEventTimestamp != now.Add(-5*time.Second).UnixMilli() || *s.LastIngestionTime != now.UnixMilli() {
		t.Errorf("%+v", s)
	}
	const arn = `"ResourceArn":"arn:aws:logs:eu-west-1:123456789012:log-group:web"`
	try(b, b.TagResource, `{`+arn+`,"Tags":{"a":"1"}}`)
	try(b, b.UntagResource, `{`+arn+`,"TagKeys":["k"]}`)
	if got := try(b, b.ListTagsForResource, `{`+arn+`}`).Tags; len(got) != 1 || got["a"] != "1" {
		t.Errorf("tags %v", got)
	}
}

func files(t *testing.T, dir string) int {
	t.Helper()
	fs, err := filepath.Glob(filepath.Join(dir, "??", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(fs)
}

func TestWhatIsDeletedIsGone(t *testing.T) {
	b := newBench(t)
	b.say("s", "5 old")
	try(b, b.DeleteLogStream, `{"LogGroupName":"g","LogStreamName":"s"}`)
	if n := files(t, b.dir); n != 0 {
		t.Errorf("%d files left", n)
	}
	try(b, b.CreateLogStream, `{"LogGroupName":"g","LogStreamName":"s"}`)
	got, _ := b.get("")
	want(t, "a stream made anew", got, "")
	b.say("s", "5 old")
	try(b, b.DeleteLogGroup, `{"LogGroupName":"g"}`)
	try(b, b.CreateLogGroup, `{"LogGroupName":"g"}`)
	if out := try(b, b.DescribeLogStreams, `{"LogGroupName":"g"}`); len(out.LogStreams) != 0 {
		t.Errorf("a group made anew has %+v", out.LogStreams)
	}
	if n := files(t, b.dir); n != 0 {
		t.Errorf("%d files left", n)
	}
}

func TestGroupOfManyStreamsGoes(t *testing.T) {
	b := newBench(t)
	if err := b.DB.Update(t.Context(), func(tx *store.Tx) error {
		for i := range 2*batch + 1 {
			state.LogStreams.Put(tx, &state.LogStream{Account: "123456789012", Group: "g", Name: fmt.Sprint(i), ID: fmt.Sprintf("%032x", 1000+i)})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	try(b, b.DeleteLogGroup, `{"LogGroupName":"g"}`)
	if n := state.LogStreams.Count(b.DB.Snapshot()); n != 0 {
		t.Errorf("%d streams left", n)
	}
	refuse(b, b.DeleteLogGroup, `{"LogGroupName":"g"}`, noGroupText)
}

// A stream is made between the look of DeleteLogGroup and its commit.
func TestStreamThatComesWhileItsGroupGoes(t *testing.T) {
	b := newBench(t)
	looked := false
	ctx := &spy{b.ctx, func() {
		if !looked {
			looked = true
			try(b, b.CreateLogStream, `{"LogGroupName":"g","LogStreamName":"late"}`)
		}
	}}
	if _, err := b.DeleteLogGroup(ctx, &api.DeleteLogGroupInput{LogGroupName: new("g")}); err != nil {
		t.Fatal(err)
	}
	if !looked {
		t.Fatal("nothing came meanwhile")
	}
	for s := range state.LogStreams.All(b.DB.Snapshot()) {
		t.Errorf("stream %s is left without its group", s.Name)
	}
}

// spy is told when the caller is looked up, which the handler does with its snapshot in hand.
type spy struct {
	context.Context
	look func()
}

func (s *spy) Value(key any) any {
	v := s.Context.Value(key)
	if _, ok := v.(*auth.Caller); ok {
		s.look()
	}
	return v
}

func TestCollect(t *testing.T) {
	b := newBench(t)
	b.say("s", "5 kept")
	orphan := strings.Repeat("a", 32)
	if err := b.Journal.Append(orphan, 1, []journal.Event{{Time: 1, Message: "x"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Collect(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "aa", orphan)); !os.IsNotExist(err) {
		t.Errorf("what no stream names stays: %v", err)
	}
	got, _ := b.get("")
	want(t, "a stream that is", got, "kept")
}

func TestAuthorize(t *testing.T) {
	b := newBench(t)
	c := auth.FromContext(b.ctx)
	table := b.Authorize()
	for _, x := range []struct {
		op   string
		in   any
		want string
	}{
		{"CreateLogGroup", &api.CreateLogGroupInput{LogGroupName: new("a")}, "arn:aws:logs:eu-west-1:123456789012:log-group:a:*"},
		{"PutLogEvents", &api.PutLogEventsInput{LogGroupName: new("a"), LogStreamName: new("s")}, "arn:aws:logs:eu-west-1:123456789012:log-group:a:log-stream:s"},
		{"FilterLogEvents", &api.FilterLogEventsInput{LogGroupIdentifier: new("arn:aws:logs:eu-west-1:123456789012:log-group:a:*")}, "arn:aws:logs:eu-west-1:123456789012:log-group:a:*"},
	} {
		got := table[x.op](b.ctx, b.DB.Snapshot(), c, x.in)
		if len(got) != 1 || got[0].Action != "logs:"+x.op || got[0].Resource != x.want {
			t.Errorf("%s: %+v", x.op, got)
		}
	}
}

func TestStoredNamesFields(t *testing.T) {
	ops := api.NewService(New(Config{})).Operations
	for path := range Stored {
		op, field, _ := strings.Cut(path, ".")
		if ops[op] == nil {
			t.Errorf("%s: no such operation", path)
			continue
		}
		var names []string
		typ := reflect.TypeOf(ops[op].In).Elem()
		for i := range typ.NumField() {
			names = append(names, strings.ToLower(typ.Field(i).Name))
		}
		if !slices.Contains(names, strings.ToLower(field)) {
			t.Errorf("%s: %s has no %s", path, typ, field)
		}
	}
}
