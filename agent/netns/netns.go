// Package netns waits for network namespaces that the data plane makes, and
// listens inside them.
//
// It never changes a namespace, and never leaves a thread of the process in
// one.
package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Await returns when the file exists. Its folder has to exist.
func Await(ctx context.Context, path string) error {
	return await(ctx, path, func() (bool, error) {
		_, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	})
}

// AwaitNamespace returns when a namespace is mounted on the file. A mount is
// no event: whoever mounts touches both times of the folder.
func AwaitNamespace(ctx context.Context, path string) error {
	return await(ctx, path, func() (bool, error) {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("statfs %s: %w", path, err)
		}
		return st.Type == unix.NSFS_MAGIC, nil
	})
}

// await asks again whenever something happens in the folder of path.
func await(ctx context.Context, path string, there func() (bool, error)) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	// A nonblocking file of the os package is served by the runtime's poller:
	// the wait costs no thread, and Close ends it.
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ATTRIB|unix.IN_DELETE_SELF); err != nil {
		return fmt.Errorf("watch %s: %w", filepath.Dir(path), err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	var buf [4 << 10]byte
	for {
		// Looked at only after the watch is set, so nothing is missed.
		if ok, err := there(); ok || err != nil {
			return err
		}
		if _, err := f.Read(buf[:]); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("inotify: %w", err)
		}
	}
}

// Listen listens on a TCP address inside the network namespace at path.
func Listen(ctx context.Context, path, address string) (net.Listener, error) {
	type result struct {
		l   net.Listener
		err error
	}
	done := make(chan result, 1)
	go func() {
		// The thread is locked and never unlocked: it ends with this
		// goroutine, so no other one ever runs in the namespace. The socket
		// stays where it was made.
		runtime.LockOSThread()
		l, err := listenIn(ctx, path, address)
		done <- result{l, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("listen on %s in %s: %w", address, path, r.err)
	}
	return r.l, nil
}

func listenIn(ctx context.Context, path, address string) (net.Listener, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("setns: %w", err)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp4", address)
}

// namespaceOf is the file of the network namespace that a listener is in.
func namespaceOf(l net.Listener) (os.FileInfo, error) {
	t, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.New("not a TCP listener")
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil, err
	}
	ns := -1
	if cerr := raw.Control(func(fd uintptr) { ns, err = unix.IoctlRetInt(int(fd), unix.SIOCGSKNS) }); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, fmt.Errorf("namespace of a socket: %w", err)
	}
	f := os.NewFile(uintptr(ns), "netns")
	defer f.Close()
	return f.Stat()
}
