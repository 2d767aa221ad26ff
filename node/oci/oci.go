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

// Start calls start, which starts program as a child.
//
// Where cgroup v2 is mounted beside v1, runc uses v1 and crun refuses to do
// anything. So crun is started in a mount namespace in which v2 is not to be
// seen: a copy of this process's as it is at that moment, which goes with crun.
// The container's mounts are in a namespace of its own anyway.
func Start(program string, start func() error) error {
	if filepath.Base(program) != "crun" || !Hybrid() {
		return start()
	}
	l, err := launcher()
	if err != nil {
		return err
	}
	done := make(chan error)
	l <- func() { done <- l.apart(start) }
	return <-done
}

// A thread runs what it is given, one after the other.
type thread chan func()

var home *os.File // the mount namespace of this process

// launcher is the thread that starts processes apart. It lives as long as the
// process does, for a child may be told to die with the thread that started it.
var launcher = sync.OnceValues(func() (thread, error) {
	var err error
	if home, err = os.Open("/proc/self/ns/mnt"); err != nil {
		return nil, fmt.Errorf("own mount namespace: %w", err)
	}
	t := make(thread)
	go func() {
		runtime.LockOSThread()
		for f := range t {
			f()
		}
	}()
	return t, nil
})

func (thread) apart(f func() error) (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Setns(int(home.Fd()), unix.CLONE_NEWNS)) }()
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
