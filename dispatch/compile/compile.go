// Package compile turns a task definition and a task into what the agent is
// sent: Amazon's payload, with each container's Docker documents in it. The
// agent knows no task definitions; everything it must do is said here.
//
// It is pure: same task, same payload. It must never mint credentials or look
// anything up.
package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/dispatch/acs"
	"github.com/berth-run/berth/store/state"
)

// Input is all that a payload depends on.
type Input struct {
	Region     string
	Task       *state.Task
	Definition *state.TaskDefinition
	Interface  *state.NetworkInterface // nil outside awsvpc
	Subnet     netip.Prefix            // of the interface
	Resolver   netip.Addr              // the VPC's resolver
	Domain     string                  // search domains, with a space between
	// Nameservers are asked instead of Resolver where DHCP options name some.
	Nameservers []netip.Addr
	// Digests that a service's deployment has fixed, by container name.
	Digests map[string]string
	// LogMode is the delivery mode of awslogs where a definition names none;
	// "" leaves it to the agent.
	LogMode string
	// Endpoint is where the task's containers reach the API, "" if nowhere.
	Endpoint string
	// Role and ExecutionRole are credentials, nil where the task has none.
	Role, ExecutionRole *acs.IAMRoleCredentials
}

// dockerVersion is the Docker API version in whose words the documents are.
const dockerVersion = "1.41"

// Stop is the payload that stops a task.
func Stop(t *state.Task, td *state.TaskDefinition) acs.Task {
	out := acs.Task{Arn: t.ARN, TaskClusterArn: t.Cluster, Family: t.Family, DesiredStatus: acs.StatusStopped, Containers: []acs.Container{}}
	if td != nil {
		out.Version = strconv.Itoa(td.Revision)
	}
	return out
}

// Task is the payload that runs a task.
func Task(in Input) (acs.Task, error) {
	t, doc := in.Task, &in.Definition.Doc
	out := acs.Task{
		Arn: t.ARN, TaskClusterArn: t.Cluster, Family: in.Definition.Family,
		Version:                  strconv.Itoa(in.Definition.Revision),
		DesiredStatus:            acs.StatusRunning,
		NetworkMode:              networkMode(doc),
		LaunchType:               t.LaunchType,
		TaskDefinitionAccountID:  in.Definition.Account,
		Group:                    t.Group,
		PidMode:                  string(doc.PidMode),
		IpcMode:                  string(doc.IpcMode),
		EnableFaultInjection:     wire.Value(doc.EnableFaultInjection),
		RoleCredentials:          in.Role,
		ExecutionRoleCredentials: in.ExecutionRole,
		Zone:                     t.Zone,
	}
	if t.Service != "" {
		out.ServiceName = state.ShortARN(t.Service)
	}
	if units, err := strconv.ParseFloat(t.CPU, 64); err == nil {
		out.CPU = units / 1024
	}
	if mib, err := strconv.ParseInt(t.Memory, 10, 64); err == nil {
		out.Memory = mib
	}
	if in.Interface != nil {
		out.ElasticNetworkInterfaces = []acs.ElasticNetworkInterface{eni(in)}
	}
	for i := range doc.Volumes {
		v, err := volume(&doc.Volumes[i])
		if err != nil {
			return acs.Task{}, err
		}
		out.Volumes = append(out.Volumes, v)
	}
	over := map[string]*ecs.ContainerOverride{}
	if t.Overrides != nil {
		for i := range t.Overrides.ContainerOverrides {
			o := &t.Overrides.ContainerOverrides[i]
			over[wire.Value(o.Name)] = o
		}
	}
	arns := map[string]string{}
	for _, c := range t.Containers {
		arns[c.Name] = c.ARN
	}
	for i := range doc.ContainerDefinitions {
		d := &doc.ContainerDefinitions[i]
		c, err := container(in, d, over[wire.Value(d.Name)])
		if err != nil {
			return acs.Task{}, fmt.Errorf("container %s: %w", wire.Value(d.Name), err)
		}
		c.ContainerArn = arns[c.Name]
		out.Containers = append(out.Containers, c)
	}
	return out, nil
}

func networkMode(doc *ecs.TaskDefinition) string {
	if doc.NetworkMode == "" {
		return "bridge"
	}
	return string(doc.NetworkMode)
}

// AttachmentARN names a network attachment as the protocol does.
func AttachmentARN(region, account, cluster, id string) string {
	return fmt.Sprintf("arn:aws:ecs:%s:%s:attachment/%s/%s", region, account, state.ShortARN(cluster), id)
}

