package containerd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"

	"github.com/berth-run/berth/agent/runtime"
)

// Stats implements runtime.Runtime. The counters are read from the kernel, not
// through containerd: a task costs it nothing between its start and its end.
func (r *Runtime) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	if err := validName(id); err != nil {
		return runtime.Stats{}, err
	}
	got, err := r.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		return runtime.Stats{}, fmt.Errorf("stats of %s: %w", id, native(err))
	}
	if got.Process.Status == stopped || got.Process.Pid == 0 {
		return runtime.Stats{}, fmt.Errorf("stats of %s: %w", id, runtime.ErrNotRunning)
	}
	group, ok := r.groupOf(id)
	if !ok {
		return runtime.Stats{}, fmt.Errorf("stats of %s: %w", id, runtime.ErrNotFound)
	}
	s, err := r.cg.stats(r.cg.path(group, id))
	if err != nil {
		return runtime.Stats{}, fmt.Errorf("stats of %s: %w", id, err)
	}
	dev, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", got.Process.Pid))
	if err != nil {
		return runtime.Stats{}, fmt.Errorf("stats of %s: %w", id, runtime.ErrNotRunning)
	}
	s.Network = parseNetDev(dev)
	return s, nil
}

// stats reads a cgroup's counters.
func (c cgroups) stats(path string) (runtime.Stats, error) {
	s := runtime.Stats{Time: time.Now(), BlockIO: nil}
	read := func(controller, file string) []byte {
		b, err := os.ReadFile(filepath.Join(c.dir(controller, path), file))
		if err != nil {
			return nil // this kernel does not tell
		}
		return b
	}
	if _, err := os.Stat(c.dir("memory", path)); errors.Is(err, os.ErrNotExist) {
		return s, runtime.ErrNotRunning
	}
	if stat, err := os.ReadFile("/proc/stat"); err == nil {
		s.CPU.System, s.CPU.OnlineCPUs = parseProcStat(stat)
	}
	if c.unified != "" {
		c.statsV2(&s, read)
	} else {
		c.statsV1(&s, read)
	}
	return s, nil
}

func (c cgroups) statsV1(s *runtime.Stats, read func(controller, file string) []byte) {
	s.CPU.Total = number(read("cpuacct", "cpuacct.usage"))
	for _, f := range strings.Fields(string(read("cpuacct", "cpuacct.usage_percpu"))) {
		n, _ := strconv.ParseUint(f, 10, 64)
		s.CPU.PerCPU = append(s.CPU.PerCPU, n)
	}
	const tick = uint64(time.Second) / 100 // USER_HZ, fixed in the kernel's interface
	acct := parseFlat(read("cpuacct", "cpuacct.stat"))
	s.CPU.User, s.CPU.Kernel = acct["user"]*tick, acct["system"]*tick
	cpu := parseFlat(read("cpu", "cpu.stat"))
	s.CPU.Periods, s.CPU.Throttled, s.CPU.ThrottledTime = cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_time"]

	s.Memory.Usage = number(read("memory", "memory.usage_in_bytes"))
	s.Memory.Max = number(read("memory", "memory.max_usage_in_bytes"))
	s.Memory.Failures = number(read("memory", "memory.failcnt"))
	s.Memory.Stats = parseFlat(read("memory", "memory.stat"))
	s.Memory.Cache = s.Memory.Stats["total_inactive_file"]
	s.Memory.Limit = s.Memory.Stats["hierarchical_memory_limit"]
	s.Memory.Limit = bound(s.Memory.Limit)

	s.BlockIO = parseBlkio(read("blkio", "blkio.throttle.io_service_bytes_recursive"), read("blkio", "blkio.throttle.io_serviced_recursive"))
	s.Pids.Current = number(read("pids", "pids.current"))
	s.Pids.Limit = number(read("pids", "pids.max"))
}

