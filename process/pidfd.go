package process

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// A pidfd stays with its process, so that a number which the kernel gives out
// again is never signalled.

func pidfdOpen(pid int) (int, error) { return unix.PidfdOpen(pid, 0) }

func pidfdSignal(fd int, sig unix.Signal) error {
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// pidfdWait reports whether the process has ended within d.
func pidfdWait(fd int, d time.Duration) (bool, error) {
	end := time.Now().Add(d)
	for {
		left := time.Until(end)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, max(int(left.Milliseconds()), 0))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return n > 0, err
	}
}
