package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/agent/runtime"
)

const (
	// tries is how often a call is made that the daemon does not live to
	// answer. Each waits for a daemon that serves.
	tries = 5
	// cleanUp bounds the removal of what a failed call began. What it does
	// not get to, the next agent's Ready does.
	cleanUp = 30 * time.Second
)

// interrupted tells whether a call failed for the daemon's sake, or for that of
// a process that died with it, so that it is worth being made again. Dials is
// the count of connections from before the call.
func (r *Runtime) interrupted(err error, dials int64) bool {
	text := err.Error()
	switch {
	case errors.Is(err, runtime.ErrUnavailable):
		return true
	case strings.Contains(text, "file exists") && strings.Contains(text, "io.containerd.runtime.v2.task"):
		return true // the bundle of an earlier daemon
	case strings.Contains(text, "container with given ID already exists"), strings.Contains(text, "container `") && strings.Contains(text, "` already exists"):
		return true // the OCI runtime's leavings from an earlier try
	case errors.Is(err, runtime.ErrInvalid), errors.Is(err, runtime.ErrExists), errors.Is(err, runtime.ErrNotFound):
		return false
	case r.dials.Load() != dials, errdefs.IsCanceled(err), shimGone(err):
		return true
	}
	// The shim's start was killed, with the daemon or instead of it.
	return strings.Contains(text, "signal: killed") || strings.HasSuffix(text, "EOF")
}

// exitKey is a process of a container.
type exitKey struct {
	id  string
	pid int
}

// bury marks a process as one whose exit is not for the stream.
func (r *Runtime) bury(id string, pid int) { r.buried.put(exitKey{id, pid}, true) }

// clear ends and removes what there is of a container's task without the
// daemon's knowledge: a daemon that is killed in the middle of making one leaves
// a shim that no daemon ever talks to, a half-made container of the OCI runtime
// with its paused process, and a bundle. Any of them is in the way of the next
// try. The caller holds the container's lock, and the daemon has said that it
// has no task of it.
func (r *Runtime) clear(ctx context.Context, id, group string) error {
	free, err := r.groups.alone(ctx, group)
	if err != nil {
		return err
	}
	defer free()
	serves, err := r.serving(ctx, id, group)
	if err != nil {
		return err
	}
	bury := func(pid int) { r.bury(id, pid) }
	if err := kill(ctx, func() ([]int, error) { return r.strays(id, serves) }, bury); err != nil {
		return fmt.Errorf("stray processes: %w", err)
	}
	cgroup := r.cg.path(group, id)
	if err := kill(ctx, func() ([]int, error) { return r.cg.processes(cgroup) }, bury); err != nil {
		return fmt.Errorf("stray processes: %w", err)
	}
	// Nothing of it runs any more, and its cgroup is the caller's to remove:
	// what the OCI runtime, whichever it was, has left is its own notes.
	if err := os.RemoveAll(filepath.Join(r.ociRoot(), id)); err != nil {
		return fmt.Errorf("notes of a half-made container: %w", err)
	}
	return r.removeBundles(id)
}

func (r *Runtime) removeBundles(id string) error {
	for _, bundle := range r.bundles(id) {
		if err := removeBundle(bundle); err != nil {
			return fmt.Errorf("remove half-made bundle: %w", err)
		}
	}
	return nil
}

// ociRoot is where the OCI runtime keeps the state of our containers.
func (r *Runtime) ociRoot() string { return filepath.Join(r.cfg.Dir, "oci", r.cfg.Namespace) }

// serving tells of a shim whether it answers for other containers of a group:
// then their processes are its children. What has ended has no parent any more;
// if the others have all ended, any shim may be theirs. Of one that is being
// made it cannot tell: the caller has the group alone.
func (r *Runtime) serving(ctx context.Context, id, group string) (func(shim int) bool, error) {
	if group == "" {
		return func(int) bool { return false }, nil
	}
	resp, err := r.tasks.List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, native(err)
	}
	parents, ended := map[int]bool{}, false
	for _, t := range resp.Tasks {
		if of, ok := r.groupOf(t.ID); !ok || of != group || t.ID == id {
			continue
		}
		switch t.Status {
		case task.Status_UNKNOWN:
		case task.Status_STOPPED:
			// One that is being undone is nobody's.
			if _, undone := r.creating.Load(t.ID); !undone {
				ended = true
			}
		default:
			if parent, ok := parentOf(int(t.Pid)); ok {
				parents[parent] = true
			}
		}
	}
	return func(shim int) bool { return parents[shim] || len(parents) == 0 && ended }, nil
}

