package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/dispatch/acs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// serveTCS is one agent's telemetry: health goes into its tasks. Metrics are
// acknowledged and dropped until CloudWatch is there to take them, which
// coverage says.
func (s *Server) serveTCS(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	arn := r.URL.Query().Get("containerInstance")
	if err := s.Authorize(r, "ecs:StartTelemetrySession", arn); err != nil {
		s.refused(w, arn, err)
		return
	}
	c, err := accept(w, r)
	if err != nil {
		s.Log.Warn("tcs upgrade", "instance", arn, "err", err)
		return
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.beat(gctx, c) })
	g.Go(func() error { return s.telemetry(gctx, c, arn) })
	err = g.Wait()
	finish(c, err)
	if !ended(err) {
		s.Log.Error("telemetry connection", "instance", arn, "err", err)
	}
}

// beat keeps the connection alive.
func (s *Server) beat(ctx context.Context, c *websocket.Conn) error {
	b, err := acs.Encode(&acs.HeartbeatMessage{Healthy: true})
	if err != nil {
		return err
	}
	t := time.NewTicker(heartbeat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			if err := write(ctx, c, b); err != nil {
				return err
			}
		}
	}
}

func (s *Server) telemetry(ctx context.Context, c *websocket.Conn, instance string) error {
	for {
		_, b, err := c.Read(ctx)
		if err != nil {
			return err
		}
		// The upgrade was signed; the frames of one connection come from the same hand.
		_, frame, err := acs.SplitSigned(b)
		if err != nil {
			return fmt.Errorf("telemetry frame: %w", err)
		}
		m, err := acs.Decode(frame)
		var unknown *acs.UnknownTypeError
		if errors.As(err, &unknown) {
			continue
		} else if err != nil {
			return fmt.Errorf("telemetry frame: %w", err)
		}
		var ack acs.Message
		switch m := m.(type) {
		case *acs.PublishHealthRequest:
			if err := s.health(ctx, instance, m); err != nil {
				return err
			}
			ack = &acs.AckPublishHealth{}
		case *acs.PublishMetricsRequest:
			ack = &acs.AckPublishMetric{}
		case *acs.PublishInstanceStatusRequest:
			ack = &acs.AckPublishInstanceStatus{}
		default:
			continue
		}
		out, err := acs.Encode(ack)
		if err != nil {
			return err
		}
		if err := write(ctx, c, out); err != nil {
			return err
		}
	}
}

// health writes what containers' checks say into their tasks.
func (s *Server) health(ctx context.Context, instance string, m *acs.PublishHealthRequest) error {
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		for _, th := range m.Tasks {
			t, ok := state.Tasks.Get(tx, th.TaskArn)
			if !ok || t.Instance != instance || t.Past(state.Deprovisioning) {
				continue
			}
			n := t.Clone()
			changed := false
			for _, ch := range th.Containers {
				switch ch.HealthStatus {
				case "HEALTHY", "UNHEALTHY", "UNKNOWN":
				default:
					continue
				}
				for i := range n.Containers {
					if c := &n.Containers[i]; c.Name == ch.ContainerName && c.Health != ch.HealthStatus {
						c.Health, changed = ch.HealthStatus, true
					}
				}
			}
			if !changed {
				continue
			}
			n.Health = TaskHealth(n.Containers)
			n.Version++
			state.Tasks.Put(tx, n)
		}
		return nil
	})
	return noted(ctx, s.Log, "write health", err)
}

// TaskHealth is the health of a task of these containers (facts: task
// definitions): the worst of the essential ones that have a say.
func TaskHealth(cs []state.Container) string {
	health := "UNKNOWN"
	for _, c := range cs {
		switch {
		case !c.Essential:
		case c.Health == "UNHEALTHY":
			return "UNHEALTHY"
		case c.Health == "HEALTHY":
			health = "HEALTHY"
		}
	}
	return health
}
