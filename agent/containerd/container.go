package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	taskstate "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/agent/runtime"
)

// Create implements runtime.Runtime. The daemon may be killed in the middle of
// it: then what was begun is removed, and it is all done again.
func (r *Runtime) Create(ctx context.Context, s runtime.Spec) error {
	if err := validName(s.ID); err != nil {
		return err
	}
	unlock, err := r.locks.lock(ctx, s.ID)
	if err != nil {
		return err
	}
	defer unlock()
	r.creating.Store(s.ID, true)
	defer r.creating.Delete(s.ID)

	begun := false
	for try := 1; ; try++ {
		dials := r.dials.Load()
		err = nil
		if begun {
			err = r.delete(ctx, s.ID)
		}
		if err == nil {
			var mine bool
			mine, err = r.create(ctx, s)
			begun = begun || mine
		}
		if err == nil && try > 1 {
			err = r.single(ctx, s.ID, s.Group)
		}
		if err == nil {
			return nil
		}
		if try == tries || ctx.Err() != nil || !r.interrupted(err, dials) {
			break
		}
	}
	if begun {
		// What a failed Create leaves would be found by nobody.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
		defer cancel()
		_ = r.delete(clean, s.ID)
	}
	if errors.Is(err, runtime.ErrInvalid) {
		return err // the user's own mistake, told in the words for it
	}
	return fmt.Errorf("create container %s: %w", s.ID, err)
}

// create tries it once. What it has begun when it fails is the caller's to
// remove; mine tells whether that is anything.
func (r *Runtime) create(ctx context.Context, s runtime.Spec) (mine bool, err error) {
	img, err := r.image(ctx, s.Image)
	if err != nil {
		return false, err
	}
	if err := r.claim(ctx, s.ID); err != nil {
		return false, err
	}

	// The root file system is prepared while the spec is made.
	var (
		root    []mount.Mount
		rootErr error
		wg      sync.WaitGroup
	)
	wg.Go(func() {
		root, rootErr = r.snaps.Prepare(ctx, s.ID, img.chain, snapshots.WithLabels(map[string]string{labelRoot: time.Now().UTC().Format(time.RFC3339)}))
	})
	spec, output, err := r.prepare(ctx, s, img, func() ([]mount.Mount, error) { wg.Wait(); return root, native(rootErr) })
	wg.Wait()
	if output != nil {
		r.outputs.Store(s.ID, output)
	}
	if rootErr != nil {
		err = fmt.Errorf("root file system: %w", native(rootErr))
	}
	if err != nil {
		return true, err
	}
	if err := r.fillVolumes(ctx, s.Mounts, root); err != nil {
		return true, err
	}
	profile, err := r.withFilter(spec)
	if err != nil {
		return true, err
	}
	record, err := r.record(s, spec)
	if err != nil {
		return true, err
	}
	if _, err := r.store.Create(ctx, record); err != nil {
		return true, native(err)
	}
	if err := r.createTask(ctx, s.ID, s.Group, spec.Process, root); err != nil {
		return true, err
	}
	r.keepFilter(profile, s.ID)
	r.process.put(s.ID, spec.Process)
	return true, nil
}

// claim makes the container's directory, which says that the id is taken. One
// that is there without a container is what an agent left that was killed in
// the middle of Create or Delete.
func (r *Runtime) claim(ctx context.Context, id string) error {
	err := os.Mkdir(r.dir(id), 0o711)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	switch _, err := r.store.Get(ctx, id); {
	case err == nil:
		return runtime.ErrExists
	case !errors.Is(native(err), runtime.ErrNotFound):
		return native(err)
	}
	if err := r.delete(ctx, id); err != nil {
		return err
	}
	return os.Mkdir(r.dir(id), 0o711)
}

// prepare computes the spec and makes the container's files.
func (r *Runtime) prepare(ctx context.Context, s runtime.Spec, img *image, root func() ([]mount.Mount, error)) (*specs.Spec, *runtime.Output, error) {
	for name, content := range generated(s) {
		if content == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(r.dir(s.ID), name), content, 0o644); err != nil {
			return nil, nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir(s.ID), "group"), []byte(s.Group), 0o600); err != nil {
		return nil, nil, err
	}
	output, err := r.makeOutput(s.ID)
	if err != nil {
		return nil, nil, err
	}
	name := first(s.User, img.public.Config.User)
	user, ok := r.users.get(userKey{s.Image, name})
	if !ok {
		mounts, err := root()
		if err != nil {
			return nil, output, err
		}
		if user, err = r.user(ctx, img, name, mounts); err != nil {
			return nil, output, err
		}
	}
	devices, err := devices(s.Devices)
	if err != nil {
		return nil, output, err
	}
	spec, err := compile(s, img.public.Config, place{
		cgroup: r.cg.path(s.Group, s.ID), dir: r.dir(s.ID), unified: r.cg.unified != "",
		user: user, devices: devices, init: r.cfg.InitPath, nofile: r.nofile,
	})
	return spec, output, err
}

