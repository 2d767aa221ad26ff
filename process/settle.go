package process

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Settle gives back the memory that only starting needed: garbage of the heap,
// and the pages of the program itself that were mapped while it was
// initialised. Most of a large program is read once, at start, and would be
// counted as this process's memory for ever; what is needed again is mapped
// again from the page cache, without reading the disk. Call it once, when the
// process serves.
func Settle() error {
	debug.FreeOSMemory()
	return forgetText()
}

// forgetText unmaps the read-only pages of this process's own executable.
// Pages that could have been written to are left alone: they are not in the file.
func forgetText() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("own executable: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("own mappings: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		var (
			start, end, offset, inode uint64
			mode, device, path        string
		)
		n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %x %s %d %s", &start, &end, &mode, &offset, &device, &inode, &path)
		if n != 7 || path != exe || mode != "r-xp" && mode != "r--p" {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("unmap pages of %s: %w", path, errno)
		}
	}
	return nil
}
