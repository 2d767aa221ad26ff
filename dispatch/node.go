package dispatch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// FargateCluster names the cluster that nodes' hidden instances are in. No API shows it.
const FargateCluster = "berth-fargate"

// maxReport bounds a frame of a node: a window of flows.
const maxReport = 32 << 20

// serveNode is one node's stream: it gets the networks, and says what became
// of its interfaces.
func (s *Server) serveNode(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	c, err := accept(w, r)
	if err != nil {
		s.Log.Warn("node upgrade", "err", err)
		return
	}
	c.SetReadLimit(maxReport)
	err = s.node(ctx, c)
	finish(c, err)
	if !ended(err) {
		s.Log.Error("node connection", "err", err)
	}
}

func (s *Server) node(ctx context.Context, c *websocket.Conn) error {
	_, b, err := c.Read(ctx)
	if err != nil {
		return err
	}
	var hello fabric.Hello
	if err := json.Unmarshal(b, &hello); err != nil || hello.Name == "" {
		return fmt.Errorf("hello of a node: %q: %w", b, errors.Join(err, errors.New("no name")))
	}
	instance, err := s.join(ctx, hello)
	if err != nil {
		return err
	}
	defer s.here(hello.Name)()
	log := s.Log.With("node", hello.Name)
	log.Info("node connected", "cpu", hello.CPU, "memory", hello.Memory)
	st := &stream{Server: s, conn: c, node: hello.Name, instance: instance, log: log,
		inst: newInstanceState(), told: map[string]bool{}, vpcs: map[string]fabric.VPC{}, groups: map[string]fabric.SecurityGroup{}, enis: map[string]fabric.Interface{}}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return st.follow(gctx) })
	g.Go(func() error { return st.reports(gctx) })
	err = g.Wait()
	log.Info("node disconnected")
	return err
}

// join writes the node's row and that of its hidden instance, whose ARN
// follows from the node's name: a node that comes back is the same.
func (s *Server) join(ctx context.Context, h fabric.Hello) (string, error) {
	var arn string
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		region, ok := state.Regions.Get(tx, state.RegionKey)
		if !ok {
			return errors.New("the region is not set up")
		}
		sum := sha256.Sum256([]byte(region.ShortID + "/" + h.Name))
		id := hex.EncodeToString(sum[:16])
		arn = fmt.Sprintf("arn:aws:ecs:%s:%s:container-instance/%s/%s", region.Name, region.Account, FargateCluster, id)
		n := &state.Node{Name: h.Name, Zone: h.Zone, CPU: h.CPU, Memory: h.Memory, Instance: arn, JoinedAt: s.Now()}
		if old, ok := state.Nodes.Get(tx, h.Name); ok {
			n.JoinedAt = old.JoinedAt
		}
		state.Nodes.Put(tx, n)
		ci, ok := state.ContainerInstances.Get(tx, arn)
		next := &state.ContainerInstance{ARN: arn, Account: region.Account, RegisteredAt: s.Now(), Version: 1}
		if ok {
			c := *ci
			next = &c
		}
		next.Cluster = fmt.Sprintf("arn:aws:ecs:%s:%s:cluster/%s", region.Name, region.Account, FargateCluster)
		next.Hidden, next.Node, next.Status, next.Zone = true, h.Name, "ACTIVE", h.Zone
		next.Registered = []ecs.Resource{
			{Name: new("CPU"), Type: new("INTEGER"), IntegerValue: new(int32(h.CPU))},
			{Name: new("MEMORY"), Type: new("INTEGER"), IntegerValue: new(int32(h.Memory))},
		}
		state.ContainerInstances.Put(tx, next)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("join node %s: %w", h.Name, err)
	}
	return arn, nil
}

// stream is one node's connection, with what the node was told.
type stream struct {
	*Server
	conn           *websocket.Conn
	node, instance string
	log            *slog.Logger

	vpcs   map[string]fabric.VPC
	groups map[string]fabric.SecurityGroup
	enis   map[string]fabric.Interface
	inst   instanceState
	told   map[string]bool // sessions
}

