package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/dispatch/acs"
)

// A task that opens connections and leaves them open waits for itself, and
// takes no more of the agent's descriptors.
func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := bound(l, 2)
	accepted := make(chan net.Conn)
	ended := make(chan error)
	go func() {
		for {
			c, err := b.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	var open []net.Conn
	for range 3 {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 2 {
		open = append(open, <-accepted)
	}
	if len(b.room) != cap(b.room) {
		t.Errorf("%d of %d places are taken", len(b.room), cap(b.room))
	}
	select {
	case <-accepted:
		t.Error("a third connection was accepted")
	default:
	}
	open[0].Close()
	open[0].Close() // gives one place back, not two
	open = append(open, <-accepted)
	b.Close() // while Accept waits for a place
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	for _, c := range open {
		c.Close()
	}
}

// Whatever a container sends, it gets an answer.
func FuzzProtectionBody(f *testing.F) {
	f.Add([]byte(`{"ProtectionEnabled":true,"ExpiresInMinutes":60}`))
	f.Add([]byte(`{"ProtectionEnabled":"x"}`))
	def := acs.Task{Arn: arn, RoleCredentials: &acs.IAMRoleCredentials{CredentialsID: "id"}, Containers: []acs.Container{{Name: "web"}}}
	task, err := engine.NewTask(def, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	server := &Server{Tasks: oneTask{task}, Protection: func(_ context.Context, _ *engine.Task, in *ecs.UpdateTaskProtectionInput) (*ecs.UpdateTaskProtectionOutput, error) {
		return &ecs.UpdateTaskProtectionOutput{ProtectedTasks: []ecs.ProtectedTask{{ProtectionEnabled: in.ProtectionEnabled}}}, nil
	}}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPut, "/", bytes.NewReader(body))
		r.SetPathValue("id", task.Containers[0].RuntimeID)
		server.protection(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller(func(string) bool { return true }))))
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
