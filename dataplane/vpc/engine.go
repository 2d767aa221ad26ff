package vpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// parallelAttaches bounds the ENIs that are attached at once. The kernel changes links one at a time; what is gained is
// the making of namespaces and the round trips.
const parallelAttaches = 4

// Engine keeps the kernel as the last Set wanted it.
type Engine struct {
	opts Options
	log  *slog.Logger

	set     sync.Mutex // held by Set and Close; guards what follows
	host    *host
	adopted bool            // a Set without errors has looked through what was there
	window  time.Time       // when the window of flow logs began
	joined  map[string]bool // peering connections whose way was made
	closed  bool

	mu      sync.RWMutex // guards what follows
	fabrics map[string]*fabric
	status  map[string]ENIStatus
}

// Open prepares an engine. It changes nothing in the kernel; the first Set adopts what an earlier engine left.
func Open(opts Options) (*Engine, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(opts.NetnsDir(), 0o755); err != nil {
		return nil, err
	}
	h, err := openHost(opts)
	if err != nil {
		return nil, err
	}
	return &Engine{opts: opts, log: opts.Log, host: h, window: time.Now(), joined: map[string]bool{}, fabrics: map[string]*fabric{}, status: map[string]ENIStatus{}}, nil
}

// Set makes the kernel as cfg says and reports whether it had to change anything.
//
// A mistake about VPCs or groups is returned before anything is changed. A mistake or failure about one ENI stands in
// its status and in the joined error, and the others go on; the next Set tries again. An ENI that exists and becomes
// faulty in cfg keeps its link and loses its traffic.
func (e *Engine) Set(ctx context.Context, cfg Config) (changed bool, err error) {
	e.set.Lock()
	defer e.set.Unlock()
	if e.closed {
		return false, errors.New("vpc engine is closed")
	}
	want, err := check(cfg, e.opts.PublicPool)
	if err != nil {
		return false, fmt.Errorf("vpc config: %w", err)
	}
	var errs []error
	if len(want.vpcs) > 0 {
		if err := e.host.settle(); err != nil {
			return false, fmt.Errorf("machine's network: %w", err)
		}
	}
	if !e.adopted {
		if err := e.findFabrics(want); err != nil {
			return false, err
		}
	}

	dead := map[string]error{} // VPCs that could not be made
	fail := func(id string, err error) {
		dead[id] = fmt.Errorf("vpc %s: %w", id, err)
		errs = append(errs, dead[id])
	}
	for _, v := range want.vpcs {
		if _, err := e.fabric(v); err != nil {
			fail(v.ID, err)
		}
	}
	p := &plan{want: want, links: map[string]bool{}, ways: map[string]bool{}, routes: map[netip.Prefix]string{}}
	if err := e.joinPeers(p, dead); err != nil {
		errs = append(errs, err)
	}
	type work struct {
		f    *fabric
		api  api
		come []*eni
	}
	var todo []work
	for _, v := range want.vpcs {
		if dead[v.ID] != nil {
			continue
		}
		w := work{api: api{address: e.apiAddress()}}
		f, did, err := e.setVPC(v, p, &w.api, &w.come)
		changed = changed || did
		if err != nil {
			fail(v.ID, err)
			maps.DeleteFunc(p.routes, func(_ netip.Prefix, to string) bool { return to == uplinkName(e.opts.Region, v.ID) })
			continue
		}
		w.f = f
		todo = append(todo, w)
	}
	for id := range e.copyFabrics() {
		if !slices.ContainsFunc(want.vpcs, func(v VPC) bool { return v.ID == id }) {
			changed = true
			if err := e.removeVPC(id); err != nil {
				errs = append(errs, fmt.Errorf("remove vpc %s: %w", id, err))
			}
		}
	}
	if err := e.host.route(p.routes); err != nil {
		errs = append(errs, fmt.Errorf("routes to VPCs: %w", err))
	}
	if len(want.vpcs) > 0 {
		if err := e.host.admit(); err != nil {
			errs = append(errs, fmt.Errorf("machine's firewall: %w", err))
		}
	}
	if !e.adopted {
		if err := e.removeStrays(want); err != nil {
			errs = append(errs, err)
		}
		e.adopted = len(errs) == 0
	}

	// A device of an ENI comes after that ENI.
	results := make(chan attached, len(want.enis))
	for _, device := range []bool{false, true} {
		g := errgroup.Group{}
		g.SetLimit(parallelAttaches)
		for _, w := range todo {
			for _, n := range w.come {
				if (n.In != "") != device {
					continue
				}
				changed = true
				g.Go(func() error {
					err := ctx.Err()
					if err == nil {
						err = w.f.attach(e.opts, w.api, n)
					}
					if err != nil {
						err = fmt.Errorf("attach eni %s: %w", n.ID, err)
					}
					e.report(n.ID, err)
					results <- attached{w.f, n, err}
					return nil
				})
			}
		}
		_ = g.Wait()
	}
	close(results)
	for r := range results {
		if r.err != nil {
			errs = append(errs, r.err)
		}
		r.eni.ready = r.err == nil
		if slices.ContainsFunc(r.f.layout.routes, func(to route) bool { return to.link == linkName(r.eni.ID) }) {
			r.f.settled = false // routes went with the former link
		}
		r.f.enis[r.eni.ID] = r.eni // also if it failed halfway: what there is of it has to go one day
	}
	// Routes through interfaces that have just come.
	for _, w := range todo {
		if !w.f.settled {
			if err := w.f.settle(e.host, w.f.layout); err != nil {
				errs = append(errs, fmt.Errorf("vpc %s: %w", w.f.vpc.ID, err))
			}
		}
	}
	e.publish(want, dead)
	for _, id := range slices.Sorted(maps.Keys(want.bad)) {
		errs = append(errs, want.bad[id])
	}
	return changed, errors.Join(errs...)
}

