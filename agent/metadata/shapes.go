package metadata

import (
	"context"
	"net/netip"
	"time"

	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/agent/stats"
	"github.com/berth-run/berth/aws/wire"
)

// Task is the answer of /task. Version 3 lacks the fields after Containers'
// own that version 4 added.
type Task struct {
	Cluster               string
	TaskARN               string
	Family                string
	Revision              string
	DesiredStatus         string
	KnownStatus           string
	Containers            []Container       `json:",omitempty"`
	Limits                *TaskLimits       `json:",omitempty"`
	PullStartedAt         *time.Time        `json:",omitempty"`
	PullStoppedAt         *time.Time        `json:",omitempty"`
	ExecutionStoppedAt    *time.Time        `json:",omitempty"`
	AvailabilityZone      string            `json:",omitempty"`
	LaunchType            string            `json:",omitempty"`
	TaskTags              map[string]string `json:",omitempty"`
	ContainerInstanceTags map[string]string `json:",omitempty"`
	Errors                []TagError        `json:",omitempty"`
	ServiceName           string            `json:",omitempty"`
	FaultInjectionEnabled *bool             `json:",omitempty"`
}

// TaskLimits are the limits of a task: vCPUs and MiB.
type TaskLimits struct {
	CPU    float64 `json:",omitempty"`
	Memory int64   `json:",omitempty"`
}

// TagError says why tags are missing.
type TagError struct {
	ErrorField   string
	ErrorCode    string
	ErrorMessage string
	StatusCode   int
	RequestID    string `json:"RequestId"`
	ResourceARN  string
}

// Container is the answer for a container.
type Container struct {
	ID            string `json:"DockerId"`
	Name          string
	DockerName    string
	Image         string
	ImageID       string
	Ports         []Port            `json:",omitempty"`
	Labels        map[string]string `json:",omitempty"`
	DesiredStatus string
	KnownStatus   string
	ExitCode      *int `json:",omitempty"`
	Limits        ContainerLimits
	CreatedAt     *time.Time `json:",omitempty"`
	StartedAt     *time.Time `json:",omitempty"`
	FinishedAt    *time.Time `json:",omitempty"`
	Type          string
	Health        *Health           `json:"Health,omitempty"`
	Volumes       []Volume          `json:",omitempty"`
	LogDriver     string            `json:",omitempty"`
	LogOptions    map[string]string `json:",omitempty"`
	ContainerARN  string            `json:",omitempty"`
	Networks      []Network         `json:",omitempty"`
	Snapshotter   string            `json:",omitempty"`
	RestartCount  *int              `json:",omitempty"`
}

// Port is a port of a container.
type Port struct {
	ContainerPort int64
	Protocol      string
	HostPort      int64  `json:",omitempty"`
	HostIP        string `json:"HostIp,omitempty"`
}

// ContainerLimits are the limits of a container: CPU shares and MiB.
type ContainerLimits struct {
	CPU    int64
	Memory int64 `json:",omitempty"`
}

// Health is a container's health.
type Health struct {
	Status      string     `json:"status"`
	StatusSince *time.Time `json:"statusSince,omitempty"`
	ExitCode    int        `json:"exitCode,omitempty"`
	Output      string     `json:"output,omitempty"`
}

// Volume is a mount of a container.
type Volume struct {
	DockerName  string `json:",omitempty"`
	Source      string `json:",omitempty"`
	Destination string
}

// Network is a network of a container.
type Network struct {
	NetworkMode              string
	IPv4Addresses            []string `json:",omitempty"`
	IPv6Addresses            []string `json:",omitempty"`
	AttachmentIndex          *int64   `json:",omitempty"`
	MACAddress               string   `json:",omitempty"`
	IPv4SubnetCIDRBlock      string   `json:",omitempty"`
	DomainNameServers        []string `json:",omitempty"`
	DomainNameSearchList     []string `json:",omitempty"`
	PrivateDNSName           string   `json:",omitempty"`
	SubnetGatewayIPv4Address string   `json:"SubnetGatewayIpv4Address,omitempty"`
}

func (s *Server) task(t *engine.Task, v4 bool) *Task {
	out := &Task{
		Cluster: t.Def.TaskClusterArn, TaskARN: t.Def.Arn, Family: t.Def.Family, Revision: t.Def.Version,
		DesiredStatus: t.Desired.String(), KnownStatus: t.Known().String(),
		PullStartedAt: date(t.PullStartedAt), PullStoppedAt: date(t.PullStoppedAt), ExecutionStoppedAt: date(t.ExecutionStoppedAt),
		AvailabilityZone: s.Zone,
	}
	if t.Def.Zone != "" {
		out.AvailabilityZone = t.Def.Zone
	}
	if t.Def.CPU > 0 || t.Def.Memory > 0 {
		out.Limits = &TaskLimits{CPU: t.Def.CPU, Memory: t.Def.Memory}
	}
	if v4 {
		out.LaunchType, out.ServiceName = t.Def.LaunchType, t.Def.ServiceName
		out.FaultInjectionEnabled = new(t.Def.EnableFaultInjection)
	}
	for _, c := range t.Containers {
		out.Containers = append(out.Containers, *s.container(t, c, v4))
	}
	return out
}

