package engine

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/acs"
)

// world runs a task's actions in an invented world with a clock of its own:
// what is begun ends later, in any order, well or not.
type world struct {
	*rapid.T
	task    *Task
	now     time.Time
	begun   []Action
	started map[string]int // order of starts
	order   int
	top     map[string]Phase
	wake    time.Time
}

func (w *world) step() {
	for {
		desired := w.task.Desired
		do, wake := w.task.Step(w.now)
		if desired == Stopped && w.task.Desired != Stopped {
			w.Fatal("a task that was to stop is to run again")
		}
		w.wake = wake
		for _, a := range do {
			w.check(a)
			w.begun = append(w.begun, a)
		}
		w.monotonic()
		if len(do) == 0 {
			return
		}
	}
}

func (w *world) monotonic() {
	for _, c := range w.task.Containers {
		if c.Phase < w.top[c.Def.Name] {
			w.Fatalf("%s went from %v back to %v", c.Def.Name, w.top[c.Def.Name], c.Phase)
		}
		w.top[c.Def.Name] = c.Phase
	}
}

// check holds the rules about what may be begun when.
func (w *world) check(a Action) {
	for _, b := range w.begun {
		if b == a && a.Op != Kill {
			w.Fatalf("%v was begun twice at once", a)
		}
	}
	c := w.task.Container(a.Container)
	switch a.Op {
	case Start:
		if c.down {
			return
		}
		for _, d := range c.Def.DependsOn {
			if !met(w.task.Container(d.ContainerName), d.Condition) {
				w.Fatalf("%s starts before %s is %s", a.Container, d.ContainerName, d.Condition)
			}
		}
		if w.task.Desired == Stopped {
			w.Fatalf("%s starts in a task that is to stop", a.Container)
		}
		if !w.task.Network {
			w.Fatalf("%s starts before the task's network is there", a.Container)
		}
	case Create:
		if !w.task.Prepared || !w.task.Network && !w.task.Namespace {
			w.Fatalf("%s is created before the task's namespace is there", a.Container)
		}
	case Term, Kill:
		if w.task.Desired != Stopped {
			w.Fatalf("%s is stopped in a task that is to run", a.Container)
		}
		for _, o := range w.task.Containers {
			for _, d := range o.Def.DependsOn {
				if d.ContainerName == a.Container && o.Phase != Stopped {
					w.Fatalf("%s is stopped before %s, which depends on it", a.Container, o.Def.Name)
				}
			}
		}
	case Settle:
		for _, c := range w.task.Containers {
			if c.Phase != Stopped {
				w.Fatalf("the task settles while %s is %v", c.Def.Name, c.Phase)
			}
		}
	}
}

// finish ends one of the things that were begun.
func (w *world) finish(i int) {
	a := w.begun[i]
	w.begun = append(w.begun[:i], w.begun[i+1:]...)
	o := Outcome{Action: a, At: w.now}
	switch a.Op {
	case Enter, Attach, Prepare:
		if rapid.IntRange(0, 9).Draw(w.T, "fail") == 0 {
			o.Err = &TaskError{Reason: string(a.Op)}
		}
	case Pull, Create, Start:
		if rapid.IntRange(0, 9).Draw(w.T, "fail") == 0 {
			o.Err = &ContainerError{Name: "Cannot", Err: errors.New(string(a.Op))}
		}
		o.Image = runtime.Image{Digest: "sha256:1"}
		if a.Op == Start {
			w.order++
			o.Pid = w.order
			w.started[a.Container] = w.order
		}
	case Term, Kill:
		// A process may ignore SIGTERM, and SIGKILL may come to nothing once.
		if rapid.Bool().Draw(w.T, "heeds") {
			w.exit(w.task.Container(a.Container), 143)
		}
	case Probe:
		o.Probe = &runtime.ExecResult{ExitCode: rapid.IntRange(0, 1).Draw(w.T, "health")}
	}
	w.task.Apply(o)
	w.step()
}

func (w *world) exit(c *Container, code int) {
	if c.Phase != Running || c.down {
		return
	}
	w.now = w.now.Add(time.Millisecond)
	w.task.Apply(Outcome{Action: Action{Container: c.Def.Name}, At: w.now,
		Exit: &runtime.Event{Pid: c.Pid, ExitCode: code, ExitedAt: w.now}})
	w.step()
}