func (s *stream) follow(ctx context.Context) error {
	tables := append(slices.Clone(networkTables), state.SecurityGroups, state.NetworkInterfaces, state.FlowLogs, state.Sessions)
	for _, t := range instanceTables {
		if !slices.Contains(tables, t) {
			tables = append(tables, t)
		}
	}
	w := s.DB.Watch(tables...)
	defer w.Close()
	var renew time.Time
	first := true
	for {
		wait, cancel := ctx, context.CancelFunc(func() {})
		until := renew
		if at := s.inst.renew(); !at.IsZero() && at.Before(until) {
			until = at
		}
		if !until.IsZero() {
			wait, cancel = context.WithTimeout(ctx, max(until.Sub(s.Now()), time.Millisecond))
		}
		snap, changes, err := w.Next(wait)
		cancel()
		var d fabric.Desired
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			snap = s.DB.Snapshot()
			s.instances(snap, first, &d)
		case err != nil:
			return fmt.Errorf("watch networks: %w", err)
		default:
			d = s.difference(snap, changes)
			if changes.Has(instanceTables...) {
				s.instances(snap, first, &d)
			}
		}
		s.sessions(snap, &d)
		d.Revision = snap.Revision()
		if first {
			d.Full, first = true, false
			region, _ := state.Regions.Get(snap, state.RegionKey)
			d.Region = &fabric.Region{Name: region.Name, Account: region.Account, ShortID: region.ShortID, PublicPool: region.PublicPool, Endpoint: s.Endpoint, CA: s.CA}
		}
		if renew.IsZero() || !renew.After(s.Now()) {
			a, err := s.agent(snap)
			if err != nil {
				return err
			}
			d.Agent, renew = a, s.Now().Add(credentialsLife/2)
		}
		if d.Full || d.Agent != nil || len(d.VPCs)+len(d.Groups)+len(d.Interfaces)+len(d.GoneVPCs)+len(d.GoneGroups)+len(d.GoneInterfaces)+len(d.Instances)+len(d.GoneInstances)+len(d.Sessions) > 0 {
			if err := writeJSON(ctx, s.conn, d); err != nil {
				return err
			}
		}
	}
}

// agent makes the settings of the node's own agent.
func (s *stream) agent(snap *store.Snapshot) (*fabric.Agent, error) {
	c, err := s.Mint(snap, s.NodeRole, s.NodeService, s.node, credentialsLife)
	if err != nil {
		return nil, fmt.Errorf("credentials of node %s: %w", s.node, err)
	}
	return &fabric.Agent{Cluster: FargateCluster, ContainerInstance: s.instance, Credentials: c}, nil
}

// difference is what the node must be told so that it knows what snap says.
func (s *stream) difference(snap *store.Snapshot, ch store.Changes) (d fabric.Desired) {
	// Routes lead to interfaces, and endpoints have them.
	if ch.Has(networkTables...) || ch.Has(state.NetworkInterfaces) && s.leads(snap, ch) {
		seen := map[string]bool{}
		for v := range state.VPCs.All(snap) {
			seen[v.ID] = true
			n := vpc(snap, v)
			if old, ok := s.vpcs[v.ID]; !ok || !reflect.DeepEqual(old, n) {
				s.vpcs[v.ID] = n
				d.VPCs = append(d.VPCs, n)
			}
		}
		for id := range s.vpcs {
			if !seen[id] {
				delete(s.vpcs, id)
				d.GoneVPCs = append(d.GoneVPCs, id)
			}
		}
	}
	groups := keys(ch, state.SecurityGroups, s.groups)
	if ch.Has(state.PrefixLists) {
		groups = merge(groups, s.groups)
	}
	for _, id := range groups {
		g, ok := state.SecurityGroups.Get(snap, id)
		if !ok {
			if _, had := s.groups[id]; had {
				delete(s.groups, id)
				d.GoneGroups = append(d.GoneGroups, id)
			}
			continue
		}
		n := group(snap, g)
		if old, had := s.groups[id]; !had || !reflect.DeepEqual(old, n) {
			s.groups[id] = n
			d.Groups = append(d.Groups, n)
		}
	}
	enis := keys(ch, state.NetworkInterfaces, s.enis)
	if ch.Has(state.FlowLogs) {
		enis = merge(enis, s.enis)
	}
	enis = s.withDevices(snap, enis)
	for _, id := range enis {
		e, ok := state.NetworkInterfaces.Get(snap, id)
		if !ok || e.Leaving() {
			_, had := s.enis[id]
			delete(s.enis, id)
			// An interface that this node must remove is named even if this stream never told of
			// it: the node answers that nothing is left.
			if had || ok && e.Node == s.node && !e.Removed {
				d.GoneInterfaces = append(d.GoneInterfaces, id)
			}
			continue
		}
		n := networkInterface(snap, e, s.node)
		if old, had := s.enis[id]; !had || !reflect.DeepEqual(old, n) {
			s.enis[id] = n
			d.Interfaces = append(d.Interfaces, n)
		}
	}
	return d
}

