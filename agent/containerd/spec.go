package containerd

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/agent/runtime"
)

// place is where a container finds itself: what its OCI spec depends on
// besides the request and the image.
type place struct {
	cgroup  string // the container's own
	dir     string // its generated files
	unified bool   // cgroup v2
	user    specs.User
	devices []specs.LinuxDevice // resolved, with the majors and minors of this machine
	init    string              // program for Spec.Init
	nofile  uint64              // open files where the request says nothing
}

// initTarget is where the init program is mounted; its name makes it one (see
// package node/reaper).
const initTarget = "/sbin/berth-init"

// defaultPath is what docker sets where the image does not.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const defaultShm = 64 << 20

// compile makes the OCI spec of a container with docker's defaults: what runs
// under docker with the same settings sees the same here. It is pure.
func compile(s runtime.Spec, img runtime.ImageConfig, at place) (*specs.Spec, error) {
	args, err := commandLine(s, img)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(s)
	if err != nil {
		return nil, err
	}
	limits, err := ulimits(s.Ulimits, at.nofile)
	if err != nil {
		return nil, err
	}
	cwd := first(s.WorkingDir, img.WorkingDir, "/")
	if !path.IsAbs(cwd) {
		return nil, fmt.Errorf("working directory %q is not absolute: %w", cwd, runtime.ErrInvalid)
	}
	hostname := s.Hostname
	if hostname == "" {
		hostname = s.ID[:min(12, len(s.ID))]
	}
	ns, err := namespaces(s, at.unified)
	if err != nil {
		return nil, err
	}
	mounts, err := mounts(s, at)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Version:  "1.0.2-dev", // the oldest that has all we say; any runc of use reads it
		Hostname: hostname,
		Root:     &specs.Root{Path: "rootfs", Readonly: s.ReadonlyRootfs},
		Process: &specs.Process{
			Terminal:        s.Terminal,
			User:            at.user,
			Args:            args,
			Env:             environment(s, img, hostname),
			Cwd:             cwd,
			Capabilities:    processCapabilities(caps, at.user.UID),
			Rlimits:         limits,
			NoNewPrivileges: s.NoNewPrivileges,
		},
		Mounts:      mounts,
		Annotations: map[string]string{},
		Linux: &specs.Linux{
			CgroupsPath:       at.cgroup,
			Namespaces:        ns,
			Resources:         resources(s, at),
			Sysctl:            sysctls(s),
			Devices:           at.devices,
			MaskedPaths:       slices.Clone(maskedPaths),
			ReadonlyPaths:     slices.Clone(readonlyPaths),
			RootfsPropagation: "rprivate",
		},
	}
	if s.Group != "" {
		spec.Annotations[groupAnnotation] = s.Group
	}
	if s.OOMScoreAdj != 0 {
		spec.Process.OOMScoreAdj = new(s.OOMScoreAdj)
	}
	if s.Init {
		if at.init == "" {
			return nil, fmt.Errorf("no init program on this machine: %w", runtime.ErrInvalid)
		}
		spec.Process.Args = append([]string{initTarget, "--"}, args...)
	}
	if s.Privileged {
		spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
	} else if !s.Unconfined {
		spec.Linux.Seccomp = seccompProfile(spec)
	}
	return spec, nil
}

