package ecs

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control/place/fill"
	"github.com/berth-run/berth/control/place/fleet"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A launching is what RunTask and StartTask have in common.
type launching struct {
	group, startedBy *string
	network          *api.NetworkConfiguration
	overrides        *api.TaskOverride
	exec, managed    *bool
	propagate        api.PropagateTags
	tags             []state.Tag
}

// spec validates a start against what there is, and makes what its tasks have
// in common. runs is asked, at its place among the checks, whether there is
// anything to run on.
func (e *ECS) spec(ctx context.Context, tx *store.Tx, caller *auth.Caller, cluster *state.Cluster, definition, platformVersion *string, launch string, l launching, runs func() error) (state.TaskSpec, error) {
	no := func(err error) (state.TaskSpec, error) { return state.TaskSpec{}, err }
	platform, err := resolvePlatform(platformVersion, launch)
	if err != nil {
		return no(err)
	}
	td, err := e.startable(tx, caller.Account, val(definition), invalid)
	if err != nil {
		return no(err)
	}
	network, err := checkNetwork(tx, caller.Account, &td.Doc, launch, l.network)
	if err != nil {
		return no(err)
	}
	if err := supports(td, launch); err != nil {
		return no(err)
	}
	overrides, err := checkOverrides(caller.Account, &td.Doc, l.overrides)
	if err != nil {
		return no(err)
	}
	if err := e.passOverrides(ctx, tx, caller, overrides); err != nil {
		return no(err)
	}
	if val(l.exec) && first(overrides.TaskRoleArn, td.Doc.TaskRoleArn) == nil {
		return no(invalid("The task couldn't be started because a valid taskRoleArn is not being used. Specify a valid task role in your task definition and try again."))
	}
	if err := runs(); err != nil {
		return no(err)
	}
	spec := state.TaskSpec{
		Region: e.cfg.Region, Account: caller.Account, Cluster: cluster, Definition: td, NewID: e.uuid,
		Group: cmp.Or(val(l.group), "family:"+td.Family), StartedBy: val(l.startedBy),
		LaunchType: launch, PlatformVersion: platform,
		Overrides: overrides, Network: network, EnableExecuteCommand: val(l.exec),
		Now: e.now(), Tags: l.tags,
	}
	if launch == string(api.LaunchTypeFargate) {
		spec.PlatformFamily = platformLinux
		if err := fargateSize(first(overrides.Cpu, td.Doc.Cpu), first(overrides.Memory, td.Doc.Memory), invalid); err != nil {
			return no(err)
		}
	}
	if err := runnable(td); err != nil {
		return no(err)
	}
	if l.propagate == api.PropagateTagsTaskDefinition {
		spec.Tags = mergeTags(td.Tags, spec.Tags)
		if len(spec.Tags) > maxTags {
			return no(invalid("The number of tags exceeds the limit of %d.", maxTags))
		}
	}
	if val(l.managed) {
		spec.Tags = mergeTags(spec.Tags, []state.Tag{{Key: tagClusterName, Value: cluster.Name}})
	}
	return spec, nil
}

