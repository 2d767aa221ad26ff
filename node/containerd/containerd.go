// Package containerd is the containerd daemon as a role of this binary: the
// few plug-ins that running containers takes, in directories of their own, on
// a socket of its own. It clashes with no other containerd or Docker on the
// machine and needs none.
//
// It runs as a child process (`berth containerd`) and may be killed at any
// moment: containers belong to their shims and run on; the next daemon finds
// them in its state directory.
//
// It must never decide anything about containers; package agent/containerd is
// its only client.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/cmd/containerd/server"
	"github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/log"

	// The plug-ins that running containers takes.
	_ "github.com/containerd/containerd/v2/core/runtime/v2"
	_ "github.com/containerd/containerd/v2/plugins/content/local/plugin"
	_ "github.com/containerd/containerd/v2/plugins/diff/walking/plugin"
	_ "github.com/containerd/containerd/v2/plugins/events"
	_ "github.com/containerd/containerd/v2/plugins/gc"
	_ "github.com/containerd/containerd/v2/plugins/leases"
	_ "github.com/containerd/containerd/v2/plugins/metadata"
	_ "github.com/containerd/containerd/v2/plugins/mount"
	_ "github.com/containerd/containerd/v2/plugins/server/grpc"
	_ "github.com/containerd/containerd/v2/plugins/server/ttrpc"
	_ "github.com/containerd/containerd/v2/plugins/services/containers"
	_ "github.com/containerd/containerd/v2/plugins/services/content"
	_ "github.com/containerd/containerd/v2/plugins/services/diff"
	_ "github.com/containerd/containerd/v2/plugins/services/events"
	_ "github.com/containerd/containerd/v2/plugins/services/images"
	_ "github.com/containerd/containerd/v2/plugins/services/introspection"
	_ "github.com/containerd/containerd/v2/plugins/services/leases"
	_ "github.com/containerd/containerd/v2/plugins/services/namespaces"
	_ "github.com/containerd/containerd/v2/plugins/services/snapshots"
	_ "github.com/containerd/containerd/v2/plugins/services/tasks"
	_ "github.com/containerd/containerd/v2/plugins/services/version"
	_ "github.com/containerd/containerd/v2/plugins/services/warning"
	_ "github.com/containerd/containerd/v2/plugins/snapshots/overlay/plugin"

	"github.com/berth-run/berth/node/oci"
	"github.com/berth-run/berth/node/shim"
)

// Dirs says where a daemon keeps what.
type Dirs struct {
	// Root is for what outlives a reboot: images, layers, metadata.
	Root string
	// Run is for what does not: sockets, bundles, the shim. It must be
	// short, for the paths of sockets are limited to 108 bytes.
	Run string
}

// Socket is the daemon's gRPC socket.
func (d Dirs) Socket() string { return filepath.Join(d.Run, "c.sock") }

// State is where the bundles of running containers are.
func (d Dirs) State() string { return filepath.Join(d.Run, "state") }

// ShimSockets is where the shims listen.
func (d Dirs) ShimSockets() string { return filepath.Join(d.Run, "s") }

// Shim is the shim's program.
func (d Dirs) Shim() string { return filepath.Join(d.Run, shim.Name) }

// Options of a daemon beyond its directories.
type Options struct {
	// LogLevel is containerd's; "error" if empty.
	LogLevel string
	// Ready, if set, is called once the daemon accepts calls.
	Ready func()
}

// Main runs the daemon until ctx is done. It logs JSON lines to stderr.
func Main(ctx context.Context, dirs Dirs, opts Options) error {
	if opts.LogLevel == "" {
		opts.LogLevel = "error"
	}
	if err := errors.Join(log.SetFormat(log.JSONFormat), log.SetLevel(opts.LogLevel)); err != nil {
		return err
	}
	// The container daemons' own umask: modes in layers must come out as
	// they went in.
	syscall.Umask(0)
	for _, dir := range []string{dirs.Root, dirs.Run, dirs.ShimSockets()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	if err := installShim(dirs.Shim(), slim); err != nil {
		return fmt.Errorf("install shim: %w", err)
	}
	// The daemon finds shims by PATH; ours comes before the machine's, whose
	// version may be another.
	if err := os.Setenv("PATH", dirs.Run+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		return err
	}
	if err := oci.Share(ctx); err != nil {
		log.G(ctx).WithError(err).Warn("crun is started as it is")
	}
	cfg := &config.Config{
		Version: 4,
		Root:    dirs.Root,
		State:   dirs.State(),
		TempDir: filepath.Join(dirs.Root, "tmp"),
		Plugins: map[string]any{
			"io.containerd.server.v1.grpc":  map[string]any{"address": dirs.Socket()},
			"io.containerd.server.v1.ttrpc": map[string]any{"address": dirs.Socket() + ".ttrpc"},
			"io.containerd.shim.v1.manager": map[string]any{"socket_dir": dirs.ShimSockets()},
			// Nothing is deleted in bulk here, so collect soon after the
			// first deletion instead of pacing by thresholds.
			"io.containerd.gc.v1.scheduler": map[string]any{"deletion_threshold": 1, "schedule_delay": "100ms", "startup_delay": "1s"},
		},
		RequiredPlugins: []string{
			"io.containerd.grpc.v1.tasks", "io.containerd.grpc.v1.containers", "io.containerd.grpc.v1.content",
			"io.containerd.grpc.v1.diff", "io.containerd.grpc.v1.events", "io.containerd.grpc.v1.images",
			"io.containerd.grpc.v1.leases", "io.containerd.grpc.v1.snapshots",
			"io.containerd.snapshotter.v1.overlayfs", "io.containerd.gc.v1.scheduler",
		},
	}
	if err := server.CreateTopLevelDirectories(cfg); err != nil {
		return fmt.Errorf("containerd directories: %w", err)
	}
	if err := dirs.sweepSnapshots(ctx); err != nil {
		return err
	}
	salvaged, err := dirs.salvage(ctx)
	if err != nil {
		return fmt.Errorf("exits that were missed: %w", err)
	}
	// Asked to end while it starts, the daemon must not take the shims that it was about to load for
	// broken ones: it would clean up after them, which kills their containers.
	s, err := server.New(context.WithoutCancel(ctx), cfg)
	if err := errors.Join(err, salvaged()); err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	defer s.Stop()
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	s.Wait()
	if opts.Ready != nil {
		opts.Ready()
	}
	<-ctx.Done()
	return nil
}
