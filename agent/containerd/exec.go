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
	"sync"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
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
	defer os.Remove(pipe)
	f, err := openPipe(pipe)
	if err != nil {
		return res, err
	}
	defer f.Close()
	_, err = r.tasks.Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: id, ExecID: execID, Stdout: pipe, Stderr: pipe,
		Spec: &anypb.Any{TypeUrl: any.GetTypeUrl(), Value: any.GetValue()},
	})
	if err != nil {
		return res, notRunning(native(err))
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), execCleanUp)
	defer cancel()
	defer func() {
		// The caller has gone, or the start failed: leave no process.
		_, _ = r.tasks.Kill(clean, &tasks.KillRequest{ContainerID: id, ExecID: execID, Signal: uint32(syscall.SIGKILL)})
		_, _ = r.tasks.DeleteProcess(clean, &tasks.DeleteProcessRequest{ContainerID: id, ExecID: execID})
	}()
	if _, err := r.tasks.Start(ctx, &tasks.StartRequest{ContainerID: id, ExecID: execID}); err != nil {
		return res, commandError(notRunning(native(err)))
	}
	limit := e.Limit
	if limit == 0 {
		limit = defaultExecOutput
	}
	kept := &bounded{limit: limit}
	var reader sync.WaitGroup
	drained := make(chan struct{})
	reader.Go(func() {
		defer close(drained)
		_, _ = io.Copy(kept, f)
	})
	defer reader.Wait()
	defer f.Close()
	exit, err := r.tasks.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: execID})
	if err != nil {
		if ctx.Err() != nil {
			// Say what it said until then; a health check shows it.
			_, _ = r.tasks.Kill(clean, &tasks.KillRequest{ContainerID: id, ExecID: execID, Signal: uint32(syscall.SIGKILL)})
			res.Output, res.Truncated = kept.take()
			return res, ctx.Err()
		}
		return res, native(err)
	}
	patience := time.NewTimer(execDrain)
	defer patience.Stop()
	select {
	case <-drained:
	case <-patience.C:
	case <-ctx.Done():
	}
	res.ExitCode = int(exit.ExitStatus)
	res.Output, res.Truncated = kept.take()
	return res, nil
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
	if e.User != "" {
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
