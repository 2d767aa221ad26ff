package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/berth-run/berth/agent/runtime"
)

// The pipes of a container's output are files of its directory, so that any
// agent finds them. The shim opens each for writing, which waits for a reader,
// and for reading too, so that the writer never sees the reader go.

func (r *Runtime) stdout(id string) string { return filepath.Join(r.dir(id), "stdout") }
func (r *Runtime) stderr(id string) string { return filepath.Join(r.dir(id), "stderr") }

// makeOutput makes the pipes anew and opens them before the shim does.
func (r *Runtime) makeOutput(id string) (*runtime.Output, error) {
	for _, p := range []string{r.stdout(id), r.stderr(id)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if err := syscall.Mkfifo(p, 0o600); err != nil {
			return nil, fmt.Errorf("mkfifo %s: %w", p, err)
		}
	}
	return r.openOutput(id)
}

// openOutput opens the reading ends. With O_NONBLOCK that succeeds at once,
// and reads go through the runtime's poller: a container costs no thread.
func (r *Runtime) openOutput(id string) (*runtime.Output, error) {
	stdout, err := openPipe(r.stdout(id))
	if err != nil {
		return nil, err
	}
	stderr, err := openPipe(r.stderr(id))
	if err != nil {
		stdout.Close()
		return nil, err
	}
	return &runtime.Output{Stdout: stdout, Stderr: stderr}, nil
}

func openPipe(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// Output implements runtime.Runtime. The ends that Create or Start opened are
// handed over; without such, after a restart of the agent, the pipes are
// opened: the shim still holds them, or, if it does not, they are at their
// end.
func (r *Runtime) Output(ctx context.Context, id string) (*runtime.Output, error) {
	if err := validName(id); err != nil {
		return nil, err
	}
	if o, ok := r.outputs.LoadAndDelete(id); ok {
		return o.(*runtime.Output), nil
	}
	o, err := r.openOutput(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("output of %s: %w", id, runtime.ErrNotFound)
	}
	return o, err
}

// dropOutput closes ends that nobody asked for.
func (r *Runtime) dropOutput(id string) {
	if o, ok := r.outputs.LoadAndDelete(id); ok {
		o.(*runtime.Output).Close()
	}
}
