package engine

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/acs"
)

// An essential container that has ended is told of while another takes its
// time to stop: nobody has to wait for the whole task to learn its exit code.
// Only the report that the task runs comes first.
func TestEndedContainerIsToldWhileOthersStop(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	task, err := NewTask(acs.Task{Arn: "arn:aws:ecs:r:1:task/c/0a", Containers: []acs.Container{app("quick"), app("slow")}}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range task.Containers {
		c.Phase, c.CreatedAt, c.StartedAt = Running, now, now
	}
	task.Step(now)
	task.Apply(Outcome{Action: Action{Container: "quick"}, Exit: &runtime.Event{ExitCode: 3, ExitedAt: now.Add(time.Second)}})
	now = now.Add(2 * time.Second)
	task.Step(now)

	told := func() (status string, containers map[string]string) {
		t.Helper()
		in, _ := task.Report(now)
		if in == nil {
			return "", nil
		}
		containers = map[string]string{}
		for _, c := range in.Containers {
			containers[*c.ContainerName] = *c.Status
			if *c.Status == acs.StatusStopped && *c.ContainerName == "quick" && (c.ExitCode == nil || *c.ExitCode != 3) {
				t.Errorf("exit code %v", c.ExitCode)
			}
		}
		task.Accept(in)
		return *in.Status, containers
	}
	if status, cs := told(); status != acs.StatusRunning || cs["quick"] != acs.StatusRunning || cs["slow"] != acs.StatusRunning {
		t.Errorf("first %s %v", status, cs)
	}
	if status, cs := told(); status != acs.StatusRunning || cs["quick"] != acs.StatusStopped || len(cs) != 1 {
		t.Errorf("then %s %v", status, cs)
	}
	if status, cs := told(); status != "" {
		t.Errorf("told again: %s %v", status, cs)
	}
	task.Apply(Outcome{Action: Action{Container: "slow"}, Exit: &runtime.Event{ExitCode: 137, ExitedAt: now}})
	task.Step(now)
	task.Apply(Outcome{Action: Action{Op: Settle}, At: now})
	if status, cs := told(); status != acs.StatusStopped || cs["slow"] != acs.StatusStopped || len(cs) != 1 {
		t.Errorf("at last %s %v", status, cs)
	}
}

// Whatever a payload says, it becomes a task that can be stepped and compiled,
// or an error.
func FuzzNewTask(f *testing.F) {
	f.Add([]byte(`{"arn":"arn:aws:ecs:r:1:task/c/0a","containers":[{"name":"a","image":"i","essential":true,"dockerConfig":{"config":"{\"Healthcheck\":{\"Test\":[\"CMD\"]}}","hostConfig":"{\"Tmpfs\":{\"/t\":\"size=1k\"}}"}}]}`))
	f.Add([]byte(`{"arn":"x","containers":[{"name":"a","dependsOn":[{"containerName":"b","condition":"START"}]},{"name":"b","volumesFrom":[{"sourceContainer":"a"}]}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var def acs.Task
		if json.Unmarshal(payload, &def) != nil {
			return
		}
		now := time.Unix(1_000_000, 0)
		task, err := NewTask(def, now)
		if err != nil {
			task = Unrecognized(def, err, now)
		}
		task.Step(now)
		_ = task.unsupported()
		task.group()
		for _, c := range task.Containers {
			if s, err := task.spec(c, host{region: "r", volumes: "/v", shared: "/s"}); err == nil && s.Group != task.ID() {
				t.Errorf("container of group %q", s.Group)
			}
			parseSignal(c.Config.StopSignal)
			c.Phase, c.CreatedAt, c.StartedAt = Running, now, now
			c.healthcheck()
		}
		task.Step(now.Add(time.Hour))
		task.Report(now.Add(time.Hour))
		b, err := json.Marshal(task)
		if err != nil {
			t.Fatal(err)
		}
		if back := new(Task); decodeTask(b, back) != nil && task.Def.Arn != "" {
			t.Error("its checkpoint cannot be read")
		}
	})
}
