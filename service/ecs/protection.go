package ecs

import (
	"context"
	"time"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	defaultProtection = 120 // minutes
	maxProtection     = 2880
)

// protectable finds the tasks of a request; those that no service would scale in are failures.
func (e *ECS) protectable(r store.Reader, account string, clusterRef *string, refs []string) (tasks []*state.Task, failures []api.Failure, err error) {
	cluster, err := e.cluster(r, account, clusterRef)
	if err != nil {
		return nil, nil, err
	}
	failures = []api.Failure{}
	for _, ref := range refs {
		arn, err := e.taskARN(account, cluster.Name, ref)
		if err != nil {
			return nil, nil, err
		}
		t, ok := state.Tasks.Get(r, arn)
		switch {
		case !ok || t.Cluster != cluster.ARN:
			failures = append(failures, api.Failure{Arn: &arn, Reason: new("MISSING")})
		case t.Service == "" || t.DesiredStatus == state.Stopped || t.LastStatus == state.Stopped:
			failures = append(failures, api.Failure{Arn: &arn, Reason: new("TASK_NOT_VALID")})
		default:
			tasks = append(tasks, t)
		}
	}
	return tasks, failures, nil
}

func protectedView(t *state.Task, now time.Time) api.ProtectedTask {
	v := api.ProtectedTask{TaskArn: &t.ARN, ProtectionEnabled: new(t.Protected(now))}
	if t.Protected(now) {
		v.ExpirationDate = at(t.ProtectedUntil)
	}
	return v
}

// GetTaskProtection shows which tasks are protected from being scaled in.
func (e *ECS) GetTaskProtection(ctx context.Context, in *api.GetTaskProtectionInput) (*api.GetTaskProtectionOutput, error) {
	account := e.caller(ctx).Account
	now := e.now()
	if len(in.Tasks) == 0 || len(in.Tasks) > 100 {
		return nil, invalid("The number of tasks must be between 1 and 100.")
	}
	out := &api.GetTaskProtectionOutput{ProtectedTasks: []api.ProtectedTask{}}
	return out, e.view(func(r store.Reader) error {
		tasks, failures, err := e.protectable(r, account, in.Cluster, in.Tasks)
		if err != nil {
			return err
		}
		out.Failures = failures
		for _, t := range tasks {
			out.ProtectedTasks = append(out.ProtectedTasks, protectedView(t, now))
		}
		return nil
	})
}

// UpdateTaskProtection protects tasks of services from being scaled in or
// replaced by a deployment, for a while, or ends that. The deploy controller
// looks at the time that it stores.
func (e *ECS) UpdateTaskProtection(ctx context.Context, in *api.UpdateTaskProtectionInput) (*api.UpdateTaskProtectionOutput, error) {
	account := e.caller(ctx).Account
	now := e.now()
	if len(in.Tasks) == 0 || len(in.Tasks) > 10 {
		return nil, invalid("The number of tasks must be between 1 and 10.")
	}
	minutes := int32(defaultProtection)
	if in.ExpiresInMinutes != nil {
		minutes = *in.ExpiresInMinutes
	}
	if minutes < 1 || minutes > maxProtection {
		return nil, invalid("expiresInMinutes must be between 1 and %d.", maxProtection)
	}
	var until time.Time
	if val(in.ProtectionEnabled) {
		until = now.Add(time.Duration(minutes) * time.Minute)
	}
	out := &api.UpdateTaskProtectionOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		out.ProtectedTasks = []api.ProtectedTask{}
		tasks, failures, err := e.protectable(tx, account, in.Cluster, in.Tasks)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			// A deployment that waits for protected tasks must not be made to wait for ever.
			s, ok := state.Services.Get(tx, t.Service)
			if !until.IsZero() && ok && s.Protection.Message != "" && len(s.Deployments) > 1 {
				failures = append(failures, api.Failure{Arn: &t.ARN, Reason: new("DEPLOYMENT_BLOCKED"),
					Detail: new("A deployment of the service is blocked by tasks that are protected.")})
				continue
			}
			n := t.Clone()
			n.ProtectedUntil = until
			state.Tasks.Put(tx, n)
			out.ProtectedTasks = append(out.ProtectedTasks, protectedView(n, now))
		}
		out.Failures = failures
		return nil
	})
}
