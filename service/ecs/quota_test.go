package ecs

import (
	"context"
	"sync"
	"testing"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func (b *bench) quota(name string, value int) {
	b.t.Helper()
	b.put(func(tx *store.Tx) { state.Quotas.Put(tx, &state.Quota{Account: account, Name: name, Value: value}) })
}

// Tasks that the account has no vCPUs for are failures; On-Demand and Spot have
// a quota each, and what has stopped counts no more.
func TestVCPUQuota(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition) // a quarter of a vCPU
	b.putProviders(`"FARGATE","FARGATE_SPOT"`, "")
	b.quota("ecs/fargate-vcpus", 1)
	b.quota("ecs/fargate-spot-vcpus", 2)
	out := b.run(`,"count":6`)
	if len(out.Tasks) != 4 || len(out.Failures) != 2 || *out.Failures[0].Reason != "You've reached the limit on the number of vCPUs you can run concurrently" || out.Failures[0].Arn != nil {
		t.Fatalf("%d tasks, failures %s", len(out.Tasks), pretty(out.Failures))
	}
	if got := b.spread(`,"count":10,"capacityProviderStrategy":[{"capacityProvider":"FARGATE_SPOT","weight":1}]`); got["FARGATE_SPOT/FARGATE"] != 8 {
		t.Errorf("on Spot: %v", got)
	}
	if out := b.run(""); len(out.Tasks) != 0 || len(out.Failures) != 1 {
		t.Errorf("beyond the quota: %s", pretty(out))
	}
	try(b, b.StopTask, &api.StopTaskInput{Task: out.Tasks[0].TaskArn}) // it was nowhere yet, and is STOPPED at once
	if out := b.run(`,"count":2`); len(out.Tasks) != 1 || len(out.Failures) != 1 {
		t.Errorf("after a task has stopped: %s", pretty(out))
	}
}

// Requests at the same time do not share the last vCPU.
func TestVCPUQuotaHoldsForAllAtOnce(t *testing.T) {
	b := newBench(t)
	b.register(webDefinition)
	b.quota("ecs/fargate-vcpus", 2)
	in := read[api.RunTaskInput](t, `{"taskDefinition":"web","launchType":"FARGATE","networkConfiguration":`+webNetwork+`}`)
	var wg sync.WaitGroup
	var mu sync.Mutex
	started := 0
	for range 20 {
		wg.Go(func() {
			out, err := b.RunTask(context.WithoutCancel(b.ctx), in)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			started += len(out.Tasks)
		})
	}
	wg.Wait()
	if started != 8 {
		t.Errorf("%d tasks of a quarter of a vCPU have started, 8 have room", started)
	}
}