func (s *Server) container(t *engine.Task, c *engine.Container, v4 bool) *Container {
	out := &Container{
		ID: c.RuntimeID, Name: c.Def.Name, DockerName: c.Def.Name, Image: c.Def.Image,
		Labels: t.Labels(c), DesiredStatus: t.Desired.String(), KnownStatus: c.Phase.String(), ExitCode: c.ExitCode,
		Limits:    ContainerLimits{CPU: max(2, c.Def.CPU), Memory: c.Def.Memory},
		CreatedAt: date(c.CreatedAt), StartedAt: date(c.StartedAt), Type: "NORMAL",
	}
	if c.Image != nil {
		out.ImageID = c.Image.Digest
	}
	if c.Phase == engine.Stopped {
		out.FinishedAt = date(c.FinishedAt)
	}
	for _, p := range c.Def.PortMappings {
		if len(c.Ports) == 0 {
			out.Ports = append(out.Ports, Port{ContainerPort: p.ContainerPort, Protocol: p.Protocol, HostPort: p.HostPort})
		}
	}
	for _, p := range c.Ports {
		for i := range max(1, p.Range) {
			out.Ports = append(out.Ports, Port{ContainerPort: int64(p.Container + i), Protocol: p.Protocol, HostPort: int64(p.Host + i), HostIP: "0.0.0.0"})
		}
	}
	if c.HasHealthcheck() {
		out.Health = &Health{Status: c.Health.Status, StatusSince: date(c.Health.Since), ExitCode: c.Health.ExitCode, Output: c.Health.Output}
	}
	for _, m := range c.Mounts {
		out.Volumes = append(out.Volumes, Volume{Source: m.Source, Destination: m.Target})
	}
	if n := network(t, c, v4); n != nil {
		out.Networks = []Network{*n}
	}
	if v4 {
		out.LogDriver, out.LogOptions = c.HostConfig.LogConfig.Type, c.HostConfig.LogConfig.Config
		out.ContainerARN, out.Snapshotter = c.Def.ContainerArn, "overlayfs"
		if p := c.Def.RestartPolicy; p != nil && p.Enabled {
			out.RestartCount = new(c.RestartCount)
		}
	}
	return out
}

func network(t *engine.Task, c *engine.Container, v4 bool) *Network {
	eni := t.Interface()
	switch {
	case eni != nil:
	case c.Address != "":
		return &Network{NetworkMode: "bridge", IPv4Addresses: []string{c.Address}}
	case t.Def.NetworkMode == "host", t.Def.NetworkMode == "none":
		return &Network{NetworkMode: t.Def.NetworkMode}
	default:
		return nil
	}
	n := &Network{NetworkMode: "awsvpc"}
	for _, a := range eni.IPv4Addresses {
		n.IPv4Addresses = append(n.IPv4Addresses, a.PrivateAddress)
	}
	for _, a := range eni.IPv6Addresses {
		n.IPv6Addresses = append(n.IPv6Addresses, a.Address)
	}
	if !v4 {
		return n
	}
	n.AttachmentIndex, n.MACAddress, n.PrivateDNSName = new(eni.Index), eni.MacAddress, eni.PrivateDNSName
	n.DomainNameServers, n.DomainNameSearchList = eni.DomainNameServers, eni.DomainName
	n.SubnetGatewayIPv4Address = eni.SubnetGatewayIPv4Address
	if p, err := netip.ParsePrefix(eni.SubnetGatewayIPv4Address); err == nil {
		n.IPv4SubnetCIDRBlock = p.Masked().String()
	}
	return n
}

// addTags asks the control plane for tags. What it refuses is told in the
// answer.
func (s *Server) addTags(ctx context.Context, t *Task) {
	for _, f := range []struct {
		arn, field string
		into       *map[string]string
	}{
		{s.ContainerInstance, "ContainerInstanceTags", &t.ContainerInstanceTags},
		{t.TaskARN, "TaskTags", &t.TaskTags},
	} {
		tags, err := s.Tags(ctx, f.arn)
		if err != nil {
			e := TagError{ErrorField: f.field, ErrorCode: wire.Code(err), ErrorMessage: err.Error(), StatusCode: 500, ResourceARN: f.arn}
			if status, ok := status(err); ok {
				e.StatusCode = status
			}
			t.Errors = append(t.Errors, e)
			continue
		}
		for _, tag := range tags {
			if *f.into == nil {
				*f.into = map[string]string{}
			}
			(*f.into)[wire.Value(tag.Key)] = wire.Value(tag.Value)
		}
	}
}

