package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/berth-run/berth/agent/bridge"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/gateway"
	"github.com/berth-run/berth/agent/metadata"
	"github.com/berth-run/berth/dispatch/acs"
)

// Instance is the EC2 instance that the agent runs beside. The process is in
// the instance's network namespace.
type Instance struct {
	// Host is what tasks share with the instance, but for the bridge, which
	// the agent makes. Required: Root, NetNS.
	Host engine.Host
	// Bridge says where the container network keeps what. Required: Dir, Log.
	Bridge bridge.Options
}

// surroundings is an instance whose container network is up and at whose
// loopback device the agent answers its containers.
type surroundings struct {
	closers
	network *bridge.Network
	host    *engine.Host
}

// surround makes the container network of an instance. door is where tasks
// reach the API ("169.254.170.2:4566", "" nowhere), which is at target.
func surround(ctx context.Context, in *Instance, door, target string, tmds *metadata.Server, eng func() *engine.Engine, cfg Config) (s *surroundings, err error) {
	s = &surroundings{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	opts := in.Bridge
	var lc net.ListenConfig
	if door != "" {
		_, text, err := net.SplitHostPort(door)
		if err != nil {
			return s, fmt.Errorf("door to the API: %w", err)
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return s, fmt.Errorf("door to the API: %w", err)
		}
		l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
		if err != nil {
			return s, fmt.Errorf("door to the API: %w", err)
		}
		s.closers = append(s.closers, gateway.Serve(l, target, cfg.Log))
		opts.Forward = map[uint16]uint16{uint16(port): uint16(l.Addr().(*net.TCPAddr).Port)}
	}
	l, err := lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(bridge.AgentPort)))
	if err != nil {
		return s, fmt.Errorf("task metadata endpoint: %w", err)
	}
	if s.network, err = bridge.Open(opts); err != nil {
		return s, errors.Join(err, l.Close())
	}
	host := in.Host
	host.Bridge = s.network
	s.host = &host
	s.closers = append(s.closers, closer(s.network.Close), tmds.ServeInstance(l, func(a netip.Addr) (string, bool) {
		if task, ok := s.network.Joined(a); ok {
			return task, true
		}
		id, ok := s.network.Connected(a)
		if !ok {
			return "", false
		}
		if e := eng(); e != nil {
			if t, _ := e.Lookup(id); t != nil {
				return t.Def.Arn, true
			}
		}
		return "", true // nobody's
	}, func(task string) bool {
		e := eng()
		return e != nil && slices.ContainsFunc(e.Tasks(), func(t *engine.Task) bool {
			return t.Def.Arn == task && t.Def.NetworkMode == "host"
		})
	}))
	return s, nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

// serve joins the task's namespace to the agent. The namespace takes it along
// when it goes.
func (s *surroundings) serve(dir string) func(ctx context.Context, task string, eni *acs.ElasticNetworkInterface) (io.Closer, error) {
	return func(_ context.Context, task string, eni *acs.ElasticNetworkInterface) (io.Closer, error) {
		path, err := namespace(dir, eni.EC2ID)
		if err != nil {
			return nil, err
		}
		return closer(func() {}), s.network.Join(path, task)
	}
}
