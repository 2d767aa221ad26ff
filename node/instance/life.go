package instance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/node/guest"
)

const (
	// stopGrace is how long an instance may take to shut down, a little more
	// than its first process gives the others.
	stopGrace = 25 * time.Second
	// goneGrace is the same for one that is terminated.
	goneGrace = 5 * time.Second
	// outputGrace is how long the output of an instance that has ended may go on.
	outputGrace = 2 * time.Second
	// consolePace is how often at most the console is told of.
	consolePace = 300 * time.Millisecond
)

// Phases of an instance, as they are written down.
const (
	phaseStarting = "starting" // the boot was begun; whether it runs the runtime knows
	phaseRunning  = "running"
	phaseEnded    = "ended"
	phaseAgain    = "again" // it ended, and is to be booted again by the same order
)

// record is what must outlive the node.
type record struct {
	Boots  int    `json:"boots"` // the boot that runs, or ran last
	Phase  string `json:"phase"`
	Ended  string `json:"ended,omitempty"`  // why it ended by itself
	Booted bool   `json:"booted,omitempty"` // user data has run, if it was to
	Pid    int    `json:"pid,omitempty"`
}

// instance is one instance's life on this machine.
type instance struct {
	m  *Manager
	id string

	kick  chan struct{}
	exits chan runtime.Event

	mu      sync.Mutex
	wanted  *fabric.Instance // nil: it is to go
	rec     record
	known   bool // there was a boot, or an attempt
	up      bool
	failure string
	console console

	// Of the goroutine of live alone.
	created bool
	readers sync.WaitGroup
	hangUp  func() // stops reading its output
	helper  *helper
}

func newInstance(m *Manager, id string) *instance {
	return &instance{m: m, id: id, kick: make(chan struct{}, 1), exits: make(chan runtime.Event, 8), hangUp: func() {}, console: console{changed: make(chan struct{}, 1)}}
}

func (i *instance) want(w *fabric.Instance) {
	i.mu.Lock()
	same := reflect.DeepEqual(i.wanted, w)
	i.wanted = w
	i.mu.Unlock()
	if !same {
		i.poke()
	}
}

func (i *instance) runsHere() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.up
}

func (i *instance) unwanted() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.wanted == nil
}

func (i *instance) poke() {
	select {
	case i.kick <- struct{}{}:
	default:
	}
}

// ended is told of each exit of the first process, perhaps more than once.
func (i *instance) ended(e runtime.Event) {
	select {
	case i.exits <- e:
	default: // the first of them is enough
	}
}

// status is what is so, if there is anything to say.
func (i *instance) status() (fabric.InstanceStatus, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := fabric.InstanceStatus{ID: i.id, State: fabric.InstanceStopped, Boots: i.rec.Boots, Ended: i.rec.Ended, Error: i.failure}
	if i.up {
		s.State = fabric.InstanceRunning
	}
	s.Console, s.ConsoleAt = i.console.text()
	return s, i.known
}

func (i *instance) report() {
	if s, ok := i.status(); ok {
		i.m.cfg.Report(s)
	}
}

func (i *instance) dir() string { return i.m.dir(i.id) }

// live keeps the instance as it is wanted, until it is gone or ctx ends.
func (i *instance) live(ctx context.Context, c Containers, found runtime.Container, there bool) {
	log := i.m.log.With("instance", i.id)
	defer i.readers.Wait()
	defer func() {
		if i.helper != nil {
			i.helper.close() // it waits; the next node starts it again
		}
	}()
	i.created = there
	i.recall(found, there)
	if i.up {
		i.listen(ctx, c)
	}
	i.report()
	var (
		again <-chan time.Time
		tell  <-chan time.Time
		tries int
	)
	for {
		i.mu.Lock()
		w := i.wanted
		rec, up := i.rec, i.up
		i.mu.Unlock()
		var err error
		worked := true
		switch {
		case w == nil:
			if err = i.remove(ctx, c); err == nil {
				i.m.cfg.Report(fabric.InstanceStatus{ID: i.id, State: fabric.InstanceGone, Boots: rec.Boots})
				return
			}
		case up && (!w.Run || w.Boots > rec.Boots):
			err = i.stop(ctx, c, stopGrace)
		case !up && w.Run && (w.Boots > rec.Boots || rec.Phase == phaseAgain):
			if !i.ready(w) {
				worked = false
				break // whoever makes it ready says so
			}
			err = i.boot(ctx, c, w)
		default:
			worked = false
			if up && rec.Booted {
				err = i.assist(ctx, w, rec)
			}
		}
		if ctx.Err() != nil {
			return
		}
		again = nil
		switch {
		case err != nil:
			log.Error("instance", "err", err, "again in", pace(tries))
			again = time.After(pace(tries))
			tries++
			i.fail(err)
			i.report()
		case worked:
			tries = 0
			i.fail(nil)
			i.report()
			continue
		default:
			if i.fail(nil) {
				i.report()
			}
		}
		select {
		case <-ctx.Done():
			return
		case e := <-i.exits:
			i.exited(ctx, c, e, false)
		case <-i.kick:
		case <-again:
		case <-i.console.changed:
			if tell == nil {
				tell = time.After(consolePace)
			}
		case <-tell:
			tell = nil
			i.keepConsole()
			i.report()
		}
	}
}

