package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth/agent/bridge"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/dispatch/acs"
)

// Host is the instance that tasks run on: what they share with it in the modes
// that share something. Never is that the machine beneath. A nil *Host is
// Fargate's, where nothing is shared.
type Host struct {
	// Bridge is the instance's container network. Required.
	Bridge Bridge
	// NetNS, PIDNS and IPCNS are paths of the instance's own namespaces.
	NetNS, PIDNS, IPCNS string
	// Root finds paths of the instance for bind mounts. Required.
	Root Root
	// Resolv answers the instance's resolv.conf.
	Resolv func() ([]byte, error)
	// Name is the instance's host name.
	Name string
}

// Root is the instance's file system.
type Root interface {
	// Path answers where the machine has a path of the instance, for a task. A
	// folder is made if nothing is there.
	Path(task, path string) (string, error)
	// Release takes back what was answered for a task.
	Release(task string) error
}

// Bridge connects containers to the instance's network.
type Bridge interface {
	Connect(id string, ports []bridge.Port) (*bridge.Endpoint, error)
	Disconnect(id string) error
	Endpoints() []bridge.Endpoint
}

// Bridged reports whether each container of the task has a place of its own in
// the instance's container network.
func (t *Task) Bridged() bool {
	return t.Def.NetworkMode == "bridge" || t.Def.NetworkMode == ""
}

// ports are what a container publishes.
func (c *Container) ports() ([]bridge.Port, error) {
	var out []bridge.Port
	for _, m := range c.Def.PortMappings {
		p := bridge.Port{Protocol: m.Protocol, Container: uint16(m.ContainerPort), Host: uint16(m.HostPort)}
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		if m.ContainerPortRange != "" {
			first, last, err := portRange(m.ContainerPortRange)
			if err != nil {
				return nil, err
			}
			p.Container, p.Range = first, last-first+1
		} else if m.ContainerPort < 1 || m.ContainerPort > 65535 || m.HostPort < 0 || m.HostPort > 65535 {
			return nil, fmt.Errorf("port mapping %d:%d is not one of ports", m.HostPort, m.ContainerPort)
		}
		out = append(out, p)
	}
	return out, nil
}

// portRange reads "8000-8010".
func portRange(s string) (first, last uint16, err error) {
	a, b, ok := strings.Cut(s, "-")
	f, ferr := strconv.ParseUint(a, 10, 16)
	l, lerr := strconv.ParseUint(b, 10, 16)
	if !ok || ferr != nil || lerr != nil || f == 0 || f > l {
		return 0, 0, fmt.Errorf("%q is not a range of ports", s)
	}
	return uint16(f), uint16(l), nil
}

// bindings are the published ports as the control plane is told of them.
func (c *Container) bindings() (out []ecs.NetworkBinding) {
	for _, p := range c.Ports {
		b := ecs.NetworkBinding{BindIP: new("0.0.0.0"), Protocol: ecs.TransportProtocol(p.Protocol)}
		if p.Range > 0 {
			b.ContainerPortRange = new(fmt.Sprintf("%d-%d", p.Container, p.Container+p.Range-1))
			b.HostPortRange = new(fmt.Sprintf("%d-%d", p.Host, p.Host+p.Range-1))
		} else {
			b.ContainerPort, b.HostPort = new(int32(p.Container)), new(int32(p.Host))
		}
		out = append(out, b)
	}
	return out
}

// link is another container of the task that one knows by a name of its own.
type link struct{ to, alias string }

func (c *Container) links() (out []link) {
	for _, l := range c.Def.Links {
		to, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = to
		}
		out = append(out, link{to, alias})
	}
	return out
}

// depend makes what a link implies a dependency: that the other has started.
func (c *Container) depend() {
	for _, l := range c.links() {
		if !slices.ContainsFunc(c.Def.DependsOn, func(d acs.ContainerDependency) bool { return d.ContainerName == l.to }) {
			c.Def.DependsOn = append(slices.Clone(c.Def.DependsOn), acs.ContainerDependency{ContainerName: l.to, Condition: acs.ConditionStart})
		}
	}
}

// linksReady reports whether the addresses of the containers that c links to
// are known.
func (t *Task) linksReady(c *Container) bool {
	for _, l := range c.links() {
		if to := t.Container(l.to); to != nil && to.Phase < Created {
			return false
		}
	}
	return true
}

