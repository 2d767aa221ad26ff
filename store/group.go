package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// What etcd does for a transaction hardly depends on its size: a proposal, an entry of the log, a
// wait for the disk, a turn of the applier. So transactions that arrive while others are under way
// wait for those and then go together, as one that holds each of them with its own compares: each
// succeeds or fails by itself.
//
// They may, because flights keep from each other what would have to be told apart: of two that are
// under way, none reads or writes what the other, before it, is about to write. So it is no matter
// that etcd judges all compares of a group before it writes anything. Guards of ranges are not
// among the keys of a flight: who has one goes alone.
//
// All of a group have one revision. The mirror learns of them at once.
//
// One group is under way at a time. Those who were in it, when they have been told, are likely to
// come again soon: so the next group, if it has fewer members than were there a moment ago, waits
// for them, though no longer than a commit takes. Without that they split into two parties that
// wait for each other, and the disk is asked twice as often. Whoever waits in vain makes that the
// following groups, twice as many each time, do not wait: a lone writer never does.
const (
	groupMost  = 64
	groupBytes = 1 << 20
	// oneOps and oneBytes are what one may have that goes with others.
	oneOps   = 64
	oneBytes = 64 << 10
)

// A member is a transaction that goes with others.
type member struct {
	r    *request
	puts bool
	// turn tells a member that waits that it is over, or, by a group, that it is the one who
	// commits that.
	turn chan []*member
	rev  int64
	err  error
}

// group gathers members.
type group struct {
	mu        sync.Mutex
	waiting   []*member
	underWay  bool
	gathering bool          // those who wait, wait for others
	timer     *time.Timer   // ends that
	expect    int           // how many were there when the last group was over
	took      time.Duration // what a commit takes, about
	misses    int           // how often in a row others were waited for in vain
	skip      int           // groups that do not wait
	commits   atomic.Int32
}

const (
	mostPatience = 2 * time.Millisecond
	mostMisses   = 8
)

// busy reports whether anything is about to be committed.
func (g *group) busy() bool { return g.commits.Load() > 0 }

// together commits r with those that arrive at the same time, if it is fit for company.
func (b *etcd) together(ctx context.Context, r *request, puts bool) (int64, error) {
	m := &member{r: r, puts: puts, turn: make(chan []*member, 1)}
	g := &b.group
	g.commits.Add(1)
	defer g.commits.Add(-1)
	if len(r.ranges) > 0 || len(r.ops)+len(r.compares) > oneOps || r.size() > oneBytes {
		for _, m := range b.admit([]*member{m}) {
			b.commitOne(ctx, m)
		}
		return m.rev, m.err
	}
	g.mu.Lock()
	g.waiting = append(g.waiting, m)
	g.arrange()
	g.mu.Unlock()
	gone := ctx.Done()
	for {
		select {
		case all := <-m.turn:
			if all == nil {
				return m.rev, m.err
			}
			began := time.Now()
			b.commitGroup(all)
			g.over(len(all), time.Since(began))
			for _, x := range all {
				if x != m {
					x.turn <- nil
				}
			}
			return m.rev, m.err
		case <-gone:
			if g.leave(m) {
				return 0, ctx.Err()
			}
			gone = nil // its commit is under way, and short
		}
	}
}

// leave takes out a member that still waits.
func (g *group) leave(m *member) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, m)
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return true
}

// over is called when a group has been committed, or not.
func (g *group) over(members int, took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.underWay = false
	g.expect = min(members+len(g.waiting), groupMost)
	g.took += (took - g.took) / 8
	g.arrange()
}

// arrange lets those who wait go, or wait for others. The caller holds mu.
func (g *group) arrange() {
	switch {
	case g.underWay || len(g.waiting) == 0:
	case len(g.waiting) >= g.expect:
		g.misses = 0
		g.launch()
	case g.gathering:
	case g.skip > 0:
		g.skip--
		g.launch()
	default:
		g.gathering = true
		patience := min(g.took, mostPatience)
		if g.timer == nil {
			g.timer = time.AfterFunc(patience, g.expire)
		} else {
			g.timer.Reset(patience)
		}
	}
}

