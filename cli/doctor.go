package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// verdict is what a check found.
type verdict int

const (
	ok verdict = iota
	warn
	fail
)

// A finding is one line of the doctor: what is so, and what to do about it.
type finding struct {
	verdict verdict
	text    string
	hint    string
}

func good(format string, args ...any) finding { return finding{ok, fmt.Sprintf(format, args...), ""} }

func (a *app) doctor() *cobra.Command {
	var listen string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine can run a region",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), 20*time.Second)
			defer cancel()
			bad := 0
			for _, check := range []func(context.Context) finding{
				checkRoot, checkKernel, checkNamespaces, checkOverlay, checkNft, a.checkRuntime, checkCgroup, checkFiles, checkForward,
				func(ctx context.Context) finding { return a.checkPort(ctx, listen) },
				func(context.Context) finding { return checkDisk(a.dataDir) },
				checkMemory, checkCLI,
			} {
				f := check(ctx)
				mark := a.out.green("ok  ")
				switch f.verdict {
				case warn:
					mark = a.out.yellow("warn")
				case fail:
					mark = a.out.red("fail")
					bad++
				}
				a.out.printf("%s  %s\n", mark, f.text)
				if f.hint != "" {
					a.out.printf("      %s\n", strings.ReplaceAll(f.hint, "\n", "\n      "))
				}
			}
			if bad > 0 {
				a.err.printf("\n%d of the checks failed: a region will not work here.\n", bad)
				return errReported
			}
			return nil
		},
	}
	c.Flags().StringVar(&listen, "listen", DefaultListen, "address of the API to check")
	return c
}

func checkRoot(context.Context) finding {
	if os.Geteuid() != 0 {
		return finding{fail, "not root", "A region makes containers and networks: use sudo."}
	}
	return good("root")
}

// minKernel has nftables with ranges in concatenated sets (5.6) and is the
// oldest long-term kernel that does.
var minKernel = [2]int{5, 10}

func checkKernel(context.Context) finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{warn, "kernel of unknown version: " + err.Error(), ""}
	}
	release := unix.ByteSliceToString(u.Release[:])
	if v, known := leadingVersion(release); known && older(v, minKernel) {
		return finding{fail, "kernel " + release, fmt.Sprintf("Linux %d.%d or later is needed.", minKernel[0], minKernel[1])}
	}
	return good("kernel %s on %s", release, runtime.GOARCH)
}

func leadingVersion(s string) (v [2]int, known bool) {
	m := regexp.MustCompile(`(\d+)\.(\d+)`).FindStringSubmatch(s)
	if m == nil {
		return v, false
	}
	for i := range v {
		v[i], _ = strconv.Atoi(m[i+1]) // digits; too many of them are no version
	}
	return v, true
}

func older(v, than [2]int) bool { return v[0] < than[0] || v[0] == than[0] && v[1] < than[1] }

// The checks of kernel features make the thing itself: a module may be built
// in, loaded on demand, or missing, and only the kernel knows.

func checkNamespaces(context.Context) finding {
	if os.Geteuid() != 0 {
		return finding{warn, "namespaces and veth: not checked without root", ""}
	}
	err := inNetns(func() error {
		return exec.Command(sbin("ip"), "link", "add", "berthdoctor", "type", "veth", "peer", "name", "berthdoctor1").Run()
	})
	if errors.Is(err, exec.ErrNotFound) {
		return finding{warn, "veth: not checked, ip is not installed", "apt-get install iproute2"}
	}
	if err != nil {
		return finding{fail, "the kernel makes no network namespace with a veth: " + err.Error(), "It needs CONFIG_NET_NS and CONFIG_VETH (modprobe veth), and in a container all privileges."}
	}
	return good("network namespaces and veth")
}

// inNetns runs f on a thread in a network namespace of its own, which goes
// with the thread.
func inNetns(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("unshare: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

func checkOverlay(context.Context) finding {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return finding{warn, "file systems: " + err.Error(), ""}
	}
	if strings.Contains(string(b), "\toverlay\n") {
		return good("overlay file system")
	}
	if exec.Command(sbin("modprobe"), "-n", "overlay").Run() == nil {
		return good("overlay file system (a module)")
	}
	return finding{fail, "no overlay file system", "Images are mounted with it: modprobe overlay."}
}

// minNft is the first with what the rulesets use.
var minNft = [2]int{1, 0}

func checkNft(ctx context.Context) finding {
	out, err := exec.CommandContext(ctx, sbin("nft"), "--version").Output()
	if err != nil {
		return finding{fail, "nft is not installed", "Security groups are nftables rules: apt-get install nftables"}
	}
	text := strings.TrimSpace(string(out))
	if v, known := leadingVersion(text); known && older(v, minNft) {
		return finding{fail, text, fmt.Sprintf("Version %d.%d or later is needed.", minNft[0], minNft[1])}
	}
	if os.Geteuid() == 0 {
		err := inNetns(func() error {
			cmd := exec.CommandContext(ctx, sbin("nft"), "-f", "-")
			cmd.Stdin = strings.NewReader("table inet berthdoctor {\n chain c {\n  type filter hook forward priority 0\n  ct state established accept\n }\n}\n")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
			}
			return nil
		})
		if err != nil {
			return finding{fail, text + ", and the kernel takes no rules: " + err.Error(), "It needs CONFIG_NF_TABLES and CONFIG_NFT_CT (modprobe nf_tables)."}
		}
	}
	return good("%s", text)
}

