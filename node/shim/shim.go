// Package shim makes this binary its own containerd shim. A process whose
// argv[0] is "containerd-shim-runc-v2" (a hard link in the run directory, made
// by package node/containerd) becomes the shim and never reaches main.
//
// It does so while packages are being initialised, on purpose. One shim lives
// beside every task and is executed twice to get there, so what the rest of
// the binary does at start (registries, tables, metrics) would be paid, in
// memory and in milliseconds, by each of them. Go initialises packages in the
// order of their import paths as soon as their imports are ready; this one
// comes before most of what a shim has no use for.
//
// The package must therefore import nothing but what a shim needs.
package shim

import (
	"context"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// Name is the file name under which this binary is a shim.
const Name = "containerd-shim-runc-v2"

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
			return task.NewTaskService(ic.Context, publisher.(shim.Publisher), stop.(shutdown.Service))
		},
	})
	// What goes wrong is answered to the daemon as an error. The log would
	// mostly be the library's epoll loop on cgroup v1, which complains as fast
	// as it can from the moment a shim is told to end.
	_ = log.SetLevel("fatal")
	shim.RunShim(context.Background(), manager.NewShimManager(Runtime))
}
