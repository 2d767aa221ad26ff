// Package credentials keeps the credentials of the tasks' roles, which the
// control plane sends and renews, under the ids that containers ask for.
//
// They live in memory only and are never written anywhere: after a restart of
// the agent the control plane sends them anew.
package credentials

import (
	"context"
	"sync"
	"time"

	"github.com/berth-run/berth/dispatch/acs"
)

// Store keeps credentials. The zero value is ready for use.
type Store struct {
	mu      sync.Mutex
	byID    map[string]entry
	changed chan struct{} // closed and replaced at every Put, for Await
}

type entry struct {
	task  string
	creds acs.IAMRoleCredentials
}

// Expect says that credentials with this id belong to a task and will come.
// Until they do, Get reports the id as known but uninitialized.
func (s *Store) Expect(task, id string) {
	if id == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.byID[id]; !ok {
		s.set(id, entry{task: task, creds: acs.IAMRoleCredentials{CredentialsID: id}})
	}
}

// Put keeps a task's credentials, or renews them.
func (s *Store) Put(task string, c acs.IAMRoleCredentials) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(c.CredentialsID, entry{task: task, creds: c})
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

func (s *Store) set(id string, e entry) {
	if s.byID == nil {
		s.byID = map[string]entry{}
	}
	s.byID[id] = e
}

// Get answers the credentials with this id. Known ids whose credentials have
// not come yet have an empty AccessKeyID.
func (s *Store) Get(id string) (c acs.IAMRoleCredentials, task string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.byID[id]
	return e.creds, e.task, ok
}

// Await answers the credentials with this id once they are there.
func (s *Store) Await(ctx context.Context, id string) (acs.IAMRoleCredentials, error) {
	for {
		s.mu.Lock()
		e := s.byID[id]
		if e.creds.AccessKeyID != "" {
			s.mu.Unlock()
			return e.creds, nil
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return acs.IAMRoleCredentials{}, context.Cause(ctx)
		case <-changed:
		}
	}
}

// Forget drops all credentials of a task.
func (s *Store) Forget(task string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.byID {
		if e.task == task {
			delete(s.byID, id)
		}
	}
}

// Expired reports whether credentials have run out by now. What has no
// readable expiration does not expire.
func Expired(c acs.IAMRoleCredentials, now time.Time) bool {
	t, err := time.Parse(time.RFC3339, c.Expiration)
	return err == nil && !now.Before(t)
}
