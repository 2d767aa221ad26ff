// Package process keeps the roles of this binary running as child processes.
//
// A child that ends is started again, ever more slowly while it keeps ending
// at once. Each child has a pid file with its start time, so that a supervisor
// which was itself killed finds the children it left behind: it replaces them,
// which is harmless, because every role continues with what it finds. The
// package must never stop anything it did not start.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec is one child.
type Spec struct {
	Name string   // of the role, and of its files
	Path string   // the binary
	Args []string // argv without argv[0]
	Env  []string // beside the supervisor's own
	// RunDir gets <name>.pid, LogDir <name>.log (and <name>.log.1 when that has grown).
	RunDir, LogDir string
	// Grace is how long the child may take to end after SIGTERM; then SIGKILL.
	Grace time.Duration
	// LogName is the log's name if it is not <name>.log.
	LogName string
	// LogMode is the log's mode if it is not for its owner alone.
	LogMode os.FileMode
	// Netns is the network namespace that the child starts in, "" this process's.
	Netns string
	// Cgroups are directories of cgroups that the child is put into.
	Cgroups []string
	// Ready is called each time the child says that it serves, see Notify; may be nil.
	Ready func()
}

// ReadyVariable names the environment variable with the file descriptor on
// which a child says that it is ready.
const ReadyVariable = "BERTH_READY_FD"

// maxLog is the size at which a log is set aside: when its process is started,
// and while it runs.
const maxLog = 16 << 20

// logEvery is how often the log of a running process is measured.
const logEvery = time.Minute

// Notify tells the supervisor, if there is one, that this process serves.
//
// A supervisor that died meanwhile may not have come to write the pid file, so
// the next one would not find this process and would start another beside it.
// Then this one asks itself to end, as a supervisor would have.
func Notify() error {
	v := os.Getenv(ReadyVariable)
	if v == "" {
		return nil
	}
	os.Unsetenv(ReadyVariable)
	fd, err := strconv.Atoi(v)
	if err != nil {
		return fmt.Errorf("%s: %w", ReadyVariable, err)
	}
	f := os.NewFile(uintptr(fd), "ready")
	defer f.Close()
	_, err = f.WriteString("ready\n")
	if errors.Is(err, syscall.EPIPE) {
		return errors.Join(errors.New("the supervisor has died"), syscall.Kill(os.Getpid(), syscall.SIGTERM))
	}
	return err
}

// Keep runs the child until ctx ends, and then ends it. It returns an error
// only if the child cannot be run at all.
func Keep(ctx context.Context, s Spec, log *slog.Logger) error {
	log = log.With("process", s.Name)
	if err := Replace(s.RunDir, s.Name, s.Grace); err != nil {
		return err
	}
	wait := time.Duration(0)
	for restarts := 0; ; restarts++ {
		start := time.Now()
		err := run(ctx, s, restarts, log)
		if ctx.Err() != nil {
			return nil
		}
		var missing *exec.Error
		if errors.As(err, &missing) {
			return err
		}
		if time.Since(start) > 10*time.Second {
			wait = 0
		}
		log.Warn("process ended", "err", err, "after", time.Since(start).Round(time.Millisecond), "again in", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(max(2*wait, 50*time.Millisecond), 5*time.Second)
	}
}

// run is one life of the child.
func run(ctx context.Context, s Spec, restarts int, log *slog.Logger) error {
	name := s.LogName
	if name == "" {
		name = s.Name + ".log"
	}
	out, err := openLog(filepath.Join(s.LogDir, name))
	if err == nil && s.LogMode != 0 {
		err = out.Chmod(s.LogMode)
	}
	if err != nil {
		return err
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe for %s: %w", s.Name, err)
	}
	defer r.Close()
	c := exec.Command(s.Path, s.Args...)
	c.Env = append(append(os.Environ(), s.Env...), ReadyVariable+"=3")
	c.Stdout, c.Stderr = out, out
	c.ExtraFiles = []*os.File{w}
	// Its own process group: an interrupt at the terminal is the supervisor's to pass on.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = start(c, s.Netns)
	w.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	log.Info("process started", "pid", c.Process.Pid)
	for _, dir := range s.Cgroups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), strconv.AppendInt(nil, int64(c.Process.Pid), 10), 0o644); err != nil {
			log.Error("process is outside of its cgroup", "err", err)
		}
	}
	if err := writePID(s.RunDir, s.Name, c.Process.Pid, restarts); err != nil {
		log.Error("pid file", "err", err)
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		b, _ := io.ReadAll(io.LimitReader(r, 64))
		if bytes.HasPrefix(b, []byte("ready")) && s.Ready != nil {
			s.Ready()
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	look := time.NewTicker(logEvery)
	defer look.Stop()
	for over := false; !over; {
		select {
		case err = <-ended:
			over = true
		case <-ctx.Done():
			over = true
			err = end(c, ended, s.Grace, log)
		case <-look.C:
			if err := cutLog(out, maxLog); err != nil {
				log.Error("log cannot be set aside", "err", err)
			}
		}
	}
	// Whoever inherited the pipe may hold it open; nothing more is expected on it.
	r.Close()
	<-heard
	os.Remove(pidFile(s.RunDir, s.Name))
	if err == nil {
		err = errors.New("exit status 0")
	}
	return err
}

// start starts a command, in another network namespace if one is named.
func start(c *exec.Cmd, netns string) error {
	if netns == "" {
		return c.Start()
	}
	ns, err := os.Open(netns)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer ns.Close()
	result := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with this goroutine, so no other one runs in the namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("network namespace: %w", err)
			return
		}
		result <- c.Start()
	}()
	return <-result
}

