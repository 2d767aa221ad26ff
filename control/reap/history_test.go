package reap

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const web = "arn:aws:ecs:us-east-1:1:service/c/web"

func history90(tx *store.Tx) {
	day := 24 * time.Hour
	old, recent := now.Add(-90*day), now.Add(-89*day)
	state.Services.Put(tx, &state.Service{ARN: web, Status: "ACTIVE", CreatedAt: now.Add(-200 * day),
		Deployments: []state.Deployment{{ID: "ecs-svc/4"}}, LastCompleted: &state.Deployment{ID: "ecs-svc/3"}})
	for arn, d := range map[string]*state.ServiceDeployment{
		"old":         {Service: web, Status: "SUCCESSFUL", CreatedAt: old, Target: state.RevisionCount{Revision: state.RevisionARN(web, "ecs-svc/1")}},
		"unfinished":  {Service: web, Status: "IN_PROGRESS", CreatedAt: old, Target: state.RevisionCount{Revision: state.RevisionARN(web, "ecs-svc/5")}},
		"recent":      {Service: web, Status: "SUCCESSFUL", CreatedAt: recent, Sources: []state.RevisionCount{{Revision: state.RevisionARN(web, "ecs-svc/2")}}},
		"predecessor": {Service: web, Status: "SUCCESSFUL", CreatedAt: now.Add(-201 * day)},
		"orphan":      {Service: "service/gone", Status: "IN_PROGRESS", CreatedAt: now},
	} {
		d.ARN = arn
		state.ServiceDeployments.Put(tx, d)
	}
	for n := range 6 {
		state.ServiceRevisions.Put(tx, &state.ServiceRevision{ARN: state.RevisionARN(web, fmt.Sprint("ecs-svc/", n+1)), Service: web, CreatedAt: old})
	}
	state.ServiceRevisions.Put(tx, &state.ServiceRevision{ARN: "orphan", Service: "service/gone", CreatedAt: now})
	for token, at := range map[string]time.Time{"old": now.Add(-day), "recent": now.Add(time.Second - day)} {
		state.ClientTokens.Put(tx, &state.ClientToken{Account: "1", Operation: "RunTask", Token: token, At: at})
	}
}

func TestHistoryAndTokensGo(t *testing.T) {
	db := open(t, history90)
	for range 3 { // what goes frees what it referred to
		p := PlanHistory(control.Input{Read: db.Snapshot(), All: true, Now: now})
		if ok, err := control.Apply(t.Context(), db, p); !ok || err != nil {
			t.Fatalf("apply: %v %v", ok, err)
		}
		if !p.Wake.Equal(now.Add(time.Hour)) {
			t.Errorf("wakes at %v", p.Wake)
		}
	}
	snap := db.Snapshot()
	deployments, revisions := map[string]bool{}, map[string]bool{}
	for d := range state.ServiceDeployments.All(snap) {
		deployments[d.ARN] = true
	}
	for v := range state.ServiceRevisions.All(snap) {
		revisions[state.ShortARN(v.ARN)] = true
	}
	if got := slices.Sorted(maps.Keys(deployments)); !slices.Equal(got, []string{"recent", "unfinished"}) {
		t.Errorf("deployments %q", got)
	}
	// 1 and 6 are nobody's; 2 and 5 are shown by deployments; 3 and 4 are the service's.
	if got := slices.Sorted(maps.Keys(revisions)); !slices.Equal(got, []string{"2", "3", "4", "5"}) {
		t.Errorf("revisions %q", got)
	}
	tokens := 0
	for k := range state.ClientTokens.All(snap) {
		tokens++
		if k.Token != "recent" {
			t.Errorf("token %s is left", k.Token)
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens are left", tokens)
	}
}

func TestManyTokensGoInSteps(t *testing.T) {
	db := open(t, func(tx *store.Tx) {
		for n := range batch + 1 {
			state.ClientTokens.Put(tx, &state.ClientToken{Account: "1", Operation: "RunTask", Token: fmt.Sprint(n), At: now.Add(-48 * time.Hour)})
		}
	})
	if p := PlanHistory(control.Input{Read: db.Snapshot(), Now: now}); len(p.Changes) != batch || p.Wake.After(now) {
		t.Errorf("%d changes, wakes at %v", len(p.Changes), p.Wake)
	}
}
