package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/dataplane/vpc"
	"github.com/berth-run/berth/process"
)

// Remains says what a region may have left on a machine.
type Remains struct {
	ShortID string
	RunDir  string // everything below it is the region's
	DataDir string // mounts below it are
	Cgroup  string // below the root of each hierarchy
}

// CleanUp takes out of the machine what the region put into it: containers and
// their shims, mounts, networks, cgroups. It needs nothing but names, so it
// works after any crash, and again after it was itself interrupted. The
// region's own processes must have ended before.
func CleanUp(ctx context.Context, r Remains) error {
	groups, err := cgroups(r.Cgroup)
	if err != nil {
		return err
	}
	// Shims first: each would report the end of its containers to nobody.
	if err := kill(ctx, shims(r.RunDir)); err != nil {
		return err
	}
	for {
		var pids []int
		for _, g := range groups {
			pids = append(pids, members(g)...)
		}
		if len(pids) == 0 {
			break
		}
		slices.Sort(pids)
		if err := kill(ctx, slices.Compact(pids)); err != nil {
			return err
		}
	}
	errs := []error{
		unmount(r.RunDir, filepath.Join(r.RunDir, "netns")), unmount(r.DataDir, ""),
		vpc.CleanUp(ctx, vpc.Options{Region: r.ShortID, RunDir: r.RunDir}),
	}
	for _, g := range groups {
		errs = append(errs, removeGroups(ctx, g))
		// All regions share the parent; it goes with the last of them.
		_ = unix.Rmdir(filepath.Dir(g))
	}
	// A shim that was killed before it had written where its runtime keeps what is cleaned up after by
	// the runtime's default, which makes this folder.
	for _, dir := range []string{"/run/containerd/runc/berth-" + r.ShortID, "/run/containerd/runc", "/run/containerd/s", "/run/containerd"} {
		_ = unix.Rmdir(dir) // only if it is empty, so only if it is nobody else's
	}
	errs = append(errs, os.RemoveAll(r.RunDir))
	return errors.Join(errs...)
}

// cgroups are the region's cgroup in each hierarchy that has it.
func cgroups(path string) (dirs []string, err error) {
	mounts, err := mountPoints(func(fstype, _ string) bool { return fstype == "cgroup" || fstype == "cgroup2" })
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if d := filepath.Join(m, path); exists(d) {
			dirs = append(dirs, d)
		}
	}
	return dirs, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// mountPoints are those that match, in the order they were mounted.
func mountPoints(match func(fstype, point string) bool) (points []string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if !ok || len(b) < 5 || len(a) < 1 {
			continue
		}
		point := b[4]
		for _, esc := range [][2]string{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
			point = strings.ReplaceAll(point, esc[0], esc[1])
		}
		if match(a[0], point) {
			points = append(points, point)
		}
	}
	return points, s.Err()
}

// members are the processes of a cgroup and those below it.
func members(dir string) (pids []int) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// shims are the processes whose binary or arguments lie in the region's run directory.
func shims(runDir string) (pids []int) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	for _, dir := range all {
		exe, _ := os.Readlink(filepath.Join(dir, "exe"))
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		argv := strings.Split(string(args), "\x00")
		inArgs := strings.HasPrefix(argv[0], runDir+"/") || slices.Contains(argv, "-address") && slices.ContainsFunc(argv, func(a string) bool { return strings.HasPrefix(a, runDir+"/") })
		if strings.HasPrefix(exe, runDir+"/") || inArgs {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill ends processes for good and waits for each.
func kill(ctx context.Context, pids []int) error {
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := process.Kill(pid, 10*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// unmount takes away what is mounted below dir, last mounted first. What lies
// below except is left to others.
func unmount(dir, except string) error {
	points, err := mountPoints(func(_, p string) bool {
		return strings.HasPrefix(p, dir+"/") && (except == "" || !strings.HasPrefix(p, except+"/"))
	})
	if err != nil {
		return err
	}
	slices.Reverse(points)
	for _, p := range points {
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// removeGroups removes a cgroup and those below it, the deepest first. The
// kernel lets go of a dead process a moment after its end was seen, and tells
// nobody when.
func removeGroups(ctx context.Context, dir string) error {
	const most = time.Second
	for wait := time.Millisecond; ; wait *= 2 {
		err := removeTree(dir)
		if !errors.Is(err, unix.EBUSY) || wait > most {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

func removeTree(dir string) error {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what vanishes while we look is as good as removed
	})
	slices.Reverse(dirs)
	var errs []error
	for _, d := range dirs {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", d, err))
		}
	}
	return errors.Join(errs...)
}
