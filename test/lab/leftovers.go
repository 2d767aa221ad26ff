package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Leftovers lists what of the region is on this machine: one line for each
// process, link, route, firewall object, namespace, mount, cgroup, socket and
// folder with the region's mark. It must be empty before the region's first
// start and after its purge. What is other regions', or nobody's, it does not see.
func (r *Region) Leftovers() ([]string, error) {
	var all []string
	for _, look := range []func() ([]string, error){r.processes, r.links, r.routes, r.firewall, r.mounts, r.cgroups, r.sockets, r.folders} {
		found, err := look()
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// Gone waits until nothing of the region is left. The kernel takes some things
// away only some time after the last of their users.
func (r *Region) Gone(ctx context.Context) error {
	var left []string
	err := Until(ctx, func(context.Context) (bool, error) {
		var err error
		left, err = r.Leftovers()
		return len(left) == 0, err
	})
	if errors.Is(err, ErrLate) {
		return fmt.Errorf("left behind by region %s (%s):\n%s", r.ShortID(), r.Dir, strings.Join(left, "\n"))
	}
	return err
}

// below reports whether path is one of the region's.
func (r *Region) below(path string) bool {
	for _, dir := range []string{r.Dir, r.RunDir()} {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}

func (r *Region) processes() (found []string, err error) {
	mark := "/berth/" + r.ShortID()
	err = eachProcess(func(pid int, args []string) {
		dir := "/proc/" + strconv.Itoa(pid)
		exe, _ := os.Readlink(dir + "/exe")
		cgroup, _ := os.ReadFile(dir + "/cgroup")
		ours := r.below(exe) || bytes.Contains(cgroup, []byte(mark+"/")) || bytes.HasSuffix(bytes.TrimSpace(cgroup), []byte(mark))
		for _, a := range args {
			// The binary may lie beside the data; a flag may have its value after "=".
			_, value, _ := strings.Cut(a, "=")
			ours = ours || r.below(a) || r.below(value)
		}
		if ours && pid != os.Getpid() {
			found = append(found, fmt.Sprintf("process %d %s", pid, strings.Join(args, " ")))
		}
	})
	return found, err
}

func (r *Region) links() (found []string, err error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "b"+r.ShortID()+"-") {
			found = append(found, "link "+l.Attrs().Name)
		}
	}
	return found, nil
}

// routes finds the route that keeps the region's pool of public addresses to
// this machine. Its metric is the region's mark.
func (r *Region) routes() (found []string, err error) {
	h := fnv.New32a()
	h.Write([]byte(r.ShortID()))
	metric := int(h.Sum32()>>2 | 1<<30)
	routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Type: unix.RTN_UNREACHABLE}, netlink.RT_FILTER_TYPE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	for _, route := range routes {
		if route.Priority == metric {
			found = append(found, fmt.Sprintf("route unreachable %s metric %d", route.Dst, metric))
		}
	}
	return found, nil
}

// firewall finds the region's table, and its rules in tables of others.
func (r *Region) firewall() (found []string, err error) {
	out, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		return nil, fmt.Errorf("nft list ruleset: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "berth-"+r.ShortID()) {
			found = append(found, "nft "+strings.TrimSpace(line))
		}
	}
	return found, nil
}

func (r *Region) mounts() (found []string, err error) {
	err = eachMount(func(point, kind string) {
		if r.below(point) {
			found = append(found, "mount "+kind+" "+point)
		}
	})
	return found, err
}

func eachMount(f func(point, kind string)) error {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer file.Close()
	s := bufio.NewScanner(file)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		left, right, ok := strings.Cut(s.Text(), " - ")
		if fields := strings.Fields(left); ok && len(fields) > 4 {
			kind, _, _ := strings.Cut(right, " ")
			f(fields[4], kind)
		}
	}
	return s.Err()
}

// cgroups finds the region's cgroups in every hierarchy.
func (r *Region) cgroups() (found []string, err error) {
	var roots []string
	err = eachMount(func(point, kind string) {
		if kind == "cgroup" || kind == "cgroup2" {
			roots = append(roots, point)
		}
	})
	for _, root := range roots {
		dir := filepath.Join(root, "berth", r.ShortID())
		werr := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // went as we looked
			}
			if err == nil && d.IsDir() {
				found = append(found, "cgroup "+path)
			}
			return err
		})
		err = errors.Join(err, werr)
	}
	return found, err
}

