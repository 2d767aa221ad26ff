package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/test/lab"
)

var roles = []string{"up", "server", "node", "agent", "containerd"}

// usage is what the kernel counts of one process: bytes, and the time that it
// and its children that have ended took of the processors.
type usage struct {
	rss, pss, anon int64
	own, children  time.Duration
}

// memory is that of a region's processes, and of the shims of its daemon.
type memory struct {
	roles            map[string]usage
	shims            int
	shimRSS, shimPSS int64
	// The OCI runtime is the shims' child, and `start` the daemon's.
	shimOwn, shimChildren time.Duration
}

func measure(r *lab.Region) (memory, error) {
	m := memory{roles: map[string]usage{}}
	pids, err := r.Processes()
	if err != nil {
		return m, err
	}
	for role, pid := range pids {
		u, err := read(pid)
		if err != nil {
			return m, err
		}
		m.roles[role] = u
	}
	// A shim is the program of the region's run directory, and says which
	// namespace it serves; those of the peer are not counted.
	shim := filepath.Join(r.RunDir(), "containerd", "containerd-shim-runc-v2")
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return m, err
	}
	for _, dir := range dirs {
		b, err := os.ReadFile(dir + "/cmdline")
		if err != nil || !strings.HasPrefix(string(b), shim+"\x00") || bytes.Contains(b, []byte("\x00"+bareNamespace+"\x00")) {
			continue
		}
		var pid int
		fmt.Sscanf(dir, "/proc/%d", &pid)
		u, err := read(pid)
		if err != nil {
			return m, err
		}
		m.shims++
		m.shimRSS += u.rss
		m.shimPSS += u.pss
		m.shimOwn += u.own
		m.shimChildren += u.children
	}
	return m, nil
}

func read(pid int) (u usage, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return u, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var (
			name string
			kb   int64
		)
		if n, _ := fmt.Sscan(lines.Text(), &name, &kb); n < 2 {
			continue
		}
		switch name {
		case "Rss:":
			u.rss = kb << 10
		case "Pss:":
			u.pss = kb << 10
		case "Anonymous:":
			u.anon = kb << 10
		}
	}
	b, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// After the name, which is in parentheses: the 14th to the 17th field of all.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	for i, d := range []*time.Duration{&u.own, &u.own, &u.children, &u.children} {
		ticks, err := strconv.ParseInt(fields[11+i], 10, 64)
		if err != nil {
			return u, err
		}
		*d += time.Duration(ticks) * tick
	}
	return u, nil
}

// tick is the unit of /proc/<pid>/stat, on all machines of today.
const tick = time.Second / 100
