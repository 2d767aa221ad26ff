package ecs

import (
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// An arn is an ECS ARN taken apart.
type arn struct {
	region, account string
	kind            string   // cluster, task, service, …
	path            []string // what follows the kind, split at slashes
}

// parseARN reads arn:aws:ecs:<region>:<account>:<kind>/<path>.
func parseARN(s string) (a arn, ok bool) {
	rest, ok := strings.CutPrefix(s, "arn:")
	if !ok {
		return arn{}, false
	}
	partition, rest, _ := strings.Cut(rest, ":")
	service, rest, _ := strings.Cut(rest, ":")
	a.region, rest, _ = strings.Cut(rest, ":")
	a.account, rest, ok = strings.Cut(rest, ":")
	if !ok || partition == "" || service != "ecs" {
		return arn{}, false
	}
	var path string
	a.kind, path, ok = strings.Cut(rest, "/")
	if !ok || a.kind == "" || path == "" || path[0] == '/' || path[len(path)-1] == '/' || strings.Contains(path, "//") {
		return arn{}, false
	}
	a.path = strings.Split(path, "/")
	return a, true
}

func isARN(s string) bool { return strings.HasPrefix(s, "arn:") }

func (e *ECS) arn(account, resource string) string {
	return "arn:aws:ecs:" + e.cfg.Region + ":" + account + ":" + resource
}

// isName holds for the names of clusters, services, families and containers.
func isName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// mine checks that an ARN is of this kind, region and account.
func (e *ECS) mine(account, ref, kind string) (arn, error) {
	a, ok := parseARN(ref)
	switch {
	case !ok:
		return arn{}, invalid("Invalid identifier: %s", ref)
	case a.kind != kind:
		return arn{}, invalid("Invalid identifier: Identifier is for %s. Expected: %s", a.kind, kind)
	case a.region != e.cfg.Region:
		return arn{}, invalid("Invalid Region in ARN: %s", ref)
	case a.account != account:
		return arn{}, invalid("Invalid identifier: Identifier is for %s. Your accountId is %s", a.account, account)
	}
	return a, nil
}

// DefaultCluster is the cluster that requests without one mean.
const DefaultCluster = "default"

// clusterARN turns the cluster parameter of a request into an ARN.
func (e *ECS) clusterARN(account string, ref *string) (string, error) {
	name := val(ref)
	switch {
	case name == "":
		name = DefaultCluster
	case isARN(name):
		a, err := e.mine(account, name, "cluster")
		if err != nil {
			return "", err
		}
		if len(a.path) != 1 {
			return "", invalid("Invalid identifier: %s", name)
		}
		name = a.path[0]
	}
	if !isName(name) {
		return "", invalid("Cluster name contains invalid characters.")
	}
	return e.arn(account, "cluster/"+name), nil
}

// cluster finds the cluster of a request, whatever its status.
func (e *ECS) cluster(r store.Reader, account string, ref *string) (*state.Cluster, error) {
	key, err := e.clusterARN(account, ref)
	if err != nil {
		return nil, err
	}
	c, ok := state.Clusters.Get(r, key)
	if !ok {
		return nil, &api.ClusterNotFoundException{Message: "Cluster not found."}
	}
	return c, nil
}

// activeCluster finds a cluster that something can be put into.
func (e *ECS) activeCluster(r store.Reader, account string, ref *string) (*state.Cluster, error) {
	c, err := e.cluster(r, account, ref)
	if err != nil {
		return nil, err
	}
	if c.Status != statusActive {
		return nil, invalid("The specified cluster is inactive. Specify an active cluster and try again.")
	}
	return c, nil
}

// Statuses that clusters, services and task definitions share.
const (
	statusActive   = "ACTIVE"
	statusDraining = "DRAINING"
	statusInactive = "INACTIVE"
	statusDeleting = "DELETE_IN_PROGRESS"
)

// A definitionRef names a task definition: a family, and a revision or none.
type definitionRef struct {
	family   string
	revision string // as it was written; "" if there is none
}

// parseDefinition reads a family, family:revision or an ARN of one.
func (e *ECS) parseDefinition(account, ref string) (definitionRef, error) {
	return e.parseFamily(account, "task-definition", ref)
}

// parseFamily reads a reference to a revision of some kind of definition.
func (e *ECS) parseFamily(account, kind, ref string) (definitionRef, error) {
	if isARN(ref) {
		a, err := e.mine(account, ref, kind)
		if err != nil {
			return definitionRef{}, err
		}
		if len(a.path) != 1 {
			return definitionRef{}, invalid("Invalid identifier: %s", ref)
		}
		ref = a.path[0]
	}
	family, revision, cut := strings.Cut(ref, ":")
	if !isName(family) || cut && revision == "" {
		return definitionRef{}, invalid("Invalid identifier: %s", ref)
	}
	return definitionRef{family, revision}, nil
}

// number is the revision; ok is false if it is not one.
func (d definitionRef) number() (int, bool) {
	n, err := strconv.ParseInt(d.revision, 10, 32)
	return int(n), err == nil && n > 0 && d.revision[0] != '+'
}

// definition finds a task definition: the revision, or the family's newest active one.
func (e *ECS) definition(r store.Reader, account, ref string) (*state.TaskDefinition, bool, error) {
	d, err := e.parseDefinition(account, ref)
	if err != nil {
		return nil, false, err
	}
	if d.revision == "" {
		td, ok := e.latest(r, account, d.family)
		return td, ok, nil
	}
	n, ok := d.number()
	if !ok {
		return nil, false, invalid("Invalid revision number. Number: %s", d.revision)
	}
	td, ok := state.TaskDefinitions.Get(r, e.definitionARN(account, d.family, n))
	return td, ok, nil
}

func (e *ECS) definitionARN(account, family string, revision int) string {
	return e.arn(account, "task-definition/"+family+":"+strconv.Itoa(revision))
}

// latest is the family's newest active revision. It reads the family's counter
// too, so that a transaction notices a registration that happens meanwhile.
func (e *ECS) latest(r store.Reader, account, family string) (*state.TaskDefinition, bool) {
	f, ok := state.Families.Get(r, account+"/"+family)
	if !ok {
		return nil, false
	}
	// Nearly always it is one of the last few; a family may have a million.
	for n := f.Last; n > max(f.Last-8, 0); n-- {
		if td, ok := state.TaskDefinitions.Get(r, e.definitionARN(account, family, n)); ok && td.Status == statusActive {
			return td, true
		}
	}
	var newest *state.TaskDefinition
	for td := range state.TaskDefinitions.By(r, "family", account+"/"+family) {
		if td.Status == statusActive && (newest == nil || td.Revision > newest.Revision) {
			newest = td
		}
	}
	return newest, newest != nil
}

// startable finds the task definition for a new task or service. The error of
// an inactive one differs between RunTask and services.
func (e *ECS) startable(r store.Reader, account, ref string, inactive func(format string, args ...any) error) (*state.TaskDefinition, error) {
	td, ok, err := e.definition(r, account, ref)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, client("TaskDefinition not found.")
	case td.Status != statusActive:
		return nil, inactive("TaskDefinition is inactive")
	}
	return td, nil
}