func (r *Runtime) record(s runtime.Spec, spec *specs.Spec) (containers.Container, error) {
	any, err := typeurl.MarshalAny(spec)
	if err != nil {
		return containers.Container{}, err
	}
	opts, err := typeurl.MarshalAny(&options.Options{BinaryName: r.cfg.OCIRuntime, Root: filepath.Join(r.cfg.Dir, "oci")})
	if err != nil {
		return containers.Container{}, err
	}
	labels := map[string]string{labelGroup: s.Group, labelImage: s.Image}
	for k, v := range s.Labels {
		labels[k] = v
	}
	return containers.Container{
		ID: s.ID, Labels: labels, Image: s.Image, Snapshotter: snapshotter, SnapshotKey: s.ID,
		Runtime: containers.RuntimeInfo{Name: shimRuntime, Options: opts}, Spec: any,
	}, nil
}

// createTask runs the OCI runtime's create, in the shim.
func (r *Runtime) createTask(ctx context.Context, id, group string, p *specs.Process, root []mount.Mount) error {
	req := &tasks.CreateTaskRequest{ContainerID: id, Stdout: r.stdout(id), Stderr: r.stderr(id), Terminal: p.Terminal}
	if p.Terminal {
		req.Stderr = "" // a terminal has one stream
	}
	for _, m := range root {
		req.Rootfs = append(req.Rootfs, &apitypes.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	free, err := r.groups.among(ctx, group)
	if err != nil {
		return err
	}
	defer free()
	// The group's shim ends with the last container in it. One that is just
	// ending may still have answered the phone. And a daemon that was started
	// anew clears away behind its back what the last one left of a container;
	// the folder of the same one, made again meanwhile, may be among it.
	for range 3 {
		_, err = r.tasks.Create(ctx, req)
		if err = native(err); err == nil || !shimGone(err) {
			break
		}
	}
	return commandError(err, p.Args[0])
}

func shimGone(err error) bool {
	text := err.Error()
	return strings.Contains(text, "ttrpc: closed") || strings.Contains(text, "failed to create TTRPC connection") ||
		strings.Contains(text, "failed to start shim") && strings.Contains(text, "no such file or directory")
}

// commandError marks an OCI runtime's complaint about the process it was to
// start, command, as the spec's fault. What is wrong with a command is told in
// runc's words, whichever runtime says it: they are the ones that people know.
func commandError(err error, command string) error {
	if err == nil || !strings.Contains(err.Error(), "OCI runtime") {
		return err
	}
	for verb, prefix := range map[string]string{
		"OCI runtime create failed: ": "runc create failed: unable to start container process: exec: ",
		"OCI runtime exec failed: ":   "exec failed: unable to start container process: exec: ",
	} {
		before, what, found := strings.Cut(err.Error(), verb)
		words := ""
		switch {
		case !found:
		case strings.HasPrefix(what, "executable file `") && strings.HasPrefix(command, "/"):
			words = fmt.Sprintf("%q: stat %s: no such file or directory: unknown", command, command)
		case strings.HasPrefix(what, "executable file `"):
			words = fmt.Sprintf("%q: executable file not found in $PATH: unknown", command)
		case strings.HasPrefix(what, "open executable: Permission denied"):
			words = fmt.Sprintf("%q: permission denied: unknown", command)
		}
		if words != "" {
			err = errors.New(before + verb + prefix + words)
		}
	}
	return wrapped{err, runtime.ErrProcess}
}

// Start implements runtime.Runtime. If the daemon is killed in the middle of
// it, nobody knows whether the process was started; the next daemon does.
func (r *Runtime) Start(ctx context.Context, id string) (int, error) {
	unlock, err := r.locks.lock(ctx, id)
	if err != nil {
		return 0, err
	}
	defer unlock()
	unheard := false
	for try := 1; ; try++ {
		dials := r.dials.Load()
		pid, asked, err := r.start(ctx, id, unheard)
		if err == nil {
			return pid, nil
		}
		if try == tries || ctx.Err() != nil || !r.interrupted(err, dials) {
			return 0, fmt.Errorf("start container %s: %w", id, err)
		}
		unheard = unheard || asked
	}
}

// start tries it once. When it fails, asked tells whether the shim was asked to
// start a process that had not run yet. Unheard: it was asked so before, and
// the answer was lost.
func (r *Runtime) start(ctx context.Context, id string, unheard bool) (pid int, asked bool, err error) {
	fresh := startedAt(r.dir(id)).IsZero()
	pid, err = r.startTask(ctx, id)
	if err == nil || errors.Is(err, runtime.ErrUnavailable) || ctx.Err() != nil {
		return pid, fresh, err
	}
	// Not in the state to be started: running, exited, or never created.
	got, getErr := r.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id})
	switch {
	case getErr != nil && !errors.Is(native(getErr), runtime.ErrNotFound):
		return 0, fresh, native(getErr)
	case getErr == nil && got.Process.Status == taskstate.Status_RUNNING:
		if unheard || fresh {
			return int(got.Process.Pid), false, r.noteStart(id)
		}
		return int(got.Process.Pid), false, nil
	case getErr == nil && got.Process.Status != taskstate.Status_STOPPED:
		return 0, false, err
	case getErr == nil && unheard:
		// It was started, and has ended meanwhile: its exit says how.
		return int(got.Process.Pid), false, r.noteStart(id)
	case getErr == nil && fresh:
		return 0, false, err // its one and only start failed; that is what is to be told
	}
	if exit, ok := r.missed(id); ok && getErr != nil && unheard {
		return exit.Pid, false, r.noteStart(id)
	}
	if err := r.again(ctx, id); err != nil {
		return 0, false, err
	}
	pid, err = r.startTask(ctx, id)
	return pid, true, err
}

