package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/dataplane/dns"
	"github.com/berth-run/berth/dataplane/vpc"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/node/instance"
	"github.com/berth-run/berth/node/metadata"
)

// node is the state of a running node.
type node struct {
	cfg     Config
	log     *slog.Logger
	reports *reports
	flows   *flows
	agent   chan struct{} // the agent's settings were written

	mu      sync.Mutex
	want    wanted
	region  *fabric.Region
	opened  Fabric        // the same as fabric, for others to read its status
	changed chan struct{} // something is to be applied

	// Of the applying goroutine alone.
	fabric   Fabric
	resolver Resolver

	instances *instance.Manager // nil: this node runs none
	metadata  *metadata.Server  // of the applying goroutine alone
	sessions  *sessions
}

// wanted is the desired state, by key.
type wanted struct {
	VPCs       map[string]fabric.VPC           `json:"vpcs"`
	Groups     map[string]fabric.SecurityGroup `json:"groups"`
	Interfaces map[string]fabric.Interface     `json:"interfaces"`
	// Gone are interfaces that were wanted here and are to be reported as
	// removed once nothing of them is left.
	Gone map[string]bool `json:"gone"`
	// Instances are those of this node, GoneInstances those that are to go.
	Instances     map[string]fabric.Instance `json:"instances,omitempty"`
	GoneInstances map[string]bool            `json:"goneInstances,omitempty"`
}

func newWanted() wanted {
	return wanted{VPCs: map[string]fabric.VPC{}, Groups: map[string]fabric.SecurityGroup{}, Interfaces: map[string]fabric.Interface{}, Gone: map[string]bool{},
		Instances: map[string]fabric.Instance{}, GoneInstances: map[string]bool{}}
}

func (w wanted) clone() wanted {
	return wanted{maps.Clone(w.VPCs), maps.Clone(w.Groups), maps.Clone(w.Interfaces), maps.Clone(w.Gone), maps.Clone(w.Instances), maps.Clone(w.GoneInstances)}
}

// take works a frame into the desired state.
func (w *wanted) take(d fabric.Desired) {
	if d.Full {
		old := *w
		*w = newWanted()
		maps.Copy(w.Gone, old.Gone)
		for id, i := range old.Interfaces {
			if i.Here {
				w.Gone[id] = true
			}
		}
	}
	for _, id := range d.GoneVPCs {
		delete(w.VPCs, id)
	}
	for _, id := range d.GoneGroups {
		delete(w.Groups, id)
	}
	for _, id := range d.GoneInterfaces {
		delete(w.Interfaces, id)
		w.Gone[id] = true
	}
	for _, v := range d.VPCs {
		w.VPCs[v.ID] = v
	}
	for _, g := range d.Groups {
		w.Groups[g.ID] = g
	}
	for _, i := range d.Interfaces {
		if w.Interfaces[i.ID].Here && !i.Here {
			w.Gone[i.ID] = true
		} else {
			delete(w.Gone, i.ID)
		}
		w.Interfaces[i.ID] = i
	}
	w.takeInstances(d)
}

// saved is what a node remembers of the server.
type saved struct {
	Region *fabric.Region `json:"region"`
	wanted
}

// recall reads what an earlier node was told.
func (n *node) recall() error {
	b, err := os.ReadFile(n.cfg.Layout.desired())
	if err != nil {
		return err
	}
	s := saved{wanted: newWanted()}
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s: %w", n.cfg.Layout.desired(), err)
	}
	if s.Region == nil || s.Region.ShortID != n.cfg.Layout.ShortID {
		return fmt.Errorf("%s is of another region", n.cfg.Layout.desired())
	}
	n.region, n.want = s.Region, s.wanted
	return nil
}

func (n *node) remember(region *fabric.Region, w wanted) error {
	b, err := json.Marshal(saved{region, w})
	if err != nil {
		return err
	}
	return replaceFile(n.cfg.Layout.desired(), b, 0o600)
}

func (n *node) poke() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// receive is called with each frame of the server.
func (n *node) receive(d fabric.Desired) error {
	n.mu.Lock()
	if d.Region != nil {
		n.region = d.Region
	}
	region := n.region
	n.want.take(d)
	n.mu.Unlock()
	if region == nil {
		return errors.New("the first frame does not say which region this is")
	}
	if region.ShortID != n.cfg.Layout.ShortID {
		return fmt.Errorf("the server is of region %s, this node of %s", region.ShortID, n.cfg.Layout.ShortID)
	}
	n.poke()
	if d.Agent != nil {
		return n.adopt(region, d.Agent)
	}
	return nil
}