// expire is called when those who wait have waited long enough for others.
func (g *group) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.gathering {
		return
	}
	g.misses = min(g.misses+1, mostMisses)
	g.skip = 1 << g.misses
	g.launch()
}

// launch lets those go who wait, as many as fit. The caller holds mu.
func (g *group) launch() {
	if g.gathering {
		g.gathering = false
		g.timer.Stop()
	}
	n, bytes := 0, 0
	for _, m := range g.waiting[:min(len(g.waiting), groupMost)] {
		if bytes += m.r.size(); n > 0 && bytes > groupBytes {
			break
		}
		n++
	}
	if n == 0 {
		return // they have left
	}
	g.underWay = true
	all := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	all[0].turn <- all
}

// admit leaves out those for whose puts the disk has no room. What deletes only makes some.
func (b *etcd) admit(all []*member) []*member {
	if !slices.ContainsFunc(all, func(m *member) bool { return m.puts }) {
		return all
	}
	err := b.server.room()
	if err == nil {
		return all
	}
	var rest []*member
	for _, m := range all {
		if m.puts {
			m.err = err
		} else {
			rest = append(rest, m)
		}
	}
	return rest
}

// commitOne sets what has become of a member.
func (b *etcd) commitOne(ctx context.Context, m *member) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)()
	resp, err := b.server.kv.Txn(ctx, m.r.proto())
	switch {
	case err != nil:
		m.err = b.commitError(rpctypes.Error(err))
		return
	case !resp.Succeeded:
		m.err = errStale
	default:
		b.committed(resp.Header.Revision, m.puts, m.r.size(), m.r)
	}
	m.rev = resp.Header.Revision
}

// commitGroup sets what has become of each.
func (b *etcd) commitGroup(all []*member) {
	all = b.admit(all)
	switch len(all) {
	case 0:
		return
	case 1:
		b.commitOne(b.life, all[0])
		return
	}
	t := &pb.TxnRequest{}
	puts, bytes := false, 0
	for _, m := range all {
		t.Success = append(t.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: m.r.proto()}})
		puts = puts || m.puts
		bytes += m.r.size()
	}
	resp, err := b.server.kv.Txn(b.life, t)
	if err != nil {
		err = b.commitError(rpctypes.Error(err))
		for _, m := range all {
			// If nothing happened, then for the sake of one or of all together: there may be
			// no room for what one puts, and another deletes.
			if m.err = err; !errors.Is(err, ErrUnknown) {
				m.err = nil
				b.commitOne(b.life, m)
			}
		}
		return
	}
	var landed []*request
	for i, m := range all {
		m.rev = resp.Header.Revision
		if resp.Responses[i].GetResponseTxn().Succeeded {
			landed = append(landed, m.r)
		} else {
			m.err = errStale
		}
	}
	b.committed(resp.Header.Revision, puts, bytes, landed...)
}

// proto is the transaction as etcd itself takes it.
func (r *request) proto() *pb.TxnRequest {
	t := &pb.TxnRequest{Compare: make([]*pb.Compare, 0, len(r.compares)+len(r.ranges)), Success: make([]*pb.RequestOp, len(r.ops))}
	for _, c := range r.compares {
		t.Compare = append(t.Compare, &pb.Compare{Key: []byte(c.key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_ModRevision{ModRevision: c.rev}})
	}
	for _, g := range r.ranges {
		t.Compare = append(t.Compare, &pb.Compare{Key: []byte(g.prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(g.prefix)),
			Target: pb.Compare_MOD, Result: pb.Compare_LESS, TargetUnion: &pb.Compare_ModRevision{ModRevision: g.rev + 1}})
	}
	for i, o := range r.ops {
		if o.value == nil {
			t.Success[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(o.key)}}}
		} else {
			t.Success[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(o.key), Value: o.value}}}
		}
	}
	return t
}
