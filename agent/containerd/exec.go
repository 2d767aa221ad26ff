package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/berth-run/berth/agent/runtime"
)

const (
	defaultExecOutput = 4 << 10
	// execDrain is how long output is waited for after an exec'd process has
	// exited: a grandchild may hold its pipes for ever.
	execDrain = 2 * time.Second
	// execCleanUp bounds the way out of an exec whose caller has gone.
	execCleanUp = 10 * time.Second
)

// Exec implements runtime.Runtime.
func (r *Runtime) Exec(ctx context.Context, id string, e runtime.Exec) (res runtime.ExecResult, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("exec in %s: %w", id, err)
		}
	}()
	if err := validName(id); err != nil {
		return res, err
	}
	process, err := r.execProcess(ctx, id, e)
	if err != nil {
		return res, err
	}
	any, err := typeurl.MarshalAny(process)
	if err != nil {
		return res, err
	}
	execID := "x" + rand.Text()[:12]
	// Both streams into one pipe; which of two lines comes first the shim
	// decides.
	pipe := filepath.Join(r.dir(id), execID)
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return res, runtime.ErrNotFound
		}
		return res, err
	}
	f, err := openPipe(pipe)
	if err != nil {
		return res, errors.Join(err, os.Remove(pipe))
	}
	kept := &bounded{limit: e.Limit}
	if e.Limit == 0 {
		kept.limit = defaultExecOutput
	}
	x := &execution{r: r, container: id, id: execID, pipe: pipe, f: f}
	late, cancel := r.outlast(ctx)
	defer cancel()
	_, err = r.tasks.Exec(late, &tasks.ExecProcessRequest{
		ContainerID: id, ExecID: execID, Stdout: pipe, Stderr: pipe,
		Spec: &anypb.Any{TypeUrl: any.GetTypeUrl(), Value: any.GetValue()},
	})
	if err != nil {
		err = notRunning(native(err))
		if late.Err() == nil && !errors.Is(err, runtime.ErrUnavailable) {
			x.close() // there is none
		} else {
			x.abandon(0)
		}
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		return res, err
	}
	if ctx.Err() != nil {
		x.abandon(0)
		return res, ctx.Err()
	}
	started, err := r.tasks.Start(late, &tasks.StartRequest{ContainerID: id, ExecID: execID})
	if err != nil {
		x.abandon(0)
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		return res, commandError(notRunning(native(err)), process.Args[0])
	}
	drained := make(chan struct{})
	go func() { // ends with f
		defer close(drained)
		_, _ = io.Copy(kept, f)
	}()
	exit, err := r.tasks.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: execID})
	if err != nil {
		x.abandon(int(started.Pid))
		<-drained
		// Say what it said until then; a health check shows it.
		res.Output, res.Truncated = kept.take()
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		return res, native(err)
	}
	patience := time.NewTimer(execDrain)
	defer patience.Stop()
	select {
	case <-drained:
		x.delete()
	case <-patience.C:
		x.later()
	case <-ctx.Done():
		x.later()
	}
	<-drained
	res.ExitCode = int(exit.ExitStatus)
	res.Output, res.Truncated = kept.take()
	return res, nil
}

// outlast is a context for making and starting a process. It goes on when ctx
// ends: the process may be there, and have started others, long before the answer
// is, and without the answer nobody knows of it. One that does not come holds
// the caller up for execCleanUp and no longer.
func (r *Runtime) outlast(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(r.life)
	stop := context.AfterFunc(ctx, func() { // ends with late
		patience := time.NewTimer(execCleanUp)
		defer patience.Stop()
		select {
		case <-patience.C:
			cancel()
		case <-late.Done():
		}
	})
	return late, func() { stop(); cancel() }
}

// execution is an exec'd process and what has to be removed of it.
type execution struct {
	r             *Runtime
	container, id string
	pipe, input   string // input "" if it has none
	f             *os.File
}

// abandon ends a process that nobody waits for any more, with those that it
// started: the shim would wait for them while they hold its output. Pid is zero
// if it is not known to run.
func (x *execution) abandon(pid int) {
	if pid != 0 {
		x.r.killTree(x.container, pid)
	}
	x.later()
}

// later removes it while the caller goes on: what the process left running may
// hold that up.
func (x *execution) later() {
	x.f.Close()
	x.r.after.Go(x.delete)
}