// apply makes the machine as wanted, again and again. What fails is tried
// again, ever more slowly; what the server says meanwhile comes at once.
func (n *node) apply(ctx context.Context) error {
	defer func() {
		if n.metadata != nil {
			_ = n.metadata.Close()
		}
		if n.resolver != nil {
			_ = n.resolver.Close()
		}
		if n.fabric != nil {
			_ = n.fabric.Close()
		}
	}()
	const least, most = 200 * time.Millisecond, 15 * time.Second
	wait := least
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.changed:
			wait = least
		case <-again:
		}
		again = nil
		n.mu.Lock()
		region, want := n.region, n.want.clone()
		n.mu.Unlock()
		if region == nil {
			continue
		}
		if err := n.applyOnce(ctx, region, want); err != nil && ctx.Err() == nil {
			n.log.Error("network", "err", err, "again in", wait)
			again = time.After(wait)
			wait = min(2*wait, most)
		}
		if err := n.remember(region, want); err != nil {
			n.log.Error("desired state not kept", "err", err)
		}
	}
}

func (n *node) applyOnce(ctx context.Context, region *fabric.Region, want wanted) error {
	if n.fabric == nil {
		f, err := n.cfg.OpenFabric(vpc.Options{
			Region: n.cfg.Layout.ShortID, RunDir: n.cfg.Layout.Run, PublicPool: region.PublicPool, APIPort: apiPort(region), Log: n.log,
			OnAttached: n.attached,
		})
		if err != nil {
			return fmt.Errorf("open fabric: %w", err)
		}
		n.fabric = f
		n.mu.Lock()
		n.opened = f
		n.mu.Unlock()
		n.metadata = metadata.New(metadata.Options{Listen: f.ListenIn, Log: n.log})
		n.resolver = n.cfg.NewResolver(dns.Options{Listen: f.ListenIn, ListenPacket: f.ListenPacketIn, Log: n.log})
	}
	if err := n.setInstances(region, want); err != nil {
		return err
	}
	cfg := vpcConfig(want)
	names := dnsConfig(region, want)
	var errs []error
	// A VPC's resolver holds its namespace: it goes before the VPC does, and
	// comes after it.
	if err := n.resolver.Set(ctx, n.existing(names)); err != nil {
		errs = append(errs, fmt.Errorf("resolver: %w", err))
	}
	if err := n.metadata.Set(n.clients(want, true)); err != nil {
		errs = append(errs, err)
	}
	if _, err := n.fabric.Set(ctx, cfg); err != nil {
		errs = append(errs, err)
	}
	if err := n.metadata.Set(n.clients(want, false)); err != nil {
		errs = append(errs, err)
	}
	if err := n.resolver.Set(ctx, names); err != nil {
		errs = append(errs, fmt.Errorf("resolver: %w", err))
	}
	n.removed(want)
	return errors.Join(errs...)
}

// existing is the part of a resolver's config whose VPCs are there already.
func (n *node) existing(c dns.Config) dns.Config {
	c.VPCs = slices.DeleteFunc(slices.Clone(c.VPCs), func(v dns.VPC) bool {
		_, err := os.Stat(vpc.Options{RunDir: n.cfg.Layout.Run}.NetnsPath(v.ID))
		return err != nil
	})
	return c
}

// attached is the fabric's word on an interface.
func (n *node) attached(id string, err error) {
	s := fabric.InterfaceStatus{ID: id, Attached: err == nil}
	if err != nil {
		s.Error = err.Error()
	}
	n.reports.add(s)
	if n.instances != nil {
		n.instances.Poke()
	}
}

// removed reports the interfaces of which nothing is left. The kernel is
// asked, not the fabric: an interface that could not be removed still is.
func (n *node) removed(want wanted) {
	for id := range want.Gone {
		// The link that a further device has there counts, wherever it leads.
		if _, err := os.Lstat(vpc.Options{RunDir: n.cfg.Layout.Run}.NetnsPath(id)); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		n.reports.add(fabric.InterfaceStatus{ID: id, Removed: true})
		n.mu.Lock()
		if i, back := n.want.Interfaces[id]; !back || !i.Here {
			delete(n.want.Gone, id)
		}
		n.mu.Unlock()
	}
}

// apiPort is the port of the region's API, which the machine answers at its own
// address in the pool too. 0: nothing.
func apiPort(region *fabric.Region) uint16 {
	u, err := url.Parse(region.Endpoint)
	if err != nil {
		return 0
	}
	p, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(p)
}