// seccompProfile is docker's, without the x32 ABI: distributions' kernels have
// it off, and compiling the filter for a third architecture takes runc 20 ms,
// a sixth of a container's start.
func seccompProfile(spec *specs.Spec) *specs.LinuxSeccomp {
	p := seccomp.DefaultProfile(spec)
	p.Architectures = slices.DeleteFunc(p.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
	return p
}

// commandLine merges the request's command with the image's as docker does:
// an entrypoint that is given drops the image's command too.
func commandLine(s runtime.Spec, img runtime.ImageConfig) ([]string, error) {
	entry, cmd := img.Entrypoint, img.Cmd
	if s.Entrypoint != nil {
		entry, cmd = s.Entrypoint, nil
	}
	if len(s.Command) > 0 {
		cmd = s.Command
	}
	args := slices.Concat(entry, cmd)
	if len(args) == 0 || args[0] == "" {
		return nil, fmt.Errorf("no command specified: %w", runtime.ErrInvalid)
	}
	return args, nil
}

// environment: docker's own variables, the image's, the request's; the later
// wins, in the place of the earlier.
func environment(s runtime.Spec, img runtime.ImageConfig, hostname string) []string {
	own := []string{defaultPath, "HOSTNAME=" + hostname}
	if s.Terminal {
		own = append(own, "TERM=xterm")
	}
	return mergeEnv(own, img.Env, s.Env)
}

func mergeEnv(lists ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, list := range lists {
		for _, kv := range list {
			k, _, _ := strings.Cut(kv, "=")
			if i, ok := at[k]; ok {
				out[i] = kv
				continue
			}
			at[k] = len(out)
			out = append(out, kv)
		}
	}
	return out
}

func namespaces(s runtime.Spec, unified bool) ([]specs.LinuxNamespace, error) {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.UTSNamespace}}
	if s.NetNS != "host" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: s.NetNS})
	}
	for _, n := range []struct {
		mode string
		kind specs.LinuxNamespaceType
	}{{s.PIDMode, specs.PIDNamespace}, {s.IPCMode, specs.IPCNamespace}} {
		switch {
		case n.mode == "host":
		case n.mode == "" || path.IsAbs(n.mode):
			ns = append(ns, specs.LinuxNamespace{Type: n.kind, Path: n.mode})
		default:
			return nil, fmt.Errorf("%s namespace %q: %w", n.kind, n.mode, runtime.ErrInvalid)
		}
	}
	if s.CgroupNS || unified && !s.Privileged {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return ns, nil
}

// mounts: docker's kernel file systems, the generated files, the request's.
func mounts(s runtime.Spec, at place) ([]specs.Mount, error) {
	rw := "ro"
	if s.Privileged {
		rw = "rw"
	}
	shm := s.ShmSize
	if shm == 0 {
		shm = defaultShm
	}
	out := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", rw}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{rw, "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}},
	}
	if s.NetNS == "host" {
		// sysfs shows the network namespace it is mounted in; the host's
		// cannot be mounted anew from inside.
		out[3] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", rw}}
	}
	for name, content := range generated(s) {
		if content != nil {
			out = append(out, specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: filepath.Join(at.dir, name), Options: []string{"rbind", "rprivate", "rw"}})
		}
	}
	// A map has no order, a spec should.
	slices.SortFunc(out[7:], func(a, b specs.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	if s.Init {
		out = append(out, specs.Mount{Destination: initTarget, Type: "bind", Source: at.init, Options: []string{"bind", "ro"}})
	}
	for _, m := range s.Mounts {
		mount, err := mountOf(m)
		if err != nil {
			return nil, err
		}
		// What the request mounts takes the place of what we would have.
		out = slices.DeleteFunc(out, func(o specs.Mount) bool { return o.Destination == mount.Destination })
		out = append(out, mount)
	}
	// A parent before what is mounted in it, whatever order was asked for.
	head := out[:0:0]
	tail := out
	slices.SortStableFunc(tail, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	return append(head, tail...), nil
}

func depth(p string) int { return strings.Count(path.Clean(p), "/") }

// generated are the files of /etc that are made for a container, by name; nil
// leaves the image's.
func generated(s runtime.Spec) map[string][]byte {
	if s.Bare {
		return nil
	}
	hostname := s.Hostname
	if hostname == "" {
		hostname = s.ID[:min(12, len(s.ID))]
	}
	return map[string][]byte{"hosts": s.Hosts, "resolv.conf": s.ResolvConf, "hostname": []byte(hostname + "\n")}
}

func mountOf(m runtime.Mount) (specs.Mount, error) {
	target := path.Clean(m.Target)
	if !path.IsAbs(target) || target == "/" {
		return specs.Mount{}, fmt.Errorf("mount target %q: %w", m.Target, runtime.ErrInvalid)
	}
	rw := "rw"
	if m.ReadOnly {
		rw = "ro"
	}
	switch m.Kind {
	case runtime.MountTmpfs:
		opts := []string{"nosuid", "nodev", "noexec"}
		for _, o := range m.Options {
			// An option and its opposite: the request's stands.
			opposite := "no" + o
			opts = slices.DeleteFunc(opts, func(have string) bool { return have == opposite || have == o })
			opts = append(opts, o)
		}
		if m.Size > 0 {
			opts = append(opts, "size="+strconv.FormatInt(m.Size, 10))
		}
		if m.ReadOnly {
			opts = append(opts, "ro")
		}
		return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: opts}, nil
	case runtime.MountBind, runtime.MountVolume:
		if !path.IsAbs(m.Source) {
			return specs.Mount{}, fmt.Errorf("mount source %q is not absolute: %w", m.Source, runtime.ErrInvalid)
		}
		opts := []string{"rbind", rw}
		if !slices.ContainsFunc(m.Options, func(o string) bool {
			return strings.HasSuffix(o, "private") || strings.HasSuffix(o, "shared") || strings.HasSuffix(o, "slave")
		}) {
			opts = append(opts, "rprivate")
		}
		return specs.Mount{Destination: target, Type: "bind", Source: m.Source, Options: append(opts, m.Options...)}, nil
	}
	return specs.Mount{}, fmt.Errorf("mount kind %q: %w", m.Kind, runtime.ErrInvalid)
}

func resources(s runtime.Spec, at place) *specs.LinuxResources {
	res := &specs.LinuxResources{
		Devices: deviceRules(s, at),
		Memory:  &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, Pids: nil,
	}
	if s.Memory > 0 {
		res.Memory.Limit = new(s.Memory)
	}
	if s.MemoryReservation > 0 {
		res.Memory.Reservation = new(s.MemoryReservation)
	}
	if s.MemorySwap != 0 {
		res.Memory.Swap = new(s.MemorySwap)
	}
	if s.CPUShares > 0 {
		res.CPU.Shares = new(s.CPUShares)
	}
	if s.CPUQuota > 0 {
		res.CPU.Quota, res.CPU.Period = new(s.CPUQuota), new(uint64(defaultPeriod))
	}
	if s.PidsLimit > 0 {
		res.Pids = &specs.LinuxPids{Limit: new(s.PidsLimit)}
	}
	return res
}

// deviceRules: docker's list of what a container may touch, and the devices
// it was given.
func deviceRules(s runtime.Spec, at place) []specs.LinuxDeviceCgroup {
	if s.Privileged {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	out := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range [][2]int64{{1, 5}, {1, 3}, {1, 9}, {1, 8}, {5, 0}, {5, 1}} {
		out = append(out, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: new(d[0]), Minor: new(d[1]), Access: "rwm"})
	}
	for i, d := range at.devices {
		access := "rwm"
		if i < len(s.Devices) && s.Devices[i].Permissions != "" {
			access = s.Devices[i].Permissions
		}
		out = append(out, specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: new(d.Major), Minor: new(d.Minor), Access: access})
	}
	return out
}

