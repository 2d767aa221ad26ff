package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/berth-run/berth/node/containerd"
	_ "github.com/berth-run/berth/node/shim"
	_ "go.etcd.io/etcd/server/v3/embed"
	_ "github.com/containerd/containerd/v2/client"
)

func main() {
	if len(os.Args) < 3 { return }
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	fmt.Println(containerd.Main(ctx, containerd.Dirs{Root: os.Args[1] , Run: os.Args[2]}, containerd.Options{LogLevel: "info", Ready: func() { fmt.Println("ready") }}))
}
