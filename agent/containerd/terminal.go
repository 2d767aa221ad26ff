package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/berth-run/berth/agent/runtime"
)

// Terminal is a further process of a container that has a terminal of its own.
// Read is what it says, to its end; Write is what is typed.
type Terminal struct {
	x     *execution
	stdin *os.File
	pid   int
	wait  chan struct{}
	code  int
	err   error
}

// Terminal runs a process with a terminal in a running container, until it
// ends or the terminal is closed. ctx is for beginning only.
func (r *Runtime) Terminal(ctx context.Context, id string, e runtime.Exec) (t *Terminal, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("terminal in %s: %w", id, err)
		}
	}()
	if err := validName(id); err != nil {
		return nil, err
	}
	process, err := r.execProcess(ctx, id, e)
	if err != nil {
		return nil, err
	}
	process.Terminal = true
	any, err := typeurl.MarshalAny(process)
	if err != nil {
		return nil, err
	}
	execID := "t" + rand.Text()[:12]
	out, in := filepath.Join(r.dir(id), execID), filepath.Join(r.dir(id), execID+".in")
	x := &execution{r: r, container: id, id: execID, pipe: out, input: in}
	t = &Terminal{x: x, wait: make(chan struct{})}
	for _, path := range []string{out, in} {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			x.remove()
			if errors.Is(err, os.ErrNotExist) {
				return nil, runtime.ErrNotFound
			}
			return nil, err
		}
	}
	if x.f, err = openPipe(out); err == nil {
		// Opened for both, so that it waits for nobody.
		t.stdin, err = os.OpenFile(in, os.O_RDWR|syscall.O_NONBLOCK, 0)
	}
	if err != nil {
		x.close()
		return nil, err
	}
	late, cancel := r.outlast(ctx)
	defer cancel()
	_, err = r.tasks.Exec(late, &tasks.ExecProcessRequest{
		ContainerID: id, ExecID: execID, Stdin: in, Stdout: out, Terminal: true,
		Spec: &anypb.Any{TypeUrl: any.GetTypeUrl(), Value: any.GetValue()},
	})
	if err != nil {
		err = notRunning(native(err))
		t.stdin.Close()
		if late.Err() == nil && !errors.Is(err, runtime.ErrUnavailable) {
			x.close()
		} else {
			x.abandon(0)
		}
		return nil, errors.Join(ctx.Err(), err)
	}
	started, err := r.tasks.Start(late, &tasks.StartRequest{ContainerID: id, ExecID: execID})
	if err == nil {
		err = ctx.Err()
	} else {
		err = commandError(notRunning(native(err)), process.Args[0])
	}
	if err != nil {
		t.stdin.Close()
		x.abandon(int(started.GetPid()))
		return nil, err
	}
	t.pid = int(started.Pid)
	r.after.Go(t.watch)
	return t, nil
}

// watch waits for the process's end.
func (t *Terminal) watch() {
	defer close(t.wait)
	exit, err := t.x.r.tasks.Wait(t.x.r.life, &tasks.WaitRequest{ContainerID: t.x.container, ExecID: t.x.id})
	if err != nil {
		t.err = native(err)
		return
	}
	t.code = int(exit.ExitStatus)
}

// Read implements io.Reader. It ends (io.EOF) when the process and its children
// have closed the terminal.
func (t *Terminal) Read(p []byte) (int, error) { return t.x.f.Read(p) }

// Write implements io.Writer.
func (t *Terminal) Write(p []byte) (int, error) { return t.stdin.Write(p) }

// Resize sets the size of the terminal.
func (t *Terminal) Resize(ctx context.Context, columns, rows uint16) error {
	_, err := t.x.r.tasks.ResizePty(ctx, &tasks.ResizePtyRequest{ContainerID: t.x.container, ExecID: t.x.id, Width: uint32(columns), Height: uint32(rows)})
	return native(err)
}

// Ended is closed when the process has ended.
func (t *Terminal) Ended() <-chan struct{} { return t.wait }

// Code is what the process ended with, after Ended.
func (t *Terminal) Code() (int, error) {
	<-t.wait
	return t.code, t.err
}

// Close ends the process, if it still runs, with those that it started.
func (t *Terminal) Close() error {
	err := t.stdin.Close()
	select {
	case <-t.wait:
		t.x.later()
	default:
		t.x.abandon(t.pid)
	}
	return err
}

// HangUp ends the terminals of containers that an earlier process has left
// behind: nobody sits at them any more. It must not be called while another
// process has terminals of the same containers. It returns when they have ended.
func (r *Runtime) HangUp() error {
	inputs, err := filepath.Glob(filepath.Join(r.dir("*"), "t*.in"))
	if err != nil {
		return err
	}
	var ending sync.WaitGroup
	defer ending.Wait()
	for _, in := range inputs {
		out := strings.TrimSuffix(in, ".in")
		x := &execution{r: r, container: filepath.Base(filepath.Dir(in)), id: filepath.Base(out), pipe: out, input: in}
		if x.f, err = openPipe(out); err != nil {
			x.remove() // it was never begun
			continue
		}
		ending.Go(x.delete)
	}
	return nil
}

// Finish closes the runtime after what was left for later is done, or takes too
// long.
func (r *Runtime) Finish() error {
	done := make(chan struct{})
	go func() { // ends with Close
		defer close(done)
		r.after.Wait()
	}()
	late := time.NewTimer(2 * execCleanUp)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	}
	err := r.Close()
	<-done
	return err
}
