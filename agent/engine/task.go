// Package engine takes tasks to where the control plane wants them and keeps
// them there: it pulls, creates, starts, watches, stops and removes their
// containers in the order that their dependencies ask for, and says what
// became of them.
//
// What a task does next is decided in one place, [Task.Step], a pure function
// of what is known and of the time. Everything else carries its decisions out
// ([runner]) or notes what came of them ([Task.Apply]).
//
// Two rules hold always. A status only moves forward, except that a container
// with a restart policy is started again without anybody being told. And the
// engine reports nothing that it has not seen.
//
// The engine must never call the control plane to decide anything: what runs
// keeps running and is supervised while nobody answers.
package engine

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/agent/bridge"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/acs"
)

// Phase is how far a container has come.
type Phase uint8

// The phases in their order.
const (
	None Phase = iota
	Pulled
	Created
	Running
	Stopped
)

var phaseNames = [...]string{"NONE", "PULLED", "CREATED", "RUNNING", "STOPPED"}

func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("Phase(%d)", p)
}

// MarshalText writes the phase's name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a phase's name.
func (p *Phase) UnmarshalText(b []byte) error {
	i := slices.Index(phaseNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("unknown phase %q", b)
	}
	*p = Phase(i)
	return nil
}

// Task is a task and all that the agent knows of it. Its exported fields are
// what a checkpoint keeps.
type Task struct {
	Def     acs.Task // as it was sent, without credentials
	Desired Phase    // Running or Stopped
	Reason  string   // why the task as a whole could not run

	RoleCredentials      string `json:",omitempty"` // ids
	ExecutionCredentials string `json:",omitempty"`

	Prepared  bool // cgroup, volumes and log streams are there
	Namespace bool // the network namespace is there
	Network   bool // the network interface works and the metadata endpoint is served in it
	Settled   bool // nothing of the task is in its network namespace, and its logs are delivered

	ReceivedAt         time.Time
	PullStartedAt      time.Time `json:",omitzero"`
	PullStoppedAt      time.Time `json:",omitzero"`
	RunningAt          time.Time `json:",omitzero"` // when all containers had been started
	ExecutionStoppedAt time.Time `json:",omitzero"`
	StoppedAt          time.Time `json:",omitzero"`

	Containers []*Container
	Sent       Sent

	busy     Op   // Prepare, Settle or Remove is under way
	awaiting bool // Attach is under way
	entering bool // Enter is
}

// Container is a container and all that the agent knows of it.
type Container struct {
	Def        acs.Container
	Config     acs.Config
	HostConfig acs.HostConfig

	Phase     Phase
	RuntimeID string
	Pid       int               `json:",omitempty"`
	Digest    string            `json:",omitempty"` // what the image's name meant when it was pulled
	Image     *runtime.Image    `json:",omitempty"`
	Mounts    []runtime.Mount   `json:",omitempty"`
	Env       map[string]string `json:",omitempty"` // beyond the definition's
	// Address and Ports are the container's place in the instance's network,
	// in the network mode bridge.
	Address string        `json:",omitempty"`
	Ports   []bridge.Port `json:",omitempty"`

	ExitCode     *int      `json:",omitempty"`
	Reason       string    `json:",omitempty"`
	CreatedAt    time.Time `json:",omitzero"`
	StartedAt    time.Time `json:",omitzero"`
	FinishedAt   time.Time `json:",omitzero"`
	RestartCount int       `json:",omitempty"`
	TermAt       time.Time `json:",omitzero"` // when it was asked to end
	KillAt       time.Time `json:",omitzero"` // when it was killed last
	Health       Health

	busy    Op   // Pull, Create or Start is under way
	down    bool // it exited and is to be started again in place
	probing bool
	early   *runtime.Event // an exit that came before the outcome of Start
}

// Health is what a container's health check said.
type Health struct {
	Status   string    // UNKNOWN, HEALTHY, UNHEALTHY
	Since    time.Time `json:",omitzero"`
	ExitCode int       `json:"-"`
	Output   string    `json:"-"`
	Failures int       `json:"-"` // in a row
	LastAt   time.Time `json:"-"` // when the last probe ended
}

// Sent is what the control plane has accepted of a task's state.
type Sent struct {
	Attached   bool              `json:",omitempty"`
	Status     string            `json:",omitempty"`
	Containers map[string]string `json:",omitempty"`
}

