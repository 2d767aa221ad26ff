package containerd

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"pgregory.net/rapid"

	"github.com/berth-run/berth/agent/runtime"
)

func TestHierarchies(t *testing.T) {
	const (
		v2     = "24 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		v1     = "30 1 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 1 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:4 - cgroup cgroup rw,cpu,cpuacct\n"
		hybrid = v1 + "32 1 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	)
	for name, c := range map[string]struct{ mounts, memory, unified string }{
		"v2":     {v2, "/sys/fs/cgroup/x", "/sys/fs/cgroup"},
		"v1":     {v1, "/sys/fs/cgroup/memory/x", ""},
		"hybrid": {hybrid, "/sys/fs/cgroup/memory/x", ""},
	} {
		cg, err := parseHierarchies(bufio.NewScanner(strings.NewReader(c.mounts)))
		if err != nil || cg.dir("memory", "/x") != c.memory || cg.unified != c.unified {
			t.Errorf("%s: %+v %v", name, cg, err)
		}
		if name == "hybrid" && !slices.Contains(cg.dirs("/x"), "/sys/fs/cgroup/unified/x") {
			t.Errorf("hybrid: %v", cg.dirs("/x"))
		}
	}
	if _, err := parseHierarchies(bufio.NewScanner(strings.NewReader("nonsense\n"))); err == nil {
		t.Error("a machine without cgroups was accepted")
	}
}

func TestLimits(t *testing.T) {
	g := runtime.Group{CPUQuota: 25000, Memory: 512 << 20, CPUShares: 1024}
	values := func(c cgroups) map[string]string {
		out := map[string]string{}
		for _, w := range c.limits(g) {
			out[w.file] = w.value
		}
		return out
	}
	if got, want := values(cgroups{unified: "/c"}), (map[string]string{
		"cpu.max": "25000 100000", "memory.max": "536870912", "memory.swap.max": "0", "pids.max": "max", "cpu.weight": "39",
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("v2: %v", got)
	}
	if got, want := values(cgroups{v1: map[string]string{}}), (map[string]string{
		"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "25000", "memory.limit_in_bytes": "536870912",
		"memory.memsw.limit_in_bytes": "536870912", "pids.max": "max", "cpu.shares": "1024",
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("v1: %v", got)
	}
}

func TestStatsV2(t *testing.T) {
	files := map[string]string{
		"cpu.stat":       "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
		"memory.current": "4096\n", "memory.peak": "8192\n", "memory.max": "max\n", "memory.stat": "anon 1000\ninactive_file 96\n",
		"memory.events": "low 0\nmax 3\noom_kill 1\n", "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n",
		"pids.current": "5\n", "pids.max": "100\n",
	}
	var s runtime.Stats
	cgroups{}.statsV2(&s, func(_, file string) []byte { return []byte(files[file]) })
	want := runtime.Stats{
		CPU:     runtime.CPUStats{Total: 1500000, User: 1000000, Kernel: 500000, Periods: 4, Throttled: 2, ThrottledTime: 7000},
		Memory:  runtime.MemoryStats{Usage: 4096, Max: 8192, Cache: 96, Failures: 3, Stats: map[string]uint64{"anon": 1000, "inactive_file": 96}},
		BlockIO: []runtime.BlockIO{{Major: 8, ReadBytes: 1, WriteBytes: 2, ReadOps: 3, WriteOps: 4}},
		Pids:    runtime.PidsStats{Current: 5, Limit: 100},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
}

func TestLookup(t *testing.T) {
	const passwd = "root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/:/bin/sh\nbroken:x:y:z::/:/\n"
	const group = "root:x:0:\nweb:x:1001:\nstaff:x:50:root,web\n"
	for in, want := range map[string]specs.User{
		"":         {AdditionalGids: []uint32{50}},
		"root":     {AdditionalGids: []uint32{50}},
		"web":      {UID: 1000, GID: 1001, AdditionalGids: []uint32{50}},
		"1000":     {UID: 1000, GID: 1001, AdditionalGids: []uint32{50}},
		"4711":     {UID: 4711},
		"web:50":   {UID: 1000, GID: 50},
		"7:staff":  {UID: 7, GID: 50},
		"7:123456": {UID: 7, GID: 123456},
	} {
		if got, err := lookup(in, passwd, group); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"ghost", "web:ghosts", "-1", "4294967296", "broken"} {
		if u, err := lookup(in, passwd, group); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%q: %+v %v", in, u, err)
		}
	}
}

func TestCommandLine(t *testing.T) {
	img := runtime.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c"}}
	for _, c := range []struct {
		entry, cmd []string
		want       string
	}{
		{nil, nil, "e c"}, {nil, []string{"x"}, "e x"}, {[]string{"y"}, nil, "y"}, {[]string{"y"}, []string{"x"}, "y x"}, {[]string{}, []string{"x"}, "x"},
	} {
		got, err := commandLine(runtime.Spec{Entrypoint: c.entry, Command: c.cmd}, img)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %q %v", c, got, err)
		}
	}
	if _, err := commandLine(runtime.Spec{Entrypoint: []string{}}, img); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("no command: %v", err)
	}
}

// TestCompileHolds: whatever is asked for, a container that is not privileged
// has the seccomp profile, the masked paths and no capability that was not
// docker's or asked for, and a parent is mounted before its child.
func TestCompileHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := runtime.Spec{
			ID: "c", Command: []string{"x"}, Privileged: rapid.Bool().Draw(t, "privileged"),
			CapAdd:  rapid.SliceOf(rapid.SampledFrom(append([]string{"ALL", "net_admin"}, allCaps...))).Draw(t, "add"),
			CapDrop: rapid.SliceOf(rapid.SampledFrom(append([]string{"ALL"}, allCaps...))).Draw(t, "drop"),
		}
		for _, target := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"/a", "/a/b", "/a/b/c", "/dev/shm", "/etc", "/x/../y"}), rapid.ID).Draw(t, "targets") {
			s.Mounts = append(s.Mounts, runtime.Mount{Kind: runtime.MountTmpfs, Target: target})
		}
		spec, err := compile(s, runtime.ImageConfig{}, place{cgroup: "/g/c", dir: "/d", nofile: 1024})
		if err != nil {
			t.Fatal(err)
		}
		if s.Privileged != (spec.Linux.Seccomp == nil) || s.Privileged != (len(spec.Linux.MaskedPaths) == 0) {
			t.Error("confinement")
		}
		addAll := slices.Contains(s.CapAdd, "ALL")
		for _, c := range spec.Process.Capabilities.Bounding {
			asked := addAll || slices.Contains(s.CapAdd, c) || c == "CAP_NET_ADMIN" && slices.Contains(s.CapAdd, "net_admin")
			dockers := slices.Contains(dockerCaps, c) && !slices.Contains(s.CapDrop, c) && !slices.Contains(s.CapDrop, "ALL")
			if !s.Privileged && !asked && !dockers {
				t.Errorf("capability %s", c)
			}
		}
		for i, m := range spec.Mounts {
			for _, later := range spec.Mounts[i+1:] {
				if strings.HasPrefix(m.Destination, later.Destination+"/") || m.Destination == later.Destination {
					t.Errorf("%s before %s", m.Destination, later.Destination)
				}
			}
		}
	})
}

