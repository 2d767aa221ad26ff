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
	adopted bool // a Set without errors has looked through what was there
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
	return &Engine{opts: opts, log: opts.Log, host: h, fabrics: map[string]*fabric{}, status: map[string]ENIStatus{}}, nil
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

	publics := map[netip.Addr]string{}
	for id, n := range want.enis {
		if want.bad[id] == nil && n.Public.IsValid() {
			publics[n.Public] = uplinkName(e.opts.Region, n.VPC)
		}
	}
	type work struct {
		f    *fabric
		come []*eni
	}
	var todo []work
	dead := map[string]error{} // VPCs that could not be made
	for _, v := range want.vpcs {
		f, come, did, err := e.setVPC(v, want)
		changed = changed || did
		if err != nil {
			dead[v.ID] = fmt.Errorf("vpc %s: %w", v.ID, err)
			errs = append(errs, dead[v.ID])
			continue
		}
		todo = append(todo, work{f, come})
	}
	for id := range e.copyFabrics() {
		if !slices.ContainsFunc(want.vpcs, func(v VPC) bool { return v.ID == id }) {
			changed = true
			if err := e.removeVPC(id); err != nil {
				errs = append(errs, fmt.Errorf("remove vpc %s: %w", id, err))
			}
		}
	}
	for a, up := range publics {
		if slices.ContainsFunc(slices.Collect(maps.Keys(dead)), func(v string) bool { return uplinkName(e.opts.Region, v) == up }) {
			delete(publics, a)
		}
	}
	if err := e.host.route(publics); err != nil {
		errs = append(errs, fmt.Errorf("public addresses: %w", err))
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

	g := errgroup.Group{}
	g.SetLimit(parallelAttaches)
	results := make(chan attached, len(want.enis))
	for _, w := range todo {
		for _, n := range w.come {
			changed = true
			g.Go(func() error {
				err := ctx.Err()
				if err == nil {
					err = w.f.attach(e.opts, n)
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
	close(results)
	for r := range results {
		if r.err != nil {
			errs = append(errs, r.err)
		}
		r.eni.ready = r.err == nil
		r.f.enis[r.eni.ID] = r.eni // also if it failed halfway: what there is of it has to go one day
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

// setVPC brings one VPC to what it shall be, short of attaching ENIs: those that have to be attached are returned. Their
// elements are in the ruleset by then.
func (e *Engine) setVPC(v VPC, want checked) (f *fabric, come []*eni, changed bool, err error) {
	f, err = e.fabric(v)
	if err != nil {
		return nil, nil, false, err
	}
	l := layoutOf(v)
	changed = !f.settled || !f.layout.equal(l)
	if err := f.settle(e.host, l); err != nil {
		return nil, nil, changed, err
	}

	var ruled []ENI
	stay := map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(want.enis)) {
		n := want.enis[id]
		if n.VPC != v.ID {
			continue
		}
		if want.bad[id] != nil {
			stay[id] = true
			if f.enis[id] == nil && !e.adopted {
				f.enis[id] = &eni{ENI: n} // an earlier engine may have attached it
			}
			continue
		}
		ruled = append(ruled, n)
		next := &eni{ENI: n}
		for _, s := range v.Subnets {
			if s.ID == n.Subnet {
				next.prefix, next.router = s.CIDR.Bits(), s.Router()
			}
		}
		was := f.enis[id]
		if was != nil && was.sameLink(next) {
			was.ENI = n
			stay[id] = true
			if was.ready {
				continue
			}
		}
		come = append(come, next)
	}
	free := map[netip.Addr]bool{}
	var gone []*eni
	for id, n := range f.enis {
		if !stay[id] {
			gone = append(gone, n)
			free[n.Address] = true
			if err := removeFile(e.opts.ReadyPath(id)); err != nil {
				return nil, nil, changed, err
			}
		}
	}
	rs := compile(v, ruled, want.groups)
	if f.loaded != nil {
		d := compare(f.loaded, rs)
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
		return nil, nil, true, fmt.Errorf("security groups: %w", err)
	}
	for _, n := range gone {
		changed = true
		if err := f.detach(e.opts, n); err != nil {
			return nil, nil, true, fmt.Errorf("detach eni %s: %w", n.ID, err)
		}
		delete(f.enis, n.ID)
	}
	if !e.adopted {
		links := map[string]netip.Addr{}
		for id, n := range want.enis {
			if n.VPC == v.ID {
				links[linkName(id)] = n.Address
			}
		}
		strays, err := f.retireStrangers(links)
		if err != nil {
			return nil, nil, true, err
		}
		maps.Copy(free, strays)
		changed = true
	}
	if err := f.forget(free); err != nil {
		return nil, nil, changed, fmt.Errorf("forget flows: %w", err)
	}
	if len(gone) > 0 || !e.adopted {
		f.sweep(func(err error) { e.log.Error("delete links", "vpc", v.ID, "error", err) })
	}
	return f, come, changed, nil
}

func (n *eni) sameLink(o *eni) bool {
	return n.Address == o.Address && n.prefix == o.prefix && n.router == o.router && n.MAC.String() == o.MAC.String()
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

// isRouter tells the namespace of a VPC from that of an ENI: only the former forwards.
func isRouter(ns *os.File) (router bool, err error) {
	err = on(ns, func() error {
		b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		router = strings.TrimSpace(string(b)) == "1"
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
		return fmt.Errorf("vpc %s: %w", vpcID, err)
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
