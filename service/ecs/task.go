package ecs

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
	pages "github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	maxCount = 10
)

// checkRun validates what needs no state.
func checkRun(in *api.RunTaskInput) error {
	if err := checkToken(val(in.ClientToken), 64); err != nil {
		return err
	}
	switch {
	case in.Count != nil && (*in.Count < 1 || *in.Count > maxCount):
		return invalid("count must be between 1 and %d.", maxCount)
	case in.LaunchType != "" && len(in.CapacityProviderStrategy) > 0:
		return invalid("Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.")
	case len(in.VolumeConfigurations) > 0:
		return unsupported("volumeConfigurations")
	case in.LaunchType == api.LaunchTypeManagedInstances:
		return invalid("The launch type MANAGED_INSTANCES is only available through a capacity provider strategy.")
	}
	return checkStart(val(in.Group), val(in.StartedBy), in.PropagateTags)
}

// checkStart validates what RunTask and StartTask have in common.
func checkStart(group, startedBy string, propagate api.PropagateTags) error {
	switch {
	case strings.HasPrefix(group, "service:"):
		return invalid("Invalid namespace for group.")
	case len(group) > 255:
		return invalid("Group must be at most 255 characters.")
	case len(startedBy) > 128:
		return invalid("StartedBy must be at most 128 characters.")
	case strings.ContainsFunc(startedBy, func(r rune) bool { return r != '/' && !isName(string(r)) }):
		return invalid("StartedBy contains invalid characters.")
	case propagate == api.PropagateTagsService:
		return invalid("Tags cannot be propagated from a service to a task that no service starts.")
	}
	return nil
}

// again answers a RunTask whose token has been used: with the tasks it made, if
// it asks for the same. Those that are forgotten by now are missing.
func (e *ECS) again(ctx context.Context, r store.Reader, t *state.ClientToken, request string, out *api.RunTaskOutput) error {
	if t.Request != request {
		return &api.ConflictException{
			Message:     "The RunTask request could not be processed due to conflicts. The provided clientToken is already in use with different parameters.",
			ResourceIds: t.Resources,
		}
	}
	for _, arn := range t.Resources {
		if have, ok := state.Tasks.Get(r, arn); ok {
			out.Tasks = append(out.Tasks, e.taskView(ctx, r, have, true))
		} else {
			out.Failures = append(out.Failures, api.Failure{Arn: &arn, Reason: new("MISSING")})
		}
	}
	return nil
}

// StopTask asks for a task to stop. Asking again, or of a stopped task, succeeds.
func (e *ECS) StopTask(ctx context.Context, in *api.StopTaskInput) (*api.StopTaskOutput, error) {
	caller := e.caller(ctx)
	now := e.now()
	reason := cmp.Or(val(in.Reason), "Task stopped by user")
	if len(reason) > 1024 {
		return nil, invalid("Reason must be at most 1024 characters.")
	}
	out := &api.StopTaskOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		cluster, err := e.cluster(tx, caller.Account, in.Cluster)
		if err != nil {
			return err
		}
		arn, err := e.taskARN(caller.Account, cluster.Name, val(in.Task))
		if err != nil {
			return err
		}
		t, ok := state.Tasks.Get(tx, arn)
		if !ok || t.Cluster != cluster.ARN {
			return invalid("The referenced task was not found.")
		}
		t = t.Clone()
		if t.WantStop(string(api.TaskStopCodeUserInitiated), reason, now) {
			if t.Instance == "" && t.ENI == "" {
				t.End(now) // nobody has heard of it, so nobody will report its end
			}
			state.Tasks.Put(tx, t)
		}
		v := e.taskView(ctx, tx, t, true)
		out.Task = &v
		return nil
	})
}

// DescribeTasks shows tasks by id or ARN.
func (e *ECS) DescribeTasks(ctx context.Context, in *api.DescribeTasksInput) (*api.DescribeTasksOutput, error) {
	account := e.caller(ctx).Account
	switch {
	case len(in.Tasks) == 0:
		return nil, invalid("Tasks cannot be empty.")
	case len(in.Tasks) > 100:
		return nil, invalid("Tasks cannot exceed 100 elements")
	}
	tags := slices.Contains(in.Include, api.TaskFieldTags)
	out := &api.DescribeTasksOutput{Tasks: make([]api.Task, 0, len(in.Tasks)), Failures: []api.Failure{}}
	return out, e.view(func(r store.Reader) error {
		cluster, err := e.cluster(r, account, in.Cluster)
		if err != nil {
			return err
		}
		for _, ref := range in.Tasks {
			arn, err := e.taskARN(account, cluster.Name, ref)
			if err != nil {
				return err
			}
			if t, ok := state.Tasks.Get(r, arn); ok && t.Cluster == cluster.ARN {
				out.Tasks = append(out.Tasks, e.taskView(ctx, r, t, tags))
			} else {
				out.Failures = append(out.Failures, api.Failure{Arn: &arn, Reason: new("MISSING")})
			}
		}
		return nil
	})
}