// linkEnv is what Docker tells a container of those it links to, in its
// environment.
func (t *Task) linkEnv(c *Container) map[string]string {
	env := map[string]string{}
	for _, l := range c.links() {
		to := t.Container(l.to)
		if to == nil || to.Address == "" {
			continue
		}
		prefix := strings.ToUpper(strings.ReplaceAll(l.alias, "-", "_"))
		env[prefix+"_NAME"] = "/" + c.Def.Name + "/" + l.alias
		first := ""
		for _, p := range to.exposed() {
			port, protocol, _ := strings.Cut(p, "/")
			at := protocol + "://" + to.Address + ":" + port
			if first == "" {
				first = at
			}
			key := prefix + "_PORT_" + port + "_" + strings.ToUpper(protocol)
			env[key], env[key+"_ADDR"], env[key+"_PORT"], env[key+"_PROTO"] = at, to.Address, port, protocol
		}
		if first != "" {
			env[prefix+"_PORT"] = first
		}
		for k, v := range to.Def.Environment {
			env[prefix+"_ENV_"+k] = v
		}
	}
	return env
}

// exposed lists the ports that a container is known to listen on, "80/tcp".
func (c *Container) exposed() (out []string) {
	if c.Image != nil {
		out = append(out, c.Image.Config.ExposedPorts...)
	}
	for _, p := range c.Def.PortMappings {
		if p.ContainerPort > 0 {
			protocol := p.Protocol
			if protocol == "" {
				protocol = "tcp"
			}
			out = append(out, fmt.Sprintf("%d/%s", p.ContainerPort, protocol))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// bridgeNames are the name files of a container of the mode bridge, as Docker
// writes them.
func (t *Task) bridgeNames(c *Container, h host) (hostname string, resolv, hosts []byte, err error) {
	hostname = c.Config.Hostname
	if hostname == "" {
		hostname = shortID(c.RuntimeID)
	}
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	if err := extraHosts(&b, c.HostConfig.ExtraHosts); err != nil {
		return "", nil, nil, err
	}
	for _, l := range c.links() {
		if to := t.Container(l.to); to != nil && to.Address != "" {
			fmt.Fprintf(&b, "%s %s", to.Address, l.alias)
			if l.alias != l.to {
				fmt.Fprintf(&b, " %s", l.to)
			}
			fmt.Fprintf(&b, " %s\n", shortID(to.RuntimeID))
		}
	}
	fmt.Fprintf(&b, "%s %s\n", h.endpoint.Address, hostname)
	resolv, err = t.resolv(c, h)
	return hostname, resolv, []byte(b.String()), err
}

// resolv is the container's resolv.conf: the instance's, but for what its
// definition says.
func (t *Task) resolv(c *Container, h host) ([]byte, error) {
	own := []byte("nameserver 169.254.169.253\n") // every VPC's resolver has this address
	if h.instance != nil && h.instance.Resolv != nil {
		b, err := h.instance.Resolv()
		if err != nil {
			return nil, fmt.Errorf("resolv.conf of the instance: %w", err)
		}
		own = b
	}
	if len(c.HostConfig.DNS) == 0 && len(c.HostConfig.DNSSearch) == 0 {
		return own, nil
	}
	var b strings.Builder
	for line := range strings.Lines(string(own)) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "nameserver" && len(c.HostConfig.DNS) > 0 || (word == "search" || word == "domain") && len(c.HostConfig.DNSSearch) > 0 {
			continue
		}
		b.WriteString(line)
	}
	for _, a := range c.HostConfig.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(c.HostConfig.DNSSearch) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.HostConfig.DNSSearch, " "))
	}
	return []byte(b.String()), nil
}

func extraHosts(b *strings.Builder, entries []string) error {
	for _, e := range entries {
		// The address may be IPv6, so the first colon separates.
		name, addr, ok := strings.Cut(e, ":")
		if !ok {
			return fmt.Errorf("extra host %q is not host:address", e)
		}
		fmt.Fprintf(b, "%s %s\n", addr, name)
	}
	return nil
}

// shortID is the name that a container has for itself where none is given, in
// the form of Docker's.
func shortID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:6])
}