func (r *Runtime) startTask(ctx context.Context, id string) (int, error) {
	resp, err := r.tasks.Start(ctx, &tasks.StartRequest{ContainerID: id})
	if err != nil {
		return 0, commandError(native(err), "")
	}
	r.forgetMissed(id)
	return int(resp.Pid), r.noteStart(id)
}

// noteStart keeps when a container was started.
func (r *Runtime) noteStart(id string) error {
	return os.WriteFile(filepath.Join(r.dir(id), "started"), []byte(time.Now().UTC().Format(time.RFC3339Nano)), 0o600)
}

// again makes a new task of an exited container, on the same files.
func (r *Runtime) again(ctx context.Context, id string) error {
	record, err := r.store.Get(ctx, id)
	if err != nil {
		return native(err)
	}
	if _, err := r.tasks.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id}); err != nil {
		if err := native(err); !errors.Is(err, runtime.ErrNotFound) {
			return err
		}
		if err := r.clear(ctx, id, record.Labels[labelGroup]); err != nil {
			return err
		}
	}
	root, err := r.snaps.Mounts(ctx, record.SnapshotKey)
	if err != nil {
		return native(err)
	}
	var spec specs.Spec
	if err := typeurl.UnmarshalTo(record.Spec, &spec); err != nil {
		return err
	}
	r.dropOutput(id)
	output, err := r.makeOutput(id)
	if err != nil {
		return err
	}
	r.outputs.Store(id, output)
	return r.createTask(ctx, id, record.Labels[labelGroup], spec.Process, root)
}

// Kill implements runtime.Runtime.
func (r *Runtime) Kill(ctx context.Context, id string, sig syscall.Signal) error {
	_, err := r.tasks.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(sig)})
	if err = native(err); err == nil {
		return nil
	}
	if errors.Is(err, runtime.ErrNotFound) || errdefs.IsFailedPrecondition(err) {
		// "Not found" is a process that has ended as well as a container
		// that is not there.
		if _, getErr := r.store.Get(ctx, id); getErr == nil {
			return nil
		}
	}
	return fmt.Errorf("kill container %s: %w", id, err)
}

// Delete implements runtime.Runtime.
func (r *Runtime) Delete(ctx context.Context, id string) error {
	if err := validName(id); err != nil {
		return err
	}
	unlock, err := r.locks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if err := r.delete(ctx, id); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	return nil
}

