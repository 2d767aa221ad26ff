package ecs

import (
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
)

// requiredAttributes lists what an instance must be able to do to run the
// definition: attributes by name, each once, in a fixed order. Fargate ignores
// them; they are shown all the same.
func requiredAttributes(d *api.TaskDefinition) []api.Attribute {
	const legacy, short = "com.amazonaws.ecs.capability.", "ecs.capability."
	var names []string
	seen := map[string]bool{}
	need := func(name string) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	remoteAPI := false
	docker := func(version string) {
		remoteAPI = true
		need(legacy + "docker-remote-api." + version)
	}
	execution := val(d.ExecutionRoleArn) != ""

	for i := range d.ContainerDefinitions {
		c := &d.ContainerDefinitions[i]
		if l := c.LogConfiguration; l != nil {
			docker("1.18")
			need(legacy + "logging-driver." + string(l.LogDriver))
			if l.LogDriver == api.LogDriverAwslogs {
				docker("1.19")
				if execution {
					need(short + "execution-role-awslogs")
				}
			}
			for _, s := range l.SecretOptions {
				need(short + "secrets." + secretStore(val(s.ValueFrom)) + ".bootstrap.log-driver")
			}
		}
		if isECR(*c.Image) {
			docker("1.19")
			need(legacy + "ecr-auth")
			if execution {
				need(short + "execution-role-ecr-pull")
			}
		}
		if len(c.DockerLabels) > 0 || len(c.Ulimits) > 0 {
			docker("1.18")
		}
		if c.MemoryReservation != nil {
			docker("1.21")
		}
		if c.HealthCheck != nil {
			docker("1.29")
			need(short + "container-health-check")
		}
		if val(c.Privileged) {
			need(legacy + "privileged-container")
		}
		if len(c.DependsOn) > 0 || c.StartTimeout != nil || c.StopTimeout != nil {
			need(short + "container-ordering")
		}
		if c.RestartPolicy != nil && val(c.RestartPolicy.Enabled) {
			need(short + "container-restart-policy")
		}
		for _, p := range c.PortMappings {
			if p.ContainerPortRange != nil {
				need(short + "network.container-port-range")
			}
		}
		for _, s := range c.Secrets {
			need(short + "secrets." + secretStore(val(s.ValueFrom)) + ".environment-variables")
		}
		if c.RepositoryCredentials != nil {
			need(short + "private-registry-authentication.secretsmanager")
		}
		if len(c.EnvironmentFiles) > 0 {
			need(short + "env-files.s3")
		}
		if f := c.FirelensConfiguration; f != nil {
			need(short + "firelens." + string(f.Type))
			if kind := f.Options["config-file-type"]; kind == "file" || kind == "s3" {
				need(short + "firelens.options.config." + kind)
			}
		}
		for _, o := range c.DockerSecurityOptions {
			if strings.HasPrefix(o, "label:") {
				need(legacy + "selinux")
			}
			if strings.HasPrefix(o, "apparmor:") {
				need(legacy + "apparmor")
			}
			if strings.HasPrefix(o, "credentialspec:") {
				need(short + "gmsa")
			}
		}
		if l := c.LinuxParameters; l != nil && l.InitProcessEnabled != nil {
			docker("1.25")
		}
		if len(c.CredentialSpecs) > 0 {
			need(short + "gmsa")
		}
	}

	if val(d.TaskRoleArn) != "" {
		if d.NetworkMode == api.NetworkModeHost {
			need(legacy + "task-iam-role-network-host")
		} else {
			need(legacy + "task-iam-role")
		}
	}
	if d.NetworkMode == api.NetworkModeAwsvpc {
		docker("1.18")
		need(short + "task-eni")
	}
	if d.Cpu != nil || d.Memory != nil {
		need(short + "task-cpu-mem-limit")
	}
	if d.Cpu != nil && atoi(*d.Cpu) > 10240 {
		need(short + "increased-task-cpu-limit")
	}
	if d.PidMode != "" || d.IpcMode != "" {
		need(short + "pid-ipc-namespace-sharing")
	}
	for _, v := range d.Volumes {
		switch {
		case v.DockerVolumeConfiguration != nil:
			docker("1.21")
			driver := val(v.DockerVolumeConfiguration.Driver)
			if driver == "" {
				driver = "local"
			}
			need(short + "docker-plugin." + driver)
		case v.EfsVolumeConfiguration != nil:
			need(short + "efs")
			if v.EfsVolumeConfiguration.AuthorizationConfig != nil || v.EfsVolumeConfiguration.TransitEncryption != "" {
				need(short + "efsAuth")
			}
		case v.S3filesVolumeConfiguration != nil:
			need(short + "storage.s3-files")
		case v.FsxWindowsFileServerVolumeConfiguration != nil:
			need(short + "fsxWindowsFileServer")
		case val(v.ConfiguredAtLaunch):
			need(short + "storage.ebs-task-volume-attach")
		}
	}
	if d.ProxyConfiguration != nil {
		need(short + "aws-appmesh")
	}
	if val(d.EnableFaultInjection) {
		need(short + "fault-injection")
	}
	if !remoteAPI {
		docker("1.17")
	}
	out := make([]api.Attribute, len(names))
	for i := range names {
		out[i].Name = &names[i]
	}
	return out
}

// secretStore says where a secret is kept: asm (Secrets Manager) or ssm.
func secretStore(from string) string {
	if strings.HasPrefix(from, "arn:") && strings.Contains(from, ":secretsmanager:") {
		return "asm"
	}
	return "ssm"
}
