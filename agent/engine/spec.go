package engine

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth/agent/bridge"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/acs"
)

// Labels that every container of a task has.
const (
	LabelTask      = "com.amazonaws.ecs.task-arn"
	LabelContainer = "com.amazonaws.ecs.container-name"
	LabelFamily    = "com.amazonaws.ecs.task-definition-family"
	LabelVersion   = "com.amazonaws.ecs.task-definition-version"
	LabelCluster   = "com.amazonaws.ecs.cluster"
)

// Labels are the labels of a container of the task.
func (t *Task) Labels(c *Container) map[string]string {
	l := make(map[string]string, len(c.Config.Labels)+5)
	for k, v := range c.Config.Labels {
		l[k] = v
	}
	// Last, so that a definition cannot pass a container off as another's.
	l[LabelTask] = t.Def.Arn
	l[LabelContainer] = c.Def.Name
	l[LabelFamily] = t.Def.Family
	l[LabelVersion] = t.Def.Version
	l[LabelCluster] = t.Def.TaskClusterArn
	return l
}

// host is what a container spec needs to know of where it will run.
type host struct {
	region  string
	volumes string // folder of the task's volumes
	shared  string // folder of volumes that outlive tasks
	netns   string // path of the task's network namespace, "" none

	instance *Host            // nil: Fargate
	endpoint *bridge.Endpoint // the container's place in the instance's network, nil for none
}

// share turns what a container shares with its host into the instance's, and
// refuses what would make it a part of the machine.
func (h host) share(s *runtime.Spec) error {
	for _, n := range []struct {
		mode       *string
		name, path string
	}{{&s.PIDMode, "pidMode", h.pidNS()}, {&s.IPCMode, "ipcMode", h.ipcNS()}} {
		if *n.mode != "host" {
			continue
		}
		if n.path == "" {
			return fmt.Errorf("%s host is not supported by this agent", n.name)
		}
		*n.mode = n.path
	}
	switch {
	case s.Privileged:
		return errors.New("privileged containers are not supported by this agent: they would be root of the machine that the instance runs on")
	case len(s.Devices) > 0:
		return fmt.Errorf("device %s is not supported by this agent: an instance has none", s.Devices[0].Host)
	}
	return nil
}

func (h host) pidNS() string {
	if h.instance == nil {
		return ""
	}
	return h.instance.PIDNS
}

func (h host) ipcNS() string {
	if h.instance == nil {
		return ""
	}
	return h.instance.IPCNS
}

// metadataAddress is where containers find the agent.
const metadataAddress = "http://169.254.170.2"

// injectedEnv is what the agent adds to a container's environment.
func (t *Task) injectedEnv(c *Container, region string) map[string]string {
	env := map[string]string{
		"ECS_CONTAINER_METADATA_URI":    metadataAddress + "/v3/" + c.RuntimeID,
		"ECS_CONTAINER_METADATA_URI_V4": metadataAddress + "/v4/" + c.RuntimeID,
		"ECS_AGENT_URI":                 metadataAddress + "/api/" + c.RuntimeID,
	}
	if t.RoleCredentials != "" {
		env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = "/v2/credentials/" + t.RoleCredentials
	}
	if !c.hasEnv("AWS_REGION") && !c.hasEnv("AWS_DEFAULT_REGION") {
		env["AWS_REGION"], env["AWS_DEFAULT_REGION"] = region, region
	}
	return env
}

func (c *Container) hasEnv(name string) bool {
	if _, ok := c.Def.Environment[name]; ok {
		return true
	}
	return c.Image != nil && slices.ContainsFunc(c.Image.Config.Env, func(kv string) bool {
		return strings.HasPrefix(kv, name+"=")
	})
}

