package state

import (
	"maps"
	"slices"
	"strconv"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state/query"
)

// Attribute is the value of an instance's attribute.
func (c *ContainerInstance) Attribute(name string) (value string, ok bool) {
	for i := range c.Attributes {
		if str(c.Attributes[i].Name) == name {
			return str(c.Attributes[i].Value), true
		}
	}
	return "", false
}

// Query is what an expression can ask of the instance.
func (c *ContainerInstance) Query(r store.Reader) *query.Instance {
	q := &query.Instance{
		Attributes: map[string]string{}, AgentConnected: c.AgentConnected, AgentVersion: c.AgentVersion,
		EC2InstanceID: c.EC2InstanceID, RegisteredAt: c.RegisteredAt,
	}
	for i := range c.Attributes {
		q.Attributes[str(c.Attributes[i].Name)] = str(c.Attributes[i].Value)
	}
	groups := map[string]bool{}
	for t := range Tasks.By(r, "instance", c.ARN) {
		if t.LastStatus == Stopped {
			continue
		}
		groups[t.Group] = true
		if t.LastStatus == Running {
			q.RunningTasks++
		}
	}
	q.Groups = slices.Sorted(maps.Keys(groups))
	return q
}

// Remaining is what tasks leave of an instance's resources, in the order in
// which they are registered. Ports are those in use, not the free ones (facts:
// resource accounting).
func (c *ContainerInstance) Remaining(r store.Reader) []ecs.Resource {
	cpu, memory := 0, 0
	ports := map[string][]string{}
	for t := range Tasks.By(r, "instance", c.ARN) {
		if t.LastStatus == Stopped {
			continue
		}
		u := t.Uses(r)
		cpu, memory = cpu+u.CPU, memory+u.Memory
		for name, list := range map[string][]int{"PORTS": u.TCP, "PORTS_UDP": u.UDP} {
			for _, p := range list {
				ports[name] = append(ports[name], strconv.Itoa(p))
			}
		}
	}
	out := slices.Clone(c.Registered)
	for i := range out {
		switch name := str(out[i].Name); name {
		case "CPU":
			out[i].IntegerValue = new(int32(number(out[i].IntegerValue) - cpu))
		case "MEMORY":
			out[i].IntegerValue = new(int32(number(out[i].IntegerValue) - memory))
		case "PORTS", "PORTS_UDP":
			out[i].StringSetValue = append(slices.Clone(out[i].StringSetValue), ports[name]...)
		}
	}
	return out
}

// TaskUse is what a task takes of its instance until it is STOPPED.
type TaskUse struct {
	CPU, Memory int // units, MiB
	GPUs        int
	ENI         bool  // an interface of its own
	TCP, UDP    []int // host ports
}

// Uses is what the task takes of its instance (facts: resource accounting).
func (t *Task) Uses(r store.Reader) TaskUse {
	var u TaskUse
	for i := range t.Containers {
		c := &t.Containers[i]
		n, _ := strconv.Atoi(c.CPU) // numbers of this package's own making, as are those below
		u.CPU += n
		m, err := strconv.Atoi(c.MemoryReservation)
		if err != nil || m == 0 {
			m, _ = strconv.Atoi(c.Memory)
		}
		u.Memory += m
	}
	if n, err := strconv.Atoi(t.CPU); err == nil {
		u.CPU = n
	}
	if n, err := strconv.Atoi(t.Memory); err == nil {
		u.Memory = n
	}
	td, ok := TaskDefinitions.Get(r, t.TaskDefinition)
	if !ok {
		return u
	}
	u.ENI = td.Doc.NetworkMode == ecs.NetworkModeAwsvpc
	for i := range td.Doc.ContainerDefinitions {
		d := &td.Doc.ContainerDefinitions[i]
		for _, q := range d.ResourceRequirements {
			if q.Type == ecs.ResourceTypeGpu {
				n, _ := strconv.Atoi(str(q.Value))
				u.GPUs += n
			}
		}
		if u.ENI || td.Doc.NetworkMode == ecs.NetworkModeNone {
			continue
		}
		for _, p := range d.PortMappings {
			switch port := number(p.HostPort); {
			case port == 0:
			case p.Protocol == ecs.TransportProtocolUdp:
				u.UDP = append(u.UDP, port)
			default:
				u.TCP = append(u.TCP, port)
			}
		}
	}
	return u
}
