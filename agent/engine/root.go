package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Chroot is the file system of an instance below a folder of the machine.
//
// What is in it is the instance's to change, also while it is looked at: links
// are followed as the instance sees them, by the kernel and in one step, and
// what was found is held by a mount of its own. So no path ever leads to the
// machine's files.
type Chroot struct {
	Dir    string // the instance's root
	Mounts string // where what was found is mounted; the instance does not see it
}

// Path implements Root.
func (c Chroot) Path(task, path string) (string, error) {
	fd, err := c.open(path)
	if err != nil {
		return "", fmt.Errorf("path %s of the instance: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", fmt.Errorf("path %s of the instance: %w", path, err)
	}
	sum := sha256.Sum256([]byte(path))
	target := filepath.Join(c.Mounts, task, hex.EncodeToString(sum[:8]))
	if err := unmount(target); err != nil {
		return "", err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = os.MkdirAll(target, 0o700)
	case unix.S_IFREG, unix.S_IFSOCK, unix.S_IFIFO:
		if err = os.MkdirAll(filepath.Dir(target), 0o700); err == nil {
			err = os.WriteFile(target, nil, 0o600)
		}
	default:
		return "", fmt.Errorf("path %s of the instance: a device cannot be mounted", path)
	}
	if err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("mount path %s of the instance: %w", path, err)
	}
	return target, nil
}

// open opens a path as the instance sees it. What is missing is made, as
// Docker makes the sources of bind mounts.
func (c Chroot) open(path string) (int, error) {
	root, err := unix.Open(c.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	at := func(path string) (int, error) {
		how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		for {
			fd, err := unix.Openat2(root, path, how)
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return fd, err // EAGAIN: somebody renames there
			}
		}
	}
	clean := strings.TrimPrefix(filepath.Clean("/"+path), "/")
	if clean == "" {
		return at(".")
	}
	fd, err := at(clean)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parts := strings.Split(clean, "/")
	for i := range parts {
		if fd, err = at(strings.Join(parts[:i+1], "/")); err == nil {
			if i < len(parts)-1 {
				unix.Close(fd)
			}
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return -1, err
		}
		parent, err := at("./" + strings.Join(parts[:i], "/"))
		if err != nil {
			return -1, err
		}
		err = unix.Mkdirat(parent, parts[i], 0o755)
		unix.Close(parent)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, err
		}
		if fd, err = at(strings.Join(parts[:i+1], "/")); err != nil {
			return -1, err // a link that leads nowhere
		}
		if i < len(parts)-1 {
			unix.Close(fd)
		}
	}
	return fd, nil
}

// Release implements Root.
func (c Chroot) Release(task string) error {
	dir := filepath.Join(c.Mounts, task)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if err := unmount(path); err != nil {
			return err
		}
		// Only what is empty: a mount that is still there must not be followed.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Remove(dir)
}

func unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}
