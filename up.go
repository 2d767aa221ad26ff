package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/cli"
	"github.com/berth-run/berth/node"
	"github.com/berth-run/berth/process"
	"github.com/berth-run/berth/service/throttle"
)

// Grace periods of the roles when the region ends.
const (
	serverGrace = 10 * time.Second
	nodeGrace   = 15 * time.Second
	upGrace     = 30 * time.Second
)

// up starts a region, and keeps it running unless it is to be detached.
func up(ctx context.Context, o cli.UpOptions) error {
	l, err := newLayout(o.DataDir)
	if err != nil {
		return err
	}
	have, known, err := l.load()
	if err != nil {
		return err
	}
	s := settings{Listen: first(o.Listen, have.Listen, cli.DefaultListen), Region: first(o.Region, have.Region, cli.DefaultRegion), Account: first(o.Account, have.Account, cli.DefaultAccount), Throttle: first(o.Throttle, have.Throttle)}
	if known && (s.Region != have.Region || s.Account != have.Account) {
		return cli.WithHint(fmt.Errorf("%s holds region %s of account %s", l.data, have.Region, have.Account), "Another --data-dir takes another region.")
	}
	if err := l.begin(); err != nil {
		return err
	}
	if o.Detach {
		if _, running := process.Find(l.run(), "up"); running {
			if known && s == have {
				return cli.ErrRunning
			}
			return cli.WithHint(fmt.Errorf("the region is running with other settings: %s, region %s, account %s, throttle %s", have.Listen, have.Region, have.Account, first(have.Throttle, fmt.Sprint(throttle.Default))), "`berth down` with the same --data-dir stops it.")
		}
		return detach(ctx, l, s, o)
	}
	unlock, err := lock(l)
	if err != nil {
		return err
	}
	defer unlock()
	// A port that is taken would only show as a server that ends again and again.
	if _, ok := process.Find(l.run(), "server"); !ok {
		t, err := net.Listen("tcp", s.Listen)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		t.Close()
	}
	if err := l.save(s); err != nil {
		return err
	}
	return supervise(ctx, l, s, o)
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// lock makes this process the region's only supervisor.
func lock(l layout) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(l.run(), "up.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock region: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, cli.WithHint(fmt.Errorf("a region runs on %s already", l.data), "`berth status` with the same --data-dir shows it, `berth down` stops it.")
	}
	return func() { f.Close() }, nil
}

// joinPatience is how long a region that answers waits for its machine before
// it says that it is up nevertheless.
const joinPatience = 30 * time.Second

// awaitMachine waits until the server knows a machine.
func awaitMachine(ctx context.Context, dataDir string) error {
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	res, err := askOwner(ctx, dataDir, http.MethodGet, joinedPath, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the server answers %s", res.Status)
	}
	return nil
}

// supervise keeps the server and the node running until ctx ends.
func supervise(ctx context.Context, l layout, s settings, o cli.UpOptions) error {
	log := newLog("up")
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	if err := process.Register(l.run(), "up"); err != nil {
		return err
	}
	defer process.Unregister(l.run(), "up")
	served := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case <-served:
		case <-ctx.Done():
			return nil
		}
		// A region without its machine refuses instances.
		if err := awaitMachine(ctx, l.data); ctx.Err() != nil {
			return nil
		} else if err != nil {
			log.Warn("no machine has joined the region yet", "err", err)
			o.Progress("no machine has joined the region yet: " + filepath.Join(l.logs(), "node.log") + " may say why")
		}
		o.Ready()
		if err := process.Notify(); err != nil {
			log.Error("say that the region is up", "err", err)
		}
		return nil
	})
	for _, c := range []process.Spec{
		{Name: "server", Grace: serverGrace, Ready: sync.OnceFunc(func() { close(served) })},
		{Name: "node", Grace: nodeGrace},
	} {
		c.Path, c.Args, c.RunDir, c.LogDir = binary, roleArgs(c.Name, l, o.Containerd, o.HealthyAfter), l.run(), l.logs()
		g.Go(func() error { return process.Keep(ctx, c, log) })
	}
	o.Progress("starting the region")
	return g.Wait()
}

