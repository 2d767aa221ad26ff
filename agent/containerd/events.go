package containerd

import (
	"context"
	"crypto/rand"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/typeurl/v2"

	"github.com/berth-run/berth/agent/runtime"
)

const (
	topicExit = "/tasks/exit"
	// topicMark is our own: see subscribe.
	topicMark = "/berth/mark"
	// unknownExit is the exit code of a process whose end nobody saw, as
	// containerd and docker have it.
	unknownExit = 255
)

// Events implements runtime.Runtime.
func (r *Runtime) Events(ctx context.Context) <-chan runtime.Event {
	out := make(chan runtime.Event)
	go func() {
		defer close(out)
		const least, most = 20 * time.Millisecond, 2 * time.Second
		wait := least
		for ctx.Err() == nil {
			began := time.Now()
			// An error ends one subscription, not the stream: the daemon
			// has gone and comes back, and the next subscription begins
			// by looking at what happened meanwhile.
			_ = r.subscribe(ctx, out)
			if time.Since(began) > most {
				wait = least
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			wait = min(2*wait, most)
		}
	}()
	return out
}

// subscribe delivers events until the connection breaks. First it makes sure
// that the subscription is in force, then it reports all that have exited by
// now: whatever exits later is an event, so nothing falls in between.
//
// Containerd does not say when a subscription is in force. So we publish a
// mark until it comes back.
func (r *Runtime) subscribe(ctx context.Context, out chan<- runtime.Event) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	service := r.client.EventService()
	ns := `,namespace=="` + r.cfg.Namespace + `"`
	envelopes, errs := service.Subscribe(ctx, `topic=="`+topicExit+`"`+ns, `topic=="`+topicMark+`"`+ns)

	mark := rand.Text()
	publish := func() error {
		return service.Publish(ctx, topicMark, &apievents.ContainerDelete{ID: mark})
	}
	if err := publish(); err != nil {
		return err
	}
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	var early []runtime.Event
	for inForce := false; !inForce; {
		select {
		case e := <-envelopes:
			if e == nil {
				continue
			}
			if e.Topic == topicMark {
				var m apievents.ContainerDelete
				inForce = typeurl.UnmarshalTo(e.Event, &m) == nil && m.ID == mark
				continue
			}
			if ev, ok := r.exit(e.Event); ok {
				early = append(early, ev)
			}
		case <-again.C:
			if err := publish(); err != nil {
				return err
			}
		case err := <-errs:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	again.Stop()
	list, err := r.List(ctx, nil)
	if err != nil {
		return err
	}
	for _, c := range list {
		switch c.Status {
		case runtime.StatusExited:
			early = append(early, runtime.Event{ID: c.ID, ExitCode: c.ExitCode, ExitedAt: c.ExitedAt, OOMKilled: c.OOMKilled})
		case runtime.StatusUnknown:
			// It ran and is gone, and nobody knows how: its shim was
			// killed with the daemon, or the machine was restarted.
			if !c.StartedAt.IsZero() {
				early = append(early, runtime.Event{ID: c.ID, ExitCode: unknownExit, ExitedAt: time.Now()})
			}
		}
	}
	for _, e := range early {
		select {
		case out <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		select {
		case e := <-envelopes:
			if e == nil || e.Topic != topicExit {
				continue
			}
			ev, ok := r.exit(e.Event)
			if !ok {
				continue
			}
			select {
			case out <- ev:
			case <-ctx.Done():
				return ctx.Err()
			}
		case err := <-errs:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// exit reads an exit event; that of an exec'd process is not for the stream.
func (r *Runtime) exit(any typeurl.Any) (runtime.Event, bool) {
	var e apievents.TaskExit
	if typeurl.UnmarshalTo(any, &e) != nil || e.ID != e.ContainerID {
		return runtime.Event{}, false
	}
	if _, unfinished := r.creating.Load(e.ID); unfinished {
		return runtime.Event{}, false // of a try that is being undone
	}
	if _, ok := r.buried.get(exitKey{e.ID, int(e.Pid)}); ok {
		return runtime.Event{}, false
	}
	return r.event(e.ContainerID, int(e.Pid), int(e.ExitStatus), e.ExitedAt.AsTime()), true
}

func (r *Runtime) event(id string, pid, code int, at time.Time) runtime.Event {
	e := runtime.Event{ID: id, Pid: pid, ExitCode: code, ExitedAt: at}
	if group, ok := r.groupOf(id); ok {
		e.OOMKilled = r.cg.oomKills(r.cg.path(group, id)) > 0
	}
	return e
}
