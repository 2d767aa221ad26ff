package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/berth-run/berth/agent"
	"github.com/berth-run/berth/agent/bridge"
	"github.com/berth-run/berth/agent/containerd"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/node"
	"github.com/berth-run/berth/node/instance"
	"github.com/berth-run/berth/process"
)

// instances is how a node runs EC2 instances.
func instances(n node.Layout, binary string, agentArgs []string) *node.Instances {
	return &node.Instances{
		AgentArgs: agentArgs,
		Open: func(socket, ociRuntime string, p instance.Place) (instance.Containers, error) {
			return containerd.New(containerd.Config{
				Address: socket, Namespace: p.Namespace, Dir: p.Dir, Cgroup: p.Cgroup, OCIRuntime: ociRuntime, InitPath: binary, Exits: n.Containerd().Exits(),
			})
		},
	}
}

// instanceAgent is the agent of one instance, whose settings are in dir. It is
// in the instance's network namespace and cgroup.
func instanceAgent(ctx context.Context, n node.Layout, dir string) error {
	s, err := instance.LoadAgentSettings(dir)
	if err != nil {
		return err
	}
	log := newLog("agent").With("instance", s.Instance)
	if err := process.Notify(); err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	if len(s.Nameservers) > 0 {
		// Names are the VPC's to resolve, not the machine's.
		server := net.JoinHostPort(s.Nameservers[0], "53")
		net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server)
		}}
	}
	rt, err := containerd.New(containerd.Config{
		Address: s.Containerd, Namespace: s.Tasks.Namespace, Dir: s.Tasks.Dir, Cgroup: s.Tasks.Cgroup,
		OCIRuntime: s.OCIRuntime, InitPath: binary, Exits: n.Containerd().Exits(),
	})
	if err != nil {
		return err
	}
	defer rt.Close()
	if err := rt.Ready(ctx); err != nil {
		return err
	}
	endpoint := s.Endpoint
	if host := s.Config["ECS_BACKEND_HOST"]; host != "" {
		if endpoint = host; !strings.Contains(host, "://") {
			endpoint = "https://" + host
		}
	}
	cluster := s.Config["ECS_CLUSTER"]
	if cluster == "" {
		cluster = "default"
	}
	registration, err := registrationOf(s)
	if err != nil {
		return fmt.Errorf("/etc/ecs/ecs.config: %w", err)
	}
	arn, err := registration.ARN(cluster)
	if err != nil {
		return err
	}
	ports, err := portRange(s.Config["ECS_DYNAMIC_HOST_PORT_RANGE"])
	if err != nil {
		return fmt.Errorf("/etc/ecs/ecs.config: %w", err)
	}
	proc := filepath.Join("/proc", strconv.Itoa(s.Pid))
	return agent.Run(ctx, agent.Config{
		Endpoint: endpoint, Region: s.Region, Cluster: cluster, ContainerInstanceARN: arn,
		CredentialsFile: s.Credentials, DataDir: s.DataDir, NetnsDir: s.NetnsDir, Runtime: rt, CPU: s.CPU, Memory: s.Memory,
		Zone: s.Attributes["ecs.availability-zone"], Registration: registration, Log: log,
		Instance: &agent.Instance{
			Host: engine.Host{
				NetNS: filepath.Join(s.NetnsDir, s.Interface), PIDNS: filepath.Join(proc, "ns/pid"), IPCNS: filepath.Join(proc, "ns/ipc"),
				Root:   engine.Chroot{Dir: filepath.Join(proc, "root"), Mounts: filepath.Join(s.RunDir, "mounts")},
				Resolv: func() ([]byte, error) { return instance.ReadIn(s.Pid, "etc/resolv.conf", 64<<10) },
				Name:   s.Hostname,
			},
			Bridge: bridge.Options{Dir: filepath.Join(s.RunDir, "bridge"), Ports: ports, BlockMetadata: s.Config["ECS_AWSVPC_BLOCK_IMDS"] == "true", Log: log},
		},
	})
}

// defaultPorts are what an agent reserves unless it is told otherwise (facts: agent variables).
var defaultPorts = []string{"22", "2375", "2376", "51678", "51679"}

// registrationOf is what an instance says of itself, from its settings and its ecs.config.
func registrationOf(s instance.AgentSettings) (*agent.Registration, error) {
	r := &agent.Registration{
		Document: s.Document, Signature: s.Signature, Attributes: map[string]string{}, Tags: map[string]string{},
		ReservedPorts: defaultPorts, File: filepath.Join(s.DataDir, "container-instance.json"),
	}
	maps.Copy(r.Attributes, s.Attributes)
	if text := s.Config["ECS_INSTANCE_ATTRIBUTES"]; text != "" {
		if err := json.Unmarshal([]byte(text), &r.Attributes); err != nil {
			return nil, fmt.Errorf("ECS_INSTANCE_ATTRIBUTES: %w", err)
		}
	}
	if s.Config["ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM"] == "ec2_instance" {
		for k, v := range s.Tags {
			if !strings.HasPrefix(strings.ToLower(k), "aws:") {
				r.Tags[k] = v
			}
		}
	}
	if text := s.Config["ECS_CONTAINER_INSTANCE_TAGS"]; text != "" {
		if err := json.Unmarshal([]byte(text), &r.Tags); err != nil {
			return nil, fmt.Errorf("ECS_CONTAINER_INSTANCE_TAGS: %w", err)
		}
	}
	if text := s.Config["ECS_RESERVED_MEMORY"]; text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("ECS_RESERVED_MEMORY: %w", err)
		}
		r.ReservedMemory = int(n)
	}
	for name, into := range map[string]*[]string{"ECS_RESERVED_PORTS": &r.ReservedPorts, "ECS_RESERVED_PORTS_UDP": &r.ReservedUDP} {
		text := s.Config[name]
		if text == "" {
			continue
		}
		var ports []uint16
		if err := json.Unmarshal([]byte(text), &ports); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		*into = nil
		for _, p := range ports {
			*into = append(*into, strconv.Itoa(int(p)))
		}
	}
	return r, nil
}

// portRange reads "first-last".
func portRange(text string) (ports [2]uint16, err error) {
	if text == "" {
		return ports, nil
	}
	first, last, ok := strings.Cut(text, "-")
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if !ok || err1 != nil || err2 != nil || a == 0 || b < a {
		return ports, fmt.Errorf("ECS_DYNAMIC_HOST_PORT_RANGE: %q is not a range of ports", text)
	}
	return [2]uint16{uint16(a), uint16(b)}, nil
}