func TestCompileGolden(t *testing.T) {
	spec, err := compile(runtime.Spec{
		ID: "abcdefabcdefabcdef", Group: "task", Command: []string{"serve"}, NetNS: "/run/n", Hostname: "ip-10-0-0-7", Hosts: []byte("h"), Unconfined: true,
		Memory: 1 << 20, Ulimits: []runtime.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}, Sysctls: map[string]string{"net.core.somaxconn": "9"},
		Mounts: []runtime.Mount{{Kind: runtime.MountBind, Source: "/src", Target: "/dst", ReadOnly: true}},
	}, runtime.ImageConfig{Env: []string{"A=1"}}, place{cgroup: "/berth/x/task/c", dir: "/d", unified: true, nofile: 1024})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/spec.golden.json"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("spec differs from %s:\n%s", file, got)
	}
}

func FuzzKernelFiles(f *testing.F) {
	f.Add([]byte("usage_usec 1\n"), []byte("8:0 Read 4096\n"))
	f.Add([]byte("eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"), []byte("8:0 rbytes=1\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		parseFlat(a)
		parseBlkio(a, b)
		parseIOStat(b)
		parseNetDev(a)
		parseProcStat(a)
		number(a)
		_, _ = parseHierarchies(bufio.NewScanner(strings.NewReader(string(a))))
	})
}

func FuzzImageFiles(f *testing.F) {
	f.Add("web:staff", "web:x:1000:1001::/:/bin/sh\n", "staff:x:50:web\n", []byte(`{"config":{"Healthcheck":{"Interval":1}}}`))
	f.Fuzz(func(t *testing.T, name, passwd, group string, config []byte) {
		if u, err := lookup(name, passwd, group); err == nil && u.UID > 1<<31-1 {
			t.Errorf("uid %d", u.UID)
		}
		_, _ = parseConfig(config)
	})
}
