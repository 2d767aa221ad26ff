package ecs

import (
	"context"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const execDisabled = "The execute command failed because execute command was not enabled when the task was run or the execute command agent isn't running. Wait and try again or run a new task with execute command enabled and try again."

// ExecuteCommand would run a command in a container. It says what is wrong with
// the request as AWS does; what is right with it is still refused, because no
// execute command agent runs in the container.
func (e *ECS) ExecuteCommand(ctx context.Context, in *api.ExecuteCommandInput) (*api.ExecuteCommandOutput, error) {
	account := e.caller(ctx).Account
	switch {
	case val(in.Command) == "":
		return nil, invalid("Command can not be blank.")
	case !val(in.Interactive):
		return nil, invalid("Interactive is the only mode supported currently.")
	}
	return nil, e.view(func(r store.Reader) error {
		cluster, err := e.activeCluster(r, account, in.Cluster)
		if err != nil {
			return err
		}
		arn, err := e.taskARN(account, cluster.Name, val(in.Task))
		if err != nil {
			return err
		}
		t, ok := state.Tasks.Get(r, arn)
		switch {
		case !ok || t.Cluster != cluster.ARN:
			return invalid("The referenced task was not found.")
		case t.LastStatus != state.Running || t.DesiredStatus != state.Running:
			return invalid("The execute command failed because the task %s isn't running. Specify a running task and try again.", t.ID)
		case !t.EnableExecuteCommand:
			return invalid(execDisabled)
		}
		c, err := execContainer(t, val(in.Container))
		if err != nil {
			return err
		}
		return &api.TargetNotConnectedException{Message: "ExecuteCommand is not supported by this version of Berth: no execute command agent runs in the container " + c.Name + "."}
	})
}

// execContainer is the container that a command is for: the one that is named,
// or the only one.
func execContainer(t *state.Task, name string) (*state.Container, error) {
	if name == "" && len(t.Containers) > 1 {
		return nil, invalid("The container name must be specified for a task that has more than one container.")
	}
	for i := range t.Containers {
		c := &t.Containers[i]
		if name != "" && c.Name != name {
			continue
		}
		if c.LastStatus != state.Running {
			return nil, invalid("The execute command failed because the container %s isn't running. Specify a running container and try again.", c.Name)
		}
		return c, nil
	}
	return nil, invalid("The specified container %s was not found in the task.", name)
}
