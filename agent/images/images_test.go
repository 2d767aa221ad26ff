package images

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/agent/credentials"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/agent/runtime/fake"
	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/dispatch/acs"
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"nginx":                        "docker.io/library/nginx:latest docker.io",
		"nginx:1.27":                   "docker.io/library/nginx:1.27 docker.io",
		"me/app":                       "docker.io/me/app:latest docker.io",
		"localhost/app":                "localhost/app:latest localhost",
		"localhost:5000/app:1":         "localhost:5000/app:1 localhost:5000",
		"host.example/a/b@sha256:00":   "host.example/a/b@sha256:00 host.example",
		"host.example/a/b:1@sha256:00": "host.example/a/b:1@sha256:00 host.example",
		"111122223333.dkr.ecr.r.localhost:4566/app": "111122223333.dkr.ecr.r.localhost:4566/app:latest 111122223333.dkr.ecr.r.localhost:4566",
	} {
		ref, host := Normalize(in)
		if got := ref + " " + host; got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// registry records what the runtime is asked for.
type registry struct {
	*fake.Runtime
	src     runtime.Source
	resolve func() error
}

func (r *registry) Resolve(ctx context.Context, src runtime.Source) (runtime.Descriptor, error) {
	r.src = src
	if r.resolve != nil {
		if err := r.resolve(); err != nil {
			return runtime.Descriptor{}, err
		}
	}
	return r.Runtime.Resolve(ctx, src)
}

func newTask(t *testing.T, image string, auth *acs.RegistryAuthentication) (*engine.Task, *engine.Container) {
	task, err := engine.NewTask(acs.Task{Arn: "arn:x/0a", ExecutionRoleCredentials: &acs.IAMRoleCredentials{CredentialsID: "exec"},
		Containers: []acs.Container{{Name: "c", Image: image, RegistryAuthentication: auth}}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return task, task.Containers[0]
}

func TestOwnRegistry(t *testing.T) {
	calls, refuse := 0, false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=EXEC/") {
			t.Errorf("signed as %s", r.Header.Get("Authorization"))
		}
		if refuse {
			w.WriteHeader(400)
			io.WriteString(w, `{"__type":"AccessDeniedException","message":"User: x is not authorized to perform: ecr:GetAuthorizationToken on resource: *"}`)
			return
		}
		fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":%q,"expiresAt":4102444800}]}`, base64.StdEncoding.EncodeToString([]byte("AWS:secret")))
	}))
	defer srv.Close()
	c, err := api.New(srv.URL, "eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rt := &registry{Runtime: fake.New()}
	defer rt.Close()
	creds := &credentials.Store{}
	creds.Put("arn:x/0a", acs.IAMRoleCredentials{CredentialsID: "exec", RoleArn: "arn:role", AccessKeyID: "EXEC", SecretAccessKey: "s"})
	instance := func(context.Context) (sigv4.Signer, error) { return sigv4.Signer{}, errors.New("not the instance's") }
	s := New(rt, c, instance, creds, slog.New(slog.NewTextHandler(t.Output(), nil)))
	for _, image := range []string{"111122223333.dkr.ecr.eu-west-1.amazonaws.com/app:1", "111122223333.dkr.ecr.eu-west-1.localhost:4566/app:1"} {
		rt.AddImage(image, runtime.Image{Digest: "sha256:1"})
		task, ctr := newTask(t, image, nil)
		img, err := s.Pull(t.Context(), task, ctr)
		if err != nil || img.Digest != "sha256:1" {
			t.Fatalf("%v %v", img, err)
		}
		if rt.src.Reference != image || rt.src.Address != strings.TrimPrefix(srv.URL, "http://") || !rt.src.PlainHTTP || *rt.src.Auth != (runtime.Auth{Username: "AWS", Password: "secret"}) {
			t.Errorf("source %+v, auth %+v", rt.src, rt.src.Auth)
		}
	}
	if calls != 1 {
		t.Errorf("asked for %d tokens for one role", calls)
	}

	refuse = true
	creds.Put("arn:x/0a", acs.IAMRoleCredentials{CredentialsID: "exec", RoleArn: "arn:other", AccessKeyID: "EXEC", SecretAccessKey: "s"})
	task, ctr := newTask(t, "111122223333.dkr.ecr.eu-west-1.amazonaws.com/app:1", &acs.RegistryAuthentication{Type: "ecr", ECRAuthData: &acs.ECRAuthData{RegistryID: "111122223333", UseExecutionRole: true}})
	_, err = s.Pull(t.Context(), task, ctr)
	want := "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve ecr registry auth: service call has been retried 1 time(s): AccessDeniedException: User: x is not authorized to perform: ecr:GetAuthorizationToken on resource: *"
	if te, ok := errors.AsType[*engine.TaskError](err); !ok || te.Reason != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func store(t *testing.T) (*Store, *registry) {
	c, err := api.New("http://127.0.0.1:1", "eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	rt := &registry{Runtime: fake.New()}
	t.Cleanup(rt.Close)
	return New(rt, c, nil, &credentials.Store{}, slog.New(slog.NewTextHandler(t.Output(), nil))), rt
}

func TestPullErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		took  time.Duration
		want  string
		tries int
	}{
		"missing": {fmt.Errorf("docker.io/library/x:latest: %w", runtime.ErrNotFound), 0,
			"CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref docker.io/library/x:latest: docker.io/library/x:latest: not found", 1},
		"network": {errors.New("i/o timeout"), 15 * time.Second,
			"CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref docker.io/library/x:latest: i/o timeout", 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, rt := store(t)
				tries := 0
				rt.resolve = func() error { tries++; return c.err }
				task, ctr := newTask(t, "x", nil)
				began := time.Now()
				_, err := s.Pull(t.Context(), task, ctr)
				if err == nil || err.Error() != c.want || tries != c.tries || time.Since(began) != c.took {
					t.Errorf("%v after %d tries, %v", err, tries, time.Since(began))
				}
			})
		})
	}
}

