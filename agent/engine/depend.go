package engine

import (
	"fmt"
	"time"

	"github.com/berth-run/berth/dispatch/acs"
)

// verdict says whether a container may start as far as its dependencies go.
type verdict struct {
	ok    bool
	never string    // why it never can; "" if it still may
	wake  time.Time // when the verdict can change without anything happening
}

// dependencies looks at what c waits for.
func (t *Task) dependencies(c *Container, now time.Time) verdict {
	v := verdict{ok: true}
	for _, d := range c.Def.DependsOn {
		dep := t.Container(d.ContainerName)
		if dep == nil {
			return verdict{never: fmt.Sprintf("dependency graph: container ordering dependency [%s] for target [%v] does not exist.", d.ContainerName, c)}
		}
		if met(dep, d.Condition) {
			continue
		}
		v.ok = false
		if dep.Phase == Stopped && d.Condition == acs.ConditionSuccess && dep.ExitCode != nil {
			return verdict{never: fmt.Sprintf("dependency graph: failed to resolve container ordering dependency [%v] for target [%v] as dependency did not exit successfully.", dep, c)}
		}
		if dep.Phase == Stopped {
			return verdict{never: fmt.Sprintf("dependency graph: failed to resolve container ordering dependency [%v] for target [%v] because dependency will never start", dep, c)}
		}
		if deadline := dep.startDeadline(d.Condition); !deadline.IsZero() {
			if !now.Before(deadline) {
				return verdict{never: fmt.Sprintf("dependency graph: container ordering dependency [%v] for target [%v] has timed out.", dep, c)}
			}
			v.wake = earlier(v.wake, deadline)
		}
	}
	return v
}

// met reports whether a container is as a dependant wants it.
func met(dep *Container, condition string) bool {
	switch condition {
	case acs.ConditionStart:
		// One that was started and is done already has been started.
		return dep.Phase == Running || dep.Phase == Stopped && !dep.StartedAt.IsZero()
	case acs.ConditionComplete:
		return dep.Phase == Stopped && dep.ExitCode != nil
	case acs.ConditionSuccess:
		return dep.Phase == Stopped && dep.ExitCode != nil && *dep.ExitCode == 0
	case acs.ConditionHealthy:
		return dep.Phase == Running && dep.Health.Status == acs.Healthy
	}
	return false
}

// startDeadline is when a dependency has taken too long to meet a condition.
// Zero: never, or it has not even begun.
func (c *Container) startDeadline(condition string) time.Time {
	if c.Def.StartTimeout <= 0 || c.StartedAt.IsZero() || condition == acs.ConditionStart {
		return time.Time{}
	}
	return c.StartedAt.Add(time.Duration(c.Def.StartTimeout) * time.Second)
}

// volumesReady reports whether the containers whose mounts c takes over have
// been created: only then their mounts are known.
func (t *Task) volumesReady(c *Container) bool {
	for _, v := range c.Def.VolumesFrom {
		if src := t.Container(v.SourceContainer); src != nil && src.Phase < Created {
			return false
		}
	}
	return true
}

// dependants reports whether a container that was started after c, because it
// depends on it, has not stopped yet: c must outlive it.
func (t *Task) dependants(c *Container) bool {
	for _, other := range t.Containers {
		if other == c || other.Phase == Stopped {
			continue
		}
		for _, d := range other.Def.DependsOn {
			if d.ContainerName == c.Def.Name {
				return true
			}
		}
	}
	return false
}

// checkDependencies refuses dependencies on what is not there and cycles.
func (t *Task) checkDependencies() error {
	const (
		unseen = iota
		open
		done
	)
	state := make(map[string]int, len(t.Containers))
	var visit func(c *Container) error
	visit = func(c *Container) error {
		switch state[c.Def.Name] {
		case done:
			return nil
		case open:
			return fmt.Errorf("container %s depends on itself", c.Def.Name)
		}
		state[c.Def.Name] = open
		need := make([]string, 0, len(c.Def.DependsOn)+len(c.Def.VolumesFrom))
		for _, d := range c.Def.DependsOn {
			need = append(need, d.ContainerName)
		}
		for _, v := range c.Def.VolumesFrom {
			need = append(need, v.SourceContainer)
		}
		for _, name := range need {
			dep := t.Container(name)
			if dep == nil {
				return fmt.Errorf("container %s depends on %s, which the task does not have", c.Def.Name, name)
			}
			if err := visit(dep); err != nil {
				return err
			}
		}
		state[c.Def.Name] = done
		return nil
	}
	for _, c := range t.Containers {
		if err := visit(c); err != nil {
			return err
		}
	}
	return nil
}

// String describes the container in dependency errors.
func (c *Container) String() string {
	s := fmt.Sprintf("%s(%s) (%v->RUNNING)", c.Def.Name, c.Def.Image, c.Phase)
	if c.ExitCode != nil {
		s += fmt.Sprintf(" - Exit: %d", *c.ExitCode)
	}
	return s
}

// earlier is the earlier of two times; zero is no time.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
