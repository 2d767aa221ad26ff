package vpc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// on runs f on a thread that is in a network namespace.
//
// The thread goes back afterwards. If it cannot, it must not run other goroutines, so its goroutine ends while still
// locked to it, which makes the runtime end the thread.
func on(ns *os.File, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", ns.Name(), err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own that f may move to another network namespace. f must not start goroutines that
// need the namespace: they run elsewhere.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		} else {
			err = errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
		}
		home.Close()
		result <- err
	}()
	return <-result
}

// makeNetns makes a namespace, mounts it at path and runs setUp inside it before anybody can find it there.
func makeNetns(path string, setUp func() error) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return nil, err
	}
	f.Close()
	var ns *os.File
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := setUp(); err != nil {
			return err
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		var err error
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make network namespace %s: %w", path, err), dropNetns(path))
	}
	// A mount is no event to those who watch the folder; a touch of both its times is.
	now := time.Now()
	if err := os.Chtimes(filepath.Dir(path), now, now); err != nil {
		ns.Close()
		return nil, errors.Join(err, dropNetns(path))
	}
	return ns, nil
}

// openNetns opens the namespace mounted at path. A file that is no namespace, left by a reboot or by a process killed
// before the mount, counts as absent.
func openNetns(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		f.Close()
		return nil, fmt.Errorf("statfs %s: %w", path, err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		f.Close()
		return nil, fmt.Errorf("%s is not mounted: %w", path, os.ErrNotExist)
	}
	return f, nil
}

// dropNetns unmounts and removes path. The kernel takes the namespace apart when its last user is gone, by itself.
func dropNetns(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			continue // a crash may have left several mounts on top of each other
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sysctl writes below /proc/sys/net of the calling thread's namespace. A kernel without the protocol has no file and
// needs no setting.
func sysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