func drawTask(t *rapid.T) *Task {
	n := rapid.IntRange(1, 4).Draw(t, "containers")
	def := acs.Task{Arn: "arn:aws:ecs:r:1:task/c/0123456789abcdef0123456789abcdef", Family: "f", Version: "1", DesiredStatus: "RUNNING"}
	if rapid.Bool().Draw(t, "awsvpc") {
		def.ElasticNetworkInterfaces = []acs.ElasticNetworkInterface{{EC2ID: "eni-1"}}
	}
	for i := range n {
		c := acs.Container{Name: fmt.Sprint("c", i), Image: "i", Essential: i == 0 || rapid.Bool().Draw(t, "essential")}
		if rapid.Bool().Draw(t, "restart") {
			c.RestartPolicy = &acs.RestartPolicy{Enabled: true, RestartAttemptPeriod: 60}
		}
		c.StartTimeout = rapid.Int64Range(0, 60).Draw(t, "startTimeout")
		c.HealthCheckType = "docker"
		c.DockerConfig = &acs.DockerConfig{Config: `{"Healthcheck":{"Test":["CMD","x"]}}`}
		for j := range i {
			if rapid.IntRange(0, 2).Draw(t, "depends") == 0 {
				c.DependsOn = append(c.DependsOn, acs.ContainerDependency{ContainerName: fmt.Sprint("c", j),
					Condition: rapid.SampledFrom([]string{"START", "COMPLETE", "SUCCESS", "HEALTHY"}).Draw(t, "condition")})
			}
		}
		def.Containers = append(def.Containers, c)
	}
	task, err := NewTask(def, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// Whatever happens, and in whatever order: statuses only move forward,
// dependencies hold, and a task that is to stop ends stopped and settled.
func TestStepProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{T: t, task: drawTask(t), now: time.Unix(1000, 0), started: map[string]int{}, top: map[string]Phase{}}
		w.step()
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0, 1, 2:
				if len(w.begun) > 0 {
					w.finish(rapid.IntRange(0, len(w.begun)-1).Draw(t, "which"))
				}
			case 3:
				w.exit(rapid.SampledFrom(w.task.Containers).Draw(t, "exits"), rapid.IntRange(0, 1).Draw(t, "code"))
			case 4:
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second)
				w.step()
			case 5:
				if in, _ := w.task.Report(w.now); in != nil {
					before := w.task.Sent.Status
					w.task.Accept(in)
					if before == "STOPPED" || before == "RUNNING" && w.task.Sent.Status == "PENDING" {
						t.Fatalf("%s was told after %s", w.task.Sent.Status, before)
					}
				}
			}
		}
		w.task.Desired = Stopped
		w.step()
		for range 1000 {
			if w.task.Settled {
				break
			}
			if len(w.begun) > 0 {
				w.finish(0)
				continue
			}
			if w.wake.IsZero() {
				t.Fatalf("a stopping task waits for nothing: %+v", w.task.Containers)
			}
			w.now = w.wake
			w.step()
		}
		if !w.task.Settled {
			t.Fatal("a stopping task does not end")
		}
		ran := !w.task.RunningAt.IsZero()
		for range 10 {
			in, wake := w.task.Report(w.now)
			if in == nil && wake.IsZero() {
				break
			}
			if in == nil {
				w.now = wake
				continue
			}
			if *in.Status == "STOPPED" && ran && w.task.Sent.Status != "RUNNING" {
				t.Fatal("a task that ran is reported as stopped before it is reported as running")
			}
			w.task.Accept(in)
		}
		if w.task.Sent.Status != "STOPPED" {
			t.Fatalf("the last word is %q", w.task.Sent.Status)
		}
		for _, c := range w.task.Containers {
			if w.task.Sent.Containers[c.Def.Name] != "STOPPED" {
				t.Fatalf("nobody was told that %s stopped", c.Def.Name)
			}
		}
	})
}

