package acs

import (
	"encoding/json"
	"fmt"
	"time"
)

// DockerConfig is the part of a container that travels in Docker's own words:
// two JSON documents, as strings.
type DockerConfig struct {
	Version    string `json:"version,omitempty"`
	Config     string `json:"config,omitempty"`     // of a Config
	HostConfig string `json:"hostConfig,omitempty"` // of a HostConfig
}

// NewDockerConfig packs both documents.
func NewDockerConfig(version string, c Config, h HostConfig) (*DockerConfig, error) {
	config, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	host, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode hostConfig: %w", err)
	}
	return &DockerConfig{Version: version, Config: string(config), HostConfig: string(host)}, nil
}

// Parse unpacks both documents; an absent one gives the zero value, and so
// does a nil receiver.
func (d *DockerConfig) Parse() (c Config, h HostConfig, err error) {
	if d == nil {
		return c, h, nil
	}
	if d.Config != "" {
		if err := json.Unmarshal([]byte(d.Config), &c); err != nil {
			return c, h, fmt.Errorf("decode config: %w", err)
		}
	}
	if d.HostConfig != "" {
		if err := json.Unmarshal([]byte(d.HostConfig), &h); err != nil {
			return c, h, fmt.Errorf("decode hostConfig: %w", err)
		}
	}
	return c, h, nil
}

// Config is what Docker's container.Config has and a task definition can say.
type Config struct {
	User        string            `json:"User,omitempty"`
	WorkingDir  string            `json:"WorkingDir,omitempty"`
	Hostname    string            `json:"Hostname,omitempty"`
	Domainname  string            `json:"Domainname,omitempty"`
	Labels      map[string]string `json:"Labels,omitempty"`
	Tty         bool              `json:"Tty,omitempty"`
	OpenStdin   bool              `json:"OpenStdin,omitempty"`
	StopSignal  string            `json:"StopSignal,omitempty"`
	Healthcheck *Healthcheck      `json:"Healthcheck,omitempty"`
}

// Healthcheck is a container's health check. Test starts with NONE, CMD or CMD-SHELL.
type Healthcheck struct {
	Test        []string      `json:"Test,omitempty"`
	Interval    time.Duration `json:"Interval,omitempty"` // nanoseconds, as all durations here
	Timeout     time.Duration `json:"Timeout,omitempty"`
	StartPeriod time.Duration `json:"StartPeriod,omitempty"`
	Retries     int           `json:"Retries,omitempty"`
}

// HostConfig is what Docker's container.HostConfig has and a task definition
// can say. Sizes are bytes.
type HostConfig struct {
	NetworkMode       string            `json:"NetworkMode,omitempty"`
	LogConfig         LogConfig         `json:"LogConfig,omitzero"`
	MemoryReservation int64             `json:"MemoryReservation,omitempty"`
	MemorySwap        int64             `json:"MemorySwap,omitempty"`
	MemorySwappiness  *int64            `json:"MemorySwappiness,omitempty"`
	Privileged        bool              `json:"Privileged,omitempty"`
	ReadonlyRootfs    bool              `json:"ReadonlyRootfs,omitempty"`
	CapAdd            []string          `json:"CapAdd,omitempty"`
	CapDrop           []string          `json:"CapDrop,omitempty"`
	Devices           []DeviceMapping   `json:"Devices,omitempty"`
	Init              *bool             `json:"Init,omitempty"`
	ShmSize           int64             `json:"ShmSize,omitempty"`
	Tmpfs             map[string]string `json:"Tmpfs,omitempty"` // path → mount options
	Ulimits           []Ulimit          `json:"Ulimits,omitempty"`
	Sysctls           map[string]string `json:"Sysctls,omitempty"`
	DNS               []string          `json:"Dns,omitempty"`
	DNSSearch         []string          `json:"DnsSearch,omitempty"`
	ExtraHosts        []string          `json:"ExtraHosts,omitempty"` // host:address
	SecurityOpt       []string          `json:"SecurityOpt,omitempty"`
}

// LogConfig names a container's log driver and its options.
type LogConfig struct {
	Type   string            `json:"Type,omitempty"`
	Config map[string]string `json:"Config,omitempty"`
}

// DeviceMapping gives a container a device of the instance.
type DeviceMapping struct {
	PathOnHost        string `json:"PathOnHost"`
	PathInContainer   string `json:"PathInContainer"`
	CgroupPermissions string `json:"CgroupPermissions"` // of "rwm"
}

// Ulimit is a resource limit of a container's processes.
type Ulimit struct {
	Name string `json:"Name"`
	Soft int64  `json:"Soft"`
	Hard int64  `json:"Hard"`
}