func (x *execution) delete() {
	ctx, cancel := context.WithTimeout(x.r.life, execCleanUp)
	defer cancel()
	del := func() error {
		_, err := x.r.tasks.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: x.container, ExecID: x.id})
		return native(err)
	}
	if err := del(); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		// It runs. If it was started and the answer lost, that it does, and as
		// which process, is only known from here.
		if now, err := x.r.tasks.Get(ctx, &tasks.GetRequest{ContainerID: x.container, ExecID: x.id}); err == nil && now.GetProcess().GetPid() != 0 {
			x.r.killTree(x.container, int(now.GetProcess().GetPid()))
		}
		_, _ = x.r.tasks.Kill(ctx, &tasks.KillRequest{ContainerID: x.container, ExecID: x.id, Signal: uint32(syscall.SIGKILL)})
		_, _ = x.r.tasks.Wait(ctx, &tasks.WaitRequest{ContainerID: x.container, ExecID: x.id})
		_ = del()
	}
	x.close()
}

func (x *execution) close() {
	x.f.Close()
	x.remove()
}

// remove removes the pipes.
func (x *execution) remove() {
	_ = os.Remove(x.pipe)
	if x.input != "" {
		_ = os.Remove(x.input)
	}
}

// killTree kills a process of a container and all that descend from it. They
// are stopped first, so that none has a child unseen.
func (r *Runtime) killTree(container string, root int) {
	group, _ := r.groupOf(container)
	cgroup := r.cg.path(group, container)
	held := map[int]int{}
	for more := true; more; {
		more = false
		for _, pid := range append(descendants(root), root) {
			if _, have := held[pid]; have {
				continue
			}
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			// Numbers are used again: whom the descriptor holds must be of
			// the container.
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); err != nil || !strings.Contains(string(b), cgroup) {
				unix.Close(fd)
				continue
			}
			held[pid], more = fd, true
			_ = unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0)
		}
	}
	for _, fd := range held {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	ctx, cancel := context.WithTimeout(r.life, execCleanUp)
	defer cancel()
	for _, fd := range held {
		_ = ended(ctx, fd)
		unix.Close(fd)
	}
}

// execProcess is the container's process with the request's differences.
func (r *Runtime) execProcess(ctx context.Context, id string, e runtime.Exec) (*specs.Process, error) {
	if len(e.Args) == 0 {
		return nil, fmt.Errorf("no command specified: %w", runtime.ErrInvalid)
	}
	own, ok := r.process.get(id)
	if !ok {
		record, err := r.store.Get(ctx, id)
		if err != nil {
			return nil, native(err)
		}
		var spec specs.Spec
		if err := typeurl.UnmarshalTo(record.Spec, &spec); err != nil {
			return nil, err
		}
		own = spec.Process
		r.process.put(id, own)
	}
	p := *own
	p.Args = slices.Clone(e.Args)
	p.Env = mergeEnv(own.Env, e.Env)
	p.Terminal = false
	if e.WorkingDir != "" {
		p.Cwd = e.WorkingDir
	}
	if u, ok := numbers(e.User); ok {
		p.User = u
	} else if e.User != "" {
		record, err := r.store.Get(ctx, id)
		if err != nil {
			return nil, native(err)
		}
		img, err := r.image(ctx, record.Image)
		if err != nil {
			return nil, err
		}
		mounts, err := r.snaps.View(ctx, id+"-user", img.chain)
		if err != nil {
			return nil, native(err)
		}
		defer func() { _ = r.snaps.Remove(context.WithoutCancel(ctx), id+"-user") }()
		if p.User, err = r.user(ctx, img, e.User, mounts); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// numbers is a user that is given by numbers, for which no file is needed.
func numbers(user string) (specs.User, bool) {
	a, b, ok := strings.Cut(user, ":")
	if !ok {
		return specs.User{}, false
	}
	uid, err := strconv.ParseUint(a, 10, 31)
	gid, err2 := strconv.ParseUint(b, 10, 31)
	if err != nil || err2 != nil {
		return specs.User{}, false
	}
	return specs.User{UID: uint32(uid), GID: uint32(gid)}, true
}

// notRunning: containerd tells of a missing and of an ended process alike.
func notRunning(err error) error {
	if err == nil || errors.Is(err, runtime.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, runtime.ErrNotFound) || isStopped(err) {
		return wrapped{err, runtime.ErrNotRunning}
	}
	return err
}

// bounded keeps the first bytes written to it and counts on.
type bounded struct {
	mu        sync.Mutex
	limit     int
	buf       []byte
	truncated bool
}

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := b.limit - len(b.buf)
	if room < len(p) {
		b.truncated = true
		b.buf = append(b.buf, p[:max(room, 0)]...)
	} else {
		b.buf = append(b.buf, p...)
	}
	return len(p), nil
}

func (b *bounded) take() ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.buf), b.truncated
}
