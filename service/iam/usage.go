package iam

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/policy"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Usage notes which keys, users and roles are used, and writes it down now and
// then: what has been noted is in memory for ten seconds at most, and a use is
// noted anew only when the noted one has grown old. So a call costs a look into
// a map, and the store a transaction every ten seconds however many calls there
// are, and none if they are like those before. What is known of the last seconds
// is lost with a process that is killed, as is right for a figure that AWS
// itself gives hours late.
type Usage struct {
	DB    *store.DB        // required
	Log   *slog.Logger     // required
	Clock func() time.Time // nil: time.Now

	mu     sync.Mutex
	seen   map[useKey]time.Time
	unsent map[string]*state.Use // by key of the row
	wake   chan struct{}
	once   sync.Once
}

// A useKey is one use as it is told apart from others.
type useKey struct{ who, what, service, region string }

// How often a use is noted anew, and how often what was noted is written.
const (
	useGrain = 5 * time.Minute
	useDelay = 10 * time.Second
	// useRows bounds a transaction, and the memory of what was seen.
	useRows = 1000
)

func (u *Usage) init() {
	u.once.Do(func() {
		u.seen, u.unsent, u.wake = map[useKey]time.Time{}, map[string]*state.Use{}, make(chan struct{}, 1)
		if u.Clock == nil {
			u.Clock = time.Now
		}
	})
}

// Note is auth.Verifier's Used: c has made a call to a service.
func (u *Usage) Note(c *auth.Caller, service, region string, at time.Time) {
	u.init()
	at = at.UTC().Truncate(time.Minute)
	u.mu.Lock()
	defer u.mu.Unlock()
	new := false
	if c.Session == nil {
		new = u.note(c.Account, c.AccessKeyID, "", service, region, at)
	}
	if c.Kind != auth.RootUser {
		new = u.note(c.Account, c.PrincipalID(), service, service, region, at) || new
	}
	if new {
		u.again()
	}
}

// again makes Run write once more.
func (u *Usage) again() {
	select {
	case u.wake <- struct{}{}:
	default: // it will anyway
	}
}

func (u *Usage) note(account, who, what, service, region string, at time.Time) bool {
	k := useKey{who, what, service, region}
	if last, ok := u.seen[k]; ok && at.Sub(last) < useGrain {
		return false
	}
	if len(u.seen) >= 10*useRows {
		clear(u.seen)
	}
	u.seen[k] = at
	u.unsent[state.UseKey(who, what)] = &state.Use{Account: account, Who: who, What: what, Service: service, Region: region, At: at}
	return true
}

// Run writes what is noted until ctx ends, and then once more.
func (u *Usage) Run(ctx context.Context) {
	u.init()
	for {
		select {
		case <-u.wake:
		case <-ctx.Done():
		}
		if err := u.write(context.WithoutCancel(ctx)); err != nil {
			u.Log.Warn("uses of keys and roles were not written down", "err", err)
		}
		if ctx.Err() != nil {
			return
		}
		pause := time.NewTimer(useDelay)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// write writes what is noted. What does not fit waits for the next time.
func (u *Usage) write(ctx context.Context) error {
	u.mu.Lock()
	var rows []*state.Use
	for k, row := range u.unsent {
		if len(rows) == useRows {
			u.again()
			break
		}
		rows = append(rows, row)
		delete(u.unsent, k)
	}
	u.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, useDelay/2)
	defer cancel()
	err := u.DB.Update(ctx, func(tx *store.Tx) error {
		for _, row := range rows {
			if !remains(tx, row) {
				continue
			}
			// Another server may have seen a later one.
			if old, ok := state.Uses.Get(tx, state.UseKey(row.Who, row.What)); !ok || old.At.Before(row.At) || old.At.Equal(row.At) && *old != *row {
				state.Uses.Put(tx, row)
			}
		}
		return nil
	})
	if err == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, row := range rows { // for the next time, unless there is something newer
		if k := state.UseKey(row.Who, row.What); u.unsent[k] == nil {
			u.unsent[k] = row
		}
	}
	u.again()
	return fmt.Errorf("write %d uses: %w", len(rows), err)
}

// remains reports whether the account, and the key, user or role of a use are
// still there: what is known of them went with them and does not come back.
func remains(r store.Reader, use *state.Use) bool {
	if !auth.Open(r, use.Account) {
		return false
	}
	if use.What == "" {
		return state.AccessKeys.Has(r, use.Who)
	}
	for range state.Roles.By(r, "id", use.Who) {
		return true
	}
	return userByID(r, use.Who) != nil
}

// forget drops what is known of the use of somebody who is deleted.
func forget(tx *store.Tx, who string) {
	for use := range state.Uses.Prefix(tx, who+"/") {
		state.Uses.Delete(tx, state.UseKey(use.Who, use.What))
	}
}

// lastUse is when somebody was last seen, in any service.
func lastUse(r store.Reader, who string) *state.Use {
	var last *state.Use
	for use := range state.Uses.Prefix(r, who+"/") {
		if last == nil || use.At.After(last.At) {
			last = use
		}
	}
	return last
}

// roleLastUsed is empty for a role that was not used.
func roleLastUsed(r store.Reader, x *state.Role) *api.RoleLastUsed {
	use := lastUse(r, x.ID)
	if use == nil {
		return &api.RoleLastUsed{}
	}
	return &api.RoleLastUsed{LastUsedDate: &use.At, Region: &use.Region}
}

// GetAccessKeyLastUsed says when and for what a key was last used.
func (s *Service) GetAccessKeyLastUsed(ctx context.Context, in *api.GetAccessKeyLastUsedInput) (*api.GetAccessKeyLastUsedOutput, error) {
	snap := s.db.Snapshot()
	k, ok := state.AccessKeys.Get(snap, *in.AccessKeyId)
	if !ok || k.Account != account(ctx) {
		resource := "access key " + *in.AccessKeyId
		return nil, wire.NewError(http.StatusForbidden, "AccessDenied",
			policy.Decision{}.Message(auth.FromContext(ctx).ARN, "iam:GetAccessKeyLastUsed", resource))
	}
	last := &api.AccessKeyLastUsed{ServiceName: new("N/A"), Region: new("N/A")}
	if use, ok := state.Uses.Get(snap, state.UseKey(k.ID, "")); ok {
		last.LastUsedDate, last.ServiceName, last.Region = &use.At, &use.Service, &use.Region
	}
	return &api.GetAccessKeyLastUsedOutput{UserName: optional(k.User), AccessKeyLastUsed: last}, nil
}