// sysctls: docker lets an unprivileged process bind low ports and ping in a
// network namespace that is not the host's.
func sysctls(s runtime.Spec) map[string]string {
	out := map[string]string{}
	if s.NetNS != "host" {
		out["net.ipv4.ip_unprivileged_port_start"] = "0"
		out["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	maps.Copy(out, s.Sysctls)
	return out
}

var rlimitNames = map[string]string{
	"core": "RLIMIT_CORE", "cpu": "RLIMIT_CPU", "data": "RLIMIT_DATA", "fsize": "RLIMIT_FSIZE", "locks": "RLIMIT_LOCKS",
	"memlock": "RLIMIT_MEMLOCK", "msgqueue": "RLIMIT_MSGQUEUE", "nice": "RLIMIT_NICE", "nofile": "RLIMIT_NOFILE",
	"nproc": "RLIMIT_NPROC", "rss": "RLIMIT_RSS", "rtprio": "RLIMIT_RTPRIO", "rttime": "RLIMIT_RTTIME",
	"sigpending": "RLIMIT_SIGPENDING", "stack": "RLIMIT_STACK",
}

// ulimits in the order of their names; the last of a name counts. Without a
// word on nofile it is what this machine lets a process have.
func ulimits(in []runtime.Ulimit, nofile uint64) ([]specs.POSIXRlimit, error) {
	byType := map[string]specs.POSIXRlimit{"RLIMIT_NOFILE": {Type: "RLIMIT_NOFILE", Soft: nofile, Hard: nofile}}
	for _, u := range in {
		kind, ok := rlimitNames[u.Name]
		if !ok {
			return nil, fmt.Errorf("invalid ulimit type: %s: %w", u.Name, runtime.ErrInvalid)
		}
		if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
			return nil, fmt.Errorf("ulimit soft limit must be less than or equal to hard limit: %d > %d: %w", u.Soft, u.Hard, runtime.ErrInvalid)
		}
		byType[kind] = specs.POSIXRlimit{Type: kind, Soft: uint64(u.Soft), Hard: uint64(u.Hard)}
	}
	var out []specs.POSIXRlimit
	for _, kind := range slices.Sorted(maps.Keys(byType)) {
		out = append(out, byType[kind])
	}
	return out, nil
}

var maskedPaths = []string{
	"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
