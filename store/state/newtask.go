package state

import (
	"fmt"
	"time"

	"github.com/berth-run/berth/aws/ecs"
)

// TaskSpec is what one new task is made of. RunTask and services build their
// tasks from it, so that a task looks the same whoever asked for it.
type TaskSpec struct {
	Region, Account      string
	Cluster              *Cluster
	Definition           *TaskDefinition
	ID                   string        // 32 hex digits
	NewID                func() string // ids of containers and attachments (UUIDs)
	Group, StartedBy     string
	Service, Deployment  string
	LaunchType           string
	CapacityProvider     string
	PlatformVersion      string
	PlatformFamily       string
	Overrides            *ecs.TaskOverride
	Network              *ecs.AwsVpcConfiguration
	EnableExecuteCommand bool
	Tags                 []Tag
	Now                  time.Time
}

// NewTask makes the task in its first state: PROVISIONING, wanted RUNNING.
func NewTask(s TaskSpec) *Task {
	doc := &s.Definition.Doc
	t := &Task{
		ARN:     fmt.Sprintf("arn:aws:ecs:%s:%s:task/%s/%s", s.Region, s.Account, s.Cluster.Name, s.ID),
		ID:      s.ID,
		Account: s.Account, Cluster: s.Cluster.ARN,
		TaskDefinition: s.Definition.ARN, Family: s.Definition.Family,
		Group: s.Group, StartedBy: s.StartedBy,
		Service: s.Service, Deployment: s.Deployment,
		LaunchType: s.LaunchType, CapacityProvider: s.CapacityProvider,
		PlatformVersion: s.PlatformVersion, PlatformFamily: s.PlatformFamily,
		Overrides: s.Overrides, Network: s.Network,
		EnableExecuteCommand: s.EnableExecuteCommand,
		Tags:                 s.Tags,
		LastStatus:           Provisioning, DesiredStatus: Running, Health: "UNKNOWN",
		Version: 1, CreatedAt: s.Now,
		RoleCredentialsID: s.NewID(), ExecutionRoleCredentialsID: s.NewID(),
	}
	t.CPU, t.Memory = str(doc.Cpu), str(doc.Memory)
	if doc.EphemeralStorage != nil && doc.EphemeralStorage.SizeInGiB != nil {
		t.EphemeralStorageGiB = int(*doc.EphemeralStorage.SizeInGiB)
	} else if s.LaunchType == "FARGATE" {
		t.EphemeralStorageGiB = 20
	}
	over := map[string]*ecs.ContainerOverride{}
	if o := s.Overrides; o != nil {
		if o.Cpu != nil {
			t.CPU = *o.Cpu
		}
		if o.Memory != nil {
			t.Memory = *o.Memory
		}
		if o.EphemeralStorage != nil && o.EphemeralStorage.SizeInGiB != nil {
			t.EphemeralStorageGiB = int(*o.EphemeralStorage.SizeInGiB)
		}
		for i := range o.ContainerOverrides {
			over[str(o.ContainerOverrides[i].Name)] = &o.ContainerOverrides[i]
		}
	}
	for i := range doc.ContainerDefinitions {
		d := &doc.ContainerDefinitions[i]
		c := Container{
			ARN:        fmt.Sprintf("arn:aws:ecs:%s:%s:container/%s/%s/%s", s.Region, s.Account, s.Cluster.Name, s.ID, s.NewID()),
			Name:       str(d.Name),
			Image:      str(d.Image),
			LastStatus: Pending,
			Health:     "UNKNOWN",
			Essential:  d.Essential == nil || *d.Essential,
		}
		cpu, memory, reservation := d.Cpu, d.Memory, d.MemoryReservation
		if o := over[c.Name]; o != nil {
			cpu, memory, reservation = first(o.Cpu, cpu), first(o.Memory, memory), first(o.MemoryReservation, reservation)
		}
		c.CPU = "0"
		if cpu != nil {
			c.CPU = fmt.Sprint(*cpu)
		}
		if memory != nil {
			c.Memory = fmt.Sprint(*memory)
		}
		if reservation != nil {
			c.MemoryReservation = fmt.Sprint(*reservation)
		}
		t.Containers = append(t.Containers, c)
	}
	if s.Network != nil {
		// As in AWS, a new attachment says only where it will be.
		t.Attachments = []Attachment{{ID: s.NewID(), Type: "ElasticNetworkInterface", Status: "PRECREATED",
			Details: []Detail{{"subnetId", ""}}}}
		if len(s.Network.Subnets) > 0 {
			t.Attachments[0].Details[0].Value = s.Network.Subnets[0]
		}
	}
	return t
}

// NetworkAttachment is the task's network interface attachment, nil outside awsvpc.
func (t *Task) NetworkAttachment() *Attachment {
	for i := range t.Attachments {
		if t.Attachments[i].Type == "ElasticNetworkInterface" {
			return &t.Attachments[i]
		}
	}
	return nil
}

// Detail is the value of a detail, "" if there is none.
func (a *Attachment) Detail(name string) string {
	for _, d := range a.Details {
		if d.Name == name {
			return d.Value
		}
	}
	return ""
}

// SetDetail sets a detail, appending it if it is new.
func (a *Attachment) SetDetail(name, value string) {
	for i := range a.Details {
		if a.Details[i].Name == name {
			a.Details[i].Value = value
			return
		}
	}
	a.Details = append(a.Details, Detail{name, value})
}

func str(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}
