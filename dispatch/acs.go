package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/dispatch/acs"
	"github.com/berth-run/berth/dispatch/compile"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	heartbeat       = 30 * time.Second // facts: agent protocol, 1.2: at least every 60 s
	credentialsLife = 6 * time.Hour    // facts: IAM, task role
	tasksService    = "ecs-tasks.amazonaws.com"
)

// serveACS is one agent's connection: it gets its tasks, in the order they
// were decided, one to a payload.
func (s *Server) serveACS(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	arn := q.Get("containerInstanceArn")
	if err := s.Authorize(r, "ecs:Poll", arn); err != nil {
		s.refused(w, arn, err)
		return
	}
	ci, ok := state.ContainerInstances.Get(s.DB.Snapshot(), arn)
	if !ok || ci.Status == "INACTIVE" {
		s.refused(w, arn, wire.NewError(http.StatusBadRequest, acs.InactiveInstanceException, "The container instance is not active: "+arn))
		return
	}
	c, err := accept(w, r)
	if err != nil {
		s.Log.Warn("acs upgrade", "instance", arn, "err", err)
		return
	}
	log := s.Log.With("instance", arn)
	log.Info("agent connected", "agent", q.Get("agentVersion"))
	sess := &session{Server: s, conn: c, arn: arn, cluster: ci.Cluster, log: log,
		credentials: q.Get("sendCredentials") == "true", sent: map[string]*sent{}}
	s.connected(ctx, arn, +1)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return sess.read(gctx) })
	g.Go(func() error { return sess.follow(gctx) })
	err = g.Wait()
	finish(c, err)
	// The connection's context has ended; that the agent is gone must be written all the same.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	s.connected(after, arn, -1)
	if ended(err) {
		log.Info("agent disconnected")
	} else {
		log.Error("agent connection", "err", err)
	}
}

// refused answers an upgrade in the form agents understand.
func (s *Server) refused(w http.ResponseWriter, instance string, err error) {
	s.Log.Warn("agent refused", "instance", instance, "err", err)
	// What is wrong inside is not told.
	code, status, message := acs.ServerException, http.StatusInternalServerError, "internal error"
	if we, ok := errors.AsType[wire.Error](err); ok {
		code, status = we.ErrorCode(), we.HTTPStatus()
		message = strings.TrimPrefix(we.Error(), code+": ")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(acs.EncodeException(code, message))
}

// connected counts an instance's connections and writes whether it has any: an
// agent that comes back does so before the server notices that its last
// connection is dead.
func (s *Server) connected(ctx context.Context, arn string, add int) {
	count := func(add int) (any, closed bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.agents[arn] += add
		any = s.agents[arn] > 0
		if !any {
			delete(s.agents, arn)
		}
		return any, s.closed
	}
	yes, closed := count(add)
	for !closed { // agents stay connected, as far as anybody can see, while the server restarts
		err := s.DB.Update(ctx, func(tx *store.Tx) error {
			ci, ok := state.ContainerInstances.Get(tx, arn)
			if !ok || ci.AgentConnected == yes {
				return nil
			}
			n := *ci
			n.AgentConnected = yes
			n.Version++
			state.ContainerInstances.Put(tx, &n)
			return nil
		})
		if err != nil {
			if ctx.Err() == nil {
				s.Log.Error("agent connection state", "instance", arn, "err", err)
			}
			return
		}
		// Another connection that came or went meanwhile may have found nothing to write.
		now, down := count(0)
		if now == yes || down {
			return
		}
		yes = now
	}
}

// session is one ACS connection.
type session struct {
	*Server
	conn         *websocket.Conn
	arn, cluster string
	log          *slog.Logger
	credentials  bool             // the agent process is new and has none
	sent         map[string]*sent // by task ARN; of follow only
}

// sent is what this connection has told the agent of one task.
type sent struct {
	run, stop bool
	refresh   time.Time // when its credentials are renewed; zero: it has none
}

func (s *session) send(ctx context.Context, m acs.Message) error {
	b, err := acs.Encode(m)
	if err != nil {
		return err
	}
	return write(ctx, s.conn, b)
}

// follow sends what the store says of the instance's tasks, for as long as the
// connection lives.
func (s *session) follow(ctx context.Context) error {
	w := s.DB.Watch(state.Tasks)
	defer w.Close()
	beat := s.Now().Add(heartbeat)
	for {
		next := beat
		for _, x := range s.sent {
			if !x.refresh.IsZero() && x.refresh.Before(next) {
				next = x.refresh
			}
		}
		wait, cancel := context.WithTimeout(ctx, max(next.Sub(s.Now()), time.Millisecond))
		snap, changes, err := w.Next(wait)
		cancel()
		late := errors.Is(err, context.DeadlineExceeded)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !late:
			return fmt.Errorf("watch tasks: %w", err)
		}
		// What is due by time is not to be held up by a store that never rests.
		if now := s.Now(); !now.Before(beat) {
			beat = now.Add(heartbeat)
			if err := s.send(ctx, &acs.HeartbeatMessage{MessageID: s.NewID(), Healthy: true}); err != nil {
				return err
			}
		}
		if err := s.renew(ctx); err != nil {
			return err
		}
		if late {
			continue
		}
		if changes.All {
			for t := range state.Tasks.By(snap, "instance", s.arn) {
				if err := s.task(ctx, snap, t); err != nil {
					return err
				}
			}
			if err := s.manifest(ctx, snap); err != nil {
				return err
			}
			continue
		}
		for _, key := range changes.Keys(state.Tasks) {
			if t, ok := state.Tasks.Get(snap, key); ok && t.Instance == s.arn {
				if err := s.task(ctx, snap, t); err != nil {
					return err
				}
			} else if !ok {
				delete(s.sent, key)
			}
		}
	}
}

