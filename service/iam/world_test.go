package iam_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"

	"github.com/berth-run/berth/auth"
	awsiam "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
	"github.com/berth-run/berth/test/lab"
)

const (
	acct     = "000000000000"
	other    = "111111111111"
	region   = "eu-central-1"
	allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	trust    = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
)

// A world is IAM behind the door, asked by the SDK.
type world struct {
	*sdk.Client // the root user's of acct
	t           *testing.T
	ctx         context.Context
	db          *store.DB
	url         string
	usage       func(*auth.Caller, string, string, time.Time)

	mu  sync.Mutex
	now time.Time
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// pass lets time pass for the service; signatures have their own.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context(), db: store.OpenMemory(), now: time.Now()}
	t.Cleanup(func() { w.db.Close() })
	sessions, err := auth.NewSessions(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	api := iam.New(iam.Config{DB: w.db, Clock: w.clock})
	verifier := &auth.Verifier{Sessions: sessions, Region: region, Used: func(c *auth.Caller, service, region string, at time.Time) {
		if w.usage != nil {
			w.usage(c, service, region, at)
		}
	}}
	door, err := service.New(service.Config{DB: w.db, Region: region, Verifier: verifier, Authorizer: &auth.Authorizer{Sessions: sessions},
		Services: []service.Registration{{Service: awsiam.NewService(api), Authorize: api.Authorize()}}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(door)
	t.Cleanup(server.Close)
	w.url = server.URL
	w.Client = w.root(acct)
	return w
}

func (w *world) client(key, secret string) *sdk.Client {
	return sdk.New(sdk.Options{Region: region, BaseEndpoint: &w.url, Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""), RetryMaxAttempts: 1, HTTPClient: lab.Plain{Client: http.DefaultClient},
		Retryer: aws.NopRetryer{}})
}

// root is a client of an account's root user; the account is made if need be.
func (w *world) root(account string) *sdk.Client {
	w.t.Helper()
	k, err := iam.Bootstrap(w.ctx, w.db, account, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.client(k.AccessKeyID, k.Secret)
}

// user makes a user with an inline policy, "" for none, and a client of its own.
func (w *world) user(name, document string) *sdk.Client {
	w.t.Helper()
	must(w.t)(w.CreateUser(w.ctx, &sdk.CreateUserInput{UserName: &name}))
	if document != "" {
		must(w.t)(w.PutUserPolicy(w.ctx, &sdk.PutUserPolicyInput{UserName: &name, PolicyName: new("p"), PolicyDocument: &document}))
	}
	k, err := w.CreateAccessKey(w.ctx, &sdk.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.client(*k.AccessKey.AccessKeyId, *k.AccessKey.SecretAccessKey)
}

// quota sets a quota of acct.
func (w *world) quota(name string, n int) {
	w.t.Helper()
	w.put(func(tx *store.Tx) { state.Quotas.Put(tx, &state.Quota{Account: acct, Name: name, Value: n}) })
}

func (w *world) put(fn func(tx *store.Tx)) {
	w.t.Helper()
	if err := w.db.Update(w.ctx, func(tx *store.Tx) error { fn(tx); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// must fails the test if a call fails, whatever it answers.
func must(t *testing.T) func(out any, err error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// refused checks the code and the words of an error.
func refused(t *testing.T, code, text string) func(out any, err error) {
	return func(_ any, err error) {
		t.Helper()
		e, ok := errors.AsType[smithy.APIError](err)
		if !ok || e.ErrorCode() != code || !strings.Contains(e.ErrorMessage(), text) {
			t.Errorf("got %v\nwant %s: %s", err, code, text)
		}
	}
}