// spec compiles a container for the runtime. It answers what has to be
// remembered of it besides: the mounts, which others may take over, and the
// environment that was added.
func (t *Task) spec(c *Container, h host) (runtime.Spec, error) {
	hc := &c.HostConfig
	s := runtime.Spec{
		ID: c.RuntimeID, Group: t.ID(), Image: c.Digest, Labels: t.Labels(c),
		Command: c.Def.Command, User: c.Config.User, WorkingDir: c.Config.WorkingDir, Terminal: c.Config.Tty,
		NetNS: h.netns, ReadonlyRootfs: hc.ReadonlyRootfs, ShmSize: hc.ShmSize, Sysctls: hc.Sysctls,
		Init: hc.Init != nil && *hc.Init, CapAdd: hc.CapAdd, CapDrop: hc.CapDrop, Privileged: hc.Privileged,
		Memory: c.Def.Memory << 20, MemoryReservation: hc.MemoryReservation, MemorySwap: hc.MemorySwap,
		CPUShares: uint64(max(0, c.Def.CPU)), PIDMode: t.Def.PidMode, IPCMode: t.Def.IpcMode,
	}
	if len(c.Def.EntryPoint) > 0 {
		s.Entrypoint = c.Def.EntryPoint
	}
	if c.Def.CPU < 2 {
		s.CPUShares = 2 // the kernel's least
	} else if c.Def.CPU > 262144 {
		s.CPUShares = 262144
	}
	if t.Def.PidMode == "task" || t.Def.IpcMode == "task" || t.Def.IpcMode == "none" {
		return s, fmt.Errorf("pidMode %q with ipcMode %q is not supported by this agent", t.Def.PidMode, t.Def.IpcMode)
	}

	for _, k := range sortedKeys(c.Def.Environment) {
		s.Env = append(s.Env, k+"="+c.Def.Environment[k])
	}
	for _, env := range []map[string]string{t.injectedEnv(c, h.region), t.linkEnv(c)} {
		for _, k := range sortedKeys(env) {
			s.Env = append(s.Env, k+"="+env[k])
		}
	}

	for _, u := range hc.Ulimits {
		s.Ulimits = append(s.Ulimits, runtime.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, d := range hc.Devices {
		s.Devices = append(s.Devices, runtime.Device{Host: d.PathOnHost, Container: d.PathInContainer, Permissions: d.CgroupPermissions})
	}
	for _, o := range hc.SecurityOpt {
		switch o {
		case "no-new-privileges", "no-new-privileges:true":
			s.NoNewPrivileges = true
		case "seccomp=unconfined", "seccomp:unconfined":
			s.Unconfined = true
		default:
			return s, fmt.Errorf("security option %q is not supported by this agent", o)
		}
	}

	if err := h.share(&s); err != nil {
		return s, err
	}
	if err := t.network(c, h, &s); err != nil {
		return s, err
	}
	mounts, err := t.mounts(c, h)
	s.Mounts = mounts
	return s, err
}

// network writes the container's name files: from the interface's record, or
// from what the instance has.
func (t *Task) network(c *Container, h host, s *runtime.Spec) (err error) {
	eni := t.Interface()
	switch {
	case eni != nil:
	case h.endpoint != nil:
		s.Hostname, s.ResolvConf, s.Hosts, err = t.bridgeNames(c, h)
		return err
	case t.Def.NetworkMode == "host" && h.instance != nil:
		if s.Hostname = c.Config.Hostname; s.Hostname == "" {
			s.Hostname = h.instance.Name
		}
		if s.ResolvConf, err = t.resolv(c, h); err != nil {
			return err
		}
		var b strings.Builder
		fmt.Fprintf(&b, "127.0.0.1 localhost %s\n", s.Hostname)
		err = extraHosts(&b, c.HostConfig.ExtraHosts)
		s.Hosts = []byte(b.String())
		return err
	default:
		s.Hostname = c.Config.Hostname
		return nil
	}
	s.Hostname = c.Config.Hostname
	if s.Hostname == "" {
		s.Hostname = eni.PrivateDNSName
	}

	servers, search := c.HostConfig.DNS, c.HostConfig.DNSSearch
	if len(servers) == 0 {
		servers = eni.DomainNameServers
	}
	if len(servers) == 0 {
		servers = []string{"169.254.169.253"} // every VPC's resolver has this address too
	}
	if len(search) == 0 {
		search = eni.DomainName
	}
	var b strings.Builder
	for _, a := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	s.ResolvConf = []byte(b.String())

	b.Reset()
	b.WriteString("127.0.0.1 localhost\n")
	if ip := eni.PrimaryIPv4(); ip != "" && s.Hostname != "" {
		short, _, _ := strings.Cut(s.Hostname, ".")
		if short == s.Hostname {
			fmt.Fprintf(&b, "%s %s\n", ip, short)
		} else {
			fmt.Fprintf(&b, "%s %s %s\n", ip, s.Hostname, short)
		}
	}
	if err := extraHosts(&b, c.HostConfig.ExtraHosts); err != nil {
		return err
	}
	s.Hosts = []byte(b.String())
	return nil
}

// mounts are those of the definition, those of other containers that it takes
// over, and anonymous volumes where the image asks for some and there is no
// mount yet.
func (t *Task) mounts(c *Container, h host) ([]runtime.Mount, error) {
	var out []runtime.Mount
	add := func(m runtime.Mount) {
		if !slices.ContainsFunc(out, func(o runtime.Mount) bool { return o.Target == m.Target }) {
			out = append(out, m)
		}
	}
	for _, p := range c.Def.MountPoints {
		m, err := t.volume(p.SourceVolume, h)
		if err != nil {
			return nil, err
		}
		m.Target, m.ReadOnly = filepath.Clean(p.ContainerPath), p.ReadOnly
		add(m)
	}
	for _, path := range sortedKeys(c.HostConfig.Tmpfs) {
		m, err := tmpfs(path, c.HostConfig.Tmpfs[path])
		if err != nil {
			return nil, err
		}
		add(m)
	}
	for _, v := range c.Def.VolumesFrom {
		src := t.Container(v.SourceContainer)
		if src == nil {
			return nil, fmt.Errorf("volumes from %s: the task has no such container", v.SourceContainer)
		}
		for _, m := range src.Mounts {
			if m.Kind == runtime.MountTmpfs {
				continue
			}
			m.ReadOnly = m.ReadOnly || v.ReadOnly
			add(m)
		}
	}
	if c.Image != nil {
		for i, path := range c.Image.Config.Volumes {
			name := fmt.Sprintf("%s.%d", c.RuntimeID, i)
			add(runtime.Mount{Kind: runtime.MountVolume, Source: filepath.Join(h.volumes, name), Target: filepath.Clean(path)})
		}
	}
	return out, nil
}

// volume says where a volume of the task is on the machine.
func (t *Task) volume(name string, h host) (runtime.Mount, error) {
	i := slices.IndexFunc(t.Def.Volumes, func(v acs.Volume) bool { return v.Name == name })
	if i < 0 {
		return runtime.Mount{}, fmt.Errorf("volume %q is not in the task", name)
	}
	v := t.Def.Volumes[i]
	dir := "v-" + v.Name
	if !filepath.IsLocal(dir) || strings.ContainsRune(dir, '/') {
		return runtime.Mount{}, fmt.Errorf("volume name %q cannot be a folder's", v.Name)
	}
	switch {
	case v.EFSVolumeConfiguration != nil || v.Type == "efs" || v.Type == "fsxWindowsFileServer":
		return runtime.Mount{}, fmt.Errorf("volume %q: type %s is not supported by this agent", name, v.Type)
	case v.Host != nil && v.Host.SourcePath != "" && h.instance != nil:
		path, err := h.instance.Root.Path(t.ID(), v.Host.SourcePath)
		return runtime.Mount{Kind: runtime.MountBind, Source: path}, err
	case v.Host != nil && v.Host.SourcePath != "":
		return runtime.Mount{}, fmt.Errorf("volume %q: Fargate has no path %s to share", name, v.Host.SourcePath)
	case v.DockerVolumeConfiguration != nil && v.DockerVolumeConfiguration.Scope == "shared":
		return runtime.Mount{Kind: runtime.MountVolume, Source: filepath.Join(h.shared, dir)}, nil
	}
	return runtime.Mount{Kind: runtime.MountVolume, Source: filepath.Join(h.volumes, dir)}, nil
}

// tmpfs reads Docker's form of a tmpfs: its path, and mount options with a size among them.
func tmpfs(path, options string) (runtime.Mount, error) {
	m := runtime.Mount{Kind: runtime.MountTmpfs, Target: filepath.Clean(path)}
	for o := range strings.SplitSeq(options, ",") {
		size, ok := strings.CutPrefix(o, "size=")
		switch {
		case o == "":
		case !ok:
			m.Options = append(m.Options, o)
		default:
			n, err := parseSize(size)
			if err != nil {
				return m, fmt.Errorf("tmpfs %s: %w", path, err)
			}
			m.Size = n
		}
	}
	return m, nil
}

var errSize = errors.New("size is not a number of bytes, or one with k, m or g")

func parseSize(s string) (int64, error) {
	shift := 0
	if s != "" {
		if i := strings.IndexByte("kmg", s[len(s)-1]|0x20); i >= 0 {
			shift, s = 10*(i+1), s[:len(s)-1]
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n<<shift>>shift != n {
		return 0, errSize
	}
	return n << shift, nil
}

// group is the cgroup of the task.
func (t *Task) group() runtime.Group {
	g := runtime.Group{Name: t.ID(), Memory: t.Def.Memory << 20}
	if t.Def.CPU > 0 {
		g.CPUPeriod = 100_000
		g.CPUQuota = int64(t.Def.CPU * float64(g.CPUPeriod))
		return g
	}
	for _, c := range t.Containers {
		g.CPUShares += uint64(max(2, c.Def.CPU))
	}
	return g
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// unsupported names the first thing of the task that this agent would have to
// ignore. A task that needs it must not run without.
func (t *Task) unsupported() error {
	switch {
	case t.Def.ProxyConfiguration != nil:
		return errors.New("proxyConfiguration is not supported by this agent")
	case len(t.Def.Associations) > 0:
		return fmt.Errorf("associations of type %s are not supported by this agent", t.Def.Associations[0].Type)
	case len(t.Def.Attachments) > 0:
		return fmt.Errorf("attachments of type %s are not supported by this agent", t.Def.Attachments[0].AttachmentType)
	case t.Def.EnableFaultInjection:
		return errors.New("enableFaultInjection is not supported by this agent")
	}
	for _, c := range t.Containers {
		var what string
		switch {
		case len(c.Def.Secrets) > 0:
			what = "secrets"
		case len(c.Def.EnvironmentFiles) > 0:
			what = "environmentFiles"
		case c.Def.FirelensConfiguration != nil:
			what = "firelensConfiguration"
		case len(c.Def.ManagedAgents) > 0:
			what = "managedAgents"
		case len(c.Def.Links) > 0 && !t.Bridged():
			what = "links"
		case len(c.Def.CredentialSpecs) > 0:
			what = "credentialSpecs"
		case c.Def.Overrides != "" && c.Def.Overrides != "{}":
			what = "overrides"
		default:
			continue
		}
		return fmt.Errorf("container %s: %s is not supported by this agent", c.Def.Name, what)
	}
	return nil
}