// task sends what the agent does not know yet of t.
func (s *session) task(ctx context.Context, snap *store.Snapshot, t *state.Task) error {
	x := s.sent[t.ARN]
	if x == nil {
		x = &sent{}
		s.sent[t.ARN] = x
	}
	if t.Past(state.Deprovisioning) {
		x.refresh = time.Time{}
		return nil
	}
	td, ok := state.TaskDefinitions.Get(snap, t.TaskDefinition)
	if t.DesiredStatus == state.Stopped {
		if x.stop {
			return nil
		}
		x.stop, x.refresh = true, time.Time{}
		if err := s.payload(ctx, snap, compile.Stop(t, td)); err != nil {
			return err
		}
		return s.stopping(ctx, t.ARN)
	}
	if !ok {
		return s.give(ctx, t, "ResourceInitializationError: the task definition is gone")
	}
	if x.run || t.Network != nil && t.ENI == "" {
		return nil
	}
	in := compile.Input{Task: t, Definition: td, Endpoint: s.TaskEndpoint, LogMode: state.LogMode(snap, t.Account)}
	if region, ok := state.Regions.Get(snap, state.RegionKey); ok {
		in.Region = region.Name
	}
	if t.ENI != "" {
		if !s.network(snap, t, &in) {
			return nil // it is being taken away
		}
	}
	role, execution := roles(t, td)
	var err error
	if in.Role, err = s.mint(snap, t, role, t.RoleCredentialsID, x); err == nil {
		in.ExecutionRole, err = s.mint(snap, t, execution, t.ExecutionRoleCredentialsID, x)
	}
	if err != nil {
		return s.give(ctx, t, err.Error())
	}
	if t.Service != "" {
		if svc, ok := state.Services.Get(snap, t.Service); ok {
			for _, d := range svc.Deployments {
				if d.ID == t.Deployment {
					in.Digests = d.ImageDigests
				}
			}
		}
		for set := range state.TaskSets.By(snap, "service", t.Service) {
			if set.ID == t.Deployment {
				in.Digests = set.ImageDigests
			}
		}
	}
	p, err := compile.Task(in)
	if err != nil {
		return s.give(ctx, t, "ResourceInitializationError: "+err.Error())
	}
	x.run = true
	known := t.Past(state.Pending)
	if err := s.payload(ctx, snap, p); err != nil {
		return err
	}
	if !s.credentials || !known {
		return nil
	}
	// A new agent process that knows the task from its checkpoint has no credentials for it.
	for _, m := range credentialsMessages(t, in.Role, in.ExecutionRole) {
		m.MessageID = s.NewID()
		if err := s.send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) network(snap *store.Snapshot, t *state.Task, in *compile.Input) bool {
	e, ok := state.NetworkInterfaces.Get(snap, t.ENI)
	if !ok || e.Deleting {
		return false
	}
	in.Interface = e
	if sn, ok := state.Subnets.Get(snap, e.Subnet); ok {
		in.Subnet = sn.CIDR
	}
	if v, ok := state.VPCs.Get(snap, e.VPC); ok && v.DNSSupport && len(v.CIDRs) > 0 {
		in.Resolver = resolver(v.CIDRs[0])
		in.Domain = Domain(in.Region)
		if _, ok := state.DHCPOptionSets.Get(snap, v.DHCPOptions); ok {
			in.Domain, in.Nameservers = dhcp(snap, v)
		}
	}
	return true
}

// resolver is the VPC's base address plus two (facts: networking).
func resolver(cidr netip.Prefix) netip.Addr { return cidr.Masked().Addr().Next().Next() }

// Domain is the search domain of the default DHCP option set.
func Domain(region string) string {
	if region == "us-east-1" {
		return "ec2.internal"
	}
	return region + ".compute.internal"
}

func credentialsMessages(t *state.Task, role, execution *acs.IAMRoleCredentials) (ms []*acs.IAMRoleCredentialsMessage) {
	if role != nil {
		ms = append(ms, &acs.IAMRoleCredentialsMessage{TaskArn: t.ARN, TaskClusterArn: t.Cluster, RoleType: acs.RoleTypeApplication, RoleCredentials: role})
	}
	if execution != nil {
		ms = append(ms, &acs.IAMRoleCredentialsMessage{TaskArn: t.ARN, TaskClusterArn: t.Cluster, RoleType: acs.RoleTypeExecution, RoleCredentials: execution})
	}
	return ms
}

// roles are the task's roles, overrides first.
func roles(t *state.Task, td *state.TaskDefinition) (role, execution string) {
	role, execution = wire.Value(td.Doc.TaskRoleArn), wire.Value(td.Doc.ExecutionRoleArn)
	if o := t.Overrides; o != nil {
		if v := wire.Value(o.TaskRoleArn); v != "" {
			role = v
		}
		if v := wire.Value(o.ExecutionRoleArn); v != "" {
			execution = v
		}
	}
	return role, execution
}

// mint makes credentials of a role for the task, nil if it has no such role.
func (s *session) mint(r store.Reader, t *state.Task, role, id string, x *sent) (*acs.IAMRoleCredentials, error) {
	if role == "" {
		return nil, nil
	}
	c, err := s.Mint(r, role, tasksService, t.ID, credentialsLife)
	if err != nil {
		s.log.Warn("assume role for task", "task", t.ARN, "role", role, "err", err)
		//lint:ignore ST1005 AWS's own sentence
		return nil, fmt.Errorf("ECS was unable to assume the role '%s' that was provided for this task. Please verify that the role being passed has the proper trust relationship and permissions and that your IAM user has permissions to pass this role.", role)
	}
	if at := s.Now().Add(credentialsLife / 2); x.refresh.IsZero() || at.Before(x.refresh) {
		x.refresh = at
	}
	return &acs.IAMRoleCredentials{CredentialsID: id, RoleArn: role, AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey,
		SessionToken: c.Token, Expiration: c.Expiration.UTC().Format(time.RFC3339)}, nil
}

// renew sends new credentials of tasks whose old ones are half spent.
func (s *session) renew(ctx context.Context) error {
	snap := s.DB.Snapshot()
	for arn, x := range s.sent {
		if x.refresh.IsZero() || x.refresh.After(s.Now()) {
			continue
		}
		x.refresh = time.Time{}
		t, ok := state.Tasks.Get(snap, arn)
		if !ok || t.Past(state.Deprovisioning) {
			continue
		}
		td, ok := state.TaskDefinitions.Get(snap, t.TaskDefinition)
		if !ok {
			continue
		}
		role, execution := roles(t, td)
		a, err := s.mint(snap, t, role, t.RoleCredentialsID, x)
		var b *acs.IAMRoleCredentials
		if err == nil {
			b, err = s.mint(snap, t, execution, t.ExecutionRoleCredentialsID, x)
		}
		if err != nil {
			// A role that is gone: what the task has runs out, as in AWS. It may come back.
			x.refresh = s.Now().Add(10 * time.Minute)
		}
		for _, m := range credentialsMessages(t, a, b) {
			m.MessageID = s.NewID()
			if err := s.send(ctx, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// payload sends one task. The store's revision is the sequence number: it only
// rises, and a server that starts anew goes on from it.
func (s *session) payload(ctx context.Context, snap *store.Snapshot, t acs.Task) error {
	return s.send(ctx, &acs.PayloadMessage{
		MessageID: s.NewID(), ClusterArn: s.cluster, ContainerInstanceArn: s.arn, Tasks: []acs.Task{t},
		GeneratedAt: s.Now().UnixMilli(), SeqNum: snap.Revision(),
	})
}

// manifest tells the agent everything that should be there.
func (s *session) manifest(ctx context.Context, snap *store.Snapshot) error {
	m := &acs.TaskManifestMessage{MessageID: s.NewID(), ClusterArn: s.cluster, ContainerInstanceArn: s.arn,
		GeneratedAt: s.Now().UnixMilli(), Timeline: snap.Revision(), Tasks: []acs.TaskIdentifier{}}
	for t := range state.Tasks.By(snap, "instance", s.arn) {
		if !t.Past(state.Deprovisioning) {
			m.Tasks = append(m.Tasks, acs.TaskIdentifier{TaskArn: t.ARN, TaskClusterArn: t.Cluster, DesiredStatus: t.DesiredStatus})
		}
	}
	return s.send(ctx, m)
}

// stopping says that the agent was told to stop the task.
func (s *session) stopping(ctx context.Context, arn string) error {
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		t, ok := state.Tasks.Get(tx, arn)
		if !ok {
			return nil
		}
		n := t.Clone()
		if n.Advance(state.Stopping) {
			state.Tasks.Put(tx, n)
		}
		return nil
	})
	return noted(ctx, s.log, "mark task stopping", err)
}

// give up on a task that cannot even be sent.
func (s *session) give(ctx context.Context, t *state.Task, reason string) error {
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		t, ok := state.Tasks.Get(tx, t.ARN)
		if !ok || t.Past(state.Deprovisioning) {
			return nil
		}
		n := t.Clone()
		if !n.WantStop("TaskFailedToStart", reason, s.Now()) {
			return nil
		}
		state.Tasks.Put(tx, n)
		return nil
	})
	return noted(ctx, s.log, "give up task", err)
}

// noted lets a connection go on when the store refuses a write for want of
// space: what it would have said is said again with the next one.
func noted(ctx context.Context, log *slog.Logger, doing string, err error) error {
	if errors.Is(err, store.ErrNoSpace) {
		log.Error(doing, "err", err)
		return nil
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return err
}

// read takes what the agent says. Acknowledgements need no answer: what was
// not acknowledged is sent again with the next connection.
func (s *session) read(ctx context.Context) error {
	for {
		_, b, err := s.conn.Read(ctx)
		if err != nil {
			return err
		}
		m, err := acs.Decode(b)
		if err != nil {
			s.log.Warn("frame from agent dropped", "err", err)
			continue
		}
		switch m := m.(type) {
		case *acs.NackRequest:
			s.log.Warn("agent refused a message", "reason", m.Reason)
		case *acs.TaskStopVerificationMessage:
			if err := s.verify(ctx, m); err != nil {
				return err
			}
		}
	}
}

// verify confirms which of the agent's surplus tasks must stop.
func (s *session) verify(ctx context.Context, m *acs.TaskStopVerificationMessage) error {
	snap := s.DB.Snapshot()
	ack := &acs.TaskStopVerificationAck{MessageID: m.MessageID, GeneratedAt: s.Now().UnixMilli()}
	for _, c := range m.StopCandidates {
		t, ok := state.Tasks.Get(snap, c.TaskArn)
		if ok && t.Instance == s.arn && t.DesiredStatus == state.Running && !t.Past(state.Deprovisioning) {
			continue
		}
		c.DesiredStatus = state.Stopped
		ack.StopTasks = append(ack.StopTasks, c)
	}
	if len(ack.StopTasks) == 0 {
		return nil
	}
	return s.send(ctx, ack)
}
