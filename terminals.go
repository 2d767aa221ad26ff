package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/berth-run/berth/agent/containerd"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/node"
	"github.com/berth-run/berth/node/instance"
)

// terminals is how a node has terminals in containers of the daemon at a socket.
func terminals(n node.Layout, socket string) *node.Terminals {
	open := func(p instance.Place) (*containerd.Runtime, error) {
		return containerd.New(containerd.Config{Address: socket, Namespace: p.Namespace, Dir: p.Dir, Cgroup: p.Cgroup, Exits: n.Containerd().Exits()})
	}
	return &node.Terminals{
		Open: func(ctx context.Context, p instance.Place, container string, e runtime.Exec) (node.Terminal, error) {
			rt, err := open(p)
			if err != nil {
				return nil, err
			}
			t, err := rt.Terminal(ctx, container, e)
			if err != nil {
				return nil, errors.Join(err, rt.Finish())
			}
			return &terminal{Terminal: t, rt: rt}, nil
		},
		HangUp: func(places []instance.Place) error {
			var errs []error
			for _, p := range places {
				if _, err := os.Stat(p.Dir); errors.Is(err, os.ErrNotExist) {
					continue
				}
				rt, err := open(p)
				if err == nil {
					err = errors.Join(rt.HangUp(), rt.Finish())
				}
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", p.Namespace, err))
				}
			}
			return errors.Join(errs...)
		},
	}
}

// terminal is one with the connection to the daemon that is its own.
type terminal struct {
	*containerd.Terminal
	rt   *containerd.Runtime
	once sync.Once
	err  error
}

// Close ends it once.
func (t *terminal) Close() error {
	t.once.Do(func() { t.err = errors.Join(t.Terminal.Close(), t.rt.Finish()) })
	return t.err
}