type attached struct {
	f   *fabric
	eni *eni
	err error
}

// plan is what one Set works out about all VPCs together.
type plan struct {
	want   checked
	ways   map[string]bool         // ids of peering connections that have a way
	links  map[string]bool         // the names of their links
	routes map[netip.Prefix]string // on the machine: destination to name of the uplink
}

// joinPeers makes the ways between VPCs. Those that are not wanted any more go after the routes through them.
func (e *Engine) joinPeers(p *plan, dead map[string]error) error {
	vpcs := map[string]VPC{}
	for _, v := range p.want.vpcs {
		vpcs[v.ID] = v
	}
	var errs []error
	for _, j := range joints(p.want.vpcs) {
		if dead[j.a] != nil || dead[j.b] != nil {
			continue
		}
		e.mu.RLock()
		a, b := e.fabrics[j.a], e.fabrics[j.b]
		e.mu.RUnlock()
		p.links[peerName(j.id)] = true
		if !e.joined[j.id] || !a.settled || !b.settled {
			if err := join(j.id, a, b, vpcs[j.a].dual() && vpcs[j.b].dual()); err != nil {
				errs = append(errs, fmt.Errorf("peering %s: %w", j.id, err))
				delete(e.joined, j.id)
				continue
			}
		}
		p.ways[j.id], e.joined[j.id] = true, true
	}
	for id := range e.joined {
		if !p.links[peerName(id)] {
			delete(e.joined, id)
		}
	}
	return errors.Join(errs...)
}

// apiAddress is where the machine answers the region's API.
func (e *Engine) apiAddress() netip.AddrPort {
	if e.opts.APIPort == 0 || !e.opts.PublicPool.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(e.opts.PublicPool.Masked().Addr(), e.opts.APIPort)
}