// vpcConfig says the desired state in the fabric's words.
func vpcConfig(w wanted) vpc.Config {
	var c vpc.Config
	for _, id := range slices.Sorted(maps.Keys(w.VPCs)) {
		v := w.VPCs[id]
		out := vpc.VPC{ID: v.ID, CIDRs: v.CIDRs}
		for _, s := range v.Subnets {
			out.Subnets = append(out.Subnets, vpc.Subnet{ID: s.ID, CIDR: s.CIDR, IPv6: s.IPv6, RouteTable: s.RouteTable, ACL: s.ACL})
		}
		for _, t := range v.RouteTables {
			table := vpc.RouteTable{ID: t.ID}
			for _, r := range t.Routes {
				table.Routes = append(table.Routes, vpc.Route{Destination: r.Destination, Target: vpc.Target(r.Kind), TargetID: r.Target})
			}
			out.RouteTables = append(out.RouteTables, table)
		}
		for _, a := range v.ACLs {
			n := vpc.NetworkACL{ID: a.ID}
			for _, e := range a.Entries {
				n.Entries = append(n.Entries, vpc.ACLEntry{Egress: e.Egress, Allow: e.Allow, Protocol: e.Protocol, From: e.From, To: e.To, CIDR: e.CIDR})
			}
			out.ACLs = append(out.ACLs, n)
		}
		for _, p := range v.Peers {
			out.Peers = append(out.Peers, vpc.Peer{ID: p.ID, VPC: p.VPC, CIDRs: p.CIDRs})
		}
		c.VPCs = append(c.VPCs, out)
	}
	for _, id := range slices.Sorted(maps.Keys(w.Groups)) {
		g := w.Groups[id]
		c.Groups = append(c.Groups, vpc.SecurityGroup{ID: g.ID, VPC: g.VPC, Ingress: rules(g.Ingress), Egress: rules(g.Egress)})
	}
	for _, id := range slices.Sorted(maps.Keys(w.Interfaces)) {
		i := w.Interfaces[id]
		// A MAC that is none stays nil, and the fabric says so of this one
		// interface.
		mac, _ := net.ParseMAC(i.MAC)
		e := vpc.ENI{
			ID: i.ID, VPC: i.VPC, Subnet: i.Subnet, MAC: mac, Address: i.Address, Public: i.Public, IPv6: i.IPv6, Groups: i.Groups,
			In: i.In, Device: i.Device, Serves: i.Serves, FlowLog: i.FlowLog, Elsewhere: !i.Here,
			SourceDestCheck: i.SourceDestCheck, Hostname: i.Hostname,
		}
		for _, a := range i.Secondary {
			e.Secondary = append(e.Secondary, vpc.Address{Private: a.Private, Public: a.Public})
		}
		c.ENIs = append(c.ENIs, e)
	}
	return c
}

func rules(in []fabric.Rule) []vpc.Rule {
	var out []vpc.Rule
	for _, r := range in {
		out = append(out, vpc.Rule{Protocol: r.Protocol, From: r.From, To: r.To, CIDRs: r.CIDRs, Groups: r.Groups})
	}
	return out
}

// dnsConfig says the desired state in the resolver's words.
func dnsConfig(region *fabric.Region, w wanted) dns.Config {
	c := dns.Config{Region: region.Name}
	if region.PublicPool.IsValid() {
		// Seen from a task, the machine has the pool's base address.
		c.Localhost = region.PublicPool.Masked().Addr()
	}
	byVPC := map[string][]dns.Interface{}
	for _, id := range slices.Sorted(maps.Keys(w.Interfaces)) {
		i := w.Interfaces[id]
		byVPC[i.VPC] = append(byVPC[i.VPC], dns.Interface{Private: i.Address, Public: i.Public})
		for _, a := range i.Secondary {
			byVPC[i.VPC] = append(byVPC[i.VPC], dns.Interface{Private: a.Private, Public: a.Public})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.VPCs)) {
		v := w.VPCs[id]
		if !v.DNSSupport {
			continue
		}
		out := dns.VPC{ID: id, Resolver: vpc.VPC{CIDRs: v.CIDRs}.Resolver(), Interfaces: byVPC[id], Records: v.Names}
		for _, p := range v.Peers {
			if p.DNS {
				out.Peers = append(out.Peers, p.VPC)
			}
		}
		c.VPCs = append(c.VPCs, out)
	}
	return c
}

// reports collects what is to be told, the latest of each interface.
type reports struct {
	mu        sync.Mutex
	m         map[string]fabric.InterfaceStatus
	instances map[string]fabric.InstanceStatus
	wake      chan struct{}
}

func newReports() *reports {
	return &reports{m: map[string]fabric.InterfaceStatus{}, instances: map[string]fabric.InstanceStatus{}, wake: make(chan struct{}, 1)}
}

func (r *reports) add(s fabric.InterfaceStatus) {
	r.mu.Lock()
	r.m[s.ID] = s
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take answers what is to be told, in the order of ids.
func (r *reports) take() []fabric.InterfaceStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Collect(maps.Values(r.m))
	clear(r.m)
	slices.SortFunc(out, func(a, b fabric.InterfaceStatus) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// giveBack takes what could not be told, unless there is news.
func (r *reports) giveBack(old []fabric.InterfaceStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range old {
		if _, news := r.m[s.ID]; !news {
			r.m[s.ID] = s
		}
	}
}
