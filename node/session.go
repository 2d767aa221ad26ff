package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/node/instance"
)

// Terminals says how a node has terminals. Who wires the node knows the
// runtime; the node does not.
type Terminals struct {
	// Open runs a process with a terminal in a container.
	Open func(ctx context.Context, p instance.Place, container string, e runtime.Exec) (Terminal, error)
	// HangUp ends what an earlier node has left of its terminals in these places.
	HangUp func(places []instance.Place) error
}

// Terminal is a process with a terminal.
type Terminal interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	Resize(ctx context.Context, columns, rows uint16) error
	Ended() <-chan struct{}
	Code() (int, error)
	Close() error
}

const (
	// maxSessions may wait for the node to take them up.
	maxSessions = 1024
	// lastWords is how long the output of a process that has ended may go on:
	// what it left running has the terminal, too.
	lastWords = 200 * time.Millisecond
	// terminalWait is how long a terminal may take to begin, and a frame to be sent.
	terminalWait = 20 * time.Second
)

// sessions are the terminals that the server has asked for.
type sessions struct {
	asked chan fabric.Session
	mu    sync.Mutex
	run   map[string]bool
}

func newSessions() *sessions {
	return &sessions{asked: make(chan fabric.Session, maxSessions), run: map[string]bool{}}
}

// add never waits.
func (s *sessions) add(x fabric.Session) bool {
	select {
	case s.asked <- x:
		return true
	default:
		return false
	}
}

// serveSessions runs terminals until ctx ends, and ends them with it.
func (n *node) serveSessions(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	if n.cfg.Terminals != nil {
		places := []instance.Place{n.fargate()}
		if n.instances != nil {
			places = append(places, n.instances.Places()...)
		}
		if err := n.cfg.Terminals.HangUp(places); err != nil {
			n.log.Error("terminals of an earlier node", "err", err)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case x := <-n.sessions.asked:
			n.sessions.mu.Lock()
			have := n.sessions.run[x.ID]
			n.sessions.run[x.ID] = true
			n.sessions.mu.Unlock()
			if have {
				continue
			}
			running.Go(func() {
				defer func() {
					n.sessions.mu.Lock()
					delete(n.sessions.run, x.ID)
					n.sessions.mu.Unlock()
				}()
				if err := n.session(ctx, x); err != nil && ctx.Err() == nil {
					n.log.Info("terminal", "session", x.ID, "err", err)
				}
			})
		}
	}
}

// fargate is where the hidden agent has its containers.
func (n *node) fargate() instance.Place {
	l := n.cfg.Layout
	return instance.Place{Namespace: l.Namespace(), Dir: l.AgentRun(), Cgroup: l.Cgroup()}
}

// session brings one terminal to the server, for as long as both want it.
func (n *node) session(ctx context.Context, x fabric.Session) error {
	transport := n.transport()
	defer transport.CloseIdleConnections()
	begin, cancel := context.WithTimeout(ctx, terminalWait)
	defer cancel()
	c, _, err := websocket.Dial(begin, "ws://server"+fabric.SessionPath+x.ID, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(1 << 20)
	t, err := n.terminal(begin, x)
	if err != nil {
		return errors.Join(err, write(ctx, c, fabric.TerminalFrame{Error: "The command could not be run: " + err.Error()}))
	}
	err = carry(ctx, c, t)
	return errors.Join(err, t.Close())
}

// terminal begins what a session asks for.
func (n *node) terminal(ctx context.Context, x fabric.Session) (Terminal, error) {
	if n.cfg.Terminals == nil {
		return nil, errors.New("this machine has no terminals")
	}
	place, container := n.fargate(), x.Container
	e := runtime.Exec{Args: x.Command, User: "0:0", Env: []string{"TERM=xterm-256color"}}
	if x.Instance != "" && n.instances == nil {
		return nil, errors.New("this machine has no instances")
	}
	var err error
	switch {
	case x.Instance != "" && x.Container == "":
		container = x.Instance
		place, e, err = n.instances.Shell(x.Instance, x.Command)
	case x.Instance != "":
		place, err = n.instances.Tasks(x.Instance)
	}
	if err != nil {
		return nil, err
	}
	return n.cfg.Terminals.Open(ctx, place, container, e)
}

// carry moves bytes both ways until the process ends or the server goes.
func carry(ctx context.Context, c *websocket.Conn, t Terminal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var both sync.WaitGroup
	said := make(chan error, 1) // the terminal is at its end, or nobody listens
	both.Go(func() { said <- speak(ctx, c, t) })
	heard := make(chan error, 1)
	both.Go(func() { heard <- listen(ctx, c, t) })
	var err error
	select {
	case err = <-heard: // the server has gone, and with it who sat here
	case <-t.Ended():
		late := time.NewTimer(lastWords)
		defer late.Stop()
		select {
		case err = <-said:
		case <-late.C:
		}
		frame := fabric.TerminalFrame{}
		code, problem := t.Code()
		if frame.Exit = &code; problem != nil {
			frame.Error = problem.Error()
		}
		if err == nil {
			if err = write(ctx, c, frame); err == nil {
				c.Close(websocket.StatusNormalClosure, "")
			}
		}
	}
	cancel()
	err = errors.Join(err, t.Close()) // what ends a read of it
	both.Wait()
	return err
}

// speak sends what the terminal says.
func speak(ctx context.Context, c *websocket.Conn, t Terminal) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := t.Read(buf)
		if n > 0 {
			if err := c.Write(ctx, websocket.MessageBinary, buf[:n]); err != nil {
				return fmt.Errorf("send: %w", err)
			}
		}
		if err != nil {
			return nil // its end
		}
	}
}

// listen passes on what the server sends.
func listen(ctx context.Context, c *websocket.Conn, t Terminal) error {
	for {
		kind, b, err := c.Read(ctx)
		if err != nil {
			if ctx.Err() != nil || websocket.CloseStatus(err) != -1 {
				return nil
			}
			return fmt.Errorf("receive: %w", err)
		}
		if kind == websocket.MessageBinary {
			if _, err := t.Write(b); err != nil {
				return nil // it has ended
			}
			continue
		}
		var f fabric.TerminalFrame
		if err := json.Unmarshal(b, &f); err != nil {
			return fmt.Errorf("frame of a terminal: %w", err)
		}
		if err := t.Resize(ctx, f.Columns, f.Rows); err != nil {
			select {
			case <-t.Ended():
			default:
				return fmt.Errorf("size of a terminal: %w", err)
			}
		}
	}
}