func eni(in Input) acs.ElasticNetworkInterface {
	e := in.Interface
	gateway := netip.PrefixFrom(in.Subnet.Masked().Addr().Next(), in.Subnet.Bits())
	out := acs.ElasticNetworkInterface{
		EC2ID: e.ID, MacAddress: e.MAC,
		IPv4Addresses:                []acs.IPv4Address{{Primary: true, PrivateAddress: e.Address.String()}},
		SubnetGatewayIPv4Address:     gateway.String(),
		PrivateDNSName:               e.PrivateDNSName,
		InterfaceAssociationProtocol: "default",
	}
	if a := in.Task.NetworkAttachment(); a != nil {
		out.AttachmentArn = AttachmentARN(in.Region, in.Task.Account, in.Task.Cluster, a.ID)
	}
	if in.Resolver.IsValid() {
		out.DomainNameServers = []string{in.Resolver.String()}
	}
	for i, a := range in.Nameservers {
		if i == 0 {
			out.DomainNameServers = nil
		}
		out.DomainNameServers = append(out.DomainNameServers, a.String())
	}
	if in.Domain != "" {
		out.DomainName = strings.Fields(in.Domain)
	}
	return out
}

func volume(v *ecs.Volume) (acs.Volume, error) {
	out := acs.Volume{Name: wire.Value(v.Name), Type: "host", Host: &acs.HostVolume{}}
	switch {
	case v.DockerVolumeConfiguration != nil:
		d := v.DockerVolumeConfiguration
		out.Type, out.Host = "docker", nil
		out.DockerVolumeConfiguration = &acs.DockerVolumeConfiguration{
			Scope: string(d.Scope), Autoprovision: wire.Value(d.Autoprovision),
			Driver: wire.Value(d.Driver), DriverOpts: d.DriverOpts, Labels: d.Labels,
		}
	case v.EfsVolumeConfiguration != nil, v.FsxWindowsFileServerVolumeConfiguration != nil, v.S3filesVolumeConfiguration != nil:
		return out, fmt.Errorf("volume %s: this kind of volume is not supported", out.Name)
	case v.Host != nil:
		out.Host.SourcePath = wire.Value(v.Host.SourcePath)
	}
	return out, nil
}

func container(in Input, d *ecs.ContainerDefinition, o *ecs.ContainerOverride) (acs.Container, error) {
	if o == nil {
		o = &ecs.ContainerOverride{}
	}
	c := acs.Container{
		Name: wire.Value(d.Name), Image: wire.Value(d.Image),
		EntryPoint:   d.EntryPoint,
		Command:      d.Command,
		Environment:  map[string]string{"AWS_EXECUTION_ENV": executionEnv(in.Task.LaunchType)},
		CPU:          int64(wire.Value(or(o.Cpu, d.Cpu))),
		Memory:       int64(wire.Value(or(o.Memory, d.Memory))),
		Essential:    d.Essential == nil || *d.Essential,
		Links:        d.Links,
		StartTimeout: int64(wire.Value(d.StartTimeout)),
		StopTimeout:  int64(wire.Value(d.StopTimeout)),
	}
	if len(o.Command) > 0 {
		c.Command = o.Command
	}
	// In AWS an SDK finds the API by itself; here it is told, unless the task definition does.
	if in.Endpoint != "" && in.Task.LaunchType == "FARGATE" {
		c.Environment["AWS_ENDPOINT_URL"] = in.Endpoint
	}
	for _, e := range d.Environment {
		c.Environment[wire.Value(e.Name)] = wire.Value(e.Value)
	}
	for _, e := range o.Environment {
		c.Environment[wire.Value(e.Name)] = wire.Value(e.Value)
	}
	for _, f := range append(append([]ecs.EnvironmentFile(nil), d.EnvironmentFiles...), o.EnvironmentFiles...) {
		c.EnvironmentFiles = append(c.EnvironmentFiles, acs.EnvironmentFile{Type: string(f.Type), Value: wire.Value(f.Value)})
	}
	if digest := in.Digests[c.Name]; digest != "" && !strings.Contains(c.Image, "@") {
		c.Image += "@" + digest
	}
	// In awsvpc a mapping changes nothing, and Amazon's agent refuses it.
	if networkMode(&in.Definition.Doc) != "awsvpc" {
		for _, p := range d.PortMappings {
			c.PortMappings = append(c.PortMappings, acs.PortMapping{
				ContainerPort: int64(wire.Value(p.ContainerPort)), HostPort: int64(wire.Value(p.HostPort)),
				Protocol: strings.ToLower(string(p.Protocol)), ContainerPortRange: wire.Value(p.ContainerPortRange),
			})
		}
	}
	for _, m := range d.MountPoints {
		c.MountPoints = append(c.MountPoints, acs.MountPoint{SourceVolume: wire.Value(m.SourceVolume), ContainerPath: wire.Value(m.ContainerPath), ReadOnly: wire.Value(m.ReadOnly)})
	}
	for _, v := range d.VolumesFrom {
		c.VolumesFrom = append(c.VolumesFrom, acs.VolumeFrom{SourceContainer: wire.Value(v.SourceContainer), ReadOnly: wire.Value(v.ReadOnly)})
	}
	for _, x := range d.DependsOn {
		c.DependsOn = append(c.DependsOn, acs.ContainerDependency{ContainerName: wire.Value(x.ContainerName), Condition: string(x.Condition)})
	}
	if p := d.RestartPolicy; p != nil && wire.Value(p.Enabled) {
		c.RestartPolicy = &acs.RestartPolicy{Enabled: true, RestartAttemptPeriod: 300}
		if p.RestartAttemptPeriod != nil {
			c.RestartPolicy.RestartAttemptPeriod = int64(*p.RestartAttemptPeriod)
		}
		for _, x := range p.IgnoredExitCodes {
			c.RestartPolicy.IgnoredExitCodes = append(c.RestartPolicy.IgnoredExitCodes, int64(x))
		}
	}
	for _, s := range d.Secrets {
		c.Secrets = append(c.Secrets, secret(in.Region, s, "CONTAINER"))
	}
	c.RegistryAuthentication = registry(in, d)
	if l := d.LogConfiguration; l != nil {
		for _, s := range l.SecretOptions {
			c.Secrets = append(c.Secrets, secret(in.Region, s, "LOG_DRIVER"))
		}
		if l.LogDriver == "awslogs" && in.ExecutionRole != nil {
			c.LogsAuthStrategy = acs.LogsAuthExecutionRole
		}
	}
	config, host, err := docker(in, d, o)
	if err != nil {
		return c, err
	}
	if config.Healthcheck != nil {
		c.HealthCheckType = acs.HealthCheckDocker
	}
	c.DockerConfig, err = acs.NewDockerConfig(dockerVersion, config, host)
	return c, err
}