// setVPC brings one VPC to what it shall be, short of attaching ENIs: those that have to be attached are put into come.
// Their elements are in the ruleset by then.
func (e *Engine) setVPC(v VPC, p *plan, api *api, come *[]*eni) (f *fabric, changed bool, err error) {
	want := p.want
	if f, err = e.fabric(v); err != nil {
		return nil, false, err
	}
	var ruled []ENI
	here := map[string]ENI{}
	endpoints := false
	for _, id := range slices.Sorted(maps.Keys(want.enis)) {
		n := want.enis[id]
		if n.VPC != v.ID && !slices.ContainsFunc(v.Peers, func(p Peer) bool { return p.VPC == n.VPC }) || want.bad[id] != nil {
			continue
		}
		ruled = append(ruled, n)
		if n.VPC == v.ID {
			here[id] = n
			endpoints = endpoints || n.Serves == ServesAPI
		}
	}
	// What of the machine leads here.
	for _, n := range here {
		for _, a := range n.publics() {
			p.routes[netip.PrefixFrom(a, 32)] = f.outer
		}
	}
	for _, c := range v.CIDRs {
		if c.Addr().Is6() {
			p.routes[c.Masked()] = f.outer
		}
	}
	l := layoutOf(v, here, p.ways)
	if endpoints && api.address.IsValid() {
		if api.source, err = e.host.apiSource(f.outer, p.routes); err != nil {
			return nil, false, fmt.Errorf("endpoints: %w", err)
		}
		p.routes[netip.PrefixFrom(api.source, 32)] = f.outer
		l = l.withAPI(api.address.Addr())
	}
	if l.dual {
		if err := e.host.settle6(); err != nil {
			return nil, false, err
		}
	}
	changed = !f.settled || !f.layout.equal(l)
	if err := f.settle(e.host, l); err != nil {
		return nil, changed, err
	}
	if !maps.Equal(f.parted, p.links) {
		if err := f.part(p.links); err != nil {
			return nil, changed, fmt.Errorf("peers: %w", err)
		}
		f.parted = p.links
	}

	free := map[netip.Addr]bool{}
	stay := map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(want.enis)) {
		n := want.enis[id]
		was := f.enis[id]
		if n.VPC != v.ID {
			continue
		}
		if want.bad[id] != nil {
			stay[id] = true
			if was == nil && !e.adopted {
				f.enis[id] = &eni{ENI: n} // an earlier engine may have attached it
			} else if was != nil {
				was.ready = false // when it is good again it is looked at again
			}
			continue
		}
		next := &eni{ENI: n}
		for _, s := range v.Subnets {
			if s.ID == n.Subnet {
				next.prefix, next.router, next.subnet6 = s.CIDR.Bits(), s.Router(), s.IPv6
			}
		}
		if was != nil && was.sameLink(next) && !e.movesHome(f, want, n) {
			stay[id] = true
			same := was.sameAddresses(next)
			for _, fam := range []family{ipv4, ipv6} {
				for _, a := range was.addresses(fam) {
					if !slices.Contains(next.addresses(fam), a) {
						free[a] = true
					}
				}
			}
			was.ENI = n
			if was.ready && same {
				continue
			}
		}
		*come = append(*come, next)
	}
	var gone []*eni
	for id, n := range f.enis {
		if !stay[id] {
			gone = append(gone, n)
			for _, fam := range []family{ipv4, ipv6} {
				for _, a := range n.addresses(fam) {
					free[a] = true
				}
			}
			if err := removeFile(e.opts.ReadyPath(id)); err != nil {
				return nil, changed, err
			}
		}
	}
	f.log(ruled)
	in := input{vpc: v, enis: ruled, members: want.others, groups: want.groups, api: *api}
	families := []family{ipv4}
	if l.dual {
		families = append(families, ipv6)
	} else if f.loaded[ipv6] != nil || !e.adopted {
		if err := f.unload(ipv6); err != nil {
			return nil, changed, err
		}
	}
	for _, fam := range families {
		rs := compile(in, fam)
		if old := f.loaded[fam]; old != nil {
			d := compare(old, rs)
			changed = changed || !d.empty()
			for _, es := range d.oldElems {
				if es.of.name == publicMap {
					for _, el := range es.list {
						free[netip.Addr(el.value.(address))] = true // flows through the lost public address
					}
				}
			}
		}
		if err := f.load(rs); err != nil {
			return nil, true, fmt.Errorf("security groups: %w", err)
		}
	}
	for _, n := range gone {
		changed = true
		if err := f.detach(e.opts, n); err != nil {
			return nil, true, fmt.Errorf("detach eni %s: %w", n.ID, err)
		}
		delete(f.enis, n.ID)
	}
	if !e.adopted {
		links := map[string]map[netip.Addr]bool{}
		for id, n := range want.enis {
			if n.VPC == v.ID {
				own := map[netip.Addr]bool{}
				for _, fam := range []family{ipv4, ipv6} {
					for _, a := range n.addresses(fam) {
						own[a] = true
					}
				}
				links[linkName(id)] = own
			}
		}
		strays, err := f.retireStrangers(links)
		if err != nil {
			return nil, true, err
		}
		maps.Copy(free, strays)
		changed = true
	}
	if err := f.forget(free); err != nil {
		return nil, changed, fmt.Errorf("forget flows: %w", err)
	}
	if len(gone) > 0 || !e.adopted {
		f.sweep(func(err error) { e.log.Error("delete links", "vpc", v.ID, "error", err) })
	}
	return f, changed, nil
}

