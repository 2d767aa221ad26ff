package state

import (
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
)

// Cluster is an ECS cluster.
type Cluster struct {
	ARN, Account, Name              string
	Status                          string // ACTIVE, INACTIVE
	Settings                        []ecs.ClusterSetting
	Configuration                   *ecs.ClusterConfiguration
	ServiceConnectDefaults          *ecs.ClusterServiceConnectDefaults
	CapacityProviders               []string
	DefaultCapacityProviderStrategy []ecs.CapacityProviderStrategyItem
	AttachmentsStatus               string // "" until capacity providers were put
	Tags                            []Tag
	CreatedAt                       time.Time
}

// Clusters is keyed by ARN.
var Clusters = store.NewTable("cluster", func(c *Cluster) string { return c.ARN },
	store.Index("account", func(c *Cluster) []string { return []string{c.Account} }))

// TaskDefinition is one revision of a family. Its key is the ARN.
type TaskDefinition struct {
	ARN, Account, Family string
	Revision             int
	Status               string // ACTIVE, INACTIVE, DELETE_IN_PROGRESS
	Doc                  ecs.TaskDefinition
	Tags                 []Tag
}

// TaskDefinitions is keyed by ARN; index "family" by account/family, "deleting"
// has those that go when nothing refers to them, under "".
var TaskDefinitions = store.NewTable("taskdef", func(t *TaskDefinition) string { return t.ARN },
	store.Index("family", func(t *TaskDefinition) []string { return []string{t.Account + "/" + t.Family} }),
	store.Index("account", func(t *TaskDefinition) []string { return []string{t.Account} }),
	store.Index("deleting", func(t *TaskDefinition) []string {
		if t.Status != "DELETE_IN_PROGRESS" {
			return nil
		}
		return []string{""}
	}))

// Family counts the revisions of a family, for ever: numbering never restarts
// (facts: task definitions). It is the guard of concurrent registrations.
type Family struct {
	Account, Name string
	Last          int
}

// Families is keyed by account/name.
var Families = store.NewTable("family", func(f *Family) string { return f.Account + "/" + f.Name })

// Task statuses in the order a task passes through them. A step without work is skipped.
const (
	Provisioning   = "PROVISIONING"
	Pending        = "PENDING"
	Activating     = "ACTIVATING"
	Running        = "RUNNING"
	Deactivating   = "DEACTIVATING"
	Stopping       = "STOPPING"
	Deprovisioning = "DEPROVISIONING"
	Stopped        = "STOPPED"
)

var statusOrder = map[string]int{Provisioning: 1, Pending: 2, Activating: 3, Running: 4, Deactivating: 5, Stopping: 6, Deprovisioning: 7, Stopped: 8}

// Task is one copy of a task definition. Its key is the ARN.
type Task struct {
	ARN, ID, Account     string
	Cluster              string // ARN
	TaskDefinition       string // ARN
	Family               string
	Group, StartedBy     string
	Service              string // ARN of the service, "" for RunTask and StartTask
	Deployment           string // id of the deployment it belongs to, "" outside services
	LaunchType           string // FARGATE, EC2, EXTERNAL
	CapacityProvider     string
	PlatformVersion      string
	PlatformFamily       string
	CPU, Memory          string // as the API shows them: CPU units, MiB
	Overrides            *ecs.TaskOverride
	Network              *ecs.AwsVpcConfiguration
	EphemeralStorageGiB  int
	EnableExecuteCommand bool
	Tags                 []Tag

	Zone     string // availability zone
	Instance string // container instance ARN; for Fargate the node's hidden one
	// What was asked of RunTask, of tasks that wait for capacity. Those of services have their service's.
	PlacementConstraints []ecs.PlacementConstraint
	PlacementStrategy    []ecs.PlacementStrategy
	ENI                  string // network interface id, "" outside awsvpc

	LastStatus    string
	DesiredStatus string // RUNNING, STOPPED; written by StopTask, services and settling only
	StopCode      string
	StoppedReason string
	Health        string // HEALTHY, UNHEALTHY, UNKNOWN
	Version       int64  // +1 with every change that a client can see

	CreatedAt, ConnectivityAt, PullStartedAt, PullStoppedAt time.Time
	StartedAt, StoppingAt, ExecutionStoppedAt, StoppedAt    time.Time
	RoleCredentialsID, ExecutionRoleCredentialsID           string // stable ids under which the agent knows the task's credentials
	Connectivity                                            string
	FailureCounted                                          bool      // the deploy controller has counted this task as failed
	ProtectedUntil                                          time.Time // no scaling in and no deployment stops it before

	Containers  []Container
	Attachments []Attachment
}

