package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-run/berth/dataplane/vpc"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/node/containerd"
	"github.com/berth-run/berth/node/instance"
	"github.com/berth-run/berth/node/metadata"
)

// Instances says how a node runs EC2 instances. Who wires the node knows the
// runtime and the registry; the node does not.
type Instances struct {
	// Open connects to containerd at a socket.
	Open func(socket, ociRuntime string, p instance.Place) (instance.Containers, error)
	// AgentArgs make this program the agent of an instance; the folder of its
	// settings follows. Nil runs none.
	AgentArgs []string
}

// InstanceGroup is the region's cgroup that instances are below.
const InstanceGroup = "instance"

// Instances is where the node keeps its instances.
func (l Layout) Instances() string { return filepath.Join(l.Data, "instance") }

// guest is this program as instances get to see it.
func (l Layout) guest() string { return filepath.Join(l.Run, "guest") }

func (n *node) openInstances() error {
	l := n.cfg.Layout
	if err := containerd.InstallSelf(l.guest()); err != nil {
		return fmt.Errorf("first process of instances: %w", err)
	}
	socket := cmp.Or(n.cfg.Containerd, l.Containerd().Socket())
	n.instances = instance.New(instance.Config{
		Data: l.Instances(), Run: l.Run, Netns: l.Netns(), Namespace: l.Namespace() + "-instances", Cgroup: l.Cgroup() + "/" + InstanceGroup,
		Guest: l.guest(), Binary: n.cfg.Binary, AgentArgs: n.cfg.Instances.AgentArgs, Containerd: socket, OCIRuntime: n.cfg.OCIRuntime,
		Cgroups: cgroups, Unmount: func(dir string) error { return unmount(dir, "") },
		RemoveCgroup: func(ctx context.Context, path string) error {
			dirs, err := cgroups(path)
			for _, d := range dirs {
				if err == nil {
					err = removeGroups(ctx, d)
				}
			}
			return err
		},
		Open: func(p instance.Place) (instance.Containers, error) {
			return n.cfg.Instances.Open(socket, n.cfg.OCIRuntime, p)
		},
		Report: n.instanceIs,
		Logger: n.log,
	})
	return nil
}

// instanceIs is the manager's word on an instance.
func (n *node) instanceIs(s fabric.InstanceStatus) {
	n.reports.addInstance(s)
	if s.State == fabric.InstanceGone {
		n.mu.Lock()
		delete(n.want.GoneInstances, s.ID)
		n.mu.Unlock()
	}
}

// takeInstances works the part of a frame that is about instances into the desired state.
func (w *wanted) takeInstances(d fabric.Desired) {
	if w.Instances == nil {
		w.Instances = map[string]fabric.Instance{}
	}
	if w.GoneInstances == nil {
		w.GoneInstances = map[string]bool{}
	}
	for _, id := range d.GoneInstances {
		delete(w.Instances, id)
		w.GoneInstances[id] = true
	}
	for _, i := range d.Instances {
		w.Instances[i.ID] = i
		delete(w.GoneInstances, i.ID)
	}
}

// setInstances passes on which instances there are to be. One that is to go
// and was never here is gone.
func (n *node) setInstances(region *fabric.Region, want wanted) error {
	if n.instances == nil {
		return nil
	}
	n.instances.Set(*region, want.Instances)
	for id := range want.GoneInstances {
		if !n.instances.Has(id) {
			n.instanceIs(fabric.InstanceStatus{ID: id, State: fabric.InstanceGone})
		}
	}
	return nil
}

// clients are the instances that the metadata service answers. With existing,
// only those in VPCs that are there already.
func (n *node) clients(want wanted, existing bool) (out []metadata.Client) {
	byInstance := map[string][]netip.Addr{} // by device 0
	for _, i := range want.Interfaces {
		if !i.Here {
			continue
		}
		of := cmp.Or(i.In, i.ID)
		byInstance[of] = append(byInstance[of], i.Address)
		for _, s := range i.Secondary {
			byInstance[of] = append(byInstance[of], s.Private)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(want.Instances)) {
		i := want.Instances[id]
		eni, ok := want.Interfaces[i.Interface]
		if !ok {
			continue
		}
		if existing {
			if _, err := os.Stat(vpc.Options{RunDir: n.cfg.Layout.Run}.NetnsPath(eni.VPC)); err != nil {
				continue
			}
		}
		out = append(out, metadata.Client{ID: id, VPC: eni.VPC, Addresses: byInstance[i.Interface], Metadata: i.Metadata, UserData: i.UserData, Credentials: i.Credentials})
	}
	return out
}

func (r *reports) addInstance(s fabric.InstanceStatus) {
	r.mu.Lock()
	r.instances[s.ID] = s
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// takeInstances answers what is to be told, in the order of ids.
func (r *reports) takeInstances() []fabric.InstanceStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Collect(maps.Values(r.instances))
	clear(r.instances)
	slices.SortFunc(out, func(a, b fabric.InstanceStatus) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// giveBackInstances takes what could not be told, unless there is news.
func (r *reports) giveBackInstances(old []fabric.InstanceStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range old {
		if _, news := r.instances[s.ID]; !news {
			r.instances[s.ID] = s
		}
	}
}