// keys are the changed keys of a table; when anything may have changed, also
// those that were sent, since they may be gone.
func keys[T any](ch store.Changes, t store.AnyTable, sent map[string]T) []string {
	ks := ch.Keys(t)
	if !ch.All {
		return ks
	}
	return merge(ks, sent)
}

// merge adds the keys of sent.
func merge[T any](ks []string, sent map[string]T) []string {
	ks = slices.AppendSeq(slices.Clone(ks), maps.Keys(sent))
	slices.Sort(ks)
	return slices.Compact(ks)
}

// leads says whether a changed interface may be where a route leads, or have an
// endpoint's names. Those of tasks, which come and go most, are neither as long
// as no route names them.
func (s *stream) leads(snap *store.Snapshot, ch store.Changes) bool {
	if ch.All {
		return true
	}
	targets := map[string]bool{}
	for _, v := range s.vpcs {
		for _, t := range v.RouteTables {
			for _, r := range t.Routes {
				targets[r.Target] = true
			}
		}
	}
	for _, id := range ch.Keys(state.NetworkInterfaces) {
		e, ok := state.NetworkInterfaces.Get(snap, id)
		if targets[id] || !ok || e.Owner != "" || e.Attachment != nil {
			return true
		}
	}
	return false
}

// withDevices adds the interfaces that are devices of the same instances.
func (s *stream) withDevices(snap *store.Snapshot, ids []string) []string {
	all := slices.Clone(ids)
	for _, id := range ids {
		if e, ok := state.NetworkInterfaces.Get(snap, id); ok && e.Attachment != nil && e.Attachment.Device == 0 {
			for d := range state.NetworkInterfaces.By(snap, "instance", e.Attachment.Instance) {
				all = append(all, d.ID)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// reports writes down what the node says of its interfaces.
func (s *stream) reports(ctx context.Context) error {
	for {
		_, b, err := s.conn.Read(ctx)
		if err != nil {
			return err
		}
		var rep fabric.Report
		if err := json.Unmarshal(b, &rep); err != nil {
			return fmt.Errorf("report of a node: %w", err)
		}
		if s.Flows != nil && len(rep.Flows) > 0 {
			s.Flows(ctx, s.node, rep.Flows)
		}
		if len(rep.Interfaces)+len(rep.Instances) == 0 {
			continue
		}
		err = s.DB.Update(ctx, func(tx *store.Tx) error {
			for _, st := range rep.Interfaces {
				e, ok := state.NetworkInterfaces.Get(tx, st.ID)
				if !ok || e.Node != s.node {
					continue
				}
				n := *e
				n.Failure = st.Error
				if st.Removed {
					n = *e.Left()
				} else {
					n.Attached = st.Attached
				}
				if n.Node != e.Node || n.Attached != e.Attached || n.Removed != e.Removed || n.Failure != e.Failure {
					state.NetworkInterfaces.Put(tx, &n)
				}
			}
			s.instanceReports(tx, rep.Instances)
			return nil
		})
		if err := noted(ctx, s.log, "write report", err); err != nil {
			return err
		}
	}
}
