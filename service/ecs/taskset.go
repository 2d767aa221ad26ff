package ecs

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	stabilizing = string(api.StabilityStatusStabilizing)
	primary     = "PRIMARY"
)

// checkScale validates the scale of a task set and returns its value.
func checkScale(s *api.Scale) (float64, error) {
	if s == nil {
		return 0, nil
	}
	v := val(s.Value)
	if !(v >= 0 && v <= 100) { // so that NaN is refused too
		return 0, invalid("Scale value must be between 0 and 100.")
	}
	return v, nil
}

// external finds an active service whose task sets are somebody else's to manage.
func (e *ECS) external(r store.Reader, account string, cluster, ref *string) (*state.Service, error) {
	_, s, err := e.service(r, account, cluster, ref)
	switch {
	case err != nil:
		return nil, err
	case s.Status != statusActive:
		return nil, &api.ServiceNotActiveException{Message: "Service was not ACTIVE."}
	case !isExternal(s):
		return nil, invalid("Task sets can only be managed for services with an EXTERNAL deployment controller.")
	}
	return s, nil
}

func isExternal(s *state.Service) bool {
	return s.DeploymentController != nil && s.DeploymentController.Type == api.DeploymentControllerTypeExternal
}

// taskSetARN turns a task set's id or ARN into its ARN.
func taskSetARN(service, ref string) (string, error) {
	prefix := strings.Replace(service, ":service/", ":task-set/", 1) + "/"
	id, _ := strings.CutPrefix(ref, prefix)
	number, ok := strings.CutPrefix(id, "ecs-svc/")
	if !ok || number == "" || strings.ContainsFunc(number, func(r rune) bool { return r < '0' || r > '9' }) {
		return "", invalid("Invalid identifier: %s", ref)
	}
	return prefix + id, nil
}

// taskSet finds a task set of a service.
func taskSet(r store.Reader, s *state.Service, ref string) (*state.TaskSet, error) {
	arn, err := taskSetARN(s.ARN, ref)
	if err != nil {
		return nil, err
	}
	t, ok := state.TaskSets.Get(r, arn)
	if !ok {
		return nil, &api.TaskSetNotFoundException{Message: "Task set not found."}
	}
	return t, nil
}

// CreateTaskSet makes a task set. Its tasks are started by the deploy controller.
func (e *ECS) CreateTaskSet(ctx context.Context, in *api.CreateTaskSetInput) (*api.CreateTaskSetOutput, error) {
	caller := e.caller(ctx)
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	scale, err := checkScale(in.Scale)
	if err != nil {
		return nil, err
	}
	if err := checkToken(val(in.ClientToken), 36); err != nil {
		return nil, err
	}
	p := parts{loadBalancers: in.LoadBalancers, registries: in.ServiceRegistries, strategy: in.CapacityProviderStrategy, launch: in.LaunchType}
	if err := p.check(); err != nil {
		return nil, err
	}
	now := e.now()
	out := &api.CreateTaskSetOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		s, err := e.external(tx, caller.Account, in.Cluster, in.Service)
		if err != nil {
			return err
		}
		asked := *in
		asked.Cluster, asked.Service = &s.Cluster, &s.ARN
		request, err := fingerprint(&asked)
		if err != nil {
			return err
		}
		if t := used(tx, caller.Account, "CreateTaskSet", val(in.ClientToken), now); t != nil {
			if have, ok := state.TaskSets.Get(tx, t.Resources[0]); ok && t.Request == request {
				out.TaskSet = shown(tx, s, have)
				return nil
			}
			return invalid("Creation of task set was not idempotent.")
		}
		cluster, err := e.activeCluster(tx, caller.Account, &s.Cluster)
		if err != nil {
			return err
		}
		on, err := e.compute(tx, cluster, in.LaunchType, in.CapacityProviderStrategy)
		if err != nil {
			return err
		}
		launch := on.launch
		platform, err := resolvePlatform(in.PlatformVersion, launch)
		if err != nil {
			return err
		}
		td, err := e.startable(tx, caller.Account, val(in.TaskDefinition), client)
		if err != nil {
			return err
		}
		if _, err := checkNetwork(tx, caller.Account, &td.Doc, launch, in.NetworkConfiguration); err != nil {
			return err
		}
		if err := supports(td, launch); err != nil {
			return err
		}
		if err := p.fit(tx, caller.Account, &td.Doc); err != nil {
			return err
		}
		if err := p.refuse(); err != nil {
			return err
		}
		if err := on.forService(); err != nil {
			return err
		}
		if err := runnable(td); err != nil {
			return err
		}
		if s.EnableExecuteCommand && td.Doc.TaskRoleArn == nil {
			return invalid("The task set couldn't be created because a valid taskRoleArn is not being used. Specify a valid task role in your task definition and try again.")
		}
		tx.Guard("ecs-task-sets/" + s.ARN)
		n := 0
		for range state.TaskSets.By(tx, "service", s.ARN) {
			n++
		}
		if limit := state.Limit(tx, caller.Account, "ecs/task-sets-per-service"); n >= limit {
			return &api.LimitExceededException{Message: "The service already has the maximum number of task sets."}
		}
		id := e.deploymentID()
		arn, err := taskSetARN(s.ARN, id)
		if err != nil {
			return err
		}
		t := &state.TaskSet{
			ARN: arn, ID: id, Account: caller.Account, Cluster: s.Cluster, Service: s.ARN,
			ExternalID: val(in.ExternalId), Status: statusActive, TaskDefinition: td.ARN, Scale: scale,
			LaunchType: on.asked(), CapacityProviderStrategy: on.strategy,
			PlatformVersion: platform, Network: storedNetwork(in.NetworkConfiguration),
			Tags: tags, CreatedAt: now, UpdatedAt: now, Stability: stabilizing, StabilityAt: now,
		}
		if launch == string(api.LaunchTypeFargate) {
			t.PlatformFamily = platformLinux
		}
		state.TaskSets.Put(tx, t)
		remember(tx, &state.ClientToken{Account: caller.Account, Operation: "CreateTaskSet", Token: val(in.ClientToken), Request: request, Resources: []string{arn}, At: now})
		out.TaskSet = shown(tx, s, t)
		return nil
	})
}

