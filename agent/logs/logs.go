// Package logs delivers what containers write to where their task definition
// says: to CloudWatch Logs (awslogs) or to files on this machine (json-file).
//
// A line that was read is delivered, or kept until it can be: nothing is
// dropped but by the rules of a container's own log configuration, and what
// the service refuses for good. The package never stops a container's process
// from writing except in blocking mode, when its buffer is full.
package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/agent/credentials"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/runtime"
)

// Manager opens logs. It implements engine.Logs.
type Manager struct {
	API         *api.Client
	Instance    api.Provider // for tasks without an execution role
	Credentials *credentials.Store
	Dir         string // of logs that stay on the machine: <task>/<container>.log
	Log         *slog.Logger
}

// keepWithoutDriver is what is kept of the output of a container that has no
// log configuration. ECS discards it; a bit of it makes debugging possible.
const keepWithoutDriver = 64 << 10

// Open implements engine.Logs.
func (m *Manager) Open(ctx context.Context, t *engine.Task, c *engine.Container, resume bool) (engine.Log, error) {
	cfg := c.HostConfig.LogConfig
	switch cfg.Type {
	case "", "none":
		return m.openFile(t, c, keepWithoutDriver, 1)
	case "json-file", "local":
		size, files, err := fileLimits(cfg.Config)
		if err != nil {
			return nil, invalid(err)
		}
		return m.openFile(t, c, size, files)
	case "awslogs":
		return m.openStream(ctx, t, c, resume)
	}
	return nil, invalid(fmt.Errorf("log driver %q is not supported by this agent", cfg.Type))
}

// Remove implements engine.Logs.
func (m *Manager) Remove(task string) error { return os.RemoveAll(filepath.Join(m.Dir, task)) }

// invalid is why a task cannot start: its log configuration.
func invalid(err error) error {
	return &engine.TaskError{Reason: "ResourceInitializationError: failed to validate logger args: " + err.Error()}
}

// copier reads the output of a container line by line. It is the part that
// all drivers share.
type copier struct {
	mu      sync.Mutex
	readers int
	idle    chan struct{} // closed when readers falls to zero
	outputs []*runtime.Output
	closed  bool
}

// start reads both streams to their ends; line is called for each line,
// without its newline, from both at once.
func (c *copier) start(out *runtime.Output, limit int, line func(src source, b []byte), end func(src source)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		out.Close()
		return
	}
	if c.readers == 0 {
		c.idle = make(chan struct{})
	}
	c.outputs = append(c.outputs, out)
	for src, r := range map[source]io.ReadCloser{stdout: out.Stdout, stderr: out.Stderr} {
		c.readers++
		go func() {
			readLines(r, limit, func(b []byte) { line(src, b) })
			end(src)
			r.Close()
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.readers--; c.readers == 0 {
				close(c.idle)
				c.outputs = nil
			}
		}()
	}
}

// wait waits until every stream has been read to its end.
func (c *copier) wait(ctx context.Context) error {
	c.mu.Lock()
	idle := c.idle
	c.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return errors.New("the container's output has no end yet")
	}
}

// close stops reading and waits for the readers.
func (c *copier) close() {
	c.mu.Lock()
	c.closed = true
	outputs, idle := c.outputs, c.idle
	c.mu.Unlock()
	for _, o := range outputs {
		o.Close()
	}
	if idle != nil {
		<-idle
	}
}

// source is one of a process's two streams.
type source int

const (
	stdout source = iota
	stderr
	sources
)

func (s source) String() string { return [...]string{"stdout", "stderr"}[s] }

// firstBuffer is what a quiet stream costs; a busy one is read in pieces of
// burstBuffer.
const (
	firstBuffer = 1 << 10
	burstBuffer = 32 << 10
)

// readLines calls line for every line of r until it ends or fails. Lines
// longer than limit come in pieces. A last line needs no newline.
func readLines(r io.Reader, limit int, line func([]byte)) {
	buf := make([]byte, min(firstBuffer, limit))
	n := 0 // bytes of buf that are of a line that has not ended
	for {
		k, err := r.Read(buf[n:])
		full, from := n+k == len(buf), 0
		for i := n; i < n+k; i++ {
			if buf[i] == '\n' {
				line(bytes.TrimSuffix(buf[from:i], []byte("\r")))
				from = i + 1
			}
		}
		n = copy(buf, buf[from:n+k])
		switch {
		case err != nil:
			if n > 0 {
				line(buf[:n])
			}
			return
		case n == limit:
			line(buf[:n])
			n = 0
		case n == len(buf), full && len(buf) < min(burstBuffer, limit):
			buf = append(buf, make([]byte, min(len(buf), limit-len(buf)))...)
		case n == 0 && len(buf) > firstBuffer && k < firstBuffer:
			buf = make([]byte, firstBuffer) // the burst is over
		}
	}
}

// parseSize reads 25m: bytes, or with k, m or g.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(strings.ToLower(s), "b")
	shift := 0
	if digits != "" {
		if i := strings.IndexByte("kmg", digits[len(digits)-1]); i >= 0 {
			shift, digits = 10*(i+1), digits[:len(digits)-1]
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n<<shift>>shift != n {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n << shift, nil
}