// ListTasks lists the tasks of a cluster that pass every filter.
func (e *ECS) ListTasks(ctx context.Context, in *api.ListTasksInput) (*api.ListTasksOutput, error) {
	account := e.caller(ctx).Account
	desired := string(cmp.Or(in.DesiredStatus, api.DesiredStatusRunning))
	if in.StartedBy != nil && (in.ServiceName != nil || in.Family != nil || in.ContainerInstance != nil || in.LaunchType != "" || in.DaemonName != nil) {
		return nil, invalid("When specifying startedBy as a filter, it must be the only filter that you use.")
	}
	r := e.db.Snapshot()
	cluster, err := e.cluster(r, account, in.Cluster)
	if err != nil {
		return nil, err
	}
	service, instance := "", ""
	if in.ServiceName != nil {
		if service, err = e.serviceARN(account, cluster.Name, *in.ServiceName); err != nil {
			return nil, err
		}
		if _, ok := state.Services.Get(r, service); !ok {
			return nil, &api.ServiceNotFoundException{Message: "Service not found."}
		}
	}
	if in.ContainerInstance != nil {
		if instance, err = e.instanceARN(account, cluster.Name, *in.ContainerInstance); err != nil {
			return nil, err
		}
		if i, ok := state.ContainerInstances.Get(r, instance); !ok || i.Hidden {
			return nil, invalid("The referenced container instance was not found.")
		}
	}
	if in.DaemonName != nil {
		if !state.Daemons.Has(r, e.daemonARN(account, cluster.Name, *in.DaemonName)) {
			return nil, invalid("The referenced daemon was not found.")
		}
		// It has no tasks: no capacity provider has instances yet.
		return &api.ListTasksOutput{TaskArns: []string{}}, nil
	}
	q := query{"ListTasks", cluster.ARN, service, instance, val(in.Family), val(in.StartedBy), desired, string(in.LaunchType)}
	n, after, err := pageStart(q, in.NextToken, in.MaxResults, 100, 100, e.now())
	if err != nil {
		return nil, err
	}
	found := state.Tasks.After(r, "desired", cluster.ARN+" "+desired, after)
	if service != "" {
		found = state.Tasks.After(r, "service", service, after)
	}
	arns, next := make([]string, 0, n), (*string)(nil)
	for t := range found {
		if t.DesiredStatus == desired &&
			(in.Family == nil || t.Family == *in.Family) &&
			(in.StartedBy == nil || t.StartedBy == *in.StartedBy) &&
			(in.LaunchType == "" || t.LaunchType == string(in.LaunchType)) &&
			(instance == "" || t.Instance == instance) {
			if len(arns) == n {
				next = new(pages.Encode(q, arns[n-1], e.now()))
				break
			}
			arns = append(arns, t.ARN)
		}
	}
	return &api.ListTasksOutput{TaskArns: arns, NextToken: next}, nil
}

// sameDocument compares two documents of AWS's shapes by what they say, not by
// whether they were read back from the store.
func sameDocument(a, b any) bool { return reflect.DeepEqual(a, b) }

var (
	architectureAttribute = "ecs.cpu-architecture"
	arm64, x8664          = "arm64", "x86_64"
)

// architecture is what the task's node says of itself; before there is one, what
// the definition asks for.
func architecture(r store.Reader, t *state.Task) *string {
	if i, ok := state.ContainerInstances.Get(r, t.Instance); ok {
		for _, a := range i.Attributes {
			if val(a.Name) == architectureAttribute && val(a.Value) != "" {
				return a.Value
			}
		}
	}
	td, ok := state.TaskDefinitions.Get(r, t.TaskDefinition)
	if ok && td.Doc.RuntimePlatform != nil && td.Doc.RuntimePlatform.CpuArchitecture == api.CPUArchitectureArm64 {
		return &arm64
	}
	return &x8664
}

