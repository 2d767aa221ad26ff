package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
)

// undertaker is the shim's manager as the daemon calls it when it has lost the
// connection to a container's shim: to kill and remove what is left of the
// container. The daemon does so in its own time, and by the container's name.
// The same container may have been made anew meanwhile, by another shim; then
// it is not what was lost, and is left alone.
type undertaker struct{ shim.Shim }

// askWait bounds how long a shim is asked. One that makes a container answers
// when it has.
const askWait = 4 * time.Second

func (u undertaker) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return shim.StopStatus{}, err
	}
	// As the manager has it: the bundle may have got another name.
	if err := abandoned(ctx, filepath.Join(filepath.Dir(cwd), id), id); err != nil {
		return shim.StopStatus{}, fmt.Errorf("%s is not to be cleaned up: %w", id, err)
	}
	return u.Shim.Stop(ctx, id)
}

// abandoned returns an error unless no shim holds the container of a bundle.
func abandoned(ctx context.Context, bundle, id string) error {
	b, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if errors.Is(err, os.ErrNotExist) {
		// The daemon writes it before it has a container made.
		return errors.New("no shim was asked to make it")
	}
	if err != nil {
		return err
	}
	var params struct{ Address string }
	if err := json.Unmarshal(b, &params); err != nil {
		return fmt.Errorf("address of its shim: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(params.Address, "unix://"))
	if err != nil {
		return nil // nobody is there
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	_, err = taskapi.NewTTRPCTaskClient(client).State(ctx, &taskapi.StateRequest{ID: id})
	switch {
	case err == nil:
		return errors.New("a shim holds it")
	case errdefs.IsNotFound(errgrpc.ToNative(err)), errors.Is(err, ttrpc.ErrClosed):
		return nil
	}
	return fmt.Errorf("its shim: %w", err)
}
