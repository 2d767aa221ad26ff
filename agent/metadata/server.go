// Package metadata answers the containers of a task at 169.254.170.2: what
// the task and its containers are, how much they use, and the credentials of
// the task's role.
//
// A task with an interface of its own has a server of its own, behind a
// listener that only its address reaches. The tasks of an instance that share
// its network share a server, which tells them by their addresses. Either way
// a caller learns of its own task only: an id of another one is as unknown as
// one that never was. It changes nothing.
package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/berth-run/berth/agent/credentials"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/agent/stats"
	"github.com/berth-run/berth/aws/ecs"
)

// Address is where a task's containers find the server.
const Address = "169.254.170.2:80"

// Limits of requests, per task.
const (
	requestRate  = 40
	requestBurst = 60
)

// Server makes servers. All fields are required but where it is said.
type Server struct {
	Tasks interface {
		Lookup(runtimeID string) (*engine.Task, *engine.Container)
	}
	Credentials *credentials.Store
	Stats       func(ctx context.Context, c stats.Container) (now, before runtime.Stats, err error)
	// Tags answers the tags of a resource of ECS.
	Tags func(ctx context.Context, arn string) ([]ecs.Tag, error)
	// Protection reads a task's protection, or with in changes it, with the
	// credentials of the task's role.
	Protection func(ctx context.Context, t *engine.Task, in *ecs.UpdateTaskProtectionInput) (*ecs.UpdateTaskProtectionOutput, error)

	ContainerInstance string // ARN
	Zone              string // where the payload does not say
	Log               *slog.Logger
}

// Serve serves a task on a listener until it is closed.
func (s *Server) Serve(task string, l net.Listener) io.Closer {
	limit := rate.NewLimiter(requestRate, requestBurst)
	return s.serve(l, func(*http.Request) (caller, *rate.Limiter) {
		return func(arn string) bool { return arn == task }, limit
	})
}

// ServeInstance serves the tasks of an instance on a listener until it is
// closed. who answers which task has an address; shares reports whether a task
// has the instance's own addresses, which are all others.
func (s *Server) ServeInstance(l net.Listener, who func(netip.Addr) (task string, ok bool), shares func(task string) bool) io.Closer {
	limits := &limits{by: map[string]*rate.Limiter{}}
	return s.serve(l, func(r *http.Request) (caller, *rate.Limiter) {
		a, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			return func(string) bool { return false }, limits.of("")
		}
		if task, ok := who(a.Addr().Unmap()); ok {
			return func(arn string) bool { return arn == task }, limits.of(task)
		}
		return shares, limits.of("")
	})
}

// limits has a limit for each task that asked.
type limits struct {
	mu sync.Mutex
	by map[string]*rate.Limiter
}

// most is how many limits are kept: more than the tasks of an instance.
const most = 1 << 12

func (l *limits) of(task string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[task] == nil {
		if len(l.by) >= most {
			clear(l.by)
		}
		l.by[task] = rate.NewLimiter(requestRate, requestBurst)
	}
	return l.by[task]
}

// caller reports whether a task, by its ARN, is the one that asks.
type caller func(task string) bool

type callerKey struct{}

// asks reports whether the request is a task's own.
func asks(r *http.Request, task string) bool {
	c, ok := r.Context().Value(callerKey{}).(caller)
	return ok && c(task)
}

func (s *Server) serve(l net.Listener, who func(*http.Request) (caller, *rate.Limiter)) io.Closer {
	mux := s.mux()
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, limit := who(r)
			if !limit.Allow() {
				http.Error(w, "You have reached maximum request limit.", http.StatusTooManyRequests)
				return
			}
			mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
		}),
		ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 30 * time.Second,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	c := &closer{srv: srv}
	c.wg.Go(func() { _ = srv.Serve(bound(l, maxConnections)) }) // ends with ErrServerClosed or with its listener
	return c
}

type closer struct {
	srv *http.Server
	wg  sync.WaitGroup
}

func (c *closer) Close() error {
	err := c.srv.Close() // the connections too: they keep the namespace
	c.wg.Wait()
	return err
}

