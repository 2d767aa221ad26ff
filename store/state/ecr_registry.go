package state

import (
	"strings"
	"time"

	"github.com/berth-run/berth/store"
)

// RegistryConfig is what an account has said of its registry as a whole.
type RegistryConfig struct {
	Account     string
	Policy      string // registry policy, "" for none
	Replication []ReplicationRule
	ScanType    string // "" until it is put: BASIC
	ScanRules   []ScanRule
}

// ReplicationRule says which repositories are copied where to.
type ReplicationRule struct {
	Destinations []ReplicationDestination
	Filters      []RepositoryFilter // none: all repositories
}

// ReplicationDestination is a registry.
type ReplicationDestination struct{ Region, Account string }

// ScanRule says when which repositories are to be scanned.
type ScanRule struct {
	Frequency string
	Filters   []RepositoryFilter
}

// RepositoryFilter selects repositories by their names.
type RepositoryFilter struct{ Type, Filter string }

// RegistryConfigs is keyed by account.
var RegistryConfigs = store.NewTable("registryconfig", func(c *RegistryConfig) string { return c.Account })

// PullThroughRule makes the repositories below a prefix those of another registry.
type PullThroughRule struct {
	Account        string
	Prefix         string // ROOT: all that no other rule has
	Upstream       string // host, as it was given
	Registry       string // kind of registry, as it was given or as the host shows
	UpstreamPrefix string // ROOT: none
	Role           string
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Root is the prefix of rules and templates for what no other has.
const Root = "ROOT"

// PullThroughRules is keyed by account/prefix.
var PullThroughRules = store.NewTable("pullthroughrule", func(r *PullThroughRule) string { return RepositoryKey(r.Account, r.Prefix) })

// RepositoryTemplate is what repositories are made like that nobody creates explicitly.
type RepositoryTemplate struct {
	Account       string
	Prefix        string // ROOT: all that no other template has
	Description   *string
	Encryption    string // "" if it was not given
	KMSKey        *string
	Tags          []Tag
	TagMutability string
	Exclusions    []ImageTagFilter
	Policy        *string
	Lifecycle     *string
	AppliedFor    []string
	Role          string
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// RepositoryTemplates is keyed by account/prefix.
var RepositoryTemplates = store.NewTable("repositorytemplate", func(t *RepositoryTemplate) string { return RepositoryKey(t.Account, t.Prefix) })

// ByPrefix finds what an account has for the repositories below the longest
// prefix of a name, in a table that is keyed by account/prefix.
func ByPrefix[T any](r store.Reader, t *store.Table[T], account, name string) (*T, bool) {
	for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
		// A prefix may be written with the slash that ends it.
		for _, prefix := range []string{name[:i], name[:i+1]} {
			if v, ok := t.Get(r, RepositoryKey(account, prefix)); ok {
				return v, true
			}
		}
	}
	return t.Get(r, RepositoryKey(account, Root))
}

// PullTimeExclusion is a principal whose pulls do not count.
type PullTimeExclusion struct {
	Account   string
	Principal string // ARN of a user or role
	CreatedAt time.Time
}

// PullTimeExclusions is keyed by account/ARN.
var PullTimeExclusions = store.NewTable("pulltimeexclusion", func(x *PullTimeExclusion) string { return x.Account + "/" + x.Principal })

// Replica is what became of copying an image to another registry.
type Replica struct {
	Image       string // key of what was copied
	Destination ReplicationDestination
	Failure     string // "": it is there
}

// Key is the replica's key.
func (r *Replica) Key() string {
	return r.Image + "/" + r.Destination.Account + "." + r.Destination.Region
}

// Replicas is keyed by the image's key, then account.region.
var Replicas = store.NewTable("imagereplica", (*Replica).Key)
