package ecs

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
)

// Limits of a task definition.
const (
	maxContainers  = 10
	maxConstraints = 10
	minMemory      = 6 // MiB, below which no container runtime starts anything
	maxImage       = 255
)

// validateDefinition checks what holds wherever the task runs, and brings cpu
// and memory into the form in which they are stored.
func validateDefinition(d *api.TaskDefinition) error {
	switch family := val(d.Family); {
	case family == "":
		return client("Family should not be null or empty.")
	case !isName(family):
		return client("Family contains invalid characters.")
	}
	if d.Cpu != nil {
		n, ok := parseCPU(*d.Cpu)
		if !ok || n < 128 || n > 196608 {
			return client("Invalid 'cpu' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.")
		}
		d.Cpu = new(strconv.Itoa(n))
	}
	if d.Memory != nil {
		n, ok := parseMemory(*d.Memory)
		if !ok || n < minMemory {
			return client("Invalid 'memory' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.")
		}
		d.Memory = new(strconv.Itoa(n))
	}
	if err := validateConstraints(d.PlacementConstraints); err != nil {
		return err
	}
	if err := validateVolumes(d.Volumes); err != nil {
		return err
	}
	if err := validateContainers(d); err != nil {
		return err
	}
	if err := validateDevices(d); err != nil {
		return err
	}
	if p := d.ProxyConfiguration; p != nil && findContainer(d, val(p.ContainerName)) == nil {
		return client("The proxy configuration names the container '%s', which the task definition does not have.", val(p.ContainerName))
	}
	return nil
}

func findContainer(d *api.TaskDefinition, name string) *api.ContainerDefinition {
	for i := range d.ContainerDefinitions {
		if val(d.ContainerDefinitions[i].Name) == name {
			return &d.ContainerDefinitions[i]
		}
	}
	return nil
}

func essential(c *api.ContainerDefinition) bool { return c.Essential == nil || *c.Essential }

func validateContainers(d *api.TaskDefinition) error {
	switch n := len(d.ContainerDefinitions); {
	case n == 0:
		return client("Container list cannot be empty.")
	case n > maxContainers:
		return client("The number of container definitions exceeds the limit of %d.", maxContainers)
	}
	var cpu, firelens int
	var anyEssential, usesFirelens bool
	names := map[string]bool{}
	for i := range d.ContainerDefinitions {
		c := &d.ContainerDefinitions[i]
		if err := validateContainer(d, c); err != nil {
			return err
		}
		if names[*c.Name] {
			return client("Container.name should be unique. Duplicate name: '%s'.", *c.Name)
		}
		names[*c.Name] = true
		cpu += int(val(c.Cpu))
		anyEssential = anyEssential || essential(c)
		if c.FirelensConfiguration != nil {
			firelens++
		}
		usesFirelens = usesFirelens || c.LogConfiguration != nil && c.LogConfiguration.LogDriver == api.LogDriverAwsfirelens
	}
	switch {
	case !anyEssential:
		return client("At least one container in the task definition must be essential.")
	case d.Cpu != nil && cpu > atoi(*d.Cpu):
		return client("The total cpu of the containers (%d) must not exceed the cpu of the task (%s).", cpu, *d.Cpu)
	case firelens > 1:
		return client("Only one container in a task definition may have a firelensConfiguration.")
	case usesFirelens && firelens == 0:
		return client("The log driver awsfirelens needs a container with a firelensConfiguration in the task definition.")
	}
	return validateDependencies(d)
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s) // a value that this package has stored
	return n
}

