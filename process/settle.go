package process

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settleFirst is when a process has certainly started.
	settleFirst = 10 * time.Second
	// settleEvery is how often what bursts of work left is given back.
	settleEvery = 5 * time.Minute
)

// Settle gives memory back to the machine until ctx ends: once soon after the
// start, and then now and again.
//
// This program is large, and each role of it reads most of it once, while it
// initialises itself. Those pages would count as the memory of every process
// for ever. What is needed again is mapped again from the page cache, which
// costs some microseconds for each 64 KiB and no disk access.
func Settle(ctx context.Context, log *slog.Logger) {
	timer := time.NewTimer(settleFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		debug.FreeOSMemory()
		if err := forgetText(); err != nil {
			log.Warn("cannot give memory back", "err", err)
			return
		}
		timer.Reset(settleEvery)
	}
}

// forgetText unmaps the pages of this process's own executable that nobody
// can have written to.
func forgetText() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("own executable: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("own mappings: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		start, length, ok := readOnly(line, exe)
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, length, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("unmap pages of %s: %w", exe, errno)
		}
	}
	return nil
}

// readOnly reads a line of /proc/self/maps and says whether it is a private
// mapping of the file that cannot be written to. Only of such a mapping is it
// sure that the file has all its content.
func readOnly(line, file string) (start, length uintptr, ok bool) {
	// start-end mode offset device inode path
	f := strings.Fields(line)
	if len(f) < 6 || strings.Join(f[5:], " ") != file || f[1] != "r-xp" && f[1] != "r--p" {
		return 0, 0, false
	}
	from, to, _ := strings.Cut(f[0], "-")
	a, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return 0, 0, false
	}
	b, err := strconv.ParseUint(to, 16, 64)
	if err != nil || b <= a {
		return 0, 0, false
	}
	return uintptr(a), uintptr(b - a), true
}