// fail notes what went wrong, and tells whether that is news.
func (i *instance) fail(err error) bool {
	text := ""
	if err != nil {
		text = err.Error()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	news := i.failure != text
	i.failure = text
	if err != nil {
		i.known = true
	}
	return news
}

// recall finds out what is so, from what was written down and what runs.
func (i *instance) recall(found runtime.Container, there bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.console.load(filepath.Join(i.dir(), "console"))
	b, err := os.ReadFile(filepath.Join(i.dir(), "state.json"))
	if err != nil || json.Unmarshal(b, &i.rec) != nil {
		i.rec = record{}
	}
	i.known = i.rec.Phase != ""
	i.up = there && found.Status == runtime.StatusRunning
	switch {
	case i.up:
		i.rec.Phase, i.rec.Pid = phaseRunning, found.Pid
	case i.rec.Phase == phaseRunning && there && found.Status == runtime.StatusExited:
		i.conclude(found.ExitCode)
	case i.rec.Phase == phaseRunning || i.rec.Phase == phaseStarting:
		// Machine or region ended under it.
		i.rec.Phase, i.rec.Ended = phaseAgain, ""
	}
}

// conclude says why it ended by itself. The caller holds mu.
func (i *instance) conclude(code int) {
	i.up = false
	i.rec.Booted, i.rec.Pid = false, 0
	switch code {
	case guest.Rebooting:
		i.rec.Phase, i.rec.Ended = phaseAgain, ""
	case guest.PoweredOff:
		i.rec.Phase, i.rec.Ended = phaseEnded, fabric.EndedInside
	default:
		i.rec.Phase, i.rec.Ended = phaseEnded, fabric.EndedCrash
	}
}

// save writes the record down.
func (i *instance) save() error {
	i.mu.Lock()
	b, err := json.Marshal(i.rec)
	i.mu.Unlock()
	if err != nil {
		return err
	}
	return replace(filepath.Join(i.dir(), "state.json"), b)
}

func replace(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// ready tells whether the first interface is there.
func (i *instance) ready(w *fabric.Instance) bool {
	_, err := os.Stat(filepath.Join(i.m.cfg.Netns, w.Interface+".ready"))
	return err == nil
}

// boot starts the instance: a new one, or again on the files it has.
func (i *instance) boot(ctx context.Context, c Containers, w *fabric.Instance) error {
	if err := c.CreateGroup(ctx, runtime.Group{Name: i.id, CPUPeriod: 100_000, CPUQuota: int64(w.CPU) * 100_000 / 1024, Memory: int64(w.Memory) << 20}); err != nil {
		return err
	}
	if !i.created {
		err := i.create(ctx, c, w)
		if errors.Is(err, errRootless) {
			i.m.log.Error("instance", "instance", i.id, "err", err)
			i.mu.Lock()
			i.rec, i.known = record{Boots: w.Boots, Phase: phaseEnded, Ended: fabric.EndedRootless}, true
			i.mu.Unlock()
			return i.save()
		}
		if err != nil {
			return err
		}
		i.created = true
	}
	i.mu.Lock()
	i.rec = record{Boots: w.Boots, Phase: phaseStarting}
	i.known = true
	i.mu.Unlock()
	if err := i.save(); err != nil {
		return err
	}
	for len(i.exits) > 0 { // of the boot before
		<-i.exits
	}
	pid, err := c.Start(ctx, i.id)
	if err != nil {
		i.mu.Lock()
		i.rec.Phase = phaseAgain
		i.mu.Unlock()
		return errors.Join(err, i.save())
	}
	i.mu.Lock()
	i.rec.Phase, i.rec.Pid, i.up = phaseRunning, pid, true
	i.mu.Unlock()
	i.listen(ctx, c)
	return i.save()
}

// create makes the container of a new instance.
func (i *instance) create(ctx context.Context, c Containers, w *fabric.Instance) error {
	// Until the container is there nothing tells that the image is needed.
	i.m.getting.RLock()
	defer i.m.getting.RUnlock()
	img, err := i.image(ctx, c, w)
	if err != nil {
		return err
	}
	b := guest.Boot{Instance: i.id, Hostname: w.Hostname, Nameservers: w.Nameservers, Search: w.Search, Parts: userData(w.UserData)}
	if w.Address.IsValid() {
		b.Address = w.Address.String()
	}
	env, err := b.Environment()
	if err != nil {
		return err
	}
	s := runtime.Spec{
		ID: i.id, Group: i.id, Image: img.Digest, Entrypoint: []string{guest.Init}, Env: env, User: "0:0", WorkingDir: "/",
		NetNS: filepath.Join(i.m.cfg.Netns, w.Interface), Hostname: w.Hostname, Bare: true, CgroupNS: true, CapAdd: []string{"NET_ADMIN"},
		Mounts: []runtime.Mount{{Kind: runtime.MountBind, Source: i.m.cfg.Guest, Target: guest.Init, ReadOnly: true, Options: []string{"nosuid", "nodev"}}},
	}
	if w.Agent {
		if err := os.MkdirAll(i.agentLog(), 0o755); err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, runtime.Mount{Kind: runtime.MountBind, Source: i.agentLog(), Target: "/var/log/ecs", ReadOnly: true, Options: []string{"nosuid", "nodev", "noexec"}})
	}
	err = c.Create(ctx, s)
	if errors.Is(err, runtime.ErrExists) {
		return nil // made by a node that was killed before it could say so
	}
	return err
}

func (i *instance) image(ctx context.Context, c Containers, w *fabric.Instance) (runtime.Image, error) {
	if w.Root == "" {
		return i.m.root(ctx, c)
	}
	i.m.mu.Lock()
	region := i.m.region
	i.m.mu.Unlock()
	return pull(ctx, c, w.Root, w.RootPassword, region)
}

// stop shuts the instance down and returns when it has ended.
func (i *instance) stop(ctx context.Context, c Containers, grace time.Duration) error {
	i.dismiss()
	tasks, err := i.tasks(ctx)
	if err != nil {
		return err
	}
	if tasks != nil {
		defer tasks.Close()
		if err := signalAll(ctx, tasks, syscall.SIGTERM); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, time.Minute}} {
		if err := c.Kill(ctx, i.id, s.sig); err != nil {
			return err
		}
		limit := time.NewTimer(s.wait)
		defer limit.Stop()
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return errEnded
			case e := <-i.exits:
				if i.exited(ctx, c, e, true); i.runsHere() {
					continue // it was of an earlier boot
				}
				if tasks != nil {
					return signalAll(ctx, tasks, syscall.SIGKILL)
				}
				return nil
			case <-limit.C:
				waiting = false
			}
		}
	}
	return fmt.Errorf("instance %s does not end", i.id)
}