// movesHome says whether the ENI whose device n is will be made anew in this Set, and n with it.
func (e *Engine) movesHome(f *fabric, want checked, n ENI) bool {
	if n.In == "" {
		return false
	}
	was := f.enis[n.In]
	home := &eni{ENI: want.enis[n.In]}
	if was != nil {
		home.prefix, home.router = was.prefix, was.router
	}
	return was == nil && e.adopted || was != nil && !was.sameLink(home)
}

// sameLink says whether n can become o without a new link.
func (n *eni) sameLink(o *eni) bool {
	return n.Address == o.Address && n.prefix == o.prefix && n.router == o.router && n.MAC.String() == o.MAC.String() &&
		n.In == o.In && n.Device == o.Device && n.Serves == o.Serves
}

func (n *eni) sameAddresses(o *eni) bool {
	return slices.Equal(n.addresses(ipv4), o.addresses(ipv4)) && slices.Equal(n.addresses(ipv6), o.addresses(ipv6)) && n.subnet6 == o.subnet6
}

// fabric returns the live half of a VPC and makes it if need be.
func (e *Engine) fabric(v VPC) (*fabric, error) {
	e.mu.RLock()
	f := e.fabrics[v.ID]
	e.mu.RUnlock()
	if f != nil {
		f.vpc = v
		return f, nil
	}
	f, err := openFabric(e.opts, v)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.fabrics[v.ID] = f
	e.mu.Unlock()
	return f, nil
}

func (e *Engine) copyFabrics() map[string]*fabric {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return maps.Clone(e.fabrics)
}

// findFabrics opens VPCs that an earlier engine made and that are not wanted, so that Set removes them.
func (e *Engine) findFabrics(want checked) error {
	entries, err := os.ReadDir(e.opts.NetnsDir())
	if err != nil {
		return err
	}
	for _, d := range entries {
		name := d.Name()
		if _, ok := want.enis[name]; ok || strings.HasSuffix(name, readySuffix) {
			continue
		}
		ns, err := openNetns(e.opts.NetnsPath(name))
		if err != nil {
			continue // removed with the strays
		}
		h, err := isRouter(ns)
		ns.Close()
		if err != nil {
			return err
		}
		if h && !slices.ContainsFunc(want.vpcs, func(v VPC) bool { return v.ID == name }) {
			if _, err := e.fabric(VPC{ID: name}); err != nil {
				return err
			}
		}
	}
	return nil
}

// isRouter tells the namespace of a VPC from that of an ENI.
func isRouter(ns *os.File) (router bool, err error) {
	err = on(ns, func() error {
		b, err := os.ReadFile("/proc/sys/net/ipv4/conf/default/tag")
		router = strings.TrimSpace(string(b)) == routerTag
		return err
	})
	return router, err
}

// removeStrays removes namespaces and markers that belong to nothing.
func (e *Engine) removeStrays(want checked) error {
	entries, err := os.ReadDir(e.opts.NetnsDir())
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range entries {
		name := d.Name()
		path := e.opts.NetnsPath(name)
		if id, marker := strings.CutSuffix(name, readySuffix); marker {
			ns, err := openNetns(e.opts.NetnsPath(id))
			if err == nil {
				ns.Close()
			}
			if _, ok := want.enis[id]; !ok || err != nil {
				errs = append(errs, removeFile(path))
			}
			continue
		}
		_, isENI := want.enis[name]
		isVPC := slices.ContainsFunc(want.vpcs, func(v VPC) bool { return v.ID == name })
		if !isENI && !isVPC {
			errs = append(errs, dropNetns(path))
		}
	}
	return errors.Join(errs...)
}