func TestRegistryAwayAndImageHere(t *testing.T) {
	s, rt := store(t)
	rt.AddImage("docker.io/library/x:latest", runtime.Image{Digest: "sha256:1"})
	task, ctr := newTask(t, "x", nil)
	if _, err := s.Pull(t.Context(), task, ctr); err != nil {
		t.Fatal(err)
	}
	rt.resolve = func() error { return errors.New("no route to host") }
	img, err := s.Pull(t.Context(), task, ctr)
	if err != nil || img.Digest != "sha256:1" {
		t.Errorf("%v, %v", img, err)
	}
}

func TestClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, rt := store(t)
		for i := range 8 {
			ref := fmt.Sprintf("docker.io/library/x:%d", i)
			rt.AddImage(ref, runtime.Image{Digest: fmt.Sprint("sha256:", i)})
			task, ctr := newTask(t, ref, nil)
			if _, err := s.Pull(t.Context(), task, ctr); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Run(ctx, func() map[string]bool { return map[string]bool{"sha256:0": true} })
		}()
		left := func() (digests []string) {
			synctest.Wait()
			all, _ := rt.Images(ctx)
			for _, i := range all {
				digests = append(digests, i.Digest[7:])
			}
			return digests
		}
		time.Sleep(cleanEvery + time.Minute)
		if got := strings.Join(left(), ""); got != "01234567" {
			t.Errorf("after half an hour: %s", got)
		}
		time.Sleep(cleanEvery)
		if got := strings.Join(left(), ""); got != "067" { // five at most, the least recent; 0 is in use
			t.Errorf("after an hour: %s", got)
		}
		cancel()
		<-done
	})
}

// An image that a pull has found to be here is not taken from under it.
func TestCleanWaitsForPulls(t *testing.T) {
	s, rt := store(t)
	rt.AddImage("docker.io/library/x:latest", runtime.Image{Digest: "sha256:1"})
	unused := func() map[string]bool { return nil }
	later := time.Now().Add(24 * time.Hour)
	left := func() int {
		all, err := rt.Images(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	task, ctr := newTask(t, "x", nil)
	pull := func() {
		t.Helper()
		if _, err := s.Pull(t.Context(), task, ctr); err != nil {
			t.Fatal(err)
		}
	}
	pull()
	rt.resolve = func() error {
		if err := s.clean(t.Context(), later, unused); err != nil || left() != 1 {
			t.Errorf("%d images are left during a pull, %v", left(), err)
		}
		return nil
	}
	pull()
	if err := s.clean(t.Context(), later, unused); err != nil || left() != 0 {
		t.Errorf("%d images are left after it, %v", left(), err)
	}
}