// detach starts a supervisor that outlives this process, and returns when the
// region answers.
func detach(ctx context.Context, l layout, s settings, o cli.UpOptions) error {
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.logs(), 0o700); err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	path := filepath.Join(l.logs(), "up.log")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	args := []string{"up", "--data-dir", l.data, "--listen", s.Listen, "--region", s.Region, "--account", s.Account, "--healthy-after", o.HealthyAfter.String()}
	if o.Containerd != "" {
		args = append(args, "--containerd", o.Containerd)
	}
	if s.Throttle != "" {
		args = append(args, "--throttle", s.Throttle)
	}
	c := exec.Command(binary, args...)
	c.Stdout, c.Stderr, c.Dir = out, out, "/"
	c.Env = append(os.Environ(), process.ReadyVariable+"=3")
	c.ExtraFiles = []*os.File{w}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = c.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start region: %w", err)
	}
	o.Progress("starting the region")
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(r).ReadString('\n')
		said <- line
	}()
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case line := <-said:
		if line != "" {
			return c.Process.Release()
		}
		err = <-ended
	case err = <-ended:
	case <-ctx.Done():
		_ = c.Process.Signal(syscall.SIGTERM)
		<-ended
		return ctx.Err()
	}
	if err == nil {
		err = errors.New("it ended by itself")
	}
	return fmt.Errorf("the region did not start: %w: %s", err, lastWords(path))
}

// lastWords are what a supervisor said last: its error with its hints, or a line of its log.
func lastWords(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i, l := range slices.Backward(lines) {
		if words, ok := strings.CutPrefix(l, "berth: "); ok {
			return strings.Join(append([]string{words}, lines[i+1:]...), "\n")
		}
	}
	return lines[len(lines)-1]
}

// roleNames are the processes of a region in the order they are ended: each
// supervisor before those it would start again.
var roleNames = []string{"up", "node", "agent", "server", "containerd"}

// down ends a region and takes out of the machine what it put there.
func down(ctx context.Context, dataDir string, purge bool, progress func(string)) error {
	l, err := newLayout(dataDir)
	if err != nil {
		return err
	}
	_, known, err := l.load()
	if err != nil {
		return err
	}
	if _, err := os.Stat(l.run()); errors.Is(err, fs.ErrNotExist) {
		if known && purge {
			return l.remove()
		}
		return cli.ErrNotRunning
	}
	progress("stopping the region's processes")
	for _, name := range roleNames {
		if err := process.Replace(l.run(), name, upGrace); err != nil {
			return err
		}
	}
	// A supervisor that was starting up while it was looked for holds the lock.
	unlock, err := lock(l)
	if err != nil {
		return err
	}
	defer unlock()
	progress("stopping tasks and removing networks")
	if err := node.CleanUp(ctx, node.Remains{ShortID: l.shortID(), RunDir: l.run(), DataDir: l.data, Cgroup: l.nodeLayout().Cgroup()}); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	if purge {
		progress("removing data")
		return l.remove()
	}
	return nil
}

// askEnvironment asks the running server.
func askEnvironment(ctx context.Context, dataDir string) (e cli.Environment, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	res, err := askOwner(ctx, dataDir, http.MethodGet, envPath, nil)
	if err != nil {
		return e, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return e, fmt.Errorf("the server answers %s", res.Status)
	}
	err = json.NewDecoder(res.Body).Decode(&e)
	return e, err
}

// askOwner makes a request on the socket that only the owner of the region can
// open. The caller closes the answer's body.
func askOwner(ctx context.Context, dataDir, method, path string, in any) (*http.Response, error) {
	l, err := newLayout(dataDir)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://server"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.socket())
	}}}
	res, err := client.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w on %s", cli.ErrNotRunning, l.data)
	}
	return res, err
}

// status looks for the region's processes.
func status(_ context.Context, dataDir string) (st cli.Status, err error) {
	l, err := newLayout(dataDir)
	if err != nil {
		return st, err
	}
	if _, err := os.Stat(l.run()); errors.Is(err, fs.ErrNotExist) {
		return st, fmt.Errorf("%w on %s", cli.ErrNotRunning, l.data)
	}
	for _, name := range []string{"up", "server", "node", "containerd", "agent"} {
		p, ok := process.Find(l.run(), name)
		c := cli.Process{Name: name}
		if ok {
			c = cli.Process{Name: name, PID: p.PID, RSS: p.RSS, Started: p.Started, Restarts: p.Restarts}
		}
		st.Processes = append(st.Processes, c)
	}
	// There is none before the node has spoken to a server for the first time.
	if a, err := node.LoadAgentSettings(l.nodeLayout().AgentSettings()); err == nil {
		st.Runtime = cli.Runtime{Name: a.OCIRuntime, Why: a.Because}
	}
	return st, nil
}
