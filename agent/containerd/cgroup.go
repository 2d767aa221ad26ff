package containerd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/agent/runtime"
)

const defaultPeriod = 100_000 // microseconds

// cgroups is the region's place in the cgroup hierarchy, of whichever version
// the machine has.
type cgroups struct {
	base    string            // "/berth/3f9a01"
	unified string            // mount point of v2, if that is what rules
	v1      map[string]string // controller -> mount point
}

// newCgroups finds the hierarchies as they are mounted. On a hybrid machine
// version 1 has the controllers and counts.
func newCgroups(base string) (cgroups, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return cgroups{}, err
	}
	defer f.Close()
	c, err := parseHierarchies(bufio.NewScanner(f))
	if err != nil {
		return cgroups{}, err
	}
	c.base = base
	return c, nil
}

func parseHierarchies(lines *bufio.Scanner) (cgroups, error) {
	c := cgroups{v1: map[string]string{}}
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		fields, fs := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(fs) < 3 {
			continue
		}
		switch fs[0] {
		case "cgroup2":
			if c.unified == "" {
				c.unified = fields[4]
			}
		case "cgroup":
			for _, o := range strings.Split(fs[2], ",") {
				if _, taken := c.v1[o]; !taken {
					c.v1[o] = fields[4]
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		return c, err
	}
	if _, ok := c.v1["memory"]; ok {
		if c.unified != "" {
			// Hybrid: runc makes a directory there too, without limits.
			c.v1["unified"], c.unified = c.unified, ""
		}
	} else if c.unified == "" {
		return c, errors.New("no cgroup hierarchy with a memory controller is mounted")
	}
	return c, nil
}

// controllers are those a group and its containers are limited and measured by.
var controllers = []string{"cpu", "memory", "pids", "cpuset", "io"}

// v1Controllers by hierarchy: what a group needs a directory in. Runc makes
// the containers' in all others.
var v1Controllers = []string{"cpu", "cpuacct", "memory", "pids", "blkio"}

// path is a group's or a container's cgroup as runc wants to be told it.
func (c cgroups) path(parts ...string) string {
	return filepath.Join(append([]string{c.base}, parts...)...)
}

// dir is where a controller's files of a cgroup are.
func (c cgroups) dir(controller, path string) string {
	if c.unified != "" {
		return filepath.Join(c.unified, path)
	}
	return filepath.Join(c.v1[controller], path)
}

// dirs are all directories that a cgroup has.
func (c cgroups) dirs(path string) []string {
	if c.unified != "" {
		return []string{filepath.Join(c.unified, path)}
	}
	var out []string
	seen := map[string]bool{}
	for _, mount := range c.v1 {
		if !seen[mount] {
			seen[mount] = true
			out = append(out, filepath.Join(mount, path))
		}
	}
	return out
}

// CreateGroup implements runtime.Runtime.
func (r *Runtime) CreateGroup(ctx context.Context, g runtime.Group) error {
	if err := validName(g.Name); err != nil {
		return err
	}
	if err := r.cg.create(r.cg.path(g.Name)); err != nil {
		return fmt.Errorf("group %s: %w", g.Name, err)
	}
	for _, w := range r.cg.limits(g) {
		if err := os.WriteFile(filepath.Join(r.cg.dir(w.controller, r.cg.path(g.Name)), w.file), []byte(w.value), 0o644); err != nil {
			if w.may == anything || w.may == missing && (errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission)) {
				continue
			}
			return fmt.Errorf("group %s: %s=%s: %w", g.Name, w.file, w.value, err)
		}
	}
	return nil
}

// create makes a cgroup. On v2 the controllers have to be handed down from
// the root, level by level.
func (c cgroups) create(path string) error {
	if c.unified == "" {
		for _, controller := range v1Controllers {
			if mount, ok := c.v1[controller]; ok {
				if err := os.MkdirAll(filepath.Join(mount, path), 0o755); err != nil {
					return err
				}
			}
		}
		return nil
	}
	at := c.unified
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if err := handDown(at); err != nil {
			return err
		}
		at = filepath.Join(at, name)
		if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return handDown(at)
}

func handDown(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	on, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	var want []string
	for _, c := range strings.Fields(string(have)) {
		if contains(controllers, c) && !contains(strings.Fields(string(on)), c) {
			want = append(want, "+"+c)
		}
	}
	if len(want) == 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(strings.Join(want, " ")), 0o644)
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// write is one value for one cgroup file.
type write struct {
	controller, file, value string
	may                     failure
}

// failure says which failures of a write do not matter.
type failure int

const (
	nothing  failure = iota
	missing          // the file is not there: this kernel does not count swap
	anything         // it is tried again
)

// limits are the files that say what a group may use; no limit is written
// too, for the group may have had one.
func (c cgroups) limits(g runtime.Group) []write {
	period := g.CPUPeriod
	if period == 0 {
		period = defaultPeriod
	}
	if c.unified != "" {
		quota := "max"
		if g.CPUQuota > 0 {
			quota = strconv.FormatInt(g.CPUQuota, 10)
		}
		w := []write{
			{"cpu", "cpu.max", quota + " " + strconv.FormatUint(period, 10), nothing},
			{"memory", "memory.max", orMax(g.Memory, "max"), nothing},
			// Without a limit on swap, memory is a limit on nothing.
			{"memory", "memory.swap.max", map[bool]string{true: "0", false: "max"}[g.Memory > 0], missing},
			{"pids", "pids.max", orMax(g.Pids, "max"), nothing},
		}
		if g.CPUShares > 0 {
			w = append(w, write{"cpu", "cpu.weight", strconv.FormatUint(weight(g.CPUShares), 10), nothing})
		}
		return w
	}
	quota := "-1"
	if g.CPUQuota > 0 {
		quota = strconv.FormatInt(g.CPUQuota, 10)
	}
	w := []write{
		{"cpu", "cpu.cfs_period_us", strconv.FormatUint(period, 10), nothing},
		{"cpu", "cpu.cfs_quota_us", quota, nothing},
		// The limit with swap may never be below the limit without: going up
		// the one comes first, going down the other.
		{"memory", "memory.memsw.limit_in_bytes", orMax(g.Memory, "-1"), anything},
		{"memory", "memory.limit_in_bytes", orMax(g.Memory, "-1"), nothing},
		{"memory", "memory.memsw.limit_in_bytes", orMax(g.Memory, "-1"), missing},
		{"pids", "pids.max", orMax(g.Pids, "max"), nothing},
	}
	if g.CPUShares > 0 {
		w = append(w, write{"cpu", "cpu.shares", strconv.FormatUint(g.CPUShares, 10), nothing})
	}
	return w
}

func orMax(v int64, none string) string {
	if v <= 0 {
		return none
	}
	return strconv.FormatInt(v, 10)
}

// weight maps v1's shares (2..262144) to v2's weight (1..10000) as runc does.
func weight(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + ((shares-2)*9999)/262142
}

// DeleteGroup implements runtime.Runtime.
func (r *Runtime) DeleteGroup(ctx context.Context, name string) error {
	if err := validName(name); err != nil {
		return err
	}
	var errs []error
	for _, dir := range r.cg.dirs(r.cg.path(name)) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete group %s: %w", name, err)
	}
	return nil
}

