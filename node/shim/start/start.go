// Package start is what the daemon calls first for every container: this
// program as `containerd-shim-runc-v2 … start`. It starts the shim of the
// container's group, or finds the one that serves it, and says where.
//
// The shim library can do that, too, but it takes the whole shim into memory for
// it, which costs as much as making the container does. This package gets by
// with what Go has initialised before it comes to almost anything else. So it
// must import nothing but what that is true of: no network, no protobuf.
//
// It must be exchangeable with the library's: the shim that it starts, and the
// daemon, are the library's own.
package start

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Name is the file name under which this binary is a shim.
const Name = "containerd-shim-runc-v2"

// groupAnnotation makes containers share one shim.
const groupAnnotation = "io.containerd.runc.v2.group"

func init() {
	if len(os.Args) < 2 || filepath.Base(os.Args[0]) != Name || os.Args[len(os.Args)-1] != "start" {
		return
	}
	if err := run(os.Args[1:len(os.Args)-1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s", Name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run is called in the container's bundle.
func run(args []string, in io.Reader, out io.Writer) error {
	namespace, id, daemon := flag(args, "-namespace"), flag(args, "-id"), flag(args, "-address")
	if namespace == "" || id == "" {
		return errors.New("-namespace and -id are required")
	}
	input, err := io.ReadAll(io.LimitReader(in, 10<<20))
	if err != nil {
		return fmt.Errorf("read parameters: %w", err)
	}
	p, err := decode(input)
	if err != nil {
		return fmt.Errorf("parameters: %w", err)
	}
	if p.sockets == "" {
		return errors.New("parameters: no directory for sockets")
	}
	// The shim removes its socket at its end, and finds it by this.
	if err := os.Remove("s"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(p.sockets, "s"); err != nil {
		return err
	}
	group, err := groupOf("config.json", id)
	if err != nil {
		return err
	}
	// Where a group's shim listens is agreed upon: it is how the group's other
	// containers find it.
	sum := sha256.Sum256([]byte(filepath.Join(daemon, namespace, group)))
	path := filepath.Join(p.sockets, hex.EncodeToString(sum[:]))
	fd, err := claim(path)
	if err != nil {
		return fmt.Errorf("listen at %s: %w", path, err)
	}
	if fd < 0 {
		_, err := out.Write(encode("unix://" + path))
		return err
	}
	pid, err := shim([]string{"-namespace", namespace, "-id", id, "-address", daemon}, fd)
	if err == nil {
		if err = score(pid); err != nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if err != nil {
		_ = os.Remove(path)
		return err
	}
	_, err = out.Write(encode("unix://" + path))
	return err
}

// flag is the value of a flag among arguments.
func flag(args []string, name string) string {
	for i := 1; i < len(args); i++ {
		if args[i-1] == name {
			return args[i]
		}
	}
	return ""
}

// groupOf reads from a container's spec with whom it shares a shim.
func groupOf(spec, id string) (string, error) {
	b, err := os.ReadFile(spec)
	if err != nil {
		return "", err
	}
	var s struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return "", fmt.Errorf("%s: %w", spec, err)
	}
	if g := s.Annotations[groupAnnotation]; g != "" {
		return g, nil
	}
	return id, nil
}

// claim makes the group's socket, or answers -1 if a shim serves it. Containers
// of a group are made at the same time, and a socket that another has bound and
// does not listen at yet looks like that of a shim that was killed. So it is one
// after the other.
func claim(path string) (fd int, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return -1, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return -1, err
	}
	defer lock.Close() // unlocks
	for err = syscall.EINTR; err == syscall.EINTR; {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return -1, fmt.Errorf("lock %s: %w", dir, err)
	}
	fd, err = listen(path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fd, err
	}
	if serves(path) {
		return -1, nil
	}
	// Its shim was killed.
	if err := os.Remove(path); err != nil {
		return -1, fmt.Errorf("remove socket of a shim that is gone: %w", err)
	}
	return listen(path)
}

// listen makes the socket that only root may speak to.
func listen(path string) (fd int, err error) {
	fd, err = syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err == nil {
		if err = errors.Join(os.Chmod(path, 0o600), syscall.Listen(fd, syscall.SOMAXCONN)); err != nil {
			_ = os.Remove(path)
		}
	}
	if err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

// serves reports whether somebody accepts connections there.
func serves(path string) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	for {
		// It is answered by the kernel as soon as there is room in the queue.
		err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
		if err != syscall.EINTR {
			return err == nil
		}
	}
}

// shim starts this program once more, as the one that stays.
func shim(args []string, socket int) (pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "GOMAXPROCS=") && !strings.HasPrefix(kv, "OTEL_SERVICE_NAME=") {
			env = append(env, kv)
		}
	}
	// It has little to do and shall not take many threads for it.
	env = append(env, "GOMAXPROCS=2", "OTEL_SERVICE_NAME=containerd-shim-"+flag(args, "-id"))
	n := null.Fd()
	pid, err = syscall.ForkExec(self, append([]string{self}, args...), &syscall.ProcAttr{
		Dir: cwd, Env: env, Files: []uintptr{n, n, n, uintptr(socket)}, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start shim: %w", err)
	}
	return pid, nil
}

// score makes the shim a little likelier to be killed for want of memory than
// the daemon is.
func score(pid int) error {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(os.Getppid()) + "/oom_score_adj")
	if err != nil {
		return fmt.Errorf("parent's OOM score: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("parent's OOM score: %w", err)
	}
	err = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(min(n+1, 1000))), 0)
	// In a container of its own that may not be raised; it stays the parent's.
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("shim's OOM score: %w", err)
	}
	return nil
}
