package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/dispatch/acs"
)

// Tasks is what ACS needs of the engine.
type Tasks interface {
	Apply(def acs.Task) error
	Stop(arn string)
	Tasks() []*engine.Task
}

// Timeline keeps the number of the newest manifest beyond the agent's life.
type Timeline interface {
	Load() int64
	Store(n int64) error
}

// ACS is the connection over which tasks come. All fields are required.
type ACS struct {
	Instance    Instance
	Endpoints   *Endpoints
	Tasks       Tasks
	Credentials interface {
		Put(task string, c acs.IAMRoleCredentials)
	}
	Timeline Timeline
	Log      *slog.Logger

	// Of the goroutine that runs, and of no connection: a payload that came
	// over one is known when the next brings a manifest.
	seen      int64
	connected bool // once; the control plane need not send all credentials again
}

// Run connects and reconnects until ctx is done.
func (a *ACS) Run(ctx context.Context) error {
	a.seen = a.Timeline.Load()
	forever(ctx, backoff{first: 250 * time.Millisecond, most: 2 * time.Minute}, func(err error, wait time.Duration) {
		a.Log.Info("the connection for tasks ended", "error", err, "again", wait)
	}, a.connect)
	return nil
}

func (a *ACS) connect(ctx context.Context) error {
	where, err := a.Endpoints.get(ctx)
	if err != nil {
		return err
	}
	if where.Endpoint == nil {
		return errors.New("the control plane names no endpoint for tasks")
	}
	u, err := websocketURL(*where.Endpoint, url.Values{
		"clusterArn": {a.Instance.Cluster}, "containerInstanceArn": {a.Instance.ARN},
		"agentHash": {"berth"}, "agentVersion": {api.Version}, "seqNum": {"1"}, "protocolVersion": {"2"},
		"dockerVersion": {"containerd"}, "sendCredentials": {strconv.FormatBool(!a.connected)},
	})
	if err != nil {
		return err
	}
	conn, err := dial(ctx, a.Instance, u)
	if err != nil {
		return err
	}
	s := &acsSession{ACS: a, conn: conn, manifests: map[string][]acs.TaskIdentifier{}}
	var wg sync.WaitGroup
	defer wg.Wait()
	ended := make(chan struct{})
	defer close(ended)
	defer conn.CloseNow()
	expired := make(chan struct{})
	wg.Go(func() {
		age := time.NewTimer(jittered(connectionAge, connectionAgeMax))
		defer age.Stop()
		select {
		case <-ended:
		case <-age.C:
			close(expired)
			_ = conn.Close(websocket.StatusNormalClosure, acs.ConnectionExpired) // read reports how it went
		}
	})
	a.connected = true
	err = s.read(ctx)
	select {
	case <-expired:
		return errExpired
	default:
		return err
	}
}

// acsSession is one connection.
type acsSession struct {
	*ACS
	conn *websocket.Conn
	// manifests that the server has been asked about, by message id
	manifests map[string][]acs.TaskIdentifier
}

func (s *acsSession) read(ctx context.Context) error {
	for {
		m, err := readMessage(ctx, s.conn, s.Log)
		if err != nil {
			return err
		}
		if m == nil {
			continue
		}
		if v, ok := m.(interface{ Validate() error }); ok {
			if err := v.Validate(); err != nil {
				s.Log.Warn("dropped a message", "error", err)
				continue
			}
		}
		if err := s.handle(ctx, m); err != nil {
			return err
		}
	}
}

// readMessage reads a frame within the time that a server may be silent for.
// It answers nil for a frame that is to be dropped.
func readMessage(ctx context.Context, conn *websocket.Conn, log *slog.Logger) (acs.Message, error) {
	rctx, cancel := context.WithTimeout(ctx, jittered(inactivity, inactivity))
	defer cancel()
	_, frame, err := conn.Read(rctx)
	if err != nil {
		if rctx.Err() != nil && ctx.Err() == nil {
			return nil, errors.New("the server was silent for too long")
		}
		return nil, err
	}
	m, err := acs.Decode(frame)
	if err != nil {
		log.Warn("dropped a frame", "error", err)
		return nil, nil
	}
	return m, nil
}

func (s *acsSession) write(ctx context.Context, m acs.Message) error {
	b, err := acs.Encode(m)
	if err != nil {
		return err
	}
	if err := s.conn.Write(ctx, websocket.MessageText, b); err != nil {
		return fmt.Errorf("send %s: %w", acs.TypeOf(m), err)
	}
	return nil
}

func (s *acsSession) ack(ctx context.Context, id string) error {
	return s.write(ctx, &acs.AckRequest{Cluster: s.Instance.Cluster, ContainerInstance: s.Instance.ARN, MessageID: id})
}