// exited works in the end of the first process.
func (i *instance) exited(ctx context.Context, c Containers, e runtime.Event, asked bool) {
	i.mu.Lock()
	up, pid := i.up, i.rec.Pid
	i.mu.Unlock()
	if !up || e.Pid != 0 && e.Pid != pid {
		return // told before
	}
	if e.Pid == 0 && i.runs(ctx, c) {
		return // of a boot before, of which nobody knows the process any more
	}
	i.mu.Lock()
	i.conclude(e.ExitCode)
	if asked {
		i.rec.Phase, i.rec.Ended = phaseEnded, ""
	}
	i.mu.Unlock()
	// Its output has ended with it, unless somebody else got hold of it.
	late := time.AfterFunc(outputGrace, i.hangUp)
	i.readers.Wait()
	late.Stop()
	i.keepConsole()
	if err := i.save(); err != nil {
		i.m.log.Error("state of an instance not kept", "instance", i.id, "err", err)
	}
	if !asked {
		i.dismiss()
		if tasks, err := i.tasks(ctx); err == nil && tasks != nil {
			err = errors.Join(signalAll(ctx, tasks, syscall.SIGKILL), tasks.Close())
			if err != nil {
				i.m.log.Error("tasks of an instance that has ended", "instance", i.id, "err", err)
			}
		}
	}
	i.report()
}