func (r *Runtime) delete(ctx context.Context, id string) error {
	gone := func(err error) bool { return err == nil || errors.Is(err, runtime.ErrNotFound) }
	record, err := r.store.Get(ctx, id)
	if err = native(err); !gone(err) {
		return err
	}
	known := err == nil
	group, begun := r.groupOf(id)
	if known {
		group = record.Labels[labelGroup]
		kill := func() error {
			_, err := r.tasks.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(syscall.SIGKILL), All: true})
			if err = native(err); err != nil && !gone(err) && !errdefs.IsFailedPrecondition(err) {
				return err
			}
			if _, err := r.tasks.Wait(ctx, &tasks.WaitRequest{ContainerID: id}); !gone(native(err)) {
				return native(err)
			}
			return nil
		}
		if startedAt(r.dir(id)).IsZero() {
			// The shim would delete it as it is, and wait long for the
			// paused process to close its output.
			if err := kill(); err != nil {
				return err
			}
		}
		resp, err := r.tasks.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
		if err = native(err); !gone(err) {
			// It runs. Kill all of it, wait, and delete.
			if err := kill(); err != nil {
				return err
			}
			resp, err = r.tasks.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
			if err = native(err); !gone(err) {
				return err
			}
		}
		if _, undone := r.creating.Load(id); undone && err == nil {
			r.bury(id, int(resp.Pid))
		}
		if err != nil {
			// The daemon knows of no task, which is not to say that there
			// is none.
			err = r.clear(ctx, id, group)
		} else {
			// What it could not remove it has kept to itself.
			err = r.removeBundles(id)
		}
		if err != nil {
			return err
		}
		if err := native(r.store.Delete(ctx, id)); !gone(err) {
			return err
		}
	} else if begun {
		if err := r.clear(ctx, id, group); err != nil {
			return err
		}
	}
	if err := native(r.snaps.Remove(ctx, id)); !gone(err) {
		return err
	}
	r.dropOutput(id)
	r.process.drop(id)
	r.forgetMissed(id)
	if known || begun {
		if err := r.cg.remove(r.cg.path(group, id)); err != nil {
			return err
		}
	}
	return os.RemoveAll(r.dir(id))
}

// List implements runtime.Runtime.
func (r *Runtime) List(ctx context.Context, labels map[string]string) ([]runtime.Container, error) {
	var match []string
	for k, v := range labels {
		match = append(match, fmt.Sprintf("labels.%q==%q", k, v))
	}
	sort.Strings(match)
	var filters []string
	if len(match) > 0 {
		filters = []string{strings.Join(match, ",")}
	}
	records, err := r.store.List(ctx, filters...)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", native(err))
	}
	resp, err := r.tasks.List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", native(err))
	}
	byID := map[string]*taskstate.Process{}
	for _, t := range resp.Tasks {
		byID[t.ID] = t
	}
	var out []runtime.Container
	for _, record := range records {
		if record.Labels[labelImage] == "" {
			continue // somebody else's, in our namespace
		}
		if _, unfinished := r.creating.Load(record.ID); unfinished {
			continue
		}
		t := byID[record.ID]
		if t == nil {
			// The list leaves out a task whose shim did not answer in time,
			// which is not the end of it.
			got, err := r.tasks.Get(ctx, &tasks.GetRequest{ContainerID: record.ID})
			switch err := native(err); {
			case err == nil:
				t = got.Process
			case !errors.Is(err, runtime.ErrNotFound):
				return nil, fmt.Errorf("state of container %s: %w", record.ID, wrapped{err, runtime.ErrUnavailable})
			}
		}
		out = append(out, r.container(record, t))
	}
	return out, nil
}

func (r *Runtime) container(record containers.Container, t *taskstate.Process) runtime.Container {
	c := runtime.Container{
		ID: record.ID, Group: record.Labels[labelGroup], Image: record.Labels[labelImage],
		Labels: map[string]string{}, Status: runtime.StatusUnknown,
		CreatedAt: record.CreatedAt, StartedAt: startedAt(r.dir(record.ID)),
	}
	for k, v := range record.Labels {
		if k != labelGroup && k != labelImage {
			c.Labels[k] = v
		}
	}
	if t == nil {
		if e, ok := r.missed(c.ID); ok {
			c.Status, c.ExitCode, c.ExitedAt, c.OOMKilled = runtime.StatusExited, e.ExitCode, e.ExitedAt, e.OOMKilled
		}
		return c
	}
	switch t.Status {
	case taskstate.Status_CREATED:
		c.Status = runtime.StatusCreated
	case taskstate.Status_RUNNING, taskstate.Status_PAUSED, taskstate.Status_PAUSING:
		c.Status, c.Pid = runtime.StatusRunning, int(t.Pid)
	case taskstate.Status_STOPPED:
		c.Status, c.ExitCode, c.ExitedAt = runtime.StatusExited, int(t.ExitStatus), t.ExitedAt.AsTime()
		c.OOMKilled = r.cg.oomKills(r.cg.path(c.Group, c.ID)) > 0
	}
	return c
}

