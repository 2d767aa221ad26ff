package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A container may reach the program that made it, by /proc/<pid>/exe, and must
// not be able to change it. So crun, each time that it is started, has a mount
// of itself made that cannot be written to, and starts itself again from that:
// most of what it costs, and it waits for every processor to have noticed. It
// does not when it is started from memory that is sealed against every change.
//
// The daemon has such a copy made (Share), which its children inherit, shims
// among them, and there is one for all of them.

// sealedVariable tells children of the copy: its descriptor, then which file it
// is of.
const sealedVariable = "BERTH_SEALED_CRUN"

const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// above is where descriptors begin that no child has a use of its own for.
const above = 100

// Share has all children that this process starts from now on inherit a sealed
// copy of crun, if there is a crun. It is of help only: what it cannot do it
// says, and everything works as well.
func Share(ctx context.Context) error {
	path, err := exec.LookPath("crun")
	if errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	which, err := identity(path)
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("crun", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all of them can be executed
		fd, err = unix.MemfdCreate("crun", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return fmt.Errorf("memory for crun: %w", err)
	}
	out := os.NewFile(uintptr(fd), "crun")
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return fmt.Errorf("copy crun: %w", err)
	}
	if _, err := unix.FcntlInt(out.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal crun: %w", err)
	}
	shared, err := unix.FcntlInt(out.Fd(), unix.F_DUPFD, above)
	if err != nil {
		return err
	}
	// A machine may forbid to execute what is in no file.
	if b, err := exec.CommandContext(ctx, at(shared), "--version").CombinedOutput(); err != nil {
		_ = unix.Close(shared)
		return fmt.Errorf("start sealed crun: %w: %s", err, b)
	}
	return os.Setenv(sealedVariable, strconv.Itoa(shared)+" "+which)
}

// at is the path by which a child starts a program that it has inherited.
func at(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// identity tells a program from another that has taken its place.
func identity(path string) (string, error) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return fmt.Sprint(s.Dev, s.Ino, s.Size, s.Mtim.Nano(), s.Ctim.Nano(), " ", path), nil
}

// inherit keeps what this process has inherited from its own children, who
// start from it but have no use for it afterwards. It answers the descriptor,
// and which file that is a copy of.
func inherit() (fd int, which string, ok bool) {
	value, which, ok := strings.Cut(os.Getenv(sealedVariable), " ")
	if !ok {
		return 0, "", false
	}
	fd, err := strconv.Atoi(value)
	if err != nil {
		return 0, "", false
	}
	if have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil || have&seals != seals {
		return 0, "", false
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return 0, "", false
	}
	return fd, which, true
}

// Sealed is where to start a program from: the copy of it, if this process has
// inherited one that is still of the same file.
func (l *Launcher) Sealed(program string) string {
	l.look.Do(func() { l.sealed, l.which, l.has = inherit() })
	if !l.has {
		return program
	}
	if is, err := identity(program); err != nil || is != l.which {
		return program
	}
	return at(l.sealed)
}
