// Command demo runs the main job of a region in front of you: it starts one,
// builds an image, pushes it as a user with exactly the permissions that this
// takes, runs it as a Fargate service and opens the page of every task.
//
// It is a client like any other and must use nothing but the public API; what
// it makes carries the name demo and stays. It can be run again and again.
//
//	go run ./demo [-berth bin/berth]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	berth := flag.String("berth", "bin/berth", "the program")
	dataDir := flag.String("data-dir", "", "data directory of the region (default: the program's)")
	listen := flag.String("listen", "", "address of the region's API (default: the program's)")
	timeout := flag.Duration("timeout", 5*time.Minute, "give up after this time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()

	d := &demo{show: newShow(os.Stdout), berth: *berth, dataDir: *dataDir, listen: *listen}
	if err := d.run(ctx); err != nil {
		d.show.fail(err)
		if errors.Is(err, context.DeadlineExceeded) {
			fmt.Fprintf(os.Stderr, "It did not come to an end within %v. ", *timeout)
		}
		fmt.Fprintf(os.Stderr, "%s shows what the region's processes say.\n", d.command("logs"))
		os.Exit(1)
	}
}

// Names of what the demo makes.
const (
	repository    = "demo/web"
	userName      = "demo-pusher"
	executionRole = "demo-execution"
	groupName     = "demo-web"
	logGroup      = "/ecs/demo-web"
	family        = "demo-web"
	serviceName   = "web"
	cluster       = "default"
	tasks         = 2
)

// demo is one run.
type demo struct {
	show           *show
	berth          string
	dataDir        string
	listen         string
	region         *region
	repositoryName string // as an image reference names it
	taskDefinition string
}

func (d *demo) run(ctx context.Context) error {
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"A region on this machine", d.start},
		{"An image, pushed by a user who may", d.push},
		{"A task definition, a role, a security group", d.define},
		{"A Fargate service of two tasks", d.serve},
		{"The page of every task, from this machine", d.visit},
	} {
		d.show.title(step.title)
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	d.show.title("The region stays. Next")
	d.show.say("eval \"$(%s)\"", d.command("env"))
	d.show.say("aws ecs list-tasks --service-name %s", serviceName)
	d.show.say("aws ecs update-service --service %s --desired-count 4", serviceName)
	d.show.say("aws logs filter-log-events --log-group-name %s --query 'events[].message'", logGroup)
	d.show.say("%s", d.command("status"))
	d.show.say("%s", d.command("down"))
	return nil
}

// command is a line to type that reaches the region.
func (d *demo) command(name string) string {
	if d.dataDir != "" {
		return d.berth + " " + name + " --data-dir " + d.dataDir
	}
	return d.berth + " " + name
}
