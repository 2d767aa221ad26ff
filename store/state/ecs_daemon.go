package state

import (
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
)

// DaemonDefinition is one revision of a family of daemon task definitions.
type DaemonDefinition struct {
	ARN, Account, Family string
	Revision             int
	Doc                  ecs.DaemonTaskDefinition
	Tags                 []Tag
	DeletedAt            time.Time // when its status became DELETED
}

// DaemonDefinitions is keyed by ARN.
var DaemonDefinitions = store.NewTable("daemondef", func(d *DaemonDefinition) string { return d.ARN },
	store.Index("account", func(d *DaemonDefinition) []string { return []string{d.Account} }))

// DaemonFamilies count the revisions of daemon task definitions, as Families
// does for task definitions. It is keyed by account/name.
var DaemonFamilies = store.NewTable("daemonfamily", func(f *Family) string { return f.Account + "/" + f.Name })

// Daemon runs one task on each instance of its capacity providers.
type Daemon struct {
	ARN, Account, Cluster, Name string
	Status                      string // ACTIVE
	ClientToken                 string
	CapacityProviders           []string // ARNs
	Configuration               *ecs.DaemonDeploymentConfiguration
	Revision, Deployment        string // ARNs of the newest
	Tags                        []Tag
	CreatedAt, UpdatedAt        time.Time
}

// Daemons is keyed by ARN.
var Daemons = store.NewTable("daemon", func(d *Daemon) string { return d.ARN },
	store.Index("cluster", func(d *Daemon) []string { return []string{d.Cluster} }))

// DaemonRevision is what a daemon was at one time.
type DaemonRevision struct {
	ARN, Account, Cluster, Daemon string
	Definition                    string // ARN
	Images                        []ecs.DaemonContainerImage
	PropagateTags                 string
	EnableECSManagedTags          bool
	EnableExecuteCommand          bool
	CreatedAt                     time.Time
}

// DaemonRevisions is keyed by ARN.
var DaemonRevisions = store.NewTable("daemonrevision", func(d *DaemonRevision) string { return d.ARN },
	store.Index("daemon", func(d *DaemonRevision) []string { return []string{d.Daemon} }))

// DaemonDeployment brings a revision to the instances.
type DaemonDeployment struct {
	ARN, Account, Cluster, Daemon string
	Status                        string
	Source, Target                string // ARNs of revisions; Source may be ""
	CapacityProviders             []string
	Configuration                 *ecs.DaemonDeploymentConfiguration
	CreatedAt, FinishedAt         time.Time
}

// DaemonDeployments is keyed by ARN.
var DaemonDeployments = store.NewTable("daemondeployment", func(d *DaemonDeployment) string { return d.ARN },
	store.Index("daemon", func(d *DaemonDeployment) []string { return []string{d.Daemon} }))