// DescribeTaskSets shows task sets of a service: those named, or all.
func (e *ECS) DescribeTaskSets(ctx context.Context, in *api.DescribeTaskSetsInput) (*api.DescribeTaskSetsOutput, error) {
	account := e.caller(ctx).Account
	tags := slices.Contains(in.Include, api.TaskSetFieldTags)
	out := &api.DescribeTaskSetsOutput{TaskSets: []api.TaskSet{}, Failures: []api.Failure{}}
	return out, e.view(func(r store.Reader) error {
		s, err := e.external(r, account, in.Cluster, in.Service)
		if err != nil {
			return err
		}
		if len(in.TaskSets) == 0 {
			out.TaskSets = taskSetViews(r, s, tags)
			return nil
		}
		_, by := tally(r, s.ARN)
		for _, ref := range in.TaskSets {
			arn, err := taskSetARN(s.ARN, ref)
			if err != nil {
				return err
			}
			if t, ok := state.TaskSets.Get(r, arn); ok {
				out.TaskSets = append(out.TaskSets, taskSetView(s, t, by, tags))
			} else {
				out.Failures = append(out.Failures, api.Failure{Arn: &arn, Reason: new("MISSING")})
			}
		}
		return nil
	})
}

// UpdateTaskSet changes the scale of a task set.
func (e *ECS) UpdateTaskSet(ctx context.Context, in *api.UpdateTaskSetInput) (*api.UpdateTaskSetOutput, error) {
	account := e.caller(ctx).Account
	scale, err := checkScale(in.Scale)
	if err != nil {
		return nil, err
	}
	now := e.now()
	out := &api.UpdateTaskSetOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		s, err := e.external(tx, account, in.Cluster, in.Service)
		if err != nil {
			return err
		}
		have, err := taskSet(tx, s, val(in.TaskSet))
		if err != nil {
			return err
		}
		if have.Status == statusDraining {
			return invalid("The task set cannot be updated because it is DRAINING.")
		}
		n := *have
		n.Scale, n.UpdatedAt = scale, now
		if n.Desired(s.DesiredCount) != have.Desired(s.DesiredCount) {
			unsettle(&n, now)
		}
		state.TaskSets.Put(tx, &n)
		out.TaskSet = shown(tx, s, &n)
		return nil
	})
}

// unsettle: the set wants another number of tasks than it may have.
func unsettle(t *state.TaskSet, now time.Time) {
	if t.Stability != stabilizing {
		t.Stability, t.StabilityAt = stabilizing, now
	}
}