func validateContainer(d *api.TaskDefinition, c *api.ContainerDefinition) error {
	name := val(c.Name)
	switch {
	case name == "":
		return client("Container.name should not be null or empty.")
	case !isName(name):
		return client("Container.name contains invalid characters.")
	case val(c.Image) == "":
		return client("Container.image should not be null or empty.")
	case !isImage(*c.Image):
		return client("Container.image contains invalid characters.")
	}
	bad := func(format string, args ...any) error {
		return client("Invalid setting for container '"+name+"'. "+format, args...)
	}
	memory, reservation := val(c.Memory), val(c.MemoryReservation)
	switch {
	case c.Cpu != nil && *c.Cpu < 0:
		return bad("'cpu' must not be negative.")
	case d.Memory == nil && memory == 0 && reservation == 0:
		return bad("At least one of 'memory' or 'memoryReservation' must be specified.")
	case c.Memory != nil && memory < minMemory:
		return bad("'memory' must be at least %d MiB.", minMemory)
	case c.MemoryReservation != nil && reservation < minMemory:
		return bad("'memoryReservation' must be at least %d MiB.", minMemory)
	case c.Memory != nil && c.MemoryReservation != nil && memory <= reservation:
		return bad("'memory' must be greater than 'memoryReservation'.")
	case d.Memory != nil && int(memory) > atoi(*d.Memory):
		return bad("'memory' (%d) must not exceed the memory of the task (%s).", memory, *d.Memory)
	case d.Memory != nil && int(reservation) > atoi(*d.Memory):
		return bad("'memoryReservation' (%d) must not exceed the memory of the task (%s).", reservation, *d.Memory)
	case len(c.CredentialSpecs) > 1:
		return bad("Only one credential spec may be specified.")
	}
	if err := validateNetworking(d, c, bad); err != nil {
		return err
	}
	if err := validateEnvironment(c, bad); err != nil {
		return err
	}
	for _, m := range c.MountPoints {
		if !slices.ContainsFunc(d.Volumes, func(v api.Volume) bool { return val(v.Name) == val(m.SourceVolume) }) {
			return client("Unknown volume '%s'.", val(m.SourceVolume))
		}
		if val(m.ContainerPath) == "" {
			return bad("A mount point must have a 'containerPath'.")
		}
	}
	if p := c.RestartPolicy; p != nil {
		if len(p.IgnoredExitCodes) > 50 {
			return bad("'ignoredExitCodes' must not have more than 50 elements.")
		}
		if p.RestartAttemptPeriod != nil && (*p.RestartAttemptPeriod < 60 || *p.RestartAttemptPeriod > 1800) {
			return bad("'restartAttemptPeriod' must be between 60 and 1800 seconds.")
		}
	}
	if h := c.HealthCheck; h != nil {
		if err := validateHealthCheck(h, bad); err != nil {
			return err
		}
	}
	for _, u := range c.Ulimits {
		if val(u.SoftLimit) > val(u.HardLimit) && val(u.HardLimit) >= 0 {
			return bad("The soft limit of ulimit '%s' must not exceed its hard limit.", u.Name)
		}
	}
	if l := c.LinuxParameters; l != nil {
		if l.Swappiness != nil && (*l.Swappiness < 0 || *l.Swappiness > 100) {
			return bad("'swappiness' must be between 0 and 100.")
		}
		for _, t := range l.Tmpfs {
			if val(t.ContainerPath) == "" || val(t.Size) < 1 {
				return bad("A tmpfs must have a 'containerPath' and a 'size'.")
			}
		}
	}
	if l := c.LogConfiguration; l != nil && l.LogDriver == api.LogDriverAwslogs {
		if missing := missingOptions(l.Options, "awslogs-group", "awslogs-region"); missing != "" {
			return client("Log driver awslogs requires options: %s", missing)
		}
	}
	return nil
}

func missingOptions(have map[string]string, want ...string) string {
	return strings.Join(slices.DeleteFunc(want, func(o string) bool { return have[o] != "" }), ", ")
}

// isImage holds for [registry[:port]/]path[:tag][@sha256:digest].
func isImage(s string) bool {
	name, digest, has := strings.Cut(s, "@")
	if has {
		h, ok := strings.CutPrefix(digest, "sha256:")
		if !ok || len(h) != 64 || strings.Trim(h, "0123456789abcdef") != "" {
			return false
		}
	}
	if name == "" || len(name) > maxImage {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_:./#", c) >= 0) {
			return false
		}
	}
	return true
}

func validateHealthCheck(h *api.HealthCheck, bad func(string, ...any) error) error {
	if len(h.Command) == 0 {
		return bad("A health check must have a 'command'.")
	}
	switch h.Command[0] {
	case "CMD", "CMD-SHELL":
		if len(h.Command) < 2 {
			return bad("A health check must have a 'command'.")
		}
	case "NONE":
	default:
		return bad("The health check command must start with CMD or CMD-SHELL.")
	}
	for _, r := range []struct {
		name     string
		v        *int32
		from, to int32
	}{
		{"interval", h.Interval, 5, 300}, {"timeout", h.Timeout, 2, 60},
		{"retries", h.Retries, 1, 10}, {"startPeriod", h.StartPeriod, 0, 300},
	} {
		if r.v != nil && (*r.v < r.from || *r.v > r.to) {
			return bad("The health check '%s' must be between %d and %d.", r.name, r.from, r.to)
		}
	}
	return nil
}