// taskView is a task as the API shows it.
func (e *ECS) taskView(ctx context.Context, r store.Reader, t *state.Task, tags bool) api.Task {
	v := api.Task{
		TaskArn: &t.ARN, ClusterArn: &t.Cluster, TaskDefinitionArn: &t.TaskDefinition,
		Attachments:           []api.Attachment{},
		Attributes:            []api.Attribute{{Name: &architectureAttribute, Value: architecture(r, t)}},
		AvailabilityZone:      some(&t.Zone),
		CapacityProviderName:  some(&t.CapacityProvider),
		Connectivity:          api.Connectivity(t.Connectivity),
		ConnectivityAt:        when(&t.ConnectivityAt),
		Containers:            make([]api.Container, 0, len(t.Containers)),
		Cpu:                   some(&t.CPU),
		Memory:                some(&t.Memory),
		CreatedAt:             when(&t.CreatedAt),
		DesiredStatus:         &t.DesiredStatus,
		LastStatus:            &t.LastStatus,
		EnableExecuteCommand:  &t.EnableExecuteCommand,
		ExecutionStoppedAt:    when(&t.ExecutionStoppedAt),
		Group:                 some(&t.Group),
		HealthStatus:          api.HealthStatus(cmp.Or(t.Health, "UNKNOWN")),
		InferenceAccelerators: []api.InferenceAccelerator{},
		LaunchType:            api.LaunchType(t.LaunchType),
		Overrides:             overridesView(t),
		PlatformVersion:       some(&t.PlatformVersion),
		PlatformFamily:        some(&t.PlatformFamily),
		PullStartedAt:         when(&t.PullStartedAt),
		PullStoppedAt:         when(&t.PullStoppedAt),
		StartedAt:             when(&t.StartedAt),
		StartedBy:             some(&t.StartedBy),
		StopCode:              api.TaskStopCode(t.StopCode),
		StoppedReason:         some(&t.StoppedReason),
		StoppingAt:            when(&t.StoppingAt),
		StoppedAt:             when(&t.StoppedAt),
		Tags:                  []api.Tag{},
		Version:               &t.Version,
	}
	if tags {
		v.Tags = tagView(t.Tags)
	}
	if t.LaunchType != string(api.LaunchTypeFargate) {
		v.ContainerInstanceArn = some(&t.Instance)
	} else if t.EphemeralStorageGiB > 0 {
		size := num(t.EphemeralStorageGiB)
		v.EphemeralStorage = &api.EphemeralStorage{SizeInGiB: size}
		v.FargateEphemeralStorage = &api.TaskEphemeralStorage{SizeInGiB: size}
	}
	interfaces := []api.NetworkInterface{}
	for i := range t.Attachments {
		a := &t.Attachments[i]
		av := api.Attachment{Id: &a.ID, Type: &a.Type, Status: &a.Status, Details: []api.KeyValuePair{}}
		for _, d := range a.Details {
			av.Details = append(av.Details, api.KeyValuePair{Name: &d.Name, Value: &d.Value})
		}
		v.Attachments = append(v.Attachments, av)
		if address := a.Detail("privateIPv4Address"); a.Type == "ElasticNetworkInterface" && address != "" {
			interfaces = append(interfaces, api.NetworkInterface{AttachmentId: &a.ID, PrivateIpv4Address: &address, Ipv6Address: opt(a.Detail("ipv6Address"))})
		}
	}
	for i := range t.Containers {
		c := &t.Containers[i]
		cv := api.Container{
			ContainerArn: &c.ARN, TaskArn: &t.ARN, Name: &c.Name, Image: &c.Image,
			ImageDigest: some(&c.ImageDigest), RuntimeId: some(&c.RuntimeID), LastStatus: &c.LastStatus,
			Reason: some(&c.Reason), NetworkBindings: list(c.Bindings), NetworkInterfaces: interfaces,
			HealthStatus: api.HealthStatus(cmp.Or(c.Health, "UNKNOWN")),
			Cpu:          some(&c.CPU), Memory: some(&c.Memory), MemoryReservation: some(&c.MemoryReservation),
		}
		if c.ExitCode != nil {
			cv.ExitCode = num(*c.ExitCode)
		}
		if t.EnableExecuteCommand {
			cv.ManagedAgents = []api.ManagedAgent{e.execAgent(ctx, r, t, c)}
		}
		v.Containers = append(v.Containers, cv)
	}
	return v
}

// overridesView always has both lists and an entry for each container, also for
// a task that overrides nothing.
func overridesView(t *state.Task) *api.TaskOverride {
	v := api.TaskOverride{}
	if t.Overrides != nil {
		v = *t.Overrides
	}
	v.InferenceAcceleratorOverrides = list(v.InferenceAcceleratorOverrides)
	if v.ContainerOverrides == nil {
		v.ContainerOverrides = make([]api.ContainerOverride, 0, len(t.Containers))
		for i := range t.Containers {
			v.ContainerOverrides = append(v.ContainerOverrides, api.ContainerOverride{Name: &t.Containers[i].Name})
		}
	}
	return &v
}
