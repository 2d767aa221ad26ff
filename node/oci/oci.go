// Package oci starts the OCI runtime, the program that makes containers, where
// it has to be helped to start.
//
// It is part of every shim and must import next to nothing. It must never look
// at what the runtime is asked to do.
package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

const unified = "/sys/fs/cgroup/unified"

// Hybrid reports whether cgroup v2 is mounted beside the controllers of v1.
func Hybrid() bool {
	var fs unix.Statfs_t
	return unix.Statfs(unified, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// A Launcher starts programs from a thread of its own, which lives until Close:
// a child may have been told to die with the thread that started it. The zero
// Launcher is ready.
type Launcher struct {
	once sync.Once
	err  error
	jobs chan func()
	done chan struct{}
	home *os.File // the mount namespace of this process

	look   sync.Once // for the copy; see Sealed
	sealed int
	which  string
	has    bool
}

// Start calls start, which starts program as a child.
//
// Where cgroup v2 is mounted beside v1, runc uses v1 and crun refuses to do
// anything. So crun is started in a mount namespace in which v2 is not to be
// seen: a copy of this process's as it is at that moment, which goes with crun.
// The container's mounts are in a namespace of its own anyway.
func (l *Launcher) Start(program string, start func() error) error {
	if filepath.Base(program) != "crun" || !Hybrid() {
		return start()
	}
	l.once.Do(l.open)
	if l.err != nil {
		return l.err
	}
	result := make(chan error)
	l.jobs <- func() { result <- l.apart(start) }
	return <-result
}

func (l *Launcher) open() {
	home, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		l.err = fmt.Errorf("own mount namespace: %w", err)
		return
	}
	l.home, l.jobs, l.done = home, make(chan func()), make(chan struct{})
	go func() {
		defer close(l.done)
		runtime.LockOSThread() // never unlocked: the thread ends here
		for f := range l.jobs {
			f()
		}
	}()
}

// Close ends the thread. Nothing may be started any more.
func (l *Launcher) Close() {
	l.once.Do(func() { l.err = os.ErrClosed })
	if l.jobs == nil {
		return
	}
	close(l.jobs)
	<-l.done
	_ = l.home.Close()
}

func (l *Launcher) apart(f func() error) (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Setns(int(l.home.Fd()), unix.CLONE_NEWNS)) }()
	// The mount that is covered decides who else sees the cover: nobody. Crun
	// makes directories in it, so it has to be writable.
	if err := unix.Mount("", unified, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("hide cgroup v2: %w", err)
	}
	if err := unix.Mount("tmpfs", unified, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m,mode=700"); err != nil {
		return fmt.Errorf("hide cgroup v2: %w", err)
	}
	return f()
}