func (a *app) checkRuntime(ctx context.Context) finding {
	installed := ""
	for _, name := range []string{"runc", "crun"} {
		out, err := exec.CommandContext(ctx, sbin(name), "--version").Output()
		if err == nil {
			installed, _, _ = strings.Cut(string(out), "\n")
			break
		}
	}
	if installed == "" {
		return finding{fail, "neither runc nor crun is installed", "Containers are started with it: apt-get install runc crun"}
	}
	if os.Geteuid() != 0 {
		return good("%s", installed)
	}
	r, err := a.roles.Runtime(ctx)
	if err != nil {
		return finding{warn, installed + ": which runtime a region would use is not known: " + err.Error(), ""}
	}
	return good("containers are made by %s (%s)", r.Name, r.Why)
}

func checkCgroup(context.Context) finding {
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil {
		return finding{fail, "no cgroups: " + err.Error(), "Mount them at /sys/fs/cgroup: sizes of tasks are enforced by them."}
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		if err != nil {
			return finding{fail, "cgroup v2: " + err.Error(), ""}
		}
		have := strings.Fields(string(b))
		for _, need := range []string{"cpu", "memory", "pids"} {
			if !slices.Contains(have, need) {
				return finding{fail, "cgroup v2 without the controller " + need, "It may be off on the kernel's command line (cgroup_disable)."}
			}
		}
		return good("cgroup v2 (%s)", strings.Join(have, " "))
	}
	for _, need := range []string{"cpu", "memory", "pids"} {
		if _, err := os.Stat("/sys/fs/cgroup/" + need); err != nil {
			return finding{fail, "cgroup v1 without the controller " + need, "Mount it, or switch to cgroup v2."}
		}
	}
	return good("cgroup v1 (cpu memory pids)")
}

// fargateFiles is how many files a process on Fargate may have open.
const fargateFiles = 65535

func checkFiles(context.Context) finding {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return finding{warn, "limit of open files: " + err.Error(), ""}
	}
	if l.Max < fargateFiles {
		return finding{warn, fmt.Sprintf("a process may open %d files", l.Max), fmt.Sprintf("On Fargate it may open %d. ulimit -n %d, in the shell that starts the region, raises it\nwhere that is allowed.", fargateFiles, fargateFiles)}
	}
	return good("a process may open %d files", l.Max)
}

// checkForward looks for a policy that drops what is routed, as Docker sets.
func checkForward(ctx context.Context) finding {
	if os.Geteuid() != 0 {
		return finding{warn, "forwarding: not checked without root", ""}
	}
	out, err := exec.CommandContext(ctx, sbin("nft"), "-s", "list", "chains").Output()
	if err != nil {
		return finding{warn, "forwarding: nft does not list the chains", ""}
	}
	if dropsForward(string(out)) {
		return finding{warn, "another program drops what this machine routes (Docker does, unless told not to)",
			"Berth accepts its own networks' packets before that. If tasks cannot reach each other,\nnft list chain ip filter FORWARD shows what else drops them."}
	}
	return good("nothing drops what this machine routes")
}

// dropsForward reports whether a base chain of the forward hook drops by policy.
func dropsForward(chains string) bool {
	for line := range strings.Lines(chains) {
		if strings.Contains(line, "hook forward") && strings.Contains(line, "policy drop") {
			return true
		}
	}
	return false
}

func (a *app) checkPort(ctx context.Context, listen string) finding {
	if env, err := a.roles.Environment(ctx, a.dataDir); err == nil {
		return good("a region is running at %s", env.Endpoint)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return finding{fail, err.Error(), "Another program has the address: " + a.command("up --listen 127.0.0.1:4567") + " takes another."}
	}
	l.Close()
	return good("%s is free", listen)
}

// What a region should have for its images and database.
const (
	minDisk    = 1 << 30
	betterDisk = 5 << 30
)

func checkDisk(dir string) finding {
	at := dir
	for {
		if _, err := os.Stat(at); err == nil || at == "/" {
			break
		}
		at = filepath.Dir(at)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil {
		return finding{warn, "free space of " + at + ": " + err.Error(), ""}
	}
	free := fs.Bavail * uint64(fs.Bsize)
	text := fmt.Sprintf("%.1f GiB free for %s", float64(free)/(1<<30), dir)
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return finding{warn, text + ", on an overlay file system", "Images cannot be mounted on it by the kernel's overlay: give --data-dir on another file system."}
	}
	switch {
	case free < minDisk:
		return finding{fail, text, "A region needs 1 GiB at the least."}
	case free < betterDisk:
		return finding{warn, text, "Images may fill it."}
	}
	return good("%s", text)
}

func checkMemory(context.Context) finding {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return finding{warn, "memory: " + err.Error(), ""}
	}
	total := uint64(si.Totalram) * uint64(si.Unit)
	text := fmt.Sprintf("%d CPUs, %.1f GiB memory", runtime.NumCPU(), float64(total)/(1<<30))
	if total < 1<<30 {
		return finding{warn, text, "Tasks of the smallest Fargate size take 0.5 GiB each."}
	}
	return good("%s", text)
}

// sbin finds a program that an ordinary user's PATH does not show.
func sbin(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	return name
}