func (r *Region) sockets() (found []string, err error) {
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 8 && r.below(strings.TrimPrefix(f[7], "@")) {
			found = append(found, "socket "+f[7])
		}
	}
	if c, err := net.DialTimeout("tcp", r.Listen, time.Second); err == nil {
		c.Close()
		found = append(found, "socket "+r.Listen)
	}
	return found, nil
}

func (r *Region) folders() (found []string, err error) {
	for _, dir := range []string{r.Dir, r.RunDir()} {
		if _, err := os.Lstat(dir); err == nil {
			found = append(found, "folder "+dir)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return found, nil
}

// Inventory is what of a running region grows and shrinks with its tasks. Two
// inventories of a region without tasks must be equal: what the second has
// more has leaked.
type Inventory struct {
	Namespaces []string // network namespaces and their ready markers
	Links      []string // in the machine's namespace and those of the VPCs
	Routes     []string
	Firewall   []string // elements of sets and maps, in the VPCs' tables
	Cgroups    []string
	Mounts     []string
	Shims      []string
	Containers []string
	Snapshots  []string // of containers; layers of images are not the tasks'
	Leases     []string
	Agent      []string // checkpoints, volumes and generated files
}

// Inventory looks at what the region has.
func (r *Region) Inventory(ctx context.Context) (inv Inventory, err error) {
	netnsDir := filepath.Join(r.RunDir(), "netns")
	entries, err := os.ReadDir(netnsDir)
	if err != nil {
		return inv, err
	}
	for _, e := range entries {
		inv.Namespaces = append(inv.Namespaces, e.Name())
		if strings.HasPrefix(e.Name(), "eni-") && !strings.HasSuffix(e.Name(), ".ready") {
			// An instance's: what its agent has plugged in.
			if err := inv.devices(e.Name(), filepath.Join(netnsDir, e.Name())); err != nil {
				return inv, fmt.Errorf("in %s: %w", e.Name(), err)
			}
		}
		if !strings.HasPrefix(e.Name(), "vpc-") || strings.HasSuffix(e.Name(), ".ready") {
			continue
		}
		if err := inv.inside(e.Name(), filepath.Join(netnsDir, e.Name())); err != nil {
			return inv, fmt.Errorf("in %s: %w", e.Name(), err)
		}
	}
	host, err := r.links()
	if err != nil {
		return inv, err
	}
	inv.Links = append(inv.Links, host...)
	if inv.Cgroups, err = r.cgroups(); err != nil {
		return inv, err
	}
	if inv.Mounts, err = r.mounts(); err != nil {
		return inv, err
	}
	all, err := r.processes()
	if err != nil {
		return inv, err
	}
	for _, p := range all {
		if strings.Contains(p, "containerd-shim") {
			inv.Shims = append(inv.Shims, p)
		}
	}
	if err := inv.containerd(ctx, r); err != nil {
		return inv, fmt.Errorf("containerd: %w", err)
	}
	own, _ := filepath.Glob(filepath.Join(r.Dir, "node/instance/i/*/ecs"))
	passing, _ := filepath.Glob(filepath.Join(r.RunDir(), "i/*"))
	for _, dir := range slices.Concat([]string{filepath.Join(r.Dir, "node", "agent"), filepath.Join(r.RunDir(), "agent")}, own, passing) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && !d.IsDir() {
				inv.Agent = append(inv.Agent, path)
			}
			return err
		})
		if err != nil {
			return inv, err
		}
	}
	for _, list := range []*[]string{&inv.Namespaces, &inv.Links, &inv.Routes, &inv.Firewall, &inv.Cgroups, &inv.Mounts, &inv.Shims, &inv.Containers, &inv.Snapshots, &inv.Leases, &inv.Agent} {
		slices.Sort(*list)
	}
	return inv, nil
}