func validateEnvironment(c *api.ContainerDefinition, bad func(string, ...any) error) error {
	for _, v := range c.Environment {
		if val(v.Name) == "" {
			return bad("An environment variable must have a name.")
		}
	}
	seen := map[string]bool{}
	for _, s := range c.Secrets {
		name := val(s.Name)
		if name == "" || val(s.ValueFrom) == "" {
			return bad("A secret must have a 'name' and a 'valueFrom'.")
		}
		shared := slices.ContainsFunc(c.Environment, func(v api.KeyValuePair) bool { return val(v.Name) == name })
		if seen[name] || shared {
			return client("The secret name must be unique and not shared with any new or existing environment variables set on the container, such as '%s'.", name)
		}
		seen[name] = true
	}
	if len(c.EnvironmentFiles) > 10 {
		return bad("The number of environment files exceeds the limit of 10.")
	}
	for _, f := range c.EnvironmentFiles {
		if !strings.HasSuffix(val(f.Value), ".env") {
			return bad("The name of an environment file must end with '.env'.")
		}
	}
	return nil
}

func validateNetworking(d *api.TaskDefinition, c *api.ContainerDefinition, bad func(string, ...any) error) error {
	mode := d.NetworkMode
	if mode == api.NetworkModeAwsvpc {
		switch {
		case len(c.Links) > 0:
			return client("Links are not supported when networkMode=awsvpc.")
		case val(c.Hostname) != "":
			return client("Hostname is not supported on container when networkMode=awsvpc.")
		case len(c.ExtraHosts) > 0:
			return client("Extra hosts are not supported on container when networkMode=awsvpc")
		case len(c.DnsServers) > 0:
			return client("DNS servers are not supported on container when networkMode=awsvpc")
		case len(c.DnsSearchDomains) > 0:
			return client("DNS search domains are not supported on container when networkMode=awsvpc")
		}
	}
	if mode == api.NetworkModeNone && len(c.PortMappings) > 0 {
		return client("Port mappings are not supported when networkMode=none.")
	}
	if len(c.Links) > 0 && (mode == api.NetworkModeHost || mode == api.NetworkModeNone) {
		return client("Links are not supported when networkMode=%s.", mode)
	}
	for _, h := range c.ExtraHosts {
		if _, err := netip.ParseAddr(val(h.IpAddress)); err != nil || val(h.Hostname) == "" {
			return bad("An extra host must have a 'hostname' and a valid 'ipAddress'.")
		}
	}
	names := map[string]bool{}
	var taken []portSpan
	ranges := 0
	for _, p := range c.PortMappings {
		protocol := p.Protocol
		if protocol == "" {
			protocol = api.TransportProtocolTcp
		}
		span := portSpan{protocol: protocol}
		switch {
		case p.ContainerPortRange != nil:
			if mode == api.NetworkModeHost {
				return bad("'containerPortRange' is not supported when networkMode=host.")
			}
			if p.ContainerPort != nil || p.HostPort != nil {
				return bad("'containerPortRange' excludes 'containerPort' and 'hostPort'.")
			}
			var ok bool
			if span.from, span.to, ok = portRange(*p.ContainerPortRange); !ok {
				return bad("Invalid 'containerPortRange': %s.", *p.ContainerPortRange)
			}
			if ranges++; ranges > 100 {
				return bad("The number of port ranges exceeds the limit of 100.")
			}
		case p.ContainerPort == nil:
			return bad("A port mapping must have a 'containerPort' or a 'containerPortRange'.")
		case *p.ContainerPort < 1 || *p.ContainerPort > 65535:
			return bad("'containerPort' must be between 1 and 65535.")
		case p.HostPort != nil && (*p.HostPort < 0 || *p.HostPort > 65535):
			return bad("'hostPort' must be between 0 and 65535.")
		default:
			span.from, span.to = int(*p.ContainerPort), int(*p.ContainerPort)
			fixed := mode == api.NetworkModeAwsvpc || mode == api.NetworkModeHost
			if h := val(p.HostPort); fixed && h != 0 && h != *p.ContainerPort {
				return client("When networkMode=%s, the host ports and container ports in port mappings must match.", mode)
			}
		}
		// In bridge mode one container port may be published at several host ports.
		if mode == api.NetworkModeAwsvpc || mode == api.NetworkModeHost || p.ContainerPortRange != nil {
			if slices.ContainsFunc(taken, span.overlaps) {
				return bad("Each port may be in one port mapping only.")
			}
			taken = append(taken, span)
		}
		if n := val(p.Name); p.Name != nil {
			if !isPortName(n) {
				return bad("Invalid port mapping name: '%s'.", n)
			}
			if names[n] {
				return bad("Duplicate port mapping name: '%s'.", n)
			}
			names[n] = true
		}
	}
	return nil
}

type portSpan struct {
	protocol api.TransportProtocol
	from, to int
}

func (s portSpan) overlaps(o portSpan) bool {
	return s.protocol == o.protocol && s.from <= o.to && o.from <= s.to
}

