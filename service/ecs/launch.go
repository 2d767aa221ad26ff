package ecs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// supports checks that the definition may run with the launch type, and that
// this version can do what the definition asks for.
func supports(td *state.TaskDefinition, launch string) error {
	if !slices.Contains(td.Doc.Compatibilities, api.Compatibility(launch)) {
		return invalid("Task definition does not support launch_type %s.", launch)
	}
	return nil
}

// runnable refuses what the document may say and this version cannot do yet:
// a task that ran without its secrets or its volume would be a lie.
func runnable(td *state.TaskDefinition) error {
	d := &td.Doc
	no := func(field string) error { return unsupported("The task definition field " + field) }
	if d.ProxyConfiguration != nil {
		return no("proxyConfiguration")
	}
	if isWindows(d) {
		return no("runtimePlatform.operatingSystemFamily " + string(d.RuntimePlatform.OperatingSystemFamily))
	}
	if val(d.EnableFaultInjection) {
		return no("enableFaultInjection")
	}
	if d.PidMode != "" {
		return no("pidMode")
	}
	for _, v := range d.Volumes {
		switch {
		case v.EfsVolumeConfiguration != nil:
			return no("volumes[].efsVolumeConfiguration")
		case v.S3filesVolumeConfiguration != nil:
			return no("volumes[].s3filesVolumeConfiguration")
		case v.FsxWindowsFileServerVolumeConfiguration != nil:
			return no("volumes[].fsxWindowsFileServerVolumeConfiguration")
		case v.DockerVolumeConfiguration != nil:
			return no("volumes[].dockerVolumeConfiguration")
		case val(v.ConfiguredAtLaunch):
			return no("volumes[].configuredAtLaunch")
		}
	}
	for _, c := range d.ContainerDefinitions {
		switch {
		case len(c.Secrets) > 0:
			return no("containerDefinitions[].secrets")
		case c.RepositoryCredentials != nil:
			return no("containerDefinitions[].repositoryCredentials")
		case len(c.EnvironmentFiles) > 0:
			return no("containerDefinitions[].environmentFiles")
		case c.FirelensConfiguration != nil:
			return no("containerDefinitions[].firelensConfiguration")
		case len(c.CredentialSpecs) > 0:
			return no("containerDefinitions[].credentialSpecs")
		case len(c.ResourceRequirements) > 0:
			return no("containerDefinitions[].resourceRequirements")
		}
		if l := c.LogConfiguration; l != nil {
			if l.LogDriver != api.LogDriverAwslogs {
				return no("containerDefinitions[].logConfiguration.logDriver " + string(l.LogDriver))
			}
			if len(l.SecretOptions) > 0 {
				return no("containerDefinitions[].logConfiguration.secretOptions")
			}
		}
	}
	return nil
}

// maxOverrides is the size of the overrides' JSON.
const maxOverrides = 8192

// checkOverrides validates overrides against a definition and returns them as
// they are stored and shown: one entry per container, sizes as units, full
// role ARNs.
func checkOverrides(account string, d *api.TaskDefinition, in *api.TaskOverride) (*api.TaskOverride, error) {
	out := &api.TaskOverride{
		ContainerOverrides:            []api.ContainerOverride{},
		InferenceAcceleratorOverrides: []api.InferenceAcceleratorOverride{},
	}
	given := map[string]api.ContainerOverride{}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode overrides: %w", err)
		}
		if len(b) > maxOverrides {
			return nil, invalid("Container Overrides length must be at most %d", maxOverrides)
		}
		for _, o := range in.ContainerOverrides {
			name := val(o.Name)
			if name == "" {
				return nil, invalid("Container override name should not be null or empty.")
			}
			c := findContainer(d, name)
			if c == nil {
				return nil, invalid("Override for container named %s is not a container in the TaskDefinition", name)
			}
			if _, again := given[name]; again {
				return nil, invalid("Duplicate override for container named %s", name)
			}
			if len(o.EnvironmentFiles) > 0 {
				return nil, unsupported("overrides.containerOverrides[].environmentFiles")
			}
			if len(o.ResourceRequirements) > 0 {
				return nil, unsupported("overrides.containerOverrides[].resourceRequirements")
			}
			given[name] = o
		}
		if len(in.InferenceAcceleratorOverrides) > 0 {
			return nil, unsupported("overrides.inferenceAcceleratorOverrides")
		}
		if in.Cpu != nil {
			n, ok := parseCPU(*in.Cpu)
			if !ok {
				return nil, invalid("Invalid 'cpu' setting for task override: %s", *in.Cpu)
			}
			out.Cpu = new(strconv.Itoa(n))
		}
		if in.Memory != nil {
			n, ok := parseMemory(*in.Memory)
			if !ok {
				return nil, invalid("Invalid 'memory' setting for task override: %s", *in.Memory)
			}
			out.Memory = new(strconv.Itoa(n))
		}
		if s := in.EphemeralStorage; s != nil {
			if val(s.SizeInGiB) < 21 || val(s.SizeInGiB) > 200 {
				return nil, invalid("Ephemeral storage size must be between 21 and 200 GiB.")
			}
			out.EphemeralStorage = s
		}
		out.TaskRoleArn, out.ExecutionRoleArn = in.TaskRoleArn, in.ExecutionRoleArn
		for _, role := range []**string{&out.TaskRoleArn, &out.ExecutionRoleArn} {
			if err := expandRole(account, role); err != nil {
				return nil, invalid("Role is not valid")
			}
		}
	}
	total := 0
	memory := first(out.Memory, d.Memory)
	for i := range d.ContainerDefinitions {
		c := &d.ContainerDefinitions[i]
		o, ok := given[*c.Name]
		if !ok {
			o = api.ContainerOverride{Name: new(*c.Name)}
		}
		out.ContainerOverrides = append(out.ContainerOverrides, o)
		limit, reservation := first(o.Memory, c.Memory), first(o.MemoryReservation, c.MemoryReservation)
		for _, m := range []*int32{limit, reservation} {
			if m != nil && (*m < minMemory || memory != nil && int(*m) > atoi(*memory)) {
				return nil, invalid("Invalid memory %d for container '%s': it must be at least %d MiB and not exceed the memory of the task.", *m, *c.Name, minMemory)
			}
		}
		if limit != nil && reservation != nil && *limit <= *reservation {
			return nil, invalid("Invalid override for container '%s': 'memory' must be greater than 'memoryReservation'.", *c.Name)
		}
		total += int(val(first(o.Cpu, c.Cpu)))
	}
	if cpu := first(out.Cpu, d.Cpu); cpu != nil && total > atoi(*cpu) {
		return nil, invalid("The total cpu of the containers (%d) must not exceed the cpu of the task (%s).", total, *cpu)
	}
	return out, nil
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// passOverrides checks that the caller may hand over the roles it names.
func (e *ECS) passOverrides(ctx context.Context, r store.Reader, caller *auth.Caller, o *api.TaskOverride) error {
	for _, role := range []*string{o.TaskRoleArn, o.ExecutionRoleArn} {
		if role == nil {
			continue
		}
		if err := e.cfg.PassRole(ctx, r, caller, *role, tasksService); err != nil {
			return err
		}
	}
	return nil
}

// Keys of the tags that ECS sets itself.
const (
	tagClusterName = "aws:ecs:clusterName"
	tagServiceName = "aws:ecs:serviceName"
)
