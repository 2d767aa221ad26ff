package ecs

import (
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
)

// compatibilities lists the launch types that the definition could run on, in
// AWS's order. What the definition asks for must be among them.
func compatibilities(d *api.TaskDefinition) ([]api.Compatibility, error) {
	checks := []struct {
		c     api.Compatibility
		check func(*api.TaskDefinition) error
	}{
		{api.CompatibilityExternal, externalAccepts},
		{api.CompatibilityEc2, ec2Accepts},
		{api.CompatibilityFargate, fargateAccepts},
		{api.CompatibilityManagedInstances, managedAccepts},
	}
	var out []api.Compatibility
	var refused error
	for _, k := range checks {
		err := k.check(d)
		if err == nil {
			out = append(out, k.c)
		}
		if err != nil && (slices.Contains(d.RequiresCompatibilities, k.c) || len(d.RequiresCompatibilities) == 0 && k.c == api.CompatibilityEc2) {
			refused = err
		}
	}
	if refused != nil && (len(out) == 0 || len(d.RequiresCompatibilities) > 0) {
		return nil, refused
	}
	return out, nil
}

func isWindows(d *api.TaskDefinition) bool {
	return d.RuntimePlatform != nil && strings.HasPrefix(string(d.RuntimePlatform.OperatingSystemFamily), "WINDOWS")
}

func isECR(image string) bool {
	host, _, _ := strings.Cut(image, "/")
	return strings.Contains(host, ".dkr.ecr.") || strings.Contains(host, ".dkr-ecr.")
}

func ec2Accepts(d *api.TaskDefinition) error {
	if d.EphemeralStorage != nil {
		return client("Ephemeral storage is only supported by the Fargate launch type.")
	}
	if d.ProxyConfiguration != nil && d.NetworkMode != api.NetworkModeAwsvpc {
		return client("A proxy configuration needs networkMode=awsvpc.")
	}
	return nil
}

func externalAccepts(d *api.TaskDefinition) error {
	if d.NetworkMode == api.NetworkModeAwsvpc {
		return client("Tasks using the External launch type do not support networkMode 'awsvpc'.")
	}
	if d.ProxyConfiguration != nil {
		return client("Tasks using the External launch type do not support a proxy configuration.")
	}
	if usesAccelerators(d) {
		return client("Tasks using the External launch type do not support inference accelerators.")
	}
	return ec2Accepts(d)
}

func managedAccepts(d *api.TaskDefinition) error {
	if d.NetworkMode != api.NetworkModeAwsvpc && d.NetworkMode != api.NetworkModeHost {
		return client("Tasks using the Managed Instances launch type support network modes 'awsvpc' and 'host' only.")
	}
	if isWindows(d) {
		return client("Tasks using the Managed Instances launch type support the operating system family LINUX only.")
	}
	if usesAccelerators(d) {
		return client("Tasks using the Managed Instances launch type do not support inference accelerators.")
	}
	return ec2Accepts(d)
}

func fargateAccepts(d *api.TaskDefinition) error {
	no := func(what string) error {
		return client("Tasks using the Fargate launch type do not support %s.", what)
	}
	if d.NetworkMode != api.NetworkModeAwsvpc {
		return client("Fargate only supports network mode 'awsvpc'.")
	}
	if err := fargateSize(d.Cpu, d.Memory, client); err != nil {
		return err
	}
	if isWindows(d) {
		if d.RuntimePlatform.CpuArchitecture == api.CPUArchitectureArm64 {
			return no("the cpuArchitecture ARM64 with Windows")
		}
		if c := atoi(*d.Cpu); c < 1024 || c > 4096 {
			return client("No Fargate configuration exists for given values: %s CPU, %s memory", *d.Cpu, *d.Memory)
		}
	}
	switch {
	case d.PidMode == api.PidModeHost:
		return client("Tasks using the Fargate launch type do not support pidMode 'host'. The supported value for pidMode is 'task'.")
	case d.IpcMode != "":
		return no("ipcMode")
	case len(d.PlacementConstraints) > 0:
		return no("placement constraints")
	case len(d.InferenceAccelerators) > 0:
		return no("inference accelerators")
	}
	if s := d.EphemeralStorage; s != nil && (val(s.SizeInGiB) < 21 || val(s.SizeInGiB) > 200) {
		return client("Ephemeral storage size must be between 21 and 200 GiB.")
	}
	for _, v := range d.Volumes {
		switch {
		case v.Host != nil && v.Host.SourcePath != nil:
			return client("host.sourcePath should not be set for volumes in Fargate.")
		case v.DockerVolumeConfiguration != nil:
			return no("Docker volumes")
		case v.FsxWindowsFileServerVolumeConfiguration != nil:
			return no("FSx for Windows File Server volumes")
		}
	}
	for i := range d.ContainerDefinitions {
		if err := fargateAcceptsContainer(d, &d.ContainerDefinitions[i], no); err != nil {
			return err
		}
	}
	return nil
}

func fargateAcceptsContainer(d *api.TaskDefinition, c *api.ContainerDefinition, no func(string) error) error {
	switch {
	case isECR(*c.Image) && val(d.ExecutionRoleArn) == "":
		return client("Fargate requires task definition to have execution role ARN to support ECR images.")
	case val(c.Privileged):
		return no("privileged containers")
	case len(c.DockerSecurityOptions) > 0:
		return no("dockerSecurityOptions")
	case val(c.DisableNetworking):
		return no("disableNetworking")
	case len(c.ResourceRequirements) > 0:
		return no("GPU resource requirements")
	}
	for _, t := range []struct {
		name string
		v    *int32
	}{{"startTimeout", c.StartTimeout}, {"stopTimeout", c.StopTimeout}} {
		if t.v != nil && (*t.v < 2 || *t.v > 120) {
			return client("Invalid setting for container '%s'. '%s' must be between 2 and 120 seconds.", *c.Name, t.name)
		}
	}
	if l := c.LogConfiguration; l != nil {
		switch l.LogDriver {
		case api.LogDriverAwslogs:
			if val(d.ExecutionRoleArn) == "" {
				return client("Fargate requires task definition to have execution role ARN to support log driver awslogs.")
			}
			if missing := missingOptions(l.Options, "awslogs-stream-prefix"); missing != "" {
				return client("Log driver awslogs requires options: %s", missing)
			}
		case api.LogDriverSplunk, api.LogDriverAwsfirelens:
		default:
			return no("log driver " + string(l.LogDriver))
		}
	}
	if len(c.Secrets) > 0 && val(d.ExecutionRoleArn) == "" {
		return client("Fargate requires task definition to have execution role ARN to support secrets.")
	}
	if c.RepositoryCredentials != nil && val(d.ExecutionRoleArn) == "" {
		return client("Fargate requires task definition to have execution role ARN to support private registry authentication.")
	}
	if l := c.LinuxParameters; l != nil {
		switch {
		case len(l.Devices) > 0:
			return no("devices")
		case l.SharedMemorySize != nil:
			return no("sharedMemorySize")
		case l.MaxSwap != nil || l.Swappiness != nil:
			return no("maxSwap and swappiness")
		case l.Capabilities != nil && slices.ContainsFunc(l.Capabilities.Add, func(s string) bool { return s != "SYS_PTRACE" }):
			return no("adding capabilities other than SYS_PTRACE")
		}
	}
	return nil
}