// runs asks the runtime. What it cannot tell is taken for an end.
func (i *instance) runs(ctx context.Context, c Containers) bool {
	list, err := c.List(ctx, nil)
	return err == nil && slices.ContainsFunc(list, func(r runtime.Container) bool { return r.ID == i.id && r.Status == runtime.StatusRunning })
}

// signalAll sends a signal to every container of a runtime that runs.
func signalAll(ctx context.Context, c Containers, sig syscall.Signal) error {
	list, err := c.List(ctx, nil)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range list {
		if r.Status == runtime.StatusRunning {
			errs = append(errs, c.Kill(ctx, r.ID, sig))
		}
	}
	return errors.Join(errs...)
}

// tasks opens the runtime of the instance's tasks, or answers nil if there
// never was one.
func (i *instance) tasks(ctx context.Context) (Containers, error) {
	place := i.m.tasks(i.id)
	if _, err := os.Stat(place.Dir); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return i.m.cfg.Open(place)
}

// remove ends the instance and removes everything of it.
func (i *instance) remove(ctx context.Context, c Containers) error {
	i.mu.Lock()
	up := i.up
	i.mu.Unlock()
	if up {
		if err := i.stop(ctx, c, goneGrace); err != nil {
			return err
		}
	}
	i.dismiss()
	tasks, err := i.tasks(ctx)
	if err != nil {
		return err
	}
	if tasks != nil {
		err := tasks.Destroy(ctx)
		if err := errors.Join(err, tasks.Close()); err != nil {
			return fmt.Errorf("tasks of instance %s: %w", i.id, err)
		}
	}
	if err := c.Delete(ctx, i.id); err != nil {
		return err
	}
	i.created = false
	if err := i.m.clean(ctx, c); err != nil {
		return err
	}
	if err := i.m.removeGroup(ctx, i.id); err != nil {
		return err
	}
	if err := errors.Join(i.m.cfg.Unmount(i.m.passing(i.id)), os.RemoveAll(i.m.passing(i.id))); err != nil {
		return fmt.Errorf("mounts of instance %s: %w", i.id, err)
	}
	return os.RemoveAll(i.dir())
}

// listen reads what the instance says, until it has ended.
func (i *instance) listen(ctx context.Context, c Containers) {
	out, err := c.Output(ctx, i.id)
	if err != nil {
		i.m.log.Error("console of an instance", "instance", i.id, "err", err)
		return
	}
	i.hangUp = func() { out.Close() }
	stop := context.AfterFunc(ctx, i.hangUp)
	var both sync.WaitGroup
	both.Go(func() {
		buf := make([]byte, 8<<10)
		for {
			n, err := out.Stdout.Read(buf)
			i.console.write(buf[:n])
			if err != nil {
				return
			}
		}
	})
	both.Go(func() {
		readLines(out.Stderr, func(line string) {
			if line == guest.Ready {
				i.booted()
			} else if line != "" {
				i.console.write([]byte(line + "\r\n"))
			}
		})
	})
	i.readers.Go(func() {
		both.Wait()
		if stop() {
			out.Close()
		}
	})
}

// booted is the instance's word that its user data has run.
func (i *instance) booted() {
	i.mu.Lock()
	i.rec.Booted = i.up
	i.mu.Unlock()
	if err := i.save(); err != nil {
		i.m.log.Error("state of an instance not kept", "instance", i.id, "err", err)
	}
	i.poke()
}

func (i *instance) keepConsole() {
	i.mu.Lock()
	text, _ := i.console.text()
	i.mu.Unlock()
	if err := replace(filepath.Join(i.dir(), "console"), []byte(text)); err != nil {
		i.m.log.Error("console of an instance not kept", "instance", i.id, "err", err)
	}
}

// consoleSize is how much of a console is kept.
const consoleSize = 64 << 10

// console is the end of what was written to it.
type console struct {
	mu      sync.Mutex
	content []byte
	at      time.Time
	changed chan struct{}
}

func (c *console) write(b []byte) {
	if len(b) == 0 {
		return
	}
	c.mu.Lock()
	c.content = append(c.content, b...)
	if over := len(c.content) - consoleSize; over > 0 {
		c.content = append(c.content[:0], c.content[over:]...)
	}
	c.at = time.Now().UTC().Truncate(time.Millisecond)
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *console) text() (string, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.content), c.at
}

func (c *console) load(path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	st, err := os.Stat(path)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.content, c.at = b, st.ModTime().UTC().Truncate(time.Millisecond)
}
