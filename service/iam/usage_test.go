package iam_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// record makes the world record uses; the returned function ends that, when all is written.
func (w *world) record() (*iam.Usage, func()) {
	u := &iam.Usage{DB: w.db, Log: slog.New(slog.DiscardHandler)}
	w.usage = u.Note
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	go func() { defer close(done); u.Run(ctx) }()
	return u, func() { cancel(); <-done }
}

func TestAccessKeyLastUsed(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", allowAll)
	keys, err := w.ListAccessKeys(w.ctx, &sdk.ListAccessKeysInput{UserName: new("bob")})
	if err != nil {
		t.Fatal(err)
	}
	id := keys.AccessKeyMetadata[0].AccessKeyId
	got, err := w.GetAccessKeyLastUsed(w.ctx, &sdk.GetAccessKeyLastUsedInput{AccessKeyId: id})
	if err != nil || *got.UserName != "bob" || got.AccessKeyLastUsed.LastUsedDate != nil || *got.AccessKeyLastUsed.ServiceName != "N/A" || *got.AccessKeyLastUsed.Region != "N/A" {
		t.Errorf("never used: %+v %v", got, err)
	}
	before := time.Now().UTC().Truncate(time.Minute)
	_, end := w.record()
	must(t)(bob.ListUsers(w.ctx, nil))
	end()
	if got, err = w.GetAccessKeyLastUsed(w.ctx, &sdk.GetAccessKeyLastUsedInput{AccessKeyId: id}); err != nil {
		t.Fatal(err)
	}
	if l := got.AccessKeyLastUsed; l.LastUsedDate == nil || l.LastUsedDate.Before(before) || *l.ServiceName != "iam" || *l.Region != region {
		t.Errorf("used: %+v", l)
	}
	refused(t, "AccessDenied", "is not authorized to perform: iam:GetAccessKeyLastUsed on resource: access key AKIAAAAAAAAAAAAAAAAA")(
		w.GetAccessKeyLastUsed(w.ctx, &sdk.GetAccessKeyLastUsedInput{AccessKeyId: new("AKIAAAAAAAAAAAAAAAAA")}))
	refused(t, "AccessDenied", "")(w.root(other).GetAccessKeyLastUsed(w.ctx, &sdk.GetAccessKeyLastUsedInput{AccessKeyId: id}))
	// What is known of a key goes with it.
	must(t)(w.DeleteAccessKey(w.ctx, &sdk.DeleteAccessKeyInput{UserName: new("bob"), AccessKeyId: id}))
	if state.Uses.Has(w.db.Snapshot(), state.UseKey(*id, "")) {
		t.Error("the use of a deleted key is still there")
	}
}

// someone makes a user with a key, by their ids.
func (w *world) someone(id, key string) *auth.Caller {
	w.put(func(tx *store.Tx) {
		state.Users.Put(tx, &state.User{Account: acct, Path: "/", Name: id, ID: id})
		state.AccessKeys.Put(tx, &state.AccessKey{ID: key, Account: acct, User: id, Active: true})
	})
	return &auth.Caller{Kind: auth.User, Account: acct, UserID: id, AccessKeyID: key}
}

// What was noted of somebody who is gone before it is written stays unwritten.
func TestUsesOfTheGoneAreNotWritten(t *testing.T) {
	w := newWorld(t)
	c := w.someone("AIDAX", "AKIAXXXXXXXXXXXXXXXX")
	elsewhere := *c
	elsewhere.Account = "999999999999"
	u := &iam.Usage{DB: w.db, Log: slog.New(slog.DiscardHandler)}
	ended, cancel := context.WithCancel(w.ctx)
	cancel()
	at := time.Now()
	write := func(c *auth.Caller) (rows int) {
		at = at.Add(time.Hour)
		u.Note(c, "ecs", region, at)
		u.Run(ended) // writes what there is
		for range state.Uses.All(w.db.Snapshot()) {
			rows++
		}
		return rows
	}
	if n := write(&elsewhere); n != 0 {
		t.Errorf("%d uses in an account that is not there", n)
	}
	if n := write(c); n != 2 {
		t.Fatalf("%d uses of a user and a key", n)
	}
	must(t)(w.DeleteAccessKey(w.ctx, &sdk.DeleteAccessKeyInput{UserName: new("AIDAX"), AccessKeyId: new("AKIAXXXXXXXXXXXXXXXX")}))
	if n := write(c); n != 1 {
		t.Errorf("%d uses of a user whose key is gone", n)
	}
	must(t)(w.DeleteUser(w.ctx, &sdk.DeleteUserInput{UserName: new("AIDAX")}))
	if n := write(c); n != 0 {
		t.Errorf("%d uses of a user who is gone", n)
	}
}

