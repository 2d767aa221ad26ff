package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/ttrpc"
)

// Exit is how a container's process ended while no daemon was there to hear
// of it.
type Exit struct {
	Pid      int       `json:"pid"`
	Code     int       `json:"code"`
	ExitedAt time.Time `json:"exitedAt"`
}

// Exits is where such exits are written, as <namespace>/<container>.
func (d Dirs) Exits() string { return filepath.Join(d.Run, "exits") }

// salvageWait bounds what a hanging shim may cost the start of the daemon.
const salvageWait = 2 * time.Second

// salvage writes down the exits of containers that no daemon hears of: those
// that happened while there was none, and those that happen until this one has
// taken over. The daemon itself, on finding a shim without a live process,
// removes it and the exit code with it. So this waits for every process before
// the daemon looks, and until the function that it answers is called.
func (d Dirs) salvage(ctx context.Context) (done func() error, err error) {
	bundles, err := filepath.Glob(filepath.Join(d.State(), "io.containerd.runtime.v2.task", "*", "*"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var ready, finished sync.WaitGroup
	errs := make([]error, len(bundles))
	for i, bundle := range bundles {
		ready.Add(1)
		finished.Go(func() {
			namespace, id := filepath.Base(filepath.Dir(bundle)), filepath.Base(bundle)
			exit, ok := awaitExit(namespaces.WithNamespace(ctx, namespace), bundle, ready.Done)
			if ok {
				errs[i] = d.keep(namespace, id, exit)
			}
		})
	}
	ready.Wait()
	return func() error {
		cancel()
		finished.Wait()
		return errors.Join(errs...)
	}, nil
}

// awaitExit waits until a container's process has ended. It calls ready when
// the shim knows that somebody waits, or when nothing can be known.
func awaitExit(ctx context.Context, bundle string, ready func()) (Exit, bool) {
	ready = sync.OnceFunc(ready)
	defer ready()
	b, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if err != nil {
		return Exit{}, false
	}
	var params struct{ Address, Protocol string }
	if json.Unmarshal(b, &params) != nil || params.Protocol != "ttrpc" {
		return Exit{}, false
	}
	ask, cancel := context.WithTimeout(ctx, salvageWait)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ask, "unix", strings.TrimPrefix(params.Address, "unix://"))
	if err != nil {
		return Exit{}, false
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	shim := taskapi.NewTTRPCTaskClient(client)
	id := filepath.Base(bundle)
	state, err := shim.State(ask, &taskapi.StateRequest{ID: id})
	if err != nil {
		return Exit{}, false
	}
	waited := make(chan *taskapi.WaitResponse, 1)
	go func() {
		resp, err := shim.Wait(ctx, &taskapi.WaitRequest{ID: id})
		if err != nil {
			resp = nil
		}
		waited <- resp
	}()
	// The shim takes what comes over one connection in order: when it has
	// answered this, it has heard the other.
	if state.Status != task.Status_STOPPED {
		if _, err := shim.State(ask, &taskapi.StateRequest{ID: id}); err == nil {
			ready()
		}
	}
	resp := <-waited
	if resp == nil {
		return Exit{}, false
	}
	return Exit{Pid: int(state.Pid), Code: int(resp.ExitStatus), ExitedAt: resp.ExitedAt.AsTime()}, true
}

func (d Dirs) keep(namespace, id string, exit Exit) error {
	b, err := json.Marshal(exit)
	if err != nil {
		return err
	}
	dir := filepath.Join(d.Exits(), namespace)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+id)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("keep exit of %s: %w", id, err)
	}
	return os.Rename(tmp, filepath.Join(dir, id))
}