func (s *Server) mux() *http.ServeMux {
	m := http.NewServeMux()
	for _, version := range []string{"v3", "v4"} {
		v4 := version == "v4"
		find := func(kind string, answer func(w http.ResponseWriter, r *http.Request, t *engine.Task, c *engine.Container)) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				id := r.PathValue("id")
				t, c := s.Tasks.Lookup(id)
				if t == nil || !asks(r, t.Def.Arn) {
					what := "container ID"
					if kind == "task metadata" || kind == "task stats" {
						what = "task ARN"
					}
					reply(w, http.StatusNotFound, fmt.Sprintf("V%s %s handler: unable to get %s from request: unable to get %s from v3 endpoint ID: %s",
						version[1:], kind, what, map[string]string{"container ID": "docker ID", "task ARN": "task Arn"}[what], id))
					return
				}
				answer(w, r, t, c)
			}
		}
		container := find("container metadata", func(w http.ResponseWriter, _ *http.Request, t *engine.Task, c *engine.Container) {
			reply(w, http.StatusOK, s.container(t, c, v4))
		})
		m.HandleFunc("GET /"+version+"/{id}", container)
		m.HandleFunc("GET /"+version+"/{id}/{$}", container)
		m.HandleFunc("GET /"+version+"/{id}/task", find("task metadata", func(w http.ResponseWriter, _ *http.Request, t *engine.Task, _ *engine.Container) {
			reply(w, http.StatusOK, s.task(t, v4))
		}))
		m.HandleFunc("GET /"+version+"/{id}/taskWithTags", find("task metadata", func(w http.ResponseWriter, r *http.Request, t *engine.Task, _ *engine.Container) {
			body := s.task(t, v4)
			s.addTags(r.Context(), body)
			reply(w, http.StatusOK, body)
		}))
		m.HandleFunc("GET /"+version+"/{id}/stats", find("container stats", func(w http.ResponseWriter, r *http.Request, t *engine.Task, c *engine.Container) {
			reply(w, http.StatusOK, s.stats(r.Context(), t, c, v4))
		}))
		m.HandleFunc("GET /"+version+"/{id}/task/stats", find("task stats", func(w http.ResponseWriter, r *http.Request, t *engine.Task, _ *engine.Container) {
			all := map[string]*Stats{}
			for _, c := range t.Containers {
				all[c.RuntimeID] = s.stats(r.Context(), t, c, v4)
			}
			reply(w, http.StatusOK, all)
		}))
	}
	m.HandleFunc("GET /v2/credentials/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.credentials(w, r, r.PathValue("id"), "CredentialsV2Request: ")
	})
	m.HandleFunc("GET /v2/credentials/{$}", func(w http.ResponseWriter, r *http.Request) {
		s.credentials(w, r, "", "CredentialsV2Request: ")
	})
	m.HandleFunc("GET /v2/credentials", func(w http.ResponseWriter, r *http.Request) {
		s.credentials(w, r, "", "CredentialsV2Request: ")
	})
	m.HandleFunc("GET /v1/credentials", func(w http.ResponseWriter, r *http.Request) {
		s.credentials(w, r, r.URL.Query().Get("id"), "CredentialsV1Request: ")
	})
	m.HandleFunc("/api/{id}/task-protection/v1/state", s.protection)
	return m
}

func reply(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`"`+http.StatusText(http.StatusInternalServerError)+`"`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the container went away
}

// credentials answers the credentials of one of the task's roles, in the
// words that the SDKs know.
func (s *Server) credentials(w http.ResponseWriter, r *http.Request, id, prefix string) {
	fail := func(status int, code, message string) {
		reply(w, status, struct {
			Code          string `json:"code"`
			Message       string `json:"message"`
			HTTPErrorCode int    `json:"HTTPErrorCode"`
		}{code, prefix + message, status})
	}
	c, owner, ok := s.Credentials.Get(id)
	switch {
	case id == "":
		fail(http.StatusBadRequest, "NoIdInRequest", "No Credential ID in the request")
	case !ok || !asks(r, owner):
		fail(http.StatusBadRequest, "InvalidIdInRequest", "Credentials not found")
	case c.AccessKeyID == "" || credentials.Expired(c, time.Now()):
		fail(http.StatusServiceUnavailable, "CredentialsUninitialized", "Credentials uninitialized for ID")
	default:
		s.Log.Info("credentials were read", "task", owner, "role", c.RoleArn)
		reply(w, http.StatusOK, struct {
			RoleArn         string
			AccessKeyID     string `json:"AccessKeyId"`
			SecretAccessKey string
			Token           string
			Expiration      string
		}{c.RoleArn, c.AccessKeyID, c.SecretAccessKey, c.SessionToken, c.Expiration})
	}
}