// NewTask takes a task over from a payload. It fails if the payload describes
// no task that can be run.
func NewTask(def acs.Task, now time.Time) (*Task, error) {
	t := &Task{Def: def, Desired: Running, ReceivedAt: now}
	if def.DesiredStatus == acs.StatusStopped {
		t.Desired = Stopped
	}
	if c := def.RoleCredentials; c != nil {
		t.RoleCredentials = c.CredentialsID
	}
	if c := def.ExecutionRoleCredentials; c != nil {
		t.ExecutionCredentials = c.CredentialsID
	}
	t.Def.RoleCredentials, t.Def.ExecutionRoleCredentials = nil, nil
	defs := def.Containers
	t.Def.Containers = nil // kept in the containers
	if def.Arn == "" {
		return nil, fmt.Errorf("task has no arn")
	}
	if t.ID() == "" || strings.ContainsAny(t.ID(), "/\\") || t.ID() == "." || t.ID() == ".." {
		return nil, fmt.Errorf("task arn %q has no id", def.Arn)
	}
	if t.Desired == Stopped {
		return t, nil
	}
	for _, d := range defs {
		c := &Container{Def: d, RuntimeID: runtimeID(t.ID(), d.Name), Health: Health{Status: acs.HealthUnknown}}
		var err error
		if c.Config, c.HostConfig, err = d.DockerConfig.Parse(); err != nil {
			return nil, fmt.Errorf("container %s: %w", d.Name, err)
		}
		c.Def.DockerConfig = nil
		c.depend()
		if t.Container(d.Name) != nil {
			return nil, fmt.Errorf("two containers are named %s", d.Name)
		}
		t.Containers = append(t.Containers, c)
	}
	if len(t.Containers) == 0 {
		return nil, fmt.Errorf("task has no containers")
	}
	return t, t.checkDependencies()
}

// Unrecognized makes a task of a payload that NewTask refused: it exists only
// to be reported as stopped.
func Unrecognized(def acs.Task, cause error, now time.Time) *Task {
	return &Task{
		Def:     acs.Task{Arn: def.Arn, TaskClusterArn: def.TaskClusterArn, Family: def.Family, Version: def.Version, DesiredStatus: acs.StatusStopped},
		Desired: Stopped, ReceivedAt: now,
		// The spelling is the one that is known on the wire.
		Reason: "UnrecogniedTaskError: Error loading task - " + cause.Error(),
	}
}

// ID is the last element of the task's ARN.
func (t *Task) ID() string { return t.Def.Arn[strings.LastIndexByte(t.Def.Arn, '/')+1:] }

// Container finds a container by name.
func (t *Task) Container(name string) *Container {
	for _, c := range t.Containers {
		if c.Def.Name == name {
			return c
		}
	}
	return nil
}

// Interface is the task's network interface, nil if it has none.
func (t *Task) Interface() *acs.ElasticNetworkInterface {
	if len(t.Def.ElasticNetworkInterfaces) == 0 {
		return nil
	}
	return &t.Def.ElasticNetworkInterfaces[0]
}

// Known is the phase that all containers have reached.
func (t *Task) Known() Phase {
	if len(t.Containers) == 0 {
		return t.Desired
	}
	known := Stopped
	for _, c := range t.Containers {
		known = min(known, c.Phase)
	}
	return known
}

// Clone copies the task for readers outside the engine. What a container's
// definition points to is shared: it never changes.
func (t *Task) Clone() *Task {
	next := *t
	next.Sent.Containers = maps.Clone(t.Sent.Containers)
	next.Containers = make([]*Container, len(t.Containers))
	for i, c := range t.Containers {
		cc := *c
		next.Containers[i] = &cc
	}
	return &next
}

// healthcheck is the check that the agent runs in the container, nil if there
// is none: the task definition's, with Docker's defaults filled in. An image's
// own check is not run, as in ECS.
func (c *Container) healthcheck() *acs.Healthcheck {
	h := c.Config.Healthcheck
	if c.Def.HealthCheckType != acs.HealthCheckDocker || h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" {
		return nil
	}
	next := *h
	if next.Interval <= 0 {
		next.Interval = 30 * time.Second
	}
	if next.Timeout <= 0 {
		next.Timeout = 5 * time.Second
	}
	if next.Retries <= 0 {
		next.Retries = 3
	}
	return &next
}

// HasHealthcheck reports whether the container's health is watched.
func (c *Container) HasHealthcheck() bool { return c.healthcheck() != nil }

// runtimeID names a container at the runtime, and in the metadata endpoint's
// paths, in Fargate's form: the task's id and ten digits. The digits come from
// the name, so that an agent which forgot about a container makes the same id.
func runtimeID(task, container string) string {
	h := fnv.New64a()
	h.Write([]byte(container))
	if len(task) > 48 {
		task = task[:48]
	}
	return fmt.Sprintf("%s-%010d", task, h.Sum64()%10_000_000_000)
}
