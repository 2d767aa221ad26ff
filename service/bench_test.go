package service_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// discard is a response that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkDoor is what a call costs from the parsed HTTP request to the last
// byte of the answer; bench/api has the whole.
func BenchmarkDoor(b *testing.B) {
	db := store.OpenMemory()
	defer db.Close()
	sessions, err := auth.NewSessions(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	root, err := iam.Bootstrap(b.Context(), db, account, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	authorizer := &auth.Authorizer{Sessions: sessions}
	door, err := service.New(service.Config{DB: db, Region: region, Authorizer: authorizer, Log: slog.New(slog.NewJSONHandler(io.Discard, nil)),
		Verifier: &auth.Verifier{Sessions: sessions, Region: region}, Services: everything(b, db, sessions, authorizer)})
	if err != nil {
		b.Fatal(err)
	}
	prefix := "arn:aws:ecs:" + region + ":" + account + ":"
	if err := db.Update(context.Background(), func(tx *store.Tx) error {
		state.Clusters.Put(tx, &state.Cluster{ARN: prefix + "cluster/default", Account: account, Name: "default", Status: "ACTIVE"})
		for i := range 1000 {
			state.Tasks.Put(tx, &state.Task{ARN: fmt.Sprintf("%stask/default/%032x", prefix, i), Account: account, Cluster: prefix + "cluster/default", Family: "web",
				TaskDefinition: prefix + "task-definition/web:1", LaunchType: "FARGATE", LastStatus: state.Running, DesiredStatus: state.Running,
				CreatedAt: time.Unix(1.7e9, 0), Containers: []state.Container{{Name: "app", Image: "web:1", LastStatus: state.Running}}})
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	for _, op := range []struct{ name, body string }{
		{"ListTasks", `{"cluster":"default"}`},
		{"DescribeTasks", fmt.Sprintf(`{"tasks":["%stask/default/%032x"]}`, prefix, 77)},
	} {
		b.Run(op.name, func(b *testing.B) {
			r, err := http.NewRequest("POST", "http://127.0.0.1/", nil)
			if err != nil {
				b.Fatal(err)
			}
			r.RemoteAddr = "127.0.0.1:5555"
			r.Header.Set("Content-Type", "application/x-amz-json-1.1")
			r.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113."+op.name)
			r.ContentLength = int64(len(op.body))
			sigv4.Signer{AccessKeyID: root.AccessKeyID, Secret: root.Secret}.Sign(r, []byte(op.body), "ecs", region, time.Now())
			b.ReportAllocs()
			w := &discard{header: http.Header{}}
			for b.Loop() {
				clear(w.header)
				w.status = 200
				r.Body = io.NopCloser(bytes.NewReader([]byte(op.body)))
				door.ServeHTTP(w, r)
				if w.status != 200 {
					b.Fatal(w.status)
				}
			}
		})
	}
}
