package settle

import (
	"context"
	"testing"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const arn, eni = "task/1", "eni-1"

// settled applies the plan that a change of task and interface leads to, and
// the plan for everything, which must come to the same.
func settled(t *testing.T, task state.Task, e *state.NetworkInterface) (*state.Task, *state.NetworkInterface) {
	t.Helper()
	task.ARN = arn
	task.Containers = []state.Container{{Name: "web", LastStatus: state.Pending}}
	if task.Attachments == nil {
		task.Attachments = []state.Attachment{{ID: "a", Type: "ElasticNetworkInterface", Status: "ATTACHING"}}
	}
	var texts [2]*state.Task
	var interfaces [2]*state.NetworkInterface
	for i, all := range []bool{true, false} {
		db := store.OpenMemory()
		defer db.Close()
		w := db.Watch(Controller.Reads...)
		defer w.Close()
		if _, _, err := w.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := db.Update(t.Context(), func(tx *store.Tx) error {
			state.Tasks.Put(tx, task.Clone())
			if e != nil {
				x := *e
				x.ID, x.Task = eni, arn
				state.NetworkInterfaces.Put(tx, &x)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		snap, changed, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p := Plan(control.Input{Read: snap, Changed: changed, All: all, Now: now})
		if ok, err := control.Apply(context.Background(), db, p); !ok || err != nil {
			t.Fatalf("apply: %v %v", ok, err)
		}
		texts[i], _ = state.Tasks.Get(db.Snapshot(), arn)
		interfaces[i], _ = state.NetworkInterfaces.Get(db.Snapshot(), eni)
	}
	if texts[0].LastStatus != texts[1].LastStatus || texts[0].DesiredStatus != texts[1].DesiredStatus ||
		(interfaces[0] != nil && interfaces[0].Deleting) != (interfaces[1] != nil && interfaces[1].Deleting) {
		t.Errorf("for all: %+v, for the change: %+v", texts[0], texts[1])
	}
	return texts[0], interfaces[0]
}

func TestTasksThatCanStillRunAreLeftAlone(t *testing.T) {
	network := &ecs.AwsVpcConfiguration{Subnets: []string{"s"}}
	for name, task := range map[string]state.Task{
		"waiting":          {LastStatus: state.Provisioning, DesiredStatus: state.Running, Network: network},
		"placed":           {LastStatus: state.Provisioning, DesiredStatus: state.Running, Network: network, Instance: "ci"},
		"with interface":   {LastStatus: state.Provisioning, DesiredStatus: state.Running, Network: network, Instance: "ci", ENI: eni},
		"running":          {LastStatus: state.Running, DesiredStatus: state.Running, Network: network, Instance: "ci", ENI: eni},
		"told to stop":     {LastStatus: state.Stopping, DesiredStatus: state.Stopped, Network: network, Instance: "ci", ENI: eni},
		"waits for kernel": {LastStatus: state.Deprovisioning, DesiredStatus: state.Stopped, Network: network, Instance: "ci", ENI: eni},
	} {
		var e *state.NetworkInterface
		if task.ENI != "" {
			e = &state.NetworkInterface{Node: "n", Attached: true, Deleting: task.LastStatus == state.Deprovisioning}
		}
		got, _ := settled(t, task, e)
		if got.LastStatus != task.LastStatus || got.DesiredStatus != task.DesiredStatus {
			t.Errorf("%s: now %s, wanted %s", name, got.LastStatus, got.DesiredStatus)
		}
	}
}

func TestStoppedBeforeAnybodyHadIt(t *testing.T) {
	network := &ecs.AwsVpcConfiguration{Subnets: []string{"s"}}
	for name, task := range map[string]state.Task{
		"not placed":        {LastStatus: state.Provisioning, DesiredStatus: state.Stopped, Network: network},
		"without interface": {LastStatus: state.Provisioning, DesiredStatus: state.Stopped, Network: network, Instance: "ci"},
		"interface is gone": {LastStatus: state.Deprovisioning, DesiredStatus: state.Stopped, Network: network, Instance: "ci", ENI: eni},
	} {
		got, _ := settled(t, task, nil)
		if got.LastStatus != state.Stopped || !got.StoppedAt.Equal(now) || got.Containers[0].LastStatus != state.Stopped || got.Attachments[0].Status != "DELETED" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	failed := []state.Attachment{{ID: "a", Type: "ElasticNetworkInterface", Status: "FAILED"}}
	got, _ := settled(t, state.Task{LastStatus: state.Provisioning, DesiredStatus: state.Stopped, Network: network, Attachments: failed}, nil)
	if got.LastStatus != state.Stopped || got.Attachments[0].Status != "FAILED" {
		t.Errorf("a failed attachment: %+v", got)
	}
}

func TestFailedInterface(t *testing.T) {
	got, e := settled(t, state.Task{LastStatus: state.Provisioning, DesiredStatus: state.Running, Instance: "ci", ENI: eni}, &state.NetworkInterface{Failure: "no such device"})
	if got.DesiredStatus != state.Stopped || got.StopCode != "TaskFailedToStart" || got.StoppedReason != "ResourceInitializationError: network interface eni-1: no such device" ||
		got.Attachments[0].Status != "FAILED" || got.LastStatus != state.Provisioning || e.Deleting {
		t.Errorf("%+v, interface %+v", got, e)
	}
	// One that runs has its interface; what the node could not do later does not end it.
	if got, _ := settled(t, state.Task{LastStatus: state.Running, DesiredStatus: state.Running, Instance: "ci", ENI: eni}, &state.NetworkInterface{Failure: "x"}); got.DesiredStatus != state.Running {
		t.Errorf("%+v", got)
	}
}

func TestInterfaceGoesWithItsTask(t *testing.T) {
	if _, e := settled(t, state.Task{LastStatus: state.Deprovisioning, DesiredStatus: state.Stopped, ENI: eni}, &state.NetworkInterface{Attached: true}); !e.Deleting {
		t.Error("the interface of a task that ended stays")
	}
	db := store.OpenMemory()
	defer db.Close()
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: "orphan", Task: "gone"})
		state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: "own", Task: ""})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	p := Plan(control.Input{Read: db.Snapshot(), All: true, Now: now})
	if ok, err := control.Apply(t.Context(), db, p); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if e, _ := state.NetworkInterfaces.Get(db.Snapshot(), "orphan"); !e.Deleting {
		t.Error("an interface without its task stays")
	}
	if e, _ := state.NetworkInterfaces.Get(db.Snapshot(), "own"); e.Deleting {
		t.Error("an interface that is no task's goes")
	}
}

// TestHostGone: the tasks of an instance that was stopped or terminated end in
// AWS's words; one that was terminated is deregistered, one that runs is left alone.
func TestHostGone(t *testing.T) {
	for _, c := range []struct{ state, status, reason string }{
		{"running", "ACTIVE", ""}, {"stopping", "ACTIVE", ""},
		{"stopped", "ACTIVE", "Host EC2 (instance i-1) stopped."},
		{"terminated", "INACTIVE", "Host EC2 (instance i-1) terminated."},
	} {
		db := store.OpenMemory()
		defer db.Close()
		if err := db.Update(t.Context(), func(tx *store.Tx) error {
			state.Instances.Put(tx, &state.Instance{ID: "i-1", State: c.state})
			state.ContainerInstances.Put(tx, &state.ContainerInstance{ARN: "ci", EC2InstanceID: "i-1", Status: "ACTIVE", AgentConnected: true})
			state.Tasks.Put(tx, &state.Task{ARN: "plain", Instance: "ci", LastStatus: state.Running, DesiredStatus: state.Running, Containers: []state.Container{{Name: "a", LastStatus: state.Running}}})
			state.Tasks.Put(tx, &state.Task{ARN: "eni", Instance: "ci", ENI: "eni-1", LastStatus: state.Pending, DesiredStatus: state.Running})
			state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: "eni-1", Task: "eni", Attached: true})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			p := Plan(control.Input{Read: db.Snapshot(), All: true, Now: now})
			if ok, err := control.Apply(t.Context(), db, p); !ok || err != nil {
				t.Fatalf("%s: apply: %v %v", c.state, ok, err)
			}
		}
		r := db.Snapshot()
		plain, _ := state.Tasks.Get(r, "plain")
		with, _ := state.Tasks.Get(r, "eni")
		e, _ := state.NetworkInterfaces.Get(r, "eni-1")
		ci, _ := state.ContainerInstances.Get(r, "ci")
		if ci.Status != c.status || plain.StoppedReason != c.reason || with.StoppedReason != c.reason {
			t.Errorf("%s: instance %s, tasks %q and %q", c.state, ci.Status, plain.StoppedReason, with.StoppedReason)
		}
		if gone := c.reason != ""; gone != (plain.LastStatus == state.Stopped && plain.StopCode == "TerminationNotice" && plain.Containers[0].LastStatus == state.Stopped) ||
			gone != (with.LastStatus == state.Deprovisioning && e.Deleting) {
			t.Errorf("%s: %+v, %+v, %+v", c.state, plain, with, e)
		}
	}
}
