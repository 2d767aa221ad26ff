// Berth is Amazon ECS on your own machines: one program that answers the AWS
// APIs around ECS and makes them true. See ARCHITECTURE.md.
//
// This package is where the parts are put together, and the only one that
// knows them all. It must hold no behaviour of its own: what a role does lives
// in the packages that it wires.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	// First of all: under their names this program is a container's shim or
	// init, and nothing else of it is to be set up.
	_ "github.com/berth-run/berth/node/guest"
	_ "github.com/berth-run/berth/node/reaper"
	_ "github.com/berth-run/berth/node/shim"

	"github.com/berth-run/berth/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr, cli.Roles{
		Up: settling("up", up), Down: down, Environment: askEnvironment, Owner: askOwner, Status: status, Runtime: chooseRuntime,
		Server: settling("server", serverRole), Node: settling("node", nodeRole),
		Agent: settling("agent", agentRole), Containerd: settling("containerd", containerdRole),
	})
	stop()
	os.Exit(code)
}
