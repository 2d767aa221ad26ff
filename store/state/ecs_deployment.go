package state

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
)

// ServiceRevision is what a service was asked to run at one time. Nothing of it
// changes, but for the digests of its images, which are found by its first tasks.
type ServiceRevision struct {
	ARN, Account, Cluster, Service string
	TaskDefinition                 string // ARN
	LaunchType                     string
	CapacityProviderStrategy       []ecs.CapacityProviderStrategyItem
	PlatformVersion                string
	PlatformFamily                 string
	Network                        *ecs.NetworkConfiguration
	LoadBalancers                  []ecs.LoadBalancer
	ServiceRegistries              []ecs.ServiceRegistry
	ServiceConnect                 *ecs.ServiceConnectConfiguration
	VolumeConfigurations           []ecs.ServiceVolumeConfiguration
	VpcLattice                     []ecs.VpcLatticeConfiguration
	Images                         []ecs.ContainerImage
	CreatedAt                      time.Time
}

// ServiceRevisions is keyed by ARN.
var ServiceRevisions = store.NewTable("service-revision", func(r *ServiceRevision) string { return r.ARN },
	store.Index("service", func(r *ServiceRevision) []string { return []string{r.Service} }))

// RevisionARN is the revision that a deployment of a service runs: they have
// the same number.
func RevisionARN(service, deployment string) string {
	return strings.Replace(service, ":service/", ":service-revision/", 1) + "/" + ShortARN(deployment)
}

// Statuses of a service deployment.
const (
	DeploymentPending            = "PENDING"
	DeploymentInProgress         = "IN_PROGRESS"
	DeploymentSuccessful         = "SUCCESSFUL"
	DeploymentStopRequested      = "STOP_REQUESTED"
	DeploymentStopped            = "STOPPED"
	DeploymentRollbackRequested  = "ROLLBACK_REQUESTED"
	DeploymentRollbackInProgress = "ROLLBACK_IN_PROGRESS"
	DeploymentRollbackSuccessful = "ROLLBACK_SUCCESSFUL"
	DeploymentRollbackFailed     = "ROLLBACK_FAILED"
)

// ServiceDeployment is the history of one rollout of a service: from the
// revisions that ran before to the one that was asked for, and what became of it.
type ServiceDeployment struct {
	ARN, Account, Cluster, Service string
	Status, StatusReason           string
	Sources                        []RevisionCount
	Target                         RevisionCount
	Configuration                  *ecs.DeploymentConfiguration // as it was when the deployment was created
	BreakerStatus                  string                       // DISABLED, MONITORING, MONITORING_COMPLETE, TRIGGERED
	Failures, Threshold            int                          // of the circuit breaker
	Rollback                       *Rollback
	CreatedAt, StartedAt           time.Time
	UpdatedAt                      time.Time
	StoppedAt                      time.Time // when it was asked to stop, or gave up
	FinishedAt                     time.Time
}

// RevisionCount is a revision of a service deployment. Its counts are kept when
// the deployment has finished; before, the tasks are counted.
type RevisionCount struct {
	Revision                    string // ARN
	Requested, Running, Pending int
}

// Rollback says why and to what a service deployment went back.
type Rollback struct {
	Reason    string
	Revision  string // ARN
	StartedAt time.Time
}

// ServiceDeployments is keyed by ARN; index "service" by the service's ARN,
// "open" has those that have not finished.
var ServiceDeployments = store.NewTable("service-deployment", func(d *ServiceDeployment) string { return d.ARN },
	store.Index("service", func(d *ServiceDeployment) []string { return []string{d.Service} }),
	store.Index("open", func(d *ServiceDeployment) []string {
		if d.Finished() {
			return nil
		}
		return []string{d.Service}
	}))

// Finished reports whether nothing happens to the deployment any more.
func (d *ServiceDeployment) Finished() bool {
	switch d.Status {
	case DeploymentSuccessful, DeploymentStopped, DeploymentRollbackSuccessful, DeploymentRollbackFailed:
		return true
	}
	return false
}

// Clone copies the deployment deeply enough to change it.
func (d *ServiceDeployment) Clone() *ServiceDeployment {
	n := *d
	n.Sources = slices.Clone(d.Sources)
	if d.Rollback != nil {
		n.Rollback = new(*d.Rollback)
	}
	return &n
}

// TaskSet is a part of a service whose deployments somebody else controls.
type TaskSet struct {
	ARN, ID, Account, Cluster, Service string // ID: ecs-svc/<19 digits>
	ExternalID                         string
	Status                             string // PRIMARY, ACTIVE, DRAINING
	TaskDefinition                     string // ARN
	Scale                              float64
	LaunchType                         string
	CapacityProviderStrategy           []ecs.CapacityProviderStrategyItem
	PlatformVersion, PlatformFamily    string
	Network                            *ecs.NetworkConfiguration
	LoadBalancers                      []ecs.LoadBalancer
	ServiceRegistries                  []ecs.ServiceRegistry
	ImageDigests                       map[string]string // as a Deployment's
	Tags                               []Tag
	CreatedAt, UpdatedAt               time.Time
	Stability                          string // STEADY_STATE, STABILIZING
	StabilityAt                        time.Time
	Blocked                            Said // what its scaling in waits for
}

// TaskSets is keyed by ARN.
var TaskSets = store.NewTable("task-set", func(s *TaskSet) string { return s.ARN },
	store.Index("service", func(s *TaskSet) []string { return []string{s.Service} }))

// Desired is how many tasks the set has when its service wants n: its share,
// rounded up.
func (s *TaskSet) Desired(n int) int {
	if s.Status == "DRAINING" {
		return 0
	}
	const rounding = 1e-9 // 3.3 percent of 1000 are 33 tasks, whatever floats make of it
	return int(math.Ceil(float64(n)*s.Scale/100 - rounding))
}

// Said remembers a message that is not repeated until its cause is gone or six
// hours have passed.
type Said struct {
	Message string
	At      time.Time
}

// ClientToken remembers the answer to a request, so that asking again with the
// same token does nothing new.
type ClientToken struct {
	Account, Operation, Token string
	Request                   string // digest of what was asked for
	Resources                 []string
	At                        time.Time
}

// ClientTokens is keyed by account/operation/token.
var ClientTokens = store.NewTable("client-token", func(t *ClientToken) string {
	return ClientTokenKey(t.Account, t.Operation, t.Token)
})

// ClientTokenKey is the key of a token.
func ClientTokenKey(account, operation, token string) string {
	return account + "/" + operation + "/" + token
}

// ClientTokenLife is how long a token is remembered.
const ClientTokenLife = 24 * time.Hour
