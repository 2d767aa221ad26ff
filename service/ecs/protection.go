package ecs

import (
	"context"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// protection answers for each task whether it is protected. Nothing protects
// tasks yet, so no task of a service is.
func (e *ECS) protection(ctx context.Context, clusterRef *string, refs []string) ([]api.ProtectedTask, []api.Failure, error) {
	account := e.caller(ctx).Account
	if len(refs) == 0 || len(refs) > 10 {
		return nil, nil, invalid("The number of tasks must be between 1 and 10.")
	}
	protected, failures := []api.ProtectedTask{}, []api.Failure{}
	err := e.view(func(r store.Reader) error {
		cluster, err := e.cluster(r, account, clusterRef)
		if err != nil {
			return err
		}
		for _, ref := range refs {
			arn, err := e.taskARN(account, cluster.Name, ref)
			if err != nil {
				return err
			}
			t, ok := state.Tasks.Get(r, arn)
			switch {
			case !ok || t.Cluster != cluster.ARN:
				failures = append(failures, api.Failure{Arn: &arn, Reason: new("MISSING")})
			case t.Service == "":
				failures = append(failures, api.Failure{Arn: &arn, Reason: new("TASK_NOT_VALID")})
			default:
				protected = append(protected, api.ProtectedTask{TaskArn: &arn, ProtectionEnabled: new(false)})
			}
		}
		return nil
	})
	return protected, failures, err
}

// GetTaskProtection shows which tasks are protected from being scaled in.
func (e *ECS) GetTaskProtection(ctx context.Context, in *api.GetTaskProtectionInput) (*api.GetTaskProtectionOutput, error) {
	p, f, err := e.protection(ctx, in.Cluster, in.Tasks)
	return &api.GetTaskProtectionOutput{ProtectedTasks: p, Failures: f}, err
}

// UpdateTaskProtection takes protection away. Giving it is refused: the deploy
// controller would not respect it.
func (e *ECS) UpdateTaskProtection(ctx context.Context, in *api.UpdateTaskProtectionInput) (*api.UpdateTaskProtectionOutput, error) {
	if val(in.ProtectionEnabled) {
		return nil, unsupported("protectionEnabled")
	}
	p, f, err := e.protection(ctx, in.Cluster, in.Tasks)
	return &api.UpdateTaskProtectionOutput{ProtectedTasks: p, Failures: f}, err
}