// Groups implements runtime.Runtime.
func (r *Runtime) Groups(ctx context.Context) ([]string, error) {
	entries, err := os.ReadDir(r.cg.dir("memory", r.cg.base))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && !slices.Contains(r.cfg.Others, e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// validName: group names and container ids become path elements.
func validName(name string) error {
	if name == "" || len(name) > 128 || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return fmt.Errorf("name %q: %w", name, runtime.ErrInvalid)
	}
	return nil
}

// oomKills counts the processes of a cgroup that the kernel killed for
// memory. It is exact where an event could be missed: the count stays until
// the cgroup goes.
func (c cgroups) oomKills(path string) uint64 {
	file := "memory.oom_control"
	if c.unified != "" {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(c.dir("memory", path), file))
	if err != nil {
		return 0
	}
	return parseFlat(b)["oom_kill"]
}

// parseFlat reads the kernel's "name value" lines. What is no number is left
// out.
func parseFlat(b []byte) map[string]uint64 {
	out := map[string]uint64{}
	for line := range bytes.Lines(b) {
		k, v, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		if n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64); ok && err == nil {
			out[k] = n
		}
	}
	return out
}

// processes are those in a cgroup.
func (c cgroups) processes(path string) ([]int, error) {
	seen := map[int]bool{}
	for _, dir := range c.dirs(path) {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				seen[pid] = true
			}
		}
	}
	return slices.Collect(maps.Keys(seen)), nil
}

// remove removes a container's cgroup, if the runtime has left any of
// it behind.
func (c cgroups) remove(path string) error {
	var errs []error
	for _, dir := range c.dirs(path) {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
			errs = append(errs, fmt.Errorf("rmdir %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}