func TestDependencyVerdicts(t *testing.T) {
	at := time.Unix(1000, 0)
	for _, c := range []struct {
		name      string
		dep       Container
		condition string
		ok        bool
		never     string
	}{
		{"start of none", Container{}, "START", false, ""},
		{"start of running", Container{Phase: Running, StartedAt: at}, "START", true, ""},
		{"start of stopped", Container{Phase: Stopped, StartedAt: at, ExitCode: new(1)}, "START", true, ""},
		{"start of one that never ran", Container{Phase: Stopped}, "START", false,
			"dependency graph: failed to resolve container ordering dependency [dep(i) (STOPPED->RUNNING)] for target [target(i) (NONE->RUNNING)] because dependency will never start"},
		{"complete", Container{Phase: Stopped, StartedAt: at, ExitCode: new(1)}, "COMPLETE", true, ""},
		{"success", Container{Phase: Stopped, StartedAt: at, ExitCode: new(0)}, "SUCCESS", true, ""},
		{"no success", Container{Phase: Stopped, StartedAt: at, ExitCode: new(3)}, "SUCCESS", false,
			"dependency graph: failed to resolve container ordering dependency [dep(i) (STOPPED->RUNNING) - Exit: 3] for target [target(i) (NONE->RUNNING)] as dependency did not exit successfully."},
		{"not healthy yet", Container{Phase: Running, StartedAt: at, Health: Health{Status: "UNKNOWN"}}, "HEALTHY", false, ""},
		{"unhealthy may recover", Container{Phase: Running, StartedAt: at, Health: Health{Status: "UNHEALTHY"}}, "HEALTHY", false, ""},
		{"healthy", Container{Phase: Running, StartedAt: at, Health: Health{Status: "HEALTHY"}}, "HEALTHY", true, ""},
		{"too late", Container{Phase: Running, StartedAt: at.Add(-time.Minute), Def: acs.Container{StartTimeout: 60}}, "COMPLETE", false,
			"dependency graph: container ordering dependency [dep(i) (RUNNING->RUNNING)] for target [target(i) (NONE->RUNNING)] has timed out."},
		{"not yet too late", Container{Phase: Running, StartedAt: at.Add(-59 * time.Second), Def: acs.Container{StartTimeout: 60}}, "COMPLETE", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dep := c.dep
			dep.Def.Name, dep.Def.Image = "dep", "i"
			target := &Container{Def: acs.Container{Name: "target", Image: "i", DependsOn: []acs.ContainerDependency{{ContainerName: "dep", Condition: c.condition}}}}
			task := &Task{Containers: []*Container{&dep, target}}
			v := task.dependencies(target, at)
			if v.ok != c.ok || v.never != c.never {
				t.Errorf("got ok=%v never=%q\nwant ok=%v never=%q", v.ok, v.never, c.ok, c.never)
			}
		})
	}
}

func TestNewTaskRefuses(t *testing.T) {
	dep := func(on string) []acs.ContainerDependency {
		return []acs.ContainerDependency{{ContainerName: on, Condition: "START"}}
	}
	arn := "arn:aws:ecs:r:1:task/c/1"
	for want, def := range map[string]acs.Task{
		"task has no arn":                                        {},
		"task has no containers":                                 {Arn: arn},
		"two containers are named a":                             {Arn: arn, Containers: []acs.Container{{Name: "a"}, {Name: "a"}}},
		"container a depends on b, which the task does not have": {Arn: arn, Containers: []acs.Container{{Name: "a", DependsOn: dep("b")}}},
		"container a depends on itself":                          {Arn: arn, Containers: []acs.Container{{Name: "a", DependsOn: dep("b")}, {Name: "b", DependsOn: dep("a")}}},
		`task arn "arn:aws:ecs:r:1:task/c/.." has no id`:         {Arn: "arn:aws:ecs:r:1:task/c/..", Containers: []acs.Container{{Name: "a"}}},
	} {
		if _, err := NewTask(def, time.Now()); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func FuzzDecodeTask(f *testing.F) {
	f.Add([]byte(`{"Def":{"arn":"a/1","containers":null},"Desired":"RUNNING","Containers":[{"Def":{"name":"x"},"Phase":"RUNNING"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		task := new(Task)
		if decodeTask(b, task) != nil {
			return
		}
		task.Adopt(nil, time.Unix(1, 0))
		for range 5 {
			task.Step(time.Unix(2, 0))
			task.Report(time.Unix(3, 0))
		}
	})
}
