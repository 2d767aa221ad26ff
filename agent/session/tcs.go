package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/dispatch/acs"
)

// publishEvery is how often metrics are published.
const publishEvery = 20 * time.Second

// TCS is the connection over which metrics and health go. All fields are
// required.
type TCS struct {
	Instance  Instance
	Endpoints *Endpoints
	Tasks     interface{ Tasks() []*engine.Task }
	// Changed receives when a container's health may have changed.
	Changed <-chan struct{}
	// Metrics answers what was measured of a container since the last time.
	Metrics func(runtimeID string) *acs.ContainerMetric
	Log     *slog.Logger
}

// Run connects and reconnects until ctx is done.
func (c *TCS) Run(ctx context.Context) error {
	forever(ctx, backoff{first: time.Second, most: time.Minute}, func(err error, wait time.Duration) {
		c.Log.Info("the connection for telemetry ended", "error", err, "again", wait)
	}, c.connect)
	return nil
}

func (c *TCS) connect(ctx context.Context) error {
	where, err := c.Endpoints.get(ctx)
	if err != nil {
		return err
	}
	if where.TelemetryEndpoint == nil {
		return errors.New("the control plane names no endpoint for telemetry")
	}
	u, err := websocketURL(*where.TelemetryEndpoint, url.Values{
		"cluster": {c.Instance.Cluster}, "containerInstance": {c.Instance.ARN},
		"agentHash": {"berth"}, "agentVersion": {api.Version}, "dockerVersion": {"containerd"},
	})
	if err != nil {
		return err
	}
	conn, err := dial(ctx, c.Instance, u)
	if err != nil {
		return err
	}
	s := &tcsSession{TCS: c, conn: conn, url: u}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.CloseNow()
	defer cancel()
	publishing := make(chan error, 1)
	wg.Go(func() {
		err := s.publish(ctx)
		publishing <- err
		if err != nil {
			conn.CloseNow() // so that read ends too
		}
	})
	wg.Go(func() {
		age := time.NewTimer(jittered(connectionAge, connectionAgeMax))
		defer age.Stop()
		select {
		case <-ctx.Done():
		case <-age.C:
			_ = conn.Close(websocket.StatusNormalClosure, acs.ConnectionExpired) // read reports how it went
		}
	})
	for {
		m, err := readMessage(ctx, conn, c.Log)
		if err != nil {
			select {
			case perr := <-publishing:
				return errors.Join(perr, err)
			default:
				return err
			}
		}
		if stop, ok := m.(*acs.StopTelemetrySessionMessage); ok {
			return fmt.Errorf("the server ended the session: %s", stop.Message)
		}
	}
}

// tcsSession is one connection.
type tcsSession struct {
	*TCS
	conn *websocket.Conn
	url  *url.URL
}

func (s *tcsSession) write(ctx context.Context, m acs.Message) error {
	b, err := acs.Encode(m)
	if err != nil {
		return err
	}
	signer, err := s.Instance.Creds(ctx)
	if err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	b = signer.SignFrame(s.url, b, "ecs", s.Instance.API.Region(), time.Now())
	if err := s.conn.Write(ctx, websocket.MessageText, b); err != nil {
		return fmt.Errorf("send %s: %w", acs.TypeOf(m), err)
	}
	return nil
}

// publish sends the instance's status once, metrics regularly, and health
// regularly and when it changes.
func (s *tcsSession) publish(ctx context.Context) error {
	now := acs.Seconds{Time: time.Now()}
	err := s.write(ctx, &acs.PublishInstanceStatusRequest{
		Metadata:  &acs.InstanceStatusMetadata{Cluster: s.Instance.Cluster, ContainerInstance: s.Instance.ARN, RequestID: rand.Text()},
		Statuses:  []acs.InstanceStatus{{Type: "ContainerRuntime", Status: "OK", LastUpdated: now, LastStatusChange: now}},
		Timestamp: now,
	})
	if err != nil {
		return err
	}
	if err := s.health(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.Changed:
			if err := s.health(ctx); err != nil {
				return err
			}
		case <-tick.C:
			if err := s.metrics(ctx); err != nil {
				return err
			}
			if err := s.health(ctx); err != nil {
				return err
			}
		}
	}
}

// metrics publishes what was measured, in frames of at most ten tasks.
func (s *tcsSession) metrics(ctx context.Context) error {
	var all []acs.TaskMetric
	for _, t := range s.Tasks.Tasks() {
		tm := acs.TaskMetric{TaskArn: t.Def.Arn, ClusterArn: t.Def.TaskClusterArn, TaskDefinitionFamily: t.Def.Family, TaskDefinitionVersion: t.Def.Version}
		for _, c := range t.Containers {
			if m := s.Metrics(c.RuntimeID); m != nil {
				if p := c.Def.RestartPolicy; p != nil && p.Enabled {
					m.RestartStatsSet = &acs.RestartStatsSet{RestartCount: int64(c.RestartCount)}
				}
				tm.ContainerMetrics = append(tm.ContainerMetrics, *m)
			}
		}
		if len(tm.ContainerMetrics) > 0 {
			all = append(all, tm)
		}
	}
	id, now := rand.Text(), acs.Seconds{Time: time.Now()}
	for idle := len(all) == 0; ; {
		n := min(len(all), acs.MaxTasksPerFrame)
		m := &acs.PublishMetricsRequest{
			Metadata:    &acs.MetricsMetadata{Cluster: s.Instance.Cluster, ContainerInstance: s.Instance.ARN, MessageID: id, Idle: idle, Fin: n == len(all)},
			TaskMetrics: all[:n:n], Timestamp: now,
		}
		if err := s.write(ctx, m); err != nil {
			return err
		}
		if all = all[n:]; len(all) == 0 {
			return nil
		}
	}
}

// health publishes the health of all containers that have a check.
func (s *tcsSession) health(ctx context.Context) error {
	var all []acs.TaskHealth
	for _, t := range s.Tasks.Tasks() {
		th := acs.TaskHealth{TaskArn: t.Def.Arn, ClusterArn: t.Def.TaskClusterArn, TaskDefinitionFamily: t.Def.Family, TaskDefinitionVersion: t.Def.Version}
		for _, c := range t.Containers {
			if !c.HasHealthcheck() || c.Phase != engine.Running {
				continue
			}
			th.Containers = append(th.Containers, acs.ContainerHealth{
				ContainerName: c.Def.Name, HealthStatus: c.Health.Status,
				StatusSince: acs.Seconds{Time: c.Health.Since}, StatusMessage: c.Health.Output,
			})
		}
		if len(th.Containers) > 0 {
			all = append(all, th)
		}
	}
	id, now := rand.Text(), acs.Seconds{Time: time.Now()}
	for len(all) > 0 {
		n := min(len(all), acs.MaxTasksPerFrame)
		m := &acs.PublishHealthRequest{
			Metadata: &acs.HealthMetadata{Cluster: s.Instance.Cluster, ContainerInstance: s.Instance.ARN, MessageID: id, Fin: n == len(all)},
			Tasks:    all[:n:n], Timestamp: now,
		}
		if err := s.write(ctx, m); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}