// single ends the shims that earlier tries of a Create have left, when a later
// one has succeeded on another shim.
func (r *Runtime) single(ctx context.Context, id, group string) error {
	free, err := r.groups.alone(ctx, group)
	if err != nil {
		return err
	}
	defer free()
	got, err := r.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		return native(err)
	}
	own, ok := parentOf(int(got.Process.Pid))
	if !ok {
		return nil // it has ended; whose it was nobody can tell
	}
	others, err := r.serving(ctx, id, group)
	if err != nil {
		return err
	}
	serves := func(shim int) bool { return shim == own || others(shim) }
	return kill(ctx, func() ([]int, error) {
		pids, err := r.strays(id, serves)
		// Until it is started, the container's process may be the OCI
		// runtime's own: crun's is, by its arguments.
		return slices.DeleteFunc(pids, func(pid int) bool { return pid == int(got.Process.Pid) }), err
	}, nil)
}

// strays finds the processes that were started for a container by a daemon that
// is gone: `shim start`, the shim itself, unless it serves others of its group,
// and the OCI runtime. They say so in their arguments.
func (r *Runtime) strays(id string, serves func(shim int) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	address := strings.TrimPrefix(r.cfg.Address, "unix://")
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(b) == 0 {
			continue // gone, or the kernel's own
		}
		args := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
		last := args[len(args)-1]
		switch {
		case follows(args, "-namespace", r.cfg.Namespace) && follows(args, "-id", id) && follows(args, "-address", address):
			if last == "start" || last == "delete" || !serves(pid) {
				out = append(out, pid)
			}
		case follows(args, "--root", r.ociRoot()) && last == id:
			out = append(out, pid)
		}
	}
	return out, nil
}

// follows tells whether a flag is among the arguments with that value.
func follows(args []string, flag, value string) bool {
	for i := 1; i < len(args); i++ {
		if args[i-1] == flag && args[i] == value {
			return true
		}
	}
	return false
}

// kill kills the processes that find finds until it finds none: one that is
// being killed may just have started another. It tells note of each.
func kill(ctx context.Context, find func() ([]int, error), note func(pid int)) error {
	for {
		pids, err := find()
		if err != nil || len(pids) == 0 {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// A number may be another process by now: hold the processes that
		// have them, and see who of them is still found.
		held := map[int]int{}
		for _, pid := range pids {
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				held[pid] = fd
			}
		}
		still, err := find()
		for pid, fd := range held {
			if err == nil && slices.Contains(still, pid) {
				if note != nil {
					note(pid)
				}
				if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
					err = ended(ctx, fd)
				}
			}
			unix.Close(fd)
		}
		if err != nil {
			return err
		}
	}
}

// ended waits for the end of a process.
func ended(ctx context.Context, pidfd int) error {
	for {
		// The poll is cut into pieces only to see the end of ctx.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 100)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// bundles are the directories that the daemon has for a container's task. It
// keeps them beside its socket: ours in a directory of their own. One that it
// is about to remove gets a hidden name first, and keeps it if the daemon is
// killed just then; no later bundle can be removed with that in the way.
func (r *Runtime) bundles(id string) []string {
	beside := filepath.Dir(strings.TrimPrefix(r.cfg.Address, "unix://"))
	var out []string
	for _, state := range []string{filepath.Join(beside, "state"), beside} {
		for _, name := range []string{"." + id, id} {
			dir := filepath.Join(state, "io.containerd.runtime.v2.task", r.cfg.Namespace, name)
			if _, err := os.Lstat(dir); err == nil {
				out = append(out, dir)
			}
		}
	}
	return out
}

func removeBundle(dir string) error {
	if err := mount.UnmountRecursive(filepath.Join(dir, "rootfs"), 0); err != nil {
		return err
	}
	// An OCI runtime that lost the mount under its feet has made files in the
	// bare directory. One that is mounted again cannot be renamed: what is
	// removed here is never a container's root file system.
	gone := filepath.Join(dir, "gone")
	if err := os.Rename(filepath.Join(dir, "rootfs"), gone); err == nil {
		if err := os.RemoveAll(gone); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	work, err := os.Readlink(filepath.Join(dir, "work"))
	if err == nil {
		if err := os.RemoveAll(work); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// descendants are the processes below one.
func descendants(of int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, ok := parentOf(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	out := slices.Clone(children[of])
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}

func parentOf(pid int) (int, bool) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false
	}
	// The name, in parentheses, may have anything in it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 2 {
		return 0, false
	}
	parent, err := strconv.Atoi(fields[1])
	return parent, err == nil
}
