package service_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	sdklogs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/berth-run/berth/auth"
	awslogs "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/logs"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/test/lab"
)

// tailing is a region with logs, called by the SDK. The SDK puts stream- in
// front of the endpoint's host; here every name leads to the region, and the
// signature is over the name that the SDK has made.
func tailing(t *testing.T) (*testRegion, *logs.Logs, *sdklogs.Client) {
	r := start(t, nil)
	j, err := journal.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	api := logs.New(logs.Config{DB: r.db, Journal: j, Queries: t.TempDir(), Region: region, Now: time.Now, NewID: func() string { return strings.Repeat("ab", 16) }})
	door, err := service.New(service.Config{DB: r.db, Region: region, Authorizer: &auth.Authorizer{Sessions: r.sessions},
		Verifier: &auth.Verifier{Sessions: r.sessions, Region: region, Clock: time.Now},
		Services: []service.Registration{{Service: awslogs.NewService(api), Authorize: api.Authorize()}}, BodyTime: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- door.Serve(l, nil) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(context.WithoutCancel(ctx), network, l.Addr().String())
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		api.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := door.Drain(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r.url = "http://localhost:4566"
	c := r.asRoot()
	c.HTTPClient = lab.Plain{Client: &http.Client{Transport: transport}}
	client := sdklogs.NewFromConfig(c)
	if _, err := client.CreateLogGroup(t.Context(), &sdklogs.CreateLogGroupInput{LogGroupName: new("g")}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateLogStream(t.Context(), &sdklogs.CreateLogStreamInput{LogGroupName: new("g"), LogStreamName: new("web/1")}); err != nil {
		t.Fatal(err)
	}
	return r, api, client
}

const groupARN = "arn:aws:logs:" + region + ":" + account + ":log-group:g"

func say(t *testing.T, c *sdklogs.Client, messages ...string) {
	t.Helper()
	in := &sdklogs.PutLogEventsInput{LogGroupName: new("g"), LogStreamName: new("web/1")}
	for _, m := range messages {
		in.LogEvents = append(in.LogEvents, types.InputLogEvent{Timestamp: new(time.Now().UnixMilli()), Message: new(m)})
	}
	if _, err := c.PutLogEvents(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

// The SDK follows a group: what is put comes, what the filter or the stream's
// name leaves out does not, and it goes on after the time that a request's body
// may take.
func TestLiveTail(t *testing.T) {
	_, api, c := tailing(t)
	out, err := c.StartLiveTail(t.Context(), &sdklogs.StartLiveTailInput{LogGroupIdentifiers: []string{groupARN}, LogEventFilterPattern: new(`{ $.level = "E*" }`), LogStreamNamePrefixes: []string{"web/"}})
	if err != nil {
		t.Fatal(err)
	}
	stream := out.GetStream()
	first, ok := (<-stream.Events()).(*types.StartLiveTailResponseStreamMemberSessionStart)
	if !ok || *first.Value.SessionId == "" || first.Value.LogGroupIdentifiers[0] != groupARN || *first.Value.LogEventFilterPattern == "" {
		t.Fatalf("%+v", first)
	}
	for round := range 2 {
		say(t, c, `{"level":"INFO"}`, `{"level":"ERROR"}`, `plain`)
		for got := 0; got == 0; {
			u, ok := (<-stream.Events()).(*types.StartLiveTailResponseStreamMemberSessionUpdate)
			if !ok {
				t.Fatalf("round %d: %v", round, stream.Err())
			}
			for _, e := range u.Value.SessionResults {
				got++
				if *e.Message != `{"level":"ERROR"}` || *e.LogStreamName != "web/1" || *e.LogGroupIdentifier != groupARN || *e.Timestamp == 0 || *e.IngestionTime == 0 || u.Value.SessionMetadata.Sampled {
					t.Errorf("%+v", e)
				}
			}
			if got > 1 {
				t.Errorf("%d events", got)
			}
		}
	}
	// A server that ends says so.
	api.Close()
	for range stream.Events() {
	}
	if e, ok := errors.AsType[*types.SessionStreamingException](stream.Err()); !ok {
		t.Errorf("the end: %v, %v", e, stream.Err())
	}
	stream.Close()
}

func TestLiveTailRefusals(t *testing.T) {
	_, _, c := tailing(t)
	for _, x := range []struct {
		in   sdklogs.StartLiveTailInput
		code string
	}{
		{sdklogs.StartLiveTailInput{LogGroupIdentifiers: []string{groupARN + "x"}}, "ResourceNotFoundException"},
		{sdklogs.StartLiveTailInput{LogGroupIdentifiers: []string{groupARN + ":*"}}, "InvalidParameterException"},
		{sdklogs.StartLiveTailInput{LogGroupIdentifiers: []string{groupARN, groupARN}}, "InvalidParameterException"},
		{sdklogs.StartLiveTailInput{LogGroupIdentifiers: []string{groupARN}, LogEventFilterPattern: new("a:b")}, "InvalidParameterException"},
		{sdklogs.StartLiveTailInput{LogGroupIdentifiers: []string{groupARN}, LogStreamNames: []string{"a"}, LogStreamNamePrefixes: []string{"a"}}, "InvalidParameterException"},
	} {
		if _, err := c.StartLiveTail(t.Context(), &x.in); code(err) != x.code {
			t.Errorf("%+v: %v", x.in, err)
		}
	}
}