// end asks the child to end, and kills it if it does not.
func end(c *exec.Cmd, ended <-chan error, grace time.Duration, log *slog.Logger) error {
	_ = c.Process.Signal(syscall.SIGTERM)
	limit := time.NewTimer(grace)
	defer limit.Stop()
	select {
	case err := <-ended:
		return err
	case <-limit.C:
	}
	log.Warn("process does not end, killed", "pid", c.Process.Pid)
	_ = c.Process.Kill()
	return <-ended
}

// cutLog sets aside what is in a log that has grown beyond max, and empties
// it. The process goes on writing to the same file, at its end, so what it
// writes in between is lost; that is a line, once in a while.
func cutLog(out *os.File, max int64) error {
	st, err := out.Stat()
	if err != nil || st.Size() <= max {
		return err
	}
	in, err := os.Open(out.Name())
	if err != nil {
		return err
	}
	defer in.Close()
	old := out.Name() + ".1"
	aside, err := os.OpenFile(old+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(aside, in)
	if err = errors.Join(err, aside.Close()); err == nil {
		err = os.Rename(old+".new", old)
	}
	if err != nil {
		// A full disk, most likely. The log must not fill it further.
		err = errors.Join(err, os.Remove(old+".new"))
	}
	return errors.Join(err, out.Truncate(0))
}

func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("log directory: %w", err)
	}
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("set aside log: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// Process is what a pid file and the kernel say of a child.
type Process struct {
	Name     string
	PID      int
	Restarts int
	RSS      uint64 // bytes
	Started  time.Time
}

func pidFile(dir, name string) string { return filepath.Join(dir, name+".pid") }

// writePID writes "pid start-time restarts".
func writePID(dir, name string, pid, restarts int) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp := pidFile(dir, name) + ".new"
	if err := os.WriteFile(tmp, fmt.Appendf(nil, "%d %d %d\n", pid, start, restarts), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, pidFile(dir, name))
}

// Find is the child that the pid file names, if it still runs.
func Find(dir, name string) (p Process, ok bool) {
	p.Name = name
	b, err := os.ReadFile(pidFile(dir, name))
	if err != nil {
		return p, false
	}
	var start uint64
	if n, _ := fmt.Sscan(string(b), &p.PID, &start, &p.Restarts); n < 2 {
		return p, false
	}
	// Another process may have got the number since.
	if now, err := startTime(p.PID); err != nil || now != start {
		return p, false
	}
	p.RSS, p.Started = usage(p.PID, start)
	return p, true
}

// Replace ends a child that an earlier supervisor left behind.
func Replace(dir, name string, grace time.Duration) error {
	p, ok := Find(dir, name)
	if !ok {
		return nil
	}
	return End(p.PID, grace)
}

// End asks a process that may not be our child to end, kills it after grace,
// and returns when it is gone.
func End(pid int, grace time.Duration) error {
	fd, err := pidfdOpen(pid)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end process %d: %w", pid, err)
	}
	defer syscall.Close(fd)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := pidfdSignal(fd, sig); errors.Is(err, syscall.ESRCH) {
			return nil
		} else if err != nil {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
		gone, err := pidfdWait(fd, grace)
		if err != nil {
			return fmt.Errorf("wait for process %d: %w", pid, err)
		}
		if gone {
			return nil
		}
		grace = max(grace, 10*time.Second)
	}
	return fmt.Errorf("process %d does not end", pid)
}

// startTime is when the process started, in clock ticks since boot: with the
// pid it names a process for ever.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the command in brackets, which may contain anything.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, fs.ErrInvalid
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 {
		return 0, fs.ErrInvalid
	}
	if f[0] == "Z" {
		return 0, fs.ErrNotExist // dead, only not yet waited for
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// ticks a second; fixed in Linux's user interface.
const userHZ = 100

func usage(pid int, start uint64) (rss uint64, started time.Time) {
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err == nil {
		var size, resident uint64
		if n, _ := fmt.Sscan(string(b), &size, &resident); n == 2 {
			rss = resident * uint64(os.Getpagesize())
		}
	}
	var si syscall.Sysinfo_t
	if syscall.Sysinfo(&si) == nil {
		boot := time.Now().Add(-time.Duration(si.Uptime) * time.Second)
		started = boot.Add(time.Duration(start) * time.Second / userHZ)
	}
	return rss, started
}

// Kill ends a process at once and returns when it is gone.
func Kill(pid int, wait time.Duration) error {
	fd, err := pidfdOpen(pid)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	defer syscall.Close(fd)
	if err := pidfdSignal(fd, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	gone, err := pidfdWait(fd, wait)
	if err == nil && !gone {
		err = errors.New("it does not end")
	}
	if err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

// Register writes a pid file for this process itself.
func Register(dir, name string) error { return writePID(dir, name, os.Getpid(), 0) }

// Unregister removes it.
func Unregister(dir, name string) { os.Remove(pidFile(dir, name)) }