func date(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// Stats is what Docker answers about a container's counters, with the rates
// that ECS adds.
type Stats struct {
	Read             time.Time               `json:"read"`
	PreRead          time.Time               `json:"preread"`
	Pids             PidsStats               `json:"pids_stats"`
	BlockIO          BlockIOStats            `json:"blkio_stats"`
	NumProcs         int                     `json:"num_procs"`
	Storage          struct{}                `json:"storage_stats"`
	CPU              CPUStats                `json:"cpu_stats"`
	PreCPU           CPUStats                `json:"precpu_stats"`
	Memory           MemoryStats             `json:"memory_stats"`
	Name             string                  `json:"name"`
	ID               string                  `json:"id"`
	Networks         map[string]NetworkStats `json:"networks,omitempty"`
	NetworkRateStats *NetworkRates           `json:"network_rate_stats,omitempty"`
}

// PidsStats counts processes.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// BlockIOStats lists transfers by device and direction.
type BlockIOStats struct {
	ServiceBytes   []BlockIO `json:"io_service_bytes_recursive"`
	Serviced       []BlockIO `json:"io_serviced_recursive"`
	Queued         []BlockIO `json:"io_queue_recursive"`
	ServiceTime    []BlockIO `json:"io_service_time_recursive"`
	WaitTime       []BlockIO `json:"io_wait_time_recursive"`
	Merged         []BlockIO `json:"io_merged_recursive"`
	Time           []BlockIO `json:"io_time_recursive"`
	SectorsCounted []BlockIO `json:"sectors_recursive"`
}

// BlockIO is one number of BlockIOStats.
type BlockIO struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

// CPUStats has nanoseconds.
type CPUStats struct {
	Usage struct {
		Total  uint64   `json:"total_usage"`
		PerCPU []uint64 `json:"percpu_usage,omitempty"`
		Kernel uint64   `json:"usage_in_kernelmode"`
		User   uint64   `json:"usage_in_usermode"`
	} `json:"cpu_usage"`
	System     uint64 `json:"system_cpu_usage,omitempty"`
	OnlineCPUs int    `json:"online_cpus,omitempty"`
	Throttling struct {
		Periods       uint64 `json:"periods"`
		Throttled     uint64 `json:"throttled_periods"`
		ThrottledTime uint64 `json:"throttled_time"`
	} `json:"throttling_data"`
}

// MemoryStats has bytes.
type MemoryStats struct {
	Usage    uint64            `json:"usage,omitempty"`
	Max      uint64            `json:"max_usage,omitempty"`
	Stats    map[string]uint64 `json:"stats,omitempty"`
	Failures uint64            `json:"failcnt,omitempty"`
	Limit    uint64            `json:"limit,omitempty"`
}

// NetworkStats are the counters of an interface.
type NetworkStats struct {
	RxBytes   uint64 `json:"rx_bytes"`
	RxPackets uint64 `json:"rx_packets"`
	RxErrors  uint64 `json:"rx_errors"`
	RxDropped uint64 `json:"rx_dropped"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxErrors  uint64 `json:"tx_errors"`
	TxDropped uint64 `json:"tx_dropped"`
}

// NetworkRates are bytes per second between the two readings.
type NetworkRates struct {
	Rx float64 `json:"rx_bytes_per_sec"`
	Tx float64 `json:"tx_bytes_per_sec"`
}

// stats answers nil for a container that has no counters, as it does not run.
func (s *Server) stats(ctx context.Context, t *engine.Task, c *engine.Container, v4 bool) *Stats {
	if c.Phase != engine.Running {
		return nil
	}
	now, before, err := s.Stats(ctx, stats.Container{ID: c.RuntimeID, Name: c.Def.Name, Arn: c.Def.ContainerArn, Sharing: uint64(len(t.Containers))})
	if err != nil {
		return nil
	}
	out := &Stats{Read: now.Time, PreRead: before.Time, Name: "/" + c.Def.Name, ID: c.RuntimeID, CPU: cpu(now.CPU), PreCPU: cpu(before.CPU)}
	out.Pids = PidsStats(now.Pids)
	m := now.Memory
	out.Memory = MemoryStats{Usage: m.Usage, Max: m.Max, Stats: m.Stats, Failures: m.Failures, Limit: m.Limit}
	for _, b := range now.BlockIO {
		out.BlockIO.ServiceBytes = append(out.BlockIO.ServiceBytes, BlockIO{b.Major, b.Minor, "read", b.ReadBytes}, BlockIO{b.Major, b.Minor, "write", b.WriteBytes})
		out.BlockIO.Serviced = append(out.BlockIO.Serviced, BlockIO{b.Major, b.Minor, "read", b.ReadOps}, BlockIO{b.Major, b.Minor, "write", b.WriteOps})
	}
	for name, n := range now.Network {
		if out.Networks == nil {
			out.Networks = map[string]NetworkStats{}
		}
		out.Networks[name] = NetworkStats(n)
	}
	if rx, tx, ok := stats.Rates(now, before); v4 && ok {
		out.NetworkRateStats = &NetworkRates{rx, tx}
	}
	return out
}

func cpu(c runtime.CPUStats) (out CPUStats) {
	out.Usage.Total, out.Usage.PerCPU, out.Usage.Kernel, out.Usage.User = c.Total, c.PerCPU, c.Kernel, c.User
	out.System, out.OnlineCPUs = c.System, c.OnlineCPUs
	out.Throttling.Periods, out.Throttling.Throttled, out.Throttling.ThrottledTime = c.Periods, c.Throttled, c.ThrottledTime
	return out
}