func (c cgroups) statsV2(s *runtime.Stats, read func(controller, file string) []byte) {
	cpu := parseFlat(read("cpu", "cpu.stat"))
	const us = uint64(time.Microsecond)
	s.CPU.Total, s.CPU.User, s.CPU.Kernel = cpu["usage_usec"]*us, cpu["user_usec"]*us, cpu["system_usec"]*us
	s.CPU.Periods, s.CPU.Throttled, s.CPU.ThrottledTime = cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_usec"]*us

	s.Memory.Usage = number(read("memory", "memory.current"))
	s.Memory.Max = number(read("memory", "memory.peak"))
	s.Memory.Limit = number(read("memory", "memory.max"))
	s.Memory.Stats = parseFlat(read("memory", "memory.stat"))
	s.Memory.Cache = s.Memory.Stats["inactive_file"]
	s.Memory.Failures = parseFlat(read("memory", "memory.events"))["max"]
	s.Memory.Limit = bound(s.Memory.Limit)

	s.BlockIO = parseIOStat(read("io", "io.stat"))
	s.Pids.Current = number(read("pids", "pids.current"))
	s.Pids.Limit = number(read("pids", "pids.max"))
}

// bound is a memory limit, or 0 for the number that the kernel shows for none.
func bound(limit uint64) uint64 {
	if limit >= 1<<62 {
		return 0
	}
	return limit
}

// number reads a file of one number; "max" and nothing are 0.
func number(b []byte) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// parseBlkio reads v1's "8:0 Read 4096" lines of bytes and of operations.
func parseBlkio(byteLines, opLines []byte) []runtime.BlockIO {
	var out []runtime.BlockIO
	at := map[[2]uint64]int{}
	each := func(lines []byte, add func(d *runtime.BlockIO, op string, n uint64)) {
		for line := range bytes.Lines(lines) {
			f := strings.Fields(string(line))
			if len(f) != 3 {
				continue
			}
			dev, ok := device(f[0])
			n, err := strconv.ParseUint(f[2], 10, 64)
			if !ok || err != nil {
				continue
			}
			i, have := at[dev]
			if !have {
				i = len(out)
				at[dev] = i
				out = append(out, runtime.BlockIO{Major: dev[0], Minor: dev[1]})
			}
			add(&out[i], f[1], n)
		}
	}
	each(byteLines, func(d *runtime.BlockIO, op string, n uint64) {
		switch op {
		case "Read":
			d.ReadBytes = n
		case "Write":
			d.WriteBytes = n
		}
	})
	each(opLines, func(d *runtime.BlockIO, op string, n uint64) {
		switch op {
		case "Read":
			d.ReadOps = n
		case "Write":
			d.WriteOps = n
		}
	})
	return out
}

// parseIOStat reads v2's "8:0 rbytes=1 wbytes=2 rios=3 wios=4" lines.
func parseIOStat(b []byte) []runtime.BlockIO {
	var out []runtime.BlockIO
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		dev, ok := device(f[0])
		if !ok {
			continue
		}
		d := runtime.BlockIO{Major: dev[0], Minor: dev[1]}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseUint(v, 10, 64)
			switch k {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.ReadOps = n
			case "wios":
				d.WriteOps = n
			}
		}
		out = append(out, d)
	}
	return out
}

func device(s string) ([2]uint64, bool) {
	major, minor, ok := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	return [2]uint64{a, b}, ok && err1 == nil && err2 == nil
}

// parseNetDev reads /proc/<pid>/net/dev.
func parseNetDev(b []byte) map[string]runtime.NetworkStats {
	out := map[string]runtime.NetworkStats{}
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		name, rest, ok := strings.Cut(s.Text(), ":")
		f := strings.Fields(rest)
		name = strings.TrimSpace(name)
		if !ok || len(f) < 16 || name == "lo" {
			continue
		}
		var n [16]uint64
		for i := range n {
			n[i], _ = strconv.ParseUint(f[i], 10, 64)
		}
		out[name] = runtime.NetworkStats{
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3],
			TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		}
	}
	return out
}

// parseProcStat sums the machine's CPU time as docker does (user to steal),
// and counts its CPUs.
func parseProcStat(b []byte) (total uint64, cpus int) {
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) == 0 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		if f[0] != "cpu" {
			cpus++
			continue
		}
		for _, v := range f[1:min(len(f), 9)] {
			n, _ := strconv.ParseUint(v, 10, 64)
			total += n * uint64(10*time.Millisecond)
		}
	}
	if cpus == 0 {
		cpus = goruntime.NumCPU()
	}
	return total, cpus
}