// removeVPC takes a VPC apart with everything in it.
func (e *Engine) removeVPC(id string) error {
	e.mu.RLock()
	f := e.fabrics[id]
	e.mu.RUnlock()
	for n := range f.enis {
		if err := removeFile(e.opts.ReadyPath(n)); err != nil {
			return err
		}
	}
	if err := f.dismantle(); err != nil {
		return err
	}
	for n := range f.enis {
		if err := dropNetns(e.opts.NetnsPath(n)); err != nil {
			return err
		}
	}
	if err := e.host.dropUplink(f.outer); err != nil {
		return err
	}
	if err := dropNetns(e.opts.NetnsPath(id)); err != nil {
		return err
	}
	e.mu.Lock()
	delete(e.fabrics, id)
	e.mu.Unlock()
	f.close()
	return nil
}

// report tells the owner and the readers of Status how attaching went, without waiting for the rest of the Set.
func (e *Engine) report(id string, err error) {
	e.mu.Lock()
	e.status[id] = ENIStatus{Ready: err == nil, Err: err, Netns: e.opts.NetnsPath(id)}
	e.mu.Unlock()
	if e.opts.OnAttached != nil {
		e.opts.OnAttached(id, err)
	}
}

// publish completes the status after a Set.
func (e *Engine) publish(want checked, dead map[string]error) {
	e.mu.Lock()
	next := map[string]ENIStatus{}
	var failed []string
	for id, n := range want.enis {
		s, ok := e.status[id]
		s.Netns = e.opts.NetnsPath(id)
		if err := firstError(want.bad[id], dead[n.VPC]); err != nil {
			if ok && s.Err != nil && s.Err.Error() == err.Error() {
				next[id] = s
				continue
			}
			s.Ready, s.Err = false, err
			failed = append(failed, id)
		} else if f := e.fabrics[n.VPC]; f != nil && f.enis[id] != nil && f.enis[id].ready {
			s.Ready, s.Err = true, nil
		}
		next[id] = s
	}
	for id, err := range want.bad {
		if _, ok := want.enis[id]; !ok {
			next[id] = ENIStatus{Err: err}
		}
	}
	e.status = next
	e.mu.Unlock()
	if e.opts.OnAttached != nil {
		for _, id := range failed {
			e.opts.OnAttached(id, next[id].Err)
		}
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Status says of every ENI in the last Set whether it works.
func (e *Engine) Status() map[string]ENIStatus {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return maps.Clone(e.status)
}

// ListenIn opens a stream listener inside the namespace of a VPC that an earlier Set made. While it is open the
// namespace lives, so close it before the VPC is removed.
func (e *Engine) ListenIn(vpcID, network, addr string) (net.Listener, error) {
	var l net.Listener
	err := e.in(vpcID, func() (err error) {
		l, err = net.Listen(network, addr)
		return err
	})
	return l, err
}

// ListenInENI opens a stream listener inside the namespace of an ENI.
func (e *Engine) ListenInENI(eniID, network, addr string) (net.Listener, error) {
	return e.ListenIn(eniID, network, addr)
}

// ListenPacketIn is ListenIn for packet sockets.
func (e *Engine) ListenPacketIn(vpcID, network, addr string) (net.PacketConn, error) {
	var c net.PacketConn
	err := e.in(vpcID, func() (err error) {
		c, err = net.ListenPacket(network, addr)
		return err
	})
	return c, err
}

func (e *Engine) in(vpcID string, f func() error) error {
	ns, err := openNetns(e.opts.NetnsPath(vpcID))
	if err != nil {
		return fmt.Errorf("network namespace of %s: %w", vpcID, err)
	}
	defer ns.Close()
	return on(ns, f)
}

// Close waits for what the engine does in the background, releases what the process holds, and leaves the kernel as it
// is.
func (e *Engine) Close() error {
	e.set.Lock()
	defer e.set.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	for _, f := range e.copyFabrics() {
		f.close()
	}
	e.host.close()
	return nil
}
