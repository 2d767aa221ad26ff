package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/dispatch/fabric"
)

// maxFrame bounds a frame of the server: the complete state of a large region.
const maxFrame = 64 << 20

// connect keeps a stream to the server open.
func (n *node) connect(ctx context.Context) error {
	const least, most = 50 * time.Millisecond, 5 * time.Second
	wait := least
	said := ""
	for {
		began := time.Now()
		err := n.stream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > most {
			wait, said = least, ""
		}
		// A server that is not there is told of once, not at every attempt.
		if text := fmt.Sprint(err); text != said {
			said = text
			n.log.Warn("server stream", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, most)
	}
}

// stream is one connection's life.
func (n *node) stream(ctx context.Context) error {
	transport := n.transport()
	defer transport.CloseIdleConnections()
	dial, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(dial, "ws://server"+fabric.Path, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(maxFrame)
	if err := write(ctx, c, fabric.Hello{Name: n.cfg.Name, Zone: n.cfg.Zone, CPU: n.cfg.CPU, Memory: n.cfg.Memory}); err != nil {
		return err
	}
	n.log.Info("server connected")
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			_, b, err := c.Read(ctx)
			if err != nil {
				return fmt.Errorf("read: %w", err)
			}
			var d fabric.Desired
			if err := json.Unmarshal(b, &d); err != nil {
				return fmt.Errorf("frame of %d bytes: %w", len(b), err)
			}
			if err := n.receive(d); err != nil {
				return err
			}
			for _, x := range d.Sessions {
				if !n.sessions.add(x) {
					n.log.Error("terminal refused: too many are waiting", "session", x.ID)
				}
			}
		}
	})
	g.Go(func() error { return n.tell(ctx, c) })
	return g.Wait()
}

// transport reaches the server.
func (n *node) transport() *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", n.cfg.Server)
	}}
}

// tell sends reports: first of every interface there is, then what is new.
func (n *node) tell(ctx context.Context, c *websocket.Conn) error {
	n.mu.Lock()
	known := n.status()
	n.mu.Unlock()
	n.reports.giveBack(known)
	if n.instances != nil {
		n.reports.giveBackInstances(n.instances.Status())
	}
	for {
		out, instances := n.reports.take(), n.reports.takeInstances()
		if len(out)+len(instances) > 0 {
			if err := write(ctx, c, fabric.Report{Interfaces: out, Instances: instances}); err != nil {
				n.reports.giveBack(out)
				n.reports.giveBackInstances(instances)
				return err
			}
		}
		if err := n.tellFlows(ctx, c); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.reports.wake:
		case <-n.flows.wake:
		}
	}
}

// status is what the fabric has of the interfaces that are wanted here.
func (n *node) status() []fabric.InterfaceStatus {
	if n.opened == nil {
		return nil
	}
	var out []fabric.InterfaceStatus
	for id, s := range n.opened.Status() {
		st := fabric.InterfaceStatus{ID: id, Attached: s.Ready}
		if s.Err != nil {
			st.Error = s.Err.Error()
		}
		if st.Attached || st.Error != "" {
			out = append(out, st)
		}
	}
	return out
}

func write(ctx context.Context, c *websocket.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, b); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