// DeleteTaskSet lets a task set drain. It is gone with its last task.
func (e *ECS) DeleteTaskSet(ctx context.Context, in *api.DeleteTaskSetInput) (*api.DeleteTaskSetOutput, error) {
	account := e.caller(ctx).Account
	now := e.now()
	out := &api.DeleteTaskSetOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		s, err := e.external(tx, account, in.Cluster, in.Service)
		if err != nil {
			return err
		}
		t, err := taskSet(tx, s, val(in.TaskSet))
		if err != nil {
			return err
		}
		if !val(in.Force) && t.Desired(s.DesiredCount) > 0 {
			return invalid("The task set cannot be deleted while it is scaled above 0.")
		}
		if t.Status != statusDraining {
			n := *t
			n.Status, n.UpdatedAt = statusDraining, now
			unsettle(&n, now)
			state.TaskSets.Put(tx, &n)
			t = &n
		}
		out.TaskSet = shown(tx, s, t)
		return nil
	})
}

// UpdateServicePrimaryTaskSet says which task set serves. What it runs becomes
// what the service shows.
func (e *ECS) UpdateServicePrimaryTaskSet(ctx context.Context, in *api.UpdateServicePrimaryTaskSetInput) (*api.UpdateServicePrimaryTaskSetOutput, error) {
	account := e.caller(ctx).Account
	now := e.now()
	out := &api.UpdateServicePrimaryTaskSetOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		s, err := e.external(tx, account, in.Cluster, in.Service)
		if err != nil {
			return err
		}
		t, err := taskSet(tx, s, val(in.PrimaryTaskSet))
		if err != nil {
			return err
		}
		if t.Status == statusDraining {
			return invalid("A task set that is DRAINING cannot be the primary task set.")
		}
		tx.Guard("ecs-task-sets/" + s.ARN) // two requests must not make two primaries
		for other := range state.TaskSets.By(tx, "service", s.ARN) {
			if other.Status == primary && other.ARN != t.ARN {
				n := *other
				n.Status, n.UpdatedAt = statusActive, now
				state.TaskSets.Put(tx, &n)
			}
		}
		n := *t
		n.Status, n.UpdatedAt = primary, now
		state.TaskSets.Put(tx, &n)
		next := s.Clone()
		next.TaskDefinition, next.LaunchType, next.Network = n.TaskDefinition, n.LaunchType, n.Network
		next.CapacityProviderStrategy = n.CapacityProviderStrategy
		next.PlatformVersion, next.PlatformFamily = n.PlatformVersion, n.PlatformFamily
		state.Services.Put(tx, next)
		out.TaskSet = shown(tx, next, &n)
		return nil
	})
}

// taskSetViews shows the task sets of a service, oldest first.
func taskSetViews(r store.Reader, s *state.Service, tags bool) []api.TaskSet {
	sets := slices.SortedFunc(state.TaskSets.By(r, "service", s.ARN), func(a, b *state.TaskSet) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ARN, b.ARN))
	})
	_, by := tally(r, s.ARN)
	out := make([]api.TaskSet, len(sets))
	for i, t := range sets {
		out[i] = taskSetView(s, t, by, tags)
	}
	return out
}

// shown is a task set as the operations that change it answer it.
func shown(r store.Reader, s *state.Service, t *state.TaskSet) *api.TaskSet {
	_, by := tally(r, s.ARN)
	return new(taskSetView(s, t, by, true))
}

// hasTaskSets reports whether a service has any.
func hasTaskSets(r store.Reader, s *state.Service) bool {
	for range state.TaskSets.By(r, "service", s.ARN) {
		return true
	}
	return false
}

// taskSetView shows one task set; by counts the tasks of its service.
func taskSetView(s *state.Service, t *state.TaskSet, by map[string]counts, tags bool) api.TaskSet {
	c := by[t.ID]
	v := api.TaskSet{
		Id: &t.ID, TaskSetArn: &t.ARN, ServiceArn: &t.Service, ClusterArn: &t.Cluster, ExternalId: opt(t.ExternalID),
		Status: &t.Status, TaskDefinition: &t.TaskDefinition,
		ComputedDesiredCount: num(t.Desired(s.DesiredCount)), PendingCount: num(c.pending), RunningCount: num(c.running),
		CreatedAt: at(t.CreatedAt), UpdatedAt: at(t.UpdatedAt),
		LaunchType: api.LaunchType(t.LaunchType), CapacityProviderStrategy: t.CapacityProviderStrategy,
		PlatformVersion: opt(t.PlatformVersion), PlatformFamily: opt(t.PlatformFamily), NetworkConfiguration: t.Network,
		LoadBalancers: list(t.LoadBalancers), ServiceRegistries: list(t.ServiceRegistries),
		Scale:           &api.Scale{Value: &t.Scale, Unit: api.ScaleUnitPercent},
		StabilityStatus: api.StabilityStatus(t.Stability), StabilityStatusAt: at(t.StabilityAt), Tags: []api.Tag{},
	}
	if tags {
		v.Tags = tagView(t.Tags)
	}
	return v
}