// Container is one container of a task.
type Container struct {
	ARN, Name, Image  string
	ImageDigest       string
	RuntimeID         string
	LastStatus        string // PENDING, RUNNING, STOPPED
	ExitCode          *int
	Reason            string
	Health            string // HEALTHY, UNHEALTHY, UNKNOWN
	CPU, Memory       string
	MemoryReservation string
	Bindings          []ecs.NetworkBinding
	Essential         bool
}

// Attachment is a network interface (or another resource) of a task.
type Attachment struct {
	ID, Type, Status string // status: PRECREATED, CREATED, ATTACHING, ATTACHED, DETACHING, DETACHED, DELETED, FAILED
	Details          []Detail
}

// Detail is a named property of an attachment.
type Detail struct{ Name, Value string }

// Tasks is keyed by ARN.
var Tasks = store.NewTable("task", func(t *Task) string { return t.ARN },
	store.Index("cluster", func(t *Task) []string { return []string{t.Cluster} }),
	store.Index("desired", func(t *Task) []string { return []string{t.Cluster + " " + t.DesiredStatus} }),
	store.Index("service", func(t *Task) []string { return some(t.Service) }),
	store.Index("instance", func(t *Task) []string { return some(t.Instance) }),
	// The few tasks that controllers still have something to do for.
	store.Index("status", func(t *Task) []string { return []string{t.LastStatus} }),
	store.Sum("vcpu", vcpuUse),
)

// Advance moves the task to status, never backwards. It reports whether it moved.
func (t *Task) Advance(status string) bool {
	if statusOrder[status] <= statusOrder[t.LastStatus] {
		return false
	}
	t.LastStatus = status
	t.Version++
	return true
}

// End makes the task STOPPED: nothing of it is left anywhere. It reports
// whether it was not before.
func (t *Task) End(at time.Time) bool {
	if !t.Advance(Stopped) {
		return false
	}
	if t.StoppedAt.IsZero() {
		t.StoppedAt = at
	}
	for i := range t.Containers {
		t.Containers[i].LastStatus = Stopped
	}
	for i := range t.Attachments {
		if t.Attachments[i].Status != "FAILED" {
			t.Attachments[i].Status = "DELETED"
		}
	}
	return true
}

// Past reports whether the task's last status is status or later.
func (t *Task) Past(status string) bool { return statusOrder[t.LastStatus] >= statusOrder[status] }

// WantStop sets the desired status to STOPPED. The first reason is kept: a task
// that a user stopped was not stopped by its service a moment later.
func (t *Task) WantStop(code, reason string, at time.Time) bool {
	if t.DesiredStatus == Stopped {
		return false
	}
	t.DesiredStatus = Stopped
	if t.StopCode == "" {
		t.StopCode, t.StoppedReason = code, reason
	}
	if t.StoppingAt.IsZero() {
		t.StoppingAt = at
	}
	t.Version++
	return true
}

// Protected reports whether the task is protected from being scaled in.
func (t *Task) Protected(now time.Time) bool { return t.ProtectedUntil.After(now) }

// Clone copies the task deeply enough that every field of the copy may be set.
func (t *Task) Clone() *Task {
	n := *t
	n.Containers = append([]Container(nil), t.Containers...)
	n.Attachments = append([]Attachment(nil), t.Attachments...)
	for i := range n.Attachments {
		n.Attachments[i].Details = append([]Detail(nil), n.Attachments[i].Details...)
	}
	return &n
}

// ContainerInstance is an agent's registration. The node's own instance for
// Fargate is Hidden: no API lists it.
type ContainerInstance struct {
	ARN, Account, Cluster string
	Hidden                bool
	Node                  string
	EC2InstanceID         string
	CapacityProvider      string // of its Auto Scaling group
	Status                string // ACTIVE, DRAINING, REGISTERING, …
	AgentConnected        bool
	AgentVersion          string
	AgentHash             string
	DockerVersion         string
	Attributes            []ecs.Attribute
	Registered            []ecs.Resource
	Zone                  string
	Tags                  []Tag
	RegisteredAt          time.Time
	DeregisteredAt        time.Time // when it became INACTIVE
	ClientToken           string    // of the registration that made it
	Version               int64
}

// ContainerInstances is keyed by ARN.
var ContainerInstances = store.NewTable("instance", func(c *ContainerInstance) string { return c.ARN },
	store.Index("cluster", func(c *ContainerInstance) []string { return []string{c.Cluster} }),
	store.Index("ec2", func(c *ContainerInstance) []string { return some(c.EC2InstanceID) }))