// placing runs fn as one transaction in which tasks are given their container
// instances. What fn has chosen is claimed at its end.
func (e *ECS) placing(ctx context.Context, fn func(tx *store.Tx, h *fleet.Hold) error) error {
	h := e.cfg.Fleet.Hold()
	defer h.Release()
	for {
		err := e.update(ctx, func(tx *store.Tx) error {
			h.Reset()
			if err := fn(tx, h); err != nil {
				return err
			}
			return h.Claim(tx)
		})
		// Somebody placed a task, or an instance changed, between the transaction's
		// snapshot and the newest one.
		if !errors.Is(err, fleet.ErrMoved) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// RunTask makes tasks. Those of the launch type EC2 are placed at once, or
// answered as failures; the others wait in PROVISIONING for their place, and
// network and agent take it from there.
func (e *ECS) RunTask(ctx context.Context, in *api.RunTaskInput) (*api.RunTaskOutput, error) {
	caller := e.caller(ctx)
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	if err := checkRun(in); err != nil {
		return nil, err
	}
	if err := checkPlacement(in.PlacementConstraints, in.PlacementStrategy); err != nil {
		return nil, err
	}
	count := 1
	if in.Count != nil {
		count = int(*in.Count)
	}
	out := &api.RunTaskOutput{}
	run := func(tx *store.Tx, h *fleet.Hold) error {
		now := e.now()
		out.Tasks, out.Failures = []api.Task{}, []api.Failure{}
		cluster, err := e.activeCluster(tx, caller.Account, in.Cluster)
		if err != nil {
			return err
		}
		asked := *in
		asked.Cluster, asked.Count = &cluster.ARN, num(count)
		request, err := fingerprint(&asked)
		if err != nil {
			return err
		}
		if t := used(tx, caller.Account, "RunTask", val(in.ClientToken), now); t != nil {
			return e.again(ctx, tx, t, request, out)
		}
		on, err := e.compute(tx, cluster, in.LaunchType, in.CapacityProviderStrategy)
		if err != nil {
			return err
		}
		fargate := on.launch == string(api.LaunchTypeFargate)
		spec, err := e.spec(ctx, tx, caller, cluster, in.TaskDefinition, in.PlatformVersion, on.launch, launching{
			in.Group, in.StartedBy, in.NetworkConfiguration, in.Overrides, in.EnableExecuteCommand, in.EnableECSManagedTags, in.PropagateTags, tags,
		}, func() error {
			if err := e.available(tx, on, cluster); err != nil {
				return err
			}
			return forFargate(fargate, in.PlacementConstraints, in.PlacementStrategy)
		})
		if err != nil {
			return err
		}
		if err := tooMany(spec.Definition, in.PlacementConstraints); err != nil {
			return err
		}
		token := &state.ClientToken{Account: caller.Account, Operation: "RunTask", Token: val(in.ClientToken), Request: request, At: now}
		for _, provider := range on.spread(count) {
			spec.ID, spec.CapacityProvider = e.cfg.NewID(), provider
			t := state.NewTask(spec)
			switch {
			case fargate:
				state.GuardVCPUs(tx, caller.Account, provider)
				if atoi(t.CPU) > state.VCPURoom(tx, caller.Account, provider) {
					// A failure of no instance: it has no ARN.
					out.Failures = append(out.Failures, api.Failure{Reason: new(state.NoVCPU)})
					continue
				}
			case provider != "":
				t.PlacementConstraints, t.PlacementStrategy = in.PlacementConstraints, in.PlacementStrategy
			default:
				d := fleet.Demand(tx, t, spec.Definition, in.PlacementConstraints, in.PlacementStrategy)
				if !h.Take(tx, t, d) {
					out.Failures = failures(h.Refusals(cluster.ARN, d))
				}
			}
			if len(out.Failures) > 0 && !fargate {
				break // what one of them does not fit, the others do not
			}
			state.Tasks.Put(tx, t)
			token.Resources = append(token.Resources, t.ARN)
			out.Tasks = append(out.Tasks, e.taskView(ctx, tx, t, true))
		}
		if len(token.Resources) > 0 { // else asking again may start some
			remember(tx, token)
		}
		return nil
	}
	return out, e.placing(ctx, run)
}

// maxFailures bounds an answer in a cluster of thousands of instances. What
// bounds AWS's is not documented.
const maxFailures = 100

// failures are the instances that were looked at and did not take a task, one
// failure for each.
func failures(rs []fill.Refusal) []api.Failure {
	out := []api.Failure{}
	for _, r := range rs[:min(len(rs), maxFailures)] {
		out = append(out, api.Failure{Arn: new(r.Instance), Reason: new(string(r.Reason))})
	}
	return out
}

// StartTask starts a task on each of the instances that the caller has chosen,
// if it has what the task needs. Constraints are not asked.
func (e *ECS) StartTask(ctx context.Context, in *api.StartTaskInput) (*api.StartTaskOutput, error) {
	caller := e.caller(ctx)
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	if err := checkStart(val(in.Group), val(in.StartedBy), in.PropagateTags); err != nil {
		return nil, err
	}
	if n := len(in.ContainerInstances); n == 0 || n > 10 {
		return nil, invalid("The number of container instances must be between 1 and 10.")
	}
	if len(in.VolumeConfigurations) > 0 {
		return nil, unsupported("volumeConfigurations")
	}
	out := &api.StartTaskOutput{}
	start := func(tx *store.Tx, h *fleet.Hold) error {
		out.Tasks, out.Failures = []api.Task{}, []api.Failure{}
		cluster, err := e.activeCluster(tx, caller.Account, in.Cluster)
		if err != nil {
			return err
		}
		spec, err := e.spec(ctx, tx, caller, cluster, in.TaskDefinition, nil, string(api.LaunchTypeEc2), launching{
			in.Group, in.StartedBy, in.NetworkConfiguration, in.Overrides, in.EnableExecuteCommand, in.EnableECSManagedTags, in.PropagateTags, tags,
		}, func() error { return nil })
		if err != nil {
			return err
		}
		for _, ref := range in.ContainerInstances {
			i, arn, err := e.instance(tx, caller.Account, cluster, ref)
			if err != nil {
				return err
			}
			fail := func(reason string) {
				out.Failures = append(out.Failures, api.Failure{Arn: new(arn), Reason: new(reason)})
			}
			switch {
			case i == nil:
				fail("MISSING")
				continue
			case i.Status != statusActive:
				fail(statusInactive)
				continue
			}
			spec.ID = e.cfg.NewID()
			t := state.NewTask(spec)
			d := fleet.Demand(tx, t, spec.Definition, nil, nil)
			d.Where = "" // those of the definition, too
			if why := h.TakeOn(tx, t, d, arn); why != "" {
				fail(string(why))
				continue
			}
			state.Tasks.Put(tx, t)
			out.Tasks = append(out.Tasks, e.taskView(ctx, tx, t, true))
		}
		return nil
	}
	return out, e.placing(ctx, start)
}

const maxStrategies = 5

// checkPlacement validates constraints and strategies by themselves.
func checkPlacement(constraints []api.PlacementConstraint, strategy []api.PlacementStrategy) error {
	if len(constraints) > maxConstraints {
		return invalid("placementConstraints can have at most %d items.", maxConstraints)
	}
	for _, c := range constraints {
		if err := checkConstraint(c); err != nil {
			return err
		}
	}
	if len(strategy) > maxStrategies {
		return invalid("placementStrategy can have at most %d items.", maxStrategies)
	}
	for _, s := range strategy {
		switch field := val(s.Field); s.Type {
		case api.PlacementStrategyTypeSpread:
			name, attribute := strings.CutPrefix(field, "attribute:")
			if field != "instanceId" && field != "host" && (!attribute || name == "") {
				return invalid("Invalid field of the placement strategy spread: '%s'. It must be instanceId, host or attribute:<name>.", field)
			}
		case api.PlacementStrategyTypeBinpack:
			if !strings.EqualFold(field, "cpu") && !strings.EqualFold(field, "memory") {
				return invalid("Invalid field of the placement strategy binpack: '%s'. It must be cpu or memory.", field)
			}
		case api.PlacementStrategyTypeRandom:
			if field != "" {
				return invalid("The placement strategy random has no field.")
			}
		default:
			return invalid("A placement strategy must have a type.")
		}
	}
	return nil
}

// forFargate refuses constraints and strategies of tasks that Fargate places.
func forFargate(fargate bool, constraints []api.PlacementConstraint, strategy []api.PlacementStrategy) error {
	switch {
	case fargate && len(constraints) > 0:
		return invalid("Placement constraints are not supported with FARGATE launch type.")
	case fargate && len(strategy) > 0:
		return invalid("Placement strategies are not supported with FARGATE launch type.")
	}
	return nil
}

// tooMany enforces the limit of constraints, which those of the definition count for.
func tooMany(td *state.TaskDefinition, constraints []api.PlacementConstraint) error {
	if len(td.Doc.PlacementConstraints)+len(constraints) > maxConstraints {
		return invalid("placementConstraints can have at most %d items, with those of the task definition.", maxConstraints)
	}
	return nil
}