// Ten thousand calls are no more than the transactions that the clock lets through.
func TestUsageWritesLittle(t *testing.T) {
	w := newWorld(t)
	u, end := w.record()
	c := w.someone("AIDAX", "AKIAXXXXXXXXXXXXXXXX")
	from := w.db.Snapshot().Revision()
	at := time.Now()
	for i := range 10_000 {
		u.Note(c, []string{"ecs", "ec2", "logs"}[i%3], region, at.Add(time.Duration(i)*time.Millisecond))
	}
	end()
	if n := w.db.Snapshot().Revision() - from; n < 1 || n > 2 {
		t.Errorf("%d transactions, want one now and one at the end", n)
	}
	rows := 0
	for range state.Uses.All(w.db.Snapshot()) {
		rows++
	}
	if rows != 4 { // the key, and the user in three services
		t.Errorf("%d rows", rows)
	}
	// More of the same writes nothing, until what is known has grown old.
	ended, cancel := context.WithCancel(w.ctx)
	cancel()
	for _, tc := range []struct {
		after time.Duration
		wrote bool
	}{{time.Minute, false}, {10 * time.Minute, true}} {
		from := w.db.Snapshot().Revision()
		u.Note(c, "logs", region, at.Add(tc.after))
		u.Run(ended) // writes what there is
		if wrote := w.db.Snapshot().Revision() != from; wrote != tc.wrote {
			t.Errorf("%s later: wrote %v", tc.after, wrote)
		}
	}
}

func BenchmarkNote(b *testing.B) {
	u := &iam.Usage{}
	c := &auth.Caller{Kind: auth.User, Account: acct, UserID: "AIDAX", AccessKeyID: "AKIAXXXXXXXXXXXXXXXX"}
	at := time.Now()
	for b.Loop() {
		u.Note(c, "ecs", region, at)
	}
}

func TestServiceLastAccessed(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["iam:*","ECS:List*"],"Resource":"*"}}`)
	_, end := w.record()
	must(t)(bob.ListUsers(w.ctx, nil))
	end()
	arn := new("arn:aws:iam::000000000000:user/bob")
	refused(t, "InvalidInput", "ACTION_LEVEL is not supported by Berth")(w.GenerateServiceLastAccessedDetails(w.ctx, &sdk.GenerateServiceLastAccessedDetailsInput{Arn: arn, Granularity: "ACTION_LEVEL"}))
	refused(t, "NoSuchEntity", "ARN arn:aws:iam::000000000000:user/none does not exist.")(w.GenerateServiceLastAccessedDetails(w.ctx, &sdk.GenerateServiceLastAccessedDetailsInput{Arn: new("arn:aws:iam::000000000000:user/none")}))
	job, err := w.GenerateServiceLastAccessedDetails(w.ctx, &sdk.GenerateServiceLastAccessedDetailsInput{Arn: arn})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.GetServiceLastAccessedDetails(w.ctx, &sdk.GetServiceLastAccessedDetailsInput{JobId: job.JobId})
	if err != nil || got.JobStatus != types.JobStatusTypeCompleted || len(got.ServicesLastAccessed) != 2 {
		t.Fatalf("%+v %v", got, err)
	}
	if s := got.ServicesLastAccessed[0]; *s.ServiceNamespace != "ecs" || s.LastAuthenticated != nil || *s.TotalAuthenticatedEntities != 0 {
		t.Errorf("ecs %+v", s)
	}
	if s := got.ServicesLastAccessed[1]; *s.ServiceNamespace != "iam" || s.LastAuthenticated == nil || *s.LastAuthenticatedEntity != *arn || *s.LastAuthenticatedRegion != region {
		t.Errorf("iam %+v", s)
	}
	who, err := w.GetServiceLastAccessedDetailsWithEntities(w.ctx, &sdk.GetServiceLastAccessedDetailsWithEntitiesInput{JobId: job.JobId, ServiceNamespace: new("iam")})
	if err != nil || len(who.EntityDetailsList) != 1 || *who.EntityDetailsList[0].EntityInfo.Name != "bob" {
		t.Errorf("%+v %v", who, err)
	}
	refused(t, "NoSuchEntity", "")(w.root(other).GetServiceLastAccessedDetails(w.ctx, &sdk.GetServiceLastAccessedDetailsInput{JobId: job.JobId}))

	must(t)(w.CreateGroup(w.ctx, &sdk.CreateGroupInput{GroupName: new("crew")}))
	must(t)(w.AddUserToGroup(w.ctx, &sdk.AddUserToGroupInput{GroupName: new("crew"), UserName: new("bob")}))
	must(t)(w.AttachGroupPolicy(w.ctx, &sdk.AttachGroupPolicyInput{GroupName: new("crew"), PolicyArn: new("arn:aws:iam::aws:policy/PowerUserAccess")}))
	granting, err := w.ListPoliciesGrantingServiceAccess(w.ctx, &sdk.ListPoliciesGrantingServiceAccessInput{Arn: arn, ServiceNamespaces: []string{"ecs", "s3"}})
	if err != nil || len(granting.PoliciesGrantingServiceAccess) != 2 {
		t.Fatalf("%+v %v", granting, err)
	}
	ecs, s3 := granting.PoliciesGrantingServiceAccess[0].Policies, granting.PoliciesGrantingServiceAccess[1].Policies
	if len(ecs) != 2 || ecs[0].PolicyType != types.PolicyTypeInline || *ecs[0].EntityName != "bob" || len(s3) != 1 || *s3[0].PolicyArn != "arn:aws:iam::aws:policy/PowerUserAccess" {
		t.Errorf("ecs %+v s3 %+v", ecs, s3)
	}
}