func executionEnv(launchType string) string {
	if launchType == "FARGATE" {
		return "AWS_ECS_FARGATE"
	}
	return "AWS_ECS_EC2"
}

func secret(region string, s ecs.Secret, target string) acs.Secret {
	out := acs.Secret{Name: wire.Value(s.Name), ValueFrom: wire.Value(s.ValueFrom), Region: region, Provider: "ssm", Type: "ENVIRONMENT_VARIABLE", Target: target}
	if parts := strings.SplitN(out.ValueFrom, ":", 6); len(parts) == 6 && parts[0] == "arn" {
		out.Region = parts[3]
		if parts[2] == "secretsmanager" {
			out.Provider = "asm"
		}
	}
	return out
}

// registry says how the image is fetched: ECR's by its host name, private ones by their secret.
func registry(in Input, d *ecs.ContainerDefinition) *acs.RegistryAuthentication {
	if r := d.RepositoryCredentials; r != nil {
		return &acs.RegistryAuthentication{Type: "asm", ASMAuthData: &acs.ASMAuthData{CredentialsParameter: wire.Value(r.CredentialsParameter), Region: in.Region}}
	}
	id, region, ok := ECRHost(wire.Value(d.Image))
	if !ok {
		return nil
	}
	return &acs.RegistryAuthentication{Type: "ecr", ECRAuthData: &acs.ECRAuthData{
		RegistryID: id, Region: region, UseExecutionRole: in.ExecutionRole != nil,
	}}
}

// ECRHost takes account and region from an image name whose registry is ECR's:
// <account>.dkr.ecr.<region>.amazonaws.com/…, or Berth's own …localhost:port.
func ECRHost(image string) (account, region string, ok bool) {
	host, _, found := strings.Cut(image, "/")
	if !found {
		return "", "", false
	}
	host, _, _ = strings.Cut(host, ":")
	p := strings.Split(host, ".")
	if len(p) < 5 || len(p[0]) != 12 || p[1] != "dkr" || p[2] != "ecr" {
		return "", "", false
	}
	if rest := strings.Join(p[4:], "."); rest != "amazonaws.com" && rest != "localhost" {
		return "", "", false
	}
	return p[0], p[3], true
}