// handle does what a message asks for. An error is one of the connection.
func (s *acsSession) handle(ctx context.Context, m acs.Message) error {
	switch m := m.(type) {
	case *acs.HeartbeatMessage:
		return s.write(ctx, &acs.HeartbeatAckRequest{MessageID: m.MessageID})
	case *acs.PayloadMessage:
		return s.payload(ctx, m)
	case *acs.IAMRoleCredentialsMessage:
		s.Credentials.Put(m.TaskArn, *m.RoleCredentials)
		return s.ackCredentials(ctx, m.MessageID, m.RoleCredentials)
	case *acs.TaskManifestMessage:
		return s.manifest(ctx, m)
	case *acs.TaskStopVerificationAck:
		s.verified(m)
		return nil
	case *acs.AttachTaskNetworkInterfacesMessage:
		// The payload says the same again; the engine waits for what it names.
		return s.ack(ctx, m.MessageID)
	case *acs.StageUpdateMessage:
		return s.nack(ctx, m.MessageID, "Updates are disabled")
	case *acs.PerformUpdateMessage:
		return s.nack(ctx, m.MessageID, "Updates are disabled")
	case *acs.CloseMessage:
		s.Log.Info("the server will close the connection", "message", m.Message)
	case *acs.ErrorMessage:
		s.Log.Warn("the server reports an error", "message", m.Message)
	default:
		s.Log.Warn("dropped a message", "type", acs.TypeOf(m))
	}
	return nil
}

func (s *acsSession) nack(ctx context.Context, id, reason string) error {
	return s.write(ctx, &acs.NackRequest{Cluster: s.Instance.Cluster, ContainerInstance: s.Instance.ARN, MessageID: id, Reason: reason})
}

func (s *acsSession) ackCredentials(ctx context.Context, id string, c *acs.IAMRoleCredentials) error {
	return s.write(ctx, &acs.IAMRoleCredentialsAckRequest{MessageID: id, CredentialsID: c.CredentialsID, Expiration: c.Expiration})
}

// payload begins and stops tasks. Stops come first: what they free may be
// what the others need. A payload with a task that cannot be handled is not
// acknowledged.
func (s *acsSession) payload(ctx context.Context, m *acs.PayloadMessage) error {
	s.seen = max(s.seen, m.SeqNum)
	tasks := slices.Clone(m.Tasks)
	slices.SortStableFunc(tasks, func(a, b acs.Task) int { return cmp.Compare(rank(a), rank(b)) })
	ok := true
	for _, t := range tasks {
		if t.TaskClusterArn == "" {
			t.TaskClusterArn = m.ClusterArn
		}
		if err := s.Tasks.Apply(t); err != nil {
			s.Log.Error("a task cannot be handled", "task", t.Arn, "error", err)
			ok = false
		}
	}
	for _, t := range tasks {
		for _, c := range []*acs.IAMRoleCredentials{t.RoleCredentials, t.ExecutionRoleCredentials} {
			if c == nil {
				continue
			}
			if err := s.ackCredentials(ctx, m.MessageID, c); err != nil {
				return err
			}
		}
	}
	if !ok {
		return nil
	}
	return s.ack(ctx, m.MessageID)
}

func rank(t acs.Task) int {
	if t.DesiredStatus == acs.StatusStopped {
		return 0
	}
	return 1
}

// manifest compares what should be here with what is. What is too many is
// asked about before it is stopped. An old manifest gets no answer at all.
func (s *acsSession) manifest(ctx context.Context, m *acs.TaskManifestMessage) error {
	if m.Timeline <= s.seen {
		s.Log.Info("dropped a manifest that is not new", "timeline", m.Timeline, "seen", s.seen)
		return nil
	}
	s.seen = m.Timeline
	if err := s.Timeline.Store(m.Timeline); err != nil {
		s.Log.Error("cannot keep the number of a manifest", "error", err)
	}
	if err := s.ack(ctx, m.MessageID); err != nil {
		return err
	}
	listed := map[string]bool{}
	for _, t := range m.Tasks {
		if t.DesiredStatus == acs.StatusRunning {
			listed[t.TaskArn] = true
		}
	}
	var surplus []acs.TaskIdentifier
	for _, t := range s.Tasks.Tasks() {
		if t.Desired == engine.Running && !listed[t.Def.Arn] {
			surplus = append(surplus, acs.TaskIdentifier{TaskArn: t.Def.Arn, TaskClusterArn: t.Def.TaskClusterArn, DesiredStatus: acs.StatusStopped})
		}
	}
	if len(surplus) == 0 {
		return nil
	}
	s.manifests[m.MessageID] = surplus
	return s.write(ctx, &acs.TaskStopVerificationMessage{MessageID: m.MessageID, StopCandidates: surplus})
}

// verified stops what the server has confirmed, if it was asked, once.
func (s *acsSession) verified(m *acs.TaskStopVerificationAck) {
	asked, ok := s.manifests[m.MessageID]
	if !ok {
		s.Log.Warn("dropped a confirmation that was not asked for", "message", m.MessageID)
		return
	}
	delete(s.manifests, m.MessageID)
	for _, t := range m.StopTasks {
		if slices.ContainsFunc(asked, func(a acs.TaskIdentifier) bool { return a.TaskArn == t.TaskArn }) {
			s.Log.Info("stopping a task that is not on the manifest", "task", t.TaskArn)
			s.Tasks.Stop(t.TaskArn)
		}
	}
}
