package ecs

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const execDisabled = "The execute command failed because execute command was not enabled when the task was run or the execute command agent isn't running. Wait and try again or run a new task with execute command enabled and try again."

// execActions are what the role of a task must allow for somebody to get into
// its containers, as the agent in them would ask for.
var execActions = []string{"ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"}

// ExecuteCommand makes a session in which a command runs in a container, once
// its client comes.
func (e *ECS) ExecuteCommand(ctx context.Context, in *api.ExecuteCommandInput) (*api.ExecuteCommandOutput, error) {
	caller := e.caller(ctx)
	switch {
	case strings.TrimSpace(val(in.Command)) == "":
		return nil, invalid("Command can not be blank.")
	case !val(in.Interactive):
		return nil, invalid("Interactive is the only mode supported currently.")
	}
	command, err := words(*in.Command)
	if err != nil {
		return nil, invalid("The command can not be parsed: %s.", err)
	}
	token := rand.Text() + rand.Text() + rand.Text()
	id := "ecs-execute-command-" + strings.ToLower(rand.Text())[:26]
	now := e.now()
	var out *api.ExecuteCommandOutput
	err = e.update(ctx, func(tx *store.Tx) error {
		cluster, err := e.activeCluster(tx, caller.Account, in.Cluster)
		if err != nil {
			return err
		}
		arn, err := e.taskARN(caller.Account, cluster.Name, val(in.Task))
		if err != nil {
			return err
		}
		t, ok := state.Tasks.Get(tx, arn)
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
		instance, node := execPlace(tx, t)
		if c.RuntimeID == "" || !e.cfg.Connected(node) || !e.mayExec(ctx, tx, t) {
			return &api.TargetNotConnectedException{Message: "The execute command failed due to an internal error. Try again later."}
		}
		if state.LiveSessions(tx, caller.Account) >= state.Limit(tx, caller.Account, "ssm/sessions") {
			return &api.LimitExceededException{Message: "The number of sessions that are active at once has reached its limit."}
		}
		state.Sessions.Put(tx, &state.Session{
			ID: id, Account: caller.Account, Owner: caller.ARN, Target: "ecs:" + cluster.Name + "_" + t.ID + "_" + c.RuntimeID,
			Instance: instance, Container: c.RuntimeID, Node: node, Command: command,
			Hash: state.SessionToken(token), Status: state.SessionConnecting, CreatedAt: now,
		})
		out = &api.ExecuteCommandOutput{
			ClusterArn: &cluster.ARN, TaskArn: &t.ARN, ContainerArn: &c.ARN, ContainerName: &c.Name, Interactive: new(true),
			Session: &api.Session{SessionId: &id, TokenValue: &token, StreamUrl: new(auth.StreamURL(ctx, id))},
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// execPlace is where a task runs: on which EC2 instance, if it is on one, of
// which node.
func execPlace(r store.Reader, t *state.Task) (instance, node string) {
	ci, ok := state.ContainerInstances.Get(r, t.Instance)
	if !ok {
		return "", ""
	}
	if ci.EC2InstanceID == "" {
		return "", ci.Node
	}
	if i, ok := state.Instances.Get(r, ci.EC2InstanceID); ok && i.State == "running" {
		return i.ID, i.Node
	}
	return "", ""
}

// mayExec tells whether the task's role lets somebody in.
func (e *ECS) mayExec(ctx context.Context, r store.Reader, t *state.Task) bool {
	role := ""
	if td, ok := state.TaskDefinitions.Get(r, t.TaskDefinition); ok {
		role = val(td.Doc.TaskRoleArn)
	}
	if o := t.Overrides; o != nil && val(o.TaskRoleArn) != "" {
		role = *o.TaskRoleArn
	}
	return role != "" && e.cfg.RoleMay(ctx, r, role, tasksService, execActions...)
}

// execAgent is what lets people into a container, as the API shows it: it runs
// if they get in.
func (e *ECS) execAgent(ctx context.Context, r store.Reader, t *state.Task, c *state.Container) api.ManagedAgent {
	v := api.ManagedAgent{Name: api.ManagedAgentNameExecuteCommandAgent, LastStatus: new("PENDING")}
	switch c.LastStatus {
	case state.Running:
		if _, node := execPlace(r, t); node != "" && e.cfg.Connected(node) && e.mayExec(ctx, r, t) {
			v.LastStatus, v.LastStartedAt = new("RUNNING"), when(&t.StartedAt)
		}
	case state.Stopped:
		v.LastStatus = new("STOPPED")
	}
	return v
}

// words splits a command as a shell does, without doing anything else that a
// shell does.
func words(command string) ([]string, error) {
	var out []string
	var word strings.Builder
	begun, quote, escaped := false, rune(0), false
	for _, c := range command {
		switch {
		case escaped:
			if quote == '"' && c != '"' && c != '\\' && c != '$' && c != '`' {
				word.WriteRune('\\')
			}
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, begun = true, true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				word.WriteRune(c)
			}
		case c == '\'' || c == '"':
			quote, begun = c, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if begun {
				out = append(out, word.String())
				word.Reset()
				begun = false
			}
		default:
			begun = true
			word.WriteRune(c)
		}
	}
	switch {
	case quote != 0:
		return nil, errors.New("a quote is not closed")
	case escaped:
		return nil, errors.New("nothing follows the last backslash")
	}
	if begun {
		out = append(out, word.String())
	}
	if len(out) == 0 || out[0] == "" {
		return nil, errors.New("it names no program")
	}
	return out, nil
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