// portRange reads first-last.
func portRange(s string) (from, to int, ok bool) {
	a, b, cut := strings.Cut(s, "-")
	f, err1 := strconv.ParseUint(a, 10, 16)
	t, err2 := strconv.ParseUint(b, 10, 16)
	return int(f), int(t), cut && err1 == nil && err2 == nil && f >= 1 && f < t
}

func isPortName(s string) bool {
	return s != "" && len(s) <= 64 && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// validateDependencies checks dependsOn, links and volumesFrom: what they name
// must exist, and no container may wait for itself.
func validateDependencies(d *api.TaskDefinition) error {
	needs := map[string][]string{}
	for i := range d.ContainerDefinitions {
		c := &d.ContainerDefinitions[i]
		name := *c.Name
		for _, dep := range c.DependsOn {
			target := findContainer(d, val(dep.ContainerName))
			switch {
			case target == nil:
				return client("Container '%s' depends on container '%s', which the task definition does not have.", name, val(dep.ContainerName))
			case essential(target) && (dep.Condition == api.ContainerConditionComplete || dep.Condition == api.ContainerConditionSuccess):
				return client("Container '%s' depends on container '%s' with condition %s, which an essential container cannot meet.", name, *target.Name, dep.Condition)
			case target.HealthCheck == nil && dep.Condition == api.ContainerConditionHealthy:
				return client("Container '%s' depends on container '%s' with condition HEALTHY, but it has no health check.", name, *target.Name)
			}
			needs[name] = append(needs[name], *target.Name)
		}
		for _, l := range c.Links {
			target, _, _ := strings.Cut(l, ":")
			if findContainer(d, target) == nil {
				return client("Container '%s' is linked to container '%s', which the task definition does not have.", name, target)
			}
			needs[name] = append(needs[name], target)
		}
		for _, v := range c.VolumesFrom {
			if findContainer(d, val(v.SourceContainer)) == nil {
				return client("Container '%s' mounts volumes from container '%s', which the task definition does not have.", name, val(v.SourceContainer))
			}
			needs[name] = append(needs[name], *v.SourceContainer)
		}
	}
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(string) bool
	visit = func(n string) bool {
		switch state[n] {
		case visiting:
			return false
		case done:
			return true
		}
		state[n] = visiting
		for _, m := range needs[n] {
			if !visit(m) {
				return false
			}
		}
		state[n] = done
		return true
	}
	for i := range d.ContainerDefinitions {
		if !visit(*d.ContainerDefinitions[i].Name) {
			return client("The container dependencies of the task definition contain a cycle.")
		}
	}
	return nil
}

func validateVolumes(volumes []api.Volume) error {
	seen := map[string]bool{}
	atLaunch := 0
	for _, v := range volumes {
		name := val(v.Name)
		switch {
		case name == "":
			return client("Volume.name should not be null or empty.")
		case !isName(name):
			return client("Volume.name contains invalid characters.")
		case seen[name]:
			return client("Volume.name should be unique. Duplicate name: '%s'.", name)
		}
		seen[name] = true
		kinds := 0
		for _, set := range []bool{
			v.Host != nil && v.Host.SourcePath != nil, v.DockerVolumeConfiguration != nil, v.EfsVolumeConfiguration != nil,
			v.FsxWindowsFileServerVolumeConfiguration != nil, v.S3filesVolumeConfiguration != nil, val(v.ConfiguredAtLaunch),
		} {
			if set {
				kinds++
			}
		}
		if kinds > 1 {
			return client("Volume '%s' must have only one kind of configuration.", name)
		}
		if val(v.ConfiguredAtLaunch) {
			if atLaunch++; atLaunch > 1 {
				return client("Only one volume of a task definition may be configured at launch.")
			}
		}
		if c := v.DockerVolumeConfiguration; c != nil && val(c.Autoprovision) && c.Scope != api.ScopeShared {
			return client("Volume '%s': 'autoprovision' needs the scope 'shared'.", name)
		}
		if c := v.EfsVolumeConfiguration; c != nil {
			auth := c.AuthorizationConfig
			encrypted := c.TransitEncryption == api.EFSTransitEncryptionEnabled
			switch {
			case val(c.FileSystemId) == "":
				return client("Volume '%s' must have a 'fileSystemId'.", name)
			case auth != nil && auth.AccessPointId != nil && val(c.RootDirectory) != "" && *c.RootDirectory != "/":
				return client("Volume '%s': with an access point, 'rootDirectory' must be omitted or '/'.", name)
			case auth != nil && (auth.Iam == api.EFSAuthorizationConfigIAMEnabled || auth.AccessPointId != nil) && !encrypted:
				return client("Volume '%s': 'transitEncryption' must be ENABLED with an authorization configuration.", name)
			}
		}
	}
	return nil
}