// startedAt reads when a container was last started; containerd does not keep
// it.
func startedAt(dir string) time.Time {
	b, err := os.ReadFile(filepath.Join(dir, "started"))
	if err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return time.Time{}
	}
	return t
}

// devices reads the kind and numbers of device nodes.
func devices(in []runtime.Device) ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	for _, d := range in {
		var st unix.Stat_t
		if err := unix.Stat(d.Host, &st); err != nil {
			return nil, fmt.Errorf("device %s: %v: %w", d.Host, err, runtime.ErrInvalid)
		}
		kind := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			kind = "c"
		case unix.S_IFBLK:
			kind = "b"
		default:
			return nil, fmt.Errorf("device %s is none: %w", d.Host, runtime.ErrInvalid)
		}
		mode := os.FileMode(st.Mode & 0o7777)
		out = append(out, specs.LinuxDevice{
			Path: first(d.Container, d.Host), Type: kind,
			Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
			FileMode: &mode, UID: new(st.Uid), GID: new(st.Gid),
		})
	}
	return out, nil
}

// fillVolumes makes the directories of volumes, and fills an empty one with
// what the image has at its target, as docker does.
func (r *Runtime) fillVolumes(ctx context.Context, mounts []runtime.Mount, root []mount.Mount) error {
	for _, m := range mounts {
		if m.Kind != runtime.MountVolume {
			continue
		}
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return fmt.Errorf("volume %s: %w", m.Target, err)
		}
		entries, err := os.ReadDir(m.Source)
		if err != nil {
			return fmt.Errorf("volume %s: %w", m.Target, err)
		}
		if len(entries) > 0 {
			continue
		}
		err = mount.WithReadonlyTempMount(ctx, root, func(dir string) error {
			from, err := fs.RootPath(dir, m.Target)
			if err != nil {
				return err
			}
			st, err := os.Stat(from)
			if err != nil || !st.IsDir() {
				return nil //nolint:nilerr // the image has nothing there
			}
			return fs.CopyDir(m.Source, from)
		})
		if err != nil {
			return fmt.Errorf("volume %s: %w", m.Target, err)
		}
	}
	return nil
}

const stopped = taskstate.Status_STOPPED

// groupOf tells a container's group. It is kept in its directory because an
// exit has to be judged without a call to containerd.
func (r *Runtime) groupOf(id string) (string, bool) {
	b, err := os.ReadFile(filepath.Join(r.dir(id), "group"))
	return string(b), err == nil
}

// isStopped recognises the shim's words for a process that has ended.
func isStopped(err error) bool {
	return errdefs.IsFailedPrecondition(err) || strings.Contains(err.Error(), "stopped") || strings.Contains(err.Error(), "not running")
}

// missed is an exit that the daemon was not there for, and that it wrote down
// when it came back.
func (r *Runtime) missed(id string) (runtime.Event, bool) {
	if r.cfg.Exits == "" {
		return runtime.Event{}, false
	}
	b, err := os.ReadFile(filepath.Join(r.cfg.Exits, r.cfg.Namespace, id))
	if err != nil {
		return runtime.Event{}, false
	}
	var exit struct {
		Pid, Code int
		ExitedAt  time.Time
	}
	if json.Unmarshal(b, &exit) != nil {
		return runtime.Event{}, false
	}
	return r.event(id, exit.Pid, exit.Code, exit.ExitedAt), true
}

func (r *Runtime) forgetMissed(id string) {
	if r.cfg.Exits != "" {
		_ = os.Remove(filepath.Join(r.cfg.Exits, r.cfg.Namespace, id))
	}
}

// sweep removes what belongs to no container: root file systems, directories
// and cgroups of Creates and Deletes that were cut short.
func (r *Runtime) sweep(ctx context.Context) error {
	records, err := r.store.List(ctx)
	if err != nil {
		return native(err)
	}
	have := map[string]bool{}
	for _, c := range records {
		have[c.ID] = true
	}
	orphans := map[string]bool{}
	err = r.snaps.Walk(ctx, func(_ context.Context, s snapshots.Info) error {
		if _, ours := s.Labels[labelRoot]; ours && s.Kind == snapshots.KindActive && !have[s.Name] {
			orphans[s.Name] = true
		}
		return nil
	})
	if err != nil {
		return native(err)
	}
	dirs, err := os.ReadDir(filepath.Join(r.cfg.Dir, "c"))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if !have[d.Name()] {
			orphans[d.Name()] = true
		}
	}
	var errs []error
	for id := range orphans {
		errs = append(errs, r.delete(ctx, id))
	}
	return errors.Join(errs...)
}