// Service keeps DesiredCount tasks of its primary deployment running.
type Service struct {
	ARN, Account, Cluster, Name string
	Status                      string // ACTIVE, DRAINING, INACTIVE
	ClientToken                 string
	Request                     string // digest of the CreateService that made it
	DesiredCount                int
	LaunchType                  string
	CapacityProviderStrategy    []ecs.CapacityProviderStrategyItem
	PlatformVersion             string
	PlatformFamily              string
	TaskDefinition              string // ARN that the newest deployment asks for
	SchedulingStrategy          string // REPLICA, DAEMON
	DeploymentController        *ecs.DeploymentController
	DeploymentConfiguration     *ecs.DeploymentConfiguration // with AWS's defaults filled in
	Network                     *ecs.NetworkConfiguration
	LoadBalancers               []ecs.LoadBalancer
	ServiceRegistries           []ecs.ServiceRegistry
	ServiceConnect              *ecs.ServiceConnectConfiguration
	VolumeConfigurations        []ecs.ServiceVolumeConfiguration
	PlacementConstraints        []ecs.PlacementConstraint
	PlacementStrategy           []ecs.PlacementStrategy
	HealthCheckGracePeriod      *int32
	EnableECSManagedTags        bool
	EnableExecuteCommand        bool
	PropagateTags               string
	AvailabilityZoneRebalancing string
	RoleARN, CreatedBy          string
	Tags                        []Tag
	CreatedAt                   time.Time
	DeletedAt                   time.Time // when it became INACTIVE

	Deployments       []Deployment // newest first; [0] is PRIMARY
	ServiceDeployment string       // ARN of the newest service deployment

	LastCompleted *Deployment // what a failed deployment rolls back to

	// What the deploy controller remembers between plans.
	SteadyAt    time.Time // last time the steady state was reached, zero while it is not
	Impaired    int       // consecutive tasks that never ran, over all deployments
	NextStart   time.Time // start throttle: no task is started before
	Protection  Said      // which protected tasks a deployment or a scaling in waits for
	SaidNoRoom  Said      // that the account's vCPUs are used up
	SaidNoPlace Said      // why no container instance takes a task
	Rebalancing bool      // one task more than desired runs, or is to, in a zone that has too few
	SaidBalance Said      // how its tasks lie in zones
	SaidBlocked bool      // the "unable to stop or start" event was said for this cause
	Wake        time.Time // when the deploy controller must look again
}

// Deployment is one rollout of a service.
type Deployment struct {
	ID                       string // ecs-svc/<19 digits>
	Status                   string // PRIMARY, ACTIVE, INACTIVE
	TaskDefinition           string // ARN
	DesiredCount             int
	FailedTasks              int
	LaunchType               string
	CapacityProviderStrategy []ecs.CapacityProviderStrategyItem
	PlatformVersion          string
	PlatformFamily           string
	Network                  *ecs.NetworkConfiguration
	CreatedAt, UpdatedAt     time.Time
	RolloutState             string // IN_PROGRESS, COMPLETED, FAILED
	RolloutStateReason       string
	RollbackOf               string            // id of the failed deployment this one undoes
	ImageDigests             map[string]string // container name → digest, fixed by the first task (versionConsistency)
}

// Services is keyed by ARN.
var Services = store.NewTable("service", func(s *Service) string { return s.ARN },
	store.Index("cluster", func(s *Service) []string { return []string{s.Cluster} }))

// Clone copies the service deeply enough to change its deployments.
func (s *Service) Clone() *Service {
	n := *s
	n.Deployments = append([]Deployment(nil), s.Deployments...)
	return &n
}

// ServiceEvents are the newest events of a service, newest first, at most 100.
type ServiceEvents struct {
	Service string // ARN
	Events  []ServiceEvent
}

// ServiceEvent is one line of a service's history.
type ServiceEvent struct {
	ID, Message string
	At          time.Time
}

// Events is keyed by the service's ARN.
var Events = store.NewTable("event", func(e *ServiceEvents) string { return e.Service })

// AccountSetting is one account setting of a principal ("" is the account's default).
type AccountSetting struct {
	Account, Principal, Name, Value string
}

// AccountSettings is keyed by account/principal/name.
var AccountSettings = store.NewTable("setting", func(a *AccountSetting) string { return a.Account + "/" + a.Principal + "/" + a.Name })

func some(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// ShortARN is what follows the last slash of an ARN: the id or name.
func ShortARN(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