// devices are the links of a namespace, which may go meanwhile.
func (inv *Inventory) devices(name, path string) error {
	ns, err := netns.GetFromPath(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if errors.Is(err, unix.EINVAL) {
		return nil // the file is still there, the namespace is not mounted at it any more
	}
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	for _, l := range links {
		inv.Links = append(inv.Links, name+" "+l.Attrs().Name)
	}
	return nil
}

// inside lists what is in the network namespace of a VPC.
func (inv *Inventory) inside(name, path string) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	for _, l := range links {
		inv.Links = append(inv.Links, name+" "+l.Attrs().Name)
	}
	routes, err := h.RouteListFiltered(unix.AF_INET, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	for _, route := range routes {
		inv.Routes = append(inv.Routes, fmt.Sprintf("%s %s table %d", name, route.Dst, route.Table))
	}
	out, err := exec.Command("nsenter", "--net="+path, "nft", "-j", "list", "ruleset").Output()
	if err != nil {
		return fmt.Errorf("nft: %w", err)
	}
	var ruleset struct {
		Nftables []struct {
			Set, Map *struct {
				Name string
				Elem []any
			}
			Chain *struct{ Name string }
		}
	}
	if err := json.Unmarshal(out, &ruleset); err != nil {
		return err
	}
	for _, o := range ruleset.Nftables {
		if o.Chain != nil {
			inv.Firewall = append(inv.Firewall, name+" chain "+o.Chain.Name)
		}
		for _, s := range []*struct {
			Name string
			Elem []any
		}{o.Set, o.Map} {
			if s == nil {
				continue
			}
			for _, e := range s.Elem {
				text, err := json.Marshal(e)
				if err != nil {
					return err
				}
				inv.Firewall = append(inv.Firewall, fmt.Sprintf("%s %s %s", name, s.Name, text))
			}
		}
	}
	return nil
}

func (inv *Inventory) containerd(ctx context.Context, r *Region) error {
	c, err := client.New(filepath.Join(r.RunDir(), "containerd", "c.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.NamespaceService().List(ctx)
	if err != nil {
		return err
	}
	for _, name := range all {
		// The region's own, and those of its instances and their tasks.
		if name != "berth-"+r.ShortID() && !strings.HasPrefix(name, "berth-"+r.ShortID()+"-") {
			continue
		}
		if err := inv.namespace(namespaces.WithNamespace(ctx, name), c); err != nil {
			return fmt.Errorf("namespace %s: %w", name, err)
		}
	}
	return nil
}

func (inv *Inventory) namespace(ctx context.Context, c *client.Client) error {
	containers, err := c.Containers(ctx)
	if err != nil {
		return err
	}
	for _, ctr := range containers {
		inv.Containers = append(inv.Containers, ctr.ID())
	}
	leases, err := c.LeasesService().List(ctx)
	if err != nil {
		return err
	}
	for _, l := range leases {
		inv.Leases = append(inv.Leases, l.ID)
	}
	return c.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted {
			inv.Snapshots = append(inv.Snapshots, info.Name)
		}
		return nil
	})
}

// Diff lists what other has more, one line each.
func (inv Inventory) Diff(other Inventory) (more []string) {
	add := func(what string, a, b []string) {
		for _, s := range b {
			if i := slices.Index(a, s); i >= 0 {
				a = slices.Delete(slices.Clone(a), i, i+1)
			} else {
				more = append(more, what+" "+s)
			}
		}
	}
	add("namespace", inv.Namespaces, other.Namespaces)
	add("link", inv.Links, other.Links)
	add("route", inv.Routes, other.Routes)
	add("firewall", inv.Firewall, other.Firewall)
	add("cgroup", inv.Cgroups, other.Cgroups)
	add("mount", inv.Mounts, other.Mounts)
	add("shim", inv.Shims, other.Shims)
	add("container", inv.Containers, other.Containers)
	add("snapshot", inv.Snapshots, other.Snapshots)
	add("lease", inv.Leases, other.Leases)
	add("agent", inv.Agent, other.Agent)
	return more
}

// Inits are the process ids, on this machine, of a task's containers: of each
// the first process, by the name of its cgroup.
func (r *Region) Inits(task string) (map[string]int, error) {
	out := map[string]int{}
	err := eachProcess(func(pid int, _ []string) {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
		if err != nil {
			return // gone
		}
		for line := range strings.Lines(string(b)) {
			_, rest, ok := strings.Cut(strings.TrimSpace(line), "/berth/"+r.ShortID()+"/")
			if ok {
				// The task's own cgroup, perhaps below that of an instance.
				_, rest, ok = strings.Cut("/"+rest, "/"+task+"/")
			}
			if !ok {
				continue
			}
			if have, seen := out[rest]; !seen || pid < have {
				out[rest] = pid
			}
		}
	})
	return out, err
}