// taskARN turns a task's id or ARN into its ARN in the cluster.
func (e *ECS) taskARN(account, cluster, ref string) (string, error) {
	id := ref
	if isARN(ref) {
		a, err := e.mine(account, ref, "task")
		if err != nil {
			return "", err
		}
		switch len(a.path) {
		case 1:
			id = a.path[0]
		case 2:
			return ref, nil
		default:
			return "", invalid("Invalid identifier: %s", ref)
		}
	}
	if len(id) != 32 && len(id) != 36 {
		return "", invalid("taskId length should be one of [32,36]")
	}
	if !isName(id) {
		return "", invalid("taskId contains invalid characters.")
	}
	return e.arn(account, "task/"+cluster+"/"+id), nil
}

// serviceARN turns a service's name or ARN into its ARN in the cluster.
func (e *ECS) serviceARN(account, cluster, ref string) (string, error) {
	name := ref
	if isARN(ref) {
		a, err := e.mine(account, ref, "service")
		if err != nil {
			return "", err
		}
		switch len(a.path) {
		case 1:
			name = a.path[0]
		case 2:
			return ref, nil
		default:
			return "", invalid("Invalid identifier: %s", ref)
		}
	}
	if !isName(name) {
		return "", invalid("Service name contains invalid characters.")
	}
	return e.arn(account, "service/"+cluster+"/"+name), nil
}

// service finds a service of a request, whatever its status.
func (e *ECS) service(r store.Reader, account string, clusterRef, ref *string) (*state.Cluster, *state.Service, error) {
	c, err := e.cluster(r, account, clusterRef)
	if err != nil {
		return nil, nil, err
	}
	key, err := e.serviceARN(account, c.Name, val(ref))
	if err != nil {
		return nil, nil, err
	}
	s, ok := state.Services.Get(r, key)
	if !ok || s.Cluster != c.ARN {
		return nil, nil, &api.ServiceNotFoundException{Message: "Service not found."}
	}
	return c, s, nil
}

// instanceARN turns a container instance's id or ARN into its ARN.
func (e *ECS) instanceARN(account, cluster, ref string) (string, error) {
	id := ref
	if isARN(ref) {
		a, err := e.mine(account, ref, "container-instance")
		if err != nil {
			return "", err
		}
		if len(a.path) == 2 {
			return ref, nil
		}
		id = a.path[len(a.path)-1]
	}
	if !isName(id) {
		return "", invalid("Invalid identifier: %s", ref)
	}
	return e.arn(account, "container-instance/"+cluster+"/"+id), nil
}
