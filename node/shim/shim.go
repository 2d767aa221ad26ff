// Package shim makes this binary its own containerd shim. A process whose
// argv[0] is "containerd-shim-runc-v2" (a file in the run directory, put there
// by package node/containerd) becomes the shim and never reaches main.
//
// Usually that is the program of node/shim/slim, which is this package and
// nothing else. It may be the whole binary, too, and so it acts while packages
// are being initialised: one shim lives beside every task and is executed twice
// to get there, so what the rest of the binary does at start (registries,
// tables, metrics) would be paid, in memory and in milliseconds, by each of
// them. Go initialises packages in the order of their import paths as soon as
// their imports are ready; this one comes before most of what a shim has no use
// for.
//
// The package must therefore import nothing but what a shim needs.
package shim

import (
	"context"
	"os"
	"path/filepath"
	"runtime/debug"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	runc "github.com/containerd/go-runc"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/berth-run/berth/node/shim/start"
)

// Name is the file name under which this binary is a shim.
const Name = start.Name

// Runtime is the name of the runtime, as containers name it.
const Runtime = "io.containerd.runc.v2"

func init() {
	if len(os.Args) > 0 && filepath.Base(os.Args[0]) == Name {
		run()
		os.Exit(0)
	}
}

// run is the whole shim. The shim library starts every plug-in that is
// registered in the process, and this binary registers a daemon's; so forget
// them all and register the one that a shim is.
func run() {
	registry.Reset()
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
			if err != nil {
				return nil, err
			}
			stop, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
			if err != nil {
				return nil, err
			}
			tasks, err := task.NewTaskService(ic.Context, publisher.(shim.Publisher), stop.(shutdown.Service))
			if err != nil {
				return nil, err
			}
			// The library collects garbage as often as it can. At the usual pace
			// a shim takes a sixth less time, and no more memory.
			debug.SetGCPercent(100)
			runc.Monitor = launcher{runc.Monitor} // which the line before has set
			return steadfast{tasks}, nil
		},
	})
	// What goes wrong is answered to the daemon as an error. The log would
	// mostly be the library's epoll loop on cgroup v1, which complains as fast
	// as it can from the moment a shim is told to end.
	_ = log.SetLevel("fatal")
	runc.Monitor = launcher{runc.Monitor} // for `delete`, which makes no service
	shim.RunShim(context.Background(), undertaker{manager.NewShimManager(Runtime)})
}

// steadfast finishes what it began. A call's context ends when the daemon that
// made it dies, and with the context the library kills the runc that does the
// work: a container would be left half started, and report an exit that it
// never had. The next daemon finds it started or not at all.
type steadfast struct{ taskapi.TTRPCTaskService }

// RegisterTTRPC puts this service, and not the one inside, on the socket.
func (s steadfast) RegisterTTRPC(server *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(server, s)
	return nil
}

func (s steadfast) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	return s.TTRPCTaskService.Create(context.WithoutCancel(ctx), r)
}

func (s steadfast) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	return s.TTRPCTaskService.Start(context.WithoutCancel(ctx), r)
}

func (s steadfast) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	return s.TTRPCTaskService.Delete(context.WithoutCancel(ctx), r)
}

func (s steadfast) Kill(ctx context.Context, r *taskapi.KillRequest) (*emptypb.Empty, error) {
	return s.TTRPCTaskService.Kill(context.WithoutCancel(ctx), r)
}
