package state

import (
	"fmt"
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
		u := t.uses(r)
		cpu, memory = cpu+u.cpu, memory+u.memory
		for name, list := range u.ports {
			ports[name] = append(ports[name], list...)
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

type uses struct {
	cpu, memory int
	ports       map[string][]string // by the name of the resource
}

// uses is what the task takes from its instance until it is STOPPED.
func (t *Task) uses(r store.Reader) uses {
	u := uses{ports: map[string][]string{}}
	cpu, memory := 0, 0
	for i := range t.Containers {
		c := &t.Containers[i]
		n, _ := strconv.Atoi(c.CPU)
		cpu += n
		m, err := strconv.Atoi(c.MemoryReservation)
		if err != nil || m == 0 {
			m, _ = strconv.Atoi(c.Memory)
		}
		memory += m
	}
	if n, err := strconv.Atoi(t.CPU); err == nil {
		cpu = n
	}
	if n, err := strconv.Atoi(t.Memory); err == nil {
		memory = n
	}
	u.cpu, u.memory = cpu, memory
	td, ok := TaskDefinitions.Get(r, t.TaskDefinition)
	if !ok || td.Doc.NetworkMode == ecs.NetworkModeAwsvpc || td.Doc.NetworkMode == ecs.NetworkModeNone {
		return u
	}
	for i := range td.Doc.ContainerDefinitions {
		for _, p := range td.Doc.ContainerDefinitions[i].PortMappings {
			if port := number(p.HostPort); port > 0 {
				name := "PORTS"
				if p.Protocol == ecs.TransportProtocolUdp {
					name = "PORTS_UDP"
				}
				u.ports[name] = append(u.ports[name], fmt.Sprint(port))
			}
		}
	}
	return u
}