// docker writes the two Docker documents.
func docker(in Input, d *ecs.ContainerDefinition, o *ecs.ContainerOverride) (acs.Config, acs.HostConfig, error) {
	c := acs.Config{
		User: wire.Value(d.User), WorkingDir: wire.Value(d.WorkingDirectory), Hostname: wire.Value(d.Hostname),
		Labels: d.DockerLabels, Tty: wire.Value(d.PseudoTerminal), OpenStdin: wire.Value(d.Interactive),
	}
	if h := d.HealthCheck; h != nil && len(h.Command) > 0 && h.Command[0] != "NONE" {
		c.Healthcheck = &acs.Healthcheck{
			Test:        h.Command,
			Interval:    seconds(h.Interval, 30),
			Timeout:     seconds(h.Timeout, 5),
			Retries:     int(wire.Value(or(h.Retries, new(int32(3))))),
			StartPeriod: seconds(h.StartPeriod, 0),
		}
	}
	h := acs.HostConfig{
		NetworkMode: networkMode(&in.Definition.Doc),
		Privileged:  wire.Value(d.Privileged), ReadonlyRootfs: wire.Value(d.ReadonlyRootFilesystem),
		DNS: d.DnsServers, DNSSearch: d.DnsSearchDomains, SecurityOpt: d.DockerSecurityOptions,
		MemoryReservation: int64(wire.Value(or(o.MemoryReservation, d.MemoryReservation))) << 20,
	}
	if wire.Value(d.DisableNetworking) {
		h.NetworkMode = "none"
	}
	for _, e := range d.ExtraHosts {
		h.ExtraHosts = append(h.ExtraHosts, wire.Value(e.Hostname)+":"+wire.Value(e.IpAddress))
	}
	for _, u := range d.Ulimits {
		h.Ulimits = append(h.Ulimits, acs.Ulimit{Name: string(u.Name), Soft: int64(wire.Value(u.SoftLimit)), Hard: int64(wire.Value(u.HardLimit))})
	}
	for _, s := range d.SystemControls {
		if h.Sysctls == nil {
			h.Sysctls = map[string]string{}
		}
		h.Sysctls[wire.Value(s.Namespace)] = wire.Value(s.Value)
	}
	if l := d.LogConfiguration; l != nil {
		h.LogConfig = acs.LogConfig{Type: string(l.LogDriver), Config: l.Options}
		if l.LogDriver == "awslogs" && in.LogMode != "" && l.Options["mode"] == "" {
			h.LogConfig.Config = maps.Clone(l.Options)
			if h.LogConfig.Config == nil {
				h.LogConfig.Config = map[string]string{}
			}
			h.LogConfig.Config["mode"] = in.LogMode
		}
	}
	p := d.LinuxParameters
	if p == nil {
		return c, h, nil
	}
	if k := p.Capabilities; k != nil {
		h.CapAdd, h.CapDrop = k.Add, k.Drop
	}
	for _, x := range p.Devices {
		m := acs.DeviceMapping{PathOnHost: wire.Value(x.HostPath), PathInContainer: wire.Value(x.ContainerPath), CgroupPermissions: "rwm"}
		if m.PathInContainer == "" {
			m.PathInContainer = m.PathOnHost
		}
		if len(x.Permissions) > 0 {
			m.CgroupPermissions = permissions(x.Permissions)
		}
		h.Devices = append(h.Devices, m)
	}
	if p.InitProcessEnabled != nil {
		h.Init = new(*p.InitProcessEnabled)
	}
	h.ShmSize = int64(wire.Value(p.SharedMemorySize)) << 20
	for _, t := range p.Tmpfs {
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		options := append([]string{fmt.Sprintf("size=%dm", wire.Value(t.Size))}, t.MountOptions...)
		h.Tmpfs[wire.Value(t.ContainerPath)] = strings.Join(options, ",")
	}
	if p.MaxSwap != nil {
		// Docker counts memory and swap together.
		h.MemorySwap = (int64(*p.MaxSwap) + int64(wire.Value(or(o.Memory, d.Memory)))) << 20
	}
	if p.Swappiness != nil {
		h.MemorySwappiness = new(int64(*p.Swappiness))
	}
	return c, h, nil
}

func permissions(ps []ecs.DeviceCgroupPermission) string {
	letters := map[ecs.DeviceCgroupPermission]string{"read": "r", "write": "w", "mknod": "m"}
	var s []string
	for _, p := range ps {
		s = append(s, letters[p])
	}
	sort.Slice(s, func(i, j int) bool { return strings.Index("rwm", s[i]) < strings.Index("rwm", s[j]) })
	return strings.Join(s, "")
}

func seconds(p *int32, otherwise int32) time.Duration {
	if p != nil {
		otherwise = *p
	}
	return time.Duration(otherwise) * time.Second
}

func or[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}
